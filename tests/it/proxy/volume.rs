//! A gigabyte: what goes in comes out, byte for byte, and the proxy needs no more memory for it
//! than for a page.

use crate::common::{Bridge, Client, DEADLINE, Proxy, Wire, eventually, let_pass, under_way};
use std::time::Duration;

/// How much goes through, in bytes.
const SIZE: u64 = 1024 * 1024 * 1024;

/// One stretch of the body; the next is the same but for its number.
const STRETCH: usize = 1024 * 1024;

/// The most memory that the proxy may ever have had: two workers with their scratch buffers, and
/// nothing that grows with the body.
const MEMORY: u64 = 32 * 1024 * 1024;

/// For a gigabyte on two busy cores.
const LONG_DEADLINE: Duration = Duration::from_secs(120);

/// A body of any length, in which no two stretches are equal.
struct Body(Vec<u8>);

impl Body {
    fn new() -> Body {
        Body(crate::common::pattern(0, STRETCH))
    }

    /// The stretch of this number.
    fn stretch(&mut self, number: u64) -> &[u8] {
        self.0[..8].copy_from_slice(&number.to_be_bytes());
        &self.0
    }

    fn send(&mut self, wire: &mut Wire, size: u64) {
        wire.timeout(LONG_DEADLINE);
        (0..size / STRETCH as u64).for_each(|number| wire.send(self.stretch(number)));
    }

    /// Reads as many bytes and compares every one of them.
    #[track_caller]
    fn read(&mut self, wire: &mut Wire, size: u64) {
        wire.timeout(LONG_DEADLINE);
        for number in 0..size / STRETCH as u64 {
            let mut at = 0;
            while at < STRETCH {
                let Some(bytes) = wire.read_some(STRETCH - at) else {
                    panic!("the body ended in stretch {number}, after {at} bytes");
                };
                let expected = &self.stretch(number)[at..at + bytes.len()];
                assert!(bytes == expected, "stretch {number} differs behind byte {at}");
                at += bytes.len();
            }
        }
    }
}

#[track_caller]
fn assert_memory_stayed_flat(proxy: &Proxy) {
    let peak = proxy.peak_memory();
    assert!(peak < MEMORY, "{peak} bytes at its peak");
}

#[test]
fn a_gigabyte_down_arrives_byte_for_byte_and_costs_no_memory() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            bridge.accept_request();
            bridge.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"));
            Body::new().send(&mut bridge, SIZE);
        });
        client.read_head();
        Body::new().read(&mut client, SIZE);
    });
    assert_memory_stayed_flat(&proxy);
}

#[test]
fn a_gigabyte_up_arrives_byte_for_byte_and_costs_no_memory() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(
        &proxy,
        format!("PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {SIZE}\r\n\r\n"),
    );
    std::thread::scope(|scope| {
        let client = &mut client;
        scope.spawn(move || Body::new().send(client, SIZE));
        bridge.accept_head();
        Body::new().read(&mut bridge, SIZE);
    });
    bridge.respond_to(&mut client, "all there");
    assert_memory_stayed_flat(&proxy);
}

/// The backend is held back: what it has sent fills the kernel's buffers, and does not grow after
/// that.
#[test]
fn a_client_that_reads_a_kilobyte_a_second_costs_no_memory() {
    /// What the buffers of four sockets and a pipe can hold at the most, with tcp(7)'s limits as
    /// Debian has them.
    const BUFFERS: u64 = 64 * 1024 * 1024;
    let proxy = Proxy::start();
    let (mut client, mut bridge) = under_way(&proxy);
    bridge.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"));
    client.read_head();
    let sent = std::thread::scope(|scope| {
        let backend = scope.spawn(move || {
            bridge.timeout(DEADLINE);
            let (mut body, mut sent) = (Body::new(), 0);
            while bridge.send_if_open(body.stretch(sent)) {
                sent += 1;
            }
            sent * STRETCH as u64
        });
        let mut body = Body::new();
        for at in (0..40).map(|piece| piece * 100) {
            assert_eq!(client.read_exactly(100), body.stretch(0)[at..at + 100]);
            let_pass(Duration::from_millis(100));
        }
        assert_memory_stayed_flat(&proxy);
        // This ends the backend's sending.
        drop(client);
        backend.join().expect("the backend")
    });
    assert!(sent < BUFFERS, "nothing held the backend back before {sent} bytes");
    eventually("the exchange is over", || proxy.count("C") == 0);
}
