//! Host patterns: what a `Host` field of a BRIDGE request may say.
//!
//! A pattern is an exact name (`a.example.com`), `*.` and a name, which stands for every name below
//! it, or `*` alone, which stands for every name (`doc/protocol.md`, "BRIDGE").

use std::fmt;
use std::net::Ipv6Addr;

/// Longest host name, in bytes (RFC 1035 section 2.3.4: 255 on the wire, which is 253 as text).
pub const MAX_NAME: usize = 253;

/// Longest label between two dots, in bytes (RFC 1035 section 2.3.4).
pub const MAX_LABEL: usize = 63;

/// What is wrong with a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPattern {
    /// Nothing before the port.
    Empty,
    /// A name of more than [`MAX_NAME`] bytes.
    TooLong,
    /// A label that is empty or has more than [`MAX_LABEL`] bytes.
    Label,
    /// A byte that no host name has.
    Character,
    /// A `*` that is not the whole first label.
    Wildcard,
    /// Square brackets that do not hold an IPv6 address.
    Address,
    /// A colon followed by something that is not a port.
    Port,
}

impl fmt::Display for BadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadPattern::Empty => "the name is empty",
            BadPattern::TooLong => "the name is longer than 253 bytes",
            BadPattern::Label => "a label is empty or longer than 63 bytes",
            BadPattern::Character => "only letters, digits, '-', '_' and '.' make a name",
            BadPattern::Wildcard => "'*' stands alone or as the whole first label",
            BadPattern::Address => "this is no IPv6 address",
            BadPattern::Port => "this is no port",
        })
    }
}

impl std::error::Error for BadPattern {}

/// Checks a pattern and gives it in the one form that is compared: lower case, without port and
/// without the dot that may end a full name.
///
/// Names are taken as clients send them, so an underscore is a letter like any other, and where
/// hyphens stand is nobody's business here.
///
/// ```
/// use cloudbridge::bridge::pattern;
/// assert_eq!(pattern::parse(b"WWW.Example.com:8080").as_deref(), Ok("www.example.com"));
/// assert_eq!(pattern::parse(b"*.Example.com.").as_deref(), Ok("*.example.com"));
/// assert!(pattern::parse(b"www.*.com").is_err());
/// ```
pub fn parse(text: &[u8]) -> Result<String, BadPattern> {
    if text.first() == Some(&b'[') {
        return address(text);
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
    check_name(name.strip_prefix(b"*.").unwrap_or(name))?;
    Ok(lower(name))
}

/// `[` IPv6 address `]`, with or without a port (RFC 3986 section 3.2.2). The text is kept as it is,
/// because that is what a client's Host is compared with.
fn address(text: &[u8]) -> Result<String, BadPattern> {
    let close = text.iter().position(|&b| b == b']').ok_or(BadPattern::Address)?;
    let inside = std::str::from_utf8(&text[1..close]).map_err(|_| BadPattern::Address)?;
    inside.parse::<Ipv6Addr>().map_err(|_| BadPattern::Address)?;
    match &text[close + 1..] {
        [] => {}
        [b':', port @ ..] => check_port(port)?,
        _ => return Err(BadPattern::Port),
    }
    Ok(lower(&text[..=close]))
}

/// A port may be empty (RFC 3986 section 3.2.3); its value is ignored, but junk is not a port.
fn check_port(port: &[u8]) -> Result<(), BadPattern> {
    let value = port.iter().try_fold(0u32, |value, &digit| {
        if !digit.is_ascii_digit() {
            return None;
        }
        let value = value * 10 + u32::from(digit - b'0');
        (value <= u32::from(u16::MAX)).then_some(value)
    });
    value.map(|_| ()).ok_or(BadPattern::Port)
}

fn check_name(name: &[u8]) -> Result<(), BadPattern> {
    if name.is_empty() {
        return Err(BadPattern::Empty);
    }
    if name.contains(&b'*') {
        return Err(BadPattern::Wildcard);
    }
    if name.len() > MAX_NAME {
        return Err(BadPattern::TooLong);
    }
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !name.iter().all(plain) {
        return Err(BadPattern::Character);
    }
    if name.split(|&b| b == b'.').any(|label| label.is_empty() || label.len() > MAX_LABEL) {
        return Err(BadPattern::Label);
    }
    Ok(())
}

/// The bytes, known to be ASCII, in lower case.
fn lower(ascii: &[u8]) -> String {
    ascii.iter().map(|b| char::from(b.to_ascii_lowercase())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn good(text: &str, expected: &str) {
        assert_eq!(parse(text.as_bytes()).as_deref(), Ok(expected), "{text}");
    }

    #[track_caller]
    fn bad(text: &[u8], expected: BadPattern) {
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
        bad(b"a.test:65536", BadPattern::Port);
        bad(b"a.test:99999999999999999999", BadPattern::Port);
        bad(b"a.test:80x", BadPattern::Port);
        bad(b"a.test:80:80", BadPattern::Port);
        bad(b"a.test:-1", BadPattern::Port);
    }

    #[test]
    fn the_final_dot_is_dropped() {
        good("a.test.", "a.test");
        good("a.test.:80", "a.test");
        good("*.a.test.", "*.a.test");
        bad(b".", BadPattern::Label);
        bad(b"a..", BadPattern::Label);
        bad(b"*..", BadPattern::Empty);
    }

    #[test]
    fn a_star_is_the_first_label_or_everything() {
        good("*", "*");
        good("*.com", "*.com");
        good("*.B.com", "*.b.com");
        bad(b"*.", BadPattern::Wildcard);
        bad(b"**", BadPattern::Wildcard);
        bad(b"*.*", BadPattern::Wildcard);
        bad(b"*.*.com", BadPattern::Wildcard);
        bad(b"*b.com", BadPattern::Wildcard);
        bad(b"b*.com", BadPattern::Wildcard);
        bad(b"a.*.com", BadPattern::Wildcard);
        bad(b"a.*", BadPattern::Wildcard);
        bad(b".*", BadPattern::Wildcard);
    }

    #[test]
    fn labels_and_names_are_bounded() {
        good(&"a".repeat(63), &"a".repeat(63));
        bad("a".repeat(64).as_bytes(), BadPattern::Label);
        let longest = format!("{}b", "a.".repeat(126));
        assert_eq!(longest.len(), MAX_NAME);
        good(&longest, &longest);
        good(&format!("*.{longest}"), &format!("*.{longest}"));
        bad(format!("{longest}c").as_bytes(), BadPattern::TooLong);
        bad(b"a..b", BadPattern::Label);
        bad(b".a", BadPattern::Label);
        bad(b"", BadPattern::Empty);
        bad(b":80", BadPattern::Empty);
    }

    #[test]
    fn nothing_else_is_a_name() {
        for text in ["a b", "a,b", "a/b", "user@a", "a%20b", "a\tb", "a\0b", "bücher.example", "a]"]
        {
            bad(text.as_bytes(), BadPattern::Character);
        }
        bad(b"\xff\xfe", BadPattern::Character);
    }

    #[test]
    fn ipv6_addresses_keep_their_brackets() {
        good("[::1]", "[::1]");
        good("[2001:DB8::A]:8079", "[2001:db8::a]");
        bad(b"[::1", BadPattern::Address);
        bad(b"[]", BadPattern::Address);
        bad(b"[a.test]", BadPattern::Address);
        bad(b"[::1%eth0]", BadPattern::Address);
        bad(b"[::1]x", BadPattern::Port);
        bad(b"[::1]:x", BadPattern::Port);
        bad(b"[\xff]", BadPattern::Address);
    }
}
