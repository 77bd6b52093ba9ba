//! What an exchange is, and how it goes on. The request's direction is told in `sending`, the
//! response's in `receiving`, and what comes after a 101 in `tunnel`.

use crate::http::Framing;
use crate::net::conn::Conn;

use super::body_pump::{BodyPump, Held, Pumped};
use super::error::{Cause, ExchangeError, Progress, Side};
use super::meta::{RequestMeta, RetryPolicy};
use super::{ExchangeConfig, Workspace};

/// One request and its response, under way between two connections.
pub struct Exchange {
    pub(super) meta: RequestMeta,
    pub(super) stage: Stage,
    pub(super) sending: Sending,
    pub(super) receiving: Receiving,
    /// How much of the requester's input is the request, sent and kept to be sent again.
    pub(super) held: Held,
    pub(super) sent: bool,
    pub(super) persistence: Persistence,
    pub(super) status: u16,
    /// Whether a `100` has been passed on: a requester that expected one sends its body now.
    pub(super) continued: bool,
    pub(super) moved: u64,
    pub(super) word: DeliveryReports,
    /// The responder has said that its application gets the request.
    pub(super) receipted: bool,
    pub(super) close: CloseScope,
}

/// Which connection a response's `Connection: close` is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseScope {
    /// The one that it comes over, as RFC 9112, 9.6 has it.
    Responder,
    /// The requester's: the responder says what the application behind it would say to a client, and stays
    /// (`doc/protocol.md`, "swiftclient").
    Requester,
}

/// Whether a responder is believed when it says that it has, or has not, delivered the request
/// (`doc/protocol.md`, "Extensions").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeliveryReports {
    /// It is: it has announced that it knows what that means.
    Trusted,
    /// It is, and it gives receipts: as long as there is none for a request that cannot be repeated,
    /// the application has not been given a byte of it.
    WithReceipts,
    /// It is not.
    Untrusted,
}

/// Where the conversation as a whole stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// The bridge has been told of the match and has not said yet that it is still there.
    Acknowledging,
    /// It has said something, but not letter for letter what we expect: if the next head is a
    /// `100`, in whatever words, that is the acknowledgement.
    Acknowledged,
    /// Request and response are on their way.
    Open,
    /// After a 101: bytes in both directions, without meaning to us.
    Tunnel,
}

/// The request's direction.
pub(super) enum Sending {
    /// Not a byte has been sent.
    Unsent,
    /// Its body is on its way.
    Body(BodyPump),
    /// All of it has been sent.
    Done,
    /// The responder takes no more of it; it may still answer (RFC 9112, 9.5).
    Refused,
}

/// The response's direction.
pub(super) enum Receiving {
    /// The head is to come, or the next one after an interim response.
    Head { interim: u8 },
    /// The body is on its way.
    Body(BodyPump),
    /// All of it has been given to the requester.
    Done,
}

/// What may become of the two connections afterwards, as decided at the response's head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Persistence {
    pub(super) requester: Reuse,
    pub(super) responder: Reuse,
    /// The end of the body is the end of the connection: cut off, it must look cut off.
    pub(super) delimited_by_close: bool,
}

/// What becomes of a connection after an exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reuse {
    /// It may serve another exchange; the responder says for how many seconds, if it said.
    Keep(Option<u32>),
    /// It is to be closed.
    Close,
}

/// How things stand after a call of [`Exchange::advance`].
#[derive(Debug)]
pub enum Outcome {
    /// An event of one of the connections must come first. `progress` tells whether any byte
    /// moved in this call.
    Wait {
        /// Whether any byte moved.
        progress: bool,
    },
    /// There is more to do right now, but the others' turn comes first.
    Busy,
    /// The response has been given to the requester (some of it may stand in its output).
    Over {
        /// The requester's connection.
        requester: Reuse,
        /// The responder's connection.
        responder: Reuse,
    },
    /// It has come to nothing.
    Failed(ExchangeError),
}

/// Which of the timeouts the exchange is under.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeoutPhase {
    /// `bridge-ack-timeout`
    Ack,
    /// `response-timeout`
    Response,
    /// `body-timeout`
    Body,
    /// `tunnel-timeout`
    Tunnel,
}

/// How far an exchange has come; two that differ tell of progress between them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    patience: TimeoutPhase,
    interim: u8,
    sent: u64,
    received: u64,
    /// What has been taken from one side and not been given to the other yet.
    standing: usize,
}

/// One step of reading a response.
pub(super) enum Step {
    Again,
    Blocked,
}

impl Exchange {
    /// An exchange over a responder that is known to be there: [`Exchange::open`] comes next.
    #[must_use]
    pub fn new(meta: RequestMeta) -> Exchange {
        Exchange {
            meta,
            stage: Stage::Open,
            sending: Sending::Unsent,
            receiving: Receiving::Head { interim: 0 },
            held: None,
            sent: false,
            persistence: Persistence {
                requester: Reuse::Close,
                responder: Reuse::Close,
                delimited_by_close: false,
            },
            status: 0,
            continued: false,
            moved: 0,
            word: DeliveryReports::Untrusted,
            receipted: false,
            close: CloseScope::Responder,
        }
    }

    /// The same with a responder whose `Connection: close` means this.
    #[must_use]
    pub fn with_close(self, close: CloseScope) -> Exchange {
        Exchange { close, ..self }
    }

    /// The same with a responder whose word counts for so much.
    #[must_use]
    pub fn with_word(self, word: DeliveryReports) -> Exchange {
        Exchange { word, ..self }
    }

    /// An exchange over a bridge that has been sent its 101 and must first say that it is
    /// still there (`doc/protocol.md`, "The acknowledgement").
    #[must_use]
    pub fn new_unacknowledged(meta: RequestMeta) -> Exchange {
        Exchange { stage: Stage::Acknowledging, ..Exchange::new(meta) }
    }

    /// Which timeout runs now.
    #[must_use]
    pub fn patience(&self) -> TimeoutPhase {
        match (self.stage, &self.receiving, &self.sending) {
            (Stage::Acknowledging, ..) => TimeoutPhase::Ack,
            (Stage::Tunnel, ..) => TimeoutPhase::Tunnel,
            (_, Receiving::Head { .. }, Sending::Done | Sending::Refused) => TimeoutPhase::Response,
            _ => TimeoutPhase::Body,
        }
    }

    /// The status that the requester was given; 0 while there is none.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// How many bytes of the response's body have been taken from the responder.
    #[must_use]
    pub fn response_bytes(&self) -> u64 {
        match &self.receiving {
            Receiving::Body(flow) => flow.moved(),
            Receiving::Head { .. } | Receiving::Done => self.moved,
        }
    }

    /// Whether the whole request has been given to the responder's connection.
    #[must_use]
    pub fn is_request_sent(&self) -> bool {
        matches!(self.sending, Sending::Done)
    }

    /// Whether the responder stands where it stood before: nothing has been sent to it.
    #[must_use]
    pub fn is_unbegun(&self) -> bool {
        self.stage == Stage::Open && matches!(self.sending, Sending::Unsent)
    }

    /// Whether the request is a HEAD, whose answers have no body.
    #[must_use]
    pub fn is_to_head(&self) -> bool {
        self.meta.to_head
    }

    /// Gives back the pipes that it has borrowed.
    pub fn return_pipes(&mut self, ws: &mut Workspace) {
        if let Sending::Body(flow) = &mut self.sending {
            flow.give_back(ws);
        }
        if let Receiving::Body(flow) = &mut self.receiving {
            flow.give_back(ws);
        }
    }

    /// Whether a connection that dies now must be seen to have been cut off.
    #[must_use]
    pub fn must_look_cut(&self) -> bool {
        self.persistence.delimited_by_close
    }

    /// The connection of the requester is to be closed after this response, if its head has
    /// not been sent yet.
    pub fn close_requester(&mut self) {
        self.meta.persistent = false;
    }

    /// The failure that it is when the timeout of [`Exchange::patience`] has run out.
    #[must_use]
    pub fn timed_out(&self, requester: &Conn, responder: &Conn) -> ExchangeError {
        let (side, why) = match self.patience() {
            TimeoutPhase::Ack => (Side::Responder, Cause::AckTimeout),
            TimeoutPhase::Response => (Side::Responder, Cause::ResponseTimeout),
            TimeoutPhase::Tunnel => (Side::Requester, Cause::TunnelTimeout),
            TimeoutPhase::Body => {
                let slow = self.stalled(requester, responder).unwrap_or(match self.receiving {
                    Receiving::Head { .. } | Receiving::Done => Side::Requester,
                    Receiving::Body(_) => Side::Responder,
                });
                (slow, Cause::BodyTimeout)
            }
        };
        self.error(side, why)
    }

    /// Which side, if any, has not taken what has been read for it.
    #[must_use]
    pub fn stalled(&self, requester: &Conn, responder: &Conn) -> Option<Side> {
        let up = matches!(&self.sending, Sending::Body(flow) if flow.piped() > 0);
        let down = matches!(&self.receiving, Receiving::Body(flow) if flow.piped() > 0);
        if down || !requester.output.is_empty() {
            Some(Side::Requester)
        } else if up || !responder.output.is_empty() {
            Some(Side::Responder)
        } else {
            None
        }
    }

    pub(super) fn error(&self, side: Side, why: Cause) -> ExchangeError {
        let reached = match (&self.receiving, self.sent) {
            (Receiving::Body(_) | Receiving::Done, _) => Progress::Answered,
            (Receiving::Head { .. }, false)
                if self.held.is_some() || matches!(self.sending, Sending::Unsent) =>
            {
                Progress::Nothing
            }
            (Receiving::Head { .. }, _)
                if self.word == DeliveryReports::WithReceipts
                    && !self.receipted
                    && !self.meta.idempotent
                    && self.held.is_some() =>
            {
                Progress::Unreceipted
            }
            // An interim response has been passed on; it binds nobody, and the next responder
            // may send one again.
            (Receiving::Head { .. }, _) => match self.held {
                Some(held) if self.may_be_repeated(held) => Progress::Repeatable,
                _ => Progress::Sent,
            },
        };
        ExchangeError { side, why, reached }
    }

    /// Whether a request of which so many bytes are held may be sent again. How long a chunked one is its end tells.
    fn may_be_repeated(&self, held: usize) -> bool {
        let ended = matches!(self.sending, Sending::Done) && held <= self.meta.keep;
        let small = || match self.meta.framing {
            Framing::Chunked => ended,
            _ => self.meta.fits(),
        };
        self.meta.idempotent || (self.meta.repeats == RetryPolicy::Always && small())
    }

    /// Moves as much as can be moved.
    pub fn advance(
        &mut self,
        requester: &mut Conn,
        responder: &mut Conn,
        ws: &mut Workspace,
        config: &ExchangeConfig,
    ) -> Outcome {
        match self.try_advance(requester, responder, ws, config) {
            Ok(outcome) => outcome,
            Err(failure) => Outcome::Failed(failure),
        }
    }

    fn try_advance(
        &mut self,
        requester: &mut Conn,
        responder: &mut Conn,
        ws: &mut Workspace,
        config: &ExchangeConfig,
    ) -> Result<Outcome, ExchangeError> {
        if requester.is_broken() {
            return Err(self.error(Side::Requester, Cause::Closed));
        }
        let before = self.mark(requester, responder);
        if self.stage == Stage::Acknowledging {
            match self.acknowledged(responder, ws)? {
                None => return Ok(Outcome::Wait { progress: false }),
                Some(stage) => self.stage = stage,
            }
            self.open_from_input(requester, responder, ws, config)?;
        }
        if self.stage == Stage::Tunnel {
            return self.advance_tunnel(before, requester, responder, ws, config);
        }
        let mut pumped = self.push_request(requester, responder, ws, config)?;
        loop {
            match self.pull_response(requester, responder, ws, config)? {
                Some(Step::Again) if self.stage == Stage::Tunnel => {
                    return self.advance_tunnel(before, requester, responder, ws, config);
                }
                Some(Step::Again) => {}
                Some(Step::Blocked) => break,
                None => {
                    pumped = Pumped::Busy;
                    break;
                }
            }
            if matches!(self.receiving, Receiving::Done) {
                if self.awaits_rest_of_request() {
                    break;
                }
                return Ok(self.over(responder));
            }
        }
        Ok(match pumped {
            Pumped::Busy => Outcome::Busy,
            Pumped::Done | Pumped::Waiting => {
                Outcome::Wait { progress: self.mark(requester, responder) != before }
            }
        })
    }

    /// What changes whenever a byte moves, and whenever another timeout begins to run.
    pub(super) fn mark(&self, requester: &Conn, responder: &Conn) -> Mark {
        let piped = match (&self.sending, &self.receiving) {
            (Sending::Body(up), Receiving::Body(down)) => up.piped() + down.piped(),
            (Sending::Body(flow), _) | (_, Receiving::Body(flow)) => flow.piped(),
            _ => 0,
        };
        Mark {
            standing: piped + requester.output.len() + responder.output.len(),
            patience: self.patience(),
            interim: match self.receiving {
                Receiving::Head { interim } => interim,
                Receiving::Body(_) | Receiving::Done => 0,
            },
            sent: match &self.sending {
                Sending::Body(flow) => flow.moved(),
                Sending::Unsent => 0,
                Sending::Done | Sending::Refused => u64::MAX,
            },
            received: self.response_bytes(),
        }
    }
}
