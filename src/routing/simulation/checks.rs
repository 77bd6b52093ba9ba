//! What must hold in a simulated world, told from the world's own books and not from the lobby's.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering::*;

use super::super::arrival::Admission;
use super::super::route::Paths;
use super::super::waiters::Standing;
use super::super::*;
use super::world::{Bridge, BridgeState, Request, RequestState, World};

/// Whether a bridge could serve a request, by the words of the protocol and without the index.
fn serves(spec: &RouteSpec, target: &Target<'_>) -> bool {
    let by_name = |name: &str| {
        spec.patterns().iter().any(|pattern| match pattern.strip_prefix('*') {
            Some("") => true,
            Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
            None => **pattern == *name,
        })
    };
    let path = target.path.split('?').next().unwrap();
    let by_path = match spec.paths() {
        Paths::Under(prefix) => path == &**prefix || path.starts_with(&format!("{prefix}/")),
        Paths::Matching(expression) => {
            let shown = format!("{expression:?}");
            path.contains(&shown[1..shown.len() - 1])
        }
    };
    by_path && (by_name(target.host) || target.fallback.is_some_and(by_name))
}

impl World {
    /// After every step on worker `w`.
    pub(super) fn check_worker(&self, w: usize) {
        self.lobbies[w].check_invariants();
        let counters = self.lobbies[w].counters();
        let waiting = |request: &&Request| {
            request.worker == w && !matches!(request.state, RequestState::Served)
        };
        assert_eq!(
            counters.waiting,
            self.requests.values().filter(waiting).count(),
            "requests lost or doubled"
        );
        let is_parked = |state: &BridgeState| {
            matches!(state, BridgeState::Parked { .. } | BridgeState::Parking)
        };
        let parked = |bridge: &&Bridge| bridge.worker == w && is_parked(&bridge.state);
        let parked: Vec<_> = self.bridges.values().filter(parked).collect();
        // Between joining and parking, and between the steps of a move, a bridge is in nobody's line.
        assert!(counters.parked <= parked.len(), "bridges lost or doubled");
        if parked.iter().all(|bridge| matches!(bridge.state, BridgeState::Parked { .. })) {
            assert_eq!(counters.parked, parked.len(), "bridges lost or doubled");
        }
    }

    /// A bridge gets a request.
    pub(super) fn check_serve(&self, w: usize, bridge: u64, request: u64, place: Place) {
        let (serving, served) = (&self.bridges[&bridge], &self.requests[&request]);
        assert_eq!((serving.worker, served.worker), (w, w));
        assert_eq!(served.place, place);
        assert!(!matches!(serving.state, BridgeState::Busy { .. }), "the bridge has a request");
        assert!(!matches!(served.state, RequestState::Served), "the request has a bridge");
        assert!(serves(&serving.spec, &served.target()), "the bridge does not serve this name");
        let lobby = &self.lobbies[w];
        let r = lobby.resolve(serving.route);
        for other in self.requests.values() {
            let RequestState::Waiting(id) = other.state else {
                continue;
            };
            let earlier =
                other.worker == w && other.place.seq < place.seq && lobby.waiters.contains(id);
            if !earlier || !serves(&serving.spec, &other.target()) {
                continue;
            }
            let waiter = &lobby.waiters[id.key];
            let in_queue = waiter.candidates()[..waiter.entered].contains(&r);
            assert!(!in_queue, "a request was served before one that came earlier");
            assert_eq!(
                waiter.standing,
                Standing::Held,
                "a request is not in a queue where it belongs"
            );
        }
    }

    /// A parked bridge is taken: no other on its route, here, was parked before it.
    pub(super) fn check_longest_parked(&self, w: usize, bridge: u64) {
        let taken = &self.bridges[&bridge];
        let BridgeState::Parked { order, .. } = taken.state else {
            panic!("the bridge was not parked")
        };
        for other in
            self.bridges.values().filter(|other| other.worker == w && other.spec == taken.spec)
        {
            if let BridgeState::Parked { order: before, .. } = other.state {
                assert!(before >= order, "a bridge was taken before one that was parked longer");
            }
        }
    }

    /// A bridge has been promised to worker `to`: no more are on their way there than requests wait.
    pub(super) fn check_promise(&self, bridge: u64, to: usize) {
        let bridge = &self.bridges[&bridge];
        let demand = &self.lobbies[bridge.worker].shared(bridge.route).cells[to].demand;
        let (waiting, incoming) = (demand.waiting.load(SeqCst), demand.incoming.load(SeqCst));
        assert!(incoming > 0 && incoming <= waiting, "{incoming} bridges for {waiting} requests");
    }

    /// When the oldest request arrived that waits on another worker for this route and expects no bridge.
    pub(super) fn elder_elsewhere(&self, w: usize, route: u64) -> Option<u64> {
        let routes = self.directory.routes();
        let shared = routes.iter().find(|shared| shared.id() == route)?;
        let short = |cell: &published::Cell| {
            cell.demand.waiting.load(SeqCst) > cell.demand.incoming.load(SeqCst)
        };
        let cells = shared.cells.iter().enumerate();
        cells
            .filter(|(u, cell)| *u != w && short(cell))
            .map(|(_, cell)| cell.demand.oldest.load(SeqCst))
            .min()
    }

    /// The most specific route known to `w` that has a bridge parked on any worker.
    pub(super) fn first_with_bridge(&self, w: usize, target: &Target<'_>) -> Option<RouteId> {
        let lobby = &self.lobbies[w];
        let found = lobby.index.visit(target, |r| match lobby.routes[r as usize].shared.parked() {
            0 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(lobby.name(r)),
        });
        found.break_value()
    }

    /// A request was not let in.
    pub(super) fn check_refusal(
        &self,
        w: usize,
        request: u64,
        refusal: Arrival,
        admission: Admission,
    ) {
        let lobby = &self.lobbies[w];
        let waits_for_nobody = |request: &Request| match request.state {
            RequestState::Waiting(id) => {
                self.lobbies[request.worker].waiters[id.key].candidates().is_empty()
            }
            _ => true,
        };
        match refusal {
            Arrival::Unknown => assert!(!lobby.bounds.unserved_waits),
            Arrival::UnservedFull => {
                let unserved =
                    self.requests.values().filter(|request| waits_for_nobody(request)).count();
                assert!(unserved >= lobby.bounds.unserved);
            }
            Arrival::RouteFull => {
                assert_eq!(admission, Admission::Bounded, "a request that was let in was put out");
                let served = |other: &Request| matches!(other.state, RequestState::Served);
                let waiting = self
                    .requests
                    .iter()
                    .filter(|(id, other)| **id != request && !served(other))
                    .count();
                assert!(waiting >= lobby.bounds.per_route);
            }
            Arrival::Matched { .. } | Arrival::Waiting(_) => panic!("not a refusal: {refusal:?}"),
        }
    }

    /// A bridge was not let in.
    pub(super) fn check_full(&self, full: &TooManyBridges) {
        let there = self
            .bridges
            .values()
            .filter(|bridge| bridge.spec.patterns().contains(&full.pattern))
            .count();
        assert!(there >= self.lobbies[0].bounds.bridges_per_host);
    }

    /// Nothing is under way: nobody waits beside what could serve it, on any worker, and no promise is open.
    pub(super) fn check_rest(&self) {
        for lobby in &self.lobbies {
            for (_, route) in &lobby.routes {
                assert_eq!(
                    route.shared.cells[lobby.me].demand.incoming.load(SeqCst),
                    0,
                    "a bridge does not come"
                );
                assert_eq!(
                    (route.wants.total(), route.held),
                    (0, 0),
                    "a question was not answered"
                );
            }
        }
        for request in
            self.requests.values().filter(|request| !matches!(request.state, RequestState::Served))
        {
            for bridge in self
                .bridges
                .values()
                .filter(|bridge| matches!(bridge.state, BridgeState::Parked { .. }))
            {
                let could = serves(&bridge.spec, &request.target());
                assert!(
                    !could,
                    "a request waits on {} beside a bridge on {}",
                    request.worker, bridge.worker
                );
            }
        }
        for shared in self.directory.routes() {
            let members =
                self.bridges.values().filter(|bridge| bridge.spec == *shared.spec()).count();
            assert_eq!(shared.members() as usize, members);
            let waiting_workers =
                shared.cells.iter().filter(|cell| cell.demand.waiting.load(SeqCst) > 0).count();
            assert_eq!(shared.watch.waiting_workers.load(SeqCst) as usize, waiting_workers);
        }
        let unserved: usize = self.lobbies.iter().map(|lobby| lobby.counters().unserved).sum();
        assert_eq!(self.directory.unserved(), unserved);
    }

    /// Everybody has left.
    pub(super) fn check_end(&self) {
        assert!(self.directory.routes().is_empty());
        for lobby in &self.lobbies {
            let Counters { waiting, unserved, parked, .. } = lobby.counters();
            assert_eq!((waiting, unserved, parked, lobby.routes.len()), (0, 0, 0, 0));
            assert_eq!(lobby.directory.unserved(), 0);
        }
    }
}
