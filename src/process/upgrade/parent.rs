//! A first process that somebody waits for, such as process 1 of a container: its end would be taken
//! for the end of the service. When it has been replaced it stays, as the parent of the programs
//! that follow: it passes signals on, and ends when the last of them has.
//!
//! What it is holds for the whole process, as signals do.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fs;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::super::channel::VARIABLE;
use super::super::processes::{self, Process};
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

/// How often to look for the programs.
const LOOKS: u32 = 100;

/// How often to look at an environment that is empty.
const LOOKS_AT_ENVIRONMENT: u32 = 5;

/// A signal to stop has been passed on.
static HAS_PASSED_STOP: AtomicBool = AtomicBool::new(false);

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

/// Whether this process has been told to stop, and has passed that on: the next signal to stop is the
/// second.
#[must_use]
pub fn has_passed_stop() -> bool {
    HAS_PASSED_STOP.load(Ordering::SeqCst)
}

/// Everything has gone to a new program: if somebody waits for this process, waits until the last
/// program has ended. Returns its exit code; `None` if nobody waits, or no new program serves.
#[must_use]
pub fn stay() -> Option<ExitCode> {
    if STATE.load(Ordering::SeqCst) != REPLACED {
        return None;
    }
    STATE.store(STAYING, Ordering::SeqCst);
    wait_for_programs();
    // One that somebody else has waited for may have ended last.
    while WATCHED.load(Ordering::SeqCst) > 0 {
        thread::sleep(CHECK);
    }
    Some(ExitCode::from(LAST.load(Ordering::SeqCst)))
}

/// Waits for all programs of upgrades, but not for other children: process 1 gets those whose own
/// parents have ended.
fn wait_for_programs() {
    let own = std::process::id();
    let mut others: HashSet<u32> = HashSet::new();
    loop {
        let programs = look_again(|| {
            let all = descendants();
            let is_other = |process: &&Process| match process.has_ended {
                // What another process is to wait for, or was seen before it ended.
                true => process.parent != own || others.contains(&process.id),
                false => !is_of_upgrade(process.id),
            };
            // Anew each time: numbers are used again.
            others = all.iter().filter(is_other).map(|process| process.id).collect();
            all.iter().any(|process| !others.contains(&process.id)).then_some(())
        });
        if programs.is_none() {
            return;
        }
        match sys::wait_child() {
            Ok((child, _)) if others.contains(&child) => {}
            Ok((_, code)) => LAST.store(code, Ordering::SeqCst),
            // There is no child.
            Err(_) => return,
        }
    }
}

/// Passes a signal on: one to stop to all programs of the upgrade, because one that has just been
/// started would only end itself; any other to the one that serves, which is the last one started.
/// False if there is none.
fn pass_on(signal: Signal) -> bool {
    let most = if signal == Signal::Terminate { usize::MAX } else { 1 };
    let send = || {
        let sent = programs().into_iter().filter(|id| sys::send_signal(*id, signal).is_ok());
        (sent.take(most).count() > 0).then_some(())
    };
    let is_sent = look_again(send).is_some();
    if is_sent && signal == Signal::Terminate {
        HAS_PASSED_STOP.store(true, Ordering::SeqCst);
    }
    is_sent
}

/// Looks for something until it is there, but not for long. A program whose parent ends at this
/// moment is not seen as a descendant.
fn look_again<T>(look: impl FnMut() -> Option<T>) -> Option<T> {
    look_at_most(LOOKS, look)
}

fn look_at_most<T>(looks: u32, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    (0..looks).find_map(|looks| {
        if looks > 0 {
            thread::sleep(CHECK);
        }
        look()
    })
}

/// The programs of upgrades, the newest first.
fn programs() -> Vec<u32> {
    let mut later = descendants();
    later.retain(|process| !process.has_ended && is_of_upgrade(process.id));
    // Two may have started within one tick.
    later.sort_by_key(|process| Reverse((process.started, process.id)));
    later.into_iter().map(|process| process.id).collect()
}

/// Whether a process has been started by an upgrade; in a container there may be others. A program
/// that has secrets hides its environment: then its user must be this one's.
fn is_of_upgrade(process: u32) -> bool {
    let prefix = format!("{VARIABLE}=");
    // It is empty for the moment in which a process begins to run another program.
    let read = || match fs::read(format!("/proc/{process}/environ")) {
        Ok(environment) if environment.is_empty() => None,
        environment => Some(environment),
    };
    match look_at_most(LOOKS_AT_ENVIRONMENT, read).unwrap_or_else(|| Ok(Vec::new())) {
        Ok(environment) => {
            environment.split(|byte| *byte == 0).any(|entry| entry.starts_with(prefix.as_bytes()))
        }
        Err(_) => {
            let users = users_of(&process.to_string());
            users.is_some() && users == users_of("self")
        }
    }
}

/// The user IDs of a process (proc_pid_status(5)).
fn users_of(process: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:")).map(str::to_owned)
}

fn descendants() -> Vec<Process> {
    descendants_of(std::process::id(), &processes::all())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_are_found_in_any_order() {
        let process = |id, parent| Process { id, parent, started: 0, has_ended: false };
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
        let is_known = || descendants().iter().any(|process| process.id == id);
        assert!(is_known() && !is_of_upgrade(id));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_known());
    }
}
