//! A bridge after its first exchange: it parks again and gets the next request, or it is closed.

use crate::common::{Bridge, Client, Proxy, let_pass, on_time, under_way};
use std::time::Duration;

/// One exchange on a fresh bridge that is answered with these bytes.
#[track_caller]
fn answered_with(proxy: &Proxy, response: &str) -> Bridge {
    let mut bridge = Bridge::park(proxy, &["a.test"]);
    let mut client = Client::get(proxy, "a.test", "/");
    bridge.accept_request();
    bridge.send(response);
    assert_eq!(client.read_response().status(), 200);
    bridge
}

#[test]
fn bridge_is_reused_for_other_clients_and_hosts() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test", "b.test"]);
    let mut first = Client::get(&proxy, "a.test", "/1");
    bridge.serve_to(&mut first, "one");
    let mut second = Client::get(&proxy, "b.test", "/2");
    // No 101 and no ack any more: the request is the next that it reads.
    assert_eq!(bridge.serve_to(&mut second, "two"), "GET /2 HTTP/1.1");
    first.send_get("a.test", "/3");
    assert_eq!(bridge.serve_to(&mut first, "three"), "GET /3 HTTP/1.1");
}

#[test]
fn a_bridge_serves_a_thousand_requests_of_changing_clients() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut clients: Vec<Client> = (0..7).map(|_| Client::connect(&proxy)).collect();
    for number in 0..1000 {
        let client = &mut clients[number % 7];
        let path = format!("/{number}");
        client.send_get("a.test", &path);
        let line = bridge.serve(&path);
        assert_eq!(line, format!("GET {path} HTTP/1.1"));
        assert_eq!(client.read_response().text(), path);
    }
}

#[test]
fn a_bridge_is_closed_when_its_response_does_not_allow_another() {
    let proxy = Proxy::start();
    for response in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: x-y, Close\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ] {
        answered_with(&proxy, response).expect_closed();
    }
}

#[test]
fn a_response_of_http_1_0_with_keep_alive_parks_the_bridge() {
    let proxy = Proxy::start();
    let mut bridge = answered_with(
        &proxy,
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
    );
    let mut client = Client::get(&proxy, "a.test", "/again");
    assert_eq!(bridge.serve_to(&mut client, "again"), "GET /again HTTP/1.1");
}

/// The backend will close within a second, so a request sent to it now might be lost.
#[test]
fn a_bridge_is_not_used_in_the_last_second_of_its_keep_alive_timeout() {
    let proxy = Proxy::start();
    let mut short = answered_with(
        &proxy,
        "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 0\r\n\r\n",
    );
    let mut other = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    other.serve_to(&mut client, "other");
    short.expect_closed();
}

#[test]
fn a_bridge_is_used_before_the_last_second_of_its_keep_alive_timeout_and_then_closed() {
    on_time(Duration::from_millis(250), || {
        let proxy = Proxy::start();
        let mut bridge = answered_with(
            &proxy,
            "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=60, max=100\r\nContent-Length: 0\r\n\r\n",
        );
        let mut client = Client::get(&proxy, "a.test", "/soon");
        bridge.accept_request();
        bridge.send("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=2\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.read_response().status(), 200);
        let_pass(Duration::from_millis(1600));
        let mut fresh = Bridge::park(&proxy, &["a.test"]);
        client.send_get("a.test", "/late");
        assert_eq!(fresh.serve_to(&mut client, "fresh"), "GET /late HTTP/1.1");
        bridge.expect_closed();
    });
}

/// What says that a connection has been authenticated is lost on the proxy; it would lend one
/// user's rights to the next.
#[test]
fn a_bridge_on_which_a_client_authenticated_the_connection_serves_nobody_else() {
    let proxy = Proxy::start();
    for scheme in ["NTLM", "Negotiate"] {
        let mut bound = Bridge::park(&proxy, &["a.test"]);
        let mut user = Client::request(
            &proxy,
            format!("GET / HTTP/1.1\r\nHost: a.test\r\nAuthorization: {scheme} c2VjcmV0\r\n\r\n"),
        );
        bound.accept_request();
        bound.respond_to(&mut user, "for the user");
        let mut other = Bridge::park(&proxy, &["a.test"]);
        let mut stranger = Client::get(&proxy, "a.test", "/");
        other.accept_request();
        other.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 8\r\n\r\nfor them");
        assert_eq!(stranger.read_response().text(), "for them");
        drop(user);
        bound.expect_closed();
    }
}

#[test]
fn bytes_behind_a_response_close_the_bridge_and_reach_nobody() {
    let proxy = Proxy::start();
    let (mut client, mut bridge) = under_way(&proxy);
    bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngoodHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
    assert_eq!(client.read_response().text(), "good");
    bridge.expect_closed();
    client.send_get("a.test", "/next");
    let mut next = Bridge::park(&proxy, &["a.test"]);
    next.serve_to(&mut client, "next");
}

#[test]
fn bytes_that_come_between_two_exchanges_close_the_bridge() {
    let proxy = Proxy::start();
    let mut bridge = answered_with(&proxy, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
    bridge.expect_closed();
}

#[test]
fn longest_parked_bridge_is_taken_first() {
    let proxy = Proxy::with("workers 1");
    let mut bridges: Vec<Bridge> = (0..3).map(|_| Bridge::park(&proxy, &["a.test"])).collect();
    let mut client = Client::connect(&proxy);
    for _ in 0..3 {
        for bridge in &mut bridges {
            client.send_get("a.test", "/");
            bridge.serve_to(&mut client, "turn");
        }
    }
}

/// Behind a body that is spliced nobody has read them when the response is over.
#[test]
fn bytes_behind_a_large_response_reach_nobody_who_waits() {
    /// More than is read with the head, and for the rest more than is worth splicing.
    const FIRST: usize = 512 * 1024;
    const REST: usize = 40 * 1024;
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/mine");
    bridge.accept_request();
    let mut waiting = Client::get(&proxy, "a.test", "/theirs");
    proxy.await_count("c", 1);
    bridge.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", FIRST + REST));
    bridge.send(vec![b'x'; FIRST]);
    client.read_head();
    client.read_exactly(FIRST);
    let mut last = vec![b'x'; REST];
    last.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret");
    bridge.send(last);
    client.read_exactly(REST);
    bridge.expect_closed();
    let mut next = Bridge::park(&proxy, &["a.test"]);
    assert_eq!(next.serve_to(&mut waiting, "theirs"), "GET /theirs HTTP/1.1");
}

/// The backend closes by its own clock, whatever became of a request that never reached it.
#[test]
fn a_bridge_keeps_its_keep_alive_timeout_when_a_request_comes_to_nothing() {
    let proxy = Proxy::with("workers 1");
    let mut bridge = answered_with(
        &proxy,
        "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=2\r\nContent-Length: 0\r\n\r\n",
    );
    Client::ask(
        &proxy,
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    )
    .assert_own_reply(400);
    bridge.expect_closed();
}
