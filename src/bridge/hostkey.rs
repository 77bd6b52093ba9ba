//! Host keys: the proof that a backend may serve a name (`doc/protocol.md`, "Host keys").
//!
//! The proxy holds the secrets; whoever makes keys for backends holds the newest of them. There are two
//! forms, and no text can be both:
//!
//! - `legacy`: the original's, a SHA-1 digest over secret, timestamp and name
//! - `modern`: ours, an HMAC-SHA256, with an expiry and a limit on the bridges connected at once
//!
//! `secrets` has the secrets and the one decision whether a key is good.

mod legacy;
mod modern;
mod secrets;

use std::fmt;
use std::num::NonZeroU32;

use super::pattern::PatternError;
use super::request::{Refusal, Registration};

pub use legacy::{LegacyKey, legacy_key};
pub use modern::{MAX_SKEW, ModernKey, Terms, modern_key};
pub use secrets::Secrets;

/// Why a text is no host key. Says nothing of the text itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadKey {
    /// Fewer than two colons, or bytes beyond ASCII.
    Shape,
    /// A modern key with fewer than five colons.
    ModernShape,
    /// It begins as a form of this protocol that is not known here.
    Version,
    /// The hash is neither 40 hex digits nor empty.
    Hash,
    /// The hash of a modern key is not 64 hex digits in lower case.
    ModernHash,
    /// The timestamp is not a number of seconds that fits 64 bits.
    Timestamp,
    /// The expiry of a modern key is not such a number.
    Expiry,
    /// The limit of a modern key is neither empty nor a number from 1 to 2^32 - 1.
    Bridges,
    /// The name is no host pattern.
    Name(PatternError),
}

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadKey::Shape => "it is not hash:timestamp:name",
            BadKey::ModernShape => "it is not v2:hash:timestamp:expiry:bridges:name",
            BadKey::Version => "only v2 and the old form are known",
            BadKey::Hash => "the hash is not 40 hex digits",
            BadKey::ModernHash => "the hash is not 64 hex digits in lower case",
            BadKey::Timestamp => "the timestamp is not a number of seconds",
            BadKey::Expiry => "the expiry is not a number of seconds",
            BadKey::Bridges => "the limit of bridges is neither empty nor a number from 1",
            BadKey::Name(bad) => return write!(f, "in its name, {bad}"),
        })
    }
}

impl std::error::Error for BadKey {}

/// A key as a backend sent it: a claim, until [`Secrets::check`] has confirmed it.
#[derive(Clone, Debug)]
pub enum HostKey {
    /// The original's form.
    Legacy(LegacyKey),
    /// Ours.
    Modern(ModernKey),
}

impl HostKey {
    /// Reads a key of either form. The first field tells them apart: `v` is no hex digit.
    ///
    /// The name is a host pattern; a port on it is ignored, as it is everywhere, but is part of what was
    /// hashed.
    ///
    /// # Errors
    /// What is wrong with it. A well-formed key need not be a good one.
    pub fn parse(text: &[u8]) -> Result<HostKey, BadKey> {
        let text = std::str::from_utf8(text).map_err(|_| BadKey::Shape)?;
        let (first, _) = text.split_once(':').ok_or(BadKey::Shape)?;
        if first == modern::VERSION {
            ModernKey::parse(text).map(HostKey::Modern)
        } else if first.starts_with('v') {
            Err(BadKey::Version)
        } else {
            LegacyKey::parse(text).map(HostKey::Legacy)
        }
    }

    /// The name that the key is for, in lower case. By it the info host counts.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            HostKey::Legacy(key) => key.name(),
            HostKey::Modern(key) => key.name(),
        }
    }

    /// When the key says that it was made, in Unix seconds.
    #[must_use]
    pub fn made(&self) -> u64 {
        match self {
            HostKey::Legacy(key) => key.made(),
            HostKey::Modern(key) => key.terms().made,
        }
    }

    /// How many bridges may be connected at once under this key; `None` for any number.
    #[must_use]
    pub fn bridges(&self) -> Option<NonZeroU32> {
        match self {
            HostKey::Legacy(_) => None,
            HostKey::Modern(key) => key.terms().bridges,
        }
    }

    /// Whether `secret` made this key. Takes the same time whichever byte of the hash differs.
    fn is_made_with(&self, secret: &str) -> bool {
        match self {
            HostKey::Legacy(key) => key.is_made_with(secret).into(),
            HostKey::Modern(key) => key.is_made_with(secret),
        }
    }
}

/// Why a well-formed key is not good. Times are in Unix seconds.
///
/// What a key says of itself (its expiry, its date) is only held against it once it is known to be genuine:
/// whoever makes keys up learns nothing but that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It has no hash. Under the original, with no secrets configured, `::name` only names the backend in the
    /// statistics.
    Unsigned,
    /// It is of the old form, and only modern keys are taken.
    OldForm,
    /// All secrets lie in the future.
    NoSecretYet,
    /// No secret was in force when it was made.
    TooOld,
    /// It was made with another secret than it should have been, or it was changed.
    Mismatch,
    /// It was good until then.
    Expired(u64),
    /// It says that it was made then, which lies further ahead than clocks differ.
    TooNew(u64),
}

impl fmt::Display for Fault {
    /// What comes after "the key".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Unsigned => f.write_str("has no hash and proves nothing"),
            Fault::OldForm => {
                f.write_str("is of the old form, which `legacy-keys no` turns off; ask for a v2 key")
            }
            Fault::NoSecretYet => f.write_str("cannot be checked: no secret is in force yet"),
            Fault::TooOld => f.write_str("is older than every secret"),
            Fault::Mismatch => f.write_str(
                "does not check out: it was changed, or not made with the secret in force at its time",
            ),
            Fault::Expired(at) => write!(f, "expired at {at} (Unix time)"),
            Fault::TooNew(made) => write!(f, "is dated {made} (Unix time), which is yet to come"),
        }
    }
}

impl std::error::Error for Fault {}

/// Which forms of keys are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forms {
    /// Both.
    Both,
    /// The modern one alone.
    Modern,
}

/// What a good key grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The name in the key, in lower case.
    pub name: String,
    /// How many bridges may be connected at once by it; `None` for any number.
    pub bridges: Option<NonZeroU32>,
}

/// Whether a key for `name` covers `pattern`: the name itself and every name below it. A wildcard is
/// compared as the text it is, so `*.b.com` is below `b.com`. Both in lower case.
#[must_use]
pub fn covers(name: &str, pattern: &str) -> bool {
    match pattern.strip_suffix(name) {
        Some("") => true,
        Some(above) => above.ends_with('.'),
        None => false,
    }
}

/// Checks that a good key covers each pattern of a registration. `now` is in Unix seconds.
///
/// Gives what the keys that were needed grant, each once. Of several good keys for a pattern it takes the one
/// that allows most bridges, and among equals the first.
///
/// # Errors
/// A 401 that names the first pattern without a key: one wrong name refuses the whole registration, as in the
/// original. Of several bad keys for a pattern it says what is wrong with the first.
pub fn authorise(
    registration: &Registration,
    secrets: &Secrets,
    forms: Forms,
    now: u64,
) -> Result<Vec<Grant>, Refusal> {
    let judge = |key| match (key, forms) {
        (&HostKey::Legacy(_), Forms::Modern) => Err(Fault::OldForm),
        (key, _) => secrets.check(key, now),
    };
    let verdicts: Vec<Result<(), Fault>> = registration.keys.iter().map(judge).collect();
    let mut grants: Vec<Grant> = Vec::new();
    for pattern in &registration.patterns {
        let keys = registration.keys.iter().zip(&verdicts);
        let (best, fault) = best_of(keys.filter(|(key, _)| covers(key.name(), pattern)));
        let Some(key) = best else {
            let text = match fault {
                Some(fault) => format!("the Host-Key for {pattern} {fault}"),
                None => format!("no Host-Key covers {pattern}"),
            };
            return Err(Refusal::new(401, text));
        };
        let grant = Grant { name: key.name().to_owned(), bridges: key.bridges() };
        if !grants.contains(&grant) {
            grants.push(grant);
        }
    }
    Ok(grants)
}

/// The good key that allows most bridges, and what is wrong with the first that is not good.
fn best_of<'a>(
    keys: impl Iterator<Item = (&'a HostKey, &'a Result<(), Fault>)>,
) -> (Option<&'a HostKey>, Option<Fault>) {
    let allows = |key: &HostKey| key.bridges().map_or(u64::MAX, |limit| u64::from(limit.get()));
    let (mut best, mut fault) = (None, None);
    for (key, verdict) in keys {
        match verdict {
            Ok(()) if best.is_none_or(|best| allows(key) > allows(best)) => best = Some(key),
            Ok(()) => {}
            Err(wrong) => fault = fault.or(Some(*wrong)),
        }
    }
    (best, fault)
}

#[cfg(test)]
mod tests;
