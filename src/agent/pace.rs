//! When a proxy may be dialled, and what the log says about it.

use std::time::Duration;

use crate::backoff::{RECONNECT, random};
use crate::time::Millis;

/// How long a proxy that refuses is left alone. A wrong key is mended by an operator, who should
/// not have to search a log full of refusals.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// How long one that has too many bridges is left alone if it does not say.
const FULL_PAUSE: Duration = Duration::from_secs(5);

/// The longest that a proxy may ask to be left alone.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How many bridges to dial now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Demand {
    /// None before something changes.
    Nothing,
    /// Perhaps some at this time.
    At(Millis),
    /// So many now.
    Now(usize),
}

/// When a proxy may be dialled.
#[derive(Default)]
pub(super) struct Pace {
    /// Failures in a row.
    failures: u32,
    not_before: Millis,
    /// It has accepted a bridge since it last failed, so it gets all of them. Otherwise it is tried
    /// with one.
    proven: bool,
    logged: Logged,
}

/// What the log said last about a proxy. It is not said again.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum Logged {
    #[default]
    Nothing,
    Unreachable,
    Refused(u16),
}

impl Pace {
    /// How many bridges may be dialled, if so many are missing and so many others have not been
    /// accepted yet.
    pub fn demand(&self, missing: usize, trying: usize, now: Millis) -> Demand {
        if missing == 0 {
            Demand::Nothing
        } else if now < self.not_before {
            Demand::At(self.not_before)
        } else if self.proven {
            Demand::Now(missing)
        } else if trying == 0 {
            Demand::Now(1)
        } else {
            Demand::Nothing
        }
    }

    /// It could not be reached, or was lost before it had accepted. True if that is news.
    pub fn failed(&mut self, now: Millis) -> bool {
        // What fails together is one failure.
        if now >= self.not_before {
            self.failures = self.failures.saturating_add(1);
            self.lost(now, RECONNECT.pause(self.failures, random()));
        }
        self.log(Logged::Unreachable)
    }

    /// It has refused a bridge with this status. True if that is news.
    pub fn refused(&mut self, now: Millis, status: u16, retry_after: Option<Duration>) -> bool {
        let pause = match status {
            503 => retry_after.unwrap_or(FULL_PAUSE).min(LONGEST_PAUSE),
            _ => REFUSED_PAUSE,
        };
        self.lost(now, pause + RECONNECT.spread());
        self.log(Logged::Refused(status))
    }

    /// It has to prove itself again, after `pause`.
    pub fn lost(&mut self, now: Millis, pause: Duration) {
        self.proven = false;
        self.not_before = self.not_before.max(now + pause);
    }

    /// How long it is still left alone.
    pub fn pause_left(&self, now: Millis) -> Duration {
        self.not_before.since(now)
    }

    /// It has accepted a bridge. True if that is news.
    pub fn accepted(&mut self) -> bool {
        self.failures = 0;
        self.proven = true;
        // One that takes fewer bridges than it is offered refuses the others again and again.
        self.logged != Logged::Refused(503) && self.log(Logged::Nothing)
    }

    fn log(&mut self, what: Logged) -> bool {
        std::mem::replace(&mut self.logged, what) != what
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn pause(pace: &Pace, now: u64) -> u64 {
        let Demand::At(at) = pace.demand(1, 0, Millis(now)) else { panic!("no pause") };
        at.0 - now
    }

    #[test]
    fn unproven_proxy_is_tried_with_one_bridge() {
        let mut pace = Pace::default();
        assert_eq!(pace.demand(8, 0, Millis(0)), Demand::Now(1));
        assert_eq!(pace.demand(7, 1, Millis(0)), Demand::Nothing);
        pace.accepted();
        assert_eq!(pace.demand(7, 0, Millis(0)), Demand::Now(7));
        assert_eq!(pace.demand(0, 0, Millis(0)), Demand::Nothing);
    }

    #[test]
    fn failures_back_off_and_are_logged_once() {
        let mut pace = Pace::default();
        assert!(pace.failed(Millis(1_000)));
        let first = pause(&pace, 1_000);
        assert!((25..=50).contains(&first), "{first}");
        // Others that fail together with it.
        assert!(!pace.failed(Millis(1_000)));
        assert_eq!(pace.failures, 1);
        assert!(!pace.failed(Millis(1_000 + first)));
        assert_eq!(pace.failures, 2);
        assert!(pace.accepted());
        assert!(pace.failed(Millis(10_000)));
    }

    #[test]
    fn refusal_is_logged_once_and_retried_slowly() {
        let mut pace = Pace::default();
        assert!(pace.refused(Millis(0), 401, None));
        let first = pause(&pace, 0);
        assert!((30_000..=30_050).contains(&first), "{first}");
        assert!(!pace.refused(Millis(first), 401, None));
        assert!(pace.refused(Millis(first), 404, None));
    }

    #[test]
    fn full_proxy_says_when_within_bounds() {
        for (asked, least) in [(None, 5_000), (Some(2), 2_000), (Some(9_999), 60_000)] {
            let mut pace = Pace::default();
            pace.refused(Millis(0), 503, asked.map(Duration::from_secs));
            let first = pause(&pace, 0);
            assert!((least..=least + 50).contains(&first), "{first}");
            // That it takes some is no reason to log again that it does not take more.
            assert!(!pace.accepted());
            assert!(!pace.refused(Millis(60_000), 503, None));
        }
    }
}
