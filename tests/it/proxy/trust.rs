//! Which peers are believed about their requests, and what the proxy writes itself.

use crate::common::{Bridge, Client, Message, Proxy, header_v1};
use std::time::{Duration, SystemTime};

/// A request that says a lot about itself.
const TOLD: &str = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 10.0.0.1\r\n\
                    X-Forwarded-Proto: https\r\nForwarded: for=10.0.0.1\r\nX-Request-Start: t=1.000\r\n\
                    X-Request-Id: theirs\r\ntraceparent: 00-aa-bb-01\r\n\r\n";

/// What the bridge gets of a request to a proxy with these settings.
#[track_caller]
fn through(settings: &str, request: &str) -> Message {
    let proxy = Proxy::with(settings);
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(&proxy, request);
    let request = bridge.accept_request();
    bridge.respond_to(&mut client, "ok");
    request
}

/// The values of these fields, in this order, `-` for none.
fn values(request: &Message, names: &[&str]) -> Vec<String> {
    names.iter().map(|name| request.field(name).unwrap_or("-").to_owned()).collect()
}

const ALL: [&str; 5] =
    ["x-forwarded-for", "x-forwarded-proto", "forwarded", "x-request-start", "x-request-id"];

#[test]
fn without_trusted_proxies_everything_is_as_the_setting_says() {
    let kept = ["10.0.0.1, 127.0.0.1", "https", "for=10.0.0.1", "t=1.000", "theirs"];
    assert_eq!(values(&through("", TOLD), &ALL), kept);
    let replaced = ["127.0.0.1", "http", "-", "t=1.000", "theirs"];
    assert_eq!(values(&through("forwarded replace", TOLD), &ALL), replaced);
}

#[test]
fn a_trusted_proxy_is_believed_and_appended_to() {
    let kept = ["10.0.0.1, 127.0.0.1", "https", "for=10.0.0.1", "t=1.000", "theirs"];
    let settings = "trusted-proxies 10.0.0.0/8 127.0.0.1\nrequest-start s\nrequest-id yes";
    let request = through(settings, TOLD);
    assert_eq!(values(&request, &ALL), kept);
    assert_eq!(request.field("traceparent"), Some("00-aa-bb-01"));
}

#[test]
fn nobody_else_is() {
    let replaced = ["127.0.0.1", "http", "-", "-", "-"];
    for settings in [
        "trusted-proxies 10.0.0.0/8",
        "trusted-proxies 10.0.0.0/8\nforwarded off",
        "trusted-proxies 10.0.0.0/8\nsite a.test forwarded=append",
        "trusted-proxies 10.0.0.0/8\ntrusted-proxies 2001:db8::/32\nsite a.test forwarded=off",
    ] {
        let request = through(settings, TOLD);
        assert_eq!(values(&request, &ALL), replaced, "{settings}");
        assert_eq!(request.field("traceparent"), Some("00-aa-bb-01"));
    }
    let both = "trusted-proxies 10.0.0.0/8\nforwarded-style both\nrequest-start s\nrequest-id yes";
    let request = through(both, TOLD);
    let forwarded = ["127.0.0.1", "http", "for=127.0.0.1;host=a.test;proto=http"];
    assert_eq!(values(&request, &ALL[..3]), forwarded);
    assert!(is_now(&request, 1.0) && is_id(request.field("x-request-id").unwrap()));
}

/// The proxy that wrote the request is the peer, or, if the peer only passes TCP on, the one that it
/// announces.
#[test]
fn the_peer_or_the_announced_proxy_may_be_trusted() {
    for (trusted, chain) in [
        ("127.0.0.1", "10.0.0.1, 192.0.2.7"),
        ("192.0.2.0/24", "10.0.0.1, 192.0.2.7"),
        ("10.0.0.0/8", "192.0.2.7"),
    ] {
        let proxy = Proxy::with(&format!(
            "listen 127.0.0.1:0 clients accept-proxy=127.0.0.1\nlisten 127.0.0.1:0 bridges\n\
             trusted-proxies {trusted}"
        ));
        let mut bridge = Bridge::park(&proxy, &["a.test"]);
        let mut client = Client::connect(&proxy);
        client.send([&header_v1("192.0.2.7:1"), TOLD.as_bytes()].concat());
        let request = bridge.accept_request();
        assert_eq!(request.field("x-forwarded-for"), Some(chain), "{trusted}");
        bridge.respond_to(&mut client, "ok");
    }
}

/// Whether the request says that it has come within the last minute; `unit` is in seconds.
fn is_now(request: &Message, unit: f64) -> bool {
    let start = request.field("x-request-start").expect("a start");
    let number: f64 = start.strip_prefix("t=").expect("t=").parse().expect("a number");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let age = now.as_secs_f64() - number * unit;
    (-0.01..60.0).contains(&age)
}

#[test]
fn a_request_tells_when_it_came() {
    const BARE: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    for (settings, unit, digits) in [
        ("request-start s", 1.0, 3),
        ("request-start ms", 1e-3, 0),
        ("request-start us\nforwarded off", 1e-6, 0),
    ] {
        let request = through(settings, BARE);
        assert!(is_now(&request, unit), "{request:?}");
        let start = request.field("x-request-start").unwrap();
        assert_eq!(start.split_once('.').map_or(0, |(_, after)| after.len()), digits, "{start}");
    }
    assert!(!through("request-start off", BARE).has("x-request-start"));
    // The proxy in front knows better.
    assert_eq!(through("request-start s", TOLD).field("x-request-start"), Some("t=1.000"));
    assert!(is_now(&through("request-start s\nforwarded replace", TOLD), 1.0));
}

fn is_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[test]
fn every_request_has_an_id_of_its_own() {
    let proxy = Proxy::with("request-id yes");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let mut client = Client::connect(&proxy);
        for _ in 0..5 {
            client.send_get("a.test", "/");
            let id = bridge.accept_request().field("x-request-id").unwrap().to_owned();
            bridge.respond_to(&mut client, "ok");
            assert!(is_id(&id) && ids.insert(id));
        }
    }
    for (sent, kept) in [
        ("X-Request-Id: theirs", true),
        ("X-Request-Id: two words", false),
        ("X-Request-Id: a\r\nX-Request-Id: b", false),
        (&format!("X-Request-Id: {}", "a".repeat(129)), false),
    ] {
        let mut client =
            Client::request(&proxy, format!("GET / HTTP/1.1\r\nHost: a.test\r\n{sent}\r\n\r\n"));
        let request = bridge.accept_request();
        bridge.respond_to(&mut client, "ok");
        let id = request.field("x-request-id").expect("one id");
        assert!(if kept { id == "theirs" } else { is_id(id) }, "{sent}: {id}");
    }
}

/// A request that goes to another backend is the same request.
#[test]
fn a_repeated_request_keeps_its_id_and_its_time() {
    let proxy = Proxy::with("request-id yes\nrequest-start us\nretries 3");
    let mut first = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    let before = first.accept_request();
    // Its time has passed when it is sent again.
    crate::common::let_pass(Duration::from_secs(3));
    drop(first);
    let mut second = Bridge::park(&proxy, &["a.test"]);
    let after = second.accept_request();
    second.respond_to(&mut client, "ok");
    assert_eq!(after.field("x-request-id"), before.field("x-request-id"));
    let [before, after] = [before, after].map(|request| {
        let start = request.field("x-request-start").expect("a start").to_owned();
        start.trim_start_matches("t=").parse::<u64>().expect("microseconds")
    });
    // The proxy reads the time once per turn, and a turn may take a while on a busy machine.
    assert!(before.abs_diff(after) < 2_000_000, "{before} {after}");
}

#[test]
fn the_log_names_the_id() {
    let proxy = Proxy::with("request-id yes\nlog-level debug\nunknown-host 404");
    Client::ask(&proxy, TOLD).assert_own_reply(404);
    proxy.await_log(", id theirs: 404 ");
}

#[test]
fn rfc_7239_names_the_client_in_one_field() {
    let request = through("forwarded-style rfc7239", TOLD);
    let expected = ["10.0.0.1", "https", "for=10.0.0.1, for=127.0.0.1;host=a.test;proto=http"];
    assert_eq!(values(&request, &ALL[..3]), expected);
}

/// What follows an open quotation mark would be inside of the client's string.
#[test]
fn a_forwarded_field_with_an_open_quotation_mark_is_dropped() {
    let told = "GET / HTTP/1.1\r\nHost: a.test\r\nForwarded: for=6.6.6.6;by=\"\r\n\
                Forwarded: for=\"1.2.3.4\\\"\"\r\n\r\n";
    let request = through("forwarded-style rfc7239", told);
    let expected = "for=\"1.2.3.4\\\"\", for=127.0.0.1;host=a.test;proto=http";
    assert_eq!(request.field("forwarded"), Some(expected));
}
