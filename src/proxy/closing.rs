//! How connections enter the tables, change roles, and end.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::Ordering;

use mio::net::TcpStream;

use crate::exchange::CloseMode;
use crate::http::reply::Reply;
use crate::net::event_loop::Connection;
use crate::net::log_limiter;
use crate::routing::{InstanceId, Scheduler};
use crate::time::Micros;

use super::error_pages::Body;
use super::reason::Reason;
use super::request_ids::ShownId;
use super::role::{Bridge, Letter, ParkedBridge, Role};
use super::worker::Worker;

pub(super) enum End<'a> {
    /// At once.
    Close,
    /// At once, with a reset: a message that was cut off must look cut off.
    Reset,
    /// Lingering close: the peer gets what is still to be sent to it (RFC 9112 section 9.6).
    Linger,
    /// With this as its last answer, then as `Linger`.
    Reply(Reply<'a>),
}

impl From<CloseMode> for End<'_> {
    fn from(mode: CloseMode) -> Self {
        match mode {
            CloseMode::Now => End::Close,
            CloseMode::Reset => End::Reset,
            CloseMode::Linger => End::Linger,
        }
    }
}

impl Worker {
    /// Takes a new connection into the tables.
    ///
    /// # Errors
    /// When the kernel cannot watch it; then it is closed.
    pub(super) fn insert(
        &mut self,
        stream: TcpStream,
        peer: IpAddr,
        role: Role,
    ) -> io::Result<usize> {
        let letter = role.letter();
        let key = self.conns.insert(stream, peer, role)?;
        self.stats().role(letter).add(1);
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        Ok(key)
    }

    /// Takes the role out, to give the connection another within this call.
    pub(super) fn take_role(&mut self, key: usize) -> Option<Role> {
        let role = self.conns.take(key)?;
        self.stats().role(role.letter()).less();
        Some(role)
    }

    pub(super) fn set_role(&mut self, key: usize, role: Role) {
        self.stats().role(role.letter()).add(1);
        if let Some(old) = self.conns.set(key, role) {
            self.stats().role(old.letter()).less();
        }
    }

    /// Changes the role of connection `key` in place.
    pub(super) fn change_role(&mut self, key: usize, change: impl FnOnce(Role) -> Role) {
        let stats = &self.shared.stats[self.index];
        self.conns.change(key, |old| {
            let before = old.letter();
            let role = change(old);
            let after = role.letter();
            if before != after {
                stats.role(before).less();
                stats.role(after).add(1);
            }
            role
        });
    }

    /// Ends connection `key`. An exchange that it is part of must have been taken out before.
    pub(super) fn end(&mut self, key: usize, how: End<'_>) {
        if let Some(bridge) = self.conns.role(key).and_then(Role::bridge) {
            // Before its last answer.
            bridge.keeping.set_busy();
        }
        let how = match how {
            End::Reply(reply) => self.send_last(key, reply),
            how => how,
        };
        let Some(mut role) = self.take_role(key) else { return };
        self.stats().role(Letter::Closing).add(1);
        self.forget(key, &mut role);
        match how {
            End::Linger | End::Reply(_) => self.conns.linger(key, Some(role)),
            End::Close => self.conns.close(key, Some(role)),
            End::Reset => {
                self.conns[key].conn.reset_on_close();
                self.conns.close(key, Some(role));
            }
        }
    }

    /// Closes a connection whose role has been taken.
    pub(super) fn close_without_role(&mut self, key: usize) {
        self.stats().role(Letter::Closing).add(1);
        self.conns.close(key, None);
    }

    /// Answers with an error of ours, and closes.
    pub(super) fn reject(&mut self, key: usize, reason: Reason, reply: Reply<'_>) {
        self.reject_with(key, reason, reply, None);
    }

    /// The same, with this body in place of the plain line.
    pub(super) fn reject_with(
        &mut self,
        key: usize,
        reason: Reason,
        reply: Reply<'_>,
        body: Option<&Body>,
    ) {
        let reply = self.note_rejection(key, reason, reply, body, true);
        self.end(key, End::Reply(reply));
    }

    /// Answers with an error of ours to a request that has been read whole, and goes on with the
    /// next.
    pub(super) fn answer_and_go_on(
        &mut self,
        key: usize,
        reason: Reason,
        reply: Reply<'_>,
        body: Option<&Body>,
    ) {
        let reply = self.note_rejection(key, reason, reply, body, false);
        let (connection, ws) = self.conns.split(key);
        ws.out.clear();
        reply.write(&mut ws.out);
        ws.traffic.sent += ws.out.len() as u64;
        match connection.conn.send(&ws.out, &mut ws.pool) {
            Ok(_) => self.next_request(key),
            Err(_) => self.end(key, End::Close),
        }
    }

    fn count_rejection(&mut self, key: usize, reason: Reason, reply: &Reply<'_>) {
        let &Reply { status, text, .. } = reply;
        let (peer, id) = (self.conns[key].address(), self.shown_id(key));
        log::debug!("{peer}{id}: {status} {text} ({})", reason.word());
        self.stats().rejected.count(status);
        self.stats().refusals.of(reason).add(1);
    }

    /// Logs and counts an answer of ours, after which the connection ends if it is to `close`.
    /// Returns it whole.
    fn note_rejection<'a>(
        &mut self,
        key: usize,
        reason: Reason,
        reply: Reply<'a>,
        body: Option<&'a Body>,
        close: bool,
    ) -> Reply<'a> {
        self.count_rejection(key, reason, &reply);
        let reply = body.map_or(reply, |body| body.dress(reply));
        let reply = Reply { proxy_status: reason.proxy_status(), ..reply };
        self.record_answer(key, Some(reason), &reply, close);
        reply
    }

    /// Answers a client with an error of ours, and closes without lingering: its place is needed.
    pub(super) fn refuse_at_once(&mut self, key: usize, reason: Reason, reply: Reply<'_>) {
        let body = self.body_of(key, reason, &reply, true);
        let reply = self.note_rejection(key, reason, reply, body.as_ref(), true);
        self.send_last(key, reply);
        self.end(key, End::Close);
    }

    /// Rejects a backend, and logs it for its operator.
    pub(super) fn reject_bridge(&mut self, key: usize, reason: Reason, reply: Reply<'_>) {
        let now = self.conns.now().millis();
        if let Some(count) = self.bridges_refused.allow(reply.status, now) {
            let (peer, status, text) = (self.conns[key].address(), reply.status, reply.text);
            let more = log_limiter::suppressed(count, &format!(" refused with {status}"));
            log::info!("backend {peer} refused: {status} {text}{more}");
        }
        let reply = Reply { proxy_status: reason.proxy_status(), ..reply };
        self.count_rejection(key, reason, &reply);
        self.end(key, End::Reply(reply));
    }

    /// Sends a last answer, and returns how the connection then ends.
    fn send_last(&mut self, key: usize, reply: Reply<'_>) -> End<'static> {
        let (connection, ws) = self.conns.split(key);
        ws.out.clear();
        Reply { close: true, ..reply }.write(&mut ws.out);
        ws.traffic.sent += ws.out.len() as u64;
        // Our FIN follows at once, and goes out in the same packet.
        match connection.conn.send_more(&ws.out, &mut ws.pool) {
            Ok(_) => End::Linger,
            Err(_) => End::Close,
        }
    }

    /// Removes an ending connection from the tables of its role.
    fn forget(&mut self, key: usize, role: &mut Role) {
        self.record_leaving(key, role);
        if let Some(loss) = role.bridge().and_then(|b| b.loss(self.config.keyring.as_ref())) {
            self.stats().lost_keys[loss as usize].add(1);
        }
        match role {
            Role::Queued { request, .. } => _ = self.scheduler.cancel(request.waiter),
            Role::Responding { bridge, .. } => {
                bridge.count_clients(-1);
                bridge_left(bridge, &mut self.scheduler, self.conns.now());
            }
            Role::AwaitingRoute { bridge, .. }
            | Role::Reserved(bridge)
            | Role::Idle(bridge)
            | Role::Aside(bridge)
            | Role::Speaking(bridge)
            | Role::Resting(bridge)
            | Role::Probed(bridge) => {
                bridge_left(bridge, &mut self.scheduler, self.conns.now());
            }
            Role::Connecting { attempt, .. } => self.dialling.ended(*attempt),
            Role::ReadingHead { .. }
            | Role::AwaitingProxyHeader { .. }
            | Role::AwaitingPreamble { .. }
            | Role::Requesting { .. }
            | Role::Opening { .. }
            | Role::Authorising { .. }
            | Role::Sending { .. }
            | Role::Relayed { .. }
            | Role::Checking(_) => {}
        }
        if let Some(bridge) = role.bridge() {
            self.shun_drained(bridge, self.conns[key].peer);
        }
    }

    /// If the operator has drained the backend of this bridge, no request is to wait for its instance,
    /// which is returned.
    pub(super) fn shun_drained(&self, bridge: &Bridge, peer: IpAddr) -> Option<InstanceId> {
        let instance = bridge.instance.as_ref()?;
        self.shared.drained.has(bridge, peer).then(|| {
            bridge.route.shun_instance(instance.id);
            instance.id
        })
    }

    /// Ends every connection whose role `which` selects.
    pub(super) fn end_all(&mut self, which: impl Fn(&Role) -> bool, how: fn() -> End<'static>) {
        self.conns.keys_with(which).into_iter().for_each(|key| self.end(key, how()));
    }

    /// A closed connection has left the tables: closes its socket.
    pub(super) fn connection_freed(&mut self, connection: Box<Connection<Role>>) {
        self.stats().role(Letter::Closing).less();
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        let was_dialled = connection.last_role().is_some_and(Role::is_dialled);
        // In this order: the server must never see more connections than it may have.
        drop(connection);
        if was_dialled {
            self.server_connection_freed();
        }
        self.freed_any = true;
    }
    /// The id of the current request of `key`, if it has one, for a line of the log.
    pub(super) fn shown_id(&self, key: usize) -> ShownId<'_> {
        ShownId(self.conns.role(key).and_then(Role::client).and_then(|client| client.id.as_deref()))
    }
}

/// A bridge is no longer one of its route's.
pub(super) fn bridge_left(bridge: &Bridge, scheduler: &mut Scheduler<ParkedBridge>, now: Micros) {
    scheduler.leave(&bridge.route, bridge.membership(), now);
    if bridge.on_trial {
        bridge.backend.end_probe();
    }
}
