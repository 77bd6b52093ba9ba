//! What a proxy answers to a BRIDGE, as bytes.

use std::time::Duration;

use crate::bridge::extensions::{EXTENSIONS, Extensions};
use crate::client::handshake::visible;
use crate::http::response::{self, Response};
use crate::http::{Framing, Limits};

/// Bounds of a head that answers a BRIDGE.
pub(super) const LIMITS: Limits = Limits { head: 8 * 1024, fields: 32, target: 0 };

/// Most bytes of a refusal that are waited for: its first line is all that is wanted.
const REFUSAL: usize = 1024;

/// What the proxy says at the front of the input.
pub(super) enum Answer {
    /// Its end is not there.
    Partial,
    /// A 1xx of so many bytes: accepted, or a ping. The first may say what the proxy knows.
    Interim(usize, Extensions),
    /// The 101, of so many bytes.
    Switch(usize),
    /// A final answer.
    Refusal { status: u16, reason: String, retry_after: Option<Duration> },
    /// It is no proxy.
    NotHttp(&'static str),
}

/// Reads the answer at the front of `bytes`; no more will come if the connection has `ended`.
pub(super) fn answer(bytes: &[u8], ended: bool) -> Answer {
    if bytes.is_empty() {
        return Answer::Partial;
    }
    let mut storage = response::storage();
    match response::parse(bytes, &mut storage, &LIMITS, false) {
        Ok(None) => Answer::Partial,
        Err(bad) => Answer::NotHttp(bad.reason),
        Ok(Some(head)) => match head.status {
            101 => Answer::Switch(head.len),
            100..=199 => Answer::Interim(head.len, extensions(&head)),
            _ if ended || has_come(&head, &bytes[head.len..]) => refusal(&head, bytes),
            _ => Answer::Partial,
        },
    }
}

fn extensions(head: &Response<'_, '_>) -> Extensions {
    let field = head.fields.iter().find(|field| field.name.eq_ignore_ascii_case(EXTENSIONS));
    field.map_or(Extensions::default(), |field| Extensions::parse(field.value))
}

/// Whether enough of a refusal's body is there to say why.
fn has_come(head: &Response<'_, '_>, body: &[u8]) -> bool {
    let whole = match head.framing {
        Framing::None => true,
        Framing::Length(length) => body.len() as u64 >= length,
        Framing::Chunked | Framing::UntilClose => false,
    };
    whole || body.len() >= REFUSAL || body.contains(&b'\n')
}

fn refusal(head: &Response<'_, '_>, bytes: &[u8]) -> Answer {
    let body = match head.framing {
        Framing::Chunked => &[],
        _ => &bytes[head.len..],
    };
    let mut reason = visible(body.split(|&b| b == b'\n').next().unwrap_or_default());
    if reason.is_empty() {
        reason = visible(head.reason.as_bytes());
    }
    let retry_after = head
        .fields
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case("Retry-After"))
        .and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok())
        .map(Duration::from_secs);
    Answer::Refusal { status: head.status, reason, retry_after }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::extensions::WELCOME;
    use crate::bridge::request::{CONTINUE, SWITCH};

    #[test]
    fn the_handshake_is_read_at_every_split() {
        for end in 0..CONTINUE.len() {
            assert!(matches!(answer(&CONTINUE[..end], false), Answer::Partial));
        }
        let none = Extensions::default();
        let Answer::Interim(len, known) = answer(CONTINUE, false) else { panic!("no 100") };
        assert_eq!((len, known), (CONTINUE.len(), none));
        for end in 0..WELCOME.len() {
            assert!(matches!(answer(&WELCOME[..end], false), Answer::Partial));
        }
        let Answer::Interim(len, known) = answer(WELCOME, false) else { panic!("no 100") };
        let both = Extensions { leave: true, undelivered: true, receipts: false };
        assert_eq!((len, known), (WELCOME.len(), both));
        for end in 0..SWITCH.len() {
            assert!(matches!(answer(&SWITCH[..end], false), Answer::Partial));
        }
        assert!(matches!(answer(SWITCH, false), Answer::Switch(len) if len == SWITCH.len()));
    }

    #[test]
    fn a_refusal_is_waited_for_and_says_why() {
        let bytes = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9\r\nRetry-After: 7\r\n\
            Connection: close\r\n\r\ntoo many\n";
        for end in 0..bytes.len() {
            assert!(matches!(answer(&bytes[..end], false), Answer::Partial), "{end}");
        }
        let Answer::Refusal { status, reason, retry_after } = answer(bytes, false) else {
            panic!("no refusal");
        };
        assert_eq!((status, reason.as_str()), (503, "too many"));
        assert_eq!(retry_after, Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_refusal_that_is_cut_off_says_what_there_is() {
        let bytes = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 9\r\n\r\n";
        let Answer::Refusal { status, reason, retry_after } = answer(bytes, true) else {
            panic!("no refusal");
        };
        assert_eq!((status, reason.as_str(), retry_after), (401, "Unauthorized", None));
    }

    #[test]
    fn what_is_no_proxy_is_known_at_once() {
        assert!(matches!(answer(b"SSH-2.0-x\r\n", false), Answer::NotHttp(_)));
    }
}
