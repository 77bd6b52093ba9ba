//! Clients that take a response more slowly than its backend sends it.

use crate::common::{
    Bridge, Client, Proxy, exchange, let_pass, on_time, pattern, pattern_differs, under_way,
};
use std::time::Duration;

/// More than the kernel takes for a client that reads nothing.
const LARGE: usize = 8 * 1024 * 1024;

/// Fails unless the next bytes are the first `length` of the test body.
#[track_caller]
fn expect_pattern(client: &mut Client, length: usize) {
    let body = client.read_exactly(length);
    assert_eq!(pattern_differs(0, &body), None);
}

#[test]
fn the_bridge_of_a_slow_client_is_free_when_the_rest_of_its_response_fits_into_the_buffer() {
    let proxy = Proxy::with("response-buffer 16m");
    let (mut slow, mut bridge) = under_way(&proxy);
    bridge.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"));
    bridge.send(pattern(0, LARGE));
    let mut next = Client::get(&proxy, "a.test", "/next");
    bridge.serve_to(&mut next, "served");
    slow.read_head();
    expect_pattern(&mut slow, LARGE);
    exchange(&mut slow, &mut bridge);
}

#[test]
fn the_bridge_of_a_slow_client_is_free_after_a_chunked_response_too() {
    const CHUNK: usize = 8 * 1024;
    let proxy = Proxy::with("response-buffer 16m");
    let (mut slow, mut bridge) = under_way(&proxy);
    let chunk = format!("{CHUNK:x}\r\n{}\r\n", "x".repeat(CHUNK));
    let body = chunk.repeat(LARGE / CHUNK) + "0\r\n\r\n";
    bridge.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    bridge.send(&body);
    let mut next = Client::get(&proxy, "a.test", "/next");
    bridge.serve_to(&mut next, "served");
    slow.read_head();
    slow.expect_exact(&body);
    exchange(&mut slow, &mut bridge);
}

/// What does not fit waits in the backend.
#[test]
fn no_more_than_the_buffer_is_read_ahead() {
    let proxy = Proxy::start();
    let before = proxy.memory();
    let mut slow = Vec::new();
    for number in 0..8 {
        let host = format!("{number}.test");
        let mut bridge = Bridge::park(&proxy, &[host.as_str()]);
        let client = Client::get(&proxy, &host, "/");
        bridge.accept_request();
        bridge.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 8 * LARGE));
        bridge.timeout(Duration::from_millis(200));
        assert!(!bridge.send_if_open(vec![b'x'; 8 * LARGE]), "all of it was taken");
        slow.push((client, bridge));
    }
    let grown = proxy.memory().saturating_sub(before);
    assert!(grown < 8 * 1024 * 1024, "{grown} bytes more");
}

/// The kernel gives up a peer that acknowledges nothing for that long; one that is there and does
/// not read has longer.
#[test]
fn peers_that_pause_for_longer_than_the_user_timeout_are_alive() {
    const PAUSE: Duration = Duration::from_secs(7);
    on_time(Duration::from_millis(500), || {
        let proxy = Proxy::with("tcp-user-timeout 2s");
        let download = || {
            let (mut client, mut bridge) = under_way(&proxy);
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    bridge.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"));
                    bridge.send(pattern(0, LARGE));
                });
                client.read_head();
                let_pass(PAUSE);
                expect_pattern(&mut client, LARGE);
            });
        };
        let upload = || {
            let mut bridge = Bridge::park(&proxy, &["b.test"]);
            let mut client = Client::connect(&proxy);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let head = "PUT / HTTP/1.1\r\nHost: b.test\r\nContent-Length";
                    client.send(format!("{head}: {LARGE}\r\n\r\n"));
                    client.send(pattern(0, LARGE));
                    assert_eq!(client.read_response().text(), "taken");
                });
                bridge.accept_head();
                let_pass(PAUSE);
                assert_eq!(pattern_differs(0, &bridge.read_exactly(LARGE)), None);
                bridge.respond("taken");
            });
        };
        let tunnel = || {
            let mut bridge = Bridge::park(&proxy, &["c.test"]);
            let upgrade = "Connection: upgrade\r\nUpgrade: echo\r\n\r\n";
            let mut client =
                Client::request(&proxy, format!("GET / HTTP/1.1\r\nHost: c.test\r\n{upgrade}"));
            bridge.accept_request();
            bridge.send(format!("HTTP/1.1 101 Switching Protocols\r\n{upgrade}"));
            client.read_head();
            std::thread::scope(|scope| {
                scope.spawn(|| bridge.send(pattern(0, LARGE)));
                let_pass(PAUSE);
                expect_pattern(&mut client, LARGE);
            });
            client.send("still open");
            bridge.expect_exact("still open");
        };
        std::thread::scope(|scope| {
            scope.spawn(download);
            scope.spawn(upload);
            scope.spawn(tunnel);
        });
    });
}
