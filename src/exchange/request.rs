//! The request's direction: acknowledgement, head, body.

use std::io;

use crate::http::ParseError;
use crate::http::request::{self, Request as Parsed};
use crate::http::rewrite::{self, Via};
use crate::net::conn::{Conn, Received};

use super::body_pump::{BodyPump, Broken, Form, Pumped};
use super::error::{Cause, Failure, Side, has_ended};
use super::lent::Lent;
use super::meta::RequestMeta;
use super::phase::{AwaitedHead, Exchange, Open, Phase, Request, Response, Terms};
use super::places::{Heard, Speaker, Word};
use super::replay::Replay;

/// How a bridge acknowledges (`doc/protocol.md`, "The acknowledgement").
const ACKNOWLEDGEMENT: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How much is read at once where an acknowledgement is awaited, if messages may come before it, and how
/// many messages are read in one call. Nobody has more to say.
const READ: usize = 4 * 1024;
const MESSAGES: usize = 64;

/// The beginning of a request: its head and the part of its body that has arrived.
pub(crate) struct Beginning {
    /// The body, unless it is complete.
    body: Option<BodyPump>,
    /// Length of the beginning in the requester's input, in bytes.
    len: usize,
}

impl Beginning {
    /// Looks at the body of `request`, which is at the front of `bytes`.
    ///
    /// # Errors
    /// When the body is malformed so far, and must not reach a responder.
    pub fn of(request: &Parsed<'_, '_>, bytes: &[u8]) -> Result<Beginning, ParseError> {
        let Some(mut pump) = BodyPump::new(request.framing, Form::AsFramed) else {
            return Ok(Beginning { body: None, len: request.len });
        };
        let len = request.len + pump.take(&bytes[request.len..], &mut Vec::new())?;
        Ok(Beginning { body: (!pump.is_done()).then_some(pump), len })
    }

    /// Its length in the requester's input, and what has not come of the body.
    pub fn into_rest(self) -> (usize, Option<BodyPump>) {
        (self.len, self.body)
    }

    /// Whether the request is sure to be kept whole until its response begins.
    fn is_held(&self, meta: &RequestMeta) -> bool {
        self.body.is_none() || meta.fits(meta.size())
    }

    /// Writes the beginning to `out` in the responder's form, for [`Opening::Prepared`]. One that
    /// may give it back for lack of a place (`gives_back`) is told if that is not possible. It does not
    /// get the cookie that `hides` names.
    pub fn prepare(
        &self,
        request: &Parsed<'_, '_>,
        bytes: &[u8],
        meta: &RequestMeta,
        gives_back: bool,
        hides: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        out.clear();
        let via = Via {
            client: meta.client,
            forwarded: meta.forwarded,
            style: meta.forwarded_style,
            proto: if meta.https { "https" } else { "http" },
            stamps: meta.stamps,
            not_held: gives_back && !self.is_held(meta),
            hides,
        };
        rewrite::request(out, request, &via);
        out.extend_from_slice(&bytes[request.len..self.len]);
    }
}

/// What a responder is sent first.
pub(crate) enum Opening {
    /// These bytes, which announce the request to a new bridge. Once the bridge has acknowledged
    /// them it gets the request from the requester's input.
    Switch(&'static [u8]),
    /// The request, from the requester's input.
    FromInput,
    /// The request, prepared in [`Workspace::out`](super::Workspace), which must not have been used
    /// since. It is in the requester's input too.
    Prepared(Beginning),
}

pub(crate) struct Start {
    /// What the responder is sent.
    pub opening: Opening,
    /// Ask the kernel whether the responder's connection is still good, even if no event says
    /// otherwise. Costs a system call; needed when the request cannot be sent again.
    pub probe: bool,
    /// Sent to the requester first: if that fails, the responder gets nothing.
    pub notice: &'static [u8],
}

impl Exchange {
    pub(super) fn open(&mut self, opening: Opening, io: &mut Lent<'_>) -> Result<(), Failure> {
        match opening {
            Opening::Switch(bytes) => {
                self.phase = Phase::Acking;
                let sent = io.responder.send(bytes, &mut io.ws.pool);
                sent.map(drop).map_err(|error| Side::Responder.lost(error))
            }
            Opening::FromInput => self.open_from_input(AwaitedHead::default(), io),
            Opening::Prepared(beginning) => self.send(beginning, AwaitedHead::default(), io),
        }
    }

    /// Sends the request whose head, already checked, is at the front of the requester's input.
    pub(super) fn open_from_input(
        &mut self,
        awaited: AwaitedHead,
        io: &mut Lent<'_>,
    ) -> Result<(), Failure> {
        let bytes = io.requester.input.bytes();
        let mut storage = request::storage();
        let malformed = |bad: ParseError| Side::Requester.malformed(bad.reason);
        let mut request = request::parse(bytes, &mut storage, &io.config.limits)
            .map_err(malformed)?
            // It was parsed before, but a reload may have narrowed the limits since.
            .ok_or_else(|| Side::Requester.malformed("the head is too long"))?;
        io.config.rename(&mut request);
        let beginning = Beginning::of(&request, bytes).map_err(malformed)?;
        let Terms { meta, speaker, cookie, .. } = &self.terms;
        let hides = cookie.as_ref().map(|cookie| &*cookie.name);
        beginning.prepare(&request, bytes, meta, speaker.is_some(), hides, &mut io.ws.out);
        self.send(beginning, awaited, io)
    }

    /// Sends a beginning that has been prepared.
    fn send(
        &mut self,
        Beginning { body, len }: Beginning,
        awaited: AwaitedHead,
        io: &mut Lent<'_>,
    ) -> Result<(), Failure> {
        let taken = io.responder.send(&io.ws.out, &mut io.ws.pool);
        let seen = taken.map_err(|error| Side::Responder.lost(error))? > 0;
        let mut replay = Replay::new(len, seen, self.terms.meta.replay_limit);
        if body.is_some() {
            replay.trim_beginning(io.requester, &mut io.ws.pool);
        }
        let taken = len as u64 - body.as_ref().map_or(0, BodyPump::moved);
        let request = body.map_or(Request::Sent, Request::Body);
        let wire = Some(io.ws.out.len() as u64);
        let response = Response::Head(awaited);
        self.phase = Phase::Open(Open { replay, wire, taken, request, response, file: None });
        Ok(())
    }
}

/// Reads a bridge's acknowledgement, which is not passed on. `None` until it has come. Other bytes
/// than expected are left as the next head: a `100` worded differently, or the response itself,
/// which acknowledges too. A `speaker` may give the request back instead.
pub(super) fn read_acknowledgement(
    speaker: Option<&Speaker>,
    io: &mut Lent<'_>,
) -> Result<Option<AwaitedHead>, Failure> {
    let (responder, ws) = (&mut *io.responder, &mut *io.ws);
    responder.flush(&mut ws.pool).map_err(|error| Side::Responder.lost(error))?;
    // Of one that says nothing else, what follows may be left to the kernel.
    let most = if speaker.is_some() { READ } else { ACKNOWLEDGEMENT.len() };
    let mut messages = 0;
    loop {
        let word = match speaker {
            None => Word::Other,
            Some(speaker) => speaker.word(responder.input.bytes(), &io.config.limits),
        };
        match word {
            Word::Message(_) if messages == MESSAGES => {
                return Err(Failure { side: Side::Responder, cause: Cause::Stray });
            }
            Word::Message(len) => {
                responder.input.consume(len, &mut ws.pool);
                messages += 1;
                continue;
            }
            Word::GivenBack { len, persistent } => {
                responder.input.consume(len, &mut ws.pool);
                return Err(given_back(speaker, persistent, io));
            }
            Word::Partial | Word::Other => {}
        }
        let received = responder.input.bytes();
        if received.starts_with(ACKNOWLEDGEMENT) {
            responder.input.consume(ACKNOWLEDGEMENT.len(), &mut ws.pool);
            return Ok(Some(AwaitedHead::default()));
        }
        if !ACKNOWLEDGEMENT.starts_with(received) && matches!(word, Word::Other) {
            return Ok(Some(AwaitedHead { acknowledges: true, ..AwaitedHead::default() }));
        }
        match responder.receive(&mut ws.scratch[..most]) {
            Received::Bytes(count) => responder.input.push(&ws.scratch[..count], &mut ws.pool),
            Received::Nothing => return Ok(None),
            Received::End => return Err(Side::Responder.closed()),
            Received::Broken(error) => return Err(Side::Responder.lost(error)),
        }
    }
}

/// The responder has given its request back. Its connection can be used again if it was sent the
/// request whole, stays `open`, and has sent nothing else.
pub(super) fn given_back(speaker: Option<&Speaker>, open: bool, io: &mut Lent<'_>) -> Failure {
    let is_quiet = speaker.is_some_and(|speaker| {
        speaker.listen(io.responder, io.ws) == Heard::Quiet && io.responder.output.is_empty()
    });
    Failure { side: Side::Responder, cause: Cause::GivenBack { stays: open && is_quiet } }
}

impl Open {
    /// Whether the responder closed before any byte of the request had reached it, and the request
    /// is kept: an idle connection may be closed just when it is used.
    pub(super) fn is_unread(&self, responder: &Conn) -> bool {
        self.response.answer().is_none()
            && self.replay.is_kept()
            && self.wire.is_some_and(|wire| responder.closed_before_last(wire))
    }

    /// Sends more of the request, if any is left.
    pub(super) fn push(&mut self, io: &mut Lent<'_>) -> Result<Pumped, Failure> {
        let pumped = match &mut self.request {
            Request::Body(pump) => {
                let before = pump.moved();
                let pumped = io.pump_up(pump, &mut self.replay);
                self.wire = self.wire.map(|wire| wire + (pump.moved() - before));
                pumped
            }
            Request::Sent if !io.responder.output.is_empty() => {
                let flushed = io.responder.flush(&mut io.ws.pool);
                flushed.map(|_| Pumped::Done).map_err(Broken::Sink)
            }
            Request::Sent | Request::Refused => return Ok(Pumped::Waiting),
        };
        match pumped {
            Ok(pumped) => {
                self.replay.note_seen();
                if pumped == Pumped::Done {
                    self.end_request(Request::Sent);
                }
                Ok(pumped)
            }
            // What the responder sent before that can still be read. After any other error the
            // kernel would report the end of the stream, as if the responder had closed.
            Err(Broken::Sink(error)) if has_ended(&error) => {
                if error.kind() == io::ErrorKind::ConnectionReset {
                    self.wire = None;
                }
                self.end_request(Request::Refused);
                Ok(Pumped::Waiting)
            }
            Err(broken) => Err(broken.blame(Side::Requester)),
        }
    }

    /// No more of the request is sent.
    fn end_request(&mut self, end: Request) {
        if let Request::Body(pump) = &self.request {
            self.taken += pump.moved();
        }
        self.request = end;
    }
}
