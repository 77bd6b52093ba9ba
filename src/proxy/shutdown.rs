//! How a worker drains.
//!
//! ```text
//!   Serving ──drain──> LastRequests ──no client may ask──> ClosingBridges ──idle──> finished
//! ```
//!
//! Bridges stay while a client on any worker may still send a request, or a request waits that a
//! bridge standing aside may serve. Exchanges in progress may
//! finish within `drain-timeout`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::http::reply::Reply;

use super::closing::End;
use super::drain::{LAST_CHANCE, Shutdown, Stage};
use super::listeners::{Acceptor, Accepts};
use super::reason::Reason;
use super::role::{Client, Letter, Role};
use super::stats;
use super::worker::Worker;

/// How long a peer may take to close after our FIN while draining.
const LAST_LINGER: Duration = Duration::from_millis(500);

impl Worker {
    /// Whether new work is accepted.
    pub(super) fn is_serving(&self) -> bool {
        self.shutdown.is_serving()
    }

    /// Stops accepting and closes idle clients.
    pub(super) fn drain(&mut self) {
        if !self.is_serving() {
            return;
        }
        // Closing the listener would reset the connections in its backlog.
        for _ in 0..Acceptor::backlog_rounds() {
            self.acceptor.keys().into_iter().for_each(|key| self.acceptor.mark_ready(key));
            self.accept_all();
            if !self.acceptor.has_ready() {
                break;
            }
        }
        self.shared.managers.stop();
        self.acceptor.close_all(self.conns.registry());
        self.shutdown = Shutdown {
            stage: Stage::LastRequests { quiet_turns: 0 },
            until: self.conns.now().millis() + self.settings().drain_timeout,
        };
        self.conns.linger_timeouts.fin = LAST_LINGER;
        // Only now that connections from the backlog count among those that may still ask.
        self.shared.draining.fetch_add(1, Ordering::SeqCst);
        if self.all_drain() {
            // They may have nothing left to do but to wait for this one.
            self.wake_others();
        }
        for key in self.conns.keys_with(|_| true) {
            match self.conns.role(key) {
                Some(Role::Requesting { exchange, .. }) => {
                    let exchange = *exchange;
                    self.exchanges.get_mut(exchange).exchange.close_requester();
                }
                Some(Role::ReadingHead { client, .. }) => {
                    let (begun, is_new) = (client.head_begun, is_new(client));
                    self.drain_client(key, begun, is_new);
                }
                // A backend makes no request, and can find another proxy.
                Some(
                    Role::AwaitingPreamble { .. }
                    | Role::AwaitingProxyHeader { accepts: Accepts::Swiftclient(_), .. },
                ) => self.end(key, End::Close),
                Some(Role::AwaitingProxyHeader { .. }) => self.drain_client(key, false, true),
                _ => {}
            }
        }
    }

    fn drain_client(&mut self, key: usize, head_begun: bool, is_new: bool) {
        if head_begun {
            return;
        }
        if !is_new && self.conns[key].conn.is_idle() {
            self.end(key, End::Linger);
        } else {
            self.conns.set_deadline(key, LAST_CHANCE);
        }
    }

    /// While draining: closes bridges once no request can come, rejects waiting requests that
    /// nothing can serve, and ends everything when the time is up.
    pub(super) fn continue_drain(&mut self) {
        if self.is_serving() {
            return;
        }
        if self.shutdown.is_closing_bridges() {
            self.close_unwanted_connects();
        }
        let is_late = self.conns.now().millis() >= self.shutdown.until;
        self.shutdown.stage = match self.shutdown.stage {
            Stage::LastRequests { .. }
                if !is_late && (self.clients_may_ask() || self.suspects_may_serve()) =>
            {
                Stage::LastRequests { quiet_turns: 0 }
            }
            // A request on another worker may have asked for one of our bridges after this turn
            // began.
            Stage::LastRequests { quiet_turns: 0 } => Stage::LastRequests { quiet_turns: 1 },
            Stage::LastRequests { .. } => {
                self.conns.lent_keys().into_iter().for_each(|key| self.close_idle_bridge(key));
                self.close_aside();
                Stage::ClosingBridges { quiet_turns: 0 }
            }
            // A connect in progress is for a request that waits here. A bridge released on another
            // worker may have been on its way here when the turn began, but not for two turns.
            Stage::ClosingBridges { .. }
                if self.dialling.is_busy() || stats::in_progress(&self.shared.stats) > 0 =>
            {
                Stage::ClosingBridges { quiet_turns: 0 }
            }
            Stage::ClosingBridges { quiet_turns: 0 } => Stage::ClosingBridges { quiet_turns: 1 },
            stage => {
                self.end_queued();
                stage
            }
        };
        if is_late {
            self.end_everything();
        }
    }

    /// Whether a connection on any worker, or on its way to one, may still send a request.
    fn clients_may_ask(&self) -> bool {
        let all = &self.shared.stats;
        // In this order: one that arrives meanwhile is counted where it is.
        !self.all_drain()
            || all.iter().any(|stats| stats.arriving.get() > 0)
            || stats::sum(all, |stats| stats.role(Letter::Unknown)) > 0
    }

    /// Whether a request waits, on any worker, that a bridge standing aside may still serve.
    fn suspects_may_serve(&self) -> bool {
        let all = &self.shared.stats;
        self.shared.backends.suspects() > 0
            && stats::sum(all, |stats| &stats.waiting) > stats::sum(all, |stats| &stats.unserved)
    }

    /// Tells a backend to dial again.
    pub(super) fn reject_shutting_down(&mut self, key: usize) {
        let reply = Reply::new(504, "the proxy is shutting down; try again");
        self.reject(key, Reason::ShuttingDown, reply);
    }

    fn end_queued(&mut self) {
        for key in self.conns.keys_with(|role| matches!(role, Role::Queued { .. })) {
            if let Some(Role::Queued { request, .. }) = self.conns.role(key) {
                let head_only = request.meta.to_head;
                let retry_after = Some(super::client::RETRY_AFTER);
                let reply = Reply::new(503, "the proxy is shutting down");
                let reply = Reply { head_only, retry_after, ..reply };
                self.refuse(key, Reason::ShuttingDown, reply);
            }
        }
    }

    /// `drain-timeout` has passed.
    fn end_everything(&mut self) {
        self.end_queued();
        let exchanges = self.exchanges.keys();
        if !exchanges.is_empty() {
            let count = exchanges.len();
            log::warn!("worker {}: drain-timeout cut off {count} exchanges", self.index);
        }
        exchanges.into_iter().for_each(|exchange| self.cut(exchange));
        self.conns.lent_keys().into_iter().for_each(|key| self.close_idle_bridge(key));
        self.end_all(|_| true, || End::Close);
    }

    /// Whether the worker has nothing left to do. No worker stops before the others are done,
    /// because a bridge, mail or a new client may be on its way from them.
    pub(super) fn is_finished(&self) -> bool {
        let is_over = || self.all_drain() && self.shared.open_connections() == 0;
        !self.is_serving() && (is_over() || self.conns.now().millis() >= self.shutdown.until)
    }

    /// Whether no worker accepts any more.
    fn all_drain(&self) -> bool {
        self.shared.draining.load(Ordering::SeqCst) == self.shared.mailboxes.len()
    }
}

fn is_new(client: &Client) -> bool {
    client.requests == 0
}
