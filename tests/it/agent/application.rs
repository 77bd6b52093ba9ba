//! Applications that close, crash, restart, and are away.

use crate::common::{
    ACK, Agent, App, Client, Load, Played, Proxy, SWITCH, Seen, at, eventually, free_address,
    kept_port, logged, ok, own_address,
};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn while_the_application_is_away_nothing_is_parked_and_requests_wait() {
    let proxy = Proxy::start();
    let address = free_address();
    let agent = Agent::serve(&address.to_string(), 2, &[at(&proxy)]);
    agent.await_log(logged::CANNOT_BE_REACHED);
    let mut client = Client::get(&proxy, "a.test", "/");
    proxy.await_count("c", 1);
    assert_eq!(proxy.count("b"), 0);
    let _app = App::start_at(address, |_| ok("back"));
    assert_eq!(client.read_response().text(), "back");
}

#[test]
fn bridges_are_taken_back_when_the_application_goes() {
    let proxy = Proxy::start();
    let app = App::start_at((own_address(), 0).into(), |_| ok("served"));
    let address = app.address();
    let agent = Agent::serve(&app.to(), 4, &[at(&proxy)]);
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().text(), "served");
    proxy.await_count("b", 4);
    drop(app);
    // The line that has served is closed, and that makes the agent look.
    agent.await_log(logged::CANNOT_BE_REACHED);
    proxy.await_count("b", 0);
    // Even a POST waits for the next.
    let mut client =
        Client::request(&proxy, "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\n\r\nx");
    proxy.await_count("c", 1);
    let _app = App::start_at(address, |_| ok("again"));
    assert_eq!(client.read_response().text(), "again");
}

/// The test plays the proxy: a bridge whose application has gone without a sign is closed, and not
/// acknowledged.
#[test]
fn a_match_is_not_acknowledged_before_the_application_is_there() {
    let proxy = Played::start();
    let app = App::start_at((own_address(), 0).into(), |_| ok("served"));
    let _agent = Agent::serve(&app.to(), 1, &[proxy.at()]);
    let (mut bridge, _) = proxy.bridge();
    bridge.send(ACK);
    drop(app);
    bridge.send(SWITCH);
    bridge.expect_closed();
}

#[test]
fn get_on_a_closed_upstream_connection_is_sent_over_a_new_one() {
    let proxy = Proxy::start();
    let app = App::start(|seen| match (seen.connection, seen.head.starts_with("GET /second")) {
        // It closes the line it has kept, without a word.
        (1, true) => Vec::new(),
        _ => ok(format!("{}", seen.connection)),
    });
    let _agent = Agent::serve(&app.to(), 1, &[at(&proxy)]);
    let mut client = Client::get(&proxy, "a.test", "/first");
    assert_eq!(client.read_response().text(), "1");
    client.send_get("a.test", "/second");
    assert_eq!(client.read_response().text(), "2");
}

#[test]
fn a_post_that_had_reached_the_application_is_answered_502_and_not_repeated() {
    let proxy = Proxy::start();
    let posts = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&posts);
    let app = App::start(move |seen| {
        if seen.head.starts_with("POST") {
            count.fetch_add(1, Ordering::SeqCst);
            return Vec::new();
        }
        ok("get")
    });
    let _agent = Agent::serve(&app.to(), 1, &[at(&proxy)]);
    let mut client = Client::get(&proxy, "a.test", "/");
    assert_eq!(client.read_response().text(), "get");
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(client.read_response().status(), 502);
    assert_eq!(posts.load(Ordering::SeqCst), 1);
}

#[test]
fn truncated_response_of_the_application_is_cut_for_the_client() {
    let proxy = Proxy::start();
    let app = App::start(|_| {
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\nhalf".to_vec()
    });
    let _agent = Agent::serve(&app.to(), 1, &[at(&proxy)]);
    // A GET would be sent again.
    let request = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n";
    let mut client = Client::request(&proxy, request);
    assert_eq!(client.read_head().field("content-length"), Some("9"));
    let (body, _) = client.read_to_end();
    assert_eq!(body, b"half");
}

/// The test plays the proxy: one that gives a request up frees the application's place, though the
/// application goes on.
#[test]
fn request_given_up_by_the_proxy_frees_its_slot() {
    let proxy = Played::start();
    let (app, gate) = App::gated("/", "late");
    let _agent = Agent::serve(&app.to(), 1, &[proxy.at()]);
    for round in 1..=3 {
        let (mut bridge, _) = proxy.bridge();
        bridge.send(ACK);
        bridge.send(SWITCH);
        bridge.expect_exact(ACK);
        bridge.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        eventually("the request is inside", || gate.inside() == round);
    }
    gate.let_out(3);
}

#[test]
fn restarts_of_the_application_under_load_cost_no_get() {
    const CLIENTS: usize = 8;
    const RESTARTS: usize = 10;
    /// Requests of each client between two restarts, at least.
    const BETWEEN: usize = 12;
    let proxy = Proxy::start();
    let answer = |_: &Seen| ok("served");
    let first = App::start_at((own_address(), 0).into(), answer);
    let address = first.address();
    let mut app = Some(first);
    let _agent = Agent::serve(&address.to_string(), 4, &[at(&proxy)]);
    let is_answer = |_: &str, text: &str| text == "served";
    Load::run(&proxy, "GET", CLIENTS, is_answer, |load| {
        for _ in 0..RESTARTS {
            load.await_more(BETWEEN);
            drop(app.take());
            app = Some(App::start_at(address, answer));
        }
    });
}

/// Many applications that are told to listen on `localhost` choose one of its two addresses.
#[test]
fn port_alone_is_an_application_on_the_ipv6_loopback_too() {
    let proxy = Proxy::start();
    // At the other address somebody else could listen, who would be taken for it.
    let (_kept, port) = kept_port();
    let _app = App::start_at((Ipv6Addr::LOCALHOST, port).into(), |_| ok("served"));
    let _agent = Agent::serve(&port.to_string(), 2, &[at(&proxy)]);
    for _ in 0..3 {
        assert_eq!(Client::get(&proxy, "a.test", "/").read_response().text(), "served");
    }
}
