//! Backends that speak swiftclient (`doc/protocol.md`, "swiftclient"): they connect to a listener
//! of a site, send a preamble, get no answer, and are then bridges.

use std::fmt::Display;
use std::sync::Arc;

use crate::bridge::instance::InstanceName;
use crate::bridge::swiftclient::{self, BackendId, MAX_PREAMBLE, Refused};
use crate::net::conn::Received;
use crate::net::log_limiter;

use super::closing::End;
use super::listeners::{Accepts, SwiftclientListener};
use super::reason::Reason;
use super::registration::{Entry, Introduction};
use super::role::{Bridge, Handshake, Origin, Role, Welcome};
use super::worker::Worker;

impl Worker {
    /// Reads more of a backend's preamble.
    pub(super) fn read_preamble(&mut self, key: usize) {
        let Some(Role::AwaitingPreamble { listener }) = self.conns.role(key) else { return };
        let listener = Arc::clone(listener);
        loop {
            let (connection, ws) = self.conns.split(key);
            // A reload may have removed the site, or changed its key.
            let Some(expected) = self.config.sites.key_of(&listener) else {
                return self.end(key, End::Close);
            };
            match swiftclient::parse(connection.conn.input.bytes(), expected) {
                Ok(None) => match connection.conn.receive(&mut ws.scratch[..=MAX_PREAMBLE]) {
                    Received::Bytes(count) => {
                        connection.conn.input.push(&ws.scratch[..count], &mut ws.pool);
                    }
                    Received::Nothing => return,
                    Received::End | Received::Broken(_) => return self.end(key, End::Close),
                },
                Ok(Some(id)) => {
                    let trusted = !expected.is_empty() || self.config.settings.open_bridges;
                    connection.conn.input.clear(&mut ws.pool);
                    if !trusted && !self.is_of_this_machine(key) {
                        let why = "the site has no key, and the backend is not on this machine";
                        let reason = Reason::BridgeNotLocal;
                        return self.reject_swiftclient(key, &listener, reason, &why);
                    }
                    let entry = Entry::New(Handshake::Reused { until: None }, Welcome::Silent);
                    return self.admit_swiftclient(key, listener, id, entry);
                }
                // Unread bytes turn the close into a reset, which is fine for this peer.
                Err(refused) => {
                    let reason = reason_of(refused);
                    return self.reject_swiftclient(key, &listener, reason, &refused);
                }
            }
        }
    }

    /// A backend has shown the site's key, here or to the program that this one replaces.
    pub(super) fn admit_swiftclient(
        &mut self,
        key: usize,
        listener: Arc<SwiftclientListener>,
        id: BackendId,
        entry: Entry,
    ) {
        if !self.is_serving() {
            return self.end(key, End::Close);
        }
        let Some(share) = self.bridge_permit(key) else {
            let why = "the proxy takes no more bridges";
            return self.reject_swiftclient(key, &listener, Reason::BridgeLimit, &why);
        };
        let joined = match self.join(&listener.spec) {
            Ok(joined) => joined,
            Err(full) => {
                return self.reject_swiftclient(key, &listener, Reason::HostLimit, &full);
            }
        };
        let peer = self.conns[key].peer;
        log::debug!("swiftclient backend {id} from {peer} for {}", listener.site);
        let backend = self.shared.swiftclient_backends.enter(listener, id, peer);
        let instance = InstanceName::parse(id.to_string().as_bytes());
        let said = Introduction { instance, ..Introduction::default() };
        self.admit(key, joined, Origin::Swiftclient(backend), &entry, (share, said));
    }

    fn reject_swiftclient(
        &mut self,
        key: usize,
        at: &SwiftclientListener,
        reason: Reason,
        why: &dyn Display,
    ) {
        self.stats().rejected.s4xx.add(1);
        self.stats().refusals.of(reason).add(1);
        if let Some(count) = self.swiftclient_rejected.allow(self.conns.now().millis()) {
            let (peer, site) = (self.conns[key].peer, &at.site);
            let more = log_limiter::suppressed(count, " refused");
            log::info!("swiftclient backend {peer} of {site} refused: {why}{more}");
        }
        self.end(key, End::Close);
    }

    /// The preamble did not arrive in time.
    pub(super) fn preamble_timed_out(&mut self, key: usize) {
        let Some(Role::AwaitingPreamble { listener }) = self.conns.role(key) else { return };
        let listener = Arc::clone(listener);
        let sent = self.conns[key].conn.input.bytes();
        let expected = self.config.sites.key_of(&listener).unwrap_or_default();
        let why = swiftclient::late(sent, expected);
        self.reject_swiftclient(key, &listener, reason_of(why), &why);
    }

    /// Closes connections whose listener or server has been removed. A bridge in an exchange is
    /// closed after it, unless its server has been put back by then.
    pub(super) fn dismiss_orphans(&mut self) {
        let is_orphan = |role: &Role| match role {
            Role::AwaitingPreamble { listener }
            | Role::AwaitingProxyHeader { accepts: Accepts::Swiftclient(listener), .. } => {
                listener.is_closed()
            }
            Role::Responding { .. } => false,
            role => role.bridge().is_some_and(Bridge::is_orphaned),
        };
        let here = self.conns.keys_with(is_orphan);
        let idle = self.idle_bridges(Bridge::is_orphaned);
        here.into_iter().chain(idle).for_each(|key| self.dismiss(key));
    }
}

fn reason_of(refused: Refused) -> Reason {
    match refused {
        Refused::Key => Reason::BridgeUnauthorized,
        Refused::Malformed | Refused::Excess | Refused::Late => Reason::BadBridge,
    }
}
