//! One connection to the proxy, from the BRIDGE request to the 101 or the refusal.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use httparse::{EMPTY_HEADER, Header, Status};

use super::Refused;
use crate::bridge::extensions::{EXTENSIONS, Extensions};
use crate::bridge::request::CONTINUE;

/// Most bytes of the head of one answer. A proxy's own are a few dozen.
const MAX_HEAD: usize = 8 * 1024;

/// Most fields in the head of one answer.
const MAX_FIELDS: usize = 32;

/// Most bytes of a refusal's body that are read. Its first line is all that is wanted.
const MAX_BODY: usize = 1024;

/// Most bytes of a refusal's first line that are kept.
const MAX_REASON: usize = 256;

/// How long the body of a refusal may take, and how long the proxy may take to read what we send:
/// the one is at most a packet, the other fits any socket buffer.
const PROMPT: Duration = Duration::from_secs(5);

/// What became of a bridge.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The next bytes on the connection are a request, and the proxy is to be told that we are here.
    Matched,
    /// 504 to a bridge that had been accepted: it is to dial again, with no blame on either side.
    DialAgain,
    /// Any other answer that is final.
    Refused(Refused),
    /// Something that is no proxy answered. One line of explanation.
    NotHttp(String),
}

/// Offers the bridge and waits, with no bound on the time, until something comes of it. `parked` is
/// called when the proxy has accepted the bridge, with what it has said that it knows.
///
/// # Errors
///
/// The connection is gone, or nothing has come over it for `silence`.
pub(super) fn run(
    stream: &TcpStream,
    request: &[u8],
    silence: Duration,
    parked: impl Fn(Extensions),
) -> io::Result<Outcome> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(PROMPT))?;
    stream.set_read_timeout(Some(silence))?;
    let mut writer = stream;
    writer.write_all(request)?;
    let mut accepted = false;
    loop {
        let answer = match next_answer(stream)? {
            Ok(answer) => answer,
            Err(what) => return Ok(Outcome::NotHttp(what)),
        };
        match answer.status {
            101 => {
                parked(answer.known);
                return Ok(Outcome::Matched);
            }
            // 100 is the acceptance and the ping; other interim answers say nothing to us, and are
            // passed over as by any client (RFC 9110 section 15.2).
            100..=199 => {
                accepted = true;
                parked(answer.known);
            }
            504 if accepted => return Ok(Outcome::DialAgain),
            504 => return Err(io::Error::other("the proxy answered 504 at once")),
            _ => return Ok(Outcome::Refused(refused(stream, answer))),
        }
    }
}

/// Tells the proxy that we are here, and leaves the connection to its user.
///
/// # Errors
///
/// The connection is gone; then the request goes elsewhere.
pub(super) fn acknowledge(mut stream: &TcpStream) -> io::Result<()> {
    stream.write_all(CONTINUE)?;
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)
}

/// The status of the answer that comes next.
///
/// # Errors
///
/// There is none, or it is no HTTP.
pub(super) fn status(stream: &TcpStream) -> io::Result<u16> {
    let answer = next_answer(stream)?;
    answer.map(|answer| answer.status).map_err(|what| io::Error::new(ErrorKind::InvalidData, what))
}

/// The head of one answer.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    /// Bytes of it, blank line included.
    len: usize,
    status: u16,
    phrase: String,
    /// Content-Length, if there is a sound one.
    body: Option<usize>,
    /// Retry-After, if it is a number of seconds.
    retry_after: Option<u64>,
    /// What the proxy says that it knows.
    known: Extensions,
}

/// Reads one head and not a byte more, by looking before taking: what follows a 101 is the request,
/// and belongs to whoever gets the stream. The inner error says why it is no HTTP.
fn next_answer(stream: &TcpStream) -> io::Result<Result<Answer, String>> {
    let mut head = Vec::new();
    let mut scratch = [0; 1024];
    loop {
        let seen = match stream.peek(&mut scratch) {
            Ok(0) => return Err(closed()),
            Ok(seen) => seen,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if timed_out(&error) => return Err(silent()),
            Err(error) => return Err(error),
        };
        let before = head.len();
        head.extend_from_slice(&scratch[..seen]);
        let parsed = parse(&head);
        let take = match &parsed {
            Ok(Some(answer)) => answer.len - before,
            _ => seen,
        };
        // These bytes are there: this does not wait.
        let mut reader = stream;
        reader.read_exact(&mut scratch[..take])?;
        match parsed {
            Ok(Some(answer)) => return Ok(Ok(answer)),
            Ok(None) if head.len() < MAX_HEAD => {}
            Ok(None) => return Ok(Err("the answer's head has no end".to_owned())),
            Err(error) => {
                return Ok(Err(format!("the answer to BRIDGE is no HTTP: {error}")));
            }
        }
    }
}

fn closed() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "the proxy closed the connection")
}

fn silent() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "the proxy has fallen silent")
}

/// A read timeout is `WouldBlock` on Linux and `TimedOut` elsewhere.
fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// The head at the front of `bytes`; `Ok(None)` while its end is not there.
fn parse(bytes: &[u8]) -> Result<Option<Answer>, httparse::Error> {
    let mut fields = [EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let Status::Complete(len) = response.parse(bytes)? else {
        return Ok(None);
    };
    let value = |name: &str| -> Option<&[u8]> {
        let mut fields = response.headers.iter();
        let field = fields.find(|field: &&Header<'_>| field.name.eq_ignore_ascii_case(name))?;
        Some(field.value)
    };
    let number = |name| -> Option<u64> { std::str::from_utf8(value(name)?).ok()?.parse().ok() };
    Ok(Some(Answer {
        len,
        status: response.code.unwrap_or_default(),
        phrase: response.reason.unwrap_or_default().to_owned(),
        body: number("Content-Length").and_then(|length| usize::try_from(length).ok()),
        retry_after: number("Retry-After"),
        known: value(EXTENSIONS).map_or(Extensions::default(), Extensions::parse),
    }))
}

/// Puts a refusal together from its head and whatever of its body comes promptly.
fn refused(stream: &TcpStream, answer: Answer) -> Refused {
    let length = answer.body.unwrap_or(MAX_BODY).min(MAX_BODY) as u64;
    let mut body = Vec::new();
    // The status is the message; an explanation that does not come is done without.
    if stream.set_read_timeout(Some(PROMPT)).is_ok() {
        let _ = stream.take(length).read_to_end(&mut body);
    }
    let line = body.split(|&b| b == b'\n').next().unwrap_or_default();
    let mut reason = visible(line);
    if reason.is_empty() {
        reason = visible(answer.phrase.as_bytes());
    }
    Refused {
        status: answer.status,
        reason,
        retry_after: answer.retry_after.map(Duration::from_secs),
    }
}

/// Text that is safe to print: no control characters, and not much of it.
pub(crate) fn visible(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(&line[..line.len().min(MAX_REASON)]);
    text.trim().chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::request::SWITCH;

    #[test]
    fn a_head_is_found_at_every_split() {
        for (head, status, phrase) in [
            (CONTINUE, 100, "Continue"),
            (SWITCH, 101, "Upgrade"),
            (b"HTTP/1.1 100\r\n\r\n", 100, ""),
        ] {
            let mut bytes = head.to_vec();
            bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
            for end in 0..bytes.len() {
                let expected = (end >= head.len()).then(|| Answer {
                    len: head.len(),
                    status,
                    phrase: phrase.to_owned(),
                    body: None,
                    retry_after: None,
                    known: Extensions::default(),
                });
                assert_eq!(parse(&bytes[..end]), Ok(expected), "at {end}");
            }
        }
    }

    #[test]
    fn numbers_of_a_refusal_are_read_if_they_are_numbers() {
        let head = b"HTTP/1.1 503 Busy\r\ncontent-length: 7\r\nRETRY-AFTER: 2\r\n\r\n";
        let answer = parse(head).unwrap().expect("whole");
        assert_eq!((answer.body, answer.retry_after), (Some(7), Some(2)));
        let head = b"HTTP/1.1 503 Busy\r\nContent-Length: x\r\nRetry-After: Fri\r\n\r\n";
        let answer = parse(head).unwrap().expect("whole");
        assert_eq!((answer.body, answer.retry_after), (None, None));
    }

    #[test]
    fn what_is_no_http_is_known_early() {
        assert!(parse(b"SSH-2.0-x").is_err());
        assert!(parse(b"\x16\x03\x01").is_err());
    }

    #[test]
    fn printed_text_is_one_short_line() {
        assert_eq!(visible(b" no key\x1b[2J\r"), "no key?[2J");
        assert_eq!(visible(&[b'x'; 1000]).len(), MAX_REASON);
        assert_eq!(visible(b"\xff"), "\u{fffd}");
    }
}
