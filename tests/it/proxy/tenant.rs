//! The page where the holder of a host key sees what the key covers, and nothing of anybody else.

use crate::common::{
    B_SECOND, Bridge, Browser, Client, Message, Proxy, Setup, eventually, header_v1, key_tool,
    narrow, quoted,
};
use serde_json::{Value, json};

/// The digits of that key.
const B_DIGITS: &str = "984629eac3ec2365a808dfc4d96533aead9df91a";

/// A proxy with the page at `tenant.test`, and these settings more.
#[track_caller]
fn shared_proxy(settings: &str) -> Proxy {
    Setup::new()
        .settings(&format!("secrets {{dir}}/secrets\nrevoked {{dir}}/revoked\n{settings}"))
        .settings("tenant-host tenant.test")
        .file("secrets", "1600000000:second\n")
        .file("revoked", "")
        .start()
}

/// A narrower key of the one for `b.test`.
#[track_caller]
fn narrowed(options: &[&str]) -> String {
    narrow(B_SECOND, options)
}

fn request(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: tenant.test\r\n{fields}\r\n")
}

fn with_key(key: &str) -> String {
    request("/state.json", &format!("Authorization: Bearer {key}\r\n"))
}

#[track_caller]
fn ask(proxy: &Proxy, key: &str) -> Message {
    Client::ask(proxy, with_key(key))
}

/// What the holder of the key sees.
#[track_caller]
fn state(proxy: &Proxy, key: &str) -> Value {
    let answer = ask(proxy, key);
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    serde_json::from_str(&answer.text()).expect("JSON")
}

/// Hosts and path of each row, with the bridges that are parked.
#[track_caller]
fn rows(proxy: &Proxy, key: &str) -> Value {
    let state = state(proxy, key);
    let row = |row: &Value| json!([row["hosts"], row["prefix"], row["parked"]]);
    state["hosts"].as_array().expect("a list").iter().map(row).collect()
}

/// Waits until these are the rows. A bridge is parked just after it has been told that it is let in.
#[track_caller]
fn await_rows(proxy: &Proxy, key: &str, expected: &Value) {
    eventually(&format!("the rows are {expected}"), || rows(proxy, key) == *expected);
}

/// Reason, outcome, status and number of the last errors of the first row.
#[track_caller]
fn errors(proxy: &Proxy, key: &str) -> Value {
    let state = state(proxy, key);
    let list = state["hosts"][0]["errors"].as_array().expect("a list");
    let one = |error: &Value| {
        assert!(error["at"].as_u64().is_some_and(|at| at > 1_700_000_000), "{error}");
        json!([error["reason"], error["outcome"], error["status"], error["count"]])
    };
    list.iter().map(one).collect()
}

/// A bridge that has sent this key.
#[track_caller]
fn park(proxy: &Proxy, target: &str, host: &str, key: &str) -> Bridge {
    Bridge::register(
        proxy,
        format!("BRIDGE {target} HTTP/1.1\r\nHost: {host}\r\nHost-Key: {key}\r\n\r\n"),
    )
}

#[test]
fn a_key_shows_what_it_covers_and_nothing_else() {
    let proxy = shared_proxy("workers 2");
    let key = |host: &str| narrowed(&["--host", host, "--bridges", "4", "--expires", "1h"]);
    let (a, c) = (key("a.b.test"), key("c.b.test"));
    let mut bridges = [("/", "a.b.test", &a), ("/x", "a.b.test", &a), ("/", "y.a.b.test", &a)]
        .map(|(target, host, key)| park(&proxy, target, host, key));
    let _other = park(&proxy, "/", "c.b.test", &c);
    // One that has both, by two keys.
    let both = format!(
        "BRIDGE / HTTP/1.1\r\nHost: a.b.test\r\nHost: c.b.test\r\nHost-Key: {a}\r\nHost-Key: {c}\r\n\r\n"
    );
    let _both = Bridge::register(&proxy, both);
    let of_a = json!([
        [["a.b.test"], "/", 1],
        [["a.b.test"], "/", 1],
        [["a.b.test"], "/x", 1],
        [["y.a.b.test"], "/", 1],
    ]);
    await_rows(&proxy, &a, &of_a);
    await_rows(&proxy, &c, &json!([[["c.b.test"], "/", 1], [["c.b.test"], "/", 1]]));
    assert_eq!(rows(&proxy, &key("z.b.test")), json!([]));
    let all = rows(&proxy, B_SECOND);
    assert_eq!(all.as_array().expect("a list").len(), 5, "{all}");
    let shown = state(&proxy, &a);
    assert_eq!((&shown["key"]["name"], &shown["key"]["prefix"]), (&json!("a.b.test"), &json!("/")));
    assert_eq!((&shown["key"]["bridges"], &shown["key"]["methods"]), (&json!(4), &Value::Null));
    assert!(shown["key"]["expires"].is_u64() && shown["more"] == 0, "{shown}");
    // A request takes a slot, and the next one waits.
    let _busy = Client::get(&proxy, "y.a.b.test", "/");
    bridges[2].accept_request();
    let _waits = Client::get(&proxy, "y.a.b.test", "/");
    eventually("one is busy, one waits", || {
        let row = &state(&proxy, &a)["hosts"][3];
        row["parked"] == 0 && row["busy"] == 1 && row["waiting"] == 1
    });
    let text = ask(&proxy, &a).text();
    assert!(!text.contains("c.b.test") && !text.contains(B_DIGITS), "{text}");
}

#[test]
fn a_key_for_a_path_or_for_methods_shows_no_more_than_these() {
    let proxy = shared_proxy("workers 2");
    let _all = [
        park(&proxy, "/", "b.test", B_SECOND),
        park(&proxy, "/app", "b.test", B_SECOND),
        park(&proxy, "/app/x", "b.test", B_SECOND),
        park(&proxy, "/apple", "b.test", B_SECOND),
    ];
    let of_app = json!([[["b.test"], "/app", 1], [["b.test"], "/app/x", 1]]);
    await_rows(&proxy, &narrowed(&["--prefix", "/app"]), &of_app);
    let reads = narrowed(&["--method", "GET,HEAD"]);
    assert_eq!(rows(&proxy, &reads), json!([]));
    let lane =
        format!("BRIDGE / HTTP/1.1\r\nHost: b.test\r\nIf-Method: GET\r\nHost-Key: {reads}\r\n\r\n");
    let _lane = Bridge::register(&proxy, lane);
    await_rows(&proxy, &reads, &json!([[["b.test"], "/", 1]]));
    assert_eq!(state(&proxy, &reads)["hosts"][0]["predicates"], json!(["If-Method: GET"]));
}

#[test]
fn failures_are_shown_to_the_host_that_has_them() {
    let proxy = shared_proxy("workers 2\nqueue-per-route 1\nwait-timeout 50ms\nretries 0");
    let key = narrowed(&["--host", "a.b.test"]);
    let other = narrowed(&["--host", "c.b.test"]);
    let _other = park(&proxy, "/", "c.b.test", &other);
    let park_one = || {
        let bridge = park(&proxy, "/", "a.b.test", &key);
        // It is parked just after it has been let in, and a request waits for little.
        proxy.await_count("b", 2);
        bridge
    };
    let mut bridge = park_one();
    assert_eq!(errors(&proxy, &key), json!([]));
    // It closes with a request that must not be sent again.
    let mut client = Client::connect(&proxy);
    client.send("POST / HTTP/1.1\r\nHost: a.b.test\r\nContent-Length: 1\r\n\r\nx");
    bridge.accept_request();
    drop(bridge);
    assert_eq!(client.read_response().status(), 502);
    let mut expected = vec![json!(["backend-closed", "answered", 502, 1])];
    assert_eq!(errors(&proxy, &key), json!(expected));
    // With one that may be, but has had its tries.
    let mut bridge = park_one();
    let mut client = Client::get(&proxy, "a.b.test", "/");
    bridge.accept_request();
    drop(bridge);
    assert_eq!(client.read_response().status(), 502);
    expected.insert(0, json!(["backend-closed", "repeated", null, 1]));
    expected.insert(0, json!(["retries-used-up", "answered", 502, 1]));
    assert_eq!(errors(&proxy, &key), json!(expected));
    // Two wait in vain.
    for _ in 0..2 {
        assert_eq!(Client::ask(&proxy, get("a.b.test")).status(), 504);
    }
    expected.insert(0, json!(["no-backend", "answered", 504, 2]));
    assert_eq!(errors(&proxy, &key), json!(expected));
    // One breaks off in the middle of its answer.
    let mut bridge = park_one();
    let mut client = Client::get(&proxy, "a.b.test", "/");
    bridge.accept_request();
    bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
    client.expect_exact("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
    drop(bridge);
    client.expect_closed();
    expected.insert(0, json!(["backend-closed", "cut", null, 1]));
    assert_eq!(errors(&proxy, &key), json!(expected));
    assert_eq!(errors(&proxy, &other), json!([]));
}

#[test]
fn a_full_queue_is_a_failure_of_the_host() {
    // A worker has a share of the bound, so with two of them one more may wait.
    let proxy = shared_proxy("workers 2\nqueue-per-route 1");
    let mut bridge = park(&proxy, "/", "a.b.test", B_SECOND);
    let _busy = Client::get(&proxy, "a.b.test", "/");
    bridge.accept_request();
    let mut waiting: Vec<Client> = Vec::new();
    eventually("one is refused", || {
        waiting.push(Client::get(&proxy, "a.b.test", "/"));
        errors(&proxy, B_SECOND)[0][0] == "queue-full"
    });
    assert_eq!(errors(&proxy, B_SECOND)[0][2], 503);
}

#[test]
fn the_limits_of_a_key_are_shown_when_they_are_met() {
    let proxy = shared_proxy("workers 2\nkey-limits b.test requests-per-second=1");
    let _bridge = park(&proxy, "/", "a.b.test", B_SECOND);
    let mut clients: Vec<Client> = Vec::new();
    eventually("one is too many", || {
        clients.push(Client::get(&proxy, "a.b.test", "/"));
        errors(&proxy, B_SECOND)[0][0] == "key-rate"
    });
    assert_eq!(errors(&proxy, B_SECOND)[0][2], 429);
}

fn get(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// Asks with this key, which must be refused with 401. Returns why.
#[track_caller]
fn refused(proxy: &Proxy, key: &str) -> String {
    let answer = ask(proxy, key);
    answer.assert_own_reply(401);
    assert_eq!(answer.field("www-authenticate"), Some("Bearer realm=\"host key\""));
    answer.text().trim_end().to_owned()
}

#[test]
fn only_a_good_key_shows_anything() {
    let proxy =
        shared_proxy("workers 2\nlegacy-keys yes\naccess-log {dir}/access\nlog-level debug");
    let _bridge = park(&proxy, "/", "b.test", B_SECOND);
    let none = Client::ask(&proxy, request("/state.json", ""));
    none.assert_own_reply(401);
    let needs = "the state needs a host key, as `Authorization: Bearer KEY`\n";
    assert_eq!(none.text(), needs);
    let basic = request("/state.json", "Authorization: Basic eDp5\r\n");
    assert_eq!(Client::ask(&proxy, basic).text(), needs);
    assert_eq!(refused(&proxy, "x"), "this is no host key: it is not hash:timestamp:name");
    let other = B_SECOND.replace("b.test", "c.test");
    let wrong = "the host key does not check out: it was changed, or not made with the secret in force \
        at its time";
    assert_eq!(refused(&proxy, &other), wrong);
    assert_eq!(refused(&proxy, "::b.test"), "the host key has no hash and proves nothing");
    let key = narrowed(&["--expires", "1h"]);
    assert_eq!(ask(&proxy, &key).status(), 200);
    proxy.write("revoked", &key_tool(&["hash", "-"], &key));
    proxy.reload_well();
    assert_eq!(refused(&proxy, &key), "the host key has been revoked");
    assert_eq!(ask(&proxy, B_SECOND).status(), 200);
    // No line of a log has anything of a key, or of a request with one.
    let log = proxy.log() + &std::fs::read_to_string(proxy.dir().join("access")).unwrap();
    assert!(!log.contains(B_DIGITS) && !log.contains("state.json"), "{log}");
}

#[test]
fn an_expired_key_shows_nothing() {
    let proxy = shared_proxy("workers 2");
    let file = proxy.dir().join("secrets").display().to_string();
    let words = ["--secrets", &file, "--modern", "--expires", "1700000001", "b.test", "1700000000"];
    let key = key_tool(&words, "");
    assert_eq!(refused(&proxy, &key), "the host key expired at 1700000001 (Unix time)");
}

#[test]
fn an_address_has_ten_wrong_keys_and_then_few() {
    let proxy = shared_proxy("workers 2\nlisten 127.0.0.1:0 accept-proxy=127.0.0.1");
    let ask_from = |client: &str, key: &str| {
        let mut wire = Client::connect_to(proxy.addresses()[0]);
        wire.send(header_v1(client));
        wire.send(with_key(key));
        wire.read_response()
    };
    for _ in 0..11 {
        assert_eq!(ask_from("192.0.2.1:1", "x").status(), 401);
    }
    for key in ["x", B_SECOND] {
        let answer = ask_from("192.0.2.1:2", key);
        answer.assert_own_reply(429);
        let after: u32 = answer.field("retry-after").expect("a time").parse().expect("a number");
        assert!((1..=6).contains(&after), "{after}");
    }
    assert_eq!(ask_from("192.0.2.2:1", B_SECOND).status(), 200);
    let metrics = proxy.admin("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for (reason, count) in [("tenant-unauthorized", 11), ("tenant-limit", 2)] {
        let line = format!("cloudbridge_refusals_total{{reason=\"{reason}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
}

#[test]
fn keys_that_must_not_be_sent_are_taken_where_nobody_can_read_them() {
    let proxy = shared_proxy(
        "workers 2\nbearer-keys no\ntrusted-proxies 192.0.2.0/24\nlisten 127.0.0.1:0\n\
         listen 127.0.0.1:0 accept-proxy=127.0.0.1",
    );
    let [plain, announced] = proxy.addresses()[..] else { panic!("two listeners") };
    let ask = |client: Option<&str>, fields: &str| {
        let mut wire = Client::connect_to(if client.is_some() { announced } else { plain });
        if let Some(client) = client {
            wire.send(header_v1(client));
        }
        let fields = format!("Authorization: Bearer {B_SECOND}\r\n{fields}");
        wire.send(request("/state.json", &fields));
        wire.read_response()
    };
    for (client, fields, status) in [
        (None, "", 200),
        (None, "X-Forwarded-For: 192.0.2.7\r\n", 401),
        // Anybody can say so.
        (None, "X-Forwarded-Proto: https\r\n", 401),
        (Some("198.51.100.1:1"), "", 401),
        (Some("198.51.100.1:1"), "X-Forwarded-Proto: https\r\n", 401),
        (Some("192.0.2.1:1"), "", 401),
        (Some("192.0.2.1:1"), "X-Forwarded-Proto: http\r\n", 401),
        (Some("192.0.2.1:1"), "X-Forwarded-Proto: https\r\n", 200),
    ] {
        let answer = ask(client, fields);
        assert_eq!(answer.status(), status, "{client:?} {fields}");
        if status == 401 {
            let why = "keys are not sent over plain text here (`bearer-keys no`): use https\n";
            assert_eq!(answer.text(), why);
        }
    }
}

#[test]
fn over_tls_a_key_may_be_sent_in_any_case() {
    let proxy = Setup::new()
        .settings("secrets {dir}/secrets\nbearer-keys no\ntenant-host tenant.test")
        .file("secrets", "1600000000:second\n")
        .over_tls()
        .start();
    let fields = format!("X-Forwarded-For: 192.0.2.7\r\nAuthorization: Bearer {B_SECOND}\r\n");
    assert_eq!(Client::ask(&proxy, request("/state.json", &fields)).status(), 200);
}

#[test]
fn the_host_has_two_paths_and_nothing_to_change() {
    let proxy = shared_proxy("workers 2");
    // A backend that has the same name is not reached.
    let secret =
        key_tool(&["--secrets", &proxy.dir().join("secrets").display().to_string(), "test"], "");
    let _bridge = park(&proxy, "/", "tenant.test", &secret);
    let page = Client::ask(&proxy, request("/?x", ""));
    assert_eq!(page.status(), 200);
    assert_eq!(page.field("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.field("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    let mut head = Client::request(&proxy, request("/", "").replacen("GET", "HEAD", 1));
    assert_eq!(head.read_head().field("content-length"), page.field("content-length"));
    assert_eq!(Client::ask(&proxy, request("/other", "")).status(), 404);
    for method in ["POST", "DELETE"] {
        let answer = Client::ask(&proxy, with_key(B_SECOND).replacen("GET", method, 1));
        answer.assert_own_reply(405);
        assert_eq!(answer.field("allow"), Some("GET, HEAD"));
    }
}

#[test]
fn a_reload_changes_the_host() {
    let proxy = shared_proxy("workers 2\nunknown-host 404");
    assert_eq!(ask(&proxy, B_SECOND).status(), 200);
    proxy.change_settings("tenant-host tenant.test", "tenant-host keys.test");
    proxy.reload_well();
    assert_eq!(ask(&proxy, B_SECOND).status(), 404);
    let at_new = with_key(B_SECOND).replacen("tenant.test", "KEYS.test", 1);
    assert_eq!(Client::ask(&proxy, &at_new).status(), 200);
    proxy.change_settings("tenant-host tenant.test", "");
    proxy.reload_well();
    assert_eq!(Client::ask(&proxy, &at_new).status(), 404);
}

#[test]
fn it_needs_secrets_and_a_name_of_its_own() {
    for (settings, what) in [
        ("tenant-host t.test", "tenant-host: without secrets no key is checked; set secrets too"),
        (
            "tenant-host t.test\ninfo-host T.test\nsecrets {dir}/secrets",
            "tenant-host: this is the info-host; they need two names",
        ),
    ] {
        let said = Setup::new().settings(settings).file("secrets", "1:x\n").refused();
        assert!(said.contains(what), "{said}");
    }
}

/// Has the browser show the page, and types a key into it.
#[track_caller]
fn show(browser: &mut Browser, proxy: &Proxy, key: &str) {
    let port = proxy.for_clients().port();
    browser.open(&format!("http://tenant.localhost:{port}/"));
    enter(browser, key);
}

#[track_caller]
fn enter(browser: &mut Browser, key: &str) {
    browser.click("#key");
    browser.type_text(key);
    browser.press("Enter");
}

#[test]
fn the_page_shows_the_state_and_keeps_the_key_to_itself() {
    let Some(mut browser) = Browser::start() else { return };
    let proxy = Setup::new()
        .settings("secrets {dir}/secrets\ntenant-host tenant.localhost\nbearer-keys yes")
        .file("secrets", "1600000000:second\n")
        .start();
    let (key, other) = (narrowed(&["--host", "a.b.test"]), narrowed(&["--host", "c.b.test"]));
    // The worst that a registration may say is text.
    let path = "/<img/src=x:/onerror=window.hit=1>";
    let mut bridge = park(&proxy, path, "a.b.test", &key);
    let _other = park(&proxy, "/", "c.b.test", &other);
    show(&mut browser, &proxy, "nonsense");
    browser.wait_text("#wrong", "Refused: this is no host key");
    enter(&mut browser, &key);
    browser.wait_text("article h2", &format!("a.b.test{path}"));
    let first = browser.text("#hosts");
    assert!(first.contains("free\n1") && first.contains("busy\n0"), "{first}");
    assert!(browser.text("#scope").starts_with("Key for a.b.test and below"));
    browser.picture("tenant-page");
    // It looks again by itself.
    let mut client = Client::connect(&proxy);
    client.send(format!("POST {path} HTTP/1.1\r\nHost: a.b.test\r\nContent-Length: 0\r\n\r\n"));
    bridge.accept_request();
    browser.wait_text("dl", "busy\n1");
    drop(bridge);
    assert_eq!(client.read_response().status(), 502);
    browser.wait_text("table", "The backend closed without an answer");
    browser.wait_text("table", "got 502");
    assert!(!browser.text("body").contains("c.b.test"));
    let is_kept = format!(
        "document.documentElement.outerHTML.includes({0}) || location.href.includes({0}) \
         || document.cookie !== '' || localStorage.length + sessionStorage.length > 0 \
         || document.querySelector('#key').value !== '' || window.hit !== undefined \
         || document.querySelectorAll('img').length > 0",
        quoted(&key[3..20])
    );
    assert_eq!(browser.eval(&is_kept), false);
    browser.click("#forget");
    browser.wait("document.querySelector('#state').hidden");
    assert_eq!(browser.eval("document.querySelector('#hosts').children.length"), 0);
    enter(&mut browser, &other);
    browser.wait_text("article h2", "c.b.test");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
