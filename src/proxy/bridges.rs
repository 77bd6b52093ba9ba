//! The life of a bridge: the handshake, pings, parking, moving, leaving.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::bridge::extensions::{WELCOME, WELCOME_RECEIPTS};
use crate::bridge::hostkey::{self, Forms, Grant, HostKey};
use crate::bridge::request::CONTINUE;
use crate::bridge::{Refusal, Registration};
use crate::exchange::{DeliveryReports, Reuse};
use crate::http::reply::Reply;
use crate::net::conn::Received;
use crate::net::mailbox::Mailbox;
use crate::net::token::Token;
use crate::routing::{Handover, Joined, Mail as LobbyMail, Parking, Passage, Place, RouteSpec};

use super::departures::HAS_LEFT;
use super::role::{Backend, Bridge, Origin, Role, Standing};
use super::seats::KeysHeld;
use super::shared::{Mail, Parcel};
use super::worker::{Pair, Worker};

/// What a backend elsewhere is told while no secrets are configured.
const CLOSED_TO_OTHERS: &str = "without secrets, bridges are taken only from this machine itself \
    and not through another proxy; set `secrets FILE`, or `open-bridges yes` to let anybody in";

/// What `Retry-After` says, in seconds, to a bridge that is one too many.
const RETRY_AFTER: u32 = 5;

/// A backend's keep-alive timeout is not used to its end: in its last second the backend may
/// close at any moment, and a request must not meet that.
const KEEP_ALIVE_MARGIN: u32 = 1;

/// How long a bridge on a new route waits at most until every worker knows the route, in
/// microseconds. They are woken for it and need a turn, unless the machine is so busy that they
/// do not run at all.
const SETTLE: u64 = 100_000;

impl Worker {
    /// A BRIDGE request has come whole: checks who it is, and parks it.
    pub(super) fn register(&mut self, key: usize, registration: &Registration) {
        if !self.is_serving() && registration.leave.is_none() {
            return self.refuse(key, 504, "the proxy is shutting down; try again");
        }
        let grants = match self.authorise(key, registration) {
            Ok(grants) => grants,
            Err(refusal) => {
                return self.refuse_bridge(key, Reply::new(refusal.status, &refusal.text));
            }
        };
        if let Some(token) = registration.leave {
            return self.take_leave(key, token, registration);
        }
        let spec = RouteSpec::new(&registration.patterns, &registration.prefix);
        if self.has_departed(registration.backend, &spec) {
            return self.refuse(key, 504, HAS_LEFT);
        }
        // Taken before anything else is counted; whatever goes wrong after this gives them back.
        let seats = match self.shared.seats.take(&grants) {
            Ok(seats) => seats,
            Err(full) => {
                let text = full.to_string();
                let reply = Reply::new(503, &text);
                return self.refuse_bridge(key, Reply { retry_after: Some(RETRY_AFTER), ..reply });
            }
        };
        let joined = match self.lobby.join(&spec, self.now.micros) {
            Ok(joined) => joined,
            Err(_) => {
                let reply = Reply::new(503, "too many bridges serve this name");
                return self.refuse_bridge(key, Reply { retry_after: Some(RETRY_AFTER), ..reply });
            }
        };
        let keys = (!grants.is_empty()).then(|| {
            let names = grants.iter().map(|grant| grant.name.as_str());
            Box::new(KeysHeld::new(self.shared.keys.counts(names), seats))
        });
        let bridge = Bridge {
            route: joined.route,
            standing: Standing::Fresh,
            served: 0,
            parked_at: self.now.millis(),
            keys,
            backend: Backend::of(registration),
            origin: Origin::Registered,
        };
        log::debug!("bridge from {} for {:?}", self.slots[key].peer, registration.patterns);
        self.bring_in(key, joined, bridge);
    }

    /// A bridge has joined its route: it is parked, at once or as soon as every worker knows the route.
    pub(super) fn bring_in(&mut self, key: usize, joined: Joined, bridge: Bridge) {
        if joined.new {
            self.wake_others();
        }
        if !joined.new || self.shared.mailboxes.len() == 1 {
            return self.welcome(key, bridge);
        }
        let (version, until) = (self.lobby.routes_version(), self.now.micros + SETTLE);
        self.set_role(key, Role::Settling { bridge, version, until });
        self.timers.clear(key);
        self.settling.push(self.slots[key].token(key));
    }

    /// Parks the bridges on new routes that every worker knows by now.
    pub(super) fn settle_bridges(&mut self) {
        for _ in 0..self.settling.len() {
            let token = self.settling.swap_remove(0);
            if self.is_live(token) {
                self.settle_bridge(token.key());
            }
        }
    }

    fn settle_bridge(&mut self, key: usize) {
        let Role::Settling { version, until, .. } = self.slots[key].role else { return };
        if self.now.micros < until && !self.lobby.all_know(version) {
            return self.settling.push(self.slots[key].token(key));
        }
        if let Role::Settling { bridge, .. } = self.set_role(key, Role::Leaving) {
            self.welcome(key, bridge);
        }
    }

    /// Tells a bridge that it is accepted, if it has asked, and parks it: in this order, because it
    /// must hear that before it hears of a match.
    fn welcome(&mut self, key: usize, bridge: Bridge) {
        if matches!(bridge.standing, Standing::Reused { .. }) {
            return self.park(key, bridge);
        }
        let welcome = match bridge.backend.word() {
            DeliveryReports::Untrusted => CONTINUE,
            DeliveryReports::Trusted => WELCOME,
            DeliveryReports::WithReceipts => WELCOME_RECEIPTS,
        };
        if self.slots[key].conn.send(welcome, &mut self.ws.pool).is_ok() {
            return self.park(key, bridge);
        }
        self.bridge_is_gone(&bridge);
        self.close(key);
    }

    /// What the keys that let the registration in grant; nothing, if none were needed.
    fn authorise(&self, key: usize, registration: &Registration) -> Result<Vec<Grant>, Refusal> {
        let Some(secrets) = &self.config.secrets else {
            if self.settings().open_bridges || self.is_local(key, registration) {
                // Nobody needs a key, but whoever shows one is counted under its name. The key may be made
                // up, so a limit in it means nothing.
                let name = |key: &HostKey| Grant { name: key.name().to_owned(), bridges: None };
                return Ok(registration.keys.iter().map(name).collect());
            }
            return Err(Refusal { status: 401, text: CLOSED_TO_OTHERS.to_owned() });
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let forms = if self.settings().legacy_keys { Forms::Both } else { Forms::Modern };
        hostkey::authorise(registration, secrets, forms, now)
    }

    /// Whether a bridge comes from this machine itself: its address is one of ours, and nothing
    /// shows that another proxy stands in between.
    fn is_local(&self, key: usize, registration: &Registration) -> bool {
        self.is_of_this_machine(key) && !registration.forwarded
    }

    /// Whether a peer's address is one of ours.
    pub(super) fn is_of_this_machine(&self, key: usize) -> bool {
        let slot = &self.slots[key];
        slot.peer.is_loopback() || slot.conn.local_ip().is_ok_and(|ip| ip == slot.peer)
    }

    /// A bridge is ready for a request: it serves one that waits, goes where one waits, or is
    /// parked.
    pub(super) fn park(&mut self, key: usize, bridge: Bridge) {
        if matches!(bridge.backend, Backend::Left { .. })
            || bridge.is_outdated()
            || self.server_is_gone(key)
        {
            return self.dismiss(key, &bridge);
        }
        let token = self.slots[key].token(key).word();
        let parking = self.lobby.park(bridge.route, token, self.now.micros);
        self.place(key, bridge, parking);
    }

    /// Does what the lobby has decided about a bridge.
    fn place(&mut self, key: usize, bridge: Bridge, parking: Parking) {
        match parking {
            // In the next turn: what comes of serving it may park a bridge, which may serve the
            // next, and so on through the whole queue and the stack.
            Parking::Serve { request, place } => {
                let responder = self.slots[key].token(key);
                self.set_role(key, Role::Matched { bridge });
                let requester = Token::from_word(request);
                self.pairs.push_back(Pair { requester, place, responder });
            }
            Parking::Send { to, passage } => self.send_bridge(key, bridge, to, passage),
            Parking::Parked(ticket) => {
                let deadline = self.parked_deadline(&bridge);
                self.set_role(key, Role::Parked { bridge, ticket });
                self.set_deadline(key, deadline);
                if self.is_parting() {
                    return self.part(key);
                }
                if self.slots[key].conn.is_readable() {
                    self.again(key);
                }
            }
        }
    }

    /// How long a parked bridge is left alone; zero for as long as it likes.
    fn parked_deadline(&self, bridge: &Bridge) -> Duration {
        let settings = self.settings();
        let least = Duration::from_millis(1);
        match bridge.standing {
            Standing::Reused { until: None } => Duration::ZERO,
            Standing::Reused { until: Some(until) } => {
                Duration::from_millis(until.saturating_sub(self.now.millis())).max(least)
            }
            Standing::Fresh if settings.bridge_timeout.is_zero() => settings.ping_interval,
            Standing::Fresh => {
                let left = settings.bridge_timeout.saturating_sub(self.parked_for(bridge));
                left.min(settings.ping_interval).max(least)
            }
        }
    }

    fn parked_for(&self, bridge: &Bridge) -> Duration {
        Duration::from_millis(self.now.millis().saturating_sub(bridge.parked_at))
    }

    /// A parked bridge has been left alone long enough.
    pub(super) fn parked_long(&mut self, key: usize) {
        let Role::Parked { bridge, .. } = &self.slots[key].role else {
            return;
        };
        if matches!(bridge.standing, Standing::Reused { .. }) {
            return self.close(key);
        }
        let limit = self.settings().bridge_timeout;
        if !limit.is_zero() && self.parked_for(bridge) >= limit {
            return self.refuse(key, 504, "no request came in time; try again");
        }
        let deadline = self.parked_deadline(bridge);
        let conn = &mut self.slots[key].conn;
        // A ping that the last one still stands in front of: nobody reads at the other end.
        if !conn.output.is_empty() || conn.send(CONTINUE, &mut self.ws.pool).is_err() {
            return self.close(key);
        }
        self.set_deadline(key, deadline);
    }

    /// Something has happened on a parked bridge: it has gone, or it says something, which it
    /// may not.
    pub(super) fn watch_parked(&mut self, key: usize) {
        let conn = &mut self.slots[key].conn;
        if conn.flush(&mut self.ws.pool).is_err() || conn.is_broken() {
            self.server_hung_up(key);
            return self.close(key);
        }
        let received = conn.receive(&mut self.ws.scratch);
        if !matches!(received, Received::Nothing) {
            self.server_hung_up(key);
        }
        match received {
            Received::Nothing => {}
            Received::Bytes(_) => {
                log::info!("backend {} spoke before it was asked", self.slots[key].peer);
                self.close(key);
            }
            Received::End | Received::Broken(_) => self.close(key),
        }
    }

    /// Takes a bridge that the lobby has matched out of its place; the caller gives it its next
    /// role. `None` when it has died since.
    pub(super) fn take_matched(&mut self, responder: Token) -> Option<Bridge> {
        if !self.is_live(responder) {
            return None;
        }
        match self.set_role(responder.key(), Role::Leaving) {
            Role::Parked { bridge, .. } | Role::Matched { bridge } => Some(bridge),
            role => {
                self.set_role(responder.key(), role);
                None
            }
        }
    }

    /// An exchange is done with a bridge: it parks again, or is closed.
    pub(super) fn release_bridge(&mut self, key: usize, next: Reuse) {
        let Reuse::Keep(timeout) = next else {
            return self.close(key);
        };
        if timeout.is_some_and(|seconds| seconds <= KEEP_ALIVE_MARGIN) {
            return self.close(key);
        }
        let now = self.now.millis();
        let until = timeout.map(|seconds| now + u64::from(seconds - KEEP_ALIVE_MARGIN) * 1000);
        let until = self.kept_until(key, until);
        self.park_again(key, |bridge| {
            bridge.standing = Standing::Reused { until };
            bridge.served = bridge.served.saturating_add(1);
        });
    }

    /// An exchange that came to nothing before the bridge had seen a byte of it: the bridge
    /// parks again as it was.
    pub(super) fn return_bridge(&mut self, key: usize) {
        let until = self.kept_until(key, None);
        self.park_again(key, |bridge| {
            if bridge.standing == Standing::Fresh {
                // It has acknowledged, and so waits for requests now.
                bridge.standing = Standing::Reused { until };
            }
        });
    }

    /// Until when a bridge that parks now is kept, in milliseconds: as long as it has said, and one that we have
    /// dialled no longer than the settings say.
    fn kept_until(&self, key: usize, said: Option<u64>) -> Option<u64> {
        if self.slots[key].server.is_some() { self.server_idle_until(said) } else { said }
    }

    fn park_again(&mut self, key: usize, change: impl FnOnce(&mut Bridge)) {
        let Role::Responding { mut bridge, .. } = self.set_role(key, Role::Leaving) else {
            debug_assert!(false, "released what is no bridge in an exchange");
            return self.close(key);
        };
        count_clients(&bridge, -1);
        change(&mut bridge);
        bridge.parked_at = self.now.millis();
        self.park(key, bridge);
    }

    /// While draining, a bridge with nothing to do is let go.
    pub(super) fn part(&mut self, key: usize) {
        match &self.slots[key].role {
            Role::Parked { bridge, .. } if bridge.standing == Standing::Fresh => {
                self.refuse(key, 504, "the proxy is shutting down; try again");
            }
            _ => self.close(key),
        }
    }

    /// A bridge goes to the worker where a request waits for it.
    fn send_bridge(&mut self, key: usize, bridge: Bridge, to: usize, passage: Passage) {
        let conn = &mut self.slots[key].conn;
        let clean = conn.flush(&mut self.ws.pool).unwrap_or(false)
            && (!conn.is_readable() || conn.is_quiet_and_open());
        if !clean || self.poll.registry().deregister(conn.source()).is_err() {
            self.lobby.undeliverable(bridge.route, to, passage, self.now.micros);
            self.set_role(key, Role::Leaving);
            return self.close(key);
        }
        let slot = self.remove(key);
        self.stats().moved.add(1);
        let peer = slot.peer;
        let (stream, server) = (slot.conn.into_stream(), slot.server);
        let parcel = Parcel { stream, peer, passage, bridge, server };
        self.shared.mailboxes[to].send(Mail::Bridge(Box::new(parcel)));
    }

    /// A bridge comes from another worker.
    pub(super) fn take_in(&mut self, parcel: Parcel) {
        let Parcel { stream, peer, passage, mut bridge, server } = parcel;
        match self.insert(stream, peer, Role::Leaving) {
            Ok(key) => {
                // It may be used before the next poll says what has come over it meanwhile.
                self.slots[key].conn.expect_input();
                self.slots[key].server = server;
                let token = self.slots[key].token(key);
                let landing = self.lobby.arrived(passage, token.word(), self.now.micros);
                bridge.route = landing.route;
                self.place(key, bridge, landing.parking);
                self.recheck(token);
            }
            Err(_) => {
                self.lobby.lost(passage, self.now.micros);
                self.shared.connections.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// The lobbies' mail has come.
    pub(super) fn lobby_mail(&mut self, mail: LobbyMail) {
        if let Some(Handover { bridge, to, passage, .. }) = self.lobby.on_mail(mail) {
            let responder = Token::from_word(bridge);
            if let Some(bridge) = self.take_matched(responder) {
                self.send_bridge(responder.key(), bridge, to, passage);
            }
        }
    }

    /// Takes over whom the lobby has found for each other without being asked.
    pub(super) fn collect_matches(&mut self) {
        while let Some(found) = self.lobby.next_match() {
            let requester = Token::from_word(found.request);
            let responder = Token::from_word(found.bridge);
            self.pairs.push_back(Pair { requester, place: found.place, responder });
        }
    }

    /// Brings together those whom the lobby has found for each other up to now. Once a turn,
    /// after the kernel has been asked: if a backend has said more than its response by then,
    /// the bridge is not used for anybody else.
    pub(super) fn serve_pairs(&mut self) {
        self.collect_matches();
        for _ in 0..self.pairs.len() {
            if let Some(Pair { requester, place, responder }) = self.pairs.pop_front() {
                self.bring_together(requester, place, responder);
            }
        }
    }

    /// Brings a waiting request and a bridge together, if both are still there.
    fn bring_together(&mut self, requester: Token, place: Place, responder: Token) {
        let waits = self.is_live(requester)
            && matches!(self.slots[requester.key()].role, Role::Waiting { .. });
        match (self.take_matched(responder), waits) {
            (Some(bridge), true) => {
                self.serve_waiting(requester.key(), place, responder.key(), bridge);
            }
            (Some(bridge), false) => self.park(responder.key(), bridge),
            (None, true) => self.wait_again(requester.key(), place),
            (None, false) => {}
        }
    }

    /// Sends what the lobby has to say to the others.
    pub(super) fn send_lobby_mail(&mut self) {
        while let Some((to, mail)) = self.lobby.next_mail() {
            self.shared.mailboxes[to].send(Mail::Lobby(mail));
        }
    }

    /// Has the other workers look at the directory.
    pub(super) fn wake_others(&self) {
        self.shared.others(self.index).for_each(Mailbox::wake);
    }

    /// The bridge in slot `key` takes part in `exchange`.
    pub(super) fn respond_in(&mut self, key: usize, bridge: Bridge, exchange: usize) {
        count_clients(&bridge, 1);
        self.set_role(key, Role::Responding { bridge, exchange });
        // The exchange's deadline is its requester's.
        self.timers.clear(key);
    }

    /// The bridge of an exchange no longer exists.
    pub(super) fn responder_is_gone(&mut self, bridge: &Bridge) {
        count_clients(bridge, -1);
        self.bridge_is_gone(bridge);
    }

    /// The bridge no longer exists, and is about to be dropped.
    pub(super) fn bridge_is_gone(&mut self, bridge: &Bridge) {
        self.lobby.leave(bridge.route, self.now.micros);
    }
}

fn count_clients(bridge: &Bridge, change: i64) {
    if let Some(keys) = &bridge.keys {
        keys.count_clients(change);
    }
    if let Origin::Swiftclient(guest) = &bridge.origin {
        guest.count_clients(change);
    }
}
