//! The wire protocols that bring a backend to the proxy, as pure functions over bytes.
//!
//! Nothing here knows sockets, threads or the clock: the time comes in as Unix seconds, and every
//! parser says "not yet" (`Ok(None)`) instead of waiting. The rules are those of `doc/protocol.md`.
//!
//! - [`bridge`]: the BRIDGE request, and what the proxy says to a bridge before there is a client
//! - [`backend`]: what both may say beyond the original's protocol
//! - [`pattern`]: the names a bridge may ask for
//! - [`hostkey`]: who may ask for which name
//! - [`swiftclient`]: the preamble of a backend that speaks Swiftiply's protocol

pub(crate) mod answer;
mod ascii;
pub mod extensions;
pub mod hostkey;
pub mod pattern;
pub mod request;
pub mod swiftclient;

pub use extensions::BackendToken;
pub use hostkey::{HostKey, Secrets};
pub use request::{Refusal, Registration};
