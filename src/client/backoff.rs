//! How long to wait before dialling a proxy again.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The wait after the first failure: long enough for a proxy that restarts to have closed its old
/// sockets, short enough for nobody to notice.
const FIRST: Duration = Duration::from_millis(50);

/// The longest wait. Low, because a backend that is not connected is capacity that is missing, and
/// one connect a second costs a proxy nothing.
const LONGEST: Duration = Duration::from_secs(1);

/// The failures in a row, counted over all threads that accept.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: AtomicU32,
}

impl Backoff {
    /// How long to wait now; zero after a success.
    pub(super) fn delay(&self) -> Duration {
        delay(self.failures.load(Ordering::Relaxed), random())
    }

    /// Counts a failure; true for the first of a row.
    pub(super) fn failed(&self) -> bool {
        // A count that wraps after 2^32 failures is 136 years of trying.
        self.failures.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// The proxy has taken a bridge.
    pub(super) fn succeeded(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }
}

/// A short wait before something that many backends were told to do at the same moment.
pub(crate) fn jitter() -> Duration {
    FIRST.mul_f64(random())
}

/// How long to wait before a proxy is dialled that has failed so many times in a row. `random` is
/// from 0 to 1.
pub(crate) fn delay(failures: u32, random: f64) -> Duration {
    growing(failures, FIRST, LONGEST, random)
}

/// Doubles with each failure, from `first` up to `longest`. A random part of up to half is taken off,
/// lest all who wait for the same thing come back in one instant. `random` is from 0 to 1.
pub(crate) fn growing(failures: u32, first: Duration, longest: Duration, random: f64) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else {
        return Duration::ZERO;
    };
    let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(longest).mul_f64(1.0 - random / 2.0)
}

/// A number from 0 to 1. The standard library's hash keys are its one source of randomness, and good
/// enough to spread waits.
pub(crate) fn random() -> f64 {
    RandomState::new().hash_one(0u8) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_second() {
        let full = |failures| delay(failures, 0.0).as_millis();
        let waits: Vec<u128> = (0..8).map(full).collect();
        assert_eq!(waits, [0, 50, 100, 200, 400, 800, 1000, 1000]);
        for failures in [32, 33, 34, u32::MAX] {
            assert_eq!(delay(failures, 0.0), LONGEST);
        }
    }

    #[test]
    fn at_most_half_of_a_wait_is_taken_off() {
        assert_eq!(delay(1, 1.0), Duration::from_millis(25));
        assert_eq!(delay(100, 1.0), Duration::from_millis(500));
        assert_eq!(delay(0, 1.0), Duration::ZERO);
    }

    #[test]
    fn random_numbers_differ_and_stay_within_bounds() {
        let numbers: Vec<f64> = (0..100).map(|_| random()).collect();
        assert!(numbers.iter().all(|n| (0.0..=1.0).contains(n)));
        assert!(numbers.iter().any(|n| *n < 0.5));
        assert!(numbers.iter().any(|n| *n > 0.5));
        assert!(jitter() <= FIRST);
    }

    #[test]
    fn a_success_ends_a_row() {
        let backoff = Backoff::default();
        assert_eq!(backoff.delay(), Duration::ZERO);
        assert!(backoff.failed());
        assert!(!backoff.failed());
        assert!(backoff.delay() >= FIRST);
        backoff.succeeded();
        assert_eq!(backoff.delay(), Duration::ZERO);
        assert!(backoff.failed());
    }
}
