//! Which bridge a request goes to: the most specific match, or a less specific one that is free.
//!
//! One worker: between several, a bridge that parks at this moment may be overlooked for a less
//! specific one, which may serve as well. That the preference holds across workers is shown in
//! `workers.rs`.

use crate::common::{Bridge, Client, Proxy};

/// Sends a GET to `host`, and fails unless it is this bridge that gets it.
#[track_caller]
fn goes_to(proxy: &Proxy, bridge: &mut Bridge, host: &str, path: &str) {
    let mut client = Client::get(proxy, host, path);
    bridge.serve("here");
    assert_eq!(client.read_response().text(), "here", "{host}{path}");
}

#[test]
fn exact_name_wins_over_wildcard_and_wildcard_over_star() {
    let proxy = Proxy::with("workers 1");
    let mut star = Bridge::park(&proxy, &["*"]);
    let mut wide = Bridge::park(&proxy, &["*.test"]);
    let mut narrow = Bridge::park(&proxy, &["*.b.test"]);
    let mut exact = Bridge::park(&proxy, &["a.b.test"]);
    goes_to(&proxy, &mut exact, "a.b.test", "/");
    goes_to(&proxy, &mut narrow, "x.b.test", "/");
    goes_to(&proxy, &mut wide, "x.test", "/");
    goes_to(&proxy, &mut star, "test", "/");
}

#[test]
fn longest_prefix_wins() {
    let proxy = Proxy::with("workers 1");
    let mut all = Bridge::park_at(&proxy, "/", &["a.test"]);
    let mut app = Bridge::park_at(&proxy, "/app", &["a.test"]);
    let mut deep = Bridge::park_at(&proxy, "/app/deep", &["a.test"]);
    goes_to(&proxy, &mut deep, "a.test", "/app/deep/er");
    goes_to(&proxy, &mut app, "a.test", "/app/deeper");
    goes_to(&proxy, &mut all, "a.test", "/apple");
}

#[test]
fn a_prefix_matches_whole_segments() {
    let proxy = Proxy::with("workers 1\nunknown-host 404");
    let mut app = Bridge::park_at(&proxy, "/app", &["a.test"]);
    let mut client = Client::connect(&proxy);
    for path in ["/app", "/app/", "/app/x", "/app?q=/"] {
        client.send_get("a.test", path);
        assert_eq!(app.serve_to(&mut client, "app"), format!("GET {path} HTTP/1.1"));
    }
    for path in ["/", "/apple", "/ap", "/x/app", "/App"] {
        let response = Client::ask(&proxy, format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        assert_eq!(response.status(), 404, "{path}");
    }
}

/// The name decides before the path does.
#[test]
fn exact_name_wins_over_wildcard_with_a_longer_prefix() {
    let proxy = Proxy::with("workers 1");
    let mut exact = Bridge::park_at(&proxy, "/", &["a.test"]);
    let _wildcard = Bridge::park_at(&proxy, "/app", &["*.test"]);
    goes_to(&proxy, &mut exact, "a.test", "/app");
}

#[test]
fn a_less_specific_bridge_serves_while_the_specific_one_is_busy() {
    let proxy = Proxy::with("workers 1");
    let mut star = Bridge::park(&proxy, &["*"]);
    let mut wildcard = Bridge::park(&proxy, &["*.b.test"]);
    let mut exact = Bridge::park(&proxy, &["a.b.test"]);
    let mut clients = Vec::new();
    for bridge in [&mut exact, &mut wildcard, &mut star] {
        clients.push(Client::get(&proxy, "a.b.test", "/"));
        bridge.accept_request();
    }
    exact.respond("exact");
    wildcard.respond("wildcard");
    star.respond("star");
    for (client, body) in clients.iter_mut().zip(["exact", "wildcard", "star"]) {
        assert_eq!(client.read_response().text(), body);
    }
}

#[test]
fn a_waiting_request_takes_whichever_of_its_bridges_is_first() {
    let proxy = Proxy::with("workers 1");
    let mut exact = Bridge::park(&proxy, &["a.test"]);
    let mut busy = Client::get(&proxy, "a.test", "/busy");
    exact.accept_request();
    let mut waiting = Client::get(&proxy, "a.test", "/waiting");
    proxy.await_count("c", 1);
    let mut late = Bridge::park(&proxy, &["*.test"]);
    assert_eq!(late.serve_to(&mut waiting, "late"), "GET /waiting HTTP/1.1");
    exact.respond_to(&mut busy, "done");
}

#[test]
fn a_wildcard_matches_any_depth_below_it_and_not_the_suffix_itself() {
    let proxy = Proxy::with("workers 1\nunknown-host 404");
    let mut bridge = Bridge::park(&proxy, &["*.b.test"]);
    goes_to(&proxy, &mut bridge, "x.y.z.b.test", "/");
    for host in ["b.test", "xb.test", ".b.test.x", "test"] {
        let response = Client::ask(&proxy, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert!(matches!(response.status(), 400 | 404), "{host}: {response:?}");
    }
}

#[test]
fn names_compare_without_case_port_or_root_dot() {
    let proxy = Proxy::with("workers 1");
    let mut bridge = Bridge::park(&proxy, &["Www.A.Test:443"]);
    let mut client = Client::connect(&proxy);
    for host in ["www.a.test", "WWW.a.TEST", "www.a.test:8079", "www.a.test."] {
        client.send_get(host, "/");
        bridge.serve("same");
        assert_eq!(client.read_response().text(), "same", "{host}");
    }
}

#[test]
fn one_bridge_serves_every_host_that_it_named() {
    let proxy = Proxy::with("workers 1");
    let mut bridge = Bridge::park(&proxy, &["a.test", "*.b.test", "c.test"]);
    let mut client = Client::connect(&proxy);
    for host in ["c.test", "x.b.test", "a.test"] {
        client.send_get(host, "/");
        let request = bridge.accept_request();
        assert_eq!(request.field("host"), Some(host));
        bridge.respond_to(&mut client, host);
    }
}

/// A client's connection carries requests for different hosts and users: each is matched by its
/// own.
#[test]
fn every_request_of_a_connection_is_matched_by_its_own_host() {
    let proxy = Proxy::with("workers 1");
    let mut a = Bridge::park(&proxy, &["a.test"]);
    let mut b = Bridge::park(&proxy, &["b.test"]);
    let mut client = Client::connect(&proxy);
    client.send_get("a.test", "/");
    a.serve_to(&mut client, "a1");
    client.send_get("b.test", "/");
    b.serve_to(&mut client, "b1");
    client.send_get("a.test", "/");
    a.serve_to(&mut client, "a2");
}
