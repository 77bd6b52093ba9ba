//! What must hold between any two calls. Checked by the tests after every step.

use std::sync::Arc;

use super::super::{Scheduler, WaitingMeets};
use crate::http::Predicates;

impl<B> Scheduler<B> {
    /// Checks this worker's tables and all routes: O(requests + bridges + routes).
    ///
    /// # Panics
    /// If an invariant does not hold.
    pub fn check_invariants(&self) {
        self.check_invariants_with(&|_, _| false);
    }

    /// The same, where requests may meet predicates.
    pub fn check_invariants_with(&self, meets: WaitingMeets<'_>) {
        self.directory.routes().iter().for_each(|route| route.lock().check());
        let mut unserved = 0;
        for (key, waiter) in self.waiters.iter() {
            unserved += usize::from(waiter.unserved);
            // Still entering its queues, which only tests see, or claimed on another worker.
            let open = waiter.claim.is_open(self.waiters.id(key).stamp);
            if !open || waiter.queues.iter().any(|queue| queue.entry.is_none()) {
                continue;
            }
            for (at, queue) in waiter.queues.iter().enumerate() {
                let others = &waiter.queues[..at];
                assert!(!others.iter().any(|other| Arc::ptr_eq(&other.route, &queue.route)));
                let waits =
                    queue.route.lock().open_requests().contains(&(waiter.pos, waiter.request));
                assert!(waits, "a request is not in a queue that it has entered");
            }
        }
        assert_eq!(unserved, self.unserved);
        assert!(!self.knows_all() || !self.waiters_miss_a_route(meets));
    }

    fn waiters_miss_a_route(&self, meets: WaitingMeets<'_>) -> bool {
        let routes = self.directory.routes();
        self.waiters.iter().any(|(key, waiter)| {
            let open = waiter.claim.is_open(self.waiters.id(key).stamp);
            let meets = |predicates: &Predicates| meets(waiter.request, predicates);
            let query = waiter.query().with_meets(Some(&meets));
            open && routes
                .iter()
                .filter(|route| self.leads_to(&query, route))
                .any(|route| !waiter.queues.iter().any(|queue| Arc::ptr_eq(&queue.route, route)))
        })
    }
}
