//! More peers than the proxy can take: it stops accepting, waits without spinning, and goes on when
//! there is room.

use crate::common::{
    ACK, Bridge, Client, Message, Proxy, Setup, TOKEN, Wire, eventually, let_pass, logged,
};
use std::time::{Duration, Instant};

/// Fails if the proxy uses more than a tenth of one processor while nothing happens.
#[track_caller]
fn assert_idle(proxy: &Proxy) {
    const WINDOW: Duration = Duration::from_millis(500);
    let before = proxy.processor_time();
    let_pass(WINDOW);
    let used = proxy.processor_time() - before;
    assert!(used <= WINDOW / 10, "{used:?} of processor time in {WINDOW:?} of nothing");
}

/// More connections than there is room for, then fewer: those that remain must be served.
#[track_caller]
fn overfill(proxy: &Proxy) {
    let mut bridge = Bridge::park(proxy, &["a.test"]);
    // The kernel completes these connections whether the proxy accepts them or not.
    let crowd: Vec<Client> = (0..120).map(|_| Client::connect(proxy)).collect();
    proxy.await_log(logged::ACCEPTING_PAUSES);
    assert_idle(proxy);
    // Who is inside is served meanwhile, and who waits outside is served when the others have gone.
    let mut late = Client::get(proxy, "a.test", "/late");
    drop(crowd);
    assert_eq!(bridge.serve_to(&mut late, "in the end"), "GET /late HTTP/1.1");
    assert_idle(proxy);
}

#[test]
fn at_the_limit_of_descriptors_accepting_pauses_and_resumes() {
    let proxy = Setup::new().descriptors(80).start();
    overfill(&proxy);
}

#[test]
fn at_max_connections_accepting_pauses_and_resumes() {
    let proxy = Proxy::with("max-connections 40");
    overfill(&proxy);
}

#[test]
fn accepted_clients_are_served_while_accepting_pauses() {
    let proxy = Proxy::with("max-connections 40");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut inside = Client::get(&proxy, "a.test", "/");
    bridge.accept_request();
    let _crowd: Vec<Client> = (0..120).map(|_| Client::connect(&proxy)).collect();
    proxy.await_log(logged::ACCEPTING_PAUSES);
    bridge.respond_to(&mut inside, "served");
}

/// RFC 9112, section 9.3: a connection between two requests may be closed at any time, and a
/// newcomer has a request to make.
#[test]
fn idle_clients_make_room_for_newcomers() {
    let proxy = Proxy::with("max-connections 40");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut idle: Vec<Client> = Vec::new();
    for _ in 0..100 {
        let mut client = Client::get(&proxy, "a.test", "/");
        bridge.serve_to(&mut client, "served");
        idle.push(client);
    }
}

#[test]
fn an_idle_proxy_uses_no_processor_time() {
    let proxy = Proxy::start();
    let _bridges: Vec<Bridge> = (0..50).map(|_| Bridge::park(&proxy, &["a.test"])).collect();
    let _clients: Vec<Client> = (0..50).map(|_| Client::connect(&proxy)).collect();
    let _waiting: Vec<Client> = (0..50).map(|_| Client::get(&proxy, "b.test", "/")).collect();
    proxy.await_count("c", 50);
    assert_idle(&proxy);
}

#[test]
fn idle_connections_own_little_memory() {
    /// Per connection, with room for what the allocator rounds up; no buffer fits into it.
    const EACH: u64 = 2048;
    const COUNT: u64 = 2000;
    // All are open before the first of them asks, and stay open until the last one has its answer.
    let proxy = Proxy::with("head-timeout 10m\nkeepalive-timeout 1h");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut first = Client::get(&proxy, "a.test", "/");
    bridge.serve("first");
    first.read_response();
    let before = proxy.memory();
    let mut clients: Vec<Client> = (0..COUNT).map(|_| Client::connect(&proxy)).collect();
    // Each has been through a request, so that what that took must have been given back.
    for client in &mut clients {
        client.send_get("a.test", "/");
        bridge.serve_to(client, "served");
    }
    let used = proxy.memory().saturating_sub(before);
    assert!(used < COUNT * EACH, "{} bytes for each of {COUNT} idle clients", used / COUNT);
}

/// Clients that connect and close all the time must not fill the log either.
#[test]
fn pause_of_accepting_is_logged_once() {
    let start = Instant::now();
    let proxy = Proxy::with("max-connections 8");
    let _inside: Vec<Client> = (0..7).map(|_| Client::connect(&proxy)).collect();
    for _ in 0..300 {
        let mut client = Client::connect(&proxy);
        client.send_if_open("X\r\n\r\n");
        client.read_to_end();
    }
    proxy.await_log(logged::ACCEPTING_PAUSES);
    let said = proxy.log().matches(logged::ACCEPTING_PAUSES).count() as u64;
    // Each of the two workers says it for itself, and again after ten seconds.
    let most = 2 * (1 + start.elapsed().as_secs() / 10);
    assert!(said <= most, "it was said {said} times");
}

/// Registers for 99 names and leaves, `count` times; no name comes twice.
#[track_caller]
fn register_names(proxy: &Proxy, round: &str, count: usize) {
    let filler = "y".repeat(50);
    for number in 0..count {
        let names: String = (0..99)
            .map(|name| format!("Host: n{round}-{number}-{name}.{filler}.test\r\n"))
            .collect();
        let mut bridge = Bridge::connect(proxy);
        bridge.send(format!("BRIDGE / HTTP/1.1\r\n{names}\r\n"));
        bridge.expect_exact(ACK);
    }
}

/// A name is remembered for a while after its last bridge, and there is no end of names.
#[test]
fn made_up_host_names_use_bounded_memory() {
    const MORE: u64 = 8 * 1024 * 1024;
    let proxy = Proxy::start();
    // As many names as are remembered, and more.
    register_names(&proxy, "first", 150);
    let before = proxy.memory();
    register_names(&proxy, "then", 850);
    let used = proxy.memory().saturating_sub(before);
    assert!(used < MORE, "{used} bytes for names that nobody serves any more");
}

/// Each worker has an index of all names.
#[test]
fn made_up_host_names_use_bounded_memory_with_many_workers() {
    const MOST: u64 = 48 * 1024 * 1024;
    let proxy = Proxy::with("workers 64");
    let before = proxy.memory();
    register_names(&proxy, "many", 300);
    let used = proxy.memory().saturating_sub(before);
    assert!(used < MOST, "{used} bytes for names that nobody serves any more");
}

/// Sends until no connection takes any more, or each has taken `limit` bytes.
fn send_until_all_stall(proxy: &Proxy, wires: &[Bridge], limit: usize) {
    let block = vec![b'x'; 64 * 1024];
    let mut taken = vec![0; wires.len()];
    loop {
        // With the proxy asleep before, what is not taken now is not going to be.
        let was_asleep = proxy.is_asleep();
        let before: usize = taken.iter().sum();
        for (wire, taken) in wires.iter().zip(&mut taken).filter(|(_, taken)| **taken < limit) {
            *taken += wire.send_some(&block).unwrap_or(0);
        }
        if was_asleep && taken.iter().sum::<usize>() == before {
            return;
        }
    }
}

/// Each body whose sink has stalled stands in a pipe of two descriptors, and these are limited,
/// too.
#[test]
fn stalled_downloads_leave_descriptors_for_newcomers_and_files() {
    const DOWNLOADS: usize = 130;
    // Too few for two connections and a pipe each.
    let proxy =
        Setup::new().descriptors(500).settings("bridges-per-host 1000\nunknown-host 404").start();
    let mut bridges: Vec<Bridge> = Vec::new();
    let mut clients: Vec<Wire> = Vec::new();
    for _ in 0..DOWNLOADS {
        let mut bridge = Bridge::park(&proxy, &["a.test"]);
        let mut client = Wire::connect(proxy.for_clients());
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        bridge.accept_request();
        bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        bridges.push(bridge);
        clients.push(client);
    }
    send_until_all_stall(&proxy, &bridges, 6 * 1024 * 1024);
    let mut newcomer = Client::get(&proxy, "nobody.test", "/");
    assert_eq!(newcomer.read_response().status(), 404);
    proxy.reload();
    proxy.await_log(logged::READ_AGAIN);
    assert!(!proxy.log().contains(logged::ACCEPTING_PAUSES), "{}", proxy.log());
    drop((bridges, clients));
    proxy.await_count("C", 0);
}

/// Registers until it is refused, and returns the bridges and the refusal.
#[track_caller]
fn register_until_refused(proxy: &Proxy, host: impl Fn(usize) -> String) -> (Vec<Bridge>, Message) {
    let mut bridges = Vec::new();
    for number in 0.. {
        let mut bridge = Bridge::connect(proxy);
        bridge.send(format!("BRIDGE / HTTP/1.1\r\nHost: {}\r\n\r\n", host(number)));
        let answer = bridge.read_head();
        if answer.head != ACK {
            return (bridges, answer);
        }
        bridges.push(bridge);
    }
    unreachable!("{} bridges were accepted", bridges.len())
}

/// However many backends dial: half of the connections are not for them.
#[test]
fn bridges_have_half_of_the_connections_and_clients_are_served_beside_them() {
    let proxy = Proxy::with("max-connections 40");
    let (mut bridges, refusal) = register_until_refused(&proxy, |number| format!("h{number}.test"));
    assert_eq!((bridges.len(), refusal.status()), (20, 503));
    assert!(refusal.has("retry-after"), "{refusal:?}");
    let mut client = Client::get(&proxy, "h3.test", "/");
    bridges[3].serve_to(&mut client, "served");
    // One that goes makes room for another.
    drop(bridges.pop());
    Bridge::park_when_there_is_room(&proxy, "next.test");
}

#[test]
fn one_host_has_half_of_the_bridges_unless_the_settings_say_otherwise() {
    for (settings, most) in [("", 10), ("bridges-per-host 15", 15)] {
        let proxy = Proxy::with(&format!("max-connections 40\n{settings}"));
        let (_bridges, refusal) = register_until_refused(&proxy, |_| "a.test".to_owned());
        assert_eq!((_bridges.len(), refusal.status()), (most, 503));
        Bridge::park(&proxy, &["b.test"]);
    }
}

/// A backend that shuts down must be heard, or its requests in flight are lost.
#[test]
fn deregistration_is_accepted_while_clients_have_all_connections() {
    let proxy = Proxy::with("max-connections 40");
    let mut bridge = Bridge::with_token(&proxy, "", "leave, undelivered");
    // They wait for a name that nobody serves, and there are more of them than there is room for.
    let _crowd: Vec<Client> = (0..60).map(|_| Client::get(&proxy, "b.test", "/")).collect();
    proxy.await_log(logged::ACCEPTING_PAUSES);
    let mut leave = Bridge::connect(&proxy);
    leave.send(format!("BRIDGE / HTTP/1.1\r\nHost: a.test\r\nCloudbridge-Leave: {TOKEN}\r\n\r\n"));
    assert_eq!(leave.read_head().status(), 200);
    bridge.expect_closed();
}

/// The same for a backend that comes: without it the crowd would wait in vain.
#[test]
fn bridge_is_accepted_while_clients_have_all_connections() {
    let proxy = Proxy::with("max-connections 40");
    let _crowd: Vec<Client> = (0..60).map(|_| Client::get(&proxy, "a.test", "/")).collect();
    proxy.await_log(logged::ACCEPTING_PAUSES);
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    assert_eq!(bridge.serve("served"), "GET / HTTP/1.1");
}

/// Where only clients come nobody else can be meant: they wait in the kernel.
#[test]
fn clients_of_a_listener_of_their_own_wait_and_are_not_refused() {
    let proxy =
        Proxy::with("max-connections 40\nlisten 127.0.0.1:0 clients\nlisten 127.0.0.1:0 bridges");
    let mut clients: Vec<Client> =
        (0..60).map(|number| Client::get(&proxy, "a.test", &format!("/{number}"))).collect();
    proxy.await_log(logged::ACCEPTING_PAUSES);
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    for _ in 0..60 {
        bridge.serve("served");
        // Whichever was served leaves, so that there is room for the next.
        eventually("one has its answer", || {
            let served = clients.iter().position(|client| client.has_bytes());
            served.map(|at| clients.swap_remove(at)).is_some()
        });
    }
}

#[test]
fn connections_of_one_address_can_be_bounded() {
    let proxy = Proxy::with("connections-per-address 3\nunknown-host 404");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..3 {
        let mut client = Client::get(&proxy, "a.test", "/");
        bridge.serve_to(&mut client, "served");
        clients.push(client);
    }
    let mut surplus = Client::connect(&proxy);
    surplus.expect_closed();
    proxy.await_log("connections-per-address");
    // A connection counts from its first request to its last, and no longer.
    clients[0].send_get("a.test", "/again");
    bridge.serve_to(&mut clients[0], "served");
    drop(clients.pop());
    eventually("there is room for another", || {
        let mut client = Client::connect(&proxy);
        client.send_if_open("GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n");
        !client.read_to_end().0.is_empty()
    });
}
