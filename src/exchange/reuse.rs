//! Whether the two connections of an exchange are reused after it.
//!
//! The only place where an exchange decides that:
//!
//! ```text
//!     both      = body does not end by close, not answered early (1), request sent whole
//!     requester = both, request persistent (2), not told to close (3), chunked coding not removed
//!     responder = both, response persistent (3), no connection authentication (4),
//!                 request taken before the response began (5),
//!                 nothing more received, not even FIN, keep-alive timeout (6) above the margin
//! ```
//!
//! 1. Answered before the request was whole, with an error or without having asked for the body:
//!    the two sides may disagree on whether the rest comes, and so on where the next request begins
//!    (RFC 9110 section 10.1.1, RFC 9112 section 9.3).
//! 2. RFC 9112 section 9.3, the site's `keepalive`, and the owner not draining: the owner puts all
//!    of this into `RequestMeta::persistent`. It may still close a requester that is kept here, if
//!    it began to drain when the response's head had been sent.
//! 3. RFC 9112 sections 9.3 and 9.6: `Connection: close` is about the responder alone. With
//!    [`CloseScope::Requester`] it is about the requester alone.
//! 4. NTLM and Negotiate authenticate a connection: another client's request must not follow.
//! 5. Or else the responder has shown that it answers without having read the whole body. It may
//!    close as soon as it has answered, or take the rest of the body for its next request, and so
//!    mix up the answers that follow.
//! 6. `Keep-Alive: timeout=`. How long an idle connection is kept otherwise, whether its backend has
//!    been dismissed, and whether it leaves bodies unread, is the owner's decision.
//!
//! The requester's half is needed at the response's head, for its `Connection: close`; both are
//! needed at the end.

/// Seconds taken off a responder's keep-alive timeout: in the last one it may close at any moment,
/// and no request must meet that close.
const MARGIN: u32 = 1;

/// What becomes of a connection after an exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reuse {
    /// It may serve another exchange; a responder that announced a timeout, for so many seconds.
    Keep(Option<u32>),
    /// It must be closed.
    Close,
    /// It must be closed: a responder has sent bytes that belong to no request.
    Stray,
}

/// Which connection a response's `Connection: close` is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseScope {
    /// The one it came over (RFC 9112 section 9.6).
    Responder,
    /// The requester's. The responder passes on what its application tells clients, and itself
    /// stays open (`doc/protocol.md`, "swiftclient").
    Requester,
}

/// Everything that the decision depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReuseInputs {
    pub request_persistent: bool,
    pub request_authenticates: bool,
    pub response_persistent: bool,
    /// The response says `Connection: close`.
    pub response_close: bool,
    pub response_authenticates: bool,
    pub close_scope: CloseScope,
    /// The response's body ends with its connection.
    pub until_close: bool,
    /// The chunked coding is removed for an HTTP/1.0 requester, whose body thus ends with the
    /// connection.
    pub unchunked: bool,
    pub answered_early: bool,
    /// The response began before the request had been sent whole.
    pub overtaken: bool,
    /// As the responder announced it, in seconds.
    pub keep_alive_timeout: Option<u32>,
    /// Known at the end, true until then: the request has been sent whole.
    pub request_whole: bool,
    /// Known at the end, `Silent` until then.
    pub afterwards: Afterwards,
}

/// What has come from a responder behind its response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Afterwards {
    Silent,
    /// Bytes, which belong to no request.
    Stray,
    /// The end of the connection.
    Ended,
}

/// The decision for both connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Decision {
    pub requester: Reuse,
    pub responder: Reuse,
}

impl Decision {
    pub const CLOSE_BOTH: Decision = Decision { requester: Reuse::Close, responder: Reuse::Close };

    pub fn keeps_both(&self) -> bool {
        matches!((self.requester, self.responder), (Reuse::Keep(_), Reuse::Keep(_)))
    }
}

impl ReuseInputs {
    /// Decides, as the formula above says.
    pub fn decide(&self) -> Decision {
        let both = !self.until_close && !self.answered_early && self.request_whole;
        let told = self.close_scope == CloseScope::Requester && self.response_close;
        let requester = both && self.request_persistent && !self.unchunked && !told;
        let stays = self.close_scope == CloseScope::Requester || self.response_persistent;
        let authenticated = self.request_authenticates || self.response_authenticates;
        let responder = both && stays && !authenticated && !self.overtaken;
        Decision {
            requester: if requester { Reuse::Keep(None) } else { Reuse::Close },
            responder: match self.afterwards {
                Afterwards::Silent if responder => self.keep_responder(),
                Afterwards::Stray if responder => Reuse::Stray,
                _ => Reuse::Close,
            },
        }
    }

    fn keep_responder(&self) -> Reuse {
        match self.keep_alive_timeout {
            Some(seconds) if self.close_scope == CloseScope::Responder => {
                match seconds.saturating_sub(MARGIN) {
                    0 => Reuse::Close,
                    usable => Reuse::Keep(Some(usable)),
                }
            }
            _ => Reuse::Keep(None),
        }
    }

    /// Whether the end of the requester's connection marks the end of the body: a response that is
    /// cut off must look cut off.
    pub fn delimited_by_close(&self) -> bool {
        self.until_close || self.unchunked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: ReuseInputs = ReuseInputs {
        request_persistent: true,
        request_authenticates: false,
        response_persistent: true,
        response_close: false,
        response_authenticates: false,
        close_scope: CloseScope::Responder,
        until_close: false,
        unchunked: false,
        answered_early: false,
        overtaken: false,
        keep_alive_timeout: None,
        request_whole: true,
        afterwards: Afterwards::Silent,
    };

    #[track_caller]
    fn decides(inputs: ReuseInputs, requester: bool, responder: bool) {
        let decision = inputs.decide();
        assert_eq!(matches!(decision.requester, Reuse::Keep(_)), requester, "requester");
        assert_eq!(matches!(decision.responder, Reuse::Keep(_)), responder, "responder");
    }

    #[test]
    fn each_input_closes_the_connections_it_concerns() {
        decides(GOOD, true, true);
        decides(ReuseInputs { request_persistent: false, ..GOOD }, false, true);
        decides(ReuseInputs { request_authenticates: true, ..GOOD }, true, false);
        decides(ReuseInputs { response_authenticates: true, ..GOOD }, true, false);
        decides(ReuseInputs { response_persistent: false, ..GOOD }, true, false);
        decides(ReuseInputs { until_close: true, ..GOOD }, false, false);
        decides(ReuseInputs { unchunked: true, ..GOOD }, false, true);
        decides(ReuseInputs { answered_early: true, ..GOOD }, false, false);
        decides(ReuseInputs { request_whole: false, ..GOOD }, false, false);
        decides(ReuseInputs { overtaken: true, ..GOOD }, true, false);
        decides(ReuseInputs { afterwards: Afterwards::Ended, ..GOOD }, true, false);
        decides(ReuseInputs { afterwards: Afterwards::Stray, ..GOOD }, true, false);
    }

    #[test]
    fn bytes_are_stray_only_if_the_responder_said_that_it_would_stay() {
        let stray = ReuseInputs { afterwards: Afterwards::Stray, ..GOOD };
        assert_eq!(stray.decide().responder, Reuse::Stray);
        let closing = ReuseInputs { response_persistent: false, ..stray };
        assert_eq!(closing.decide().responder, Reuse::Close);
    }

    #[test]
    fn a_close_for_the_requester_leaves_the_responder_open() {
        let told = ReuseInputs { response_persistent: false, response_close: true, ..GOOD };
        decides(ReuseInputs { close_scope: CloseScope::Requester, ..told }, false, true);
        decides(told, true, false);
    }

    #[test]
    fn the_last_second_of_a_keep_alive_timeout_is_not_used() {
        let after =
            |timeout| ReuseInputs { keep_alive_timeout: timeout, ..GOOD }.decide().responder;
        assert_eq!(after(None), Reuse::Keep(None));
        assert_eq!(after(Some(5)), Reuse::Keep(Some(4)));
        assert_eq!(after(Some(1)), Reuse::Close);
        assert_eq!(after(Some(0)), Reuse::Close);
    }
}
