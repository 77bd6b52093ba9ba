//! Signals: how an agent ends without harm to what is under way.

use crate::common::{
    Agent, App, Client, Gate, Proxy, Stopwatch, at, eventually, let_pass, logged, ok, on_time,
};
use std::sync::Arc;
use std::time::Duration;

/// A proxy, an agent with two places and a request inside its application.
fn with_a_request_inside(more: &[&str]) -> (Proxy, Agent, App, Arc<Gate>, Client) {
    let proxy = Proxy::start();
    let (app, gate) = App::gated("/", "finished");
    let mut args = vec!["--to".to_owned(), app.to(), "-n2".to_owned(), at(&proxy)];
    args.extend(more.iter().map(|word| (*word).to_owned()));
    let agent = Agent::start(&args);
    let client = Client::get(&proxy, "a.test", "/");
    eventually("the request is inside", || gate.inside() == 1);
    (proxy, agent, app, gate, client)
}

#[test]
fn sigterm_finishes_the_request_under_way_and_takes_no_other() {
    let (proxy, mut agent, _app, gate, mut client) = with_a_request_inside(&[]);
    proxy.await_count("b", 1);
    agent.terminate();
    proxy.await_count("b", 0);
    assert!(agent.exit_status().is_none(), "it did not wait for the request");
    gate.let_out(1);
    let response = client.read_response();
    assert_eq!(response.text(), "finished");
    // That the bridge closes is no concern of the client's.
    assert!(!response.has("connection"), "{response:?}");
    assert!(agent.wait_exit().success());
}

#[test]
fn request_longer_than_the_grace_is_cut() {
    let (proxy, mut agent, app, gate, mut client) = with_a_request_inside(&["--grace", "200ms"]);
    let clock = Stopwatch::start();
    agent.terminate();
    assert!(agent.wait_exit().success());
    clock.assert_passed(Duration::from_millis(200));
    drop(app);
    gate.let_out(1);
    // It was a GET: the proxy keeps it for the next agent.
    assert!(!client.is_closed());
    let app = App::start(|_| ok("next"));
    let _agent = Agent::serve(&app.to(), 1, &[at(&proxy)]);
    assert_eq!(client.read_response().text(), "next");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (proxy, mut agent, _app, gate, _client) = with_a_request_inside(&["--grace", "1h"]);
    agent.terminate();
    agent.await_log(logged::SHUTTING_DOWN);
    let_pass(Duration::from_millis(500));
    assert!(agent.exit_status().is_none());
    agent.terminate();
    assert_eq!(agent.wait_exit().code(), Some(1));
    gate.let_out(1);
    drop(proxy);
}

/// GNU `timeout`, shells and process managers send two signals within milliseconds.
#[test]
fn signals_to_stop_that_come_together_are_one() {
    // Half a second between two of them is what makes the later one another request to stop.
    on_time(Duration::from_millis(100), || {
        let (_proxy, mut agent, _app, gate, mut client) = with_a_request_inside(&[]);
        agent.freeze();
        ["TERM", "INT", "QUIT"].iter().for_each(|name| agent.signal(name));
        agent.thaw();
        agent.await_log(logged::SHUTTING_DOWN);
        gate.let_out(1);
        assert_eq!(client.read_response().text(), "finished");
        assert!(agent.wait_exit().success());
    });
}

#[test]
fn signals_without_a_meaning_are_logged_and_end_nothing() {
    let (_proxy, mut agent, _app, gate, mut client) = with_a_request_inside(&[]);
    for name in ["USR1", "ALRM"] {
        agent.signal(name);
        agent.await_log(&format!("{name}: this signal has no effect"));
    }
    gate.let_out(1);
    assert_eq!(client.read_response().text(), "finished");
    agent.signal("QUIT");
    assert!(agent.wait_exit().success());
}

#[test]
fn sigterm_ends_an_idle_agent() {
    let proxy = Proxy::start();
    let app = App::start(|_| ok("served"));
    let mut agent = Agent::serve(&app.to(), 4, &[at(&proxy)]);
    proxy.await_count("b", 4);
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().text(), "served");
    agent.terminate();
    assert!(agent.wait_exit().success());
}

#[test]
fn sigterm_deregisters_an_echo() {
    let proxy = Proxy::start();
    let mut echo = Agent::start(&["--echo", "-n2", "--host", "a.test", &at(&proxy)]);
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().status(), 200);
    proxy.await_count("b", 2);
    echo.terminate();
    assert!(echo.wait_exit().success());
    proxy.await_count("b", 0);
    assert_eq!(proxy.info().number(&["counters", "leaves"]), 1);
}
