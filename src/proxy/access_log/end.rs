//! Who ended a request, and in which phase: what haproxy's termination state says in two letters.

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
            Reason::QueueFull
            | Reason::UnservedQueueFull
            | Reason::WaitingPage
            | Reason::ShuttingDown => (By::Proxy, Phase::Queue),
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

impl End {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        let (by, phase) = match self {
            End::Done => return out.extend_from_slice(b"done"),
            End::By(by, phase) => (by, phase),
        };
        out.extend_from_slice(match by {
            By::Client => b"client-".as_slice(),
            By::ClientTimeout => b"client-timeout-",
            By::Backend => b"backend-",
            By::BackendTimeout => b"backend-timeout-",
            By::Proxy => b"proxy-",
        });
        out.extend_from_slice(match phase {
            Phase::Head => b"head".as_slice(),
            Phase::Queue => b"queue",
            Phase::Ack => b"ack",
            Phase::Request => b"request",
            Phase::Response => b"response",
            Phase::Data => b"data",
            Phase::Tunnel => b"tunnel",
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(end: End) -> String {
        let mut text = Vec::new();
        end.write(&mut text);
        String::from_utf8(text).unwrap()
    }

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
            assert_eq!(shown(End::of(&error, stage)), word);
        }
        assert_eq!(shown(End::with(Reason::QueueFull)), "proxy-queue");
        assert_eq!(shown(End::with(Reason::BackendsBusy)), "backend-timeout-queue");
        assert_eq!(shown(End::Done), "done");
    }
}
