//! What a connection is to the proxy at the moment.

use std::net::IpAddr;
use std::sync::Arc;

use crate::bridge::{BackendToken, Registration};
use crate::config::Serves;
use crate::exchange::{CloseScope, DeliveryReports, RequestMeta};
use crate::net::conn::Conn;
use crate::net::token::Token;
use crate::routing::{Place, RouteId, Ticket, WaiterId};

use super::access::Line;
use super::dial::{self, Attempt};
use super::guests::Guest;
use super::seats::KeysHeld;
use super::sites::Inlet;

/// A connection and what it is: an entry of the worker's table.
pub struct Slot {
    /// The socket.
    pub conn: Conn,
    /// What it is at the moment.
    pub role: Role,
    /// Who is at the other end.
    pub peer: IpAddr,
    /// Which of those who lived in this slot this is (see [`Token`]).
    pub generation: u32,
    /// What the kernel held for the peer when it was last found to be slow, in bytes.
    pub queue_seen: usize,
    /// Its current request, when requests are written down.
    pub line: Option<Box<Line>>,
    /// The server that it goes to, when we have dialled it. Behind `conn`, for it is given back after the socket is
    /// closed.
    pub server: Option<Box<dial::Line>>,
}

/// What a connection is. It is one thing at a time: parked *and* paired cannot be said.
pub enum Role {
    /// Its next bytes are a head: it has just been accepted, or is a client between requests.
    Reading(Client),
    /// It has come in by an inlet, and its next bytes are a swiftclient preamble.
    Announcing {
        /// The inlet.
        inlet: Arc<Inlet>,
    },
    /// A client whose request, whole head and all, stands in its input and waits for a bridge.
    Waiting {
        /// The client.
        client: Client,
        /// What the exchange will have to know.
        meta: RequestMeta,
        /// Its place in the lobby.
        waiter: WaiterId,
        /// Whether a hang-up has been answered to see if anybody is still there.
        probe: Probe,
        /// What it is answered if no bridge comes in time.
        late: Late,
    },
    /// A client in an exchange.
    Requesting {
        /// The client.
        client: Client,
        /// The exchange, in the worker's table.
        exchange: usize,
    },
    /// A bridge on a route that is new: before it is parked every worker has to know the route,
    /// or a request that came late, here, would go before one that has waited long elsewhere.
    Settling {
        /// The bridge.
        bridge: Bridge,
        /// The version of the routes that the others have to know.
        version: u64,
        /// How long the others are waited for, in microseconds on the worker's clock.
        until: u64,
    },
    /// A bridge for which the lobby has found a waiting request; the two are brought together
    /// as soon as the work in hand is done.
    Matched {
        /// The bridge.
        bridge: Bridge,
    },
    /// A bridge that is ready for a request.
    Parked {
        /// The bridge.
        bridge: Bridge,
        /// Its place in the lobby.
        ticket: Ticket,
    },
    /// A bridge in an exchange.
    Responding {
        /// The bridge.
        bridge: Bridge,
        /// The exchange, in the worker's table.
        exchange: usize,
    },
    /// A connection to a server that is not there yet.
    Dialling(Attempt),
    /// On its way out: what stands in its output is sent, then our FIN, and then everything is
    /// read and thrown away until the peer's FIN. Closing with unread bytes would make the
    /// kernel send a reset, which can destroy the last answer on its way (RFC 9112, 9.6).
    Leaving,
    /// Closed; freed at the end of the turn.
    Closed,
}

/// Whether a client that hung up while it waited has been sent a `100 Continue` to find out
/// if it has only shut down its sending side or is gone (a reset will say so).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probe {
    /// It has not hung up.
    NotNeeded,
    /// It has, and was asked.
    Sent,
}

/// What a request is answered for which no bridge came in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Late {
    /// 504.
    GatewayTimeout,
    /// 503, as Swiftiply does it: the request is for a site.
    Unavailable,
}

/// A connection that sends requests, or may turn out to.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// What the listener it came through is for.
    pub door: Serves,
    /// How many requests it has had answered.
    pub requests: u32,
    /// How often its current request has been given to a bridge in vain.
    pub attempts: u8,
    /// How much of its next head is there.
    pub head: Head,
    /// Since when it has been between two requests, in milliseconds.
    pub idle_since: u64,
    /// The place in the queue that its current request was given when it first came.
    pub place: Option<Place>,
}

impl Client {
    /// A connection that comes through `door` at `now`, in milliseconds.
    #[must_use]
    pub fn new(door: Serves, now: u64) -> Client {
        Client { door, requests: 0, attempts: 0, head: Head::Unread, idle_since: now, place: None }
    }
}

/// How much of a client's next head is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Head {
    /// What stands in the input, if anything, has not been looked at.
    Unread,
    /// The input holds the beginning of a head, and `head-timeout` runs.
    Begun,
}

/// A connection over which a backend takes requests.
pub struct Bridge {
    /// What it serves.
    pub route: RouteId,
    /// What it has to be told before it gets a request.
    pub standing: Standing,
    /// How many requests it has answered.
    pub served: u32,
    /// When it was parked, in milliseconds on the worker's clock.
    pub parked_at: u64,
    /// The keys it was let in by; `None` when there were none.
    pub keys: Option<Box<KeysHeld>>,
    /// What it has said of the backend that it belongs to.
    pub backend: Backend,
    /// How it came to be one.
    pub origin: Origin,
}

/// How a connection came to be a bridge.
pub enum Origin {
    /// It sent a BRIDGE request.
    Registered,
    /// It came by an inlet and sent a swiftclient preamble. What it answers about its connection is meant for the
    /// client's.
    Swiftclient(Box<Guest>),
    /// We have dialled it.
    Dialled,
}

impl Bridge {
    /// Whether the inlet that it came by is no more.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        match &self.origin {
            Origin::Registered | Origin::Dialled => false,
            Origin::Swiftclient(guest) => guest.inlet.is_closed(),
        }
    }

    /// Which connection a `Connection: close` in its responses is about.
    #[must_use]
    pub fn close(&self) -> CloseScope {
        match self.origin {
            Origin::Registered | Origin::Dialled => CloseScope::Responder,
            Origin::Swiftclient(_) => CloseScope::Requester,
        }
    }
}

/// What a bridge has said of its backend (`doc/protocol.md`, "Extensions").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// Nothing: it speaks the original's protocol, or is a server that we have dialled.
    Silent,
    /// It knows the extensions, and leaves together with all others of this token.
    Announced {
        /// Its token.
        token: BackendToken,
        /// What its word is worth.
        word: DeliveryReports,
    },
    /// It knows the extensions, and has left: what it serves now is the last.
    Left {
        /// What its word is worth.
        word: DeliveryReports,
    },
}

impl Backend {
    /// Whether its word counts that a request has not been delivered.
    #[must_use]
    pub fn word(self) -> DeliveryReports {
        match self {
            Backend::Silent => DeliveryReports::Untrusted,
            Backend::Announced { word, .. } | Backend::Left { word } => word,
        }
    }

    /// What a registration says of its backend.
    #[must_use]
    pub fn of(registration: &Registration) -> Backend {
        let word = if registration.receipts {
            DeliveryReports::WithReceipts
        } else {
            DeliveryReports::Trusted
        };
        match registration.backend {
            Some(token) => Backend::Announced { token, word },
            None => Backend::Silent,
        }
    }
}

/// How a bridge stands to the BRIDGE handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It has sent its BRIDGE and waits: it gets pings, then a 101, and must acknowledge.
    Fresh,
    /// It has been through an exchange and kept the connection open: it gets requests.
    Reused {
        /// When its own keep-alive timeout is about to end, in milliseconds.
        until: Option<u64>,
    },
}

impl Role {
    /// The index of [`Role::Reading`] among the letters.
    pub const READING: usize = 0;

    /// The bridge that it is, whatever it is doing.
    #[must_use]
    pub fn bridge(&self) -> Option<&Bridge> {
        match self {
            Role::Settling { bridge, .. }
            | Role::Matched { bridge }
            | Role::Parked { bridge, .. }
            | Role::Responding { bridge, .. } => Some(bridge),
            Role::Reading(_)
            | Role::Announcing { .. }
            | Role::Waiting { .. }
            | Role::Requesting { .. }
            | Role::Dialling(_)
            | Role::Leaving
            | Role::Closed => None,
        }
    }

    /// The letter under which the info host counts this role (`doc/protocol.md`, "The info
    /// host"), as an index into [`super::stats::LETTERS`].
    #[must_use]
    pub fn letter(&self) -> usize {
        match self {
            Role::Reading(_) | Role::Announcing { .. } => Role::READING,
            Role::Settling { .. }
            | Role::Matched { .. }
            | Role::Parked { .. }
            | Role::Dialling(_) => 1,
            Role::Waiting { .. } => 2,
            Role::Responding { .. } => 3,
            Role::Requesting { .. } => 4,
            Role::Leaving | Role::Closed => 5,
        }
    }
}

impl Slot {
    /// The token of the connection that lives in slot `key`.
    #[must_use]
    pub fn token(&self, key: usize) -> Token {
        Token::conn(key, self.generation)
    }
}
