//! What a connection is to the proxy.
//!
//! ```text
//! CLIENT                                         BRIDGE
//!   accept, and a PROXY header if there is one     BRIDGE request, or swiftclient preamble
//!     │                                              │ created the route: others must sync first
//!     v                                              ├──────────────> AwaitingRoute ─┐
//!   ReadingHead <──────────────┐                     v                               │
//!     │        │ no idle bridge│ next request      Idle (lent to the scheduler) <────┤
//!     │        v               │ or retry            │          │                    │
//!     │      Queued ───────────┤                     │ matched  │ reserved for one   │
//!     │ matched│ matched       │                     │          │ that waited        │
//!     v        v               │                     v          v                    │
//!   Requesting ────────────────┘                   Responding <── Reserved           │
//!                                                    │ exchange over, bridge reusable│
//!                                                    └───────────────────────────────┘
//!   SERVER we dial: Connecting ──> Idle            SWIFTCLIENT: AwaitingPreamble ──> AwaitingRoute
//! ```
//!
//! A bridge that has no request may be in the middle of a message, or rest: Speaking, Resting
//! (`places.rs`).
//! A backend whose keys are good is Authorising while a program is asked about it (`authorised.rs`).
//! A client that gets a file is Opening while a thread opens it, and Sending while it is sent (`files.rs`).
//!
//! Any role may end in a lingering close or a close; the event loop does those
//! (`net/event_loop.rs`).

use std::sync::Arc;

use crate::bridge::extensions::Extensions;
use crate::bridge::hostkey::{Keyring, Showing, Shown};
use crate::bridge::proof::Nonce;
use crate::bridge::{BackendToken, Registration};
use crate::config::Serves;
use crate::exchange::{CloseScope, DeliveryReports, RequestMeta};
use crate::net::event_loop::Connection;
use crate::net::token::Token;
use crate::routing::{self, GroupId, Membership, QueuePos, WaiterId};
use crate::time::{Micros, Millis};

use super::access_log::Record;
use super::backends::{Backend, BackendId};
use super::bridge_store::Keeping;
use super::certificates::HeldCertificate;
use super::dial::attempts::Attempt;
use super::dial::servers;
use super::instance::Instance;
use super::key_limits::Waits;
use super::leases::{KeyLease, SwiftclientBackend};
use super::listeners::{Accepts, Encryption, SwiftclientListener};
use super::managers::Wanted;
use super::pace::Pace;
use super::proofs::{Held, Loss};
use super::request_ids::CurrentId;
use super::sending::{Opening, Sending};
use super::shares::{AddressPermit, Counted};
use super::sticky::AskedCookie;
use super::terms::Terms;
use super::through_old::Through;

/// A parked bridge, as the scheduler holds it.
pub(super) type ParkedBridge = Box<Connection<Role>>;

/// The servers that the proxy dials.
pub(super) type Pools = servers::Pools<ParkedBridge>;
pub(super) type Server = servers::Server<ParkedBridge>;
pub(super) type ServerPermit = servers::ServerPermit<ParkedBridge>;

pub(super) type Route = routing::Route<ParkedBridge>;

pub(super) enum Role {
    /// Its next bytes are a head: just accepted, or a client between requests. With a ticket, the
    /// request in its input is a retry.
    ReadingHead {
        client: Client,
        retry: Option<Ticket>,
    },
    /// Accepted from a proxy in front; its next bytes are a PROXY header.
    AwaitingProxyHeader {
        accepts: Accepts,
        /// There was only the reserve for it.
        newcomer: Option<Counted>,
        /// What follows the header.
        encryption: Box<Encryption>,
    },
    /// Accepted by a swiftclient listener; its next bytes are a preamble.
    AwaitingPreamble {
        listener: Arc<SwiftclientListener>,
    },
    /// One end of a relay: its bytes go to `other`, and the other's come from there (`relays.rs`).
    Relayed {
        other: Token,
    },
    /// A client whose request, at the front of its input, waits for a bridge.
    Queued {
        client: Client,
        request: QueuedRequest,
    },
    Requesting {
        client: Client,
        ticket: Ticket,
        exchange: usize,
    },
    /// A thread opens the file that its request may mean, or that a backend has named.
    Opening {
        client: Client,
        opening: Box<Opening>,
    },
    /// A backend whose keys are good: a program is asked whether it is allowed.
    Authorising {
        client: Client,
        authorising: Box<Authorising>,
    },
    /// It is sent a file.
    Sending {
        client: Client,
        /// `None` only within a call.
        sending: Option<Box<Sending>>,
    },
    /// The bridge that created a route: it parks when every worker knows the route, or at `until`.
    /// Parked earlier it could serve a request of this worker ahead of an older one elsewhere.
    /// Bridges that join the route meanwhile do not wait.
    AwaitingRoute {
        bridge: Box<Bridge>,
        version: u64,
        until: Micros,
        welcome: Welcome,
    },
    /// A bridge matched with a request that waited; they meet in the next turn.
    Reserved(Box<Bridge>),
    /// A bridge that is ready for a request. The scheduler holds the connection.
    Idle(Box<Bridge>),
    /// A bridge of a suspect backend: no request finds it (`suspects.rs`).
    Aside(Box<Bridge>),
    /// It has sent half a message about its places: no request finds it before the other half has come.
    Speaking(Box<Bridge>),
    /// It has given a request back though its backend has a place, and gets none for a moment.
    Resting(Box<Bridge>),
    /// It has been sent a 101 without a request, and must acknowledge.
    Probed(Box<Bridge>),
    Responding {
        bridge: Box<Bridge>,
        exchange: usize,
    },
    /// A connection over which the health of a server is checked.
    Checking(Box<ServerPermit>),
    /// A connect to a server in progress.
    Connecting {
        attempt: Attempt,
        permit: Box<ServerPermit>,
    },
}

/// A registration that waits for the answer to a question.
pub(super) struct Authorising {
    pub(super) registration: Registration,
}

/// Whether there was room for a connection when it was accepted (`reserve.rs`).
pub(super) enum Admission {
    /// There was, or there is by now.
    Admitted,
    /// There was only the reserve, and its first bytes have not shown what it is.
    Newcomer(Counted),
    /// It is a client, and waits for room; the scheduler does not know its request.
    Held { since: Millis, _newcomer: Counted },
}

/// A connection that sends requests, or may do so.
pub(super) struct Client {
    pub(super) serves: Serves,
    pub(super) admission: Admission,
    /// Its place in the count of its address, if that is bounded.
    pub(super) address: Option<Box<AddressPermit>>,
    /// How many requests have been answered.
    pub(super) requests: u32,
    /// The input holds the beginning of a head, and `head-timeout` runs.
    pub(super) head_begun: bool,
    /// When it became idle between two requests, or its head began.
    pub(super) since: Millis,
    /// The access log's record of its current request, or of its last one.
    pub(super) record: Option<Box<Record>>,
    /// The id of its current request, with `request-id`.
    pub(super) id: Option<Box<CurrentId>>,
    /// Its requests come by https.
    pub(super) is_https: bool,
    /// The port to which it is redirected, by https.
    pub(super) redirect_https: Option<u16>,
    /// It is a backend, and has been sent this to prove its keys (`challenges.rs`).
    pub(super) challenge: Option<Box<Nonce>>,
    /// It comes through an old program, which has its TLS.
    pub(super) through_old: Through,
}

impl Client {
    pub(super) fn new(serves: Serves, now: Millis) -> Client {
        Client {
            serves,
            admission: Admission::Admitted,
            address: None,
            requests: 0,
            head_begun: false,
            since: now,
            record: None,
            id: None,
            is_https: false,
            redirect_https: None,
            challenge: None,
            through_old: None,
        }
    }

    /// When the head began that the input holds the beginning of.
    pub(super) fn head_begun(&self) -> Option<Micros> {
        self.head_begun.then(|| Micros(self.since.0 * 1000))
    }

    /// The same client after a response.
    pub(super) fn after_response(self, now: Millis) -> Client {
        Client {
            requests: self.requests.saturating_add(1),
            address: self.address,
            // Its memory is used again. It is still open if the access log was closed meanwhile.
            record: self.record.map(Record::closed),
            is_https: self.is_https,
            redirect_https: self.redirect_https,
            through_old: self.through_old,
            ..Client::new(self.serves, now)
        }
    }
}

/// What a request keeps when it goes to another bridge.
#[derive(Clone, Copy)]
pub(super) struct Ticket {
    /// Its place in the order of arrival.
    pub(super) pos: QueuePos,
    pub(super) tries: Tries,
}

/// How many bridges of its own backend may fail with a request that no application was given, before it
/// goes to another: a backend that is restarted may lose a few, and one that always gives it back is of
/// no use.
const OWN_TRIES: u8 = 3;

/// The bridges that have failed with a request.
#[derive(Clone, Copy, Default)]
pub(super) struct Tries {
    /// How many may have seen it, though their applications were not given it.
    pub(super) undelivered: u8,
    /// How many applications may have seen it.
    pub(super) delivered: u8,
    /// How many times it has been given back by backends that say they have a place.
    pub(super) contradictions: u8,
    /// How many bridges have failed with it, whether or not they have seen it.
    pub(super) failed: u8,
    /// The backend of the last one: the next is preferably another.
    pub(super) last: Option<BackendId>,
}

impl Tries {
    /// Whether it still goes to its own backend first. If an application may have failed with it, its
    /// own may be what it kills.
    pub(super) fn may_stay(self) -> bool {
        self.delivered == 0 && self.undelivered < OWN_TRIES
    }
}

/// When an exchange began, and how its bytes are paced, if they are.
pub(super) struct Begun {
    pub(super) at: Millis,
    pub(super) pace: Option<Box<Pace>>,
}

impl Begun {
    /// An exchange of this bridge begins.
    pub(super) fn with(bridge: &Bridge, at: Millis) -> Begun {
        Begun { at, pace: bridge.terms().and_then(Terms::accounts).and_then(Pace::under) }
    }
}

/// A request that waits.
pub(super) struct QueuedRequest {
    pub(super) meta: RequestMeta,
    pub(super) waiter: WaiterId,
    pub(super) tries: Tries,
    /// The cookie of its site, if that is sticky by one.
    pub(super) cookie: Option<Box<AskedCookie>>,
    /// The status when no bridge comes in time: 504, or a site's 503 as Swiftiply answers.
    pub(super) timeout_status: u16,
    /// At its deadline it gets the waiting page, and that is no failure.
    pub(super) gets_page: bool,
    /// It is one for which its site's manager is called.
    pub(super) wanted: Option<Box<Wanted>>,
    /// Its place in the counts of the keys that serve it, if those are limited.
    pub(super) _waits: Option<Waits>,
}

/// A backend's connection, over which it takes requests.
pub(super) struct Bridge {
    pub(super) route: Arc<Route>,
    /// The bridges of its backend on this route, if it says how many of them may have a request.
    pub(super) group: Option<GroupId>,
    /// Its backend's name, if that stays the same when it comes again.
    pub(super) instance: Option<Arc<Instance>>,
    pub(super) backend: Arc<Backend>,
    pub(super) origin: Origin,
    pub(super) handshake: Handshake,
    /// How many requests it has answered.
    pub(super) served: u32,
    pub(super) parked_at: Millis,
    /// One of its requests had a body.
    pub(super) carried_body: bool,
    /// It gets no more requests: its backend has deregistered, or its listener or server was
    /// removed.
    pub(super) dismissed: bool,
    /// Its place in the bridges' share; none for a server, which we dial.
    pub(super) _share: Option<Counted>,
    /// Its place in the count of its backend.
    pub(super) _joined: Option<Counted>,
    /// The same in the count of those whose keys were sent as they are.
    pub(super) _bearer: Option<Counted>,
    /// Its backend is suspect, and this is the bridge that is to show whether it is there.
    pub(super) on_trial: bool,
    /// Whether systemd keeps it for the next process.
    pub(super) keeping: Keeping,
    /// It comes through an old program, which has its TLS.
    pub(super) through_old: Through,
}

/// How a connection became a bridge, and what it holds.
pub(super) enum Origin {
    /// It sent a BRIDGE request.
    Registered {
        keys: Option<Box<KeyLease>>,
        announced: Option<Announced>,
        terms: Option<Box<Terms>>,
    },
    /// It sent a swiftclient preamble.
    Swiftclient(Box<SwiftclientBackend>),
    /// We dialled the server.
    Dialled(Box<ServerPermit>),
}

impl Origin {
    /// How the keys were shown; `None` if none was needed.
    pub(super) fn shown(&self) -> Option<Shown> {
        match self {
            Origin::Registered { keys, .. } => keys.as_deref().and_then(KeyLease::shown),
            Origin::Swiftclient(_) | Origin::Dialled(_) => None,
        }
    }
}

/// What a backend that knows the extensions has announced (`doc/protocol.md`, "Extensions").
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Announced {
    pub(super) token: BackendToken,
    pub(super) uses: Extensions,
}

impl Announced {
    pub(super) fn by(registration: &Registration) -> Option<Announced> {
        let uses = registration.uses;
        registration.backend.map(|token| Announced { token, uses })
    }
}

/// What a bridge is told when it is let in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Welcome {
    /// Nothing: it came with a swiftclient preamble.
    Silent,
    /// The first `100`: it sent a BRIDGE request.
    Continue,
    /// The 101 that turns the connection round: it sent a PTTH request.
    Upgrade,
}

/// Where a bridge is in the BRIDGE handshake.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Handshake {
    /// It gets pings, then a 101, and must acknowledge.
    Fresh,
    /// It gets requests straight away.
    Reused {
        /// When its keep-alive timeout is about to end.
        until: Option<Millis>,
    },
}

impl Bridge {
    /// Joins the group of its backend's bridges on its route, if that says how many places it has. True
    /// if it does.
    pub(super) fn join_group(&mut self) -> bool {
        if self.speaker().is_some() {
            self.group = Some(self.route.join_group(self.backend.id.number()));
        }
        self.group.is_some()
    }

    /// Takes its place among the bridges of its instance on its route.
    pub(super) fn join_instance(&self) {
        if let Some(instance) = &self.instance {
            self.route.join_instance(instance.id);
        }
    }

    /// What it belongs to on its route.
    pub(super) fn membership(&self) -> Membership {
        let instance = self.instance.as_ref().map(|instance| instance.id);
        Membership { group: self.group, instance }
    }

    /// Whether its listener or server has been removed.
    pub(super) fn is_orphaned(&self) -> bool {
        match &self.origin {
            Origin::Registered { .. } => false,
            Origin::Swiftclient(backend) => backend.listener.is_closed(),
            Origin::Dialled(permit) => permit.server.is_removed(),
        }
    }

    /// Why it has no good key, if so. Where keys, or proofs of keys, are needed, one that was admitted
    /// without has lost what it was admitted for.
    pub(super) fn loss(&self, keyring: Option<&Arc<Keyring>>) -> Option<Loss> {
        match &self.origin {
            Origin::Registered { terms: Some(terms), .. } if terms.is_lost() => Some(Loss::Revoked),
            Origin::Registered { keys, .. } => {
                let proofs = keys.as_deref().map_or(&[][..], KeyLease::proofs);
                let certificate = keys.as_deref().and_then(KeyLease::certificate);
                let lost = proofs.iter().find_map(Held::loss);
                let is_proved = keys.as_deref().is_some_and(KeyLease::is_proved);
                let lacks = |keyring: &Arc<Keyring>| {
                    let is_bare = self.shown() == Some(Shown::Bare);
                    !is_proved || (is_bare && keyring.showing() == Showing::Proven)
                };
                lost.or_else(|| certificate?.loss())
                    .or(keyring.is_some_and(lacks).then_some(Loss::Revoked))
            }
            Origin::Swiftclient(_) | Origin::Dialled(_) => None,
        }
    }

    /// What it was let in under, beside its keys.
    pub(super) fn terms(&self) -> Option<&Terms> {
        match &self.origin {
            Origin::Registered { terms, .. } => terms.as_deref(),
            Origin::Swiftclient(_) | Origin::Dialled(_) => None,
        }
    }

    /// How it has shown its keys; `None` if none was needed.
    pub(super) fn shown(&self) -> Option<Shown> {
        self.origin.shown()
    }

    /// Whether it acknowledges a 101.
    pub(super) fn knows_probes(&self) -> bool {
        let announces = |announced: Announced| announced.uses.probes;
        self.handshake == Handshake::Fresh || self.announced().is_some_and(announces)
    }

    /// Whether it must acknowledge before it is given this request: it has served none yet; or the
    /// bridge may have gone, and the request could not be repeated, or has failed at this very
    /// backend and may have no other try.
    pub(super) fn must_acknowledge(&self, meta: &RequestMeta, tries: Tries, now: Millis) -> bool {
        match self.handshake {
            Handshake::Fresh => true,
            Handshake::Reused { .. } => {
                let is_back = tries.delivered > 0 && tries.last == Some(self.backend.id);
                let is_last = !meta.is_surely_repeatable() && self.backend.is_quiet(now);
                (is_back || is_last) && self.knows_probes()
            }
        }
    }

    /// Which connection a `Connection: close` in its responses is about. A swiftclient backend
    /// means the client's (`doc/protocol.md`, "swiftclient").
    pub(super) fn close_scope(&self) -> CloseScope {
        match self.origin {
            Origin::Registered { .. } | Origin::Dialled(_) => CloseScope::Responder,
            Origin::Swiftclient(_) => CloseScope::Requester,
        }
    }

    /// The token and extensions that its backend has announced.
    pub(super) fn announced(&self) -> Option<Announced> {
        match self.origin {
            Origin::Registered { announced, .. } => announced,
            Origin::Swiftclient(_) | Origin::Dialled(_) => None,
        }
    }

    /// The token of its backend, if that says how many places it has.
    pub(super) fn speaker(&self) -> Option<BackendToken> {
        self.announced().filter(|announced| announced.uses.places).map(|announced| announced.token)
    }

    /// The certificate that it has shown in place of keys.
    pub(super) fn certificate(&self) -> Option<&HeldCertificate> {
        match &self.origin {
            Origin::Registered { keys, .. } => keys.as_deref().and_then(KeyLease::certificate),
            Origin::Swiftclient(_) | Origin::Dialled(_) => None,
        }
    }

    /// The name of the first key that it registered with.
    pub(super) fn first_key(&self) -> Option<&str> {
        match &self.origin {
            Origin::Registered { keys, .. } => keys.as_deref().and_then(KeyLease::first_key),
            Origin::Swiftclient(_) | Origin::Dialled(_) => None,
        }
    }

    /// The names of the keys that it registered with, and those of its certificate that it needs.
    pub(super) fn key_names(&self) -> impl Iterator<Item = &str> {
        let keys = match &self.origin {
            Origin::Registered { keys, .. } => keys.as_deref(),
            Origin::Swiftclient(_) | Origin::Dialled(_) => None,
        };
        keys.into_iter().flat_map(KeyLease::names)
    }

    /// Which of its delivery reports are trusted: those that it has said it sends. Otherwise they
    /// could be its application's, which a library passes on as they are.
    pub(super) fn delivery_reports(&self) -> DeliveryReports {
        match self.announced().map(|announced| announced.uses) {
            Some(Extensions { receipts: true, .. }) => DeliveryReports::WithReceipts,
            Some(Extensions { undelivered: true, .. }) => DeliveryReports::Trusted,
            Some(_) | None => DeliveryReports::Untrusted,
        }
    }

    /// Adds `change` to the clients counted under its keys or its swiftclient id.
    pub(super) fn count_clients(&self, change: i64) {
        self.backend.count_busy(change);
        match &self.origin {
            Origin::Registered { keys: Some(keys), .. } => keys.count_clients(change),
            Origin::Swiftclient(backend) => backend.count_clients(change),
            Origin::Registered { keys: None, .. } | Origin::Dialled(_) => {}
        }
    }
}

/// The letters of the original's connection states (`doc/protocol.md`, "The info host"): `?` not
/// known yet or between two requests, `b` parked bridge, `c` waiting client, `B` bridge in an
/// exchange, `C` client in an exchange, `E` closing, `I` asking for info.
pub(super) const LETTERS: [&str; 7] = ["?", "b", "c", "B", "C", "E", "I"];

/// A role's place in [`LETTERS`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Letter {
    Unknown,
    Parked,
    Waiting,
    Responding,
    Requesting,
    Closing,
    Info,
}

impl Role {
    /// The bridge, in any of its states.
    pub(super) fn bridge(&self) -> Option<&Bridge> {
        match self {
            Role::AwaitingRoute { bridge, .. }
            | Role::Reserved(bridge)
            | Role::Idle(bridge)
            | Role::Aside(bridge)
            | Role::Speaking(bridge)
            | Role::Resting(bridge)
            | Role::Probed(bridge)
            | Role::Responding { bridge, .. } => Some(bridge),
            Role::ReadingHead { .. }
            | Role::AwaitingProxyHeader { .. }
            | Role::AwaitingPreamble { .. }
            | Role::Queued { .. }
            | Role::Requesting { .. }
            | Role::Opening { .. }
            | Role::Authorising { .. }
            | Role::Sending { .. }
            | Role::Relayed { .. }
            | Role::Checking(_)
            | Role::Connecting { .. } => None,
        }
    }

    /// The bridge, in any of its states.
    pub(super) fn bridge_mut(&mut self) -> Option<&mut Bridge> {
        match self {
            Role::AwaitingRoute { bridge, .. }
            | Role::Reserved(bridge)
            | Role::Idle(bridge)
            | Role::Aside(bridge)
            | Role::Speaking(bridge)
            | Role::Resting(bridge)
            | Role::Probed(bridge)
            | Role::Responding { bridge, .. } => Some(bridge),
            _ => None,
        }
    }

    /// Moves a client into an exchange.
    pub(super) fn requesting(self, ticket: Ticket, exchange: usize) -> Role {
        self.with_client(|client| Role::Requesting { client, ticket, exchange })
    }

    /// Moves a client into another role. Other roles stay as they are.
    pub(super) fn with_client(self, role: impl FnOnce(Client) -> Role) -> Role {
        match self {
            Role::ReadingHead { client, .. }
            | Role::Queued { client, .. }
            | Role::Requesting { client, .. }
            | Role::Opening { client, .. }
            | Role::Authorising { client, .. }
            | Role::Sending { client, .. } => role(client),
            other => other,
        }
    }

    /// Moves a bridge into another role. Other roles stay as they are.
    pub(super) fn with_bridge(self, role: impl FnOnce(Box<Bridge>) -> Role) -> Role {
        match self {
            Role::AwaitingRoute { bridge, .. }
            | Role::Reserved(bridge)
            | Role::Idle(bridge)
            | Role::Aside(bridge)
            | Role::Speaking(bridge)
            | Role::Resting(bridge)
            | Role::Probed(bridge)
            | Role::Responding { bridge, .. } => role(bridge),
            other => other,
        }
    }

    /// The client, in any of its states.
    pub(super) fn client(&self) -> Option<&Client> {
        match self {
            Role::ReadingHead { client, .. }
            | Role::Queued { client, .. }
            | Role::Requesting { client, .. }
            | Role::Opening { client, .. }
            | Role::Authorising { client, .. }
            | Role::Sending { client, .. } => Some(client),
            _ => None,
        }
    }

    /// The client, in any of its states.
    pub(super) fn client_mut(&mut self) -> Option<&mut Client> {
        match self {
            Role::ReadingHead { client, .. }
            | Role::Queued { client, .. }
            | Role::Requesting { client, .. }
            | Role::Opening { client, .. }
            | Role::Authorising { client, .. }
            | Role::Sending { client, .. } => Some(client),
            _ => None,
        }
    }

    /// Whether it is a connection to a server that we dialled.
    pub(super) fn is_dialled(&self) -> bool {
        match self {
            Role::Connecting { .. } | Role::Checking(_) => true,
            role => role.bridge().is_some_and(|bridge| matches!(bridge.origin, Origin::Dialled(_))),
        }
    }

    /// The letter under which the info host counts it.
    pub(super) fn letter(&self) -> Letter {
        match self {
            Role::ReadingHead { .. }
            | Role::AwaitingProxyHeader { .. }
            | Role::AwaitingPreamble { .. }
            | Role::Authorising { .. }
            // Its request may still be for a backend.
            | Role::Opening { .. } => Letter::Unknown,
            Role::AwaitingRoute { .. }
            | Role::Reserved(_)
            | Role::Idle(_)
            | Role::Aside(_)
            | Role::Speaking(_)
            | Role::Resting(_)
            | Role::Probed(_)
            | Role::Checking(_)
            | Role::Connecting { .. } => Letter::Parked,
            Role::Queued { .. } => Letter::Waiting,
            Role::Responding { .. } => Letter::Responding,
            Role::Requesting { .. } | Role::Sending { .. } | Role::Relayed { .. } => {
                Letter::Requesting
            }
        }
    }
}
