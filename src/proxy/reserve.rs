//! Newcomers while the proxy is full (see `shares.rs`): they are accepted for as long as it takes to
//! see what they are. Backends that register or deregister are served. A client is held, and its
//! request read no further, until there is room, or until others wait to be accepted in its place.

use std::time::Duration;

use crate::bridge::request as bridge_request;
use crate::http::Reply;
use crate::time::Millis;

use super::closing::End;
use super::reason::Reason;
use super::role::{Admission, Role};
use super::shares::Shares;
use super::worker::Worker;

/// How long a newcomer may take to show what it is.
pub(super) const NEWCOMER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a client is held at most, and how long at least if its place is needed.
const HELD_MAX: Duration = Duration::from_secs(5);
const HELD_MIN: Duration = Duration::from_millis(100);

/// How often idle clients are closed while others are held.
const RECLAIM_INTERVAL: Duration = Duration::from_millis(100);

/// `Retry-After` of a client that was held in vain, in seconds, and what it is told.
const RETRY_AFTER: u32 = 5;
const FULL: &str = "too many connections are open";

impl Worker {
    /// How the connections are shared out under the present settings.
    pub(super) fn shares(&self) -> Shares {
        let has_servers = !self.config.pools.is_empty();
        Shares::of(self.shared.connection_limit(&self.config), has_servers)
    }

    /// Whether one more client would exceed the clients' share.
    pub(super) fn is_crowded(&self) -> bool {
        let (shares, open) = (self.shares(), self.admitted_connections());
        let servers: u32 = self.config.pools.servers().map(|server| server.open()).sum();
        let others = self.shared.bridges.get() + servers as usize;
        self.is_serving()
            && (open + 1 > shares.open || open.saturating_sub(others) + 1 > shares.clients)
    }

    /// All connections but the newcomers.
    pub(super) fn admitted_connections(&self) -> usize {
        self.shared.open_connections().saturating_sub(self.shared.newcomers.get())
    }

    /// Whether the newcomer `key`, whose first bytes are here, is a client that must be held.
    pub(super) fn holds_newcomer(&mut self, key: usize) -> bool {
        match bridge_request::is_bridge(self.conns[key].conn.input.bytes()) {
            Some(false) => {}
            Some(true) | None => return false,
        }
        let (is_crowded, since) = (self.is_crowded(), self.conns.now().millis());
        let Some(admission) = self.admission_mut(key) else { return false };
        match std::mem::replace(admission, Admission::Admitted) {
            Admission::Newcomer(newcomer) if is_crowded => {
                *admission = Admission::Held { since, _newcomer: newcomer };
            }
            _ => return false,
        }
        self.conns.set_deadline(key, HELD_MAX);
        self.held.push_back(self.conns[key].token());
        true
    }

    /// An event on a client that is held: it may be gone.
    pub(super) fn watch_held(&mut self, key: usize) {
        let conn = &self.conns[key].conn;
        if conn.is_broken() || conn.has_hung_up() {
            self.end(key, End::Close);
        }
    }

    /// Whether the client `key` is held.
    pub(super) fn is_held(&self, key: usize) -> bool {
        self.held_since(key).is_some()
    }

    fn held_since(&self, key: usize) -> Option<Millis> {
        match self.conns.role(key) {
            Some(Role::ReadingHead { client, .. }) => match client.admission {
                Admission::Held { since, .. } => Some(since),
                Admission::Admitted | Admission::Newcomer(_) => None,
            },
            _ => None,
        }
    }

    /// Whether connection `key` is a newcomer.
    pub(super) fn is_newcomer(&self, key: usize) -> bool {
        match self.conns.role(key) {
            Some(Role::ReadingHead { client, .. }) => {
                matches!(client.admission, Admission::Newcomer(_))
            }
            _ => false,
        }
    }

    fn admission_mut(&mut self, key: usize) -> Option<&mut Admission> {
        match self.conns.role_mut(key) {
            Some(Role::ReadingHead { client, .. }) => Some(&mut client.admission),
            _ => None,
        }
    }

    /// Admits those that are held while there is room, in order of arrival, and makes room.
    pub(super) fn admit_held(&mut self) {
        while let Some(&token) = self.held.front() {
            let key = self.conns.find(token).filter(|key| self.is_held(*key));
            if let Some(key) = key {
                if self.is_crowded() {
                    break;
                }
                if let Some(admission) = self.admission_mut(key) {
                    *admission = Admission::Admitted;
                }
                self.conns.set_deadline(key, self.config.settings.head_timeout);
                self.conns.requeue(key);
            }
            self.held.pop_front();
        }
        let now = self.conns.now().millis();
        if !self.held.is_empty() && now >= self.next_reclaim {
            self.next_reclaim = now + RECLAIM_INTERVAL;
            self.reclaim_idle_clients();
        }
    }

    /// When [`Worker::admit_held`] must run again.
    pub(super) fn next_admission(&self) -> Option<Millis> {
        (!self.held.is_empty()).then_some(self.next_reclaim)
    }

    /// Others wait to be accepted: refuses the clients that have been held for a while.
    pub(super) fn refuse_held(&mut self) {
        let now = self.conns.now().millis();
        while let Some(&token) = self.held.front() {
            if let Some(key) = self.conns.find(token)
                && let Some(since) = self.held_since(key)
            {
                if now < since + HELD_MIN {
                    return;
                }
                self.refuse_client(key);
            }
            self.held.pop_front();
        }
    }

    /// Refuses a client that has been held in vain.
    pub(super) fn refuse_client(&mut self, key: usize) {
        let reply = Reply { retry_after: Some(RETRY_AFTER), ..Reply::new(503, FULL) };
        self.refuse_at_once(key, Reason::ConnectionLimit, reply);
    }
}
