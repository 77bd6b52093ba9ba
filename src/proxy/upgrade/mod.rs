//! One program replaces another, and no peer notices (`doc/upgrade.md`).
//!
//! - `successor`: in the old program, what the main thread does
//! - `predecessor`: in the new program, what the main thread does before it serves
//! - `notes`, `moved_tunnel`: what they tell each other
//! - `old_programs`: what the programs that have been replaced still have
//! - `progress`: how far the old program's workers are
//!
//! What the workers do is in `replaced.rs` and `replacing.rs`.

pub(in crate::proxy) mod moved_tunnel;
pub(in crate::proxy) mod notes;
pub(in crate::proxy) mod old_programs;
mod predecessor;
pub(in crate::proxy) mod progress;
mod successor;

pub use predecessor::{Inheritance, Predecessor};
pub use successor::{Offer, Program, Successor, Watch};

/// Why this process cannot be replaced, if so: its end would be taken for the end of the service.
#[must_use]
pub fn impossible() -> Option<&'static str> {
    let has = |name: &str| std::env::var_os(name).is_some();
    if std::process::id() == 1 {
        return Some("this is process 1: its container would end with it; run it below an init");
    }
    if has("INVOCATION_ID") && !has("NOTIFY_SOCKET") && std::os::unix::process::parent_id() == 1 {
        return Some("systemd does not follow the new process; the unit needs Type=notify");
    }
    None
}
