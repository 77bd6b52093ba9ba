//! A backend of several proxies says how many of its bridges may have a request at once, gives back
//! what crosses that, and is told how long requests wait.

use super::upgrade::{Upgraded, await_end};
use crate::common::{
    ACK, Bridge, Client, Json, Message, Proxy, SWITCH, TOKEN, Wire, eventually, let_pass, on_time,
};
use std::time::{Duration, Instant};

/// Says that the backend does all this.
const USES: &str = "Cloudbridge-Extensions: undelivered, places\r\n";

const PAY: &str = "POST /pay HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\n100";

/// A bridge of the backend that says how many places it has.
#[track_caller]
fn parked(proxy: &Proxy) -> Bridge {
    Bridge::with_token(proxy, USES, "leave, undelivered, places")
}

/// Another backend's bridge, once it is parked.
#[track_caller]
fn of_other(proxy: &Proxy) -> Bridge {
    let before = slots(proxy).0;
    let bridge = Bridge::park(proxy, &["a.test"]);
    eventually("it is parked", || slots(proxy).0 == before + 1);
    bridge
}

fn places(limit: u32, at: u64) -> String {
    format!("HTTP/1.1 102 Processing\r\nCloudbridge-Places: {limit}; at={at}; by={TOKEN}\r\n\r\n")
}

fn given_back(limit: u32, at: u64) -> String {
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nCloudbridge-Undelivered: places\r\n\
         Cloudbridge-Places: {limit}; at={at}; by={TOKEN}\r\nContent-Length: 0\r\n\r\n"
    )
}

/// Bridges parked that get requests, and those that are withdrawn.
#[track_caller]
fn slots(proxy: &Proxy) -> (u64, u64) {
    let info = proxy.info();
    let number = |name| info.number(&["totals", name]);
    (number("parked"), number("withdrawn"))
}

#[track_caller]
fn await_slots(proxy: &Proxy, free: u64, withdrawn: u64) {
    eventually(&format!("{free} free and {withdrawn} withdrawn"), || {
        slots(proxy) == (free, withdrawn)
    });
}

#[track_caller]
fn given_back_so_far(proxy: &Proxy) -> u64 {
    let info = proxy.info();
    assert_eq!(info.number(&["counters", "retries"]), 0, "that is no retry");
    info.number(&["counters", "given_back"])
}

/// How long the backend is told that the oldest request has waited; `None` if none waits.
fn told(head: &Message) -> Option<u64> {
    told_at(head).0
}

/// The same with the number of the message.
fn told_at(head: &Message) -> (Option<u64>, u64) {
    assert!(head.start == "HTTP/1.1 100 Continue", "{head:?}");
    let value = head.field("cloudbridge-waiting").expect("the field");
    let (waited, at) = value.split_once("; at=").expect("both parts");
    assert!(at.len() <= 19, "{value}");
    let waited = (waited != "none").then(|| waited.parse().expect("milliseconds"));
    (waited, at.parse().expect("a number"))
}

/// The next message about requests that wait, over any of these bridges.
#[track_caller]
fn next_told(bridges: &mut [Bridge]) -> (Option<u64>, u64) {
    let mut telling = None;
    eventually("it is told", || {
        telling = bridges.iter().position(|bridge| bridge.has_bytes());
        telling.is_some()
    });
    told_at(&bridges[telling.unwrap()].read_head())
}

/// The next head that is neither a ping nor about requests that wait.
#[track_caller]
fn next(bridge: &mut Bridge) -> Message {
    loop {
        let head = bridge.read_head();
        if head.head != ACK && !head.has("cloudbridge-waiting") {
            return head;
        }
    }
}

/// Takes the next request, behind its 101 if there is one.
#[track_caller]
fn take(bridge: &mut Bridge) -> Message {
    let mut head = next(bridge);
    if head.head == SWITCH {
        bridge.send(ACK);
        head = next(bridge);
    }
    bridge.read_body(&mut head, false);
    head
}

/// Takes the next request that comes over any of these bridges, and says over which.
#[track_caller]
fn take_any(bridges: &mut [Bridge]) -> (usize, Message) {
    let mut taken = None;
    eventually("a request", || {
        for (at, bridge) in bridges.iter_mut().enumerate() {
            if !bridge.has_bytes() {
                continue;
            }
            let mut head = bridge.read_head();
            if head.head == SWITCH {
                bridge.send(ACK);
                head = next(bridge);
            }
            if !head.start.starts_with("HTTP/") {
                bridge.read_body(&mut head, false);
                taken = Some((at, head));
                return true;
            }
        }
        false
    });
    taken.expect("a request")
}

#[track_caller]
fn assert_no_request(bridges: &mut [Bridge]) {
    for bridge in bridges {
        while bridge.has_bytes() {
            let head = bridge.read_head();
            assert!(head.has("cloudbridge-waiting") || head.head == ACK, "{head:?}");
        }
    }
}

/// The bridge has served, and is parked: what it gets next is a request.
#[track_caller]
fn reused(proxy: &Proxy) -> (Bridge, Client) {
    let mut bridge = parked(proxy);
    let client = bridge.serve_first(proxy);
    await_slots(proxy, 1, 0);
    (bridge, client)
}

#[test]
fn only_so_many_bridges_have_a_request_until_the_bound_is_lifted() {
    let proxy = Proxy::start();
    let mut bridges = [(); 3].map(|()| parked(&proxy));
    await_slots(&proxy, 3, 0);
    bridges[0].send(places(1, 1));
    await_slots(&proxy, 1, 2);
    let mut clients = [(); 3].map(|()| Client::get(&proxy, "a.test", "/"));
    proxy.await_count("c", 2);
    let (busy, _) = take_any(&mut bridges);
    await_slots(&proxy, 0, 2);
    // Over another bridge, and while one is busy: it counts.
    bridges[(busy + 1) % 3].send(places(2, 2));
    proxy.await_count("c", 1);
    let (second, _) = take_any(&mut bridges);
    assert_ne!(second, busy);
    await_slots(&proxy, 0, 1);
    bridges[busy].respond("one");
    let (third, _) = take_any(&mut bridges);
    bridges[second].respond("two");
    bridges[third].respond("three");
    let mut answers = clients.each_mut().map(|client| client.read_response().text());
    answers.sort();
    assert_eq!(answers, ["one", "three", "two"]);
    await_slots(&proxy, 2, 1);
    bridges[0].send(places(1_000, 3));
    await_slots(&proxy, 3, 0);
}

#[test]
fn a_bound_of_none_leaves_requests_to_others() {
    let proxy = Proxy::start();
    let mut bridges = [(); 2].map(|()| parked(&proxy));
    await_slots(&proxy, 2, 0);
    bridges[0].send(places(0, 1));
    await_slots(&proxy, 0, 2);
    let mut other = of_other(&proxy);
    for _ in 0..3 {
        other.serve_to(&mut Client::get(&proxy, "a.test", "/"), "other");
        await_slots(&proxy, 1, 2);
    }
    assert_no_request(&mut bridges);
}

#[test]
fn only_a_later_message_counts() {
    let proxy = Proxy::start();
    let mut bridges = [(); 2].map(|()| parked(&proxy));
    await_slots(&proxy, 2, 0);
    bridges[0].send(places(1, 7));
    await_slots(&proxy, 1, 1);
    for at in [7, 6, 0] {
        bridges[0].send(places(2, at));
        bridges[1].send(places(0, at));
    }
    // Behind them on the same bridge: they have been read.
    bridges[0].send(places(1, 8));
    bridges[1].send(places(1, 9));
    let mut clients = [(); 2].map(|()| Client::get(&proxy, "a.test", "/"));
    let (busy, _) = take_any(&mut bridges);
    bridges[busy].respond("first");
    let (busy, _) = take_any(&mut bridges);
    bridges[busy].respond("second");
    clients.iter_mut().for_each(|client| assert_eq!(client.read_response().status(), 200));
    await_slots(&proxy, 1, 1);
}

#[test]
fn a_parked_bridge_that_says_anything_else_is_closed() {
    let proxy = Proxy::start();
    for bytes in [
        places(0, 1).replace("by=0", "by=1"),
        places(0, 1).replace("; at", ";at"),
        places(0, 1).replace("102", "103"),
        places(0, 1) + "x",
        "HTTP/1.1 200 OK\r\n\r\n".to_owned(),
    ] {
        let mut bridge = parked(&proxy);
        await_slots(&proxy, 1, 0);
        bridge.send(&bytes);
        bridge.expect_closed();
        await_slots(&proxy, 0, 0);
    }
}

#[test]
fn a_backend_that_has_not_announced_places_may_say_nothing() {
    let proxy = Proxy::start();
    let fields = "Cloudbridge-Extensions: undelivered, probes\r\n";
    let mut bridge = Bridge::with_token(&proxy, fields, "leave, undelivered, probes");
    let mut client = bridge.serve_first(&proxy);
    client.send(PAY);
    // No field of this extension, and a message is what it was.
    let request = bridge.accept_request();
    assert!(!request.has("cloudbridge-held"), "{request:?}");
    bridge.send(places(0, 1));
    let interim = client.read_response();
    assert_eq!(interim.status(), 102);
    assert!(!interim.has("cloudbridge-places"), "{interim:?}");
    bridge.respond_to(&mut client, "paid");
    // The 503 is an ordinary report.
    client.send(PAY);
    bridge.accept_request();
    bridge.send(given_back(0, 2));
    bridge.expect_closed();
    let mut other = Bridge::park(&proxy, &["a.test"]);
    other.serve_to(&mut client, "other");
    let mut bridge = Bridge::with_token(&proxy, fields, "leave, undelivered, probes");
    bridge.send(places(0, 3));
    bridge.expect_closed();
}

#[test]
fn a_request_that_is_given_back_goes_to_another_bridge_at_once_and_the_bridge_stays() {
    let proxy = Proxy::start();
    for (number, request) in (0..).zip([
        "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        PAY,
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n100\r\n0\r\n\r\n",
    ]) {
        let (mut bridge, mut client) = reused(&proxy);
        client.send(request);
        let first = take(&mut bridge);
        let mut other = of_other(&proxy);
        let at = 18 + 2 * number;
        bridge.send(given_back(0, at));
        let second = other.accept_request();
        assert_eq!((&second.head, &second.body), (&first.head, &first.body));
        other.respond_to(&mut client, "served");
        assert_eq!(given_back_so_far(&proxy), number + 1);
        drop(other);
        await_slots(&proxy, 0, 1);
        // It is as good as before.
        bridge.send(places(1, at + 1));
        await_slots(&proxy, 1, 0);
        client.send(PAY);
        assert_eq!(take(&mut bridge).text(), "100");
        bridge.respond_to(&mut client, "paid");
        drop(bridge);
        proxy.await_no_bridges();
    }
}

#[test]
fn a_request_that_is_given_back_keeps_its_place_in_the_queue() {
    let proxy = Proxy::with("workers 1");
    let (mut bridge, mut client) = reused(&proxy);
    client.send(PAY);
    take(&mut bridge);
    let mut later = Client::get(&proxy, "a.test", "/later");
    proxy.await_count("c", 1);
    bridge.send(given_back(0, 1));
    proxy.await_count("c", 2);
    let mut other = Bridge::park(&proxy, &["a.test"]);
    assert_eq!(other.serve("paid"), "POST /pay HTTP/1.1");
    assert_eq!(other.serve("later"), "GET /later HTTP/1.1");
    assert_eq!(
        (client.read_response().text(), later.read_response().text()),
        ("paid".into(), "later".into())
    );
}

/// Again and again: it is no failure.
#[test]
fn a_request_may_be_given_back_many_times() {
    let proxy = Proxy::start();
    let (mut bridge, mut client) = reused(&proxy);
    client.send(PAY);
    for at in 1..=120 {
        take(&mut bridge);
        bridge.send(given_back(0, 2 * at));
        proxy.await_count("c", 1);
        bridge.send(places(1, 2 * at + 1));
    }
    assert_eq!(take(&mut bridge).text(), "100");
    assert_eq!(given_back_so_far(&proxy), 120);
    bridge.respond_to(&mut client, "paid");
}

/// A backend of this number, with its own token.
#[track_caller]
fn of_backend(proxy: &Proxy, number: u32) -> Bridge {
    let mut bridge = Bridge::connect(proxy);
    bridge.send(format!(
        "BRIDGE / HTTP/1.1\r\nHost: a.test\r\nCloudbridge-Backend: {number:032x}\r\n{USES}\r\n"
    ));
    assert!(bridge.read_head().has("cloudbridge-extensions"));
    bridge
}

#[test]
fn a_request_waits_however_many_backends_have_no_place() {
    const BACKENDS: u32 = 150;
    let proxy = Proxy::with("bridges-per-host 1000");
    let mut bridges: Vec<_> = (1..=BACKENDS).map(|number| of_backend(&proxy, number)).collect();
    await_slots(&proxy, BACKENDS.into(), 0);
    let mut client = Client::request(&proxy, PAY);
    let mut left: Vec<usize> = (0..bridges.len()).collect();
    let of = |answer: String, number: usize| answer.replace(TOKEN, &format!("{:032x}", number + 1));
    while !left.is_empty() {
        let mut asked = None;
        eventually("the next is asked", || {
            asked = left.iter().position(|at| bridges[*at].has_bytes());
            asked.is_some()
        });
        let number = left.remove(asked.unwrap());
        assert_eq!(next(&mut bridges[number]).head, SWITCH);
        bridges[number].send(of(given_back(0, 1), number));
    }
    await_slots(&proxy, 0, BACKENDS.into());
    proxy.await_count("c", 1);
    bridges[70].send(of(places(1, 2), 70));
    let mut request = next(&mut bridges[70]);
    bridges[70].read_body(&mut request, false);
    bridges[70].respond_to(&mut client, "paid");
    assert_eq!(given_back_so_far(&proxy), u64::from(BACKENDS));
}

/// It says that it has a place, and has none: it must not get the request again at once, and again.
#[test]
fn a_backend_that_contradicts_itself_gets_the_request_more_and_more_rarely() {
    let proxy = Proxy::start();
    let (mut bridge, mut client) = reused(&proxy);
    client.send(PAY);
    let began = Instant::now();
    for at in 1..=4 {
        take(&mut bridge);
        bridge.send(given_back(1, at));
    }
    assert_eq!(take(&mut bridge).text(), "100");
    assert!(began.elapsed() >= Duration::from_millis(10 + 20 + 40 + 80), "{:?}", began.elapsed());
    bridge.respond_to(&mut client, "paid");
    assert_eq!(given_back_so_far(&proxy), 4);
    // The next request has nothing to do with that; and a message ends the rest.
    await_slots(&proxy, 1, 0);
    client.send(PAY);
    for (so_far, at) in (5..).zip([5, 7, 9, 11, 13, 15, 17, 19, 21, 23]) {
        take(&mut bridge);
        bridge.send(given_back(1, at));
        // The request itself waits for some milliseconds only.
        eventually("it rests", || given_back_so_far(&proxy) == so_far);
        bridge.send(places(1, at + 1));
    }
    assert_eq!(take(&mut bridge).text(), "100");
    bridge.respond_to(&mut client, "paid");
}

/// In the end its bridges have failed.
#[test]
fn a_request_that_is_given_back_without_end_is_answered() {
    let proxy = Proxy::with("bridges-per-host 1000");
    let mut bridges: Vec<_> = (1..=130).map(|number| of_backend(&proxy, number)).collect();
    await_slots(&proxy, 130, 0);
    let mut client = Client::get(&proxy, "a.test", "/");
    let mut asked = 0;
    while !client.has_bytes() {
        for (number, bridge) in bridges.iter_mut().enumerate() {
            if bridge.has_bytes() {
                bridge.read_head();
                let token = format!("{:032x}", number + 1);
                bridge.send(given_back(9, asked + 1).replace(TOKEN, &token));
                asked += 1;
            }
        }
        assert!(asked < 200, "it does not end");
    }
    assert_eq!(client.read_response().status(), 502);
    let info = proxy.info();
    assert_eq!(info.number(&["counters", "given_back"]), 100);
}

#[test]
fn a_101_is_given_back_before_anything_was_sent_and_counts_as_acknowledged() {
    let proxy = Proxy::start();
    let mut bridge = parked(&proxy);
    await_slots(&proxy, 1, 0);
    let mut client = Client::request(&proxy, PAY);
    assert_eq!(next(&mut bridge).head, SWITCH);
    let mut other = of_other(&proxy);
    // A message may come before it.
    bridge.send(places(1, 17) + &given_back(0, 18));
    other.serve_to(&mut client, "other");
    await_slots(&proxy, 1, 1);
    drop(other);
    await_slots(&proxy, 0, 1);
    client.send(PAY);
    proxy.await_count("c", 1);
    bridge.send(places(1, 19));
    // Without a 101.
    let mut request = next(&mut bridge);
    assert_eq!(request.start, "POST /pay HTTP/1.1");
    bridge.read_body(&mut request, false);
    bridge.respond_to(&mut client, "paid");
    assert_eq!(given_back_so_far(&proxy), 1);
}

#[test]
fn a_report_without_valid_places_closes_the_bridge_as_before() {
    let proxy = Proxy::start();
    for report in [
        given_back(0, 1).replace("by=0", "by=1"),
        given_back(0, 1).replace("places\r", "application\r"),
        given_back(0, 1).replace("Length: 0\r\n\r\n", "Length: 1\r\n\r\nx"),
    ] {
        let (mut bridge, mut client) = reused(&proxy);
        client.send(PAY);
        take(&mut bridge);
        bridge.send(&report);
        bridge.expect_closed();
        let mut other = Bridge::park(&proxy, &["a.test"]);
        other.serve_to(&mut client, "other");
        drop(other);
        proxy.await_no_bridges();
    }
    let info = proxy.info();
    assert_eq!(info.number(&["counters", "retries"]), 3);
    assert_eq!(info.number(&["counters", "given_back"]), 0);
}

/// The bridge ends, as after every early response, but the request goes on.
#[test]
fn a_request_that_is_given_back_before_it_was_sent_whole_costs_the_bridge() {
    let proxy = Proxy::start();
    let (mut bridge, mut client) = reused(&proxy);
    client.send("POST /pay HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\n1");
    let head = next(&mut bridge);
    assert!(!head.has("cloudbridge-held"), "it is small: {head:?}");
    bridge.expect_exact("1");
    bridge.send(given_back(0, 1));
    bridge.expect_closed();
    client.send("00");
    let mut other = Bridge::park(&proxy, &["a.test"]);
    assert_eq!(other.accept_request().text(), "100");
    other.respond_to(&mut client, "paid");
    assert_eq!(given_back_so_far(&proxy), 1);
}

#[test]
fn a_request_that_cannot_be_given_back_says_so_to_this_backend_alone() {
    let proxy = Proxy::start();
    let chunked =
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n100\r\n";
    let large = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n";
    let rest = "x".repeat(100_000);
    let (mut bridge, mut client) = reused(&proxy);
    for (request, rest) in [(chunked, "0\r\n\r\n"), (large, &*rest)] {
        client.send(request);
        let mut head = next(&mut bridge);
        assert_eq!(head.all("cloudbridge-held"), ["no"], "{head:?}");
        client.send(rest);
        bridge.read_body(&mut head, false);
        bridge.respond_to(&mut client, "served");
    }
    // The same behind a 101, and what a client says of it means nothing.
    drop(bridge);
    await_slots(&proxy, 0, 0);
    let mut bridge = parked(&proxy);
    client.send(chunked.replace("Host", "Cloudbridge-Held: yes\r\nHost"));
    let head = {
        assert_eq!(next(&mut bridge).head, SWITCH);
        bridge.send(ACK);
        next(&mut bridge)
    };
    assert_eq!(head.all("cloudbridge-held"), ["no"], "{head:?}");
    bridge.expect_exact("3\r\n100\r\n");
    drop((bridge, client));
    await_slots(&proxy, 0, 0);
    let mut other = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(&proxy, chunked);
    let head = other.accept_head();
    assert!(!head.has("cloudbridge-held"), "{head:?}");
    client.send("0\r\n\r\n");
    other.expect_exact("3\r\n100\r\n0\r\n\r\n");
    other.respond_to(&mut client, "served");
}

#[test]
fn a_backend_without_places_is_told_how_long_requests_wait() {
    let proxy = Proxy::start();
    let mut bridges = [(); 2].map(|()| parked(&proxy));
    await_slots(&proxy, 2, 0);
    bridges[0].send(places(0, 1));
    await_slots(&proxy, 0, 2);
    let clock = Instant::now();
    let client = Client::get(&proxy, "a.test", "/");
    // Over one of them, and at once.
    let mut telling = None;
    eventually("it is told", || {
        telling = bridges.iter().position(|bridge| bridge.has_bytes());
        telling.is_some()
    });
    let telling = &mut bridges[telling.unwrap()];
    let waited = told(&telling.read_head());
    let since = clock.elapsed().as_millis();
    assert!(waited.is_some_and(|waited| u128::from(waited) <= since), "{waited:?} of {since}");
    // The client goes: none waits any more.
    drop(client);
    assert_eq!(told(&telling.read_head()), None);
    // The next one is told anew, and its end is the beginning of the one behind it.
    let mut first = Client::get(&proxy, "a.test", "/first");
    assert!(told(&telling.read_head()).is_some());
    let mut second = Client::get(&proxy, "a.test", "/second");
    proxy.await_count("c", 2);
    let mut other = Bridge::park(&proxy, &["a.test"]);
    other.serve("first");
    other.accept_request();
    // Of the second, if it was still waiting when it was looked at; and then of none.
    while told(&telling.read_head()).is_some() {}
    other.respond("second");
    assert_eq!(first.read_response().status(), 200);
    assert_eq!(second.read_response().status(), 200);
}

/// Without probes, what reads it between two requests may expect nothing but the next one.
#[test]
fn a_bridge_that_has_been_sent_its_101_is_told_only_if_it_knows_probes() {
    for (uses, is_told) in [("undelivered, places", false), ("undelivered, probes, places", true)] {
        let proxy = Proxy::start();
        let field = format!("Cloudbridge-Extensions: {uses}\r\n");
        let mut bridge = Bridge::with_token(&proxy, &field, &format!("leave, {uses}"));
        let mut client = bridge.serve_first(&proxy);
        await_slots(&proxy, 1, 0);
        bridge.send(places(0, 1));
        await_slots(&proxy, 0, 1);
        client.send_get("a.test", "/second");
        proxy.await_count("c", 1);
        if is_told {
            assert!(told(&bridge.read_head()).is_some());
        }
        bridge.send(places(1, 2));
        let request = if is_told { take(&mut bridge) } else { bridge.accept_request() };
        assert_eq!(request.start, "GET /second HTTP/1.1");
        bridge.respond_to(&mut client, "second");
    }
}

#[test]
fn a_backend_with_places_is_told_nothing() {
    let proxy = Proxy::start();
    let mut bridge = parked(&proxy);
    await_slots(&proxy, 1, 0);
    let mut clients = [(); 2].map(|()| Client::get(&proxy, "a.test", "/"));
    bridge.accept_request();
    proxy.await_count("c", 1);
    bridge.respond("one");
    // The next thing that comes is the request.
    assert_eq!(bridge.accept_request().start, "GET / HTTP/1.1");
    bridge.respond("two");
    clients.iter_mut().for_each(|client| assert_eq!(client.read_response().status(), 200));
}

#[test]
fn messages_during_an_exchange_count_and_the_client_sees_nothing_of_them() {
    let proxy = Proxy::start();
    let mut bridges = [(); 2].map(|()| parked(&proxy));
    await_slots(&proxy, 2, 0);
    let mut client = Client::get(&proxy, "a.test", "/");
    let (busy, _) = take_any(&mut bridges);
    bridges[busy].send(places(1, 1));
    await_slots(&proxy, 0, 1);
    bridges[busy].send(places(2, 2) + &places(3, 3));
    await_slots(&proxy, 1, 0);
    bridges[busy].send(places(1, 4));
    bridges[busy].respond_to(&mut client, "served");
    await_slots(&proxy, 1, 1);
}

/// The application passes a message on that it has made up, or was sent.
#[test]
fn a_message_of_an_application_does_nothing() {
    let proxy = Proxy::start();
    let mut bridges = [(); 2].map(|()| parked(&proxy));
    await_slots(&proxy, 2, 0);
    let forged = places(0, 1).replace("by=0", "by=1");
    let mut client = Client::request(
        &proxy,
        "GET / HTTP/1.1\r\nHost: a.test\r\nCloudbridge-Places: 0; at=1; by=x\r\n\
         Cloudbridge-Waiting: 1; at=2\r\n\r\n",
    );
    let (busy, request) = take_any(&mut bridges);
    assert!(!request.has("cloudbridge-places") && !request.has("cloudbridge-waiting"));
    bridges[busy].send(&forged);
    let interim = client.read_response();
    assert_eq!((interim.status(), interim.has("cloudbridge-places")), (102, false));
    // Within a response it is the response's.
    let body = places(0, 2);
    bridges[busy].respond_to(&mut client, &body);
    await_slots(&proxy, 2, 0);
}

#[test]
fn whole_messages_may_follow_a_response_and_nothing_else() {
    let proxy = Proxy::start();
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (mut bridge, mut client) = reused(&proxy);
    client.send_get("a.test", "/");
    take(&mut bridge);
    bridge.send(format!("{ok}{}{}", places(0, 1), places(1, 2)));
    assert_eq!(client.read_response().text(), "ok");
    await_slots(&proxy, 1, 0);
    client.send_get("a.test", "/");
    take(&mut bridge);
    bridge.send(format!("{ok}{}", places(0, 3)));
    assert_eq!(client.read_response().text(), "ok");
    await_slots(&proxy, 0, 1);
    bridge.send(places(1, 4));
    for behind in [&places(1, 5)[..50], "x"] {
        client.send_get("a.test", "/");
        take(&mut bridge);
        bridge.send(format!("{ok}{behind}"));
        assert_eq!(client.read_response().text(), "ok");
        bridge.expect_closed();
        await_slots(&proxy, 0, 0);
        bridge = parked(&proxy);
    }
}

#[test]
fn a_bridge_in_the_middle_of_a_message_gets_no_request_before_its_end() {
    on_time(Duration::from_millis(250), || {
        let proxy = Proxy::start();
        let message = places(1, 1);
        for split in [1, 30, 60, message.len() - 1] {
            let (mut bridge, mut client) = reused(&proxy);
            let (begin, end) = message.split_at(split);
            bridge.send(begin);
            await_slots(&proxy, 0, 0);
            client.send_get("a.test", "/");
            proxy.await_count("c", 1);
            bridge.send(end);
            take(&mut bridge);
            bridge.respond_to(&mut client, "served");
            drop(bridge);
            proxy.await_no_bridges();
        }
        // The other half must come within a second, and be one.
        let (mut bridge, _client) = reused(&proxy);
        bridge.send(&message[..60]);
        bridge.expect_closed();
        let (mut bridge, _client) = reused(&proxy);
        bridge.send(&message[..60]);
        await_slots(&proxy, 0, 0);
        bridge.send("HTTP/1.1 200 OK\r\n\r\n");
        bridge.expect_closed();
    });
}

#[test]
fn withdrawn_bridges_are_shown_and_are_no_slots() {
    let proxy = Proxy::with(
        "listen 127.0.0.1:0\nlisten unix:{dir}/admin.sock admin\nagent-check 127.0.0.1:0\nagent-check-slots 10\nqueue-per-route 100",
    );
    let check = || {
        let mut check = Wire::connect(proxy.for_agent_checks());
        check.send("a.test\n");
        String::from_utf8(check.read_to_end().0).unwrap()
    };
    let mut bridges = [(); 4].map(|()| parked(&proxy));
    await_slots(&proxy, 4, 0);
    assert_eq!(check(), "up 40% maxconn:104\n");
    bridges[0].send(places(1, 1));
    await_slots(&proxy, 1, 3);
    assert_eq!(check(), "up 10% maxconn:101\n");
    let mut client = Client::get(&proxy, "a.test", "/");
    let (busy, _) = take_any(&mut bridges);
    let info = proxy.info();
    for rows in ["hosts", "backends"] {
        let Json::List(rows) = info.at(&[rows]) else { panic!("{info:?}") };
        let counts = ["parked", "withdrawn", "busy"].map(|name| rows[0].number(&[name]));
        assert_eq!(counts, [0, 3, 1], "{rows:?}");
    }
    assert_eq!(check(), "up 10% maxconn:101\n");
    bridges[busy].respond_to(&mut client, "served");
    let metrics =
        proxy.admin("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    for line in [
        "cloudbridge_bridges{host=\"a.test\",state=\"withdrawn\"} 3\n",
        "cloudbridge_given_back_total 0\n",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
}

#[test]
fn withdrawn_bridges_leave_and_are_noticed_when_they_end() {
    let proxy = Proxy::start();
    let mut bridges = Vec::from([(); 3].map(|()| parked(&proxy)));
    await_slots(&proxy, 3, 0);
    bridges[0].send(places(1, 1));
    await_slots(&proxy, 1, 2);
    // Whichever these are, one of the others may have a request now.
    bridges.truncate(1);
    await_slots(&proxy, 1, 0);
    bridges.push(parked(&proxy));
    await_slots(&proxy, 1, 1);
    let leave = format!("BRIDGE / HTTP/1.1\r\nHost: a.test\r\nCloudbridge-Leave: {TOKEN}\r\n\r\n");
    let mut leaving = Bridge::connect(&proxy);
    leaving.send(leave);
    assert!(leaving.read_head().start.starts_with("HTTP/1.1 200 "));
    for mut bridge in bridges {
        bridge.expect_closed();
    }
    await_slots(&proxy, 0, 0);
}

/// A probe's 101 is one like any other: the backend may have no place, and is there.
#[test]
fn a_silent_backend_is_back_when_it_gives_the_101_of_its_probe_back() {
    let proxy = Proxy::with("workers 1\nbridge-ack-timeout 3s");
    let uses = "Cloudbridge-Extensions: undelivered, probes, places\r\n";
    let extensions = "leave, undelivered, probes, places";
    let mut bridges = [(); 2].map(|()| Bridge::with_token(&proxy, uses, extensions));
    await_slots(&proxy, 2, 0);
    let client = Client::get(&proxy, "a.test", "/");
    assert_eq!(next(&mut bridges[0]).head, SWITCH);
    proxy.await_log("backend 127.0.0.1 is silent");
    assert_eq!(next(&mut bridges[1]).head, SWITCH);
    bridges[1].send(places(1, 1) + &given_back(0, 2));
    proxy.await_log("backend 127.0.0.1 answers again");
    await_slots(&proxy, 0, 1);
    let_pass(Duration::from_millis(20));
    assert_no_request(&mut bridges[1..]);
    drop(client);
}

#[test]
fn bridges_that_move_to_a_new_program_keep_the_extension_and_the_bound_is_forgotten() {
    let proxy = Upgraded::start("");
    let mut bridges = [(); 2].map(|()| parked(&proxy));
    await_slots(&proxy, 2, 0);
    bridges[0].send(places(0, 7));
    await_slots(&proxy, 0, 2);
    let client = Client::get(&proxy, "a.test", "/");
    let (waited, before) = next_told(&mut bridges);
    assert!(waited.is_some());
    drop(client);
    assert_eq!(next_told(&mut bridges).0, None);
    await_end(proxy.upgrade());
    await_slots(&proxy, 2, 0);
    bridges[1].send(places(0, 8));
    await_slots(&proxy, 0, 2);
    let mut client = Client::get(&proxy, "a.test", "/");
    let (waited, after) = next_told(&mut bridges);
    assert!(waited.is_some() && after > before, "{before}, then {after}");
    bridges[0].send(places(1, 9));
    let (busy, _) = take_any(&mut bridges);
    bridges[busy].respond_to(&mut client, "served");
}

/// What runs through the old program counts: the bound that a backend says includes it.
#[test]
fn bridges_that_are_busy_in_an_old_program_take_places_until_they_are_free() {
    let proxy = Upgraded::start("");
    let mut bridges = [(); 3].map(|()| parked(&proxy));
    await_slots(&proxy, 3, 0);
    let mut clients = [(); 2].map(|()| Client::get(&proxy, "a.test", "/"));
    let busy = [take_any(&mut bridges).0, take_any(&mut bridges).0];
    let idle = (0..3).find(|at| !busy.contains(at)).unwrap();
    let old = proxy.upgrade();
    await_slots(&proxy, 1, 0);
    bridges[idle].send(places(2, 1));
    await_slots(&proxy, 0, 1);
    let mut third = Client::get(&proxy, "a.test", "/third");
    proxy.await_count("c", 1);
    assert_no_request(&mut bridges);
    // It follows when it is free, and leaves its place.
    bridges[busy[0]].respond("one");
    let (serving, request) = take_any(&mut bridges);
    assert_eq!(request.start, "GET /third HTTP/1.1");
    await_slots(&proxy, 0, 1);
    bridges[serving].respond_to(&mut third, "three");
    bridges[busy[1]].respond("two");
    let mut answers = clients.each_mut().map(|client| client.read_response().text());
    answers.sort();
    assert_eq!(answers, ["one", "two"]);
    await_end(old);
    await_slots(&proxy, 2, 1);
}
