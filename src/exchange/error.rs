//! Why an exchange failed, which side caused it, and what follows.

use std::io;

/// One of the two sides of an exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// The side that sent the request.
    Requester,
    /// The side that answers it.
    Responder,
}

#[derive(Debug)]
pub(crate) enum Cause {
    /// The connection ended in the middle of a message.
    Closed,
    /// The connection broke.
    Lost(io::Error),
    /// Not HTTP that is accepted here.
    Malformed(&'static str),
    /// A responder has sent bytes before it was sent a request.
    Stray,
    /// A trusted responder reports that its application has not been given the request, which is
    /// still kept whole.
    Undelivered,
    /// A responder has no place for the request, which is still kept whole, and gives it back.
    GivenBack {
        /// Its connection can be used again.
        stays: bool,
    },
    /// A responder has said half of something about its places, and can take no request before the
    /// other half has come.
    Speaking,
    /// No acknowledgement within `bridge-ack-timeout`.
    AckTimeout,
    /// No byte of a response within `response-timeout`.
    ResponseTimeout,
    /// No byte of a body moved within `body-timeout`.
    BodyTimeout,
    /// No byte of a response without a length came within `stream-timeout`.
    StreamTimeout,
    /// No byte passed through a tunnel within `tunnel-timeout`.
    TunnelTimeout,
}

#[derive(Debug)]
pub(crate) struct ExchangeError {
    /// The side that caused it.
    pub side: Side,
    pub cause: Cause,
    /// How far request and response had got.
    pub progress: Progress,
}

/// How far an exchange had got when it failed, which decides what can still be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// No byte of the request has been given to the responder's socket.
    Nothing,
    /// The responder closed before any byte of the request had reached it; the request is still kept
    /// whole. Unlike `Nothing` this is counted: a responder that closes each new connection unread
    /// must not have the request come back forever.
    Unread,
    /// The responder may have some of the request, gives receipts and has given none; the request
    /// is still kept whole. Only the end of the responder's connection proves that no receipt will
    /// come: until then it may give its application the request at any moment.
    Unreceipted,
    /// The responder may have some of the request, which is still kept whole and may be sent twice.
    Repeatable,
    /// The responder may have some of the request, which must not be sent again.
    Sent,
    /// Bytes of the response have been given to the requester's socket.
    Answered {
        /// The end of the body is the end of the connection: cut off, it must look cut off.
        delimited_by_close: bool,
    },
    /// The two sides have a tunnel.
    Tunnel,
}

/// Who may have seen a request that its responder has failed with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SeenBy {
    /// Nobody.
    Nobody,
    /// The responder, but not its application.
    Responder,
    /// The application.
    Application,
}

/// What follows from a failure, for the requester.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// The request goes to another responder, or waits for one.
    Retry,
    /// The requester gets an answer.
    Answer(Answer),
    /// The requester's connection ends: part of an answer has been sent, or the requester is gone.
    Close(CloseMode),
}

/// What a requester is told whose request has failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// It has sent something that is not HTTP that is accepted here, for this reason.
    BadRequest(&'static str),
    /// It has stopped sending a body.
    BodyTimeout,
    /// The responder closed.
    Closed,
    /// The responder's answer is not HTTP.
    BadResponse,
    /// The responder has not answered in time.
    Timeout,
    /// The responder has stopped taking the request's body.
    Stalled,
}

/// How a connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CloseMode {
    /// At once.
    Now,
    /// With a reset, so that what was cut off looks cut off.
    Reset,
    /// Lingering: flush, FIN, and discard input until the peer closes (RFC 9112 section 9.6).
    Linger,
}

/// A failure whose progress is not known yet.
pub(super) struct Failure {
    pub side: Side,
    pub cause: Cause,
}

impl Side {
    pub(super) fn other(self) -> Side {
        match self {
            Side::Requester => Side::Responder,
            Side::Responder => Side::Requester,
        }
    }

    pub(super) fn closed(self) -> Failure {
        Failure { side: self, cause: Cause::Closed }
    }

    pub(super) fn lost(self, error: io::Error) -> Failure {
        Failure { side: self, cause: Cause::Lost(error) }
    }

    pub(super) fn malformed(self, reason: &'static str) -> Failure {
        Failure { side: self, cause: Cause::Malformed(reason) }
    }
}

impl Answer {
    pub fn status(self) -> u16 {
        match self {
            Answer::BadRequest(_) => 400,
            Answer::BodyTimeout => 408,
            Answer::Closed | Answer::BadResponse => 502,
            Answer::Timeout | Answer::Stalled => 504,
        }
    }

    /// One line.
    pub fn text(self) -> &'static str {
        match self {
            Answer::BadRequest(reason) => reason,
            Answer::BodyTimeout => "the request's body stopped coming",
            Answer::Closed => "the backend closed the connection without an answer",
            Answer::BadResponse => "the backend's answer is not valid HTTP",
            Answer::Timeout | Answer::Stalled => "the backend did not answer in time",
        }
    }
}

impl ExchangeError {
    /// What follows. The only place where this is decided.
    #[must_use]
    pub fn action(&self) -> Action {
        use Side::{Requester, Responder};
        match (&self.cause, self.side, self.progress) {
            (_, _, Progress::Answered { delimited_by_close: true }) => {
                Action::Close(CloseMode::Reset)
            }
            (_, Responder, Progress::Answered { .. } | Progress::Tunnel) => {
                Action::Close(CloseMode::Linger)
            }
            (_, Requester, Progress::Answered { .. } | Progress::Tunnel) => {
                Action::Close(CloseMode::Now)
            }
            (Cause::Malformed(reason), Requester, _) => Action::Answer(Answer::BadRequest(reason)),
            (Cause::BodyTimeout, Requester, _) => Action::Answer(Answer::BodyTimeout),
            (_, Requester, _) => Action::Close(CloseMode::Now),
            (_, Responder, Progress::Nothing | Progress::Unread)
            | (Cause::Undelivered | Cause::GivenBack { .. }, Responder, _) => Action::Retry,
            (Cause::Closed | Cause::Lost(_), Responder, Progress::Repeatable) => Action::Retry,
            (Cause::Closed, Responder, Progress::Unreceipted) => Action::Retry,
            (Cause::Lost(error), Responder, Progress::Unreceipted) if has_ended(error) => {
                Action::Retry
            }
            (Cause::Closed | Cause::Lost(_), Responder, _) => Action::Answer(Answer::Closed),
            (Cause::Malformed(_), Responder, _) => Action::Answer(Answer::BadResponse),
            (Cause::BodyTimeout, Responder, _) => Action::Answer(Answer::Stalled),
            (_, Responder, _) => Action::Answer(Answer::Timeout),
        }
    }

    /// Who may have seen the request.
    #[must_use]
    pub fn seen_by(&self) -> SeenBy {
        match (&self.cause, self.progress) {
            (_, Progress::Nothing) => SeenBy::Nobody,
            (Cause::Undelivered | Cause::GivenBack { .. }, _)
            | (_, Progress::Unread | Progress::Unreceipted) => SeenBy::Responder,
            _ => SeenBy::Application,
        }
    }

    /// Whether the responder has ended its connection before the first byte of its answer.
    #[must_use]
    pub fn is_end_without_answer(&self) -> bool {
        self.side == Side::Responder
            && matches!(self.cause, Cause::Closed | Cause::Lost(_))
            && !matches!(self.progress, Progress::Answered { .. } | Progress::Tunnel)
    }

    /// Log level: protocol errors of backends warn, client aborts and ends of tunnels are debug.
    #[must_use]
    pub fn level(&self) -> log::Level {
        match (self.side, &self.cause, self.progress) {
            (Side::Requester, ..) | (_, _, Progress::Tunnel) => log::Level::Debug,
            (Side::Responder, Cause::Malformed(_) | Cause::ResponseTimeout, _) => log::Level::Warn,
            (Side::Responder, ..) if self.action() == Action::Retry => log::Level::Debug,
            (Side::Responder, ..) => log::Level::Info,
        }
    }
}

/// Whether a connection that broke like this has ended at the other side too. One that timed out
/// has not: its peer, stopped or cut off, may have the request and act on it later.
pub(super) fn has_ended(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

impl std::fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let side = match self.side {
            Side::Requester => "client",
            Side::Responder => "backend",
        };
        match &self.cause {
            Cause::Closed => write!(f, "{side} closed the connection too early"),
            Cause::Lost(error) => write!(f, "connection to the {side} lost: {error}"),
            Cause::Malformed(reason) => write!(f, "{side} sent bad HTTP: {reason}"),
            Cause::Stray => write!(f, "{side} sent bytes without a request"),
            Cause::Undelivered => write!(f, "{side} could not deliver the request"),
            Cause::GivenBack { .. } => write!(f, "{side} has no place for the request"),
            Cause::Speaking => write!(f, "{side} was in the middle of a message"),
            Cause::AckTimeout => write!(f, "{side} did not acknowledge in time"),
            Cause::ResponseTimeout => write!(f, "{side} did not answer in time"),
            Cause::BodyTimeout => write!(f, "body to or from the {side} stopped moving"),
            Cause::StreamTimeout => write!(f, "response stream from the {side} was idle too long"),
            Cause::TunnelTimeout => write!(f, "tunnel was idle too long"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(side: Side, cause: Cause, progress: Progress) -> Action {
        ExchangeError { side, cause, progress }.action()
    }

    #[test]
    fn a_request_no_responder_has_seen_is_always_retried() {
        let causes =
            [Cause::Closed, Cause::AckTimeout, Cause::Malformed("x"), Cause::ResponseTimeout];
        for cause in causes {
            assert_eq!(action(Side::Responder, cause, Progress::Nothing), Action::Retry);
        }
    }

    #[test]
    fn a_request_that_must_not_be_sent_twice_is_answered_502() {
        let action = action(Side::Responder, Cause::Closed, Progress::Sent);
        assert_eq!(action, Action::Answer(Answer::Closed));
    }

    #[test]
    fn a_repeatable_request_is_retried_after_a_close_but_not_after_bad_http() {
        assert_eq!(action(Side::Responder, Cause::Closed, Progress::Repeatable), Action::Retry);
        let lie = action(Side::Responder, Cause::Malformed("x"), Progress::Repeatable);
        assert_eq!(lie, Action::Answer(Answer::BadResponse));
        let slow = action(Side::Responder, Cause::ResponseTimeout, Progress::Repeatable);
        assert_eq!(slow, Action::Answer(Answer::Timeout));
    }

    #[test]
    fn an_unreceipted_request_is_retried_only_once_the_connection_has_ended() {
        let lost = |kind: io::ErrorKind| Cause::Lost(kind.into());
        for cause in [Cause::Closed, lost(io::ErrorKind::ConnectionReset), Cause::Undelivered] {
            assert_eq!(action(Side::Responder, cause, Progress::Unreceipted), Action::Retry);
        }
        for (cause, status, answer) in [
            (lost(io::ErrorKind::TimedOut), 502, Answer::Closed),
            (lost(io::ErrorKind::HostUnreachable), 502, Answer::Closed),
            (Cause::Malformed("x"), 502, Answer::BadResponse),
            (Cause::ResponseTimeout, 504, Answer::Timeout),
            (Cause::BodyTimeout, 504, Answer::Stalled),
        ] {
            let action = action(Side::Responder, cause, Progress::Unreceipted);
            assert_eq!(action, Action::Answer(answer));
            assert_eq!(answer.status(), status);
        }
    }

    #[test]
    fn an_undelivered_request_is_always_retried() {
        for progress in [Progress::Nothing, Progress::Repeatable, Progress::Sent] {
            for cause in [Cause::Undelivered, Cause::GivenBack { stays: true }] {
                assert_eq!(action(Side::Responder, cause, progress), Action::Retry);
            }
        }
    }

    #[test]
    fn only_a_request_that_an_application_may_have_seen_counts_as_delivered() {
        for (cause, progress, reached) in [
            (Cause::AckTimeout, Progress::Nothing, SeenBy::Nobody),
            (Cause::Closed, Progress::Unreceipted, SeenBy::Responder),
            (Cause::Undelivered, Progress::Repeatable, SeenBy::Responder),
            (Cause::Closed, Progress::Repeatable, SeenBy::Application),
        ] {
            let error = ExchangeError { side: Side::Responder, cause, progress };
            assert_eq!(error.seen_by(), reached, "{error}");
        }
    }

    #[test]
    fn half_an_answer_is_followed_by_nothing() {
        let answered = |delimited_by_close| Progress::Answered { delimited_by_close };
        for (side, progress, mode) in [
            (Side::Requester, answered(false), CloseMode::Now),
            (Side::Responder, answered(false), CloseMode::Linger),
            (Side::Requester, answered(true), CloseMode::Reset),
            (Side::Responder, answered(true), CloseMode::Reset),
            (Side::Requester, Progress::Tunnel, CloseMode::Now),
            (Side::Responder, Progress::Tunnel, CloseMode::Linger),
        ] {
            assert_eq!(action(side, Cause::Closed, progress), Action::Close(mode));
        }
    }
}
