//! What client and proxy agree on: versions, ciphers and protocols.

use super::{Authority, handshakes, proxy};
use crate::common::{Proxy, Setup, Wire, eventually};
use std::io::{Read, Write};
use std::net::TcpStream;

/// A proxy with one certificate.
fn start(settings: &str) -> Option<(Authority, Proxy)> {
    let authority = Authority::new()?;
    authority.issue("site", "DNS:a.test");
    let proxy = proxy(&authority.tls("site"), settings);
    Some((authority, proxy))
}

#[test]
fn versions_1_2_and_1_3_are_spoken_and_no_older_one() {
    let Some((authority, proxy)) = start("") else { return };
    assert!(authority.served(&proxy, "-tls1_2").contains("New, TLSv1.2, Cipher is ECDHE-"));
    assert!(authority.served(&proxy, "-tls1_3").contains("New, TLSv1.3, Cipher is TLS_"));
    assert!(authority.served(&proxy, "").contains("New, TLSv1.3, "));
    for old in ["-tls1", "-tls1_1"] {
        let options = format!("{old} -cipher ALL:@SECLEVEL=0");
        // For want of what these versions do not have, or for the version itself.
        authority.refused(&proxy, &options, "SSL alert number");
    }
    eventually("both are counted", || handshakes(&proxy, "failed") == 2);
    assert_eq!(handshakes(&proxy, "full"), 3);
    assert_eq!(proxy.log().matches("TLS with 127.0.0.1:").count(), 2, "{}", proxy.log());
}

/// Versions that no tool of today speaks any more: as their first bytes were.
#[test]
fn ssl_is_refused() {
    let proxy = Setup::new().over_tls().start();
    let mut ssl3 = vec![22, 3, 0, 0, 45, 1, 0, 0, 41, 3, 0];
    ssl3.extend([7; 32]);
    ssl3.extend([0, 0, 2, 0, 0x2f, 1, 0]);
    let mut ssl2 = vec![0x80, 28, 1, 0, 2, 0, 3, 0, 0, 0, 16, 1, 0, 0x80];
    ssl2.extend([7; 16]);
    for hello in [ssl3, ssl2] {
        let mut stream = TcpStream::connect(proxy.for_clients()).expect("it listens");
        stream.write_all(&hello).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an end");
        // A fatal alert and nothing else.
        assert!(answer.len() == 7 && answer[0] == 21 && answer[5] == 2, "{answer:?}");
    }
}

#[test]
fn with_tls_min_1_3_nothing_older_is_spoken() {
    let Some((authority, proxy)) = start("tls-min 1.3") else { return };
    authority.served(&proxy, "-tls1_3");
    authority.refused(&proxy, "-tls1_2", "alert protocol version");
}

/// Without authentication of what is encrypted, or without keys that are forgotten, nothing is
/// spoken.
#[test]
fn old_ciphers_are_refused() {
    let Some((authority, proxy)) = start("") else { return };
    for cipher in ["ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-AES128-SHA", "AES128-GCM-SHA256"] {
        let options = format!("-tls1_2 -cipher {cipher}:@SECLEVEL=0");
        authority.refused(&proxy, &options, "alert handshake failure");
    }
    for cipher in ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"] {
        let options = format!("-tls1_2 -cipher ECDHE-ECDSA-{cipher}");
        let said = authority.served(&proxy, &options);
        assert!(said.contains(&format!("Cipher is ECDHE-ECDSA-{cipher}")), "{said}");
    }
    for suite in ["TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"] {
        authority.served(&proxy, &format!("-tls1_3 -ciphersuites {suite}"));
    }
}

#[test]
fn http_1_1_is_chosen_and_a_client_that_offers_only_others_is_refused() {
    let Some((authority, proxy)) = start("") else { return };
    for version in ["-tls1_2", "-tls1_3"] {
        let said = authority.served(&proxy, &format!("{version} -alpn h2,http/1.1"));
        assert!(said.contains("ALPN protocol: http/1.1"), "{said}");
        authority.refused(&proxy, &format!("{version} -alpn h2"), "alert no application protocol");
        let said = authority.served(&proxy, version);
        assert!(said.contains("No ALPN negotiated"), "{said}");
    }
}

#[test]
fn renegotiation_is_refused() {
    let Some((authority, proxy)) = start("") else { return };
    // A line with R has openssl ask for it.
    let input = "{ sleep 1; echo R; sleep 3; }";
    let (_, said) = authority.client(proxy.for_clients(), "-tls1_2", input);
    assert!(said.contains("RENEGOTIATING"), "{said}");
    assert!(said.contains("no renegotiation"), "{said}");
    authority.served(&proxy, "-tls1_2");
}

/// Who has a question for a listener without TLS, and who has one for a listener with it.
#[test]
fn unencrypted_requests_get_one_answer_and_a_line_in_the_log() {
    let proxy = Setup::new().over_tls().start();
    let mut wire = Wire::new(TcpStream::connect(proxy.for_clients()).expect("it listens"));
    wire.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let mut answer = wire.read_head();
    wire.read_body(&mut answer, true);
    answer.assert_own_reply(400);
    assert_eq!(answer.text(), "TLS is spoken here: use https instead\n");
    assert_eq!(answer.field("connection"), Some("close"));
    wire.expect_closed();
    proxy.await_log("failed: what came is not encrypted\n");
    assert_eq!(proxy.log().matches("not encrypted").count(), 1);
    eventually("it is counted", || handshakes(&proxy, "failed") == 1);
    // Even one that has much to say reads the answer.
    let mut wire = Wire::new(TcpStream::connect(proxy.for_clients()).expect("it listens"));
    wire.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\n");
    wire.send_if_open(vec![b'x'; 1_000_000]);
    assert_eq!(wire.read_head().status(), 400);
    // The other way round.
    let plain = Setup::new().start();
    if !crate::common::over_tls() {
        let mut wire = Wire::connect(plain.for_clients());
        wire.send([22, 3, 1, 2, 0, 1, 0]);
        assert_eq!(wire.read_head().status(), 400);
    }
}

/// One that only connects, such as a health check, is no failure.
#[test]
fn connections_without_a_byte_are_no_failures() {
    let proxy = Setup::new().over_tls().start();
    for _ in 0..20 {
        drop(TcpStream::connect(proxy.for_clients()).expect("it listens"));
    }
    let (mut client, mut bridge) = crate::common::under_way(&proxy);
    bridge.respond_to(&mut client, "served");
    eventually("all are gone", || proxy.info().number(&["connections", "client_idle"]) <= 1);
    assert_eq!(handshakes(&proxy, "failed"), 0);
    assert!(!proxy.log().contains("TLS with"), "{}", proxy.log());
}
