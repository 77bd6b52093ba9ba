//! Counters: each written by one worker, read by whoever asks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The letters of the original's connection states, in the order of their counters: `?` not
/// known yet (or a client between two requests), `b` parked bridge, `c` waiting client, `B`
/// bridge in an exchange, `C` client in an exchange, `E` being refused or on its way out, `I`
/// asking for info.
pub const LETTERS: [&str; 7] = ["?", "b", "c", "B", "C", "E", "I"];

/// A counter that one thread writes and others read: no locked instruction is needed.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Takes one away.
    pub fn less(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
    }

    /// Adds one, behind everything that this thread has done before: whoever sees the new count sees that too.
    pub fn add_last(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// Makes it `count`.
    pub fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    /// The count.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The count; what this thread reads next is no older than that.
    #[must_use]
    pub fn get_first(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// How many exchanges are under way on all workers together.
///
/// Each worker counts for itself, so that a request writes to no memory that others write to. What has ended is read
/// before what has begun: the difference may be too large, but when it is 0 there was a moment without any.
#[must_use]
pub fn under_way(all: &[Stats]) -> u64 {
    let ended: u64 = all.iter().map(|stats| stats.ended.get_first()).sum();
    let begun: u64 = all.iter().map(|stats| stats.begun.get_first()).sum();
    begun.wrapping_sub(ended)
}

/// The counters of one worker. On cache lines of their own: the next worker's are written at
/// the same time.
#[derive(Default)]
#[repr(align(128))]
pub struct Stats {
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections by role, in the order of [`LETTERS`].
    pub roles: [Counter; LETTERS.len()],
    /// Exchanges that have begun.
    pub begun: Counter,
    /// Those of them that are over, and whose bridge has gone where it goes.
    pub ended: Counter,
    /// Exchanges that came to their end.
    pub served: Counter,
    /// Requests that were given to another bridge because the first failed.
    pub retried: Counter,
    /// Answers of our own, by their status.
    pub refused: Refusals,
    /// Bridges sent to another worker.
    pub moved: Counter,
    /// Leaves of backends.
    pub left: Counter,
    /// Events for connections that were gone already.
    pub stale: Counter,
    /// Requests that wait.
    pub waiting: Counter,
    /// Requests that wait for a name that nobody serves.
    pub unserved: Counter,
}

/// Our own answers, by what they say.
#[derive(Default)]
pub struct Refusals {
    /// 4xx to clients and backends.
    pub bad: Counter,
    /// 502.
    pub failed: Counter,
    /// 503.
    pub full: Counter,
    /// 504.
    pub late: Counter,
}

impl Refusals {
    /// Counts an answer of ours.
    pub fn count(&self, status: u16) {
        match status {
            502 => self.failed.add(1),
            503 => self.full.add(1),
            504 => self.late.add(1),
            _ => self.bad.add(1),
        }
    }
}

/// How many key names are counted: where no secrets are set anybody can make names up.
const KEY_NAMES: usize = 10_000;

/// How many bridges, and clients in an exchange with them, a host key has brought.
#[derive(Default)]
pub struct KeyCount {
    /// Bridges connected.
    pub bridges: AtomicI64,
    /// Clients in an exchange with one of them.
    pub clients: AtomicI64,
}

/// The counts of all host keys, by the name in the key (never the key itself).
#[derive(Default)]
pub struct Keys {
    counts: Mutex<HashMap<String, Arc<KeyCount>>>,
}

impl Keys {
    /// The counts of the keys for `names`; a name beyond the first [`KEY_NAMES`] has none.
    #[must_use]
    pub fn counts<'a>(&self, names: impl Iterator<Item = &'a str>) -> Arc<[Arc<KeyCount>]> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = Vec::new();
        for name in names {
            if counts.contains_key(name) || counts.len() < KEY_NAMES {
                known.push(Arc::clone(counts.entry(name.to_owned()).or_default()));
            }
        }
        known.into()
    }

    /// Every key name seen, with its bridges and clients, in the order of the names.
    #[must_use]
    pub fn all(&self) -> Vec<(String, i64, i64)> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = counts
            .iter()
            .map(|(name, count)| {
                let bridges = count.bridges.load(Ordering::Relaxed);
                (name.clone(), bridges, count.clients.load(Ordering::Relaxed))
            })
            .collect();
        all.sort();
        all
    }
}
