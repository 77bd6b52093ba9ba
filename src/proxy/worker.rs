//! One reactor: its tables, and one turn of its loop.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Poll};
use slab::Slab;

use crate::config::{self, Settings};
use crate::exchange::error::ExchangeError;
use crate::exchange::{Exchange, ExchangeConfig, Workspace};
use crate::http::Limits;
use crate::net::listener::Listener;
use crate::net::timer::Timers;
use crate::net::token::{self, Token};
use crate::routing::{Bounds, Lobby, Place};

use super::departures::Departed;
use super::dial::Dialling;
use super::gates::Purpose;
use super::guests::Seldom;
use super::role::{Role, Slot};
use super::shared::{Config, Mail, Shared};
use super::stats::Stats;

/// How many events one wait may bring: as many as a busy worker has work for in a millisecond.
const EVENTS: usize = 512;

/// How long accepting pauses when descriptors or connections have run out and nothing of ours
/// is closed meanwhile (another worker's connections may be).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often routes that nobody serves any more are looked for, in milliseconds.
const SWEEP_EVERY: u64 = 10_000;

/// How often a worker that is draining looks whether the others are done, in milliseconds.
const DRAIN_LOOK: u64 = 20;

/// How often it is looked whether the other workers know a new route, in milliseconds.
const SETTLE_LOOK: u64 = 1;

/// What the settings allow, the parser can hold.

/// A listening socket and what it is for.
pub struct Door {
    pub(super) listener: Listener,
    /// The gate that it is a part of.
    pub(super) gate: u64,
    pub(super) purpose: Purpose,
    /// The kernel has said that connections are waiting, and has not said that none are left.
    pub(super) ready: bool,
}

/// An exchange and whose it is: an entry of the worker's table.
pub(super) struct Running {
    pub exchange: Exchange,
    pub requester: Token,
    pub responder: Token,
    /// It failed while its request was on loan; see [`Worker::settle`].
    pub failed: Option<ExchangeError>,
}

/// A waiting request and a bridge that the lobby has found for each other.
pub(super) struct Pair {
    pub requester: Token,
    pub place: Place,
    pub responder: Token,
}

/// The worker's clock: read once per turn, and the same for everything in it.
#[derive(Clone, Copy)]
pub(super) struct Now {
    /// Microseconds since the start of the process.
    pub micros: u64,
}

impl Now {
    /// Milliseconds since the start of the process.
    pub fn millis(self) -> u64 {
        self.micros / 1000
    }
}

/// How far a worker that is leaving has come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Drain {
    /// Connections that have said nothing yet, or not all, may still send their request, and
    /// bridges stay for it. For so many turns there has been no such connection.
    LastChance { quiet_turns: u8 },
    /// Bridges are let go. For so many turns no exchange has been under way on any worker.
    Parting { quiet_turns: u8 },
}

/// Whether the worker goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// As usual.
    Serving,
    /// What is under way is finished, until this many milliseconds.
    Draining { until: u64, stage: Drain },
}

/// One reactor.
pub struct Worker {
    pub(super) index: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) config: Arc<Config>,
    pub(super) exchange_config: ExchangeConfig,
    pub(super) poll: Poll,
    pub(super) doors: Slab<Door>,
    /// The doors that are ready, each once; one that has been closed since is passed over.
    pub(super) knocking: VecDeque<usize>,
    pub(super) slots: Slab<Slot>,
    pub(super) exchanges: Slab<Running>,
    pub(super) lobby: Lobby,
    pub(super) timers: Timers,
    pub(super) runnable: VecDeque<Token>,
    pub(super) pairs: VecDeque<Pair>,
    /// Bridges on new routes; see [`Role::Settling`].
    pub(super) settling: Vec<Token>,
    pub(super) departed: Departed,
    pub(super) dialling: Dialling,
    pub(super) ws: Workspace,
    pub(super) now: Now,
    pub(super) life: Life,
    /// Accepting has paused until this many milliseconds.
    pub(super) paused: Option<u64>,
    /// When it was last said that accepting pauses, in milliseconds.
    pub(super) shortage_said: Option<u64>,
    /// How often it has been said that swiftclient backends are refused.
    pub(super) guests_refused: Seldom,
    /// Where the next look for idle clients begins.
    pub(super) reclaim_from: usize,
    /// Lower-case names are made here.
    pub(super) name: String,
    pub(super) generation: u32,
    pub(super) dying: Vec<usize>,
    due: Vec<usize>,
    mail: Vec<Mail>,
    next_sweep: u64,
}

impl Worker {
    /// The `index`-th worker, which waits on `poll`.
    #[must_use]
    pub fn new(index: usize, shared: Arc<Shared>, config: Arc<Config>, poll: Poll) -> Worker {
        let directory = Arc::clone(&shared.directory);
        let settings = &config.settings;
        Worker {
            lobby: Lobby::new(index, directory, bounds(settings)),
            exchange_config: exchange_config(settings),
            index,
            shared,
            config,
            poll,
            doors: Slab::new(),
            knocking: VecDeque::new(),
            slots: Slab::new(),
            exchanges: Slab::new(),
            timers: Timers::default(),
            runnable: VecDeque::new(),
            pairs: VecDeque::new(),
            settling: Vec::new(),
            departed: Departed::default(),
            dialling: Dialling::default(),
            ws: Workspace::default(),
            now: Now { micros: 0 },
            life: Life::Serving,
            paused: None,
            shortage_said: None,
            guests_refused: Seldom::default(),
            reclaim_from: 0,
            name: String::new(),
            generation: 0,
            dying: Vec::new(),
            due: Vec::new(),
            mail: Vec::new(),
            next_sweep: SWEEP_EVERY,
        }
    }

    /// Runs until the worker has been told to leave and is done.
    ///
    /// # Errors
    /// When the kernel refuses to say what has happened, which it has no reason to.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        while self.turn(&mut events)? {}
        Ok(())
    }

    /// One turn. False when it was the last.
    fn turn(&mut self, events: &mut Events) -> io::Result<bool> {
        self.wait(events)?;
        self.latch(events);
        self.read_mail();
        self.settle_bridges();
        self.serve_pairs();
        self.run_runnable();
        self.meet_deadlines();
        self.tend_servers();
        Ok(self.end_turn())
    }

    /// Waits for an event, a deadline or mail, and reads the clock, once for the whole turn.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let now = self.now.millis();
        let mut timeout =
            self.timers.until_next(crate::time::Millis(now)).map(|d| d.as_millis() as u64);
        let drain = match self.life {
            Life::Serving => None,
            Life::Draining { until, .. } => Some(until.min(now + DRAIN_LOOK)),
        };
        let settle = (!self.settling.is_empty()).then_some(now + SETTLE_LOOK);
        let tend = self.tend_at();
        for at in [self.paused, drain, settle, tend, Some(self.next_sweep)].into_iter().flatten() {
            let wait = at.saturating_sub(now);
            timeout = Some(timeout.map_or(wait, |timeout| timeout.min(wait)));
        }
        if !self.runnable.is_empty() || !self.pairs.is_empty() || self.has_arrivals() {
            timeout = Some(0);
        }
        match self.poll.poll(events, timeout.map(Duration::from_millis)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        self.now.micros = self.shared.micros();
        Ok(())
    }

    /// Remembers what the kernel has said, and makes runnable whom it concerns.
    fn latch(&mut self, events: &Events) {
        for event in events {
            let token = Token::from(event.token());
            if token == token::WAKER {
                continue;
            }
            if token.is_listener() {
                self.knock(token.key());
                continue;
            }
            match self.slots.get_mut(token.key()) {
                Some(slot) if slot.generation == token.generation() => {
                    slot.conn.latch(event);
                    self.runnable.push_back(token);
                }
                _ => self.stats().stale.add(1),
            }
        }
    }

    fn read_mail(&mut self) {
        let mut mail = std::mem::take(&mut self.mail);
        self.shared.mailboxes[self.index].empty(&mut mail);
        self.lobby.sync();
        for item in mail.drain(..) {
            match item {
                Mail::Lobby(mail) => self.lobby_mail(mail),
                Mail::Bridge(parcel) => self.take_in(*parcel),
                Mail::Leave(departure) => self.depart(&departure),
                Mail::Found(server, found) => self.server_found(&server, found),
                Mail::Reload(reload) => self.reload(*reload),
                Mail::Drain => self.drain(),
            }
        }
        self.mail = mail;
    }

    /// Lets everyone who can go on go on, once: whoever becomes runnable meanwhile has the next
    /// turn.
    fn run_runnable(&mut self) {
        for _ in 0..self.runnable.len() {
            let Some(token) = self.runnable.pop_front() else {
                break;
            };
            if self.is_live(token) {
                self.drive(token.key());
            }
        }
        self.accept_all();
    }

    /// Whether `token` names a connection that still lives.
    pub(super) fn is_live(&self, token: Token) -> bool {
        self.slots.get(token.key()).is_some_and(|slot| slot.generation == token.generation())
    }

    fn drive(&mut self, key: usize) {
        match self.slots[key].role {
            Role::Reading(_) => self.read_head(key),
            Role::Announcing { .. } => self.read_preamble(key),
            Role::Waiting { .. } => self.watch_waiting(key),
            Role::Requesting { exchange, .. } | Role::Responding { exchange, .. } => {
                self.advance(exchange);
            }
            Role::Parked { .. } => self.watch_parked(key),
            Role::Dialling(_) => self.watch_dialling(key),
            Role::Leaving => self.see_off(key),
            Role::Settling { .. } | Role::Matched { .. } | Role::Closed => {}
        }
    }

    fn meet_deadlines(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.timers.expire(crate::time::Millis(self.now.millis()), &mut due);
        for key in due.drain(..) {
            if !self.slots.contains(key) {
                continue;
            }
            match self.slots[key].role {
                Role::Reading(_) => self.head_is_late(key),
                Role::Announcing { .. } => self.preamble_is_late(key),
                Role::Waiting { .. } => self.waited_too_long(key),
                Role::Requesting { exchange, .. } => self.exchange_is_late(exchange),
                Role::Parked { .. } => self.parked_long(key),
                Role::Dialling(_) => self.dialling_is_late(key),
                Role::Leaving => self.leaving_is_late(key),
                // An exchange's deadline is filed under its requester.
                Role::Responding { .. }
                | Role::Settling { .. }
                | Role::Matched { .. }
                | Role::Closed => {}
            }
        }
        self.due = due;
        if self.now.millis() >= self.next_sweep {
            self.next_sweep = self.now.millis() + SWEEP_EVERY;
            if self.index == 0 && self.shared.directory.sweep(self.now.micros) > 0 {
                self.wake_others();
            }
        }
    }

    /// Everything that must happen after the work and before the next wait. The order matters:
    /// closing may forget waiters, so the lobbies' mail goes out after it; slots are freed last,
    /// because mail may still be made of what is in them.
    fn end_turn(&mut self) -> bool {
        self.go_on_draining();
        self.collect_matches();
        self.send_lobby_mail();
        let freed = !self.dying.is_empty();
        while let Some(key) = self.dying.pop() {
            self.free(key);
        }
        if self.paused.is_some_and(|until| freed || self.now.millis() >= until) {
            self.paused = None;
            // The kernel does not tell twice of connections that it has told of already.
            self.accept_all();
        }
        self.publish();
        !self.is_over()
    }

    fn publish(&self) {
        let counts = self.lobby.counters();
        self.stats().waiting.set(counts.waiting as u64);
        self.stats().unserved.set(counts.unserved as u64);
    }

    /// This worker's counters.
    pub(super) fn stats(&self) -> &Stats {
        &self.shared.stats[self.index]
    }

    /// The settings in force.
    pub(super) fn settings(&self) -> &Settings {
        &self.config.settings
    }

    /// Pauses accepting: there is no room.
    pub(super) fn pause_accepting(&mut self) {
        self.paused = Some(self.now.millis() + ACCEPT_PAUSE.as_millis() as u64);
    }
}

/// What the exchanges obey under `settings`.
pub(super) fn exchange_config(settings: &Settings) -> ExchangeConfig {
    ExchangeConfig {
        limits: Limits {
            head: settings.max_head,
            fields: settings.max_fields,
            target: settings.max_target,
        },
        retry_limit: settings.retry_limit,
        splice_threshold: settings.splice_threshold as u64,
        forwarded: settings.forwarded,
    }
}

/// The lobby's bounds under `settings`.
pub(super) fn bounds(settings: &Settings) -> Bounds {
    Bounds {
        per_route: settings.queue_per_route,
        unserved: settings.queue_unserved,
        bridges_per_host: settings.bridges_per_host,
        unserved_waits: settings.unknown_host == config::UnknownHost::Wait,
    }
}
