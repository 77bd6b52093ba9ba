//! The listener against proxies that follow a script.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::*;

/// How long anything here may take before the test fails.
const DEADLINE: Duration = Duration::from_secs(20);

/// The BRIDGE request, as far as the token.
const REQUEST: &[u8] =
    b"BRIDGE / HTTP/1.1\r\nExpect: 100-continue\r\nHost: a.test\r\nCloudbridge-Backend: ";
const PING: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
const SWITCH: &[u8] = b"HTTP/1.1 101 Upgrade\r\nUpgrade: HTTP/1.1\r\n\r\n";

/// Runs `body` on a thread of its own, and fails if it is not done by the deadline.
#[track_caller]
fn within<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    thread::spawn(move || done.send(body()));
    result.recv_timeout(DEADLINE).expect("done in time")
}

/// A proxy that takes connections one after another and plays one step on each.
fn proxy(steps: Vec<Box<dyn FnOnce(TcpStream) + Send>>) -> BridgeListener {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for step in steps {
            step(socket.accept().unwrap().0);
        }
    });
    let builder = BridgeListener::builder(address).host("a.test");
    builder.ping_interval(DEADLINE).build().unwrap()
}

/// A step: reads the BRIDGE request and says `answer`.
fn says(answer: &'static [u8]) -> Box<dyn FnOnce(TcpStream) + Send> {
    Box::new(move |mut bridge| {
        expect_request(&mut bridge);
        bridge.write_all(answer).unwrap();
    })
}

/// A step: matches the bridge at once, with this as the request, and waits for its end.
fn matches_with(request: &'static [u8]) -> Box<dyn FnOnce(TcpStream) + Send> {
    Box::new(move |mut bridge| {
        expect_request(&mut bridge);
        bridge.write_all(&[PING, SWITCH, request].concat()).unwrap();
        expect(&mut bridge, PING);
        let _ = io::copy(&mut bridge, &mut io::sink());
    })
}

#[track_caller]
fn expect(stream: &mut impl Read, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes.escape_ascii().to_string(), expected.escape_ascii().to_string());
}

/// Reads the BRIDGE request and returns its token.
#[track_caller]
fn expect_request(bridge: &mut impl Read) -> String {
    expect(bridge, REQUEST);
    let agent = concat!("\r\nUser-Agent: cloudbridge-rust/", env!("CARGO_PKG_VERSION"), "\r\n\r\n");
    expect_token(bridge, agent)
}

/// Reads a token and the rest of a head.
#[track_caller]
fn expect_token(stream: &mut impl Read, rest: &str) -> String {
    let mut token = [0; 32];
    stream.read_exact(&mut token).unwrap();
    expect(stream, rest.as_bytes());
    String::from_utf8(token.to_vec()).unwrap()
}

/// The error of accepting from a proxy that answers this.
#[track_caller]
fn error_for(answer: &'static [u8]) -> io::Error {
    let listener = proxy(vec![says(answer)]);
    within(move || listener.accept().unwrap_err())
}

#[test]
fn a_bridge_is_parked_pinged_matched_and_used() {
    let (sent, result) = mpsc::channel();
    let listener = proxy(vec![Box::new(move |mut bridge: TcpStream| {
        expect_request(&mut bridge);
        for part in [PING, PING, b"HTTP/1.1 102 Processing\r\n\r\n", SWITCH] {
            bridge.write_all(part).unwrap();
        }
        expect(&mut bridge, PING);
        bridge.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        expect(&mut bridge, b"HTTP/1.1 204 No Content\r\n\r\n");
        sent.send(()).unwrap();
    })]);
    within(move || {
        let mut bridge = listener.accept().unwrap();
        expect(&mut bridge, b"GET / HTTP/1.1\r\n\r\n");
        bridge.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        assert!(bridge.nodelay().unwrap());
        assert_eq!(bridge.read_timeout().unwrap(), None);
        assert_eq!(bridge.write_timeout().unwrap(), None);
        result.recv().unwrap();
    });
}

#[test]
fn answers_and_request_are_split_at_every_byte() {
    let request = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi";
    let bytes = [PING, SWITCH, request].concat();
    let cuts = bytes.len();
    let steps = (0..cuts).map(|cut| -> Box<dyn FnOnce(TcpStream) + Send> {
        let bytes = bytes.clone();
        Box::new(move |mut bridge| {
            bridge.set_nodelay(true).unwrap();
            bridge.write_all(&bytes[..cut]).unwrap();
            expect_request(&mut bridge);
            bridge.write_all(&bytes[cut..]).unwrap();
            expect(&mut bridge, PING);
        })
    });
    let listener = proxy(steps.collect());
    within(move || {
        for _ in 0..cuts {
            expect(&mut listener.accept().unwrap(), request);
        }
    });
}

#[test]
fn registration_has_hosts_prefix_and_key() {
    let key = "817d1d4d1f9157057ea40057a7edfa9ac6f2a4eb:1234567890:a.example.com";
    let listener = BridgeListener::builder("p")
        .host("a.example.com")
        .host("*.B.example.com:80")
        .prefix("/api/")
        .key(key)
        .build()
        .unwrap();
    let request = String::from_utf8(listener.shared.request.clone()).unwrap();
    assert_eq!(
        request,
        format!(
            "BRIDGE /api HTTP/1.1\r\nExpect: 100-continue\r\nHost: a.example.com\r\n\
             Host: *.B.example.com:80\r\nHost-Key: {key}\r\n\r\n"
        )
    );
    assert_eq!(listener.shared.silence, Duration::from_secs(45));
    assert!(!format!("{listener:?}").contains("817d"));
}

#[test]
fn every_host_is_served_unless_some_are_named() {
    let listener = BridgeListener::builder("p").build().unwrap();
    assert!(listener.shared.request.ends_with(b"\r\nHost: *\r\n\r\n"));
}

#[test]
fn invalid_listener_is_not_built() {
    let new = || BridgeListener::builder("p");
    let many = (0..100).fold(new(), |builder, i| builder.host(format!("h{i}.test")));
    for (builder, what) in [
        (
            new().host("a b"),
            "bad host \"a b\": a host name has only letters, digits, '-', '_' and '.'",
        ),
        (new().host("a\r\nX: y"), "bad host \"a\\r\\nX: y\": the port is not a number up to 65535"),
        (
            new().prefix("api"),
            "bad prefix \"api\": the target of a BRIDGE is a path, such as / or /app",
        ),
        (
            new().prefix("/a b"),
            "bad prefix \"/a b\": the target of a BRIDGE is a path, such as / or /app",
        ),
        (new().key("sesame"), "bad key: it is not hash:timestamp:name"),
        (new().ping_interval(Duration::ZERO), "the ping interval is zero"),
        (many, "too many fields"),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), what);
    }
    assert!(!format!("{:?}", new().key("sesame")).contains("sesame"));
}

#[test]
fn the_port_may_be_left_out() {
    for (given, dialled) in [
        ("proxy", "proxy:8079"),
        ("proxy:80", "proxy:80"),
        ("192.0.2.1", "192.0.2.1:8079"),
        ("[::1]", "[::1]:8079"),
        ("[::1]:80", "[::1]:80"),
        ("::1", "[::1]:8079"),
    ] {
        assert_eq!(target::with_port(given, DEFAULT_PORT), dialled);
    }
}

#[test]
fn a_refusal_carries_status_reason_and_time() {
    let error = error_for(
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 24\r\n\r\nno Host-Key covers a.te\nignored",
    );
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(error.to_string(), "the proxy refused the bridge: 401 no Host-Key covers a.te");
    let error = error_for(
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(
        Refused::of(&error),
        Some(&Refused {
            status: 503,
            reason: "Service Unavailable".to_owned(),
            retry_after: Some(Duration::from_secs(2)),
        })
    );
}

#[test]
fn a_refusal_without_length_ends_with_the_connection() {
    let error = error_for(b"HTTP/1.1 404 Not Found\r\n\r\nnot here");
    assert_eq!(Refused::of(&error).unwrap().reason, "not here");
}

#[test]
fn a_parked_bridge_can_still_be_refused() {
    let error = error_for(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 401 Unauthorized\r\n\r\n");
    assert_eq!(Refused::of(&error).unwrap().status, 401);
}

#[test]
fn other_protocol_is_an_error() {
    let error = error_for(b"SSH-2.0-OpenSSH_9.2\r\n");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(Refused::of(&error).is_none());
}

#[test]
fn an_endless_head_is_an_error() {
    let listener = proxy(vec![Box::new(|mut bridge: TcpStream| {
        let line = [b'x'; 4096];
        let _ = bridge.write_all(b"HTTP/1.1 100 Continue\r\nX: ");
        while bridge.write_all(&line).is_ok() {}
    })]);
    let error = within(move || listener.accept().unwrap_err());
    assert_eq!(
        error.to_string(),
        "the answer to BRIDGE is not HTTP: the response head is too long"
    );
}

#[test]
fn a_504_means_dial_again() {
    let listener = proxy(vec![
        says(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n"),
        says(b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n"),
        matches_with(b"GET /"),
    ]);
    within(move || expect(&mut listener.accept().unwrap(), b"GET /"));
}

#[test]
fn a_closed_bridge_is_dialled_again() {
    let listener = proxy(vec![
        Box::new(drop),
        says(b""),
        says(b"HTTP/1.1 100 Continue\r\n\r\n"),
        says(b"HTTP/1.1 10"),
        matches_with(b"GET /"),
    ]);
    within(move || expect(&mut listener.accept().unwrap(), b"GET /"));
}

#[test]
fn a_proxy_that_falls_silent_is_dialled_again() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let builder = BridgeListener::builder(socket.local_addr().unwrap().to_string());
    let listener = builder.ping_interval(Duration::from_millis(5)).build().unwrap();
    let accepting = listener.clone();
    thread::spawn(move || accepting.accept());
    within(move || {
        let (mut first, _) = socket.accept().unwrap();
        first.write_all(PING).unwrap();
        let (mut second, _) = socket.accept().unwrap();
        second.write_all(PING).unwrap();
        // The first was given up, not kept beside the second.
        io::copy(&mut first, &mut io::sink()).ok();
        // Or it would go on dialling a port that is another test's by then.
        listener.shutdown().unwrap();
    });
}

#[test]
fn several_threads_accept_at_once() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let builder = BridgeListener::builder(socket.local_addr().unwrap().to_string());
    let listener = builder.host("a.test").build().unwrap();
    let (accepted, bridges) = mpsc::channel();
    for _ in 0..3 {
        let (listener, accepted) = (listener.clone(), accepted.clone());
        thread::spawn(move || accepted.send(listener.accept()));
    }
    within(move || {
        // All three are parked before the first is matched.
        let parked: Vec<TcpStream> = (0..3).map(|_| socket.accept().unwrap().0).collect();
        for mut bridge in &parked {
            expect_request(&mut bridge);
            bridge.write_all(SWITCH).unwrap();
            expect(&mut bridge, PING);
        }
        for bridge in bridges.iter().take(3) {
            bridge.unwrap();
        }
    });
}

#[test]
fn incoming_continues_after_an_error() {
    let listener =
        proxy(vec![says(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"), matches_with(b"GET /")]);
    within(move || {
        let mut incoming = listener.incoming();
        assert!(incoming.next().expect("endless").is_err());
        assert!(incoming.next().expect("endless").is_ok());
    });
}

const WELCOME: &[u8] =
    b"HTTP/1.1 100 Continue\r\nCloudbridge-Extensions: leave, undelivered\r\n\r\n";

/// The start of a leave, as far as the token.
const LEAVE: &[u8] =
    b"BRIDGE / HTTP/1.1\r\nExpect: 100-continue\r\nHost: a.test\r\nCloudbridge-Leave: ";

/// A listener at a proxy that the test plays.
fn played() -> (TcpListener, BridgeListener) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let builder = BridgeListener::builder(address).host("a.test").ping_interval(DEADLINE);
    (socket, builder.build().unwrap())
}

/// The next bridge, which is welcomed with these words, and its token.
#[track_caller]
fn bridge(socket: &TcpListener, words: &[u8]) -> (TcpStream, String) {
    let (mut bridge, _) = socket.accept().unwrap();
    let token = expect_request(&mut bridge);
    bridge.write_all(words).unwrap();
    (bridge, token)
}

/// Waits until so many bridges have read their welcome.
fn await_welcomes(listener: &BridgeListener, count: usize) {
    while listener.shared.parked.deregistrable() < count {
        thread::yield_now();
    }
}

#[test]
fn shutdown_deregisters_and_serves_a_crossing_request() {
    within(|| {
        let (socket, listener) = played();
        let accepting: Vec<_> = (0..3)
            .map(|_| {
                let listener = listener.clone();
                thread::spawn(move || listener.accept())
            })
            .collect();
        let mut bridges: Vec<_> = (0..3).map(|_| bridge(&socket, WELCOME)).collect();
        await_welcomes(&listener, 3);
        let ending = listener.clone();
        let ended = thread::spawn(move || ending.shutdown());
        let (mut leave, _) = socket.accept().unwrap();
        expect(&mut leave, LEAVE);
        assert_eq!(expect_token(&mut leave, "\r\n\r\n"), bridges[0].1);
        // A request crosses the leave.
        let (mut matched, _) = bridges.remove(0);
        matched.write_all(SWITCH).unwrap();
        expect(&mut matched, PING);
        leave.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        drop(bridges);
        ended.join().unwrap().unwrap();
        let accepted: Vec<_> = accepting.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(accepted.iter().filter(|accepted| accepted.is_ok()).count(), 1);
        for error in accepted.into_iter().filter_map(Result::err) {
            assert_eq!(error.kind(), io::ErrorKind::NotConnected);
        }
        assert!(listener.is_shut_down() && listener.incoming().next().is_none());
    });
}

#[test]
fn proxy_without_deregistration_is_not_told() {
    within(|| {
        let (socket, listener) = played();
        let accepting = listener.clone();
        let accepted = thread::spawn(move || accepting.accept());
        let (mut parked, _) = bridge(&socket, PING);
        listener.shutdown().unwrap();
        assert_eq!(parked.read(&mut [0]).unwrap(), 0);
        assert_eq!(accepted.join().unwrap().unwrap_err().kind(), io::ErrorKind::NotConnected);
        socket.set_nonblocking(true).unwrap();
        assert!(socket.accept().is_err());
    });
}

#[test]
fn refused_deregistration_is_an_error_and_bridges_are_closed() {
    within(|| {
        let (socket, listener) = played();
        let accepting = listener.clone();
        let accepted = thread::spawn(move || accepting.accept());
        let (mut parked, _) = bridge(&socket, WELCOME);
        await_welcomes(&listener, 1);
        let ending = listener.clone();
        let ended = thread::spawn(move || ending.shutdown());
        let (mut leave, _) = socket.accept().unwrap();
        expect(&mut leave, LEAVE);
        leave.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").unwrap();
        assert_eq!(parked.read(&mut [0]).unwrap(), 0);
        let error = ended.join().unwrap().unwrap_err();
        assert!(error.to_string().ends_with("it answers 401 to a deregistration"), "{error}");
        assert_eq!(accepted.join().unwrap().unwrap_err().kind(), io::ErrorKind::NotConnected);
    });
}

#[test]
fn a_listener_that_waits_for_its_next_attempt_ends_at_once() {
    within(|| {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        // Nobody listens there, and nobody can, while the socket has the port at 127.0.0.1.
        let address = SocketAddr::from(([127, 0, 0, 2], socket.local_addr().unwrap().port()));
        let listener = BridgeListener::builder(address.to_string()).build().unwrap();
        let accepting = listener.clone();
        let accepted = thread::spawn(move || accepting.accept());
        listener.shutdown().unwrap();
        assert_eq!(accepted.join().unwrap().unwrap_err().kind(), io::ErrorKind::NotConnected);
    });
}

const SHARES: &[u8] =
    b"HTTP/1.1 100 Continue\r\nCloudbridge-Extensions: leave, undelivered, places\r\n\r\n";

/// Two proxies that the test plays, with a bridge each of a program that has one place, and what its
/// threads have accepted.
struct Two {
    sides: [Side; 2],
    listeners: [BridgeListener; 2],
    accepted: [mpsc::Receiver<BridgeStream>; 2],
}

struct Side {
    bridge: TcpStream,
    token: String,
    /// The number of the last message.
    at: u64,
}

impl Two {
    #[track_caller]
    fn new() -> Two {
        let places = Places::new(1);
        let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let listeners = sockets.each_ref().map(|socket| {
            let builder = BridgeListener::builder(socket.local_addr().unwrap().to_string());
            builder.host("a.test").ping_interval(DEADLINE).places(&places).build().unwrap()
        });
        let accepted = listeners.each_ref().map(|listener| {
            let ((sender, accepted), listener) = (mpsc::channel(), listener.clone());
            thread::spawn(move || {
                for bridge in listener.incoming() {
                    sender.send(bridge.unwrap()).unwrap();
                }
            });
            accepted
        });
        let sides = sockets.map(|socket| {
            let (mut bridge, _) = socket.accept().unwrap();
            expect(
                &mut bridge,
                b"BRIDGE / HTTP/1.1\r\nExpect: 100-continue\r\nHost: a.test\r\n\
                  Cloudbridge-Extensions: undelivered, probes, places\r\nCloudbridge-Backend: ",
            );
            let version = env!("CARGO_PKG_VERSION");
            let agent = format!("\r\nUser-Agent: cloudbridge-rust/{version}\r\n\r\n");
            let token = expect_token(&mut bridge, &agent);
            bridge.write_all(SHARES).unwrap();
            // The other threads' bridges are not accepted: each listener has one.
            Side { bridge, token, at: 0 }
        });
        Two { sides, listeners, accepted }
    }

    /// The next bridge of this proxy that the program accepts.
    #[track_caller]
    fn stream(&self, proxy: usize) -> BridgeStream {
        self.accepted[proxy].recv_timeout(DEADLINE).expect("accepted in time")
    }

    fn end(self) {
        drop(self.sides);
        let _ = self.listeners.map(|listener| listener.shutdown());
    }
}

impl Side {
    fn field(&mut self, limit: usize) -> String {
        self.at += 1;
        format!("Cloudbridge-Places: {limit}; at={}; by={}\r\n", self.at, self.token)
    }

    #[track_caller]
    fn expect_told(&mut self, limit: usize) {
        let message = format!("HTTP/1.1 102 Processing\r\n{}\r\n", self.field(limit));
        expect(&mut self.bridge, message.as_bytes());
    }

    #[track_caller]
    fn expect_given_back(&mut self, limit: usize) {
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\nCloudbridge-Undelivered: places\r\n{}\
             Content-Length: 0\r\n\r\n",
            self.field(limit)
        );
        expect(&mut self.bridge, answer.as_bytes());
    }

    #[track_caller]
    fn send(&mut self, bytes: &[u8]) {
        self.bridge.write_all(bytes).unwrap();
    }
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
const NO_CONTENT: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

#[test]
fn the_proxies_of_shared_places_are_told_what_is_taken_and_what_is_free() {
    within(|| {
        let mut two = Two::new();
        two.sides[0].send(SWITCH);
        expect(&mut two.sides[0].bridge, PING);
        two.sides[0].send(GET);
        let mut stream = two.stream(0);
        let mut look = [0; 4];
        assert_eq!(stream.peek(&mut look).unwrap(), 4);
        expect(&mut stream, GET);
        two.sides[1].expect_told(0);
        // A match that crosses this.
        two.sides[1].send(SWITCH);
        two.sides[1].expect_given_back(0);
        stream.write_all(NO_CONTENT).unwrap();
        expect(&mut two.sides[0].bridge, NO_CONTENT);
        two.sides[1].expect_told(1);
        // It may come without another 101.
        two.sides[1].send(SWITCH);
        expect(&mut two.sides[1].bridge, PING);
        two.sides[1].send(GET);
        let mut other = two.stream(1);
        expect(&mut other, GET);
        two.sides[0].expect_told(0);
        assert!(other.into_tcp().is_err(), "what passes would not be seen");
        // It is dropped without an answer.
        assert_eq!(two.sides[1].bridge.read(&mut [0]).unwrap(), 0);
        two.sides[0].expect_told(1);
        two.end();
    });
}

#[test]
fn a_request_of_shared_places_is_given_back_or_waits() {
    within(|| {
        let mut two = Two::new();
        two.sides[1].send(SWITCH);
        expect(&mut two.sides[1].bridge, PING);
        two.sides[1].send(GET);
        let mut other = two.stream(1);
        expect(&mut other, GET);
        other.write_all(NO_CONTENT).unwrap();
        two.sides[0].send(SWITCH);
        let mut bridge = two.sides[0].bridge.try_clone().unwrap();
        let mut stream = {
            // It may have been told of the first request.
            let mut seen = Vec::new();
            while !seen.ends_with(PING) {
                let mut byte = [0];
                bridge.read_exact(&mut byte).unwrap();
                seen.push(byte[0]);
            }
            two.sides[0].send(GET);
            two.stream(0)
        };
        expect(&mut stream, GET);
        let reading = thread::spawn(move || {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                other.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            (other, String::from_utf8(head).unwrap())
        });
        expect(&mut two.sides[1].bridge, NO_CONTENT);
        two.sides[1].expect_told(0);
        two.sides[1].send(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi");
        two.sides[1].expect_given_back(0);
        two.sides[1].send(
            b"POST /held HTTP/1.1\r\nHost: a.test\r\nCloudbridge-Held: no\r\nContent-Length: 0\r\n\r\n",
        );
        stream.write_all(b"HTTP/1.1 200 OK\r\nCloudbridge-Undelivered: x\r\nContent-").unwrap();
        stream.write_all(b"Length: 2\r\n\r\nh").unwrap();
        assert!(!reading.is_finished());
        stream.write_all(b"i").unwrap();
        let (_other, head) = reading.join().unwrap();
        let passed = "POST /held HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(head, passed);
        expect(&mut bridge, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        two.end();
    });
}
