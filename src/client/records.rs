//! Our end of one TLS connection, without a socket: records in, records out.

use std::io::{self, ErrorKind, IoSlice, Read, Write};

use rustls::ClientConnection;

use crate::net::tls::TlsError;

/// Most bytes that are put back, or encrypted, at once.
pub(super) const ROOM: usize = 16 * 1024;

pub(crate) struct Records {
    tls: ClientConnection,
    /// Plaintext that is read before what rustls holds: it was only looked at, or rustls had no room
    /// for what came after it.
    plain: Vec<u8>,
    has_said_close: bool,
    /// The peer has broken the protocol, or is not the one that we want.
    has_failed: bool,
}

impl Records {
    pub fn new(tls: ClientConnection) -> Records {
        Records { tls, plain: Vec::new(), has_said_close: false, has_failed: false }
    }

    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Takes plaintext; 0 at the end, and `None` if more records are needed.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the connection has ended without a close_notify (RFC 8446, section 6.1).
    pub fn take(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        if into.is_empty() {
            return Ok(Some(0));
        }
        if !self.plain.is_empty() {
            let count = self.look(into);
            self.plain.drain(..count);
            if self.plain.is_empty() {
                // An idle bridge keeps no storage.
                self.plain = Vec::new();
            }
            return Ok(Some(count));
        }
        match self.tls.reader().read(into) {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(TlsError::Truncated.into())
            }
            Err(error) => Err(error),
        }
    }

    /// As [`Records::take`], but the bytes can be taken again.
    pub fn peek(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        if !self.plain.is_empty() {
            return Ok(Some(self.look(into)));
        }
        let taken = self.take(into)?;
        if let Some(count) = taken {
            self.plain.extend_from_slice(&into[..count]);
        }
        Ok(taken)
    }

    fn look(&self, into: &mut [u8]) -> usize {
        let count = self.plain.len().min(into.len());
        into[..count].copy_from_slice(&self.plain[..count]);
        count
    }

    /// Takes in what the socket has brought; nothing means its end.
    ///
    /// # Errors
    ///
    /// The peer has broken the protocol, or cannot be trusted. There is an alert for it then.
    pub fn feed(&mut self, mut records: &[u8]) -> io::Result<()> {
        if records.is_empty() {
            self.tls.read_tls(&mut io::empty())?;
        }
        // After the peer's close_notify nothing is read any more.
        while !records.is_empty() && self.tls.read_tls(&mut records)? > 0 {
            self.tls.process_new_packets().map_err(|error| {
                self.has_failed = true;
                TlsError::Protocol(error)
            })?;
            if !records.is_empty() {
                self.put_aside()?;
            }
        }
        Ok(())
    }

    /// Makes room in rustls for the plaintext of more records.
    fn put_aside(&mut self) -> io::Result<()> {
        match self.tls.reader().read_to_end(&mut self.plain) {
            Err(error)
                if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::UnexpectedEof) =>
            {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Encrypts the beginning of `bytes` to the end of `records`. Returns how many bytes it was.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` after [`Records::close`].
    pub fn encrypt(&mut self, bytes: &[IoSlice<'_>], records: &mut Vec<u8>) -> io::Result<usize> {
        if self.has_said_close {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let count = self.tls.writer().write_vectored(bytes)?;
        self.answer(records)?;
        Ok(count)
    }

    /// Appends what is to be sent to `records`: the handshake, alerts, and what was encrypted.
    pub fn answer(&mut self, records: &mut Vec<u8>) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(records)?;
        }
        Ok(())
    }

    /// Says that we send no more, once: appends a close_notify to `records`.
    pub fn close(&mut self, records: &mut Vec<u8>) {
        if self.has_said_close || self.has_failed || self.is_handshaking() {
            return;
        }
        self.has_said_close = true;
        self.tls.send_close_notify();
        // Writing into memory does not fail.
        let _ = self.answer(records);
    }
}
