//! Field names that matter to a proxy.

/// What a field name means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// Passed on unchanged.
    Other,
    /// `Host` (RFC 9110, section 7.2).
    Host,
    /// `Connection` (RFC 9110, section 7.6.1).
    Connection,
    /// `Content-Length` (RFC 9110, section 8.6).
    ContentLength,
    /// `Transfer-Encoding` (RFC 9112, section 6.1).
    TransferEncoding,
    /// `Upgrade` (RFC 9110, section 7.8).
    Upgrade,
    /// `Expect` (RFC 9110, section 10.1.1).
    Expect,
    /// `Trailer` (RFC 9110, section 6.6.2).
    Trailer,
    /// `Keep-Alive`: for one connection; in a response it tells how long that stays open.
    KeepAlive,
    /// `Authorization` and `Proxy-Authorization`, which can authenticate a whole connection (RFC
    /// 4559).
    Credentials,
    /// `WWW-Authenticate` and `Proxy-Authenticate`, which can request that.
    Challenge,
    /// `X-Forwarded-For`.
    ForwardedFor,
    /// `X-Forwarded-Proto`.
    ForwardedProto,
    /// `X-Forwarded-Host`.
    ForwardedHost,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// Other fields about the origin of a request: `X-Real-IP`, other `X-Forwarded-*`.
    Claim,
    /// `X-Request-Start`: when the first proxy got the request.
    RequestStart,
    /// `X-Request-Id`.
    RequestId,
    /// `Max-Forwards` (RFC 9110, section 7.6.2).
    MaxForwards,
    /// `TE` (RFC 9110, section 10.1.4).
    Te,
    /// For one connection only, and not used here: `Proxy-Connection`, `HTTP2-Settings`.
    HopByHop,
    /// Never passed on, see [`classify`].
    Reserved,
}

/// Classifies a field name. Length and first letter leave at most two candidates, so most names are
/// not compared at all.
///
/// [`Name::Reserved`] are: `Cloudbridge-*`, the proxy's own; `Proxy`, which CGI-like backends take
/// for the setting of their outgoing proxy (CVE-2016-5385) and which no proper client sends; and
/// any name that equals one of ours when `_` is read as `-`, because CGI-like backends (Rack, WSGI)
/// cannot tell the two apart, and `X_Forwarded_For` would override the proxy's field.
pub(super) fn classify(name: &str) -> Name {
    let name = name.as_bytes();
    let Some(first) = name.first() else { return Name::Other };
    let (known, meaning): (&[u8], Name) = match (name.len(), first.to_ascii_lowercase()) {
        (2, b't') => (b"te", Name::Te),
        (4, b'h') => (b"host", Name::Host),
        (5, b'p') => (b"proxy", Name::Reserved),
        (6, b'e') => (b"expect", Name::Expect),
        (7, b'u') => (b"upgrade", Name::Upgrade),
        (7, b't') => (b"trailer", Name::Trailer),
        (9, b'f') => (b"forwarded", Name::Forwarded),
        (9, b'x') => (b"x-real-ip", Name::Claim),
        (10, b'c') => (b"connection", Name::Connection),
        (10, b'k') => (b"keep-alive", Name::KeepAlive),
        (12, b'm') => (b"max-forwards", Name::MaxForwards),
        (12, b'x') => (b"x-request-id", Name::RequestId),
        (13, b'a') => (b"authorization", Name::Credentials),
        (14, b'c') => (b"content-length", Name::ContentLength),
        (14, b'h') => (b"http2-settings", Name::HopByHop),
        (15, b'x') if matches!(name[2], b'r' | b'R') => (b"x-request-start", Name::RequestStart),
        (15, b'x') => (b"x-forwarded-for", Name::ForwardedFor),
        (16, b'x') => (b"x-forwarded-host", Name::ForwardedHost),
        (16, b'w') => (b"www-authenticate", Name::Challenge),
        (16, b'p') => (b"proxy-connection", Name::HopByHop),
        (17, b't') => (b"transfer-encoding", Name::TransferEncoding),
        (17, b'x') => (b"x-forwarded-proto", Name::ForwardedProto),
        (18, b'p') => (b"proxy-authenticate", Name::Challenge),
        (19, b'p') => (b"proxy-authorization", Name::Credentials),
        (_, b'c' | b'x') => return by_prefix(name),
        _ => return Name::Other,
    };
    if same_letters(name, known) {
        meaning
    } else if begins(name, known) {
        // Equal except for a `_`.
        Name::Reserved
    } else {
        by_prefix(name)
    }
}

/// Names that are known by their prefix.
fn by_prefix(name: &[u8]) -> Name {
    if begins(name, b"cloudbridge-") {
        Name::Reserved
    } else if !begins(name, b"x-forwarded-") {
        Name::Other
    } else if memchr::memchr(b'_', name).is_some() {
        Name::Reserved
    } else {
        Name::Claim
    }
}

/// Whether a Connection field may remove the field `name` from the message.
///
/// RFC 9110, section 7.6.1, requires removing every field that Connection names, and forbids
/// senders to name one that is meant for all recipients. A sender that does so tries to remove what
/// a proxy in front has added about it, or the framing of the body; so these fields are kept.
pub(super) fn may_be_named(name: &str) -> bool {
    let bytes = name.as_bytes();
    match classify(name) {
        Name::Other => {
            !(spells(bytes, b"cookie")
                || spells(bytes, b"set-cookie")
                || spells(bytes, b"cache-control")
                || spells(bytes, b"via")
                || begins(bytes, b"content-"))
        }
        Name::Connection
        | Name::KeepAlive
        | Name::Upgrade
        | Name::Trailer
        | Name::Te
        | Name::HopByHop
        | Name::Reserved => true,
        _ => false,
    }
}

/// A byte of a field name for comparison: in lower case, and with `_` read as `-`.
pub(super) const fn fold(b: u8) -> u8 {
    if b == b'_' { b'-' } else { b.to_ascii_lowercase() }
}

/// Whether two names of the same length are equal except for case. `lower` has only lower-case
/// letters, digits and dashes.
///
/// In a token, setting bit 5 turns only the capital into one of these, so no table is needed; and
/// without an early return the compiler vectorises the loop.
fn same_letters(name: &[u8], lower: &[u8]) -> bool {
    name.iter().zip(lower).fold(0, |differs, (n, l)| differs | ((n | 0x20) ^ l)) == 0
}

/// Whether `name` equals `lower`, with [`fold`].
fn spells(name: &[u8], lower: &[u8]) -> bool {
    name.len() == lower.len() && begins(name, lower)
}

fn begins(name: &[u8], lower: &[u8]) -> bool {
    name.len() >= lower.len() && name.iter().zip(lower).all(|(n, l)| fold(*n) == *l)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_found_whatever_their_case() {
        for (name, meaning) in [
            ("TE", Name::Te),
            ("Max-forwards", Name::MaxForwards),
            ("hOST", Name::Host),
            ("Expect", Name::Expect),
            ("UPGRADE", Name::Upgrade),
            ("Trailer", Name::Trailer),
            ("Forwarded", Name::Forwarded),
            ("X-Request-Id", Name::RequestId),
            ("X-Request-Start", Name::RequestStart),
            ("X-Real-IP", Name::Claim),
            ("Connection", Name::Connection),
            ("Keep-Alive", Name::KeepAlive),
            ("authorization", Name::Credentials),
            ("Proxy-Authorization", Name::Credentials),
            ("WWW-Authenticate", Name::Challenge),
            ("Proxy-Authenticate", Name::Challenge),
            ("CONTENT-length", Name::ContentLength),
            ("Transfer-Encoding", Name::TransferEncoding),
            ("X-Forwarded-For", Name::ForwardedFor),
            ("X-Forwarded-Proto", Name::ForwardedProto),
            ("X-Forwarded-Host", Name::ForwardedHost),
            ("X-Forwarded-Port", Name::Claim),
            ("Proxy-Connection", Name::HopByHop),
            ("HTTP2-Settings", Name::HopByHop),
        ] {
            assert_eq!(classify(name), meaning, "{name}");
        }
    }

    #[test]
    fn other_names_of_the_same_length_are_others() {
        for name in [
            "Via",
            "Hosts",
            "Accept",
            "Accept-Encoding",
            "User-Agent",
            "Content-Type",
            "X-Forwarded",
            "X-Real-Ips",
            "X-Request-Ip",
            "X-Request-Stars",
            "X_Real",
            "Cloud_Bridge",
            "Ce",
            "A",
            "",
        ] {
            assert_eq!(classify(name), Name::Other, "{name}");
        }
    }

    #[test]
    fn names_that_backends_could_take_for_ours_are_reserved() {
        for name in [
            "Cloudbridge-Id",
            "CLOUDBRIDGE-",
            "cloudbridge_x",
            "Proxy",
            "X_Request_Id",
            "X-Request_Start",
            "X_Forwarded-For",
            "X-Forwarded_Port",
            "x_real_ip",
            "Content_Length",
        ] {
            assert_eq!(classify(name), Name::Reserved, "{name}");
        }
    }

    #[test]
    fn connection_cannot_remove_end_to_end_fields() {
        for name in [
            "Host",
            "content-length",
            "Content-Type",
            "Transfer-Encoding",
            "X-Forwarded-For",
            "Cookie",
        ] {
            assert!(!may_be_named(name), "{name}");
        }
        for name in ["X-Trace", "TE", "Keep-Alive"] {
            assert!(may_be_named(name), "{name}");
        }
    }
}
