//! The request's direction: acknowledgement, head, body.

use crate::http::ParseError;
use crate::http::request::{self, Request as Parsed};
use crate::http::rewrite::{self, Via};
use crate::net::conn::Received;

use super::body_pump::{BodyPump, Broken, Form, Pumped};
use super::error::{Failure, Side, has_ended};
use super::phase::{Open, Phase, Request};
use super::replay::Replay;
use super::response::{AwaitedHead, Response};
use super::{Exchange, Lent, RequestMeta};

/// How a bridge acknowledges (`doc/protocol.md`, "The acknowledgement").
const ACKNOWLEDGEMENT: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The beginning of a request: its head and what has come of its body.
pub(crate) struct Beginning {
    /// The body, unless it is complete.
    body: Option<BodyPump>,
    /// Length of the beginning, in bytes of the requester's input.
    len: usize,
}

impl Beginning {
    /// Looks at the body of `request`, which is at the front of `bytes`.
    ///
    /// # Errors
    /// When what has come of it is malformed, and must not reach a responder.
    pub fn of(request: &Parsed<'_, '_>, bytes: &[u8]) -> Result<Beginning, ParseError> {
        let mut body = BodyPump::new(request.framing, Form::AsFramed);
        let mut len = request.len;
        if let Some(pump) = &mut body {
            len += pump.take(&bytes[request.len..], &mut Vec::new())?;
        }
        Ok(Beginning { body: body.filter(|pump| !pump.is_done()), len })
    }

    /// Writes the beginning to `out` as the responder gets it: [`Opening::Prepared`].
    #[must_use]
    pub fn prepare(
        self,
        request: &Parsed<'_, '_>,
        bytes: &[u8],
        meta: &RequestMeta,
        out: &mut Vec<u8>,
    ) -> Prepared {
        out.clear();
        let via = Via { client: meta.client, forwarded: meta.forwarded, proto: "http" };
        rewrite::request(out, request, &via);
        out.extend_from_slice(&bytes[request.len..self.len]);
        Prepared { beginning: self, out: out.len() }
    }
}

/// A beginning that is in [`Workspace::out`](super::Workspace), which nothing else may use before
/// the exchange is started.
pub(crate) struct Prepared {
    beginning: Beginning,
    /// Length of what is in `out`.
    out: usize,
}

/// What a responder is sent first.
pub(crate) enum Opening {
    /// These bytes, which tell a new bridge of the request. Once the bridge has acknowledged them
    /// it gets the request from the requester's input.
    Switch(&'static [u8]),
    /// The request, from the requester's input.
    FromInput,
    /// The request, prepared while it was parsed; it is in the requester's input too.
    Prepared(Prepared),
}

/// How a bridge has acknowledged.
pub(super) enum Acknowledgement {
    /// Byte for byte as expected.
    Canonical,
    /// Somehow else: if the next head is a `100`, that is it, and if it is the response, the bridge
    /// has acknowledged too.
    InNextHead,
}

impl Exchange {
    /// Sends the opening.
    pub(super) fn open(&mut self, opening: Opening, io: &mut Lent<'_>) -> Result<(), Failure> {
        match opening {
            Opening::Switch(bytes) => {
                self.phase = Phase::Acking;
                let sent = io.responder.send(bytes, &mut io.ws.pool);
                sent.map(drop).map_err(|error| Side::Responder.lost(error))
            }
            Opening::FromInput => self.open_from_input(AwaitedHead::default(), io),
            Opening::Prepared(prepared) => self.send(prepared, AwaitedHead::default(), io),
        }
    }

    /// Sends the request whose head is, checked, at the front of the requester's input.
    pub(super) fn open_from_input(
        &mut self,
        awaited: AwaitedHead,
        io: &mut Lent<'_>,
    ) -> Result<(), Failure> {
        let bytes = io.requester.input.bytes();
        let mut storage = request::storage();
        let request = match request::parse(bytes, &mut storage, &io.config.limits) {
            Ok(Some(request)) => request,
            // It has been parsed before, under limits that may have become narrower since.
            Ok(None) => return Err(Side::Requester.malformed("the head is too long")),
            Err(bad) => return Err(Side::Requester.malformed(bad.reason)),
        };
        let beginning =
            Beginning::of(&request, bytes).map_err(|bad| Side::Requester.malformed(bad.reason))?;
        let prepared = beginning.prepare(&request, bytes, &self.terms.meta, &mut io.ws.out);
        self.send(prepared, awaited, io)
    }

    fn send(
        &mut self,
        Prepared { beginning, out }: Prepared,
        awaited: AwaitedHead,
        io: &mut Lent<'_>,
    ) -> Result<(), Failure> {
        debug_assert_eq!(io.ws.out.len(), out, "what was prepared has been overwritten");
        let taken = io.responder.send(&io.ws.out, &mut io.ws.pool);
        let seen = taken.map_err(|error| Side::Responder.lost(error))? > 0;
        self.replay = Replay::new(beginning.len, seen, self.terms.meta.replay_limit);
        let request = match beginning.body {
            Some(body) => {
                self.replay.trim_beginning(io.requester, &mut io.ws.pool);
                Request::Body(body)
            }
            None => Request::Sent,
        };
        self.phase = Phase::Open(Open { request, response: Response::Head(awaited) });
        Ok(())
    }
}

/// Reads a bridge's acknowledgement, which is not passed on. `None` until it has come.
pub(super) fn read_acknowledgement(io: &mut Lent<'_>) -> Result<Option<Acknowledgement>, Failure> {
    let (responder, ws) = (&mut *io.responder, &mut *io.ws);
    responder.flush(&mut ws.pool).map_err(|error| Side::Responder.lost(error))?;
    loop {
        let received = responder.input.bytes();
        if received.starts_with(ACKNOWLEDGEMENT) {
            responder.input.consume(ACKNOWLEDGEMENT.len(), &mut ws.pool);
            return Ok(Some(Acknowledgement::Canonical));
        }
        if !ACKNOWLEDGEMENT.starts_with(received) {
            return Ok(Some(Acknowledgement::InNextHead));
        }
        match responder.receive(&mut ws.scratch[..ACKNOWLEDGEMENT.len()]) {
            Received::Bytes(count) => responder.input.push(&ws.scratch[..count], &mut ws.pool),
            Received::Nothing => return Ok(None),
            Received::End => return Err(Side::Responder.closed()),
            Received::Broken(error) => return Err(Side::Responder.lost(error)),
        }
    }
}

impl Open {
    /// Sends more of the request, if there is more.
    pub(super) fn push(
        &mut self,
        replay: &mut Replay,
        io: &mut Lent<'_>,
    ) -> Result<Pumped, Failure> {
        let sink_error = match &mut self.request {
            Request::Sent if !io.responder.output.is_empty() => {
                match io.responder.flush(&mut io.ws.pool) {
                    Ok(_) => {
                        replay.note_seen();
                        return Ok(Pumped::Waiting);
                    }
                    Err(error) => error,
                }
            }
            Request::Sent | Request::Refused => return Ok(Pumped::Waiting),
            Request::Body(pump) => {
                let threshold = io.config.splice_threshold;
                match pump.pump(io.requester, io.responder, replay, io.ws, threshold) {
                    Ok(pumped) => {
                        replay.note_seen();
                        if pumped == Pumped::Done {
                            self.request = Request::Sent;
                        }
                        return Ok(pumped);
                    }
                    Err(Broken::Sink(error)) => {
                        pump.return_pipe(&mut io.ws.pipes);
                        error
                    }
                    Err(broken) => return Err(broken.blame(Side::Requester)),
                }
            }
        };
        if !has_ended(&sink_error) {
            // The kernel tells such an error once, and an end of the stream afterwards.
            return Err(Side::Responder.lost(sink_error));
        }
        // What the responder has sent before may still be read.
        self.request = Request::Refused;
        Ok(Pumped::Waiting)
    }
}
