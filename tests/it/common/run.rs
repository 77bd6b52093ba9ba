//! The proxy's binary when it is expected to end by itself.

use super::dir::Dir;
use super::process;
use std::process::{Command, ExitStatus, Stdio};

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
    /// Runs the binary with these arguments in a fresh directory that holds these files; `{dir}` in
    /// an argument or a file stands for it.
    #[track_caller]
    pub fn new(args: &[&str], files: &[(&str, &str)]) -> Run {
        let dir = Dir::new();
        let path = dir.path().display().to_string();
        for (name, contents) in files {
            dir.write(name, &contents.replace("{dir}", &path));
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloudbridge"));
        command.args(args.iter().map(|arg| arg.replace("{dir}", &path)));
        let output = process::run(command.env_remove("RUST_LOG").stdin(Stdio::null()));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&path, "{dir}");
        Run { status: output.status, out: text(&output.stdout), err: text(&output.stderr) }
    }
}
