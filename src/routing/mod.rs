//! Which bridge serves which request. Pure: no sockets, no clock, no threads of its own.
//!
//! All workers share one [`Directory`] of routes. A [`Route`] has a lock, and under it the bridges
//! parked on any worker and the requests that wait on any worker. Each worker has a [`Scheduler`]:
//! its index from host and path to routes, and its own waiting requests.
//!
//! **The rule**: no request waits while a bridge that could serve it is parked, on whichever worker
//! either of them is. A request enters a route's queue, and a bridge its idle list, under the
//! route's lock, after looking at the other side. So one of the two finds the other, and a route
//! never has both.
//!
//! **Across workers**: a request takes an idle bridge of another worker over at once
//! ([`Owner::worker`] says whose it was). A bridge that parks while the request it should serve
//! waits on another worker is sent there ([`Parked::Transfer`]). Clients never move.
//!
//! **Several routes**: a request whose name several routes serve waits in the queue of each. A
//! claim (`claim.rs`), won by compare-and-swap, decides which bridge gets it; its entries in the
//! other queues are dropped when they are next met.
//!
//! **Order**: bridges of a route are used longest parked first, this worker's own before those of
//! others. Requests are served first come, first served on each worker; between workers to within
//! [`FAIRNESS`].
//!
//! **Locks**: the directory's, then one route's. No thread ever holds two routes' locks.
//!
//! **Reading order**: `spec`, `patterns`, `paths` and `index` (names), `list`, `claim`, `state` and
//! `route` (who is there), `directory` (all routes), `waiters` and `scheduler` (one worker),
//! `sync` (routes come and go).

mod claim;
mod directory;
mod index;
mod invariants;
mod list;
mod names;
mod paths;
mod patterns;
mod route;
mod scheduler;
#[cfg(test)]
mod simulation;
mod spec;
mod state;
#[cfg(test)]
mod stress;
mod sync;
#[cfg(test)]
mod tests;
mod waiters;

use std::sync::Arc;
use std::time::Duration;

use crate::time::Micros;

pub use directory::{Directory, EMPTY_NAMES_MAX, RETENTION, TooManyBridges};
pub use patterns::PatternMap;
pub use route::{Exempt, Route};
pub use scheduler::Scheduler;
pub use spec::{RouteQuery, RouteSpec};
pub use state::IdleHandle;
pub use waiters::WaiterId;

/// A bridge serves a request of its own worker unless one on another worker arrived earlier by more
/// than this. About one turn of a busy loop: below that, arrivals on two workers have no order that
/// a client could know, and a move costs more than a request. Exact order would cost a third of the
/// throughput with two workers and a fifth with eight (`doc/scale.md`, "512 clients on 16
/// bridges").
pub const FAIRNESS: Duration = Duration::from_millis(4);

/// A request's place in the order of arrival. Kept during the exchange, so that the request is
/// first again if it must be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueuePos {
    since: Micros,
    /// The order of arrival on its worker.
    tie: u64,
}

impl QueuePos {
    /// When the request arrived.
    pub fn since(self) -> Micros {
        self.since
    }
}

/// How many may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Waiting requests per route, on all workers together. A worker may always use its even share,
    /// so under an uneven load there may be up to twice as many.
    pub per_route: usize,
    /// Waiting requests for names that have no route, on all workers and for all names together.
    pub unserved: usize,
    /// Whether a request for a name without a route waits at all.
    pub unserved_waits: bool,
    /// Bridges per host pattern, on all workers together; 0 for no bound.
    pub bridges_per_host: usize,
}

/// Where a bridge was parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The worker. If it is not the caller's, the bridge has been taken over from it.
    pub worker: usize,
    /// What that worker passed to [`Scheduler::park`].
    pub token: u64,
}

/// The result of enqueueing a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Enqueued<B> {
    /// An idle bridge serves it.
    Matched {
        /// The bridge.
        bridge: B,
        /// Where it was parked.
        owner: Owner,
        /// For [`Scheduler::requeue`].
        pos: QueuePos,
    },
    /// It waits; a [`Parked::Serve`], a [`Match`] or a [`Transfer`] will name it.
    Queued(WaiterId),
    /// The queue of its most specific route is full.
    RouteFull,
    /// The bound on requests for names without a route is reached.
    UnservedFull,
    /// Its name has no route, and such requests do not wait.
    Unknown,
}

/// The result of parking a bridge.
#[derive(Debug, PartialEq, Eq)]
pub enum Parked<B> {
    /// It serves this request, which waited on this worker.
    Serve {
        /// The bridge.
        bridge: B,
        /// The request.
        request: u64,
        /// For [`Scheduler::requeue`].
        pos: QueuePos,
    },
    /// It serves a request that waits on another worker, to which the caller sends it.
    Transfer {
        /// The bridge.
        bridge: B,
        /// Its destination and its request.
        transfer: Transfer,
    },
    /// It is parked until it is matched, taken over or unparked.
    Idle(IdleHandle),
}

/// Where a moving bridge goes. Sent together with the bridge; if the bridge dies first, sent alone,
/// because the request has been claimed and waits for nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The worker on which the request waits.
    pub to: usize,
    /// The request.
    pub request: u64,
    /// For [`Scheduler::receive`] there.
    pub waiter: WaiterId,
    /// For [`Scheduler::requeue`] there.
    pub pos: QueuePos,
}

/// A waiting request of this worker and an idle bridge that found each other in
/// [`Scheduler::sync`].
#[derive(Debug, PartialEq, Eq)]
pub struct Match<B> {
    /// The request, which no longer waits.
    pub request: u64,
    /// The bridge.
    pub bridge: B,
    /// Where it was parked.
    pub owner: Owner,
    /// For [`Scheduler::requeue`].
    pub pos: QueuePos,
}

/// A bridge has joined its route.
#[derive(Debug)]
pub struct Joined<B> {
    /// The route; for [`Scheduler::park`] and [`Route::leave`].
    pub route: Arc<Route<B>>,
    /// Whether the route is new. Then the other workers must be woken to [`Scheduler::sync`]: they
    /// may have requests that only this route can serve.
    pub new: bool,
}

/// What a host and a path lead to.
#[derive(Clone, Copy, Debug)]
pub struct Resolved<'a> {
    /// The site with the most specific pattern for the host; see [`Scheduler::set_sites`].
    pub site: Option<u32>,
    /// For [`Scheduler::enqueue`], which resumes where the lookup of the site ended.
    pub query: RouteQuery<'a>,
}

/// Numbers for the statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests waiting on this worker, `unserved` included.
    pub waiting: usize,
    /// Those of them whose name has no route.
    pub unserved: usize,
}
