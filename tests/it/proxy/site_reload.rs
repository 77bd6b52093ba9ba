//! SIGHUP adds, changes and removes sites and listeners; other connections notice nothing.

use crate::common::{
    Bridge, Client, Proxy, SwiftclientBackend, eventually, free_address, logged, own_address,
};
use std::net::TcpListener;

const PLAIN: &str = "swiftclient7f0000011a2b00";

#[test]
fn sighup_three_times_keeps_every_connection() {
    let proxy = Proxy::with("site a.test swiftiply=127.0.0.1:0 key=abc default");
    let preamble = "swiftclient7f0000011a2b03abc";
    let mut busy = SwiftclientBackend::park(&proxy, "a.test", preamble);
    let mut under_way = Client::get(&proxy, "a.test", "/under-way");
    busy.accept_request();
    let mut parked = SwiftclientBackend::park(&proxy, "a.test", preamble);
    let mut begun = SwiftclientBackend::connect(&proxy, "a.test");
    begun.send("swiftclient7f00");
    proxy.await_count("?", 1);
    let addresses = proxy.swiftclient_listeners("a.test");
    for seconds in 1..=3 {
        proxy.change_settings(" default", &format!(" default timeout={seconds}s"));
        proxy.reload_well();
    }
    assert_eq!(proxy.swiftclient_listeners("a.test"), addresses, "it still listens where it did");
    busy.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(under_way.read_response().text(), "ok");
    drop(busy);
    proxy.await_count("b", 1);
    under_way.send_get("a.test", "/next");
    assert_eq!(parked.serve_quietly("next"), "GET /next HTTP/1.1");
    assert_eq!(under_way.read_response().text(), "next");
    begun.send("00011a2b03abc");
    proxy.await_count("b", 2);
    SwiftclientBackend::park(&proxy, "a.test", preamble);
}

#[test]
fn sighup_adds_a_site() {
    let proxy = Proxy::with("unknown-host 404\nsite a.test swiftiply=127.0.0.1:0\n# more");
    assert_eq!(Client::ask(&proxy, "GET / HTTP/1.1\r\nHost: b.test\r\n\r\n").status(), 404);
    proxy.change_settings("# more", "site b.test swiftiply=127.0.0.1:0");
    proxy.reload_well();
    let mut client = Client::get(&proxy, "b.test", "/");
    SwiftclientBackend::park(&proxy, "b.test", PLAIN).serve("new");
    assert_eq!(client.read_response().text(), "new");
}

#[test]
fn sighup_finishes_the_exchanges_of_a_removed_site() {
    let proxy = Proxy::with(
        "unknown-host 404\nsite a.test swiftiply=127.0.0.1:0\nsite b.test swiftiply=127.0.0.1:0",
    );
    let listener = proxy.swiftclient_listener("a.test");
    let mut others = SwiftclientBackend::park(&proxy, "b.test", PLAIN);
    let mut parked: Vec<SwiftclientBackend> =
        (0..6).map(|_| SwiftclientBackend::park(&proxy, "a.test", PLAIN)).collect();
    let mut client = Client::get(&proxy, "a.test", "/");
    let mut busy = None;
    eventually("one of them has the request", || {
        busy = parked.iter().position(|backend| backend.has_bytes());
        busy.is_some()
    });
    let mut busy = parked.remove(busy.unwrap());
    busy.accept_request();
    let mut begun = SwiftclientBackend::connect(&proxy, "a.test");
    begun.send("swift");
    proxy.await_count("?", 1);
    proxy.change_settings("site a.test swiftiply=127.0.0.1:0\n", "");
    proxy.reload_well();
    parked.iter_mut().for_each(|backend| _ = backend.expect_closed());
    begun.expect_closed();
    busy.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast");
    assert_eq!(client.read_response().text(), "last");
    busy.expect_closed();
    proxy.await_log(&format!("{}{listener}", logged::NOT_LISTENING));
    eventually("nobody listens there", || std::net::TcpStream::connect(listener).is_err());
    assert_eq!(Client::ask(&proxy, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").status(), 404);
    let mut client = Client::get(&proxy, "b.test", "/");
    others.serve_to(&mut client, "other");
}

#[test]
fn sighup_with_other_names_reconnects_the_backends_of_a_site() {
    let proxy = Proxy::with("site a.test swiftiply=127.0.0.1:0");
    let listener = proxy.swiftclient_listener("a.test");
    let mut backend = SwiftclientBackend::park(&proxy, "a.test", PLAIN);
    proxy.change_settings("a.test", "a.test,b.test");
    proxy.reload_well();
    backend.expect_closed();
    assert_eq!(proxy.swiftclient_listeners("a.test"), [listener]);
    let mut backend = SwiftclientBackend::park(&proxy, "a.test", PLAIN);
    let mut client = Client::get(&proxy, "b.test", "/");
    backend.serve_to(&mut client, "b");
}

#[test]
fn sighup_with_a_new_key_keeps_connected_backends() {
    let proxy = Proxy::with("site a.test swiftiply=127.0.0.1:0 key=abc");
    let mut old = SwiftclientBackend::park(&proxy, "a.test", "swiftclient7f0000011a2b03abc");
    proxy.change_settings("key=abc", "key=\"x y\"");
    proxy.reload_well();
    proxy.await_log(logged::SITE_CHANGED);
    let mut wrong = SwiftclientBackend::connect(&proxy, "a.test");
    wrong.send("swiftclient7f0000011a2b03abc");
    wrong.expect_closed();
    drop(SwiftclientBackend::park(&proxy, "a.test", "swiftclient7f0000011a2b03x y"));
    proxy.await_count("b", 1);
    let mut client = Client::get(&proxy, "a.test", "/");
    old.serve_to(&mut client, "old");
    assert!(!proxy.log().contains("x y"), "{}", proxy.log());
}

#[test]
fn sighup_with_a_taken_address_changes_nothing() {
    let taken = TcpListener::bind((own_address(), 0)).unwrap();
    let taken_at = taken.local_addr().unwrap();
    let proxy = Proxy::with(
        "unknown-host 404\nsite a.test swiftiply=127.0.0.1:0 timeout=200ms\nwait-timeout 5s",
    );
    let mut backend = SwiftclientBackend::park(&proxy, "a.test", PLAIN);
    for wrong in [
        format!("site b.test swiftiply=127.0.0.1:0\nlisten 127.0.0.1:0\nlisten {taken_at}"),
        format!("site a.test\nsite b.test swiftiply=127.0.0.1:0,{taken_at}"),
        "site a.test key=secret key=secret".to_owned(),
    ] {
        proxy.change_settings("site a.test swiftiply=127.0.0.1:0 timeout=200ms", &wrong);
        let before = proxy.log().matches(logged::NOTHING_CHANGED).count();
        proxy.reload();
        eventually("the refusal", || {
            proxy.log().matches(logged::NOTHING_CHANGED).count() == before + 1
        });
        proxy.await_count("b", 1);
        let mut client = Client::get(&proxy, "a.test", "/");
        backend.serve_to(&mut client, "still");
        assert_eq!(Client::ask(&proxy, "GET / HTTP/1.1\r\nHost: b.test\r\n\r\n").status(), 404);
    }
    proxy.await_log(&format!("{}{taken_at}: ", logged::CANNOT_LISTEN));
    assert!(proxy.swiftclient_listeners("b.test").is_empty());
    drop(taken);
    drop(backend);
    proxy.await_count("b", 0);
    // The old timeout is in force.
    let response = Client::ask(&proxy, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(response.status(), 503);
    // And with the address free, a hangup gets everything.
    proxy.change_settings(
        "site a.test swiftiply=127.0.0.1:0 timeout=200ms",
        &format!("site b.test swiftiply={taken_at}"),
    );
    proxy.reload_well();
    SwiftclientBackend::park(&proxy, "b.test", PLAIN);
}

#[test]
fn sighup_adds_changes_and_removes_listeners() {
    let (changes, goes, comes) = (free_address(), free_address(), free_address());
    let proxy = Proxy::with(&format!(
        "listen 127.0.0.1:0\nlisten {changes} clients\nlisten {goes} clients"
    ));
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut kept = Client::connect_to(goes);
    kept.send_get("a.test", "/1");
    bridge.serve_to(&mut kept, "1");

    proxy.change_settings(
        &format!("listen {changes} clients\nlisten {goes} clients"),
        &format!("listen {changes} bridges\nlisten {comes}"),
    );
    proxy.reload_well();
    proxy.await_log(&format!("{}{changes} (bridges)", logged::LISTENING));
    proxy.await_log(&format!("{}{comes} (clients and bridges)", logged::LISTENING));
    proxy.await_log(&format!("{}{goes}", logged::NOT_LISTENING));
    eventually("nobody listens there", || std::net::TcpStream::connect(goes).is_err());
    // Who came in there stays.
    kept.send_get("a.test", "/2");
    bridge.serve_to(&mut kept, "2");
    let mut client = Client::connect_to(comes);
    client.send_get("a.test", "/3");
    bridge.serve_to(&mut client, "3");
    let mut client = Client::connect_to(changes);
    client.send_get("a.test", "/4");
    assert_eq!(client.read_response().status(), 404);
}

#[test]
fn sighup_serves_the_backlog_of_a_removed_listener() {
    let goes = free_address();
    let proxy = Proxy::with(&format!("listen 127.0.0.1:0\nlisten {goes}"));
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    proxy.change_settings(&format!("listen {goes}"), "");
    proxy.freeze();
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect_to(goes)).collect();
    clients.iter_mut().for_each(|client| client.send_get("a.test", "/"));
    proxy.reload();
    proxy.thaw();
    (0..20).for_each(|_| _ = bridge.serve("served"));
    clients.iter_mut().for_each(|client| assert_eq!(client.read_response().text(), "served"));
}
