//! Which proxy may use the places of an application, where it has several (`doc/protocol.md`,
//! "Places"): proxies are told how many of their bridges may have a request at once, and what crosses
//! that is given back.
//!
//! The application's arbiter decides (`routing/places.rs`); here it is fed, and what it says is done.
//! A *party* is whose requests it counts: a proxy, or all those that cannot be told. A slot is
//! the same as a place; `slots.rs` has those that wait for one here.

use std::time::Duration;

use super::application::OTHERS;
use super::proxies::{Proxy, Sharing};
use super::role::{Bridge, Role, Stage, TunnelPlace};
use super::slots::Slot;
use super::state::Agent;
use crate::bridge::BackendToken;
use crate::bridge::places::{self, Places, Waiting};
use crate::exchange::Beginning;
use crate::exchange::body_pump::BodyPump;
use crate::http::request;
use crate::net::conn::Received;
use crate::net::event_loop::Connection;
use crate::net::sys;
use crate::net::token::Token;
use crate::routing::places::{Arbiter, Arrival};
use crate::time::{Micros, Millis};

/// How much of a body that is discarded is read at once, and how many times before other connections
/// run.
const READ: usize = 16 * 1024;
const DISCARDS: usize = 16;

impl Agent {
    /// The party of new bridges to a proxy.
    pub(super) fn party(&mut self, proxy: usize) -> usize {
        let proxy = &mut self.proxies[proxy];
        match &mut self.applications[proxy.application].arbiter {
            Some(arbiter) => *proxy.sharing.party.get_or_insert_with(|| arbiter.add()),
            None => OTHERS,
        }
    }

    /// Takes a slot of the application for the bridge, or lets it queue for one; unless what has come
    /// over the bridge can be given back.
    pub(super) fn take_slot(&mut self, key: usize) -> Slot {
        let token = self.conns[key].token();
        let Some(bridge) = self.bridge(key) else { return Slot::Queued };
        let &Bridge { application, party, slot: had_slot, .. } = bridge;
        let slot = match (had_slot, &self.applications[application].arbiter) {
            (true, _) => Slot::Taken,
            (false, Some(_)) => self.ask_for_slot(key, application, party),
            (false, None) => match self.applications[application].slots.take_or_enqueue(token) {
                true => Slot::Taken,
                false => Slot::Queued,
            },
        };
        if slot == Slot::Taken {
            if let Some(bridge) = self.bridge_mut(key) {
                bridge.slot = true;
            }
            self.slot_taken(application);
        }
        slot
    }

    /// The same, where the arbiter decides.
    fn ask_for_slot(&mut self, key: usize, application: usize, party: usize) -> Slot {
        let (now, token) = (self.conns.now(), self.conns[key].token());
        let has_place = |agent: &Agent| {
            let arbiter = &agent.applications[application].arbiter;
            arbiter.as_ref().is_some_and(|arbiter| arbiter.has_place(party))
        };
        let gives_back = !has_place(self) && self.gives_back(key);
        let app = &mut self.applications[application];
        let Some(arbiter) = &mut app.arbiter else { return Slot::Queued };
        match arbiter.arrives(party, gives_back, now) {
            Arrival::Take => {
                app.slots.take();
                Slot::Taken
            }
            Arrival::GiveBack(limit) => Slot::None { limit },
            Arrival::Wait => {
                app.slots.enqueue(token);
                arbiter.set_queued(app.slots.queued());
                Slot::Queued
            }
        }
    }

    /// Whether what has come over a bridge can be given back: a 101, or a request that the proxy holds
    /// whole. A program that is replaced has no say any more.
    fn gives_back(&self, key: usize) -> bool {
        if !self.listens(key) || self.replaced.is_some() {
            return false;
        }
        let Some(bridge) = self.bridge(key) else { return false };
        if let Stage::Matched = bridge.stage {
            return true;
        }
        let limits = &self.applications[bridge.application].exchange.limits;
        let mut storage = request::storage();
        let head = request::parse(self.conns[key].conn.input.bytes(), &mut storage, limits);
        matches!(head, Ok(Some(head)) if places::is_held(head.fields))
    }

    /// So many bridges wait for a slot of an application.
    pub(super) fn note_queue(&mut self, application: usize) {
        let app = &mut self.applications[application];
        if let Some(arbiter) = &mut app.arbiter {
            arbiter.set_queued(app.slots.queued());
        }
    }

    /// Whether the proxy at the other end is told how many places there are.
    pub(super) fn listens(&self, key: usize) -> bool {
        let Some(bridge) = self.bridge(key) else { return false };
        bridge.extensions.places && bridge.party != OTHERS
    }

    /// A bridge has been accepted.
    pub(super) fn begin_to_listen(&mut self, key: usize) {
        let (listens, Some(&Bridge { proxy, extensions, .. })) =
            (self.listens(key), self.bridge(key))
        else {
            return;
        };
        let sharing = &mut self.proxies[proxy].sharing;
        sharing.is_understood = extensions.places;
        if listens {
            sharing.bridges += 1;
            self.count_listeners(proxy);
        }
    }

    /// A bridge is no longer one with the token that the proxy is told of.
    fn stop_listening(&mut self, key: usize) {
        let (listens, token) = (self.listens(key), self.conns[key].token());
        let Some(bridge) = self.bridge_mut(key) else { return };
        let &mut Bridge { application, proxy, slot, tunnel, .. } = bridge;
        let party = std::mem::replace(&mut bridge.party, OTHERS);
        if !listens {
            // It is still being registered: when it has been accepted it counts for nobody.
            return;
        }
        if let Some(arbiter) = self.applications[application].arbiter.as_mut().filter(|_| slot) {
            arbiter.moves(party, OTHERS);
        }
        self.lose_listener(proxy, token, tunnel);
    }

    /// A bridge has left the tables.
    pub(super) fn listener_left(&mut self, token: Token, bridge: &Bridge) {
        if bridge.extensions.places && bridge.party != OTHERS {
            self.lose_listener(bridge.proxy, token, bridge.tunnel);
        }
    }

    /// A bridge has become a tunnel: it has no place any more, but the proxy counts it as before.
    pub(super) fn listener_is_tunnel(&mut self, key: usize) {
        if !self.listens(key) {
            return;
        }
        let Some(&Bridge { proxy, .. }) = self.bridge(key) else { return };
        self.proxies[proxy].sharing.tunnels += 1;
        self.count_listeners(proxy);
    }

    fn lose_listener(&mut self, proxy: usize, token: Token, tunnel: TunnelPlace) {
        let sharing = &mut self.proxies[proxy].sharing;
        sharing.bridges -= 1;
        sharing.tunnels -= usize::from(tunnel == TunnelPlace::Open);
        let is_heard = sharing.told_over.take_if(|told_over| *told_over == token).is_none();
        self.count_listeners(proxy);
        if !is_heard {
            // It may not have read what it was told.
            self.tell_again(proxy);
        }
    }

    fn count_listeners(&mut self, proxy: usize) {
        let Sharing { bridges, tunnels, .. } = self.proxies[proxy].sharing;
        self.with_arbiter(proxy, |arbiter, party| {
            arbiter.set_tunnels(party, tunnels);
            arbiter.set_bridges(party, bridges);
        });
    }

    /// New bridges to a proxy have another token than those that there are.
    pub(super) fn renew_party(&mut self, proxy: usize) {
        let is_old = |role: &Role| matches!(role, Role::Bridge(bridge) if bridge.proxy == proxy);
        for key in self.conns.keys_with(is_old) {
            self.stop_listening(key);
        }
        self.proxies[proxy].sharing.told_over = None;
        self.with_arbiter(proxy, Arbiter::renew);
    }

    /// A proxy may have been told something else than what is known here.
    pub(super) fn tell_again(&mut self, proxy: usize) {
        self.with_arbiter(proxy, Arbiter::tell_again);
    }

    /// Another program has so many requests and tunnels of this proxy.
    pub(super) fn set_elsewhere_of(&mut self, proxy: usize, count: usize) {
        self.with_arbiter(proxy, |arbiter, party| arbiter.set_elsewhere_of(party, count));
    }

    fn with_arbiter(&mut self, proxy: usize, change: impl FnOnce(&mut Arbiter, usize)) {
        let party = self.party(proxy);
        let application = self.proxies[proxy].application;
        if let Some(arbiter) = &mut self.applications[application].arbiter {
            change(arbiter, party);
        }
    }

    /// A proxy has said how long its requests wait.
    pub(super) fn hear(&mut self, key: usize, waiting: Waiting) {
        if !self.listens(key) {
            return;
        }
        let Some(&Bridge { application, party, .. }) = self.bridge(key) else { return };
        let now = self.conns.now();
        let Some(arbiter) = &mut self.applications[application].arbiter else { return };
        arbiter.waits(party, waiting.waited, waiting.at, now);
    }

    /// Tells the proxies what they do not know and should. The work of a turn is done.
    pub(super) fn tell_places(&mut self) {
        // Another program tells them.
        if self.replaced.is_some() {
            return;
        }
        let now = self.conns.now();
        for at in 0..self.shared.len() {
            let application = self.shared[at];
            while let Some((party, limit)) = self.next_to_tell(application, now) {
                if !self.tell(application, party, limit)
                    && let Some(arbiter) = &mut self.applications[application].arbiter
                {
                    arbiter.not_told(party, now);
                }
            }
            let app = &self.applications[application];
            let is_spare = app.arbiter.as_ref().is_some_and(|arbiter| arbiter.spare() > 0);
            if is_spare && app.slots.has_queue() {
                // It was kept for a proxy. The next turn gives it to a bridge (`serve_queues`).
                self.freed.push_back(application);
            }
        }
    }

    fn next_to_tell(&mut self, application: usize, now: Micros) -> Option<(usize, usize)> {
        self.applications[application].arbiter.as_mut()?.due(now)
    }

    /// When they are to be told something next.
    pub(super) fn when_to_tell(&self) -> Option<Millis> {
        if self.replaced.is_some() {
            return None;
        }
        let arbiters = self.shared.iter().filter_map(|at| self.applications[*at].arbiter.as_ref());
        let next = arbiters.filter_map(|arbiter| arbiter.next_deadline()).min()?;
        // From this turn on, in whole milliseconds: the loop waits as long.
        let now = self.conns.now();
        Some(now.millis() + Duration::from_millis(next.micros_since(now).div_ceil(1000)))
    }

    /// Tells a proxy its limit, over a bridge on which nothing is under way. False if there is none.
    fn tell(&mut self, application: usize, party: usize, limit: usize) -> bool {
        let is_it =
            |proxy: &Proxy| proxy.application == application && proxy.sharing.party == Some(party);
        let Some(proxy) = self.proxies.iter().position(is_it) else { return false };
        let Some(key) = self.silent_bridge(proxy, party) else { return false };
        let Some(message) = self.message(proxy, limit, places::write) else { return false };
        let (connection, ws) = self.conns.split(key);
        let (token, sent) = (connection.token(), connection.conn.send(&message, &mut ws.pool));
        match sent {
            Ok(_) => {
                self.proxies[proxy].sharing.told_over = Some(token);
                self.measure(key, proxy);
                true
            }
            Err(error) => {
                self.bridge_lost(key, &error);
                false
            }
        }
    }

    /// A bridge over which a proxy can be told: none with a request, or with bytes still to be sent.
    fn silent_bridge(&self, proxy: usize, party: usize) -> Option<usize> {
        let is_silent = |connection: &Connection<Role>| {
            let (Some(Role::Bridge(bridge)), conn) = (connection.role(), &connection.conn) else {
                return false;
            };
            bridge.proxy == proxy
                && bridge.party == party
                && bridge.extensions.places
                && matches!(bridge.stage, Stage::Parked { .. } | Stage::Idle { .. })
                && conn.output.is_empty()
                && !conn.is_broken()
                && !conn.has_hung_up()
        };
        let again = self.proxies[proxy].sharing.told_over.and_then(|token| self.conns.find(token));
        again
            .filter(|key| is_silent(&self.conns[*key]))
            .or_else(|| Some(self.conns.iter().find(|(_, connection)| is_silent(connection))?.0))
    }

    /// The next message to a proxy. Its number grows from program to program on this machine.
    fn message(
        &mut self,
        proxy: usize,
        limit: usize,
        write: fn(&mut Vec<u8>, Places, &BackendToken),
    ) -> Option<Vec<u8>> {
        let proxy = &mut self.proxies[proxy];
        let token = proxy.announcement.as_ref()?.token;
        let clock = u64::try_from(sys::monotonic().as_micros()).unwrap_or(0);
        proxy.sharing.sent = clock.max(proxy.sharing.sent + 1);
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let mut message = Vec::new();
        write(&mut message, Places { limit, at: proxy.sharing.sent }, &token);
        Some(message)
    }

    /// Finds out how far away a proxy is that has been told.
    fn measure(&mut self, key: usize, proxy: usize) {
        if let Some(time) = self.conns[key].conn.round_trip() {
            self.with_arbiter(proxy, |arbiter, party| arbiter.set_round_trip(party, time));
        }
    }

    /// Gives back what has come over a bridge, a request or a 101, for which there is no place; the
    /// proxy learns its limit by that. The bridge stays.
    pub(super) fn give_back(&mut self, key: usize, limit: usize, request: Option<Beginning>) {
        let Some(&Bridge { proxy, .. }) = self.bridge(key) else { return };
        let Some(answer) = self.message(proxy, limit, places::give_back) else {
            return self.close(key);
        };
        let (connection, ws) = self.conns.split(key);
        self.proxies[proxy].sharing.told_over = Some(connection.token());
        let (len, rest) = request.map_or((0, None), Beginning::into_rest);
        connection.conn.input.consume(len, &mut ws.pool);
        if connection.conn.send(&answer, &mut ws.pool).is_err() {
            return self.close(key);
        }
        self.conns.clear_deadline(key);
        match (rest, self.bridge_mut(key)) {
            (Some(rest), Some(bridge)) => {
                bridge.unread = Some(Box::new(rest));
                bridge.stage = Stage::Discarding;
                self.discard(key);
            }
            _ => self.await_request(key),
        }
    }

    /// Discards the body of a request that has been given back. If the proxy has not sent it whole, it
    /// closes the bridge.
    pub(super) fn discard(&mut self, key: usize) {
        let Some(mut rest) = self.bridge_mut(key).and_then(|bridge| bridge.unread.take()) else {
            return;
        };
        for _ in 0..DISCARDS {
            let (connection, ws) = self.conns.split(key);
            let conn = &mut connection.conn;
            let Ok(taken) = rest.take(conn.input.bytes(), &mut ws.out) else {
                return self.close(key);
            };
            conn.input.consume(taken, &mut ws.pool);
            if rest.is_done() {
                return self.await_request(key);
            }
            if conn.flush(&mut ws.pool).is_err() {
                return self.close(key);
            }
            match conn.receive(&mut ws.scratch[..READ]) {
                Received::Bytes(count) => conn.input.push(&ws.scratch[..count], &mut ws.pool),
                Received::Nothing => return self.keep_unread(key, rest),
                Received::End | Received::Broken(_) => return self.close(key),
            }
        }
        self.keep_unread(key, rest);
        self.conns.requeue(key);
    }

    fn keep_unread(&mut self, key: usize, rest: Box<BodyPump>) {
        if let Some(bridge) = self.bridge_mut(key) {
            bridge.unread = Some(rest);
        }
    }
}
