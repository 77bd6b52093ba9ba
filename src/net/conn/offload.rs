//! Connections that the kernel encrypts (see `ktls.rs`).
//!
//! Their bytes are read, written and spliced as if they were not encrypted. The kernel tells by an
//! error that a record of another kind comes next: `EIO` for a read, `EINVAL` for a splice. Such a
//! record is read by recvmsg(2), which tells its type.
//!
//! A read stops short in front of such a record. The kernel makes an edge for each record that it
//! finds whole when it comes to it, so this one has an edge of its own, and the rule of [`Conn`] holds:
//! a read that does not fill its buffer is the last before the next edge.

use std::io;
use std::net::Shutdown;
use std::time::Duration;

use mio::net::TcpStream;
use rustls::AlertDescription;

use super::{Conn, FIRST_BYTES, Received, Unread};
use crate::net::ktls::{self, Heard, Kernel, Record, Stage, Way};
use crate::net::pipe::Pipe;
use crate::net::sys;
use crate::net::tls::{TlsError, with_records};

#[cfg(test)]
mod tests;

impl Conn {
    /// Gives the keys of a session whose handshake is done to the kernel, if it takes them and nothing
    /// is on its way. True if it has them now.
    ///
    /// # Errors
    /// When the kernel has not taken what it takes otherwise. The connection is good for nothing then.
    pub(in crate::net) fn offload(&mut self) -> io::Result<bool> {
        if !self.output.is_empty() {
            return Ok(false);
        }
        let Some(mut session) = self.tls.take() else { return Ok(false) };
        let suite = session.movable_ciphers().filter(|suite| ktls::support().has(*suite));
        // The peer may have closed meanwhile: then it fails, and the session tells.
        let Some(suite) = suite.filter(|_| sys::attach_tls(&self.stream).is_ok()) else {
            self.tls = Some(session);
            return Ok(false);
        };
        let (secrets, keys) = session.give_keys().map_err(io::Error::other)?;
        let (kernel, [sending, receiving]) =
            Kernel::new(session, suite, &secrets, keys).map_err(io::Error::other)?;
        self.kernel = Some(Box::new(kernel));
        sys::set_tls_keys(&self.stream, true, sending.bytes())?;
        sys::set_tls_keys(&self.stream, false, receiving.bytes())?;
        // An old kernel does not know it.
        let _ = sys::expect_no_padding(&self.stream);
        Ok(true)
    }

    /// Whether the kernel encrypts it.
    #[must_use]
    pub fn is_offloaded(&self) -> bool {
        self.kernel.is_some()
    }

    /// Whether it should carry no more exchanges, since its keys have been used nearly as often as they
    /// may be, and it cannot get others.
    #[must_use]
    pub fn is_worn(&self) -> bool {
        self.kernel.as_ref().is_some_and(|kernel| kernel.is_worn() && !kernel.owes().key_update)
    }

    /// As [`Conn::receive`].
    pub(super) fn receive_from_kernel(&mut self, into: &mut [u8]) -> Received {
        if let Some(kernel) = &mut self.kernel
            && !kernel.is_pure()
        {
            return Received::Bytes(kernel.session_mut().take_unread(into));
        }
        match self.read_kernel(|stream| io::Read::read(stream, into)) {
            // What has come is aside.
            Received::Bytes(0) => self.receive_from_kernel(into),
            Received::Bytes(count) => {
                self.latch.readable =
                    count == into.len() || self.latch.hung_up || self.latch.urgent;
                Received::Bytes(count)
            }
            received => received,
        }
    }

    /// As [`Conn::look`].
    pub(super) fn look_in_kernel(&mut self, into: &mut [u8]) -> Received {
        if let Some(kernel) = &self.kernel
            && !kernel.is_pure()
        {
            let unread = kernel.session().unread();
            let count = unread.len().min(into.len());
            into[..count].copy_from_slice(&unread[..count]);
            return Received::Bytes(count);
        }
        match self.read_kernel(|stream| stream.peek(into)) {
            Received::Bytes(0) => self.look_in_kernel(into),
            received => received,
        }
    }

    /// As [`Conn::receive_into`].
    pub(super) fn splice_from_kernel(&mut self, pipe: &mut Pipe, limit: usize) -> Received {
        debug_assert!(limit > 0);
        let received = self.read_kernel(|stream| match pipe.fill(stream, limit) {
            // The end, or a record without a byte in it: a look tells.
            Ok(0) => match stream.peek(&mut [0]) {
                Ok(0) => Ok(0),
                Ok(_) => Err(io::ErrorKind::Interrupted.into()),
                Err(error) => Err(error),
            },
            filled => filled,
        });
        match received {
            // The pipe may be full.
            Received::Nothing if pipe.held() > 0 => {
                self.latch.readable = true;
                Received::Bytes(0)
            }
            received => received,
        }
    }

    /// As [`Conn::unread`].
    pub(super) fn unread_in_kernel(&mut self) -> Unread {
        let mut first = [0; FIRST_BYTES];
        if self.kernel.as_ref().is_some_and(|kernel| kernel.is_pure()) {
            self.latch.readable = !self.latch.ended;
        }
        match self.look_in_kernel(&mut first) {
            Received::Bytes(_) => Unread::Bytes(first),
            Received::Nothing => Unread::Nothing,
            Received::End | Received::Broken(_) => Unread::End,
        }
    }

    /// Reads from the socket by `read`, and does what other records ask for. 0 bytes mean that
    /// application data has come where another record was expected: it is aside.
    fn read_kernel(
        &mut self,
        mut read: impl FnMut(&mut TcpStream) -> io::Result<usize>,
    ) -> Received {
        let Some(mut kernel) = self.kernel.take() else { return Received::Nothing };
        let received = loop {
            match kernel.stage() {
                Stage::Open => {}
                Stage::PeerClosed => break Received::End,
                Stage::Failed => break self.cut_off(&mut kernel),
            }
            if !self.latch.readable {
                break Received::Nothing;
            }
            match read(&mut self.stream) {
                Ok(0) => break self.cut_off(&mut kernel),
                Ok(count) => {
                    kernel.note_received();
                    break Received::Bytes(count);
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EIO | libc::EINVAL) => {
                        if let Some(received) = self.read_record(&mut kernel) {
                            break received;
                        }
                    }
                    Some(libc::EBADMSG) => {
                        self.send_alert(AlertDescription::BadRecordMac);
                        break self
                            .lost(&mut kernel, TlsError::Protocol(rustls::Error::DecryptError));
                    }
                    Some(libc::EMSGSIZE) => {
                        self.send_alert(AlertDescription::RecordOverflow);
                        let error = rustls::Error::PeerSentOversizedRecord;
                        break self.lost(&mut kernel, TlsError::Protocol(error));
                    }
                    _ => {
                        if let Some(received) = self.failed(error) {
                            break received;
                        }
                    }
                },
            }
        };
        self.kernel = Some(kernel);
        received
    }

    /// The stream has ended, and the peer has not said that it would.
    fn cut_off(&mut self, kernel: &mut Kernel) -> Received {
        // We have ended it ourselves.
        if self.latch.cut {
            return self.ended();
        }
        self.lost(kernel, TlsError::Truncated)
    }

    fn lost(&mut self, kernel: &mut Kernel, error: TlsError) -> Received {
        kernel.set_stage(Stage::Failed);
        self.latch.broken = true;
        self.latch.readable = false;
        Received::Broken(error.into())
    }

    /// Reads a record that is not application data. `None` when there may be more to read.
    fn read_record(&mut self, kernel: &mut Kernel) -> Option<Received> {
        let heard = with_records(|records| {
            Ok(match sys::receive_record(&self.stream, records)? {
                (None, 0) => None,
                // It was not what it seemed to be.
                (None | Some(ktls::APPLICATION_DATA), count) => {
                    kernel.session_mut().put_aside(&records[..count]);
                    Some(Ok(Heard::Data))
                }
                (Some(kind), count) => Some(kernel.hear(kind, &records[..count])),
            })
        });
        let told = match heard {
            Ok(Some(Ok(Heard::Nothing))) => return None,
            Ok(Some(Ok(Heard::Data))) => return Some(Received::Bytes(0)),
            Ok(Some(Ok(Heard::Closed))) => {
                kernel.set_stage(Stage::PeerClosed);
                return Some(self.ended());
            }
            Ok(Some(Ok(Heard::Renegotiation))) => self.send_record(&Record::NoRenegotiation),
            Ok(Some(Ok(Heard::NewKeys))) => self.take_new_keys(kernel),
            Ok(Some(Err(fault))) => {
                if let Some(alert) = fault.alert {
                    self.send_alert(alert);
                }
                return Some(self.lost(kernel, fault.error));
            }
            Ok(None) => return Some(self.cut_off(kernel)),
            // A record that the kernel cannot read has stopped it.
            Err(error) => return Some(self.lost(kernel, TlsError::Io(error))),
        };
        match told {
            Ok(_) => None,
            Err(error) => Some(self.lost(kernel, TlsError::Io(error))),
        }
    }

    /// The peer encrypts by its next keys from now on. Sends ours, if it has asked for them.
    fn take_new_keys(&mut self, kernel: &mut Kernel) -> io::Result<bool> {
        let keys = kernel.next_keys(Way::Receiving).map_err(io::Error::other)?;
        match sys::set_tls_keys(&self.stream, false, keys.bytes()) {
            Ok(()) => self.settle(kernel),
            Err(error) => {
                log::debug!(
                    "a peer has new keys (KeyUpdate), which this kernel does not take for a \
                     connection that it decrypts already; Linux 6.14 does: {error}"
                );
                self.send_alert(AlertDescription::InternalError);
                Err(error)
            }
        }
    }

    /// Whether something is still to be sent, by us or by TLS.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        !self.output.is_empty() || self.kernel.as_ref().is_some_and(|kernel| !kernel.is_settled())
    }

    /// Notes what has been sent.
    ///
    /// # Errors
    /// When nothing more may be sent.
    pub(super) fn note_sent(&mut self, bytes: usize, spliced: bool) -> io::Result<()> {
        let Some(mut kernel) = self.kernel.take() else { return Ok(()) };
        if spliced {
            kernel.note_spliced(bytes);
        } else {
            kernel.note_sent(bytes);
        }
        let mut noted = Ok(());
        if kernel.owes().key_update {
            noted = self.settle(&mut kernel).map(drop);
        }
        if kernel.is_spent() {
            noted = Err(io::Error::other("the keys of TLS have been used as often as they may be"));
        }
        self.kernel = Some(kernel);
        noted
    }

    /// Sends what TLS itself has to say. True when nothing is left of it.
    ///
    /// # Errors
    /// When the connection is broken.
    pub(super) fn settle_kernel(&mut self) -> io::Result<bool> {
        let Some(mut kernel) = self.kernel.take() else { return Ok(true) };
        let settled = if kernel.is_settled() { Ok(true) } else { self.settle(&mut kernel) };
        if settled.is_err() {
            kernel.all_sent();
        }
        self.kernel = Some(kernel);
        settled
    }

    fn settle(&mut self, kernel: &mut Kernel) -> io::Result<bool> {
        if kernel.owes().key_update {
            if !self.send_record(&Record::KeyUpdate)? {
                return Ok(false);
            }
            let keys = kernel.next_keys(Way::Sending).map_err(io::Error::other)?;
            sys::set_tls_keys(&self.stream, true, keys.bytes())?;
        }
        if kernel.owes().close {
            // The kernel takes more than it can send at once, and a FIN or a close loses the rest of
            // it. While the socket has room, nothing is left over.
            if !sys::wait_writable(super::AsFd::as_fd(&self.stream), Some(Duration::ZERO))? {
                self.latch.writable = false;
                return Ok(false);
            }
            if !self.send_record(&Record::CloseNotify)? {
                return Ok(false);
            }
            kernel.close_sent();
        }
        if kernel.owes().fin {
            kernel.all_sent();
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        Ok(true)
    }

    /// Says that we send no more, with what is sent next.
    pub(super) fn owe_close_to_kernel(&mut self) {
        if let Some(kernel) = &mut self.kernel {
            kernel.owe_close();
        }
    }

    /// Sends our FIN: as soon as the kernel has sent everything before it. False if it does not encrypt
    /// this connection.
    pub(super) fn shut_down_kernel(&mut self) -> bool {
        let Some(kernel) = &mut self.kernel else { return false };
        kernel.owe_fin();
        // What is left in the output is lost, and there is no close_notify.
        if !self.output.is_empty() || self.settle_kernel().is_err() {
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        true
    }

    /// Sends a record. False when the socket is full.
    fn send_record(&mut self, record: &Record) -> io::Result<bool> {
        let (kind, bytes) = record.encode();
        match sys::send_record(&self.stream, kind, &bytes) {
            Ok(()) => {
                self.latch.sent = true;
                Ok(true)
            }
            Err(error) => self.not_written(error).map(|_| false),
        }
    }

    /// Tells the peer why the connection ends, if it still takes anything.
    fn send_alert(&mut self, description: AlertDescription) {
        let _ = self.send_record(&Record::Fatal(description));
    }
}
