//! WebSocket (RFC 6455) as browsers speak it: handshake, masked frames of every length, and the
//! close, through the tunnel.

use crate::common::{Bridge, Client, Proxy, Wire};

/// The key and its answer of RFC 6455, section 1.3.
const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// RFC 6455, section 5.2: a whole binary message, and a close, in one frame each.
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
/// RFC 6455, section 5.3: frames of the client's are masked.
const MASKED: u8 = 0x80;

const MESSAGES: usize = 10_000;
/// Past 65,535 a frame has the longest form of length.
const LONGEST: u64 = 70_000;

/// A small seeded generator (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

/// The messages in order: the same for every side that begins with the same seed.
struct Messages {
    random: Random,
    source: Vec<u8>,
}

impl Messages {
    fn new() -> Messages {
        let length = 2 * LONGEST as usize;
        Messages { random: Random(0x5EED), source: crate::common::pattern(0, length) }
    }

    /// The next one: its length and where it starts in the source are drawn.
    fn draw(&mut self) -> &[u8] {
        let length = (self.random.next() % (LONGEST + 1)) as usize;
        let start = (self.random.next() % LONGEST) as usize;
        &self.source[start..start + length]
    }
}

/// RFC 6455, section 5.3.
fn mask(payload: &mut [u8], key: [u8; 4]) {
    let wide = u64::from_ne_bytes([key, key].concat().try_into().expect("eight bytes"));
    let mut words = payload.chunks_exact_mut(8);
    for word in &mut words {
        let masked = u64::from_ne_bytes((&*word).try_into().expect("eight bytes")) ^ wide;
        word.copy_from_slice(&masked.to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// A frame, masked if there is a key.
fn frame(kind: u8, payload: &[u8], key: Option<[u8; 4]>) -> Vec<u8> {
    let flag = if key.is_some() { MASKED } else { 0 };
    let length = payload.len();
    let mut frame = vec![kind];
    match length {
        0..=125 => frame.push(flag | length as u8),
        126..=65_535 => {
            frame.push(flag | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            frame.push(flag | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend(key.into_iter().flatten());
    let start = frame.len();
    frame.extend_from_slice(payload);
    if let Some(key) = key {
        mask(&mut frame[start..], key);
    }
    frame
}

/// Reads a frame, which must be masked if `masked` is set, and returns its kind and its payload in
/// the clear.
#[track_caller]
fn read_frame(wire: &mut Wire, masked: bool) -> (u8, Vec<u8>) {
    let head = wire.read_exactly(2);
    assert_eq!(head[1] & MASKED != 0, masked, "{head:02x?}");
    let length = match head[1] & !MASKED {
        126 => wire.read_exactly(2),
        127 => wire.read_exactly(8),
        short => vec![short],
    };
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    let key = masked.then(|| wire.read_exactly(4).try_into().expect("four bytes"));
    let mut payload = wire.read_exactly(length);
    if let Some(key) = key {
        mask(&mut payload, key);
    }
    (head[0], payload)
}

/// A backend that answers each message with itself, and the close with a close.
fn echo(bridge: &mut Bridge) {
    let request = bridge.accept_request();
    assert_eq!(request.field("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    bridge.send(ACCEPTED);
    loop {
        let (kind, payload) = read_frame(bridge, true);
        bridge.send(frame(kind, &payload, None));
        if kind == CLOSE {
            return;
        }
    }
}

#[test]
fn ten_thousand_messages_of_every_length_come_back_as_they_were() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(&proxy, HANDSHAKE);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            echo(&mut bridge);
            bridge.half_close();
            bridge.expect_closed();
        });
        let answer = client.read_head();
        assert_eq!(answer.start, "HTTP/1.1 101 Switching Protocols");
        assert_eq!(answer.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        let mut writer = client.try_clone();
        // In a thread of its own: the echo must not wait for us, nor we for it.
        scope.spawn(move || {
            let (mut messages, mut keys) = (Messages::new(), Random(0xF00D));
            for _ in 0..MESSAGES {
                let key = (keys.next() as u32).to_be_bytes();
                writer.send(frame(BINARY, messages.draw(), Some(key)));
            }
            writer.send(frame(CLOSE, &1000u16.to_be_bytes(), Some([1, 2, 3, 4])));
        });
        let mut messages = Messages::new();
        for number in 0..MESSAGES {
            let (kind, payload) = read_frame(&mut client, false);
            assert_eq!(kind, BINARY, "message {number}");
            assert!(payload == messages.draw(), "message {number} is not what was sent");
        }
        assert_eq!(read_frame(&mut client, false), (CLOSE, 1000u16.to_be_bytes().to_vec()));
        client.expect_closed();
        client.half_close();
    });
    let peak = proxy.peak_memory();
    assert!(peak < 32 * 1024 * 1024, "{peak} bytes at its peak");
}
