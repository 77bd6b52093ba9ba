//! Backends that die with a request in hand: what may be sent again is, once more and whole; what
//! may have been done is not done twice.

use crate::common::{ACK, Bridge, Client, Proxy, SWITCH, eventually};

/// A bridge that has served one request and is parked again, and the client whom it served.
#[track_caller]
fn reused(proxy: &Proxy) -> (Bridge, Client) {
    let mut bridge = Bridge::park(proxy, &["a.test"]);
    let client = bridge.serve_first(proxy);
    (bridge, client)
}

/// A backend may close a connection that it has kept open just as the next request comes: nobody
/// has done wrong.
#[test]
fn get_on_a_reused_bridge_that_closes_is_retried() {
    let proxy = Proxy::start();
    let (mut dying, mut client) = reused(&proxy);
    client.send("GET /again HTTP/1.1\r\nHost: a.test\r\nX-Kept: yes\r\n\r\n");
    let first = dying.accept_request();
    drop(dying);
    let mut alive = Bridge::park(&proxy, &["a.test"]);
    let second = alive.accept_request();
    assert_eq!(first.head, second.head);
    alive.respond_to(&mut client, "again");
}

#[test]
fn get_on_a_bridge_that_resets_is_retried() {
    let proxy = Proxy::start();
    let (dying, mut client) = reused(&proxy);
    client.send_get("a.test", "/again");
    dying.await_unread(b"\r\n\r\n");
    drop(dying);
    let mut alive = Bridge::park(&proxy, &["a.test"]);
    assert_eq!(alive.serve_to(&mut client, "again"), "GET /again HTTP/1.1");
}

#[test]
fn get_is_retried_as_often_as_the_settings_say() {
    for retries in [0, 2] {
        let proxy = Proxy::with(&format!("retries {retries}"));
        let mut client = Client::get(&proxy, "a.test", "/");
        for _ in 0..retries {
            Bridge::park(&proxy, &["a.test"]).accept_request();
        }
        let mut last = Bridge::park(&proxy, &["a.test"]);
        last.accept_request();
        drop(last);
        client.read_response().assert_own_reply(502);
        let mut client = Client::get(&proxy, "a.test", "/");
        for _ in 0..retries {
            Bridge::park(&proxy, &["a.test"]).accept_request();
        }
        Bridge::park(&proxy, &["a.test"]).serve_to(&mut client, "at last");
    }
}

/// The backend's other bridges may be about to end, too, and would cost the request its last try.
#[test]
fn repeat_that_comes_back_to_its_backend_follows_an_acknowledgement() {
    // One worker, so that the bridge that has been parked for longest comes first.
    let proxy = Proxy::with("workers 1");
    let fields = "Cloudbridge-Extensions: probes\r\n";
    let mut bridges: [Bridge; 3] =
        [(); 3].map(|()| Bridge::with_token(&proxy, fields, "leave, undelivered, probes"));
    let mut clients = [(); 3].map(|()| Client::get(&proxy, "a.test", "/first"));
    for bridge in &mut bridges {
        bridge.accept_request();
    }
    for (parked, bridge) in (1..).zip(&mut bridges) {
        bridge.respond("first");
        proxy.await_count("b", parked);
    }
    for client in &mut clients {
        assert_eq!(client.read_response().text(), "first");
    }
    let [mut first, mut second, mut third] = bridges;
    let mut client = Client::get(&proxy, "a.test", "/again");
    assert_eq!(first.accept_request().start, "GET /again HTTP/1.1");
    drop(first);
    second.expect_exact(SWITCH);
    drop(second);
    third.expect_exact(SWITCH);
    third.send(ACK);
    assert_eq!(third.serve_to(&mut client, "again"), "GET /again HTTP/1.1");
}

/// It may be the request that ends them.
#[test]
fn request_that_ends_its_backends_reaches_two_of_them_and_is_reported() {
    let proxy = Proxy::start();
    for (number, method) in (0..).zip(["GET", "PUT", "DELETE"]) {
        let request =
            format!("{method} /die?x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\n\r\n.");
        let mut client = Client::request(&proxy, request);
        for _ in 0..2 {
            assert_eq!(Bridge::park(&proxy, &["a.test"]).accept_request().text(), ".");
        }
        client.read_response().assert_own_reply(502);
        for (tried, then) in [(1, "it is repeated"), (2, "the client gets 502")] {
            proxy.await_log(&format!(
                ", {method} a.test/die, try {tried} of 2: backend closed the connection too early: \
                 {then}"
            ));
        }
        let failures = proxy.info().number(&["counters", "delivered_failures"]);
        assert_eq!(failures, 2 * (number + 1));
    }
    Bridge::park(&proxy, &["a.test"]).assert_untouched(&proxy, "a.test");
}

/// `redeploy` says which requests may be repeated, not how often.
#[test]
fn redeployed_post_that_ends_its_backends_reaches_two_of_them() {
    let proxy = Proxy::with("site a.test redeploy=16k");
    let mut client = Client::request(
        &proxy,
        "POST /pay HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\n100",
    );
    for _ in 0..2 {
        assert_eq!(Bridge::park(&proxy, &["a.test"]).accept_request().text(), "100");
    }
    client.read_response().assert_own_reply(502);
    Bridge::park(&proxy, &["a.test"]).assert_untouched(&proxy, "a.test");
}

/// The bridges of one backend are known by its token, and those without one by their address.
#[test]
fn repeat_goes_to_another_backend_if_there_is_one() {
    let proxy = Proxy::with("workers 1");
    let mut dying = Bridge::with_token(&proxy, "", "leave, undelivered");
    let mut sibling = Bridge::with_token(&proxy, "", "leave, undelivered");
    let mut other = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    dying.accept_request();
    drop(dying);
    other.serve_to(&mut client, "other");
    // Now the other is dying, and the next has been parked for longer.
    client.send_get("a.test", "/again");
    sibling.accept_request();
    drop(other);
    proxy.await_count("b", 0);
    let mut second = Bridge::with_token(&proxy, "", "leave, undelivered");
    drop(sibling);
    second.serve_to(&mut client, "the same backend");
}

/// However many bridges it tries.
#[test]
fn request_that_no_bridge_acknowledges_waits_no_longer_than_it_may() {
    let proxy = Proxy::with("workers 1\nbridge-ack-timeout 300ms\nwait-timeout 1s");
    // Each of another backend.
    let register = |token: u32| {
        let mut bridge = Bridge::connect(&proxy);
        bridge.send(format!(
            "BRIDGE / HTTP/1.1\r\nHost: a.test\r\nCloudbridge-Backend: {token:032x}\r\n\r\n"
        ));
        bridge.read_head();
        bridge
    };
    let _bridges: Vec<Bridge> = (0..20).map(register).collect();
    let mut client = Client::get(&proxy, "a.test", "/");
    client.read_response().assert_own_reply(504);
    // Each has had its 300 ms, and none was tried after a second.
    assert!(proxy.info().number(&["counters", "retries"]) <= 4);
}

/// RFC 9110, section 9.2.2.
#[test]
fn idempotent_request_is_retried_with_its_body() {
    let proxy = Proxy::start();
    for method in ["PUT", "DELETE", "OPTIONS"] {
        let (mut dying, mut client) = reused(&proxy);
        client
            .send(format!("{method} /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody"));
        assert_eq!(dying.accept_request().text(), "body");
        drop(dying);
        let mut alive = Bridge::park(&proxy, &["a.test"]);
        let request = alive.accept_request();
        assert_eq!(request.start, format!("{method} /x HTTP/1.1"));
        assert_eq!(request.text(), "body");
        alive.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nagain");
        assert_eq!(client.read_response().text(), "again");
    }
}

#[test]
fn post_seen_by_a_backend_is_not_retried() {
    let proxy = Proxy::start();
    let (mut dying, mut client) = reused(&proxy);
    client.send("POST /pay HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\n100");
    assert_eq!(dying.accept_request().text(), "100");
    drop(dying);
    client.read_response().assert_own_reply(502);
    Bridge::park(&proxy, &["a.test"]).assert_untouched(&proxy, "a.test");
}

#[test]
fn post_seen_on_a_fresh_bridge_is_not_retried() {
    let proxy = Proxy::start();
    let mut dying = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(
        &proxy,
        "POST /pay HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\n100",
    );
    assert_eq!(dying.accept_request().text(), "100");
    drop(dying);
    client.read_response().assert_own_reply(502);
    Bridge::park(&proxy, &["a.test"]).assert_untouched(&proxy, "a.test");
}

/// Nothing of it has been sent before the ack, so it is anybody's.
#[test]
fn post_goes_to_another_bridge_when_one_dies_before_its_ack() {
    let proxy = Proxy::start();
    let mut client = Client::request(
        &proxy,
        "POST /pay HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\n100",
    );
    for _ in 0..5 {
        Bridge::park(&proxy, &["a.test"]).read_switch();
    }
    let mut alive = Bridge::park(&proxy, &["a.test"]);
    assert_eq!(alive.accept_request().text(), "100");
    alive.respond_to(&mut client, "paid");
}

/// The proxy sees the FIN of a bridge that is parked, and does not use it.
#[test]
fn post_is_not_sent_to_a_bridge_closed_while_parked() {
    let proxy = Proxy::start();
    let (closed, mut client) = reused(&proxy);
    drop(closed);
    proxy.await_no_bridges();
    let mut alive = Bridge::park(&proxy, &["a.test"]);
    client.send("POST /pay HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\n100");
    assert_eq!(alive.accept_request().text(), "100");
    alive.respond_to(&mut client, "paid");
}

/// Its first part is not held any more.
#[test]
fn request_over_the_replay_limit_is_not_retried() {
    let proxy = Proxy::start();
    let (mut dying, mut client) = reused(&proxy);
    let body = "x".repeat(100_000);
    client.send(format!("PUT /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n{body}"));
    assert_eq!(dying.accept_request().text(), body);
    drop(dying);
    client.read_response().assert_own_reply(502);
    Bridge::park(&proxy, &["a.test"]).assert_untouched(&proxy, "a.test");
}

#[test]
fn request_is_not_retried_after_its_response_has_begun() {
    let proxy = Proxy::start();
    let (mut dying, mut client) = reused(&proxy);
    client.send_get("a.test", "/begun");
    dying.accept_request();
    dying.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
    client.read_head();
    drop(dying);
    client.expect_closed();
    Bridge::park(&proxy, &["a.test"]).assert_untouched(&proxy, "a.test");
}

/// The queue goes on behind it: it comes back to the front, where it was.
#[test]
fn retried_request_keeps_its_place_in_the_wait_queue() {
    let proxy = Proxy::with("workers 1");
    let (mut dying, mut client) = reused(&proxy);
    client.send_get("a.test", "/old");
    dying.accept_request();
    let mut later = Client::get(&proxy, "a.test", "/new");
    proxy.await_count("c", 1);
    drop(dying);
    proxy.await_count("c", 2);
    let mut alive = Bridge::park(&proxy, &["a.test"]);
    assert_eq!(alive.serve("old"), "GET /old HTTP/1.1");
    assert_eq!(alive.serve("new"), "GET /new HTTP/1.1");
    assert_eq!(client.read_response().text(), "old");
    assert_eq!(later.read_response().text(), "new");
}

/// Closes the connection and waits until the proxy's kernel has the FIN, whatever the proxy does.
#[track_caller]
fn close_and_await_fin(bridge: Bridge) {
    /// The state in which our FIN has been acknowledged (proc(5), /proc/net/tcp).
    const FIN_WAIT2: &str = "05";
    let port = bridge.stream().local_addr().expect("its address").port();
    let local = format!("0100007F:{port:04X}");
    drop(bridge);
    eventually("the FIN has been taken", || {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp");
        table.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.get(1) == Some(&local.as_str()) && fields.get(3) == Some(&FIN_WAIT2)
        })
    });
}

/// It cannot be sent a second time, so it is not sent to a connection that is known to be closed;
/// the FIN came in the same moment.
#[test]
fn large_request_is_not_sent_to_a_bridge_whose_fin_has_come() {
    for method in ["PUT", "POST"] {
        // On one worker the bridge that has been parked longest is surely the one that is taken.
        let proxy = Proxy::with("workers 1");
        let (dying, mut client) = reused(&proxy);
        let mut alive = Bridge::park(&proxy, &["a.test"]);
        let body = "y".repeat(40_000);
        proxy.freeze();
        client.send(format!(
            "{method} / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 40000\r\n\r\n{body}"
        ));
        close_and_await_fin(dying);
        proxy.thaw();
        assert_eq!(alive.accept_request().text(), body);
        alive.respond_to(&mut client, "healthy");
    }
}
