//! A backend registers by a BRIDGE request, and its bridge is parked.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::bridge::hostkey::{self, Grant, HostKey, NamedKey, Shown};
use crate::bridge::instance::InstanceName;
use crate::bridge::ptth;
use crate::bridge::request::CONTINUE;
use crate::bridge::{Refusal, Registration};
use crate::config::ExpiredKeys;
use crate::http::reply::Reply;
use crate::net::log_limiter;
use crate::routing::{Joined, RouteSpec, TooManyBridges};

use super::authorised::{Consent, NO_ANSWER};
use super::authoriser::{Question, Told};
use super::backends::Key;
use super::bridge_store::Keeping;
use super::certified::Certified;
use super::closing::End;
use super::deregistration::DEREGISTERED;
use super::facts;
use super::leases::{Certificate, KeyLease};
use super::reason::Reason;
use super::role::{Announced, Bridge, Handshake, Origin, ParkedBridge, Role, Route, Welcome};
use super::shares::Counted;
use super::stats::Admitted;
use super::terms::Terms;
use super::upgrade::notes::MovedBridge;
use super::worker::Worker;

/// The answer to a backend on another machine while no secrets are configured.
const NO_SECRETS: &str = "without secrets, bridges are taken only from this machine itself \
    and not through another proxy; set `secrets FILE`, or `open-bridges yes` to let anybody in";

/// `Retry-After` for a surplus bridge, in seconds.
const RETRY_AFTER: u32 = 5;

/// How long the bridge that created a route waits at most until every worker knows the route. The
/// workers are woken for it and need one turn each, unless the machine is too busy to run them.
const ROUTE_SYNC_TIMEOUT: Duration = Duration::from_millis(100);

/// In place of a status, for the log: a bridge that is refused without an answer.
const UNANSWERED: u16 = 0;

/// How a connection comes to be a bridge.
pub(super) enum Entry {
    /// Here.
    New(Handshake, Welcome),
    /// In the program that this one replaces, or in the process before this one. With its place in
    /// what systemd keeps.
    Moved(MovedBridge, Cell<Keeping>),
}

/// What a backend says of itself.
#[derive(Default)]
pub(super) struct Introduction<'a> {
    /// What program it is.
    pub(super) agent: Option<&'a str>,
    /// Its name that stays the same when it comes again.
    pub(super) instance: Option<InstanceName>,
}

/// Why a backend that registers is not let in.
enum RefusedBridge {
    ShuttingDown,
    NoKey(Reason, Refusal),
    Deregistered,
    /// There are too many bridges, or there are to be none. It may come again.
    Surplus(Reason, Cow<'static, str>),
}

impl RefusedBridge {
    /// The program that authorises has said no, for this reason.
    fn not_authorised(reason: &str) -> RefusedBridge {
        let text = match reason {
            "" => "this bridge is not allowed".to_owned(),
            reason => format!("this bridge is not allowed: {reason}"),
        };
        RefusedBridge::NoKey(Reason::NotAuthorised, Refusal { status: 403, text })
    }

    fn reason(&self) -> Reason {
        match self {
            RefusedBridge::ShuttingDown => Reason::ShuttingDown,
            RefusedBridge::NoKey(reason, _) | RefusedBridge::Surplus(reason, _) => *reason,
            RefusedBridge::Deregistered => Reason::Deregistered,
        }
    }
}

impl fmt::Display for RefusedBridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RefusedBridge::ShuttingDown => f.write_str("this program is shutting down"),
            RefusedBridge::NoKey(_, refusal) => f.write_str(&refusal.text),
            RefusedBridge::Deregistered => f.write_str(DEREGISTERED),
            RefusedBridge::Surplus(_, text) => f.write_str(text),
        }
    }
}

/// What a bridge is counted under if keys are not needed: the names in those that it shows. They may
/// be made up, so their limits mean nothing.
fn named(registration: &Registration) -> Vec<Grant> {
    let shown = Shown::Bare;
    let name = |name: &str| Grant { name: name.to_owned(), limits: Vec::new(), proof: None, shown };
    let Registration { keys, named, proven, .. } = registration;
    let names = proven.iter().chain(keys).map(HostKey::name);
    names.chain(named.iter().map(NamedKey::name)).map(name).collect()
}

impl Entry {
    /// Whether it has served requests: what is sent to it is one.
    fn awaits_request(&self) -> bool {
        match self {
            Entry::New(..) => false,
            Entry::Moved(moved, _) => !moved.is_fresh,
        }
    }

    fn handshake(&self) -> Handshake {
        match self {
            Entry::New(handshake, _) => *handshake,
            Entry::Moved(moved, _) => moved.handshake(),
        }
    }

    /// Whether systemd keeps it. The first call takes that out.
    fn keeping(&self) -> Keeping {
        match self {
            Entry::New(..) => Keeping::NotYet,
            Entry::Moved(_, keeping) => keeping.take(),
        }
    }

    /// What it is told when it is let in. One that has moved knows it.
    fn welcome(&self) -> Welcome {
        match self {
            Entry::New(_, welcome) => *welcome,
            Entry::Moved(..) => Welcome::Silent,
        }
    }
}

impl Worker {
    /// A BRIDGE request is complete: authorises the backend, and parks the bridge.
    pub(super) fn register(&mut self, key: usize, registration: &Registration) {
        self.register_told(key, registration, None);
    }

    /// The same, once the program that authorises has been asked.
    pub(super) fn register_told(
        &mut self,
        key: usize,
        registration: &Registration,
        told: Option<&Told>,
    ) {
        let entry = match registration.ptth {
            false => Entry::New(Handshake::Fresh, Welcome::Continue),
            // The draft has no acknowledgement: who wants one says so.
            true if Announced::by(registration).is_some_and(|announced| announced.uses.probes) => {
                Entry::New(Handshake::Fresh, Welcome::Upgrade)
            }
            true => Entry::New(Handshake::Reused { until: None }, Welcome::Upgrade),
        };
        self.finish_register(key, registration, &entry, told);
    }

    /// The same for a bridge that may come from the program which this one replaces.
    pub(super) fn register_as(&mut self, key: usize, registration: &Registration, entry: Entry) {
        self.finish_register(key, registration, &entry, None);
    }

    fn finish_register(
        &mut self,
        key: usize,
        registration: &Registration,
        entry: &Entry,
        told: Option<&Told>,
    ) {
        match self.try_register(key, registration, entry, told) {
            Ok(None) => {}
            Ok(Some(question)) => self.await_consent(key, registration, &question),
            Err(refused) => self.refuse_bridge(key, entry, &refused),
        }
    }

    /// Lets a backend in, unless a question is to be asked about it first, which is returned.
    fn try_register(
        &mut self,
        key: usize,
        registration: &Registration,
        entry: &Entry,
        told: Option<&Told>,
    ) -> Result<Option<Question>, RefusedBridge> {
        if !self.is_serving() && registration.leave.is_none() {
            return Err(RefusedBridge::ShuttingDown);
        }
        let of_no_key = |(reason, refusal)| RefusedBridge::NoKey(reason, refusal);
        let comes_back = matches!(entry, Entry::Moved(..));
        let (grants, certificate) =
            self.admission(key, registration, comes_back).map_err(of_no_key)?;
        if let Some(token) = registration.leave {
            self.deregister(key, token, registration);
            return Ok(None);
        }
        let spec = self.spec_of(registration, &grants, certificate.as_ref().map(|of| of.names));
        if self.has_deregistered(registration.backend, &spec) {
            return Err(RefusedBridge::Deregistered);
        }
        let of_keys = (grants.as_slice(), certificate.as_ref());
        let consent = match comes_back {
            // It is asked about when it parks the next time.
            true => Consent::NotNeeded,
            false => self.consent(key, registration, &spec, of_keys, told),
        };
        match consent {
            Consent::Awaited(question) => return Ok(Some(question)),
            Consent::Refused(reason) => return Err(RefusedBridge::not_authorised(&reason)),
            Consent::Unknown => {
                return Err(RefusedBridge::Surplus(Reason::AuthoriseFailed, NO_ANSWER.into()));
            }
            Consent::NotNeeded | Consent::Given(..) => {}
        }
        // Before the route is joined: dropping these gives them back if a later step fails.
        let share = self.bridge_permit(key).ok_or_else(|| {
            let text = "as many bridges as the proxy takes are connected";
            RefusedBridge::Surplus(Reason::BridgeLimit, text.into())
        })?;
        let proofs = self
            .hold_proofs(&grants)
            .map_err(|refusal| of_no_key((Reason::BridgeUnauthorized, refusal)))?;
        let keys = self.shared.keys.lease(&grants, proofs, self.bridges_of_one());
        let mut keys = keys.map_err(|exhausted| {
            RefusedBridge::Surplus(Reason::KeyLimit, exhausted.to_string().into())
        })?;
        let by = certificate.as_ref().map(|certificate| certificate.held.shown().described());
        if let (Some(keys), Some(certificate)) = (&mut keys, certificate) {
            keys.show(certificate);
        }
        // For its keys, those that they were narrowed from, and what an answer has named.
        let names = keys.as_deref().map_or_else(Vec::new, KeyLease::limited_names);
        let limited = self.shared.key_limits.enter(names.into_iter(), consent.limits());
        let limited = limited.map_err(|exhausted| {
            RefusedBridge::Surplus(Reason::KeyLimit, exhausted.to_string().into())
        })?;
        let joined = self.join(&spec).map_err(|full| {
            let text = match full.predicates {
                false => "too many bridges serve this name",
                true => "too many predicates are in use for this name",
            };
            RefusedBridge::Surplus(Reason::HostLimit, text.into())
        })?;
        let (peer, admitted) = (self.conns[key].peer, Admitted::by(keys.as_deref()));
        if log::log_enabled!(log::Level::Debug) {
            let by = match by {
                None => admitted.shown().to_owned(),
                Some(by) if admitted == Admitted::Certificate => {
                    format!("by the certificate of {by}")
                }
                Some(by) => format!("{} and the certificate of {by}", admitted.shown()),
            };
            let (patterns, asked) =
                (&registration.patterns, if registration.ptth { "ptth" } else { "bridge" });
            log::debug!("{asked} from {peer} for {patterns:?}, admitted {by}");
        }
        self.stats().admitted[admitted as usize].add(1);
        let limited = limited.on(joined.route.id(), joined.route.limited());
        let (asked, answer) = consent.hold();
        let terms = Terms { asked, answer, limited };
        let (announced, terms) = (Announced::by(registration), terms.kept());
        let origin = Origin::Registered { keys, announced, terms };
        let said = Introduction {
            agent: registration.agent.as_deref(),
            instance: registration.instance.clone(),
        };
        self.admit(key, joined, origin, entry, (share, said));
        Ok(None)
    }

    /// Answers a backend that is not let in. One that has served requests, and comes from another
    /// program, awaits a request and no answer: it is closed, as when a reload takes its key back.
    fn refuse_bridge(&mut self, key: usize, entry: &Entry, refused: &RefusedBridge) {
        if entry.awaits_request() {
            self.stats().refusals.of(refused.reason()).add(1);
            if let Some(count) = self.bridges_refused.allow(UNANSWERED, self.conns.now().millis()) {
                let peer = self.conns[key].address();
                let more = log_limiter::suppressed(count, " closed");
                log::info!("backend {peer} of the old program is closed: {refused}{more}");
            }
            return self.end(key, End::Linger);
        }
        match refused {
            RefusedBridge::ShuttingDown => self.reject_shutting_down(key),
            RefusedBridge::NoKey(reason, refusal) => {
                let asks = refusal.status == 401 && entry.welcome() == Welcome::Upgrade;
                let extra = if asks { ptth::CHALLENGE } else { "" };
                let reply = Reply { extra, ..Reply::new(refusal.status, &refusal.text) };
                self.reject_bridge(key, *reason, reply);
            }
            RefusedBridge::Deregistered => {
                self.reject(key, Reason::Deregistered, Reply::new(504, DEREGISTERED));
            }
            RefusedBridge::Surplus(reason, text) => {
                let reply = Reply { retry_after: Some(RETRY_AFTER), ..Reply::new(503, text) };
                self.reject_bridge(key, *reason, reply);
            }
        }
    }

    /// The keys of a bridge that another program has let in, and what they grant. It is not refused,
    /// but one without a good key has lost what it was let in for.
    pub(super) fn origin_again(
        &mut self,
        key: usize,
        registration: &Registration,
    ) -> (Origin, Vec<Grant>) {
        let good = self.authorise_again(key, registration).ok().and_then(|grants| {
            let proofs = self.hold_proofs(&grants).ok()?;
            Some((grants, proofs))
        });
        let (grants, proofs) = good.unwrap_or_else(|| (named(registration), Box::default()));
        let keys = self.shared.keys.lease_again(&grants, proofs);
        let announced = Announced::by(registration);
        (Origin::Registered { keys, announced, terms: None }, grants)
    }

    /// What a registration is granted by the certificate that its peer has shown, and for the hosts that
    /// it does not cover by keys.
    fn admission(
        &self,
        key: usize,
        registration: &Registration,
        comes_back: bool,
    ) -> Result<(Vec<Grant>, Option<Certificate>), (Reason, Refusal)> {
        let shown = self.shown_by(key);
        let Certified { mut grants, held, rest } = self
            .certify(shown.as_ref(), registration, comes_back)
            .map_err(|refusal| (Reason::BridgeUnauthorized, refusal))?;
        let names = grants.len();
        if let Some(rest) = &rest {
            let keys = match comes_back {
                false => self.authorise(key, rest),
                true => self.authorise_again(key, rest),
            };
            grants.extend(keys.map_err(|(reason, refusal)| {
                (reason, self.beside(key, shown.as_ref(), refusal))
            })?);
        }
        let covers_all = rest.is_none();
        Ok((grants, held.map(|held| Certificate { held, names, covers_all })))
    }

    /// Adds a bridge to the route for `spec`.
    ///
    /// # Errors
    /// There is no room for it.
    pub(super) fn join(
        &mut self,
        spec: &RouteSpec,
    ) -> Result<Joined<ParkedBridge>, TooManyBridges> {
        let now = self.conns.now();
        let limits = &self.exchange_config.limits;
        let meets = facts::of_waiting(&self.conns, &self.config, limits);
        self.scheduler.join(spec, now, &meets)
    }

    /// Adds a bridge that another program has let in to its route.
    pub(super) fn join_again(&mut self, spec: &RouteSpec) -> Arc<Route> {
        self.scheduler.set_bridges_per_host(0);
        // If there are too many predicates it has none: what comes so has a tunnel, and gets no
        // request.
        let joined = self.join(spec).or_else(|_| self.join(&spec.clone().only_if(<_>::default())));
        let Ok(joined) = joined else { unreachable!("there is no bound") };
        if joined.new {
            self.wake_others();
        }
        joined.route
    }

    /// A place in the bridges' share for one that registers; none if it is full, or if only the
    /// reserve is left.
    pub(super) fn bridge_permit(&mut self, key: usize) -> Option<Counted> {
        let shares = self.shares();
        if self.admitted_connections() + usize::from(self.is_newcomer(key)) > shares.open {
            return None;
        }
        let permit = self.shared.bridges.enter(shares.bridges)?;
        // While fewer are connected in all, no host can have too many, and no lock is needed to see
        // that.
        let most = self.bridges_of_one();
        let bound = if self.shared.bridges.get() <= most { 0 } else { most };
        self.scheduler.set_bridges_per_host(bound);
        Some(permit)
    }

    /// Most bridges of one host pattern, and of one key that says nothing about it.
    fn bridges_of_one(&self) -> usize {
        match self.settings().bridges_per_host {
            0 => self.shares().bridges_of_one,
            most => most,
        }
    }

    /// The route of a registration. With secrets, a bridge helps out with a name that another bridge
    /// has registered more exactly only if its own key covers that name: a key for `*` must not get
    /// what is meant for the holder of another. The first `certified` grants are a certificate's, which
    /// covers no name below its own.
    pub(super) fn spec_of(
        &self,
        registration: &Registration,
        grants: &[Grant],
        certified: Option<usize>,
    ) -> RouteSpec {
        let spec = RouteSpec::new(&registration.patterns, &registration.prefix)
            .only_if(registration.predicates.clone());
        let keys = &grants[certified.unwrap_or(0)..];
        let reaches_below = |pattern: &String| match pattern.strip_prefix("*.") {
            Some(suffix) => keys.iter().any(|grant| hostkey::covers(&grant.name, suffix)),
            None => pattern != "*",
        };
        let needs_none = self.config.keyring.is_none() && certified.is_none();
        if needs_none || registration.patterns.iter().all(reaches_below) {
            spec
        } else {
            spec.confined()
        }
    }

    /// A connection has joined a route as a bridge: it parks at once, or, if it created the route,
    /// when every worker knows it. With its place in the bridges' share comes what it says of itself.
    pub(super) fn admit(
        &mut self,
        key: usize,
        joined: Joined<ParkedBridge>,
        origin: Origin,
        entry: &Entry,
        (share, said): (Counted, Introduction<'_>),
    ) {
        let now = self.conns.now();
        let key_of = match &origin {
            Origin::Registered { announced: Some(announced), .. } => Key::Token(announced.token),
            Origin::Swiftclient(backend) => backend.key(),
            _ => Key::Address(self.conns[key].peer, said.instance.clone()),
        };
        let backend = self.shared.backends.of(key_of, now.millis());
        let through_old = self
            .conns
            .role(key)
            .and_then(Role::client)
            .and_then(|client| client.through_old.clone());
        let mut bridge = Box::new(Bridge {
            route: joined.route,
            group: None,
            instance: said.instance.map(|name| backend.see_instance(&name)),
            _joined: backend.join(),
            _bearer: backend.join_bearers(origin.shown()),
            backend,
            origin,
            handshake: entry.handshake(),
            served: 0,
            parked_at: now.millis(),
            carried_body: false,
            dismissed: false,
            on_trial: false,
            keeping: if through_old.is_some() { Keeping::Never } else { entry.keeping() },
            through_old,
            _share: Some(share),
        });
        if let Entry::Moved(moved, _) = entry {
            (bridge.served, bridge.carried_body) = (moved.served, moved.carried_body);
            bridge.parked_at = moved.parked_at();
        }
        if joined.new {
            self.wake_others();
        }
        let peer = self.conns[key].peer;
        bridge.backend.see(peer, bridge.route.spec().patterns(), bridge.first_key());
        bridge.backend.see_certificate(bridge.certificate().map(|of| of.shown().summary()));
        bridge.backend.see_agent(said.agent);
        if self.shared.drained.has(&bridge, peer) {
            bridge.route.leave(now);
            return self.refuse_drained(key, entry);
        }
        bridge.join_instance();
        if bridge.join_group() {
            self.shared.has_groups.store(true, Ordering::Relaxed);
        }
        if let Entry::Moved(..) = entry {
            // It has been welcomed. No request can be ahead of it that another worker does not know:
            // nothing is accepted before all are here, and later ones come to known routes.
            self.set_role(key, Role::Idle(bridge));
            return self.park(key);
        }
        if !joined.new || self.shared.mailboxes.len() == 1 {
            self.set_role(key, Role::Idle(bridge));
            return self.welcome(key, entry.welcome());
        }
        let (version, until) = (self.scheduler.routes_version(), now + ROUTE_SYNC_TIMEOUT);
        let welcome = entry.welcome();
        self.set_role(key, Role::AwaitingRoute { bridge, version, until, welcome });
        self.conns.clear_deadline(key);
        self.awaiting_route.push_back(self.conns[key].token());
    }

    /// The operator has drained the backend, or what it serves.
    fn refuse_drained(&mut self, key: usize, entry: &Entry) {
        match self.conns.role(key) {
            Some(Role::ReadingHead { .. }) => {
                let text = "drained by the operator";
                let refused = RefusedBridge::Surplus(Reason::Drained, text.into());
                self.refuse_bridge(key, entry, &refused);
            }
            _ => self.end(key, End::Close),
        }
    }

    /// Parks the bridges whose new route every worker knows by now, in order of arrival. A later
    /// one waits for a later version, so none is looked at behind the first that must wait.
    pub(super) fn park_synced_bridges(&mut self) {
        while let Some(&token) = self.awaiting_route.front() {
            if let Some(key) = self.conns.find(token) {
                if !self.is_synced(key) {
                    return;
                }
                let welcome = match self.conns.role(key) {
                    Some(Role::AwaitingRoute { welcome, .. }) => *welcome,
                    _ => Welcome::Silent,
                };
                self.welcome(key, welcome);
            }
            self.awaiting_route.pop_front();
        }
    }

    /// Whether the bridge in slot `key` need no longer wait for a route sync.
    fn is_synced(&self, key: usize) -> bool {
        match self.conns.role(key) {
            Some(Role::AwaitingRoute { version, until, .. }) => {
                self.conns.now() >= *until || self.scheduler.all_know(*version)
            }
            _ => true,
        }
    }

    /// Confirms a registration and parks the bridge, in this order: the `100` must precede the 101
    /// of a match.
    fn welcome(&mut self, key: usize, welcome: Welcome) {
        let Some(bridge) = self.conns.role(key).and_then(Role::bridge) else { return };
        let announced = bridge.announced().map(|announced| announced.uses);
        let (connection, ws) = self.conns.split(key);
        ws.out.clear();
        match (welcome, announced) {
            (Welcome::Silent, _) => return self.park(key),
            (Welcome::Upgrade, announced) => ptth::accept(announced, &mut ws.out),
            (Welcome::Continue, Some(announced)) => announced.welcome(&mut ws.out),
            (Welcome::Continue, None) => ws.out.extend_from_slice(CONTINUE),
        }
        match connection.conn.send(&ws.out, &mut ws.pool) {
            Ok(_) => self.park(key),
            Err(_) => self.end(key, End::Close),
        }
    }

    /// What the keys of a registration grant; nothing if none are needed.
    fn authorise(
        &self,
        key: usize,
        registration: &Registration,
    ) -> Result<Vec<Grant>, (Reason, Refusal)> {
        let Some(keyring) = &self.config.keyring else {
            let is_asked = self.is_asked(key);
            let is_local = !is_asked && self.is_of_this_machine(key) && !registration.forwarded;
            if self.settings().open_bridges || is_local {
                return Ok(named(registration));
            }
            if is_asked {
                let first = registration.patterns.first().map_or("", String::as_str);
                let text = format!("no certificate covers {first}");
                return Err((Reason::BridgeUnauthorized, Refusal { status: 401, text }));
            }
            let refusal = Refusal { status: 401, text: NO_SECRETS.to_owned() };
            return Err((Reason::BridgeNotLocal, refusal));
        };
        hostkey::authorise(registration, keyring, self.shared.moment().unix.as_secs())
            .map_err(|refusal| (Reason::BridgeUnauthorized, refusal))
    }

    /// As [`Worker::authorise`], for a bridge that another program has let in. Its key may have
    /// expired since, and still be good enough.
    fn authorise_again(
        &self,
        key: usize,
        registration: &Registration,
    ) -> Result<Vec<Grant>, (Reason, Refusal)> {
        let refused = match self.authorise(key, registration) {
            Ok(grants) => return Ok(grants),
            Err(refused) => refused,
        };
        let keys = registration.keys.iter().chain(&registration.proven);
        let expired = keys.filter_map(HostKey::expires).min();
        match (&self.config.keyring, expired) {
            (Some(keyring), Some(at)) if self.settings().expired_keys == ExpiredKeys::Log => {
                let then = at.saturating_sub(1).min(self.shared.moment().unix.as_secs());
                hostkey::authorise(registration, keyring, then).map_err(|_| refused)
            }
            _ => Err(refused),
        }
    }

    /// Whether the peer's address is one of this machine's, and so is the one that it announced.
    pub(super) fn is_of_this_machine(&self, key: usize) -> bool {
        let connection = &self.conns[key];
        let is_own = |peer: IpAddr| {
            peer.is_loopback() || connection.conn.local_ip().is_ok_and(|ip| ip == peer)
        };
        is_own(connection.socket_peer()) && is_own(connection.peer)
    }
}
