//! Backends that leave (`doc/protocol.md`, "Leaving"): the bridges of a token are closed from here, so that no request
//! can cross their close.
//!
//! A leave comes in on one worker and is mailed to the others. Each remembers it first and looks through its bridges
//! then. Whatever comes to a worker after that is checked against what it remembers: bridges that were on their way
//! from another worker, and registrations that were on their way from the backend. Nothing else is ever asked of the
//! memory, and a bridge in an exchange carries the mark itself ([`Backend::Left`]); so requests pay nothing for this.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use crate::bridge::{BackendToken, Registration};
use crate::http::reply::Reply;
use crate::net::token::Token;
use crate::routing::RouteSpec;

use super::role::{Backend, Bridge, Role, Standing};
use super::shared::Mail;
use super::worker::Worker;

/// How long a leave is remembered, in milliseconds: a BRIDGE that was sent before it has come by then, or never will.
/// It has `head-timeout` (10 s) to come whole, after whatever the network and a full backlog took.
const REMEMBERED: u64 = 60_000;

/// How many leaves a worker remembers, at some 80 bytes each; the oldest are forgotten first. That is 270 in a second
/// for a minute, and whoever is forgotten early has most likely nothing on its way any more.
const REMEMBERED_MAX: usize = 16 * 1024;

/// What leaves: the bridges of this token on the route of this spec.
#[derive(Debug)]
pub struct Departure {
    token: BackendToken,
    spec: RouteSpec,
}

/// A departure as it is remembered. The spec, which may be long, is held as its hash under a key of this process, which
/// nobody outside can aim at.
type Remembered = (BackendToken, u64);

/// The departures of the last [`REMEMBERED`] milliseconds.
#[derive(Default)]
pub(super) struct Departed {
    hasher: RandomState,
    /// Each with the time, in milliseconds, until when it is remembered.
    until: HashMap<Remembered, u64>,
    /// The same in the order of that time. One that was renewed stands here twice.
    order: VecDeque<(Remembered, u64)>,
}

impl Departed {
    fn remember(&mut self, departure: &Departure, now: u64) {
        self.forget(now);
        let remembered = (departure.token, self.hasher.hash_one(&departure.spec));
        self.until.insert(remembered, now + REMEMBERED);
        self.order.push_back((remembered, now + REMEMBERED));
    }

    /// Forgets what is too old, and what there is too much of.
    fn forget(&mut self, now: u64) {
        while let Some(&(remembered, until)) = self.order.front()
            && (until <= now || self.order.len() >= REMEMBERED_MAX)
        {
            self.order.pop_front();
            if self.until.get(&remembered) == Some(&until) {
                self.until.remove(&remembered);
            }
        }
    }

    fn has(&self, token: BackendToken, spec: &RouteSpec, now: u64) -> bool {
        !self.until.is_empty()
            && self
                .until
                .get(&(token, self.hasher.hash_one(spec)))
                .is_some_and(|until| *until > now)
    }
}

impl Worker {
    /// A backend leaves; it may, for it has been checked as a registration is.
    pub(super) fn take_leave(
        &mut self,
        key: usize,
        token: BackendToken,
        registration: &Registration,
    ) {
        log::debug!("backend {} leaves {:?}", self.slots[key].peer, registration.patterns);
        self.stats().left.add(1);
        let spec = RouteSpec::new(&registration.patterns, &registration.prefix);
        let departure = Arc::new(Departure { token, spec });
        for mailbox in self.shared.others(self.index) {
            mailbox.send(Mail::Leave(Arc::clone(&departure)));
        }
        self.depart(&departure);
        self.last_word(key, Reply::new(200, "the bridges of this backend are being closed"));
    }

    /// Gives the bridges that leave nothing more, and closes those that have nothing to do.
    pub(super) fn depart(&mut self, departure: &Departure) {
        self.departed.remember(departure, self.now.millis());
        let leaves = |bridge: &Bridge| {
            matches!(bridge.backend, Backend::Announced { token, .. } if token == departure.token)
                && *self.lobby.shared(bridge.route).spec() == departure.spec
        };
        let keys = self.slots_with(|role| role.bridge().is_some_and(leaves));
        log::debug!("worker {}: {} bridges of a backend leave", self.index, keys.len());
        keys.into_iter().for_each(|key| self.let_go(key));
    }

    /// Whether a backend that registers now has left already.
    pub(super) fn has_departed(&self, token: Option<BackendToken>, spec: &RouteSpec) -> bool {
        token.is_some_and(|token| self.departed.has(token, spec, self.now.millis()))
    }

    /// A bridge has come from another worker: it may have been on its way when its backend left, its inlet was
    /// closed, or its server went from the settings.
    pub(super) fn recheck(&mut self, moved: Token) {
        if !self.is_live(moved) {
            return;
        }
        let Some(bridge) = self.slots[moved.key()].role.bridge() else { return };
        let left = match bridge.backend {
            Backend::Announced { token, .. } => {
                self.has_departed(Some(token), self.lobby.shared(bridge.route).spec())
            }
            Backend::Silent | Backend::Left { .. } => false,
        };
        if left || bridge.is_outdated() || self.server_is_gone(moved.key()) {
            self.let_go(moved.key());
        }
    }

    /// Gives a bridge nothing more, and closes it if it has nothing to do.
    pub(super) fn let_go(&mut self, key: usize) {
        match &mut self.slots[key].role {
            // It serves what it has, and is closed when it would be parked.
            Role::Responding { bridge, .. } => {
                bridge.backend = Backend::Left { word: bridge.backend.word() };
            }
            // The request that it was to serve goes back to its place.
            Role::Parked { .. } | Role::Matched { .. } => self.leave(key),
            Role::Settling { bridge, .. } if bridge.standing == Standing::Fresh => {
                self.refuse(key, 504, HAS_LEFT);
            }
            Role::Settling { .. } | Role::Announcing { .. } => self.leave(key),
            _ => {}
        }
    }

    /// A bridge that is to serve nothing more has nothing to do: it is closed from here.
    pub(super) fn dismiss(&mut self, key: usize, bridge: &Bridge) {
        self.bridge_is_gone(bridge);
        self.leave(key);
    }
}

/// What a registration is told that comes after its backend's leave.
pub(super) const HAS_LEFT: &str = "this backend has left; come back with a new Cloudbridge-Backend";

#[cfg(test)]
mod tests {
    use super::*;

    fn departure(number: u16, host: &str) -> Departure {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        Departure { token: BackendToken::new(bytes), spec: RouteSpec::new([host], "") }
    }

    fn has(departed: &Departed, departure: &Departure, now: u64) -> bool {
        departed.has(departure.token, &departure.spec, now)
    }

    #[test]
    fn a_departure_is_remembered_by_token_and_route_for_a_while() {
        let mut departed = Departed::default();
        let one = departure(1, "a.test");
        assert!(!has(&departed, &one, 0));
        departed.remember(&one, 1_000);
        assert!(has(&departed, &one, 1_000) && has(&departed, &one, 60_999));
        assert!(!has(&departed, &one, 61_000));
        assert!(!has(&departed, &departure(2, "a.test"), 1_000));
        assert!(!has(&departed, &departure(1, "b.test"), 1_000));
    }

    #[test]
    fn one_that_is_renewed_is_remembered_longer() {
        let mut departed = Departed::default();
        let (one, two) = (departure(1, "a.test"), departure(2, "a.test"));
        departed.remember(&one, 0);
        departed.remember(&one, 30_000);
        departed.remember(&two, 61_000);
        assert!(has(&departed, &one, 89_999) && !has(&departed, &one, 90_000));
        assert_eq!(departed.order.len(), 2);
    }

    #[test]
    fn memory_is_bounded() {
        let mut departed = Departed::default();
        for number in 0..20_000 {
            departed.remember(&departure(number, "a.test"), 0);
        }
        assert_eq!((departed.until.len(), departed.order.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
        assert!(has(&departed, &departure(19_999, "a.test"), 0));
        assert!(!has(&departed, &departure(0, "a.test"), 0));
        departed.remember(&departure(1, "a.test"), 60_000);
        assert_eq!((departed.until.len(), departed.order.len()), (1, 1));
    }
}
