//! The simulated workers, the bridges and requests that come and go, and what can happen to them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use std::net::Ipv4Addr;
use std::time::Duration;

use httparse::Header;

use super::super::scheduler::Step;
use super::super::*;
use crate::http::{Framing, Predicates, RequestFacts};
use crate::time::Micros;

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
/// Expressions that match only as literal substrings of a path.
const EXPRESSIONS: [&str; 3] = ["deep", "app", "/"];
/// The other names that a request may be served under.
const FALLBACKS: [&str; 3] = ["c.com", "a.x.com", "*.x.com"];

/// Most steps of a worker's stall.
const LONGEST_STALL: usize = 60;

/// How many backends the bridges are of.
const BACKENDS: usize = 3;

/// What bridges demand of requests, in a world where some do.
const PREDICATES: [&str; 4] =
    ["If-Method: GET", "If-Header: x=1", "If-Method: GET; If-Header: x=1", "If-Method: POST"];

/// The requests that differ in this: by method, and by whether they have the field.
const KINDS: [Kind; 4] = [("GET", false), ("GET", true), ("POST", false), ("POST", true)];

/// A method, and whether there is the field `x: 1`.
pub(super) type Kind = (&'static str, bool);

const MEETS: [Meets<'static>; 4] =
    [&|p| meets(0, p), &|p| meets(1, p), &|p| meets(2, p), &|p| meets(3, p)];

fn meets(kind: usize, predicates: &Predicates) -> bool {
    let (method, has_field) = KINDS[kind];
    let fields = [Header { name: "X", value: b"1" }];
    let fields = &fields[..usize::from(has_field)];
    let peer = Ipv4Addr::LOCALHOST.into();
    predicates.are_met_by(&RequestFacts::new(method, "/", fields, Framing::None, peer, &[]))
}

/// How many instances the bridges are of, in a world that has some.
const INSTANCES: u64 = 3;

/// How far the clock of one worker, read once a turn, may be behind.
const SKEW: u64 = 1_000;

pub(super) enum BridgeState {
    Idle {
        handle: IdleHandle,
        order: u64,
    },
    Busy {
        request: u64,
    },
    Moving,
    /// Its backend has gone silent: it is not parked, though it has no request.
    Aside,
}

pub(super) struct Bridge {
    pub(super) route: Arc<Route<u64>>,
    pub(super) worker: usize,
    pub(super) state: BridgeState,
    pub(super) group: Option<Group>,
    pub(super) instance: Option<InstanceId>,
    /// The one of [`PREDICATES`] that its route has, or nothing.
    pub(super) demands: &'static str,
}

/// The group of a bridge on its route, and the backend that it is named for.
#[derive(Clone, Copy)]
pub(super) struct Group {
    pub(super) id: GroupId,
    pub(super) backend: u64,
}

impl Bridge {
    /// Its route and backend, if it has a group.
    pub(super) fn shares_with(&self) -> Option<(u64, u64)> {
        Some((self.route.id(), self.group?.backend))
    }

    fn membership(&self) -> Membership {
        Membership { group: self.group.map(|group| group.id), instance: self.instance }
    }
}

#[derive(PartialEq)]
pub(super) enum RequestState {
    /// On its way into the queues.
    Entering,
    Waiting {
        id: WaiterId,
        claimed: bool,
    },
    Served,
}

pub(super) struct Request {
    host: &'static str,
    fallback: Option<&'static str>,
    path: &'static str,
    /// Its place in [`KINDS`].
    kind: usize,
    pub(super) worker: usize,
    pub(super) state: RequestState,
    pub(super) pos: QueuePos,
    pub(super) wanted: Option<Wanted>,
    /// While it waits, or is about to: for this instance alone.
    pub(super) stays_for: Option<InstanceId>,
}

impl Request {
    pub(super) fn query(&self) -> RouteQuery<'static> {
        let query = RouteQuery::new(self.host, self.path).with_fallback(self.fallback);
        query.with_wanted(self.wanted).with_meets(Some(MEETS[self.kind]))
    }

    pub(super) fn kind(&self) -> Kind {
        KINDS[self.kind]
    }
}

/// A bridge on its way to the worker of the transfer; without one if it has died.
struct Message {
    bridge: Option<u64>,
    transfer: Transfer,
}

/// What the seed determines besides the order of events.
#[derive(Default)]
struct Manner {
    patterns: usize,
    prefixes: usize,
    /// One route in this many has an expression; 0 for none.
    expressions: usize,
    /// One request in this many has a fallback; 0 for none.
    fallbacks: usize,
    names: usize,
    bridges: usize,
    requests: usize,
    /// One step in this many closes a connection.
    calm: usize,
    longest_step: usize,
    /// One step in this many begins a stall of its worker; 0 for none.
    stalls: usize,
    /// Of so many bridges, all but one are of backends that say how many places they have; 0 for none.
    groups: usize,
    /// Most places that such a backend says it has.
    places: usize,
    /// Of so many bridges, and of so many requests, all but one have or want an instance; 0 for none.
    instances: usize,
    /// One route in this many has predicates; 0 for none.
    predicates: usize,
}

pub(super) struct World {
    rng: u64,
    manner: Manner,
    now: Micros,
    pub(super) directory: Arc<Directory<u64>>,
    pub(super) schedulers: Vec<Scheduler<u64>>,
    /// Per worker, for how many of its steps it still does nothing: another program has its core.
    stalled: Vec<usize>,
    /// Per worker, the request that it has not put into all of its queues, and the waiter's key.
    entering: Vec<Option<(u64, u32)>>,
    /// By sender and receiver; in order within each pair.
    mail: Vec<VecDeque<Message>>,
    pub(super) bridges: BTreeMap<u64, Bridge>,
    pub(super) requests: BTreeMap<u64, Request>,
    /// By route and backend, what it has said last, and in which message.
    pub(super) places: BTreeMap<(u64, u64), (u32, u64)>,
    /// The routes and instances of bridges that have left.
    pub(super) left: BTreeSet<(u64, u64)>,
    /// Those that no request is to wait for, until a bridge joins.
    pub(super) shunned: BTreeSet<(u64, u64)>,
    last: u64,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut world = World {
            rng: seed,
            manner: Manner::default(),
            now: Micros(1_000_000),
            directory: Arc::new(Directory::new(1)),
            schedulers: Vec::new(),
            stalled: Vec::new(),
            entering: Vec::new(),
            mail: Vec::new(),
            bridges: BTreeMap::new(),
            requests: BTreeMap::new(),
            places: BTreeMap::new(),
            left: BTreeSet::new(),
            shunned: BTreeSet::new(),
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
            longest_step: world.pick(&[2, 200, 3_000]),
            stalls: world.pick(&[0, 0, 20, 100]),
            groups: world.pick(&[0, 2, 5]),
            places: world.pick(&[2, 4, 20]),
            instances: world.pick(&[0, 2, 4]),
            predicates: world.pick(&[0, 0, 2, 4]),
        };
        let workers = world.pick(&[1, 2, 2, 3, 4, 8]);
        let bounds = Bounds {
            per_route: world.pick(&[4, 1_000]),
            unserved: world.pick(&[2, 1_000]),
            unserved_waits: world.below(8) != 0,
            bridges_per_host: world.pick(&[0, 0, 0, 5]),
        };
        world.directory = Arc::new(Directory::new(workers));
        let looks = world.pick(&[1, 3, 64]);
        let scheduler = |me| {
            let mut scheduler = Scheduler::new(me, Arc::clone(&world.directory), bounds);
            scheduler.looks_per_turn = looks;
            scheduler
        };
        world.schedulers = (0..workers).map(scheduler).collect();
        world.stalled = vec![0; workers];
        world.entering = vec![None; workers];
        world.mail = (0..workers * workers).map(|_| VecDeque::new()).collect();
        world
    }

    /// splitmix64: any seed will do, 0 included.
    fn below(&mut self, n: usize) -> usize {
        self.rng = self.rng.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.rng;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// One in `n`; never if that is 0.
    fn one_in(&mut self, n: usize) -> bool {
        n > 0 && self.below(n) == 0
    }

    /// The time as a worker has it.
    fn clock(&mut self) -> Micros {
        Micros(self.now.0 - self.below(SKEW as usize) as u64)
    }

    /// One thing happens on one worker.
    pub(super) fn step(&mut self) {
        let w = self.below(self.schedulers.len());
        self.now.0 += self.below(self.manner.longest_step) as u64;
        if self.one_in(self.manner.stalls) {
            self.stalled[w] = self.below(LONGEST_STALL);
        }
        if let Some(left) = self.stalled[w].checked_sub(1) {
            self.stalled[w] = left;
            return;
        }
        if let Some((request, key)) = self.entering[w].take() {
            self.enter(w, request, key);
        } else if self.one_in(self.manner.calm) {
            match self.below(13) {
                12 => self.backends_are_told(w),
                11 => self.wait_for_an_instance_ends(w),
                9 if self.one_in(2) => self.backend_says_places(w),
                9 => self.bridge_stands_aside(w),
                10 => self.bridge_returns(w),
                0 => self.bridge_closes(w),
                1 => self.client_leaves(w),
                2 => self.request_is_recalled(w),
                3 => self.bridge_fails(w),
                4 => self.sweep(),
                5 => self.pin(),
                _ => self.exchange_ends(w),
            }
        } else {
            match self.below(11) {
                10 => self.backend_says_places(w),
                0 => self.bridge_connects(w),
                1..=3 => self.request_arrives(w),
                4..=5 => self.exchange_ends(w),
                6 => self.sync(w),
                _ => self.mail_arrives(w),
            }
        }
        self.take_matches(w);
        self.check(w);
    }

    fn take_matches(&mut self, w: usize) {
        // A bridge that dies on the way leaves its place to another of its backend.
        while self.schedulers[w].has_found() {
            if let Some(Match { request, bridge, owner, pos }) = self.schedulers[w].next_match() {
                assert_eq!(owner, Owner { worker: self.bridges[&bridge].worker, token: bridge });
                self.serve(w, bridge, request, pos);
            }
            if let Some(Sent { bridge, owner, transfer }) = self.schedulers[w].next_sent() {
                assert_eq!(owner, Owner { worker: self.bridges[&bridge].worker, token: bridge });
                self.send(w, bridge, transfer);
            }
            if let Some((_, telling)) = self.schedulers[w].next_declined() {
                self.told(&telling);
            }
        }
    }

    /// A bridge that is not parked has closed.
    fn leave(&mut self, w: usize, gone: &Bridge, now: Micros) {
        self.schedulers[w].leave(&gone.route, gone.membership(), now);
        if let Some(instance) = gone.instance {
            match self.one_in(8) {
                true => {
                    gone.route.shun_instance(instance);
                    self.shunned.insert((gone.route.id(), instance.number()));
                }
                false => self.note_left(gone.route.id(), instance),
            }
        }
        if let Some(key) = gone.shares_with()
            && !self.bridges.values().any(|other| other.shares_with() == Some(key))
        {
            self.places.remove(&key);
        }
    }

    /// Backends are told since when requests wait.
    fn backends_are_told(&mut self, w: usize) {
        let here = self.bridges.values().filter(|bridge| bridge.worker == w);
        let routes: Vec<_> = here.map(|bridge| &bridge.route).collect();
        if !routes.is_empty() {
            let route = routes[self.rng as usize % routes.len()];
            route.tell(self.now, Duration::ZERO).tellings.iter().for_each(|one| self.told(one));
        }
    }

    /// A backend is told over a bridge of its own.
    fn told(&self, telling: &Telling) {
        let bridge = &self.bridges[&telling.owner.token];
        assert!(bridge.group.is_some_and(|group| group.id == telling.group), "{telling:?}");
    }

    /// A message of a backend comes over one of its bridges; it may be late.
    fn backend_says_places(&mut self, w: usize) {
        let of = |bridge: &Bridge| Some((bridge.shares_with()?, bridge.group?.id));
        let here = self.bridges.values().filter(|bridge| bridge.worker == w);
        let groups: Vec<_> = here.filter_map(|bridge| Some((&bridge.route, of(bridge)?))).collect();
        if groups.is_empty() {
            return;
        }
        let (route, (key, group)) = groups[self.rng as usize % groups.len()];
        let route = Arc::clone(route);
        let places = self.below(self.manner.places) as u32;
        let known = self.places.get(&key).map(|(_, at)| *at);
        let at = known.unwrap_or(0) + self.below(5) as u64;
        let is_news = known.is_none_or(|known| at > known);
        assert_eq!(self.schedulers[w].set_places(&route, group, places, at), is_news);
        if is_news {
            self.places.insert(key, (places, at));
        }
    }

    fn any_spec(&mut self) -> RouteSpec {
        let patterns = PATTERNS[self.below(self.manner.patterns)];
        if self.one_in(self.manner.expressions) {
            let expression = regex::bytes::Regex::new(self.pick(&EXPRESSIONS)).unwrap();
            return RouteSpec::matching(patterns, expression);
        }
        let spec = RouteSpec::new(patterns, PREFIXES[self.below(self.manner.prefixes)]);
        if self.one_in(self.manner.predicates) {
            let shown = self.pick(&PREDICATES);
            return spec.only_if(Predicates::read(shown).unwrap());
        }
        spec
    }

    fn sync(&mut self, w: usize) {
        let requests = &self.requests;
        self.schedulers[w].sync(&|request, p| MEETS[requests[&request].kind](p));
    }

    fn bridge_connects(&mut self, w: usize) {
        if self.bridges.len() >= self.manner.bridges {
            return;
        }
        let (spec, now) = (self.any_spec(), self.clock());
        let requests = &self.requests;
        let meets: WaitingMeets<'_> = &|request, p| MEETS[requests[&request].kind](p);
        let route = match self.schedulers[w].join(&spec, now, meets) {
            Ok(joined) => joined.route,
            Err(full) => return self.check_full(&full),
        };
        self.take_matches(w);
        self.last += 1;
        let backend = self.last % BACKENDS as u64;
        let grouped = self.manner.groups > 0 && !self.one_in(self.manner.groups);
        let group = grouped.then(|| Group { id: route.join_group(backend), backend });
        let instance = self.any_instance();
        if let Some(id) = instance {
            route.join_instance(id);
            self.shunned.remove(&(route.id(), id.number()));
        }
        let shown = route.spec().predicates().map(ToString::to_string).unwrap_or_default();
        let demands = PREDICATES.into_iter().find(|known| *known == shown).unwrap_or_default();
        let state = BridgeState::Moving;
        let bridge = Bridge { route, worker: w, state, group, instance, demands };
        self.bridges.insert(self.last, bridge);
        self.park(w, self.last);
    }

    fn any_instance(&mut self) -> Option<InstanceId> {
        let has = self.manner.instances > 0 && !self.one_in(self.manner.instances);
        has.then(|| InstanceId::new(1 + self.below(INSTANCES as usize) as u64))
    }

    fn any_wanted(&mut self) -> Option<Wanted> {
        let waits = !self.one_in(4);
        self.any_instance().map(|instance| Wanted { instance, waits })
    }

    fn note_left(&mut self, route: u64, instance: InstanceId) {
        self.left.insert((route, instance.number()));
    }

    /// Other routes are pinned from now on.
    fn pin(&mut self) {
        let pinned: Vec<_> = (0..self.below(4)).map(|_| self.any_spec()).collect();
        self.directory.pin(&pinned, self.now);
        assert!(pinned.iter().all(|spec| self.directory.route(spec).unwrap().is_kept()));
    }

    fn park(&mut self, w: usize, bridge: u64) {
        let parking = self.bridges.get_mut(&bridge).unwrap();
        parking.state = BridgeState::Moving;
        let (route, of) = (Arc::clone(&parking.route), parking.membership());
        let state = match self.schedulers[w].park(&route, of, bridge, bridge) {
            Parked::Serve { bridge: served, request, pos } => {
                assert_eq!((served, self.requests[&request].worker), (bridge, w));
                self.check_turn(w, bridge, request);
                return self.serve(w, bridge, request, pos);
            }
            Parked::Transfer { transfer, .. } => {
                self.check_turn(w, bridge, transfer.request);
                return self.send(w, bridge, transfer);
            }
            Parked::Idle(handle) => {
                self.last += 1;
                BridgeState::Idle { handle, order: self.last }
            }
        };
        self.bridges.get_mut(&bridge).unwrap().state = state;
    }

    fn send(&mut self, w: usize, bridge: u64, transfer: Transfer) {
        let Transfer { to, request, waiter, pos } = transfer;
        let asking = self.requests.get_mut(&request).unwrap();
        assert_eq!((to, pos), (asking.worker, asking.pos));
        assert_ne!(to, w, "a worker writes to itself");
        match &mut asking.state {
            RequestState::Waiting { id, claimed } => {
                assert!(*id == waiter && !*claimed, "a request was claimed twice");
                *claimed = true;
            }
            RequestState::Entering => {}
            RequestState::Served => panic!("a request with a bridge was claimed"),
        }
        let dies = self.one_in(12).then(|| self.bridges.remove(&bridge).unwrap());
        match &dies {
            Some(gone) => self.leave(w, gone, self.now),
            None => self.bridges.get_mut(&bridge).unwrap().state = BridgeState::Moving,
        }
        let bridge = dies.is_none().then_some(bridge);
        let at = w * self.schedulers.len() + to;
        self.mail[at].push_back(Message { bridge, transfer });
    }

    /// Delivers the next message from somewhere to `w`.
    fn mail_arrives(&mut self, w: usize) {
        let workers = self.schedulers.len();
        let first = self.below(workers);
        let mut froms = (0..workers).map(|step| (first + step) % workers);
        let message = froms.find_map(|from| self.mail[from * workers + w].pop_front());
        let Some(Message { bridge, transfer: Transfer { request, waiter, pos, .. } }) = message
        else {
            return;
        };
        let bridge = bridge.filter(|bridge| {
            let lost = self.one_in(12).then(|| self.bridges.remove(bridge).unwrap());
            lost.inspect(|gone| self.leave(w, gone, self.now)).is_none()
        });
        let waiting = RequestState::Waiting { id: waiter, claimed: true };
        let waits = self.requests.get(&request).is_some_and(|asking| asking.state == waiting);
        assert_eq!(self.schedulers[w].receive(waiter), waits);
        match bridge {
            Some(bridge) => {
                self.bridges.get_mut(&bridge).unwrap().worker = w;
                match waits {
                    true => self.serve(w, bridge, request, pos),
                    false => self.park(w, bridge),
                }
            }
            None if waits => self.requeue(w, request),
            None => {}
        }
    }

    fn serve(&mut self, w: usize, bridge: u64, request: u64, pos: QueuePos) {
        self.check_serve(w, bridge, request, pos);
        let serving = self.bridges.get_mut(&bridge).unwrap();
        (serving.worker, serving.state) = (w, BridgeState::Busy { request });
        let served = self.requests.get_mut(&request).unwrap();
        (served.state, served.stays_for) = (RequestState::Served, None);
    }

    fn request_arrives(&mut self, w: usize) {
        if self.requests.len() >= self.manner.requests {
            return;
        }
        let (host, path) = (NAMES[self.below(self.manner.names)], self.pick(&PATHS));
        let fallback = self.one_in(self.manner.fallbacks).then(|| self.pick(&FALLBACKS));
        let now = self.clock();
        let pos = self.schedulers[w].next_pos(now);
        self.last += 1;
        let (wanted, state) = (self.any_wanted(), RequestState::Entering);
        let stays_for = None;
        let kind = self.below(KINDS.len());
        let request =
            Request { host, fallback, path, kind, worker: w, state, pos, wanted, stays_for };
        let mut query = request.query();
        self.requests.insert(self.last, request);
        // As `Scheduler::enqueue` does it; the steps are taken one by one.
        if self.match_at_once(w, self.last, now) {
            return;
        }
        let mut refusal = self.schedulers[w].refusal();
        if refusal.is_some() && self.schedulers[w].stays_for.is_some() {
            // It goes anywhere.
            let asking = self.requests.get_mut(&self.last).unwrap();
            (asking.wanted, asking.stays_for) = (None, None);
            query = query.with_wanted(None);
            if self.match_at_once(w, self.last, now) {
                return;
            }
            refusal = self.schedulers[w].refusal();
        }
        let scheduler = &mut self.schedulers[w];
        if let Some(refusal) = refusal {
            assert_eq!(scheduler.enqueue(self.last, &query, now), refusal);
            return self.is_refused(w, self.last, &refusal);
        }
        let key = scheduler.insert_waiter(self.last, pos, &query);
        self.entering[w] = Some((self.last, key));
    }

    fn requeue(&mut self, w: usize, request: u64) {
        let asking = self.requests.get_mut(&request).unwrap();
        (asking.state, asking.stays_for) = (RequestState::Entering, None);
        let (query, pos) = (self.requests[&request].query(), self.requests[&request].pos);
        // Bridges of the backend that failed, if any did.
        let failed = self.below(2 * BACKENDS) as u64;
        let failed = move |bridge: &u64| bridge % BACKENDS as u64 == failed;
        let now = self.clock();
        match self.schedulers[w].requeue(request, pos, &query, failed, now) {
            Enqueued::Matched { bridge, owner, pos } => {
                self.check_repeat(w, bridge, owner, request, failed);
                self.serve(w, bridge, request, pos);
            }
            Enqueued::Queued(id) => {
                let state = RequestState::Waiting { id, claimed: false };
                self.requests.get_mut(&request).unwrap().state = state;
                self.note_stay(w, request, self.schedulers[w].stays_for(id).is_some());
            }
            refusal => {
                assert_eq!(refusal, Enqueued::Unknown, "a request that was let in was put out");
                self.is_refused(w, request, &refusal);
            }
        }
    }

    fn is_refused(&mut self, w: usize, request: u64, refusal: &Enqueued<u64>) {
        self.requests.remove(&request);
        self.check_refusal(w, refusal);
    }

    fn match_at_once(&mut self, w: usize, request: u64, now: Micros) -> bool {
        let query = self.requests[&request].query();
        let found = self.schedulers[w].match_at_once(&query, now);
        let stays = self.schedulers[w].stays_for;
        if found.is_none() {
            self.note_stay(w, request, stays.is_some());
        }
        let expected = self.most_specific_idle(w, &query, stays);
        assert_eq!(found.is_some(), expected.is_some(), "a bridge was not found");
        let Some((bridge, owner)) = found else { return false };
        assert_eq!(
            Some(self.bridges[&bridge].route.id()),
            expected,
            "a less specific route served"
        );
        self.check_taken(w, bridge, owner, &query);
        let pos = self.requests[&request].pos;
        self.serve(w, bridge, request, pos);
        true
    }

    /// A request is about to wait, for its instance alone if it `stays`.
    fn note_stay(&mut self, w: usize, request: u64, stays: bool) {
        let instance = self.requests[&request].wanted.map(|wanted| wanted.instance);
        self.check_stay(w, request, stays);
        let request = self.requests.get_mut(&request).unwrap();
        request.stays_for = instance.filter(|_| stays);
    }

    /// A request has waited for its instance for as long as it may.
    fn wait_for_an_instance_ends(&mut self, w: usize) {
        let Some((request, waiter, claimed)) = self.any_waiting(w) else { return };
        if self.requests[&request].stays_for.is_none() || claimed {
            return;
        }
        assert!(self.schedulers[w].recall(waiter).is_some());
        let asking = self.requests.get_mut(&request).unwrap();
        asking.wanted = asking.wanted.map(|wanted| Wanted { waits: false, ..wanted });
        self.requeue(w, request);
    }

    /// A request enters its next queue.
    fn enter(&mut self, w: usize, request: u64, key: u32) {
        let id = self.schedulers[w].waiters.id(key);
        match self.schedulers[w].enter_next(key) {
            Step::Matched(bridge, owner) => {
                // Now that it waits, the instance that it wants means nothing unless it is the only one.
                let asking = &self.requests[&request];
                let wanted = asking.wanted.filter(|_| asking.stays_for.is_some());
                let query = asking.query().with_wanted(wanted);
                self.check_taken(w, bridge, owner, &query);
                let pos = self.requests[&request].pos;
                self.serve(w, bridge, request, pos);
            }
            Step::Entered => self.entering[w] = Some((request, key)),
            Step::Done => {
                let claimed = !self.schedulers[w].waiters[key].claim.is_open(id.stamp);
                let state = RequestState::Waiting { id, claimed };
                self.requests.get_mut(&request).unwrap().state = state;
            }
        }
    }

    /// One of this worker's bridges for which `which` holds.
    fn any_bridge(&mut self, w: usize, which: impl Fn(&BridgeState) -> bool) -> Option<u64> {
        let here = |bridge: &Bridge| bridge.worker == w && which(&bridge.state);
        let found: Vec<u64> =
            self.bridges.iter().filter(|(_, bridge)| here(bridge)).map(|(id, _)| *id).collect();
        (!found.is_empty()).then(|| self.pick(&found))
    }

    fn any_busy(&mut self, w: usize) -> Option<(u64, u64)> {
        let bridge = self.any_bridge(w, |state| matches!(state, BridgeState::Busy { .. }))?;
        match self.bridges[&bridge].state {
            BridgeState::Busy { request } => Some((bridge, request)),
            _ => None,
        }
    }

    fn exchange_ends(&mut self, w: usize) {
        if let Some((bridge, request)) = self.any_busy(w) {
            self.requests.remove(&request);
            self.park(w, bridge);
        }
    }

    /// A bridge dies, and its request can be retried.
    fn bridge_fails(&mut self, w: usize) {
        if let Some((bridge, request)) = self.any_busy(w) {
            let now = self.clock();
            let gone = self.bridges.remove(&bridge).unwrap();
            self.leave(w, &gone, now);
            self.take_matches(w);
            self.requeue(w, request);
        }
    }

    fn bridge_closes(&mut self, w: usize) {
        let idle = |state: &BridgeState| matches!(state, BridgeState::Idle { .. });
        let Some(bridge) = self.any_bridge(w, idle) else { return };
        let gone = self.bridges.remove(&bridge).unwrap();
        let BridgeState::Idle { handle, .. } = gone.state else { unreachable!() };
        let now = self.clock();
        let scheduler = &mut self.schedulers[w];
        assert_eq!(scheduler.with_idle(&gone.route, handle, bridge, |seen| *seen), Some(bridge));
        assert_eq!(scheduler.unpark(&gone.route, handle, bridge), Some(bridge));
        assert_eq!(scheduler.unpark(&gone.route, handle, bridge), None);
        self.leave(w, &gone, now);
    }

    /// The backend of an idle bridge goes silent.
    fn bridge_stands_aside(&mut self, w: usize) {
        let idle = |state: &BridgeState| matches!(state, BridgeState::Idle { .. });
        let Some(bridge) = self.any_bridge(w, idle) else { return };
        let aside = self.bridges.get_mut(&bridge).unwrap();
        let BridgeState::Idle { handle, .. } = aside.state else { unreachable!() };
        assert_eq!(self.schedulers[w].unpark(&aside.route, handle, bridge), Some(bridge));
        aside.state = BridgeState::Aside;
    }

    /// The backend of a bridge that stands aside is heard.
    fn bridge_returns(&mut self, w: usize) {
        let aside = |state: &BridgeState| matches!(state, BridgeState::Aside);
        if let Some(bridge) = self.any_bridge(w, aside) {
            self.park(w, bridge);
        }
    }

    /// One of the requests that wait on this worker: its id, its waiter's, and whether a bridge is
    /// on its way to it.
    fn any_waiting(&mut self, w: usize) -> Option<(u64, WaiterId, bool)> {
        let waiting = |(id, request): (&u64, &Request)| match request.state {
            RequestState::Waiting { id: waiter, claimed } if request.worker == w => {
                Some((*id, waiter, claimed))
            }
            _ => None,
        };
        let found: Vec<_> = self.requests.iter().filter_map(waiting).collect();
        (!found.is_empty()).then(|| self.pick(&found))
    }

    fn client_leaves(&mut self, w: usize) {
        if let Some((request, waiter, claimed)) = self.any_waiting(w) {
            assert_eq!(self.schedulers[w].cancel(waiter), !claimed);
            assert!(!self.schedulers[w].cancel(waiter));
            self.requests.remove(&request);
        }
    }

    fn request_is_recalled(&mut self, w: usize) {
        let Some((request, waiter, claimed)) = self.any_waiting(w) else { return };
        let pos = self.schedulers[w].recall(waiter);
        assert_eq!(pos, (!claimed).then_some(self.requests[&request].pos));
        if !claimed {
            self.requeue(w, request);
        }
    }

    fn sweep(&mut self) {
        if self.one_in(4) {
            self.now = self.now + RETENTION;
        }
        self.directory.sweep(self.now);
    }

    /// Whether nothing is in progress on any worker.
    fn is_quiet(&self) -> bool {
        let is_done = |one: &Scheduler<u64>| one.knows_all() && !one.has_found();
        self.mail.iter().all(VecDeque::is_empty)
            && self.entering.iter().all(Option::is_none)
            && self.schedulers.iter().all(is_done)
    }

    /// Lets everything in progress finish; then all connections close, and nothing may remain.
    pub(super) fn end(&mut self) {
        let mut rounds = 0;
        while !self.is_quiet() {
            rounds += 1;
            assert!(rounds < 1_000, "messages go round and round");
            for w in 0..self.schedulers.len() {
                while let Some((request, key)) = self.entering[w].take() {
                    self.enter(w, request, key);
                }
                self.mail_arrives(w);
                self.sync(w);
                self.take_matches(w);
                self.check(w);
            }
        }
        for w in 0..self.schedulers.len() {
            for _ in 0..100 {
                self.bridge_closes(w);
                // Another bridge of its backend may have a place now.
                self.take_matches(w);
                self.client_leaves(w);
            }
        }
        while let Some((_, gone)) = self.bridges.pop_first() {
            self.leave(0, &gone, self.now);
        }
        self.requests.clear();
        self.directory.pin(&[], self.now);
        self.directory.sweep(self.now + RETENTION);
        self.schedulers.iter_mut().for_each(|scheduler| scheduler.sync(&|_, _| false));
        self.check_end();
    }
}
