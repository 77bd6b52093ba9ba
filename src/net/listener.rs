//! Listening sockets, one per worker and address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mio::net::TcpStream;

use super::sys::{self, SocketOptions};

/// One worker's share of a listening address.
pub struct Listener {
    socket: mio::net::TcpListener,
    address: SocketAddr,
}

/// Opens `count` listeners that share `address`: one for each worker. Port 0 lets the kernel
/// choose a port, the same for all.
///
/// # Errors
/// When the address cannot be bound, or another process listens there, even another cloudbridge:
/// only the workers of one process share an address.
pub fn open(
    address: SocketAddr,
    count: usize,
    options: &SocketOptions,
) -> io::Result<Vec<Listener>> {
    let probe = match sys::listen(address, false, options) {
        // A host without IPv6: `*` then means all of IPv4.
        Err(error) if is_missing_ipv6(&error) && address.ip().is_unspecified() => {
            let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            return open(address, count, options);
        }
        other => std::net::TcpListener::from(other?),
    };
    let address = probe.local_addr()?;
    drop(probe);
    (0..count)
        .map(|_| {
            let socket = std::net::TcpListener::from(sys::listen(address, true, options)?);
            Ok(Listener { address, socket: mio::net::TcpListener::from_std(socket) })
        })
        .collect()
}

fn is_missing_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

impl Listener {
    /// Where it listens, with the port that the kernel chose.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection and its peer's address, IPv4 as IPv4 even on a dual-stack socket.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; otherwise as accept(2).
    pub fn accept(&self) -> io::Result<(TcpStream, IpAddr)> {
        let (stream, peer) = self.socket.accept()?;
        Ok((stream, peer.ip().to_canonical()))
    }

    /// Sets the options that connections accepted from now on inherit.
    ///
    /// # Errors
    /// As setsockopt(2).
    pub fn set_options(&self, options: &SocketOptions) -> io::Result<()> {
        sys::set_stream_options(&self.socket, options)
    }

    /// The socket, to register it with a poll.
    pub fn source(&mut self) -> &mut impl mio::event::Source {
        &mut self.socket
    }
}
