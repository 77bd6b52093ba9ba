//! Connections that we open.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

use mio::net::TcpStream;

use super::sys::{self, SocketOptions};

/// Begins to connect to `address`; [`super::conn::Conn::is_connected`] says when it has come off.
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
/// The descriptor goes on as a `TcpStream`, so that a connection is a connection whatever it goes
/// over. That is sound, for the type is nothing but the descriptor of a connected stream socket, and
/// all that is done with it (recv, send, shutdown, splice, SO_LINGER, SO_ERROR) is the same for both;
/// what is not, the options of TCP and the peer's address, is not asked of it.
///
/// # Errors
/// As connect(2); `WouldBlock` when as many connections as may wait there do.
pub fn connect_unix(path: &Path) -> io::Result<TcpStream> {
    let socket = OwnedFd::from(mio::net::UnixStream::connect(path)?);
    Ok(TcpStream::from_std(std::net::TcpStream::from(socket)))
}
