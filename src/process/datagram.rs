//! A Unix datagram socket that takes log lines: that of a syslog daemon, or of a collector.
//!
//! Such a daemon may be started later, restarted, or slow. Whatever it does, a line that it does not
//! take is lost and counted, and only the thread that writes ever waits, not for long.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::net::sys;

/// How long a full socket is waited for. Its queue holds ten datagrams on many systems, so a daemon
/// that is busy for a moment must not cost lines.
const FULL_TIMEOUT: Duration = Duration::from_secs(1);

/// The socket at which every syslog daemon listens: its datagrams have a header.
const SYSLOG: &str = "/dev/log";

/// In the header: facility local0, severity information (RFC 3164, section 4.1.1).
const PRIORITY: u32 = 16 * 8 + 6;

/// A socket at a path, which need not be there yet.
#[derive(Debug)]
pub struct Datagram {
    socket: UnixDatagram,
    path: PathBuf,
    is_connected: Cell<bool>,
}

impl Datagram {
    /// For the socket at `path`.
    ///
    /// # Errors
    /// As socket(2). That nobody listens at `path` is none.
    pub fn new(path: &Path) -> io::Result<Datagram> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Datagram { socket, path: path.to_owned(), is_connected: Cell::new(false) })
    }

    /// Sends each of these whole lines, without its line end. If any are lost, how many, and the
    /// last error.
    pub(super) fn send_lines(&self, lines: &[u8]) -> Result<(), (u64, io::Error)> {
        let header = if self.path == Path::new(SYSLOG) { header() } else { String::new() };
        let mut datagram = Vec::new();
        let mut failed: Option<(u64, io::Error)> = None;
        let mut is_open = true;
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let sent = match is_open {
                true => {
                    datagram.clear();
                    datagram.extend_from_slice(header.as_bytes());
                    datagram.extend_from_slice(line);
                    self.send(&datagram)
                }
                // The rest is lost with the line before it: each try could take as long.
                false => Err(io::ErrorKind::Other.into()),
            };
            let Err(error) = sent else { continue };
            // A line that is too long says nothing about the next.
            let goes_on = is_open && is_too_long(&error);
            let lost = failed.as_ref().map_or(0, |(lost, _)| *lost) + 1;
            // Once the rest is lost, its reason is the one that says why.
            failed = match failed {
                Some((_, last)) if !is_open => Some((lost, last)),
                _ => Some((lost, error)),
            };
            is_open = goes_on;
        }
        failed.map_or(Ok(()), Err)
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        let mut is_new = false;
        loop {
            if !self.is_connected.get() {
                self.socket.connect(&self.path)?;
                self.is_connected.set(true);
                is_new = true;
            }
            let Err(error) = self.socket.send(datagram) else { return Ok(()) };
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => {
                    if !sys::wait_writable(self.as_fd(), Some(FULL_TIMEOUT))? {
                        return Err(io::Error::new(
                            io::ErrorKind::WouldBlock,
                            "the socket is full",
                        ));
                    }
                }
                _ if is_too_long(&error) => return Err(error),
                // The daemon has been restarted: its socket is another now.
                _ => {
                    self.is_connected.set(false);
                    if is_new {
                        return Err(error);
                    }
                }
            }
        }
    }
}

impl AsFd for Datagram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMSGSIZE)
}

/// As syslog(3) writes it, in UTC: daemons take the time from their own clock anyway.
fn header() -> String {
    let time = jiff::Timestamp::now().strftime("%b %e %H:%M:%S");
    format!("<{PRIORITY}>{time} cloudbridge[{}]: ", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place for a socket, and its removal.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let name = format!("cloudbridge-datagram-{name}-{}", std::process::id());
            Place(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn receive(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 64];
        let count = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    #[test]
    fn each_line_is_a_datagram_and_a_new_daemon_is_found() {
        let place = Place::new("restart");
        let datagram = Datagram::new(&place.0).unwrap();
        let (lost, error) = datagram.send_lines(b"one\ntwo\n").unwrap_err();
        assert_eq!((lost, error.kind()), (2, io::ErrorKind::NotFound));
        let first = UnixDatagram::bind(&place.0).unwrap();
        datagram.send_lines(b"three\nfour\n").unwrap();
        assert_eq!([receive(&first), receive(&first)], ["three", "four"]);
        drop(first);
        assert_eq!(datagram.send_lines(b"five\n").unwrap_err().0, 1);
        std::fs::remove_file(&place.0).unwrap();
        let second = UnixDatagram::bind(&place.0).unwrap();
        datagram.send_lines(b"six\n").unwrap();
        assert_eq!(receive(&second), "six");
    }

    #[test]
    fn a_line_that_is_too_long_is_lost_alone() {
        let place = Place::new("long");
        let socket = UnixDatagram::bind(&place.0).unwrap();
        let datagram = Datagram::new(&place.0).unwrap();
        sys::shrink_buffers(&datagram.socket).unwrap();
        let lines = [&b"before\n"[..], &vec![b'x'; 1 << 20], b"\nafter\n"].concat();
        let (lost, error) = datagram.send_lines(&lines).unwrap_err();
        assert_eq!((lost, error.raw_os_error()), (1, Some(libc::EMSGSIZE)));
        assert_eq!([receive(&socket), receive(&socket)], ["before", "after"]);
    }

    /// The wait for a full socket is not repeated for each of the lines behind.
    #[test]
    fn a_socket_that_is_full_loses_the_rest_though_a_line_before_was_too_long() {
        const LINES: u64 = 2_000;
        let place = Place::new("full");
        let _unread = UnixDatagram::bind(&place.0).unwrap();
        let datagram = Datagram::new(&place.0).unwrap();
        sys::shrink_buffers(&datagram.socket).unwrap();
        let lines = [&vec![b'x'; 1 << 20][..], &b"\nline".repeat(LINES as usize), b"\n"].concat();
        let (lost, error) = datagram.send_lines(&lines).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!((2..=LINES).contains(&lost), "{lost}");
    }

    #[test]
    fn the_header_is_that_of_syslog() {
        let header = header();
        let process = format!(" cloudbridge[{}]: ", std::process::id());
        assert!(header.starts_with("<134>") && header.ends_with(&process), "{header}");
        assert_eq!(header.len(), "<134>Jan  1 00:00:00".len() + process.len(), "{header}");
    }
}
