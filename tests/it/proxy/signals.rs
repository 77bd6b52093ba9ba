//! Signals besides HUP, TERM and INT alone (`lifecycle.rs`).

use crate::common::{Bridge, Client, Daemon, Proxy, eventually, logged, on_time, under_way};
use std::fs::{read_to_string, rename};
use std::time::Duration;

/// GNU `timeout`, shells and process managers send two signals within milliseconds.
#[test]
fn signals_to_stop_that_come_together_are_one() {
    // Half a second between two of them is what makes the later one another request to stop.
    on_time(Duration::from_millis(100), || {
        let mut proxy = Proxy::start();
        let (mut client, mut bridge) = under_way(&proxy);
        proxy.freeze();
        ["TERM", "INT", "QUIT"].iter().for_each(|name| proxy.signal(name));
        proxy.thaw();
        proxy.await_log(logged::SHUTTING_DOWN);
        bridge.respond_to(&mut client, "finished");
        drop((client, bridge));
        assert!(proxy.wait_exit().success());
        assert!(!proxy.log().contains("second signal"), "{}", proxy.log());
    });
}

/// As nginx does.
#[test]
fn sigquit_drains_as_sigterm_does() {
    let mut proxy = Proxy::start();
    let (mut client, mut bridge) = under_way(&proxy);
    proxy.signal("QUIT");
    proxy.await_log(logged::SHUTTING_DOWN);
    bridge.respond_to(&mut client, "finished");
    drop((client, bridge));
    assert!(proxy.wait_exit().success());
}

#[test]
fn a_signal_without_a_meaning_is_logged_and_ends_nothing() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    proxy.signal("ALRM");
    proxy.await_log("ALRM: this signal has no effect");
    let mut client = Client::get(&proxy, "a.test", "/");
    bridge.serve_to(&mut client, "served");
}

/// As logrotate has it for nginx.
#[test]
fn sigusr1_opens_the_logs_again_and_reads_no_settings() {
    const SETTINGS: &str = "listen 127.0.0.1:0\nunknown-host 404\naccess-log {dir}/access";
    let daemon = Daemon::new(SETTINGS);
    daemon.start();
    let ask = |path: &str| {
        let mut client = Client::connect_to(daemon.address());
        client.send_get("a.test", path);
        assert_eq!(client.read_response().status(), 404);
    };
    let has = |file: &str, text: &str| {
        eventually(&format!("{text} in {file}"), || {
            read_to_string(daemon.path(file)).is_ok_and(|lines| lines.contains(text))
        });
    };
    let address = daemon.address();
    ask("/before");
    has("access", "/before");
    for file in ["log", "access"] {
        rename(daemon.path(file), daemon.path(&format!("{file}.1"))).expect("rename");
    }
    daemon.set("nonsense yes\naccess-log {dir}/access");
    daemon.signal("USR1");
    daemon.await_log("USR1: the log files have been opened again");
    let mut client = Client::connect_to(address);
    client.send_get("a.test", "/after");
    assert_eq!(client.read_response().status(), 404);
    has("access", "/after");
    has("access.1", "/before");
    assert!(!daemon.log().contains("nonsense"), "{}", daemon.log());
}
