//! Requests that must not get through: each gets its status and a closed connection, and no backend
//! sees a byte of it.

use crate::common::{Bridge, Client, Proxy, Wire, eventually, shown};

/// A host line and the end of a head, for rows whose fault is in the request line.
const REST: &str = " HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// Field lines that spoil an otherwise good POST of HTTP/1.1.
const BAD_FIELDS: &[(u16, &str)] = &[
    // RFC 9112, section 6.3: two opinions about where the body ends.
    (400, "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
    (400, "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"),
    (400, "Transfer-Encoding: chunked, chunked\r\n"),
    (400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
    (400, "Transfer-Encoding:\r\n"),
    (400, "Transfer-Encoding: \u{b}chunked\r\n"),
    (400, "Transfer-Encoding: ,\r\n"),
    (501, "Transfer-Encoding: gzip, chunked\r\n"),
    (501, "Transfer-Encoding: gzip\r\n"),
    (501, "Transfer-Encoding: xchunked\r\n"),
    (400, "Content-Length: 3\r\nContent-Length: 4\r\n"),
    (400, "Content-Length: 3, 4\r\n"),
    (400, "Content-Length:\r\n"),
    (400, "Content-Length: +3\r\n"),
    (400, "Content-Length: -1\r\n"),
    (400, "Content-Length: 0x3\r\n"),
    (400, "Content-Length: 3 3\r\n"),
    (400, "Content-Length: 3.0\r\n"),
    (400, "Content-Length: three\r\n"),
    (400, "Content-Length: 18446744073709551616\r\n"),
    (400, "Content-Length: 99999999999999999999999999\r\n"),
    // RFC 9112, section 2.2, and RFC 9110, section 5.5: line ends and control bytes.
    (400, "X: a\rb\r\n"),
    (400, "X: a\nY: b\r\n"),
    (400, "X: a\0b\r\n"),
    (400, "X: a\u{1}b\r\n"),
    (400, "X: a\u{7f}b\r\n"),
    (400, "\0: a\r\n"),
    // RFC 9112, section 5.1 and 5.2: names and folding.
    (400, "X : a\r\n"),
    (400, "Transfer-Encoding : chunked\r\n"),
    (400, "X\t: a\r\n"),
    (400, "X: a\r\n folded\r\n"),
    (400, "X: a\r\n\tfolded\r\n"),
    (400, ": nameless\r\n"),
    (400, "colonless\r\n"),
    (400, "X(Y): a\r\n"),
    (400, "X\u{e9}: a\r\n"),
    // RFC 9112, section 3.2: exactly one Host.
    (400, "Host: a.test\r\n"),
    (400, "Host: b.test\r\n"),
    // RFC 9110, section 10.1.1.
    (417, "Expect: a-miracle\r\n"),
];

/// Values of the only Host field.
const BAD_HOSTS: &[&str] = &[
    "",
    "a test",
    "a.test/",
    "a.test, b.test",
    "user@a.test",
    "a.test:80:80",
    "a.test:port",
    "a.test:65536",
    "a%2etest",
    "a\u{e9}.test",
    "[::1",
    "a.test#b",
    "a.test?b",
    "a\\.test",
    "<a.test>",
];

/// Whole heads.
const BAD_HEADS: &[(u16, &str)] = &[
    // RFC 9112, section 3.2: the Host that must be there, and the authority that must agree with
    // it.
    (400, "GET / HTTP/1.1\r\n\r\n"),
    (400, "GET http://a.test/ HTTP/1.1\r\nHost:\r\n\r\n"),
    (400, "GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    (400, "GET http://a.test:81/ HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    (400, "GET http:///x HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    (400, "GET http://user@a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    (400, "GET ftp://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    // RFC 9112, section 3: the request line.
    (400, "GET /\r\n\r\n"),
    (400, "GET\r\n\r\n"),
    (400, "GET  / HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    (400, "GET /  HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    (400, "GET / HTTP/1.1 \r\nHost: a.test\r\n\r\n"),
    (400, " GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    (400, "GE(T / HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    (400, "GET / http/1.1\r\nHost: a.test\r\n\r\n"),
    (400, "GET / HTTX/1.1\r\nHost: a.test\r\n\r\n"),
    (400, "GET / HTTP/1.1\nHost: a.test\n\n"),
    (400, "GET / HTTP/1.1\rHost: a.test\r\r"),
    (400, "GET / HTTP/1.1\r\n Host: a.test\r\n\r\n"),
    (400, "\0GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    // RFC 9112, section 6.1: HTTP/1.0 has no transfer codings.
    (400, "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    // RFC 9110, section 9.3.6: CONNECT is for other proxies.
    (405, "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n"),
    // Versions of another kind.
    (505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    (505, "GET / HTTP/2.0\r\nHost: a.test\r\n\r\n"),
    (505, "GET / HTTP/3.0\r\nHost: a.test\r\n\r\n"),
    (505, "GET / HTTP/0.9\r\nHost: a.test\r\n\r\n"),
    // The first bytes of a TLS handshake.
    (400, "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0"),
];

/// Targets that are neither origin form nor absolute form, nor `*` where that may be.
const BAD_TARGETS: &[&str] = &[
    "GET *",
    "GET a.test",
    "GET a.test:80",
    "GET index.html",
    "GET /a#b",
    "GET /\u{e9}",
    "GET /a\u{1}b",
    "GET /a\u{7f}b",
    "GET ?x",
];

#[test]
fn bad_heads_are_refused_and_reach_no_backend() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["*"]);
    let mut rows: Vec<(u16, Vec<u8>)> = Vec::new();
    for (status, fields) in BAD_FIELDS {
        let head = format!("POST / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
        rows.push((*status, head.into_bytes()));
    }
    for host in BAD_HOSTS {
        rows.push((400, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()));
    }
    for (status, head) in BAD_HEADS {
        rows.push((*status, head.as_bytes().to_vec()));
    }
    for start in BAD_TARGETS {
        rows.push((400, format!("{start}{REST}").into_bytes()));
    }
    let failures: Vec<String> =
        rows.iter().filter_map(|(status, head)| not_refused(&proxy, *status, head)).collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), rows.len(), failures.join("\n"));
    bridge.assert_untouched(&proxy, "a.test");
}

/// Sends `head` and says what was wrong with how it was refused, if anything was.
fn not_refused(proxy: &Proxy, status: u16, head: &[u8]) -> Option<String> {
    let mut client = Client::connect(proxy);
    client.send_if_open(head);
    let (answer, _) = client.read_to_end();
    let line = format!("HTTP/1.1 {status} ");
    let closes =
        answer.windows(19).any(|window| window.eq_ignore_ascii_case(b"\r\nConnection: close"));
    let once = answer.windows(line.len()).filter(|window| *window == line.as_bytes()).count() == 1;
    let good = answer.starts_with(line.as_bytes()) && closes && once;
    (!good).then(|| format!("{} wants {status}, got {}", shown(head), shown(&answer)))
}

#[test]
fn heads_over_the_bounds_are_refused() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["*"]);
    let many: String = (0..101).map(|number| format!("X-{number}: x\r\n")).collect();
    let long = "x".repeat(20 * 1024);
    for (status, head) in [
        (414, format!("GET /{long} HTTP/1.1\r\nHost: a.test\r\n\r\n")),
        (414, format!("GET /{long}")),
        (431, format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {long}\r\n\r\n")),
        (431, format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {long}")),
        (431, format!("GET / HTTP/1.1\r\nHost: a.test\r\n{many}\r\n")),
    ] {
        assert_eq!(not_refused(&proxy, status, head.as_bytes()), None);
    }
    bridge.assert_untouched(&proxy, "a.test");
}

#[test]
fn head_at_the_bounds_passes() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["*"]);
    let fields: String =
        (0..99).map(|number| format!("X-{number}: {}\r\n", "x".repeat(70))).collect();
    let target = format!("/{}", "t".repeat(7000));
    let mut client =
        Client::request(&proxy, format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"));
    let request = bridge.accept_request();
    assert_eq!(request.start, format!("GET {target} HTTP/1.1"));
    assert_eq!(request.field("x-98"), Some("x".repeat(70).as_str()));
    bridge.respond_to(&mut client, "ok");
}

#[test]
fn the_bounds_of_a_head_are_settings() {
    let proxy = Proxy::with("max-head 2k\nmax-fields 20\nmax-target 100\nunknown-host 404");
    let value = "x".repeat(3000);
    let target = "t".repeat(150);
    let many: String = (0..20).map(|number| format!("X-{number}: x\r\n")).collect();
    for (status, head) in [
        (414, format!("GET /{target} HTTP/1.1\r\nHost: a.test\r\n\r\n")),
        (431, format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {value}\r\n\r\n")),
        (431, format!("GET / HTTP/1.1\r\nHost: a.test\r\n{many}\r\n")),
    ] {
        assert_eq!(not_refused(&proxy, status, head.as_bytes()), None);
    }
}

/// Bodies whose chunks are not what RFC 9112, section 7.1 allows.
const BAD_CHUNKS: &[&str] = &[
    "x\r\nabc\r\n0\r\n\r\n",
    "-3\r\nabc\r\n0\r\n\r\n",
    "+3\r\nabc\r\n0\r\n\r\n",
    "0x3\r\nabc\r\n0\r\n\r\n",
    " 3\r\nabc\r\n0\r\n\r\n",
    "3 3\r\nabc\r\n0\r\n\r\n",
    "3 \nabc\r\n0\r\n\r\n",
    "\r\nabc\r\n0\r\n\r\n",
    "3\nabc\n0\n\n",
    "3\rabc\r\n0\r\n\r\n",
    "3\r\nabcd\r\n0\r\n\r\n",
    "3\r\nabc0\r\n\r\n",
    "10000000000000000\r\nabc",
    "fffffffffffffffff\r\nabc",
    "3;x=\u{1}\r\nabc\r\n0\r\n\r\n",
    "3;x=\ny\r\nabc\r\n0\r\n\r\n",
    "0\r\nContent-Length: 3\r\n\r\n",
    "0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "0\r\nHost: b.test\r\n\r\n",
    "0\r\nX-Real-IP: 10.0.0.1\r\n\r\n",
    "0\r\nIf-Match: x\r\n\r\n",
    "0\r\nVia: x\r\n\r\n",
    "0\r\nProxy: x\r\n\r\n",
    "0\r\nRange: bytes=0-1\r\n\r\n",
    "0\r\nX : y\r\n\r\n",
    "0\r\nX: y\r\n folded\r\n\r\n",
    "0\r\n: y\r\n\r\n",
    "0\r\nX: \0\r\n\r\n",
];

#[test]
fn a_body_with_bad_chunks_is_refused_and_never_ends_for_the_backend() {
    let proxy = Proxy::start();
    for chunks in BAD_CHUNKS {
        let mut bridge = Bridge::park(&proxy, &["a.test"]);
        let mut client = Client::request(
            &proxy,
            "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        client.send(chunks);
        // It may be refused before a backend is asked, or in the middle.
        eventually(chunks, || bridge.has_bytes() || client.has_bytes());
        let asked = bridge.has_bytes();
        if asked {
            bridge.acknowledge();
        }
        let answer = client.read_response();
        assert_eq!(answer.status(), 400, "{chunks:?}: {answer:?}");
        client.expect_closed();
        if asked {
            let (seen, _) = bridge.read_to_end();
            assert!(!ends_a_body(&seen), "{chunks:?} became {}", shown(&seen));
        } else {
            bridge.assert_untouched(&proxy, "a.test");
        }
        // It must not be asked next.
        drop(bridge);
        proxy.await_no_bridges();
    }
}

/// Whether a chunked body in `bytes` comes to its end.
fn ends_a_body(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    body.starts_with("0\r\n") && body.ends_with("\r\n\r\n") || body.ends_with("\r\n0\r\n\r\n")
}

/// What a client hides behind a body must be read as a request of its own, or not at all.
#[test]
fn request_behind_a_refused_one_is_not_read() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["*"]);
    let mut client = Client::request(
        &proxy,
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
         0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n",
    );
    client.read_response().assert_own_reply(400);
    client.expect_closed();
    bridge.assert_untouched(&proxy, "a.test");
}

#[test]
fn a_refusal_of_a_head_request_has_no_body() {
    let proxy = Proxy::with("unknown-host 404");
    let mut client =
        Client::request(&proxy, "HEAD / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    let refusal = client.read_head();
    assert_eq!(refusal.status(), 404);
    assert_ne!(refusal.field("content-length"), Some("0"), "{refusal:?}");
    client.expect_closed();
}

/// A client that goes on sending must still be able to read why it was refused: closing with bytes
/// unread would reset the connection.
#[test]
fn a_refusal_can_be_read_by_a_client_that_is_still_sending() {
    let proxy = Proxy::start();
    let mut client = Wire::connect(proxy.for_clients());
    client.send_if_open("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: +3\r\n\r\n");
    for _ in 0..64 {
        if !client.send_if_open([b'x'; 16 * 1024]) {
            break;
        }
    }
    let answer = client.read_head();
    assert_eq!(answer.status(), 400, "{answer:?}");
}
