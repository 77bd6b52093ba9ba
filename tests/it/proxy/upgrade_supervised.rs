//! Upgrades where somebody waits for the end of the first process: a supervisor, or a container.

use super::upgrade::{Upgraded, ctl};
use crate::common::{
    Bridge, Client, Setup, child_of, eventually, installed, is_gone, let_pass, logged, signal,
    skipped,
};
use std::process::Command;
use std::time::Duration;

/// Signals that are sent to the first process are for the program that serves.
#[test]
fn the_first_process_stays_and_passes_signals_on() {
    let mut proxy = Upgraded::start("supervised yes");
    let first = proxy.process().unwrap();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/1");
    bridge.serve_to(&mut client, "one");
    assert_eq!(proxy.upgrade(), first);
    let second = proxy.process().unwrap();
    // It has nothing left, and stays.
    proxy.await_log("all done");
    proxy.upgrade_by(first);
    eventually("the second program has ended", || is_gone(second));
    let third = proxy.process().unwrap();
    assert!(!is_gone(first) && third != second);
    client.send_get("a.test", "/2");
    bridge.serve_to(&mut client, "two");
    signal(first, "HUP");
    proxy.await_log(logged::READ_AGAIN);
    signal(first, "TERM");
    assert!(proxy.wait_exit().success());
    assert!(is_gone(third) && proxy.process().is_none(), "the pidfile is left");
}

#[test]
fn the_first_process_passes_signals_on_while_it_finishes_something() {
    let mut proxy = Upgraded::start("supervised yes\ndrain-timeout 5s");
    let first = proxy.process().unwrap();
    let mut busy = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    busy.accept_request();
    proxy.upgrade();
    proxy.upgrade_by(first);
    signal(first, "TERM");
    busy.respond_to(&mut client, "finished");
    assert!(proxy.wait_exit().success());
    assert!(proxy.process().is_none(), "the pidfile is left");
}

/// What is being started would only end itself.
#[test]
fn a_signal_to_stop_is_not_lost_while_another_program_starts() {
    let mut proxy = Upgraded::start("supervised yes");
    let first = proxy.process().unwrap();
    proxy.upgrade();
    proxy.await_log("all done");
    let second = proxy.process().unwrap();
    proxy.write("slow", "#!/bin/sh\nexec sleep 600\n");
    let slow = proxy.dir().join("slow");
    let words = ["upgrade", slow.to_str().unwrap()];
    std::thread::scope(|scope| {
        scope.spawn(|| ctl(&proxy, &words));
        eventually("a program that does not serve", || child_of(second).is_some());
        signal(first, "TERM");
    });
    assert!(proxy.wait_exit().success());
    assert!(is_gone(second));
}

/// What has made it end was no signal to it.
#[test]
fn a_first_signal_to_stop_ends_no_program_at_once() {
    let mut proxy = Upgraded::start("supervised yes");
    let first = proxy.process().unwrap();
    let mut busy = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    busy.accept_request();
    proxy.upgrade();
    signal(proxy.process().unwrap(), "TERM");
    eventually("both end", || proxy.log().matches("shutting down").count() == 2);
    signal(first, "TERM");
    busy.respond_to(&mut client, "finished");
    assert!(proxy.wait_exit().success());
}

#[test]
fn the_second_signal_to_stop_ends_the_first_process_at_once() {
    let mut proxy = Upgraded::start("supervised yes");
    let first = proxy.process().unwrap();
    let mut busy = Bridge::park(&proxy, &["a.test"]);
    let _client = Client::get(&proxy, "a.test", "/");
    busy.accept_request();
    proxy.upgrade();
    signal(first, "TERM");
    eventually("both end", || proxy.log().matches("shutting down").count() == 2);
    // Within half a second two are one.
    let_pass(Duration::from_millis(600));
    signal(first, "TERM");
    assert_eq!(proxy.wait_exit().code(), Some(1));
}

/// A supervisor is to start another.
#[test]
fn the_first_process_ends_as_the_last_program_has() {
    let mut proxy = Upgraded::start("supervised yes");
    proxy.upgrade();
    proxy.await_log("all done");
    signal(proxy.process().unwrap(), "KILL");
    assert_eq!(proxy.wait_exit().code(), Some(128 + 9));
    std::fs::remove_file(proxy.dir().join("pid")).expect("a dead process's pidfile");
}

/// As in a container without an init.
#[test]
fn process_one_may_be_upgraded() {
    const NAMESPACE: [&str; 5] = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    if !installed("unshare", &["unshare", "--version"]) {
        return;
    }
    let status = Command::new("unshare").args(&NAMESPACE[1..]).arg("true").status();
    if !status.is_ok_and(|status| status.success()) {
        return skipped("namespaces need root");
    }
    // Something else is process 1's by the time it serves, and stays, with a child that has ended:
    // neither is waited for.
    let others = "(sleep 600 &); (sh -c 'true & exec sleep 600' &); exec \"$@\"";
    let words = ["sh", "-c", others, "sh"];
    let mut proxy = Setup::new().under(&[&NAMESPACE[..], &words].concat()).start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/1");
    bridge.serve_to(&mut client, "one");
    let first = child_of(proxy.id()).expect("process 1");
    for count in 1..=2 {
        signal(first, "USR2");
        eventually("a new program serves", || {
            proxy.log().matches("bridges have come").count() == count
                && proxy.log().matches("all done").count() == count
        });
        client.send_get("a.test", "/next");
        bridge.serve_to(&mut client, "next");
    }
    signal(first, "TERM");
    assert!(proxy.wait_exit().success());
    bridge.read_to_end();
}
