//! Upgrades: after the 101 that answers one, bytes go both ways until both sides have closed.

use crate::common::{
    Bridge, Client, Proxy, Stopwatch, Wire, exchange, let_pass, on_time, pattern, pattern_differs,
    under_way,
};
use std::time::Duration;

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A client and a backend with a tunnel between them.
#[track_caller]
fn tunnel(proxy: &Proxy) -> (Client, Bridge) {
    let mut bridge = Bridge::park(proxy, &["a.test"]);
    let mut client = Client::request(proxy, UPGRADE);
    bridge.accept_request();
    bridge.send(SWITCHED);
    assert_eq!(client.read_head().status(), 101);
    (client, bridge)
}

#[test]
fn an_upgrade_is_asked_for_and_granted_through_the_proxy() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(&proxy, UPGRADE);
    let request = bridge.accept_request();
    assert_eq!(request.field("connection").map(str::to_lowercase).as_deref(), Some("upgrade"));
    assert_eq!(request.field("upgrade"), Some("websocket"));
    assert_eq!(request.field("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    bridge.send(SWITCHED);
    let response = client.read_head();
    assert_eq!(response.start, "HTTP/1.1 101 Switching Protocols");
    assert_eq!(response.field("connection").map(str::to_lowercase).as_deref(), Some("upgrade"));
    assert_eq!(response.field("upgrade"), Some("websocket"));
    assert_eq!(response.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    client.send("up");
    bridge.expect_exact("up");
    bridge.send("down");
    client.expect_exact("down");
}

/// As Docker's clients do: RFC 9110, section 7.8, lets any request offer an upgrade.
#[test]
fn a_request_with_a_body_may_upgrade_behind_it() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(
        &proxy,
        "POST /exec/1/start HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
         Content-Length: 12\r\n\r\n{\"Tty\":true",
    );
    let head = bridge.accept_head();
    assert_eq!(head.field("upgrade"), Some("tcp"));
    assert_eq!(head.field("connection").map(str::to_lowercase).as_deref(), Some("upgrade"));
    bridge.expect_exact("{\"Tty\":true");
    client.send("}eager");
    bridge.expect_exact("}");
    bridge.send("HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\ndown");
    assert_eq!(client.read_head().status(), 101);
    client.expect_exact("down");
    bridge.expect_exact("eager");
    client.send("up");
    bridge.expect_exact("up");
}

#[test]
fn bytes_right_behind_the_101_are_the_tunnels_first() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(&proxy, format!("{UPGRADE}eager client"));
    bridge.accept_request();
    bridge.send(format!("{SWITCHED}eager backend"));
    assert_eq!(client.read_head().status(), 101);
    client.expect_exact("eager backend");
    bridge.expect_exact("eager client");
    client.send(", and more");
    bridge.expect_exact(", and more");
}

#[test]
fn each_direction_of_a_tunnel_ends_by_itself() {
    let proxy = Proxy::start();
    let (mut client, mut bridge) = tunnel(&proxy);
    client.send("last words");
    client.half_close();
    bridge.expect_exact("last words");
    bridge.expect_closed();
    bridge.send("an answer to them");
    client.expect_exact("an answer to them");
    drop(bridge);
    client.expect_closed();

    let (mut client, mut bridge) = tunnel(&proxy);
    bridge.send("last words");
    bridge.half_close();
    client.expect_exact("last words");
    client.expect_closed();
    client.send("an answer to them");
    bridge.expect_exact("an answer to them");
    drop(client);
    bridge.expect_closed();
}

#[test]
fn ten_thousand_messages_come_back_in_order() {
    let proxy = Proxy::start();
    let (mut client, mut bridge) = tunnel(&proxy);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while let Some(bytes) = bridge.read_some(64 * 1024) {
                bridge.send(bytes);
            }
        });
        for number in 0..10_000 {
            let message = format!("message {number}\n");
            client.send(&message);
            client.expect_exact(&message);
        }
        client.half_close();
        client.expect_closed();
    });
}

/// Sends this many bytes of the test body and then a FIN.
fn pour(wire: &mut Wire, size: u64) {
    const PIECE: u64 = 256 * 1024;
    let mut at = 0;
    while at < size {
        let piece = PIECE.min(size - at);
        wire.send(pattern(at, piece as usize));
        at += piece;
    }
    wire.half_close();
}

#[test]
fn a_tunnel_carries_a_lot_both_ways_at_once() {
    const SIZE: u64 = 16 * 1024 * 1024;
    let proxy = Proxy::start();
    let (client, bridge) = tunnel(&proxy);
    std::thread::scope(|scope| {
        for wire in [&*client, &*bridge] {
            let mut writer = wire.try_clone();
            let mut reader = wire.try_clone();
            scope.spawn(move || pour(&mut writer, SIZE));
            scope.spawn(move || {
                let mut at = 0;
                while let Some(bytes) = reader.read_some(256 * 1024) {
                    assert_eq!(pattern_differs(at, &bytes), None);
                    at += bytes.len() as u64;
                }
                assert_eq!(at, SIZE);
            });
        }
    });
}

#[test]
fn a_backend_may_decline_to_upgrade() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(&proxy, UPGRADE);
    bridge.accept_request();
    bridge.respond_to(&mut client, "no, thanks");
    exchange(&mut client, &mut bridge);
}

#[test]
fn a_101_that_nobody_asked_for_is_a_502() {
    let proxy = Proxy::start();
    let (mut client, mut bridge) = under_way(&proxy);
    bridge.send(SWITCHED);
    assert_eq!(client.read_response().status(), 502);
    bridge.expect_closed();
}

#[test]
fn a_tunnel_that_nobody_uses_is_closed_after_the_tunnel_timeout() {
    let proxy = Proxy::with("tunnel-timeout 1s");
    let clock = Stopwatch::start();
    let (mut client, mut bridge) = tunnel(&proxy);
    client.expect_closed();
    clock.assert_passed(Duration::from_secs(1));
    bridge.expect_closed();
}

/// No other timeout is about tunnels, neither the one that ran before the ack nor the one before
/// the 101.
#[test]
fn tunnel_is_under_no_timeout_but_its_own() {
    on_time(Duration::from_millis(500), || {
        let proxy = Proxy::with(
            "response-timeout 3s\nbody-timeout 3s\nkeepalive-timeout 3s\nhead-timeout 3s",
        );
        // Ack and 101 apart, and both at once.
        let (mut client, mut bridge) = tunnel(&proxy);
        let mut prompt_bridge = Bridge::park(&proxy, &["b.test"]);
        let mut prompt_client = Client::request(&proxy, UPGRADE.replace("a.test", "b.test"));
        prompt_bridge.read_switch();
        prompt_bridge.send(format!("HTTP/1.1 100 Continue\r\n\r\n{SWITCHED}"));
        assert_eq!(prompt_client.read_head().status(), 101);
        prompt_bridge.read_head();
        let_pass(Duration::from_millis(3500));
        for (client, bridge) in
            [(&mut client, &mut bridge), (&mut prompt_client, &mut prompt_bridge)]
        {
            client.send("still open");
            bridge.expect_exact("still open");
            bridge.send("both ways");
            client.expect_exact("both ways");
        }
    });
}

#[test]
fn a_tunnel_that_is_used_in_one_direction_stays_open() {
    on_time(Duration::from_secs(1), || {
        let proxy = Proxy::with("tunnel-timeout 3s");
        let (mut client, mut bridge) = tunnel(&proxy);
        for _ in 0..8 {
            let_pass(Duration::from_millis(500));
            bridge.send("tick");
            client.expect_exact("tick");
        }
        client.send("still open");
        bridge.expect_exact("still open");
    });
}
