//! Idle bridges: parking, pings, matching, and moving between workers.
//!
//! A parked bridge is held by the scheduler, under the lock of its route, where any worker can take
//! it (`routing/scheduler.rs`). It stays registered with the poll of the worker that parked it,
//! which pings it and notices its end. A worker that matches another's bridge takes it over by
//! itself: it removes the socket from the other's poll, adds it to its own, and mails the other,
//! without waking it, that the slot is free. A bridge that becomes free serves the oldest request
//! of its own worker. It is mailed to another worker only if none waits here, or the oldest one
//! there arrived earlier by more than [`FAIRNESS`](crate::routing::FAIRNESS).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::event::Event;

use crate::bridge::request::CONTINUE;
use crate::exchange::Reuse;
use crate::exchange::places::Heard;
use crate::http::reply::Reply;
use crate::http::response::is_timeout_notice;
use crate::net::conn::Received;
use crate::net::event_loop::Connection;
use crate::net::token::Token;
use crate::net::workspace::Workspace;
use crate::routing::{self, Match, Owner, Parked as Placed, QueuePos, Sent};
use crate::time::Millis;

use super::closing::End;
use super::places;
use super::reason::Reason;
use super::role::{Bridge, Handshake, Origin, ParkedBridge, Role, Ticket};
use super::state::{Mail, Parked, Transfer};
use super::worker::{Pair, Worker};

/// The shortest deadline: zero would mean none.
pub(super) const AT_ONCE: Duration = Duration::from_millis(1);

/// What to do with a parked bridge whose deadline has passed.
enum Due {
    /// Nothing more: it has been pinged. Its next deadline is this far off.
    Later(Duration),
    Close,
    /// `bridge-timeout` has passed.
    Reject,
}

impl Worker {
    /// Parks the bridge in slot `key`: it serves a request that waits here, goes to a worker where
    /// one waits, or becomes idle.
    pub(super) fn park(&mut self, key: usize) {
        self.change_role(key, |role| role.with_bridge(Role::Idle));
        let Some(Role::Idle(bridge)) = self.conns.role(key) else { return };
        let (route, deadline) = (Arc::clone(&bridge.route), self.idle_timeout(bridge));
        let of = bridge.membership();
        let is_suspect = bridge.backend.is_suspect() && !bridge.on_trial;
        if bridge.dismissed || self.has_lost(bridge) {
            return self.end(key, End::Linger);
        }
        let conn = &self.conns[key].conn;
        if conn.is_readable() || !conn.input.is_empty() {
            match self.hear_idle(key) {
                Heard::Quiet => {}
                Heard::Half => return self.await_rest(key),
                _ => return self.close_broken_bridge(key),
            }
        }
        if is_suspect && !self.shutdown.is_closing_bridges() {
            return self.stand_aside(key);
        }
        self.conns.set_deadline(key, deadline);
        if self.shared.bridge_store.is_some() {
            self.keep(key);
        }
        let token = self.conns[key].token().word();
        let connection = self.conns.lend(key);
        match self.scheduler.park(&route, of, token, connection) {
            Placed::Idle(handle) => {
                if of.group.is_some_and(|group| route.has_news(group)) {
                    self.begin_telling(&route);
                }
                self.conns.set_lent(key, Parked { route, handle });
                if self.shutdown.is_closing_bridges() {
                    self.close_idle_bridge(key);
                }
            }
            Placed::Serve { bridge, request, pos } => {
                let key = self.conns.restore(bridge);
                self.reserve(key, Token::from_word(request), pos);
            }
            Placed::Transfer { bridge, transfer } => {
                let key = self.conns.restore(bridge);
                self.transfer(key, transfer);
            }
        }
    }

    /// Reserves the bridge in slot `key` for a request that waits here. They meet in the next turn:
    /// serving at once could park the next bridge, which would serve the next request, and so on
    /// down the stack. It also leaves one more turn in which to notice a backend that sends more
    /// than its response.
    fn reserve(&mut self, key: usize, requester: Token, pos: QueuePos) {
        self.change_role(key, |role| role.with_bridge(Role::Reserved));
        self.conns.clear_deadline(key);
        self.pairs.push_back(Pair { requester, pos, responder: self.conns[key].token() });
    }

    /// How long a bridge may be idle before something is due; zero for no limit.
    pub(super) fn idle_timeout(&self, bridge: &Bridge) -> Duration {
        let (settings, now) = (self.settings(), self.conns.now().millis());
        match bridge.handshake {
            Handshake::Reused { until: None } => Duration::ZERO,
            Handshake::Reused { until: Some(until) } => until.since(now).max(AT_ONCE),
            Handshake::Fresh if settings.bridge_timeout.is_zero() => settings.ping_interval,
            Handshake::Fresh => {
                let left = settings.bridge_timeout.saturating_sub(now.since(bridge.parked_at));
                left.min(settings.ping_interval).max(AT_ONCE)
            }
        }
    }

    /// Runs `look` on an idle bridge of this worker, which stays in the idle list. `None` if
    /// another worker has taken it over.
    fn with_idle<T>(
        &mut self,
        key: usize,
        look: impl FnOnce(&mut ParkedBridge, &mut Workspace) -> T,
    ) -> Option<T> {
        let (token, Parked { route, handle }) = self.conns.lent(key)?;
        let (route, handle) = (Arc::clone(route), *handle);
        let ws = &mut self.conns.ws;
        self.scheduler.with_idle(&route, handle, token.word(), |bridge| look(bridge, ws))
    }

    /// The deadline of an idle bridge has passed: ping it, leaving it in the idle list, or end it.
    pub(super) fn idle_bridge_timed_out(&mut self, key: usize) {
        let (limit, interval) = (self.settings().bridge_timeout, self.settings().ping_interval);
        let now = self.conns.now().millis();
        let due = self.with_idle(key, |connection, ws| {
            let Some(Role::Idle(bridge)) = connection.role() else { return Due::Close };
            let left = limit.saturating_sub(now.since(bridge.parked_at));
            match bridge.handshake {
                Handshake::Reused { .. } => Due::Close,
                Handshake::Fresh if !limit.is_zero() && left.is_zero() => Due::Reject,
                // If the last ping is still queued, the peer is not reading.
                Handshake::Fresh if !connection.conn.output.is_empty() => Due::Close,
                Handshake::Fresh => {
                    // A ping that goes out only in part leaves it busy, until it parks again.
                    let was_idle = bridge.keeping.set_busy();
                    let sent = connection.conn.send(CONTINUE, &mut ws.pool);
                    if was_idle
                        && connection.conn.output.is_empty()
                        && let Some(bridge) = connection.role().and_then(Role::bridge)
                    {
                        bridge.keeping.set_idle_again();
                    }
                    match sent {
                        Ok(_) if limit.is_zero() => Due::Later(interval),
                        Ok(_) => Due::Later(interval.min(left).max(AT_ONCE)),
                        Err(_) => Due::Close,
                    }
                }
            }
        });
        match due {
            // Taken over.
            None => {}
            Some(Due::Later(after)) => self.conns.set_deadline(key, after),
            Some(_) if !self.reclaim(key) => {}
            Some(Due::Close) => self.end(key, End::Close),
            Some(Due::Reject) => {
                let reply = Reply::new(504, "no request came in time; try again");
                self.reject(key, Reason::BridgeTimeout, reply);
            }
        }
    }

    /// The kernel reports something about an idle bridge: it has closed, or it has sent bytes, which it
    /// must not unless they are about its places.
    pub(super) fn idle_bridge_event(&mut self, key: usize, event: &Event) {
        let Some((token, Parked { route, handle })) = self.conns.lent(key) else { return };
        let (route, handle) = (Arc::clone(route), *handle);
        let ws = &mut self.conns.ws;
        let notice = |bridge: &mut ParkedBridge| places::notice(bridge, event, ws);
        let heard = self.scheduler.hear_idle(&route, handle, token.word(), notice);
        // Another worker may have taken it over.
        if heard.is_some_and(|heard| heard != Heard::Quiet) && self.reclaim(key) {
            self.idle_bridge_spoke(key);
        }
    }

    /// An idle bridge, taken out of the idle list, has something to read, or has sent half a message.
    pub(super) fn idle_bridge_spoke(&mut self, key: usize) {
        match self.hear_idle(key) {
            Heard::Quiet => self.park(key),
            Heard::Half => self.await_rest(key),
            _ => self.close_broken_bridge(key),
        }
    }

    /// Closes a bridge that has ended, or sent something, while it had no request.
    pub(super) fn close_broken_bridge(&mut self, key: usize) {
        self.server_hung_up(key);
        self.end(key, End::Close);
    }

    /// Reads from a bridge that must be silent. True if there was nothing.
    pub(super) fn is_silent(&mut self, key: usize) -> bool {
        let (connection, ws) = self.conns.split(key);
        if connection.conn.is_broken() {
            return false;
        }
        match connection.conn.receive(&mut ws.scratch) {
            Received::Nothing => true,
            Received::Bytes(count) => {
                log::info!("backend {} sent bytes without a request", connection.peer);
                if !is_timeout_notice(&ws.scratch[..count]) {
                    self.bridge_sent_stray_bytes(key);
                }
                false
            }
            Received::End | Received::Broken(_) => false,
        }
    }

    /// Takes an idle bridge of this worker out of the idle list. False if another worker has
    /// taken it over.
    fn reclaim(&mut self, key: usize) -> bool {
        let Some((token, Parked { route, handle })) = self.conns.lent(key) else { return false };
        let Some(bridge) = self.scheduler.unpark(route, *handle, token.word()) else {
            return false;
        };
        self.conns.restore(bridge);
        true
    }

    /// Takes the idle bridges that `which` selects out of the idle lists. Returns their keys.
    pub(super) fn idle_bridges(&mut self, which: impl Fn(&Bridge) -> bool) -> Vec<usize> {
        self.idle_connections(|connection| {
            connection.role().and_then(Role::bridge).is_some_and(&which)
        })
    }

    /// Changes the idle bridges of this worker, which stay in the idle lists. `change` runs under the
    /// locks of their routes.
    pub(super) fn change_idle(&mut self, change: impl Fn(&mut Bridge)) {
        for key in self.conns.lent_keys() {
            self.with_idle(key, |connection, _| {
                if let Some(bridge) = connection.role_mut().and_then(Role::bridge_mut) {
                    change(bridge);
                }
            });
        }
    }

    /// As [`Worker::idle_bridges`], by the whole connection.
    pub(super) fn idle_connections(
        &mut self,
        which: impl Fn(&Connection<Role>) -> bool,
    ) -> Vec<usize> {
        let mut keys = Vec::new();
        for key in self.conns.lent_keys() {
            let selected = self.with_idle(key, |connection, _| which(connection));
            if selected == Some(true) && self.reclaim(key) {
                keys.push(key);
            }
        }
        keys
    }

    /// While draining: tells an idle bridge to dial again, or closes it.
    pub(super) fn close_idle_bridge(&mut self, key: usize) {
        if !self.reclaim(key) {
            return;
        }
        match self.conns.role(key) {
            Some(Role::Idle(bridge)) if bridge.handshake == Handshake::Fresh => {
                self.reject_shutting_down(key);
            }
            _ => self.end(key, End::Close),
        }
    }

    /// Brings a matched bridge to this worker: back into its slot, or over from the worker that
    /// parked it. `None` if it cannot be used; then it has been closed.
    pub(super) fn bring_here(&mut self, mut bridge: ParkedBridge, owner: Owner) -> Option<usize> {
        if owner.worker == self.index {
            return Some(self.conns.restore(bridge));
        }
        self.stats().moved.add(1);
        let released = self.shared.registries[owner.worker].deregister(bridge.conn.source());
        self.shared.mailboxes[owner.worker].post(Mail::TakenOver(Token::from_word(owner.token)));
        match released {
            Ok(()) => self.adopt(bridge),
            Err(error) => {
                log::warn!("worker {}: cannot take a bridge over: {error}", self.index);
                self.discard(bridge);
                None
            }
        }
    }

    /// Takes a bridge from another worker into the tables. `None` if it cannot be used; then it has
    /// been closed.
    fn adopt(&mut self, bridge: ParkedBridge) -> Option<usize> {
        let key = match self.conns.adopt(bridge) {
            Ok(key) => key,
            Err((error, bridge)) => {
                log::warn!("worker {}: cannot watch a bridge: {error}", self.index);
                self.discard(bridge);
                return None;
            }
        };
        let (connection, ws) = self.conns.split(key);
        // It may be used before the poll reports bytes that have arrived meanwhile.
        connection.conn.expect_input();
        if !connection.conn.flush(&mut ws.pool).unwrap_or(false) {
            self.end(key, End::Close);
            return None;
        }
        let (bridge, peer) = (self.conns.role(key).and_then(Role::bridge), self.conns[key].peer);
        if bridge.is_none_or(|bridge| self.must_dismiss(bridge, peer)) {
            self.end(key, End::Linger);
            return None;
        }
        Some(key)
    }

    /// Drops a bridge that is in no table.
    fn discard(&mut self, bridge: ParkedBridge) {
        if let Some(role) = bridge.role() {
            self.stats().role(role.letter()).less();
            if let Some(bridge) = role.bridge() {
                self.scheduler.leave(&bridge.route, bridge.membership(), self.conns.now());
            }
        }
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Mails a bridge to the worker where a request waits for it. That worker finds out whether it
    /// still works.
    fn transfer(&mut self, key: usize, transfer: routing::Transfer) {
        let bridge = match self.conns.remove(key) {
            Ok(bridge) => Some(bridge),
            Err(error) => {
                log::warn!("worker {}: cannot release a bridge: {error}", self.index);
                self.end(key, End::Close);
                None
            }
        };
        self.send_transfer(bridge, transfer);
    }

    fn send_transfer(&self, bridge: Option<ParkedBridge>, transfer: routing::Transfer) {
        self.shared.mailboxes[transfer.to].send(Mail::Transfer(Transfer { bridge, transfer }));
    }

    /// A bridge arrives for a request that waits here.
    pub(super) fn receive_transfer(&mut self, Transfer { bridge, transfer }: Transfer) {
        self.stats().moved.add(1);
        let bridge = bridge.and_then(|bridge| self.adopt(bridge));
        let request = Token::from_word(transfer.request);
        match (bridge, self.scheduler.receive(transfer.waiter)) {
            (Some(key), true) => self.reserve(key, request, transfer.pos),
            (Some(key), false) => self.park(key),
            (None, true) => self.requeue_request(request, transfer.pos),
            (None, false) => {}
        }
    }

    /// Collects the pairs that were found when a route was synced, or a backend had places again.
    pub(super) fn collect_matches(&mut self) {
        // A bridge that cannot be used leaves its place to another of its backend.
        while self.scheduler.has_found() {
            self.collect_match();
            self.collect_sent();
            self.collect_declined();
        }
    }

    fn collect_match(&mut self) {
        let Some(found) = self.scheduler.next_match() else { return };
        let Match { request, bridge, owner, pos } = found;
        let request = Token::from_word(request);
        match self.bring_here(bridge, owner) {
            Some(key) => self.reserve(key, request, pos),
            None => self.requeue_request(request, pos),
        }
    }

    fn collect_declined(&mut self) {
        if let Some((route, telling)) = self.scheduler.next_declined() {
            self.send_telling(&route, telling);
        }
    }

    fn collect_sent(&mut self) {
        let Some(Sent { bridge, owner, transfer }) = self.scheduler.next_sent() else { return };
        match self.bring_here(bridge, owner) {
            Some(key) => self.transfer(key, transfer),
            None => self.send_transfer(None, transfer),
        }
    }

    /// Serves the pairs found so far.
    pub(super) fn serve_pairs(&mut self) {
        self.collect_matches();
        for _ in 0..self.pairs.len() {
            let Some(Pair { requester, pos, responder }) = self.pairs.pop_front() else { return };
            let waits = self
                .conns
                .find(requester)
                .filter(|key| matches!(self.conns.role(*key), Some(Role::Queued { .. })));
            let reserved = self
                .conns
                .find(responder)
                .filter(|key| matches!(self.conns.role(*key), Some(Role::Reserved(_))));
            match (waits, reserved) {
                (Some(key), Some(bridge)) => self.serve_queued(key, pos, bridge),
                (Some(_), None) => self.requeue_request(requester, pos),
                (None, Some(bridge)) => self.park(bridge),
                (None, None) => {}
            }
        }
    }

    /// A request whose bridge was lost before they met goes back to its place in the queue.
    fn requeue_request(&mut self, requester: Token, pos: QueuePos) {
        let Some(key) = self.conns.find(requester) else { return };
        if let Some(Role::Queued { request, .. }) = self.conns.role(key) {
            let tries = request.tries;
            self.dispatch_again(key, Ticket { pos, tries });
        }
    }

    /// An exchange is done with a bridge: it parks again, or is closed.
    pub(super) fn release_bridge(&mut self, key: usize, reuse: Reuse) {
        let seconds = match reuse {
            Reuse::Keep(seconds) => seconds,
            Reuse::Close => return self.end(key, End::Close),
            Reuse::Stray => {
                self.bridge_sent_stray_bytes(key);
                return self.end(key, End::Close);
            }
        };
        let now = self.conns.now().millis();
        let until = seconds.map(|seconds| now + Duration::from_secs(seconds.into()));
        let until = self.kept_until(key, until);
        self.leave_exchange(key, |bridge| {
            bridge.handshake = Handshake::Reused { until };
            bridge.served = bridge.served.saturating_add(1);
        });
        self.ask_again(key);
        self.park(key);
    }

    /// An exchange failed before the bridge had seen a byte of the request: it parks again. With
    /// `is_new` it has not been told of one either.
    pub(super) fn return_bridge(&mut self, key: usize, is_new: bool) {
        self.take_back_unused(key, is_new);
        self.park(key);
    }

    /// The same, but for the parking.
    pub(super) fn take_back_unused(&mut self, key: usize, is_new: bool) {
        let until = self.kept_until(key, None);
        self.leave_exchange(key, |bridge| {
            if bridge.handshake == Handshake::Fresh && !is_new {
                // It has acknowledged, so it expects requests now.
                bridge.handshake = Handshake::Reused { until };
            }
        });
    }

    fn leave_exchange(&mut self, key: usize, change: impl FnOnce(&mut Bridge)) {
        let now = self.conns.now().millis();
        if let Some(Role::Responding { bridge, .. }) = self.conns.role_mut(key) {
            bridge.count_clients(-1);
            bridge.parked_at = now;
            change(bridge);
        }
    }

    /// Until when an idle bridge is kept: as its backend announced, and for a dialled server no
    /// longer than the settings allow.
    pub(super) fn kept_until(&self, key: usize, until: Option<Millis>) -> Option<Millis> {
        match self.conns.role(key).and_then(Role::bridge).map(|bridge| &bridge.origin) {
            Some(Origin::Dialled(_)) => self.server_idle_until(until),
            _ => until,
        }
    }
}
