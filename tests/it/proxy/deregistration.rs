//! A backend that leaves tells the proxy, which closes the bridges from its own side: no request
//! crosses a close.

use crate::common::{
    ACK, Bridge, Client, Ending, Load, Message, Proxy, Setup, TOKEN, WELCOME, eventually,
};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};

const OTHER: &str = "fedcba9876543210fedcba9876543210";

const SECRETS: &str = "1600000000:second\n";
/// `printf '%s' second:1700000000:a.test | sha1sum`
const A_KEY: &str = "adb7c404c49597d34e253d48aba583c439491d84:1700000000:a.test";
const B_KEY: &str = "984629eac3ec2365a808dfc4d96533aead9df91a:1700000000:b.test";

fn registration(prefix: &str, host: &str, token: &str) -> String {
    format!("BRIDGE {prefix} HTTP/1.1\r\nHost: {host}\r\nCloudbridge-Backend: {token}\r\n\r\n")
}

/// A bridge of this token that is parked.
#[track_caller]
fn park(proxy: &Proxy, host: &str, token: &str) -> Bridge {
    let mut bridge = Bridge::connect(proxy);
    bridge.send(registration("/", host, token));
    bridge.expect_exact(WELCOME);
    bridge
}

/// What the proxy answers to a leave; it closes behind its answer.
#[track_caller]
fn leave_with(proxy: &Proxy, prefix: &str, host: &str, token: &str, more: &str) -> Message {
    Bridge::refused(
        proxy,
        format!(
            "BRIDGE {prefix} HTTP/1.1\r\nHost: {host}\r\n{more}Cloudbridge-Leave: {token}\r\n\r\n"
        ),
    )
}

#[track_caller]
fn leave(proxy: &Proxy, host: &str, token: &str) {
    let answer = leave_with(proxy, "/", host, token, "");
    assert_eq!(answer.status(), 200, "{answer:?}");
}

/// Fails unless the proxy sends its FIN and nothing else, and has seen ours then.
#[track_caller]
fn expect_fin(mut bridge: Bridge) {
    assert_eq!(bridge.expect_closed(), Ending::Closed);
}

fn leaves(proxy: &Proxy) -> u64 {
    proxy.info().number(&["counters", "leaves"])
}

#[test]
fn only_a_bridge_that_announces_itself_is_told_of_extensions_and_pings_are_plain() {
    let proxy = Proxy::with("ping-interval 1s");
    let mut announced = Bridge::connect(&proxy);
    announced.send(registration("/", "a.test", TOKEN));
    announced.expect_exact([WELCOME, ACK, ACK].concat());
    let mut plain = Bridge::connect(&proxy);
    plain.send("BRIDGE / HTTP/1.1\r\nHost: b.test\r\n\r\n");
    plain.expect_exact([ACK, ACK].concat());
    // The 101 and what follows are the same for both.
    let mut client = Client::get(&proxy, "a.test", "/");
    assert_eq!(announced.serve_to(&mut client, "served"), "GET / HTTP/1.1");
}

#[test]
fn a_malformed_token_is_refused_and_never_shown() {
    /// What the tokens begin with. No port and no time has it in it.
    const DIGITS: &str = "0123456789";
    let proxy = Proxy::with("log-level trace");
    for token in ["", DIGITS, &TOKEN.to_uppercase(), &format!("{TOKEN}0")] {
        let refusal = Bridge::refused(&proxy, registration("/", "a.test", token));
        assert_eq!(refusal.status(), 400, "{token:?}");
        let refusal = leave_with(&proxy, "/", "a.test", token, "");
        assert_eq!(refusal.status(), 400, "{token:?}");
    }
    let _bridge = park(&proxy, "a.test", TOKEN);
    leave(&proxy, "a.test", TOKEN);
    proxy.await_log("deregisters [\"a.test\"]");
    assert!(!proxy.log().contains(DIGITS), "{}", proxy.log());
    assert!(!format!("{:?}", proxy.info()).contains(DIGITS));
}

#[test]
fn leave_closes_parked_bridges_on_every_worker() {
    let proxy = Proxy::with("workers 4");
    let fresh: Vec<Bridge> = (0..16).map(|_| park(&proxy, "a.test", TOKEN)).collect();
    // Some have served before, and expect plain requests.
    let mut reused: Vec<Bridge> = (0..4).map(|_| park(&proxy, "r.test", TOKEN)).collect();
    let mut clients: Vec<Client> = (0..4).map(|_| Client::get(&proxy, "r.test", "/")).collect();
    // One that has answered could get the next request as well.
    reused.iter_mut().for_each(|bridge| _ = bridge.accept_request());
    reused.iter_mut().for_each(|bridge| bridge.respond("served"));
    clients.iter_mut().for_each(|client| assert_eq!(client.read_response().text(), "served"));
    proxy.await_count("b", 20);
    leave(&proxy, "a.test", TOKEN);
    fresh.into_iter().for_each(expect_fin);
    proxy.await_count("b", 4);
    leave(&proxy, "r.test", TOKEN);
    reused.into_iter().for_each(expect_fin);
    proxy.await_no_bridges();
    assert_eq!(leaves(&proxy), 2);
    // Their close lingers: each slot is free as soon as the peer has closed.
    proxy.await_count("E", 0);
}

#[test]
fn leave_closes_only_the_bridges_of_its_token_host_and_prefix() {
    let proxy = Proxy::start();
    let gone: Vec<Bridge> = (0..4).map(|_| park(&proxy, "a.test", TOKEN)).collect();
    let mut others = [
        park(&proxy, "a.test", OTHER),
        park(&proxy, "b.test", TOKEN),
        Bridge::park(&proxy, &["a.test"]),
    ];
    let mut below = Bridge::connect(&proxy);
    below.send(registration("/below", "a.test", TOKEN));
    below.expect_exact(WELCOME);
    leave(&proxy, "a.test", TOKEN);
    gone.into_iter().for_each(expect_fin);
    proxy.await_count("b", 4);
    let mut clients: Vec<Client> =
        ["a.test", "a.test", "b.test"].iter().map(|host| Client::get(&proxy, host, "/")).collect();
    // One that has answered could get the next request as well.
    others.iter_mut().for_each(|bridge| _ = bridge.accept_request());
    others.iter_mut().for_each(|bridge| bridge.respond("stays"));
    clients.iter_mut().for_each(|client| assert_eq!(client.read_response().text(), "stays"));
    let mut client = Client::get(&proxy, "a.test", "/below/it");
    assert_eq!(below.serve_to(&mut client, "stays"), "GET /below/it HTTP/1.1");
}

#[test]
fn leave_closes_a_busy_bridge_after_its_exchange() {
    let proxy = Proxy::start();
    let mut bridge = park(&proxy, "a.test", TOKEN);
    let mut client = Client::get(&proxy, "a.test", "/under-way");
    assert_eq!(bridge.accept_request().start, "GET /under-way HTTP/1.1");
    leave(&proxy, "a.test", TOKEN);
    let mut waiting = Client::get(&proxy, "a.test", "/next");
    proxy.await_count("c", 1);
    bridge.respond_to(&mut client, "finished");
    expect_fin(bridge);
    // Who waited is still there for another backend.
    let mut next = park(&proxy, "a.test", OTHER);
    assert_eq!(next.serve_to(&mut waiting, "next"), "GET /next HTTP/1.1");
}

#[test]
fn leave_lets_a_bridge_serve_the_request_of_its_101() {
    let proxy = Proxy::with("bridge-ack-timeout 10s");
    let mut bridge = park(&proxy, "a.test", TOKEN);
    let mut client = Client::get(&proxy, "a.test", "/promised");
    bridge.read_switch();
    leave(&proxy, "a.test", TOKEN);
    bridge.send(ACK);
    assert_eq!(bridge.accept_request().start, "GET /promised HTTP/1.1");
    bridge.respond_to(&mut client, "kept");
    expect_fin(bridge);
}

#[test]
fn leave_does_not_end_a_tunnel() {
    let proxy = Proxy::start();
    let mut bridge = park(&proxy, "a.test", TOKEN);
    let mut client = Client::request(
        &proxy,
        "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n",
    );
    bridge.accept_request();
    bridge.send("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n");
    assert_eq!(client.read_head().status(), 101);
    leave(&proxy, "a.test", TOKEN);
    client.send("ping");
    bridge.expect_exact("ping");
    bridge.send("pong");
    client.expect_exact("pong");
}

#[test]
fn leave_needs_the_key_of_its_host() {
    let proxy = Setup::new()
        .settings("secrets {dir}/secrets\nlisten 127.0.0.1:0 bridges\nlisten 127.0.0.1:0 clients")
        .file("secrets", SECRETS)
        .start();
    let mut bridge = Bridge::connect(&proxy);
    let keyed = format!(
        "BRIDGE / HTTP/1.1\r\nHost: a.test\r\nHost-Key: {A_KEY}\r\nCloudbridge-Backend: {TOKEN}\r\n\r\n"
    );
    bridge.send(keyed);
    bridge.expect_exact(WELCOME);
    for key in [String::new(), format!("Host-Key: {B_KEY}\r\n")] {
        let refusal = leave_with(&proxy, "/", "a.test", TOKEN, &key);
        assert_eq!(refusal.status(), 401, "{refusal:?}");
    }
    let mut client = Client::connect_to(proxy.for_clients());
    client.send(format!(
        "BRIDGE / HTTP/1.1\r\nHost: a.test\r\nHost-Key: {A_KEY}\r\nCloudbridge-Leave: {TOKEN}\r\n\r\n"
    ));
    assert_eq!(client.read_response().status(), 405);
    assert_eq!(leaves(&proxy), 0);
    let mut client = Client::get(&proxy, "a.test", "/");
    bridge.serve_to(&mut client, "still here");
    let answer = leave_with(&proxy, "/", "a.test", TOKEN, &format!("Host-Key: {A_KEY}\r\n"));
    assert_eq!(answer.status(), 200);
    expect_fin(bridge);
}

#[test]
fn a_registration_that_comes_after_its_leave_is_refused() {
    let proxy = Proxy::start();
    // Nobody has ever served the name: the leave came first.
    leave(&proxy, "a.test", TOKEN);
    // On whichever worker it arrives; the other one may not have heard yet, and then closes it when
    // it does.
    let late = |host: &str, token: &str| {
        let mut bridge = Bridge::connect(&proxy);
        bridge.send(registration("/", host, token));
        bridge
    };
    eventually("both workers know", || late("a.test", TOKEN).read_head().status() == 504);
    for _ in 0..8 {
        assert_eq!(late("a.test", TOKEN).read_refusal().status(), 504);
    }
    late("b.test", TOKEN).expect_exact(WELCOME);
    late("a.test", OTHER).expect_exact(WELCOME);
    Bridge::park(&proxy, &["a.test"]);
}

/// A bridge that has registered and not been accepted yet: the other worker does not know the
/// route, for it stands still.
#[test]
fn leave_at_the_same_time_as_registrations_closes_all_of_them() {
    for _ in 0..20 {
        let proxy = Proxy::start();
        proxy.freeze();
        let mut bridges: Vec<Bridge> = (0..8)
            .map(|_| {
                let mut bridge = Bridge::connect(&proxy);
                bridge.send(registration("/", "a.test", TOKEN));
                bridge
            })
            .collect();
        let mut leaving = Bridge::connect(&proxy);
        leaving.send(format!(
            "BRIDGE / HTTP/1.1\r\nHost: a.test\r\nCloudbridge-Leave: {TOKEN}\r\n\r\n"
        ));
        proxy.thaw();
        assert_eq!(leaving.read_head().status(), 200);
        for bridge in &mut bridges {
            let (bytes, ending) = bridge.read_to_end();
            assert_eq!(ending, Ending::Closed);
            let late = bytes.starts_with(b"HTTP/1.1 504 ");
            // Awaiting a route sync when the leave came: accepted, and then told that it came too
            // late.
            assert!(late || bytes == WELCOME, "{}", bytes.escape_ascii());
        }
        drop(bridges);
        proxy.await_no_bridges();
    }
}

#[test]
fn leave_is_accepted_while_the_proxy_drains() {
    let mut proxy = Proxy::with("drain-timeout 20s");
    let mut bridge = park(&proxy, "a.test", TOKEN);
    let mut client = Client::get(&proxy, "a.test", "/");
    bridge.accept_request();
    // A connection that has sent nothing would not be waited for.
    let mut leaving = Bridge::connect(&proxy);
    leaving.send("BRIDGE / HTTP/1.1\r\n");
    proxy.await_asleep();
    let address = proxy.for_clients();
    proxy.terminate();
    eventually("connections are refused", || TcpStream::connect(address).is_err());
    leaving.send(format!("Host: a.test\r\nCloudbridge-Leave: {TOKEN}\r\n\r\n"));
    assert_eq!(leaving.read_head().status(), 200);
    bridge.respond_to(&mut client, "finished");
    expect_fin(bridge);
    drop((client, leaving));
    assert!(proxy.wait_exit().success());
}

/// Backends come, serve and leave one after another under a load of POSTs, which nobody may repeat:
/// none is lost, none is done twice. Bridges move between the workers all the time, for there are
/// fewer of them than clients.
#[test]
fn leave_under_load_loses_no_request() {
    const CLIENTS: usize = 6;
    const BRIDGES: usize = 3;
    const GENERATIONS: usize = 100;
    /// Requests of each client that each generation serves at least.
    const BETWEEN: usize = 5;
    let proxy = Proxy::start();
    let done = AtomicUsize::new(0);
    let served = std::thread::scope(|scope| {
        let backend = |number: usize| {
            let token = format!("{number:032x}");
            let bridges: Vec<Bridge> =
                (0..BRIDGES).map(|_| park(&proxy, "a.test", &token)).collect();
            bridges.into_iter().for_each(|bridge| {
                let done = &done;
                scope.spawn(move || serve_until_closed(bridge, done));
            });
            token
        };
        let mut running = backend(0);
        let is_answer = |target: &str, text: &str| target == text;
        let served = Load::run(&proxy, "POST", CLIENTS, is_answer, |load| {
            for generation in 1..=GENERATIONS {
                load.await_more(BETWEEN);
                let next = backend(generation);
                leave(&proxy, "a.test", &running);
                running = next;
            }
        });
        leave(&proxy, "a.test", &running);
        served
    });
    assert_eq!(served, done.load(Ordering::SeqCst));
    assert_eq!(proxy.info().number(&["counters", "answered_502"]), 0);
}

/// Answers each request with its path, on one bridge, until the proxy closes it; counts them.
fn serve_until_closed(mut bridge: Bridge, done: &AtomicUsize) {
    let mut held = Vec::new();
    let mut switched = false;
    while let Some(bytes) = bridge.read_some(4096) {
        held.extend_from_slice(&bytes);
        while let Some(end) = held.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&held[..end]).into_owned();
            if head.starts_with("HTTP/1.1 100 ") {
                held.drain(..end + 4);
                continue;
            }
            if head.starts_with("HTTP/1.1 101 ") && !switched {
                held.drain(..end + 4);
                switched = true;
                bridge.send(ACK);
                continue;
            }
            if held.len() < end + 4 + 2 {
                break;
            }
            held.drain(..end + 4 + 2);
            let path = head.split(' ').nth(1).expect("a target").to_owned();
            done.fetch_add(1, Ordering::SeqCst);
            let length = path.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{path}");
            // A bridge that the proxy has closed already has had nothing to answer.
            bridge.send(answer);
        }
    }
    assert!(held.is_empty(), "half a request: {}", held.escape_ascii());
}
