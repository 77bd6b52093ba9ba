//! The bounds of numeric settings.

use std::time::Duration;

/// Most workers. Each route keeps counters for every worker, and an idle worker looks at those of
/// the others.
pub const MAX_WORKERS: usize = 256;

/// Longest head that `max-head` may allow, in bytes. A waiting client's head stays in memory, and
/// this times `max-connections` is what an attacker can make the proxy hold.
pub(crate) const MAX_HEAD: usize = 64 << 10;

/// Largest request that `retry-limit` may keep, in bytes: every exchange may hold as much.
const MAX_RETRY: usize = 16 << 20;

/// Most connections, and the longest queue. The kernel's own limit for a process (`fs.nr_open`) is
/// a million by default, and an administrator may raise it.
pub(super) const MANY: usize = 10_000_000;

pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// For the time that a peer is given.
pub(super) const TIMEOUT: Range<Duration> = Range::new(Duration::from_millis(1), DAY);

/// For the size of a request that is kept.
pub(super) const RETRY: Range<usize> = Range::new(0, MAX_RETRY);

/// For the size of a response, or of a part of one, that is kept.
pub(super) const BUFFER: Range<usize> = Range::new(0, 16 << 20);

/// The values that a number may have.
#[derive(Clone, Copy)]
pub(crate) struct Range<N> {
    least: N,
    most: Option<N>,
    /// What 0 means, where it is not just a number.
    zero: Option<&'static str>,
    /// What would go wrong below and above, where that is not obvious; else empty.
    why: [&'static str; 2],
}

impl<N: Copy + Ord + Default> Range<N> {
    pub const fn new(least: N, most: N) -> Self {
        Range { least, most: Some(most), zero: None, why: ["", ""] }
    }

    pub const fn at_least(least: N) -> Self {
        Range { least, most: None, zero: None, why: ["", ""] }
    }

    /// Allows 0, with a meaning of its own.
    pub const fn or_zero(self, meaning: &'static str) -> Self {
        Range { zero: Some(meaning), ..self }
    }

    /// Says what would go wrong below the range.
    pub const fn below(self, why: &'static str) -> Self {
        Range { why: [why, self.why[1]], ..self }
    }

    /// Says what would go wrong above the range.
    pub const fn above(self, why: &'static str) -> Self {
        Range { why: [self.why[0], why], ..self }
    }

    /// # Errors
    /// One sentence, with the bound and its reason.
    pub fn check(&self, value: N, show: fn(N) -> String) -> Result<N, String> {
        if value == N::default() && self.zero.is_some() {
            return Ok(value);
        }
        let (relation, bound, why) = match self.most {
            _ if value < self.least => ("less", self.least, self.why[0]),
            Some(most) if value > most => ("more", most, self.why[1]),
            _ => return Ok(value),
        };
        let colon = if why.is_empty() { "" } else { ": " };
        Err(format!("{} is {relation} than {}{colon}{why}", show(value), show(bound)))
    }

    /// In words: `a number, 1 to 256, or 0 for one per core`.
    pub fn form(&self, noun: &str, show: fn(N) -> String) -> String {
        let least = show(self.least);
        let most =
            self.most.map_or_else(|| "or more".to_owned(), |most| format!("to {}", show(most)));
        let zero = self.zero.map_or_else(String::new, |meaning| format!(", or 0 for {meaning}"));
        format!("{noun}, {least} {most}{zero}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(number: usize) -> String {
        number.to_string()
    }

    #[test]
    fn value_out_of_range_is_refused_with_the_reason() {
        let range = Range::new(2, 9).above("the bowl is full");
        assert_eq!(range.check(2, show), Ok(2));
        assert_eq!(range.check(9, show), Ok(9));
        assert_eq!(range.check(1, show).unwrap_err(), "1 is less than 2");
        assert_eq!(range.check(10, show).unwrap_err(), "10 is more than 9: the bowl is full");
    }

    #[test]
    fn zero_may_have_a_meaning_below_the_range() {
        let range = Range::new(2, 9).or_zero("any number");
        assert_eq!(range.check(0, show), Ok(0));
        assert_eq!(range.check(1, show).unwrap_err(), "1 is less than 2");
        assert_eq!(range.form("a number", show), "a number, 2 to 9, or 0 for any number");
        assert_eq!(Range::at_least(4).form("a size", show), "a size, 4 or more");
    }
}
