//! Backends that deregister (`doc/protocol.md`, "Leaving"): the proxy closes their bridges from its
//! side, so no request can cross a close.
//!
//! A deregistration arrives on one worker and is mailed to the others. Each remembers it first and
//! looks through its bridges then. Registrations that were still on their way, and bridges that come
//! from another worker, are checked against what is remembered. A bridge in an exchange is marked
//! as withdrawn, so requests pay nothing for this.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use crate::bridge::{BackendToken, Registration};
use crate::http::reply::Reply;
use crate::routing::RouteSpec;
use crate::time::Millis;

use super::closing::End;
use super::role::{Bridge, Handshake, Role};
use super::state::Mail;
use super::worker::Worker;

/// How long a deregistration is remembered. A BRIDGE sent before it has `head-timeout` (10 s) to
/// arrive, after whatever the network and a full backlog took.
const REMEMBERED: Duration = Duration::from_secs(60);

/// How many deregistrations a worker remembers, at some 80 bytes each; the oldest are forgotten
/// first. That is 270 a second for a minute.
const REMEMBERED_MAX: usize = 16 * 1024;

/// What a registration is answered that arrives after its backend has deregistered.
pub(super) const DEREGISTERED: &str =
    "this backend has left; come back with a new Cloudbridge-Backend";

/// The bridges of a token on one route deregister.
pub(super) struct Deregistration {
    token: BackendToken,
    spec: RouteSpec,
}

/// A deregistration as it is remembered. The spec, which may be long, is kept as a hash under a key
/// of this process, which nobody outside can aim at.
type Remembered = (BackendToken, u64);

/// The recent deregistrations.
#[derive(Default)]
pub(super) struct Deregistered {
    hasher: RandomState,
    /// Until when each is remembered.
    until: HashMap<Remembered, Millis>,
    /// The same, in the order of that time. One that was renewed is here twice.
    order: VecDeque<(Remembered, Millis)>,
}

impl Deregistered {
    fn remember(&mut self, deregistration: &Deregistration, now: Millis) {
        self.forget(now);
        let remembered = (deregistration.token, self.hasher.hash_one(&deregistration.spec));
        self.until.insert(remembered, now + REMEMBERED);
        self.order.push_back((remembered, now + REMEMBERED));
    }

    /// Forgets what is too old, and the oldest when there are too many.
    fn forget(&mut self, now: Millis) {
        while let Some(&(remembered, until)) = self.order.front()
            && (until <= now || self.order.len() >= REMEMBERED_MAX)
        {
            self.order.pop_front();
            if self.until.get(&remembered) == Some(&until) {
                self.until.remove(&remembered);
            }
        }
    }

    fn has(&self, token: BackendToken, spec: &RouteSpec, now: Millis) -> bool {
        !self.until.is_empty()
            && self
                .until
                .get(&(token, self.hasher.hash_one(spec)))
                .is_some_and(|until| *until > now)
    }
}

impl Worker {
    /// A backend, checked as for a registration, deregisters.
    pub(super) fn deregister(
        &mut self,
        key: usize,
        token: BackendToken,
        registration: &Registration,
    ) {
        let peer = self.conns[key].peer;
        log::debug!("backend {peer} deregisters {:?}", registration.patterns);
        self.stats().deregistrations.add(1);
        let spec = RouteSpec::new(&registration.patterns, &registration.prefix);
        let deregistration = Arc::new(Deregistration { token, spec });
        for mailbox in self.shared.others(self.index) {
            mailbox.send(Mail::Deregister(Arc::clone(&deregistration)));
        }
        self.withdraw_backend(&deregistration);
        let text = "the bridges of this backend are being closed";
        self.end(key, End::Reply(Reply::new(200, text)));
    }

    /// Withdraws this worker's bridges of a backend that deregisters.
    pub(super) fn withdraw_backend(&mut self, deregistration: &Deregistration) {
        self.deregistered.remember(deregistration, self.conns.now().millis());
        let leaves = |bridge: &Bridge| {
            bridge.announced().is_some_and(|announced| announced.token == deregistration.token)
                && *bridge.route.spec() == deregistration.spec
        };
        let here = self.conns.keys_with(|role| role.bridge().is_some_and(leaves));
        let idle = self.idle_bridges(leaves);
        log::debug!("worker {}: {} bridges withdrawn", self.index, here.len() + idle.len());
        for key in here.into_iter().chain(idle) {
            self.withdraw(key);
        }
    }

    /// Whether a backend that registers has deregistered already.
    pub(super) fn has_deregistered(&self, token: Option<BackendToken>, spec: &RouteSpec) -> bool {
        let now = self.conns.now().millis();
        token.is_some_and(|token| self.deregistered.has(token, spec, now))
    }

    /// Whether a bridge that comes from another worker gets no more requests: that may have been
    /// decided while it was on its way.
    pub(super) fn must_withdraw(&self, bridge: &Bridge) -> bool {
        let token = bridge.announced().map(|announced| announced.token);
        bridge.withdrawn
            || bridge.is_orphaned()
            || self.has_deregistered(token, bridge.route.spec())
    }

    /// Gives a bridge no more requests, and closes it if it has nothing to do. Nothing happens to
    /// connections that are no bridge, or none yet.
    pub(super) fn withdraw(&mut self, key: usize) {
        match self.conns.role_mut(key) {
            // Closed when its exchange is over.
            Some(Role::Responding { bridge, .. }) => bridge.withdrawn = true,
            Some(Role::AwaitingRoute { bridge, .. }) if bridge.handshake == Handshake::Fresh => {
                self.reject(key, Reply::new(504, DEREGISTERED));
            }
            // A request that it was reserved for goes back to its place.
            Some(
                Role::Idle(_)
                | Role::Reserved(_)
                | Role::AwaitingRoute { .. }
                | Role::AwaitingPreamble { .. },
            ) => self.end(key, End::Linger),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deregistration(number: u16, host: &str) -> Deregistration {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        Deregistration { token: BackendToken::new(bytes), spec: RouteSpec::new([host], "") }
    }

    fn has(deregistered: &Deregistered, deregistration: &Deregistration, now: u64) -> bool {
        deregistered.has(deregistration.token, &deregistration.spec, Millis(now))
    }

    #[test]
    fn a_deregistration_is_remembered_by_token_and_route_for_a_while() {
        let mut deregistered = Deregistered::default();
        let one = deregistration(1, "a.test");
        assert!(!has(&deregistered, &one, 0));
        deregistered.remember(&one, Millis(1_000));
        assert!(has(&deregistered, &one, 1_000) && has(&deregistered, &one, 60_999));
        assert!(!has(&deregistered, &one, 61_000));
        assert!(!has(&deregistered, &deregistration(2, "a.test"), 1_000));
        assert!(!has(&deregistered, &deregistration(1, "b.test"), 1_000));
    }

    #[test]
    fn one_that_is_renewed_is_remembered_longer() {
        let mut deregistered = Deregistered::default();
        let (one, two) = (deregistration(1, "a.test"), deregistration(2, "a.test"));
        deregistered.remember(&one, Millis(0));
        deregistered.remember(&one, Millis(30_000));
        deregistered.remember(&two, Millis(61_000));
        assert!(has(&deregistered, &one, 89_999) && !has(&deregistered, &one, 90_000));
        assert_eq!(deregistered.order.len(), 2);
    }

    #[test]
    fn memory_is_bounded() {
        let mut deregistered = Deregistered::default();
        for number in 0..20_000 {
            deregistered.remember(&deregistration(number, "a.test"), Millis(0));
        }
        assert_eq!(
            (deregistered.until.len(), deregistered.order.len()),
            (REMEMBERED_MAX, REMEMBERED_MAX)
        );
        assert!(has(&deregistered, &deregistration(19_999, "a.test"), 0));
        assert!(!has(&deregistered, &deregistration(0, "a.test"), 0));
        deregistered.remember(&deregistration(1, "a.test"), Millis(60_000));
        assert_eq!((deregistered.until.len(), deregistered.order.len()), (1, 1));
    }
}
