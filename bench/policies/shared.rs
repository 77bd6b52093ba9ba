//! Several of this proxy that share the places of agents (`doc/protocol.md`, "Places"). What an agent
//! decides is the product's own, too.
//!
//! An agent has some of the servers, and a bridge for each of them at every proxy. A request gets any
//! of its servers that is idle, whichever bridge it has come over.

use std::collections::VecDeque;
use std::time::Duration;

use cloudbridge::routing::places::{Arbiter, Arrival};
use cloudbridge::routing::{QueuePos, Telling, ToTell};

use crate::load::SERVERS;
use crate::proxy::{Given, Proxy, micros};
use crate::world::{Nanos, Policy, RequestId, World};

/// How often a proxy tells an agent how long requests wait.
const PAUSE: Nanos = 10_000_000;

/// What proxies and agents tell each other, and their timers.
#[derive(Clone, Copy, Debug)]
pub enum Message {
    /// An agent has so many places for a proxy.
    Places { agent: usize, proxy: usize, limit: usize, at: u64 },
    /// And gives a request back.
    GivenBack { bridge: usize, request: RequestId, limit: usize, at: u64 },
    /// The oldest request of a proxy has waited so long.
    Waiting { proxy: usize, agent: usize, waited: Option<Duration>, at: u64 },
    /// An agent may have something to say.
    AgentTimer { agent: usize },
    /// So may a proxy.
    ProxyTimer { proxy: usize },
}

struct Sharing {
    proxy: Proxy,
    /// A timer is set.
    is_telling: bool,
    said: u64,
}

struct Agent {
    arbiter: Arbiter,
    /// When the next timer goes off.
    timer: Option<Nanos>,
    said: u64,
}

/// The policy.
pub struct Shared {
    /// How many of them an agent has.
    places: usize,
    proxies: Vec<Sharing>,
    agents: Vec<Agent>,
    /// By request: the bridge that it was given, and its place in the order.
    sent: Vec<Option<Given>>,
    /// By server: the bridges of the requests whose responses the proxies do not have yet.
    used: Vec<VecDeque<usize>>,
}

impl Shared {
    /// So many proxies, with agents of so many places. Messages take `delay`.
    pub fn new(proxies: usize, places: usize, delay: Nanos) -> Shared {
        let agent = |_| {
            let mut arbiter = Arbiter::new(places);
            for _ in 0..proxies {
                let proxy = arbiter.add();
                arbiter.set_bridges(proxy, places);
                arbiter.set_round_trip(proxy, Duration::from_nanos(2 * delay));
            }
            Agent { arbiter, timer: None, said: 0 }
        };
        let sharing = |_| Sharing { proxy: Proxy::new(Some(places)), is_telling: false, said: 0 };
        Shared {
            places,
            proxies: (0..proxies).map(sharing).collect(),
            agents: (0..SERVERS / places).map(agent).collect(),
            sent: Vec::new(),
            used: vec![VecDeque::new(); SERVERS],
        }
    }

    fn send(&mut self, world: &mut World<Message>, given: Given) {
        if self.sent.len() <= given.request {
            self.sent.resize(given.request + 1, None);
        }
        self.sent[given.request] = Some(given);
        world.send(given.bridge, given.request);
    }

    /// A bridge is ready for the next request, if the agent has a place.
    fn park(&mut self, world: &mut World<Message>, proxy: usize, bridge: usize) {
        match self.proxies[proxy].proxy.park(bridge) {
            Some(given) => self.send(world, given),
            None if self.proxies[proxy].proxy.has_waiting() => self.begin_telling(world, proxy),
            None => self.decline(world, proxy),
        }
    }

    fn set_places(
        &mut self,
        world: &mut World<Message>,
        (proxy, agent): (usize, usize),
        limit: usize,
        at: u64,
    ) {
        self.proxies[proxy].proxy.set_places(agent, limit, at);
        while let Some(given) = self.proxies[proxy].proxy.next_given() {
            self.send(world, given);
        }
        self.decline(world, proxy);
    }

    fn decline(&mut self, world: &mut World<Message>, proxy: usize) {
        while let Some(telling) = self.proxies[proxy].proxy.next_declined() {
            self.say(world, proxy, &telling);
        }
    }

    /// A request waits, or a bridge is kept from those that do.
    fn begin_telling(&mut self, world: &mut World<Message>, proxy: usize) {
        if !self.proxies[proxy].is_telling {
            self.tell(world, proxy);
        }
    }

    fn tell(&mut self, world: &mut World<Message>, proxy: usize) {
        let now = world.now();
        let sharing = &mut self.proxies[proxy];
        let ToTell { tellings, again } = sharing.proxy.tell(now, PAUSE);
        sharing.is_telling = again.is_some();
        for telling in tellings {
            self.say(world, proxy, &telling);
        }
        if let Some(again) = again {
            let after = (again.0 * 1000).saturating_sub(now).max(1);
            world.after(after, Message::ProxyTimer { proxy });
        }
    }

    fn say(&mut self, world: &mut World<Message>, proxy: usize, telling: &Telling) {
        let now = micros(world.now());
        let waited = telling.oldest.map(|oldest| now.since(oldest));
        self.proxies[proxy].said += 1;
        world.tell(Message::Waiting {
            proxy,
            agent: telling.owner.token as usize / self.places,
            // It is told in milliseconds.
            waited: waited.map(|waited| Duration::from_millis(waited.as_millis() as u64)),
            at: self.proxies[proxy].said,
        });
    }

    /// The end of a turn of an agent.
    fn turn(&mut self, world: &mut World<Message>, number: usize) {
        let now = world.now();
        let agent = &mut self.agents[number];
        while let Some((proxy, limit)) = agent.arbiter.due(micros(now)) {
            agent.said += 1;
            world.tell(Message::Places { agent: number, proxy, limit, at: agent.said });
        }
        let Some(due) = agent.arbiter.next_deadline() else { return };
        // Not before the product's clock has come to it.
        let due = (due.0 * 1000).max(now + 1);
        if agent.timer.is_none_or(|set| due < set) {
            agent.timer = Some(due);
            world.after(due - now, Message::AgentTimer { agent: number });
        }
    }

    fn begin(&mut self, world: &mut World<Message>, bridge: usize, request: RequestId) {
        let first = bridge / self.places * self.places;
        let mut servers = first..first + self.places;
        let idle = servers.find(|server| world.is_idle(*server));
        let server = idle.expect("the arbiter has counted them");
        self.used[server].push_back(bridge);
        world.work_on(server, request);
    }
}

impl Policy for Shared {
    type Message = Message;

    fn arrive(&mut self, world: &mut World<Message>, node: usize, request: RequestId) {
        match self.proxies[node].proxy.enqueue(request, world.now()) {
            Some(given) => self.send(world, given),
            None => self.begin_telling(world, node),
        }
    }

    fn reach(&mut self, world: &mut World<Message>, bridge: usize, request: RequestId) {
        let (proxy, number, now) = (world.node(request), bridge / self.places, micros(world.now()));
        let agent = &mut self.agents[number];
        match agent.arbiter.arrives(proxy, true, now) {
            Arrival::Take => self.begin(world, bridge, request),
            Arrival::GiveBack(limit) => {
                agent.said += 1;
                let at = agent.said;
                world.give_back(Message::GivenBack { bridge, request, limit, at });
            }
            Arrival::Wait => unreachable!("all of them can be given back"),
        }
        self.turn(world, number);
    }

    fn finished(&mut self, world: &mut World<Message>, node: usize, server: usize) {
        let number = server / self.places;
        self.agents[number].arbiter.ends(node, micros(world.now()));
        self.turn(world, number);
    }

    fn answered(&mut self, world: &mut World<Message>, node: usize, server: usize) {
        let bridge = self.used[server].pop_front().expect("a request came over it");
        self.park(world, node, bridge);
    }

    fn receive(&mut self, world: &mut World<Message>, message: Message) {
        match message {
            Message::Places { agent, proxy, limit, at } => {
                self.set_places(world, (proxy, agent), limit, at);
            }
            Message::GivenBack { bridge, request, limit, at } => {
                let (proxy, agent) = (world.node(request), bridge / self.places);
                self.set_places(world, (proxy, agent), limit, at);
                self.park(world, proxy, bridge);
                let pos: QueuePos = self.sent[request].expect("it was sent").pos;
                match self.proxies[proxy].proxy.requeue(request, pos, agent) {
                    Some(given) => self.send(world, given),
                    None => self.begin_telling(world, proxy),
                }
            }
            Message::Waiting { proxy, agent, waited, at } => {
                let now = micros(world.now());
                self.agents[agent].arbiter.waits(proxy, waited, at, now);
                self.turn(world, agent);
            }
            Message::AgentTimer { agent } => {
                if self.agents[agent].timer == Some(world.now()) {
                    self.agents[agent].timer = None;
                }
                self.turn(world, agent);
            }
            Message::ProxyTimer { proxy } => self.tell(world, proxy),
        }
    }
}
