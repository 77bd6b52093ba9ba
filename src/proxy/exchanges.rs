//! A request meets its bridge; what happens then, and what if it fails.

use crate::bridge::request::SWITCH;
use crate::exchange::{
    Action, Cause, Ended, Exchange, ExchangeError, Opening, Progress, RequestMeta, Reuse, Running,
    Side, Start, half_close,
};
use crate::http::reply::Reply;
use crate::net::log_limiter;
use crate::routing::QueuePos;

use super::client::RETRY_AFTER;
use super::closing::End;
use super::dispatch::{Matched, NO_BACKEND};
use super::reason::Reason;
use super::retries::Failed;
use super::role::{Begun, Bridge, Origin, Role, Ticket, Tries};
use super::sticky::AskedCookie;
use super::worker::Worker;

impl Worker {
    /// A request that has just been read has found a bridge.
    pub(super) fn serve_matched(&mut self, key: usize, matched: Matched) {
        let Matched { bridge, owner, ticket, meta, cookie, prepared } = matched;
        let Some(bridge) = self.bring_here(bridge, owner) else {
            return self.dispatch_again(key, ticket);
        };
        if self.is_of_failed_server(bridge, ticket.tries) {
            self.end(bridge, End::Close);
            return self.dispatch_again(key, ticket);
        }
        let opening = match prepared {
            Some(prepared) => Opening::Prepared(prepared),
            None => Opening::Switch(SWITCH),
        };
        self.begin(key, bridge, (meta, cookie), ticket, opening);
    }

    /// A request that has waited gets the bridge reserved for it.
    pub(super) fn serve_queued(&mut self, key: usize, pos: QueuePos, bridge: usize) {
        let Some(Role::Queued { request, .. }) = self.conns.role_mut(key) else { return };
        let (mut meta, tries, cookie) = (request.meta, request.tries, request.cookie.take());
        let reserved = self.conns.role(bridge).and_then(Role::bridge);
        let must_acknowledge = reserved
            .is_some_and(|bridge| bridge.must_acknowledge(&meta, tries, self.conns.now().millis()));
        let opening = if must_acknowledge { Opening::Switch(SWITCH) } else { Opening::FromInput };
        let ticket = Ticket { pos, tries };
        if self.is_of_failed_server(bridge, ticket.tries) {
            self.end(bridge, End::Close);
            return self.dispatch_again(key, ticket);
        }
        meta.persistent &= self.is_serving();
        self.begin(key, bridge, (meta, cookie), ticket, opening);
    }

    /// Whether the request has failed at the server that this is an older connection to: the server
    /// may be about to end, and its connections with it. Only one made since shows that it is there.
    fn is_of_failed_server(&self, bridge: usize, tries: Tries) -> bool {
        tries.delivered > 0
            && self.conns.role(bridge).and_then(Role::bridge).is_some_and(|bridge| {
                let Origin::Dialled(permit) = &bridge.origin else { return false };
                let is_older =
                    bridge.served > 0 || permit.server.doubt().is_later_than(bridge.parked_at);
                is_older && tries.last == Some(bridge.backend.id)
            })
    }

    /// Puts an exchange between client `key` and bridge `responder` into the table, and starts it.
    fn begin(
        &mut self,
        key: usize,
        responder: usize,
        (meta, cookie): (RequestMeta, Option<Box<AskedCookie>>),
        ticket: Ticket,
        opening: Opening,
    ) {
        self.stats().begun.add(1);
        let now = self.conns.now().millis();
        self.stats().queued.add(self.conns.now().micros_since(ticket.pos.since()));
        let (requester, connection) = (self.conns[key].token(), &self.conns[responder]);
        let Some(bridge) = connection.role().and_then(Role::bridge) else {
            unreachable!("a matched connection is a bridge")
        };
        bridge.count_clients(1);
        // Before the first byte.
        bridge.keeping.set_busy();
        let keys = &self.config.sticky_keys;
        let instance = bridge.membership().instance;
        let cookie = cookie.map(|cookie| Box::new(cookie.of_exchange(instance, keys)));
        let exchange = self.exchanges.insert(Running {
            exchange: Exchange::new(meta, bridge.delivery_reports(), bridge.close_scope())
                .with_speaker(bridge.speaker())
                .with_cookie(cookie),
            requester,
            responder: connection.token(),
            data: Begun::with(bridge, now),
        });
        self.watch.last_begun = now;
        self.change_role(responder, |role| {
            role.with_bridge(|mut bridge| {
                bridge.carried_body |= meta.has_body();
                Role::Responding { bridge, exchange }
            })
        });
        // The exchange's deadline is its requester's.
        self.conns.clear_deadline(responder);
        self.change_role(key, |role| role.requesting(ticket, exchange));
        self.record_match(key, responder);
        // A request that cannot be sent again must not be sent to a connection that has just been
        // closed: there is no way to know whether it arrived. Nor may the one repeat be wasted on
        // another connection to a server that has just died.
        let probe = !meta.is_surely_repeatable() || ticket.tries.delivered > 0;
        let start = Start { opening, probe, notice: &[] };
        let ended = self.exchanges.start(exchange, start, &mut self.conns, &self.exchange_config);
        if self.follows {
            self.record_progress(exchange, ended.as_ref());
        }
        match ended {
            None => self.note_places(exchange),
            ended => self.exchange_ended(ended),
        }
    }

    pub(super) fn advance(&mut self, exchange: usize) {
        let is_paced = self.exchanges.get_mut(exchange).data.pace.is_some();
        if is_paced && self.rests(exchange) {
            return;
        }
        let ended = match is_paced {
            true => self.advance_paced(exchange),
            false => self.exchanges.advance(exchange, &mut self.conns, &self.exchange_config),
        };
        if self.follows {
            self.record_progress(exchange, ended.as_ref());
        }
        match ended {
            None => {
                self.note_places(exchange);
                self.note_tunnel(exchange);
            }
            ended => self.exchange_ended(ended),
        }
    }

    /// An exchange goes on. If it has become a tunnel to a server, that may have another connection.
    fn note_tunnel(&mut self, exchange: usize) {
        let running = self.exchanges.get_mut(exchange);
        if !running.exchange.is_tunnel() {
            return;
        }
        let bridge = self.conns.role_mut(running.responder.key()).and_then(Role::bridge_mut);
        if let Some(Bridge { origin: Origin::Dialled(permit), .. }) = bridge
            && permit.count_as_tunnel()
        {
            self.server_connection_freed();
        }
    }

    /// Passes on what has been held back long enough.
    pub(super) fn release_responses(&mut self) {
        while let Some(exchange) = self.exchanges.release(self.conns.now().millis()) {
            self.advance(exchange);
        }
    }

    pub(super) fn exchange_timed_out(&mut self, exchange: usize) {
        let ended = self.exchanges.timed_out(exchange, &mut self.conns, &self.exchange_config);
        self.exchange_ended(ended);
    }

    pub(super) fn exchange_ended(&mut self, mut ended: Option<Ended<Begun>>) {
        if let Some(Ended::Finished { running, .. } | Ended::Failed { running, .. }) = &ended
            && let Some(places) = running.exchange.take_places()
        {
            // Before the bridge is parked, which may be one too many.
            self.set_places(running.responder.key(), places);
        }
        if let Some(Ended::Finished { running, .. } | Ended::Failed { running, .. }) = &mut ended {
            self.pay_rest(running);
        }
        match &mut ended {
            None => {}
            Some(Ended::Finished { running, requester, responder }) => {
                self.finish(running, *requester, *responder);
            }
            Some(Ended::Failed { running, error }) => match error.cause {
                Cause::GivenBack { .. } | Cause::Speaking => self.give_back(running, error),
                _ => self.fail(running, error),
            },
        }
    }

    /// The response has been passed on.
    fn finish(&mut self, running: &mut Running<Begun>, requester: Reuse, responder: Reuse) {
        self.stats().served.add(1);
        let key = running.requester.key();
        match running.exchange.take_file() {
            Some(file) => {
                self.count_answer(running, false);
                self.serve_named(running, *file, requester);
            }
            None => {
                self.count_answer(running, true);
                self.record_response(key, running);
                if matches!(requester, Reuse::Keep(_)) && self.is_serving() {
                    self.next_request(key);
                } else {
                    let mode = running.exchange.close_mode(&self.conns[key].conn);
                    self.end(key, mode.into());
                }
            }
        }
        let bridge = running.responder.key();
        let must_close = self.must_close(running);
        self.note_alive(bridge);
        self.release_bridge(bridge, if must_close { Reuse::Close } else { responder });
        // After the bridge has been released: see `shutdown.rs`.
        self.stats().exchange_ended();
    }

    /// Counts a response of a backend, and how long it took. If the client gets it, and not a file in its
    /// place, it counts for the worker, too.
    fn count_answer(&mut self, running: &Running<Begun>, is_passed_on: bool) {
        let Some(Role::Requesting { ticket, .. }) = self.conns.role(running.requester.key()) else {
            return;
        };
        let took = self.conns.now().micros_since(ticket.pos.since());
        let status = running.exchange.status();
        if is_passed_on {
            self.stats().answered(status, took);
        }
        if let Some(bridge) = self.conns.role(running.responder.key()).and_then(Role::bridge) {
            bridge.route.traffic().add(status, took);
            bridge.backend.count_answer();
            if let Origin::Dialled(permit) = &bridge.origin {
                permit.server.doubt().answered(running.data.at);
            }
        }
    }

    pub(super) fn fail(&mut self, running: &mut Running<Begun>, error: &ExchangeError) {
        let (key, bridge) = (running.requester.key(), running.responder.key());
        self.report_failure(key, running, error);
        self.record_failure(key, running, error);
        if error.side == Side::Responder && error.progress == Progress::Nothing {
            self.server_hung_up(bridge);
        }
        self.note_unanswered(bridge, error);
        if matches!(error.cause, Cause::Stray) {
            self.bridge_sent_stray_bytes(bridge);
        }
        self.note_silence(bridge, error);
        if error.side == Side::Responder && error.progress != Progress::Tunnel {
            self.note_error(bridge, &error.to_string());
        }
        let id = self.conns.role(bridge).and_then(Role::bridge).map(|b| b.backend.id);
        let route = self.route_to_note(bridge);
        self.note_failure(route.as_deref(), error);
        let failed = Failed { address: self.conns[bridge].address(), id, route };
        self.release_failed(running, error);
        self.stats().exchange_ended();
        let action = error.action();
        if matches!(action, Action::Close(_)) {
            self.record_response(key, running);
        }
        match action {
            Action::Retry => self.retry(key, running, error, failed),
            Action::Answer(answer) => {
                let told = (answer.status(), answer.text());
                self.answer_failure(key, running, answer.into(), told);
            }
            Action::Close(mode) => self.end(key, mode.into()),
        }
    }

    /// A backend has failed: its row in the state says how.
    fn note_error(&self, bridge: usize, what: &str) {
        if let Some(bridge) = self.conns.role(bridge).and_then(Role::bridge) {
            bridge.backend.note_error(what);
        }
    }

    /// Logs how an exchange failed. Of each kind of failure that an operator is told, there are a
    /// few lines at a time: a backend that is broken fails with every request.
    fn report_failure(&mut self, key: usize, running: &Running<Begun>, error: &ExchangeError) {
        let level = error.level();
        if !log::log_enabled!(level) {
            return;
        }
        let mut more = String::new();
        if level <= log::Level::Info {
            let kind = (error.side, std::mem::discriminant(&error.cause));
            let Some(count) = self.failures_reported.allow(kind, self.conns.now().millis()) else {
                return;
            };
            more = log_limiter::suppressed(count, " of this kind");
        }
        let (client, backend) = (&self.conns[key], &self.conns[running.responder.key()]);
        let route = backend.role().and_then(Role::bridge).map(|bridge| &bridge.route);
        let name = route.and_then(|route| route.spec().patterns().first()).map_or("", |name| name);
        let failed = match client.role() {
            Some(Role::Requesting { ticket, .. }) => ticket.tries.failed,
            _ => 0,
        };
        let mut named =
            running.exchange.named(&client.conn, &self.exchange_config.limits).to_string();
        if named.is_empty() {
            named = self.recorded_name(key);
        }
        log::log!(
            level,
            "client {}, backend {} of {name}{named}{}, attempt {}: {error}{more}",
            client.address(),
            backend.address(),
            self.shown_id(key),
            failed.saturating_add(1),
        );
    }

    /// Parks or closes the bridge of a failed exchange.
    fn release_failed(&mut self, running: &Running<Begun>, error: &ExchangeError) {
        let bridge = running.responder.key();
        if error.side == Side::Requester && running.exchange.is_responder_untouched() {
            return self.return_bridge(bridge, running.exchange.is_new());
        }
        if matches!(error.cause, Cause::Undelivered | Cause::GivenBack { .. }) {
            return self.end_unsent(bridge);
        }
        self.end(bridge, End::Close);
    }

    /// Closes a bridge that may not have been sent its request whole. The connection is healthy: drops
    /// the unsent rest and closes cleanly.
    pub(super) fn end_unsent(&mut self, bridge: usize) {
        let (connection, ws) = self.conns.split(bridge);
        connection.conn.output.clear(&mut ws.pool);
        self.end(bridge, End::Linger);
    }

    /// Whether the bridge of an exchange must not be used again, whatever its backend has said.
    pub(super) fn must_close(&self, running: &Running<Begun>) -> bool {
        let bridge = running.responder.key();
        running.exchange.meta().has_body() && self.is_careless(bridge)
            || self.conns[bridge].conn.is_worn()
    }

    pub(super) fn answer_failure(
        &mut self,
        key: usize,
        running: &mut Running<Begun>,
        reason: Reason,
        (status, text): (u16, &str),
    ) {
        let retry_after = matches!(status, 503 | 504).then_some(RETRY_AFTER);
        let &RequestMeta { to_head, version, .. } = running.exchange.meta();
        let reply = Reply { head_only: to_head, version, retry_after, ..Reply::new(status, text) };
        let body = self.body_of(key, reason, &reply, running.exchange.holds_request());
        let is_serving = self.is_serving();
        let (connection, ws) = self.conns.split(key);
        if is_serving && running.exchange.make_way(&mut connection.conn, &mut ws.pool) {
            self.answer_and_go_on(key, reason, reply, body.as_ref());
        } else {
            self.reject_with(key, reason, reply, body.as_ref());
        }
    }

    /// A bridge has sent bytes that belong to no request.
    pub(super) fn bridge_sent_stray_bytes(&mut self, key: usize) {
        let (peer, now) = (self.conns[key].peer, self.conns.now().millis());
        let Some(bridge) = self.conns.role(key).and_then(Role::bridge) else { return };
        log::debug!("backend {peer} sent bytes without a request");
        // Otherwise no body can be the reason.
        if bridge.carried_body && self.shared.careless.note(bridge.route.id(), now) {
            log::warn!(
                "a backend of {} answers requests without reading their bodies: from now on its \
                 bridges are closed after each request with a body (backend {peer})",
                bridge.route.spec().patterns().join(", ")
            );
        }
    }

    /// Whether bridge `key` must not be used again after a request with a body.
    fn is_careless(&self, key: usize) -> bool {
        let now = self.conns.now().millis();
        let bridge = self.conns.role(key).and_then(Role::bridge);
        bridge.is_some_and(|bridge| self.shared.careless.has(bridge.route.id(), now))
    }

    /// Abandons an exchange in any state, and closes both connections.
    pub(super) fn cut(&mut self, exchange: usize) {
        let running = self.exchanges.take(exchange, &mut self.conns.ws);
        self.stats().exchange_ended();
        self.record_cut(running.requester.key(), &running);
        self.end(running.requester.key(), running.exchange.abandon_mode().into());
        self.end(running.responder.key(), End::Close);
    }

    /// The client of a waiting request has sent something, or has closed.
    pub(super) fn watch_queued(&mut self, key: usize) {
        let (connection, ws) = self.conns.split(key);
        let Some(Role::Queued { request, .. }) = connection.role() else { return };
        let (meta, conn) = (request.meta, &mut connection.conn);
        let is_gone = conn.is_broken()
            || conn.has_hung_up()
                && half_close::probe(conn, &meta, &self.exchange_config, &mut ws.pool).is_err();
        if is_gone {
            self.end(key, End::Close);
        }
    }

    /// A request has waited for its own backend for as long as it may, or that is not to be waited for
    /// any longer. It keeps its place.
    pub(super) fn go_anywhere(&mut self, key: usize) {
        let Some(Role::Queued { request, .. }) = self.conns.role(key) else { return };
        let tries = request.tries;
        match self.scheduler.recall(request.waiter) {
            Some(pos) => self.dispatch_again(key, Ticket { pos, tries }),
            None => self.await_bridge(key),
        }
    }

    /// A bridge is on its way to a request that waits, from another worker or in the next turn.
    fn await_bridge(&mut self, key: usize) {
        self.conns.set_deadline(key, self.config.settings.wait_timeout);
    }

    /// A request has waited for `wait-timeout`, or its site's timeout.
    pub(super) fn queue_timed_out(&mut self, key: usize) {
        let Some(Role::Queued { request, .. }) = self.conns.role(key) else { return };
        if self.scheduler.stays_for(request.waiter).is_some() {
            return self.go_anywhere(key);
        }
        let (status, head_only) = (request.timeout_status, request.meta.to_head);
        let (gets_page, waiter) = (request.gets_page, request.waiter);
        let reason = match self.scheduler.has_bridge_for(waiter) {
            true => Reason::BackendsBusy,
            false => Reason::NoBackend,
        };
        if !self.scheduler.claim(waiter) {
            return self.await_bridge(key);
        }
        if gets_page {
            return self.show_waiting_page(key);
        }
        self.note_vain_wait(waiter, reason, status);
        let reply = Reply::new(status, NO_BACKEND);
        self.refuse(key, reason, Reply { head_only, retry_after: Some(RETRY_AFTER), ..reply });
    }
}
