//! How far an old program is with leaving everything to the new one (see `proxy/replaced.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::process::channel::Channel;
use crate::time::Millis;

/// When to try again what the new program has not taken.
const AGAIN: Duration = Duration::from_millis(5);

/// How often to see whether the other workers have left, too.
const CHECK: Duration = Duration::from_millis(20);

/// The channel to the new program, and how far the workers are.
pub(in crate::proxy) struct Replacement {
    pub(in crate::proxy) channel: Channel,
    /// Workers that still have bridges of the first step.
    pub(in crate::proxy) busy: AtomicUsize,
}

impl Replacement {
    pub(in crate::proxy) fn new(channel: Channel, workers: usize) -> Replacement {
        Replacement { channel, busy: AtomicUsize::new(workers) }
    }
}

/// What a worker knows of it.
#[derive(Default)]
pub(in crate::proxy) struct Replaced {
    pub(in crate::proxy) by: Option<Arc<Replacement>>,
    /// The first step is done here.
    pub(in crate::proxy) bridges_gone: bool,
    /// Something has not been taken.
    pub(in crate::proxy) again: bool,
    /// When to look again for what has nothing in progress.
    pub(in crate::proxy) next: Millis,
    /// When what is still here is drained.
    pub(in crate::proxy) until: Millis,
}

impl Replaced {
    /// Whether a new program takes over.
    pub(in crate::proxy) fn is_on(&self) -> bool {
        self.by.is_some()
    }

    pub(in crate::proxy) fn next_check(&self, now: Millis) -> Option<Millis> {
        self.is_on().then(|| self.next.max(now))
    }

    /// Whether it is time to look for what has nothing in progress. Every turn would be too often:
    /// each look is at all connections.
    pub(in crate::proxy) fn is_due(&self, now: Millis) -> bool {
        now >= self.next
    }

    /// Something has been looked for: says when to look again.
    pub(in crate::proxy) fn looked(&mut self, now: Millis) {
        let others_are_busy = self.by.as_ref().is_some_and(|by| by.busy.load(Ordering::SeqCst) > 0);
        self.next = now + if self.again || others_are_busy { AGAIN } else { CHECK };
    }
}
