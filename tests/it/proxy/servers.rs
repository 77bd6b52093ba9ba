//! Servers that the proxy dials itself: on demand, evenly, no more than they may have, and not
//! while they are away.

use crate::common::{
    After, App, Bridge, Client, Load, Proxy, Setup, Stopwatch, Wire, eventually, free_address,
    kept_port, let_pass, logged, ok, on_time, serve_unix,
};
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// A proxy with the site `a.test` and these servers and options.
fn proxy(servers: &str) -> Proxy {
    Proxy::with(&format!("site a.test servers={servers}"))
}

/// Asks on a connection of its own, and returns the body of the 200.
#[track_caller]
fn ask(proxy: &Proxy) -> String {
    let mut client = Client::get(proxy, "a.test", "/");
    let response = client.read_response();
    assert_eq!(response.status(), 200, "{response:?}");
    response.text()
}

/// What the info page says of the server at this address.
fn server_info(proxy: &Proxy, address: SocketAddr, what: &str) -> u64 {
    proxy.info().number(&["servers", &format!("{address} of a.test"), what])
}

#[test]
fn a_server_is_dialled_on_demand_and_its_connection_is_used_again() {
    let server = App::named("one", After::Keep);
    let proxy = proxy(&server.address().to_string());
    assert_eq!(server.accepted(), 0);
    for _ in 0..20 {
        assert_eq!(ask(&proxy), "one");
        // It moves to the worker of each client. One that came before it is parked again would find
        // none.
        eventually("the connection is idle", || {
            proxy.info().number(&["sites", "a.test", "parked"]) == 1
        });
    }
    assert_eq!(server.accepted(), 1);
}

#[test]
fn dialled_server_gets_the_body() {
    let server = App::named("one", After::Keep);
    let proxy = proxy(&server.address().to_string());
    let body = "x".repeat(100_000);
    let response = Client::ask(
        &proxy,
        format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n{body}"),
    );
    assert_eq!((response.status(), response.text().as_str()), (200, "one"));
}

#[test]
fn a_unix_socket_is_dialled() {
    let setup = Setup::new();
    let proxy = setup.settings("site a.test servers=unix:{dir}/app.sock").start();
    // It comes later than the proxy, and is looked for again and again.
    let mut early = Client::get(&proxy, "a.test", "/");
    proxy.await_log(logged::CANNOT_BE_REACHED);
    serve_unix(&proxy.dir().join("app.sock"), |_| ok("unix"));
    assert_eq!(early.read_response().text(), "unix");
    assert_eq!(ask(&proxy), "unix");
}

#[test]
fn server_name_is_looked_up() {
    let server = App::named("named", After::Keep);
    let proxy = proxy(&format!("localhost:{}", server.address().port()));
    assert_eq!(ask(&proxy), "named");
}

#[test]
fn requests_at_once_are_spread_evenly() {
    // A worker that has dialled gives the connection to a request that has waited for so much longer at
    // another one, which has not got its own yet, and dials once more.
    on_time(Duration::from_millis(4), || {
        let servers: Vec<App> = (0..3).map(|_| App::named("s", After::Keep)).collect();
        let list: Vec<String> = servers.iter().map(|s| s.address().to_string()).collect();
        let proxy = proxy(&list.join(","));
        let held: Vec<_> = servers.iter().map(App::hold).collect();
        let mut clients: Vec<Client> =
            (0..12).map(|_| Client::get(&proxy, "a.test", "/")).collect();
        // No more than one for each request: none is answered yet.
        eventually("four connections each", || servers.iter().all(|s| s.open() == 4));
        drop(held);
        clients.iter_mut().for_each(|client| assert_eq!(client.read_response().text(), "s"));
    });
}

#[test]
fn no_server_has_more_connections_than_it_may() {
    for after in [After::Keep, After::Close] {
        let server = App::named("s", after);
        let proxy = proxy(&format!("{} max=3", server.address()));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        assert_eq!(ask(&proxy), "s");
                    }
                });
            }
        });
        assert!(server.most() <= 3, "{after:?}: {}", server.most());
        assert_eq!(server.served(), 400);
    }
}

#[test]
fn a_server_that_refuses_is_passed_over_at_once() {
    let server = App::named("there", After::Close);
    let away = free_address();
    let proxy = proxy(&format!("{away},{}", server.address()));
    for _ in 0..10 {
        assert_eq!(ask(&proxy), "there");
    }
    proxy.await_log(&format!("site a.test: server {away} {}", logged::CANNOT_BE_REACHED));
    assert_eq!(server_info(&proxy, away, "up"), 0);
    assert_eq!(server_info(&proxy, server.address(), "up"), 1);
    // Said once, however often it has been tried since.
    let log = proxy.log();
    let said = log.lines().filter(|line| line.contains(logged::CANNOT_BE_REACHED)).count();
    assert_eq!(said, 1, "{log}");
}

#[test]
fn request_fails_after_wait_timeout_while_all_servers_are_away() {
    let away = free_address();
    let proxy = Proxy::with(&format!("wait-timeout 700ms\nsite a.test servers={away}"));
    let clock = Stopwatch::start();
    let response = Client::get(&proxy, "a.test", "/").read_response();
    clock.assert_passed(Duration::from_millis(700));
    assert!(matches!(response.status(), 503 | 504), "{response:?}");
}

/// Nobody knows that the server is away before the first of them has been dialled for.
#[test]
fn backup_serves_the_requests_whose_dials_failed() {
    let (away, backup) = (free_address(), App::named("backup", After::Keep));
    let proxy = Proxy::with(&format!(
        "site a.test servers={away} backup=b.test\nsite b.test servers={}",
        backup.address()
    ));
    let mut clients: Vec<Client> = (0..4).map(|_| Client::get(&proxy, "a.test", "/")).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.read_response().text(), "backup"));
    let site = App::start_at(away, |_| ok("site"));
    eventually("it is there again", || server_info(&proxy, site.address(), "up") == 1);
    assert_eq!(ask(&proxy), "site");
    drop(site);
    for _ in 0..4 {
        assert_eq!(ask(&proxy), "backup");
    }
}

#[test]
fn max_connections_leaves_one_for_a_server() {
    let server = App::named("s", After::Keep);
    let proxy =
        Proxy::with(&format!("max-connections 4\nsite a.test servers={}", server.address()));
    // All come at one moment. Each client that is answered makes room, on whichever worker it is.
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    proxy.freeze();
    let mut clients: Vec<Client> = (0..4).map(|_| Client::request(&proxy, request)).collect();
    proxy.thaw();
    for client in &mut clients {
        let response = client.read_response();
        assert_eq!((response.status(), response.text().as_str()), (200, "s"));
    }
}

#[test]
fn a_request_that_waits_is_served_when_a_server_comes_back() {
    let away = free_address();
    let proxy = proxy(&away.to_string());
    let mut clients: Vec<Client> = (0..4).map(|_| Client::get(&proxy, "a.test", "/")).collect();
    proxy.await_count("c", 4);
    proxy.await_log(&format!("{away} {}", logged::CANNOT_BE_REACHED));
    let server = App::start_at(away, |_| ok("back"));
    clients.iter_mut().for_each(|client| assert_eq!(client.read_response().text(), "back"));
    assert!(server.served() == 4);
    proxy.await_log(&format!("{away}{}", logged::IS_UP));
}

#[test]
fn a_server_that_closes_what_it_accepts_is_set_aside() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    let (accepted, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let proxy = Proxy::with(&format!("wait-timeout 1s\nsite a.test servers={address}"));
    std::thread::scope(|scope| {
        let (accepted, stop) = (&accepted, &stop);
        scope.spawn(move || {
            for stream in listener.incoming() {
                drop(stream);
                accepted.fetch_add(1, Ordering::SeqCst);
                if stop.load(Ordering::SeqCst) {
                    break;
                }
            }
        });
        let mut client = Client::get(&proxy, "a.test", "/");
        let response = client.read_response();
        assert!(matches!(response.status(), 502..=504), "{response:?}");
        stop.store(true, Ordering::SeqCst);
        let _ = std::net::TcpStream::connect(address);
    });
    let accepted = accepted.load(Ordering::SeqCst);
    assert!(accepted < 100, "{accepted} connections in a second");
}

/// The one that is killed and started again has requests in hand each time; none of them may be
/// lost.
#[test]
fn gets_lose_nothing_while_a_server_is_killed_and_started_again() {
    let steady = App::named("steady", After::Keep);
    let shaky = App::start_at(free_address(), |_| ok("shaky"));
    let address = shaky.address();
    // It closes its connections one after the other, and a request must not meet several of them.
    let proxy = proxy(&format!("{},{address} max=8", steady.address()));
    let mut shaky = Some(shaky);
    let is_answer = |_: &str, _: &str| true;
    Load::run(&proxy, "GET", 12, is_answer, |load| {
        for _ in 0..4 {
            load.await_more(15);
            drop(shaky.take());
            // Requests come while it is away.
            load.await_more(2);
            let back = shaky.insert(App::start_at(address, |_| ok("shaky")));
            eventually("it serves again", || back.served() > 0);
        }
    });
}

#[test]
fn idle_connections_are_closed_after_a_while() {
    let server = App::named("s", After::Keep);
    let list = server.address();
    let proxy = Proxy::with(&format!("dial-idle 3s\nsite a.test servers={list}"));
    ask(&proxy);
    assert_eq!(server_info(&proxy, list, "open"), 1);
    assert_eq!(proxy.info().number(&["sites", "a.test", "bridges"]), 1);
    eventually("it is closed", || server.open() == 0);
    eventually("that is counted", || {
        server_info(&proxy, list, "open") == 0
            && proxy.info().number(&["sites", "a.test", "bridges"]) == 0
    });
    let before = server.accepted();
    ask(&proxy);
    assert_eq!(server.accepted(), before + 1);
}

#[test]
fn bridges_and_servers_are_slots_of_the_same_site() {
    let server = App::named("dialled", After::Keep);
    let proxy =
        Proxy::with(&format!("bridges-per-host 1\nsite a.test servers={} max=1", server.address()));
    let held = server.hold();
    let mut first = Client::get(&proxy, "a.test", "/");
    // A connection is open before the request is on it, and until then a bridge may take that.
    eventually("the server has it", || server.connections() == 1);
    // What we have dialled does not count among the bridges of the name.
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut second = Client::get(&proxy, "a.test", "/");
    bridge.serve_to(&mut second, "bridge");
    drop(held);
    assert_eq!(first.read_response().text(), "dialled");
}

#[test]
fn sighup_adds_and_removes_servers() {
    let (old, new) = (App::named("old", After::Keep), App::named("new", After::Keep));
    let setup = Setup::new().settings(&format!("site a.test servers={}", old.address()));
    let proxy = setup.start();
    let held = old.hold();
    let mut busy = Client::get(&proxy, "a.test", "/");
    eventually("it is asked", || old.connections() == 1);
    let (from, to) = (old.address().to_string(), new.address().to_string());
    proxy.change_settings(&format!("servers={from}"), &format!("servers={to}"));
    proxy.reload_well();
    proxy.await_log(logged::SITE_CHANGED);
    assert_eq!(ask(&proxy), "new");
    drop(held);
    // What it is at is finished, and then the connection is closed.
    assert_eq!(busy.read_response().text(), "old");
    eventually("the old one is closed", || old.open() == 0);
    assert_eq!(ask(&proxy), "new");
    // While the new one's connection is not parked again, the next request dials.
    proxy.await_count("b", 1);
    proxy.change_settings(&format!("servers={from}"), &format!("servers={from},{to}"));
    proxy.reload_well();
    assert!(proxy.info().at(&["servers"]).get(&format!("{from} of a.test")).is_some());
    // The new one's connection is taken, and of the two the old one has fewer.
    let held = new.hold();
    let mut first = Client::get(&proxy, "a.test", "/");
    eventually("it is asked", || proxy.count("B") == 1);
    assert_eq!(ask(&proxy), "old");
    drop(held);
    assert_eq!(first.read_response().text(), "new");
}

#[test]
fn a_server_that_comes_back_into_the_settings_still_has_its_connections() {
    let server = App::named("s", After::Keep);
    let line = format!("servers={} max=1", server.address());
    let proxy = proxy(&format!("{} max=1", server.address()));
    let held = server.hold();
    let mut busy = Client::get(&proxy, "a.test", "/");
    eventually("it is asked", || server.connections() == 1);
    let known = || {
        let name = format!("{} of a.test", server.address());
        proxy.info().at(&["servers"]).get(&name).is_some()
    };
    proxy.change_settings(&line, "timeout=5s");
    proxy.reload_well();
    assert!(!known());
    proxy.change_settings(&line, &line);
    proxy.reload_well();
    assert!(known());
    let mut clients: Vec<Client> = (0..4).map(|_| Client::get(&proxy, "a.test", "/")).collect();
    proxy.await_count("c", 4);
    // Each looks for a connection again and again meanwhile.
    let_pass(Duration::from_millis(200));
    assert_eq!(server_info(&proxy, server.address(), "open"), 1);
    drop(held);
    assert_eq!(busy.read_response().text(), "s");
    clients.iter_mut().for_each(|client| assert_eq!(client.read_response().text(), "s"));
    assert_eq!(server.most(), 1);
}

#[test]
fn a_request_that_waits_for_a_server_is_finished_when_the_proxy_ends() {
    let server = App::named("s", After::Close);
    let mut proxy = proxy(&format!("{} max=1", server.address()));
    let held = server.hold();
    let mut clients: Vec<Client> = (0..3).map(|_| Client::get(&proxy, "a.test", "/")).collect();
    eventually("one is asked, two wait", || proxy.count("c") == 2 && server.connections() == 1);
    proxy.terminate();
    proxy.await_log(logged::SHUTTING_DOWN);
    drop(held);
    for client in &mut clients {
        assert_eq!(client.read_response().text(), "s");
    }
    drop(clients);
    assert!(proxy.wait_exit().success());
}

/// A request of a name that has a site waits, whatever becomes of unknown names.
#[test]
fn site_is_known_before_its_servers_are_up() {
    let away = free_address();
    let proxy = Proxy::with(&format!("unknown-host 404\nsite a.test servers={away}"));
    let mut client = Client::get(&proxy, "a.test", "/");
    proxy.await_count("c", 1);
    let _server = App::start_at(away, |_| ok("late"));
    assert_eq!(client.read_response().text(), "late");
    let unknown = Client::ask(&proxy, "GET / HTTP/1.1\r\nHost: b.test\r\n\r\n");
    assert_eq!(unknown.status(), 404);
}

#[test]
fn port_alone_is_a_server_on_the_ipv6_loopback_too() {
    // At the other address somebody else could listen, who would be taken for it.
    let (_kept, port) = kept_port();
    let _server = App::start_at((Ipv6Addr::LOCALHOST, port).into(), |_| ok("served"));
    let proxy = proxy(&port.to_string());
    for _ in 0..3 {
        assert_eq!(ask(&proxy), "served");
    }
    assert!(!proxy.log().contains(logged::CANNOT_BE_REACHED), "{}", proxy.log());
}

const UPGRADE: &str =
    "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// A server's end of a connection that asks for a WebSocket, granted.
fn grant(server: &mut Wire, client: &mut Client) {
    assert!(server.read_head().start.starts_with("GET /chat "));
    server.send(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    assert_eq!(client.read_head().status(), 101);
}

#[test]
fn a_tunnel_to_a_server_leaves_its_place_to_requests() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let proxy = proxy(&format!("{address} max=1 tunnels=1"));
    listener.set_nonblocking(true).expect("its flag");
    let accept = || {
        let mut dialled = None;
        eventually("the proxy dials", || {
            dialled = listener.accept().ok();
            dialled.is_some()
        });
        let (stream, _) = dialled.expect("it has dialled");
        Wire::new(stream)
    };
    let mut first = Client::request(&proxy, UPGRADE);
    let mut tunnel = accept();
    grant(&mut tunnel, &mut first);
    // A request has the one place beside it, and leaves its connection for another tunnel.
    let mut client = Client::get(&proxy, "a.test", "/");
    let mut kept = accept();
    assert!(kept.read_head().start.starts_with("GET / "));
    kept.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.read_response().text(), "ok");
    proxy.await_count("b", 1);
    let mut second = Client::request(&proxy, UPGRADE);
    grant(&mut kept, &mut second);
    assert_eq!(server_info(&proxy, address, "open"), 2);
    // That one keeps its place: requests wait until it ends.
    let mut waiting = Client::get(&proxy, "a.test", "/late");
    proxy.await_count("c", 1);
    for (end, peer) in [(&mut tunnel, &mut first), (&mut kept, &mut second)] {
        end.send("down");
        peer.expect_exact("down");
    }
    assert_eq!(proxy.count("c"), 1);
    drop((kept, second));
    let mut last = accept();
    assert!(last.read_head().start.starts_with("GET /late "));
    last.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
    assert_eq!(waiting.read_response().text(), "late");
}
