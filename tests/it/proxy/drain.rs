//! SIGTERM while somebody is about to ask: what the kernel has taken for the proxy is served, and
//! nobody is reset.

use crate::common::{
    ACK, Bridge, Client, Ending, Proxy, eventually, free_address, let_pass, on_time,
};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Sends SIGTERM and waits until every worker has taken it: the last of them has closed its
/// listener.
#[track_caller]
fn terminate(proxy: &Proxy) {
    let address = proxy.for_clients();
    proxy.terminate();
    eventually("connections are refused", || TcpStream::connect(address).is_err());
}

/// Fails unless the client gets this answer, and a close in good order behind it.
#[track_caller]
fn expect_last_response(client: &mut Client, body: &str) {
    let response = client.read_response();
    assert_eq!(response.text(), body);
    assert_eq!(response.field("connection"), Some("close"), "{response:?}");
    assert_eq!(client.expect_closed(), Ending::Closed);
}

#[test]
fn sigterm_waits_for_the_rest_of_a_head() {
    let mut proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(&proxy, "GET /half HTTP/1.1\r\nHost: a.te");
    proxy.await_asleep();
    terminate(&proxy);
    client.send("st\r\n\r\n");
    assert_eq!(bridge.serve("served"), "GET /half HTTP/1.1");
    expect_last_response(&mut client, "served");
    bridge.read_to_end();
    drop((client, bridge));
    assert!(proxy.wait_exit().success());
}

/// Its request may have been on its way when the signal came.
#[test]
fn sigterm_leaves_a_silent_connection_half_a_second() {
    /// How long it is left open.
    const LAST_CHANCE: Duration = Duration::from_millis(500);
    for _ in 0..50 {
        let mut proxy = Proxy::start();
        let mut bridge = Bridge::park(&proxy, &["a.test"]);
        let mut client = Client::connect(&proxy);
        proxy.await_count("?", 1);
        let signalled = Instant::now();
        terminate(&proxy);
        let is_sent = client.send_if_open("GET /late HTTP/1.1\r\nHost: a.test\r\n\r\n");
        if signalled.elapsed() >= LAST_CHANCE {
            // The test itself was too slow, and shows nothing.
            continue;
        }
        assert!(is_sent, "it was closed before that");
        assert_eq!(bridge.serve("served"), "GET /late HTTP/1.1");
        expect_last_response(&mut client, "served");
        bridge.read_to_end();
        drop((client, bridge));
        assert!(proxy.wait_exit().success());
        return;
    }
    panic!("no request was sent within {LAST_CHANCE:?} of the signal");
}

/// They would be reset with the listener, although they have been told that they are connected.
#[test]
fn sigterm_serves_connections_in_the_backlog() {
    let mut proxy = Proxy::with("workers 4");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    proxy.freeze();
    let mut clients: Vec<Client> =
        (0..16).map(|number| Client::get(&proxy, "a.test", &format!("/{number}"))).collect();
    proxy.terminate();
    proxy.thaw();
    for _ in 0..clients.len() {
        let line = bridge.serve("served");
        assert!(line.starts_with("GET /"), "{line}");
    }
    for client in &mut clients {
        // Whether it says that it closes depends on whether its worker had the signal by then.
        assert_eq!(client.read_response().text(), "served");
        assert_eq!(client.expect_closed(), Ending::Closed);
    }
    bridge.read_to_end();
    drop((clients, bridge));
    assert!(proxy.wait_exit().success());
}

/// Its backend may be there after all, and no other will come now that nobody can dial.
#[test]
fn sigterm_waits_for_the_bridge_that_is_probed_for_a_request() {
    on_time(Duration::from_millis(500), || {
        let mut proxy = Proxy::with("workers 1\nbridge-ack-timeout 3s");
        let [mut silent, mut probed] = [(); 2].map(|()| {
            let fields = "Cloudbridge-Extensions: probes\r\n";
            Bridge::with_token(&proxy, fields, "leave, undelivered, probes")
        });
        let mut client = Client::get(&proxy, "a.test", "/");
        silent.read_switch();
        silent.expect_closed();
        probed.read_switch();
        terminate(&proxy);
        // It is late, and still in time.
        let_pass(Duration::from_millis(500));
        probed.send(ACK);
        probed.serve("served");
        expect_last_response(&mut client, "served");
        probed.read_to_end();
        drop((client, probed));
        assert!(proxy.wait_exit().success());
    });
}

/// RFC 9112, section 9.6: the FIN and the client's next request may cross. The request is lost, but
/// a reset would tell the client nothing of whether it was, and would take from it what it has not
/// read yet.
#[test]
fn sigterm_does_not_reset_an_idle_client_whose_request_crosses_the_fin() {
    let mut proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    bridge.serve_to(&mut client, "served");
    proxy.terminate();
    assert_eq!(client.expect_closed(), Ending::Closed);
    client.send_get("a.test", "/crossing");
    assert_eq!(client.expect_closed(), Ending::Closed);
    bridge.read_to_end();
    drop((client, bridge));
    assert!(proxy.wait_exit().success());
}

#[test]
fn nothing_is_reloaded_while_shutting_down() {
    let mut proxy = Proxy::with("body-timeout 30s");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    bridge.accept_request();
    terminate(&proxy);
    proxy.change_settings("body-timeout 30s", &format!("listen {}", free_address()));
    proxy.reload();
    proxy.await_log("HUP: nothing is changed while shutting down");
    bridge.respond("served");
    expect_last_response(&mut client, "served");
    drop((client, bridge));
    assert!(proxy.wait_exit().success());
    assert_eq!(proxy.log().matches("listening on 127.").count(), 1, "{}", proxy.log());
}
