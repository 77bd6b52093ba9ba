//! How the agent ends.

use std::time::Duration;

use super::role::{Role, Stage};
use super::state::{Agent, Life};
use crate::process::notify;

/// How long the proxy may take to close after our FIN while the agent shuts down.
const LAST_LINGER: Duration = Duration::from_millis(500);

impl Agent {
    /// A signal to stop has come. The second one ends the process at once.
    pub(super) fn told_to_stop(&mut self) {
        let is_over = matches!(self.life, Life::Leaving { .. } | Life::Over);
        let is_second = std::mem::replace(&mut self.is_told, true) && is_over;
        // systemd sends TERM once more when the newest program has ended.
        if is_second && self.upgrades.was_replaced && notify::is_wanted() {
            log::info!("second signal: still finishing what is in flight");
        } else if is_second {
            log::warn!("second signal: exiting at once");
            self.life = Life::Over;
        }
        self.shut_down();
    }

    /// Takes nothing new, and finishes requests in progress within the grace.
    pub(super) fn shut_down(&mut self) {
        match self.life {
            Life::Serving => notify::stopping(),
            Life::Replaced { .. } => {}
            Life::Leaving { .. } | Life::Over => return,
        }
        if let Some(unwanted) = &self.upgrades.starting {
            unwanted.set();
        }
        self.supervised.tell_now();
        log::info!("shutting down: finishing {} requests in flight", self.exchanges.len());
        self.life = Life::Leaving { until: self.now() + self.grace };
        self.conns.linger_timeouts.fin = LAST_LINGER;
        // With a new program, its bridges have the same tokens as those here: they would be
        // deregistered, too. Those here follow as soon as their requests are over.
        if self.replaced.is_none() {
            self.leave_all();
        } else {
            self.leave_encrypted();
        }
    }

    /// Has the proxies close all bridges, and serves what comes until they do.
    pub(super) fn leave_all(&mut self) {
        self.close_requesters();
        self.deregister(|_| true);
        self.shut_down_each();
    }

    /// Closes each connection as soon as no request is in progress on it.
    pub(super) fn end_after_requests(&mut self) {
        self.close_requesters();
        self.shut_down_each();
    }

    fn close_requesters(&mut self) {
        for running in self.exchanges.iter_mut() {
            running.exchange.close_requester();
        }
    }

    fn shut_down_each(&mut self) {
        for key in self.conns.keys_with(|_| true) {
            self.shut_down_one(key);
        }
    }

    pub(super) fn shut_down_one(&mut self, key: usize) {
        match self.conns.role(key) {
            // The proxy closes it; requests until then are served.
            Some(Role::Bridge(bridge)) if bridge.deregistering => {}
            Some(Role::Bridge(bridge)) => match bridge.stage {
                // A request that has been acknowledged, or has begun to arrive, is still served.
                Stage::Acknowledged | Stage::Pending(_) | Stage::Exchanging { .. } => {}
                Stage::Idle { begun: true } => {}
                Stage::Idle { begun: false } if self.conns[key].conn.is_readable() => {
                    self.conns.set_deadline(key, LAST_LINGER);
                }
                _ => self.close(key),
            },
            Some(Role::Upstream(upstream)) if upstream.is_unused() => self.close(key),
            Some(Role::Upstream(_) | Role::Deregistration(_) | Role::Asker) | None => {}
        }
    }

    /// Whether the agent has nothing left to do, or no time left to do it.
    pub(super) fn is_over(&self) -> bool {
        match self.life {
            Life::Serving => false,
            Life::Over => true,
            // What still comes from the program that this one has replaced goes through here.
            Life::Replaced { .. } => {
                let is_told = self.replaced.as_ref().is_none_or(|replaced| replaced.has_passed);
                is_told && self.has_only_askers() && self.replacing.is_none()
            }
            // A new program that starts must be ended, too.
            Life::Leaving { until } if self.now() < until => {
                self.has_only_askers() && self.upgrades.starting.is_none()
            }
            Life::Leaving { .. } => {
                log::warn!("the grace is over: {} requests are cut off", self.exchanges.len());
                true
            }
        }
    }
}
