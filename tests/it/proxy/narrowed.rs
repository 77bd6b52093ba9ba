//! Keys that their holders have narrowed, without the proxy's secret and without asking anybody.

use crate::common::{
    ACK, Agent, App, B_SECOND, Bridge, Client, Proxy, Setup, at, eventually, first_bridge,
    key_tool, narrow, ok, second_bridge, unix_time,
};

/// A proxy with two workers or more that takes keys by proof alone, unless `settings` say otherwise.
#[track_caller]
fn guarded(settings: &str) -> Proxy {
    Setup::new()
        .settings(&format!("secrets {{dir}}/secrets\nrevoked {{dir}}/revoked\n{settings}"))
        .file("secrets", "1600000000:second\n")
        .file("revoked", "")
        .start()
}

/// A v2 key for `b.test`.
#[track_caller]
fn modern(proxy: &Proxy, options: &[&str]) -> String {
    let file = proxy.dir().join("secrets").display().to_string();
    key_tool(&[&["--secrets", &file, "--modern", "b.test"], options].concat(), "")
}

/// What the proxy says to a bridge that proves this key: `100`, or its refusal.
#[track_caller]
fn said(proxy: &Proxy, host: &str, target: &str, key: &str) -> String {
    let first = first_bridge(&[host], key, "").replacen("BRIDGE /", &format!("BRIDGE {target}"), 1);
    let (mut bridge, nonce) = Bridge::ask(proxy, &first);
    bridge.send(second_bridge(&first, key, &nonce));
    let answer = bridge.read_head();
    match answer.status() {
        100 => "100".to_owned(),
        status => {
            let length = answer.field("content-length").map(|digits| digits.parse().unwrap());
            let text = bridge.read_exactly(length.unwrap());
            format!("{status} {}", String::from_utf8(text).unwrap().trim_end())
        }
    }
}

fn bare(host: &str, key: &str) -> String {
    format!("BRIDGE /app HTTP/1.1\r\nHost: {host}\r\nHost-Key: {key}\r\n\r\n")
}

#[test]
fn narrowed_keys_of_both_forms_are_proven_and_serve_what_they_are_for() {
    let proxy = guarded("workers 2\nbearer-keys no");
    for root in [B_SECOND, &modern(&proxy, &[])] {
        let first = narrow(root, &["--host", "a.b.test"]);
        let key = narrow(&first, &["--prefix", "/app", "--expires", "1h"]);
        assert_eq!(said(&proxy, "b.test", "/app", &key), "401 no Host-Key covers b.test");
        assert_eq!(said(&proxy, "c.b.test", "/app", &key), "401 no Host-Key covers c.b.test");
        for target in ["/", "/apple", "/x/app"] {
            assert_eq!(
                said(&proxy, "a.b.test", target, &key),
                "401 the Host-Key for a.b.test was narrowed to a path, and the target of this \
                 BRIDGE is not below it"
            );
        }
        let mut bridge = Bridge::prove(&proxy, &["a.b.test", "x.a.b.test"], &first);
        bridge.serve_to(&mut Client::get(&proxy, "x.a.b.test", "/"), "narrowed");
        drop(bridge);
        proxy.await_no_bridges();
        assert_eq!(said(&proxy, "*.a.b.test", "/app/x", &key), "100");
        proxy.await_no_bridges();
    }
    let log = proxy.log();
    assert!(!log.contains("984629eac3ec"), "{log}");
}

#[test]
fn the_agent_uses_a_narrowed_key_like_any_other() {
    let (proxy, app) = (guarded("workers 2\nbearer-keys no"), App::start(|_| ok("served")));
    let key = narrow(B_SECOND, &["--host", "a.b.test", "--prefix", "/app", "--bridges", "2"]);
    let to = app.to();
    let _agent = Agent::start(&[
        "--to",
        &to,
        "-n2",
        "--host",
        "a.b.test",
        "--prefix",
        "/app",
        "--key",
        &key,
        &at(&proxy),
    ]);
    let mut client = Client::get(&proxy, "a.b.test", "/app/x");
    assert_eq!(client.read_response().text(), "served");
}

#[test]
fn a_key_for_methods_is_for_bridges_that_take_no_others() {
    let proxy = guarded("workers 2");
    let key = narrow(B_SECOND, &["--method", "GET,HEAD"]);
    let ask = |fields: &str| {
        let line = format!("\r\n{fields}Host-Key");
        bare("b.test", &key).replacen("\r\nHost-Key", &line, 1)
    };
    for fields in ["", "If-Method: POST\r\n", "If-Method: GET\r\nIf-Method: PUT\r\n"] {
        let refusal = Bridge::refused(&proxy, ask(fields));
        let text = "the Host-Key for b.test was narrowed to some methods, and this BRIDGE does not \
            say by If-Method that it takes no others\n";
        assert_eq!((refusal.status(), &*refusal.text()), (401, text), "{fields}");
    }
    let mut bridge = Bridge::connect(&proxy);
    bridge.send(ask("If-Method: HEAD, GET\r\n"));
    bridge.expect_exact(ACK);
    let mut post = Client::connect(&proxy);
    post.send("POST /app HTTP/1.1\r\nHost: b.test\r\nContent-Length: 0\r\n\r\n");
    let mut get = Client::get(&proxy, "b.test", "/app/x");
    assert_eq!(bridge.serve_to(&mut get, "a GET alone"), "GET /app/x HTTP/1.1");
    let mut owner = Bridge::connect(&proxy);
    owner.send(bare("b.test", B_SECOND));
    owner.expect_exact(ACK);
    assert_eq!(owner.serve_to(&mut post, "the POST"), "POST /app HTTP/1.1");
}

#[test]
fn bridges_are_counted_under_all_that_a_key_was_narrowed_from() {
    let proxy = guarded("workers 4");
    let root = modern(&proxy, &["--bridges", "3"]);
    let held = narrow(&root, &["--host", "a.b.test", "--bridges", "2"]);
    let _two = [(); 2].map(|()| Bridge::prove(&proxy, &["a.b.test"], &held));
    let full = "503 as many bridges as the Host-Key for b.test+host=a.b.test+bridges=2 allows are \
        connected: 2";
    // Its holder may make any number of keys of it, and it may be made anew.
    for again in [
        held.clone(),
        narrow(&held, &["--host", "x.a.b.test"]),
        narrow(&held, &["--bridges", "1"]),
        narrow(&held, &["--expires", "1h"]),
        narrow(
            &modern(&proxy, &["--bridges", "3", "--expires", "9d"]),
            &["--host", "a.b.test", "--bridges", "2"],
        ),
    ] {
        assert_eq!(said(&proxy, "x.a.b.test", "/", &again), full);
    }
    let mut other = Bridge::prove(&proxy, &["c.b.test"], &narrow(&root, &["--host", "c.b.test"]));
    let of_root = "503 as many bridges as the Host-Key for b.test allows are connected: 3";
    assert_eq!(said(&proxy, "c.b.test", "/", &root), of_root);
    assert_eq!(said(&proxy, "d.b.test", "/", &narrow(&root, &["--host", "d.b.test"])), of_root);
    other.serve_to(&mut Client::get(&proxy, "c.b.test", "/"), "counted");
    drop(other);
    eventually("there is room", || said(&proxy, "c.b.test", "/", &root) == "100");
    // The page knows the name that the proxy's owner has made a key for, and none that a holder has.
    let info = proxy.info();
    let is_counted = |name: &str| info.at(&["keys"]).get(name).is_some();
    assert_eq!(["b.test", "a.b.test", "c.b.test"].map(is_counted), [true, false, false]);
}

/// A bridge takes a limit once, however many keys of it come from that one.
#[test]
fn a_bridge_with_two_narrowed_keys_is_one_bridge() {
    let proxy = guarded("workers 2");
    let root = modern(&proxy, &["--bridges", "2"]);
    let keys = ["x.b.test", "y.b.test"].map(|host| narrow(&root, &["--host", host]));
    let both = format!(
        "BRIDGE / HTTP/1.1\r\nHost: x.b.test\r\nHost: y.b.test\r\nHost-Key: {}\r\nHost-Key: {}\r\n\r\n",
        keys[0], keys[1]
    );
    let park = || {
        let mut bridge = Bridge::connect(&proxy);
        bridge.send(&both);
        bridge.expect_exact(ACK);
        bridge
    };
    let _two = [park(), park()];
    assert_eq!(proxy.info().number(&["keys", "b.test", "bridges"]), 2);
    let refusal = Bridge::refused(&proxy, &both);
    assert_eq!(
        refusal.text(),
        "as many bridges as the Host-Key for b.test allows are connected: 2\n"
    );
}

/// Its holder decides how long a key is.
#[test]
fn a_long_key_does_not_make_a_long_refusal() {
    let proxy = guarded("workers 2");
    let path = format!("/{}", "a".repeat(200));
    let key = narrow(B_SECOND, &["--prefix", &path, "--bridges", "1"]);
    let asked = format!("BRIDGE {path} HTTP/1.1\r\nHost: b.test\r\nHost-Key: {key}\r\n\r\n");
    let mut one = Bridge::connect(&proxy);
    one.send(&asked);
    one.expect_exact(ACK);
    assert_eq!(
        Bridge::refused(&proxy, &asked).text(),
        format!(
            "as many bridges as the Host-Key for b.test+prefix=/{}... allows are connected: 1\n",
            "a".repeat(81)
        )
    );
}

#[test]
fn revoking_a_key_takes_back_what_was_made_of_it() {
    let proxy = guarded("workers 2");
    let first = narrow(B_SECOND, &["--host", "a.b.test"]);
    let second = narrow(&first, &["--expires", "1h"]);
    let sibling = narrow(B_SECOND, &["--host", "c.b.test"]);
    let park = |host: &str, key: &str| Bridge::prove(&proxy, &[host], key);
    let (mut lost, mut kept) = (park("a.b.test", &second), park("c.b.test", &sibling));
    let revoke = |key: &str| {
        proxy.write("revoked", &key_tool(&["hash", "-"], key));
        proxy.reload_well();
    };
    revoke(&first);
    lost.expect_closed();
    let revoked = "401 the Host-Key for a.b.test has been revoked";
    assert_eq!(said(&proxy, "a.b.test", "/", &second), revoked);
    kept.serve_to(&mut Client::get(&proxy, "c.b.test", "/"), "kept");
    revoke(B_SECOND);
    kept.expect_closed();
    assert_eq!(said(&proxy, "a.b.test", "/", &first), revoked);
    // As does the end of the secret.
    proxy.write("revoked", "");
    proxy.reload_well();
    let mut again = park("a.b.test", &second);
    proxy.write("secrets", "1600000000:another\n");
    proxy.reload_well();
    again.expect_closed();
}

#[test]
fn legacy_keys_no_refuses_what_was_made_of_the_old_form() {
    let proxy = guarded("legacy-keys no");
    let text = "401 the Host-Key for b.test is of the old form, which `legacy-keys no` turns off; \
        ask for a v2 key";
    assert_eq!(said(&proxy, "b.test", "/", &narrow(B_SECOND, &["--bridges", "1"])), text);
    assert_eq!(
        said(&proxy, "b.test", "/", &narrow(&modern(&proxy, &[]), &["--bridges", "1"])),
        "100"
    );
}

#[test]
fn an_idle_bridge_is_closed_when_its_narrowed_key_expires() {
    let proxy = guarded("workers 2");
    let root = modern(&proxy, &[]);
    let mut kept = Bridge::prove(&proxy, &["b.test"], &root);
    // Time enough to register on a machine that is busy.
    let second = (unix_time() + 6).to_string();
    let key = narrow(&root, &["--host", "a.b.test", "--expires", &second]);
    let mut bridge = Bridge::prove(&proxy, &["a.b.test"], &key);
    bridge.expect_closed();
    let expired = format!("401 the Host-Key for a.b.test expired at {second} (Unix time)");
    assert_eq!(said(&proxy, "a.b.test", "/", &key), expired);
    kept.serve_to(&mut Client::get(&proxy, "b.test", "/"), "kept");
}

/// The table of all of them is in `src/bridge/hostkey/narrowed/tests.rs`.
#[test]
fn widened_keys_get_nothing_over_the_wire() {
    let proxy = guarded("workers 2");
    let held = narrow(
        &modern(&proxy, &["--bridges", "9"]),
        &["--host", "a.b.test", "--prefix", "/app", "--bridges", "2"],
    );
    let (root, _) = held.split_once('+').unwrap();
    let hash = root.split(':').nth(1).unwrap();
    let v2 = root.replacen("v3:", "v2:", 1).replacen(":v2:", ":", 1);
    let mut waiting = Client::get(&proxy, "b.test", "/app/secret");
    for forged in [
        held.replace("+host=a.b.test", ""),
        held.replace("+prefix=/app", ""),
        held.replace("+bridges=2", ""),
        held.replace("+host=a.b.test", "+host=b.test"),
        held.replace("+prefix=/app+bridges=2", "+bridges=2+prefix=/app"),
        held.replace("bridges=2", "bridges=9"),
        held.replace("host=a.b.test", "host=test"),
        held.replace(":b.test", ":test"),
        v2.clone(),
        format!("{}:1700000000:b.test", &hash[..40]),
    ] {
        for host in ["b.test", "a.b.test"] {
            let refusal = Bridge::refused(&proxy, bare(host, &forged));
            assert_eq!(refusal.status(), 401, "{forged} for {host}: {refusal:?}");
            let said = said(&proxy, host, "/app", &forged);
            assert!(said.starts_with("401 "), "{forged} for {host}: {said}");
        }
    }
    for (malformed, what) in [
        (
            held.replace("bridges=2", "bridges=02"),
            "a caveat is not known, or not written in its only way",
        ),
        (
            held.replace("bridges=2", "colour=red"),
            "a caveat is not known, or not written in its only way",
        ),
        (root.to_owned(), "it is not v3:hash:key+caveat"),
        (held.replace("+bridges=2", "+host=c.test"), "its caveats exclude each other"),
    ] {
        let refusal = Bridge::refused(&proxy, bare("a.b.test", &malformed));
        assert_eq!(refusal.status(), 400, "{malformed}");
        assert!(refusal.text().contains(what), "{refusal:?}");
    }
    // The request still waits for a bridge with the key.
    let mut owner = Bridge::connect(&proxy);
    owner.send(bare("b.test", B_SECOND));
    owner.expect_exact(ACK);
    assert_eq!(owner.serve_to(&mut waiting, "owned"), "GET /app/secret HTTP/1.1");
}
