//! Sites whose clients come back to the same backend.

use super::upgrade::{Upgraded, await_end, ctl};
use crate::common::{
    Agent, App, Bridge, Client, Json, Message, Proxy, Setup, SwiftclientBackend, at, eventually,
    ok, over_tls,
};

const SITE: &str = "site a.test sticky=cookie:own";

/// A wait that no test outlives.
pub(super) const LONG: &str = "site a.test sticky=cookie:own sticky-wait=1h";

const SECRET: &str = "of at least sixteen bytes\n";

#[track_caller]
pub(super) fn park(proxy: &Proxy, instance: &str) -> Bridge {
    let fields = format!("Host: a.test\r\nCloudbridge-Instance: {instance}\r\n");
    Bridge::register(proxy, format!("BRIDGE / HTTP/1.1\r\n{fields}\r\n"))
}

/// A request with this field line, whose answer is still to be read.
#[track_caller]
pub(super) fn request(proxy: &Proxy, fields: &str) -> Client {
    Client::request(proxy, format!("GET / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"))
}

pub(super) fn with(cookie: &str) -> String {
    format!("Cookie: {cookie}\r\n")
}

/// The cookie that a response sets, as a client sends it back; everything else about it is as it
/// should be.
#[track_caller]
pub(super) fn set_by(response: &Message) -> String {
    let line = response.field("set-cookie").unwrap_or_else(|| panic!("no cookie: {response:?}"));
    let (pair, rest) = line.split_once(';').unwrap();
    let secure = if over_tls() { "; Secure" } else { "" };
    assert_eq!(rest, format!(" Path=/; HttpOnly; SameSite=Lax{secure}"));
    assert!(pair.starts_with("own=") && pair.len() == 4 + 48, "{pair}");
    pair.to_owned()
}

/// Fails if the other bridge has been sent anything: with this one gone, the next request is its first.
#[track_caller]
pub(super) fn assert_alone(proxy: &Proxy, bridge: Bridge, mut other: Bridge) {
    drop(bridge);
    proxy.await_count("b", 1);
    other.assert_untouched(proxy, "a.test");
}

/// A new client of this bridge, which is the only one parked, and is so again: its cookie.
#[track_caller]
pub(super) fn newcomer(proxy: &Proxy, bridge: &mut Bridge) -> String {
    let mut client = request(proxy, "");
    bridge.serve("new");
    let cookie = set_by(&client.read_response());
    proxy.await_count("b", 1);
    cookie
}

/// The instance `one`, which is the only one parked, and the cookie of a client of it.
#[track_caller]
pub(super) fn one_and_its_client(proxy: &Proxy) -> (Bridge, String) {
    let mut one = park(proxy, "one");
    let cookie = newcomer(proxy, &mut one);
    (one, cookie)
}

/// The instance `one`, with a token.
#[track_caller]
pub(super) fn park_with_token(proxy: &Proxy) -> Bridge {
    Bridge::with_token(proxy, "Cloudbridge-Instance: one\r\n", "leave, undelivered")
}

/// What the operator calls the backend of this instance.
#[track_caller]
pub(super) fn id_of(proxy: &Proxy, instance: &str) -> String {
    let state = Json::parse(&ctl(proxy, &["--json", "backends"]).1);
    let Json::List(rows) = state.at(&["backends"]) else { panic!("{state:?}") };
    let name = Json::Text(instance.to_owned());
    let row = rows.iter().find(|row| row.get("instance") == Some(&name));
    let row = row.unwrap_or_else(|| panic!("its name is shown: {state:?}"));
    let Json::Text(id) = row.at(&["id"]) else { panic!("{row:?}") };
    id.clone()
}

#[test]
fn a_client_comes_back_to_its_backend_and_the_cookie_stays_between_it_and_the_proxy() {
    let proxy = Proxy::with(LONG);
    let (mut one, of_one) = one_and_its_client(&proxy);
    let two = park(&proxy, "two");
    // It waits for its own backend, which is busy, though the other one is free.
    let mut first = request(&proxy, &with(&of_one));
    let taken = one.accept_request();
    let mut second = request(&proxy, &with(&format!("a=1; {of_one}; b=2")));
    proxy.await_count("c", 1);
    one.respond_to(&mut first, "first");
    let seen = one.accept_request();
    one.respond("second");
    let response = second.read_response();
    assert_eq!((taken.field("cookie"), seen.field("cookie")), (None, Some("a=1; b=2")));
    assert_eq!((response.text().as_str(), response.field("set-cookie")), ("second", None));
    assert_alone(&proxy, one, two);
}

#[test]
fn one_that_has_waited_for_its_backend_goes_anywhere_and_gets_a_new_cookie() {
    let proxy = Proxy::with("site a.test sticky=cookie:own sticky-wait=300ms");
    let (mut one, of_one) = one_and_its_client(&proxy);
    let mut two = park(&proxy, "two");
    let mut busy = request(&proxy, &with(&of_one));
    one.accept_request();
    let mut waits = request(&proxy, &with(&of_one));
    two.serve("elsewhere");
    let response = waits.read_response();
    assert_eq!(response.text(), "elsewhere");
    let of_two = set_by(&response);
    assert_ne!(of_one, of_two);
    one.respond_to(&mut busy, "done");
    // If it is not parked again in time, another serves.
    proxy.await_count("b", 2);
    let mut back = request(&proxy, &with(&of_two));
    two.serve_to(&mut back, "two");
}

#[test]
fn a_backend_that_has_just_left_is_waited_for_under_its_name() {
    let proxy = Proxy::with(LONG);
    let (one, of_one) = one_and_its_client(&proxy);
    let two = park(&proxy, "two");
    drop(one);
    proxy.await_count("b", 1);
    let mut waits = request(&proxy, &with(&of_one));
    proxy.await_count("c", 1);
    let mut again = park(&proxy, "one");
    again.serve_to(&mut waits, "again");
    assert_alone(&proxy, again, two);
}

#[test]
fn cookies_that_are_forged_or_unknown_are_ignored() {
    let setup = Setup::new().settings(&format!("{LONG}\nsite b.test sticky=cookie:own"));
    let proxy = setup.start();
    let (mut one, of_one) = one_and_its_client(&proxy);
    let mut b = Bridge::register(
        &proxy,
        "BRIDGE / HTTP/1.1\r\nHost: b.test\r\nCloudbridge-Instance: one\r\n\r\n",
    );
    let flipped = if of_one.ends_with('0') { "1" } else { "0" };
    let forged = [&of_one[..of_one.len() - 1], flipped].concat();
    let mut busy = request(&proxy, &with(&of_one));
    one.accept_request();
    let mut two = park(&proxy, "two");
    // Nothing is waited for, and the right one is set.
    let of_two = ["own=", "own=1", &forged].map(|cookie| {
        let mut client = request(&proxy, &with(cookie));
        let seen = two.accept_request();
        two.respond("two");
        assert_eq!(seen.field("cookie"), None, "not even a forged one is passed on");
        set_by(&client.read_response())
    });
    assert!(of_two[0] == of_two[1] && of_two[1] == of_two[2] && of_two[0] != of_one);
    // Nor is it good at another site.
    let mut client = Client::connect(&proxy);
    client.send(format!("GET / HTTP/1.1\r\nHost: b.test\r\nCookie: {of_one}\r\n\r\n"));
    b.serve("b");
    assert_ne!(set_by(&client.read_response()), of_one);
    one.respond_to(&mut busy, "done");
}

#[test]
fn proxies_with_one_secret_know_each_others_cookies() {
    let setup = || {
        let settings = format!("{LONG}\nsticky-secret {{dir}}/secret\nsecrets-mode any");
        Setup::new().settings(&settings).file("secret", SECRET).start()
    };
    let (first, second) = (setup(), setup());
    let mut one = park(&first, "one");
    let of_one = newcomer(&first, &mut one);
    let mut two = park(&second, "two");
    let mut one = park(&second, "one");
    for _ in 0..3 {
        let mut client = request(&second, &with(&of_one));
        one.serve("one");
        let response = client.read_response();
        assert_eq!((response.text().as_str(), response.field("set-cookie")), ("one", None));
    }
    // A new secret goes in front; what the old one has signed stays good.
    second.write("secret", &format!("another one of some length\n{SECRET}"));
    second.reload_well();
    let mut client = request(&second, &with(&of_one));
    one.serve_to(&mut client, "one");
    second.write("secret", "another one of some length\n");
    second.reload_well();
    drop(one);
    second.await_count("b", 1);
    // It would be waited for if the cookie were known.
    let mut client = request(&second, &with(&of_one));
    two.serve("two");
    assert_ne!(set_by(&client.read_response()), of_one);
}

#[test]
fn an_upgrade_keeps_the_cookies_and_the_names() {
    let proxy = Upgraded::start(LONG);
    let (mut one, of_one) = one_and_its_client(&proxy);
    let two = park(&proxy, "two");
    await_end(proxy.upgrade());
    let mut client = request(&proxy, &with(&of_one));
    one.serve("one");
    let response = client.read_response();
    assert_eq!((response.text().as_str(), response.field("set-cookie")), ("one", None));
    assert_alone(&proxy, one, two);
}

#[test]
fn a_backend_that_the_operator_has_drained_is_not_waited_for() {
    let proxy = Proxy::with(LONG);
    let (one, of_one) = one_and_its_client(&proxy);
    drop(one);
    proxy.await_no_bridges();
    let mut one = park_with_token(&proxy);
    let mut two = park(&proxy, "two");
    let id = id_of(&proxy, "one");
    assert_eq!(ctl(&proxy, &["drain", &id]).0, Some(0));
    one.expect_closed();
    let mut client = request(&proxy, &with(&of_one));
    two.serve("two");
    assert_ne!(set_by(&client.read_response()), of_one);
}

#[test]
fn a_request_that_has_killed_its_backend_is_repeated_elsewhere() {
    let proxy = Proxy::with(LONG);
    let (mut one, of_one) = one_and_its_client(&proxy);
    let mut two = park(&proxy, "two");
    // If it were parked later than the end of the first, the request would have to go to the same.
    proxy.await_count("b", 2);
    let mut client = request(&proxy, &with(&of_one));
    one.accept_request();
    let mut same = park(&proxy, "one");
    drop(one);
    two.serve("two");
    assert_ne!(set_by(&client.read_response()), of_one);
    let mut back = request(&proxy, &with(&of_one));
    same.serve_to(&mut back, "same");
}

#[test]
fn a_reload_makes_a_site_sticky_for_the_bridges_that_are_there() {
    let proxy = Proxy::with("site a.test");
    let mut one = park(&proxy, "one");
    let mut client = request(&proxy, "");
    one.serve("one");
    assert_eq!(client.read_response().field("set-cookie"), None);
    proxy.change_settings("site a.test", LONG);
    proxy.reload_well();
    let of_one = newcomer(&proxy, &mut one);
    let two = park(&proxy, "two");
    for _ in 0..3 {
        let mut client = request(&proxy, &with(&of_one));
        one.serve_to(&mut client, "one");
    }
    assert_alone(&proxy, one, two);
}

#[test]
fn the_end_of_a_path_names_a_swiftclient_backend() {
    let proxy = Proxy::with("site a.test swiftiply=127.0.0.1:0 sticky=id sticky-wait=1h");
    let mut one = SwiftclientBackend::park(&proxy, "a.test", "swiftclient7f0000010bb800");
    let mut two = SwiftclientBackend::park(&proxy, "a.test", "swiftclient7f0000010bb900");
    for _ in 0..3 {
        let path = "/app/12ab-34cd-56ef.main.1.2-7f0000010bb9";
        let mut client = Client::get(&proxy, "a.test", path);
        two.serve("two");
        let response = client.read_response();
        assert_eq!((response.text().as_str(), response.field("set-cookie")), ("two", None));
        let mut client = Client::get(&proxy, "a.test", "/app/12ab-34cd-56ef.main.1-7f0000010bb8?q");
        one.serve_to(&mut client, "one");
    }
}

#[test]
fn an_early_answer_and_a_tunnel_have_the_cookie_too() {
    let proxy = Proxy::with(SITE);
    let mut one = park(&proxy, "one");
    let mut client = request(&proxy, "Connection: upgrade\r\nUpgrade: x\r\n");
    one.accept_request();
    one.send(
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n\
         Connection: upgrade\r\nUpgrade: x\r\n\r\n",
    );
    assert_eq!(client.read_head().field("set-cookie"), None, "an interim response");
    let response = client.read_head();
    assert_eq!(response.status(), 101);
    set_by(&response);
}

/// Two agents with two applications, and clients that each stay with theirs while both serve.
#[test]
fn clients_of_two_agents_stay_where_they_are() {
    let proxy = Proxy::with("site a.test sticky=cookie:own sticky-wait=1h\nwait-timeout 1h");
    let apps = ["one", "two"].map(|name| App::start(move |_| ok(name)));
    let agents = apps.each_ref().map(|app| {
        let to = app.address().to_string();
        Agent::start(&["--to", &to, "-n", "2", "--host", "a.test", &at(&proxy)])
    });
    proxy.await_count("b", 4);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = request(&proxy, "");
                let first = client.read_response();
                let cookie = set_by(&first);
                for _ in 0..20 {
                    client.send(format!(
                        "GET / HTTP/1.1\r\nHost: a.test\r\nCookie: {cookie}\r\n\r\n"
                    ));
                    let response = client.read_response();
                    assert_eq!(response.text(), first.text());
                    assert_eq!(response.field("set-cookie"), None);
                }
            });
        }
    });
    drop(agents);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for (line, what) in [
        ("site a.test sticky=yes", "site: sticky: is cookie, cookie:NAME or id"),
        ("site a.test sticky-wait=5s", "site: sticky-wait is for sticky sites, and this is none"),
        (
            "site a.test sticky=cookie servers=127.0.0.1:1",
            "site: sticky is for backends that connect, and not for servers",
        ),
        ("sticky-secret {dir}/secret\nsecrets-mode any", "line 1: a secret has at least 16 bytes"),
    ] {
        let said = Setup::new().settings(line).file("secret", "short\n").refused();
        assert!(said.contains(what), "{line}: {said}");
    }
    let proxy = Proxy::with(SITE);
    let bad = "BRIDGE / HTTP/1.1\r\nHost: a.test\r\nCloudbridge-Instance: a b\r\n\r\n";
    let refusal = Bridge::refused(&proxy, bad);
    let text = "bad Cloudbridge-Instance: it has 1 to 128 visible characters, and no blanks\n";
    assert_eq!((refusal.status(), refusal.text().as_str()), (400, text));
    eventually("it is gone", || proxy.count("E") == 0);
}
