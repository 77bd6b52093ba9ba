//! The proxy as an operator's script starts it: in the background, with a pidfile and a log file.

use super::dir::Dir;
use super::encryption::note_plain;
use super::proxy::listener;
use super::{eventually, process, signal};
use std::fs::read_to_string;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A directory with the settings of a proxy that goes into the background, and that proxy while it
/// runs.
///
/// Its log is `log`, its pidfile `pid`, its settings `conf`. What still runs is killed when this is
/// dropped.
#[derive(Debug)]
pub struct Daemon {
    dir: Dir,
}

impl Daemon {
    /// Writes the settings. `{dir}` in them stands for the directory.
    pub fn new(settings: &str) -> Daemon {
        let dir = Dir::new();
        let daemon = Daemon { dir };
        daemon.set(settings);
        daemon
    }

    /// Writes them anew, for a reload or a second start.
    pub fn set(&self, settings: &str) {
        // A test on a busy machine may take longer to acknowledge a request than backends have by default.
        let common = "daemonize yes\nworkers 2\npidfile {dir}/pid\nlog-file {dir}/log\ninfo-host info.test\n\
                      bridge-ack-timeout 30s\n";
        let settings = format!("{common}{settings}\n")
            .replace("{dir}", &self.dir.path().display().to_string());
        self.dir.write("conf", &settings);
    }

    /// Starts it and returns when the started command has ended, with what it said.
    #[track_caller]
    pub fn launch(&self) -> Output {
        self.launch_with(|command| command)
    }

    /// As [`Daemon::launch`], with a command that is changed first.
    #[track_caller]
    pub fn launch_with(&self, change: impl Fn(&mut Command) -> &mut Command) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloudbridge"));
        command.arg("-c").arg(self.path("conf")).env_remove("RUST_LOG").stdin(Stdio::null());
        // A daemon that kept the streams would fail here.
        process::run(change(&mut command))
    }

    /// Starts it, and fails unless it serves when the command has ended.
    #[track_caller]
    pub fn start(&self) {
        let output = self.launch();
        assert!(output.status.success(), "{output:?}\n{}", self.log());
        assert!(output.stderr.is_empty() && output.stdout.is_empty(), "{output:?}");
        assert!(self.is_running(), "{}", self.log());
    }

    /// Where one of its files is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts a file into its directory.
    pub fn write(&self, name: &str, contents: &str) -> PathBuf {
        self.dir.write(name, contents)
    }

    /// What is in its log.
    pub fn log(&self) -> String {
        read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Waits until the log holds `text`.
    #[track_caller]
    pub fn await_log(&self, text: &str) {
        eventually(&format!("{text:?} in the log"), || self.log().contains(text));
    }

    /// The first address that it says it listens on, without TLS.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        let mut address = None;
        eventually("a listener in the log", || {
            address = self.log().lines().find_map(listener);
            address.is_some()
        });
        let (address, _) = address.expect("a listener");
        note_plain(address);
        address
    }

    /// The number in the pidfile.
    pub fn number(&self) -> Option<u32> {
        read_to_string(self.path("pid")).ok()?.strip_suffix('\n')?.parse().ok()
    }

    /// What the kernel says of the process in this file of /proc.
    pub fn kernel(&self, file: &str) -> String {
        let number = self.number().expect("a number in the pidfile");
        read_to_string(format!("/proc/{number}/{file}")).expect("/proc")
    }

    /// Whether the process that the pidfile names is there.
    pub fn is_running(&self) -> bool {
        self.number().is_some_and(|number| Path::new(&format!("/proc/{number}")).exists())
    }

    /// Sends the signal of this name.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        let number = self.number().expect("a number in the pidfile");
        signal(number, name);
    }

    /// Sends SIGTERM and waits for the end of the process.
    #[track_caller]
    pub fn stop(&self) {
        let number = self.number().expect("a number in the pidfile");
        self.signal("TERM");
        eventually("the proxy has ended", || is_gone(number));
    }
}

/// Whether a process has given back its descriptors and locks: no thread of it is left, or only
/// one that has still to be waited for. The kernel closes the descriptors one after the other, and
/// calls a thread a zombie after the last of them.
pub fn is_gone(process: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task"));
    let is_alive = |thread: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
    };
    !threads.is_ok_and(|threads| threads.flatten().any(is_alive))
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.is_running() {
            self.signal("KILL");
        }
        if std::thread::panicking() {
            eprintln!("--- the proxy's log ---\n{}", self.log());
        }
    }
}
