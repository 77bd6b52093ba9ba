//! The modern keys: `v2:hash:timestamp:expiry:bridges:name`, where the hash is
//! `HMAC-SHA256hex(secret, "v2:" timestamp ":" expiry ":" bridges ":" name)`.
//!
//! As the MAC (RFC 2104) is over everything else that stands in the key, the version included, nothing of it
//! can be changed or left out; and there is one way to write each key, so that two texts are two keys.

use std::fmt;
use std::num::NonZeroU32;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::super::ascii::{from_hex, hex, number};
use super::super::pattern;
use super::BadKey;

/// The first field. It is no hash of the old form, so that neither form can be taken for the other.
pub(super) const VERSION: &str = "v2";

/// Bytes of an HMAC-SHA256.
const HASH: usize = 32;

/// How far a key's timestamp may lie ahead of the proxy's clock, in seconds: what unsynchronised clocks of
/// servers come to. A key from further ahead is refused rather than put down to the wrong secret.
pub const MAX_SKEW: u64 = 300;

/// What a modern key says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// When it was made, in Unix seconds. It chooses the secret.
    pub made: u64,
    /// The first Unix second at which it is no longer good.
    pub expires: u64,
    /// How many bridges may be connected at once by it; `None` for any number.
    pub bridges: Option<NonZeroU32>,
    /// The name, a host pattern.
    pub name: String,
}

impl Terms {
    /// Everything of the key but its hash, as it is signed.
    fn signed(&self) -> String {
        let limit = self.bridges.map_or(String::new(), |limit| limit.to_string());
        let Terms { made, expires, name, .. } = self;
        format!("{VERSION}:{made}:{expires}:{limit}:{name}")
    }
}

/// A key of the modern form.
#[derive(Clone)]
pub struct ModernKey {
    hash: [u8; HASH],
    /// Everything but the hash, as it was sent.
    signed: String,
    /// What it says, with the name in the form of [`pattern::parse`].
    terms: Terms,
}

impl ModernKey {
    /// Reads `v2:hash:timestamp:expiry:bridges:name`; the name is last because it may hold colons.
    pub(super) fn parse(text: &str) -> Result<ModernKey, BadKey> {
        let mut fields = text.splitn(6, ':');
        let mut field = || fields.next().ok_or(BadKey::ModernShape);
        let (_, hash, made, expires) = (field()?, field()?, field()?, field()?);
        let (bridges, name) = (field()?, field()?);
        let signed = format!("{VERSION}:{made}:{expires}:{bridges}:{name}");
        let capital = hash.bytes().any(|b| b.is_ascii_uppercase());
        Ok(ModernKey {
            hash: from_hex(hash).filter(|_| !capital).ok_or(BadKey::ModernHash)?,
            terms: Terms {
                made: plain_number(made).ok_or(BadKey::Timestamp)?,
                expires: plain_number(expires).ok_or(BadKey::Expiry)?,
                bridges: limit(bridges)?,
                name: pattern::parse(name.as_bytes()).map_err(BadKey::Name)?,
            },
            signed,
        })
    }

    /// What it says.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The name that the key is for, in lower case.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.terms.name
    }

    pub(super) fn is_made_with(&self, secret: &str) -> bool {
        mac(secret, &self.signed).verify_slice(&self.hash).is_ok()
    }
}

impl fmt::Debug for ModernKey {
    /// Without the hash: whoever reads a log must not be able to use the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = self.signed.strip_prefix(VERSION).unwrap_or_default();
        write!(f, "{VERSION}:***{rest}")
    }
}

/// A number as it is written: without zeros in front.
fn plain_number(text: &str) -> Option<u64> {
    number(text).filter(|_| text == "0" || !text.starts_with('0'))
}

/// Empty for none, or a number of bridges.
fn limit(text: &str) -> Result<Option<NonZeroU32>, BadKey> {
    if text.is_empty() {
        return Ok(None);
    }
    let count = plain_number(text).and_then(|count| u32::try_from(count).ok());
    count.and_then(NonZeroU32::new).map(Some).ok_or(BadKey::Bridges)
}

fn mac(secret: &str, signed: &str) -> Hmac<Sha256> {
    // RFC 2104 section 2: a key of any length is taken, and so there is no error to be had.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("keys of any length");
    mac.update(signed.as_bytes());
    mac
}

/// Makes a modern key. Whether it is of use (its name a host pattern, its expiry after its timestamp) is for
/// the caller to see to.
#[must_use]
pub fn modern_key(secret: &str, terms: &Terms) -> String {
    let signed = terms.signed();
    let hash = mac(secret, &signed).finalize().into_bytes();
    let rest = signed.strip_prefix(VERSION).unwrap_or_default();
    format!("{VERSION}:{}{rest}", hex(&hash))
}

#[cfg(test)]
mod tests;
