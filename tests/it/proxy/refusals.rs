//! Every way to be refused as a bridge: an ordinary response with one line of text, and the end of
//! the connection.

use crate::common::{Bridge, Client, Proxy};

/// What is sent, the status it gets, and a part of the reason.
const REFUSED: &[(&str, u16, &str)] = &[
    ("BRIDGE / HTTP/1.1\r\n\r\n", 404, "host"),
    ("BRIDGE / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n", 404, "host"),
    ("BRIDGE / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n", 501, "content-length"),
    ("BRIDGE / HTTP/1.1\r\nHost: a.test\r\nContent-Type: text/plain\r\n\r\n", 501, "content-type"),
    (
        "BRIDGE / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n",
        501,
        "transfer-encoding",
    ),
    ("BRIDGE / HTTP/1.1\r\nHost: a.test\r\nIf-None-Match: \"x\"\r\n\r\n", 501, "if-none-match"),
    ("BRIDGE / HTTP/1.1\r\nIf-Anything: x\r\nHost: a.test\r\n\r\n", 501, "if-anything"),
    ("BRIDGE / HTTP/1.1\r\nHost: a.*.test\r\n\r\n", 400, ""),
    ("BRIDGE / HTTP/1.1\r\nHost: *a.test\r\n\r\n", 400, ""),
    ("BRIDGE / HTTP/1.1\r\nHost: *.*\r\n\r\n", 400, ""),
    ("BRIDGE / HTTP/1.1\r\nHost: a.test\r\nHost: b*\r\n\r\n", 400, ""),
    ("BRIDGE / HTTP/1.1\r\nHost: a test\r\n\r\n", 400, ""),
    ("BRIDGE / HTTP/1.1\r\nHost: a.test/b\r\n\r\n", 400, ""),
    ("BRIDGE / HTTP/1.1\r\nHost: a.test:port\r\n\r\n", 400, ""),
    ("BRIDGE nowhere HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, ""),
    ("BRIDGE / HTTP/1.1\r\nHost : a.test\r\n\r\n", 400, ""),
    ("BRIDGE / HTTP/1.1\r\nHost: a.test\r\n b.test\r\n\r\n", 400, ""),
    ("BRIDGE / HTTP/1.1\r\nHost: a.test\r\nHost-Key: nonsense\r\n\r\n", 400, ""),
    ("BRIDGE / HTTP/1.1\r\nHost: a.test\r\nExpect: the-unexpected\r\n\r\n", 417, "expect"),
];

#[test]
fn a_bad_registration_is_refused_with_its_reason() {
    let proxy = Proxy::start();
    for (registration, status, part) in REFUSED {
        let refusal = Bridge::refused(&proxy, registration);
        assert_eq!(refusal.status(), *status, "{registration:?} got {refusal:?}");
        let reason = refusal.text().to_lowercase();
        assert!(reason.contains(part), "{registration:?} got {refusal:?}");
    }
}

#[test]
fn a_registration_without_end_is_refused() {
    let proxy = Proxy::start();
    let endless = format!("BRIDGE / HTTP/1.1\r\nHost: a.test\r\nX-Long: {}", "x".repeat(64 * 1024));
    let status = Bridge::refused(&proxy, endless).status();
    assert!(matches!(status, 400 | 431), "{status}");
}

#[test]
fn a_bridge_on_a_connection_that_has_carried_a_request_is_refused() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    bridge.serve_to(&mut client, "first");
    client.send("BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let refusal = client.read_response();
    refusal.assert_own_reply(405);
    client.expect_closed();
}

#[test]
fn one_bridge_too_many_for_a_host_is_told_to_retry() {
    let proxy = Proxy::with("bridges-per-host 2");
    let _first = Bridge::park(&proxy, &["a.test"]);
    let second = Bridge::park(&proxy, &["a.test", "b.test"]);
    let registration = "BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let refusal = Bridge::refused(&proxy, registration);
    assert_eq!(refusal.status(), 503);
    assert!(refusal.has("retry-after"), "{refusal:?}");
    Bridge::park(&proxy, &["b.test"]);
    drop(second);
    Bridge::park_when_there_is_room(&proxy, "a.test");
}

/// A backend that dials again and again must not fill the log, nor hide why another is refused.
#[test]
fn many_refusals_are_few_lines_and_each_kind_has_its_own() {
    let proxy = Proxy::start();
    for _ in 0..200 {
        assert_eq!(Bridge::refused(&proxy, "BRIDGE / HTTP/1.1\r\n\r\n").status(), 404);
    }
    Bridge::refused(&proxy, "BRIDGE / HTTP/1.1\r\nHost: a.test\r\nIf-X: y\r\n\r\n");
    proxy.await_log("refused: 501");
    let lines = proxy.log().matches("refused: 404").count();
    // Ten from each of two workers, or more if the test takes longer than ten seconds.
    assert!((1..=100).contains(&lines), "{lines} lines");
}

/// The reason is one line whatever the registration holds; nothing of it can start a line of its
/// own, nor a response.
#[test]
fn a_refusal_repeats_no_hostile_bytes() {
    let proxy = Proxy::start();
    let refusal = Bridge::refused(
        &proxy,
        b"BRIDGE / HTTP/1.1\r\nHost: a.test\r\nIf-<script>\x80\x1b[2J: x\r\n\r\n",
    );
    assert!(refusal.status() >= 400);
    assert!(refusal.body.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\n')), "{refusal:?}");
}
