//! Whether the keys of a registration cover its hosts.

use std::num::NonZeroU32;

use super::error::InvalidKey;
use super::key::HostKey;
use super::keyring::Keyring;
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

/// Checks that a valid key covers each pattern of a registration. `now` is in Unix seconds.
///
/// Returns the grants of the keys that were needed. Of several valid keys for a pattern it uses the
/// one that allows the most bridges, and of equals the first.
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
    let check = |key| keyring.check(key, now);
    let results: Vec<Result<(), InvalidKey>> = registration.keys.iter().map(check).collect();
    let mut needed: Vec<&HostKey> = Vec::new();
    for pattern in &registration.patterns {
        let keys = registration.keys.iter().zip(&results);
        let (best, error) = best_of(keys.filter(|(key, _)| covers(key.name(), pattern)));
        let Some(key) = best else {
            let text = match error {
                Some(error) => format!("the Host-Key for {pattern} {error}"),
                None => format!("no Host-Key covers {pattern}"),
            };
            return Err(Refusal::new(401, text));
        };
        if !needed.iter().any(|other| std::ptr::eq(*other, key)) {
            needed.push(key);
        }
    }
    let grant = |key: &HostKey| Grant {
        name: key.name().to_owned(),
        bridges: key.bridges(),
        proof: Some(key.clone()),
    };
    Ok(needed.into_iter().map(grant).collect())
}

/// The valid key that allows the most bridges, and the error of the first invalid one.
fn best_of<'a>(
    keys: impl Iterator<Item = (&'a HostKey, &'a Result<(), InvalidKey>)>,
) -> (Option<&'a HostKey>, Option<InvalidKey>) {
    let allows = |key: &HostKey| key.bridges().map_or(u64::MAX, |limit| u64::from(limit.get()));
    let (mut best, mut error) = (None, None);
    for (key, result) in keys {
        match result {
            Ok(()) if best.is_none_or(|best| allows(key) > allows(best)) => best = Some(key),
            Ok(()) => {}
            Err(wrong) => error = error.or(Some(*wrong)),
        }
    }
    (best, error)
}
