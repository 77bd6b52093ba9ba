//! What the workers know of one another: which routes there are, and per route and worker how many bridges are parked
//! and how many requests wait. A worker writes its own counts and looks at the others'; everything that is rare (a new
//! route, a retired one) goes through one lock.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::route::RouteSpec;

/// A route without a bridge is kept this long, in microseconds: a deployment that takes all backends away for some
/// minutes loses nothing. 10 minutes.
pub const RETENTION_MICROS: u64 = 10 * 60 * 1_000_000;

/// Routes without a bridge are kept as long as they have no more names than this between them; the longest empty go
/// first. Bounds what a backend can leave behind that registers under ever new names: some 10 MB.
pub const EMPTY_NAMES_MAX: usize = 10_000;

/// After new routes with this many names [`Directory::join`] sweeps by itself, so that the bound above holds between the sweeps
/// of the clock too, at a cost per new route that does not grow.
const NAMES_PER_SWEEP: usize = EMPTY_NAMES_MAX / 10;

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
    fn new(id: u64, spec: RouteSpec, workers: usize, now: u64) -> Self {
        RouteShared {
            id,
            spec,
            membership: Membership { members: AtomicU32::new(0), empty_since: AtomicU64::new(now) },
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

    /// Adds a bridge, unless the route has been retired.
    pub(super) fn try_join(&self) -> bool {
        self.membership
            .members
            .fetch_update(SeqCst, SeqCst, |n| (n != RETIRED).then(|| n + 1))
            .is_ok()
    }

    /// Takes a bridge away that had joined.
    pub(super) fn leave(&self, now: u64) {
        // Before the count falls: whoever finds it at zero finds the right time beside it.
        self.membership.empty_since.store(now, SeqCst);
        let before = self.membership.members.fetch_sub(1, SeqCst);
        debug_assert!(
            before != 0 && before != RETIRED,
            "a bridge left a route that it had not joined"
        );
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

    /// When the route became empty, if it is empty and nobody waits for it.
    fn idle_since(&self) -> Option<u64> {
        (self.membership.members.load(SeqCst) == 0 && self.watch.waiting_workers.load(SeqCst) == 0)
            .then(|| self.membership.empty_since.load(SeqCst))
    }

    /// Ends the route, unless a bridge has joined it meanwhile.
    fn retire(&self) -> bool {
        self.membership.members.compare_exchange(0, RETIRED, SeqCst, SeqCst).is_ok()
    }
}

/// What a worker has to take over into its own tables.
#[derive(Debug)]
pub(super) enum Change {
    /// A route that it does not know yet.
    Added(Arc<RouteShared>),
    /// The route with this id is no more.
    Retired(u64),
}

/// A bridge was refused because one of its hosts has as many bridges as it may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooManyBridges {
    /// The host pattern that is full.
    pub pattern: Box<str>,
}

impl std::fmt::Display for TooManyBridges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "too many bridges for {}", self.pattern)
    }
}

impl std::error::Error for TooManyBridges {}

#[derive(Debug)]
struct Inner {
    routes: HashMap<RouteSpec, Arc<RouteShared>>,
    /// Routes by each of their patterns, for the bound on bridges per host.
    by_pattern: HashMap<Box<str>, Vec<Arc<RouteShared>>>,
    /// Per worker, what it has not taken over yet.
    pending: Box<[VecDeque<Change>]>,
    last_id: u64,
    names_since_sweep: usize,
}

/// All routes of the process. One, shared by the workers.
#[derive(Debug)]
pub struct Directory {
    /// Moves with every change to the set of routes, so that a worker sees by one load that it is up to date.
    version: AtomicU64,
    /// Per worker, the version that it has taken over.
    taken_over: Box<[AtomicU64]>,
    /// Requests waiting, on all workers together, for names that nobody serves.
    pub(super) unserved: AtomicUsize,
    workers: usize,
    inner: Mutex<Inner>,
}

impl Directory {
    /// An empty directory for this many workers, numbered from 0.
    pub fn new(workers: usize) -> Self {
        Directory {
            version: AtomicU64::new(0),
            taken_over: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            unserved: AtomicUsize::new(0),
            workers,
            inner: Mutex::new(Inner {
                routes: HashMap::new(),
                by_pattern: HashMap::new(),
                pending: (0..workers).map(|_| VecDeque::new()).collect(),
                last_id: 0,
                names_since_sweep: 0,
            }),
        }
    }

    /// How many workers share this directory.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Changes to the set of routes so far.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Acquire)
    }

    /// Adds a bridge to the route for `spec`, which is created if need be; then the second value is `true` and the
    /// other workers must be woken, for requests may be waiting there that only this route can serve.
    ///
    /// # Errors
    /// One of the patterns has `max_per_host` bridges already, on whatever routes and workers. 0 stands for no bound.
    pub(super) fn join(
        &self,
        spec: &RouteSpec,
        max_per_host: usize,
        now: u64,
    ) -> Result<(Arc<RouteShared>, bool), TooManyBridges> {
        let mut inner = self.lock();
        if max_per_host > 0 {
            inner.check_bound(spec, max_per_host)?;
        }
        // Routes are retired under the lock only, so one found here can be joined.
        if let Some(shared) = inner.routes.get(spec).filter(|shared| shared.try_join()) {
            return Ok((Arc::clone(shared), false));
        }
        inner.names_since_sweep += spec.patterns().len();
        if inner.names_since_sweep >= NAMES_PER_SWEEP {
            inner.sweep(now);
        }
        inner.last_id += 1;
        let shared = Arc::new(RouteShared::new(inner.last_id, spec.clone(), self.workers, now));
        shared.try_join();
        inner.routes.insert(spec.clone(), Arc::clone(&shared));
        for pattern in spec.patterns() {
            inner.by_pattern.entry(pattern.clone()).or_default().push(Arc::clone(&shared));
        }
        inner.tell_all(|| Change::Added(Arc::clone(&shared)));
        self.version.fetch_add(1, Release);
        Ok((shared, true))
    }

    /// Ends routes that have been without a bridge for [`RETENTION_MICROS`], and the longest empty ones beyond
    /// [`EMPTY_NAMES_MAX`]; never one for which a request waits. `now` is in microseconds. Any worker calls this, every
    /// few seconds. Returns how many routes it ended.
    pub fn sweep(&self, now: u64) -> usize {
        let ended = self.lock().sweep(now);
        if ended > 0 {
            self.version.fetch_add(1, Release);
        }
        ended
    }

    /// All routes, for the info pages.
    pub fn routes(&self) -> Vec<Arc<RouteShared>> {
        self.lock().routes.values().cloned().collect()
    }

    /// Requests waiting, on all workers together, for names that nobody serves.
    pub fn unserved(&self) -> usize {
        self.unserved.load(Relaxed)
    }

    /// Notes that `worker` has taken over every change up to `version`.
    pub(super) fn has_taken_over(&self, worker: usize, version: u64) {
        self.taken_over[worker].store(version, Release);
    }

    /// Whether every worker has taken over every change up to `version`.
    pub(super) fn all_have_taken_over(&self, version: u64) -> bool {
        self.taken_over.iter().all(|taken| taken.load(Acquire) >= version)
    }

    /// Moves what `worker` has not taken over yet into `changes`, and returns the version it is up to date with then.
    pub(super) fn take_changes(&self, worker: usize, changes: &mut Vec<Change>) -> u64 {
        let mut inner = self.lock();
        // Read first: a change that is counted afterwards is looked for once in vain, none is overlooked.
        let version = self.version();
        changes.extend(inner.pending[worker].drain(..));
        version
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A worker that panicked in here leaves at worst a route that is not filed everywhere.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn check_bound(&self, spec: &RouteSpec, max_per_host: usize) -> Result<(), TooManyBridges> {
        let bridges = |pattern: &str| -> usize {
            let routes = self.by_pattern.get(pattern).map_or(&[][..], |routes| routes);
            routes.iter().map(|route| route.members() as usize).sum()
        };
        match spec.patterns().iter().find(|pattern| bridges(pattern) >= max_per_host) {
            Some(pattern) => Err(TooManyBridges { pattern: pattern.clone() }),
            None => Ok(()),
        }
    }

    fn tell_all(&mut self, change: impl Fn() -> Change) {
        for pending in &mut self.pending {
            pending.push_back(change());
        }
    }

    fn sweep(&mut self, now: u64) -> usize {
        self.names_since_sweep = 0;
        let mut empty: Vec<_> = self
            .routes
            .values()
            .filter_map(|shared| Some((shared.idle_since()?, Arc::clone(shared))))
            .collect();
        empty.sort_unstable_by_key(|(since, shared)| (*since, shared.id));
        let mut names = 0;
        let kept = empty.iter().rev().take_while(|(_, shared)| {
            names += shared.spec.patterns().len();
            names <= EMPTY_NAMES_MAX
        });
        let excess = empty.len() - kept.count();
        let due =
            empty.partition_point(|(since, _)| now.saturating_sub(*since) >= RETENTION_MICROS);
        let mut ended = 0;
        for (_, shared) in empty.drain(..due.max(excess)) {
            if !shared.retire() {
                continue;
            }
            self.routes.remove(&shared.spec);
            for pattern in shared.spec.patterns() {
                if let Some(routes) = self.by_pattern.get_mut(pattern) {
                    routes.retain(|other| other.id != shared.id);
                    if routes.is_empty() {
                        self.by_pattern.remove(pattern);
                    }
                }
            }
            self.tell_all(|| Change::Retired(shared.id));
            ended += 1;
        }
        ended
    }
}
