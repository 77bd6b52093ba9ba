//! Backends of several proxies (`doc/protocol.md`, "Places"): they say how many of their bridges may
//! have a request at once, give back what crosses that, and are told how long requests wait here.
//!
//! Which bridges get no request is decided under the lock of their route (`routing/sharing.rs`). Here
//! are the effects: bridges are heard, and told.
//!
//! ```text
//!     Idle, Aside, Probed, or about to park ──half a message──> Speaking ──the rest──> Idle
//!                                                                  └──too late, or more──> closed
//!     Responding ──gives its request back, and says that it has a place──> Resting ──a moment──> Idle
//! ```

use std::sync::Arc;
use std::time::Duration;

use mio::event::Event;

use crate::bridge::places::{self, Places};
use crate::exchange::places::{Heard, Speaker};
use crate::exchange::{Cause, ExchangeError, Running};
use crate::http::response::is_timeout_notice;
use crate::net::event_loop::Connection;
use crate::net::workspace::Workspace;
use crate::routing::{Telling, ToTell, WaiterId};
use crate::time::Micros;

use super::closing::End;
use super::role::{Begun, ParkedBridge, Role, Route, Ticket};
use super::state::{Mail, ToldBridge};
use super::worker::Worker;

/// How often one backend is told how long requests wait, at most.
const PAUSE: Duration = Duration::from_millis(10);

/// How many times a request may be given back by backends that say they have a place. The two sides count
/// differently for a moment, while something is on its way between them. One that does it again and
/// again is broken: its bridges are closed then, and have failed.
const CONTRADICTIONS_MAX: u8 = 100;

/// How long a bridge rests that has done so, the first time for a request, and at most. It is twice as
/// long each time.
const FIRST_REST: Duration = Duration::from_millis(10);
const LONGEST_REST: Duration = Duration::from_secs(1);

/// How long the rest of a message may take. It is written in one piece.
const REST: Duration = Duration::from_secs(1);

/// What a bridge without a request has sent, and the places and the number of its last message.
type Noticed = (Heard, Option<(u32, u64)>);

/// The kernel reports something of an idle bridge. The route's lock is held.
pub(super) fn notice(connection: &mut ParkedBridge, event: &Event, ws: &mut Workspace) -> Noticed {
    let conn = &mut connection.conn;
    conn.latch(event);
    if conn.flush(&mut ws.pool).is_err() || conn.is_broken() {
        return (Heard::Ended, None);
    }
    if !conn.is_readable() {
        return (Heard::Quiet, None);
    }
    let Some(speaker) = speaker(connection) else {
        // What it has sent is looked at when it has been taken out.
        return (Heard::Stray, None);
    };
    let heard = speaker.listen_once(&mut connection.conn, ws);
    (heard, speaker.take().map(|Places { limit, at }| (limit, at)))
}

/// What listens to a bridge that has no request; `None` if it says nothing of places, and must be silent.
fn speaker(connection: &Connection<Role>) -> Option<Speaker> {
    connection.role().and_then(Role::bridge)?.speaker().map(Speaker::new)
}

/// How long a bridge rests that is the `times`-th to contradict itself with a request.
fn rest(times: u8) -> Duration {
    let doublings = u32::from(times.saturating_sub(1)).min(10);
    (FIRST_REST * (1 << doublings)).min(LONGEST_REST)
}

impl Worker {
    /// Reads from bridge `key`, which has no request and is not parked.
    pub(super) fn hear_idle(&mut self, key: usize) -> Heard {
        let (connection, ws) = self.conns.split(key);
        if connection.conn.is_broken() {
            return Heard::Ended;
        }
        let Some(speaker) = speaker(connection) else {
            return if self.is_silent(key) { Heard::Quiet } else { Heard::Ended };
        };
        let heard = speaker.listen(&mut connection.conn, ws);
        let is_notice = is_timeout_notice(connection.conn.input.bytes());
        self.note_said(key, &speaker);
        if heard == Heard::Stray {
            log::info!("backend {} sent bytes without a request", self.conns[key].peer);
            if !is_notice {
                self.bridge_sent_stray_bytes(key);
            }
        }
        heard
    }

    /// The backend of bridge `key`, which is not parked, has said how many places it has. What comes
    /// of it is collected in this turn.
    pub(super) fn set_places(&mut self, key: usize, Places { limit, at }: Places) {
        let Some(bridge) = self.conns.role(key).and_then(Role::bridge) else { return };
        if let Some(group) = bridge.group {
            self.scheduler.set_places(&bridge.route, group, limit, at);
        }
    }

    /// Notes what a bridge has said during an exchange that goes on.
    pub(super) fn note_places(&mut self, exchange: usize) {
        let running = self.exchanges.get_mut(exchange);
        let bridge = running.responder.key();
        if let Some(places) = running.exchange.take_places() {
            self.set_places(bridge, places);
        }
    }

    /// Puts in force what bridge `key`, which is not parked, has said.
    pub(super) fn note_said(&mut self, key: usize, speaker: &Speaker) {
        if let Some(places) = speaker.take() {
            self.set_places(key, places);
        }
    }

    /// A bridge, which is not parked, has sent half a message.
    pub(super) fn await_rest(&mut self, key: usize) {
        self.change_role(key, |role| role.with_bridge(Role::Speaking));
        if let Some(Role::Speaking(bridge)) = self.conns.role(key) {
            // The next process would get the other half.
            bridge.keeping.set_busy();
        }
        self.conns.set_deadline(key, REST);
    }

    /// A bridge goes on with its message, or has ended.
    pub(super) fn read_speaking(&mut self, key: usize) {
        let (connection, ws) = self.conns.split(key);
        let flushed = connection.conn.flush(&mut ws.pool);
        match self.hear_idle(key) {
            Heard::Quiet if flushed.is_ok() => self.park(key),
            Heard::Half if flushed.is_ok() => {}
            _ => self.close_broken_bridge(key),
        }
    }

    /// The rest of a message has not come in time.
    pub(super) fn speaking_timed_out(&mut self, key: usize) {
        log::info!("backend {} sent half a message", self.conns[key].peer);
        self.end(key, End::Close);
    }

    /// A backend has no place for a request, or its bridge cannot take one just now. That is no
    /// failure: the request goes on from its old place. It may come back to the same backend only if
    /// that has said in the meantime that it has a place again; if it says so with the request, what it
    /// says would be true at once, and so on without end.
    pub(super) fn give_back(&mut self, running: &mut Running<Begun>, error: &ExchangeError) {
        let (key, bridge) = (running.requester.key(), running.responder.key());
        let Some(Role::Requesting { ticket, .. }) = self.conns.role(key) else { return };
        let Ticket { pos, mut tries } = *ticket;
        let responder = self.conns.role(bridge).and_then(Role::bridge);
        tries.last = responder.map(|bridge| bridge.backend.id);
        let is_given_back = matches!(error.cause, Cause::GivenBack { .. });
        let contradicts =
            is_given_back && responder.is_some_and(|bridge| bridge.route.has_place(bridge.group));
        if contradicts && tries.contradictions == CONTRADICTIONS_MAX {
            return self.fail(running, error);
        }
        tries.contradictions += u8::from(contradicts);
        let stays = match error.cause {
            Cause::GivenBack { stays } => {
                self.stats().given_back.add(1);
                self.note_alive(bridge);
                stays && !self.must_close(running)
            }
            _ => true,
        };
        let is_new = running.exchange.is_new();
        match stays {
            true if contradicts => self.rest_bridge(bridge, is_new, rest(tries.contradictions)),
            true => self.return_bridge(bridge, is_new),
            false => self.end_unsent(bridge),
        }
        self.stats().exchange_ended();
        self.dispatch_again(key, Ticket { pos, tries });
    }

    /// A bridge that has given its request back gets none for this long.
    fn rest_bridge(&mut self, key: usize, is_new: bool, time: Duration) {
        self.take_back_unused(key, is_new);
        self.change_role(key, |role| role.with_bridge(Role::Resting));
        self.conns.set_deadline(key, time);
    }

    /// A bridge that rests has something to read, or has ended. A message ends the rest.
    pub(super) fn read_resting(&mut self, key: usize) {
        let conn = &self.conns[key].conn;
        if conn.is_readable() || conn.has_hung_up() || conn.is_broken() {
            self.idle_bridge_spoke(key);
        }
    }

    /// A request begins to wait: backends that keep bridges from it are told.
    pub(super) fn tell_of(&mut self, waiter: WaiterId) {
        let routes: Vec<Arc<Route>> = self.scheduler.routes_of(waiter).cloned().collect();
        routes.iter().for_each(|route| self.begin_telling(route));
    }

    /// Requests wait for a route: a backend may keep bridges of it from them.
    pub(super) fn begin_telling(&mut self, route: &Arc<Route>) {
        if !self.tellers.has(route) {
            self.tell_backends(route);
        }
    }

    /// Tells what has become due since the last turn.
    pub(super) fn go_on_telling(&mut self) {
        let now = self.conns.now();
        for route in self.tellers.take_due(now) {
            self.tell_backends(&route);
        }
    }

    fn tell_backends(&mut self, route: &Arc<Route>) {
        let now = self.conns.now();
        let ToTell { tellings, again } = route.tell(now, PAUSE);
        for telling in tellings {
            self.send_telling(route, telling);
        }
        if let Some(due) = again {
            // Or it would be due again in this turn.
            self.tellers.add(Arc::clone(route), due.max(Micros(now.0 + 1)));
        }
    }

    /// Has the worker that has the bridge tell its backend.
    pub(super) fn send_telling(&mut self, route: &Arc<Route>, telling: Telling) {
        let worker = telling.owner.worker;
        // Two workers may have something to tell at the same time.
        let Some(at) = route.sent_at(&telling, self.conns.now()) else { return };
        let at = self.shared.stamp(at);
        let told = ToldBridge { route: Arc::clone(route), telling, at };
        match worker == self.index {
            true => self.tell_bridge(&told),
            false => self.shared.mailboxes[worker].send(Mail::Tell(told)),
        }
    }

    /// Tells the backend of a bridge that this worker has parked how long the oldest request has
    /// waited. If the bridge is not there any more, or does not read, the backend is told over
    /// another one.
    pub(super) fn tell_bridge(&mut self, told: &ToldBridge) {
        let ToldBridge { route, telling: Telling { handle, owner, oldest, .. }, at } = told;
        let mut text = Vec::new();
        let waited = oldest.map(|oldest| self.conns.now().since(oldest));
        places::waiting(&mut text, waited, *at);
        let pool = &mut self.conns.ws.pool;
        let is_told = self.scheduler.with_idle(route, *handle, owner.token, |connection| {
            if !connection.conn.output.is_empty() {
                return false;
            }
            let Some(bridge) = connection.role().and_then(Role::bridge) else { return false };
            if !bridge.knows_probes() {
                // What reads it by now expects nothing but requests.
                return false;
            }
            let was_idle = bridge.keeping.set_busy();
            // An event tells if it is broken.
            let _ = connection.conn.send(&text, pool);
            if was_idle
                && connection.conn.output.is_empty()
                && let Some(bridge) = connection.role().and_then(Role::bridge)
            {
                bridge.keeping.set_idle_again();
            }
            true
        });
        if is_told != Some(true) {
            route.not_told(&told.telling);
        }
    }
}
