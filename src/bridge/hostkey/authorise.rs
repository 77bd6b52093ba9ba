//! Whether the keys of a registration cover its hosts.

use std::num::NonZeroU32;

use super::error::InvalidKey;
use super::key::HostKey;
use super::keyring::{Keyring, Showing};
use crate::bridge::request::{Refusal, Registration};

/// What a valid key grants.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The name in the key, in lower case.
    pub name: String,
    /// How many bridges may be connected at once; `None` for any number.
    pub bridges: Option<NonZeroU32>,
    /// The key, to be checked again; `None` if it was not checked.
    pub proof: Option<HostKey>,
    /// How the backend has shown that it has the key.
    pub shown: Shown,
}

/// How a backend has shown that it has a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// It has sent it, so everybody on the way has it, too.
    Bare,
    /// It has answered a nonce.
    Proven,
}

/// Whether a key for `name` covers `pattern`: the name itself and every name below it. A wildcard
/// is compared as text, so `*.b.com` is below `b.com`. Both in lower case.
pub(crate) fn covers(name: &str, pattern: &str) -> bool {
    match pattern.strip_suffix(name) {
        Some("") => true,
        Some(above) => above.ends_with('.'),
        None => false,
    }
}

/// A key of a registration, and whether it is good.
struct Candidate<'a> {
    name: &'a str,
    result: Result<(&'a HostKey, Shown), InvalidKey>,
}

fn candidates<'a>(
    registration: &'a Registration,
    keyring: &Keyring,
    now: u64,
) -> Vec<Candidate<'a>> {
    let check = |key: &'a HostKey, shown| {
        let result = keyring.check(key, now).map(|()| (key, shown));
        Candidate { name: key.name(), result }
    };
    let bare = |key: &'a HostKey| match keyring.showing() {
        Showing::BareOrProven => check(key, Shown::Bare),
        // Nobody learns what else is wrong with a key that must not be sent.
        Showing::Proven => Candidate { name: key.name(), result: Err(InvalidKey::Bare) },
    };
    let proven = registration.proven.iter().map(|key| check(key, Shown::Proven));
    let unproven = registration.named.iter();
    let unproven =
        unproven.map(|key| Candidate { name: key.name(), result: Err(InvalidKey::Unproven) });
    proven.chain(registration.keys.iter().map(bare)).chain(unproven).collect()
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
        bridges: key.bridges(),
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
