//! The phases of an exchange, and the states of its two directions.
//!
//! ```text
//!     101 sent to a new bridge ──> Acking ──100──> Ready <── responder known to be there
//!                                    │               │
//!                     any other head │               │ request sent
//!                                    └──────┬────────┘
//!                                           v
//!                                         Open ──101──> Tunnel ──both ends shut──> finished
//!                                           │
//!                                           └── response done ──> finished
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
use super::replay::Replay;
use super::response::Response;
use super::tunnel::Tunnel;

pub(super) enum Phase {
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
    pub request: Request,
    pub response: Response,
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
