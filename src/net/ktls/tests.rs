//! What peers say beside application data, without a kernel; and what a kernel is told.

use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

use super::*;
use crate::net::tls::memory::{Memory, SERVER, client_config, server_config};

/// A type of records that there is no more (RFC 8446, section 5).
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;

/// Both sides of a session whose keys have been given away.
fn pair(version: &'static SupportedProtocolVersion) -> [Kernel; 2] {
    let mut server = (*server_config(version)).clone();
    server.enable_secret_extraction = true;
    let mut client = (*client_config(version, &Arc::default())).clone();
    client.enable_secret_extraction = true;
    let name = SERVER.try_into().unwrap();
    let mut server = Memory::new(Session::server(Arc::new(server)).unwrap());
    let mut client = Memory::new(Session::client(Arc::new(client), name).unwrap());
    client.turn();
    loop {
        let [up, down] = [client.take_outgoing(), server.take_outgoing()];
        if up.is_empty() && down.is_empty() {
            break;
        }
        server.feed(&up);
        client.feed(&down);
    }
    [client, server].map(|memory| {
        let mut session = Box::new(memory.session);
        let suite = session.movable_ciphers().unwrap();
        let (secrets, keys) = session.give_keys().unwrap();
        assert!(session.movable_ciphers().is_none() && session.agreed().handshake_kind().is_some());
        Kernel::new(session, suite, &secrets, keys).unwrap().0
    })
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

#[track_caller]
fn refused(kernel: &mut Kernel, kind: u8, record: &[u8]) -> Option<AlertDescription> {
    kernel.hear(kind, record).unwrap_err().alert
}

#[test]
fn the_kernel_is_told_about_keys_in_its_own_order() {
    let nonce: Vec<u8> = (1..=12).collect();
    let info = CryptoInfo::new(Version::V13, Cipher::Aes128Gcm, &[0xaa; 16], &nonce, 0x0102);
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&0x0304_u16.to_ne_bytes());
    bytes.extend_from_slice(&51_u16.to_ne_bytes());
    bytes.extend_from_slice(&[5, 6, 7, 8, 9, 10, 11, 12]);
    bytes.extend_from_slice(&[0xaa; 16]);
    bytes.extend_from_slice(&[1, 2, 3, 4]);
    bytes.extend_from_slice(&[0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!(info.bytes(), bytes);
    let info = CryptoInfo::new(Version::V12, Cipher::Aes256Gcm, &[0xaa; 32], &nonce, 1);
    assert_eq!(info.bytes().len(), 56);
    let info = CryptoInfo::new(Version::V12, Cipher::Chacha20Poly1305, &[0xaa; 32], &nonce, 1);
    assert_eq!((info.bytes().len(), &info.bytes()[4..16]), (56, &nonce[..]));
}

/// Whatever nonce rustls began with, and however many records it has sent.
#[test]
fn no_nonce_is_used_twice_with_aes_gcm_of_tls_12() {
    for first in [0, 1, u64::MAX, 1 << 63, (1 << 63) - 1, 0x7fff_ffff_ffff_ff00] {
        let mut nonce = [9; 12];
        nonce[4..].copy_from_slice(&u64::to_be_bytes(first));
        let start = u64::from_be_bytes(unused(nonce)[4..].try_into().unwrap());
        assert_eq!(unused(nonce)[..4], [9; 4]);
        for number in [0, 1, 2, 255, 1 << 16, 1 << 24] {
            let used: u64 = first ^ number;
            // Both up and down from there it is far.
            assert!(
                used.wrapping_sub(start).min(start.wrapping_sub(used)) >= (1 << 63) - (1 << 26)
            );
        }
    }
}

#[test]
fn a_close_notify_is_the_end_and_other_alerts_are_errors() {
    for version in [&TLS12, &TLS13] {
        let [mut client, mut server] = pair(version);
        assert_eq!(client.hear(ALERT, &[1, 0]).unwrap(), Heard::Closed);
        // user_canceled says nothing of its own (RFC 8446, section 6.1).
        assert_eq!(server.hear(ALERT, &[1, 90]).unwrap(), Heard::Nothing);
        let fault = server.hear(ALERT, &[2, 40]).unwrap_err();
        assert!(fault.alert.is_none() && fault.error.to_string().contains("HandshakeFailure"));
        for malformed in [&[][..], &[1], &[1, 0, 0]] {
            let alert = refused(&mut server, ALERT, malformed);
            assert_eq!(alert, Some(AlertDescription::DecodeError));
        }
    }
    let [_, mut server] = pair(&TLS12);
    assert_eq!(server.hear(ALERT, &[1, 100]).unwrap(), Heard::Nothing);
    let [_, mut server] = pair(&TLS13);
    assert!(server.hear(ALERT, &[1, 100]).is_err());
}

#[test]
fn new_keys_are_taken_and_ours_are_owed_only_if_they_are_asked_for() {
    let [mut client, mut server] = pair(&TLS13);
    assert_eq!(server.hear(HANDSHAKE, &message(24, &[0])).unwrap(), Heard::NewKeys);
    assert!(server.is_settled());
    assert_eq!(server.hear(HANDSHAKE, &message(24, &[1])).unwrap(), Heard::NewKeys);
    assert_eq!(server.owes(), Owes { key_update: true, ..Owes::default() });
    // What one side sends by, the other receives by.
    for _ in 0..2 {
        let ours = client.next_keys(Way::Sending).unwrap();
        assert_eq!(ours.bytes(), server.next_keys(Way::Receiving).unwrap().bytes());
    }
    let ours = server.next_keys(Way::Sending).unwrap();
    assert_eq!(ours.bytes(), client.next_keys(Way::Receiving).unwrap().bytes());
    assert!(server.is_settled());
}

#[test]
fn a_message_may_come_in_pieces_and_several_in_one() {
    let [_, mut server] = pair(&TLS13);
    let update = message(24, &[0]);
    for byte in &update[..4] {
        assert_eq!(server.hear(HANDSHAKE, &[*byte]).unwrap(), Heard::Nothing);
    }
    assert_eq!(server.hear(HANDSHAKE, &update[4..]).unwrap(), Heard::NewKeys);
    // Nothing may follow new keys in their record.
    let both = [&update[..], &update].concat();
    let unexpected = Some(AlertDescription::UnexpectedMessage);
    assert_eq!(refused(&mut server, HANDSHAKE, &both), unexpected);
    let [_, mut server] = pair(&TLS13);
    assert_eq!(refused(&mut server, HANDSHAKE, &both[..6]), unexpected);
}

#[test]
fn what_may_not_come_is_refused() {
    let unexpected = Some(AlertDescription::UnexpectedMessage);
    let [mut client, mut server] = pair(&TLS13);
    for kernel in [&mut client, &mut server] {
        assert_eq!(refused(kernel, CHANGE_CIPHER_SPEC, &[1]), unexpected);
        assert_eq!(refused(kernel, 24, &[1]), unexpected);
        assert_eq!(refused(kernel, HANDSHAKE, &message(1, b"hello")), unexpected);
        let alert = refused(kernel, HANDSHAKE, &message(24, &[2]));
        assert_eq!(alert, Some(AlertDescription::IllegalParameter));
        let alert = refused(kernel, HANDSHAKE, &[4, 0xff, 0xff, 0xff]);
        assert_eq!(alert, Some(AlertDescription::DecodeError));
    }
    // A ticket is for clients, and must be one.
    assert_eq!(refused(&mut server, HANDSHAKE, &message(4, b"?")), unexpected);
    let [mut client, _] = pair(&TLS13);
    assert_eq!(
        refused(&mut client, HANDSHAKE, &message(4, b"?")),
        Some(AlertDescription::DecodeError)
    );
    // There are no new keys in TLS 1.2, and another handshake is not made.
    let [mut client, mut server] = pair(&TLS12);
    assert_eq!(refused(&mut server, HANDSHAKE, &message(24, &[0])), unexpected);
    assert_eq!(server.hear(HANDSHAKE, &message(1, b"")).unwrap(), Heard::Renegotiation);
    assert_eq!(client.hear(HANDSHAKE, &message(0, b"")).unwrap(), Heard::Renegotiation);
}

#[test]
fn records_without_application_data_do_not_come_for_ever() {
    let [_, mut server] = pair(&TLS13);
    let update = message(24, &[0]);
    for _ in 0..BARREN_RECORDS {
        assert_eq!(server.hear(HANDSHAKE, &update).unwrap(), Heard::NewKeys);
    }
    assert!(matches!(server.hear(HANDSHAKE, &update).unwrap_err().error, TlsError::Barren));
    server.barren_records = BARREN_RECORDS;
    server.note_received();
    assert!(server.hear(HANDSHAKE, &update).is_ok());
}

#[test]
fn records_are_counted_up_to_the_limit_of_their_ciphers() {
    let [_, mut server] = pair(&TLS12);
    let limit = 1 << 24;
    assert_eq!(server.limit, limit);
    server.records = 0;
    server.note_sent(1);
    server.note_sent(RECORD);
    server.note_sent(RECORD + 1);
    assert_eq!(server.records, 1 + 1 + 2);
    server.note_spliced(RECORD);
    assert!(server.records >= 5);
    server.records = limit - limit / 8 - 1;
    assert!(!server.is_worn());
    server.note_sent(1);
    // There are no other keys in TLS 1.2.
    assert!(server.is_worn() && !server.is_spent() && server.is_settled());
    server.records = limit - 1;
    server.note_sent(1);
    assert!(server.is_spent());
}

#[test]
fn what_the_last_bytes_have_become_is_known_unless_they_were_spliced() {
    for (version, overhead) in [(&TLS12, 29), (&TLS13, 22)] {
        let [mut client, _] = pair(version);
        client.note_sent(100);
        client.note_sent(RECORD + 1);
        assert_eq!(client.records_of_last(16_385), Some(16_385 + 2 * overhead));
        assert_eq!(client.records_of_last(16_485), Some(16_485 + 3 * overhead));
        assert_eq!(client.records_of_last(16_484), None);
        client.note_spliced(5);
        assert_eq!(client.records_of_last(5), None);
        client.note_sent(7);
        assert_eq!(client.records_of_last(7), Some(7 + overhead));
    }
}

#[test]
fn a_close_notify_is_owed_once() {
    let [mut client, _] = pair(&TLS13);
    client.owe_close();
    assert!(client.owes().close);
    client.close_sent();
    client.owe_close();
    assert!(client.is_settled());
}
