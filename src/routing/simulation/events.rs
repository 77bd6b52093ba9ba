//! What can happen in a simulated world.

use std::ops::ControlFlow;

use super::super::arrival::{Admission, Begun, Step};
use super::super::*;
use super::world::*;

impl World {
    pub(super) fn connect_bridge(&mut self, w: usize) {
        if self.bridges.len() >= self.manner.bridges {
            return;
        }
        let spec = self.any_spec();
        let now = self.clock();
        let joined = match self.lobbies[w].join(&spec, now) {
            Ok(joined) => joined,
            Err(full) => return self.check_full(&full),
        };
        self.last += 1;
        let state = BridgeState::Parking;
        self.bridges.insert(self.last, Bridge { spec, worker: w, route: joined.route, state });
        self.after(w);
        self.park(w, self.last, None);
    }

    fn any_spec(&mut self) -> RouteSpec {
        let patterns = PATTERNS[self.below(self.manner.patterns)];
        let expressions = self.manner.expressions;
        if expressions > 0 && self.below(expressions) == 0 {
            let expression = regex::bytes::Regex::new(self.pick(&EXPRESSIONS)).unwrap();
            return RouteSpec::matching(patterns, expression);
        }
        RouteSpec::new(patterns, PREFIXES[self.below(self.manner.prefixes)])
    }

    /// Other routes are pinned from now on.
    pub(super) fn pin(&mut self) {
        let pinned: Vec<_> = (0..self.below(4)).map(|_| self.any_spec()).collect();
        self.directory.pin(&pinned, self.now);
        let routes = self.directory.routes();
        for spec in &pinned {
            assert!(routes.iter().any(|route| route.spec() == spec && route.is_kept()));
        }
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
                self.middle[w] = Some(Middle::Park { bridge, ticket, came_by });
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
                assert!(!passed, "a request was served before a much older one elsewhere");
                self.serve(w, bridge, request, place);
            }
            Parking::Send { to, passage } => self.send(w, bridge, to, passage),
            Parking::Parked(ticket) => {
                self.last += 1;
                let state = BridgeState::Parked { ticket, order: self.last };
                self.bridges.get_mut(&bridge).unwrap().state = state;
            }
        }
    }

    fn send(&mut self, w: usize, bridge: u64, to: usize, passage: Passage) {
        self.check_promise(bridge, to);
        let now = self.clock();
        if self.below(12) == 0 {
            let gone = self.bridges.remove(&bridge).unwrap();
            return self.lobbies[w].undeliverable(gone.route, to, passage, now);
        }
        self.bridges.get_mut(&bridge).unwrap().state = BridgeState::Moving;
        self.post(w, to, Message::Bridge { bridge, passage });
    }

    pub(super) fn serve(&mut self, w: usize, bridge: u64, request: u64, place: Place) {
        self.check_serve(w, bridge, request, place);
        self.bridges.get_mut(&bridge).unwrap().state = BridgeState::Busy { request };
        self.requests.get_mut(&request).unwrap().state = RequestState::Served;
    }

    pub(super) fn request_arrives(&mut self, w: usize) {
        if self.requests.len() >= self.manner.requests {
            return;
        }
        let (host, path) = (NAMES[self.below(self.manner.names)], self.pick(&PATHS));
        let fallbacks = self.manner.fallbacks;
        let fallback = (fallbacks > 0 && self.below(fallbacks) == 0).then(|| self.pick(&FALLBACKS));
        self.last += 1;
        let request = self.last;
        let now = self.clock();
        let lobby = &mut self.lobbies[w];
        // As `Lobby::arrive` does it; the steps are taken one by one.
        lobby.last_seq += 1;
        let place = Place { seq: lobby.last_seq, since: now };
        let state = RequestState::Entering;
        self.requests.insert(request, Request { host, fallback, path, worker: w, state, place });
        self.begin_arrival(w, request, Admission::Bounded);
    }

    fn begin_arrival(&mut self, w: usize, request: u64, admission: Admission) {
        let (target, place) = (self.requests[&request].target(), self.requests[&request].place);
        let most_specific = self.first_with_bridge(w, &target);
        match self.lobbies[w].begin_arrival(request, place, &target, admission) {
            Begun::Over(Arrival::Matched { bridge, route, place }) => {
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

    pub(super) fn go_on(&mut self, w: usize, middle: Middle) {
        match middle {
            Middle::Park { bridge, ticket, came_by } => {
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
                    self.middle[w] = Some(Middle::Look { request, key, route })
                }
                Step::Everywhere => self.waits(w, request, key),
            },
            Middle::Look { request, key, route } => match self.lobbies[w].look_step(key, route) {
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
        let found: Vec<_> =
            self.bridges.iter().filter(|(_, bridge)| here(bridge)).map(|(id, _)| *id).collect();
        (!found.is_empty()).then(|| found[self.below(found.len())])
    }

    pub(super) fn finish_exchange(&mut self, w: usize) {
        let Some(bridge) = self.any_bridge(w, |state| matches!(state, BridgeState::Busy { .. }))
        else {
            return;
        };
        let BridgeState::Busy { request } = self.bridges[&bridge].state else { unreachable!() };
        self.requests.remove(&request);
        self.park(w, bridge, None);
    }

    /// A bridge dies before anything of the request was lost.
    pub(super) fn bridge_fails(&mut self, w: usize) {
        let Some(bridge) = self.any_bridge(w, |state| matches!(state, BridgeState::Busy { .. }))
        else {
            return;
        };
        let gone = self.bridges.remove(&bridge).unwrap();
        let BridgeState::Busy { request } = gone.state else { unreachable!() };
        let now = self.clock();
        self.lobbies[w].leave(gone.route, now);
        self.requests.get_mut(&request).unwrap().state = RequestState::Entering;
        self.begin_arrival(w, request, Admission::Returning);
    }

    pub(super) fn kill_bridge(&mut self, w: usize) {
        let Some(bridge) = self.any_bridge(w, |state| matches!(state, BridgeState::Parked { .. }))
        else {
            return;
        };
        let gone = self.bridges.remove(&bridge).unwrap();
        let BridgeState::Parked { ticket, .. } = gone.state else { unreachable!() };
        let now = self.clock();
        assert!(self.lobbies[w].unpark(ticket));
        assert!(!self.lobbies[w].unpark(ticket));
        self.lobbies[w].leave(gone.route, now);
    }

    pub(super) fn client_leaves(&mut self, w: usize) {
        let waits = |request: &Request| match request.state {
            RequestState::Waiting(id) if request.worker == w => Some(id),
            _ => None,
        };
        let found: Vec<_> =
            self.requests.iter().filter_map(|(id, request)| Some((*id, waits(request)?))).collect();
        if found.is_empty() {
            return;
        }
        let (request, waiter) = found[self.below(found.len())];
        assert!(self.lobbies[w].forget(waiter));
        assert!(!self.lobbies[w].forget(waiter));
        self.requests.remove(&request);
    }

    pub(super) fn sweep(&mut self) {
        if self.below(4) == 0 && self.middle.iter().all(Option::is_none) {
            self.now += RETENTION_MICROS;
        }
        self.directory.sweep(self.now);
    }

    /// Delivers the next message from somebody to `w`.
    pub(super) fn deliver_any(&mut self, w: usize) {
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
}
