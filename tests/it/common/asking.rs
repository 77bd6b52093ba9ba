//! What clients that keep asking share with the test that changes what serves them.

use super::eventually;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How many requests of a test's clients have been served, and whether they are to ask on.
#[derive(Debug, Default)]
pub struct Asking {
    over: AtomicBool,
    served: AtomicUsize,
}

impl Asking {
    /// Has the clients end when what this returns is dropped.
    pub fn ends(&self) -> Ends<'_> {
        Ends(&self.over)
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// One more request has been served.
    pub fn count(&self) {
        self.served.fetch_add(1, Ordering::SeqCst);
    }

    /// How many have been served.
    pub fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }

    /// Waits until so many more have been served.
    #[track_caller]
    pub fn await_more(&self, count: usize) {
        let enough = self.served() + count;
        eventually("more are served", || self.served() >= enough);
    }
}

/// Ends clients when it is dropped, even those of a test that is failing: their threads would never
/// end otherwise.
pub struct Ends<'a>(pub &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
