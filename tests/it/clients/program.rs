//! An application as a child process.

use super::language::{Language, clients};
use crate::common::{Proxy, at, eventually, signal};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

/// A running application. It is killed when this is dropped, and what it has said is printed if the test is failing.
#[derive(Debug)]
pub struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    said: Arc<Mutex<String>>,
}

impl Program {
    /// Starts it for `*`, with so many bridges at this proxy, and waits until they are parked.
    #[track_caller]
    pub fn parked(language: Language, proxy: &Proxy, bridges: u64) -> Program {
        let program = Program::start(language, &at(proxy), bridges, &[]);
        proxy.await_count("b", bridges);
        program
    }

    /// Starts it with these variables in its environment.
    #[track_caller]
    pub fn start(
        language: Language,
        proxies: &str,
        bridges: u64,
        variables: &[(&str, &str)],
    ) -> Program {
        let mut command = Command::new(language.program());
        command
            .arg(language.application())
            .env_remove("BRIDGE_HOSTS")
            .env_remove("BRIDGE_KEYS")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("CLIENTS", clients())
            .env("PROXIES", proxies)
            .env("CONNECTIONS", bridges.to_string())
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program can be started");
        let said = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().expect("a pipe"), &said);
        collect(child.stderr.take().expect("a pipe"), &said);
        let stdin = child.stdin.take();
        Program { child, stdin, said }
    }

    /// Everything that it has printed, on either output.
    pub fn said(&self) -> String {
        self.said.lock().expect("what was said").clone()
    }

    /// Waits until it has printed this.
    #[track_caller]
    pub fn await_said(&self, text: &str) {
        eventually(&format!("{text:?} is said"), || self.said().contains(text));
    }

    /// Lets the request for `/wait` go on.
    #[track_caller]
    pub fn go_on(&mut self) {
        let stdin = self.stdin.as_mut().expect("a pipe");
        stdin.write_all(b"go on\n").expect("the program reads");
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        signal(self.child.id(), "TERM");
    }

    /// Waits for its end, which must be a good one: after it had left.
    #[track_caller]
    pub fn await_end(&mut self) {
        let mut status: Option<ExitStatus> = None;
        eventually("the program ends", || {
            status = self.child.try_wait().expect("the child can be waited for");
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", self.said());
        self.await_said("stopped");
    }

    /// Waits until it has nothing to do: what has been sent to it has been read and thought about. A thread that waits for
    /// bytes is runnable from the moment at which they come, so all of them asleep means that nothing is left.
    #[track_caller]
    pub fn await_idle(&self) {
        let mut asleep = 0;
        eventually("every thread of the program sleeps", || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
            let sleeps = tasks.expect("/proc").flatten().all(|task| {
                let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('S'))
            });
            // The threads are looked at one after the other, and one may wake another meanwhile.
            asleep = if sleeps { asleep + 1 } else { 0 };
            asleep == 3
        });
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the child can be waited for").is_none()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the program said ---\n{}", self.said());
        }
    }
}

/// Runs a program to its end, which must be a good one.
#[track_caller]
pub fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("the program can be started");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}: {text}", output.status);
}

fn collect(from: impl Read + Send + 'static, into: &Arc<Mutex<String>>) {
    let sink = Arc::clone(into);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            sink.lock().expect("what was said").push_str(&(line + "\n"));
        }
    });
}
