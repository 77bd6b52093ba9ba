//! What the owner lends for one call.

use crate::net::conn::Conn;
use crate::net::workspace::Workspace;

use super::body_pump::{BodyPump, Broken, PumpBounds, Pumped};
use super::config::ExchangeConfig;
use super::error::{Failure, Side};
use super::replay::Replay;

/// While the buffers of a worker own more than this many bytes, no response is read ahead: slow
/// requesters must not use up the memory.
const BUFFERS: usize = 64 * 1024 * 1024;

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
        self.pump_up_or_rest(pump, replay, false)
    }

    /// The same; one that rests only passes on what has been taken already.
    pub fn pump_up_or_rest(
        &mut self,
        pump: &mut BodyPump,
        replay: &mut Replay,
        rests: bool,
    ) -> Result<Pumped, Broken> {
        let bounds = self.bounds(0, rests);
        let before = pump.moved();
        let pumped = pump.pump(self.requester, self.responder, replay, self.ws, bounds);
        self.ws.traffic.received += pump.moved() - before;
        if pumped.is_err() {
            // The exchange may go on without this pump.
            pump.return_pipe(&mut self.ws.pipes);
        }
        pumped
    }

    /// Moves a tunnel's data from the responder to the requester; one that rests only passes on what
    /// has been taken already.
    pub fn pump_down(&mut self, pump: &mut BodyPump, rests: bool) -> Result<Pumped, Failure> {
        self.pump_down_ahead(pump, 0, rests)
    }

    /// Moves a response's body to the requester. If the requester does not keep up, the responder
    /// is freed as soon as the rest of the body fits into a buffer.
    pub fn pump_response(&mut self, pump: &mut BodyPump) -> Result<Pumped, Failure> {
        let has_room = self.ws.pool.used() < BUFFERS;
        self.pump_down_ahead(pump, if has_room { self.config.response_buffer } else { 0 }, false)
    }

    fn pump_down_ahead(
        &mut self,
        pump: &mut BodyPump,
        ahead: usize,
        rests: bool,
    ) -> Result<Pumped, Failure> {
        let bounds = self.bounds(ahead, rests);
        let none = &mut Replay::none();
        let before = pump.moved();
        let pumped = pump.pump(self.responder, self.requester, none, self.ws, bounds);
        self.ws.traffic.sent += pump.moved() - before;
        pumped.map_err(|broken| broken.blame(Side::Responder))
    }

    fn bounds(&self, ahead: usize, rests: bool) -> PumpBounds {
        let &ExchangeConfig { budget, splice_threshold, .. } = self.config;
        PumpBounds { budget, splice_threshold, ahead, rests }
    }

    /// Sends the requester what is in the workspace.
    pub fn send_down(&mut self) -> Result<(), Failure> {
        self.ws.traffic.sent += self.ws.out.len() as u64;
        let sent = self.requester.send(&self.ws.out, &mut self.ws.pool);
        sent.map(drop).map_err(|error| Side::Requester.lost(error))
    }
}
