//! What a client gets to see of a response, and where its body ends.

use crate::common::{Bridge, Client, Message, Proxy, exchange, under_way};

/// What a client reads of `response` when it has sent `request`.
#[track_caller]
fn read(proxy: &Proxy, request: &str, response: &str) -> (Client, Message) {
    let mut bridge = Bridge::park(proxy, &["a.test"]);
    let mut client = Client::request(proxy, request);
    bridge.accept_request();
    bridge.send(response);
    // A body that ends with the connection ends here; for every other it does not matter.
    bridge.half_close();
    let response = client.read_response();
    (client, response)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// Fails unless the connection carries another exchange.
#[track_caller]
fn still_open(proxy: &Proxy, client: &mut Client) {
    exchange(client, &mut Bridge::park(proxy, &["a.test"]));
}

/// Its framing is said once and last, everything else in its order.
#[test]
fn response_is_passed_on_in_order_with_its_framing_last() {
    let proxy = Proxy::start();
    let (mut client, mut bridge) = under_way(&proxy);
    bridge.send(
        "HTTP/1.1 299 Own Words\r\nServer: x\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nContent-Length: 2\r\nX-Empty:\r\n\r\nok",
    );
    client.expect_exact(
        "HTTP/1.1 299 Own Words\r\nServer: x\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nX-Empty: \r\nContent-Length: 2\r\n\r\nok",
    );
    exchange(&mut client, &mut bridge);
}

/// RFC 9110, section 7.6.1.
#[test]
fn hop_by_hop_fields_are_removed() {
    let proxy = Proxy::start();
    let (mut client, response) = read(
        &proxy,
        GET,
        "HTTP/1.1 200 OK\r\nConnection: X-Private, keep-alive\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nUpgrade: h2c\r\nX-Public: 1\r\nContent-Length: 0\r\n\r\n",
    );
    for gone in ["connection", "x-private", "keep-alive", "proxy-connection", "upgrade"] {
        assert!(!response.has(gone), "{gone} in {response:?}");
    }
    assert_eq!(response.field("x-public"), Some("1"));
    still_open(&proxy, &mut client);
}

#[test]
fn a_backend_that_closes_leaves_the_client_open() {
    let proxy = Proxy::start();
    let (mut client, response) =
        read(&proxy, GET, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    assert!(!response.has("connection"), "{response:?}");
    assert_eq!(response.text(), "ok");
    still_open(&proxy, &mut client);
}

#[test]
fn a_client_that_asks_to_close_is_closed() {
    let proxy = Proxy::start();
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Close\r\n\r\n";
    let (mut client, response) =
        read(&proxy, request, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(response.field("connection"), Some("close"), "{response:?}");
    client.expect_closed();
}

#[test]
fn a_status_line_without_reason_gets_one() {
    let proxy = Proxy::start();
    for status_line in ["HTTP/1.1 404", "HTTP/1.1 404 "] {
        let response = format!("{status_line}\r\nContent-Length: 0\r\n\r\n");
        let (_, response) = read(&proxy, GET, &response);
        assert_eq!(response.start, "HTTP/1.1 404 Not Found");
    }
}

#[test]
fn a_response_of_http_1_0_goes_on_as_1_1() {
    let proxy = Proxy::start();
    let (mut client, response) =
        read(&proxy, GET, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(response.start, "HTTP/1.1 200 OK");
    assert_eq!(response.text(), "ok");
    still_open(&proxy, &mut client);
}

#[test]
fn interim_responses_are_passed_on() {
    let proxy = Proxy::start();
    let (mut client, mut bridge) = under_way(&proxy);
    bridge.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
    client.expect_exact("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
    bridge.send("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    client.expect_exact(
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    exchange(&mut client, &mut bridge);
}

/// RFC 9110, section 15.2.
#[test]
fn a_client_of_http_1_0_gets_no_interim_response() {
    let proxy = Proxy::start();
    let (mut client, response) = read(
        &proxy,
        "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    assert_eq!(response.status(), 200);
    assert_eq!(response.text(), "ok");
    client.expect_closed();
}

#[test]
fn interim_responses_without_end_are_cut() {
    let proxy = Proxy::start();
    let (mut client, mut bridge) = under_way(&proxy);
    for _ in 0..10_000 {
        if !bridge.send_if_open("HTTP/1.1 103 Early Hints\r\n\r\n") {
            break;
        }
    }
    let response = client.read_final_response();
    assert_eq!(response.status(), 502, "{response:?}");
}

#[test]
fn a_response_to_head_has_the_length_of_a_body_and_no_body() {
    let proxy = Proxy::start();
    for field in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
        let mut bridge = Bridge::park(&proxy, &["a.test"]);
        let mut client = Client::request(&proxy, "HEAD / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(bridge.accept_request().start, "HEAD / HTTP/1.1");
        bridge.send(format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n"));
        client.expect_exact(format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n"));
        // Both sides are free for another exchange at once.
        exchange(&mut client, &mut bridge);
        drop(bridge);
        proxy.await_no_bridges();
    }
}

#[test]
fn responses_that_have_no_body_end_with_their_head() {
    let proxy = Proxy::start();
    for head in [
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 1000\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\n\r\n",
    ] {
        let (mut client, mut bridge) = under_way(&proxy);
        bridge.send(head);
        client.expect_exact(head);
        exchange(&mut client, &mut bridge);
        drop(bridge);
        proxy.await_no_bridges();
    }
}

#[test]
fn chunks_and_trailers_are_passed_on() {
    let proxy = Proxy::start();
    let (mut client, response) = read(
        &proxy,
        GET,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
         5;a=b\r\nhello\r\n00006\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n",
    );
    assert_eq!(response.text(), "hello world");
    assert_eq!(response.trailers, ["X-Sum: 11"]);
    still_open(&proxy, &mut client);
}

#[test]
fn an_empty_chunked_body_is_empty() {
    let proxy = Proxy::start();
    let (mut client, response) =
        read(&proxy, GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(response.text(), "");
    still_open(&proxy, &mut client);
}

#[test]
fn a_body_that_ends_with_the_connection_arrives_whole() {
    let proxy = Proxy::start();
    let (_, response) = read(&proxy, GET, "HTTP/1.1 200 OK\r\nX: y\r\n\r\nuntil the end");
    assert_eq!(response.text(), "until the end");
}

/// It cannot read chunks, so the body ends with the connection.
#[test]
fn a_client_of_http_1_0_gets_chunks_decoded() {
    let proxy = Proxy::start();
    let (_, response) = read(
        &proxy,
        "GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n",
    );
    assert!(!response.has("transfer-encoding"), "{response:?}");
    assert_eq!(response.text(), "hello world");
}

#[test]
fn a_client_of_http_1_0_is_closed_unless_it_asks_otherwise() {
    let proxy = Proxy::start();
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (mut client, response) = read(&proxy, "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n", answer);
    assert_eq!(response.text(), "ok");
    client.expect_closed();
    let kept = "GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n";
    let (mut client, response) = read(&proxy, kept, answer);
    let connection = response.field("connection").map(str::to_lowercase);
    assert_eq!(connection.as_deref(), Some("keep-alive"), "{response:?}");
    still_open(&proxy, &mut client);
}

/// What real servers send although it is not quite HTTP/1.1, and what the client gets of it. It can
/// be read in one way only, or it is rewritten.
#[test]
fn responses_of_real_servers_are_passed_on() {
    let proxy = Proxy::start();
    for (response, status, body) in [
        // Padding behind a chunk size, and blanks in its extension.
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5  \r\nhello\r\n0  \r\n\r\n",
            200,
            "hello",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5 ; a = \"b\"\r\nhello\r\n0\r\n\r\n",
            200,
            "hello",
        ),
        // Chunks in HTTP/1.0.
        (
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            200,
            "hello",
        ),
        ("HTTP/1.1 600 High\r\nContent-Length: 5\r\n\r\nhello", 600, "hello"),
        ("HTTP/1.1 999 Denied\r\nContent-Length: 5\r\n\r\nhello", 999, "hello"),
        // A length given twice.
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 200, "hello"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", 200, "hello"),
    ] {
        let (mut client, answer) = read(&proxy, GET, response);
        assert_eq!((answer.status(), answer.text().as_str()), (status, body), "{response:?}");
        assert!(answer.all("content-length").len() <= 1, "{answer:?}");
        still_open(&proxy, &mut client);
    }
}
