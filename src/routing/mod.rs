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
//! waits on another worker is sent there ([`Parked::Transfer`]). A client moves before its first byte or never ([`Balance`]).
//!
//! **Several routes**: a request whose name several routes serve waits in the queue of each. A
//! claim (`claim.rs`), won by compare-and-swap, decides which bridge gets it; its entries in the
//! other queues are dropped when they are next met.
//!
//! **Order**: bridges of a route are used longest parked first, this worker's own before those of
//! others. Requests are served first come, first served on each worker; between workers to within
//! [`FAIRNESS`].
//!
//! **Places**: a backend may say how many of its bridges on a route may have a request at once
//! (`groups.rs`, `sharing.rs`). A parked bridge beyond that is withdrawn: it is not parked in the sense
//! of the rule, until a place is free.
//!
//! **Predicates**: a backend may say which requests it takes. Bridges that say the same share a route, and a
//! request has those routes whose predicates it meets: the rule and all that follows hold for these.
//!
//! **Instances**: a request may stick to one backend (`instances.rs`). While it waits for that one
//! alone, which is for a bounded time, only its bridges are those that could serve it.
//!
//! **Locks**: the directory's, then one route's. No thread ever holds two routes' locks.
//!
//! **Reading order**: `wanted`, `spec`, `patterns`, `paths` and `index` (names), `order`, `list`, `claim`, `queue`,
//! `groups`, `instances`, `state` and `route` (who is there), `directory` (all routes), `waiters`, `new_lane` and `scheduler` (one
//! worker), `sync` (routes come and go), `sharing` (backends say how many places they have),
//! `balance` (clients come). Apart from these, [`places`] is what such a backend goes by.

mod balance;
mod claim;
mod directory;
mod failures;
mod groups;
mod index;
mod instances;
mod list;
mod names;
mod new_lane;
mod order;
mod outcome;
mod paths;
mod patterns;
pub mod places;
mod queue;
mod route;
mod scheduler;
mod sharing;
#[cfg(test)]
mod simulation;
mod spec;
mod state;
#[cfg(test)]
mod stress;
mod sync;
#[cfg(test)]
mod tests;
mod traffic;
mod waiters;
mod wanted;

pub use balance::Balance;
pub use directory::{Directory, EMPTY_NAMES_MAX, TooManyBridges};
pub use failures::{Failure, Outcome};
pub use groups::GroupId;
pub use order::{FAIRNESS, QueuePos, WaiterId};
pub use outcome::{Counters, Enqueued, Joined, Match, Parked, Sent, Transfer};
pub(crate) use patterns::Pattern;
pub use route::{Exempt, Load, Route};
pub use scheduler::{Bounds, Scheduler};
pub use spec::{Meets, Resolved, RouteQuery, RouteSpec, WaitingMeets};
pub use state::{IdleHandle, Membership, Owner, RETENTION, Telling, ToTell};
pub use traffic::{Counted, DURATION_BOUNDS, DURATIONS, Traffic, duration_class};
pub use wanted::{InstanceId, Wanted};
