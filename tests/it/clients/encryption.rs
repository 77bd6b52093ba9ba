//! Proxies that are dialled by TLS.

use super::authority::{Authority, by_tls, encrypted, encrypted_setup};
use super::language::Language;
use super::node::{echoes, websocket};
use super::program::Program;
use super::real::{KEYS, SECRETS, lines};
use crate::common::{Client, Load, Process, Proxy, eventually, pattern};
use std::process::{Command, Stdio};

/// An issuer, and a proxy with a certificate of its own for 127.0.0.1; `None` without openssl.
#[track_caller]
fn serving() -> Option<(Authority, Proxy)> {
    Authority::is_possible().then(|| {
        let authority = Authority::new();
        let proxy = encrypted(&authority.issue("proxy", "IP:127.0.0.1", 1), "");
        (authority, proxy)
    })
}

/// Keys are proven there, too: for the bridges, and for the deregistration.
pub fn requests_are_served_over_tls(language: Language) {
    if !Authority::is_possible() {
        return;
    }
    let authority = Authority::new();
    let proxy = encrypted_setup(&authority.issue("proxy", "IP:127.0.0.1", 1), "")
        .settings("secrets {dir}/secrets\nbearer-keys no")
        .file("secrets", SECRETS)
        .start();
    let ca = authority.ca();
    let variables =
        [("BRIDGE_CA", ca.as_str()), ("BRIDGE_HOSTS", "a.test,b.test"), ("BRIDGE_KEYS", KEYS)];
    let mut program = Program::start(language, &by_tls(&proxy), 2, &variables);
    proxy.await_count("b", 2);
    let mut client = Client::connect(&proxy);
    for round in 0..3 {
        client.send_get("a.test", &format!("/round/{round}"));
        assert_eq!(client.read_response().text(), format!("GET /round/{round} for a.test"));
        client.send("POST / HTTP/1.1\r\nHost: b.test\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n");
        assert_eq!(client.read_response().text(), "hello world");
    }
    let body = pattern(0, 1024 * 1024);
    let length = body.len();
    client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n"));
    client.send(&body);
    assert!(client.read_response().body == body, "not what was sent");
    client.send_get("a.test", "/lines/131072");
    assert!(client.read_response().body == lines(131_072), "not the lines");
    proxy.await_count("b", 2);
    program.terminate();
    program.await_end();
    proxy.await_no_bridges();
    let count = |name: &str| proxy.info().number(&["counters", name]);
    assert_eq!(count("leaves"), 1);
    assert_eq!((count("admitted_by_proof"), count("admitted_by_bearer_key")), (2, 0));
}

/// The deregistration is dialled by TLS, too. A POST that meets a close would be answered with 502.
pub fn leave_over_tls_under_load_loses_no_request(language: Language) {
    let Some((authority, proxy)) = serving() else { return };
    let ca = authority.ca();
    let start = |bridges| Program::start(language, &by_tls(&proxy), bridges, &[("BRIDGE_CA", &ca)]);
    let _staying = start(2);
    proxy.await_count("b", 2);
    let is_answer = |_: &str, text: &str| text == "hi";
    Load::run(&proxy, "POST", 4, is_answer, |load| {
        for _ in 0..2 {
            let mut leaving = start(3);
            let bridges = || proxy.count("b") + proxy.count("B");
            eventually("the second program has its bridges", || bridges() == 5);
            load.await_more(15);
            leaving.terminate();
            leaving.await_end();
        }
    });
}

/// A program that cannot trust its proxy says so in one line, and has no bridge.
#[track_caller]
fn distrusts(language: Language, proxy: &Proxy, variables: &[(&str, &str)], why: &str) {
    let mut program = Program::start(language, &by_tls(proxy), 2, variables);
    program.await_log(why);
    program.terminate();
    program.await_end();
    let said = program.log();
    let line = said.lines().find(|line| line.contains(why)).unwrap_or_default();
    assert!(line.contains("no bridge to tls://"), "{said}");
    assert_eq!(said.matches(why).count(), 1, "{said}");
    assert!(line.contains("; it is tried again every 30 s"), "{said}");
    assert_eq!(proxy.info().number(&["counters", "leaves"]), 0);
    assert_eq!(proxy.count("b") + proxy.count("B"), 0);
}

pub fn unknown_issuer_is_said_in_one_line(language: Language) {
    let Some((_authority, proxy)) = serving() else { return };
    let other = Authority::new();
    let why = "its certificate is from an issuer that is not trusted here";
    distrusts(language, &proxy, &[("BRIDGE_CA", &other.ca())], why);
    // It is not among those of this machine either.
    distrusts(language, &proxy, &[("BRIDGE_CA", "")], why);
}

pub fn expired_certificate_is_said_in_one_line(language: Language) {
    if !Authority::is_possible() {
        return;
    }
    let authority = Authority::new();
    let proxy = encrypted(&authority.issue("proxy", "IP:127.0.0.1", -1), "");
    let why = "its certificate has expired, or this machine's clock is wrong";
    distrusts(language, &proxy, &[("BRIDGE_CA", &authority.ca())], why);
}

pub fn wrong_name_is_said_in_one_line_and_can_be_another(language: Language) {
    if !Authority::is_possible() {
        return;
    }
    let authority = Authority::new();
    let proxy = encrypted(&authority.issue("proxy", "DNS:proxy.test", 1), "");
    let ca = authority.ca();
    distrusts(language, &proxy, &[("BRIDGE_CA", &ca)], "not for 127.0.0.1");
    let variables = [("BRIDGE_CA", ca.as_str()), ("BRIDGE_SERVER_NAME", "proxy.test")];
    let _program = Program::start(language, &by_tls(&proxy), 1, &variables);
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().status(), 200);
}

pub fn certificate_is_shown_to_a_proxy_that_requires_one(language: Language) {
    if !Authority::is_possible() {
        return;
    }
    let authority = Authority::new();
    let ca = authority.ca();
    let files = authority.issue("proxy", "IP:127.0.0.1", 1);
    let proxy = encrypted(&files, &format!("client-ca={ca} client-cert=required"));
    // It stands for a key, so it must be for the host.
    let own = authority.issue("backend", "DNS:a.test", 1);
    let own = format!("{},{}", own.certificate.display(), own.key.display());
    let variables =
        [("BRIDGE_CA", ca.as_str()), ("BRIDGE_CLIENT_CERT", &own), ("BRIDGE_HOSTS", "a.test")];
    let mut program = Program::start(language, &by_tls(&proxy), 1, &variables);
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().status(), 200);
    // So is the deregistration's.
    program.terminate();
    program.await_end();
    assert_eq!(proxy.info().number(&["counters", "leaves"]), 1);
    // Without it there is no bridge.
    let mut program = Program::start(language, &by_tls(&proxy), 1, &[("BRIDGE_CA", &ca)]);
    program.await_log("it is tried again every 30 s");
    program.terminate();
    program.await_end();
    assert_eq!(proxy.count("b"), 0);
}

pub fn tunnel_over_tls_goes_on_after_the_clients_end(language: Language) {
    let Some((authority, proxy)) = serving() else { return };
    let variables = [("WEBSOCKETS", "yes"), ("BRIDGE_CA", &authority.ca())];
    let _program = Program::start(language, &by_tls(&proxy), 1, &variables);
    let mut client = Client::request(
        &proxy,
        "GET /tunnel HTTP/1.1\r\nHost: a.test\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n",
    );
    assert_eq!(client.read_head().status(), 101);
    client.send("said");
    client.half_close();
    client.expect_exact("said and done");
    client.expect_closed();
}

pub fn websockets_over_tls_work_and_do_not_use_up_the_bridges(language: Language) {
    let Some((authority, proxy)) = serving() else { return };
    let variables = [("WEBSOCKETS", "yes"), ("BRIDGE_CA", &authority.ca())];
    let mut program = Program::start(language, &by_tls(&proxy), 1, &variables);
    let mut sockets: Vec<Client> = (0..2).map(|_| websocket(&proxy)).collect();
    sockets.iter_mut().for_each(echoes);
    proxy.await_count("b", 1);
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().status(), 200);
    for socket in &mut sockets {
        socket.half_close();
        socket.expect_closed();
    }
    program.terminate();
    program.await_end();
}

/// `cloudbridge-agent --echo` serves by the library for threads.
#[test]
fn echo_serves_over_tls_and_leaves() {
    let Some((authority, proxy)) = serving() else { return };
    let start = |options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloudbridge-agent"));
        command.args(["--echo", "-n", "2", "--host", "a.test", &by_tls(&proxy)]).args(options);
        Process::spawn("the echo", command.stdin(Stdio::null()))
    };
    let mut echo = start(&["--ca", &authority.ca()]);
    proxy.await_count("b", 2);
    let body = "x".repeat(100_000);
    for _ in 0..3 {
        let mut client = Client::connect(&proxy);
        client.send(format!(
            "POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n{body}"
        ));
        let text = client.read_response().text();
        assert!(text.starts_with("POST /x HTTP/1.1\r\n") && text.ends_with(&body), "not an echo");
    }
    echo.terminate();
    assert!(echo.wait_exit().success());
    assert_eq!(proxy.info().number(&["counters", "leaves"]), 1);
    let mut echo = start(&["--ca", &authority.ca(), "--server-name", "b.test"]);
    echo.await_log(
        "its certificate is for 127.0.0.1, not for b.test; it is tried again every 30 s",
    );
    echo.terminate();
    assert!(echo.wait_exit().success());
}
