//! The connections that a worker is making.

use std::collections::HashMap;

use crate::time::Micros;
use crate::upstream::Purpose;

/// A connection that is being made.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Attempt {
    pub(super) purpose: Purpose,
    /// Which of the server's addresses it goes to.
    pub(super) tried: usize,
    /// The id of the server's route.
    pub(super) route: u64,
}

/// What a worker knows of its dialling.
#[derive(Default)]
pub(in crate::proxy) struct Dialling {
    /// Connections that are being made for requests, by the id of their route.
    pub(super) in_progress: HashMap<u64, usize>,
    /// Requests wait here that could not have a connection.
    pub(super) has_unmet_demand: bool,
    /// Since when sites with a backup had no backend when the requests waiting here were last
    /// offered to the backup, by the id of the site's route.
    pub(super) failed_over: HashMap<u64, Micros>,
    /// A connection to a server has been closed in this turn.
    pub(super) freed: bool,
}

impl Dialling {
    pub(super) fn begun(&mut self, attempt: Attempt) {
        if attempt.purpose == Purpose::Requests {
            *self.in_progress.entry(attempt.route).or_default() += 1;
        }
    }

    /// A connection is not being made any longer.
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

    /// Whether a connection is being made for any request.
    pub(in crate::proxy) fn is_busy(&self) -> bool {
        !self.in_progress.is_empty()
    }
}
