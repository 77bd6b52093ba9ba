//! An accepted connection.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

/// A connection from the proxy that carries requests, see [the module](super).
///
/// It buffers nothing, so the `TcpStream` inside may be used directly. It has no read or write
/// timeout, and Nagle's algorithm is off.
#[derive(Debug)]
pub struct BridgeStream {
    pub(super) inner: TcpStream,
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
