//! The phases of an exchange, and the states of its two directions.
//!
//! ```text
//!     New ──101 sent to a new bridge──> Acking ──100──> Ready
//!      │                                  │               │
//!      │ responder known to be there:     │ any other     │ request sent
//!      │ request sent                     │ head          │
//!      └────────────────────────────────┬─┴───────────────┘
//!                                       v
//!                                     Open ──101──> Tunnel ──both ends shut──> finished
//!                                       │
//!                                       └── response done ──> finished
//!
//!     Open, request:   Body ──end of body──> Sent
//!                        └──responder takes no more──> Refused
//!     Open, response:  Head ──1xx──> Head ──final──> Body ──end of body──> Done
//!     Tunnel, up:      Flowing ──responder takes no more──> Broken
//! ```
//!
//! A failure ends the exchange in any state; the state gives its
//! [`Progress`](super::error::Progress).

use super::body_pump::BodyPump;
use super::cookie::Cookie;
use super::file::NamedFile;
use super::meta::{DeliveryReports, RequestMeta};
use super::places::Speaker;
use super::replay::Replay;
use super::reuse::{CloseScope, ReuseInputs};
use super::tunnel::Tunnel;

/// One request and its response, between two connections.
pub(crate) struct Exchange {
    pub(super) terms: Terms,
    pub(super) phase: Phase,
    /// The requester has sent its FIN, and its response may not be silent for long.
    pub(super) half_closed: bool,
}

/// What is fixed before an exchange starts.
pub(super) struct Terms {
    pub meta: RequestMeta,
    pub reports: DeliveryReports,
    pub close_scope: CloseScope,
    /// The responder, if it says how many places it has.
    pub speaker: Option<Speaker>,
    /// By which the requester comes back to the same responder.
    pub cookie: Option<Box<Cookie>>,
}

pub(super) enum Phase {
    /// Nothing has been sent to the responder.
    New,
    /// The bridge has been sent its 101 and has not acknowledged it yet
    /// (`doc/protocol.md`, "The acknowledgement").
    Acking,
    /// The responder awaits the request; nothing of it has been sent.
    Ready,
    /// At least the head of the request has been sent.
    Open(Open),
    /// After a 101: bytes in both directions (RFC 9110 section 7.8).
    Tunnel(Tunnel),
}

/// A request and a response under way.
pub(super) struct Open {
    pub replay: Replay,
    /// How many bytes of it have been given to the responder's connection; `None` if a reset has
    /// been seen, after which the end of the stream is no FIN.
    pub wire: Option<u64>,
    /// Bytes of the request that have been taken from the requester, without those that a pump of
    /// its body still counts.
    pub taken: u64,
    pub request: Request,
    pub response: Response,
    /// The file that the response names, if the owner sends it.
    pub file: Option<Box<NamedFile>>,
}

/// The request's direction, once its head has been sent.
pub(super) enum Request {
    /// Part of the body is still to be sent.
    Body(BodyPump),
    /// All of it has been given to the responder's connection.
    Sent,
    /// The responder takes no more of it, but may still answer (RFC 9112 section 9.5).
    Refused,
}

pub(super) enum Response {
    /// Awaits a head; after an interim response, another one.
    Head(AwaitedHead),
    /// The head has been passed on, the body is under way.
    Body { answer: Answer, pump: BodyPump },
    /// All of it has been given to the requester's connection.
    Done { answer: Answer, bytes: u64 },
}

/// What is known until the final head has come.
#[derive(Clone, Copy, Default)]
pub(super) struct AwaitedHead {
    /// Interim responses so far.
    pub interim: u8,
    /// Messages about the responder's places so far.
    pub messages: u16,
    /// One of them was a `100`: a requester that expected it sends its body now.
    pub continued: bool,
    /// If the first head is a `100`, it is the bridge's acknowledgement.
    pub acknowledges: bool,
    /// Part of the response has come, and the kernel has acknowledged it at once.
    pub hastened: bool,
    pub hold: Hold,
    /// Bytes of interim responses that the requester has been given.
    pub interim_bytes: u32,
}

/// Whether the beginning of a small response is held back until the rest has come. While it is, the
/// request can be sent again.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Hold {
    /// It is, if there is one.
    #[default]
    Allowed,
    /// One is in the responder's input, and nobody knows yet when it is to be passed on.
    Begun,
    /// One is in the responder's input, until it is whole or the driver says so.
    Timed,
    /// What has come is passed on.
    Over,
}

/// What is known from the final head.
#[derive(Clone, Copy)]
pub(super) struct Answer {
    pub status: u16,
    /// Bytes of all heads that the requester has been given.
    pub heads: u32,
    pub reuse: ReuseInputs,
}

impl Response {
    /// What the final head contained, if it has come.
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Response::Head(_) => None,
            Response::Body { answer, .. } | Response::Done { answer, .. } => Some(answer),
        }
    }

    /// How many bytes of the body have been taken from the responder.
    pub fn bytes(&self) -> u64 {
        match self {
            Response::Head(_) => 0,
            Response::Body { pump, .. } => pump.moved(),
            Response::Done { bytes, .. } => *bytes,
        }
    }
}
