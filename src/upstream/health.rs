//! Whether an upstream server is up.
//!
//! ```text
//!     Up ──check──> FirstCheck ──answered──> Recheck ──due──> SecondCheck ──answered──> Up
//!     any of these ──failed──> Down ──due──> Probing ──answered──> Up
//!                               └────────────failed───┘
//! ```
//!
//! A check is two probes, because an exiting process closes its connections before its listening
//! socket, and a child it has just forked may hold that socket open for a moment.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::time::Millis;

/// The pauses between probes. A server that restarts is back after the first few; one connect every
/// two seconds is cheap for both sides.
const PROBES: Backoff =
    Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(2) };

/// What a connection is dialled for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// To serve requests.
    Requests,
    /// To see whether the server is up. Such a connection is not kept: a server that takes one
    /// connection at a time would wait for a request on it.
    Probe,
}

/// Whether a server is up. `Copy`, so that the proxy, whose workers share it, can read it out of a
/// lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Health {
    /// It took the last connection, or none has been tried.
    Up,
    /// Up; the first probe of a check is under way.
    FirstCheck,
    /// Up; the second probe of a check is due at this time.
    Recheck { at: Millis },
    /// Up; the second probe of a check is under way.
    SecondCheck,
    /// It has failed this many times in a row. Nothing is dialled for requests; a probe is due at
    /// this time.
    Down { failures: u32, at: Millis },
    /// Down, and a probe is under way.
    Probing { failures: u32 },
}

impl Health {
    /// Nothing is known about it yet: a probe is due at once.
    pub const UNKNOWN: Health = Health::Down { failures: 0, at: Millis(0) };

    /// Whether requests may be sent there.
    pub fn is_up(self) -> bool {
        !matches!(self, Health::Down { .. } | Health::Probing { .. })
    }

    /// Begins a check of a server that is up. True if the caller must probe now.
    pub fn begin_check(&mut self) -> bool {
        let begins = *self == Health::Up;
        if begins {
            *self = Health::FirstCheck;
        }
        begins
    }

    /// When the next probe is due.
    pub fn probe_at(self) -> Option<Millis> {
        match self {
            Health::Down { at, .. } | Health::Recheck { at } => Some(at),
            Health::Up | Health::FirstCheck | Health::SecondCheck | Health::Probing { .. } => None,
        }
    }

    /// Whether a probe is due. If so, the caller must probe now.
    pub fn begin_probe(&mut self, now: Millis) -> bool {
        let is_due = self.probe_at().is_some_and(|at| at <= now);
        if is_due {
            *self = match *self {
                Health::Down { failures, .. } => Health::Probing { failures },
                _ => Health::SecondCheck,
            };
        }
        is_due
    }

    /// Notes that it has taken a connection. True if that is news.
    pub fn answered(&mut self, now: Millis) -> bool {
        let was_up = self.is_up();
        *self = match self {
            Health::FirstCheck => Health::Recheck { at: now + PROBES.first },
            _ => Health::Up,
        };
        !was_up
    }

    /// Notes that it has answered a probe, but must answer others before it is up: the next probe
    /// comes soon.
    pub fn answered_once(&mut self, now: Millis) {
        if let Health::Probing { failures } = *self {
            *self = Health::Down { failures, at: now + PROBES.first };
        }
    }

    /// Notes that it could not be reached. True for the first failure in a row. `jitter`, from 0 to
    /// 1, shortens the pause before the next probe.
    pub fn failed(&mut self, purpose: Purpose, now: Millis, jitter: f64) -> bool {
        let failures = match *self {
            Health::Probing { failures } if purpose == Purpose::Probe => failures.saturating_add(1),
            // Dialled before it went down: nothing new.
            Health::Probing { .. } | Health::Down { .. } => return false,
            _ => 1,
        };
        *self = Health::Down { failures, at: now + PROBES.pause(failures, jitter) };
        failures == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_means_down_and_pauses_grow_to_two_seconds() {
        let mut health = Health::Up;
        assert!(health.failed(Purpose::Requests, Millis(1_000), 0.0));
        assert_eq!(health, Health::Down { failures: 1, at: Millis(1_100) });
        for (failures, pause) in [(2, 200), (3, 400), (4, 800), (5, 1_600), (6, 2_000), (7, 2_000)]
        {
            let now = Millis(10_000 * u64::from(failures));
            assert!(health.begin_probe(now) && !health.begin_probe(now));
            assert!(!health.failed(Purpose::Probe, now, 0.0));
            assert_eq!(health, Health::Down { failures, at: Millis(now.0 + pause) });
        }
        health = Health::Probing { failures: u32::MAX };
        assert!(!health.failed(Purpose::Probe, Millis(0), 0.0));
        assert_eq!(health, Health::Down { failures: u32::MAX, at: Millis(2_000) });
        health = Health::Up;
        assert!(health.failed(Purpose::Probe, Millis(0), 1.0));
        assert_eq!(health, Health::Down { failures: 1, at: Millis(50) });
    }

    #[test]
    fn late_failures_of_connections_for_requests_change_nothing() {
        for before in
            [Health::Down { failures: 3, at: Millis(900) }, Health::Probing { failures: 3 }]
        {
            let mut health = before;
            assert!(!health.failed(Purpose::Requests, Millis(500), 0.0));
            assert_eq!(health, before);
        }
    }

    #[test]
    fn probe_is_not_due_before_its_time() {
        let mut health = Health::Down { failures: 1, at: Millis(1_100) };
        assert!(!health.begin_probe(Millis(1_099)));
        assert!(health.begin_probe(Millis(1_100)));
        assert!(health.answered(Millis(1_101)) && health.is_up());
        assert!(!health.begin_probe(Millis(9_999)));
        let mut health = Health::UNKNOWN;
        assert!(!health.is_up() && health.begin_probe(Millis(0)));
    }

    #[test]
    fn server_that_must_answer_again_is_probed_soon() {
        let mut health = Health::Down { failures: 9, at: Millis(5) };
        assert!(health.begin_probe(Millis(5)));
        health.answered_once(Millis(1_000));
        assert_eq!(health, Health::Down { failures: 9, at: Millis(1_100) });
        health.answered_once(Millis(2_000));
        assert_eq!(health, Health::Down { failures: 9, at: Millis(1_100) });
    }

    #[test]
    fn check_is_two_probes() {
        let mut health = Health::Up;
        assert!(health.begin_check() && !health.begin_check());
        assert!(!health.answered(Millis(1_000)));
        assert_eq!(health, Health::Recheck { at: Millis(1_100) });
        assert!(health.is_up() && !health.begin_check());
        assert!(health.begin_probe(Millis(1_100)));
        assert!(!health.answered(Millis(1_150)));
        assert_eq!(health, Health::Up);
        health = Health::SecondCheck;
        assert!(health.failed(Purpose::Probe, Millis(0), 0.0) && !health.is_up());
    }
}
