//! What crosses the agent, and what stays open.

use crate::common::{
    ACK, Agent, App, Client, Played, Proxy, SWITCH, Seen, Setup, at, eventually, ok, serve_unix,
};

fn first_line(seen: &Seen) -> Vec<u8> {
    ok(seen.head.lines().next().unwrap_or_default())
}

#[test]
fn upstream_connection_and_bridge_are_reused() {
    let proxy = Proxy::start();
    let app = App::start(first_line);
    let _agent = Agent::serve(&app.to(), 1, &[at(&proxy)]);
    let mut client = Client::connect(&proxy);
    for path in ["/1", "/2", "/3"] {
        client.send_get("a.test", path);
        assert_eq!(client.read_response().text(), format!("GET {path} HTTP/1.1"));
    }
    let connections = proxy.info().number(&["counters", "accepted"]);
    client.send_get("a.test", "/4");
    client.read_response();
    assert_eq!(app.connections(), 1);
    assert_eq!(proxy.info().number(&["counters", "accepted"]), connections);
}

#[test]
fn an_application_that_closes_after_each_answer_costs_no_bridge() {
    let proxy = Proxy::start();
    let app = App::start(|_| {
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok".to_vec()
    });
    let _agent = Agent::serve(&app.to(), 1, &[at(&proxy)]);
    let mut client = Client::get(&proxy, "a.test", "/");
    assert_eq!(client.read_response().text(), "ok");
    let before = proxy.info().number(&["counters", "accepted"]);
    for _ in 0..5 {
        client.send_get("a.test", "/");
        let response = client.read_response();
        assert_eq!(response.text(), "ok");
        assert!(!response.has("connection"), "{response:?}");
    }
    assert_eq!(proxy.info().number(&["counters", "accepted"]), before);
    assert_eq!(app.connections(), 6);
}

#[test]
fn a_request_arrives_as_the_proxy_sent_it() {
    let proxy = Proxy::start();
    let app = App::start(|seen| ok(&seen.head));
    let _agent = Agent::serve(&app.to(), 1, &[at(&proxy)]);
    let request =
        "GET /x?y HTTP/1.1\r\nHost: a.test:99\r\nX-Forwarded-For: 10.0.0.1\r\nTE: trailers\r\n\r\n";
    assert_eq!(
        Client::ask(&proxy, request).text(),
        "GET /x?y HTTP/1.1\r\nHost: a.test:99\r\nX-Forwarded-For: 10.0.0.1, 127.0.0.1\r\n\
         X-Forwarded-Proto: http\r\nX-Forwarded-Host: a.test:99\r\n\
         Connection: TE\r\nTE: trailers\r\n\r\n"
    );
}

/// Development servers and Django answer only names that they know.
#[test]
fn an_application_may_get_a_host_of_its_own() {
    let proxy = Proxy::start();
    let app = App::start(|seen| ok(&seen.head));
    let _agent =
        Agent::start(&["--to", &app.to(), "-n1", "--rewrite-host=localhost:5173", &at(&proxy)]);
    let as_sent = "Host: localhost:5173\r\nX-Forwarded-For: 127.0.0.1\r\n\
                   X-Forwarded-Proto: http\r\nX-Forwarded-Host: a.test\r\n\r\n";
    let mut client = Client::connect(&proxy);
    for path in ["/fresh", "/reused"] {
        client.send_get("a.test", path);
        assert_eq!(client.read_response().text(), format!("GET {path} HTTP/1.1\r\n{as_sent}"));
    }
    // What is sent again is read anew.
    app.close_connections();
    client.send_get("a.test", "/again");
    assert_eq!(client.read_response().text(), format!("GET /again HTTP/1.1\r\n{as_sent}"));
    // What waits for the only place, too.
    let mut others = [1, 2, 3].map(|n| Client::get(&proxy, "a.test", &format!("/{n}")));
    for client in &mut others {
        assert!(client.read_response().text().ends_with(as_sent));
    }
}

/// RFC 9112, section 3.2: the proxy sends an empty Host for a client of HTTP/1.0 that sent none.
#[track_caller]
fn assert_hostless_requests_are_served(proxy: &Proxy) {
    for host in ["", "Host:\r\n"] {
        let response = Client::ask(proxy, format!("GET /old HTTP/1.0\r\n{host}\r\n"));
        assert_eq!(response.status(), 200, "{response:?}");
        assert_eq!(
            response.text(),
            "GET /old HTTP/1.1\r\nHost: \r\nX-Forwarded-For: 127.0.0.1\r\n\
             X-Forwarded-Proto: http\r\n\r\n"
        );
    }
}

#[test]
fn the_echo_serves_requests_without_host() {
    let proxy = Proxy::start();
    let _agent = Agent::echo(&proxy, &["*"]);
    assert_hostless_requests_are_served(&proxy);
}

#[test]
fn requests_without_host_reach_the_application() {
    let proxy = Proxy::start();
    let app = App::start(|seen| ok(&seen.head));
    let _agent = Agent::serve(&app.to(), 1, &[at(&proxy)]);
    assert_hostless_requests_are_served(&proxy);
}

#[test]
fn bodies_head_and_interim_responses_pass() {
    let proxy = Proxy::start();
    let app = App::start(|seen| match seen.head.split(' ').next() {
        Some("HEAD") => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec(),
        Some("GET") => b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\
            Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            .to_vec(),
        _ => ok(&seen.body),
    });
    let _agent = Agent::serve(&app.to(), 2, &[at(&proxy)]);
    let mut client =
        Client::request(&proxy, "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(client.read_response().text(), "body");
    client.send("HEAD / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.read_head().field("content-length"), Some("5"));
    client.send_get("a.test", "/");
    assert_eq!(client.read_head().status(), 103);
    assert_eq!(client.read_response().text(), "abc");
    let big = vec![b'x'; 300_000];
    client.send(format!("PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", big.len()));
    client.send(&big);
    assert!(client.read_response().body == big);
}

#[test]
fn an_application_may_listen_on_a_unix_socket() {
    let proxy = Proxy::start();
    let path = proxy.dir().join("app.sock");
    serve_unix(&path, |seen| ok(format!("{} {}", seen.connection, seen.body.len())));
    let _agent = Agent::serve(&format!("unix:{}", path.display()), 1, &[at(&proxy)]);
    let mut client = Client::connect(&proxy);
    client.send_get("a.test", "/");
    assert_eq!(client.read_response().text(), "1 0");
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 200000\r\n\r\n");
    client.send(vec![b'x'; 200_000]);
    assert_eq!(client.read_response().text(), "1 200000");
}

#[test]
fn an_upgrade_becomes_a_tunnel() {
    let proxy = Proxy::start();
    let app = App::start(|seen| match seen.head.contains("Upgrade: echo") {
        // What follows is no request, and is answered in the same way.
        true => b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
            .to_vec(),
        false => format!("<{}>", seen.head.trim()).into_bytes(),
    });
    let _agent = Agent::serve(&app.to(), 1, &[at(&proxy)]);
    let mut client = Client::request(
        &proxy,
        "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
    );
    assert_eq!(client.read_head().status(), 101);
    for word in ["one", "two"] {
        client.send(format!("{word}\r\n\r\n"));
        client.expect_exact(format!("<{word}>"));
    }
    client.half_close();
    client.expect_closed();
    // The place is free again; this answer is no HTTP.
    let mut next = Client::get(&proxy, "a.test", "/");
    next.expect_exact("HTTP/1.1 502");
}

#[test]
fn hosts_and_prefix_are_offered_and_a_key_proves_them() {
    let keys = [key("a.test"), key("b.test")].join("\n");
    let proxy = Setup::new()
        .settings("secrets {dir}/secrets\nunknown-host 404")
        .file("secrets", "1600000000:sesame\n")
        .start();
    let app = App::start(first_line);
    proxy.write("keys", &keys);
    let file = proxy.dir().join("keys").display().to_string();
    let (to, bridges) = (app.to(), at(&proxy));
    let agent = Agent::start(&[
        "--to",
        &to,
        "--host",
        "a.test",
        "--host",
        "b.test",
        "--prefix",
        "/api",
        "--key-file",
        &file,
        "-n",
        "2",
        &bridges,
    ]);
    proxy.await_count("b", 2);
    for host in ["a.test", "b.test"] {
        let mut client = Client::get(&proxy, host, "/api/x");
        assert_eq!(client.read_response().text(), "GET /api/x HTTP/1.1");
    }
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().status(), 404);
    assert_eq!(Client::get(&proxy, "c.test", "/api").read_response().status(), 404);
    assert!(!agent.log().contains("1700000000"), "a key in the log: {}", agent.log());
}

fn key(host: &str) -> String {
    cloudbridge::bridge::hostkey::legacy_key("sesame", 1_700_000_000, host)
}

#[test]
fn a_file_names_several_services() {
    let proxy = Proxy::start();
    let (one, two) = (App::start(|_| ok("one")), App::start(|_| ok("two")));
    proxy.write(
        "agent.conf",
        &format!(
            "service {} host=a.test n=1\nservice {} host=b.test n=1 proxy={}\n",
            one.to(),
            two.to(),
            at(&proxy)
        ),
    );
    let file = proxy.dir().join("agent.conf").display().to_string();
    let _agent = Agent::start(&["-c", &file, &at(&proxy)]);
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().text(), "one");
    assert_eq!(Client::get(&proxy, "b.test", "/").read_response().text(), "two");
}

#[test]
fn a_head_larger_than_one_read_arrives_whole() {
    let proxy = Proxy::with("max-head 64k");
    let app = App::start(|seen| ok(format!("{}", seen.head.len())));
    let _agent = Agent::serve(&app.to(), 1, &[at(&proxy)]);
    let mut client = Client::connect(&proxy);
    // On a bridge that is new, and on one that has served before.
    for _ in 0..2 {
        client.send(format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {}\r\n\r\n", "x".repeat(40_000)));
        let length: usize = client.read_response().text().parse().expect("a number");
        assert!(length > 40_000, "{length}");
    }
}

/// The proxy sends an empty Host then (RFC 9112, section 3.2).
#[test]
fn request_without_host_reaches_the_application() {
    let proxy = Proxy::start();
    let app = App::start(|seen| ok(&seen.head));
    let _agent = Agent::start(&["--host", "*", "--to", &app.to(), "-n", "1", &at(&proxy)]);
    for request in ["GET /old HTTP/1.0\r\n\r\n", "GET /old HTTP/1.0\r\nHost:\r\n\r\n"] {
        let answer = Client::ask(&proxy, request);
        assert!(answer.text().starts_with("GET /old HTTP/1.1\r\nHost: \r\n"), "{answer:?}");
    }
}

/// As many as the proxy's widest setting lets pass, and those that it adds.
#[test]
fn head_with_the_most_fields_reaches_the_application() {
    let proxy = Proxy::with("max-fields 120");
    let app = App::start(|seen| ok(&seen.head));
    let _agent = Agent::serve(&app.to(), 1, &[at(&proxy)]);
    let many: String = (0..116).map(|number| format!("X-{number}: x\r\n")).collect();
    let request = format!(
        "POST / HTTP/1.0\r\nHost: a.test\r\nTE: trailers\r\nConnection: keep-alive\r\n\
         Content-Length: 0\r\n{many}\r\n"
    );
    let answer = Client::ask(&proxy, request);
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert!(answer.text().contains("X-115: x\r\n"), "{answer:?}");
}

#[test]
fn max_forwards_is_counted_by_the_proxy_alone() {
    let proxy = Proxy::start();
    let app = App::start(|seen| ok(&seen.head));
    let _agent = Agent::serve(&app.to(), 1, &[at(&proxy)]);
    let answer =
        Client::ask(&proxy, "OPTIONS * HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 1\r\n\r\n");
    assert!(answer.text().contains("\r\nMax-Forwards: 0\r\n"), "{answer:?}");
}

/// The proxy asks whether the agent is still there before it sends what cannot be repeated; it may
/// ask again when no request has followed.
#[test]
fn a_101_is_acknowledged_on_a_bridge_that_has_served() {
    const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let answer = ok("GET / HTTP/1.1");
    let proxy = Played::start();
    let app = App::start(first_line);
    let _agent = Agent::serve(&app.to(), 1, &[proxy.at()]);
    let (mut bridge, _) = proxy.bridge();
    bridge.send(ACK);
    bridge.send(SWITCH);
    bridge.expect_exact(ACK);
    bridge.send(GET);
    bridge.expect_exact(&answer);
    for _ in 0..2 {
        for _ in 0..2 {
            bridge.send_byte_by_byte(SWITCH);
            bridge.expect_exact(ACK);
        }
        bridge.send(GET);
        bridge.expect_exact(&answer);
    }
    eventually("a probe and a connection have come", || app.accepted() == 2);
}
