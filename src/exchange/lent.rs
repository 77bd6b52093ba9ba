//! What the owner lends for one call.

use crate::net::conn::Conn;
use crate::net::workspace::Workspace;

use super::body_pump::{BodyPump, Broken, Pumped};
use super::config::ExchangeConfig;
use super::error::{Failure, Side};
use super::replay::Replay;

/// What the owner lends for one call.
pub(super) struct Lent<'a> {
    pub requester: &'a mut Conn,
    pub responder: &'a mut Conn,
    pub ws: &'a mut Workspace,
    pub config: &'a ExchangeConfig,
}

impl Lent<'_> {
    /// Moves a body from the requester to the responder.
    pub fn pump_up(&mut self, pump: &mut BodyPump, replay: &mut Replay) -> Result<Pumped, Broken> {
        let threshold = self.config.splice_threshold;
        let pumped = pump.pump(self.requester, self.responder, replay, self.ws, threshold);
        if pumped.is_err() {
            // The exchange may go on without this pump.
            pump.return_pipe(&mut self.ws.pipes);
        }
        pumped
    }

    /// Moves a body from the responder to the requester.
    pub fn pump_down(&mut self, pump: &mut BodyPump) -> Result<Pumped, Failure> {
        let (none, threshold) = (&mut Replay::none(), self.config.splice_threshold);
        pump.pump(self.responder, self.requester, none, self.ws, threshold)
            .map_err(|broken| broken.blame(Side::Responder))
    }

    /// Sends the requester what is in the workspace.
    pub fn send_down(&mut self) -> Result<(), Failure> {
        let sent = self.requester.send(&self.ws.out, &mut self.ws.pool);
        sent.map(drop).map_err(|error| Side::Requester.lost(error))
    }
}
