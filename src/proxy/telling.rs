//! The routes whose backends are told how long requests wait (`places.rs`).

use std::sync::Arc;

use crate::time::{Micros, Millis};

use super::role::Route;

/// Those with requests that wait here, and when to look at each again.
#[derive(Default)]
pub(super) struct Tellers {
    routes: Vec<(Arc<Route>, Micros)>,
}

impl Tellers {
    /// Whether a route is looked at from time to time.
    pub(super) fn has(&self, route: &Arc<Route>) -> bool {
        self.routes.iter().any(|(known, _)| Arc::ptr_eq(known, route))
    }

    /// A route is to be looked at then.
    pub(super) fn add(&mut self, route: Arc<Route>, due: Micros) {
        self.routes.push((route, due));
    }

    /// Takes out those that are to be looked at by now.
    pub(super) fn take_due(&mut self, now: Micros) -> Vec<Arc<Route>> {
        let due = self.routes.extract_if(.., |(_, due)| *due <= now);
        due.map(|(route, _)| route).collect()
    }

    /// When the next is to be looked at.
    pub(super) fn next(&self) -> Option<Millis> {
        let due = self.routes.iter().map(|(_, due)| *due).min()?;
        Some(Millis(due.0.div_ceil(1000)))
    }
}
