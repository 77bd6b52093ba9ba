//! A proxy of the simulated fleet: the product's own matching on several workers. Each backend has as
//! many bridges here as places.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::routing::{
    Bounds, Directory, Enqueued, GroupId, Match, Membership, Parked, QueuePos, Route, RouteQuery,
    RouteSpec, Scheduler, Sent, Transfer,
};
use crate::time::Micros;

const BOUNDS: Bounds =
    Bounds { per_route: usize::MAX, unserved: 0, unserved_waits: false, bridges_per_host: 0 };

fn query() -> RouteQuery<'static> {
    RouteQuery::new("a.test", "/")
}

/// A request has been given a bridge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given {
    pub(super) request: usize,
    pub(super) bridge: usize,
    /// The bridge is on its way to the worker of the request: [`Proxy::moved`].
    pub(super) moves: bool,
}

pub(super) struct Proxy {
    schedulers: Vec<Scheduler<usize>>,
    route: Arc<Route<usize>>,
    /// By backend.
    groups: Vec<GroupId>,
    places: usize,
    /// By bridge: the worker that it is on.
    workers: Vec<usize>,
    /// By backend: how many bridges have a request.
    busy: Vec<usize>,
    /// Requests without a bridge. The first has waited longest.
    waiting: BTreeSet<usize>,
    /// By request: its place in the order.
    positions: BTreeMap<usize, QueuePos>,
    /// By bridge that is on its way.
    transfers: BTreeMap<usize, Transfer>,
    given: VecDeque<Given>,
    /// Backends whose place is not needed any more.
    declined: VecDeque<usize>,
}

impl Proxy {
    /// All bridges are parked, on the workers in turn.
    pub(super) fn new(workers: usize, backends: usize, places: usize) -> Proxy {
        let directory = Arc::new(Directory::new(workers));
        let scheduler = |me| Scheduler::new(me, Arc::clone(&directory), BOUNDS);
        let mut schedulers: Vec<_> = (0..workers).map(scheduler).collect();
        let spec = RouteSpec::new(["a.test"], "");
        let mut join =
            |_| schedulers[0].join(&spec, Micros(0), &|_, _| true).expect("no bound").route;
        let routes: Vec<_> = (0..backends * places).map(&mut join).collect();
        schedulers.iter_mut().for_each(|scheduler| scheduler.sync(&|_, _| true));
        let route = Arc::clone(&routes[0]);
        let group = |bridge: usize| route.join_group((bridge / places) as u64);
        let groups: Vec<_> = (0..backends * places).map(group).collect();
        let mut proxy = Proxy {
            schedulers,
            groups: groups.into_iter().step_by(places).collect(),
            route,
            places,
            workers: (0..backends * places).map(|bridge| bridge % workers).collect(),
            busy: vec![0; backends],
            waiting: BTreeSet::new(),
            positions: BTreeMap::new(),
            transfers: BTreeMap::new(),
            given: VecDeque::new(),
            declined: VecDeque::new(),
        };
        for bridge in 0..backends * places {
            assert!(proxy.park(bridge), "nothing waits yet");
        }
        proxy
    }

    /// Its own count of the bridges of a backend that have a request.
    pub(super) fn busy(&self, backend: usize) -> usize {
        self.busy[backend]
    }

    /// The request that has waited longest.
    pub(super) fn oldest(&self) -> Option<usize> {
        self.waiting.first().copied()
    }

    /// What has been given a bridge since the last call.
    pub(super) fn next_given(&mut self) -> Option<Given> {
        self.given.pop_front()
    }

    /// A backend that is to be told at once that nothing waits.
    pub(super) fn next_declined(&mut self) -> Option<usize> {
        self.declined.pop_front()
    }

    /// A request comes to a worker.
    pub(super) fn enqueue(&mut self, worker: usize, request: usize, now: Micros) {
        let enqueued = self.schedulers[worker].enqueue(request as u64, &query(), now);
        self.enqueued(worker, request, enqueued);
    }

    /// A request comes back over its bridge, and goes to another backend if it can.
    pub(super) fn given_back(&mut self, request: usize, bridge: usize, now: Micros) {
        let worker = self.workers[bridge];
        self.is_free(bridge);
        let (places, pos) = (self.places, self.positions[&request]);
        let failed = |other: &usize| other / places == bridge / places;
        let scheduler = &mut self.schedulers[worker];
        let enqueued = scheduler.requeue(request as u64, pos, &query(), failed, now);
        self.enqueued(worker, request, enqueued);
    }

    fn enqueued(&mut self, worker: usize, request: usize, enqueued: Enqueued<usize>) {
        match enqueued {
            Enqueued::Matched { bridge, pos, .. } => self.take(worker, request, bridge, pos),
            Enqueued::Queued(_) => assert!(self.waiting.insert(request)),
            other => panic!("nothing is rejected: {other:?}"),
        }
    }

    /// A bridge has no request any more.
    pub(super) fn is_free(&mut self, bridge: usize) {
        self.busy[bridge / self.places] -= 1;
        self.park(bridge);
    }

    /// Whether it stays parked.
    fn park(&mut self, bridge: usize) -> bool {
        let group = Some(self.groups[bridge / self.places]);
        let of = Membership { group, ..Membership::default() };
        let scheduler = &mut self.schedulers[self.workers[bridge]];
        match scheduler.park(&self.route, of, bridge as u64, bridge) {
            Parked::Serve { request, pos, .. } => {
                self.take(self.workers[bridge], request as usize, bridge, pos);
            }
            Parked::Transfer { transfer, .. } => self.send(bridge, transfer),
            Parked::Idle(_) => {
                self.collect_declined(self.workers[bridge]);
                return true;
            }
        }
        false
    }

    fn collect_declined(&mut self, worker: usize) {
        while let Some((_, telling)) = self.schedulers[worker].next_declined() {
            self.declined.push_back(telling.owner.token as usize / self.places);
        }
    }

    /// A request has got a bridge, which is on its worker from now on.
    fn take(&mut self, worker: usize, request: usize, bridge: usize, pos: QueuePos) {
        self.workers[bridge] = worker;
        self.give(Given { request, bridge, moves: false }, pos);
    }

    /// The same by mail.
    fn send(&mut self, bridge: usize, transfer: Transfer) {
        self.transfers.insert(bridge, transfer);
        let request = transfer.request as usize;
        self.give(Given { request, bridge, moves: true }, transfer.pos);
    }

    fn give(&mut self, given: Given, pos: QueuePos) {
        self.waiting.remove(&given.request);
        self.positions.insert(given.request, pos);
        self.busy[given.bridge / self.places] += 1;
        self.given.push_back(given);
    }

    /// A bridge has come to the worker of its request.
    pub(super) fn moved(&mut self, bridge: usize) {
        let transfer = self.transfers.remove(&bridge).expect("it was on its way");
        self.workers[bridge] = transfer.to;
        assert!(self.schedulers[transfer.to].receive(transfer.waiter), "it waits for nothing else");
    }

    /// A backend has said how many of its bridges may have a request; a worker has read it.
    pub(super) fn set_places(&mut self, worker: usize, backend: usize, limit: usize, at: u64) {
        let scheduler = &mut self.schedulers[worker];
        scheduler.set_places(&self.route, self.groups[backend], limit as u32, at);
        self.collect_declined(worker);
        let found = |scheduler: &mut Scheduler<usize>| {
            let (matched, sent) = (scheduler.next_match(), scheduler.next_sent());
            (matched.is_some() || sent.is_some()).then_some((matched, sent))
        };
        while let Some((matched, sent)) = found(&mut self.schedulers[worker]) {
            if let Some(Match { request, bridge, pos, .. }) = matched {
                self.take(worker, request as usize, bridge, pos);
            }
            if let Some(Sent { bridge, transfer, .. }) = sent {
                self.send(bridge, transfer);
            }
        }
    }

    /// Which backends are to be told since when the oldest request waits, or that none does, and when
    /// to ask again.
    pub(super) fn tell(
        &self,
        now: Micros,
        pause: Duration,
    ) -> (Vec<(usize, Option<Micros>)>, Option<Micros>) {
        let told = self.route.tell(now, pause);
        let backend = |bridge: u64| bridge as usize / self.places;
        let tellings = told.tellings.iter();
        (tellings.map(|one| (backend(one.owner.token), one.oldest)).collect(), told.again)
    }

    /// Whether [`Proxy::tell`] may have something.
    pub(super) fn has_news(&self) -> bool {
        !self.waiting.is_empty() || self.groups.iter().any(|group| self.route.has_news(*group))
    }
}
