//! A registration as a PTTH request: how draft-kazuho-ptth-ptth-01 has a backend open a connection
//! over which the proxy then sends requests. `doc/ptth.md` has what maps to what.
//!
//! It becomes the [`Registration`] that a BRIDGE request becomes, so nothing behind it knows the
//! difference but the one that answers.

use httparse::Header;

use super::ascii::from_hex;
use super::extensions::Extensions;
use super::request::{self, MAX_FIELDS, Refusal, Registration};
use crate::http::Framing;
use crate::http::ascii::list;
use crate::http::request::Request;

/// The upgrade token (draft, section 3.2). Compared without regard to case (RFC 9110, section 7.8).
const TOKEN: &[u8] = b"ptth";

/// The path of requests for origins, before their list (draft, section 3.1).
const WELL_KNOWN: &str = "/.well-known/ptth";

/// Lists the protocols that the backend speaks (RFC 7639).
const ALPN: &str = "ALPN";

/// HTTP/1.1 there. There is one way to write it, so it is compared as it is (RFC 7639, section 2.2).
const HTTP_1_1: &[u8] = b"http%2F1.1";

/// A host pattern, as `Host` is in a BRIDGE: there it is the proxy's own name.
const HOST: &str = "Cloudbridge-Host";

/// The scheme of `Authorization` for a host key (RFC 6750).
const BEARER: &str = "Bearer ";

/// The field line that goes with every 401 to a PTTH request (RFC 9110, section 15.5.2).
pub(crate) const CHALLENGE: &str = "WWW-Authenticate: Bearer realm=\"host key\"\r\n";

/// Whether a request asks for it, rightly or not.
pub(crate) fn is_one(request: &Request<'_, '_>) -> bool {
    request.upgrade
        && request.fields.iter().any(|field| {
            field.name.eq_ignore_ascii_case("Upgrade")
                && list(field.value).any(|protocol| protocol.eq_ignore_ascii_case(TOKEN))
        })
}

/// Whether a request that comes where clients do is meant to register a backend: clients that speak of
/// `ptth` do not list protocols.
pub(crate) fn registers(request: &Request<'_, '_>) -> bool {
    is_one(request)
        && request.method == "GET"
        && request.fields.iter().any(|field| field.name.eq_ignore_ascii_case(ALPN))
}

/// Reads a whole request for which [`is_one`] holds.
///
/// # Errors
///
/// The refusal to answer. The draft names no status.
pub(crate) fn read(request: &Request<'_, '_>) -> Result<Registration, Refusal> {
    if request.method != "GET" {
        return Err(Refusal::new(400, "a PTTH request is a GET"));
    }
    if !matches!(request.framing, Framing::None | Framing::Length(0)) {
        return Err(Refusal::new(501, "a PTTH request has no body"));
    }
    if request.fields.len() > MAX_FIELDS {
        return Err(Refusal::new(431, "too many fields"));
    }
    let mut registration = Registration { ptth: true, len: request.len, ..Registration::default() };
    registration.take_scope(request)?;
    let mut seen = Seen::default();
    for field in request.fields {
        registration.take_field(field, &mut seen)?;
    }
    seen.check_protocols()?;
    registration.check_whole(|| {
        let line = format!("GET {} HTTP/1.1\r\n", request.target);
        request::digest(&line, request.fields, key_in)
    })?;
    if registration.patterns.is_empty() {
        let text = format!("no host: name origins behind {WELL_KNOWN}/, or hosts in {HOST} fields");
        return Err(Refusal::new(404, text));
    }
    Ok(registration)
}

/// Appends the answer to a backend that is let in. One that has announced itself is told the
/// extensions that the proxy supports too, as by the first `100` to a BRIDGE.
pub(crate) fn accept(announced: Option<Extensions>, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ptth\r\nALPN: ",
    );
    out.extend_from_slice(HTTP_1_1);
    out.extend_from_slice(b"\r\n");
    if let Some(listed) = announced {
        listed.line(out);
    }
    out.extend_from_slice(b"\r\n");
}

/// What is known of fields that are not part of a [`Registration`].
#[derive(Default)]
struct Seen {
    authorization: bool,
    alpn: bool,
    http_1_1: bool,
}

impl Seen {
    fn check_protocols(&self) -> Result<(), Refusal> {
        match (self.alpn, self.http_1_1) {
            (_, true) => Ok(()),
            // Draft, section 3.2: the request MUST carry it.
            (false, false) => Err(Refusal::new(400, "a PTTH request has an ALPN field")),
            (true, false) => {
                let text = "of what ALPN may list, only http%2F1.1 is spoken here";
                Err(Refusal::new(501, text))
            }
        }
    }
}

impl Registration {
    /// Takes what the target says: origins, or, as the draft leaves to the deployment, a path prefix
    /// as in a BRIDGE.
    fn take_scope(&mut self, request: &Request<'_, '_>) -> Result<(), Refusal> {
        let target = request.origin_form().concat();
        if target.contains('?') {
            return Err(Refusal::new(400, "the target of a PTTH request has no query"));
        }
        let Some(origins) = origins(&target) else {
            self.prefix = request::prefix(&target)?;
            return Ok(());
        };
        if origins.is_empty() {
            return Ok(());
        }
        if origins.split(',').count() > MAX_FIELDS {
            return Err(Refusal::new(414, "a PTTH request names at most 100 origins"));
        }
        origins.split(',').try_for_each(|origin| self.take_origin(origin))
    }

    /// Takes an origin (RFC 6454, section 6.2) that is percent-encoded. Like a Host, it is for its
    /// name on every port.
    fn take_origin(&mut self, encoded: &str) -> Result<(), Refusal> {
        let bad = |why: &str| {
            let origin = request::quoted(encoded.as_bytes());
            Refusal::new(400, format!("bad origin '{origin}': {why}"))
        };
        let origin = unescape(encoded).ok_or_else(|| bad("it is not percent-encoded ASCII"))?;
        let host = ["https://", "http://"].iter().find_map(|scheme| origin.strip_prefix(scheme));
        let host = host.ok_or_else(|| bad("it does not begin with https:// or http://"))?;
        if host.contains('*') {
            return Err(bad("an origin has no wildcard; a Cloudbridge-Host may have one"));
        }
        self.take_host(host.as_bytes())
    }

    fn take_field(&mut self, field: &Header<'_>, seen: &mut Seen) -> Result<(), Refusal> {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        // The parser of requests has read these. Host is the proxy's name.
        let is_read = ["Host", "Expect", "Transfer-Encoding"].iter().any(|name| is(name));
        if is_read || request::begins(field.name, "Content-") {
            Ok(())
        } else if is(ALPN) {
            seen.alpn = true;
            seen.http_1_1 |= list(field.value).any(|protocol| protocol == HTTP_1_1);
            Ok(())
        } else if is(HOST) {
            self.take_host(field.value)
        } else if is("Authorization") {
            if std::mem::replace(&mut seen.authorization, true) {
                return Err(Refusal::new(400, "Authorization is given twice"));
            }
            let Some((_, key)) = bearer(field.value) else {
                let text = "of Authorization, only Bearer with a host key is understood";
                return Err(Refusal::new(401, text));
            };
            self.take_key(key)
                .map_err(|bad| Refusal::new(400, format!("bad key in Authorization: {bad}")))
        } else {
            self.take(field)
        }
    }
}

/// The list of origins of a target that has one, percent-encoded: the last segment.
fn origins(target: &str) -> Option<&str> {
    let rest = target.strip_prefix(WELL_KNOWN)?;
    if rest.is_empty() {
        return Some(rest);
    }
    let list = rest.strip_prefix('/')?;
    Some(list.strip_suffix('/').unwrap_or(list))
}

/// Where a proof may be: in a Host-Key as in a BRIDGE, and in Authorization.
fn key_in<'b>(field: &Header<'b>) -> Option<(&'b str, &'b [u8])> {
    if request::is_host_key(field) {
        Some(("", field.value))
    } else if field.name.eq_ignore_ascii_case("Authorization") {
        bearer(field.value)
    } else {
        None
    }
}

/// Splits credentials into their scheme, with its space, and the key. Schemes are compared without
/// regard to case (RFC 9110, section 11.1).
pub(crate) fn bearer(value: &[u8]) -> Option<(&str, &[u8])> {
    let (scheme, key) = value.split_at_checked(BEARER.len())?;
    let scheme = str::from_utf8(scheme).ok()?;
    scheme.eq_ignore_ascii_case(BEARER).then_some((scheme, key))
}

/// Decodes percent-encoding (RFC 3986, section 2.1) to printable ASCII.
fn unescape(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut decoded = parts.next()?.to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        let [byte] = from_hex(digits)?;
        decoded.push(char::from(byte));
        decoded.push_str(rest);
    }
    decoded.bytes().all(|b| b.is_ascii_graphic()).then_some(decoded)
}

#[cfg(test)]
mod tests;
