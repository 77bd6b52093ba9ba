//! What must hold between any two calls. Checked by the tests after every step.
#![cfg(any(test, debug_assertions))]

use std::sync::atomic::Ordering::*;

use super::lobby::{Lobby, LocalRoute};
use super::published::NOBODY;
use super::waiters::Standing;

impl Lobby {
    /// Looks through everything this worker has: O(requests + bridges + routes).
    ///
    /// # Panics
    /// If anything is not as it must be.
    pub fn check_invariants(&self) {
        let mut parked = 0;
        for (r, route) in &self.routes {
            self.check_route(r as u32, route);
            parked += route.line.len() as usize;
        }
        assert_eq!(parked, self.parked.len(), "parked bridges are in exactly one line");
        assert_eq!(self.by_id.len(), self.routes.len());
        let mut unserved = 0;
        for (key, waiter) in self.waiters.iter() {
            let (entered, candidates) = (waiter.entered, waiter.candidates());
            assert!(entered <= candidates.len());
            unserved += usize::from(candidates.is_empty());
            match waiter.standing {
                // Between the steps of one arrival, which only tests see.
                Standing::Arriving | Standing::Advancing => {}
                Standing::Held => assert!(entered > 0 && entered < candidates.len()),
                Standing::Everywhere => assert_eq!(entered, candidates.len()),
            }
            for (at, &r) in candidates.iter().enumerate() {
                let here = self.routes[r as usize].queue.iter().any(|entry| entry.waiter == key);
                assert_eq!(
                    here,
                    at < entered,
                    "a waiter is in the queues it has entered and no other"
                );
            }
        }
        assert_eq!(unserved, self.unserved);
    }

    fn check_route(&self, r: u32, route: &LocalRoute) {
        let cell = &route.shared.cells[self.me];
        assert!(
            route.queue.is_empty() || route.line.is_empty(),
            "a request waits beside a parked bridge"
        );
        assert_eq!(cell.supply.parked.load(SeqCst), route.line.len(), "published parked");
        assert_eq!(self.parked.iter(&route.line).count() as u32, route.line.len());
        assert_eq!(
            cell.demand.waiting.load(SeqCst) as usize,
            route.queue.len(),
            "published waiting"
        );
        assert_eq!(route.queue.iter().count(), route.queue.len());
        let oldest = route.queue.front().map_or(NOBODY, |first| first.since);
        assert_eq!(cell.demand.oldest.load(SeqCst), oldest, "published oldest");
        assert_eq!(cell.demand.admitted.load(SeqCst), route.admitted, "published admitted");
        let first_here = |candidates: &[u32]| candidates.first() == Some(&r);
        let admitted =
            self.waiters.iter().filter(|(_, waiter)| first_here(waiter.candidates())).count();
        assert_eq!(route.admitted as usize, admitted);
        let held = self.waiters.iter().filter(|(_, waiter)| waiter.held_at() == Some(r)).count();
        assert_eq!(route.held, held);
        assert!(
            held == 0 || self.uncovered(r) < route.queue.len(),
            "requests stopped for a bridge that does not come"
        );
        assert!(route.queue.iter().map(|entry| entry.seq).is_sorted(), "first come, first served");
    }
}
