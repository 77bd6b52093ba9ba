//! One connection of a load: sends a request, reads the response, and says when it has ended.

use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;

use httparse::{ParserConfig, Status};

use crate::output::Flushed;
use crate::request::{Body, Chunk};
use crate::wire::Wire;

/// Fields a response's head may have.
const FIELDS: usize = 48;

/// What the connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No request is under way.
    Idle,
    /// The head of the response is still to come.
    Head,
    /// In its body.
    Body { body: Body, end: End },
}

/// What to make of a response once it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The status was 200.
    pub good: bool,
    /// The connection takes no further request.
    pub close: bool,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Its response has not ended; an edge will come.
    Wait,
    /// Its response has ended.
    Done(End),
}

/// A connection that carries one request at a time.
#[derive(Debug)]
pub struct Client {
    /// The socket. Requests are put into its output before [`Client::begin`].
    pub wire: Wire,
    /// Bytes of content received so far, of all responses.
    pub content: u64,
    state: State,
    /// A head that has come in part.
    input: Vec<u8>,
}

impl Client {
    /// A connection without a request.
    pub fn new(wire: Wire) -> Client {
        Client { wire, content: 0, state: State::Idle, input: Vec::new() }
    }

    /// Whether no request is under way.
    pub fn idle(&self) -> bool {
        self.state == State::Idle
    }

    /// A request has been put into the output: send it and wait for its response.
    pub fn begin(&mut self, scratch: &mut [u8]) -> io::Result<Progress> {
        self.state = State::Head;
        self.advance(scratch)
    }

    /// Does all that can be done now. Any error is the end of the connection; without a request
    /// under way, so is any byte.
    pub fn advance(&mut self, scratch: &mut [u8]) -> io::Result<Progress> {
        // A response may come before the request is out, so a blocked write does not keep us from
        // reading.
        let _: Flushed = self.wire.flush()?;
        loop {
            let Some(got) = self.wire.read(scratch)? else {
                return Ok(Progress::Wait);
            };
            if let Progress::Done(end) = self.feed(&scratch[..got])? {
                self.state = State::Idle;
                return Ok(Progress::Done(end));
            }
        }
    }

    fn feed(&mut self, bytes: &[u8]) -> io::Result<Progress> {
        if self.input.is_empty() {
            let used = self.parse(bytes)?;
            self.input.extend_from_slice(&bytes[used..]);
        } else {
            self.input.extend_from_slice(bytes);
            let input = std::mem::take(&mut self.input);
            let used = self.parse(&input)?;
            self.input.extend_from_slice(&input[used..]);
        }
        match self.state {
            State::Body { body, end } if body.ended() => Ok(Progress::Done(end)),
            _ => Ok(Progress::Wait),
        }
    }

    /// Uses what it can of `bytes`, which are not of more than one response; returns how many.
    fn parse(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let malformed = || io::Error::from(ErrorKind::InvalidData);
        let mut used = 0;
        while self.state == State::Head {
            let Some((len, state)) = head(&bytes[used..]).ok_or_else(malformed)? else {
                return Ok(used);
            };
            self.state = state;
            used += len;
        }
        let State::Body { body, .. } = &mut self.state else {
            return Err(malformed());
        };
        let skipped = body.skip(&bytes[used..]).ok_or_else(malformed)?;
        used += skipped.consumed;
        self.content += skipped.content;
        if body.ended() && used < bytes.len() {
            return Err(malformed());
        }
        Ok(used)
    }
}

/// Reads a head: `None` if it is malformed, `Some(None)` if it is not whole yet. After an interim
/// one another follows.
fn head(bytes: &[u8]) -> Option<Option<(usize, State)>> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let config = ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut response, bytes, &mut fields);
    let Status::Complete(len) = parsed.ok()? else {
        return Some(None);
    };
    let status = response.code?;
    if (100..200).contains(&status) {
        return Some(Some((len, State::Head)));
    }
    let mut body = None;
    let mut close = response.version == Some(0);
    for field in response.headers.iter() {
        let name = field.name;
        if name.eq_ignore_ascii_case("content-length") {
            body = Some(Body::Length(str::from_utf8(field.value).ok()?.parse().ok()?));
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            body = Some(Body::Chunked(Chunk::START));
        } else if name.eq_ignore_ascii_case("connection") {
            close |= field.value.eq_ignore_ascii_case(b"close");
        }
    }
    let end = End { good: status == 200, close };
    // A body that lasts until the connection's end would be cut off unseen; no system here should
    // send one.
    Some(Some((len, State::Body { body: body?, end })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interim_response_is_followed_by_another_head() {
        let bytes = b"HTTP/1.1 100 Continue\r\n\r\n";
        assert_eq!(head(bytes), Some(Some((bytes.len(), State::Head))));
    }

    #[test]
    fn a_head_tells_the_framing_and_whether_the_connection_goes_on() {
        let bytes = b"HTTP/1.1 503 x\r\nConnection: close\r\nContent-Length: 7\r\n\r\n";
        let end = End { good: false, close: true };
        let body = Body::Length(7);
        assert_eq!(head(bytes), Some(Some((bytes.len(), State::Body { body, end }))));
        for cut in 0..bytes.len() {
            assert_eq!(head(&bytes[..cut]), Some(None), "cut {cut}");
        }
    }

    #[test]
    fn a_response_without_framing_is_not_measured() {
        assert_eq!(head(b"HTTP/1.1 200 OK\r\n\r\n"), None);
    }
}
