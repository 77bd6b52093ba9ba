//! An exchange and how it advances.

use std::net::IpAddr;

use crate::bridge::BackendToken;
use crate::bridge::places::Places;
use crate::http::response::is_timeout_notice;
use crate::net::buffer::Pool;
use crate::net::conn::{Conn, Unread};
use crate::net::workspace::Workspace;

use super::body_pump::{BodyPump, Pumped};
use super::config::ExchangeConfig;
use super::cookie::Cookie;
use super::error::{Cause, CloseMode, ExchangeError, Failure, Progress, Side};
use super::file::NamedFile;
use super::half_close;
use super::lent::Lent;
use super::meta::{DeliveryReports, RequestMeta};
use super::phase::{Exchange, Hold, Open, Phase, Request, Response, Terms};
use super::places::{Heard, Speaker};
use super::request::{Start, given_back, read_acknowledgement};
use super::response::Step;
use super::reuse::{CloseScope, Decision};
use super::traffic::Traffic;
use super::tunnel::Tunnel;

/// How far an exchange has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Stage {
    /// The responder has not been sent the request, and may not have acknowledged it.
    Ack,
    /// The request is on its way.
    Request,
    /// The request has been sent; its response has not begun.
    Response,
    /// The response has begun.
    Data,
    /// Both sides have a tunnel.
    Tunnel,
}

/// The result of [`Exchange::advance`].
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    /// Blocked on an event of one of the connections.
    Wait {
        /// Whether any byte moved in this call.
        progress: bool,
    },
    /// There is more to do right now, but other connections run first.
    Busy {
        /// As in `Wait`.
        progress: bool,
    },
    /// The response has been given to the requester (some of it may be in its output).
    Finished(Decision),
}

/// Which timeout applies to an exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TimeoutPhase {
    /// `bridge-ack-timeout`
    Ack,
    /// `response-timeout`
    Response,
    /// `body-timeout`
    Body,
    /// `stream-timeout`
    Stream,
    /// [`ExchangeConfig::half_closed_silence`](super::config::ExchangeConfig)
    HalfClosed,
    /// `tunnel-timeout`
    Tunnel,
}

/// Changes whenever a byte moves, and whenever another timeout applies.
#[derive(PartialEq, Eq)]
struct Mark {
    phase: TimeoutPhase,
    interim: u8,
    sent: u64,
    received: u64,
    /// Bytes taken from one side and not yet given to the other.
    buffered: usize,
}

impl Exchange {
    /// An exchange that has not been started.
    #[must_use]
    pub fn new(meta: RequestMeta, reports: DeliveryReports, close_scope: CloseScope) -> Exchange {
        let terms = Terms { meta, reports, close_scope, speaker: None, cookie: None };
        Exchange { terms, phase: Phase::New, half_closed: false }
    }

    /// The same, with a responder that says how many places it has, if it has a token for that.
    #[must_use]
    pub fn with_speaker(mut self, by: Option<BackendToken>) -> Exchange {
        self.terms.speaker = by.map(Speaker::new);
        self
    }

    /// The same, with a cookie by which the requester comes back to this responder.
    #[must_use]
    pub fn with_cookie(mut self, cookie: Option<Box<Cookie>>) -> Exchange {
        self.terms.cookie = cookie;
        self
    }

    /// What the responder has said of its places since the last call.
    #[must_use]
    pub fn take_places(&self) -> Option<Places> {
        self.terms.speaker.as_ref().and_then(Speaker::take)
    }

    #[must_use]
    pub fn meta(&self) -> &RequestMeta {
        &self.terms.meta
    }

    /// The status given to the requester; 0 while there is none.
    #[must_use]
    pub fn status(&self) -> u16 {
        match &self.phase {
            Phase::New | Phase::Acking | Phase::Ready => 0,
            Phase::Open(open) => open.response.answer().map_or(0, |answer| answer.status),
            Phase::Tunnel(_) => 101,
        }
    }

    /// How many bytes of the response's body have been taken from the responder.
    #[must_use]
    pub fn response_bytes(&self) -> u64 {
        match &self.phase {
            Phase::New | Phase::Acking | Phase::Ready => 0,
            Phase::Open(open) => open.response.bytes(),
            Phase::Tunnel(tunnel) => tunnel.down().moved(),
        }
    }

    /// How many bytes have passed, for the owner's log.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        match &self.phase {
            Phase::New | Phase::Acking | Phase::Ready => {
                Traffic { request: self.terms.meta.head as u64, ..Traffic::default() }
            }
            Phase::Open(open) => {
                let [up, _] = self.pumps();
                let answer = open.response.answer();
                Traffic {
                    request: open.taken + up.map_or(0, BodyPump::moved),
                    heads: answer.map_or(0, |answer| answer.heads.into()),
                    body: open.response.bytes(),
                }
            }
            Phase::Tunnel(tunnel) => Traffic {
                request: tunnel.request + tunnel.up().map_or(0, BodyPump::moved),
                heads: tunnel.head,
                body: tunnel.down().moved(),
            },
        }
    }

    /// How far it has come, for the owner's log.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match &self.phase {
            Phase::New | Phase::Acking | Phase::Ready => Stage::Ack,
            Phase::Open(open) => match (&open.response, &open.request) {
                (Response::Head(_), Request::Body(_)) => Stage::Request,
                (Response::Head(_), Request::Sent | Request::Refused) => Stage::Response,
                (Response::Body { .. } | Response::Done { .. }, _) => Stage::Data,
            },
            Phase::Tunnel(_) => Stage::Tunnel,
        }
    }

    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        matches!(self.phase, Phase::Tunnel(_))
    }

    /// A tunnel that began elsewhere, where it has passed so much. `requester` is its client.
    #[must_use]
    pub fn resumed(requester: IpAddr, passed: Traffic, config: &ExchangeConfig) -> Exchange {
        let meta = RequestMeta::of_tunnel(requester, config);
        let (reports, close_scope) = (DeliveryReports::Untrusted, CloseScope::Responder);
        let terms = Terms { meta, reports, close_scope, speaker: None, cookie: None };
        let phase = Phase::Tunnel(Tunnel::after(passed));
        Exchange { terms, phase, half_closed: false }
    }

    /// If it is a tunnel that could go on elsewhere with these two connections, which sides of it
    /// have sent their FIN: the requester, the responder. `None` while a byte is in a buffer or a
    /// pipe, or one of the connections is broken.
    #[must_use]
    pub fn ends_at_rest(&self, requester: &Conn, responder: &Conn) -> Option<[bool; 2]> {
        let Phase::Tunnel(tunnel) = &self.phase else { return None };
        let is_empty =
            |conn: &Conn| conn.input.is_empty() && conn.output.is_empty() && !conn.is_broken();
        let can_move = requester.can_move() && responder.can_move();
        (can_move && tunnel.is_empty() && is_empty(requester) && is_empty(responder))
            .then(|| tunnel.ended())
    }

    /// Whether a tunnel takes nothing more from its two sides for now, and only passes on what it
    /// has. Nothing else changes.
    pub fn set_rests(&mut self, rests: bool) {
        if let Phase::Tunnel(tunnel) = &mut self.phase {
            tunnel.set_rests(rests);
        }
    }

    /// Whether the responder still awaits a request: no byte of this one has been sent.
    #[must_use]
    pub fn is_responder_untouched(&self) -> bool {
        matches!(self.phase, Phase::New | Phase::Ready)
    }

    /// Whether the responder has been sent nothing, not even that there is a request.
    #[must_use]
    pub fn is_new(&self) -> bool {
        matches!(self.phase, Phase::New)
    }

    /// Whether the beginning of a response is held back, and this has not been asked before: now
    /// somebody sees to it that [`Exchange::stop_holding`] follows.
    pub(super) fn begins_to_hold(&mut self) -> bool {
        self.change_hold(Hold::Begun, Hold::Timed)
    }

    /// Lets [`Exchange::advance`] pass on what is held back. False if nothing is.
    pub(super) fn stop_holding(&mut self) -> bool {
        self.change_hold(Hold::Timed, Hold::Over)
    }

    fn change_hold(&mut self, from: Hold, to: Hold) -> bool {
        let Phase::Open(Open { response: Response::Head(awaited), .. }) = &mut self.phase else {
            return false;
        };
        let changes = awaited.hold == from;
        if changes {
            awaited.hold = to;
        }
        changes
    }

    /// Closes the requester's connection after the response, unless its head has been sent.
    pub fn close_requester(&mut self) {
        self.terms.meta.persistent = false;
    }

    /// How the requester's connection is closed after a complete response. If the requester is
    /// still sending, or may send another request, a reset would destroy the response (RFC 9112
    /// section 9.6).
    #[must_use]
    pub fn close_mode(&self, requester: &Conn) -> CloseMode {
        let is_last = !self.terms.meta.may_be_followed;
        if is_last && self.is_request_sent() && requester.is_idle() {
            CloseMode::Now
        } else {
            CloseMode::Linger
        }
    }

    /// Prepares the requester's connection for its next request, after an answer of the owner's to
    /// this one. False if none can follow: part of this one is still to come.
    pub fn make_way(&mut self, requester: &mut Conn, pool: &mut Pool) -> bool {
        match &mut self.phase {
            Phase::Open(Open { request: Request::Sent, replay, .. })
                if self.terms.meta.persistent =>
            {
                replay.release(requester, pool);
                true
            }
            _ => false,
        }
    }

    /// The file that the response names, which the owner sends now that the exchange has finished.
    pub fn take_file(&mut self) -> Option<Box<NamedFile>> {
        match &mut self.phase {
            Phase::Open(open) => open.file.take(),
            _ => None,
        }
    }

    /// Drops what is kept of the request.
    pub fn release_request(&mut self, requester: &mut Conn, pool: &mut Pool) {
        if let Phase::Open(open) = &mut self.phase {
            open.replay.release(requester, pool);
        }
    }

    /// How the requester's connection is closed when the exchange is abandoned.
    #[must_use]
    pub fn abandon_mode(&self) -> CloseMode {
        match self.progress() {
            Progress::Answered { delimited_by_close: true } => CloseMode::Reset,
            _ => CloseMode::Now,
        }
    }

    /// Whether the whole request has been given to the responder's connection.
    pub(super) fn is_request_sent(&self) -> bool {
        matches!(&self.phase, Phase::Open(open) if matches!(open.request, Request::Sent))
    }

    /// The timeout that applies now; `slow` is the slow side.
    pub(super) fn timeout_phase(&self, slow: Option<Side>) -> TimeoutPhase {
        match &self.phase {
            Phase::Acking => TimeoutPhase::Ack,
            Phase::Tunnel(tunnel) if !tunnel.is_draining() => TimeoutPhase::Tunnel,
            Phase::Open(Open { request: Request::Sent | Request::Refused, response, .. }) => {
                match response {
                    Response::Head(_) => TimeoutPhase::Response,
                    // From here on nothing is on its way in either direction.
                    Response::Body { .. } if slow.is_none() && self.half_closed => {
                        TimeoutPhase::HalfClosed
                    }
                    Response::Body { pump, .. } if slow.is_none() && !pump.has_length() => {
                        TimeoutPhase::Stream
                    }
                    Response::Body { .. } | Response::Done { .. } => TimeoutPhase::Body,
                }
            }
            Phase::New | Phase::Ready | Phase::Open(_) | Phase::Tunnel(_) => TimeoutPhase::Body,
        }
    }

    /// The pumps of both directions, up and down.
    fn pumps(&self) -> [Option<&BodyPump>; 2] {
        match &self.phase {
            Phase::New | Phase::Acking | Phase::Ready => [None, None],
            Phase::Open(open) => [
                match &open.request {
                    Request::Body(pump) => Some(pump),
                    Request::Sent | Request::Refused => None,
                },
                match &open.response {
                    Response::Body { pump, .. } => Some(pump),
                    Response::Head(_) | Response::Done { .. } => None,
                },
            ],
            Phase::Tunnel(tunnel) => [tunnel.up(), Some(tunnel.down())],
        }
    }

    pub(super) fn return_pipes(&mut self, ws: &mut Workspace) {
        match &mut self.phase {
            Phase::New | Phase::Acking | Phase::Ready => {}
            Phase::Open(open) => {
                if let Request::Body(pump) = &mut open.request {
                    pump.return_pipe(&mut ws.pipes);
                }
                if let Response::Body { pump, .. } = &mut open.response {
                    pump.return_pipe(&mut ws.pipes);
                }
            }
            Phase::Tunnel(tunnel) => tunnel.return_pipes(&mut ws.pipes),
        }
    }

    /// The side, if any, that has not taken what has been read for it.
    pub(super) fn slow_side(&self, io: &Lent<'_>) -> Option<Side> {
        let [up, down] = self.pumps().map(|pump| pump.is_some_and(|pump| pump.piped() > 0));
        if down || !io.requester.output.is_empty() {
            Some(Side::Requester)
        } else if up || !io.responder.output.is_empty() {
            Some(Side::Responder)
        } else {
            None
        }
    }

    /// The failure when the timeout of [`Exchange::timeout_phase`] has run out; `slow` is the slow
    /// side.
    pub(super) fn timeout_failure(&self, slow: Option<Side>) -> Failure {
        let (side, cause) = match self.timeout_phase(slow) {
            TimeoutPhase::Ack => (Side::Responder, Cause::AckTimeout),
            TimeoutPhase::Response => (Side::Responder, Cause::ResponseTimeout),
            TimeoutPhase::Tunnel => (Side::Requester, Cause::TunnelTimeout),
            TimeoutPhase::Stream => (Side::Responder, Cause::StreamTimeout),
            TimeoutPhase::HalfClosed => (Side::Requester, Cause::Closed),
            TimeoutPhase::Body => {
                let [_, down] = self.pumps();
                let sender = if down.is_some() { Side::Responder } else { Side::Requester };
                (slow.unwrap_or(sender), Cause::BodyTimeout)
            }
        };
        Failure { side, cause }
    }

    pub(super) fn error(&self, Failure { side, cause }: Failure) -> ExchangeError {
        ExchangeError { side, cause, progress: self.progress() }
    }

    /// As [`Exchange::error`]; `responder`'s kernel is asked whether the request has reached it.
    pub(super) fn error_at(&self, failure: Failure, responder: &Conn) -> ExchangeError {
        let error = self.error(failure);
        let is_closed = error.side == Side::Responder && matches!(error.cause, Cause::Closed);
        match &self.phase {
            Phase::Open(open) if is_closed && open.is_unread(responder) => {
                ExchangeError { progress: Progress::Unread, ..error }
            }
            _ => error,
        }
    }

    /// Whether the requester's input begins with the request, whole as far as it has come.
    pub fn holds_request(&self) -> bool {
        match &self.phase {
            Phase::New | Phase::Acking | Phase::Ready => true,
            Phase::Open(open) => open.replay.is_kept(),
            Phase::Tunnel(_) => false,
        }
    }

    fn progress(&self) -> Progress {
        let Terms { meta, reports, .. } = &self.terms;
        match &self.phase {
            Phase::New | Phase::Acking | Phase::Ready => Progress::Nothing,
            Phase::Open(open) => match open.response.answer() {
                None => open.replay.progress(meta, *reports, self.is_request_sent()),
                Some(answer) => {
                    Progress::Answered { delimited_by_close: answer.reuse.delimited_by_close() }
                }
            },
            Phase::Tunnel(_) => Progress::Tunnel,
        }
    }

    /// Checks that the responder's connection is good, and sends it the opening.
    pub(super) fn start(&mut self, start: Start, io: &mut Lent<'_>) -> Result<(), Failure> {
        if io.requester.has_hung_up() {
            self.requester_hung_up(io)?;
        }
        // Bytes that have come meanwhile would be taken for the response.
        let responder = &mut io.responder;
        let good = if start.probe { responder.probe_idle() } else { responder.is_quiet() };
        if !good && let Some(cause) = self.why_not_good(io) {
            return Err(Failure { side: Side::Responder, cause });
        }
        if !start.notice.is_empty() {
            let sent = io.requester.send(start.notice, &mut io.ws.pool);
            sent.map_err(|error| Side::Requester.lost(error))?;
        }
        self.open(start.opening, io)
    }

    /// Why the responder, which has sent something or has closed, cannot be sent a request. It can if it
    /// has only said how many places it has.
    fn why_not_good(&self, io: &mut Lent<'_>) -> Option<Cause> {
        if let Some(speaker) = &self.terms.speaker {
            return match speaker.listen(io.responder, io.ws) {
                Heard::Quiet => None,
                Heard::Half => Some(Cause::Speaking),
                Heard::More | Heard::Stray => Some(Cause::Stray),
                Heard::Ended => Some(Cause::Closed),
            };
        }
        let is_stray =
            matches!(io.responder.unread(), Unread::Bytes(first) if !is_timeout_notice(&first));
        Some(if is_stray { Cause::Stray } else { Cause::Closed })
    }

    /// Moves as much as it can.
    pub(super) fn advance(&mut self, io: &mut Lent<'_>) -> Result<Outcome, Failure> {
        if io.requester.is_broken() {
            return Err(Side::Requester.closed());
        }
        let before = self.mark(io);
        if io.requester.has_hung_up() {
            self.requester_hung_up(io)?;
        }
        if matches!(self.phase, Phase::Acking) {
            let speaker = self.terms.speaker.as_ref();
            let Some(awaited) = read_acknowledgement(speaker, io)? else {
                return Ok(Outcome::Wait { progress: false });
            };
            if !awaited.acknowledges {
                self.phase = Phase::Ready;
            }
            self.open_from_input(awaited, io)?;
        }
        let mut pumped = match &mut self.phase {
            Phase::Open(open) => open.push(io)?,
            _ => Pumped::Waiting,
        };
        while let Phase::Open(open) = &mut self.phase {
            match open.pull(&self.terms, io)? {
                Step::Again => {}
                Step::Blocked => break,
                Step::Busy => {
                    pumped = Pumped::Busy;
                    break;
                }
                Step::GivenBack { persistent } => {
                    let stays = persistent && matches!(open.request, Request::Sent);
                    return Err(given_back(self.terms.speaker.as_ref(), stays, io));
                }
                Step::Done => match open.finish(&self.terms, io) {
                    Some(decision) => return Ok(Outcome::Finished(decision)),
                    None => break,
                },
                Step::Switch => {
                    let head = io.ws.out.len() as u64;
                    self.phase = Phase::Tunnel(Tunnel::new(open.taken, head));
                    io.send_down()?;
                }
            }
        }
        if let Phase::Tunnel(tunnel) = &mut self.phase {
            pumped = tunnel.pump(io)?;
            if pumped == Pumped::Done {
                return Ok(Outcome::Finished(Decision::CLOSE_BOTH));
            }
        }
        Ok(match pumped {
            Pumped::Busy => Outcome::Busy { progress: self.mark(io) != before },
            Pumped::Done | Pumped::Waiting => Outcome::Wait { progress: self.mark(io) != before },
        })
    }

    /// The requester has sent its FIN: finds out whether it is gone.
    fn requester_hung_up(&mut self, io: &mut Lent<'_>) -> Result<(), Failure> {
        self.half_closed = io.config.half_closed_silence.is_some();
        match self.progress() {
            Progress::Answered { .. } | Progress::Tunnel => Ok(()),
            _ => half_close::probe(io.requester, &self.terms.meta, io.config, &mut io.ws.pool)
                .map_err(|cause| Failure { side: Side::Requester, cause }),
        }
    }

    fn mark(&self, io: &Lent<'_>) -> Mark {
        let [up, down] = self.pumps();
        let piped = up.map_or(0, BodyPump::piped) + down.map_or(0, BodyPump::piped);
        Mark {
            // A side that becomes slow, or ceases to be, changes `buffered`.
            phase: self.timeout_phase(None),
            interim: match &self.phase {
                Phase::Open(Open { response: Response::Head(awaited), .. }) => awaited.interim,
                _ => 0,
            },
            sent: up.map_or(u64::MAX, BodyPump::moved),
            received: self.response_bytes(),
            buffered: piped + io.requester.output.len() + io.responder.output.len(),
        }
    }
}
