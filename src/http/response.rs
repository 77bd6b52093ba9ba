//! Response heads (RFC 9112, sections 2, 4 and 6.3).

use std::fmt;

use httparse::{Error, Header, Status};

use super::ascii::{list, trim};
use super::connection::{ConnectionOptions, binds_connection};
use super::field::{Name, classify};
use super::field_lines::{FieldLines, Mask, bit};
use super::framing::Declared;
use super::{Framing, Limits, ParseError, Version};
pub use super::{Storage, storage};

/// A response head, parsed in the buffer.
///
/// `Debug` omits the field values, which may contain cookies.
#[derive(Clone, Copy)]
pub struct Response<'b, 's> {
    /// The status code, 100 to 999. RFC 9110, section 15: one above 599 is treated as a 5xx, and it
    /// is passed on as it is.
    pub status: u16,
    /// The version of the status line.
    pub version: Version,
    /// The reason phrase; empty if there is none, or if it is not ASCII.
    pub reason: &'b str,
    /// All fields, as sent.
    pub fields: &'s [Header<'b>],
    /// Bytes of the head with the blank line.
    pub len: usize,
    /// The body on the wire: none for 1xx, 204, 304 and in answer to HEAD, whatever the fields.
    pub framing: Framing,
    /// The backend keeps its connection open after this exchange. Never if the body ends with the
    /// connection.
    pub persistent: bool,
    /// It has `Connection: close`.
    pub close: bool,
    /// Seconds for which the backend keeps an idle connection open, from `Keep-Alive: timeout=`.
    pub keep_alive_timeout: Option<u32>,
    /// It requests or grants an authentication of the whole connection (NTLM, Negotiate).
    pub connection_auth: bool,
    /// A 101 that names its protocol. Any other 101, or an unsolicited one, must be answered 502.
    pub upgrade: bool,
    /// The backend has not passed the request to its application: a 5xx with a non-empty
    /// `Cloudbridge-Undelivered` field (`doc/protocol.md`, "Extensions"). Not every backend is
    /// trusted with it.
    pub undelivered: bool,
    /// The application gets the request now: a 102 with a `Cloudbridge-Receipt` (`doc/protocol.md`,
    /// "Receipts"). Only trusted from a bridge that has announced receipts.
    pub receipt: bool,
    pub(super) lines: FieldLines<'b>,
    /// Transfer-Encoding fields that are passed on; only in a response without a body.
    pub(super) codings: Mask,
}

impl fmt::Debug for Response<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("version", &self.version)
            .field("fields", &self.fields.len())
            .field("len", &self.len)
            .field("framing", &self.framing)
            .field("persistent", &self.persistent)
            .finish_non_exhaustive()
    }
}

/// In an interim response: the application gets the request now.
pub const RECEIPT: &str = "Cloudbridge-Receipt";

/// In a 5xx response: the application has not got the request.
pub const UNDELIVERED: &str = "Cloudbridge-Undelivered";

const LONG_HEAD: ParseError = bad("the response head is too long");
const MANY_FIELDS: ParseError = bad("the response has too many fields");

/// The status is 502 whatever is wrong with a response.
const fn bad(reason: &'static str) -> ParseError {
    ParseError::new(502, reason)
}

/// Parses the response head at the front of `bytes`. `to_head`: the request was a HEAD.
///
/// `Ok(None)` means that more bytes are needed; those so far are valid and not too many. The fields
/// are kept in `storage`, made by [`storage`] for this call.
///
/// # Errors
///
/// As strict as for requests, because a response that can be read in two ways could reach another
/// client. The status is always 502.
pub fn parse<'b, 's>(
    bytes: &'b [u8],
    storage: &'s mut Storage<'b>,
    limits: &Limits,
    to_head: bool,
) -> Result<Option<Response<'b, 's>>, ParseError> {
    if bytes.first().is_some_and(|b| *b != b'H') {
        // httparse would skip empty lines.
        return Err(bad("the response does not begin with HTTP/1"));
    }
    let mut line = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut line, bytes, storage)
        .map_err(refused)?;
    match status {
        Status::Partial if bytes.len() >= limits.head => Err(LONG_HEAD),
        Status::Partial => Ok(None),
        Status::Complete(len) if len > limits.head => Err(LONG_HEAD),
        Status::Complete(_) if line.headers.len() > limits.fields => Err(MANY_FIELDS),
        Status::Complete(len) => {
            whole(line, &bytes[..len], to_head).map(Some).map_err(|error| bad(error.reason))
        }
    }
}

/// Whether an answer to no request begins like this: the 408 that some servers send before they
/// close an idle connection (RFC 9110, section 15.5.9).
#[must_use]
pub fn is_timeout_notice(first: &[u8]) -> bool {
    first.starts_with(b"HTTP/1.") && first.get(8..12) == Some(b" 408")
}

/// Translates an error of httparse.
fn refused(error: Error) -> ParseError {
    match error {
        Error::HeaderName => {
            bad("a field name of the response is malformed, or a field line is folded")
        }
        Error::HeaderValue => bad("a field value of the response contains a control character"),
        Error::NewLine => bad("a line of the response does not end in CR LF"),
        Error::Version => bad("the response is not HTTP/1.0 or HTTP/1.1"),
        Error::TooManyHeaders => MANY_FIELDS,
        Error::Token | Error::Status => bad("the status line is malformed"),
    }
}

/// What the fields of a response mean, collected in one pass.
#[derive(Default)]
struct Gathered {
    declared: Declared,
    options: ConnectionOptions,
    /// Content-Length fields.
    lengths: Mask,
    /// Transfer-Encoding fields.
    codings: Mask,
    keep_alive_timeout: Option<u32>,
    connection_auth: bool,
    undelivered: bool,
    receipt: bool,
}

/// Checks a head that is complete and well-formed line by line.
fn whole<'b, 's>(
    line: httparse::Response<'s, 'b>,
    head: &'b [u8],
    to_head: bool,
) -> Result<Response<'b, 's>, ParseError> {
    let fields: &'s [Header<'b>] = line.headers;
    let version = if line.version == Some(0) { Version::V10 } else { Version::V11 };
    let status = line.code.unwrap_or_default();
    if status < 100 {
        return Err(bad("the status code is below 100"));
    }
    let mut lines = FieldLines::new(head, fields)?;
    let mut gathered = Gathered::default();
    for (index, field) in fields.iter().enumerate() {
        lines.line(fields, index)?;
        gathered.take(index, field, &mut lines)?;
    }
    // RFC 9112, section 6.1: a Transfer-Encoding in HTTP/1.0 is processed, and the connection closed
    // after it. Servers of HTTP/1.0 whose applications send chunks do exist.
    let declared = gathered.declared.framing(Version::V11)?;
    let misframed = version == Version::V10 && gathered.codings != 0;
    gathered.options.drop_named(&mut lines, fields);

    // RFC 9112, section 6.3, rules 1 and 8.
    let bodiless = to_head || matches!(status, 100..=199 | 204 | 304);
    let framing = if bodiless { Framing::None } else { declared.unwrap_or(Framing::UntilClose) };
    // In answer to a HEAD, and in a 304, the framing fields describe the body that is left out (RFC
    // 9110, section 8.6; RFC 9112, section 6.1). A 1xx or 204 must not have them. For a body that
    // follows they are generated anew. A length may be left out, and a repeated one is.
    let descriptive = (to_head || status == 304) && !matches!(status, 100..=199 | 204);
    if !descriptive {
        lines.drop |= gathered.lengths | gathered.codings;
    } else if gathered.declared.is_repeated() {
        lines.drop |= gathered.lengths;
    }
    let offer = gathered.options.offer();
    // RFC 9110, section 15.5.22: a 426 must say what to upgrade to.
    if !(offer && matches!(status, 101 | 426)) {
        lines.drop |= gathered.options.upgrades;
    }
    Ok(Response {
        status,
        version,
        reason: line.reason.unwrap_or_default(),
        fields,
        len: head.len(),
        framing,
        close: gathered.options.close,
        persistent: gathered.options.persistent(version)
            && framing != Framing::UntilClose
            && !misframed,
        keep_alive_timeout: gathered.keep_alive_timeout,
        connection_auth: gathered.connection_auth,
        upgrade: offer && status == 101 && version == Version::V11,
        undelivered: gathered.undelivered && status >= 500,
        receipt: gathered.receipt && status == 102,
        codings: if descriptive { gathered.codings } else { 0 },
        lines,
    })
}

impl Gathered {
    fn take(
        &mut self,
        index: usize,
        field: &Header<'_>,
        lines: &mut FieldLines<'_>,
    ) -> Result<(), ParseError> {
        let value = field.value;
        match classify(field.name) {
            Name::Challenge => self.connection_auth |= binds_connection(value),
            Name::ContentLength => {
                self.lengths |= bit(index);
                self.declared.content_lengths(value)?;
            }
            Name::TransferEncoding => {
                self.codings |= bit(index);
                self.declared.transfer_encoding(value)?;
            }
            Name::Upgrade => self.options.take_upgrade(index, value),
            Name::Connection => {
                lines.drop |= bit(index);
                self.options.take(index, value)?;
            }
            Name::KeepAlive => {
                lines.drop |= bit(index);
                self.keep_alive_timeout = timeout(value).or(self.keep_alive_timeout);
            }
            Name::Te | Name::HopByHop => lines.drop |= bit(index),
            Name::Reserved => {
                lines.drop |= bit(index);
                let says = |name| field.name.eq_ignore_ascii_case(name) && !value.is_empty();
                self.undelivered |= says(UNDELIVERED);
                self.receipt |= says(RECEIPT);
            }
            // The others only mean something in a request.
            _ => {}
        }
        Ok(())
    }
}

/// The seconds in `timeout=5, max=100`. Malformed values are ignored: the field is only advice.
fn timeout(value: &[u8]) -> Option<u32> {
    const KEY: &[u8] = b"timeout=";
    list(value).find_map(|item| {
        let (key, seconds) = item.split_at_checked(KEY.len())?;
        if !key.eq_ignore_ascii_case(KEY) {
            return None;
        }
        str::from_utf8(trim(seconds)).ok()?.parse().ok()
    })
}
