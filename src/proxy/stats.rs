//! Counters. Each worker writes its own and reads the others'. Counts that move between workers
//! with a bridge, such as that of parked ones, are meaningful only as a sum.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::bridge::hostkey::Shown;
use crate::routing::{Counted, DURATIONS, duration_class};

use super::leases::KeyLease;
use super::reason::Reason;
use super::role::{LETTERS, Letter};

/// A counter that one thread writes and others read: no locked instruction is needed.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    pub(super) fn less(&self) {
        self.add(u64::MAX);
    }

    /// Adds one with release ordering: a reader of the new count also sees what this thread did
    /// before.
    fn add_release(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    pub(super) fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Connections on their way to a worker. Any worker may send some.
#[derive(Default)]
pub(super) struct Arriving(AtomicU64);

impl Arriving {
    /// One has been sent.
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One has been received: a reader of the new count also sees where it is counted now.
    pub(super) fn less(&self) {
        self.0.fetch_sub(1, Ordering::Release);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Who may have seen a request that went to another bridge: nobody, an agent that did not deliver
/// it, or an application.
pub(super) const RETRIES: [&str; 3] = ["unsent", "undelivered", "delivered"];

/// By what a bridge that registers is admitted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Admitted {
    /// Proofs of its keys.
    Proof,
    /// Keys that it has sent as they are, at least one.
    BearerKey,
    /// A certificate alone.
    Certificate,
    /// No key is needed.
    WithoutKey,
}

impl Admitted {
    pub(super) const ALL: [Admitted; 4] =
        [Admitted::Proof, Admitted::BearerKey, Admitted::Certificate, Admitted::WithoutKey];

    pub(super) fn by(keys: Option<&KeyLease>) -> Admitted {
        match keys.and_then(KeyLease::shown) {
            Some(Shown::Proven) => Admitted::Proof,
            Some(Shown::Bare) => Admitted::BearerKey,
            None if keys.is_some_and(|keys| keys.certificate().is_some()) => Admitted::Certificate,
            None => Admitted::WithoutKey,
        }
    }

    /// In a line of the log.
    pub(super) fn shown(self) -> &'static str {
        match self {
            Admitted::Proof => "by proof",
            Admitted::BearerKey => "by bearer key",
            Admitted::Certificate => "by certificate",
            Admitted::WithoutKey => "without a key",
        }
    }

    /// In a metric.
    pub(super) fn label(self) -> &'static str {
        match self {
            Admitted::Proof => "proof",
            Admitted::BearerKey => "bearer_key",
            Admitted::Certificate => "certificate",
            Admitted::WithoutKey => "nothing",
        }
    }
}

/// The counters of one worker, on cache lines of their own, because other workers write theirs at
/// the same time.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Stats {
    roles: [Counter; LETTERS.len()],
    /// New connections on their way here.
    pub(super) arriving: Arriving,
    pub(super) accepted: Counter,
    /// Those that this worker has accepted and left to others (`balance.rs`).
    pub(super) passed: Counter,
    /// Connections that were to begin with a PROXY header and did not.
    pub(super) headers_refused: Counter,
    /// Handshakes of TLS: with certificates, with a ticket, and in vain.
    pub(super) handshakes_full: Counter,
    pub(super) handshakes_resumed: Counter,
    pub(super) handshakes_failed: Counter,
    /// Connections that the kernel encrypts.
    pub(super) offloaded: Counter,
    /// Exchanges that have begun and ended, for [`in_progress`].
    pub(super) begun: Counter,
    ended: Counter,
    /// Responses from files, and how often a thread has opened or read one.
    pub(super) files: Counter,
    pub(super) file_reads: Counter,
    /// Exchanges whose response was passed on completely.
    pub(super) served: Counter,
    /// Requests that went to another bridge because the first failed, by [`RETRIES`].
    pub(super) retried: [Counter; RETRIES.len()],
    /// Failures of backends with a request that their application may have seen.
    pub(super) delivered: Counter,
    /// Requests that backends without a place for them have given back.
    pub(super) given_back: Counter,
    /// Answers of our own, by status.
    pub(super) rejected: Rejections,
    /// The same, and what was refused without an answer, by reason.
    pub(super) refusals: Refusals,
    /// Bridges moved here from another worker.
    pub(super) moved: Counter,
    pub(super) deregistrations: Counter,
    /// Bridges closed because their key is no longer good, by `Loss`.
    pub(super) lost_keys: [Counter; 2],
    /// Backends that were asked to prove their keys.
    pub(super) challenges: Counter,
    /// Bridges that registered, by [`Admitted`].
    pub(super) admitted: [Counter; Admitted::ALL.len()],
    /// Events about connections already gone.
    pub(super) stale: Counter,
    /// Bytes of requests and of what clients were sent, tunnels included.
    pub(super) client_received: Counter,
    pub(super) client_sent: Counter,
    /// How late the turns of the loop come.
    pub(super) lag: Histogram,
    /// Pipes lent to bodies now.
    pub(super) pipes_lent: Counter,
    /// Responses passed on completely, by the first digit of their status.
    pub(super) answers: [Counter; 5],
    /// From the end of a request's head to the end of its response.
    pub(super) duration: Histogram,
    /// From the end of a request's head until it had a bridge.
    pub(super) queued: Histogram,
    /// Tunnels, counted only while a new program takes over.
    pub(super) tunnels: Counter,
    /// Requests waiting now, and those of them for names that nobody serves.
    pub(super) waiting: Counter,
    pub(super) unserved: Counter,
}

impl Stats {
    /// The count of connections with roles of this letter.
    pub(super) fn role(&self, letter: Letter) -> &Counter {
        &self.roles[letter as usize]
    }

    /// The count of connections with this index in [`LETTERS`].
    pub(super) fn at(&self, place: usize) -> &Counter {
        &self.roles[place]
    }

    /// How many clients are here or on their way. A new connection counts as one until it has become
    /// a bridge. A client never changes its worker later, so the count of each worker is right.
    pub(super) fn clients(&self) -> u64 {
        [Letter::Unknown, Letter::Waiting, Letter::Requesting]
            .into_iter()
            .fold(self.arriving.get(), |sum, letter| sum.wrapping_add(self.role(letter).get()))
    }

    /// Notes a response with `status` that has been passed on so many microseconds after its request
    /// came.
    pub(super) fn answered(&self, status: u16, micros: u64) {
        self.answers[usize::from(status / 100).clamp(1, 5) - 1].add(1);
        self.duration.add(micros);
    }

    /// What all workers have answered, their own answers included.
    pub(super) fn counted(all: &[Stats]) -> Counted {
        let mut counted = Counted::default();
        for stats in all {
            for (sum, count) in counted.answers.iter_mut().zip(&stats.answers) {
                *sum += count.get();
            }
            for (sum, count) in counted.durations.iter_mut().zip(&stats.duration.classes) {
                *sum += count.get();
            }
            let rejected = &stats.rejected;
            counted.answers[3] += rejected.s4xx.get();
            counted.answers[4] += rejected.s502.get() + rejected.s503.get() + rejected.s504.get();
        }
        counted
    }

    /// An exchange is over and its bridge has been released.
    pub(super) fn exchange_ended(&self) {
        self.ended.add_release();
    }
}

/// How often something took how long.
#[derive(Default)]
pub(super) struct Histogram {
    /// By [`duration_class`].
    pub(super) classes: [Counter; DURATIONS],
    /// In microseconds.
    pub(super) sum: Counter,
}

impl Histogram {
    pub(super) fn add(&self, micros: u64) {
        self.classes[duration_class(micros)].add(1);
        self.sum.add(micros);
    }
}

/// Answers of our own, by status.
#[derive(Default)]
pub(super) struct Rejections {
    pub(super) s4xx: Counter,
    pub(super) s502: Counter,
    pub(super) s503: Counter,
    pub(super) s504: Counter,
}

impl Rejections {
    pub(super) fn count(&self, status: u16) {
        match status {
            502 => self.s502.add(1),
            503 => self.s503.add(1),
            504 => self.s504.add(1),
            _ => self.s4xx.add(1),
        }
    }
}

/// What was refused, by reason.
pub(super) struct Refusals([Counter; Reason::ALL.len()]);

impl Refusals {
    pub(super) fn of(&self, reason: Reason) -> &Counter {
        &self.0[reason as usize]
    }
}

impl Default for Refusals {
    fn default() -> Refusals {
        Refusals(std::array::from_fn(|_| Counter::default()))
    }
}

/// The sum of an array of counters over all workers.
pub(super) fn sum_all<const N: usize>(all: &[Stats], of: impl Fn(&Stats) -> &[Counter; N]) -> u64 {
    all.iter().flat_map(of).fold(0, |sum, count| sum.wrapping_add(count.get()))
}

/// The sum of a counter over all workers.
pub(super) fn sum(all: &[Stats], of: impl Fn(&Stats) -> &Counter) -> u64 {
    all.iter().fold(0, |sum, stats| sum.wrapping_add(of(stats).get()))
}

/// How many exchanges are in progress on all workers. Each worker counts its own, so that a request
/// writes to no shared memory. Ends are read before beginnings: the difference may be too large,
/// but if it is 0 there was a moment without any.
pub(super) fn in_progress(all: &[Stats]) -> u64 {
    let acquire = |counter: &Counter| counter.0.load(Ordering::Acquire);
    let ended: u64 = all.iter().map(|stats| acquire(&stats.ended)).sum();
    let begun: u64 = all.iter().map(|stats| acquire(&stats.begun)).sum();
    begun.wrapping_sub(ended)
}
