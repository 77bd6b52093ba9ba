//! Several proxies share the places of a program, which tells each what it may use, and gives back
//! what comes all the same. The test plays the proxies, byte for byte.

use super::language::Language;
use super::program::Program;
use crate::common::{
    ACK, Bridge, Client, DEADLINE, Dir, Message, Played, Proxy, SWITCH, at, eventually, let_pass,
    on_time,
};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const WELCOME: &str =
    "HTTP/1.1 100 Continue\r\nCloudbridge-Extensions: leave, probes, places\r\n\r\n";
const GET_WAIT: &str = "GET /wait HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// A proxy with the one bridge of a program.
pub struct Side {
    pub bridge: Bridge,
    token: String,
    pub proxy: Played,
    /// The number of the last message.
    at: u64,
}

impl Side {
    /// Accepts the bridge with this answer.
    #[track_caller]
    fn accept(proxy: Played, welcome: &str) -> Side {
        let bridge = proxy.bridge();
        Side::welcome(proxy, bridge, welcome)
    }

    /// Answers the head that has come over the bridge.
    #[track_caller]
    fn welcome(proxy: Played, (mut bridge, head): (Bridge, Message), welcome: &str) -> Side {
        let token = head.field("cloudbridge-backend").expect("a token").to_owned();
        bridge.send(welcome);
        Side { bridge, token, proxy, at: 0 }
    }

    /// The field that the next message must have, if this is what it says.
    fn next_places(&mut self, limit: u64) -> String {
        self.at += 1;
        format!("Cloudbridge-Places: {limit}; at={}; by={}", self.at, self.token)
    }

    /// Numbers grow. A message that could not be sent has used one up.
    #[track_caller]
    fn skip_to(&mut self, value: &str) {
        let at = value.split("; ").find_map(|part| part.strip_prefix("at=")).expect("a number");
        let at: u64 = at.parse().expect("digits");
        assert!(at > self.at, "{value} after {}", self.at);
        self.at = at - 1;
    }

    /// What a message says, if this is one.
    #[track_caller]
    fn message(&mut self, head: &Message) -> Option<u64> {
        let value = head.field("cloudbridge-places").filter(|_| head.status() == 102)?;
        let limit = value.split(';').next().and_then(|limit| limit.parse().ok()).expect("digits");
        self.skip_to(value);
        let field = self.next_places(limit);
        let exact = format!("HTTP/1.1 102 Processing\r\n{field}\r\n\r\n");
        assert_eq!(String::from_utf8_lossy(&head.head), exact);
        Some(limit)
    }

    /// Reads messages up to one that says this: a request may have taken long enough to be told.
    #[track_caller]
    pub fn expect_told(&mut self, limit: u64) {
        loop {
            let head = self.bridge.read_head();
            let said = self.message(&head).unwrap_or_else(|| panic!("no message: {head:?}"));
            if said == limit {
                return;
            }
        }
    }

    /// The next head that is no message.
    #[track_caller]
    pub fn read_head(&mut self) -> Message {
        loop {
            let head = self.bridge.read_head();
            if self.message(&head).is_none() {
                return head;
            }
        }
    }

    /// Says how long the oldest request of this proxy waits.
    #[track_caller]
    fn say_waiting(&mut self, value: &str) {
        let head = format!("HTTP/1.1 100 Continue\r\nCloudbridge-Waiting: {value}\r\n\r\n");
        self.bridge.send(head);
    }

    #[track_caller]
    pub fn switch(&mut self) {
        self.bridge.send(SWITCH);
        assert_eq!(self.read_head().head, ACK);
    }

    /// A request for the path and the answer of the application to it.
    #[track_caller]
    pub fn ask(&mut self, path: &str) -> String {
        self.bridge.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        self.read_answer()
    }

    /// Whether a request is not given back.
    #[track_caller]
    fn is_served(&mut self) -> bool {
        self.bridge.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let mut answer = self.read_head();
        self.bridge.read_body(&mut answer, false);
        if let Some(value) = answer.field("cloudbridge-places") {
            self.skip_to(value);
            self.at += 1;
        }
        answer.status() == 200
    }

    #[track_caller]
    pub fn read_answer(&mut self) -> String {
        let mut answer = self.read_head();
        assert_eq!(answer.status(), 200, "{answer:?}");
        self.bridge.read_body(&mut answer, false);
        answer.text()
    }

    /// The request that was sent comes back.
    #[track_caller]
    pub fn expect_given_back(&mut self, limit: u64) {
        let answer = self.read_head();
        assert_eq!(answer.status(), 503, "{answer:?}");
        assert_eq!(answer.all("cloudbridge-undelivered"), ["places"], "{answer:?}");
        self.skip_to(answer.field("cloudbridge-places").expect("a limit"));
        let field = self.next_places(limit);
        let (_, value) = field.split_once(": ").expect("a field");
        assert_eq!(answer.all("cloudbridge-places"), [value], "{answer:?}");
        assert_eq!(answer.all("content-length"), ["0"], "{answer:?}");
        assert_ne!(answer.field("connection"), Some("close"), "{answer:?}");
    }
}

/// A program with one place and one bridge at each of these proxies.
#[track_caller]
pub fn with_one_place<const PROXIES: usize>(language: Language) -> (Program, [Side; PROXIES]) {
    with_one_place_at(language, Duration::ZERO)
}

/// How long a far proxy takes to answer. A place is kept for it for so much longer, so that it is kept on
/// a busy machine, too.
const FAR: Duration = Duration::from_millis(200);

/// The same, with proxies that take so long to answer.
fn with_one_place_at<const PROXIES: usize>(
    language: Language,
    distance: Duration,
) -> (Program, [Side; PROXIES]) {
    let proxies: [Played; PROXIES] = std::array::from_fn(|_| Played::start());
    let at: Vec<String> = proxies.iter().map(Played::at).collect();
    let program = Program::start(language, &at.join(","), 1, &[]);
    let mut bridges = proxies.each_ref().map(Played::bridge).into_iter();
    let_pass(distance);
    let sides = proxies.map(|proxy| {
        let bridge = bridges.next().expect("one for each");
        Side::welcome(proxy, bridge, WELCOME)
    });
    (program, sides)
}

/// The first takes the place, by a request that waits, and the others are told that there is none.
#[track_caller]
pub fn take_place<const PROXIES: usize>(program: &Program, sides: &mut [Side; PROXIES]) {
    let [taker, others @ ..] = &mut sides[..] else { panic!("no proxies") };
    taker.switch();
    taker.bridge.send(GET_WAIT);
    program.await_log("waiting");
    others.iter_mut().for_each(|other| other.expect_told(0));
}

/// To one proxy they are nothing new.
pub fn places_are_announced_as_the_table_says(language: Language) {
    let alone = Played::start();
    let _program = Program::start(language, &alone.at(), 1, &[]);
    let (_bridge, head) = alone.bridge();
    assert_eq!(head.field("cloudbridge-extensions"), language.extensions());
    let both = [Played::start(), Played::start()];
    let _other = Program::start(language, &both.each_ref().map(Played::at).join(","), 1, &[]);
    let heads = both.each_ref().map(|proxy| proxy.bridge().1);
    for head in &heads {
        let named = head.field("cloudbridge-extensions").unwrap_or_default();
        assert_eq!(named, language.extensions_at_several());
    }
    let [one, other] = heads.each_ref().map(|head| head.field("cloudbridge-backend"));
    assert_ne!(one, other, "a proxy could speak for the other");
}

pub fn proxies_are_told_when_all_places_are_taken_and_when_one_is_free(language: Language) {
    let (mut program, mut sides) = with_one_place::<2>(language);
    // Over a bridge that has not served yet, and over one that has.
    take_place(&program, &mut sides);
    program.go_on();
    assert_eq!(sides[0].read_answer(), "waited");
    sides[1].expect_told(1);
    sides[1].switch();
    assert_eq!(sides[1].ask("/there"), "GET /there for a.test");
    program.await_asleep();
    sides[0].bridge.send(GET_WAIT);
    sides[1].expect_told(0);
    program.go_on();
    assert_eq!(sides[0].read_answer(), "waited");
    sides[1].expect_told(1);
    program.await_asleep();
    assert!(sides.iter().all(|side| side.proxy.is_quiet()), "it has dialled again");
}

pub fn proxy_that_does_not_know_places_is_told_nothing(language: Language) {
    let proxies = [Played::start(), Played::start()];
    let at = proxies.each_ref().map(Played::at).join(",");
    let mut program = Program::start(language, &at, 1, &[]);
    let [new, old] = proxies;
    let mut new = Side::accept(new, WELCOME);
    let mut old = Side::accept(old, &WELCOME.replace(", places", ""));
    new.switch();
    new.bridge.send(GET_WAIT);
    program.await_log("waiting");
    program.await_asleep();
    assert!(!old.bridge.has_bytes(), "it is told");
    program.go_on();
    assert_eq!(new.read_answer(), "waited");
    // What it takes, the other is told.
    old.switch();
    old.bridge.send(GET_WAIT);
    new.expect_told(0);
    program.go_on();
    assert_eq!(old.read_answer(), "waited");
    new.expect_told(1);
}

/// A 101 before the first request.
pub fn match_without_a_place_is_given_back(language: Language) {
    let (mut program, mut sides) = with_one_place::<2>(language);
    take_place(&program, &mut sides);
    for _ in 0..2 {
        sides[1].bridge.send(SWITCH);
        let field = sides[1].next_places(0);
        sides[1].bridge.expect_exact(format!(
            "HTTP/1.1 503 Service Unavailable\r\nCloudbridge-Undelivered: places\r\n{field}\r\nContent-Length: 0\r\n\r\n"
        ));
    }
    program.go_on();
    assert_eq!(sides[0].read_answer(), "waited");
    sides[1].expect_told(1);
    sides[1].switch();
    assert_eq!(sides[1].ask("/after"), "GET /after for a.test");
}

/// Such a bridge counts as acknowledged.
pub fn plain_request_may_follow_a_match_that_was_given_back(language: Language) {
    let (mut program, mut sides) = with_one_place::<2>(language);
    take_place(&program, &mut sides);
    sides[1].bridge.send(SWITCH);
    sides[1].expect_given_back(0);
    program.await_asleep();
    sides[1].bridge.send_byte_by_byte("HEAD / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    sides[1].expect_given_back(0);
    sides[1].bridge.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody");
    sides[1].expect_given_back(0);
    program.go_on();
    assert_eq!(sides[0].read_answer(), "waited");
    sides[1].expect_told(1);
    assert_eq!(sides[1].ask("/after"), "GET /after for a.test");
}

/// A 101 between two requests.
pub fn probe_without_a_place_is_given_back(language: Language) {
    let (mut program, mut sides) = with_one_place::<2>(language);
    sides[1].switch();
    sides[1].ask("/before");
    program.await_asleep();
    take_place(&program, &mut sides);
    sides[1].bridge.send(SWITCH);
    sides[1].expect_given_back(0);
    program.go_on();
    assert_eq!(sides[0].read_answer(), "waited");
    sides[1].expect_told(1);
    sides[1].switch();
    assert_eq!(sides[1].ask("/after"), "GET /after for a.test");
}

pub fn requests_without_a_place_are_given_back(language: Language) {
    let (mut program, mut sides) = with_one_place::<2>(language);
    sides[1].switch();
    sides[1].ask("/before");
    program.await_asleep();
    take_place(&program, &mut sides);
    const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let with_length = format!("Content-Length: {}\r\n\r\n{HIDDEN}", HIDDEN.len());
    for (method, rest) in [
        ("GET", "\r\n"),
        ("POST", &with_length),
        ("POST", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
        ("GET", "\r\n"),
    ] {
        let request = format!("{method} / HTTP/1.1\r\nHost: a.test\r\n{rest}");
        sides[1].bridge.send(request);
        sides[1].expect_given_back(0);
    }
    program.go_on();
    assert_eq!(sides[0].read_answer(), "waited");
    sides[1].expect_told(1);
    assert_eq!(sides[1].ask("/after"), "GET /after for a.test");
}

/// One that the proxy cannot give to another bridge. The application does not see the field that says so.
pub fn request_that_is_not_held_waits_for_its_place(language: Language) {
    let (mut program, mut sides) = with_one_place::<2>(language);
    sides[1].switch();
    sides[1].ask("/before");
    program.await_asleep();
    take_place(&program, &mut sides);
    sides[1]
        .bridge
        .send("GET /fields HTTP/1.1\r\nHost: a.test\r\nCloudbridge-Held: no\r\nX-A: b\r\n\r\n");
    program.await_asleep();
    assert!(!sides[1].bridge.has_bytes(), "it has been answered");
    program.go_on();
    assert_eq!(sides[0].read_answer(), "waited");
    assert_eq!(sides[1].read_answer(), "host x-a");
    sides[1].expect_told(1);
    // With a body that comes later.
    sides[0].bridge.send(GET_WAIT);
    eventually("it waits again", || program.log().matches("waiting").count() == 2);
    sides[1].bridge.send(
        "POST / HTTP/1.1\r\nHost: a.test\r\nCloudbridge-Held: no\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    sides[1].bridge.send("4\r\nbody\r\n0\r\n\r\n");
    program.go_on();
    assert_eq!(sides[0].read_answer(), "waited");
    assert_eq!(sides[1].read_answer(), "body");
}

/// Of three proxies the first has the place. It goes to the one whose requests have waited longest.
pub fn freed_place_goes_to_the_proxy_that_has_waited_longest(language: Language) {
    // The Rust library knows better how far away a proxy is. There it is free for all after three.
    on_time(Duration::from_millis(2), || {
        for (longest, waits) in
            [(1, ["", "900; at=1", "80; at=1"]), (2, ["", "80; at=1", "900; at=1"])]
        {
            let (mut program, mut sides) = with_one_place_at::<3>(language, FAR);
            take_place(&program, &mut sides);
            for (side, wait) in sides.iter_mut().zip(waits).skip(1) {
                side.say_waiting(wait);
            }
            program.await_asleep();
            program.go_on();
            sides[longest].expect_told(1);
            sides[longest].switch();
            sides[longest].bridge.send(GET_WAIT);
            assert_eq!(sides[0].read_answer(), "waited");
            program.await_asleep();
            assert!(!sides[3 - longest].bridge.has_bytes(), "the other was told");
        }
    });
}

/// It keeps the place if it waits, too, and not much less long.
pub fn freed_place_stays_where_requests_have_waited_as_long(language: Language) {
    const POST: &str = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\n";
    // In the Rust library it is free for all after three.
    on_time(Duration::from_millis(10), || {
        let proxies = [Played::start(), Played::start()];
        let at = proxies.each_ref().map(Played::at).join(",");
        let program = Program::start(language, &at, 2, &[]);
        // Each proxy has one of the two places, and a bridge more.
        let mut busy = proxies.map(|proxy| {
            let bridge = proxy.bridge();
            let_pass(FAR);
            Side::welcome(proxy, bridge, WELCOME)
        });
        let mut idle = busy.each_mut().map(|side| {
            side.switch();
            side.bridge.send(POST);
            let (mut bridge, _) = side.proxy.bridge();
            let_pass(FAR);
            bridge.send(WELCOME);
            bridge
        });
        for bridge in &mut idle {
            assert_eq!(bridge.read_head().status(), 102);
        }
        program.await_asleep();
        for (bridge, waited) in idle.iter_mut().zip([890, 900]) {
            bridge.send(format!(
                "HTTP/1.1 100 Continue\r\nCloudbridge-Waiting: {waited}; at=1\r\n\r\n"
            ));
        }
        program.await_asleep();
        busy[0].bridge.send("body");
        assert_eq!(busy[0].read_answer(), "body");
        busy[0].bridge.send(POST);
        program.await_asleep();
        assert!(!idle[1].has_bytes(), "the other was told");
        busy[0].bridge.send("next");
        assert_eq!(busy[0].read_answer(), "next");
    });
}

/// Without a request that waits, or with one that does not come, the place is everybody's.
pub fn place_is_not_kept_for_a_proxy_that_does_not_wait(language: Language) {
    let (mut program, mut sides) = with_one_place::<3>(language);
    take_place(&program, &mut sides);
    sides[1].say_waiting("80; at=1");
    sides[2].say_waiting("900; at=1");
    // The second of these is older than the first.
    sides[2].say_waiting("none; at=3");
    sides[2].say_waiting("900; at=2");
    program.await_asleep();
    program.go_on();
    assert_eq!(sides[0].read_answer(), "waited");
    sides[1].expect_told(1);
    // It does not take it. On a slow machine it is believed again before the other asks.
    sides[2].expect_told(1);
    sides[2].switch();
    eventually("the place is for all", || sides[2].is_served());
}

/// It may be far away: what it has said is believed again after a moment.
pub fn proxy_that_has_not_used_a_place_in_time_gets_another(language: Language) {
    let (mut program, mut sides) = with_one_place::<2>(language);
    take_place(&program, &mut sides);
    sides[1].say_waiting("60000; at=1");
    program.await_asleep();
    program.go_on();
    assert_eq!(sides[0].read_answer(), "waited");
    eventually("the place is for all", || sides[0].is_served());
    eventually("it is kept again", || (0..10).any(|_| !sides[0].is_served()));
}

/// What was told over a bridge that has ended is told over another, since it may not have arrived.
pub fn proxy_is_told_again_when_a_bridge_has_ended(language: Language) {
    let (mut program, mut sides) = with_one_place::<2>(language);
    take_place(&program, &mut sides);
    let [mut taker, told] = sides;
    let Side { bridge, token, proxy, at } = told;
    drop(bridge);
    let mut told = Side { at, ..Side::accept(proxy, WELCOME) };
    assert_eq!(told.token, token);
    told.expect_told(0);
    program.go_on();
    assert_eq!(taker.read_answer(), "waited");
    told.expect_told(1);
}

/// Two programs with a place each, at two proxies. A request finds the one that has a place, although the
/// other has a bridge at its proxy, too.
pub fn request_is_served_by_the_program_that_has_a_place(language: Language) {
    let proxies = [Proxy::start(), Proxy::start()];
    let both = proxies.each_ref().map(at).join(",");
    let mut programs = [(); 2].map(|()| Program::start(language, &both, 1, &[]));
    proxies.iter().for_each(|proxy| proxy.await_count("b", 2));
    let get = |proxy: usize, path: &str| Client::get(&proxies[proxy], "a.test", path);
    let busy = |programs: &[Program]| {
        programs.iter().filter(|program| program.log().contains("waiting")).count()
    };
    let mut first = get(0, "/wait");
    eventually("one program is busy", || busy(&programs) == 1);
    for path in ["/1", "/2", "/3", "/4", "/5"] {
        let mut answers = [get(1, path), get(0, path)];
        for answer in &mut answers {
            assert_eq!(answer.read_response().text(), format!("GET {path} for a.test"));
        }
    }
    let mut second = get(1, "/wait");
    eventually("both programs are busy", || busy(&programs) == 2);
    // These wait, each at its proxy, for whichever place comes free.
    let mut last = [get(0, "/last"), get(1, "/last")];
    programs[0].go_on();
    for answer in &mut last {
        assert_eq!(answer.read_response().text(), "GET /last for a.test");
    }
    programs[1].go_on();
    for answer in [&mut first, &mut second] {
        assert_eq!(answer.read_response().text(), "waited");
    }
}

/// What comes from a port that gunicorn listens at, too, has places, and waits for them.
#[test]
fn requests_of_gunicorns_own_port_have_places() {
    if !Language::Gunicorn.is_here() {
        return;
    }
    let dir = Dir::new();
    let port = dir.path().join("port");
    let bind = format!("--bind unix:{}", port.display());
    let proxies = [Played::start(), Played::start()];
    let both = proxies.each_ref().map(Played::at).join(",");
    let variables = [("GUNICORN_CMD_ARGS", bind.as_str())];
    let mut program = Program::start(Language::Gunicorn, &both, 1, &variables);
    let mut sides = proxies.map(|proxy| Side::accept(proxy, WELCOME));
    take_place(&program, &mut sides);
    let ask = |path: &str| {
        let mut asked = UnixStream::connect(&port).expect("it listens");
        asked.set_read_timeout(Some(DEADLINE)).expect("a socket");
        let request = format!("GET {path} HTTP/1.0\r\nHost: a.test\r\n\r\n");
        asked.write_all(request.as_bytes()).expect("it reads");
        asked
    };
    let answer = |mut asked: UnixStream| {
        let mut answer = String::new();
        asked.read_to_string(&mut answer).expect("an answer");
        answer.split_once("\r\n\r\n").expect("a head").1.to_owned()
    };
    // More than there are threads for them.
    let asked = ["/1", "/2", "/3"].map(ask);
    program.await_asleep();
    for asked in &asked {
        asked.set_nonblocking(true).expect("a socket");
        let read = (&mut &*asked).read(&mut [0]);
        assert_eq!(read.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
        asked.set_nonblocking(false).expect("a socket");
    }
    program.go_on();
    assert_eq!(sides[0].read_answer(), "waited");
    for (asked, path) in asked.into_iter().zip(["/1", "/2", "/3"]) {
        assert_eq!(answer(asked), format!("GET {path} for a.test"));
    }
    sides[1].expect_told(1);
    let waits = ask("/wait");
    eventually("it waits", || program.log().matches("waiting").count() == 2);
    sides[1].expect_told(0);
    sides[1].bridge.send(SWITCH);
    sides[1].expect_given_back(0);
    program.go_on();
    assert_eq!(answer(waits), "waited");
    sides[1].expect_told(1);
    sides[1].switch();
    assert_eq!(sides[1].ask("/after"), "GET /after for a.test");
}
