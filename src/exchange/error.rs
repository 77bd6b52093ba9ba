//! What went wrong in an exchange, whose failure it was, and what follows from it.

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
pub enum Cause {
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
pub struct ExchangeError {
    /// Whose failure it was.
    pub side: Side,
    /// What it was.
    pub why: Cause,
    /// How far the request and its response had come.
    pub reached: Progress,
}

/// How far an exchange had come when it failed: what can still be done about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
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

/// What follows from a failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The request goes to another responder, or waits for one.
    Retry,
    /// The requester gets this status and one line of text.
    Answer(u16, &'static str),
    /// The requester's connection ends here: a part of an answer has gone out already, or
    /// nobody is there to read one.
    Cut,
}

impl ExchangeError {
    /// What follows. The one place where this is decided.
    #[must_use]
    pub fn action(&self) -> Action {
        use Side::{Requester, Responder};
        match (&self.why, self.side, self.reached) {
            (_, _, Progress::Answered) => Action::Cut,
            (Cause::Malformed(reason), Requester, _) => Action::Answer(400, reason),
            (Cause::BodyTimeout, Requester, _) => {
                Action::Answer(408, "the request's body stopped coming")
            }
            (_, Requester, _) => Action::Cut,
            (_, Responder, Progress::Nothing) | (Cause::Undelivered, Responder, _) => Action::Retry,
            (Cause::Closed | Cause::Lost(_), Responder, Progress::Repeatable) => Action::Retry,
            (Cause::Closed, Responder, Progress::Unreceipted) => Action::Retry,
            (Cause::Lost(error), Responder, Progress::Unreceipted) if has_ended(error) => {
                Action::Retry
            }
            (Cause::Closed | Cause::Lost(_), Responder, _) => {
                Action::Answer(502, "the backend closed the connection without an answer")
            }
            (Cause::Malformed(_), Responder, _) => {
                Action::Answer(502, "the backend's answer is not valid HTTP")
            }
            (_, Responder, _) => Action::Answer(504, "the backend did not answer in time"),
        }
    }

    /// How loudly the log says it. A backend that breaks the protocol is its operator's
    /// business; clients that come and go are nobody's.
    #[must_use]
    pub fn level(&self) -> log::Level {
        match (self.side, &self.why, self.action()) {
            (Side::Requester, ..) => log::Level::Debug,
            (Side::Responder, Cause::Malformed(_) | Cause::ResponseTimeout, _) => log::Level::Warn,
            (Side::Responder, _, Action::Retry) => log::Level::Debug,
            (Side::Responder, ..) => log::Level::Info,
        }
    }
}

/// Whether a connection that broke so is known to have ended at the other side too. One that timed out is not: its peer,
/// stopped or cut off, may have the request, and go on with it later.
pub(super) fn has_ended(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

impl std::fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let side = match self.side {
            Side::Requester => "client",
            Side::Responder => "backend",
        };
        match &self.why {
            Cause::Closed => write!(f, "{side} closed the connection too early"),
            Cause::Lost(error) => write!(f, "connection to the {side} lost: {error}"),
            Cause::Malformed(reason) => write!(f, "{side} sent bad HTTP: {reason}"),
            Cause::Undelivered => write!(f, "{side} could not deliver the request"),
            Cause::AckTimeout => write!(f, "{side} did not acknowledge in time"),
            Cause::ResponseTimeout => write!(f, "{side} did not answer in time"),
            Cause::BodyTimeout => write!(f, "body to or from the {side} stopped moving"),
            Cause::TunnelTimeout => write!(f, "tunnel was idle too long"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(side: Side, why: Cause, reached: Progress) -> Action {
        ExchangeError { side, why, reached }.action()
    }

    #[test]
    fn what_reached_nobody_is_never_lost() {
        for why in [Cause::Closed, Cause::AckTimeout, Cause::Malformed("x"), Cause::ResponseTimeout]
        {
            assert_eq!(action(Side::Responder, why, Progress::Nothing), Action::Retry);
        }
    }

    #[test]
    fn what_may_have_been_done_is_not_done_twice() {
        let action = action(Side::Responder, Cause::Closed, Progress::Sent);
        assert!(matches!(action, Action::Answer(502, _)));
    }

    #[test]
    fn a_repeatable_request_survives_a_close_but_not_a_lie() {
        assert_eq!(action(Side::Responder, Cause::Closed, Progress::Repeatable), Action::Retry);
        let lie = action(Side::Responder, Cause::Malformed("x"), Progress::Repeatable);
        assert!(matches!(lie, Action::Answer(502, _)));
        let slow = action(Side::Responder, Cause::ResponseTimeout, Progress::Repeatable);
        assert!(matches!(slow, Action::Answer(504, _)));
    }

    #[test]
    fn without_a_receipt_it_goes_elsewhere_only_when_none_can_come() {
        let lost = |kind: io::ErrorKind| Cause::Lost(kind.into());
        for why in [Cause::Closed, lost(io::ErrorKind::ConnectionReset), Cause::Undelivered] {
            assert_eq!(action(Side::Responder, why, Progress::Unreceipted), Action::Retry);
        }
        for (why, status) in [
            (lost(io::ErrorKind::TimedOut), 502),
            (lost(io::ErrorKind::HostUnreachable), 502),
            (Cause::Malformed("x"), 502),
            (Cause::ResponseTimeout, 504),
            (Cause::BodyTimeout, 504),
        ] {
            let action = action(Side::Responder, why, Progress::Unreceipted);
            assert!(matches!(action, Action::Answer(given, _) if given == status), "{action:?}");
        }
    }

    #[test]
    fn what_was_not_delivered_goes_elsewhere_whatever_it_is() {
        for reached in [Progress::Nothing, Progress::Repeatable, Progress::Sent] {
            assert_eq!(action(Side::Responder, Cause::Undelivered, reached), Action::Retry);
        }
    }

    #[test]
    fn half_an_answer_is_followed_by_nothing() {
        for side in [Side::Requester, Side::Responder] {
            assert_eq!(action(side, Cause::Closed, Progress::Answered), Action::Cut);
        }
    }
}
