//! When a request stops waiting for its own backend, and what it does then.

use super::sticky::{
    LONG, assert_alone, id_of, newcomer, one_and_its_client, park, park_with_token, request,
    set_by, with,
};
use super::upgrade::{Upgraded, await_end, ctl};
use crate::common::{Bridge, Client, Proxy, let_pass};
use std::time::Duration;

/// Once the first request is answered, its bridge is given to the second, and they meet in the next turn
/// of their worker. The wait ends in between: the process has been stopped meanwhile. On one worker, so that
/// all is there in the same turn.
#[test]
fn a_wait_that_ends_when_a_bridge_has_been_found_is_over() {
    for option in [
        "sticky=cookie:own sticky-wait=2s",
        "sticky=cookie:own waiting-page-after=2s",
        "sticky=cookie:own timeout=2s",
    ] {
        let proxy = Proxy::with(&format!("workers 1\nsite a.test {option}"));
        let (mut one, of_one) = one_and_its_client(&proxy);
        let fields = with(&of_one) + "Accept: text/html\r\n";
        let cookie =
            if option.contains("sticky-wait") { &*fields } else { "Accept: text/html\r\n" };
        let mut first = request(&proxy, &fields);
        one.accept_request();
        let mut second = request(&proxy, cookie);
        proxy.await_count("c", 1);
        proxy.signal("STOP");
        one.respond("first");
        let_pass(Duration::from_millis(2200));
        proxy.signal("CONT");
        assert_eq!(first.read_response().text(), "first");
        one.serve("second");
        assert_eq!(second.read_response().text(), "second", "{option}");
    }
}

#[test]
fn a_site_that_waits_for_less_than_sticky_wait_still_offers_another_backend() {
    let proxy = Proxy::with("site a.test sticky=cookie:own timeout=300ms");
    let (mut one, of_one) = one_and_its_client(&proxy);
    let mut two = park(&proxy, "two");
    let mut busy = request(&proxy, &with(&of_one));
    one.accept_request();
    let mut waits = request(&proxy, &with(&of_one));
    two.accept_request();
    // Now there is none, and the next one has waited for as long as it may.
    let refusal = request(&proxy, &with(&of_one)).read_response();
    assert_eq!(refusal.status(), 503);
    two.respond_to(&mut waits, "elsewhere");
    one.respond_to(&mut busy, "done");
}

#[test]
fn one_that_may_not_wait_goes_anywhere() {
    let proxy = Proxy::with(&format!("workers 1\nqueue-per-route 1\n{LONG}"));
    let (mut one, of_one) = one_and_its_client(&proxy);
    let mut two = park(&proxy, "two");
    let mut busy = request(&proxy, &with(&of_one));
    one.accept_request();
    let mut waits = request(&proxy, &with(&of_one));
    proxy.await_count("c", 1);
    let mut surplus = request(&proxy, &with(&of_one));
    two.serve("elsewhere");
    set_by(&surplus.read_response());
    one.respond_to(&mut busy, "done");
    one.serve_to(&mut waits, "in its turn");
}

#[test]
fn an_upgrade_keeps_the_names_of_those_that_are_busy_or_have_just_left() {
    let proxy = Upgraded::start(LONG);
    let (mut one, of_one) = one_and_its_client(&proxy);
    let mut left = park(&proxy, "left");
    let mut busy = request(&proxy, &with(&of_one));
    one.accept_request();
    let of_left = newcomer(&proxy, &mut left);
    drop(left);
    proxy.await_count("b", 0);
    let two = park(&proxy, "two");
    let old = proxy.upgrade();
    let mut waits = [request(&proxy, &with(&of_one)), request(&proxy, &with(&of_left))];
    proxy.await_count("c", 2);
    one.respond_to(&mut busy, "done");
    one.serve_to(&mut waits[0], "one");
    let mut left = park(&proxy, "left");
    left.serve_to(&mut waits[1], "left");
    await_end(old);
    drop(left);
    proxy.await_count("b", 2);
    assert_alone(&proxy, one, two);
}

/// Its bridge has a request that may take long, and gets no other.
#[test]
fn a_backend_that_is_drained_is_not_waited_for_while_it_is_busy() {
    let proxy = Proxy::with(LONG);
    let mut one = park_with_token(&proxy);
    let of_one = newcomer(&proxy, &mut one);
    let mut two = park(&proxy, "two");
    let mut busy = request(&proxy, &with(&of_one));
    one.accept_request();
    let mut waits = request(&proxy, &with(&of_one));
    proxy.await_count("c", 1);
    let id = id_of(&proxy, "one");
    assert_eq!(ctl(&proxy, &["drain", &id]).0, Some(0));
    // Neither by one that waits already nor by another.
    two.serve_to(&mut waits, "two");
    let mut later = request(&proxy, &with(&of_one));
    two.serve_to(&mut later, "two");
    one.respond_to(&mut busy, "done");
    one.expect_closed();
    // It is the same one when it may come again.
    assert_eq!(ctl(&proxy, &["undrain", &id]).0, Some(0));
    let mut one = park_with_token(&proxy);
    let mut back = request(&proxy, &with(&of_one));
    one.serve_to(&mut back, "back");
}

const UNDELIVERED: &str = "HTTP/1.1 503 Service Unavailable\r\n\
    Cloudbridge-Undelivered: application\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// A bridge of the instance `one`, which may give requests back.
#[track_caller]
fn park_uncertain(proxy: &Proxy) -> Bridge {
    let fields = "Cloudbridge-Instance: one\r\nCloudbridge-Extensions: undelivered\r\n";
    Bridge::with_token(proxy, fields, "leave, undelivered")
}

#[test]
fn a_request_that_was_not_delivered_goes_to_its_own_backend_again() {
    let proxy = Proxy::with(LONG);
    let mut one = park_uncertain(&proxy);
    let of_one = newcomer(&proxy, &mut one);
    let mut two = park(&proxy, "two");
    let ask = || request(&proxy, &with(&of_one));
    let mut client = ask();
    one.accept_request();
    one.send(UNDELIVERED);
    proxy.await_count("c", 1);
    let mut one = park_uncertain(&proxy);
    one.serve_to(&mut client, "delivered");
    // A backend that always gives it back has had three tries.
    let mut client: Client = ask();
    for _ in 0..3 {
        one.accept_request();
        one.send(UNDELIVERED);
        one.expect_closed();
        one = park_uncertain(&proxy);
    }
    two.serve_to(&mut client, "elsewhere");
    assert_alone(&proxy, two, one);
}
