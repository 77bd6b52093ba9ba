//! Proxies in front that announce their clients with a PROXY header.

use crate::common::{
    Bridge, Client, DEADLINE, Message, Proxy, SwiftclientBackend, Wire, eventually, header,
    header_v1, header_v2, logged, ok,
};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// A proxy with a listener for clients of proxies on this machine, one for bridges, and the
/// operator's.
fn proxy(settings: &str) -> Proxy {
    Proxy::with(&format!(
        "listen 127.0.0.1:0 clients accept-proxy=127.0.0.0/8\nlisten 127.0.0.1:0 bridges\n\
         listen 127.0.0.1:0 admin\ninfo-host info.test\n{settings}"
    ))
}

/// A counter of the proxy's.
fn metric(proxy: &Proxy, name: &str) -> u64 {
    let mut admin = Client::connect_to(proxy.for_admin());
    admin.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let text = admin.read_response().text();
    let name = format!("cloudbridge_{name}_total ");
    let count = text.lines().find_map(|line| line.strip_prefix(&*name));
    count.expect("a count").parse().expect("a number")
}

/// How many connections the proxy has closed for their headers.
fn refused(proxy: &Proxy) -> u64 {
    metric(proxy, "proxy_headers_refused")
}

/// The next request of the bridge, which is answered; `client` must get the answer.
#[track_caller]
fn served(bridge: &mut Bridge, client: &mut Client) -> Message {
    let request = bridge.accept_request();
    bridge.respond_to(client, "served");
    request
}

/// The `X-Forwarded-For` of the next request.
#[track_caller]
fn client_of(bridge: &mut Bridge, client: &mut Client) -> String {
    served(bridge, client).field("x-forwarded-for").expect("it is named").to_owned()
}

#[test]
fn the_announced_address_is_the_client_of_every_request() {
    let proxy = proxy("");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    for (bytes, named) in [
        (header_v1("192.0.2.7:56324"), "192.0.2.7"),
        (header_v1("[2001:db8::7]:1"), "2001:db8::7"),
        (header_v2("192.0.2.8:56324", b""), "192.0.2.8"),
        (header_v2("[2001:db8::8]:0", b"\x05\0\x02id\x04\0\0"), "2001:db8::8"),
        (header_v2("[::ffff:192.0.2.9]:1", b""), "192.0.2.9"),
        // The proxy speaks for itself, or for a client that it knows nothing about.
        (header(0x20, 0, b""), "127.0.0.1"),
        (header(0x20, 0x11, &[1; 12]), "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (header(0x21, 0x31, &[b'/'; 216]), "127.0.0.1"),
    ] {
        let mut client = Client::connect(&proxy);
        client.send(&bytes);
        for _ in 0..3 {
            client.send(GET);
            assert_eq!(client_of(&mut bridge, &mut client), named);
        }
    }
    assert_eq!(refused(&proxy), 0);
}

/// What comes right behind the header are requests, and no event tells of them.
#[test]
fn requests_come_with_the_header() {
    let proxy = proxy("");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    for bytes in [header_v1("192.0.2.7:1"), header_v2("192.0.2.7:1", b"")] {
        let mut client = Client::connect(&proxy);
        client.send([&bytes, GET, GET].concat());
        for _ in 0..2 {
            assert_eq!(client_of(&mut bridge, &mut client), "192.0.2.7");
        }
    }
}

#[test]
fn a_header_may_be_split_anywhere() {
    let proxy = proxy("");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    for bytes in [header_v1("192.0.2.7:1"), header_v2("[2001:db8::7]:1", b"\x05\0\x02id")] {
        let whole = [&bytes, GET].concat();
        for at in 0..=bytes.len() {
            let mut client = Client::connect(&proxy);
            client.send(&whole[..at]);
            client.send(&whole[at..]);
            served(&mut bridge, &mut client);
        }
        let mut client = Client::connect(&proxy);
        client.send_byte_by_byte(&whole);
        served(&mut bridge, &mut client);
    }
    assert_eq!(refused(&proxy), 0);
}

#[test]
fn a_connection_without_a_valid_header_is_closed_and_counted() {
    let proxy = proxy("");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    // The checksum is wrong.
    let checked = header_v2("192.0.2.7:1", b"\x03\0\x04abcd");
    let wrong: [&[u8]; 8] = [
        GET,
        b"PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01",
        &checked,
        &header_v2("192.0.2.7:1", b"\x05\0\x09id"),
        &header(0x22, 0x11, &[1; 12]),
        &header_v2("192.0.2.7:1", &vec![0; 5000]),
    ];
    for bytes in wrong {
        let mut client = Client::connect(&proxy);
        client.send_if_open(bytes);
        client.expect_closed();
    }
    let mut cut = Client::connect(&proxy);
    cut.send(&checked[..20]);
    cut.half_close();
    cut.expect_closed();
    eventually("all are counted", || refused(&proxy) == 9);
    proxy.await_log("127.0.0.1, which is in accept-proxy, closed: there is no PROXY header");
    // None of them has reached a backend.
    let mut client = Client::connect(&proxy);
    client.send([&header_v1("192.0.2.99:1"), GET].concat());
    assert_eq!(client_of(&mut bridge, &mut client), "192.0.2.99");
}

/// A check that only connects says nothing, and is no fault.
#[test]
fn a_connection_that_says_nothing_is_no_fault() {
    let proxy = proxy("");
    let mut client = Client::connect(&proxy);
    client.half_close();
    client.expect_closed();
    assert_eq!(refused(&proxy), 0);
}

#[test]
fn a_header_that_does_not_come_in_time_ends_the_connection() {
    let proxy = proxy("head-timeout 2s");
    let mut slow = Client::connect(&proxy);
    slow.send(b"PROXY TCP4 192.0.2.7");
    slow.expect_closed();
    proxy.await_log("no PROXY header came in time");
    assert_eq!(refused(&proxy), 1);
}

/// To a peer that is not listed the header is just bytes, and they are no request.
#[test]
fn nobody_else_is_believed() {
    let proxy = Proxy::with("listen 127.0.0.1:0 accept-proxy=192.0.2.0/24,2001:db8::/32");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    for bytes in [header_v1("192.0.2.7:1"), header_v2("192.0.2.7:1", b"")] {
        let answer = Client::ask(&proxy, [&bytes, GET].concat());
        answer.assert_own_reply(400);
    }
    let mut client = Client::request(&proxy, GET);
    assert_eq!(client_of(&mut bridge, &mut client), "127.0.0.1");
}

#[test]
fn connections_are_counted_by_the_announced_address() {
    let proxy = proxy("connections-per-address 2");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let connect = |address: &str| {
        let mut client = Client::connect(&proxy);
        client.send([&header_v1(address), GET].concat());
        client
    };
    let mut held = Vec::new();
    for address in ["192.0.2.7:1", "192.0.2.7:2", "192.0.2.8:1"] {
        let mut client = connect(address);
        served(&mut bridge, &mut client);
        held.push(client);
    }
    connect("192.0.2.7:3").expect_closed();
    proxy.await_log("client 192.0.2.7 closed: its address has 2 connections");
    held.remove(0);
    eventually("there is room again", || {
        let mut client = Client::connect(&proxy);
        client.send_if_open(
            [
                &header_v1("192.0.2.7:4"),
                &b"OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n"[..],
            ]
            .concat(),
        );
        client.read_some(12).is_some_and(|bytes| bytes.starts_with(b"HTTP/1.1 204"))
    });
}

#[test]
fn the_access_log_has_the_announced_address() {
    let proxy = proxy("access-log {dir}/access.log");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::connect(&proxy);
    client.send([&header_v1("192.0.2.7:1"), GET].concat());
    served(&mut bridge, &mut client);
    let path = proxy.dir().join("access.log");
    eventually("its line", || {
        std::fs::read_to_string(&path).is_ok_and(|text| text.contains("192.0.2.7"))
    });
}

const BRIDGE: &[u8] = b"BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// Without secrets, a backend must be on this machine, and so must the proxy in front of it.
#[test]
fn bridges_are_announced_too() {
    let open = "listen 127.0.0.1:0 accept-proxy=127.0.0.1\nlisten [::1]:0 clients";
    let proxy = Proxy::with(open);
    let register = |proxy: &Proxy, bytes: Vec<u8>| {
        let mut bridge = Bridge::connect(proxy);
        bridge.send([&bytes, BRIDGE].concat());
        bridge
    };
    let mut bridge = register(&proxy, header_v2("127.0.0.1:1", b""));
    bridge.expect_exact(crate::common::ACK);
    let refusal = register(&proxy, header_v2("192.0.2.7:1", b"")).read_refusal();
    assert_eq!(refusal.status(), 401);
    proxy.await_log("backend 192.0.2.7 refused: 401");
    let mut client = Client::connect_to(proxy.addresses()[1]);
    client.send(GET);
    assert_eq!(client_of(&mut bridge, &mut client), "::1");

    let proxy = Proxy::with(&format!("{open}\nopen-bridges yes"));
    register(&proxy, header_v1("192.0.2.7:1")).expect_exact(crate::common::ACK);
}

#[test]
fn swiftclient_backends_are_announced_too() {
    let proxy = Proxy::with("site a.test swiftiply=127.0.0.1:0 accept-proxy=127.0.0.1");
    let address = proxy.addresses()[1];
    let preamble = b"swiftclient7f0000011a2b00";
    let connect = |from: &str| {
        let mut wire = Wire::connect(address);
        wire.send([&header_v1(from), &preamble[..]].concat());
        wire
    };
    connect("192.0.2.7:1").expect_closed();
    proxy.await_log("swiftclient backend 192.0.2.7 of a.test refused");
    let mut bridge = Bridge::reused(connect("127.0.0.1:1"));
    let mut client = Client::request(&proxy, GET);
    assert_eq!(client_of(&mut bridge, &mut client), "127.0.0.1");
    let mut plain = SwiftclientBackend::connect_to(address);
    plain.send(preamble);
    plain.expect_closed();
}

#[test]
fn a_unix_socket_may_have_a_proxy_in_front_too() {
    let proxy =
        Proxy::with("listen 127.0.0.1:0\nlisten unix:{dir}/socket clients accept-proxy=unix");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let path = proxy.dir().join("socket");
    let connect = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(&path).expect("the socket");
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        stream.write_all(bytes).expect("room in the socket");
        stream
    };
    let mut client = connect(&[&header_v2("192.0.2.7:1", b""), GET].concat());
    assert_eq!(bridge.accept_request().field("x-forwarded-for"), Some("192.0.2.7"));
    bridge.respond("served");
    let answer = ok("served");
    let mut came = vec![0; answer.len()];
    client.read_exact(&mut came).expect("an answer");
    assert_eq!(came, answer);
    // A socket that is closed with bytes unread resets the connection.
    let ended = connect(GET).read(&mut [0]);
    let is_reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
    assert!(matches!(&ended, Ok(0)) || ended.as_ref().is_err_and(is_reset), "{ended:?}");
}

#[test]
fn a_reload_changes_who_announces() {
    let proxy = Proxy::with("listen 127.0.0.1:0\n");
    let address: SocketAddr = proxy.addresses()[0];
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut before = Client::connect_to(address);
    before.send(GET);
    served(&mut bridge, &mut before);
    proxy.change_settings("listen 127.0.0.1:0", "listen 127.0.0.1:0 accept-proxy=127.0.0.1");
    proxy.reload_well();
    proxy.await_log("(clients and bridges; with PROXY headers from 127.0.0.1)");
    let mut after = Client::connect_to(address);
    after.send([&header_v1("192.0.2.7:1"), GET].concat());
    assert_eq!(client_of(&mut bridge, &mut after), "192.0.2.7");
    // A connection that was there before is what it was.
    before.send(GET);
    assert_eq!(client_of(&mut bridge, &mut before), "127.0.0.1");
}

/// Newcomers that the reserve has taken are clients once their header is whole.
#[test]
fn a_full_proxy_holds_announced_clients() {
    let proxy = Proxy::with("listen 127.0.0.1:0 accept-proxy=127.0.0.1\nmax-connections 40");
    let mut crowd: Vec<Client> = (0..60).map(|_| Client::connect(&proxy)).collect();
    for (number, client) in crowd.iter_mut().enumerate() {
        let from = format!("192.0.2.{number}:1");
        client.send_if_open([&header_v1(&from), &b"GET / HTTP/1.1\r\n"[..]].concat());
    }
    let mut bridge = Bridge::connect(&proxy);
    bridge.send([&header_v1("127.0.0.1:1"), BRIDGE].concat());
    bridge.expect_exact(crate::common::ACK);
    drop(crowd);
    let mut client = Client::connect(&proxy);
    client.send([&header_v1("192.0.2.7:1"), GET].concat());
    assert_eq!(client_of(&mut bridge, &mut client), "192.0.2.7");
}

#[test]
fn a_shutdown_waits_for_the_request_of_a_new_connection() {
    /// How long it waits for the header.
    const LAST_CHANCE: Duration = Duration::from_millis(500);
    for _ in 0..50 {
        let mut proxy = proxy("");
        let mut bridge = Bridge::park(&proxy, &["a.test"]);
        let mut client = Client::connect(&proxy);
        client.send(&header_v1("192.0.2.7:1")[..10]);
        eventually("both are accepted", || metric(&proxy, "accepted_connections") == 2);
        let signalled = Instant::now();
        proxy.signal("TERM");
        proxy.await_log(logged::SHUTTING_DOWN);
        let sent = client.send_if_open([&header_v1("192.0.2.7:1")[10..], GET].concat());
        if signalled.elapsed() >= LAST_CHANCE {
            // The test itself was too slow, and shows nothing.
            continue;
        }
        assert!(sent, "it was closed at once");
        assert_eq!(client_of(&mut bridge, &mut client), "192.0.2.7");
        client.expect_closed();
        assert!(proxy.wait_exit().success());
        return;
    }
    panic!("nothing was sent within {LAST_CHANCE:?} of the signal");
}
