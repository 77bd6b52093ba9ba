//! One program replaces another (`doc/upgrade.md`): what is the same for all programs.
//!
//! - `successor`: in the old program, what the main thread does
//! - `predecessor`: in the new program, what the main thread does before it serves
//! - `stage`: what a program is doing
//! - `parent`: in the first program, if somebody waits for its end
//!
//! What goes over is each program's own affair.

pub mod parent;
mod predecessor;
mod stage;
mod successor;

pub use predecessor::Predecessor;
pub use stage::Stage;
pub use successor::{Offer, Program, Successor, Unwanted, Watch};
