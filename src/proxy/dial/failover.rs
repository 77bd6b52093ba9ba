//! Requests that wait for a site whose last server turns out to be down go to its backup.
//!
//! A request goes to a backup when it arrives (`sites.rs`), but untried servers count as up. So
//! requests that arrived before the servers were found to be down are dispatched once more.

use super::super::role::{Pools, Role, Ticket};
use super::super::worker::Worker;

impl Worker {
    /// Whether a site that has a backup has lost its last backend since its requests last failed
    /// over.
    pub(super) fn site_lost_its_backends(&mut self, pools: &Pools) -> bool {
        let mut any = false;
        for pool in pools.list().iter().filter(|pool| pool.has_backup) {
            if pool.route.members() == 0 {
                let since = pool.route.empty_since();
                any |= self.dialling.failed_over.insert(pool.route.id(), since) != Some(since);
            }
        }
        any
    }

    /// Dispatches every request that waits here once more, in its old place.
    pub(super) fn fail_over(&mut self) {
        for key in self.conns.keys_with(|role| matches!(role, Role::Queued { .. })) {
            let Some(Role::Queued { request, .. }) = self.conns.role(key) else { continue };
            // A request that has just been matched is served.
            let Some(pos) = self.scheduler.recall(request.waiter) else { continue };
            let tries = request.tries;
            self.dispatch_again(key, Ticket { pos, tries });
        }
    }
}
