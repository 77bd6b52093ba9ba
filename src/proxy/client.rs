//! A connection is accepted, its first head shows what it is, and it sends requests.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::net::TcpStream;

use crate::bridge::{Registration, ptth, request as bridge_request};
use crate::config::Serves;
use crate::http::reply::ALLOW;
use crate::http::{Reply, request};
use crate::net::conn::Received;
use crate::net::log_limiter;
use crate::net::sys::is_shortage;

use super::challenges::PROOF_TIMEOUT;
use super::closing::End;
use super::dispatch::{Dispatched, Dispatcher, Found};
use super::drain::LAST_CHANCE;
use super::file_lookup::Looked;
use super::listeners::{Accepted, Acceptor, Accepts, Encryption, NewPeer, Pause};
use super::reason::Reason;
use super::reserve::NEWCOMER_TIMEOUT;
use super::role::{Admission, Client, QueuedRequest, Role, Ticket};
use super::shares::Counted;
use super::worker::Worker;

/// How many pipelined requests of one connection may be answered per turn.
const PIPELINE_BUDGET: usize = 16;

/// How much is read at once while a head is expected: a request stays in the input until its
/// response begins, so what is read must be kept.
pub(super) const HEAD_READ: usize = 16 * 1024;

/// How many connections are searched for idle clients to close when there is no room left.
const RECLAIM_SCAN: usize = 1024;

/// How long a client must have been idle to be closed for lack of room: an active one may be
/// sending its next request right now.
const RECLAIM_IDLE: Duration = Duration::from_secs(1);

/// `Retry-After` when something was full or timed out, in seconds. Backends that restart are
/// usually back by then.
pub(super) const RETRY_AFTER: u32 = 5;

impl Worker {
    /// Accepts at every listener that has connections waiting.
    pub(super) fn accept_all(&mut self) {
        for _ in 0..self.acceptor.ready_count() {
            let Some(listener) = self.acceptor.next_ready() else { return };
            for _ in 0..Acceptor::budget() {
                if !self.accept_one(listener) {
                    break;
                }
            }
            self.acceptor.requeue(listener, self.conns.registry());
            if self.acceptor.is_paused() {
                return;
            }
        }
    }

    /// Accepts one connection. False if there is none, or no room for it.
    pub(super) fn accept_one(&mut self, listener: usize) -> bool {
        let is_crowded = self.is_crowded();
        // Its place is taken before it is there: another worker may accept at the same moment.
        if !self.shared.reserve_connection(self.shares().accepted) {
            self.pause_accepting("max-connections is reached");
            return false;
        }
        let Some(peer) = self.accept_reserved(listener, is_crowded) else {
            self.shared.give_up_reserved();
            return false;
        };
        if let Some(worker) = self.better_place(&peer) {
            self.pass_peer(worker, peer);
            return true;
        }
        let is_welcome = self.welcome_peer(peer);
        self.shared.give_up_reserved();
        is_welcome
    }

    /// Accepts one connection, for which a place is reserved.
    fn accept_reserved(&mut self, listener: usize, is_crowded: bool) -> Option<NewPeer> {
        if is_crowded && self.acceptor.is_for_clients(listener) {
            self.pause_clients();
            return None;
        }
        match self.acceptor.accept(listener) {
            Accepted::Peer(mut peer) => {
                if is_crowded && peer.may_be_client() {
                    peer.newcomer = self.shared.newcomers.enter(usize::MAX);
                }
                return Some(peer);
            }
            Accepted::Nothing => {}
            Accepted::Ended => self.acceptor.close(listener, self.conns.registry()),
            Accepted::Shortage(error) => self.accept_failed(&error),
        }
        None
    }

    /// Takes a connection that has been accepted into the tables, unless its address has too many.
    /// False if the kernel has no room for it; then it is closed.
    pub(super) fn welcome_peer(&mut self, peer: NewPeer) -> bool {
        let NewPeer { stream, address, accepts, announces, encryption, newcomer } = peer;
        let timeout = self.first_timeout(newcomer.is_some());
        if announces {
            let encryption = Box::new(encryption);
            let role = Role::AwaitingProxyHeader { accepts, newcomer, encryption };
            return self.insert_peer(stream, address, role, timeout).is_some();
        }
        let Some(role) = self.first_role(address.ip(), accepts, newcomer, &encryption) else {
            return true;
        };
        let Some(key) = self.insert_peer(stream, address, role, timeout) else { return false };
        self.start_tls(key, &encryption);
        true
    }

    /// How long a new connection may take to send its first head.
    fn first_timeout(&self, is_newcomer: bool) -> Duration {
        let timeout = self.config.settings.head_timeout;
        match is_newcomer {
            // Another worker has accepted it before it was told to drain.
            _ if !self.is_serving() => timeout.min(LAST_CHANCE),
            true => timeout.min(NEWCOMER_TIMEOUT),
            false => timeout,
        }
    }

    fn accept_failed(&mut self, error: &io::Error) {
        if is_shortage(error) {
            self.pause_accepting("no descriptors or memory are left");
        } else {
            self.pause_accepting(&format!("accept failed: {error}"));
        }
    }

    /// A connection has been accepted. `None` if there is no room for it.
    fn insert_peer(
        &mut self,
        stream: TcpStream,
        from: SocketAddr,
        role: Role,
        timeout: Duration,
    ) -> Option<usize> {
        let Ok(key) = self.insert(stream, from.ip(), role) else {
            self.pause_accepting("the kernel cannot watch more sockets");
            return None;
        };
        self.conns[key].port = from.port();
        self.stats().accepted.add(1);
        self.conns.set_deadline(key, timeout);
        Some(key)
    }

    /// What a connection is before its own first bytes have come: a newcomer, if it was accepted
    /// into the reserve. `None` if its address has as many as it may have.
    pub(super) fn first_role(
        &mut self,
        peer: IpAddr,
        accepts: Accepts,
        newcomer: Option<Counted>,
        encryption: &Encryption,
    ) -> Option<Role> {
        let serves = match accepts {
            Accepts::Http(serves) => serves,
            Accepts::Swiftclient(listener) => return Some(Role::AwaitingPreamble { listener }),
            // The admin thread accepts there.
            Accepts::Admin { .. } | Accepts::AgentCheck => return None,
        };
        let mut client = Client::new(serves, self.conns.now().millis());
        client.is_https = encryption.tls.is_some();
        client.redirect_https = encryption.redirect_https;
        if let Some(newcomer) = newcomer {
            client.admission = Admission::Newcomer(newcomer);
        }
        let most = self.config.settings.connections_per_address;
        if serves != Serves::Bridges && most > 0 {
            match self.shared.addresses.permit(peer, most) {
                None => {
                    self.note_surplus(peer, most);
                    return None;
                }
                permit => client.address = permit,
            }
        }
        Some(Role::ReadingHead { client, retry: None })
    }

    /// A client's address has as many connections as it may have: one more is just closed.
    fn note_surplus(&mut self, peer: IpAddr, most: usize) {
        self.stats().refusals.of(Reason::AddressLimit).add(1);
        if let Some(count) = self.address_surplus.allow(self.conns.now().millis()) {
            let others = log_limiter::suppressed(count, " closed");
            log::warn!(
                "client {peer} closed: its address has {most} connections, which is \
                 connections-per-address{others}"
            );
        }
    }

    /// Pauses accepting, and makes room.
    fn pause_accepting(&mut self, why: &str) {
        if self.acceptor.pause(Pause::All, self.conns.now().millis()) {
            log::warn!("worker {}: accepting pauses: {why}", self.index);
        }
        self.refuse_held();
        self.reclaim_idle_clients();
    }

    /// Pauses accepting where only clients come, and makes room.
    fn pause_clients(&mut self) {
        if self.acceptor.pause(Pause::Clients, self.conns.now().millis()) {
            log::warn!("worker {}: accepting pauses: clients have their whole share", self.index);
        }
        self.reclaim_idle_clients();
    }

    /// Closes clients between two requests: they may be closed at any time (RFC 9112 section 9.3),
    /// and a backend that reconnects must get in.
    pub(super) fn reclaim_idle_clients(&mut self) {
        let mut closed = 0;
        for _ in 0..RECLAIM_SCAN.min(self.conns.capacity()) {
            self.reclaim_from = (self.reclaim_from + 1) % self.conns.capacity();
            if closed < Acceptor::budget() && self.is_long_idle(self.reclaim_from) {
                self.end(self.reclaim_from, End::Close);
                closed += 1;
            }
        }
    }

    fn is_long_idle(&self, key: usize) -> bool {
        let Some(Role::ReadingHead { client, .. }) = self.conns.role(key) else { return false };
        let idle = self.conns.now().millis().since(client.since);
        client.requests > 0 && idle >= RECLAIM_IDLE && self.conns[key].conn.is_idle()
    }

    /// Reads heads and dispatches them, until there is none or the budget is used up.
    pub(super) fn read_heads(&mut self, key: usize) {
        for _ in 0..PIPELINE_BUDGET {
            let is_admitted = match self.conns.role(key) {
                Some(Role::ReadingHead { client, .. }) => {
                    matches!(client.admission, Admission::Admitted)
                }
                _ => return,
            };
            if !is_admitted && self.is_held(key) {
                return self.watch_held(key);
            }
            if !self.receive_head(key) || (!is_admitted && self.holds_newcomer(key)) {
                return;
            }
            self.dispatch(key);
        }
        self.conns.requeue(key);
    }

    /// Reads something to dispatch into the input, unless it has some. False if there is nothing.
    fn receive_head(&mut self, key: usize) -> bool {
        let (connection, ws) = self.conns.split(key);
        let (head_begun, is_first) = match connection.role() {
            Some(Role::ReadingHead { client, .. }) => (client.head_begun, client.requests == 0),
            _ => return false,
        };
        let conn = &mut connection.conn;
        let queued = conn.output.len();
        // First the rest of the last response. Until the client has taken it, no more of its input
        // is read.
        match conn.flush(&mut ws.pool) {
            // The client has taken its response, and is idle from now on.
            Ok(true) if queued > 0 && !head_begun => {
                self.conns.set_deadline(key, self.config.settings.keepalive_timeout);
                self.conns.requeue(key);
                return false;
            }
            Ok(true) => {}
            Ok(false) => {
                if conn.output.len() < queued {
                    connection.note_queue();
                    self.conns.set_deadline(key, self.config.settings.body_timeout);
                }
                return false;
            }
            Err(_) => {
                self.end(key, End::Close);
                return false;
            }
        }
        if !conn.input.is_empty() && !head_begun {
            return true;
        }
        match conn.receive(&mut ws.scratch[..HEAD_READ]) {
            Received::Bytes(count) => {
                conn.input.push(&ws.scratch[..count], &mut ws.pool);
                // A registration is no traffic of a client.
                if !is_first || bridge_request::is_bridge(conn.input.bytes()) == Some(false) {
                    ws.traffic.received += count as u64;
                }
                return true;
            }
            Received::Nothing => {}
            Received::End if !conn.input.is_empty() => {
                let reply = Reply::new(400, "the connection ended in mid-head");
                self.refuse_head(key, Reason::IncompleteRequest, reply);
            }
            Received::End => self.end(key, End::Close),
            Received::Broken(_) => {
                if !conn.input.is_empty() {
                    self.record_lost_head(key);
                }
                self.end(key, End::Close);
            }
        }
        false
    }

    /// Dispatches the head at the front of the input: decides while the head is parsed in place,
    /// then acts.
    fn dispatch(&mut self, key: usize) {
        self.dispatch_looked(key, None);
    }

    /// The same, once a thread has looked for a file.
    pub(super) fn dispatch_looked(&mut self, key: usize, looked: Option<Looked>) {
        let now = self.conns.now();
        let (connection, ws) = self.conns.split(key);
        let mut found = Found::default();
        if self.config.access_log.is_some()
            && let Some(Role::ReadingHead { client, .. }) = connection.role_mut()
        {
            found.record = client.record.take();
        }
        let Some(Role::ReadingHead { client, retry }) = connection.role() else { return };
        let dispatcher = Dispatcher {
            config: &self.config,
            exchange_config: &self.exchange_config,
            scheduler: &mut self.scheduler,
            managers: &self.shared.managers,
            key_limits: &self.shared.key_limits,
            name: &mut self.name,
            ids: &mut self.request_ids,
            out: &mut ws.out,
            files: &mut self.files,
            looked,
            is_serving: self.shutdown.is_serving(),
            now,
        };
        let decision = dispatcher.decide(client, *retry, connection, &mut found);
        let is_ours = matches!(
            decision,
            Dispatched::Info { .. } | Dispatched::Health { .. } | Dispatched::Tenant(_)
        );
        if found.any()
            && let Some(Role::ReadingHead { client, .. }) = connection.role_mut()
        {
            found.give(client, self.config.access_log.as_ref(), is_ours);
        }
        match decision {
            Dispatched::Partial => self.head_begun(key),
            Dispatched::Bridge(registration) => self.dispatch_bridge(key, registration),
            Dispatched::RejectBridge { reason, status, text } => {
                let reply = Reply::new(status, &text);
                // Only what a PTTH request asks for is refused with 401 here.
                let extra = if status == 401 { ptth::CHALLENGE } else { reply.extra };
                self.reject_bridge(key, reason, Reply { extra, ..reply });
            }
            Dispatched::Reject { reason, status, text, head_only } => {
                let retry_after = match status {
                    // A key's requests are counted by the second.
                    429 => Some(1),
                    503 | 504 => Some(RETRY_AFTER),
                    _ => None,
                };
                let reply = Reply::new(status, text);
                self.refuse(key, reason, Reply { head_only, retry_after, ..reply });
            }
            Dispatched::Redirect { location } => self.answer_redirect(key, &location),
            Dispatched::Info { head_only } => self.answer_info(key, head_only),
            Dispatched::Health { head_only } => self.answer_health(key, head_only),
            Dispatched::Tenant(asked) => self.answer_tenant(key, &asked),
            Dispatched::LastHop { traced } => self.answer_last_hop(key, traced),
            Dispatched::File(from) => self.serve_file(key, from),
            Dispatched::Open(to_open, received) => self.open_later(key, to_open, received),
            Dispatched::Queued(request, timeout) => self.queue(key, request, timeout),
            Dispatched::Matched(matched) => self.serve_matched(key, matched),
        }
    }

    /// Answers a request that may not be forwarded any further (RFC 9110, section 7.6.2).
    fn answer_last_hop(&mut self, key: usize, traced: bool) {
        if traced {
            let text = "this proxy does not answer TRACE itself";
            let extra = "Allow: OPTIONS\r\n";
            let reply = Reply { extra, ..Reply::new(405, text) };
            return self.refuse(key, Reason::MethodNotAllowed, reply);
        }
        let reply = Reply { extra: ALLOW, ..Reply::new(204, "") };
        self.record_answer(key, None, &reply, true);
        self.end(key, End::Reply(reply));
    }

    /// Sends a client to the same place by https (RFC 9110, section 15.4.9).
    fn answer_redirect(&mut self, key: usize, location: &str) {
        let extra = format!("Location: {location}\r\n");
        let reply = Reply { extra: &extra, ..Reply::new(308, "this host is reached by https") };
        self.record_answer(key, None, &reply, true);
        self.end(key, End::Reply(reply));
    }

    fn dispatch_bridge(&mut self, key: usize, registration: Registration) {
        let (connection, ws) = self.conns.split(key);
        connection.conn.input.clear(&mut ws.pool);
        if let Some(registration) = self.with_proofs(key, registration) {
            self.register(key, &registration);
        }
    }

    /// A head has begun: the rest must follow within `head-timeout`, whatever trickles in
    /// meanwhile. Empty lines begin none (RFC 9112, section 2.2): old clients send one after a body.
    fn head_begun(&mut self, key: usize) {
        let (connection, ws) = self.conns.split(key);
        let input = &mut connection.conn.input;
        if request::is_blank(input.bytes()) && input.bytes().ends_with(b"\n") {
            input.clear(&mut ws.pool);
            if let Some(Role::ReadingHead { client, .. }) = connection.role_mut() {
                client.head_begun = false;
            }
            return;
        }
        let now = self.conns.now().millis();
        if let Some(Role::ReadingHead { client, .. }) = self.conns.role_mut(key)
            && !std::mem::replace(&mut client.head_begun, true)
        {
            client.since = now;
            self.conns.set_deadline(key, self.config.settings.head_timeout);
        }
    }

    /// A head was not complete in time, or nothing came at all.
    pub(super) fn head_timed_out(&mut self, key: usize) {
        let connection = &mut self.conns[key];
        if !connection.conn.output.is_empty() && connection.note_queue() {
            return self.conns.set_deadline(key, self.config.settings.body_timeout);
        }
        match self.conns.role(key) {
            Some(Role::ReadingHead { .. }) if self.is_held(key) => self.refuse_client(key),
            Some(Role::ReadingHead { client, .. }) if client.must_prove() => {
                self.reject_bridge(key, Reason::BadBridge, Reply::new(408, PROOF_TIMEOUT));
            }
            Some(Role::ReadingHead { client, .. })
                if client.head_begun && !request::is_blank(self.conns[key].conn.input.bytes()) =>
            {
                let reply = Reply::new(408, "the request's head did not come in time");
                self.refuse_head(key, Reason::HeadTimeout, reply);
            }
            _ => self.end(key, End::Close),
        }
    }

    /// A head will not become whole: the client, or backend, whose it is gets this answer.
    fn refuse_head(&mut self, key: usize, reason: Reason, reply: Reply<'_>) {
        let connection = &self.conns[key];
        let is_first = match connection.role() {
            Some(Role::ReadingHead { client, .. }) => client.requests == 0,
            _ => false,
        };
        match is_first && bridge_request::is_bridge(connection.conn.input.bytes()) == Some(true) {
            true => self.reject_bridge(key, Reason::BadBridge, reply),
            false => self.refuse(key, reason, reply),
        }
    }

    /// A request is in the queues of the routes that could serve it.
    fn queue(&mut self, key: usize, request: QueuedRequest, timeout: Duration) {
        let waiter = request.waiter;
        self.change_role(key, |role| role.with_client(|client| Role::Queued { client, request }));
        self.conns.set_deadline(key, timeout);
        self.wake_probers();
        if self.shared.has_groups.load(Ordering::Relaxed) {
            self.tell_of(waiter);
        }
        self.watch_queued(key);
    }

    /// Dispatches the request in a client's input once more, in its old place.
    pub(super) fn dispatch_again(&mut self, key: usize, ticket: Ticket) {
        // It is dispatched only when the client has taken the response before.
        self.conns.set_deadline(key, self.config.settings.body_timeout);
        self.change_role(key, |role| {
            role.with_client(|client| {
                let client = Client { head_begun: false, ..client };
                Role::ReadingHead { client, retry: Some(ticket) }
            })
        });
        self.conns.requeue(key);
    }

    /// A client is between two requests.
    pub(super) fn next_request(&mut self, key: usize) {
        let now = self.conns.now().millis();
        self.change_role(key, |role| {
            role.with_client(|client| Role::ReadingHead {
                client: client.after_response(now),
                retry: None,
            })
        });
        let connection = &mut self.conns[key];
        let settings = &self.config.settings;
        let timeout = if connection.conn.output.is_empty() {
            settings.keepalive_timeout
        } else {
            connection.note_queue();
            settings.body_timeout
        };
        self.conns.set_deadline(key, timeout);
        if !self.conns[key].conn.is_idle() {
            self.conns.requeue(key);
        }
    }
}
