//! [`Places`]: how many requests a program serves at once, over all its proxies.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use super::wire::Wire;
use crate::bridge::BackendToken;
use crate::bridge::places::{self, Waiting};
use crate::net::sys;
use crate::routing::places::{Arbiter, Arrival};
use crate::time::Micros;

/// What the thread needs that tells the proxies: far less than the default.
const STACK: usize = 128 * 1024;

/// What the threads of a program add to the time in which a proxy is heard, to be on the safe side: they are
/// no event loop.
const DELAY: Duration = Duration::from_millis(7);

/// How many requests a program serves at once, for the listeners of all its proxies. Clones share
/// them.
///
/// A listener that shares places ([`Builder::places`](super::Builder::places)) tells its proxy how
/// many of the bridges there it may use now, and gives a request that comes all the same back at once
/// (`doc/protocol.md`, "Places"). A place that comes free goes to the proxy where a request has waited
/// longest. A request has its place from its head to the end of its response, and a tunnel until its
/// connection is dropped.
#[derive(Clone)]
pub struct Places(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    start: Instant,
}

struct State {
    arbiter: Arbiter,
    /// By the arbiter's number.
    proxies: Vec<Proxy>,
    /// Numbers of proxies whose listeners are gone.
    unused: Vec<usize>,
    /// Requests that wait here, the first first.
    turns: VecDeque<Arc<Turn>>,
    /// The last number given to a bridge.
    last: u64,
    /// Bridges over which proxies can be told.
    bridges: usize,
    /// The thread that tells what is due later runs, and until when it sleeps, unless it is woken.
    is_telling: bool,
    wakes_at: Option<Micros>,
}

struct Proxy {
    token: BackendToken,
    /// The number of the last message.
    at: u64,
    bridges: Vec<(u64, Arc<Wire>)>,
    /// The bridge over which it was told last.
    told_over: Option<u64>,
}

impl Places {
    /// So many; at least one.
    #[must_use]
    pub fn new(count: usize) -> Places {
        let state = State {
            arbiter: Arbiter::new(count.max(1)),
            proxies: Vec::new(),
            unused: Vec::new(),
            turns: VecDeque::new(),
            last: 0,
            bridges: 0,
            is_telling: false,
            wakes_at: None,
        };
        Places(Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            start: Instant::now(),
        }))
    }

    /// One more proxy, with the token of the bridges there.
    pub(super) fn share(&self, token: BackendToken) -> Share {
        let mut state = self.0.lock();
        let proxy = Proxy { token, at: 0, bridges: Vec::new(), told_over: None };
        let number = match state.unused.pop() {
            Some(number) => {
                state.arbiter.renew(number);
                state.proxies[number] = proxy;
                number
            }
            None => {
                state.proxies.push(proxy);
                state.arbiter.add()
            }
        };
        Share { shared: Arc::clone(&self.0), number }
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.lock().arbiter.fmt(f)
    }
}

/// One proxy among those that share places.
pub(super) struct Share {
    shared: Arc<Shared>,
    number: usize,
}

/// What a proxy is told: how many of its bridges may have a request at once.
pub(super) struct Limit {
    places: places::Places,
    by: BackendToken,
}

impl Limit {
    /// Appends the answer by which a request, or a 101, is given back.
    pub fn give_back(&self, out: &mut Vec<u8>) {
        places::give_back(out, self.places, &self.by);
    }
}

/// What becomes of a request.
pub(super) enum Arrived {
    /// It has a place.
    Place,
    /// It is given back.
    Back(Limit),
    /// It waits for its turn.
    Turn(Arc<Turn>),
}

impl Share {
    /// A request has come. `over`: the bridge, if it can be given back there.
    pub fn arrives(&self, over: Option<u64>) -> Arrived {
        self.change(|state, now| match state.arbiter.arrives(self.number, over.is_some(), now) {
            Arrival::Take => Arrived::Place,
            Arrival::GiveBack(limit) => Arrived::Back(state.told(self.number, limit, over)),
            Arrival::Wait => {
                let turn = Arc::new(Turn::new(self.number));
                state.turns.push_back(Arc::clone(&turn));
                state.arbiter.set_queued(state.turns.len());
                Arrived::Turn(turn)
            }
        })
    }

    /// A 101 has come over this bridge, which takes no place yet. If there is none, what it is given back
    /// with.
    pub fn lacks_room(&self, over: u64) -> Option<Limit> {
        self.change(|state, now| {
            if state.arbiter.has_place(self.number) {
                return None;
            }
            match state.arbiter.arrives(self.number, true, now) {
                Arrival::GiveBack(limit) => Some(state.told(self.number, limit, Some(over))),
                Arrival::Take | Arrival::Wait => None,
            }
        })
    }

    /// A request has no place any more.
    pub fn ends(&self) {
        self.change(|state, now| state.arbiter.ends(self.number, now));
    }

    /// The request will not be served.
    pub fn gives_up(&self, turn: &Arc<Turn>) {
        self.change(|state, now| {
            state.turns.retain(|other| !Arc::ptr_eq(other, turn));
            state.arbiter.set_queued(state.turns.len());
            if turn.has_come(Waker::noop()) {
                state.arbiter.ends(self.number, now);
            }
        });
    }

    /// The proxy has said how long its oldest request waits.
    pub fn waits(&self, waiting: Waiting) {
        self.change(|state, now| {
            state.arbiter.waits(self.number, waiting.waited, waiting.at, now);
        });
    }

    /// A bridge over which the proxy can be told. Returns its number.
    pub fn open(&self, wire: Arc<Wire>) -> u64 {
        let round_trip = sys::peer(wire.connection.tcp()).ok().map(|peer| peer.round_trip);
        let number = self.change(|state, _| {
            state.last += 1;
            state.bridges += 1;
            let number = state.last;
            if let Some(time) = round_trip {
                state.arbiter.set_round_trip(self.number, time + DELAY);
            }
            state.with(self.number, |proxy| proxy.bridges.push((number, wire)));
            number
        });
        self.shared.start_telling();
        number
    }

    /// The bridge with this number is closed.
    pub fn close(&self, number: u64) {
        self.change(|state, _| {
            state.bridges -= 1;
            let was_told = state.with(self.number, |proxy| {
                proxy.bridges.retain(|(other, _)| *other != number);
                proxy.told_over == Some(number)
            });
            if was_told {
                // It may not have arrived.
                state.arbiter.tell_again(self.number);
            }
        });
    }

    /// Changes something, and does what follows from it.
    fn change<T>(&self, change: impl FnOnce(&mut State, Micros) -> T) -> T {
        let mut state = self.shared.lock();
        let now = self.shared.now();
        let result = change(&mut state, now);
        state.follow_up(now);
        let due = state.arbiter.next_deadline();
        if due.is_some_and(|due| state.wakes_at.is_none_or(|at| due < at)) {
            self.shared.changed.notify_all();
        }
        result
    }
}

/// The listener is gone, and all bridges there.
impl Drop for Share {
    fn drop(&mut self) {
        self.change(|state, _| state.unused.push(self.number));
    }
}

impl State {
    /// The bridges of a proxy change.
    fn with<T>(&mut self, number: usize, change: impl FnOnce(&mut Proxy) -> T) -> T {
        let proxy = &mut self.proxies[number];
        let result = change(proxy);
        self.arbiter.set_bridges(number, proxy.bridges.len());
        result
    }

    /// What a proxy is told over this bridge.
    fn told(&mut self, number: usize, limit: usize, over: Option<u64>) -> Limit {
        let proxy = &mut self.proxies[number];
        proxy.told_over = over;
        proxy.at += 1;
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        Limit { places: places::Places { limit, at: proxy.at }, by: proxy.token }
    }

    /// Lets in who waits, and tells the proxies what is due.
    fn follow_up(&mut self, now: Micros) {
        while self.arbiter.spare() > 0
            && let Some(turn) = self.turns.pop_front()
        {
            self.arbiter.takes(turn.proxy);
            self.arbiter.set_queued(self.turns.len());
            turn.come();
        }
        while let Some((number, limit)) = self.arbiter.due(now) {
            let mut message = Vec::new();
            let Limit { places, by } = self.told(number, limit, None);
            places::write(&mut message, places, &by);
            let proxy = &mut self.proxies[number];
            // Over one without a request, if there is one.
            let mut said = proxy.bridges.iter().find(|(_, wire)| wire.say(&message, true));
            said =
                said.or_else(|| proxy.bridges.iter().find(|(_, wire)| wire.say(&message, false)));
            proxy.told_over = said.map(|(bridge, _)| *bridge);
            if proxy.told_over.is_none() {
                self.arbiter.not_told(number, now);
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Micros {
        Micros(0) + self.start.elapsed()
    }

    fn start_telling(self: &Arc<Shared>) {
        if std::mem::replace(&mut self.lock().is_telling, true) {
            return;
        }
        let shared = Arc::clone(self);
        let thread = thread::Builder::new().name("places".to_owned()).stack_size(STACK);
        let started: io::Result<_> = thread.spawn(move || shared.tell());
        if let Err(error) = started {
            self.lock().is_telling = false;
            log::warn!("proxies are told late how many places there are: {error}");
        }
    }

    /// Tells what is due with time, as long as there is anybody who can be told.
    fn tell(&self) {
        let mut state = self.lock();
        loop {
            state.follow_up(self.now());
            if state.bridges == 0 {
                (state.is_telling, state.wakes_at) = (false, None);
                return;
            }
            state.wakes_at = state.arbiter.next_deadline();
            let sleep = state.wakes_at.map_or(Duration::from_secs(3600), |at| at.since(self.now()));
            let woken = self.changed.wait_timeout(state, sleep);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A request that waits here for its turn, because its proxy cannot give it to another backend.
pub(super) struct Turn {
    proxy: usize,
    state: Mutex<TurnState>,
    changed: Condvar,
}

struct TurnState {
    has_come: bool,
    waker: Waker,
}

impl Turn {
    fn new(proxy: usize) -> Turn {
        let state = TurnState { has_come: false, waker: Waker::noop().clone() };
        Turn { proxy, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, TurnState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn come(&self) {
        let mut state = self.state();
        state.has_come = true;
        state.waker.wake_by_ref();
        self.changed.notify_all();
    }

    /// Whether it has a place. If not, the waker is called when it has.
    pub fn has_come(&self, waker: &Waker) -> bool {
        let mut state = self.state();
        if !state.has_come {
            state.waker.clone_from(waker);
        }
        state.has_come
    }

    /// Waits until it has.
    pub fn wait(&self) {
        let waits = |state: &mut TurnState| !state.has_come;
        drop(self.changed.wait_while(self.state(), waits));
    }
}
