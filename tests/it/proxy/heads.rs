//! A head is the same however it is cut on the way.

use crate::common::{Bridge, Client, Proxy, under_way};

const REQUEST: &[u8] =
    b"POST /cut?x=y HTTP/1.1\r\nHost: a.test\r\nX-Long: a b c\r\nContent-Length: 3\r\n\r\nabc";
const RESPONSE: &[u8] = b"HTTP/1.1 201 Made Here\r\nX-Long: d e f\r\nContent-Length: 3\r\n\r\nxyz";

#[test]
fn a_request_may_be_cut_anywhere() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::connect(&proxy);
    for cut in 0..=REQUEST.len() {
        client.send(&REQUEST[..cut]);
        client.send(&REQUEST[cut..]);
        let request = bridge.accept_request();
        assert_eq!(request.start, "POST /cut?x=y HTTP/1.1", "cut after {cut} bytes");
        assert_eq!(request.field("x-long"), Some("a b c"), "cut after {cut} bytes");
        assert_eq!(request.text(), "abc", "cut after {cut} bytes");
        bridge.respond("whole");
        assert_eq!(client.read_response().text(), "whole", "cut after {cut} bytes");
    }
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::connect(&proxy);
    client.send_byte_by_byte(REQUEST);
    assert_eq!(bridge.accept_request().text(), "abc");
    bridge.respond_to(&mut client, "whole");
}

#[test]
fn a_response_may_be_cut_anywhere() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::connect(&proxy);
    for cut in 0..=RESPONSE.len() {
        client.send_get("a.test", "/");
        bridge.accept_request();
        bridge.send(&RESPONSE[..cut]);
        bridge.send(&RESPONSE[cut..]);
        let response = client.read_response();
        assert_eq!(response.start, "HTTP/1.1 201 Made Here", "cut after {cut} bytes");
        assert_eq!(response.field("x-long"), Some("d e f"), "cut after {cut} bytes");
        assert_eq!(response.text(), "xyz", "cut after {cut} bytes");
    }
}

#[test]
fn a_response_may_come_byte_by_byte() {
    let proxy = Proxy::start();
    let (mut client, mut bridge) = under_way(&proxy);
    bridge.send_byte_by_byte(RESPONSE);
    assert_eq!(client.read_response().text(), "xyz");
}

#[test]
fn chunks_may_be_cut_anywhere_in_both_directions() {
    const CHUNKS: &[u8] = b"3;ext=1\r\nabc\r\n1\r\nd\r\n0\r\nX-Sum: 4\r\n\r\n";
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::connect(&proxy);
    for cut in 0..=CHUNKS.len() {
        let mut first =
            b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        first.extend_from_slice(&CHUNKS[..cut]);
        client.send(first);
        client.send(&CHUNKS[cut..]);
        let request = bridge.accept_request();
        assert_eq!(request.text(), "abcd", "cut after {cut} bytes");
        let mut first = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        first.extend_from_slice(&CHUNKS[..cut]);
        bridge.send(first);
        bridge.send(&CHUNKS[cut..]);
        assert_eq!(client.read_response().text(), "abcd", "cut after {cut} bytes");
    }
}

/// RFC 9112, section 2.2: an empty line before a request line is forgiven.
#[test]
fn an_empty_line_before_a_request_is_forgiven() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(&proxy, "\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(bridge.serve_to(&mut client, "forgiven"), "GET / HTTP/1.1");
}
