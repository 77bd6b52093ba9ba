//! Where the proxy is, how it is dialled, and how long one that cannot be trusted is left alone.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::encrypted::Encrypted;
use super::records::Records;
use crate::config::SecretsMode;
use crate::tls::{ClientFiles, ClientTls};

/// The default port of a proxy.
pub const DEFAULT_PORT: u16 = 8079;

/// The default port of a proxy that is dialled by TLS.
pub const DEFAULT_TLS_PORT: u16 = 8443;

/// In front of the address of such a proxy.
const TLS: &str = "tls://";

/// How long one address of the proxy may take to accept a connection, before the next is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long not to dial a proxy whose certificate is not accepted, or that speaks no TLS: somebody has to
/// correct that, and should not find the log full of it.
const DISTRUSTED_PAUSE: Duration = Duration::from_secs(30);

/// A proxy.
pub(super) struct Target {
    /// As messages name it.
    name: String,
    /// `host:port`, resolved anew for each connection.
    address: String,
    encryption: Option<Encryption>,
}

struct Encryption {
    files: ClientFiles,
    mode: SecretsMode,
    /// The name that the certificate must be for, unless `files` has another.
    host: String,
    state: Mutex<State>,
}

struct State {
    tls: ClientTls,
    /// The files are to be read again.
    is_stale: bool,
    not_before: Option<Instant>,
    /// The last message: it is not repeated.
    said: String,
}

impl Target {
    /// Reads the address of a proxy, and the files if it is dialled by TLS.
    ///
    /// # Errors
    ///
    /// One sentence.
    pub fn new(proxy: &str, files: ClientFiles, mode: SecretsMode) -> Result<Target, String> {
        let Some(place) = proxy.strip_prefix(TLS) else {
            if files != ClientFiles::default() {
                return Err(format!(
                    "{proxy:?} does not begin with {TLS}, but there are options for TLS"
                ));
            }
            let address = with_port(proxy, DEFAULT_PORT);
            return Ok(Target { name: address.clone(), address, encryption: None });
        };
        let address = with_port(place, DEFAULT_TLS_PORT);
        let host = host(&address).to_owned();
        let tls = ClientTls::load(&files, mode)?;
        // A name that no certificate can be for is found here, and not at each dial.
        tls.connection(&host)?;
        let state =
            Mutex::new(State { tls, is_stale: false, not_before: None, said: String::new() });
        let encryption = Some(Encryption { files, mode, host, state });
        Ok(Target { name: format!("{TLS}{address}"), address, encryption })
    }

    /// Connects to the first address that accepts. The handshake of TLS is still to be made.
    pub fn dial(&self) -> io::Result<Connection> {
        self.encrypted(connect_any(self.address.to_socket_addrs()?)?)
    }

    /// Connects to one address of it.
    pub fn dial_at(&self, address: SocketAddr, within: Duration) -> io::Result<Connection> {
        self.encrypted(TcpStream::connect_timeout(&address, within)?)
    }

    fn encrypted(&self, tcp: TcpStream) -> io::Result<Connection> {
        let Some(encryption) = &self.encryption else { return Ok(tcp.into()) };
        let tls = encryption.current(&self.name);
        let connection = tls.connection(&encryption.host).map_err(io::Error::other)?;
        let encrypted = Encrypted::new(tcp, Records::new(connection));
        Ok(Connection::Encrypted(Arc::new(encrypted)))
    }

    /// How long it must not be dialled.
    pub fn pause_left(&self) -> Duration {
        let not_before = self.encryption.as_ref().and_then(|one| one.state().not_before);
        not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()))
    }

    /// It cannot be trusted, or speaks no TLS. This is said once, and the files are read again for the next
    /// attempt: one of them may have been corrected by then.
    pub fn distrusted(&self, why: &io::Error) {
        let Some(encryption) = &self.encryption else { return };
        let mut state = encryption.state();
        state.not_before = Some(Instant::now() + DISTRUSTED_PAUSE);
        state.is_stale = true;
        let why = why.to_string();
        if state.said != why {
            let pause = DISTRUSTED_PAUSE.as_secs();
            log::error!("no bridge to {}: {why}; it is tried again every {pause} s", self.name);
            state.said = why;
        }
    }

    /// It has accepted a bridge.
    pub fn accepted(&self) {
        if let Some(encryption) = &self.encryption {
            let mut state = encryption.state();
            state.not_before = None;
            state.said.clear();
        }
    }
}

impl Encryption {
    /// What to dial with: read again after the proxy could not be trusted, as far as it can be read.
    fn current(&self, name: &str) -> ClientTls {
        let mut state = self.state();
        if std::mem::take(&mut state.is_stale) {
            match ClientTls::load(&self.files, self.mode) {
                Ok(tls) => state.tls = tls,
                Err(what) => log::debug!("{name}: {what}; what was read before is used"),
            }
        }
        state.tls.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Adds a port if there is none. An IPv6 address without brackets has none.
pub(super) fn with_port(proxy: &str, port: u16) -> String {
    match (proxy.starts_with('['), proxy.matches(':').count()) {
        (true, _) if proxy.ends_with(']') => format!("{proxy}:{port}"),
        (true, _) | (false, 1) => proxy.to_owned(),
        (false, 0) => format!("{proxy}:{port}"),
        (false, _) => format!("[{proxy}]:{port}"),
    }
}

/// The name or IP address in `host:port`.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Connects to the first address that accepts.
fn connect_any(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn all_addresses_are_tried() {
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        // Taken, so that nobody else is given it, but only at 127.0.0.1.
        let port = open.local_addr().unwrap().port();
        let closed = SocketAddr::from(([127, 0, 0, 2], port));
        let addresses = [closed, open.local_addr().unwrap()];
        assert!(connect_any(addresses.into_iter()).is_ok());
        let error = connect_any([closed].into_iter()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(connect_any([].into_iter()).is_err());
    }

    #[test]
    fn the_name_of_the_certificate_is_the_host_without_the_port() {
        for (address, name) in
            [("a.test:1", "a.test"), ("[::1]:1", "::1"), ("192.0.2.1:1", "192.0.2.1")]
        {
            assert_eq!(host(address), name);
        }
    }
}
