//! What each listener accepts: clients only, bridges only, bridges without keys.

use crate::common::{Bridge, Client, Proxy, Setup};

const REGISTRATION: &str = "BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n";

#[test]
fn one_listener_for_clients_and_one_for_bridges() {
    let proxy = Proxy::with("listen 127.0.0.1:0 clients\nlisten 127.0.0.1:0 bridges");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    bridge.serve_to(&mut client, "met");
}

#[test]
fn a_listener_for_clients_refuses_bridges() {
    let proxy = Proxy::with("listen 127.0.0.1:0 clients\nlisten 127.0.0.1:0 bridges");
    let mut bridge = Bridge::connect_to(proxy.for_clients());
    bridge.send(REGISTRATION);
    assert_eq!(bridge.read_refusal().status(), 405);
}

#[test]
fn a_listener_for_bridges_refuses_clients() {
    let proxy = Proxy::with("listen 127.0.0.1:0 clients\nlisten 127.0.0.1:0 bridges");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::connect_to(proxy.for_bridges());
    client.send_get("a.test", "/");
    client.read_response().assert_own_reply(404);
    client.expect_closed();
    bridge.assert_untouched(&proxy, "a.test");
}

/// Behind another proxy on the same machine everybody seems to be local, so a forwarding header
/// speaks against a bridge without a key.
#[test]
fn without_secrets_a_bridge_that_came_through_a_proxy_is_refused_and_told_how() {
    let proxy = Proxy::start();
    for field in [
        "X-Forwarded-For: 192.0.2.1",
        "Forwarded: for=192.0.2.1",
        "Via: 1.1 front",
        "X-Real-IP: 192.0.2.1",
    ] {
        let registration = format!("BRIDGE / HTTP/1.1\r\nHost: a.test\r\n{field}\r\n\r\n");
        let refusal = Bridge::refused(&proxy, registration);
        assert_eq!(refusal.status(), 401, "{field}: {refusal:?}");
        let reason = refusal.text();
        assert!(
            reason.contains("open-bridges") || reason.contains("secrets"),
            "{field}: {refusal:?}"
        );
    }
}

#[test]
fn open_bridges_lets_a_bridge_in_that_came_through_a_proxy() {
    let proxy = Proxy::with("open-bridges yes");
    Bridge::register(
        &proxy,
        "BRIDGE / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n",
    );
}

#[test]
fn with_a_key_a_bridge_may_come_through_a_proxy() {
    let proxy = Setup::new()
        .settings("secrets {dir}/secrets")
        .file("secrets", "1600000000:second\n")
        .start();
    Bridge::register(
        &proxy,
        "BRIDGE / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 192.0.2.1\r\n\
         Host-Key: adb7c404c49597d34e253d48aba583c439491d84:1700000000:a.test\r\n\r\n",
    );
}
