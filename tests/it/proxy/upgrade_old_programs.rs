//! What a new program knows of those that it has replaced and that still run, and what it takes from
//! them.

use super::upgrade::{Upgraded, await_end, ctl};
use crate::common::{
    Bridge, Client, Json, Setup, eventually, exchange, free_address, is_alive, pattern, signal,
    under_way,
};
use std::net::TcpStream;

/// The old programs that run: their processes, and what each still has of requests.
fn old_programs(proxy: &Upgraded) -> Vec<(u32, u64)> {
    let info = proxy.info();
    let Json::List(all) = info.at(&["old_programs"]) else { panic!("{info:?}") };
    let number = |one: &Json| u32::try_from(one.number(&["process"])).unwrap();
    all.iter().map(|one| (number(one), one.number(&["exchanges"]))).collect()
}

#[track_caller]
fn await_old_programs(proxy: &Upgraded, expected: &[(u32, u64)]) {
    eventually(&format!("old programs {expected:?}"), || old_programs(proxy) == expected);
}

/// The status of the answer to a look at a host's health.
#[track_caller]
fn health(proxy: &Upgraded, host: &str) -> u16 {
    let request = format!("GET /healthz/{host} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = proxy.admin(&request);
    answer[9..12].parse().unwrap_or_else(|_| panic!("{answer}"))
}

#[track_caller]
fn await_metric(proxy: &Upgraded, line: &str) {
    eventually(line, || {
        let metrics = proxy.admin("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        metrics.lines().any(|have| have == line)
    });
}

#[test]
fn the_new_program_shows_those_before_it_until_they_have_ended() {
    let proxy = Upgraded::start("");
    await_old_programs(&proxy, &[]);
    let (mut one, mut first) = under_way(&proxy);
    let oldest = proxy.upgrade();
    await_old_programs(&proxy, &[(oldest, 1)]);
    let mut second = Bridge::park(&proxy, &["b.test"]);
    let mut two = Client::get(&proxy, "b.test", "/");
    second.accept_request();
    let mut third = Bridge::park(&proxy, &["c.test"]);
    let mut three = Client::get(&proxy, "c.test", "/");
    third.accept_request();
    let middle = proxy.upgrade();
    await_old_programs(&proxy, &[(middle, 2), (oldest, 1)]);
    await_metric(&proxy, "cloudbridge_old_programs 2");
    await_metric(&proxy, "cloudbridge_old_programs_busy{kind=\"exchange\"} 3");
    await_metric(&proxy, "cloudbridge_old_programs_busy{kind=\"tunnel\"} 0");
    await_metric(&proxy, "cloudbridge_old_programs_connections 6");
    let (code, table) = ctl(&proxy, &["old"]);
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((code, rows.len()), (Some(0), 3), "{table}");
    assert_eq!(rows[1], [middle.to_string().as_str(), "0", "2", "4"], "{table}");
    assert_eq!(rows[2], [oldest.to_string().as_str(), "0", "1", "2"], "{table}");
    third.respond_to(&mut three, "served");
    await_old_programs(&proxy, &[(middle, 1), (oldest, 1)]);
    first.respond_to(&mut one, "served");
    await_end(oldest);
    await_old_programs(&proxy, &[(middle, 1)]);
    second.respond_to(&mut two, "served");
    await_end(middle);
    await_old_programs(&proxy, &[]);
    await_metric(&proxy, "cloudbridge_old_programs 0");
}

/// As long as an old program has bridges of a host, it is served. The other program is two upgrades
/// away.
#[test]
fn a_host_whose_bridges_are_all_busy_in_an_old_program_is_healthy() {
    let proxy = Upgraded::start("unknown-host 404");
    let (mut client, mut bridge) = under_way(&proxy);
    let first = proxy.upgrade();
    assert_eq!((health(&proxy, "a.test"), health(&proxy, "b.test")), (200, 503));
    let second = proxy.upgrade();
    assert_eq!(health(&proxy, "a.test"), 200);
    let info = proxy.info();
    let Json::List(hosts) = info.at(&["hosts"]) else { panic!("{info:?}") };
    assert_eq!((hosts[0].number(&["busy"]), hosts[0].number(&["parked"])), (1, 0));
    bridge.respond_to(&mut client, "served");
    await_end(first);
    await_end(second);
    eventually("the bridge itself is there", || {
        let info = proxy.info();
        let Json::List(hosts) = info.at(&["hosts"]) else { panic!("{info:?}") };
        (hosts[0].number(&["busy"]), hosts[0].number(&["parked"])) == (0, 1)
    });
    assert_eq!(health(&proxy, "a.test"), 200);
    drop(bridge);
    eventually("no bridge is left", || health(&proxy, "a.test") == 503);
}

/// Nobody would take the connections that come to the old program's copy.
#[test]
fn a_listener_that_the_new_program_removes_is_closed_in_the_old_one() {
    let address = free_address();
    let proxy = Upgraded::start(&format!("listen 127.0.0.1:0\nlisten {address} clients"));
    let (mut client, mut bridge) = under_way(&proxy);
    let old = proxy.upgrade();
    TcpStream::connect(address).expect("it listens");
    proxy.change_settings(&format!("listen {address} clients\n"), "");
    let new = proxy.process().unwrap();
    signal(new, "HUP");
    eventually("connections are refused", || TcpStream::connect(address).is_err());
    assert!(is_alive(old));
    bridge.respond_to(&mut client, "served");
    await_end(old);
    exchange(&mut client, &mut bridge);
}

/// It goes on as before, with all that its own settings name.
#[test]
fn the_old_program_opens_again_what_the_new_one_had_closed() {
    let address = free_address();
    let proxy = Upgraded::start(&format!(
        "listen 127.0.0.1:0\nlisten {address} clients\nlisten unix:{{dir}}/clients clients"
    ));
    let (mut client, mut bridge) = under_way(&proxy);
    proxy.change_settings(&format!("listen {address} clients\n"), "");
    let old = proxy.upgrade();
    eventually("connections are refused", || TcpStream::connect(address).is_err());
    signal(proxy.process().unwrap(), "KILL");
    proxy.await_log("this one goes on");
    eventually("it listens again", || TcpStream::connect(address).is_ok());
    assert!(is_alive(old));
    bridge.respond_to(&mut client, "served");
    let mut other = Client::connect_to(address);
    other.send_get("a.test", "/other");
    bridge.serve_to(&mut other, "other");
    // The other addresses have not suffered.
    client.send_get("a.test", "/next");
    bridge.serve_to(&mut client, "next");
    assert!(!proxy.log().contains("accepting pauses"), "{}", proxy.log());
}

/// Its request is kept whole until a bridge has it, and is larger than a message.
#[test]
fn a_request_that_waits_goes_over_however_large_it_is() {
    const LENGTH: usize = 700_000;
    let proxy = Upgraded::start("retry-limit 1m\nretries 3");
    let mut lost = Bridge::park(&proxy, &["a.test"]);
    let head = format!("PUT /large HTTP/1.1\r\nHost: a.test\r\nContent-Length: {LENGTH}\r\n\r\n");
    let mut client = Client::request(&proxy, head);
    client.send(pattern(0, LENGTH));
    assert_eq!(lost.accept_request().body.len(), LENGTH);
    drop(lost);
    proxy.await_count("c", 1);
    await_end(proxy.upgrade());
    await_end(proxy.upgrade());
    proxy.await_count("c", 1);
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let request = bridge.accept_request();
    assert_eq!(request.start, "PUT /large HTTP/1.1");
    assert!(request.body == pattern(0, LENGTH), "its body is not what was sent");
    bridge.respond_to(&mut client, "taken");
}

/// It would serve beside the newest one, with its listeners.
#[test]
fn the_oldest_program_does_not_go_on_when_the_one_in_the_middle_is_killed() {
    let proxy = Upgraded::start("drain-timeout 20s");
    let (mut client, mut bridge) = under_way(&proxy);
    let oldest = proxy.upgrade();
    let middle = proxy.upgrade();
    let newest = proxy.process();
    signal(middle, "KILL");
    proxy.await_log("the program that replaced this one has ended");
    eventually("nobody is left of them here", || old_programs(&proxy).is_empty());
    bridge.respond_to(&mut client, "finished");
    await_end(oldest);
    assert_eq!(proxy.process(), newest);
    let mut other = Bridge::park(&proxy, &["b.test"]);
    let mut client = Client::get(&proxy, "b.test", "/");
    other.serve_to(&mut client, "served by the newest");
}

const SECRETS: &str = "1000000000:first\n1600000000:second\n";
/// `printf second:1700000000:a.test | sha1sum`
const KEY: &str = "adb7c404c49597d34e253d48aba583c439491d84:1700000000:a.test";

/// An answer would be taken for a request.
#[test]
fn a_bridge_that_awaits_a_request_gets_no_answer_when_it_is_refused() {
    let setup = Setup::new().settings("secrets {dir}/secrets").file("secrets", SECRETS);
    let proxy = Upgraded::with(setup);
    let registration = format!("BRIDGE / HTTP/1.1\r\nHost: a.test\r\nHost-Key: {KEY}\r\n\r\n");
    let mut reused = Bridge::register(&proxy, &registration);
    reused.serve_first(&proxy);
    let mut fresh = Bridge::register(&proxy, &registration);
    proxy.await_count("b", 2);
    proxy.write("secrets", "1000000000:first\n");
    await_end(proxy.upgrade());
    let (bytes, _) = reused.read_to_end();
    assert!(bytes.is_empty(), "{}", String::from_utf8_lossy(&bytes));
    assert_eq!(fresh.read_refusal().status(), 401);
    proxy.await_log("of the old program is closed: the Host-Key for a.test");
}

#[test]
fn a_bridge_that_awaits_a_request_gets_no_answer_when_it_is_drained_meanwhile() {
    let proxy = Upgraded::start("");
    let (mut client, mut bridge) = under_way(&proxy);
    let old = proxy.upgrade();
    assert_eq!(ctl(&proxy, &["drain", "a.test"]).0, Some(0));
    bridge.respond_to(&mut client, "served");
    await_end(old);
    let (bytes, _) = bridge.read_to_end();
    assert!(bytes.is_empty(), "{}", String::from_utf8_lossy(&bytes));
}
