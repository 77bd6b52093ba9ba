//! The BRIDGE request, rule by rule, as literal bytes.

use super::*;

const LIMITS: Limits =
    Limits { head: 16 * 1024, fields: MAX_FIELDS, target: 0, behind_proxy: false };

#[track_caller]
fn accepted(bytes: &[u8]) -> Registration {
    let registration = parse(bytes, &LIMITS).unwrap().expect("whole");
    assert_eq!(registration.len, bytes.len());
    for end in 0..bytes.len() {
        assert!(matches!(parse(&bytes[..end], &LIMITS), Ok(None)), "not partial at {end}");
    }
    registration
}

/// The refusal of these bytes; no prefix of them may be taken for a good or a different request.
#[track_caller]
fn refused(bytes: &[u8], status: u16, text: &str) {
    let refusal = parse(bytes, &LIMITS).expect_err("refused");
    assert_eq!((refusal.status, refusal.text.as_str()), (status, text));
    for end in 0..bytes.len() {
        match parse(&bytes[..end], &LIMITS) {
            Ok(None) => {}
            Err(early) => assert_eq!(early, refusal, "at {end}"),
            Ok(Some(whole)) => panic!("accepted at {end}: {whole:?}"),
        }
    }
}

/// The refusal of a request with this one field and a good Host before it.
#[track_caller]
fn refused_field(field: &str, status: u16, text: &str) {
    let head = format!("BRIDGE / HTTP/1.1\r\nHost: a.test\r\n{field}\r\n\r\n");
    refused(head.as_bytes(), status, text);
}

#[test]
fn the_documented_example() {
    let registration = accepted(
        b"BRIDGE /prefix HTTP/1.1\r\nExpect: 100-continue\r\nHost: a.example.com\r\n\
          Host: *.b.example.com\r\n\
          Host-Key: 329b002bbd6a5d2e601b877a37e651a0eccd0178:1000:b.com\r\n\r\n",
    );
    assert_eq!(registration.patterns, ["a.example.com", "*.b.example.com"]);
    assert_eq!(registration.prefix, "/prefix");
    assert_eq!(registration.keys.len(), 1);
    assert_eq!(registration.keys[0].name(), "b.com");
    assert!(!registration.forwarded);
}

#[test]
fn the_original_client_sends_no_expect() {
    let registration = accepted(b"BRIDGE / HTTP/1.1\r\nHost: *\r\n\r\n");
    assert_eq!(registration.patterns, ["*"]);
    assert_eq!(registration.prefix, "");
    assert!(registration.keys.is_empty());
}

#[test]
fn bytes_after_the_head_are_not_counted() {
    let bytes = b"BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\nHTTP/1.1 200 OK\r\n";
    let registration = parse(bytes, &LIMITS).unwrap().expect("whole");
    assert_eq!(registration.len, 35);
}

#[test]
fn hosts_are_lower_case_without_port_and_each_once() {
    let registration = accepted(
        b"BRIDGE / HTTP/1.1\r\nhost: B.test\r\nHOST: a.test:80\r\nHost: b.TEST:8080\r\n\
          Host: A.test.\r\n\r\n",
    );
    assert_eq!(registration.patterns, ["b.test", "a.test"]);
}

#[test]
fn a_prefix_has_no_slash_at_its_end() {
    for (target, prefix) in [
        ("/", ""),
        ("//", ""),
        ("/app", "/app"),
        ("/app/", "/app"),
        ("/App/v1", "/App/v1"),
        ("/a%20b", "/a%20b"),
        ("/~x;y=1", "/~x;y=1"),
    ] {
        let head = format!("BRIDGE {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(accepted(head.as_bytes()).prefix, prefix, "{target}");
    }
}

#[test]
fn prefix_must_be_a_path() {
    for target in ["*", "app", "http://a.test/app", "a.test:80", "/app?q", "/app#x", "/\u{fc}"] {
        let head = format!("BRIDGE {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        refused(head.as_bytes(), 400, "the target of a BRIDGE is a path, such as / or /app");
    }
}

#[test]
fn a_prefix_is_bounded() {
    let longest = format!("/{}", "x".repeat(MAX_PREFIX - 1));
    let head = format!("BRIDGE {longest} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(accepted(head.as_bytes()).prefix, longest);
    let head = format!("BRIDGE {longest}x HTTP/1.1\r\nHost: a.test\r\n\r\n");
    refused(head.as_bytes(), 414, "the path prefix is too long");
    let deepest = "/a".repeat(MAX_SEGMENTS);
    let head = |path: &str| format!("BRIDGE {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(accepted(head(&format!("{deepest}/")).as_bytes()).prefix, deepest);
    refused(
        head(&format!("{deepest}/a")).as_bytes(),
        414,
        "the path prefix has more than 16 segments",
    );
}

#[test]
fn no_host_is_404() {
    let text = "no Host: a BRIDGE names the hosts it serves";
    refused(b"BRIDGE / HTTP/1.1\r\n\r\n", 404, text);
    refused(b"BRIDGE / HTTP/1.1\r\nX-Host: a.test\r\n\r\n", 404, text);
}

#[test]
fn bad_host_is_400_and_quoted_escaped() {
    refused_field("Host:", 400, "bad Host '': the name is empty");
    refused_field(
        "Host: a.*.test",
        400,
        "bad Host 'a.*.test': '*' must be alone or the whole first label",
    );
    refused_field(
        "Host: a.test, b.test",
        400,
        "bad Host 'a.test, b.test': a host name has only letters, digits, '-', '_' and '.'",
    );
    refused_field(
        "Host: a.test:http",
        400,
        "bad Host 'a.test:http': the port is not a number up to 65535",
    );
    refused(
        b"BRIDGE / HTTP/1.1\r\nHost: \xff\"\t<b>\r\n\r\n",
        400,
        "bad Host '\\xff\\\"\\t<b>': a host name has only letters, digits, '-', '_' and '.'",
    );
    refused_field(
        &format!("Host: {}", "x".repeat(5000)),
        400,
        &format!("bad Host '{}...': the name is longer than 253 bytes", "x".repeat(64)),
    );
}

#[test]
fn a_body_is_501() {
    for field in ["Content-Length", "content-type", "Content-", "Transfer-Encoding"] {
        refused_field(
            &format!("{field}: 0"),
            501,
            &format!("a BRIDGE has no body: {field} is not supported"),
        );
    }
}

#[test]
fn a_condition_is_501_and_is_named() {
    refused_field("If-Cookie-Match: x", 501, "If-Cookie-Match is not supported");
    refused_field("if-match: *", 501, "if-match is not supported");
    refused_field(
        &format!("If-{}: x", "a".repeat(100)),
        501,
        &format!("If-{}... is not supported", "a".repeat(61)),
    );
}

#[test]
fn predicates_and_a_name_are_read() {
    let bridge = accepted(
        b"BRIDGE / HTTP/1.1\r\nHost: a.test\r\nIf-Header: X-A=b\r\nIf-Method: GET\r\n\
          Cloudbridge-Instance: web1/3000\r\n\r\n",
    );
    assert_eq!(bridge.predicates.to_string(), "If-Method: GET; If-Header: x-a=b");
    assert_eq!(bridge.instance.unwrap().as_str(), "web1/3000");
    refused_field("If-Path-Prefix: x", 400, "bad If-Path-Prefix: it is a path, such as /api");
    refused_field("If-Max-Body: 1\r\nIf-Max-Body: 1", 400, "bad If-Max-Body: it is given twice");
    let name = "bad Cloudbridge-Instance: it has 1 to 128 visible characters, and no blanks";
    refused_field("Cloudbridge-Instance:", 400, name);
    let twice = "Cloudbridge-Instance: a\r\nCloudbridge-Instance: a";
    refused_field(twice, 400, "Cloudbridge-Instance is given twice");
}

#[test]
fn an_expectation_other_than_continue_is_417() {
    accepted(b"BRIDGE / HTTP/1.1\r\nExpect: 100-Continue\r\nHost: a.test\r\n\r\n");
    let text = "only Expect: 100-continue is understood";
    refused_field("Expect: 200-ok", 417, text);
    refused_field("Expect:", 417, text);
}

#[test]
fn a_malformed_key_is_400_and_is_not_quoted() {
    refused_field("Host-Key: sesame", 400, "bad Host-Key: it is not hash:timestamp:name");
}

#[test]
fn forwarding_fields_are_noticed() {
    for field in [
        "X-Forwarded-For: 192.0.2.1",
        "x-forwarded-host: a.test",
        "X-Forwarded-Proto: https",
        "Forwarded: for=192.0.2.1",
        "via: 1.1 front",
        "X-Real-IP: 192.0.2.1",
    ] {
        let head = format!("BRIDGE / HTTP/1.1\r\nHost: a.test\r\n{field}\r\n\r\n");
        assert!(accepted(head.as_bytes()).forwarded, "{field}");
    }
}

#[test]
fn other_fields_mean_nothing() {
    let registration = accepted(
        b"BRIDGE / HTTP/1.1\r\nUser-Agent: x\r\nViable: y\r\nX-Forwarded: z\r\nIfs: 1\r\n\
          Contents: 2\r\nConnection: close\r\nHost: a.test\r\n\r\n",
    );
    assert!(!registration.forwarded);
    assert_eq!(registration.patterns, ["a.test"]);
}

#[test]
fn only_http_1_1_is_accepted() {
    let text = "a BRIDGE is an HTTP/1.1 request";
    refused(b"BRIDGE / HTTP/1.0\r\nHost: a.test\r\n\r\n", 505, text);
    refused(b"BRIDGE / HTTP/2.0\r\nHost: a.test\r\n\r\n", 505, text);
    refused(b"BRIDGE / HTTP/1.2\r\nHost: a.test\r\n\r\n", 505, text);
}

#[test]
fn junk_is_400() {
    for (bytes, why) in [
        (&b"BRIDGE / SPDY/1\r\n\r\n"[..], "invalid HTTP version"),
        (b"BRIDGE /\r\nHost: a.test\r\n\r\n", "invalid token"),
        (b"BRIDGE  / HTTP/1.1\r\nHost: a.test\r\n\r\n", "invalid token"),
        (b"BRIDGE / HTTP/1.1\rHost: a.test\r\n\r\n", "invalid new line"),
        (b"BRIDGE / HTTP/1.1\r\nHost : a.test\r\n\r\n", "invalid header name"),
        (b"BRIDGE / HTTP/1.1\r\nHost\r\n\r\n", "invalid header name"),
        (b"BRIDGE / HTTP/1.1\r\n: a.test\r\n\r\n", "invalid header name"),
        (b"BRIDGE / HTTP/1.1\r\n Host: a.test\r\n\r\n", "invalid header name"),
        (b"BRIDGE / HTTP/1.1\r\nHost: a\r\n .test\r\n\r\n", "invalid header name"),
        (b"BRIDGE / HTTP/1.1\r\nHost: a\0b\r\n\r\n", "invalid header value"),
        (b"BRIDGE / HTTP/1.1\r\nHost: a\rb\r\n\r\n", "invalid header value"),
        (b"BRIDGE / HTTP/1.1\r\nH\xfcst: a\r\n\r\n", "invalid header name"),
    ] {
        refused(bytes, 400, &format!("malformed BRIDGE request: {why}"));
    }
}

#[test]
fn bare_newline_is_refused() {
    let text = "lines end in CR LF";
    refused(b"BRIDGE / HTTP/1.1\nHost: a.test\r\n\r\n", 400, text);
    refused(b"BRIDGE / HTTP/1.1\r\nHost: a.test\n\r\n", 400, text);
    refused(b"BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\n", 400, text);
}

#[test]
fn another_method_is_not_for_this_parser() {
    let text = "not a BRIDGE request";
    refused(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, text);
    refused(b"bridge / HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, text);
    refused(b"BRIDGES / HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, text);
    refused(b"\r\nBRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, text);
}

#[test]
fn fields_are_counted() {
    let hosts = |n: usize| {
        let fields: String = (0..n).map(|i| format!("Host: h{i}.test\r\n")).collect();
        format!("BRIDGE / HTTP/1.1\r\n{fields}\r\n")
    };
    assert_eq!(accepted(hosts(100).as_bytes()).patterns.len(), 100);
    refused(hosts(101).as_bytes(), 431, "too many fields");
    let few = Limits { fields: 2, ..LIMITS };
    assert!(parse(hosts(2).as_bytes(), &few).is_ok());
    assert_eq!(parse(hosts(3).as_bytes(), &few).unwrap_err().status, 431);
    let many = Limits { fields: usize::MAX, ..LIMITS };
    assert_eq!(parse(hosts(101).as_bytes(), &many).unwrap_err().status, 431);
}

#[test]
fn the_head_is_bounded() {
    let bytes = b"BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let limit = |head| Limits { head, ..LIMITS };
    assert!(matches!(parse(bytes, &limit(bytes.len())), Ok(Some(_))));
    let refusal = parse(bytes, &limit(bytes.len() - 1)).unwrap_err();
    assert_eq!(refusal.status, 431);
    assert_eq!(refusal.text, "the BRIDGE request is too long");
    // Nor is an end waited for that can only come too late.
    assert!(matches!(parse(&bytes[..19], &limit(20)), Ok(None)));
    assert_eq!(parse(&bytes[..20], &limit(20)).unwrap_err(), refusal);
}

#[test]
fn the_method_is_recognised_byte_by_byte() {
    let head = b"BRIDGE / HTTP/1.1\r\n";
    for end in 0..=head.len() {
        let expected = (end >= METHOD.len()).then_some(true);
        assert_eq!(is_bridge(&head[..end]), expected, "at {end}");
    }
    for (bytes, at) in
        [(&b"GET /"[..], 1), (b"BREW /", 3), (b"BRIDGES", 7), (b"bridge ", 1), (b"\x16\x03\x01", 1)]
    {
        for end in 0..=bytes.len() {
            let expected = (end >= at).then_some(false);
            assert_eq!(is_bridge(&bytes[..end]), expected, "at {end}");
        }
    }
}

#[test]
fn debug_output_holds_no_hash() {
    let registration = accepted(
        b"BRIDGE / HTTP/1.1\r\nHost: b.com\r\n\
          Host-Key: 329b002bbd6a5d2e601b877a37e651a0eccd0178:1000:b.com\r\n\r\n",
    );
    assert!(!format!("{registration:?}").contains("329b002b"));
}

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn announcement_and_deregistration_are_read() {
    let registration = accepted(
        format!("BRIDGE / HTTP/1.1\r\nHost: a.test\r\ncloudbridge-backend: {TOKEN}\r\n\r\n")
            .as_bytes(),
    );
    assert_eq!(registration.backend, BackendToken::parse(TOKEN.as_bytes()));
    assert_eq!(registration.leave, None);
    let leave = accepted(
        format!(
            "BRIDGE / HTTP/1.1\r\nHost: a.test\r\nCloudbridge-Backend: {TOKEN}\r\n\
             Cloudbridge-Leave: {TOKEN}\r\n\r\n"
        )
        .as_bytes(),
    );
    assert_eq!(leave.leave, BackendToken::parse(TOKEN.as_bytes()));
    assert!(!format!("{leave:?}").contains("0123"));
}

#[test]
fn a_bad_token_is_refused_and_not_repeated() {
    refused_field(
        "Cloudbridge-Backend: 0123456789ABCDEF0123456789abcdef",
        400,
        "bad Cloudbridge-Backend: it is 32 lower-case hex digits",
    );
    refused_field(
        "Cloudbridge-Leave:",
        400,
        "bad Cloudbridge-Leave: it is 32 lower-case hex digits",
    );
    refused_field(
        &format!("Cloudbridge-Backend: {TOKEN}\r\nCloudbridge-Backend: {TOKEN}"),
        400,
        "Cloudbridge-Backend is given twice",
    );
    refused_field(
        &format!("Cloudbridge-Backend: {TOKEN}\r\nCloudbridge-Leave: {}", TOKEN.replace('0', "1")),
        400,
        "a backend cannot deregister another",
    );
}

#[test]
fn the_program_of_a_backend_is_kept_bounded_and_printable() {
    let agent = |fields: &str| {
        let text = format!("BRIDGE / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
        parse(text.as_bytes(), &Limits::default()).unwrap().unwrap().agent
    };
    assert_eq!(agent(""), None);
    assert_eq!(agent("User-Agent: \r\n"), None);
    assert_eq!(agent("user-agent: app/1.2 (x)\r\n").as_deref(), Some("app/1.2 (x)"));
    assert_eq!(agent("User-Agent: a\"\u{e9}\r\n").as_deref(), Some("a\\\"\\xc3\\xa9"));
    let long = format!("User-Agent: {}\r\n", "x".repeat(65));
    assert_eq!(agent(&long), Some(format!("{}...", "x".repeat(64))));
}

const NONCE: &str = "Cloudbridge-Nonce: 00112233445566778899aabbccddeeff";

#[test]
fn keys_are_named_and_proven_beside_a_nonce() {
    let named = accepted(
        format!(
            "BRIDGE / HTTP/1.1\r\nHost: b.com\r\nHost-Key: proof:1000:b.com\r\n{NONCE}\r\n\r\n"
        )
        .as_bytes(),
    );
    assert_eq!((named.named[0].name(), named.named[0].has_proof()), ("b.com", false));
    assert!(named.keys.is_empty() && named.digest.is_none() && named.nonce.is_some());
    let proof = "ab".repeat(32);
    let proven = accepted(
        format!(
            "BRIDGE / HTTP/1.1\r\nHost: b.com\r\nHost-Key: v2:proof-{proof}:1:2::b.com\r\n\
             {NONCE}\r\n\r\n"
        )
        .as_bytes(),
    );
    assert!(proven.named[0].has_proof() && proven.digest.is_some());
    assert!(!format!("{proven:?}").contains("abab"));
}

#[test]
fn malformed_nonces_and_proofs_are_400() {
    refused_field(
        "Cloudbridge-Nonce: 00",
        400,
        "bad Cloudbridge-Nonce: it is 32 lower-case hex digits",
    );
    refused_field(&format!("{NONCE}\r\n{NONCE}"), 400, "Cloudbridge-Nonce is given twice");
    refused_field(
        "Host-Key: proof:1:a",
        400,
        "a Host-Key without its hash comes with a Cloudbridge-Nonce",
    );
    refused_field(
        "Host-Key: proof-00:1:a",
        400,
        "bad Host-Key: the proof is not 64 hex digits in lower case",
    );
}
