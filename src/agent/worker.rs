//! The agent's reactor: its tables, and one turn of its loop.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll};
use slab::Slab;

use super::application::Application;
use super::proxies::{Cluster, Proxy};
use super::resolve::{For, Found, Resolver};
use super::role::{Bridge, Line, Purpose, Request, Role, Slot, Stage};
use super::services::Reread;
use crate::config;
use crate::exchange::{self, Conns, ExchangeConfig, Exchanges, Start, Workspace};
use crate::http::{self, Forwarded, Limits};
use crate::net::conn::Conn;
use crate::net::mailbox::Mailbox;
use crate::net::sys::Signal;
use crate::net::timer::Timers;
use crate::net::token::{self, Token};

/// How many events one wait may bring: as many as there is work for in a millisecond.
const EVENTS: usize = 512;

/// The largest request, in bytes, that is kept until the application answers, so that it can be sent
/// again over a new line: the proxy's default for the same purpose.
const RETRY_LIMIT: usize = 16 * 1024;

/// From how many bytes still to come they are spliced: the proxy's default.
const SPLICE_THRESHOLD: u64 = 32 * 1024;

/// What the proxy may have added to a head of the greatest length that its settings allow.
const ADDED_BY_PROXY: usize = 4 * 1024;

/// What an exchange obeys here. The proxy has applied its own limits before, and may have been given
/// wider ones than its defaults, so these are the widest. What it says about the client is passed
/// on: `forwarded` is off.
const EXCHANGE_CONFIG: ExchangeConfig = ExchangeConfig {
    limits: Limits {
        head: config::MAX_HEAD + ADDED_BY_PROXY,
        fields: http::MAX_FIELDS,
        target: config::MAX_HEAD,
    },
    replay_limit: RETRY_LIMIT,
    splice_threshold: SPLICE_THRESHOLD,
    forwarded: Forwarded::Off,
    timeouts: None,
};

/// What other threads have to say.
pub(super) enum Mail {
    /// A name has been looked up.
    Found(For, Found),
    /// A signal has come.
    Signal(Signal),
}

/// Whether the agent goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// As usual.
    Serving,
    /// Nothing new is taken, and what is under way is finished, until this many milliseconds.
    Leaving { until: u64 },
    /// It is over, whatever is under way.
    Over,
}

/// How an agent ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It was told to leave, and has.
    Left,
    /// It was told twice, and has dropped what was under way.
    AtOnce,
}

pub(super) type Running = exchange::Running<Request>;
pub(super) type ExchangeEnded = exchange::Ended<Request>;

/// The tables that exchanges need.
pub(super) struct Lent<'a> {
    slots: &'a mut Slab<Slot>,
    runnable: &'a mut VecDeque<Token>,
    ws: &'a mut Workspace,
}

impl Conns for Lent<'_> {
    fn pair(&mut self, keys: [usize; 2]) -> Option<([&mut Conn; 2], &mut Workspace)> {
        let [one, other] = self.slots.get_disjoint_mut(keys).ok()?;
        Some(([&mut one.conn, &mut other.conn], self.ws))
    }

    fn workspace(&mut self) -> &mut Workspace {
        self.ws
    }

    fn set_deadline(&mut self, _: usize, _: Duration) {}

    fn requeue(&mut self, key: usize) {
        self.runnable.push_back(self.slots[key].token(key));
    }

    fn note_queue(&mut self, _: usize) -> bool {
        false
    }
}

/// The agent's one reactor.
pub(super) struct Agent {
    pub(super) applications: Vec<Application>,
    pub(super) proxies: Vec<Proxy>,
    pub(super) clusters: Vec<Cluster>,
    pub(super) slots: Slab<Slot>,
    pub(super) exchanges: Exchanges<Request>,
    /// An exchange in the table that is to be started.
    pub(super) unstarted: Option<(usize, Start)>,
    pub(super) timers: Timers,
    pub(super) ws: Workspace,
    pub(super) exchange_config: ExchangeConfig,
    pub(super) resolver: Resolver,
    pub(super) grace: Duration,
    /// Reads the files again.
    pub(super) reread: Reread,
    pub(super) life: Life,
    /// Applications of which a place has become free while somebody stood in the queue for one.
    pub(super) freed: Vec<usize>,
    poll: Poll,
    mailbox: Arc<Mailbox<Mail>>,
    runnable: VecDeque<Token>,
    started: Instant,
    /// Milliseconds since the start: read once per turn, and the same for everything in it.
    now: u64,
    /// When proxies and applications are to be looked after, in milliseconds.
    tend_at: u64,
    generation: u32,
    dying: Vec<usize>,
    due: Vec<usize>,
    mail: Vec<Mail>,
}

impl Agent {
    /// An agent that waits on `poll`, which wakes for mail in `mailbox`.
    pub fn new(
        poll: Poll,
        mailbox: Arc<Mailbox<Mail>>,
        resolver: Resolver,
        grace: Duration,
        reread: Reread,
    ) -> Agent {
        Agent {
            applications: Vec::new(),
            proxies: Vec::new(),
            clusters: Vec::new(),
            slots: Slab::new(),
            exchanges: Exchanges::default(),
            unstarted: None,
            timers: Timers::default(),
            ws: Workspace::default(),
            exchange_config: EXCHANGE_CONFIG,
            resolver,
            grace,
            reread,
            life: Life::Serving,
            freed: Vec::new(),
            poll,
            mailbox,
            runnable: VecDeque::new(),
            started: Instant::now(),
            now: 0,
            tend_at: 0,
            generation: 0,
            dying: Vec::new(),
            due: Vec::new(),
            mail: Vec::new(),
        }
    }

    /// Runs until it has been told to leave and is done.
    ///
    /// # Errors
    /// When the kernel refuses to say what has happened, which it has no reason to.
    pub fn run(mut self) -> io::Result<Ended> {
        let mut events = Events::with_capacity(EVENTS);
        while self.turn(&mut events)? {}
        Ok(if self.life == Life::Over { Ended::AtOnce } else { Ended::Left })
    }

    /// One turn. False when it was the last. What is closed anywhere in it is freed at its end.
    fn turn(&mut self, events: &mut Events) -> io::Result<bool> {
        self.wait(events)?;
        self.latch(events);
        self.read_mail();
        self.run_runnable();
        self.meet_deadlines();
        // After the work, which frees places and loses bridges, and before the wait.
        self.serve_queues();
        self.tend();
        self.free_dying();
        Ok(!self.is_over())
    }

    /// Waits for an event, a deadline or mail, and reads the clock, once for the whole turn.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let until = match self.life {
            Life::Leaving { until } => until.min(self.tend_at),
            Life::Serving | Life::Over => self.tend_at,
        };
        let tend = (until != u64::MAX).then(|| until.saturating_sub(self.now));
        let mut timeout = match (
            self.timers.until_next(crate::time::Millis(self.now)).map(|d| d.as_millis() as u64),
            tend,
        ) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        if !self.runnable.is_empty() || !self.freed.is_empty() {
            timeout = Some(0);
        }
        match self.poll.poll(events, timeout.map(Duration::from_millis)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        self.now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Remembers what the kernel has said, and makes runnable whom it concerns.
    fn latch(&mut self, events: &Events) {
        for event in events {
            let token = Token::from(event.token());
            if token != token::WAKER
                && let Some(slot) = self.slots.get_mut(token.key())
                && slot.generation == token.generation()
            {
                slot.conn.latch(event);
                self.runnable.push_back(token);
            }
        }
    }

    fn read_mail(&mut self) {
        let mut mail = std::mem::take(&mut self.mail);
        self.mailbox.empty(&mut mail);
        for item in mail.drain(..) {
            match item {
                Mail::Found(For::Proxy(proxy), found) => self.proxy_found(proxy, found),
                Mail::Found(For::Cluster(cluster), found) => self.cluster_found(cluster, found),
                Mail::Found(For::Application(app), found) => self.application_found(app, found),
                Mail::Signal(Signal::Terminate) => self.leave_all(),
                Mail::Signal(Signal::Reload) => self.reload(),
            }
        }
        self.mail = mail;
    }

    /// Lets everyone who can go on go on, once: whoever becomes runnable meanwhile has the next
    /// turn.
    fn run_runnable(&mut self) {
        for _ in 0..self.runnable.len() {
            if let Some(token) = self.runnable.pop_front()
                && self.is_live(token)
            {
                self.drive(token.key());
            }
        }
    }

    fn drive(&mut self, key: usize) {
        match self.slots[key].role {
            Role::Bridge(Bridge { stage, .. }) => match stage {
                Stage::Dialling { .. } => self.bridge_connects(key),
                Stage::Registering | Stage::Parked { .. } => self.listen(key),
                Stage::Matched(_) | Stage::Asking { .. } => self.watch_bridge(key),
                Stage::Ready { .. } | Stage::Idle(_) => self.read_request(key),
                Stage::Requesting { exchange } => self.advance(exchange),
            },
            Role::Line(Line { purpose, .. }) => match purpose {
                Purpose::Probe { .. } | Purpose::Dialled { .. } => self.line_connects(key),
                Purpose::Kept { .. } | Purpose::Idle => self.watch_line(key),
                Purpose::Responding { exchange, .. } => self.advance(exchange),
            },
            Role::Farewell(_) => self.go_on_with_farewell(key),
            Role::Leaving => self.see_off(key),
            Role::Closed => {}
        }
    }

    fn meet_deadlines(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.timers.expire(crate::time::Millis(self.now), &mut due);
        for key in due.drain(..) {
            match self.slots.get(key).map(|slot| slot.role) {
                Some(Role::Bridge(bridge)) => self.bridge_is_late(key, bridge.stage),
                Some(Role::Line(line)) => self.line_is_late(key, line),
                Some(Role::Farewell(_)) => self.farewell_is_late(key),
                Some(Role::Leaving) => self.close(key),
                Some(Role::Closed) | None => {}
            }
        }
        self.due = due;
    }

    /// Looks after proxies and applications, if that is due.
    fn tend(&mut self) {
        if self.now < self.tend_at {
            return;
        }
        self.tend_at = u64::MAX;
        if self.life == Life::Serving {
            self.tend_applications();
            self.tend_proxies();
        }
    }

    /// Has proxies and applications looked after at `at`, in milliseconds, if not before.
    pub(super) fn tend_by(&mut self, at: u64) {
        self.tend_at = self.tend_at.min(at);
    }

    /// Frees what has been closed; dropping a socket closes it, and with that the kernel forgets it.
    fn free_dying(&mut self) {
        while let Some(key) = self.dying.pop() {
            let mut slot = self.slots.remove(key);
            slot.conn.input.clear(&mut self.ws.pool);
            slot.conn.output.clear(&mut self.ws.pool);
        }
    }

    /// The exchanges, and what they need.
    pub(super) fn lend(&mut self) -> (&mut Exchanges<Request>, Lent<'_>, &ExchangeConfig) {
        let lent = Lent { slots: &mut self.slots, runnable: &mut self.runnable, ws: &mut self.ws };
        (&mut self.exchanges, lent, &self.exchange_config)
    }

    /// The time, in milliseconds since the start.
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// Whether new work is taken on.
    pub(super) fn is_serving(&self) -> bool {
        self.life == Life::Serving
    }

    /// Whether `token` names a connection that is in the tables and has not been closed.
    pub(super) fn is_live(&self, token: Token) -> bool {
        self.slots
            .get(token.key())
            .is_some_and(|slot| slot.generation == token.generation() && !slot.is_closed())
    }

    /// The stage of the bridge that `token` names, if it is one and lives.
    pub(super) fn stage(&self, token: Token) -> Option<Stage> {
        match self.slots.get(token.key()) {
            Some(&Slot { role: Role::Bridge(Bridge { stage, .. }), generation, .. })
                if generation == token.generation() =>
            {
                Some(stage)
            }
            _ => None,
        }
    }

    /// Brings the bridge in slot `key` to another stage.
    pub(super) fn set_stage(&mut self, key: usize, to: Stage) {
        if let Role::Bridge(Bridge { stage, .. }) = &mut self.slots[key].role {
            *stage = to;
        }
    }

    /// Takes a socket into the tables, with what it is.
    ///
    /// # Errors
    /// When the kernel does not want to watch it; then it is closed.
    pub(super) fn insert(&mut self, stream: TcpStream, role: Role) -> io::Result<Token> {
        self.generation = token::next_generation(self.generation);
        let entry = self.slots.vacant_entry();
        let token = Token::conn(entry.key(), self.generation);
        let mut conn = Conn::new(stream);
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(conn.source(), token.into(), both)?;
        entry.insert(Slot { conn, role, generation: self.generation });
        Ok(token)
    }

    /// Sets the deadline of `key` to `after` from now.
    pub(super) fn set_deadline(&mut self, key: usize, after: Duration) {
        self.timers.set(key, crate::time::Millis(self.now) + after);
    }

    /// Has `key` driven again, after the others.
    pub(super) fn again(&mut self, key: usize) {
        let token = self.slots[key].token(key);
        self.runnable.push_back(token);
    }

    /// Closes connection `key`, whatever it is; the slot is freed at the end of the turn. An
    /// exchange that it is part of must have been dissolved before.
    pub(super) fn close(&mut self, key: usize) {
        match self.set_role(key, Role::Closed) {
            Role::Closed => return,
            role => self.role_is_over(key, role),
        }
        self.timers.clear(key);
        self.dying.push(key);
    }

    /// Makes connection `key` something else; returns what it was.
    pub(super) fn set_role(&mut self, key: usize, role: Role) -> Role {
        std::mem::replace(&mut self.slots[key].role, role)
    }

    /// Takes a connection that was `role` out of the tables of that role.
    pub(super) fn role_is_over(&mut self, key: usize, role: Role) {
        match role {
            Role::Bridge(bridge) => self.bridge_is_gone(bridge),
            Role::Line(line) => self.line_is_gone(key, line),
            Role::Farewell(_) | Role::Leaving | Role::Closed => {}
        }
    }
}

impl Slot {
    fn is_closed(&self) -> bool {
        matches!(self.role, Role::Closed)
    }
}
