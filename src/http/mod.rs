//! HTTP/1.1 as text (RFC 9110, RFC 9112): heads, body framing, rewriting, and the proxy's own
//! answers.
//!
//! Nothing here uses sockets, threads or the clock, and parsing does not allocate: a head is parsed
//! in the caller's buffer, and what is passed on is appended to the caller's `Vec` as slices of it.
//!
//! The parser is strict. If a proxy guesses what an ambiguous head means and passes it on, the next
//! hop may guess differently: that is request smuggling. So anything that two recipients could read
//! in two ways is refused, and the framing of a body is never copied, but generated from what was
//! parsed.
//!
//! Read in this order: [`request`], [`response`], [`rewrite`], [`chunked`], [`reply`]. Below them:
//! `target`, `authority` and `host_name` (where a request goes), `field` (which field names
//! matter), `framing` (how long a body is), `connection` (the Connection field), `field_lines` (the
//! field lines in the buffer). For lanes: [`predicates`], `facts` (what they are compared with), `under`
//! (prefixes of paths). For files: [`conditions`], [`ranges`], [`codings`] (what a request gets of a
//! file, and in which form), [`send_file`] (responses that name a file).

pub(crate) mod accept;
pub(crate) mod ascii;
mod authority;
pub mod chunked;
pub mod codings;
pub mod conditions;
mod connection;
pub(crate) mod cookies;
mod facts;
mod field;
mod field_lines;
mod framing;
pub(crate) mod host_name;
mod network;
pub mod predicates;
pub mod ranges;
pub mod reply;
pub mod request;
pub mod response;
pub mod rewrite;
pub mod send_file;
mod stamps;
mod target;
#[cfg(test)]
mod tests;
pub(crate) mod under;

use std::fmt;
use std::mem::MaybeUninit;

pub use authority::is_host;
pub use chunked::{Decoder, Piece};
pub use codings::{Coding, Codings};
pub use conditions::Validators;
pub use facts::{KeptFacts, RequestFacts};
pub use framing::Framing;
pub use network::Network;
pub(crate) use network::quoted;
pub use predicates::Predicates;
pub use ranges::Ranges;
pub use reply::{Reply, reason};
pub use request::{Request, lower_host};
pub use response::Response;
pub use rewrite::{Forwarded, ForwardedStyle, Toward, Via};
pub use send_file::SendFile;
pub use stamps::{RequestId, RequestStart, Stamp, Stamps, TimeUnit};

/// Most fields of a head, whatever the settings.
///
/// One bit per field in the masks of `field_lines`, and 4 KiB of the caller's stack. More than the
/// default of [`Limits::fields`], so that a head with too many fields is not reported as malformed.
pub const MAX_FIELDS: usize = 128;

/// Most fields by which [`rewrite::request`] makes a head longer: those about the client and the
/// request, and a Host and a Connection that it did not have. A setting must leave this room below
/// [`MAX_FIELDS`], or our own agent could not read the head.
pub const ADDED_FIELDS: usize = 8;

/// The fields that a parser finds: an array on the caller's stack, made by [`storage`].
pub type Storage<'b> = [MaybeUninit<httparse::Header<'b>>; MAX_FIELDS];

/// Uninitialised, so it costs nothing.
#[must_use]
pub fn storage<'b>() -> Storage<'b> {
    [const { MaybeUninit::uninit() }; MAX_FIELDS]
}

/// The version of a message (RFC 9110, section 2.5). Any other is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: no chunked coding, Host optional, closes unless `keep-alive` is given.
    V10,
    /// HTTP/1.1: stays open unless `close` is given.
    V11,
}

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseError {
    /// The status to answer with: 502 for a response, except from [`chunked`], which does not know
    /// whose body it reads and returns 400 or 431.
    pub status: u16,
    /// One line for the answer's body and the log. It never quotes the message.
    pub reason: &'static str,
}

impl ParseError {
    /// A malformed message: 400.
    pub(crate) const fn malformed(reason: &'static str) -> Self {
        Self::new(400, reason)
    }

    pub(crate) const fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

impl std::error::Error for ParseError {}

/// How large a head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole head with its blank line; otherwise 431.
    pub head: usize,
    /// Field lines, at most [`MAX_FIELDS`]; otherwise 431.
    pub fields: usize,
    /// Bytes of the request target; otherwise 414.
    pub target: usize,
    /// The requests come from a proxy of ours. HTTP/1.1 may have an empty Host, which a proxy sends
    /// for an HTTP/1.0 client without one (RFC 9112, section 3.2); otherwise 400. Max-Forwards has
    /// been counted.
    pub behind_proxy: bool,
}

impl Default for Limits {
    /// 16 KiB, 100 fields and 8 KiB: about the defaults of haproxy and nginx, so that a request
    /// which passed one of them is not refused here.
    fn default() -> Self {
        Self { head: 16 * 1024, fields: 100, target: 8 * 1024, behind_proxy: false }
    }
}
