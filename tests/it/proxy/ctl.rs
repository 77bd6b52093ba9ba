//! `cloudbridge ctl`: an operator changes what a running proxy does.

use crate::common::{Bridge, Client, Proxy, Setup, eventually};
use socket2::{Domain, SockAddr, Socket, Type};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;

/// A proxy with an admin listener at a Unix socket.
#[track_caller]
fn with_socket() -> Proxy {
    Setup::new().settings("listen 127.0.0.1:0\nlisten unix:{dir}/admin.sock admin").start()
}

/// The exit code and what was printed, to either output.
#[track_caller]
fn ctl(proxy: &Proxy, words: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloudbridge"));
    command.arg("ctl").arg("-c").arg(proxy.dir().join("cloudbridge.conf")).args(words);
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[test]
fn hosts_are_listed() {
    let proxy = with_socket();
    let _parked = Bridge::park(&proxy, &["a.test"]);
    let table = "HOST    FREE  BUSY  WAITING  OLDEST  REQUESTS\n\
                 a.test  1     0     0        -       0\n";
    // A bridge is free soon after its registration was accepted.
    eventually(table, || ctl(&proxy, &["hosts"]) == (0, table.to_owned()));
    let (code, backends) = ctl(&proxy, &["backends", "a.test"]);
    let row = backends.lines().nth(1).unwrap_or_default();
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(
        (code, &words[1..6]),
        (0, &["127.0.0.1", "a.test", "1", "0", "0"][..]),
        "{backends}"
    );
    assert_eq!(ctl(&proxy, &["backends", "b.test"]).1.lines().count(), 1);
    let (code, json) = ctl(&proxy, &["--json", "hosts"]);
    assert!(code == 0 && json.contains("\"hosts\":[\"a.test\"]"), "{json}");
}

#[test]
fn a_drained_host_gets_no_requests_until_it_is_undrained() {
    let proxy = with_socket();
    let mut busy = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    busy.accept_request();
    let mut parked = Bridge::park(&proxy, &["a.test"]);
    let mut other = Bridge::park(&proxy, &["b.test"]);
    let drained = "drained; 1 bridge closed, 1 finishing a request\n".to_owned();
    assert_eq!(ctl(&proxy, &["drain", "A.test"]), (0, drained));
    parked.expect_closed();
    // Nobody's request is touched; what comes now waits.
    busy.respond("finished");
    assert_eq!(client.read_response().text(), "finished");
    busy.expect_closed();
    let mut waits = Client::get(&proxy, "a.test", "/later");
    let refusal = Bridge::refused(&proxy, "BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!((refusal.status(), refusal.text()), (503, "drained by the operator\n".to_owned()));
    let mut its = Client::get(&proxy, "b.test", "/");
    other.serve_to(&mut its, "undisturbed");
    proxy.reload_well();
    let refusal = Bridge::refused(&proxy, "BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(refusal.status(), 503, "it holds over a reload");

    assert_eq!(ctl(&proxy, &["undrain", "a.test"]).0, 0);
    let mut back = Bridge::park(&proxy, &["a.test"]);
    assert_eq!(back.serve_to(&mut waits, "at last"), "GET /later HTTP/1.1");
    assert_eq!(
        ctl(&proxy, &["undrain", "a.test"]),
        (1, "cloudbridge ctl: it was not drained\n".to_owned())
    );
}

#[test]
fn a_backend_without_a_token_is_drained_by_its_address_and_instance() {
    let proxy = with_socket();
    let park = |name: &str| {
        let fields = format!("Host: a.test\r\nCloudbridge-Instance: {name}\r\n");
        Bridge::register(&proxy, format!("BRIDGE / HTTP/1.1\r\n{fields}\r\n"))
    };
    let (mut one, mut two) = (park("Web/1"), park("two"));
    proxy.await_count("b", 2);
    let drained = "drained; 1 bridge closed\n".to_owned();
    assert_eq!(ctl(&proxy, &["drain", "127.0.0.1/Web/1"]), (0, drained));
    one.expect_closed();
    let mut client = Client::get(&proxy, "a.test", "/");
    two.serve_to(&mut client, "two");
    assert_eq!(ctl(&proxy, &["undrain", "127.0.0.1/Web/1"]).0, 0);
    let mut one = park("Web/1");
    drop(two);
    let mut client = Client::get(&proxy, "a.test", "/");
    one.serve_to(&mut client, "one");
}

#[test]
fn a_dropped_backend_loses_its_bridges_at_once_and_its_requests_go_on() {
    let proxy = with_socket();
    let mut dropped = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    dropped.accept_request();
    let mut other = Bridge::park(&proxy, &["b.test"]);
    assert_eq!(ctl(&proxy, &["drop", "a.test"]), (0, "1 bridge closed\n".to_owned()));
    dropped.expect_closed();
    // The request was a GET: another bridge gets it. Dropping keeps nobody out.
    let mut next = Bridge::park(&proxy, &["a.test"]);
    assert_eq!(next.serve_to(&mut client, "elsewhere"), "GET / HTTP/1.1");
    other.assert_untouched(&proxy, "b.test");
}

#[test]
fn scripts_wait_for_slots() {
    let proxy = with_socket();
    let _first = Bridge::park(&proxy, &["a.test"]);
    // A bridge is free soon after its registration was accepted.
    assert_eq!(ctl(&proxy, &["wait", "a.test"]), (0, "1 free\n".to_owned()));
    let short = ctl(&proxy, &["wait", "a.test", "-n", "2", "--timeout", "0"]);
    assert_eq!(short, (1, "cloudbridge ctl: only 1 free in time\n".to_owned()));
    let (code, said) = std::thread::scope(|scope| {
        let waits = scope.spawn(|| ctl(&proxy, &["wait", "a.test", "-n", "2"]));
        let _second = Bridge::park(&proxy, &["a.test"]);
        waits.join().unwrap()
    });
    assert_eq!((code, said.as_str()), (0, "2 free\n"));
}

#[test]
fn a_reload_says_what_has_changed_or_why_not() {
    let proxy = with_socket();
    let changed = "settings and secrets have been read again; changed: nothing\n".to_owned();
    assert_eq!(ctl(&proxy, &["reload"]), (0, changed));
    let path = proxy.dir().join("cloudbridge.conf");
    let settings = std::fs::read_to_string(&path).unwrap();
    // The proxy reads another file than `ctl`, which would refuse it by itself.
    let good = proxy.dir().join("good.conf");
    std::fs::write(&good, &settings).unwrap();
    std::fs::write(&path, format!("{settings}wait-timeout soon\n")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloudbridge"));
    let output = command.arg("ctl").arg("-c").arg(good).arg("reload").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("cloudbridge.conf:"), "{said}");
}

#[test]
fn stop_finishes_what_is_in_flight() {
    let mut proxy = with_socket();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    bridge.accept_request();
    assert_eq!(ctl(&proxy, &["stop"]), (0, "shutting down\n".to_owned()));
    bridge.respond("the last");
    assert_eq!(client.read_response().text(), "the last");
    drop((client, bridge));
    assert!(proxy.wait_exit().success());
    assert!(!proxy.dir().join("admin.sock").exists(), "its socket is gone");
    let (code, said) = ctl(&proxy, &["hosts"]);
    assert_eq!(code, 3, "{said}");
}

#[test]
fn the_socket_is_the_owner_s_and_a_dead_one_is_replaced() {
    let proxy = with_socket();
    let socket = proxy.dir().join("admin.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let rival = proxy.dir().join("rival.conf");
    let settings = format!("listen 127.0.0.1:0\nlisten unix:{} admin\n", socket.display());
    std::fs::write(&rival, settings).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloudbridge"));
    let output = command.arg("-c").arg(rival).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("Address already in use"), "{said}");
    // What a killed process leaves behind. It has never listened: a child that another test is just starting
    // may hold it for a moment longer, and it must not seem alive.
    let dead = proxy.dir().join("dead.sock");
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::unix(&dead).unwrap()).unwrap();
    drop(socket);
    let setup = format!("listen 127.0.0.1:0\nlisten unix:{} clients mode=0666", dead.display());
    let next = Setup::new().settings(&setup).start();
    let mut bridge = Bridge::park(&next, &["a.test"]);
    let stream = UnixStream::connect(&dead).unwrap();
    std::io::Write::write_all(
        &mut &stream,
        b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
    )
    .unwrap();
    bridge.serve("over a file");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut &stream, &mut text).unwrap();
    assert!(text.ends_with("over a file"), "{text}");
    assert_eq!(std::fs::metadata(&dead).unwrap().permissions().mode() & 0o777, 0o666);
    eventually("it serves", || next.is_asleep());
}
