//! What the log tells an operator about requests: which wait and for what, and which have failed.

use crate::common::{Bridge, Client, Proxy, Stopwatch, let_pass};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn requests_that_wait_for_an_unknown_name_are_said_once() {
    let proxy = Proxy::start();
    let clock = Stopwatch::start();
    let _waiting = ["Nobody.test:80", "nobody.test"].map(|host| Client::get(&proxy, host, "/"));
    proxy.await_log(
        "requests wait for nobody.test, which no backend serves (there is no backend)\n",
    );
    clock.assert_passed(SECOND);
    // Both workers have looked at the queue again.
    let_pass(SECOND * 2);
    assert_eq!(proxy.log().matches("requests wait for").count(), 1, "{}", proxy.log());
}

/// A newcomer has often named the host otherwise.
#[test]
fn what_is_served_instead_is_said() {
    let proxy = Proxy::start();
    let _bridges =
        [["b.test", "a.test"], ["c.test", "a.test"]].map(|hosts| Bridge::park(&proxy, &hosts));
    let _waiting = Client::get(&proxy, "nobody.test", "/");
    proxy.await_log("which no backend serves (served: a.test, b.test, c.test)\n");
    let _more = ["d", "e", "f"].map(|host| Bridge::park(&proxy, &[&format!("{host}.test")]));
    let _waiting = Client::get(&proxy, "nobody.example", "/");
    proxy.await_log(" and others)\n");
}

#[test]
fn requests_that_wait_for_busy_backends_are_said() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut busy = Client::get(&proxy, "a.test", "/busy");
    bridge.accept_request();
    let mut waiting = Client::get(&proxy, "a.test", "/waiting");
    proxy.await_log("all slots of a.test are taken (1 of 1; 1 requests wait)\n");
    bridge.respond_to(&mut busy, "done");
    bridge.serve_to(&mut waiting, "done too");
    assert!(!proxy.log().contains("which no backend serves"), "{}", proxy.log());
}

/// A stranger chooses the name.
#[test]
fn a_name_in_the_log_is_bounded() {
    let proxy = Proxy::start();
    let _waiting =
        Client::get(&proxy, &format!("{}.test", "x".repeat(49) + "." + &"y".repeat(60)), "/");
    let shown = "x".repeat(49) + "." + &"y".repeat(50);
    proxy.await_log(&format!(
        "requests wait for {shown}..., which no backend serves (there is no backend)\n"
    ));
}

/// A broken backend fails with every request: a few lines of each kind say it.
#[test]
fn failures_name_both_ends_and_are_limited_by_kind() {
    let proxy = Proxy::with("workers 1");
    for number in 0..15 {
        let mut bridge = Bridge::park(&proxy, &["a.test"]);
        let mut client = Client::get(&proxy, "a.test", &format!("/{number}?key=secret"));
        bridge.accept_request();
        let [from, to] = [client.stream(), bridge.stream()]
            .map(|stream| stream.local_addr().expect("an address"));
        bridge.send("nonsense\r\n\r\n");
        client.read_response().assert_own_reply(502);
        if number == 0 {
            proxy.await_log(&format!(
                "WARN ] client {from}, backend {to} of a.test, GET a.test/0, attempt 1: backend \
                 sent bad HTTP: "
            ));
        }
    }
    let bad = proxy.log().matches("backend sent bad HTTP").count();
    assert!(bad <= 10, "{bad} lines");
    // Another kind has lines of its own.
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let post = "POST /pay HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi";
    let mut client = Client::request(&proxy, post);
    bridge.accept_request();
    drop(bridge);
    client.read_response().assert_own_reply(502);
    proxy.await_log("POST a.test/pay, attempt 1: backend closed the connection too early");
    assert!(!proxy.log().contains("secret"), "{}", proxy.log());
}
