//! What has gone wrong on a route lately, for its backends' owners to see.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// How many kinds of failures in a row are kept of a route: enough to see what came first.
const KEPT: usize = 16;

/// What became of a request that a backend has failed with, or that no backend was free for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its client got this status from the proxy.
    Answered(u16),
    /// It went to another bridge.
    Repeated,
    /// Its client's connection was cut off.
    Cut,
}

/// A failure, or several alike in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When the last of them was, in Unix seconds.
    pub at: u64,
    /// One word for the cause.
    pub reason: &'static str,
    /// What became of the request.
    pub outcome: Outcome,
    /// How many there were.
    pub count: u64,
}

/// The last failures of a route. As long as there are none they are one empty cell.
#[derive(Debug, Default)]
pub struct Failures {
    list: OnceLock<Box<Mutex<VecDeque<Failure>>>>,
}

impl Failures {
    /// Notes a failure at `at`, in Unix seconds.
    pub fn note(&self, at: u64, reason: &'static str, outcome: Outcome) {
        let mut list = lock(self.list.get_or_init(Box::default));
        match list.back_mut() {
            Some(last) if (last.reason, last.outcome) == (reason, outcome) => {
                (last.at, last.count) = (at, last.count.saturating_add(1));
            }
            _ => {
                if list.len() == KEPT {
                    list.pop_front();
                }
                list.push_back(Failure { at, reason, outcome, count: 1 });
            }
        }
    }

    /// Those that are kept, the last first.
    pub fn last(&self) -> Vec<Failure> {
        self.list.get().map_or_else(Vec::new, |list| lock(list).iter().rev().copied().collect())
    }
}

fn lock(list: &Mutex<VecDeque<Failure>>) -> MutexGuard<'_, VecDeque<Failure>> {
    // Each change leaves the list whole.
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_kept_and_those_alike_are_counted() {
        let failures = Failures::default();
        assert_eq!(failures.last(), []);
        failures.note(1, "a", Outcome::Cut);
        failures.note(2, "a", Outcome::Cut);
        failures.note(2, "a", Outcome::Answered(502));
        let [one, two] = failures.last()[..] else { panic!("{failures:?}") };
        assert_eq!(one, Failure { at: 2, reason: "a", outcome: Outcome::Answered(502), count: 1 });
        assert_eq!(two, Failure { at: 2, reason: "a", outcome: Outcome::Cut, count: 2 });
        for at in 3..100 {
            let outcome = if at % 2 == 0 { Outcome::Cut } else { Outcome::Repeated };
            failures.note(at, "b", outcome);
        }
        let kept: Vec<u64> = failures.last().iter().map(|failure| failure.at).collect();
        assert_eq!(kept, (84..100).rev().collect::<Vec<_>>());
    }
}
