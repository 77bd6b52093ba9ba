//! What a proxy answers to a BRIDGE: the backend's half of the protocol (`doc/protocol.md`,
//! "BRIDGE").

use std::time::Duration;

use super::extensions::{EXTENSIONS, Extensions};
use super::places::{WAITING, Waiting};
use super::proof::{NONCE, Nonce};
use crate::http::response::{self, Response};
use crate::http::{Framing, Limits, ParseError};

/// How long a proxy may take to be dialled, and how long to answer a deregistration. It has bridges
/// open to us, so it answers at once or has other troubles; then we close the bridges ourselves.
pub(crate) const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(3);

/// How long an idle bridge waits for the proxy's FIN after a deregistration. Longer than
/// [`DEREGISTER_TIMEOUT`]: the FIN comes with the answer, unless the proxy fails to keep its
/// promise, or another of several behind one address has the bridge.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A proxy's own heads have a few dozen bytes.
const LIMITS: Limits = Limits { head: 8 * 1024, fields: 32, target: 0, behind_proxy: false };

/// Most bytes of a refusal's body that are waited for: only its first line is used.
const MAX_BODY: usize = 1024;

/// Most bytes of a refusal's first line that are kept.
const MAX_REASON: usize = 256;

/// One answer of a proxy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A 1xx other than 101. 100 is the acceptance and the ping; clients ignore others (RFC 9110,
    /// section 15.2).
    Interim {
        len: usize,
        extensions: Extensions,
        /// What it says of the requests that wait.
        waiting: Option<Waiting>,
    },
    /// The 101: a request follows.
    Switch { len: usize },
    /// The keys that the BRIDGE has named are to be proven with this nonce.
    Challenge { len: usize, nonce: Nonce },
    /// Anything else. The proxy closes the connection after it.
    Final {
        status: u16,
        /// The first line of the body, or else the reason phrase: printable, at most 256 bytes.
        reason: String,
        retry_after: Option<Duration>,
        /// False while more of that line may come before the connection ends.
        complete: bool,
    },
}

/// Reads the answer at the front of `bytes`; `Ok(None)` until its head is whole.
///
/// # Errors
///
/// It is not HTTP.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Answer>, ParseError> {
    let mut storage = response::storage();
    let head = response::parse(bytes, &mut storage, &LIMITS, false)?;
    Ok(head.map(|head| match head.status {
        101 => Answer::Switch { len: head.len },
        100..=199 => Answer::Interim {
            len: head.len,
            extensions: field(&head, EXTENSIONS).map_or(Extensions::default(), Extensions::parse),
            waiting: field(&head, WAITING).and_then(Waiting::parse).filter(|_| head.status == 100),
        },
        status => {
            let nonce = field(&head, NONCE).and_then(Nonce::parse).filter(|_| status == 401);
            match (nonce, &head.framing) {
                (Some(nonce), Framing::None | Framing::Length(0)) => {
                    Answer::Challenge { len: head.len, nonce }
                }
                _ => last(&head, &bytes[head.len..]),
            }
        }
    }))
}

fn field<'b>(head: &Response<'b, '_>, name: &str) -> Option<&'b [u8]> {
    let field = head.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
    Some(field.value)
}

fn last(head: &Response<'_, '_>, body: &[u8]) -> Answer {
    let (body, length) = match head.framing {
        // No proxy chunks a refusal; its reason phrase will do.
        Framing::None | Framing::Chunked => (&body[..0], 0),
        Framing::Length(length) => (body, length),
        Framing::UntilClose => (body, u64::MAX),
    };
    let line = body.split(|&b| b == b'\n').next().unwrap_or_default();
    let mut reason = printable(line);
    if reason.is_empty() {
        reason = printable(head.reason.as_bytes());
    }
    let seconds =
        field(head, "Retry-After").and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    let wanted = length.min(MAX_BODY as u64);
    Answer::Final {
        status: head.status,
        reason,
        retry_after: seconds.map(Duration::from_secs),
        complete: line.len() < body.len() || body.len() as u64 >= wanted,
    }
}

/// A short text without control characters.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(&line[..line.len().min(MAX_REASON)]);
    text.trim().chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::request::{CONTINUE, SWITCH};

    /// The answer, which is not there before its last byte.
    #[track_caller]
    fn whole(bytes: &[u8]) -> Answer {
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Ok(None), "at {end}");
        }
        let answer = parse(bytes).unwrap().expect("whole");
        assert_eq!(
            parse(&[bytes, b"GET / HTTP/1.1\r\n"].concat()).unwrap().as_ref(),
            Some(&answer)
        );
        answer
    }

    #[track_caller]
    fn last(bytes: &[u8]) -> (u16, String, Option<u64>, bool) {
        match parse(bytes) {
            Ok(Some(Answer::Final { status, reason, retry_after, complete })) => {
                (status, reason, retry_after.map(|time| time.as_secs()), complete)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn handshake_is_read_at_every_split() {
        let none = Extensions::default();
        let both = Extensions { leave: true, undelivered: true, ..none };
        let mut welcome = Vec::new();
        none.welcome(&mut welcome);
        let interim = |len, extensions| Answer::Interim { len, extensions, waiting: None };
        assert_eq!(whole(CONTINUE), interim(CONTINUE.len(), none));
        assert_eq!(whole(&welcome), interim(welcome.len(), both));
        assert_eq!(whole(b"HTTP/1.1 100\r\n\r\n"), interim(16, none));
        assert_eq!(whole(SWITCH), Answer::Switch { len: SWITCH.len() });
    }

    #[test]
    fn a_100_may_say_how_long_requests_wait() {
        let bytes = b"HTTP/1.1 100 Continue\r\nCloudbridge-Waiting: 12; at=5\r\n\r\n";
        let waiting = Some(Waiting { waited: Some(Duration::from_millis(12)), at: 5 });
        let (len, extensions) = (bytes.len(), Extensions::default());
        assert_eq!(whole(bytes), Answer::Interim { len, extensions, waiting });
        let text = std::str::from_utf8(bytes).unwrap();
        for other in [text.replace("100", "102"), text.replace("12;", "x;")] {
            let read = Answer::Interim { len: other.len(), extensions, waiting: None };
            assert_eq!(whole(other.as_bytes()), read, "{other}");
        }
    }

    #[test]
    fn challenge_is_a_401_with_a_nonce_and_nothing_else() {
        let nonce = Nonce::parse(b"00112233445566778899aabbccddeeff").unwrap();
        let mut challenge = Vec::new();
        nonce.challenge("", &mut challenge);
        assert_eq!(whole(&challenge), Answer::Challenge { len: challenge.len(), nonce });
        let text = String::from_utf8(challenge).unwrap();
        for other in [
            text.replace("401", "403"),
            text.replace("ff\r", "fg\r"),
            text.replace("Nonce", "Once"),
            text.replace("Length: 0", "Length: 1"),
        ] {
            let read = parse(other.as_bytes());
            assert!(matches!(read, Ok(Some(Answer::Final { .. }))), "{other}: {read:?}");
        }
    }

    #[test]
    fn refusal_is_complete_with_the_first_line_of_its_body() {
        let head = "HTTP/1.1 503 Busy\r\nContent-Length: 9\r\nRetry-After: 7\r\n\r\n";
        for (body, reason, complete) in [
            ("", "Busy", false),
            ("too m", "too m", false),
            ("too many", "too many", false),
            ("too many\n", "too many", true),
            ("no\nignored", "no", true),
        ] {
            let expected = (503, reason.to_owned(), Some(7), complete);
            assert_eq!(last(format!("{head}{body}").as_bytes()), expected);
        }
    }

    #[test]
    fn refusal_without_length_ends_with_its_line_or_after_1_kib() {
        let head = "HTTP/1.1 404 Not Found\r\n\r\n";
        let reason = |body: &str| last(format!("{head}{body}").as_bytes());
        assert_eq!(reason("not here"), (404, "not here".to_owned(), None, false));
        assert_eq!(reason("not here\n"), (404, "not here".to_owned(), None, true));
        assert!(reason(&"x".repeat(MAX_BODY)).3);
    }

    #[test]
    fn refusal_without_body_gives_its_phrase() {
        let head = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nRetry-After: Fri\r\n\r\n";
        assert_eq!(last(head), (401, "Unauthorized".to_owned(), None, true));
        let chunked = b"HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nno\n";
        assert_eq!(last(chunked), (401, "Unauthorized".to_owned(), None, true));
    }

    #[test]
    fn other_protocols_are_known_early() {
        assert!(parse(b"SSH-2.0-x").is_err());
        assert!(parse(b"\x16\x03\x01").is_err());
    }

    #[test]
    fn reason_is_one_short_printable_line() {
        assert_eq!(printable(b" no key\x1b[2J\r"), "no key?[2J");
        assert_eq!(printable(&[b'x'; 1000]).len(), MAX_REASON);
        assert_eq!(printable(b"\xff"), "\u{fffd}");
    }
}
