//! How the agent leaves when it has had no request for long (`--exit-idle`): in the announced way, so
//! that a request which crosses that is served. Those who need it start it again.

use super::role::{Role, Stage};
use super::state::Agent;
use crate::time::Millis;
use std::time::Duration;

/// How long it has at least until its first bridge: the application may be about to start, too.
const START: Duration = Duration::from_secs(60);

impl Agent {
    /// A request has come, or is over.
    pub(super) fn note_request(&mut self) {
        self.last_request = self.now();
    }

    /// A proxy has accepted a bridge. The first one is as good as a request: from now on some may come.
    pub(super) fn note_bridge(&mut self) {
        if !std::mem::replace(&mut self.has_had_bridge, true) {
            self.note_request();
        }
    }

    /// When to see whether the agent is idle.
    pub(super) fn next_idle_look(&self) -> Option<Millis> {
        let is_wanted = self.is_serving() && !self.exit_idle.is_zero();
        let least = if self.has_had_bridge { Duration::ZERO } else { START };
        is_wanted.then(|| self.last_request + self.exit_idle.max(least))
    }

    /// Leaves, if there has been no request for long.
    pub(super) fn leave_if_idle(&mut self) {
        if self.next_idle_look().is_none_or(|at| self.now() < at) {
            return;
        }
        if self.is_in_use() {
            return self.note_request();
        }
        log::info!("no request for {:?}: this agent is not needed", self.exit_idle);
        self.shut_down();
    }

    /// Whether something is in progress here, or in a program that this one replaces or that replaces
    /// this one.
    fn is_in_use(&self) -> bool {
        let is_used = |role: &Role| match role {
            Role::Bridge(bridge) => match bridge.stage {
                Stage::Matched
                | Stage::Acknowledged
                | Stage::Pending(_)
                | Stage::Idle { begun: true } => true,
                // An exchange is counted below.
                _ => false,
            },
            _ => false,
        };
        self.exchanges.len() > 0
            || self.replacing.is_some()
            || self.upgrades.starting.is_some()
            || !self.conns.keys_with(is_used).is_empty()
    }
}
