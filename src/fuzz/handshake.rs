//! The backend's side of the handshake: whatever a proxy answers, and however it arrives.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use super::input::{Input, pieces};
use crate::bridge::answer::{self, Answer};
use crate::client::BridgeStream;
use crate::client::handshake::{self, Offer};
use crate::net::sys;

/// The proxy is never silent here: its FIN is there before anything is read.
const SILENCE: Duration = Duration::from_secs(10);

/// With a key to prove.
const REQUEST: &[u8] = b"BRIDGE / HTTP/1.1\r\nHost: a\r\n\
    Host-Key: 817d1d4d1f9157057ea40057a7edfa9ac6f2a4eb:1234567890:a\r\n\r\n";

/// Most bytes of answers: the sockets take as many at once.
const LONGEST: usize = 32 * 1024;

/// A seed for the pieces, and what a proxy sends over a bridge.
pub(super) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let seed = input.byte();
    let sent = input.take(LONGEST);
    let agent = answers(pieces(sent, seed));
    assert_eq!(agent, answers([sent].into_iter()), "the pieces decide what it is");
    library(sent, agent);
}

/// How the handshake ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The connection ends before the answers do.
    Short,
    /// A request follows after so many bytes.
    Switched(usize),
    /// Refused with this status, after a registration was accepted or not.
    Refused { status: u16, accepted: bool },
    /// Not HTTP.
    Malformed,
}

/// Reads the answers as the agent does: appended to a buffer, and taken from its front.
fn answers<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> End {
    let (mut buffer, mut taken, mut accepted) = (Vec::new(), 0, false);
    let (mut last, mut asked) = (None, true);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match answer::parse(&buffer) {
                Err(_) => return End::Malformed,
                Ok(None) => break,
                Ok(Some(Answer::Interim { len, .. })) => {
                    (accepted, asked) = (true, false);
                    taken += len;
                    buffer.drain(..len);
                }
                // One nonce has been asked for.
                Ok(Some(Answer::Challenge { len, .. })) if asked => {
                    asked = false;
                    taken += len;
                    buffer.drain(..len);
                }
                Ok(Some(Answer::Challenge { .. })) => {
                    last = Some(End::Refused { status: 401, accepted });
                    break;
                }
                Ok(Some(Answer::Switch { len })) => return End::Switched(taken + len),
                Ok(Some(Answer::Final { status, reason, .. })) => {
                    assert!(reason.len() <= 3 * 256 && !reason.contains(char::is_control));
                    last = Some(End::Refused { status, accepted });
                    break;
                }
            }
        }
    }
    last.unwrap_or(End::Short)
}

/// The library comes to the same end, and leaves what follows a 101 to its user.
fn library(sent: &[u8], expected: End) {
    let (mut proxy, backend) = sockets();
    let mut backend = BridgeStream::from(backend);
    proxy.write_all(sent).expect("the sockets take it");
    proxy.shutdown(Shutdown::Write).expect("it is open");
    let offer = Offer { request: REQUEST, bearer_keys: false, hint: "--bearer-keys" };
    let result = handshake::run(backend.connection(), &offer, SILENCE, |_, _| ());
    match (expected, result) {
        (End::Switched(len), Ok(true)) => {
            let mut rest = Vec::new();
            backend.read_to_end(&mut rest).expect("the FIN is there");
            assert_eq!(rest, &sent[len..], "bytes of the request are lost");
        }
        (End::Refused { status: 504, accepted: true }, Ok(false)) => {}
        (End::Refused { status: 504, accepted: false }, Err(_)) => {}
        (End::Refused { status, .. }, Err(error)) => {
            let refused = crate::client::Refused::of(&error);
            assert_eq!(refused.map(|refused| refused.status), Some(status), "{error}");
        }
        (End::Short | End::Malformed, Err(_)) => {}
        (expected, result) => panic!("{expected:?}, and the library says {result:?}"),
    }
    // Without it, thousands of ports would wait for late packets.
    sys::reset_on_close(backend.tcp()).expect("it is open");
}

fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let proxy = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (backend, _) = listener.accept().expect("it is there");
    (proxy, backend)
}
