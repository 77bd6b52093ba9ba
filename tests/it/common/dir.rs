//! A directory for the files of one test.

use super::run_well;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Files that programs take only if nobody else can read them.
const SECRET: [&str; 6] = ["secrets", "password", "token", "key", "keys", "tls.key"];

/// A directory of one test's own, removed with it; and no process that was started with a file of it
/// outlives it.
#[derive(Debug)]
pub struct Dir(PathBuf);

impl Dir {
    /// Makes an empty one.
    pub fn new() -> Dir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("cloudbridge-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a directory for the test");
        Dir(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Puts a file into it and returns where that is. A file of secrets is its owner's alone, and a
    /// script can be run.
    pub fn write(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.0.join(name);
        if contents.starts_with("#!") {
            // By another process: a child that another test starts just then must not have it open, or
            // it could not be run.
            let line = "printf %s \"$1\" >\"$0\" && chmod 755 \"$0\"";
            run_well(Command::new("sh").args(["-c", line]).arg(&path).arg(contents));
        } else {
            std::fs::write(&path, contents).expect("a file of the test");
        }
        if SECRET.contains(&name.trim_end_matches(".new")) {
            let mode = Permissions::from_mode(0o600);
            std::fs::set_permissions(&path, mode).expect("a file of the test's own");
        }
        path
    }
}

/// The processes among whose arguments there is a file of this directory.
fn processes_of(dir: &Path) -> Vec<String> {
    let prefix = format!("{}/", dir.display());
    let is_one = |process: &String| {
        let arguments = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(&prefix)
    };
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = all.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).filter(is_one).collect()
}

impl Drop for Dir {
    fn drop(&mut self) {
        // Those that programs of the test have started: a new program in place of an old one, a script. A
        // script is a group of its own, with what it has started.
        for process in processes_of(&self.0) {
            let line = "kill -s KILL -- -$0 || kill -s KILL $0";
            let _ = Command::new("sh").args(["-c", line, &process]).stderr(Stdio::null()).status();
        }
        // A directory left behind in /tmp harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
