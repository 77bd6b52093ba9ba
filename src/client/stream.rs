//! [`BridgeStream`]: what a listener accepts.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::connection::Connection;
use super::line::Line;

/// An accepted bridge: its next bytes are a request. To be used as a [`TcpStream`], which it is inside, with or
/// without TLS around its bytes; its methods do what those of the same names do there.
///
/// A program that shares its [`Places`](super::Places) between proxies must read and write here only, and not at the
/// socket: what passes here is looked at. A write that has timed out is the last then.
///
/// Over TLS three things differ. The proxy ends the connection by a close_notify: without one, a read returns
/// `UnexpectedEof`. A write that has timed out must be repeated with the same bytes, or be the last. And a
/// selector that watches the socket does not see bytes that have been decrypted already.
pub struct BridgeStream(pub(super) Kind);

pub(super) enum Kind {
    /// What passes is the program's affair.
    Alone(Connection),
    Shared(Arc<Line>),
}

impl BridgeStream {
    /// The connection, for what comes before the first request.
    pub(crate) fn connection(&self) -> &Connection {
        match &self.0 {
            Kind::Alone(connection) => connection,
            Kind::Shared(line) => line.connection(),
        }
    }

    /// The socket. What comes over it is encrypted, if the bridge is.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        self.connection().tcp()
    }

    /// The socket alone, for servers that take nothing else.
    ///
    /// # Errors
    ///
    /// The stream as it was, if it is encrypted, or if its places are shared.
    pub fn into_tcp(self) -> Result<TcpStream, BridgeStream> {
        match self.0 {
            Kind::Alone(Connection::Plain(tcp)) => Ok(tcp),
            kind => Err(BridgeStream(kind)),
        }
    }

    /// Whether the proxy was dialled by TLS.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.connection().is_encrypted()
    }

    /// Another handle of the same connection.
    ///
    /// # Errors
    ///
    /// As [`TcpStream::try_clone`].
    pub fn try_clone(&self) -> io::Result<BridgeStream> {
        let kind = match &self.0 {
            Kind::Alone(connection) => Kind::Alone(connection.try_clone()?),
            Kind::Shared(line) => Kind::Shared(Arc::clone(line)),
        };
        Ok(BridgeStream(kind))
    }

    /// Reads without taking.
    ///
    /// # Errors
    ///
    /// As [`TcpStream::peek`].
    pub fn peek(&self, into: &mut [u8]) -> io::Result<usize> {
        match &self.0 {
            Kind::Alone(connection) => connection.peek(into),
            Kind::Shared(line) => line.peek(into),
        }
    }

    /// Ends one direction, or both. The end of ours is told to the proxy first, if the connection is encrypted.
    ///
    /// # Errors
    ///
    /// As [`TcpStream::shutdown`].
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match &self.0 {
            Kind::Alone(connection) => connection.shutdown(how),
            Kind::Shared(line) => line.shutdown(how),
        }
    }

    /// The proxy's address.
    ///
    /// # Errors
    ///
    /// As [`TcpStream::peer_addr`].
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().peer_addr()
    }

    /// Our address.
    ///
    /// # Errors
    ///
    /// As [`TcpStream::local_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().local_addr()
    }

    /// How long a read may wait.
    ///
    /// # Errors
    ///
    /// As [`TcpStream::set_read_timeout`].
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.tcp().set_read_timeout(timeout)
    }

    /// How long a write may wait.
    ///
    /// # Errors
    ///
    /// As [`TcpStream::set_write_timeout`].
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.tcp().set_write_timeout(timeout)
    }

    /// How long a read may wait.
    ///
    /// # Errors
    ///
    /// As [`TcpStream::read_timeout`].
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        self.tcp().read_timeout()
    }

    /// How long a write may wait.
    ///
    /// # Errors
    ///
    /// As [`TcpStream::write_timeout`].
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        self.tcp().write_timeout()
    }

    /// Whether small writes are sent at once.
    ///
    /// # Errors
    ///
    /// As [`TcpStream::set_nodelay`].
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.tcp().set_nodelay(nodelay)
    }

    /// Whether small writes are sent at once.
    ///
    /// # Errors
    ///
    /// As [`TcpStream::nodelay`].
    pub fn nodelay(&self) -> io::Result<bool> {
        self.tcp().nodelay()
    }

    /// Whether reads and writes return `WouldBlock` instead of waiting.
    ///
    /// # Errors
    ///
    /// As [`TcpStream::set_nonblocking`].
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.tcp().set_nonblocking(nonblocking)
    }
}

impl From<TcpStream> for BridgeStream {
    fn from(tcp: TcpStream) -> BridgeStream {
        BridgeStream(Kind::Alone(tcp.into()))
    }
}

impl fmt::Debug for BridgeStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.connection().fmt(f)
    }
}

impl Read for &BridgeStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &self.0 {
            Kind::Alone(connection) => (&*connection).read(into),
            Kind::Shared(line) => line.read(into),
        }
    }
}

impl Write for &BridgeStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.0 {
            Kind::Alone(connection) => (&*connection).write(bytes),
            Kind::Shared(line) => line.write(&[IoSlice::new(bytes)]),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.0 {
            Kind::Alone(connection) => (&*connection).write_vectored(slices),
            Kind::Shared(line) => line.write(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &self.0 {
            Kind::Alone(_) => Ok(()),
            Kind::Shared(line) => line.flush(),
        }
    }
}

impl Read for BridgeStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        (&*self).read(into)
    }
}

impl Write for BridgeStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self).flush()
    }
}
