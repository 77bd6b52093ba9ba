//! One connection to the proxy, from the BRIDGE request to the 101 or the refusal.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use super::announce;
use super::connection::Connection;
use crate::bridge::answer::{self, Answer};
use crate::bridge::extensions::Extensions;
use crate::bridge::places::Waiting;
use crate::bridge::proof::{self, Nonce};
use crate::bridge::request::CONTINUE;

/// How long the body of a refusal may take, and how long the proxy may take to read what we send.
/// The body is one packet at most, and what we send fits any socket buffer.
const PROMPT: Duration = Duration::from_secs(5);

/// The proxy refused a bridge. [`accept`](super::BridgeListener::accept) returns it inside an
/// [`io::Error`], of kind `PermissionDenied` if the status is 401.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The HTTP status code, such as 401 for a host without a valid key, or 503 for too many
    /// bridges (`doc/protocol.md` has them all).
    pub status: u16,
    /// The proxy's explanation: one line of at most 256 bytes, printable. Behind it may be, in
    /// brackets, which option would help.
    pub reason: String,
    /// When to try again, if the proxy named a time.
    pub retry_after: Option<Duration>,
}

impl Refused {
    /// The refusal inside an error of [`accept`](super::BridgeListener::accept), if it is one.
    pub fn of(error: &io::Error) -> Option<&Refused> {
        error.get_ref()?.downcast_ref()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the proxy refused the bridge: {} {}", self.status, self.reason)
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> io::Error {
        let kind = match refused.status {
            401 => ErrorKind::PermissionDenied,
            _ => ErrorKind::Other,
        };
        io::Error::new(kind, refused)
    }
}

/// A BRIDGE request with its keys, and whether they may be sent.
pub(crate) struct Offer<'a> {
    /// It holds the keys, so it is never shown.
    pub request: &'a [u8],
    pub bearer_keys: bool,
    /// The option by which they may be, for its user.
    pub hint: &'a str,
}

/// How far the proof of the keys of one connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proving {
    /// There is none: keys are sent as they are, or have been proven.
    Nothing,
    /// The proxy has been sent this nonce, and the keys without their hashes.
    Asked(Nonce),
}

/// The answer to a proxy that asks twice for a proof, or unasked.
pub(crate) const ASKED_AGAIN: &str = "it asks again for a proof of the keys";

/// What is said of a proxy that refuses keys without their hashes. `hint` is the option by which they
/// are sent.
pub(crate) fn unasked(reason: &str, hint: &str) -> String {
    format!(
        "{reason} (it did not ask for a proof of the host keys; the original and old versions do not, \
         and {hint} sends them the keys as they are)"
    )
}

impl<'a> Offer<'a> {
    /// What is sent first.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn first(&self) -> io::Result<(Cow<'a, [u8]>, Proving)> {
        if self.bearer_keys || !proof::has_keys(self.request) {
            return Ok((self.request.into(), Proving::Nothing));
        }
        let own = announce::nonce()?;
        Ok((proof::ask(self.request, own).into(), Proving::Asked(own)))
    }

    /// What is sent after the proxy's nonce.
    ///
    /// # Errors
    /// A [`Refused`]: it was not asked for one.
    pub fn second(&self, proving: &mut Proving, challenge: Nonce) -> Result<Vec<u8>, Refused> {
        match std::mem::replace(proving, Proving::Nothing) {
            Proving::Asked(own) => {
                Ok(proof::answer(self.request, own, challenge, proof::PLAIN_TEXT))
            }
            Proving::Nothing => {
                Err(Refused { status: 401, reason: ASKED_AGAIN.to_owned(), retry_after: None })
            }
        }
    }
}

/// Registers the bridge and waits, without a deadline, until it is matched. False if the proxy asks
/// for a new connection (504 to an accepted bridge). `accepted` is called at each interim answer with
/// the extensions that it names, and with what it says of the requests that wait.
///
/// # Errors
///
/// A [`Refused`]; `InvalidData` for an answer that is not HTTP; the connection is gone, or nothing
/// has come over it for `silence`.
pub(crate) fn run(
    mut stream: &Connection,
    offer: &Offer<'_>,
    silence: Duration,
    accepted: impl Fn(Extensions, Option<Waiting>),
) -> io::Result<bool> {
    stream.tcp().set_nodelay(true)?;
    stream.tcp().set_write_timeout(Some(PROMPT))?;
    stream.tcp().set_read_timeout(Some(silence))?;
    let (first, mut proving) = offer.first()?;
    stream.write_all(&first)?;
    let mut is_parked = false;
    loop {
        match next_answer(stream)? {
            Answer::Interim { extensions, waiting, .. } => {
                is_parked = true;
                proving = Proving::Nothing;
                accepted(extensions, waiting);
            }
            Answer::Switch { .. } => {
                accepted(Extensions::default(), None);
                return Ok(true);
            }
            Answer::Final { status: 504, .. } if is_parked => return Ok(false),
            Answer::Final { status: 504, .. } => {
                return Err(io::Error::other("the proxy answered 504 at once"));
            }
            Answer::Challenge { nonce, .. } => {
                stream.write_all(&offer.second(&mut proving, nonce)?)?;
            }
            Answer::Final { status: status @ (400 | 401), reason, retry_after, .. }
                if matches!(proving, Proving::Asked(_)) =>
            {
                let reason = unasked(&reason, offer.hint);
                return Err(Refused { status, reason, retry_after }.into());
            }
            Answer::Final { status, reason, retry_after, .. } => {
                return Err(Refused { status, reason, retry_after }.into());
            }
        }
    }
}

/// Acknowledges a match.
///
/// # Errors
///
/// The connection is gone; the proxy then sends the request elsewhere.
pub(super) fn acknowledge(mut stream: &Connection) -> io::Result<()> {
    stream.write_all(CONTINUE)
}

/// Reads one answer. It peeks before it reads, because the bytes after a 101 are the request and
/// belong to the stream's user.
///
/// # Errors
///
/// `InvalidData` if it is not HTTP; otherwise the connection has ended, or timed out.
pub(super) fn next_answer(mut stream: &Connection) -> io::Result<Answer> {
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
            Some(
                Answer::Interim { len, .. }
                | Answer::Switch { len }
                | Answer::Challenge { len, .. },
            ) => len - before,
            _ => seen,
        };
        // These bytes are there, so this does not block.
        stream.read_exact(&mut scratch[..taken])?;
        match answer {
            None => {}
            Some(Answer::Final { complete: false, .. }) => {
                stream.tcp().set_read_timeout(Some(PROMPT))?;
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
