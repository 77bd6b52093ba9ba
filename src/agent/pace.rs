//! When a proxy may be dialled, and what the log says about it.

use std::time::Duration;

use crate::backoff::{RECONNECT, random};
use crate::time::Millis;

/// How long not to dial a proxy that refuses. An operator must correct a wrong key, and should not
/// find the log full of refusals.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// How long not to dial a proxy that has too many bridges, if it sends no `Retry-After`.
const FULL_PAUSE: Duration = Duration::from_secs(5);

/// The longest `Retry-After` that is obeyed.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Demand {
    /// None before something changes.
    Nothing,
    /// Ask again at this time.
    At(Millis),
    /// This many now.
    Now(usize),
}

/// When a proxy may be dialled.
#[derive(Default)]
pub(super) struct Pace {
    /// Failures in a row.
    failures: u32,
    not_before: Millis,
    /// It has accepted a bridge since it last failed, so all bridges are dialled. Otherwise only
    /// one is, as a trial.
    proven: bool,
    logged: Logged,
}

/// The last state logged about a proxy, which is not logged twice in a row.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum Logged {
    /// Nothing yet.
    #[default]
    Nothing,
    Accepted,
    Unreachable,
    Refused(u16),
}

impl Pace {
    /// How many of the `missing` bridges to dial, while `trying` others have not been accepted yet.
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
        // Bridges that fail together count as one failure.
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

    /// It must prove itself again, after `pause`.
    pub fn lost(&mut self, now: Millis, pause: Duration) {
        self.proven = false;
        self.not_before = self.not_before.max(now + pause);
    }

    /// How long until it may be dialled.
    pub fn pause_left(&self, now: Millis) -> Duration {
        self.not_before.since(now)
    }

    /// It has accepted a bridge. True if that is news: the first time, and after a failure.
    pub fn accepted(&mut self) -> bool {
        self.failures = 0;
        self.proven = true;
        // A proxy with a limit refuses the excess bridges again and again.
        self.logged != Logged::Refused(503) && self.log(Logged::Accepted)
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
        assert!(pace.accepted() && !pace.accepted(), "it is said once");
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
