//! Routes come and go: bridges join and leave them, and this worker takes over what the others did to the set.

use std::sync::Arc;

use super::directory::Change;
use super::elsewhere::Wants;
use super::lobby::{Lobby, LocalRoute};
use super::parked::Line;
use super::published::{Exempt, RouteShared};
use super::queue::WaitQueue;
use super::route::RouteSpec;
use super::waiters::Standing;
use super::{RouteId, TooManyBridges};

/// A bridge has joined its route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The route; for [`Lobby::park`] and [`Lobby::leave`].
    pub route: RouteId,
    /// Whether the route is new. Then the other workers must be woken to [`Lobby::sync`]: requests may wait there that
    /// only this route can serve.
    pub new: bool,
}

impl Lobby {
    /// A bridge registers for what `spec` says. It is a member of the route, on whichever worker it comes to be, until
    /// it leaves. May leave matches behind. `now` is in microseconds.
    ///
    /// # Errors
    /// A host of `spec` has as many bridges as [`super::Bounds::bridges_per_host`] allows.
    pub fn join(&mut self, spec: &RouteSpec, now: u64) -> Result<Joined, TooManyBridges> {
        // The common case by far, and without the lock: a backend that registers anew for every exchange.
        if self.bounds.bridges_per_host == 0 {
            let known = self.index.namesakes(spec).find(|&r| {
                let shared = &self.routes[r as usize].shared;
                shared.spec() == spec && shared.try_join()
            });
            if let Some(r) = known {
                return Ok(Joined { route: self.name(r), new: false });
            }
        }
        let (shared, new) = self.directory.join(spec, self.bounds.bridges_per_host, now)?;
        let r = self.route_of_member(shared.id());
        Ok(Joined { route: self.name(r), new })
    }

    /// The route of this id in the directory, as this worker names it; `None` if it does not know it yet, or any more.
    pub fn route_of(&self, id: u64) -> Option<RouteId> {
        self.by_id.get(&id).map(|&r| self.name(r))
    }

    /// How many requests wait here for the route without a bridge that they can expect.
    pub fn uncovered_on(&self, route: RouteId) -> usize {
        self.uncovered(self.resolve(route))
    }

    /// A bridge that is not parked has closed, wherever it had joined. `now` is in microseconds.
    pub fn leave(&mut self, route: RouteId, now: u64) {
        self.shared(route).leave(now);
    }

    /// A bridge that we have dialled has come to be, on a route that is pinned. It leaves as any other does.
    pub fn join_exempt(&mut self, route: RouteId) -> Exempt {
        self.shared(route).join_exempt()
    }

    /// Takes over what happened to the set of routes. To be called once a turn: it costs one load when nothing did.
    /// May leave matches behind.
    pub fn sync(&mut self) {
        if self.version == self.directory.version() {
            return;
        }
        let mut changes = std::mem::take(&mut self.scratch.changes);
        self.version = self.directory.take_changes(self.me, &mut changes);
        let mut gone = Vec::new();
        for change in changes.drain(..) {
            match change {
                Change::Added(shared) => self.add_route(shared),
                Change::Retired(id) => {
                    if let Some(r) = self.by_id.remove(&id) {
                        self.index.remove(self.routes[r as usize].shared.spec(), r);
                        gone.push(r);
                    }
                }
            }
        }
        self.scratch.changes = changes;
        self.rematch_waiters();
        for r in gone {
            let route = self.routes.remove(r as usize);
            debug_assert!(
                route.queue.is_empty() && route.line.is_empty(),
                "a retired route was in use"
            );
        }
        // Only now: whoever asks wants to know that what waits here is published.
        self.directory.has_taken_over(self.me, self.version);
    }

    /// The version of the set of routes, for [`Lobby::all_know`].
    pub fn routes_version(&self) -> u64 {
        self.directory.version()
    }

    /// Whether every worker knows the routes of this version, so that whatever waits for one of them is published.
    /// A bridge on a new route that is parked before that may serve a request of its own worker ahead of an older
    /// one elsewhere.
    pub fn all_know(&self, version: u64) -> bool {
        self.directory.all_have_taken_over(version)
    }

    /// The key of a route that is not retired, for a bridge is on it.
    pub(super) fn route_of_member(&mut self, id: u64) -> u32 {
        if !self.by_id.contains_key(&id) {
            self.sync();
        }
        *self.by_id.get(&id).expect("a bridge is on a route that the directory does not have")
    }

    fn add_route(&mut self, shared: Arc<RouteShared>) {
        self.generation = self.generation.wrapping_add(1);
        let id = shared.id();
        let r = self.routes.insert(LocalRoute {
            shared: Arc::clone(&shared),
            generation: self.generation,
            queue: WaitQueue::default(),
            line: Line::new(),
            held: 0,
            admitted: 0,
            wants: Wants::default(),
            horizon: 0,
            unrest: 0,
        }) as u32;
        self.by_id.insert(id, r);
        self.index.insert(shared.spec(), r);
    }

    /// Gives every waiter the routes that could serve it now, first come first.
    fn rematch_waiters(&mut self) {
        if self.waiters.len() == 0 {
            return;
        }
        let mut order: Vec<_> =
            self.waiters.iter().map(|(key, waiter)| (waiter.place.seq, key)).collect();
        order.sort_unstable();
        let mut candidates = Vec::new();
        let mut touched = Vec::new();
        for (_, key) in order {
            candidates.clear();
            let target = self.waiters[key].target();
            let _ = self.index.visit::<()>(&target, |r| {
                if !candidates.contains(&r) {
                    candidates.push(r);
                }
                std::ops::ControlFlow::Continue(())
            });
            if candidates != self.waiters[key].candidates() {
                self.replace_candidates(key, &mut candidates, &mut touched);
            }
        }
        // The second half of "publish, then look", for all of them at once.
        touched.sort_unstable();
        touched.dedup();
        for r in touched {
            self.settle(r);
        }
    }

    /// Takes a waiter out of the queues of routes that are no more and puts it into those of new ones, as far down the
    /// list as it has got. The queues it entered are added to `touched`.
    fn replace_candidates(&mut self, key: u32, new: &mut Vec<u32>, touched: &mut Vec<u32>) {
        self.count_out(key);
        let held_at = self.waiters[key].held_at();
        // A request that nobody served until now begins like one that has just arrived.
        let begins = self.waiters[key].candidates().is_empty();
        self.waiters[key].swap_candidates(new);
        let old = &new[..self.waiters[key].entered];
        let now = self.waiters[key].candidates();
        // Routes keep their order of specificity, so what it had entered stays a part of the front of the list.
        let entered = match held_at {
            None if !begins => now.len(),
            _ => now.iter().rposition(|r| old.contains(r)).map_or(0, |last| last + 1),
        };
        self.waiters[key].entered = entered;
        self.count_in(key);
        let seq = self.waiters[key].place.seq;
        for &r in old {
            if !self.waiters[key].candidates().contains(&r) {
                self.routes[r as usize].queue.remove(seq);
                self.publish_waiting(r);
            }
        }
        for at in 0..entered {
            let r = self.waiters[key].candidates()[at];
            if !old.contains(&r) {
                self.enter(key, r);
                touched.push(r);
            }
        }
        // It stopped at a route that is no more, or nothing is left below the route at which it stopped.
        let candidates = self.waiters[key].candidates();
        let resumes = held_at.filter(|r| entered == candidates.len() || !candidates.contains(r));
        if let Some(route) = resumes {
            self.routes[route as usize].held -= 1;
        }
        if begins || resumes.is_some() {
            self.waiters[key].standing = Standing::Advancing;
            let found = self.advance(key);
            self.matches.extend(found);
        }
    }
}
