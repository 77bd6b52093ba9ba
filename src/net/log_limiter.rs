//! Keeps a log line that could repeat without end from filling the log.

use std::time::Duration;

use crate::time::Millis;

/// Once a line has been written, it is not written again for this long.
const INTERVAL: Duration = Duration::from_secs(10);

/// The state of one log line.
#[derive(Default)]
pub struct LogLimiter {
    not_before: Millis,
    suppressed: u64,
}

impl LogLimiter {
    /// Whether the line may be written at `now`: then how many were suppressed since the last one.
    pub fn allow(&mut self, now: Millis) -> Option<u64> {
        if now < self.not_before {
            self.suppressed += 1;
            return None;
        }
        self.not_before = now + INTERVAL;
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
}
