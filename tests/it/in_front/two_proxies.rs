//! `haproxy-two-proxies.cfg`: one queue for each host, slots where they are, and rolling restarts.

use super::certificate;
use super::example::Example;
use super::front::{cloudbridge, for_this_user, key, pinned, settings_at, start_haproxy};
use crate::common::{
    Agent, App, Bridge, Client, Dir, Load, Process, Proxy, at, eventually, free_address,
    haproxy_servers, installed, ok, on_time, own_address,
};
use std::net::SocketAddr;
use std::time::Duration;

/// haproxy and the two cloudbridges behind it.
struct Pair {
    http: SocketAddr,
    proxies: [Proxy; 2],
    /// The settings of each, with its addresses.
    settings: [Example; 2],
    dir: Dir,
    _haproxy: Process,
}

impl Pair {
    /// Starts them, unless something is missing, which is said.
    #[track_caller]
    fn start() -> Option<Pair> {
        if !installed("haproxy", &["haproxy", "-v"]) || !certificate::can_be_made() {
            return None;
        }
        let example = Example::read("haproxy-two-proxies.cfg");
        let settings = example.settings().with("/etc/cloudbridge/token", "{dir}/token");
        let settings = settings.with("trusted-proxies 10.0.0.4", "trusted-proxies 127.0.0.1");
        let dir = Dir::new();
        certificate::authority(&dir, "authority");
        certificate::issue(&dir, "authority", "a.test", "site.pem");
        let http = free_address();
        let mut haproxy = for_this_user(example)
            .with("*:80\n", format!("{http}\n"))
            .with("*:443", free_address())
            .with("/run/haproxy/admin.sock", dir.path().join("haproxy.sock").display())
            .with("/etc/haproxy/site.pem", dir.path().join("site.pem").display());
        let start = |address: &str| {
            let settings = settings_at(settings.clone(), "10.0.0.11", own_address());
            let proxy = cloudbridge(&settings);
            let (clients, admin) = (proxy.for_clients(), proxy.for_admin());
            let checks = proxy.for_agent_checks();
            let ports = [
                (&*format!("{address}:8080"), clients.to_string()),
                ("port 8404", format!("port {}", admin.port())),
                ("agent-port 8405", format!("agent-port {}", checks.port())),
            ];
            let settings = pinned(settings, &proxy)
                .with(&format!("agent-check {}:0", checks.ip()), format!("agent-check {checks}"));
            haproxy = haproxy.clone().with_in(address, &ports);
            (proxy, settings)
        };
        let [(one, of_one), (two, of_two)] = ["10.0.0.11", "10.0.0.12"].map(start);
        let process = start_haproxy(&dir, "haproxy.cfg", &haproxy, http);
        let (proxies, settings) = ([one, two], [of_one, of_two]);
        Some(Pair { http, proxies, settings, dir, _haproxy: process })
    }

    /// A field of one of the servers, as haproxy knows it.
    fn field(&self, backend: &str, server: &str, field: &str) -> String {
        let servers = haproxy_servers(&self.dir.path().join("haproxy.sock"), backend);
        servers.get(server).map(|row| row[field].clone()).unwrap_or_default()
    }

    /// Waits until haproxy gives the server this weight in this backend.
    #[track_caller]
    fn await_weight(&self, backend: &str, server: &str, weight: &str) {
        eventually(&format!("{backend}/{server} weighs {weight}"), || {
            self.field(backend, server, "srv_uweight") == weight
        });
    }

    fn is_up(&self, backend: &str, server: &str) -> bool {
        self.field(backend, server, "srv_op_state") == "2"
    }
}

/// A bridge of this host.
#[track_caller]
fn park(proxy: &Proxy, host: &str) -> Bridge {
    let key = key(host);
    Bridge::register(proxy, format!("BRIDGE / HTTP/1.1\r\nHost: {host}\r\nHost-Key: {key}\r\n\r\n"))
}

#[test]
fn all_requests_for_a_host_go_to_one_proxy() {
    let Some(pair) = Pair::start() else { return };
    for host in ["a.test", "b.test", "c.test", "d.test"] {
        let mut bridges = [park(&pair.proxies[0], host), park(&pair.proxies[1], host)];
        if host == "a.test" {
            // Slots of both: the weights do not change any more.
            let _ = &bridges;
            pair.await_weight("by_host", "proxy1", "1");
            pair.await_weight("by_host", "proxy2", "1");
        }
        let mut first = Client::connect_to(pair.http);
        first.send_get(host, "/");
        let mut chosen = None;
        eventually("a proxy has the request", || {
            chosen = bridges.iter().position(|bridge| bridge.has_bytes());
            chosen.is_some()
        });
        let bridge = &mut bridges[chosen.expect("one of them")];
        bridge.serve_to(&mut first, "first");
        // Another way to write the same host, on connections of their own.
        for host in [host.to_owned(), host.to_uppercase(), format!("{host}:80")] {
            for _ in 0..3 {
                let mut client = Client::connect_to(pair.http);
                client.send_get(&host, "/");
                bridge.serve_to(&mut client, "served");
            }
        }
        // Those of two hosts would be two slots, and the weight another.
        drop(bridges);
        pair.proxies.iter().for_each(Proxy::await_no_bridges);
    }
}

/// `/healthz/HOST` and the agent check: what has no slots for a host gets none of its requests, and
/// serves others.
#[test]
fn a_proxy_without_slots_for_a_host_is_down_for_it_alone() {
    const HOST: &str = "app.example.com";
    let Some(pair) = Pair::start() else { return };
    let mut bridge = park(&pair.proxies[0], HOST);
    eventually("haproxy knows", || pair.is_up("app", "proxy1") && !pair.is_up("app", "proxy2"));
    assert!(pair.is_up("by_host", "proxy1") && pair.is_up("by_host", "proxy2"));
    for _ in 0..6 {
        let mut client = Client::connect_to(pair.http);
        client.send_get(HOST, "/");
        bridge.serve_to(&mut client, "served");
    }
    let mut others = [park(&pair.proxies[1], HOST), park(&pair.proxies[1], HOST)];
    eventually("haproxy knows", || pair.is_up("app", "proxy2"));
    pair.await_weight("app", "proxy1", "1");
    pair.await_weight("app", "proxy2", "2");
    // In proportion: of three requests, two go to the proxy with two slots.
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect_to(pair.http)).collect();
    clients.iter_mut().for_each(|client| client.send_get(HOST, "/"));
    let [one, two] = &mut others;
    for bridge in [&mut bridge, one, two] {
        bridge.serve("in proportion");
    }
    for client in &mut clients {
        assert_eq!(client.read_response().text(), "in proportion");
    }
}

fn is_target(path: &str, text: &str) -> bool {
    text == path
}

/// Each proxy in turn gets TERM and is started again, under a load of GETs and POSTs.
#[test]
fn a_rolling_restart_of_the_proxies_loses_no_request() {
    // haproxy has five seconds to see that a proxy drains, and needs one.
    on_time(Duration::from_secs(2), || {
        let Some(mut pair) = Pair::start() else { return };
        let app = App::start(|seen| ok(seen.head.split(' ').nth(1).unwrap_or_default()));
        let (key, proxies) = (key("a.test"), [at(&pair.proxies[0]), at(&pair.proxies[1])]);
        let to = app.to();
        let arguments = ["--to", &to, "-n8", "--host", "a.test", "--key", &key];
        let _agent = Agent::start(&[&arguments[..], &[&proxies[0], &proxies[1]]].concat());
        for number in [0, 1] {
            pair.proxies[number].await_count("b", 8);
        }
        let http = pair.http;
        Load::run_at(http, "POST", 4, is_target, |posts| {
            Load::run_at(http, "GET", 4, is_target, |gets| {
                for (number, server) in ["proxy1", "proxy2"].into_iter().enumerate() {
                    posts.await_more(20);
                    gets.await_more(20);
                    pair.proxies[number].terminate();
                    pair.await_weight("by_host", server, "0");
                    assert!(pair.proxies[number].wait_exit().success());
                    pair.proxies[number] = cloudbridge(&pair.settings[number]);
                    // Not 8: some of the agent's places are taken through the other proxy.
                    eventually("it is up again", || pair.is_up("by_host", server));
                }
                posts.await_more(20);
                gets.await_more(20);
            });
        });
    });
}
