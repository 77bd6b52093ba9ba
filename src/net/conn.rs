//! A socket, its latched readiness, and the bytes that could not be passed on.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use mio::net::TcpStream;

use super::buffer::{Buffer, Pool};
use super::ktls::{Kernel, Stage};
use super::pipe::Pipe;
use super::sys;
use super::tls::{Raw, Read as Decrypted, Session, TlsError};

mod offload;

/// One connection.
///
/// Readiness is edge-triggered: an event reports that something *became* possible, and it is
/// latched here until a system call finds that it no longer is. A read that does not fill its
/// buffer has emptied the socket, and later bytes make a new edge, so no second read is needed to
/// see `EAGAIN`. There are two exceptions. A FIN that came with the data makes no edge of its own,
/// so `Latch::hung_up` is kept and the socket stays readable until a read has returned 0. A read
/// stops short at the mark of urgent data, so after `Latch::urgent` only `EAGAIN` counts.
pub struct Conn {
    stream: TcpStream,
    latch: Latch,
    /// Where its bytes are encrypted here.
    tls: Option<Box<Session>>,
    /// Where the kernel encrypts them.
    kernel: Option<Box<Kernel>>,
    /// Bytes that have been read and not consumed.
    pub input: Buffer,
    /// Bytes to be sent before any others: with TLS these are records, unless the kernel makes them.
    pub output: Buffer,
}

/// What the kernel has reported about a socket.
#[derive(Clone, Copy, Default, Debug)]
struct Latch {
    readable: bool,
    writable: bool,
    /// The peer has sent its FIN (it may still lie behind unread bytes).
    hung_up: bool,
    /// The peer has sent urgent data (RFC 6093), at whose mark a read stops short.
    urgent: bool,
    /// A read has returned 0: there will be no more bytes. With TLS this says nothing about what the
    /// peer has meant to send; see [`Conn::has_ended`].
    ended: bool,
    /// The connection is broken (reset, or timed out) in both directions.
    broken: bool,
    /// Our own FIN has been sent.
    shut: bool,
    /// [`Conn::hang_up`] has been called.
    cut: bool,
    /// See [`Conn::probe_half_closed`].
    probed: bool,
    /// Something has been sent since the kernel was last found to hold nothing for the peer.
    sent: bool,
}

/// What a read found.
#[derive(Debug)]
pub enum Received {
    /// This many bytes.
    Bytes(usize),
    /// Nothing now; an event will tell.
    Nothing,
    /// The end of the stream: the peer has shut down its sending side.
    End,
    /// The connection is broken.
    Broken(io::Error),
}

/// What is in a socket that nobody has read yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unread {
    /// No byte.
    Nothing,
    /// Bytes; the first of them, and zeros if there are fewer.
    Bytes([u8; FIRST_BYTES]),
    /// The end of the stream, or of the connection.
    End,
}

/// How many bytes [`Unread`] shows: up to the end of a status code.
const FIRST_BYTES: usize = 12;

/// What one step of a lingering close did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LingerProgress {
    /// Nothing new.
    None,
    /// The peer has taken some of our last bytes; more are left.
    Flushing,
    /// The last byte and our FIN have been sent: it is the peer's turn to close.
    FinSent,
}

/// What follows a step of a lingering close.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LingerStep {
    /// An event.
    Wait,
    /// Close the connection: both sides are done, or it broke.
    Close,
    /// Another step: there is more to discard.
    Busy,
}

impl Conn {
    /// A new connection, just accepted, opened or moved here. It is assumed to be writable; the
    /// first event tells whether it is readable.
    #[must_use]
    pub fn new(stream: TcpStream) -> Conn {
        let latch = Latch { writable: true, ..Latch::default() };
        let (input, output) = (Buffer::default(), Buffer::default());
        Conn { stream, latch, tls: None, kernel: None, input, output }
    }

    /// Encrypts everything from now on. What has been read and not consumed are the peer's first
    /// records.
    pub fn start_tls(&mut self, mut session: Session, pool: &mut Pool) {
        session.begin_with(self.input.bytes());
        self.input.clear(pool);
        self.tls = Some(Box::new(session));
    }

    /// The connection's part of TLS, if it is encrypted.
    #[must_use]
    pub fn tls(&self) -> Option<&Session> {
        self.tls.as_deref().or_else(|| Some(self.kernel.as_ref()?.session()))
    }

    /// Whether its handshake (RFC 8446, section 4) is still going on: nothing else may be sent or
    /// received before [`Conn::step_handshake`] has returned true.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|session| session.is_handshaking())
    }

    /// Goes on with the handshake. True when it is done; what the peer has sent along may be read
    /// then.
    ///
    /// # Errors
    /// When it has failed.
    pub fn step_handshake(&mut self, pool: &mut Pool) -> Result<bool, TlsError> {
        let decrypted = self.decrypt(&mut []);
        let flushed = self.flush(pool).map_err(TlsError::Io);
        match decrypted {
            Some(Decrypted::Broken(error)) => Err(error),
            _ => flushed.map(|_| !self.is_handshaking()),
        }
    }

    /// Whether another process can go on with its socket alone: not if the keys of its records are here.
    #[must_use]
    pub fn can_move(&self) -> bool {
        self.tls.is_none() && self.kernel.is_none()
    }

    /// Whether its bytes may pass through a pipe instead of this process: not if they must be
    /// encrypted here.
    #[must_use]
    pub fn can_splice(&self) -> bool {
        self.tls.is_none() && self.kernel.as_ref().is_none_or(|kernel| kernel.is_pure())
    }

    /// The socket, to register it with a poll.
    pub fn source(&mut self) -> &mut impl mio::event::Source {
        &mut self.stream
    }

    /// The socket, for another process.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether a connect has completed; false while it is in progress.
    ///
    /// # Errors
    /// Why the connect failed, as connect(2).
    pub fn is_connected(&self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        // Only whether there is a peer address matters. std cannot read that of a Unix socket.
        match self.stream.peer_addr() {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            // A socket that dials a local port without a listener may be given that very port as
            // its own; then it is connected to itself (RFC 9293, 3.5, simultaneous open).
            Ok(peer) if self.stream.local_addr().is_ok_and(|local| local == peer) => {
                Err(io::ErrorKind::ConnectionRefused.into())
            }
            _ => Ok(true),
        }
    }

    /// Gives the socket away. Both buffers must be empty.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        debug_assert!(self.input.is_empty() && self.output.is_empty());
        self.stream
    }

    /// The address at our end.
    ///
    /// # Errors
    /// As getsockname(2).
    pub fn local_ip(&self) -> io::Result<IpAddr> {
        Ok(self.stream.local_addr()?.ip().to_canonical())
    }

    /// The address at this end, with its port.
    ///
    /// # Errors
    /// As getsockname(2); for a Unix socket always.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        let address = self.stream.local_addr()?;
        Ok(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    /// The address at the peer's end.
    ///
    /// # Errors
    /// As getpeername(2); for a Unix socket always.
    pub fn peer_address(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// Latches an event's readiness.
    pub fn latch(&mut self, event: &mio::event::Event) {
        self.latch.readable |= event.is_readable() || event.is_read_closed();
        self.latch.writable |= event.is_writable();
        self.latch.hung_up |= event.is_read_closed();
        self.latch.urgent |= event.is_priority();
        self.latch.broken |= event.is_error() || (event.is_write_closed() && !self.latch.shut);
        if self.kernel.is_some() && self.latch.shut && event.is_writable() {
            // A read finds it, too.
            let _ = self.send_owed_to_kernel();
        }
    }

    /// Makes the next read look, though no event has reported input.
    pub fn expect_input(&mut self) {
        self.latch.readable = true;
    }

    /// Whether a read may find something.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        match &self.tls {
            None => {
                (self.latch.readable
                    || self.kernel.as_ref().is_some_and(|kernel| !kernel.is_pure()))
                    && !self.latch.ended
            }
            Some(session) => (self.latch.readable || session.has_unread()) && !session.has_ended(),
        }
    }

    /// Whether both buffers are empty and no input is known to be waiting.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.input.is_empty() && self.output.is_empty() && !self.is_readable()
    }

    /// Whether the peer has sent its FIN, read or not.
    #[must_use]
    pub fn has_hung_up(&self) -> bool {
        self.latch.hung_up
            || self.has_ended()
            || self.tls.as_ref().is_some_and(|s| s.is_peer_closed())
            || self.kernel.as_ref().is_some_and(|kernel| kernel.stage() == Stage::PeerClosed)
    }

    /// Whether the connection is known to be broken in both directions. Bytes that arrived
    /// before it broke may still be read.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.latch.broken
    }

    /// Ends the connection in both directions: what has come may still be read, then the end.
    pub fn hang_up(&mut self) {
        // An error means that it has ended already.
        let _ = self.stream.shutdown(Shutdown::Both);
        self.latch.cut = true;
        self.latch.readable = true;
    }

    /// Whether the end of the stream has been read.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        match &self.tls {
            None => self.latch.ended,
            Some(session) => session.has_ended(),
        }
    }

    /// Reads into `into`, if there may be something to read.
    pub fn receive(&mut self, into: &mut [u8]) -> Received {
        if self.tls.is_none() && self.kernel.is_none() {
            return self.receive_raw(into);
        }
        self.receive_decrypted(into)
    }

    /// The same where the bytes are encrypted.
    #[inline(never)]
    fn receive_decrypted(&mut self, into: &mut [u8]) -> Received {
        match self.decrypt(into) {
            None if self.kernel.is_some() => self.receive_from_kernel(into),
            None => self.receive_raw(into),
            Some(Decrypted::Bytes(count)) => Received::Bytes(count),
            Some(Decrypted::Nothing) => Received::Nothing,
            Some(Decrypted::End) => Received::End,
            // We have ended it ourselves.
            Some(Decrypted::Broken(TlsError::Truncated)) if self.latch.cut => Received::End,
            Some(Decrypted::Broken(error)) => {
                self.latch.broken = true;
                Received::Broken(error.into())
            }
        }
    }

    /// Reads plaintext into `into`; with nothing there, only decrypts what has come. `None` if the
    /// connection is not encrypted.
    fn decrypt(&mut self, into: &mut [u8]) -> Option<Decrypted> {
        let mut session = self.tls.take()?;
        let decrypted = session.receive(into, |records| {
            let raw = match self.receive_raw(records) {
                Received::Bytes(count) => Raw::Bytes(count),
                Received::Nothing => Raw::Nothing,
                Received::End => Raw::End,
                Received::Broken(error) => Raw::Broken(error),
            };
            (raw, self.latch.readable)
        });
        // What rustls says to the peer is sent at once if it can be, and with what is sent next
        // otherwise.
        let control = session.control();
        if !control.is_empty() && self.output.is_empty() {
            match self.write(control) {
                Ok(taken) if taken == control.len() => *control = Vec::new(),
                Ok(taken) => _ = control.drain(..taken),
                // A read finds it, too.
                Err(_) => *control = Vec::new(),
            }
        }
        self.tls = Some(session);
        Some(decrypted)
    }

    /// Reads from the socket.
    fn receive_raw(&mut self, into: &mut [u8]) -> Received {
        if self.latch.ended {
            return Received::End;
        }
        if !self.latch.readable {
            return Received::Nothing;
        }
        loop {
            match self.stream.read(into) {
                Ok(0) => return self.ended(),
                Ok(count) => {
                    self.latch.readable =
                        count == into.len() || self.latch.hung_up || self.latch.urgent;
                    return Received::Bytes(count);
                }
                Err(error) => match self.failed(error) {
                    Some(received) => return received,
                    None => continue,
                },
            }
        }
    }

    /// One step of a lingering close: flushes the output, sends our FIN, and discards input with at
    /// most `reads` reads until the peer closes. Closing with unread bytes would make the kernel
    /// send a reset, which can destroy the last answer on its way (RFC 9112 section 9.6).
    pub fn step_linger(
        &mut self,
        scratch: &mut [u8],
        pool: &mut Pool,
        reads: usize,
    ) -> (LingerProgress, LingerStep) {
        self.input.clear(pool);
        let before = self.output.len();
        self.say_close();
        let progress = match self.flush(pool) {
            Ok(true) if self.latch.shut => LingerProgress::None,
            Ok(true) => {
                self.shut_down();
                LingerProgress::FinSent
            }
            Ok(false) if self.output.len() == before => LingerProgress::None,
            Ok(false) => LingerProgress::Flushing,
            Err(_) => return (LingerProgress::None, LingerStep::Close),
        };
        let has_failed = self.tls.as_ref().is_some_and(|session| session.has_failed());
        for _ in 0..reads {
            // What comes after a failure is discarded as it is, so that the peer reads our alert.
            let received =
                if has_failed { self.receive_raw(scratch) } else { self.receive(scratch) };
            match received {
                Received::Bytes(_) => {}
                Received::End if self.latch.shut => return (progress, LingerStep::Close),
                Received::Nothing | Received::End => return (progress, LingerStep::Wait),
                Received::Broken(_) => return (progress, LingerStep::Close),
            }
        }
        (progress, LingerStep::Busy)
    }

    /// As [`Conn::receive`], but leaves the bytes in the socket (MSG_PEEK).
    pub fn look(&mut self, into: &mut [u8]) -> Received {
        debug_assert!(self.can_splice());
        if self.kernel.is_some() {
            return self.look_in_kernel(into);
        }
        if self.latch.ended {
            return Received::End;
        }
        if !self.latch.readable {
            return Received::Nothing;
        }
        match self.stream.peek(into) {
            Ok(0) => self.ended(),
            Ok(count) => Received::Bytes(count),
            Err(error) => self.failed(error).unwrap_or(Received::Nothing),
        }
    }

    /// Moves up to `limit` bytes from the socket into a pipe. 0 bytes mean that the pipe, which was
    /// not empty, is full or the socket is empty: the kernel does not say which.
    pub fn receive_into(&mut self, pipe: &mut Pipe, limit: usize) -> Received {
        debug_assert!(self.input.is_empty() && self.can_splice());
        if self.kernel.is_some() {
            return self.splice_from_kernel(pipe, limit);
        }
        if self.latch.ended {
            return Received::End;
        }
        if !self.latch.readable {
            return Received::Nothing;
        }
        match pipe.fill(&self.stream, limit) {
            Ok(0) => self.ended(),
            // A short splice does not mean an empty socket: a page of the pipe may carry less
            // than a page of bytes, so only `EAGAIN` says that the socket is empty.
            Ok(count) => Received::Bytes(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && pipe.held() > 0 => {
                Received::Bytes(0)
            }
            Err(error) => self.failed(error).unwrap_or(Received::Nothing),
        }
    }

    fn ended(&mut self) -> Received {
        self.latch.ended = true;
        self.latch.readable = false;
        Received::End
    }

    fn failed(&mut self, error: io::Error) -> Option<Received> {
        match error.kind() {
            io::ErrorKind::Interrupted => None,
            io::ErrorKind::WouldBlock => {
                self.latch.readable = false;
                Some(Received::Nothing)
            }
            _ => {
                self.latch.broken = true;
                self.latch.readable = false;
                Some(Received::Broken(error))
            }
        }
    }

    /// Sends `bytes`; what the socket does not take now stays in [`Conn::output`]. Returns how
    /// many bytes the kernel took at once.
    ///
    /// # Errors
    /// When the connection is broken; then none of `bytes` were taken.
    pub fn send(&mut self, bytes: &[u8], pool: &mut Pool) -> io::Result<usize> {
        if self.tls.is_some() {
            return self.send_encrypted([bytes, b""], false, pool);
        }
        let taken = if self.output.is_empty() { self.write(bytes)? } else { 0 };
        self.output.push(&bytes[taken..], pool);
        Ok(taken)
    }

    /// Sends `bytes` to a peer that has sent its FIN; does so once per connection. If the peer has
    /// closed its socket, its kernel answers with a reset. If it has only shut down its sending
    /// side, nothing comes back.
    ///
    /// # Errors
    /// As [`Conn::send`].
    pub fn probe_half_closed(&mut self, bytes: &[u8], pool: &mut Pool) -> io::Result<()> {
        if std::mem::replace(&mut self.latch.probed, true) {
            return Ok(());
        }
        self.send(bytes, pool).map(drop)
    }

    /// As [`Conn::send`], for bytes that more follow at once (MSG_MORE).
    ///
    /// # Errors
    /// As [`Conn::send`].
    pub fn send_more(&mut self, bytes: &[u8], pool: &mut Pool) -> io::Result<usize> {
        if self.tls.is_some() {
            return self.send_encrypted([bytes, b""], true, pool);
        }
        let mut taken = 0;
        if self.output.is_empty() {
            taken = self.write_more(bytes)?;
        }
        self.output.push(&bytes[taken..], pool);
        Ok(taken)
    }

    /// As [`Conn::send`], for a head and the first bytes of a body in one system call.
    ///
    /// # Errors
    /// As [`Conn::send`].
    pub fn send_both(&mut self, head: &[u8], body: &[u8], pool: &mut Pool) -> io::Result<usize> {
        if self.tls.is_some() {
            return self.send_encrypted([head, body], false, pool);
        }
        let mut taken = 0;
        if self.output.is_empty() && self.latch.writable {
            let slices = [io::IoSlice::new(head), io::IoSlice::new(body)];
            let sent = self.stream.write_vectored(&slices);
            taken = self.written(sent, head.len() + body.len())?;
        }
        self.output.push(&head[taken.min(head.len())..], pool);
        self.output.push(&body[taken.saturating_sub(head.len())..], pool);
        Ok(taken)
    }

    /// Encrypts `bytes` and sends their records. Returns how many of `bytes` the kernel took at
    /// once; those of a record that it did not take whole are not counted.
    fn send_encrypted(
        &mut self,
        [head, body]: [&[u8]; 2],
        more: bool,
        pool: &mut Pool,
    ) -> io::Result<usize> {
        let Some(mut session) = self.tls.take() else { return Ok(0) };
        let (mut from, all) = (0, head.len() + body.len());
        // All that was sent before the first record that the kernel did not take whole.
        let mut at_once = None;
        let mut result = Ok(());
        while from < all && result.is_ok() {
            let rest = [&head[from.min(head.len())..], &body[from.saturating_sub(head.len())..]];
            let sent = session.encrypt(rest, |control, records| {
                if !control.is_empty() {
                    self.output.push(control, pool);
                    *control = Vec::new();
                    // What is left here waits for an event, and none comes before the socket is full.
                    self.write_output(pool)?;
                }
                let taken = match self.output.is_empty() {
                    true if more => self.write_more(records)?,
                    true => self.write(records)?,
                    false => 0,
                };
                self.output.push(&records[taken..], pool);
                io::Result::Ok(taken == records.len())
            });
            result = sent.and_then(|(count, sent)| {
                if !sent? {
                    at_once.get_or_insert(from);
                }
                from += count;
                Ok(())
            });
        }
        self.tls = Some(session);
        result.map(|()| at_once.unwrap_or(all))
    }

    /// Appends bytes to [`Conn::output`], for a later [`Conn::flush`].
    ///
    /// # Errors
    /// With TLS, when nothing more can be encrypted.
    pub fn queue(&mut self, bytes: &[u8], pool: &mut Pool) -> io::Result<()> {
        let writable = std::mem::replace(&mut self.latch.writable, false);
        let queued = self.send(bytes, pool);
        self.latch.writable = writable;
        queued.map(drop)
    }

    /// With TLS, says that we send no more (RFC 8446, section 6.1) with what is sent next.
    fn say_close(&mut self) {
        if let Some(session) = &mut self.tls {
            session.say_close();
        }
        self.owe_close_to_kernel();
    }

    /// Moves what TLS itself has to say into the output.
    fn take_control(&mut self, pool: &mut Pool) {
        if let Some(session) = &mut self.tls
            && !session.control().is_empty()
        {
            self.output.push(session.control(), pool);
            *session.control() = Vec::new();
        }
    }

    /// Sends [`Conn::output`]. True when nothing is left.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn flush(&mut self, pool: &mut Pool) -> io::Result<bool> {
        self.take_control(pool);
        self.write_output(pool)
    }

    fn write_output(&mut self, pool: &mut Pool) -> io::Result<bool> {
        if !self.output.is_empty() {
            let output = std::mem::take(&mut self.output);
            let written = self.write(output.bytes());
            self.output = output;
            self.output.consume(written?, pool);
        }
        if self.kernel.is_some() && self.output.is_empty() {
            return self.send_owed_to_kernel();
        }
        Ok(self.output.is_empty())
    }

    /// Sends what `pipe` holds. True when nothing is left.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn send_from(&mut self, pipe: &mut Pipe) -> io::Result<bool> {
        debug_assert!(self.output.is_empty() && self.can_splice());
        self.latch.sent = true;
        while pipe.held() > 0 && self.latch.writable {
            match pipe.drain(&self.stream) {
                Ok(count) if self.kernel.is_some() => self.note_sent(count, true)?,
                Ok(_) => {}
                Err(error) => _ = self.not_written(error)?,
            }
        }
        Ok(pipe.held() == 0)
    }

    /// Sends up to `limit` bytes of a file, from `offset` on, without copying them through the process.
    /// `None` if the socket takes nothing now; 0 bytes are the end of the file.
    ///
    /// # Errors
    /// When the connection is broken, or the file cannot be read.
    pub fn send_file(
        &mut self,
        file: &impl AsFd,
        offset: u64,
        limit: usize,
    ) -> io::Result<Option<usize>> {
        debug_assert!(self.output.is_empty() && self.can_splice());
        if !self.latch.writable {
            return Ok(None);
        }
        match sys::send_file(&self.stream, file, offset, limit) {
            Ok(count) => {
                self.latch.sent = true;
                if self.kernel.is_some() {
                    self.note_sent(count, true)?;
                }
                Ok(Some(count))
            }
            Err(error) => self.not_written(error).map(|_| None),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.latch.writable || bytes.is_empty() {
            return Ok(0);
        }
        let sent = self.stream.write(bytes);
        self.written(sent, bytes.len())
    }

    /// As [`Conn::write`], for bytes that more follow at once.
    fn write_more(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.kernel.is_some() {
            // It would hold back a record that is not full for as long as nothing follows.
            return self.write(bytes);
        }
        if !self.latch.writable || bytes.is_empty() {
            return Ok(0);
        }
        let sent = sys::send_more(&self.stream, bytes);
        self.written(sent, bytes.len())
    }

    /// A write that takes less than it was given has filled the socket.
    fn written(&mut self, sent: io::Result<usize>, of: usize) -> io::Result<usize> {
        match sent {
            Ok(count) => {
                self.latch.writable = count == of;
                self.latch.sent = true;
                if self.kernel.is_some() {
                    self.note_sent(count, false)?;
                }
                Ok(count)
            }
            Err(error) => self.not_written(error),
        }
    }

    fn not_written(&mut self, error: io::Error) -> io::Result<usize> {
        match error.kind() {
            // Signals are blocked in every thread, so Interrupted does not come; if it did, an
            // edge would still be owed to us.
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {
                self.latch.writable = false;
                Ok(0)
            }
            _ => {
                self.latch.writable = false;
                Err(error)
            }
        }
    }

    /// How many bytes the kernel holds for the peer. Whether it falls tells a slow peer from one
    /// that has stopped reading: the kernel says nothing before a third of its buffer is free.
    #[must_use]
    pub fn send_queue(&self) -> usize {
        sys::send_queue(&self.stream).unwrap_or(0)
    }

    /// Whether the peer closed before any of the last `count` bytes had reached it, those in the output
    /// included: it has sent its FIN and acknowledged none of them. What comes after a close is answered with a
    /// reset (RFC 9293, section 3.10.7.1), so nothing reads them any more. Never so for a Unix
    /// socket, which has no acknowledgements, nor once we have shut our side: then the end of the
    /// stream may be ours.
    #[must_use]
    pub fn closed_before_last(&self, count: u64) -> bool {
        let count = match (&self.tls, &self.kernel) {
            (None, None) => Some(count),
            (Some(session), _) => session.records_of_last(count),
            // What is left in the output is no record yet.
            (None, Some(_)) if !self.output.is_empty() => None,
            (None, Some(kernel)) => kernel.records_of_last(count),
        };
        let sent = count.unwrap_or(0).saturating_sub(self.output.len() as u64);
        // A peer that has only said that it closes may still read.
        let has_ended = self.latch.ended && self.kernel.is_none();
        (has_ended || self.has_ended() && self.latch.hung_up)
            && !self.latch.cut
            && !self.latch.shut
            && sent > 0
            && self.send_queue() as u64 >= sent
            && sys::peer(&self.stream).is_ok()
    }

    /// Acknowledges at once what has been received. For a peer that is in the middle of a message:
    /// if it writes head and body apart, Nagle's algorithm (RFC 9293, section 3.7.4) holds the body
    /// back until the head is acknowledged, which the kernel would delay by 40 ms. Costs a system
    /// call.
    pub fn acknowledge_now(&self) {
        // It fails on a Unix socket, which needs none.
        let _ = sys::acknowledge_now(&self.stream);
    }

    /// Whether the kernel may hold bytes for the peer.
    #[must_use]
    pub(super) fn may_hold_bytes(&self) -> bool {
        self.latch.sent
    }

    /// The kernel has been found to hold no bytes for the peer.
    pub(super) fn all_taken(&mut self) {
        self.latch.sent = false;
    }

    /// What the kernel knows of the peer.
    ///
    /// # Errors
    /// As getsockopt(2); for a Unix socket always.
    pub(super) fn peer_state(&self) -> io::Result<sys::Peer> {
        sys::peer(&self.stream)
    }

    /// The shortest time in which the peer's kernel has acknowledged something, of the last minutes;
    /// the delay that kernels add to acknowledgements is not in it. `None` if the kernel does not say,
    /// and for a Unix socket. Costs a system call.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        // A kernel that has measured nothing yet has the largest number there.
        let time = sys::peer(&self.stream).ok()?.round_trip;
        (time < Duration::from_micros(u32::MAX.into())).then_some(time)
    }

    /// Sets TCP_USER_TIMEOUT. The connection may have been closed by the peer: then it does not
    /// matter.
    pub(super) fn set_user_timeout(&self, timeout: Duration) {
        let _ = sys::set_user_timeout(&self.stream, timeout);
    }

    /// How long the peer's kernel has acknowledged nothing, if bytes for it have been sent again and
    /// again; `None` if it owes nothing, or for a Unix socket.
    #[must_use]
    pub fn unheard_for(&self) -> Option<Duration> {
        sys::unheard_for(&self.stream).ok().flatten()
    }

    /// Sends our FIN: no more bytes will come from here.
    pub fn shut_down(&mut self) {
        if !self.latch.shut {
            self.write_close();
            self.latch.shut = true;
            if !self.shut_down_kernel() {
                let _ = self.stream.shutdown(Shutdown::Write);
            }
        }
    }

    /// With TLS, says that we send no more, if nothing else is left to be sent: what was cut off must
    /// not look whole.
    pub(super) fn write_close(&mut self) {
        if self.output.is_empty()
            && !self.latch.shut
            && let Some(mut session) = self.tls.take()
        {
            session.say_close();
            // If the socket is full, the peer takes what it has for cut off.
            let _ = self.write(session.control());
            session.control().clear();
            self.tls = Some(session);
        }
        if self.kernel.is_some() && self.output.is_empty() && !self.latch.shut {
            self.owe_close_to_kernel();
            let _ = self.send_owed_to_kernel();
        }
    }

    /// Whether [`Conn::shut_down`] has been called.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        self.latch.shut
    }

    /// Makes the close of this connection a reset, so that what was cut off looks cut off.
    pub fn reset_on_close(&mut self) {
        // Not even TLS may say that this was all.
        self.latch.shut = true;
        let _ = sys::reset_on_close(&self.stream);
    }

    /// Whether the peer has neither sent anything nor closed, as far as the kernel has reported.
    /// Only if it has reported something is it asked again.
    #[must_use]
    pub fn is_quiet(&mut self) -> bool {
        !self.is_readable() || self.probe_idle()
    }

    /// As [`Conn::is_quiet`], but always asks the kernel, at the price of a system call, since an
    /// event may still be on its way; latches the answer. For connections that must not be used
    /// after their peer has closed.
    #[must_use]
    pub fn probe_idle(&mut self) -> bool {
        self.unread() == Unread::Nothing
    }

    /// Asks the kernel what has come and has not been read, as [`Conn::probe_idle`].
    pub fn unread(&mut self) -> Unread {
        if self.kernel.is_some() {
            return self.unread_in_kernel();
        }
        let mut first = [0; FIRST_BYTES];
        if self.tls.is_some() {
            // Records may have come without a byte for us, such as tickets.
            self.latch.readable = true;
            let decrypted = self.decrypt(&mut []);
            let unread = self.tls.as_ref().map_or(&b""[..], |session| session.unread());
            let count = unread.len().min(FIRST_BYTES);
            first[..count].copy_from_slice(&unread[..count]);
            let unread = match decrypted {
                _ if count > 0 => Unread::Bytes(first),
                Some(Decrypted::Nothing | Decrypted::Bytes(_)) => Unread::Nothing,
                Some(Decrypted::End | Decrypted::Broken(_)) | None => Unread::End,
            };
            // The next read finds it, too.
            self.latch.readable |= unread == Unread::End;
            return unread;
        }
        let unread = match self.stream.peek(&mut first) {
            Ok(0) => Unread::End,
            Ok(_) => Unread::Bytes(first),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Unread::Nothing,
            Err(_) => Unread::End,
        };
        self.latch.readable = unread != Unread::Nothing;
        unread
    }
}
