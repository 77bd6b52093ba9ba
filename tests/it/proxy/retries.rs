//! Backends that die with a request in hand: what may be sent again is, once more and whole; what may have been done is not done twice.

use crate::common::{Bridge, Client, Proxy, eventually};

/// A bridge that has served one request and is parked again, and the client whom it served.
#[track_caller]
fn reused(proxy: &Proxy) -> (Bridge, Client) {
    let mut bridge = Bridge::park(proxy, &["a.test"]);
    let client = bridge.serve_first(proxy);
    (bridge, client)
}

/// A backend may close a connection that it has kept open just as the next request comes: nobody has done wrong.
#[test]
fn a_get_behind_a_reused_bridge_that_closes_goes_to_another() {
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
fn a_get_behind_a_bridge_that_resets_goes_to_another() {
    let proxy = Proxy::start();
    let (dying, mut client) = reused(&proxy);
    client.send_get("a.test", "/again");
    dying.await_unread(b"\r\n\r\n");
    drop(dying);
    let mut alive = Bridge::park(&proxy, &["a.test"]);
    assert_eq!(alive.serve_to(&mut client, "again"), "GET /again HTTP/1.1");
}

#[test]
fn a_get_survives_several_dying_backends() {
    let proxy = Proxy::start();
    let mut client = Client::get(&proxy, "a.test", "/");
    for _ in 0..2 {
        let mut dying = Bridge::park(&proxy, &["a.test"]);
        dying.accept_request();
    }
    let mut alive = Bridge::park(&proxy, &["a.test"]);
    alive.serve_to(&mut client, "at last");
}

/// RFC 9110, section 9.2.2.
#[test]
fn what_is_idempotent_is_sent_again_with_its_body() {
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
fn a_post_that_a_backend_has_seen_is_not_sent_again() {
    let proxy = Proxy::start();
    let (mut dying, mut client) = reused(&proxy);
    client.send("POST /pay HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\n100");
    assert_eq!(dying.accept_request().text(), "100");
    drop(dying);
    client.read_response().assert_own_reply(502);
    Bridge::park(&proxy, &["a.test"]).assert_untouched(&proxy, "a.test");
}

#[test]
fn a_post_on_a_fresh_bridge_is_not_sent_again_either() {
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
fn a_post_whose_bridge_dies_before_the_ack_goes_to_another() {
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
fn a_post_does_not_go_to_a_bridge_that_has_closed_while_parked() {
    let proxy = Proxy::start();
    let (closed, mut client) = reused(&proxy);
    drop(closed);
    proxy.await_count("b", 0);
    let mut alive = Bridge::park(&proxy, &["a.test"]);
    client.send("POST /pay HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\n100");
    assert_eq!(alive.accept_request().text(), "100");
    alive.respond_to(&mut client, "paid");
}

/// Its first part is not held any more.
#[test]
fn a_request_that_is_too_large_to_be_held_is_not_sent_again() {
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
fn nothing_is_sent_again_once_the_client_has_a_part_of_its_response() {
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
fn a_request_that_comes_back_is_the_first_in_the_queue() {
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

/// It cannot be sent a second time, so it is not sent to a connection that is known to be closed; the FIN came in the same moment.
#[test]
fn a_large_request_does_not_go_to_a_bridge_that_has_just_been_closed() {
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
