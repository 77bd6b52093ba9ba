//! What every integration test stands on: the real proxy as a child process, and clients and backends that speak literal bytes to it.
//!
//! Nothing here knows the proxy's source. Each wait has a deadline, and a failed one panics at the test's own line with the bytes that had come.
//! [`Proxy`] is the process, [`Client`] and [`Bridge`] are its two kinds of peers, both of them a [`Wire`] underneath.

mod agent;
mod app;
mod bridge;
mod client;
mod daemon;
mod dir;
mod guest;
mod json;
mod load;
mod message;
mod pattern;
mod proxy;
mod run;
mod server;
mod wire;

pub use agent::{Agent, at};
pub use app::{App, Gate, Seen, free_address, ok, own_address, serve_unix};
pub use bridge::{ACK, Bridge};
pub use client::Client;
pub use daemon::Daemon;
pub use guest::Guest;
pub use json::Json;
pub use load::Load;
pub use message::Message;
pub use pattern::{pattern, pattern_differs};
pub use proxy::{Proxy, Setup};
pub use run::Run;
pub use server::{After, Server};
pub use wire::{Ending, Wire, shown};

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long anything that should happen at once may take before a test fails. Generous, because two cores run all the tests together;
/// a passing test never waits for it.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// How often [`eventually`] looks again.
const POLL: Duration = Duration::from_millis(2);

/// Waits until `holds` returns true, and fails the test when it has not after [`DEADLINE`].
///
/// This is how a test waits for something that it can observe but that nobody announces, such as a count on the info page.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not after {DEADLINE:?}: {what}");
        std::thread::sleep(POLL);
    }
}

/// Sends the process the signal of this name.
#[track_caller]
pub fn signal(process: u32, name: &str) {
    // The shell's own `kill` is on every machine, and a system call of ours would need `unsafe`.
    let line = format!("kill -{name} {process}");
    let status = Command::new("sh").args(["-c", &line]).status().expect("sh");
    assert!(status.success(), "{line}");
}

/// Lets `time` pass because the time is itself what the test puts in (a gap between two arrivals, an idle spell).
/// Never to be used to wait for the proxy: that is what [`eventually`] is for.
pub fn let_pass(time: Duration) {
    std::thread::sleep(time);
}

/// Runs `wait`, which waits for something that happens after `time`, and fails the test when it has happened earlier.
///
/// A tenth of it is forgiven: a proxy that counts from an event starts a little before the test that has seen the event.
#[track_caller]
pub fn not_before<T>(time: Duration, wait: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let outcome = wait();
    let took = begun.elapsed();
    assert!(took >= time * 9 / 10, "after {took:?} already, instead of {time:?}");
    outcome
}

/// Says which test is not run, and why. It goes past the harness, which swallows what a passing test prints: a test that is
/// skipped must not look like one that has passed.
pub fn skipped(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // With the error output closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}
