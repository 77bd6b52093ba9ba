//! Folders, programs and waiting.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How often a state is looked at.
const POLL: Duration = Duration::from_millis(20);

/// The root of the source.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of the built programs.
pub fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_cloudbridge")).parent().unwrap()
}

/// A file of the source.
#[track_caller]
pub fn source(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A folder of one test's own, removed with it.
pub struct Dir(PathBuf);

impl Dir {
    pub fn new() -> Dir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("cloudbridge-packaging-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Dir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file, and the folders above it.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether a program is there. If not, says that the test is skipped.
pub fn has(tool: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().unwrap();
    if !found.status.success() {
        println!("skipped: {tool} is not installed");
    }
    found.status.success()
}

/// Whether this is root. If not, says that the test is skipped.
pub fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap().stdout;
    if id != b"0\n" {
        println!("skipped: only root can do this");
    }
    id == b"0\n"
}

/// Both outputs of a command that must end well.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {status}: {text}");
    text.into_owned()
}

/// Waits until there is something.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "not in time: {what}");
        sleep(POLL);
    }
}

/// Holds a file of the source against what it should be, or writes it with `UPDATE_MANUALS=1`.
#[track_caller]
pub fn hold(name: &str, expected: &str) {
    let path = root().join(name);
    if std::env::var_os("UPDATE_MANUALS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, expected).unwrap();
        return;
    }
    let found = fs::read_to_string(path).unwrap_or_default();
    let differs = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    assert!(
        found == expected,
        "{name} is not what the tables say: run `make manuals`. The first line that differs, and what \
         it should be: {differs:?}"
    );
}
