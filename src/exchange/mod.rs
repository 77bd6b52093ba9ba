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
use crate::net::buffer::Pool;
use crate::net::pipe::Pipes;

/// The size of the buffer that everything is read into: what is copied in bulk costs much
/// less with reads of this size than with 64 KiB, and a slow peer may keep as much of ours as
/// one read brings. A small read touches only its beginning.
const SCRATCH: usize = 256 * 1024;

/// Room for what is about to be sent before it has to grow: heads and small bodies.
const OUT: usize = 64 * 1024;

/// What a worker lends to the call in progress. Nothing in it outlives the call.
pub struct Workspace {
    /// Bytes just read.
    pub scratch: Box<[u8]>,
    /// Bytes about to be sent.
    pub out: Vec<u8>,
    /// Storage for bytes that have to stay.
    pub pool: Pool,
    /// Pipes for bytes that never enter the process.
    pub pipes: Pipes,
}

impl Default for Workspace {
    fn default() -> Self {
        Workspace {
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            out: Vec::with_capacity(OUT),
            pool: Pool::default(),
            pipes: Pipes::default(),
        }
    }
}

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
