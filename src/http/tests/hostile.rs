//! Requests that are refused, and with what.

use super::*;

/// The status and the head. Each head is wrong in one place.
const HOSTILE: &[(u16, &[u8])] = &[
    // Not HTTP at all: known at the first bytes.
    (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    (400, b"\x16"),
    (400, b"\0"),
    (400, b"\xff"),
    (400, b" GET / HTTP/1.1\r\n"),
    (400, b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    // The request line.
    (400, b"G\x01T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    (400, b"GET / x HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET /\r\nHost: a\r\n\r\n"),
    (400, b"GET / http/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET / FTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET / HTTP/1.1x\r\nHost: a\r\n\r\n"),
    (400, b"GET / HTTP/ 1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET\r\n\r\n"),
    (400, b"/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (501, b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (501, b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG"),
    (405, b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
    (405, b"BRIDGE / HTTP/1.1\r\nHost: a\r\n\r\n"),
    // Versions.
    (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    (505, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    (505, b"GET / HTTP/2"),
    (505, b"GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    (505, b"GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
    (505, b"GET / HTTP/3.0\r\nHost: a\r\n\r\n"),
    (505, b"GET / HTTP/11.1\r\nHost: a\r\n\r\n"),
    // Targets.
    (400, b"GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET ?a HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET /a\x7fb HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET /0123456789abcdef0123456789abcdef\x7f0123456789abcdef HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET http:///b HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET http://a:/b:c@a/ HTTP/1.1\r\nHost: b\r\n\r\n"),
    (400, b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET http://a:8080/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET https://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET http://a/ HTTP/1.1\r\n\r\n"),
    // Line ends and control characters.
    (400, b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
    (400, b"GET / HTTP/1.1\nHost: a\n\n"),
    (400, b"GET / HTTP/1.0\n\n"),
    (400, b"GET / HTTP/1.0\r\n\n"),
    (400, b"GET / HTTP/1.0\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nA: b\nC: d\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nA:\nC: d\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nA: \nC:\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nA: b\rC: d\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\r\n\r\n"),
    (400, b"GET / HTTP/1.1\rHost: a\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\n\rX"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nA: b\0\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nA: \x01\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nA: b\x0bc\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nA: 0123456789abcdef0123456789abcdef\x7f\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nA: b\x1b[31m\r\n\r\n"),
    // Field lines.
    (400, b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\tc\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nA\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nA(b: c\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nA\0: c\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\n\xc3\xa9: c\r\n\r\n"),
    // Host.
    (400, b"GET / HTTP/1.1\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    (400, b"GET / HTTP/1.0\r\nHost: a\r\nhOST: b\r\n\r\n"),
    (400, b"GET / HTTP/1.0\r\nHost: a\r\nHost:\r\n\r\n"),
    (400, b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: http://a\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a%2e\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a..b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: .a\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: ::1\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: *.a\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost_: a\r\n\r\n"),
    // Content-Length.
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \"5\"\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551621\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n"),
    // Transfer-Encoding.
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"),
    (400, b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked x\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\x0b\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\xff\r\n\r\n"),
    (501, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
    (501, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (501, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip;q=\"1\"\r\n\r\n"),
    (501, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"),
    (501, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n"),
    // Expectations.
    (417, b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n"),
    (417, b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, x\r\n\r\n"),
    // Max-Forwards, where it must be counted.
    (400, b"OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: -1\r\n\r\n"),
    (400, b"TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards:\r\n\r\n"),
    (400, b"OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 5\r\nMax-Forwards: x\r\n\r\n"),
];

#[test]
fn each_is_refused_with_its_status() {
    for (status, head) in HOSTILE {
        assert_eq!(status_of(head), *status, "{}", head.escape_ascii());
    }
}

#[test]
fn refused_request_stays_refused_with_more_bytes() {
    for (_, head) in HOSTILE {
        let mut longer = head.to_vec();
        longer.extend_from_slice(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(status_of(&longer) >= 400, "{}", head.escape_ascii());
    }
}

#[test]
fn connection_may_name_32_fields() {
    let head = |names: usize| {
        let list = "x,".repeat(names);
        format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, {list}\r\nX: y\r\n\r\n")
    };
    assert_eq!(status_of(head(32).as_bytes()), 0);
    assert_eq!(status_of(head(33).as_bytes()), 400);
}
