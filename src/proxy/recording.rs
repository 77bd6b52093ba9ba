//! What the worker notes of a request for the access log, and when its line is written.

use crate::exchange::{Ended, ExchangeError, Running, Stage, Traffic};
use crate::http::reply::Reply;
use crate::http::request;

use super::access_log::{AccessLog, By, End, Matched, Outcome, Phase, Record};
use super::reason::Reason;
use super::role::{Begun, Role};
use super::worker::Worker;

impl Worker {
    /// The record of the request of client `key`, if it has no line yet.
    fn open_record(&mut self, key: usize) -> Option<&mut Record> {
        let client = self.conns.role_mut(key).and_then(Role::client_mut)?;
        client.record.as_deref_mut().filter(|record| record.is_open)
    }

    /// The request of client `key` has been given to a bridge.
    pub(super) fn record_match(&mut self, key: usize, bridge: usize) {
        let Some(log) = &self.config.access_log else { return };
        let client = self.conns.role_mut(key).and_then(Role::client_mut);
        // The bridge is in the same table.
        let Some(mut record) = client.and_then(|client| client.record.take()) else { return };
        let (now, connection) = (self.conns.now(), &self.conns[bridge]);
        if let Some(role) = connection.role().and_then(Role::bridge) {
            let matched = Matched {
                route: role.route.spec().patterns().first().map_or("", |name| name),
                backend: connection.address(),
                backend_id: role.backend.public_id(),
            };
            log.matched(&mut record, &matched, now);
        }
        if let Some(client) = self.conns.role_mut(key).and_then(Role::client_mut) {
            client.record = Some(record);
        }
    }

    /// Notes when a bridge acknowledges, and when its response begins, if the format has that.
    pub(super) fn record_progress(&mut self, exchange: usize, ended: Option<&Ended<Begun>>) {
        let running = match ended {
            None => self.exchanges.get_mut(exchange),
            Some(Ended::Finished { running, .. } | Ended::Failed { running, .. }) => running,
        };
        let (key, stage) = (running.requester.key(), running.exchange.stage());
        if stage > Stage::Ack {
            let now = self.conns.now();
            if let Some(record) = self.open_record(key) {
                record.note(stage, now);
            }
        }
    }

    /// Notes how an exchange of client `key` has failed. The request may go to another bridge.
    pub(super) fn record_failure(
        &mut self,
        key: usize,
        running: &Running<Begun>,
        error: &ExchangeError,
    ) {
        if self.config.access_log.is_none() {
            return;
        }
        let exchange = &running.exchange;
        let failure = (End::of(error, exchange.stage()), exchange.traffic());
        if let Some(record) = self.open_record(key) {
            record.failure = Some(failure);
        }
    }

    /// How the log names the request of client `key` once its head is gone: by the record, if that
    /// has it.
    pub(super) fn recorded_name(&self, key: usize) -> String {
        let client = self.conns.role(key).and_then(Role::client);
        let record = client.and_then(|client| client.record.as_deref());
        record.filter(|record| record.is_open).and_then(Record::named).unwrap_or_default()
    }

    /// Writes the line of a request whose response a backend has given, whole or in part.
    pub(super) fn record_response(&mut self, key: usize, running: &Running<Begun>) {
        if self.config.access_log.is_none() {
            return;
        }
        let exchange = &running.exchange;
        let failure = self.open_record(key).and_then(|record| record.failure);
        let end = failure.map_or(End::Done, |(end, _)| end);
        self.record_end(key, exchange.status(), exchange.traffic(), end, None);
    }

    /// Writes the line of a request whose exchange the proxy cuts off.
    pub(super) fn record_cut(&mut self, key: usize, running: &Running<Begun>) {
        let exchange = &running.exchange;
        let end = End::By(By::Proxy, Phase::at(exchange.stage()));
        self.record_end(key, exchange.status(), exchange.traffic(), end, None);
    }

    /// Writes the line of a request that the proxy answers by itself: with an error for a reason,
    /// or well. `close` says whether the connection ends with it.
    pub(super) fn record_answer(
        &mut self,
        key: usize,
        reason: Option<Reason>,
        reply: &Reply<'_>,
        close: bool,
    ) {
        if self.config.access_log.is_none() {
            return;
        }
        if reason.is_some_and(refuses_head) {
            self.record_head(key);
        }
        let Some(record) = self.open_record(key) else { return };
        let (failure, request) = (record.failure.map(|(end, _)| end), record.traffic().request);
        let end = match reason {
            None => End::Done,
            Some(reason) => {
                failure.filter(|_| blames_exchange(reason)).unwrap_or(End::with(reason))
            }
        };
        let out = &mut self.conns.ws.out;
        out.clear();
        Reply { close, ..*reply }.write(out);
        let body = reply.body_len();
        let traffic = Traffic { request, heads: (out.len() as u64).saturating_sub(body), body };
        self.record_end(key, reply.status, traffic, end, reason);
    }

    /// Writes the line of a client that has gone in the middle of a head.
    pub(super) fn record_lost_head(&mut self, key: usize) {
        if self.config.access_log.is_some() {
            self.record_head(key);
            let request = self.conns[key].conn.input.len() as u64;
            let traffic = Traffic { request, ..Traffic::default() };
            self.record_end(key, 0, traffic, End::By(By::Client, Phase::Head), None);
        }
    }

    /// Writes the line of a request whose client has left, if it has none yet. Its role is out of
    /// the table already.
    pub(super) fn record_leaving(&mut self, key: usize, role: &mut Role) {
        let Some(log) = &self.config.access_log else { return };
        let phase = match role {
            Role::Opening { .. } => Phase::Response,
            _ => Phase::Queue,
        };
        let Some(client) = role.client_mut() else { return };
        let Some(record) = client.record.as_deref_mut().filter(|record| record.is_open) else {
            return;
        };
        let traffic = record.traffic();
        let end = End::By(By::Client, phase);
        let outcome = outcome(&self.conns[key], self.index, 0, traffic, end);
        log.write(&mut self.lines, record, &outcome, self.conns.now());
    }

    /// Begins the record of whatever is at the front of the input of client `key`, unless it has
    /// one: a head that is refused, or `<BADREQ>`.
    fn record_head(&mut self, key: usize) {
        let Some(log) = &self.config.access_log else { return };
        let now = self.conns.now();
        let (connection, _) = self.conns.split(key);
        let (begun, mut record) = match connection.role_mut() {
            Some(Role::ReadingHead { client, .. })
                if client.record.as_ref().is_none_or(|record| !record.is_open) =>
            {
                (client.head_begun(), client.record.take())
            }
            _ => return,
        };
        let input = connection.conn.input.bytes();
        let mut storage = request::storage();
        match request::parse(input, &mut storage, &self.exchange_config.limits) {
            Ok(Some(request)) => log.begin(&mut record, &request, begun, now),
            Ok(None) | Err(_) => AccessLog::begin_bad(&mut record, input.len(), begun, now),
        }
        if let Some(client) = connection.role_mut().and_then(Role::client_mut) {
            client.record = record;
        }
    }

    pub(super) fn record_end(
        &mut self,
        key: usize,
        status: u16,
        traffic: Traffic,
        end: End,
        reason: Option<Reason>,
    ) {
        let Some(log) = &self.config.access_log else { return };
        let now = self.conns.now();
        let outcome = outcome(&self.conns[key], self.index, status, traffic, end);
        let client = self.conns.role_mut(key).and_then(Role::client_mut);
        let record = client.and_then(|client| client.record.as_deref_mut());
        if let Some(record) = record.filter(|record| record.is_open) {
            log.write(&mut self.lines, record, &Outcome { reason, ..outcome }, now);
        }
    }

    /// Submits the lines of this turn to be written.
    pub(super) fn submit_lines(&mut self) {
        self.lines.submit(self.config.access_log.as_ref());
    }
}

/// The outcome of a request of this connection.
fn outcome(
    connection: &crate::net::event_loop::Connection<Role>,
    worker: usize,
    status: u16,
    traffic: Traffic,
    end: End,
) -> Outcome {
    Outcome {
        worker,
        client: connection.peer,
        peer: connection.socket_peer(),
        peer_port: connection.port,
        status,
        traffic,
        end,
        reason: None,
    }
}

/// Whether a client's head is refused for this reason, before it has a record.
fn refuses_head(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::BadRequest
            | Reason::IncompleteRequest
            | Reason::HeadTooLarge
            | Reason::TargetTooLong
            | Reason::MethodNotAllowed
            | Reason::NotSupported
            | Reason::HeadTimeout
            | Reason::BridgesOnly
            | Reason::ConnectionLimit
    )
}

/// Whether an exchange that has failed is the cause.
fn blames_exchange(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::BadRequest
            | Reason::BodyTimeout
            | Reason::BackendClosed
            | Reason::BackendBadResponse
            | Reason::BackendTimeout
            | Reason::BackendStalled
            | Reason::RetriesUsedUp
    )
}
