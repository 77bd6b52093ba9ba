//! Request heads (RFC 9112, sections 2 and 3).

use std::fmt;

use httparse::{Error, Header, Status};

use super::ascii::list;
use super::authority::Authority;
use super::connection::{ConnectionOptions, binds_connection};
use super::field::{Name, classify};
use super::field_lines::{FieldLines, Mask, bit};
use super::framing::Declared;
use super::target::Target;
use super::{Framing, Limits, ParseError, Version};
pub use super::{Storage, storage};

/// Bytes of a method: twice the longest registered one. RFC 9112, section 3: a longer one gets 501.
pub(crate) const MAX_METHOD: usize = 32;

/// Empty lines accepted before a request line. RFC 9112, section 2.2, asks for at least one,
/// because old clients send one after a POST body.
const MAX_EMPTY_LINES: usize = 4;

/// A request head, parsed in the buffer.
///
/// `Debug` omits the query and the field values, which may contain credentials.
#[derive(Clone, Copy)]
pub struct Request<'b, 's> {
    /// Case-sensitive.
    pub method: &'b str,
    /// As sent.
    pub target: &'b str,
    /// The version of the request line.
    pub version: Version,
    /// The Host value, or the authority of an absolute target, as sent, with its port. Empty only
    /// if an HTTP/1.0 request has none, or by [`Limits::behind_proxy`].
    pub authority: &'b str,
    /// The authority without port and final dot, case as sent. An IPv6 address keeps its brackets.
    pub host: &'b str,
    /// The path without the query, as sent, not unescaped; `*` for `OPTIONS *`.
    pub path: &'b str,
    /// All fields, as sent.
    pub fields: &'s [Header<'b>],
    /// Bytes of the head with the blank line and with empty lines before it.
    pub len: usize,
    /// Never [`Framing::UntilClose`].
    pub framing: Framing,
    /// The client keeps its connection open after this exchange.
    pub persistent: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// The client offers another protocol, and the offer is passed on. A tunnel begins where the
    /// request ends.
    pub upgrade: bool,
    /// The client reads trailers (RFC 9110, section 6.5.1), so the backend is told the same.
    pub trailers: bool,
    /// In OPTIONS and TRACE: how often the request may still be forwarded (RFC 9110, section
    /// 7.6.2). At 0 it must be answered here. `None` by [`Limits::behind_proxy`].
    pub max_forwards: Option<u32>,
    /// The credentials are of a scheme (NTLM, Negotiate) that authenticates the whole connection,
    /// so that the bridge must not serve other clients afterwards.
    pub connection_auth: bool,
    pub(super) rest: &'b str,
    pub(super) lines: FieldLines<'b>,
    pub(super) forwarded: Claims,
}

/// The fields about the origin of a request.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Claims {
    /// `X-Forwarded-For`.
    pub(super) chain: Mask,
    /// `X-Forwarded-Proto`.
    pub(super) proto: Mask,
    /// `X-Forwarded-Host`.
    pub(super) host: Mask,
    /// `Forwarded`, `X-Real-IP` and the other `X-Forwarded-*`.
    pub(super) other: Mask,
}

/// Parses the request head at the front of `bytes`.
///
/// `Ok(None)` means that more bytes are needed; those so far are valid and not too many. An invalid
/// beginning, such as a TLS hello, is refused at its first byte. The fields are kept in `storage`,
/// made by [`storage`] for this call.
///
/// # Errors
///
/// What RFC 9112 forbids, or what two recipients could read in two ways, with the status to answer:
/// 400 malformed, 405 CONNECT and BRIDGE, 414 target too long, 417 unknown expectation, 431 head
/// too large, 501 unknown transfer coding or endless method, 505 another version. The connection
/// must be closed after the answer, because the start of the next request is unknown.
pub fn parse<'b, 's>(
    bytes: &'b [u8],
    storage: &'s mut Storage<'b>,
    limits: &Limits,
) -> Result<Option<Request<'b, 's>>, ParseError> {
    let Some(empty) = empty_lines(bytes)? else {
        return Ok(None);
    };
    let bytes = &bytes[empty..];
    let mut line = httparse::Request::new(&mut []);
    let status =
        line.parse_with_uninit_headers(bytes, storage).map_err(|error| refused(error, bytes))?;
    match status {
        Status::Partial => {
            within(line.method, line.path, bytes.len(), limits)?;
            Ok(None)
        }
        Status::Complete(len) => whole(line, &bytes[..len], empty, limits).map(Some),
    }
}

/// Whether `bytes` are nothing but empty lines, the last perhaps incomplete: no request has
/// begun (RFC 9112, section 2.2).
pub(crate) fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| matches!(b, b'\r' | b'\n'))
}

/// Bytes of the empty lines before the request; `None` if nothing else has come yet.
fn empty_lines(bytes: &[u8]) -> Result<Option<usize>, ParseError> {
    const LONGEST: usize = 2 * MAX_EMPTY_LINES;
    let mut at = 0;
    loop {
        match &bytes[at..] {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', ..] if at < LONGEST => at += 2,
            [b'\r' | b'\n', ..] => {
                return Err(ParseError::malformed("line ends before the request"));
            }
            _ => return Ok(Some(at)),
        }
    }
}

/// Checks the limits of a head that has more than `have` bytes. `None` is what has not come yet.
fn within(
    method: Option<&str>,
    target: Option<&str>,
    have: usize,
    limits: &Limits,
) -> Result<(), ParseError> {
    match (method, target) {
        (None, _) if have > MAX_METHOD => return Err(LONG_METHOD),
        (Some(method), _) if method.len() > MAX_METHOD => return Err(LONG_METHOD),
        (Some(method), None) if have - method.len() - 1 > limits.target || have >= limits.head => {
            return Err(LONG_TARGET);
        }
        (_, Some(target)) if target.len() > limits.target => return Err(LONG_TARGET),
        _ => {}
    }
    if have >= limits.head { Err(LONG_HEAD) } else { Ok(()) }
}

const LONG_METHOD: ParseError = ParseError::new(501, "the method is longer than any known one");
const LONG_TARGET: ParseError = ParseError::new(414, "the request target is too long");
const LONG_HEAD: ParseError = ParseError::new(431, "the request head is too long");
const MANY_FIELDS: ParseError = ParseError::new(431, "the request has too many fields");

/// Translates an error of httparse.
fn refused(error: Error, bytes: &[u8]) -> ParseError {
    match error {
        Error::HeaderName => {
            ParseError::malformed("a field name is malformed, or a field line is folded")
        }
        Error::HeaderValue => ParseError::malformed("a field value holds a control character"),
        Error::NewLine => ParseError::malformed("a line does not end in CR LF"),
        Error::Version => version_fault(bytes),
        Error::TooManyHeaders => MANY_FIELDS,
        Error::Token | Error::Status => ParseError::malformed("the request line is malformed"),
    }
}

/// Distinguishes an unsupported version from an invalid one.
///
/// RFC 9110, section 2.5, asks recipients to read HTTP/1.2 as HTTP/1.1. No such version exists and
/// none is planned, so it can only be an attack.
fn version_fault(bytes: &[u8]) -> ParseError {
    let word = bytes.splitn(3, |b| *b == b' ').nth(2).unwrap_or_default();
    match word.strip_prefix(b"HTTP/") {
        Some([b'0'..=b'9', ..]) => {
            ParseError::new(505, "only HTTP/1.0 and HTTP/1.1 are supported here")
        }
        _ => ParseError::malformed("the request line does not end in an HTTP version"),
    }
}

/// What the fields of a request mean, collected in one pass.
#[derive(Default)]
struct Gathered<'b> {
    host: Option<&'b str>,
    declared: Declared,
    options: ConnectionOptions,
    expect: Option<usize>,
    connection_auth: bool,
    trailers: bool,
    /// There is a Max-Forwards field.
    max_forwards: bool,
    forwarded: Claims,
}

/// Checks a head that is complete and well-formed line by line, after `empty` bytes of empty lines.
fn whole<'b, 's>(
    line: httparse::Request<'s, 'b>,
    head: &'b [u8],
    empty: usize,
    limits: &Limits,
) -> Result<Request<'b, 's>, ParseError> {
    let fields: &'s [Header<'b>] = line.headers;
    // httparse gives all three with a complete head.
    let (method, target) = (line.method.unwrap_or_default(), line.path.unwrap_or_default());
    let version = if line.version == Some(0) { Version::V10 } else { Version::V11 };
    within(line.method, line.path, head.len() - 1, limits)?;
    if fields.len() > limits.fields {
        return Err(MANY_FIELDS);
    }
    if matches!(method, "CONNECT" | "BRIDGE") {
        return Err(ParseError::new(405, "this method is not allowed here"));
    }
    let mut lines = FieldLines::new(head, fields)?;
    let mut gathered = Gathered::default();
    for (index, field) in fields.iter().enumerate() {
        lines.line(fields, index)?;
        gathered.take(index, field, &mut lines)?;
    }
    let framing = gathered.declared.framing(version)?.unwrap_or(Framing::None);
    let parsed = Target::parse(target, method)?;
    let (authority, host) = effective_host(&parsed, gathered.host, version, limits)?;
    gathered.options.drop_named(&mut lines, fields);

    let bodiless = matches!(framing, Framing::None | Framing::Length(0));
    // RFC 9110, section 7.8: an Upgrade in an HTTP/1.0 request is ignored.
    let upgrade = version == Version::V11 && gathered.options.offer();
    if !upgrade {
        lines.drop |= gathered.options.upgrades;
    }
    let mut max_forwards = None;
    if gathered.max_forwards && matches!(method, "OPTIONS" | "TRACE") && !limits.behind_proxy {
        max_forwards = hops(fields, &mut lines)?;
    }
    if let (Some(index), Version::V10) = (gathered.expect, version) {
        // RFC 9110, section 10.1.1: ignored in HTTP/1.0, which has no interim responses.
        lines.drop |= bit(index);
    }
    Ok(Request {
        method,
        target,
        version,
        authority,
        host,
        path: parsed.path,
        fields,
        len: empty + head.len(),
        framing,
        persistent: gathered.options.persistent(version),
        expect_continue: gathered.expect.is_some() && version == Version::V11 && !bodiless,
        upgrade,
        trailers: gathered.trailers && version == Version::V11,
        max_forwards,
        connection_auth: gathered.connection_auth,
        rest: parsed.rest,
        lines,
        forwarded: gathered.forwarded,
    })
}

impl<'b> Gathered<'b> {
    /// Takes the field at `index`. What is removed here, `rewrite` generates anew if it still
    /// applies.
    fn take(
        &mut self,
        index: usize,
        field: &Header<'b>,
        lines: &mut FieldLines<'b>,
    ) -> Result<(), ParseError> {
        let value = field.value;
        match classify(field.name) {
            Name::Other
            | Name::Trailer
            | Name::Challenge
            | Name::RequestStart
            | Name::RequestId => {}
            Name::Credentials => self.connection_auth |= binds_connection(value),
            Name::Expect => self.expect(index, value, lines)?,
            Name::ForwardedFor => self.forwarded.chain |= bit(index),
            Name::ForwardedProto => self.forwarded.proto |= bit(index),
            Name::ForwardedHost => self.forwarded.host |= bit(index),
            Name::Claim | Name::Forwarded => self.forwarded.other |= bit(index),
            Name::Upgrade => self.options.take_upgrade(index, value),
            Name::MaxForwards => self.max_forwards = true,
            removed => {
                lines.drop |= bit(index);
                match removed {
                    Name::Host => self.host(value)?,
                    Name::Connection => self.options.take(index, value)?,
                    Name::ContentLength => self.declared.content_length(value)?,
                    Name::TransferEncoding => self.declared.transfer_encoding(value)?,
                    Name::Te => self.trailers |= reads_trailers(value),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn host(&mut self, value: &'b [u8]) -> Result<(), ParseError> {
        if self.host.is_some() {
            // RFC 9112, section 3.2.
            return Err(ParseError::malformed("Host is given more than once"));
        }
        self.host =
            Some(str::from_utf8(value).map_err(|_| ParseError::malformed("Host is not ASCII"))?);
        Ok(())
    }

    /// Only the first Expect is passed on. An empty one expects nothing (RFC 9110, section 5.6.1).
    fn expect(
        &mut self,
        index: usize,
        value: &[u8],
        lines: &mut FieldLines<'_>,
    ) -> Result<(), ParseError> {
        if value.is_empty() {
            lines.drop |= bit(index);
            return Ok(());
        }
        if !value.eq_ignore_ascii_case(b"100-continue") {
            // RFC 9110, section 10.1.1.
            return Err(ParseError::new(
                417,
                "the only expectation supported here is 100-continue",
            ));
        }
        match self.expect {
            Some(_) => lines.drop |= bit(index),
            None => self.expect = Some(index),
        }
        Ok(())
    }
}

/// Whether a TE field has the member `trailers` (RFC 9110, section 10.1.4).
fn reads_trailers(value: &[u8]) -> bool {
    list(value).any(|member| member.eq_ignore_ascii_case(b"trailers"))
}

/// Removes the Max-Forwards fields and returns the smallest number in them. One too large for 32
/// bits is as good as any large one.
fn hops(fields: &[Header<'_>], lines: &mut FieldLines<'_>) -> Result<Option<u32>, ParseError> {
    let mut least = None;
    for (index, Header { name, value }) in fields.iter().enumerate() {
        if classify(name) != Name::MaxForwards {
            continue;
        }
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(ParseError::malformed("Max-Forwards is not a number"));
        }
        let digits = value.iter().map(|digit| u32::from(digit - b'0'));
        let left = digits.fold(0, |sum: u32, digit| sum.saturating_mul(10).saturating_add(digit));
        least = Some(least.map_or(left, |least: u32| least.min(left)));
        lines.drop |= bit(index);
    }
    Ok(least)
}

/// Authority and host of a request.
///
/// RFC 9112, section 3.2.2, lets an absolute target override Host. A request in which the two
/// differ could be routed by one name here and by the other in a proxy in front, so it is refused.
fn effective_host<'b>(
    target: &Target<'b>,
    field: Option<&'b str>,
    version: Version,
    limits: &Limits,
) -> Result<(&'b str, &'b str), ParseError> {
    let sent = match field {
        Some("") | None if version == Version::V10 => None,
        Some("") if limits.behind_proxy => None,
        Some(text) => Some((text, Authority::parse(text)?)),
        None => return Err(ParseError::malformed("HTTP/1.1 requires a Host")),
    };
    match (target.authority, sent) {
        (None, Some((text, authority))) => Ok((text, authority.host)),
        (None, None) => Ok(("", "")),
        (Some((text, port)), sent) => {
            let authority = Authority::parse(text)?;
            if sent.is_some_and(|(_, host)| !host.same(&authority, port)) {
                return Err(ParseError::malformed(
                    "the address in the request line is not the one in Host",
                ));
            }
            Ok((text, authority.host))
        }
    }
}

impl fmt::Debug for Request<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("version", &self.version)
            .field("host", &self.host)
            .field("path", &self.path)
            .field("fields", &self.fields.len())
            .field("len", &self.len)
            .field("framing", &self.framing)
            .finish_non_exhaustive()
    }
}

impl<'b> Request<'b, '_> {
    /// Whether the response has no body, whatever its fields.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// RFC 9110, section 9.2.2.
    #[must_use]
    pub fn idempotent(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
    }

    /// The target in origin form (RFC 9112, section 3.2.1), in two pieces.
    #[must_use]
    pub fn origin_form(&self) -> [&'b str; 2] {
        if self.rest.is_empty() || self.rest.starts_with('?') {
            ["/", self.rest]
        } else {
            ["", self.rest]
        }
    }
}

/// The host in lower case. `scratch` is only used if `host` has capitals.
pub fn lower_host<'a>(host: &'a str, scratch: &'a mut String) -> &'a str {
    if !host.bytes().any(|b| b.is_ascii_uppercase()) {
        return host;
    }
    scratch.clear();
    scratch.push_str(host);
    scratch.make_ascii_lowercase();
    scratch
}
