//! Virtual workers with clocks of their own, around the real matching.
//!
//! A worker deals with one item at a time, which occupies it for as long as [`Costs`] says;
//! meanwhile other workers' items come in between, so that schedulers meet in the routes as they
//! would. Its turns are the proxy's: mail first, then the requests that have been found a bridge,
//! then what the sockets have brought.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use cloudbridge::routing::{
    Balance, Bounds, Directory, Enqueued, Membership, Parked, Route, RouteQuery, RouteSpec,
    Scheduler, Transfer,
};
use cloudbridge::time::Micros;

use crate::costs::{Costs, Nanos};
use crate::locks::Lock;
use crate::measures::{Counts, Report};
use crate::scenario::{Aim, Scenario};

/// The load runs this long before anything is counted: longer than bridges need to end up where
/// they are used.
const WARM_UP: Nanos = 100_000_000;
/// And this long while it is.
const RUN: Nanos = 150_000_000;
/// Events that one turn takes from the kernel, as in the proxy.
const EVENTS: usize = 512;
/// No request is rejected: the question is how long requests wait.
const BOUNDS: Bounds = Bounds {
    per_route: usize::MAX,
    unserved: usize::MAX,
    unserved_waits: true,
    bridges_per_host: 0,
};

/// Something for a worker to do.
#[derive(Clone, Copy, Debug)]
enum Item {
    /// A bridge has been taken over by another worker.
    Taken,
    Bridge(usize, Transfer),
    Pair {
        client: usize,
        bridge: usize,
    },
    Request(usize),
    Response(usize),
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// The item comes to the worker's notice.
    Deliver(usize, Item),
    /// The worker goes on.
    Step(usize),
}

/// An event and its time; in the order of time, then of making.
#[derive(Clone, Copy, Debug)]
struct Due {
    order: (Nanos, u64),
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.order == other.order
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        self.order.cmp(&other.order)
    }
}

struct Worker {
    scheduler: Scheduler<usize>,
    mail: VecDeque<Item>,
    pairs: VecDeque<Item>,
    sockets: VecDeque<Item>,
    /// What is left of this turn.
    turn: VecDeque<Item>,
    /// A step of this worker is among the events.
    running: bool,
}

struct Client {
    worker: usize,
    host: usize,
    /// When its request came to the socket, and when to the scheduler.
    came: Nanos,
    asked: Nanos,
}

struct Bridge {
    worker: usize,
    route: Arc<Route<usize>>,
    host: usize,
    client: usize,
    /// What the backend takes for the request in hand.
    backend: Nanos,
}

/// A run under way.
pub struct World<'s> {
    scenario: &'s Scenario,
    costs: Costs,
    events: BinaryHeap<Reverse<Due>>,
    made: u64,
    workers: Vec<Worker>,
    clients: Vec<Client>,
    bridges: Vec<Bridge>,
    hosts: Vec<String>,
    /// By route.
    locks: Vec<Lock>,
    counts: Counts,
    rng: u64,
    now: Nanos,
}

impl<'s> World<'s> {
    /// A world in which everybody has just connected.
    pub fn new(scenario: &'s Scenario, workers: usize, costs: Costs) -> World<'s> {
        let directory = Arc::new(Directory::new(workers));
        let worker = |me| Worker {
            scheduler: Scheduler::new(me, Arc::clone(&directory), BOUNDS),
            mail: VecDeque::new(),
            pairs: VecDeque::new(),
            sockets: VecDeque::new(),
            turn: VecDeque::new(),
            running: false,
        };
        let mut world = World {
            scenario,
            costs,
            events: BinaryHeap::new(),
            made: 0,
            workers: (0..workers).map(worker).collect(),
            clients: Vec::new(),
            bridges: Vec::new(),
            hosts: (0..scenario.routes).map(|route| format!("host{route}.model")).collect(),
            locks: vec![Lock::default(); scenario.routes],
            counts: Counts::default(),
            rng: 0x9E37_79B9_7F4A_7C15,
            now: 0,
        };
        world.connect_bridges();
        world.connect_clients();
        world
    }

    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*
        self.rng ^= self.rng >> 12;
        self.rng ^= self.rng << 25;
        self.rng ^= self.rng >> 27;
        (self.rng.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % bound
    }

    fn connect_bridges(&mut self) {
        let count = self.workers.len();
        for bridge in 0..self.scenario.bridges.of(count) {
            let host = bridge % self.scenario.routes;
            let worker = self.below(count as u64) as usize;
            let scheduler = &mut self.workers[worker].scheduler;
            let spec = RouteSpec::new([&self.hosts[host]], "");
            let route = scheduler
                .join(&spec, Micros(0), &|_, _| false)
                .expect("bridges are not bounded")
                .route;
            let parked = scheduler.park(&route, Membership::default(), bridge as u64, bridge);
            assert!(matches!(parked, Parked::Idle(_)), "nothing waits yet: {parked:?}");
            self.bridges.push(Bridge { worker, route, host, client: 0, backend: 0 });
        }
        self.workers.iter_mut().for_each(|worker| worker.scheduler.sync(&|_, _| false));
    }

    fn connect_clients(&mut self) {
        let count = self.workers.len();
        let mut balances: Vec<Balance> = (0..count).map(|_| Balance::default()).collect();
        let mut loads = vec![0; count];
        for client in 0..self.scenario.clients.of(count) {
            let hot = self.below(100) < self.scenario.hot;
            let hashed = self.below(count as u64) as usize;
            let host = self.below(self.scenario.routes as u64) as usize;
            let mut worker = if hot { 0 } else { hashed };
            if self.scenario.balanced {
                worker = balances[worker].place(worker, count, |worker| loads[worker]);
            }
            loads[worker] += 1;
            self.clients.push(Client { worker, host, came: 0, asked: 0 });
            let at = self.below(self.costs.client + 1);
            self.deliver(at, worker, Item::Request(client));
        }
    }

    /// Runs it to the end.
    pub fn run(mut self) -> Report {
        let workers = self.workers.len();
        let zero =
            || Counts { answered: vec![0; workers], busy: vec![0; workers], ..Counts::default() };
        self.counts = zero();
        let mut warm = false;
        while let Some(Reverse(Due { order, event })) = self.events.pop() {
            self.now = order.0;
            if !warm && self.now >= WARM_UP {
                warm = true;
                self.counts = zero();
            }
            if self.now >= WARM_UP + RUN {
                break;
            }
            match event {
                Event::Deliver(worker, item) => self.notice(worker, item),
                Event::Step(worker) => self.step(worker),
            }
        }
        Report::new(workers, RUN, self.counts)
    }

    fn schedule(&mut self, at: Nanos, event: Event) {
        self.made += 1;
        self.events.push(Reverse(Due { order: (at, self.made), event }));
    }

    fn deliver(&mut self, at: Nanos, worker: usize, item: Item) {
        self.schedule(at, Event::Deliver(worker, item));
    }

    fn notice(&mut self, w: usize, item: Item) {
        if let Item::Request(client) = item {
            self.clients[client].came = self.now;
        }
        let worker = &mut self.workers[w];
        match item {
            Item::Taken | Item::Bridge(..) => worker.mail.push_back(item),
            Item::Pair { .. } => worker.pairs.push_back(item),
            Item::Request(_) | Item::Response(_) => worker.sockets.push_back(item),
        }
        if !worker.running {
            worker.running = true;
            // It was asleep in epoll_wait.
            self.schedule(self.now + self.costs.wake, Event::Step(w));
        }
    }

    /// The worker deals with its next item, or begins its next turn, or goes to sleep.
    fn step(&mut self, w: usize) {
        let worker = &mut self.workers[w];
        let cost = match worker.turn.pop_front() {
            Some(item) => self.deal_with(w, item),
            None => match self.begin_turn(w) {
                Some(cost) => cost,
                None => return,
            },
        };
        self.counts.busy[w] += cost;
        self.schedule(self.now + cost, Event::Step(w));
    }

    fn begin_turn(&mut self, w: usize) -> Option<Nanos> {
        let worker = &mut self.workers[w];
        worker.turn.append(&mut worker.mail);
        worker.turn.append(&mut worker.pairs);
        let events = worker.sockets.len().min(EVENTS);
        worker.turn.extend(worker.sockets.drain(..events));
        worker.running = !worker.turn.is_empty();
        worker.running.then_some(self.costs.turn)
    }

    /// Does it, and says how long it takes.
    fn deal_with(&mut self, w: usize, item: Item) -> Nanos {
        match item {
            Item::Request(client) => self.request(w, client),
            Item::Response(bridge) => self.response(w, bridge),
            Item::Pair { client, bridge } => {
                self.begin(client, bridge, self.costs.served);
                self.costs.served
            }
            // Its slot is freed.
            Item::Taken => self.costs.mail_read,
            Item::Bridge(bridge, transfer) => self.arrival(w, bridge, transfer),
        }
    }

    fn lock(&mut self, w: usize, host: usize) -> Nanos {
        self.locks[host].hold(w, self.now, &self.costs)
    }

    fn micros(&self) -> Micros {
        Micros(self.now / 1000)
    }

    fn request(&mut self, w: usize, client: usize) -> Nanos {
        if self.scenario.aim == Aim::Anywhere {
            self.clients[client].host = self.below(self.scenario.routes as u64) as usize;
        }
        self.clients[client].asked = self.now;
        let host = self.clients[client].host;
        let lock = self.lock(w, host);
        let (query, now) = (RouteQuery::new(&self.hosts[host], "/"), self.micros());
        match self.workers[w].scheduler.enqueue(client as u64, &query, now) {
            Enqueued::Matched { bridge, owner, .. } => {
                let mut cost = lock + self.costs.request;
                if owner.worker != w {
                    self.counts.taken += 1;
                    cost += self.costs.move_out + self.costs.move_in + self.costs.mail_sent;
                    self.bridges[bridge].worker = w;
                    self.deliver(self.now + cost, owner.worker, Item::Taken);
                }
                self.begin(client, bridge, cost);
                cost
            }
            Enqueued::Queued(_) => {
                self.counts.waited += 1;
                // Once to look, and once to enter the queue.
                lock + self.costs.lock + self.costs.waits
            }
            refused => panic!("nothing is refused: {refused:?}"),
        }
    }

    /// The request is sent to the backend, which answers when it has done it.
    fn begin(&mut self, client: usize, bridge: usize, cost: Nanos) {
        let [least, most] = self.costs.backend;
        let backend = least + self.below(most - least + 1);
        self.counts.waits.push(self.now - self.clients[client].asked);
        (self.bridges[bridge].client, self.bridges[bridge].backend) = (client, backend);
        let worker = self.bridges[bridge].worker;
        self.deliver(self.now + cost + backend, worker, Item::Response(bridge));
    }

    fn response(&mut self, w: usize, bridge: usize) -> Nanos {
        let Bridge { client, backend, .. } = self.bridges[bridge];
        let end = self.now + self.costs.response;
        self.counts.answered[w] += 1;
        self.counts.delays.push(end - self.clients[client].came - backend);
        self.deliver(end + self.costs.client, self.clients[client].worker, Item::Request(client));
        let cost = self.costs.response + self.lock(w, self.bridges[bridge].host);
        let route = &self.bridges[bridge].route;
        match self.workers[w].scheduler.park(route, Membership::default(), bridge as u64, bridge) {
            Parked::Idle(_) => cost,
            Parked::Serve { request, .. } => {
                self.workers[w].pairs.push_back(Item::Pair { client: request as usize, bridge });
                cost
            }
            Parked::Transfer { transfer, .. } => {
                self.counts.sent += 1;
                let cost = cost + self.costs.move_out + self.costs.mail_sent;
                self.deliver(self.now + cost, transfer.to, Item::Bridge(bridge, transfer));
                cost
            }
        }
    }

    fn arrival(&mut self, w: usize, bridge: usize, transfer: Transfer) -> Nanos {
        assert!(self.workers[w].scheduler.receive(transfer.waiter), "no client leaves");
        self.bridges[bridge].worker = w;
        let client = transfer.request as usize;
        self.workers[w].pairs.push_back(Item::Pair { client, bridge });
        self.costs.mail_read + self.costs.move_in
    }
}
