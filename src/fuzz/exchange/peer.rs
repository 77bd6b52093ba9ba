//! A peer of one of the exchange's connections, as the script drives it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use crate::net::sys;

/// How long the kernel may take to deliver what has been sent on a busy machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// Most bytes that a peer sends. The default buffers of two sockets hold less.
const LONGEST: usize = 16 << 20;

/// What a number in the script means, in bytes: `'0'` is 0, `'9'` is 9; from `'p'` on it grows by
/// 64 a letter.
pub(super) fn size(digit: u8) -> usize {
    match usize::from(digit.wrapping_sub(b'0')) {
        few @ 0..64 => few,
        many => (many - 63) * 64,
    }
}

/// A peer, and what has passed through its socket.
pub(super) struct Peer<'a> {
    /// `None` once it has closed.
    stream: Option<TcpStream>,
    /// What it has not sent yet.
    text: &'a [u8],
    pub sent: Vec<u8>,
    pub received: Vec<u8>,
    /// It has closed in the middle of the script, and may have missed bytes.
    pub left: bool,
}

/// A connection on the loopback: the peer, and our end.
pub(super) fn connect(text: &[u8], small_buffers: bool) -> (Peer<'_>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    if small_buffers {
        sys::shrink_buffers(&listener).expect("it may be small");
    }
    let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    if small_buffers {
        sys::shrink_buffers(&stream).expect("it may be small");
    }
    let (ours, _) = listener.accept().expect("it is there");
    stream.set_nonblocking(true).expect("a socket");
    ours.set_nonblocking(true).expect("a socket");
    ours.set_nodelay(true).expect("a socket");
    let (sent, received) = (Vec::new(), Vec::new());
    (Peer { stream: Some(stream), text, sent, received, left: false }, ours)
}

impl Peer<'_> {
    /// Counts the next bytes of its text as sent: our side has them already.
    pub fn skip(&mut self, count: usize) {
        let (sent, rest) = self.text.split_at(count);
        self.sent.extend_from_slice(sent);
        self.text = rest;
    }

    /// Sends the next bytes of its text, as many as the socket takes.
    pub fn send(&mut self, count: usize) {
        let text = self.text;
        let sent = self.write(&text[..count.min(text.len())]);
        self.text = &text[sent..];
    }

    /// Sends bytes that are not in its text.
    pub fn send_filler(&mut self, count: usize) {
        let count = count.min(LONGEST.saturating_sub(self.sent.len()));
        // Different bytes at different places, so that a gap shows.
        let start = self.sent.len();
        let filler: Vec<u8> = (start..start + count).map(|at| (at % 251) as u8).collect();
        self.write(&filler);
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let Some(stream) = &mut self.stream else { return 0 };
        // After a shutdown, or a reset from us, nothing can be sent.
        let sent = stream.write(bytes).unwrap_or(0);
        self.sent.extend_from_slice(&bytes[..sent]);
        sent
    }

    /// Reads up to so many bytes. False when there were none.
    pub fn receive(&mut self, count: usize) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        let before = self.received.len();
        self.received.resize(before + count, 0);
        let got = match stream.read(&mut self.received[before..]) {
            Ok(got) => got,
            Err(error) => {
                assert!(is_peers_end(error.kind()), "{error}");
                0
            }
        };
        self.received.truncate(before + got);
        got > 0
    }

    pub fn shut_down(&mut self) {
        if let Some(stream) = &self.stream {
            // It may be broken already.
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    pub fn close(&mut self) {
        self.left |= self.stream.take().is_some();
    }

    pub fn reset(&mut self) {
        if let Some(stream) = self.stream.take() {
            sys::reset_on_close(&stream).expect("it is open");
            self.left = true;
        }
    }

    /// Reads what has come, a moment at a time.
    pub fn receive_all(&mut self) {
        while self.receive(64 * 1024) {}
    }

    /// Reads to the end, which must be on its way: our side has closed.
    pub fn receive_to_end(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        stream.set_nonblocking(false).expect("a socket");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
        if let Err(error) = stream.read_to_end(&mut self.received) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "no end comes");
        }
        self.stream = None;
    }
}

fn is_peers_end(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}
