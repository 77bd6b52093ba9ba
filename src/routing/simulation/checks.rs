//! What must hold in a simulated world, judged by the world's own records and not the scheduler's.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::super::spec::Paths;
use super::super::*;
use super::world::{Bridge, BridgeState, Kind, Request, RequestState, World};

/// Whether a bridge could serve a request, by the rules of the protocol and without the index.
fn serves(bridge: &Bridge, request: &Request) -> bool {
    is_met(bridge.demands, request.kind()) && serves_path(bridge.route.spec(), &request.query())
}

/// Whether a request is such as a bridge demands, going by the text.
fn is_met(demands: &str, (method, has_field): Kind) -> bool {
    (method == "GET" || !demands.contains("If-Method: GET"))
        && (method == "POST" || !demands.contains("If-Method: POST"))
        && (has_field || !demands.contains("If-Header"))
}

/// The same by host and path alone.
fn serves_path(spec: &RouteSpec, query: &RouteQuery<'_>) -> bool {
    let by_name = |name: &str| {
        spec.patterns().iter().any(|pattern| match pattern.strip_prefix('*') {
            Some("") => true,
            Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
            None => **pattern == *name,
        })
    };
    let path = query.path.split('?').next().unwrap();
    let by_path = match spec.paths() {
        Paths::Under(prefix) => path == &**prefix || path.starts_with(&format!("{prefix}/")),
        Paths::Matching(expression) => {
            let shown = format!("{expression:?}");
            path.contains(&shown[1..shown.len() - 1])
        }
    };
    by_path && (by_name(query.host) || query.fallback.is_some_and(by_name))
}

/// The order in which an idle bridge was parked. Not one that is withdrawn: whether as many are as
/// should be is checked apart.
fn order(bridge: &Bridge) -> Option<u64> {
    match bridge.state {
        BridgeState::Idle { order, handle } => {
            let is_withdrawn = bridge.route.lock().is_withdrawn(bridge.worker, handle);
            (!is_withdrawn).then_some(order)
        }
        BridgeState::Busy { .. } | BridgeState::Moving | BridgeState::Aside => None,
    }
}

/// Whether the scheduler has an idle bridge on its list still.
fn is_listed(number: u64, bridge: &Bridge) -> bool {
    let BridgeState::Idle { handle, .. } = bridge.state else { return false };
    bridge.route.lock().is_listed(bridge.worker, handle, &number)
}

/// Whether a bridge may serve a request that waits for one instance alone, or for none.
fn may_serve(bridge: &Bridge, request: &Request) -> bool {
    request.stays_for.is_none_or(|instance| bridge.instance == Some(instance))
}

impl World {
    /// The requests that wait in all queues where they belong, for this bridge.
    fn open_requests(&self, bridge: &Bridge) -> impl Iterator<Item = (&u64, &Request)> {
        self.requests.iter().filter(move |(_, request)| {
            matches!(request.state, RequestState::Waiting { claimed: false, .. })
                && self.schedulers[request.worker].knows_all()
                && serves(bridge, request)
                && may_serve(bridge, request)
        })
    }

    /// A request is about to wait: for its instance alone if that is there, or has been.
    pub(super) fn check_stay(&self, w: usize, request: u64, stays: bool) {
        let query = self.requests[&request].query();
        let Some(Wanted { instance, waits }) = query.wanted else { return assert!(!stays) };
        let (mut is_there, mut was_there) = (false, false);
        let _ = self.schedulers[w].index.visit::<()>(&query, |route| {
            let here = self.bridges.values().filter(|bridge| bridge.route.id() == route.id());
            let of = (route.id(), instance.number());
            if !self.shunned.contains(&of) {
                is_there |= here.into_iter().any(|bridge| bridge.instance == Some(instance));
                was_there |= self.left.contains(&of);
            }
            ControlFlow::Continue(())
        });
        assert!(!stays || waits && (is_there || was_there), "it waits for an unknown instance");
        assert!(stays || !(waits && is_there), "it does not wait for its instance");
    }

    /// After every step on worker `w`.
    pub(super) fn check(&self, w: usize) {
        self.schedulers[w].check_invariants_with(&|request, predicates| {
            self.requests[&request].query().meets.is_some_and(|meets| meets(predicates))
        });
        let waits =
            |request: &&Request| request.worker == w && request.state != RequestState::Served;
        let waiting = self.requests.values().filter(waits).count();
        assert_eq!(self.schedulers[w].counters().waiting, waiting, "requests lost or doubled");
        for bridge in self.bridges.values().filter(|bridge| order(bridge).is_some()) {
            let waiting = self.open_requests(bridge).next();
            assert!(waiting.is_none(), "a request waits beside a bridge on {}", bridge.worker);
        }
        for route in self.directory.routes() {
            let bridges = self.bridges.values().filter(|bridge| bridge.route.id() == route.id());
            let idle = bridges.clone().filter(|bridge| order(bridge).is_some());
            let expected = (bridges.count(), idle.count());
            let found = (route.members() as usize, route.parked() as usize);
            assert_eq!(found, expected, "bridges lost or doubled");
        }
        self.check_places();
        let unserved: usize = self.schedulers.iter().map(|s| s.counters().unserved).sum();
        assert_eq!(self.directory.unserved(), unserved);
    }

    /// Each backend's parked bridges are withdrawn beyond the places that it has.
    fn check_places(&self) {
        let mut groups: BTreeMap<_, (usize, usize, usize)> = BTreeMap::new();
        for bridge in self.bridges.values() {
            let Some(key) = bridge.shares_with() else { continue };
            let (used, idle, withdrawn) = groups.entry(key).or_default();
            match bridge.state {
                BridgeState::Idle { .. } if order(bridge).is_some() => *idle += 1,
                BridgeState::Idle { .. } => *withdrawn += 1,
                _ => *used += 1,
            }
        }
        assert!(self.places.keys().all(|key| groups.contains_key(key)));
        for (key, (used, idle, withdrawn)) in groups {
            let places = self.places.get(&key).map_or(usize::MAX, |(places, _)| *places as usize);
            let usable = places.saturating_sub(used).min(idle + withdrawn);
            assert_eq!(idle, usable, "{used} used of {places}, {withdrawn} withdrawn");
        }
    }

    /// A bridge gets a request.
    pub(super) fn check_serve(&self, w: usize, bridge: u64, request: u64, pos: QueuePos) {
        let (serving, served) = (&self.bridges[&bridge], &self.requests[&request]);
        assert_eq!((served.worker, served.pos), (w, pos));
        assert!(!matches!(serving.state, BridgeState::Busy { .. }), "the bridge has a request");
        assert!(!matches!(serving.state, BridgeState::Aside), "the bridge stands aside");
        assert!(served.state != RequestState::Served, "the request has a bridge");
        if let Some(key) = serving.shares_with()
            && let Some((places, _)) = self.places.get(&key)
            && matches!(serving.state, BridgeState::Idle { .. })
        {
            let of = |bridge: &&Bridge| bridge.shares_with() == Some(key);
            let busy = |bridge: &&Bridge| matches!(bridge.state, BridgeState::Busy { .. });
            let busy = self.bridges.values().filter(of).filter(busy).count();
            assert!(busy < *places as usize, "the backend has no place for it");
        }
        assert!(serves(serving, served), "the bridge does not serve this name");
        assert!(may_serve(serving, served), "the bridge is not of the instance that is waited for");
    }

    /// A bridge that parks on worker `w` takes a request out of the queue: it is the request's
    /// turn.
    pub(super) fn check_turn(&self, w: usize, bridge: u64, request: u64) {
        let served = &self.requests[&request];
        for (other, waiting) in self.open_requests(&self.bridges[&bridge]) {
            if *other == request {
                continue;
            }
            let lead = served.pos.since.since(waiting.pos.since);
            let in_turn = match (served.worker == w, waiting.worker == w) {
                _ if served.worker == waiting.worker => served.pos < waiting.pos,
                (true, false) => lead <= FAIRNESS,
                (false, true) => waiting.pos.since.since(served.pos.since) > FAIRNESS,
                _ => lead.is_zero(),
            };
            assert!(in_turn, "a request was served before one that came earlier");
        }
    }

    /// An idle bridge is taken by worker `w`: its own that was parked longest, or else that of all
    /// others; of its instance alone, if one of that was idle.
    pub(super) fn check_taken(&self, w: usize, bridge: u64, owner: Owner, query: &RouteQuery<'_>) {
        let taken = &self.bridges[&bridge];
        assert_eq!(owner, Owner { worker: taken.worker, token: bridge });
        let wanted = query.wanted.map(|wanted| wanted.instance);
        let of = wanted.filter(|_| taken.instance == wanted);
        let rank = |bridge: &Bridge| {
            let is_one = of.is_none_or(|of| bridge.instance == Some(of));
            Some((bridge.worker != w, order(bridge).filter(|_| is_one)?))
        };
        let others = self.bridges.values().filter(|other| other.route.id() == taken.route.id());
        assert_eq!(rank(taken), others.filter_map(rank).min(), "another bridge was parked longer");
    }

    /// An idle bridge is taken for a request whose bridge failed: of the backend that failed only if
    /// no other could serve it.
    pub(super) fn check_repeat(
        &self,
        w: usize,
        bridge: u64,
        owner: Owner,
        request: u64,
        failed: impl Fn(&u64) -> bool,
    ) {
        let (request, query) = (&self.requests[&request], self.requests[&request].query());
        let taken = &self.bridges[&bridge];
        assert_eq!(owner, Owner { worker: taken.worker, token: bridge });
        let could = |(number, other): &(&u64, &Bridge)| {
            // An older route of the same names and paths is another.
            let known = self.schedulers[w].index.find(other.route.spec());
            let known = known.is_some_and(|route| route.id() == other.route.id());
            // The end of the bridge that failed may have brought back one that another request has now.
            let is_taken =
                **number != bridge && self.schedulers[w].has_found() && !is_listed(**number, other);
            order(other).is_some()
                && !is_taken
                && known
                && serves(other, request)
                && !failed(number)
        };
        let wanted = query.wanted.map(|wanted| wanted.instance);
        let is_own = |bridge: &Bridge| wanted.is_some() && bridge.instance == wanted;
        let any_could = self.bridges.iter().any(|other| could(&other) && is_own(other.1));
        assert!(!any_could || is_own(taken), "another bridge of its instance is idle");
        let could = |other: &(&u64, &Bridge)| could(other) && is_own(other.1) == is_own(taken);
        if !failed(&bridge) {
            let rank = |other: &Bridge| Some((other.worker != w, order(other)?));
            let others = self.bridges.iter().filter(|other| could(other));
            let beside = others.filter(|(_, other)| other.route.id() == taken.route.id());
            let first = beside.filter_map(|(_, other)| rank(other)).min();
            assert_eq!(rank(taken), first, "another bridge was parked longer");
        } else {
            assert!(!self.bridges.iter().any(|other| could(&other)), "the failed backend has it");
        }
    }

    /// The most specific route known to `w` that has an idle bridge on any worker: of the instance
    /// that the request wants, or else any, unless it `stays` for that.
    pub(super) fn most_specific_idle(
        &self,
        w: usize,
        query: &RouteQuery<'_>,
        stays: Option<InstanceId>,
    ) -> Option<u64> {
        let first = |which: &dyn Fn(&Bridge) -> bool| {
            let is_idle = |id: u64| {
                let mut here = self.bridges.values().filter(|bridge| bridge.route.id() == id);
                here.any(|bridge| order(bridge).is_some() && which(bridge))
            };
            let found = self.schedulers[w].index.visit(query, |route| match is_idle(route.id()) {
                true => ControlFlow::Break(route.id()),
                false => ControlFlow::Continue(()),
            });
            found.break_value()
        };
        let wanted = query.wanted.map(|wanted| wanted.instance);
        let own = wanted.and_then(|wanted| first(&|bridge| bridge.instance == Some(wanted)));
        own.or_else(|| first(&|_| stays.is_none()))
    }

    /// A request was rejected.
    pub(super) fn check_refusal(&self, w: usize, refusal: &Enqueued<u64>) {
        let bounds = &self.schedulers[w].bounds;
        let waiting =
            self.requests.values().filter(|request| request.state != RequestState::Served).count();
        match refusal {
            Enqueued::Unknown => assert!(!bounds.unserved_waits),
            Enqueued::UnservedFull => assert!(self.directory.unserved() >= bounds.unserved),
            Enqueued::RouteFull => assert!(waiting >= bounds.per_route),
            other => panic!("not a refusal: {other:?}"),
        }
    }

    /// A bridge was rejected.
    pub(super) fn check_full(&self, full: &TooManyBridges) {
        let has = |bridge: &&Bridge| bridge.route.spec().patterns().contains(&full.pattern);
        let there = self.bridges.values().filter(has).count();
        assert!(there >= self.schedulers[0].bounds.bridges_per_host);
    }

    /// Everybody has left.
    pub(super) fn check_end(&self) {
        assert!(self.directory.routes().is_empty());
        assert_eq!(self.directory.unserved(), 0);
        for scheduler in &self.schedulers {
            scheduler.check_invariants();
            assert_eq!((scheduler.counters(), scheduler.index.len()), (Counters::default(), 0));
        }
    }
}
