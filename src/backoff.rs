//! Exponential back-off between attempts to reach a peer.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How a pause grows from one failure to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// The pause never exceeds this.
    pub longest: Duration,
}

/// From a backend to its proxy. A restarting proxy has closed its old sockets within 50 ms. One
/// connect a second costs a proxy nothing, while a backend that is not connected is missing
/// capacity.
pub(crate) const RECONNECT: Backoff =
    Backoff { first: Duration::from_millis(50), longest: Duration::from_secs(1) };

impl Backoff {
    /// The pause after so many failures in a row, zero for none. It doubles with each failure.
    ///
    /// `jitter`, from 0 to 1, takes off up to half, so that peers which failed together do not
    /// return together.
    pub fn pause(self, failures: u32, jitter: f64) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else {
            return Duration::ZERO;
        };
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.longest).mul_f64(1.0 - jitter / 2.0)
    }

    /// A random pause of up to `first`, before something that many backends were told at once.
    pub fn spread(self) -> Duration {
        self.first.mul_f64(random())
    }
}

/// A number from 0 to 1, good enough to spread pauses. The standard library's hash keys are its
/// only source of randomness.
pub(crate) fn random() -> f64 {
    RandomState::new().hash_one(0u8) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let full = |failures| RECONNECT.pause(failures, 0.0).as_millis();
        let pauses: Vec<u128> = (0..8).map(full).collect();
        assert_eq!(pauses, [0, 50, 100, 200, 400, 800, 1000, 1000]);
        for failures in [32, 33, 34, u32::MAX] {
            assert_eq!(RECONNECT.pause(failures, 0.0), RECONNECT.longest);
        }
    }

    #[test]
    fn jitter_takes_off_at_most_half() {
        assert_eq!(RECONNECT.pause(1, 1.0), Duration::from_millis(25));
        assert_eq!(RECONNECT.pause(100, 1.0), Duration::from_millis(500));
        assert_eq!(RECONNECT.pause(0, 1.0), Duration::ZERO);
    }

    #[test]
    fn random_numbers_differ_and_stay_within_bounds() {
        let numbers: Vec<f64> = (0..100).map(|_| random()).collect();
        assert!(numbers.iter().all(|n| (0.0..=1.0).contains(n)));
        assert!(numbers.iter().any(|n| *n < 0.5));
        assert!(numbers.iter().any(|n| *n > 0.5));
        assert!(RECONNECT.spread() <= RECONNECT.first);
    }
}
