//! Backends that go silent: what one of their bridges has shown counts for all of them.

use crate::common::{ACK, Bridge, Client, Message, Proxy, SWITCH, let_pass};
use std::time::Duration;

const PAY: &str = "POST /pay HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\n100";

/// One worker, so that the bridge that has been parked longest is the first. The time is short for
/// those that never acknowledge, and long enough for those that do.
const SETTINGS: &str = "workers 1\nbridge-ack-timeout 3s";

/// Longer than a backend may be quiet before it is asked whether it is there.
const QUIET: Duration = Duration::from_millis(150);

/// A bridge of the one backend that has a token.
#[track_caller]
fn announced(proxy: &Proxy) -> Bridge {
    Bridge::with_token(proxy, "", "leave, undelivered")
}

/// The same, of one that acknowledges a 101 at any time.
#[track_caller]
fn with_probes(proxy: &Proxy) -> Bridge {
    let fields = "Cloudbridge-Extensions: probes\r\n";
    Bridge::with_token(proxy, fields, "leave, undelivered, probes")
}

#[track_caller]
fn retries(proxy: &Proxy) -> u64 {
    proxy.info().number(&["counters", "retries"])
}

/// Such as a hundred bridges of an agent that has been stopped.
#[test]
fn bridges_of_a_backend_that_does_not_acknowledge_stand_aside() {
    let proxy = Proxy::with(SETTINGS);
    let _silent = [(); 10].map(|()| announced(&proxy));
    let mut other = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    other.serve_to(&mut client, "other");
    assert_eq!(retries(&proxy), 1);
    for _ in 0..3 {
        client.send_get("a.test", "/");
        other.serve_to(&mut client, "other");
    }
    assert_eq!(retries(&proxy), 1);
    proxy.await_log("backend 127.0.0.1 is silent");
}

#[test]
fn backend_is_back_when_one_of_its_bridges_acknowledges() {
    let proxy = Proxy::with(SETTINGS);
    let mut bridges = [(); 3].map(|()| announced(&proxy));
    let mut client = Client::request(&proxy, PAY);
    bridges[0].read_switch();
    bridges[0].expect_closed();
    // The request waits meanwhile, and comes over the bridge that has acknowledged.
    assert_eq!(bridges[1].accept_request().text(), "100");
    bridges[1].respond_to(&mut client, "paid");
    proxy.await_log("backend 127.0.0.1 answers again");
    // The last one is parked as it was.
    let mut clients = [(); 2].map(|()| Client::get(&proxy, "a.test", "/"));
    bridges[2].serve("two");
    bridges[1].serve("one");
    let mut answers: Vec<Message> = clients.iter_mut().map(|c| c.read_response()).collect();
    answers.sort_by_key(Message::text);
    assert_eq!(answers.iter().map(Message::text).collect::<Vec<_>>(), ["one", "two"]);
}

/// Without a request too: a bridge is probed from time to time.
#[test]
fn silent_backend_is_probed_while_no_request_waits() {
    let proxy = Proxy::with(SETTINGS);
    let mut silent = announced(&proxy);
    let mut sibling = announced(&proxy);
    let mut other = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    other.serve_to(&mut client, "other");
    silent.read_switch();
    drop(other);
    sibling.acknowledge();
    proxy.await_log("backend 127.0.0.1 answers again");
    client.send_get("a.test", "/");
    sibling.serve_to(&mut client, "sibling");
}

/// It dials again whenever it has been closed, without a token.
#[test]
fn backend_that_never_acknowledges_costs_one_request_its_time() {
    let proxy = Proxy::with(SETTINGS);
    let mut mute = Bridge::park(&proxy, &["a.test"]);
    let mut good = announced(&proxy);
    let mut client = Client::get(&proxy, "a.test", "/");
    good.serve_to(&mut client, "good");
    mute.read_switch();
    mute.expect_closed();
    drop(good);
    for _ in 0..3 {
        proxy.await_no_bridges();
        let _mute = Bridge::park(&proxy, &["a.test"]);
        let mut good = announced(&proxy);
        client.send_get("a.test", "/");
        good.serve_to(&mut client, "good");
    }
    assert_eq!(retries(&proxy), 1);
}

/// A connection that knows nothing of probes can be tried only with a request.
#[test]
fn reused_bridge_of_a_silent_backend_is_tried_by_a_request_that_waits() {
    let proxy = Proxy::with(SETTINGS);
    let mut reused = announced(&proxy);
    let mut client = reused.serve_first(&proxy);
    client.send_get("a.test", "/one");
    reused.accept_request();
    let mut silent = announced(&proxy);
    // Parked behind the other, which is the first to be given a request.
    reused.respond_to(&mut client, "one");
    client.send_get("a.test", "/two");
    silent.read_switch();
    silent.expect_closed();
    reused.serve_to(&mut client, "two");
    assert_eq!(retries(&proxy), 1);
}

#[test]
fn post_on_a_quiet_bridge_is_sent_when_the_backend_has_acknowledged() {
    let proxy = Proxy::with(SETTINGS);
    let mut bridge = with_probes(&proxy);
    let mut client = bridge.serve_first(&proxy);
    let_pass(QUIET);
    // What can be repeated is sent at once.
    client.send_get("a.test", "/");
    bridge.serve_to(&mut client, "got");
    let_pass(QUIET);
    for text in ["paid", "paid again"] {
        client.send(PAY);
        bridge.expect_exact(SWITCH);
        bridge.send(ACK);
        assert_eq!(bridge.accept_request().text(), "100");
        bridge.respond_to(&mut client, text);
        let_pass(QUIET);
    }
}

#[test]
fn post_on_a_quiet_bridge_that_does_not_acknowledge_goes_to_another() {
    let proxy = Proxy::with(SETTINGS);
    let mut gone = with_probes(&proxy);
    let mut client = gone.serve_first(&proxy);
    let mut other = Bridge::park(&proxy, &["a.test"]);
    let_pass(QUIET);
    client.send(PAY);
    assert_eq!(other.accept_request().text(), "100");
    other.respond_to(&mut client, "paid");
    gone.expect_exact(SWITCH);
    gone.expect_closed();
}

/// It would take the 101 for a request.
#[test]
fn post_on_a_quiet_bridge_without_the_extension_is_sent_at_once() {
    let proxy = Proxy::with(SETTINGS);
    let mut bridge = announced(&proxy);
    let mut client = bridge.serve_first(&proxy);
    let_pass(QUIET);
    client.send(PAY);
    assert_eq!(bridge.accept_request().text(), "100");
    bridge.respond_to(&mut client, "paid");
}
