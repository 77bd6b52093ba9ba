//! Requests are served in the order of arrival.

use std::time::Duration;

use crate::time::Micros;

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
    pub(super) since: Micros,
    /// The order of arrival on its worker.
    pub(super) tie: u64,
}

impl QueuePos {
    /// A place that another program has given: [`QueuePos::since`] and [`QueuePos::tie`].
    pub fn of(since: Micros, tie: u64) -> QueuePos {
        QueuePos { since, tie }
    }

    /// The order among requests of one worker that arrived at the same time.
    pub fn tie(self) -> u64 {
        self.tie
    }

    /// When the request arrived.
    pub fn since(self) -> Micros {
        self.since
    }
}

/// A waiting request; good until it is matched or cancelled, and recognised as stale after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaiterId {
    pub(super) key: u32,
    /// Unique among all requests that have waited on its worker.
    pub(super) stamp: u64,
}
