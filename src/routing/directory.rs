//! Which routes there are, for all workers. Everything that is rare (a new route, a retired one) goes through one lock.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::published::RouteShared;
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
        let shared = inner.create(spec, self.workers, now);
        shared.try_join();
        self.version.fetch_add(1, Release);
        Ok((shared, true))
    }

    /// Pins the routes for these specs, which are created if need be, and no others: a pinned route stays without a
    /// bridge, and requests wait for it. One that was pinned before and is not now ends with its last bridge. The
    /// workers must be woken. `now` is in microseconds.
    pub fn pin(&self, specs: &[RouteSpec], now: u64) {
        let mut inner = self.lock();
        let mut pinned = HashSet::new();
        for spec in specs {
            let shared = match inner.routes.get(spec) {
                Some(known) => Arc::clone(known),
                None => inner.create(spec, self.workers, now),
            };
            shared.pin();
            pinned.insert(shared.id());
        }
        let others = inner.routes.values().filter(|shared| !pinned.contains(&shared.id()));
        others.for_each(|shared| shared.unpin());
        inner.sweep(now);
        self.version.fetch_add(1, Release);
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

    /// The route for `spec`, if there is one.
    pub fn route(&self, spec: &RouteSpec) -> Option<Arc<RouteShared>> {
        self.lock().routes.get(spec).cloned()
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
    /// A new route, for all workers to take over.
    fn create(&mut self, spec: &RouteSpec, workers: usize, now: u64) -> Arc<RouteShared> {
        self.last_id += 1;
        let shared = Arc::new(RouteShared::new(self.last_id, spec.clone(), workers, now));
        self.routes.insert(spec.clone(), Arc::clone(&shared));
        for pattern in spec.patterns() {
            self.by_pattern.entry(pattern.clone()).or_default().push(Arc::clone(&shared));
        }
        self.tell_all(|| Change::Added(Arc::clone(&shared)));
        shared
    }

    fn check_bound(&self, spec: &RouteSpec, max_per_host: usize) -> Result<(), TooManyBridges> {
        let bridges = |pattern: &str| -> usize {
            let routes = self.by_pattern.get(pattern).map_or(&[][..], |routes| routes);
            routes.iter().map(|route| route.counted() as usize).sum()
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
            .filter_map(|shared| Some((shared.kept_until()?, Arc::clone(shared))))
            .collect();
        empty.sort_unstable_by_key(|(until, shared)| (*until, shared.id()));
        let mut names = 0;
        let kept = empty.iter().rev().take_while(|(_, shared)| {
            names += shared.spec().patterns().len();
            names <= EMPTY_NAMES_MAX
        });
        let excess = empty.len() - kept.count();
        let due = empty.partition_point(|(until, _)| *until <= now);
        let mut ended = 0;
        for (_, shared) in empty.drain(..due.max(excess)) {
            if !shared.retire() {
                continue;
            }
            self.routes.remove(shared.spec());
            for pattern in shared.spec().patterns() {
                if let Some(routes) = self.by_pattern.get_mut(pattern) {
                    routes.retain(|other| other.id() != shared.id());
                    if routes.is_empty() {
                        self.by_pattern.remove(pattern);
                    }
                }
            }
            self.tell_all(|| Change::Retired(shared.id()));
            ended += 1;
        }
        ended
    }
}
