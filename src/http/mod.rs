//! HTTP/1.1 as text (RFC 9110, RFC 9112): heads, body framing, rewriting, and the proxy's own answers.
//!
//! This room knows no sockets, no clock and no threads, and it allocates nothing while it parses: a head is read
//! where it lies in the caller's buffer, and what is sent on is appended to the caller's `Vec` as slices of it.
//!
//! It is strict in what it takes. A proxy that guesses what a doubtful head means, and passes it on, lets the next
//! hop guess differently; that difference is request smuggling. So whatever two readers could read in two ways is
//! refused, and how a body is framed is never copied from the sender's words but stated anew from what was
//! understood.
//!
//! Read in this order: [`request`], [`response`], [`rewrite`], [`chunked`], [`reply`]. Below them: `target` and
//! `authority` (where a request goes), `field` (which names mean something here), `framing` (how long a body is),
//! `options` (the Connection field), `lines` (the field lines as they lie in the buffer).

mod ascii;
mod authority;
pub mod chunked;
mod connection;
mod field;
mod field_lines;
mod framing;
pub(crate) mod host_name;
pub mod reply;
pub mod request;
pub mod response;
pub mod rewrite;
mod target;
#[cfg(test)]
mod tests;

use std::fmt;
use std::mem::MaybeUninit;

pub use chunked::{Decoder, Piece};
pub use framing::Framing;
pub use reply::{Reply, reason};
pub use request::{Request, lower_host};
pub use response::Response;
pub use rewrite::{Forwarded, Toward, Via};

/// Fields that a head can have at the very most, whatever the settings say.
///
/// One bit a field in the masks of `lines`, and 4 KiB of the caller's stack. It stands above the default of
/// [`Limits::fields`], so that a head with a field too many can be told from a broken one.
pub const MAX_FIELDS: usize = 128;

/// Where a parser puts the fields it finds: an array on the caller's stack, made by [`storage`].
pub type Storage<'b> = [MaybeUninit<httparse::Header<'b>>; MAX_FIELDS];

/// Room for the fields of one head. Nothing is written, so it costs nothing to make.
#[must_use]
pub fn storage<'b>() -> Storage<'b> {
    [const { MaybeUninit::uninit() }; MAX_FIELDS]
}

/// The version that a message claims (RFC 9110, section 2.5).
///
/// HTTP/1.0 and 1.1 are all there is of HTTP/1; any other number is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: no chunked coding, no Host needed, closes unless it says `keep-alive`.
    V10,
    /// HTTP/1.1: stays open unless it says `close`.
    V11,
}

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseError {
    /// The status that answers it. For what a backend sent it is 502, except from [`chunked`], which does not know
    /// whose body it reads and says 400 or 431.
    pub status: u16,
    /// What is wrong, in one line, fit for the answer's body and for the log. It never quotes the message.
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
    /// Bytes from the first of the start line to the last of the blank line: 431 beyond.
    pub head: usize,
    /// Field lines, at most [`MAX_FIELDS`]: 431 beyond.
    pub fields: usize,
    /// Bytes of the request target: 414 beyond.
    pub target: usize,
}

impl Default for Limits {
    /// 16 KiB, 100 fields and 8 KiB: what haproxy and nginx take by default, near enough, so that a request which
    /// passed one of them in front is not refused here.
    fn default() -> Self {
        Self { head: 16 * 1024, fields: 100, target: 8 * 1024 }
    }
}
