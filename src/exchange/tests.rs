//! Exchanges over real sockets and a poll, without an owner.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use super::error::has_ended;
use super::lent::Lent;
use super::state::Outcome;
use super::*;
use crate::http::rewrite::{Forwarded, ForwardedStyle};
use crate::http::{self, request};
use crate::net::conn::Conn;
use crate::net::event_loop::{EventLoop, LingerTimeouts};
use crate::net::sys;

mod places;

const DEADLINE: Duration = Duration::from_secs(10);

const CONFIG: ExchangeConfig = ExchangeConfig {
    limits: http::Limits { head: 16 * 1024, fields: 100, target: 8 * 1024, behind_proxy: false },
    replay_limit: 16 * 1024,
    response_buffer: 64 * 1024,
    hold_response: 16 * 1024,
    splice_threshold: 32 * 1024,
    budget: BUDGET,
    forwarded: Forwarded::Off,
    forwarded_style: ForwardedStyle::X,
    host: None,
    half_closed_silence: None,
    timeouts: None,
};

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\n\
    Upgrade: websocket\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: upgrade\r\n\r\n";

/// An exchange, its two connections, and their peers. A peer that is `None` has closed.
struct Fixture {
    exchange: Exchange,
    client: Option<TcpStream>,
    requester: Conn,
    responder: Conn,
    backend: Option<TcpStream>,
    ws: Workspace,
    poll: Poll,
}

/// A peer's socket and ours, connected.
fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    peer.set_write_timeout(Some(DEADLINE)).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    (peer, ours)
}

/// A peer, and our end of the connection to it.
fn connection(poll: &Poll, token: usize) -> (TcpStream, Conn) {
    let (peer, ours) = sockets();
    let mut conn = Conn::new(mio::net::TcpStream::from_std(ours));
    let both = Interest::READABLE | Interest::WRITABLE;
    poll.registry().register(conn.source(), Token(token), both).unwrap();
    (peer, conn)
}

impl Fixture {
    /// Starts an exchange with the request `head`, which the backend reads.
    fn start(head: &str) -> Fixture {
        Fixture::start_with(head, Opening::FromInput, |exchange| exchange)
    }

    /// The same with this `opening`, and an exchange that `change` has made of the usual one.
    fn start_with(
        head: &str,
        opening: Opening,
        change: impl FnOnce(Exchange) -> Exchange,
    ) -> Fixture {
        let mut storage = request::storage();
        let parsed = request::parse(head.as_bytes(), &mut storage, &CONFIG.limits);
        let request = parsed.unwrap().unwrap();
        let meta = RequestMeta::of(&request, IpAddr::V4(Ipv4Addr::LOCALHOST), &CONFIG);
        let exchange = Exchange::new(meta, DeliveryReports::Untrusted, CloseScope::Responder);
        let exchange = change(exchange);
        let poll = Poll::new().unwrap();
        let (client, mut requester) = connection(&poll, 0);
        let (mut backend, responder) = connection(&poll, 1);
        let mut ws = Workspace::default();
        requester.input.push(head.as_bytes(), &mut ws.pool);
        let (client, peer) = (Some(client), Some(backend.try_clone().unwrap()));
        let mut fixture =
            Fixture { exchange, client, requester, responder, backend: peer, ws, poll };
        let start = Start { opening, probe: true, notice: b"" };
        assert!(fixture.lend(|exchange, io| exchange.start(start, io)).is_ok());
        let mut received = Vec::new();
        while !received.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            backend.read_exact(&mut byte).unwrap();
            received.extend(byte);
        }
        fixture
    }

    /// A tunnel that has just been opened.
    fn tunnel() -> Fixture {
        let mut fixture = Fixture::start(UPGRADE);
        fixture.backend().write_all(SWITCHED.as_bytes()).unwrap();
        fixture.advance_until(|fixture| fixture.exchange.is_tunnel());
        let mut head = vec![0; SWITCHED.len()];
        fixture.client().read_exact(&mut head).unwrap();
        assert_eq!(String::from_utf8(head).unwrap(), SWITCHED);
        fixture
    }

    fn client(&mut self) -> &mut TcpStream {
        self.client.as_mut().unwrap()
    }

    fn backend(&mut self) -> &mut TcpStream {
        self.backend.as_mut().unwrap()
    }

    fn lend<T>(&mut self, what: impl FnOnce(&mut Exchange, &mut Lent<'_>) -> T) -> T {
        let Fixture { requester, responder, ws, .. } = self;
        what(&mut self.exchange, &mut Lent { requester, responder, ws, config: &CONFIG })
    }

    /// Latches what the kernel reports within a moment, and advances.
    fn advance(&mut self) -> Result<Outcome, ExchangeError> {
        let mut events = Events::with_capacity(8);
        self.poll.poll(&mut events, Some(Duration::from_millis(1))).unwrap();
        for event in &events {
            match event.token() {
                Token(0) => self.requester.latch(event),
                _ => self.responder.latch(event),
            }
        }
        self.lend(|exchange, io| exchange.advance(io).map_err(|failure| exchange.error(failure)))
    }

    /// Advances until `done`, which must come before the exchange ends.
    #[track_caller]
    fn advance_until(&mut self, mut done: impl FnMut(&mut Fixture) -> bool) {
        let began = Instant::now();
        while !done(self) {
            match self.advance() {
                Ok(Outcome::Wait { .. } | Outcome::Busy { .. }) => {}
                Ok(Outcome::Finished(_)) => panic!("finished too early"),
                Err(error) => panic!("failed too early: {error}"),
            }
            assert!(began.elapsed() < DEADLINE, "it does not come");
        }
    }

    /// Advances until the exchange fails, and does `meanwhile` after each step.
    #[track_caller]
    fn advance_to_error(&mut self, mut meanwhile: impl FnMut(&mut Fixture)) -> ExchangeError {
        let began = Instant::now();
        loop {
            match self.advance() {
                Ok(Outcome::Wait { .. } | Outcome::Busy { .. }) => meanwhile(self),
                Ok(Outcome::Finished(_)) => panic!("finished instead"),
                Err(error) => return error,
            }
            assert!(began.elapsed() < DEADLINE, "nothing fails");
        }
    }

    /// Whether something has been read for the client that it does not take.
    fn is_client_slow(&mut self) -> bool {
        let slow = self.lend(|exchange, io| exchange.slow_side(io));
        slow == Some(Side::Requester)
    }
}

/// Closes a peer's socket with a reset.
fn reset(peer: Option<TcpStream>) {
    Conn::new(mio::net::TcpStream::from_std(peer.unwrap())).reset_on_close();
}

/// Reads what is there, without waiting; returns how many bytes that was.
fn read_some(stream: &mut TcpStream) -> usize {
    stream.set_nonblocking(true).unwrap();
    stream.read(&mut vec![0; 256 * 1024]).unwrap_or(0)
}

#[test]
fn backend_that_closed_its_tunnel_is_blamed_when_the_client_sends_more() {
    let mut fixture = Fixture::tunnel();
    fixture.backend().write_all(b"last words").unwrap();
    fixture.backend = None;
    fixture.advance_until(|fixture| fixture.requester.is_shut());
    let mut received = [0; 10];
    fixture.client().read_exact(&mut received).unwrap();
    assert_eq!(&received, b"last words");
    let error = fixture.advance_to_error(|fixture| {
        fixture.client().write_all(b"ping").unwrap();
    });
    assert_eq!((error.side, error.progress), (Side::Responder, Progress::Tunnel));
    assert!(matches!(&error.cause, Cause::Lost(error) if has_ended(error)), "{error}");
    assert_eq!(error.action(), Action::Close(CloseMode::Linger));
    assert_eq!(error.level(), log::Level::Debug);
}

#[test]
fn backend_that_resets_its_tunnel_is_blamed() {
    let mut fixture = Fixture::tunnel();
    reset(fixture.backend.take());
    let error = fixture.advance_to_error(|_| {});
    assert_eq!((error.side, error.progress), (Side::Responder, Progress::Tunnel));
}

#[test]
fn client_that_resets_its_tunnel_is_blamed() {
    let mut fixture = Fixture::tunnel();
    reset(fixture.client.take());
    let error = fixture.advance_to_error(|_| {});
    assert_eq!((error.side, error.progress), (Side::Requester, Progress::Tunnel));
    assert_eq!(error.action(), Action::Close(CloseMode::Now));
}

#[test]
fn client_that_closed_its_tunnel_is_blamed_when_the_backend_sends_more() {
    let mut fixture = Fixture::tunnel();
    fixture.client().write_all(b"last words").unwrap();
    fixture.client = None;
    fixture.advance_until(|fixture| fixture.responder.is_shut());
    let mut received = [0; 10];
    fixture.backend().read_exact(&mut received).unwrap();
    assert_eq!(&received, b"last words");
    let error = fixture.advance_to_error(|fixture| {
        fixture.backend().write_all(b"ping").unwrap();
    });
    assert_eq!((error.side, error.progress), (Side::Requester, Progress::Tunnel));
}

#[test]
fn slow_client_gets_everything_that_a_backend_sent_before_it_broke_the_tunnel() {
    let mut fixture = Fixture::tunnel();
    let mut sent = 0;
    fixture.advance_until(|fixture| {
        if sys::send_queue(fixture.backend()).unwrap() == 0 && !fixture.is_client_slow() {
            fixture.backend().write_all(&[7; 64 * 1024]).unwrap();
            sent += 64 * 1024;
        }
        fixture.is_client_slow() && sys::send_queue(fixture.backend()).unwrap() == 0
    });
    fixture.backend = None;
    fixture.advance_until(|fixture| {
        fixture.client().write_all(b"ping").unwrap();
        fixture.lend(|exchange, _| {
            matches!(&exchange.phase, phase::Phase::Tunnel(tunnel) if tunnel.is_draining())
        })
    });
    assert!(fixture.is_client_slow());
    let mut received = 0;
    let error = fixture.advance_to_error(|fixture| received += read_some(fixture.client()));
    assert_eq!((error.side, error.progress), (Side::Responder, Progress::Tunnel));
    let began = Instant::now();
    while received < sent {
        let _ = fixture.requester.flush(&mut fixture.ws.pool).unwrap();
        received += read_some(fixture.client());
        assert!(began.elapsed() < DEADLINE, "{received} of {sent} bytes");
    }
    assert_eq!(fixture.ws.pipes.lent(), 0);
}

#[test]
fn a_tunnel_that_rests_passes_on_what_it_has_and_can_go_on_as_another() {
    let mut fixture = Fixture::tunnel();
    fixture.backend().set_nonblocking(true).unwrap();
    let mut sent = 0;
    // The client reads nothing.
    fixture.advance_until(|fixture| {
        sent += fixture.backend().write(&[7; 256 * 1024]).unwrap_or(0);
        fixture.is_client_slow()
    });
    let at_rest =
        |fixture: &Fixture| fixture.exchange.ends_at_rest(&fixture.requester, &fixture.responder);
    assert_eq!(at_rest(&fixture), None);
    fixture.exchange.set_rests(true);
    let mut received = 0;
    fixture.advance_until(|fixture| {
        received += read_some(fixture.client());
        at_rest(fixture).is_some()
    });
    assert_eq!((at_rest(&fixture), fixture.ws.pipes.lent()), (Some([false; 2]), 0));
    let passed = fixture.exchange.traffic();
    fixture.exchange = Exchange::resumed(IpAddr::V4(Ipv4Addr::LOCALHOST), passed, &CONFIG);
    fixture.responder.expect_input();
    fixture.advance_until(|fixture| {
        received += read_some(fixture.client());
        received == sent
    });
    let after = fixture.exchange.traffic();
    assert_eq!(after, Traffic { body: sent as u64, ..passed });
    fixture.client().shutdown(std::net::Shutdown::Write).unwrap();
    fixture.advance_until(|fixture| fixture.responder.is_shut());
    assert_eq!(at_rest(&fixture), Some([true, false]));
}

#[test]
fn upload_cut_by_a_reset_returns_its_pipe() {
    let head = "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000000\r\n\r\n";
    let mut fixture = Fixture::start(head);
    fixture.client().set_nonblocking(true).unwrap();
    // The backend reads nothing: in the end the pipe holds what its socket does not take.
    fixture.advance_until(|fixture| {
        let _ = fixture.client().write(&[7; 256 * 1024]);
        fixture.ws.pipes.lent() > 0
    });
    reset(fixture.backend.take());
    let error = fixture.advance_to_error(|_| {});
    assert_eq!(error.side, Side::Responder);
    assert_eq!(fixture.ws.pipes.lent(), 0);
}

/// A table with one exchange in it, in an event loop.
struct Table {
    exchanges: Exchanges<()>,
    conns: EventLoop<()>,
    key: usize,
    beginning: Option<Beginning>,
    client: TcpStream,
    backend: TcpStream,
}

const TABLE_CONFIG: ExchangeConfig = ExchangeConfig {
    timeouts: Some(Timeouts {
        ack: Duration::from_secs(1),
        response: Duration::from_secs(2),
        body: Duration::from_secs(3),
        stream: Duration::from_secs(5),
        tunnel: Duration::from_secs(4),
    }),
    ..CONFIG
};

impl Table {
    /// With a request that begins with `input`, prepared but not started.
    fn new(input: &str) -> Table {
        let linger = LingerTimeouts { flush: DEADLINE, fin: DEADLINE };
        let mut conns = EventLoop::new(Poll::new().unwrap(), Instant::now(), linger);
        let mut insert = |(peer, ours): (TcpStream, TcpStream)| {
            let ours = mio::net::TcpStream::from_std(ours);
            let key = conns.insert(ours, IpAddr::V4(Ipv4Addr::LOCALHOST), ()).unwrap();
            (peer, key)
        };
        let (client, requester) = insert(sockets());
        let (backend, responder) = insert(sockets());
        let mut storage = request::storage();
        let parsed = request::parse(input.as_bytes(), &mut storage, &CONFIG.limits);
        let request = parsed.unwrap().unwrap();
        let meta = RequestMeta::of(&request, IpAddr::V4(Ipv4Addr::LOCALHOST), &CONFIG);
        let beginning = Beginning::of(&request, input.as_bytes()).unwrap();
        let out = &mut conns.ws.out;
        beginning.prepare(&request, input.as_bytes(), &meta, false, None, out);
        let (connection, ws) = conns.split(requester);
        connection.conn.input.push(input.as_bytes(), &mut ws.pool);
        let mut exchanges = Exchanges::default();
        let key = exchanges.insert(Running {
            exchange: Exchange::new(meta, DeliveryReports::Untrusted, CloseScope::Responder),
            requester: conns[requester].token(),
            responder: conns[responder].token(),
            data: (),
        });
        Table { exchanges, conns, key, beginning: Some(beginning), client, backend }
    }

    fn start(&mut self, probe: bool) -> Option<Ended<()>> {
        let opening = Opening::Prepared(self.beginning.take().unwrap());
        let start = Start { opening, probe, notice: b"" };
        self.exchanges.start(self.key, start, &mut self.conns, &TABLE_CONFIG)
    }

    /// Advances until the exchange has ended.
    fn advance_to_end(&mut self) -> Ended<()> {
        let responder = self.exchanges.get_mut(self.key).responder.key();
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < DEADLINE, "it does not end");
            self.conns[responder].conn.expect_input();
            let ended = self.exchanges.advance(self.key, &mut self.conns, &TABLE_CONFIG);
            if let Some(ended) = ended {
                assert_eq!(self.exchanges.len(), 0);
                return ended;
            }
            std::thread::yield_now();
        }
    }
}

#[track_caller]
fn expect(stream: &mut TcpStream, bytes: &str) {
    let mut received = vec![0; bytes.len()];
    stream.read_exact(&mut received).unwrap();
    assert_eq!(String::from_utf8(received).unwrap(), bytes);
}

#[test]
fn prepared_request_is_sent_answered_and_leaves_both_connections_reusable() {
    let mut table = Table::new("GET /a HTTP/1.1\r\nHost: a.test\r\nX: y\r\n\r\nGET /next");
    assert!(table.start(true).is_none());
    expect(&mut table.backend, "GET /a HTTP/1.1\r\nHost: a.test\r\nX: y\r\n\r\n");
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    table.backend.write_all(response.as_bytes()).unwrap();
    let Ended::Finished { running, requester, responder } = table.advance_to_end() else {
        panic!("it has failed");
    };
    assert_eq!((requester, responder), (Reuse::Keep(None), Reuse::Keep(None)));
    assert_eq!((running.exchange.status(), running.exchange.response_bytes()), (200, 2));
    expect(&mut table.client, response);
    let input = table.conns[running.requester.key()].conn.input.bytes();
    assert_eq!(input, b"GET /next");
}

#[test]
fn request_that_cannot_be_repeated_is_not_sent_over_a_connection_that_has_closed() {
    let mut table = Table::new("POST / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    table.backend.shutdown(std::net::Shutdown::Both).unwrap();
    let began = Instant::now();
    let responder = table.exchanges.get_mut(table.key).responder.key();
    while table.conns[responder].conn.probe_idle() {
        assert!(began.elapsed() < DEADLINE, "the FIN does not come");
    }
    let Some(Ended::Failed { running, error }) = table.start(true) else {
        panic!("it was sent");
    };
    assert_eq!((error.side, error.progress), (Side::Responder, Progress::Nothing));
    assert_eq!(error.action(), Action::Retry);
    assert!(running.exchange.is_responder_untouched());
    assert_eq!(table.exchanges.len(), 0);
}

#[test]
fn notice_reaches_the_requester_before_the_responder_gets_the_request() {
    let mut table = Table::new("POST / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let opening = Opening::Prepared(table.beginning.take().unwrap());
    let start = Start { opening, probe: false, notice: b"notice" };
    let ended = table.exchanges.start(table.key, start, &mut table.conns, &TABLE_CONFIG);
    assert!(ended.is_none());
    expect(&mut table.client, "notice");
    expect(&mut table.backend, "POST / HTTP/1.1\r\nHost: a.test\r\n\r\n");
}

#[test]
fn timeout_names_what_did_not_come() {
    let mut table = Table::new("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert!(table.start(true).is_none());
    let ended = table.exchanges.timed_out(table.key, &mut table.conns, &TABLE_CONFIG);
    let Some(Ended::Failed { error, .. }) = ended else { panic!("it goes on") };
    assert!(matches!(error.cause, Cause::ResponseTimeout));
    assert_eq!(error.action(), Action::Answer(Answer::Timeout));
}

/// The error of a POST over a connection whose `backend` does something before and after it is sent.
fn failed_post(
    before: impl FnOnce(&mut TcpStream),
    after: impl FnOnce(&TcpStream),
) -> ExchangeError {
    let mut table = Table::new("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi");
    before(&mut table.backend);
    assert!(table.start(false).is_none(), "it had been noticed");
    after(&table.backend);
    // What is left of it closes.
    table.backend = sockets().0;
    match table.advance_to_end() {
        Ended::Failed { error, .. } => error,
        Ended::Finished { .. } => panic!("it was answered"),
    }
}

#[test]
fn a_post_that_crosses_the_close_of_its_connection_is_sent_again() {
    // The socket itself closes: dropping a handle is not enough while there is another.
    let error = failed_post(|backend| *backend = sockets().0, |_| {});
    assert_eq!((error.side, error.progress), (Side::Responder, Progress::Unread));
    assert_eq!((error.action(), error.seen_by()), (Action::Retry, SeenBy::Responder));
}

#[test]
fn a_post_that_has_reached_the_other_kernel_is_not() {
    let read = |backend: &TcpStream| {
        expect(&mut backend.try_clone().unwrap(), "POST / HTTP/1.1\r\nHost: a.test\r\n");
        let mut rest = Vec::new();
        backend.set_nonblocking(true).unwrap();
        let _ = (&*backend).read_to_end(&mut rest);
    };
    let peek = |backend: &TcpStream| _ = backend.peek(&mut [0]).unwrap();
    let half = |backend: &mut TcpStream| backend.shutdown(std::net::Shutdown::Write).unwrap();
    let readings = [
        // Read, and closed with a FIN; received only, and closed with a reset; received after a FIN.
        failed_post(|_| {}, read),
        failed_post(|_| {}, peek),
        failed_post(half, peek),
    ];
    for error in readings {
        assert_eq!((error.side, error.progress), (Side::Responder, Progress::Sent), "{error}");
        assert_eq!(error.action(), Action::Answer(Answer::Closed));
    }
}
