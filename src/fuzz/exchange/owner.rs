//! An owner of one exchange, which drives the event loop as the script says.

use std::io;
use std::net::TcpStream;
use std::time::Instant;

use mio::Poll;

use super::checks::{Log, Try};
use super::circumstances::{CLIENT, Circumstances};
use super::peer::{DEADLINE, Peer, connect, size};
use crate::bridge::request::SWITCH;
use crate::exchange::{
    Action, CloseMode, Ended, Exchange, Exchanges, Opening, RequestMeta, Reuse, Running, Start,
};
use crate::net::event_loop::{self, EventLoop, Handler, LingerTimeouts, NextTurn};
use crate::net::tls::TlsError;

/// Turns in which the peers read what is left before they shut down.
const LAST_TURNS: u32 = 8;

/// How often the request is given to another backend.
const TRIES: usize = 3;

pub(super) struct Owner<'a> {
    circumstances: Circumstances,
    meta: RequestMeta,
    conns: EventLoop<()>,
    exchanges: Exchanges<()>,
    /// The exchange's key, while it is under way.
    running: Option<usize>,
    requester: usize,
    client: Peer<'a>,
    /// What every backend would send.
    answer: &'a [u8],
    tries: Vec<Try<'a>>,
    script: std::slice::Iter<'a, u8>,
    last_turns: u32,
    deadline: Instant,
    /// What the requester's input held when the exchange ended and its connection was kept.
    left: Option<Vec<u8>>,
}

impl<'a> Owner<'a> {
    /// With a client that has sent its head, and some of what follows it if the script begins with
    /// that. `None` if there are no descriptors.
    pub fn new(
        circumstances: Circumstances,
        meta: RequestMeta,
        script: &'a [u8],
        client: &'a [u8],
        answer: &'a [u8],
    ) -> Option<Owner<'a>> {
        let linger = LingerTimeouts { flush: DEADLINE, fin: DEADLINE };
        let mut conns = EventLoop::new(Poll::new().ok()?, Instant::now(), linger);
        let (mut client, ours) = connect(client, circumstances.small_buffers);
        let requester = insert(&mut conns, ours).ok()?;
        client.skip(meta.head);
        let (connection, ws) = conns.split(requester);
        connection.conn.input.push(&client.sent, &mut ws.pool);
        Some(Owner {
            circumstances,
            meta,
            conns,
            exchanges: Exchanges::default(),
            running: None,
            requester,
            client,
            answer,
            tries: Vec::new(),
            script: script.iter(),
            last_turns: LAST_TURNS,
            deadline: Instant::now() + 2 * DEADLINE,
            left: None,
        })
    }

    /// Runs the script to its end; returns what has passed.
    pub fn run(mut self) -> Log<'a> {
        self.begin();
        event_loop::run(&mut self).expect("the kernel polls");
        assert_eq!((self.exchanges.len(), self.conns.len()), (0, 0), "slots are not free");
        assert_eq!(self.conns.ws.pipes.lent(), 0, "pipes are still lent");
        Log { client: self.client, tries: self.tries, left: self.left }
    }

    /// Gives the request to a backend.
    fn begin(&mut self) {
        let kept = self.conns[self.requester].conn.input.bytes();
        assert!(kept.starts_with(&self.client.sent[..self.meta.head]), "the head is gone");
        let (backend, ours) = connect(self.answer, self.circumstances.small_buffers);
        let responder = insert(&mut self.conns, ours).expect("a socket");
        let Circumstances { reports, close_scope, fresh, probe, .. } = self.circumstances;
        self.tries.push(Try { backend, status: 0, tunnel: false, error: None });
        let exchange = self.exchanges.insert(Running {
            exchange: Exchange::new(self.meta, reports, close_scope),
            requester: self.conns[self.requester].token(),
            responder: self.conns[responder].token(),
            data: (),
        });
        self.running = Some(exchange);
        let opening = if fresh { Opening::Switch(SWITCH) } else { Opening::FromInput };
        let start = Start { opening, probe, notice: b"" };
        let config = &self.circumstances.config;
        let ended = self.exchanges.start(exchange, start, &mut self.conns, config);
        self.ended(ended);
    }

    fn ended(&mut self, ended: Option<Ended<()>>) {
        let running = match &ended {
            None => return,
            Some(Ended::Finished { running, .. } | Ended::Failed { running, .. }) => running,
        };
        self.running = None;
        assert_eq!(self.conns.ws.pipes.lent(), 0, "pipes are still lent");
        let responder = running.responder.key();
        let attempt = self.tries.last_mut().expect("it has begun");
        attempt.status = running.exchange.status();
        attempt.tunnel = running.exchange.is_tunnel();
        match ended {
            Some(Ended::Finished { running, requester, responder: reuse }) => {
                if matches!(requester, Reuse::Keep(_)) {
                    let input = &self.conns[self.requester].conn.input;
                    self.left = Some(input.bytes().to_vec());
                }
                if matches!(reuse, Reuse::Keep(_)) {
                    let conn = &self.conns[responder].conn;
                    assert!(conn.is_idle(), "a bridge is reused that holds bytes");
                }
                let mode = running.exchange.close_mode(&self.conns[self.requester].conn);
                self.close(responder, CloseMode::Now);
                self.close(self.requester, mode);
            }
            Some(Ended::Failed { error, .. }) => {
                let action = error.action();
                attempt.error = Some(error);
                self.close(responder, CloseMode::Now);
                match action {
                    Action::Retry if self.tries.len() < TRIES => self.begin(),
                    Action::Retry | Action::Answer(..) => {
                        self.close(self.requester, CloseMode::Linger);
                    }
                    Action::Close(mode) => self.close(self.requester, mode),
                }
            }
            None => {}
        }
    }

    /// As `proxy/closing.rs` does it.
    fn close(&mut self, key: usize, mode: CloseMode) {
        match mode {
            CloseMode::Now => self.conns.close(key, None),
            CloseMode::Reset => {
                self.conns[key].conn.reset_on_close();
                self.conns.close(key, None);
            }
            CloseMode::Linger => self.conns.linger(key, None),
        }
    }

    /// The next event of the script. False at its end.
    fn event(&mut self) -> bool {
        let Some(event) = self.script.next() else { return false };
        let client = &mut self.client;
        let backend = &mut self.tries.last_mut().expect("it has begun").backend;
        let mut number = || size(self.script.next().copied().unwrap_or(0));
        match event {
            b'r' => client.send(number()),
            b'R' => client.send_filler(1024 * number()),
            b'd' => drop(client.receive(256 * number())),
            b'f' => client.shut_down(),
            b'x' => client.close(),
            b'X' => client.reset(),
            b'a' => backend.send(number()),
            b'A' => backend.send_filler(1024 * number()),
            b'u' => drop(backend.receive(256 * number())),
            b'g' => backend.shut_down(),
            b'y' => backend.close(),
            b'Y' => backend.reset(),
            _ => return false,
        }
        true
    }
}

fn insert(conns: &mut EventLoop<()>, ours: TcpStream) -> io::Result<usize> {
    conns.insert(mio::net::TcpStream::from_std(ours), CLIENT, ())
}

impl Handler for Owner<'_> {
    type Role = ();
    type Lent = ();

    fn conns(&mut self) -> &mut EventLoop<()> {
        &mut self.conns
    }

    fn mail(&mut self) {}

    fn ready(&mut self, _: usize) {
        let Some(exchange) = self.running else { return };
        let config = &self.circumstances.config;
        let ended = self.exchanges.advance(exchange, &mut self.conns, config);
        self.ended(ended);
    }

    fn handshake_failed(&mut self, _: usize, error: TlsError) {
        panic!("nothing is encrypted: {error}");
    }

    fn timeout(&mut self, _: usize) {}

    fn end_of_turn(&mut self) {}

    fn next_turn(&mut self) -> NextTurn {
        while self.event() {}
        if self.script.len() > 0 {
            return NextTurn::Now;
        }
        let backends = self.tries.iter_mut().map(|attempt| &mut attempt.backend);
        let peers = std::iter::once(&mut self.client).chain(backends);
        let is_over = self.conns.is_empty() && self.running.is_none();
        for peer in peers {
            peer.receive_all();
            match self.last_turns {
                0 if is_over => peer.receive_to_end(),
                0 => peer.shut_down(),
                _ => {}
            }
        }
        if self.last_turns == 0 && is_over {
            return NextTurn::Stop;
        }
        self.last_turns = self.last_turns.saturating_sub(1);
        assert!(Instant::now() < self.deadline, "it does not end: {:?}", self.status());
        NextTurn::Now
    }
}

impl Owner<'_> {
    fn status(&self) -> (usize, usize, bool) {
        (self.tries.len(), self.conns.len(), self.running.is_some())
    }
}
