//! Proxies that restart, refuse, are full, and send their bridges away. The test plays some of them
//! itself.

use crate::common::{
    ACK, Agent, App, Bridge, Client, Played, Proxy, Setup, Stopwatch, at, eventually, logged, ok,
    own_address, skipped,
};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::time::Duration;

#[test]
fn bridges_are_back_after_a_restart_of_the_proxy() {
    let mut proxy = Proxy::with(&format!("listen {}:0", own_address()));
    let address = proxy.for_clients();
    let app = App::start(|_| ok("served"));
    let _agent = Agent::serve(&app.to(), 4, &[at(&proxy)]);
    proxy.await_count("b", 4);
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().text(), "served");
    proxy.terminate();
    assert!(proxy.wait_exit().success());
    let proxy = Setup::new().settings(&format!("listen {address}")).start();
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().text(), "served");
    proxy.await_count("b", 4);
}

#[test]
fn a_proxy_that_dies_is_found_again() {
    let proxy = Proxy::with(&format!("listen {}:0", own_address()));
    let address = proxy.for_clients();
    let app = App::start(|_| ok("served"));
    let agent = Agent::serve(&app.to(), 2, &[at(&proxy)]);
    proxy.await_count("b", 2);
    drop(proxy);
    agent.await_log(logged::NO_BRIDGE);
    let proxy = Setup::new().settings(&format!("listen {address}")).start();
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().text(), "served");
    // Many dials have failed meanwhile; one line says so.
    assert_eq!(agent.log().matches(logged::NO_BRIDGE).count(), 1, "{}", agent.log());
}

#[test]
fn refusal_is_logged_once_with_its_reason() {
    let proxy = Setup::new()
        .settings("secrets {dir}/secrets")
        .file("secrets", "1600000000:sesame\n")
        .start();
    let app = App::start(|_| ok("served"));
    let mut agent = Agent::serve(&app.to(), 4, &[at(&proxy)]);
    agent.await_log(logged::REFUSES_BRIDGES);
    agent.terminate();
    agent.wait_exit();
    assert_eq!(agent.log().matches(logged::REFUSES_BRIDGES).count(), 1, "{}", agent.log());
    assert!(agent.log().contains("asked again every 30 s"), "{}", agent.log());
}

#[test]
fn retry_after_of_a_503_is_waited_for() {
    let proxy = Played::start();
    let app = App::start(|_| ok("served"));
    let clock = Stopwatch::start();
    let _agent = Agent::serve(&app.to(), 3, &[proxy.at()]);
    let (mut bridge, _) = proxy.bridge();
    bridge.send(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 5\r\n\r\nfull\n",
    );
    bridge.expect_closed();
    proxy.bridge();
    clock.assert_passed(Duration::from_secs(1));
}

#[test]
fn bridge_is_dialled_again_after_a_504() {
    let proxy = Played::start();
    let app = App::start(|_| ok("served"));
    let _agent = Agent::serve(&app.to(), 1, &[proxy.at()]);
    for _ in 0..5 {
        let (mut bridge, _) = proxy.bridge();
        bridge.send(ACK);
        bridge.send("HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 6\r\n\r\nagain\n");
        bridge.expect_closed();
    }
}

#[test]
fn other_bridges_are_dialled_when_the_first_is_accepted() {
    let proxy = Played::start();
    let app = App::start(|_| ok("served"));
    let agent = Agent::serve(&app.to(), 3, &[proxy.at()]);
    let (mut first, _) = proxy.bridge();
    agent.await_asleep();
    assert!(proxy.is_quiet(), "a second bridge before the first was accepted");
    first.send(ACK);
    let _others = [proxy.bridge(), proxy.bridge()];
}

#[test]
fn answer_that_is_not_http_is_logged_and_tried_again() {
    let proxy = Played::start();
    let app = App::start(|_| ok("served"));
    let agent = Agent::serve(&app.to(), 1, &[proxy.at()]);
    let (mut bridge, _) = proxy.bridge();
    bridge.send("SSH-2.0-x\r\n");
    bridge.expect_closed();
    agent.await_log("its answer to BRIDGE is not HTTP");
    proxy.bridge();
}

#[test]
fn every_address_behind_a_name_is_a_proxy_of_its_own() {
    let port = TcpListener::bind("[::]:0").map_or(0, |probe| probe.local_addr().unwrap().port());
    let addresses: Vec<SocketAddr> =
        ("localhost", port).to_socket_addrs().map(Iterator::collect).unwrap_or_default();
    let mut different: Vec<SocketAddr> = Vec::new();
    addresses.into_iter().for_each(|address| {
        if !different.contains(&address) {
            different.push(address);
        }
    });
    let listeners: Vec<TcpListener> =
        different.iter().filter_map(|address| TcpListener::bind(address).ok()).collect();
    if listeners.len() < 2 {
        return skipped("localhost has one address here");
    }
    let app = App::start(|_| ok("served"));
    let to = app.to();
    let name = format!("localhost:{port}");
    let _agent = Agent::start(&["--to", &to, "-n", "1", "--all-addresses", &name]);
    let _bridges: Vec<Bridge> =
        listeners.into_iter().map(|listener| Played::over(listener).bridge().0).collect();
}

#[test]
fn a_name_is_looked_up_and_its_addresses_are_tried_in_turn() {
    // localhost may stand for ::1 first, where nobody listens.
    let proxy = Proxy::start();
    let app = App::start(|_| ok("served"));
    let name = format!("localhost:{}", proxy.for_bridges().port());
    let _agent = Agent::serve(&app.to(), 2, &[name]);
    eventually("two bridges are parked", || proxy.count("b") == 2);
}

#[test]
fn accepted_bridges_are_said_once_and_again_after_an_outage() {
    let accepts = |agent: &Agent| agent.log().matches("accepts bridges").count();
    let mut proxy = Proxy::with(&format!("listen {}:0", own_address()));
    let (app, address) = (App::start(|_| ok("served")), proxy.for_bridges());
    let agent = Agent::serve(&app.to(), 3, &[at(&proxy)]);
    proxy.await_count("b", 3);
    agent.await_log(&format!("INFO ] {address} accepts bridges\n"));
    assert_eq!(accepts(&agent), 1, "{}", agent.log());
    proxy.terminate();
    proxy.wait_exit();
    agent.await_log(logged::NO_BRIDGE);
    let proxy = Proxy::with(&format!("listen {address}"));
    proxy.await_count("b", 3);
    eventually("it is said again", || accepts(&agent) == 2);
}
