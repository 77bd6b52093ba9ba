//! haproxy's agent check: what haproxy may send here, by host.

use crate::common::{
    Agent, Asking, Bridge, Client, Process, Proxy, Setup, Stopwatch, Wire, eventually,
    free_address, haproxy_servers, installed, run_well,
};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A proxy that answers agent checks.
#[track_caller]
fn checked(settings: &str) -> Proxy {
    Setup::new()
        .settings(
            "listen 127.0.0.1:0\nlisten unix:{dir}/admin.sock admin\nagent-check 127.0.0.1:0\n\
             agent-check-slots 10\nqueue-per-route 100\nqueue-unserved 7",
        )
        .settings(settings)
        .start()
}

/// What is answered to `said`.
#[track_caller]
fn ask(proxy: &Proxy, said: &str) -> String {
    ask_in_pieces(proxy.for_agent_checks(), said, said.len().max(1))
}

/// What is answered here to `said`, sent in pieces of `size` bytes. The proxy waits for the line only
/// so long, and without one answers about all hosts: if the test was late, it asks again.
#[track_caller]
fn ask_in_pieces(address: SocketAddr, said: &str, size: usize) -> String {
    const LINE_TIMEOUT: Duration = Duration::from_millis(250);
    loop {
        let before_accepted = Instant::now();
        let mut check = Wire::connect(address);
        said.as_bytes().chunks(size).all(|piece| check.send_if_open(piece));
        let is_in_time = before_accepted.elapsed() < LINE_TIMEOUT;
        let (answer, _) = check.read_to_end();
        if is_in_time {
            return String::from_utf8(answer).unwrap();
        }
    }
}

#[track_caller]
fn ctl(proxy: &Proxy, words: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloudbridge"));
    command.arg("ctl").arg("-c").arg(proxy.dir().join("cloudbridge.conf")).args(words);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
}

#[test]
fn the_answer_is_about_the_host_that_is_named() {
    let proxy = checked("");
    let mut busy = Bridge::park(&proxy, &["a.test"]);
    let _client = Client::get(&proxy, "a.test", "/");
    busy.accept_request();
    let _parked = [Bridge::park(&proxy, &["a.test"]), Bridge::park(&proxy, &["a.test"])];
    let _wildcard = Bridge::park(&proxy, &["*.test"]);
    // Free and busy slots count, and those of a wildcard that help out.
    assert_eq!(ask(&proxy, "a.test\n"), "up 40% maxconn:104\n");
    assert_eq!(ask(&proxy, "A.test:80\r\n"), "up 40% maxconn:104\n");
    assert_eq!(ask(&proxy, "b.test\n"), "up 10% maxconn:101\n");
    // It may come in pieces.
    let in_bytes = ask_in_pieces(proxy.for_agent_checks(), "b.test\n", 1);
    assert_eq!(in_bytes, "up 10% maxconn:101\n");
    // Nobody serves it: a request would wait, so it is never 0.
    assert_eq!(ask(&proxy, "nobody.example\n"), "up 1% maxconn:7\n");
}

#[test]
fn without_a_host_it_is_about_all() {
    let proxy = checked("");
    let _parked = [Bridge::park(&proxy, &["a.test"]), Bridge::park(&proxy, &["b.test"])];
    // Two routes of 100, and 7 for names that nobody serves.
    let all = "up 20% maxconn:209\n";
    assert_eq!(ask(&proxy, "\n"), all);
    // Nothing comes, as from haproxy without agent-send.
    assert_eq!(ask(&proxy, ""), all);
    let mut check = Wire::connect(proxy.for_agent_checks());
    check.half_close();
    check.expect_exact(all);
    // A line without its end.
    assert_eq!(ask(&proxy, "a.test"), "up 10% maxconn:101\n");
}

#[test]
fn what_is_no_host_changes_nothing_in_haproxy() {
    let proxy = checked("");
    for said in ["GET / HTTP/1.1\r\n", "\u{1b}[2J\n", "*.test\n", "a..test\n", &"a".repeat(5000)] {
        assert_eq!(ask(&proxy, said), "# not a host name\n", "{said:?}");
    }
    // It reads no more than it must, and goes on.
    assert_eq!(ask(&proxy, "a.test\n"), "up 1% maxconn:7\n");
}

#[test]
fn a_site_is_asked_for_by_its_names_and_by_those_that_it_takes() {
    let proxy = checked(
        "site a.test servers=127.0.0.1:1,127.0.0.1:2 max=3 backup=b.test\nsite b.test default",
    );
    let mut bridge = Bridge::park(&proxy, &["b.test"]);
    assert_eq!(ask(&proxy, "a.test\n"), "up 60% maxconn:106\n");
    // The default site.
    assert_eq!(ask(&proxy, "other.test\n"), "up 10% maxconn:101\n");
    // No server can be reached: its backup takes the requests.
    bridge.serve_to(&mut Client::get(&proxy, "a.test", "/"), "by the backup");
    assert_eq!(ask(&proxy, "a.test\n"), "up 10% maxconn:101\n");
}

#[test]
fn a_drained_host_weighs_nothing_until_it_is_undrained() {
    let proxy = checked("");
    let _a = Bridge::park(&proxy, &["a.test"]);
    let _b = Bridge::park(&proxy, &["b.test"]);
    ctl(&proxy, &["drain", "a.test"]);
    assert_eq!(ask(&proxy, "a.test\n"), "up 0% maxconn:100 # drain\n");
    assert_eq!(ask(&proxy, "b.test\n"), "up 10% maxconn:101\n");
    // Of all hosts only its own slots are missing.
    assert_eq!(ask(&proxy, "\n"), "up 10% maxconn:108\n");
    // Nobody has ever served it here.
    ctl(&proxy, &["drain", "new.test"]);
    assert_eq!(ask(&proxy, "new.test\n"), "up 0% maxconn:7 # drain\n");
    ctl(&proxy, &["undrain", "a.test"]);
    assert_eq!(ask(&proxy, "a.test\n"), "up 1% maxconn:100\n");
    let _back = Bridge::park(&proxy, &["a.test"]);
    assert_eq!(ask(&proxy, "a.test\n"), "up 10% maxconn:101\n");
}

#[test]
fn a_proxy_that_shuts_down_weighs_nothing_to_its_end() {
    let mut proxy = checked("");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = Client::get(&proxy, "a.test", "/");
    bridge.accept_request();
    proxy.terminate();
    eventually("it drains", || ask(&proxy, "a.test\n") == "up 0% maxconn:101 # drain\n");
    assert_eq!(ask(&proxy, "\n"), "up 0% maxconn:108 # drain\n");
    bridge.respond("the last");
    assert_eq!(client.read_response().text(), "the last");
    assert!(proxy.wait_exit().success());
}

#[test]
fn with_a_delay_it_serves_as_before_and_says_that_it_drains() {
    let proxy = checked("drain-delay 1h\nhealth-uri /hz");
    let health = || Client::ask(&proxy, "GET /hz HTTP/1.1\r\nHost: x\r\n\r\n").status();
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let healthz = || {
        let mut command = Command::new("curl");
        let socket = proxy.dir().join("admin.sock");
        command.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket"]).arg(socket);
        run_well(command.arg("http://localhost/healthz"))
    };
    if !installed("curl", &["curl", "--version"]) {
        return;
    }
    assert_eq!((healthz().as_str(), health()), ("200", 200));
    proxy.terminate();
    eventually("it drains", || ask(&proxy, "a.test\n") == "up 0% maxconn:101 # drain\n");
    assert_eq!((healthz().as_str(), health()), ("503", 503));
    // A new connection, a new bridge, and a connection that stays open.
    let mut client = Client::get(&proxy, "a.test", "/");
    bridge.serve_to(&mut client, "one");
    let mut second = Bridge::park(&proxy, &["b.test"]);
    client.send_get("b.test", "/");
    second.serve_to(&mut client, "two");
}

#[test]
fn after_the_delay_it_ends() {
    let mut proxy = checked("drain-delay 1s");
    let mut bridge = Bridge::park(&proxy, &["a.test"]);
    let mut client = bridge.serve_first(&proxy);
    let clock = Stopwatch::start();
    proxy.terminate();
    client.expect_closed();
    bridge.expect_closed();
    clock.assert_passed(Duration::from_secs(1));
    assert!(proxy.wait_exit().success());
}

/// A socket is open in the threads that it was opened for: the address cannot change sides.
#[test]
fn a_listener_and_an_agent_check_do_not_change_places_over_a_reload() {
    let (of_clients, of_checks) = (free_address(), free_address());
    let lines = |one, other| format!("listen {one} clients\nagent-check {other}\n");
    let proxy = Setup::new()
        .settings(&format!("{}unknown-host 404\nworkers 2", lines(of_clients, of_checks)))
        .start();
    let serves = || {
        let mut client = Client::connect_to(of_clients);
        client.send_get("a.test", "/");
        client.read_response().assert_own_reply(404);
        assert!(ask_in_pieces(of_checks, "a.test\n", 7).starts_with("up "));
    };
    serves();
    proxy.change_settings(&lines(of_clients, of_checks), &lines(of_checks, of_clients));
    proxy.reload();
    proxy.await_log("cannot listen on ");
    serves();
}

/// One who reaches that port must not lock the operator out.
#[test]
fn many_agent_checks_leave_room_for_the_operator() {
    let proxy = checked("");
    let checks: Vec<_> =
        (0..400).filter_map(|_| TcpStream::connect(proxy.for_agent_checks()).ok()).collect();
    ctl(&proxy, &["hosts"]);
    drop(checks);
}

#[test]
fn a_reload_opens_and_closes_its_listener() {
    let proxy = checked("");
    let old = proxy.for_agent_checks();
    proxy.change_settings("agent-check 127.0.0.1:0\n", "");
    proxy.reload_well();
    eventually("it is closed", || std::net::TcpStream::connect(old).is_err());
    proxy.change_settings("agent-check-slots 10", "agent-check-slots 20");
    proxy.reload_well();
    let opened = proxy.log().lines().rev().find_map(|line| {
        let line = line.split_once("listening on ")?.1;
        line.strip_suffix(" (agent checks)")?.parse::<SocketAddr>().ok()
    });
    let _parked = Bridge::park(&proxy, &["a.test"]);
    assert_eq!(ask_in_pieces(opened.unwrap(), "a.test\n", 7), "up 5% maxconn:101\n");
}

/// haproxy in front of two proxies, which asks both what they can take of `a.test`.
#[track_caller]
fn haproxy(dir: &Path, proxies: [&Proxy; 2]) -> (Process, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    let mut settings = format!(
        "global\n  stats socket {}/haproxy.sock level admin\n  log stdout format raw daemon\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout check 5s\n  timeout client 30s\n  timeout server 30s\n\
         frontend web\n  bind fd@0\n  default_backend cloudbridge\n\
         backend cloudbridge\n  log global\n  http-reuse always\n  retry-on conn-failure\n  \
         option redispatch 1\n",
        dir.display()
    );
    for (name, proxy) in ["one", "two"].iter().zip(proxies) {
        let (to, port) = (proxy.for_clients(), proxy.for_agent_checks().port());
        let _ = writeln!(
            settings,
            "  server {name} {to} weight 100 check inter 200ms fall 1 rise 1 agent-check \
             agent-port {port} agent-inter 100ms agent-send \"a.test\\n\""
        );
    }
    let file = dir.join("haproxy.cfg");
    std::fs::write(&file, settings).expect("a file of the test");
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(&file).stdin(Stdio::from(OwnedFd::from(listener)));
    (Process::spawn("haproxy", &mut command), address)
}

/// The fields of both servers in haproxy's state.
fn servers(dir: &Path) -> HashMap<String, HashMap<String, String>> {
    haproxy_servers(&dir.join("haproxy.sock"), "cloudbridge")
}

/// Waits until haproxy gives the server this weight.
#[track_caller]
fn await_weight(dir: &Path, server: &str, weight: &str) {
    eventually(&format!("{server} weighs {weight}"), || {
        servers(dir).get(server).is_some_and(|row| row["srv_uweight"] == weight)
    });
}

/// A client of haproxy, with one request after the other on one connection.
fn keep_asking(address: SocketAddr, asking: &Asking) {
    let mut client = Client::connect_to(address);
    while !asking.is_over() {
        client.send_get("a.test", "/");
        let response = client.read_response();
        assert_eq!(response.status(), 200, "{response:?}");
        asking.count();
    }
}

#[test]
fn haproxy_takes_a_proxy_out_while_it_drains_and_no_request_fails() {
    if !installed("haproxy", &["haproxy", "-v"]) {
        return;
    }
    let [one, mut two] = [checked(""), checked("drain-delay 10s")];
    let _agents = [Agent::echo(&one, &["a.test"]), Agent::echo(&two, &["a.test"])];
    let dir = one.dir().to_owned();
    let (haproxy, address) = haproxy(&dir, [&one, &two]);
    await_weight(&dir, "one", "40");
    await_weight(&dir, "two", "40");
    let asking = Asking::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| keep_asking(address, &asking))).collect();
        let ends = asking.ends();
        asking.await_more(50);

        // What haproxy has sent to the drained proxy waits there for the end of the drain.
        ctl(&one, &["drain", "a.test"]);
        await_weight(&dir, "one", "0");
        let mut other = Client::connect_to(address);
        for _ in 0..20 {
            other.send_get("a.test", "/");
            assert_eq!(other.read_response().status(), 200);
        }
        // Its administrative state is the operator's of haproxy.
        assert_eq!(servers(&dir)["one"]["srv_admin_state"], "0");
        ctl(&one, &["undrain", "a.test"]);
        await_weight(&dir, "one", "40");
        asking.await_more(200);

        // It serves what still comes until haproxy has taken it out.
        two.terminate();
        await_weight(&dir, "two", "0");
        assert!(two.wait_exit().success());
        haproxy.await_log("Server cloudbridge/two is DOWN");
        asking.await_more(200);
        drop(ends);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
