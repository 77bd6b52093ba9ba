//! Keeps log lines that could repeat without end from filling the log.

use std::time::Duration;

use crate::time::Millis;

/// The time for which a limiter allows its number of lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// The state of one log line.
pub struct LogLimiter {
    /// Lines allowed per interval.
    burst: u32,
    /// Lines written in this interval.
    written: u32,
    /// When the interval ends.
    until: Millis,
    suppressed: u64,
}

impl Default for LogLimiter {
    /// One line per interval.
    fn default() -> Self {
        LogLimiter::with_burst(1)
    }
}

impl LogLimiter {
    /// `burst` lines per interval of 10 seconds.
    #[must_use]
    pub fn with_burst(burst: u32) -> LogLimiter {
        LogLimiter { burst, written: 0, until: Millis::default(), suppressed: 0 }
    }

    /// Whether the line may be written at `now`: then how many were suppressed since the last one.
    pub fn allow(&mut self, now: Millis) -> Option<u64> {
        if now >= self.until {
            (self.written, self.until) = (0, now + INTERVAL);
        }
        if self.written == self.burst {
            self.suppressed += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// What a line says at its end of `count` lines that were suppressed before it; nothing if there were
/// none. `what` they were about follows the word `more`, with a space before it.
#[must_use]
pub fn suppressed(count: u64, what: &str) -> String {
    match count {
        0 => String::new(),
        _ => format!(" ({count} more{what} since the last such line)"),
    }
}

/// A limiter for each kind of a line, so that many of one kind do not hide another.
pub struct LogLimiters<K> {
    burst: u32,
    kinds: Vec<(K, LogLimiter)>,
}

impl<K: PartialEq> LogLimiters<K> {
    /// `burst` lines of each kind per interval of 10 seconds.
    #[must_use]
    pub fn with_burst(burst: u32) -> LogLimiters<K> {
        LogLimiters { burst, kinds: Vec::new() }
    }

    /// As [`LogLimiter::allow`], for a line of this kind.
    pub fn allow(&mut self, kind: K, now: Millis) -> Option<u64> {
        let known = self.kinds.iter().position(|(known, _)| *known == kind);
        let at = known.unwrap_or_else(|| {
            self.kinds.push((kind, LogLimiter::with_burst(self.burst)));
            self.kinds.len() - 1
        });
        self.kinds[at].1.allow(now)
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
    fn each_kind_has_its_own_burst() {
        let mut limiters = LogLimiters::with_burst(2);
        let first: Vec<_> = (0..4).map(|_| limiters.allow('a', Millis(0))).collect();
        assert_eq!(first, [Some(0), Some(0), None, None]);
        assert_eq!(limiters.allow('b', Millis(1)), Some(0));
        assert_eq!(limiters.allow('a', Millis(10_000)), Some(2));
        assert_eq!(limiters.allow('a', Millis(10_000)), Some(0));
        assert_eq!(limiters.allow('a', Millis(10_000)), None);
    }
}
