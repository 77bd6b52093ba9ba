//! Who ended a request, and in which phase: what haproxy's termination state says in two letters.

use std::fmt;

use crate::exchange::{Cause, ExchangeError, Progress, Side, Stage};

use super::super::reason::Reason;

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::proxy) enum End {
    /// Its response was passed on whole.
    Done,
    /// Somebody ended it in some phase.
    By(By, Phase),
}

/// Who ended it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::proxy) enum By {
    /// The client closed, or sent what is not HTTP.
    Client,
    /// The client let a timeout pass.
    ClientTimeout,
    /// The backend closed, or sent what is not HTTP.
    Backend,
    /// The backend let a timeout pass, or none came.
    BackendTimeout,
    /// The proxy: a limit, a rule, or its shutdown.
    Proxy,
}

/// In which phase.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::proxy) enum Phase {
    /// The head of the request was coming.
    Head,
    /// It waited for a bridge.
    Queue,
    /// It had a bridge, which was to acknowledge.
    Ack,
    /// Its body was coming.
    Request,
    /// It had been sent, and its response had not begun.
    Response,
    /// The response was coming.
    Data,
    /// The two sides had a tunnel.
    Tunnel,
}

impl End {
    /// How an exchange failed that was at this stage.
    pub(in crate::proxy) fn of(error: &ExchangeError, stage: Stage) -> End {
        let is_timeout = matches!(
            error.cause,
            Cause::AckTimeout
                | Cause::ResponseTimeout
                | Cause::BodyTimeout
                | Cause::StreamTimeout
                | Cause::TunnelTimeout
        );
        let by = match (error.side, is_timeout) {
            (Side::Requester, false) => By::Client,
            (Side::Requester, true) => By::ClientTimeout,
            (Side::Responder, false) => By::Backend,
            (Side::Responder, true) => By::BackendTimeout,
        };
        let phase = match error.progress {
            Progress::Tunnel => Phase::Tunnel,
            Progress::Answered { .. } => Phase::Data,
            _ => Phase::at(stage),
        };
        End::By(by, phase)
    }

    /// How a request ended that the proxy answered for this reason, if no exchange was to blame.
    pub(in crate::proxy) fn with(reason: Reason) -> End {
        let (by, phase) = match reason {
            Reason::HeadTimeout => (By::ClientTimeout, Phase::Head),
            Reason::BodyTimeout => (By::ClientTimeout, Phase::Request),
            Reason::BridgesOnly
            | Reason::ConnectionLimit
            | Reason::UnknownHost
            | Reason::MethodNotAllowed => (By::Proxy, Phase::Head),
            Reason::QueueFull | Reason::UnservedQueueFull | Reason::ShuttingDown => {
                (By::Proxy, Phase::Queue)
            }
            Reason::NoBackend | Reason::BackendsBusy => (By::BackendTimeout, Phase::Queue),
            Reason::BackendTimeout => (By::BackendTimeout, Phase::Response),
            Reason::BackendStalled => (By::BackendTimeout, Phase::Request),
            Reason::BackendClosed | Reason::BackendBadResponse | Reason::RetriesUsedUp => {
                (By::Backend, Phase::Response)
            }
            _ => (By::Client, Phase::Head),
        };
        End::By(by, phase)
    }
}

impl Phase {
    pub(in crate::proxy) fn at(stage: Stage) -> Phase {
        match stage {
            Stage::Ack => Phase::Ack,
            Stage::Request => Phase::Request,
            Stage::Response => Phase::Response,
            Stage::Data => Phase::Data,
            Stage::Tunnel => Phase::Tunnel,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (by, phase) = match self {
            End::Done => return f.write_str("done"),
            End::By(by, phase) => (by, phase),
        };
        f.write_str(match by {
            By::Client => "client-",
            By::ClientTimeout => "client-timeout-",
            By::Backend => "backend-",
            By::BackendTimeout => "backend-timeout-",
            By::Proxy => "proxy-",
        })?;
        f.write_str(match phase {
            Phase::Head => "head",
            Phase::Queue => "queue",
            Phase::Ack => "ack",
            Phase::Request => "request",
            Phase::Response => "response",
            Phase::Data => "data",
            Phase::Tunnel => "tunnel",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_who_and_when() {
        let closed = |side, progress| ExchangeError { side, cause: Cause::Closed, progress };
        let answered = Progress::Answered { delimited_by_close: false };
        for (error, stage, word) in [
            (closed(Side::Requester, Progress::Sent), Stage::Request, "client-request"),
            (closed(Side::Responder, answered), Stage::Data, "backend-data"),
            (closed(Side::Responder, Progress::Repeatable), Stage::Response, "backend-response"),
            (
                ExchangeError {
                    side: Side::Responder,
                    cause: Cause::AckTimeout,
                    progress: Progress::Nothing,
                },
                Stage::Ack,
                "backend-timeout-ack",
            ),
            (
                ExchangeError {
                    side: Side::Requester,
                    cause: Cause::TunnelTimeout,
                    progress: Progress::Tunnel,
                },
                Stage::Tunnel,
                "client-timeout-tunnel",
            ),
        ] {
            assert_eq!(End::of(&error, stage).to_string(), word);
        }
        assert_eq!(End::with(Reason::QueueFull).to_string(), "proxy-queue");
        assert_eq!(End::with(Reason::BackendsBusy).to_string(), "backend-timeout-queue");
        assert_eq!(End::Done.to_string(), "done");
    }
}
