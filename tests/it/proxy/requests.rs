//! What a backend gets to see of a request: the same, in the proxy's own words.

use crate::common::{Bridge, Client, Message, Proxy};

/// What a backend sees when a client sends `request`; its answer is an empty 200.
#[track_caller]
fn seen(proxy: &Proxy, request: &str) -> Message {
    let mut bridge = Bridge::park(proxy, &["*"]);
    let mut client = Client::request(proxy, request);
    let seen = bridge.accept_request();
    bridge.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.read_response().status(), 200);
    seen
}

#[test]
fn request_is_passed_on_with_the_forwarded_fields() {
    let proxy = Proxy::start();
    let request = seen(
        &proxy,
        "GET /a/../b?c=%20d HTTP/1.1\r\nUser-Agent: x\r\nHOST: A.test:80\r\nAccept:*/*\r\ncookie:  a=b; c=d \r\n\r\n",
    );
    assert_eq!(
        String::from_utf8_lossy(&request.head),
        "GET /a/../b?c=%20d HTTP/1.1\r\nHost: A.test:80\r\nUser-Agent: x\r\nAccept: */*\r\ncookie: a=b; c=d\r\n\
         X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: A.test:80\r\n\r\n"
    );
}

#[test]
fn the_clients_address_is_appended_to_those_that_are_there() {
    let proxy = Proxy::start();
    let request = seen(
        &proxy,
        "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 192.0.2.1, 192.0.2.2\r\nX-Forwarded-For: 192.0.2.3\r\n\
         X-Forwarded-Proto: https\r\nX-Forwarded-Host: www.a.test\r\n\r\n",
    );
    assert_eq!(
        request.field("x-forwarded-for"),
        Some("192.0.2.1, 192.0.2.2, 192.0.2.3, 127.0.0.1")
    );
    assert_eq!(request.field("x-forwarded-proto"), Some("https"));
    assert_eq!(request.field("x-forwarded-host"), Some("www.a.test"));
}

#[test]
fn forwarded_replace_believes_no_client() {
    let proxy = Proxy::with("forwarded replace");
    let request = seen(
        &proxy,
        "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: evil.test\r\n\r\n",
    );
    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.field("x-forwarded-proto"), Some("http"));
    assert_eq!(request.field("x-forwarded-host"), Some("a.test"));
}

#[test]
fn forwarded_off_leaves_them_alone() {
    let proxy = Proxy::with("forwarded off");
    let request =
        seen(&proxy, "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n");
    assert_eq!(request.field("x-forwarded-for"), Some("192.0.2.1"));
    assert!(!request.has("x-forwarded-proto"), "{request:?}");
    assert!(!request.has("x-forwarded-host"), "{request:?}");
}

/// RFC 9110, section 7.6.1.
#[test]
fn hop_by_hop_fields_are_removed() {
    let proxy = Proxy::start();
    let request = seen(
        &proxy,
        "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, X-Private, TE\r\nX-Private: 1\r\nKeep-Alive: 300\r\n\
         Proxy-Connection: keep-alive\r\nTE: trailers\r\nUpgrade: websocket\r\nX-Public: 1\r\n\r\n",
    );
    for gone in ["x-private", "keep-alive", "proxy-connection", "upgrade"] {
        assert!(!request.has(gone), "{gone} in {request:?}");
    }
    assert_eq!(request.field("x-public"), Some("1"));
    // RFC 9110, section 6.5.1: the proxy passes trailers on, so it says so if the client does.
    assert_eq!(request.field("te"), Some("trailers"));
    assert_eq!(request.field("connection"), Some("TE"));
}

/// RFC 9110, section 5.6.1: an empty list has no members. Some clients send it to turn the
/// expectation off.
#[test]
fn an_empty_expectation_is_ignored() {
    let proxy = Proxy::start();
    let request =
        seen(&proxy, "POST / HTTP/1.1\r\nHost: a.test\r\nExpect:\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(request.text(), "abc");
    assert!(!request.has("expect"), "{request:?}");
}

/// RFC 9112, section 7.1.1, and padding: no reader takes another size from either.
#[test]
fn blanks_behind_a_chunk_size_are_passed_on() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(
        &proxy,
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n\
         5  \r\nhello\r\n5 ; a = \"b\"\r\nworld\r\n0 \r\n\r\n",
    );
    bridge.accept_head();
    bridge.expect_exact("5  \r\nhello\r\n5 ; a = \"b\"\r\nworld\r\n0 \r\n\r\n");
    bridge.respond_to(&mut client, "ok");
}

/// RFC 9110, section 7.6.2.
#[test]
fn max_forwards_is_counted_and_at_zero_the_proxy_answers() {
    let proxy = Proxy::start();
    let counted = seen(&proxy, "OPTIONS / HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 1\r\n\r\n");
    assert_eq!(counted.field("max-forwards"), Some("0"));
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    for (method, status) in [("OPTIONS", 204), ("TRACE", 405)] {
        let head = format!("{method} / HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 0\r\n\r\n");
        let answer = Client::ask(&proxy, head);
        assert_eq!(answer.status(), status, "{answer:?}");
        assert!(answer.field("allow").is_some_and(|allow| allow.contains("OPTIONS")), "{answer:?}");
    }
    bridge.assert_untouched(&proxy, "a.test");
}

/// A client that names them as its own affair would otherwise decide what the backend believes.
#[test]
fn connection_field_cannot_remove_framing_host_or_forwarded_fields() {
    let proxy = Proxy::start();
    let request = seen(
        &proxy,
        "POST / HTTP/1.1\r\nHost: a.test\r\nConnection: Host, Content-Length, X-Forwarded-For\r\nContent-Length: 3\r\n\r\nabc",
    );
    assert_eq!(request.field("host"), Some("a.test"));
    assert_eq!(request.field("content-length"), Some("3"));
    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.text(), "abc");
}

#[test]
fn upgrading_to_http_2_in_the_clear_is_not_passed_on() {
    let proxy = Proxy::start();
    let request = seen(
        &proxy,
        "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    );
    assert!(!request.has("upgrade"), "{request:?}");
    assert!(!request.has("http2-settings"), "{request:?}");
}

#[test]
fn absolute_form_goes_on_in_origin_form() {
    let proxy = Proxy::start();
    for (sent, start) in [
        ("GET http://a.test/x?y HTTP/1.1", "GET /x?y HTTP/1.1"),
        ("GET http://a.test HTTP/1.1", "GET / HTTP/1.1"),
        ("GET http://a.test?y HTTP/1.1", "GET /?y HTTP/1.1"),
        ("GET HTTP://A.TEST:80/x HTTP/1.1", "GET /x HTTP/1.1"),
        // RFC 9112, section 3.2.4.
        ("OPTIONS http://a.test HTTP/1.1", "OPTIONS * HTTP/1.1"),
        ("OPTIONS * HTTP/1.1", "OPTIONS * HTTP/1.1"),
    ] {
        let request = seen(&proxy, &format!("{sent}\r\nHost: a.test\r\n\r\n"));
        assert_eq!(request.start, start, "{sent}");
        assert!(
            request.field("host").is_some_and(|host| host.to_lowercase().starts_with("a.test")),
            "{request:?}"
        );
    }
}

#[test]
fn a_request_of_http_1_0_goes_on_as_1_1() {
    let proxy = Proxy::start();
    let request = seen(&proxy, "GET /old HTTP/1.0\r\nHost: a.test\r\n\r\n");
    assert_eq!(request.start, "GET /old HTTP/1.1");
    assert_eq!(request.field("host"), Some("a.test"));
}

/// Only a bridge for `*` can serve it, and RFC 9112, section 3.2 wants a Host field all the same.
#[test]
fn a_request_of_http_1_0_without_host_goes_to_the_star() {
    let proxy = Proxy::start();
    let request = seen(&proxy, "GET /old HTTP/1.0\r\n\r\n");
    assert_eq!(request.start, "GET /old HTTP/1.1");
    assert_eq!(request.field("host"), Some(""));
}

#[test]
fn a_chunked_request_keeps_its_chunks_and_trailers() {
    let proxy = Proxy::start();
    let request = seen(
        &proxy,
        "POST / HTTP/1.1\r\nHost: a.test\r\nTrailer: X-Sum\r\nTransfer-Encoding: Chunked\r\n\r\n\
         3\r\nabc\r\nA;name=\"value\"\r\n0123456789\r\n0\r\nX-Sum: 13\r\n\r\n",
    );
    assert_eq!(request.text(), "abc0123456789");
    assert_eq!(request.trailers, ["X-Sum: 13"]);
    assert!(!request.has("content-length"), "{request:?}");
}

#[test]
fn any_method_passes_and_keeps_its_case() {
    let proxy = Proxy::start();
    for method in ["GET", "DELETE", "PROPFIND", "get", "M-SEARCH", "X!#$%&'*+-.^_`|~"] {
        let request = seen(&proxy, &format!("{method} / HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        assert_eq!(request.start, format!("{method} / HTTP/1.1"));
    }
}

/// They are the proxy's own words to backends, now or later.
#[test]
fn fields_of_the_proxys_own_name_are_not_taken_from_clients() {
    let proxy = Proxy::start();
    let request =
        seen(&proxy, "GET / HTTP/1.1\r\nHost: a.test\r\nCloudbridge-Anything: forged\r\n\r\n");
    assert!(!request.has("cloudbridge-anything"), "{request:?}");
}

#[test]
fn expect_100_is_answered_by_the_backend() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(
        &proxy,
        "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
    );
    bridge.read_switch();
    // The first is the ack, which is between backend and proxy; the second is for the client.
    bridge.send("HTTP/1.1 100 Continue\r\n\r\n");
    let head = bridge.read_head();
    assert_eq!(head.field("expect").map(str::to_lowercase).as_deref(), Some("100-continue"));
    bridge.send("HTTP/1.1 100 Continue\r\n\r\n");
    client.expect_exact("HTTP/1.1 100 Continue\r\n\r\n");
    client.send("body");
    bridge.expect_exact("body");
    bridge.respond_to(&mut client, "thanks");
}

#[test]
fn expect_100_refused_by_the_backend_closes_both_sides() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(
        &proxy,
        "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
    );
    bridge.accept_head();
    bridge.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig");
    let response = client.read_response();
    assert_eq!(response.status(), 413);
    assert_eq!(response.text(), "big");
    assert_eq!(response.field("connection"), Some("close"), "{response:?}");
    client.expect_closed();
    bridge.expect_closed();
}

/// RFC 9110, section 10.1.1: the client may send its body all the same or go on with its next
/// request, and the backend may read the body or not. Where the two disagree, a body would become a
/// request.
#[test]
fn body_not_sent_after_a_final_response_does_not_become_a_request() {
    let proxy = Proxy::start();
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::connect(&proxy);
    let length = hidden.len();
    client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"));
    bridge.accept_head();
    bridge.send("HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n");
    let response = client.read_response();
    assert_eq!(response.status(), 302);
    assert_eq!(response.field("connection"), Some("close"), "{response:?}");
    client.send_if_open(hidden);
    bridge.expect_closed();
    client.expect_closed();
    Bridge::park(&proxy, &["a.test"]).assert_untouched(&proxy, "a.test");
}
