//! Single keys that have been taken back, by their hashes.

use std::collections::HashSet;
use std::fmt;

use sha2::{Digest, Sha256};

use super::key::HostKey;
use crate::bridge::ascii::{from_hex, hex};

/// Bytes of a SHA-256 digest.
const BYTES: usize = 32;

/// The SHA-256 of a key's text. It names the key, and nobody gets the key from it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash([u8; BYTES]);

impl KeyHash {
    /// That of a key. Keys that are checked alike have the same: of the old form the digits may be
    /// capitals, and a revoked key must not come back in another spelling.
    #[must_use]
    pub fn of(key: &HostKey) -> KeyHash {
        KeyHash::of_text(&key.text())
    }

    fn of_text(text: &str) -> KeyHash {
        KeyHash(Sha256::digest(text).into())
    }
}

/// 64 hex digits, as `sha256sum` prints them.
impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The keys that are no longer good, whatever their secret and expiry say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    hashes: HashSet<KeyHash>,
}

impl Revoked {
    /// Reads a file: one hash a line, in 64 hex digits. Blank lines are skipped, and so is what
    /// follows a `#`.
    ///
    /// # Errors
    ///
    /// All of them, as `file:line: what is wrong`. None contains any of the text: the line may be a
    /// key.
    pub(crate) fn parse(text: &str, file: &str) -> Result<Revoked, Vec<String>> {
        let (mut revoked, mut errors) = (Revoked::default(), Vec::new());
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            match from_hex(line) {
                Some(hash) => _ = revoked.hashes.insert(KeyHash(hash)),
                None => errors.push(format!("{file}:{}: {}", index + 1, wrong(line))),
            }
        }
        if errors.is_empty() { Ok(revoked) } else { Err(errors) }
    }

    /// Whether the key has been taken back.
    pub(crate) fn has(&self, key: &HostKey) -> bool {
        !self.hashes.is_empty() && self.hashes.contains(&KeyHash::of(key))
    }

    /// The same for a key in its only spelling.
    pub(super) fn has_text(&self, text: &str) -> bool {
        self.hashes.contains(&KeyHash::of_text(text))
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

fn wrong(line: &str) -> &'static str {
    if HostKey::parse(line.as_bytes()).is_ok() {
        "this is a key; a line is its hash, which `cloudbridge-key hash KEY` prints"
    } else {
        "a line is the hash of a key, 64 hex digits, as `cloudbridge-key hash KEY` prints it"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf %s KEY | sha256sum`
    const KEY: &str = "0123456789abcdef0123456789abcdef01234567:1:a.test";

    fn key(text: &str) -> HostKey {
        HostKey::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_hash_is_that_of_the_text() {
        assert_eq!(
            KeyHash::of(&key("::a.test")).to_string(),
            hex(&Sha256::digest("::a.test")),
            "a key without a hash"
        );
        assert_eq!(KeyHash::of(&key(KEY)).to_string(), hex(&Sha256::digest(KEY)));
        let modern = format!("v2:{}:1:2:3:a.test:80", "ab".repeat(32));
        assert_eq!(KeyHash::of(&key(&modern)).to_string(), hex(&Sha256::digest(&modern)));
    }

    #[test]
    fn a_revoked_key_is_revoked_in_every_spelling() {
        let hash = KeyHash::of(&key(KEY));
        let file = format!("# taken back\n\n  {hash}   # the laptop\n");
        let revoked = Revoked::parse(&file, "f").unwrap();
        assert_eq!(revoked.len(), 1);
        assert!(revoked.has(&key(KEY)));
        let (digits, rest) = KEY.split_once(':').unwrap();
        let shouted = format!("{}:{rest}", digits.to_ascii_uppercase());
        assert!(revoked.has(&key(&shouted)));
        assert!(!revoked.has(&key(&KEY.replace("a.test", "b.test"))));
        let capitals = Revoked::parse(&hash.to_string().to_ascii_uppercase(), "f").unwrap();
        assert_eq!(capitals, revoked);
    }

    #[test]
    fn every_bad_line_is_named_and_none_is_shown() {
        let file = format!("{}\nsesame\n#\n{KEY}\n{} -\n", "0".repeat(64), "0".repeat(64));
        let problems = Revoked::parse(&file, "f").unwrap_err();
        let what =
            "a line is the hash of a key, 64 hex digits, as `cloudbridge-key hash KEY` prints it";
        assert_eq!(
            problems,
            [
                format!("f:2: {what}"),
                "f:4: this is a key; a line is its hash, which `cloudbridge-key hash KEY` prints"
                    .to_owned(),
                format!("f:5: {what}"),
            ]
        );
    }
}
