//! What the operator has asked for: whom it concerns, and what the workers are to do.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::role::{Bridge, Route};

/// Most selectors that drain.
const DRAINED_MAX: usize = 10_000;

/// Which bridges an action concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selector {
    /// Those of this route, by its number in the state.
    Route(u64),
    /// Those that serve this host pattern.
    Host(String),
    /// Those from this address.
    Address(IpAddr),
    /// Those of this backend, by its public ID.
    Backend(String),
    /// Those that registered with a key of this name.
    Key(String),
}

impl Selector {
    pub fn has(&self, bridge: &Bridge, peer: IpAddr) -> bool {
        match self {
            Selector::Route(_) | Selector::Host(_) => self.has_route(&bridge.route),
            Selector::Address(address) => peer == *address,
            Selector::Backend(id) => bridge.backend.public_id() == *id,
            Selector::Key(name) => bridge.key_names().any(|key| key == name),
        }
    }

    /// Whether it selects all bridges of a route.
    pub fn has_route(&self, route: &Route) -> bool {
        match self {
            Selector::Route(id) => route.id() == *id,
            Selector::Host(host) => route.spec().patterns().iter().any(|name| **name == **host),
            Selector::Address(_) | Selector::Backend(_) | Selector::Key(_) => false,
        }
    }
}

/// The bridges that get no new requests until they are told otherwise.
#[derive(Default)]
pub(super) struct Drained {
    selectors: Mutex<Vec<Selector>>,
    count: AtomicUsize,
}

impl Drained {
    /// Whether a bridge from `peer` gets no requests.
    pub fn has(&self, bridge: &Bridge, peer: IpAddr) -> bool {
        self.any() && self.lock().iter().any(|selector| selector.has(bridge, peer))
    }

    /// Whether no bridge of a route gets requests.
    pub fn has_route(&self, route: &Route) -> bool {
        self.any() && self.lock().iter().any(|selector| selector.has_route(route))
    }

    /// Whether exactly this host is drained.
    pub fn has_host(&self, host: &str) -> bool {
        let is_it = |selector: &Selector| matches!(selector, Selector::Host(name) if name == host);
        self.any() && self.lock().iter().any(is_it)
    }

    fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// False if there are too many.
    pub fn add(&self, selector: &Selector) -> bool {
        let mut selectors = self.lock();
        if !selectors.contains(selector) {
            if selectors.len() >= DRAINED_MAX {
                return false;
            }
            selectors.push(selector.clone());
        }
        self.count.store(selectors.len(), Ordering::Relaxed);
        true
    }

    pub fn remove(&self, selector: &Selector) -> bool {
        let mut selectors = self.lock();
        let before = selectors.len();
        selectors.retain(|other| other != selector);
        self.count.store(selectors.len(), Ordering::Relaxed);
        selectors.len() < before
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Selector>> {
        // Each change leaves it whole.
        self.selectors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the workers are to do.
pub(super) struct Order {
    pub id: u64,
    pub selector: Selector,
    /// Requests in progress are cut off.
    pub at_once: bool,
}

/// What one worker has done.
pub(super) struct Answer {
    pub order: u64,
    /// Bridges closed.
    pub closed: usize,
    /// Bridges that close after the request that they serve.
    pub finishing: usize,
}
