//! Addresses to listen on, as written in the file and on the command line.

use super::values::{is_digits, quoted};
use crate::http::host_name;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// The default port, as in the original (`doc/protocol.md`, "The original command line").
pub(super) const DEFAULT_PORT: u16 = 8079;

/// An address to listen on. With port 0 the kernel chooses a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `*:8079`, `:8079` or `8079`: every address of this machine, IPv6 and IPv4.
    Any {
        /// TCP port.
        port: u16,
    },
    /// `127.0.0.1:80` or `[::1]:80`.
    Socket(SocketAddr),
    /// `www.example.com:80`, or an IPv6 address with an interface (`[fe80::1%eth0]:80`): resolved
    /// at start-up.
    Name {
        /// Without port and brackets.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// `unix:/run/cloudbridge/clients.sock`: a Unix socket, which only `listen` takes.
    Unix(PathBuf),
    /// `systemd:web`: the sockets of this name that systemd has opened and passed to the proxy
    /// (FileDescriptorName=, systemd.socket(5)).
    Passed(String),
}

/// In front of the name of a socket of systemd.
const PASSED: &str = "systemd:";

/// Longest name of such a socket, in bytes (FDNAME_MAX, systemd.socket(5)).
const PASSED_NAME: usize = 255;

impl Address {
    /// Reads an address. The default port is 8079; a bare number is a port.
    ///
    /// # Errors
    /// One sentence.
    pub fn parse(word: &str) -> Result<Address, String> {
        if is_digits(word) {
            return Ok(Address::Any { port: port(word)? });
        }
        if word.contains("://") {
            return Err(format!("{} is a URL; write only its host and port", quoted(word)));
        }
        if let Some(rest) = word.strip_prefix('[') {
            let (host, after) = rest
                .split_once(']')
                .ok_or_else(|| format!("{} has no closing bracket", quoted(word)))?;
            return v6(word, host, port_after(word, after)?);
        }
        let (host, port) = match word.split_once(':') {
            // `::1:80` is ambiguous.
            Some((_, tail)) if tail.contains(':') => {
                return Err(format!(
                    "{}: write an IPv6 address in brackets, such as [::1]:{DEFAULT_PORT}",
                    quoted(word)
                ));
            }
            Some((host, tail)) => (host, port(tail)?),
            None => (word, DEFAULT_PORT),
        };
        match host {
            "*" => Ok(Address::Any { port }),
            "" if !word.is_empty() => Ok(Address::Any { port }),
            _ => v4_or_name(word, host, port),
        }
    }

    /// The sockets that `systemd:NAME` names; `None` for any other word. Only what listens takes it.
    ///
    /// # Errors
    /// One sentence.
    pub fn parse_passed(word: &str) -> Option<Result<Address, String>> {
        let name = word.strip_prefix(PASSED)?;
        // What systemd takes, too (FileDescriptorName=).
        let is_name = |b: u8| matches!(b, b' '..=b'~') && b != b':';
        Some(match name {
            "" => Err(format!("{PASSED} is followed by the name of a socket")),
            name if name.len() <= PASSED_NAME && name.bytes().all(is_name) => {
                Ok(Address::Passed(name.to_owned()))
            }
            name => Err(format!("{} is no name of a socket of systemd", quoted(name))),
        })
    }

    /// All socket addresses to bind; none for a Unix socket and those of systemd. May block in the resolver.
    ///
    /// [`Address::Any`] gives only `[::]`: the caller clears `IPV6_V6ONLY`, so that it includes
    /// IPv4, and binds `0.0.0.0` instead if the kernel has no IPv6.
    ///
    /// # Errors
    /// The resolver's error, or `NotFound` if the name has no address.
    pub(crate) fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match self {
            Address::Any { port } => Ok(vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port))]),
            Address::Socket(socket) => Ok(vec![*socket]),
            Address::Unix(_) | Address::Passed(_) => Ok(Vec::new()),
            Address::Name { host, port } => {
                let mut found: Vec<SocketAddr> = Vec::new();
                for socket in (host.as_str(), *port).to_socket_addrs()? {
                    // A hosts file may name an address twice, and the second bind would fail.
                    if !found.contains(&socket) {
                        found.push(socket);
                    }
                }
                if found.is_empty() {
                    return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
                }
                Ok(found)
            }
        }
    }

    /// Whether the kernel chooses the port.
    pub(crate) fn is_any_port(&self) -> bool {
        match self {
            Address::Any { port } | Address::Name { port, .. } => *port == 0,
            Address::Socket(socket) => socket.port() == 0,
            Address::Unix(_) | Address::Passed(_) => false,
        }
    }
}

/// As in the file, always with the port.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Any { port } => write!(f, "*:{port}"),
            Address::Socket(socket) => write!(f, "{socket}"),
            Address::Name { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Name { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Passed(name) => write!(f, "{PASSED}{name}"),
        }
    }
}

/// Whether a word names a port, once it is known to be an address.
pub(super) fn has_port(word: &str) -> bool {
    is_digits(word) || word.rsplit(']').next().unwrap_or(word).contains(':')
}

/// Whether a `Host` field can name this: a host name or an IPv4 address.
pub(super) fn is_name(host: &str) -> bool {
    host_name::check(host.as_bytes()).is_ok()
}

fn port(digits: &str) -> Result<u16, String> {
    if !is_digits(digits) {
        return Err(format!("{} is not a port", quoted(digits)));
    }
    digits.parse().map_err(|_| format!("port {} is above 65535", quoted(digits)))
}

fn port_after(word: &str, after: &str) -> Result<u16, String> {
    match after.strip_prefix(':') {
        Some(digits) => port(digits),
        None if after.is_empty() => Ok(DEFAULT_PORT),
        None => Err(format!(
            "{} has something other than a colon and a port after the bracket",
            quoted(word)
        )),
    }
}

fn v6(word: &str, host: &str, port: u16) -> Result<Address, String> {
    let wrong = || format!("{} holds no IPv6 address in its brackets", quoted(word));
    let (ip, zone) = host.split_once('%').unwrap_or((host, ""));
    let ip: Ipv6Addr = ip.parse().map_err(|_| wrong())?;
    if !host.contains('%') {
        return Ok(Address::Socket(SocketAddr::from((ip, port))));
    }
    // Only the resolver knows the interfaces.
    if is_name(zone) {
        return Ok(Address::Name { host: host.to_owned(), port });
    }
    Err(wrong())
}

fn v4_or_name(word: &str, host: &str, port: u16) -> Result<Address, String> {
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(Address::Socket(SocketAddr::new(IpAddr::V4(ip), port)));
    }
    // The resolver reads `127.1` and `010.0.0.1` in unexpected ways.
    if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') || !is_name(host) {
        return Err(format!(
            "{} is not an address; write ADDRESS:PORT, such as *:{DEFAULT_PORT} or 127.0.0.1:80",
            quoted(word)
        ));
    }
    Ok(Address::Name { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn shown(word: &str) -> String {
        Address::parse(word).unwrap().to_string()
    }

    #[test]
    fn every_form_of_an_address() {
        for (word, same) in [
            ("*:8079", "*:8079"),
            ("*:0", "*:0"),
            ("*", "*:8079"),
            (":80", "*:80"),
            ("80", "*:80"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("127.0.0.1", "127.0.0.1:8079"),
            ("[::1]:80", "[::1]:80"),
            ("[::1]", "[::1]:8079"),
            ("[::]:65535", "[::]:65535"),
            ("localhost:80", "localhost:80"),
            ("web_1.example.com", "web_1.example.com:8079"),
            ("[fe80::1%eth0]:80", "[fe80::1%eth0]:80"),
        ] {
            assert_eq!(shown(word), same, "{word}");
        }
    }

    #[test]
    fn displayed_address_parses_the_same() {
        for word in ["*:1", "1.2.3.4:5", "[::1]:2", "a.b:3", "[fe80::1%eth0]:4"] {
            let address = Address::parse(word).unwrap();
            assert_eq!(Address::parse(&address.to_string()), Ok(address));
        }
    }

    #[test]
    fn malformed_address_is_explained() {
        for (word, what) in [
            ("", "\"\" is not an address; write ADDRESS:PORT, such as *:8079 or 127.0.0.1:80"),
            (
                "300.0.0.1:80",
                "\"300.0.0.1:80\" is not an address; write ADDRESS:PORT, such as *:8079 or 127.0.0.1:80",
            ),
            (
                "a b:80",
                "\"a b:80\" is not an address; write ADDRESS:PORT, such as *:8079 or 127.0.0.1:80",
            ),
            ("::1", "\"::1\": write an IPv6 address in brackets, such as [::1]:8079"),
            ("*:", "\"\" is not a port"),
            ("*:http", "\"http\" is not a port"),
            ("*:+80", "\"+80\" is not a port"),
            ("*:65536", "port \"65536\" is above 65535"),
            ("99999", "port \"99999\" is above 65535"),
            ("http://a.test:80", "\"http://a.test:80\" is a URL; write only its host and port"),
            ("https://[::1]/", "\"https://[::1]/\" is a URL; write only its host and port"),
            ("[::1", "\"[::1\" has no closing bracket"),
            (
                "[::1]80",
                "\"[::1]80\" has something other than a colon and a port after the bracket",
            ),
            ("[1.2.3.4]:80", "\"[1.2.3.4]:80\" holds no IPv6 address in its brackets"),
            ("[fe80::1%]:80", "\"[fe80::1%]:80\" holds no IPv6 address in its brackets"),
        ] {
            assert_eq!(Address::parse(word).unwrap_err(), what, "{word}");
        }
    }

    #[test]
    fn sockets_of_systemd_have_names() {
        let parse = Address::parse_passed;
        for word in ["systemd:web", "systemd:cloudbridge.socket", "systemd:80", "systemd:a b"] {
            assert_eq!(parse(word).unwrap().unwrap().to_string(), word);
        }
        assert_eq!(parse("web"), None);
        for (word, what) in [
            ("systemd:", "systemd: is followed by the name of a socket"),
            ("systemd:a:b", "\"a:b\" is no name of a socket of systemd"),
            ("systemd:w\u{e9}b", "\"w\u{e9}b\" is no name of a socket of systemd"),
        ] {
            assert_eq!(parse(word).unwrap().unwrap_err(), what);
        }
        assert!(parse(&format!("systemd:{}", "x".repeat(256))).unwrap().is_err());
    }

    #[test]
    fn any_and_literal_addresses_resolve_to_themselves() {
        let sockets = |word| Address::parse(word).unwrap().resolve().unwrap();
        assert_eq!(sockets("*:80"), ["[::]:80".parse().unwrap()]);
        assert_eq!(sockets("1.2.3.4:80"), ["1.2.3.4:80".parse().unwrap()]);
        assert_eq!(sockets("[::1]:0"), ["[::1]:0".parse().unwrap()]);
    }

    #[test]
    fn the_local_name_resolves_to_each_address_once() {
        let found = Address::parse("localhost:80").unwrap().resolve().unwrap();
        assert!(found.iter().all(|socket| socket.ip().is_loopback()));
        for (i, socket) in found.iter().enumerate() {
            assert!(!found[..i].contains(socket), "{found:?}");
        }
    }
}
