//! Names that are not answered, answered late, or answered otherwise than before.

use super::network::alone;
use crate::common::{Agent, App, Client, Dir, Proxy, Setup, at, eventually, ok};
use std::collections::HashMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex};

/// What a resolver is told: our server is the only one, and is waited for longer than any test
/// waits.
const RESOLV_CONF: &str = "nameserver 127.0.0.1\noptions timeout:30 attempts:2\n";

/// A name server that answers some names and says nothing of others.
struct Names {
    known: Arc<Mutex<HashMap<String, Ipv4Addr>>>,
    dir: Dir,
}

impl Names {
    #[track_caller]
    fn serve() -> Names {
        let socket = UdpSocket::bind("127.0.0.1:53").expect("the port is free in this network");
        let known = Arc::new(Mutex::new(HashMap::new()));
        let names = Arc::clone(&known);
        // It ends with the test's process, which is in this network for nothing else.
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                let (name, end) = question(&query[..length]);
                let found = names.lock().expect("lock").get(&name).copied();
                if let Some(address) = found {
                    let _ = socket.send_to(&answer(&query[..end], &[address]), from);
                }
            }
        });
        let dir = Dir::new();
        dir.write("resolv.conf", RESOLV_CONF);
        Names { known, dir }
    }

    fn set(&self, name: &str, address: Ipv4Addr) {
        self.known.lock().expect("lock").insert(name.to_owned(), address);
    }

    /// From now on it says nothing.
    fn fall_silent(&self) {
        self.known.lock().expect("lock").clear();
    }

    /// An agent that asks it, with these arguments.
    #[track_caller]
    fn agent(&self, args: &[&str]) -> Agent {
        let mut command = Command::new("unshare");
        let line = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
        command.args(["--mount", "sh", "-c", line]);
        command.arg(self.dir.path().join("resolv.conf"));
        command.arg(env!("CARGO_BIN_EXE_cloudbridge-agent")).args(args);
        Agent::spawn(command)
    }
}

/// The name that a query asks for, and where its question ends (RFC 1035, 4.1.2).
pub fn question(query: &[u8]) -> (String, usize) {
    let (mut labels, mut place) = (Vec::new(), 12);
    while query[place] != 0 {
        let length = usize::from(query[place]);
        labels.push(String::from_utf8_lossy(&query[place + 1..=place + length]).into_owned());
        place += length + 1;
    }
    (labels.join("."), place + 5)
}

/// The response to a query that ends with its question: these addresses, or nothing if it asks for
/// something else (RFC 1035, 4.1.1 and 4.1.3).
pub fn answer(query: &[u8], addresses: &[Ipv4Addr]) -> Vec<u8> {
    let is_a = query[query.len() - 4..] == [0, 1, 0, 1];
    let addresses = if is_a { addresses } else { &[] };
    let count = u8::try_from(addresses.len()).expect("few addresses");
    let mut response = query[..2].to_vec();
    response.extend([0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0]);
    response.extend(&query[12..]);
    for address in addresses {
        response.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        response.extend(address.octets());
    }
    response
}

#[test]
fn a_name_that_is_never_answered_holds_up_no_other() {
    if !alone("applications::names::a_name_that_is_never_answered_holds_up_no_other") {
        return;
    }
    let names = Names::serve();
    names.set("proxy.test", Ipv4Addr::LOCALHOST);
    names.set("app.test", Ipv4Addr::LOCALHOST);
    let proxy = Proxy::start();
    let app = App::start(|_| ok("served"));
    let to = format!("app.test:{}", app.address().port());
    let port = proxy.for_bridges().port();
    let proxies = ["silent.test", "mute.test", "proxy.test"].map(|name| format!("{name}:{port}"));
    let [silent, mute, good] = &proxies;
    let _agent = names.agent(&["--to", &to, "-n2", silent, mute, good]);
    proxy.await_count("b", 2);
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().text(), "served");
}

#[test]
fn a_proxy_that_restarts_during_an_outage_of_the_resolver_is_found() {
    if !alone(
        "applications::names::a_proxy_that_restarts_during_an_outage_of_the_resolver_is_found",
    ) {
        return;
    }
    let names = Names::serve();
    names.set("proxy.test", Ipv4Addr::LOCALHOST);
    let proxy = Proxy::start();
    let address = proxy.for_bridges();
    let app = App::start(|_| ok("served"));
    let name = format!("proxy.test:{}", address.port());
    let _agent = names.agent(&["--to", &app.to(), "-n2", &name]);
    proxy.await_count("b", 2);
    names.fall_silent();
    drop(proxy);
    let proxy = Setup::new().settings(&format!("listen {address}")).start();
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().text(), "served");
    proxy.await_count("b", 2);
}

/// It takes as long as the agent waits before it looks the name up again, ten seconds.
#[test]
fn an_application_that_has_moved_is_found_although_the_old_one_is_still_there() {
    if !alone(
        "applications::names::an_application_that_has_moved_is_found_although_the_old_one_is_still_there",
    ) {
        return;
    }
    let names = Names::serve();
    let proxy = Proxy::start();
    let old = App::start(|_| ok("old"));
    let port = old.address().port();
    let moved = Ipv4Addr::new(127, 0, 0, 2);
    let _new = App::start_at((moved, port).into(), |_| ok("new"));
    names.set("app.test", Ipv4Addr::LOCALHOST);
    let _agent = names.agent(&["--to", &format!("app.test:{port}"), "-n1", &at(&proxy)]);
    let asks = || Client::get(&proxy, "a.test", "/").read_response().text();
    assert_eq!(asks(), "old");
    names.set("app.test", moved);
    eventually("the new one serves", || asks() == "new");
}
