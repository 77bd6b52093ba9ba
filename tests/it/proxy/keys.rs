//! Host keys: which names a backend may serve when the proxy has secrets.
//!
//! The digests are `printf '%s' SECRET:TIMESTAMP:NAME | sha1sum`.

use crate::common::{ACK, Bridge, Client, Proxy, Setup, eventually};

const SECRETS: &str = "1000000000:first\n1600000000:second\n";

/// Made while `first` was in force.
const A_FIRST: &str = "344e847d1b3cdfc8673cfe1d0388b7b78ab720e6:1100000000:a.test";
/// Made while `second` was in force.
const A_SECOND: &str = "adb7c404c49597d34e253d48aba583c439491d84:1700000000:a.test";
/// Made with the newest secret, but dated back to when `first` was in force.
const A_SECOND_DATED_BACK: &str = "b9f34662051051363aab8e6e02068cf365584fad:1100000000:a.test";
/// Made with a secret that had been replaced by then.
const A_FIRST_TOO_LATE: &str = "1dd507d09e87c584e17caa9a63edb8b7688ec505:1700000000:a.test";
const A_THIRD: &str = "4a882500c68fd5c98d0ecccd31931c0f4a6ad257:1750000000:a.test";
const B_SECOND: &str = "984629eac3ec2365a808dfc4d96533aead9df91a:1700000000:b.test";
const STAR_C_SECOND: &str = "0cc9b72b1bae445497b22a4e62a0cdffe262b350:1700000000:*.c.test";
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
    proxy.reload();
    eventually("the new secret is in force", || answer_to(&proxy, &["a.test"], &[A_THIRD]) == 100);
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
