//! After a 101: bytes in both directions, until both sides have ended.

use crate::http::response::Response;
use crate::http::rewrite;
use crate::net::conn::Conn;

use super::body_pump::{BodyPump, Pumped};
use super::error::{Cause, ExchangeError, Side};
use super::state::{Exchange, Mark, Outcome, Receiving, Reuse, Sending, Stage};
use super::{ExchangeConfig, Workspace};

impl Exchange {
    /// A 101: from here on the two talk to each other (RFC 9110, 7.8).
    pub(super) fn switch(
        &mut self,
        response: &Response<'_, '_>,
        requester: &mut Conn,
        ws: &mut Workspace,
    ) -> Result<(), ExchangeError> {
        if !(self.meta.upgrade && response.upgrade && matches!(self.sending, Sending::Done)) {
            let why = Cause::Malformed("a 101 that nobody asked for");
            return Err(self.error(Side::Responder, why));
        }
        ws.out.clear();
        rewrite::response(&mut ws.out, response, &self.toward(false, false));
        self.status = 101;
        self.release(requester, ws);
        self.stage = Stage::Tunnel;
        self.sending = Sending::Body(BodyPump::tunnel());
        self.receiving = Receiving::Body(BodyPump::tunnel());
        requester
            .send(&ws.out, &mut ws.pool)
            .map_err(|error| self.error(Side::Requester, Cause::Lost(error)))?;
        Ok(())
    }

    pub(super) fn advance_tunnel(
        &mut self,
        before: Mark,
        requester: &mut Conn,
        responder: &mut Conn,
        ws: &mut Workspace,
        config: &ExchangeConfig,
    ) -> Result<Outcome, ExchangeError> {
        let (Sending::Body(up), Receiving::Body(down)) = (&mut self.sending, &mut self.receiving)
        else {
            return Ok(Outcome::Over { requester: Reuse::Close, responder: Reuse::Close });
        };
        let upward = up.pump(requester, responder, &mut None, ws, config);
        let downward = down.pump(responder, requester, &mut None, ws, config);
        self.moved = down.moved();
        let (Ok(upward), Ok(downward)) = (upward, downward) else {
            return Err(self.error(Side::Requester, Cause::Closed));
        };
        if upward == Pumped::Done && responder.output.is_empty() {
            responder.shut_down();
        }
        if downward == Pumped::Done && requester.output.is_empty() {
            requester.shut_down();
        }
        Ok(match (upward, downward) {
            (Pumped::Done, Pumped::Done) => {
                Outcome::Over { requester: Reuse::Close, responder: Reuse::Close }
            }
            (Pumped::Busy, _) | (_, Pumped::Busy) => Outcome::Busy,
            _ => Outcome::Wait { progress: self.mark(requester, responder) != before },
        })
    }
}
