//! A key of either form.

use std::num::NonZeroU32;

use super::error::KeyError;
use super::legacy::LegacyKey;
use super::modern::{self, ModernKey};

/// A key as a backend sent it, not yet checked (see `Secrets::check`).
#[derive(Clone, Debug)]
pub enum HostKey {
    /// The original's form.
    Legacy(LegacyKey),
    /// Ours.
    Modern(ModernKey),
}

impl HostKey {
    /// Reads a key of either form; `v` is not a hex digit, so the first field tells them apart.
    ///
    /// The name is a host pattern. A port on it is ignored, but part of what was hashed.
    ///
    /// # Errors
    ///
    /// Malformed. A well-formed key may still be invalid.
    pub fn parse(text: &[u8]) -> Result<HostKey, KeyError> {
        let text = std::str::from_utf8(text).map_err(|_| KeyError::Shape)?;
        let (first, _) = text.split_once(':').ok_or(KeyError::Shape)?;
        if first == modern::VERSION {
            ModernKey::parse(text).map(HostKey::Modern)
        } else if first.starts_with('v') {
            Err(KeyError::Version)
        } else {
            LegacyKey::parse(text).map(HostKey::Legacy)
        }
    }

    /// Reads a key without its hash: the version with its colon, or nothing, and what is behind the
    /// hash, with the colon.
    pub(super) fn unsigned(version: &str, rest: &str) -> Result<HostKey, KeyError> {
        let rest = rest.strip_prefix(':').unwrap_or(rest);
        match version.strip_suffix(':') {
            None => LegacyKey::unsigned(rest).map(HostKey::Legacy),
            Some(modern::VERSION) => ModernKey::unsigned(rest).map(HostKey::Modern),
            Some(_) => Err(KeyError::Version),
        }
    }

    /// The same key with the hash that `secret` gives it.
    pub(super) fn signed_with(&self, secret: &str) -> HostKey {
        match self {
            HostKey::Legacy(key) => HostKey::Legacy(key.signed_with(secret)),
            HostKey::Modern(key) => HostKey::Modern(key.signed_with(secret)),
        }
    }

    /// The hash in hex digits in lower case, under which proofs are made. It must not be shown.
    pub(super) fn hash_digits(&self) -> String {
        match self {
            HostKey::Legacy(key) => key.hash_digits(),
            HostKey::Modern(key) => key.hash_digits(),
        }
    }

    /// The name that the key is for, in lower case.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            HostKey::Legacy(key) => &key.name,
            HostKey::Modern(key) => &key.terms.name,
        }
    }

    /// When the key claims to have been made, in Unix seconds.
    #[must_use]
    pub fn made(&self) -> u64 {
        match self {
            HostKey::Legacy(key) => key.made,
            HostKey::Modern(key) => key.terms.made,
        }
    }

    /// How many bridges may be connected at once under this key; `None` for any number.
    #[must_use]
    pub fn bridges(&self) -> Option<NonZeroU32> {
        match self {
            HostKey::Legacy(_) => None,
            HostKey::Modern(key) => key.terms.bridges,
        }
    }

    /// From when it is no longer valid, in Unix seconds; `None` if it does not expire.
    #[must_use]
    pub fn expires(&self) -> Option<u64> {
        match self {
            HostKey::Legacy(_) => None,
            HostKey::Modern(key) => Some(key.terms.expires),
        }
    }

    /// The key itself, in its only spelling. It must not be shown.
    pub(crate) fn text(&self) -> String {
        match self {
            HostKey::Legacy(key) => key.text(),
            HostKey::Modern(key) => key.text(),
        }
    }

    /// Whether `secret` made this key. In constant time.
    pub(super) fn is_made_with(&self, secret: &str) -> bool {
        match self {
            HostKey::Legacy(key) => key.is_made_with(secret).into(),
            HostKey::Modern(key) => key.is_made_with(secret),
        }
    }
}
