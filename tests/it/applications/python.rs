//! Python's own server of files: HTTP/1.0, and a connection for each request.

use super::program::Program;
use crate::common::{Agent, Client, Proxy, at, installed};

#[test]
fn python_serves_files_and_its_bridges_stay() {
    if !installed("python3", &["python3", "--version"]) {
        return;
    }
    let proxy = Proxy::start();
    proxy.write("hello.txt", "from a file\n");
    let words = ["python3", "-m", "http.server", "{port}", "--bind", "{address}"];
    let (_python, address) = Program::start(&proxy, &words);
    let _agent = Agent::serve(&address.to_string(), 1, &[at(&proxy)]);
    let mut client = Client::get(&proxy, "a.test", "/hello.txt");
    let response = client.read_response();
    assert_eq!(response.text(), "from a file\n");
    assert!(!response.has("connection"), "{response:?}");
    let connections = proxy.info().number(&["counters", "accepted"]);
    client.send("HEAD /hello.txt HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.read_head().field("content-length"), Some("12"));
    client.send_get("a.test", "/nothing");
    assert_eq!(client.read_response().status(), 404);
    client.send("POST /hello.txt HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(client.read_response().status(), 501);
    client.send_get("a.test", "/hello.txt");
    assert_eq!(client.read_response().text(), "from a file\n");
    // The application has closed four, and the bridge was the same.
    assert_eq!(proxy.info().number(&["counters", "accepted"]), connections);
}
