//! Host names with an optional port, as in Host fields and absolute targets (RFC 9110, section
//! 4.2).

use std::net::Ipv6Addr;

use super::{ParseError, host_name};

#[derive(Debug, Clone, Copy)]
pub(super) struct Authority<'b> {
    /// Case as sent, without a final dot. An IPv6 address keeps its brackets.
    pub(super) host: &'b str,
    port: Option<u16>,
}

const BAD: ParseError = ParseError::malformed("Host is not a valid name or address");

impl<'b> Authority<'b> {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`.
    pub(super) fn parse(text: &'b str) -> Result<Self, ParseError> {
        let (host, port) = if text.starts_with('[') {
            let end = text.find(']').ok_or(BAD)?;
            text[1..end].parse::<Ipv6Addr>().map_err(|_| BAD)?;
            (&text[..=end], &text[end + 1..])
        } else {
            name(text)?
        };
        let port = match port.strip_prefix(':') {
            // RFC 3986, section 3.2.3: the port after the colon may be empty.
            Some("") => None,
            Some(digits) => Some(number(digits)?),
            None if port.is_empty() => None,
            None => return Err(BAD),
        };
        Ok(Self { host, port })
    }

    /// Whether both are equivalent; `default` is the default port.
    pub(super) fn same(&self, other: &Authority<'_>, default: u16) -> bool {
        self.host.eq_ignore_ascii_case(other.host)
            && self.port.unwrap_or(default) == other.port.unwrap_or(default)
    }
}

/// Whether a Host field may have this value: a name or an address, with or without a port (RFC 9110,
/// section 7.2).
#[must_use]
pub fn is_host(value: &str) -> bool {
    Authority::parse(value).is_ok()
}

/// Splits `text` into the name, without a final dot, and what follows from the colon on.
fn name(text: &str) -> Result<(&str, &str), ParseError> {
    // Names are short enough for a plain loop to beat memchr.
    let (name, port) = text.split_at(text.bytes().position(|b| b == b':').unwrap_or(text.len()));
    let bare = name.strip_suffix('.').unwrap_or(name);
    host_name::check(bare.as_bytes()).map_err(|_| BAD)?;
    Ok((bare, port))
}

fn number(digits: &str) -> Result<u16, ParseError> {
    /// Digits of 65535.
    const MAX_DIGITS: usize = 5;
    const BAD_PORT: ParseError =
        ParseError::malformed("the port in Host is not a number from 1 to 65535");
    if digits.len() > MAX_DIGITS || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(BAD_PORT);
    }
    let port = digits.bytes().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    u16::try_from(port).ok().filter(|port| *port > 0).ok_or(BAD_PORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_taken_without_port_and_final_dot() {
        for (text, host) in [
            ("a", "a"),
            ("Example.COM", "Example.COM"),
            ("a.b.example.com.", "a.b.example.com"),
            ("a.example:8079", "a.example"),
            ("a.example.:1", "a.example"),
            ("a.example:", "a.example"),
            ("my_app.local", "my_app.local"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("127.0.0.1:65535", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[2001:db8::2]:80", "[2001:db8::2]"),
        ] {
            assert_eq!(Authority::parse(text).map(|a| a.host), Ok(host), "{text}");
        }
    }

    #[test]
    fn malformed_host_is_refused() {
        for text in [
            "",
            ".",
            ":80",
            ".a",
            "a..b",
            "a..",
            "a b",
            "a/b",
            "a%41",
            "u@a",
            "a:0",
            "a:65536",
            "a:000080",
            "a:+1",
            "a:80:80",
            "a:8o",
            "[",
            "[::1",
            "[]",
            "[::1]x",
            "[::1%eth0]",
            "[v1.a]",
            "::1",
            "a,b",
            "*",
            "a\\b",
            "\u{e9}",
            "a?b",
            "a#b",
            "[127.0.0.1]",
        ] {
            assert!(Authority::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn labels_and_names_have_a_longest_length() {
        let label = "a".repeat(63);
        assert!(Authority::parse(&label).is_ok());
        assert!(Authority::parse(&format!("{label}a")).is_err());
        let name = format!("{label}.{label}.{label}.{}", "b".repeat(61));
        assert_eq!(name.len(), 253);
        assert!(Authority::parse(&name).is_ok());
        assert!(Authority::parse(&format!("{name}.")).is_ok());
        assert!(Authority::parse(&format!("{name}b")).is_err());
    }

    #[test]
    fn the_same_place_is_found_whatever_the_case_and_the_default_port() {
        let same = |a, b| Authority::parse(a).unwrap().same(&Authority::parse(b).unwrap(), 80);
        assert!(same("a.example", "A.Example:80"));
        assert!(same("a.example.", "a.example:"));
        assert!(!same("a.example", "a.example:8080"));
        assert!(!same("a.example", "b.example"));
    }
}
