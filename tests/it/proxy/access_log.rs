//! The access log: one line for each request, with its client, its target, its end and its time.

use crate::common::{Bridge, Client, Proxy, Setup, eventually};
use std::fs::read_to_string;

/// A proxy that writes `access.log` in its own directory.
fn logging(settings: &str) -> Proxy {
    Setup::new().settings(&format!("access-log {{dir}}/access.log\n{settings}")).start()
}

/// The lines of one of the proxy's files, as soon as there are this many.
#[track_caller]
fn lines(proxy: &Proxy, file: &str, count: usize) -> Vec<String> {
    let path = proxy.dir().join(file);
    let mut lines: Vec<String> = Vec::new();
    eventually(&format!("{count} lines in {file}"), || {
        let text = read_to_string(&path).unwrap_or_default();
        lines = text.split_inclusive('\n').map(str::to_owned).collect();
        lines.len() >= count && text.ends_with('\n')
    });
    assert_eq!(lines.len(), count, "{lines:?}");
    lines
}

/// Fails unless the line is: seconds.milliseconds, the client, host, method, target, status and
/// bytes as given, milliseconds.microseconds.
#[track_caller]
fn assert_line(line: &str, expected: &str) {
    let fields: Vec<&str> = line.trim_end_matches('\n').split(' ').collect();
    assert_eq!(fields.len(), 8, "{line:?}");
    let is_number = |text: &str| {
        text.split_once('.').is_some_and(|(whole, part)| {
            part.len() == 3 && (whole.to_owned() + part).bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    assert!(is_number(fields[0]) && is_number(fields[7]), "{line:?}");
    assert_eq!(fields[1..7].join(" "), format!("127.0.0.1 {expected}"), "{line:?}");
}

#[test]
fn each_request_has_its_line() {
    let proxy = logging("");
    let mut bridge = Bridge::park(&proxy, &["a.test", "b.test"]);
    let mut client = Client::get(&proxy, "a.test:80", "/one?q=1");
    bridge.serve_to(&mut client, "hello");
    client.send("POST /two HTTP/1.1\r\nHost: b.test\r\nContent-Length: 4\r\n\r\nbody");
    bridge.accept_request();
    bridge
        .send("HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(client.read_response().status(), 404);
    client.send("HEAD /three HTTP/1.1\r\nHost: a.test\r\n\r\n");
    bridge.accept_request();
    bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    client.read_head();
    let lines = lines(&proxy, "access.log", 3);
    assert_line(&lines[0], "a.test GET /one?q=1 200 5");
    // Chunks as they came: "3", the data, "0", and their line ends.
    assert_line(&lines[1], "b.test POST /two 404 13");
    assert_line(&lines[2], "a.test HEAD /three 200 0");
}

#[test]
fn an_answer_of_the_proxys_own_has_its_line() {
    let proxy = logging("wait-timeout 100ms");
    Client::ask(&proxy, "GET /in-vain HTTP/1.1\r\nHost: a.test\r\n\r\n").assert_own_reply(504);
    assert_line(&lines(&proxy, "access.log", 1)[0], "a.test GET /in-vain 504 0");
}

#[test]
fn a_client_that_left_while_it_waited_has_status_0() {
    let proxy = logging("");
    let client = Client::get(&proxy, "a.test", "/impatient");
    proxy.await_count("c", 1);
    drop(client);
    // Looking is a request too, but the info page has no line.
    proxy.await_count("c", 0);
    assert_line(&lines(&proxy, "access.log", 1)[0], "a.test GET /impatient 0 0");
}

#[test]
fn a_client_that_left_during_its_exchange_has_status_0() {
    let proxy = logging("");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let client = Client::get(&proxy, "a.test", "/impatient");
    bridge.accept_request();
    // With its bytes unread it is a reset, which the proxy takes note of at once.
    bridge.send("HTTP/1.1 103 Early Hints\r\n\r\n");
    client.await_unread(b"\r\n\r\n");
    drop(client);
    bridge.expect_closed();
    assert_line(&lines(&proxy, "access.log", 1)[0], "a.test GET /impatient 0 0");
}

/// One line, and not one for each backend that it met.
#[test]
fn a_request_that_was_sent_again_has_one_line() {
    let proxy = logging("");
    let mut client = Client::get(&proxy, "a.test", "/");
    Bridge::park(&proxy, &["a.test"]).accept_request();
    let mut alive = Bridge::park(&proxy, &["a.test"]);
    alive.serve_to(&mut client, "at last");
    assert_line(&lines(&proxy, "access.log", 1)[0], "a.test GET / 200 7");
}

/// As logrotate does it.
#[test]
fn a_reload_opens_it_anew() {
    let proxy = logging("");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/before");
    bridge.serve("before");
    client.read_response();
    lines(&proxy, "access.log", 1);
    std::fs::rename(proxy.dir().join("access.log"), proxy.dir().join("old.log")).expect("rename");
    proxy.reload();
    eventually("the new file is there", || proxy.dir().join("access.log").exists());
    // Each worker takes it up by itself; requests go to the new file for good after the old one's
    // last.
    let mut asked = 0;
    eventually("requests are written to the new file", || {
        asked += 1;
        client.send_get("a.test", "/after");
        bridge.serve("after");
        client.read_response();
        !read_to_string(proxy.dir().join("access.log")).expect("the new file").is_empty()
    });
    let read = |file: &str| read_to_string(proxy.dir().join(file)).expect("a log");
    eventually("every request has its line", || {
        let lines = ["old.log", "access.log"].map(|file| read(file).matches('\n').count());
        lines.iter().sum::<usize>() == asked + 1
    });
    let new = read("access.log");
    assert_line(new.lines().next().expect("a line"), "a.test GET /after 200 5");
}
