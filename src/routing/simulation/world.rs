//! The simulated workers, their mailboxes, and the bridges and requests that come and go.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::super::*;

pub(super) const NAMES: [&str; 4] = ["a.x.com", "b.x.com", "c.com", "other"];
pub(super) const PATHS: [&str; 3] = ["/", "/app?x", "/app/deep/y"];
pub(super) const PATTERNS: [&[&str]; 7] = [
    &["a.x.com"],
    &["b.x.com", "a.x.com"],
    &["*.x.com"],
    &["*.com"],
    &["*"],
    &["c.com", "*.x.com"],
    &["b.x.com"],
];
pub(super) const PREFIXES: [&str; 3] = ["", "/app", "/app/deep"];
/// Expressions that find nothing else than a part of a path that they are.
pub(super) const EXPRESSIONS: [&str; 3] = ["deep", "app", "/"];
/// The other names that a request may be served under.
pub(super) const FALLBACKS: [&str; 3] = ["c.com", "a.x.com", "*.x.com"];

/// How far the clock of one worker, read once a turn, may be behind, and how long it may stay in the middle of
/// something, in microseconds.
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
    pub(super) fallback: Option<&'static str>,
    pub(super) path: &'static str,
    pub(super) worker: usize,
    pub(super) state: RequestState,
    pub(super) place: Place,
}

impl Request {
    pub(super) fn target(&self) -> Target<'static> {
        Target { host: self.host, fallback: self.fallback, path: self.path }
    }
}

pub(super) enum Message {
    Mail(Mail),
    Bridge { bridge: u64, passage: Passage },
}

/// Where a worker stands in the middle of something.
pub(super) enum Middle {
    /// The bridge is published and has not looked yet.
    Park { bridge: u64, ticket: Ticket, came_by: Option<(u32, Passage)> },
    /// The request is about to enter its next queue.
    Enter { request: u64, key: u32 },
    /// The request is in a queue and has not looked yet.
    Look { request: u64, key: u32, route: u32 },
}

/// What the seed says of a world besides the order of events.
pub(super) struct Manner {
    pub(super) patterns: usize,
    pub(super) prefixes: usize,
    /// One route in so many is by an expression; 0 for none.
    pub(super) expressions: usize,
    /// One request in so many has a fallback; 0 for none.
    pub(super) fallbacks: usize,
    pub(super) names: usize,
    pub(super) bridges: usize,
    pub(super) requests: usize,
    /// One step in so many is a death or a departure.
    calm: u64,
    max_step_micros: u64,
}

pub(super) struct World {
    rng: u64,
    pub(super) manner: Manner,
    pub(super) now: u64,
    pub(super) directory: Arc<Directory>,
    pub(super) lobbies: Vec<Lobby>,
    pub(super) middle: Vec<Option<Middle>>,
    /// When each worker began what it is in the middle of, or did last.
    began: Vec<u64>,
    /// By sender and receiver; in order within each pair.
    pub(super) mail: Vec<VecDeque<Message>>,
    pub(super) bridges: BTreeMap<u64, Bridge>,
    pub(super) requests: BTreeMap<u64, Request>,
    pub(super) last: u64,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut world = World {
            rng: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x1234_5678_9ABC_DEF1,
            manner: Manner {
                patterns: 0,
                prefixes: 0,
                expressions: 0,
                fallbacks: 0,
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
            began: Vec::new(),
            mail: Vec::new(),
            bridges: BTreeMap::new(),
            requests: BTreeMap::new(),
            last: 0,
        };
        world.manner = Manner {
            patterns: world.pick(&[1, 1, 3, PATTERNS.len()]),
            prefixes: world.pick(&[1, 1, PREFIXES.len()]),
            expressions: world.pick(&[0, 0, 2, 4]),
            fallbacks: world.pick(&[0, 0, 2, 5]),
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
        world.lobbies =
            (0..workers).map(|me| Lobby::new(me, Arc::clone(&world.directory), bounds)).collect();
        world.began = vec![world.now; workers];
        world.middle = (0..workers).map(|_| None).collect();
        world.mail = (0..workers * workers).map(|_| VecDeque::new()).collect();
        world
    }

    /// splitmix64: any seed will do, 0 included.
    pub(super) fn random(&mut self) -> u64 {
        self.rng = self.rng.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.rng;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.random() % n as u64) as usize
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// The time as a worker has it.
    pub(super) fn clock(&mut self) -> u64 {
        self.now - self.random() % SKEW_MICROS
    }

    /// One thing happens on one worker.
    pub(super) fn step(&mut self) {
        let w = self.below(self.lobbies.len());
        self.time_passes(w);
        if let Some(middle) = self.middle[w].take() {
            self.go_on(w, middle);
        } else if self.random().is_multiple_of(self.manner.calm) {
            match self.below(8) {
                0 => self.kill_bridge(w),
                1 => self.client_leaves(w),
                2 => self.bridge_fails(w),
                3 => self.sweep(),
                4 => self.pin(),
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

    /// Some time, but none in which a worker would stay in the middle of something for longer than a turn takes.
    fn time_passes(&mut self, next: usize) {
        let later = self.now + self.random() % self.manner.max_step_micros;
        let begun = self.middle.iter().zip(&self.began).filter(|(middle, _)| middle.is_some());
        let latest = begun.map(|(_, began)| began + SKEW_MICROS).min();
        self.now = later.min(latest.unwrap_or(later)).max(self.now);
        if self.middle[next].is_none() {
            self.began[next] = self.now;
        }
    }

    /// What a worker does after each call: mail goes out, matches are carried out; then everything is checked.
    pub(super) fn after(&mut self, w: usize) {
        while let Some((to, mail)) = self.lobbies[w].next_mail() {
            self.post(w, to, Message::Mail(mail));
        }
        while let Some(found) = self.lobbies[w].next_match() {
            self.check_longest_parked(w, found.bridge);
            self.serve(w, found.bridge, found.request, found.place);
        }
        self.check_worker(w);
    }

    pub(super) fn post(&mut self, from: usize, to: usize, message: Message) {
        assert_ne!(from, to, "a worker writes to itself");
        let at = from * self.lobbies.len() + to;
        self.mail[at].push_back(message);
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
        self.directory.pin(&[], self.now);
        self.now += RETENTION_MICROS;
        self.directory.sweep(self.now);
        for w in 0..self.lobbies.len() {
            self.lobbies[w].sync();
            self.after(w);
        }
        self.check_end();
    }
}
