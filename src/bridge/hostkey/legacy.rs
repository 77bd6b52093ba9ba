//! The original's keys: `SHA1hex(secret ":" timestamp ":" name) ":" timestamp ":" name`.

use std::fmt;

use sha1::{Digest, Sha1};
use subtle::{Choice, ConstantTimeEq};

use super::super::ascii::{from_hex, hex, number};
use super::super::pattern;
use super::BadKey;

/// Bytes of a SHA-1 digest.
const HASH: usize = 20;

/// A key of the original's form.
///
/// The hash and the timestamp may be empty, and a key without a hash proves nothing.
#[derive(Clone)]
pub struct LegacyKey {
    /// `None` for an empty hash.
    hash: Option<[u8; HASH]>,
    /// When the key was made, in Unix seconds; 0 for an empty timestamp.
    made: u64,
    /// `timestamp:name` as it was sent, because the hash is over these bytes.
    signed: String,
    /// The name in the form of [`pattern::parse`], because coverage is decided by that.
    name: String,
}

impl LegacyKey {
    /// Reads `hash:timestamp:name`.
    pub(super) fn parse(text: &str) -> Result<LegacyKey, BadKey> {
        let (hash, signed) = text.split_once(':').ok_or(BadKey::Shape)?;
        let (timestamp, name) = signed.split_once(':').ok_or(BadKey::Shape)?;
        let hash = match hash {
            "" => None,
            hash => Some(from_hex(hash).ok_or(BadKey::Hash)?),
        };
        let made = match timestamp {
            "" => 0,
            digits => number(digits).ok_or(BadKey::Timestamp)?,
        };
        let name = pattern::parse(name.as_bytes()).map_err(BadKey::Name)?;
        Ok(LegacyKey { hash, made, signed: signed.to_owned(), name })
    }

    /// The name that the key is for, in lower case.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When it says that it was made, in Unix seconds.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.made
    }

    /// Whether it has a hash at all.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.hash.is_some()
    }

    pub(super) fn is_made_with(&self, secret: &str) -> Choice {
        match &self.hash {
            Some(hash) => digest(secret, &self.signed).ct_eq(hash),
            None => Choice::from(0),
        }
    }
}

impl fmt::Debug for LegacyKey {
    /// Without the hash: whoever reads a log must not be able to use the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "***:{}:{}", self.made, self.name)
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
#[must_use]
pub fn legacy_key(secret: &str, timestamp: u64, name: &str) -> String {
    let signed = format!("{timestamp}:{name}");
    format!("{}:{signed}", hex(&digest(secret, &signed)))
}
