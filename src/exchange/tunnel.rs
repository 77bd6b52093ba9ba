//! After a 101: bytes in both directions until both sides have sent their FIN.

use std::io;

use crate::net::pipe::Pipes;

use super::body_pump::{BodyPump, Broken, Pumped};
use super::error::{Failure, Side};
use super::lent::Lent;
use super::replay::Replay;
use super::traffic::Traffic;

/// The two directions of a tunnel.
pub(super) struct Tunnel {
    up: Up,
    down: BodyPump,
    /// Nothing more is taken from either side for now.
    rests: bool,
    /// Bytes of the request before the tunnel began.
    pub request: u64,
    /// Bytes of the head that the requester was given.
    pub head: u64,
}

/// From the requester to the responder.
enum Up {
    Flowing(BodyPump),
    /// The responder takes no more. What it has sent before is still delivered; then the tunnel
    /// fails with this.
    Broken(io::Error),
}

impl Tunnel {
    /// A tunnel that begins behind so many bytes of a request and of the head of its response.
    pub fn new(request: u64, head: u64) -> Tunnel {
        Tunnel::after(Traffic { request, heads: head, body: 0 })
    }

    /// One that has passed so much already.
    pub fn after(Traffic { request, heads, body }: Traffic) -> Tunnel {
        let (up, down) = (Up::Flowing(BodyPump::tunnel()), BodyPump::tunnel_after(body));
        Tunnel { up, down, rests: false, request, head: heads }
    }

    /// Whether it takes nothing more from either side for now, and only passes on what it has.
    pub fn set_rests(&mut self, rests: bool) {
        self.rests = rests;
    }

    /// Whether neither pump holds a byte, and both sides may still take some.
    pub fn is_empty(&self) -> bool {
        self.up().is_some_and(|up| up.piped() == 0) && self.down.piped() == 0
    }

    /// Which sides have sent their FIN, which has been passed on: the requester, the responder.
    pub fn ended(&self) -> [bool; 2] {
        [self.up().is_some_and(BodyPump::is_done), self.down.is_done()]
    }

    /// Moves as much as it can. A direction that is done has been delivered: the end of a source is
    /// read only when the sink has taken everything before it.
    pub fn pump(&mut self, io: &mut Lent<'_>) -> Result<Pumped, Failure> {
        let up = self.pump_up(io)?;
        let down = io.pump_down(&mut self.down, self.rests)?;
        if down == Pumped::Done {
            if let Up::Broken(error) = &mut self.up {
                let error = std::mem::replace(error, io::ErrorKind::BrokenPipe.into());
                return Err(Side::Responder.lost(error));
            }
            io.requester.shut_down();
        }
        if up == Pumped::Done {
            io.responder.shut_down();
        }
        Ok(match (up, down) {
            (Pumped::Busy, _) | (_, Pumped::Busy) => Pumped::Busy,
            (Pumped::Done, Pumped::Done) => Pumped::Done,
            _ => Pumped::Waiting,
        })
    }

    fn pump_up(&mut self, io: &mut Lent<'_>) -> Result<Pumped, Failure> {
        let Up::Flowing(pump) = &mut self.up else { return Ok(Pumped::Waiting) };
        match io.pump_up_or_rest(pump, &mut Replay::none(), self.rests) {
            Ok(pumped) => Ok(pumped),
            Err(Broken::Sink(error)) => {
                io.responder.output.clear(&mut io.ws.pool);
                self.up = Up::Broken(error);
                Ok(Pumped::Waiting)
            }
            Err(broken) => Err(broken.blame(Side::Requester)),
        }
    }

    /// Whether the responder has failed and only what it has sent before is still delivered.
    pub fn is_draining(&self) -> bool {
        matches!(self.up, Up::Broken(_))
    }

    pub fn up(&self) -> Option<&BodyPump> {
        match &self.up {
            Up::Flowing(pump) => Some(pump),
            Up::Broken(_) => None,
        }
    }

    pub fn down(&self) -> &BodyPump {
        &self.down
    }

    pub fn return_pipes(&mut self, pipes: &mut Pipes) {
        if let Up::Flowing(pump) = &mut self.up {
            pump.return_pipe(pipes);
        }
        self.down.return_pipe(pipes);
    }
}
