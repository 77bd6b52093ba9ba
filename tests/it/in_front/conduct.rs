//! What every proxy in front has to keep of what cloudbridge promises: requests say who the client
//! is, slow and vanished clients hold no slot, upgrades pass, and nothing is sent twice.

use super::front::{Front, KINDS, Kind};
use crate::common::{Ending, eventually, installed, pattern, pattern_differs, run_well};
use std::process::Command;

/// Runs a test with every proxy in front that is installed.
#[track_caller]
fn with_each(test: impl Fn(Front, Kind)) {
    for kind in KINDS {
        if let Some(front) = Front::start(kind) {
            test(front, kind);
        }
    }
}

/// Where curl comes from: an address that is neither the proxy's nor haproxy's.
const CLIENT: &str = "127.7.7.7";

/// What curl gets of this URL of `a.test`.
#[track_caller]
fn curl(front: &Front, url: &str, args: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "30", "--interface", CLIENT, "--cacert"]);
    command.arg(front.dir.path().join("authority.pem"));
    for address in [front.http, front.https] {
        let entry = format!("a.test:{}:{}", address.port(), address.ip());
        command.args(["--resolve", &entry]);
    }
    run_well(command.args(args).arg(url))
}

#[test]
fn a_request_says_who_its_client_is_and_nothing_that_a_client_makes_up() {
    if !installed("curl", &["curl", "--version"]) {
        return;
    }
    with_each(|front, kind| {
        let _agent = front.echo();
        let chain = match kind {
            Kind::HaproxyWithHeader => CLIENT.to_owned(),
            _ => format!("{CLIENT}, 127.0.0.1"),
        };
        let lies = [
            "X-Forwarded-For: 6.6.6.6",
            "X-Forwarded-Host: lie.test",
            "X-Forwarded-Proto: lie",
            "X-Forwarded-Prefix: /lie",
            "Forwarded: for=6.6.6.6;host=lie.test;proto=lie",
            "X-Real-IP: 6.6.6.6",
            "X-Request-Id: lie",
            "X-Request-Start: t=6.666",
        ];
        let args: Vec<&str> = lies.iter().flat_map(|lie| ["-H", lie]).collect();
        for (scheme, address) in [("http", front.http), ("https", front.https)] {
            let url = format!("{scheme}://a.test:{}/path?q=1", address.port());
            let seen = curl(&front, &url, &args).to_lowercase();
            assert!(seen.starts_with("get /path?q=1 http/1.1\r\n"), "{kind:?}: {seen}");
            for line in [
                format!("host: a.test:{}", address.port()),
                format!("x-forwarded-for: {chain}"),
                format!("x-forwarded-proto: {scheme}"),
                format!("x-forwarded-host: a.test:{}", address.port()),
            ] {
                let is_there = seen.matches(&format!("\r\n{line}\r\n")).count();
                assert_eq!(is_there, 1, "{kind:?}: {line}: {seen}");
            }
            assert!(!seen.contains("6.6") && !seen.contains("lie"), "{kind:?}: {seen}");
        }
        let url = format!("https://a.test:{}/", front.https.port());
        let version = curl(&front, &url, &["-o", "/dev/null", "-w", "%{http_version}"]);
        assert_eq!(version, "2", "{kind:?}");
    });
}

/// What cloudbridge would answer itself, elsewhere, reaches the application through the public port,
/// and backends do not get in there.
#[test]
fn nothing_of_the_operators_can_be_reached() {
    with_each(|front, kind| {
        let _agent = front.echo();
        for (host, path) in [
            ("cloudbridge.internal", "/"),
            ("localhost", "/state.json"),
            ("127.0.0.1", "/metrics"),
            ("a.test", "/healthz"),
        ] {
            let mut client = front.client();
            client.send_get(host, path);
            let text = client.read_response().text();
            assert!(text.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{kind:?}: {text}");
        }
        let mut backend = front.request("BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(backend.read_response().status(), 405, "{kind:?}");
    });
}

/// Two clients that send a byte now and then take no slot: with one slot, others are served between
/// their bytes. That the 100 comes shows that their bodies are waited for in front; a backend sends
/// none here.
#[test]
fn uploads_that_drip_hold_no_slot() {
    with_each(|front, kind| {
        let mut bridge = front.park();
        let dripping = "POST /drip HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\
                        Expect: 100-continue\r\n\r\n";
        let mut slow = [front.request(dripping), front.request(dripping)];
        for client in &mut slow {
            assert_eq!(client.read_head().status(), 100, "{kind:?}");
        }
        for _ in 0..9 {
            slow.iter_mut().for_each(|client| client.send("x"));
            let mut quick = front.client();
            quick.send_get("a.test", "/quick");
            assert_eq!(bridge.serve_to(&mut quick, "quick"), "GET /quick HTTP/1.1", "{kind:?}");
            assert_eq!(front.proxy.count("c"), 0, "{kind:?}");
        }
        for client in &mut slow {
            client.send("x");
            let request = bridge.accept_request();
            assert_eq!(request.text(), "xxxxxxxxxx", "{kind:?}");
            bridge.respond_to(client, "taken");
        }
    });
}

#[test]
fn a_large_upload_arrives_whole() {
    const LENGTH: usize = 4 * 1024 * 1024;
    with_each(|front, kind| {
        let mut bridge = front.park();
        let mut client = front.client();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let head = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length";
                client.send(format!("{head}: {LENGTH}\r\n\r\n"));
                client.send(pattern(0, LENGTH));
                assert_eq!(client.read_response().text(), "taken", "{kind:?}");
            });
            let body = bridge.accept_request().body;
            assert_eq!((body.len(), pattern_differs(0, &body)), (LENGTH, None), "{kind:?}");
            bridge.respond("taken");
        });
    });
}

/// The request of a client that has gone is not worth a slot, nor a place in the queue.
#[test]
fn a_client_that_goes_away_is_gone_for_the_backend_too() {
    with_each(|front, kind| {
        let mut bridge = front.park();
        let mut served = front.client();
        served.send_get("a.test", "/");
        bridge.accept_request();
        let mut waiting = front.client();
        waiting.send_get("a.test", "/");
        front.proxy.await_count("c", 1);
        drop(waiting);
        front.proxy.await_count("c", 0);
        drop(served);
        assert!(matches!(bridge.expect_closed(), Ending::Closed | Ending::Reset), "{kind:?}");
    });
}

#[test]
fn a_websocket_passes() {
    const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    with_each(|front, kind| {
        let mut bridge = front.park();
        let mut client = front.request(format!(
            "GET /chat HTTP/1.1\r\nHost: a.test\r\n{HANDSHAKE}Sec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ));
        let request = bridge.accept_request();
        let asked = request.field("upgrade").unwrap_or_default();
        assert!(asked.eq_ignore_ascii_case("websocket"), "{kind:?}: {request:?}");
        bridge.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\n{HANDSHAKE}\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        ));
        assert_eq!(client.read_head().status(), 101, "{kind:?}");
        for _ in 0..3 {
            client.send(b"\x81\x85\0\0\0\0hello");
            bridge.expect_exact(b"\x81\x85\0\0\0\0hello");
            bridge.send(b"\x81\x05hello");
            client.expect_exact(b"\x81\x05hello");
        }
        drop(client);
        bridge.expect_closed();
    });
}

/// An event is with the client before the next one exists.
#[test]
fn an_event_stream_is_not_held_back() {
    with_each(|front, kind| {
        let mut bridge = front.park();
        let mut client = front
            .request("GET /events HTTP/1.1\r\nHost: a.test\r\nAccept: text/event-stream\r\n\r\n");
        assert_eq!(bridge.accept_request().start, "GET /events HTTP/1.1", "{kind:?}");
        bridge.send(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        assert_eq!(client.read_head().status(), 200, "{kind:?}");
        for number in 0..3 {
            let event = format!("data: {number}\n\n");
            bridge.send(format!("{:x}\r\n{event}\r\n", event.len()));
            assert_eq!(client.read_line(), format!("{:x}", event.len()), "{kind:?}");
            client.expect_exact(format!("{event}\r\n"));
        }
        bridge.send("0\r\n\r\n");
        client.expect_exact("0\r\n\r\n");
    });
}

/// A POST that a backend had when it failed is answered, and goes nowhere else.
#[test]
fn a_failed_post_is_not_sent_again() {
    with_each(|front, kind| {
        let mut first = front.park();
        let mut client =
            front.request("POST /once HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(first.accept_request().text(), "hi", "{kind:?}");
        let mut second = front.park();
        drop(first);
        let answer = client.read_response();
        assert_eq!(answer.status(), 502, "{kind:?}: {answer:?}");
        assert!(answer.field("proxy-status").is_some(), "{kind:?}: {answer:?}");
        front.assert_untouched(&mut second);
    });
}

/// cloudbridge sends a GET to one more backend and then gives up; the proxy in front must not begin
/// that anew.
#[test]
fn a_get_that_ends_its_backends_ends_two_of_them() {
    with_each(|front, kind| {
        let mut backends = vec![front.park(), front.park(), front.park()];
        let mut client = front.client();
        client.send_get("a.test", "/poison");
        for _ in 0..2 {
            let mut chosen = None;
            eventually("one has the request", || {
                chosen = backends.iter().position(|backend| backend.has_bytes());
                chosen.is_some()
            });
            let mut backend = backends.remove(chosen.expect("one of them"));
            assert_eq!(backend.accept_request().start, "GET /poison HTTP/1.1", "{kind:?}");
        }
        assert_eq!(client.read_response().status(), 502, "{kind:?}");
        front.assert_untouched(&mut backends[0]);
    });
}

/// Nobody knows what became of a POST that cloudbridge had when it died.
#[test]
fn a_post_that_dies_with_its_proxy_is_not_sent_to_the_next() {
    with_each(|mut front, kind| {
        front.await_up();
        let mut bridge = front.park();
        let mut client =
            front.request("POST /once HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi");
        bridge.accept_request();
        front.kill_proxy();
        assert_eq!(client.read_response().status(), 502, "{kind:?}");
        front.start_proxy_again();
        front.await_up();
        front.assert_untouched(&mut front.park());
    });
}
