//! What an exchange knows of its request.

use std::net::IpAddr;

use crate::http::request::Request;
use crate::http::rewrite::Forwarded;
use crate::http::{Framing, Version};

use super::ExchangeConfig;

/// What the exchange has to know of its request when the bytes of the head are gone.
#[derive(Clone, Copy, Debug)]
pub struct RequestMeta {
    /// The requester's address, for `X-Forwarded-For`.
    pub client: IpAddr,
    /// The requester's protocol version.
    pub version: Version,
    /// HEAD: the response has no body, whatever its fields say.
    pub to_head: bool,
    /// The request may be sent twice (RFC 9110, 9.2.2).
    pub idempotent: bool,
    /// The requester's connection may serve another request after this one.
    pub persistent: bool,
    /// How long its head is, in bytes.
    pub head: usize,
    /// How its body is framed.
    pub framing: Framing,
    /// The requester may hold its body back until it is told to go on (RFC 9110, 10.1.1).
    pub expect_continue: bool,
    /// The request asks for a tunnel.
    pub upgrade: bool,
    /// The request authenticates the connection itself (NTLM, Negotiate).
    pub connection_auth: bool,
    /// What becomes of the `X-Forwarded-` fields.
    pub forwarded: Forwarded,
    /// The largest request, in bytes, that is kept until its response begins.
    pub keep: usize,
    /// Which requests may be sent twice.
    pub repeats: RetryPolicy,
}

/// Which requests may be sent a second time when the responder dies with the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetryPolicy {
    /// Those whose method allows it (RFC 9110, 9.2.2), as far as they are kept.
    IfIdempotent,
    /// Those too that are no larger than [`RequestMeta::keep`], whatever their method: the site says that its application
    /// can stand that.
    Always,
}

impl RequestMeta {
    /// The meta of `request`, which came from `client`, under `config`.
    #[must_use]
    pub fn of(request: &Request<'_, '_>, client: IpAddr, config: &ExchangeConfig) -> RequestMeta {
        RequestMeta {
            client,
            version: request.version,
            to_head: request.is_head(),
            idempotent: request.idempotent(),
            persistent: request.persistent,
            head: request.len,
            framing: request.framing,
            expect_continue: request.expect_continue,
            upgrade: request.upgrade,
            connection_auth: request.connection_auth,
            forwarded: config.forwarded,
            keep: config.retry_limit,
            repeats: RetryPolicy::IfIdempotent,
        }
    }

    /// Whether the request is sure to be kept until its response begins, and may be sent twice.
    #[must_use]
    pub fn can_be_repeated(&self) -> bool {
        match self.framing {
            Framing::None if self.idempotent => true,
            Framing::None | Framing::Length(_) => {
                self.fits() && (self.idempotent || self.repeats == RetryPolicy::Always)
            }
            Framing::Chunked | Framing::UntilClose => false,
        }
    }

    /// Whether the request is known to be no larger than what is kept.
    pub(super) fn fits(&self) -> bool {
        let body = match self.framing {
            Framing::None => 0,
            Framing::Length(length) => length,
            Framing::Chunked | Framing::UntilClose => return false,
        };
        body.saturating_add(self.head as u64) <= self.keep as u64
    }
}
