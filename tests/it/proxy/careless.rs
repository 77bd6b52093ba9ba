//! Backends that answer without having read the request's body, and keep the connection: the rest
//! of the body is their next request, and its answer would be the next client's.

use crate::common::{Agent, Bridge, Client, Proxy, Wire, at, exchange, ok};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the proxy and the agent log when they have noticed one.
const NOTICED: &str = "without reading their bodies";

const EVIL: &str = "GET /evil HTTP/1.1\r\nHost: a.test\r\n\r\n";

fn attack() -> String {
    format!("POST /attack HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{EVIL}", EVIL.len())
}

/// A server that reads heads alone, and answers each with its path.
struct Careless {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Careless {
    fn start() -> Careless {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let accepted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&accepted);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counted.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    let mut wire = Wire::new(stream);
                    while let Some(line) = wire.read_request() {
                        let path = line.split(' ').nth(1).unwrap_or_default();
                        if !wire.send_if_open(ok(path)) {
                            return;
                        }
                    }
                });
            }
        });
        Careless { address, accepted }
    }
}

/// After the one attack that shows what the server does, no number of them poisons anybody.
#[track_caller]
fn only_one_attack_can_succeed(proxy: &Proxy, noticed: impl FnOnce()) {
    let mut attacker = Client::request(proxy, attack());
    assert_eq!(attacker.read_response().text(), "/attack");
    noticed();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut attacker = Client::connect(proxy);
                for _ in 0..100 {
                    attacker.send(attack());
                    assert_eq!(attacker.read_response().text(), "/attack");
                }
            });
        }
        for number in 0..4 {
            scope.spawn(move || {
                let mut victim = Client::connect(proxy);
                let path = format!("/{number}");
                for _ in 0..100 {
                    victim.send_get("a.test", &path);
                    assert_eq!(victim.read_response().text(), path);
                }
            });
        }
    });
}

#[test]
fn careless_server_that_is_dialled_mixes_no_answers_once_it_is_known() {
    let server = Careless::start();
    let proxy = Proxy::with(&format!("site a.test servers={}", server.address));
    only_one_attack_can_succeed(&proxy, || {
        proxy.await_log(NOTICED);
        proxy.await_log("a backend of a.test answers requests");
    });
}

#[test]
fn careless_application_of_an_agent_mixes_no_answers_once_it_is_known() {
    let server = Careless::start();
    let proxy = Proxy::start();
    let agent = Agent::serve(&server.address.to_string(), 4, &[at(&proxy)]);
    only_one_attack_can_succeed(&proxy, || agent.await_log(NOTICED));
}

/// Requests without a body are safe, and cost no connection.
#[test]
fn careless_server_keeps_its_connections_after_requests_without_a_body() {
    let server = Careless::start();
    let proxy = Proxy::with(&format!("workers 1\nsite a.test servers={}", server.address));
    let mut client = Client::request(&proxy, attack());
    assert_eq!(client.read_response().text(), "/attack");
    proxy.await_log(NOTICED);
    client.send_get("a.test", "/first");
    assert_eq!(client.read_response().text(), "/first");
    let before = server.accepted.load(Ordering::SeqCst);
    for _ in 0..10 {
        client.send_get("a.test", "/more");
        assert_eq!(client.read_response().text(), "/more");
    }
    assert_eq!(server.accepted.load(Ordering::SeqCst), before);
}

/// A bridge of a backend that is known to be careless is closed after a request with a body.
#[test]
fn stray_answer_that_a_client_has_got_is_noticed_by_the_one_behind_it() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut attacker = Client::request(&proxy, attack());
    bridge.accept_request();
    bridge.respond_to(&mut attacker, "attack");
    let mut victim = Client::get(&proxy, "a.test", "/victim");
    bridge.accept_request();
    // Nobody can tell it from the answer.
    bridge.respond_to(&mut victim, "evil");
    bridge.respond("victim");
    bridge.expect_closed();
    proxy.await_log(NOTICED);
    let mut next = Bridge::park(&proxy, &["a.test"]);
    exchange(&mut victim, &mut next);
    attacker.send(attack());
    next.serve_to(&mut attacker, "attack");
    next.expect_closed();
}

/// Fails unless a bridge of the route is used again after a request with a body.
#[track_caller]
fn assert_trusted(proxy: &Proxy, client: &mut Client) {
    let mut bridge = Bridge::park(proxy, &["a.test"]);
    client.send(attack());
    bridge.serve_to(client, "attack");
    exchange(client, &mut bridge);
    assert!(!proxy.log().contains(NOTICED), "{}", proxy.log());
}

#[test]
fn bytes_without_a_body_before_them_say_nothing_about_bodies() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = bridge.serve_first(&proxy);
    bridge.respond("stray");
    bridge.expect_closed();
    assert_trusted(&proxy, &mut client);
}

/// RFC 9110, section 15.5.9: some servers send it before they close an idle connection.
#[test]
fn unsolicited_408_says_nothing_about_bodies() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(&proxy, attack());
    bridge.accept_request();
    bridge.respond_to(&mut client, "attack");
    bridge.send("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n");
    bridge.expect_closed();
    assert_trusted(&proxy, &mut client);
}

/// The backend may close as soon as it has answered, or take the rest for its next request.
#[test]
fn bridge_that_answers_before_it_has_the_whole_request_is_closed_after_it() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(
        &proxy,
        "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n01234",
    );
    bridge.accept_head();
    bridge.expect_exact("01234");
    bridge.respond_to(&mut client, "early");
    client.send("56789");
    bridge.expect_exact("56789");
    bridge.expect_closed();
    // The client has been promised that its connection stays.
    exchange(&mut client, &mut Bridge::park(&proxy, &["a.test"]));
}
