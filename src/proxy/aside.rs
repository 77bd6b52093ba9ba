//! What a worker keeps of backends that have gone silent: their bridges, and when it looks for others
//! (`silence.rs` and `suspects.rs` use it).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::net::token::Token;
use crate::time::Millis;

use super::backends::Backend;
use super::role::Route;

/// How often the exchanges are looked at for requests that are not acknowledged.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// How long after its beginning an exchange is looked at: an acknowledgement that is missing later
/// is one of a body, and shows in the next request.
pub(super) const LOOKED_AT: Duration = Duration::from_secs(3);

/// When the exchanges are looked at.
#[derive(Default)]
pub(super) struct Watch {
    /// When the youngest exchange began.
    pub(super) last_begun: Millis,
    next: Millis,
}

impl Watch {
    /// The exchanges have been looked at.
    pub(super) fn looked(&mut self, now: Millis) {
        self.next = now + LOOK_INTERVAL;
    }

    /// When to look next.
    pub(super) fn due(&self, now: Millis) -> Option<Millis> {
        (now < self.last_begun + LOOKED_AT).then_some(self.next)
    }
}

/// The bridges of this worker that stand aside.
#[derive(Default)]
pub(super) struct Aside {
    pub(super) groups: Vec<Group>,
}

/// Those of one backend and route.
pub(super) struct Group {
    pub(super) backend: Arc<Backend>,
    pub(super) route: Arc<Route>,
    /// Longest aside first; may hold bridges that have gone.
    pub(super) bridges: VecDeque<Token>,
    /// When the next one is probed though no request waits.
    pub(super) due: Millis,
}

impl Aside {
    /// When a probe is due.
    pub(super) fn next_probe(&self) -> Option<Millis> {
        self.groups.iter().map(|group| group.due).min()
    }
}
