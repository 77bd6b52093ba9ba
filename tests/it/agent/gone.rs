//! Clients that go away: the application is told, and its slot is free.

use crate::common::{Agent, App, Client, Proxy, at, eventually, ok};

const STREAM: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nevent\n\r\n";

#[test]
fn a_client_that_leaves_its_event_stream_frees_the_slot() {
    let proxy = Proxy::start();
    let app = App::start(|seen| match seen.head.starts_with("GET /events") {
        true => STREAM.into(),
        false => ok("served"),
    });
    let _agent = Agent::serve(&app.to(), 1, &[at(&proxy)]);
    for _ in 0..3 {
        let mut client = Client::get(&proxy, "a.test", "/events");
        client.expect_exact(STREAM);
        drop(client);
    }
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().text(), "served");
    eventually("only the last connection is open", || app.open() == 1);
}

#[test]
fn a_client_that_leaves_before_its_response_frees_the_slot() {
    let proxy = Proxy::start();
    let (app, gate) = App::gated("/slow", "served");
    let _agent = Agent::serve(&app.to(), 1, &[at(&proxy)]);
    let client = Client::get(&proxy, "a.test", "/slow");
    eventually("the application has the request", || gate.inside() == 1);
    drop(client);
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().text(), "served");
    gate.let_out(1);
}
