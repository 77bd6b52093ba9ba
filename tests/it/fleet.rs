//! Several proxies that share agents behave like one queue (`doc/protocol.md`, "Places"). The real
//! programs: two or three proxies, and agents at all of them.

use crate::applications::{Backend, Ledger, Load, MEMBERS};
use crate::common::{
    Agent, App, Client, Gate, Proxy, Setup, at, eventually, let_pass, ok, on_time, own_address,
};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longer than it takes to find another agent on a busy machine, and less than the 0.3 s for which an
/// agent would let a request wait.
const AT_ONCE: Duration = Duration::from_millis(250);

fn proxies(count: usize) -> Vec<Proxy> {
    (0..count).map(|_| Proxy::with("workers 2")).collect()
}

/// An agent of so many places at each of the proxies.
fn agent(app: &App, places: usize, proxies: &[Proxy]) -> Agent {
    Agent::serve(&app.to(), places, &proxies.iter().map(at).collect::<Vec<_>>())
}

/// So many requests of `/held` through a proxy, which the gate lets nobody answer.
fn hold(proxy: &Proxy, gate: &Gate, count: usize) -> Vec<Client> {
    let before = gate.inside();
    let held = (0..count).map(|_| Client::get(proxy, "a.test", "/held")).collect();
    eventually("the requests are held", || gate.inside() == before + count);
    held
}

/// Waits until this number in the totals of the proxy's state is this.
fn await_total(proxy: &Proxy, name: &str, count: u64) {
    eventually(&format!("{count} {name}"), || proxy.info().number(&["totals", name]) == count);
}

/// The agent whose places are all taken through one proxy gets none of the other's requests.
#[test]
fn a_request_goes_to_the_agent_that_has_a_place_at_whichever_proxy() {
    on_time(AT_ONCE / 5, || {
        let proxies = proxies(2);
        let (full, gate) = App::gated("/held", "full");
        let _full = agent(&full, 6, &proxies);
        proxies.iter().for_each(|proxy| proxy.await_count("b", 6));
        let mut held = hold(&proxies[0], &gate, 6);
        // The longest parked are the full one's.
        let other = App::start(|_| ok("other"));
        let _other = agent(&other, 6, &proxies);
        await_total(&proxies[1], "withdrawn", 6);
        await_total(&proxies[1], "parked", 6);
        for round in 0..12 {
            let clock = Instant::now();
            let answer = Client::get(&proxies[1], "a.test", "/").read_response().text();
            assert_eq!(answer, "other");
            assert!(clock.elapsed() < AT_ONCE, "request {round} took {:?}", clock.elapsed());
        }
        gate.let_out(6);
        held.iter_mut().for_each(|client| assert_eq!(client.read_response().text(), "full"));
        proxies.iter().for_each(|proxy| await_total(proxy, "withdrawn", 0));
    });
}

/// Requests of both proxies at once: what crosses is given back, and nothing waits at a full agent.
#[test]
fn requests_that_cross_are_given_back_and_each_agent_gets_as_many_as_it_has_places() {
    let proxies = proxies(2);
    let (apps, gates): (Vec<_>, Vec<_>) = (0..3).map(|_| App::gated("/held", "held")).unzip();
    let _agents: Vec<Agent> = apps.iter().map(|app| agent(app, 2, &proxies)).collect();
    proxies.iter().for_each(|proxy| proxy.await_count("b", 6));
    for _ in 0..20 {
        let ask = |number: usize| Client::get(&proxies[number % 2], "a.test", "/held");
        let mut clients: Vec<Client> = (0..6).map(ask).collect();
        eventually("each has a place", || gates.iter().all(|gate| gate.inside() == 2));
        gates.iter().for_each(|gate| gate.let_out(2));
        clients.iter_mut().for_each(|one| assert_eq!(one.read_response().status(), 200));
    }
    assert!(gates.iter().all(|gate| gate.most() == 2), "an agent has had more than its places");
}

/// One place, two proxies: the proxy that waits gets it when it comes free, in the order of arrival.
#[test]
fn a_place_that_comes_free_goes_to_the_proxy_whose_request_has_waited_longest() {
    // For so long the place is kept for the proxy that is told of it.
    on_time(Duration::from_millis(3), || {
        let proxies = proxies(2);
        let (seen_in_order, gate) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Gate::default()));
        let (order, held) = (Arc::clone(&seen_in_order), Arc::clone(&gate));
        let app = App::start(move |seen| {
            let target = seen.head.split(' ').nth(1).unwrap_or_default();
            order.lock().expect("lock").push(target.to_owned());
            held.pass();
            ok("held")
        });
        let _agent = agent(&app, 1, &proxies);
        proxies.iter().for_each(|proxy| proxy.await_count("b", 1));
        let mut first = Client::get(&proxies[0], "a.test", "/first");
        eventually("the first is inside", || gate.inside() == 1);
        await_total(&proxies[1], "withdrawn", 1);
        let post = "POST /earlier HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi";
        let mut earlier = Client::request(&proxies[1], post);
        proxies[1].await_count("c", 1);
        // Long enough for the order between proxies, which is kept to within some milliseconds.
        let_pass(Duration::from_millis(60));
        let mut later = Client::get(&proxies[0], "a.test", "/later");
        proxies[0].await_count("c", 1);
        gate.let_out(3);
        for client in [&mut first, &mut earlier, &mut later] {
            assert_eq!(client.read_response().text(), "held");
        }
        assert_eq!(*seen_in_order.lock().expect("lock"), ["/first", "/earlier", "/later"]);
        assert_eq!(gate.most(), 1);
    });
}

/// Bytes of a body that is larger than what a proxy holds (`retry-limit`).
const LARGE: usize = 100_000;

/// A request that has gone too far to be given back waits at the agent.
#[test]
fn a_body_that_is_not_held_is_served_when_a_place_comes_free() {
    let proxies = proxies(2);
    let (app, gate) = App::gated("/held", "held");
    let _agent = agent(&app, 1, &proxies);
    proxies.iter().for_each(|proxy| proxy.await_count("b", 1));
    let mut posts: Vec<Client> = proxies
        .iter()
        .map(|proxy| {
            let head = "POST /held HTTP/1.1\r\nHost: a.test\r\n";
            Client::request(proxy, format!("{head}Content-Length: {LARGE}\r\n\r\nhi"))
        })
        .collect();
    posts.iter_mut().for_each(|client| client.send("x".repeat(LARGE - 2)));
    gate.let_out(2);
    posts.iter_mut().for_each(|client| assert_eq!(client.read_response().text(), "held"));
}

/// Agents, each with its application.
const AGENTS: usize = 2;

/// Proxies and agents are restarted in turn under load; a client whose proxy has gone asks another.
#[test]
fn rolling_restarts_of_a_fleet_lose_nothing_and_repeat_no_post() {
    let start = |address: SocketAddr| {
        Setup::new().settings(&format!("workers 2\nlisten {address}")).start()
    };
    let mut proxies: Vec<Option<Proxy>> =
        (0..3).map(|_| Some(start((own_address(), 0).into()))).collect();
    let addresses: Vec<SocketAddr> = proxies.iter().flatten().map(Proxy::for_clients).collect();
    let places: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    let ledger = Arc::new(Ledger::default());
    let backends: Vec<Backend> = (0..AGENTS)
        .map(|member| Backend::start((own_address(), 0).into(), member, &ledger))
        .collect();
    // Each can carry the load alone.
    let serve = |member: usize| Agent::serve(&backends[member].address().to_string(), 12, &places);
    let mut agents: Vec<Option<Agent>> = (0..AGENTS).map(|member| Some(serve(member))).collect();
    const _: () = assert!(AGENTS <= MEMBERS);
    let report = Load::run_at(&addresses, &ledger, |load| {
        let await_served = |member: usize| {
            let before = ledger.served(member);
            eventually(&format!("member {member} serves"), || ledger.served(member) > before);
        };
        (0..AGENTS).for_each(await_served);
        for round in 0.. {
            let mut old = proxies[round % 3].take().expect("it runs");
            old.terminate();
            assert!(old.wait_exit().success(), "{}", old.log());
            proxies[round % 3] = Some(start(addresses[round % 3]));
            (0..AGENTS).for_each(await_served);
            let member = round % AGENTS;
            let mut old = agents[member].take().expect("it runs");
            old.terminate();
            assert!(old.wait_exit().success(), "{}", old.log());
            agents[member] = Some(serve(member));
            (0..AGENTS).for_each(await_served);
            if load.is_done() && round >= 5 {
                break;
            }
        }
    });
    // A proxy may close a client's idle connection just when a request is on its way, which the
    // client may send again. One that a proxy has taken it has to answer.
    let seen = ledger.posts();
    report.assert_none_failed(|failure| !failure.unheard || seen.contains_key(&failure.id));
}
