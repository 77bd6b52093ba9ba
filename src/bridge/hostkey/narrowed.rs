//! Keys that were narrowed by their holders: `v3:hash:ROOT+caveat+caveat`, where `ROOT` is the key
//! that the proxy's owner has made, without its hash, and the hash is the end of a chain of HMACs
//! that begins with that hash (`doc/protocol.md`, "Narrower keys").
//!
//! Who has a key can append a caveat. Nobody can take one away or change one: that would take the
//! hash before it, which is the key of the HMAC.

use std::fmt;
use std::num::NonZeroU32;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::caveats::{Caveat, SEPARATOR, Scope};
use super::error::{KeyError, MOST_CAVEATS};
use super::root::Root;
use crate::bridge::ascii::{from_lower_hex, hex};

/// The first field.
pub(super) const VERSION: &str = "v3";

/// Bytes of an HMAC-SHA256.
const HASH: usize = 32;

/// Begins what a link of the chain signs, so that it is no proof (`bridge::proof`), which is signed
/// with the same hashes.
const LABEL: &str = "cloudbridge-narrow-1\n";

/// Under what bridges are counted, and how many there may be.
///
/// For a key as the proxy's owner makes them it is the name, and for a caveat the name of the first
/// key and all caveats up to this one, without expiries. It is not the key itself: replacing a key by
/// a newer one must not double what its owner may connect, and neither must narrowing it again.
pub type Limit = (String, NonZeroU32);

/// A key with caveats.
#[derive(Clone)]
pub struct NarrowedKey {
    hash: [u8; HASH],
    /// Its hash is not known, unless it has just been made.
    root: Root,
    /// Never empty: without one it would be the root in another spelling.
    caveats: Vec<Caveat>,
    scope: Scope,
}

impl NarrowedKey {
    /// Reads a key.
    pub(super) fn parse(text: &str) -> Result<NarrowedKey, KeyError> {
        let mut fields = text.splitn(3, ':');
        let mut field = || fields.next().ok_or(KeyError::NarrowedShape);
        let (_, hash, rest) = (field()?, field()?, field()?);
        let hash = from_lower_hex(hash).ok_or(KeyError::ModernHash)?;
        Ok(NarrowedKey { hash, ..NarrowedKey::unsigned(rest)? })
    }

    /// Reads what is behind the hash, which is to be filled in.
    pub(super) fn unsigned(rest: &str) -> Result<NarrowedKey, KeyError> {
        let (root, caveats) = rest.split_once(SEPARATOR).ok_or(KeyError::NarrowedShape)?;
        let root = Root::unsigned(root)?;
        if caveats.split(SEPARATOR).count() > MOST_CAVEATS {
            return Err(KeyError::Caveats);
        }
        let caveats: Result<Vec<_>, _> = caveats.split(SEPARATOR).map(Caveat::parse).collect();
        let caveats = caveats?;
        let scope = caveats.iter().try_fold(root.scope(), Scope::narrowed)?;
        Ok(NarrowedKey { hash: [0; HASH], root, caveats, scope })
    }

    /// `parent`, whose hash is that of a key, with these caveats. There must be one.
    pub(super) fn of_root(parent: &Root, caveats: &[Caveat]) -> Result<NarrowedKey, KeyError> {
        if parent.hash_digits().is_empty() {
            return Err(KeyError::Hash);
        }
        let key = NarrowedKey::unsigned(&rest(parent, caveats))?;
        Ok(NarrowedKey { hash: chain(&parent.hash_digits(), caveats), ..key })
    }

    /// The key with these caveats added.
    pub(super) fn narrowed(&self, more: &[Caveat]) -> Result<NarrowedKey, KeyError> {
        let all = [&self.caveats, more].concat();
        let key = NarrowedKey::unsigned(&rest(&self.root, &all))?;
        Ok(NarrowedKey { hash: chain(&self.hash_digits(), more), ..key })
    }

    /// The key. It must not be shown.
    pub(super) fn text(&self) -> String {
        format!("{VERSION}:{}:{}", hex(&self.hash), rest(&self.root, &self.caveats))
    }

    pub(super) fn hash_digits(&self) -> String {
        hex(&self.hash)
    }

    pub(super) fn signed_with(&self, secret: &str) -> NarrowedKey {
        let hash = chain(&self.root.signed_with(secret).hash_digits(), &self.caveats);
        NarrowedKey { hash, ..self.clone() }
    }

    /// In constant time.
    pub(super) fn is_made_with(&self, secret: &str) -> bool {
        self.signed_with(secret).hash.ct_eq(&self.hash).into()
    }

    /// The keys from which it was narrowed, if `secret` made the first of them. They must not be shown.
    pub(super) fn ancestors(&self, secret: &str) -> Vec<String> {
        let root = self.root.signed_with(secret);
        let (mut digits, mut rest) = (root.hash_digits(), root.signed().to_owned());
        let mut all = vec![root.text()];
        for caveat in self.caveats.iter().take(self.caveats.len() - 1) {
            digits = hex(&link(&digits, caveat));
            rest = format!("{rest}{SEPARATOR}{caveat}");
            all.push(format!("{VERSION}:{digits}:{rest}"));
        }
        all
    }

    /// The key that the proxy's owner has made.
    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    pub(crate) fn caveats(&self) -> &[Caveat] {
        &self.caveats
    }

    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The limits that the caveats set. Those of the root are not among them.
    pub(super) fn limits(&self) -> Vec<Limit> {
        let (mut of, mut limits) = (self.root.name().to_owned(), Vec::new());
        for caveat in &self.caveats {
            if matches!(caveat, Caveat::Expiry(_)) {
                continue;
            }
            of = format!("{of}{SEPARATOR}{caveat}");
            if let Caveat::Bridges(count) = caveat {
                limits.push((of.clone(), *count));
            }
        }
        limits
    }
}

impl fmt::Debug for NarrowedKey {
    /// Without the hash, so that a log does not give the key away.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION}:***:{}", rest(&self.root, &self.caveats))
    }
}

/// The hash at the end of a chain that begins with the hash of a key, as its hex digits.
fn chain(begin: &str, caveats: &[Caveat]) -> [u8; HASH] {
    let (mut digits, mut hash) = (begin.to_owned(), [0; HASH]);
    for caveat in caveats {
        hash = link(&digits, caveat);
        digits = hex(&hash);
    }
    hash
}

/// The next hash of a chain, behind one whose hex digits are `before`.
fn link(before: &str, caveat: &Caveat) -> [u8; HASH] {
    // RFC 2104, section 2: the key may have any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(before.as_bytes()).expect("keys of any length");
    mac.update(LABEL.as_bytes());
    mac.update(caveat.to_string().as_bytes());
    mac.finalize().into_bytes().into()
}

/// What is behind the hash.
fn rest(root: &Root, caveats: &[Caveat]) -> String {
    let caveats = caveats.iter().map(|caveat| format!("{SEPARATOR}{caveat}"));
    caveats.fold(root.signed().to_owned(), |text, caveat| text + &caveat)
}

#[cfg(test)]
mod tests;
