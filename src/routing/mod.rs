//! Who waits for whom. Pure: no sockets, no clock, no threads; connections are numbers and time is an argument.
//!
//! Each worker has a [`Lobby`]: its parked bridges and its waiting requests. All workers share one [`Directory`]: the
//! routes, and per route and worker how many bridges are parked and how many requests wait.
//!
//! **The rule**: no request waits while a bridge that could serve it is parked, on whichever worker either of them is.
//! How it is kept:
//!
//! 1. Whoever parks a bridge or lets a request wait *first publishes* its own count and *then looks* at the counts of
//!    the others, both sequentially consistent. So of a bridge and a request that come at the same moment on two
//!    workers, at least one sees the other.
//! 2. A bridge that sees a request is sent to its worker ([`Parking::Send`]). A request that sees a bridge asks for it
//!    ([`Mail::Want`]), and the other worker hands it over ([`Handover`]) or says that it has none left
//!    ([`Mail::Nothing`]). Clients never move.
//! 3. Whenever a bridge that was expected has come or is not coming, the worker looks again on behalf of those of its
//!    requests that no bridge on its way will serve.
//!
//! A bridge is sent only to a worker that has more requests waiting than bridges on their way to it, and each message
//! answers to a look that saw something, so messages end when arrivals do.
//!
//! **Order**: the requests of one worker are served in the order in which they came, bridges in the order in which they
//! were parked. Between workers the order is kept to within [`FAIRNESS_MICROS`].
//!
//! **Reading order**: `route`, `patterns` and `index` (names), `queue`, `parked` and `waiters` (who is here), `published` and `directory` (who is
//! elsewhere), `lobby` and `arrival` (what happens on this worker), `elsewhere` (what passes between workers),
//! `adoption` (routes come and go).

mod adoption;
mod arrival;
mod directory;
mod elsewhere;
mod index;
mod invariants;
mod lobby;
mod names;
mod parked;
mod patterns;
mod published;
mod queue;
mod route;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod stress;
#[cfg(test)]
mod tests;
mod waiters;

pub use adoption::Joined;
pub use directory::{Directory, EMPTY_NAMES_MAX, RETENTION_MICROS, TooManyBridges};
pub use lobby::{Counters, Lobby};
pub use parked::Ticket;
pub use patterns::PatternMap;
pub use published::{Exempt, RouteShared};
pub use route::{RouteSpec, Target};
pub use waiters::WaiterId;

/// A request that is older by this much than the oldest one here, in microseconds, gets a bridge sent even though
/// somebody waits here, but one at a time. Bridges so flow gently to where they are short, long before
/// [`FAIRNESS_MICROS`] would send all of them at once and leave this worker short in its turn.
pub const LEAN_MICROS: u64 = 1_000;

/// A request never gets a bridge of this worker while one elsewhere, with no bridge on its way, came earlier by more
/// than this, in microseconds. Of the order of a turn of a busy loop: below that, arrivals on two workers are not in any
/// order that a client could know.
pub const FAIRNESS_MICROS: u64 = 4_000;

/// A route, as one worker names it. Means nothing on another worker; see [`Lobby::shared`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteId {
    key: u32,
    /// Tells the route from an earlier one with the same key.
    generation: u32,
}

/// A request's place in the order of arrival. Kept with the request after it was matched, so that it is first again if
/// its bridge fails before anything was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    seq: u64,
    since: u64,
}

impl Place {
    /// When the request arrived, in microseconds.
    pub fn since(self) -> u64 {
        self.since
    }
}

/// How many may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Waiting requests per route, on all workers together. A worker may always use its even share of it; so while the
    /// load is lopsided there may be up to twice as many.
    pub per_route: usize,
    /// Waiting requests, on all workers and for all names together, for names that nobody serves.
    pub unserved: usize,
    /// Whether a request for a name that nobody serves waits at all.
    pub unserved_waits: bool,
    /// Bridges per host pattern, on all workers together; 0 for no bound.
    pub bridges_per_host: usize,
}

/// What becomes of a request that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// This bridge, parked on this worker until now, serves it.
    Matched {
        /// The bridge.
        bridge: u64,
        /// The route it is on.
        route: RouteId,
        /// For [`Lobby::return_to_queue`].
        place: Place,
    },
    /// It waits; a [`Parking::Serve`] or a [`Match`] will name it, or the worker forgets it.
    Waiting(WaiterId),
    /// As many wait for its most specific route as may.
    RouteFull,
    /// As many wait for names that nobody serves as may.
    UnservedFull,
    /// Nobody serves its name, and such requests do not wait.
    Unknown,
}

/// What becomes of a bridge that is ready for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parking {
    /// It serves this request, which has waited on this worker.
    Serve {
        /// The request.
        request: u64,
        /// For [`Lobby::return_to_queue`].
        place: Place,
    },
    /// It is not parked: it must be sent to this worker, together with the passage.
    Send {
        /// The other worker.
        to: usize,
        /// For [`Lobby::arrived`] there, or [`Lobby::lost`] if the bridge does not survive the move.
        passage: Passage,
    },
    /// It is parked until it is matched, handed over or unparked.
    Parked(Ticket),
}

/// A bridge's papers for the way to another worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// The route's id in the directory.
    route: u64,
    from: usize,
    /// Whether it answers a [`Mail::Want`].
    asked: bool,
}

/// What workers tell each other about their lobbies.
///
/// Mail and bridges on their way must arrive, in any order, as long as the worker they are for runs; a worker that
/// shuts down goes on answering until all do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mail {
    /// "A request waits here for the route; send a bridge." Answered by a bridge or by `Nothing`.
    Want {
        /// The route's id in the directory.
        route: u64,
        /// The worker that asks.
        from: usize,
    },
    /// "I have none parked any more", or enough are on their way to you.
    Nothing {
        /// The route's id in the directory.
        route: u64,
        /// The worker that was asked.
        from: usize,
    },
    /// "The bridge I promised you died before it could be sent."
    Lost(Passage),
}

/// A parked bridge that another worker asked for: take it out of the reactor and send it with its passage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The bridge; not parked any more.
    pub bridge: u64,
    /// Its route, as this worker names it.
    pub route: RouteId,
    /// The worker that asked.
    pub to: usize,
    /// For [`Lobby::arrived`] there, or [`Lobby::lost`].
    pub passage: Passage,
}

/// A bridge that has come in from another worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Landing {
    /// Its route, as this worker names it.
    pub route: RouteId,
    /// What becomes of it.
    pub parking: Parking,
}

/// A waiting request and a parked bridge, both of this worker, that found each other after a message or a change of
/// routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// The request; it does not wait any more.
    pub request: u64,
    /// The bridge; it is not parked any more.
    pub bridge: u64,
    /// The bridge's route.
    pub route: RouteId,
    /// For [`Lobby::return_to_queue`].
    pub place: Place,
}
