//! A server of the proxy's own that is killed, and what it still seems to take.

use crate::common::{App, Client, Death, Dying, Proxy, eventually, logged, ok};

const GET: &str = "GET /get HTTP/1.1\r\nHost: a.test\r\n\r\n";
const POST: &str = "POST /post HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n";

/// As for the application of an agent.
#[track_caller]
fn are_spared(how: Death, is_reused: bool) -> bool {
    let server = Dying::start();
    let address = server.address();
    let proxy = Proxy::with(&format!("site a.test servers={address}"));
    let mut client = Client::request(&proxy, GET);
    let mut asked = server.asked();
    if is_reused {
        asked.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst");
        assert_eq!(client.read_response().text(), "first");
        client.send(GET);
        asked.again();
    }
    let mut other = Client::connect(&proxy);
    // Both requests want a connection.
    if !server.die(asked, how, || other.send(POST), 2) {
        return false;
    }
    proxy.await_log(logged::CANNOT_BE_REACHED);
    let _server = App::start_at(address, |seen| ok(seen.head.lines().next().unwrap_or_default()));
    assert_eq!(client.read_response().text(), "GET /get HTTP/1.1", "{how:?}");
    assert_eq!(other.read_response().text(), "POST /post HTTP/1.1", "{how:?}");
    true
}

#[test]
fn requests_are_not_given_to_a_server_that_is_being_killed() {
    for (how, is_reused) in [(Death::Reset, false), (Death::Fin, true)] {
        eventually("it is killed in time", || are_spared(how, is_reused));
    }
}

#[test]
fn a_server_that_lives_gets_the_repeat() {
    let server = Dying::start();
    let proxy = Proxy::with(&format!("site a.test servers={}", server.address()));
    let mut client = Client::request(&proxy, GET);
    server.asked().end(Death::Fin);
    let mut asked = server.asked();
    asked.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond");
    assert_eq!(client.read_response().text(), "second");
}

/// Another server has the fewer requests to lose.
#[test]
fn what_comes_meanwhile_goes_to_another_server() {
    let server = Dying::start();
    let other = App::start(|seen| ok(seen.head.lines().next().unwrap_or_default()));
    let proxy =
        Proxy::with(&format!("site a.test servers={},{}", server.address(), other.address()));
    // One of the first two goes there.
    let hold = other.hold();
    let mut clients: Vec<Client> = (0..2).map(|_| Client::request(&proxy, GET)).collect();
    let asked = server.asked();
    eventually("the other has one", || other.accepted() == 1);
    asked.end(Death::Reset);
    eventually("the other has both", || other.accepted() == 2);
    drop(hold);
    clients
        .iter_mut()
        .for_each(|client| assert_eq!(client.read_response().text(), "GET /get HTTP/1.1"));
}
