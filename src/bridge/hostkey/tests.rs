//! Host keys against known answers (`printf SECRET:TIMESTAMP:NAME | sha1sum`), and who covers whom.

use super::error::KeyError;
use super::*;
use crate::bridge::pattern::PatternError;
use crate::bridge::proof::{self, NONCE_BYTES, Nonce, PLAIN_TEXT};
use crate::bridge::request::{self, Refusal, Registration};
use crate::http::Limits;
use crate::http::host_name::HostNameError;
use std::num::NonZeroU32;

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

fn is_good(secrets: &Secrets, key: &HostKey, now: u64) -> bool {
    secrets.check(key, now).is_ok()
}

fn ring(secrets: &Secrets, forms: Forms) -> Keyring {
    Keyring::new(secrets.clone(), Revoked::default(), forms)
}

/// What the keys of a registration grant, or its refusal.
fn judge(registration: &Registration, secrets: &Secrets) -> Result<Vec<String>, Refusal> {
    let grants = authorise(registration, &ring(secrets, Forms::Both), 9999)?;
    Ok(grants.into_iter().map(|grant| grant.name).collect())
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
    let parsed = request::parse(head.as_bytes(), &Limits::default());
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
    assert!(is_good(&secrets("1:secret\n"), &key, 2_000_000_000));
    assert!(!is_good(&secrets("1:Secret\n"), &key, 2_000_000_000));
    assert!(!is_good(&secrets("1:secret \n"), &key, 2_000_000_000));
}

#[test]
fn a_secret_may_hold_colons_and_spaces_and_a_name_capitals() {
    let key = key(UPPER);
    assert_eq!(key.name(), "example.com");
    assert!(is_good(&secrets("1:s:e:c r:et"), &key, 1_700_000_000));
}

#[test]
fn key_with_a_changed_digit_is_invalid() {
    let secrets = secrets("1:secret");
    for at in 0..50 {
        if at == 40 {
            continue;
        }
        let mut bytes = A_EXAMPLE.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        let changed = HostKey::parse(&bytes).unwrap();
        assert!(!is_good(&secrets, &changed, 2_000_000_000), "at {at}");
    }
}

#[test]
fn a_hash_may_be_in_capitals() {
    let (hash, rest) = A_EXAMPLE.split_once(':').unwrap();
    let key = key(&format!("{}:{rest}", hash.to_uppercase()));
    assert!(is_good(&secrets("1:secret"), &key, 2_000_000_000));
}

#[test]
fn key_is_valid_after_rotation() {
    let rotated = secrets("500:old\n2000:new\n");
    assert!(is_good(&rotated, &key(OLD_B), 1500));
    assert!(is_good(&rotated, &key(OLD_B), 9999));
    assert!(is_good(&rotated, &key(NEW_STAR), 9999));
}

#[test]
fn the_newest_secret_serves_keys_of_any_age() {
    // Made under the secret that is in force now, but dated into the time of another.
    let rotated = secrets("500:older\n900:other\n3000:old\n");
    assert!(!is_good(&rotated, &key(OLD_B), 2999));
    assert!(is_good(&rotated, &key(OLD_B), 3000));
    // Dated before the first line.
    assert!(is_good(&secrets("1001:old"), &key(OLD_B), 1001));
}

#[test]
fn a_secret_of_the_past_serves_only_keys_of_its_time() {
    // `old` was in force until 999, the key says 1000, and `third` is the newest.
    let rotated = secrets("500:old\n1000:new\n2000:third\n");
    assert!(!is_good(&rotated, &key(OLD_B), 9999));
}

#[test]
fn removed_secret_revokes_its_keys() {
    assert!(is_good(&secrets("100:first\n900:old\n2000:new"), &key(OLD_B), 9999));
    assert!(!is_good(&secrets("100:first\n2000:new"), &key(OLD_B), 9999));
}

#[test]
fn a_secret_is_not_used_before_its_time() {
    let dated = secrets("1000:now\n2000:new\n");
    assert!(!is_good(&dated, &key(NEW_STAR), 1999));
    assert!(is_good(&dated, &key(NEW_STAR), 2000));
    assert!(!is_good(&secrets("2000:new"), &key(NEW_STAR), 1999));
}

#[test]
fn a_key_from_a_clock_that_is_ahead_is_good() {
    assert!(is_good(&secrets("1000:new\n"), &key(NEW_STAR), 2400));
}

#[test]
fn a_key_without_hash_proves_nothing() {
    let stats = key("::a.example.com");
    assert_eq!(stats.name(), "a.example.com");
    assert!(!is_good(&secrets("0:secret"), &stats, 1));
}

#[test]
fn malformed_keys_are_told_apart() {
    let hash = "0".repeat(40);
    for (text, expected) in [
        (String::new(), KeyError::Shape),
        ("sesame".into(), KeyError::Shape),
        (format!("{hash}:1"), KeyError::Shape),
        (format!("{}:1:a", &hash[1..]), KeyError::Hash),
        (format!("{hash}0:1:a"), KeyError::Hash),
        (format!("{}g:1:a", &hash[1..]), KeyError::Hash),
        (format!("{hash}:+1:a"), KeyError::Timestamp),
        (format!("{hash}:-1:a"), KeyError::Timestamp),
        (format!("{hash}: 1:a"), KeyError::Timestamp),
        (format!("{hash}:18446744073709551616:a"), KeyError::Timestamp),
        (format!("{hash}:1:"), KeyError::Name(PatternError::Name(HostNameError::Empty))),
        (format!("{hash}:1:a b"), KeyError::Name(PatternError::Name(HostNameError::Character))),
        (format!("{hash}:1:a.*"), KeyError::Name(PatternError::Wildcard)),
    ] {
        assert_eq!(HostKey::parse(text.as_bytes()).unwrap_err(), expected, "{text}");
    }
    assert_eq!(HostKey::parse(b"\xff::a").unwrap_err(), KeyError::Shape);
    for text in ["v1:0:1:a", "v4:0:1:a", "v:0:1:a", "v2x:0:1:a"] {
        assert_eq!(HostKey::parse(text.as_bytes()).unwrap_err(), KeyError::Version, "{text}");
    }
    // Two halves of one character where two hex digits should be.
    let split = format!("{}\u{fc}:1:a", "0".repeat(38));
    assert_eq!(HostKey::parse(split.as_bytes()).unwrap_err(), KeyError::Hash);
}

#[test]
fn debug_output_holds_no_secret() {
    assert_eq!(format!("{:?}", secrets("1:sesame\n2:seed")), "Secrets(2 of them)");
    assert_eq!(format!("{:?}", key(A_EXAMPLE)), "Legacy(***:1234567890:a.example.com)");
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
    assert_eq!(judge(&one, &secrets).unwrap(), ["b.com"]);

    let made = legacy_key("new", 3000, "c.test");
    let two = registration(&["c.test", "*.b.com"], &[OLD_B, &made, NEW_STAR]);
    assert_eq!(judge(&two, &secrets).unwrap(), ["c.test", "b.com"]);

    let uncovered = registration(&["b.com", "c.test"], &[OLD_B]);
    let refusal = judge(&uncovered, &secrets).unwrap_err();
    assert_eq!(refusal, Refusal::new(401, "no Host-Key covers c.test"));

    let keyless = registration(&["*"], &[]);
    let refusal = judge(&keyless, &secrets).unwrap_err();
    assert_eq!(refusal, Refusal::new(401, "no Host-Key covers *"));
}

#[test]
fn wrong_key_is_distinguished_from_missing_key() {
    let registration = registration(&["b.com"], &[OLD_B, "::b.com"]);
    let refusal = judge(&registration, &secrets("1:other")).unwrap_err();
    assert_eq!(
        refusal,
        Refusal::new(
            401,
            "the Host-Key for b.com does not check out: it was changed, or not made with the secret in force at its time"
        )
    );
}

#[test]
fn wrong_key_beside_valid_key_is_ignored() {
    let wrong = legacy_key("other", 1000, "b.com");
    let registration = registration(&["b.com"], &[&wrong, OLD_B]);
    assert_eq!(judge(&registration, &secrets("1:old")).unwrap(), ["b.com"]);
}

/// A modern key for `name`, made with `old` at 1000 and good until 20000.
fn modern(bridges: u32, name: &str) -> String {
    let bridges = NonZeroU32::new(bridges);
    modern_key("old", &Terms { made: 1000, expires: 20_000, bridges, name: name.to_owned() })
}

#[test]
fn the_old_form_can_be_turned_off() {
    let secrets = secrets("1:old");
    let refused = |keys: &[&str]| {
        authorise(&registration(&["b.com"], keys), &ring(&secrets, Forms::Modern), 9999)
            .unwrap_err()
    };
    let text = "the Host-Key for b.com is of the old form, which `legacy-keys no` turns off; ask for a v2 key";
    assert_eq!(refused(&[OLD_B]), Refusal::new(401, text));
    assert_eq!(refused(&["::b.com"]), Refusal::new(401, text));
    let both = registration(&["b.com"], &[OLD_B, &modern(0, "b.com")]);
    assert!(authorise(&both, &ring(&secrets, Forms::Modern), 9999).is_ok());
}

#[test]
fn a_revoked_key_is_refused_and_another_for_the_same_name_is_not() {
    let (good, bad) = (modern(2, "b.com"), modern(5, "b.com"));
    let revoked = Revoked::parse(&KeyHash::of(&key(&bad)).to_string(), "f").unwrap();
    let ring = Keyring::new(secrets("1:old"), revoked, Forms::Both);
    let judged = |keys: &[&str]| authorise(&registration(&["b.com"], keys), &ring, 9999);
    let text = "the Host-Key for b.com has been revoked";
    assert_eq!(judged(&[&bad]).unwrap_err(), Refusal::new(401, text));
    let grants = judged(&[&bad, &good]).unwrap();
    let bridges: Vec<_> = grants.iter().flat_map(|grant| &grant.limits).collect();
    assert_eq!(bridges, [&("b.com".to_owned(), NonZeroU32::new(2).unwrap())]);
    // A forger does not learn what has been revoked.
    let mut forged = bad.clone();
    forged.replace_range(3..4, if &bad[3..4] == "0" { "1" } else { "0" });
    let said = judged(&[&forged]).unwrap_err().text;
    assert!(!said.contains("revoked"), "{said}");
    assert!(!format!("{grants:?}").contains(&good[3..67]), "a key in Debug output");
}

#[test]
fn key_with_the_most_bridges_is_used() {
    let secrets = secrets("1:old");
    let grants = |keys: &[&str]| {
        let registration = registration(&["x.b.com", "y.b.com"], keys);
        let grants = authorise(&registration, &ring(&secrets, Forms::Both), 9999).unwrap();
        grants
            .into_iter()
            .map(|grant| (grant.name, grant.limits.first().map(|limit| limit.1.get())))
            .collect::<Vec<_>>()
    };
    let (two, five, any) = (modern(2, "b.com"), modern(5, "b.com"), modern(0, "b.com"));
    assert_eq!(grants(&[&two]), [("b.com".to_owned(), Some(2))]);
    assert_eq!(grants(&[&two, &five]), [("b.com".to_owned(), Some(5))]);
    assert_eq!(grants(&[&five, &two]), [("b.com".to_owned(), Some(5))]);
    assert_eq!(grants(&[&two, &any]), [("b.com".to_owned(), None)]);
    assert_eq!(grants(&[&two, OLD_B]), [("b.com".to_owned(), None)]);
    let below = modern(7, "x.b.com");
    assert_eq!(
        grants(&[&two, &below]),
        [("x.b.com".to_owned(), Some(7)), ("b.com".to_owned(), Some(2))]
    );
}

#[test]
fn invalid_key_is_explained() {
    let said = |secrets_text: &str, key: &str, now: u64| {
        let registration = registration(&["b.com"], &[key]);
        authorise(&registration, &ring(&secrets(secrets_text), Forms::Both), now).unwrap_err().text
    };
    let key = modern(0, "b.com");
    assert_eq!(said("1:old", &key, 20_000), "the Host-Key for b.com expired at 20000 (Unix time)");
    assert_eq!(
        said("1:old", &key, 699),
        "the Host-Key for b.com is dated 1000 (Unix time), which is in the future"
    );
    assert_eq!(said("1001:old", &key, 9999), "the Host-Key for b.com is older than every secret");
    assert_eq!(
        said("1001:old", &key, 1000),
        "the Host-Key for b.com cannot be checked: no secret is in force yet"
    );
    assert_eq!(
        said("1:old", "::b.com", 9999),
        "the Host-Key for b.com has no hash and proves nothing"
    );
}

/// Both nonces of the proofs in these tests.
const NONCE: Nonce = Nonce::new([7; NONCE_BYTES]);

/// A registration for these hosts as it is when the backend with these keys has answered [`NONCE`],
/// and after `change` has been made to it on the way.
fn proven(hosts: &[&str], keys: &[&str], change: impl Fn(String) -> String) -> Registration {
    let mut head = String::from("BRIDGE / HTTP/1.1\r\n");
    hosts.iter().for_each(|host| head += &format!("Host: {host}\r\n"));
    keys.iter().for_each(|key| head += &format!("Host-Key: {key}\r\n"));
    let answered = proof::answer(format!("{head}\r\n").as_bytes(), NONCE, NONCE, PLAIN_TEXT);
    let text = change(String::from_utf8(answered).unwrap());
    request::parse(text.as_bytes(), &Limits::default()).unwrap().expect("whole")
}

/// The names that the proven keys grant at 9999, and how each was shown.
fn judge_proven(
    mut registration: Registration,
    ring: &Keyring,
    challenge: Nonce,
) -> Result<Vec<(String, Shown)>, String> {
    prove(&mut registration, ring, challenge, PLAIN_TEXT, 9999);
    let grants = authorise(&registration, ring, 9999).map_err(|refusal| refusal.text)?;
    Ok(grants.into_iter().map(|grant| (grant.name, grant.shown)).collect())
}

fn same(text: String) -> String {
    text
}

#[test]
fn a_proven_key_is_as_good_as_one_that_was_sent() {
    let ring = ring(&secrets("1:old\n2000:new"), Forms::Both).with(Showing::Proven);
    let judge =
        |hosts: &[&str], keys: &[&str]| judge_proven(proven(hosts, keys, same), &ring, NONCE);
    let granted = |name: &str| Ok(vec![(name.to_owned(), Shown::Proven)]);
    assert_eq!(judge(&["x.b.com"], &[OLD_B]), granted("b.com"), "of its time");
    assert_eq!(judge(&["c.test"], &[&legacy_key("new", 100, "c.test")]), granted("c.test"));
    assert_eq!(judge(&["b.com"], &[&modern(3, "b.com")]), granted("b.com"));
    let (digits, rest) = OLD_B.split_once(':').unwrap();
    let shouted = format!("{}:{rest}", digits.to_uppercase());
    assert_eq!(judge(&["B.com"], &[&shouted]), granted("b.com"));
    let text = "the Host-Key for b.com is not proven: it was changed, or not made with the secret \
        in force at its time, or the proof is for another request or connection";
    assert_eq!(judge(&["b.com"], &[&legacy_key("other", 1000, "b.com")]), Err(text.to_owned()));
    // Only the newest makes keys of any age, and only of the old form.
    let terms = Terms { made: 100, expires: 99_999, bridges: None, name: "b.com".to_owned() };
    assert_eq!(judge(&["b.com"], &[&modern_key("new", &terms)]), Err(text.to_owned()));
    assert_eq!(judge(&["c.test"], &[OLD_B]), Err("no Host-Key covers c.test".to_owned()));
}

#[test]
fn a_proof_is_for_one_request_with_one_nonce() {
    let ring = ring(&secrets("1:old"), Forms::Both);
    let (hosts, keys) = (["b.com"], [OLD_B, &modern(0, "x.b.com")]);
    let judge = |change: &dyn Fn(String) -> String, nonce| {
        judge_proven(proven(&hosts, &keys, change), &ring, nonce)
    };
    assert!(judge(&same, NONCE).is_ok());
    assert!(judge(&same, Nonce::new([8; NONCE_BYTES])).is_err());
    for (from, to) in [
        ("Host: b.com", "Host: y.b.com"),
        ("BRIDGE /", "BRIDGE /app"),
        ("Host: b.com", "Host: b.com\r\nHost: x.b.com"),
        ("Host: b.com", "Host: b.com\r\nX-Forwarded-For: 192.0.2.1"),
        (
            "BRIDGE / HTTP/1.1\r\n",
            "BRIDGE / HTTP/1.1\r\nCloudbridge-Leave: 00112233445566778899aabbccddeeff\r\n",
        ),
        (":1000:b.com", ":1000:B.com"),
        (":20000::x.b.com", ":20000:5:x.b.com"),
        ("0707070707070707\r\n", "0707070707070708\r\n"),
    ] {
        let changed = judge(
            &|text| {
                assert!(text.contains(from), "{text}");
                text.replace(from, to)
            },
            NONCE,
        );
        assert!(changed.is_err(), "{to}");
    }
    // The proofs of two keys in each other's place.
    let swapped = judge(
        &|text| {
            let proofs: Vec<String> =
                text.split("proof-").skip(1).map(|rest| rest[..64].to_owned()).collect();
            let text = text.replace(&proofs[0], "swap").replace(&proofs[1], &proofs[0]);
            text.replace("swap", &proofs[1])
        },
        NONCE,
    );
    assert!(swapped.is_err());
    // Spelling that means nothing is not signed.
    assert!(judge(&|text| text.replace("Host: b.com", "Host:  b.com "), NONCE).is_ok());
}

#[test]
fn bearer_keys_can_be_turned_off() {
    let strict = ring(&secrets("1:old"), Forms::Both).with(Showing::Proven);
    let bare = registration(&["b.com"], &[OLD_B]);
    let text = "the Host-Key for b.com was sent as it is, which `bearer-keys no` refuses; a \
        backend that proves it is needed, without --bearer-keys";
    assert_eq!(authorise(&bare, &strict, 9999).unwrap_err(), Refusal::new(401, text));
    // A forger does not learn more.
    let forged = registration(&["b.com"], &[&legacy_key("other", 1, "b.com")]);
    assert_eq!(authorise(&forged, &strict, 9999).unwrap_err(), Refusal::new(401, text));
    let shown = authorise(&bare, &ring(&secrets("1:old"), Forms::Both), 9999).unwrap()[0].shown;
    assert_eq!(shown, Shown::Bare);
}

#[test]
fn what_else_is_wrong_is_told_of_proven_keys_alone() {
    let revoked = Revoked::parse(&KeyHash::of(&key(OLD_B)).to_string(), "f").unwrap();
    let ring = Keyring::new(secrets("1:old"), revoked, Forms::Both);
    let judge = |key: &str| judge_proven(proven(&["b.com"], &[key], same), &ring, NONCE);
    assert_eq!(judge(OLD_B), Err("the Host-Key for b.com has been revoked".to_owned()));
    let expired = Terms { made: 1000, expires: 2000, bridges: None, name: "b.com".to_owned() };
    let said = judge(&modern_key("old", &expired)).unwrap_err();
    assert_eq!(said, "the Host-Key for b.com expired at 2000 (Unix time)");
    let said = judge(&modern_key("other", &expired)).unwrap_err();
    assert!(said.contains("is not proven"), "{said}");
    let only_modern = Keyring::new(secrets("1:old"), Revoked::default(), Forms::Modern);
    let said = judge_proven(proven(&["b.com"], &[OLD_B], same), &only_modern, NONCE).unwrap_err();
    assert!(said.contains("legacy-keys no"), "{said}");
}

#[test]
fn malformed_named_keys_are_told_apart() {
    let proof = "0".repeat(64);
    for (text, expected) in [
        ("proof:1".to_owned(), KeyError::Shape),
        ("proof:x:a".to_owned(), KeyError::Timestamp),
        ("v2:proof:1:2:a".to_owned(), KeyError::ModernShape),
        ("v4:proof:1:2::a".to_owned(), KeyError::Version),
        ("v3:proof:1:a".to_owned(), KeyError::NarrowedShape),
        (format!("proof-{}:1:a", &proof[1..]), KeyError::Proof),
        (format!("proof-{proof}0:1:a"), KeyError::Proof),
        (format!("proof-{}A:1:a", &proof[1..]), KeyError::Proof),
        ("proof-:1:a".to_owned(), KeyError::Proof),
    ] {
        assert!(NamedKey::is_one(text.as_bytes()), "{text}");
        assert_eq!(NamedKey::parse(text.as_bytes()).unwrap_err(), expected, "{text}");
    }
    // Nothing is a key of both kinds.
    for text in ["proof:1:a", "v2:proof:1:2::a", "proof-:1:a"] {
        assert!(HostKey::parse(text.as_bytes()).is_err(), "{text}");
    }
    for text in ["proofs:1:a", "Proof:1:a", "::proof", OLD_B, &modern(1, "proof.test"), "proof"] {
        assert!(!NamedKey::is_one(text.as_bytes()), "{text}");
    }
}
