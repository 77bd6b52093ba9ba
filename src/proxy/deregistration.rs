//! Backends that deregister (`doc/protocol.md`, "Leaving"): the proxy closes their bridges from its
//! side, so no request can cross a close.
//!
//! A deregistration arrives on one worker and is mailed to the others. Each first remembers it,
//! then looks through its bridges. Registrations still on their way, and bridges that come from
//! another worker, are checked against those remembered. A bridge in an exchange is only marked as
//! dismissed, so deregistration costs requests nothing.

use std::net::IpAddr;
use std::sync::Arc;

use crate::bridge::{BackendToken, Registration};
use crate::http::reply::Reply;
use crate::routing::RouteSpec;

use super::closing::End;
use super::deregistered::Deregistration;
use super::reason::Reason;
use super::role::{Bridge, Role, Welcome};
use super::state::Mail;
use super::worker::Worker;

/// The answer to a registration that arrives after its backend has deregistered.
pub(super) const DEREGISTERED: &str =
    "this backend has left; come back with a new Cloudbridge-Backend";

/// The answer to a registration whose bridge is dismissed before it could park.
const DISMISSED: &str = "this bridge is taken out of service; come back with another";

impl Worker {
    /// A backend deregisters. It has been checked as for a registration.
    pub(super) fn deregister(
        &mut self,
        key: usize,
        token: BackendToken,
        registration: &Registration,
    ) {
        let peer = self.conns[key].peer;
        log::debug!("backend {peer} deregisters {:?}", registration.patterns);
        self.stats().deregistrations.add(1);
        let spec = RouteSpec::new(&registration.patterns, &registration.prefix)
            .only_if(registration.predicates.clone());
        let deregistration = Arc::new(Deregistration { token, spec });
        for mailbox in self.shared.others(self.index) {
            mailbox.send(Mail::Deregister(Arc::clone(&deregistration)));
        }
        self.dismiss_backend(&deregistration);
        let text = "the bridges of this backend are being closed";
        self.end(key, End::Reply(Reply::new(200, text)));
    }

    /// Dismisses this worker's bridges of a backend that deregisters.
    pub(super) fn dismiss_backend(&mut self, deregistration: &Deregistration) {
        self.deregistered.remember(deregistration, self.conns.now().millis());
        let leaves = |bridge: &Bridge| {
            bridge.announced().is_some_and(|announced| announced.token == deregistration.token)
                && bridge.route.spec().unconfined() == deregistration.spec
        };
        let here = self.conns.keys_with(|role| role.bridge().is_some_and(leaves));
        let idle = self.idle_bridges(leaves);
        log::debug!("worker {}: {} bridges dismissed", self.index, here.len() + idle.len());
        for key in here.into_iter().chain(idle) {
            self.dismiss(key);
        }
    }

    /// Whether a backend that registers has already deregistered.
    pub(super) fn has_deregistered(&self, token: Option<BackendToken>, spec: &RouteSpec) -> bool {
        let now = self.conns.now().millis();
        token.is_some_and(|token| self.deregistered.has(token, &spec.unconfined(), now))
    }

    /// Whether a bridge that arrives from another worker gets no more requests: it may have been
    /// dismissed while it was on its way.
    pub(super) fn must_dismiss(&self, bridge: &Bridge, peer: IpAddr) -> bool {
        let token = bridge.announced().map(|announced| announced.token);
        bridge.dismissed
            || self.has_lost(bridge)
            || self.shared.drained.has(bridge, peer)
            || self.has_deregistered(token, bridge.route.spec())
    }

    /// Gives a bridge no more requests, and closes it if it is unused. Does nothing to other
    /// connections.
    pub(super) fn dismiss(&mut self, key: usize) {
        match self.conns.role_mut(key) {
            // Closed when its exchange is over.
            Some(Role::Responding { bridge, .. }) => bridge.dismissed = true,
            Some(Role::AwaitingRoute { bridge, welcome, .. }) if *welcome != Welcome::Silent => {
                // It dials again, and is told why it is refused, if it is.
                let reason = match bridge.loss(self.config.keyring.as_ref()) {
                    Some(_) => Reason::BridgeUnauthorized,
                    None => Reason::Deregistered,
                };
                self.reject(key, reason, Reply::new(504, DISMISSED));
            }
            // A request that it was reserved for goes back to its place.
            Some(
                Role::Idle(_)
                | Role::Aside(_)
                | Role::Speaking(_)
                | Role::Resting(_)
                | Role::Probed(_)
                | Role::Reserved(_)
                | Role::AwaitingRoute { .. }
                | Role::AwaitingPreamble { .. }
                | Role::AwaitingProxyHeader { .. },
            ) => self.end(key, End::Linger),
            _ => {}
        }
    }
}
