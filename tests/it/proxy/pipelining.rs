//! Several requests at once, answers before the question is over, and clients that have finished
//! talking.

use crate::common::{Bridge, Client, Ending, Proxy, exchange, pattern, pattern_differs, under_way};

#[test]
fn pipelined_requests_are_answered_in_order_each_by_its_own_host() {
    let proxy = Proxy::start();
    let mut a = Bridge::park(&proxy, &["a.test"]);
    let mut b = Bridge::park(&proxy, &["b.test"]);
    let mut client = Client::request(
        &proxy,
        "POST /1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\none\
         GET /2 HTTP/1.1\r\nHost: b.test\r\n\r\n\
         POST /3 HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nthree\r\n0\r\n\r\n",
    );
    assert_eq!(a.accept_request().text(), "one");
    a.respond("first");
    assert_eq!(b.serve("second"), "GET /2 HTTP/1.1");
    assert_eq!(a.accept_request().text(), "three");
    a.respond("third");
    for body in ["first", "second", "third"] {
        assert_eq!(client.read_response().text(), body);
    }
}

#[test]
fn a_hundred_pipelined_requests_are_answered_in_order() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::connect(&proxy);
    let requests: String =
        (0..100).map(|number| format!("GET /{number} HTTP/1.1\r\nHost: a.test\r\n\r\n")).collect();
    client.send(requests);
    for number in 0..100 {
        let body = number.to_string();
        let line = bridge.serve(body);
        assert_eq!(line, format!("GET /{number} HTTP/1.1"));
    }
    for number in 0..100 {
        assert_eq!(client.read_response().text(), number.to_string());
    }
}

#[test]
fn a_bad_request_behind_a_good_one_is_refused_after_its_answer() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(
        &proxy,
        "GET /good HTTP/1.1\r\nHost: a.test\r\n\r\nGET /bad HTTP/1.1\r\nHost : a.test\r\n\r\n",
    );
    bridge.serve_to(&mut client, "good");
    client.read_response().assert_own_reply(400);
    client.expect_closed();
    let mut next = Client::get(&proxy, "a.test", "/next");
    assert_eq!(bridge.serve_to(&mut next, "next"), "GET /next HTTP/1.1");
}

#[test]
fn request_behind_one_that_closes_is_not_read() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(
        &proxy,
        "GET /last HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\nGET /more HTTP/1.1\r\nHost: a.test\r\n\r\n",
    );
    bridge.serve_to(&mut client, "last");
    client.expect_closed();
    let mut next = Client::get(&proxy, "a.test", "/next");
    assert_eq!(bridge.serve_to(&mut next, "next"), "GET /next HTTP/1.1");
}

#[test]
fn half_closed_client_gets_its_responses() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(
        &proxy,
        "GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\nGET /2 HTTP/1.1\r\nHost: a.test\r\n\r\n",
    );
    client.half_close();
    bridge.serve("one");
    bridge.serve("two");
    assert_eq!(client.read_final_response().text(), "one");
    assert_eq!(client.read_final_response().text(), "two");
    client.expect_closed();
}

/// An upload that is refused at its head: the client reads why, although it has not sent
/// everything.
#[test]
fn an_early_response_that_closes_reaches_the_client_whole() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(
        &proxy,
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000000\r\n\r\nthe first bytes of many",
    );
    bridge.accept_head();
    bridge.send(
        "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 7\r\n\r\ntoo big",
    );
    drop(bridge);
    let response = client.read_response();
    assert_eq!(response.status(), 413);
    assert_eq!(response.text(), "too big");
    client.expect_closed();
}

/// Closing with the rest of the request unread would reset the connection under the answer.
#[test]
fn a_client_that_is_still_sending_can_read_an_early_response_that_closes() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(
        &proxy,
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\n01234",
    );
    bridge.accept_head();
    bridge.expect_exact("01234");
    bridge.send(
        "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 7\r\n\r\ntoo big",
    );
    bridge.half_close();
    bridge.read_to_end();
    client.send([b'x'; 999_995]);
    assert_eq!(client.read_response().text(), "too big");
    assert_eq!(client.expect_closed(), Ending::Closed);
}

#[test]
fn an_early_response_comes_at_once_and_the_rest_of_the_request_still_goes() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(
        &proxy,
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n01234",
    );
    bridge.accept_head();
    bridge.expect_exact("01234");
    bridge.respond_to(&mut client, "early");
    client.send("56789");
    bridge.expect_exact("56789");
    exchange(&mut client, &mut Bridge::park(&proxy, &["a.test"]));
}

/// Like an echo or a transcoder: it answers while it reads, and neither direction may wait for the
/// end of the other.
#[test]
fn a_body_flows_both_ways_at_the_same_time() {
    const SIZE: usize = 8 * 1024 * 1024;
    const PIECE: usize = 64 * 1024;
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(
        &proxy,
        format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {SIZE}\r\n\r\n"),
    );
    std::thread::scope(|scope| {
        scope.spawn(move || {
            bridge.accept_head();
            bridge.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"));
            for _ in 0..SIZE / PIECE {
                let piece = bridge.read_exactly(PIECE);
                bridge.send(piece);
            }
        });
        let mut at = 0;
        for piece in 0..SIZE / PIECE {
            client.send(pattern((piece * PIECE) as u64, PIECE));
            if piece == 0 {
                assert_eq!(client.read_head().status(), 200);
            }
            let echoed = client.read_exactly(PIECE);
            assert_eq!(pattern_differs(at, &echoed), None);
            at += PIECE as u64;
        }
    });
}

/// The proxy closes after this response, but its client does not know yet and asks again. A reset
/// would take from it what it has not read (RFC 9112 section 9.6).
#[test]
fn a_request_behind_the_last_response_does_not_destroy_it() {
    const LENGTH: usize = 1_000_000;
    let proxy = Proxy::start();
    let (mut client, mut bridge) = under_way(&proxy);
    bridge.send("HTTP/1.1 200 OK\r\n\r\n");
    bridge.send("x".repeat(LENGTH));
    bridge.half_close();
    // The proxy closes it when all of the response has been passed on.
    bridge.read_to_end();
    client.send_get("a.test", "/another");
    client.read_head();
    let (body, ending) = client.read_to_end();
    assert_eq!((body.len(), ending), (LENGTH, Ending::Closed));
}
