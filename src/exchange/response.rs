//! The response's direction: interim heads, the final head, the body.

use crate::http::response::{self, Response as Parsed};
use crate::http::rewrite::{self, Toward};
use crate::http::{Framing, Version};
use crate::net::conn::{Received, Unread};

use super::body_pump::{BodyPump, Form, Pumped};
use super::config::ExchangeConfig;
use super::error::{Cause, Failure, Progress, Side};
use super::file::NamedFile;
use super::lent::Lent;
use super::meta::DeliveryReports;
use super::phase::{Answer, AwaitedHead, Hold, Open, Request, Response, Terms};
use super::places::Heard;
use super::reuse::{Afterwards, Decision, Reuse, ReuseInputs};

/// Most interim responses (1xx) before a final one; a responder that sends more is broken.
const INTERIM_LIMIT: u8 = 32;

/// Most messages about places before a final response. They come at most every 10 ms, and a response may
/// take minutes.
const MESSAGE_LIMIT: u16 = 60_000;

/// If no more body bytes than this came with the head, they are copied behind the rewritten head.
/// More are sent in place with writev, which costs more than a small copy.
const COPIED_WITH_HEAD: usize = 4 * 1024;

/// How much of a response that names a file is waited for, so that its bridge can be used again. Its body,
/// which nobody gets, is mostly empty.
const DISCARDED: usize = 16 * 1024;

/// The result of one step of reading the response.
pub(super) enum Step {
    /// Another step can follow.
    Again,
    /// Blocked on an event.
    Blocked,
    /// There is more to do, but other connections run first.
    Busy,
    Done,
    /// The responder has no place for the request. `persistent`: it keeps its connection open.
    GivenBack {
        persistent: bool,
    },
    /// A 101: its head, for the requester, is in [`Workspace::out`](super::Workspace).
    Switch,
}

/// A head that has been passed on.
struct Passed {
    /// Its length in bytes, with the part of the body that came with it.
    len: usize,
    step: Step,
}

impl Open {
    pub(super) fn pull(&mut self, terms: &Terms, io: &mut Lent<'_>) -> Result<Step, Failure> {
        let (answer, pump) = match &mut self.response {
            &mut Response::Head(awaited) => return self.pull_head(awaited, terms, io),
            Response::Body { answer, pump } => (*answer, pump),
            Response::Done { .. } => return Ok(Step::Done),
        };
        match io.pump_response(pump)? {
            Pumped::Waiting => Ok(Step::Blocked),
            Pumped::Busy => Ok(Step::Busy),
            Pumped::Done => {
                self.response = Response::Done { answer, bytes: pump.moved() };
                Ok(Step::Done)
            }
        }
    }

    /// Reads the response's head, and passes it on when it is whole.
    fn pull_head(
        &mut self,
        awaited: AwaitedHead,
        terms: &Terms,
        io: &mut Lent<'_>,
    ) -> Result<Step, Failure> {
        // An interim response may be stuck behind a full socket.
        io.requester.flush(&mut io.ws.pool).map_err(|error| Side::Requester.lost(error))?;
        // An acknowledgement or an interim response may have brought this head with it.
        if !io.responder.input.is_empty() {
            let input = std::mem::take(&mut io.responder.input);
            let passed = self.pass_head(awaited, input.bytes(), terms, io);
            io.responder.input = input;
            if let Some(Passed { len, step }) = passed? {
                io.responder.input.consume(len, &mut io.ws.pool);
                return Ok(step);
            }
        }
        // A part of the body may come with it.
        let most = io.ws.scratch.len().min(io.config.budget);
        let count = match io.responder.receive(&mut io.ws.scratch[..most]) {
            Received::Bytes(count) => count,
            Received::Nothing => {
                self.hasten_head(io);
                return Ok(Step::Blocked);
            }
            Received::End => return Err(Side::Responder.closed()),
            Received::Broken(error) => return Err(Side::Responder.lost(error)),
        };
        let mut passed = None;
        if io.responder.input.is_empty() {
            let scratch = std::mem::take(&mut io.ws.scratch);
            let result = self.pass_head(awaited, &scratch[..count], terms, io);
            io.ws.scratch = scratch;
            passed = result?;
        }
        let Passed { len, step } = passed.unwrap_or(Passed { len: 0, step: Step::Again });
        io.responder.input.push(&io.ws.scratch[len..count], &mut io.ws.pool);
        Ok(step)
    }

    /// Has the responder send the rest of a head that has come in part, or the head that follows
    /// an interim response (see [`Conn::acknowledge_now`](crate::net::conn::Conn::acknowledge_now)).
    fn hasten_head(&mut self, io: &Lent<'_>) {
        let Response::Head(awaited) = &mut self.response else { return };
        let begun = awaited.interim > 0 || !io.responder.input.is_empty();
        if begun && !std::mem::replace(&mut awaited.hastened, begun) {
            io.responder.acknowledge_now();
        }
    }

    /// Passes on the head at the front of `bytes`, with the part of its body that came with it;
    /// `None` if the head is not whole.
    fn pass_head(
        &mut self,
        awaited: AwaitedHead,
        bytes: &[u8],
        terms: &Terms,
        io: &mut Lent<'_>,
    ) -> Result<Option<Passed>, Failure> {
        let mut storage = response::storage();
        let parsed = response::parse(bytes, &mut storage, &io.config.limits, terms.meta.to_head);
        let response = match parsed {
            Ok(Some(response)) => response,
            Ok(None) => return Ok(None),
            Err(bad) => return Err(Side::Responder.malformed(bad.reason)),
        };
        if let Some(speaker) = &terms.speaker {
            if response.status == 102 && speaker.says(&bytes[..response.len]) {
                if awaited.messages == MESSAGE_LIMIT {
                    return Err(Side::Responder.malformed("too many messages"));
                }
                // It moves nothing, so it puts no deadline off.
                self.response =
                    Response::Head(AwaitedHead { messages: awaited.messages + 1, ..awaited });
                return Ok(Some(Passed { len: response.len, step: Step::Busy }));
            }
            if response.undelivered && speaker.gives_back(&response) && self.replay.is_kept() {
                let step = Step::GivenBack { persistent: response.persistent };
                return Ok(Some(Passed { len: response.len, step }));
            }
        }
        if terms.meta.sends_files.is_some()
            && let Some(file) = NamedFile::of(&response)
        {
            return self.take_file(awaited, file, (&response, bytes), terms);
        }
        match response.status {
            100 if awaited.acknowledges => {
                self.response = Response::Head(AwaitedHead { acknowledges: false, ..awaited });
            }
            101 => {
                let granted = terms.meta.upgrade && response.upgrade;
                if !(granted && matches!(self.request, Request::Sent)) {
                    return Err(Side::Responder.malformed("a 101 that was not asked for"));
                }
                io.ws.out.clear();
                rewrite::response(&mut io.ws.out, &response, &terms.toward(false, false));
                terms.set_cookie(&mut io.ws.out);
                self.replay.release(io.requester, &mut io.ws.pool);
                return Ok(Some(Passed { len: response.len, step: Step::Switch }));
            }
            100..=199 => self.pass_interim(awaited, &response, terms, io)?,
            // A request that is no longer kept cannot go elsewhere: this is its answer then.
            _ if response.undelivered
                && terms.reports != DeliveryReports::Untrusted
                && self.replay.is_kept() =>
            {
                return Err(Failure { side: Side::Responder, cause: Cause::Undelivered });
            }
            _ if self.must_hold(awaited, &response, bytes.len(), terms, io.config) => {
                if awaited.hold == Hold::Allowed {
                    self.response = Response::Head(AwaitedHead { hold: Hold::Begun, ..awaited });
                }
                return Ok(None);
            }
            _ => {
                let len = self.pass_final(awaited, &response, bytes, terms, io)?;
                let done = matches!(self.response, Response::Done { .. });
                let step = if done { Step::Done } else { Step::Again };
                return Ok(Some(Passed { len, step }));
            }
        }
        Ok(Some(Passed { len: response.len, step: Step::Again }))
    }

    /// Whether a response is held back: it is small, only `here` bytes of it have come, and its
    /// request could be sent again.
    fn must_hold(
        &self,
        awaited: AwaitedHead,
        response: &Parsed<'_, '_>,
        here: usize,
        terms: &Terms,
        config: &ExchangeConfig,
    ) -> bool {
        let Framing::Length(length) = response.framing else { return false };
        let whole = length.saturating_add(response.len as u64);
        let sent = matches!(self.request, Request::Sent);
        (here as u64) < whole
            && whole <= config.hold_response as u64
            && awaited.hold != Hold::Over
            && sent
            && self.replay.progress(&terms.meta, terms.reports, sent) == Progress::Repeatable
    }

    fn pass_interim(
        &mut self,
        awaited: AwaitedHead,
        response: &Parsed<'_, '_>,
        terms: &Terms,
        io: &mut Lent<'_>,
    ) -> Result<(), Failure> {
        if awaited.interim == INTERIM_LIMIT {
            return Err(Side::Responder.malformed("too many interim responses"));
        }
        self.response = Response::Head(AwaitedHead {
            interim: awaited.interim + 1,
            continued: awaited.continued || response.status == 100,
            acknowledges: false,
            ..awaited
        });
        if response.receipt && terms.reports == DeliveryReports::WithReceipts {
            self.replay.note_receipt();
            return Ok(());
        }
        // RFC 9110 section 15.2: a server must not send a 1xx to an HTTP/1.0 client.
        if terms.meta.version == Version::V10 {
            return Ok(());
        }
        io.ws.out.clear();
        rewrite::response(&mut io.ws.out, response, &terms.toward(false, false));
        if let Response::Head(awaited) = &mut self.response {
            awaited.interim_bytes = awaited.interim_bytes.saturating_add(size(&io.ws.out));
        }
        io.send_down()
    }

    /// Takes a response that names a file. The requester gets nothing of it, and its request stays: the
    /// owner answers it.
    fn take_file(
        &mut self,
        awaited: AwaitedHead,
        mut file: Box<NamedFile>,
        (response, bytes): (&Parsed<'_, '_>, &[u8]),
        terms: &Terms,
    ) -> Result<Option<Passed>, Failure> {
        let body = &bytes[response.len..];
        let (mut taken, mut is_whole) = (0, true);
        if let Some(mut pump) = BodyPump::new(response.framing, Form::AsFramed) {
            let result = pump.take(body, &mut Vec::new());
            taken = result.map_err(|bad| Side::Responder.malformed(bad.reason))?;
            is_whole = pump.is_done();
        }
        let may_end = match response.framing {
            Framing::Length(length) => length <= DISCARDED as u64,
            Framing::Chunked => body.len() <= DISCARDED,
            Framing::None | Framing::UntilClose => false,
        };
        if !is_whole && may_end {
            return Ok(None);
        }
        let reuse = self.reuse_inputs(awaited, response, terms);
        let reuse = ReuseInputs {
            // The rest of the body is not read.
            overtaken: reuse.overtaken || !is_whole,
            until_close: false,
            unchunked: false,
            ..reuse
        };
        let answer = Answer { status: response.status, heads: awaited.interim_bytes, reuse };
        self.response = Response::Done { answer, bytes: 0 };
        let cookie = terms.cookie.as_ref().and_then(|cookie| cookie.set.as_ref());
        cookie.into_iter().for_each(|line| file.fields.extend_from_slice(line.as_bytes()));
        self.file = Some(file);
        Ok(Some(Passed { len: response.len + taken, step: Step::Done }))
    }

    fn pass_final(
        &mut self,
        awaited: AwaitedHead,
        response: &Parsed<'_, '_>,
        bytes: &[u8],
        terms: &Terms,
        io: &mut Lent<'_>,
    ) -> Result<usize, Failure> {
        let reuse = self.reuse_inputs(awaited, response, terms);
        let close = reuse.decide().requester == Reuse::Close;
        let form = if reuse.unchunked { Form::DataOnly } else { Form::AsFramed };
        let out = &mut io.ws.out;
        out.clear();
        rewrite::response(out, response, &terms.toward(close, reuse.unchunked));
        terms.set_cookie(out);
        let heads = awaited.interim_bytes.saturating_add(size(out));
        let body = &bytes[response.len..];
        let mut taken = 0;
        let mut pump = BodyPump::new(response.framing, form);
        if let Some(pump) = &mut pump {
            let result = pump.take(body, out);
            taken = result.map_err(|bad| Side::Responder.malformed(bad.reason))?;
        }
        self.replay.release(io.requester, &mut io.ws.pool);
        let answer = Answer { status: response.status, heads, reuse };
        self.response = match pump {
            Some(pump) if !pump.is_done() => Response::Body { answer, pump },
            _ => Response::Done { answer, bytes: taken as u64 },
        };
        let body = if reuse.unchunked { &[][..] } else { &body[..taken] };
        io.ws.traffic.sent += (out.len() + body.len()) as u64;
        let sent = if body.len() > COPIED_WITH_HEAD {
            io.requester.send_both(out, body, &mut io.ws.pool)
        } else {
            out.extend_from_slice(body);
            let whole = matches!(self.response, Response::Done { .. })
                && matches!(self.request, Request::Sent);
            if close && whole {
                // Our FIN follows at once, and goes out in the same packet.
                io.requester.send_more(out, &mut io.ws.pool)
            } else {
                io.requester.send(out, &mut io.ws.pool)
            }
        };
        sent.map_err(|error| Side::Requester.lost(error))?;
        Ok(response.len + taken)
    }

    /// What becomes of the connections, now that the response has been passed on. `None` while it
    /// is worth waiting for the rest of the request: the responder reads on, and the requester's
    /// can be reused after it.
    pub(super) fn finish(&self, terms: &Terms, io: &mut Lent<'_>) -> Option<Decision> {
        let reuse = self.response.answer()?.reuse;
        let in_time = ReuseInputs { overtaken: false, ..reuse };
        if matches!(self.request, Request::Body(_)) && in_time.decide().keeps_both() {
            return None;
        }
        let request_whole = matches!(self.request, Request::Sent) && io.responder.output.is_empty();
        let inputs = ReuseInputs { request_whole, ..reuse };
        let decision = inputs.decide();
        let responder = &mut *io.responder;
        let is_quiet =
            responder.input.is_empty() && !responder.has_hung_up() && !responder.is_readable();
        if is_quiet || decision.responder == Reuse::Close {
            return Some(decision);
        }
        // Bytes after a response belong to no request.
        let heard = terms.speaker.as_ref().map(|speaker| speaker.listen(responder, io.ws));
        let afterwards = match responder.input.is_empty().then(|| responder.unread()) {
            _ if heard == Some(Heard::Quiet) => Afterwards::Silent,
            _ if heard == Some(Heard::Half) => Afterwards::Ended,
            None | Some(Unread::Bytes(_)) => Afterwards::Stray,
            Some(Unread::End) => Afterwards::Ended,
            Some(Unread::Nothing) => Afterwards::Silent,
        };
        Some(ReuseInputs { afterwards, ..inputs }.decide())
    }

    fn reuse_inputs(
        &self,
        awaited: AwaitedHead,
        response: &Parsed<'_, '_>,
        terms: &Terms,
    ) -> ReuseInputs {
        let not_asked_for = terms.meta.expect_continue && !awaited.continued;
        let whole = matches!(self.request, Request::Sent);
        ReuseInputs {
            request_persistent: terms.meta.persistent,
            request_authenticates: terms.meta.connection_auth,
            response_persistent: response.persistent,
            response_close: response.close,
            response_authenticates: response.connection_auth,
            close_scope: terms.close_scope,
            until_close: response.framing == Framing::UntilClose,
            unchunked: terms.meta.version == Version::V10 && response.framing == Framing::Chunked,
            answered_early: !whole && (response.status >= 400 || not_asked_for),
            overtaken: !whole,
            keep_alive_timeout: response.keep_alive_timeout,
            request_whole: true,
            afterwards: Afterwards::Silent,
        }
    }
}

/// The size of a head, which is bounded.
fn size(head: &[u8]) -> u32 {
    u32::try_from(head.len()).unwrap_or(u32::MAX)
}

impl Terms {
    fn set_cookie(&self, head: &mut Vec<u8>) {
        if let Some(cookie) = &self.cookie {
            cookie.write(head);
        }
    }

    fn toward(&self, close: bool, decode_chunked: bool) -> Toward {
        Toward { version: self.meta.version, close, decode_chunked }
    }
}
