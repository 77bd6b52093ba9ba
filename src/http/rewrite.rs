//! Rewrites heads: removes the fields of one connection, and adds the proxy's.
//!
//! Both functions append to the caller's buffer and do not allocate if it has room. Framing and
//! host are generated from what was parsed, never copied: `Transfer-Encoding: CHUNKED` or
//! `Content-Length: 010` could mean something else to the next recipient.

use std::net::{IpAddr, Ipv6Addr};

use super::ascii::{address, is_token, line, list, number_line};
use super::cookies;
use super::field::{Name, classify};
use super::field_lines::{Mask, bit, marked};
use super::reply::reason;
use super::request::Request;
use super::response::Response;
use super::stamps::Stamps;
use super::{Framing, Version};

/// Bytes by which a rewritten head may be longer than the original, except for fields that repeat
/// part of it: `X-Forwarded-*` with an IPv6 address, and Connection.
const ADDED: usize = 192;

/// See [`Via::not_held`].
const NOT_HELD: &[u8] = b"Cloudbridge-Held: no\r\n";

/// What to do with the fields about the origin of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// Trust the peer, a proxy: append its address to `X-Forwarded-For`, and add
    /// `X-Forwarded-Proto` and `X-Forwarded-Host` if they are missing.
    Append,
    /// Trust nobody: remove `Forwarded`, `X-Real-IP` and all `X-Forwarded-*`, and set ours.
    Replace,
    /// Pass them on, and add nothing.
    Off,
}

/// Which fields name the client. In [`Forwarded::Append`], the others are passed on as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedStyle {
    /// `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.
    X,
    /// `Forwarded` (RFC 7239).
    Rfc7239,
    /// All of these.
    Both,
}

/// What the proxy adds to a request.
#[derive(Debug, Clone, Copy)]
pub struct Via<'a> {
    /// The peer of the client's connection.
    pub client: IpAddr,
    /// Whether and how it is added.
    pub forwarded: Forwarded,
    /// In which fields.
    pub style: ForwardedStyle,
    /// The scheme that the client used: `http` or `https`.
    pub proto: &'static str,
    /// What happens to the fields that mark a request.
    pub stamps: Stamps,
    /// A backend that could give the request back for lack of a place is told that this one cannot
    /// be (`doc/protocol.md`, "Places").
    pub not_held: bool,
    /// A cookie of the proxy's own, which the backend does not get.
    pub hides: Option<&'a str>,
}

impl Via<'_> {
    /// For a client that used `http`; in the `X-Forwarded-*` fields, and without marks.
    #[must_use]
    pub const fn new(client: IpAddr, forwarded: Forwarded) -> Self {
        let (style, stamps) = (ForwardedStyle::X, Stamps::PASS);
        Via { client, forwarded, style, proto: "http", stamps, not_held: false, hides: None }
    }
}

/// Appends the head to send to a backend: origin form, HTTP/1.1, Host first.
///
/// The fields keep their order and spelling, except that `Name:value` becomes `Name: value`.
/// Removed are Connection and what it names (but see `field::may_be_named`), Keep-Alive,
/// Proxy-Connection, TE but for `trailers`, HTTP2-Settings, Upgrade unless [`Request::upgrade`], and
/// the reserved names of `field::classify`. Trailer, Expect and Proxy-Authorization are passed on: they are not
/// for this proxy.
pub fn request(out: &mut Vec<u8>, request: &Request<'_, '_>, via: &Via<'_>) {
    out.reserve(request.lines.len() + 2 * request.authority.len() + ADDED);
    out.extend_from_slice(request.method.as_bytes());
    out.push(b' ');
    let [root, rest] = request.origin_form();
    out.extend_from_slice(root.as_bytes());
    out.extend_from_slice(rest.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    // RFC 9112, section 3.2: Host ought to be first, and is sent even if it is empty.
    line(out, b"Host: ", request.authority.as_bytes());
    let claims = &request.forwarded;
    let also: Mask = match via.forwarded {
        Forwarded::Append => match via.style {
            ForwardedStyle::X => claims.chain,
            ForwardedStyle::Rfc7239 => elements(request),
            ForwardedStyle::Both => claims.chain | elements(request),
        },
        Forwarded::Replace => claims.chain | claims.proto | claims.host | claims.other,
        Forwarded::Off => 0,
    };
    let stamps = if via.stamps == Stamps::PASS { 0 } else { via.stamps.removed(request) };
    let hidden = via.hides.map_or(0, |name| cookies::fields_with(request, name));
    request.lines.copy(out, request.fields, also | stamps | hidden);
    if let Some(name) = via.hides.filter(|_| hidden != 0) {
        cookies::write_others(out, request, hidden, name);
    }
    framing(out, request.framing);
    if request.upgrade {
        out.extend_from_slice(b"Connection: upgrade\r\n");
    } else if request.trailers {
        out.extend_from_slice(b"Connection: TE\r\nTE: trailers\r\n");
    }
    if let Some(left) = request.max_forwards {
        number_line(out, b"Max-Forwards: ", left.saturating_sub(1).into());
    }
    if via.not_held {
        out.extend_from_slice(NOT_HELD);
    }
    // Last, where `Request::last_forwarded` finds them.
    if via.forwarded != Forwarded::Off {
        if via.style != ForwardedStyle::Rfc7239 {
            forwarded(out, request, via);
        }
        if via.style != ForwardedStyle::X {
            forwarded_element(out, request, via);
        }
    }
    if via.stamps != Stamps::PASS {
        via.stamps.write(out);
    }
    out.extend_from_slice(b"\r\n");
}

/// The `Forwarded` fields.
fn elements(request: &Request<'_, '_>) -> Mask {
    let mut rest = request.forwarded.other;
    let mut found = 0;
    while let Some(field) = request.fields.get(rest.trailing_zeros() as usize) {
        if classify(field.name) == Name::Forwarded {
            found |= bit(rest.trailing_zeros() as usize);
        }
        rest &= rest - 1;
    }
    found
}

/// Appends the values of earlier proxies, each with a comma behind it. In one whose quoted string
/// does not end, what follows would be part of that.
fn earlier(out: &mut Vec<u8>, request: &Request<'_, '_>, fields: Mask) {
    for earlier in marked(request.fields, fields & !request.lines.drop) {
        if !earlier.value.is_empty() && are_quotes_closed(earlier.value) {
            out.extend_from_slice(earlier.value);
            out.extend_from_slice(b", ");
        }
    }
}

/// Whether every quoted string (RFC 9110, section 5.6.4) in a field's value has its end.
fn are_quotes_closed(value: &[u8]) -> bool {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for byte in value {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            _ => {}
        }
    }
    !is_quoted
}

/// Appends the field of RFC 7239.
#[inline(never)]
fn forwarded_element(out: &mut Vec<u8>, request: &Request<'_, '_>, via: &Via<'_>) {
    out.reserve(request.authority.len() + ADDED);
    out.extend_from_slice(b"Forwarded: ");
    if via.forwarded == Forwarded::Append {
        earlier(out, request, elements(request));
    }
    // Section 6: a colon and brackets are in no token.
    let client = via.client.to_canonical();
    let (open, close) =
        if client.is_ipv6() { (&b"for=\"["[..], &b"]\""[..]) } else { (&b"for="[..], &b""[..]) };
    out.extend_from_slice(open);
    address(out, client);
    out.extend_from_slice(close);
    let host = request.authority.as_bytes();
    if !host.is_empty() {
        out.extend_from_slice(b";host=");
        if host.iter().copied().all(is_token) {
            out.extend_from_slice(host);
        } else {
            // No host has a quotation mark or a backslash.
            out.push(b'"');
            out.extend_from_slice(host);
            out.push(b'"');
        }
    }
    line(out, b";proto=", via.proto.as_bytes());
}

impl Request<'_, '_> {
    /// The address that the last proxy has written into its `X-Forwarded-For` or `Forwarded`, if it
    /// is one of ours: [`request`] writes them behind all fields that the client sent. (With
    /// [`Forwarded::Off`] it writes none, and this is what the client says.)
    #[must_use]
    pub fn last_forwarded(&self) -> Option<IpAddr> {
        let last = (self.forwarded.chain | elements(self)).checked_ilog2()?;
        let field = &self.fields[last as usize];
        if classify(field.name) == Name::ForwardedFor {
            return str::from_utf8(list(field.value).last()?).ok()?.parse().ok();
        }
        const FOR: &[u8] = b"for=";
        let start = memchr::memmem::rfind(field.value, FOR)? + FOR.len();
        let node = field.value[start..].split(|byte| *byte == b';').next()?;
        let node = str::from_utf8(node).ok()?;
        match node.strip_prefix("\"[").and_then(|node| node.strip_suffix("]\"")) {
            Some(six) => six.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            None => node.parse().ok(),
        }
    }
}

fn forwarded(out: &mut Vec<u8>, request: &Request<'_, '_>, via: &Via<'_>) {
    let claims = &request.forwarded;
    let (chain, proto, host) = match via.forwarded {
        Forwarded::Append => (claims.chain, claims.proto == 0, claims.host == 0),
        Forwarded::Replace => (0, true, true),
        Forwarded::Off => return,
    };
    out.extend_from_slice(b"X-Forwarded-For: ");
    if chain != 0 {
        earlier(out, request, chain);
    }
    address(out, via.client);
    out.extend_from_slice(b"\r\n");
    if proto {
        line(out, b"X-Forwarded-Proto: ", via.proto.as_bytes());
    }
    if host && !request.authority.is_empty() {
        line(out, b"X-Forwarded-Host: ", request.authority.as_bytes());
    }
}

/// How to send a response to a client.
#[derive(Debug, Clone, Copy)]
pub struct Toward {
    /// The client's version.
    pub version: Version,
    /// The client's connection is closed after this response. Required if the body ends with the
    /// connection: [`Framing::UntilClose`], or `decode_chunked`.
    pub close: bool,
    /// The chunked coding is removed, for an HTTP/1.0 client.
    pub decode_chunked: bool,
}

/// Appends the head to send to a client.
///
/// The fields keep their order and spelling, except that `Name:value` becomes `Name: value`. Those
/// of the backend's connection are removed, as in [`request`]. Content-Length and Transfer-Encoding
/// in answer to HEAD and in a 304 are passed on unchanged, but for a repeated length. There is always a reason phrase, because
/// some clients need one.
pub fn response(out: &mut Vec<u8>, response: &Response<'_, '_>, toward: &Toward) {
    out.reserve(response.lines.len() + ADDED);
    out.extend_from_slice(&status_line(response.status));
    let phrase = match response.reason {
        "" => reason(response.status),
        sent => sent,
    };
    out.extend_from_slice(phrase.as_bytes());
    out.extend_from_slice(b"\r\n");
    // RFC 9112, section 6.1: never to a client of HTTP/1.0.
    let also = if toward.version == Version::V10 { response.codings } else { 0 };
    response.lines.copy(out, response.fields, also);
    match response.framing {
        Framing::Chunked if toward.decode_chunked => {}
        stated => framing(out, stated),
    }
    connection(out, response, toward);
    out.extend_from_slice(b"\r\n");
}

/// The status line up to the reason phrase. The parser accepts only three digits.
fn status_line(status: u16) -> [u8; 13] {
    let mut line = *b"HTTP/1.1 000 ";
    for (at, unit) in [(9, 100), (10, 10), (11, 1)] {
        line[at] += (status / unit % 10) as u8;
    }
    line
}

fn framing(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::Length(length) => number_line(out, b"Content-Length: ", length),
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::None | Framing::UntilClose => {}
    }
}

fn connection(out: &mut Vec<u8>, response: &Response<'_, '_>, toward: &Toward) {
    let close = toward.close || toward.decode_chunked;
    let line: &[u8] = match response.status {
        101 => b"Connection: upgrade\r\n",
        100..=199 => b"",
        426 if close => b"Connection: close, upgrade\r\n",
        426 => b"Connection: upgrade\r\n",
        _ if close => b"Connection: close\r\n",
        _ if toward.version == Version::V10 => b"Connection: keep-alive\r\n",
        _ => b"",
    };
    out.extend_from_slice(line);
}
