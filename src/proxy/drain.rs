//! The stages of a worker's drain (see `shutdown.rs`).

use std::time::Duration;

use crate::time::Millis;

/// How often a draining worker checks whether the others are done.
const CHECK: Duration = Duration::from_millis(20);

/// How long a connection that has sent nothing yet may stay while draining: its first request may
/// be on its way.
pub(super) const LAST_CHANCE: Duration = Duration::from_millis(500);

/// The stage of a worker's drain.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Stage {
    #[default]
    Serving,
    /// Connections may still send a request. No worker has had such a connection for this many
    /// turns.
    LastRequests { quiet_turns: u8 },
    /// Idle bridges are closed. No worker has had an exchange for this many turns.
    ClosingBridges { quiet_turns: u8 },
}

/// Whether a worker drains, and until when.
#[derive(Clone, Copy, Default)]
pub(super) struct Shutdown {
    pub(super) stage: Stage,
    pub(super) until: Millis,
}

impl Shutdown {
    /// Whether new work is accepted.
    pub(super) fn is_serving(self) -> bool {
        self.stage == Stage::Serving
    }

    /// Whether bridges without work are closed.
    pub(super) fn is_closing_bridges(self) -> bool {
        matches!(self.stage, Stage::ClosingBridges { .. })
    }

    /// When to look at the other workers again.
    pub(super) fn next_check(self, now: Millis) -> Option<Millis> {
        (self.stage != Stage::Serving).then(|| self.until.min(now + CHECK))
    }
}
