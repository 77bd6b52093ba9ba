//! The original Ruby client (`CloudBridge::Server#accept`), byte for byte and with its parser: it
//! must work unchanged.

use crate::common::{Client, Proxy, Wire};

/// What one call of the original's `accept` ends with.
enum Accepted {
    /// A socket whose next bytes are a request.
    Socket(Wire),
    /// A 504: it closes and calls itself again.
    Again,
    /// Any other code: it raises an error.
    Raised(String),
}

/// One call of `accept`: writes line by line without an Expect field, and reads with the original's
/// two patterns, `^HTTP/1\.[01] ([0-9]{3,3}) (.*)$` for a status line and `^(.+?):\s+(.+)$` for a
/// field.
fn accept(proxy: &Proxy, hosts: &[&str], keys: &[&str]) -> Accepted {
    let mut socket = Wire::connect(proxy.for_bridges());
    socket.send("BRIDGE / HTTP/1.1\r\n");
    for host in hosts {
        socket.send(format!("Host: {host}\r\n"));
    }
    for key in keys {
        socket.send(format!("Host-Key: {key}\r\n"));
    }
    socket.send("\r\n");
    let mut status: Option<String> = None;
    loop {
        let line = socket.read_line();
        if line.trim().is_empty() {
            match status.take().as_deref().map(|status| &status[..3]) {
                Some("100") => continue,
                Some("101") => {
                    socket.send("HTTP/1.1 100 Continue\r\n\r\n");
                    return Accepted::Socket(socket);
                }
                Some("504") => return Accepted::Again,
                other => return Accepted::Raised(other.unwrap_or("nothing").to_owned()),
            }
        }
        if status.is_some() {
            let (name, value) = line.split_once(':').expect("a field has a colon");
            assert!(
                !name.is_empty() && value.starts_with(' '),
                "unreadable for the original: {line:?}"
            );
            assert!(!value.trim().is_empty(), "unreadable for the original: {line:?}");
            continue;
        }
        let rest = line.strip_prefix("HTTP/1.1 ").or(line.strip_prefix("HTTP/1.0 "));
        let rest = rest.unwrap_or_else(|| panic!("unreadable for the original: {line:?}"));
        let readable = rest.len() > 4 && rest.is_char_boundary(3) && rest.as_bytes()[3] == b' ';
        assert!(readable, "no reason phrase for the original: {line:?}");
        status = Some(rest.to_owned());
    }
}

#[track_caller]
fn accept_socket(proxy: &Proxy, hosts: &[&str]) -> Wire {
    match accept(proxy, hosts, &[]) {
        Accepted::Socket(socket) => socket,
        Accepted::Again => panic!("504"),
        Accepted::Raised(code) => panic!("raised {code}"),
    }
}

/// Mongrel answers with `Connection: close` and closes; the client's connection to the proxy is no
/// concern of it.
#[test]
fn original_server_answers_one_request_per_bridge() {
    let proxy = Proxy::start();
    let mut client = Client::connect(&proxy);
    for path in ["/first", "/second"] {
        client.send_get("a.test", path);
        let mut socket = accept_socket(&proxy, &["a.test", "b.test"]);
        let request = socket.read_head();
        assert_eq!(request.start, format!("GET {path} HTTP/1.1"));
        socket.send(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n",
        );
        socket.send("Content-Type: text/html\r\nContent-Length: 5\r\n\r\n");
        socket.send("hello");
        drop(socket);
        let response = client.read_response();
        assert_eq!(response.text(), "hello");
        assert!(!response.has("connection"), "{response:?}");
    }
}

#[test]
fn original_library_reads_pings_before_the_101() {
    let proxy = Proxy::with("ping-interval 1s\nwait-timeout 30s");
    let socket = std::thread::scope(|scope| {
        let accepting = scope.spawn(|| accept_socket(&proxy, &["*"]));
        proxy.await_count("b", 1);
        // Two pings go out meanwhile.
        crate::common::let_pass(std::time::Duration::from_millis(2200));
        let mut client = Client::get(&proxy, "any.test", "/");
        let mut socket = accepting.join().expect("accept");
        socket.read_head();
        socket.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.read_response().text(), "ok");
        socket
    });
    drop(socket);
}

#[test]
fn original_library_connects_again_after_504() {
    let proxy = Proxy::with("bridge-timeout 1s");
    assert!(matches!(accept(&proxy, &["a.test"], &[]), Accepted::Again));
    let mut client = Client::get(&proxy, "a.test", "/");
    // With the request there, the next bridge does not wait for its own timeout.
    proxy.await_count("c", 1);
    let mut socket = accept_socket(&proxy, &["a.test"]);
    socket.read_head();
    socket.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.read_response().text(), "ok");
}

#[test]
fn original_library_reads_the_status_of_a_refusal() {
    let proxy = Proxy::start();
    match accept(&proxy, &[], &[]) {
        Accepted::Raised(code) => assert_eq!(code, "404"),
        _ => panic!("a bridge without a host was not refused"),
    }
}
