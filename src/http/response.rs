//! Response heads (RFC 9112, sections 2, 4 and 6.3).

use std::fmt;

use httparse::{Error, Header, Status};

use super::ascii::{list, trim};
use super::connection::{ConnectionOptions, binds_connection, passable};
use super::field::{Name, classify};
use super::field_lines::{FieldLines, Mask, bit};
use super::framing::Declared;
use super::{Framing, Limits, ParseError, Version};
pub use super::{Storage, storage};

/// A whole response head, read where it lies in the buffer.
///
/// `Debug` leaves out the values of the fields: among them are cookies.
#[derive(Clone, Copy)]
pub struct Response<'b, 's> {
    /// The status code, 100 to 599.
    pub status: u16,
    /// The version of the status line.
    pub version: Version,
    /// The reason phrase; empty if there is none, or none in ASCII.
    pub reason: &'b str,
    /// Every field as it came.
    pub fields: &'s [Header<'b>],
    /// Bytes of the head with the blank line.
    pub len: usize,
    /// The body as it follows on the wire: none for 1xx, 204, 304 and in answer to HEAD, whatever the fields say.
    pub framing: Framing,
    /// The backend lets its connection live after this exchange. Never so when the body ends with the connection.
    pub persistent: bool,
    /// It says `Connection: close`.
    pub close: bool,
    /// Seconds for which the backend keeps an idle connection open, if `Keep-Alive: timeout=` says so.
    pub keep_alive_timeout: Option<u32>,
    /// It asks for, or grants, an authentication of the whole connection (NTLM, Negotiate).
    pub connection_auth: bool,
    /// A 101 that names the protocol it changes to. One that does not, or that nobody asked for, is to be answered
    /// 502.
    pub upgrade: bool,
    /// The backend says that it has not given the request to its application: a 5xx with a `Cloudbridge-Undelivered`
    /// field that says something (`doc/protocol.md`, "Extensions"). Whether it is believed is another matter.
    pub undelivered: bool,
    /// The backend says that its application gets the request now: a 102 with a `Cloudbridge-Receipt`
    /// (`doc/protocol.md`, "Receipts"). To be believed only of a bridge that has announced that it gives them.
    pub receipt: bool,
    pub(super) lines: FieldLines<'b>,
    /// Transfer-Encoding fields that are passed on, which only a response without a body has.
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

impl Response<'_, '_> {
    /// A 1xx: another response follows, unless it is 101.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        self.status < 200
    }
}

/// The field of an interim response that says that the request is being given to the application.
pub const RECEIPT: &str = "Cloudbridge-Receipt";

/// The field of a 5xx response that says that the request has not been given to the application.
pub const UNDELIVERED: &str = "Cloudbridge-Undelivered";

const LONG_HEAD: ParseError = bad("the response head is too long");
const MANY_FIELDS: ParseError = bad("the response has too many fields");

/// Whatever is wrong with a response, the client is told that its gateway was answered badly.
const fn bad(reason: &'static str) -> ParseError {
    ParseError::new(502, reason)
}

/// Reads the head of a response at the front of `bytes`. `to_head` says that the request was a HEAD.
///
/// `Ok(None)` means that more bytes are needed, and that those at hand are neither wrong nor too many so far. The
/// fields live in `storage`, made by [`storage`] for this one call.
///
/// # Errors
///
/// As strict as with requests, for a response that can be read in two ways lets one client's answer reach another;
/// the status is always 502.
pub fn parse<'b, 's>(
    bytes: &'b [u8],
    storage: &'s mut Storage<'b>,
    limits: &Limits,
    to_head: bool,
) -> Result<Option<Response<'b, 's>>, ParseError> {
    if bytes.first().is_some_and(|b| *b != b'H') {
        // httparse would skip empty lines, which no response has in front.
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
            whole(line, &bytes[..len], to_head).map(Some).map_err(|fault| bad(fault.reason))
        }
    }
}

/// Names the fault that httparse found.
fn refused(error: Error) -> ParseError {
    match error {
        Error::HeaderName => {
            bad("a field name of the response is malformed, or a field line is folded")
        }
        Error::HeaderValue => bad("a field value of the response holds a control character"),
        Error::NewLine => bad("a line of the response does not end in CR LF"),
        Error::Version => bad("the response is not HTTP/1.0 or HTTP/1.1"),
        Error::TooManyHeaders => MANY_FIELDS,
        Error::Token | Error::Status => bad("the status line is malformed"),
    }
}

/// What the fields of a response say, gathered in one pass.
#[derive(Default)]
struct Gathered {
    declared: Declared,
    options: ConnectionOptions,
    /// Content-Length fields.
    lengths: Mask,
    /// Transfer-Encoding fields.
    codings: Mask,
    /// Upgrade fields.
    upgrades: Mask,
    /// All of them name protocols that may be passed on.
    offer: Option<bool>,
    keep_alive_timeout: Option<u32>,
    connection_auth: bool,
    undelivered: bool,
    receipt: bool,
}

/// Judges a head that is complete and well-formed line by line.
fn whole<'b, 's>(
    line: httparse::Response<'s, 'b>,
    head: &'b [u8],
    to_head: bool,
) -> Result<Response<'b, 's>, ParseError> {
    let fields: &'s [Header<'b>] = line.headers;
    let version = if line.version == Some(0) { Version::V10 } else { Version::V11 };
    let status = line.code.unwrap_or_default();
    if !(100..=599).contains(&status) {
        return Err(bad("the status code is not between 100 and 599"));
    }
    let mut lines = FieldLines::new(head, fields)?;
    let mut gathered = Gathered::default();
    for (index, field) in fields.iter().enumerate() {
        lines.line(fields, index)?;
        gathered.take(index, field, &mut lines)?;
    }
    let declared = gathered.declared.settle(version)?;
    gathered.options.drop_named(&mut lines, fields);

    // RFC 9112, section 6.3, rules 1 and 8.
    let bodiless = to_head || matches!(status, 100..=199 | 204 | 304);
    let framing = if bodiless { Framing::None } else { declared.unwrap_or(Framing::UntilClose) };
    // A HEAD or 304 may tell how the body would have been framed (RFC 9110, section 8.6; RFC 9112, section 6.1), a
    // 1xx or 204 must not; a body's own framing is stated anew.
    let told = (to_head || status == 304) && !matches!(status, 100..=199 | 204);
    if !told {
        lines.drop |= gathered.lengths | gathered.codings;
    }
    let offer = gathered.options.upgrade && gathered.offer == Some(true);
    // RFC 9110, section 15.5.22: a 426 must say what to upgrade to.
    if !(offer && matches!(status, 101 | 426)) {
        lines.drop |= gathered.upgrades;
    }
    Ok(Response {
        status,
        version,
        reason: line.reason.unwrap_or_default(),
        fields,
        len: head.len(),
        framing,
        close: gathered.options.close,
        persistent: gathered.options.persistent(version) && framing != Framing::UntilClose,
        keep_alive_timeout: gathered.keep_alive_timeout,
        connection_auth: gathered.connection_auth,
        upgrade: offer && status == 101 && version == Version::V11,
        undelivered: gathered.undelivered && status >= 500,
        receipt: gathered.receipt && status == 102,
        codings: if told { gathered.codings } else { 0 },
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
            Name::Other
            | Name::Host
            | Name::Expect
            | Name::Trailer
            | Name::Credentials
            | Name::ForwardedFor
            | Name::ForwardedProto
            | Name::ForwardedHost
            | Name::Claim => {}
            Name::Challenge => self.connection_auth |= binds_connection(value),
            Name::ContentLength => {
                self.lengths |= bit(index);
                self.declared.content_length(value)?;
            }
            Name::TransferEncoding => {
                self.codings |= bit(index);
                self.declared.transfer_encoding(value)?;
            }
            Name::Upgrade => {
                self.upgrades |= bit(index);
                self.offer = Some(self.offer.unwrap_or(true) && passable(value));
            }
            Name::Connection => {
                lines.drop |= bit(index);
                self.options.take(index, value)?;
            }
            Name::KeepAlive => {
                lines.drop |= bit(index);
                self.keep_alive_timeout = timeout(value).or(self.keep_alive_timeout);
            }
            Name::HopByHop => lines.drop |= bit(index),
            Name::Reserved => {
                lines.drop |= bit(index);
                let says = |name| field.name.eq_ignore_ascii_case(name) && !value.is_empty();
                self.undelivered |= says(UNDELIVERED);
                self.receipt |= says(RECEIPT);
            }
        }
        Ok(())
    }
}

/// The seconds in `timeout=5, max=100`. What is malformed says nothing: the field is advice, and no RFC binds it.
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
