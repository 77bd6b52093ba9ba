//! Why the proxy itself has answered, for machines: a word that stays the same, and the error type
//! of the field `Proxy-Status` (RFC 9209).
//!
//! Status and text stay where an answer is made: the same reason may have several of both.

use crate::exchange::Answer;

/// Defines [`Reason`] from lines of a variant, its word, and its error type.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $error:ident;)*) => {
        /// Why the proxy itself has answered, one for each cause that an operator tells apart.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(super) enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason, by its number.
            pub(super) const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// The word for it in counters, logs and answers. It never changes.
            pub(super) const fn word(self) -> &'static str {
                match self {
                    $(Reason::$name => $word,)*
                }
            }

            /// The value of `Proxy-Status` (RFC 9209, section 2): the details are the word.
            pub(super) const fn proxy_status(self) -> &'static str {
                match self {
                    $(Reason::$name => concat!(
                        "cloudbridge; error=", stringify!($error), "; details=\"", $word, "\"",
                    ),)*
                }
            }
        }
    };
}

// The error types are those of RFC 9209, section 2.3. A limit or a policy of the proxy is
// `http_request_denied`; what it does by itself, whatever the next hop, `proxy_internal_response`.
reasons! {
    // Clients.
    /// Not HTTP that is accepted here.
    BadRequest = "bad-request", http_request_error;
    /// The connection ended in the middle of a head.
    IncompleteRequest = "incomplete-request", http_request_error;
    /// A longer head or trailer than `max-head`, or more fields than `max-fields`.
    HeadTooLarge = "head-too-large", http_request_error;
    /// A longer target than `max-target`.
    TargetTooLong = "target-too-long", http_request_error;
    /// CONNECT, or a TRACE that may not be forwarded.
    MethodNotAllowed = "method-not-allowed", http_request_error;
    /// A version, method or transfer coding that the proxy does not know.
    NotSupported = "not-supported", proxy_internal_response;
    /// No whole head within `head-timeout`.
    HeadTimeout = "head-timeout", http_request_error;
    /// The client stopped sending a body.
    BodyTimeout = "body-timeout", http_request_error;
    /// A client that has shown its certificate for another name.
    Misdirected = "misdirected", http_request_denied;
    /// A client at a listener for bridges.
    BridgesOnly = "bridges-only", http_request_denied;
    /// `max-connections`.
    ConnectionLimit = "connection-limit", http_request_denied;
    /// `connections-per-address`. The connection is closed without an answer.
    AddressLimit = "address-limit", http_request_denied;
    /// Nobody serves the name, and `unknown-host` does not let it wait.
    UnknownHost = "unknown-host", destination_not_found;
    /// `queue-per-route`.
    QueueFull = "queue-full", connection_limit_reached;
    /// `requests-per-second` of the key that serves the name.
    KeyRate = "key-rate", http_request_denied;
    /// `waiting` of the key that serves the name.
    KeyQueueFull = "key-queue-full", connection_limit_reached;
    /// `queue-unserved`.
    UnservedQueueFull = "unserved-queue-full", destination_unavailable;
    /// The request has waited in vain, and no backend for it is connected.
    NoBackend = "no-backend", destination_unavailable;
    /// The request has waited in vain: every backend was busy.
    BackendsBusy = "backends-busy", connection_limit_reached;
    /// A browser has waited for `waiting-page-after`, and comes again.
    WaitingPage = "waiting-page", destination_unavailable;
    /// The backend closed before it answered.
    BackendClosed = "backend-closed", connection_terminated;
    /// The backend's answer is not HTTP that is accepted here.
    BackendBadResponse = "backend-bad-response", http_protocol_error;
    /// The backend did not answer within `response-timeout`.
    BackendTimeout = "backend-timeout", http_response_timeout;
    /// The backend stopped taking the request's body.
    BackendStalled = "backend-stalled", connection_write_timeout;
    /// `retries`.
    RetriesUsedUp = "retries-used-up", connection_terminated;
    /// Too many files are being read, or no descriptors are left for them.
    FilesBusy = "files-busy", connection_limit_reached;
    /// A file could not be read within `response-timeout`.
    FileTimeout = "file-timeout", http_response_timeout;
    /// A backend has named a file that is not there.
    NoFile = "no-file", destination_not_found;
    /// A request for the state of a tenant without a good key.
    TenantUnauthorized = "tenant-unauthorized", http_request_denied;
    /// Too many such requests, or wrong keys, from one address.
    TenantLimit = "tenant-limit", http_request_denied;
    /// The proxy shuts down. Backends get this too.
    ShuttingDown = "shutting-down", proxy_internal_response;

    // Backends.
    /// A malformed BRIDGE request or swiftclient preamble.
    BadBridge = "bad-bridge", http_request_error;
    /// A bridge at a listener for clients.
    ClientsOnly = "clients-only", http_request_denied;
    /// Keys are not checked, and the backend is not on this machine.
    BridgeNotLocal = "bridge-not-local", http_request_denied;
    /// A key that is missing, wrong or expired.
    BridgeUnauthorized = "bridge-unauthorized", http_request_denied;
    /// The program of `authorise` has said no.
    NotAuthorised = "not-authorised", http_request_denied;
    /// It has not answered.
    AuthoriseFailed = "authorise-failed", http_request_denied;
    /// The bridges' share of `max-connections`.
    BridgeLimit = "bridge-limit", http_request_denied;
    /// The limit of a key.
    KeyLimit = "key-limit", http_request_denied;
    /// `bridges-per-host`.
    HostLimit = "host-limit", http_request_denied;
    /// Drained by the operator.
    Drained = "drained", http_request_denied;
    /// The backend has deregistered.
    Deregistered = "deregistered", proxy_internal_response;
    /// `bridge-timeout`.
    BridgeTimeout = "bridge-timeout", proxy_internal_response;
}

impl Reason {
    /// Why a client's request that is refused with `status` is refused.
    pub(super) const fn of_request(status: u16) -> Reason {
        match status {
            405 => Reason::MethodNotAllowed,
            414 => Reason::TargetTooLong,
            431 => Reason::HeadTooLarge,
            501 | 505 => Reason::NotSupported,
            _ => Reason::BadRequest,
        }
    }

    /// Why a BRIDGE request that is refused with `status` is refused.
    pub(super) const fn of_bridge(status: u16) -> Reason {
        match status {
            401 | 403 => Reason::BridgeUnauthorized,
            _ => Reason::BadBridge,
        }
    }
}

impl From<Answer> for Reason {
    fn from(answer: Answer) -> Reason {
        match answer {
            Answer::BadRequest(_) => Reason::BadRequest,
            Answer::BodyTimeout => Reason::BodyTimeout,
            Answer::Closed => Reason::BackendClosed,
            Answer::BadResponse => Reason::BackendBadResponse,
            Answer::Timeout => Reason::BackendTimeout,
            Answer::Stalled => Reason::BackendStalled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_has_a_word_of_its_own() {
        let words: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.word()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        let is_plain = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        assert!(words.iter().all(is_plain), "{words:?}");
        assert!(Reason::ALL.iter().enumerate().all(|(at, reason)| at == *reason as usize));
    }

    #[test]
    fn the_field_is_a_structured_list_of_one_item() {
        assert_eq!(
            Reason::UnknownHost.proxy_status(),
            "cloudbridge; error=destination_not_found; details=\"unknown-host\""
        );
    }

    #[test]
    fn every_error_type_is_registered() {
        // RFC 9209, section 2.3.
        const REGISTERED: &[&str] = &[
            "connection_limit_reached",
            "connection_terminated",
            "connection_write_timeout",
            "destination_not_found",
            "destination_unavailable",
            "http_protocol_error",
            "http_request_denied",
            "http_request_error",
            "http_response_timeout",
            "proxy_internal_response",
        ];
        for reason in Reason::ALL {
            let value = reason.proxy_status().strip_prefix("cloudbridge; error=").unwrap();
            let (error, details) = value.split_once("; details=").unwrap();
            assert!(REGISTERED.contains(&error), "{error}");
            assert_eq!(details, format!("\"{}\"", reason.word()));
        }
    }
}
