//! Connections that we open.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

use mio::net::TcpStream;

use super::sys::{self, SocketOptions};

/// Begins to connect to `address`; [`super::conn::Conn::is_connected`] tells when it has completed.
///
/// # Errors
/// As connect(2), where it fails at once.
pub fn connect(address: SocketAddr, options: &SocketOptions) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    sys::set_stream_options(&stream, options)?;
    Ok(stream)
}

/// Connects to a Unix socket.
///
/// # Errors
/// As connect(2); `WouldBlock` when the server's backlog is full.
pub fn connect_unix(path: &Path) -> io::Result<TcpStream> {
    Ok(as_tcp(mio::net::UnixStream::connect(path)?))
}

/// A Unix socket as a `TcpStream`, so that the rest of the program has one type of connection.
///
/// That is sound: the type is only the descriptor of a connected stream socket, and recv, send,
/// shutdown, splice, SO_LINGER and SO_ERROR work on both. TCP options fail on it, and the callers
/// do without. The peer's address is never asked for.
pub(super) fn as_tcp(socket: mio::net::UnixStream) -> TcpStream {
    TcpStream::from_std(std::net::TcpStream::from(OwnedFd::from(socket)))
}
