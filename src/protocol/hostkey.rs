//! Host keys: the proof that a backend may serve a name (`doc/protocol.md`, "Host keys").
//!
//! A key is `SHA1hex(secret ":" timestamp ":" name) ":" timestamp ":" name`. The proxy holds the
//! secrets; whoever makes keys for backends holds the newest of them.

use std::fmt;
use std::fmt::Write;

use sha1::{Digest, Sha1};
use subtle::{Choice, ConstantTimeEq};

use super::bridge::{Refusal, Registration};
use super::pattern::{self, BadPattern};

/// Bytes of a SHA-1 digest.
const HASH: usize = 20;

/// Why a text is no host key. Says nothing of the text itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadKey {
    /// Fewer than two colons, or bytes beyond ASCII.
    Shape,
    /// The hash is neither 40 hex digits nor empty.
    Hash,
    /// The timestamp is not a number of seconds that fits 64 bits.
    Timestamp,
    /// The name is no host pattern.
    Name(BadPattern),
}

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadKey::Shape => f.write_str("it is not hash:timestamp:name"),
            BadKey::Hash => f.write_str("the hash is not 40 hex digits"),
            BadKey::Timestamp => f.write_str("the timestamp is not a number of seconds"),
            BadKey::Name(bad) => write!(f, "in its name, {bad}"),
        }
    }
}

impl std::error::Error for BadKey {}

/// A key as a backend sent it: a claim, until [`Secrets::verify`] has confirmed it.
///
/// The hash and the timestamp may be empty, and such a key proves nothing: under the original, with
/// no secrets configured, `::name` only names the backend in the statistics.
#[derive(Clone)]
pub struct HostKey {
    /// `None` for an empty hash.
    hash: Option<[u8; HASH]>,
    /// When the key was made, in Unix seconds; 0 for an empty timestamp.
    made: u64,
    /// `timestamp:name` as it was sent, because the hash is over these bytes.
    signed: String,
    /// The name in the form of [`pattern::parse`], because coverage is decided by that.
    name: String,
}

impl HostKey {
    /// Reads `hash:timestamp:name`. The name is a host pattern; a port on it is ignored, as it is
    /// everywhere, but is part of what was hashed.
    pub fn parse(text: &[u8]) -> Result<HostKey, BadKey> {
        let text = std::str::from_utf8(text).map_err(|_| BadKey::Shape)?;
        let (hash, signed) = text.split_once(':').ok_or(BadKey::Shape)?;
        let (timestamp, name) = signed.split_once(':').ok_or(BadKey::Shape)?;
        Ok(HostKey {
            hash: hash_from_hex(hash)?,
            made: seconds(timestamp)?,
            signed: signed.to_owned(),
            name: pattern::parse(name.as_bytes()).map_err(BadKey::Name)?,
        })
    }

    /// The name that the key is for, in lower case. By it the info host counts.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for HostKey {
    /// Without the hash: whoever reads a log must not be able to use the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostKey(***:{}:{})", self.made, self.name)
    }
}

fn hash_from_hex(text: &str) -> Result<Option<[u8; HASH]>, BadKey> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() != 2 * HASH {
        return Err(BadKey::Hash);
    }
    let mut hash = [0; HASH];
    for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Ok(Some(hash))
}

fn hex_digit(digit: u8) -> Result<u8, BadKey> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(BadKey::Hash),
    }
}

/// Unix seconds in plain digits; empty is 0. `str::parse` would take a sign too.
fn seconds(text: &str) -> Result<u64, BadKey> {
    if text.is_empty() {
        return Ok(0);
    }
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BadKey::Timestamp);
    }
    text.parse().map_err(|_| BadKey::Timestamp)
}

/// The proxy's secrets, each in force from its timestamp until the next one's.
#[derive(Clone)]
pub struct Secrets {
    /// By rising timestamp; never empty.
    lines: Vec<Secret>,
}

#[derive(Clone)]
struct Secret {
    /// First Unix second at which the secret is in force.
    from: u64,
    text: String,
}

impl Secrets {
    /// Reads the text of a secrets file: lines `timestamp:secret` with rising timestamps. Everything
    /// after the first colon is the secret. Blank lines are passed over; there are no comments,
    /// because a `#` may be part of a secret.
    ///
    /// `file` is the name that errors bear. All errors are given, one a line, as
    /// `file:line: what is wrong`, and none of them holds any of the text: a line without a colon
    /// may well be a secret.
    pub fn parse(text: &str, file: &str) -> Result<Secrets, Vec<String>> {
        let mut lines: Vec<Secret> = Vec::new();
        let mut errors = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let after = lines.last().map(|secret| secret.from);
            match Secret::parse(line, after) {
                Ok(secret) => lines.push(secret),
                Err(what) => errors.push(format!("{file}:{}: {what}", index + 1)),
            }
        }
        if lines.is_empty() && errors.is_empty() {
            errors.push(format!("{file}:1: no secret in this file"));
        }
        if errors.is_empty() { Ok(Secrets { lines }) } else { Err(errors) }
    }

    /// The timestamp of the newest secret in force at `now` (Unix seconds), by which a log can say
    /// which one it is; `None` while all of them lie in the future, and then no key is good.
    pub fn newest(&self, now: u64) -> Option<u64> {
        self.in_force(now).map(|secret| secret.from)
    }

    /// Whether the key was made with the secret in force at its own timestamp, or with the newest
    /// one in force at `now` (Unix seconds), as the original has it.
    ///
    /// A key dated in the future counts as made now: the clock of whoever made it may be ahead, but
    /// a secret is never used before its own time. Takes the same time whichever byte of the hash
    /// differs.
    pub fn verify(&self, key: &HostKey, now: u64) -> bool {
        let Some(hash) = &key.hash else {
            return false;
        };
        let candidates = [self.in_force(key.made.min(now)), self.in_force(now)];
        let mut good = Choice::from(0);
        for secret in candidates.into_iter().flatten() {
            good |= digest(&secret.text, &key.signed).ct_eq(hash);
        }
        good.into()
    }

    fn in_force(&self, at: u64) -> Option<&Secret> {
        self.lines.iter().rev().find(|secret| secret.from <= at)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} of them)", self.lines.len())
    }
}

impl Secret {
    /// One line of the file, which comes after a line of timestamp `after`.
    fn parse(line: &str, after: Option<u64>) -> Result<Secret, &'static str> {
        let (from, text) =
            line.split_once(':').ok_or("a line is timestamp:secret, and this one has no colon")?;
        let digits = !from.is_empty() && from.bytes().all(|b| b.is_ascii_digit());
        let from: u64 = match from.parse() {
            Ok(from) if digits => from,
            _ => return Err("the timestamp is not a number of seconds"),
        };
        if text.is_empty() {
            return Err("the secret is empty");
        }
        if after.is_some_and(|after| from <= after) {
            return Err("the timestamp is not above the one before it");
        }
        Ok(Secret { from, text: text.to_owned() })
    }
}

fn digest(secret: &str, signed: &str) -> [u8; HASH] {
    let mut sha1 = Sha1::new();
    sha1.update(secret);
    sha1.update(b":");
    sha1.update(signed);
    sha1.finalize().into()
}

/// Makes the key that the original's `cloud_generate_key` prints for the same three inputs.
/// `timestamp` is in Unix seconds.
pub fn legacy_key(secret: &str, timestamp: u64, name: &str) -> String {
    let signed = format!("{timestamp}:{name}");
    let mut key = String::with_capacity(2 * HASH + 1 + signed.len());
    for byte in digest(secret, &signed) {
        // Writing to a String cannot fail.
        let _ = write!(key, "{byte:02x}");
    }
    key.push(':');
    key.push_str(&signed);
    key
}

/// Whether a key for `name` covers `pattern`: the name itself and every name below it. A wildcard is
/// compared as the text it is, so `*.b.com` is below `b.com`. Both in lower case.
pub fn covers(name: &str, pattern: &str) -> bool {
    match pattern.strip_suffix(name) {
        Some("") => true,
        Some(above) => above.ends_with('.'),
        None => false,
    }
}

/// Checks that a good key covers each pattern of a registration. `now` is in Unix seconds.
///
/// Gives the names of the keys that were needed, each once. Otherwise a 401 that names the first
/// pattern without a key: one wrong name refuses the whole registration, as in the original.
pub fn authorise(
    registration: &Registration,
    secrets: &Secrets,
    now: u64,
) -> Result<Vec<String>, Refusal> {
    let good: Vec<bool> = registration.keys.iter().map(|key| secrets.verify(key, now)).collect();
    let mut names: Vec<String> = Vec::new();
    for pattern in &registration.patterns {
        let mut covering = registration
            .keys
            .iter()
            .zip(&good)
            .filter(|(key, _)| covers(&key.name, pattern))
            .peekable();
        if covering.peek().is_none() {
            return Err(Refusal::new(401, format!("no Host-Key covers {pattern}")));
        }
        let Some((key, _)) = covering.find(|(_, good)| **good) else {
            let text = format!("the Host-Key for {pattern} does not check out: has it expired?");
            return Err(Refusal::new(401, text));
        };
        if !names.contains(&key.name) {
            names.push(key.name.clone());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
