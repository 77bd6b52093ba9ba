//! A host key: only what was made with the secret is valid, for its name and its time.

use std::num::NonZeroU32;

use super::input::Input;
use crate::bridge::hostkey::{
    Caveat, HostKey, NamedKey, Secrets, Terms, covers, legacy_key, modern_key,
};
use crate::bridge::pattern;
use crate::bridge::proof::{NONCE_BYTES, Nonce, PLAIN_TEXT, RequestDigest, SignedText};

const SECRET: &str = "the secret in force";
const SECRETS: &str = "100:the secret before\n1000:the secret in force\n9000:a later one\n";
const NOW: u64 = 5000;

/// What the input is taken for, and then a text.
pub(super) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.below(4) {
        0 => forged(input.rest()),
        1 => changed(input),
        3 => narrowed(input),
        _ => secrets(input.rest()),
    }
}

fn in_force() -> Secrets {
    Secrets::parse(SECRETS, "secrets").expect("well-formed")
}

/// Nobody can make a key without the secret.
fn forged(text: &[u8]) {
    if NamedKey::is_one(text) {
        assert!(HostKey::parse(text).is_err(), "a key in two ways: {}", text.escape_ascii());
        return unproven(text);
    }
    let Ok(key) = HostKey::parse(text) else { return };
    assert!(in_force().check(&key, NOW).is_err(), "a forged key: {}", text.escape_ascii());
    let name = key.name().as_bytes();
    assert_eq!(pattern::parse(name).as_deref(), Ok(key.name()), "the name is not normal");
    assert!(covers(key.name(), key.name()));
    // The hash of a key must not reach a log.
    let hash = text.split(|&b| b == b':').find(|field| field.len() >= 40);
    if let Some(hash) = hash.and_then(|hash| std::str::from_utf8(hash).ok()) {
        let shown = format!("{key:?}");
        let again = String::from_utf8_lossy(text).to_ascii_lowercase();
        let elsewhere = again.matches(&hash.to_ascii_lowercase()).count() > 1;
        assert!(elsewhere || !shown.contains(hash), "{shown}");
    }
}

/// Nor can anybody prove to have one.
fn unproven(text: &[u8]) {
    let Ok((named, signed)) = NamedKey::parse(text) else { return };
    let (again, same) =
        NamedKey::parse(signed.as_bytes()).expect("without the proof it is one, too");
    assert!(!again.has_proof() && signed == same && again.name() == named.name());
    let nonce = Nonce::new([0; NONCE_BYTES]);
    let message = SignedText::new(nonce, PLAIN_TEXT, RequestDigest::of(text));
    assert!(in_force().recover(&named, &message, NOW).is_none(), "{}", text.escape_ascii());
}

/// A valid key is valid, and one that has been changed by a byte is not.
fn changed(mut input: Input<'_>) {
    let modern = input.below(2) == 1;
    let (at, change) = (usize::from(input.byte()), input.byte().wrapping_sub(b'0'));
    let (made, expires) = (u64::from(input.byte()) * 40, u64::from(input.byte()) * 40);
    let Ok(name) = std::str::from_utf8(input.rest()) else { return };
    if pattern::parse(name.as_bytes()).is_err() {
        return;
    }
    let bridges = NonZeroU32::new((made / 40) as u32);
    let text = match modern {
        true => modern_key(SECRET, &Terms { made, expires, bridges, name: name.to_owned() }),
        false => legacy_key(SECRET, made, name),
    };
    let valid = |text: &[u8]| HostKey::parse(text).map(|key| in_force().check(&key, NOW).is_ok());
    // Of the old form, a key is valid that was made with the newest secret, whatever its time.
    let expected = !modern || ((1000..=NOW + 300).contains(&made) && expires > NOW);
    assert_eq!(valid(text.as_bytes()), Ok(expected), "{text}");
    let mut other = text.clone().into_bytes();
    let at = at % other.len();
    other[at] ^= change;
    // Hex digits of the old form may be capitals.
    let same = if modern { other == text.as_bytes() } else { same_legacy(&other, &text) };
    if !same {
        assert_ne!(valid(&other), Ok(true), "{text} as {}", other.escape_ascii());
    }
}

fn same_legacy(other: &[u8], text: &str) -> bool {
    let hash = 40;
    other[..hash].eq_ignore_ascii_case(&text.as_bytes()[..hash])
        && other[hash..] == text.as_bytes()[hash..]
}

/// A narrowed key is good if the key is that it was made of, covers no more, and is not good when it
/// has been changed by a byte.
fn narrowed(mut input: Input<'_>) {
    let terms = Terms { made: 1000, expires: 9000, bridges: None, name: "b.com".to_owned() };
    let root = match input.below(2) {
        0 => legacy_key(SECRET, 1000, "b.com"),
        _ => modern_key(SECRET, &terms),
    };
    let (at, change) = (usize::from(input.byte()), input.byte());
    let Ok(text) = std::str::from_utf8(input.rest()) else { return };
    let caveats: Result<Vec<Caveat>, _> = text.split('+').map(Caveat::parse).collect();
    let root = HostKey::parse(root.as_bytes()).expect("well-formed");
    let Ok(key) = caveats.and_then(|caveats| root.narrowed(&caveats)) else { return };
    let text = key.text();
    let same = HostKey::parse(text.as_bytes()).expect("well-formed");
    assert_eq!((same.text(), same.scope()), (text.clone(), key.scope()), "read as it was made");
    let is_good = in_force().check(&key, NOW).is_ok();
    assert_eq!(is_good, key.expires().is_none_or(|at| at > NOW), "{text}");
    assert!(covers("b.com", key.name()), "{text}");
    let mut other = text.clone().into_bytes();
    let at = at % other.len();
    other[at] ^= change;
    if change != 0
        && let Ok(other) = HostKey::parse(&other)
    {
        assert!(in_force().check(&other, NOW).is_err(), "{text} as {other:?}");
    }
}

/// A secrets file: no complaint shows a secret.
fn secrets(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    match Secrets::parse(text, "f") {
        Ok(secrets) => {
            for now in [0, 1000, u64::MAX] {
                let Some(key) = secrets.make_legacy(now, "a.test", now) else { continue };
                let key = HostKey::parse(key.as_bytes()).expect("well-formed");
                assert_eq!(secrets.check(&key, now), Ok(()), "its own key");
            }
        }
        Err(problems) => {
            let lines = text.lines().count().max(1);
            for problem in problems {
                let number = problem.split(':').nth(1).and_then(|number| number.parse().ok());
                assert!(number.is_some_and(|number: usize| (1..=lines).contains(&number)));
                let secret = "S3cr3t";
                assert!(!problem.contains(secret), "{problem}");
            }
        }
    }
}
