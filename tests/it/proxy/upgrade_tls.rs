//! A new program takes over from a running one that has TLS connections, and nothing is lost.

use super::upgrade::{Upgraded, await_end};
use crate::common::{
    ACK, After, Agent, App, Authority, Bridge, Client, Issued, Load, Setup, by_tls, eventually,
    let_pass, on_time,
};
use std::net::SocketAddr;
use std::time::Duration;

/// The time after an upgrade before which no bridge is closed that has come through the old program.
const CLOSES: Duration = Duration::from_secs(2);

/// A proxy that speaks only TLS, with a listener for clients and one for bridges.
struct World {
    authority: Authority,
    proxy: Upgraded,
}

impl World {
    #[track_caller]
    fn start(settings: &str) -> World {
        let authority = Authority::new("ca");
        let own = authority.issue_for("proxy", &["proxy.test"]);
        let tls = "tls={dir}/own.pem,{dir}/own.key";
        let setup = Setup::new()
            .settings(&format!(
                "listen 127.0.0.1:0 clients {tls}\n\
                 listen 127.0.0.1:0 bridges {tls} client-ca={{dir}}/ca.pem client-cert=optional\n\
                 open-bridges yes\nsecrets-mode any\n{settings}"
            ))
            .file("own.pem", &own.certificate)
            .file("own.key", &own.key)
            .file("secrets", "1000000000:first\n")
            .file("ca.pem", authority.pem());
        World { authority, proxy: Upgraded::with(setup) }
    }

    fn clients(&self) -> SocketAddr {
        by_tls(self.proxy.for_clients(), "proxy.test", &self.authority, None)
    }

    fn bridges(&self, shown: Option<&Issued>) -> SocketAddr {
        by_tls(self.proxy.for_bridges(), "proxy.test", &self.authority, shown)
    }

    #[track_caller]
    fn park(&self, shown: Option<&Issued>, host: &str) -> Bridge {
        let mut bridge = Bridge::connect_to(self.bridges(shown));
        bridge.send(format!("BRIDGE / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        bridge.expect_exact(ACK);
        bridge
    }
}

fn get(at: SocketAddr, host: &str, path: &str) -> Client {
    let mut client = Client::connect_to(at);
    client.send_get(host, path);
    client
}

#[test]
fn parked_bridges_and_clients_go_through_the_old_program_and_then_leave_it() {
    // The bridges serve before they are closed.
    on_time(CLOSES / 2, || {
        let world = World::start("");
        let at = world.clients();
        let (mut fresh, mut reused) = (world.park(None, "fresh.test"), world.park(None, "a.test"));
        let mut client = get(at, "a.test", "/first");
        reused.serve_to(&mut client, "first");
        let mut half = Client::connect_to(at);
        half.send("GET /half HTTP/1.1\r\nHost: fre");
        let mut waiting = get(at, "late.test", "/waits");
        world.proxy.await_count("c", 1);
        world.proxy.await_count("b", 2);
        let old = world.proxy.upgrade();
        // Those that have come through the old program are told to come again.
        client.send_get("a.test", "/second");
        let request = reused.accept_request();
        assert!(request.has("x-forwarded-proto"), "{request:?}");
        assert_eq!(request.field("x-forwarded-proto"), Some("https"));
        reused.respond("second");
        let response = client.read_response();
        assert_eq!(
            (response.text().as_str(), response.field("connection")),
            ("second", Some("close"))
        );
        half.send("sh.test\r\n\r\n");
        fresh.serve_to(&mut half, "half");
        let mut late = world.park(None, "late.test");
        assert_eq!(late.serve("late"), "GET /waits HTTP/1.1");
        assert_eq!(waiting.read_response().text(), "late");
        // The bridges are closed within some seconds.
        reused.expect_closed();
        fresh.expect_closed();
        for client in [client, half, waiting] {
            drop(client);
        }
        await_end(old);
    });
}

/// The requests that wait are in their order, and what is in progress is finished.
#[test]
fn what_waits_keeps_its_place_and_what_is_in_progress_ends_where_it_is() {
    let world = World::start("");
    let at = world.clients();
    let mut bridge = world.park(None, "a.test");
    let mut busy = get(at, "a.test", "/busy");
    bridge.accept_request();
    let mut waiting: Vec<Client> = (1..=4)
        .map(|number| {
            let client = get(at, "a.test", &format!("/{number}"));
            world.proxy.await_count("c", number);
            let_pass(Duration::from_millis(10));
            client
        })
        .collect();
    let first = world.proxy.upgrade();
    let second = world.proxy.upgrade();
    world.proxy.await_count("c", 4);
    bridge.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 8\r\n\r\nfinished");
    assert_eq!(busy.read_response().text(), "finished");
    bridge.expect_closed();
    let mut bridge = world.park(None, "a.test");
    for (number, client) in (1..).zip(&mut waiting) {
        assert_eq!(bridge.serve("served"), format!("GET /{number} HTTP/1.1"));
        assert_eq!(client.read_response().text(), "served");
    }
    drop((busy, waiting));
    await_end(first);
    await_end(second);
}

#[test]
fn a_certificate_is_good_in_the_new_program_too() {
    // The bridge serves before it is closed.
    on_time(CLOSES / 2, || {
        let world = World::start("secrets {dir}/secrets");
        let shown = world.authority.issue_for("app", &["a.test"]);
        let mut bridge = world.park(Some(&shown), "a.test");
        let old = world.proxy.upgrade();
        world.proxy.await_count("b", 1);
        bridge.serve_to(&mut get(world.clients(), "a.test", "/"), "certified");
        bridge.expect_closed();
        await_end(old);
    });
}

#[test]
fn tickets_of_the_old_program_are_good_in_the_new_one() {
    let world = World::start("health-uri /healthz");
    // All its connections have the same tickets.
    let at = world.clients();
    let ask = || {
        let mut client = get(at, "a.test", "/healthz");
        assert_eq!(client.read_response().status(), 200);
    };
    ask();
    await_end(world.proxy.upgrade());
    ask();
    eventually("it is a short handshake", || {
        let metrics = world.proxy.admin("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        metrics.lines().any(|line| {
            line.starts_with("cloudbridge_tls_handshakes_total{")
                && line.contains("resumed")
                && line.ends_with(" 1")
        })
    });
    let log = world.proxy.log();
    assert!(!log.contains("keys\":"), "{log}");
}

#[test]
fn nothing_is_lost_under_load() {
    let world = World::start("");
    let dir = world.proxy.dir();
    std::fs::write(dir.join("issuer.pem"), world.authority.pem()).unwrap();
    let app = App::named("hello", After::Keep);
    let _agent = Agent::start(&[
        "--to",
        &app.to(),
        "-n6",
        "--host",
        "a.test",
        "--ca",
        &dir.join("issuer.pem").display().to_string(),
        "--server-name",
        "proxy.test",
        &format!("tls://{}", world.proxy.for_bridges()),
    ]);
    world.proxy.await_count("b", 6);
    let served = Load::run_at(
        world.clients(),
        "POST",
        6,
        |_, text| text == "hello",
        |load| {
            for _ in 0..3 {
                load.await_more(5);
                let old = world.proxy.upgrade();
                load.await_more(5);
                await_end(old);
            }
            load.await_more(5);
        },
    );
    assert!(served > 100, "{served}");
    let counters = world.proxy.info();
    assert_eq!(counters.number(&["counters", "cut"]), 0);
}
