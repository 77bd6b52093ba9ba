//! What every module does, with the real proxy.

use super::language::Language;
use super::program::Program;
use crate::common::{Client, Proxy, Setup, at, eventually, logged, own_address, pattern, run_well};
use std::process::Command;

/// What `/lines/COUNT` is answered with.
pub fn lines(count: usize) -> Vec<u8> {
    (0..count).flat_map(|number| format!("{number:015}\n").into_bytes()).collect()
}

pub fn file_passes_the_checks_of_its_language(language: Language) {
    for file in language.module() {
        let mut command = Command::new(language.program());
        match language {
            Language::Node => command.arg("--check"),
            // Compiled in memory: nothing is left beside the file.
            Language::Wsgi
            | Language::Asyncio
            | Language::Uvicorn
            | Language::Hypercorn
            | Language::Gunicorn => command.args([
                "-W",
                "error",
                "-c",
                "import sys; compile(open(sys.argv[1]).read(), sys.argv[1], 'exec')",
            ]),
            Language::Ruby => command.arg("-wc"),
            Language::Rack => {
                command = Command::new("ruby");
                command.arg("-wc")
            }
            // The compiler has seen it.
            Language::Axum => return,
        };
        run_well(command.arg(file));
    }
}

pub fn requests_with_and_without_bodies_are_answered(language: Language) {
    let proxy = Proxy::start();
    let _program = Program::parked(language, &proxy, 2);
    let mut client = Client::connect(&proxy);
    for round in 0..3 {
        client.send_get("a.test", &format!("/round/{round}"));
        let answer = client.read_response();
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert_eq!(answer.text(), format!("GET /round/{round} for a.test"));

        client.send("POST / HTTP/1.1\r\nHost: b.test\r\nContent-Length: 11\r\n\r\nhello world");
        assert_eq!(client.read_response().text(), "hello world");

        client.send("POST / HTTP/1.1\r\nHost: c.test\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send("5\r\nhello\r\n");
        client.send("6\r\n world\r\n0\r\n\r\n");
        assert_eq!(client.read_response().text(), "hello world");

        client.send("POST / HTTP/1.1\r\nHost: d.test\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.read_response().text(), "");

        client.send("HEAD /head HTTP/1.1\r\nHost: e.test\r\n\r\n");
        assert_eq!(client.read_head().status(), 200);
    }
    proxy.await_count("b", 2);
}

pub fn a_megabyte_up_and_eight_down_arrive_whole(language: Language) {
    let proxy = Proxy::start();
    let _program = Program::parked(language, &proxy, 1);
    let body = pattern(0, 1024 * 1024);
    let mut client = Client::request(
        &proxy,
        format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", body.len()),
    );
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

    client.send_get("a.test", "/lines/524288");
    assert!(client.read_response().body == lines(524_288), "not the lines");
}

pub fn sixteen_clients_share_four_bridges(language: Language) {
    let proxy = Proxy::start();
    let _program = Program::parked(language, &proxy, 4);
    std::thread::scope(|scope| {
        for number in 0..16 {
            let proxy = &proxy;
            scope.spawn(move || {
                let mut client = Client::connect(proxy);
                for round in 0..20 {
                    let body = format!("{number} {round}");
                    client.send(format!(
                        "POST / HTTP/1.1\r\nHost: h{number}.test\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    ));
                    let answer = client.read_response();
                    assert_eq!((answer.status(), answer.text()), (200, body));
                }
            });
        }
    });
    proxy.await_count("b", 4);
}

/// `printf %s SECRET:TIMESTAMP:NAME | sha1sum`, with the secret that was in force then.
pub const KEYS: &str = "344e847d1b3cdfc8673cfe1d0388b7b78ab720e6:1100000000:a.test,\
                    984629eac3ec2365a808dfc4d96533aead9df91a:1700000000:b.test";
pub const SECRETS: &str = "1000000000:first\n1600000000:second\n";

pub fn two_hosts_are_served_with_their_keys(language: Language) {
    let proxy = Setup::new()
        .settings("secrets {dir}/secrets\nunknown-host 404\nbearer-keys no")
        .file("secrets", SECRETS)
        .start();
    let variables = [("BRIDGE_HOSTS", "a.test,b.test"), ("BRIDGE_KEYS", KEYS)];
    let mut program = Program::start(language, &at(&proxy), 2, &variables);
    proxy.await_count("b", 2);
    for host in ["a.test", "b.test"] {
        let answer = Client::get(&proxy, host, "/").read_response();
        assert_eq!(answer.text(), format!("GET / for {host}"));
    }
    assert_eq!(Client::get(&proxy, "c.test", "/").read_response().status(), 404);
    let count = |name: &str| proxy.info().number(&["counters", name]);
    assert_eq!((count("admitted_by_proof"), count("admitted_by_bearer_key")), (2, 0));
    // Its leave is proven, too.
    program.terminate();
    program.await_end();
    assert!(count("leaves") > 0);
}

pub fn refusal_is_logged_once_with_its_reason(language: Language) {
    let proxy = Setup::new().settings("secrets {dir}/secrets").file("secrets", SECRETS).start();
    let key = "0000000000000000000000000000000000000000:1700000000:a.test";
    let variables = [("BRIDGE_HOSTS", "a.test"), ("BRIDGE_KEYS", key)];
    let mut program = Program::start(language, &at(&proxy), 4, &variables);
    // With blanks, for a port may have these digits too.
    program.await_log(" 401 ");
    program.terminate();
    program.await_end();
    let said = program.log();
    assert_eq!(said.matches(" 401 ").count(), 1, "{said}");
    assert!(said.to_lowercase().contains("asking again every 30 s"), "{said}");
    assert!(!said.contains("0000000000"), "the key is shown: {said}");
    // One bridge has tried for all.
    assert_eq!(proxy.info().number(&["counters", "answered_4xx"]), 1);
}

pub fn bridges_are_back_after_a_restart_of_the_proxy(language: Language) {
    let proxy = Proxy::with(&format!("listen {}:0", own_address()));
    let address = proxy.for_clients();
    let program = Program::parked(language, &proxy, 4);
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().status(), 200);
    drop(proxy);
    program.await_log(logged::NO_BRIDGE);
    let proxy = Setup::new().settings(&format!("listen {address}")).start();
    let answer = Client::get(&proxy, "a.test", "/").read_response();
    assert_eq!(answer.text(), "GET / for a.test");
    proxy.await_count("b", 4);
    // Many dials have failed meanwhile; one line says so, or two if one of the first was let in.
    let said = program.log().matches(logged::NO_BRIDGE).count();
    assert!((1..=2).contains(&said), "{}", program.log());
}

pub fn sigterm_finishes_the_request_under_way(language: Language) {
    let proxy = Proxy::start();
    let mut program = Program::parked(language, &proxy, 3);
    // One bridge has served before, one serves now, and one is fresh.
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().status(), 200);
    let mut client = Client::get(&proxy, "a.test", "/wait");
    program.await_log("waiting");
    program.freeze();
    program.terminate();
    if language.takes_sigint() {
        // Process managers and shells often send two signals: they are one.
        program.signal("INT");
    }
    program.thaw();
    eventually("the parked bridges are gone", || proxy.count("b") == 0 && proxy.count("B") == 1);
    if !language.takes_sigint() {
        program.terminate();
    }
    assert!(program.is_running(), "it did not wait: {}", program.log());
    program.go_on();
    let answer = client.read_response();
    assert_eq!((answer.status(), answer.text()), (200, "waited".to_owned()));
    program.await_end();
    eventually("no bridge is left", || proxy.count("b") == 0 && proxy.count("B") == 0);
}
