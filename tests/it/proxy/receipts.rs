//! A backend that gives receipts: if its bridge ends and none has come for a POST, its application
//! has not been given it, and the POST goes elsewhere.

use crate::common::{ACK, Bridge, Client, Proxy, on_time};
use std::time::Duration;

const RECEIPT: &str = "HTTP/1.1 102 Processing\r\nCloudbridge-Receipt: application\r\n\r\n";

const PAY: &str = "POST /pay HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\n100";

#[track_caller]
fn with_receipts(proxy: &Proxy) -> Bridge {
    let fields = "Cloudbridge-Extensions: receipts\r\n";
    Bridge::with_token(proxy, fields, "leave, undelivered, receipts")
}

/// The client of a POST that has reached `bridge`.
#[track_caller]
fn paying(proxy: &Proxy, bridge: &mut Bridge) -> Client {
    let client = Client::request(proxy, PAY);
    assert_eq!(bridge.accept_request().text(), "100");
    client
}

#[test]
fn post_without_a_receipt_is_retried_once_and_whole() {
    let proxy = Proxy::start();
    let mut bridge = with_receipts(&proxy);
    let mut client = paying(&proxy, &mut bridge);
    drop(bridge);
    let mut other = Bridge::park(&proxy, &["a.test"]);
    assert_eq!(other.accept_request().text(), "100");
    other.respond_to(&mut client, "paid");
    assert_eq!(proxy.info().number(&["counters", "retries"]), 1);
}

/// A bridge that has served before gets no acknowledgement asked; the receipt is about the request.
#[test]
fn post_without_a_receipt_on_a_reused_bridge_is_retried() {
    let proxy = Proxy::start();
    let mut bridge = with_receipts(&proxy);
    let mut client = bridge.serve_first(&proxy);
    for _ in 0..2 {
        client.send(PAY);
        assert_eq!(bridge.accept_request().text(), "100");
        bridge.send(RECEIPT);
        bridge.respond_to(&mut client, "paid");
    }
    client.send(PAY);
    assert_eq!(bridge.accept_request().text(), "100");
    drop(bridge);
    let mut other = Bridge::park(&proxy, &["a.test"]);
    assert_eq!(other.accept_request().text(), "100");
    other.respond_to(&mut client, "paid elsewhere");
}

#[test]
fn post_with_a_receipt_is_not_retried() {
    let proxy = Proxy::start();
    let mut bridge = with_receipts(&proxy);
    let mut client = paying(&proxy, &mut bridge);
    bridge.send(RECEIPT);
    drop(bridge);
    client.read_response().assert_own_reply(502);
    Bridge::park(&proxy, &["a.test"]).assert_untouched(&proxy, "a.test");
}

/// Cut at every byte, it is for the proxy and no byte of it for the client; what the backend says
/// after it is.
#[test]
fn a_receipt_is_not_passed_on() {
    let proxy = Proxy::start();
    let mut bridge = with_receipts(&proxy);
    let mut client = bridge.serve_first(&proxy);
    for cut in 1..RECEIPT.len() {
        client.send(PAY);
        assert_eq!(bridge.accept_request().text(), "100");
        bridge.send(&RECEIPT[..cut]);
        bridge.send(&RECEIPT[cut..]);
        bridge.send("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
        bridge.respond("paid");
        client.expect_exact("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
        assert_eq!(client.read_response().text(), "paid");
    }
}

#[test]
fn post_is_not_retried_without_the_receipts_extension() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::with_token(&proxy, "", "leave, undelivered");
    let mut client = paying(&proxy, &mut bridge);
    bridge.send(RECEIPT);
    client.expect_exact("HTTP/1.1 102 Processing\r\n\r\n");
    drop(bridge);
    client.read_response().assert_own_reply(502);
    let mut plain = Bridge::connect(&proxy);
    plain.send("BRIDGE / HTTP/1.1\r\nHost: a.test\r\nCloudbridge-Extensions: receipts\r\n\r\n");
    plain.expect_exact(ACK);
    let mut client = paying(&proxy, &mut plain);
    drop(plain);
    client.read_response().assert_own_reply(502);
}

#[test]
fn post_over_the_replay_limit_without_a_receipt_gets_502() {
    let proxy = Proxy::start();
    let mut bridge = with_receipts(&proxy);
    let body = "x".repeat(100_000);
    let mut client = Client::request(
        &proxy,
        format!("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n{body}"),
    );
    assert_eq!(bridge.accept_request().text(), body);
    drop(bridge);
    client.read_response().assert_own_reply(502);
    Bridge::park(&proxy, &["a.test"]).assert_untouched(&proxy, "a.test");
}

/// Only the end of the connection says that no receipt will come. A backend that has said nonsense,
/// or nothing for too long, still has the request, and may be giving it to its application.
#[test]
fn post_without_a_receipt_is_not_retried_while_the_bridge_is_open() {
    on_time(Duration::from_millis(500), || {
        let proxy = Proxy::with("response-timeout 3s");
        let mut bridge = with_receipts(&proxy);
        let mut client = paying(&proxy, &mut bridge);
        bridge.send("nonsense\r\n\r\n");
        client.read_response().assert_own_reply(502);
        let mut bridge = with_receipts(&proxy);
        let mut client = paying(&proxy, &mut bridge);
        client.read_response().assert_own_reply(504);
        bridge.send_if_open(RECEIPT);
        Bridge::park(&proxy, &["a.test"]).assert_untouched(&proxy, "a.test");
    });
}

/// Its process has ended with a part of the request unread, so its kernel answers with a reset.
#[test]
fn post_without_a_receipt_is_retried_after_a_reset() {
    let proxy = Proxy::start();
    let mut bridge = with_receipts(&proxy);
    let mut client = Client::request(&proxy, PAY);
    bridge.acknowledge();
    bridge.await_unread(b"100");
    drop(bridge);
    let mut other = Bridge::park(&proxy, &["a.test"]);
    assert_eq!(other.accept_request().text(), "100");
    other.respond_to(&mut client, "paid");
}

/// It may be the request that ends them: it is not shown to all there are.
#[test]
fn post_that_ends_every_backend_is_given_up() {
    let proxy = Proxy::start();
    let mut client = Client::request(&proxy, PAY);
    for _ in 0..17 {
        let mut bridge = with_receipts(&proxy);
        assert_eq!(bridge.accept_request().text(), "100");
    }
    client.read_response().assert_own_reply(502);
}
