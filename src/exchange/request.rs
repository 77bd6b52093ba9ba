//! The request's direction: the acknowledgement, the head, the body, and what is kept of them.

use crate::http::request::{self, Request};
use crate::http::rewrite::{self, Via};
use crate::net::conn::{Conn, Received};

use super::body_pump::{BodyPump, Broken, Form, Pumped};
use super::error::{Cause, ExchangeError, Side, has_ended};
use super::state::{Exchange, Sending, Stage};
use super::{ExchangeConfig, Workspace};

/// How a bridge says that it is still there (`doc/protocol.md`, "The acknowledgement").
const ACKNOWLEDGEMENT: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl Exchange {
    /// Reads the bridge's acknowledgement. It is not passed on: it answers us. A bridge that
    /// answers with its response straight away has acknowledged too.
    pub(super) fn acknowledged(
        &mut self,
        responder: &mut Conn,
        ws: &mut Workspace,
    ) -> Result<Option<Stage>, ExchangeError> {
        if let Err(error) = responder.flush(&mut ws.pool) {
            return Err(self.error(Side::Responder, Cause::Lost(error)));
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
                Received::End => return Err(self.error(Side::Responder, Cause::Closed)),
                Received::Broken(error) => {
                    return Err(self.error(Side::Responder, Cause::Lost(error)));
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
        config: &ExchangeConfig,
    ) -> Result<(), ExchangeError> {
        let input = std::mem::take(&mut requester.input);
        let mut storage = request::storage();
        let result = match request::parse(input.bytes(), &mut storage, &config.limits) {
            Ok(Some(request)) => self.open(&request, input.bytes(), responder, ws),
            // It has been parsed before, under limits that may have become narrower since.
            Ok(None) => Err(self.error(Side::Requester, Cause::Malformed("the head is too long"))),
            Err(bad) => Err(self.error(Side::Requester, Cause::Malformed(bad.reason))),
        };
        requester.input = input;
        result?;
        self.keep_or_release(requester, ws);
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
    ) -> Result<(), ExchangeError> {
        let mut flow = BodyPump::new(request.framing, Form::AsFramed);
        let mut count = request.len;
        if let Some(flow) = &mut flow {
            count += flow
                .take(&bytes[request.len..], &mut ws.out)
                .map_err(|reason| self.error(Side::Requester, Cause::Malformed(reason)))?;
        }
        ws.out.clear();
        let via = Via { client: self.meta.client, forwarded: self.meta.forwarded, proto: "http" };
        rewrite::request(&mut ws.out, request, &via);
        ws.out.extend_from_slice(&bytes[request.len..count]);
        match responder.send(&ws.out, &mut ws.pool) {
            Ok(taken) => self.sent = taken > 0,
            Err(error) => return Err(self.error(Side::Responder, Cause::Lost(error))),
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
    pub fn keep_or_release(&mut self, requester: &mut Conn, ws: &mut Workspace) {
        // What has not been sent at all is never dropped.
        let whole = matches!(self.sending, Sending::Done) || !self.sent;
        if self.held.is_some_and(|held| held > self.meta.keep) && !whole {
            self.release(requester, ws);
        }
    }

    pub(super) fn release(&mut self, requester: &mut Conn, ws: &mut Workspace) {
        if let Some(held) = self.held.take() {
            requester.input.consume(held, &mut ws.pool);
        }
    }

    pub(super) fn push_request(
        &mut self,
        requester: &mut Conn,
        responder: &mut Conn,
        ws: &mut Workspace,
        config: &ExchangeConfig,
    ) -> Result<Pumped, ExchangeError> {
        let flow = match &mut self.sending {
            Sending::Body(flow) => flow,
            Sending::Done if !responder.output.is_empty() => {
                match responder.flush(&mut ws.pool) {
                    Ok(_) => self.sent = true,
                    Err(error) => return self.refused(error),
                }
                return Ok(Pumped::Waiting);
            }
            Sending::Unsent | Sending::Done | Sending::Refused => return Ok(Pumped::Waiting),
        };
        let config = ExchangeConfig { retry_limit: self.meta.keep, ..*config };
        match flow.pump(requester, responder, &mut self.held, ws, &config) {
            Ok(pumped) => {
                self.sent = true;
                if pumped == Pumped::Done {
                    self.sending = Sending::Done;
                }
                Ok(pumped)
            }
            Err(Broken::Sink(error)) => self.refused(error),
            Err(Broken::Truncated) => Err(self.error(Side::Requester, Cause::Closed)),
            Err(Broken::Source(error)) => Err(self.error(Side::Requester, Cause::Lost(error))),
            Err(Broken::Malformed(reason)) => {
                Err(self.error(Side::Requester, Cause::Malformed(reason)))
            }
        }
    }

    /// The responder takes no more of the request. If it has ended, what it said before may still be read.
    fn refused(&mut self, error: std::io::Error) -> Result<Pumped, ExchangeError> {
        if !has_ended(&error) {
            // The kernel tells such an error once, and an end of the stream afterwards.
            return Err(self.error(Side::Responder, Cause::Lost(error)));
        }
        self.sending = Sending::Refused;
        Ok(Pumped::Waiting)
    }
}
