//! What the workers know of one another: per route and worker how many bridges are parked and how many requests wait. A
//! worker writes its own counts and looks at the others'.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::*};

use super::directory::RETENTION_MICROS;
use super::route::RouteSpec;

/// `members` of a route that has been retired: nobody may join it any more.
const RETIRED: u32 = u32::MAX;

/// `oldest` of a worker where nobody waits.
pub(super) const NOBODY: u64 = u64::MAX;

/// One worker's parked bridges of one route, on a cache line of its own: it changes with every request that finds a
/// bridge parked, and nobody else reads it then.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Supply {
    pub(super) parked: AtomicU32,
}

/// One worker's waiting requests on one route. Not on the line of [`Supply`]: while nobody waits it does not change.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Demand {
    /// Requests in this worker's queue.
    pub(super) waiting: AtomicU32,
    /// Bridges that others have sent to this worker and that have not come in. Raised by the sender, who thereby
    /// promises one; lowered by the receiver. While `waiting` is above it, another bridge is of use there.
    pub(super) incoming: AtomicU32,
    /// When the longest waiting request arrived, in microseconds; [`NOBODY`] if none waits.
    pub(super) oldest: AtomicU64,
    /// Requests in this worker's queue for which this is the most specific route. Only for the bound on queues.
    pub(super) admitted: AtomicU32,
}

impl Demand {
    fn new() -> Self {
        Demand {
            waiting: AtomicU32::new(0),
            incoming: AtomicU32::new(0),
            oldest: AtomicU64::new(NOBODY),
            admitted: AtomicU32::new(0),
        }
    }
}

#[derive(Debug)]
pub(super) struct Cell {
    pub(super) supply: Supply,
    pub(super) demand: Demand,
}

/// What a worker that parks a bridge looks at. One line that stays in every core's cache while nobody waits.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Watch {
    /// How many workers have `waiting` above zero.
    pub(super) waiting_workers: AtomicU32,
    /// Counts the times that a request entered a queue with an arrival in the past (it came back, or a new route
    /// adopted it): what was known about the age of the others' requests is void then.
    pub(super) unrest: AtomicU32,
}

#[derive(Debug)]
#[repr(align(64))]
struct Membership {
    /// Bridges connected on any worker, parked or not; [`RETIRED`] at the end.
    members: AtomicU32,
    /// When the last bridge left, in microseconds. Means something only while there are no members.
    empty_since: AtomicU64,
    /// A [`Keep`]: what becomes of the route once it has no members.
    keep: AtomicU8,
    /// How many of the members [`super::Bounds::bridges_per_host`] does not count: nobody has sent them here.
    exempt: AtomicU32,
}

/// What becomes of a route without bridges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Keep {
    /// It was pinned and is not any more: it ends as soon as it is empty.
    Drop,
    /// Its name is remembered for [`RETENTION_MICROS`].
    Retain,
    /// It stays.
    Pin,
}

/// One route, as all workers share it.
#[derive(Debug)]
pub struct RouteShared {
    id: u64,
    spec: RouteSpec,
    membership: Membership,
    pub(super) watch: Watch,
    pub(super) cells: Box<[Cell]>,
}

impl RouteShared {
    pub(super) fn new(id: u64, spec: RouteSpec, workers: usize, now: u64) -> Self {
        RouteShared {
            id,
            spec,
            membership: Membership {
                members: AtomicU32::new(0),
                empty_since: AtomicU64::new(now),
                keep: AtomicU8::new(Keep::Retain as u8),
                exempt: AtomicU32::new(0),
            },
            watch: Watch::default(),
            cells: (0..workers)
                .map(|_| Cell { supply: Supply::default(), demand: Demand::new() })
                .collect(),
        }
    }

    /// The number by which messages between workers name this route. Never used again for another.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What the route's bridges serve.
    pub fn spec(&self) -> &RouteSpec {
        &self.spec
    }

    /// Bridges connected on any worker, parked or in an exchange.
    pub fn members(&self) -> u32 {
        match self.membership.members.load(SeqCst) {
            RETIRED => 0,
            members => members,
        }
    }

    /// When the last bridge left it, in microseconds, if [`RouteShared::members`] has just been 0.
    pub fn empty_since(&self) -> u64 {
        self.membership.empty_since.load(SeqCst)
    }

    /// Whether a request for it waits although no bridge is connected, or one is.
    pub(super) fn is_kept(&self) -> bool {
        self.members() > 0 || self.membership.keep.load(Relaxed) != Keep::Drop as u8
    }

    /// Keeps the route although it has no bridge.
    pub(super) fn pin(&self) {
        self.membership.keep.store(Keep::Pin as u8, Relaxed);
    }

    /// Has a route that is pinned end with its last bridge.
    pub(super) fn unpin(&self) {
        let (pin, drop) = (Keep::Pin as u8, Keep::Drop as u8);
        // It fails for a route that is not pinned.
        let _ = self.membership.keep.compare_exchange(pin, drop, Relaxed, Relaxed);
    }

    /// Bridges parked on any worker. A sum of counts read one after the other: for people, not for decisions.
    pub fn parked(&self) -> u32 {
        self.cells.iter().map(|cell| cell.supply.parked.load(Relaxed)).sum()
    }

    /// Requests waiting on any worker; one that several routes could serve is counted on each. For people, too.
    pub fn waiting(&self) -> u32 {
        self.cells.iter().map(|cell| cell.demand.waiting.load(Relaxed)).sum()
    }

    /// Requests waiting on any worker for which this is the most specific route.
    pub(super) fn admitted(&self) -> u32 {
        self.cells.iter().map(|cell| cell.demand.admitted.load(Relaxed)).sum()
    }

    /// Adds a bridge, unless the route has been retired. One that was to be dropped is remembered again after it.
    pub(super) fn try_join(&self) -> bool {
        let keep = &self.membership.keep;
        let (drop, retain) = (Keep::Drop as u8, Keep::Retain as u8);
        if keep.load(Relaxed) == drop {
            let _ = keep.compare_exchange(drop, retain, Relaxed, Relaxed);
        }
        self.membership
            .members
            .fetch_update(SeqCst, SeqCst, |n| (n != RETIRED).then(|| n + 1))
            .is_ok()
    }

    /// Takes a bridge away that had joined. `now` is in microseconds.
    pub fn leave(&self, now: u64) {
        // Before the count falls: whoever finds it at zero finds the right time beside it.
        self.membership.empty_since.store(now, SeqCst);
        let before = self.membership.members.fetch_sub(1, SeqCst);
        debug_assert!(
            before != 0 && before != RETIRED,
            "a bridge left a route that it had not joined"
        );
    }

    /// Adds a member that [`super::Bounds::bridges_per_host`] does not count as long as the answer lives: a connection
    /// that the proxy itself has opened, or the knowledge that one could be. The route must be pinned, or have members.
    /// It leaves as any member does.
    pub fn join_exempt(self: &Arc<Self>) -> Exempt {
        self.membership.exempt.fetch_add(1, SeqCst);
        let joined = self.try_join();
        debug_assert!(joined, "a route that was pinned has been retired");
        Exempt(Arc::clone(self))
    }

    /// The members that count.
    pub(super) fn counted(&self) -> u32 {
        self.members().saturating_sub(self.membership.exempt.load(SeqCst))
    }

    /// Promises worker `to` a bridge, if it has a request waiting that nothing on its way would serve.
    /// After `true` the bridge must be sent, or the promise taken back by [`super::Mail::Lost`].
    pub(super) fn promise(&self, to: usize) -> bool {
        let demand = &self.cells[to].demand;
        demand
            .incoming
            .fetch_update(SeqCst, SeqCst, |coming| {
                (demand.waiting.load(SeqCst) > coming).then(|| coming + 1)
            })
            .is_ok()
    }

    /// Until when the route is kept, in microseconds, if it is empty, nobody waits for it and it is not pinned.
    pub(super) fn kept_until(&self) -> Option<u64> {
        let Membership { members, empty_since, keep, .. } = &self.membership;
        let keep = keep.load(Relaxed);
        let idle = members.load(SeqCst) == 0 && self.watch.waiting_workers.load(SeqCst) == 0;
        match idle && keep != Keep::Pin as u8 {
            true if keep == Keep::Drop as u8 => Some(0),
            true => Some(empty_since.load(SeqCst).saturating_add(RETENTION_MICROS)),
            false => None,
        }
    }

    /// Ends the route, unless a bridge has joined it meanwhile.
    pub(super) fn retire(&self) -> bool {
        self.membership.members.compare_exchange(0, RETIRED, SeqCst, SeqCst).is_ok()
    }
}

/// A member of a route that no bound counts; see [`RouteShared::join_exempt`]. To be dropped after the member has left.
#[derive(Debug)]
pub struct Exempt(Arc<RouteShared>);

impl Drop for Exempt {
    fn drop(&mut self) {
        self.0.membership.exempt.fetch_sub(1, SeqCst);
    }
}
