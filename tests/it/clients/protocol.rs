//! What the modules say to a proxy, byte for byte, and what they make of what it says: the test
//! plays it.

use super::language::Language;
use super::program::Program;
use crate::common::{
    ACK, Bridge, Message, Played, SWITCH, Stopwatch, WELCOME, challenge, logged, named, proof,
};
use std::time::Duration;

/// The next bridge, with its BRIDGE read; its token beside it.
#[track_caller]
fn next_bridge(proxy: &Played) -> (Bridge, String) {
    let (bridge, head) = proxy.bridge();
    let token = head.field("cloudbridge-backend").unwrap_or_default().to_owned();
    (bridge, token)
}

/// A request over a bridge, and the answer of the application to it.
#[track_caller]
fn ask(bridge: &mut Bridge, path: &str) {
    bridge.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
    assert_eq!(read_answer(bridge), format!("GET {path} for a.test"));
}

#[track_caller]
fn read_answer(bridge: &mut Bridge) -> String {
    let head = bridge.read_head();
    assert_eq!(head.status(), 200, "{head:?}");
    let length = match head.field("content-length") {
        Some(length) => length.parse().expect("digits"),
        None => panic!("no length: {head:?}"),
    };
    String::from_utf8(bridge.read_exactly(length)).expect("text")
}

/// Matches a parked bridge, which must acknowledge with these bytes and no others.
#[track_caller]
fn switch(bridge: &mut Bridge) {
    bridge.send(SWITCH);
    bridge.expect_exact(ACK);
}

pub fn bridge_registers_acknowledges_and_is_reused(language: Language) {
    let proxy = Played::start();
    let variables = [("BRIDGE_HOSTS", "a.test,*.b.test"), ("BRIDGE_KEYS", "::a.test")];
    let program = Program::start(language, &proxy.at(), 1, &variables);
    let (mut bridge, head) = proxy.bridge();
    assert_eq!(head.all("host"), ["a.test", "*.b.test"]);
    assert_eq!(head.field("host-key"), Some("::a.test"), "it has no hash to hide");
    assert!(!head.has("cloudbridge-nonce"), "{head:?}");
    let token = head.field("cloudbridge-backend").expect("a token");
    let name = match language {
        Language::Node => "node",
        Language::Ruby | Language::Rack => "ruby",
        Language::Axum => "rust",
        _ => "python",
    };
    let agent = format!("cloudbridge-{name}/{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(head.field("user-agent"), Some(agent.as_str()));
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    assert!(token.len() == 32 && token.chars().all(is_hex), "{token}");
    bridge.send(ACK);
    bridge.send(ACK);
    switch(&mut bridge);
    ask(&mut bridge, "/first");
    // The next comes without a handshake, on the same connection.
    ask(&mut bridge, "/second");
    program.await_asleep();
    assert!(proxy.is_quiet(), "it has dialled again");
}

pub fn answers_may_come_byte_by_byte(language: Language) {
    let proxy = Played::start();
    let _program = Program::start(language, &proxy.at(), 1, &[]);
    let (mut bridge, _) = next_bridge(&proxy);
    bridge.send_byte_by_byte(WELCOME);
    bridge.send_byte_by_byte(ACK);
    bridge.send_byte_by_byte(SWITCH);
    bridge.expect_exact(ACK);
    bridge.send_byte_by_byte("GET /slowly HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(read_answer(&mut bridge), "GET /slowly for a.test");
}

pub fn other_bridges_are_dialled_when_the_first_is_accepted(language: Language) {
    let proxy = Played::start();
    let program = Program::start(language, &proxy.at(), 3, &[]);
    let (mut first, token) = next_bridge(&proxy);
    program.await_asleep();
    assert!(proxy.is_quiet(), "a second bridge before the first was accepted");
    first.send(ACK);
    let others = [next_bridge(&proxy), next_bridge(&proxy)];
    // They leave together, so they are one group.
    assert!(others.iter().all(|(_, other)| *other == token), "{token} and {others:?}");
}

pub fn bridge_is_dialled_again_after_a_504(language: Language) {
    let proxy = Played::start();
    let mut program = Program::start(language, &proxy.at(), 1, &[]);
    for _ in 0..5 {
        let (mut bridge, _) = next_bridge(&proxy);
        bridge.send(ACK);
        bridge.send("HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 6\r\n\r\nagain\n");
        bridge.expect_closed();
    }
    let _last = next_bridge(&proxy);
    assert!(program.is_running());
    assert_eq!(program.log(), "");
}

pub fn retry_after_of_a_503_is_waited_for(language: Language) {
    let proxy = Played::start();
    let clock = Stopwatch::start();
    let program = Program::start(language, &proxy.at(), 3, &[]);
    let (mut bridge, _) = next_bridge(&proxy);
    bridge.send(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 5\r\n\r\nfull\n",
    );
    bridge.expect_closed();
    next_bridge(&proxy);
    clock.assert_passed(Duration::from_secs(1));
    program.await_log("503 full");
}

pub fn answer_that_is_not_http_is_logged_and_tried_again(language: Language) {
    let proxy = Played::start();
    let program = Program::start(language, &proxy.at(), 1, &[]);
    let (mut bridge, _) = next_bridge(&proxy);
    bridge.send("SSH-2.0-x\r\n");
    bridge.expect_closed();
    program.await_log(logged::NO_BRIDGE);
    next_bridge(&proxy);
}

/// Three bridges: one has served, one is parked, and over one a request comes when the program has
/// already asked to leave.
pub fn request_that_crosses_the_leave_is_served(language: Language) {
    let proxy = Played::start();
    let mut program = Program::start(language, &proxy.at(), 3, &[("BRIDGE_HOSTS", "a.test")]);
    let (mut used, token) = next_bridge(&proxy);
    used.send(WELCOME);
    switch(&mut used);
    ask(&mut used, "/before");
    let (mut parked, _) = next_bridge(&proxy);
    parked.send(WELCOME);
    let (mut late, _) = next_bridge(&proxy);
    late.send(WELCOME);
    switch(&mut late);
    ask(&mut late, "/late");
    program.await_asleep();
    program.terminate();
    let mut leave = proxy.connection();
    leave.expect_exact(format!(
        "BRIDGE / HTTP/1.1\r\nHost: a.test\r\nCloudbridge-Leave: {token}\r\n\r\n"
    ));
    // Before the answer and after it a request may be on its way.
    switch(&mut parked);
    parked.send("GET /parked HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(read_answer(&mut parked), "GET /parked for a.test");
    leave.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nleft\n");
    leave.expect_closed();
    late.send("GET /still HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(read_answer(&mut late), "GET /still for a.test");
    assert!(program.is_running(), "it has not waited for our end of the bridges");
    assert!(!used.is_closed(), "it has closed a bridge itself");
    drop((used, parked, late));
    program.await_end();
    assert!(proxy.is_quiet(), "it has dialled again");
}

pub fn bridges_are_closed_when_the_leave_is_refused(language: Language) {
    let proxy = Played::start();
    let mut program = Program::start(language, &proxy.at(), 2, &[]);
    let (mut first, _) = next_bridge(&proxy);
    first.send(WELCOME);
    let (mut second, _) = next_bridge(&proxy);
    second.send(WELCOME);
    program.await_asleep();
    program.terminate();
    let mut leave = proxy.connection();
    leave.read_head();
    leave.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n");
    first.expect_closed();
    second.expect_closed();
    program.await_end();
}

pub fn parked_bridges_are_closed_without_the_extension(language: Language) {
    let proxy = Played::start();
    let mut program = Program::start(language, &proxy.at(), 2, &[]);
    let (mut first, _) = next_bridge(&proxy);
    first.send(ACK);
    let (mut second, _) = next_bridge(&proxy);
    switch(&mut second);
    second.send("GET /wait HTTP/1.1\r\nHost: a.test\r\n\r\n");
    program.await_log("waiting");
    program.terminate();
    first.expect_closed();
    program.go_on();
    assert_eq!(read_answer(&mut second), "waited");
    // A program that speaks HTTP itself keeps the bridge; at the end of ours it ends.
    drop(second);
    program.await_end();
    assert!(proxy.is_quiet(), "it has dialled again, or asked to leave");
}

/// Of the old form, of the modern one, and narrowed.
const KEYS: [&str; 3] = [
    "0123456789012345678901234567890123456789:1700000000:a.test",
    "v2:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef:1700000000:9999999999:7:b.test",
    "v3:fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210:v2:1700000000:9999999999::b.test\
     +host=*.b.test+prefix=/a/b+method=GET/HEAD+bridges=2+expiry=1800000000",
];

/// The field lines of the keys in a request that has the proofs for this nonce, if there is one.
fn key_lines(nonce: Option<&str>, first: &[u8]) -> Vec<String> {
    let key = |key: &str| match nonce {
        Some(nonce) => named(key).replace("proof", &format!("proof-{}", proof(key, nonce, first))),
        None => named(key),
    };
    KEYS.map(key).into()
}

/// Reads a BRIDGE that names the keys, asks for its proof, and reads that. Returns the token.
#[track_caller]
fn ask_for_proof(bridge: &mut Bridge) -> Message {
    const NONCE: &str = "ffeeddccbbaa99887766554433221100";
    let first = bridge.read_head();
    assert_eq!(first.all("host-key"), key_lines(None, b""), "{first:?}");
    let own = first.field("cloudbridge-nonce").expect("a nonce");
    assert!(own.len() == 32 && own.bytes().all(|b| b.is_ascii_hexdigit()), "{own}");
    bridge.send(challenge(NONCE));
    let second = bridge.read_head();
    assert_eq!(second.all("host-key"), key_lines(Some(NONCE), &first.head), "{second:?}");
    // Nothing else differs.
    let text = |message: &Message| String::from_utf8(message.head.clone()).expect("text");
    let mut expected = text(&first);
    for (named, proven) in key_lines(None, b"").iter().zip(second.all("host-key")) {
        expected = expected.replace(named, proven);
    }
    assert_eq!(text(&second), expected);
    second
}

fn with_keys() -> [(&'static str, String); 2] {
    [("BRIDGE_HOSTS", "a.test,b.test".to_owned()), ("BRIDGE_KEYS", KEYS.join(","))]
}

#[track_caller]
fn start_with_keys(language: Language, proxy: &Played, more: &[(&str, &str)]) -> Program {
    let keys = with_keys();
    let keys = keys.each_ref().map(|(name, value)| (*name, value.as_str()));
    Program::start(language, &proxy.at(), 1, &[&keys[..], more].concat())
}

pub fn keys_are_proven_and_not_sent(language: Language) {
    let proxy = Played::start();
    let mut program = start_with_keys(language, &proxy, &[]);
    let mut bridge = Bridge::over(proxy.connection());
    let token = ask_for_proof(&mut bridge).field("cloudbridge-backend").map(str::to_owned);
    bridge.send(WELCOME);
    program.await_asleep();
    program.terminate();
    // So are those of the leave, on a connection with a nonce of its own.
    let mut leave = Bridge::over(proxy.connection());
    let second = ask_for_proof(&mut leave);
    assert_eq!(second.field("cloudbridge-leave"), token.as_deref());
    leave.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nleft\n");
    drop(bridge);
    program.await_end();
    assert!(!program.log().contains("0123456789"), "a key is shown: {}", program.log());
}

/// The original answers 401, and an older version 400.
pub fn keys_are_not_sent_to_a_proxy_that_does_not_ask(language: Language) {
    for status in ["401 Unauthorized", "400 Bad Request"] {
        let proxy = Played::start();
        let program = start_with_keys(language, &proxy, &[]);
        let mut bridge = Bridge::over(proxy.connection());
        assert_eq!(bridge.read_head().all("host-key"), key_lines(None, b""));
        bridge.send(format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 11\r\n\r\nunknown key"
        ));
        bridge.expect_closed();
        program.await_log("unknown key (it did not ask for a proof of the host keys; ");
        program.await_log("sends them the keys as they are)");
        program.await_asleep();
        assert!(proxy.is_quiet(), "it has dialled again");
        assert_eq!(program.log().matches("unknown key").count(), 1, "{}", program.log());
    }
}

pub fn bearer_keys_are_sent_when_that_is_allowed(language: Language) {
    let proxy = Played::start();
    let _program = start_with_keys(language, &proxy, &[("BRIDGE_BEARER_KEYS", "yes")]);
    let mut bridge = Bridge::over(proxy.connection());
    let head = bridge.read_head();
    assert_eq!(head.all("host-key"), KEYS);
    assert!(!head.has("cloudbridge-nonce"), "{head:?}");
    bridge.send(ACK);
    switch(&mut bridge);
    ask(&mut bridge, "/first");
}

/// Nobody gets more than one proof over a connection.
pub fn second_nonce_is_a_refusal(language: Language) {
    let proxy = Played::start();
    let program = start_with_keys(language, &proxy, &[]);
    let mut bridge = Bridge::over(proxy.connection());
    ask_for_proof(&mut bridge);
    bridge.send(challenge("00112233445566778899aabbccddeeff"));
    bridge.expect_closed();
    program.await_log("401");
    program.await_asleep();
    assert!(proxy.is_quiet(), "it has dialled again");
}

/// The proxy asks between two requests whether a bridge is there. The modules that hand out sockets
/// cannot answer, because they do not see what goes over them, and do not say that they do.
#[test]
fn used_bridges_acknowledge_a_101_between_two_requests() {
    for language in [Language::Node, Language::Wsgi] {
        if !language.is_here() {
            continue;
        }
        let proxy = Played::start();
        let _program = Program::start(language, &proxy.at(), 1, &[]);
        let (mut bridge, head) = proxy.bridge();
        assert_eq!(head.field("cloudbridge-extensions"), language.extensions(), "{language:?}");
        bridge.send(
            "HTTP/1.1 100 Continue\r\nCloudbridge-Extensions: leave, undelivered, probes\r\n\r\n",
        );
        // Before its first request, too.
        switch(&mut bridge);
        switch(&mut bridge);
        ask(&mut bridge, "/first");
        switch(&mut bridge);
        switch(&mut bridge);
        bridge.send_byte_by_byte(SWITCH);
        bridge.expect_exact(ACK);
        ask(&mut bridge, "/second");
        // In a body they are the client's bytes.
        let body = String::from_utf8(SWITCH.to_vec()).expect("text");
        bridge.send(format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n",
            2 * body.len()
        ));
        bridge.send(&body);
        bridge.send_byte_by_byte(&body);
        assert_eq!(read_answer(&mut bridge), format!("{body}{body}"));
        switch(&mut bridge);
        // And so they are in a head, wherever it is split.
        bridge.send("GET /x HTTP/1.1\r\nHost: a.test\r\nX: ");
        bridge.send("HTTP/1.1 101 Upgrade\r\n\r\n");
        assert_eq!(read_answer(&mut bridge), "GET /x for a.test");
        switch(&mut bridge);
        ask(&mut bridge, "/last");
    }
}

/// They are what a backend itself says to the proxy; its application could only make them up. The
/// modules that hand out sockets cannot see what goes over them.
#[test]
fn application_cannot_set_the_fields_of_the_backend() {
    for (language, paths) in [
        (Language::Node, &["/forged", "/forged/list", "/forged/object"][..]),
        (Language::Wsgi, &["/forged"]),
    ] {
        if !language.is_here() {
            continue;
        }
        let proxy = Played::start();
        let _program = Program::start(language, &proxy.at(), 1, &[]);
        let (mut bridge, _) = next_bridge(&proxy);
        bridge.send(WELCOME);
        switch(&mut bridge);
        for path in paths {
            bridge.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
            let mut answer = bridge.read_head();
            bridge.read_body(&mut answer, false);
            assert_eq!(answer.text(), "forged", "{answer:?}");
            assert!(!answer.has("cloudbridge-undelivered"), "{answer:?}");
        }
    }
}
