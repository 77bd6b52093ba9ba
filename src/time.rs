//! Instants on the clock of the process.
//!
//! Each worker reads the clock once per turn. An instant is a number of microseconds or
//! milliseconds since the process started; the two are types, so that they cannot be mixed up.
//! Lengths of time are [`Duration`]s.

use std::ops::Add;
use std::time::Duration;

/// An instant, in microseconds since the process started.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Micros(pub u64);

/// An instant, in milliseconds since the process started.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Millis(pub u64);

impl Micros {
    /// The millisecond that this instant lies in.
    #[must_use]
    pub fn millis(self) -> Millis {
        Millis(self.0 / 1000)
    }

    /// The time that has passed since `earlier`; zero if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Micros) -> Duration {
        Duration::from_micros(self.micros_since(earlier))
    }

    /// The same in microseconds, for what is counted with every request.
    #[must_use]
    pub fn micros_since(self, earlier: Micros) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Millis {
    /// The time that has passed since `earlier`; zero if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Millis) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Micros {
    type Output = Micros;

    fn add(self, length: Duration) -> Micros {
        Micros(self.0.saturating_add(u64::try_from(length.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Add<Duration> for Millis {
    type Output = Millis;

    fn add(self, length: Duration) -> Millis {
        Millis(self.0.saturating_add(u64::try_from(length.as_millis()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_saturate_and_never_run_backwards() {
        assert_eq!(Micros(2_500).millis(), Millis(2));
        assert_eq!(Millis(10) + Duration::from_secs(1), Millis(1_010));
        assert_eq!(Millis(1) + Duration::MAX, Millis(u64::MAX));
        assert_eq!(Micros(5).since(Micros(9)), Duration::ZERO);
        assert_eq!(Millis(9).since(Millis(5)), Duration::from_millis(4));
    }
}
