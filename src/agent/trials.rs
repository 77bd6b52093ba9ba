//! Connections on trial: an application that has ended a connection without an answer may be about to
//! end itself (`upstream/doubt.rs` has the reasons).

use std::io;
use std::time::Duration;

use super::role::{Role, UpstreamState};
use super::state::Agent;
use crate::net::token::Token;
use crate::time::Millis;

impl Agent {
    /// An application has ended a connection without an answer to the request on it.
    pub(super) fn ended_unanswered(&mut self, application: usize) {
        let now = self.now();
        self.applications[application].doubt.begin(now);
        // The others may be about to end in the same way: the next is to be a new one.
        self.close_idle(application);
        if self.is_serving() && self.applications[application].health.begin_check() {
            self.probe(application, 0);
        }
    }

    /// An application has answered, over `upstream`, a request that was sent at `sent`.
    pub(super) fn note_answer(&mut self, upstream: usize, sent: Millis) {
        let Some(Role::Upstream(upstream)) = self.conns.role(upstream) else { return };
        let application = upstream.application;
        if self.applications[application].doubt.answered(sent) {
            let is_on_trial = |role: &Role| match role {
                Role::Upstream(upstream) => {
                    upstream.application == application && upstream.is_on_trial()
                }
                _ => false,
            };
            self.conns.keys_with(is_on_trial).into_iter().for_each(|key| self.conns.requeue(key));
        }
    }

    /// A connection for `bridge` has been made, which must stand for so long.
    pub(super) fn put_on_trial(&mut self, key: usize, bridge: Token, trial: Duration) {
        self.set_upstream(key, UpstreamState::OnTrial { bridge });
        self.conns.set_deadline(key, trial);
        // It may have ended already.
        self.conns.requeue(key);
    }

    /// Whether this is a connection on trial.
    pub(super) fn is_on_trial(&self, upstream: Option<Token>) -> bool {
        let key = upstream.and_then(|upstream| self.conns.find(upstream));
        match key.and_then(|key| self.conns.role(key)) {
            Some(Role::Upstream(upstream)) => upstream.is_on_trial(),
            _ => false,
        }
    }

    /// An event on a connection on trial, or the doubt has ended.
    pub(super) fn watch_trial(&mut self, key: usize) {
        let Some(Role::Upstream(upstream)) = self.conns.role(key) else { return };
        let (application, now) = (upstream.application, self.now());
        let conn = &self.conns[key].conn;
        if conn.is_broken() || conn.has_hung_up() {
            let why = "it has ended a new connection before anything was sent";
            self.connect_failed(key, &io::Error::other(why));
        } else if self.applications[application].doubt.trial(now).is_none() {
            self.trial_passed(key);
        }
    }

    /// A connection on trial has stood for long enough: it is used.
    pub(super) fn trial_passed(&mut self, key: usize) {
        let Some(Role::Upstream(upstream)) = self.conns.role(key) else { return };
        let UpstreamState::OnTrial { bridge } = upstream.state else { return };
        self.conns.clear_deadline(key);
        if self.find_bridge(bridge).is_some() {
            self.use_upstream(bridge.key(), key, false);
        } else {
            self.close(key);
        }
    }
}
