//! The sockets of accepted bridges under tokio, with TLS or without.
//!
//! No crate for TLS under tokio is used: the handshake has been made when the server gets the bridge, and such
//! a crate would make its own.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::encrypted::Encrypted;
use super::stream::{BridgeStream, Kind};

pub(super) enum Socket {
    Plain(TcpStream),
    Encrypted(EncryptedSocket),
}

pub(super) struct EncryptedSocket(AsyncFd<Arc<Encrypted>>);

impl Socket {
    /// # Errors
    ///
    /// The runtime cannot watch one more socket.
    pub fn new(stream: BridgeStream) -> io::Result<Socket> {
        stream.set_nonblocking(true)?;
        match stream.0 {
            Kind::Plain(tcp) => TcpStream::from_std(tcp).map(Socket::Plain),
            // A deprecated way, because what is watched could close its descriptor. This one does not.
            #[allow(deprecated)]
            Kind::Encrypted(encrypted) => {
                AsyncFd::new(encrypted).map(|watched| Socket::Encrypted(EncryptedSocket(watched)))
            }
        }
    }

    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Socket::Plain(tcp) => tcp.peer_addr(),
            Socket::Encrypted(EncryptedSocket(watched)) => watched.get_ref().tcp().peer_addr(),
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Socket::Plain(tcp) => tcp.fmt(f),
            Socket::Encrypted(EncryptedSocket(watched)) => watched.get_ref().tcp().fmt(f),
        }
    }
}

impl EncryptedSocket {
    /// Tries until the socket lets it.
    fn poll_reading(
        &self,
        cx: &mut Context<'_>,
        mut read: impl FnMut(&Encrypted) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            if let Ok(result) = ready.try_io(|watched| read(watched.get_ref())) {
                return Poll::Ready(result);
            }
        }
    }

    /// Sends what an earlier write has left.
    fn poll_sent(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.0.get_ref().is_flushed() {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(result) = ready.try_io(|watched| watched.get_ref().flush()) {
                return Poll::Ready(result);
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_writing(&self, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_sent(cx))?;
        Poll::Ready(self.0.get_ref().write_some(bytes))
    }

    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_sent(cx))?;
        let encrypted = self.0.get_ref();
        // Once only, whatever is left of it.
        encrypted.say_close();
        ready!(self.poll_sent(cx))?;
        match encrypted.tcp().shutdown(Shutdown::Write) {
            // The proxy has been faster.
            Err(error) if error.kind() == ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let socket = match &mut *self {
            Socket::Plain(tcp) => return Pin::new(tcp).poll_read(cx, into),
            Socket::Encrypted(socket) => socket,
        };
        let bytes = into.initialize_unfilled();
        let count = match socket.0.get_ref().read_held(bytes)? {
            Some(count) => count,
            None => ready!(socket.poll_reading(cx, |encrypted| encrypted.read(bytes)))?,
        };
        into.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Socket::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Socket::Encrypted(socket) => socket.poll_writing(cx, &[IoSlice::new(bytes)]),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Socket::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Socket::Encrypted(socket) => socket.poll_sent(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Socket::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Socket::Encrypted(socket) => socket.poll_closed(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Socket::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Socket::Encrypted(socket) => socket.poll_writing(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
