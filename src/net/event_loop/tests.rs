//! The loop with real sockets, and an owner that reads what comes.

use std::io::Write;
use std::net::{TcpListener, TcpStream as Peer};

use super::*;
use crate::net::conn::Received;
use crate::net::sys;

const OPTIONS: sys::SocketOptions =
    sys::SocketOptions { keepalive: Duration::ZERO, user_timeout: Duration::ZERO };

/// Most turns of a test.
const TURNS: usize = 1_000;

/// Its peers' bytes, by connection.
struct Reader {
    conns: EventLoop<()>,
    peers: Vec<Peer>,
    read: Vec<Vec<u8>>,
    /// Each byte read makes its peer send the next.
    endless: bool,
    turns: usize,
    timed_out: Vec<usize>,
}

impl Reader {
    /// With connections whose peers do not yet send anything.
    fn new(count: usize) -> Reader {
        // Both ends are in this process, which may have been given 1024.
        sys::limit_descriptors(None).unwrap();
        let linger = LingerTimeouts { flush: Duration::ZERO, fin: Duration::ZERO };
        let mut conns = EventLoop::new(Poll::new().unwrap(), Instant::now(), linger);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connect = |_| {
            let peer = Peer::connect(listener.local_addr().unwrap()).unwrap();
            let (ours, from) = listener.accept().unwrap();
            ours.set_nonblocking(true).unwrap();
            sys::set_stream_options(&ours, &OPTIONS).unwrap();
            conns.insert(TcpStream::from_std(ours), from.ip(), ()).unwrap();
            peer
        };
        let peers = (0..count).map(&mut connect).collect();
        let read = vec![Vec::new(); count];
        Reader { conns, peers, read, endless: false, turns: 0, timed_out: Vec::new() }
    }
}

impl Handler for Reader {
    type Role = ();
    type Lent = ();

    fn conns(&mut self) -> &mut EventLoop<()> {
        &mut self.conns
    }

    fn mail(&mut self) {}

    fn ready(&mut self, key: usize) {
        let mut bytes = [0; 16];
        while let Received::Bytes(count) = self.conns[key].conn.receive(&mut bytes) {
            self.read[key].extend_from_slice(&bytes[..count]);
            if self.endless {
                self.peers[key].write_all(b"x").unwrap();
                return;
            }
        }
    }

    fn handshake_failed(&mut self, key: usize, error: TlsError) {
        panic!("connection {key} is not encrypted: {error}");
    }

    fn timeout(&mut self, key: usize) {
        self.timed_out.push(key);
    }

    fn end_of_turn(&mut self) {
        self.turns += 1;
    }

    fn next_turn(&mut self) -> NextTurn {
        match self.turns == TURNS || !self.timed_out.is_empty() {
            true => NextTurn::Stop,
            false => NextTurn::Wait(NextTurn::NEVER),
        }
    }
}

/// With more connections than one wait can report, and each with an event in every turn.
#[test]
fn a_deadline_passes_however_busy_the_loop_is() {
    let mut reader = Reader::new(EVENTS + 100);
    reader.endless = true;
    reader.peers.iter_mut().for_each(|peer| peer.write_all(b"x").unwrap());
    reader.conns.set_deadline(0, Duration::from_millis(1));
    run(&mut reader).unwrap();
    assert_eq!(reader.timed_out, [0], "after {} turns", reader.turns);
}

/// A read stops at the mark of urgent data, and no event will report what lies behind it.
#[test]
fn bytes_behind_an_urgent_byte_are_read() {
    let mut reader = Reader::new(1);
    reader.peers[0].write_all(b"1").unwrap();
    sys::send_urgent(&reader.peers[0], b';').unwrap();
    reader.peers[0].write_all(b"0").unwrap();
    reader.conns.set_deadline(0, Duration::from_millis(1));
    run(&mut reader).unwrap();
    assert_eq!(reader.read[0], b"1;0");
}
