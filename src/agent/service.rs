//! One service: an application, its hosts, and the proxies.

use std::fmt;
use std::sync::Arc;

use crate::bridge::instance::InstanceName;
use crate::client::Scope;
pub use crate::config::Destination;
use crate::config::{Address, CertificateFiles, Check, SecretsMode};
use crate::http;
use crate::tls::{self, ClientFiles, ClientTls};

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
    pub proxies: Vec<ProxyAddress>,
    /// How those are dialled that are dialled by TLS.
    pub proxy_tls: Option<ClientTls>,
    /// How the application is dialled, if by TLS.
    pub to_tls: Option<ClientTls>,
    /// Treat every address of a proxy's name as a proxy of its own.
    pub all_addresses: bool,
    /// How its health is checked, beyond connecting to it.
    pub check: Option<Check>,
    /// Its connections begin with a PROXY header about the client.
    pub send_proxy: bool,
    /// The Host that it gets in place of the client's, for an application that answers no other.
    pub rewrite_host: Option<Arc<str>>,
}

/// Where a proxy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyAddress {
    /// A name or an IP address.
    pub address: Address,
    /// It is dialled by TLS.
    pub tls: bool,
}

/// Where the kernel says how the machine, or the container, is called.
const MACHINE: &str = "/proc/sys/kernel/hostname";

/// With more hosts and keys than this a service is given no name that nobody has asked for.
const MOST_FIELDS: usize = 80;

/// In front of the address of a proxy that is dialled by TLS.
const TLS: &str = "tls://";

/// The port of such a proxy unless another is given.
const TLS_PORT: u16 = 8443;

/// In front of the address of an application that is dialled by TLS, and its port (RFC 9110, section
/// 4.2.2).
const HTTPS: &str = "https://";
const HTTPS_PORT: u16 = 443;

impl fmt::Display for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.tls { TLS } else { "" }, self.address)
    }
}

/// How connections to one server are encrypted.
#[derive(Clone)]
pub(super) struct Encryption {
    pub tls: ClientTls,
    /// The name or IP address that its certificate must be for, unless `tls` has another.
    pub host: String,
}

/// Files for TLS, as they are given.
#[derive(Clone, Debug, Default)]
pub(super) struct TlsFiles {
    /// For the proxies.
    pub proxy: ClientFiles,
    /// For the application.
    pub to: ClientFiles,
}

impl TlsFiles {
    /// Takes an option. False if it is none of these.
    ///
    /// # Errors
    /// One sentence.
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool, String> {
        let (files, option) = match name.strip_prefix("to-") {
            Some(option) => (&mut self.to, option),
            None => (&mut self.proxy, name),
        };
        match option {
            "ca" => files.ca = Some(value.into()),
            "server-name" => {
                tls::client::server_name(value).map_err(|what| format!("--{name}: {what}"))?;
                files.server_name = Some(value.to_owned());
            }
            "client-cert" => {
                let Some((chain, key)) = value.split_once(',') else {
                    return Err(format!("--{name} is CERTIFICATE,KEY, not {value:?}"));
                };
                files.certificate = Some(CertificateFiles { chain: chain.into(), key: key.into() });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Reads the files that `service` needs.
    ///
    /// # Errors
    /// One sentence.
    pub fn load(
        &self,
        service: &mut Service,
        https: bool,
        mode: SecretsMode,
    ) -> Result<(), String> {
        if service.proxies.iter().any(|proxy| proxy.tls) {
            service.proxy_tls = Some(ClientTls::load(&self.proxy, mode)?);
        } else if self.proxy != ClientFiles::default() {
            return Err(format!("--ca, --server-name and --client-cert are for {TLS} proxies"));
        }
        if https && service.send_proxy {
            return Err(format!("--send-proxy cannot be used with {HTTPS}"));
        }
        if https {
            service.to_tls = Some(ClientTls::load(&self.to, mode)?);
        } else if self.to != ClientFiles::default() {
            return Err(format!(
                "--to-ca, --to-server-name and --to-client-cert are for {HTTPS} applications"
            ));
        }
        Ok(())
    }
}

/// Reads the address of an application, and whether it is dialled by TLS.
///
/// # Errors
/// One sentence.
pub fn application(word: &str) -> Result<(Destination, bool), String> {
    let Some(rest) = word.strip_prefix(HTTPS) else {
        return Ok((Destination::parse(word)?, false));
    };
    let place = rest.strip_suffix('/').unwrap_or(rest);
    if place.bytes().all(|b| b.is_ascii_digit()) {
        return Ok((Destination::parse(place)?, true));
    }
    if place.contains('/') {
        return Err(format!("{word:?} has a path; write only {HTTPS}HOST:PORT"));
    }
    let place = with_port(place, HTTPS_PORT);
    Ok((Destination::parse(&place)?, true))
}

/// The address with a port, if it has none.
fn with_port(place: &str, port: u16) -> String {
    let after_brackets = place.rsplit(']').next().unwrap_or(place);
    match after_brackets.contains(':') {
        true => place.to_owned(),
        false => format!("{place}:{port}"),
    }
}

impl Service {
    /// Gives it a name if it has none: that of the machine and the application's address, which are the
    /// same after a restart. Not if its registration has hardly room for more: what it needs goes first.
    pub(super) fn fill_in_instance(&mut self) {
        let fields = self.scope.hosts.len() + self.scope.keys.len();
        if self.scope.instance.is_some() || fields > MOST_FIELDS {
            return;
        }
        let machine = std::fs::read_to_string(MACHINE).unwrap_or_default();
        let name = format!("{}/{}", machine.trim(), self.to);
        let is_name = InstanceName::parse(name.as_bytes()).is_some();
        self.scope.instance = Some(name).filter(|_| is_name && !machine.trim().is_empty());
    }

    /// The BRIDGE request. It contains the keys, so it must not be shown.
    ///
    /// # Errors
    /// One sentence about a host, prefix or key that a proxy would refuse.
    pub fn registration(&self) -> Result<Vec<u8>, String> {
        registration(&self.scope)
    }

    /// Whether it may have several proxies: behind a name with `all_addresses`, there may be more
    /// of them at any time.
    pub(super) fn has_several_proxies(&self) -> bool {
        let is_cluster = |proxy: &ProxyAddress| {
            matches!(proxy.address, Address::Name { .. }) && self.all_addresses
        };
        self.proxies.len() > 1 || self.proxies.iter().any(is_cluster)
    }
}

/// The BRIDGE request of this scope; see [`Service::registration`].
///
/// # Errors
/// The same.
pub fn registration(scope: &Scope) -> Result<Vec<u8>, String> {
    scope.request().map_err(|error| error.to_string())
}

/// Reads the address of a proxy; the default port is 8079, by TLS 8443.
///
/// # Errors
/// One sentence.
pub fn proxy(word: &str) -> Result<ProxyAddress, String> {
    let (place, tls) = match word.strip_prefix(TLS) {
        Some(place) => (with_port(place, TLS_PORT), true),
        None => (word.to_owned(), false),
    };
    match Address::parse(&place)? {
        Address::Any { .. } | Address::Unix(_) | Address::Passed(_) => Err(format!(
            "{word:?} cannot be dialled; write PROXY[:8079] or {TLS}PROXY[:{TLS_PORT}]"
        )),
        address => Ok(ProxyAddress { address, tls }),
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
    fn an_application_may_be_dialled_by_tls() {
        for (word, shown, tls) in [
            ("3000", "localhost:3000", false),
            ("https://3000", "localhost:3000", true),
            ("https://app.internal", "app.internal:443", true),
            ("https://app.internal:8443/", "app.internal:8443", true),
            ("https://[::1]", "[::1]:443", true),
        ] {
            let (to, by_tls) = application(word).unwrap();
            assert_eq!((to.to_string().as_str(), by_tls), (shown, tls), "{word}");
        }
        assert_eq!(
            application("https://a.test/x").unwrap_err(),
            "\"https://a.test/x\" has a path; write only https://HOST:PORT"
        );
    }

    #[test]
    fn a_proxy_has_a_port_and_an_address() {
        assert_eq!(proxy("proxy.example.com").unwrap().to_string(), "proxy.example.com:8079");
        for (word, shown) in [
            ("tls://proxy.example.com", "tls://proxy.example.com:8443"),
            ("tls://proxy.example.com:443", "tls://proxy.example.com:443"),
            ("tls://[::1]", "tls://[::1]:8443"),
        ] {
            assert_eq!(proxy(word).unwrap().to_string(), shown);
        }
        assert_eq!(
            proxy("*:80").unwrap_err(),
            "\"*:80\" cannot be dialled; write PROXY[:8079] or tls://PROXY[:8443]"
        );
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
            proxy_tls: None,
            to_tls: None,
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
