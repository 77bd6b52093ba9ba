//! The connects that a worker has in progress.

use std::collections::HashMap;

use crate::time::{Micros, Millis};
use crate::upstream::Purpose;

#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Attempt {
    pub(super) purpose: Purpose,
    /// Which of the server's addresses it goes to.
    pub(super) tried: usize,
    /// It has been made, and must stand for a moment before it is used (`trials.rs`).
    pub(super) on_trial: bool,
    /// The id of the server's route.
    pub(super) route: u64,
}

/// A worker's dialling state.
#[derive(Default)]
pub(in crate::proxy) struct Dialling {
    /// Connects in progress for requests, by the id of their route.
    pub(super) in_progress: HashMap<u64, usize>,
    /// Requests wait here for which no connection could be made.
    pub(super) has_unmet_demand: bool,
    /// By the id of a site's route: when the site lost its last backend, for each site whose
    /// waiting requests have since been offered to its backup.
    pub(super) failed_over: HashMap<u64, Micros>,
    /// A connection to a server has been closed in this turn.
    pub(super) freed: bool,
    /// When the names of servers that are up are looked up next.
    pub(super) refresh_at: Millis,
    /// When to see which servers are to be checked.
    pub(super) check_at: Millis,
}

impl Dialling {
    pub(super) fn begun(&mut self, attempt: Attempt) {
        if attempt.purpose == Purpose::Requests {
            *self.in_progress.entry(attempt.route).or_default() += 1;
        }
    }

    /// A connect has completed or failed.
    pub(in crate::proxy) fn ended(&mut self, attempt: Attempt) {
        if attempt.purpose == Purpose::Requests
            && let Some(count) = self.in_progress.get_mut(&attempt.route)
        {
            *count -= 1;
            if *count == 0 {
                self.in_progress.remove(&attempt.route);
            }
        }
    }

    /// Whether a connect for a request is in progress.
    pub(in crate::proxy) fn is_busy(&self) -> bool {
        !self.in_progress.is_empty()
    }
}
