//! Checks the proofs of keys that a registration names.

use super::keyring::Keyring;
use crate::bridge::proof::{Nonce, SignedText};
use crate::bridge::request::Registration;

/// Moves the keys whose proofs are those for `challenge`, the nonce that the proxy has sent over the
/// same connection, from `named` to `proven`: from there on they are keys like those that were sent.
/// `channel` as in [`SignedText::new`]; `now` is in Unix seconds.
pub(crate) fn prove(
    registration: &mut Registration,
    keyring: &Keyring,
    challenge: Nonce,
    channel: &str,
    now: u64,
) {
    let Some(digest) = registration.digest else { return };
    let signed = SignedText::new(challenge, channel, digest);
    let proven = &mut registration.proven;
    registration.named.retain(|named| {
        let key = keyring.secrets().recover(named, &signed, now);
        let is_unproven = key.is_none();
        proven.extend(key);
        is_unproven
    });
}
