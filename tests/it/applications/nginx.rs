//! nginx with files: large ones, parts of them, and none at all.

use super::program::Program;
use crate::common::{Agent, Client, Proxy, at, installed, pattern, pattern_differs};

/// Bytes of the large file: past what any buffer or pipe on the way holds.
const LARGE: usize = 24 * 1024 * 1024;

/// A proxy and an agent before an nginx that serves a small file and a large one, if that is there.
fn served() -> Option<(Proxy, Program, Agent)> {
    if !installed("nginx", &["nginx", "-v"]) {
        return None;
    }
    let proxy = Proxy::start();
    let dir = proxy.dir().display().to_string();
    proxy.write("small.txt", "from a file\n");
    std::fs::write(proxy.dir().join("large"), pattern(0, LARGE)).expect("a file of the test");
    // Settings that need no right of root's, and leave nothing outside the test's directory.
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {dir}/{kind};"))
        .concat();
    let address = crate::common::free_address();
    proxy.write(
        "nginx.conf",
        &format!(
            "daemon off;\npid {dir}/nginx.pid;\nerror_log stderr;\nworker_processes 1;\n\
             events {{ worker_connections 256; }}\n\
             http {{ {temporary} access_log off; sendfile on;\n\
             server {{ listen {address}; root {dir}; }} }}\n"
        ),
    );
    let words = ["nginx", "-p", &dir, "-e", "stderr", "-c", "nginx.conf"];
    let nginx = Program::start_at(&proxy, &words, address);
    let agent = Agent::serve(&address.to_string(), 4, &[at(&proxy)]);
    Some((proxy, nginx, agent))
}

#[test]
fn nginx_sends_a_large_file_to_many() {
    let Some((proxy, _nginx, _agent)) = served() else { return };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Client::connect(&proxy);
                for _ in 0..2 {
                    client.send_get("a.test", "/large");
                    let body = client.read_response().body;
                    assert_eq!(body.len(), LARGE);
                    assert_eq!(pattern_differs(0, &body), None);
                }
            });
        }
    });
}

#[test]
fn nginx_sends_parts_of_a_file() {
    let Some((proxy, _nginx, _agent)) = served() else { return };
    let mut client = Client::connect(&proxy);
    for (from, to) in [(0, 0), (1_000_000, 9_999_999), (LARGE - 5, LARGE - 1)] {
        client.send(format!(
            "GET /large HTTP/1.1\r\nHost: a.test\r\nRange: bytes={from}-{to}\r\n\r\n"
        ));
        let response = client.read_response();
        assert_eq!(response.status(), 206);
        let range = format!("bytes {from}-{to}/{LARGE}");
        assert_eq!(response.field("content-range"), Some(range.as_str()));
        assert_eq!(response.body.len(), to - from + 1);
        assert_eq!(pattern_differs(from as u64, &response.body), None);
    }
    client.send(format!("GET /large HTTP/1.1\r\nHost: a.test\r\nRange: bytes={LARGE}-\r\n\r\n"));
    assert_eq!(client.read_response().status(), 416);
}

#[test]
fn nginx_answers_without_a_body_and_the_connection_goes_on() {
    let Some((proxy, _nginx, _agent)) = served() else { return };
    let mut client = Client::request(&proxy, "HEAD /large HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let head = client.read_head();
    assert_eq!(head.field("content-length"), Some(LARGE.to_string().as_str()));
    client.send_get("a.test", "/small.txt");
    let response = client.read_response();
    assert_eq!(response.text(), "from a file\n");
    let tag = response.field("etag").expect("nginx gives files a tag").to_owned();
    client.send(format!("GET /small.txt HTTP/1.1\r\nHost: a.test\r\nIf-None-Match: {tag}\r\n\r\n"));
    assert_eq!(client.read_head().status(), 304);
    client.send_get("a.test", "/small.txt");
    assert_eq!(client.read_response().text(), "from a file\n");
}
