//! What the WSGI server does besides: PEP 3333, and applications that do not keep to it.

use super::language::Language;
use super::program::Program;
use crate::common::{ACK, Client, Message, Played, Proxy, SWITCH, let_pass, on_time};
use std::time::Duration;

/// A proxy, and the application with one thread: what does harm to it shows in the next request.
#[track_caller]
fn serving() -> Option<(Proxy, Program)> {
    if !Language::Wsgi.is_here() {
        return None;
    }
    let proxy = Proxy::start();
    let program = Program::parked(Language::Wsgi, &proxy, 1);
    Some((proxy, program))
}

#[track_caller]
fn get(proxy: &Proxy, path: &str) -> Message {
    Client::get(proxy, "a.test", path).read_response()
}

#[test]
fn an_application_that_fails_is_answered_for_with_500() {
    let Some((proxy, program)) = serving() else { return };
    for _ in 0..3 {
        assert_eq!(get(&proxy, "/fails").status(), 500);
        assert_eq!(get(&proxy, "/").status(), 200);
    }
    program.await_log("RuntimeError: on purpose");
}

#[test]
fn truncated_response_is_cut_for_the_client() {
    let Some((proxy, _program)) = serving() else { return };
    for (path, came) in [("/breaks", "4\r\nhalf\r\n"), ("/short", "short")] {
        // A GET would be sent again.
        let request = format!("POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n");
        let mut client = Client::request(&proxy, request);
        assert_eq!(client.read_head().status(), 200);
        let (body, _) = client.read_to_end();
        assert_eq!(String::from_utf8_lossy(&body), came, "{path}");
        assert_eq!(get(&proxy, "/").status(), 200);
    }
}

#[test]
fn written_body_comes_before_the_returned_one() {
    let Some((proxy, _program)) = serving() else { return };
    assert_eq!(get(&proxy, "/writes").text(), "one two three");
}

#[test]
fn environment_describes_the_client_and_not_the_proxy() {
    let Some((proxy, _program)) = serving() else { return };
    let answer = Client::ask(
        &proxy,
        "GET /environ?q=%41 HTTP/1.1\r\nHost: a.test:81\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n\
         X-A: 1\r\nX-A: 2\r\nX_A: 3\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n",
    );
    // The proxy appends the address of its own client, and that is the last.
    assert_eq!(answer.text(), "127.0.0.1 https a.test 81 q=%41 1,2 a=1; b=2 True");
}

#[test]
fn a_body_can_be_read_by_lines_at_any_split() {
    let Some((proxy, _program)) = serving() else { return };
    let mut client = Client::request(
        &proxy,
        "POST /lines-of HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    client.send("2;x=y\r\non\r\n3\r\ne\nt\r\n7\r\nwo\nthre\r\n1\r\ne\r\n0\r\nX-Trailer: 1\r\n\r\n");
    assert_eq!(client.read_response().text(), "one\n|two\n|three");
    assert_eq!(get(&proxy, "/").status(), 200);
}

#[test]
fn unread_body_does_not_reach_the_next_request() {
    let Some((proxy, _program)) = serving() else { return };
    let mut client = Client::connect(&proxy);
    for length in [10, 100_000, 1_000_000] {
        client.send(format!(
            "POST /unread HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n"
        ));
        client.send_if_open(vec![b'x'; length]);
        assert_eq!(client.read_response().text(), "not read");
        client = Client::connect(&proxy);
        assert_eq!(get(&proxy, "/after").text(), "GET /after for a.test");
    }
}

#[test]
fn expect_100_is_answered_when_the_body_is_read() {
    let Some((proxy, _program)) = serving() else { return };
    let head = "HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let mut client = Client::request(&proxy, format!("POST / {head}"));
    assert_eq!(client.read_head().status(), 100);
    client.send("body");
    assert_eq!(client.read_response().text(), "body");

    // One that is not read is not asked for, and the client need not send it.
    client.send(format!("POST /unread {head}"));
    let answer = client.read_response();
    assert_eq!((answer.status(), answer.text()), (200, "not read".to_owned()));
    assert_eq!(get(&proxy, "/after").status(), 200);
}

/// How long a body may stall is for each piece of it that is taken, not for the whole.
#[test]
fn a_body_in_one_piece_may_take_longer_than_it_may_stall() {
    if !Language::Wsgi.is_here() {
        return;
    }
    const MEBIBYTE: usize = 1 << 20;
    const SIZE: usize = 64;
    on_time(Duration::from_millis(500), || {
        let proxy = Played::start();
        let _program = Program::start(Language::Wsgi, &proxy.at(), 1, &[("IDLE", "3")]);
        let (mut bridge, _) = proxy.bridge();
        bridge.send(ACK);
        bridge.send(SWITCH);
        bridge.expect_exact(ACK);
        bridge.send(format!("GET /mebibytes/{SIZE} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        assert_eq!(bridge.read_head().status(), 200);
        for _ in 0..SIZE / 2 {
            bridge.read_exactly(MEBIBYTE);
            // In all more than the kernel's buffers hold, and longer than a body may stall.
            let_pass(Duration::from_millis(130));
        }
        bridge.read_exactly(SIZE / 2 * MEBIBYTE);
    });
}
