//! What response heads are understood to say, and which are refused.

use super::*;
use crate::http::{Framing, Version};

#[test]
fn plain_response_is_parsed() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nKeep-Alive: timeout=15, max=100\r\n\r\n";
    let mut bytes = head.to_vec();
    bytes.extend_from_slice(b"hello");
    answer(&bytes, |r| {
        assert_eq!((r.status, r.reason, r.version), (200, "OK", Version::V11));
        assert_eq!(r.len, head.len());
        assert_eq!(r.framing, Framing::Length(5));
        assert_eq!(r.keep_alive_timeout, Some(15));
        assert!(r.persistent && !r.connection_auth && !r.upgrade);
    });
}

pub(super) const GOOD: [&[u8]; 6] = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 200 \r\nTransfer-Encoding:chunked\r\n\r\n",
    b"HTTP/1.0 404\r\nX-Empty:\r\nX:  b \r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 200 \xe9\xe9\r\nSet-Cookie: \xff\r\n\r\n",
];

#[test]
fn every_prefix_of_a_good_head_is_partial() {
    for head in GOOD {
        for end in 0..head.len() {
            let seen = with_response(&head[..end], false, |_| ());
            assert_eq!(seen, Ok(None), "{}", head[..end].escape_ascii());
        }
        assert_eq!(answer(head, |r| r.len), head.len());
    }
}

#[test]
fn a_reason_phrase_may_be_missing() {
    assert_eq!(answer(b"HTTP/1.1 200\r\n\r\n", |r| r.reason.len()), 0);
    assert_eq!(answer(b"HTTP/1.1 200 \r\n\r\n", |r| r.reason.len()), 0);
    assert!(answer(b"HTTP/1.1 404 No Such Thing\r\n\r\n", |r| r.reason == "No Such Thing"));
}

/// RFC 9110, section 15: recipients treat one above 599 as a 5xx.
#[test]
fn status_may_be_any_of_three_digits_from_100_on() {
    for status in [100, 299, 599, 600, 999] {
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(answer(head.as_bytes(), |r| r.status), status);
    }
}

#[test]
fn bodies_are_framed_as_the_rfc_says() {
    for (head, to_head, framing) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"[..], false, Framing::Length(5)),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, Framing::Chunked),
        (b"HTTP/1.1 200 OK\r\n\r\n", false, Framing::UntilClose),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, Framing::None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true, Framing::None),
        (b"HTTP/1.1 200 OK\r\n\r\n", true, Framing::None),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", false, Framing::None),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false, Framing::None),
        (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", false, Framing::None),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", false, Framing::None),
        (b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", false, Framing::Length(0)),
        (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, Framing::Chunked),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 05\r\n\r\n", false, Framing::Length(5)),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\ncontent-length: 5\r\n\r\n",
            false,
            Framing::Length(5),
        ),
    ] {
        let seen = with_response(head, to_head, |r| r.framing);
        assert_eq!(seen, Ok(Some(framing)), "{}", head.escape_ascii());
    }
}

#[test]
fn the_bridge_lives_as_version_options_and_framing_say() {
    for (head, persistent) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"[..], true),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", false),
        (b"HTTP/1.1 200 OK\r\n\r\n", false),
        (b"HTTP/1.1 204 No Content\r\n\r\n", true),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n", true),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\n", false),
        // RFC 9112, section 6.1.
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nTransfer-Encoding: chunked\r\n\r\n", false),
    ] {
        assert_eq!(answer(head, |r| r.persistent), persistent, "{}", head.escape_ascii());
    }
}

#[test]
fn the_idle_time_of_a_backend_is_read_and_junk_ignored() {
    let timeout = |value: &str| {
        let head = format!("HTTP/1.1 204 N\r\nKeep-Alive: {value}\r\n\r\n");
        answer(head.as_bytes(), |r| r.keep_alive_timeout)
    };
    assert_eq!(timeout("timeout=5"), Some(5));
    assert_eq!(timeout("max=9,\tTimeout=0"), Some(0));
    for junk in [
        "",
        "timeout",
        "timeout=",
        "timeout=x",
        "timeout=-1",
        "timeout=99999999999",
        "xtimeout=5",
        "300",
    ] {
        assert_eq!(timeout(junk), None, "{junk}");
    }
}

#[test]
fn challenges_that_bind_the_connection_are_seen() {
    let binds = |field: &str| {
        let head = format!("HTTP/1.1 401 U\r\nContent-Length: 0\r\n{field}\r\n\r\n");
        answer(head.as_bytes(), |r| r.connection_auth)
    };
    assert!(binds("WWW-Authenticate: Negotiate"));
    assert!(binds("WWW-Authenticate: Basic realm=\"x\"\r\nwww-authenticate: NTLM"));
    assert!(binds("WWW-Authenticate: Basic realm=\"x\", NTLM"));
    assert!(binds("Proxy-Authenticate: ntlm TlRM"));
    assert!(!binds("WWW-Authenticate: Basic realm=\"ntlm\""));
}

#[test]
fn undelivered_is_only_read_from_5xx() {
    let undelivered = |head: &[u8]| answer(head, |r| r.undelivered);
    for head in [
        &b"HTTP/1.1 503 No\r\nCloudbridge-Undelivered: application\r\nContent-Length: 0\r\n\r\n"[..],
        b"HTTP/1.1 500 No\r\ncloudbridge-undelivered:x\r\nContent-Length: 0\r\n\r\n",
    ] {
        assert!(undelivered(head));
    }
    for head in [
        &b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"[..],
        b"HTTP/1.1 503 No\r\nCloudbridge-Undelivered:\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 No\r\nCloudbridge_Undelivered: x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 No\r\nCloudbridge-Undelivered: x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nCloudbridge-Undelivered: x\r\nContent-Length: 0\r\n\r\n",
    ] {
        assert!(!undelivered(head));
    }
}

#[test]
fn a_protocol_change_names_the_protocol() {
    for (head, upgrade) in [
        (&b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"[..], true),
        (b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n", false),
        (b"HTTP/1.1 101 S\r\nConnection: upgrade\r\n\r\n", false),
        (b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", false),
        (b"HTTP/1.0 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", false),
        (b"HTTP/1.1 200 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", false),
    ] {
        assert_eq!(answer(head, |r| r.upgrade), upgrade, "{}", head.escape_ascii());
    }
}

const HOSTILE: &[&[u8]] = &[
    b"\r\nHTTP/1.1 200 OK\r\n\r\n",
    b"\nHTTP/1.1 200 OK\r\n\r\n",
    b"<html>",
    b"\0",
    b"HTTPS/1.1 200 OK\r\n\r\n",
    b"HTTP/2 200 OK\r\n\r\n",
    b"HTTP/1.2 200 OK\r\n\r\n",
    b"http/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1  200 OK\r\n\r\n",
    b"HTTP/1.1\t200 OK\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n",
    b"HTTP/1.1 +20 OK\r\n\r\n",
    b"HTTP/1.1 099 OK\r\n\r\n",
    b"HTTP/1.1 000 OK\r\n\r\n",
    b"HTTP/1.1 200 O\0K\r\n\r\n",
    b"HTTP/1.1 200 O\x1bK\r\n\r\n",
    b"HTTP/1.1 200 OK\rX\r\n\r\n",
    b"HTTP/1.1 200 OK\n\r\n",
    b"HTTP/1.1 200\n\r\n",
    b"HTTP/1.1 200 OK\r\n\n",
    b"HTTP/1.1 200 OK\r\nA: b\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5, 50\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5,\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5 5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
    b"HTTP/1.1 304 N\r\nContent-Length: x\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
];

#[test]
fn bad_responses_are_a_bad_gateway() {
    for head in HOSTILE {
        let status = with_response(head, false, |_| ()).map_err(|bad| bad.status);
        assert_eq!(status, Err(502), "{}", head.escape_ascii());
    }
}

#[test]
fn a_response_head_has_limits() {
    let limits = Limits { head: 64, fields: 2, ..Limits::default() };
    let status = |bytes: &[u8]| {
        let mut fields = storage();
        response::parse(bytes, &mut fields, &limits, false)
            .map(|whole| whole.is_some())
            .map_err(|bad| bad.status)
    };
    assert_eq!(status(b"HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\n\r\n"), Ok(true));
    assert_eq!(status(b"HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\nE: f\r\n\r\n"), Err(502));
    let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "b".repeat(64 - 24));
    assert_eq!(long.len(), 64);
    assert_eq!(status(long.as_bytes()), Ok(true));
    assert_eq!(status(&long.as_bytes()[..63]), Ok(false));
    let longer = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "b".repeat(65 - 24));
    assert_eq!(status(longer.as_bytes()), Err(502));
    assert_eq!(status(&longer.as_bytes()[..64]), Err(502));
}

#[test]
fn debug_shows_no_field_values() {
    let shown = answer(b"HTTP/1.1 204 N\r\nSet-Cookie: hush\r\n\r\n", |r| format!("{r:?}"));
    assert!(shown.contains("204") && !shown.contains("hush"), "{shown}");
}
