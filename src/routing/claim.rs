//! Which bridge gets a request that waits in several queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::*};

/// The cell over which bridges compete for a waiting request. It belongs to the worker on which the
/// request waits, which reuses it for later requests. Each use has its own stamp, so an entry left
/// in some queue can never claim a later request.
///
/// Holds twice the stamp while the request waits, and one more once it has been claimed.
#[derive(Clone, Debug, Default)]
pub(super) struct Claim(Arc<AtomicU64>);

impl Claim {
    /// Opens the cell for the request with this stamp. Only its worker does this, and only while
    /// no entry with that stamp exists.
    pub(super) fn open(&self, stamp: u64) {
        self.0.store(stamp << 1, Release);
    }

    /// Claims the request. True for exactly one caller.
    pub(super) fn win(&self, stamp: u64) -> bool {
        let open = stamp << 1;
        self.0.compare_exchange(open, open | 1, AcqRel, Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Claim {
        /// Whether the request still waits. For checks only: the answer may be stale at once.
        pub(in crate::routing) fn is_open(&self, stamp: u64) -> bool {
            self.0.load(Acquire) == stamp << 1
        }
    }

    #[test]
    fn a_request_is_claimed_once_and_an_old_entry_claims_nothing() {
        let claim = Claim::default();
        claim.open(1);
        let old = claim.clone();
        assert!(claim.is_open(1) && old.win(1) && !claim.win(1) && !claim.is_open(1));
        claim.open(2);
        assert!(!old.win(1) && claim.win(2));
    }
}
