//! What systemd is told of the process while it runs (`process/notify.rs`): what it is doing, in
//! messages that systemd acts on and in a line for people, and that it is alive.
//!
//! A worker or main thread that hangs makes the process silent, and systemd restarts it: the
//! watchdog hears only of a moment at which each of them has turned. A program that another has
//! replaced is silent, too, because the other one speaks for the unit.

use std::collections::HashSet;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::{notify, watchdog};

use super::role::Letter;
use super::start::Handle;
use super::state::{Mail, Shared};
use super::stats;

/// How often the line is said again, if it has changed.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// How much time systemd is asked for while the proxy drains. It is asked again and again: one that
/// hangs gets no more.
const EXTENSION: Duration = Duration::from_secs(15);

/// How much longer than its settings say an end may take: the last lines of logs, a busy machine.
const LAST_STEPS: Duration = Duration::from_secs(5);

/// What the process is doing.
#[derive(Clone, Copy)]
enum Phase {
    Serving,
    /// It reads its settings again.
    Reloading,
    /// A new program starts.
    Upgrading,
    /// A new program speaks for the unit.
    Replaced,
    /// It finishes what is in flight, until this time.
    Draining(Instant),
}

/// Tells systemd what the process is doing.
pub struct Supervision {
    shared: Arc<Shared>,
    told: Arc<Mutex<Told>>,
}

/// What systemd has been told last. It is locked while it is told, so that a line that has just been
/// made does not come after a newer one.
struct Told {
    phase: Phase,
    status: String,
    /// What went wrong last, until something goes well.
    trouble: Option<String>,
}

impl Supervision {
    /// Tells systemd that the process serves, and goes on telling it what it does. `ask` has the main
    /// thread answer when it turns.
    pub fn start(handle: &Handle, ask: impl Fn(Sender<()>) + Send + 'static) -> Supervision {
        let told = Told { phase: Phase::Serving, status: String::new(), trouble: None };
        let shared = Arc::clone(&handle.shared);
        let supervision = Supervision { shared, told: Arc::new(Mutex::new(told)) };
        notify::ready();
        if !notify::is_wanted() {
            return supervision;
        }
        supervision.lock().say(&supervision.shared);
        let (shared, told) = (Arc::clone(&supervision.shared), Arc::clone(&supervision.told));
        spawn("status", move || {
            loop {
                thread::sleep(STATUS_INTERVAL);
                lock(&told).refresh(&shared);
            }
        });
        if let Some(period) = watchdog::period() {
            let (shared, told) = (Arc::clone(&supervision.shared), Arc::clone(&supervision.told));
            spawn("watchdog", move || {
                loop {
                    await_turns(&shared, &ask, period);
                    lock(&told).stay_alive();
                    thread::sleep(period / 2);
                }
            });
        }
        supervision
    }

    /// Reads the settings again by `reload`.
    ///
    /// # Errors
    /// Its own.
    pub fn reload<T>(
        &self,
        reload: impl FnOnce() -> Result<T, Vec<String>>,
    ) -> Result<T, Vec<String>> {
        let mut told = self.enter(Phase::Reloading, notify::reloading);
        told.say(&self.shared);
        drop(told);
        let result = reload();
        let mut told = self.enter(Phase::Serving, notify::reloaded);
        told.trouble = trouble("the last reload was refused", result.as_ref().err());
        told.say(&self.shared);
        result
    }

    /// A new program starts.
    pub fn upgrading(&self) {
        self.enter(Phase::Upgrading, || {}).say(&self.shared);
    }

    /// It has been given up.
    pub fn upgrade_refused(&self, problems: &[String]) {
        let mut told = self.lock();
        if !matches!(told.phase, Phase::Draining(_)) {
            told.phase = Phase::Serving;
        }
        told.trouble = trouble("the last upgrade was refused", Some(problems));
        told.say(&self.shared);
    }

    /// It serves, and speaks for the unit.
    pub fn replaced_by(&self, process: u32) {
        drop(self.enter(Phase::Replaced, || notify::replaced_by(process)));
    }

    /// It has ended: this program serves again.
    pub fn serves_again(&self) {
        let mut told = self.enter(Phase::Serving, notify::ready);
        told.status.clear();
        told.say(&self.shared);
    }

    /// The process finishes what is in flight, which takes no longer than `at_most`.
    pub fn stopping(&self, at_most: Duration) {
        let mut told = self.lock();
        if matches!(told.phase, Phase::Replaced) {
            return;
        }
        told.phase = Phase::Draining(Instant::now() + at_most + LAST_STEPS);
        notify::stopping();
        told.refresh(&self.shared);
    }

    fn enter(&self, phase: Phase, message: impl FnOnce()) -> MutexGuard<'_, Told> {
        let mut told = self.lock();
        told.phase = phase;
        message();
        told
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        lock(&self.told)
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    // A panic ends the process.
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name(name.to_owned()).spawn(run) {
        log::error!("systemd is not told any more what this process does: {error}");
    }
}

fn trouble<P: AsRef<[String]>>(what: &str, problems: Option<P>) -> Option<String> {
    let problems = problems?;
    let first = problems.as_ref().first()?;
    Some(format!("; {what}: {first}"))
}

impl Told {
    /// Says the line if it has changed.
    fn say(&mut self, shared: &Shared) {
        if !notify::is_wanted() {
            return;
        }
        let line = match self.phase {
            Phase::Serving => serving(shared),
            Phase::Reloading => "reading the settings again".to_owned(),
            Phase::Upgrading => "a new program is being started".to_owned(),
            Phase::Replaced => return,
            Phase::Draining(_) => {
                format!("shutting down: {}", count(requests(shared), "request", "in progress"))
            }
        };
        let line = line + self.trouble.as_deref().unwrap_or_default();
        if line != self.status {
            notify::status(&line);
            self.status = line;
        }
    }

    /// The same, at regular times.
    fn refresh(&mut self, shared: &Shared) {
        self.say(shared);
        if let Phase::Draining(until) = self.phase {
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                notify::extend_timeout(left.min(EXTENSION));
            }
        }
    }

    fn stay_alive(&self) {
        if !matches!(self.phase, Phase::Replaced) {
            notify::alive();
        }
    }
}

/// `serving 12 hosts, 40 bridges parked, 7 requests in progress`.
fn serving(shared: &Shared) -> String {
    let routes = shared.directory.routes();
    let served = routes.iter().filter(|route| route.members() > 0);
    let hosts: HashSet<&str> =
        served.flat_map(|route| route.spec().patterns()).map(|name| &**name).collect();
    let hosts = count(hosts.len() as u64, "host", "");
    let parked = stats::sum(&shared.stats, |stats| stats.role(Letter::Parked));
    let parked = count(unless_negative(parked), "bridge", "parked");
    format!("serving {hosts}, {parked}, {}", count(requests(shared), "request", "in progress"))
}

fn requests(shared: &Shared) -> u64 {
    unless_negative(stats::in_progress(&shared.stats))
}

/// Counts of several workers are read one after the other, and a sum may be off for a moment.
fn unless_negative(sum: u64) -> u64 {
    if sum > u64::MAX / 2 { 0 } else { sum }
}

fn count(count: u64, one: &str, state: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {one}{plural} {state}").trim_end().to_owned()
}

/// Waits until every worker and the main thread have turned. Says so if that takes half of the
/// watchdog's period.
fn await_turns(shared: &Shared, ask: impl Fn(Sender<()>), period: Duration) {
    let mut asked: Vec<(String, Receiver<()>)> = Vec::new();
    for (index, mailbox) in shared.mailboxes.iter().enumerate() {
        let (done, answer) = mpsc::channel();
        mailbox.send(Mail::Report(done));
        asked.push((format!("worker {index}"), answer));
    }
    let (done, answer) = mpsc::channel();
    ask(done);
    asked.push(("the main thread".to_owned(), answer));
    await_answers(asked, period / 2, |who, time| {
        log::error!("{who} has not turned for {time:?}: the watchdog of systemd hears nothing");
    });
}

/// Waits for all answers. Those that have not come after `time` are reported, each once.
fn await_answers(
    asked: Vec<(String, Receiver<()>)>,
    time: Duration,
    report: impl Fn(&str, Duration),
) {
    let start = Instant::now();
    let mut late = Vec::new();
    for (who, answer) in asked {
        let left = time.saturating_sub(start.elapsed());
        // One whose thread has ended is not waited for.
        if let Err(RecvTimeoutError::Timeout) = answer.recv_timeout(left) {
            report(&who, time);
            late.push(answer);
        }
    }
    for answer in late {
        let _ = answer.recv();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn who_does_not_turn_is_waited_for_and_named() {
        let (turns, one) = mpsc::channel();
        let (hangs, other) = mpsc::channel();
        turns.send(()).unwrap();
        let named = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(Mutex::new(false));
        let asked = vec![("worker 0".to_owned(), one), ("worker 1".to_owned(), other)];
        let (names, is_over) = (Arc::clone(&named), Arc::clone(&over));
        let (reported, report) = mpsc::channel();
        let waiting = thread::spawn(move || {
            await_answers(asked, Duration::from_millis(20), |who, _| {
                names.lock().unwrap().push(who.to_owned());
                reported.send(()).unwrap();
            });
            assert!(*is_over.lock().unwrap(), "it has not waited");
        });
        report.recv().unwrap();
        *over.lock().unwrap() = true;
        hangs.send(()).unwrap();
        waiting.join().unwrap();
        assert_eq!(*named.lock().unwrap(), ["worker 1"]);
    }

    #[test]
    fn counts_are_sentences() {
        assert_eq!(count(1, "host", ""), "1 host");
        assert_eq!(count(0, "bridge", "parked"), "0 bridges parked");
        assert_eq!(count(1, "request", "in progress"), "1 request in progress");
    }
}
