//! One proxy, as far as the matching goes: the product's own, with one worker. Each server has a
//! bridge, which has its number.

use std::sync::Arc;

use cloudbridge::routing::{
    Bounds, Directory, Enqueued, GroupId, Match, Membership, Parked, QueuePos, Route, RouteQuery,
    RouteSpec, Scheduler, Telling, ToTell,
};
use cloudbridge::time::Micros;

use crate::load::SERVERS;
use crate::world::{Nanos, RequestId};

/// No request is rejected: the question is how long requests wait.
const BOUNDS: Bounds = Bounds {
    per_route: usize::MAX,
    unserved: usize::MAX,
    unserved_waits: true,
    bridges_per_host: 0,
};

const HOST: &str = "app.model";

/// What all requests ask for.
fn query() -> RouteQuery<'static> {
    RouteQuery::new(HOST, "/")
}

/// An instant on the product's clock.
pub fn micros(time: Nanos) -> Micros {
    Micros(time / 1000)
}

/// A request has been given a server.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    /// The request.
    pub request: RequestId,
    /// Which bridge it gets.
    pub bridge: usize,
    /// Its place in the order, should it come back.
    pub pos: QueuePos,
}

/// A proxy.
pub struct Proxy {
    scheduler: Scheduler<usize>,
    route: Arc<Route<usize>>,
    /// By bridge, if agents say how many places they have.
    groups: Vec<Option<GroupId>>,
    /// How many bridges an agent has.
    places: usize,
}

impl Proxy {
    /// All bridges are parked. With `places` each agent has so many of them, and says how many may be
    /// used at once.
    pub fn new(places: Option<usize>) -> Proxy {
        let mut scheduler = Scheduler::new(0, Arc::new(Directory::new(1)), BOUNDS);
        let spec = RouteSpec::new([HOST], "");
        let join = |_| {
            scheduler.join(&spec, Micros(0), &|_, _| false).expect("bridges are not bounded").route
        };
        let routes: Vec<_> = (0..SERVERS).map(join).collect();
        scheduler.sync(&|_, _| false);
        let route = Arc::clone(&routes[0]);
        let group = |bridge| places.map(|places| route.join_group((bridge / places) as u64));
        let groups = (0..SERVERS).map(group).collect();
        let mut proxy = Proxy { scheduler, route, groups, places: places.unwrap_or(1) };
        for bridge in 0..SERVERS {
            assert!(proxy.park(bridge).is_none(), "nothing waits yet");
        }
        proxy
    }

    /// A request comes; returns its bridge if it gets one at once.
    pub fn enqueue(&mut self, request: RequestId, now: Nanos) -> Option<Given> {
        let enqueued = self.scheduler.enqueue(request as u64, &query(), micros(now));
        given(request, enqueued)
    }

    /// A request comes back from an agent, which gets it again only if there is no other.
    pub fn requeue(&mut self, request: RequestId, pos: QueuePos, agent: usize) -> Option<Given> {
        let places = self.places;
        let failed = |bridge: &usize| bridge / places == agent;
        let enqueued = self.scheduler.requeue(request as u64, pos, &query(), failed, pos.since());
        given(request, enqueued)
    }

    /// A bridge is ready again; returns the request that it gets, if it gets one.
    pub fn park(&mut self, bridge: usize) -> Option<Given> {
        let of = Membership { group: self.groups[bridge], ..Membership::default() };
        match self.scheduler.park(&self.route, of, bridge as u64, bridge) {
            Parked::Serve { request, pos, .. } => {
                Some(Given { request: request as RequestId, bridge, pos })
            }
            Parked::Idle(_) => None,
            Parked::Transfer { .. } => unreachable!("there is one worker"),
        }
    }

    /// An agent says how many of its bridges may be used at once; `at` is the number of its message.
    pub fn set_places(&mut self, agent: usize, limit: usize, at: u64) {
        let group = self.groups[agent * self.places].expect("it says so");
        self.scheduler.set_places(&self.route, group, limit as u32, at);
    }

    /// What has been given a bridge by that.
    pub fn next_given(&mut self) -> Option<Given> {
        let Match { request, bridge, pos, .. } = self.scheduler.next_match()?;
        Some(Given { request: request as RequestId, bridge, pos })
    }

    /// An agent that is to be told at once that nothing waits.
    pub fn next_declined(&mut self) -> Option<Telling> {
        self.scheduler.next_declined().map(|(_, telling)| telling)
    }

    /// Whether requests wait.
    pub fn has_waiting(&self) -> bool {
        self.route.waiting() > 0
    }

    /// What agents are to be told of the requests that wait.
    pub fn tell(&self, now: Nanos, pause: Nanos) -> ToTell {
        self.route.tell(micros(now), std::time::Duration::from_nanos(pause))
    }
}

fn given(request: RequestId, enqueued: Enqueued<usize>) -> Option<Given> {
    match enqueued {
        Enqueued::Matched { bridge, pos, .. } => Some(Given { request, bridge, pos }),
        Enqueued::Queued(_) => None,
        other => panic!("nothing is rejected: {other:?}"),
    }
}
