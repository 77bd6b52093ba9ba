//! Sites and listeners come, change and go on SIGHUP, and whoever is not concerned does not notice.

use crate::common::{Bridge, Client, Guest, Proxy, eventually};
use std::net::{SocketAddr, TcpListener};

const PLAIN: &str = "swiftclient7f0000011a2b00";

const READ_AGAIN: &str = "settings and secrets have been read again";

/// Sends SIGHUP, and waits until that has been obeyed for the `nth` time.
#[track_caller]
fn reload(proxy: &Proxy, nth: usize) {
    proxy.reload();
    eventually("the reload", || proxy.log().matches(READ_AGAIN).count() == nth);
}

#[test]
fn three_hangups_in_a_row_leave_everybody_connected() {
    let proxy = Proxy::with("site a.test swiftiply=127.0.0.1:0 key=abc default");
    let preamble = "swiftclient7f0000011a2b03abc";
    let mut busy = Guest::park(&proxy, "a.test", preamble);
    let mut under_way = Client::get(&proxy, "a.test", "/under-way");
    busy.accept_request();
    let mut parked = Guest::park(&proxy, "a.test", preamble);
    let mut begun = Guest::connect(&proxy, "a.test");
    begun.send("swiftclient7f00");
    proxy.await_count("?", 1);
    let addresses = proxy.inlets("a.test");
    for nth in 1..=3 {
        proxy.change_settings(" default", &format!(" default timeout={nth}s"));
        reload(&proxy, nth);
    }
    assert_eq!(proxy.inlets("a.test"), addresses, "it still listens where it did");
    busy.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(under_way.read_response().text(), "ok");
    drop(busy);
    proxy.await_count("b", 1);
    under_way.send_get("a.test", "/next");
    assert_eq!(parked.serve_quietly("next"), "GET /next HTTP/1.1");
    assert_eq!(under_way.read_response().text(), "next");
    begun.send("00011a2b03abc");
    proxy.await_count("b", 2);
    Guest::park(&proxy, "a.test", preamble);
}

#[test]
fn a_new_site_is_there_after_a_hangup() {
    let proxy = Proxy::with("site a.test swiftiply=127.0.0.1:0\n# more");
    assert_eq!(Client::ask(&proxy, "GET / HTTP/1.1\r\nHost: b.test\r\n\r\n").status(), 404);
    proxy.change_settings("# more", "site b.test swiftiply=127.0.0.1:0");
    reload(&proxy, 1);
    let mut client = Client::get(&proxy, "b.test", "/");
    Guest::park(&proxy, "b.test", PLAIN).serve("new");
    assert_eq!(client.read_response().text(), "new");
}

#[test]
fn backends_of_a_site_that_goes_finish_what_they_are_at() {
    let proxy = Proxy::with("site a.test swiftiply=127.0.0.1:0\nsite b.test swiftiply=127.0.0.1:0");
    let inlet = proxy.inlet("a.test");
    let mut others = Guest::park(&proxy, "b.test", PLAIN);
    let mut parked: Vec<Guest> = (0..6).map(|_| Guest::park(&proxy, "a.test", PLAIN)).collect();
    let mut client = Client::get(&proxy, "a.test", "/");
    let mut busy = None;
    eventually("one of them has the request", || {
        busy = parked.iter().position(|guest| guest.has_bytes());
        busy.is_some()
    });
    let mut busy = parked.remove(busy.unwrap());
    busy.accept_request();
    let mut begun = Guest::connect(&proxy, "a.test");
    begun.send("swift");
    proxy.await_count("?", 1);
    proxy.change_settings("site a.test swiftiply=127.0.0.1:0\n", "");
    reload(&proxy, 1);
    parked.iter_mut().for_each(|guest| _ = guest.expect_closed());
    begun.expect_closed();
    busy.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast");
    assert_eq!(client.read_response().text(), "last");
    busy.expect_closed();
    proxy.await_log(&format!("no longer listening on {inlet}"));
    eventually("nobody listens there", || std::net::TcpStream::connect(inlet).is_err());
    assert_eq!(Client::ask(&proxy, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").status(), 404);
    let mut client = Client::get(&proxy, "b.test", "/");
    others.serve_to(&mut client, "other");
}

#[test]
fn backends_of_a_site_with_other_names_come_back_for_these() {
    let proxy = Proxy::with("site a.test swiftiply=127.0.0.1:0");
    let inlet = proxy.inlet("a.test");
    let mut guest = Guest::park(&proxy, "a.test", PLAIN);
    proxy.change_settings("a.test", "a.test,b.test");
    reload(&proxy, 1);
    guest.expect_closed();
    assert_eq!(proxy.inlets("a.test"), [inlet]);
    let mut guest = Guest::park(&proxy, "a.test", PLAIN);
    let mut client = Client::get(&proxy, "b.test", "/");
    guest.serve_to(&mut client, "b");
}

#[test]
fn a_new_key_holds_for_who_comes_after_it() {
    let proxy = Proxy::with("site a.test swiftiply=127.0.0.1:0 key=abc");
    let mut old = Guest::park(&proxy, "a.test", "swiftclient7f0000011a2b03abc");
    proxy.change_settings("key=abc", "key=\"x y\"");
    reload(&proxy, 1);
    proxy.await_log("changed: site");
    let mut wrong = Guest::connect(&proxy, "a.test");
    wrong.send("swiftclient7f0000011a2b03abc");
    wrong.expect_closed();
    drop(Guest::park(&proxy, "a.test", "swiftclient7f0000011a2b03x y"));
    proxy.await_count("b", 1);
    let mut client = Client::get(&proxy, "a.test", "/");
    old.serve_to(&mut client, "old");
    assert!(!proxy.log().contains("x y"), "{}", proxy.log());
}

#[test]
fn an_address_that_cannot_be_had_changes_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_at = taken.local_addr().unwrap();
    let proxy = Proxy::with("site a.test swiftiply=127.0.0.1:0 timeout=200ms\nwait-timeout 5s");
    let mut guest = Guest::park(&proxy, "a.test", PLAIN);
    for wrong in [
        format!("site b.test swiftiply=127.0.0.1:0\nlisten 127.0.0.1:0\nlisten {taken_at}"),
        format!("site a.test\nsite b.test swiftiply=127.0.0.1:0,{taken_at}"),
        "site a.test key=secret key=secret".to_owned(),
    ] {
        proxy.change_settings("site a.test swiftiply=127.0.0.1:0 timeout=200ms", &wrong);
        let before = proxy.log().matches("nothing has changed").count();
        proxy.reload();
        eventually("the refusal", || {
            proxy.log().matches("nothing has changed").count() == before + 1
        });
        let mut client = Client::get(&proxy, "a.test", "/");
        guest.serve_to(&mut client, "still");
        assert_eq!(Client::ask(&proxy, "GET / HTTP/1.1\r\nHost: b.test\r\n\r\n").status(), 404);
    }
    proxy.await_log(&format!("cannot listen on {taken_at}: "));
    assert!(proxy.inlets("b.test").is_empty());
    drop(taken);
    drop(guest);
    proxy.await_count("b", 0);
    // The old timeout is in force.
    let response = Client::ask(&proxy, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(response.status(), 503);
    // And with the address free, a hangup gets everything.
    proxy.change_settings(
        "site a.test swiftiply=127.0.0.1:0 timeout=200ms",
        &format!("site b.test swiftiply={taken_at}"),
    );
    reload(&proxy, 1);
    Guest::park(&proxy, "b.test", PLAIN);
}

/// An address with a port that was free a moment ago.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn listen_lines_come_change_and_go() {
    let (changes, goes, comes) = (free(), free(), free());
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
    reload(&proxy, 1);
    proxy.await_log(&format!("listening on {changes} (bridges)"));
    proxy.await_log(&format!("listening on {comes} (clients and bridges)"));
    proxy.await_log(&format!("no longer listening on {goes}"));
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
fn who_waits_in_the_backlog_of_a_listener_that_goes_is_served() {
    let goes = free();
    let proxy = Proxy::with(&format!("listen 127.0.0.1:0\nlisten {goes}"));
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    proxy.change_settings(&format!("listen {goes}"), "");
    proxy.freeze();
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect_to(goes)).collect();
    clients.iter_mut().for_each(|client| client.send_get("a.test", "/"));
    proxy.reload();
    proxy.thaw();
    bridge.serve("served");
    (1..20).for_each(|_| _ = bridge.serve("served"));
    clients.iter_mut().for_each(|client| assert_eq!(client.read_response().text(), "served"));
}
