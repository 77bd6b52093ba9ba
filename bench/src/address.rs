//! Where a program of this crate dials.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use mio::net::TcpStream;

/// A TCP address, or the path of a Unix socket.
#[derive(Clone, Debug)]
pub enum Address {
    /// `ADDRESS:PORT`
    Tcp(SocketAddr),
    /// `unix:PATH`
    Unix(PathBuf),
}

impl Address {
    /// Reads `ADDRESS:PORT` or `unix:PATH`; `None` if it is neither.
    pub fn parse(text: &str) -> Option<Address> {
        match text.strip_prefix("unix:") {
            Some(path) => Some(Address::Unix(PathBuf::from(path))),
            None => text.to_socket_addrs().ok()?.next().map(Address::Tcp),
        }
    }

    /// Begins to connect. Reads and writes are the same calls for both kinds of socket, so the
    /// stream is of mio's type for TCP whichever it is.
    pub fn connect(&self) -> io::Result<TcpStream> {
        match self {
            Address::Tcp(address) => TcpStream::connect(*address),
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_nonblocking(true)?;
                Ok(TcpStream::from_std(OwnedFd::from(stream).into()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart_by_their_prefix() {
        let read = |text: &str| format!("{:?}", Address::parse(text));
        assert_eq!(read("127.0.0.1:80"), "Some(Tcp(127.0.0.1:80))");
        assert_eq!(read("unix:/run/a.sock"), "Some(Unix(\"/run/a.sock\"))");
        assert_eq!(read("/run/a.sock"), "None");
    }
}
