//! The library for Rust backends against the real proxy: `examples/hyper.rs` and `examples/axum.rs`
//! as they are, and a listener that is shut down under load.

use crate::clients::authority::{Authority, by_tls, encrypted};
use crate::common::{Load, Process, Proxy, at, skipped};
use cloudbridge::client::{BridgeListener, BridgeStream, Builder};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Where cargo puts the example: it is built with all tests, but not when this file is asked for
/// alone.
fn example(name: &str) -> Option<PathBuf> {
    let here = std::env::current_exe().ok()?;
    let path = here.parent()?.parent()?.join("examples").join(name);
    path.exists().then_some(path)
}

#[test]
fn the_hyper_example_serves_and_leaves_without_losing_a_request() {
    serves_and_leaves("hyper");
}

#[test]
fn the_axum_example_serves_and_leaves_without_losing_a_request() {
    serves_and_leaves("axum");
}

fn serves_and_leaves(name: &str) {
    let Some(example) = example(name) else {
        return skipped(
            "the example is not built; `cargo test` builds it, or `cargo build --examples`",
        );
    };
    let proxy = Proxy::start();
    let start = || {
        let mut command = Command::new(&example);
        Process::spawn("the example", command.args([&at(&proxy), "a.test"]).stdin(Stdio::null()))
    };
    let mut running = start();
    proxy.await_count("b", 4);
    let is_answer = |path: &str, text: &str| text == format!("POST {path}\n");
    Load::run(&proxy, "POST", 3, is_answer, |load| {
        for _ in 0..3 {
            load.await_more(15);
            let mut leaving = std::mem::replace(&mut running, start());
            leaving.terminate();
            assert!(leaving.wait_exit().success());
        }
    });
    assert_eq!(proxy.info().number(&["counters", "leaves"]), 3);
    assert_eq!(proxy.info().number(&["counters", "answered_502"]), 0);
}

/// Answers each POST of two bytes with its target, until the end of the connection.
fn serve(mut bridge: BridgeStream, done: &AtomicUsize) -> io::Result<()> {
    let mut requests = BufReader::new(bridge.try_clone()?);
    loop {
        let mut head = String::new();
        while requests.read_line(&mut head)? > 2 {}
        if head.is_empty() {
            return Ok(());
        }
        requests.read_exact(&mut [0; 2])?;
        done.fetch_add(1, Ordering::SeqCst);
        let target = head.split(' ').nth(1).unwrap_or_default();
        let length = target.len();
        write!(bridge, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{target}")?;
    }
}

#[test]
fn listeners_that_are_shut_down_under_load_lose_nothing() {
    let proxy = Proxy::start();
    shut_down_under_load(&proxy, || BridgeListener::builder(proxy.for_bridges().to_string()));
}

/// So they do when they dial by TLS, the deregistration included.
#[test]
fn listeners_that_are_shut_down_under_load_over_tls_lose_nothing() {
    if !Authority::is_possible() {
        return;
    }
    let authority = Authority::new();
    let proxy = encrypted(&authority.issue("proxy", "IP:127.0.0.1", 1), "");
    shut_down_under_load(&proxy, || BridgeListener::builder(by_tls(&proxy)).ca(authority.ca()));
}

fn shut_down_under_load(proxy: &Proxy, builder: impl Fn() -> Builder) {
    const GENERATIONS: usize = 20;
    let done = AtomicUsize::new(0);
    let served = thread::scope(|scope| {
        let start = || {
            let listener = builder().host("a.test").build().expect("a listener");
            for _ in 0..3 {
                let (listener, done) = (listener.clone(), &done);
                scope.spawn(move || {
                    for bridge in listener.incoming() {
                        serve(bridge.expect("no refusal"), done).expect("whole requests");
                    }
                });
            }
            listener
        };
        let mut listener = start();
        let is_answer = |target: &str, text: &str| target == text;
        let served = Load::run(proxy, "POST", 4, is_answer, |load| {
            for _ in 0..GENERATIONS {
                load.await_more(5);
                let next = start();
                listener.shutdown().expect("the proxy is told");
                listener = next;
            }
        });
        listener.shutdown().expect("the proxy is told");
        served
    });
    assert_eq!(served, done.load(Ordering::SeqCst));
    assert_eq!(proxy.info().number(&["counters", "answered_502"]), 0);
}
