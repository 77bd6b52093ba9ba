//! A key that a BRIDGE names without its hash, and proves, or is about to (`bridge::proof`).

use std::fmt;

use hmac::Mac;

use super::error::KeyError;
use super::key::HostKey;
use crate::bridge::ascii::from_lower_hex;
use crate::bridge::proof::{MARK, PROOF_BYTES, SignedText, WORD, parts};

/// A key without its hash, as a backend sent it: `proof` in its place, or `proof-` and the proof.
#[derive(Clone)]
pub struct NamedKey {
    unsigned: HostKey,
    proof: Option<[u8; PROOF_BYTES]>,
}

impl NamedKey {
    /// Whether a `Host-Key` is of this form.
    pub(crate) fn is_one(value: &[u8]) -> bool {
        let word = str::from_utf8(value).ok().and_then(parts).map(|(_, word, _)| word);
        word.and_then(|word| word.strip_prefix(WORD))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(MARK))
    }

    /// Reads one, and returns what of it is signed: the key without the proof.
    ///
    /// # Errors
    /// Malformed.
    pub(crate) fn parse(value: &[u8]) -> Result<(NamedKey, String), KeyError> {
        let text = str::from_utf8(value).map_err(|_| KeyError::Shape)?;
        let (version, word, rest) = parts(text).ok_or(KeyError::Shape)?;
        let unsigned = HostKey::unsigned(version, rest)?;
        let proof = match word.strip_prefix(WORD).ok_or(KeyError::Hash)? {
            "" => None,
            proof => {
                let digits = proof.strip_prefix(MARK).ok_or(KeyError::Proof)?;
                Some(from_lower_hex(digits).ok_or(KeyError::Proof)?)
            }
        };
        Ok((NamedKey { unsigned, proof }, format!("{version}{WORD}{rest}")))
    }

    /// The name that the key is for, in lower case.
    #[must_use]
    pub fn name(&self) -> &str {
        self.unsigned.name()
    }

    /// Whether a proof has come with it.
    #[must_use]
    pub fn has_proof(&self) -> bool {
        self.proof.is_some()
    }

    /// The key that `secret` makes of it, if it is that which the proof shows the backend to have. In
    /// constant time.
    pub(super) fn proven_with(&self, secret: &str, signed: &SignedText) -> Option<HostKey> {
        let key = self.unsigned.signed_with(secret);
        signed.mac(&key.hash_digits()).verify_slice(&self.proof?).ok()?;
        Some(key)
    }

    /// The key without its hash, which chooses the secret.
    pub(super) fn unsigned(&self) -> &HostKey {
        &self.unsigned
    }
}

impl fmt::Debug for NamedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.unsigned)
    }
}
