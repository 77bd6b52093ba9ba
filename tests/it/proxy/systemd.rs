//! Under systemd: what it is told, the sockets that it opens, and those that it keeps.

use crate::common::{
    Bridge, Client, PASSES, Proxy, Run, Setup, SwiftclientBackend, Systemd, eventually,
    free_address, installed, is_alive, let_pass, logged, signal,
};
use std::fs::read_to_string;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::time::Duration;

/// The period of the watchdog, in microseconds. A test that waits for silence waits for it.
const PERIOD: &str = "400000";

/// Whether sockets can be passed to a program here; says so if not.
fn passes() -> bool {
    installed("Python with socket.recv_fds", &PASSES)
}

fn notifying(systemd: &Systemd) -> Setup {
    Setup::new().variable("NOTIFY_SOCKET", &systemd.notify_socket())
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

/// A client that is connected to `address` is served by a bridge for a.test.
#[track_caller]
fn assert_serves(bridge: &mut Bridge, address: SocketAddr) {
    let mut client = Client::connect_to(address);
    client.send_get("a.test", "/");
    bridge.serve_to(&mut client, "served");
}

/// How the proxy ends that is started with these settings and sockets, which it cannot use.
#[track_caller]
fn refusal(settings: &str, passed: Vec<(&str, OwnedFd)>) -> String {
    let setup = Setup::new().settings(&format!("listen 127.0.0.1:0 bridges\n{settings}"));
    let setup = passed.into_iter().fold(setup, |setup, (name, file)| setup.pass(name, file));
    setup.refused()
}

/// Has the program replaced by a new one, and returns that one's process.
#[track_caller]
fn upgrade(proxy: &Proxy, old: u32) -> u32 {
    const SAID: [&str; 2] = ["bridges have come", "upgrade: process "];
    let count = |what| proxy.log().matches(what).count();
    let before = SAID.map(count);
    signal(old, "USR2");
    eventually("a new program serves", || {
        SAID.map(count).iter().zip(before).all(|(now, before)| *now > before)
    });
    let log = proxy.log();
    let (_, rest) = log.rsplit_once("upgrade: process ").expect("its process");
    rest.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
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

#[test]
fn a_reload_is_told_before_and_after() {
    let systemd = Systemd::new();
    let proxy = notifying(&systemd).start();
    let pid = format!("MAINPID={}", proxy.id());
    assert_eq!(systemd.next().lines, ["STATUS=starting"]);
    assert_eq!(systemd.next().lines, ["READY=1", &pid]);
    let serving = "STATUS=serving 0 hosts, 0 bridges parked, 0 requests in progress";
    assert_eq!(systemd.next().lines, [serving]);
    let reload: [&dyn Fn(); 2] = [&|| proxy.reload(), &|| {
        let head = "POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
        let answer = proxy.admin(head);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }];
    for reload in reload {
        reload();
        let reloading = systemd.next();
        assert_eq!(reloading.lines[0], "RELOADING=1");
        let micros: u64 = reloading.get("MONOTONIC_USEC").expect("a time").parse().unwrap();
        assert!(micros > 0);
        assert_eq!(systemd.next().lines, ["STATUS=reading the settings again"]);
        assert_eq!(systemd.next().lines, ["READY=1"]);
        assert_eq!(systemd.next().lines, [serving]);
    }
    proxy.change_settings("workers 2\n", "workers 2\nno-such-setting 1\n");
    proxy.reload();
    assert_eq!(systemd.next_state().lines[0], "RELOADING=1");
    assert_eq!(systemd.next_state().lines, ["READY=1"]);
    let status = systemd.next();
    let status = status.get("STATUS").expect("a status");
    let refused = "in progress; the last reload was refused: ";
    assert!(status.contains(refused) && status.contains("no-such-setting"), "{status}");
}

#[test]
fn the_status_says_what_it_serves_and_that_it_drains() {
    let systemd = Systemd::new();
    let mut proxy = notifying(&systemd).settings("drain-timeout 20s").start();
    let mut bridge = Bridge::park(&proxy, &["a.test", "b.test"]);
    let _parked = Bridge::park(&proxy, &["b.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    bridge.accept_request();
    let serving = "serving 2 hosts, 1 bridge parked, 1 request in progress";
    systemd.await_value("STATUS", |status| status == serving);
    proxy.terminate();
    assert_eq!(systemd.next_state().lines, ["STOPPING=1"]);
    let draining = "shutting down: 1 request in progress";
    systemd.await_value("STATUS", |status| status == draining);
    // More than once: it asks for more time while it drains.
    for _ in 0..2 {
        systemd.await_value("EXTEND_TIMEOUT_USEC", |time| time == "15000000");
    }
    bridge.respond_to(&mut client, "finished");
    assert!(proxy.wait_exit().success());
}

/// A thread that does not turn cannot be had at will, but for the main thread: it waits here for
/// settings that nobody writes. (`proxy/supervision.rs` shows the same of workers.)
#[test]
fn the_watchdog_hears_nothing_while_a_thread_hangs() {
    let systemd = Systemd::new();
    let proxy = notifying(&systemd).variable("WATCHDOG_USEC", PERIOD).start();
    for _ in 0..3 {
        systemd.await_value("WATCHDOG", |value| value == "1");
    }
    let settings = proxy.dir().join("cloudbridge.conf");
    let text = read_to_string(&settings).expect("the settings");
    std::fs::remove_file(&settings).expect("it is there");
    assert!(Command::new("mkfifo").arg(&settings).status().expect("mkfifo").success());
    proxy.reload();
    systemd.await_value("RELOADING", |value| value == "1");
    proxy.await_log("the main thread has not turned for 200ms");
    let period = Duration::from_micros(PERIOD.parse().unwrap());
    // The line may be of a moment before, and a sign of life still on its way.
    eventually("there is silence", || {
        systemd.unread("WATCHDOG");
        let_pass(period);
        systemd.unread("WATCHDOG") == 0
    });
    let_pass(3 * period);
    assert_eq!(systemd.unread("WATCHDOG"), 0);
    std::fs::write(&settings, text).expect("the proxy reads");
    systemd.await_value("WATCHDOG", |value| value == "1");
    proxy.await_log(logged::READ_AGAIN);
}

#[test]
fn another_process_may_be_meant_by_the_watchdog() {
    let systemd = Systemd::new();
    let setup = notifying(&systemd).variable("WATCHDOG_USEC", PERIOD);
    let proxy = setup.variable("WATCHDOG_PID", "1").start();
    systemd.await_value("READY", |value| value == "1");
    let_pass(Duration::from_micros(2 * PERIOD.parse::<u64>().unwrap()));
    assert_eq!(systemd.unread("WATCHDOG"), 0);
    drop(proxy);
}

#[test]
fn at_an_upgrade_the_new_program_is_the_main_process_and_has_the_watchdog() {
    let systemd = Systemd::new();
    let proxy = notifying(&systemd).variable("WATCHDOG_USEC", PERIOD).start();
    let mut busy = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    busy.accept_request();
    assert_eq!(systemd.next_state().get("READY"), Some("1"));
    let first = upgrade(&proxy, proxy.id());
    let new = Killed(first);
    let main = format!("{first}");
    systemd.await_value("MAINPID", |value| value == main);
    // Both have said so. Nothing of the old one comes after it.
    systemd.await_value("MAINPID", |value| value == main);
    signal(first, "KILL");
    drop(new);
    proxy.await_log("this one goes on");
    let old = systemd.next_state();
    assert_eq!(old.lines, ["READY=1", &format!("MAINPID={}", proxy.id())]);
    systemd.await_value("WATCHDOG", |value| value == "1");
    systemd.unread("WATCHDOG");
    let second = Killed(upgrade(&proxy, proxy.id()));
    busy.respond_to(&mut client, "finished");
    eventually("the old program ends", || !is_alive(proxy.id()));
    systemd.unread("WATCHDOG");
    for _ in 0..3 {
        systemd.await_value("WATCHDOG", |value| value == "1");
    }
    signal(second.0, "TERM");
    systemd.await_value("STOPPING", |value| value == "1");
    eventually("the new one ends", || !is_alive(second.0));
}

/// When a unit is stopped, systemd sends TERM to all programs, and once more to those that are left
/// when the newest has ended.
#[test]
fn an_old_program_finishes_though_it_is_told_to_stop_twice() {
    let systemd = Systemd::new();
    let mut proxy = notifying(&systemd).settings("drain-timeout 1m").start();
    let mut busy = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    busy.accept_request();
    let new = Killed(upgrade(&proxy, proxy.id()));
    signal(proxy.id(), "TERM");
    signal(new.0, "TERM");
    eventually("the new one ends", || !is_alive(new.0));
    eventually("the second signal is noticed", || {
        signal(proxy.id(), "TERM");
        proxy.log().contains("second signal: still finishing what is in flight")
    });
    busy.respond_to(&mut client, "finished");
    assert!(proxy.wait_exit().success());
}

#[test]
fn connections_wait_in_kept_sockets_while_the_process_is_killed_and_started_again() {
    if !passes() {
        return;
    }
    for (before, after) in [(4, 2), (2, 3), (1, 2)] {
        // Others each time: a program that another test starts at this moment may still have the kept
        // sockets of the last ones until its exec.
        let [web, admin] = [free_address(), free_address()];
        let systemd = Systemd::new();
        let start = |workers: usize, kept: Vec<(String, OwnedFd)>| {
            let lines = format!("workers {workers}\nlisten {web}\nlisten {admin} admin");
            let setup = notifying(&systemd).variable("FDSTORE", "16").settings(&lines);
            kept.into_iter().fold(setup, |setup, (name, file)| setup.pass(&name, file)).start()
        };
        let mut proxy = start(before, Vec::new());
        let mut kept = Vec::new();
        loop {
            let mut next = systemd.next_state();
            if next.get("READY").is_some() {
                break;
            }
            assert_eq!(next.lines[0], "FDSTORE=1");
            assert_eq!(next.get("FDPOLL"), Some("0"));
            let name = next.get("FDNAME").expect("a name").to_owned();
            kept.extend(next.files.drain(..).map(|file| (name.clone(), file)));
        }
        let named = |address: SocketAddr| {
            let name = format!("cloudbridge/listener/{}", address.to_string().replace(':', "%3A"));
            kept.iter().filter(|(known, _)| *known == name).count()
        };
        assert_eq!((named(web), named(admin), kept.len()), (before, 1, before + 2));
        proxy.signal("KILL");
        proxy.wait_exit();
        let mut clients: Vec<Client> = (0..20)
            .map(|_| {
                let mut client = Client::connect_to(web);
                client.send_get("a.test", "/");
                client
            })
            .collect();
        let proxy = start(after, kept);
        let mut bridge = Bridge::park(&proxy, &["a.test"]);
        // Those of each socket are in their order.
        clients.iter().for_each(|_| _ = bridge.serve("waited"));
        for client in &mut clients {
            assert_eq!(client.read_response().text(), "waited");
        }
        let answer = ask(TcpStream::connect(admin).unwrap(), "/healthz");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

#[test]
fn kept_sockets_follow_the_settings() {
    let systemd = Systemd::new();
    let [stays, goes, comes] = [free_address(), free_address(), free_address()];
    let setup = notifying(&systemd).variable("FDSTORE", "16");
    let lines = format!("listen {stays}\nlisten {goes} clients");
    let mut proxy = setup.settings(&lines).start();
    let name = |address: SocketAddr| {
        format!("FDNAME=cloudbridge/listener/{}", address.to_string().replace(':', "%3A"))
    };
    let unix = systemd.next_state();
    let at = unix.get("FDNAME").expect("a name");
    assert!(at.starts_with("cloudbridge/listener/unix%3A/") && unix.files.len() == 1, "{unix:?}");
    for address in [stays, goes] {
        let next = systemd.next_state();
        assert_eq!(next.lines, ["FDSTORE=1", &name(address), "FDPOLL=0"]);
        assert_eq!(next.files.len(), 2);
    }
    assert_eq!(systemd.next_state().get("READY"), Some("1"));
    proxy.change_settings(&format!("listen {goes} "), &format!("listen {comes} "));
    proxy.reload();
    assert_eq!(systemd.next_state().lines[0], "RELOADING=1");
    // In this order: there may be no room for both.
    assert_eq!(systemd.next_state().lines, ["FDSTOREREMOVE=1", &name(goes)]);
    let stored = systemd.next_state();
    assert_eq!((&*stored.lines[1], stored.files.len()), (&*name(comes), 2));
    assert_eq!(systemd.next_state().lines, ["READY=1"]);
    eventually("connections are refused", || TcpStream::connect(goes).is_err());
    // The next process needs the file of a Unix socket that systemd keeps.
    proxy.terminate();
    assert!(proxy.wait_exit().success());
    assert!(proxy.dir().join("admin.sock").exists());
}

/// The kernel has chosen their ports, so nothing else tells them apart.
#[test]
fn listeners_at_any_port_are_kept_together() {
    let systemd = Systemd::new();
    let lines = "workers 2\nlisten 127.0.0.1:0 clients\nlisten 127.0.0.1:0 clients";
    let setup = notifying(&systemd).variable("FDSTORE", "16").settings(lines);
    let proxy = setup.settings("listen 127.0.0.1:0 bridges").start();
    let name = |what| format!("FDNAME=cloudbridge/listener/127.0.0.1%3A0,{what}");
    systemd.await_value("FDNAME", |name| name.contains("/unix%3A/"));
    for (what, count) in [("clients", 4), ("bridges", 2)] {
        let stored = systemd.next_state();
        assert_eq!((&*stored.lines[1], stored.files.len()), (&*name(what), count));
    }
    assert_eq!(systemd.next_state().get("READY"), Some("1"));
    proxy.change_settings("clients\nlisten 127.0.0.1:0 clients\n", "clients\n");
    proxy.reload();
    assert_eq!(systemd.next_state().lines[0], "RELOADING=1");
    assert_eq!(systemd.next_state().lines, ["FDSTOREREMOVE=1", &name("clients")]);
    let stored = systemd.next_state();
    assert_eq!((&*stored.lines[1], stored.files.len()), (&*name("clients"), 2));
    assert_eq!(systemd.next_state().lines, ["READY=1"]);
}

/// If it died before, the old one would go on, and nobody would accept at the new one's sockets.
#[test]
fn a_new_program_has_its_sockets_kept_when_the_old_one_has_ended() {
    let systemd = Systemd::new();
    let address = free_address();
    let setup = notifying(&systemd).variable("FDSTORE", "16");
    let proxy = setup.settings(&format!("workers 2\nlisten {address}")).start();
    systemd.await_value("READY", |value| value == "1");
    let mut busy = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    busy.accept_request();
    proxy.change_settings("workers 2", "workers 3");
    let new = Killed(upgrade(&proxy, proxy.id()));
    let main = format!("{}", new.0);
    for _ in 0..2 {
        assert_eq!(systemd.next_state().get("MAINPID"), Some(&*main));
    }
    busy.respond_to(&mut client, "finished");
    eventually("the old program ends", || !is_alive(proxy.id()));
    let [admin, web] = [systemd.next_state(), systemd.next_state()];
    for (removed, count) in [(admin, 1), (web, 3)] {
        assert_eq!(removed.lines[0], "FDSTOREREMOVE=1");
        let stored = systemd.next_state();
        assert_eq!((stored.get("FDSTORE"), stored.files.len()), (Some("1"), count));
        assert_eq!(stored.get("FDNAME"), removed.get("FDNAME"));
    }
}

/// The kernel would give connections to each of them.
#[test]
fn an_address_is_kept_whole_or_not_at_all() {
    let systemd = Systemd::new();
    let address = free_address();
    let setup = notifying(&systemd).variable("FDSTORE", "3").settings("workers 4");
    let proxy = setup.settings(&format!("listen {address}")).start();
    let unix = systemd.next_state();
    assert_eq!((unix.get("FDSTORE"), unix.files.len()), (Some("1"), 1), "{unix:?}");
    let next = systemd.next_state();
    assert_eq!(next.get("READY"), Some("1"), "{next:?}");
    let what = format!(
        "FileDescriptorStoreMax=3 is too small for 5 sockets: systemd does not keep {address}"
    );
    proxy.await_log(&what);
}

#[test]
fn a_kept_listener_that_the_settings_do_not_have_is_ended_before_others_are_opened() {
    if !passes() {
        return;
    }
    let systemd = Systemd::new();
    let (kept, address) = listener();
    let name = "cloudbridge/listener/*%3A1".to_owned();
    let setup =
        notifying(&systemd).variable("FDSTORE", "16").pass(&name, kept.try_clone().unwrap());
    let proxy = setup.settings(&format!("listen {address}")).start();
    let removed = systemd.next_state();
    assert_eq!(removed.lines, ["FDSTOREREMOVE=1", &format!("FDNAME={name}")]);
    systemd.await_value("FDSTORE", |value| value == "1");
    assert_serves(&mut Bridge::park(&proxy, &["a.test"]), address);
}

/// One request to an admin listener, and the answer.
#[track_caller]
fn ask(mut stream: impl Read + Write, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn sockets_that_systemd_has_opened_serve_everybody() {
    if !passes() {
        return;
    }
    let (web, at_web) = listener();
    let (web6, at_web6) = listener();
    let (back, at_back) = listener();
    let (sites, at_sites) = listener();
    let (checks, at_checks) = listener();
    let dir = Systemd::new();
    let path = dir.notify_socket() + ".admin";
    let setup = Setup::new().pass("web", web).pass("back", back).pass("web", web6);
    let setup = setup.pass("sites", sites).pass("unix", UnixListener::bind(&path).unwrap());
    let setup = setup.pass("checks", checks);
    let proxy = setup
        .settings(
            "workers 3\nlisten systemd:web clients\nlisten systemd:back bridges\n\
             listen systemd:unix admin\nsite b.test swiftiply=systemd:sites\n\
             agent-check systemd:checks",
        )
        .start();
    for (address, kind) in [(at_web, "clients; systemd:web"), (at_back, "bridges; systemd:back")] {
        proxy.await_log(&format!("listening on {address} ({kind})"));
    }
    let mut bridge = Bridge::connect_to(at_back);
    bridge.send("BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    bridge.expect_exact("HTTP/1.1 100 Continue\r\n\r\n");
    for _ in 0..10 {
        assert_serves(&mut bridge, at_web);
        assert_serves(&mut bridge, at_web6);
    }
    assert!(ask(UnixStream::connect(&path).unwrap(), "/healthz").starts_with("HTTP/1.1 200 "));
    let preamble = "swiftclient7f0000011a2b00";
    let mut backend = SwiftclientBackend::park_at(&proxy, at_sites, "b.test", preamble);
    let mut client = Client::connect_to(at_web);
    client.send_get("b.test", "/");
    backend.serve_to(&mut client, "of a site");
    let mut check = TcpStream::connect(at_checks).unwrap();
    check.write_all(b"a.test\n").unwrap();
    let mut answer = String::new();
    check.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("up "), "{answer}");
    assert!(!proxy.log().contains("is not in the settings"), "{}", proxy.log());
}

#[test]
fn a_socket_that_cannot_be_used_is_one_clear_error() {
    if !passes() {
        return;
    }
    let two = || vec![("web", listener().0.into()), ("api", OwnedFd::from(listener().0))];
    let said = refusal("listen systemd:wbe clients", two());
    let what =
        "cannot listen on systemd:wbe: systemd has passed no socket of this name, but web and api";
    assert_eq!(said, format!("cloudbridge: {what}\n"));
    let said = refusal("listen systemd:web clients", Vec::new());
    let what = "cannot listen on systemd:web: systemd has passed no socket to this process";
    assert_eq!(said, format!("cloudbridge: {what}\n"));
    let datagram = UdpSocket::bind("127.0.0.1:0").unwrap();
    let said = refusal("listen systemd:web clients", vec![("web", datagram.into())]);
    assert!(said.ends_with(": it is a socket for datagrams, not for connections\n"), "{said}");
    let (connected, _other) = UnixStream::pair().unwrap();
    let said = refusal("listen systemd:web clients", vec![("web", connected.into())]);
    assert!(said.ends_with(": it does not listen\n"), "{said}");
    let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let said = refusal("listen systemd:web clients", vec![("web", file)]);
    assert!(said.ends_with(": it is no socket of TCP or Unix\n"), "{said}");
    let (taken, address) = listener();
    let said = refusal(&format!("listen {address} clients"), vec![("web", taken.into())]);
    let what = format!("cannot listen on {address}: Address already in use (os error 98); ");
    assert!(said.contains(&what), "{said}");
    assert!(said.ends_with("a socket of systemd listens there: systemd:web\n"), "{said}");
    let settings = "listen systemd:web clients accept-proxy=unix";
    let said = refusal(settings, vec![("web", listener().0.into())]);
    assert!(said.contains("accept-proxy=unix does not fit a socket at 127.0.0.1:"), "{said}");
}

#[test]
fn a_check_of_the_settings_needs_no_socket() {
    let check = |line: &str| Run::new(&["-t", "-c", "{dir}/c"], &[("c", line)]);
    let lines = "listen systemd:web clients accept-proxy=unix\nlisten systemd:admin admin\n\
                 site a.test swiftiply=systemd:sites\nagent-check systemd:checks\n";
    let run = check(lines);
    assert!(run.status.success(), "{run:?}");
    for (line, what) in [
        ("listen systemd:web mode=0660", "mode= is for Unix sockets"),
        ("listen systemd:", "systemd: is followed by the name of a socket"),
        ("listen systemd:a:b", "\"a:b\" is no name of a socket of systemd"),
        ("listen systemd:a\nagent-check systemd:a", "systemd:a is already listened on"),
        ("listen systemd:a\nsite a.test swiftiply=systemd:a", "systemd:a is already listened on"),
    ] {
        let run = check(line);
        assert!(!run.status.success() && run.err.contains(what), "{line}: {run:?}");
    }
}

/// Somebody would connect there, and hear nothing.
#[test]
fn sockets_that_the_settings_do_not_have_are_named() {
    if !passes() {
        return;
    }
    let (idle, address) = listener();
    let proxy = Setup::new().pass("idle", idle).start();
    proxy.await_log(&format!(
        "systemd:idle is not in the settings (at {address}: connections wait there)"
    ));
}

#[test]
fn a_reload_takes_a_passed_socket_up_and_lets_it_rest() {
    if !passes() {
        return;
    }
    let (web, at_web) = listener();
    let lines = "listen 127.0.0.1:0 bridges\nlisten systemd:web clients";
    let proxy = Setup::new().settings(lines).pass("web", web).start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    assert_serves(&mut bridge, at_web);
    let before = read_to_string(proxy.dir().join("cloudbridge.conf")).unwrap();
    proxy.write("cloudbridge.conf", &before.replace("listen systemd:web clients\n", ""));
    proxy.reload_well();
    proxy.await_log(&format!(
        "no longer listening on {at_web}: systemd keeps the socket, and connections wait there"
    ));
    let mut waiting = Client::connect_to(at_web);
    waiting.send_get("a.test", "/waited");
    proxy.write("cloudbridge.conf", &before.replace("systemd:web clients", "systemd:wbe clients"));
    proxy.reload();
    proxy.await_log("cannot listen on systemd:wbe: systemd has passed no socket of this name");
    proxy.write("cloudbridge.conf", &before);
    proxy.reload_well();
    assert_eq!(bridge.serve("late"), "GET /waited HTTP/1.1");
    assert_eq!(waiting.read_response().text(), "late");
}

#[test]
fn passed_sockets_go_over_to_a_new_program() {
    if !passes() {
        return;
    }
    let (web, at_web) = listener();
    let (idle, at_idle) = listener();
    let lines = "listen 127.0.0.1:0 bridges\nlisten systemd:web clients\npidfile {dir}/pid";
    let setup = Setup::new().settings(lines).pass("web", web).pass("idle", idle);
    let proxy = setup.start();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let new = Killed(upgrade(&proxy, proxy.id()));
    eventually("the old program ends", || !is_alive(proxy.id()));
    assert_serves(&mut bridge, at_web);
    let environment = read_to_string(format!("/proc/{}/environ", new.0)).unwrap();
    assert!(!environment.contains("LISTEN_"), "{environment}");
    let before = read_to_string(proxy.dir().join("cloudbridge.conf")).unwrap();
    proxy.write("cloudbridge.conf", &(before + "\nlisten systemd:idle clients\n"));
    signal(new.0, "HUP");
    proxy.await_log(&format!("listening on {at_idle} (clients; systemd:idle)"));
    assert_serves(&mut bridge, at_idle);
    let newest = Killed(upgrade(&proxy, new.0));
    assert_serves(&mut bridge, at_web);
    assert_serves(&mut bridge, at_idle);
    drop(newest);
}
