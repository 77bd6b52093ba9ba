//! A first process that somebody waits for, such as process 1 of a container: its end would be taken
//! for the end of the service. When it has been replaced it stays, as the parent of the programs
//! that follow: it passes signals on to them, and ends when the last of them has.
//!
//! What it is holds for the whole process, as signals do.

use std::fs;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::net::sys::{self, Signal};

static STATE: AtomicU8 = AtomicU8::new(NOT_AWAITED);

/// Nobody waits for this process.
const NOT_AWAITED: u8 = 0;
/// Somebody does.
const AWAITED: u8 = 1;
/// The same; and a new program serves, while this one finishes what is in flight.
const REPLACED: u8 = 2;
/// The same, and this one has nothing left.
const STAYING: u8 = 3;

/// Somebody waits for this process: it has been told so, or it is process 1, or one of process 1's,
/// which is an init of a container, or a systemd that is told nothing. Not for a program that replaces
/// another, nor for one in the background.
pub fn set_awaited(told: bool) {
    let is_notified = std::env::var_os("NOTIFY_SOCKET").is_some();
    let is_of_init = std::os::unix::process::parent_id() == 1 && !is_notified;
    if told || std::process::id() == 1 || is_of_init {
        STATE.store(AWAITED, Ordering::SeqCst);
    }
}

fn is_awaited() -> bool {
    STATE.load(Ordering::SeqCst) != NOT_AWAITED
}

/// A new program is about to be started: the later ones become children of this process when their
/// own parents end, if somebody waits for this one.
pub(super) fn adopt_later_programs() {
    if is_awaited()
        && let Err(error) = sys::become_subreaper()
    {
        log::warn!("upgrade: the end of later programs will not be noticed here: {error}");
    }
}

/// Whether a new program serves in place of this one, which is then the one for signals.
pub fn set_replaced(is_replaced: bool) {
    if is_awaited() {
        STATE.store(if is_replaced { REPLACED } else { AWAITED }, Ordering::SeqCst);
    }
}

/// Passes a signal on, if it is for the program that serves. False if it is for this one.
#[must_use]
pub fn takes(signal: Signal) -> bool {
    match STATE.load(Ordering::SeqCst) {
        REPLACED => pass_on(signal) && signal != Signal::ReopenLogs,
        STAYING => pass_on(signal),
        _ => false,
    }
}

/// Everything has gone to a new program: if somebody waits for this process, waits until the last
/// program has ended. Returns its exit code; `None` if nobody waits, or no new program serves.
#[must_use]
pub fn stay() -> Option<ExitCode> {
    if STATE.load(Ordering::SeqCst) != REPLACED {
        return None;
    }
    STATE.store(STAYING, Ordering::SeqCst);
    let mut last = 0;
    while let Ok(code) = sys::wait_child() {
        last = code;
    }
    Some(ExitCode::from(last))
}

/// Sends a signal to the program that serves: the child that was started last. False if there is
/// none.
fn pass_on(signal: Signal) -> bool {
    let newest = children().into_iter().max_by_key(|child| child.started);
    newest.is_some_and(|child| sys::send_signal(child.process, signal).is_ok())
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
            let fields = "7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 8192 1";
            format!("7 (a) b) {state} {parent} {fields}\n")
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
