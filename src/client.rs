//! [`BridgeListener`]: a `TcpListener` for Rust backends that have no port to listen on.
//!
//! Instead of waiting for connections it dials the proxy, offers to serve some names, and waits
//! there until a client's request has been matched. What [`accept`](BridgeListener::accept) gives is
//! a connection whose next bytes are a request, exactly as though the client had connected here.
//!
//! ```
//! use std::io::{self, BufRead, BufReader, Write};
//! use cloudbridge::client::BridgeListener;
//!
//! # fn main() -> io::Result<()> {
//! # let stand_in = std::net::TcpListener::bind("127.0.0.1:0")?;
//! # let proxy = stand_in.local_addr()?.to_string();
//! # let asked = std::thread::spawn(move || -> io::Result<String> {
//! #     let (mut bridge, _) = stand_in.accept()?;
//! #     let mut lines = BufReader::new(bridge.try_clone()?);
//! #     let mut line = String::new();
//! #     while lines.read_line(&mut line)? > 2 {}
//! #     bridge.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
//! #     bridge.write_all(b"HTTP/1.1 101 Upgrade\r\nUpgrade: HTTP/1.1\r\n\r\n")?;
//! #     bridge.write_all(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")?;
//! #     bridge.shutdown(std::net::Shutdown::Write)?;
//! #     io::read_to_string(lines)
//! # });
//! let listener = BridgeListener::builder(proxy) // such as "proxy.example.com:8079"
//!     .host("hello.example.com")
//!     .build()?;
//! let mut bridge = listener.accept()?;
//! let mut requests = BufReader::new(bridge.get_ref().try_clone()?);
//! loop {
//!     // Each turn serves one request: the next may come from another client.
//!     let mut head = String::new();
//!     while requests.read_line(&mut head)? > 2 {}
//!     if head.is_empty() {
//!         break; // the proxy has closed this bridge: accept another
//!     }
//!     bridge.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")?;
//! }
//! # drop((bridge, requests));
//! # assert_eq!(asked.join().expect("no panic")?.matches("hello\n").count(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! # One bridge, many requests
//!
//! One accepted connection carries one request at a time. A backend that answers without
//! `Connection: close` keeps it, and the proxy sends the next request over it when there is one,
//! from whichever client. So the number of connections is the number of requests that the backend
//! serves at once: accept in as many threads as that. A backend that closes after each response,
//! and accepts again, is right too, at the price of a handshake for each request.
//!
//! Between two requests the proxy sends nothing, so a backend cannot tell a quiet proxy from one
//! whose machine has gone. Set a read timeout, announce it as `Keep-Alive: timeout=SECONDS` (the
//! proxy does not use the bridge in the last of these seconds), and accept anew when it has passed:
//! [`accept`](BridgeListener::accept) notices a silent proxy by its missing pings.

pub(crate) mod announce;
pub(crate) mod backoff;
pub(crate) mod handshake;

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::iter::FusedIterator;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::protocol::{HostKey, bridge, pattern};
use backoff::Backoff;
use handshake::Outcome;

/// The port that a proxy listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 8079;

/// How often a proxy sends a ping to a parked bridge unless told otherwise.
pub const PING_INTERVAL: Duration = Duration::from_secs(15);

/// Pings that may be missed before the proxy counts as gone: one may be late, two may be bad luck.
pub(crate) const MISSED_PINGS: u32 = 3;

/// How long one address of the proxy may take to answer a connect, before the next is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Listens for requests at a proxy. Clones share the settings and the pace of reconnecting, and
/// any number of threads may accept at once.
#[derive(Clone)]
pub struct BridgeListener {
    shared: Arc<Shared>,
}

struct Shared {
    /// `host:port` of the proxy, resolved anew for each connection.
    proxy: String,
    /// The BRIDGE request. Holds the keys, so it is never shown.
    request: Vec<u8>,
    /// How long the proxy may say nothing while a bridge is parked.
    silence: Duration,
    backoff: Backoff,
}

impl BridgeListener {
    /// Begins a listener at a proxy, given as `host:port`, or as `host` for port 8079. Nothing is
    /// dialled before [`accept`](BridgeListener::accept).
    pub fn builder(proxy: impl Into<String>) -> Builder {
        Builder {
            proxy: proxy.into(),
            hosts: Vec::new(),
            prefix: String::from("/"),
            keys: Vec::new(),
            ping_interval: PING_INTERVAL,
        }
    }

    /// Waits for a client and gives the connection to it; its next bytes are a request.
    ///
    /// Whatever may mend itself is tried again without end, at growing intervals of up to a second:
    /// a proxy that cannot be reached, closes the connection or falls silent. A 504 is the proxy's
    /// way to say "dial again", and is obeyed at once.
    ///
    /// # Errors
    ///
    /// A proxy that refuses the bridge, for which see [`Refused::of`]; an answer that is no HTTP
    /// (`InvalidData`), as from something that is no proxy. One may accept again after either, and
    /// need not wait: this is paced too.
    pub fn accept(&self) -> io::Result<BridgeStream> {
        loop {
            thread::sleep(self.shared.backoff.delay());
            match self.attempt() {
                Ok(Outcome::Matched(inner)) => return Ok(BridgeStream { inner }),
                Ok(Outcome::DialAgain) => thread::sleep(backoff::jitter()),
                Ok(Outcome::Refused(refused)) => {
                    self.shared.backoff.failed();
                    return Err(refused.into());
                }
                Ok(Outcome::NotHttp(what)) => {
                    self.shared.backoff.failed();
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
                Err(error) => self.lost(&error),
            }
        }
    }

    /// The connections that [`accept`](BridgeListener::accept) gives, one after another, without
    /// end.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// One connection to the proxy, until something comes of it. The errors are those that another
    /// connection may not meet.
    fn attempt(&self) -> io::Result<Outcome> {
        let shared = &*self.shared;
        let stream = dial(&shared.proxy)?;
        handshake::run(stream, &shared.request, shared.silence, || {
            shared.backoff.succeeded();
        })
    }

    /// Only the first failure of a row is worth a warning: the rest say the same.
    fn lost(&self, error: &io::Error) {
        let proxy = &self.shared.proxy;
        if self.shared.backoff.failed() {
            log::warn!("no bridge to {proxy}: {error}; trying again");
        } else {
            log::debug!("no bridge to {proxy}: {error}");
        }
    }
}

impl fmt::Debug for BridgeListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BridgeListener({})", self.shared.proxy)
    }
}

/// Connects to the first address of the proxy that answers.
fn dial(proxy: &str) -> io::Result<TcpStream> {
    connect_any(proxy.to_socket_addrs()?)
}

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

/// What a [`BridgeListener`] is to offer, and where. Made by [`BridgeListener::builder`].
#[derive(Clone)]
pub struct Builder {
    proxy: String,
    hosts: Vec<String>,
    prefix: String,
    keys: Vec<String>,
    ping_interval: Duration,
}

impl Builder {
    /// Adds a host to serve: a name, `*.` and a name for all below it, or `*` for every name. With
    /// none added it is `*`.
    #[must_use]
    pub fn host(mut self, pattern: impl Into<String>) -> Builder {
        self.hosts.push(pattern.into());
        self
    }

    /// Serves only requests whose path begins with these whole segments, such as `/api`. It is `/`
    /// unless set.
    #[must_use]
    pub fn prefix(mut self, path: impl Into<String>) -> Builder {
        self.prefix = path.into();
        self
    }

    /// Adds a host key, `hash:timestamp:name`, as whoever holds the proxy's secret has made it.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Builder {
        self.keys.push(key.into());
        self
    }

    /// How often the proxy pings a parked bridge ([`PING_INTERVAL`] unless set). When three pings
    /// in a row are missing, the proxy counts as gone and is dialled anew.
    #[must_use]
    pub fn ping_interval(mut self, interval: Duration) -> Builder {
        self.ping_interval = interval;
        self
    }

    /// The listener.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a host, prefix, key or interval that no proxy would take, with a line that
    /// says which.
    pub fn build(self) -> io::Result<BridgeListener> {
        let silence = self.ping_interval.saturating_mul(MISSED_PINGS);
        if silence.is_zero() {
            return Err(invalid("the ping interval is zero".to_owned()));
        }
        Ok(BridgeListener {
            shared: Arc::new(Shared {
                request: self.request()?,
                proxy: with_port(&self.proxy),
                silence,
                backoff: Backoff::default(),
            }),
        })
    }

    /// The BRIDGE request. Every part is checked by the proxy's own rules before it is put in, so
    /// none can smuggle a line of its own.
    pub(crate) fn request(&self) -> io::Result<Vec<u8>> {
        let prefix = bridge::prefix(&self.prefix).map_err(|refusal| {
            invalid(format!("bad prefix {:?}: {}", self.prefix, refusal.text))
        })?;
        let prefix = if prefix.is_empty() { "/" } else { &prefix };
        let mut request = format!("BRIDGE {prefix} HTTP/1.1\r\nExpect: 100-continue\r\n");
        let every = [String::from("*")];
        let hosts = if self.hosts.is_empty() { &every[..] } else { &self.hosts };
        for host in hosts {
            pattern::parse(host.as_bytes())
                .map_err(|bad| invalid(format!("bad host {host:?}: {bad}")))?;
            // As it was given: the original proxy compares hosts and keys as text.
            request += &format!("Host: {host}\r\n");
        }
        for key in &self.keys {
            HostKey::parse(key.as_bytes()).map_err(|bad| invalid(format!("bad key: {bad}")))?;
            request += &format!("Host-Key: {key}\r\n");
        }
        request += "\r\n";
        match bridge::parse(request.as_bytes(), &bridge::Limits::default()) {
            Ok(Some(_)) => Ok(request.into_bytes()),
            Ok(None) => Err(invalid("the registration is too long".to_owned())),
            Err(refusal) => Err(invalid(refusal.text)),
        }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("proxy", &self.proxy)
            .field("hosts", &self.hosts)
            .field("prefix", &self.prefix)
            .field("keys", &self.keys.len())
            .field("ping_interval", &self.ping_interval)
            .finish()
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// The proxy's address with a port: [`DEFAULT_PORT`] if there is none. An IPv6 address without
/// brackets has none.
fn with_port(proxy: &str) -> String {
    match (proxy.starts_with('['), proxy.matches(':').count()) {
        (true, _) if proxy.ends_with(']') => format!("{proxy}:{DEFAULT_PORT}"),
        (true, _) | (false, 1) => proxy.to_owned(),
        (false, 0) => format!("{proxy}:{DEFAULT_PORT}"),
        (false, _) => format!("[{proxy}]:{DEFAULT_PORT}"),
    }
}

/// The proxy refused a bridge. [`BridgeListener::accept`] gives it inside an [`io::Error`], of kind
/// `PermissionDenied` if the status is 401.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The HTTP status code, such as 401 for a host without a valid key, or 503 for too many
    /// bridges (`doc/protocol.md` has them all).
    pub status: u16,
    /// The proxy's one line of explanation, at most 256 bytes of visible text.
    pub reason: String,
    /// When the proxy would like to be asked again, if it said so.
    pub retry_after: Option<Duration>,
}

impl Refused {
    /// The refusal inside an error of [`BridgeListener::accept`], if that is what it is.
    pub fn of(error: &io::Error) -> Option<&Refused> {
        error.get_ref()?.downcast_ref()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the proxy refused the bridge: {} {}", self.status, self.reason)
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> io::Error {
        let kind = match refused.status {
            401 => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, refused)
    }
}

/// See [`BridgeListener::incoming`].
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a BridgeListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<BridgeStream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.listener.accept())
    }
}

impl FusedIterator for Incoming<'_> {}

/// A connection from the proxy that carries requests, as described in [the module](self).
///
/// It holds no bytes of its own, so the `TcpStream` inside may be used beside or instead of it.
/// There is no read or write timeout on it, and Nagle's algorithm is off.
#[derive(Debug)]
pub struct BridgeStream {
    inner: TcpStream,
}

impl BridgeStream {
    /// The socket, to set timeouts or to clone.
    pub fn get_ref(&self) -> &TcpStream {
        &self.inner
    }

    /// The socket alone, for a library that wants one.
    pub fn into_inner(self) -> TcpStream {
        self.inner
    }
}

impl Read for BridgeStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.inner.read(into)
    }

    fn read_vectored(&mut self, into: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.inner.read_vectored(into)
    }
}

impl Write for BridgeStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn write_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        self.inner.write_vectored(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Read for &BridgeStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        (&self.inner).read(into)
    }
}

impl Write for &BridgeStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&self.inner).flush()
    }
}

impl AsFd for BridgeStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

#[cfg(test)]
mod tests;
