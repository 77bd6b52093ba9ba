//! What a route's lock costs: its cache lines come from the core that held it last, and a core that
//! finds it held spins.

use crate::costs::{Costs, Nanos};

/// The lock of one route.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lock {
    last: usize,
    free_at: Nanos,
}

impl Lock {
    /// Worker `w` takes the lock at `now`, or as soon as it is free. How long that takes until it
    /// is free again.
    pub fn hold(&mut self, w: usize, now: Nanos, costs: &Costs) -> Nanos {
        let held = if self.last == w { costs.lock } else { costs.lock_moved };
        self.last = w;
        self.free_at = self.free_at.max(now) + held;
        self.free_at - now
    }
}
