//! All routes, for all workers. Rare events (a new route, a retired one) go through one lock.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::http::Predicates;
use crate::time::Micros;

use super::route::{Exempt, Route};
use super::spec::{RouteQuery, RouteSpec};

/// Routes without a bridge are kept while they have no more names than this in total; the longest
/// empty are retired first. Bounds what a backend that registers under ever new names can leave
/// behind: some 5 MB, and 100 bytes for each name and worker. The longest predicates add 4 KB to each
/// route, and each has the instances that have left it within a minute (`instances.rs`).
pub const EMPTY_NAMES_MAX: usize = 10_000;

/// Most entries of such names in the indexes of all workers together, some 16 MB: with more than 16
/// workers fewer names are kept.
const EMPTY_ENTRIES_MAX: usize = 16 * EMPTY_NAMES_MAX;

/// After new routes with one in this many of the names that may be kept, [`Directory::join`] sweeps
/// by itself, so that the bound above also holds between the timed sweeps, at a constant cost per
/// new route.
const NAMES_PER_SWEEP: usize = 10;

/// Most routes with predicates under one host pattern, those without a bridge included, and most
/// predicates of them together. A request for the host is compared with all of them.
const LANES_MAX: usize = 256;
const PREDICATES_MAX: usize = 512;

/// What a worker must take over into its own index.
#[derive(Debug)]
pub(super) enum Change<B> {
    Added(Arc<Route<B>>),
    Retired(Arc<Route<B>>),
}

/// A bridge was refused because one of its hosts has reached its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooManyBridges {
    /// The host pattern at its limit.
    pub pattern: Arc<str>,
    /// It is the limit of routes with predicates, or of their predicates.
    pub predicates: bool,
}

impl std::fmt::Display for TooManyBridges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.predicates {
            false => write!(f, "too many bridges for {}", self.pattern),
            true => write!(f, "too many predicates for {}", self.pattern),
        }
    }
}

impl std::error::Error for TooManyBridges {}

#[derive(Debug)]
struct Inner<B> {
    routes: HashMap<RouteSpec, Arc<Route<B>>>,
    /// Routes by each of their patterns, for the bound on bridges per host.
    by_pattern: HashMap<Arc<str>, Vec<Arc<Route<B>>>>,
    /// The latest changes, up to the directory's version, without those that every worker knows.
    changes: VecDeque<Arc<Change<B>>>,
    last_id: u64,
    names_since_sweep: usize,
}

/// All routes of the process, shared by the workers.
#[derive(Debug)]
pub struct Directory<B> {
    /// How many times the set of routes has changed, so that one load tells a worker whether it is
    /// up to date.
    version: AtomicU64,
    /// Per worker, the version that it has taken over.
    known: Box<[AtomicU64]>,
    /// Most names of routes without a bridge.
    empty_names_max: usize,
    /// Requests waiting, on all workers together, for names that nobody serves.
    pub(super) unserved: AtomicUsize,
    inner: Mutex<Inner<B>>,
}

impl<B> Directory<B> {
    /// An empty directory for this many workers, numbered from 0.
    pub fn new(workers: usize) -> Self {
        Directory {
            version: AtomicU64::new(0),
            known: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            empty_names_max: EMPTY_NAMES_MAX.min(EMPTY_ENTRIES_MAX / workers.max(1)),
            unserved: AtomicUsize::new(0),
            inner: Mutex::new(Inner {
                routes: HashMap::new(),
                by_pattern: HashMap::new(),
                changes: VecDeque::new(),
                last_id: 0,
                names_since_sweep: 0,
            }),
        }
    }

    /// How many workers share this directory.
    pub fn workers(&self) -> usize {
        self.known.len()
    }

    /// Changes to the set of routes so far.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Acquire)
    }

    /// Adds a bridge to the route for `spec`. Creates the route if it does not exist; then the
    /// second value is true.
    ///
    /// # Errors
    /// One of the patterns already has `max_per_host` bridges on all routes and workers together; 0
    /// means no bound. Or the route would be new, and a pattern has as many predicates, or routes with
    /// some, as may be.
    pub(super) fn join(
        &self,
        spec: &RouteSpec,
        max_per_host: usize,
        now: Micros,
    ) -> Result<(Arc<Route<B>>, bool), TooManyBridges> {
        let mut inner = self.lock();
        if max_per_host > 0 {
            inner.check_bound(spec, max_per_host)?;
        }
        // Routes are retired under the lock only, so one found here can be joined.
        if let Some(route) = inner.routes.get(spec).filter(|route| route.try_join()) {
            return Ok((Arc::clone(route), false));
        }
        inner.check_lanes(spec)?;
        inner.names_since_sweep += spec.patterns().len();
        if inner.names_since_sweep >= self.empty_names_max / NAMES_PER_SWEEP {
            self.sweep_locked(&mut inner, now);
        }
        let route = self.create(&mut inner, spec, now);
        route.try_join();
        Ok((route, true))
    }

    /// As [`Route::join_exempt`], for a route that need not exist. The last value is true if it did
    /// not; then the workers must be woken.
    pub fn join_exempt(&self, spec: &RouteSpec, now: Micros) -> (Arc<Route<B>>, Exempt<B>, bool) {
        let mut inner = self.lock();
        let known = inner.routes.get(spec).filter(|route| !route.lock().is_retired()).cloned();
        let is_new = known.is_none();
        // Under the lock: it cannot be retired meanwhile.
        let route = known.unwrap_or_else(|| self.create(&mut inner, spec, now));
        let member = route.join_exempt();
        (route, member, is_new)
    }

    /// Pins the routes for these specs, created if they do not exist, and no others: a pinned route
    /// stays even without a bridge, and requests wait for it. A route that is no longer pinned ends
    /// with its last bridge. The caller must wake the workers.
    pub fn pin(&self, specs: &[RouteSpec], now: Micros) {
        let mut inner = self.lock();
        let mut pinned = HashSet::new();
        for spec in specs {
            let known = inner.routes.get(spec).cloned();
            let route = known.unwrap_or_else(|| self.create(&mut inner, spec, now));
            pinned.insert(route.id());
            route.set_pinned(true);
        }
        let others = inner.routes.values().filter(|route| !pinned.contains(&route.id()));
        others.for_each(|route| route.set_pinned(false));
        self.sweep_locked(&mut inner, now);
    }

    /// Retires routes that have had no bridge for [`RETENTION`], and the longest empty ones beyond
    /// [`EMPTY_NAMES_MAX`]; never one for which a request waits. Any worker may call this, every
    /// few seconds. Returns how many routes it retired.
    pub fn sweep(&self, now: Micros) -> usize {
        self.sweep_locked(&mut self.lock(), now)
    }

    /// The route for `spec`, if there is one.
    pub fn route(&self, spec: &RouteSpec) -> Option<Arc<Route<B>>> {
        self.lock().routes.get(spec).cloned()
    }

    /// All routes, for the info pages.
    pub fn routes(&self) -> Vec<Arc<Route<B>>> {
        self.lock().routes.values().cloned().collect()
    }

    /// How many bridges that could serve `query` are connected on any worker, parked or in an
    /// exchange. For rare questions of other threads; a worker's scheduler knows it faster.
    pub fn members_for(&self, query: &RouteQuery<'_>) -> u32 {
        let mut found: Vec<Arc<Route<B>>> = Vec::new();
        let mut served = false;
        let inner = self.lock();
        // As the index visits them.
        for pattern in patterns_of(query.host) {
            for route in inner.under(&pattern) {
                let spec = route.spec();
                let is_known = || found.iter().any(|known| Arc::ptr_eq(known, route));
                let serves = spec.paths().have(query.path) && !(served && spec.is_confined());
                if serves && !is_known() && query.meets(spec) {
                    found.push(Arc::clone(route));
                }
            }
            served |= !inner.under(&pattern).is_empty();
        }
        drop(inner);
        found.iter().map(|route| route.members()).sum()
    }

    /// The names that bridges serve, or this many of them; and whether these are all.
    pub fn some_names(&self, most: usize) -> (BTreeSet<Arc<str>>, bool) {
        let inner = self.lock();
        let mut names = BTreeSet::new();
        let routes = inner.routes.values().filter(|route| route.members() > 0);
        for name in routes.flat_map(|route| route.spec().patterns()) {
            if names.len() == most && !names.contains(name) {
                return (names, false);
            }
            names.insert(Arc::clone(name));
        }
        (names, true)
    }

    /// Requests waiting, on all workers together, for names that nobody serves.
    pub fn unserved(&self) -> usize {
        self.unserved.load(Relaxed)
    }

    /// Notes that `worker` has taken over every change up to `version`.
    pub(super) fn set_known(&self, worker: usize, version: u64) {
        self.known[worker].store(version, Release);
    }

    /// Whether every worker has taken over every change up to `version`.
    pub(super) fn all_know(&self, version: u64) -> bool {
        self.known.iter().all(|known| known.load(Acquire) >= version)
    }

    /// Adds to `changes` those since `version`, and returns the version that they lead to.
    pub(super) fn changes_since(&self, version: u64, changes: &mut Vec<Arc<Change<B>>>) -> u64 {
        let inner = self.lock();
        let now = self.version();
        let first = inner.changes.len() - (now - version) as usize;
        changes.extend(inner.changes.range(first..).cloned());
        now
    }

    fn lock(&self) -> MutexGuard<'_, Inner<B>> {
        // A panic under the lock leaves at worst a route that is not filed everywhere.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new route, for all workers to take over.
    fn create(&self, inner: &mut Inner<B>, spec: &RouteSpec, now: Micros) -> Arc<Route<B>> {
        inner.last_id += 1;
        let route = Arc::new(Route::new(inner.last_id, spec.clone(), now));
        inner.routes.insert(spec.clone(), Arc::clone(&route));
        for pattern in spec.patterns() {
            let routes = inner.by_pattern.entry(Arc::clone(pattern)).or_default();
            routes.push(Arc::clone(&route));
        }
        self.publish(inner, Change::Added(Arc::clone(&route)));
        route
    }

    fn publish(&self, inner: &mut Inner<B>, change: Change<B>) {
        let known = self.known.iter().map(|known| known.load(Acquire)).min();
        let first = self.version() - inner.changes.len() as u64;
        let dropped = known.map_or(0, |known| (known - first) as usize);
        inner.changes.drain(..dropped);
        inner.changes.push_back(Arc::new(change));
        self.version.fetch_add(1, Release);
    }

    fn sweep_locked(&self, inner: &mut Inner<B>, now: Micros) -> usize {
        inner.names_since_sweep = 0;
        let mut empty: Vec<_> = inner
            .routes
            .values()
            .filter_map(|route| {
                route.forget_late(now);
                Some((route.kept_until()?, Arc::clone(route)))
            })
            .collect();
        empty.sort_unstable_by_key(|(until, route)| (*until, route.id()));
        let mut names = 0;
        let kept = empty.iter().rev().take_while(|(_, route)| {
            names += route.spec().patterns().len();
            names <= self.empty_names_max
        });
        let excess = empty.len() - kept.count();
        let due = empty.partition_point(|(until, _)| *until <= now);
        let mut ended = 0;
        for (_, route) in empty.drain(..due.max(excess)) {
            if !route.retire() {
                continue;
            }
            inner.forget(&route);
            self.publish(inner, Change::Retired(route));
            ended += 1;
        }
        inner.shrink();
        ended
    }
}

/// The patterns that match a host, the most specific first.
fn patterns_of(host: &str) -> impl Iterator<Item = String> {
    let below = host.match_indices('.').map(|(at, _)| format!("*{}", &host[at..]));
    std::iter::once(host.to_owned()).chain(below).chain(std::iter::once("*".to_owned()))
}

/// Refuses a bridge if one of its patterns is full: of routes with predicates, or of bridges.
fn refuse_full(
    spec: &RouteSpec,
    predicates: bool,
    is_full: impl Fn(&str) -> bool,
) -> Result<(), TooManyBridges> {
    match spec.patterns().iter().find(|pattern| is_full(pattern)) {
        Some(pattern) => Err(TooManyBridges { pattern: Arc::clone(pattern), predicates }),
        None => Ok(()),
    }
}

impl<B> Inner<B> {
    fn check_bound(&self, spec: &RouteSpec, max_per_host: usize) -> Result<(), TooManyBridges> {
        let bridges = |pattern: &str| -> usize {
            self.under(pattern).iter().map(|route| route.counted() as usize).sum()
        };
        refuse_full(spec, false, |pattern| bridges(pattern) >= max_per_host)
    }

    /// The routes that have this very pattern.
    fn under(&self, pattern: &str) -> &[Arc<Route<B>>] {
        self.by_pattern.get(pattern).map_or(&[][..], |routes| routes)
    }

    /// Whether there is room for a new route.
    fn check_lanes(&self, spec: &RouteSpec) -> Result<(), TooManyBridges> {
        let Some(new) = spec.predicates().map(Predicates::count) else { return Ok(()) };
        refuse_full(spec, true, |pattern| {
            let lanes = self.under(pattern).iter().filter_map(|route| route.spec().predicates());
            let (lanes, predicates) =
                lanes.fold((0, new), |(lanes, sum), lane| (lanes + 1, sum + lane.count()));
            lanes >= LANES_MAX || predicates > PREDICATES_MAX
        })
    }

    /// Gives back the memory of a rush of routes when most of them have gone.
    fn shrink(&mut self) {
        if self.routes.capacity() > 4 * self.routes.len().max(EMPTY_NAMES_MAX) {
            self.routes.shrink_to(2 * EMPTY_NAMES_MAX);
        }
        if self.by_pattern.capacity() > 4 * self.by_pattern.len().max(EMPTY_NAMES_MAX) {
            self.by_pattern.shrink_to(2 * EMPTY_NAMES_MAX);
        }
    }

    fn forget(&mut self, route: &Arc<Route<B>>) {
        self.routes.remove(route.spec());
        for pattern in route.spec().patterns() {
            if let Some(routes) = self.by_pattern.get_mut(pattern) {
                routes.retain(|other| !Arc::ptr_eq(other, route));
                if routes.is_empty() {
                    self.by_pattern.remove(pattern);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridges_for_a_host_and_a_path_are_counted() {
        let directory: Directory<u64> = Directory::new(1);
        let now = Micros(0);
        let join = |patterns: &[&str], prefix: &str| {
            directory.join(&RouteSpec::new(patterns, prefix), 0, now).unwrap();
        };
        join(&["a.b.test", "*.b.test"], "");
        join(&["*.b.test"], "/x");
        join(&["*"], "");
        join(&["other.test"], "");
        directory.join(&RouteSpec::new(["*.test"], "").confined(), 0, now).unwrap();
        let lane = Predicates::read("If-Method: GET").unwrap();
        let lane = RouteSpec::new(["a.b.test"], "").only_if(lane);
        directory.join(&lane, 0, now).unwrap();
        let get = |_: &Predicates| true;
        let query = RouteQuery::new("a.b.test", "/").with_meets(Some(&get));
        assert_eq!(directory.members_for(&query), 3);
        let members = |host, path| directory.members_for(&RouteQuery::new(host, path));
        assert_eq!((members("a.b.test", "/"), members("c.b.test", "/x?q")), (2, 3));
        // What is confined serves only where nothing more specific does.
        assert_eq!((members("d.test", "/"), members("other.test", "/")), (2, 2));
        assert_eq!((members("", "/"), members("*.b.test", "/")), (1, 2));
    }
}
