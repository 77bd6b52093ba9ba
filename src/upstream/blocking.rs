//! Blocking connects, for threads that are not event loops.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::config::Destination;
use crate::net::connect::connect_unix;

/// Connects to `to`, whose addresses are tried one after the other. `limit` is asked before each how long
/// it may take; the lookup of a name takes as long as the system lets it.
///
/// # Errors
/// As connect(2) of the last address, or of `limit`; `NotFound` if the name has none.
pub(crate) fn dial(
    to: &Destination,
    limit: impl Fn() -> io::Result<Duration>,
) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = match to {
        Destination::Unix(path) => {
            // Without blocking: the queue of a server that hangs may be full.
            let stream = TcpStream::from(OwnedFd::from(connect_unix(path)?));
            stream.set_nonblocking(false)?;
            return Ok(stream);
        }
        Destination::Local { port } => {
            vec![(Ipv4Addr::LOCALHOST, *port).into(), (Ipv6Addr::LOCALHOST, *port).into()]
        }
        Destination::Socket(address) => vec![*address],
        Destination::Name { host, port } => (host.as_str(), *port).to_socket_addrs()?.collect(),
    };
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, limit()?) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// How much of the time until then is left.
///
/// # Errors
/// `TimedOut` if nothing is left.
pub(crate) fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Whether the time was up.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}
