//! More peers than the proxy can take: it stops accepting, waits without spinning, and goes on when there is room.

use crate::common::{Bridge, Client, Proxy, Setup, let_pass};
use std::time::Duration;

/// Fails if the proxy uses more than a tenth of one processor while nothing happens.
#[track_caller]
fn assert_idle(proxy: &Proxy) {
    const WINDOW: Duration = Duration::from_millis(500);
    let before = proxy.processor_time();
    let_pass(WINDOW);
    let used = proxy.processor_time() - before;
    assert!(used <= WINDOW / 10, "{used:?} of processor time in {WINDOW:?} of nothing");
}

/// More connections than there is room for, then fewer: whoever is left must be served.
#[track_caller]
fn overfill(proxy: &Proxy) {
    let mut bridge = Bridge::park(proxy, &["a.test"]);
    // The kernel completes these connections whether the proxy accepts them or not.
    let crowd: Vec<Client> = (0..120).map(|_| Client::connect(proxy)).collect();
    assert_idle(proxy);
    // Who is inside is served meanwhile, and who waits outside is served when the others have gone.
    let mut late = Client::get(proxy, "a.test", "/late");
    drop(crowd);
    assert_eq!(bridge.serve("in the end"), "GET /late HTTP/1.1");
    assert_eq!(late.read_response().text(), "in the end");
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
fn who_is_inside_is_served_while_accepting_pauses() {
    let proxy = Proxy::with("max-connections 40");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut inside = Client::get(&proxy, "a.test", "/");
    bridge.accept_request();
    let _crowd: Vec<Client> = (0..120).map(|_| Client::connect(&proxy)).collect();
    proxy.await_log("accepting pauses");
    bridge.respond("served");
    assert_eq!(inside.read_response().text(), "served");
}

/// RFC 9112, section 9.3: a connection between two requests may be closed at any time, and a newcomer has a request to make.
#[test]
fn idle_clients_make_room_for_newcomers() {
    let proxy = Proxy::with("max-connections 40");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut idle: Vec<Client> = Vec::new();
    for number in 0..100 {
        let mut client = Client::get(&proxy, "a.test", "/");
        if number == 0 {
            bridge.serve("served");
        } else {
            bridge.serve_next("served");
        }
        assert_eq!(client.read_response().text(), "served");
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
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut first = Client::get(&proxy, "a.test", "/");
    bridge.serve("first");
    first.read_response();
    let before = proxy.memory();
    let mut clients: Vec<Client> = (0..COUNT).map(|_| Client::connect(&proxy)).collect();
    // Each has been through a request, so that what that took must have been given back.
    for client in &mut clients {
        client.send_get("a.test", "/");
        bridge.serve_next("served");
        assert_eq!(client.read_response().text(), "served");
    }
    let used = proxy.memory().saturating_sub(before);
    assert!(used < COUNT * EACH, "{} bytes for each of {COUNT} idle clients", used / COUNT);
}
