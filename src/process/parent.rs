//! A process whose end would be taken for the end of the service, such as process 1 of a container.
//! It stays when it has been replaced, as the parent of the programs that follow: it passes signals
//! on to them, and ends when the last of them has.

use std::fs;
use std::process::ExitCode;

use crate::net::sys::{self, Signal};

/// What a parent waits for.
pub enum Event {
    /// For the programs that follow.
    Signal(Signal),
    /// The last of them has ended, with this exit code.
    Ended(u8),
}

/// Whether somebody waits for this process, by what can be seen: it is process 1, or was started by
/// that one, which is an init of a container, or a systemd that is told nothing. `is_daemon`: it has
/// gone into the background, where nobody waits for it.
#[must_use]
pub fn is_awaited(is_daemon: bool) -> bool {
    let told = std::env::var_os("NOTIFY_SOCKET").is_some();
    std::process::id() == 1 || (std::os::unix::process::parent_id() == 1 && !told && !is_daemon)
}

/// Has the programs that follow given to this process when their own parents end.
pub fn adopt_all() {
    if let Err(error) = sys::become_subreaper() {
        log::warn!("upgrade: a later program's end will not be noticed here: {error}");
    }
}

/// A thread's work: waits until no child is left, and says so.
pub fn await_children(say: impl FnOnce(u8)) {
    let mut last = 0;
    while let Ok(code) = sys::wait_child() {
        last = code;
    }
    say(last);
}

/// Passes signals on until the last program has ended. Returns its exit code.
pub fn stay(events: impl Iterator<Item = Event>) -> ExitCode {
    for event in events {
        match event {
            Event::Signal(signal) => pass_on(signal),
            Event::Ended(code) => return ExitCode::from(code),
        }
    }
    ExitCode::FAILURE
}

/// Sends a signal to the program that serves: the child that was started last.
pub fn pass_on(signal: Signal) {
    let newest = children().into_iter().max_by_key(|child| child.started);
    if let Some(child) = newest
        && let Err(error) = sys::send_signal(child.process, signal)
    {
        log::warn!("cannot pass {signal:?} on to process {}: {error}", child.process);
    }
}

struct Child {
    process: u32,
    /// In clock ticks since the machine started.
    started: u64,
}

/// The children of this process (proc_pid_stat(5)) that have not ended.
fn children() -> Vec<Child> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let own = std::process::id();
    numbers
        .filter_map(|process| {
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
            let started = started_by(&stat, own)?;
            Some(Child { process, started })
        })
        .collect()
}

/// When a process started, if it is a child of `parent` and has not ended.
fn started_by(stat: &str, parent: u32) -> Option<u64> {
    // The name before it may have any characters.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let is_it = fields.first() != Some(&"Z") && fields.get(1)?.parse() == Ok(parent);
    is_it.then(|| fields.get(19)?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_known_by_the_kernel_s_line_of_them() {
        let line = |state: &str, parent: u32| {
            format!("7 (a) b) {state} {parent} 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 8192 1\n")
        };
        assert_eq!(started_by(&line("S", 42), 42), Some(4711));
        assert_eq!(started_by(&line("S", 1), 42), None);
        assert_eq!(started_by(&line("Z", 42), 42), None);
        assert_eq!(started_by("", 42), None);
    }

    #[test]
    fn a_child_is_found_while_it_runs() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let is_known = |id| children().iter().any(|child| child.process == id);
        assert!(is_known(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_known(child.id()));
    }
}
