//! An application: its slots, its idle connections, and its health.

use std::time::Duration;

use super::exchange_config::CONFIG;
use super::lookup::Name;
use super::service::{Encryption, Service};
use super::slots::Slots;
use super::upgrade::notes::Condition;
use crate::client::handshake::Offer;
use crate::config::Destination;
use crate::exchange::ExchangeConfig;
use crate::net::log_limiter::LogLimiter;
use crate::net::token::Token;
use crate::routing::places::Arbiter;
use crate::time::Millis;
use crate::upstream::{Addresses, Doubt, Health, Purpose, Tally};

/// An application and its service.
pub(super) struct Application {
    pub service: Service,
    /// What its exchanges obey.
    pub exchange: ExchangeConfig,
    /// The BRIDGE request. It holds the keys, so it is never shown.
    pub registration: Vec<u8>,
    /// The file no longer names it. It stays in the table, because connections refer to it by
    /// index; a few hundred bytes per reload do not matter.
    pub withdrawn: bool,
    /// Idle connections. The next to be used is last: the most recently used, which is the least
    /// likely to be closed, but those whose last request had a body come after all others.
    pub idle: Vec<Token>,
    pub slots: Slots,
    /// Which proxy may use them, if there are several.
    pub arbiter: Option<Box<Arbiter>>,
    /// How many more tunnels it may have.
    pub tunnels_free: usize,
    /// How many of these the program still has that this one replaces.
    pub tunnels_elsewhere: usize,
    tunnel_refused: LogLimiter,
    /// Since when all slots have been taken and none has been given back, unless the log says so
    /// already.
    pub full_since: Option<Millis>,
    pub full_reported: LogLimiter,
    pub addresses: Addresses,
    /// Its name, if it was given by name, and when to look that up again.
    pub name: Option<Name>,
    pub refresh_at: Millis,
    pub health: Health,
    /// Whether it may be about to end.
    pub doubt: Doubt,
    /// Until when it counts as careless: it has answered a request without reading its body.
    careless_until: Millis,
    pub tally: Tally,
    /// When its health is checked next, if it is to be.
    pub check_at: Millis,
}

/// The option by which keys are sent as they are.
pub(super) const BEARER_KEYS: &str = "--bearer-keys";

/// How long an application counts as careless: as long as a route does at the proxy, where the
/// reasons are (`doc/design.md`, "Bodies that backends leave unread").
const DISTRUSTED: Duration = Duration::from_secs(3600);

/// The party of bridges whose proxies cannot be told of places: they know nothing of them, or have been
/// asked to close these.
pub(super) const OTHERS: usize = 0;

/// An arbiter of so many places.
fn arbiter(places: usize) -> Box<Arbiter> {
    let mut arbiter = Box::new(Arbiter::new(places));
    let others = arbiter.add();
    debug_assert_eq!(others, OTHERS);
    arbiter
}

impl Application {
    /// An application of unknown health.
    pub fn new(service: Service, registration: Vec<u8>) -> Application {
        Application {
            slots: Slots::new(service.limit),
            arbiter: service.has_several_proxies().then(|| arbiter(service.limit)),
            tunnels_free: service.tunnels,
            tunnels_elsewhere: 0,
            tunnel_refused: LogLimiter::default(),
            full_since: None,
            full_reported: LogLimiter::default(),
            addresses: Addresses::of(&service.to),
            name: match &service.to {
                Destination::Name { host, port } => Some(Name::new(host.clone(), *port)),
                Destination::Local { .. } | Destination::Socket(_) | Destination::Unix(_) => None,
            },
            refresh_at: Millis(0),
            exchange: ExchangeConfig { host: service.rewrite_host.clone(), ..CONFIG },
            service,
            registration,
            withdrawn: false,
            idle: Vec::new(),
            health: Health::UNKNOWN,
            doubt: Doubt::default(),
            careless_until: Millis(0),
            tally: Tally::default(),
            check_at: Millis(0),
        }
    }

    /// How connections to it are encrypted.
    pub fn encryption(&self) -> Option<Encryption> {
        let tls = self.service.to_tls.clone()?;
        let host = match &self.service.to {
            Destination::Name { host, .. } => host.clone(),
            Destination::Socket(address) => address.ip().to_string(),
            Destination::Local { .. } | Destination::Unix(_) => "localhost".to_owned(),
        };
        Some(Encryption { tls, host })
    }

    /// `request`, one of its BRIDGE requests, with how its keys are shown.
    pub fn offer<'a>(&self, request: &'a [u8]) -> Offer<'a> {
        let bearer_keys = self.service.scope.sends_keys();
        Offer { request, bearer_keys, hint: BEARER_KEYS }
    }

    /// Withdraws it: no proxy gets another bridge for it.
    pub fn withdraw(&mut self) {
        self.withdrawn = true;
        self.registration = Vec::new();
        log::info!("{} is no longer served", self.service.to);
    }

    /// Whether to dial bridges for it now. While all its slots are taken, a new bridge could not
    /// serve a request: a proxy gets one only if it can be told (`tells`).
    pub fn wants_bridges(&self, tells: bool) -> bool {
        !self.withdrawn && self.health.is_up() && (tells || self.slots.any_free())
    }

    /// How many requests of a party have places here.
    pub fn busy_of(&self, party: Option<usize>) -> usize {
        match (&self.arbiter, party) {
            (Some(arbiter), Some(party)) => arbiter.busy(party),
            _ => 0,
        }
    }

    /// Takes a place for a tunnel. False if none is free.
    pub fn take_tunnel(&mut self, now: Millis) -> bool {
        let taken = self.tunnels_free > self.tunnels_elsewhere;
        self.tunnels_free -= usize::from(taken);
        if !taken && self.tunnel_refused.allow(now).is_some() {
            let Service { to, tunnels, .. } = &self.service;
            log::warn!(
                "the application at {to} has {tunnels} tunnels, as many as --tunnels allows"
            );
        }
        taken
    }

    /// How many tunnels it has, with those of the program that this one replaces.
    pub fn tunnels_taken(&self) -> usize {
        self.service.tunnels - self.tunnels_free + self.tunnels_elsewhere
    }

    /// How it is, for the program that replaces this one.
    pub fn condition(&self, now: Millis) -> Condition {
        Condition {
            up: self.health.is_up(),
            addresses: self.name.iter().flat_map(|_| self.addresses.list()).copied().collect(),
            tally: self.tally.counts(),
            careless: self.careless_until.since(now),
        }
    }

    /// Takes what the program knows that this one replaces. One that is down is probed at once.
    pub fn take_condition(&mut self, condition: &Condition, now: Millis) {
        if !condition.addresses.is_empty() {
            self.addresses.update(condition.addresses.clone());
        }
        if condition.up {
            self.health = Health::Up;
        }
        let (good, bad) = condition.tally;
        self.tally = Tally::of(good, bad);
        self.careless_until = now + condition.careless;
    }

    /// What was known of it is all that is known: probes under way have been given up.
    pub fn resume(&mut self) {
        self.health = if self.health.is_up() { Health::Up } else { Health::UNKNOWN };
    }

    /// Notes that it has taken a probe's connection.
    pub fn answered(&mut self, now: Millis) {
        if self.health.answered(now) {
            log::info!("the application at {} is up", self.service.to);
        }
    }

    /// Notes that it has sent bytes that belong to no request, over a connection that has carried a
    /// body.
    pub fn left_a_body_unread(&mut self, now: Millis) {
        if !self.is_careless(now) {
            log::warn!(
                "the application at {} answers requests without reading their bodies: from now on \
                 its connections are closed after each request with a body",
                self.service.to
            );
        }
        self.careless_until = now + DISTRUSTED;
    }

    /// Whether its connections must not be used again after a request with a body.
    pub fn is_careless(&self, now: Millis) -> bool {
        now < self.careless_until
    }

    /// Notes that it has answered its health check.
    pub fn check_succeeded(&mut self, now: Millis) {
        let Some(check) = &self.service.check else { return };
        if self.tally.succeeded(check) || self.health.is_up() {
            self.answered(now);
        } else {
            self.health.answered_once(now);
        }
    }

    /// Notes that it has failed its health check. True if it is down.
    pub fn check_failed(&mut self, now: Millis, why: &std::io::Error) -> bool {
        let Some(check) = &self.service.check else { return false };
        let is_over = self.tally.failed(check) || !self.health.is_up();
        if !is_over {
            log::debug!("the application at {}: {why}", self.service.to);
            self.answered(now);
        }
        is_over
    }

    /// Notes that it could not be reached. True if it was up until now.
    pub fn failed(&mut self, purpose: Purpose, now: Millis, why: &std::io::Error) -> bool {
        self.tally = Tally::default();
        let was_up = self.health.is_up();
        let to = &self.service.to;
        if self.health.failed(purpose, now, crate::backoff::random()) {
            log::warn!(
                "the application at {to} cannot be reached: {why}; no bridge is parked for it \
                 until it is back"
            );
        } else {
            log::debug!("the application at {to} cannot be reached: {why}");
        }
        was_up && !self.health.is_up()
    }
}
