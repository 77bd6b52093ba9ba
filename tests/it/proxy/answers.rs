//! The proxy's own answers: why, in words for machines, and with bodies of the operator's.

use crate::common::{Bridge, Client, Message, Proxy, Setup, run_well};
use std::process::Command;

/// The reason in the field `Proxy-Status` of an answer, and its error type.
#[track_caller]
fn reason(answer: &Message) -> (&str, &str) {
    let value = answer.field("proxy-status").unwrap_or_else(|| panic!("no reason: {answer:?}"));
    let error = value.strip_prefix("cloudbridge; error=").unwrap_or_else(|| panic!("{value}"));
    let (error, details) = error.split_once("; details=\"").unwrap_or_else(|| panic!("{value}"));
    (details.strip_suffix('"').unwrap_or_else(|| panic!("{value}")), error)
}

fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: A.test\r\n{fields}\r\n")
}

/// A proxy whose answer to a GET is a 503 at once: nobody serves the name.
#[track_caller]
fn unserved(settings: &str, files: &[(&str, &str)]) -> Proxy {
    let setup = Setup::new().settings("unknown-host 503").settings(settings);
    files.iter().fold(setup, |setup, (name, text)| setup.file(name, text)).start()
}

#[test]
fn without_pages_only_the_reason_is_new() {
    let proxy = unserved("", &[]);
    let mut client = Client::request(&proxy, get("Accept: */*\r\n"));
    client.expect_exact(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: 28\r\nCache-Control: no-store\r\nRetry-After: 5\r\nProxy-Status: \
         cloudbridge; error=destination_not_found; details=\"unknown-host\"\r\n\
         Connection: close\r\n\r\nno backend serves this name\n",
    );
    client.expect_closed();
}

#[test]
fn each_cause_has_its_reason_and_is_counted() {
    let proxy = Proxy::with(
        "listen 127.0.0.1:0\nlisten 127.0.0.1:0 admin\nwait-timeout 3s\nqueue-unserved 1\n\
         max-target 64\nhold-response 0\nworkers 1",
    );
    let mut busy = Bridge::park(&proxy, &["busy.test"]);
    let _served = Client::get(&proxy, "busy.test", "/");
    busy.accept_request();
    let long = format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "x".repeat(64));
    let mut waits = Client::get(&proxy, "nobody.test", "/");
    proxy.await_count("c", 1);
    for (request, status, expected) in [
        // The first, for it must come while the other waits.
        (
            "GET / HTTP/1.1\r\nHost: other.test\r\n\r\n",
            503,
            ("unserved-queue-full", "destination_unavailable"),
        ),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, ("bad-request", "http_request_error")),
        ("GET / HTTP/9\r\n\r\n", 505, ("not-supported", "proxy_internal_response")),
        (&long, 414, ("target-too-long", "http_request_error")),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
            501,
            ("not-supported", "proxy_internal_response"),
        ),
        (
            "TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
            405,
            ("method-not-allowed", "http_request_error"),
        ),
        (
            "GET / HTTP/1.1\r\nHost: busy.test\r\n\r\n",
            504,
            ("backends-busy", "connection_limit_reached"),
        ),
    ] {
        let answer = Client::ask(&proxy, request);
        assert_eq!((answer.status(), reason(&answer)), (status, expected), "{request}");
    }
    let answer = waits.read_response();
    assert_eq!(reason(&answer), ("no-backend", "destination_unavailable"));

    let post = "POST / HTTP/1.1\r\nHost: b.test\r\nContent-Length: 0\r\n\r\n";
    for (response, expected) in [
        ("", ("backend-closed", "connection_terminated")),
        ("hello\r\n\r\n", ("backend-bad-response", "http_protocol_error")),
    ] {
        let mut bridge = Bridge::park(&proxy, &["b.test"]);
        let mut client = Client::request(&proxy, post);
        bridge.accept_request();
        bridge.send(response);
        drop(bridge);
        let answer = client.read_response();
        assert_eq!((answer.status(), reason(&answer)), (502, expected), "{answer:?}");
    }

    let mut admin = Client::connect_to(proxy.for_admin());
    admin.send("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    let metrics = admin.read_response().text();
    for (reason, count) in [
        ("bad-request", 1),
        ("target-too-long", 1),
        ("unserved-queue-full", 1),
        ("backends-busy", 1),
        ("no-backend", 1),
        ("backend-closed", 1),
        ("backend-bad-response", 1),
        ("queue-full", 0),
    ] {
        let line = format!("\ncloudbridge_refusals_total{{reason=\"{reason}\"}} {count}\n");
        assert!(metrics.contains(&line), "{reason}: {metrics}");
    }
}

#[test]
fn backends_are_told_the_reason_and_never_a_page() {
    let proxy = Setup::new()
        .settings("legacy-keys no\nsecrets {dir}/secrets\nerror-page 400,401 {dir}/page.html")
        .file("secrets", "1:secret\n")
        .file("page.html", "<p>a page\n")
        .start();
    for (registration, expected) in [
        ("BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n", (401, "bridge-unauthorized")),
        ("BRIDGE / HTTP/1.1\r\nHost: a..test\r\n\r\n", (400, "bad-bridge")),
    ] {
        let refusal = Bridge::refused(&proxy, registration);
        refusal.assert_own_reply(expected.0);
        assert_eq!(reason(&refusal).0, expected.1);
    }
    let mut partial = Bridge::connect(&proxy);
    partial.send("BRIDGE / HTTP/1.1\r\nHo");
    partial.half_close();
    let refusal = partial.read_refusal();
    refusal.assert_own_reply(400);
    assert_eq!(reason(&refusal).0, "bad-bridge");
    let page = Client::ask(&proxy, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n");
    assert_eq!((page.status(), page.text().as_str()), (400, "<p>a page\n"));
}

#[test]
fn a_page_tells_what_it_is_asked_to() {
    let page = "<style>p{color:red}</style>\n<p>{status} {reason} {host} {request_id} {nothing}\n";
    let proxy = unserved("error-page 404,503 {dir}/page.html", &[("page.html", page)]);
    let html = "<style>p{color:red}</style>\n<p>503 unknown-host a.test &lt;7&gt; {nothing}\n";
    let answer = Client::ask(&proxy, get("X-Request-Id: <7>\r\nAccept: text/html\r\n"));
    assert_eq!((answer.status(), answer.text().as_str()), (503, html));
    assert_eq!(answer.field("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(reason(&answer).0, "unknown-host");

    // A HEAD gets the same head.
    let mut client = Client::request(&proxy, get("X-Request-Id: <7>\r\n").replace("GET", "HEAD"));
    let head = client.read_head();
    assert_eq!(head.field("content-length"), Some(html.len().to_string().as_str()));
    assert_eq!(head.field("content-type"), Some("text/html; charset=utf-8"));
    client.expect_closed();
}

#[test]
fn a_client_that_asks_for_json_gets_it() {
    let proxy = unserved("error-page 503 {dir}/page.txt", &[("page.txt", "sorry\n")]);
    let ask = |fields: &str| Client::ask(&proxy, get(fields));
    let problem = "{\"title\":\"Service Unavailable\",\"status\":503,\"reason\":\"unknown-host\",\
                   \"detail\":\"no backend serves this name\",\"host\":\"a.test\"}\n";
    for (accept, content_type, text) in [
        ("application/json", "application/json", problem),
        ("application/problem+json, */*;q=0.1", "application/problem+json", problem),
        ("text/html, application/json;q=0.9", "text/plain; charset=utf-8", "sorry\n"),
        ("*/*", "text/plain; charset=utf-8", "sorry\n"),
    ] {
        let answer = ask(&format!("Accept: {accept}\r\n"));
        assert_eq!((answer.status(), answer.text().as_str()), (503, text), "{accept}");
        assert_eq!(answer.field("content-type"), Some(content_type), "{accept}");
    }
    // Its request could not be read, so what it accepts is not known.
    let bad =
        Client::ask(&proxy, "GET / HTTP/1.1\r\nAccept: application/json\r\nHost: a b\r\n\r\n");
    bad.assert_own_reply(400);
}

#[test]
fn a_site_has_pages_of_its_own() {
    let proxy = Setup::new()
        .settings(
            "error-page 503 {dir}/all.html\n\
             site a.test timeout=1ms error-page=502,503:{dir}/own.json\nsite b.test timeout=1ms",
        )
        .file("all.html", "<p>{host}")
        .file("own.json", "{\"why\": \"{reason}\", \"said\": \"{detail}\"}\n")
        .start();
    let a = Client::ask(&proxy, get("Accept: text/html\r\n"));
    let own = "{\"why\": \"no-backend\", \"said\": \"no backend was free in time\"}\n";
    assert_eq!((a.status(), a.text().as_str()), (503, own));
    assert_eq!(a.field("content-type"), Some("application/json"));
    let b = Client::ask(&proxy, "GET / HTTP/1.1\r\nHost: b.test\r\n\r\n");
    assert_eq!((b.status(), b.text().as_str()), (503, "<p>b.test\n"));
}

#[test]
fn a_failed_request_gets_its_page_and_the_connection_goes_on() {
    let proxy = Setup::new()
        .settings("error-page 502 {dir}/page.html")
        .file("page.html", "<p>{host}: {reason}\n")
        .start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client =
        Client::request(&proxy, "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi");
    bridge.accept_request();
    drop(bridge);
    let answer = client.read_response();
    assert_eq!((answer.status(), answer.text().as_str()), (502, "<p>a.test: backend-closed\n"));
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    client.send_get("a.test", "/");
    bridge.serve_to(&mut client, "served");
}

/// Once the head of a large request has been sent on, its body is at the front of the input: it must
/// not be taken for a head.
#[test]
fn a_body_is_never_read_as_a_head() {
    let proxy = Setup::new()
        .settings("error-page 502 {dir}/page.txt\nretry-limit 1k")
        .file("page.txt", "host {host}\n")
        .start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let inner = "GET / HTTP/1.1\r\nHost: evil.test\r\nAccept: application/json\r\n\r\n";
    let mut client = Client::request(
        &proxy,
        format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n{}",
            "x".repeat(8192)
        ),
    );
    bridge.accept_head();
    client.send(inner);
    bridge.read_exactly(8192 + inner.len());
    drop(bridge);
    let answer = client.read_response();
    assert_eq!((answer.status(), answer.text().as_str()), (502, "host \n"));
}

#[test]
fn a_page_that_cannot_be_read_is_an_error_and_changes_nothing() {
    let proxy = unserved("error-page 503 {dir}/page.html", &[("page.html", "<p>one\n")]);
    let text = || Client::ask(&proxy, get("")).text();
    assert_eq!(text(), "<p>one\n");
    proxy.write("page.html", "<p>two\n");
    proxy.reload_well();
    proxy.await_log("error-page");
    assert_eq!(text(), "<p>two\n");

    let conf = proxy.dir().join("cloudbridge.conf");
    let check = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloudbridge"));
        command.arg("-t").arg("-c").arg(&conf).output().unwrap()
    };
    let shown = proxy.dir().join("page.html").display().to_string();
    for (contents, what) in [
        (Some("x".repeat((64 << 10) + 1)), format!("{shown} is longer than 65536 bytes")),
        (None, format!("cannot read {shown}: No such file or directory")),
    ] {
        match contents {
            Some(contents) => proxy.write("page.html", &contents),
            None => std::fs::remove_file(proxy.dir().join("page.html")).unwrap(),
        }
        let complaint = format!("error-page: {what}");
        let output = check();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(&complaint), "{said}");
        proxy.reload();
        proxy.await_log(&complaint);
        assert_eq!(text(), "<p>two\n");
    }
    proxy.write("page.html", &"x".repeat(64 << 10));
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloudbridge"));
    run_well(command.arg("-t").arg("-c").arg(&conf));
}
