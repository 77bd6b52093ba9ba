//! One program replaces another (`doc/upgrade.md`): what is the same for all programs.
//!
//! - `successor`: in the old program, what the main thread does
//! - `predecessor`: in the new program, what the main thread does before it serves
//! - `stage`: what a program is doing
//!
//! What goes over is each program's own affair.

mod predecessor;
mod stage;
mod successor;

pub use predecessor::Predecessor;
pub use stage::Stage;
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
