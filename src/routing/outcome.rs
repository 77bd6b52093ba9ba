//! What a [`super::Scheduler`] answers.

use std::sync::Arc;

use super::order::{QueuePos, WaiterId};
use super::route::Route;
use super::state::{IdleHandle, Owner};

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
/// [`Scheduler::sync`] or when the bridge's backend had a place again.
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

/// An idle bridge that goes to a request on another worker.
#[derive(Debug, PartialEq, Eq)]
pub struct Sent<B> {
    /// The bridge.
    pub bridge: B,
    /// Where it was parked.
    pub owner: Owner,
    /// Its destination and its request.
    pub transfer: Transfer,
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

/// Numbers for the statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests waiting on this worker, `unserved` included.
    pub waiting: usize,
    /// Those of them whose name has no route.
    pub unserved: usize,
}
