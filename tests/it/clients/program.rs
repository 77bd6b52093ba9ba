//! An application as a child process.

use super::language::Language;
use crate::common::{Process, Proxy, all_threads_are, at, child_of, eventually};
use std::io::Write;
use std::ops::{Deref, DerefMut};
use std::process::Stdio;

/// A running application, and a [`Process`].
#[derive(Debug)]
pub struct Program(Process, Language);

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
        let mut command = language.application(proxies, bridges);
        command
            .env_remove("BRIDGE_HOSTS")
            .env_remove("BRIDGE_KEYS")
            .env_remove("BRIDGE_BEARER_KEYS")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped());
        Program(Process::spawn("the program", &mut command), language)
    }

    /// Lets the request for `/wait` go on.
    #[track_caller]
    pub fn go_on(&mut self) {
        let stdin = self.child().stdin.as_mut().expect("a pipe");
        stdin.write_all(b"go on\n").expect("the program reads");
    }

    /// Waits for its end, which must be a good one: after it had left.
    #[track_caller]
    pub fn await_end(&mut self) {
        let status = self.wait_exit();
        assert!(status.success(), "{status:?}: {}", self.log());
        self.await_log(self.1.deregistration());
    }

    /// As [`Process::await_asleep`], for the process that serves, too, if it is a child of the program.
    #[track_caller]
    pub fn await_asleep(&self) {
        eventually("every thread sleeps", || {
            let child = child_of(self.0.id());
            self.0.is_asleep() && child.is_none_or(|child| all_threads_are(child, 'S'))
        });
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.exit_status().is_none()
    }
}

impl Deref for Program {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.0
    }
}

impl DerefMut for Program {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.0
    }
}
