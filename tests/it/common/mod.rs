//! What every integration test stands on: the real proxy as a child process, and clients and
//! backends that speak literal bytes to it.
//!
//! Nothing here knows the proxy's source. Each wait has a deadline, and a failed one panics at the
//! test's own line with the bytes that had come. [`Proxy`] is the process, [`Client`] and
//! [`Bridge`] are its two kinds of peers, both of them a [`Wire`] underneath.

mod address;
mod agent;
mod app;
mod asking;
mod authority;
mod bridge;
mod browser;
mod client;
mod daemon;
mod dir;
mod dying;
mod encryption;
mod haproxy;
mod header;
mod json;
mod keys;
mod load;
pub mod logged;
mod message;
mod pattern;
mod played;
mod process;
mod proof;
mod proxy;
mod run;
mod swiftclient;
mod systemd;
mod tls_relay;
mod wire;

pub use address::{free_address, free_ports, kept_port, own_address};
pub use agent::{Agent, at};
pub use app::{After, App, Gate, Seen, ok, serve_unix};
pub use asking::{Asking, Ends};
pub use authority::{Authority, Issued, unix_time};
pub use bridge::{ACK, Bridge, SWITCH, TOKEN, WELCOME, exchange, under_way};
pub use browser::{Browser, quoted};
pub use client::Client;
pub use daemon::{Daemon, is_gone};
pub use dir::Dir;
pub use dying::{Death, Dying};
pub use encryption::{Stream, over_tls};
pub use haproxy::haproxy_servers;
pub use header::{header, header_v1, header_v2};
pub use json::Json;
pub use keys::{A_FIRST, A_SECOND, B_SECOND, SECRETS, key_tool, keyed, narrow};
pub use load::Load;
pub use message::Message;
pub use pattern::{pattern, pattern_differs};
pub use played::Played;
pub use process::{Process, all_threads_are, installed, nginx, run_well};
pub use proof::{challenge, first_bridge, named, proof, second_bridge};
pub use proxy::{Proxy, Setup};
pub use run::Run;
pub use swiftclient::SwiftclientBackend;
pub use systemd::{PASSES, Store, Systemd};
pub use tls_relay::{by_tls, for_tls};
pub use wire::{Ending, Wire, shown};

use std::fs::DirEntry;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long anything that is to happen may take before a test fails. It says nothing about how fast
/// the programs are: the machine may be running other things. A passing test never waits for it.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How often [`eventually`] looks again.
const POLL: Duration = Duration::from_millis(2);

/// Waits until `holds` returns true, and fails the test when it has not after [`DEADLINE`].
///
/// This is how a test waits for something that it can observe but that nobody announces, such as a
/// count on the info page.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not after {DEADLINE:?}: {what}");
        std::thread::sleep(POLL);
    }
}

/// Whether there is such a process, and it has not ended.
pub fn is_alive(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// A process that this one has started and that has not ended, if there is one.
pub fn child_of(process: u32) -> Option<u32> {
    // Each thread of it has children of its own.
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let children = |task: DirEntry| std::fs::read_to_string(task.path().join("children")).ok();
    let all: Vec<String> = tasks.flatten().filter_map(children).collect();
    all.join(" ").split_whitespace().find_map(|number| number.parse().ok())
}

/// Sends the process the signal of this name.
#[track_caller]
pub fn signal(process: u32, name: &str) {
    // The shell's own `kill` is on every machine, and a system call of ours would need `unsafe`.
    let line = format!("kill -{name} {process}");
    let status = Command::new("sh").args(["-c", &line]).status().expect("sh");
    assert!(status.success(), "{line}");
}

/// Lets `time` pass because the time is itself what the test puts in: a gap between two arrivals,
/// an idle spell. [`eventually`] is what waits for the proxy.
pub fn let_pass(time: Duration) {
    std::thread::sleep(time);
}

/// What [`on_time`] does not see: it sleeps for so long between two looks at the clock.
const UNSEEN: Duration = Duration::from_millis(20);

/// Runs a test that must go on within `limit` of what it did last, or the proxy is right to end
/// something. If it fails after this machine has let a thread oversleep by that much, it has shown
/// nothing, and is run again. With a `limit` below [`UNSEEN`] it is run again whenever it fails, and more
/// often: a process may be late by that much at any time, and nobody would know.
pub fn on_time(limit: Duration, test: impl Fn()) {
    // A machine that is late each time may as well be the proxy's fault.
    let attempts = if limit < UNSEEN { 20 } else { 5 };
    for _ in 1..attempts {
        let over = AtomicBool::new(false);
        let (outcome, longest) = std::thread::scope(|scope| {
            let watch = scope.spawn(|| longest_gap(&over));
            let outcome = catch_unwind(AssertUnwindSafe(&test));
            over.store(true, Ordering::Relaxed);
            (outcome, watch.join().expect("a clock"))
        });
        match outcome {
            Ok(()) => return,
            Err(failure) if longest < limit => resume_unwind(failure),
            Err(_) => eprintln!("a thread was late by {longest:?}: once more"),
        }
    }
    test();
}

/// The longest time between two looks at the clock, with a short sleep between them.
fn longest_gap(over: &AtomicBool) -> Duration {
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(UNSEEN);
        let now = Instant::now();
        longest = longest.max(now - last);
        last = now;
    }
    longest
}

/// A clock for what the programs promise not to do before some time has passed. They count from an
/// event, and each of their workers reads the time before it looks at events: so the clock is
/// started before the connection is made that the event comes over, and then the promise holds
/// without any tolerance.
pub struct Stopwatch(Instant);

impl Stopwatch {
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// Fails the test if less than `time` has passed.
    #[track_caller]
    pub fn assert_passed(&self, time: Duration) {
        let passed = self.0.elapsed();
        assert!(passed >= time, "after {passed:?} already, instead of {time:?}");
    }
}

/// Says which test is not run, and why. It goes past the harness, which swallows what a passing
/// test prints: a test that is skipped must not look like one that has passed.
pub fn skipped(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // With the error output closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}
