//! A request on a bridge: begin, finish, and what follows if it fails.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::role::{Age, Bridge, Head, Line, Need, Purpose, Request, Role, Sight, Stage, Stay};
use super::worker::{Agent, ExchangeEnded as Ended, Running};
use crate::bridge::extensions::{Extensions, RECEIPT};
use crate::exchange::{
    Action, Beginning, CloseMode, CloseScope, DeliveryReports, Exchange, ExchangeError, Opening,
    Progress, RequestMeta, Reuse, Start,
};
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
            Ok(Some(request)) => match Beginning::of(&request, input.bytes()) {
                Ok(beginning) => {
                    self.ask(key, &request, input, beginning);
                    Looked::Taken
                }
                Err(bad) => Looked::Bad(400, bad.reason),
            },
            Err(bad) => Looked::Bad(bad.status, bad.reason),
        }
    }

    /// Finds a place and a line for the request at the front of `input`, which is the input of `key`
    /// on loan; [`Agent::settle`] comes next, with the input in its place.
    fn ask(&mut self, key: usize, parsed: &Parsed<'_, '_>, input: &Buffer, beginning: Beginning) {
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
                let look = !request.meta.is_surely_repeatable();
                self.take_idle(application, look).map(|line| (line, Age::Reused))
            }
        };
        match line {
            Some(line) => {
                beginning.prepare(parsed, input.bytes(), &request.meta, &mut self.ws.out);
                self.begin(key, line, request, Some(beginning));
            }
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
        prepared: Option<Beginning>,
    ) {
        // While the agent or the service is leaving, a bridge ends with its response.
        let persistent = request.meta.persistent && self.is_offered(key);
        let meta = RequestMeta { persistent, ..request.meta };
        let requester = self.slots[key].token(key);
        let exchange = Exchange::new(meta, DeliveryReports::Untrusted, CloseScope::Responder);
        let running = Running { exchange, data: request, requester, responder: line };
        let exchange = self.exchanges.insert(running);
        self.set_stage(key, Stage::Requesting { exchange });
        if let Role::Line(Line { purpose, .. }) = &mut self.slots[line.key()].role {
            *purpose = Purpose::Responding { exchange, age };
        }
        self.timers.clear(key);
        let gives_receipt = !request.meta.idempotent && self.takes_receipts(key);
        let notice = if gives_receipt { RECEIPT } else { b"" };
        let opening = prepared.map_or(Opening::FromInput, Opening::Prepared);
        self.unstarted = Some((exchange, Start { opening, probe: false, notice }));
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
        let Role::Bridge(Bridge { stage: Stage::Requesting { .. }, .. }) = self.slots[key].role
        else {
            return;
        };
        let Some((exchange, start)) = self.unstarted.take() else { return };
        let (exchanges, mut lent, config) = self.lend();
        let ended = exchanges.start(exchange, start, &mut lent, config);
        self.exchange_ended(ended);
    }

    /// Moves an exchange on.
    pub(super) fn advance(&mut self, exchange: usize) {
        let running = self.exchanges.get_mut(exchange);
        // A proxy shuts down its side of a bridge only in a tunnel. Elsewhere its FIN says that the
        // client has gone, or has waited for too long: the application may stop.
        let hung_up = self.slots[running.requester.key()].conn.has_hung_up();
        if hung_up && !running.exchange.is_tunnel() {
            return self.cut(exchange);
        }
        let (exchanges, mut lent, config) = self.lend();
        let ended = exchanges.advance(exchange, &mut lent, config);
        self.exchange_ended(ended);
    }

    fn exchange_ended(&mut self, ended: Option<Ended>) {
        match ended {
            None => {}
            Some(Ended::Finished { running, requester, responder }) => {
                self.finish(&running, requester, responder);
            }
            Some(Ended::Failed { running, error }) => self.fail(&running, &error),
        }
    }

    /// An exchange has come to its end.
    fn finish(&mut self, running: &Running, requester: Reuse, responder: Reuse) {
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
        } else {
            let mode = running.exchange.close_mode(conn);
            self.close_as(key, mode);
        }
    }

    /// An exchange has come to nothing.
    fn fail(&mut self, running: &Running, failure: &ExchangeError) {
        let (key, line) = (running.requester.key(), running.responder.key());
        let application = self.application_of(key);
        log::log!(failure.level(), "{}: {failure}", self.applications[application].service.to);
        let age = match self.slots[line].role {
            Role::Line(Line { purpose: Purpose::Responding { age, .. }, .. }) => age,
            _ => Age::New,
        };
        self.close(line);
        let sight = match failure.progress {
            Progress::Nothing => running.data.sight,
            _ => Sight::Perhaps,
        };
        let request = Request { sight, ..running.data };
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
            (Action::Close(mode), _) => self.close_as(key, mode),
        }
    }

    fn close_as(&mut self, key: usize, mode: CloseMode) {
        match mode {
            CloseMode::Now => self.close(key),
            CloseMode::Reset => {
                self.slots[key].conn.reset_on_close();
                self.close(key);
            }
            CloseMode::Linger => self.leave(key),
        }
    }

    /// Ends an exchange, wherever it stands, and closes both its connections.
    pub(super) fn cut(&mut self, exchange: usize) {
        let running = self.dissolve(exchange);
        if running.exchange.abandon_mode() == CloseMode::Reset {
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
        self.exchanges.take(exchange, &mut self.ws)
    }
}
