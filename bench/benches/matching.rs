//! A request meets a bridge on one worker: it finds one parked, or waits until one parks. By number
//! of workers, by number of routes, and by what the routes are made of.
//!
//! All of it on one thread: what other cores do to a route's lock is measured by `scale-model
//! threads`.

mod common;

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;

use cloudbridge::http::{Framing, Limits, Predicates, RequestFacts, request};
use cloudbridge::routing::{
    Bounds, Directory, Enqueued, Membership, Parked, Route, RouteQuery, RouteSpec, Scheduler,
};
use cloudbridge::time::Micros;
use criterion::{Bencher, BenchmarkId, Criterion};
use httparse::Header;

const BOUNDS: Bounds =
    Bounds { per_route: 1024, unserved: 10_000, unserved_waits: true, bridges_per_host: 0 };

/// Requests for names that nobody serves.
const UNSERVED: usize = 8_000;

const WORKERS: [usize; 4] = [1, 2, 8, 64];
const ROUTES: [usize; 4] = [1, 100, 1_000, 10_000];

/// From one request's route to the next one's: far apart in memory. A prime, so that every route
/// has its turn.
const STRIDE: usize = 7919;

/// How the routes differ from each other.
#[derive(Clone, Copy)]
enum Kind {
    /// Each has a host of its own.
    Exact,
    /// Each has a wildcard of its own, and requests name hosts two labels below it.
    Wildcard,
    /// Each has a host of its own and the prefix `/app/v1`.
    Prefix,
    /// All have the same host, each its own prefix.
    PrefixesOfOneHost,
}

impl Kind {
    fn spec(self, number: usize) -> RouteSpec {
        match self {
            Kind::Exact => RouteSpec::new([format!("host{number:05}.bench")], ""),
            Kind::Wildcard => RouteSpec::new([format!("*.host{number:05}.bench")], ""),
            Kind::Prefix => RouteSpec::new([format!("host{number:05}.bench")], "/app/v1"),
            Kind::PrefixesOfOneHost => RouteSpec::new(["one.bench"], &format!("/app{number:05}")),
        }
    }
}

/// What a request asks for. Made anew for each, in the same place: the proxy reads it from a buffer
/// that is warm too.
#[derive(Default)]
struct Target {
    host: String,
    path: String,
}

impl Target {
    fn of(kind: Kind, number: usize) -> Target {
        let mut target = Target::default();
        target.aim(kind, number);
        target
    }

    /// The same for the scheduler, which knows nothing of it.
    fn asked(&self) -> RouteQuery<'_> {
        RouteQuery::new(black_box(&self.host), black_box(&self.path))
    }

    fn aim(&mut self, kind: Kind, number: usize) {
        let Target { host, path } = self;
        host.clear();
        path.clear();
        match kind {
            Kind::Exact | Kind::Prefix => write_number(host, ["host", ".bench"], number),
            Kind::Wildcard => write_number(host, ["a.b.host", ".bench"], number),
            Kind::PrefixesOfOneHost => host.push_str("one.bench"),
        }
        match kind {
            Kind::Exact | Kind::Wildcard => path.push_str("/articles/2024?page=1"),
            Kind::Prefix => path.push_str("/app/v1/articles/2024?page=1"),
            Kind::PrefixesOfOneHost => write_number(path, ["/app", "/articles"], number),
        }
    }
}

/// Five digits between two texts; `write!` would take longer than what is measured.
fn write_number(into: &mut String, [before, after]: [&str; 2], number: usize) {
    into.push_str(before);
    for place in [10_000, 1_000, 100, 10, 1] {
        into.push(char::from(b'0' + (number / place % 10) as u8));
    }
    into.push_str(after);
}

/// A bridge knows its route, as the proxy's do.
struct Bridge {
    route: Arc<Route<Box<Bridge>>>,
}

type Bridges = Scheduler<Box<Bridge>>;

fn schedulers(workers: usize) -> Vec<Bridges> {
    let directory = Arc::new(Directory::new(workers));
    (0..workers).map(|me| Scheduler::new(me, Arc::clone(&directory), BOUNDS)).collect()
}

fn join(scheduler: &mut Bridges, spec: &RouteSpec) -> Box<Bridge> {
    let joined = scheduler.join(spec, Micros(0), &|_, _| false).expect("no bound on bridges");
    Box::new(Bridge { route: joined.route })
}

/// A scheduler that knows so many routes, and a bridge of each.
#[expect(clippy::vec_box, reason = "a parked bridge is a box, as in the proxy")]
fn scheduler(workers: usize, kind: Kind, routes: usize) -> (Bridges, Vec<Box<Bridge>>) {
    let mut scheduler = schedulers(workers).swap_remove(0);
    let bridges = (0..routes).map(|number| join(&mut scheduler, &kind.spec(number))).collect();
    (scheduler, bridges)
}

fn park(scheduler: &mut Bridges, bridge: Box<Bridge>) -> Parked<Box<Bridge>> {
    let route = Arc::clone(&bridge.route);
    scheduler.park(&route, Membership::default(), 1, bridge)
}

/// One request finds a bridge parked, and the bridge parks again.
fn match_and_park(scheduler: &mut Bridges, target: &Target) {
    match scheduler.enqueue(7, &target.asked(), Micros(0)) {
        Enqueued::Matched { bridge, .. } => _ = black_box(park(scheduler, bridge)),
        _ => panic!("no bridge is parked"),
    }
}

/// One request waits, and a bridge that parks serves it.
fn wait_and_serve(scheduler: &mut Bridges, bridge: Box<Bridge>, target: &Target) -> Box<Bridge> {
    let enqueued = scheduler.enqueue(7, &target.asked(), Micros(0));
    assert!(matches!(enqueued, Enqueued::Queued(_)), "a bridge was parked");
    match park(scheduler, bridge) {
        Parked::Serve { bridge, .. } => bridge,
        _ => panic!("no request waited"),
    }
}

fn bench_wait_and_serve(
    b: &mut Bencher<'_>,
    scheduler: &mut Bridges,
    bridge: Box<Bridge>,
    target: &Target,
) -> Box<Bridge> {
    let mut bridge = Some(bridge);
    b.iter(|| bridge = bridge.take().map(|bridge| wait_and_serve(scheduler, bridge, target)));
    bridge.expect("the bridge is handed back")
}

fn by_workers(c: &mut Criterion) {
    let mut group = c.benchmark_group("by workers");
    for workers in WORKERS {
        let (mut scheduler, bridges) = scheduler(workers, Kind::Exact, 1);
        let target = Target::of(Kind::Exact, 0);
        let mut bridge = bridges.into_iter().next();
        group.bench_function(BenchmarkId::new("wait and serve", workers), |b| {
            let before = bridge.take().expect("the bridge is handed back");
            bridge = Some(bench_wait_and_serve(b, &mut scheduler, before, &target));
        });
        bridge.map(|bridge| park(&mut scheduler, bridge));
        group.bench_function(BenchmarkId::new("match and park", workers), |b| {
            b.iter(|| match_and_park(&mut scheduler, &target));
        });
    }
    group.finish();
}

fn while_others_wait(c: &mut Criterion) {
    let mut group = c.benchmark_group("by workers");
    for workers in WORKERS.into_iter().filter(|workers| *workers > 1) {
        let mut all = schedulers(workers);
        let mut bridge = Some(join(&mut all[0], &Kind::Exact.spec(0)));
        let target = Target::of(Kind::Exact, 0);
        for other in &mut all[1..] {
            other.sync(&|_, _| false);
            // As old as those of worker 0, so that none of them is first.
            let enqueued = other.enqueue(7, &target.asked(), Micros(0));
            assert!(matches!(enqueued, Enqueued::Queued(_)), "a bridge was parked");
        }
        group.bench_function(BenchmarkId::new("wait and serve, all others wait", workers), |b| {
            let before = bridge.take().expect("the bridge is handed back");
            bridge = Some(bench_wait_and_serve(b, &mut all[0], before, &target));
        });
    }
    group.finish();
}

/// Two workers take a bridge from each other.
fn take_over(c: &mut Criterion) {
    let mut all = schedulers(2);
    let bridge = join(&mut all[0], &Kind::Exact.spec(0));
    all[1].sync(&|_, _| false);
    park(&mut all[0], bridge);
    let (target, mut taker) = (Target::of(Kind::Exact, 0), 0);
    c.bench_function("take over and park", |b| {
        b.iter(|| {
            taker = 1 - taker;
            match_and_park(&mut all[taker], &target);
        });
    });
}

/// A route comes while requests wait for other names.
fn new_route(c: &mut Criterion) {
    let mut group = c.benchmark_group("new route, by requests that wait for other names");
    for waiting in [0, UNSERVED] {
        let mut scheduler = schedulers(1).swap_remove(0);
        for number in 0..waiting {
            let target = Target::of(Kind::Exact, number);
            scheduler.enqueue(7, &target.asked(), Micros(0));
        }
        let mut number = 0;
        group.bench_function(BenchmarkId::from_parameter(waiting), |b| {
            b.iter(|| {
                number += 1;
                let bridge = join(&mut scheduler, &RouteSpec::new([format!("new{number}")], ""));
                bridge.route.leave(Micros(0));
            });
        });
    }
    group.finish();
}

/// The site and the routes of a host.
fn with_sites(c: &mut Criterion) {
    let (mut scheduler, bridges) = scheduler(1, Kind::Exact, 100);
    let sites: Vec<String> = (0..100).map(|number| format!("host{number:05}.bench")).collect();
    scheduler.set_sites(sites.iter().zip(0..).map(|(name, site)| (name.as_str(), site)));
    bridges.into_iter().for_each(|bridge| _ = park(&mut scheduler, bridge));
    let target = Target::of(Kind::Exact, 42);
    c.bench_function("resolve, match and park", |b| {
        b.iter(|| {
            let resolved = scheduler.resolve(black_box(&target.host), black_box(&target.path));
            assert_eq!(resolved.site, Some(42));
            match scheduler.enqueue(7, &resolved.query, Micros(0)) {
                Enqueued::Matched { bridge, .. } => _ = black_box(park(&mut scheduler, bridge)),
                _ => panic!("no bridge is parked"),
            }
        });
    });
}

/// A request whose host has lanes beside the route that serves it, and it meets none of them.
fn beside_lanes(c: &mut Criterion) {
    let mut group = c.benchmark_group("match and park, by lanes of the same host");
    for lanes in [0, 1, 16, 256] {
        let (mut scheduler, bridges) = scheduler(2, Kind::Exact, 1);
        bridges.into_iter().for_each(|bridge| _ = park(&mut scheduler, bridge));
        for number in 0..lanes {
            let tenant = format!("If-Header: x-tenant={number}");
            let predicates = Predicates::read(&tenant).expect("a predicate");
            join(&mut scheduler, &Kind::Exact.spec(0).only_if(predicates));
        }
        let target = Target::of(Kind::Exact, 0);
        let fields = [Header { name: "User-Agent", value: b"bench" }; 8];
        let peer = Ipv4Addr::LOCALHOST.into();
        let facts = RequestFacts::new("GET", &target.path, &fields, Framing::None, peer, &[]);
        let meets = |predicates: &Predicates| predicates.are_met_by(&facts);
        group.bench_function(BenchmarkId::from_parameter(lanes), |b| {
            b.iter(|| {
                let query = target.asked().with_meets(Some(&meets));
                match scheduler.enqueue(7, &query, Micros(0)) {
                    Enqueued::Matched { bridge, .. } => _ = black_box(park(&mut scheduler, bridge)),
                    _ => panic!("no bridge is parked"),
                }
            });
        });
    }
    group.finish();
}

/// As many predicates as a host may have, all about cookies, and a request with as many cookies as fit
/// into a head. It meets none of them. A look is what a request that waits costs a new route.
fn many_cookies(c: &mut Criterion) {
    const LANES: usize = 32;
    const EACH: usize = 16;
    let lane = |number: usize| {
        let cookies: Vec<String> =
            (0..EACH).map(|at| format!("If-Cookie: c{number}-{at}=x")).collect();
        Predicates::read(&cookies.join("; ")).expect("predicates")
    };
    let (mut scheduler, bridges) = scheduler(2, Kind::Exact, 1);
    bridges.into_iter().for_each(|bridge| _ = park(&mut scheduler, bridge));
    for number in 0..LANES {
        join(&mut scheduler, &Kind::Exact.spec(0).only_if(lane(number)));
    }
    let target = Target::of(Kind::Exact, 0);
    let cookies: Vec<String> = (0..1_500).map(|number| format!("k{number}=v")).collect();
    let head = format!(
        "GET {} HTTP/1.1\r\nHost: a.test\r\nCookie: {}\r\n\r\n",
        target.path,
        cookies.join("; ")
    );
    let facts = |use_them: &mut dyn FnMut(&RequestFacts<'_>)| {
        let mut storage = request::storage();
        let parsed = request::parse(head.as_bytes(), &mut storage, &Limits::default());
        let parsed = parsed.expect("well-formed").expect("whole");
        let peer = Ipv4Addr::LOCALHOST.into();
        let framing = Framing::None;
        use_them(&RequestFacts::new("GET", parsed.path, parsed.fields, framing, peer, &[]));
    };
    let mut group = c.benchmark_group("many cookies");
    group.bench_function("match and park", |b| {
        b.iter(|| {
            facts(&mut |facts| {
                let meets = |predicates: &Predicates| predicates.are_met_by(facts);
                let query = target.asked().with_meets(Some(&meets));
                match scheduler.enqueue(7, &query, Micros(0)) {
                    Enqueued::Matched { bridge, .. } => _ = black_box(park(&mut scheduler, bridge)),
                    _ => panic!("no bridge is parked"),
                }
            });
        });
    });
    let new = lane(LANES);
    group.bench_function("a look", |b| {
        b.iter(|| facts(&mut |facts| _ = black_box(new.are_met_by(facts))));
    });
    group.finish();
}

fn by_routes(c: &mut Criterion) {
    let kinds = [
        ("exact", Kind::Exact),
        ("wildcard", Kind::Wildcard),
        ("prefix", Kind::Prefix),
        ("prefixes of one host", Kind::PrefixesOfOneHost),
    ];
    let mut group = c.benchmark_group("match and park, by routes");
    for (name, kind) in kinds {
        for routes in ROUTES {
            let (mut scheduler, bridges) = scheduler(2, kind, routes);
            bridges.into_iter().for_each(|bridge| _ = park(&mut scheduler, bridge));
            let (mut number, mut target) = (0, Target::default());
            group.bench_function(BenchmarkId::new(name, routes), |b| {
                b.iter(|| {
                    number = (number + STRIDE) % routes;
                    target.aim(kind, number);
                    match_and_park(&mut scheduler, &target);
                });
            });
        }
    }
    group.finish();
}

fn main() {
    let mut c = common::criterion();
    by_workers(&mut c);
    while_others_wait(&mut c);
    take_over(&mut c);
    with_sites(&mut c);
    by_routes(&mut c);
    beside_lanes(&mut c);
    many_cookies(&mut c);
    new_route(&mut c);
    c.final_summary();
}
