//! Connections that the kernel encrypts (`ktls`), where it can. Where it cannot, everything is as it is
//! without; `tests/guest/ktls/run` runs these tests in a machine whose kernel can.

use crate::common::{
    Agent, App, Bridge, Client, Proxy, Setup, at, eventually, ok, pattern, under_way,
};
use std::time::Duration;

/// More than the buffers of the kernel.
const LARGE: usize = 16 * 1024 * 1024;

/// For so much on an emulated machine.
const LONG: Duration = Duration::from_secs(120);

/// Whether the kernel has TLS, once a proxy has tried.
fn kernel_has_tls() -> bool {
    let all = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp").unwrap_or_default();
    all.split_whitespace().any(|name| name == "tls")
}

/// Whether the kernel is said to encrypt, and how many connections it has encrypted.
fn said(proxy: &Proxy) -> (u64, u64) {
    (proxy.metric("cloudbridge_ktls_available"), proxy.metric("cloudbridge_ktls_connections_total"))
}

#[test]
fn the_kernel_encrypts_where_it_can_and_the_metrics_say_so() {
    let proxy = Setup::new().over_tls().start();
    let (mut client, mut bridge) = under_way(&proxy);
    bridge.respond_to(&mut client, "hello");
    let has = kernel_has_tls();
    assert_eq!(said(&proxy), (u64::from(has), if has { 2 } else { 0 }));
}

#[test]
fn it_is_switched_off_and_on() {
    let proxy = Setup::new().settings("ktls no").over_tls().start();
    let (mut client, mut bridge) = under_way(&proxy);
    bridge.respond_to(&mut client, "hello");
    assert_eq!(said(&proxy), (0, 0));
    proxy.change_settings("ktls no", "ktls yes");
    proxy.reload_well();
    drop((client, bridge));
    proxy.await_no_bridges();
    let (mut client, mut bridge) = under_way(&proxy);
    bridge.respond_to(&mut client, "hello");
    let has = kernel_has_tls();
    assert_eq!(said(&proxy), (u64::from(has), if has { 2 } else { 0 }));
}

/// While the receiver of a body does not read, a pipe holds some of it.
#[test]
fn bodies_pass_through_pipes() {
    let proxy = Setup::new().over_tls().start();
    if !kernel_has_tls() {
        eprintln!("skipped: this kernel has no TLS (its module `tls`)");
        return;
    }
    let (mut client, mut bridge) = under_way(&proxy);
    let body = pattern(0, LARGE);
    bridge.timeout(LONG);
    client.timeout(LONG);
    let sender = std::thread::spawn(move || {
        bridge.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"));
        bridge.send(pattern(0, LARGE));
        bridge
    });
    eventually("a pipe is used", || proxy.metric("cloudbridge_pipes") > 0);
    client.read_head();
    assert!(client.read_exactly(LARGE) == body);
    drop(sender.join().expect("a sender"));
    proxy.await_no_bridges();

    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    bridge.timeout(LONG);
    let sender = std::thread::spawn(move || {
        client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {LARGE}\r\n\r\n"));
        client.send(pattern(0, LARGE));
        client
    });
    bridge.accept_head();
    eventually("a pipe is used", || proxy.metric("cloudbridge_pipes") > 0);
    assert!(bridge.read_exactly(LARGE) == body);
    let mut client = sender.join().expect("a sender");
    bridge.respond_to(&mut client, "taken");
    assert_eq!(said(&proxy), (1, 3));
}

/// Client, proxy, agent and application, with TLS on both sides of the proxy.
#[test]
fn an_agent_serves_through_it() {
    let proxy = Setup::new().over_tls().start();
    let app = App::start(|seen| match seen.body.is_empty() {
        true => ok(pattern(0, LARGE)),
        false => ok(&seen.body),
    });
    let _agent = Agent::serve(&app.to(), 2, &[at(&proxy)]);
    let mut client = Client::connect(&proxy);
    client.timeout(LONG);
    for _ in 0..2 {
        client.send_get("a.test", "/");
        assert!(client.read_response().body == pattern(0, LARGE));
        client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {LARGE}\r\n\r\n"));
        client.send(pattern(0, LARGE));
        assert!(client.read_response().body == pattern(0, LARGE));
    }
    let (available, connections) = said(&proxy);
    assert_eq!(available, u64::from(kernel_has_tls()));
    // The client's, and at least a bridge's.
    assert_eq!(connections >= 2, kernel_has_tls(), "{connections}");
}
