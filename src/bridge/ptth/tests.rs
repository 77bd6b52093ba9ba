//! The PTTH request, rule by rule, as literal bytes.

use super::*;
use crate::bridge::BackendToken;
use crate::http::Limits;
use crate::http::request::{parse, storage};

/// What a request has whatever it asks for.
const FIELDS: &str = "Host: proxy.test\r\nConnection: upgrade\r\nUpgrade: ptth\r\n";
const ALPN_LINE: &str = "ALPN: http%2F1.1\r\n";

/// What `target` and `fields` register, or the refusal.
#[track_caller]
fn registered(target: &str, fields: &str) -> Result<Registration, Refusal> {
    asked(&format!("GET {target} HTTP/1.1\r\n{FIELDS}{fields}\r\n")).expect("it asks for it")
}

/// `None` if it is an ordinary request.
#[track_caller]
fn asked(text: &str) -> Option<Result<Registration, Refusal>> {
    let mut storage = storage();
    let request = parse(text.as_bytes(), &mut storage, &Limits::default()).unwrap().expect("whole");
    is_one(&request).then(|| read(&request))
}

/// Prefix and hosts.
#[track_caller]
fn served(target: &str, fields: &str) -> (String, Vec<String>) {
    let registration = registered(target, &format!("{ALPN_LINE}{fields}")).unwrap();
    (registration.prefix, registration.patterns)
}

#[track_caller]
fn refused(target: &str, fields: &str, status: u16, text: &str) {
    let refusal = registered(target, fields).expect_err(target);
    assert_eq!((refusal.status, refusal.text.as_str()), (status, text), "{target} {fields}");
}

fn hosts(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// The first is the draft's own example, but for the protocols.
#[test]
fn origins_are_the_hosts() {
    for (target, names) in [
        ("/.well-known/ptth/https%3A%2F%2Fbackend.example.com/", &["backend.example.com"][..]),
        (
            "/.well-known/ptth/https%3A%2F%2Fbackend.example.com,https%3A%2F%2Fapi.example.com%3A8443/",
            &["backend.example.com", "api.example.com"],
        ),
        ("/.well-known/ptth/http%3a%2f%2fA.test", &["a.test"]),
        ("/.well-known/ptth/https:%2F%2Fa.test,http:%2F%2Fa.test:80/", &["a.test"]),
        ("/.well-known/ptth/https%3A%2F%2F%5B2001:db8::1%5D%3A443/", &["[2001:db8::1]"]),
        ("http://proxy.test/.well-known/ptth/https%3A%2F%2Fa.test/", &["a.test"]),
    ] {
        assert_eq!(served(target, ""), (String::new(), hosts(names)), "{target}");
    }
}

#[test]
fn bad_origins_are_refused() {
    let scheme = "it does not begin with https:// or http://";
    for (list, status, why) in [
        ("null", 400, scheme),
        ("a.test", 400, scheme),
        ("HTTPS%3A%2F%2Fa.test", 400, scheme),
        ("wss%3A%2F%2Fa.test", 400, scheme),
        (
            "https%3A%2F%2F*.a.test",
            400,
            "an origin has no wildcard; a Cloudbridge-Host may have one",
        ),
        ("https%3A%2F%2Fa.test%0D%0AX:y", 400, "it is not percent-encoded ASCII"),
        ("https%3A%2F%2Fa.test%", 400, "it is not percent-encoded ASCII"),
        ("https%3A%2F%2Fa.test%+1", 400, "it is not percent-encoded ASCII"),
        ("https%3A%2F%2F%E5%A5%A5.test", 400, "it is not percent-encoded ASCII"),
        ("", 404, ""),
    ] {
        let target = format!("/.well-known/ptth/{list}/");
        let text = match status {
            404 => "no host: name origins behind /.well-known/ptth/, or hosts in Cloudbridge-Host fields".to_owned(),
            _ => format!("bad origin '{list}': {why}"),
        };
        refused(&target, ALPN_LINE, status, &text);
    }
    for list in [
        "https%3A%2F%2F",
        "https%3A%2F%2Fa.test%2Fpath",
        "https%3A%2F%2Fa.test//",
        "https%3A%2F%2Fuser@a.test",
        "https%3A%2F%2Fa.test%3A99999",
        "https%3A%2F%2Fa.test%2Chttps%3A%2F%2Fb.test",
        "https%3A%2F%2Fa%252Etest",
        "https%3A%2F%2Fhttps%3A%2F%2Fa.test",
        "https%3A%2F%2Fa.test,",
        "https%3A%2F%2Fa.test,null",
    ] {
        let refusal = registered(&format!("/.well-known/ptth/{list}/"), ALPN_LINE);
        assert_eq!(refusal.expect_err(list).status, 400, "{list}");
    }
    let many = vec!["http:%2F%2Fa"; 101].join(",");
    let text = "a PTTH request names at most 100 origins";
    refused(&format!("/.well-known/ptth/{many}/"), ALPN_LINE, 414, text);
}

#[test]
fn another_target_is_a_prefix_and_fields_name_the_hosts() {
    let fields = "Cloudbridge-Host: *.A.test\r\ncloudbridge-host: b.test\r\n";
    let names = hosts(&["*.a.test", "b.test"]);
    for (target, prefix) in
        [("/", ""), ("/app/", "/app"), ("/.well-known/ptthx", "/.well-known/ptthx")]
    {
        assert_eq!(served(target, fields), (prefix.to_owned(), names.clone()), "{target}");
    }
    let both = served("/.well-known/ptth/https%3A%2F%2Fc.test/", fields);
    assert_eq!(both, (String::new(), hosts(&["c.test", "*.a.test", "b.test"])));
    assert_eq!(served("/.well-known/ptth", fields), (String::new(), names));
    refused("/?origin=x", ALPN_LINE, 400, "the target of a PTTH request has no query");
    // The proxy's own name registers nothing.
    assert_eq!(registered("/", ALPN_LINE).expect_err("no host").status, 404);
}

#[test]
fn http_1_1_must_be_offered() {
    let host = "Cloudbridge-Host: a.test\r\n";
    for alpn in [
        "ALPN: http%2F1.1\r\n",
        "alpn: h3qx, h2 , http%2F1.1\r\n",
        "ALPN: h2\r\nALPN: http%2F1.1\r\n",
    ] {
        assert!(registered("/", &format!("{host}{alpn}")).is_ok(), "{alpn}");
    }
    refused("/", host, 400, "a PTTH request has an ALPN field");
    for other in ["h2", "http/1.1", "http%2f1.1", "http%2F1.10", ""] {
        let fields = format!("{host}ALPN: {other}\r\n");
        refused("/", &fields, 501, "of what ALPN may list, only http%2F1.1 is spoken here");
    }
}

#[test]
fn the_key_is_a_bearer_token_and_others_come_as_in_a_bridge() {
    let [a, b] = ["344e847d1b3cdfc8673cfe1d0388b7b78ab720e6:1:a.test", "::b.test"];
    let fields = format!(
        "{ALPN_LINE}Cloudbridge-Host: a.test\r\nAuthorization: bearer {a}\r\nHost-Key: {b}\r\n"
    );
    let keys = registered("/", &fields).unwrap().keys;
    assert_eq!(keys.iter().map(|key| key.name()).collect::<Vec<_>>(), ["a.test", "b.test"]);
    let host = format!("{ALPN_LINE}Cloudbridge-Host: a.test\r\n");
    for other in ["Basic QTpC", "Bearer", "", a] {
        let text = "of Authorization, only Bearer with a host key is understood";
        refused("/", &format!("{host}Authorization: {other}\r\n"), 401, text);
    }
    refused(
        "/",
        &format!("{host}Authorization: Bearer {a}\r\nAuthorization: Bearer {a}\r\n"),
        400,
        "Authorization is given twice",
    );
    refused(
        "/",
        &format!("{host}Authorization: Bearer secret\r\n"),
        400,
        "bad key in Authorization: it is not hash:timestamp:name",
    );
}

#[test]
fn what_is_signed_has_no_proofs_in_it() {
    let nonce = "Cloudbridge-Nonce: 00112233445566778899aabbccddeeff\r\n";
    let of = |proof: &str| {
        let fields = format!(
            "{ALPN_LINE}Cloudbridge-Host: a.test\r\nAuthorization: BEARER {proof}:1:a.test\r\n\
             Host-Key: {proof}:1:b.test\r\n{nonce}"
        );
        (registered("/app", &fields).unwrap(), format!("GET /app HTTP/1.1\r\n{FIELDS}{fields}\r\n"))
    };
    let (first, text) = of("proof");
    assert_eq!((first.named.len(), first.digest), (2, None));
    let (second, _) = of(&format!("proof-{}", "0".repeat(64)));
    let signed = crate::bridge::proof::RequestDigest::of(text.as_bytes());
    assert_eq!(second.digest, Some(signed));
    refused(
        "/",
        &format!("{ALPN_LINE}Authorization: Bearer proof:1:a.test\r\n"),
        400,
        "a Host-Key without its hash comes with a Cloudbridge-Nonce",
    );
}

#[test]
fn the_optional_fields_are_those_of_a_bridge() {
    const DIGITS: &str = "0123456789abcdef0123456789abcdef";
    let host = format!("{ALPN_LINE}Cloudbridge-Host: a.test\r\n");
    let fields = format!(
        "{host}Cloudbridge-Backend: {DIGITS}\r\nCloudbridge-Extensions: probes\r\nUser-Agent: x/1\r\nVia: 1.1 y\r\n"
    );
    let registration = registered("/", &fields).unwrap();
    assert_eq!(registration.backend, BackendToken::parse(DIGITS.as_bytes()));
    assert!(registration.uses.probes && registration.forwarded && registration.ptth);
    assert_eq!(registration.agent.as_deref(), Some("x/1"));
    let leave = registered("/", &format!("{host}Cloudbridge-Leave: {DIGITS}\r\n")).unwrap().leave;
    assert_eq!(leave, BackendToken::parse(DIGITS.as_bytes()));
    refused("/", &format!("{host}If-None-Match: x\r\n"), 501, "If-None-Match is not supported");
}

#[test]
fn who_does_not_ask_for_it_is_a_client() {
    for text in [
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: ptth\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: ptth\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: PTTH/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: ptth-udp\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        assert!(asked(text).is_none(), "{text}");
    }
    let shouted = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x, PTTH\r\n\r\n";
    assert!(asked(shouted).is_some());
    let posted = format!("POST / HTTP/1.1\r\n{FIELDS}{ALPN_LINE}Content-Length: 1\r\n\r\n");
    assert_eq!(asked(&posted).unwrap().unwrap_err().text, "a PTTH request is a GET");
    let body = posted.replace("POST", "GET");
    let refusal = asked(&body).unwrap().unwrap_err();
    assert_eq!((refusal.status, refusal.text.as_str()), (501, "a PTTH request has no body"));
    let none = body.replace("Length: 1", "Length: 0\r\nCloudbridge-Host: a");
    assert!(asked(&none).unwrap().is_ok());
}

#[test]
fn the_answer_names_the_protocol() {
    let answer = |announced| {
        let mut out = Vec::new();
        accept(announced, &mut out);
        String::from_utf8(out).unwrap()
    };
    let plain = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ptth\r\nALPN: http%2F1.1\r\n";
    assert_eq!(answer(None), format!("{plain}\r\n"));
    assert_eq!(
        answer(Some(Extensions::parse(b"receipts"))),
        format!("{plain}Cloudbridge-Extensions: leave, undelivered, receipts\r\n\r\n")
    );
}
