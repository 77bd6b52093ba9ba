//! The BRIDGE request, by which a backend registers for a set of host names, and the answers of the
//! proxy (`doc/protocol.md`, "BRIDGE").

use httparse::{EMPTY_HEADER, Header, Status};

use super::extensions::{self, BackendToken, Extensions};
use super::hostkey::{HostKey, KeyError, NamedKey};
use super::instance::{INSTANCE, INSTANCE_FORM, InstanceName};
use super::pattern;
use super::proof::{self, Nonce, RequestDigest};
use crate::http::{Limits, Predicates, predicates};

/// The acceptance of a bridge, the ping to a parked bridge, and the backend's acknowledgement of
/// [`SWITCH`].
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A client's request follows: from here on the backend is the server of this connection.
///
/// The original's bytes. RFC 9110, section 7.8, requires a `Connection: Upgrade` beside the Upgrade
/// field, but no intermediary is allowed between a bridge and the proxy, so nothing would use it.
pub const SWITCH: &[u8] = b"HTTP/1.1 101 Upgrade\r\nUpgrade: HTTP/1.1\r\n\r\n";

/// Most fields in a BRIDGE request, and so the most names and keys. This bounds the work of one
/// registration.
pub(super) const MAX_FIELDS: usize = 100;

/// Most fields in the BRIDGE request by which a program passes a bridge on to the next: a field for
/// each host and key of a PTTH request, which may have [`MAX_FIELDS`] of both, and our own.
const MAX_MOVED_FIELDS: usize = 2 * MAX_FIELDS + 50;

/// Longest path prefix, in bytes. A real one has a few segments; every bridge of a route and every
/// line of the access log repeats it.
const MAX_PREFIX: usize = 1024;

/// Most segments of a path prefix. A request is compared with the routes of all prefixes of its
/// path, so their number bounds what a backend can make a request cost.
const MAX_SEGMENTS: usize = 16;

/// Most bytes of a field that a refusal or the state of the proxy shows.
const MAX_QUOTED: usize = 64;

/// Distinguishes a BRIDGE from a client's request.
const METHOD: &[u8] = b"BRIDGE ";

/// A well-formed BRIDGE request, not yet checked against keys or settings.
#[derive(Clone, Debug, Default)]
pub struct Registration {
    /// Each once, in the form of [`pattern::parse`]. Never empty.
    pub patterns: Vec<String>,
    /// The path prefix without a final slash: `""` for `/`, `"/app"` for `/app/`.
    pub prefix: String,
    /// The keys that were sent as they are, in the order sent.
    pub keys: Vec<HostKey>,
    /// The keys that were named without their hash, in the order sent; those of them that
    /// `hostkey::prove` has found proven are in `proven`.
    pub named: Vec<NamedKey>,
    /// The keys that the backend has proven to have. The request has none.
    pub proven: Vec<HostKey>,
    /// The backend's nonce, with which it asks for the proxy's.
    pub nonce: Option<Nonce>,
    /// What the proofs are about; only with a proof.
    pub(crate) digest: Option<RequestDigest>,
    /// The backend supports the extensions, and this identifies its bridges.
    pub backend: Option<BackendToken>,
    /// The extensions that the backend says it uses; only meaningful with `backend`.
    pub uses: Extensions,
    /// What program the backend says it is, bounded and printable.
    pub agent: Option<String>,
    /// What a request must be like to come here, beside its host and path.
    pub predicates: Predicates,
    /// The name of the backend that stays the same when it comes again.
    pub instance: Option<InstanceName>,
    /// It is the deregistration of the bridges with this token.
    pub leave: Option<BackendToken>,
    /// A field shows that the request came through another proxy, so that the peer is not the
    /// backend.
    pub forwarded: bool,
    /// It came as a PTTH request (`bridge::ptth`): it is accepted with a 101.
    pub ptth: bool,
    /// Bytes of the request with the blank line. Nothing may follow it.
    pub len: usize,
}

/// Why a BRIDGE request is refused: the HTTP answer, after which the connection closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status code.
    pub status: u16,
    /// One short line of printable ASCII; quotes from the request are escaped and truncated.
    pub text: String,
}

impl Refusal {
    pub(super) fn new(status: u16, text: impl Into<String>) -> Refusal {
        Refusal { status, text: text.into() }
    }
}

/// Whether a connection's first bytes begin a BRIDGE request; `None` while that is undecided.
/// Methods are case-sensitive (RFC 9110, section 9.1).
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

/// Reads the BRIDGE request at the front of `bytes`; `Ok(None)` until it is whole.
///
/// # Errors
///
/// A refusal is final: more bytes do not change it.
pub(crate) fn parse(bytes: &[u8], limits: &Limits) -> Result<Option<Registration>, Refusal> {
    let mut storage = [EMPTY_HEADER; MAX_FIELDS];
    parse_into(&mut storage, bytes, limits)
}

/// Reads the BRIDGE request of a bridge that another program has let in.
///
/// # Errors
///
/// As [`parse`].
pub(crate) fn parse_moved(bytes: &[u8], limits: &Limits) -> Result<Option<Registration>, Refusal> {
    let mut storage = [EMPTY_HEADER; MAX_MOVED_FIELDS];
    parse_into(&mut storage, bytes, limits)
}

fn parse_into<'b>(
    storage: &mut [Header<'b>],
    bytes: &'b [u8],
    limits: &Limits,
) -> Result<Option<Registration>, Refusal> {
    if is_bridge(bytes) == Some(false) {
        return Err(Refusal::new(400, "not a BRIDGE request"));
    }
    let most = limits.fields.min(storage.len());
    let mut request = httparse::Request::new(&mut storage[..most]);
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
    let target = request.path.unwrap_or_default();
    let mut registration = Registration { prefix: prefix(target)?, len, ..Registration::default() };
    for field in request.headers.iter() {
        registration.take(field)?;
    }
    registration.check_whole(|| {
        let line = format!("BRIDGE {target} HTTP/1.1\r\n");
        digest(&line, request.headers, |field| is_host_key(field).then_some(("", field.value)))
    })?;
    if registration.patterns.is_empty() {
        return Err(Refusal::new(404, "no Host: a BRIDGE names the hosts it serves"));
    }
    Ok(Some(registration))
}

impl Registration {
    /// Checks what depends on several fields, once all of them have been taken. `digest` makes what
    /// proofs are about.
    pub(super) fn check_whole(
        &mut self,
        digest: impl FnOnce() -> RequestDigest,
    ) -> Result<(), Refusal> {
        if !self.named.is_empty() && self.nonce.is_none() {
            let text = format!("a Host-Key without its hash comes with a {}", proof::NONCE);
            return Err(Refusal::new(400, text));
        }
        if self.named.iter().any(NamedKey::has_proof) {
            self.digest = Some(digest());
        }
        match (self.backend, self.leave) {
            (Some(backend), Some(leave)) if backend != leave => {
                Err(Refusal::new(400, "a backend cannot deregister another"))
            }
            _ => Ok(()),
        }
    }

    /// The methods that the backend takes; if it names none, it takes all.
    pub(super) fn methods(&self) -> &[String] {
        self.predicates.methods()
    }

    /// Unknown fields are ignored, as in any request.
    pub(super) fn take(&mut self, field: &Header<'_>) -> Result<(), Refusal> {
        let name = field.name;
        if name.eq_ignore_ascii_case("Host") {
            self.take_host(field.value)
        } else if is_host_key(field) {
            self.take_key(field.value)
                .map_err(|bad| Refusal::new(400, format!("bad Host-Key: {bad}")))
        } else if name.eq_ignore_ascii_case(proof::NONCE) {
            take_once(&mut self.nonce, Nonce::parse(field.value), proof::NONCE, DIGITS_FORM)
        } else if name.eq_ignore_ascii_case("Expect") {
            if field.value.eq_ignore_ascii_case(b"100-continue") {
                return Ok(());
            }
            // RFC 9110, section 10.1.1: the only expectation there is.
            Err(Refusal::new(417, "only Expect: 100-continue is understood"))
        } else if name.eq_ignore_ascii_case(extensions::BACKEND) {
            let sent = BackendToken::parse(field.value);
            take_once(&mut self.backend, sent, extensions::BACKEND, DIGITS_FORM)
        } else if name.eq_ignore_ascii_case(extensions::LEAVE) {
            let sent = BackendToken::parse(field.value);
            take_once(&mut self.leave, sent, extensions::LEAVE, DIGITS_FORM)
        } else if name.eq_ignore_ascii_case(extensions::EXTENSIONS) {
            self.uses = self.uses | Extensions::parse(field.value);
            Ok(())
        } else if name.eq_ignore_ascii_case(extensions::AGENT) {
            self.agent = Some(quoted(field.value)).filter(|agent| !agent.is_empty());
            Ok(())
        } else if name.eq_ignore_ascii_case(INSTANCE) {
            let sent = InstanceName::parse(field.value);
            take_once(&mut self.instance, sent, INSTANCE, INSTANCE_FORM)
        } else if begins(name, "Content-") || name.eq_ignore_ascii_case("Transfer-Encoding") {
            let name = quoted(name.as_bytes());
            Err(Refusal::new(501, format!("a BRIDGE has no body: {name} is not supported")))
        } else if begins(name, predicates::PREFIX) {
            let shown = || quoted(name.as_bytes());
            match self.predicates.take(name, field.value) {
                None => Err(Refusal::new(501, format!("{} is not supported", shown()))),
                Some(taken) => {
                    taken.map_err(|bad| Refusal::new(400, format!("bad {}: {bad}", shown())))
                }
            }
        } else {
            self.forwarded |= shows_proxy(name);
            Ok(())
        }
    }

    pub(super) fn take_key(&mut self, value: &[u8]) -> Result<(), KeyError> {
        if NamedKey::is_one(value) {
            self.named.push(NamedKey::parse(value)?.0);
        } else {
            self.keys.push(HostKey::parse(value)?);
        }
        Ok(())
    }

    pub(super) fn take_host(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let pattern = pattern::parse(value)
            .map_err(|bad| Refusal::new(400, format!("bad Host '{}': {bad}", quoted(value))))?;
        if !self.patterns.contains(&pattern) {
            self.patterns.push(pattern);
        }
        Ok(())
    }
}

/// What a token and a nonce must be, for messages.
const DIGITS_FORM: &str = "it is 32 lower-case hex digits";

/// Takes the value of a field that may come once. It may be a secret, so a refusal does not quote it.
fn take_once<T>(
    place: &mut Option<T>,
    sent: Option<T>,
    name: &str,
    form: &str,
) -> Result<(), Refusal> {
    let Some(sent) = sent else {
        return Err(Refusal::new(400, format!("bad {name}: {form}")));
    };
    if place.replace(sent).is_some() {
        return Err(Refusal::new(400, format!("{name} is given twice")));
    }
    Ok(())
}

pub(super) fn is_host_key(field: &Header<'_>) -> bool {
    field.name.eq_ignore_ascii_case("Host-Key")
}

/// The digest that proofs are made over: of the request as it was before they were put in. `key_in`
/// finds the key in a field's value, and what is before it.
pub(super) fn digest<'b>(
    line: &str,
    fields: &[Header<'b>],
    key_in: impl Fn(&Header<'b>) -> Option<(&'b str, &'b [u8])>,
) -> RequestDigest {
    let mut text = line.as_bytes().to_vec();
    for field in fields {
        let key = key_in(field).filter(|(_, key)| NamedKey::is_one(key));
        let without = key.and_then(|(before, key)| Some((before, NamedKey::parse(key).ok()?.1)));
        text.extend_from_slice(field.name.as_bytes());
        text.extend_from_slice(b": ");
        match &without {
            Some((before, signed)) => {
                text.extend_from_slice(before.as_bytes());
                text.extend_from_slice(signed.as_bytes());
            }
            None => text.extend_from_slice(field.value),
        }
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    RequestDigest::of(&text)
}

/// The target as a path prefix, without a final slash. It is compared as text with what clients
/// send, so any byte that a client's path may have is accepted.
pub(crate) fn prefix(target: &str) -> Result<String, Refusal> {
    let path = |b: u8| b.is_ascii_graphic() && b != b'?' && b != b'#';
    if !target.starts_with('/') || !target.bytes().all(path) {
        return Err(Refusal::new(400, "the target of a BRIDGE is a path, such as / or /app"));
    }
    if target.len() > MAX_PREFIX {
        return Err(Refusal::new(414, "the path prefix is too long"));
    }
    let prefix = target.trim_end_matches('/');
    if prefix.matches('/').count() > MAX_SEGMENTS {
        return Err(Refusal::new(414, "the path prefix has more than 16 segments"));
    }
    Ok(prefix.to_owned())
}

/// Fields that only a proxy adds: with one of them the connection's peer is that proxy and not the
/// backend.
pub(crate) fn shows_proxy(name: &str) -> bool {
    begins(name, "X-Forwarded-")
        || ["Forwarded", "Via", "X-Real-IP"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

pub(super) fn begins(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Whether a line ends without CR. The parser accepts that, but a proxy in front may see one line
/// where we see two (RFC 9112, section 2.2, allows refusing it).
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

/// HTTP/1.0 has no 1xx answers (RFC 9110, section 15.2), which the handshake needs.
fn wrong_version() -> Refusal {
    Refusal::new(505, "a BRIDGE is an HTTP/1.1 request")
}

/// Whether the first line ends in some version of HTTP.
fn names_http(bytes: &[u8]) -> bool {
    let line = bytes.split(|&b| b == b'\r' || b == b'\n').next().unwrap_or_default();
    let last = line.rsplit(|&b| b == b' ').next().unwrap_or_default();
    last.starts_with(b"HTTP/")
}

/// Bytes of the request as they may be shown: printable ASCII, and not many.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(MAX_QUOTED)];
    let more = if bytes.len() > MAX_QUOTED { "..." } else { "" };
    format!("{}{more}", shown.escape_ascii())
}

#[cfg(test)]
mod tests;
