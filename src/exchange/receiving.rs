//! The response's direction: interim heads, the final head, the body, and what may become of the
//! connections afterwards.

use crate::http::response::{self, Response};
use crate::http::rewrite::{self, Toward};
use crate::http::{Framing, Version};
use crate::reactor::conn::{Conn, Received};

use super::conversation::{
    Close, Exchange, Next, Outcome, Persistence, Receiving, Sending, Stage, Step, Word,
};
use super::fault::{Fault, Side, Why};
use super::flow::{Broken, Flow, Form, Pumped};
use super::{Rules, Workspace};

/// More interim responses (1xx) than this before a final one: the responder is not sane.
const INTERIM_LIMIT: u8 = 32;

/// A body of up to this many bytes that came with its head is copied behind the rewritten head;
/// a longer one is sent from where it lies with writev, which costs more than copying a little.
const COPIED_WITH_HEAD: usize = 4 * 1024;

impl Exchange {
    /// One step of the response; `None` when its budget is used up.
    pub(super) fn pull_response(
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
        // An interim response may have found the requester's socket full.
        requester
            .flush(&mut ws.pool)
            .map_err(|error| self.fault(Side::Requester, Why::Lost(error)))?;
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
            // One that is no longer held cannot go elsewhere: this is its answer then.
            _ if response.undelivered && self.word != Word::Ignored && self.held.is_some() => {
                return Err(self.fault(Side::Responder, Why::Undelivered));
            }
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
        self.continued |= response.status == 100;
        let Receiving::Head { interim } = &mut self.receiving else {
            return Ok(());
        };
        *interim += 1;
        if *interim > INTERIM_LIMIT {
            let why = Why::Malformed("too many interim responses");
            return Err(self.fault(Side::Responder, why));
        }
        if response.receipt && self.word == Word::Receipts {
            // It is for us.
            self.receipted = true;
            return Ok(());
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
            let whole =
                matches!((&self.receiving, &self.sending), (Receiving::Done, Sending::Done));
            if close && whole {
                // Our FIN follows at once, and goes out in the same packet.
                requester.send_more(&ws.out, &mut ws.pool)
            } else {
                requester.send(&ws.out, &mut ws.pool)
            }
        } else {
            requester.send_both(&ws.out, body, &mut ws.pool)
        };
        sent.map_err(|error| self.fault(Side::Requester, Why::Lost(error)))?;
        Ok(response.len + taken)
    }

    pub(super) fn toward(&self, close: bool, decode_chunked: bool) -> Toward {
        Toward { version: self.facts.version, close, decode_chunked }
    }

    /// Whether the two connections may be used again. The one place where this is decided.
    fn decide(&self, response: &Response<'_, '_>) -> Persistence {
        let to_old = self.facts.version == Version::V10;
        let until_close = response.framing == Framing::UntilClose;
        let decoded = to_old && response.framing == Framing::Chunked;
        // A request that was answered before it had come whole. If it was refused, or its body
        // was never asked for, the two sides may disagree on whether the rest will come, and so
        // on where the next request begins (RFC 9110, 10.1.1; RFC 9112, 9.3).
        let uncalled = self.facts.expect_continue && !self.continued;
        let cut_short =
            !matches!(self.sending, Sending::Done) && (response.status >= 400 || uncalled);
        let private = self.facts.connection_auth || response.connection_auth;
        let told = self.close == Close::Requesters && response.close;
        let requester = if self.facts.persistent && !until_close && !decoded && !cut_short && !told
        {
            Next::Keep(None)
        } else {
            Next::Close
        };
        let stays = match self.close {
            Close::Ours => response.persistent.then_some(response.keep_alive_timeout),
            Close::Requesters => Some(None),
        };
        let responder = match stays {
            Some(timeout) if !until_close && !private && !cut_short => Next::Keep(timeout),
            _ => Next::Close,
        };
        Persistence { requester, responder, delimited_by_close: until_close || decoded }
    }

    /// Whether the response has gone out and the rest of the request is still to be passed on:
    /// worth waiting for when both connections can go on afterwards.
    pub(super) fn awaits_rest_of_request(&self) -> bool {
        let both_stay = matches!(
            (self.persistence.requester, self.persistence.responder),
            (Next::Keep(_), Next::Keep(_))
        );
        both_stay && matches!(self.sending, Sending::Body(_))
    }

    pub(super) fn over(&self, responder: &mut Conn) -> Outcome {
        let Persistence { requester, responder: next, .. } = self.persistence;
        // Bytes after a response belong to nobody, and half a request has no end: neither
        // connection can be trusted to stand between two messages then.
        let whole = matches!(self.sending, Sending::Done) && responder.output.is_empty();
        let silent = !responder.is_readable() || responder.is_quiet_and_open();
        let clean = responder.input.is_empty() && !responder.has_hung_up() && silent;
        Outcome::Over {
            requester: if whole { requester } else { Next::Close },
            responder: if whole && clean { next } else { Next::Close },
        }
    }
}
