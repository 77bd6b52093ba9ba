//! A small response is passed on whole, or its request goes to another backend.

use crate::common::{Agent, App, Bridge, Client, Ending, Proxy, at, eventually, ok};
use std::sync::atomic::{AtomicBool, Ordering};

/// Half a response.
const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf";

/// Sends `request` to a proxy with these settings; its backend sends `response` and dies at the
/// same moment.
#[track_caller]
fn cut_off(settings: &str, request: &str, response: &str) -> (Proxy, Client) {
    let proxy = Proxy::with(settings);
    let mut dying = Bridge::park(&proxy, &["a.test"]);
    let client = Client::request(&proxy, request);
    dying.accept_request();
    proxy.freeze();
    dying.send(response);
    // A child that another test is just starting may hold the socket for a moment longer than a response
    // is held.
    dying.half_close();
    drop(dying);
    proxy.thaw();
    (proxy, client)
}

/// Fails unless the client gets the beginning of a response and then the end.
#[track_caller]
fn expect_cut(client: &mut Client, response: &str) -> Ending {
    client.expect_exact(response);
    client.expect_closed()
}

const GET: &str = "GET /page HTTP/1.1\r\nHost: a.test\r\n\r\n";

#[test]
fn a_get_whose_backend_dies_in_a_small_response_is_sent_to_another() {
    let (proxy, mut client) = cut_off("", GET, HALF);
    let mut alive = Bridge::park(&proxy, &["a.test"]);
    assert_eq!(alive.serve_to(&mut client, "whole"), "GET /page HTTP/1.1");
}

#[test]
fn so_is_one_whose_agent_or_application_dies() {
    let proxy = Proxy::start();
    let first = AtomicBool::new(true);
    let app = App::start(move |_| match first.swap(false, Ordering::SeqCst) {
        true => b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 8\r\n\r\nhalf".to_vec(),
        false => ok("whole"),
    });
    let agent = Agent::serve(&app.to(), 2, &[at(&proxy)]);
    proxy.await_count("b", 2);
    let hold = app.hold();
    let mut client = Client::request(&proxy, GET);
    eventually("the application has the request", || app.connections() == 1);
    proxy.freeze();
    drop(hold);
    eventually("the application has answered and closed", || app.has_ended_all());
    agent.await_asleep();
    proxy.thaw();
    assert_eq!(client.read_response().text(), "whole");
}

#[test]
fn a_post_is_not_repeated_and_its_response_looks_cut() {
    let (_proxy, mut client) =
        cut_off("", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n", HALF);
    expect_cut(&mut client, HALF);
}

#[test]
fn a_response_larger_than_the_bound_is_not_held() {
    let large = format!("HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n{}", "x".repeat(9000));
    let (_proxy, mut client) = cut_off("", GET, &large);
    expect_cut(&mut client, &large);
}

#[test]
fn nothing_is_held_if_so_set() {
    let (_proxy, mut client) = cut_off("hold-response 0", GET, HALF);
    expect_cut(&mut client, HALF);
}

/// The backend may be about to wait for something; the client need not.
#[test]
fn a_response_that_does_not_become_whole_soon_is_passed_on() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(&proxy, GET);
    bridge.accept_request();
    bridge.send(HALF);
    client.expect_exact(HALF);
    bridge.send("half");
    client.expect_exact("half");
    client.send(GET);
    bridge.serve_to(&mut client, "next");
}

#[test]
fn a_response_in_many_small_pieces_is_passed_on_whole() {
    let proxy = Proxy::start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::request(&proxy, GET);
    bridge.accept_request();
    let response = ok("piecemeal");
    bridge.send_byte_by_byte(&response);
    client.expect_exact(&response);
}
