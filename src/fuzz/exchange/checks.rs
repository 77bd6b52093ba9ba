//! What must hold at the end of an exchange, judged by what has passed through the peers' sockets.

use super::circumstances::Circumstances;
use super::expected::{self, Final};
use super::peer::Peer;
use crate::bridge::request::{CONTINUE, SWITCH};
use crate::exchange::{Action, Cause, DeliveryReports, ExchangeError, Progress};
use crate::http::request::Request;

/// One backend, and how the exchange with it ended.
pub(super) struct Try<'a> {
    pub backend: Peer<'a>,
    /// The status given to the client; 0 for none.
    pub status: u16,
    pub tunnel: bool,
    /// `None` if it finished.
    pub error: Option<ExchangeError>,
}

/// Everything that has passed.
pub(super) struct Log<'a> {
    pub client: Peer<'a>,
    pub tries: Vec<Try<'a>>,
    /// What is left of the client's bytes, if its connection was kept.
    pub left: Option<Vec<u8>>,
}

pub(super) fn check(request: &Request<'_, '_>, circumstances: &Circumstances, log: &Log<'_>) {
    for attempt in &log.tries {
        check_backend(request, circumstances, log, attempt);
    }
    for attempt in &log.tries[..log.tries.len() - 1] {
        check_retry(request, circumstances, attempt);
    }
    check_client(request, circumstances, log);
    if let Some(left) = &log.left {
        let (_, end) = expected::request(request, &log.client.sent, false);
        assert!(log.client.sent[end..].starts_with(left), "bytes of the next request are lost");
    }
}

/// A backend has received a beginning of the request, and nothing else.
fn check_backend(
    request: &Request<'_, '_>,
    circumstances: &Circumstances,
    log: &Log<'_>,
    attempt: &Try<'_>,
) {
    let mut expected = if circumstances.fresh { SWITCH.to_vec() } else { Vec::new() };
    let (sent, _) = expected::request(request, &log.client.sent, attempt.tunnel);
    let announced = expected.len();
    expected.extend(sent);
    let received = &attempt.backend.received;
    assert!(
        expected.starts_with(received),
        "the backend got {} and not {}",
        shown(received),
        shown(&expected)
    );
    if let Some(ExchangeError { progress: Progress::Nothing, .. }) = attempt.error {
        assert!(received.len() <= announced, "it got bytes of a request that was not sent");
    }
}

/// The request was given to another backend: it must have been harmless, or not delivered.
fn check_retry(request: &Request<'_, '_>, circumstances: &Circumstances, attempt: &Try<'_>) {
    let announced = if circumstances.fresh { SWITCH.len() } else { 0 };
    let seen = attempt.backend.received.len() > announced;
    let error = attempt.error.as_ref().expect("it failed");
    let reported = match circumstances.reports {
        DeliveryReports::Untrusted => false,
        DeliveryReports::Trusted => matches!(error.cause, Cause::Undelivered),
        DeliveryReports::WithReceipts => {
            // None has come, or the report that the request was not delivered contradicts it.
            let receipt = b"Cloudbridge-Receipt";
            matches!(error.cause, Cause::Undelivered)
                || memchr::memmem::find(&attempt.backend.sent, receipt).is_none()
                || error.progress == Progress::Unreceipted
        }
    };
    assert!(!seen || request.idempotent() || reported, "sent twice after: {error}");
    assert_eq!(attempt.status, 0, "sent twice after an answer");
}

/// The client has received a beginning of a response, and all of it if the exchange finished.
fn check_client(request: &Request<'_, '_>, circumstances: &Circumstances, log: &Log<'_>) {
    let mut received = &*log.client.received;
    let (last, failed) = log.tries.split_last().expect("there was one");
    for attempt in failed {
        let expected = expected::response(request, circumstances, &attempt.backend.sent);
        received = after_interim(received, &expected.interim);
    }
    let expected = expected::response(request, circumstances, &last.backend.sent);
    let received = after_interim(received, &expected.interim);
    let action = last.error.as_ref().map(ExchangeError::action);
    if let Some(Action::Retry | Action::Answer(..)) = action {
        assert!(received.is_empty(), "part of an answer, and then {action:?}");
    }
    if received.is_empty() && last.error.is_some() {
        return;
    }
    let Some(answer) = expected.last else {
        let cut = expected.interim.iter().any(|interim| interim.starts_with(received));
        assert!(cut || received.is_empty(), "the client got {} of nothing", shown(received));
        assert!(last.error.is_some(), "finished without a response");
        return;
    };
    let is_beginning = answer.heads.iter().any(|head| begins(head, &answer.body, received));
    assert!(is_beginning, "the client got {} and not {}", shown(received), answer.shown());
    if last.error.is_none() && !log.client.left {
        let whole =
            answer.heads.iter().any(|head| received.len() == head.len() + answer.body.len());
        assert!(whole, "finished, and the client got only {}", shown(received));
    }
}

/// What follows the interim responses that are whole at the front of `received`: those that the
/// backend has sent, and one of our own that a client gets when it has sent its FIN.
fn after_interim<'a>(mut received: &'a [u8], interim: &[Vec<u8>]) -> &'a [u8] {
    for response in interim {
        if !response.starts_with(CONTINUE) {
            received = received.strip_prefix(CONTINUE).unwrap_or(received);
        }
        match received.strip_prefix(&**response) {
            Some(rest) => received = rest,
            None if response.starts_with(received) => return &[],
            None => break,
        }
    }
    received = received.strip_prefix(CONTINUE).unwrap_or(received);
    let is_begun = received.starts_with(b"HTTP/1.1 1") && CONTINUE.starts_with(received);
    if is_begun { &[] } else { received }
}

/// Whether `received` is a beginning of `head` and `body`.
fn begins(head: &[u8], body: &[u8], received: &[u8]) -> bool {
    match received.strip_prefix(head) {
        Some(rest) => body.starts_with(rest),
        None => head.starts_with(received),
    }
}

impl Final {
    fn shown(&self) -> String {
        let whole = if self.complete { "whole" } else { "cut" };
        format!("{} and {} ({whole})", shown(&self.heads[0]), shown(&self.body))
    }
}

/// The beginning of some bytes, for a message.
fn shown(bytes: &[u8]) -> String {
    let more = if bytes.len() > 512 { "..." } else { "" };
    format!("{} bytes \"{}{more}\"", bytes.len(), bytes[..bytes.len().min(512)].escape_ascii())
}
