//! Modern keys against known answers (`printf v2:TIMESTAMP:EXPIRY:BRIDGES:NAME | openssl dgst
//! -sha256 -hmac SECRET`).

use super::*;
use crate::bridge::hostkey::{HostKey, InvalidKey, Root, Secrets};
use crate::bridge::pattern::PatternError;
use crate::http::host_name::HostNameError;

/// Secret, timestamp, expiry, bridges, name, key.
const KNOWN: [(&str, u64, u64, u32, &str, &str); 4] = [
    (
        "secret",
        1_234_567_890,
        1_242_343_890,
        0,
        "a.example.com",
        "v2:3104439657dbb69de637f743fc106908fb02507cbdd9301c6ba19b69fb32e304:1234567890:1242343890::a.example.com",
    ),
    (
        "old",
        1000,
        5000,
        3,
        "b.com",
        "v2:c6c5f74e18cc88a3444f3f54e64575f48d1e0a4c4eabb281d01414b6450f59d5:1000:5000:3:b.com",
    ),
    (
        "s:e:c r:et",
        1_700_000_000,
        1_800_000_000,
        u32::MAX,
        "Example.COM:8080",
        "v2:4cadfaeead9c1e03bf16dd3ec569453688a97fbd2e66e7a768afafc7a8d887e0:1700000000:1800000000:4294967295:Example.COM:8080",
    ),
    (
        // Longer than a block of SHA-256: RFC 2104 hashes such a secret first.
        "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk",
        1,
        2,
        1,
        "[::1]",
        "v2:2feece34098fd04c481ad10dcd66288294342e71d93523f1c3933e550d18934a:1:2:1:[::1]",
    ),
];

/// Made with `old` at 1000, good until 5000, for three bridges.
const OLD_B: &str = KNOWN[1].5;

#[track_caller]
fn key(text: &str) -> HostKey {
    HostKey::parse(text.as_bytes()).unwrap()
}

#[track_caller]
fn check(secrets: &str, text: &str, now: u64) -> Result<(), InvalidKey> {
    Secrets::parse(secrets, "keys").unwrap().check(&key(text), now)
}

#[test]
fn keys_are_made_as_documented() {
    for (secret, made, expires, bridges, name, expected) in KNOWN {
        let bridges = NonZeroU32::new(bridges);
        let terms = Terms { made, expires, bridges, name: name.to_owned() };
        assert_eq!(modern_key(secret, &terms), expected);
    }
}

#[test]
fn keys_are_read_as_they_are_made() {
    for (secret, made, expires, bridges, name, text) in KNOWN {
        let key = key(text);
        let bridges = NonZeroU32::new(bridges);
        assert_eq!(key.bridges(), bridges);
        let name = pattern::parse(name.as_bytes()).unwrap();
        assert_eq!(key.name(), name);
        let HostKey::Root(Root::Modern(modern)) = &key else { panic!("{key:?}") };
        assert_eq!(modern.terms, Terms { made, expires, bridges, name });
        assert_eq!(Secrets::always(secret).unwrap().check(&key, made), Ok(()));
        assert_eq!(Secrets::always("other").unwrap().check(&key, made), Err(InvalidKey::Mismatch));
    }
}

#[test]
fn key_with_a_changed_byte_is_invalid() {
    let secrets = Secrets::always("old").unwrap();
    for at in 0..OLD_B.len() {
        for new in 0..=u8::MAX {
            let mut bytes = OLD_B.as_bytes().to_vec();
            if bytes[at] == new {
                continue;
            }
            bytes[at] = new;
            // Many are no keys at all; those that are must not be good.
            if let Ok(key) = HostKey::parse(&bytes) {
                assert!(secrets.check(&key, 2000).is_err(), "{}", bytes.escape_ascii());
            }
        }
    }
}

#[test]
fn key_with_missing_bytes_is_invalid() {
    let secrets = Secrets::always("old").unwrap();
    let good =
        |bytes: &[u8]| HostKey::parse(bytes).is_ok_and(|key| secrets.check(&key, 2000).is_ok());
    assert!(good(OLD_B.as_bytes()));
    for at in 0..OLD_B.len() {
        assert!(!good(&OLD_B.as_bytes()[..at]), "the first {at} bytes");
        assert!(!good(&OLD_B.as_bytes()[at + 1..]), "the last {} bytes", OLD_B.len() - at - 1);
        let mut without = OLD_B.as_bytes().to_vec();
        without.remove(at);
        assert!(!good(&without), "without byte {at}");
    }
}

#[test]
fn fields_do_not_run_into_each_other() {
    // The same hash, with the digits of one number moved into the next.
    let secrets = Secrets::always("old").unwrap();
    let hash = OLD_B.split(':').nth(1).unwrap();
    for rest in
        ["100:05000:3:b.com", "10005:000:3:b.com", "1000:500:03:b.com", "1000:5000::3:b.com"]
    {
        let text = format!("v2:{hash}:{rest}");
        let good =
            HostKey::parse(text.as_bytes()).is_ok_and(|key| secrets.check(&key, 2000).is_ok());
        assert!(!good, "{text}");
    }
}

#[test]
fn legacy_and_modern_keys_are_distinct() {
    let secrets = Secrets::always("old").unwrap();
    let hash = OLD_B.split(':').nth(1).unwrap();
    for text in [
        format!("{hash}:1000:b.com"),
        format!("{hash}:1000:5000:3:b.com"),
        format!("{}:1000:b.com", &hash[..40]),
        "v2:329b002bbd6a5d2e601b877a37e651a0eccd0178:1000:b.com".to_owned(),
        "v2:329b002bbd6a5d2e601b877a37e651a0eccd0178:1000:5000::b.com".to_owned(),
        "v2::1000:5000::b.com".to_owned(),
    ] {
        let good =
            HostKey::parse(text.as_bytes()).is_ok_and(|key| secrets.check(&key, 2000).is_ok());
        assert!(!good, "{text}");
    }
}

#[test]
fn a_key_is_good_until_it_expires() {
    assert_eq!(check("1:old", OLD_B, 1000), Ok(()));
    assert_eq!(check("1:old", OLD_B, 4999), Ok(()));
    assert_eq!(check("1:old", OLD_B, 5000), Err(InvalidKey::Expired(5000)));
    assert_eq!(check("1:old", OLD_B, u64::MAX), Err(InvalidKey::Expired(5000)));
}

#[test]
fn the_clock_of_the_maker_may_be_a_little_ahead() {
    assert_eq!(check("1:old", OLD_B, 700), Ok(()));
    assert_eq!(check("1:old", OLD_B, 699), Err(InvalidKey::TooNew(1000)));
}

#[test]
fn a_key_is_good_under_the_secret_of_its_own_time_alone() {
    assert_eq!(check("1000:old\n2000:new", OLD_B, 3000), Ok(()));
    assert_eq!(check("500:older\n1001:old", OLD_B, 3000), Err(InvalidKey::Mismatch), "the newest");
    assert_eq!(check("500:old\n1000:new", OLD_B, 3000), Err(InvalidKey::Mismatch), "too late");
    assert_eq!(check("500:first\n2000:new", OLD_B, 3000), Err(InvalidKey::Mismatch), "taken out");
    assert_eq!(check("1001:old", OLD_B, 3000), Err(InvalidKey::TooOld));
    assert_eq!(check("1001:old", OLD_B, 1000), Err(InvalidKey::NoSecretYet));
}

#[test]
fn expiry_is_checked_after_the_hash() {
    assert_eq!(check("1:other", OLD_B, 9999), Err(InvalidKey::Mismatch));
    assert_eq!(check("1:other", OLD_B, 1), Err(InvalidKey::Mismatch));
}

#[test]
fn malformed_keys_are_told_apart() {
    let hash = "0".repeat(64);
    for (text, expected) in [
        ("v2:".to_owned(), KeyError::ModernShape),
        (format!("v2:{hash}"), KeyError::ModernShape),
        (format!("v2:{hash}:1"), KeyError::ModernShape),
        (format!("v2:{hash}:1:2"), KeyError::ModernShape),
        (format!("v2:{hash}:1:2:a"), KeyError::ModernShape),
        (format!("v2:{}:1:2::a", &hash[1..]), KeyError::ModernHash),
        (format!("v2:{hash}0:1:2::a"), KeyError::ModernHash),
        (format!("v2:{}g:1:2::a", &hash[1..]), KeyError::ModernHash),
        (format!("v2:{}A:1:2::a", &hash[1..]), KeyError::ModernHash),
        ("v2::1:2::a".to_owned(), KeyError::ModernHash),
        (format!("v2:{hash}::2::a"), KeyError::Timestamp),
        (format!("v2:{hash}:+1:2::a"), KeyError::Timestamp),
        (format!("v2:{hash}:01:2::a"), KeyError::Timestamp),
        (format!("v2:{hash}:1:02::a"), KeyError::Expiry),
        (format!("v2:{hash}:1:::a"), KeyError::Expiry),
        (format!("v2:{hash}:1:never::a"), KeyError::Expiry),
        (format!("v2:{hash}:1:18446744073709551616::a"), KeyError::Expiry),
        (format!("v2:{hash}:1:2:0:a"), KeyError::Bridges),
        (format!("v2:{hash}:1:2:-1:a"), KeyError::Bridges),
        (format!("v2:{hash}:1:2:03:a"), KeyError::Bridges),
        (format!("v2:{hash}:1:2:4294967296:a"), KeyError::Bridges),
        (format!("v2:{hash}:1:2::"), KeyError::Name(PatternError::Name(HostNameError::Empty))),
        (format!("v2:{hash}:1:2::a.*"), KeyError::Name(PatternError::Wildcard)),
    ] {
        assert_eq!(HostKey::parse(text.as_bytes()).unwrap_err(), expected, "{text}");
    }
}

#[test]
fn debug_output_holds_no_hash() {
    assert_eq!(format!("{:?}", key(OLD_B)), "Modern(v2:***:1000:5000:3:b.com)");
}
