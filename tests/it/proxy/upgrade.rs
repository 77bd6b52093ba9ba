//! A new program takes over from a running one, and no peer notices.

use crate::common::{
    Agent, Bridge, Client, Proxy, Setup, SwiftclientBackend, eventually, free_address, is_alive,
    let_pass, pattern, pattern_differs, run_well, signal,
};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A proxy with a pidfile, by which the program is known that serves at the moment. It is ended
/// with the test.
pub(super) struct Upgraded(Proxy);

impl Upgraded {
    #[track_caller]
    pub(super) fn start(settings: &str) -> Upgraded {
        Upgraded::with(Setup::new().settings(settings))
    }

    #[track_caller]
    pub(super) fn with(setup: Setup) -> Upgraded {
        let proxy = Upgraded(setup.settings("pidfile {dir}/pid").start());
        // It listens before it has written its pidfile.
        eventually("its process", || proxy.process().is_some());
        proxy
    }

    /// The process that serves.
    pub(super) fn process(&self) -> Option<u32> {
        std::fs::read_to_string(self.0.dir().join("pid")).ok()?.trim().parse().ok()
    }

    /// Has the program replaced by a new one, and waits until that has taken over. Returns the old
    /// one's process.
    #[track_caller]
    pub(super) fn upgrade(&self) -> u32 {
        let old = self.process().expect("a process");
        self.upgrade_by(old);
        old
    }

    /// The same by a signal to another process.
    #[track_caller]
    pub(super) fn upgrade_by(&self, signalled: u32) {
        let old = self.process().expect("a process");
        let before = self.0.log().matches("bridges have come").count();
        signal(signalled, "USR2");
        self.await_upgrade(old, before);
    }

    #[track_caller]
    fn await_upgrade(&self, old: u32, before: usize) {
        eventually("a new program serves", || {
            self.process().is_some_and(|process| process != old)
                && self.0.log().matches("bridges have come").count() > before
        });
    }
}

impl Deref for Upgraded {
    type Target = Proxy;

    fn deref(&self) -> &Proxy {
        &self.0
    }
}

impl DerefMut for Upgraded {
    fn deref_mut(&mut self) -> &mut Proxy {
        &mut self.0
    }
}

/// The exit code of an operator's command, and what it prints. It does not read the settings, which
/// may be wrong.
pub(super) fn ctl(proxy: &Proxy, words: &[&str]) -> (Option<i32>, String) {
    let mut ctl = Command::new(env!("CARGO_BIN_EXE_cloudbridge"));
    ctl.args(["ctl", "-a"]).arg(format!("unix:{}", proxy.dir().join("admin.sock").display()));
    let output = ctl.args(words).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[track_caller]
pub(super) fn await_end(process: u32) {
    eventually("the old program ends", || !is_alive(process));
}

#[test]
fn parked_bridges_and_idle_clients_go_on_as_if_nothing_had_happened() {
    for workers in ["1", "2", "4"] {
        let proxy = Upgraded::start(&format!("workers {workers}"));
        let mut fresh = Bridge::park(&proxy, &["fresh.test"]);
        let mut reused = Bridge::with_token(&proxy, "", "leave, undelivered");
        let mut client = reused.serve_first(&proxy);
        let mut idle = Client::connect(&proxy);
        for _ in 0..3 {
            await_end(proxy.upgrade());
            client.send_get("a.test", "/again");
            assert_eq!(reused.serve("again"), "GET /again HTTP/1.1");
            assert_eq!(client.read_response().text(), "again");
        }
        // Its response may be here before it is parked again.
        proxy.await_count("b", 2);
        idle.send_get("fresh.test", "/first");
        assert_eq!(fresh.serve("first"), "GET /first HTTP/1.1");
        assert_eq!(idle.read_response().text(), "first");
    }
}

#[test]
fn requests_wait_in_their_order_and_half_a_head_is_kept() {
    let proxy = Upgraded::start("access-log {dir}/access");
    let mut half = Client::request(&proxy, "GET /half HTTP/1.1\r\nHost: h.te");
    let mut waiting: Vec<Client> = (1..=5)
        .map(|number| {
            let client = Client::get(&proxy, "a.test", &format!("/{number}"));
            proxy.await_count("c", number);
            // Workers agree on the order of what is further apart than four milliseconds.
            let_pass(Duration::from_millis(10));
            client
        })
        .collect();
    // Its head comes in two parts.
    let mut posting = Client::request(&proxy, "POST /body HTTP/1.1\r\n");
    proxy.await_asleep();
    posting.send("Host: b.test\r\nContent-Length: 10\r\n\r\n01234");
    proxy.await_count("c", 6);
    await_end(proxy.upgrade());
    await_end(proxy.upgrade());
    proxy.await_count("c", 6);
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    for (number, client) in (1..).zip(&mut waiting) {
        assert_eq!(bridge.serve("served"), format!("GET /{number} HTTP/1.1"));
        assert_eq!(client.read_response().text(), "served");
    }
    let mut bridge = Bridge::park(&proxy, &["b.test", "h.test"]);
    posting.send("56789");
    assert_eq!(bridge.accept_request().text(), "0123456789");
    bridge.respond_to(&mut posting, "taken");
    half.send("st\r\n\r\n");
    assert_eq!(bridge.serve("whole"), "GET /half HTTP/1.1");
    assert_eq!(half.read_response().text(), "whole");
    eventually("each of them has its line", || {
        let log = std::fs::read_to_string(proxy.dir().join("access")).unwrap_or_default();
        log.lines().count() == 7 && log.contains(" b.test POST /body 200 ")
    });
}

/// Its connections follow as soon as it is over, through any number of programs.
#[test]
fn what_is_in_progress_is_finished_by_the_old_program() {
    const LENGTH: usize = 8 << 20;
    let proxy = Upgraded::start("unknown-host 404");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/large");
    bridge.accept_request();
    bridge.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"));
    client.read_head();
    let first = proxy.upgrade();
    // The only bridge is busy in the old program: the host is known all the same.
    let mut next = Client::get(&proxy, "a.test", "/next");
    proxy.await_count("c", 1);
    let second = proxy.upgrade();
    proxy.await_count("c", 1);
    assert!(is_alive(first) && is_alive(second), "one has not waited for the download");
    std::thread::scope(|scope| {
        scope.spawn(|| bridge.send(pattern(0, LENGTH)));
        assert_eq!(pattern_differs(0, &client.read_exactly(LENGTH)), None);
    });
    assert_eq!(bridge.serve("next"), "GET /next HTTP/1.1");
    assert_eq!(next.read_response().text(), "next");
    await_end(first);
    await_end(second);
    client.send_get("a.test", "/after");
    bridge.serve_to(&mut client, "after");
}

/// At every moment somebody accepts, and no backend dials again.
#[test]
fn no_connection_is_refused_while_programs_and_their_numbers_of_workers_change() {
    let proxy = Upgraded::start("workers 2");
    let agent = Agent::echo(&proxy, &["a.test"]);
    proxy.await_count("b", 4);
    let over = AtomicBool::new(false);
    let client = |number: usize| {
        let mut client = Client::connect(&proxy);
        let mut served = 0;
        while !over.load(Ordering::Relaxed) {
            if number.is_multiple_of(2) {
                client = Client::connect(&proxy);
            }
            client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\n100");
            assert_eq!(client.read_response().status(), 200);
            served += 1;
        }
        served
    };
    let served = std::thread::scope(|scope| {
        let client = &client;
        let clients: Vec<_> = (0..4).map(|number| scope.spawn(move || client(number))).collect();
        for workers in [2, 4, 1, 3] {
            proxy.change_settings("workers 2\n", &format!("workers {workers}\n"));
            await_end(proxy.upgrade());
        }
        over.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).sum::<u32>()
    });
    assert!(served > 20, "{served}");
    proxy.await_count("b", 4);
    assert!(!agent.log().contains("trying again"), "{}", agent.log());
}

#[test]
fn swiftclient_backends_and_what_is_drained_come_too() {
    let proxy = Upgraded::start("site a.test swiftiply=127.0.0.1:0");
    let mut backend = SwiftclientBackend::park(&proxy, "a.test", "swiftclient7f0000011a2b00");
    assert_eq!(ctl(&proxy, &["drain", "b.test"]).0, Some(0));
    await_end(proxy.upgrade());
    let mut client = Client::get(&proxy, "a.test", "/");
    backend.serve_quietly("served");
    assert_eq!(client.read_response().text(), "served");
    let refusal = Bridge::refused(&proxy, "BRIDGE / HTTP/1.1\r\nHost: b.test\r\n\r\n");
    assert_eq!(refusal.status(), 503);
    assert_eq!(ctl(&proxy, &["undrain", "b.test"]).0, Some(0));
    Bridge::park(&proxy, &["b.test"]);
}

#[test]
fn an_operator_is_told_that_the_new_program_serves_or_why_not() {
    let proxy = Upgraded::start("");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    proxy.change_settings("workers 2\n", "workers 2\nno-such-setting 1\n");
    let old = proxy.process().unwrap();
    let (code, text) = ctl(&proxy, &["upgrade"]);
    assert!(code == Some(1) && text.contains("no-such-setting"), "{code:?} {text}");
    proxy.await_log("upgrade: nothing has changed: this program goes on");
    assert_eq!(proxy.process(), Some(old));
    let mut client = Client::get(&proxy, "a.test", "/");
    bridge.serve_to(&mut client, "still");
    proxy.change_settings("workers 2\n", "workers 2\n");
    let before = proxy.log().matches("bridges have come").count();
    let (code, text) = ctl(&proxy, &["upgrade"]);
    proxy.await_upgrade(old, before);
    let process = proxy.process().unwrap();
    assert!(code == Some(0) && text.contains(&format!("process {process} serves")), "{text}");
    client.send_get("a.test", "/");
    bridge.serve_to(&mut client, "again");
}

/// The file of the program that a process runs.
fn program_of(process: u32) -> PathBuf {
    std::fs::read_link(format!("/proc/{process}/exe")).unwrap()
}

#[test]
fn an_operator_may_name_the_program_that_takes_over() {
    let proxy = Upgraded::start("");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let old = proxy.process().unwrap();
    let new = proxy.dir().join("cloudbridge-new");
    // By another process: a child that another test starts just then must not have it open, or it
    // could not be run.
    run_well(Command::new("cp").arg(env!("CARGO_BIN_EXE_cloudbridge")).arg(&new));
    for (program, why) in [
        ("/nonexistent", "cannot start /nonexistent: No such file or directory"),
        ("/bin/true", "the new program ended before it served"),
    ] {
        let (code, text) = ctl(&proxy, &["upgrade", program]);
        assert!(code == Some(1) && text.contains(why), "{code:?} {text}");
    }
    assert_eq!(proxy.process(), Some(old));
    let before = proxy.log().matches("bridges have come").count();
    let (code, text) = ctl(&proxy, &["upgrade", new.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{text}");
    proxy.await_upgrade(old, before);
    assert_eq!(program_of(proxy.process().unwrap()), new);
    // From now on that one is the program.
    await_end(proxy.upgrade());
    assert_eq!(program_of(proxy.process().unwrap()), new);
    let mut client = Client::get(&proxy, "a.test", "/");
    bridge.serve_to(&mut client, "served");
}

/// Who may send orders over the network may not choose what is run.
#[test]
fn a_program_is_named_over_a_unix_socket_or_not_at_all() {
    let proxy = Upgraded(
        Setup::new()
            .settings("listen 127.0.0.1:0\nlisten 127.0.0.1:0 admin\nadmin-token {dir}/token\npidfile {dir}/pid")
            .file("token", "sesame\n")
            .start(),
    );
    eventually("its process", || proxy.process().is_some());
    let old = proxy.process();
    let mut wire = Client::connect_to(proxy.for_admin());
    wire.send(
        "POST /upgrade HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sesame\r\n\
         Content-Length: 23\r\n\r\n{\"program\":\"/bin/true\"}",
    );
    let refused = wire.read_response();
    assert_eq!(refused.status(), 403);
    assert_eq!(
        refused.text(),
        "only root and the proxy's own user may name a program, over a Unix socket\n"
    );
    assert_eq!(proxy.process(), old);
    let answer = proxy.admin(
        "POST /upgrade HTTP/1.1\r\nHost: localhost\r\nContent-Length: 25\r\n\r\n{\"program\":\"cloudbridge\"}",
    );
    assert!(answer.contains("program is not an absolute path"), "{answer}");
    assert_eq!(proxy.process(), old);
}

#[test]
fn a_new_listener_that_cannot_be_had_is_a_refused_upgrade() {
    let proxy = Upgraded::start("");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    proxy.change_settings("workers 2\n", &format!("workers 2\nlisten {address}\n"));
    let old = proxy.process().unwrap();
    signal(old, "USR2");
    proxy.await_log(&format!("upgrade: cannot listen on {address}"));
    proxy.await_log("nothing has changed");
    assert_eq!(proxy.process(), Some(old));
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    bridge.serve_first(&proxy);
}

/// What it had taken is lost with it; what the old one still has is served on, and its listeners
/// take new connections.
#[test]
fn the_old_program_goes_on_when_the_new_one_is_killed() {
    let proxy = Upgraded::start("");
    let mut busy = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    busy.accept_request();
    let old = proxy.upgrade();
    signal(proxy.process().unwrap(), "KILL");
    proxy.await_log("this one goes on");
    eventually("the old program has its pidfile back", || proxy.process() == Some(old));
    busy.respond_to(&mut client, "finished");
    client.send_get("a.test", "/next");
    busy.serve_to(&mut client, "next");
    let mut bridge = Bridge::park(&proxy, &["b.test"]);
    let mut other = Client::get(&proxy, "b.test", "/");
    bridge.serve_to(&mut other, "new");
    // And it may be replaced again.
    proxy.upgrade();
    client.send_get("a.test", "/last");
    busy.serve_to(&mut client, "last");
    other.send_get("b.test", "/last");
    bridge.serve_to(&mut other, "last");
}

/// It would wait for a program that is gone, with its listeners open.
#[test]
fn the_old_program_ends_too_when_the_new_one_is_told_to() {
    let proxy = Upgraded::start("drain-timeout 20s");
    let mut busy = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    busy.accept_request();
    let old = proxy.upgrade();
    let new = proxy.process().unwrap();
    signal(new, "TERM");
    await_end(new);
    busy.respond_to(&mut client, "finished");
    await_end(old);
    assert!(proxy.process().is_none(), "the pidfile is left");
}

#[test]
fn an_address_that_the_new_settings_do_not_have_is_closed() {
    let address = free_address();
    let proxy = Upgraded::start(&format!("listen 127.0.0.1:0\nlisten {address} clients"));
    let mut busy = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    busy.accept_request();
    proxy.change_settings(&format!("listen {address} clients\n"), "");
    let old = proxy.upgrade();
    assert!(is_alive(old));
    eventually("connections are refused", || TcpStream::connect(address).is_err());
    drop(TcpListener::bind(address).expect("the address is free"));
    busy.respond_to(&mut client, "finished");
    await_end(old);
}

#[test]
fn an_upgrade_during_another_is_refused() {
    let proxy = Upgraded::start("");
    let mut busy = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    busy.accept_request();
    let old = proxy.upgrade();
    signal(old, "USR2");
    proxy.await_log("USR2: a new program serves; ask that one");
    signal(old, "HUP");
    proxy.await_log("HUP: a new program serves; ask that one");
    busy.respond_to(&mut client, "finished");
    await_end(old);
}

#[test]
fn it_ends_like_any_other_and_leaves_no_file() {
    let proxy = Upgraded::start("listen 127.0.0.1:0\nlisten unix:{dir}/clients.sock clients");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    await_end(proxy.upgrade());
    let socket = proxy.dir().join("clients.sock");
    let mut over_unix = UnixStream::connect(&socket).unwrap();
    over_unix.write_all(b"GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").unwrap();
    bridge.serve("over a socket");
    let mut answer = String::new();
    over_unix.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("over a socket"), "{answer}");
    let process = proxy.process().unwrap();
    signal(process, "TERM");
    bridge.read_to_end();
    await_end(process);
    assert!(!socket.exists() && proxy.process().is_none(), "a file is left");
}
