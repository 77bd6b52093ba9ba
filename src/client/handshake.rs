//! One connection to the proxy, from the BRIDGE request to the 101 or the refusal.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::Refused;
use crate::bridge::answer::{self, Answer};
use crate::bridge::extensions::Extensions;
use crate::bridge::request::CONTINUE;

/// How long the body of a refusal may take, and how long the proxy may take to read what we send:
/// the one is at most a packet, the other fits any socket buffer.
const PROMPT: Duration = Duration::from_secs(5);

/// What became of a bridge.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The next bytes on the connection are a request, which must be acknowledged first.
    Matched,
    /// 504 to a bridge that had been accepted: dial again at once.
    DialAgain,
    Refused(Refused),
    /// What answered is not a proxy: one sentence.
    NotHttp(String),
}

/// Registers the bridge and waits, without a deadline, for the outcome. `parked` is called at each
/// interim answer with the extensions that it names.
///
/// # Errors
///
/// The connection is gone, or nothing has come over it for `silence`.
pub(super) fn run(
    mut stream: &TcpStream,
    request: &[u8],
    silence: Duration,
    parked: impl Fn(Extensions),
) -> io::Result<Outcome> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(PROMPT))?;
    stream.set_read_timeout(Some(silence))?;
    stream.write_all(request)?;
    let mut accepted = false;
    loop {
        match next_answer(stream) {
            Ok(Answer::Interim { extensions, .. }) => {
                accepted = true;
                parked(extensions);
            }
            Ok(Answer::Switch { .. }) => {
                parked(Extensions::default());
                return Ok(Outcome::Matched);
            }
            Ok(Answer::Final { status: 504, .. }) if accepted => return Ok(Outcome::DialAgain),
            Ok(Answer::Final { status: 504, .. }) => {
                return Err(io::Error::other("the proxy answered 504 at once"));
            }
            Ok(Answer::Final { status, reason, retry_after, .. }) => {
                return Ok(Outcome::Refused(Refused { status, reason, retry_after }));
            }
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                return Ok(Outcome::NotHttp(error.to_string()));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Tells the proxy that we are here, and hands the connection over to its user.
///
/// # Errors
///
/// The connection is gone; the proxy then sends the request elsewhere.
pub(super) fn acknowledge(mut stream: &TcpStream) -> io::Result<()> {
    stream.write_all(CONTINUE)?;
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)
}

/// Reads one answer. It peeks before it reads, because the bytes after a 101 are the request and
/// belong to the stream's user.
///
/// # Errors
///
/// `InvalidData` if it is not HTTP; otherwise the connection has ended, or timed out.
pub(super) fn next_answer(mut stream: &TcpStream) -> io::Result<Answer> {
    let mut bytes = Vec::new();
    let mut scratch = [0; 1024];
    let mut refusal = None;
    loop {
        let seen = match stream.peek(&mut scratch) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Ok(seen) if seen > 0 => seen,
            // The status is enough; an explanation that does not come can be missed.
            ended => return refusal.ok_or_else(|| end_of(ended)),
        };
        let before = bytes.len();
        bytes.extend_from_slice(&scratch[..seen]);
        let answer = answer::parse(&bytes).map_err(|error| {
            let text = format!("the answer to BRIDGE is not HTTP: {error}");
            io::Error::new(ErrorKind::InvalidData, text)
        })?;
        let taken = match &answer {
            Some(Answer::Interim { len, .. } | Answer::Switch { len }) => len - before,
            _ => seen,
        };
        // These bytes are there, so this does not block.
        stream.read_exact(&mut scratch[..taken])?;
        match answer {
            None => {}
            Some(Answer::Final { complete: false, .. }) => {
                stream.set_read_timeout(Some(PROMPT))?;
                refusal = answer;
            }
            Some(answer) => return Ok(answer),
        }
    }
}

/// Why there is nothing more to read.
fn end_of(result: io::Result<usize>) -> io::Error {
    match result {
        Ok(_) => io::Error::new(ErrorKind::UnexpectedEof, "the proxy closed the connection"),
        // A read timeout is `WouldBlock` on Linux and `TimedOut` elsewhere.
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            io::Error::new(ErrorKind::TimedOut, "the proxy has fallen silent")
        }
        Err(error) => error,
    }
}
