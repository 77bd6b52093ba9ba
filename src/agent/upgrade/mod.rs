//! One agent replaces another, and no proxy notices (`doc/upgrade.md`, "The agent").
//!
//! - `notes`: what the two tell each other
//! - `progress`: how far they are
//! - `replaced`: the old one, which leaves everything to the new one
//! - `replacing`: the new one, which takes it

mod encrypted;
pub(super) mod notes;
pub(super) mod progress;
mod replaced;
pub(super) mod replacing;
