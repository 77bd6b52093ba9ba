//! The info host: what the original told about itself, with the same names in the same three
//! objects and nothing else.

use crate::common::{Bridge, Client, Json, Proxy, Setup, eventually};

const STATE: [&str; 2] = ["state", "Connection State"];

/// A proxy with the info host.
fn with_info() -> Proxy {
    Proxy::with("info-host info.test")
}

/// How many connections are in the state of this letter.
fn count(proxy: &Proxy, letter: &str) -> u64 {
    proxy.info_host().number(&[STATE[0], STATE[1], letter])
}

#[test]
fn there_are_three_objects_and_no_more() {
    let proxy = with_info();
    let _bridge = Bridge::park(&proxy, &["a.test"]);
    let names = |json: &Json| match json {
        Json::Object(members) => members.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let info = proxy.info_host();
    assert_eq!(names(&info), ["general", "state", "host keys"]);
    assert_eq!(names(info.at(&["general"])), ["Connections"]);
    assert_eq!(names(info.at(&["state"])), ["Connection State"]);
    assert_eq!(names(info.at(&STATE)), ["?", "b", "c", "B", "C", "E", "I"]);
}

#[test]
fn it_is_off_unless_the_settings_name_it() {
    let proxy = Proxy::with("unknown-host 404");
    let answer = Client::ask(&proxy, "GET / HTTP/1.1\r\nHost: info.test\r\n\r\n");
    assert_eq!(answer.status(), 404);
}

#[test]
fn connections_are_counted_since_the_start() {
    let proxy = with_info();
    let count = || proxy.info_host().number(&["general", "Connections"]);
    let before = count();
    let _clients = [Client::connect(&proxy), Client::connect(&proxy), Client::connect(&proxy)];
    // Each look is a connection as well.
    eventually("three more", || count() >= before + 4);
}

#[test]
fn connections_are_counted_by_what_they_are_doing() {
    let proxy = with_info();
    let _parked = [Bridge::park(&proxy, &["a.test"]), Bridge::park(&proxy, &["a.test"])];
    eventually("state b", || count(&proxy, "b") == 2);
    let _waiting = Client::get(&proxy, "unserved.test", "/");
    eventually("state c", || count(&proxy, "c") == 1);
    let mut busy = Bridge::park(&proxy, &["b.test"]);
    let mut client = Client::get(&proxy, "b.test", "/");
    busy.accept_request();
    eventually("state B", || count(&proxy, "B") == 1);
    eventually("state C", || count(&proxy, "C") == 1);
    let _unknown = Client::connect(&proxy);
    eventually("one that has said nothing", || count(&proxy, "?") >= 1);
    // Who asks is counted, too.
    assert_eq!(proxy.info_host().number(&[STATE[0], STATE[1], "I"]), 1);
    busy.respond("done");
    client.read_response();
    eventually("state B", || count(&proxy, "B") == 0);
    eventually("state C", || count(&proxy, "C") == 0);
    eventually("state b", || count(&proxy, "b") == 3);
}

#[test]
fn connections_are_counted_by_the_names_of_their_keys() {
    let proxy = Setup::new()
        .settings("info-host info.test\nsecrets {dir}/secrets")
        .file("secrets", "1600000000:second\n")
        .start();
    let registration = "BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\
                        Host-Key: adb7c404c49597d34e253d48aba583c439491d84:1700000000:a.test\r\n\r\n";
    let _first = Bridge::register(&proxy, registration);
    let second = Bridge::register(&proxy, registration);
    let bridges = || {
        proxy.info_host().at(&["host keys"]).get("a.test").map_or(0, |counts| counts.number(&["B"]))
    };
    eventually("two bridges with this key", || bridges() == 2);
    drop(second);
    eventually("one bridge with this key", || bridges() == 1);
}

#[test]
fn the_page_is_json_for_any_path_and_for_head() {
    let proxy = with_info();
    let response = Client::ask(&proxy, "GET /any/path HTTP/1.1\r\nHost: INFO.test:80\r\n\r\n");
    assert_eq!(response.status(), 200);
    assert!(
        response.field("content-type").is_some_and(|kind| kind.starts_with("application/json")),
        "{response:?}"
    );
    let mut client =
        Client::request(&proxy, "HEAD / HTTP/1.1\r\nHost: info.test\r\nConnection: close\r\n\r\n");
    assert_eq!(client.read_head().status(), 200);
    client.expect_closed();
}

/// A backend must not be able to put itself in its place.
#[test]
fn no_bridge_serves_the_info_host() {
    let proxy = with_info();
    let mut star = Bridge::park(&proxy, &["*"]);
    proxy.info_host();
    star.assert_untouched(&proxy, "a.test");
}

#[test]
fn a_body_whose_client_does_not_read_has_a_pipe_until_the_client_goes() {
    let proxy = with_info();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let client = Client::get(&proxy, "a.test", "/");
    bridge.accept_request();
    bridge.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
    let lent = || proxy.info().number(&["counters", "pipes_lent"]);
    std::thread::scope(|scope| {
        scope.spawn(|| while bridge.send_if_open([7; 64 * 1024]) {});
        eventually("a pipe is lent", || lent() == 1);
        drop(client);
        eventually("it is back", || lent() == 0);
    });
}
