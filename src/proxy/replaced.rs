//! While a new program takes over (`doc/upgrade.md`): what has nothing in progress goes to it, as
//! soon as that is so.
//!
//! ```text
//!   1. routes (worker 0) and idle bridges ──all workers are done──> `bridges-gone`
//!   2. clients between two requests, or in the middle of a head, and requests that wait
//!      and tunnels (`moved_tunnels.rs`)
//!      and bridges that an exchange has released, at the end of each turn, until nothing is left
//! ```
//!
//! In this order the new program, which accepts nothing before `bridges-gone`, never takes a host
//! for unknown whose backends are only on their way.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::{self, SeqCst};

use crate::bridge::BackendToken;
use crate::bridge::hostkey::Shown;
use crate::process::channel::Channel;
use crate::routing::Load;
use crate::time::Millis;

use super::closing::{self, End};
use super::leases::KeyLease;
use super::proofs::Held;
use super::role::{Admission, Bridge, Client, Handshake, Origin, Role, Route, Ticket};
use super::stats;
use super::upgrade::notes::{self, Batch, Moved, MovedBridge, MovedClient, MovedRole, MovedTicket};
use super::upgrade::old_programs::{Busy, BusyRoutes, OldProgram};
use super::upgrade::progress::{Replaced, Replacement};
use super::worker::Worker;

/// Most bridges in a message.
const BATCH: usize = 64;

/// In how many messages a worker sends its bridges at least, so that each worker of the new program
/// gets some.
const SHARES: usize = 16;

impl Worker {
    /// A new program serves: accepts nothing more, and leaves everything to it.
    pub(super) fn be_replaced(&mut self, replacement: Arc<Replacement>) {
        self.acceptor.suspend(self.conns.registry());
        let until = self.conns.now().millis() + self.settings().upgrade_timeout;
        self.replaced = Replaced { by: Some(replacement), until, ..Replaced::default() };
    }

    /// The new program has ended: goes on as before.
    pub(super) fn go_on(&mut self) {
        if std::mem::take(&mut self.replaced).is_on() {
            self.end_rests();
            self.begin_accepting();
            if let Some(store) = &self.shared.bridge_store {
                store.goes_on(self.shared.mailboxes.len());
            }
        }
    }

    /// Whether everything has gone to the new program, or has ended here. What still comes from the
    /// program that this one has replaced goes through here, and a worker that still accepts may
    /// leave a connection to this one.
    pub(super) fn has_left(&self) -> bool {
        let Some(replacement) = &self.replaced.by else { return false };
        // In this order: what another worker has accepted before it took part is counted.
        replacement.busy.load(Ordering::SeqCst) == 0
            && self.shared.open_connections() == 0
            && !self.shared.has_predecessor.load(Ordering::SeqCst)
            && replacement.leave()
    }

    /// Passes on what has nothing in progress.
    pub(super) fn pass_on(&mut self) {
        let Some(replacement) = self.replaced.by.clone() else { return };
        if self.conns.now().millis() >= self.replaced.until {
            self.drain();
        }
        if !self.replaced.is_due(self.conns.now().millis()) {
            return;
        }
        self.replaced.again = false;
        if self.index == 0 && !self.replaced.bridges_gone {
            self.replaced.again |= !self.describe_routes(&replacement.channel);
        }
        let gone = self.pass_bridges(&replacement.channel);
        if !self.replaced.bridges_gone && !self.replaced.again {
            self.replaced.bridges_gone = true;
            if replacement.busy.fetch_sub(1, Ordering::SeqCst) == 1 {
                match replacement.channel.send(notes::BRIDGES_GONE, b"", &[]) {
                    Ok(()) => self.wake_others(),
                    Err(_) => {
                        replacement.busy.fetch_add(1, Ordering::SeqCst);
                        (self.replaced.bridges_gone, self.replaced.again) = (false, true);
                    }
                }
            }
        }
        // Only now: the new program accepts nothing before it has them all.
        let are_counted = |key: &usize| self.bridge_of(*key).is_some_and(|of| of.group.is_some());
        let some_are_counted = gone.iter().any(are_counted);
        gone.into_iter().for_each(|key| self.depart(key));
        if some_are_counted {
            self.report_soon();
        }
        if replacement.busy.load(Ordering::SeqCst) == 0 {
            self.pass_clients(&replacement.channel);
            self.pass_tunnels(&replacement.channel);
            self.report(&replacement.channel);
        }
        self.replaced.looked(self.conns.now().millis());
    }

    /// Says which hosts and instances have bridges, which may all be busy, or have had some lately. False
    /// if that was not taken.
    fn describe_routes(&mut self, channel: &Channel) -> bool {
        let busy = self.busy_routes();
        let (routes, now) = (self.shared.directory.routes(), self.conns.now());
        routes.iter().all(|route| {
            let (spec, busy) = (route.spec(), busy.of(route.spec()));
            let instances = route.instances_there(now);
            let (first, others) = instances.split_at(instances.len().min(notes::INSTANCES));
            let parts = std::iter::once(first).chain(others.chunks(notes::INSTANCES));
            let mut lines = parts.map(|part| notes::route(spec, &busy, part));
            let said = lines.all(|line| channel.send(&line, b"", &[]).is_ok());
            if said {
                self.replaced.report.said_busy(spec.clone(), busy);
            }
            said
        })
    }

    /// How many bridges of each route have something in progress, here or in older programs.
    fn busy_routes(&self) -> BusyRoutes {
        let routes = self.shared.directory.routes();
        let mut tokens = None;
        let busy = routes.iter().map(|route| {
            let Load { members, parked, withdrawn, .. } = route.load();
            // A server that is up is a member of its site's route, and no bridge.
            let others = parked + withdrawn + self.config.pools.up_on(route);
            let bridges = members.saturating_sub(others);
            (route.spec().clone(), Busy { bridges, of: self.busy_backends(route, &mut tokens) })
        });
        busy.collect()
    }

    /// The same for the backends of a route that say how many places they have. `tokens`: of all
    /// backends by number, found when they are needed first.
    fn busy_backends(
        &self,
        route: &Route,
        tokens: &mut Option<HashMap<u64, BackendToken>>,
    ) -> Vec<(BackendToken, u32)> {
        let mut busy = route.in_progress_by_backend();
        if busy.is_empty() {
            return Vec::new();
        }
        // In an order that stays the same.
        busy.sort_unstable();
        let tokens = tokens.get_or_insert_with(|| self.shared.backends.tokens());
        busy.into_iter().filter_map(|(of, count)| Some((*tokens.get(&of)?, count))).collect()
    }

    /// A bridge has gone over that the new program counts as one of those in use here.
    fn report_soon(&self) {
        if let Some(by) = &self.replaced.by {
            by.report_soon.store(true, SeqCst);
        }
    }

    /// Worker 0 says what is still here, when that has changed.
    fn report(&mut self, channel: &Channel) {
        let now = self.conns.now().millis();
        if self.index != 0 {
            return;
        }
        let soon = self.replaced.by.as_ref().is_some_and(|by| by.report_soon.swap(false, SeqCst));
        if !soon && !self.replaced.report.is_due(now) {
            return;
        }
        self.replaced.report.looked(now);
        let all = &self.shared.stats;
        let tunnels = stats::sum(all, |stats| &stats.tunnels);
        let own = OldProgram {
            process: std::process::id(),
            tunnels,
            exchanges: stats::in_progress(all).saturating_sub(tunnels),
            connections: self.shared.open_connections() as u64,
        };
        let programs = [vec![own], self.shared.old_programs.all()].concat();
        if let Some(line) = self.replaced.report.programs(&programs)
            && channel.send(&line, b"", &[]).is_ok()
        {
            self.replaced.report.said_programs(programs);
        }
        for (spec, busy) in self.replaced.report.changes(&self.busy_routes()) {
            if channel.send(&notes::route(&spec, &busy, &[]), b"", &[]).is_err() {
                return;
            }
            self.replaced.report.said_busy(spec, busy);
        }
    }

    /// Sends the idle bridges. Returns those that were taken, which are still in the tables.
    fn pass_bridges(&mut self, channel: &Channel) -> Vec<usize> {
        let aside = self.conns.keys_with(|role| matches!(role, Role::Aside(_)));
        let mut keys = [aside, self.idle_bridges(|_| true)].concat();
        // The first to come is the first to go.
        keys.sort_by_key(|&key| self.bridge_of(key).map(|bridge| bridge.parked_at));
        // The new program's workers take a message each in turn.
        let most = (keys.len() / SHARES).clamp(1, BATCH);
        let (mut batch, mut gone) = ((Batch::default(), Vec::new()), Vec::new());
        for key in keys {
            match self.bridge_of(key) {
                // The new program dials by itself.
                Some(Bridge { origin: Origin::Dialled(_), .. }) => self.end(key, End::Close),
                Some(bridge) if bridge.dismissed => self.end(key, End::Linger),
                // It does not read, or has sent something: what is to come of it shows when it is
                // parked.
                _ if !self.is_quiet(key) => self.park(key),
                _ if !self.conns[key].conn.can_move() => self.relay_bridge(channel, key),
                // Alone: the certificates may fill a message.
                Some(bridge) if bridge.through_old.is_some() => {
                    self.send_through_old(channel, key, &mut gone);
                }
                _ => {
                    self.add_bridge(key, &mut batch.0);
                    batch.1.push(key);
                    if batch.0.is_full(most) {
                        self.send_bridges(channel, std::mem::take(&mut batch), &mut gone);
                    }
                }
            }
        }
        self.send_bridges(channel, batch, &mut gone);
        gone
    }

    /// Sends a bridge that has come through an older program.
    fn send_through_old(&mut self, channel: &Channel, key: usize, gone: &mut Vec<usize>) {
        let entry = self.bridge_entry(key).filter(|_| !self.replaced.again);
        let socket = self.conns[key].conn.as_fd();
        let is_sent = entry.is_some_and(|(moved, registration)| {
            channel.send(&moved.line(), registration.as_bytes(), &[socket]).is_ok()
        });
        match is_sent {
            true => gone.push(key),
            false => {
                self.replaced.again = true;
                self.park(key);
            }
        }
    }

    /// Sends a bridge whose TLS stays here.
    fn relay_bridge(&mut self, channel: &Channel, key: usize) {
        let is_counted = self.bridge_of(key).is_some_and(|bridge| bridge.group.is_some());
        let Some((moved, registration)) = self.bridge_entry(key).filter(|_| !self.replaced.again)
        else {
            return self.park(key);
        };
        let (line, bytes) = (moved.line(), registration.into_bytes());
        match self.relay(key, |_, end| channel.send(&line, &bytes, &[end.as_fd()]).is_ok()) {
            Some(true) if is_counted => self.report_soon(),
            Some(true) => {}
            // Its backend dials again, and then the new program.
            None => self.end(key, End::Linger),
            Some(false) => {
                self.replaced.again = true;
                self.park(key);
            }
        }
    }

    /// Sends a message with bridges. If it is not taken, they are parked again.
    fn send_bridges(
        &mut self,
        channel: &Channel,
        (batch, keys): (Batch, Vec<usize>),
        gone: &mut Vec<usize>,
    ) {
        if keys.is_empty() {
            return;
        }
        let (line, bytes) = batch.message();
        let sockets: Vec<_> = keys.iter().map(|&key| self.conns[key].conn.as_fd()).collect();
        // After a message that was not taken no other is tried in this turn: each costs time.
        if !self.replaced.again && channel.send(&line, &bytes, &sockets).is_ok() {
            gone.extend(keys);
        } else {
            self.replaced.again = true;
            keys.into_iter().for_each(|key| self.park(key));
        }
    }

    fn pass_clients(&mut self, channel: &Channel) {
        let is_movable = |role: &Role| match role {
            Role::ReadingHead { client, .. } | Role::Queued { client, .. } => {
                // The nonce that it was sent is known here alone.
                matches!(client.admission, Admission::Admitted) && !client.must_prove()
            }
            _ => false,
        };
        for key in self.conns.keys_with(is_movable) {
            let conn = &self.conns[key].conn;
            if !conn.output.is_empty() || conn.is_handshaking() || !self.recall(key) {
                continue;
            }
            let is_sent = if self.conns[key].conn.can_move() {
                let is_sent = self.send_client(channel, key, None);
                if is_sent {
                    self.depart(key);
                }
                is_sent
            } else {
                let send = |worker: &mut Worker, end: &dyn AsFd| {
                    worker.send_client(channel, key, Some(end.as_fd()))
                };
                match self.relay(key, send) {
                    Some(is_sent) => is_sent,
                    None => {
                        // There are no descriptors: it goes later.
                        self.conns.requeue(key);
                        continue;
                    }
                }
            };
            if !is_sent {
                self.replaced.again = true;
                self.conns.requeue(key);
                return;
            }
        }
    }

    fn bridge_of(&self, key: usize) -> Option<&Bridge> {
        self.conns.role(key).and_then(Role::bridge)
    }

    /// Whether nothing is to be sent or has been received.
    fn is_quiet(&self, key: usize) -> bool {
        let conn = &self.conns[key].conn;
        conn.output.is_empty() && conn.input.is_empty()
    }

    /// Takes a request that waits out of the queues, as if it were to be tried again. False if a
    /// bridge is on its way to it.
    fn recall(&mut self, key: usize) -> bool {
        let Some(Role::Queued { request, .. }) = self.conns.role(key) else { return true };
        let tries = request.tries;
        let Some(pos) = self.scheduler.recall(request.waiter) else { return false };
        self.change_role(key, |role| {
            let retry = Some(Ticket { pos, tries });
            // Its head is whole, however many reads that took.
            role.with_client(|client| Role::ReadingHead {
                client: Client { head_begun: false, ..client },
                retry,
            })
        });
        true
    }

    fn add_bridge(&self, key: usize, batch: &mut Batch) {
        if let Some((moved, registration)) = self.bridge_entry(key) {
            batch.add(&moved, registration.as_bytes());
        }
    }

    /// All that another program must know of a bridge, and its BRIDGE request; nothing of a server
    /// that is dialled.
    pub(super) fn bridge_entry(&self, key: usize) -> Option<(Moved, String)> {
        let bridge = self.bridge_of(key)?;
        let moved = bridge_note(bridge);
        let (role, registration) = match &bridge.origin {
            Origin::Registered { .. } => (MovedRole::Bridge(moved), registration_of(bridge)),
            Origin::Swiftclient(backend) => {
                let (site, at) =
                    (backend.listener.site.to_string(), backend.listener.address.to_string());
                let id = backend.id().to_string();
                let role = MovedRole::Swiftclient { site, at, id, bridge: moved };
                (role, String::new())
            }
            Origin::Dialled(_) => return None,
        };
        Some((self.moved(key, role), registration))
    }

    /// Sends a client with what it has sent, which may take several messages; with `end` in place of
    /// its socket, if there is one.
    fn send_client(&self, channel: &Channel, key: usize, end: Option<BorrowedFd<'_>>) -> bool {
        let Some(Role::ReadingHead { client, retry }) = self.conns.role(key) else { return false };
        let moved = client_note(client, *retry);
        let (input, of) = (self.conns[key].conn.input.bytes(), (self.index, key));
        let mut at = 0;
        // A line with certificates leaves less room for what is behind it.
        let relayed = self.relayed(key);
        let most = if relayed.is_some() { Channel::MOST_BYTES / 2 } else { Channel::MOST_BYTES };
        while input.len() - at > most {
            let part = &input[at..at + most];
            if channel.send(&notes::part(of, at), part, &[]).is_err() {
                return false;
            }
            at += part.len();
        }
        let moved = MovedClient { before: (at > 0).then_some((of, at)), ..moved };
        let line = self.moved(key, MovedRole::Client(moved)).line();
        let socket = end.unwrap_or_else(|| self.conns[key].conn.as_fd());
        channel.send(&line, &input[at..], &[socket]).is_ok()
    }

    fn moved(&self, key: usize, role: MovedRole) -> Moved {
        let connection = &self.conns[key];
        let socket_peer = connection.socket_peer();
        let announced_by = (socket_peer != connection.peer).then_some(socket_peer);
        let relayed = self.relayed(key);
        Moved { peer: connection.peer, port: connection.port, announced_by, relayed, role }
    }

    /// A connection is the new program's from now on. Its socket stays open there.
    pub(super) fn depart(&mut self, key: usize) {
        match self.conns.remove(key) {
            Ok(mut connection) => {
                connection.conn.input.clear(&mut self.conns.ws.pool);
                if let Some(bridge) = connection.role_mut().and_then(Role::bridge_mut) {
                    bridge.keeping.give_away();
                    connection.set_shared(false);
                }
                if let Some(role) = connection.role() {
                    self.stats().role(role.letter()).less();
                    if let Some(bridge) = role.bridge() {
                        if matches!(role, Role::Responding { .. }) {
                            bridge.count_clients(-1);
                        }
                        closing::bridge_left(bridge, &mut self.scheduler, self.conns.now());
                    }
                }
                self.shared.connections.fetch_sub(1, Ordering::Relaxed);
                self.freed_any = true;
                let was_dialled = connection.role().is_some_and(Role::is_dialled);
                drop(connection);
                if was_dialled {
                    self.server_connection_freed();
                }
            }
            Err(error) => {
                log::warn!("worker {}: cannot release a connection: {error}", self.index);
                self.end(key, End::Close);
            }
        }
    }
}

/// As a message has it.
pub(super) fn micros(at: Millis) -> u64 {
    at.0 * 1000
}

/// A bridge, without how it came to be one.
pub(super) fn bridge_note(bridge: &Bridge) -> MovedBridge {
    MovedBridge {
        is_fresh: bridge.handshake == Handshake::Fresh,
        until: match bridge.handshake {
            Handshake::Reused { until } => until.map(micros),
            Handshake::Fresh => None,
        },
        parked_at: micros(bridge.parked_at),
        served: bridge.served,
        carried_body: bridge.carried_body,
        is_proven: bridge.shown() == Some(Shown::Proven),
        slot: bridge.keeping.slot(),
    }
}

/// The BRIDGE request of a bridge; nothing for one that came otherwise.
pub(super) fn registration_of(bridge: &Bridge) -> String {
    let Origin::Registered { keys, announced, .. } = &bridge.origin else { return String::new() };
    let agent = bridge.backend.seen().agent;
    let proofs = keys.as_deref().map_or(&[][..], KeyLease::proofs);
    let keys = proofs.iter().map(Held::key);
    let instance = bridge.instance.as_ref().map(|instance| &instance.name);
    notes::registration(bridge.route.spec(), keys, *announced, agent.as_deref(), instance)
}

/// A client, with the place of its request in the order of arrival.
pub(super) fn client_note(client: &Client, ticket: Option<Ticket>) -> MovedClient {
    let &Client { serves, requests, head_begun, redirect_https, since, .. } = client;
    let waits = ticket.map(|Ticket { pos, tries }| MovedTicket {
        since: pos.since().0,
        tie: pos.tie(),
        undelivered: tries.undelivered,
        delivered: tries.delivered,
        failed: tries.failed,
    });
    let since = micros(since);
    MovedClient { serves, requests, head_begun, redirect_https, since, waits, before: None }
}
