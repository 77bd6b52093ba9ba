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
//!
//! # Leaving
//!
//! A program that just ends may close a bridge at the moment when a request comes over it. So end with
//! [`shutdown`](BridgeListener::shutdown): the proxy closes the bridges, each when it has nothing to do, and the program goes
//! when it has read the end of all of them.

pub(crate) mod announce;
mod builder;
mod handshake;
mod leaving;
mod stream;

pub use builder::Builder;
pub use stream::BridgeStream;

use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::backoff::{self, RECONNECT};

use announce::Announcement;
use handshake::Outcome;
use leaving::Parked;

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
    /// Connections in a row that came to nothing, counted over all threads that accept.
    failures: AtomicU32,
    /// What makes this listener's bridges leave together; `None` if it could not be made.
    announcement: Option<Announcement>,
    parked: Parked,
}

impl BridgeListener {
    /// Begins a listener at a proxy, given as `host:port`, or as `host` for port 8079. Nothing is
    /// dialled before [`accept`](BridgeListener::accept).
    pub fn builder(proxy: impl Into<String>) -> Builder {
        Builder::new(proxy.into())
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
    /// need not wait: this is paced too. `NotConnected` after [`shutdown`](BridgeListener::shutdown).
    pub fn accept(&self) -> io::Result<BridgeStream> {
        let Shared { parked, failures, .. } = &*self.shared;
        loop {
            parked.sleep(RECONNECT.pause(failures.load(Ordering::Relaxed), backoff::random()));
            if parked.is_shut_down() {
                return Err(shut_down());
            }
            let attempt = self.attempt();
            match attempt {
                Ok(Attempt::Matched(inner)) => return Ok(BridgeStream { inner }),
                // What came of the others does not matter any more.
                _ if parked.is_shut_down() => {}
                Ok(Attempt::DialAgain) => parked.sleep(RECONNECT.spread()),
                Ok(Attempt::Refused(refused)) => {
                    self.count_failure();
                    return Err(refused.into());
                }
                Ok(Attempt::NotHttp(what)) => {
                    self.count_failure();
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
                Err(error) => self.lost(&error),
            }
        }
    }

    /// Ends it without losing a request. The proxy is told, and closes the bridges that wait there; those in use it closes
    /// when they have answered the request that they have. Meanwhile [`accept`](BridgeListener::accept) still gives
    /// connections over which a request comes; it returns an error when there is nothing left to wait for.
    ///
    /// When this returns nothing waits at the proxy any more. The connections that have been accepted go on: read from each
    /// until its end, as ever, and the program may go when the last is there.
    ///
    /// ```
    /// # use std::io::{self, BufRead, BufReader, Read, Write};
    /// use cloudbridge::client::{BridgeListener, BridgeStream};
    ///
    /// fn serve(bridge: BridgeStream) {
    ///     // Requests and responses, until the end of the connection.
    /// #     drop(bridge);
    /// }
    ///
    /// # fn main() -> io::Result<()> {
    /// # let stand_in = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let proxy = stand_in.local_addr()?.to_string();
    /// # let told = std::thread::spawn(move || -> io::Result<String> {
    /// #     let (mut bridge, _) = stand_in.accept()?;
    /// #     let head = |stream: &std::net::TcpStream| -> io::Result<String> {
    /// #         let (mut lines, mut head) = (BufReader::new(stream.try_clone()?), String::new());
    /// #         while lines.read_line(&mut head)? > 2 {}
    /// #         Ok(head)
    /// #     };
    /// #     head(&bridge)?;
    /// #     bridge.write_all(b"HTTP/1.1 100 Continue\r\nCloudbridge-Extensions: leave\r\n\r\n")?;
    /// #     bridge.write_all(b"HTTP/1.1 101 Upgrade\r\nUpgrade: HTTP/1.1\r\n\r\n")?;
    /// #     let mut bridges = Vec::new();
    /// #     loop {
    /// #         let (mut next, _) = stand_in.accept()?;
    /// #         let asked = head(&next)?;
    /// #         if asked.contains("Cloudbridge-Leave: ") {
    /// #             next.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    /// #             return Ok(asked);
    /// #         }
    /// #         bridges.push(next);
    /// #     }
    /// # });
    /// let listener = BridgeListener::builder(proxy) // such as "proxy.example.com:8079"
    ///     .host("hello.example.com")
    ///     .build()?;
    /// # serve(listener.accept()?);
    /// let worker = std::thread::spawn({
    ///     let listener = listener.clone();
    ///     move || {
    ///         // Ends when the listener is shut down.
    ///         for bridge in listener.incoming() {
    ///             match bridge {
    ///                 Ok(bridge) => serve(bridge),
    ///                 Err(error) => eprintln!("{error}"),
    ///             }
    ///         }
    ///     }
    /// });
    ///
    /// // When it is time to go:
    /// listener.shutdown()?;
    /// worker.join().expect("no panic");
    /// # assert!(told.join().expect("no panic").is_ok());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// It takes as long as the proxy does, which is a moment; one that hangs is given 3 seconds to be dialled, 3 to answer and
    /// 5 to close. A proxy that knows no leave, such as the original, is not told: bridges that wait there are closed from
    /// here, which loses nothing either, but one that has served a request and is kept open stays so until the program closes
    /// it or its read timeout passes.
    ///
    /// # Errors
    ///
    /// A proxy that could not be told, or refused. The listener has ended all the same, as with one that knows no leave.
    pub fn shutdown(&self) -> io::Result<()> {
        let leave = self.shared.announcement.as_ref().map(|announcement| &announcement.leave[..]);
        self.shared.parked.shut_down(leave)
    }

    /// Whether it has been shut down.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        self.shared.parked.is_shut_down()
    }

    /// The connections that [`accept`](BridgeListener::accept) gives, one after another, until
    /// it is [shut down](BridgeListener::shutdown).
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// One connection to the proxy, until something comes of it. The errors are those that another
    /// connection may not meet.
    fn attempt(&self) -> io::Result<Attempt> {
        let Shared { proxy, request, silence, failures, announcement, parked } = &*self.shared;
        let stream = Arc::new(dial(proxy)?);
        let address = stream.peer_addr()?;
        let request = announcement.as_ref().map_or(request, |announced| &announced.register);
        let Some(place) = parked.enter(&stream) else { return Ok(Attempt::DialAgain) };
        let outcome = handshake::run(&stream, request, *silence, |known| {
            failures.store(0, Ordering::Relaxed);
            if known.leave {
                place.takes_leave(address);
            }
        })?;
        // From here on it is in use, and nobody else's to close.
        drop(place);
        match (outcome, Arc::into_inner(stream)) {
            (Outcome::Matched, Some(stream)) => {
                handshake::acknowledge(&stream)?;
                Ok(Attempt::Matched(stream))
            }
            // A shutdown is just closing it.
            (Outcome::Matched, None) | (Outcome::DialAgain, _) => Ok(Attempt::DialAgain),
            (Outcome::Refused(refused), _) => Ok(Attempt::Refused(refused)),
            (Outcome::NotHttp(what), _) => Ok(Attempt::NotHttp(what)),
        }
    }

    /// The failures in a row before this one.
    fn count_failure(&self) -> u32 {
        // It wraps after 2^32 failures, which is 136 years of trying.
        self.shared.failures.fetch_add(1, Ordering::Relaxed)
    }

    /// Only the first failure of a row is worth a warning: the rest say the same.
    fn lost(&self, error: &io::Error) {
        let proxy = &self.shared.proxy;
        if self.count_failure() == 0 {
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

/// What came of a connection to the proxy.
enum Attempt {
    Matched(TcpStream),
    DialAgain,
    Refused(Refused),
    NotHttp(String),
}

fn shut_down() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the listener has been shut down")
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
        match self.listener.accept() {
            Err(_) if self.listener.is_shut_down() => None,
            accepted => Some(accepted),
        }
    }
}

impl FusedIterator for Incoming<'_> {}

#[cfg(test)]
mod tests;
