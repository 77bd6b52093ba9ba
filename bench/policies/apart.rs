//! This proxy: one, or several that know nothing of each other. The matching is the product's own.
//!
//! Each server has a bridge at each proxy. A server to which several proxies send at once takes one
//! request after another.

use std::sync::Arc;

use cloudbridge::routing::{
    Bounds, Directory, Enqueued, Parked, Route, RouteQuery, RouteSpec, Scheduler,
};
use cloudbridge::time::Micros;

use crate::load::SERVERS;
use crate::world::{Nanos, Policy, RequestId, World};

const HOST: &str = "app.model";
/// No request is rejected: the question is how long requests wait.
const BOUNDS: Bounds = Bounds {
    per_route: usize::MAX,
    unserved: usize::MAX,
    unserved_waits: true,
    bridges_per_host: 0,
};

/// One proxy, with one worker. Bridges are known by the number of their server.
struct Proxy {
    scheduler: Scheduler<usize>,
    route: Arc<Route<usize>>,
}

impl Proxy {
    /// All servers have parked their bridges.
    fn new() -> Proxy {
        let mut scheduler = Scheduler::new(0, Arc::new(Directory::new(1)), BOUNDS);
        let spec = RouteSpec::new([HOST], "");
        let join = |_| scheduler.join(&spec, Micros(0)).expect("bridges are not bounded").route;
        let routes: Vec<_> = (0..SERVERS).map(join).collect();
        scheduler.sync();
        for (server, route) in routes.iter().enumerate() {
            let parked = scheduler.park(route, server as u64, server);
            assert!(matches!(parked, Parked::Idle(_)), "nothing waits yet: {parked:?}");
        }
        Proxy { scheduler, route: Arc::clone(&routes[0]) }
    }

    /// A request comes; returns the server that gets it, if one does at once.
    fn enqueue(&mut self, request: RequestId, now: Nanos) -> Option<usize> {
        let query = RouteQuery::new(HOST, "/");
        match self.scheduler.enqueue(request as u64, &query, micros(now)) {
            Enqueued::Matched { bridge, .. } => Some(bridge),
            Enqueued::Queued(_) => None,
            other => panic!("nothing is rejected: {other:?}"),
        }
    }

    /// A bridge is ready again; returns the request that it gets, if one waits.
    fn park(&mut self, server: usize) -> Option<RequestId> {
        match self.scheduler.park(&self.route, server as u64, server) {
            Parked::Serve { request, .. } => Some(request as RequestId),
            Parked::Idle(_) => None,
            Parked::Transfer { .. } => unreachable!("there is one worker"),
        }
    }
}

fn micros(time: Nanos) -> Micros {
    Micros(time / 1000)
}

/// Proxies that know nothing of each other.
pub struct Apart {
    proxies: Vec<Proxy>,
}

impl Apart {
    /// So many proxies.
    pub fn new(proxies: usize) -> Apart {
        Apart { proxies: (0..proxies).map(|_| Proxy::new()).collect() }
    }
}

impl Policy for Apart {
    type Message = ();

    fn arrive(&mut self, world: &mut World<()>, node: usize, request: RequestId) {
        if let Some(server) = self.proxies[node].enqueue(request, world.now()) {
            world.send(server, request);
        }
    }

    fn answered(&mut self, world: &mut World<()>, node: usize, server: usize) {
        if let Some(request) = self.proxies[node].park(server) {
            world.send(server, request);
        }
    }
}
