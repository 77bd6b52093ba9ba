//! The BRIDGE request, by which a backend offers to serve a set of names, and what the proxy says
//! on that connection before a client's request goes over it (`doc/protocol.md`, "BRIDGE").

use httparse::{EMPTY_HEADER, Header, Status};

use super::extensions::{self, BackendToken, Extensions};
use super::hostkey::HostKey;
use super::pattern;

/// Accepted and parked; also the ping to a parked bridge, and what the backend answers to
/// [`SWITCH`] ("I am still here").
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A client's request follows: from here on the backend is the server of this connection.
///
/// The original's bytes. RFC 9110 section 7.8 would have a `Connection: Upgrade` beside the
/// Upgrade field, but the line-by-line reader of the original client needs no more than this, and
/// nothing may stand between a bridge and the proxy that could miss it.
pub const SWITCH: &[u8] = b"HTTP/1.1 101 Upgrade\r\nUpgrade: HTTP/1.1\r\n\r\n";

/// Most fields a BRIDGE request may have, and so the most names and keys: what a client's request
/// may have too. Each key costs two digests, so this bounds the work of one registration.
pub const MAX_FIELDS: usize = 100;

/// Longest path prefix, in bytes. A real one is a few segments long, and every bridge of a route
/// and every access-log line repeats it.
pub const MAX_PREFIX: usize = 1024;

/// Most bytes of the request that a refusal quotes back: enough to find the field that is meant.
const MAX_QUOTED: usize = 64;

/// The method and the space after it, by which a BRIDGE is told from a client's request.
const METHOD: &[u8] = b"BRIDGE ";

/// Bounds on a BRIDGE request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes of the whole head, blank line included.
    pub head: usize,
    /// Most fields; more than [`MAX_FIELDS`] means [`MAX_FIELDS`].
    pub fields: usize,
}

impl Default for Limits {
    /// 16 KiB, which holds a full set of 100 names, and 100 fields.
    fn default() -> Limits {
        Limits { head: 16 * 1024, fields: MAX_FIELDS }
    }
}

/// What a backend offers: a well-formed BRIDGE request, not yet checked against keys or
/// configuration.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The host patterns in the order they came, each once, in the form of [`pattern::parse`].
    /// Never empty.
    pub patterns: Vec<String>,
    /// The path prefix without a slash at its end: `""` for `/`, `"/app"` for `/app/`.
    pub prefix: String,
    /// The keys in the order they came.
    pub keys: Vec<HostKey>,
    /// The backend knows the extensions, and this names its bridges.
    pub backend: Option<BackendToken>,
    /// The backend gives receipts; means something only of one that has announced itself.
    pub receipts: bool,
    /// It is no registration: the bridges of this token leave.
    pub leave: Option<BackendToken>,
    /// A field shows that the request came through another proxy, so the peer's address is not the
    /// backend's.
    pub forwarded: bool,
    /// Bytes of the request, blank line included. Whatever follows belongs to nobody.
    pub len: usize,
}

/// Why a BRIDGE request is refused: an ordinary HTTP answer, after which the connection closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status code.
    pub status: u16,
    /// One short line of visible ASCII and spaces; bytes of the request are escaped and cut.
    pub text: String,
}

impl Refusal {
    pub(super) fn new(status: u16, text: impl Into<String>) -> Refusal {
        Refusal { status, text: text.into() }
    }
}

/// Whether a connection's first bytes begin a BRIDGE request; `None` while they could still become
/// one. Methods are case-sensitive (RFC 9110 section 9.1).
///
/// ```
/// use cloudbridge::bridge::request::is_bridge;
/// assert_eq!(is_bridge(b"BRIDGE / HTTP/1.1\r\n"), Some(true));
/// assert_eq!(is_bridge(b"BRI"), None);
/// assert_eq!(is_bridge(b"GET / HTTP/1.1\r\n"), Some(false));
/// ```
pub fn is_bridge(bytes: &[u8]) -> Option<bool> {
    if bytes.starts_with(METHOD) {
        Some(true)
    } else if METHOD.starts_with(bytes) {
        None
    } else {
        Some(false)
    }
}

/// Reads a BRIDGE request from the front of `bytes`; `Ok(None)` means that its end is not there
/// yet.
///
/// Pure: a refusal is final, and parsing again with more bytes gives the same one.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Option<Registration>, Refusal> {
    if is_bridge(bytes) == Some(false) {
        return Err(Refusal::new(400, "this is no BRIDGE request"));
    }
    let mut storage = [EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut storage[..limits.fields.min(MAX_FIELDS)]);
    let len = match request.parse(bytes) {
        Ok(Status::Complete(len)) if len <= limits.head => len,
        Ok(Status::Partial) if bytes.len() < limits.head => return Ok(None),
        Ok(_) => return Err(Refusal::new(431, "the BRIDGE request is too long")),
        Err(error) => return Err(malformed(error, bytes)),
    };
    if bare_newline(&bytes[..len]) {
        return Err(Refusal::new(400, "lines end in CR LF"));
    }
    if request.version != Some(1) {
        return Err(wrong_version());
    }
    let mut registration = Registration {
        patterns: Vec::new(),
        prefix: prefix(request.path.unwrap_or_default())?,
        keys: Vec::new(),
        backend: None,
        receipts: false,
        leave: None,
        forwarded: false,
        len,
    };
    for field in request.headers.iter() {
        registration.take(field)?;
    }
    if let (Some(backend), Some(leave)) = (registration.backend, registration.leave)
        && backend != leave
    {
        return Err(Refusal::new(400, "a backend cannot leave in the name of another"));
    }
    if registration.patterns.is_empty() {
        return Err(Refusal::new(404, "no Host: a BRIDGE names the hosts it serves"));
    }
    Ok(Some(registration))
}

impl Registration {
    /// Acts on one field. Fields that mean nothing here are passed over, as in any request.
    fn take(&mut self, field: &Header<'_>) -> Result<(), Refusal> {
        let name = field.name;
        if name.eq_ignore_ascii_case("Host") {
            self.take_host(field.value)
        } else if name.eq_ignore_ascii_case("Host-Key") {
            let key = HostKey::parse(field.value)
                .map_err(|bad| Refusal::new(400, format!("bad Host-Key: {bad}")))?;
            self.keys.push(key);
            Ok(())
        } else if name.eq_ignore_ascii_case("Expect") {
            if field.value.eq_ignore_ascii_case(b"100-continue") {
                return Ok(());
            }
            // RFC 9110 section 10.1.1: the one expectation there is.
            Err(Refusal::new(417, "only Expect: 100-continue is understood"))
        } else if name.eq_ignore_ascii_case(extensions::BACKEND) {
            take_token(&mut self.backend, extensions::BACKEND, field.value)
        } else if name.eq_ignore_ascii_case(extensions::LEAVE) {
            take_token(&mut self.leave, extensions::LEAVE, field.value)
        } else if name.eq_ignore_ascii_case(extensions::EXTENSIONS) {
            self.receipts |= Extensions::parse(field.value).receipts;
            Ok(())
        } else if begins(name, "Content-") || name.eq_ignore_ascii_case("Transfer-Encoding") {
            let name = quoted(name.as_bytes());
            Err(Refusal::new(501, format!("a BRIDGE has no body: {name} is not supported")))
        } else if begins(name, "If-") {
            let name = quoted(name.as_bytes());
            Err(Refusal::new(501, format!("{name} is not supported")))
        } else {
            self.forwarded |= shows_proxy(name);
            Ok(())
        }
    }

    fn take_host(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let pattern = pattern::parse(value)
            .map_err(|bad| Refusal::new(400, format!("bad Host '{}': {bad}", quoted(value))))?;
        if !self.patterns.contains(&pattern) {
            self.patterns.push(pattern);
        }
        Ok(())
    }
}

/// Reads a token into its place. It is a secret, so a refusal does not quote it.
fn take_token(place: &mut Option<BackendToken>, name: &str, value: &[u8]) -> Result<(), Refusal> {
    let Some(token) = BackendToken::parse(value) else {
        return Err(Refusal::new(400, format!("bad {name}: it is 32 lower-case hex digits")));
    };
    match place.replace(token) {
        None => Ok(()),
        Some(_) => Err(Refusal::new(400, format!("{name} is there twice"))),
    }
}

/// The target as a path prefix, without a slash at its end. It is compared as text with what
/// clients send, so anything a client's path can be made of is let through.
pub(crate) fn prefix(target: &str) -> Result<String, Refusal> {
    let path = |b: u8| b.is_ascii_graphic() && b != b'?' && b != b'#';
    if !target.starts_with('/') || !target.bytes().all(path) {
        return Err(Refusal::new(400, "the target of a BRIDGE is a path, such as / or /app"));
    }
    if target.len() > MAX_PREFIX {
        return Err(Refusal::new(414, "the path prefix is too long"));
    }
    Ok(target.trim_end_matches('/').to_owned())
}

/// Fields that only a proxy adds. Their presence on a BRIDGE means that the connection's peer is
/// that proxy and not the backend.
fn shows_proxy(name: &str) -> bool {
    begins(name, "X-Forwarded-")
        || ["Forwarded", "Via", "X-Real-IP"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

fn begins(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// A line end without its CR. The parser takes those, but a proxy in front may read one line where
/// we read two (RFC 9112 section 2.2 allows to refuse them).
fn bare_newline(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r')
}

fn malformed(error: httparse::Error, bytes: &[u8]) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::new(431, "too many fields"),
        httparse::Error::Version if names_http(bytes) => wrong_version(),
        error => Refusal::new(400, format!("malformed BRIDGE request: {error}")),
    }
}

/// HTTP/1.0 has no 1xx answers (RFC 9110 section 15.2), and the handshake is made of them.
fn wrong_version() -> Refusal {
    Refusal::new(505, "a BRIDGE is an HTTP/1.1 request")
}

/// Whether the first line ends in some version of HTTP, rather than in junk.
fn names_http(bytes: &[u8]) -> bool {
    let line = bytes.split(|&b| b == b'\r' || b == b'\n').next().unwrap_or_default();
    let last = line.rsplit(|&b| b == b' ').next().unwrap_or_default();
    last.starts_with(b"HTTP/")
}

/// Bytes of the request as a refusal may show them: visible ASCII, and not many.
fn quoted(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(MAX_QUOTED)];
    let more = if bytes.len() > MAX_QUOTED { "..." } else { "" };
    format!("{}{more}", shown.escape_ascii())
}

#[cfg(test)]
mod tests;
