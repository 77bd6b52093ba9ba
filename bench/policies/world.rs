//! Servers, the requests on their way to them, and the clock. What a policy decides it does here.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::load::{Arrival, Arrivals, Load, SERVERS};
use crate::measures::{Outcome, Waits};

/// Virtual time, or a length of it.
pub type Nanos = u64;
/// A request, while it is under way.
pub type RequestId = usize;

/// The share of the requests at the beginning that is not counted.
const WARM_UP: f64 = 0.1;
/// If more than this share of all requests waits when the last one comes, the queues grow without
/// end.
const GROWS: f64 = 0.02;

/// How requests are given to servers. Whatever it does to other programs than its own, it does by
/// messages, which take the load's delay.
pub trait Policy {
    /// What its programs send each other, and its timers.
    type Message: Copy;

    /// A request has come to a proxy.
    fn arrive(&mut self, world: &mut World<Self::Message>, node: usize, request: RequestId);

    /// A request has reached a server. Servers of their own accord take one after another.
    fn reach(&mut self, world: &mut World<Self::Message>, server: usize, request: RequestId) {
        world.work_on(server, request);
    }

    /// A server has finished a request that the proxy had sent, and has begun the next one that
    /// waited there. This is seen at the server.
    fn finished(&mut self, world: &mut World<Self::Message>, node: usize, server: usize) {
        let _ = (world, node, server);
    }

    /// The response of a server has come to the proxy.
    fn answered(&mut self, world: &mut World<Self::Message>, node: usize, server: usize);

    /// A message has come.
    fn receive(&mut self, world: &mut World<Self::Message>, message: Self::Message) {
        let _ = (world, message);
    }
}

#[derive(Clone, Copy, Debug)]
enum Event<M> {
    Arrive(Arrival),
    Reach { server: usize, request: RequestId },
    Finish { server: usize },
    Answer { node: usize, server: usize },
    Message(M),
}

/// An event and its time; in the order of time, then of making.
#[derive(Clone, Copy, Debug)]
struct Due<M> {
    order: (Nanos, u64),
    event: Event<M>,
}

impl<M> PartialEq for Due<M> {
    fn eq(&self, other: &Due<M>) -> bool {
        self.order == other.order
    }
}

impl<M> Eq for Due<M> {}

impl<M> PartialOrd for Due<M> {
    fn partial_cmp(&self, other: &Due<M>) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<M> Ord for Due<M> {
    fn cmp(&self, other: &Due<M>) -> std::cmp::Ordering {
        self.order.cmp(&other.order)
    }
}

#[derive(Debug, Default)]
struct Server {
    slowness: f64,
    busy: Option<RequestId>,
    waiting: VecDeque<RequestId>,
}

#[derive(Debug)]
struct Request {
    arrival: Arrival,
    counted: bool,
}

/// A run under way.
#[derive(Debug)]
pub struct World<M> {
    load: Load,
    now: Nanos,
    events: BinaryHeap<Reverse<Due<M>>>,
    made: u64,
    servers: Vec<Server>,
    requests: Vec<Request>,
    free: Vec<RequestId>,
    waits: Waits,
    begun: u64,
    sent: u64,
    given_back: u64,
}

impl<M: Copy> World<M> {
    fn new(load: Load) -> World<M> {
        let server = |index| Server { slowness: load.service.slowness(index), ..Server::default() };
        World {
            load,
            now: 0,
            events: BinaryHeap::new(),
            made: 0,
            servers: (0..SERVERS).map(server).collect(),
            requests: Vec::new(),
            free: Vec::new(),
            waits: Waits::new(load.mean),
            begun: 0,
            sent: 0,
            given_back: 0,
        }
    }

    /// Runs `policy` on proxies, `nodes` of them, until all requests are done.
    pub fn run<P: Policy<Message = M>>(load: Load, nodes: usize, policy: &mut P) -> Outcome {
        let mut world = World::new(load);
        let mut arrivals = Arrivals::new(load, nodes);
        let warm_up = (load.requests as f64 * WARM_UP) as u64;
        let (mut came, mut grows) = (0, false);
        world.expect(arrivals.next());
        while let Some(Reverse(Due { order, event })) = world.events.pop() {
            world.now = order.0;
            match event {
                Event::Arrive(arrival) => {
                    let request = world.admit(arrival, came >= warm_up);
                    came += 1;
                    policy.arrive(&mut world, arrival.node, request);
                    if came == load.requests {
                        grows = (came - world.begun) as f64 > GROWS * came as f64;
                        if grows {
                            break;
                        }
                    }
                    world.expect(arrivals.next());
                }
                Event::Reach { server, request } => policy.reach(&mut world, server, request),
                Event::Finish { server } => {
                    let node = world.finish(server);
                    policy.finished(&mut world, node, server);
                }
                Event::Answer { node, server } => policy.answered(&mut world, node, server),
                Event::Message(message) => policy.receive(&mut world, message),
            }
            // Timers may go on forever.
            if came == load.requests && world.free.len() == world.requests.len() {
                break;
            }
        }
        let each = |count: u64| count as f64 / load.requests as f64;
        Outcome {
            grows,
            messages: each(world.sent),
            given_back: each(world.given_back),
            waits: world.waits,
        }
    }

    /// What time it is.
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// Sends a request to a server.
    pub fn send(&mut self, server: usize, request: RequestId) {
        self.schedule(self.load.delay, Event::Reach { server, request });
    }

    /// Sends a message that no request and no response carries.
    pub fn tell(&mut self, message: M) {
        self.sent += 1;
        self.schedule(self.load.delay, Event::Message(message));
    }

    /// Sends a message that brings a request back to its proxy.
    pub fn give_back(&mut self, message: M) {
        self.given_back += 1;
        self.schedule(self.load.delay, Event::Message(message));
    }

    /// Sets a timer.
    pub fn after(&mut self, time: Nanos, message: M) {
        self.schedule(time, Event::Message(message));
    }

    /// Has a server begin a request, now or after those that wait there.
    pub fn work_on(&mut self, server: usize, request: RequestId) {
        if self.servers[server].busy.is_some() {
            return self.servers[server].waiting.push_back(request);
        }
        self.begin(server, request);
    }

    /// Which proxy a request came to.
    pub fn node(&self, request: RequestId) -> usize {
        self.requests[request].arrival.node
    }

    fn schedule(&mut self, after: Nanos, event: Event<M>) {
        self.made += 1;
        self.events.push(Reverse(Due { order: (self.now + after, self.made), event }));
    }

    fn expect(&mut self, next: Option<Arrival>) {
        if let Some(arrival) = next {
            self.schedule(arrival.at - self.now, Event::Arrive(arrival));
        }
    }

    fn admit(&mut self, arrival: Arrival, counted: bool) -> RequestId {
        let request = Request { arrival, counted };
        match self.free.pop() {
            Some(id) => {
                self.requests[id] = request;
                id
            }
            None => {
                self.requests.push(request);
                self.requests.len() - 1
            }
        }
    }

    fn begin(&mut self, server: usize, request: RequestId) {
        let Request { arrival, counted } = self.requests[request];
        self.begun += 1;
        if counted {
            // One message there is with every policy.
            self.waits.add(self.now - arrival.at - self.load.delay);
        }
        self.servers[server].busy = Some(request);
        let time = arrival.work * self.servers[server].slowness;
        self.schedule(time as Nanos, Event::Finish { server });
    }

    /// The server's request ends, and its next one begins. Returns whose it was.
    fn finish(&mut self, server: usize) -> usize {
        let request = self.servers[server].busy.take().expect("it was working on one");
        let node = self.node(request);
        self.free.push(request);
        self.schedule(self.load.delay, Event::Answer { node, server });
        if let Some(next) = self.servers[server].waiting.pop_front() {
            self.begin(server, next);
        }
        node
    }

    /// Whether a server has nothing to do.
    pub fn is_idle(&self, server: usize) -> bool {
        self.servers[server].busy.is_none()
    }
}
