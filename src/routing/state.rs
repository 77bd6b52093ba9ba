//! The state under a route's lock: the bridges parked and the requests waiting on each worker.

use std::time::Duration;

use crate::time::Micros;

use super::claim::Claim;
use super::list::List;
use super::order::{FAIRNESS, QueuePos, WaiterId};

/// A route without a bridge is kept this long, so that a deployment without backends for some
/// minutes loses no request.
pub const RETENTION: Duration = Duration::from_secs(10 * 60);

/// A route that is empty keeps the lines of so many workers: a backend that registers again for
/// every exchange should not pay for them each time.
const FEW_SIDES: usize = 8;

/// How many parked bridges of each worker are looked at for one of another backend. It is done under
/// the route's lock, for a request that is repeated; more than a backend usually has.
const LOOKED_AT: usize = 256;

/// The value of `oldest` on a worker where nothing waits.
const NOTHING: Micros = Micros(u64::MAX);

/// Where a bridge was parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The worker. If it is not the caller's, the bridge has been taken over from it.
    pub worker: usize,
    /// What that worker passed to [`Scheduler::park`].
    pub token: u64,
}

/// An idle bridge's entry in its route, returned by [`super::Scheduler::park`]. Entries are reused,
/// so calls that take a handle also take the bridge's token; if the entry belongs to another bridge
/// by now they find nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleHandle(u32);

#[derive(Debug)]
#[repr(C)]
pub(super) struct RouteState<B> {
    /// Bridges parked on all workers.
    pub(super) idle: u32,
    /// Requests waiting on all workers.
    pub(super) waiting: u32,
    /// Raised by one with each bridge that parks.
    parkings: u64,
    /// By worker, up to the highest worker that has used the route.
    sides: Vec<Side<B>>,
    /// Bridges connected on any worker, parked or not.
    pub(super) members: u32,
    /// Those of them that [`super::Bounds::bridges_per_host`] does not count.
    pub(super) exempt: u32,
    /// When the last member left; meaningful only while there are none.
    pub(super) empty_since: Micros,
    pub(super) keep: Keep,
}

/// What becomes of a route without bridges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// It is no longer pinned: it ends as soon as it is empty.
    Drop,
    /// Its name is remembered for [`RETENTION`].
    Retain,
    /// It stays.
    Pin,
    /// It has ended: nothing may join it or wait for it.
    Retired,
}

/// One worker's part of a route, on a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Side<B> {
    /// Longest parked first.
    idle: List<Idle<B>>,
    /// When the first request in `queue` arrived, or [`NOTHING`].
    oldest: Micros,
    /// Allocated for the first request that waits.
    queue: Option<Box<Queue>>,
}

/// The requests that wait on one worker for one route.
#[derive(Debug, Default)]
struct Queue {
    /// Oldest first.
    entries: List<Waiting>,
    /// Those of them for which [`super::Bounds::per_route`] counts on this route.
    admitted: u32,
}

const _: () = assert!(size_of::<Side<Box<u8>>>() == 64);

impl<B> Default for Side<B> {
    fn default() -> Self {
        Side { idle: List::default(), oldest: NOTHING, queue: None }
    }
}

impl<B> Side<B> {
    /// How many requests wait.
    fn waiting(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.entries.len())
    }

    fn admitted(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.admitted as usize)
    }

    /// Takes a request out with `take`.
    fn remove(
        &mut self,
        take: impl FnOnce(&mut List<Waiting>) -> Option<Waiting>,
    ) -> Option<Waiting> {
        let queue = self.queue.as_deref_mut()?;
        let waiting = take(&mut queue.entries)?;
        queue.admitted -= u32::from(waiting.admitted);
        self.oldest = queue.entries.first().map_or(NOTHING, |first| first.pos.since);
        Some(waiting)
    }
}

/// A parked bridge.
#[derive(Debug)]
struct Idle<B> {
    bridge: B,
    token: u64,
    /// The order of parking on the route.
    parking: u64,
}

/// A request's entry in the queue of one route.
#[derive(Debug)]
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

impl<B> RouteState<B> {
    pub(super) fn new(now: Micros) -> Self {
        RouteState {
            idle: 0,
            waiting: 0,
            parkings: 0,
            sides: Vec::new(),
            members: 0,
            exempt: 0,
            empty_since: now,
            keep: Keep::Retain,
        }
    }

    pub(super) fn is_retired(&self) -> bool {
        self.keep == Keep::Retired
    }

    /// Whether requests may wait for it: a bridge is connected, or the route is kept without one.
    pub(super) fn is_kept(&self) -> bool {
        self.members > 0 || matches!(self.keep, Keep::Retain | Keep::Pin)
    }

    pub(super) fn is_unused(&self) -> bool {
        self.members == 0 && self.waiting == 0
    }

    /// Gives back what is not needed while no bridge is connected and no request waits. A route with
    /// a line for each of many workers is large, and thousands are kept without a bridge.
    pub(super) fn release_memory(&mut self) {
        if self.is_unused() && self.sides.len() > FEW_SIDES {
            self.sides = Vec::new();
        }
    }

    fn side(&mut self, worker: usize) -> &mut Side<B> {
        if self.sides.len() <= worker {
            self.sides.resize_with(worker + 1, Side::default);
        }
        &mut self.sides[worker]
    }

    /// Whether any bridge is parked.
    pub(super) fn has_idle(&self) -> bool {
        self.idle > 0
    }

    /// Parks a bridge. No request may be waiting.
    pub(super) fn push_idle(&mut self, bridge: B, owner: Owner) -> IdleHandle {
        debug_assert!(self.waiting == 0, "a bridge was parked beside a request");
        self.idle += 1;
        self.parkings += 1;
        let idle = Idle { bridge, token: owner.token, parking: self.parkings };
        IdleHandle(self.side(owner.worker).idle.push(idle))
    }

    /// Takes the longest parked bridge of worker `me`, or else of all other workers.
    pub(super) fn take_idle(&mut self, me: usize) -> Option<(B, Owner)> {
        if self.idle == 0 {
            return None;
        }
        let mine = self.sides.get_mut(me).and_then(|side| side.idle.pop());
        let (worker, Idle { bridge, token, .. }) = match mine {
            Some(mine) => (me, mine),
            None => {
                let firsts = self.sides.iter().enumerate();
                let firsts = firsts.filter_map(|(at, side)| Some((side.idle.first()?.parking, at)));
                let (_, worker) = firsts.min()?;
                (worker, self.sides[worker].idle.pop()?)
            }
        };
        self.idle -= 1;
        Some((bridge, Owner { worker, token }))
    }

    /// As [`RouteState::take_idle`], but takes none for which `unwanted` holds, of the first
    /// [`LOOKED_AT`] on each worker.
    pub(super) fn take_other(
        &mut self,
        me: usize,
        unwanted: impl Fn(&B) -> bool,
    ) -> Option<(B, Owner)> {
        let (_, _, worker, key) = self
            .sides
            .iter()
            .enumerate()
            .filter_map(|(worker, side)| {
                let key = side.idle.find(LOOKED_AT, |idle| !unwanted(&idle.bridge))?;
                Some((worker != me, side.idle.get(key)?.parking, worker, key))
            })
            .min()?;
        self.idle -= 1;
        let Idle { bridge, token, .. } = self.sides[worker].idle.remove(key);
        Some((bridge, Owner { worker, token }))
    }

    /// Takes exactly this bridge out, if it is still parked.
    pub(super) fn remove_idle(&mut self, handle: IdleHandle, owner: Owner) -> Option<B> {
        self.idle_mut(handle, owner)?;
        self.idle -= 1;
        Some(self.sides[owner.worker].idle.remove(handle.0).bridge)
    }

    /// Exactly this bridge, if it is still parked.
    pub(super) fn idle_mut(&mut self, handle: IdleHandle, owner: Owner) -> Option<&mut B> {
        let idle = self.sides.get_mut(owner.worker)?.idle.get_mut(handle.0)?;
        (idle.token == owner.token).then_some(&mut idle.bridge)
    }

    /// Whether the queue is full for one more request of worker `me`.
    pub(super) fn is_full(&self, me: usize, per_route: usize, workers: usize) -> bool {
        let mine = self.sides.get(me).map_or(0, Side::admitted);
        let all = || self.sides.iter().map(Side::admitted).sum::<usize>();
        mine >= per_route.div_ceil(workers) && all() >= per_route
    }

    /// Puts a request into the queue. No bridge may be parked.
    pub(super) fn enter(&mut self, waiting: Waiting) -> u32 {
        debug_assert!(self.idle == 0, "a request was queued beside a parked bridge");
        self.waiting += 1;
        let (pos, side) = (waiting.pos, self.side(waiting.worker));
        side.oldest = side.oldest.min(pos.since);
        let queue = side.queue.get_or_insert_default();
        queue.admitted += u32::from(waiting.admitted);
        queue.entries.insert(waiting, |other| other.pos > pos)
    }

    /// Takes a request of worker `me` out, if it is still there.
    pub(super) fn withdraw(&mut self, me: usize, entry: u32, id: WaiterId) {
        let is_it =
            |entries: &List<Waiting>| entries.get(entry).is_some_and(|found| found.id == id);
        let Some(side) = self.sides.get_mut(me) else { return };
        if side.remove(|entries| is_it(entries).then(|| entries.remove(entry))).is_some() {
            self.waiting -= 1;
        }
    }

    /// Takes out the request that a bridge on worker `me` should serve. If it has been claimed
    /// through another route, the caller asks for the next.
    pub(super) fn pop_waiting(&mut self, me: usize) -> Option<Waiting> {
        if self.waiting == 0 {
            return None;
        }
        let worker = self.next_served(me);
        let waiting = self.sides.get_mut(worker)?.remove(List::pop)?;
        self.waiting -= 1;
        Some(waiting)
    }

    /// The worker whose oldest request a bridge on worker `me` serves. Some request must be
    /// waiting.
    fn next_served(&self, me: usize) -> usize {
        let (mine, here) =
            self.sides.get(me).map_or((NOTHING, 0), |side| (side.oldest, side.waiting()));
        if here == self.waiting as usize {
            return me;
        }
        let elsewhere = self.sides.iter().enumerate().filter(|(worker, _)| *worker != me);
        let oldest = elsewhere.map(|(worker, side)| (side.oldest, worker)).min();
        let Some((oldest, worker)) = oldest else { return me };
        if mine == NOTHING || mine.since(oldest) > FAIRNESS { worker } else { me }
    }

    /// When the request that has waited longest arrived.
    pub(super) fn oldest(&self) -> Option<Micros> {
        self.sides.iter().map(|side| side.oldest).filter(|oldest| *oldest != NOTHING).min()
    }

    /// Requests in the queue that wait on worker `me`.
    pub(super) fn waiting_on(&self, me: usize) -> usize {
        self.sides.get(me).map_or(0, Side::waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl<B> Side<B> {
        fn entries(&self) -> impl Iterator<Item = &Waiting> {
            self.queue.iter().flat_map(|queue| queue.entries.iter())
        }
    }

    impl<B> RouteState<B> {
        /// What must hold whenever the lock is free.
        pub(in crate::routing) fn check(&self) {
            assert!(self.waiting == 0 || self.idle == 0, "a request waits beside a bridge");
            assert!(self.idle <= self.members, "more bridges are parked than connected");
            assert!(!self.is_retired() || self.is_unused());
            for (worker, side) in self.sides.iter().enumerate() {
                let parked: Vec<_> = side.idle.iter().collect();
                assert!(parked.iter().map(|idle| idle.parking).is_sorted(), "longest parked first");
                let queue: Vec<_> = side.entries().collect();
                assert!(
                    queue.iter().map(|waiting| waiting.pos).is_sorted(),
                    "first come, first served"
                );
                assert!(queue.iter().all(|waiting| waiting.worker == worker));
                assert_eq!(
                    side.admitted(),
                    queue.iter().filter(|waiting| waiting.admitted).count()
                );
                assert_eq!(side.oldest, queue.first().map_or(NOTHING, |first| first.pos.since));
            }
            assert_eq!(
                self.sides.iter().map(|side| side.idle.len()).sum::<usize>(),
                self.idle as usize
            );
            assert_eq!(self.sides.iter().map(Side::waiting).sum::<usize>(), self.waiting as usize);
        }

        /// The requests in the queue that nothing has claimed.
        pub(in crate::routing) fn open_requests(&self) -> Vec<(QueuePos, u64)> {
            let queues = self.sides.iter().flat_map(Side::entries);
            let open = queues.filter(|waiting| waiting.claim.is_open(waiting.id.stamp));
            open.map(|waiting| (waiting.pos, waiting.request)).collect()
        }
    }
}
