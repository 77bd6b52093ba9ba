//! What a bridge was let in under, beside its keys: limits, and the answer of the program that
//! authorises.

use std::sync::Arc;

use super::authoriser::Hold;
use super::key_limits::{Accounts, Limited};

/// What a bridge was let in under.
#[derive(Default)]
pub(super) struct Terms {
    /// It was asked about.
    pub(super) asked: Option<Arc<Hold>>,
    /// The number of the answer whose limits it has ([`Hold::changes`]).
    pub(super) answer: u64,
    pub(super) limited: Option<Box<Limited>>,
}

impl Terms {
    /// As a bridge keeps them: most have none.
    pub(super) fn kept(self) -> Option<Box<Terms>> {
        (self.asked.is_some() || self.limited.is_some()).then(|| Box::new(self))
    }

    /// Whether the program that authorises has said no since.
    pub(super) fn is_lost(&self) -> bool {
        self.asked.as_ref().is_some_and(|hold| hold.is_lost())
    }

    pub(super) fn accounts(&self) -> Option<&Arc<Accounts>> {
        self.limited.as_deref().map(Limited::accounts)
    }
}
