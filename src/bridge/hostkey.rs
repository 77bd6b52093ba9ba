//! Host keys: the proof that a backend may serve a name (`doc/protocol.md`, "Host keys").
//!
//! The proxy holds the secrets; keys for backends are made with the newest of them. There are two
//! forms of such a `root`, and a third for what its holders make of it. No text can be two of them:
//!
//! - `legacy`: the original's, a SHA-1 digest over secret, timestamp and name
//! - `modern`: ours, an HMAC-SHA256, with an expiry and a limit on the bridges connected at once
//! - `narrowed`: either of them with `caveats` that its holders have added, each by an HMAC
//!
//! `secrets` decides whether a key is genuine, `keyring` whether it is good, and `authorise` whether
//! a registration is. `revoked` are single keys that have been taken back. `named` are keys that a
//! backend proves and does not send, and `prove` checks the proofs.

mod authorise;
mod caveats;
mod cover;
mod error;
mod key;
mod keyring;
mod legacy;
mod modern;
mod named;
mod narrowed;
mod prove;
mod revoked;
mod root;
mod secrets;

pub(crate) use authorise::{Grant, Shown, authorise};
pub(crate) use caveats::{Caveat, Scope};
pub(crate) use cover::covers;
pub(crate) use error::InvalidKey;
pub use error::KeyError;
pub use key::HostKey;
pub use keyring::Keyring;
pub(crate) use keyring::{Forms, Showing};
pub use legacy::legacy_key;
pub(crate) use modern::Terms;
#[cfg(any(test, fuzzing))]
pub(crate) use modern::modern_key;
pub use named::NamedKey;
pub use narrowed::{Limit, NarrowedKey};
pub(crate) use prove::prove;
pub use revoked::{KeyHash, Revoked};
pub use root::Root;
pub use secrets::Secrets;

#[cfg(test)]
mod tests;
