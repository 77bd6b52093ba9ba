//! A request for which no bridge is free: in which order it is served, for how long it waits, and
//! how many may.

use crate::common::{Bridge, Client, Proxy, Stopwatch, let_pass};
use std::time::Duration;

/// Puts a GET for each path into the queue, one behind the other.
#[track_caller]
fn queue(proxy: &Proxy, host: &str, paths: &[&str]) -> Vec<Client> {
    let before = proxy.count("c");
    let arrive = |(number, path): (usize, &&str)| {
        let client = Client::get(proxy, host, path);
        proxy.await_count("c", before + number as u64 + 1);
        client
    };
    paths.iter().enumerate().map(arrive).collect()
}

#[test]
fn a_request_waits_for_a_backend_that_comes_later() {
    let proxy = Proxy::start();
    let mut client = queue(&proxy, "a.test", &["/early"]).remove(0);
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    assert_eq!(bridge.serve_to(&mut client, "late"), "GET /early HTTP/1.1");
}

/// Fails unless one bridge gets the requests in this order.
#[track_caller]
fn serve_in_order(proxy: &Proxy, clients: &mut [Client], paths: &[impl AsRef<str>]) {
    assert_eq!(clients.len(), paths.len());
    let mut bridge = Bridge::park(proxy, &["a.test"]);
    for (client, path) in clients.iter_mut().zip(paths) {
        let path = path.as_ref();
        assert_eq!(bridge.serve(path), format!("GET {path} HTTP/1.1"));
        assert_eq!(client.read_response().text(), path);
    }
}

#[test]
fn wait_queue_is_first_come_first_served() {
    let proxy = Proxy::with("workers 1");
    let paths = ["/1", "/2", "/3", "/4", "/5"];
    let mut clients = queue(&proxy, "a.test", &paths);
    serve_in_order(&proxy, &mut clients, &paths);
}

/// Between workers the order holds for arrivals that are further apart than the few milliseconds of
/// the fairness bound.
#[test]
fn wait_queue_is_first_come_first_served_across_workers() {
    let proxy = Proxy::with("workers 4");
    let paths: Vec<String> = (0..12).map(|number| format!("/{number}")).collect();
    let mut clients = Vec::new();
    for path in &paths {
        clients.push(Client::get(&proxy, "a.test", path));
        proxy.await_count("c", clients.len() as u64);
        let_pass(Duration::from_millis(100));
    }
    serve_in_order(&proxy, &mut clients, &paths);
}

#[test]
fn a_request_is_not_kept_waiting_by_those_for_another_host() {
    let proxy = Proxy::start();
    let mut a = queue(&proxy, "a.test", &["/a"]).remove(0);
    let mut b = queue(&proxy, "b.test", &["/b"]).remove(0);
    let mut bridge = Bridge::park(&proxy, &["b.test"]);
    assert_eq!(bridge.serve_to(&mut b, "for b"), "GET /b HTTP/1.1");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    assert_eq!(bridge.serve_to(&mut a, "for a"), "GET /a HTTP/1.1");
}

#[test]
fn a_request_that_has_waited_too_long_gets_504_and_when_to_retry() {
    let proxy = Proxy::with("wait-timeout 1s");
    let clock = Stopwatch::start();
    let response = Client::get(&proxy, "a.test", "/").read_response();
    clock.assert_passed(Duration::from_secs(1));
    response.assert_own_reply(504);
    assert!(response.has("retry-after"), "{response:?}");
    proxy.await_count("c", 0);
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    bridge.assert_untouched(&proxy, "a.test");
}

#[test]
fn unknown_host_answers_at_once() {
    for (setting, status) in [("unknown-host 404", 404), ("unknown-host 503", 503)] {
        let proxy = Proxy::with(setting);
        let response = Client::ask(&proxy, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        response.assert_own_reply(status);
    }
}

/// A backend between two bridges, or being restarted, is not an unknown host.
#[test]
fn unknown_host_does_not_apply_to_a_remembered_host() {
    let proxy = Proxy::with("unknown-host 404");
    drop(Bridge::park(&proxy, &["a.test"]));
    proxy.await_no_bridges();
    let mut client = queue(&proxy, "a.test", &["/"]).remove(0);
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    bridge.serve_to(&mut client, "back again");
}

#[test]
fn the_queue_of_a_route_is_bounded() {
    let proxy = Proxy::with("workers 1\nqueue-per-route 2");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut busy = Client::get(&proxy, "a.test", "/busy");
    bridge.accept_request();
    let mut clients = queue(&proxy, "a.test", &["/1", "/2"]);
    let response = Client::ask(&proxy, "GET /3 HTTP/1.1\r\nHost: a.test\r\n\r\n");
    response.assert_own_reply(503);
    assert!(response.has("retry-after"), "{response:?}");
    bridge.respond_to(&mut busy, "busy");
    for (client, path) in clients.iter_mut().zip(["/1", "/2"]) {
        assert_eq!(bridge.serve_to(client, path), format!("GET {path} HTTP/1.1"));
    }
}

/// Names cost an attacker nothing, so what waits for names that nobody serves is bounded over all
/// of them.
#[test]
fn the_requests_for_names_that_nobody_serves_are_bounded_together() {
    let proxy = Proxy::with("workers 1\nqueue-unserved 2");
    let mut first = queue(&proxy, "a.test", &["/a"]);
    let _second = queue(&proxy, "b.test", &["/b"]);
    let response = Client::ask(&proxy, "GET / HTTP/1.1\r\nHost: c.test\r\n\r\n");
    response.assert_own_reply(503);
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    bridge.serve("a");
    assert_eq!(first[0].read_response().text(), "a");
    // Its place is free again.
    let _third = queue(&proxy, "c.test", &["/c"]);
}

#[test]
fn closed_client_leaves_the_wait_queue() {
    let proxy = Proxy::start();
    let mut clients = queue(&proxy, "a.test", &["/leaves", "/stays"]);
    drop(clients.remove(0));
    proxy.await_count("c", 1);
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    assert_eq!(bridge.serve("next"), "GET /stays HTTP/1.1");
    assert_eq!(clients[0].read_response().text(), "next");
}

/// Its FIN looks like the one of a client that is gone, but it still listens; the unasked interim
/// response tells them apart.
#[test]
fn half_closed_client_keeps_its_place_in_the_wait_queue() {
    let proxy = Proxy::start();
    let mut client = queue(&proxy, "a.test", &["/half"]).remove(0);
    client.half_close();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    assert_eq!(bridge.serve("still here"), "GET /half HTTP/1.1");
    assert_eq!(client.read_final_response().text(), "still here");
    client.expect_closed();
}

#[test]
fn a_body_waits_with_its_request() {
    let proxy = Proxy::start();
    let mut client = Client::request(
        &proxy,
        "POST /form HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n01234",
    );
    proxy.await_count("c", 1);
    client.send("56789");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    assert_eq!(bridge.accept_request().text(), "0123456789");
    bridge.respond_to(&mut client, "got it");
}

#[test]
fn requests_behind_a_waiting_one_wait_with_it_in_order() {
    let proxy = Proxy::start();
    let mut client = Client::request(
        &proxy,
        "GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\nGET /2 HTTP/1.1\r\nHost: a.test\r\n\r\n",
    );
    proxy.await_count("c", 1);
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    assert_eq!(bridge.serve("one"), "GET /1 HTTP/1.1");
    assert_eq!(bridge.serve("two"), "GET /2 HTTP/1.1");
    assert_eq!(client.read_response().text(), "one");
    assert_eq!(client.read_response().text(), "two");
}

/// It must not take a place in the queue, nor a bridge from those who wait behind it.
#[test]
fn a_body_that_is_malformed_from_the_start_is_refused_without_waiting() {
    let proxy = Proxy::start();
    let mut clients: Vec<Client> = (0..300).map(|_| Client::connect(&proxy)).collect();
    for client in &mut clients {
        client.send("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n");
    }
    for client in &mut clients {
        client.read_response().assert_own_reply(400);
        client.expect_closed();
    }
    Bridge::park(&proxy, &["a.test"]).assert_untouched(&proxy, "a.test");
}

/// What has come behind the head of a waiting request is not looked at before a bridge is there;
/// then one after the other is found out.
#[test]
fn a_crowd_of_waiting_requests_whose_bodies_are_malformed_harms_nobody_else() {
    const CROWD: u64 = 300;
    let proxy = Proxy::start();
    let mut crowd: Vec<Client> = (0..CROWD).map(|_| Client::connect(&proxy)).collect();
    for client in &mut crowd {
        client.send("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    }
    proxy.await_count("c", CROWD);
    crowd.iter_mut().for_each(|client| client.send("ZZ\r\n"));
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    bridge.read_switch();
    bridge.send_if_open(crate::common::ACK);
    bridge.read_to_end();
    drop(crowd);
    proxy.await_count("c", 0);
    Bridge::park(&proxy, &["a.test"]).assert_untouched(&proxy, "a.test");
}

/// Each is served from the end of the one before: none of them inside the other.
#[test]
fn a_thousand_waiting_requests_are_served_by_one_bridge() {
    let proxy = Proxy::start();
    let mut clients: Vec<Client> =
        (0..1000).map(|number| Client::get(&proxy, "a.test", &format!("/{number}"))).collect();
    proxy.await_count("c", 1000);
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    for _ in 0..1000 {
        let line = bridge.serve("served");
        assert!(line.starts_with("GET /"), "{line}");
    }
    for client in &mut clients {
        assert_eq!(client.read_response().text(), "served");
    }
}
