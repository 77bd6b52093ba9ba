//! Peers that are too slow: every wait has its bound, and the one who kept the other waiting is
//! told so.

use crate::common::{
    Bridge, Client, DEADLINE, Ending, Proxy, Stopwatch, Wire, eventually, let_pass, on_time,
    under_way,
};
use std::time::{Duration, Instant};

/// Of what is to be cut.
const SECOND: Duration = Duration::from_secs(1);

/// Of what is to last: longer than the test itself ever pauses, on a busy machine too.
const THREE: Duration = Duration::from_secs(3);

#[test]
fn a_head_that_does_not_end_gets_408() {
    let proxy = Proxy::with("head-timeout 1s");
    let clock = Stopwatch::start();
    let mut client = Client::request(&proxy, "GET / HTTP/1.1\r\nHost: a.te");
    client.read_response().assert_own_reply(408);
    clock.assert_passed(SECOND);
    client.expect_closed();
}

/// RFC 9112, section 2.2: old clients send one behind a body, and mean nothing by it. It begins no
/// head, so the connection is idle, and it is closed as silently as any other.
#[test]
fn an_empty_line_behind_a_body_begins_no_head() {
    on_time(SECOND, || {
        let proxy = Proxy::with("head-timeout 1s\nkeepalive-timeout 3s");
        let mut bridge = Bridge::park(&proxy, &["a.test"]);
        let post = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc\r\n";
        let clock = Stopwatch::start();
        let mut client = Client::request(&proxy, post);
        bridge.serve_to(&mut client, "one");
        client.send("\r\n");
        client.expect_closed();
        clock.assert_passed(THREE);
    });
}

#[test]
fn a_request_behind_stray_empty_lines_is_served() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let post = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc\r";
    let mut client = Client::request(&proxy, post);
    bridge.serve_to(&mut client, "one");
    client.send("\n");
    client.send("\r\n\r");
    client.send("\nGET /two HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(bridge.serve_to(&mut client, "two"), "GET /two HTTP/1.1");
}

/// The bound is on the whole head: a byte now and then does not buy more time.
#[test]
fn a_head_that_trickles_gets_408() {
    let proxy = Proxy::with("head-timeout 1s");
    let mut client = Client::connect(&proxy);
    let head = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {}", "x".repeat(60));
    for byte in head.bytes() {
        if client.has_bytes() || !client.send_if_open([byte]) {
            break;
        }
        let_pass(Duration::from_millis(100));
    }
    client.read_response().assert_own_reply(408);
    client.expect_closed();
}

#[test]
fn a_registration_that_does_not_end_is_closed() {
    let proxy = Proxy::with("head-timeout 1s");
    let mut bridge = Bridge::connect(&proxy);
    bridge.send("BRIDGE / HTTP/1.1\r\nHost: a.te");
    bridge.read_to_end();
}

#[test]
fn silent_connection_is_closed_after_the_head_timeout() {
    let proxy = Proxy::with("head-timeout 1s\nkeepalive-timeout 1s");
    let clock = Stopwatch::start();
    Client::connect(&proxy).expect_closed();
    clock.assert_passed(SECOND);
}

/// Without a word: a 408 could be taken for the answer to a request that is just on its way.
#[test]
fn an_idle_connection_is_closed_after_the_keepalive_timeout() {
    let proxy = Proxy::with("keepalive-timeout 1s");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let clock = Stopwatch::start();
    let mut client = Client::get(&proxy, "a.test", "/");
    bridge.serve_to(&mut client, "served");
    client.expect_closed();
    clock.assert_passed(SECOND);
    // The parked bridge is not idle, it is on duty.
    let mut next = Client::get(&proxy, "a.test", "/next");
    bridge.serve_to(&mut next, "next");
}

#[test]
fn a_request_body_that_stalls_ends_both_sides() {
    let proxy = Proxy::with("body-timeout 1s");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let clock = Stopwatch::start();
    let mut client = Client::request(
        &proxy,
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhalf",
    );
    bridge.accept_head();
    bridge.expect_exact("half");
    client.read_response().assert_own_reply(408);
    clock.assert_passed(SECOND);
    client.expect_closed();
    bridge.expect_closed();
}

#[test]
fn a_response_that_does_not_begin_gets_504() {
    let proxy = Proxy::with("response-timeout 1s");
    let clock = Stopwatch::start();
    let (mut client, mut bridge) = under_way(&proxy);
    client.read_response().assert_own_reply(504);
    clock.assert_passed(SECOND);
    bridge.expect_closed();
    Bridge::park(&proxy, &["a.test"]).assert_untouched(&proxy, "a.test");
}

#[test]
fn a_response_body_that_stalls_is_cut() {
    let proxy = Proxy::with("body-timeout 1s");
    let clock = Stopwatch::start();
    let (mut client, mut bridge) = under_way(&proxy);
    bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    client.read_head();
    client.expect_exact("half");
    client.expect_closed();
    clock.assert_passed(SECOND);
    bridge.expect_closed();
}

/// The bound is on silence, not on the whole transfer.
#[test]
fn a_body_that_keeps_coming_is_not_cut() {
    on_time(SECOND, || {
        let proxy = Proxy::with("body-timeout 3s\nresponse-timeout 3s");
        let (mut client, mut bridge) = under_way(&proxy);
        bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n");
        client.read_head();
        for byte in b"everyday" {
            let_pass(THREE / 6);
            bridge.send([*byte]);
            client.expect_exact([*byte]);
        }
    });
}

/// The half second for the ack is over when the ack has come, and what comes after has more time.
#[test]
fn bridge_ack_timeout_ends_with_the_ack() {
    let proxy = Proxy::start();
    let (mut client, mut bridge) = under_way(&proxy);
    let_pass(SECOND);
    bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
    client.read_head();
    let_pass(SECOND);
    bridge.send("done");
    client.expect_exact("done");
}

/// It is for the time until the response begins.
#[test]
fn a_response_that_has_begun_is_not_under_the_response_timeout() {
    on_time(SECOND / 2, || {
        let proxy = Proxy::with("response-timeout 3s");
        let (mut client, mut bridge) = under_way(&proxy);
        bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
        client.read_head();
        let_pass(THREE + SECOND / 2);
        bridge.send("late");
        client.expect_exact("late");
    });
}

/// The backend cannot answer a question that has not been put.
#[test]
fn a_request_that_is_still_coming_is_not_under_the_response_timeout() {
    on_time(SECOND / 2, || {
        let proxy = Proxy::with("response-timeout 3s");
        let mut bridge = Bridge::park(&proxy, &["a.test"]);
        let mut client =
            Client::request(&proxy, "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\n");
        bridge.accept_head();
        let_pass(THREE + SECOND / 2);
        client.send("slow");
        bridge.expect_exact("slow");
        bridge.respond_to(&mut client, "patient");
    });
}

/// Interim responses show that it is at work, and each buys it the time again.
#[test]
fn a_backend_that_says_it_is_processing_is_waited_for() {
    on_time(Duration::from_millis(400), || {
        let proxy = Proxy::with("response-timeout 3s");
        let (mut client, mut bridge) = under_way(&proxy);
        for _ in 0..3 {
            let_pass(THREE / 2);
            bridge.send("HTTP/1.1 102 Processing\r\n\r\n");
            client.expect_exact("HTTP/1.1 102 Processing\r\n\r\n");
        }
        bridge.respond_to(&mut client, "processed");
    });
}

/// More than stands in all the buffers between two ends, so that a cut shows.
const MUCH: usize = 24 * 1024 * 1024;

/// Reads a body of [`MUCH`] bytes: 32 KiB every 100 ms for seven seconds, and then the rest.
#[track_caller]
fn read_slowly(wire: &mut Wire) {
    let until = Instant::now() + 7 * SECOND;
    let mut left = MUCH;
    while Instant::now() < until {
        left -= wire.read_exactly(32 * 1024).len();
        let_pass(Duration::from_millis(100));
    }
    wire.timeout(2 * DEADLINE);
    wire.read_exactly(left);
}

/// An event stream has nothing to say for a while.
#[test]
fn a_response_without_a_length_is_not_under_the_body_timeout() {
    for (head, event) in [
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "6\r\nevent\n\r\n"),
        ("HTTP/1.1 200 OK\r\n\r\n", "event\n"),
    ] {
        let proxy = Proxy::with("body-timeout 1s");
        let (mut client, mut bridge) = under_way(&proxy);
        bridge.send(head);
        client.read_head();
        for _ in 0..2 {
            bridge.send(event);
            client.expect_exact(event);
            let_pass(2 * SECOND);
        }
        bridge.send(event);
        client.expect_exact(event);
    }
}

#[test]
fn a_response_stream_that_is_silent_for_too_long_is_cut_and_said() {
    let proxy = Proxy::with("stream-timeout 1s");
    let clock = Stopwatch::start();
    let (mut client, mut bridge) = under_way(&proxy);
    bridge.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nevent\n\r\n");
    client.read_head();
    client.expect_exact("6\r\nevent\n\r\n");
    client.expect_closed();
    clock.assert_passed(SECOND);
    bridge.expect_closed();
    proxy.await_log(" of a.test, attempt 1: response stream from the backend was idle");
}

/// Bytes go all the time, although the proxy itself sees none for longer than that: they go from
/// the kernel's buffer, which has room for seconds.
#[test]
fn a_client_that_reads_slowly_and_steadily_is_not_cut() {
    on_time(SECOND / 2, || {
        let proxy = Proxy::with("body-timeout 3s");
        let (mut client, mut bridge) = under_way(&proxy);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                bridge.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n"));
                bridge.send_if_open(vec![b'x'; MUCH]);
                bridge.read_to_end();
            });
            client.read_head();
            read_slowly(&mut client);
            drop(proxy);
        });
    });
}

#[test]
fn a_backend_that_reads_slowly_and_steadily_is_not_cut() {
    on_time(SECOND / 2, || {
        let proxy = Proxy::with("body-timeout 3s");
        let mut bridge = Bridge::park(&proxy, &["a.test"]);
        let mut client = Client::request(
            &proxy,
            format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {MUCH}\r\n\r\n"),
        );
        std::thread::scope(|scope| {
            scope.spawn(|| {
                client.send_if_open(vec![b'x'; MUCH]);
                client.read_response()
            });
            bridge.accept_head();
            read_slowly(&mut bridge);
            bridge.respond("all there");
        });
    });
}

/// And one that has stopped is.
#[test]
fn a_client_that_stops_reading_is_cut() {
    /// More than the kernel's buffers can grow to.
    const PIECES: usize = 512;
    let proxy = Proxy::with("body-timeout 1s");
    let clock = Stopwatch::start();
    let (mut client, mut bridge) = under_way(&proxy);
    let piece = vec![b'x'; 1024 * 1024];
    let length = PIECES * piece.len();
    bridge.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"));
    client.read_head();
    // It ends when the proxy closes the bridge.
    let whole = (0..PIECES).all(|_| bridge.send_if_open(&piece));
    clock.assert_passed(SECOND);
    assert!(!whole, "{length} bytes were taken from the backend, and nobody had read them");
    bridge.read_to_end();
}

/// How many chunks a response has. The kernel takes some megabytes for a client that does not read,
/// and the proxy at most 256 KiB more, so with some of these the last of it waits in the proxy.
const CHUNKS: std::ops::Range<usize> = 300..560;

/// Starts a chunked response of each of these sizes to a client that reads nothing yet, and waits
/// until its backend has sent it all, or cannot. Returns each client and the length of its body.
fn unread_responses(proxy: &Proxy, version: &str) -> Vec<(Client, usize)> {
    const CHUNK: usize = 8 * 1024;
    let chunk = format!("{CHUNK:x}\r\n{}\r\n", "x".repeat(CHUNK));
    let start = |count: usize| {
        let host = format!("{count}.test");
        let mut bridge = Bridge::park(proxy, &[host.as_str()]);
        let request = format!("GET / HTTP/{version}\r\nHost: {host}\r\n\r\n");
        let client = Client::request(proxy, request);
        bridge.accept_request();
        bridge.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let whole = (0..count).all(|_| bridge.send_if_open(&chunk));
        let _ = whole && bridge.send_if_open("0\r\n\r\n");
        let framed = if version == "1.0" { 0 } else { chunk.len() - CHUNK };
        (client, count * (CHUNK + framed))
    };
    std::thread::scope(|scope| {
        let all: Vec<_> =
            CHUNKS.step_by(8).map(|count| scope.spawn(move || start(count))).collect();
        all.into_iter().map(|thread| thread.join().expect("a response")).collect()
    })
}

/// Without a length or chunks, a client knows only from a reset that it has not got the whole.
#[test]
fn a_response_cut_off_by_a_timeout_does_not_look_whole() {
    let proxy = Proxy::with("body-timeout 1s");
    let clients = unread_responses(&proxy, "1.0");
    eventually("all clients are gone", || proxy.info().number(&["totals", "connections"]) == 0);
    for (mut client, length) in clients {
        client.read_head();
        let (body, ending) = client.read_to_end();
        let whole = body.len() == length;
        assert!(whole || ending == Ending::Reset, "{} of {length}: {ending:?}", body.len());
    }
}

/// What it has not read yet is still on its way, and `keepalive-timeout` is for idle clients.
#[test]
fn a_client_that_has_not_read_its_response_is_not_idle() {
    let proxy = Proxy::with("keepalive-timeout 1s");
    let clients = unread_responses(&proxy, "1.1");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut idle = Client::get(&proxy, "a.test", "/");
    bridge.serve_to(&mut idle, "served");
    idle.expect_closed();
    for (mut client, length) in clients {
        client.read_head();
        client.read_exactly(length);
    }
}
