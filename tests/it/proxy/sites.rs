//! What a `site` line says about the site's requests.

use crate::common::{Bridge, Client, Message, Proxy, Stopwatch, SwiftclientBackend, on_time};
use std::time::Duration;

const PLAIN: &str = "swiftclient7f0000011a2b00";

/// A request whose Host, body and size are what matters.
fn post(host: &str, body: usize) -> String {
    format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {body}\r\n\r\n{}", "b".repeat(body))
}

fn get(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

#[track_caller]
fn ask(proxy: &Proxy, request: &str) -> Message {
    Client::ask(proxy, request)
}

#[test]
fn a_request_for_a_name_without_a_site_waits_for_a_bridge_that_is_on_its_way() {
    let proxy = Proxy::with("site a.test swiftiply=127.0.0.1:0");
    let mut clients =
        [get("b.test"), post("b.test", 10)].map(|request| Client::request(&proxy, request));
    proxy.await_count("c", 2);
    let mut bridge = Bridge::park(&proxy, &["b.test"]);
    // They came at the same moment, perhaps to two workers: either may be the first.
    (0..2).for_each(|_| _ = bridge.serve("came"));
    for client in &mut clients {
        assert_eq!(client.read_response().text(), "came");
    }
}

#[test]
fn unknown_host_decides_about_a_name_without_a_site_or_bridge() {
    let proxy = Proxy::with("unknown-host 404\nsite a.test swiftiply=127.0.0.1:0");
    for request in [&get("b.test"), "GET / HTTP/1.0\r\n\r\n", &post("b.test", 10)] {
        let response = ask(&proxy, request);
        response.assert_own_reply(404);
    }
    // A bridge's name needs no line; it is remembered while the backend is away.
    let mut bridge = Bridge::park(&proxy, &["b.test"]);
    let mut client = Client::get(&proxy, "b.test", "/");
    bridge.serve_to(&mut client, "bridge");
    drop(bridge);
    let mut client = Client::get(&proxy, "b.test", "/");
    proxy.await_count("c", 1);
    Bridge::park(&proxy, &["b.test"]).serve("back");
    assert_eq!(client.read_response().text(), "back");
}

#[test]
fn default_site_gets_unknown_hosts() {
    let proxy = Proxy::with(
        "site a.test swiftiply=127.0.0.1:0\nsite b.test,*.b.test swiftiply=127.0.0.1:0 default",
    );
    let mut a = SwiftclientBackend::park(&proxy, "a.test", PLAIN);
    let mut b = SwiftclientBackend::park(&proxy, "b.test", PLAIN);
    let mut bridge = Bridge::park(&proxy, &["c.test"]);
    for host in ["b.test", "x.b.test", "nobody.test", "127.0.0.1"] {
        let mut client = Client::get(&proxy, host, "/");
        b.serve_to(&mut client, host);
    }
    let mut client = Client::request(&proxy, "GET /old HTTP/1.0\r\n\r\n");
    assert_eq!(b.serve_to(&mut client, "old"), "GET /old HTTP/1.1");
    let mut client = Client::get(&proxy, "a.test", "/");
    a.serve_to(&mut client, "a");
    let mut client = Client::get(&proxy, "c.test", "/");
    bridge.serve_to(&mut client, "c");
}

#[test]
fn a_request_of_the_default_that_waits_goes_to_a_bridge_of_its_own_name_too() {
    let proxy = Proxy::with("site a.test swiftiply=127.0.0.1:0 default");
    let mut client = Client::get(&proxy, "new.test", "/");
    proxy.await_count("c", 1);
    let mut bridge = Bridge::connect(&proxy);
    bridge.send("BRIDGE / HTTP/1.1\r\nHost: new.test\r\n\r\n");
    bridge.expect_exact(crate::common::ACK);
    bridge.serve_to(&mut client, "new");
}

#[test]
fn a_site_without_a_backend_answers_503_after_its_timeout() {
    let proxy = Proxy::with(
        "site a.test swiftiply=127.0.0.1:0 timeout=300ms\nsite b.test\nwait-timeout 700ms",
    );
    let bridge = Bridge::park(&proxy, &["c.test"]);
    drop(bridge);
    for (host, status, millis) in [("a.test", 503, 300), ("b.test", 503, 700), ("c.test", 504, 700)]
    {
        let clock = Stopwatch::start();
        let response = ask(&proxy, &get(host));
        clock.assert_passed(Duration::from_millis(millis));
        response.assert_own_reply(status);
        assert_eq!(response.field("retry-after"), Some("5"), "{response:?}");
    }
    // While its only backend is busy, too.
    let mut backend = SwiftclientBackend::park(&proxy, "a.test", PLAIN);
    let _busy = Client::get(&proxy, "a.test", "/");
    backend.accept_request();
    assert_eq!(ask(&proxy, &get("a.test")).status(), 503);
}

#[test]
fn unknown_host_does_not_apply_to_a_site() {
    let proxy = Proxy::with("unknown-host 404\nsite a.test swiftiply=127.0.0.1:0");
    let mut client = Client::get(&proxy, "a.test", "/");
    proxy.await_count("c", 1);
    SwiftclientBackend::park(&proxy, "a.test", PLAIN).serve("came");
    assert_eq!(client.read_response().text(), "came");
    assert_eq!(ask(&proxy, &get("b.test")).status(), 404);
}

#[test]
fn a_request_of_any_method_is_sent_again_if_the_site_says_so() {
    let proxy = Proxy::with("site a.test swiftiply=127.0.0.1:0 redeploy=1k");
    let head = post("a.test", 900).len() - 900;
    let chunked = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    for (request, reset) in [
        (post("a.test", 10), false),
        (post("a.test", 1024 - head), true),
        (chunked.to_owned(), false),
    ] {
        let mut first = SwiftclientBackend::park(&proxy, "a.test", PLAIN);
        let mut client = Client::request(&proxy, &request);
        if reset {
            first.await_unread(b"bbb");
        } else {
            first.accept_request();
        }
        drop(first);
        let mut second = SwiftclientBackend::connect(&proxy, "a.test");
        second.send(PLAIN);
        let again = second.accept_request();
        assert_eq!(again.start, "POST / HTTP/1.1");
        second.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
        assert_eq!(client.read_response().text(), "done");
        drop(second);
        proxy.await_no_bridges();
    }
}

#[test]
fn a_request_that_is_too_large_or_of_another_site_is_not_sent_twice() {
    let proxy = Proxy::with(
        "site a.test swiftiply=127.0.0.1:0 redeploy=1k\nsite b.test swiftiply=127.0.0.1:0",
    );
    let head = post("a.test", 900).len() - 900;
    for (site, request) in [
        ("a.test", post("a.test", 1025 - head)),
        ("a.test", post("a.test", 100_000)),
        ("b.test", post("b.test", 10)),
    ] {
        let mut backend = SwiftclientBackend::park(&proxy, site, PLAIN);
        let mut client = Client::request(&proxy, request);
        backend.accept_request();
        drop(backend);
        client.read_response().assert_own_reply(502);
        proxy.await_no_bridges();
    }
}

#[test]
fn request_is_not_redeployed_after_its_response_has_begun() {
    let proxy = Proxy::with("site a.test swiftiply=127.0.0.1:0 redeploy=1k");
    let mut first = SwiftclientBackend::park(&proxy, "a.test", PLAIN);
    let mut client = Client::get(&proxy, "a.test", "/");
    first.accept_request();
    let mut second = SwiftclientBackend::park(&proxy, "a.test", PLAIN);
    first.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    client.read_head();
    drop(first);
    let (rest, _) = client.read_to_end();
    assert_eq!(rest, b"half");
    assert!(!second.has_bytes());
    let mut next = Client::get(&proxy, "a.test", "/next");
    assert_eq!(second.serve_to(&mut next, "next"), "GET /next HTTP/1.1");
}

#[test]
fn clients_are_closed_after_each_response_if_the_site_says_so() {
    let proxy = Proxy::with("site a.test swiftiply=127.0.0.1:0 keepalive=no\nsite b.test");
    let mut backend = SwiftclientBackend::park(&proxy, "a.test", PLAIN);
    for _ in 0..2 {
        let mut client = Client::get(&proxy, "a.test", "/");
        backend.serve_quietly("a");
        let response = client.read_response();
        assert_eq!(response.field("connection"), Some("close"));
        client.expect_closed();
    }
    // On the very same proxy, another site's live on.
    let mut bridge = Bridge::park(&proxy, &["b.test"]);
    let mut client = Client::get(&proxy, "b.test", "/");
    bridge.serve("b");
    assert_eq!(client.read_response().field("connection"), None);
    client.send_get("b.test", "/2");
    bridge.serve_to(&mut client, "b");
}

#[test]
fn forwarded_is_a_setting_of_the_site() {
    let proxy = Proxy::with(
        "forwarded replace\nsite a.test swiftiply=127.0.0.1:0 forwarded=no\nsite b.test swiftiply=127.0.0.1:0 forwarded=append\nsite c.test swiftiply=127.0.0.1:0",
    );
    for (site, expected) in
        [("a.test", "1.2.3.4"), ("b.test", "1.2.3.4, 127.0.0.1"), ("c.test", "127.0.0.1")]
    {
        let mut backend = SwiftclientBackend::park(&proxy, site, PLAIN);
        let mut client = Client::request(
            &proxy,
            format!("GET / HTTP/1.1\r\nHost: {site}\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"),
        );
        let request = backend.accept_request();
        assert_eq!(request.field("x-forwarded-for"), Some(expected), "{request:?}");
        assert_eq!(request.has("x-forwarded-proto"), site != "a.test", "{request:?}");
        backend.send("HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(client.read_response().status(), 204);
    }
}

#[test]
fn backup_serves_only_while_the_site_has_no_backend() {
    on_time(Duration::from_millis(500), || {
        let proxy = Proxy::with(
            "site a.test swiftiply=127.0.0.1:0 backup=b.test timeout=3s\nsite b.test swiftiply=127.0.0.1:0",
        );
        let mut b = SwiftclientBackend::park(&proxy, "b.test", PLAIN);
        let mut client = Client::get(&proxy, "a.test", "/");
        b.serve_to(&mut client, "backup");
        // Busy is connected.
        let mut a = SwiftclientBackend::park(&proxy, "a.test", PLAIN);
        let mut busy = Client::get(&proxy, "a.test", "/");
        a.accept_request();
        assert_eq!(ask(&proxy, &get("a.test")).status(), 503);
        assert!(!b.has_bytes());
        a.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(busy.read_response().status(), 200);
        // One that waits for the backup takes what comes for the site, too.
        drop(a);
        proxy.await_count("b", 1);
        let mut first = Client::get(&proxy, "a.test", "/1");
        b.accept_request();
        let mut second = Client::get(&proxy, "a.test", "/2");
        proxy.await_count("c", 1);
        let mut a = SwiftclientBackend::connect(&proxy, "a.test");
        a.send(PLAIN);
        assert_eq!(a.serve_to(&mut second, "site"), "GET /2 HTTP/1.1");
        b.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nbackup");
        assert_eq!(first.read_response().text(), "backup");
    });
}

#[test]
fn paths_choose_among_the_addresses_of_a_site() {
    let proxy = Proxy::with(
        r"site a.test swiftiply=127.0.0.1:0 swiftiply=127.0.0.1:0 prefix=/app/img swiftiply=127.0.0.1:0 prefix=/app swiftiply=127.0.0.1:0 match=\.(png|jpg)$",
    );
    let listeners = proxy.swiftclient_listeners("a.test");
    let mut backends: Vec<SwiftclientBackend> = listeners
        .iter()
        .map(|listener| SwiftclientBackend::park_at(&proxy, *listener, "a.test", PLAIN))
        .collect();
    for (path, expected) in [
        ("/", 0),
        ("/apple", 0),
        ("/app", 2),
        ("/app?x=/y.png", 2),
        ("/app/img", 1),
        ("/app/img/x.gif", 1),
        ("/app/img/x.png", 3),
        ("/y.jpg?z", 3),
        ("/y.jpg/", 0),
    ] {
        let mut client = Client::get(&proxy, "a.test", path);
        assert_eq!(backends[expected].serve(path), format!("GET {path} HTTP/1.1"));
        assert_eq!(client.read_response().text(), path);
        // The client has its response before the bridge is free, and others help out meanwhile.
        proxy.await_count("b", backends.len() as u64);
    }
    // When the most specific are busy, a less specific one helps out.
    let _busy = Client::get(&proxy, "a.test", "/app/1");
    backends[2].accept_request();
    let mut client = Client::get(&proxy, "a.test", "/app/2");
    assert_eq!(backends[0].serve("help"), "GET /app/2 HTTP/1.1");
    assert_eq!(client.read_response().text(), "help");
}

#[test]
fn the_longest_url_passes_and_a_longer_one_does_not() {
    let proxy = Proxy::with("max-target 4k\nsite a.test swiftiply=127.0.0.1:0");
    let mut backend = SwiftclientBackend::park(&proxy, "a.test", PLAIN);
    let longest = format!("/{}", "x".repeat(4095));
    let mut client = Client::get(&proxy, "a.test", &longest);
    assert_eq!(backend.serve_to(&mut client, "long"), format!("GET {longest} HTTP/1.1"));
    let longer = format!("GET {longest}x HTTP/1.1\r\nHost: a.test\r\n\r\n");
    ask(&proxy, &longer).assert_own_reply(414);
    assert!(!backend.has_bytes());
}

#[test]
fn every_verb_reaches_the_backend() {
    let proxy = Proxy::with("site a.test swiftiply=127.0.0.1:0");
    let mut backend = SwiftclientBackend::park(&proxy, "a.test", PLAIN);
    for verb in [
        "GET",
        "POST",
        "PUT",
        "DELETE",
        "PATCH",
        "OPTIONS",
        "TRACE",
        "PROPFIND",
        "PROPPATCH",
        "MKCOL",
        "COPY",
        "MOVE",
        "LOCK",
        "UNLOCK",
        "REPORT",
        "SEARCH",
        "PURGE",
        "LINK",
        "X-ODD_1!",
    ] {
        let mut client =
            Client::request(&proxy, format!("{verb} /v HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        assert_eq!(backend.serve_to(&mut client, verb), format!("{verb} /v HTTP/1.1"));
    }
    let mut client = Client::request(&proxy, "HEAD /v HTTP/1.1\r\nHost: a.test\r\n\r\n");
    backend.accept_request();
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n");
    assert_eq!(client.read_head().field("content-length"), Some("7"));
    let mut client = Client::get(&proxy, "a.test", "/after-head");
    assert_eq!(backend.serve_to(&mut client, "x"), "GET /after-head HTTP/1.1");
}

#[test]
fn the_health_uri_answers_on_any_host() {
    let proxy = Proxy::with(
        "unknown-host 404\nhealth-uri /swiftiply_health\nsite a.test swiftiply=127.0.0.1:0 key=k",
    );
    for host in ["a.test", "nobody.test", "127.0.0.1"] {
        for path in ["/swiftiply_health", "/swiftiply_health?x"] {
            let response = ask(&proxy, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert_eq!(response.status(), 200);
            let counters = crate::common::Json::parse(&response.text());
            assert!(counters.number(&["general", "Connections"]) > 0);
            assert!(!response.text().contains("a.test"), "{response:?}");
        }
    }
    let mut client = Client::request(&proxy, "HEAD /swiftiply_health HTTP/1.0\r\n\r\n");
    assert_eq!(client.read_head().status(), 200);
    client.expect_closed();
    assert_eq!(ask(&proxy, &get("nobody.test")).status(), 404);
}
