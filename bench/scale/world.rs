//! Virtual workers with clocks of their own, around the real matching.
//!
//! A worker deals with one item at a time, which occupies it for as long as [`Costs`] says; meanwhile other workers'
//! items come in between, so that lobbies see each other's counts at the time that they would. Its turns are the
//! proxy's: mail first, then the pairs that the lobby has found, then what the sockets have brought. Bridges that move
//! leave at once; what the lobby has to say to others leaves at the end of the turn.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use cloudbridge::routing::{
    Arrival, Bounds, Directory, Landing, Lobby, Mail, Parking, Passage, RouteId, RouteSpec, Target,
};

use crate::costs::{Costs, Nanos};
use crate::lines::Lines;
use crate::measures::{Counts, Report};
use crate::scenario::{Aim, Scenario};

/// The load runs this long before anything is counted: longer than bridges need to settle where they are used.
const WARM_UP: Nanos = 100_000_000;
/// And this long while it is.
const RUN: Nanos = 150_000_000;
/// Events that one turn takes from the kernel, as in the proxy.
const EVENTS: usize = 512;
/// Nobody is turned away: what is asked for is how long they wait.
const BOUNDS: Bounds = Bounds {
    per_route: usize::MAX,
    unserved: usize::MAX,
    unserved_waits: true,
    bridges_per_host: 0,
};

/// Something for a worker to do.
#[derive(Clone, Copy, Debug)]
enum Item {
    Mail(Mail),
    Bridge(usize, Passage),
    Pair { client: usize, bridge: usize },
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
    lobby: Lobby,
    mail: VecDeque<Item>,
    pairs: VecDeque<Item>,
    sockets: VecDeque<Item>,
    /// What is left of this turn.
    turn: VecDeque<Item>,
    /// The lobby's mail; it leaves at the end of the turn.
    outgoing: Vec<(usize, Item)>,
    /// A step of this worker is among the events.
    running: bool,
}

struct Client {
    worker: usize,
    host: usize,
    /// When its request came to the socket, and when to the lobby.
    came: Nanos,
    asked: Nanos,
}

struct Bridge {
    worker: usize,
    route: RouteId,
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
    lines: Vec<Lines>,
    counts: Counts,
    rng: u64,
    now: Nanos,
}

impl<'s> World<'s> {
    /// A world in which everybody has just connected.
    pub fn new(scenario: &'s Scenario, workers: usize, costs: Costs) -> World<'s> {
        let directory = Arc::new(Directory::new(workers));
        let worker = |me| Worker {
            lobby: Lobby::new(me, Arc::clone(&directory), BOUNDS),
            mail: VecDeque::new(),
            pairs: VecDeque::new(),
            sockets: VecDeque::new(),
            turn: VecDeque::new(),
            outgoing: Vec::new(),
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
            lines: vec![Lines::new(workers); scenario.routes],
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
            let lobby = &mut self.workers[worker].lobby;
            let spec = RouteSpec::new([&self.hosts[host]], "");
            let route = lobby.join(&spec, 0).expect("bridges are not bounded").route;
            let parking = lobby.park(route, bridge as u64, 0);
            assert!(matches!(parking, Parking::Parked(_)), "nobody waits yet: {parking:?}");
            self.bridges.push(Bridge { worker, route, host, client: 0, backend: 0 });
        }
        self.workers.iter_mut().for_each(|worker| worker.lobby.sync());
    }

    fn connect_clients(&mut self) {
        let count = self.workers.len();
        for client in 0..self.scenario.clients.of(count) {
            let hot = self.below(100) < self.scenario.hot;
            let hashed = self.below(count as u64) as usize;
            let host = self.below(self.scenario.routes as u64) as usize;
            let worker = if hot { 0 } else { hashed };
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
            Item::Mail(_) | Item::Bridge(..) => worker.mail.push_back(item),
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
        let end = self.now + cost;
        if self.workers[w].turn.is_empty() {
            let mut outgoing = std::mem::take(&mut self.workers[w].outgoing);
            for (to, item) in outgoing.drain(..) {
                self.deliver(end, to, item);
            }
            self.workers[w].outgoing = outgoing;
        }
        self.schedule(end, Event::Step(w));
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
        let cost = match item {
            Item::Request(client) => self.request(w, client),
            Item::Response(bridge) => self.response(w, bridge),
            Item::Pair { client, bridge } => {
                self.begin(client, bridge, self.costs.served);
                self.costs.served
            }
            Item::Mail(mail) => self.mail(w, mail),
            Item::Bridge(bridge, passage) => self.landing(w, bridge, passage),
        };
        cost + self.flush(w)
    }

    /// Takes over what the lobby has left behind.
    fn flush(&mut self, w: usize) -> Nanos {
        let mut cost = 0;
        while let Some((to, mail)) = self.workers[w].lobby.next_mail() {
            self.counts.mails += 1;
            cost += self.costs.mail_sent;
            self.workers[w].outgoing.push((to, Item::Mail(mail)));
        }
        while let Some(found) = self.workers[w].lobby.next_match() {
            let bridge = found.bridge as usize;
            self.lines[self.bridges[bridge].host].parked_changes(w, self.now);
            cost += self.pair(w, found.request as usize, bridge);
        }
        cost
    }

    fn pair(&mut self, w: usize, client: usize, bridge: usize) -> Nanos {
        self.workers[w].pairs.push_back(Item::Pair { client, bridge });
        self.lines[self.bridges[bridge].host].is_served(w, self.now, &self.costs)
    }

    fn request(&mut self, w: usize, client: usize) -> Nanos {
        if self.scenario.aim == Aim::Anywhere {
            self.clients[client].host = self.below(self.scenario.routes as u64) as usize;
        }
        self.clients[client].asked = self.now;
        let host = self.clients[client].host;
        let lobby = &mut self.workers[w].lobby;
        match lobby.arrive(client as u64, &Target::new(&self.hosts[host], "/"), self.now / 1000) {
            Arrival::Matched { bridge, .. } => {
                self.lines[host].parked_changes(w, self.now);
                self.begin(client, bridge as usize, self.costs.request);
                self.costs.request
            }
            Arrival::Waiting(_) => {
                self.counts.waited += 1;
                self.costs.waits + self.lines[host].waits(w, self.now, &self.costs)
            }
            refused => panic!("nobody is refused: {refused:?}"),
        }
    }

    /// The request goes to the backend, which sends its answer when it has it.
    fn begin(&mut self, client: usize, bridge: usize, cost: Nanos) {
        let [least, most] = self.costs.backend;
        let backend = least + self.below(most - least + 1);
        self.counts.waits.push(self.now - self.clients[client].asked);
        (self.bridges[bridge].client, self.bridges[bridge].backend) = (client, backend);
        let worker = self.bridges[bridge].worker;
        self.deliver(self.now + cost + backend, worker, Item::Response(bridge));
    }

    fn response(&mut self, w: usize, bridge: usize) -> Nanos {
        let Bridge { route, client, backend, .. } = self.bridges[bridge];
        let end = self.now + self.costs.response;
        self.counts.answered[w] += 1;
        self.counts.delays.push(end - self.clients[client].came - backend);
        self.deliver(end + self.costs.client, self.clients[client].worker, Item::Request(client));
        let parking = self.workers[w].lobby.park(route, bridge as u64, self.now / 1000);
        self.costs.response + self.place(w, bridge, parking)
    }

    fn place(&mut self, w: usize, bridge: usize, parking: Parking) -> Nanos {
        let lines = &mut self.lines[self.bridges[bridge].host];
        match parking {
            Parking::Parked(_) => {
                lines.parked_changes(w, self.now);
                lines.looks_for_waiters(w, self.now, &self.costs)
            }
            Parking::Serve { request, .. } => {
                let since = self.clients[request as usize].asked;
                let look = lines.looks_for_elders(w, since, self.now, &self.costs);
                look + self.pair(w, request as usize, bridge)
            }
            Parking::Send { to, passage } => {
                let look = lines.looks_for_waiters(w, self.now, &self.costs);
                look + self.send(bridge, to, passage)
            }
        }
    }

    fn send(&mut self, bridge: usize, to: usize, passage: Passage) -> Nanos {
        let cost = self.costs.move_out + self.costs.mail_sent;
        self.counts.moves += 1;
        self.deliver(self.now + cost, to, Item::Bridge(bridge, passage));
        cost
    }

    fn mail(&mut self, w: usize, mail: Mail) -> Nanos {
        let cost = self.costs.mail_read;
        match self.workers[w].lobby.on_mail(mail) {
            Some(handover) => {
                let host = self.bridges[handover.bridge as usize].host;
                self.lines[host].parked_changes(w, self.now);
                cost + self.send(handover.bridge as usize, handover.to, handover.passage)
            }
            None => cost,
        }
    }

    fn landing(&mut self, w: usize, bridge: usize, passage: Passage) -> Nanos {
        let Landing { route, parking } =
            self.workers[w].lobby.arrived(passage, bridge as u64, self.now / 1000);
        self.bridges[bridge].worker = w;
        self.bridges[bridge].route = route;
        let cost = self.costs.mail_read + self.costs.move_in;
        cost + self.place(w, bridge, parking)
    }
}
