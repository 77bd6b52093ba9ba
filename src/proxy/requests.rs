//! A request finds its bridge, or waits for one; what happens then, and what if it fails.

use std::time::Duration;

use crate::bridge::request::{CONTINUE, SWITCH};
use crate::config::UnknownHost;
use crate::exchange::error::{Action, Cause, ExchangeError, Progress, Side};
use crate::exchange::{Exchange, Outcome, RequestMeta, Reuse, TimeoutPhase};
use crate::http::Version;
use crate::http::reply::Reply;
use crate::http::request::{self, Request};
use crate::net::buffer::Buffer;
use crate::net::token::Token;
use crate::routing::{Arrival, Place};

use super::access::Line;
use super::role::{Bridge, Client, Head, Late, Probe, Role, Standing};
use super::sites::{self, Aim};
use super::worker::{Running, Worker};

/// How many bridges may see a request and fail under it before it is given up. A request that ends
/// every backend it reaches must not be shown to all of them; one that meets a few dying
/// backends in a row must not fail for that.
const ATTEMPTS: u8 = 16;

/// What `Retry-After` says, in seconds, when something was full or late: backends that are
/// being restarted are usually back by then.
const RETRY_AFTER: u32 = 5;

impl Worker {
    /// Finds a bridge for the request at the front of `input`, which is the input of `key`.
    pub(super) fn route(
        &mut self,
        key: usize,
        client: Client,
        request: &Request<'_, '_>,
        input: &Buffer,
    ) {
        let meta = RequestMeta::of(request, self.slots[key].peer, &self.exchange_config);
        let token = self.slots[key].token(key).word();
        let now = self.now.micros;
        let mut name = std::mem::take(&mut self.name);
        let host = request::lower_host(request.host, &mut name);
        if self.config.settings.info_host.as_deref() == Some(host) {
            self.name = name;
            return self.answer_info(key, &meta);
        }
        if self.config.settings.health_uri.as_deref() == Some(request.path) {
            self.name = name;
            return self.answer_health(key, &meta);
        }
        if self.config.access_log.is_some() && client.place.is_none() {
            let line = Line::begin(self.slots[key].peer, request, now);
            self.slots[key].line = Some(Box::new(line));
        }
        let config = &self.config;
        let Some(Aim { target, site }) = config.sites.aim(host, request.path, &self.lobby) else {
            self.name = name;
            return self.turn_away(key, &meta, 404, "no site and no backend has this name");
        };
        let meta = site.map_or(meta, |site| sites::apply(site, meta, &self.exchange_config));
        let patience = sites::wait_policy(site, &config.settings);
        let (arrival, since) = match client.place {
            None => (self.lobby.arrive(token, &target, now), now),
            Some(place) => (self.lobby.return_to_queue(token, place, &target), place.since()),
        };
        self.name = name;
        let text = match arrival {
            Arrival::Matched { bridge, place, .. } => {
                let client = Client { place: Some(place), ..client };
                let responder = Token::from_word(bridge);
                let Some(bridge) = self.take_matched(responder) else {
                    return self.read_again(key, client);
                };
                let parsed = Some((request, input));
                return self.begin(key, client, meta, (responder.key(), bridge), parsed);
            }
            Arrival::Waiting(waiter) => {
                let (probe, late) = (Probe::NotNeeded, patience.late);
                self.set_role(key, Role::Waiting { client, meta, waiter, probe, late });
                let waited = Duration::from_micros(now.saturating_sub(since));
                let left = patience.wait.saturating_sub(waited);
                return self.set_deadline(key, left.max(Duration::from_millis(1)));
            }
            Arrival::RouteFull => "too many requests wait for this name",
            Arrival::UnservedFull => "too many requests wait for names that nobody serves",
            Arrival::Unknown => {
                let not_found = self.settings().unknown_host == UnknownHost::NotFound;
                let status = if not_found { 404 } else { 503 };
                return self.turn_away(key, &meta, status, "no backend serves this name");
            }
        };
        self.turn_away(key, &meta, 503, text);
    }

    /// Answers a request that came whole with an error of our own, and closes.
    fn turn_away(&mut self, key: usize, meta: &RequestMeta, status: u16, text: &str) {
        let retry_after = matches!(status, 503 | 504).then_some(RETRY_AFTER);
        let reply = Reply { head_only: meta.to_head, retry_after, ..Reply::new(status, text) };
        self.refuse_with(key, reply);
    }

    /// Brings a request and a bridge together. A request that has just been read comes parsed,
    /// with its client's input on loan to the caller; one that has waited stands in that input.
    /// Whoever calls this calls [`Worker::settle`] next, with the input in its place.
    fn begin(
        &mut self,
        key: usize,
        client: Client,
        meta: RequestMeta,
        (responder, bridge): (usize, Bridge),
        parsed: Option<(&Request<'_, '_>, &Buffer)>,
    ) {
        let (standing, word, close) = (bridge.standing, bridge.backend.word(), bridge.close());
        // While draining, a client's connection ends with its response.
        let meta = RequestMeta { persistent: meta.persistent && self.is_serving(), ..meta };
        let exchange = self.exchanges.insert(Running {
            exchange: match standing {
                Standing::Fresh => Exchange::new_unacknowledged(meta).with_word(word),
                Standing::Reused { .. } => Exchange::new(meta).with_word(word).with_close(close),
            },
            requester: self.slots[key].token(key),
            responder: self.slots[responder].token(responder),
            failed: None,
        });
        self.stats().begun.add(1);
        self.respond_in(responder, bridge, exchange);
        self.set_role(key, Role::Requesting { client, exchange });
        let running = &mut self.exchanges[exchange];
        let Some([requester, responder]) = Self::pair(&mut self.slots, [key, responder]) else {
            return;
        };
        let (ws, exchange_config) = (&mut self.ws, &self.exchange_config);
        let untouched =
            |why| ExchangeError { side: Side::Responder, why, reached: Progress::Nothing };
        // Something may have come over the bridge since it was last looked at; it belongs to
        // nobody, and would be taken for the response. And what cannot be sent a second time
        // must not be sent to a connection that has just been closed: nobody could say whether
        // it had arrived.
        let conn = &mut responder.conn;
        let look = conn.is_readable() || !meta.can_be_repeated();
        let result = match (standing, parsed) {
            _ if look && !conn.is_quiet_and_open() => Err(untouched(Cause::Closed)),
            (Standing::Fresh, _) => match responder.conn.send(SWITCH, &mut ws.pool) {
                Ok(_) => Ok(()),
                Err(error) => Err(untouched(Cause::Lost(error))),
            },
            (_, Some((request, input))) => {
                running.exchange.open(request, input.bytes(), &mut responder.conn, ws)
            }
            (_, None) => {
                let (requester, responder) = (&mut requester.conn, &mut responder.conn);
                running.exchange.open_from_input(requester, responder, ws, exchange_config)
            }
        };
        running.failed = result.err();
    }

    /// Ends the wait of a request that nothing can serve any more.
    pub(super) fn end_waiting(&mut self, key: usize) {
        if let Role::Waiting { meta, .. } = self.slots[key].role {
            self.turn_away(key, &meta, 503, "the proxy is shutting down");
        }
    }

    /// Ends an exchange, wherever it stands; the two connections are the caller's to close.
    pub(super) fn cut(&mut self, exchange: usize) {
        let running = self.dissolve(exchange);
        self.stats().ended.add_last();
        if running.exchange.must_look_cut() {
            self.slots[running.requester.key()].conn.reset_on_close();
        }
    }

    /// What follows from looking at a head, now that the input is in its place again.
    pub(super) fn settle(&mut self, key: usize) {
        match self.slots[key].role {
            Role::Requesting { exchange, .. } => {
                let running = &mut self.exchanges[exchange];
                if let Some(failure) = running.failed.take() {
                    return self.fail(exchange, failure);
                }
                let requester = &mut self.slots[key].conn;
                running.exchange.keep_or_release(requester, &mut self.ws);
                self.be_patient(exchange);
                if !self.exchanges[exchange].exchange.is_request_sent() {
                    self.advance(exchange);
                }
            }
            Role::Waiting { .. } => self.watch_waiting(key),
            Role::Leaving => self.see_off(key),
            _ => {}
        }
    }

    /// Gives a waiting request the bridge that has been found for it.
    pub(super) fn serve_waiting(
        &mut self,
        key: usize,
        place: Place,
        responder: usize,
        bridge: Bridge,
    ) {
        let Role::Waiting { client, meta, .. } = self.slots[key].role else { return };
        let client = Client { place: Some(place), ..client };
        self.begin(key, client, meta, (responder, bridge), None);
        self.settle(key);
    }

    /// A request whose bridge died before they were brought together goes back to its place.
    pub(super) fn wait_again(&mut self, key: usize, place: Place) {
        if let Role::Waiting { client, .. } = self.slots[key].role {
            self.read_again(key, Client { place: Some(place), ..client });
        }
    }

    /// Has a request that stands in its client's input looked at once more, in its old place.
    fn read_again(&mut self, key: usize, client: Client) {
        self.timers.clear(key);
        self.set_role(key, Role::Reading(Client { head: Head::Unread, ..client }));
        self.again(key);
    }

    /// Moves an exchange on.
    pub(super) fn advance(&mut self, exchange: usize) {
        let running = &mut self.exchanges[exchange];
        let keys = [running.requester.key(), running.responder.key()];
        let Some([requester, responder]) = Self::pair(&mut self.slots, keys) else {
            return;
        };
        let outcome = running.exchange.advance(
            &mut requester.conn,
            &mut responder.conn,
            &mut self.ws,
            &self.exchange_config,
        );
        match outcome {
            Outcome::Wait { progress: false } => {}
            Outcome::Wait { progress: true } => self.be_patient(exchange),
            Outcome::Busy => {
                self.be_patient(exchange);
                self.again(keys[0]);
            }
            Outcome::Over { requester, responder } => self.finish(exchange, requester, responder),
            Outcome::Failed(failure) => self.fail(exchange, failure),
        }
    }

    /// Sets the deadline of the timeout that the exchange is under now.
    fn be_patient(&mut self, exchange: usize) {
        let running = &self.exchanges[exchange];
        let settings = &self.config.settings;
        let after = match running.exchange.patience() {
            TimeoutPhase::Ack => settings.bridge_ack_timeout,
            TimeoutPhase::Response => settings.response_timeout,
            TimeoutPhase::Body => settings.body_timeout,
            TimeoutPhase::Tunnel => settings.tunnel_timeout,
        };
        let key = running.requester.key();
        let slow = self.slow_side(exchange);
        self.set_deadline(key, after);
        if let Some(slow) = slow {
            self.note_queue(slow);
        }
    }

    /// Which connection of an exchange, if any, does not take what has been read for it.
    fn slow_side(&self, exchange: usize) -> Option<usize> {
        let running = &self.exchanges[exchange];
        let [requester, responder] = [running.requester.key(), running.responder.key()];
        let conns = [&self.slots[requester].conn, &self.slots[responder].conn];
        match running.exchange.stalled(conns[0], conns[1])? {
            Side::Requester => Some(requester),
            Side::Responder => Some(responder),
        }
    }

    /// The deadline of an exchange has passed.
    pub(super) fn exchange_is_late(&mut self, exchange: usize) {
        if self.slow_side(exchange).is_some_and(|slow| self.note_queue(slow)) {
            return self.be_patient(exchange);
        }
        let running = &self.exchanges[exchange];
        let requester = &self.slots[running.requester.key()].conn;
        let responder = &self.slots[running.responder.key()].conn;
        let failure = running.exchange.timed_out(requester, responder);
        self.fail(exchange, failure);
    }

    /// An exchange has come to its end.
    fn finish(&mut self, exchange: usize, requester: Reuse, responder: Reuse) {
        let running = self.dissolve(exchange);
        self.stats().served.add(1);
        let key = running.requester.key();
        self.write_line(key, running.exchange.status(), running.exchange.response_bytes());
        if let Role::Requesting { client, .. } = self.slots[key].role {
            let keep = matches!(requester, Reuse::Keep(_)) && self.is_serving();
            if keep {
                self.next_request(key, client);
            } else if self.slots[key].conn.is_idle() && running.exchange.is_request_sent() {
                // A client that is still sending would have its answer reset away by a close.
                self.close(key);
            } else {
                self.leave(key);
            }
        }
        self.release_bridge(running.responder.key(), responder);
        // After the bridge has gone where it goes: see `Drain::Parting`.
        self.stats().ended.add_last();
    }

    /// A client is between two requests.
    fn next_request(&mut self, key: usize, client: Client) {
        let requests = client.requests.saturating_add(1);
        self.set_role(
            key,
            Role::Reading(Client { requests, ..Client::new(client.door, self.now.millis()) }),
        );
        self.set_deadline(key, self.settings().keepalive_timeout);
        let conn = &self.slots[key].conn;
        if !conn.is_idle() {
            self.again(key);
        }
    }

    /// An exchange has come to nothing.
    pub(super) fn fail(&mut self, exchange: usize, failure: ExchangeError) {
        let running = self.dissolve(exchange);
        let (key, bridge) = (running.requester.key(), running.responder.key());
        log::log!(
            failure.level(),
            "client {}, backend {}: {failure}",
            self.slots[key].peer,
            self.slots[bridge].peer
        );
        if failure.side == Side::Responder && failure.reached == Progress::Nothing {
            self.server_hung_up(bridge);
        }
        // A bridge that has not seen a byte of a client's failure may go on.
        match failure.why {
            _ if failure.side == Side::Requester && running.exchange.is_unbegun() => {
                self.return_bridge(bridge);
            }
            // It is in good order, and may be closed so; what it has not taken of the request it is
            // spared.
            Cause::Undelivered => {
                self.slots[bridge].conn.output.clear(&mut self.ws.pool);
                self.leave(bridge);
            }
            _ => self.close(bridge),
        }
        self.stats().ended.add_last();
        let Role::Requesting { client, .. } = self.slots[key].role else {
            return;
        };
        if failure.action() == Action::Cut {
            self.write_line(key, running.exchange.status(), running.exchange.response_bytes());
        }
        match failure.action() {
            Action::Retry if client.attempts < ATTEMPTS => {
                self.stats().retried.add(1);
                // A bridge that was found dead has not seen the request: that does not count.
                let seen = u8::from(failure.reached != Progress::Nothing);
                self.read_again(key, Client { attempts: client.attempts + seen, ..client });
            }
            Action::Retry => {
                self.answer_fault(key, &running, 502, "every backend that was tried failed")
            }
            Action::Answer(status, text) => self.answer_fault(key, &running, status, text),
            Action::Cut if running.exchange.must_look_cut() => {
                self.slots[key].conn.reset_on_close();
                self.close(key);
            }
            Action::Cut if failure.side == Side::Requester => self.close(key),
            Action::Cut => self.leave(key),
        }
    }

    /// Writes down the request of `key`, if requests are written down.
    pub(super) fn write_line(&mut self, key: usize, status: u16, bytes: u64) {
        if let (Some(line), Some(log)) = (self.slots[key].line.take(), &self.config.access_log) {
            log.write(&line, status, bytes, self.now.micros);
        }
    }

    fn answer_fault(&mut self, key: usize, running: &Running, status: u16, text: &str) {
        let retry_after = matches!(status, 503 | 504).then_some(RETRY_AFTER);
        let head_only = running.exchange.is_to_head();
        self.refuse_with(key, Reply { head_only, retry_after, ..Reply::new(status, text) });
    }

    /// Takes an exchange out of the tables; the caller counts it as over. Its two connections keep their roles until the
    /// caller gives them others.
    fn dissolve(&mut self, exchange: usize) -> Running {
        let mut running = self.exchanges.remove(exchange);
        running.exchange.return_pipes(&mut self.ws);
        running
    }

    /// A client that waits has sent something, or has gone.
    pub(super) fn watch_waiting(&mut self, key: usize) {
        let slot = &mut self.slots[key];
        let Role::Waiting { meta, probe, .. } = &mut slot.role else {
            return;
        };
        if slot.conn.is_broken() {
            return self.close(key);
        }
        if !slot.conn.has_hung_up() || *probe == Probe::Sent {
            return;
        }
        // The client's FIN: it has shut down its sending side, or it has closed altogether. A
        // response of any kind tells which, since a closed socket answers with a reset; a 1xx
        // is what a client must put up with at any time (RFC 9110, 15.2), except in HTTP/1.0.
        *probe = Probe::Sent;
        if meta.version == Version::V10 || slot.conn.send(CONTINUE, &mut self.ws.pool).is_err() {
            self.close(key);
        }
    }

    /// A request has waited for `wait-timeout`, or for its site's.
    pub(super) fn waited_too_long(&mut self, key: usize) {
        if let Role::Waiting { meta, late, .. } = self.slots[key].role {
            let status = match late {
                Late::GatewayTimeout => 504,
                Late::Unavailable => 503,
            };
            self.turn_away(key, &meta, status, "no backend was free in time");
        }
    }
}
