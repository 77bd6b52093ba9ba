//! What `nginx.conf` says of two proxies.

use super::certificate;
use super::example::Example;
use super::front::{cloudbridge, key, settings_at, start_nginx};
use crate::common::{Bridge, Client, Dir, eventually, free_address, installed, own_address};

/// With the lines for two in place of the one server, all requests for a host go to one proxy, and to
/// the other when that has gone.
#[test]
fn all_requests_for_a_host_go_to_one_of_two_proxies() {
    if !installed("nginx", &["nginx", "-v"]) || !certificate::can_be_made() {
        return;
    }
    let example = Example::read("nginx.conf");
    let dir = Dir::new();
    certificate::authority(&dir, "authority");
    certificate::issue(&dir, "authority", "a.test", "site.pem");
    let http = free_address();
    let start = || cloudbridge(&settings_at(example.settings(), "127.0.0.1", own_address()));
    let mut proxies = [Some(start()), Some(start())];
    let [one, two] = proxies.each_ref().map(|proxy| proxy.as_ref().expect("it runs").for_clients());
    let example = example
        .clone()
        .without_line("server 127.0.0.1:8080;")
        .with("#hash", "hash")
        .with("#server 10.0.0.11:8080", format!("server {one}"))
        .with("#server 10.0.0.12:8080", format!("server {two}"))
        .with("listen 80;", format!("listen {http};"))
        .with("listen 443 ", format!("listen {} ", free_address()))
        .with("/etc/nginx/site.pem", dir.path().join("site.pem").display());
    let _nginx = start_nginx(&dir, example, http);
    let key = key("a.test");
    let mut bridges = proxies.each_ref().map(|proxy| {
        let registration = format!("BRIDGE / HTTP/1.1\r\nHost: a.test\r\nHost-Key: {key}\r\n\r\n");
        Bridge::register(proxy.as_ref().expect("it runs"), registration)
    });
    let ask = || {
        let mut client = Client::connect_to(http);
        client.send_get("a.test", "/");
        client
    };
    let mut first = ask();
    let mut chosen = None;
    eventually("a proxy has the request", || {
        chosen = bridges.iter().position(|bridge| bridge.has_bytes());
        chosen.is_some()
    });
    let chosen = chosen.expect("one of them");
    bridges[chosen].serve_to(&mut first, "first");
    for _ in 0..8 {
        bridges[chosen].serve_to(&mut ask(), "served");
    }
    proxies[chosen] = None;
    for _ in 0..8 {
        bridges[1 - chosen].serve_to(&mut ask(), "by the other");
    }
}
