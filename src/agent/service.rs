//! One service: an application, its hosts, and the proxies.

use std::sync::Arc;

use crate::client::Scope;
use crate::config::Address;
use crate::config::Check;
pub use crate::config::Destination;
use crate::http;

/// The default for how many requests the application gets at once: a few per core of a small
/// machine.
pub const DEFAULT_LIMIT: usize = 8;

/// The default for how many tunnels (WebSockets) the application may have: each is cheap here, and
/// the application may be content with fewer.
pub const DEFAULT_TUNNELS: usize = 1000;

/// Most requests at once. This many bridges and upstream connections still stay far below the usual
/// descriptor limits.
pub const MAX_LIMIT: usize = 10_000;

/// An application, and where and how to serve it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What it serves; names at least one host.
    pub scope: Scope,
    /// The address of the application.
    pub to: Destination,
    /// How many requests the application gets at once, over all proxies together.
    pub limit: usize,
    /// How many tunnels the application may have beside that, over all proxies together.
    pub tunnels: usize,
    /// The proxies; never empty.
    pub proxies: Vec<Address>,
    /// Treat every address of a proxy's name as a proxy of its own.
    pub all_addresses: bool,
    /// How its health is checked, beyond connecting to it.
    pub check: Option<Check>,
    /// Its connections begin with a PROXY header about the client.
    pub send_proxy: bool,
    /// The Host that it gets in place of the client's, for an application that answers no other.
    pub rewrite_host: Option<Arc<str>>,
}

impl Service {
    /// The BRIDGE request. It contains the keys, so it must not be shown.
    ///
    /// # Errors
    /// One sentence about a host, prefix or key that a proxy would refuse.
    pub fn registration(&self) -> Result<Vec<u8>, String> {
        registration(&self.scope)
    }
}

/// The BRIDGE request of this scope; see [`Service::registration`].
///
/// # Errors
/// The same.
pub fn registration(scope: &Scope) -> Result<Vec<u8>, String> {
    scope.request().map_err(|error| error.to_string())
}

/// Reads the address of a proxy; the default port is 8079.
///
/// # Errors
/// One sentence.
pub fn proxy(word: &str) -> Result<Address, String> {
    match Address::parse(word)? {
        Address::Any { .. } | Address::Unix(_) | Address::Passed(_) => {
            Err(format!("{word:?} cannot be dialled; write PROXY[:8079]"))
        }
        address => Ok(address),
    }
}

/// Reads how many requests are served at once, `most` or less.
///
/// # Errors
/// One sentence.
pub fn limit(word: &str, most: usize) -> Result<usize, String> {
    match word.parse() {
        Ok(count) if (1..=most).contains(&count) => Ok(count),
        _ => Err(format!("-n is a number from 1 to {most}, not {word:?}")),
    }
}

/// Reads how many tunnels there may be.
///
/// # Errors
/// One sentence.
pub fn tunnels(word: &str) -> Result<usize, String> {
    match word.parse() {
        Ok(count) if count <= MAX_LIMIT => Ok(count),
        _ => Err(format!("--tunnels is a number from 0 to {MAX_LIMIT}, not {word:?}")),
    }
}

/// Reads the Host for [`Service::rewrite_host`].
///
/// # Errors
/// One sentence.
pub fn rewrite_host(word: &str) -> Result<Arc<str>, String> {
    match http::is_host(word) {
        true => Ok(word.into()),
        false => {
            Err(format!("--rewrite-host is a host name, with or without a port, not {word:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_destination() {
        for (word, shown) in [
            ("127.0.0.1:3000", "127.0.0.1:3000"),
            ("[::1]:3000", "[::1]:3000"),
            ("app.internal:80", "app.internal:80"),
            ("3000", "localhost:3000"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
            ("unix:app.sock", "unix:app.sock"),
        ] {
            assert_eq!(Destination::parse(word).unwrap().to_string(), shown, "{word}");
        }
    }

    #[test]
    fn malformed_destination_is_explained() {
        for (word, what) in [
            ("127.0.0.1", "\"127.0.0.1\" has no port; write ADDRESS:PORT or unix:PATH"),
            ("[::1]", "\"[::1]\" has no port; write ADDRESS:PORT or unix:PATH"),
            ("app", "\"app\" has no port; write ADDRESS:PORT or unix:PATH"),
            ("*:80", "\"*:80\" cannot be dialled; write ADDRESS:PORT or unix:PATH"),
            (":80", "\":80\" cannot be dialled; write ADDRESS:PORT or unix:PATH"),
            ("unix:", "unix: is followed by the path of a socket"),
            ("app:http", "\"http\" is not a port"),
            (
                "http://127.0.0.1:3000/",
                "\"http://127.0.0.1:3000/\" is a URL; write only its host and port",
            ),
        ] {
            assert_eq!(Destination::parse(word).unwrap_err(), what, "{word}");
        }
    }

    #[test]
    fn a_proxy_has_a_port_and_an_address() {
        assert_eq!(proxy("proxy.example.com").unwrap().to_string(), "proxy.example.com:8079");
        assert_eq!(proxy("*:80").unwrap_err(), "\"*:80\" cannot be dialled; write PROXY[:8079]");
        assert_eq!(
            limit("10001", MAX_LIMIT).unwrap_err(),
            "-n is a number from 1 to 10000, not \"10001\""
        );
    }

    #[test]
    fn service_checks_hosts_and_hides_keys() {
        let service = Service {
            scope: Scope {
                hosts: vec!["a.test".to_owned()],
                keys: vec!["5e5a3e:1:a.test".to_owned()],
                ..Scope::default()
            },
            to: Destination::Unix("/x".into()),
            limit: 1,
            tunnels: 0,
            proxies: Vec::new(),
            all_addresses: false,
            check: None,
            send_proxy: false,
            rewrite_host: None,
        };
        assert!(!format!("{service:?}").contains("5e5a3e"));
        let scope = Scope { hosts: vec!["a b".to_owned()], ..Scope::default() };
        let bad = Service { scope, ..service };
        assert_eq!(
            bad.registration().unwrap_err(),
            "bad host \"a b\": a host name has only letters, digits, '-', '_' and '.'"
        );
    }
}
