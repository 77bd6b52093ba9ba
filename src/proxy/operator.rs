//! What the operator has asked for: whom it concerns, and what the workers are to do.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::routing::RouteSpec;

use super::role::{Bridge, Route};

/// Most selectors that drain.
const DRAINED_MAX: usize = 10_000;

/// Which bridges an action concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selector {
    /// Those of the route with these hosts and paths, now and whenever it comes again.
    Route(RouteSpec),
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

    /// Its kind, as in the body of an action, and what it names.
    pub fn shown(&self) -> (&'static str, String) {
        match self {
            Selector::Route(spec) => {
                let hosts: Vec<&str> = spec.patterns().iter().map(|name| &**name).collect();
                let paths = spec.shown_paths();
                let paths = paths.trim_end_matches('/');
                let predicates = spec.predicates().map(|p| format!(" {p}")).unwrap_or_default();
                ("route", format!("{}{paths}{predicates}", hosts.join(", ")))
            }
            Selector::Host(host) => ("host", host.clone()),
            Selector::Address(address) => ("address", address.to_string()),
            Selector::Backend(id) => ("backend", id.clone()),
            Selector::Key(name) => ("key", name.clone()),
        }
    }

    /// Whether it selects all bridges of a route.
    pub fn has_route(&self, route: &Route) -> bool {
        match self {
            Selector::Route(spec) => route.spec() == spec,
            Selector::Host(host) => route.spec().patterns().iter().any(|name| **name == **host),
            Selector::Address(_) | Selector::Backend(_) | Selector::Key(_) => false,
        }
    }
}

/// A selector that drains, with its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Drain {
    /// Never given twice.
    pub id: u64,
    pub selector: Selector,
}

/// The bridges that get no new requests until they are told otherwise.
#[derive(Default)]
pub(super) struct Drained {
    list: Mutex<Drains>,
    count: AtomicUsize,
}

#[derive(Default)]
struct Drains {
    list: Vec<Drain>,
    last: u64,
}

impl Drained {
    /// Whether a bridge from `peer` gets no requests.
    pub fn has(&self, bridge: &Bridge, peer: IpAddr) -> bool {
        self.any() && self.lock().list.iter().any(|drain| drain.selector.has(bridge, peer))
    }

    /// Whether no bridge of a route gets requests.
    pub fn has_route(&self, route: &Route) -> bool {
        self.any() && self.lock().list.iter().any(|drain| drain.selector.has_route(route))
    }

    /// Whether exactly this host is drained.
    pub fn has_host(&self, host: &str) -> bool {
        let is_it = |drain: &Drain| matches!(&drain.selector, Selector::Host(name) if name == host);
        self.any() && self.lock().list.iter().any(is_it)
    }

    fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// All of it, oldest first.
    pub fn all(&self) -> Vec<Drain> {
        if self.any() { self.lock().list.clone() } else { Vec::new() }
    }

    /// False if there are too many.
    pub fn add(&self, selector: &Selector) -> bool {
        let mut drains = self.lock();
        if !drains.list.iter().any(|drain| drain.selector == *selector) {
            if drains.list.len() >= DRAINED_MAX {
                return false;
            }
            drains.last += 1;
            let drain = Drain { id: drains.last, selector: selector.clone() };
            drains.list.push(drain);
        }
        self.count.store(drains.list.len(), Ordering::Relaxed);
        true
    }

    /// False if nothing was drained so.
    pub fn remove(&self, is_it: impl Fn(&Drain) -> bool) -> bool {
        let mut drains = self.lock();
        let before = drains.list.len();
        drains.list.retain(|drain| !is_it(drain));
        self.count.store(drains.list.len(), Ordering::Relaxed);
        drains.list.len() < before
    }

    fn lock(&self) -> MutexGuard<'_, Drains> {
        // Each change leaves it whole.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
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
