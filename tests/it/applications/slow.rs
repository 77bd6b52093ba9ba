//! Clients that read nothing, where the kernel keeps next to nothing for them.

use super::network::alone;
use crate::common::{Bridge, Client, Proxy, Stopwatch, eventually, on_time, under_way};
use std::fs;
use std::time::Duration;

/// Makes the buffers of every socket that is opened from now on this small, in bytes.
fn small_buffers() {
    for which in ["tcp_wmem", "tcp_rmem"] {
        let path = format!("/proc/sys/net/ipv4/{which}");
        fs::write(path, "4096 8192 8192").expect("the sizes of buffers");
    }
}

/// More than the kernel's buffers hold, and less than `response-buffer`.
const PAGE: usize = 60_000;

#[test]
fn clients_that_do_not_read_hold_no_bridges() {
    if !alone("applications::slow::clients_that_do_not_read_hold_no_bridges") {
        return;
    }
    small_buffers();
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {PAGE}\r\n\r\n");
    let mut slow: Vec<Client> = (0..8)
        .map(|_| {
            let client = Client::get(&proxy, "a.test", "/");
            bridge.accept_request();
            bridge.send(&head);
            (0..PAGE / 1000).for_each(|_| bridge.send([b'x'; 1000]));
            client
        })
        .collect();
    let mut next = Client::get(&proxy, "a.test", "/next");
    bridge.serve_to(&mut next, "served");
    for client in &mut slow {
        client.expect_exact(&head);
        client.expect_exact([b'x'; PAGE]);
    }
}

/// Its request has waited until it takes what it was sent before.
#[test]
fn a_client_that_does_not_read_is_given_up_while_its_request_waits_to_be_sent_again() {
    if !alone(
        "applications::slow::a_client_that_does_not_read_is_given_up_while_its_request_waits_to_be_sent_again",
    ) {
        return;
    }
    small_buffers();
    // Until the backend has died, the client is not to be given up.
    on_time(Duration::from_millis(200), || {
        let proxy = Proxy::with("body-timeout 1s");
        let clock = Stopwatch::start();
        let (client, mut dying) = under_way(&proxy);
        let hint = format!("HTTP/1.1 103 Early Hints\r\nX: {}\r\n\r\n", "x".repeat(15_000));
        (0..32).for_each(|_| dying.send(&hint));
        drop(dying);
        eventually("the client is given up", || {
            proxy.info().number(&["totals", "connections"]) == 0
        });
        clock.assert_passed(Duration::from_secs(1));
        assert!(!client.is_closed(), "it has been sent something, which it has not read");
    });
}
