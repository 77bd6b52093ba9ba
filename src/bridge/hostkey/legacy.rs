//! The original's keys: `SHA1hex(secret ":" timestamp ":" name) ":" timestamp ":" name`.

use std::fmt;

use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;

use super::error::KeyError;
use crate::bridge::ascii::{from_hex, hex, number};
use crate::bridge::pattern;

/// Bytes of a SHA-1 digest.
const HASH: usize = 20;

/// A key of the original's form. A key without a hash proves nothing.
#[derive(Clone)]
pub struct LegacyKey {
    /// `None` for an empty hash.
    pub(super) hash: Option<[u8; HASH]>,
    /// In Unix seconds; 0 for an empty timestamp.
    pub(super) made: u64,
    /// `timestamp:name` as sent: the hash is over these bytes.
    pub(super) signed: String,
    /// In the form of [`pattern::parse`].
    pub(super) name: String,
}

impl LegacyKey {
    /// Reads `hash:timestamp:name`.
    pub(super) fn parse(text: &str) -> Result<LegacyKey, KeyError> {
        let (hash, signed) = text.split_once(':').ok_or(KeyError::Shape)?;
        let hash = match hash {
            "" => None,
            hash => Some(from_hex(hash).ok_or(KeyError::Hash)?),
        };
        Ok(LegacyKey { hash, ..LegacyKey::unsigned(signed)? })
    }

    /// Reads `timestamp:name`.
    pub(super) fn unsigned(signed: &str) -> Result<LegacyKey, KeyError> {
        let (timestamp, name) = signed.split_once(':').ok_or(KeyError::Shape)?;
        let made = match timestamp {
            "" => 0,
            digits => number(digits).ok_or(KeyError::Timestamp)?,
        };
        let name = pattern::parse(name.as_bytes()).map_err(KeyError::Name)?;
        Ok(LegacyKey { hash: None, made, signed: signed.to_owned(), name })
    }

    /// The key, with digits in lower case. It must not be shown.
    pub(super) fn text(&self) -> String {
        format!("{}:{}", self.hash_digits(), self.signed)
    }

    pub(super) fn hash_digits(&self) -> String {
        self.hash.as_ref().map_or(String::new(), |hash| hex(hash))
    }

    pub(super) fn signed_with(&self, secret: &str) -> LegacyKey {
        LegacyKey { hash: Some(digest(secret, &self.signed)), ..self.clone() }
    }

    pub(super) fn is_made_with(&self, secret: &str) -> bool {
        self.hash.as_ref().is_some_and(|hash| digest(secret, &self.signed).ct_eq(hash).into())
    }
}

impl fmt::Debug for LegacyKey {
    /// Without the hash, so that a log does not give the key away.
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

/// The key that the original's `cloud_generate_key` prints for the same three inputs. `timestamp`
/// is in Unix seconds.
#[must_use]
pub fn legacy_key(secret: &str, timestamp: u64, name: &str) -> String {
    let signed = format!("{timestamp}:{name}");
    format!("{}:{signed}", hex(&digest(secret, &signed)))
}
