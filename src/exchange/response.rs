//! The response's direction: interim heads, the final head, the body, and what may become of the
//! connections afterwards.

use crate::http::response::{self, Response};
use crate::http::rewrite::{self, Toward};
use crate::http::{Framing, Version};
use crate::net::conn::{Conn, Received};

use super::body_pump::{BodyPump, Broken, Form, Pumped};
use super::error::{Cause, ExchangeError, Side};
use super::state::{
    CloseScope, DeliveryReports, Exchange, Outcome, Persistence, Receiving, Reuse, Sending, Stage,
    Step,
};
use super::{ExchangeConfig, Workspace};

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
        config: &ExchangeConfig,
    ) -> Result<Option<Step>, ExchangeError> {
        let flow = match &mut self.receiving {
            Receiving::Head { .. } => {
                return self.pull_head(requester, responder, ws, config).map(Some);
            }
            Receiving::Done => return Ok(Some(Step::Again)),
            Receiving::Body(flow) => flow,
        };
        let pumped = flow.pump(responder, requester, &mut None, ws, config);
        self.moved = flow.moved();
        match pumped {
            Ok(Pumped::Done) => {
                self.receiving = Receiving::Done;
                Ok(Some(Step::Again))
            }
            Ok(Pumped::Waiting) => Ok(Some(Step::Blocked)),
            Ok(Pumped::Busy) => Ok(None),
            Err(Broken::Sink(error)) => Err(self.error(Side::Requester, Cause::Lost(error))),
            Err(Broken::Truncated) => Err(self.error(Side::Responder, Cause::Closed)),
            Err(Broken::Source(error)) => Err(self.error(Side::Responder, Cause::Lost(error))),
            Err(Broken::Malformed(reason)) => {
                Err(self.error(Side::Responder, Cause::Malformed(reason)))
            }
        }
    }

    /// Reads towards the end of a response's head, and passes the head on when it is whole.
    fn pull_head(
        &mut self,
        requester: &mut Conn,
        responder: &mut Conn,
        ws: &mut Workspace,
        config: &ExchangeConfig,
    ) -> Result<Step, ExchangeError> {
        // An interim response may have found the requester's socket full.
        requester
            .flush(&mut ws.pool)
            .map_err(|error| self.error(Side::Requester, Cause::Lost(error)))?;
        // A head is first looked for in what stands there already: an acknowledgement or an
        // interim response may have brought the next head with it.
        if !responder.input.is_empty() {
            let input = std::mem::take(&mut responder.input);
            let taken = self.pass_head(input.bytes(), requester, ws, config);
            responder.input = input;
            if let Some(taken) = taken? {
                responder.input.consume(taken, &mut ws.pool);
                return Ok(Step::Again);
            }
        }
        match responder.receive(&mut ws.scratch) {
            Received::Bytes(count) if responder.input.is_empty() => {
                let scratch = std::mem::take(&mut ws.scratch);
                let taken = self.pass_head(&scratch[..count], requester, ws, config);
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
            Received::End => Err(self.error(Side::Responder, Cause::Closed)),
            Received::Broken(error) => Err(self.error(Side::Responder, Cause::Lost(error))),
        }
    }

    /// Passes on the head at the front of `bytes`, with as much of the body as there is.
    /// Returns how many bytes that took; `None` when the head is not whole yet.
    fn pass_head(
        &mut self,
        bytes: &[u8],
        requester: &mut Conn,
        ws: &mut Workspace,
        config: &ExchangeConfig,
    ) -> Result<Option<usize>, ExchangeError> {
        let mut storage = response::storage();
        let parsed = response::parse(bytes, &mut storage, &config.limits, self.meta.to_head);
        let response = match parsed {
            Ok(Some(response)) => response,
            Ok(None) => return Ok(None),
            Err(bad) => return Err(self.error(Side::Responder, Cause::Malformed(bad.reason))),
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
            _ if response.undelivered
                && self.word != DeliveryReports::Untrusted
                && self.held.is_some() =>
            {
                return Err(self.error(Side::Responder, Cause::Undelivered));
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
    ) -> Result<(), ExchangeError> {
        self.continued |= response.status == 100;
        let Receiving::Head { interim } = &mut self.receiving else {
            return Ok(());
        };
        *interim += 1;
        if *interim > INTERIM_LIMIT {
            let why = Cause::Malformed("too many interim responses");
            return Err(self.error(Side::Responder, why));
        }
        if response.receipt && self.word == DeliveryReports::WithReceipts {
            // It is for us.
            self.receipted = true;
            return Ok(());
        }
        // RFC 9110, 15.2: a server must not send a 1xx to an HTTP/1.0 client.
        if self.meta.version == Version::V10 {
            return Ok(());
        }
        ws.out.clear();
        rewrite::response(&mut ws.out, response, &self.toward(false, false));
        requester
            .send(&ws.out, &mut ws.pool)
            .map_err(|error| self.error(Side::Requester, Cause::Lost(error)))?;
        Ok(())
    }

    fn pass_final(
        &mut self,
        response: &Response<'_, '_>,
        bytes: &[u8],
        requester: &mut Conn,
        ws: &mut Workspace,
    ) -> Result<usize, ExchangeError> {
        let to_old = self.meta.version == Version::V10;
        let decode = to_old && response.framing == Framing::Chunked;
        let form = if decode { Form::DataOnly } else { Form::AsFramed };
        self.persistence = self.decide(response);
        let close = self.persistence.requester == Reuse::Close;
        ws.out.clear();
        rewrite::response(&mut ws.out, response, &self.toward(close, decode));
        let body = &bytes[response.len..];
        let mut taken = 0;
        let mut flow = BodyPump::new(response.framing, form);
        if let Some(flow) = &mut flow {
            taken = flow
                .take(body, &mut ws.out)
                .map_err(|reason| self.error(Side::Responder, Cause::Malformed(reason)))?;
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
        sent.map_err(|error| self.error(Side::Requester, Cause::Lost(error)))?;
        Ok(response.len + taken)
    }

    pub(super) fn toward(&self, close: bool, decode_chunked: bool) -> Toward {
        Toward { version: self.meta.version, close, decode_chunked }
    }

    /// Whether the two connections may be used again. The one place where this is decided.
    fn decide(&self, response: &Response<'_, '_>) -> Persistence {
        let to_old = self.meta.version == Version::V10;
        let until_close = response.framing == Framing::UntilClose;
        let decoded = to_old && response.framing == Framing::Chunked;
        // A request that was answered before it had come whole. If it was refused, or its body
        // was never asked for, the two sides may disagree on whether the rest will come, and so
        // on where the next request begins (RFC 9110, 10.1.1; RFC 9112, 9.3).
        let uncalled = self.meta.expect_continue && !self.continued;
        let cut_short =
            !matches!(self.sending, Sending::Done) && (response.status >= 400 || uncalled);
        let private = self.meta.connection_auth || response.connection_auth;
        let told = self.close == CloseScope::Requester && response.close;
        let requester = if self.meta.persistent && !until_close && !decoded && !cut_short && !told {
            Reuse::Keep(None)
        } else {
            Reuse::Close
        };
        let stays = match self.close {
            CloseScope::Responder => response.persistent.then_some(response.keep_alive_timeout),
            CloseScope::Requester => Some(None),
        };
        let responder = match stays {
            Some(timeout) if !until_close && !private && !cut_short => Reuse::Keep(timeout),
            _ => Reuse::Close,
        };
        Persistence { requester, responder, delimited_by_close: until_close || decoded }
    }

    /// Whether the response has gone out and the rest of the request is still to be passed on:
    /// worth waiting for when both connections can go on afterwards.
    pub(super) fn awaits_rest_of_request(&self) -> bool {
        let both_stay = matches!(
            (self.persistence.requester, self.persistence.responder),
            (Reuse::Keep(_), Reuse::Keep(_))
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
            requester: if whole { requester } else { Reuse::Close },
            responder: if whole && clean { next } else { Reuse::Close },
        }
    }
}
