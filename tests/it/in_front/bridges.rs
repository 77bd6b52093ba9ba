//! TLS between agents and proxies by two haproxies: `haproxy-bridges-agent.cfg` beside the agent and
//! `haproxy-bridges-proxy.cfg` beside each proxy.

use super::certificate;
use super::example::Example;
use super::front::{cloudbridge, for_this_user, key, start_haproxy};
use crate::common::{
    Agent, App, Bridge, Client, Dir, Json, Load, Process, Proxy, Wire, at, eventually,
    free_address, installed, ok, own_address,
};
use std::net::SocketAddr;

/// A proxy and the haproxy that takes TLS for it.
struct Site {
    proxy: Proxy,
    /// Where TLS is spoken.
    tls: SocketAddr,
    haproxy: Process,
}

/// The authorities, and two sites with certificates.
struct Sites {
    dir: Dir,
    sites: [Site; 2],
}

impl Sites {
    /// Starts them, unless something is missing, which is said.
    #[track_caller]
    fn start() -> Option<Sites> {
        if !installed("haproxy", &["haproxy", "-v"]) || !certificate::can_be_made() {
            return None;
        }
        let dir = Dir::new();
        certificate::authority(&dir, "proxies-ca");
        certificate::authority(&dir, "agents-ca");
        let sites = ["proxy1", "proxy2"].map(|name| Site::start(&dir, name));
        Some(Sites { dir, sites })
    }

    /// haproxy beside an agent, with a certificate of this authority, and where it takes the bridges
    /// for each proxy. `names` are what the proxies' certificates must say.
    #[track_caller]
    fn beside_agent(&self, authority: &str, names: [&str; 2]) -> (Process, [SocketAddr; 2]) {
        certificate::issue(&self.dir, authority, "agent1", "agent.pem");
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let ports = [free_address(), free_address()];
        let mut example = for_this_user(Example::read("haproxy-bridges-agent.cfg"))
            .with("/etc/haproxy/agent.pem", path("agent.pem"))
            .with("/etc/haproxy/proxies-ca.pem", path("proxies-ca.pem"))
            .with("127.0.0.1:8079", ports[0])
            .with("127.0.0.1:8179", ports[1]);
        for (number, name) in names.into_iter().enumerate() {
            let host = format!("proxy{}.example.com", number + 1);
            let tls = self.sites[number].tls;
            example = example.with(&format!("{host}:8443"), tls);
            example = example.with(&format!("sni str({host})"), format!("sni str({name})"));
        }
        (start_haproxy(&self.dir, "haproxy-agent.cfg", &example, ports[0]), ports)
    }
}

/// The names in the proxies' certificates.
const NAMES: [&str; 2] = ["proxy1.example.com", "proxy2.example.com"];

impl Site {
    #[track_caller]
    fn start(dir: &Dir, name: &str) -> Site {
        let example = Example::read("haproxy-bridges-proxy.cfg");
        let ip = own_address();
        let settings = example
            .settings()
            .with("127.0.0.1:8079", format!("{ip}:0"))
            .with("*:8080", format!("{ip}:0"))
            .with("/etc/cloudbridge/secrets", "{dir}/secrets");
        let proxy = cloudbridge(&settings);
        let certificate = format!("{name}.pem");
        certificate::issue(dir, "proxies-ca", &format!("{name}.example.com"), &certificate);
        let path = |name: &str| dir.path().join(name).display().to_string();
        let tls = free_address();
        let example = for_this_user(example)
            .with("/etc/haproxy/bridges.pem", path(&certificate))
            .with("/etc/haproxy/agents-ca.pem", path("agents-ca.pem"))
            .with("*:8443", tls)
            .with("127.0.0.1:8079", proxy.for_bridges());
        let haproxy = start_haproxy(dir, &format!("haproxy-{name}.cfg"), &example, tls);
        Site { proxy, tls, haproxy }
    }
}

/// An agent in front of the application, with this many slots at each of these addresses.
#[track_caller]
fn agent(app: &App, slots: usize, proxies: &[SocketAddr]) -> Agent {
    let mut arguments = vec!["--to".to_owned(), app.to(), format!("-n{slots}")];
    arguments.extend(["--host", "a.test", "--key", &key("a.test")].map(str::to_owned));
    arguments.extend(proxies.iter().map(SocketAddr::to_string));
    Agent::start(&arguments)
}

fn is_target(path: &str, text: &str) -> bool {
    text == path
}

/// An application that answers with the target of the request.
fn echo_target() -> App {
    App::start(|seen| ok(seen.head.split(' ').nth(1).unwrap_or_default()))
}

#[test]
fn bridges_come_through_tls_to_both_proxies() {
    let Some(sites) = Sites::start() else { return };
    let (_haproxy, ports) = sites.beside_agent("agents-ca", NAMES);
    let app = echo_target();
    let _agent = agent(&app, 4, &ports);
    for site in &sites.sites {
        site.proxy.await_count("b", 4);
        for method in ["GET", "POST"] {
            Load::run(&site.proxy, method, 2, is_target, |load| load.await_more(20));
        }
        // The address is the one that the haproxy before the proxy has seen.
        let state = site.proxy.info();
        let Json::List(rows) = state.at(&["backends"]) else { panic!("{state:?}") };
        assert_eq!(rows[0].at(&["address"]), &Json::Text("127.0.0.1".to_owned()));
    }
}

#[test]
fn a_websocket_passes_through_tls() {
    let Some(sites) = Sites::start() else { return };
    let (_haproxy, ports) = sites.beside_agent("agents-ca", NAMES);
    let proxy = &sites.sites[0].proxy;
    let mut bridge = Bridge::over(Wire::connect(ports[0]));
    let key = key("a.test");
    bridge.send(format!("BRIDGE / HTTP/1.1\r\nHost: a.test\r\nHost-Key: {key}\r\n\r\n"));
    bridge.expect_exact(crate::common::ACK);
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut client = Client::request(proxy, format!("GET / HTTP/1.1\r\nHost: a.test\r\n{upgrade}"));
    bridge.accept_request();
    bridge.send(format!("HTTP/1.1 101 Switching Protocols\r\n{upgrade}"));
    assert_eq!(client.read_head().status(), 101);
    for _ in 0..3 {
        client.send("from the client");
        bridge.expect_exact("from the client");
        bridge.send("from the backend");
        client.expect_exact("from the backend");
    }
    drop(bridge);
    client.expect_closed();
}

/// An agent that ends says so to each proxy, and nothing is lost; the others take over.
#[test]
fn a_rolling_restart_of_agents_loses_nothing_behind_tls() {
    let Some(sites) = Sites::start() else { return };
    let (_haproxy, ports) = sites.beside_agent("agents-ca", NAMES);
    let app = echo_target();
    let mut first = agent(&app, 4, &ports);
    let proxy = &sites.sites[0].proxy;
    proxy.await_count("b", 4);
    Load::run(proxy, "POST", 4, is_target, |load| {
        for _ in 0..3 {
            load.await_more(10);
            let next = agent(&app, 4, &ports);
            // Two agents with four bridges each, parked or busy.
            eventually("the next one is there", || proxy.count("b") + proxy.count("B") == 8);
            first.terminate();
            assert!(first.wait_exit().success());
            first = next;
        }
        load.await_more(10);
    });
    sites.sites[1].proxy.await_count("b", 4);
}

/// A killed agent is noticed at once: a GET that it had goes to another one.
#[test]
fn a_killed_agent_is_noticed_through_tls() {
    let Some(sites) = Sites::start() else { return };
    let (_haproxy, ports) = sites.beside_agent("agents-ca", NAMES);
    let proxy = &sites.sites[0].proxy;
    let held = App::start(|_| ok("by the first"));
    let hold = held.hold();
    let first = agent(&held, 1, &ports[..1]);
    proxy.await_count("b", 1);
    let mut client = Client::get(proxy, "a.test", "/");
    proxy.await_count("B", 1);
    let other = App::start(|_| ok("by the other"));
    let _second = agent(&other, 1, &ports[..1]);
    proxy.await_count("b", 1);
    drop(first);
    assert_eq!(client.read_response().text(), "by the other");
    drop(hold);
}

#[test]
fn an_agent_with_a_certificate_of_somebody_else_gets_no_bridge() {
    let Some(sites) = Sites::start() else { return };
    certificate::authority(&sites.dir, "strangers-ca");
    let (_haproxy, ports) = sites.beside_agent("strangers-ca", NAMES);
    let app = echo_target();
    let stranger = agent(&app, 1, &ports);
    sites.sites[0].haproxy.await_log("SSL client certificate not trusted");
    stranger.await_log(crate::common::logged::NO_BRIDGE);
    // Nor does one that speaks no TLS.
    let mut plain = Bridge::over(Wire::connect(sites.sites[0].tls));
    plain.send("BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    plain.expect_closed();
    for site in &sites.sites {
        assert_eq!(site.proxy.count("b"), 0);
    }
}

#[test]
fn an_agent_gives_no_bridge_to_a_proxy_with_another_name() {
    let Some(sites) = Sites::start() else { return };
    let names = ["elsewhere.example.com", NAMES[1]];
    let (haproxy, ports) = sites.beside_agent("agents-ca", names);
    let app = echo_target();
    let _agent = agent(&app, 1, &ports);
    sites.sites[1].proxy.await_count("b", 1);
    eventually("the first is refused", || haproxy.log().contains("proxy1 proxy1/proxy1 "));
    assert_eq!(sites.sites[0].proxy.count("b"), 0);
}

/// A client certificate does not replace a key: that says which names may be served.
#[test]
fn a_bridge_through_tls_needs_its_key() {
    let Some(sites) = Sites::start() else { return };
    let (_haproxy, ports) = sites.beside_agent("agents-ca", NAMES);
    let mut bridge = Bridge::over(Wire::connect(ports[0]));
    bridge.send("BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(bridge.read_refusal().status(), 401);
    // Directly at the proxy a PROXY header is expected, and only haproxy is there to send one.
    let address = at(&sites.sites[0].proxy).parse().expect("an address");
    let mut direct = Bridge::connect_to(address);
    direct.send("BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    direct.expect_closed();
}
