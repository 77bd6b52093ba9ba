//! Two sessions in memory, and one with a peer that keeps to no rule.

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

use super::memory::{DATA, HANDSHAKE, Memory, Peer};
use super::*;

const BOTH: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// More than a batch.
const LARGE: usize = 3 * BATCH + 1;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

/// Carries what each has sent to the other one, in pieces of this many bytes, until neither sends.
fn carry(client: &mut Memory, server: &mut Memory, piece: usize) {
    loop {
        let [up, down] = [client.take_outgoing(), server.take_outgoing()];
        if up.is_empty() && down.is_empty() {
            return;
        }
        up.chunks(piece).for_each(|piece| server.feed(piece));
        down.chunks(piece).for_each(|piece| client.feed(piece));
    }
}

fn pair(version: &'static SupportedProtocolVersion, piece: usize) -> (Memory, Memory) {
    let (mut client, mut server) = (Memory::client(version), Memory::server(version));
    carry(&mut client, &mut server, piece);
    assert!(!client.session.is_handshaking() && !server.session.is_handshaking());
    (client, server)
}

#[test]
fn both_versions_carry_bytes_in_pieces_of_any_size() {
    for version in BOTH {
        for piece in [1, 2, 3, 5, 7, 100, 1500, usize::MAX] {
            let (mut client, mut server) = pair(version, piece);
            assert_eq!(server.session.agreed().protocol_version(), Some(version.version));
            assert_eq!(server.session.agreed().alpn_protocol(), Some(&b"http/1.1"[..]));
            let length = if piece < 100 { 20_000 } else { LARGE };
            assert!(client.send(&pattern(length)) && server.send(b"down"));
            carry(&mut client, &mut server, piece);
            assert!(server.plain == pattern(length) && client.plain == b"down", "{piece}");
            client.close();
            carry(&mut client, &mut server, piece);
            assert!(server.has_ended && !client.has_ended);
            // It has not said that it reads no more.
            assert!(server.send(b"the rest"));
            server.close();
            carry(&mut client, &mut server, piece);
            assert_eq!(client.plain, b"downthe rest");
            assert!(client.has_ended && client.failed.is_none() && server.failed.is_none());
            assert!(!client.send(b"more"), "after its close_notify");
        }
    }
}

/// What one side sends is cut in two, wherever that is.
#[test]
fn records_may_be_cut_in_two_anywhere() {
    for version in BOTH {
        for cuts_client in [true, false] {
            let mut cut = 1;
            loop {
                let (mut client, mut server) = (Memory::client(version), Memory::server(version));
                let mut sent = [0, 0];
                let mut has_sent = false;
                for _ in 0..8 {
                    let all = [client.take_outgoing(), server.take_outgoing()];
                    for (side, bytes) in all.iter().enumerate() {
                        let to = if side == 0 { &mut server } else { &mut client };
                        let before = sent[side];
                        sent[side] += bytes.len();
                        let is_cut = cuts_client == (side == 0) && before < cut;
                        let at = if is_cut { (cut - before).min(bytes.len()) } else { 0 };
                        to.feed(&bytes[..at]);
                        to.feed(&bytes[at..]);
                    }
                    let is_open =
                        !client.session.is_handshaking() && !server.session.is_handshaking();
                    if is_open && !std::mem::replace(&mut has_sent, true) {
                        assert!(client.send(b"up") && server.send(b"down"));
                        client.close();
                        server.close();
                    }
                }
                assert_eq!(
                    (&server.plain[..], &client.plain[..]),
                    (&b"up"[..], &b"down"[..]),
                    "{cut}"
                );
                assert!(server.has_ended && client.has_ended, "{cut}");
                let whole = sent[usize::from(!cuts_client)];
                cut += if version.version == rustls::ProtocolVersion::TLSv1_3 { 1 } else { 5 };
                if cut > whole {
                    break;
                }
            }
        }
    }
}

#[test]
fn the_records_of_the_last_bytes_are_known_for_a_few_sends() {
    /// A header, the kind of content, and a tag.
    const MORE: u64 = 5 + 1 + 16;
    let (mut client, _server) = pair(&TLS13, usize::MAX);
    assert_eq!(client.session.records_of_last(0), Some(0));
    assert_eq!(client.session.records_of_last(1), None, "it was never sent");
    for length in [10, 20_000, 5] {
        assert!(client.send(&pattern(length)));
    }
    let last = |count| client.session.records_of_last(count);
    assert_eq!(last(0), Some(0));
    assert_eq!(last(5), Some(5 + MORE));
    // One record holds no more than 16 KiB.
    assert_eq!(last(20_005), Some(20_005 + 3 * MORE));
    assert_eq!(last(20_015), Some(20_015 + 4 * MORE));
    assert_eq!(last(20_016), None, "more than all");
    assert_eq!(last(6), None, "it begins inside a send");
    for _ in 0..Sent::KEPT {
        assert!(client.send(b"x"));
    }
    let last = |count| client.session.records_of_last(count);
    assert_eq!(last(7), Some(7 * (1 + MORE)));
    assert_eq!(last(13), None, "too long ago");
}

/// A head and the first bytes of its body are one record.
#[test]
fn two_slices_are_one_record() {
    let (mut client, mut server) = pair(&TLS13, usize::MAX);
    let sent = client.session.encrypt([b"head", b"body"], |_, records| records.to_vec());
    let (count, records) = sent.unwrap();
    assert_eq!((count, records.len()), (8, 8 + 22));
    server.feed(&records);
    assert_eq!(server.plain, b"headbody");
}

/// A message after the handshake comes in two pieces, cut wherever that is, and we send between them.
#[test]
fn we_may_send_between_two_pieces_of_a_message() {
    for in_two_records in [false, true] {
        for cut in 1.. {
            let mut server = Memory::server(&TLS13);
            let mut peer = Peer::open(&mut server, usize::MAX);
            let mut records = if in_two_records {
                let mut both = peer.record(HANDSHAKE, &[24, 0]);
                both.extend(peer.record(HANDSHAKE, &[0, 1, 1]));
                peer.update();
                both
            } else {
                peer.key_update(true)
            };
            let whole = records.len();
            records.extend(peer.record(DATA, b"after"));
            server.feed(&records[..cut]);
            assert!(server.send(b"one"), "{cut}");
            assert!(server.send(b"two"));
            server.feed(&records[cut..]);
            assert!(server.send(b"three"));
            assert_eq!(server.plain, b"after", "{cut}");
            assert_eq!(peer.receive(&mut server), b"onetwothree", "{cut}");
            // The same with our close_notify.
            let update = peer.key_update(false);
            server.feed(&update[..cut.min(update.len() - 1)]);
            server.close();
            server.feed(&update[cut.min(update.len() - 1)..]);
            assert!(server.failed.is_none());
            if cut == whole {
                break;
            }
        }
    }
}

/// A peer that has new keys now and then is well; one that does nothing else is not.
#[test]
fn key_updates_without_end_are_refused() {
    let mut server = Memory::server(&TLS13);
    let mut peer = Peer::open(&mut server, usize::MAX);
    for _ in 0..200 {
        let records = [peer.key_update(true), peer.record(DATA, b"x")].concat();
        server.feed(&records);
        assert!(server.send(b"y"));
    }
    assert_eq!(server.plain.len(), 200);
    assert_eq!(peer.receive(&mut server).len(), 200);
    assert!(server.failed.is_none());
    for is_asking in [false, true] {
        for at_once in [false, true] {
            let mut server = Memory::server(&TLS13);
            let mut peer = Peer::open(&mut server, usize::MAX);
            let all: Vec<Vec<u8>> = (0..1000).map(|_| peer.key_update(is_asking)).collect();
            if at_once {
                server.feed(&all.concat());
            } else {
                all.iter().for_each(|record| server.feed(record));
            }
            assert!(server.failed.is_some(), "{is_asking} {at_once}");
            assert!(server.outgoing.len() < 4096, "{} bytes", server.outgoing.len());
        }
    }
}

#[test]
fn records_without_a_byte_in_them_are_refused_when_they_do_not_end() {
    // Whole ones in each read, and such that never end with one.
    for piece in [22, 10, 33] {
        let mut server = Memory::server(&TLS13);
        let mut peer = Peer::open(&mut server, usize::MAX);
        let all: Vec<u8> = (0..1000).flat_map(|_| peer.record(DATA, b"")).collect();
        let mut pieces = all.chunks(piece);
        let count = pieces.by_ref().take_while(|piece| {
            server.feed(piece);
            server.failed.is_none()
        });
        assert!(count.count() <= 300, "{piece}");
    }
    // A few are well.
    let mut server = Memory::server(&TLS13);
    let mut peer = Peer::open(&mut server, usize::MAX);
    for _ in 0..1000 {
        server.feed(&peer.record(DATA, b""));
        server.feed(&peer.record(DATA, b"x"));
    }
    assert_eq!(server.plain.len(), 1000);
}

/// What a peer may have us keep is bounded, in the handshake and after it.
#[test]
fn long_messages_are_refused() {
    let piece = pattern(16_000);
    // After the handshake: a message that says that it is 60,000 bytes long.
    for size in [1, 100, 16_000] {
        let mut server = Memory::server(&TLS13);
        let mut peer = Peer::open(&mut server, usize::MAX);
        server.feed(&peer.record(HANDSHAKE, &[24, 0, 0xea, 0x60]));
        for _ in 0..60_000 / size {
            server.feed(&peer.record(HANDSHAKE, &piece[..size]));
            if server.failed.is_some() {
                break;
            }
            // Neither may what we send disturb it.
            assert!(server.send(b"x"));
        }
        assert!(server.failed.is_some(), "{size}");
    }
    // Before it: a ClientHello of that length.
    for chunk in [100, 16_000] {
        let mut server = Memory::server(&TLS13);
        let mut records = vec![HANDSHAKE, 3, 1, 0, 4, 1, 0, 0xea, 0x60];
        for _ in 0..5 {
            records.extend([HANDSHAKE, 3, 3, 0x3e, 0x80]);
            records.extend(&piece);
        }
        for chunk in records.chunks(chunk) {
            server.feed(chunk);
        }
        assert!(server.failed.is_some());
    }
}

#[test]
fn a_handshake_without_end_is_ended() {
    let mut server = Memory::server(&TLS13);
    let mut sent = 0;
    // Of a ClientHello that says that it is short, a byte a record.
    while server.failed.is_none() {
        server.feed(&[HANDSHAKE, 3, 1, 0, 1, 1]);
        sent += 6;
        assert!(sent <= 2 * HANDSHAKE_BYTES);
    }
    // Records that carry nothing for the handshake.
    let mut server = Memory::server(&TLS13);
    for sent in 0.. {
        server.feed(&[20, 3, 3, 0, 1, 1]);
        if server.failed.is_some() {
            break;
        }
        assert!(sent <= HANDSHAKE_BYTES);
    }
}

#[test]
fn a_stream_that_ends_without_a_close_notify_is_cut() {
    for version in BOTH {
        let (mut client, mut server) = pair(version, usize::MAX);
        assert!(client.send(b"half"));
        server.feed(&client.take_outgoing());
        server.end();
        assert_eq!(server.plain, b"half");
        assert!(!server.has_ended);
        assert!(matches!(server.failed, Some(TlsError::Truncated)), "{:?}", server.failed);
        // It may be asked again, and cannot send.
        server.turn();
        assert!(!server.send(b"x"));
        server.close();
        assert!(server.outgoing.is_empty());
        // In the handshake it is another one.
        let mut server = Memory::server(version);
        server.feed(&Memory::client(version).outgoing[..50]);
        server.end();
        assert!(matches!(server.failed, Some(TlsError::Ended)), "{:?}", server.failed);
    }
}

#[test]
fn nothing_is_read_after_a_close_notify() {
    let (mut client, mut server) = pair(&TLS13, usize::MAX);
    assert!(client.send(b"all"));
    client.close();
    let records = [client.take_outgoing(), b"and what is no record".to_vec()].concat();
    server.feed(&records);
    assert_eq!(server.plain, b"all");
    assert!(server.has_ended && server.failed.is_none());
    assert!(server.send(b"answer"));
    client.feed(&server.take_outgoing());
    assert_eq!(client.plain, b"answer");
}

/// As for a FIN behind bytes, a reader is told of it by a read of its own.
#[test]
fn an_end_is_told_to_a_reader_even_if_it_has_been_seen_before() {
    for looks in [false, true] {
        let (mut client, mut server) = pair(&TLS13, usize::MAX);
        assert!(client.send(b"all"));
        client.close();
        let mut records = client.take_outgoing();
        let mut read = |into: &mut [u8]| {
            into[..records.len()].copy_from_slice(&records);
            (Raw::Bytes(std::mem::take(&mut records).len()), false)
        };
        let session = &mut server.session;
        if looks {
            assert!(matches!(session.receive(&mut [], &mut read), Read::Nothing));
        }
        let mut into = [0; 10];
        assert!(matches!(session.receive(&mut into, &mut read), Read::Bytes(3)));
        assert!(session.is_peer_closed() && session.has_unread() && !session.has_ended());
        if looks {
            assert!(matches!(session.receive(&mut [], &mut read), Read::End));
        }
        assert!(session.has_unread() && !session.has_ended());
        assert!(matches!(session.receive(&mut into, &mut read), Read::End));
        assert!(!session.has_unread() && session.has_ended());
    }
}

/// A client that has nothing else to say sends it all at once.
#[test]
fn a_request_and_a_close_notify_may_come_with_the_end_of_the_handshake() {
    for version in BOTH {
        for request in [&b"GET"[..], b""] {
            let (mut client, mut server) = (Memory::client(version), Memory::server(version));
            server.feed(&client.take_outgoing());
            client.feed(&server.take_outgoing());
            if client.session.is_handshaking() {
                // In TLS 1.2 the server has the last word.
                carry(&mut client, &mut server, usize::MAX);
            }
            assert!(client.send(request));
            client.close();
            server.feed(&client.take_outgoing());
            assert_eq!(server.plain, request);
            assert!(server.has_ended && server.failed.is_none(), "{:?}", server.failed);
            assert!(server.send(b"answer"));
            client.feed(&server.take_outgoing());
            assert_eq!(client.plain, b"answer");
        }
    }
}

#[test]
fn a_close_notify_before_the_handshake_is_done_ends_it() {
    let (mut client, mut server) = (Memory::client(&TLS13), Memory::server(&TLS13));
    server.feed(&client.take_outgoing());
    server.feed(&[21, 3, 3, 0, 2, 1, 0]);
    assert!(server.failed.is_some() && !server.has_ended);
    assert!(!server.send(b"x"));
}

/// The alert comes behind the ServerHello, without which it cannot be decrypted.
#[test]
fn a_client_that_offers_only_other_protocols_is_told() {
    for version in BOTH {
        let mut config = (*super::memory::client_config(version, &Arc::default())).clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from(super::memory::SERVER).unwrap();
        let mut client = Memory::new(Session::client(Arc::new(config), name).unwrap());
        let mut server = Memory::server(version);
        client.turn();
        carry(&mut client, &mut server, usize::MAX);
        let told = rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol);
        assert!(matches!(&server.failed, Some(TlsError::Protocol(_))), "{:?}", server.failed);
        assert!(
            matches!(&client.failed, Some(TlsError::Protocol(error)) if *error == told),
            "{:?}",
            client.failed
        );
    }
}

/// A bit of what the client sends is wrong.
#[test]
fn wrong_bytes_end_a_session() {
    for version in BOTH {
        let hello = Memory::client(version).outgoing;
        for at in 0..hello.len() {
            let (mut client, mut server) = (Memory::client(version), Memory::server(version));
            let mut records = client.take_outgoing();
            records[at] ^= 0x10;
            server.feed(&records);
            carry(&mut client, &mut server, usize::MAX);
            let is_open = |side: &Memory| !side.session.is_handshaking() && side.failed.is_none();
            // The version in the header of the first record means nothing.
            assert!(at < 5 || !is_open(&client) || !is_open(&server), "byte {at} of {hello:?}");
            server.turn();
            server.send(b"x");
            server.close();
        }
        for at in 0..40 {
            let (mut client, mut server) = pair(version, usize::MAX);
            let data = b"data that nobody may change";
            assert!(client.send(data));
            let mut records = client.take_outgoing();
            records[at] ^= 1;
            server.feed(&records);
            server.feed(&[0; 64]);
            // The header of TLS 1.3 says nothing but how long the record is.
            let is_same = at < 3 && server.plain == data;
            assert!(server.plain.is_empty() || is_same, "byte {at}");
            server.turn();
            server.send(b"x");
            server.close();
        }
    }
}

#[test]
fn garbage_at_any_point_ends_a_session_with_an_alert() {
    let mut server = Memory::server(&TLS13);
    server.feed(&[0xff; 100]);
    assert!(matches!(server.failed, Some(TlsError::Protocol(_))));
    // An alert of its own, not encrypted: fatal.
    assert_eq!(server.outgoing[0], 21, "{:?}", server.outgoing);
    let mut server = Memory::server(&TLS13);
    let mut peer = Peer::open(&mut server, usize::MAX);
    server.feed(&peer.record(DATA, b"good"));
    server.feed(&[0xff; 100]);
    assert_eq!(server.plain, b"good");
    assert!(matches!(server.failed, Some(TlsError::Protocol(_))));
    assert!(!server.outgoing.is_empty());
    // Longer than a record may be (RFC 8446, section 5.2).
    let mut server = Memory::server(&TLS13);
    Peer::open(&mut server, usize::MAX);
    server.feed(&[DATA, 3, 3, 0x48, 1]);
    server.feed(&[0; 0x4801]);
    assert!(matches!(server.failed, Some(TlsError::Protocol(_))));
}

#[test]
fn requests_and_responses_that_are_not_encrypted_are_told_apart() {
    for piece in [1, 2, 5, usize::MAX] {
        for request in ["GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "BRIDGE / HTTP/1.1\r\n\r\n"] {
            let mut server = Memory::server(&TLS13);
            request.as_bytes().chunks(piece).for_each(|piece| server.feed(piece));
            assert!(matches!(server.failed, Some(TlsError::NotEncrypted)), "{piece} {request}");
            assert_eq!(server.outgoing, NOT_ENCRYPTED);
        }
    }
    let length = NOT_ENCRYPTED.split(|byte| *byte == b'\n').nth(5).unwrap().len() + 1;
    let field = format!("\r\nContent-Length: {length}\r\n");
    assert!(String::from_utf8_lossy(NOT_ENCRYPTED).contains(&field), "{field}");
    let mut client = Memory::client(&TLS13);
    client.take_outgoing();
    client.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert!(matches!(client.failed, Some(TlsError::NotEncrypted)));
    assert!(client.outgoing.is_empty());
    let error = std::io::Error::from(TlsError::NotEncrypted);
    assert!(TlsError::is_lasting(&error));
}

#[test]
fn a_read_that_only_looks_makes_nothing_grow() {
    let (mut client, mut server) = pair(&TLS13, usize::MAX);
    assert!(client.send(&pattern(LARGE)));
    let records = client.take_outgoing();
    let mut read = 0;
    for _ in 0..100 {
        server.session.receive(&mut [], |into| {
            let count = into.len().min(records.len() - read);
            into[..count].copy_from_slice(&records[read..read + count]);
            read += count;
            (Raw::Bytes(count), true)
        });
    }
    assert!(server.session.unread().len() <= LEAST, "{}", server.session.unread().len());
    assert!(server.session.has_unread());
}

#[test]
fn an_idle_session_keeps_no_storage() {
    let (mut client, mut server) = pair(&TLS13, 7);
    assert!(client.send(&pattern(LARGE)));
    carry(&mut client, &mut server, 1500);
    let Session { partial, plain, control, .. } = &server.session;
    assert_eq!((partial.capacity(), plain.bytes.capacity(), control.capacity()), (0, 0, 0));
}

#[test]
fn what_is_shown_of_a_session_is_no_secret() {
    let (client, server) = pair(&TLS13, usize::MAX);
    for memory in [&client, &server] {
        assert_eq!(format!("{:?}", memory.session), "Session { stage: Open, .. }");
    }
}

#[test]
fn names_in_certificates_are_shown_plainly() {
    assert_eq!(plain_name("DnsName(\"a.test\")"), "a.test");
    assert_eq!(plain_name("IpAddress(127.0.0.1)"), "127.0.0.1");
    assert_eq!(plain_name("other"), "other");
}

/// A handshake may fail between the choice of the certificate and the end of the read.
#[test]
fn a_name_that_a_failed_handshake_has_left_is_nobody_elses() {
    let (mut client, mut server) = (Memory::client(&TLS13), Memory::server(&TLS13));
    server.feed(&client.take_outgoing());
    let own = server.session.identity().server_name.clone();
    note_server_name(Some("evil.test"));
    carry(&mut client, &mut server, usize::MAX);
    assert!(!server.session.is_handshaking());
    assert_eq!(server.session.identity().server_name, own);
}
