//! How a stream ends: what was cut off is not taken for whole (RFC 8446, section 6.1).

use crate::common::{Bridge, Client, Ending, Proxy, Setup, under_way};
use std::net::Shutdown;

fn start() -> Proxy {
    Setup::new().over_tls().start()
}

const UNTIL_CLOSE: &str = "HTTP/1.1 200 OK\r\n\r\nhalf";

#[test]
fn a_response_until_the_end_is_whole_after_a_close_notify() {
    let proxy = start();
    let (mut client, mut bridge) = under_way(&proxy);
    bridge.send(UNTIL_CLOSE);
    bridge.half_close();
    assert_eq!(client.read_response().text(), "half");
}

#[test]
fn a_response_until_the_end_is_cut_after_a_fin_alone() {
    let proxy = start();
    let (mut client, mut bridge) = under_way(&proxy);
    bridge.send(UNTIL_CLOSE);
    bridge.stream().shutdown(Shutdown::Write).expect("a FIN");
    client.read_head();
    let (body, ending) = client.read_to_end();
    assert_eq!((body.as_slice(), ending), (&b"half"[..], Ending::Reset));
}

/// To a client of HTTP/1.0 only the end of the connection says where the body ends.
#[test]
fn what_is_cut_looks_cut_to_an_old_client() {
    let proxy = start();
    for (is_whole, expected) in [(true, Ending::Closed), (false, Ending::Reset)] {
        let mut bridge = Bridge::park(&proxy, &["a.test"]);
        let mut client = Client::request(&proxy, "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
        bridge.accept_request();
        bridge.send(UNTIL_CLOSE);
        if is_whole {
            bridge.half_close();
        } else {
            bridge.stream().shutdown(Shutdown::Write).expect("a FIN");
        }
        client.read_head();
        let (body, ending) = client.read_to_end();
        assert_eq!((body.as_slice(), ending), (&b"half"[..], expected));
    }
}

/// A close_notify in the middle of a message of known length is as a FIN there.
#[test]
fn a_close_notify_in_the_middle_of_a_body_cuts_it() {
    let proxy = start();
    let (mut client, mut bridge) = under_way(&proxy);
    bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
    bridge.send(vec![b'x'; 50_000]);
    bridge.half_close();
    client.read_head();
    let (body, _) = client.read_to_end();
    assert!(body.len() < 100_000);
    for has_notice in [true, false] {
        let mut bridge = Bridge::park(&proxy, &["a.test"]);
        let head = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nhalf";
        let mut client = Client::request(&proxy, head);
        bridge.acknowledge();
        bridge.read_head();
        bridge.expect_exact("half");
        if has_notice {
            client.half_close();
        } else {
            client.stream().shutdown(Shutdown::Write).expect("a FIN");
        }
        let (rest, _) = bridge.read_to_end();
        assert!(rest.is_empty(), "{rest:?}");
    }
}

/// It has only said that it sends no more.
#[test]
fn a_client_that_has_closed_its_side_reads_its_response() {
    let proxy = start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    client.half_close();
    let request = bridge.accept_request();
    assert_eq!(request.start, "GET / HTTP/1.1");
    bridge.respond("x".repeat(500_000));
    let response = client.read_final_response();
    assert_eq!(response.body.len(), 500_000);
    assert_eq!(client.expect_closed(), Ending::Closed);
}

#[test]
fn a_tunnel_may_be_closed_on_one_side() {
    let proxy = start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(
        &proxy,
        "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
    );
    bridge.accept_request();
    bridge.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(client.read_head().status(), 101);
    client.send("last words");
    client.half_close();
    bridge.expect_exact("last words");
    assert_eq!(bridge.expect_closed(), Ending::Closed);
    bridge.send(vec![b'y'; 300_000]);
    bridge.half_close();
    let (rest, ending) = client.read_to_end();
    assert_eq!((rest.len(), ending), (300_000, Ending::Closed));
}
