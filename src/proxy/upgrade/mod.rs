//! One program replaces another, and no peer notices (`doc/upgrade.md`).
//!
//! - `predecessor`: in the new program, what the main thread takes before it serves
//! - `notes`: what the two tell each other
//! - `progress`: how far the old program's workers are
//! - `root_files`: what the new program may not read by itself
//!
//! What the main threads do is the same for every program, and in `process/upgrade`. What the
//! workers do is in `replaced.rs` and `replacing.rs`.

pub(in crate::proxy) mod notes;
mod predecessor;
pub(in crate::proxy) mod progress;
pub(in crate::proxy) mod root_files;

pub use predecessor::Inheritance;
