//! Host keys against known answers (`printf SECRET:TIMESTAMP:NAME | sha1sum`), and who covers whom.

use super::*;
use crate::protocol::bridge::{self, Limits};

/// Secret `secret`, made at 1234567890.
const A_EXAMPLE: &str = "817d1d4d1f9157057ea40057a7edfa9ac6f2a4eb:1234567890:a.example.com";
/// Secret `old`, made at 1000.
const OLD_B: &str = "329b002bbd6a5d2e601b877a37e651a0eccd0178:1000:b.com";
/// Secret `new`, made at 2500.
const NEW_STAR: &str = "8654d235565cbe6e4a1c30be1b91269d326d2750:2500:*.b.com";
/// Secret `s:e:c r:et`, made at 1700000000.
const UPPER: &str = "3a6a09c8d5a0a58b79d2c6772fabf2d7dbc47f3e:1700000000:Example.COM";

#[track_caller]
fn key(text: &str) -> HostKey {
    HostKey::parse(text.as_bytes()).unwrap()
}

#[track_caller]
fn secrets(text: &str) -> Secrets {
    Secrets::parse(text, "keys").unwrap()
}

#[track_caller]
fn errors(text: &str) -> Vec<String> {
    Secrets::parse(text, "keys").unwrap_err()
}

fn registration(hosts: &[&str], keys: &[&str]) -> Registration {
    let mut head = String::from("BRIDGE / HTTP/1.1\r\n");
    for host in hosts {
        head += &format!("Host: {host}\r\n");
    }
    for key in keys {
        head += &format!("Host-Key: {key}\r\n");
    }
    head += "\r\n";
    let parsed = bridge::parse(head.as_bytes(), &Limits::default());
    parsed.unwrap().expect("whole")
}

#[test]
fn keys_are_those_of_the_original() {
    assert_eq!(legacy_key("secret", 1234567890, "a.example.com"), A_EXAMPLE);
    assert_eq!(legacy_key("old", 1000, "b.com"), OLD_B);
    assert_eq!(legacy_key("new", 2500, "*.b.com"), NEW_STAR);
    assert_eq!(legacy_key("s:e:c r:et", 1700000000, "Example.COM"), UPPER);
}

#[test]
fn a_key_is_good_under_its_secret_only() {
    let key = key(A_EXAMPLE);
    assert!(secrets("1:secret\n").verify(&key, 2_000_000_000));
    assert!(!secrets("1:Secret\n").verify(&key, 2_000_000_000));
    assert!(!secrets("1:secret \n").verify(&key, 2_000_000_000));
}

#[test]
fn a_secret_may_hold_colons_and_spaces_and_a_name_capitals() {
    let key = key(UPPER);
    assert_eq!(key.name(), "example.com");
    assert!(secrets("1:s:e:c r:et").verify(&key, 1_700_000_000));
}

#[test]
fn every_changed_digit_spoils_a_key() {
    let secrets = secrets("1:secret");
    for at in 0..50 {
        if at == 40 {
            continue;
        }
        let mut bytes = A_EXAMPLE.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        let changed = HostKey::parse(&bytes).unwrap();
        assert!(!secrets.verify(&changed, 2_000_000_000), "at {at}");
    }
}

#[test]
fn a_hash_may_be_in_capitals() {
    let (hash, rest) = A_EXAMPLE.split_once(':').unwrap();
    let key = key(&format!("{}:{rest}", hash.to_uppercase()));
    assert!(secrets("1:secret").verify(&key, 2_000_000_000));
}

#[test]
fn a_key_outlives_the_next_secret() {
    let rotated = secrets("500:old\n2000:new\n");
    assert!(rotated.verify(&key(OLD_B), 1500));
    assert!(rotated.verify(&key(OLD_B), 9999));
    assert!(rotated.verify(&key(NEW_STAR), 9999));
}

#[test]
fn the_newest_secret_serves_keys_of_any_age() {
    // Made under the secret that is in force now, but dated into the time of another.
    let rotated = secrets("500:older\n900:other\n3000:old\n");
    assert!(!rotated.verify(&key(OLD_B), 2999));
    assert!(rotated.verify(&key(OLD_B), 3000));
    // Dated before the first line.
    assert!(secrets("1001:old").verify(&key(OLD_B), 1001));
}

#[test]
fn a_secret_of_the_past_serves_only_keys_of_its_time() {
    // `old` was in force until 999, the key says 1000, and `third` is the newest.
    let rotated = secrets("500:old\n1000:new\n2000:third\n");
    assert!(!rotated.verify(&key(OLD_B), 9999));
}

#[test]
fn a_line_taken_out_revokes_its_keys() {
    assert!(secrets("100:first\n900:old\n2000:new").verify(&key(OLD_B), 9999));
    assert!(!secrets("100:first\n2000:new").verify(&key(OLD_B), 9999));
}

#[test]
fn a_secret_is_not_used_before_its_time() {
    let dated = secrets("1000:now\n2000:new\n");
    assert!(!dated.verify(&key(NEW_STAR), 1999));
    assert!(dated.verify(&key(NEW_STAR), 2000));
    assert!(!secrets("2000:new").verify(&key(NEW_STAR), 1999));
}

#[test]
fn a_key_from_a_clock_that_is_ahead_is_good() {
    assert!(secrets("1000:new\n").verify(&key(NEW_STAR), 2400));
}

#[test]
fn the_newest_secret_in_force_is_known() {
    let dated = secrets("1000:a\n2000:b\n");
    assert_eq!(dated.newest(999), None);
    assert_eq!(dated.newest(1000), Some(1000));
    assert_eq!(dated.newest(1999), Some(1000));
    assert_eq!(dated.newest(u64::MAX), Some(2000));
}

#[test]
fn a_key_without_hash_proves_nothing() {
    let stats = key("::a.example.com");
    assert_eq!(stats.name(), "a.example.com");
    assert!(!secrets("0:secret").verify(&stats, 1));
}

#[test]
fn malformed_keys_are_told_apart() {
    let hash = "0".repeat(40);
    for (text, expected) in [
        (String::new(), BadKey::Shape),
        ("sesame".into(), BadKey::Shape),
        (format!("{hash}:1"), BadKey::Shape),
        (format!("{}:1:a", &hash[1..]), BadKey::Hash),
        (format!("{hash}0:1:a"), BadKey::Hash),
        (format!("{}g:1:a", &hash[1..]), BadKey::Hash),
        (format!("{hash}:+1:a"), BadKey::Timestamp),
        (format!("{hash}:-1:a"), BadKey::Timestamp),
        (format!("{hash}: 1:a"), BadKey::Timestamp),
        (format!("{hash}:18446744073709551616:a"), BadKey::Timestamp),
        (format!("{hash}:1:"), BadKey::Name(BadPattern::Empty)),
        (format!("{hash}:1:a b"), BadKey::Name(BadPattern::Character)),
        (format!("{hash}:1:a.*"), BadKey::Name(BadPattern::Wildcard)),
    ] {
        assert_eq!(HostKey::parse(text.as_bytes()).unwrap_err(), expected, "{text}");
    }
    assert_eq!(HostKey::parse(b"\xff::a").unwrap_err(), BadKey::Shape);
    // Two halves of one character where two hex digits should be.
    let split = format!("{}\u{fc}:1:a", "0".repeat(38));
    assert_eq!(HostKey::parse(split.as_bytes()).unwrap_err(), BadKey::Hash);
}

#[test]
fn a_secrets_file_may_have_blank_lines_and_any_line_end() {
    for text in ["1:a\n2:b\n", "1:a\n2:b", "\n1:a\r\n\n  \n2:b\r\n"] {
        let read = secrets(text);
        let lines: Vec<_> = read.lines.iter().map(|s| (s.from, s.text.as_str())).collect();
        assert_eq!(lines, [(1, "a"), (2, "b")], "{text:?}");
    }
    assert_eq!(secrets("1:#a: b ").lines[0].text, "#a: b ");
}

#[test]
fn all_bad_lines_are_told_and_none_is_shown() {
    assert_eq!(
        errors(
            "10:good\nsesame\nx:sesame\n+11:sesame\n:sesame\n12:\n10:sesame\n\n9:sesame\n13:fine\n"
        ),
        [
            "keys:2: a line is timestamp:secret, and this one has no colon",
            "keys:3: the timestamp is not a number of seconds",
            "keys:4: the timestamp is not a number of seconds",
            "keys:5: the timestamp is not a number of seconds",
            "keys:6: the secret is empty",
            "keys:7: the timestamp is not above the one before it",
            "keys:9: the timestamp is not above the one before it",
        ]
    );
    assert_eq!(errors(""), ["keys:1: no secret in this file"]);
    assert_eq!(errors("\n\n"), ["keys:1: no secret in this file"]);
}

#[test]
fn debug_output_holds_no_secret() {
    assert_eq!(format!("{:?}", secrets("1:sesame\n2:seed")), "Secrets(2 of them)");
    assert_eq!(format!("{:?}", key(A_EXAMPLE)), "HostKey(***:1234567890:a.example.com)");
}

#[test]
fn a_key_covers_its_name_and_all_below_it() {
    for (name, pattern, expected) in [
        ("b.com", "b.com", true),
        ("b.com", "x.b.com", true),
        ("b.com", "y.x.b.com", true),
        ("b.com", "*.b.com", true),
        ("b.com", "*.x.b.com", true),
        ("b.com", "xb.com", false),
        ("b.com", "com", false),
        ("b.com", "b.com.evil", false),
        ("b.com", "*", false),
        ("*.b.com", "*.b.com", true),
        ("*.b.com", "b.com", false),
        ("*.b.com", "x.b.com", false),
        ("*.b.com", "*.x.b.com", false),
        ("*", "*", true),
        ("*", "b.com", false),
        ("*", "*.b.com", false),
    ] {
        assert_eq!(covers(name, pattern), expected, "{name} {pattern}");
    }
}

#[test]
fn each_host_needs_a_key() {
    let secrets = secrets("1:old\n2000:new");
    let one = registration(&["x.b.com", "B.com"], &[OLD_B]);
    assert_eq!(authorise(&one, &secrets, 9999).unwrap(), ["b.com"]);

    let made = legacy_key("new", 3000, "c.test");
    let two = registration(&["c.test", "*.b.com"], &[OLD_B, &made, NEW_STAR]);
    assert_eq!(authorise(&two, &secrets, 9999).unwrap(), ["c.test", "b.com"]);

    let uncovered = registration(&["b.com", "c.test"], &[OLD_B]);
    let refusal = authorise(&uncovered, &secrets, 9999).unwrap_err();
    assert_eq!(refusal, Refusal::new(401, "no Host-Key covers c.test"));

    let keyless = registration(&["*"], &[]);
    let refusal = authorise(&keyless, &secrets, 9999).unwrap_err();
    assert_eq!(refusal, Refusal::new(401, "no Host-Key covers *"));
}

#[test]
fn a_wrong_key_is_told_from_a_missing_one() {
    let registration = registration(&["b.com"], &[OLD_B, "::b.com"]);
    let refusal = authorise(&registration, &secrets("1:other"), 9999).unwrap_err();
    assert_eq!(
        refusal,
        Refusal::new(401, "the Host-Key for b.com does not check out: has it expired?")
    );
}

#[test]
fn a_wrong_key_does_not_spoil_a_right_one() {
    let wrong = legacy_key("other", 1000, "b.com");
    let registration = registration(&["b.com"], &[&wrong, OLD_B]);
    assert_eq!(authorise(&registration, &secrets("1:old"), 9999).unwrap(), ["b.com"]);
}
