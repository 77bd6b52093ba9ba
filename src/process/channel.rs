//! The channel between a program and the one that replaces it (`doc/upgrade.md`).
//!
//! It carries messages, each a line of text with bytes behind it, and descriptors. The new program
//! has its end as standard input. When one of the two ends, the other one's channel ends.

use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::net::sys::{self, Stream};

/// Tells a program that its standard input is such a channel.
pub const VARIABLE: &str = "CLOUDBRIDGE_UPGRADE";

/// Longest message, in bytes: a request's head and the beginning of its body fit.
const LONGEST: usize = 160 << 10;

/// Longest line, in bytes, before bytes that [`Channel::fits`] is asked about.
const LINE: usize = 4 << 10;

/// One end of the channel. Several threads may send.
#[derive(Debug)]
pub struct Channel {
    /// Of kind SOCK_SEQPACKET; std has no type for these, and this one does the same calls.
    socket: UnixDatagram,
    /// Room for the longest message.
    room: Mutex<Vec<u8>>,
}

/// What has been received.
#[derive(Debug)]
pub struct Message {
    /// A line of text, a line end, and whatever follows it.
    pub bytes: Vec<u8>,
    /// Copies of the sender's descriptors.
    pub files: Vec<OwnedFd>,
}

impl Channel {
    /// Both ends.
    ///
    /// # Errors
    /// As socketpair(2).
    pub fn pair() -> io::Result<(Channel, Channel)> {
        let (one, other) = sys::message_pair()?;
        Ok((Channel::new(one), Channel::new(other)))
    }

    /// The end that a program which is to replace another has as standard input; nothing for one
    /// that has been started by somebody else.
    ///
    /// # Errors
    /// When standard input is closed, or cannot be replaced.
    pub fn inherited() -> io::Result<Option<Channel>> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        sys::replace_stream(Stream::Input, &File::open("/dev/null")?)?;
        Ok(Some(Channel::new(socket)))
    }

    fn new(socket: OwnedFd) -> Channel {
        Channel { socket: socket.into(), room: Mutex::default() }
    }

    /// Makes it the standard input of a program.
    #[must_use]
    pub fn into_stdio(self) -> Stdio {
        OwnedFd::from(self.socket).into()
    }

    /// How long a message may wait to be sent or received; `None` for any time.
    ///
    /// # Errors
    /// As setsockopt(2).
    pub fn set_timeouts(
        &self,
        send: Option<Duration>,
        receive: Option<Duration>,
    ) -> io::Result<()> {
        self.socket.set_write_timeout(send)?;
        self.socket.set_read_timeout(receive)
    }

    /// Most bytes that fit into a message, with a line of some length before them.
    pub const MOST_BYTES: usize = LONGEST - LINE;

    /// Ends it for both programs, whoever in this process still has it.
    pub fn end(&self) {
        // It fails only if the other program has ended.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Whether so many bytes fit into a message.
    #[must_use]
    pub fn fits(count: usize) -> bool {
        count <= Channel::MOST_BYTES
    }

    /// Sends a line of text, the bytes that belong to it, and copies of these descriptors.
    ///
    /// # Errors
    /// As sendmsg(2): `BrokenPipe` or `ConnectionReset` when the other program has ended,
    /// `WouldBlock` when it does not receive in time, `EMSGSIZE` for more than a message can have.
    pub fn send(&self, line: &str, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        if line.len() + 1 + bytes.len() > LONGEST {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        let message = [line.as_bytes(), b"\n", bytes].concat();
        sys::send_files(self.socket.as_fd(), &message, files)
    }

    /// The next message; `None` when the other program has ended.
    ///
    /// # Errors
    /// As recvmsg(2): `WouldBlock` when none comes in time.
    pub fn receive(&self) -> io::Result<Option<Message>> {
        // A panic while it is locked leaves nothing in it that counts.
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        room.resize(LONGEST, 0);
        loop {
            match sys::receive_files(self.socket.as_fd(), &mut room) {
                Ok((0, _)) => return Ok(None),
                Ok((count, files)) => {
                    return Ok(Some(Message { bytes: room[..count].to_vec(), files }));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The other end was closed with messages unread. Its own last ones come after this.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Message {
    /// Its line of text, read as JSON; null if it is not JSON.
    #[must_use]
    pub fn line(&self) -> Value {
        serde_json::from_slice(self.parts().0).unwrap_or_default()
    }

    /// Its line of text, and what is behind that.
    #[must_use]
    pub fn parts(&self) -> (&[u8], &[u8]) {
        match memchr::memchr(b'\n', &self.bytes) {
            Some(end) => (&self.bytes[..end], &self.bytes[end + 1..]),
            None => (&self.bytes, b""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_message_comes_with_its_descriptors_and_an_end_is_seen() {
        let (one, other) = Channel::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        one.send("{}", b"a\nb", &[writer.as_fd(), writer.as_fd()]).unwrap();
        one.send("next", b"", &[]).unwrap();
        drop(writer);
        let message = other.receive().unwrap().unwrap();
        assert_eq!(message.parts(), (&b"{}"[..], &b"a\nb"[..]));
        let [first, second] = <[OwnedFd; 2]>::try_from(message.files).unwrap();
        File::from(first).write_all(b"through ").unwrap();
        File::from(second).write_all(b"both").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through both");
        let message = other.receive().unwrap().unwrap();
        assert_eq!((message.parts(), message.files.len()), ((&b"next"[..], &b""[..]), 0));
        drop(one);
        assert!(other.receive().unwrap().is_none());
        let error = other.send("late", b"", &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn as_many_descriptors_as_fit_and_no_more() {
        let (one, other) = Channel::pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        let many = vec![file.as_fd(); sys::MOST_FILES + 1];
        assert_eq!(one.send("", b"", &many).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        one.send("", b"", &many[1..]).unwrap();
        assert_eq!(other.receive().unwrap().unwrap().files.len(), sys::MOST_FILES);
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_and_one_that_nobody_takes_waits_no_longer() {
        let (one, _other) = Channel::pair().unwrap();
        let error = one.send("", &vec![0; LONGEST], &[]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        one.set_timeouts(Some(Duration::from_millis(20)), None).unwrap();
        let full = loop {
            match one.send("", &[0; 1000], &[]) {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    }
}
