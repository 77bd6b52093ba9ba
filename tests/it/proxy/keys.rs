//! Host keys: which names a backend may serve when the proxy has secrets.
//!
//! The digests are `printf '%s' SECRET:TIMESTAMP:NAME | sha1sum`.

use crate::common::{A_FIRST, A_SECOND, ACK, B_SECOND, Bridge, Client, Proxy, SECRETS, Setup};

/// Made with the newest secret, but dated back to when `first` was in force.
const A_SECOND_DATED_BACK: &str = "b9f34662051051363aab8e6e02068cf365584fad:1100000000:a.test";
/// Made with a secret that had been replaced by then.
const A_FIRST_TOO_LATE: &str = "1dd507d09e87c584e17caa9a63edb8b7688ec505:1700000000:a.test";
const A_THIRD: &str = "4a882500c68fd5c98d0ecccd31931c0f4a6ad257:1750000000:a.test";
const STAR_C_SECOND: &str = "0cc9b72b1bae445497b22a4e62a0cdffe262b350:1700000000:*.c.test";
const X_C_SECOND: &str = "5e5c6d806924eca7992a76a07e4c0d115f560389:1700000000:x.c.test";
const STAR_SECOND: &str = "64bb57de3650ef6b8a4361fa6c5bf116410f7877:1700000000:*";
const TEST_SECOND: &str = "85c0c2e6137bca4296aff3207ede6faa29918e80:1700000000:test";

fn guarded() -> Proxy {
    Setup::new().settings("secrets {dir}/secrets").file("secrets", SECRETS).start()
}

fn registration(hosts: &[&str], keys: &[&str]) -> String {
    let hosts: String = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect();
    let keys: String = keys.iter().map(|key| format!("Host-Key: {key}\r\n")).collect();
    format!("BRIDGE / HTTP/1.1\r\n{hosts}{keys}\r\n")
}

/// What the proxy says to a registration: 100, or the status of its refusal.
fn answer_to(proxy: &Proxy, hosts: &[&str], keys: &[&str]) -> u16 {
    let mut bridge = Bridge::connect(proxy);
    bridge.send(registration(hosts, keys));
    bridge.read_head().status()
}

#[test]
fn a_key_covers_its_name_and_every_name_below() {
    let proxy = guarded();
    for (host, key, expected) in [
        ("a.test", A_SECOND, 100),
        ("A.Test", A_SECOND, 100),
        ("a.test:8080", A_SECOND, 100),
        ("www.a.test", A_SECOND, 100),
        ("x.y.a.test", A_SECOND, 100),
        ("*.a.test", A_SECOND, 100),
        ("xa.test", A_SECOND, 401),
        ("b.test", A_SECOND, 401),
        ("test", A_SECOND, 401),
        ("*.test", A_SECOND, 401),
        ("*", A_SECOND, 401),
        ("*.test", TEST_SECOND, 100),
        ("a.test", TEST_SECOND, 100),
        ("*.c.test", STAR_C_SECOND, 100),
        ("c.test", STAR_C_SECOND, 401),
    ] {
        assert_eq!(answer_to(&proxy, &[host], &[key]), expected, "{host} by {key}");
    }
}

#[test]
fn a_key_is_checked_against_the_secret_of_its_own_time_or_the_newest() {
    let proxy = guarded();
    for (key, expected) in [
        (A_FIRST, 100),
        (A_SECOND, 100),
        (A_SECOND_DATED_BACK, 100),
        (A_FIRST_TOO_LATE, 401),
        (A_THIRD, 401),
        ("0000000000000000000000000000000000000000:1700000000:a.test", 401),
    ] {
        assert_eq!(answer_to(&proxy, &["a.test"], &[key]), expected, "{key}");
    }
}

#[test]
fn each_of_several_hosts_must_be_covered_by_one_of_several_keys() {
    let proxy = guarded();
    let both = ["a.test", "b.test"];
    assert_eq!(answer_to(&proxy, &both, &[A_SECOND, B_SECOND]), 100);
    assert_eq!(answer_to(&proxy, &both, &[B_SECOND, A_FIRST]), 100);
    assert_eq!(answer_to(&proxy, &both, &[]), 401);
    let refusal = Bridge::refused(&proxy, registration(&both, &[A_SECOND]));
    assert_eq!(refusal.status(), 401);
    assert!(refusal.text().contains("b.test"), "{refusal:?}");
}

#[test]
fn a_refused_bridge_gets_no_request() {
    let proxy = guarded();
    let mut client = Client::get(&proxy, "a.test", "/secret");
    assert_eq!(Bridge::refused(&proxy, registration(&["a.test"], &[B_SECOND])).status(), 401);
    let mut owner = Bridge::register(&proxy, registration(&["a.test"], &[A_SECOND]));
    assert_eq!(owner.serve_to(&mut client, "owned"), "GET /secret HTTP/1.1");
}

#[test]
fn a_reload_brings_new_secrets_and_revokes_removed_ones() {
    let proxy = guarded();
    assert_eq!(answer_to(&proxy, &["a.test"], &[A_THIRD]), 401);
    proxy.write("secrets", "1600000000:second\n1740000000:third\n");
    proxy.reload_well();
    assert_eq!(answer_to(&proxy, &["a.test"], &[A_THIRD]), 100, "the new secret is in force");
    assert_eq!(answer_to(&proxy, &["a.test"], &[A_FIRST]), 401, "its line is gone");
    assert_eq!(answer_to(&proxy, &["a.test"], &[A_SECOND]), 100, "rotation breaks no key");
    assert_eq!(answer_to(&proxy, &["a.test"], &[A_SECOND_DATED_BACK]), 401, "no longer the newest");
}

#[test]
fn a_bad_secrets_file_changes_nothing_and_says_why() {
    let proxy = guarded();
    proxy.write("secrets", "1600000000:second\nhunter2 is no line\n");
    proxy.reload();
    proxy.await_log("secrets:2:");
    assert_eq!(answer_to(&proxy, &["a.test"], &[A_FIRST]), 100);
    assert!(!proxy.log().contains("hunter2"), "a secret in the log");
}

#[test]
fn secrets_and_keys_stay_out_of_the_log() {
    let proxy = Setup::new()
        .settings("secrets {dir}/secrets\nlog-level trace")
        .file("secrets", SECRETS)
        .start();
    let mut bridge = Bridge::connect(&proxy);
    bridge.send(registration(&["a.test"], &[A_SECOND]));
    bridge.expect_exact(ACK);
    Bridge::refused(&proxy, registration(&["b.test"], &[A_SECOND]));
    let log = proxy.log();
    assert!(!log.contains("adb7c404c49597d34e253d48aba583c439491d84"), "{log}");
    assert!(!log.contains(":second"), "{log}");
}

/// A bridge that is busy, a less specific one with another key, and their clients: that of the busy
/// one, and one that has asked for the same name since.
#[track_caller]
fn beside_a_busy_owner(
    proxy: &Proxy,
    (host, owner_key): (&str, &str),
    (pattern, key): (&str, &str),
) -> (Bridge, Bridge, [Client; 2]) {
    let mut owner = Bridge::register(proxy, registration(&[host], &[owner_key]));
    let mut first = Client::get(proxy, host, "/first");
    owner.serve_to(&mut first, "first");
    first.send_get(host, "/slow");
    owner.accept_request();
    let other = Bridge::register(proxy, registration(&[pattern], &[key]));
    let second = Client::get(proxy, host, "/second");
    (owner, other, [first, second])
}

/// Otherwise the holder of a key for `*` would get the requests of every other, cookies included, as
/// soon as their own bridges are busy, and a client can see to that.
#[test]
fn bridge_does_not_help_out_with_names_that_its_key_does_not_cover() {
    for (owner, other, own_name) in [
        (("a.test", A_SECOND), ("*", STAR_SECOND), "z.test"),
        (("x.c.test", X_C_SECOND), ("*.c.test", STAR_C_SECOND), "z.c.test"),
        (("x.c.test", X_C_SECOND), ("*", STAR_SECOND), "z.test"),
    ] {
        let proxy = guarded();
        let (mut owned, mut other, [mut first, mut second]) =
            beside_a_busy_owner(&proxy, owner, other);
        proxy.await_count("c", 1);
        other.assert_untouched(&proxy, own_name);
        owned.respond_to(&mut first, "slow");
        assert_eq!(owned.serve_to(&mut second, "second"), "GET /second HTTP/1.1");
    }
}

#[test]
fn bridge_helps_out_with_names_that_its_key_covers() {
    let proxy = guarded();
    let (mut owned, mut other, [mut first, mut second]) =
        beside_a_busy_owner(&proxy, ("a.test", A_SECOND), ("*.test", TEST_SECOND));
    assert_eq!(other.serve_to(&mut second, "helped"), "GET /second HTTP/1.1");
    owned.respond_to(&mut first, "slow");
}

#[test]
fn bridge_that_registers_later_gets_no_waiting_request_that_its_key_does_not_cover() {
    let proxy = guarded();
    let mut owned = Bridge::register(&proxy, registration(&["a.test"], &[A_SECOND]));
    let mut first = Client::get(&proxy, "a.test", "/first");
    owned.accept_request();
    let mut second = Client::get(&proxy, "a.test", "/second");
    proxy.await_count("c", 1);
    let mut star = Bridge::register(&proxy, registration(&["*"], &[STAR_SECOND]));
    star.assert_untouched(&proxy, "z.test");
    owned.respond_to(&mut first, "first");
    assert_eq!(owned.serve_to(&mut second, "second"), "GET /second HTTP/1.1");
}

#[test]
fn confined_bridges_are_deregistered_like_others() {
    let proxy = guarded();
    let token = "0123456789abcdef0123456789abcdef";
    let with = |field: &str| {
        format!(
            "BRIDGE / HTTP/1.1\r\nHost: *\r\nHost-Key: {STAR_SECOND}\r\n{field}: {token}\r\n\r\n"
        )
    };
    let mut bridge = Bridge::connect(&proxy);
    bridge.send(with("Cloudbridge-Backend"));
    assert_eq!(bridge.read_head().status(), 100);
    let mut leave = Client::connect_to(proxy.for_bridges());
    leave.send(with("Cloudbridge-Leave"));
    assert_eq!(leave.read_response().status(), 200);
    bridge.expect_closed();
}
