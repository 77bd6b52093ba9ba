//! Routes come and go: bridges join them, and this worker takes over what changed in the set.

use std::sync::Arc;

use crate::time::Micros;

use super::directory::Change;
use super::route::Route;
use super::scheduler::Scheduler;
use super::spec::{Pattern, RouteSpec};
use super::{Joined, Match, TooManyBridges};

impl<B> Scheduler<B> {
    /// A bridge registers for what `spec` says. It is a member of the route, on whichever worker
    /// it comes to be, until [`Route::leave`]. May leave matches behind.
    ///
    /// # Errors
    /// A host of `spec` has as many bridges as [`super::Bounds::bridges_per_host`] allows.
    pub fn join(&mut self, spec: &RouteSpec, now: Micros) -> Result<Joined<B>, TooManyBridges> {
        // The common case by far, and without the directory's lock: a backend that registers anew
        // for every exchange.
        if self.bounds.bridges_per_host == 0
            && let Some(route) = self.index.find(spec).filter(|route| route.try_join())
        {
            return Ok(Joined { route: Arc::clone(route), new: false });
        }
        let (route, new) = self.directory.join(spec, self.bounds.bridges_per_host, now)?;
        self.sync();
        Ok(Joined { route, new })
    }

    /// The next pair that found each other in [`Scheduler::sync`] or [`Scheduler::join`].
    pub fn next_match(&mut self) -> Option<Match<B>> {
        self.matches.pop_front()
    }

    /// The version of the set of routes, for [`Scheduler::all_know`].
    pub fn routes_version(&self) -> u64 {
        self.directory.version()
    }

    /// Whether every worker has synced its routes to this version: then every request that one of
    /// them could serve is in its queue. The bridge that creates a route should not park before
    /// that, or it may serve a request of its own worker ahead of an older one elsewhere. Bridges
    /// that join an existing route need not ask.
    pub fn all_know(&self, version: u64) -> bool {
        self.directory.all_know(version)
    }

    /// Takes over what happened to the set of routes. To be called once a turn: it costs one load
    /// when nothing did. May leave matches behind.
    pub fn sync(&mut self) {
        if self.version == self.directory.version() {
            return;
        }
        let mut changes = std::mem::take(&mut self.changes);
        self.version = self.directory.changes_since(self.version, &mut changes);
        for change in changes.drain(..) {
            match change {
                Change::Added(route) => {
                    self.index.insert(&route);
                    self.find_waiters(&route);
                }
                // Nothing waits for it: that is a condition for its end.
                Change::Retired(route) => self.index.remove(&route),
            }
        }
        self.changes = changes;
        // Only now: what waits here is in the queues.
        self.directory.set_known(self.me, self.version);
    }

    /// Gives a new route the requests that wait here and that it can serve, first come first.
    fn find_waiters(&mut self, route: &Arc<Route<B>>) {
        if self.waiters.len() == 0 {
            return;
        }
        let spec = route.spec();
        let exact = |pattern: &Arc<str>| matches!(Pattern::read(pattern), Pattern::Exact(_));
        let mut keys: Vec<u32> = match spec.patterns().iter().all(exact) {
            true => spec.patterns().iter().flat_map(|name| self.waiters.asking_for(name)).collect(),
            false => self.waiters.iter().map(|(key, _)| key).collect(),
        };
        keys.retain(|key| spec.serves(&self.waiters[*key].query()));
        keys.sort_unstable_by_key(|key| (self.waiters[*key].pos, *key));
        keys.dedup();
        for key in keys {
            let waiter = &mut self.waiters[key];
            let (request, pos) = (waiter.request, waiter.pos);
            waiter.add_candidate(route);
            if let Some((bridge, owner)) = self.enter_queues(key) {
                self.matches.push_back(Match { request, bridge, owner, pos });
            }
        }
    }
}
