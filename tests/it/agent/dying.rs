//! An application that is killed, and what it still seems to take.

use crate::common::{Agent, App, Client, Death, Dying, Proxy, at, eventually, logged, ok};

const GET: &str = "GET /get HTTP/1.1\r\nHost: a.test\r\n\r\n";
const POST: &str = "POST /post HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n";

/// A request is in hand when the application is killed: its only repeat must not be spent on the
/// same process, nor may a POST be sent there that comes now. False if the machine was too busy for
/// that.
#[track_caller]
fn are_spared(how: Death, is_reused: bool) -> bool {
    let proxy = Proxy::start();
    let app = Dying::start();
    let address = app.address();
    let agent = Agent::serve(&address.to_string(), 2, &[at(&proxy)]);
    let mut client = Client::request(&proxy, GET);
    let mut asked = app.asked();
    if is_reused {
        asked.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst");
        assert_eq!(client.read_response().text(), "first");
        client.send(GET);
        asked.again();
    }
    proxy.await_count("b", 1);
    let mut other = Client::connect(&proxy);
    // The agent looks whether it is there, and both requests want a connection.
    if !app.die(asked, how, || other.send(POST), 3) {
        return false;
    }
    agent.await_log(logged::CANNOT_BE_REACHED);
    proxy.await_count("b", 0);
    let _app = App::start_at(address, |seen| ok(seen.head.lines().next().unwrap_or_default()));
    assert_eq!(client.read_response().text(), "GET /get HTTP/1.1", "{how:?}");
    assert_eq!(other.read_response().text(), "POST /post HTTP/1.1", "{how:?}");
    true
}

#[test]
fn requests_are_not_given_to_an_application_that_is_being_killed() {
    for (how, is_reused) in [(Death::Reset, false), (Death::Fin, true)] {
        eventually("it is killed in time", || are_spared(how, is_reused));
    }
}

/// A connection that stands is used, and an answer to a later request ends the doubt.
#[test]
fn an_application_that_lives_gets_the_repeat() {
    let proxy = Proxy::start();
    let app = Dying::start();
    let _agent = Agent::serve(&app.address().to_string(), 2, &[at(&proxy)]);
    let mut client = Client::request(&proxy, GET);
    app.asked().end(Death::Reset);
    let mut asked = app.asked();
    asked.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond");
    assert_eq!(client.read_response().text(), "second");
    client.send(POST);
    asked.again();
    asked.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nthird");
    assert_eq!(client.read_response().text(), "third");
}
