//! What happens on one worker: requests arrive, wait and end; bridges park, serve and end.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering::*;

use crate::time::Micros;

use super::directory::{Change, Directory};
use super::index::Index;
use super::new_lane::{LOOKS, NewLane};
use super::order::{QueuePos, WaiterId};
use super::outcome::{Counters, Enqueued, Match, Parked, Sent, Transfer};
use super::queue::Waiting;
use super::route::Route;
use super::spec::{Resolved, RouteQuery};
use super::state::{IdleHandle, Membership, Owner, RouteState, Telling};
use super::waiters::Waiters;
use super::wanted::{InstanceId, Wanted};

/// How many may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Waiting requests per route, on all workers together. A worker may always use its even share,
    /// so under an uneven load there may be up to twice as many.
    pub per_route: usize,
    /// Waiting requests for names that have no route, on all workers and for all names together.
    pub unserved: usize,
    /// Whether a request for a name without a route waits at all.
    pub unserved_waits: bool,
    /// Bridges per host pattern, on all workers together; 0 for no bound.
    pub bridges_per_host: usize,
}

/// One worker's side of the matching. `B` is a parked bridge, moved in and out by value.
#[derive(Debug)]
pub struct Scheduler<B> {
    pub(super) me: usize,
    pub(super) directory: Arc<Directory<B>>,
    pub(super) bounds: Bounds,
    /// The directory's version up to which `index` has been synced.
    pub(super) version: u64,
    pub(super) index: Index<B>,
    pub(super) waiters: Waiters<B>,
    pub(super) unserved: usize,
    last_tie: u64,
    pub(super) matches: VecDeque<Match<B>>,
    pub(super) sent: VecDeque<Sent<B>>,
    pub(super) declined: VecDeque<(Arc<Route<B>>, Telling)>,
    /// Set by [`Scheduler::match_at_once`] for the rest of the call: the routes that could serve
    /// the request, whether the queue of the first is full, whether any of them is kept, and the one
    /// instance that the request waits for.
    pub(super) candidates: Vec<Arc<Route<B>>>,
    first_is_full: bool,
    any_is_kept: bool,
    pub(super) stays_for: Option<InstanceId>,
    /// New routes with predicates, and the requests that are still to be asked whether they meet these.
    pub(super) new_lanes: VecDeque<NewLane<B>>,
    /// How many requests may still be asked in this turn.
    pub(super) looks: usize,
    /// How many in each.
    pub(super) looks_per_turn: usize,
    /// Kept for its memory, empty between calls.
    pub(super) changes: Vec<Arc<Change<B>>>,
}

/// The result of one step of a waiter into the queues of its routes.
pub(super) enum Step<B> {
    /// An idle bridge serves it; it no longer waits.
    Matched(B, Owner),
    /// It has entered one more queue, or found that route retired.
    Entered,
    /// It is in every queue where it belongs, or has been claimed for a bridge.
    Done,
}

impl<B> Scheduler<B> {
    /// The scheduler of worker `me`, counted from 0.
    ///
    /// # Panics
    /// If the directory was made for fewer workers.
    pub fn new(me: usize, directory: Arc<Directory<B>>, bounds: Bounds) -> Self {
        assert!(me < directory.workers(), "worker {me} of {}", directory.workers());
        Scheduler {
            me,
            directory,
            bounds,
            version: 0,
            index: Index::default(),
            waiters: Waiters::default(),
            unserved: 0,
            last_tie: 0,
            matches: VecDeque::new(),
            sent: VecDeque::new(),
            declined: VecDeque::new(),
            candidates: Vec::new(),
            first_is_full: false,
            any_is_kept: false,
            stays_for: None,
            new_lanes: VecDeque::new(),
            looks: LOOKS,
            looks_per_turn: LOOKS,
            changes: Vec::new(),
        }
    }

    /// Replaces the bounds. Requests already waiting keep waiting.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Replaces [`Bounds::bridges_per_host`].
    pub fn set_bridges_per_host(&mut self, most: usize) {
        self.bounds.bridges_per_host = most;
    }

    /// Gives each of these host patterns its site, and takes their sites from all others.
    pub fn set_sites<'s>(&mut self, sites: impl IntoIterator<Item = (&'s str, u32)>) {
        self.index.set_sites(sites);
    }

    /// Numbers for the statistics.
    pub fn counters(&self) -> Counters {
        Counters { waiting: self.waiters.len(), unserved: self.unserved }
    }

    /// What a host, in lower case, and a path lead to.
    pub fn resolve<'a>(&self, host: &'a str, path: &'a str) -> Resolved<'a> {
        self.index.resolve(host, path)
    }

    /// Whether a bridge that could serve `query` is connected, parked or in an exchange, on any
    /// worker.
    pub fn has_bridge(&self, query: &RouteQuery<'_>) -> bool {
        self.served_by(query).is_some()
    }

    /// Since when the request has waited; `None` if it no longer does.
    pub fn since(&self, waiter: WaiterId) -> Option<Micros> {
        self.waiters.contains(waiter).then(|| self.waiters[waiter.key].pos.since())
    }

    /// The most specific route with a bridge that the waiting request waits for.
    pub fn waits_for(&self, waiter: WaiterId) -> Option<&Arc<Route<B>>> {
        let known = self.waiters.contains(waiter).then(|| &self.waiters[waiter.key])?;
        known.queues.iter().map(|queue| &queue.route).find(|route| route.members() > 0)
    }

    /// The routes that the waiting request waits for.
    pub fn routes_of(&self, waiter: WaiterId) -> impl Iterator<Item = &Arc<Route<B>>> {
        let known = self.waiters.contains(waiter).then(|| &self.waiters[waiter.key]);
        known.into_iter().flat_map(|waiter| waiter.queues.iter().map(|queue| &queue.route))
    }

    /// Whether a bridge that could serve the waiting request is connected, on any worker.
    pub fn has_bridge_for(&self, waiter: WaiterId) -> bool {
        self.waiters.contains(waiter)
            && self.waiters[waiter.key].queues.iter().any(|queue| queue.route.members() > 0)
    }

    /// The most specific route with a bridge that could serve `query`.
    pub fn served_by(&self, query: &RouteQuery<'_>) -> Option<&Arc<Route<B>>> {
        self.first_route(query, |route| route.members() > 0)
    }

    /// Whether a route of `query` has bridges with limits ([`Route::limited`]). Takes no lock.
    pub fn is_limited(&self, query: &RouteQuery<'_>) -> bool {
        self.first_route(query, Route::is_limited).is_some()
    }

    /// Whether a request for `query` has a route to wait for: one that has bridges, had some
    /// recently, or is pinned.
    pub fn knows(&self, query: &RouteQuery<'_>) -> bool {
        self.first_route(query, Route::is_kept).is_some()
    }

    /// Calls `note` with each route that could serve `query`, most specific first.
    pub fn each_route(&self, query: &RouteQuery<'_>, mut note: impl FnMut(&Route<B>)) {
        let _ = self.index.visit(query, |route| {
            note(route);
            ControlFlow::<()>::Continue(())
        });
    }

    /// The most specific route for `query` for which `which` holds.
    fn first_route(
        &self,
        query: &RouteQuery<'_>,
        which: impl Fn(&Route<B>) -> bool,
    ) -> Option<&Arc<Route<B>>> {
        let found = self.index.visit(query, |route| match which(route) {
            true => ControlFlow::Break(route),
            false => ControlFlow::Continue(()),
        });
        found.break_value()
    }

    /// A request arrives.
    pub fn enqueue(&mut self, request: u64, query: &RouteQuery<'_>, now: Micros) -> Enqueued<B> {
        let pos = self.next_pos(now);
        match self.match_at_once(query, now) {
            Some((bridge, owner)) => Enqueued::Matched { bridge, owner, pos },
            None => match self.refusal() {
                None => self.queue(request, pos, query),
                // It may not wait for its own, so it goes anywhere.
                Some(_) if self.stays_for.is_some() => {
                    self.enqueue(request, &query.with_wanted(None), now)
                }
                Some(refusal) => refusal,
            },
        }
    }

    /// A request comes back because its bridge failed and it can be retried. It keeps its old place
    /// in the order, and the bounds do not apply: it has been admitted before. A bridge for which
    /// `failed` holds, one of the backend that failed, serves it only if no other is parked.
    pub fn requeue(
        &mut self,
        request: u64,
        pos: QueuePos,
        query: &RouteQuery<'_>,
        failed: impl Fn(&B) -> bool,
        now: Micros,
    ) -> Enqueued<B> {
        let mut found = self.other_of(query, &failed).or_else(|| self.match_own(query, now));
        if found.is_none() && self.stays_for.is_none() {
            let me = self.me;
            let other = self.take_first(query, |state| state.take_other(me, &failed));
            found = other.or_else(|| self.look(query, |state| state.take_idle(me)));
        }
        match found {
            Some((bridge, owner)) => Enqueued::Matched { bridge, owner, pos },
            None if self.candidates.is_empty() && !self.bounds.unserved_waits => Enqueued::Unknown,
            None => self.queue(request, pos, query),
        }
    }

    /// An idle bridge of the instance that the request wants for which `failed` does not hold.
    fn other_of(&self, query: &RouteQuery<'_>, failed: impl Fn(&B) -> bool) -> Option<(B, Owner)> {
        let Wanted { instance, .. } = query.wanted?;
        self.take_first(query, |state| state.take_of(self.me, instance, &failed))
    }

    /// What `take` finds on the most specific route where it finds a bridge.
    fn take_first(
        &self,
        query: &RouteQuery<'_>,
        take: impl Fn(&mut RouteState<B>) -> Option<(B, Owner)>,
    ) -> Option<(B, Owner)> {
        let taken = self.index.visit(query, |route| {
            let mut state = route.lock();
            take(&mut state).map_or(ControlFlow::Continue(()), ControlFlow::Break)
        });
        taken.break_value()
    }

    pub(super) fn next_pos(&mut self, now: Micros) -> QueuePos {
        self.last_tie += 1;
        QueuePos { since: now, tie: self.last_tie }
    }

    /// Takes an idle bridge of the most specific route that has one on any worker; of the instance
    /// that the request wants, if that is there or was lately. If there is none, `candidates` is set
    /// to all routes that could serve the request.
    pub(super) fn match_at_once(
        &mut self,
        query: &RouteQuery<'_>,
        now: Micros,
    ) -> Option<(B, Owner)> {
        let own = self.match_own(query, now);
        if own.is_some() || self.stays_for.is_some() {
            return own;
        }
        let me = self.me;
        self.look(query, |state| state.take_idle(me))
    }

    /// The same among the bridges of the instance that the request wants. If it is to wait for that
    /// alone, `stays_for` and `candidates` are set.
    fn match_own(&mut self, query: &RouteQuery<'_>, now: Micros) -> Option<(B, Owner)> {
        self.stays_for = None;
        let Wanted { instance, waits } = query.wanted?;
        let (me, mut is_there) = (self.me, false);
        let found = self.look(query, |state| {
            is_there |= !state.is_retired() && state.has_instance(instance, now);
            state.take_of(me, instance, |_| false)
        });
        if found.is_none() && waits && is_there {
            self.stays_for = Some(instance);
        } else {
            self.candidates.clear();
        }
        found
    }

    /// Asks the routes that could serve a request for a bridge, most specific first.
    fn look(
        &mut self,
        query: &RouteQuery<'_>,
        mut take: impl FnMut(&mut RouteState<B>) -> Option<(B, Owner)>,
    ) -> Option<(B, Owner)> {
        let Scheduler { me, index, candidates, first_is_full, any_is_kept, .. } = self;
        *any_is_kept = false;
        let (per_route, workers) = (self.bounds.per_route, self.directory.workers());
        debug_assert!(candidates.is_empty());
        let found = index.visit(query, |route| {
            let mut state = route.lock();
            match take(&mut state) {
                Some(idle) => return ControlFlow::Break(idle),
                None if state.is_retired() => return ControlFlow::Continue(()),
                None if candidates.is_empty() => {
                    *first_is_full = state.is_full(*me, per_route, workers);
                }
                None => {}
            }
            *any_is_kept |= state.is_kept();
            drop(state);
            if !candidates.iter().any(|known| Arc::ptr_eq(known, route)) {
                candidates.push(Arc::clone(route));
            }
            ControlFlow::Continue(())
        });
        let found = found.break_value();
        if found.is_some() {
            candidates.clear();
        }
        found
    }

    /// Why a new request for the candidates may not wait; `None` if it may.
    pub(super) fn refusal(&mut self) -> Option<Enqueued<B>> {
        let Bounds { unserved, unserved_waits, .. } = self.bounds;
        match self.candidates.is_empty() {
            // A route that ends with its last bridge, which has gone, is as good as none.
            _ if !self.any_is_kept && !unserved_waits => {
                self.candidates.clear();
                Some(Enqueued::Unknown)
            }
            true if self.directory.unserved() >= unserved => Some(Enqueued::UnservedFull),
            false if self.first_is_full => {
                self.candidates.clear();
                Some(Enqueued::RouteFull)
            }
            _ => None,
        }
    }

    fn queue(&mut self, request: u64, pos: QueuePos, query: &RouteQuery<'_>) -> Enqueued<B> {
        let key = self.insert_waiter(request, pos, query);
        let id = self.waiters.id(key);
        match self.enter_queues(key) {
            Some((bridge, owner)) => Enqueued::Matched { bridge, owner, pos },
            None => Enqueued::Queued(id),
        }
    }

    /// Adds a request that [`Scheduler::match_at_once`] has found no bridge for.
    pub(super) fn insert_waiter(
        &mut self,
        request: u64,
        pos: QueuePos,
        query: &RouteQuery<'_>,
    ) -> u32 {
        let key = self.waiters.insert(request, pos, query, &mut self.candidates);
        self.waiters[key].stays_for = self.stays_for;
        key
    }

    /// Puts a waiter into the remaining queues of its routes, most specific first, until one of
    /// them has a bridge for it.
    pub(super) fn enter_queues(&mut self, key: u32) -> Option<(B, Owner)> {
        loop {
            match self.enter_next(key) {
                Step::Matched(bridge, owner) => return Some((bridge, owner)),
                Step::Entered => {}
                Step::Done => return None,
            }
        }
    }

    /// One step of [`Scheduler::enter_queues`]. Between two steps other workers may claim the
    /// request.
    pub(super) fn enter_next(&mut self, key: u32) -> Step<B> {
        let (me, id) = (self.me, self.waiters.id(key));
        let waiter = &mut self.waiters[key];
        let Some(at) = waiter.queues.iter().position(|queue| queue.entry.is_none()) else {
            let unserved = waiter.queues.is_empty();
            self.count_unserved(key, unserved);
            return Step::Done;
        };
        let mut state = waiter.queues[at].route.lock();
        if state.is_retired() {
            drop(state);
            waiter.queues.remove(at);
            return Step::Entered;
        }
        let has_idle = match waiter.stays_for {
            None => state.has_idle(),
            Some(instance) => state.has_idle_of(instance),
        };
        if has_idle {
            let idle = match waiter.stays_for {
                _ if !waiter.win() => None,
                None => state.take_idle(me),
                Some(instance) => state.take_of(me, instance, |_| false),
            };
            drop(state);
            return match idle {
                Some((bridge, owner)) => {
                    self.remove_waiter(key, None);
                    Step::Matched(bridge, owner)
                }
                None => Step::Done,
            };
        }
        let waiting = Waiting {
            request: waiter.request,
            pos: waiter.pos,
            worker: me,
            id,
            claim: waiter.claim.clone(),
            admitted: at == 0,
        };
        let entry = state.enter(waiter.stays_for, waiting);
        drop(state);
        waiter.queues[at].entry = Some(entry);
        Step::Entered
    }

    /// Counts a waiter among those whose name has no route, or stops counting it.
    fn count_unserved(&mut self, key: u32, unserved: bool) {
        let before = std::mem::replace(&mut self.waiters[key].unserved, unserved);
        if unserved && !before {
            self.unserved += 1;
            self.directory.unserved.fetch_add(1, Relaxed);
        } else if before && !unserved {
            self.unserved -= 1;
            self.directory.unserved.fetch_sub(1, Relaxed);
        }
    }

    /// Drops a claimed waiter and removes it from every queue but that of `popped`, which it has
    /// left already.
    pub(super) fn remove_waiter(&mut self, key: u32, popped: Option<&Arc<Route<B>>>) {
        let (me, id) = (self.me, self.waiters.id(key));
        let waiter = &self.waiters[key];
        for queue in &waiter.queues {
            let is_left = popped.is_some_and(|popped| Arc::ptr_eq(popped, &queue.route));
            if let Some(entry) = queue.entry.filter(|_| !is_left) {
                queue.route.lock().take_waiting(me, waiter.stays_for, entry, id);
            }
        }
        self.count_unserved(key, false);
        self.waiters.remove(key);
    }

    /// The one instance that the request waits for, if it does.
    pub fn stays_for(&self, waiter: WaiterId) -> Option<InstanceId> {
        self.waiters.contains(waiter).then(|| self.waiters[waiter.key].stays_for)?
    }

    /// Sees to it that a waiting request gets no bridge any more, so that it can be refused and then
    /// cancelled. False if it no longer waits, or if a bridge is on its way to it.
    pub fn claim(&self, waiter: WaiterId) -> bool {
        self.waiters.contains(waiter) && self.waiters[waiter.key].win()
    }

    /// A waiting request's client has gone, or its time is up. False if it no longer waits, or if a
    /// bridge is on its way to it; then [`Scheduler::receive`] will find it gone.
    pub fn cancel(&mut self, waiter: WaiterId) -> bool {
        if !self.waiters.contains(waiter) {
            return false;
        }
        let won = self.waiters[waiter.key].win();
        self.remove_waiter(waiter.key, None);
        won
    }

    /// Takes a waiting request out, to be dispatched again. Returns its place, for
    /// [`Scheduler::requeue`]; `None` if it no longer waits, or if a bridge is on its way to it:
    /// then it keeps waiting for that bridge.
    pub fn recall(&mut self, waiter: WaiterId) -> Option<QueuePos> {
        if !self.waiters.contains(waiter) || !self.waiters[waiter.key].win() {
            return None;
        }
        let pos = self.waiters[waiter.key].pos;
        self.remove_waiter(waiter.key, None);
        Some(pos)
    }

    /// A bridge sent here for a waiting request has arrived, or the news that it died on the way.
    /// True if the request is still there: then it no longer waits, and the caller gives it the
    /// bridge, or requeues it. If the request is gone, the caller parks the bridge.
    pub fn receive(&mut self, waiter: WaiterId) -> bool {
        let waits = self.waiters.contains(waiter);
        if waits {
            debug_assert!(!self.waiters[waiter.key].win(), "a bridge came that had no claim");
            self.remove_waiter(waiter.key, None);
        }
        waits
    }

    /// A bridge of this worker is ready for a request. `token` names it on this worker while it is
    /// parked; see [`Owner`]. One in a group whose backend has no place for a request is parked, but
    /// gets none. With one that is in a group, see [`Scheduler::next_declined`].
    pub fn park(
        &mut self,
        route: &Arc<Route<B>>,
        of: Membership,
        token: u64,
        bridge: B,
    ) -> Parked<B> {
        let mut state = route.lock();
        let has_place = state.has_place(of.group);
        let waiting = has_place.then(|| state.claim_waiting(self.me, of.instance)).flatten();
        let Some(waiting) = waiting else {
            let owner = Owner { worker: self.me, token };
            let handle = state.push_idle(bridge, owner, of);
            let telling = of.group.and_then(|group| state.decline(group));
            drop(state);
            self.note_declined(route, telling);
            return Parked::Idle(handle);
        };
        drop(state);
        let Waiting { request, pos, worker, id, .. } = waiting;
        if worker != self.me {
            let transfer = Transfer { to: worker, request, waiter: id, pos };
            return Parked::Transfer { bridge, transfer };
        }
        self.remove_waiter(id.key, Some(route));
        Parked::Serve { bridge, request, pos }
    }

    /// Takes a parked bridge out, unless it has been matched or taken over.
    pub fn unpark(&self, route: &Route<B>, handle: IdleHandle, token: u64) -> Option<B> {
        route.lock().remove_idle(handle, Owner { worker: self.me, token })
    }

    /// Calls `look` with a parked bridge, unless it has been matched or taken over. `look` runs
    /// under the route's lock: it must be short and must not call the scheduler.
    pub fn with_idle<T>(
        &self,
        route: &Route<B>,
        handle: IdleHandle,
        token: u64,
        look: impl FnOnce(&mut B) -> T,
    ) -> Option<T> {
        route.lock().idle_mut(handle, Owner { worker: self.me, token }).map(look)
    }

    /// How many requests wait on this worker for any bridge of the route.
    pub fn waiting_here(&self, route: &Route<B>) -> usize {
        route.lock().waiting_on(self.me)
    }
}
