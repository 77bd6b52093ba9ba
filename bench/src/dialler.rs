//! When to dial which bridge: a few at a time at first, at once after an exchange, ever later after
//! failures.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// Bridges dialled and not yet accepted. Below any listen backlog, so that 10,000 bridges lose no
/// SYN.
const OPENING: usize = 100;
/// Wait after the first failure; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(20);
/// Doublings of [`FIRST_WAIT`] at most, to 1.28 s.
const DOUBLINGS: u32 = 6;

/// The plan of all bridges of the process; a bridge is known by its index.
#[derive(Debug)]
pub struct Dialler {
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    failures: Vec<u32>,
    opening: usize,
    /// Bridges accepted since the start; beyond the number of bridges it counts on.
    opened: usize,
}

impl Dialler {
    /// `bridges` of them, all due at `now`.
    pub fn new(bridges: usize, now: Instant) -> Dialler {
        let due = (0..bridges).map(|index| Reverse((now, index))).collect();
        Dialler { due, failures: vec![0; bridges], opening: 0, opened: 0 }
    }

    /// A bridge to dial now, if there is one and not too many are being opened.
    pub fn take(&mut self, now: Instant) -> Option<usize> {
        if self.opening >= OPENING {
            return None;
        }
        let &Reverse((when, index)) = self.due.peek()?;
        if when > now {
            return None;
        }
        self.due.pop();
        self.opening += 1;
        Some(index)
    }

    /// The proxy has accepted the bridge. True when as many have been accepted as there are, for
    /// the first time.
    pub fn accepted(&mut self, index: usize) -> bool {
        self.opening -= 1;
        self.failures[index] = 0;
        self.opened += 1;
        self.opened == self.failures.len()
    }

    /// The bridge has ended before it was accepted.
    pub fn failed(&mut self, index: usize, now: Instant) {
        self.opening -= 1;
        let wait = FIRST_WAIT * 2u32.pow(self.failures[index].min(DOUBLINGS));
        self.failures[index] = self.failures[index].saturating_add(1);
        self.due.push(Reverse((now + wait, index)));
    }

    /// The bridge has ended after it was accepted.
    pub fn ended(&mut self, index: usize, now: Instant) {
        self.due.push(Reverse((now, index)));
    }

    /// How long to wait for the next bridge that is due; `None` when another event must come first.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        if self.opening >= OPENING {
            return None;
        }
        self.due.peek().map(|&Reverse((when, _))| when.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_wait_longer_and_longer_and_an_accepted_bridge_none() {
        let start = Instant::now();
        let mut dialler = Dialler::new(1, start);
        let mut now = start;
        for wait in [20, 40, 80, 160, 320, 640, 1280, 1280] {
            assert_eq!(dialler.take(now), Some(0));
            dialler.failed(0, now);
            assert_eq!(dialler.wait(now), Some(Duration::from_millis(wait)));
            now += Duration::from_millis(wait);
        }
        assert_eq!(dialler.take(now), Some(0));
        assert!(dialler.accepted(0));
        dialler.ended(0, now);
        assert_eq!(dialler.take(now), Some(0));
        dialler.failed(0, now);
        assert_eq!(dialler.wait(now), Some(FIRST_WAIT));
    }

    #[test]
    fn only_so_many_are_opened_at_once() {
        let now = Instant::now();
        let mut dialler = Dialler::new(OPENING + 1, now);
        for index in 0..OPENING {
            assert_eq!(dialler.take(now), Some(index));
        }
        assert_eq!(dialler.take(now), None);
        assert_eq!(dialler.wait(now), None);
        assert!(!dialler.accepted(0));
        assert_eq!(dialler.take(now), Some(OPENING));
    }
}
