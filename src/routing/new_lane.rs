//! Routes with predicates that have just come, and the requests that are still to be asked whether they
//! meet these (`sync.rs`).

use std::collections::VecDeque;
use std::sync::Arc;

use super::order::WaiterId;
use super::route::Route;

/// How many requests that wait are asked in a turn whether they meet the predicates of a new route: for
/// each, its head is parsed again.
pub(super) const LOOKS: usize = 64;

/// A new route with predicates, and the requests for its names and paths that waited when it came.
#[derive(Debug)]
pub(super) struct NewLane<B> {
    pub(super) route: Arc<Route<B>>,
    /// The oldest first.
    pub(super) waiters: VecDeque<WaiterId>,
}
