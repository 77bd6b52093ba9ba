//! One program replaces another, and no peer notices (`doc/upgrade.md`).
//!
//! - `successor`: in the old program, what the main thread does
//! - `predecessor`: in the new program, what the main thread does before it serves
//! - `notes`: what they tell each other
//! - `progress`: how far the old program's workers are
//!
//! What the workers do is in `replaced.rs` and `replacing.rs`.

pub(in crate::proxy) mod notes;
mod predecessor;
pub(in crate::proxy) mod progress;
mod successor;

pub use predecessor::{Inheritance, Predecessor};
pub use successor::{Offer, Program, Successor, Watch};
