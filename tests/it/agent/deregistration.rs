//! How an agent takes its bridges back without losing a request: it asks the proxy to close them.
//! The test plays the proxy, so that it can send a request at the very moment when bridges used to
//! be closed.

use crate::common::{
    ACK, Agent, App, Bridge, Client, Ending, Load, Message, Played, Proxy, SWITCH, Stopwatch,
    WELCOME, at, free_address, logged, ok, on_time, own_address,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const TOLD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\ngone\n";
const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi";

/// Within this the test must go on where the agent waits: three seconds for the answer to its leave,
/// and half a second for our end of a bridge that it has closed.
const PROMPT: Duration = Duration::from_millis(100);

/// What an agent that leaves does at a played proxy.
impl Played {
    /// The next bridge, welcomed with these words, and its token.
    #[track_caller]
    fn welcome(&self, words: impl AsRef<[u8]>) -> (Bridge, String) {
        let (mut bridge, head) = self.bridge();
        assert!(!head.has("cloudbridge-leave"), "{head:?}");
        bridge.send(words);
        (bridge, head.field("cloudbridge-backend").expect("a token").to_owned())
    }

    /// A bridge that has served one request and waits for the next.
    #[track_caller]
    fn reused(&self) -> (Bridge, String) {
        let (mut bridge, token) = self.welcome(WELCOME);
        bridge.send(SWITCH);
        bridge.expect_exact(ACK);
        ask(&mut bridge, GET, "served");
        (bridge, token)
    }

    /// The leave, unanswered.
    #[track_caller]
    fn leave(&self, token: &str) -> Bridge {
        let (leave, head) = self.bridge();
        assert_eq!(head.field("cloudbridge-leave"), Some(token));
        assert_eq!(head.field("host"), Some("*"));
        leave
    }
}

/// An agent with two bridges at a played proxy. It has read all that it was sent.
struct TwoBridges {
    proxy: Played,
    app: App,
    agent: Agent,
    reused: Bridge,
    fresh: Bridge,
    token: String,
}

impl TwoBridges {
    #[track_caller]
    fn start() -> TwoBridges {
        let proxy = Played::start();
        let app = App::start_at(free_address(), |_| ok("served"));
        let agent = Agent::serve(&app.to(), 2, &[proxy.at()]);
        let (reused, token) = proxy.reused();
        let (fresh, _) = proxy.welcome(WELCOME);
        agent.await_asleep();
        TwoBridges { proxy, app, agent, reused, fresh, token }
    }
}

/// Sends a request over a bridge that waits for one.
#[track_caller]
fn ask(bridge: &mut Bridge, request: &str, body: &str) {
    bridge.send(request);
    let answer = read_answer(bridge);
    assert_eq!((answer.status(), answer.text().as_str()), (200, body), "{answer:?}");
}

#[track_caller]
fn read_answer(bridge: &mut Bridge) -> Message {
    let mut answer = bridge.read_head();
    let length = answer.field("content-length").expect("a length").parse().expect("digits");
    answer.body = bridge.read_exactly(length);
    answer
}

#[test]
fn token_is_one_per_proxy() {
    let proxies = [Played::start(), Played::start()];
    let app = App::start(|_| ok("served"));
    let _agent = Agent::serve(&app.to(), 3, &proxies.each_ref().map(Played::at));
    let bridges = proxies.each_ref().map(|proxy| [(); 3].map(|()| proxy.welcome(WELCOME)));
    let tokens = bridges.each_ref().map(|[(_, first), (_, second), (_, third)]| {
        assert!(first == second && second == third);
        assert!(first.len() == 32 && first.bytes().all(|b| b"0123456789abcdef".contains(&b)));
        first.clone()
    });
    assert_ne!(tokens[0], tokens[1]);
}

#[test]
fn request_that_crosses_the_leave_is_served() {
    on_time(PROMPT, || {
        let TwoBridges { proxy, app: _app, mut agent, mut reused, mut fresh, token } =
            TwoBridges::start();
        agent.terminate();
        let mut leave = proxy.leave(&token);
        // Before the proxy has read it.
        ask(&mut reused, POST, "served");
        fresh.send(SWITCH);
        fresh.expect_exact(ACK);
        ask(&mut fresh, POST, "served");
        leave.send(TOLD);
        leave.expect_closed();
        assert!(agent.exit_status().is_none());
        for mut bridge in [reused, fresh] {
            // Each has said with its answer that it closes, so it may.
            assert_eq!(bridge.expect_closed(), Ending::Closed);
        }
        assert!(agent.wait_exit().success());
    });
}

#[test]
fn idle_bridges_are_closed_by_the_proxy() {
    on_time(PROMPT, || {
        let TwoBridges { proxy, app: _app, mut agent, reused, fresh, token } = TwoBridges::start();
        agent.terminate();
        let mut leave = proxy.leave(&token);
        leave.send(TOLD);
        leave.expect_closed();
        agent.await_asleep();
        assert!(!reused.is_closed() && !fresh.is_closed());
        assert!(agent.exit_status().is_none());
        for mut bridge in [reused, fresh] {
            bridge.half_close();
            assert_eq!(bridge.expect_closed(), Ending::Closed);
        }
        assert!(agent.wait_exit().success());
        assert!(proxy.is_quiet(), "one leave is enough");
    });
}

/// The response had begun when the signal came, so it could not say that the bridge closes.
#[test]
fn bridge_with_a_begun_response_is_closed_by_the_proxy() {
    on_time(PROMPT, || {
        let proxy = Played::start();
        let app = App::start(|_| {
            let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n".to_vec();
            answer.resize(answer.len() + 4_000_000, b'x');
            answer
        });
        let mut agent = Agent::serve(&app.to(), 1, &[proxy.at()]);
        let (mut bridge, token) = proxy.welcome(WELCOME);
        bridge.send(SWITCH);
        bridge.expect_exact(ACK);
        bridge.send(GET);
        assert!(!bridge.read_head().has("connection"));
        agent.terminate();
        let mut leave = proxy.leave(&token);
        bridge.read_exactly(4_000_000);
        bridge.send(GET);
        assert_eq!(bridge.read_head().field("connection"), Some("close"));
        bridge.read_exactly(4_000_000);
        leave.send(TOLD);
        bridge.expect_closed();
        assert!(agent.wait_exit().success());
    });
}

#[test]
fn leave_is_not_sent_to_a_proxy_without_the_extension() {
    let proxy = Played::start();
    let app = App::start(|_| ok("served"));
    let mut agent = Agent::serve(&app.to(), 1, &[proxy.at()]);
    let (mut bridge, _) = proxy.welcome(ACK);
    agent.await_asleep();
    agent.terminate();
    bridge.expect_closed();
    assert!(agent.wait_exit().success());
    assert!(proxy.is_quiet());
}

#[test]
fn bridges_are_closed_when_the_leave_is_refused() {
    for refusal in [
        "HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\n\r\nno\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "SSH-2.0-x\r\n",
        "",
    ] {
        let TwoBridges { proxy, app: _app, mut agent, mut reused, mut fresh, token } =
            TwoBridges::start();
        agent.terminate();
        let mut leave = proxy.leave(&token);
        leave.send(refusal);
        drop(leave);
        agent.await_log("could not be asked to close bridges");
        reused.expect_closed();
        fresh.expect_closed();
        assert!(agent.wait_exit().success());
    }
}

#[test]
fn bridges_are_closed_when_the_proxy_is_gone() {
    let proxy = Played::start();
    let app = App::start(|_| ok("served"));
    let mut agent = Agent::serve(&app.to(), 1, &[proxy.at()]);
    let (mut bridge, _) = proxy.reused();
    drop(proxy);
    agent.terminate();
    bridge.expect_closed();
    assert!(agent.wait_exit().success());
}

#[test]
fn every_proxy_gets_a_leave_and_a_hung_one_ends_the_wait_at_the_grace() {
    let proxies = [Played::start(), Played::start()];
    let app = App::start(|_| ok("served"));
    let mut args = vec!["--to".to_owned(), app.to(), "-n1".to_owned()];
    args.extend(["--grace".to_owned(), "3s".to_owned()]);
    args.extend(proxies.each_ref().map(Played::at));
    let mut agent = Agent::start(&args);
    let bridges = proxies.each_ref().map(Played::reused);
    let clock = Stopwatch::start();
    agent.terminate();
    let _leaves = [0, 1].map(|one| proxies[one].leave(&bridges[one].1));
    assert!(agent.wait_exit().success());
    clock.assert_passed(Duration::from_secs(3));
}

#[test]
fn while_the_application_is_away_its_bridges_leave_and_come_back_with_a_new_token() {
    on_time(PROMPT, || {
        let TwoBridges { proxy, app, agent, mut reused, mut fresh, token } = TwoBridges::start();
        let address = app.address();
        drop(app);
        let mut leave = proxy.leave(&token);
        agent.await_log(logged::CANNOT_BE_REACHED);
        // What comes meanwhile cannot be delivered: a POST is given back, and a match is not
        // acknowledged.
        reused.send(POST);
        reused.expect_exact(
            "HTTP/1.1 503 Service Unavailable\r\nCloudbridge-Undelivered: application\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n",
        );
        reused.expect_closed();
        fresh.send(SWITCH);
        fresh.expect_closed();
        leave.send(TOLD);
        leave.expect_closed();
        let _app = App::start_at(address, |_| ok("again"));
        let (_bridge, other) = proxy.welcome(WELCOME);
        assert_ne!(token, other);
    });
}

#[test]
fn bridges_left_open_after_an_accepted_leave_are_closed_while_the_application_is_away() {
    on_time(PROMPT, || {
        let TwoBridges { proxy, app, agent: _agent, mut reused, mut fresh, token } =
            TwoBridges::start();
        let clock = Stopwatch::start();
        drop(app);
        let mut leave = proxy.leave(&token);
        leave.send(TOLD);
        reused.expect_closed();
        clock.assert_passed(Duration::from_secs(4));
        fresh.expect_closed();
    });
}

/// The leave may have come to another proxy at the same address. That does not cost the whole
/// grace.
#[test]
fn bridges_left_open_after_an_accepted_leave_are_closed_when_stopping() {
    on_time(PROMPT, || {
        let TwoBridges { proxy, app: _app, mut agent, mut reused, mut fresh, token } =
            TwoBridges::start();
        let clock = Stopwatch::start();
        agent.terminate();
        proxy.leave(&token).send(TOLD);
        ask(&mut reused, POST, "served");
        fresh.expect_closed();
        clock.assert_passed(Duration::from_secs(4));
        reused.expect_closed();
        assert!(agent.wait_exit().success());
    });
}

/// The agent has been stopped for a while, and finds a request that the proxy has given up: another
/// may have been given it.
#[test]
fn post_given_up_by_the_proxy_is_not_begun() {
    let proxy = Played::start();
    let posts = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&posts);
    let app = App::start(move |request| {
        seen.fetch_add(usize::from(request.head.starts_with("POST")), Ordering::SeqCst);
        ok("served")
    });
    let agent = Agent::serve(&app.to(), 1, &[proxy.at()]);
    let (mut reused, _) = proxy.reused();
    agent.freeze();
    reused.send(POST);
    reused.half_close();
    agent.thaw();
    reused.expect_closed();
    let _again = proxy.reused();
    assert_eq!(posts.load(Ordering::SeqCst), 0);
}

/// Agents are replaced one after another under a load of POSTs: no error, and each POST is done
/// once.
#[test]
fn agents_that_are_replaced_under_load_lose_no_post() {
    const CLIENTS: usize = 6;
    const AGENTS: usize = 3;
    const ROUNDS: usize = 2;
    /// Requests of each client between two replacements, at least.
    const BETWEEN: usize = 15;
    let proxy = Proxy::start();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let apps: Vec<App> = (0..AGENTS)
        .map(|_| {
            let seen = Arc::clone(&seen);
            App::start(move |request| {
                let id = request.head.split(' ').nth(1).expect("a target").to_owned();
                seen.lock().expect("lock").push(id.clone());
                ok(id)
            })
        })
        .collect();
    let start = |app: &App| Agent::serve(&app.to(), 2, &[at(&proxy)]);
    let mut agents: Vec<Agent> = apps.iter().map(start).collect();
    let is_answer = |target: &str, text: &str| target == text;
    let served = Load::run(&proxy, "POST", CLIENTS, is_answer, |load| {
        for turn in 0..ROUNDS * AGENTS {
            load.await_more(BETWEEN);
            let agent = &mut agents[turn % AGENTS];
            agent.terminate();
            assert!(agent.wait_exit().success());
            *agent = start(&apps[turn % AGENTS]);
        }
    });
    let mut ids = seen.lock().expect("lock").clone();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), all), (served, all), "each is done once");
    assert!(proxy.info().number(&["counters", "leaves"]) >= (ROUNDS * AGENTS) as u64);
    assert_eq!(proxy.info().number(&["counters", "answered_502"]), 0);
}

/// The agent stays while its application is replaced: a POST that finds nobody there goes to
/// another agent.
#[test]
fn post_for_an_application_that_is_gone_goes_to_another_agent() {
    let proxy = Proxy::start();
    let dying = App::start_at((own_address(), 0).into(), |_| ok("dying"));
    let first = Agent::serve(&dying.to(), 4, &[at(&proxy)]);
    proxy.await_count("b", 4);
    for _ in 0..8 {
        assert_eq!(Client::get(&proxy, "a.test", "/").read_response().text(), "dying");
    }
    let other = App::start(|_| ok("other"));
    let _second = Agent::serve(&other.to(), 4, &[at(&proxy)]);
    proxy.await_count("b", 8);
    drop(dying);
    // Some meet it before the agent has found out, some after.
    let mut clients: Vec<Client> = (0..16).map(|_| Client::request(&proxy, POST)).collect();
    for client in &mut clients {
        let response = client.read_response();
        assert_eq!((response.status(), response.text().as_str()), (200, "other"), "{response:?}");
    }
    first.await_log(logged::CANNOT_BE_REACHED);
    proxy.await_count("b", 4);
}

/// What cannot be repeated, and that alone, and only at a proxy that wants to know.
#[test]
fn receipt_is_sent_before_a_post_reaches_the_application() {
    const RECEIPTS: &[u8] =
        b"HTTP/1.1 100 Continue\r\nCloudbridge-Extensions: leave, undelivered, receipts\r\n\r\n";
    const RECEIPT: &str = "HTTP/1.1 102 Processing\r\nCloudbridge-Receipt: application\r\n\r\n";
    for (welcome, receipt) in [(RECEIPTS, RECEIPT), (WELCOME, "")] {
        let proxy = Played::start();
        let app = App::start(|_| ok("served"));
        let _agent = Agent::serve(&app.to(), 1, &[proxy.at()]);
        let (mut bridge, head) = proxy.bridge();
        let announced = head.field("cloudbridge-extensions");
        assert_eq!(announced, Some("undelivered, receipts, retries, probes"));
        bridge.send(welcome);
        bridge.send(SWITCH);
        bridge.expect_exact(ACK);
        ask(&mut bridge, GET, "served");
        bridge.send(POST);
        bridge.expect_exact(receipt);
        assert_eq!(read_answer(&mut bridge).text(), "served");
        ask(&mut bridge, GET, "served");
    }
}
