//! The event loop of proxy and agent: one poll, its connections and their deadlines.
//!
//! [`run`] is one turn after another. A turn: wait; latch what the kernel reports; read mail; run
//! each ready connection once; run deadlines; end of turn. A connection that is closed anywhere in
//! a turn keeps its slot until the end of it, when nothing holds its key any more.
//!
//! What a connection means is the owner's business: it is a *role*, one value of the owner's type
//! `R`. The loop knows four states:
//!
//! ```text
//!     insert ──> Active(role) ──take──> Detached ──set──> Active(role)
//!                    │                                        │
//!                    ├── linger ──> Lingering ──peer closes──> Closed ──end of turn──> freed
//!                    ├── close ──────────────────────────────> Closed
//!                    └── lend ──> Lent ──restore──> Active, or another loop adopts it
//! ```
//!
//! `Detached` never outlasts one call of the owner. Lingering is the same for all owners, so the
//! loop does it; so are the handshakes of TLS, which come before an active connection's first
//! [`Handler::ready`].

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Index, IndexMut};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry};
use slab::Slab;

use super::conn::{Conn, LingerStep};
use super::sys;
use super::timer::Timers;
use super::tls::TlsError;
use super::token::{self, Token};
use super::window::{self, ClosedWindow, LOOKS};
use super::workspace::Workspace;
use crate::time::{Micros, Millis};

#[cfg(test)]
mod tests;

/// Most events of one wait: about a millisecond's work for a busy worker.
const EVENTS: usize = 512;

/// How many discarding reads a lingering connection may make per turn.
const DISCARDS: usize = 16;

/// How often a loop that is busy finds out how late its turns come.
const BEAT: Duration = Duration::from_millis(100);

/// In how many steps all connections are looked at (see `window.rs`), so that a turn is short.
const LOOK_SLICES: u32 = 8;

/// The owner of an event loop: what it does with events.
pub trait Handler {
    /// What a connection means to the owner.
    type Role;
    /// What the owner knows of a connection that is lent; `()` if none ever is.
    type Lent;

    /// The loop itself.
    fn conns(&mut self) -> &mut EventLoop<Self::Role, Self::Lent>;

    /// A listener has connections waiting.
    fn listener_ready(&mut self, _index: usize) {}

    /// The kernel reports something about a connection that is lent (see [`EventLoop::lend`]).
    fn lent_ready(&mut self, _key: usize, _event: &Event) {}

    /// Reads the mail of other threads. Called once per turn, after the events.
    fn mail(&mut self);

    /// Connection `key` is active and can make progress.
    fn ready(&mut self, key: usize);

    /// The TLS handshake of connection `key` is done, and [`Handler::ready`] comes next.
    fn handshake_done(&mut self, _key: usize) {}

    /// The kernel encrypts connection `key` from now on (see `ktls.rs`); [`Handler::ready`] comes next.
    fn offloaded(&mut self, _key: usize) {}

    /// The TLS handshake of connection `key` has failed, or its deadline has passed meanwhile. The
    /// connection is active, and good for nothing any more.
    fn handshake_failed(&mut self, key: usize, error: TlsError);

    /// The deadline of connection `key` has passed; it is active or lent.
    fn timeout(&mut self, key: usize);

    /// The work of the turn is done. Closed connections are freed after this.
    fn end_of_turn(&mut self);

    /// A closed connection has left the tables. Dropping it closes the socket.
    fn freed(&mut self, connection: Box<Connection<Self::Role>>) {
        drop(connection);
    }

    /// What follows this turn.
    fn next_turn(&mut self) -> NextTurn;
}

/// What follows a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NextTurn {
    /// Another one: when an event, mail or a deadline comes, and at this time at the latest.
    Wait(Millis),
    /// Another one at once.
    Now,
    /// None.
    Stop,
}

impl NextTurn {
    /// A time that never comes.
    pub const NEVER: Millis = Millis(u64::MAX);
}

/// How long a lingering connection is given.
#[derive(Clone, Copy, Debug)]
pub struct LingerTimeouts {
    /// For the peer to take some of our last bytes.
    pub flush: Duration,
    /// For the peer to close after our FIN: it may still be sending a body that was refused.
    pub fin: Duration,
}

/// A connection and its role.
pub struct Connection<R> {
    /// Declared before `state`: dropping closes the socket before the role gives back what it
    /// holds.
    pub conn: Conn,
    state: State<R>,
    /// The peer's address: the one that a proxy in front has announced, if it did.
    pub peer: IpAddr,
    /// The address of the socket's peer, if `peer` is another.
    announced_by: Option<IpAddr>,
    /// The port of the socket's peer; 0 if the owner has not set it, or the socket has none.
    pub port: u16,
    token: Token,
    /// Another process may have a copy of the socket.
    is_shared: bool,
    /// How many bytes the kernel held for the peer when it was last found to be slow.
    queue_seen: usize,
    closed_window: Option<Box<ClosedWindow>>,
}

/// An address and a port that are shown as `address:port`; a port of 0 is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address(pub IpAddr, pub u16);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Address(address, 0) => address.fmt(f),
            Address(address, port) => SocketAddr::new(address, port).fmt(f),
        }
    }
}

/// A lingering or closed connection keeps its last role, unless the owner has taken it: what the
/// role holds, such as a permit, is given back when the socket is closed.
enum State<R> {
    Active(R),
    Detached,
    Lingering(Option<R>),
    Closed(Option<R>),
}

enum Slot<R, L> {
    Here(Box<Connection<R>>),
    /// The owner has it, or another loop.
    Lent {
        token: Token,
        lent: Option<L>,
    },
}

impl<R, L> Slot<R, L> {
    fn token(&self) -> Token {
        match self {
            Slot::Here(connection) => connection.token,
            Slot::Lent { token, .. } => *token,
        }
    }
}

impl<R> Connection<R> {
    /// The peer says that it speaks for `client`, whose address is the peer's from now on.
    pub fn announce(&mut self, client: IpAddr) {
        self.announced_by = Some(self.socket_peer());
        self.peer = client;
    }

    /// The address of the socket's peer.
    #[must_use]
    pub fn socket_peer(&self) -> IpAddr {
        self.announced_by.unwrap_or(self.peer)
    }

    /// The peer's address, and its port if that is known, for the log.
    #[must_use]
    pub fn address(&self) -> Address {
        Address(self.peer, if self.announced_by.is_some() { 0 } else { self.port })
    }

    /// Says whether another process may have a copy of the socket. If so the connection is ended
    /// before the socket is closed: a close alone would not end it.
    pub fn set_shared(&mut self, is_shared: bool) {
        self.is_shared = is_shared;
    }

    /// Names the connection in its loop.
    #[must_use]
    pub fn token(&self) -> Token {
        self.token
    }

    /// The role, if the connection is active.
    #[must_use]
    pub fn role(&self) -> Option<&R> {
        match &self.state {
            State::Active(role) => Some(role),
            State::Detached | State::Lingering(_) | State::Closed(_) => None,
        }
    }

    /// The role, if the connection is active.
    pub fn role_mut(&mut self) -> Option<&mut R> {
        match &mut self.state {
            State::Active(role) => Some(role),
            State::Detached | State::Lingering(_) | State::Closed(_) => None,
        }
    }

    /// The last role, whatever the state; `None` while it is detached.
    #[must_use]
    pub fn last_role(&self) -> Option<&R> {
        match &self.state {
            State::Active(role) => Some(role),
            State::Lingering(role) | State::Closed(role) => role.as_ref(),
            State::Detached => None,
        }
    }

    /// Notes how much the kernel holds for a slow peer. True if the peer has taken some of it since
    /// the last call.
    pub fn note_queue(&mut self) -> bool {
        let now = self.conn.send_queue();
        std::mem::replace(&mut self.queue_seen, now) > now
    }

    fn reset_if_cut_off(&mut self) {
        if !self.conn.output.is_empty() {
            self.conn.reset_on_close();
        }
    }
}

impl<R> Drop for Connection<R> {
    fn drop(&mut self) {
        if self.is_shared {
            sys::end_for_all(&self.conn.as_fd());
        }
    }
}

/// One poll with its connections.
pub struct EventLoop<R, L = ()> {
    poll: Poll,
    slots: Slab<Slot<R, L>>,
    timers: Timers,
    ready: VecDeque<Token>,
    closed: Vec<usize>,
    generation: u32,
    started: Instant,
    now: Micros,
    stale_events: u64,
    /// When the next turn of a busy loop should come at the latest.
    beat: Micros,
    /// The same, rounded up.
    beat_at: Millis,
    /// There have been events since the last beat.
    is_busy: bool,
    lag: Option<Duration>,
    next_look: Millis,
    look_from: usize,
    /// TCP_USER_TIMEOUT of the connections; zero for none.
    pub user_timeout: Duration,
    /// How long lingering connections are given.
    pub linger_timeouts: LingerTimeouts,
    /// Lent to the call in progress.
    pub ws: Workspace,
}

impl<R, L> EventLoop<R, L> {
    /// A loop that waits on `poll`, with a clock that started at `started`.
    #[must_use]
    pub fn new(poll: Poll, started: Instant, linger_timeouts: LingerTimeouts) -> EventLoop<R, L> {
        EventLoop {
            poll,
            slots: Slab::new(),
            timers: Timers::default(),
            ready: VecDeque::new(),
            closed: Vec::new(),
            generation: 0,
            started,
            now: Micros(0),
            stale_events: 0,
            beat: Micros(0),
            beat_at: Millis(0),
            is_busy: false,
            lag: None,
            next_look: Millis(0),
            look_from: 0,
            user_timeout: Duration::ZERO,
            linger_timeouts,
            ws: Workspace::default(),
        }
    }

    /// The time, read once per turn.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.now
    }

    /// The poll's registry, for listeners.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Events so far that were about connections already gone.
    #[must_use]
    pub fn stale_events(&self) -> u64 {
        self.stale_events
    }

    /// How late the turn came that was due at the last beat, if one was. A busy loop has ten beats a
    /// second; an idle one has none, so that it sleeps.
    pub fn take_lag(&mut self) -> Option<Duration> {
        self.lag.take()
    }

    /// Notes how late this turn comes. The clock is not read for it.
    fn beat(&mut self, had_events: bool) {
        if self.now >= self.beat {
            self.lag = self.is_busy.then(|| self.now.since(self.beat));
            self.is_busy = false;
            self.beat = self.now + BEAT;
            self.beat_at = Millis(self.beat.0.div_ceil(1000));
        }
        self.is_busy |= had_events;
    }

    /// How many connections there are, lent ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// One more than the highest key used so far.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// Watches a socket, and gives it a role.
    ///
    /// # Errors
    /// When the kernel cannot watch it; then it is closed.
    pub fn insert(&mut self, stream: TcpStream, peer: IpAddr, role: R) -> io::Result<usize> {
        self.adopt(Box::new(Connection {
            conn: Conn::new(stream),
            state: State::Active(role),
            peer,
            announced_by: None,
            port: 0,
            token: token::WAKER,
            is_shared: false,
            queue_seen: 0,
            closed_window: None,
        }))
        .map_err(|(error, _)| error)
    }

    /// Watches a connection that comes from another loop.
    ///
    /// # Errors
    /// When the kernel cannot watch it: the reason, and the connection.
    pub fn adopt(
        &mut self,
        mut connection: Box<Connection<R>>,
    ) -> Result<usize, (io::Error, Box<Connection<R>>)> {
        self.generation = token::next_generation(self.generation);
        let entry = self.slots.vacant_entry();
        let key = entry.key();
        connection.token = Token::conn(key, self.generation);
        let interests = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        let token = connection.token.into();
        match self.poll.registry().register(connection.conn.source(), token, interests) {
            Ok(()) => {
                entry.insert(Slot::Here(connection));
                Ok(key)
            }
            Err(error) => Err((error, connection)),
        }
    }

    /// Takes an active connection out of the loop without closing it.
    ///
    /// # Errors
    /// When the kernel cannot deregister it; then it stays.
    pub fn remove(&mut self, key: usize) -> io::Result<Box<Connection<R>>> {
        let Some(Slot::Here(connection)) = self.slots.get_mut(key) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        self.poll.registry().deregister(connection.conn.source())?;
        self.timers.clear(key);
        match self.slots.remove(key) {
            Slot::Here(connection) => Ok(connection),
            Slot::Lent { .. } => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Takes a connection out of its slot, so that any loop can match it. It stays registered here
    /// under its token, and keeps its deadline.
    ///
    /// # Panics
    /// When it is lent already.
    pub fn lend(&mut self, key: usize) -> Box<Connection<R>> {
        let token = self.slots[key].token();
        match std::mem::replace(&mut self.slots[key], Slot::Lent { token, lent: None }) {
            Slot::Here(connection) => connection,
            Slot::Lent { .. } => panic!("a connection was lent twice"),
        }
    }

    /// Notes where a connection is that has been lent.
    pub fn set_lent(&mut self, key: usize, to: L) {
        if let Some(Slot::Lent { lent, .. }) = self.slots.get_mut(key) {
            *lent = Some(to);
        }
    }

    /// The token of a connection that is lent, and where it is.
    #[must_use]
    pub fn lent(&self, key: usize) -> Option<(Token, &L)> {
        match self.slots.get(key) {
            Some(Slot::Lent { token, lent }) => lent.as_ref().map(|lent| (*token, lent)),
            _ => None,
        }
    }

    /// The keys of the connections that are lent.
    #[must_use]
    pub fn lent_keys(&self) -> Vec<usize> {
        let lent = |slot: &Slot<R, L>| matches!(slot, Slot::Lent { .. });
        self.slots.iter().filter(|(_, slot)| lent(slot)).map(|(key, _)| key).collect()
    }

    /// Puts a lent connection back into its slot. Returns its key.
    pub fn restore(&mut self, connection: Box<Connection<R>>) -> usize {
        let key = connection.token.key();
        debug_assert_eq!(self.slots[key].token(), connection.token);
        self.slots[key] = Slot::Here(connection);
        key
    }

    /// Frees the slot of a lent connection that another loop has adopted.
    pub fn vacate(&mut self, token: Token) {
        if let Some(Slot::Lent { token: here, .. }) = self.slots.get(token.key())
            && *here == token
        {
            self.timers.clear(token.key());
            self.slots.remove(token.key());
        }
    }

    /// The key of a connection that is here and not closed.
    #[must_use]
    pub fn find(&self, token: Token) -> Option<usize> {
        match self.slots.get(token.key()) {
            Some(Slot::Here(connection))
                if connection.token == token && !matches!(connection.state, State::Closed(_)) =>
            {
                Some(token.key())
            }
            _ => None,
        }
    }

    /// The role of a connection that is here and active.
    #[must_use]
    pub fn role(&self, key: usize) -> Option<&R> {
        match self.slots.get(key) {
            Some(Slot::Here(connection)) => connection.role(),
            _ => None,
        }
    }

    /// As [`EventLoop::role`], mutable.
    pub fn role_mut(&mut self, key: usize) -> Option<&mut R> {
        match self.slots.get_mut(key) {
            Some(Slot::Here(connection)) => connection.role_mut(),
            _ => None,
        }
    }

    /// Takes the role out, to give the connection another or to end it.
    pub fn take(&mut self, key: usize) -> Option<R> {
        let connection = &mut self[key];
        match std::mem::replace(&mut connection.state, State::Detached) {
            State::Active(role) => Some(role),
            other => {
                connection.state = other;
                None
            }
        }
    }

    /// Changes the role of an active connection in place.
    pub fn change(&mut self, key: usize, change: impl FnOnce(R) -> R) {
        let state = &mut self[key].state;
        *state = match std::mem::replace(state, State::Detached) {
            State::Active(role) => State::Active(change(role)),
            other => other,
        };
    }

    /// Gives a detached connection its role, or an active one another; returns the old one.
    pub fn set(&mut self, key: usize, role: R) -> Option<R> {
        match std::mem::replace(&mut self[key].state, State::Active(role)) {
            State::Active(old) => Some(old),
            State::Lingering(old) | State::Closed(old) => old,
            State::Detached => None,
        }
    }

    /// A connection and the workspace.
    pub fn split(&mut self, key: usize) -> (&mut Connection<R>, &mut Workspace) {
        match &mut self.slots[key] {
            Slot::Here(connection) => (connection, &mut self.ws),
            Slot::Lent { .. } => panic!("a lent connection was used"),
        }
    }

    /// Two connections and the workspace; `None` unless both are here.
    pub fn pair(&mut self, keys: [usize; 2]) -> Option<([&mut Conn; 2], &mut Workspace)> {
        match self.slots.get_disjoint_mut(keys) {
            Ok([Slot::Here(one), Slot::Here(other)]) => {
                Some(([&mut one.conn, &mut other.conn], &mut self.ws))
            }
            _ => None,
        }
    }

    /// Every connection that is here, with its key.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Connection<R>)> {
        self.slots.iter().filter_map(|(key, slot)| match slot {
            Slot::Here(connection) => Some((key, &**connection)),
            Slot::Lent { .. } => None,
        })
    }

    /// The keys of the active connections whose role `which` selects.
    pub fn keys_with(&self, which: impl Fn(&R) -> bool) -> Vec<usize> {
        self.iter().filter(|(_, c)| c.role().is_some_and(&which)).map(|(key, _)| key).collect()
    }

    /// Sets the deadline of `key` to `after` from now; zero means none.
    pub fn set_deadline(&mut self, key: usize, after: Duration) {
        if after.is_zero() {
            self.timers.clear(key);
        } else {
            self.timers.set(key, self.now.millis() + after);
        }
    }

    /// The deadline of `key`, if it has one; a tick of the timers early at most.
    #[must_use]
    pub fn deadline(&self, key: usize) -> Option<Millis> {
        self.timers.get(key)
    }

    /// Removes the deadline of `key`.
    pub fn clear_deadline(&mut self, key: usize) {
        self.timers.clear(key);
    }

    /// Runs `key` again, after the others.
    pub fn requeue(&mut self, key: usize) {
        let token = self.slots[key].token();
        self.ready.push_back(token);
    }

    /// Closes a connection at the end of the turn. What is still in its output is lost, and the
    /// peer must not take what it has for the whole, so it gets a reset. `role` was its last role.
    pub fn close(&mut self, key: usize, role: Option<R>) {
        self[key].conn.write_close();
        self[key].reset_if_cut_off();
        self[key].state = State::Closed(role);
        self.timers.clear(key);
        self.closed.push(key);
    }

    /// Lingering close: flush, send FIN, discard input until the peer closes (RFC 9112 section
    /// 9.6). `role` was the connection's last role.
    pub fn linger(&mut self, key: usize, role: Option<R>) {
        self[key].state = State::Lingering(role);
        self[key].note_queue();
        self.set_deadline(key, self.linger_timeouts.flush);
        self.step_linger(key);
    }

    fn step_linger(&mut self, key: usize) {
        let LingerTimeouts { flush, fin } = self.linger_timeouts;
        let (connection, ws) = self.split(key);
        let conn = &mut connection.conn;
        let (progress, next) = conn.step_linger(&mut ws.scratch, &mut ws.pool, DISCARDS);
        match progress {
            super::conn::LingerProgress::None => {}
            super::conn::LingerProgress::Flushing => {
                connection.note_queue();
                self.set_deadline(key, flush);
            }
            super::conn::LingerProgress::FinSent => self.set_deadline(key, fin),
        }
        match next {
            LingerStep::Wait => {}
            LingerStep::Close => self.close_lingering(key),
            LingerStep::Busy => self.requeue(key),
        }
    }

    /// The deadline of a lingering connection has passed. A peer that takes our last bytes slowly
    /// is given more time.
    fn linger_timed_out(&mut self, key: usize) {
        let connection = &mut self[key];
        if connection.conn.has_unsent() && connection.note_queue() {
            self.set_deadline(key, self.linger_timeouts.flush);
        } else {
            self.close_lingering(key);
        }
    }

    fn close_lingering(&mut self, key: usize) {
        match std::mem::replace(&mut self[key].state, State::Detached) {
            State::Lingering(role) => self.close(key, role),
            other => self[key].state = other,
        }
    }

    /// Looks at some of the peers to which bytes are on their way (see `window.rs`). In
    /// [`LOOK_SLICES`] calls each connection has its turn.
    fn look_at_windows(&mut self) {
        let now = self.now.millis();
        if now < self.next_look || self.user_timeout.is_zero() {
            return;
        }
        self.next_look = now + self.user_timeout / (LOOKS * LOOK_SLICES);
        for _ in 0..self.slots.capacity().div_ceil(LOOK_SLICES as usize) {
            self.look_from = (self.look_from + 1) % self.slots.capacity();
            if let Some(Slot::Here(connection)) = self.slots.get_mut(self.look_from)
                && connection.conn.may_hold_bytes()
            {
                let Connection { conn, closed_window, .. } = &mut **connection;
                window::look(conn, closed_window, self.user_timeout, now);
            }
        }
    }

    /// Whether a wait must end for the next of these looks.
    fn are_looks_due(&self) -> bool {
        !self.user_timeout.is_zero() && !self.slots.is_empty()
    }

    /// Waits for an event or a time, and reads the clock for this turn. False if the wait was
    /// interrupted.
    fn wait(&mut self, events: &mut Events, next: NextTurn) -> io::Result<bool> {
        let now = self.now.millis();
        let until = match next {
            NextTurn::Wait(until) if self.ready.is_empty() => {
                let until = self.timers.next_due().map_or(until, |due| due.min(until));
                let next_look = self.next_look;
                let until =
                    if next_look < until && self.are_looks_due() { next_look } else { until };
                // Rounded up: a turn before the beat would find nothing to do.
                if self.is_busy && self.beat_at < until { self.beat_at } else { until }
            }
            NextTurn::Wait(_) | NextTurn::Now | NextTurn::Stop => now,
        };
        let timeout = (until != NextTurn::NEVER).then(|| until.since(now));
        let interrupted = match self.poll.poll(events, timeout) {
            Ok(()) => false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            Err(error) => return Err(error),
        };
        let elapsed = self.started.elapsed().as_micros();
        self.now = Micros(u64::try_from(elapsed).unwrap_or(u64::MAX));
        self.beat(!events.is_empty());
        Ok(!interrupted)
    }
}

impl<R, L> Index<usize> for EventLoop<R, L> {
    type Output = Connection<R>;

    /// # Panics
    /// When there is no such connection here.
    fn index(&self, key: usize) -> &Connection<R> {
        match &self.slots[key] {
            Slot::Here(connection) => connection,
            Slot::Lent { .. } => panic!("a lent connection was used"),
        }
    }
}

impl<R, L> IndexMut<usize> for EventLoop<R, L> {
    fn index_mut(&mut self, key: usize) -> &mut Connection<R> {
        self.split(key).0
    }
}

/// Runs the loop of `handler` until [`NextTurn::Stop`].
///
/// # Errors
/// As epoll_wait(2), which has no reason to fail.
pub fn run<H: Handler>(handler: &mut H) -> io::Result<()> {
    let mut events = Events::with_capacity(EVENTS);
    let mut due = Vec::new();
    let mut heard = 0;
    loop {
        let next = handler.next_turn();
        if next == NextTurn::Stop {
            for (_, slot) in &mut handler.conns().slots {
                if let Slot::Here(connection) = slot {
                    connection.reset_if_cut_off();
                }
            }
            return Ok(());
        }
        let was_heard = handler.conns().wait(&mut events, next)?;
        let count = latch(handler, &events);
        handler.mail();
        run_ready(handler);
        // Deadlines run only after all events have been read: when this process was stalled, bytes
        // that came in time are still in the sockets. The kernel reports sockets in turn, so after
        // as many events as there are connections each has had its turn.
        heard += count;
        if was_heard && (count < EVENTS || heard > handler.conns().slots.len()) {
            heard = 0;
            run_deadlines(handler, &mut due);
        }
        handler.conns().look_at_windows();
        handler.end_of_turn();
        free_closed(handler);
    }
}

/// Latches what the kernel reports, and puts the connections it concerns into the ready queue.
/// Returns how many events there were.
fn latch<H: Handler>(handler: &mut H, events: &Events) -> usize {
    let mut count = 0;
    for event in events {
        count += 1;
        let token = Token::from(event.token());
        if token == token::WAKER {
            continue;
        }
        if token.is_listener() {
            handler.listener_ready(token.key());
            continue;
        }
        let conns = handler.conns();
        match conns.slots.get_mut(token.key()) {
            Some(Slot::Here(connection)) if connection.token == token => {
                connection.conn.latch(event);
                conns.ready.push_back(token);
            }
            Some(Slot::Lent { token: here, .. }) if *here == token => {
                handler.lent_ready(token.key(), event);
            }
            _ => conns.stale_events += 1,
        }
    }
    count
}

/// Runs each ready connection once; those that become ready meanwhile run next turn.
fn run_ready<H: Handler>(handler: &mut H) {
    for _ in 0..handler.conns().ready.len() {
        let conns = handler.conns();
        let Some(token) = conns.ready.pop_front() else { return };
        let Some(key) = conns.find(token) else { continue };
        match &conns[key].state {
            State::Active(_) if conns[key].conn.is_handshaking() => step_handshake(handler, key),
            State::Active(_) => handler.ready(key),
            State::Lingering(_) => conns.step_linger(key),
            State::Detached | State::Closed(_) => {}
        }
    }
}

fn step_handshake<H: Handler>(handler: &mut H, key: usize) {
    let (connection, ws) = handler.conns().split(key);
    match connection.conn.step_handshake(&mut ws.pool) {
        Ok(false) => {}
        Ok(true) => {
            handler.handshake_done(key);
            if handler.conns().role(key).is_none() {
                return;
            }
            match handler.conns()[key].conn.offload() {
                Ok(true) => handler.offloaded(key),
                Ok(false) => {}
                Err(error) => return handler.handshake_failed(key, TlsError::Io(error)),
            }
            handler.ready(key);
        }
        Err(error) => handler.handshake_failed(key, error),
    }
}

fn run_deadlines<H: Handler>(handler: &mut H, due: &mut Vec<usize>) {
    let conns = handler.conns();
    conns.timers.expire(conns.now.millis(), due);
    for key in due.drain(..) {
        let conns = handler.conns();
        match conns.slots.get(key) {
            None => {}
            Some(Slot::Lent { .. }) => handler.timeout(key),
            Some(Slot::Here(connection)) => match connection.state {
                State::Active(_) if connection.conn.is_handshaking() => {
                    handler.handshake_failed(key, TlsError::Timeout);
                }
                State::Active(_) => handler.timeout(key),
                State::Lingering(_) => conns.linger_timed_out(key),
                State::Detached | State::Closed(_) => {}
            },
        }
    }
}

fn free_closed<H: Handler>(handler: &mut H) {
    while let Some(key) = handler.conns().closed.pop() {
        let conns = handler.conns();
        if let Slot::Here(mut connection) = conns.slots.remove(key) {
            connection.conn.input.clear(&mut conns.ws.pool);
            connection.conn.output.clear(&mut conns.ws.pool);
            if connection.is_shared {
                // Closed here alone it would stay watched.
                let _ = conns.poll.registry().deregister(connection.conn.source());
            }
            handler.freed(connection);
        }
    }
    if cfg!(debug_assertions) {
        let detached = |c: &Connection<_>| matches!(c.state, State::Detached);
        debug_assert!(!handler.conns().iter().any(|(_, c)| detached(c)), "a role was left behind");
    }
}
