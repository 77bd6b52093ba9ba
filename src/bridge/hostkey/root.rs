//! A key as the proxy's owner makes it, of either form.

use std::num::NonZeroU32;

use super::caveats::Scope;
use super::error::KeyError;
use super::legacy::LegacyKey;
use super::modern::{self, ModernKey};

/// A key that was not narrowed.
#[derive(Clone, Debug)]
pub enum Root {
    /// The original's form.
    Legacy(LegacyKey),
    /// Ours.
    Modern(ModernKey),
}

impl Root {
    /// Reads a key without its hash, as [`Root::signed`] is.
    pub(super) fn unsigned(signed: &str) -> Result<Root, KeyError> {
        match signed.split_once(':') {
            Some((modern::VERSION, rest)) => ModernKey::unsigned(rest).map(Root::Modern),
            Some((first, _)) if first.starts_with('v') => Err(KeyError::Version),
            _ => LegacyKey::unsigned(signed).map(Root::Legacy),
        }
    }

    /// What its hash is over, as sent: all of it but the hash.
    pub(super) fn signed(&self) -> &str {
        match self {
            Root::Legacy(key) => &key.signed,
            Root::Modern(key) => &key.signed,
        }
    }

    /// The same key with the hash that `secret` gives it.
    pub(super) fn signed_with(&self, secret: &str) -> Root {
        match self {
            Root::Legacy(key) => Root::Legacy(key.signed_with(secret)),
            Root::Modern(key) => Root::Modern(key.signed_with(secret)),
        }
    }

    /// The hash in hex digits in lower case. It must not be shown.
    pub(super) fn hash_digits(&self) -> String {
        match self {
            Root::Legacy(key) => key.hash_digits(),
            Root::Modern(key) => key.hash_digits(),
        }
    }

    /// The key itself, in its only spelling. It must not be shown.
    pub(super) fn text(&self) -> String {
        match self {
            Root::Legacy(key) => key.text(),
            Root::Modern(key) => key.text(),
        }
    }

    /// The name that the key is for, in lower case.
    pub(crate) fn name(&self) -> &str {
        match self {
            Root::Legacy(key) => &key.name,
            Root::Modern(key) => &key.terms.name,
        }
    }

    /// When the key claims to have been made, in Unix seconds.
    pub(super) fn made(&self) -> u64 {
        match self {
            Root::Legacy(key) => key.made,
            Root::Modern(key) => key.terms.made,
        }
    }

    /// What it lets its holder do.
    pub(super) fn scope(&self) -> Scope {
        let (name, prefix) = (self.name().to_owned(), String::new());
        let (bridges, expires) = (self.bridges(), self.expires());
        Scope { name, prefix, methods: None, bridges, expires }
    }

    /// How many bridges may be connected at once; `None` for any number.
    pub(super) fn bridges(&self) -> Option<NonZeroU32> {
        match self {
            Root::Legacy(_) => None,
            Root::Modern(key) => key.terms.bridges,
        }
    }

    /// From when it is no longer valid, in Unix seconds; `None` if it does not expire.
    pub(super) fn expires(&self) -> Option<u64> {
        match self {
            Root::Legacy(_) => None,
            Root::Modern(key) => Some(key.terms.expires),
        }
    }

    /// Whether `secret` made this key. In constant time.
    pub(super) fn is_made_with(&self, secret: &str) -> bool {
        match self {
            Root::Legacy(key) => key.is_made_with(secret),
            Root::Modern(key) => key.is_made_with(secret),
        }
    }
}
