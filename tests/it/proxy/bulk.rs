//! Bodies far larger than any buffer: every byte arrives in its place, and a slow side holds the
//! fast one back instead of filling memory.

use crate::common::{Bridge, Client, Proxy, Wire, exchange, pattern, pattern_differs, under_way};
use std::io::ErrorKind;
use std::time::Duration;

/// Larger than all buffers between the two ends together, the kernel's included.
const SIZE: u64 = 64 * 1024 * 1024;

/// Written at once.
const PIECE: u64 = 256 * 1024;

/// What the proxy may need more than before while such a body passes: pipes and scratch buffers,
/// and nothing that grows with the body.
const MEMORY: u64 = 8 * 1024 * 1024;

/// Time for a transfer on two busy cores.
const LONG_DEADLINE: Duration = Duration::from_secs(60);

/// Sends `size` bytes of the test body.
fn send_body(wire: &mut Wire, size: u64) {
    send_rest(wire, 0, size);
}

/// Sends the test body from `at` on.
fn send_rest(wire: &mut Wire, mut at: u64, size: u64) {
    wire.timeout(LONG_DEADLINE);
    while at < size {
        let length = PIECE.min(size - at);
        wire.send(pattern(at, length as usize));
        at += length;
    }
}

/// Sends `size` bytes of the test body as chunks of `chunk` bytes, and the end of the body.
fn send_chunks(wire: &mut Wire, size: u64, chunk: u64) {
    wire.timeout(LONG_DEADLINE);
    let mut at = 0;
    while at < size {
        let length = chunk.min(size - at);
        wire.send(format!("{length:x}\r\n"));
        wire.send(pattern(at, length as usize));
        wire.send("\r\n");
        at += length;
    }
    wire.send("0\r\n\r\n");
}

/// Reads `size` bytes of the test body and nothing more.
#[track_caller]
fn read_body(wire: &mut Wire, size: u64) {
    wire.timeout(LONG_DEADLINE);
    let mut at = 0;
    while at < size {
        let bytes = match wire.read_some((size - at).min(PIECE) as usize) {
            Some(bytes) => bytes,
            None => panic!("the body ended after {at} of {size} bytes"),
        };
        assert_eq!(pattern_differs(at, &bytes), None);
        at += bytes.len() as u64;
    }
}

/// Reads a chunked test body of `size` bytes to its end.
#[track_caller]
fn read_chunks(wire: &mut Wire, size: u64) {
    wire.timeout(LONG_DEADLINE);
    let mut at = 0;
    loop {
        let line = wire.read_line();
        let length = u64::from_str_radix(&line, 16).expect("a chunk size");
        let mut left = length;
        while left > 0 {
            let bytes = wire.read_exactly(left.min(PIECE) as usize);
            assert_eq!(pattern_differs(at, &bytes), None);
            at += bytes.len() as u64;
            left -= bytes.len() as u64;
        }
        wire.expect_exact("\r\n");
        if length == 0 {
            break;
        }
    }
    assert_eq!(at, size);
}

#[track_caller]
fn assert_memory_flat(proxy: &Proxy, before: u64) {
    let after = proxy.memory();
    assert!(after < before + MEMORY, "memory went from {before} to {after} bytes");
}

/// A request that the backend answers with `head` and a body, which it sends while the client
/// reads.
#[track_caller]
fn download(
    proxy: &Proxy,
    request: &str,
    head: &str,
    send: impl FnOnce(&mut Wire) + Send,
    read: impl FnOnce(&mut Wire),
) -> (Client, Bridge) {
    let mut bridge = Bridge::park(proxy, &["a.test"]);
    let mut client = Client::request(proxy, request);
    bridge.accept_request();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            bridge.send(head);
            send(&mut bridge);
        });
        client.read_head();
        read(&mut client);
    });
    (client, bridge)
}

/// A request with a body that the client sends while the backend reads.
#[track_caller]
fn upload(
    proxy: &Proxy,
    head: &str,
    send: impl FnOnce(&mut Wire) + Send,
    read: impl FnOnce(&mut Wire),
) -> (Client, Bridge) {
    let mut bridge = Bridge::park(proxy, &["a.test"]);
    let mut client = Client::request(proxy, head);
    std::thread::scope(|scope| {
        scope.spawn(|| send(&mut client));
        bridge.accept_head();
        read(&mut bridge);
    });
    bridge.respond_to(&mut client, "all there");
    (client, bridge)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

#[test]
fn a_large_download_arrives_whole() {
    let proxy = Proxy::start();
    let before = proxy.memory();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
    let (mut client, mut bridge) =
        download(&proxy, GET, &head, |wire| send_body(wire, SIZE), |wire| read_body(wire, SIZE));
    assert_memory_flat(&proxy, before);
    exchange(&mut client, &mut bridge);
}

#[test]
fn a_large_upload_arrives_whole() {
    let proxy = Proxy::start();
    let before = proxy.memory();
    let head = format!("PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {SIZE}\r\n\r\n");
    let (mut client, mut bridge) =
        upload(&proxy, &head, |wire| send_body(wire, SIZE), |wire| read_body(wire, SIZE));
    assert_memory_flat(&proxy, before);
    exchange(&mut client, &mut bridge);
}

/// Sizes of chunks, and of the body made of them: chunks that pass through the scratch buffer, ones
/// that are spliced, and ones whose size is no round number of anything.
const CHUNKS: [(u64, u64); 4] =
    [(100, 1024 * 1024), (8191, SIZE / 2), (100_003, SIZE / 2), (4 * 1024 * 1024, SIZE / 2)];

#[test]
fn a_large_chunked_download_arrives_whole() {
    let proxy = Proxy::start();
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (chunk, size) in CHUNKS {
        let send = |wire: &mut Wire| send_chunks(wire, size, chunk);
        let (mut client, mut bridge) =
            download(&proxy, GET, head, send, |wire| read_chunks(wire, size));
        exchange(&mut client, &mut bridge);
        drop(bridge);
        proxy.await_no_bridges();
    }
}

#[test]
fn a_large_chunked_upload_arrives_whole() {
    let proxy = Proxy::start();
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (chunk, size) in CHUNKS {
        let send = |wire: &mut Wire| send_chunks(wire, size, chunk);
        drop(upload(&proxy, head, send, |wire| read_chunks(wire, size)));
        proxy.await_no_bridges();
    }
}

/// Large chunks, which are spliced together with the lines between them, in every neighbourhood:
/// small ones, extensions, a trailer; and the line that is looked at comes in two pieces, cut at
/// every byte.
#[test]
fn chunk_lines_between_large_chunks_are_passed_on_unchanged() {
    let proxy = Proxy::start();
    let (mut client, mut bridge) = under_way(&proxy);
    bridge.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.read_head();
    let large = "x".repeat(40_000);
    let first = format!("9c40\r\n{large}");
    let between = ["\r\n009C40;a=b\r\n", "\r\n5\r\nsmall\r\n9c40\r\n", "\r\n9c40\r\n"];
    bridge.send(&first);
    client.expect_exact(&first);
    for line in between {
        for cut in 1..line.len() {
            bridge.send(&line[..cut]);
            client.expect_exact(&line[..cut]);
            let rest = format!("{}{large}", &line[cut..]);
            bridge.send(&rest);
            client.expect_exact(&rest);
        }
    }
    let end = "\r\n0\r\nExpires: never\r\n\r\n";
    bridge.send(end);
    client.expect_exact(end);
    exchange(&mut client, &mut bridge);
}

#[test]
fn a_large_chunk_that_is_longer_than_its_size_cuts_the_client_off() {
    let proxy = Proxy::start();
    let large = "x".repeat(40_000);
    for wrong in ["x\r\n9c40\r\n", "\rx9c40\r\n", "\r\n9c4g\r\n", "\r\n9c40\n"] {
        let (mut client, mut bridge) = under_way(&proxy);
        bridge.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.read_head();
        let good = format!("9c40\r\n{large}\r\n9c40\r\n{large}");
        bridge.send(&good);
        client.expect_exact(&good);
        bridge.send(wrong);
        client.expect_closed();
    }
}

/// A client of HTTP/1.0 gets it as it is, without chunks around it.
#[test]
fn a_large_body_that_ends_with_the_connection_arrives_whole() {
    let proxy = Proxy::start();
    let request = "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n";
    let send = |wire: &mut Wire| {
        send_body(wire, SIZE);
        wire.half_close();
    };
    let (mut client, _bridge) =
        download(&proxy, request, "HTTP/1.1 200 OK\r\n\r\n", send, |wire| read_body(wire, SIZE));
    client.expect_closed();
}

#[test]
fn a_large_chunked_body_is_decoded_for_a_client_of_http_1_0() {
    let proxy = Proxy::start();
    let request = "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n";
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let send = |wire: &mut Wire| send_chunks(wire, SIZE / 2, 100_003);
    let (mut client, _bridge) =
        download(&proxy, request, head, send, |wire| read_body(wire, SIZE / 2));
    client.expect_closed();
}

/// Writes the test body until nothing more is taken, and returns how far it came. A transfer that
/// nothing holds back ends at `size`.
fn send_until_stalled(proxy: &Proxy, wire: &Wire, size: u64) -> u64 {
    let mut at = 0;
    while at < size {
        // With the proxy asleep before, what is not taken now is not going to be.
        let was_asleep = proxy.is_asleep();
        match wire.send_some(&pattern(at, PIECE.min(size - at) as usize)) {
            Ok(length) => at += length as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if was_asleep {
                    break;
                }
            }
            Err(error) => panic!("cannot send after {at} bytes: {error}"),
        }
    }
    at
}

#[test]
fn a_client_that_does_not_read_holds_its_backend_back() {
    const SIZE: u64 = 256 * 1024 * 1024;
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let before = proxy.memory();
    let mut client = Client::get(&proxy, "a.test", "/");
    bridge.accept_request();
    bridge.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"));
    let sent = send_until_stalled(&proxy, &bridge, SIZE);
    assert!(sent < SIZE, "nothing held the backend back");
    assert_memory_flat(&proxy, before);
    std::thread::scope(|scope| {
        scope.spawn(|| send_rest(&mut bridge, sent, SIZE));
        client.read_head();
        read_body(&mut client, SIZE);
    });
    assert_memory_flat(&proxy, before);
}

#[test]
fn a_backend_that_does_not_read_holds_its_client_back() {
    const SIZE: u64 = 256 * 1024 * 1024;
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let before = proxy.memory();
    let mut client = Client::request(
        &proxy,
        format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {SIZE}\r\n\r\n"),
    );
    bridge.acknowledge();
    let sent = send_until_stalled(&proxy, &client, SIZE);
    assert!(sent < SIZE, "nothing held the client back");
    assert_memory_flat(&proxy, before);
    std::thread::scope(|scope| {
        scope.spawn(|| send_rest(&mut client, sent, SIZE));
        bridge.read_head();
        read_body(&mut bridge, SIZE);
    });
    bridge.respond_to(&mut client, "all there");
    assert_memory_flat(&proxy, before);
}

/// What waits for a bridge waits in the client's own kernel, not in the proxy.
#[test]
fn an_upload_that_waits_for_a_bridge_is_not_read_ahead() {
    let proxy = Proxy::start();
    let before = proxy.memory();
    let mut client = Client::request(
        &proxy,
        format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {SIZE}\r\n\r\n"),
    );
    let sent = send_until_stalled(&proxy, &client, SIZE);
    assert!(sent < SIZE, "nothing held the client back");
    assert_memory_flat(&proxy, before);
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    std::thread::scope(|scope| {
        scope.spawn(|| send_rest(&mut client, sent, SIZE));
        bridge.accept_head();
        read_body(&mut bridge, SIZE);
    });
    bridge.respond_to(&mut client, "all there");
}
