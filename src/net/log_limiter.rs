//! Keeps a log line that could repeat without end from filling the log.

use std::time::Duration;

use crate::time::Millis;

/// Once a line has been written as often as it may be in a row, it is not written again for this
/// long.
const INTERVAL: Duration = Duration::from_secs(10);

/// The state of one log line.
pub struct LogLimiter {
    not_before: Millis,
    suppressed: u64,
    burst: u32,
    written: u32,
}

impl Default for LogLimiter {
    /// For a line that is written once in an interval.
    fn default() -> LogLimiter {
        LogLimiter::bursts(1)
    }
}

impl LogLimiter {
    /// For a line that may be written `burst` times in each interval.
    pub fn bursts(burst: u32) -> LogLimiter {
        LogLimiter { not_before: Millis(0), suppressed: 0, burst, written: 0 }
    }

    /// Whether the line may be written at `now`: then how many were suppressed since the last one.
    pub fn allow(&mut self, now: Millis) -> Option<u64> {
        if now >= self.not_before {
            self.not_before = now + INTERVAL;
            self.written = 0;
        } else if self.written == self.burst {
            self.suppressed += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_allowed_once_per_interval_and_tells_what_was_suppressed() {
        let mut limiter = LogLimiter::default();
        assert_eq!(limiter.allow(Millis(5)), Some(0));
        assert_eq!((limiter.allow(Millis(6)), limiter.allow(Millis(10_004))), (None, None));
        assert_eq!(limiter.allow(Millis(10_005)), Some(2));
        assert_eq!(limiter.allow(Millis(10_006)), None);
    }

    #[test]
    fn a_burst_is_allowed_once_per_interval() {
        let mut limiter = LogLimiter::bursts(2);
        assert_eq!([5, 6, 7].map(|now| limiter.allow(Millis(now))), [Some(0), Some(0), None]);
        assert_eq!([10_005, 10_006].map(|now| limiter.allow(Millis(now))), [Some(1), Some(0)]);
        assert_eq!(limiter.allow(Millis(20_004)), None);
    }
}
