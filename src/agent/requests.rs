//! A request on a bridge: read it, start the exchange, and what follows when it ends.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use super::application::Application;
use super::bridges::REQUEST_TIMEOUT;
use super::exchange_config::CONFIG;
use super::role::{Bridge, Request, Role, Stage, UpstreamState};
use super::slots::Slot;
use super::state::{Agent, Attempt};
use crate::bridge::extensions::RECEIPT;
use crate::exchange::{
    Action, Beginning, Cause, CloseMode, CloseScope, DeliveryReports, Ended, Exchange,
    ExchangeError, Opening, RequestMeta, Reuse, Running, SeenBy, Start,
};
use crate::http::reply::Reply;
use crate::http::{ParseError, request};
use crate::net::conn::Received;
use crate::net::log_limiter;

/// How much is read at once while a head is expected: a request stays in the input until its
/// response begins, so what is read must be kept.
const HEAD_READ: usize = 16 * 1024;

/// Stands in for the client's address where it is not needed, or not known: the proxy has put it into
/// the request.
pub(super) const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The request has not been given to the application (`doc/protocol.md`, "Undelivered").
const UNDELIVERED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    Cloudbridge-Undelivered: application\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

impl Agent {
    /// Reads the next request of a bridge, and starts it once its head is whole.
    pub(super) fn read_request(&mut self, key: usize) {
        if self.pass_soon(key) {
            return;
        }
        match self.receive(key) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return self.bridge_lost(key, &error),
        }
        if self.conns[key].conn.input.bytes().starts_with(b"HTTP/") {
            return self.read_switch(key);
        }
        match self.parse(key) {
            Ok(Some((meta, beginning))) => self.begin(key, meta, beginning),
            Ok(None) => self.await_rest(key),
            Err(bad) => {
                log::warn!("the proxy sent a bad request: {}", bad.reason);
                self.reply(key, false, bad.status, bad.reason);
            }
        }
    }

    /// Reads from a bridge. False if there is nothing to parse.
    fn receive(&mut self, key: usize) -> io::Result<bool> {
        let (connection, ws) = self.conns.split(key);
        let conn = &mut connection.conn;
        // First the rest of the last response.
        if !conn.flush(&mut ws.pool)? {
            return Ok(false);
        }
        match conn.receive(&mut ws.scratch[..HEAD_READ]) {
            Received::Bytes(count) => conn.input.push(&ws.scratch[..count], &mut ws.pool),
            Received::Nothing => {}
            Received::End => return Err(io::Error::other("the proxy closed it")),
            Received::Broken(error) => return Err(error),
        }
        if conn.has_hung_up() {
            // No client waits for the answer, and another agent may have the request by now.
            return Err(io::Error::other("the proxy closed it after a request"));
        }
        Ok(!conn.input.is_empty())
    }

    /// Parses the request at the front of the input, and prepares what is sent upstream. `None` if
    /// its head is not whole.
    fn parse(&mut self, key: usize) -> Result<Option<(RequestMeta, Beginning)>, ParseError> {
        let Some(application) = self.bridge(key).map(|bridge| bridge.application) else {
            return Ok(None);
        };
        let Application { service, exchange: config, .. } = &self.applications[application];
        let (connection, ws) = self.conns.split(key);
        let bytes = connection.conn.input.bytes();
        let mut storage = request::storage();
        let Some(mut request) = request::parse(bytes, &mut storage, &config.limits)? else {
            return Ok(None);
        };
        let client = if service.send_proxy { request.last_forwarded() } else { None };
        let meta = RequestMeta::of(&request, client.unwrap_or(NOBODY), config);
        config.rename(&mut request);
        let beginning = Beginning::of(&request, bytes)?;
        beginning.prepare(&request, bytes, &meta, false, None, &mut ws.out);
        Ok(Some((meta, beginning)))
    }

    /// What has come is no request: waits for the next bytes.
    pub(super) fn await_next(&mut self, key: usize) {
        if let Some(Stage::Idle { .. }) = self.stage(key) {
            self.set_stage(key, Stage::Idle { begun: false });
            self.conns.clear_deadline(key);
            self.await_close(key);
        }
        if !self.conns[key].conn.is_idle() {
            self.conns.requeue(key);
        }
    }

    pub(super) fn await_rest(&mut self, key: usize) {
        if let Some(Stage::Idle { begun: false }) = self.stage(key) {
            self.set_stage(key, Stage::Idle { begun: true });
            self.conns.set_deadline(key, REQUEST_TIMEOUT);
        }
        if self.conns[key].conn.is_readable() {
            self.conns.requeue(key);
        }
    }

    /// Starts a request that has just been read, or lets it wait for a slot or an upstream
    /// connection.
    fn begin(&mut self, key: usize, meta: RequestMeta, beginning: Beginning) {
        self.note_request();
        if !self.reserve_tunnel(key, &meta) {
            return self.reply(key, meta.to_head, 503, "too many tunnels are open");
        }
        let request = Request { meta, delivered: false };
        let slot = match self.take_slot(key) {
            Slot::Taken => true,
            Slot::Queued => false,
            Slot::None { limit } => return self.give_back(key, limit, Some(beginning)),
        };
        match if slot { self.ready_upstream(key, &meta) } else { None } {
            Some((upstream, reused)) => {
                self.start(key, upstream, reused, request, Opening::Prepared(beginning));
            }
            None => {
                self.set_stage(key, Stage::Pending(request));
                self.conns.clear_deadline(key);
                if slot {
                    self.dial_for(key);
                }
            }
        }
    }

    /// The upstream connection reserved for a bridge, or an idle one (checked with the kernel unless
    /// the request may be repeated); and whether it has been used before.
    fn ready_upstream(&mut self, key: usize, meta: &RequestMeta) -> Option<(usize, bool)> {
        let bridge = self.bridge(key)?;
        let (application, reserved) = (bridge.application, bridge.upstream);
        if let Some(reserved) = reserved.and_then(|reserved| self.conns.find(reserved))
            && let Some(Role::Upstream(upstream)) = self.conns.role(reserved)
        {
            return Some((reserved, upstream.is_reused()));
        }
        let look = !meta.is_surely_repeatable();
        self.take_idle(application, look, Some(meta.client)).map(|upstream| (upstream, true))
    }

    /// Starts the exchange of a bridge that has a slot, on an upstream connection.
    pub(super) fn start(
        &mut self,
        key: usize,
        upstream: usize,
        reused: bool,
        Request { meta, delivered }: Request,
        opening: Opening,
    ) {
        let [requester, responder] = [key, upstream].map(|key| self.conns[key].token());
        let Some(&Bridge { application, extensions, .. }) = self.bridge(key) else { return };
        // A bridge that is no longer offered ends with its response.
        let persistent = meta.persistent && self.is_offered(application);
        let meta = RequestMeta { persistent, ..meta };
        let exchange = Exchange::new(meta, DeliveryReports::Untrusted, CloseScope::Responder);
        let data = Attempt { delivered, reused, begun: self.now() };
        let exchange = self.exchanges.insert(Running { exchange, requester, responder, data });
        if let Some(bridge) = self.set_stage(key, Stage::Exchanging { exchange }) {
            bridge.upstream = None;
        }
        if let Some(Role::Upstream(upstream)) = self.conns.role_mut(upstream) {
            upstream.carried_body |= meta.has_body();
            upstream.state = UpstreamState::Exchanging { exchange };
        }
        self.announce(upstream, meta.client);
        self.conns.clear_deadline(key);
        let receipt = extensions.receipts && !meta.idempotent;
        let notice = if receipt { RECEIPT } else { &[] };
        let start = Start { opening, probe: false, notice };
        let config = &self.applications[application].exchange;
        let ended = self.exchanges.start(exchange, start, &mut self.conns, config);
        self.ended(ended);
    }

    pub(super) fn advance(&mut self, exchange: usize) {
        let running = self.exchanges.get_mut(exchange);
        // Outside a tunnel a proxy never half-closes a bridge: its FIN means that the client is
        // gone or has timed out, so the application can stop.
        let requester = running.requester.key();
        let hung_up = self.conns[requester].conn.has_hung_up();
        if hung_up && !running.exchange.is_tunnel() {
            return self.cut(exchange);
        }
        let Some(application) = self.bridge(requester).map(|bridge| bridge.application) else {
            return;
        };
        let config = &self.applications[application].exchange;
        let ended = self.exchanges.advance(exchange, &mut self.conns, config);
        if ended.is_none() {
            return self.note_tunnel(exchange);
        }
        self.ended(ended);
    }

    fn ended(&mut self, ended: Option<Ended<Attempt>>) {
        if ended.is_some() {
            self.note_request();
        }
        // By reference: moving an exchange costs more than the rest of this function.
        match &ended {
            None => {}
            Some(Ended::Finished { running, requester, responder }) => {
                self.finished(running, *requester, *responder);
            }
            Some(Ended::Failed { running, error }) => self.failed(running, error),
        }
    }

    fn finished(&mut self, running: &Running<Attempt>, requester: Reuse, responder: Reuse) {
        let (key, upstream) = (running.requester.key(), running.responder.key());
        self.note_answer(upstream, running.data.begun);
        match responder {
            Reuse::Keep(seconds) => {
                self.keep_upstream(upstream, seconds, running.exchange.meta().has_body());
            }
            Reuse::Close => self.close(upstream),
            Reuse::Stray => {
                self.upstream_sent_stray_bytes(upstream);
                self.close(upstream);
            }
        }
        let Some(&Bridge { application, deregistering, .. }) = self.bridge(key) else { return };
        if requester != Reuse::Close && (deregistering || self.is_offered(application)) {
            self.await_request(key);
        } else {
            self.end(key, running.exchange.close_mode(&self.conns[key].conn));
        }
    }

    fn failed(&mut self, running: &Running<Attempt>, error: &ExchangeError) {
        let (key, upstream) = (running.requester.key(), running.responder.key());
        let Some(&Bridge { application, extensions, .. }) = self.bridge(key) else { return };
        self.report_failure(key, application, running, error);
        if matches!(error.cause, Cause::Stray) {
            self.upstream_sent_stray_bytes(upstream);
        }
        self.close(upstream);
        let meta = *running.exchange.meta();
        let Attempt { delivered, reused, .. } = running.data;
        let reached = error.seen_by() == SeenBy::Application;
        if reached && error.is_end_without_answer() {
            self.ended_unanswered(application);
        } else if reached && reused {
            // The other idle connections may be as old as this one: the next is to be a new one.
            self.close_idle(application);
        }
        match error.action() {
            Action::Retry | Action::Answer(..)
                if reached && extensions.retries && error.is_end_without_answer() =>
            {
                // The end of the bridge tells the proxy, which knows how often the request has been
                // tried, and may hold more of it than is kept here.
                self.linger(key);
            }
            Action::Retry if reached && delivered => {
                self.reply(key, meta.to_head, 502, "the application failed twice");
            }
            Action::Retry => {
                let delivered = delivered || reached;
                self.set_stage(key, Stage::Pending(Request { meta, delivered }));
                if reached || reused {
                    // The application may close an idle connection at any time: try a new one.
                    self.dial_for(key);
                } else {
                    self.undelivered(key);
                }
            }
            Action::Answer(answer) => {
                self.reply(key, meta.to_head, answer.status(), answer.text());
            }
            Action::Close(mode) => self.end(key, mode),
        }
    }

    /// Logs how an exchange failed. Of each kind of failure that an operator is told, there are a
    /// few lines at a time.
    fn report_failure(
        &mut self,
        key: usize,
        application: usize,
        running: &Running<Attempt>,
        error: &ExchangeError,
    ) {
        let level = error.level();
        if !log::log_enabled!(level) {
            return;
        }
        let mut more = String::new();
        if level <= log::Level::Info {
            let kind = (error.side, std::mem::discriminant(&error.cause));
            let now = self.now();
            let Some(count) = self.failures_reported.allow(kind, now) else { return };
            more = log_limiter::suppressed(count, " of this kind");
        }
        let bridge = &self.conns[key];
        log::log!(
            level,
            "{}{}, attempt {}, over proxy {}: {error}{more}",
            self.applications[application].service.to,
            running.exchange.named(&bridge.conn, &CONFIG.limits),
            1 + u8::from(running.data.delivered),
            bridge.address(),
        );
    }

    /// Closes the idle connections to an application.
    pub(super) fn close_idle(&mut self, application: usize) {
        let idle = std::mem::take(&mut self.applications[application].idle);
        idle.into_iter().for_each(|token| self.close(token.key()));
    }

    /// Abandons an exchange in any state, and closes both connections.
    pub(super) fn cut(&mut self, exchange: usize) {
        self.note_request();
        let running = self.exchanges.take(exchange, &mut self.conns.ws);
        self.close(running.responder.key());
        self.end(running.requester.key(), running.exchange.abandon_mode());
    }

    /// Gives back a request that could not be given to the application. A proxy that supports it is
    /// told that no application has seen the request, and sends it elsewhere. Any other proxy does
    /// the same when the bridge closes without an answer, but only if the request was not
    /// acknowledged or may be repeated. Otherwise, or if it has been delivered once, the request
    /// cannot be saved, and the client gets a 502 from here.
    pub(super) fn undelivered(&mut self, key: usize) {
        let Some(bridge) = self.bridge(key) else { return };
        match bridge.stage {
            Stage::Pending(request) if bridge.extensions.undelivered && !request.delivered => {
                self.send_last(key, UNDELIVERED);
            }
            Stage::Pending(Request { meta, delivered }) if delivered || !meta.idempotent => {
                self.reply(key, meta.to_head, 502, "the application cannot be reached");
            }
            _ => self.close(key),
        }
    }

    /// A bridge has acknowledged and no request has come: the client may have closed.
    pub(super) fn no_request(&mut self, key: usize) {
        let Some(bridge) = self.bridge_mut(key) else { return };
        let (application, deregistering) = (bridge.application, bridge.deregistering);
        let reserved = bridge.upstream.take();
        if let Some(reserved) = reserved.and_then(|reserved| self.conns.find(reserved)) {
            self.close(reserved);
        }
        let stays = deregistering || self.is_offered(application);
        if stays && self.conns[key].conn.input.is_empty() {
            self.await_request(key);
        } else {
            self.close(key);
        }
    }

    /// Lets a bridge wait for its next request. It holds no slot meanwhile.
    pub(super) fn await_request(&mut self, key: usize) {
        let Some(bridge) = self.set_stage(key, Stage::Idle { begun: false }) else { return };
        let (application, party) = (bridge.application, bridge.party);
        let tunnel = std::mem::take(&mut bridge.tunnel);
        if std::mem::take(&mut bridge.slot) {
            self.release_slot(application, party);
        }
        self.release_tunnel(application, tunnel);
        if self.pass_soon(key) {
            return;
        }
        self.await_close(key);
        if !self.conns[key].conn.is_idle() {
            self.conns.requeue(key);
        }
    }

    /// Answers with an error of our own, and closes.
    pub(super) fn reply(&mut self, key: usize, head_only: bool, status: u16, text: &str) {
        self.send_reply(key, Reply { head_only, ..Reply::new(status, text) });
    }

    /// Answers, and closes.
    pub(super) fn send_reply(&mut self, key: usize, reply: Reply<'_>) {
        let mut out = Vec::new();
        Reply { close: true, ..reply }.write(&mut out);
        self.send_last(key, &out);
    }

    /// Sends `bytes`, and closes.
    fn send_last(&mut self, key: usize, bytes: &[u8]) {
        let (connection, ws) = self.conns.split(key);
        // Our FIN follows at once, in the same packet.
        match connection.conn.send_more(bytes, &mut ws.pool) {
            Ok(_) => self.linger(key),
            Err(_) => self.close(key),
        }
    }

    fn end(&mut self, key: usize, mode: CloseMode) {
        match mode {
            CloseMode::Now => self.close(key),
            CloseMode::Reset => {
                self.conns[key].conn.reset_on_close();
                self.close(key);
            }
            CloseMode::Linger => self.linger(key),
        }
    }
}
