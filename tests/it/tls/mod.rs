//! TLS on the proxy's listeners, as clients see it that are not ours: openssl, curl, Python, Node, nginx
//! and haproxy; and what peers send that keep to no rule.
//!
//! That everything else behaves over TLS as it does without is shown by the other tests, which
//! `tests/over-tls/run` runs a second time.

mod agreement;
mod authority;
mod certificates;
mod clients;
mod endings;
mod hostile;
mod ktls;
mod mutual;
mod resumption;

use crate::common::{Proxy, Setup, run_well};
use authority::Authority;
use std::process::Command;

/// A proxy with TLS for clients, which answers every request with a 404 itself: it has no backend.
#[track_caller]
fn proxy(options: &str, settings: &str) -> Proxy {
    setup(options, settings).start()
}

fn setup(options: &str, settings: &str) -> Setup {
    Setup::new().settings(&format!(
        "listen 127.0.0.1:0 clients {options}\nlisten 127.0.0.1:0 bridges\nunknown-host 404\n\
         open-bridges yes\n{settings}"
    ))
}

#[test]
fn what_is_not_run_over_tls_is_there() {
    let program = std::env::current_exe().expect("this program");
    let tests = run_well(Command::new(program).arg("--list"));
    for line in include_str!("../../over-tls/not-again").lines() {
        let name = line.split_whitespace().next().unwrap_or("#");
        let is_there = name.starts_with('#') || tests.lines().any(|test| test.contains(name));
        assert!(is_there, "no test is called {name}");
    }
}

/// The value of `cloudbridge_tls_handshakes_total` with this result.
fn handshakes(proxy: &Proxy, result: &str) -> u64 {
    proxy.metric(&format!("cloudbridge_tls_handshakes_total{{result=\"{result}\"}}"))
}
