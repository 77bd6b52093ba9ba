//! Clients that go away before they have their response, and those that only say that they have
//! nothing more to send.

use crate::common::{
    ACK, App, Bridge, Client, Proxy, Stopwatch, eventually, let_pass, ok, on_time, under_way,
};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// The beginning of a response that stays unfinished.
const STREAM: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nevent\n\r\n";

#[test]
fn the_bridge_of_a_client_that_closes_before_its_response_is_closed_at_once() {
    let proxy = Proxy::start();
    let (client, mut bridge) = under_way(&proxy);
    drop(client);
    bridge.expect_closed();
    proxy.await_count("C", 0);
}

/// Its kernel has more to say than a FIN.
#[test]
fn a_client_that_closes_with_a_response_unread_is_gone() {
    let proxy = Proxy::start();
    let (client, mut bridge) = under_way(&proxy);
    bridge.send(STREAM);
    client.await_unread(b"event\n\r\n");
    drop(client);
    bridge.expect_closed();
}

#[test]
fn a_client_that_closes_while_its_bridge_has_not_acknowledged_is_gone() {
    let proxy = Proxy::with("bridge-ack-timeout 60s");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let client = Client::get(&proxy, "a.test", "/");
    bridge.read_switch();
    drop(client);
    bridge.expect_closed();
}

#[test]
fn the_server_of_a_client_that_is_gone_is_told() {
    let server = App::start(|seen| match seen.head.starts_with("GET /stream") {
        true => STREAM.into(),
        false => ok("served"),
    });
    let proxy = Proxy::with(&format!("site a.test servers={}", server.address()));
    let hold = server.hold();
    let waiting = Client::get(&proxy, "a.test", "/");
    eventually("the server has the request", || server.connections() == 1);
    drop(waiting);
    proxy.await_count("C", 0);
    drop(hold);
    let mut streaming = Client::get(&proxy, "a.test", "/stream");
    streaming.expect_exact(STREAM);
    drop(streaming);
    eventually("its connection is closed", || server.open() == 0);
}

#[test]
fn a_client_that_shuts_down_its_sending_side_is_asked_once_and_served() {
    let proxy = Proxy::start();
    let (mut client, mut bridge) = under_way(&proxy);
    client.half_close();
    client.expect_exact(ACK);
    bridge.respond("served");
    client.expect_exact(ok("served"));
    client.expect_closed();
}

/// It was asked while it waited.
#[test]
fn a_client_that_was_asked_in_the_queue_is_not_asked_again() {
    let proxy = Proxy::start();
    let mut client = Client::get(&proxy, "a.test", "/");
    proxy.await_count("c", 1);
    client.half_close();
    client.expect_exact(ACK);
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    bridge.serve("served");
    client.expect_exact(ok("served"));
    client.expect_closed();
}

#[test]
fn requests_that_came_before_a_fin_are_all_answered() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let request = |path| format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let mut client = Client::connect(&proxy);
    client.send(["/1", "/2", "/3"].map(request).concat());
    bridge.accept_request();
    client.half_close();
    client.expect_exact(ACK);
    bridge.respond("1");
    bridge.serve("2");
    bridge.serve("3");
    for body in ["1", "2", "3"] {
        client.expect_exact(ok(body));
    }
    client.expect_closed();
}

/// It cannot be asked, and most that do this have closed.
#[test]
fn a_client_of_http_1_0_that_sends_a_fin_before_its_response_is_gone() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(&proxy, "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    bridge.accept_request();
    client.half_close();
    bridge.expect_closed();
    client.expect_closed();
}

/// A bridge is not spoilt by a request that it need not see, be it new or used.
#[test]
fn a_request_of_http_1_0_with_its_fin_behind_it_takes_no_bridge() {
    let proxy = Proxy::with("workers 1");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    for path in ["/new", "/used"] {
        let mut gone = Client::connect(&proxy);
        proxy.await_count("?", 1);
        proxy.freeze();
        gone.send("GET /gone HTTP/1.0\r\nHost: a.test\r\n\r\n");
        gone.half_close();
        proxy.thaw();
        gone.expect_closed();
        let mut client = Client::get(&proxy, "a.test", path);
        assert_eq!(bridge.serve_to(&mut client, "served"), format!("GET {path} HTTP/1.1"));
    }
}

#[test]
fn a_half_closed_client_whose_response_is_silent_is_given_up_after_a_second() {
    for version in ["1.1", "1.0"] {
        let proxy = Proxy::start();
        let mut bridge = Bridge::park(&proxy, &["a.test"]);
        let request = format!("GET / HTTP/{version}\r\nHost: a.test\r\n\r\n");
        let mut client = Client::request(&proxy, request);
        bridge.accept_request();
        bridge.send(STREAM);
        client.read_head();
        let clock = Stopwatch::start();
        client.half_close();
        bridge.expect_closed();
        clock.assert_passed(SECOND);
    }
}

/// A second is for each pause; the whole may take as long as it likes.
#[test]
fn a_half_closed_client_gets_a_response_that_keeps_coming() {
    on_time(SECOND / 5, || {
        let proxy = Proxy::start();
        let (mut client, mut bridge) = under_way(&proxy);
        bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n");
        client.read_head();
        client.half_close();
        for byte in b"everyday" {
            let_pass(SECOND / 5);
            bridge.send([*byte]);
            client.expect_exact([*byte]);
        }
        client.expect_closed();
    });
}

#[test]
fn half_closed_clients_are_served_in_any_case_if_so_set() {
    let proxy = Proxy::with("half-closed-clients serve");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut old = Client::request(&proxy, "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    bridge.accept_request();
    old.half_close();
    let mut queued = Client::request(&proxy, "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    proxy.await_count("c", 1);
    queued.half_close();
    bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nser");
    old.read_head();
    old.expect_exact("ser");
    let_pass(2 * SECOND);
    bridge.send("ved");
    old.expect_exact("ved");
    bridge.serve_to(&mut queued, "served too");
}
