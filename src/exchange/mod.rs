//! One request and its response.
//!
//! Conns own sockets, exchanges own the conversation, the worker lends both for the length of
//! one call: [`Exchange::advance`] is given the two connections and what a worker has to lend
//! ([`Workspace`]), moves as many bytes as it can, and says how things stand ([`Outcome`]). It
//! inserts, removes, parks, retries and logs nothing; the owner of the tables does that.
//!
//! The two sides are called *requester* and *responder*, not client and bridge, because the
//! agent runs the same conversation between a bridge and an application.
//!
//! Read [`Exchange`] first, then [`flow`] (one direction of bytes), then [`failure`] (what went
//! wrong, and what follows).

pub mod body_pump;
pub mod error;
mod meta;
mod request;
mod response;
mod state;
mod tunnel;

pub use meta::{RequestMeta, RetryPolicy};
pub use state::{CloseScope, DeliveryReports, Exchange, Outcome, Reuse, TimeoutPhase};

use crate::http;
use crate::http::rewrite::Forwarded;

pub use crate::net::workspace::Workspace;

/// The settings that an exchange obeys.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeConfig {
    /// Bounds of heads, in both directions.
    pub limits: http::Limits,
    /// The largest request, in bytes, that is kept until its response begins.
    pub retry_limit: usize,
    /// From how many bytes still to come they are spliced.
    pub splice_threshold: u64,
    /// What becomes of `X-Forwarded-*`.
    pub forwarded: Forwarded,
}
