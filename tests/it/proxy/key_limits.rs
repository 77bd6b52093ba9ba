//! `key-limits`: what a key, with all that are narrowed from it, may use.

use crate::common::{
    A_SECOND, Agent, B_SECOND, Bridge, Client, Proxy, Setup, Stopwatch, at, eventually, keyed,
    narrow, on_time, pattern, pattern_differs,
};
use std::time::{Duration, Instant};

#[track_caller]
fn guarded(settings: &str) -> Proxy {
    Setup::new()
        .settings(&format!("secrets {{dir}}/secrets\n{settings}\n"))
        .file("secrets", "1600000000:second\n")
        .start()
}

#[track_caller]
fn park(proxy: &Proxy, host: &str, key: &str) -> Bridge {
    Bridge::register(proxy, keyed(host, key))
}

#[test]
fn bridges_are_counted_for_a_key_and_all_that_are_narrowed_from_it() {
    let proxy = guarded("key-limits *.b.test bridges=2\nkey-limits b.test bridges=4");
    let alice = narrow(B_SECOND, &["--host", "alice.b.test"]);
    let one = park(&proxy, "alice.b.test", &alice);
    let _two = park(&proxy, "x.alice.b.test", &narrow(&alice, &["--host", "x.alice.b.test"]));
    let more = keyed("y.alice.b.test", &narrow(&alice, &["--host", "y.alice.b.test"]));
    let refusal = Bridge::refused(&proxy, &more);
    let text = "as many bridges as alice.b.test may have are connected: 2\n";
    assert_eq!((refusal.status(), refusal.text().as_str()), (503, text));
    assert_eq!(refusal.field("retry-after"), Some("5"));
    let _bob = park(&proxy, "bob.b.test", &narrow(B_SECOND, &["--host", "bob.b.test"]));
    let _owner = park(&proxy, "b.test", B_SECOND);
    let text = "as many bridges as b.test may have are connected: 4\n";
    assert_eq!(Bridge::refused(&proxy, keyed("b.test", B_SECOND)).text(), text);
    let _unlimited: Vec<Bridge> = (0..5).map(|_| park(&proxy, "a.test", A_SECOND)).collect();
    drop(one);
    eventually("there is room", || {
        let mut bridge = Bridge::connect(&proxy);
        bridge.send(&more);
        bridge.read_head().status() == 100
    });
}

#[test]
fn waiting_requests_of_a_key_are_bounded() {
    let proxy =
        guarded("workers 3\nkey-limits b.test waiting=2\nkey-limits a.test waiting=0 bridges=9");
    let mut bridge = park(&proxy, "b.test", B_SECOND);
    let mut busy = Client::get(&proxy, "b.test", "/busy");
    bridge.accept_request();
    let mut waiting = [1, 2].map(|_| Client::get(&proxy, "b.test", "/waits"));
    proxy.await_count("c", 2);
    for host in ["b.test", "b.test"] {
        let response = Client::get(&proxy, host, "/").read_response();
        assert_eq!((response.status(), response.field("retry-after")), (503, Some("5")));
        assert_eq!(response.text(), "too many requests wait for the backends of this name\n");
        let why = "cloudbridge; error=connection_limit_reached; details=\"key-queue-full\"";
        assert_eq!(response.field("proxy-status"), Some(why));
    }
    // Others wait as before, also those whose host nobody serves.
    let mut other = park(&proxy, "a.test", A_SECOND);
    let of_other = [1, 2, 3, 4].map(|_| Client::get(&proxy, "a.test", "/"));
    other.accept_request();
    let _unserved = [1, 2, 3].map(|_| Client::get(&proxy, "c.test", "/"));
    proxy.await_count("c", 2 + 3 + 3);
    bridge.respond_to(&mut busy, "first");
    bridge.accept_request();
    // One has a bridge, so one more may wait.
    proxy.await_count("c", 1 + 3 + 3);
    let mut third = Client::get(&proxy, "b.test", "/waits");
    proxy.await_count("c", 2 + 3 + 3);
    bridge.respond("second");
    for _ in 0..2 {
        bridge.serve("later");
    }
    let texts = waiting.each_mut().map(|client| client.read_response().text());
    assert!(texts.iter().any(|text| text == "second"), "{texts:?}");
    assert_eq!(third.read_response().text(), "later");
    other.respond("other");
    eventually("it is answered", || of_other.iter().any(|client| client.has_bytes()));
}

#[test]
fn a_client_that_goes_leaves_its_place() {
    let proxy = guarded("key-limits * waiting=1");
    let mut bridge = park(&proxy, "b.test", B_SECOND);
    let _busy = Client::get(&proxy, "b.test", "/");
    bridge.accept_request();
    let waiting = Client::get(&proxy, "b.test", "/");
    proxy.await_count("c", 1);
    assert_eq!(Client::get(&proxy, "b.test", "/").read_response().status(), 503);
    drop(waiting);
    proxy.await_count("c", 0);
    let _next = Client::get(&proxy, "b.test", "/");
    proxy.await_count("c", 1);
}

/// How many of so many requests at once are answered with 200 and with 429.
#[track_caller]
fn ask_at_once(proxy: &Proxy, host: &str, count: usize) -> (usize, usize) {
    let mut clients: Vec<Client> = (0..count).map(|_| Client::get(proxy, host, "/")).collect();
    let (mut served, mut refused) = (0, 0);
    for client in &mut clients {
        let response = client.read_response();
        match response.status() {
            200 => served += 1,
            429 => {
                refused += 1;
                assert_eq!(response.field("retry-after"), Some("1"));
                assert_eq!(response.text(), "too many requests a second for this name\n");
                let why = "cloudbridge; error=http_request_denied; details=\"key-rate\"";
                assert_eq!(response.field("proxy-status"), Some(why));
            }
            status => panic!("{status}: {response:?}"),
        }
    }
    (served, refused)
}

#[track_caller]
fn echo(proxy: &Proxy, host: &str, key: &str) -> Agent {
    let agent = Agent::start(&["--echo", "-n4", "--host", host, "--key", key, &at(proxy)]);
    proxy.await_count("b", 4);
    agent
}

#[test]
fn requests_a_second_are_bounded_over_all_workers() {
    let proxy = guarded("workers 3\nkey-limits *.b.test requests-per-second=5");
    let _agent = echo(&proxy, "x.b.test", &narrow(B_SECOND, &["--host", "x.b.test"]));
    let clock = Instant::now();
    let (served, refused) = ask_at_once(&proxy, "x.b.test", 60);
    let most = 5.0 + 5.0 * clock.elapsed().as_secs_f64();
    assert!(served >= 5 && served as f64 <= most, "{served} in {:?}", clock.elapsed());
    assert_eq!(served + refused, 60);
    let metrics = proxy.admin("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let line = format!("cloudbridge_refusals_total{{reason=\"key-rate\"}} {refused}\n");
    assert!(metrics.contains(&line), "{line}");
    // It is there again after a while.
    eventually("another is served", || ask_at_once(&proxy, "x.b.test", 1).0 == 1);
}

#[test]
fn sighup_limits_the_bridges_that_are_connected() {
    let proxy = guarded("workers 3\n# key-limits b.test requests-per-second=1");
    let agent = echo(&proxy, "b.test", B_SECOND);
    assert_eq!(ask_at_once(&proxy, "b.test", 20).0, 20);
    proxy.change_settings("# key-limits", "key-limits");
    proxy.reload_well();
    let clock = Instant::now();
    let (served, _) = ask_at_once(&proxy, "b.test", 40);
    assert!(served as f64 <= 1.0 + clock.elapsed().as_secs_f64(), "{served}");
    proxy.change_settings("# key-limits b.test requests-per-second=1", "");
    proxy.reload_well();
    assert_eq!(ask_at_once(&proxy, "b.test", 20).0, 20);
    drop(agent);
}

const KIB: usize = 1024;

/// A response of so many bytes, which `client` must get whole.
fn body(length: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    [head.into_bytes(), pattern(0, length)].concat()
}

#[track_caller]
fn read_whole(client: &mut Client, length: usize) {
    let response = client.read_response();
    assert_eq!(response.body.len(), length);
    assert_eq!(pattern_differs(0, &response.body), None);
}

#[test]
fn bytes_a_second_are_paced_over_all_exchanges_of_a_key() {
    const EACH: usize = 128 * KIB;
    let proxy = guarded("workers 3\nkey-limits b.test bytes-per-second=128k");
    let clock = Stopwatch::start();
    let mut bridges = [(); 3].map(|()| park(&proxy, "b.test", B_SECOND));
    let mut clients = [(); 3].map(|()| Client::get(&proxy, "b.test", "/"));
    for bridge in &mut bridges {
        bridge.accept_request();
        bridge.send(body(EACH));
    }
    std::thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(|| read_whole(client, EACH));
        }
    });
    // A second's worth at once, the rest at its pace; the last parts, an eighth of a second each, are
    // paid for when they have gone.
    clock.assert_passed(Duration::from_millis(1600));
    // Others are not held up.
    let mut other = park(&proxy, "a.test", A_SECOND);
    let mut client = Client::get(&proxy, "a.test", "/");
    other.accept_request();
    other.send(body(8 * EACH));
    read_whole(&mut client, 8 * EACH);
}

#[test]
fn what_goes_up_counts_with_what_goes_down_and_tunnels_too() {
    const PART: usize = 64 * KIB;
    // A tunnel that is silent for a second is closed.
    on_time(Duration::from_secs(1), || {
        let proxy =
            guarded("key-limits * bytes-per-second=64k\nbody-timeout 1s\ntunnel-timeout 1s");
        let clock = Stopwatch::start();
        let mut bridge = park(&proxy, "b.test", B_SECOND);
        let mut client = Client::request(
            &proxy,
            "GET / HTTP/1.1\r\nHost: b.test\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
        );
        bridge.accept_request();
        bridge
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
        assert_eq!(client.read_head().status(), 101);
        client.send(pattern(0, PART));
        assert_eq!(pattern_differs(0, &bridge.read_exactly(PART)), None);
        bridge.send(pattern(0, 2 * PART));
        assert_eq!(pattern_differs(0, &client.read_exactly(2 * PART)), None);
        clock.assert_passed(Duration::from_millis(1700));
    });
}

/// A peer that has gone is noticed while its exchange rests.
#[test]
fn a_client_that_goes_while_its_exchange_rests_is_noticed() {
    let proxy = guarded("key-limits * bytes-per-second=1k");
    let mut bridge = park(&proxy, "b.test", B_SECOND);
    let mut client = Client::get(&proxy, "b.test", "/");
    bridge.accept_request();
    bridge.send(body(512 * KIB));
    assert_eq!(client.read_head().status(), 200);
    client.read_exactly(512);
    drop(client);
    // Minutes before it would have been sent.
    bridge.expect_closed();
    proxy.await_no_bridges();
}

/// What they pay for in advance is about what they move.
#[test]
fn small_exchanges_do_not_wait_for_large_parts() {
    let proxy = guarded("workers 3\nkey-limits b.test bytes-per-second=64k");
    let agent =
        Agent::start(&["--echo", "-n16", "--host", "b.test", "--key", B_SECOND, &at(&proxy)]);
    let mut bridge = park(&proxy, "x.b.test", B_SECOND);
    proxy.await_count("b", 17);
    // Uses all that there is at once.
    let mut large = Client::get(&proxy, "x.b.test", "/");
    bridge.accept_request();
    bridge.send(body(80 * KIB));
    read_whole(&mut large, 80 * KIB);
    let clock = Instant::now();
    // A few hundred bytes each: in parts of an eighth of a second they would take eight seconds.
    let mut clients: Vec<Client> = (0..64).map(|_| Client::get(&proxy, "b.test", "/")).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.read_response().status(), 200));
    assert!(clock.elapsed() < Duration::from_secs(5), "{:?}", clock.elapsed());
    drop(agent);
}

/// A bridge without limits does not lift those of the others of its host.
#[test]
fn a_key_without_limits_lifts_no_limits_of_others() {
    let proxy = guarded("workers 3\nkey-limits x.b.test requests-per-second=1");
    let _agent = echo(&proxy, "x.b.test", &narrow(B_SECOND, &["--host", "x.b.test"]));
    let _unlimited = park(&proxy, "x.b.test", B_SECOND);
    proxy.await_count("b", 5);
    let mut clients: Vec<Client> = (0..20).map(|_| Client::get(&proxy, "x.b.test", "/")).collect();
    eventually("one is refused", || clients.iter().any(|client| client.has_bytes()));
    let refused =
        |client: &mut Client| client.has_bytes() && client.read_response().status() == 429;
    eventually("one is refused", || clients.iter_mut().any(refused));
}

#[test]
fn a_backend_that_closes_while_its_exchange_rests_is_noticed() {
    let proxy = guarded("key-limits * bytes-per-second=1k");
    let mut bridge = park(&proxy, "b.test", B_SECOND);
    let mut client = Client::get(&proxy, "b.test", "/");
    bridge.accept_request();
    bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n");
    bridge.send(pattern(0, 2 * KIB));
    assert_eq!(client.read_head().status(), 200);
    drop(bridge);
    let (rest, _) = client.read_to_end();
    // What it had sent before its FIN is sent on first, at its pace.
    assert_eq!((rest.len(), pattern_differs(0, &rest)), (2 * KIB, None));
    proxy.await_no_bridges();
}
