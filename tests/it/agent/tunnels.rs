//! Tunnels through the agent, which have places of their own.

use crate::common::{Agent, App, Client, Proxy, at, eventually, ok};

const UPGRADE: &str =
    "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";

/// An application that grants every upgrade, and what comes through it is sent back.
fn app() -> App {
    App::start(|seen| match seen.head.starts_with("GET") {
        true if seen.head.contains("Upgrade: echo") => SWITCHED.into(),
        true => ok("served"),
        false => seen.head.clone().into_bytes(),
    })
}

#[track_caller]
fn open_tunnel(proxy: &Proxy) -> Client {
    let mut client = Client::request(proxy, UPGRADE);
    assert_eq!(client.read_head().status(), 101);
    client.send("hello\r\n\r\n");
    client.expect_exact("hello\r\n\r\n");
    client
}

#[track_caller]
fn serve(proxy: &Proxy) {
    assert_eq!(Client::get(proxy, "a.test", "/").read_response().text(), "served");
}

#[test]
fn tunnels_do_not_take_the_places_of_requests() {
    let (proxy, app) = (Proxy::start(), app());
    let _agent = Agent::serve(&app.to(), 1, &[at(&proxy)]);
    let mut tunnels: Vec<Client> = (0..5).map(|_| open_tunnel(&proxy)).collect();
    serve(&proxy);
    // Their bridges have been replaced, and no more than that.
    proxy.await_count("b", 1);
    for tunnel in &mut tunnels {
        tunnel.send("again\r\n\r\n");
        tunnel.expect_exact("again\r\n\r\n");
    }
    drop(tunnels);
    eventually("the tunnels have ended", || proxy.count("C") == 0);
    proxy.await_count("b", 1);
    serve(&proxy);
}

#[test]
fn a_tunnel_too_many_is_refused_and_said() {
    let (proxy, app) = (Proxy::start(), app());
    let (to, bridges) = (app.to(), at(&proxy));
    let agent = Agent::start(&["--to", &to, "-n2", "--tunnels", "1", &bridges]);
    let first = open_tunnel(&proxy);
    let refused = Client::ask(&proxy, UPGRADE);
    assert_eq!(refused.status(), 503, "{refused:?}");
    agent.await_log("has 1 tunnels, as many as --tunnels allows");
    serve(&proxy);
    drop(first);
    eventually("the first has ended", || proxy.count("C") == 0);
    // The agent hears of it a moment later than the proxy.
    let mut response = 503;
    eventually("its place is free again", || {
        let mut client = Client::request(&proxy, UPGRADE);
        response = client.read_head().status();
        response == 101
    });
}

/// The place of a request for a tunnel that comes to nothing is free again.
#[test]
fn an_upgrade_that_is_declined_takes_no_place() {
    let proxy = Proxy::start();
    let app = App::start(|_| ok("no"));
    let (to, bridges) = (app.to(), at(&proxy));
    let _agent = Agent::start(&["--to", &to, "-n1", "--tunnels", "1", &bridges]);
    let mut client = Client::connect(&proxy);
    for _ in 0..3 {
        client.send(UPGRADE);
        assert_eq!(client.read_response().text(), "no");
    }
}
