//! The wire protocols between backends and the proxy, as pure functions over bytes.
//!
//! Nothing here uses sockets, threads or the clock: the time is an argument, in Unix seconds, and a
//! parser returns `Ok(None)` until it has enough bytes. The rules are those of `doc/protocol.md`.
//!
//! - [`request`]: the BRIDGE request
//! - `answer`: the proxy's answers to it
//! - [`extensions`]: what both sides may use beyond the original's protocol
//! - [`pattern`]: the host patterns of a bridge
//! - [`instance`]: the name of a backend that stays the same when it comes again
//! - [`hostkey`]: which bridge may serve which host
//! - `places`: how many requests a backend takes at once, and how long they wait
//! - `proof`: keys that are proven and not sent
//! - `ptth`: the same registration as the IETF's drafts ask for it
//! - `swiftclient`: the preamble of Swiftiply's backends

pub(crate) mod answer;
mod ascii;
pub mod extensions;
pub mod hostkey;
pub mod instance;
pub mod pattern;
pub(crate) mod places;
pub(crate) mod proof;
pub(crate) mod ptth;
pub mod request;
pub(crate) mod swiftclient;

pub(crate) use ascii::{from_hex, hex, number};
pub use extensions::BackendToken;
pub use hostkey::{HostKey, Secrets};
pub use request::{Refusal, Registration};
