//! The proxy's secrets, and whether a key was made with the right one.

use std::fmt;

use super::error::InvalidKey;
use super::key::HostKey;
use super::legacy::legacy_key;
use super::modern::{MAX_SKEW, Terms, modern_key};
use super::named::NamedKey;
use crate::bridge::ascii::number;
use crate::bridge::proof::SignedText;

/// Secrets, each in force from its timestamp until the next one's.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets {
    /// By rising timestamp; never empty.
    lines: Vec<Secret>,
}

#[derive(Clone, PartialEq, Eq)]
struct Secret {
    /// First Unix second at which the secret is in force.
    from: u64,
    text: String,
}

impl Secrets {
    /// Reads a secrets file: lines `timestamp:secret` with rising timestamps. Everything after the
    /// first colon is the secret. Blank lines are ignored; there are no comments, because a `#` may
    /// be part of a secret.
    ///
    /// # Errors
    ///
    /// All of them, as `file:line: what is wrong`. None contains any of the text: a line without a
    /// colon may be a secret.
    pub(crate) fn parse(text: &str, file: &str) -> Result<Secrets, Vec<String>> {
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

    /// One secret that has always been in force.
    ///
    /// # Errors
    ///
    /// It is empty or contains a line end.
    pub(crate) fn always(secret: &str) -> Result<Secrets, &'static str> {
        if secret.is_empty() {
            return Err("the secret is empty");
        }
        if secret.contains(['\n', '\r']) {
            return Err("the secret is more than one line");
        }
        Ok(Secrets { lines: vec![Secret { from: 0, text: secret.to_owned() }] })
    }

    /// The timestamp of the newest secret in force at `now` (Unix seconds), which identifies it in
    /// a log; `None` if all of them are in the future, and no key is valid.
    pub(crate) fn newest(&self, now: u64) -> Option<u64> {
        self.in_force(now).map(|secret| secret.from)
    }

    /// Whether the key is valid at `now` (Unix seconds). In constant time.
    ///
    /// A key of the original's form must be made with the secret in force at its own timestamp, or
    /// with the newest one in force now, as in the original. A modern key must be made with the
    /// former, and not have expired. One that was narrowed is checked like the key that it was
    /// narrowed from, and must not have expired either.
    ///
    /// A key dated in the future counts as made now: another clock may be ahead, but a secret is
    /// never used before its own time.
    ///
    /// # Errors
    ///
    /// Why it is invalid.
    pub(crate) fn check(&self, key: &HostKey, now: u64) -> Result<(), InvalidKey> {
        if key.hash_digits().is_empty() {
            return Err(InvalidKey::Unsigned);
        }
        self.newest(now).ok_or(InvalidKey::NoSecretYet)?;
        if !key.is_legacy() && self.in_force(key.made().min(now)).is_none() {
            return Err(InvalidKey::TooOld);
        }
        // All of them, whichever made it, so that the time says nothing.
        let good = self.of(key, now).fold(false, |good, secret| good | key.is_made_with(secret));
        if !good {
            return Err(InvalidKey::Mismatch);
        }
        if !key.is_legacy() && key.made() > now.saturating_add(MAX_SKEW) {
            return Err(InvalidKey::TooNew(key.made()));
        }
        match key.expires() {
            Some(at) if at <= now => Err(InvalidKey::Expired(at)),
            _ => Ok(()),
        }
    }

    /// The secrets that may have made a key: the one in force at its time, and for the original's form
    /// the newest.
    fn of(&self, key: &HostKey, now: u64) -> impl Iterator<Item = &str> {
        let own = self.in_force(key.made().min(now));
        let newest = self.in_force(now).filter(|_| key.is_legacy());
        own.into_iter().chain(newest).map(|secret| secret.text.as_str())
    }

    /// The keys from which a good key was narrowed. They must not be shown.
    pub(super) fn ancestors(&self, key: &HostKey, now: u64) -> Vec<String> {
        let HostKey::Narrowed(narrowed) = key else { return Vec::new() };
        let secret = self.of(key, now).find(|secret| narrowed.is_made_with(secret));
        secret.map(|secret| narrowed.ancestors(secret)).unwrap_or_default()
    }

    /// The key that `named` is, if its proof shows that the backend has it: made with one of the
    /// secrets with which [`Secrets::check`] would find it good. Whether it is good is another
    /// question. In constant time.
    pub(crate) fn recover(
        &self,
        named: &NamedKey,
        signed: &SignedText,
        now: u64,
    ) -> Option<HostKey> {
        let secrets = self.of(named.unsigned(), now);
        secrets.fold(None, |found, secret| found.or(named.proven_with(secret, signed)))
    }

    /// The timestamp of the secret that made the key, in force or not: for diagnosis.
    pub(crate) fn maker(&self, key: &HostKey) -> Option<u64> {
        self.lines.iter().find(|secret| key.is_made_with(&secret.text)).map(|secret| secret.from)
    }

    /// Makes a key of the original's form with the secret in force at `made` (Unix seconds), or at
    /// `now` if that is earlier; `None` if there is none.
    pub(crate) fn make_legacy(&self, made: u64, name: &str, now: u64) -> Option<String> {
        let secret = self.in_force(made.min(now))?;
        Some(legacy_key(&secret.text, made, name))
    }

    /// As [`Secrets::make_legacy`], in the modern form.
    pub(crate) fn make_modern(&self, terms: &Terms, now: u64) -> Option<String> {
        let secret = self.in_force(terms.made.min(now))?;
        Some(modern_key(&secret.text, terms))
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
        let from = number(from).ok_or("the timestamp is not a number of seconds")?;
        if text.is_empty() {
            return Err("the secret is empty");
        }
        if after.is_some_and(|after| from <= after) {
            return Err("the timestamp is not above the one before it");
        }
        Ok(Secret { from, text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests;
