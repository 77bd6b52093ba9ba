//! Several workers act as one: no request waits while a bridge that could serve it is parked,
//! whichever worker either of them is on.
//!
//! The kernel spreads connections over the workers by a hash of their ports, so these tests open
//! enough of them to have some on each.

use crate::common::{ACK, Bridge, Client, Proxy};
use std::sync::atomic::{AtomicBool, Ordering};

/// Answers every request with its own request line until the proxy closes the bridge.
fn echo_lines(bridge: &mut Bridge) {
    while bridge.read_some(0).is_some() {
        let line = bridge.accept_request().start;
        bridge.respond(line);
    }
}

fn one_bridge_serves_clients_of_every_worker(workers: usize) {
    let proxy = Proxy::with(&format!("workers {workers}"));
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut clients = Vec::new();
    for number in 0..16 * workers {
        clients.push(Client::get(&proxy, "a.test", &format!("/{number}")));
    }
    std::thread::scope(|scope| {
        scope.spawn(|| echo_lines(&mut bridge));
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.read_response().text(), format!("GET /{number} HTTP/1.1"));
        }
        proxy.terminate();
    });
}

#[test]
fn one_bridge_serves_clients_of_both_workers() {
    one_bridge_serves_clients_of_every_worker(2);
}

#[test]
fn one_bridge_serves_clients_of_four_workers() {
    one_bridge_serves_clients_of_every_worker(4);
}

fn as_many_bridges_as_clients_are_all_used(workers: usize) {
    let proxy = Proxy::with(&format!("workers {workers}"));
    let count = 16 * workers;
    let mut bridges: Vec<Bridge> = (0..count).map(|_| Bridge::park(&proxy, &["a.test"])).collect();
    let mut clients: Vec<Client> = (0..count).map(|_| Client::get(&proxy, "a.test", "/")).collect();
    // None of them answers before each of them has its request.
    for bridge in &mut bridges {
        bridge.accept_request();
    }
    for bridge in &mut bridges {
        bridge.respond("done");
    }
    for client in &mut clients {
        assert_eq!(client.read_response().text(), "done");
    }
}

#[test]
fn as_many_bridges_as_clients_are_all_used_by_both_workers() {
    as_many_bridges_as_clients_are_all_used(2);
}

#[test]
fn as_many_bridges_as_clients_are_all_used_by_four_workers() {
    as_many_bridges_as_clients_are_all_used(4);
}

/// Each round races a bridge that parks against a request that arrives, mostly on two workers: one
/// that misses the other would leave the request until its deadline.
#[test]
fn a_parked_bridge_and_a_new_request_never_miss_each_other() {
    let proxy = Proxy::with("workers 4");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    for _ in 0..400 {
        let mut client = Client::get(&proxy, "a.test", "/");
        bridge.serve_to(&mut client, "met");
    }
}

#[test]
fn bridges_and_requests_that_come_at_the_same_moment_meet() {
    let proxy = Proxy::with("workers 4");
    for round in 0..100 {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut bridge = Bridge::connect(&proxy);
                bridge.send("BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n");
                bridge.accept_request();
                bridge.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nmet");
            });
            let mut client = Client::get(&proxy, "a.test", "/");
            assert_eq!(client.read_response().text(), "met", "round {round}");
        });
    }
}

/// Each bridge brings a host name that no worker knows, all at once, half of them while a client
/// waits for it. Each client asks for several of the names, one behind the other.
#[test]
fn bridges_of_many_new_hosts_are_all_answered_and_in_order() {
    const CLIENTS: usize = 64;
    const TURNS: usize = 8;
    let proxy = Proxy::with("workers 4\nhead-timeout 10m");
    let host = |turn, client| format!("h{turn}.c{client}.test");
    let requests = |client| -> String {
        let get = |turn| format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", host(turn, client));
        (0..TURNS).map(get).collect()
    };
    let mut bridges: Vec<Bridge> = (0..CLIENTS * TURNS).map(|_| Bridge::connect(&proxy)).collect();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(&proxy)).collect();
    let (early, late) = clients.split_at_mut(CLIENTS / 2);
    for (number, client) in early.iter_mut().enumerate() {
        client.send(requests(number));
    }
    for (number, bridge) in bridges.iter_mut().enumerate() {
        let host = host(number / CLIENTS, number % CLIENTS);
        bridge.send(format!("BRIDGE / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
    for bridge in &mut bridges {
        bridge.expect_exact(ACK);
    }
    for (number, client) in late.iter_mut().enumerate() {
        client.send(requests(CLIENTS / 2 + number));
    }
    for (number, bridge) in bridges.iter_mut().enumerate() {
        let host = host(number / CLIENTS, number % CLIENTS);
        let request = bridge.accept_request();
        assert!(request.head.starts_with(format!("GET / HTTP/1.1\r\nHost: {host}\r\n").as_bytes()));
        bridge.respond(host);
    }
    for (number, client) in clients.iter_mut().enumerate() {
        for turn in 0..TURNS {
            assert_eq!(client.read_response().text(), host(turn, number));
        }
    }
}

/// The bridge is always wanted by a request of its own worker that has just come; the others must
/// get it in their turn.
#[test]
fn waiting_request_is_not_starved_by_busy_clients_of_another_worker() {
    let proxy = Proxy::with("workers 2");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| echo_lines(&mut bridge));
        // The busy ones have ended before the proxy does.
        std::thread::scope(|busy| {
            for _ in 0..8 {
                busy.spawn(|| {
                    let mut client = Client::connect(&proxy);
                    while !enough.load(Ordering::Relaxed) {
                        client.send_get("a.test", "/busy");
                        client.read_response();
                    }
                });
            }
            for number in 0..32 {
                let path = format!("/{number}");
                let mut client = Client::get(&proxy, "a.test", &path);
                assert_eq!(client.read_response().text(), format!("GET {path} HTTP/1.1"));
            }
            enough.store(true, Ordering::Relaxed);
        });
        proxy.terminate();
    });
}

#[test]
fn transferred_bridge_is_removed_when_it_dies() {
    let proxy = Proxy::with("workers 4");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut clients: Vec<Client> = (0..16).map(|_| Client::get(&proxy, "a.test", "/")).collect();
    for _ in 0..16 {
        bridge.serve("moved");
    }
    for client in &mut clients {
        assert_eq!(client.read_response().text(), "moved");
    }
    proxy.await_count("b", 1);
    drop(bridge);
    proxy.await_no_bridges();
}

/// A less specific bridge of the request's own worker is only for when the specific ones are busy
/// everywhere.
#[test]
fn specific_bridge_of_another_worker_wins_over_a_less_specific_local_one() {
    let proxy = Proxy::with("workers 4");
    let mut exact = Bridge::park(&proxy, &["a.test", "b.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    exact.serve_to(&mut client, "exact");
    let mut star = Bridge::park(&proxy, &["*"]);
    client.send_get("other.test", "/");
    star.serve_to(&mut client, "star");
    for round in 0..64 {
        // Each request meets both of them parked, and on all workers.
        proxy.await_count("b", 2);
        let mut client = Client::get(&proxy, if round % 2 == 0 { "a.test" } else { "b.test" }, "/");
        exact.serve("exact");
        assert_eq!(client.read_response().text(), "exact", "round {round}");
    }
}
