//! TLS: arbitrary records before, during and after a handshake end a session or mean nothing. It never
//! panics, comes to an end with each read, and keeps no more than it may (which [`Memory`] checks).

use rustls::version::{TLS12, TLS13};

use super::input::{Input, pieces};
use crate::net::tls::memory::{Memory, Peer};

/// When the bytes come, how they are cut, and then the bytes.
pub(super) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (when, cut) = (input.below(6), input.byte());
    match when {
        0 => raw(Memory::server(&TLS13), input.rest(), cut),
        1 => raw(Memory::client(&TLS13), input.rest(), cut),
        2 => changed_hello(input, cut),
        3 => {
            let mut server = Memory::server(&TLS13);
            Peer::open(&mut server, usize::MAX);
            raw(server, input.rest(), cut);
        }
        4 => encrypted(input, cut),
        _ => changed_answer(input, cut),
    }
}

/// As they are.
fn raw(mut session: Memory, bytes: &[u8], cut: u8) {
    for piece in pieces(bytes, cut) {
        session.feed(piece);
        use_it(&mut session);
    }
    finish(session, bytes.len());
}

/// A client's first bytes with some of them changed: pairs of a place and a mask.
fn changed_hello(mut input: Input<'_>, cut: u8) {
    let version = if cut.is_multiple_of(2) { &TLS13 } else { &TLS12 };
    let (mut client, mut server) = (Memory::client(version), Memory::server(version));
    let mut hello = client.take_outgoing();
    change(&mut hello, &mut input);
    pieces(&hello, cut).for_each(|piece| server.feed(piece));
    client.feed(&server.take_outgoing());
    server.feed(&client.take_outgoing());
    server.feed(input.rest());
    use_it(&mut server);
    finish(server, 4096);
}

/// The same with what a server answers.
fn changed_answer(mut input: Input<'_>, cut: u8) {
    let version = if cut.is_multiple_of(2) { &TLS13 } else { &TLS12 };
    let (mut client, mut server) = (Memory::client(version), Memory::server(version));
    server.feed(&client.take_outgoing());
    let mut answer = server.take_outgoing();
    change(&mut answer, &mut input);
    pieces(&answer, cut).for_each(|piece| client.feed(piece));
    use_it(&mut client);
    finish(client, 4096);
}

fn change(bytes: &mut [u8], input: &mut Input<'_>) {
    for _ in 0..input.below(8) {
        let at = usize::from(input.byte()) * 256 + usize::from(input.byte());
        let at = at % bytes.len();
        bytes[at] ^= input.byte();
    }
}

/// Records that can be decrypted, whatever is in them: of a kind, with so many bytes.
fn encrypted(mut input: Input<'_>, cut: u8) {
    let mut server = Memory::server(&TLS13);
    let mut peer = Peer::open(&mut server, usize::MAX);
    let mut most = 0;
    loop {
        // The kinds that there are, mostly.
        let kind = match input.below(8) {
            known @ 0..=5 => 19 + known as u8,
            _ => input.byte(),
        };
        let length = usize::from(input.byte());
        let content = input.take(length);
        if content.is_empty() && length > 0 {
            break;
        }
        most += content.len();
        let record = peer.record(kind, content);
        if content.starts_with(&[24, 0, 0, 1]) && content.len() == 5 {
            peer.update();
        }
        for piece in pieces(&record, cut) {
            server.feed(piece);
        }
        use_it(&mut server);
        if server.failed.is_some() || server.has_ended || length == 0 && content.is_empty() {
            break;
        }
    }
    assert!(server.plain.len() <= most);
    finish(server, most);
}

/// Sends something, if it is open.
fn use_it(session: &mut Memory) {
    let is_open = !session.session.is_handshaking() && session.failed.is_none();
    // An alert, tickets, and what answers new keys; never more than a few of them.
    let outgoing = session.take_outgoing();
    assert!(outgoing.len() < 16 * 1024, "{} bytes", outgoing.len());
    assert_eq!(session.send(b"some bytes"), is_open);
    session.take_outgoing();
}

fn finish(mut session: Memory, most: usize) {
    assert!(session.plain.len() <= most);
    session.end();
    assert!(session.has_ended || session.failed.is_some());
    session.close();
    session.turn();
    session.send(b"more");
}
