//! SIGUSR2: a new agent takes over from a running one, and neither a proxy nor an application
//! notices.

use crate::common::{
    ACK, Agent, App, Bridge, Client, Gate, Played, Proxy, SWITCH, Stopwatch, Systemd, WELCOME,
    all_threads_are, at, child_of, eventually, is_gone, let_pass, logged, ok, on_time, signal,
};
use std::collections::HashSet;
use std::ops::Deref;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the log says when everything that was idle has gone over.
const HAVE_COME: &str = "bridges have come from the old program";

/// An agent, and all that have taken over from it. They are ended with the test.
pub(super) struct Upgraded(Agent);

impl Upgraded {
    #[track_caller]
    pub(super) fn start(args: &[&str]) -> Upgraded {
        Upgraded(Agent::start(args))
    }

    #[track_caller]
    fn serve(app: &App, limit: usize, proxies: &[&Proxy]) -> Upgraded {
        let proxies: Vec<String> = proxies.iter().map(|proxy| at(proxy)).collect();
        let agent = Upgraded(Agent::serve(&app.to(), limit, &proxies));
        for proxy in proxies {
            agent.await_log(&format!("{proxy} accepts bridges"));
        }
        agent
    }

    /// Every process so far, the one that serves last.
    fn processes(&self) -> Vec<u32> {
        let log = self.0.log();
        let lines = log.lines().filter_map(|line| line.split_once("upgrade: process "));
        let numbers = lines.filter_map(|(_, rest)| rest.split(' ').next()?.parse().ok());
        [self.0.id()].into_iter().chain(numbers).collect()
    }

    fn process(&self) -> u32 {
        self.processes().pop().expect("a process")
    }

    /// Has the agent replaced by a new one, and waits until what was idle has gone over. Returns the
    /// old one's process.
    #[track_caller]
    pub(super) fn upgrade(&self) -> u32 {
        let (old, before) = (self.process(), self.upgrades());
        signal(old, "USR2");
        eventually("a new agent has taken over", || {
            self.process() != old && self.upgrades() > before
        });
        old
    }

    /// Waits until the old process has ended, and the new one is known.
    #[track_caller]
    pub(super) fn await_replaced(&self, old: u32) {
        await_end(old);
        eventually("a new process", || !is_gone(self.process()));
    }

    fn upgrades(&self) -> usize {
        self.0.log().matches(HAVE_COME).count()
    }
}

impl Deref for Upgraded {
    type Target = Agent;

    fn deref(&self) -> &Agent {
        &self.0
    }
}

impl Drop for Upgraded {
    fn drop(&mut self) {
        for process in self.processes() {
            kill(process);
        }
    }
}

/// Kills a process, unless it has ended by itself.
fn kill(process: u32) {
    if !is_gone(process) {
        let _ = Command::new("kill").args(["-KILL", &process.to_string()]).status();
    }
}

#[track_caller]
fn await_end(process: u32) {
    eventually("the old agent ends", || is_gone(process));
}

/// How many connections the proxy has accepted: those of clients, and each bridge ever dialled.
fn accepted(proxy: &Proxy) -> u64 {
    proxy.info().number(&["counters", "accepted"])
}

fn leaves(proxy: &Proxy) -> u64 {
    proxy.info().number(&["counters", "leaves"])
}

/// Bridges, parked or busy.
fn bridges(proxy: &Proxy) -> u64 {
    let info = proxy.info();
    info.number(&["connections", "bridge_parked"]) + info.number(&["connections", "bridge_busy"])
}

/// Waits until the application has seen the end of the agent's first connection, the probe's: it is to
/// count among those that are open together no more.
#[track_caller]
fn await_end_of_probe(app: &App) {
    eventually("the probe is over", || app.accepted() == 1 && app.has_ended_all());
}

#[track_caller]
fn ask(client: &mut Client, path: &str) -> String {
    client.send_get("a.test", path);
    client.read_response().text()
}

/// An application that holds back what is asked for at `/held`.
fn gated() -> (App, Arc<Gate>) {
    App::gated("/held", "finished")
}

/// A proxy, an application that holds a request back, its agent with so many bridges, and the client
/// of that request.
fn with_a_request_in_hand(bridges: usize) -> (Proxy, Arc<Gate>, App, Upgraded, Client) {
    let (proxy, (app, gate)) = (Proxy::start(), gated());
    let agent = Upgraded::serve(&app, bridges, &[&proxy]);
    proxy.await_count("b", bridges as u64);
    let held = Client::get(&proxy, "a.test", "/held");
    eventually("the request is inside", || gate.inside() == 1);
    (proxy, gate, app, agent, held)
}

#[test]
fn parked_bridges_and_idle_connections_go_on_as_if_nothing_had_happened() {
    let (one, two) = (Proxy::start(), Proxy::start());
    let app = App::start(|_| ok("served"));
    let agent = Upgraded::serve(&app, 3, &[&one, &two]);
    one.await_count("b", 3);
    two.await_count("b", 3);
    let mut client = Client::connect(&one);
    assert_eq!(ask(&mut client, "/"), "served");
    one.await_count("b", 3);
    // The probe's connection, and one for requests.
    eventually("both are counted", || app.accepted() == 2);
    let before = (accepted(&one), accepted(&two), app.accepted());
    for _ in 0..3 {
        await_end(agent.upgrade());
        assert_eq!(ask(&mut client, "/again"), "served");
    }
    one.await_count("b", 3);
    two.await_count("b", 3);
    assert_eq!((accepted(&one), accepted(&two), app.accepted()), before);
    assert_eq!((leaves(&one), leaves(&two)), (0, 0));
    // A fresh bridge is matched as ever.
    assert_eq!(ask(&mut Client::connect(&two), "/first"), "served");
    // And all of them know the token by which they are deregistered.
    let last = agent.process();
    signal(last, "TERM");
    await_end(last);
    assert_eq!((bridges(&one), bridges(&two)), (0, 0));
    assert_eq!((leaves(&one), leaves(&two)), (1, 1));
}

/// Three upgrades in a row: no request fails or is carried out twice, no bridge is dialled again,
/// and no connection to the application.
#[test]
fn under_load_nothing_is_lost_doubled_or_dialled_again() {
    const LIMIT: usize = 4;
    let proxy = Proxy::start();
    let seen = Arc::new(Mutex::new(HashSet::new()));
    let doubled = Arc::new(AtomicU64::new(0));
    let (ids, twice) = (Arc::clone(&seen), Arc::clone(&doubled));
    let app = App::start(move |request| {
        if !ids.lock().unwrap().insert(request.body.clone()) {
            twice.fetch_add(1, Ordering::SeqCst);
        }
        ok(&request.body)
    });
    let agent = Upgraded::serve(&app, LIMIT, &[&proxy]);
    proxy.await_count("b", LIMIT as u64);
    await_end_of_probe(&app);
    let (over, connects) = (AtomicBool::new(false), AtomicU64::new(0));
    let served: Vec<AtomicU64> = (0..2 * LIMIT).map(|_| AtomicU64::new(0)).collect();
    let client = |number: usize| {
        let mut client = Client::connect(&proxy);
        connects.fetch_add(1, Ordering::SeqCst);
        for round in 0.. {
            if over.load(Ordering::SeqCst) {
                return;
            }
            if number.is_multiple_of(3) {
                client = Client::connect(&proxy);
                connects.fetch_add(1, Ordering::SeqCst);
            }
            let id = format!("{number:03}/{round:08}");
            client.send(format!(
                "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{id}",
                id.len()
            ));
            let response = client.read_response();
            assert_eq!((response.status(), response.text()), (200, id), "{response:?}");
            served[number].fetch_add(1, Ordering::SeqCst);
        }
    };
    let await_more = || {
        for (number, count) in served.iter().enumerate() {
            let enough = count.load(Ordering::SeqCst) + 20;
            eventually(&format!("client {number} is served"), || {
                count.load(Ordering::SeqCst) >= enough
            });
        }
    };
    std::thread::scope(|scope| {
        let client = &client;
        for number in 0..2 * LIMIT {
            scope.spawn(move || client(number));
        }
        await_more();
        // The probe's connection, and one for each place.
        eventually("all are counted", || app.accepted() == LIMIT + 1);
        for _ in 0..3 {
            await_end(agent.upgrade());
            await_more();
        }
        assert_eq!(app.accepted(), LIMIT + 1, "the application has been dialled again");
        over.store(true, Ordering::SeqCst);
    });
    let all: u64 = served.iter().map(|count| count.load(Ordering::SeqCst)).sum();
    assert_eq!(doubled.load(Ordering::SeqCst), 0);
    assert_eq!(seen.lock().unwrap().len() as u64, all);
    proxy.await_count("b", LIMIT as u64);
    let clients = connects.load(Ordering::SeqCst);
    assert_eq!(accepted(&proxy), clients + LIMIT as u64, "a bridge has been dialled again");
    assert_eq!(leaves(&proxy), 0);
    assert!(app.most() <= LIMIT, "{}", app.most());
}

/// It is answered by the old agent, and its bridge follows, through any number of agents.
#[test]
fn a_request_in_hand_is_finished_and_its_bridge_follows() {
    let (proxy, gate, app, agent, mut held) = with_a_request_in_hand(2);
    let mut client = Client::connect(&proxy);
    assert_eq!(ask(&mut client, "/"), "served");
    // The probe's connection, and two for requests.
    eventually("all are counted", || app.accepted() == 3);
    let before = (accepted(&proxy), app.accepted());
    let first = agent.upgrade();
    assert_eq!(ask(&mut client, "/"), "served");
    let second = agent.upgrade();
    assert_eq!(ask(&mut client, "/"), "served");
    assert!(!is_gone(first) && !is_gone(second), "one has not waited for the request");
    assert_eq!(bridges(&proxy), 2);
    gate.let_out(1);
    assert_eq!(held.read_response().text(), "finished");
    await_end(first);
    await_end(second);
    proxy.await_count("b", 2);
    // Both bridges are used, and both connections.
    gate.let_out(2);
    held.send_get("a.test", "/held");
    client.send_get("a.test", "/held");
    assert_eq!(held.read_response().text(), "finished");
    assert_eq!(client.read_response().text(), "finished");
    assert_eq!((accepted(&proxy), app.accepted()), before);
}

/// The old agent's requests count.
#[test]
fn both_together_have_no_more_bridges_and_requests_than_the_settings_say() {
    const LIMIT: usize = 3;
    let (proxy, (app, gate)) = (Proxy::start(), gated());
    let agent = Upgraded::serve(&app, LIMIT, &[&proxy]);
    proxy.await_count("b", LIMIT as u64);
    await_end_of_probe(&app);
    let mut clients: Vec<Client> = (0..2).map(|_| Client::get(&proxy, "a.test", "/held")).collect();
    eventually("both are inside", || gate.inside() == 2);
    let old = agent.upgrade();
    clients.extend((0..4).map(|_| Client::get(&proxy, "a.test", "/held")));
    eventually("the third is inside", || gate.inside() == LIMIT);
    proxy.await_count("c", 3);
    assert_eq!(bridges(&proxy), LIMIT as u64);
    for left in (0..clients.len()).rev() {
        gate.let_out(1);
        eventually("the next is inside", || gate.inside() == left.min(LIMIT));
        assert!(bridges(&proxy) <= LIMIT as u64);
    }
    for client in &mut clients {
        assert_eq!(client.read_response().text(), "finished");
    }
    await_end(old);
    proxy.await_count("b", LIMIT as u64);
    assert_eq!((gate.most(), app.most()), (LIMIT, LIMIT));
}

/// An agent in its own file, which is replaced by something that does not serve.
#[test]
fn a_new_program_that_does_not_serve_changes_nothing() {
    let proxy = Proxy::start();
    let app = App::start(|_| ok("served"));
    let file = proxy.dir().join("agent");
    // By other processes: a child that another test starts just then must not have it open, or it
    // could not be run.
    let put = |text: &str| {
        let new = file.with_extension("new");
        let line =
            format!("{text} && chmod 755 '{0}' && mv '{0}' '{1}'", new.display(), file.display());
        let status = Command::new("sh").args(["-c", &line]).status().unwrap();
        assert!(status.success(), "{line}");
    };
    let real = format!("cp '{}' '{}.new'", env!("CARGO_BIN_EXE_cloudbridge-agent"), file.display());
    put(&real);
    let mut command = Command::new(&file);
    command.args(["--to", &app.to(), "-n2", &at(&proxy)]).env_remove("RUST_LOG");
    let agent = Upgraded(Agent::spawn(command));
    proxy.await_count("b", 2);
    let before = accepted(&proxy);
    for (text, why) in [
        ("exit 3", "the new program ended before it served"),
        ("sleep 0.1", "the new program ended before it served"),
        ("echo nonsense >&0", "the new program does not understand this one"),
    ] {
        let lines = agent.log().matches("nothing has changed").count();
        put(&format!("printf '#!/bin/sh\\n{text}\\n' > '{}.new'", file.display()));
        agent.signal("USR2");
        eventually("it is refused", || agent.log().matches("nothing has changed").count() > lines);
        agent.await_log(&format!("upgrade: {why}"));
    }
    std::fs::remove_file(&file).unwrap();
    agent.signal("USR2");
    agent.await_log("upgrade: cannot start ");
    assert_eq!(ask(&mut Client::connect(&proxy), "/"), "served");
    assert_eq!(accepted(&proxy), before + 1);
    put(&real);
    await_end(agent.upgrade());
    assert_eq!(ask(&mut Client::connect(&proxy), "/"), "served");
    assert_eq!(accepted(&proxy), before + 2);
}

/// An agent that serves what this file says, which is kept among the proxy's.
fn with_file(proxy: &Proxy, file: &str) -> Upgraded {
    proxy.write("agent.conf", file);
    let path = proxy.dir().join("agent.conf").display().to_string();
    Upgraded::start(&["-c", &path, &at(proxy)])
}

#[test]
fn settings_that_are_wrong_change_nothing() {
    let proxy = Proxy::start();
    let app = App::start(|_| ok("served"));
    let good = format!("service {} host=a.test n=2\n", app.to());
    let agent = with_file(&proxy, &good);
    proxy.await_count("b", 2);
    let before = accepted(&proxy);
    proxy.write("agent.conf", "service 3000 hots=a\nserivce 3000\n");
    agent.signal("USR2");
    agent.await_log("upgrade: nothing has changed: this program goes on");
    for mistake in ["agent.conf:1: service: there is no option \"hots\"", "agent.conf:2:"] {
        agent.await_log(mistake);
    }
    proxy.write("agent.conf", &good);
    await_end(agent.upgrade());
    assert_eq!(ask(&mut Client::connect(&proxy), "/"), "served");
    assert_eq!((bridges(&proxy), accepted(&proxy)), (2, before + 1));
}

/// Only services whose bridges would be other ones are registered anew.
#[test]
fn what_the_new_settings_change_is_registered_anew() {
    let proxy = Proxy::start();
    let apps = ["stays", "goes"].map(|name| App::start(move |_| ok(name)));
    let [stays, goes] = &apps;
    let line =
        |app: &App, host: &str, more: &str| format!("service {} host={host} {more}\n", app.to());
    let agent = with_file(&proxy, &(line(stays, "a.test", "n=2") + &line(goes, "old.test", "n=2")));
    proxy.await_count("b", 4);
    let before = accepted(&proxy);
    // Another order, more places, a check and another host.
    let changed = line(goes, "new.test", "n=2") + &line(stays, "a.test", "n=3 check=/");
    proxy.write("agent.conf", &changed);
    await_end(agent.upgrade());
    proxy.await_count("b", 5);
    // A deregistration, the one bridge more of the first service, and two new ones of the second.
    assert_eq!((accepted(&proxy), leaves(&proxy)), (before + 4, 1));
    let text = |host| Client::get(&proxy, host, "/").read_response().text();
    assert_eq!((text("a.test"), text("new.test")), ("stays".to_owned(), "goes".to_owned()));
    // Fewer places are another registration, too.
    proxy.write("agent.conf", &changed.replace("n=3", "n=1"));
    await_end(agent.upgrade());
    proxy.await_count("b", 3);
    assert_eq!(leaves(&proxy), 2);
    assert_eq!(text("a.test"), "stays");
}

#[test]
fn a_proxy_that_the_new_settings_do_not_have_is_left() {
    let (one, two) = (Proxy::start(), Proxy::start());
    let app = App::start(|_| ok("served"));
    let line = |proxies: &str| format!("service {} n=2 {proxies}\n", app.to());
    let both = format!("proxy={} proxy={}", at(&one), at(&two));
    let agent = with_file(&one, &line(&both));
    one.await_count("b", 2);
    two.await_count("b", 2);
    let before = accepted(&one);
    one.write("agent.conf", &line(&format!("proxy={}", at(&one))));
    await_end(agent.upgrade());
    two.await_no_bridges();
    assert_eq!(leaves(&two), 1);
    assert_eq!((bridges(&one), accepted(&one), leaves(&one)), (2, before, 0));
    assert_eq!(ask(&mut Client::connect(&one), "/"), "served");
}

#[test]
fn the_old_agent_goes_on_when_the_new_one_is_killed() {
    let (proxy, gate, _app, agent, mut held) = with_a_request_in_hand(3);
    let old = agent.upgrade();
    signal(agent.process(), "KILL");
    agent.await_log("this one goes on");
    // What was lost is dialled again.
    proxy.await_count("b", 2);
    assert_eq!(ask(&mut Client::connect(&proxy), "/"), "served");
    gate.let_out(1);
    assert_eq!(held.read_response().text(), "finished");
    proxy.await_count("b", 3);
    assert!(!is_gone(old));
    // And it may be replaced again.
    let before = accepted(&proxy);
    signal(old, "USR2");
    agent.await_replaced(old);
    assert_eq!(ask(&mut held, "/"), "served");
    assert_eq!((bridges(&proxy), accepted(&proxy)), (3, before));
}

/// It has what has come to it, and dials the rest.
#[test]
fn the_new_agent_goes_on_when_the_old_one_is_killed() {
    let (proxy, gate, _app, agent, held) = with_a_request_in_hand(3);
    let old = agent.upgrade();
    assert_eq!(bridges(&proxy), 3);
    signal(old, "KILL");
    agent.await_log("the old program has ended");
    drop(held);
    gate.let_out(9);
    proxy.await_count("b", 3);
    assert_eq!(ask(&mut Client::connect(&proxy), "/"), "served");
    await_end(agent.upgrade());
    assert_eq!(ask(&mut Client::connect(&proxy), "/"), "served");
}

/// Killed at any moment of an upgrade, whichever it is: the other one serves, with all its bridges,
/// unless it does not know yet that it is to.
#[test]
fn either_may_be_killed_at_any_moment() {
    for (victim, delay) in [(0, 0), (0, 1), (0, 3), (0, 10), (1, 0), (1, 1), (1, 3), (1, 10)] {
        // The old one has something in progress, or it would end as soon as the new one serves.
        let (proxy, gate, _app, agent, mut held) = with_a_request_in_hand(4);
        let old = agent.process();
        signal(old, "USR2");
        // The new process exists, whether it serves or not.
        let mut new = None;
        eventually("a new process", || {
            new = child_of(old).or_else(|| Some(agent.process()).filter(|new| *new != old));
            new.is_some()
        });
        let new = new.unwrap();
        let_pass(Duration::from_millis(delay));
        kill([old, new][victim]);
        await_end([old, new][victim]);
        if victim == 0 {
            // If the new one does not serve yet, it ends: the operator who has asked is gone.
            eventually("the new one knows", || {
                is_gone(new) || agent.log().contains("upgrade: the old program has ended")
            });
        }
        gate.let_out(9);
        if victim == 1 || !is_gone(new) {
            // The request was a GET, which the proxy repeats if it must.
            assert_eq!(held.read_response().text(), "finished");
            assert_eq!(ask(&mut held, "/"), "served");
            proxy.await_count("b", 4);
        }
        kill(new);
    }
}

#[test]
fn the_old_agent_ends_too_when_the_new_one_is_told_to() {
    let (proxy, gate, _app, agent, mut held) = with_a_request_in_hand(2);
    let old = agent.upgrade();
    let new = agent.process();
    signal(new, "TERM");
    await_end(new);
    agent.await_log(logged::SHUTTING_DOWN);
    gate.let_out(1);
    assert_eq!(held.read_response().text(), "finished");
    await_end(old);
    proxy.await_no_bridges();
}

/// TERM to the old one: what it has in hand is finished, and its bridge follows.
#[test]
fn the_new_agent_stays_when_the_old_one_is_told_to_end() {
    let (proxy, gate, _app, agent, mut held) = with_a_request_in_hand(2);
    let before = accepted(&proxy);
    let old = agent.upgrade();
    signal(old, "TERM");
    agent.await_log(logged::SHUTTING_DOWN);
    assert!(!is_gone(old));
    assert_eq!(bridges(&proxy), 2);
    gate.let_out(1);
    assert_eq!(held.read_response().text(), "finished");
    await_end(old);
    proxy.await_count("b", 2);
    assert_eq!(ask(&mut held, "/"), "served");
    assert_eq!((accepted(&proxy), leaves(&proxy)), (before, 0));
}

/// systemd sends TERM to all programs of a unit that is stopped, and once more when the newest has
/// ended.
#[test]
fn an_old_agent_finishes_though_it_is_told_to_stop_twice() {
    let (proxy, (app, gate), systemd) = (Proxy::start(), gated(), Systemd::new());
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloudbridge-agent"));
    command.args(["--to", &app.to(), "-n1", &at(&proxy)]);
    command.env_remove("RUST_LOG").env("NOTIFY_SOCKET", systemd.notify_socket());
    let agent = Upgraded(Agent::spawn(command));
    let mut held = Client::get(&proxy, "a.test", "/held");
    eventually("the request is inside", || gate.inside() == 1);
    let old = agent.upgrade();
    let new = agent.process();
    signal(old, "TERM");
    signal(new, "TERM");
    await_end(new);
    eventually("the second signal is noticed", || {
        signal(old, "TERM");
        agent.log().contains("second signal: still finishing what is in flight")
    });
    gate.let_out(1);
    assert_eq!(held.read_response().text(), "finished");
    await_end(old);
}

#[test]
fn an_upgrade_during_another_is_refused() {
    let (proxy, (app, gate)) = (Proxy::start(), gated());
    let agent = Upgraded::serve(&app, 2, &[&proxy]);
    let mut held = Client::get(&proxy, "a.test", "/held");
    eventually("the request is inside", || gate.inside() == 1);
    let old = agent.upgrade();
    for name in ["USR2", "HUP"] {
        signal(old, name);
        agent.await_log(&format!("{name}: a new program serves; ask that one"));
    }
    gate.let_out(1);
    assert_eq!(held.read_response().text(), "finished");
    await_end(old);
}

const UPGRADE: &str =
    "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";

/// An application that grants every upgrade, and what comes through it is sent back.
fn tunnels() -> App {
    App::start(|seen| match seen.head.starts_with("GET") {
        true if seen.head.contains("Upgrade: echo") => {
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
                .to_vec()
        }
        true => ok("served"),
        false => seen.head.clone().into_bytes(),
    })
}

#[test]
fn a_tunnel_goes_on_in_the_old_agent_until_its_time_is_up() {
    // Two seconds after the upgrade it is.
    on_time(Duration::from_millis(300), || {
        let (proxy, app) = (Proxy::start(), tunnels());
        let clock = Stopwatch::start();
        let agent = Upgraded::start(&[
            "--to",
            &app.to(),
            "-n2",
            "--tunnels=1",
            "--upgrade-timeout=1s",
            "--grace=1s",
            &at(&proxy),
        ]);
        proxy.await_count("b", 2);
        let mut tunnel = Client::request(&proxy, UPGRADE);
        assert_eq!(tunnel.read_head().status(), 101);
        proxy.await_count("b", 2);
        let old = agent.upgrade();
        tunnel.send("still open\r\n\r\n");
        tunnel.expect_exact("still open\r\n\r\n");
        // It has the only place, wherever it is.
        assert_eq!(Client::ask(&proxy, UPGRADE).status(), 503);
        assert_eq!(ask(&mut Client::connect(&proxy), "/"), "served");
        await_end(old);
        clock.assert_passed(Duration::from_secs(2));
        tunnel.expect_closed();
        proxy.await_count("b", 2);
        let mut response = 503;
        eventually("its place is free again", || {
            response = Client::request(&proxy, UPGRADE).read_head().status();
            response == 101
        });
    });
}

#[test]
fn an_application_that_is_down_is_not_taken_for_up() {
    let proxy = Proxy::start();
    let health = Arc::new(AtomicU16::new(204));
    let status = Arc::clone(&health);
    let app = App::start(move |seen| match seen.head.starts_with("GET /health") {
        true => format!(
            "HTTP/1.1 {} X\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            status.load(Ordering::SeqCst)
        )
        .into_bytes(),
        false => ok("served"),
    });
    let agent = Upgraded::start(&[
        "--to",
        &app.to(),
        "-n2",
        "--check=/health",
        "--check-interval=100ms",
        "--check-rise=1",
        &at(&proxy),
    ]);
    proxy.await_count("b", 2);
    // One that is up is not down for a moment.
    let before = accepted(&proxy);
    await_end(agent.upgrade());
    assert_eq!((bridges(&proxy), accepted(&proxy)), (2, before));
    health.store(503, Ordering::SeqCst);
    agent.await_log(logged::CANNOT_BE_REACHED);
    proxy.await_count("b", 0);
    let before = accepted(&proxy);
    await_end(agent.upgrade());
    await_end(agent.upgrade());
    assert_eq!((bridges(&proxy), accepted(&proxy)), (0, before));
    health.store(204, Ordering::SeqCst);
    agent.await_log(&format!("the application at {} is up", app.to()));
    proxy.await_count("b", 2);
}

/// Waits until all threads of a process are in this state.
#[track_caller]
fn await_threads(process: u32, state: char) {
    // One may wake another between the looks.
    eventually("its threads are so", || (0..3).all(|_| all_threads_are(process, state)));
}

/// The text of the answer to a request that the test has sent as a proxy.
#[track_caller]
fn answer_of(bridge: &mut Bridge) -> String {
    let mut answer = bridge.read_head();
    assert_eq!(answer.status(), 200, "{answer:?}");
    bridge.read_body(&mut answer, true);
    answer.text()
}

/// A proxy of the test's, so that it sees every byte: half an answer and half a request go over, and
/// what comes at the very moment is served once.
#[test]
fn what_comes_at_the_moment_of_the_upgrade_is_served_once() {
    let proxy = Played::start();
    let app = App::start(|seen| ok(seen.head.lines().next().unwrap_or_default()));
    let agent = Upgraded::start(&["--to", &app.to(), "-n3", &proxy.at()]);
    let mut bridges: Vec<Bridge> = Vec::new();
    for _ in 0..3 {
        let (mut bridge, _) = proxy.bridge();
        bridge.send(WELCOME);
        bridges.push(bridge);
    }
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let [fresh, half, reused] = &mut bridges[..] else { panic!("three bridges") };
    for bridge in [&mut *half, &mut *reused] {
        bridge.send(SWITCH);
        bridge.expect_exact(ACK);
        bridge.send(get("/first"));
        assert_eq!(answer_of(bridge), "GET /first HTTP/1.1");
    }
    for round in 0..3 {
        // What it has read is in its memory, and goes with the bridge.
        fresh.send("HTTP/1.1 100 Conti");
        half.send(&get("/half")[..20]);
        let old = agent.process();
        await_threads(old, 'S');
        // What it has not read is in the kernel.
        signal(old, "STOP");
        await_threads(old, 'T');
        signal(old, "USR2");
        reused.send(get(&format!("/at-once/{round}")));
        signal(old, "CONT");
        assert_eq!(answer_of(reused), format!("GET /at-once/{round} HTTP/1.1"));
        agent.await_replaced(old);
        half.send(&get("/half")[20..]);
        assert_eq!(answer_of(half), "GET /half HTTP/1.1");
        fresh.send("nue\r\n\r\n");
    }
    fresh.send(SWITCH);
    fresh.expect_exact(ACK);
    fresh.send(get("/last"));
    assert_eq!(answer_of(fresh), "GET /last HTTP/1.1");
    assert_eq!(app.served(), 2 + 3 * 2 + 1);
    assert!(proxy.is_quiet(), "a bridge has been dialled again");
}

/// The variable alone does not make it a new program.
#[test]
fn an_agent_without_an_old_one_says_so() {
    let output = Command::new(env!("CARGO_BIN_EXE_cloudbridge-agent"))
        .args(["--to", "1", "127.0.0.1:1"])
        .env("CLOUDBRIDGE_UPGRADE", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("the old program does not say what it has"), "{text}");
}

/// Each address of a name is a proxy of its own, which the new agent knows before it has looked the
/// name up.
#[test]
fn the_proxies_of_a_cluster_keep_their_bridges() {
    let proxy = Proxy::start();
    let app = App::start(|_| ok("served"));
    let port = proxy.for_bridges().port();
    let cluster = format!("localhost:{port}");
    let agent = Upgraded::start(&["--to", &app.to(), "-n3", "--all-addresses", &cluster]);
    proxy.await_count("b", 3);
    assert_eq!(ask(&mut Client::connect(&proxy), "/"), "served");
    proxy.await_count("b", 3);
    let before = accepted(&proxy);
    for _ in 0..2 {
        await_end(agent.upgrade());
    }
    assert_eq!(ask(&mut Client::connect(&proxy), "/"), "served");
    proxy.await_count("b", 3);
    assert_eq!((accepted(&proxy), leaves(&proxy)), (before + 1, 0));
}

/// systemd follows the process that serves.
#[test]
fn systemd_is_told_of_each_new_process() {
    let proxy = Proxy::start();
    let app = App::start(|_| ok("served"));
    let path = proxy.dir().join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // Without the lines for people.
    let next = || loop {
        let mut bytes = [0; 100];
        let count = socket.recv(&mut bytes).expect("a state");
        let state = String::from_utf8_lossy(&bytes[..count]);
        if !state.starts_with("STATUS=") {
            return state.into_owned();
        }
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloudbridge-agent"));
    command.args(["--to", &app.to(), "-n1", &at(&proxy)]);
    command.env_remove("RUST_LOG").env("NOTIFY_SOCKET", &path);
    let agent = Upgraded(Agent::spawn(command));
    assert_eq!(next(), format!("READY=1\nMAINPID={}", agent.id()));
    proxy.await_count("b", 1);
    await_end(agent.upgrade());
    let new = agent.process();
    // The old one says whom to follow, the new one that it serves.
    let mut both = [next(), next()];
    both.sort();
    assert_eq!(both, [format!("MAINPID={new}"), format!("READY=1\nMAINPID={new}")]);
    signal(new, "TERM");
    assert_eq!(next(), "STOPPING=1");
    await_end(new);
}
