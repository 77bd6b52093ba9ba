//! The listener: dials, waits for a match, and dials again.

use std::fmt;
use std::io;
use std::iter::{self, FusedIterator};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::announce::Announcement;
use super::handshake::{self, Offer, Refused};
use super::line::Line;
use super::parked::Parked;
use super::places::Share;
use super::stream::{BridgeStream, Kind};
use super::target::Target;
use crate::backoff::{self, RECONNECT};
use crate::net::tls::TlsError;

/// The default interval at which a proxy pings a parked bridge.
pub const PING_INTERVAL: Duration = Duration::from_secs(15);

/// Pings that may be missed before the proxy counts as gone: one may be late, two may be bad luck.
pub(crate) const MISSED_PINGS: u32 = 3;

/// How long a handshake of TLS may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Listens for requests at a proxy. Clones share the settings and the back-off, and any number of
/// threads may accept at once.
#[derive(Clone)]
pub struct BridgeListener {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub target: Target,
    /// The BRIDGE request. It holds the keys, so it is never shown.
    pub request: Vec<u8>,
    /// Its keys may be sent as they are, with the option `hint`.
    pub bearer_keys: bool,
    pub hint: &'static str,
    /// How long the proxy may be silent while a bridge is parked.
    pub silence: Duration,
    /// Connection attempts in a row that failed, counted over all threads that accept.
    pub failures: AtomicU32,
    /// For the deregistration; `None` if it could not be made.
    pub announcement: Option<Announcement>,
    pub parked: Parked,
    /// If the program shares its places between proxies.
    pub share: Option<Arc<Share>>,
}

impl BridgeListener {
    /// Waits for a request and returns the connection that it comes over. It has no read or write
    /// timeout, and Nagle's algorithm is off.
    ///
    /// Failures that may pass are retried without end, at growing intervals of up to a second: a
    /// proxy that cannot be reached, closes the connection or falls silent. A 504 is the proxy's
    /// way to request a new connection, and is obeyed at once. A proxy that is dialled by TLS and cannot be
    /// trusted (a certificate that has expired, or is for another name, or from an unknown issuer), or that
    /// accepts no certificate of ours, is logged once as an error, and tried again every 30 seconds, with the
    /// files as they are then.
    ///
    /// # Errors
    ///
    /// A proxy that refuses the bridge, see [`Refused::of`]; an answer that is not HTTP
    /// (`InvalidData`). The caller may accept again after either, and need not wait: repeated calls
    /// are paced. `NotConnected` after [`shutdown`](BridgeListener::shutdown).
    pub fn accept(&self) -> io::Result<BridgeStream> {
        let Shared { target, parked, failures, .. } = &*self.shared;
        loop {
            parked.sleep(target.pause_left());
            parked.sleep(RECONNECT.pause(failures.load(Ordering::Relaxed), backoff::random()));
            if parked.is_shut_down() {
                let what = "the listener has been shut down";
                return Err(io::Error::new(io::ErrorKind::NotConnected, what));
            }
            match self.attempt() {
                Ok(Some(stream)) => return Ok(stream),
                // What became of the others no longer matters.
                _ if parked.is_shut_down() => {}
                Ok(None) => parked.sleep(RECONNECT.spread()),
                Err(error) if TlsError::is_lasting(&error) => target.distrusted(&error),
                Err(error) => {
                    // It wraps after 2^32 failures, which is 136 years of trying.
                    let earlier = failures.fetch_add(1, Ordering::Relaxed);
                    if Refused::of(&error).is_some() || error.kind() == io::ErrorKind::InvalidData {
                        return Err(error);
                    }
                    let level = if earlier == 0 { log::Level::Warn } else { log::Level::Debug };
                    log::log!(level, "no bridge to {target}: {error}; trying again");
                }
            }
        }
    }

    /// Ends the listener without losing a request. The proxy closes the parked bridges, and the
    /// bridges in use when they have answered their request. Meanwhile
    /// [`accept`](BridgeListener::accept) still returns connections over which a request comes; it
    /// returns an error when there is nothing left to wait for.
    ///
    /// When this returns, nothing is parked at the proxy any more. Accepted connections remain
    /// open: keep reading from each until its end, and exit after the last.
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
    /// // When the program is to stop:
    /// listener.shutdown()?;
    /// worker.join().expect("no panic");
    /// # assert!(told.join().expect("no panic").is_ok());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// It usually takes a moment; a proxy that hangs is given 3 seconds to be dialled, 3 to answer
    /// and 5 to close. A proxy without support for deregistration, such as the original, is not
    /// told: parked bridges are then closed from here, which loses nothing either, but a bridge
    /// that has served a request and is kept open stays so until the program closes it or its read
    /// timeout passes.
    ///
    /// # Errors
    ///
    /// A proxy that could not be told, or refused. The listener has ended all the same.
    pub fn shutdown(&self) -> io::Result<()> {
        let leave = self.shared.announcement.as_ref();
        let leave = leave.map(|announcement| self.shared.offer(&announcement.leave));
        self.shared.parked.shut_down(&self.shared.target, leave.as_ref())
    }

    /// True after [`shutdown`](BridgeListener::shutdown).
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        self.shared.parked.is_shut_down()
    }

    /// The connections that [`accept`](BridgeListener::accept) returns, until the listener is
    /// [shut down](BridgeListener::shutdown).
    pub fn incoming(&self) -> impl FusedIterator<Item = io::Result<BridgeStream>> {
        let next = || match self.accept() {
            Err(_) if self.is_shut_down() => None,
            accepted => Some(accepted),
        };
        iter::from_fn(next).fuse()
    }

    /// One connection to the proxy, until it is matched; `None` if the proxy wants another one.
    fn attempt(&self) -> io::Result<Option<BridgeStream>> {
        let Shared { target, request, silence, failures, announcement, parked, share, .. } =
            &*self.shared;
        let connection = target.dial()?;
        let address = connection.tcp().peer_addr()?;
        let stream = Arc::new(BridgeStream(match share {
            None => Kind::Alone(connection),
            Some(share) => Kind::Shared(Arc::new(Line::new(connection, Arc::clone(share)))),
        }));
        let request = announcement.as_ref().map_or(request, |announced| &announced.register);
        let Some(entry) = parked.enter(&stream) else { return Ok(None) };
        stream.connection().handshake(HANDSHAKE_TIMEOUT)?;
        let offer = self.shared.offer(request);
        let matched = handshake::run(stream.connection(), &offer, *silence, |known, waiting| {
            failures.store(0, Ordering::Relaxed);
            target.accepted();
            if known.leave {
                entry.supports_deregistration(address);
            }
            if let Kind::Shared(line) = &stream.0 {
                if known.places {
                    line.open();
                }
                line.hear(waiting);
            }
        })?;
        if matched && let Kind::Shared(line) = &stream.0 {
            // No pings come any more.
            forget_timeouts(&stream)?;
            if !line.switch()? {
                line.await_request()?;
            }
        }
        // From here on the bridge is in use, and a shutdown must not close it.
        drop(entry);
        // A shutdown that is just closing it holds the other reference.
        let Some(stream) = Arc::into_inner(stream).filter(|_| matched) else { return Ok(None) };
        if let Kind::Alone(connection) = &stream.0 {
            handshake::acknowledge(connection)?;
            forget_timeouts(&stream)?;
        }
        Ok(Some(stream))
    }
}

/// From here on the user says how long something may take.
fn forget_timeouts(stream: &BridgeStream) -> io::Result<()> {
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)
}

impl Shared {
    fn offer<'a>(&self, request: &'a [u8]) -> Offer<'a> {
        Offer { request, bearer_keys: self.bearer_keys, hint: self.hint }
    }
}

impl fmt::Debug for BridgeListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BridgeListener({})", self.shared.target)
    }
}
