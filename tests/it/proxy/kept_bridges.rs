//! Parked bridges that systemd keeps while the process is killed and started again.

use crate::common::{
    ACK, Bridge, Client, DEADLINE, Dir, PASSES, Proxy, Setup, Store, SwiftclientBackend, Systemd,
    eventually, free_address, installed, is_alive, let_pass, signal,
};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";

/// A unit: what systemd keeps for its processes, and where they listen.
struct Unit {
    store: Store,
    address: SocketAddr,
    settings: String,
}

impl Unit {
    /// `None`, with a line that says so, if sockets cannot be passed to a program here.
    fn new(settings: &str) -> Option<Unit> {
        let is_possible = installed("Python with socket.recv_fds", &PASSES);
        is_possible.then(|| Unit {
            store: Store::new(),
            address: free_address(),
            settings: settings.to_owned(),
        })
    }

    #[track_caller]
    fn setup(&self, settings: &str) -> Setup {
        let setup = Setup::new()
            .variable("NOTIFY_SOCKET", &self.store.notify_socket())
            .variable("FDSTORE", "4609")
            .settings(&format!("listen {}\n{settings}", self.address));
        let kept = self.store.kept();
        kept.into_iter().fold(setup, |setup, (name, file)| setup.pass(&name, file))
    }

    #[track_caller]
    fn start(&self) -> Proxy {
        self.setup(&self.settings).start()
    }

    /// Kills the process, and starts the next.
    #[track_caller]
    fn restart(&self, proxy: Proxy) -> Proxy {
        kill(proxy);
        self.start()
    }

    /// Waits until so many bridges are parked, and kept.
    #[track_caller]
    fn await_parked(&self, proxy: &Proxy, count: u64) {
        proxy.await_count("b", count);
        self.store.await_bridges(usize::try_from(count).unwrap());
    }
}

fn kill(mut proxy: Proxy) {
    proxy.signal("KILL");
    proxy.wait_exit();
}

/// A request of a new client, which this bridge serves.
#[track_caller]
fn assert_serves(proxy: &Proxy, bridge: &mut Bridge, text: &str) {
    let mut client = Client::get(proxy, "a.test", &format!("/{text}"));
    assert_eq!(bridge.serve_to(&mut client, text), format!("GET /{text} HTTP/1.1"));
}

/// Nobody proves anything a second time to a process that has not sent a nonce.
#[test]
fn proven_keys_stay_proven_after_a_crash() {
    let dir = Dir::new();
    let secrets = dir.write("secrets", "1000000000:first\n");
    let settings = format!("secrets {}\nbearer-keys no", secrets.display());
    let Some(unit) = Unit::new(&settings) else { return };
    let mut proxy = unit.start();
    // `printf first:1100000000:a.test | sha1sum`
    let key = "344e847d1b3cdfc8673cfe1d0388b7b78ab720e6:1100000000:a.test";
    let mut bridge = Bridge::prove(&proxy, &["a.test"], key);
    assert_serves(&proxy, &mut bridge, "first");
    for round in 0..2 {
        unit.await_parked(&proxy, 1);
        proxy = unit.restart(proxy);
        assert_serves(&proxy, &mut bridge, &format!("round-{round}"));
    }
}

#[test]
fn fresh_and_reused_bridges_serve_on_after_a_crash() {
    let Some(unit) = Unit::new("") else { return };
    let mut proxy = unit.start();
    let mut reused = Bridge::park(&proxy, &["a.test"]);
    assert_serves(&proxy, &mut reused, "first");
    let mut fresh = Bridge::park(&proxy, &["b.test"]);
    for round in 0..3 {
        unit.await_parked(&proxy, 2);
        proxy = unit.restart(proxy);
        proxy.await_log("systemd has kept 2 idle bridges, and 0 that are closed");
        proxy.await_log("2 bridges of the process before this one are parked again");
        assert_serves(&proxy, &mut reused, &format!("round-{round}"));
    }
    let mut client = Client::get(&proxy, "b.test", "/");
    // It is still to be told that a request comes.
    fresh.acknowledge();
    fresh.serve_to(&mut client, "fresh");
    proxy.terminate();
    assert!(proxy.wait_exit().success());
    assert_eq!(unit.store.names(), [""; 0]);
}

#[test]
fn what_was_in_progress_is_closed_and_its_answer_goes_nowhere() {
    let Some(unit) = Unit::new("") else { return };
    let proxy = unit.start();
    let mut busy = Bridge::park(&proxy, &["a.test"]);
    let mut stopped = Client::get(&proxy, "a.test", "/stopped");
    assert_eq!(busy.accept_request().start, "GET /stopped HTTP/1.1");
    // A fresh one whose 101 has been sent.
    let mut asked = Bridge::park(&proxy, &["a.test"]);
    let mut asking = Client::get(&proxy, "a.test", "/asking");
    asked.read_switch();
    let mut tunnel = Bridge::park(&proxy, &["a.test"]);
    let head = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    let mut in_tunnel = Client::request(&proxy, head);
    tunnel.accept_request();
    tunnel.send(SWITCHED);
    assert_eq!(in_tunnel.read_head().status(), 101);
    let mut idle = Bridge::park(&proxy, &["a.test"]);
    unit.store.await_bridges(4);
    kill(proxy);
    for client in [&mut stopped, &mut asking, &mut in_tunnel] {
        client.expect_closed();
    }
    // It answers while nobody is there.
    busy.respond("late");
    let proxy = unit.start();
    proxy.await_log("systemd has kept 1 idle bridges, and 3 that are closed");
    for bridge in [&mut busy, &mut asked, &mut tunnel] {
        bridge.expect_closed();
    }
    assert_serves(&proxy, &mut idle, "next");
    unit.store.await_bridges(1);
}

#[test]
fn a_bridge_that_was_probed_is_closed() {
    let Some(unit) = Unit::new("workers 1\nbridge-ack-timeout 3s") else { return };
    let proxy = unit.start();
    let mut silent = Bridge::with_token(&proxy, "", "leave, undelivered");
    let mut probed = Bridge::with_token(&proxy, "", "leave, undelivered");
    let mut client = Client::get(&proxy, "a.test", "/");
    silent.read_switch();
    silent.expect_closed();
    // The next of the backend is probed for the request.
    probed.read_switch();
    unit.store.await_bridges(1);
    kill(proxy);
    client.expect_closed();
    probed.send(ACK);
    let proxy = unit.start();
    proxy.await_log("systemd has kept 0 idle bridges, and 1 that are closed");
    probed.expect_closed();
}

/// What has come while nobody was there.
#[test]
fn a_bridge_that_has_closed_or_spoken_meanwhile_is_not_used() {
    let Some(unit) = Unit::new("") else { return };
    let proxy = unit.start();
    let closes = Bridge::park(&proxy, &["a.test"]);
    let mut speaks = Bridge::park(&proxy, &["a.test"]);
    let mut good = Bridge::park(&proxy, &["a.test"]);
    unit.await_parked(&proxy, 3);
    kill(proxy);
    drop(closes);
    speaks.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray");
    let proxy = unit.start();
    speaks.expect_closed();
    proxy.await_count("b", 1);
    assert_serves(&proxy, &mut good, "good");
    unit.store.await_bridges(1);
    proxy.await_log("backend 127.0.0.1 sent bytes without a request");
}

/// A ping that the next process sends is whole, and so was the last one.
#[test]
fn pings_go_on_after_a_crash() {
    let Some(unit) = Unit::new("ping-interval 200ms") else { return };
    let proxy = unit.start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    bridge.expect_exact(ACK);
    unit.await_parked(&proxy, 1);
    let proxy = unit.restart(proxy);
    for _ in 0..2 {
        bridge.expect_exact(ACK);
    }
    assert_serves(&proxy, &mut bridge, "pinged");
}

#[test]
fn keys_are_checked_under_the_settings_of_the_next_process() {
    let Some(mut unit) = Unit::new("") else { return };
    let proxy = unit.start();
    let mut fresh = Bridge::park(&proxy, &["a.test"]);
    let mut reused = Bridge::park(&proxy, &["b.test"]);
    let mut client = Client::get(&proxy, "b.test", "/");
    reused.serve_to(&mut client, "first");
    unit.await_parked(&proxy, 2);
    kill(proxy);
    unit.settings = "secrets {dir}/secrets".to_owned();
    let proxy = unit.setup(&unit.settings).file("secrets", "1000:one\n").start();
    assert_eq!(fresh.read_refusal().status(), 401);
    reused.expect_closed();
    proxy.await_log("of the old program is closed");
    unit.store.await_bridges(0);
}

/// Its name is that of the first: only the socket itself tells.
#[test]
fn a_slot_is_about_one_socket() {
    let Some(unit) = Unit::new("") else { return };
    let proxy = unit.start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    unit.await_parked(&proxy, 1);
    kill(proxy);
    let (ours, theirs) = connection();
    unit.store.change(|kept| {
        let name =
            kept.iter().find(|(name, _)| name.starts_with("cloudbridge/b")).expect("one").0.clone();
        kept.push((name, OwnedFd::from(theirs)));
        kept.push(("cloudbridge/b4095".to_owned(), OwnedFd::from(connection().1)));
        kept.push(("cloudbridge/b99999".to_owned(), OwnedFd::from(connection().1)));
    });
    let proxy = unit.start();
    proxy.await_log("systemd has kept 1 idle bridges, and 3 that are closed");
    assert_eq!((&ours).read(&mut [0]).expect("a FIN"), 0);
    assert_serves(&proxy, &mut bridge, "first");
}

fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let ours = TcpStream::connect(listener.local_addr().expect("it")).expect("a connection");
    (ours, listener.accept().expect("it").0)
}

#[test]
fn without_the_table_every_bridge_is_closed() {
    let Some(unit) = Unit::new("") else { return };
    let proxy = unit.start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    unit.await_parked(&proxy, 1);
    kill(proxy);
    unit.store.change(|kept| kept.retain(|(name, _)| name != "cloudbridge/table"));
    let proxy = unit.start();
    bridge.expect_closed();
    unit.store.await_bridges(0);
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    unit.await_parked(&proxy, 1);
    let proxy = unit.restart(proxy);
    assert_serves(&proxy, &mut bridge, "again");
}

/// systemd's copy would keep it open.
#[test]
fn a_bridge_that_ends_is_closed_though_systemd_has_it() {
    let Some(unit) = Unit::new("bridge-timeout 5s") else { return };
    let mut proxy = unit.start();
    let mut timed_out = Bridge::park(&proxy, &["a.test"]);
    unit.store.await_bridges(1);
    assert_eq!(timed_out.read_refusal().status(), 504);
    let mut closes = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    closes.accept_request();
    closes.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.read_response().text(), "ok");
    closes.expect_closed();
    unit.store.await_bridges(0);
    // A message that is cut off looks cut off.
    let mut cut = Bridge::park(&proxy, &["a.test"]);
    client.send_get("a.test", "/");
    cut.accept_request();
    proxy.terminate();
    proxy.await_log("shutting down");
    cut.respond_to(&mut client, "last");
    cut.expect_closed();
    assert!(proxy.wait_exit().success());
    assert_eq!(unit.store.names(), [""; 0]);
}

#[test]
fn a_swiftclient_backend_is_kept_too() {
    let Some(unit) = Unit::new("") else { return };
    let site = format!("site b.test swiftiply={}", free_address());
    let unit = Unit { settings: site, ..unit };
    let proxy = unit.start();
    let at = proxy.swiftclient_listener("b.test");
    let mut backend =
        SwiftclientBackend::park_at(&proxy, at, "b.test", "swiftclient7f0000011a2b00");
    let mut client = Client::get(&proxy, "b.test", "/");
    backend.serve_to(&mut client, "before");
    unit.await_parked(&proxy, 1);
    let proxy = unit.restart(proxy);
    let mut client = Client::get(&proxy, "b.test", "/");
    backend.serve_to(&mut client, "after");
}

/// Bridges, and one in an exchange, go to a new program with their slots.
#[test]
fn what_has_gone_to_a_new_program_is_kept_for_the_one_after_it() {
    let Some(unit) = Unit::new("") else { return };
    let proxy = unit.start();
    let mut busy = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    busy.accept_request();
    let mut idle = Bridge::park(&proxy, &["b.test"]);
    unit.store.await_bridges(2);
    let names = unit.store.names();
    proxy.signal("USR2");
    proxy.await_log("1 bridges have come from the old program");
    busy.respond_to(&mut client, "finished");
    let new = Killed(new_process(&proxy));
    eventually("the old program ends", || !is_alive(proxy.id()));
    assert_eq!(unit.store.names(), names, "the old program has had nothing forgotten");
    proxy.await_count("b", 2);
    drop(new);
    let proxy = unit.start();
    proxy.await_log("systemd has kept 2 idle bridges, and 0 that are closed");
    assert_serves(&proxy, &mut busy, "still");
    let mut client = Client::get(&proxy, "b.test", "/");
    idle.serve_to(&mut client, "there");
}

/// The process that serves by now.
#[track_caller]
fn new_process(proxy: &Proxy) -> u32 {
    proxy.await_log("upgrade: process ");
    let log = proxy.log();
    let (_, rest) = log.rsplit_once("upgrade: process ").expect("its process");
    rest.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

/// systemd has the last copies of what had gone to it.
#[test]
fn what_a_new_program_had_is_closed_when_it_dies_and_the_old_one_goes_on() {
    let Some(unit) = Unit::new("") else { return };
    let proxy = unit.start();
    let mut busy = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    busy.accept_request();
    let mut idle = Bridge::park(&proxy, &["b.test"]);
    unit.store.await_bridges(2);
    proxy.signal("USR2");
    proxy.await_log("1 bridges have come from the old program");
    let mut newest = Bridge::park(&proxy, &["b.test"]);
    unit.store.await_bridges(3);
    signal(new_process(&proxy), "KILL");
    proxy.await_log("this one goes on");
    idle.expect_closed();
    newest.expect_closed();
    busy.respond_to(&mut client, "finished");
    unit.await_parked(&proxy, 1);
    let proxy = unit.restart(proxy);
    assert_serves(&proxy, &mut busy, "still");
}

#[test]
fn what_an_old_program_had_is_closed_when_it_is_killed() {
    let Some(unit) = Unit::new("") else { return };
    let proxy = unit.start();
    let mut busy = Bridge::park(&proxy, &["a.test"]);
    let _client = Client::get(&proxy, "a.test", "/");
    busy.accept_request();
    let mut idle = Bridge::park(&proxy, &["b.test"]);
    unit.store.await_bridges(2);
    proxy.signal("USR2");
    proxy.await_log("1 bridges have come from the old program");
    let new = Killed(new_process(&proxy));
    proxy.signal("KILL");
    busy.expect_closed();
    unit.store.await_bridges(1);
    let mut client = Client::get(&proxy, "b.test", "/");
    idle.serve_to(&mut client, "with the new one");
    drop(new);
}

/// A process that is killed with the test.
struct Killed(u32);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended already.
        let line = format!("kill -KILL {} 2>/dev/null", self.0);
        let _ = Command::new("sh").args(["-c", &line]).status();
    }
}

/// What a crowd of clients and backends has seen.
#[derive(Default)]
struct Journal {
    /// How many times a backend has been given each request.
    taken: Mutex<HashMap<String, usize>>,
    answered: AtomicUsize,
    mixed: Mutex<Vec<String>>,
    dialled: AtomicUsize,
    is_over: AtomicBool,
}

impl Journal {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }
}

/// A line without its end; nothing at the end of the connection.
fn line(from: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    from.read_line(&mut line).ok().filter(|count| *count > 0)?;
    Some(line.trim_end().to_owned())
}

/// A start line, and the body that a Content-Length tells.
fn message(from: &mut impl BufRead) -> Option<(String, String)> {
    let start = line(from)?;
    let mut length = 0;
    loop {
        let field = line(from)?;
        if field.is_empty() {
            break;
        }
        if let Some(value) = field.to_lowercase().strip_prefix("content-length: ") {
            length = value.parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    Some((start, String::from_utf8(body).ok()?))
}

fn connect(address: SocketAddr) -> Option<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&address, DEADLINE).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    Some(BufReader::new(stream))
}

/// A bridge, until its connection ends. It answers each request with that one's own body.
fn serve(address: SocketAddr, journal: &Journal) -> Option<()> {
    let mut bridge = connect(address)?;
    journal.dialled.fetch_add(1, Ordering::SeqCst);
    bridge.get_ref().write_all(b"BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n").ok()?;
    while !journal.is_over() {
        let (start, body) = message(&mut bridge)?;
        if start.starts_with("HTTP/1.1 101 ") {
            bridge.get_ref().write_all(ACK).ok()?;
        } else if start.starts_with("POST ") {
            *journal.taken.lock().expect("lock").entry(body.clone()).or_default() += 1;
            let length = body.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
            bridge.get_ref().write_all(answer.as_bytes()).ok()?;
        } else if !start.starts_with("HTTP/1.1 100 ") {
            return None;
        }
    }
    Some(())
}

/// A client, until its connection ends: one request after the other, each once.
fn ask(address: SocketAddr, journal: &Journal, name: &str, number: &mut usize) -> Option<()> {
    let mut client = connect(address)?;
    while !journal.is_over() {
        *number += 1;
        let body = format!("{name}-{number}");
        let length = body.len();
        let head = format!("POST /{body} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}");
        client.get_ref().write_all(format!("{head}\r\n\r\n{body}").as_bytes()).ok()?;
        let (start, answer) = message(&mut client)?;
        if start.starts_with("HTTP/1.1 200 ") {
            journal.answered.fetch_add(1, Ordering::SeqCst);
            if answer != body {
                journal.mixed.lock().expect("lock").push(format!("{body}: {answer}"));
            }
        }
    }
    Some(())
}

/// How often the process is killed. More by hand: `KILLS=1000 cargo test --test it -- at_any_moment`.
const KILLS: usize = 15;

#[test]
fn a_crash_at_any_moment_mixes_no_answers_and_repeats_nothing() {
    const BRIDGES: usize = 12;
    let Some(unit) = Unit::new("") else { return };
    let kills = std::env::var("KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let mut proxy = unit.start();
    let (journal, address) = (Arc::new(Journal::default()), unit.address);
    let mut threads = Vec::new();
    for _ in 0..BRIDGES {
        let journal = Arc::clone(&journal);
        threads.push(thread::spawn(move || {
            while !journal.is_over() {
                serve(address, &journal);
            }
        }));
    }
    for client in 0..8 {
        let journal = Arc::clone(&journal);
        threads.push(thread::spawn(move || {
            let (name, mut number) = (format!("client-{client}"), 0);
            while !journal.is_over() {
                ask(address, &journal, &name, &mut number);
            }
        }));
    }
    let mut kept = 0;
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..kills {
        let before = journal.answered.load(Ordering::SeqCst);
        eventually("requests are answered", || {
            journal.answered.load(Ordering::SeqCst) > before + 50
        });
        // xorshift64
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let_pass(Duration::from_micros(random % 20_000));
        proxy = unit.restart(proxy);
        let log = proxy.log();
        let (_, rest) = log.split_once("systemd has kept ").unwrap_or_default();
        kept += rest.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0);
    }
    journal.is_over.store(true, Ordering::SeqCst);
    kill(proxy);
    unit.store.change(Vec::clear);
    for thread in threads {
        thread.join().expect("it does not panic");
    }
    let taken = journal.taken.lock().expect("lock");
    let twice: Vec<_> = taken.iter().filter(|(_, count)| **count > 1).collect();
    let dialled = journal.dialled.load(Ordering::SeqCst);
    eprintln!(
        "{kills} kills: {} requests, {} answers, {kept} bridges kept, {dialled} dialled",
        taken.len(),
        journal.answered.load(Ordering::SeqCst)
    );
    assert!(twice.is_empty(), "{twice:?}");
    assert_eq!(*journal.mixed.lock().expect("lock"), [""; 0]);
    assert!(kept > 0, "no bridge was idle at any kill");
}

#[test]
fn there_are_as_many_as_fit_and_the_others_end_with_the_process() {
    let Some(unit) = Unit::new("workers 1") else { return };
    // One place is left beside 512 for listeners and one for the table.
    let start = || unit.setup(&unit.settings).variable("FDSTORE", "514").start();
    let proxy = start();
    let mut kept = Bridge::park(&proxy, &["a.test"]);
    let mut not_kept = Bridge::park(&proxy, &["a.test"]);
    unit.store.await_bridges(1);
    proxy.await_count("b", 2);
    kill(proxy);
    not_kept.expect_closed();
    let proxy = start();
    assert_serves(&proxy, &mut kept, "kept");
}

#[test]
fn a_bridge_of_too_many_names_is_not_kept() {
    let Some(unit) = Unit::new("") else { return };
    let proxy = unit.start();
    let names: Vec<String> = (0..40).map(|number| format!("name-{number:030}.test")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).chain(["a.test"]).collect();
    let mut long = Bridge::park(&proxy, &names);
    assert_serves(&proxy, &mut long, "long");
    let mut short = Bridge::park(&proxy, &["b.test"]);
    unit.store.await_bridges(1);
    kill(proxy);
    long.expect_closed();
    let proxy = unit.start();
    let mut client = Client::get(&proxy, "b.test", "/");
    short.serve_to(&mut client, "short");
}

#[test]
fn a_store_for_listeners_alone_has_no_bridges() {
    let Some(unit) = Unit::new("") else { return };
    let proxy = unit.setup("").variable("FDSTORE", "512").start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    assert_serves(&proxy, &mut bridge, "served");
    proxy.await_count("b", 1);
    assert_eq!(unit.store.names(), [""; 0]);
    kill(proxy);
    bridge.expect_closed();
    // What a process with a larger store has left is ended.
    let proxy = unit.start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    unit.await_parked(&proxy, 1);
    kill(proxy);
    let proxy = unit.setup("").variable("FDSTORE", "512").start();
    bridge.expect_closed();
    eventually("nothing of it is kept", || unit.store.names().is_empty());
    drop(proxy);
}

/// The queue of its socket is short.
#[test]
fn a_systemd_that_does_not_read_holds_nobody_up() {
    const BRIDGES: usize = 600;
    let systemd = Systemd::new();
    let setup = Setup::new().variable("NOTIFY_SOCKET", &systemd.notify_socket());
    let proxy = setup.variable("FDSTORE", "4609").settings("workers 1").start();
    systemd.await_value("READY", |value| value == "1");
    let mut bridges: Vec<Bridge> =
        (0..BRIDGES).map(|_| Bridge::park(&proxy, &["a.test"])).collect();
    proxy.await_count("b", BRIDGES as u64);
    for bridge in &mut bridges {
        assert_serves(&proxy, bridge, "served");
    }
    let mut stored = 0;
    // Without a pause after each.
    let until = Instant::now() + DEADLINE;
    while stored < BRIDGES {
        assert!(Instant::now() < until, "{stored} are kept");
        let next = systemd.next();
        let name = next.get("FDNAME").unwrap_or_default();
        stored += usize::from(name.starts_with("cloudbridge/b") && next.files.len() == 1);
    }
}
