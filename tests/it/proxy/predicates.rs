//! Backends that say which requests they take.

use super::upgrade::{Upgraded, await_end, ctl};
use crate::common::{
    Agent, App, Bridge, Client, Proxy, Setup, TOKEN, at, eventually, header_v1, ok,
};
use std::sync::atomic::{AtomicBool, Ordering};

/// A bridge of `a.test` with these field lines more.
#[track_caller]
fn park(proxy: &Proxy, fields: &str) -> Bridge {
    Bridge::register(proxy, format!("BRIDGE / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"))
}

/// Fails unless this request goes to this bridge.
#[track_caller]
fn goes_to(proxy: &Proxy, bridge: &mut Bridge, request: &str) {
    let mut client = Client::request(proxy, request);
    bridge.serve("here");
    assert_eq!(client.read_response().text(), "here", "{request}");
}

/// One worker: between several, a bridge that parks at this moment may be overlooked for a less
/// specific one, which may serve as well.
#[test]
fn a_request_goes_to_the_lane_whose_predicates_it_meets() {
    for (fields, met, not) in [
        (
            "If-Method: PUT, PATCH",
            "PUT / HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        ),
        (
            "If-Path-Prefix: /api\r\nIf-Path-Prefix: /v2",
            "GET /v2/x?y HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "GET /apis HTTP/1.1\r\nHost: a.test\r\n\r\n",
        ),
        (
            "If-Header: X-Tenant=red",
            "GET / HTTP/1.1\r\nHost: a.test\r\nx-tenant: red\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.test\r\nx-tenant: blue\r\n\r\n",
        ),
        (
            "If-Cookie: canary",
            "GET / HTTP/1.1\r\nHost: a.test\r\nCookie: a=b; canary=1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.test\r\nCookie: a=canary\r\n\r\n",
        ),
        (
            "If-Max-Body: 3",
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        ),
        ("If-Path-Prefix: /", "OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", ""),
        (
            "If-Client: 127.0.0.0/8",
            "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n",
            "",
        ),
    ] {
        let proxy = Proxy::with("workers 1");
        let mut plain = park(&proxy, "");
        let mut lane = park(&proxy, &format!("{fields}\r\n"));
        for _ in 0..2 {
            goes_to(&proxy, &mut lane, met);
            if !not.is_empty() {
                goes_to(&proxy, &mut plain, not);
            }
        }
        // While the lane is busy, a less specific bridge helps out.
        let mut first = Client::request(&proxy, met);
        lane.accept_request();
        goes_to(&proxy, &mut plain, met);
        lane.respond_to(&mut first, "first");
    }
}

#[test]
fn more_predicates_come_first_and_then_their_kind() {
    let proxy = Proxy::with("workers 1");
    let lanes = [
        "If-Method: GET\r\nIf-Header: X-A\r\n",
        "If-Client: 127.0.0.1\r\n",
        "If-Cookie: c\r\n",
        "If-Header: X-A\r\n",
        "If-Path-Prefix: /p\r\n",
        "If-Method: GET\r\n",
        "If-Max-Body: 10\r\n",
        "If-Max-Body: 20\r\n",
        "",
    ];
    let mut bridges: Vec<Bridge> = lanes.iter().rev().map(|lane| park(&proxy, lane)).collect();
    bridges.reverse();
    let request = "GET /p HTTP/1.1\r\nHost: a.test\r\nX-A: 1\r\nCookie: c=1\r\n\r\n";
    let mut clients = Vec::new();
    for bridge in &mut bridges {
        clients.push(Client::request(&proxy, request));
        bridge.accept_request();
    }
    for (bridge, client) in bridges.iter_mut().zip(&mut clients) {
        bridge.respond_to(client, "in its turn");
    }
}

#[test]
fn a_request_that_meets_no_lane_is_for_a_name_that_nobody_serves() {
    let proxy = Proxy::with("unknown-host 404");
    let mut lane = park(&proxy, "If-Method: GET\r\n");
    let refusal = Client::ask(&proxy, "DELETE / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    refusal.assert_own_reply(404);
    lane.assert_untouched(&proxy, "a.test");
}

/// The requests wait on both workers, most likely; and a route that is new finds those that meet it.
#[test]
fn requests_that_wait_are_found_by_a_new_lane_that_they_meet() {
    let proxy = Proxy::start();
    let post = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi";
    let mut posts: Vec<Client> = (0..4).map(|_| Client::request(&proxy, post)).collect();
    let mut gets: Vec<Client> = (0..4).map(|_| Client::get(&proxy, "a.test", "/")).collect();
    proxy.await_count("c", 8);
    let mut writer = park(&proxy, "If-Method: POST\r\nIf-Max-Body: 2\r\n");
    for _ in 0..4 {
        assert_eq!(writer.serve("written"), "POST / HTTP/1.1");
    }
    posts.iter_mut().for_each(|client| assert_eq!(client.read_response().text(), "written"));
    proxy.await_count("c", 4);
    let mut reader = park(&proxy, "If-Method: GET\r\n");
    for _ in 0..4 {
        assert_eq!(reader.serve("read"), "GET / HTTP/1.1");
    }
    gets.iter_mut().for_each(|client| assert_eq!(client.read_response().text(), "read"));
    writer.assert_untouched_by_post(&proxy);
}

impl Bridge {
    /// As [`Bridge::assert_untouched`], for one that takes POST alone.
    #[track_caller]
    fn assert_untouched_by_post(&mut self, proxy: &Proxy) {
        let request = "POST /sentinel HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n";
        let mut sentinel = Client::request(proxy, request);
        assert_eq!(self.serve_to(&mut sentinel, "sentinel"), "POST /sentinel HTTP/1.1");
    }
}

#[test]
fn the_client_is_whom_a_trusted_proxy_names() {
    let settings = "workers 1\nlisten 127.0.0.1:0 accept-proxy=127.0.0.1\ntrusted-proxies 127.0.0.1 10.0.0.0/8\n\
                    listen 127.0.0.1:0 bridges";
    let proxy = Proxy::with(settings);
    let mut plain = park_at_bridges(&proxy, "");
    let mut office = park_at_bridges(&proxy, "If-Client: 192.0.2.0/24\r\n");
    let ask = |announced: &str, forwarded: &str| {
        let mut client = Client::connect(&proxy);
        client.send(header_v1(&format!("{announced}:40000")));
        client.send(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{forwarded}\r\n"));
        client
    };
    for (announced, forwarded, is_office) in [
        ("192.0.2.7", "", true),
        ("198.51.100.1", "X-Forwarded-For: 192.0.2.7\r\n", false),
        ("10.1.2.3", "X-Forwarded-For: 192.0.2.7\r\n", true),
        ("10.1.2.3", "X-Forwarded-For: 192.0.2.7, 198.51.100.1\r\n", false),
        ("10.1.2.3", "X-Forwarded-For: 192.0.2.7:4711\r\n", true),
        ("10.1.2.3", "X-Forwarded-For: 192.0.2.7, unknown\r\n", false),
        (
            "10.1.2.3",
            "X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-For: 192.0.2.7, 10.0.0.1\r\n",
            true,
        ),
    ] {
        let mut client = ask(announced, forwarded);
        let bridge = if is_office { &mut office } else { &mut plain };
        bridge.serve("here");
        assert_eq!(client.read_response().text(), "here", "{announced} {forwarded}");
    }
}

#[track_caller]
fn park_at_bridges(proxy: &Proxy, fields: &str) -> Bridge {
    let mut bridge = Bridge::connect_to(*proxy.addresses().last().unwrap());
    bridge.send(format!("BRIDGE / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"));
    bridge.read_head();
    bridge
}

/// What it goes by is in the client's input, and stays the same.
#[test]
fn a_request_that_is_repeated_stays_in_its_lanes() {
    let proxy = Proxy::start();
    let mut other = park(&proxy, "If-Method: POST\r\n");
    let mut first = park(&proxy, "If-Cookie: a=1\r\n");
    let mut client =
        Client::request(&proxy, "GET / HTTP/1.1\r\nHost: a.test\r\nCookie: a=1\r\n\r\n");
    first.accept_request();
    drop(first);
    proxy.await_count("c", 1);
    let mut second = park(&proxy, "If-Cookie: a=1\r\n");
    second.serve_to(&mut client, "second");
    other.assert_untouched_by_post(&proxy);
}

#[test]
fn an_upgrade_keeps_the_lanes() {
    let proxy = Upgraded::start("");
    let mut plain = park(&proxy, "");
    let mut lane = park(&proxy, "If-Header: X-Lane=1\r\nIf-Max-Body: 0\r\n");
    let lane_of = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Lane: 1\r\n\r\n";
    let mut busy = Client::get(&proxy, "a.test", "/busy");
    plain.accept_request();
    let mut waits = Client::get(&proxy, "a.test", "/waits");
    proxy.await_count("c", 1);
    let old = proxy.upgrade();
    goes_to(&proxy, &mut lane, lane_of);
    plain.respond_to(&mut busy, "busy");
    // The old program may still have it when the bridge is free.
    assert_eq!(plain.serve_to(&mut waits, "waited"), "GET /waits HTTP/1.1");
    await_end(old);
    goes_to(&proxy, &mut lane, lane_of);
}

/// What it says of its predicates is longer than one field may be.
#[test]
fn an_upgrade_keeps_a_lane_of_many_methods_and_networks() {
    let proxy = Upgraded::start("");
    let methods: Vec<String> = (0..7).map(|number| format!("M{number:030}")).collect();
    let networks: Vec<String> =
        (0..7).map(|number| format!("2001:db8:ffff:ffff:ffff:ffff:ffff:fff{number}")).collect();
    let fields = format!(
        "If-Method: GET,{}\r\nIf-Method: {}\r\nIf-Client: 127.0.0.1,{}\r\nIf-Client: {}\r\n",
        methods[..4].join(","),
        methods[4..].join(","),
        networks[..4].join(","),
        networks[4..].join(",")
    );
    let mut lane = park(&proxy, &fields);
    await_end(proxy.upgrade());
    goes_to(&proxy, &mut lane, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
}

#[test]
fn a_lane_is_left_by_saying_its_predicates_again() {
    let proxy = Proxy::start();
    let register = |fields: &str| {
        let fields = format!("Host: a.test\r\nCloudbridge-Backend: {TOKEN}\r\n{fields}");
        let mut bridge = Bridge::connect(&proxy);
        bridge.send(format!("BRIDGE / HTTP/1.1\r\n{fields}\r\n"));
        assert_eq!(bridge.read_head().status(), 100);
        bridge
    };
    let (mut lane, mut plain) = (register("If-Method: GET\r\n"), register(""));
    let leave = format!(
        "BRIDGE / HTTP/1.1\r\nHost: a.test\r\nIf-Method: GET\r\nCloudbridge-Leave: {TOKEN}\r\n\r\n"
    );
    assert_eq!(Client::ask(&proxy, leave).status(), 200);
    lane.expect_closed();
    plain.assert_untouched(&proxy, "a.test");
}

#[test]
fn what_is_unknown_or_malformed_is_refused() {
    let proxy = Proxy::start();
    for (field, status, text) in [
        ("If-Unmodified-Since: x", 501, "If-Unmodified-Since is not supported\n"),
        ("If-Max-Body: 64k", 400, "bad If-Max-Body: it is a number of bytes\n"),
        ("If-Method: GET HEAD", 400, "bad If-Method: no method\n"),
        ("If-Cookie: a;b", 400, "bad If-Cookie: it is NAME or NAME=VALUE\n"),
        ("If-Header: X-A= red", 400, "bad If-Header: a value has no blanks around it\n"),
    ] {
        let bridge = format!("BRIDGE / HTTP/1.1\r\nHost: a.test\r\n{field}\r\n\r\n");
        let refusal = Bridge::refused(&proxy, bridge);
        assert_eq!((refusal.status(), refusal.text().as_str()), (status, text));
    }
}

#[test]
fn an_operator_sees_the_predicates() {
    let proxy = Proxy::start();
    let _lane = park(&proxy, "If-Cookie: canary=1\r\nif-method: HEAD,GET\r\n");
    let shown = "a.test [If-Method: GET, HEAD] [If-Cookie: canary=1]";
    eventually("it is shown", || ctl(&proxy, &["hosts"]).1.contains(shown));
    let state = ctl(&proxy, &["--json", "hosts"]).1;
    assert!(
        state.contains(r#""predicates":["If-Method: GET, HEAD","If-Cookie: canary=1"]"#),
        "{state}"
    );
    let metrics =
        proxy.admin("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(metrics.contains(&format!("host=\"{shown}\"")), "{metrics}");
}

/// An application that takes only requests for which `is_mine` holds.
fn application(name: &'static str, is_mine: fn(&str, &[u8]) -> bool) -> App {
    App::start(move |seen| ok(if is_mine(&seen.head, &seen.body) { name } else { "not mine" }))
}

fn agent(proxy: &Proxy, app: &App, slots: &str, predicates: &[&str]) -> Agent {
    let (to, proxy) = (app.address().to_string(), at(proxy));
    let mut words = vec!["--to", &to, "-n", slots, "--host", "a.test"];
    words.extend(predicates);
    words.push(&proxy);
    Agent::start(&words)
}

/// Eight clients send these requests in turn, a hundred each. Each must be answered by one of those
/// that may answer it, and no route may have a request that waits beside a bridge that is parked.
/// Returns how many requests there were.
#[track_caller]
fn load(proxy: &Proxy, requests: &[(&str, &[&str])]) -> usize {
    const EACH: usize = 100;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let state = ctl(proxy, &["--json", "hosts"]).1;
                for row in state.split("{\"answers\"").skip(1) {
                    let number = |name: &str| -> u64 {
                        let rest = row.split(&format!("\"{name}\":")).nth(1).unwrap();
                        rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
                    };
                    assert!(number("parked") == 0 || number("waiting") == 0, "{row}");
                }
            }
        });
        let clients: Vec<_> = (0..8)
            .map(|number| {
                scope.spawn(move || {
                    let mut client = Client::connect(proxy);
                    for round in 0..EACH {
                        let (request, may_answer) = requests[(number + round) % requests.len()];
                        client.send(request);
                        let response = client.read_response();
                        let text = response.text();
                        assert!(may_answer.contains(&text.as_str()), "{request}: {response:?}");
                    }
                })
            })
            .collect();
        let results: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        over.store(true, Ordering::SeqCst);
        results.into_iter().for_each(|result| result.expect("a client"));
        watch.join().expect("what is shown of the routes");
    });
    8 * EACH
}

#[test]
fn canary_by_cookie() {
    let proxy = Proxy::start();
    let stable = application("stable", |_, _| true);
    let canary = application("canary", |head, _| head.contains("canary=1"));
    let agents = [
        agent(&proxy, &stable, "4", &[]),
        agent(&proxy, &canary, "2", &["--if-cookie", "canary=1"]),
    ];
    proxy.await_count("b", 6);
    let count = load(
        &proxy,
        &[
            ("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", &["stable"]),
            ("GET / HTTP/1.1\r\nHost: a.test\r\nCookie: canary=1\r\n\r\n", &["canary", "stable"]),
        ],
    );
    assert_eq!(stable.served() + canary.served(), count);
    assert!(canary.served() > 0 && stable.served() >= count / 2);
    drop(agents);
}

#[test]
fn reads_and_writes_apart() {
    let proxy = Proxy::start();
    let reader = application("read", |head, _| head.starts_with("GET "));
    let writer = application("written", |head, _| !head.starts_with("GET "));
    let agents = [
        agent(&proxy, &reader, "3", &["--if-method", "GET,HEAD"]),
        agent(&proxy, &writer, "1", &["--if-method", "POST,PUT,PATCH,DELETE"]),
    ];
    proxy.await_count("b", 4);
    let count = load(
        &proxy,
        &[
            ("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", &["read"]),
            ("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi", &["written"]),
        ],
    );
    assert_eq!((reader.served(), writer.served()), (count / 2, count / 2));
    drop(agents);
}

#[test]
fn a_lane_for_small_bodies() {
    let proxy = Proxy::start();
    let light = application("light", |_, body| body.len() <= 100);
    let heavy = application("heavy", |_, _| true);
    let agents =
        [agent(&proxy, &light, "2", &["--if-max-body", "100"]), agent(&proxy, &heavy, "2", &[])];
    proxy.await_count("b", 4);
    let large = format!(
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5000\r\n\r\n{}",
        "x".repeat(5000)
    );
    let count = load(
        &proxy,
        &[
            ("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", &["light", "heavy"]),
            (&large, &["heavy"]),
            ("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi", &["light", "heavy"]),
        ],
    );
    assert_eq!(light.served() + heavy.served(), count);
    assert!(light.served() > 0 && heavy.served() >= count / 3);
    drop(agents);
}

#[test]
fn an_agent_says_what_is_wrong_with_its_predicates() {
    let proxy = Setup::new().start();
    let mut agent =
        Agent::start(&["--to", "1", "--host", "a.test", "--if-max-body", "1k", &at(&proxy)]);
    assert!(!agent.wait_exit().success());
    agent.await_log("bad If-Max-Body \"1k\": it is a number of bytes");
}
