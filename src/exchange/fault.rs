//! What went wrong in an exchange, whose fault it was, and what follows from it.

use std::io;

/// One of the two sides of an exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Who asked: a client.
    Requester,
    /// Who answers: a bridge.
    Responder,
}

/// What went wrong.
#[derive(Debug)]
pub enum Why {
    /// The connection ended where a message should have gone on.
    Closed,
    /// The connection broke.
    Lost(io::Error),
    /// What came is not HTTP as we accept it.
    Malformed(&'static str),
    /// A responder that is believed says that its application has not been given the request,
    /// which is still held whole.
    Undelivered,
    /// The bridge did not say that it is still there, within `bridge-ack-timeout`.
    AckTimeout,
    /// No byte of a response within `response-timeout`.
    ResponseTimeout,
    /// No byte of a body moved within `body-timeout`.
    BodyTimeout,
    /// Nothing passed through a tunnel within `tunnel-timeout`.
    TunnelTimeout,
}

/// The end of an exchange that did not come off.
#[derive(Debug)]
pub struct Fault {
    /// Whose fault it was.
    pub side: Side,
    /// What it was.
    pub why: Why,
    /// How far the request and its response had come.
    pub reached: Reached,
}

/// How far an exchange had come when it failed: what can still be done about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reached {
    /// No byte of the request has been given to the responder's socket.
    Nothing,
    /// Bytes of the request may have reached the responder, which gives receipts and has given none; the request is
    /// still held whole. That the responder's connection has ended says that none will come: until then its
    /// application may be given the request at any moment.
    Unreceipted,
    /// Bytes of the request may have reached the responder; the request is still held whole,
    /// and sending it twice does no harm (RFC 9110, 9.2.2).
    Repeatable,
    /// Bytes of the request may have reached the responder, and it must not be sent again.
    Sent,
    /// Bytes of the response have been given to the requester's socket.
    Answered,
}

/// What follows from a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The request goes to another responder, or waits for one.
    Retry,
    /// The requester gets this status and one line of text.
    Answer(u16, &'static str),
    /// The requester's connection ends here: a part of an answer has gone out already, or
    /// nobody is there to read one.
    Cut,
}

impl Fault {
    /// What follows. The one place where this is decided.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        use Side::{Requester, Responder};
        match (&self.why, self.side, self.reached) {
            (_, _, Reached::Answered) => Verdict::Cut,
            (Why::Malformed(reason), Requester, _) => Verdict::Answer(400, reason),
            (Why::BodyTimeout, Requester, _) => {
                Verdict::Answer(408, "the request's body stopped coming")
            }
            (_, Requester, _) => Verdict::Cut,
            (_, Responder, Reached::Nothing) | (Why::Undelivered, Responder, _) => Verdict::Retry,
            (Why::Closed | Why::Lost(_), Responder, Reached::Repeatable) => Verdict::Retry,
            (Why::Closed, Responder, Reached::Unreceipted) => Verdict::Retry,
            (Why::Lost(error), Responder, Reached::Unreceipted) if has_ended(error) => {
                Verdict::Retry
            }
            (Why::Closed | Why::Lost(_), Responder, _) => {
                Verdict::Answer(502, "the backend closed the connection without an answer")
            }
            (Why::Malformed(_), Responder, _) => {
                Verdict::Answer(502, "the backend's answer is not valid HTTP")
            }
            (_, Responder, _) => Verdict::Answer(504, "the backend did not answer in time"),
        }
    }

    /// How loudly the log says it. A backend that breaks the protocol is its operator's
    /// business; clients that come and go are nobody's.
    #[must_use]
    pub fn level(&self) -> log::Level {
        match (self.side, &self.why, self.verdict()) {
            (Side::Requester, ..) => log::Level::Debug,
            (Side::Responder, Why::Malformed(_) | Why::ResponseTimeout, _) => log::Level::Warn,
            (Side::Responder, _, Verdict::Retry) => log::Level::Debug,
            (Side::Responder, ..) => log::Level::Info,
        }
    }
}

/// Whether a connection that broke so is known to have ended at the other side too. One that timed out is not: its peer,
/// stopped or cut off, may have the request, and go on with it later.
pub(super) fn has_ended(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let side = match self.side {
            Side::Requester => "client",
            Side::Responder => "backend",
        };
        match &self.why {
            Why::Closed => write!(f, "{side} closed the connection too early"),
            Why::Lost(error) => write!(f, "connection to the {side} lost: {error}"),
            Why::Malformed(reason) => write!(f, "{side} sent bad HTTP: {reason}"),
            Why::Undelivered => write!(f, "{side} could not deliver the request"),
            Why::AckTimeout => write!(f, "{side} did not acknowledge in time"),
            Why::ResponseTimeout => write!(f, "{side} did not answer in time"),
            Why::BodyTimeout => write!(f, "body to or from the {side} stopped moving"),
            Why::TunnelTimeout => write!(f, "tunnel was idle too long"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(side: Side, why: Why, reached: Reached) -> Verdict {
        Fault { side, why, reached }.verdict()
    }

    #[test]
    fn what_reached_nobody_is_never_lost() {
        for why in [Why::Closed, Why::AckTimeout, Why::Malformed("x"), Why::ResponseTimeout] {
            assert_eq!(verdict(Side::Responder, why, Reached::Nothing), Verdict::Retry);
        }
    }

    #[test]
    fn what_may_have_been_done_is_not_done_twice() {
        let verdict = verdict(Side::Responder, Why::Closed, Reached::Sent);
        assert!(matches!(verdict, Verdict::Answer(502, _)));
    }

    #[test]
    fn a_repeatable_request_survives_a_close_but_not_a_lie() {
        assert_eq!(verdict(Side::Responder, Why::Closed, Reached::Repeatable), Verdict::Retry);
        let lie = verdict(Side::Responder, Why::Malformed("x"), Reached::Repeatable);
        assert!(matches!(lie, Verdict::Answer(502, _)));
        let slow = verdict(Side::Responder, Why::ResponseTimeout, Reached::Repeatable);
        assert!(matches!(slow, Verdict::Answer(504, _)));
    }

    #[test]
    fn without_a_receipt_it_goes_elsewhere_only_when_none_can_come() {
        let lost = |kind: io::ErrorKind| Why::Lost(kind.into());
        for why in [Why::Closed, lost(io::ErrorKind::ConnectionReset), Why::Undelivered] {
            assert_eq!(verdict(Side::Responder, why, Reached::Unreceipted), Verdict::Retry);
        }
        for (why, status) in [
            (lost(io::ErrorKind::TimedOut), 502),
            (lost(io::ErrorKind::HostUnreachable), 502),
            (Why::Malformed("x"), 502),
            (Why::ResponseTimeout, 504),
            (Why::BodyTimeout, 504),
        ] {
            let verdict = verdict(Side::Responder, why, Reached::Unreceipted);
            assert!(matches!(verdict, Verdict::Answer(given, _) if given == status), "{verdict:?}");
        }
    }

    #[test]
    fn what_was_not_delivered_goes_elsewhere_whatever_it_is() {
        for reached in [Reached::Nothing, Reached::Repeatable, Reached::Sent] {
            assert_eq!(verdict(Side::Responder, Why::Undelivered, reached), Verdict::Retry);
        }
    }

    #[test]
    fn half_an_answer_is_followed_by_nothing() {
        for side in [Side::Requester, Side::Responder] {
            assert_eq!(verdict(side, Why::Closed, Reached::Answered), Verdict::Cut);
        }
    }
}
