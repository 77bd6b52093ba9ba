//! What an exchange keeps of its request once the bytes of the head are gone.

use std::net::IpAddr;

use crate::http::request::Request;
use crate::http::rewrite::{Forwarded, ForwardedStyle};
use crate::http::{Framing, Stamps, Version};

use super::config::ExchangeConfig;

/// What a request asks for, and the settings that apply to it.
#[derive(Clone, Copy, Debug)]
pub struct RequestMeta {
    /// The requester's address, for `X-Forwarded-For`.
    pub client: IpAddr,
    /// The requester uses TLS, for `X-Forwarded-Proto`.
    pub https: bool,
    /// The requester's protocol version.
    pub version: Version,
    /// HEAD: the response has no body, whatever its fields say.
    pub to_head: bool,
    /// The method is idempotent (RFC 9110 section 9.2.2).
    pub idempotent: bool,
    /// The requester's connection may serve another request after this one.
    pub persistent: bool,
    /// The request itself did not say that it is the last: another may be on its way, even if the
    /// connection will not serve it.
    pub may_be_followed: bool,
    /// Length of the head, in bytes.
    pub head: usize,
    /// How the body is framed.
    pub framing: Framing,
    /// The requester may hold its body back until it is told to go on (RFC 9110 section 10.1.1).
    pub expect_continue: bool,
    /// The request asks for a tunnel.
    pub upgrade: bool,
    /// The request authenticates the connection itself (NTLM, Negotiate).
    pub connection_auth: bool,
    /// What happens to the `X-Forwarded-*` fields.
    pub forwarded: Forwarded,
    /// Which fields name the requester.
    pub forwarded_style: ForwardedStyle,
    /// What happens to `X-Request-Start` and `X-Request-Id`.
    pub stamps: Stamps,
    /// The largest request, in bytes, that is kept until its response begins.
    pub replay_limit: usize,
    /// Which requests may be sent twice.
    pub retry_policy: RetryPolicy,
    /// The response may name a file that the owner sends in place of its body; the owner's number for
    /// where such files are.
    pub sends_files: Option<u32>,
}

/// Which requests may be sent a second time when the responder dies with the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetryPolicy {
    /// Those with an idempotent method (RFC 9110 section 9.2.2).
    IfIdempotent,
    /// All others up to the replay limit too: the site says that its application allows it.
    Always,
}

/// Which of a responder's reports on delivery are believed (`doc/protocol.md`, "Extensions").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeliveryReports {
    /// None.
    Untrusted,
    /// Reports that the request could not be delivered: the backend has announced the extension.
    Trusted,
    /// The same, and receipts: until there is one for a request that is not idempotent, the
    /// application has not been given a byte of it.
    WithReceipts,
}

impl RequestMeta {
    /// Whether the request has a body.
    #[must_use]
    pub fn has_body(&self) -> bool {
        !matches!(self.framing, Framing::None | Framing::Length(0))
    }

    /// What is left of the request of a tunnel, whose bytes say nothing to the proxy.
    #[must_use]
    pub fn of_tunnel(client: IpAddr, config: &ExchangeConfig) -> RequestMeta {
        RequestMeta {
            client,
            https: false,
            version: Version::V11,
            to_head: false,
            idempotent: false,
            persistent: false,
            may_be_followed: true,
            head: 0,
            framing: Framing::None,
            expect_continue: false,
            upgrade: true,
            connection_auth: false,
            forwarded: config.forwarded,
            forwarded_style: config.forwarded_style,
            stamps: Stamps::PASS,
            replay_limit: 0,
            retry_policy: RetryPolicy::IfIdempotent,
            sends_files: None,
        }
    }

    /// The meta of `request` from `client`, under `config`.
    #[must_use]
    pub fn of(request: &Request<'_, '_>, client: IpAddr, config: &ExchangeConfig) -> RequestMeta {
        RequestMeta {
            client,
            https: false,
            version: request.version,
            to_head: request.is_head(),
            idempotent: request.idempotent(),
            persistent: request.persistent,
            may_be_followed: request.persistent,
            head: request.len,
            framing: request.framing,
            expect_continue: request.expect_continue,
            upgrade: request.upgrade,
            connection_auth: request.connection_auth,
            forwarded: config.forwarded,
            forwarded_style: config.forwarded_style,
            stamps: Stamps::PASS,
            replay_limit: config.replay_limit,
            retry_policy: RetryPolicy::IfIdempotent,
            sends_files: None,
        }
    }
}
