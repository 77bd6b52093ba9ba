//! A request meets a bridge on one worker: it finds one parked, or waits until one parks. By number of workers, by
//! number of routes, and by what the routes are made of.
//!
//! All of it on one thread: what other cores do to the shared cache lines is measured by `scale-model threads`.

mod common;

use std::hint::black_box;
use std::sync::Arc;

use cloudbridge::routing::{self, Arrival, Bounds, Directory, Lobby, Parking, RouteId, RouteSpec};
use criterion::{BenchmarkId, Criterion};

const BOUNDS: Bounds =
    Bounds { per_route: 1024, unserved: 1024, unserved_waits: true, bridges_per_host: 0 };

const WORKERS: [usize; 4] = [1, 2, 8, 64];
const ROUTES: [usize; 4] = [1, 100, 1_000, 10_000];

/// From one request's route to the next one's: far apart in memory. A prime, so that every route has its turn.
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

/// What a request asks for. Made anew for each, in the same place: the proxy reads it from a buffer that is warm too.
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

    /// The same for the lobby, which knows nothing of it.
    fn asked(&self) -> routing::Target<'_> {
        routing::Target::new(black_box(&self.host), black_box(&self.path))
    }

    fn aim(&mut self, kind: Kind, number: usize) {
        let Target { host, path } = self;
        host.clear();
        path.clear();
        match kind {
            Kind::Exact | Kind::Prefix => join(host, ["host", ".bench"], number),
            Kind::Wildcard => join(host, ["a.b.host", ".bench"], number),
            Kind::PrefixesOfOneHost => host.push_str("one.bench"),
        }
        match kind {
            Kind::Exact | Kind::Wildcard => path.push_str("/articles/2024?page=1"),
            Kind::Prefix => path.push_str("/app/v1/articles/2024?page=1"),
            Kind::PrefixesOfOneHost => join(path, ["/app", "/articles"], number),
        }
    }
}

/// Five digits between two texts; `write!` would take longer than what is measured.
fn join(into: &mut String, [before, after]: [&str; 2], number: usize) {
    into.push_str(before);
    for place in [10_000, 1_000, 100, 10, 1] {
        into.push(char::from(b'0' + (number / place % 10) as u8));
    }
    into.push_str(after);
}

/// A lobby that knows so many routes, each of which has a bridge.
fn lobby(workers: usize, kind: Kind, routes: usize) -> (Lobby, Vec<RouteId>) {
    let mut lobby = Lobby::new(0, Arc::new(Directory::new(workers)), BOUNDS);
    let join = |number| lobby.join(&kind.spec(number), 0).expect("no bound on bridges").route;
    let ids = (0..routes).map(join).collect();
    (lobby, ids)
}

/// One request finds a bridge parked here, and the bridge parks again.
fn match_and_park(lobby: &mut Lobby, target: &Target) {
    match lobby.arrive(7, &target.asked(), 0) {
        Arrival::Matched { bridge, route, .. } => {
            black_box(lobby.park(route, bridge, 0));
        }
        other => panic!("{other:?}"),
    }
}

/// One request waits, and a bridge that parks serves it.
fn wait_and_serve(lobby: &mut Lobby, route: RouteId, target: &Target) {
    let arrival = lobby.arrive(7, &target.asked(), 0);
    assert!(matches!(arrival, Arrival::Waiting(_)), "{arrival:?}");
    let parking = lobby.park(route, 1, 0);
    assert!(matches!(parking, Parking::Serve { .. }), "{parking:?}");
}

fn by_workers(c: &mut Criterion) {
    let mut group = c.benchmark_group("by workers");
    for workers in WORKERS {
        let (mut lobby, routes) = lobby(workers, Kind::Exact, 1);
        let (route, target) = (routes[0], Target::of(Kind::Exact, 0));
        group.bench_function(BenchmarkId::new("wait and serve", workers), |b| {
            b.iter(|| wait_and_serve(&mut lobby, route, &target));
        });
        lobby.park(route, 1, 0);
        group.bench_function(BenchmarkId::new("match and park", workers), |b| {
            b.iter(|| match_and_park(&mut lobby, &target));
        });
    }
    group.finish();
}

fn while_others_wait(c: &mut Criterion) {
    let mut group = c.benchmark_group("by workers");
    for workers in WORKERS.into_iter().filter(|workers| *workers > 1) {
        let directory = Arc::new(Directory::new(workers));
        let mut lobbies: Vec<_> =
            (0..workers).map(|me| Lobby::new(me, Arc::clone(&directory), BOUNDS)).collect();
        let spec = Kind::Exact.spec(0);
        let route = lobbies[0].join(&spec, 0).expect("no bound on bridges").route;
        let target = Target::of(Kind::Exact, 0);
        for lobby in &mut lobbies[1..] {
            lobby.sync();
            // As old as those of worker 0, so that none of them is an elder that gets its bridge.
            assert!(matches!(lobby.arrive(7, &target.asked(), 0), Arrival::Waiting(_)));
        }
        let lobby = &mut lobbies[0];
        group.bench_function(BenchmarkId::new("wait and serve, all others wait", workers), |b| {
            b.iter(|| wait_and_serve(lobby, route, &target));
        });
    }
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
            let (mut lobby, ids) = lobby(2, kind, routes);
            for (bridge, id) in ids.into_iter().enumerate() {
                lobby.park(id, bridge as u64, 0);
            }
            let (mut number, mut target) = (0, Target::default());
            group.bench_function(BenchmarkId::new(name, routes), |b| {
                b.iter(|| {
                    number = (number + STRIDE) % routes;
                    target.aim(kind, number);
                    match_and_park(&mut lobby, &target);
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
    by_routes(&mut c);
    c.final_summary();
}
