//! The simulated workers, their mailboxes, and the bridges and requests that come and go.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::super::arrival::{Admission, Begun, Step};
use super::super::*;

const NAMES: [&str; 4] = ["a.x.com", "b.x.com", "c.com", "other"];
const PATHS: [&str; 3] = ["/", "/app?x", "/app/deep/y"];
const PATTERNS: [&[&str]; 7] = [
    &["a.x.com"],
    &["b.x.com", "a.x.com"],
    &["*.x.com"],
    &["*.com"],
    &["*"],
    &["c.com", "*.x.com"],
    &["b.x.com"],
];
const PREFIXES: [&str; 3] = ["", "/app", "/app/deep"];

/// How far the clock of one worker, read once a turn, may be behind, in microseconds.
const SKEW_MICROS: u64 = 1_000;

pub(super) enum BridgeState {
    Parked {
        ticket: Ticket,
        order: u64,
    },
    Busy {
        request: u64,
    },
    Moving,
    /// Between the two halves of parking.
    Parking,
}

pub(super) struct Bridge {
    pub(super) spec: RouteSpec,
    pub(super) worker: usize,
    /// As `worker` names it; while moving, of no meaning.
    pub(super) route: RouteId,
    pub(super) state: BridgeState,
}

pub(super) enum RequestState {
    Entering,
    Waiting(WaiterId),
    Served,
}

pub(super) struct Request {
    pub(super) host: &'static str,
    pub(super) path: &'static str,
    pub(super) worker: usize,
    pub(super) state: RequestState,
    pub(super) place: Place,
}

pub(super) enum Message {
    Mail(Mail),
    Bridge { bridge: u64, passage: Passage },
}

/// Where a worker stands in the middle of something.
pub(super) enum Middle {
    /// The bridge is published and has not looked yet.
    Park {
        bridge: u64,
        ticket: Ticket,
        came_by: Option<(u32, Passage)>,
    },
    /// The request is about to enter its next queue.
    Enter { request: u64, key: u32 },
    /// The request is in a queue and has not looked yet.
    Look { request: u64, key: u32, route: u32 },
}

/// What the seed says of a world besides the order of events.
struct Manner {
    patterns: usize,
    prefixes: usize,
    names: usize,
    bridges: usize,
    requests: usize,
    /// One step in so many is a death or a departure.
    calm: u64,
    max_step_micros: u64,
}

pub(super) struct World {
    rng: u64,
    manner: Manner,
    pub(super) now: u64,
    pub(super) directory: Arc<Directory>,
    pub(super) lobbies: Vec<Lobby>,
    pub(super) middle: Vec<Option<Middle>>,
    /// By sender and receiver; in order within each pair.
    pub(super) mail: Vec<VecDeque<Message>>,
    pub(super) bridges: BTreeMap<u64, Bridge>,
    pub(super) requests: BTreeMap<u64, Request>,
    last: u64,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut world = World {
            rng: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x1234_5678_9ABC_DEF1,
            manner: Manner {
                patterns: 0,
                prefixes: 0,
                names: 0,
                bridges: 0,
                requests: 0,
                calm: 0,
                max_step_micros: 0,
            },
            now: 1_000_000,
            directory: Arc::new(Directory::new(1)),
            lobbies: Vec::new(),
            middle: Vec::new(),
            mail: Vec::new(),
            bridges: BTreeMap::new(),
            requests: BTreeMap::new(),
            last: 0,
        };
        world.manner = Manner {
            patterns: world.pick(&[1, 1, 3, PATTERNS.len()]),
            prefixes: world.pick(&[1, 1, PREFIXES.len()]),
            names: world.pick(&[1, 2, NAMES.len()]),
            bridges: world.pick(&[1, 3, 8, 20]),
            requests: world.pick(&[1, 4, 12, 30]),
            calm: world.pick(&[3, 10, 40]),
            max_step_micros: world.pick(&[2, 200, 3_000]),
        };
        let workers = world.pick(&[1, 2, 2, 3, 4, 8]);
        let bounds = Bounds {
            per_route: world.pick(&[4, 1_000]),
            unserved: world.pick(&[2, 1_000]),
            unserved_waits: world.below(8) != 0,
            bridges_per_host: world.pick(&[0, 0, 0, 5]),
        };
        world.directory = Arc::new(Directory::new(workers));
        world.lobbies = (0..workers)
            .map(|me| Lobby::new(me, Arc::clone(&world.directory), bounds))
            .collect();
        world.middle = (0..workers).map(|_| None).collect();
        world.mail = (0..workers * workers).map(|_| VecDeque::new()).collect();
        world
    }

    /// splitmix64: any seed will do, 0 included.
    fn random(&mut self) -> u64 {
        self.rng = self.rng.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.rng;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.random() % n as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// The time as a worker has it.
    fn clock(&mut self) -> u64 {
        self.now - self.random() % SKEW_MICROS
    }

    /// One thing happens on one worker.
    pub(super) fn step(&mut self) {
        self.now += self.random() % self.manner.max_step_micros;
        let w = self.below(self.lobbies.len());
        if let Some(middle) = self.middle[w].take() {
            self.go_on(w, middle);
        } else if self.random().is_multiple_of(self.manner.calm) {
            match self.below(7) {
                0 => self.kill_bridge(w),
                1 => self.client_leaves(w),
                2 => self.bridge_fails(w),
                3 => self.sweep(),
                _ => self.finish_exchange(w),
            }
        } else {
            match self.below(10) {
                0 => self.connect_bridge(w),
                1..=3 => self.request_arrives(w),
                4..=5 => self.finish_exchange(w),
                6 => self.lobbies[w].sync(),
                _ => self.deliver_any(w),
            }
        }
        self.after(w);
    }

    /// What a worker does after each call: mail goes out, matches are carried out; then everything is checked.
    fn after(&mut self, w: usize) {
        while let Some((to, mail)) = self.lobbies[w].next_mail() {
            self.post(w, to, Message::Mail(mail));
        }
        while let Some(found) = self.lobbies[w].next_match() {
            self.check_longest_parked(w, found.bridge);
            self.serve(w, found.bridge, found.request, found.place);
        }
        self.check_worker(w);
    }

    fn post(&mut self, from: usize, to: usize, message: Message) {
        assert_ne!(from, to, "a worker writes to itself");
        let at = from * self.lobbies.len() + to;
        self.mail[at].push_back(message);
    }

    fn connect_bridge(&mut self, w: usize) {
        if self.bridges.len() >= self.manner.bridges {
            return;
        }
        let patterns = PATTERNS[self.below(self.manner.patterns)];
        let spec = RouteSpec::new(patterns, PREFIXES[self.below(self.manner.prefixes)]);
        let now = self.clock();
        let joined = match self.lobbies[w].join(&spec, now) {
            Ok(joined) => joined,
            Err(full) => return self.check_full(&full),
        };
        self.last += 1;
        let state = BridgeState::Parking;
        self.bridges.insert(
            self.last,
            Bridge {
                spec,
                worker: w,
                route: joined.route,
                state,
            },
        );
        self.after(w);
        self.park(w, self.last, None);
    }

    /// The first half of parking; or, half of the time, all of it at once.
    fn park(&mut self, w: usize, bridge: u64, came_by: Option<Passage>) {
        let now = self.clock();
        self.bridges.get_mut(&bridge).unwrap().state = BridgeState::Parking;
        let route = match came_by {
            Some(passage) if self.below(2) == 0 => {
                let elder = self.elder_elsewhere(w, passage.route);
                let landing = self.lobbies[w].arrived(passage, bridge, now);
                self.bridges.get_mut(&bridge).unwrap().route = landing.route;
                return self.parked(w, bridge, landing.parking, elder);
            }
            Some(passage) => {
                let r = self.lobbies[w].route_of_member(passage.route);
                self.lobbies[w].name(r)
            }
            None => self.bridges[&bridge].route,
        };
        self.bridges.get_mut(&bridge).unwrap().route = route;
        let id = self.lobbies[w].shared(route).id();
        let elder = self.elder_elsewhere(w, id);
        let r = self.lobbies[w].resolve(route);
        match self.lobbies[w].begin_park(r, bridge, now) {
            Parking::Parked(ticket) => {
                let came_by = came_by.map(|passage| (r, passage));
                self.middle[w] = Some(Middle::Park {
                    bridge,
                    ticket,
                    came_by,
                });
            }
            parking => {
                self.parked(w, bridge, parking, elder);
                if let Some(passage) = came_by {
                    self.lobbies[w].end_passage(r, passage);
                }
            }
        }
    }

    fn parked(&mut self, w: usize, bridge: u64, parking: Parking, elder: Option<u64>) {
        match parking {
            Parking::Serve { request, place } => {
                let passed = elder.is_some_and(|elder| elder + FAIRNESS_MICROS < place.since());
                assert!(
                    !passed,
                    "a request was served before a much older one elsewhere"
                );
                self.serve(w, bridge, request, place);
            }
            Parking::Send { to, passage } => self.send(w, bridge, to, passage),
            Parking::Parked(ticket) => {
                self.last += 1;
                let state = BridgeState::Parked {
                    ticket,
                    order: self.last,
                };
                self.bridges.get_mut(&bridge).unwrap().state = state;
            }
        }
    }

    fn send(&mut self, w: usize, bridge: u64, to: usize, passage: Passage) {
        let now = self.clock();
        if self.below(12) == 0 {
            let gone = self.bridges.remove(&bridge).unwrap();
            return self.lobbies[w].undeliverable(gone.route, to, passage, now);
        }
        self.bridges.get_mut(&bridge).unwrap().state = BridgeState::Moving;
        self.post(w, to, Message::Bridge { bridge, passage });
    }

    fn serve(&mut self, w: usize, bridge: u64, request: u64, place: Place) {
        self.check_serve(w, bridge, request, place);
        self.bridges.get_mut(&bridge).unwrap().state = BridgeState::Busy { request };
        self.requests.get_mut(&request).unwrap().state = RequestState::Served;
    }

    fn request_arrives(&mut self, w: usize) {
        if self.requests.len() >= self.manner.requests {
            return;
        }
        let (host, path) = (NAMES[self.below(self.manner.names)], self.pick(&PATHS));
        self.last += 1;
        let request = self.last;
        let now = self.clock();
        let lobby = &mut self.lobbies[w];
        // As `Lobby::arrive` does it; the steps are taken one by one.
        lobby.last_seq += 1;
        let place = Place {
            seq: lobby.last_seq,
            since: now,
        };
        let state = RequestState::Entering;
        self.requests.insert(
            request,
            Request {
                host,
                path,
                worker: w,
                state,
                place,
            },
        );
        self.begin_arrival(w, request, Admission::Bounded);
    }

    fn begin_arrival(&mut self, w: usize, request: u64, admission: Admission) {
        let Request {
            host, path, place, ..
        } = self.requests[&request];
        let most_specific = self.first_with_bridge(w, host, path);
        match self.lobbies[w].begin_arrival(request, place, host, path, admission) {
            Begun::Over(Arrival::Matched {
                bridge,
                route,
                place,
            }) => {
                assert_eq!(Some(route), most_specific, "a less specific route served");
                self.check_longest_parked(w, bridge);
                self.serve(w, bridge, request, place);
            }
            Begun::Over(refusal) => {
                self.check_refusal(w, request, refusal, admission);
                self.requests.remove(&request);
            }
            Begun::Waiter(key) => self.middle[w] = Some(Middle::Enter { request, key }),
        }
    }

    fn go_on(&mut self, w: usize, middle: Middle) {
        match middle {
            Middle::Park {
                bridge,
                ticket,
                came_by,
            } => {
                let parking = self.lobbies[w].finish_park(ticket);
                self.parked(w, bridge, parking, None);
                if let Some((r, passage)) = came_by {
                    self.lobbies[w].end_passage(r, passage);
                }
            }
            Middle::Enter { request, key } => match self.lobbies[w].publish_step(key) {
                Step::Matched(found) => {
                    assert_eq!(found.request, request);
                    self.check_longest_parked(w, found.bridge);
                    self.serve(w, found.bridge, request, found.place);
                }
                Step::Published(route) => {
                    self.middle[w] = Some(Middle::Look {
                        request,
                        key,
                        route,
                    })
                }
                Step::Everywhere => self.waits(w, request, key),
            },
            Middle::Look {
                request,
                key,
                route,
            } => match self.lobbies[w].look_step(key, route) {
                ControlFlow::Continue(()) => self.middle[w] = Some(Middle::Enter { request, key }),
                ControlFlow::Break(()) => self.waits(w, request, key),
            },
        }
    }

    fn waits(&mut self, w: usize, request: u64, key: u32) {
        let id = self.lobbies[w].waiters.id(key);
        self.requests.get_mut(&request).unwrap().state = RequestState::Waiting(id);
    }

    /// One of this worker's bridges for which `which` holds.
    fn any_bridge(&mut self, w: usize, which: impl Fn(&BridgeState) -> bool) -> Option<u64> {
        let here = |bridge: &Bridge| bridge.worker == w && which(&bridge.state);
        let found: Vec<_> = self
            .bridges
            .iter()
            .filter(|(_, bridge)| here(bridge))
            .map(|(id, _)| *id)
            .collect();
        (!found.is_empty()).then(|| found[self.below(found.len())])
    }

    fn finish_exchange(&mut self, w: usize) {
        let Some(bridge) = self.any_bridge(w, |state| matches!(state, BridgeState::Busy { .. }))
        else {
            return;
        };
        let BridgeState::Busy { request } = self.bridges[&bridge].state else {
            unreachable!()
        };
        self.requests.remove(&request);
        self.park(w, bridge, None);
    }

    /// A bridge dies before anything of the request was lost.
    fn bridge_fails(&mut self, w: usize) {
        let Some(bridge) = self.any_bridge(w, |state| matches!(state, BridgeState::Busy { .. }))
        else {
            return;
        };
        let gone = self.bridges.remove(&bridge).unwrap();
        let BridgeState::Busy { request } = gone.state else {
            unreachable!()
        };
        let now = self.clock();
        self.lobbies[w].leave(gone.route, now);
        self.requests.get_mut(&request).unwrap().state = RequestState::Entering;
        self.begin_arrival(w, request, Admission::Returning);
    }

    fn kill_bridge(&mut self, w: usize) {
        let Some(bridge) = self.any_bridge(w, |state| matches!(state, BridgeState::Parked { .. }))
        else {
            return;
        };
        let gone = self.bridges.remove(&bridge).unwrap();
        let BridgeState::Parked { ticket, .. } = gone.state else {
            unreachable!()
        };
        let now = self.clock();
        assert!(self.lobbies[w].unpark(ticket));
        assert!(!self.lobbies[w].unpark(ticket));
        self.lobbies[w].leave(gone.route, now);
    }

    fn client_leaves(&mut self, w: usize) {
        let waits = |request: &Request| match request.state {
            RequestState::Waiting(id) if request.worker == w => Some(id),
            _ => None,
        };
        let found: Vec<_> = self
            .requests
            .iter()
            .filter_map(|(id, request)| Some((*id, waits(request)?)))
            .collect();
        if found.is_empty() {
            return;
        }
        let (request, waiter) = found[self.below(found.len())];
        assert!(self.lobbies[w].forget(waiter));
        assert!(!self.lobbies[w].forget(waiter));
        self.requests.remove(&request);
    }

    fn sweep(&mut self) {
        if self.below(4) == 0 {
            self.now += RETENTION_MICROS;
        }
        self.directory.sweep(self.now);
    }

    /// Delivers the next message from somebody to `w`.
    fn deliver_any(&mut self, w: usize) {
        let workers = self.lobbies.len();
        let first = self.below(workers);
        if let Some(from) = (0..workers)
            .map(|step| (first + step) % workers)
            .find(|from| !self.mail[from * workers + w].is_empty())
        {
            self.deliver(from, w);
        }
    }

    pub(super) fn deliver(&mut self, from: usize, w: usize) {
        let at = from * self.lobbies.len() + w;
        match self.mail[at].pop_front().unwrap() {
            Message::Mail(mail) => {
                let Some(handover) = self.lobbies[w].on_mail(mail) else {
                    return;
                };
                self.check_longest_parked(w, handover.bridge);
                self.send(w, handover.bridge, handover.to, handover.passage);
            }
            Message::Bridge { bridge, passage } if self.below(12) == 0 => {
                let now = self.clock();
                self.lobbies[w].lost(passage, now);
                self.bridges.remove(&bridge);
            }
            Message::Bridge { bridge, passage } => {
                self.bridges.get_mut(&bridge).unwrap().worker = w;
                self.park(w, bridge, Some(passage));
            }
        }
    }

    /// Lets everything that is under way come to its end, and checks what must hold then.
    pub(super) fn rest(&mut self) {
        let workers = self.lobbies.len();
        // Far more than any chain of messages that ends: there are at most 50 bridges and requests.
        for _ in 0..100_000 {
            for w in 0..workers {
                while let Some(middle) = self.middle[w].take() {
                    self.go_on(w, middle);
                    self.after(w);
                }
                self.lobbies[w].sync();
                self.after(w);
                let from = (0..workers).find(|from| !self.mail[from * workers + w].is_empty());
                if let Some(from) = from {
                    self.deliver(from, w);
                    self.after(w);
                }
            }
            if self.middle.iter().all(Option::is_none) && self.mail.iter().all(VecDeque::is_empty) {
                return self.check_rest();
            }
        }
        panic!("messages go round and round");
    }

    /// Everybody leaves, and nothing remains.
    pub(super) fn end(&mut self) {
        for w in 0..self.lobbies.len() {
            for _ in 0..1_000 {
                self.kill_bridge(w);
                self.client_leaves(w);
                self.after(w);
            }
        }
        while let Some((_, bridge)) = self.bridges.pop_first() {
            self.lobbies[bridge.worker].leave(bridge.route, self.now);
        }
        self.requests.clear();
        self.now += RETENTION_MICROS;
        self.directory.sweep(self.now);
        for w in 0..self.lobbies.len() {
            self.lobbies[w].sync();
            self.after(w);
        }
        self.check_end();
    }
}
