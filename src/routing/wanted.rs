//! The backend that a request is to go to.

use std::num::NonZeroU64;

/// Names a backend: the same at every proxy, and after it has come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InstanceId(NonZeroU64);

impl InstanceId {
    /// For the backend whose name has this digest.
    #[must_use]
    pub fn new(digest: u64) -> InstanceId {
        InstanceId(NonZeroU64::new(digest).unwrap_or(NonZeroU64::MIN))
    }

    /// What it was made of.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0.get()
    }
}

/// The backend that a request is to go to, if it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The backend.
    pub instance: InstanceId,
    /// Whether the request waits for it alone, if it is connected or was lately. If not, it only takes
    /// an idle bridge of it first.
    pub waits: bool,
}
