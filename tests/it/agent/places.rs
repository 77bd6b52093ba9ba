//! Several proxies share the places of an application: each is told how many of its bridges may have
//! a request at once, and gets back what crosses that. The test plays the proxies, but for the last.

use super::upgrade::Upgraded;
use crate::common::{
    ACK, Agent, App, Bridge, Client, Gate, Message, Played, Proxy, SWITCH, Seen, at, eventually,
    ok, on_time,
};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const WELCOME: &str = "HTTP/1.1 100 Continue\r\nCloudbridge-Extensions: \
    leave, undelivered, receipts, retries, probes, places\r\n\r\n";

const GET: &str = "GET /held HTTP/1.1\r\nHost: a.test\r\n\r\n";

const SERVED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nserved";

/// A proxy of the agent, and the bridges that it has accepted.
struct Side {
    proxy: Played,
    bridges: Vec<Bridge>,
    token: String,
    /// The number of the last message.
    at: u64,
}

impl Side {
    fn new() -> Side {
        Side { proxy: Played::start(), bridges: Vec::new(), token: String::new(), at: 0 }
    }

    /// Accepts so many bridges.
    #[track_caller]
    fn accept(&mut self, count: usize) {
        for _ in 0..count {
            let (mut bridge, head) = self.proxy.bridge();
            assert_eq!(extensions(&head), "undelivered, receipts, retries, probes, places");
            self.token = head.field("cloudbridge-backend").expect("a token").to_owned();
            bridge.send(WELCOME);
            self.bridges.push(bridge);
        }
    }

    /// Reads the next message, over whichever bridge it comes, which it returns: it must be this
    /// limit.
    #[track_caller]
    fn is_told(&mut self, limit: usize) -> usize {
        let mut told = None;
        eventually("a message comes", || {
            told = self.bridges.iter().position(|bridge| bridge.has_bytes());
            told.is_some()
        });
        let bridge = told.expect("a bridge");
        let head = self.bridges[bridge].read_head();
        let places = self.places(&head, limit);
        let whole = format!("HTTP/1.1 102 Processing\r\nCloudbridge-Places: {places}\r\n\r\n");
        assert_eq!(String::from_utf8_lossy(&head.head), whole);
        bridge
    }

    /// Reads an answer on a bridge: what came over it is given back, with this limit.
    #[track_caller]
    fn gets_back(&mut self, bridge: usize, limit: usize) {
        let head = self.bridges[bridge].read_head();
        let places = self.places(&head, limit);
        let whole = format!(
            "HTTP/1.1 503 Service Unavailable\r\nCloudbridge-Undelivered: places\r\n\
             Cloudbridge-Places: {places}\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(String::from_utf8_lossy(&head.head), whole);
    }

    /// The value of the field in `head`, which must be of this limit and token, and newer than the
    /// last.
    #[track_caller]
    fn places(&mut self, head: &Message, limit: usize) -> String {
        let value = head.field("cloudbridge-places").unwrap_or_else(|| panic!("{head:?}"));
        let at = value.split("at=").nth(1).and_then(|rest| rest.split(';').next());
        let at: u64 = at.and_then(|at| at.parse().ok()).expect("a number");
        assert!(at > self.at, "{head:?} after {}", self.at);
        self.at = at;
        format!("{limit}; at={at}; by={}", self.token)
    }

    /// Sends the first request over a bridge, which takes a place.
    #[track_caller]
    fn begin(&mut self, bridge: usize, request: &str) {
        let bridge = &mut self.bridges[bridge];
        bridge.send(SWITCH);
        bridge.expect_exact(ACK);
        bridge.send(request);
    }

    /// The same, if it may have been told something meanwhile.
    #[track_caller]
    fn begin_after_messages(&mut self, bridge: usize, request: &str) {
        let bridge = &mut self.bridges[bridge];
        bridge.send(SWITCH);
        loop {
            let head = bridge.read_head();
            if head.head == ACK {
                break;
            }
            assert!(head.has("cloudbridge-places") && head.status() == 102, "{head:?}");
        }
        bridge.send(request);
    }

    /// Reads messages until this limit has come. Returns over which bridge.
    #[track_caller]
    fn awaits(&mut self, limit: usize) -> usize {
        let mut last = (0, String::new());
        eventually("the limit comes", || {
            for (at, bridge) in self.bridges.iter_mut().enumerate() {
                while bridge.has_bytes() {
                    let head = bridge.read_head();
                    let value = head.field("cloudbridge-places").expect("a limit");
                    last = (at, value.split(';').next().unwrap().to_owned());
                }
            }
            last.1 == limit.to_string()
        });
        last.0
    }

    /// Sends a request over a bridge that has served.
    #[track_caller]
    fn begin_reused(&mut self, bridge: usize) {
        self.bridges[bridge].send(GET);
    }

    /// Says how long requests wait, over a bridge that then sends a request: when that is given back,
    /// the agent has read it.
    #[track_caller]
    fn says(&mut self, bridge: usize, waiting: &str) {
        let waiting = format!("HTTP/1.1 100 Continue\r\nCloudbridge-Waiting: {waiting}\r\n\r\n");
        self.bridges[bridge].send(waiting + GET);
        self.gets_back(bridge, 0);
    }
}

#[track_caller]
fn extensions(head: &Message) -> String {
    head.field("cloudbridge-extensions").expect("extensions").to_owned()
}

/// An application that holds back what is asked for, its agent with so many places, and proxies with
/// a bridge for each of them.
fn fleet<const N: usize>(places: usize) -> (App, Arc<Gate>, Agent, [Side; N]) {
    let (app, gate) = App::gated("/held", "served");
    let (agent, sides) = fleet_of(&app, places);
    (app, gate, agent, sides)
}

fn fleet_of<const N: usize>(app: &App, places: usize) -> (Agent, [Side; N]) {
    let mut sides = std::array::from_fn(|_| Side::new());
    let agent = Agent::serve(&app.to(), places, &sides.each_ref().map(|side| side.proxy.at()));
    sides.iter_mut().for_each(|side| side.accept(places));
    (agent, sides)
}

#[track_caller]
fn await_inside(gate: &Gate, count: usize) {
    eventually("requests are inside", || gate.inside() == count);
}

#[test]
fn one_proxy_hears_nothing_of_places() {
    let proxy = Played::start();
    let app = App::start(|_| ok("served"));
    let _agent = Agent::serve(&app.to(), 1, &[proxy.at()]);
    let (_bridge, head) = proxy.bridge();
    assert_eq!(extensions(&head), "undelivered, receipts, retries, probes");
}

#[test]
fn proxies_behind_one_name_hear_of_places() {
    let proxy = Played::over(TcpListener::bind("127.0.0.1:0").expect("a port"));
    let app = App::start(|_| ok("served"));
    let name = proxy.at().replace("127.0.0.1", "localhost");
    let _agent = Agent::start(&["--to", &app.to(), "-n1", "--all-addresses", &name]);
    let (_bridge, head) = proxy.bridge();
    assert_eq!(extensions(&head), "undelivered, receipts, retries, probes, places");
}

#[test]
fn a_proxy_is_told_that_the_last_place_is_taken_and_that_it_is_free() {
    let (_app, gate, _agent, [mut one, mut two]) = fleet(1);
    one.begin(0, GET);
    await_inside(&gate, 1);
    two.is_told(0);
    gate.let_out(1);
    one.bridges[0].expect_exact(SERVED);
    two.is_told(1);
    // And the other way round, over a bridge that has served.
    two.begin(0, GET);
    await_inside(&gate, 1);
    one.is_told(0);
    gate.let_out(1);
    two.bridges[0].expect_exact(SERVED);
    one.is_told(1);
}

#[test]
fn some_places_are_told_too() {
    let (_app, gate, _agent, [mut one, mut two]) = fleet(3);
    one.begin(0, GET);
    two.is_told(2);
    one.begin(1, GET);
    await_inside(&gate, 2);
    two.is_told(1);
    two.begin(0, GET);
    await_inside(&gate, 3);
    // Those that it has now are counted.
    one.is_told(2);
}

/// Between short requests the place is free again and again, which is no news.
#[test]
fn short_requests_are_not_told() {
    const REQUESTS: u32 = 200;
    /// Machines can be slow, and requests are then not short.
    const ATTEMPTS: usize = 20;
    let app = App::start(|_| ok("served"));
    let (_agent, [mut one, mut two]) = fleet_of(&app, 1);
    one.begin(0, GET);
    one.bridges[0].expect_exact(SERVED);
    let (mut was_fast, mut served) = (false, Instant::now());
    for _ in 0..ATTEMPTS {
        let (begun, mut longest) = (served, Duration::ZERO);
        for _ in 0..REQUESTS {
            one.bridges[0].send(GET);
            one.bridges[0].expect_exact(SERVED);
            // From one answer to the next: the place is free for some of that.
            let before = std::mem::replace(&mut served, Instant::now());
            longest = longest.max(served - before);
        }
        let mut messages = 0;
        while two.bridges[0].has_bytes() {
            two.bridges[0].read_head();
            messages += 1;
        }
        // A place that is free for as long is told.
        let is_fast = longest < Duration::from_millis(1);
        // What a slow one before it has caused may come late.
        if is_fast && was_fast {
            return assert_eq!(messages, 0);
        }
        was_fast = is_fast;
        // Where each request is long, it is told twice in each pause of ten milliseconds.
        let (passed, pause) = (begun.elapsed(), Duration::from_millis(10));
        let most = u128::from(REQUESTS / 2) + 2 * passed.as_millis() / pause.as_millis();
        assert!(messages < most, "{messages} messages in {passed:?}");
    }
}

#[test]
fn what_crosses_a_message_is_given_back_at_once_and_the_bridge_stays() {
    let (_app, gate, _agent, [mut one, mut two]) = fleet(1);
    one.begin(0, GET);
    await_inside(&gate, 1);
    two.is_told(0);
    two.bridges[0].send(SWITCH);
    two.gets_back(0, 0);
    // It counts as acknowledged, so plain requests follow.
    two.bridges[0].send(GET);
    two.gets_back(0, 0);
    let post = "POST /held HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\n100";
    two.bridges[0].send(post);
    two.gets_back(0, 0);
    // The rest of a body is no request.
    let (head, body) = post.split_at(post.len() - 2);
    two.bridges[0].send(head);
    two.gets_back(0, 0);
    two.bridges[0].send(body);
    two.bridges[0].send(post);
    two.gets_back(0, 0);
    // Nor is that of chunks, and what follows at once is.
    two.bridges[0]
        .send("POST /held HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3");
    two.gets_back(0, 0);
    two.bridges[0].send(format!("\r\nGET\r\n0\r\n\r\n{GET}"));
    two.gets_back(0, 0);
    two.bridges[0].send(SWITCH);
    two.gets_back(0, 0);
    gate.let_out(1);
    one.bridges[0].expect_exact(SERVED);
    two.is_told(1);
    two.bridges[0].send(post);
    // The receipt, and nothing before it.
    assert!(two.bridges[0].read_head().has("cloudbridge-receipt"));
    await_inside(&gate, 1);
    gate.let_out(1);
    two.bridges[0].expect_exact(SERVED);
    assert_eq!(gate.most(), 1);
}

#[test]
fn a_body_that_comes_in_part_ends_with_its_bridge() {
    let (_app, gate, _agent, [mut one, mut two]) = fleet(1);
    one.begin(0, GET);
    await_inside(&gate, 1);
    two.is_told(0);
    two.bridges[0].send(SWITCH);
    two.gets_back(0, 0);
    two.bridges[0].send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\n1");
    two.gets_back(0, 0);
    two.bridges[0].half_close();
    two.bridges[0].expect_closed();
    two.bridges.clear();
    two.accept(1);
    two.is_told(0);
}

#[test]
fn what_the_proxy_does_not_hold_waits_here() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let (seen_heads, gate) = (Arc::clone(&heads), Arc::new(Gate::default()));
    let held = Arc::clone(&gate);
    let app = App::start(move |seen: &Seen| {
        seen_heads.lock().unwrap().push(seen.head.clone());
        held.pass();
        ok("served")
    });
    let (_agent, [mut one, mut two]) = fleet_of(&app, 1);
    one.begin(0, GET);
    await_inside(&gate, 1);
    two.is_told(0);
    two.bridges[0].send(SWITCH);
    two.gets_back(0, 0);
    two.bridges[0].send("GET /2 HTTP/1.1\r\nHost: a.test\r\nCloudbridge-Held: no\r\n\r\n");
    gate.let_out(1);
    one.bridges[0].expect_exact(SERVED);
    await_inside(&gate, 1);
    gate.let_out(1);
    two.bridges[0].expect_exact(SERVED);
    assert_eq!(heads.lock().unwrap()[1], "GET /2 HTTP/1.1\r\nHost: a.test\r\n\r\n");
}

#[test]
fn a_place_goes_to_the_proxy_whose_requests_have_waited_longest() {
    let (_app, gate, _agent, [mut one, mut two, mut three]) = fleet(1);
    one.begin(0, GET);
    await_inside(&gate, 1);
    for side in [&mut two, &mut three] {
        side.is_told(0);
        // Said before the first 101, too.
        side.bridges[0].send("HTTP/1.1 100 Continue\r\nCloudbridge-Waiting: 5; at=1\r\n\r\n");
        side.bridges[0].send(SWITCH);
        side.gets_back(0, 0);
    }
    three.says(0, "60000; at=2");
    two.says(0, "30000; at=2");
    // An old message says nothing.
    two.says(0, "90000; at=1");
    gate.let_out(1);
    one.bridges[0].expect_exact(SERVED);
    three.is_told(1);
    three.bridges[0].send(GET);
    await_inside(&gate, 1);
    // Messages are numbered by the clock: the other has been told later, if its machine is slow.
    if two.bridges[0].has_bytes() {
        two.is_told(1);
        assert!(two.at > three.at);
    }
    gate.let_out(1);
    three.bridges[0].expect_exact(SERVED);
}

#[test]
fn a_message_is_repeated_when_its_bridge_has_ended() {
    let (_app, gate, _agent, [mut one, mut two]) = fleet(2);
    one.begin(0, GET);
    one.begin(1, GET);
    await_inside(&gate, 2);
    // It may be told of the first before the second has come.
    let told = two.awaits(0);
    two.bridges.remove(told);
    two.is_told(0);
    // The bridge is dialled again, though it can serve nothing now.
    two.accept(1);
}

#[test]
fn messages_are_not_sent_within_responses() {
    let app = App::start(|seen: &Seen| {
        if seen.head.starts_with("GET /long") {
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst".to_vec()
        } else {
            std::thread::park_timeout(Duration::from_secs(60));
            ok("served")
        }
    });
    let (_agent, [mut one, mut two]) = fleet_of(&app, 2);
    two.begin(0, "GET /long HTTP/1.1\r\nHost: a.test\r\n\r\n");
    two.bridges[0].expect_exact("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst");
    one.begin_after_messages(0, GET);
    assert_eq!(two.is_told(1), 1);
    assert!(!two.bridges[0].has_bytes());
    // It is the only one left that could carry the message, and must not.
    drop(two.bridges.remove(1));
    two.proxy.bridge();
    app.close_connections();
    two.bridges[0].expect_closed();
}

#[test]
fn a_proxy_that_knows_nothing_of_places_is_served_as_ever() {
    // A match waits three tenths of a second for a place.
    on_time(Duration::from_millis(100), || {
        let (app, gate) = App::gated("/held", "served");
        let (mut one, old) = (Side::new(), Played::start());
        let _agent = Agent::serve(&app.to(), 1, &[one.proxy.at(), old.at()]);
        one.accept(1);
        let (mut bridge, _) = old.bridge();
        bridge.send("HTTP/1.1 100 Continue\r\nCloudbridge-Extensions: leave, undelivered\r\n\r\n");
        one.begin(0, GET);
        await_inside(&gate, 1);
        bridge.send(SWITCH);
        gate.let_out(1);
        one.bridges[0].expect_exact(SERVED);
        // The request has waited here for the place.
        bridge.expect_exact(ACK);
        bridge.send(GET);
        await_inside(&gate, 1);
        one.is_told(0);
        gate.let_out(1);
        bridge.expect_exact(SERVED);
        one.is_told(1);
    });
}

const UPGRADE: &str =
    "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";

/// An application that grants every upgrade, and holds back everything else.
fn upgrading() -> (App, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let app = App::start(move |seen: &Seen| {
        if seen.head.contains("Upgrade: echo") {
            return SWITCHED.into();
        }
        held.pass();
        ok("served")
    });
    (app, gate)
}

/// The proxy counts a tunnel as a bridge with a request, so the agent does.
#[test]
fn tunnels_count_in_the_number_and_take_no_place() {
    let (app, gate) = upgrading();
    let (_agent, [mut one, mut two]) = fleet_of(&app, 2);
    one.begin(0, UPGRADE);
    assert_eq!(one.bridges[0].read_head().status(), 101);
    one.begin(1, UPGRADE);
    assert_eq!(one.bridges[1].read_head().status(), 101);
    // They are replaced.
    one.accept(2);
    // It may have been told of requests that were long in becoming tunnels.
    two.begin_after_messages(0, GET);
    two.begin_after_messages(1, GET);
    await_inside(&gate, 2);
    // It may be told of the first before the second has come.
    one.awaits(2);
    gate.let_out(2);
    two.bridges.iter_mut().for_each(|bridge| bridge.expect_exact(SERVED));
    one.awaits(4);
    two.begin_reused(0);
    await_inside(&gate, 1);
    one.is_told(3);
    // One ends.
    drop(one.bridges.remove(0));
    one.is_told(2);
    gate.let_out(1);
    two.bridges[0].expect_exact(SERVED);
    one.is_told(3);
}

#[test]
fn tunnels_of_an_old_agent_count_in_the_number() {
    let (app, gate) = upgrading();
    let mut sides = [Side::new(), Side::new()];
    let [one, two] = sides.each_ref().map(|side| side.proxy.at());
    let agent = Upgraded::start(&["--to", &app.to(), "-n1", &one, &two]);
    sides.iter_mut().for_each(|side| side.accept(1));
    let [one, two] = &mut sides;
    one.begin(0, UPGRADE);
    assert_eq!(one.bridges[0].read_head().status(), 101);
    one.accept(1);
    agent.upgrade();
    // The new one does not know what the old one has said, which may have been the same.
    one.awaits(2);
    two.awaits(1);
    two.begin_after_messages(0, GET);
    await_inside(&gate, 1);
    one.awaits(1);
    gate.let_out(1);
    two.bridges[0].expect_exact(SERVED);
    one.awaits(2);
    // It ends, and the one that is left has no place.
    drop(one.bridges.remove(0));
    two.begin_reused(0);
    await_inside(&gate, 1);
    one.awaits(0);
}

#[test]
fn a_new_agent_goes_on_telling() {
    let (app, gate) = App::gated("/held", "served");
    let mut sides = [Side::new(), Side::new()];
    let [one, two] = sides.each_ref().map(|side| side.proxy.at());
    let agent = Upgraded::start(&["--to", &app.to(), "-n1", &one, &two]);
    sides.iter_mut().for_each(|side| side.accept(1));
    let [one, two] = &mut sides;
    one.begin(0, GET);
    await_inside(&gate, 1);
    two.is_told(0);
    let old = agent.upgrade();
    // The new one does not know what the old one has said.
    two.is_told(0);
    two.bridges[0].send(SWITCH);
    two.gets_back(0, 0);
    gate.let_out(1);
    one.bridges[0].expect_exact(SERVED);
    agent.await_replaced(old);
    two.is_told(1);
    two.bridges[0].send(GET);
    await_inside(&gate, 1);
    gate.let_out(1);
    two.bridges[0].expect_exact(SERVED);
}

/// Two real proxies and two agents: what one agent has no place for goes to the other at once, though
/// its bridge has been parked longer.
#[test]
fn a_request_does_not_wait_for_an_agent_that_another_proxy_keeps_busy() {
    let proxies = [Proxy::start(), Proxy::start()];
    let both = proxies.each_ref().map(at);
    let (busy, gate) = App::gated("/", "busy");
    let _first = Agent::serve(&busy.to(), 1, &both);
    proxies.iter().for_each(|proxy| proxy.await_count("b", 1));
    let mut one = Client::get(&proxies[0], "a.test", "/");
    await_inside(&gate, 1);
    let idle = App::start(|_| ok("idle"));
    let _second = Agent::serve(&idle.to(), 1, &both);
    proxies.iter().for_each(|proxy| {
        eventually("the other agent's bridge is parked", || proxy.count("b") > 0);
    });
    for _ in 0..3 {
        assert_eq!(Client::get(&proxies[1], "a.test", "/").read_response().text(), "idle");
    }
    gate.let_out(1);
    assert_eq!(one.read_response().text(), "busy");
}
