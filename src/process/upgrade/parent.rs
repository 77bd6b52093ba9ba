//! A first process that somebody waits for, such as process 1 of a container: its end would be taken
//! for the end of the service. When it has been replaced it stays, as the parent of the programs
//! that follow: it passes signals on to them, and ends when the last of them has.
//!
//! What it is holds for the whole process, as signals do.

use std::fs;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::super::channel::VARIABLE;
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

/// How often to see whether those who wait for programs have said how they ended.
const CHECK: Duration = Duration::from_millis(1);

/// How often to look for the program that serves.
const LOOKS: u32 = 100;

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

/// The exit code of the last program that has ended.
static LAST: AtomicU8 = AtomicU8::new(0);

/// How many programs somebody else waits for, who will say how they ended.
static WATCHED: AtomicUsize = AtomicUsize::new(0);

/// Somebody begins to wait for a program.
pub(super) fn watch() {
    WATCHED.fetch_add(1, Ordering::SeqCst);
}

/// It has ended with this exit code; `None` if the parent has waited for it first.
pub(super) fn ended(code: Option<u8>) {
    if let Some(code) = code {
        LAST.store(code, Ordering::SeqCst);
    }
    WATCHED.fetch_sub(1, Ordering::SeqCst);
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
    while let Ok(code) = sys::wait_child() {
        LAST.store(code, Ordering::SeqCst);
    }
    // One that somebody else has waited for may have ended last.
    while WATCHED.load(Ordering::SeqCst) > 0 {
        thread::sleep(CHECK);
    }
    Some(ExitCode::from(LAST.load(Ordering::SeqCst)))
}

/// Sends a signal to the program that serves: the one that was started last. False if there is none.
fn pass_on(signal: Signal) -> bool {
    // One whose parent ends at this moment is not seen as a descendant: looks again.
    (0..LOOKS).any(|look| {
        if look > 0 {
            thread::sleep(CHECK);
        }
        send_to_newest(signal)
    })
}

fn send_to_newest(signal: Signal) -> bool {
    let later = descendants_of(std::process::id(), &processes());
    let programs = later.into_iter().filter(|process| is_of_upgrade(process.id));
    // Two may have started within one tick.
    let newest = programs.max_by_key(|process| (process.started, process.id));
    newest.is_some_and(|process| sys::send_signal(process.id, signal).is_ok())
}

/// Whether a process has been started by an upgrade; in a container there may be others. One whose
/// environment may not be read is taken for one: no other hides it.
fn is_of_upgrade(process: u32) -> bool {
    let prefix = format!("{VARIABLE}=");
    match fs::read(format!("/proc/{process}/environ")) {
        Ok(environment) => {
            environment.split(|byte| *byte == 0).any(|entry| entry.starts_with(prefix.as_bytes()))
        }
        Err(_) => true,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    id: u32,
    parent: u32,
    /// In clock ticks since the machine started.
    started: u64,
}

/// All processes that have not ended (proc_pid_stat(5)).
fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers
        .filter_map(|id: u32| Process::read(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?))
        .collect()
}

fn descendants_of(ancestor: u32, all: &[Process]) -> Vec<Process> {
    let mut found: Vec<Process> = Vec::new();
    loop {
        let is_parent = |id| id == ancestor || found.iter().any(|process| process.id == id);
        let new = |process: &&Process| is_parent(process.parent) && !found.contains(process);
        let more: Vec<Process> = all.iter().filter(new).copied().collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

impl Process {
    /// Reads the kernel's line about a process; `None` for one that has ended.
    fn read(stat: &str) -> Option<Process> {
        let id = stat.split(' ').next()?.parse().ok()?;
        // The name before the other fields may have any characters.
        let (_, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let (state, parent, started) = (fields.first()?, fields.get(1)?, fields.get(19)?);
        let has_ended = matches!(*state, "Z" | "X");
        let read = Process { id, parent: parent.parse().ok()?, started: started.parse().ok()? };
        (!has_ended).then_some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_known_by_the_kernel_s_line_of_them() {
        let line = |state: &str| {
            let fields = "7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 8192 1";
            format!("9 (a) b) {state} 42 {fields}\n")
        };
        let read = Process { id: 9, parent: 42, started: 4711 };
        assert_eq!(Process::read(&line("S")), Some(read));
        assert_eq!(Process::read(&line("Z")), None);
        assert_eq!(Process::read(""), None);
    }

    #[test]
    fn descendants_are_found_in_any_order() {
        let process = |id, parent| Process { id, parent, started: 0 };
        let all = [process(5, 4), process(2, 1), process(4, 2), process(3, 9), process(9, 0)];
        let found = descendants_of(1, &all);
        assert_eq!(found.iter().map(|process| process.id).collect::<Vec<_>>(), [2, 4, 5]);
        assert_eq!(descendants_of(7, &all), []);
    }

    #[test]
    fn a_child_is_found_while_it_runs_and_is_no_program_of_an_upgrade() {
        let mut child = std::process::Command::new("cat")
            .env_remove(VARIABLE)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let id = child.id();
        let is_known = || {
            let all = descendants_of(std::process::id(), &processes());
            all.iter().any(|process| process.id == id)
        };
        assert!(is_known() && !is_of_upgrade(id));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_known());
    }
}
