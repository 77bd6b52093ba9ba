//! The end: of one connection in good order, and of the agent.

use std::time::Duration;

use super::role::{Bridge, Head, Role, Stage, Stay};
use super::worker::{Agent, Life};
use crate::net::conn::{LingerProgress, LingerStep};

/// How long the proxy may take to close after our FIN: it may still be passing on a body that was
/// answered before its end.
const LINGER: Duration = Duration::from_secs(5);

/// The same while the agent itself is leaving.
const LAST_LINGER: Duration = Duration::from_millis(500);

/// How long what stands in a bridge's output may stand there without any of it being taken.
const FLUSH_WITHIN: Duration = Duration::from_secs(60);

/// How many reads of what is thrown away one connection may have in a turn.
const DISCARDS: usize = 16;

impl Agent {
    /// Sees a bridge off: flush, FIN, and reading until the proxy has closed too.
    pub(super) fn leave(&mut self, key: usize) {
        let role = self.set_role(key, Role::Leaving);
        self.role_is_over(key, role);
        self.set_deadline(key, FLUSH_WITHIN);
        self.see_off(key);
    }

    /// Goes on seeing a bridge off.
    pub(super) fn see_off(&mut self, key: usize) {
        let ws = &mut self.ws;
        let conn = &mut self.slots[key].conn;
        let (parting, left) = conn.step_linger(&mut ws.scratch, &mut ws.pool, DISCARDS);
        match parting {
            LingerProgress::None => {}
            LingerProgress::Flushing => self.set_deadline(key, FLUSH_WITHIN),
            LingerProgress::FinSent => {
                self.set_deadline(key, if self.is_serving() { LINGER } else { LAST_LINGER });
            }
        }
        match left {
            LingerStep::Wait => {}
            LingerStep::Close => self.close(key),
            LingerStep::Busy => self.again(key),
        }
    }

    /// A signal to leave has come: nothing new is taken, and what is under way is finished, within
    /// the grace. The second time it is over at once.
    pub(super) fn leave_all(&mut self) {
        if !self.is_serving() {
            log::warn!("second signal: leaving at once");
            self.life = Life::Over;
            return;
        }
        let under_way = self.exchanges.len();
        log::info!("leaving: {under_way} requests under way are finished");
        self.life = Life::Leaving { until: self.now() + self.grace.as_millis() as u64 };
        for running in self.exchanges.iter_mut() {
            running.exchange.close_requester();
        }
        self.say_farewell(|_| true);
        let keys: Vec<usize> = self.slots.iter().map(|(key, _)| key).collect();
        for key in keys {
            match self.slots[key].role {
                // The proxy closes it, and what comes until then is served.
                Role::Bridge(Bridge { stay: Stay::Leaves, .. }) => {}
                Role::Bridge(Bridge { stage, .. }) => match stage {
                    // What has been promised, or has begun to come, is still served.
                    Stage::Ready { .. } | Stage::Asking { .. } | Stage::Requesting { .. } => {}
                    Stage::Idle(Head::Begun) => {}
                    Stage::Idle(Head::Unread) if self.slots[key].conn.is_readable() => {
                        self.set_deadline(key, LAST_LINGER);
                    }
                    _ => self.close(key),
                },
                Role::Line(line) if !line.serves() => self.close(key),
                Role::Line(_) | Role::Farewell(_) | Role::Leaving | Role::Closed => {}
            }
        }
    }

    /// Whether the agent has nothing left to do, or no time left to do it.
    pub(super) fn is_over(&self) -> bool {
        match self.life {
            Life::Serving => false,
            Life::Over => true,
            Life::Leaving { until } if self.now() < until => self.slots.is_empty(),
            Life::Leaving { .. } => {
                log::warn!("the grace is over: {} requests are cut off", self.exchanges.len());
                true
            }
        }
    }
}
