//! Routes come and go: bridges join them, and this worker takes over changes of the set.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::time::Micros;

use super::directory::{Change, TooManyBridges};
use super::new_lane::NewLane;
use super::outcome::{Joined, Match};
use super::route::Route;
use super::scheduler::Scheduler;
use super::spec::{RouteQuery, RouteSpec, WaitingMeets};
use super::waiters::Queue;

impl<B> Scheduler<B> {
    /// Adds a bridge to the route for `spec`. It stays a member, on any worker, until
    /// [`Route::leave`]. May produce matches; see [`Scheduler::next_match`].
    ///
    /// # Errors
    /// A host of `spec` already has [`super::Bounds::bridges_per_host`] bridges, or as many sets of
    /// predicates as may be.
    pub fn join(
        &mut self,
        spec: &RouteSpec,
        now: Micros,
        meets: WaitingMeets<'_>,
    ) -> Result<Joined<B>, TooManyBridges> {
        // By far the most common case, without the directory's lock: a backend that registers again
        // for every exchange.
        if self.bounds.bridges_per_host == 0
            && let Some(route) = self.index.find(spec).filter(|route| route.try_join())
        {
            return Ok(Joined { route: Arc::clone(route), new: false });
        }
        let (route, new) = self.directory.join(spec, self.bounds.bridges_per_host, now)?;
        self.take_over(meets);
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

    /// Takes over changes to the set of routes. Called once a turn: without changes it costs one
    /// load. `meets` is asked about requests that wait and routes that have predicates, but not about
    /// all of many in one turn: see [`Scheduler::is_synced`]. May produce matches; see
    /// [`Scheduler::next_match`].
    pub fn sync(&mut self, meets: WaitingMeets<'_>) {
        self.looks = self.looks_per_turn;
        self.take_over(meets);
    }

    /// Whether every request that waits here is in the queues of all routes that could serve it, of
    /// those that have been taken over. If not, [`Scheduler::sync`] goes on in the next turn.
    pub fn is_synced(&self) -> bool {
        self.new_lanes.is_empty()
    }

    /// Whether it has taken over every change, whatever the others have.
    pub(super) fn knows_all(&self) -> bool {
        self.version == self.directory.version() && self.is_synced()
    }

    fn take_over(&mut self, meets: WaitingMeets<'_>) {
        if self.knows_all() {
            return;
        }
        let mut changes = std::mem::take(&mut self.changes);
        self.version = self.directory.changes_since(self.version, &mut changes);
        for change in changes.drain(..) {
            match &*change {
                Change::Added(route) => {
                    self.index.insert(route);
                    self.find_waiters(route);
                }
                // Nothing waits for it, or it would not have been retired.
                Change::Retired(route) => self.index.remove(route),
            }
        }
        self.changes = changes;
        self.ask_waiters(meets);
        if self.is_synced() {
            // Only now are the requests waiting here in the new queues.
            self.directory.set_known(self.me, self.version);
        }
    }

    /// Whether a request for `query` may be served by this route.
    pub(super) fn leads_to(&self, query: &RouteQuery<'_>, route: &Arc<Route<B>>) -> bool {
        let found = self.index.visit(query, |found| match Arc::ptr_eq(found, route) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        });
        found.is_break()
    }

    /// Gives a new route the requests waiting here that it can serve, oldest first; if it has
    /// predicates, they must still be asked.
    fn find_waiters(&mut self, route: &Arc<Route<B>>) {
        if self.waiters.len() == 0 {
            return;
        }
        let spec = route.spec();
        let mut keys = self.waiters.asking_for(spec.patterns());
        keys.retain(|key| {
            let query = self.waiters[*key].query().with_meets(Some(&|_| true));
            spec.serves(&query) && (!spec.is_confined() || self.leads_to(&query, route))
        });
        keys.sort_unstable_by_key(|key| self.waiters[*key].pos);
        if spec.predicates().is_some() {
            let waiters = keys.into_iter().map(|key| self.waiters.id(key)).collect();
            self.new_lanes.push_back(NewLane { route: Arc::clone(route), waiters });
        } else {
            keys.into_iter().for_each(|key| self.enter_queue_of(route, key));
        }
    }

    /// Gives new routes with predicates the requests that meet these, as far as this turn's looks go.
    fn ask_waiters(&mut self, meets: WaitingMeets<'_>) {
        while let Some(lane) = self.new_lanes.front_mut() {
            let Some(&id) = lane.waiters.front() else {
                self.new_lanes.pop_front();
                continue;
            };
            if self.looks == 0 {
                return;
            }
            lane.waiters.pop_front();
            // One that has come since then knows the route.
            if self.waiters.contains(id) {
                self.looks -= 1;
                let route = Arc::clone(&lane.route);
                let request = self.waiters[id.key].request;
                if route.spec().predicates().is_some_and(|demanded| meets(request, demanded)) {
                    self.enter_queue_of(&route, id.key);
                }
            }
        }
    }

    /// A request waits for one more route.
    fn enter_queue_of(&mut self, route: &Arc<Route<B>>, key: u32) {
        let waiter = &mut self.waiters[key];
        let (request, pos) = (waiter.request, waiter.pos);
        waiter.queues.push(Queue { route: Arc::clone(route), entry: None });
        if let Some((bridge, owner)) = self.enter_queues(key) {
            self.matches.push_back(Match { request, bridge, owner, pos });
        }
    }
}
