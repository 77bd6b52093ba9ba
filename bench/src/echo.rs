//! WebSocket messages, one at a time on each connection, sent again when their echo has come.

use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::address::Address;
use crate::histogram::Histogram;
use crate::output::Piece;
use crate::websocket::{self, Parsed};
use crate::wire::{SCRATCH, Wire};

/// The example of RFC 6455 section 1.3; nothing here depends on its being secret or new.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// FIN and the opcode of a binary frame (RFC 6455 section 5.2).
const BINARY: u8 = 0x82;
/// Any mask does where there is no cache to be tricked.
const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// What to send, and where.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The proxy.
    pub to: Address,
    /// The name asked for.
    pub host: String,
    /// The target of the handshakes.
    pub path: String,
    /// Bytes of each message.
    pub size: usize,
    /// Connections.
    pub connections: usize,
    /// For how long, handshakes included.
    pub time: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Echoed {
    /// Messages that came back as they were sent.
    pub messages: u64,
    /// Connections that broke, or gave back something else.
    pub errors: u64,
    /// From sent to echoed.
    pub latency: Histogram,
    /// The time it took.
    pub took: Duration,
}

struct Talk {
    wire: Wire,
    open: bool,
    sent: Instant,
    input: Vec<u8>,
}

struct Message {
    payload: Vec<u8>,
    frame: Rc<[u8]>,
}

/// Talks until the time is up or nobody is left. Fails only when it cannot dial or poll.
pub fn run(plan: &Plan) -> io::Result<Echoed> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut scratch = vec![0; SCRATCH];
    let message = Message::new(plan.size);
    let started = Instant::now();
    let until = started + plan.time;
    let mut talks = (0..plan.connections)
        .map(|index| Talk::dial(plan, &poll, index).map(Some))
        .collect::<io::Result<Vec<_>>>()?;
    let mut echoed = Echoed::default();
    while echoed.errors < plan.connections as u64 {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match poll.poll(&mut events, Some(left)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            let slot = &mut talks[event.token().0];
            let Some(talk) = slot else { continue };
            talk.wire.latch(event);
            if talk.advance(&message, &mut scratch, &mut echoed).is_err() {
                echoed.errors += 1;
                *slot = None;
            }
        }
    }
    echoed.took = started.elapsed();
    Ok(echoed)
}

impl Message {
    fn new(size: usize) -> Message {
        let payload: Vec<u8> = (0..size).map(|at| at as u8).collect();
        let mut frame = Vec::new();
        websocket::write(BINARY, Some(MASK), &payload, &mut frame);
        Message { payload, frame: Rc::from(frame) }
    }
}

impl Talk {
    fn dial(plan: &Plan, poll: &Poll, index: usize) -> io::Result<Talk> {
        let stream = plan.to.connect()?;
        let mut wire = Wire::new(stream, false, poll.registry(), Token(index))?;
        let handshake = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
            plan.path, plan.host
        );
        wire.output.push(Piece::once(Rc::from(handshake.into_bytes())));
        Ok(Talk { wire, open: false, sent: Instant::now(), input: Vec::new() })
    }

    fn advance(
        &mut self,
        message: &Message,
        scratch: &mut [u8],
        echoed: &mut Echoed,
    ) -> io::Result<()> {
        loop {
            self.wire.flush()?;
            let Some(got) = self.wire.read(scratch)? else {
                return Ok(());
            };
            self.input.extend_from_slice(&scratch[..got]);
            if !self.open {
                let Some(end) = handshake(&self.input)? else {
                    continue;
                };
                self.input.drain(..end);
                self.open = true;
                self.send(message);
                continue;
            }
            match websocket::parse(&self.input) {
                Parsed::Partial => {}
                Parsed::Whole(frame) if self.input[frame.start..] == message.payload => {
                    echoed.messages += 1;
                    echoed.latency.add(self.sent.elapsed());
                    self.input.clear();
                    self.send(message);
                }
                Parsed::Whole(_) | Parsed::TooLarge => return Err(ErrorKind::InvalidData.into()),
            }
        }
    }

    fn send(&mut self, message: &Message) {
        self.sent = Instant::now();
        self.wire.output.push(Piece::once(message.frame.clone()));
    }
}

/// Where the handshake's answer ends, `None` if it is not whole; an error if it is anything but the
/// right 101.
fn handshake(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    if head.starts_with("HTTP/1.1 101 ") && head.contains(&websocket::accept(KEY.as_bytes())) {
        Ok(Some(end + 4))
    } else {
        Err(ErrorKind::InvalidData.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_101_opens() {
        let good =
            b"HTTP/1.1 101 x\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x82";
        for cut in 0..good.len() - 1 {
            assert_eq!(handshake(&good[..cut]).unwrap(), None, "cut {cut}");
        }
        assert_eq!(handshake(good).unwrap(), Some(good.len() - 1));
        assert!(handshake(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(handshake(b"HTTP/1.1 101 x\r\nSec-WebSocket-Accept: none\r\n\r\n").is_err());
    }
}
