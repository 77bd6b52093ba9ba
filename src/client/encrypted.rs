//! A TLS connection to the proxy, for threads. One may read while another writes.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::mem;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::records::{ROOM, Records};
use crate::net::sys;
use crate::net::tls::TlsError;

/// The socket, and our end of TLS. Locks are taken in the order of the fields.
pub(crate) struct Encrypted {
    tcp: TcpStream,
    /// Held during a whole read, so that records are decrypted in their order, by one thread at a time.
    reading: Mutex<()>,
    /// Held until what was encrypted has been sent, so that records are sent in their order.
    writing: Mutex<Unsent>,
    /// Held only for a moment, never while the socket is waited for.
    records: Mutex<Records>,
}

/// Records that the socket has not taken yet.
#[derive(Default)]
struct Unsent {
    records: Vec<u8>,
    sent: usize,
    /// The plaintext in them that no write has returned yet.
    owed: usize,
}

impl Unsent {
    fn is_empty(&self) -> bool {
        self.sent == self.records.len()
    }

    /// Sends what there is. What is left at an error can be sent later.
    fn send(&mut self, mut tcp: &TcpStream) -> io::Result<()> {
        while !self.is_empty() {
            match tcp.write(&self.records[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.sent = 0;
        self.records.clear();
        // An idle bridge does not keep the memory of a large response.
        self.records.shrink_to(2 * ROOM);
        Ok(())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Encrypted {
    pub fn new(tcp: TcpStream, records: Records) -> Encrypted {
        let (reading, writing) = (Mutex::default(), Mutex::default());
        Encrypted { tcp, reading, writing, records: Mutex::new(records) }
    }

    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Agrees on keys, and finds out who the peer is, in this time at most. The socket's read timeout
    /// is changed.
    ///
    /// # Errors
    ///
    /// A [`TlsError`] inside; what is wrong with the peer, or that the time is over.
    pub fn handshake(&self, within: Duration) -> io::Result<()> {
        let until = Instant::now() + within;
        loop {
            self.answer()?;
            if !locked(&self.records).is_handshaking() {
                return Ok(());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(TlsError::Timeout.into());
            }
            self.tcp.set_read_timeout(Some(left))?;
            match self.feed() {
                Ok(0) => return Err(TlsError::Ended.into()),
                Ok(_) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Err(TlsError::Timeout.into());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads from the socket once. Returns how many bytes have come, 0 at the end.
    fn feed(&self) -> io::Result<usize> {
        let mut bytes = [0; ROOM];
        let count = (&self.tcp).read(&mut bytes)?;
        let fed = locked(&self.records).feed(&bytes[..count]);
        if fed.is_err() {
            // The peer is told why, if it still listens.
            let _ = self.answer();
        }
        fed.map(|()| count)
    }

    /// Sends what TLS itself has to say. If another thread is just writing, that sends it, or the next write.
    fn answer(&self) -> io::Result<()> {
        let Ok(mut unsent) = self.writing.try_lock() else { return Ok(()) };
        locked(&self.records).answer(&mut unsent.records)?;
        unsent.send(&self.tcp)
    }

    /// As [`TcpStream::read`]. The end is a close_notify; without one the connection has broken.
    pub fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        self.receive(|records| records.take(into))
    }

    /// As [`TcpStream::peek`].
    pub fn peek(&self, into: &mut [u8]) -> io::Result<usize> {
        self.receive(|records| records.peek(into))
    }

    fn receive(
        &self,
        mut taken: impl FnMut(&mut Records) -> io::Result<Option<usize>>,
    ) -> io::Result<usize> {
        let _turn = locked(&self.reading);
        loop {
            if let Some(count) = taken(&mut locked(&self.records))? {
                return Ok(count);
            }
            self.feed()?;
            // What cannot be sent now goes before the next write, and what is wrong is told to that.
            let _ = self.answer();
        }
    }

    /// What can be read without the socket; `None` if that is nothing.
    #[cfg(feature = "tokio")]
    pub fn read_held(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        locked(&self.records).take(into)
    }

    /// As [`TcpStream::write_vectored`]. After a timeout the same bytes must be written again, or none.
    pub fn write(&self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut unsent = locked(&self.writing);
        if unsent.owed == 0 {
            unsent.owed = self.encrypt(bytes, &mut unsent.records)?;
        } else if bytes.iter().map(|slice| slice.len()).sum::<usize>() < unsent.owed {
            let what = "a write that has timed out is repeated with other bytes";
            return Err(io::Error::new(ErrorKind::InvalidInput, what));
        }
        unsent.send(&self.tcp)?;
        Ok(mem::take(&mut unsent.owed))
    }

    /// Encrypts and sends a few bytes without waiting, even if the socket does. What the socket does not take is
    /// sent before the next write.
    ///
    /// # Errors
    ///
    /// Another write is under way, or the connection is gone.
    pub fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let Ok(mut unsent) = self.writing.try_lock() else {
            return Err(ErrorKind::WouldBlock.into());
        };
        if !unsent.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = self.encrypt(&[IoSlice::new(bytes)], &mut unsent.records)?;
        match sys::send_now(&self.tcp, &unsent.records) {
            Ok(sent) => unsent.sent = sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if unsent.is_empty() {
            (unsent.records, unsent.sent) = (Vec::new(), 0);
        }
        Ok(count)
    }

    fn encrypt(&self, bytes: &[IoSlice<'_>], records: &mut Vec<u8>) -> io::Result<usize> {
        locked(&self.records).encrypt(bytes, records)
    }

    /// Encrypts the beginning of `bytes` and sends as much of it as the socket takes; the rest is left to
    /// [`Encrypted::flush`], which must have been done before. The socket does not block.
    #[cfg(feature = "tokio")]
    pub fn write_some(&self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut unsent = locked(&self.writing);
        let count = self.encrypt(bytes, &mut unsent.records)?;
        match unsent.send(&self.tcp) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(count),
            sent => sent.map(|()| count),
        }
    }

    /// Sends what is left.
    ///
    /// # Errors
    ///
    /// `WouldBlock`: the socket takes no more now.
    #[cfg(feature = "tokio")]
    pub fn flush(&self) -> io::Result<()> {
        locked(&self.writing).send(&self.tcp)
    }

    #[cfg(feature = "tokio")]
    pub fn is_flushed(&self) -> bool {
        locked(&self.writing).is_empty()
    }

    /// Adds a close_notify to what is to be sent.
    #[cfg(feature = "tokio")]
    pub fn say_close(&self) {
        let mut unsent = locked(&self.writing);
        locked(&self.records).close(&mut unsent.records);
    }

    /// As [`TcpStream::shutdown`]: the peer is told that no more comes, unless a thread is just writing.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if how != Shutdown::Read
            && let Ok(mut unsent) = self.writing.try_lock()
            && unsent.is_empty()
        {
            locked(&self.records).close(&mut unsent.records);
            // It may be gone already.
            let _ = unsent.send(&self.tcp);
        }
        self.tcp.shutdown(how)
    }
}

/// As a plain connection ends with a FIN, this one ends with a close_notify, if nothing is left to be sent.
impl Drop for Encrypted {
    fn drop(&mut self) {
        let unsent = self.writing.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !unsent.is_empty() || self.tcp.set_nonblocking(true).is_err() {
            return;
        }
        self.records.get_mut().unwrap_or_else(PoisonError::into_inner).close(&mut unsent.records);
        // Nobody waits for it.
        let _ = unsent.send(&self.tcp);
    }
}

impl AsRawFd for Encrypted {
    fn as_raw_fd(&self) -> RawFd {
        self.tcp.as_raw_fd()
    }
}
