//! What a backend with several proxies tells them of its places, and what they tell it of the
//! requests that wait for one (`doc/protocol.md`, "Places").

use std::io::Write;
use std::time::Duration;

use super::extensions::BackendToken;

/// The field in which a proxy says how long its oldest request waits.
pub const WAITING: &str = "Cloudbridge-Waiting";

/// The field by which a proxy says that it does not hold a request any more, so that it cannot be
/// given back. The value is `no`.
pub const HELD: &str = "Cloudbridge-Held";

/// Most digits of a number: 64 bits.
const MAX_DIGITS: usize = 19;

/// What a proxy says of the requests that wait there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// How long the oldest has waited; `None` if none waits.
    pub waited: Option<Duration>,
    /// Grows with each message of this proxy.
    pub at: u64,
}

impl Waiting {
    /// Reads the value of a [`WAITING`] field.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Waiting> {
        let (waited, at) = str::from_utf8(value).ok()?.split_once("; at=")?;
        let waited = match waited {
            "none" => None,
            digits => Some(Duration::from_millis(number(digits)?)),
        };
        Some(Waiting { waited, at: number(at)? })
    }
}

fn number(digits: &str) -> Option<u64> {
    let is_number = digits.len() <= MAX_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}

/// What a backend tells a proxy: how many of its bridges may have a request at once, those that have
/// one included.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// How many.
    pub limit: usize,
    /// Grows with each message to this proxy.
    pub at: u64,
    /// Shows that the backend says it.
    pub by: BackendToken,
}

impl Limit {
    /// Appends the message.
    pub fn tell(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 102 Processing\r\n");
        self.field(out);
        out.extend_from_slice(b"\r\n");
    }

    /// Appends the answer by which a request, or a 101, is given back.
    pub fn give_back(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"HTTP/1.1 503 Service Unavailable\r\nCloudbridge-Undelivered: places\r\n",
        );
        self.field(out);
        out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    }

    fn field(&self, out: &mut Vec<u8>) {
        let Limit { limit, at, by } = self;
        // Writing to a Vec cannot fail.
        let _ = write!(out, "Cloudbridge-Places: {limit}; at={at}; by={}\r\n", by.digits());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_number_or_none_and_its_own_number() {
        let waiting = |waited: Option<u64>, at| {
            Some(Waiting { waited: waited.map(Duration::from_millis), at })
        };
        for (value, read) in [
            ("12; at=5", waiting(Some(12), 5)),
            ("0; at=0", waiting(Some(0), 0)),
            ("none; at=9999999999999999999", waiting(None, 9_999_999_999_999_999_999)),
            ("none", None),
            ("12", None),
            ("; at=5", None),
            ("12; at=", None),
            ("+12; at=5", None),
            ("12; at=-5", None),
            ("12; at=5 ", None),
            ("12; at=5; x", None),
            ("12;at=5", None),
            ("12; at=00000000000000000005", None),
        ] {
            assert_eq!(Waiting::parse(value.as_bytes()), read, "{value}");
        }
    }

    #[test]
    fn a_limit_is_written_in_its_one_form() {
        let by = BackendToken::parse(b"0123456789abcdef0123456789abcdef").unwrap();
        let mut out = Vec::new();
        Limit { limit: 3, at: 17, by }.tell(&mut out);
        Limit { limit: 0, at: 18, by }.give_back(&mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 102 Processing\r\n\
             Cloudbridge-Places: 3; at=17; by=0123456789abcdef0123456789abcdef\r\n\r\n\
             HTTP/1.1 503 Service Unavailable\r\nCloudbridge-Undelivered: places\r\n\
             Cloudbridge-Places: 0; at=18; by=0123456789abcdef0123456789abcdef\r\n\
             Content-Length: 0\r\n\r\n"
        );
    }
}
