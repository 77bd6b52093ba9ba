//! What a good request head is understood to say.

use super::*;
use crate::http::{Framing, MAX_FIELDS, Version, lower_host};

#[test]
fn plain_get_is_parsed() {
    let head = b"GET /a/b?c=d HTTP/1.1\r\nHost: App.Example.:8079\r\nAccept: */*\r\n\r\n";
    let mut bytes = head.to_vec();
    bytes.extend_from_slice(b"GET /next");
    good(&bytes, |r| {
        assert_eq!(r.method, "GET");
        assert_eq!(r.target, "/a/b?c=d");
        assert_eq!(r.path, "/a/b");
        assert_eq!(r.version, Version::V11);
        assert_eq!(r.authority, "App.Example.:8079");
        assert_eq!(r.host, "App.Example");
        assert_eq!(r.fields.len(), 2);
        assert_eq!(r.len, head.len());
        assert_eq!(r.framing, Framing::None);
        assert_eq!(r.origin_form(), ["", "/a/b?c=d"]);
        assert!(r.persistent && r.idempotent());
        assert!(!r.is_head() && !r.upgrade && !r.expect_continue && !r.connection_auth);
    });
}

/// Heads that are good, each with something a split could fall into.
pub(super) const GOOD: [&[u8]; 10] = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\n\r\nGET / HTTP/1.1\r\nHost:a\r\nX-Empty:\r\nX:  b \t\r\n\r\n",
    b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    b"PUT /p HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a.b\r\n\r\n",
    b"GET http://a.b:80/c?d HTTP/1.1\r\nHost: A.B\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"HEAD / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"get / HTTP/1.1\r\nHost: a\r\nCookie: a=\xff\xfe; b\r\nConnection: x-b, close\r\nX-B: 1\r\n\r\n",
];

#[test]
fn every_prefix_of_a_good_head_is_partial() {
    for head in GOOD {
        for end in 0..head.len() {
            assert_eq!(status_of(&head[..end]), 1, "{}", head[..end].escape_ascii());
        }
        assert_eq!(good(head, |r| r.len), head.len());
    }
}

#[test]
fn an_absolute_target_gives_the_authority() {
    good(b"GET HTTP://A.example:8080?q HTTP/1.1\r\nHost: a.EXAMPLE:8080\r\n\r\n", |r| {
        assert_eq!((r.authority, r.host, r.path), ("A.example:8080", "A.example", "/"));
        assert_eq!(r.origin_form(), ["/", "?q"]);
    });
    good(b"GET https://a/ HTTP/1.0\r\n\r\n", |r| assert_eq!((r.authority, r.host), ("a", "a")));
    good(b"GET https://a:443/ HTTP/1.1\r\nHost: a\r\n\r\n", |r| assert_eq!(r.authority, "a:443"));
    good(b"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", |r| {
        assert_eq!(r.origin_form(), ["", "*"]);
    });
}

#[test]
fn http_1_0_needs_no_host() {
    for head in [&b"GET / HTTP/1.0\r\n\r\n"[..], b"GET / HTTP/1.0\r\nHost:\r\n\r\n"] {
        good(head, |r| assert_eq!((r.version, r.authority, r.host), (Version::V10, "", "")));
    }
}

#[test]
fn an_behind_proxy_may_be_allowed_and_nothing_else_with_it() {
    let limits = Limits { behind_proxy: true, ..Limits::default() };
    for (good, fields) in [
        (true, "Host: \r\n"),
        (false, ""),
        (false, "Host:\r\nHost:\r\n"),
        (false, "Host: :80\r\n"),
        (false, "Host: a b\r\n"),
    ] {
        let head = format!("GET / HTTP/1.1\r\n{fields}\r\n");
        let mut storage = storage();
        let parsed = request::parse(head.as_bytes(), &mut storage, &limits);
        assert_eq!(parsed.is_ok_and(|r| r.is_some_and(|r| r.host.is_empty())), good, "{fields:?}");
    }
}

#[test]
fn bodies_are_framed_by_length_or_chunks() {
    let framing = |field: &str| {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
        good(head.as_bytes(), |r| r.framing)
    };
    assert_eq!(framing("Content-Length: 0"), Framing::Length(0));
    assert_eq!(framing("content-length:\t0042 "), Framing::Length(42));
    assert_eq!(framing("Content-Length: 9223372036854775807"), Framing::Length(i64::MAX as u64));
    assert_eq!(framing("Transfer-Encoding: Chunked"), Framing::Chunked);
    assert_eq!(framing("X: y"), Framing::None);
}

#[test]
fn the_connection_lives_as_version_and_options_say() {
    let persistent = |version: &str, value: &str| {
        let head = format!("GET / HTTP/{version}\r\nHost: a\r\nConnection: {value}\r\n\r\n");
        good(head.as_bytes(), |r| r.persistent)
    };
    assert!(persistent("1.1", ""));
    assert!(persistent("1.1", "Keep-Alive"));
    assert!(!persistent("1.1", "x ,\tCLOSE"));
    assert!(!persistent("1.1", "keep-alive, close"));
    assert!(!persistent("1.0", ""));
    assert!(persistent("1.0", "Keep-Alive"));
    assert!(!persistent("1.0", "keep-alive, close"));
    assert!(!good(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: close\r\n\r\n",
        |r| r.persistent
    ));
}

#[test]
fn a_client_waits_for_continue_only_with_a_body_and_http_1_1() {
    let waits = |version: &str, length: &str| {
        let head = format!(
            "POST / HTTP/{version}\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: {length}\r\n\r\n"
        );
        good(head.as_bytes(), |r| r.expect_continue)
    };
    assert!(waits("1.1", "1"));
    assert!(!waits("1.1", "0"));
    assert!(!waits("1.0", "1"));
}

#[test]
fn an_upgrade_is_an_offer_that_may_be_passed_on() {
    let upgrade = |head: &str| good(format!("{head}\r\n").as_bytes(), |r| r.upgrade);
    let get = "GET / HTTP/1.1\r\nHost: a\r\n";
    assert!(upgrade(&format!("{get}Connection: Upgrade\r\nUpgrade: websocket\r\n")));
    assert!(upgrade(&format!(
        "{get}Upgrade: a/1, b\r\nConnection: x, upgrade\r\nContent-Length: 0\r\n"
    )));
    // Nothing is offered, or Connection does not name it.
    assert!(!upgrade(&format!("{get}Connection: upgrade\r\n")));
    assert!(!upgrade(&format!("{get}Connection: upgrade\r\nUpgrade: ,\r\n")));
    assert!(!upgrade(&format!("{get}Upgrade: websocket\r\n")));
    // HTTP/2 would hide the requests that follow.
    assert!(!upgrade(&format!(
        "{get}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n"
    )));
    assert!(!upgrade(&format!("{get}Connection: upgrade\r\nUpgrade: websocket, H2C\r\n")));
    assert!(!upgrade(&format!(
        "{get}Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n"
    )));
    // With a body the tunnel begins behind it.
    assert!(upgrade(&format!(
        "{get}Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 29\r\n"
    )));
    assert!(upgrade(&format!(
        "{get}Connection: Upgrade\r\nUpgrade: tcp\r\nTransfer-Encoding: chunked\r\n"
    )));
    assert!(!upgrade("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"));
}

#[test]
fn an_empty_expectation_expects_nothing() {
    good(b"POST / HTTP/1.1\r\nHost: a\r\nExpect:\r\nContent-Length: 1\r\n\r\n", |r| {
        assert!(!r.expect_continue);
    });
}

#[test]
fn hops_are_counted_in_options_and_trace() {
    let hops = |method: &str, fields: &str| {
        let head = format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        good(head.as_bytes(), |r| r.max_forwards)
    };
    assert_eq!(hops("OPTIONS", "Max-Forwards: 0\r\n"), Some(0));
    assert_eq!(hops("TRACE", "max-forwards: 010\r\n"), Some(10));
    assert_eq!(hops("TRACE", "Max-Forwards: 3\r\nMax-Forwards: 2\r\n"), Some(2));
    assert_eq!(hops("OPTIONS", "Max-Forwards: 99999999999999999999\r\n"), Some(u32::MAX));
    assert_eq!(hops("OPTIONS", ""), None);
    assert_eq!(hops("GET", "Max-Forwards: x\r\n"), None);
    let limits = Limits { behind_proxy: true, ..Limits::default() };
    let mut storage = storage();
    let head = b"OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n";
    let counted = request::parse(head, &mut storage, &limits).unwrap().unwrap();
    assert_eq!(counted.max_forwards, None);
}

#[test]
fn credentials_that_bind_the_connection_are_seen() {
    let binds = |field: &str| {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
        good(head.as_bytes(), |r| r.connection_auth)
    };
    assert!(binds("Authorization: NTLM TlRMTVNTUAAB"));
    assert!(binds("authorization: negotiate YII"));
    assert!(binds("Proxy-Authorization: Negotiate"));
    assert!(!binds("Authorization: Basic bnRsbQ=="));
    assert!(!binds("Authorization: NTLMv9 x"));
}

#[test]
fn idempotent_methods_are_those_of_the_rfc() {
    for (method, idempotent) in [
        ("GET", true),
        ("HEAD", true),
        ("OPTIONS", true),
        ("TRACE", true),
        ("PUT", true),
        ("DELETE", true),
        ("POST", false),
        ("PATCH", false),
        ("get", false),
    ] {
        let head = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(good(head.as_bytes(), |r| r.idempotent()), idempotent, "{method}");
    }
    assert!(good(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", |r| r.is_head()));
}

#[test]
fn a_head_at_its_limit_is_taken_and_one_beyond_is_not() {
    let head = |len: usize| {
        let mut head = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
        head.resize(len - 4, b'x');
        head.extend_from_slice(b"\r\n\r\n");
        head
    };
    let limit = Limits::default().head;
    assert_eq!(status_of(&head(limit)), 0);
    assert_eq!(status_of(&head(limit)[..limit - 1]), 1);
    assert_eq!(status_of(&head(limit + 1)), 431);
    // It is known without the end.
    assert_eq!(status_of(&head(limit + 1)[..limit]), 431);
}

#[test]
fn fields_have_a_limit() {
    let head = |fields: usize| {
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(fields - 1))
    };
    assert_eq!(status_of(head(100).as_bytes()), 0);
    assert_eq!(status_of(head(101).as_bytes()), 431);
    assert_eq!(status_of(head(MAX_FIELDS + 1).as_bytes()), 431);
}

#[test]
fn head_with_max_fields_is_accepted() {
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(MAX_FIELDS - 1));
    let limits = Limits { fields: MAX_FIELDS, ..Limits::default() };
    let mut fields = storage();
    let request = request::parse(head.as_bytes(), &mut fields, &limits).unwrap().unwrap();
    assert_eq!(request.fields.len(), MAX_FIELDS);
}

#[test]
fn a_target_has_a_limit() {
    let limit = Limits::default().target;
    let head = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(len - 1));
    assert_eq!(status_of(head(limit).as_bytes()), 0);
    assert_eq!(status_of(head(limit + 1).as_bytes()), 414);
    // It is known without its end.
    assert_eq!(status_of(&head(limit + 1).as_bytes()[..4 + limit]), 1);
    assert_eq!(status_of(&head(limit + 1).as_bytes()[..4 + limit + 1]), 414);
}

#[test]
fn lower_case_host_is_not_copied() {
    let mut scratch = String::new();
    assert_eq!(lower_host("a.example", &mut scratch), "a.example");
    assert!(scratch.is_empty());
    assert_eq!(lower_host("A.eXample", &mut scratch), "a.example");
}

#[test]
fn debug_shows_no_field_values_and_no_query() {
    let shown =
        good(b"GET /p?token=hush HTTP/1.1\r\nHost: a\r\nAuthorization: Basic hush\r\n\r\n", |r| {
            format!("{r:?}")
        });
    assert!(shown.contains("/p") && !shown.contains("hush"), "{shown}");
}
