//! A request on a bridge: begin, finish, and what follows if it fails.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::role::{Age, Bridge, Head, Line, Need, Purpose, Request, Role, Sight, Stage, Stay};
use super::worker::{Agent, Running};
use crate::bridge::extensions::{Extensions, RECEIPT};
use crate::exchange::error::{Action, Cause, ExchangeError, Progress, Side};
use crate::exchange::{Exchange, Outcome, RequestMeta, Reuse, TimeoutPhase};
use crate::http::reply::Reply;
use crate::http::request::{self, Request as Parsed};
use crate::net::buffer::Buffer;
use crate::net::conn::Received;
use crate::net::token::Token;

/// How long a request may take to come whole: after the acknowledgement, or after its first byte.
/// The proxy has it whole before it sends anything.
pub(super) const REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// How much is read at once while a head is expected: what is read has to be kept, since a request
/// stays in the input until its response begins.
const HEAD_READ: usize = 16 * 1024;

/// Who the client is the proxy has said in the request, and nobody asks here.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The request has not been given to the application (`doc/protocol.md`, "Undelivered").
const UNDELIVERED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    Cloudbridge-Undelivered: application\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// What came of looking at the front of a bridge's input.
enum Looked {
    /// The head is not whole yet.
    Partial,
    /// The request is being seen to.
    Taken,
    /// It is no request that we understand, which is the proxy's failure: status and reason.
    Bad(u16, &'static str),
}

impl Agent {
    /// Reads the next request of a bridge.
    pub(super) fn read_request(&mut self, key: usize) {
        let conn = &mut self.slots[key].conn;
        // What the last response left comes first.
        match conn.flush(&mut self.ws.pool) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return self.bridge_lost(key, &error),
        }
        match conn.receive(&mut self.ws.scratch[..HEAD_READ]) {
            Received::Bytes(count) => {
                conn.input.push(&self.ws.scratch[..count], &mut self.ws.pool);
            }
            Received::Nothing if conn.input.is_empty() => return,
            Received::Nothing => {}
            Received::End => {
                let why = std::io::Error::other("the proxy has closed it");
                return self.bridge_lost(key, &why);
            }
            Received::Broken(error) => return self.bridge_lost(key, &error),
        }
        if conn.has_hung_up() {
            // Nobody waits for the answer any more, and by now another agent may have the request.
            let why = std::io::Error::other("the proxy has closed it behind a request");
            return self.bridge_lost(key, &why);
        }
        let input = std::mem::take(&mut self.slots[key].conn.input);
        let looked = self.look_at(key, &input);
        self.slots[key].conn.input = input;
        match looked {
            Looked::Partial => {
                if let Some(Stage::Idle(Head::Unread)) = self.stage(self.slots[key].token(key)) {
                    self.set_stage(key, Stage::Idle(Head::Begun));
                    self.set_deadline(key, REQUEST_WITHIN);
                }
                if self.slots[key].conn.is_readable() {
                    self.again(key);
                }
            }
            Looked::Taken => self.settle(key),
            Looked::Bad(status, reason) => {
                log::warn!("the proxy has sent a bad request: {reason}");
                self.answer(key, false, status, reason);
            }
        }
    }

    fn look_at(&mut self, key: usize, input: &Buffer) -> Looked {
        let mut storage = request::storage();
        match request::parse(input.bytes(), &mut storage, &self.exchange_config.limits) {
            Ok(None) => Looked::Partial,
            Ok(Some(request)) => {
                self.ask(key, &request, input);
                Looked::Taken
            }
            Err(bad) => Looked::Bad(bad.status, bad.reason),
        }
    }

    /// Finds a place and a line for the request at the front of `input`, which is the input of `key`
    /// on loan; [`Agent::settle`] comes next, with the input in its place.
    fn ask(&mut self, key: usize, parsed: &Parsed<'_, '_>, input: &Buffer) {
        let request = Request {
            meta: RequestMeta::of(parsed, NOBODY, &self.exchange_config),
            sight: Sight::Unseen,
        };
        let application = self.application_of(key);
        let bridge = self.slots[key].token(key);
        let Some(stage) = self.stage(bridge) else { return };
        self.timers.clear(key);
        let asking = |need| Stage::Asking { request, need };
        self.set_stage(key, asking(Need::Place));
        if !stage.has_place() && !self.applications[application].take_place() {
            return self.applications[application].queue.push_back(bridge);
        }
        let kept = stage.own_line().filter(|line| self.is_live(*line));
        let line = match kept.map(|line| (line, self.slots[line.key()].role)) {
            Some((line, Role::Line(Line { purpose: Purpose::Kept { age, .. }, .. }))) => {
                Some((line, age))
            }
            _ => {
                let look = !request.meta.can_be_repeated();
                self.take_idle(application, look).map(|line| (line, Age::Reused))
            }
        };
        match line {
            Some(line) => self.begin(key, line, request, Some((parsed, input))),
            None => self.dial_for(key, asking(Need::Place)),
        }
    }

    /// Brings a bridge that has a place and a line together. A request that has just been read comes
    /// parsed, with its bridge's input on loan to the caller; one that has waited stands in that
    /// input. Whoever calls this calls [`Agent::settle`] next, with the input in its place.
    pub(super) fn begin(
        &mut self,
        key: usize,
        (line, age): (Token, Age),
        request: Request,
        parsed: Option<(&Parsed<'_, '_>, &Buffer)>,
    ) {
        // While the agent or the service is leaving, a bridge ends with its response.
        let persistent = request.meta.persistent && self.is_offered(key);
        let meta = RequestMeta { persistent, ..request.meta };
        let requester = self.slots[key].token(key);
        let exchange = Exchange::new(meta);
        let failed = None;
        let running = Running { exchange, request, requester, responder: line, failed };
        let exchange = self.exchanges.insert(running);
        self.set_stage(key, Stage::Requesting { exchange });
        if let Role::Line(Line { purpose, .. }) = &mut self.slots[line.key()].role {
            *purpose = Purpose::Responding { exchange, age };
        }
        self.timers.clear(key);
        let gives_receipt = !request.meta.idempotent && self.takes_receipts(key);
        let running = &mut self.exchanges[exchange];
        let Ok([requester, responder]) = self.slots.get_disjoint_mut([key, line.key()]) else {
            return;
        };
        let (ws, exchange_config) = (&mut self.ws, &self.exchange_config);
        // What has come over the line meanwhile belongs to nobody, and would be taken for the
        // response.
        let conn = &mut responder.conn;
        let untouched = |side, why| ExchangeError { side, why, reached: Progress::Nothing };
        let result = if conn.is_readable() && !conn.is_quiet_and_open() {
            Err(untouched(Side::Responder, Cause::Closed))
        } else if gives_receipt && let Err(error) = requester.conn.send(RECEIPT, &mut ws.pool) {
            // The proxy has not heard that the application gets it, so it must not get it.
            Err(untouched(Side::Requester, Cause::Lost(error)))
        } else {
            match parsed {
                Some((parsed, input)) => running.exchange.open(parsed, input.bytes(), conn, ws),
                None => {
                    running.exchange.open_from_input(&mut requester.conn, conn, ws, exchange_config)
                }
            }
        };
        running.failed = result.err();
    }

    /// Whether the proxy of this bridge wants to know when the application gets a request that cannot be repeated.
    fn takes_receipts(&self, key: usize) -> bool {
        matches!(
            self.slots[key].role,
            Role::Bridge(Bridge { known: Extensions { receipts: true, .. }, .. })
        )
    }

    /// What follows from looking at a head, now that the input is in its place again.
    pub(super) fn settle(&mut self, key: usize) {
        let Role::Bridge(Bridge { stage: Stage::Requesting { exchange }, .. }) =
            self.slots[key].role
        else {
            return;
        };
        let running = &mut self.exchanges[exchange];
        if let Some(failure) = running.failed.take() {
            return self.fail(exchange, failure);
        }
        let requester = &mut self.slots[key].conn;
        running.exchange.keep_or_release(requester, &mut self.ws);
        if !running.exchange.is_request_sent() {
            self.advance(exchange);
        }
    }

    /// Moves an exchange on.
    pub(super) fn advance(&mut self, exchange: usize) {
        let running = &mut self.exchanges[exchange];
        let (key, line) = (running.requester.key(), running.responder.key());
        let Ok([requester, responder]) = self.slots.get_disjoint_mut([key, line]) else {
            return;
        };
        let (requester, responder) = (&mut requester.conn, &mut responder.conn);
        // A proxy shuts down its side of a bridge only in a tunnel. Elsewhere its FIN says that the
        // client has gone, or has waited for too long: the application may stop.
        if requester.has_hung_up() && running.exchange.patience() != TimeoutPhase::Tunnel {
            return self.cut(exchange);
        }
        let outcome =
            running.exchange.advance(requester, responder, &mut self.ws, &self.exchange_config);
        match outcome {
            Outcome::Wait { .. } => {}
            Outcome::Busy => self.again(key),
            Outcome::Over { requester, responder } => self.finish(exchange, requester, responder),
            Outcome::Failed(failure) => self.fail(exchange, failure),
        }
    }

    /// An exchange has come to its end.
    fn finish(&mut self, exchange: usize, requester: Reuse, responder: Reuse) {
        let running = self.dissolve(exchange);
        let (key, line) = (running.requester.key(), running.responder.key());
        match responder {
            Reuse::Keep(seconds) => self.keep_line(line, seconds),
            Reuse::Close => self.close(line),
        }
        let conn = &self.slots[key].conn;
        if matches!(requester, Reuse::Keep(_)) && (self.is_offered(key) || self.leaves(key)) {
            let quiet = conn.is_idle();
            let application = self.application_of(key);
            self.set_stage(key, Stage::Idle(Head::Unread));
            self.await_close(key);
            self.release_place(application);
            if !quiet {
                self.again(key);
            }
        } else if conn.is_idle() && running.exchange.is_request_sent() {
            self.close(key);
        } else {
            self.leave(key);
        }
    }

    /// An exchange has come to nothing.
    fn fail(&mut self, exchange: usize, failure: ExchangeError) {
        let running = self.dissolve(exchange);
        let (key, line) = (running.requester.key(), running.responder.key());
        let application = self.application_of(key);
        log::log!(failure.level(), "{}: {failure}", self.applications[application].service.to);
        let age = match self.slots[line].role {
            Role::Line(Line { purpose: Purpose::Responding { age, .. }, .. }) => age,
            _ => Age::New,
        };
        self.close(line);
        let sight = match failure.reached {
            Progress::Nothing => running.request.sight,
            _ => Sight::Perhaps,
        };
        let request = Request { sight, ..running.request };
        let asking = Stage::Asking { request, need: Need::Place };
        match (failure.action(), age) {
            // The application had closed an idle line, which it may; now for one that is not.
            (Action::Retry, Age::Reused) => self.dial_for(key, asking),
            (Action::Retry, Age::New) => {
                self.set_stage(key, asking);
                self.release_place(application);
                self.undelivered(key);
            }
            (Action::Answer(status, text), _) => {
                self.answer(key, request.meta.to_head, status, text);
            }
            (Action::Cut, _) if running.exchange.must_look_cut() => {
                self.slots[key].conn.reset_on_close();
                self.close(key);
            }
            (Action::Cut, _) if failure.side == Side::Requester => self.close(key),
            (Action::Cut, _) => self.leave(key),
        }
    }

    /// Ends an exchange, wherever it stands, and closes both its connections.
    pub(super) fn cut(&mut self, exchange: usize) {
        let running = self.dissolve(exchange);
        if running.exchange.must_look_cut() {
            self.slots[running.requester.key()].conn.reset_on_close();
        }
        self.close(running.responder.key());
        self.close(running.requester.key());
    }

    /// A request that could not be given to the application, and which has no place: it is given
    /// back. A proxy that knows what that means is told that nobody has seen the request, and sends it
    /// elsewhere. To any other a bridge that is closed without an answer says that it may do so if it
    /// has not been acknowledged or if the request may be repeated; it holds the rest to be lost, and
    /// so the client is told here what has happened.
    pub(super) fn undelivered(&mut self, key: usize) {
        let Role::Bridge(Bridge { stage, known, .. }) = self.slots[key].role else { return };
        match stage {
            Stage::Asking { request, .. }
                if known.undelivered && request.sight == Sight::Unseen =>
            {
                self.say_last(key, UNDELIVERED);
            }
            Stage::Asking { request: Request { meta, .. }, .. } if !meta.idempotent => {
                self.answer(key, meta.to_head, 502, "the application cannot be reached");
            }
            _ => self.close(key),
        }
    }

    /// Whether the proxy has been asked to close the bridge in slot `key`.
    pub(super) fn leaves(&self, key: usize) -> bool {
        matches!(self.slots[key].role, Role::Bridge(Bridge { stay: Stay::Leaves, .. }))
    }

    /// The proxy has been told that the bridge is there, and has sent nothing: the client may have
    /// gone at that moment. Nothing is kept for it any longer.
    pub(super) fn no_request(&mut self, key: usize) {
        let Some(Stage::Ready { line }) = self.stage(self.slots[key].token(key)) else { return };
        let stays = self.is_offered(key) || self.leaves(key);
        if !self.slots[key].conn.input.is_empty() || !stays {
            return self.close(key);
        }
        let application = self.application_of(key);
        self.set_stage(key, Stage::Idle(Head::Unread));
        self.await_close(key);
        self.release_place(application);
        if let Some(line) = line.filter(|line| self.is_live(*line)) {
            self.close(line.key());
        }
    }

    /// Answers with an error of our own, and closes.
    fn answer(&mut self, key: usize, head_only: bool, status: u16, text: &str) {
        let mut out = Vec::new();
        Reply { close: true, head_only, ..Reply::new(status, text) }.write(&mut out);
        self.say_last(key, &out);
    }

    /// Says `bytes`, and closes.
    fn say_last(&mut self, key: usize, bytes: &[u8]) {
        // Our FIN follows at once, and goes out in the same packet.
        match self.slots[key].conn.send_more(bytes, &mut self.ws.pool) {
            Ok(_) => self.leave(key),
            Err(_) => self.close(key),
        }
    }

    /// Takes an exchange out of the tables. Its two connections keep their roles until the caller
    /// gives them others.
    fn dissolve(&mut self, exchange: usize) -> Running {
        let mut running = self.exchanges.remove(exchange);
        running.exchange.return_pipes(&mut self.ws);
        running
    }
}
