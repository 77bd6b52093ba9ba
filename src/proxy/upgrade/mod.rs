//! One program replaces another, and no peer notices (`doc/upgrade.md`).
//!
//! - `predecessor`: in the new program, what the main thread takes before it serves
//! - `notes`, `moved_tunnel`: what the two tell each other
//! - `old_programs`: what the programs that have been replaced still have
//! - `progress`: how far the old program's workers are
//! - `root_files`: what the new program may not read by itself
//!
//! What the main threads do is the same for every program, and in `process/upgrade`. What the
//! workers do is in `replaced.rs` and `replacing.rs`.

pub(in crate::proxy) mod moved_tunnel;
pub(in crate::proxy) mod notes;
pub(in crate::proxy) mod old_programs;
mod predecessor;
pub(in crate::proxy) mod progress;
pub(in crate::proxy) mod root_files;

pub use predecessor::Inheritance;
