//! Host keys that are proven and not sent.

use super::upgrade::Upgraded;
use crate::common::{
    A_FIRST, ACK, B_SECOND, Bridge, Client, Proxy, SECRETS, Setup, Stopwatch, TOKEN, challenge,
    eventually, first_bridge, named, on_time, own_address, run_well, second_bridge,
};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A proxy with these secrets and two workers.
#[track_caller]
fn guarded(settings: &str) -> Proxy {
    setup(settings).start()
}

fn setup(settings: &str) -> Setup {
    Setup::new()
        .settings(&format!(
            "workers 2\nsecrets {{dir}}/secrets\nrevoked {{dir}}/revoked\n{settings}"
        ))
        .file("secrets", SECRETS)
        .file("revoked", "")
}

/// A key of the modern form for `a.test`, as the key tool makes it.
#[track_caller]
fn modern(proxy: &Proxy, options: &[&str]) -> String {
    let file = proxy.dir().join("secrets").display().to_string();
    let mut tool = Command::new(env!("CARGO_BIN_EXE_cloudbridge-key"));
    let key = run_well(tool.args(["--secrets", &file, "--modern", "a.test"]).args(options));
    key.trim().to_owned()
}

#[track_caller]
fn count(proxy: &Proxy, name: &str) -> u64 {
    proxy.info().number(&["counters", name])
}

/// Reads a refusal of this status; returns its text.
#[track_caller]
fn refused(mut bridge: Bridge, status: u16) -> String {
    let refusal = bridge.read_refusal();
    assert_eq!(refusal.status(), status, "{refusal:?}");
    refusal.text().trim_end().to_owned()
}

const UNPROVEN: &str = "is not proven: it was changed, or not made with the secret in force at its \
    time, or the proof is for another request or connection";

#[test]
fn keys_of_both_forms_are_proven_and_serve() {
    let proxy = guarded("bearer-keys no");
    for key in [A_FIRST, &modern(&proxy, &[])] {
        for _ in 0..4 {
            let mut bridge = Bridge::prove(&proxy, &["a.test", "x.a.test"], key);
            bridge.serve_to(&mut Client::get(&proxy, "x.a.test", "/"), "proven");
            // The connection needs no other proof.
            bridge.serve_to(&mut Client::get(&proxy, "a.test", "/"), "again");
            drop(bridge);
            proxy.await_no_bridges();
        }
    }
    assert_eq!((count(&proxy, "challenges"), count(&proxy, "admitted_by_proof")), (8, 8));
    let log = proxy.log();
    assert!(!log.contains("344e847d"), "{log}");
}

#[test]
fn both_requests_may_come_byte_by_byte() {
    let proxy = guarded("");
    let first = first_bridge(&["a.test"], A_FIRST, "Expect: 100-continue\r\n");
    let mut bridge = Bridge::connect(&proxy);
    bridge.send_byte_by_byte(&first);
    let nonce = bridge.read_head().nonce();
    bridge.send_byte_by_byte(second_bridge(&first, A_FIRST, &nonce));
    bridge.expect_exact(ACK);
    bridge.serve_to(&mut Client::get(&proxy, "a.test", "/"), "slowly");
}

#[test]
fn several_keys_are_proven_at_once() {
    let proxy = guarded("bearer-keys no");
    let first = first_bridge(&["a.test", "b.test"], A_FIRST, "");
    let first =
        first.replace("Cloudbridge", &format!("Host-Key: {}\r\nCloudbridge", named(B_SECOND)));
    let (mut bridge, nonce) = Bridge::ask(&proxy, &first);
    let one = second_bridge(&first, A_FIRST, &nonce);
    let proof = second_bridge(&first, B_SECOND, &nonce);
    let proof = proof.lines().find(|line| line.ends_with("1700000000:b.test")).unwrap();
    bridge.send(one.replace(&format!("Host-Key: {}", named(B_SECOND)), proof));
    bridge.expect_exact(ACK);
    // One proof of two is not enough.
    let (mut bridge, nonce) = Bridge::ask(&proxy, &first);
    bridge.send(second_bridge(&first, A_FIRST, &nonce));
    assert_eq!(refused(bridge, 401), "the Host-Key for b.test comes without the proof");
}

/// Each of these is what somebody can do who has read a connection, or holds another key.
#[test]
fn a_proof_is_good_for_its_request_its_key_and_its_connection_alone() {
    let proxy = guarded("");
    let first = first_bridge(&["a.test"], A_FIRST, "");
    let (mut bridge, nonce) = Bridge::ask(&proxy, &first);
    let second = second_bridge(&first, A_FIRST, &nonce);
    bridge.send(&second);
    bridge.expect_exact(ACK);

    // Again, on a connection without a nonce.
    let mut replay = Bridge::connect(&proxy);
    replay.send(&second);
    let none = "the proof of a Host-Key answers a nonce, and this connection was sent none";
    assert_eq!(refused(replay, 401), none);
    // Again, on one with another.
    let (mut replay, _) = Bridge::ask(&proxy, &first);
    replay.send(&second);
    assert_eq!(refused(replay, 401), format!("the Host-Key for a.test {UNPROVEN}"));
    // For other names, on the way.
    let (mut changed, nonce) = Bridge::ask(&proxy, &first);
    changed.send(second_bridge(&first, A_FIRST, &nonce).replace("Host: a", "Host: y.a"));
    assert_eq!(refused(changed, 401), format!("the Host-Key for y.a.test {UNPROVEN}"));
    // With the name of another key.
    let theirs = format!("{}:1700000000:b.test", A_FIRST.split_once(':').unwrap().0);
    let other = first_bridge(&["b.test"], &theirs, "");
    let (mut stolen, nonce) = Bridge::ask(&proxy, &other);
    stolen.send(second_bridge(&other, &theirs, &nonce));
    assert_eq!(refused(stolen, 401), format!("the Host-Key for b.test {UNPROVEN}"));
    // The good one is still there.
    bridge.serve_to(&mut Client::get(&proxy, "a.test", "/"), "untouched");
    assert_eq!(count(&proxy, "admitted_by_proof"), 1);
}

#[test]
fn whatever_else_follows_a_nonce_gets_one_clear_answer() {
    let proxy = guarded("");
    let first = first_bridge(&["a.test"], A_FIRST, "");
    let bare = format!("BRIDGE / HTTP/1.1\r\nHost: a.test\r\nHost-Key: {A_FIRST}\r\n\r\n");
    let awaited =
        "this connection was asked to prove a Host-Key: the BRIDGE with the proof follows";
    for (sent, status, text) in [
        (first.as_str(), 401, "the Host-Key for a.test comes without the proof"),
        (&bare, 401, "the proof of the Host-Key is missing that was asked for"),
        (
            "BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n",
            401,
            "the proof of the Host-Key is missing that was asked for",
        ),
        ("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, awaited),
        ("BRIDGE / HTTP/1.1\r\n\r\n", 404, "no Host: a BRIDGE names the hosts it serves"),
    ] {
        let (mut bridge, _) = Bridge::ask(&proxy, &first);
        bridge.send(sent);
        assert_eq!(refused(bridge, status), text, "{sent}");
    }
    for (from, to, text) in [
        ("proof-", "proof-0", "bad Host-Key: the proof is not 64 hex digits in lower case"),
        (
            "Cloudbridge-Nonce: 00",
            "Cloudbridge-Nonce: 0",
            "bad Cloudbridge-Nonce: it is 32 lower-case hex digits",
        ),
        ("Cloudbridge-Nonce", "X", "a Host-Key without its hash comes with a Cloudbridge-Nonce"),
    ] {
        let (mut bridge, nonce) = Bridge::ask(&proxy, &first);
        bridge.send(second_bridge(&first, A_FIRST, &nonce).replace(from, to));
        assert_eq!(refused(bridge, 400), text);
    }
    // Before the nonce there is nothing to answer.
    let guess = second_bridge(&first, A_FIRST, "00112233445566778899aabbccddeeff");
    let refusal = Bridge::refused(&proxy, format!("{first}{guess}"));
    assert_eq!(
        (refusal.status(), refusal.text().as_str()),
        (400, "nothing may follow a BRIDGE request\n")
    );
    let mut bridge = Bridge::connect(&proxy);
    bridge.send(guess);
    assert!(refused(bridge, 401).ends_with("this connection was sent none"));
    assert_eq!(count(&proxy, "admitted_by_proof"), 0);
}

/// The time is that of one head: the nonce does not put it off.
#[test]
fn a_proof_that_does_not_come_in_time_is_408() {
    on_time(Duration::from_millis(250), || {
        let proxy = guarded("head-timeout 1s");
        let clock = Stopwatch::start();
        let (silent, _) = Bridge::ask(&proxy, &first_bridge(&["a.test"], A_FIRST, ""));
        let (mut half, _) = Bridge::ask(&proxy, &first_bridge(&["a.test"], A_FIRST, ""));
        half.send("BRIDGE / HTTP/1.1\r\nHost: a");
        let text = "the proof of the Host-Key did not come in time";
        assert_eq!([silent, half].map(|bridge| refused(bridge, 408)), [text, text]);
        clock.assert_passed(Duration::from_secs(1));
    });
}

#[test]
fn thousands_of_nonces_are_different_and_cost_nobody_else() {
    let proxy = guarded("head-timeout 60s\nmax-connections 3000");
    let first = first_bridge(&["a.test"], A_FIRST, "");
    let mut nonces = BTreeSet::new();
    let mut asked = Vec::new();
    for _ in 0..1000 {
        let (bridge, nonce) = Bridge::ask(&proxy, &first);
        assert!(nonces.insert(nonce), "a nonce comes again");
        asked.push(bridge);
    }
    let mut good = Bridge::prove(&proxy, &["a.test"], A_FIRST);
    good.serve_to(&mut Client::get(&proxy, "a.test", "/"), "served");
    assert_eq!(count(&proxy, "challenges"), 1001);
    drop(asked);
    eventually("they are gone", || proxy.count("?") == 0);
}

#[test]
fn bearer_keys_no_demands_a_proof_and_closes_the_bridges_without_one() {
    let proxy = guarded("bearer-keys yes");
    let bare = format!("BRIDGE / HTTP/1.1\r\nHost: b.test\r\nHost-Key: {B_SECOND}\r\n\r\n");
    let mut idle: Vec<Bridge> = (0..4).map(|_| Bridge::register(&proxy, &bare)).collect();
    let mut busy = Bridge::register(&proxy, bare.replace("Host: b", "Host: x.b"));
    let mut client = Client::get(&proxy, "x.b.test", "/");
    busy.accept_request();
    let mut proven = Bridge::prove(&proxy, &["a.test"], A_FIRST);
    let metrics = proxy.admin("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for line in [
        "cloudbridge_bridges_admitted_total{by=\"proof\"} 1\n",
        "cloudbridge_bridges_admitted_total{by=\"bearer_key\"} 5\n",
        "cloudbridge_bearer_bridges 5\n",
        "cloudbridge_challenges_total 1\n",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    proxy.change_settings("bearer-keys yes", "bearer-keys no");
    proxy.reload_well();
    for bridge in &mut idle {
        bridge.expect_closed();
    }
    proxy.await_log("host keys must be proven from now on; 4 bridges closed, and 1 bridge when their requests are served, within 30 s");
    busy.respond("finished");
    assert_eq!(client.read_response().text(), "finished");
    busy.expect_closed();
    proven.serve_to(&mut Client::get(&proxy, "a.test", "/"), "still there");
    eventually("none is left", || {
        proxy
            .admin("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .contains("cloudbridge_bearer_bridges 0\n")
    });
    let refusal = Bridge::refused(&proxy, &bare);
    let text = "the Host-Key for b.test was sent as it is, which `bearer-keys no` refuses; a \
        backend that proves it is needed, without --bearer-keys\n";
    assert_eq!((refusal.status(), refusal.text().as_str()), (401, text));
    // And back.
    let text = std::fs::read_to_string(proxy.dir().join("cloudbridge.conf")).unwrap();
    proxy.write("cloudbridge.conf", &text.replace("bearer-keys no", "bearer-keys yes"));
    proxy.reload_well();
    Bridge::register(&proxy, &bare);
}

#[test]
fn the_state_and_the_log_tell_who_has_proven_its_keys() {
    let proxy = setup("log-level debug").start();
    let bare = format!(
        "BRIDGE / HTTP/1.1\r\nHost: b.test\r\nHost-Key: {B_SECOND}\r\nCloudbridge-Backend: {TOKEN}\r\n\r\n"
    );
    let mut bearer = Bridge::connect(&proxy);
    bearer.send(bare);
    assert_eq!(bearer.read_head().status(), 100);
    let _proven = Bridge::prove(&proxy, &["a.test"], A_FIRST);
    proxy.await_log("for [\"b.test\"], admitted by bearer key");
    proxy.await_log("for [\"a.test\"], admitted by proof");
    let state = proxy.admin("GET /state.json HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let state: serde_json::Value =
        serde_json::from_str(state.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let bearers: BTreeSet<(String, u64)> = state["backends"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["key"].as_str().unwrap().to_owned(), row["bearer"].as_u64().unwrap()))
        .collect();
    assert_eq!(bearers, BTreeSet::from([("a.test".to_owned(), 0), ("b.test".to_owned(), 1)]));
    let log = proxy.log();
    assert!(!log.contains("984629ea") && !log.contains("344e847d"), "{log}");
}

#[test]
fn limits_expiry_and_revocation_hold_for_proven_keys() {
    let proxy = guarded("bearer-keys no");
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 6;
    let key = modern(&proxy, &["--expires", &at.to_string(), "--bridges", "1"]);
    let mut only = Bridge::prove(&proxy, &["a.test"], &key);
    let first = first_bridge(&["a.test"], &key, "");
    let ask = || {
        let (mut bridge, nonce) = Bridge::ask(&proxy, &first);
        bridge.send(second_bridge(&first, &key, &nonce));
        bridge
    };
    let surplus = "as many bridges as the Host-Key for a.test allows are connected: 1";
    assert_eq!(refused(ask(), 503), surplus);
    // A key of another form, taken back.
    let mut old = Bridge::prove(&proxy, &["b.test"], B_SECOND);
    let mut tool = Command::new(env!("CARGO_BIN_EXE_cloudbridge-key"));
    proxy.write("revoked", &run_well(tool.args(["hash", B_SECOND])));
    proxy.reload_well();
    old.expect_closed();
    let again = first_bridge(&["b.test"], B_SECOND, "");
    let (mut bridge, nonce) = Bridge::ask(&proxy, &again);
    bridge.send(second_bridge(&again, B_SECOND, &nonce));
    assert_eq!(refused(bridge, 401), "the Host-Key for b.test has been revoked");
    only.expect_closed();
    assert!(refused(ask(), 401).contains("expired at"));
    assert_eq!((count(&proxy, "keys_revoked"), count(&proxy, "keys_expired")), (1, 1));
}

#[test]
fn without_secrets_a_named_key_needs_no_proof() {
    let proxy = Setup::new().settings("workers 2").start();
    let mut bridge = Bridge::register(&proxy, first_bridge(&["a.test"], A_FIRST, ""));
    bridge.serve_to(&mut Client::get(&proxy, "a.test", "/"), "served");
    assert_eq!(proxy.info().number(&["keys", "a.test", "bridges"]), 1);
}

#[test]
fn a_leave_is_proven_like_a_bridge() {
    let proxy = guarded("bearer-keys no");
    let first = first_bridge(&["a.test"], A_FIRST, &format!("Cloudbridge-Backend: {TOKEN}\r\n"));
    let (mut bridge, nonce) = Bridge::ask(&proxy, &first);
    bridge.send(second_bridge(&first, A_FIRST, &nonce));
    assert_eq!(bridge.read_head().status(), 100);
    let leave = first.replace("Cloudbridge-Backend", "Cloudbridge-Leave");
    // A proof of the bridge is none of the leave, whatever was read on the way.
    let (mut forged, nonce) = Bridge::ask(&proxy, &leave);
    let proof = second_bridge(&first, A_FIRST, &nonce);
    forged.send(proof.replace("Cloudbridge-Backend", "Cloudbridge-Leave"));
    assert_eq!(refused(forged, 401), format!("the Host-Key for a.test {UNPROVEN}"));
    let (mut left, nonce) = Bridge::ask(&proxy, &leave);
    left.send(second_bridge(&leave, A_FIRST, &nonce));
    assert_eq!(left.read_refusal().status(), 200);
    bridge.expect_closed();
}

/// A backend has said what it is: neither an upgrade nor a stop leaves it without an answer.
#[test]
fn upgrades_keep_proofs_that_were_given_and_those_under_way() {
    let proxy = Upgraded::with(setup("bearer-keys no"));
    let mut parked = Bridge::prove(&proxy, &["a.test"], A_FIRST);
    let mut used = Bridge::prove(&proxy, &["b.test"], B_SECOND);
    used.serve_to(&mut Client::get(&proxy, "b.test", "/"), "before");
    let first = first_bridge(&["x.a.test"], A_FIRST, "");
    let (mut asked, nonce) = Bridge::ask(&proxy, &first);
    for round in 0..2 {
        proxy.upgrade();
        if round == 0 {
            asked.send(second_bridge(&first, A_FIRST, &nonce));
            asked.expect_exact(ACK);
        }
        asked.serve_to(&mut Client::get(&proxy, "x.a.test", "/"), "under way");
        used.serve_to(&mut Client::get(&proxy, "b.test", "/"), "after");
    }
    parked.serve_to(&mut Client::get(&proxy, "a.test", "/"), "parked");
    assert!(!proxy.log().contains("is closed:"), "{}", proxy.log());
}

/// What has been sent as it is stays so, whatever programs come.
#[test]
fn upgrades_do_not_make_a_bearer_key_a_proven_one() {
    let proxy = Upgraded::with(setup("bearer-keys yes"));
    let bare = format!("BRIDGE / HTTP/1.1\r\nHost: b.test\r\nHost-Key: {B_SECOND}\r\n\r\n");
    let mut bearer = Bridge::register(&proxy, bare);
    let mut proven = Bridge::prove(&proxy, &["a.test"], A_FIRST);
    proxy.upgrade();
    proxy.change_settings("bearer-keys yes", "bearer-keys no");
    proxy.upgrade();
    let refusal = bearer.read_refusal();
    assert!(refusal.text().contains("which `bearer-keys no` refuses"), "{refusal:?}");
    proven.serve_to(&mut Client::get(&proxy, "a.test", "/"), "proven");
}

/// A false proxy has nothing but what it is given, and cannot use that at the real one.
#[test]
fn a_false_proxy_gets_no_key() {
    let proxy = guarded("");
    let false_one = std::net::TcpListener::bind((own_address(), 0)).unwrap();
    let address = false_one.local_addr().unwrap().to_string();
    let agent = crate::common::Agent::start(&[
        "--echo", "-n1", "--host", "a.test", "--key", A_FIRST, &address,
    ]);
    let false_one = crate::common::Played::over(false_one);
    let (mut victim, first) = false_one.bridge();
    let chosen = "00000000000000000000000000000000";
    victim.send(challenge(chosen));
    let second = victim.read_head();
    let seen = [first.head.clone(), second.head.clone()].concat();
    let seen = String::from_utf8(seen).unwrap();
    assert!(!seen.contains(A_FIRST.split(':').next().unwrap()), "{seen}");
    // The real one has another nonce.
    let (mut thief, _) = Bridge::ask(&proxy, std::str::from_utf8(&first.head).unwrap());
    thief.send(&second.head);
    assert!(refused(thief, 401).contains("is not proven"));
    drop(agent);
}
