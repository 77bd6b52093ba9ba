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

use super::connection::Connection;
use super::encrypted::Encrypted;
use super::line::{Filled, Line, Taken};
use super::stream::{BridgeStream, Kind};

pub(super) enum Socket {
    Plain(TcpStream),
    Encrypted(EncryptedSocket),
    Shared(SharedSocket),
}

/// A bridge of a program that shares its places.
pub(super) struct SharedSocket(AsyncFd<Arc<Line>>);

pub(super) struct EncryptedSocket(AsyncFd<Arc<Encrypted>>);

impl Socket {
    /// # Errors
    ///
    /// The runtime cannot watch one more socket.
    pub fn new(stream: BridgeStream) -> io::Result<Socket> {
        stream.set_nonblocking(true)?;
        // A deprecated way, because what is watched could close its descriptor. These do not.
        #[allow(deprecated)]
        match stream.0 {
            Kind::Alone(Connection::Plain(tcp)) => TcpStream::from_std(tcp).map(Socket::Plain),
            Kind::Alone(Connection::Encrypted(encrypted)) => {
                AsyncFd::new(encrypted).map(|watched| Socket::Encrypted(EncryptedSocket(watched)))
            }
            Kind::Shared(line) => {
                AsyncFd::new(line).map(|watched| Socket::Shared(SharedSocket(watched)))
            }
        }
    }

    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Socket::Plain(tcp) => tcp.peer_addr(),
            Socket::Encrypted(EncryptedSocket(watched)) => watched.get_ref().tcp().peer_addr(),
            Socket::Shared(SharedSocket(watched)) => {
                watched.get_ref().connection().tcp().peer_addr()
            }
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Socket::Plain(tcp) => tcp.fmt(f),
            Socket::Encrypted(EncryptedSocket(watched)) => watched.get_ref().tcp().fmt(f),
            Socket::Shared(SharedSocket(watched)) => watched.get_ref().connection().tcp().fmt(f),
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
        Poll::Ready(unless_gone(encrypted.tcp().shutdown(Shutdown::Write)))
    }
}

impl SharedSocket {
    fn poll_reading(&self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.0.get_ref().take(bytes, cx.waker())? {
                Taken::Bytes(count) => return Poll::Ready(Ok(count)),
                Taken::Ended => return Poll::Ready(Ok(0)),
                Taken::Turn => return Poll::Pending,
                Taken::Nothing => {}
            }
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            match ready.try_io(|watched| watched.get_ref().fill(bytes)) {
                Ok(Ok(Filled::Direct(count))) => return Poll::Ready(Ok(count)),
                Ok(Ok(Filled::End)) => return Poll::Ready(Ok(0)),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Ok(Ok(Filled::Held)) | Err(_) => {}
            }
        }
    }

    /// Tries until the socket lets it.
    fn poll_sending<T>(
        &self,
        cx: &mut Context<'_>,
        mut send: impl FnMut(&Line) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(result) = ready.try_io(|watched| send(watched.get_ref())) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_writing(&self, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.poll_sending(cx, |line| line.write(bytes))
    }

    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_sending(cx, Line::flush))?;
        Poll::Ready(unless_gone(self.0.get_ref().shutdown(Shutdown::Write)))
    }
}

/// The proxy may have been faster.
fn unless_gone(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| match error.kind() {
        ErrorKind::NotConnected => Ok(()),
        _ => Err(error),
    })
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
            Socket::Shared(socket) => {
                let count = ready!(socket.poll_reading(cx, into.initialize_unfilled()))?;
                into.advance(count);
                return Poll::Ready(Ok(()));
            }
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
            Socket::Shared(socket) => socket.poll_writing(cx, &[IoSlice::new(bytes)]),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Socket::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Socket::Encrypted(socket) => socket.poll_sent(cx),
            Socket::Shared(socket) => socket.poll_sending(cx, Line::flush),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Socket::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Socket::Encrypted(socket) => socket.poll_closed(cx),
            Socket::Shared(socket) => socket.poll_closed(cx),
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
            Socket::Shared(socket) => socket.poll_writing(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
