//! Connections on trial: a server that has ended a connection without an answer may be about to end
//! itself (`upstream/doubt.rs` has the reasons).

use std::io;
use std::time::Duration;

use crate::exchange::{ExchangeError, SeenBy};

use super::super::role::{Origin, Role};
use super::super::worker::Worker;

impl Worker {
    /// The exchange of a bridge has failed. If it leads to a server that has ended it without an
    /// answer, that is noted. The server is not set aside, or any client that knows such a request
    /// could take a site down.
    pub(in crate::proxy) fn note_unanswered(&self, bridge: usize, error: &ExchangeError) {
        if error.seen_by() == SeenBy::Application
            && error.is_end_without_answer()
            && let Some(bridge) = self.conns.role(bridge).and_then(Role::bridge)
            && let Origin::Dialled(permit) = &bridge.origin
        {
            permit.server.doubt().begin(self.conns.now().millis());
        }
    }

    /// A connection for requests has been made, which must stand for so long. It is among those that
    /// are being made until then, so no other is dialled in its place.
    pub(super) fn put_on_trial(&mut self, key: usize, trial: Duration) {
        if let Some(Role::Connecting { attempt, .. }) = self.conns.role_mut(key) {
            attempt.on_trial = true;
            self.conns.set_deadline(key, trial);
            // It may have ended already.
            self.conns.requeue(key);
        }
    }

    pub(super) fn is_on_trial(&self, key: usize) -> bool {
        matches!(self.conns.role(key), Some(Role::Connecting { attempt, .. }) if attempt.on_trial)
    }

    /// An event on a connection on trial.
    pub(super) fn watch_trial(&mut self, key: usize) {
        let conn = &self.conns[key].conn;
        if conn.is_broken() || conn.has_hung_up() {
            let why = "it has ended a new connection before anything was sent";
            self.connect_failed(key, &io::Error::other(why));
        }
    }
}
