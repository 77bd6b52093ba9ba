//! Signals: how a proxy ends without harm to what is under way, and how it takes up new settings.

use crate::common::{Bridge, Client, Proxy, Stopwatch, Wire, eventually, let_pass, under_way};
use std::net::TcpStream;
use std::time::Duration;

#[test]
fn sigterm_answers_parked_bridges_with_504_and_ends_the_process() {
    let mut proxy = Proxy::start();
    let mut bridges: Vec<Bridge> = (0..8).map(|_| Bridge::park(&proxy, &["a.test"])).collect();
    proxy.terminate();
    for bridge in &mut bridges {
        assert_eq!(bridge.read_refusal().status(), 504);
    }
    drop(bridges);
    assert!(proxy.wait_exit().success());
}

#[test]
fn sigint_drains_as_sigterm_does() {
    let mut proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    proxy.signal("INT");
    assert_eq!(bridge.read_refusal().status(), 504);
    drop(bridge);
    assert!(proxy.wait_exit().success());
}

/// Sends SIGTERM to a proxy, and waits until it has let a parked bridge go: it drains.
#[track_caller]
fn drain(proxy: &Proxy) {
    let mut parked = Bridge::park(proxy, &["parked.test"]);
    proxy.terminate();
    assert_eq!(parked.read_refusal().status(), 504);
}

#[test]
fn sigterm_closes_the_listeners_and_finishes_the_exchange() {
    let mut proxy = Proxy::start();
    let (mut client, mut bridge) = under_way(&proxy);
    let address = proxy.for_clients();
    drain(&proxy);
    // Each worker has taken the signal when the last of them has closed its listener.
    eventually("connections are refused", || TcpStream::connect(address).is_err());
    bridge.respond("finished");
    let response = client.read_response();
    assert_eq!(response.text(), "finished");
    assert_eq!(response.field("connection"), Some("close"), "{response:?}");
    client.expect_closed();
    bridge.expect_closed();
    drop((client, bridge));
    assert!(proxy.wait_exit().success());
}

#[test]
fn sigterm_finishes_a_body_under_way() {
    let mut proxy = Proxy::start();
    let (mut client, mut bridge) = under_way(&proxy);
    bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234");
    client.read_head();
    client.expect_exact("01234");
    drain(&proxy);
    bridge.send("56789");
    client.expect_exact("56789");
    client.expect_closed();
    drop((client, bridge));
    assert!(proxy.wait_exit().success());
}

#[test]
fn sigterm_closes_idle_and_silent_clients() {
    let mut proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut idle = Client::get(&proxy, "a.test", "/");
    bridge.serve("served");
    idle.read_response();
    let mut silent = Client::connect(&proxy);
    proxy.terminate();
    idle.expect_closed();
    silent.expect_closed();
    assert!(proxy.wait_exit().success());
}

/// Nobody is going to serve it here; it is told so at once, and its sender can try elsewhere.
#[test]
fn sigterm_answers_a_waiting_request_with_503() {
    let mut proxy = Proxy::start();
    let mut client = Client::get(&proxy, "a.test", "/");
    proxy.await_count("c", 1);
    proxy.terminate();
    let response = client.read_response();
    response.assert_own_reply(503);
    client.expect_closed();
    drop(client);
    assert!(proxy.wait_exit().success());
}

#[test]
fn exchange_longer_than_the_drain_timeout_is_cut() {
    let mut proxy = Proxy::with("drain-timeout 1s");
    let (mut client, mut bridge) = under_way(&proxy);
    let clock = Stopwatch::start();
    proxy.terminate();
    proxy.wait_exit();
    clock.assert_passed(Duration::from_secs(1));
    client.read_to_end();
    bridge.read_to_end();
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut proxy = Proxy::with("drain-timeout 1h");
    let _under_way = under_way(&proxy);
    drain(&proxy);
    let_pass(Duration::from_millis(500));
    assert!(proxy.exit_status().is_none(), "it did not wait for the exchange");
    proxy.terminate();
    assert_eq!(proxy.wait_exit().code(), Some(1));
}

fn unknown_host_status(proxy: &Proxy) -> u16 {
    Client::ask(proxy, "GET / HTTP/1.1\r\nHost: unknown.test\r\n\r\n").status()
}

#[test]
fn sighup_changes_settings_without_touching_connections() {
    let proxy = Proxy::with("unknown-host 503");
    let (mut client, mut bridge) = under_way(&proxy);
    assert_eq!(unknown_host_status(&proxy), 503);
    proxy.change_settings("unknown-host 503", "unknown-host 404");
    proxy.reload_well();
    // On both workers.
    for _ in 0..32 {
        assert_eq!(unknown_host_status(&proxy), 404);
    }
    bridge.respond_to(&mut client, "undisturbed");
}

#[test]
fn sighup_with_bad_settings_changes_nothing_and_logs_the_lines() {
    let proxy = Proxy::with("unknown-host 503");
    proxy.change_settings("unknown-host 503", "unknown-host 404\nnonsense yes\nwait-timeout never");
    proxy.reload();
    proxy.await_log("cloudbridge.conf:6:");
    proxy.await_log("cloudbridge.conf:7:");
    assert_eq!(unknown_host_status(&proxy), 503);
}

#[test]
fn sighup_without_the_settings_file_changes_nothing() {
    let proxy = Proxy::with("unknown-host 503");
    std::fs::remove_file(proxy.dir().join("cloudbridge.conf")).expect("remove");
    proxy.reload();
    proxy.await_log("cannot read");
    assert_eq!(unknown_host_status(&proxy), 503);
}

/// Clients that write into a connection that the other side has closed must not end the process.
#[test]
fn write_to_a_closed_peer_does_not_end_the_process() {
    let proxy = Proxy::with("info-host info.test");
    for _ in 0..20 {
        let (client, mut bridge) = under_way(&proxy);
        drop(client);
        for _ in 0..20 {
            bridge.send_if_open("HTTP/1.1 103 Early Hints\r\n\r\n");
        }
        drop(bridge);
        // Until the proxy has noticed, what was asked is looking for another bridge.
        eventually("nobody asks any more", || proxy.count("C") + proxy.count("c") == 0);
    }
    let mut wire = Wire::connect(proxy.for_clients());
    wire.send("GET / HTTP/1.1\r\nHost: info.test\r\n\r\n");
    assert_eq!(wire.read_head().status(), 200);
}

#[test]
fn sighup_changes_the_log_level() {
    let proxy = Proxy::with("log-level info");
    let _quiet = Bridge::park(&proxy, &["quiet.test"]);
    proxy.change_settings("log-level info", "log-level debug");
    proxy.reload();
    proxy.await_log("changed: log-level");
    let _told = Bridge::park(&proxy, &["told.test"]);
    proxy.await_log("told.test");
    assert!(!proxy.log().contains("quiet.test"), "{}", proxy.log());
}
