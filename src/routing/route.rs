//! A route: its idle bridges and waiting requests on all workers, under one lock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::time::Micros;

use super::claim::Claim;
use super::directory::RETENTION;
use super::lists::{List, Lists};
use super::spec::RouteSpec;
use super::waiters::WaiterId;
use super::{FAIRNESS, LEAN, Owner, QueuePos};

/// `oldest` of a worker on which nothing waits.
const NOTHING: Micros = Micros(u64::MAX);

/// What a set of bridges serves, and who is there.
#[derive(Debug)]
pub struct Route<B> {
    id: u64,
    spec: RouteSpec,
    state: Mutex<RouteState<B>>,
}

/// An idle bridge's entry in its route, as [`super::Scheduler::park`] returned it. Entries are
/// used again, so calls that take a handle also take the token that was parked with it; if the
/// entry is another bridge's by now they find nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleHandle(u32);

#[derive(Debug)]
pub(super) struct RouteState<B> {
    idle: Lists<Idle<B>>,
    waiting: Lists<Waiting>,
    /// By worker; as long as the highest worker that has used the route requires.
    sides: Vec<Side>,
    /// Raised by one with each bridge that parks.
    parkings: u64,
    /// A bridge goes to an older request elsewhere for [`LEAN`] no sooner than this.
    next_lean: Micros,
    /// Bridges connected on any worker, parked or not.
    members: u32,
    /// Those of them that [`super::Bounds::bridges_per_host`] does not count.
    exempt: u32,
    /// When the last bridge left. Means something only while there are no members.
    empty_since: Micros,
    keep: Keep,
}

/// What becomes of a route without bridges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// It was pinned and is not any more: it ends as soon as it is empty.
    Drop,
    /// Its name is remembered for [`RETENTION`].
    Retain,
    /// It stays.
    Pin,
    /// It has ended: nothing joins it or waits for it any more.
    Retired,
}

/// One worker's part of a route.
#[derive(Clone, Copy, Debug)]
struct Side {
    /// Longest parked first.
    idle: List,
    /// First come first.
    queue: List,
    /// When the first in `queue` arrived, or [`NOTHING`].
    oldest: Micros,
    waiting: u32,
    /// Those of them for which [`super::Bounds::per_route`] counts on this route.
    admitted: u32,
}

impl Default for Side {
    fn default() -> Self {
        let (idle, queue) = (List::default(), List::default());
        Side { idle, queue, oldest: NOTHING, waiting: 0, admitted: 0 }
    }
}

/// A parked bridge.
#[derive(Debug)]
struct Idle<B> {
    bridge: B,
    owner: Owner,
    /// The order of parking on the route.
    parking: u64,
}

/// A request's entry in the queue of one route.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) request: u64,
    pub(super) pos: QueuePos,
    /// On which worker it waits.
    pub(super) worker: usize,
    pub(super) id: WaiterId,
    pub(super) claim: Claim,
    /// Whether the bound on this route's queue counts it.
    pub(super) admitted: bool,
}

impl Waiting {
    /// Claims the request for a bridge; false if it has one already or is gone.
    pub(super) fn win(&self) -> bool {
        self.claim.win(self.id.stamp)
    }
}

impl<B> Route<B> {
    pub(super) fn new(id: u64, spec: RouteSpec, now: Micros) -> Self {
        let state = Mutex::new(RouteState {
            idle: Lists::default(),
            waiting: Lists::default(),
            sides: Vec::new(),
            parkings: 0,
            next_lean: Micros(0),
            members: 0,
            exempt: 0,
            empty_since: now,
            keep: Keep::Retain,
        });
        Route { id, spec, state }
    }

    /// A number that no other route of this process has or had.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What the route's bridges serve.
    pub fn spec(&self) -> &RouteSpec {
        &self.spec
    }

    /// Bridges connected on any worker, parked or in an exchange.
    pub fn members(&self) -> u32 {
        self.lock().members
    }

    /// When the last bridge left it, if [`Route::members`] is 0.
    pub fn empty_since(&self) -> Micros {
        self.lock().empty_since
    }

    /// Bridges parked on any worker.
    pub fn parked(&self) -> usize {
        self.lock().idle.len()
    }

    /// Requests waiting on any worker; one that several routes could serve is counted on each.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// A bridge that is not parked has closed.
    pub fn leave(&self, now: Micros) {
        let mut state = self.lock();
        debug_assert!(state.members > 0, "a bridge left a route that it had not joined");
        state.members -= 1;
        state.empty_since = now;
    }

    /// Adds a member that [`super::Bounds::bridges_per_host`] does not count as long as the answer
    /// lives: a connection that the proxy itself has opened, or the knowledge that one could be.
    /// The route must be pinned, or have members. It leaves as any member does.
    pub fn join_exempt(self: &Arc<Self>) -> Exempt<B> {
        let joined = self.try_join();
        debug_assert!(joined, "a route that was pinned has been retired");
        self.lock().exempt += 1;
        Exempt(Arc::clone(self))
    }

    /// Adds a bridge, unless the route has been retired. One that was to be dropped is remembered
    /// again after it.
    pub(super) fn try_join(&self) -> bool {
        let mut state = self.lock();
        match state.keep {
            Keep::Retired => return false,
            Keep::Drop => state.keep = Keep::Retain,
            Keep::Retain | Keep::Pin => {}
        }
        state.members += 1;
        true
    }

    /// The members that [`super::Bounds::bridges_per_host`] counts.
    pub(super) fn counted(&self) -> u32 {
        let state = self.lock();
        state.members.saturating_sub(state.exempt)
    }

    /// Whether a request waits for it even while no bridge is connected, or one is.
    pub(super) fn is_kept(&self) -> bool {
        let state = self.lock();
        state.members > 0 || matches!(state.keep, Keep::Retain | Keep::Pin)
    }

    /// Keeps the route although it has no bridge, or has a pinned one end with its last bridge.
    /// The directory's lock is held, so the route has not been retired.
    pub(super) fn set_pinned(&self, pinned: bool) {
        let mut state = self.lock();
        match (pinned, state.keep) {
            (true, _) => state.keep = Keep::Pin,
            (false, Keep::Pin) => state.keep = Keep::Drop,
            (false, _) => {}
        }
    }

    /// Until when the route is kept, if nothing needs it.
    pub(super) fn kept_until(&self) -> Option<Micros> {
        let state = self.lock();
        match state.keep {
            _ if !state.is_unused() => None,
            Keep::Drop => Some(Micros(0)),
            Keep::Retain => Some(state.empty_since + RETENTION),
            Keep::Pin | Keep::Retired => None,
        }
    }

    /// Ends the route, unless something has come to need it meanwhile.
    pub(super) fn retire(&self) -> bool {
        let mut state = self.lock();
        let unused = state.is_unused() && state.keep != Keep::Pin;
        if unused {
            state.keep = Keep::Retired;
        }
        unused
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, RouteState<B>> {
        // What a panic can interrupt in here leaves at worst one entry out of place.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> RouteState<B> {
    pub(super) fn is_retired(&self) -> bool {
        self.keep == Keep::Retired
    }

    fn is_unused(&self) -> bool {
        self.members == 0 && self.waiting.is_empty()
    }

    fn side_mut(&mut self, worker: usize) -> &mut Side {
        if self.sides.len() <= worker {
            self.sides.resize(worker + 1, Side::default());
        }
        &mut self.sides[worker]
    }

    /// Whether any bridge is parked.
    pub(super) fn has_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    /// Parks a bridge. Nothing waits.
    pub(super) fn push_idle(&mut self, bridge: B, owner: Owner) -> IdleHandle {
        debug_assert!(self.waiting.is_empty(), "a bridge was parked beside a request");
        self.parkings += 1;
        let entry = Idle { bridge, owner, parking: self.parkings };
        // As `side_mut`, on one field only.
        if self.sides.len() <= owner.worker {
            self.sides.resize(owner.worker + 1, Side::default());
        }
        IdleHandle(self.idle.push(&mut self.sides[owner.worker].idle, entry))
    }

    /// Takes the longest parked bridge of worker `me`, or else of all others.
    pub(super) fn take_idle(&mut self, me: usize) -> Option<(B, Owner)> {
        if self.idle.is_empty() {
            return None;
        }
        let first_of = |worker: usize| self.idle.first(&self.sides.get(worker)?.idle);
        let (worker, key) = match first_of(me) {
            Some((key, _)) => (me, key),
            None => {
                let firsts =
                    (0..self.sides.len()).filter_map(|worker| Some((worker, first_of(worker)?)));
                let (worker, (key, _)) = firsts.min_by_key(|(_, (_, idle))| idle.parking)?;
                (worker, key)
            }
        };
        let Idle { bridge, owner, .. } = self.idle.remove(&mut self.sides[worker].idle, key);
        Some((bridge, owner))
    }

    /// Takes this very bridge out, if it is still parked.
    pub(super) fn remove_idle(&mut self, handle: IdleHandle, owner: Owner) -> Option<B> {
        self.idle.get(handle.0).filter(|idle| idle.owner == owner)?;
        Some(self.idle.remove(&mut self.sides[owner.worker].idle, handle.0).bridge)
    }

    /// This very bridge, if it is still parked.
    pub(super) fn idle_mut(&mut self, handle: IdleHandle, owner: Owner) -> Option<&mut B> {
        let idle = self.idle.get_mut(handle.0).filter(|idle| idle.owner == owner)?;
        Some(&mut idle.bridge)
    }

    /// Whether as many requests wait as may, for one more of worker `me`.
    pub(super) fn is_full(&self, me: usize, per_route: usize, workers: usize) -> bool {
        let mine = self.sides.get(me).map_or(0, |side| side.admitted as usize);
        mine >= per_route.div_ceil(workers)
            && self.sides.iter().map(|side| side.admitted as usize).sum::<usize>() >= per_route
    }

    /// Puts a request into the queue. No bridge is parked.
    pub(super) fn enter(&mut self, waiting: Waiting) -> u32 {
        debug_assert!(self.idle.is_empty(), "a request was queued beside a parked bridge");
        let worker = waiting.worker;
        self.side_mut(worker);
        let side = &mut self.sides[worker];
        side.waiting += 1;
        side.admitted += u32::from(waiting.admitted);
        side.oldest = side.oldest.min(waiting.pos.since);
        let pos = waiting.pos;
        self.waiting.insert(&mut side.queue, waiting, |other| other.pos > pos)
    }

    /// Takes a request of worker `me` out, if it is still there.
    pub(super) fn withdraw(&mut self, me: usize, entry: u32, id: WaiterId) {
        let is_it = |waiting: &Waiting| waiting.worker == me && waiting.id == id;
        if self.waiting.get(entry).is_some_and(is_it) {
            self.remove_waiting(me, entry);
        }
    }

    /// Takes out the request that a bridge on worker `me` should serve. It may have been claimed
    /// through another route; then the next one is asked for.
    pub(super) fn pop_waiting(&mut self, me: usize, now: Micros) -> Option<Waiting> {
        if self.waiting.is_empty() {
            return None;
        }
        let worker = self.next_served(me, now);
        let (entry, _) = self.waiting.first(&self.sides[worker].queue)?;
        Some(self.remove_waiting(worker, entry))
    }

    /// The worker whose oldest request a bridge on worker `me` serves.
    fn next_served(&mut self, me: usize, now: Micros) -> usize {
        let (mine, here) =
            self.sides.get(me).map_or((NOTHING, 0), |side| (side.oldest, side.waiting as usize));
        if here == self.waiting.len() {
            return me;
        }
        let elsewhere = self.sides.iter().enumerate().filter(|(worker, _)| *worker != me);
        let oldest = elsewhere.map(|(worker, side)| (side.oldest, worker)).min();
        let Some((oldest, worker)) = oldest else { return me };
        let lead = mine.since(oldest);
        if mine == NOTHING || lead > FAIRNESS {
            return worker;
        }
        if lead > LEAN && now >= self.next_lean {
            self.next_lean = now + LEAN;
            return worker;
        }
        me
    }

    fn remove_waiting(&mut self, worker: usize, entry: u32) -> Waiting {
        let side = &mut self.sides[worker];
        let waiting = self.waiting.remove(&mut side.queue, entry);
        side.waiting -= 1;
        side.admitted -= u32::from(waiting.admitted);
        side.oldest = self.waiting.first(&side.queue).map_or(NOTHING, |first| first.1.pos.since);
        waiting
    }

    /// Requests in the queue that wait on worker `me`.
    pub(super) fn waiting_on(&self, me: usize) -> usize {
        self.sides.get(me).map_or(0, |side| side.waiting as usize)
    }

    /// What must hold whenever the lock is free.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn check(&self) {
        assert!(self.waiting.is_empty() || self.idle.is_empty(), "a request waits beside a bridge");
        assert!(!self.is_retired() || self.is_unused() && self.idle.is_empty());
        let (mut idle, mut waiting) = (0, 0);
        for (worker, side) in self.sides.iter().enumerate() {
            let parked: Vec<_> = self.idle.iter(&side.idle).collect();
            assert!(parked.iter().map(|idle| idle.parking).is_sorted(), "longest parked first");
            assert!(parked.iter().all(|idle| idle.owner.worker == worker));
            let queue: Vec<_> = self.waiting.iter(&side.queue).collect();
            assert!(
                queue.iter().map(|waiting| waiting.pos).is_sorted(),
                "first come, first served"
            );
            assert!(queue.iter().all(|waiting| waiting.worker == worker));
            assert_eq!(side.waiting as usize, queue.len());
            let admitted = queue.iter().filter(|waiting| waiting.admitted).count();
            assert_eq!(side.admitted as usize, admitted);
            assert_eq!(side.oldest, queue.first().map_or(NOTHING, |first| first.pos.since));
            (idle, waiting) = (idle + parked.len(), waiting + queue.len());
        }
        assert_eq!((idle, waiting), (self.idle.len(), self.waiting.len()));
        assert!(idle <= self.members as usize, "more bridges are parked than connected");
    }

    /// The requests in the queue that nothing has claimed, for tests that keep their own books.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn open_requests(&self) -> Vec<(QueuePos, u64)> {
        let queues = self.sides.iter().flat_map(|side| self.waiting.iter(&side.queue));
        let open = queues.filter(|waiting| waiting.claim.is_open(waiting.id.stamp));
        open.map(|waiting| (waiting.pos, waiting.request)).collect()
    }
}

/// A member of a route that no bound counts; see [`Route::join_exempt`]. To be dropped after the
/// member has left.
#[derive(Debug)]
pub struct Exempt<B>(Arc<Route<B>>);

impl<B> Drop for Exempt<B> {
    fn drop(&mut self) {
        self.0.lock().exempt -= 1;
    }
}
