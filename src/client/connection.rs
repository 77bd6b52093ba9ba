//! A connection to the proxy, with or without TLS around its bytes.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::encrypted::Encrypted;
use crate::net::sys;

pub(crate) enum Connection {
    Plain(TcpStream),
    Encrypted(Arc<Encrypted>),
}

impl Connection {
    /// The socket.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Connection::Plain(tcp) => tcp,
            Connection::Encrypted(encrypted) => encrypted.tcp(),
        }
    }

    pub fn is_encrypted(&self) -> bool {
        matches!(self, Connection::Encrypted(_))
    }

    /// Finds out who the peer is, if the connection is encrypted.
    pub fn handshake(&self, within: Duration) -> io::Result<()> {
        match self {
            Connection::Plain(_) => Ok(()),
            Connection::Encrypted(encrypted) => encrypted.handshake(within),
        }
    }

    /// Another handle.
    pub fn try_clone(&self) -> io::Result<Connection> {
        Ok(match self {
            Connection::Plain(tcp) => Connection::Plain(tcp.try_clone()?),
            Connection::Encrypted(encrypted) => Connection::Encrypted(Arc::clone(encrypted)),
        })
    }

    /// Reads without taking.
    pub fn peek(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(tcp) => tcp.peek(into),
            Connection::Encrypted(encrypted) => encrypted.peek(into),
        }
    }

    /// Ends one direction, or both. The end of ours is told to the proxy first, if it is encrypted.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Connection::Plain(tcp) => tcp.shutdown(how),
            Connection::Encrypted(encrypted) => encrypted.shutdown(how),
        }
    }

    /// Sends a few bytes without waiting, even if the socket does. Returns how many: what is left must
    /// be sent before anything else.
    ///
    /// # Errors
    ///
    /// None of them has been sent.
    pub fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(tcp) => sys::send_now(tcp, bytes),
            Connection::Encrypted(encrypted) => encrypted.send_now(bytes),
        }
    }
}

impl From<TcpStream> for Connection {
    fn from(tcp: TcpStream) -> Connection {
        Connection::Plain(tcp)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("BridgeStream");
        shown.field("tcp", self.tcp()).field("encrypted", &self.is_encrypted()).finish()
    }
}

impl Read for &Connection {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(tcp) => (&*tcp).read(into),
            Connection::Encrypted(encrypted) => encrypted.read(into),
        }
    }
}

impl Write for &Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(tcp) => (&*tcp).write(bytes),
            Connection::Encrypted(encrypted) => encrypted.write(&[IoSlice::new(bytes)]),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Connection::Plain(tcp) => (&*tcp).write_vectored(slices),
            Connection::Encrypted(encrypted) => encrypted.write(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
