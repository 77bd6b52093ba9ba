//! The proxy's binary when it is expected to end by itself.

use super::DEADLINE;
use super::dir::Dir;
use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

/// A run of the proxy's binary that is expected to end by itself.
#[derive(Debug)]
pub struct Run {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub out: String,
    /// What it complained of.
    pub err: String,
}

impl Run {
    /// Runs the binary with these arguments in a fresh directory that holds these files; `{dir}` in an argument or a file stands for it.
    #[track_caller]
    pub fn new(args: &[&str], files: &[(&str, &str)]) -> Run {
        let dir = Dir::new();
        let path = dir.path().display().to_string();
        for (name, contents) in files {
            dir.write(name, &contents.replace("{dir}", &path));
        }
        let mut child = Command::new(env!("CARGO_BIN_EXE_cloudbridge"))
            .args(args.iter().map(|arg| arg.replace("{dir}", &path)))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the proxy's binary can be started");
        let out = collect(child.stdout.take().expect("a pipe"));
        let err = collect(child.stderr.take().expect("a pipe"));
        let until = Instant::now() + DEADLINE;
        let status = loop {
            if let Some(status) = child.try_wait().expect("the child can be waited for") {
                break status;
            }
            if Instant::now() >= until {
                child.kill().expect("kill");
                let err = err.join().expect("a reader's thread");
                panic!("cloudbridge {args:?} still runs after {DEADLINE:?}:\n{err}");
            }
            std::thread::sleep(super::POLL);
        };
        let text = |thread: std::thread::JoinHandle<String>| {
            thread.join().expect("a reader's thread").replace(&path, "{dir}")
        };
        Run { status, out: text(out), err: text(err) }
    }
}

fn collect(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("a pipe can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
