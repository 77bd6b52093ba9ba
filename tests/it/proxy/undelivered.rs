//! A backend that could not deliver a request to its application says so, and the request goes
//! elsewhere, whatever its method.

use crate::common::{ACK, Bridge, Client, Ending, Proxy};

const UNDELIVERED: &str = "HTTP/1.1 503 Service Unavailable\r\nCloudbridge-Undelivered: application\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

const PAY: &str = "POST /pay HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\n100";

/// Says that the backend sends these reports.
const USES: &str = "Cloudbridge-Extensions: undelivered\r\n";

/// A bridge of a backend that has a token, and has said that it uses the extension.
#[track_caller]
fn announced(proxy: &Proxy) -> Bridge {
    Bridge::with_token(proxy, USES, "leave, undelivered")
}

/// The same, after it has served one request and is parked again, and the client whom it served.
#[track_caller]
fn reused(proxy: &Proxy) -> (Bridge, Client) {
    let mut bridge = announced(proxy);
    let client = bridge.serve_first(proxy);
    (bridge, client)
}

/// The test's second backend: one that speaks the original's protocol.
#[track_caller]
fn plain(proxy: &Proxy) -> (Bridge, Client) {
    let mut bridge = Bridge::park(proxy, &["a.test"]);
    let client = bridge.serve_first(proxy);
    (bridge, client)
}

/// Fails unless the client gets the backend's 503 without the field, and the request is not sent
/// again.
#[track_caller]
fn expect_passed_on(proxy: &Proxy, client: &mut Client) {
    let response = client.read_response();
    assert_eq!((response.status(), response.text()), (503, String::new()));
    assert!(!response.has("cloudbridge-undelivered"), "{response:?}");
    Bridge::park(proxy, &["a.test"]).assert_untouched(proxy, "a.test");
}

#[test]
fn undelivered_post_is_retried_once_and_whole() {
    let proxy = Proxy::start();
    let (mut bridge, mut client) = reused(&proxy);
    client.send(PAY);
    let first = bridge.accept_request();
    assert_eq!(first.text(), "100");
    bridge.send(UNDELIVERED);
    // Closed from the proxy's side, in good order.
    assert_eq!(bridge.expect_closed(), Ending::Closed);
    let mut other = Bridge::park(&proxy, &["a.test"]);
    let second = other.accept_request();
    assert_eq!((&second.head, second.text()), (&first.head, "100".to_owned()));
    other.respond_to(&mut client, "paid");
    other.assert_untouched(&proxy, "a.test");
    assert_eq!(proxy.info().number(&["counters", "retries"]), 1);
}

#[test]
fn undelivered_request_keeps_its_place_in_the_wait_queue() {
    let proxy = Proxy::with("workers 1");
    let (mut bridge, mut client) = reused(&proxy);
    client.send(PAY);
    bridge.accept_request();
    let mut later = Client::get(&proxy, "a.test", "/later");
    proxy.await_count("c", 1);
    bridge.send(UNDELIVERED);
    proxy.await_count("c", 2);
    let mut other = Bridge::park(&proxy, &["a.test"]);
    assert_eq!(other.serve("paid"), "POST /pay HTTP/1.1");
    assert_eq!(other.serve("later"), "GET /later HTTP/1.1");
    assert_eq!(client.read_response().text(), "paid");
    assert_eq!(later.read_response().text(), "later");
}

/// An answer in place of the acknowledgement is one too, and so is one behind interim responses.
#[test]
fn undelivered_is_believed_in_place_of_the_ack_and_after_interim_responses() {
    let proxy = Proxy::start();
    let mut bridge = announced(&proxy);
    let mut client = Client::request(
        &proxy,
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(bridge.accept_head().start, "POST / HTTP/1.1");
    bridge.send(ACK);
    client.expect_exact(ACK);
    client.send("hi");
    bridge.expect_exact("hi");
    bridge.send(UNDELIVERED);
    bridge.expect_closed();
    let mut other = Bridge::park(&proxy, &["a.test"]);
    assert_eq!(other.accept_request().text(), "hi");
    other.respond_to(&mut client, "served");
}

#[test]
fn undelivered_is_not_believed_without_a_token() {
    let proxy = Proxy::start();
    let (mut bridge, mut client) = plain(&proxy);
    client.send(PAY);
    bridge.accept_request();
    bridge.send(UNDELIVERED);
    expect_passed_on(&proxy, &mut client);
}

/// A library that only deregisters passes its application's fields on, and this one is made up.
#[test]
fn undelivered_is_not_believed_of_a_backend_that_has_not_said_that_it_sends_it() {
    let proxy = Proxy::start();
    for fields in ["", "Cloudbridge-Extensions: leave\r\n"] {
        let mut bridge = Bridge::with_token(&proxy, fields, "leave, undelivered");
        let mut client = bridge.serve_first(&proxy);
        client.send(PAY);
        bridge.accept_request();
        bridge.send(UNDELIVERED);
        expect_passed_on(&proxy, &mut client);
    }
}

/// A part of it is not held any more: this is its answer.
#[test]
fn undelivered_request_over_the_replay_limit_gets_the_503() {
    let proxy = Proxy::start();
    let (mut bridge, mut client) = reused(&proxy);
    let body = "x".repeat(100_000);
    client
        .send(format!("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n{body}"));
    assert_eq!(bridge.accept_request().text(), body);
    bridge.send(UNDELIVERED);
    expect_passed_on(&proxy, &mut client);
}

#[test]
fn undelivered_is_not_believed_with_a_status_below_500() {
    let proxy = Proxy::start();
    let (mut bridge, mut client) = reused(&proxy);
    client.send(PAY);
    bridge.accept_request();
    bridge.send("HTTP/1.1 409 Conflict\r\nCloudbridge-Undelivered: x\r\nContent-Length: 0\r\n\r\n");
    let response = client.read_response();
    assert_eq!(response.status(), 409);
    assert!(!response.has("cloudbridge-undelivered"), "{response:?}");
}

/// Nobody can deliver it: it is not offered around forever. That a backend gives receipts, and has
/// given none, changes nothing.
#[test]
fn request_undelivered_by_every_backend_is_given_up() {
    let proxy = Proxy::start();
    for (fields, extensions) in [
        (USES, "leave, undelivered"),
        ("Cloudbridge-Extensions: receipts\r\n", "leave, undelivered, receipts"),
    ] {
        let mut client = Client::request(&proxy, PAY);
        for _ in 0..17 {
            let mut bridge = Bridge::with_token(&proxy, fields, extensions);
            assert_eq!(bridge.accept_request().text(), "100");
            bridge.send(UNDELIVERED);
            bridge.expect_closed();
        }
        client.read_response().assert_own_reply(502);
    }
}
