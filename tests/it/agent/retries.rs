//! A request that an application may have seen is repeated by the proxy alone, and counted there.

use crate::common::{
    ACK, Agent, App, Client, Played, Proxy, SWITCH, Seen, WELCOME, at, eventually, ok,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const GET: &str = "GET /die HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// What a proxy says that counts the repeats.
const COUNTS: &str = "HTTP/1.1 100 Continue\r\n\
    Cloudbridge-Extensions: leave, undelivered, receipts, retries\r\n\r\n";

/// An application that ends its connection when it is asked for `/die`, and counts how often it is.
fn mortal(deaths: &Arc<AtomicUsize>) -> App {
    let deaths = Arc::clone(deaths);
    App::start(move |seen| {
        if seen.head.contains(" /die") {
            deaths.fetch_add(1, Ordering::SeqCst);
            return Vec::new();
        }
        ok("alive")
    })
}

#[test]
fn request_that_kills_its_server_is_executed_twice_and_a_post_once() {
    let proxy = Proxy::start();
    let deaths = Arc::new(AtomicUsize::new(0));
    let apps = [(); 3].map(|()| mortal(&deaths));
    let _agents = apps.each_ref().map(|app| Agent::serve(&app.to(), 2, &[at(&proxy)]));
    proxy.await_count("b", 6);
    for (method, executions) in [("GET", 2), ("PUT", 2), ("DELETE", 2), ("POST", 1)] {
        // Over bridges and connections that are fresh, and over those that are not.
        for _ in 0..3 {
            deaths.store(0, Ordering::SeqCst);
            let request =
                format!("{method} /die HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi");
            let mut client = Client::request(&proxy, request);
            client.read_response().assert_own_reply(502);
            assert_eq!(deaths.load(Ordering::SeqCst), executions, "{method}");
            for _ in 0..6 {
                assert_eq!(Client::get(&proxy, "a.test", "/").read_response().text(), "alive");
            }
        }
    }
}

/// An application that fails with the first request that has a body, and answers the second.
fn fails_once() -> App {
    let seen = AtomicUsize::new(0);
    App::start(move |request: &Seen| match seen.fetch_add(1, Ordering::SeqCst) {
        0 => Vec::new(),
        _ => ok(request.body.len().to_string()),
    })
}

/// The agent keeps less of a request than the proxy may.
#[test]
fn large_request_is_repeated_as_the_proxy_allows() {
    for (settings, method) in [("retry-limit 200k", "PUT"), ("site a.test redeploy=200k", "POST")] {
        let proxy = Proxy::with(settings);
        let app = fails_once();
        let _agent = Agent::serve(&app.to(), 1, &[at(&proxy)]);
        proxy.await_count("b", 1);
        let body = "x".repeat(100_000);
        let mut client = Client::request(
            &proxy,
            format!("{method} / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n{body}"),
        );
        let response = client.read_response();
        assert_eq!((response.status(), response.text().as_str()), (200, "100000"), "{method}");
    }
}

#[test]
fn bridge_ends_without_an_answer_if_the_proxy_counts() {
    let proxy = Played::start();
    let deaths = Arc::new(AtomicUsize::new(0));
    let app = mortal(&deaths);
    let _agent = Agent::serve(&app.to(), 1, &[proxy.at()]);
    for round in 1..=2 {
        let (mut bridge, _) = proxy.bridge();
        bridge.send(COUNTS);
        bridge.send(SWITCH);
        bridge.expect_exact(ACK);
        bridge.send(GET);
        bridge.expect_closed();
        assert_eq!(deaths.load(Ordering::SeqCst), round);
    }
}

/// Such a proxy would send it to one agent after the other.
#[test]
fn request_is_repeated_once_and_answered_if_the_proxy_does_not_count() {
    let proxy = Played::start();
    let deaths = Arc::new(AtomicUsize::new(0));
    let app = mortal(&deaths);
    let _agent = Agent::serve(&app.to(), 1, &[proxy.at()]);
    let (mut bridge, _) = proxy.bridge();
    bridge.send(WELCOME);
    bridge.send(SWITCH);
    bridge.expect_exact(ACK);
    bridge.send(GET);
    assert_eq!(bridge.read_head().status(), 502);
    assert_eq!(deaths.load(Ordering::SeqCst), 2);
}

/// An application that has restarted has closed all of its old connections, and a repeat must not
/// meet the next of them.
#[test]
fn repeat_at_the_same_agent_takes_a_new_connection() {
    let proxy = Proxy::start();
    let app = App::start(|seen| match (seen.connection, seen.head.contains(" /second")) {
        (1..=3, true) => Vec::new(),
        _ => ok(seen.connection.to_string()),
    });
    let _agent = Agent::serve(&app.to(), 3, &[at(&proxy)]);
    proxy.await_count("b", 3);
    let hold = app.hold();
    let mut clients: Vec<Client> =
        (0..3).map(|_| Client::get(&proxy, "a.test", "/first")).collect();
    eventually("three connections are used", || app.connections() == 3);
    drop(hold);
    for client in &mut clients {
        assert!(["1", "2", "3"].contains(&client.read_response().text().as_str()));
    }
    clients[0].send_get("a.test", "/second");
    assert_eq!(clients[0].read_response().text(), "4");
}
