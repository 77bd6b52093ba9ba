//! A BRIDGE request: who may serve which names.
//!
//! An input cannot contain valid keys, so a line `Key: NAME` of it becomes a `Host-Key` for that
//! name, and `Key2: NAME` one of the modern form. Either is sent as it is, or proven.

use super::input::Input;
use crate::bridge::hostkey::{
    Forms, Keyring, Revoked, Secrets, Shown, Terms, authorise, legacy_key, modern_key, prove,
};
use crate::bridge::pattern;
use crate::bridge::proof::{self, NONCE_BYTES, Nonce, PLAIN_TEXT};
use crate::bridge::request::{self, Registration};
use crate::http::Limits;

const SECRET: &str = "the secret in force";
const NOW: u64 = 5000;

/// Both nonces of the proofs.
const CHALLENGE: Nonce = Nonce::new([7; NONCE_BYTES]);

/// Longest refusal, in bytes: one line of a log.
const LONGEST_REFUSAL: usize = 512;

/// Which forms of keys are accepted and whether they are proven, where to split, and a BRIDGE
/// request.
pub(super) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let all =
        [Forms::Both, Forms::Modern].map(|forms| [(forms, Shown::Bare), (forms, Shown::Proven)]);
    let (forms, shown) = input.pick(&[all[0][0], all[1][0], all[0][1], all[1][1]]);
    let split = usize::from(input.byte());
    let (mut bytes, signed) = with_keys(input.rest());
    if shown == Shown::Proven {
        bytes = proof::answer(&bytes, CHALLENGE, CHALLENGE, PLAIN_TEXT);
    }
    let whole = request::parse(&bytes, &Limits::default());
    let prefix = request::parse(&bytes[..bytes.len() * split / 256], &Limits::default());
    match (prefix, &whole) {
        (Ok(None), _) => {}
        (Ok(Some(prefix)), Ok(Some(whole))) => assert_eq!(prefix.len, whole.len),
        (Ok(Some(_)), _) => panic!("whole, and then not: {whole:?}"),
        (Err(_), whole) => assert!(whole.is_err(), "refused, and then taken"),
    }
    match whole {
        Ok(None) => {}
        Ok(Some(registration)) => check(registration, &bytes, (forms, shown), &signed),
        Err(refusal) => check_refusal(refusal.status, &refusal.text),
    }
}

/// The request with its keys, and the names that they are for.
fn with_keys(bytes: &[u8]) -> (Vec<u8>, Vec<(String, Forms)>) {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n").unwrap_or(bytes.len());
    let (head, rest) = bytes.split_at(end);
    let (mut out, mut signed) = (Vec::new(), Vec::new());
    for line in head.split_inclusive(|&b| b == b'\n') {
        let text = std::str::from_utf8(line).ok().map(|line| line.trim_end_matches("\r\n"));
        let (name, form) = match text.and_then(|text| text.split_once(": ")) {
            Some(("Key", name)) => (name, Forms::Both),
            Some(("Key2", name)) => (name, Forms::Modern),
            _ => {
                out.extend_from_slice(line);
                continue;
            }
        };
        let key = match form {
            Forms::Both => legacy_key(SECRET, 1000, name),
            Forms::Modern => {
                let name = name.to_owned();
                modern_key(SECRET, &Terms { made: 1000, expires: 9000, bridges: None, name })
            }
        };
        let line_end = if line.ends_with(b"\r\n") { "\r\n" } else { "" };
        out.extend_from_slice(format!("Host-Key: {key}{line_end}").as_bytes());
        signed.extend(pattern::parse(name.as_bytes()).ok().map(|name| (name, form)));
    }
    out.extend_from_slice(rest);
    (out, signed)
}

fn check(
    mut registration: Registration,
    bytes: &[u8],
    (forms, shown): (Forms, Shown),
    signed: &[(String, Forms)],
) {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n").expect("it ends in an empty line");
    assert_eq!(registration.len, end + 4, "others end it elsewhere");
    assert!(!registration.patterns.is_empty());
    for pattern in &registration.patterns {
        assert_eq!(pattern::parse(pattern.as_bytes()).as_deref(), Ok(&**pattern), "not normal");
    }
    let prefix = &registration.prefix;
    assert!(prefix.is_empty() || (prefix.starts_with('/') && !prefix.ends_with('/')), "{prefix}");
    let secrets = Secrets::always(SECRET).expect("a secret");
    let keyring = Keyring::new(secrets, Revoked::default(), forms);
    let named = registration.named.len();
    prove(&mut registration, &keyring, CHALLENGE, PLAIN_TEXT, NOW);
    assert_eq!(registration.named.len() + registration.proven.len(), named, "a key is lost");
    let registration = &registration;
    let accepted = authorise(registration, &keyring, NOW);
    // By the words of the protocol: a key covers its name, and every name below it.
    let covers =
        |name: &str, pattern: &str| pattern == name || pattern.ends_with(&format!(".{name}"));
    let valid = |form: Forms| forms == Forms::Both || form == Forms::Modern;
    let covered =
        |pattern: &String| signed.iter().any(|(name, form)| valid(*form) && covers(name, pattern));
    match accepted {
        Ok(grants) => {
            assert!(registration.patterns.iter().all(covered), "a name without a key");
            for grant in grants {
                assert!(signed.iter().any(|(name, form)| *name == grant.name && valid(*form)));
            }
        }
        // What is signed is written in one way only, and the input may have been in another.
        Err(refusal) if shown == Shown::Proven => check_refusal(refusal.status, &refusal.text),
        Err(refusal) => {
            assert!(!registration.patterns.iter().all(covered), "{}", refusal.text);
            check_refusal(refusal.status, &refusal.text);
        }
    }
}

fn check_refusal(status: u16, text: &str) {
    assert!(matches!(status, 400..=599), "{status}");
    assert!(!text.is_empty() && text.len() <= LONGEST_REFUSAL, "{} bytes", text.len());
    assert!(text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{}", text.escape_debug());
}
