//! The settings that an exchange obeys.

use std::sync::Arc;
use std::time::Duration;

use crate::http;
use crate::http::rewrite::{Forwarded, ForwardedStyle};

/// How many bytes one pump may move before other connections run. A mebibyte takes a few hundred
/// microseconds, which another connection can afford to wait.
pub const BUDGET: usize = 1024 * 1024;

/// The settings that an exchange obeys.
#[derive(Clone, Debug)]
pub struct ExchangeConfig {
    /// Bounds of heads, in both directions.
    pub limits: http::Limits,
    /// The largest request, in bytes, that is kept until its response begins.
    pub replay_limit: usize,
    /// How many bytes of a response are read ahead for a requester that does not keep up.
    pub response_buffer: usize,
    /// The largest response, in bytes, that is held back until it is whole, while its request can
    /// still be sent again.
    pub hold_response: usize,
    /// A body is spliced when at least this many bytes are still to come.
    pub splice_threshold: u64,
    /// How many bytes of a body may be moved before other connections run: [`BUDGET`], or fewer for a
    /// requester or responder that may have only so many a second.
    pub budget: usize,
    /// What happens to the `X-Forwarded-*` fields.
    pub forwarded: Forwarded,
    /// Which fields name the requester.
    pub forwarded_style: ForwardedStyle,
    /// The Host that responders get in place of the request's own.
    pub host: Option<Arc<str>>,
    /// How long a response may be silent once its requester has sent its FIN. `None` serves such
    /// requesters like any other.
    pub half_closed_silence: Option<Duration>,
    /// How long an exchange may take; `None` sets no deadlines.
    pub timeouts: Option<Timeouts>,
}

impl ExchangeConfig {
    /// Gives a request the Host that responders get, if that is not the request's own.
    pub(crate) fn rename<'b>(&'b self, request: &mut http::request::Request<'b, '_>) {
        if let Some(host) = &self.host {
            request.authority = host;
        }
    }
}

/// How long an exchange may make no progress; zero means forever.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Until a bridge acknowledges.
    pub ack: Duration,
    /// Until the response begins, once the request has been sent.
    pub response: Duration,
    /// Between two pieces of a body.
    pub body: Duration,
    /// Between two pieces of a response without a length, while nothing else is on its way.
    pub stream: Duration,
    /// Between two pieces of a tunnel's data.
    pub tunnel: Duration,
}
