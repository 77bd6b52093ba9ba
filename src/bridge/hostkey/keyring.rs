//! Everything that decides whether a key is good.

use super::error::InvalidKey;
use super::key::HostKey;
use super::revoked::Revoked;
use super::secrets::Secrets;

/// Which forms of keys are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forms {
    Both,
    /// The modern one only.
    Modern,
}

/// How keys may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Showing {
    /// As they are, or by proof.
    BareOrProven,
    Proven,
}

/// What keys are checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyring {
    secrets: Secrets,
    revoked: Revoked,
    forms: Forms,
    showing: Showing,
}

impl Keyring {
    pub(crate) fn new(secrets: Secrets, revoked: Revoked, forms: Forms) -> Keyring {
        Keyring { secrets, revoked, forms, showing: Showing::BareOrProven }
    }

    /// The same, for keys that are shown in this way.
    #[must_use]
    pub(crate) fn with(self, showing: Showing) -> Keyring {
        Keyring { showing, ..self }
    }

    pub(crate) fn showing(&self) -> Showing {
        self.showing
    }

    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    pub(crate) fn revoked(&self) -> &Revoked {
        &self.revoked
    }

    /// Whether the key is good at `now` (Unix seconds).
    ///
    /// # Errors
    ///
    /// Why it is not. That it has been revoked is said of genuine keys only.
    pub(crate) fn check(&self, key: &HostKey, now: u64) -> Result<(), InvalidKey> {
        if self.forms == Forms::Modern && key.is_legacy() {
            return Err(InvalidKey::OldForm);
        }
        self.secrets.check(key, now)?;
        if self.is_revoked(key, now) { Err(InvalidKey::Revoked) } else { Ok(()) }
    }

    /// Whether it has been taken back, or one from which it was narrowed.
    fn is_revoked(&self, key: &HostKey, now: u64) -> bool {
        let ancestors = || self.secrets.ancestors(key, now);
        !self.revoked.is_empty()
            && (self.revoked.has(key) || ancestors().iter().any(|one| self.revoked.has_text(one)))
    }
}
