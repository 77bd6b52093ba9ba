//! Backends that speak swiftclient.

use crate::common::{Bridge, Client, Proxy, Stopwatch, SwiftclientBackend, eventually};
use std::time::Duration;

/// A preamble without a key, as the original's library makes it.
const PLAIN: &str = "swiftclient7f0000011a2b00";
const KEYED: &str = "swiftclient7f0000011a2b03abc";

const SITE: &str = "site www.test,test swiftiply=127.0.0.1:0";
const KEYED_SITE: &str = "site www.test swiftiply=127.0.0.1:0 key=abc";

#[test]
fn a_backend_gets_no_answer_to_its_preamble_and_then_one_request_after_another() {
    let proxy = Proxy::with(SITE);
    let mut backend = SwiftclientBackend::park(&proxy, "www.test", PLAIN);
    let mut client = Client::get(&proxy, "www.test", "/one");
    backend.expect_exact(
        "GET /one HTTP/1.1\r\nHost: www.test\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: www.test\r\n\r\n",
    );
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none");
    client.expect_exact("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none");
    // Under the site's other name, on the same connections.
    client.send_get("test", "/two");
    assert_eq!(backend.serve_quietly("two"), "GET /two HTTP/1.1");
    assert_eq!(client.read_response().text(), "two");
    let mut other = Client::get(&proxy, "www.test", "/three");
    assert_eq!(backend.serve_quietly("three"), "GET /three HTTP/1.1");
    assert_eq!(other.read_response().text(), "three");
}

#[test]
fn a_preamble_may_come_in_any_two_pieces() {
    let proxy = Proxy::with(KEYED_SITE);
    let mut backends = Vec::new();
    // The second could end before its last zero, with a shorter number and no key.
    for preamble in [KEYED, "swiftclient7f0000011230003abc"] {
        for at in 1..preamble.len() {
            let mut backend = SwiftclientBackend::connect(&proxy, "www.test");
            backend.send(&preamble[..at]);
            backends.push((&preamble[at..], backend));
        }
    }
    // Each first piece has been read before the second is sent.
    proxy.await_count("?", backends.len() as u64);
    for (rest, backend) in &mut backends {
        backend.send(rest);
    }
    proxy.await_count("b", backends.len() as u64);
    let mut bytewise = SwiftclientBackend::connect(&proxy, "www.test");
    bytewise.send_byte_by_byte(KEYED);
    proxy.await_count("b", backends.len() as u64 + 1);
}

#[test]
fn the_numbers_of_processes_may_be_decimal_and_large() {
    let proxy = Proxy::with(&format!("{KEYED_SITE}\nsite plain.test swiftiply=127.0.0.1:0"));
    // One that goes while the next comes would be counted for it.
    let mut backends = Vec::new();
    for (preamble, id) in [
        ("swiftclient7f000001000703abc", "7f0000010007"),
        ("swiftclient7f000001999903abc", "7f0000019999"),
        ("swiftclient7f000001ffff03abc", "7f000001ffff"),
        ("swiftclient7f0000013276803abc", "7f00000132768"),
        ("swiftclient7f00000140000003abc", "7f000001400000"),
        ("swiftclient7f000001419430403abc", "7f0000014194304"),
    ] {
        backends.push(SwiftclientBackend::park(&proxy, "www.test", preamble));
        // The site has it for a moment before it has an ID.
        proxy.await_count("b", backends.len() as u64);
        let info = proxy.info();
        let path = ["sites", "www.test", "backends", id];
        assert_eq!(info.number(&[&path[..], &["bridges"]].concat()), 1);
    }
    let _backend = SwiftclientBackend::park(&proxy, "plain.test", "swiftclient7f0000013276800");
}

#[test]
fn wrong_or_missing_key_is_closed_and_logged_once_without_the_key() {
    // A missing key is one only when no more comes: the number could be longer.
    let proxy = Proxy::with(&format!(
        "{KEYED_SITE}\nsite plain.test swiftiply=127.0.0.1:0\nhead-timeout 2s"
    ));
    for preamble in [
        "swiftclient7f0000011a2b03abd",
        "swiftclient7f0000011a2b02ab",
        "swiftclient7f0000011a2b04abcd",
        "swiftclient7f0000011a2b00",
        "swiftclient7f0000011a2b03ABC",
    ] {
        let mut backend = SwiftclientBackend::connect(&proxy, "www.test");
        backend.send(preamble);
        backend.expect_closed();
    }
    let mut backend = SwiftclientBackend::connect(&proxy, "plain.test");
    backend.send(KEYED);
    backend.expect_closed();
    proxy.await_log("swiftclient backend 127.0.0.1 of www.test refused: its key is not the site's");
    assert_eq!(proxy.count("b"), 0);
    // Two workers, and each logs it once at most.
    assert!(proxy.log().matches("refused").count() <= 2, "{}", proxy.log());
    assert!(!proxy.log().contains("abc") && !proxy.log().contains("abd"), "{}", proxy.log());
}

#[test]
fn bad_preambles_and_bytes_behind_one_are_closed() {
    let proxy = Proxy::with(SITE);
    for bytes in [
        "GET / HTTP/1.1\r\nHost: www.test\r\n\r\n".to_owned(),
        "BRIDGE / HTTP/1.1\r\nHost: www.test\r\n\r\n".to_owned(),
        format!("{PLAIN}\r\n"),
        format!("{PLAIN}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        "swiftclientxf0000011a2b00".to_owned(),
    ] {
        let mut backend = SwiftclientBackend::connect(&proxy, "www.test");
        backend.send(bytes);
        backend.expect_closed();
    }
    let mut parked = SwiftclientBackend::park(&proxy, "www.test", PLAIN);
    parked.send("HTTP/1.1 200 OK\r\n\r\n");
    parked.expect_closed();
    proxy.await_no_bridges();
}

#[test]
fn a_preamble_that_does_not_end_is_closed_after_the_head_timeout() {
    let proxy = Proxy::with(&format!("{SITE}\nhead-timeout 300ms"));
    for begun in ["", "swiftclient7f00"] {
        let clock = Stopwatch::start();
        let mut slow = SwiftclientBackend::connect(&proxy, "www.test");
        slow.send(begun);
        slow.expect_closed();
        clock.assert_passed(Duration::from_millis(300));
    }
}

#[test]
fn connection_close_closes_the_client_and_keeps_the_bridge() {
    let proxy = Proxy::with(SITE);
    let mut backend = SwiftclientBackend::park(&proxy, "www.test", PLAIN);
    for number in 0..3 {
        let mut client = Client::get(&proxy, "www.test", "/");
        assert_eq!(backend.serve("answer"), "GET / HTTP/1.1", "{number}");
        let response = client.read_response();
        assert_eq!(response.field("connection"), Some("close"), "{response:?}");
        assert_eq!(response.text(), "answer");
        client.expect_closed();
    }
    // Neither does HTTP/1.0, nor a keep-alive of the backend's own.
    for head in
        ["HTTP/1.0 200 OK", "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=1"]
    {
        let mut client = Client::get(&proxy, "www.test", "/");
        backend.accept_request();
        backend.send(format!("{head}\r\nContent-Length: 2\r\n\r\nok"));
        assert_eq!(client.read_response().text(), "ok");
        client.send_get("www.test", "/again");
        assert_eq!(backend.serve_quietly("again"), "GET /again HTTP/1.1");
        assert_eq!(client.read_response().text(), "again");
    }
}

#[test]
fn response_that_ends_with_the_connection_ends_the_bridge() {
    let proxy = Proxy::with(SITE);
    let mut backend = SwiftclientBackend::park(&proxy, "www.test", PLAIN);
    let mut client = Client::get(&proxy, "www.test", "/");
    backend.accept_request();
    backend.send("HTTP/1.1 200 OK\r\n\r\nuntil the end");
    backend.half_close();
    assert_eq!(client.read_response().text(), "until the end");
    backend.expect_closed();
    proxy.await_no_bridges();
}

#[test]
fn transfer_to_another_worker_keeps_the_protocol() {
    let proxy = Proxy::with(SITE);
    let mut backends: Vec<SwiftclientBackend> =
        (0..4).map(|_| SwiftclientBackend::park(&proxy, "www.test", PLAIN)).collect();
    // The kernel deals connections to the two workers by a hash: sooner or later one has more
    // clients than bridges.
    let mut rounds = 0;
    while proxy.info().number(&["counters", "moves"]) < 4 {
        let mut clients: Vec<Client> =
            (0..4).map(|_| Client::get(&proxy, "www.test", "/")).collect();
        // All of them are busy before the first answers.
        backends.iter_mut().for_each(|backend| _ = backend.accept_request());
        backends.iter_mut().for_each(|backend| {
            backend.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nanswer");
        });
        for client in &mut clients {
            assert_eq!(client.read_response().text(), "answer");
            client.expect_closed();
        }
        proxy.await_count("b", 4);
        rounds += 1;
        assert!(rounds < 500, "no bridge moves");
    }
}

#[test]
fn both_protocols_serve_one_site() {
    let proxy = Proxy::with(SITE);
    let mut clients = [1, 2, 3].map(|_| Client::get(&proxy, "www.test", "/"));
    proxy.await_count("c", 3);
    let mut backend = SwiftclientBackend::connect(&proxy, "www.test");
    backend.send(PLAIN);
    assert_eq!(backend.serve_quietly("answer"), "GET / HTTP/1.1");
    // It has the next already; the third goes to a bridge.
    backend.accept_request();
    let mut bridge = Bridge::connect(&proxy);
    bridge.send("BRIDGE / HTTP/1.1\r\nHost: www.test\r\n\r\n");
    bridge.expect_exact(crate::common::ACK);
    assert_eq!(bridge.serve("answer"), "GET / HTTP/1.1");
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer");
    clients.iter_mut().for_each(|client| assert_eq!(client.read_response().text(), "answer"));
    // And each of them may be the one that is left.
    drop(backend);
    proxy.await_count("b", 1);
    clients[0].send_get("www.test", "/bridge");
    assert_eq!(bridge.serve("bridge"), "GET /bridge HTTP/1.1");
    assert_eq!(clients[0].read_response().text(), "bridge");
    drop(bridge);
    proxy.await_no_bridges();
    clients[1].send_get("www.test", "/backend");
    let mut backend = SwiftclientBackend::park(&proxy, "www.test", PLAIN);
    assert_eq!(backend.serve_quietly("backend"), "GET /backend HTTP/1.1");
    assert_eq!(clients[1].read_response().text(), "backend");
}

#[test]
fn ids_and_addresses_are_shown_while_they_are_connected() {
    let proxy = Proxy::with(&format!("{SITE}\nlog-level debug"));
    let backend = SwiftclientBackend::park(&proxy, "www.test", PLAIN);
    let _other = SwiftclientBackend::park(&proxy, "www.test", PLAIN);
    let _third = SwiftclientBackend::park(&proxy, "www.test", "swiftclient0a000001000100");
    proxy.await_count("b", 3);
    let mut client = Client::get(&proxy, "www.test", "/");
    eventually("one of them has a client", || {
        let info = proxy.info();
        let clients = |id| info.number(&["sites", "www.test", "backends", id, "clients"]);
        clients("7f0000011a2b") + clients("0a0000010001") == 1
    });
    let info = proxy.info();
    let site = |key| info.number(&["sites", "www.test", key]);
    assert_eq!((site("bridges"), site("parked"), site("waiting")), (3, 2, 0));
    assert_eq!(info.number(&["sites", "www.test", "backends", "7f0000011a2b", "bridges"]), 2);
    proxy.await_log("swiftclient backend 7f0000011a2b from 127.0.0.1 for www.test");
    client.half_close();
    drop((client, backend));
}

#[test]
fn sigterm_closes_parked_and_unfinished_swiftclient_backends() {
    let mut proxy = Proxy::with(SITE);
    let mut parked = SwiftclientBackend::park(&proxy, "www.test", PLAIN);
    let mut silent = SwiftclientBackend::connect(&proxy, "www.test");
    silent.send("swift");
    proxy.await_count("?", 1);
    proxy.terminate();
    silent.expect_closed();
    parked.expect_closed();
    assert!(proxy.wait_exit().success());
}
