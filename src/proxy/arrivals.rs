//! A connection arrives, says what it is, and sends its heads.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::bridge::{Registration, request as bridge_request};
use crate::config::Serves;
use crate::http::reply::Reply;
use crate::http::request::{self, Request};
use crate::http::{Decoder, Framing, ParseError};
use crate::net::buffer::Buffer;
use crate::net::conn::{LingerProgress, LingerStep, Received};

use super::gates::Purpose;
use super::role::{Client, Head, Role};
use super::worker::{Life, Worker};

/// How many connections one listener may bring per turn: the others are served in between.
const ACCEPT_BUDGET: usize = 64;

/// How many requests one connection may have answered per turn when they come pipelined.
const PIPELINE_BUDGET: usize = 16;

/// How much is read at once while a head is expected: what is read has to be kept, since a
/// request stays in the input until its response begins.
const HEAD_READ: usize = 16 * 1024;

/// How many slots are looked at for an idle connection to close when there is no room left.
const RECLAIM_SCAN: usize = 1024;

/// How often it is said that accepting pauses, in milliseconds.
const SAY_AGAIN: u64 = 10_000;

/// What a refusal of a method says is allowed (RFC 9110, 15.5.6).
const ALLOW: &str = "Allow: GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS, TRACE\r\n";

/// How long a client must have been between two requests to be closed for that, in
/// milliseconds: one that is in the middle of its work is likely to send the next one just now.
const RECLAIM_IDLE: u64 = 1000;

/// What came of looking at the front of the input.
enum Looked {
    /// The head is not whole yet.
    Partial,
    /// Somebody has taken the connection in hand; it is no longer being read from here.
    Settled,
    /// A backend registers.
    Bridge(Registration),
}

impl Worker {
    /// Accepts at every listener that has connections waiting.
    pub(super) fn accept_all(&mut self) {
        for _ in 0..self.knocking.len() {
            if self.paused.is_some() {
                return;
            }
            let Some(door) = self.knocking.pop_front() else { return };
            if self.doors.contains(door) {
                self.accept_at(door);
                if self.doors[door].ready {
                    self.knocking.push_back(door);
                }
            }
        }
    }

    /// Notes that connections wait at a listener.
    pub(super) fn knock(&mut self, door: usize) {
        if let Some(here) = self.doors.get_mut(door)
            && !std::mem::replace(&mut here.ready, true)
        {
            self.knocking.push_back(door);
        }
    }

    pub(super) fn accept_at(&mut self, door: usize) {
        for _ in 0..ACCEPT_BUDGET {
            if self.shared.open_connections() >= self.accept_limit() {
                return self.no_room("max-connections is reached");
            }
            match self.doors[door].listener.accept() {
                Ok((stream, peer)) => {
                    let role = match &self.doors[door].purpose {
                        Purpose::Listen(serves) => {
                            Role::Reading(Client::new(*serves, self.now.millis()))
                        }
                        Purpose::Inlet(inlet) => Role::Announcing { inlet: Arc::clone(inlet) },
                    };
                    let Ok(key) = self.insert(stream, peer, role) else {
                        return self.no_room("the kernel cannot watch more sockets");
                    };
                    self.shared.connections.fetch_add(1, Ordering::Relaxed);
                    self.stats().accepted.add(1);
                    self.set_deadline(key, self.settings().head_timeout);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.doors[door].ready = false;
                    return;
                }
                Err(error) if is_shortage(&error) => {
                    return self.no_room("no descriptors or memory are left");
                }
                // The connection was gone before we took it (accept(2), "Error handling").
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return self.no_room(&format!("accept failed: {error}")),
            }
        }
    }

    /// Whether connections are known to wait for the next turn.
    pub(super) fn has_arrivals(&self) -> bool {
        self.paused.is_none() && !self.knocking.is_empty()
    }

    /// Pauses accepting, and makes room by closing clients that are between two requests: they
    /// may be closed at any time (RFC 9112, 9.3), and a backend that comes back must get in.
    fn no_room(&mut self, why: &str) {
        let now = self.now.millis();
        if self.shortage_said.is_none_or(|said| now >= said + SAY_AGAIN) {
            self.shortage_said = Some(now);
            log::warn!("worker {}: accepting pauses: {why}", self.index);
        }
        self.pause_accepting();
        let mut closed = 0;
        for _ in 0..RECLAIM_SCAN.min(self.slots.capacity()) {
            self.reclaim_from = (self.reclaim_from + 1) % self.slots.capacity();
            if closed < ACCEPT_BUDGET && self.is_long_idle(self.reclaim_from) {
                self.close(self.reclaim_from);
                closed += 1;
            }
        }
    }

    fn is_long_idle(&self, key: usize) -> bool {
        let Some(slot) = self.slots.get(key) else { return false };
        let Role::Reading(client) = slot.role else { return false };
        let idle = self.now.millis().saturating_sub(client.idle_since);
        client.requests > 0 && idle >= RECLAIM_IDLE && slot.conn.is_idle()
    }

    /// Reads heads, and has each settled, until there is none.
    pub(super) fn read_head(&mut self, key: usize) {
        for _ in 0..PIPELINE_BUDGET {
            let Role::Reading(client) = self.slots[key].role else {
                return;
            };
            let conn = &mut self.slots[key].conn;
            let standing = conn.output.len();
            // What the last response left comes first; a client that does not take it gets
            // nothing else read.
            match conn.flush(&mut self.ws.pool) {
                Ok(true) => {}
                Ok(false) if conn.output.len() == standing => return,
                Ok(false) => {
                    self.note_queue(key);
                    return self.set_deadline(key, self.settings().body_timeout);
                }
                Err(_) => return self.close(key),
            }
            if conn.input.is_empty() || client.head == Head::Begun {
                match conn.receive(&mut self.ws.scratch[..HEAD_READ]) {
                    Received::Bytes(count) => {
                        conn.input.push(&self.ws.scratch[..count], &mut self.ws.pool);
                    }
                    Received::Nothing => return,
                    Received::End if !conn.input.is_empty() => {
                        return self.refuse(key, 400, "the connection ended in mid-head");
                    }
                    Received::End | Received::Broken(_) => return self.close(key),
                }
            }
            let input = std::mem::take(&mut self.slots[key].conn.input);
            let looked = self.look_at(key, client, &input);
            self.slots[key].conn.input = input;
            match looked {
                Looked::Partial => self.head_begins(key),
                Looked::Settled => self.settle(key),
                Looked::Bridge(registration) => {
                    self.slots[key].conn.input.clear(&mut self.ws.pool);
                    return self.register(key, &registration);
                }
            }
        }
        self.again(key);
    }

    /// The beginning of a head is there: the rest must follow within `head-timeout`, however
    /// slowly its bytes drip in.
    fn head_begins(&mut self, key: usize) {
        if let Role::Reading(client) = &mut self.slots[key].role
            && client.head == Head::Unread
        {
            client.head = Head::Begun;
            self.set_deadline(key, self.settings().head_timeout);
        }
    }

    fn look_at(&mut self, key: usize, client: Client, input: &Buffer) -> Looked {
        if client.requests == 0 && client.place.is_none() {
            match bridge_request::is_bridge(input.bytes()) {
                Some(true) => return self.look_at_bridge(key, client, input),
                Some(false) => {}
                None => return Looked::Partial,
            }
        }
        let mut storage = request::storage();
        match request::parse(input.bytes(), &mut storage, &self.exchange_config.limits) {
            Ok(None) => return Looked::Partial,
            Ok(Some(_)) if client.door == Serves::Bridges => {
                self.refuse(key, 404, "this address is for backends; clients have another one");
            }
            Ok(Some(request)) => match chunks_so_far(&request, input) {
                Ok(()) => self.route(key, client, &request, input),
                Err(bad) => self.refuse(key, bad.status, bad.reason),
            },
            Err(ParseError { status: 405, .. }) => {
                self.refuse_with(
                    key,
                    Reply { extra: ALLOW, ..Reply::new(405, "method not allowed") },
                );
            }
            Err(bad) => self.refuse(key, bad.status, bad.reason),
        }
        Looked::Settled
    }

    fn look_at_bridge(&mut self, key: usize, client: Client, input: &Buffer) -> Looked {
        let limits = bridge_request::Limits {
            head: self.exchange_config.limits.head,
            fields: self.exchange_config.limits.fields,
        };
        match bridge_request::parse(input.bytes(), &limits) {
            Ok(None) => return Looked::Partial,
            Ok(Some(_)) if client.door == Serves::Clients => {
                let reply = Reply::new(405, "this address takes no bridges");
                self.refuse_bridge(key, Reply { extra: ALLOW, ..reply });
            }
            Ok(Some(registration)) if registration.len < input.len() => {
                let reply = Reply::new(400, "bytes after a BRIDGE request belong to nobody");
                self.refuse_bridge(key, reply);
            }
            Ok(Some(registration)) => return Looked::Bridge(registration),
            Err(refusal) => self.refuse_bridge(key, Reply::new(refusal.status, &refusal.text)),
        }
        Looked::Settled
    }

    /// A head did not come whole in time, or nothing came at all.
    pub(super) fn head_is_late(&mut self, key: usize) {
        let Role::Reading(client) = self.slots[key].role else {
            return;
        };
        if self.reads_slowly(key) {
            return self.set_deadline(key, self.settings().body_timeout);
        }
        if client.head == Head::Begun {
            self.refuse(key, 408, "the request's head did not come in time");
        } else {
            self.close(key);
        }
    }

    /// Answers with a one-line text of our own, and closes.
    pub(super) fn refuse(&mut self, key: usize, status: u16, text: &str) {
        self.refuse_with(key, Reply::new(status, text));
    }

    /// Refuses a backend: its operator will want to know.
    pub(super) fn refuse_bridge(&mut self, key: usize, reply: Reply<'_>) {
        log::info!("backend {} refused: {} {}", self.slots[key].peer, reply.status, reply.text);
        self.refuse_with(key, reply);
    }

    /// Answers with `reply`, and closes.
    pub(super) fn refuse_with(&mut self, key: usize, reply: Reply<'_>) {
        log::debug!("{}: {} {}", self.slots[key].peer, reply.status, reply.text);
        self.stats().refused.count(reply.status);
        self.write_line(key, reply.status, 0);
        self.last_word(key, reply);
    }

    /// Says `reply`, and closes.
    pub(super) fn last_word(&mut self, key: usize, reply: Reply<'_>) {
        self.ws.out.clear();
        Reply { close: true, ..reply }.write(&mut self.ws.out);
        // Our FIN follows at once, and goes out in the same packet.
        let sent = self.slots[key].conn.send_more(&self.ws.out, &mut self.ws.pool);
        match sent {
            Ok(_) => self.leave(key),
            Err(_) => self.close(key),
        }
    }

    /// Sees a connection off: flush, FIN, and reading until the peer has closed too.
    pub(super) fn leave(&mut self, key: usize) {
        let role = self.set_role(key, Role::Leaving);
        self.role_is_over(role);
        self.set_deadline(key, self.settings().body_timeout);
        self.see_off(key);
    }

    /// Goes on seeing a connection off.
    pub(super) fn see_off(&mut self, key: usize) {
        let conn = &mut self.slots[key].conn;
        let ws = &mut self.ws;
        let (parting, left) = conn.step_linger(&mut ws.scratch, &mut ws.pool, PIPELINE_BUDGET);
        match parting {
            LingerProgress::None => {}
            // The answer's last bytes are on their way to a slow reader.
            LingerProgress::Flushing => {
                self.note_queue(key);
                self.set_deadline(key, self.settings().body_timeout);
            }
            LingerProgress::FinSent => {
                self.set_deadline(key, if self.is_serving() { LINGER } else { LAST_LINGER });
            }
        }
        match left {
            LingerStep::Wait => {}
            LingerStep::Close => self.close(key),
            LingerStep::Busy => self.again(key),
        }
    }

    /// A connection that is seen off has not taken its last bytes, or has not closed, in time.
    pub(super) fn leaving_is_late(&mut self, key: usize) {
        if self.reads_slowly(key) {
            self.set_deadline(key, self.settings().body_timeout);
        } else {
            self.close(key);
        }
    }

    /// Whether bytes stand here for a peer that takes some, if slowly.
    fn reads_slowly(&mut self, key: usize) -> bool {
        !self.slots[key].conn.output.is_empty() && self.note_queue(key)
    }

    /// Whether new work is taken on.
    pub(super) fn is_serving(&self) -> bool {
        self.life == Life::Serving
    }
}

/// Whether what has come of a chunked body is well formed: what is not must not wait, and must
/// not reach a backend.
fn chunks_so_far(request: &Request<'_, '_>, input: &Buffer) -> Result<(), ParseError> {
    match request.framing {
        Framing::Chunked => Decoder::new().scan(&input.bytes()[request.len..]).map(drop),
        _ => Ok(()),
    }
}

/// How long a peer may take to close after our FIN: it may still be sending a body that it was
/// told not to send.
const LINGER: std::time::Duration = std::time::Duration::from_secs(5);

/// The same while the proxy itself is leaving.
const LAST_LINGER: std::time::Duration = std::time::Duration::from_millis(500);

pub(super) fn is_shortage(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    matches!(number, Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
