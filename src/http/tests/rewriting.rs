//! What is sent on, byte for byte.

use super::*;
use std::time::Duration;

use crate::http::rewrite::{self, Forwarded, ForwardedStyle, Toward, Via};
use crate::http::{Framing, RequestId, RequestStart, Stamp, Stamps, TimeUnit, Version};

fn via(forwarded: Forwarded) -> Via<'static> {
    Via::new("192.0.2.7".parse().unwrap(), forwarded)
}

#[track_caller]
fn sent_on(head: &str, forwarded: Forwarded) -> String {
    let mut out = Vec::new();
    good(head.as_bytes(), |r| rewrite::request(&mut out, r, &via(forwarded)));
    String::from_utf8(out).unwrap()
}

const OPEN: Toward = Toward { version: Version::V11, close: false, decode_chunked: false };

#[track_caller]
fn answered(head: &str, to_head: bool, toward: Toward) -> String {
    let mut out = Vec::new();
    let seen = with_response(head.as_bytes(), to_head, |r| rewrite::response(&mut out, r, &toward));
    assert_eq!(seen, Ok(Some(())));
    String::from_utf8(out).unwrap()
}

#[test]
fn host_comes_first_and_the_rest_as_it_came() {
    assert_eq!(
        sent_on(
            "GET /a?b HTTP/1.1\r\nUser-Agent: x\r\nhost: A.example:80\r\nAccept: */*\r\n\r\n",
            Forwarded::Off
        ),
        "GET /a?b HTTP/1.1\r\nHost: A.example:80\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n"
    );
}

#[test]
fn field_lines_are_normalised() {
    assert_eq!(
        sent_on(
            "GET / HTTP/1.1\r\nHost:a\r\nA:b\r\nC: d\r\nE:\r\nF: \r\nG:  h i \t\r\nJ:\tk\r\n\r\n",
            Forwarded::Off
        ),
        "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d\r\nE: \r\nF: \r\nG: h i\r\nJ: k\r\n\r\n"
    );
}

#[test]
fn targets_are_sent_in_origin_form_by_http_1_1() {
    for (from, to) in [
        ("GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n", "GET /b?c HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("GET http://a?c HTTP/1.1\r\nHost: a\r\n\r\n", "GET /?c HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("GET http://a HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("\r\nGET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: \r\n\r\n"),
    ] {
        assert_eq!(sent_on(from, Forwarded::Off), to);
    }
}

#[test]
fn connection_fields_are_removed() {
    let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, x-Trace, te\r\nKeep-Alive: 3\r\nX-TRACE: 1\r\n\
                A: b\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\nUpgrade: websocket\r\nx-trace: 2\r\n\
                HTTP2-Settings: A\r\nProxy: http://evil\r\nCloudbridge-Id: 1\r\nTrailer: T\r\n\
                Proxy-Authorization: Basic x\r\nTE: gzip\r\n\r\n";
    assert_eq!(
        sent_on(head, Forwarded::Off),
        "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nTrailer: T\r\nProxy-Authorization: Basic x\r\n\
         Connection: TE\r\nTE: trailers\r\n\r\n"
    );
}

#[test]
fn te_says_that_the_client_reads_trailers_and_nothing_else() {
    for (version, fields, told) in [
        ("1.1", "TE: deflate;q=0.5, Trailers\r\nConnection: TE\r\n", true),
        ("1.1", "TE: trailers\r\n", true),
        ("1.1", "TE: gzip, trailers;q=0\r\nTE:\r\n", false),
        ("1.0", "TE: trailers\r\n", false),
        // No trailer follows a tunnel.
        ("1.1", "TE: trailers\r\nConnection: upgrade\r\nUpgrade: x\r\n", false),
    ] {
        let head = format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        let sent = sent_on(&head, Forwarded::Off);
        assert_eq!(sent.contains("Connection: TE\r\nTE: trailers\r\n"), told, "{sent}");
        assert_eq!(sent.contains("TE:"), told, "{sent}");
    }
}

#[test]
fn max_forwards_is_counted_down() {
    assert_eq!(
        sent_on(
            "OPTIONS * HTTP/1.1\r\nHost: a\r\nmax-forwards: 10\r\nA: b\r\n\r\n",
            Forwarded::Off
        ),
        "OPTIONS * HTTP/1.1\r\nHost: a\r\nA: b\r\nMax-Forwards: 9\r\n\r\n"
    );
    let get = "GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 10\r\n\r\n";
    assert_eq!(sent_on(get, Forwarded::Off), get);
}

#[test]
fn connection_cannot_remove_proxy_or_framing_fields() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nX-Forwarded-For: 10.0.0.1\r\nCookie: c\r\n\
                X-Forwarded-Proto: https\r\nX-Forwarded-Host: h\r\nX-Real-IP: 10.0.0.1\r\nContent-Type: t\r\n\
                Connection: host, content-length, x-forwarded-for, cookie, x-real-ip, content-type\r\n\
                Connection: transfer-encoding, x-forwarded-proto, x-forwarded-host\r\n\r\n";
    assert_eq!(
        sent_on(head, Forwarded::Append),
        "POST / HTTP/1.1\r\nHost: a\r\nCookie: c\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: h\r\n\
         X-Real-IP: 10.0.0.1\r\nContent-Type: t\r\nContent-Length: 3\r\n\
         X-Forwarded-For: 10.0.0.1, 192.0.2.7\r\n\r\n"
    );
}

#[test]
fn framing_is_generated() {
    assert_eq!(
        sent_on(
            "POST / HTTP/1.1\r\nHost: a\r\ncontent-length:0010\r\nA: b\r\n\r\n",
            Forwarded::Off
        ),
        "POST / HTTP/1.1\r\nHost: a\r\nA: b\r\nContent-Length: 10\r\n\r\n"
    );
    assert_eq!(
        sent_on("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n", Forwarded::Off),
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    assert_eq!(
        sent_on(
            "POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 7\r\nTransfer_Encoding: x\r\n\r\n",
            Forwarded::Off
        ),
        "POST / HTTP/1.1\r\nHost: a\r\n\r\n"
    );
}

#[test]
fn an_upgrade_is_passed_on_and_h2c_is_not() {
    assert_eq!(
        sent_on(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade, X-A\r\nX-A: b\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\n\r\n",
            Forwarded::Off
        ),
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nConnection: upgrade\r\n\r\n"
    );
    assert_eq!(
        sent_on(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n\r\n",
            Forwarded::Off
        ),
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    );
}

#[test]
fn an_expectation_is_passed_on_once_and_not_for_http_1_0() {
    assert_eq!(
        sent_on(
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nexpect: 100-Continue\r\nContent-Length: 1\r\n\r\n",
            Forwarded::Off
        ),
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
    );
    assert_eq!(
        sent_on(
            "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
            Forwarded::Off
        ),
        "POST / HTTP/1.1\r\nHost: \r\nContent-Length: 1\r\n\r\n"
    );
}

#[test]
fn the_client_is_named() {
    let bare = "GET / HTTP/1.1\r\nHost: a:80\r\n\r\n";
    let named = "GET / HTTP/1.1\r\nHost: a:80\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n\
                 X-Forwarded-Host: a:80\r\n\r\n";
    assert_eq!(sent_on(bare, Forwarded::Append), named);
    assert_eq!(sent_on(bare, Forwarded::Replace), named);
    assert_eq!(
        sent_on("GET / HTTP/1.0\r\n\r\n", Forwarded::Append),
        "GET / HTTP/1.1\r\nHost: \r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n\r\n"
    );
}

const TOLD: &str = "GET / HTTP/1.1\r\nHost: a\r\nx-forwarded-for: 10.0.0.1\r\nA: b\r\nX-Forwarded-For:\r\n\
                    X-Forwarded-For: 10.0.0.2, 10.0.0.3\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: h\r\n\
                    Forwarded: for=10.0.0.1\r\nX-Real-IP: 10.0.0.1\r\nX-Forwarded-Port: 443\r\n\
                    X_Forwarded_For: 10.0.0.9\r\n\r\n";

#[test]
fn append_keeps_forwarded_fields_and_adds_the_client() {
    assert_eq!(
        sent_on(TOLD, Forwarded::Append),
        "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: h\r\n\
         Forwarded: for=10.0.0.1\r\nX-Real-IP: 10.0.0.1\r\nX-Forwarded-Port: 443\r\n\
         X-Forwarded-For: 10.0.0.1, 10.0.0.2, 10.0.0.3, 192.0.2.7\r\n\r\n"
    );
}

#[test]
fn replace_removes_forwarded_fields() {
    assert_eq!(
        sent_on(TOLD, Forwarded::Replace),
        "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n\
         X-Forwarded-Host: a\r\n\r\n"
    );
}

#[test]
fn off_changes_nothing() {
    assert_eq!(
        sent_on(TOLD, Forwarded::Off),
        "GET / HTTP/1.1\r\nHost: a\r\nx-forwarded-for: 10.0.0.1\r\nA: b\r\nX-Forwarded-For: \r\n\
         X-Forwarded-For: 10.0.0.2, 10.0.0.3\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: h\r\n\
         Forwarded: for=10.0.0.1\r\nX-Real-IP: 10.0.0.1\r\nX-Forwarded-Port: 443\r\n\r\n"
    );
}

#[track_caller]
fn sent_by(head: &str, via: &Via<'_>) -> String {
    let mut out = Vec::new();
    good(head.as_bytes(), |r| rewrite::request(&mut out, r, via));
    String::from_utf8(out).unwrap()
}

#[test]
fn the_client_is_named_as_rfc_7239_says() {
    let bare = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let rfc = Via { style: ForwardedStyle::Rfc7239, ..via(Forwarded::Append) };
    assert_eq!(
        sent_by(bare, &rfc),
        "GET / HTTP/1.1\r\nHost: a.test\r\nForwarded: for=192.0.2.7;host=a.test;proto=http\r\n\r\n"
    );
    let six = Via { client: "2001:db8::7".parse().unwrap(), ..rfc };
    assert_eq!(
        sent_by("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", &six),
        "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\
         Forwarded: for=\"[2001:db8::7]\";host=\"[::1]:80\";proto=http\r\n\r\n"
    );
    assert_eq!(
        sent_by("GET / HTTP/1.0\r\n\r\n", &Via { forwarded: Forwarded::Replace, ..rfc }),
        "GET / HTTP/1.1\r\nHost: \r\nForwarded: for=192.0.2.7;proto=http\r\n\r\n"
    );
    assert_eq!(
        sent_by(bare, &Via { style: ForwardedStyle::Both, ..rfc }),
        "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n\
         X-Forwarded-Host: a.test\r\nForwarded: for=192.0.2.7;host=a.test;proto=http\r\n\r\n"
    );
}

#[test]
fn rfc_7239_appends_and_replaces_as_the_others() {
    let rfc = Via { style: ForwardedStyle::Rfc7239, ..via(Forwarded::Append) };
    assert_eq!(
        sent_by(TOLD, &rfc),
        "GET / HTTP/1.1\r\nHost: a\r\nx-forwarded-for: 10.0.0.1\r\nA: b\r\nX-Forwarded-For: \r\n\
         X-Forwarded-For: 10.0.0.2, 10.0.0.3\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: h\r\n\
         X-Real-IP: 10.0.0.1\r\nX-Forwarded-Port: 443\r\n\
         Forwarded: for=10.0.0.1, for=192.0.2.7;host=a;proto=http\r\n\r\n"
    );
    assert_eq!(
        sent_by(TOLD, &Via { forwarded: Forwarded::Replace, ..rfc }),
        "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nForwarded: for=192.0.2.7;host=a;proto=http\r\n\r\n"
    );
    let off = Via { style: ForwardedStyle::Both, ..via(Forwarded::Off) };
    assert_eq!(sent_by(TOLD, &off), sent_on(TOLD, Forwarded::Off));
}

#[test]
fn marks_are_passed_on_removed_or_set() {
    let head = "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Start: t=1\r\nx-request-id: theirs\r\n\
                traceparent: 00-a-b-01\r\nConnection: x-request-id, x-request-start\r\n\r\n";
    let off = |stamps| sent_by(head, &Via { stamps, ..via(Forwarded::Off) });
    let with = |start: &str, id: &str| {
        format!("GET / HTTP/1.1\r\nHost: a\r\n{start}{id}traceparent: 00-a-b-01\r\n")
    };
    let (start, id) = ("X-Request-Start: t=1\r\n", "x-request-id: theirs\r\n");
    assert_eq!(off(Stamps::PASS), with(start, id) + "\r\n");
    assert_eq!(off(Stamps::REMOVE), with("", "") + "\r\n");
    let at = RequestStart::new(Duration::from_millis(1_700_000_000_007), TimeUnit::Seconds);
    let our_start = "X-Request-Start: t=1700000000.007\r\n";
    let our_id = "X-Request-Id: 0000000000000001000000000000002a\r\n";
    let ours = Stamps { start: Stamp::Set(at), id: Stamp::Set(RequestId::new([1, 42])) };
    assert_eq!(off(ours), with("", "") + our_start + our_id + "\r\n");
    assert_eq!(off(Stamps { id: Stamp::Pass, ..ours }), with("", id) + our_start + "\r\n");
    assert_eq!(off(Stamps { start: Stamp::Pass, ..ours }), with(start, "") + our_id + "\r\n");
}

#[test]
fn an_id_of_another_proxy_is_one_bounded_visible_word() {
    let long = "a".repeat(129);
    for (fields, id) in [
        ("", None),
        ("X-Request-Id: 7b0f-\"~!\r\n", Some("7b0f-\"~!")),
        ("X-Request-Id: a b\r\n", None),
        ("X-Request-Id: \r\n", None),
        ("X-Request-Id: a\r\nX-Request-Id: a\r\n", None),
        (&format!("X-Request-Id: {long}\r\n"), None),
        (&format!("X-Request-Id: {}\r\n", &long[1..]), Some(&long[1..])),
        ("X-Request-Id: \u{e9}\r\n", None),
        ("X_Request_Id: a\r\n", None),
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        good(head.as_bytes(), |r| assert_eq!(r.id(), id, "{fields}"));
    }
}

/// Whatever the client has sent: the agent takes the address that the proxy has written.
#[test]
fn the_last_address_is_the_one_that_was_written_here() {
    let lies = "GET / HTTP/1.1\r\nHost: a\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-For: 6.6.6.6\r\n\
                Forwarded: for=\"x, for=6.6.6.6\r\n\r\n";
    for client in ["192.0.2.7", "2001:db8::7"] {
        let client = client.parse().unwrap();
        for style in [ForwardedStyle::X, ForwardedStyle::Rfc7239, ForwardedStyle::Both] {
            for forwarded in [Forwarded::Append, Forwarded::Replace] {
                let sent = sent_by(lies, &Via { style, ..Via::new(client, forwarded) });
                good(sent.as_bytes(), |r| assert_eq!(r.last_forwarded(), Some(client), "{sent}"));
            }
        }
    }
    for bare in
        ["", "X-Forwarded-For: unknown\r\n", "Forwarded: for=_hidden\r\n", "Forwarded: by=a\r\n"]
    {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{bare}\r\n");
        good(head.as_bytes(), |r| assert_eq!(r.last_forwarded(), None, "{bare}"));
    }
}

#[test]
fn rewritten_head_is_appended_without_reallocation() {
    let head = b"GET / HTTP/1.1\r\nHost: a.example\r\nA:b\r\n\r\n";
    let mut out = b"before".to_vec();
    good(head, |r| {
        let client = "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap();
        let longest = Via { proto: "https", ..Via::new(client, Forwarded::Append) };
        rewrite::request(&mut out, r, &longest);
    });
    assert!(out.starts_with(b"beforeGET / HTTP/1.1\r\n"));
    assert!(out.len() <= head.len() + 2 * "a.example".len() + 192);
}

#[test]
fn response_is_passed_on_without_connection_fields() {
    let head = "HTTP/1.0 200 Fine\r\nServer: s\r\nConnection: Keep-Alive, X-A\r\nKeep-Alive: timeout=5\r\nX-A: 1\r\n\
                content-length: 5\r\nSet-Cookie:a\r\nCloudbridge-Id: 1\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(
        answered(head, false, OPEN),
        "HTTP/1.1 200 Fine\r\nServer: s\r\nSet-Cookie: a\r\nContent-Length: 5\r\n\r\n"
    );
}

#[test]
fn a_reason_phrase_is_always_there() {
    assert_eq!(
        answered("HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", false, OPEN),
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    );
    assert_eq!(
        answered("HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n", false, OPEN),
        "HTTP/1.1 299 Unknown\r\nContent-Length: 0\r\n\r\n"
    );
}

#[test]
fn the_client_is_told_whether_its_connection_stays() {
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let told = |version, close| {
        let toward = Toward { version, close, decode_chunked: false };
        answered(head, false, toward)
    };
    let same = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n";
    assert_eq!(told(Version::V11, false), format!("{same}\r\n"));
    assert_eq!(told(Version::V11, true), format!("{same}Connection: close\r\n\r\n"));
    assert_eq!(told(Version::V10, false), format!("{same}Connection: keep-alive\r\n\r\n"));
    assert_eq!(told(Version::V10, true), format!("{same}Connection: close\r\n\r\n"));
}

#[test]
fn http_1_0_client_gets_no_chunks() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n";
    assert_eq!(
        answered(head, false, OPEN),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let old = Toward { version: Version::V10, close: false, decode_chunked: true };
    assert_eq!(answered(head, false, old), "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
}

#[test]
fn head_and_304_keep_their_framing_fields() {
    for framing in ["content-length: 010", "Transfer-Encoding: chunked"] {
        let head = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n");
        assert_eq!(answered(&head, true, OPEN), head);
        let unchanged = format!("HTTP/1.1 304 Not Modified\r\n{framing}\r\n\r\n");
        assert_eq!(answered(&unchanged, false, OPEN), unchanged);
        // RFC 9112, section 6.1, and RFC 9110, section 8.6: these must not have it.
        let none = format!("HTTP/1.1 204 No Content\r\n{framing}\r\n\r\n");
        assert_eq!(answered(&none, false, OPEN), "HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(answered(&none, true, OPEN), "HTTP/1.1 204 No Content\r\n\r\n");
    }
    let old = Toward { version: Version::V10, close: true, decode_chunked: false };
    assert_eq!(
        answered("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true, old),
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    );
}

/// A client could take the wrong one of two, and needs neither.
#[test]
fn repeated_length_is_left_out_where_no_body_follows() {
    for repeated in
        ["Content-Length: 5\r\nA: b\r\nContent-Length: 5", "Content-Length: 5, 5\r\nA: b"]
    {
        let head = format!("HTTP/1.1 200 OK\r\n{repeated}\r\n\r\n");
        assert_eq!(answered(&head, true, OPEN), "HTTP/1.1 200 OK\r\nA: b\r\n\r\n");
    }
}

#[test]
fn interim_responses_get_no_connection_field() {
    let closing = Toward { close: true, ..OPEN };
    assert_eq!(
        answered(
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: close\r\n\r\n",
            false,
            closing
        ),
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    );
}

#[test]
fn a_protocol_change_is_passed_on() {
    assert_eq!(
        answered(
            "HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\nA: b\r\n\r\n",
            false,
            OPEN
        ),
        "HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nA: b\r\nConnection: upgrade\r\n\r\n"
    );
    assert_eq!(
        answered(
            "HTTP/1.1 426 Upgrade\r\nUpgrade: a/1\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n",
            false,
            Toward { close: true, ..OPEN }
        ),
        "HTTP/1.1 426 Upgrade\r\nUpgrade: a/1\r\nContent-Length: 0\r\nConnection: close, upgrade\r\n\r\n"
    );
}

/// What was understood is what the next reader understands.
#[test]
fn rewritten_head_parses_the_same() {
    for head in super::requests::GOOD {
        let mut out = Vec::new();
        let (method, host, path, framing) = good(head, |r| {
            rewrite::request(&mut out, r, &via(Forwarded::Append));
            (r.method.to_owned(), r.host.to_owned(), r.path.to_owned(), r.framing)
        });
        if host.is_empty() {
            continue;
        }
        good(&out, |r| {
            assert_eq!((r.method, r.host, r.path), (&method[..], &host[..], &path[..]));
            assert_eq!((r.framing, r.len), (framing, out.len()));
        });
    }
    for head in super::responses::GOOD {
        let mut out = Vec::new();
        let framing = answer(head, |r| {
            rewrite::response(&mut out, r, &OPEN);
            r.framing
        });
        assert_eq!(answer(&out, |r| (r.framing, r.len)), (framing, out.len()));
        assert_ne!(framing, Framing::Length(0));
    }
}

#[test]
fn a_cookie_of_the_proxy_is_not_passed_on() {
    let head = "GET / HTTP/1.1\r\nHost: h\r\nCookie: a=1; own=x; b=2\r\nX: y\r\nCOOKIE:own=z\r\n\
                Cookie: c=3\r\nCookie: own\r\n\r\n";
    let hiding = |name| sent_by(head, &Via { hides: Some(name), ..via(Forwarded::Off) });
    assert_eq!(
        hiding("own"),
        "GET / HTTP/1.1\r\nHost: h\r\nX: y\r\nCookie: c=3\r\nCookie: a=1; b=2\r\n\r\n"
    );
    assert_eq!(hiding("ow"), sent_by(head, &via(Forwarded::Off)));
}
