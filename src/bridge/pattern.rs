//! Host patterns, as in the `Host` fields of a BRIDGE request.
//!
//! A pattern is an exact name (`a.example.com`), `*.` and a name, which matches every name below
//! it, or `*` alone, which matches every name (`doc/protocol.md`, "BRIDGE").

use std::fmt;
use std::net::Ipv6Addr;

use crate::http::host_name::{self, HostNameError};

/// Most labels of a wildcard, the `*` included. A request is looked up under every wildcard that
/// matches its name, so their number bounds what a backend can make a request cost.
pub const MAX_WILDCARD_LABELS: usize = 16;

/// Why a pattern is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternError {
    /// The name without its wildcard and port is not a host name.
    Name(HostNameError),
    /// A `*` that is not the whole first label.
    Wildcard,
    /// Square brackets that do not hold an IPv6 address.
    Address,
    /// A colon followed by something that is not a port.
    Port,
    /// A URL, which has more than a name.
    Url,
    /// A wildcard with more than [`MAX_WILDCARD_LABELS`].
    Deep,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PatternError::Name(error) => error.fmt(f),
            PatternError::Wildcard => f.write_str("'*' must be alone or the whole first label"),
            PatternError::Address => f.write_str("the brackets do not hold an IPv6 address"),
            PatternError::Port => f.write_str("the port is not a number up to 65535"),
            PatternError::Deep => {
                write!(f, "a wildcard has at most {MAX_WILDCARD_LABELS} labels")
            }
            PatternError::Url => f.write_str("this is a URL; only its host is needed"),
        }
    }
}

impl std::error::Error for PatternError {}

/// Checks a pattern and normalises it: lower case, without a port and without a final dot.
///
/// ```
/// use cloudbridge::bridge::pattern;
/// assert_eq!(pattern::parse(b"WWW.Example.com:8080").as_deref(), Ok("www.example.com"));
/// assert_eq!(pattern::parse(b"*.Example.com.").as_deref(), Ok("*.example.com"));
/// assert!(pattern::parse(b"www.*.com").is_err());
/// ```
pub fn parse(text: &[u8]) -> Result<String, PatternError> {
    if text.first() == Some(&b'[') {
        return address(text);
    }
    if text.windows(3).any(|part| part == b"://") {
        return Err(PatternError::Url);
    }
    let (name, port) = match text.iter().position(|&b| b == b':') {
        Some(colon) => (&text[..colon], &text[colon + 1..]),
        None => (text, &text[text.len()..]),
    };
    check_port(port)?;
    if name == b"*" {
        return Ok("*".to_owned());
    }
    let name = match name {
        [rest @ .., b'.'] if !rest.is_empty() => rest,
        whole => whole,
    };
    let rest = name.strip_prefix(b"*.").unwrap_or(name);
    if rest.contains(&b'*') {
        return Err(PatternError::Wildcard);
    }
    host_name::check(rest).map_err(PatternError::Name)?;
    let dots = name.iter().filter(|byte| **byte == b'.').count();
    if rest.len() < name.len() && dots >= MAX_WILDCARD_LABELS {
        return Err(PatternError::Deep);
    }
    Ok(lower(name))
}

/// `[` IPv6 address `]`, with or without a port (RFC 3986, section 3.2.2). The text is kept,
/// because a client's Host is compared with it.
fn address(text: &[u8]) -> Result<String, PatternError> {
    let close = text.iter().position(|&b| b == b']').ok_or(PatternError::Address)?;
    let inside = std::str::from_utf8(&text[1..close]).map_err(|_| PatternError::Address)?;
    inside.parse::<Ipv6Addr>().map_err(|_| PatternError::Address)?;
    match &text[close + 1..] {
        [] => {}
        [b':', port @ ..] => check_port(port)?,
        _ => return Err(PatternError::Port),
    }
    Ok(lower(&text[..=close]))
}

/// A port may be empty (RFC 3986, section 3.2.3). Its value is checked and ignored.
fn check_port(port: &[u8]) -> Result<(), PatternError> {
    let value = port.iter().try_fold(0u16, |value, &digit| {
        let digit = char::from(digit).to_digit(10)? as u16;
        value.checked_mul(10)?.checked_add(digit)
    });
    value.map(drop).ok_or(PatternError::Port)
}

fn lower(ascii: &[u8]) -> String {
    ascii.iter().map(|b| char::from(b.to_ascii_lowercase())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::host_name::MAX_NAME;

    #[track_caller]
    fn good(text: &str, expected: &str) {
        assert_eq!(parse(text.as_bytes()).as_deref(), Ok(expected), "{text}");
    }

    #[track_caller]
    fn bad(text: &[u8], expected: PatternError) {
        assert_eq!(parse(text), Err(expected), "{}", text.escape_ascii());
    }

    #[test]
    fn names_come_out_in_lower_case() {
        good("a.example.com", "a.example.com");
        good("A.Example.COM", "a.example.com");
        good("localhost", "localhost");
        good("under_score.x-y.test", "under_score.x-y.test");
        good("xn--bcher-kva.example", "xn--bcher-kva.example");
        good("127.0.0.1", "127.0.0.1");
    }

    #[test]
    fn ports_are_dropped() {
        good("a.test:80", "a.test");
        good("a.test:65535", "a.test");
        good("a.test:", "a.test");
        good("*:8080", "*");
        good("*.b.test:8080", "*.b.test");
        bad(b"a.test:65536", PatternError::Port);
        bad(b"a.test:99999999999999999999", PatternError::Port);
        bad(b"a.test:80x", PatternError::Port);
        bad(b"a.test:80:80", PatternError::Port);
        bad(b"a.test:-1", PatternError::Port);
    }

    #[test]
    fn a_url_is_no_name() {
        bad(b"http://a.test", PatternError::Url);
        bad(b"https://a.test:443/x", PatternError::Url);
    }

    #[test]
    fn the_final_dot_is_dropped() {
        good("a.test.", "a.test");
        good("a.test.:80", "a.test");
        good("*.a.test.", "*.a.test");
        bad(b".", PatternError::Name(HostNameError::Label));
        bad(b"a..", PatternError::Name(HostNameError::Label));
        bad(b"*..", PatternError::Name(HostNameError::Empty));
    }

    #[test]
    fn a_star_is_the_first_label_or_everything() {
        good("*", "*");
        good("*.com", "*.com");
        good("*.B.com", "*.b.com");
        bad(b"*.", PatternError::Wildcard);
        bad(b"**", PatternError::Wildcard);
        bad(b"*.*", PatternError::Wildcard);
        bad(b"*.*.com", PatternError::Wildcard);
        bad(b"*b.com", PatternError::Wildcard);
        bad(b"b*.com", PatternError::Wildcard);
        bad(b"a.*.com", PatternError::Wildcard);
        bad(b"a.*", PatternError::Wildcard);
        bad(b".*", PatternError::Wildcard);
    }

    #[test]
    fn labels_and_names_are_bounded() {
        good(&"a".repeat(63), &"a".repeat(63));
        bad("a".repeat(64).as_bytes(), PatternError::Name(HostNameError::Label));
        let longest = format!("{}b", "a.".repeat(126));
        assert_eq!(longest.len(), MAX_NAME);
        good(&longest, &longest);
        bad(format!("{longest}c").as_bytes(), PatternError::Name(HostNameError::TooLong));
        bad(b"a..b", PatternError::Name(HostNameError::Label));
        bad(b".a", PatternError::Name(HostNameError::Label));
        bad(b"", PatternError::Name(HostNameError::Empty));
        bad(b":80", PatternError::Name(HostNameError::Empty));
    }

    #[test]
    fn a_wildcard_has_few_labels() {
        let deepest = format!("*{}", ".a".repeat(MAX_WILDCARD_LABELS - 1));
        good(&deepest, &deepest);
        good(&format!("{deepest}.:80"), &deepest);
        bad(format!("{deepest}.a").as_bytes(), PatternError::Deep);
    }

    #[test]
    fn nothing_else_is_a_name() {
        for text in ["a b", "a,b", "a/b", "user@a", "a%20b", "a\tb", "a\0b", "bücher.example", "a]"]
        {
            bad(text.as_bytes(), PatternError::Name(HostNameError::Character));
        }
        bad(b"\xff\xfe", PatternError::Name(HostNameError::Character));
    }

    #[test]
    fn ipv6_addresses_keep_their_brackets() {
        good("[::1]", "[::1]");
        good("[2001:DB8::A]:8079", "[2001:db8::a]");
        bad(b"[::1", PatternError::Address);
        bad(b"[]", PatternError::Address);
        bad(b"[a.test]", PatternError::Address);
        bad(b"[::1%eth0]", PatternError::Address);
        bad(b"[::1]x", PatternError::Port);
        bad(b"[::1]:x", PatternError::Port);
        bad(b"[\xff]", PatternError::Address);
    }
}
