//! What happens on one worker: requests arrive, wait and leave; bridges park, serve and leave.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering::*;

use slab::Slab;

use super::arrival::{Admission, Begun};
use super::directory::{Change, Directory};
use super::elsewhere::Wants;
use super::index::Index;
use super::parked::{Line, ParkedBridges, Ticket};
use super::published::{NOBODY, RouteShared};
use super::queue::WaitQueue;
use super::route::Target;
use super::waiters::{WaiterId, Waiters};
use super::{Arrival, Bounds, Mail, Match, Parking, Place, RouteId};

/// A route as this worker has it.
#[derive(Debug)]
pub(super) struct LocalRoute {
    pub(super) shared: Arc<RouteShared>,
    pub(super) generation: u32,
    pub(super) queue: WaitQueue,
    /// While requests are in `queue` nobody stands here.
    pub(super) line: Line,
    /// Requests in `queue` that stopped here; see [`Standing::Held`].
    pub(super) held: usize,
    /// Requests here for which this is the most specific route.
    pub(super) admitted: u32,
    /// Our unanswered [`Mail::Want`].
    pub(super) wants: Wants,
    /// Requests elsewhere are known to have arrived at this time or later, as long as `unrest` is the route's.
    pub(super) horizon: u64,
    pub(super) unrest: u32,
}

/// Numbers for the statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that wait on this worker now, `unserved` included.
    pub waiting: usize,
    /// Those of them whose name nobody serves.
    pub unserved: usize,
    /// Bridges parked on this worker now.
    pub parked: usize,
    /// Bridges that this worker has sent to others since it started.
    pub moves: u64,
}

/// One worker's side of the matching. See the module's account of the rule that it keeps.
///
/// Calls may leave something to do behind: after each, take mail for other workers from [`Lobby::next_mail`], and after
/// those that say so, matches from [`Lobby::next_match`], until both are empty.
#[derive(Debug)]
pub struct Lobby {
    pub(super) me: usize,
    pub(super) directory: Arc<Directory>,
    pub(super) bounds: Bounds,
    /// The directory's version that `routes` and `index` are up to date with.
    pub(super) version: u64,
    pub(super) routes: Slab<LocalRoute>,
    pub(super) by_id: HashMap<u64, u32>,
    pub(super) index: Index,
    pub(super) generation: u32,
    pub(super) waiters: Waiters,
    pub(super) parked: ParkedBridges,
    pub(super) last_seq: u64,
    pub(super) unserved: usize,
    pub(super) moves: u64,
    pub(super) outbox: VecDeque<(usize, Mail)>,
    pub(super) matches: VecDeque<Match>,
    /// Kept for their memory, empty between calls.
    pub(super) scratch: Scratch,
}

#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) candidates: Vec<u32>,
    pub(super) waiters: Vec<u32>,
    pub(super) changes: Vec<Change>,
}

impl Lobby {
    /// The lobby of worker `me`, counted from 0.
    ///
    /// # Panics
    /// If the directory was made for fewer workers.
    pub fn new(me: usize, directory: Arc<Directory>, bounds: Bounds) -> Self {
        assert!(me < directory.workers(), "worker {me} of {}", directory.workers());
        Lobby {
            me,
            directory,
            bounds,
            version: 0,
            routes: Slab::new(),
            by_id: HashMap::new(),
            index: Index::default(),
            generation: 0,
            waiters: Waiters::default(),
            parked: ParkedBridges::default(),
            last_seq: 0,
            unserved: 0,
            moves: 0,
            outbox: VecDeque::new(),
            matches: VecDeque::new(),
            scratch: Scratch::default(),
        }
    }

    /// Puts other bounds in force. Who waits already goes on waiting.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// The next message to send, and to which worker.
    pub fn next_mail(&mut self) -> Option<(usize, Mail)> {
        self.outbox.pop_front()
    }

    /// The next pair that found each other without being asked.
    pub fn next_match(&mut self) -> Option<Match> {
        self.matches.pop_front()
    }

    /// Numbers for the statistics.
    pub fn counters(&self) -> Counters {
        Counters {
            waiting: self.waiters.len(),
            unserved: self.unserved,
            parked: self.parked.len(),
            moves: self.moves,
        }
    }

    /// The route as the directory has it: its spec, and its id for messages to other workers.
    ///
    /// # Panics
    /// If no bridge is on the route any more and it has been retired.
    pub fn shared(&self, route: RouteId) -> &Arc<RouteShared> {
        &self.routes[self.resolve(route) as usize].shared
    }

    /// A request for `target` arrives at `now`, in microseconds.
    pub fn arrive(&mut self, request: u64, target: &Target<'_>, now: u64) -> Arrival {
        self.last_seq += 1;
        let place = Place { seq: self.last_seq, since: now };
        match self.begin_arrival(request, place, target, Admission::Bounded) {
            Begun::Over(arrival) => arrival,
            Begun::Waiter(key) => self.finish_arrival(key),
        }
    }

    /// A request comes back because its bridge failed before anything was lost. It has its old place in the order, and
    /// the bounds do not apply to it: it had been let in.
    pub fn return_to_queue(&mut self, request: u64, place: Place, target: &Target<'_>) -> Arrival {
        match self.begin_arrival(request, place, target, Admission::Returning) {
            Begun::Over(arrival) => arrival,
            Begun::Waiter(key) => self.finish_arrival(key),
        }
    }

    /// Whether a bridge that could serve `target` is connected, parked or in an exchange, on any worker.
    pub fn has_bridge(&self, target: &Target<'_>) -> bool {
        self.any_route(target, |route| route.members() > 0)
    }

    /// Whether a request for `target` has something to wait for: a route that has bridges, had some not long ago, or
    /// is pinned.
    pub fn knows(&self, target: &Target<'_>) -> bool {
        self.any_route(target, RouteShared::is_kept)
    }

    fn any_route(&self, target: &Target<'_>, which: impl Fn(&RouteShared) -> bool) -> bool {
        let found = self.index.visit(target, |r| match which(&self.routes[r as usize].shared) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        });
        found.is_break()
    }

    /// A waiting request's client has left, or its time is up. Returns whether it was waiting.
    pub fn forget(&mut self, waiter: WaiterId) -> bool {
        self.recall(waiter).is_some()
    }

    /// A waiting request is to be looked at anew. Returns its place, for [`Lobby::return_to_queue`]; `None` if it does
    /// not wait any more.
    pub fn recall(&mut self, waiter: WaiterId) -> Option<Place> {
        let waits = self.waiters.contains(waiter);
        waits.then(|| self.take_waiter(waiter.key).1)
    }

    /// A bridge that is connected to this worker is ready for a request. `now` is in microseconds.
    pub fn park(&mut self, route: RouteId, bridge: u64, now: u64) -> Parking {
        match self.begin_park(self.resolve(route), bridge, now) {
            Parking::Parked(ticket) => self.finish_park(ticket),
            parking => parking,
        }
    }

    /// A parked bridge dies or leaves. Returns whether it was parked.
    pub fn unpark(&mut self, ticket: Ticket) -> bool {
        let Some(r) = self.parked.route_of(ticket) else {
            return false;
        };
        self.parked.remove(&mut self.routes[r as usize].line, ticket);
        self.publish_parked(r);
        true
    }

    /// First step of parking: a request that waits here, or an older one elsewhere, or a place in line for all to see.
    pub(super) fn begin_park(&mut self, r: u32, bridge: u64, now: u64) -> Parking {
        if let Some(first) = self.routes[r as usize].queue.front() {
            if let Some(to) = self.promise_to_elder(r, now) {
                return self.send(r, to);
            }
            let (request, place) = self.take_waiter(first.waiter);
            return Parking::Serve { request, place };
        }
        let ticket = self.parked.push(&mut self.routes[r as usize].line, r, bridge);
        self.publish_parked(r);
        Parking::Parked(ticket)
    }

    /// Second step of parking: the bridge, published, looks whether a request waits elsewhere.
    pub(super) fn finish_park(&mut self, ticket: Ticket) -> Parking {
        let Some(r) = self.parked.route_of(ticket) else {
            return Parking::Parked(ticket);
        };
        match self.promise_to_oldest(r) {
            Some(to) => {
                self.unpark(ticket);
                self.send(r, to)
            }
            None => Parking::Parked(ticket),
        }
    }

    /// Takes the longest parked bridge out of a line that is not empty.
    pub(super) fn take_parked(&mut self, r: u32) -> u64 {
        let bridge = self.parked.pop_longest(&mut self.routes[r as usize].line);
        self.publish_parked(r);
        bridge.expect("a bridge is parked on this route")
    }

    /// Takes a request out of every queue and forgets it.
    pub(super) fn take_waiter(&mut self, key: u32) -> (u64, Place) {
        self.count_out(key);
        if let Some(r) = self.waiters[key].held_at() {
            self.routes[r as usize].held -= 1;
        }
        let Place { seq, .. } = self.waiters[key].place;
        for at in 0..self.waiters[key].entered {
            let r = self.waiters[key].candidates()[at];
            let was_here = self.routes[r as usize].queue.remove(seq);
            debug_assert!(was_here, "a waiter was not in a queue it had entered");
            self.publish_waiting(r);
        }
        let (request, place) = (self.waiters[key].request, self.waiters[key].place);
        self.waiters.remove(key);
        (request, place)
    }

    /// Tells the others how many bridges are parked here.
    fn publish_parked(&self, r: u32) {
        let route = &self.routes[r as usize];
        route.shared.cells[self.me].supply.parked.store(route.line.len(), SeqCst);
    }

    /// Tells the others how many requests wait here, and since when.
    pub(super) fn publish_waiting(&self, r: u32) {
        let route = &self.routes[r as usize];
        let demand = &route.shared.cells[self.me].demand;
        let before = demand.waiting.load(Relaxed);
        let now = route.queue.len() as u32;
        demand.oldest.store(route.queue.front().map_or(NOBODY, |first| first.since), SeqCst);
        demand.waiting.store(now, SeqCst);
        // Last: who reads that somebody waits finds who it is.
        if before == 0 && now > 0 {
            route.shared.watch.waiting_workers.fetch_add(1, SeqCst);
        } else if before > 0 && now == 0 {
            route.shared.watch.waiting_workers.fetch_sub(1, SeqCst);
        }
    }

    /// The name of a route for the world outside.
    pub(super) fn name(&self, r: u32) -> RouteId {
        RouteId { key: r, generation: self.routes[r as usize].generation }
    }

    /// The key of a route on which there is a bridge; such a route is not retired, so it is known.
    pub(super) fn resolve(&self, route: RouteId) -> u32 {
        let known = self
            .routes
            .get(route.key as usize)
            .is_some_and(|local| local.generation == route.generation);
        assert!(known, "a bridge names a route that has been retired");
        route.key
    }
}
