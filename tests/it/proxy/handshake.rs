//! The first words between a backend and the proxy: BRIDGE, 100, 101, and the 100 that answers it.

use crate::common::{ACK, Bridge, Client, Proxy, Stopwatch};
use std::time::Duration;

const REGISTRATION: &str = "BRIDGE / HTTP/1.1\r\nExpect: 100-continue\r\nHost: a.test\r\n\r\n";

#[test]
fn a_registration_is_answered_with_100_at_once() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::connect(&proxy);
    bridge.send(REGISTRATION);
    bridge.expect_exact("HTTP/1.1 100 Continue\r\n\r\n");
}

#[test]
fn a_registration_may_come_byte_by_byte() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::connect(&proxy);
    bridge.send_byte_by_byte(REGISTRATION);
    bridge.expect_exact("HTTP/1.1 100 Continue\r\n\r\n");
}

#[test]
fn a_request_and_its_response_cross_the_bridge() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/hello?x=1");
    let request = bridge.accept_request();
    assert_eq!(request.start, "GET /hello?x=1 HTTP/1.1");
    assert_eq!(request.field("host"), Some("a.test"));
    bridge.send("HTTP/1.1 200 Fine\r\nX-From: backend\r\nContent-Length: 5\r\n\r\nhello");
    let response = client.read_response();
    assert_eq!(response.start, "HTTP/1.1 200 Fine");
    assert_eq!(response.field("x-from"), Some("backend"));
    assert_eq!(response.text(), "hello");
}

/// The ack is the proxy's own affair: a client would take it for an interim response.
#[test]
fn ack_cut_at_any_byte_does_not_reach_the_client() {
    let proxy = Proxy::start();
    for cut in 0..=ACK.len() {
        let mut bridge = Bridge::park(&proxy, &["a.test"]);
        let mut client = Client::get(&proxy, "a.test", "/");
        bridge.read_switch();
        bridge.send(&ACK[..cut]);
        let mut rest = ACK[cut..].to_vec();
        rest.extend_from_slice(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        );
        bridge.send(rest);
        let response = client.read_response();
        assert_eq!(response.status(), 200, "cut after {cut} bytes");
        assert_eq!(response.text(), "ok", "cut after {cut} bytes");
    }
}

/// The original tolerates it, so some backend out there does it.
#[test]
fn a_response_without_the_ack_is_taken() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    bridge.read_switch();
    bridge.respond_to(&mut client, "no ack");
}

#[test]
fn request_goes_to_the_next_bridge_when_the_ack_does_not_come() {
    // Time enough for the second to acknowledge.
    let proxy = Proxy::with("workers 1\nbridge-ack-timeout 5s");
    let mut silent = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(
        &proxy,
        "POST /once HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody",
    );
    silent.read_switch();
    let mut alive = Bridge::park(&proxy, &["a.test"]);
    let request = alive.accept_request();
    assert_eq!(request.start, "POST /once HTTP/1.1");
    assert_eq!(request.text(), "body");
    alive.respond_to(&mut client, "served");
    // It got at most the head of a request that it never claimed, and it is gone.
    silent.read_to_end();
}

#[test]
fn request_goes_to_the_next_bridge_when_one_closes_at_its_101() {
    let proxy = Proxy::start();
    let mut dying = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    dying.read_switch();
    drop(dying);
    let mut alive = Bridge::park(&proxy, &["a.test"]);
    alive.serve_to(&mut client, "served");
}

/// Such bytes would otherwise be read as the answer to a request that had not been made.
#[test]
fn bytes_before_the_101_close_the_bridge() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
    bridge.expect_closed();
    let mut good = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    good.serve_to(&mut client, "good");
}

/// They may come together with it or just after; either way nobody gets them, and no request goes
/// there.
#[test]
fn bytes_right_behind_the_registration_close_the_bridge() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::connect(&proxy);
    bridge.send(format!("{REGISTRATION}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"));
    let (words, _) = bridge.read_to_end();
    let refused = words.starts_with(b"HTTP/1.1 400 ");
    assert!(words == ACK || refused, "{}", words.escape_ascii());
    let mut good = Bridge::park(&proxy, &["a.test"]);
    good.assert_untouched(&proxy, "a.test");
}

#[test]
fn a_parked_bridge_is_pinged() {
    let proxy = Proxy::with("ping-interval 1s");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    bridge.expect_exact("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
    let mut client = Client::get(&proxy, "a.test", "/");
    bridge.serve_to(&mut client, "after pings");
}

#[test]
fn parked_bridge_gets_504_after_bridge_timeout() {
    let proxy = Proxy::with("bridge-timeout 1s");
    let clock = Stopwatch::start();
    assert_eq!(Bridge::park(&proxy, &["a.test"]).read_refusal().status(), 504);
    clock.assert_passed(Duration::from_secs(1));
}
