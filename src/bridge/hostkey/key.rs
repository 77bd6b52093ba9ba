//! A key of any form.

use std::fmt;
use std::num::NonZeroU32;

use super::caveats::{Caveat, Scope};
use super::cover::covers;
use super::error::KeyError;
use super::legacy::LegacyKey;
use super::modern::{self, ModernKey};
use super::narrowed::{self, Limit, NarrowedKey};
use super::root::Root;

/// A key as a backend sent it, not yet checked (see `Secrets::check`).
#[derive(Clone)]
pub enum HostKey {
    /// As the proxy's owner has made it.
    Root(Root),
    /// As one of its holders has narrowed it.
    Narrowed(NarrowedKey),
}

impl HostKey {
    /// Reads a key of any form; `v` is not a hex digit, so the first field tells them apart.
    ///
    /// The name is a host pattern. A port on it is ignored, but part of what was hashed.
    ///
    /// # Errors
    ///
    /// Malformed. A well-formed key may still be invalid.
    pub fn parse(text: &[u8]) -> Result<HostKey, KeyError> {
        let text = std::str::from_utf8(text).map_err(|_| KeyError::Shape)?;
        let (first, _) = text.split_once(':').ok_or(KeyError::Shape)?;
        match first {
            modern::VERSION => ModernKey::parse(text).map(Root::Modern).map(HostKey::Root),
            narrowed::VERSION => NarrowedKey::parse(text).map(HostKey::Narrowed),
            later if later.starts_with('v') => Err(KeyError::Version),
            _ => LegacyKey::parse(text).map(Root::Legacy).map(HostKey::Root),
        }
    }

    /// Reads a key without its hash: the version with its colon, or nothing, and what is behind the
    /// hash, with the colon.
    pub(super) fn unsigned(version: &str, rest: &str) -> Result<HostKey, KeyError> {
        let rest = rest.strip_prefix(':').unwrap_or(rest);
        match version.strip_suffix(':') {
            None => LegacyKey::unsigned(rest).map(Root::Legacy).map(HostKey::Root),
            Some(modern::VERSION) => ModernKey::unsigned(rest).map(Root::Modern).map(HostKey::Root),
            Some(narrowed::VERSION) => NarrowedKey::unsigned(rest).map(HostKey::Narrowed),
            Some(_) => Err(KeyError::Version),
        }
    }

    /// The key with these caveats added. There must be at least one.
    ///
    /// # Errors
    /// There are too many now, or nothing is left; or the key has no hash.
    pub(crate) fn narrowed(&self, caveats: &[Caveat]) -> Result<HostKey, KeyError> {
        match self {
            HostKey::Root(root) => NarrowedKey::of_root(root, caveats),
            HostKey::Narrowed(key) => key.narrowed(caveats),
        }
        .map(HostKey::Narrowed)
    }

    /// The same key with the hash that `secret` gives it.
    pub(super) fn signed_with(&self, secret: &str) -> HostKey {
        match self {
            HostKey::Root(root) => HostKey::Root(root.signed_with(secret)),
            HostKey::Narrowed(key) => HostKey::Narrowed(key.signed_with(secret)),
        }
    }

    /// The hash in hex digits in lower case, under which proofs are made. It must not be shown.
    pub(super) fn hash_digits(&self) -> String {
        match self {
            HostKey::Root(root) => root.hash_digits(),
            HostKey::Narrowed(key) => key.hash_digits(),
        }
    }

    /// The key that the proxy's owner has made: itself, unless it was narrowed.
    pub(crate) fn root(&self) -> &Root {
        match self {
            HostKey::Root(root) => root,
            HostKey::Narrowed(key) => key.root(),
        }
    }

    /// Whether the proxy's owner has made it in the original's form.
    pub(super) fn is_legacy(&self) -> bool {
        matches!(self.root(), Root::Legacy(_))
    }

    /// The name that the key is for, in lower case.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            HostKey::Root(root) => root.name(),
            HostKey::Narrowed(key) => &key.scope().name,
        }
    }

    /// The names of the key that the proxy's owner has made and of those narrowed from it, up to this
    /// one: each below the one before.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names = vec![self.root().name()];
        if let HostKey::Narrowed(key) = self {
            for caveat in key.caveats() {
                if let (Caveat::Host(name), Some(last)) = (caveat, names.last())
                    && name != last
                    && covers(last, name)
                {
                    names.push(name);
                }
            }
        }
        names
    }

    /// The restrictions that its holders have added, in their order and as they are written in it.
    #[must_use]
    pub fn caveats(&self) -> Vec<String> {
        match self {
            HostKey::Root(_) => Vec::new(),
            HostKey::Narrowed(key) => key.caveats().iter().map(ToString::to_string).collect(),
        }
    }

    /// When the key, or the one that it was narrowed from, claims to have been made, in Unix seconds.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.root().made()
    }

    /// What it lets its holder do.
    pub(crate) fn scope(&self) -> Scope {
        match self {
            HostKey::Root(root) => root.scope(),
            HostKey::Narrowed(key) => key.scope().clone(),
        }
    }

    /// How many bridges may be connected at once under this key; `None` for any number.
    #[must_use]
    pub fn bridges(&self) -> Option<NonZeroU32> {
        match self {
            HostKey::Root(root) => root.bridges(),
            HostKey::Narrowed(key) => key.scope().bridges,
        }
    }

    /// Everything that limits the bridges under this key.
    pub(crate) fn limits(&self) -> Vec<Limit> {
        let root = self.root();
        let of_root = root.bridges().map(|most| (root.name().to_owned(), most));
        let more = match self {
            HostKey::Root(_) => Vec::new(),
            HostKey::Narrowed(key) => key.limits(),
        };
        of_root.into_iter().chain(more).collect()
    }

    /// From when it is no longer valid, in Unix seconds; `None` if it does not expire.
    #[must_use]
    pub fn expires(&self) -> Option<u64> {
        match self {
            HostKey::Root(root) => root.expires(),
            HostKey::Narrowed(key) => key.scope().expires,
        }
    }

    /// The key itself, in its only spelling. It must not be shown.
    pub(crate) fn text(&self) -> String {
        match self {
            HostKey::Root(root) => root.text(),
            HostKey::Narrowed(key) => key.text(),
        }
    }

    /// Whether `secret` made this key. In constant time.
    pub(super) fn is_made_with(&self, secret: &str) -> bool {
        match self {
            HostKey::Root(root) => root.is_made_with(secret),
            HostKey::Narrowed(key) => key.is_made_with(secret),
        }
    }
}

impl fmt::Debug for HostKey {
    /// Without the hash, so that a log does not give the key away.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostKey::Root(root) => root.fmt(f),
            HostKey::Narrowed(key) => write!(f, "Narrowed({key:?})"),
        }
    }
}
