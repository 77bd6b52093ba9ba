//! Whether the keys of a registration cover its hosts.

use super::cover::covers;
use super::error::InvalidKey;
use super::key::HostKey;
use super::keyring::{Keyring, Showing};
use super::narrowed::Limit;
use crate::bridge::request::{Refusal, Registration};

/// What a valid key grants.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The name that the key is for, in lower case.
    pub name: String,
    /// How many bridges may be connected at once, and what counts as one of them.
    pub limits: Vec<Limit>,
    /// The key, to be checked again; `None` if it was not checked.
    pub proof: Option<HostKey>,
    /// How the backend has shown that it has the key.
    pub shown: Shown,
}

impl Grant {
    /// The name that its bridges are counted by: of the key that the proxy's owner has made. A holder
    /// who narrows it gains nothing by it, and cannot make up names.
    pub(crate) fn account(&self) -> &str {
        self.proof.as_ref().map_or(&self.name, |key| key.root().name())
    }
}

/// How a backend has shown that it has a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// It has sent it, so everybody on the way has it, too.
    Bare,
    /// It has answered a nonce.
    Proven,
}

/// A key of a registration, and whether it is good.
struct Candidate<'a> {
    name: &'a str,
    result: Result<(&'a HostKey, Shown), InvalidKey>,
}

/// Whether a good key is one for such a registration, apart from its hosts.
fn fits(key: &HostKey, registration: &Registration) -> Result<(), InvalidKey> {
    let HostKey::Narrowed(narrowed) = key else { return Ok(()) };
    let scope = narrowed.scope();
    if !scope.has_path(&registration.prefix) {
        Err(InvalidKey::Path)
    } else if !scope.takes(registration.methods()) {
        Err(InvalidKey::Method)
    } else {
        Ok(())
    }
}

/// The keys that cover some host of a registration. The others are not checked, so they cost nothing.
fn candidates<'a>(
    registration: &'a Registration,
    keyring: &Keyring,
    now: u64,
) -> Vec<Candidate<'a>> {
    let is_for = |name: &str| registration.patterns.iter().any(|pattern| covers(name, pattern));
    let check = |key: &'a HostKey, shown| {
        let result = keyring.check(key, now).and_then(|()| fits(key, registration));
        Candidate { name: key.name(), result: result.map(|()| (key, shown)) }
    };
    let bare = |key: &'a HostKey| match keyring.showing() {
        Showing::BareOrProven => check(key, Shown::Bare),
        // Nobody learns what else is wrong with a key that must not be sent.
        Showing::Proven => Candidate { name: key.name(), result: Err(InvalidKey::Bare) },
    };
    let of_keys = |keys: &'a [HostKey]| keys.iter().filter(|key| is_for(key.name()));
    let proven = of_keys(&registration.proven).map(|key| check(key, Shown::Proven));
    let bare = of_keys(&registration.keys).map(bare);
    let unproven = registration.named.iter().filter(|key| is_for(key.name()));
    let unproven =
        unproven.map(|key| Candidate { name: key.name(), result: Err(InvalidKey::Unproven) });
    proven.chain(bare).chain(unproven).collect()
}

/// Checks that a valid key covers each pattern of a registration. `now` is in Unix seconds.
///
/// Returns the grants of the keys that were needed. Of several valid keys for a pattern it uses the
/// one that allows the most bridges, and of equals the first, a proven one before one that was sent.
///
/// # Errors
///
/// A 401 that names the first pattern without a key: one such name refuses the whole registration,
/// as in the original. Of several invalid keys for a pattern it explains the first.
pub(crate) fn authorise(
    registration: &Registration,
    keyring: &Keyring,
    now: u64,
) -> Result<Vec<Grant>, Refusal> {
    let candidates = candidates(registration, keyring, now);
    let mut needed: Vec<(&HostKey, Shown)> = Vec::new();
    for pattern in &registration.patterns {
        let (best, error) = best_of(candidates.iter().filter(|key| covers(key.name, pattern)));
        let Some((key, shown)) = best else {
            let text = match error {
                Some(error) => format!("the Host-Key for {pattern} {error}"),
                None => format!("no Host-Key covers {pattern}"),
            };
            return Err(Refusal::new(401, text));
        };
        if !needed.iter().any(|(other, _)| std::ptr::eq(*other, key)) {
            needed.push((key, shown));
        }
    }
    let grant = |(key, shown): (&HostKey, Shown)| Grant {
        name: key.name().to_owned(),
        limits: key.limits(),
        proof: Some(key.clone()),
        shown,
    };
    Ok(needed.into_iter().map(grant).collect())
}

/// The valid key that allows the most bridges, and the error of the first invalid one.
fn best_of<'a: 'c, 'c>(
    keys: impl Iterator<Item = &'c Candidate<'a>>,
) -> (Option<(&'a HostKey, Shown)>, Option<InvalidKey>) {
    let allows = |key: &HostKey| key.bridges().map_or(u64::MAX, |limit| u64::from(limit.get()));
    let (mut best, mut error): (Option<(&HostKey, Shown)>, _) = (None, None);
    for key in keys {
        match &key.result {
            Ok((key, shown)) if best.is_none_or(|(best, _)| allows(key) > allows(best)) => {
                best = Some((key, *shown));
            }
            Ok(_) => {}
            Err(wrong) => error = error.or(Some(*wrong)),
        }
    }
    (best, error)
}
