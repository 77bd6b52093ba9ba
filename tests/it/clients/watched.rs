//! Libraries that stand between several proxies and a server which reads and writes requests itself:
//! what they take out, and that everything else passes.

use super::authority::{Authority, by_tls, encrypted};
use super::language::Language;
use super::places::{Side, take_place, with_one_place};
use super::program::Program;
use super::real::lines;
use crate::common::{ACK, Client, Load, Proxy, SWITCH, at, eventually, pattern};

/// The proxies trust these fields, because the library takes them from its application.
pub fn fields_of_the_backend_are_taken_from_what_the_application_sends(language: Language) {
    let (_program, mut sides) = with_one_place::<2>(language);
    sides[0].switch();
    for _ in 0..2 {
        sides[0].bridge.send("GET /forged HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let mut answer = sides[0].read_head();
        sides[0].bridge.read_body(&mut answer, false);
        assert_eq!((answer.status(), answer.text()), (503, "forged".to_owned()));
        assert!(!answer.has("cloudbridge-undelivered"), "{answer:?}");
        assert_eq!(sides[0].ask("/after"), "GET /after for a.test");
    }
}

pub fn what_comes_byte_by_byte_is_understood(language: Language) {
    let (_program, mut sides) = with_one_place::<2>(language);
    let bridge = &mut sides[0].bridge;
    bridge.send_byte_by_byte("HTTP/1.1 100 Continue\r\nCloudbridge-Waiting: 5; at=1\r\n\r\n");
    bridge.send_byte_by_byte(SWITCH);
    bridge.expect_exact(ACK);
    for at in 2..4 {
        sides[0].bridge.send_byte_by_byte(
            "POST / HTTP/1.1\r\nHost: a.test\r\nCloudbridge-Held: no\r\nTransfer-Encoding: chunked\r\n\r\n\
             4\r\nbody\r\n5\r\n and \r\n0\r\n\r\n",
        );
        assert_eq!(sides[0].read_answer(), "body and ");
        sides[0].bridge.send_byte_by_byte(format!(
            "HTTP/1.1 100 Continue\r\nCloudbridge-Waiting: none; at={at}\r\n\r\n"
        ));
        sides[0].bridge.send_byte_by_byte(
            "GET /fields HTTP/1.1\r\nHost: a.test\r\ncloudbridge-held: no\r\nX-A: b\r\n\r\n",
        );
        assert_eq!(sides[0].read_answer(), "host x-a");
    }
}

/// Two real proxies, and a program with so many places.
#[track_caller]
fn with_proxies(language: Language, places: u64) -> ([Proxy; 2], Program) {
    let proxies = [Proxy::start(), Proxy::start()];
    let program = start(language, &proxies, places);
    for proxy in &proxies {
        proxy.await_count("b", places);
    }
    (proxies, program)
}

#[track_caller]
fn start(language: Language, proxies: &[Proxy; 2], places: u64) -> Program {
    Program::start(language, &proxies.each_ref().map(at).join(","), places, &[])
}

pub fn bodies_of_every_kind_pass(language: Language) {
    let (proxies, _program) = with_proxies(language, 1);
    bodies_pass(&proxies);
}

#[track_caller]
fn bodies_pass(proxies: &[Proxy; 2]) {
    let body = pattern(0, 1024 * 1024);
    let mut clients = [None, None];
    for round in 0..4 {
        // Not earlier: one that asks for nothing is closed after ten seconds.
        let at = round % 2;
        let client = clients[at].get_or_insert_with(|| Client::connect(&proxies[at]));
        client.send_get("a.test", "/there");
        assert_eq!(client.read_response().text(), "GET /there for a.test");

        client.send("HEAD /there HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(client.read_head().status(), 200);

        client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.read_response().text(), "");

        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ));
        client.send(&body);
        assert!(client.read_response().body == body, "not what was sent");

        client.send("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
        for piece in body.chunks(100_000) {
            client.send(format!("{:x}\r\n", piece.len()));
            client.send(piece);
            client.send("\r\n");
        }
        client.send("0\r\n\r\n");
        assert!(client.read_response().body == body, "not what was sent in chunks");

        client.send_get("a.test", "/lines/50000");
        assert!(client.read_response().body == lines(50_000), "not the lines");
    }
}

pub fn two_proxies_share_places_under_load(language: Language) {
    let (proxies, _program) = with_proxies(language, 2);
    load_passes(&proxies);
}

#[track_caller]
fn load_passes(proxies: &[Proxy; 2]) {
    let is_answer = |_: &str, text: &str| text == "hi";
    Load::run(&proxies[0], "POST", 4, is_answer, |one| {
        Load::run(&proxies[1], "POST", 4, is_answer, |other| {
            for _ in 0..3 {
                one.await_more(20);
                other.await_more(20);
            }
        });
    });
}

/// What passes is decrypted, and messages are encrypted.
pub fn two_proxies_by_tls_share_places(language: Language) {
    if !Authority::is_possible() {
        return;
    }
    let authority = Authority::new();
    let files = authority.issue("proxy", "IP:127.0.0.1", 1);
    let proxies = [encrypted(&files, ""), encrypted(&files, "")];
    let addresses = proxies.each_ref().map(by_tls).join(",");
    let ca = [("BRIDGE_CA", authority.ca())];
    let ca = ca.each_ref().map(|(name, file)| (*name, file.as_str()));
    let mut program = Program::start(language, &addresses, 2, &ca);
    for proxy in &proxies {
        proxy.await_count("b", 2);
    }
    bodies_pass(&proxies);
    load_passes(&proxies);
    program.terminate();
    program.await_end();
}

/// A POST is never sent twice, so one that is lost is answered with 502.
pub fn deregistration_from_two_proxies_loses_no_request(language: Language) {
    let (proxies, _staying) = with_proxies(language, 2);
    let bridges = |proxy: &Proxy| proxy.count("b") + proxy.count("B");
    let is_answer = |_: &str, text: &str| text == "hi";
    Load::run(&proxies[0], "POST", 3, is_answer, |one| {
        Load::run(&proxies[1], "POST", 3, is_answer, |other| {
            for _ in 0..2 {
                let mut leaving = start(language, &proxies, 3);
                eventually("it has its bridges", || {
                    proxies.iter().all(|proxy| bridges(proxy) == 5)
                });
                one.await_more(10);
                other.await_more(10);
                leaving.terminate();
                leaving.await_end();
            }
        });
    });
}

/// Its client has gone, perhaps.
pub fn place_is_free_when_the_bridge_has_ended(language: Language) {
    let (mut program, mut sides) = with_one_place::<2>(language);
    take_place(&program, &mut sides);
    let [taker, mut other] = sides;
    let Side { bridge, proxy: _proxy, .. } = taker;
    drop(bridge);
    program.go_on();
    other.expect_told(1);
    other.switch();
    assert_eq!(other.ask("/after"), "GET /after for a.test");
}

pub fn tunnel_has_its_place_until_it_ends(language: Language) {
    let (_program, mut sides) = with_one_place::<2>(language);
    sides[0].switch();
    sides[0].bridge.send(
        "GET /tunnel HTTP/1.1\r\nHost: a.test\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n",
    );
    assert_eq!(sides[0].read_head().status(), 101);
    sides[1].expect_told(0);
    sides[1].bridge.send(SWITCH);
    sides[1].expect_given_back(0);
    sides[0].bridge.send("GET /no HTTP/1.1\r\n\r\n");
    sides[0].bridge.half_close();
    sides[0].bridge.expect_exact("GET /no HTTP/1.1\r\n\r\n and done");
    sides[0].bridge.expect_closed();
    sides[1].expect_told(1);
}
