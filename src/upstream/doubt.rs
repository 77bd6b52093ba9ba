//! Whether a server that has ended a connection without an answer is still there.
//!
//! A process that is killed does not end at one moment. Its connections are closed one after another,
//! and the kernel goes on accepting new ones for it until its listening socket is closed, too; then it
//! resets those that the process has never seen. So right after such an end a connect shows nothing,
//! and a request on a new connection may be lost like the one before. A connection made then is *on
//! trial*: it must stand for a moment before a request is sent on it. An answer to a request that was
//! sent later shows that the server is there, and ends the doubt.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time::Millis;

/// For how long there is doubt. A process closes everything within a few milliseconds, and the
/// processes of one service are killed within some tens.
const LASTS: Duration = Duration::from_millis(100);

/// What `since` holds while there is no doubt.
const NONE: u64 = u64::MAX;

/// The doubt in one server. Threads may share it.
#[derive(Debug)]
pub(crate) struct Doubt {
    /// When it last ended a connection without an answer, in milliseconds; or [`NONE`].
    since: AtomicU64,
}

impl Default for Doubt {
    fn default() -> Doubt {
        Doubt { since: AtomicU64::new(NONE) }
    }
}

impl Doubt {
    /// Notes that the server has ended a connection without an answer to the request on it.
    pub fn begin(&self, now: Millis) {
        self.since.store(now.0, Ordering::Relaxed);
    }

    /// Notes that it has answered a request that was sent at `sent`. True if that ends a doubt.
    pub fn answered(&self, sent: Millis) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        // Sent before, the answer may have been on its way when the server ended.
        let ends = since != NONE && sent.0 > since;
        if ends {
            // If it has begun anew meanwhile, it stays.
            let _ = self.since.compare_exchange(since, NONE, Ordering::Relaxed, Ordering::Relaxed);
        }
        ends
    }

    /// How long a connection made now must stand before it is used; `None` if there is no doubt.
    pub fn trial(&self, now: Millis) -> Option<Duration> {
        let since = self.since.load(Ordering::Relaxed);
        let left = (Millis(since) + LASTS).since(now);
        (since != NONE && !left.is_zero()).then_some(left)
    }

    /// Whether a connection that was good at `then` says nothing of the server as it is now.
    pub fn is_later_than(&self, then: Millis) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        since != NONE && since > then.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_stands_until_the_doubt_is_over() {
        let doubt = Doubt::default();
        assert_eq!(doubt.trial(Millis(0)), None);
        doubt.begin(Millis(1_000));
        for (now, trial) in [(1_000, Some(100)), (1_099, Some(1)), (1_100, None), (9_000, None)] {
            assert_eq!(doubt.trial(Millis(now)), trial.map(Duration::from_millis), "{now}");
        }
        doubt.begin(Millis(1_050));
        assert_eq!(doubt.trial(Millis(1_100)), Some(Duration::from_millis(50)));
    }

    #[test]
    fn only_the_answer_to_a_later_request_ends_it() {
        let doubt = Doubt::default();
        assert!(!doubt.answered(Millis(5)));
        doubt.begin(Millis(1_000));
        assert!(!doubt.answered(Millis(999)) && !doubt.answered(Millis(1_000)));
        assert!(doubt.trial(Millis(1_001)).is_some());
        assert!(doubt.answered(Millis(1_001)) && !doubt.answered(Millis(1_002)));
        assert_eq!(doubt.trial(Millis(1_001)), None);
    }

    #[test]
    fn what_was_good_before_it_is_good_no_longer() {
        let doubt = Doubt::default();
        assert!(!doubt.is_later_than(Millis(0)));
        doubt.begin(Millis(1_000));
        assert!(doubt.is_later_than(Millis(999)) && !doubt.is_later_than(Millis(1_000)));
        assert!(doubt.answered(Millis(2_000)) && !doubt.is_later_than(Millis(999)));
    }
}
