//! Host keys: the proof that a backend may serve a name (`doc/protocol.md`, "Host keys").
//!
//! The proxy holds the secrets; keys for backends are made with the newest of them. There are two
//! forms, and no text can be both:
//!
//! - `legacy`: the original's, a SHA-1 digest over secret, timestamp and name
//! - `modern`: ours, an HMAC-SHA256, with an expiry and a limit on the bridges connected at once
//!
//! `secrets` decides whether a key is valid, `authorise` whether a registration is.

mod authorise;
mod error;
mod key;
mod legacy;
mod modern;
mod secrets;

pub(crate) use authorise::{Forms, Grant, authorise, covers};
pub(crate) use error::InvalidKey;
pub use key::HostKey;
pub use legacy::legacy_key;
pub(crate) use modern::Terms;
#[cfg(any(test, fuzzing))]
pub(crate) use modern::modern_key;
pub use secrets::Secrets;

#[cfg(test)]
mod tests;
