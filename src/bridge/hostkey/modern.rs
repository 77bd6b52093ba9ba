//! The modern keys: `v2:hash:timestamp:expiry:bridges:name`, where the hash is
//! `HMAC-SHA256hex(secret, "v2:" timestamp ":" expiry ":" bridges ":" name)`.
//!
//! The MAC (RFC 2104) is over everything else in the key, the version included, so that nothing in
//! it can be changed. There is only one way to write each key, so that two texts are two keys.

use std::fmt;
use std::num::NonZeroU32;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::error::KeyError;
use crate::bridge::ascii::{from_lower_hex, hex, number};
use crate::bridge::pattern;

/// The first field. It is not a hash of the old form, so the two cannot be confused.
pub(super) const VERSION: &str = "v2";

/// Bytes of an HMAC-SHA256.
const HASH: usize = 32;

/// How far a key's timestamp may be ahead of the proxy's clock, in seconds: clocks that are not
/// synchronised differ by minutes. A later key is refused rather than checked with the wrong
/// secret.
pub(crate) const MAX_SKEW: u64 = 300;

/// What a modern key states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// When it was made, in Unix seconds. Selects the secret.
    pub made: u64,
    /// The first Unix second at which it is no longer valid.
    pub expires: u64,
    /// How many bridges may be connected at once; `None` for any number.
    pub bridges: Option<NonZeroU32>,
    /// A host pattern.
    pub name: String,
}

/// A key of the modern form.
#[derive(Clone)]
pub struct ModernKey {
    hash: [u8; HASH],
    /// Everything but the hash, as sent.
    pub(super) signed: String,
    /// With the name in the form of [`pattern::parse`].
    pub(crate) terms: Terms,
}

impl ModernKey {
    /// Reads `v2:hash:timestamp:expiry:bridges:name`; the name is last because it may hold colons.
    pub(super) fn parse(text: &str) -> Result<ModernKey, KeyError> {
        let mut fields = text.splitn(3, ':');
        let mut field = || fields.next().ok_or(KeyError::ModernShape);
        let (_, hash, rest) = (field()?, field()?, field()?);
        if rest.split(':').count() < 4 {
            return Err(KeyError::ModernShape);
        }
        let hash = from_lower_hex(hash).ok_or(KeyError::ModernHash)?;
        Ok(ModernKey { hash, ..ModernKey::unsigned(rest)? })
    }

    /// Reads `timestamp:expiry:bridges:name`. The hash is to be filled in.
    pub(super) fn unsigned(rest: &str) -> Result<ModernKey, KeyError> {
        let mut fields = rest.splitn(4, ':');
        let mut field = || fields.next().ok_or(KeyError::ModernShape);
        let (made, expires, bridges, name) = (field()?, field()?, field()?, field()?);
        Ok(ModernKey {
            hash: [0; HASH],
            terms: Terms {
                made: plain_number(made).ok_or(KeyError::Timestamp)?,
                expires: plain_number(expires).ok_or(KeyError::Expiry)?,
                bridges: limit(bridges)?,
                name: pattern::parse(name.as_bytes()).map_err(KeyError::Name)?,
            },
            signed: format!("{VERSION}:{rest}"),
        })
    }

    /// The key. It must not be shown.
    pub(super) fn text(&self) -> String {
        let rest = self.signed.strip_prefix(VERSION).unwrap_or_default();
        format!("{VERSION}:{}{rest}", self.hash_digits())
    }

    pub(super) fn hash_digits(&self) -> String {
        hex(&self.hash)
    }

    pub(super) fn signed_with(&self, secret: &str) -> ModernKey {
        ModernKey { hash: mac(secret, &self.signed).finalize().into_bytes().into(), ..self.clone() }
    }

    pub(super) fn is_made_with(&self, secret: &str) -> bool {
        mac(secret, &self.signed).verify_slice(&self.hash).is_ok()
    }
}

impl fmt::Debug for ModernKey {
    /// Without the hash, so that a log does not give the key away.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = self.signed.strip_prefix(VERSION).unwrap_or_default();
        write!(f, "{VERSION}:***{rest}")
    }
}

/// A number without leading zeros.
fn plain_number(text: &str) -> Option<u64> {
    number(text).filter(|_| text == "0" || !text.starts_with('0'))
}

fn limit(text: &str) -> Result<Option<NonZeroU32>, KeyError> {
    if text.is_empty() {
        return Ok(None);
    }
    let count = plain_number(text).and_then(|count| u32::try_from(count).ok());
    count.and_then(NonZeroU32::new).map(Some).ok_or(KeyError::Bridges)
}

fn mac(secret: &str, signed: &str) -> Hmac<Sha256> {
    // RFC 2104, section 2: the key may have any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("keys of any length");
    mac.update(signed.as_bytes());
    mac
}

/// Makes a modern key. The caller makes sure that its name is a host pattern, and that it expires
/// after it was made.
pub(crate) fn modern_key(secret: &str, terms: &Terms) -> String {
    let Terms { made, expires, bridges, name } = terms;
    let limit = bridges.map_or(String::new(), |limit| limit.to_string());
    let rest = format!("{made}:{expires}:{limit}:{name}");
    let hash = mac(secret, &format!("{VERSION}:{rest}")).finalize().into_bytes();
    format!("{VERSION}:{}:{rest}", hex(&hash))
}

#[cfg(test)]
mod tests;
