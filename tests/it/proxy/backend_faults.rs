//! Backends that answer nonsense, too little or too much: the client gets a 502 or a response that
//! is plainly cut, and nobody else notices.

use crate::common::{Bridge, Client, Ending, Proxy, exchange, shown, under_way};

/// Answers whose head is not one that RFC 9112 allows, or that we cannot pass on.
const BAD_RESPONSES: &[&str] = &[
    "garbage\r\n\r\n",
    "\r\n\r\n\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    "HTTP/1.1\r\n\r\n",
    "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ncolonless\r\nContent-Length: 0\r\n\r\n",
];

#[test]
fn a_malformed_response_is_a_502_and_ends_the_bridge() {
    let proxy = Proxy::start();
    for response in BAD_RESPONSES {
        let mut bridge = Bridge::park(&proxy, &["a.test"]);
        let mut client =
            Client::request(&proxy, "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n");
        bridge.accept_request();
        bridge.send(response);
        let answer = client.read_response();
        assert_eq!(answer.status(), 502, "{response:?} became {answer:?}");
        answer.assert_own_reply(502);
        bridge.expect_closed();
    }
}

#[test]
fn a_response_head_without_end_is_a_502() {
    let proxy = Proxy::start();
    let (mut client, mut bridge) = under_way(&proxy);
    bridge.send_if_open(format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(64 * 1024)));
    client.read_response().assert_own_reply(502);
}

/// Its request has been read to the end, so the next one can follow.
#[test]
fn client_connection_is_kept_after_a_502() {
    let proxy = Proxy::start();
    let (mut client, mut bridge) = under_way(&proxy);
    bridge.send("nonsense\r\n\r\n");
    let answer = client.read_response();
    answer.assert_own_reply(502);
    assert!(!answer.has("connection"), "{answer:?}");
    exchange(&mut client, &mut Bridge::park(&proxy, &["a.test"]));
}

/// The rest of the request would be taken for the next one.
#[test]
fn client_that_is_still_sending_is_closed_after_a_502() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let post = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n01234";
    let mut client = Client::request(&proxy, post);
    bridge.accept_head();
    bridge.send("nonsense\r\n\r\n");
    let answer = client.read_response();
    answer.assert_own_reply(502);
    assert_eq!(answer.field("connection"), Some("close"), "{answer:?}");
    client.expect_closed();
}

#[test]
fn the_warning_of_a_bad_response_names_the_request() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/page?token=secret");
    bridge.accept_request();
    bridge.send("nonsense\r\n\r\n");
    client.read_response().assert_own_reply(502);
    proxy.await_log(" of a.test, GET a.test/page, attempt 1: backend sent bad HTTP");
    assert!(!proxy.log().contains("secret"), "{}", proxy.log());
}

/// What a client reads, to the end, of a response that its backend breaks off.
#[track_caller]
fn cut_off(proxy: &Proxy, response: &str) -> (Vec<u8>, Ending) {
    let mut bridge = Bridge::park(proxy, &["a.test"]);
    let mut client = Client::get(proxy, "a.test", "/");
    bridge.accept_request();
    bridge.send(response);
    drop(bridge);
    client.read_to_end()
}

/// RFC 9112, section 8: it must not look complete.
#[test]
fn truncated_response_body_is_cut_for_the_client() {
    let proxy = Proxy::with("hold-response 0");
    let (bytes, _) = cut_off(&proxy, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(shown(&bytes), shown(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"));
    for cut in
        ["5\r\nhello\r\n", "5\r\nhe", "5\r\nhello\r\n0\r\n", "5\r\nhello\r\n0\r\nX: y\r\n", "5"]
    {
        let (bytes, _) =
            cut_off(&proxy, &format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{cut}"));
        assert!(
            !bytes.ends_with(b"\r\n\r\n") || bytes.ends_with(b"chunked\r\n\r\n"),
            "{}",
            shown(&bytes)
        );
    }
}

/// For a client of HTTP/1.0 the end of the connection is the end of the body, so only a reset can
/// say that it was cut.
#[test]
fn a_truncated_body_that_was_decoded_ends_in_a_reset() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(&proxy, "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    bridge.accept_request();
    bridge.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    client.read_head();
    client.expect_exact("hello");
    drop(bridge);
    assert_eq!(client.expect_closed(), Ending::Reset);
}

#[test]
fn bad_chunks_in_a_response_cut_it() {
    let proxy = Proxy::start();
    for bad in [
        "x\r\n",
        "fffffffffffffffff\r\n",
        "3\r\nabcd\r\n",
        "0\r\nContent-Length: 3\r\n\r\n",
        "3\nabc\r\n",
    ] {
        let (mut client, mut bridge) = under_way(&proxy);
        bridge.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        client.read_head();
        client.expect_exact("5\r\nhello\r\n");
        bridge.send(bad);
        let (rest, _) = client.read_to_end();
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{bad:?} ended as {}", shown(&rest));
        bridge.expect_closed();
    }
}

#[test]
fn a_backend_that_resets_in_the_middle_cuts_its_response() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    bridge.acknowledge();
    bridge.await_unread(b"\r\n\r\n");
    bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    client.read_head();
    client.expect_exact("half");
    // Its request is still unread, so this close is a reset.
    drop(bridge);
    client.expect_closed();
    let mut next = Bridge::park(&proxy, &["a.test"]);
    next.assert_untouched(&proxy, "a.test");
}

/// RFC 9112, section 6.3: such a response ends with its head, whatever follows; what follows is
/// nobody's.
#[test]
fn body_behind_a_bodiless_response_closes_the_bridge() {
    let proxy = Proxy::start();
    for (request, response) in [
        ("GET", "HTTP/1.1 204 No Content\r\n\r\nsurplus"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\nsurplus"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsurplus"),
    ] {
        let mut bridge = Bridge::park(&proxy, &["a.test"]);
        let mut client =
            Client::request(&proxy, format!("{request} / HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        bridge.accept_request();
        bridge.send(response);
        client.read_head();
        bridge.expect_closed();
        let mut next = Bridge::park(&proxy, &["a.test"]);
        exchange(&mut client, &mut next);
    }
}

#[test]
fn fields_of_the_proxys_own_name_are_not_taken_from_backends() {
    let proxy = Proxy::start();
    let (mut client, mut bridge) = under_way(&proxy);
    bridge.send("HTTP/1.1 200 OK\r\nCloudbridge-Anything: x\r\nContent-Length: 0\r\n\r\n");
    let response = client.read_response();
    assert!(!response.has("cloudbridge-anything"), "{response:?}");
}

/// The backend learns that nobody listens any more, instead of working on.
#[test]
fn a_client_that_leaves_in_the_middle_ends_its_bridge() {
    let proxy = Proxy::start();
    let (mut client, mut bridge) = under_way(&proxy);
    bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\nsome");
    client.read_head();
    drop(client);
    let piece = [b'x'; 64 * 1024];
    let sent = (0..1000).take_while(|_| bridge.send_if_open(piece)).count();
    assert!(sent < 1000, "the bridge took everything");
    let mut next = Bridge::park(&proxy, &["a.test"]);
    next.assert_untouched(&proxy, "a.test");
}
