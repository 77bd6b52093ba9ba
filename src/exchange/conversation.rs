//! The state machine of one exchange.

use std::net::IpAddr;

use crate::http::request::{self, Request};
use crate::http::response::{self, Response};
use crate::http::rewrite::{self, Toward, Via};
use crate::http::{Framing, Version};
use crate::reactor::conn::{Conn, Received};

use super::fault::{Fault, Reached, Side, Why};
use super::flow::{Broken, Flow, Form, Held, Pumped};
use super::{Rules, Workspace};

/// How a bridge says that it is still there (`doc/protocol.md`, "The acknowledgement").
const ACKNOWLEDGEMENT: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// More interim responses (1xx) than this before a final one: the responder is not sane.
const INTERIM_LIMIT: u8 = 32;

/// What the exchange has to know of its request when the bytes of the head are gone.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The requester's address, for `X-Forwarded-For`.
    pub client: IpAddr,
    /// The requester's protocol version.
    pub version: Version,
    /// HEAD: the response has no body, whatever its fields say.
    pub to_head: bool,
    /// The request may be sent twice (RFC 9110, 9.2.2).
    pub idempotent: bool,
    /// The requester's connection may serve another request after this one.
    pub persistent: bool,
    /// The request asks for a tunnel.
    pub upgrade: bool,
    /// The request authenticates the connection itself (NTLM, Negotiate).
    pub connection_auth: bool,
}

impl Facts {
    /// The facts of `request`, which came from `client`.
    #[must_use]
    pub fn of(request: &Request<'_, '_>, client: IpAddr) -> Facts {
        Facts {
            client,
            version: request.version,
            to_head: request.is_head(),
            idempotent: request.idempotent(),
            persistent: request.persistent,
            upgrade: request.upgrade,
            connection_auth: request.connection_auth,
        }
    }
}

/// One request and its response, under way between two connections.
pub struct Exchange {
    facts: Facts,
    stage: Stage,
    sending: Sending,
    receiving: Receiving,
    /// How much of the requester's input is the request, sent and kept to be sent again.
    held: Held,
    sent: bool,
    persistence: Persistence,
    status: u16,
    moved: u64,
}

/// Where the conversation as a whole stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The bridge has been told of the match and has not said yet that it is still there.
    Acknowledging,
    /// It has said something, but not letter for letter what we expect: if the next head is a
    /// `100`, in whatever words, that is the acknowledgement.
    Acknowledged,
    /// Request and response are on their way.
    Open,
    /// After a 101: bytes in both directions, without meaning to us.
    Tunnel,
}

/// The request's direction.
enum Sending {
    /// Not a byte has been sent.
    Unsent,
    /// Its body is on its way.
    Body(Flow),
    /// All of it has been sent.
    Done,
    /// The responder takes no more of it; it may still answer (RFC 9112, 9.5).
    Refused,
}

/// The response's direction.
enum Receiving {
    /// The head is to come, or the next one after an interim response.
    Head { interim: u8 },
    /// The body is on its way.
    Body(Flow),
    /// All of it has been given to the requester.
    Done,
}

/// What may become of the two connections afterwards, as decided at the response's head.
#[derive(Clone, Copy, Debug)]
struct Persistence {
    requester: Next,
    responder: Next,
    /// The end of the body is the end of the connection: cut off, it must look cut off.
    delimited_by_close: bool,
}

/// What becomes of a connection after an exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// It may serve another exchange; the responder says for how many seconds, if it said.
    Keep(Option<u32>),
    /// It is to be closed.
    Close,
}

/// How things stand after a call of [`Exchange::advance`].
#[derive(Debug)]
pub enum Outcome {
    /// An event of one of the connections must come first. `progress` tells whether any byte
    /// moved in this call.
    Wait {
        /// Whether any byte moved.
        progress: bool,
    },
    /// There is more to do right now, but the others' turn comes first.
    Busy,
    /// The response has been given to the requester (some of it may stand in its output).
    Over {
        /// The requester's connection.
        requester: Next,
        /// The responder's connection.
        responder: Next,
    },
    /// It has come to nothing.
    Failed(Fault),
}

/// Which of the timeouts the exchange is under.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// `bridge-ack-timeout`
    Ack,
    /// `response-timeout`
    Response,
    /// `body-timeout`
    Body,
    /// `tunnel-timeout`
    Tunnel,
}

/// One step of reading a response.
enum Step {
    Again,
    Blocked,
}

impl Exchange {
    /// An exchange over a responder that is known to be there: [`Exchange::open`] comes next.
    #[must_use]
    pub fn new(facts: Facts) -> Exchange {
        Exchange {
            facts,
            stage: Stage::Open,
            sending: Sending::Unsent,
            receiving: Receiving::Head { interim: 0 },
            held: None,
            sent: false,
            persistence: Persistence {
                requester: Next::Close,
                responder: Next::Close,
                delimited_by_close: false,
            },
            status: 0,
            moved: 0,
        }
    }

    /// An exchange over a bridge that has been sent its 101 and must first say that it is
    /// still there (`doc/protocol.md`, "The acknowledgement").
    #[must_use]
    pub fn new_unacknowledged(facts: Facts) -> Exchange {
        Exchange { stage: Stage::Acknowledging, ..Exchange::new(facts) }
    }

    /// Which timeout runs now.
    #[must_use]
    pub fn patience(&self) -> Patience {
        match (self.stage, &self.receiving, &self.sending) {
            (Stage::Acknowledging, ..) => Patience::Ack,
            (Stage::Tunnel, ..) => Patience::Tunnel,
            (_, Receiving::Head { .. }, Sending::Done | Sending::Refused) => Patience::Response,
            _ => Patience::Body,
        }
    }

    /// The status that the requester was given; 0 while there is none.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// How many bytes of the response's body have been taken from the responder.
    #[must_use]
    pub fn response_bytes(&self) -> u64 {
        match &self.receiving {
            Receiving::Body(flow) => flow.moved(),
            Receiving::Head { .. } | Receiving::Done => self.moved,
        }
    }

    /// Whether the whole request has been given to the responder's connection.
    #[must_use]
    pub fn is_request_sent(&self) -> bool {
        matches!(self.sending, Sending::Done)
    }

    /// Whether the responder stands where it stood before: nothing has been sent to it.
    #[must_use]
    pub fn is_unbegun(&self) -> bool {
        self.stage == Stage::Open && matches!(self.sending, Sending::Unsent)
    }

    /// Whether the request is a HEAD, whose answers have no body.
    #[must_use]
    pub fn is_to_head(&self) -> bool {
        self.facts.to_head
    }

    /// Gives back the pipes that it has borrowed.
    pub fn return_pipes(&mut self, ws: &mut Workspace) {
        if let Sending::Body(flow) = &mut self.sending {
            flow.give_back(ws);
        }
        if let Receiving::Body(flow) = &mut self.receiving {
            flow.give_back(ws);
        }
    }

    /// Whether a connection that dies now must be seen to have been cut off.
    #[must_use]
    pub fn must_look_cut(&self) -> bool {
        self.persistence.delimited_by_close
    }

    /// The connection of the requester is to be closed after this response, if its head has
    /// not been sent yet.
    pub fn close_requester(&mut self) {
        self.facts.persistent = false;
    }

    /// The fault that it is when the timeout of [`Exchange::patience`] has run out.
    #[must_use]
    pub fn timed_out(&self) -> Fault {
        let (side, why) = match self.patience() {
            Patience::Ack => (Side::Responder, Why::AckTimeout),
            Patience::Response => (Side::Responder, Why::ResponseTimeout),
            Patience::Tunnel => (Side::Requester, Why::TunnelTimeout),
            Patience::Body => match self.receiving {
                Receiving::Head { .. } => (Side::Requester, Why::BodyTimeout),
                Receiving::Body(_) | Receiving::Done => (Side::Responder, Why::BodyTimeout),
            },
        };
        self.fault(side, why)
    }

    fn fault(&self, side: Side, why: Why) -> Fault {
        let reached = match (&self.receiving, self.sent) {
            (Receiving::Body(_) | Receiving::Done, _) => Reached::Answered,
            (Receiving::Head { .. }, false) => Reached::Nothing,
            // An interim response has been passed on; it binds nobody, and the next responder
            // may send one again.
            (Receiving::Head { .. }, true) => match self.held {
                Some(_) if self.facts.idempotent => Reached::Repeatable,
                _ => Reached::Sent,
            },
        };
        Fault { side, why, reached }
    }

    /// Moves as much as can be moved.
    pub fn advance(
        &mut self,
        requester: &mut Conn,
        responder: &mut Conn,
        ws: &mut Workspace,
        rules: &Rules,
    ) -> Outcome {
        match self.try_advance(requester, responder, ws, rules) {
            Ok(outcome) => outcome,
            Err(fault) => Outcome::Failed(fault),
        }
    }

    fn try_advance(
        &mut self,
        requester: &mut Conn,
        responder: &mut Conn,
        ws: &mut Workspace,
        rules: &Rules,
    ) -> Result<Outcome, Fault> {
        if requester.is_broken() {
            return Err(self.fault(Side::Requester, Why::Closed));
        }
        let before = self.mark();
        if self.stage == Stage::Acknowledging {
            match self.acknowledged(responder, ws)? {
                None => return Ok(Outcome::Wait { progress: false }),
                Some(stage) => self.stage = stage,
            }
            self.open_from_input(requester, responder, ws, rules)?;
        }
        if self.stage == Stage::Tunnel {
            return self.advance_tunnel(requester, responder, ws, rules);
        }
        let mut pumped = self.push_request(requester, responder, ws, rules)?;
        loop {
            match self.pull_response(requester, responder, ws, rules)? {
                Some(Step::Again) if self.stage == Stage::Tunnel => {
                    return self.advance_tunnel(requester, responder, ws, rules);
                }
                Some(Step::Again) => {}
                Some(Step::Blocked) => break,
                None => {
                    pumped = Pumped::Busy;
                    break;
                }
            }
            if matches!(self.receiving, Receiving::Done) {
                if self.awaits_rest_of_request() {
                    break;
                }
                return Ok(self.over(responder));
            }
        }
        Ok(match pumped {
            Pumped::Busy => Outcome::Busy,
            Pumped::Done | Pumped::Waiting => Outcome::Wait { progress: self.mark() != before },
        })
    }

    /// A number that changes whenever a byte moves.
    fn mark(&self) -> (u64, u64, u16) {
        let sent = match &self.sending {
            Sending::Body(flow) => flow.moved(),
            Sending::Unsent => 0,
            Sending::Done | Sending::Refused => u64::MAX,
        };
        (sent, self.response_bytes(), self.status)
    }

    /// Reads the bridge's acknowledgement. It is not passed on: it answers us. A bridge that
    /// answers with its response straight away has acknowledged too.
    fn acknowledged(
        &mut self,
        responder: &mut Conn,
        ws: &mut Workspace,
    ) -> Result<Option<Stage>, Fault> {
        if let Err(error) = responder.flush(&mut ws.pool) {
            return Err(self.fault(Side::Responder, Why::Lost(error)));
        }
        loop {
            let came = responder.input.bytes();
            if came.len() >= ACKNOWLEDGEMENT.len() && came.starts_with(ACKNOWLEDGEMENT) {
                responder.input.consume(ACKNOWLEDGEMENT.len(), &mut ws.pool);
                return Ok(Some(Stage::Open));
            }
            if !came.is_empty() && !ACKNOWLEDGEMENT.starts_with(came) {
                return Ok(Some(Stage::Acknowledged));
            }
            match responder.receive(&mut ws.scratch[..ACKNOWLEDGEMENT.len()]) {
                Received::Bytes(count) => {
                    responder.input.push(&ws.scratch[..count], &mut ws.pool);
                }
                Received::Nothing => return Ok(None),
                Received::End => return Err(self.fault(Side::Responder, Why::Closed)),
                Received::Broken(error) => {
                    return Err(self.fault(Side::Responder, Why::Lost(error)));
                }
            }
        }
    }

    /// Sends a request whose head stands, checked, at the front of the requester's input.
    ///
    /// # Errors
    /// As [`Exchange::open`].
    pub fn open_from_input(
        &mut self,
        requester: &mut Conn,
        responder: &mut Conn,
        ws: &mut Workspace,
        rules: &Rules,
    ) -> Result<(), Fault> {
        let input = std::mem::take(&mut requester.input);
        let mut storage = request::storage();
        let result = match request::parse(input.bytes(), &mut storage, &rules.limits) {
            Ok(Some(request)) => self.open(&request, input.bytes(), responder, ws, rules),
            // It has been parsed before, under limits that may have become narrower since.
            Ok(None) => Err(self.fault(Side::Requester, Why::Malformed("the head is too long"))),
            Err(bad) => Err(self.fault(Side::Requester, Why::Malformed(bad.reason))),
        };
        requester.input = input;
        result?;
        self.keep_or_release(requester, ws, rules);
        Ok(())
    }

    /// Sends `request`, which is the front of `bytes`, with as much of its body as there is.
    /// The requester's input must hold `bytes`; [`Exchange::keep_or_release`] comes next.
    ///
    /// # Errors
    /// When the responder is gone, or the body is malformed; then nothing has been sent.
    pub fn open(
        &mut self,
        request: &Request<'_, '_>,
        bytes: &[u8],
        responder: &mut Conn,
        ws: &mut Workspace,
        rules: &Rules,
    ) -> Result<(), Fault> {
        let mut flow = Flow::new(request.framing, Form::AsFramed);
        let mut count = request.len;
        if let Some(flow) = &mut flow {
            count += flow
                .take(&bytes[request.len..], &mut ws.out)
                .map_err(|reason| self.fault(Side::Requester, Why::Malformed(reason)))?;
        }
        ws.out.clear();
        let via = Via { client: self.facts.client, forwarded: rules.forwarded, proto: "http" };
        rewrite::request(&mut ws.out, request, &via);
        ws.out.extend_from_slice(&bytes[request.len..count]);
        match responder.send(&ws.out, &mut ws.pool) {
            Ok(taken) => self.sent = taken > 0,
            Err(error) => return Err(self.fault(Side::Responder, Why::Lost(error))),
        }
        self.held = Some(count);
        self.sending = match flow {
            Some(flow) if !flow.is_done() => Sending::Body(flow),
            _ => Sending::Done,
        };
        Ok(())
    }

    /// Keeps the request in the requester's input while it is small enough to be kept, so that
    /// it can be sent again; otherwise drops what has been sent. A head alone is always kept.
    pub fn keep_or_release(&mut self, requester: &mut Conn, ws: &mut Workspace, rules: &Rules) {
        let whole = matches!(self.sending, Sending::Done);
        if self.held.is_some_and(|held| held > rules.retry_limit) && !whole {
            self.release(requester, ws);
        }
    }

    fn release(&mut self, requester: &mut Conn, ws: &mut Workspace) {
        if let Some(held) = self.held.take() {
            requester.input.consume(held, &mut ws.pool);
        }
    }

    fn push_request(
        &mut self,
        requester: &mut Conn,
        responder: &mut Conn,
        ws: &mut Workspace,
        rules: &Rules,
    ) -> Result<Pumped, Fault> {
        let flow = match &mut self.sending {
            Sending::Body(flow) => flow,
            Sending::Done if !responder.output.is_empty() => {
                match responder.flush(&mut ws.pool) {
                    Ok(_) => self.sent = true,
                    Err(_) => self.sending = Sending::Refused,
                }
                return Ok(Pumped::Waiting);
            }
            Sending::Unsent | Sending::Done | Sending::Refused => return Ok(Pumped::Waiting),
        };
        match flow.pump(requester, responder, &mut self.held, ws, rules) {
            Ok(pumped) => {
                self.sent = true;
                if pumped == Pumped::Done {
                    self.sending = Sending::Done;
                }
                Ok(pumped)
            }
            Err(Broken::Sink(_)) => {
                self.sending = Sending::Refused;
                Ok(Pumped::Waiting)
            }
            Err(Broken::Truncated) => Err(self.fault(Side::Requester, Why::Closed)),
            Err(Broken::Source(error)) => Err(self.fault(Side::Requester, Why::Lost(error))),
            Err(Broken::Malformed(reason)) => {
                Err(self.fault(Side::Requester, Why::Malformed(reason)))
            }
        }
    }

    /// One step of the response; `None` when its budget is used up.
    fn pull_response(
        &mut self,
        requester: &mut Conn,
        responder: &mut Conn,
        ws: &mut Workspace,
        rules: &Rules,
    ) -> Result<Option<Step>, Fault> {
        let flow = match &mut self.receiving {
            Receiving::Head { .. } => {
                return self.pull_head(requester, responder, ws, rules).map(Some);
            }
            Receiving::Done => return Ok(Some(Step::Again)),
            Receiving::Body(flow) => flow,
        };
        let pumped = flow.pump(responder, requester, &mut None, ws, rules);
        self.moved = flow.moved();
        match pumped {
            Ok(Pumped::Done) => {
                self.receiving = Receiving::Done;
                Ok(Some(Step::Again))
            }
            Ok(Pumped::Waiting) => Ok(Some(Step::Blocked)),
            Ok(Pumped::Busy) => Ok(None),
            Err(Broken::Sink(error)) => Err(self.fault(Side::Requester, Why::Lost(error))),
            Err(Broken::Truncated) => Err(self.fault(Side::Responder, Why::Closed)),
            Err(Broken::Source(error)) => Err(self.fault(Side::Responder, Why::Lost(error))),
            Err(Broken::Malformed(reason)) => {
                Err(self.fault(Side::Responder, Why::Malformed(reason)))
            }
        }
    }

    /// Reads towards the end of a response's head, and passes the head on when it is whole.
    fn pull_head(
        &mut self,
        requester: &mut Conn,
        responder: &mut Conn,
        ws: &mut Workspace,
        rules: &Rules,
    ) -> Result<Step, Fault> {
        // A head is first looked for in what stands there already: an acknowledgement or an
        // interim response may have brought the next head with it.
        if !responder.input.is_empty() {
            let input = std::mem::take(&mut responder.input);
            let taken = self.pass_head(input.bytes(), requester, ws, rules);
            responder.input = input;
            if let Some(taken) = taken? {
                responder.input.consume(taken, &mut ws.pool);
                return Ok(Step::Again);
            }
        }
        match responder.receive(&mut ws.scratch) {
            Received::Bytes(count) if responder.input.is_empty() => {
                let scratch = std::mem::take(&mut ws.scratch);
                let taken = self.pass_head(&scratch[..count], requester, ws, rules);
                ws.scratch = scratch;
                let taken = taken?.unwrap_or(0);
                responder.input.push(&ws.scratch[taken..count], &mut ws.pool);
                Ok(Step::Again)
            }
            Received::Bytes(count) => {
                responder.input.push(&ws.scratch[..count], &mut ws.pool);
                Ok(Step::Again)
            }
            Received::Nothing => Ok(Step::Blocked),
            Received::End => Err(self.fault(Side::Responder, Why::Closed)),
            Received::Broken(error) => Err(self.fault(Side::Responder, Why::Lost(error))),
        }
    }

    /// Passes on the head at the front of `bytes`, with as much of the body as there is.
    /// Returns how many bytes that took; `None` when the head is not whole yet.
    fn pass_head(
        &mut self,
        bytes: &[u8],
        requester: &mut Conn,
        ws: &mut Workspace,
        rules: &Rules,
    ) -> Result<Option<usize>, Fault> {
        let mut storage = response::storage();
        let parsed = response::parse(bytes, &mut storage, &rules.limits, self.facts.to_head);
        let response = match parsed {
            Ok(Some(response)) => response,
            Ok(None) => return Ok(None),
            Err(bad) => return Err(self.fault(Side::Responder, Why::Malformed(bad.reason))),
        };
        let before = self.stage;
        if before == Stage::Acknowledged {
            self.stage = Stage::Open;
        }
        match response.status {
            100 if before == Stage::Acknowledged => {}
            101 => self.switch(&response, requester, ws)?,
            100..=199 => self.pass_interim(&response, requester, ws)?,
            _ => return self.pass_final(&response, bytes, requester, ws).map(Some),
        }
        Ok(Some(response.len))
    }

    fn pass_interim(
        &mut self,
        response: &Response<'_, '_>,
        requester: &mut Conn,
        ws: &mut Workspace,
    ) -> Result<(), Fault> {
        let Receiving::Head { interim } = &mut self.receiving else {
            return Ok(());
        };
        *interim += 1;
        if *interim > INTERIM_LIMIT {
            let why = Why::Malformed("too many interim responses");
            return Err(self.fault(Side::Responder, why));
        }
        // RFC 9110, 15.2: a server must not send a 1xx to an HTTP/1.0 client.
        if self.facts.version == Version::V10 {
            return Ok(());
        }
        ws.out.clear();
        rewrite::response(&mut ws.out, response, &self.toward(false, false));
        requester
            .send(&ws.out, &mut ws.pool)
            .map_err(|error| self.fault(Side::Requester, Why::Lost(error)))?;
        Ok(())
    }

    /// A 101: from here on the two talk to each other (RFC 9110, 7.8).
    fn switch(
        &mut self,
        response: &Response<'_, '_>,
        requester: &mut Conn,
        ws: &mut Workspace,
    ) -> Result<(), Fault> {
        if !(self.facts.upgrade && response.upgrade && matches!(self.sending, Sending::Done)) {
            let why = Why::Malformed("a 101 that nobody asked for");
            return Err(self.fault(Side::Responder, why));
        }
        ws.out.clear();
        rewrite::response(&mut ws.out, response, &self.toward(false, false));
        self.status = 101;
        self.release(requester, ws);
        self.stage = Stage::Tunnel;
        self.sending = Sending::Body(Flow::tunnel());
        self.receiving = Receiving::Body(Flow::tunnel());
        requester
            .send(&ws.out, &mut ws.pool)
            .map_err(|error| self.fault(Side::Requester, Why::Lost(error)))?;
        Ok(())
    }

    fn pass_final(
        &mut self,
        response: &Response<'_, '_>,
        bytes: &[u8],
        requester: &mut Conn,
        ws: &mut Workspace,
    ) -> Result<usize, Fault> {
        let to_old = self.facts.version == Version::V10;
        let decode = to_old && response.framing == Framing::Chunked;
        let form = if decode { Form::DataOnly } else { Form::AsFramed };
        self.persistence = self.decide(response);
        let close = self.persistence.requester == Next::Close;
        ws.out.clear();
        rewrite::response(&mut ws.out, response, &self.toward(close, decode));
        let body = &bytes[response.len..];
        let mut taken = 0;
        let mut flow = Flow::new(response.framing, form);
        if let Some(flow) = &mut flow {
            taken = flow
                .take(body, &mut ws.out)
                .map_err(|reason| self.fault(Side::Responder, Why::Malformed(reason)))?;
        }
        self.status = response.status;
        self.moved = taken as u64;
        self.release(requester, ws);
        let body = if decode { &[][..] } else { &body[..taken] };
        self.receiving = match flow {
            Some(flow) if !flow.is_done() => Receiving::Body(flow),
            _ => Receiving::Done,
        };
        let sent = if body.len() <= COPIED_WITH_HEAD {
            ws.out.extend_from_slice(body);
            requester.send(&ws.out, &mut ws.pool)
        } else {
            requester.send_both(&ws.out, body, &mut ws.pool)
        };
        sent.map_err(|error| self.fault(Side::Requester, Why::Lost(error)))?;
        Ok(response.len + taken)
    }

    fn toward(&self, close: bool, decode_chunked: bool) -> Toward {
        Toward { version: self.facts.version, close, decode_chunked }
    }

    /// Whether the two connections may be used again. The one place where this is decided.
    fn decide(&self, response: &Response<'_, '_>) -> Persistence {
        let to_old = self.facts.version == Version::V10;
        let until_close = response.framing == Framing::UntilClose;
        let decoded = to_old && response.framing == Framing::Chunked;
        // A request that was refused before it had come whole: what is left of it would be
        // taken for the next request (RFC 9112, 9.3).
        let cut_short = response.status >= 400 && !matches!(self.sending, Sending::Done);
        let private = self.facts.connection_auth || response.connection_auth;
        let requester = if self.facts.persistent && !until_close && !decoded && !cut_short {
            Next::Keep(None)
        } else {
            Next::Close
        };
        let responder = if response.persistent && !until_close && !private {
            Next::Keep(response.keep_alive_timeout)
        } else {
            Next::Close
        };
        Persistence { requester, responder, delimited_by_close: until_close || decoded }
    }

    /// Whether the response has gone out and the rest of the request is still to be passed on:
    /// worth waiting for when both connections can go on afterwards.
    fn awaits_rest_of_request(&self) -> bool {
        let both_stay = matches!(
            (self.persistence.requester, self.persistence.responder),
            (Next::Keep(_), Next::Keep(_))
        );
        both_stay && matches!(self.sending, Sending::Body(_))
    }

    fn over(&self, responder: &Conn) -> Outcome {
        let Persistence { requester, responder: next, .. } = self.persistence;
        // Bytes after a response belong to nobody, and half a request has no end: neither
        // connection can be trusted to stand between two messages then.
        let whole = matches!(self.sending, Sending::Done) && responder.output.is_empty();
        let clean = responder.input.is_empty() && !responder.has_hung_up();
        Outcome::Over {
            requester: if whole { requester } else { Next::Close },
            responder: if whole && clean { next } else { Next::Close },
        }
    }

    fn advance_tunnel(
        &mut self,
        requester: &mut Conn,
        responder: &mut Conn,
        ws: &mut Workspace,
        rules: &Rules,
    ) -> Result<Outcome, Fault> {
        let before = self.mark();
        let (Sending::Body(up), Receiving::Body(down)) = (&mut self.sending, &mut self.receiving)
        else {
            return Ok(Outcome::Over { requester: Next::Close, responder: Next::Close });
        };
        let upward = up.pump(requester, responder, &mut None, ws, rules);
        let downward = down.pump(responder, requester, &mut None, ws, rules);
        self.moved = down.moved();
        let (Ok(upward), Ok(downward)) = (upward, downward) else {
            return Err(self.fault(Side::Requester, Why::Closed));
        };
        if upward == Pumped::Done && responder.output.is_empty() {
            responder.shut_down();
        }
        if downward == Pumped::Done && requester.output.is_empty() {
            requester.shut_down();
        }
        Ok(match (upward, downward) {
            (Pumped::Done, Pumped::Done) => {
                Outcome::Over { requester: Next::Close, responder: Next::Close }
            }
            (Pumped::Busy, _) | (_, Pumped::Busy) => Outcome::Busy,
            _ => Outcome::Wait { progress: self.mark() != before },
        })
    }
}

/// A body of up to this many bytes that came with its head is copied behind the rewritten head;
/// a longer one is sent from where it lies with writev, which costs more than copying a little.
const COPIED_WITH_HEAD: usize = 4 * 1024;
