//! The name that a listener has for systemd, which keeps its sockets for the next process, and for
//! a program that replaces this one.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::config::Address;

/// What these names begin with. What else systemd may once keep is to begin with `cloudbridge/`, too.
const KIND: &str = "cloudbridge/listener/";

/// Longest name that systemd takes, in bytes (FDNAME_MAX).
const LONGEST: usize = 255;

/// How many characters of a longer name stay readable, before a digest of it.
const READABLE: usize = 160;

/// The name of the listener at this address, which accepts `what`. The address tells listeners
/// apart, unless the kernel has chosen the port.
pub(super) fn of(address: &Address, what: &str) -> String {
    let mut name = KIND.to_owned();
    encode(&address.to_string(), &mut name);
    if address.is_any_port() {
        name.push(',');
        encode(what, &mut name);
    }
    if name.len() > LONGEST {
        let digest = Sha256::digest(&name);
        name.truncate(READABLE);
        name.push('~');
        digest.iter().for_each(|byte| _ = write!(name, "{byte:02x}"));
    }
    name
}

/// Whether this is the name of a listener.
pub(super) fn is_one(name: &str) -> bool {
    name.starts_with(KIND)
}

/// Where the listener of this name is, if it is a Unix socket: the socket itself knows the name that
/// it was made under, and not where its file is now.
pub(super) fn unix_place(name: &str) -> Option<String> {
    let encoded = name.strip_prefix(KIND)?.strip_prefix("unix%3A")?;
    let (mut path, mut rest) = (Vec::new(), encoded.as_bytes());
    while let [first, after @ ..] = rest {
        let (byte, after) = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                (u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?, after)
            }
            _ => (*first, after),
        };
        path.push(byte);
        rest = after;
    }
    Some(format!("unix:{}", String::from_utf8(path).ok()?))
}

/// Writes everything that might mean something to systemd, a colon above all, as `%XX`.
fn encode(text: &str, into: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'.' | b'-' | b'_' | b'*' | b'/' | b'[' | b']' => into.push(byte.into()),
            byte if byte.is_ascii_alphanumeric() => into.push(byte.into()),
            byte => _ = write!(into, "%{byte:02X}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn name(address: &str, what: &str) -> String {
        of(&Address::parse(address).unwrap(), what)
    }

    #[test]
    fn names_are_readable_and_have_no_colon() {
        assert_eq!(name("*:80", "clients"), "cloudbridge/listener/*%3A80");
        assert_eq!(name("[::1]:80", "bridges"), "cloudbridge/listener/[%3A%3A1]%3A80");
        assert_eq!(name("a.test:0", "clients"), "cloudbridge/listener/a.test%3A0,clients");
        assert_ne!(name("*:0", "agent checks"), name("*:0", "admin"));
        assert_eq!(
            of(&Address::Unix("/run/a b\u{e9}".into()), ""),
            "cloudbridge/listener/unix%3A/run/a%20b%C3%A9"
        );
        let place = unix_place("cloudbridge/listener/unix%3A/run/a%20b%C3%A9");
        assert_eq!(place.as_deref(), Some("unix:/run/a b\u{e9}"));
        assert_eq!(unix_place(&name("*:80", "")), None);
        assert!(is_one(&name("*:80", "")) && !is_one("cloudbridge/bridge/1") && !is_one("web"));
    }

    #[test]
    fn long_names_are_still_different() {
        let host = |last: &str| format!("{}{last}:0", "host.".repeat(49));
        let [one, other] = [host("a"), host("b")].map(|host| name(&host, "clients and bridges"));
        assert!(one.len() <= LONGEST && other.len() <= LONGEST, "{one}");
        assert_ne!(one, other);
        assert_eq!(one[..READABLE], other[..READABLE]);
    }
}
