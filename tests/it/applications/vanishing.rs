//! Machines that vanish without a FIN: the network between proxy and agent goes away.

use super::network::{Link, NEAR, alone};
use crate::common::{
    Agent, Client, Gate, Proxy, Seen, Setup, Stopwatch, at, eventually, let_pass, logged, ok,
    serve_unix,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often [`within`] looks.
const POLL: Duration = Duration::from_millis(10);

/// Waits until `holds` returns true, for at most `time`; returns how long it took.
#[track_caller]
fn within(time: Duration, what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < time, "not after {time:?}: {what}");
        std::thread::sleep(POLL);
    }
    begun.elapsed()
}

/// A proxy for clients of this machine and for bridges of the other, too.
fn proxy(settings: &str) -> Proxy {
    let listen = format!("listen 127.0.0.1:0 clients\nlisten {NEAR}:0 bridges\nopen-bridges yes");
    Setup::new().settings(&format!("{listen}\n{settings}")).start()
}

/// An application on a Unix socket, which says `name`, and an agent before it on the other machine,
/// or on this one without a link.
fn agent(proxy: &Proxy, name: &'static str, link: Option<&Link>, places: usize) -> Agent {
    agent_of(proxy, name, link, places, move |_| ok(name))
}

/// The same, of an application that answers otherwise.
fn agent_of(
    proxy: &Proxy,
    name: &str,
    link: Option<&Link>,
    places: usize,
    answer: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static,
) -> Agent {
    let path = proxy.dir().join(format!("{name}.sock"));
    serve_unix(&path, answer);
    let program = env!("CARGO_BIN_EXE_cloudbridge-agent");
    let mut command = match link {
        Some(link) => link.command(program),
        None => std::process::Command::new(program),
    };
    command.arg("--to").arg(format!("unix:{}", path.display()));
    command.arg(format!("-n{places}")).arg(at(proxy));
    command.env("RUST_LOG", "debug");
    Agent::spawn(command)
}

/// How long an agent takes at most: a bridge must have been idle for 15 s before the kernel asks,
/// and asks again after as long; at the first of these moments at which nothing has been heard for
/// 30 s it is given up.
const KEEPALIVE: Duration = Duration::from_secs(45);

/// How long a connect may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a proxy may send no ping: three times `ping-interval 15s`.
const SILENCE: Duration = Duration::from_secs(45);

/// For a machine that is busy with other things. Without what is tested it would take a quarter of
/// an hour.
const SLACK: Duration = Duration::from_secs(30);

#[test]
fn an_agent_leaves_a_proxy_that_has_vanished_and_serves_again_when_it_is_back() {
    if !alone(
        "applications::vanishing::an_agent_leaves_a_proxy_that_has_vanished_and_serves_again_when_it_is_back",
    ) {
        return;
    }
    let link = Link::lay();
    // Its own, so that it has forgotten them when the agent has.
    let proxy = proxy("tcp-keepalive 10s\ntcp-user-timeout 15s");
    let agent = agent(&proxy, "far", Some(&link), 2);
    proxy.await_count("b", 2);
    // One bridge has served, and gets no pings any more.
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().text(), "far");
    proxy.await_count("b", 2);
    link.near("down");
    let took = within(KEEPALIVE + SLACK, "both bridges are left", || {
        agent.log().matches("a bridge to").count() == 2
    });
    eprintln!("both bridges were left after {took:?}");
    within(CONNECT + SLACK, "the agent says so", || agent.log().contains("trying again"));
    proxy.await_count("b", 0);
    let mut client = Client::get(&proxy, "a.test", "/");
    proxy.await_count("c", 1);
    link.near("up");
    assert_eq!(client.read_response().text(), "far");
    proxy.await_count("b", 2);
}

/// Its kernel answers for it, so that nothing but the missing pings tells.
#[test]
fn an_agent_leaves_a_proxy_that_hangs_and_serves_again_when_it_goes_on() {
    let proxy = Proxy::start();
    let agent = agent(&proxy, "near", None, 1);
    proxy.await_count("b", 1);
    // Until the agent has read that its bridge is accepted.
    proxy.await_asleep();
    agent.await_asleep();
    proxy.freeze();
    let took = within(SILENCE + SLACK, "the bridge is left", || {
        agent.log().contains(logged::PINGS_STOPPED)
    });
    eprintln!("missing pings were noticed after {took:?}");
    proxy.thaw();
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().text(), "near");
}

#[test]
fn a_proxy_forgets_an_agent_whose_machine_has_vanished_and_requests_go_to_another() {
    if !alone(
        "applications::vanishing::a_proxy_forgets_an_agent_whose_machine_has_vanished_and_requests_go_to_another",
    ) {
        return;
    }
    let link = Link::lay();
    let proxy =
        proxy("bridge-ack-timeout 500ms\nping-interval 1s\ntcp-keepalive 1s\ntcp-user-timeout 3s");
    let _far = agent(&proxy, "far", Some(&link), 4);
    proxy.await_count("b", 4);
    // Two of its bridges have served: requests are sent over them without a word before.
    let both = [0, 1].map(|_| Client::get(&proxy, "a.test", "/"));
    both.into_iter().for_each(|mut client| assert_eq!(client.read_response().text(), "far"));
    proxy.await_count("b", 4);
    let _near = agent(&proxy, "near", None, 2);
    proxy.await_count("b", 6);
    link.far("down");
    let clients: Vec<Client> = (0..6).map(|_| Client::get(&proxy, "a.test", "/")).collect();
    for mut client in clients {
        assert_eq!(client.read_response().text(), "near");
    }
    proxy.await_count("b", 2);
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().text(), "near");
}

/// Its kernel answers every probe of the closed window, until it does not.
#[test]
fn a_machine_that_vanishes_while_its_window_is_closed_is_given_up() {
    if !alone(
        "applications::vanishing::a_machine_that_vanishes_while_its_window_is_closed_is_given_up",
    ) {
        return;
    }
    const UPGRADE: &str = "Connection: upgrade\r\nUpgrade: echo\r\n\r\n";
    const TIMEOUT: Duration = Duration::from_secs(2);
    let link = Link::lay();
    let proxy = proxy("tcp-user-timeout 2s");
    let path = proxy.dir().join("app.sock");
    serve_unix(&path, |seen| {
        if seen.head.starts_with("GET") {
            return format!("HTTP/1.1 101 Switching Protocols\r\n{UPGRADE}").into_bytes();
        }
        // It reads no more.
        std::thread::sleep(Duration::from_secs(300));
        Vec::new()
    });
    let mut command = link.command(env!("CARGO_BIN_EXE_cloudbridge-agent"));
    command.arg("--to").arg(format!("unix:{}", path.display())).arg("-n1").arg(at(&proxy));
    let _agent = Agent::spawn(command);
    proxy.await_count("b", 1);
    let mut client =
        Client::request(&proxy, format!("GET / HTTP/1.1\r\nHost: a.test\r\n{UPGRADE}"));
    assert_eq!(client.read_head().status(), 101);
    client.send("stop\r\n\r\n");
    client.timeout(Duration::from_secs(1));
    assert!(!client.send_if_open(vec![b'x'; 64 << 20]), "somebody has taken all of it");
    let_pass(3 * TIMEOUT);
    assert_eq!(proxy.count("C"), 1, "a peer that only pauses has been given up");
    link.far("down");
    let took = within(3 * TIMEOUT + SLACK, "the tunnel is given up", || proxy.count("C") == 0);
    eprintln!("a peer with a closed window was given up {took:?} after it had vanished");
}

/// Nothing is asked of them: the proxy finds out by its own pings, and by the kernel's on bridges
/// that have served.
#[test]
fn bridges_of_a_machine_that_has_vanished_are_forgotten_in_time() {
    if !alone(
        "applications::vanishing::bridges_of_a_machine_that_has_vanished_are_forgotten_in_time",
    ) {
        return;
    }
    let link = Link::lay();
    let proxy =
        proxy("bridge-ack-timeout 500ms\nping-interval 1s\ntcp-keepalive 1s\ntcp-user-timeout 3s");
    let _far = agent(&proxy, "far", Some(&link), 4);
    proxy.await_count("b", 4);
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().text(), "far");
    proxy.await_count("b", 4);
    let clock = Stopwatch::start();
    link.far("down");
    proxy.await_count("b", 0);
    // The user timeout counts from the last that was heard, which was a second before at the most
    // if the kernel's own timers are in time.
    clock.assert_passed(Duration::from_secs(1));
    link.far("up");
    assert_eq!(Client::get(&proxy, "a.test", "/").read_response().text(), "far");
}

/// How far apart the requests of [`machine_that_dies_costs_few_requests_their_time`] are sent.
const PERIOD: Duration = Duration::from_millis(500);

/// How many of them there are.
const REQUESTS: u32 = 14;

/// Slower than this, a request has waited for the dead machine.
const SLOW: Duration = Duration::from_secs(5);

/// All of its bridges have served, so each is sent requests without a word before, and longest
/// parked first. It takes some seconds because the requests come as slowly as on a quiet site.
#[test]
fn machine_that_dies_costs_few_requests_their_time() {
    const DEAD: usize = 16;
    if !alone("applications::vanishing::machine_that_dies_costs_few_requests_their_time") {
        return;
    }
    let link = Link::lay();
    let proxy = proxy("bridge-ack-timeout 500ms");
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let _far = agent_of(&proxy, "far", Some(&link), DEAD, move |_| {
        held.pass();
        ok("far")
    });
    proxy.await_count("b", DEAD as u64);
    let mut clients: Vec<Client> = (0..DEAD).map(|_| Client::get(&proxy, "a.test", "/")).collect();
    eventually("every bridge serves", || gate.inside() == DEAD);
    gate.let_out(DEAD);
    clients.iter_mut().for_each(|client| assert_eq!(client.read_response().text(), "far"));
    let _near = agent(&proxy, "near", None, 2);
    proxy.await_count("b", DEAD as u64 + 2);
    link.far("down");
    let died = Instant::now();
    let proxy = &proxy;
    let answers: Vec<_> = std::thread::scope(|scope| {
        let ask = |number: u32| {
            let is_post = number % 2 == 1;
            let method = if is_post { "POST" } else { "GET" };
            let request =
                format!("{method} / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi");
            let sent = Instant::now();
            let mut client = Client::request(proxy, request);
            client.timeout(Duration::from_secs(60));
            let response = client.read_response();
            (is_post, sent - died, response.status(), sent.elapsed())
        };
        let asked: Vec<_> = (0..REQUESTS)
            .map(|number| {
                let asked = scope.spawn(move || ask(number));
                let_pass(PERIOD);
                asked
            })
            .collect();
        asked.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    eprintln!("{answers:#?}");
    let slow = answers.iter().filter(|(_, _, _, took)| *took >= SLOW).count();
    assert!(slow <= 2, "{slow} were slow: {answers:#?}");
    for (is_post, sent, status, _) in &answers {
        let may_be_lost = *is_post && *sent < Duration::from_secs(1);
        assert!(*status == 200 || may_be_lost, "{answers:#?}");
    }
}
