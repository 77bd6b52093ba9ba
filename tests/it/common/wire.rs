//! One TCP connection, by TLS where its listener speaks that, with a deadline on every read and
//! write.

use super::encryption::{Encryption, Found, reset_on_close};
use super::{DEADLINE, Message};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes asked of the kernel per read.
const READ_SIZE: usize = 64 * 1024;

/// The longest head that a test expects to read: far more than the proxy lets pass.
const HEAD_LIMIT: usize = 256 * 1024;

/// How a peer's connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// In good order, with a FIN.
    Closed,
    /// With a RST; by TLS also with a FIN that nobody has announced, since that looks cut off.
    Reset,
}

/// What one read came back with.
enum Read1 {
    Bytes,
    Ended(Ending),
    TimedOut,
}

/// One TCP connection and the bytes that have been read from it and not been looked at yet.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    tls: Option<Arc<Encryption>>,
    held: Vec<u8>,
    timeout: Duration,
}

impl Wire {
    /// Connects to `address`, without Nagle's delay: what a test writes in two pieces leaves in two
    /// pieces.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Wire {
        match TcpStream::connect_timeout(&address, DEADLINE) {
            Ok(stream) => Wire::to(address, stream),
            Err(error) => panic!("cannot connect to {address}: {error}"),
        }
    }

    /// As [`Wire::connect`]; `None` when nobody listens there.
    pub fn try_connect(address: SocketAddr) -> Option<Wire> {
        let stream = TcpStream::connect_timeout(&address, DEADLINE).ok()?;
        Some(Wire::to(address, stream))
    }

    fn to(address: SocketAddr, stream: TcpStream) -> Wire {
        let mut wire = Wire::new(stream);
        wire.tls = Encryption::of(address).map(Arc::new);
        wire
    }

    /// Wraps a connection that is open already.
    pub fn new(stream: TcpStream) -> Wire {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_write_timeout(Some(DEADLINE)).expect("SO_SNDTIMEO");
        Wire { stream, tls: None, held: Vec::new(), timeout: DEADLINE }
    }

    /// Gives every later read and write `timeout` instead of [`DEADLINE`].
    pub fn timeout(&mut self, timeout: Duration) {
        self.stream.set_write_timeout(Some(timeout)).expect("SO_SNDTIMEO");
        self.timeout = timeout;
    }

    /// Another handle, so that one thread sends and another one receives.
    pub fn try_clone(&self) -> Wire {
        let mut wire = Wire::new(self.stream.try_clone().expect("dup"));
        (wire.tls, wire.held) = (self.tls.clone(), self.held.clone());
        wire
    }

    /// The socket itself, for what only one test needs.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Writes all of `bytes`.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        if let Err(error) = self.write_all(bytes.as_ref()) {
            panic!("cannot send {}: {error}", shown(bytes.as_ref()));
        }
    }

    /// Writes as much of `bytes` as the other side takes before it closes; for bytes that may be
    /// refused half-way.
    pub fn send_if_open(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.write_all(bytes.as_ref()).is_ok()
    }

    fn write_all(&self, bytes: &[u8]) -> std::io::Result<()> {
        match &self.tls {
            Some(tls) => tls.write(&self.stream, bytes, self.timeout),
            None => (&self.stream).write_all(bytes),
        }
    }

    /// Writes as much of `bytes` as the kernel takes without waiting.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] when it takes none, and when the connection is broken.
    pub fn send_some(&self, bytes: &[u8]) -> std::io::Result<usize> {
        if let Some(tls) = &self.tls {
            return tls.write_some(&self.stream, bytes);
        }
        self.stream.set_nonblocking(true).expect("non-blocking");
        let sent = (&self.stream).write(bytes);
        self.stream.set_nonblocking(false).expect("blocking");
        sent
    }

    /// Writes `bytes` one by one, each in a segment of its own.
    #[track_caller]
    pub fn send_byte_by_byte(&mut self, bytes: impl AsRef<[u8]>) {
        for byte in bytes.as_ref() {
            self.send([*byte]);
        }
    }

    /// Sends a FIN: this side has said everything, and still listens.
    #[track_caller]
    pub fn half_close(&mut self) {
        match &self.tls {
            Some(tls) => tls.half_close(&self.stream).expect("shutdown"),
            None => self.stream.shutdown(Shutdown::Write).expect("shutdown"),
        }
    }

    /// Reads exactly as many bytes as `expected` has and fails unless they are the same.
    #[track_caller]
    pub fn expect_exact(&mut self, expected: impl AsRef<[u8]>) {
        // What the proxy says of a client's connection is true.
        let secure = self.tls.as_ref().map(|_| {
            let text = String::from_utf8_lossy(expected.as_ref());
            text.replace("X-Forwarded-Proto: http\r\n", "X-Forwarded-Proto: https\r\n")
        });
        let is_text = std::str::from_utf8(expected.as_ref()).is_ok();
        let expected = match &secure {
            Some(secure) if is_text => secure.as_bytes(),
            _ => expected.as_ref(),
        };
        let until = self.until();
        while self.held.len() < expected.len() {
            if !expected.starts_with(&self.held) {
                break;
            }
            match self.fill(until) {
                Read1::Bytes => {}
                Read1::Ended(ending) => panic!(
                    "expected {}\nbut the connection ended ({ending:?}) after {}",
                    shown(expected),
                    shown(&self.held)
                ),
                Read1::TimedOut => {
                    panic!(
                        "expected {}\nbut only this came: {}",
                        shown(expected),
                        shown(&self.held)
                    )
                }
            }
        }
        let came = &self.held[..self.held.len().min(expected.len())];
        assert!(came == expected, "expected {}\n but came {}", shown(expected), shown(&self.held));
        self.held.drain(..expected.len());
    }

    /// Reads exactly `length` bytes.
    #[track_caller]
    pub fn read_exactly(&mut self, length: usize) -> Vec<u8> {
        let until = self.until();
        while self.held.len() < length {
            self.fill_or_fail(until, "more bytes");
        }
        self.held.drain(..length).collect()
    }

    /// Reads up to and with the next CRLF, and returns the line without it.
    #[track_caller]
    pub fn read_line(&mut self) -> String {
        let until = self.until();
        loop {
            if let Some(end) = find(&self.held, b"\r\n") {
                let line: Vec<u8> = self.held.drain(..end + 2).collect();
                return String::from_utf8_lossy(&line[..end]).into_owned();
            }
            self.fill_or_fail(until, "a line");
        }
    }

    /// Reads one head, up to and with its empty line.
    #[track_caller]
    pub fn read_head(&mut self) -> Message {
        let until = self.until();
        loop {
            if let Some(end) = find(&self.held, b"\r\n\r\n") {
                let head: Vec<u8> = self.held.drain(..end + 4).collect();
                return Message::parse(head);
            }
            assert!(self.held.len() < HEAD_LIMIT, "a head without end: {}", shown(&self.held));
            self.fill_or_fail(until, "a head");
        }
    }

    /// Reads the head of a request, for a server of the test's, and returns its first line. `None`
    /// at the end of the connection, and when nothing has come for long.
    pub fn read_request(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.held, b"\r\n\r\n") {
                let head: Vec<u8> = self.held.drain(..end + 4).collect();
                return String::from_utf8_lossy(&head).lines().next().map(str::to_owned);
            }
            if !matches!(self.fill(self.until()), Read1::Bytes) {
                return None;
            }
        }
    }

    /// Reads what is sent from here to the end of the connection.
    #[track_caller]
    pub fn read_to_end(&mut self) -> (Vec<u8>, Ending) {
        let until = self.until();
        loop {
            match self.fill(until) {
                Read1::Bytes => {}
                Read1::Ended(ending) => return (std::mem::take(&mut self.held), ending),
                Read1::TimedOut => {
                    panic!("the connection is still open after {}", shown(&self.held))
                }
            }
        }
    }

    /// Fails unless the other side closes (or resets) the connection without another byte.
    #[track_caller]
    pub fn expect_closed(&mut self) -> Ending {
        let (rest, ending) = self.read_to_end();
        assert!(rest.is_empty(), "expected the end but came {}", shown(&rest));
        ending
    }

    /// Reads up to `limit` bytes, at least one, or the end of the connection (`None`).
    #[track_caller]
    pub fn read_some(&mut self, limit: usize) -> Option<Vec<u8>> {
        let until = self.until();
        while self.held.is_empty() {
            match self.fill(until) {
                Read1::Bytes => {}
                Read1::Ended(_) => return None,
                Read1::TimedOut => panic!("nothing came in {:?}", self.timeout),
            }
        }
        let length = self.held.len().min(limit);
        Some(self.held.drain(..length).collect())
    }

    /// Whether the other side has closed. Looks once and takes nothing; bytes that are there count
    /// as open.
    pub fn is_closed(&self) -> bool {
        if !self.held.is_empty() {
            return false;
        }
        if let Some(tls) = &self.tls {
            return tls.look(&self.stream).1;
        }
        self.stream.set_nonblocking(true).expect("non-blocking");
        let seen = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("blocking");
        match seen {
            Ok(length) => length == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    /// Whether bytes have come that nobody has read. Looks once.
    pub fn has_bytes(&self) -> bool {
        if !self.held.is_empty() {
            return true;
        }
        if let Some(tls) = &self.tls {
            return tls.look(&self.stream).0;
        }
        self.stream.set_nonblocking(true).expect("non-blocking");
        let seen = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("blocking");
        matches!(seen, Ok(1))
    }

    /// Waits until the bytes that have come, and stay unread in the kernel, end with `end`.
    ///
    /// A socket that is closed with bytes unread answers with a RST instead of a FIN: this is how a
    /// test's backend dies without manners.
    #[track_caller]
    pub fn await_unread(&self, end: &[u8]) {
        assert!(self.held.is_empty(), "already read: {}", shown(&self.held));
        if let Some(tls) = &self.tls {
            // Only what has been read can be decrypted, so the reset is asked for.
            let mut came = Vec::new();
            super::eventually("bytes to leave unread", || {
                match tls.read(&self.stream, self.timeout).expect("records") {
                    Found::Bytes(bytes) => came.extend_from_slice(&bytes),
                    Found::Nothing => {}
                    Found::Ended(ending) => panic!("{ending:?} after {}", shown(&came)),
                }
                came.ends_with(end)
            });
            return reset_on_close(&self.stream);
        }
        let mut bytes = vec![0; READ_SIZE];
        self.stream.set_read_timeout(Some(self.timeout)).expect("SO_RCVTIMEO");
        super::eventually(
            "bytes to leave unread",
            || matches!(self.stream.peek(&mut bytes), Ok(length) if bytes[..length].ends_with(end)),
        );
    }

    /// Reads whatever body `head` announces: nothing, a length, chunks, or all there is until the
    /// end.
    #[track_caller]
    pub fn read_body(&mut self, head: &mut Message, until_end: bool) {
        if head.has("transfer-encoding") {
            assert_eq!(head.field("transfer-encoding"), Some("chunked"), "{head:?}");
            self.read_chunks(head);
        } else if let Some(length) = head.field("content-length") {
            let length = length.parse().expect("a Content-Length in digits");
            head.body = self.read_exactly(length);
        } else if until_end {
            let (body, ending) = self.read_to_end();
            assert_eq!(
                ending,
                Ending::Closed,
                "a body until the end was cut after {}",
                shown(&body)
            );
            head.body = body;
        }
    }

    #[track_caller]
    fn read_chunks(&mut self, head: &mut Message) {
        loop {
            let line = self.read_line();
            let size = line.split(';').next().unwrap_or_default().trim_end();
            let size = usize::from_str_radix(size, 16)
                .unwrap_or_else(|_| panic!("not a chunk size: {line:?}"));
            if size == 0 {
                break;
            }
            let data = self.read_exactly(size);
            head.body.extend_from_slice(&data);
            self.expect_exact("\r\n");
        }
        loop {
            let line = self.read_line();
            if line.is_empty() {
                return;
            }
            head.trailers.push(line);
        }
    }

    fn until(&self) -> Instant {
        Instant::now() + self.timeout
    }

    #[track_caller]
    fn fill_or_fail(&mut self, until: Instant, what: &str) {
        match self.fill(until) {
            Read1::Bytes => {}
            Read1::Ended(ending) => panic!(
                "expected {what}, but the connection ended ({ending:?}) after {}",
                shown(&self.held)
            ),
            Read1::TimedOut => panic!("expected {what}, but only this came: {}", shown(&self.held)),
        }
    }

    /// One read from the kernel, appended to what is held.
    #[track_caller]
    fn fill(&mut self, until: Instant) -> Read1 {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Read1::TimedOut;
        }
        if let Some(tls) = &self.tls {
            return match tls.read(&self.stream, left) {
                Ok(Found::Bytes(bytes)) => {
                    self.held.extend_from_slice(&bytes);
                    Read1::Bytes
                }
                Ok(Found::Nothing) => Read1::Bytes,
                Ok(Found::Ended(ending)) => Read1::Ended(ending),
                Err(error) => panic!("cannot read: {error}"),
            };
        }
        self.stream.set_read_timeout(Some(left)).expect("SO_RCVTIMEO");
        let before = self.held.len();
        self.held.resize(before + READ_SIZE, 0);
        let outcome = self.stream.read(&mut self.held[before..]);
        self.held.truncate(before + *outcome.as_ref().unwrap_or(&0));
        match outcome {
            Ok(0) => Read1::Ended(Ending::Closed),
            Ok(_) => Read1::Bytes,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Read1::TimedOut,
                ErrorKind::Interrupted => Read1::Bytes,
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Read1::Ended(Ending::Reset),
                _ => panic!("cannot read: {error}"),
            },
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(tls) = self.tls.take().and_then(Arc::into_inner) {
            tls.close(&self.stream);
        }
    }
}

/// `bytes` as text for a message to a human, without control characters, and without the middle
/// when it is long.
pub fn shown(bytes: &[u8]) -> String {
    const ENDS: usize = 600;
    if bytes.len() <= 2 * ENDS {
        return format!("\"{}\"", bytes.escape_ascii());
    }
    let (first, last) = (&bytes[..ENDS], &bytes[bytes.len() - ENDS..]);
    let between = bytes.len() - 2 * ENDS;
    format!("\"{}\" ({between} bytes) \"{}\"", first.escape_ascii(), last.escape_ascii())
}

fn find(bytes: &[u8], sought: &[u8]) -> Option<usize> {
    bytes.windows(sought.len()).position(|window| window == sought)
}
