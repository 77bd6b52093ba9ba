//! Requests that wait for a site whose last server turns out to be away: its backup may have them.
//!
//! A request is given to a backup when it comes (`sites.rs`), and then the servers are thought to be there until one has
//! been tried. So whoever came first, and all who came while that was being found out, are looked at once more.

use crate::proxy::role::Role;
use crate::proxy::worker::Worker;

use super::servers::Pools;

impl Worker {
    /// Whether a site that has a backup has lost its last backend since the requests were last looked at for that.
    pub(super) fn has_deserted(&mut self, pools: &Pools) -> bool {
        let mut any = false;
        for pool in pools.list().iter().filter(|pool| pool.has_backup) {
            if pool.route.members() == 0 {
                let since = pool.route.empty_since();
                any |= self.dialling.deserted.insert(pool.route.id(), since) != Some(since);
            }
        }
        any
    }

    /// Has every request that waits here looked at anew, in its old place.
    pub(super) fn look_for_backups(&mut self) {
        let waiting = self.slots.iter().filter_map(|(key, slot)| match slot.role {
            Role::Waiting { waiter, .. } => Some((key, waiter)),
            _ => None,
        });
        let waiting: Vec<_> = waiting.collect();
        for (key, waiter) in waiting {
            // One that has just been matched is served.
            if let Some(place) = self.lobby.recall(waiter) {
                self.wait_again(key, place);
            }
        }
    }
}
