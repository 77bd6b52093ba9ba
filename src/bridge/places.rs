//! What a backend with several proxies and each of them tell one another of its places
//! (`doc/protocol.md`, "Places").

use std::io::Write;
use std::time::Duration;

use httparse::Header;

use super::extensions::BackendToken;
use crate::http::Framing;
use crate::http::response::{Response, UNDELIVERED};

/// The field in which a backend says how many of its bridges may have a request at once.
const PLACES: &str = "Cloudbridge-Places";

/// The field in which a proxy says how long its oldest request has waited for the backend.
pub(crate) const WAITING: &str = "Cloudbridge-Waiting";

/// The field of a request that says with `no` that the proxy does not hold it whole.
const HELD: &str = "Cloudbridge-Held";

/// How its message begins. What follows is the field's value and a blank line.
const MESSAGE: &[u8] = b"HTTP/1.1 102 Processing\r\nCloudbridge-Places: ";

/// How an answer begins by which a request may be given back.
const GIVEN_BACK: &[u8] = b"HTTP/1.1 503 ";

/// Most digits of a number of places, and of a message's number.
const LIMIT_DIGITS: usize = 9;
const AT_DIGITS: usize = 19;

/// What a backend says of its places at a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    /// How many of its bridges on a route may have a request at once, those that have one included.
    pub(crate) limit: u32,
    /// Grows with each message of the backend to this proxy.
    pub(crate) at: u64,
}

/// What is at the front of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// A whole message of `len` bytes.
    Message { places: Places, len: usize },
    /// The beginning of one; also no byte at all.
    Partial,
    /// Something else.
    Other,
}

/// Looks for a message of the backend with this token at the front of `bytes`. It has one form only:
/// anything else must not be taken for one, because it may be an application's.
pub(crate) fn message(bytes: &[u8], by: &BackendToken) -> Front {
    let mut scan = Scan(bytes);
    match scan.message(by) {
        Ok(places) => Front::Message { places, len: bytes.len() - scan.0.len() },
        Err(front) => front,
    }
}

/// What a field's value says, if it is of the backend with this token.
fn value(bytes: &[u8], by: &BackendToken) -> Option<Places> {
    let mut scan = Scan(bytes);
    scan.value(by).ok().filter(|_| scan.0.is_empty())
}

/// Whether `bytes` may be the beginning of an answer by which a request is given back.
pub(crate) fn may_give_back(bytes: &[u8]) -> bool {
    let len = bytes.len().min(GIVEN_BACK.len());
    bytes[..len] == GIVEN_BACK[..len]
}

/// Whether by this response the backend with this token gives its request back for lack of a place,
/// and what places it has then. It has no body.
pub(crate) fn given_back(response: &Response<'_, '_>, by: &BackendToken) -> Option<Places> {
    let is_empty = matches!(response.framing, Framing::None | Framing::Length(0));
    if response.status != 503 || !is_empty {
        return None;
    }
    let only = |name: &str| {
        let mut found =
            response.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        found.next().map(|field| field.value).filter(|_| found.next().is_none())
    };
    only(UNDELIVERED).filter(|word| *word == b"places")?;
    value(only(PLACES)?, by)
}

/// Appends the message to a proxy that the backend has so many places there.
pub(crate) fn write(out: &mut Vec<u8>, places: Places, by: &BackendToken) {
    out.extend_from_slice(MESSAGE);
    write_value(out, places, by);
    out.extend_from_slice(b"\r\n\r\n");
}

/// Appends the answer to a request, or to a 101, by which it is given back for lack of a place.
pub(crate) fn give_back(out: &mut Vec<u8>, places: Places, by: &BackendToken) {
    out.extend_from_slice(GIVEN_BACK);
    out.extend_from_slice(
        b"Service Unavailable\r\nCloudbridge-Undelivered: places\r\nCloudbridge-Places: ",
    );
    write_value(out, places, by);
    out.extend_from_slice(b"\r\nContent-Length: 0\r\n\r\n");
}

fn write_value(out: &mut Vec<u8>, Places { limit, at }: Places, by: &BackendToken) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{limit}; at={at}; by={}", by.digits());
}

/// Whether the proxy holds a request whole, so that it can be given back.
pub(crate) fn is_held(fields: &[Header<'_>]) -> bool {
    !fields.iter().any(|field| field.name.eq_ignore_ascii_case(HELD) && field.value == b"no")
}

/// What a proxy says of the requests that wait there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// How long the oldest has waited; `None` if none waits.
    pub(crate) waited: Option<Duration>,
    /// Grows with each message of the proxy to this backend.
    pub(crate) at: u64,
}

impl Waiting {
    /// Reads the value of a [`WAITING`] field.
    pub(crate) fn parse(value: &[u8]) -> Option<Waiting> {
        let mut scan = Scan(value);
        let waited = match scan.literal(b"none") {
            Ok(()) => None,
            Err(_) => Some(Duration::from_millis(scan.number(AT_DIGITS).ok()?)),
        };
        scan.literal(b"; at=").ok()?;
        // The number is the last, and would be taken for the beginning of a longer one.
        let digits = std::str::from_utf8(scan.0).ok()?;
        let is_number = digits.len() <= AT_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
        let at = digits.parse().ok().filter(|_| is_number)?;
        Some(Waiting { waited, at })
    }
}

/// Appends the message to a backend that the oldest request which waits for it has waited so long,
/// or that none waits. `at` grows with each message to the backend.
pub(crate) fn waiting(out: &mut Vec<u8>, waited: Option<Duration>, at: u64) {
    out.extend_from_slice(b"HTTP/1.1 100 Continue\r\nCloudbridge-Waiting: ");
    // Writing to a Vec cannot fail.
    let _ = match waited {
        Some(waited) => write!(out, "{}", waited.as_millis()),
        None => write!(out, "none"),
    };
    let _ = write!(out, "; at={at}\r\n\r\n");
}

/// Reads the parts of a message one by one. Each fails with [`Front::Partial`] if the bytes end too
/// early, and with [`Front::Other`] if they are wrong.
struct Scan<'b>(&'b [u8]);

impl Scan<'_> {
    fn message(&mut self, by: &BackendToken) -> Result<Places, Front> {
        self.literal(MESSAGE)?;
        let places = self.value(by)?;
        self.literal(b"\r\n\r\n")?;
        Ok(places)
    }

    fn value(&mut self, by: &BackendToken) -> Result<Places, Front> {
        let limit = self.number(LIMIT_DIGITS)?;
        self.literal(b"; at=")?;
        let at = self.number(AT_DIGITS)?;
        self.literal(b"; by=")?;
        self.token(by)?;
        // It has too few digits for anything else.
        Ok(Places { limit: u32::try_from(limit).map_err(|_| Front::Other)?, at })
    }

    fn literal(&mut self, literal: &[u8]) -> Result<(), Front> {
        match self.0.strip_prefix(literal) {
            Some(rest) => self.0 = rest,
            None if literal.starts_with(self.0) => return Err(Front::Partial),
            None => return Err(Front::Other),
        }
        Ok(())
    }

    /// A decimal number without sign and leading zeros.
    fn number(&mut self, most: usize) -> Result<u64, Front> {
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at(count);
        let has_zeros = count > 1 && digits[0] == b'0';
        if count > most || has_zeros || (count == 0 && !rest.is_empty()) {
            return Err(Front::Other);
        }
        if rest.is_empty() {
            return Err(Front::Partial);
        }
        self.0 = rest;
        Ok(digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
    }

    fn token(&mut self, by: &BackendToken) -> Result<(), Front> {
        let digits = &self.0[..self.0.len().min(BackendToken::DIGITS)];
        if !digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Front::Other);
        }
        if digits.len() < BackendToken::DIGITS {
            return Err(Front::Partial);
        }
        let is_it = BackendToken::parse(digits).is_some_and(|token| token.is_same(by));
        self.0 = &self.0[BackendToken::DIGITS..];
        if is_it { Ok(()) } else { Err(Front::Other) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Limits, response};

    const DIGITS: &str = "0123456789abcdef0123456789abcdef";

    fn token() -> BackendToken {
        BackendToken::parse(DIGITS.as_bytes()).unwrap()
    }

    fn bytes(value: &str) -> Vec<u8> {
        format!("HTTP/1.1 102 Processing\r\nCloudbridge-Places: {value}\r\n\r\n").into_bytes()
    }

    #[test]
    fn a_message_is_read_at_every_split() {
        let longest = (999_999_999, 9_999_999_999_999_999_999);
        for (limit, at) in [(3, 17), (0, 0), (10, 1), longest] {
            let bytes = bytes(&format!("{limit}; at={at}; by={DIGITS}"));
            for end in 0..bytes.len() {
                assert_eq!(message(&bytes[..end], &token()), Front::Partial, "at {end}");
            }
            let whole = Front::Message { places: Places { limit, at }, len: bytes.len() };
            assert_eq!(message(&bytes, &token()), whole);
            let more = [&bytes[..], b"HTTP/1.1 102 "].concat();
            assert_eq!(message(&more, &token()), whole);
        }
    }

    #[test]
    fn only_the_one_form_is_a_message() {
        let good = String::from_utf8(bytes(&format!("3; at=17; by={DIGITS}"))).unwrap();
        for (from, to) in [
            ("HTTP/1.1", "HTTP/1.0"),
            ("102", "103"),
            ("Processing", "processing"),
            ("Places", "places"),
            (": 3", ":3"),
            (": 3", ":  3"),
            (": 3", ": 03"),
            (": 3", ": -3"),
            (": 3", ": "),
            (": 3", ": 1000000000"),
            ("; at", ";at"),
            ("at=17", "at="),
            ("at=17", "at=017"),
            ("at=17", "at=10000000000000000000"),
            ("at=17", "at=+1"),
            ("by=0", "by=1"),
            ("ef\r", "EF\r"),
            ("ef\r", "e\r"),
            ("ef\r", "ef0\r"),
            ("\r\n\r\n", "\r\nX: y\r\n\r\n"),
            ("\r\n", "\n"),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good);
            assert_eq!(message(bad.as_bytes(), &token()), Front::Other, "{bad:?}");
            // It is known to be none once the first wrong byte has come.
            let wrong =
                (0..=bad.len()).find(|end| !good.as_bytes().starts_with(&bad.as_bytes()[..*end]));
            let early = (0..wrong.unwrap())
                .all(|end| message(&bad.as_bytes()[..end], &token()) == Front::Partial);
            assert!(early, "{bad:?}");
        }
    }

    #[test]
    fn a_forged_message_is_none() {
        let forged = bytes("3; at=17; by=ffffffffffffffffffffffffffffffff");
        assert_eq!(message(&forged, &token()), Front::Other);
    }

    #[track_caller]
    fn is_given_back(text: &str) -> Option<Places> {
        let limits = Limits { head: 8 * 1024, fields: 32, target: 0, behind_proxy: false };
        let mut storage = response::storage();
        let response = response::parse(text.as_bytes(), &mut storage, &limits, false);
        given_back(&response.unwrap().expect("a whole head"), &token())
    }

    #[test]
    fn a_request_is_given_back_by_a_503_with_both_fields_and_no_body() {
        let good = format!(
            "HTTP/1.1 503 Service Unavailable\r\nCloudbridge-Undelivered: places\r\n\
             Cloudbridge-Places: 2; at=18; by={DIGITS}\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(is_given_back(&good), Some(Places { limit: 2, at: 18 }));
        for (from, to) in [
            ("503", "502"),
            ("places\r", "application\r"),
            ("Undelivered", "Other"),
            ("Cloudbridge-Places", "Places"),
            ("; by=0", "; by=1"),
            ("2; at", "2, at"),
            ("ef\r", "ef;\r"),
            ("Content-Length: 0", "Content-Length: 1"),
            ("Content-Length: 0", "Transfer-Encoding: chunked"),
            ("Content-Length: 0", "X: y"),
            ("Content-", "Cloudbridge-Undelivered: places\r\nContent-"),
            ("Content-", "Cloudbridge-Places: 2\r\nContent-"),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good);
            assert_eq!(is_given_back(&bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_answer_that_may_give_back_is_known_by_its_status() {
        let head = "HTTP/1.1 503 Service Unavailable\r\n";
        assert!((0..=head.len()).all(|end| may_give_back(&head.as_bytes()[..end])));
        for other in ["HTTP/1.1 100 Continue", "HTTP/1.1 504 ", "HTTP/1.0 503 ", "X"] {
            assert!(!may_give_back(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn what_a_backend_says_is_what_a_proxy_reads() {
        for places in [Places { limit: 0, at: 1 }, Places { limit: 3, at: u64::MAX / 2 }] {
            let mut bytes = Vec::new();
            write(&mut bytes, places, &token());
            assert_eq!(message(&bytes, &token()), Front::Message { places, len: bytes.len() });
            bytes.clear();
            give_back(&mut bytes, places, &token());
            assert_eq!(is_given_back(std::str::from_utf8(&bytes).unwrap()), Some(places));
        }
    }

    #[test]
    fn what_a_proxy_says_of_its_requests_is_read() {
        let waited = |millis| Some(Duration::from_millis(millis));
        for (value, expected) in [
            ("12; at=5", Some(Waiting { waited: waited(12), at: 5 })),
            ("0; at=9999999999999999999", Some(Waiting { waited: waited(0), at: AT })),
            ("none; at=6", Some(Waiting { waited: None, at: 6 })),
            ("none", None),
            ("None; at=6", None),
            ("12; at=", None),
            ("12; at=+5", None),
            ("12; at=5 ", None),
            ("12; at=10000000000000000000", None),
            ("12;at=5", None),
            ("-1; at=5", None),
            ("012; at=5", None),
            ("", None),
        ] {
            assert_eq!(Waiting::parse(value.as_bytes()), expected, "{value}");
        }
        const AT: u64 = 9_999_999_999_999_999_999;
    }

    #[test]
    fn a_request_is_held_unless_the_proxy_says_no() {
        for (name, value, held) in [
            ("Cloudbridge-Held", "no", false),
            ("cloudbridge-held", "no", false),
            ("Cloudbridge-Held", "yes", true),
            ("Held", "no", true),
        ] {
            let fields = [Header { name, value: value.as_bytes() }];
            assert_eq!(is_held(&fields), held, "{name}: {value}");
        }
        assert!(is_held(&[]));
    }

    #[test]
    fn the_wait_is_told_in_milliseconds() {
        let mut out = Vec::new();
        waiting(&mut out, Some(Duration::from_micros(12_999)), 5);
        waiting(&mut out, None, 6);
        let text = "HTTP/1.1 100 Continue\r\nCloudbridge-Waiting: 12; at=5\r\n\r\n\
                    HTTP/1.1 100 Continue\r\nCloudbridge-Waiting: none; at=6\r\n\r\n";
        assert_eq!(std::str::from_utf8(&out).unwrap(), text);
    }
}
