//! The bytes between a proxy and a program that shares its places, read so far that requests,
//! responses and messages can be told apart. Pure: nothing here has a socket.

use std::io;

use crate::bridge::answer::{self, Answer};
use crate::bridge::places::{Waiting, is_held};
use crate::http::{Decoder, Framing, Limits, ParseError, request, response};

/// The heads of both sides: more than any setting of a proxy allows.
const LIMITS: Limits =
    Limits { head: 1024 * 1024, fields: 128, target: 1024 * 1024, behind_proxy: true };

/// How everything begins that a proxy says and that is no request.
const OF_PROXY: &[u8] = b"HTTP/1.";

/// The fields that are between the proxy and the library alone.
const RESERVED: &[u8] = b"cloudbridge-";

/// How far a body is.
#[derive(Clone, Copy, Debug)]
enum Body {
    /// So many bytes are to come.
    Length(u64),
    Chunked(Decoder),
    /// Everything up to the end of the connection.
    Endless,
}

impl Body {
    /// `None` if there is no body.
    fn of(framing: Framing) -> Option<Body> {
        match framing {
            Framing::None | Framing::Length(0) => None,
            Framing::Length(length) => Some(Body::Length(length)),
            Framing::Chunked => Some(Body::Chunked(Decoder::new())),
            Framing::UntilClose => Some(Body::Endless),
        }
    }

    /// How many of these bytes, which pass now, belong to it, and whether they complete it.
    fn pass(&mut self, bytes: &[u8]) -> Result<(usize, bool), ParseError> {
        match self {
            Body::Length(left) => {
                let count =
                    usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= count as u64;
                Ok((count, *left == 0))
            }
            Body::Chunked(decoder) => decoder.scan(bytes),
            Body::Endless => Ok((bytes.len(), false)),
        }
    }
}

/// Copies a head without the fields that are not for the other side.
fn without_reserved(head: &[u8], out: &mut Vec<u8>) {
    for line in head.split_inclusive(|b| *b == b'\n') {
        let is_reserved =
            line.get(..RESERVED.len()).is_some_and(|name| name.eq_ignore_ascii_case(RESERVED));
        if !is_reserved {
            out.extend_from_slice(line);
        }
    }
}

fn malformed(error: ParseError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// What the proxy sends over one bridge after its first 101.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// Bytes that have not been looked at.
    held: Vec<u8>,
    /// What the program gets next, from `taken` on.
    ready: Vec<u8>,
    taken: usize,
    body: Option<Body>,
    /// The body is of a request that was given back.
    drops: bool,
}

/// What is at the front.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// More bytes are needed.
    Nothing,
    /// There are bytes for the program.
    Bytes,
    /// Something about the requests that wait at the proxy; or a ping.
    Spoken(Option<Waiting>),
    /// A 101.
    Switch,
    /// A request, which [`Requests::admit`] or [`Requests::give_back`] must follow.
    Request {
        /// The proxy holds it, so that it can be given back.
        is_held: bool,
    },
    /// The proxy wants a new connection.
    Ended,
}

impl Requests {
    /// More bytes of the proxy.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Looks at what is there. `is_tunnel`: all of it is for the program.
    ///
    /// # Errors
    ///
    /// The bytes are no HTTP.
    pub fn next(&mut self, is_tunnel: bool) -> io::Result<Came> {
        if self.has_bytes() {
            return Ok(Came::Bytes);
        }
        if self.held.is_empty() {
            // An idle bridge keeps no storage.
            self.held = Vec::new();
            return Ok(Came::Nothing);
        }
        if is_tunnel {
            self.ready = std::mem::take(&mut self.held);
            return Ok(Came::Bytes);
        }
        let Some(body) = &mut self.body else { return self.between() };
        let (count, is_over) = body.pass(&self.held).map_err(malformed)?;
        let rest = self.held.split_off(count);
        let bytes = std::mem::replace(&mut self.held, rest);
        let drops = self.drops;
        if is_over {
            (self.body, self.drops) = (None, false);
        }
        if drops {
            return self.next(is_tunnel);
        }
        self.ready = bytes;
        Ok(Came::Bytes)
    }

    /// What comes between two requests.
    fn between(&mut self) -> io::Result<Came> {
        let seen = self.held.len().min(OF_PROXY.len());
        if self.held[..seen] == OF_PROXY[..seen] {
            let Some(answer) = answer::parse(&self.held).map_err(malformed)? else {
                return Ok(Came::Nothing);
            };
            let (len, came) = match answer {
                Answer::Interim { len, waiting, .. } => (len, Came::Spoken(waiting)),
                Answer::Switch { len } => (len, Came::Switch),
                Answer::Challenge { len, .. } => (len, Came::Ended),
                Answer::Final { .. } => (self.held.len(), Came::Ended),
            };
            self.held.drain(..len);
            return Ok(came);
        }
        let mut storage = request::storage();
        let head = request::parse(&self.held, &mut storage, &LIMITS).map_err(malformed)?;
        Ok(head.map_or(Came::Nothing, |head| Came::Request { is_held: is_held(head.fields) }))
    }

    /// The program gets the request that has come. Returns whether it is a HEAD.
    pub fn admit(&mut self) -> bool {
        self.begin(false)
    }

    /// The program does not get the request that has come: the rest of it is dropped.
    pub fn give_back(&mut self) {
        self.begin(true);
    }

    fn begin(&mut self, drops: bool) -> bool {
        let mut storage = request::storage();
        // It was parsed a moment ago.
        let Ok(Some(head)) = request::parse(&self.held, &mut storage, &LIMITS) else {
            return false;
        };
        let (len, is_head) = (head.len, head.is_head());
        self.body = Body::of(head.framing);
        self.drops = drops && self.body.is_some();
        if !drops {
            without_reserved(&self.held[..len], &mut self.ready);
        }
        self.held.drain(..len);
        is_head
    }

    /// Whether the body of the last request has not come to its end.
    pub fn is_in_body(&self) -> bool {
        self.body.is_some()
    }

    /// Whether the next bytes are for the program, whatever they are, so that they need not come by
    /// here: they are to be shown to [`Requests::pass`].
    pub fn is_open(&self) -> bool {
        self.body.is_some() && !self.drops && self.held.is_empty() && !self.has_bytes()
    }

    /// Takes note of bytes that have gone to the program. Returns how many of them were for it: the
    /// rest is held.
    pub fn pass(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(body) = &mut self.body else { return Ok(0) };
        let (count, is_over) = body.pass(bytes).map_err(malformed)?;
        if is_over {
            self.body = None;
        }
        self.feed(&bytes[count..]);
        Ok(count)
    }

    /// Whether there are bytes for the program.
    pub fn has_bytes(&self) -> bool {
        self.taken < self.ready.len()
    }

    /// Takes bytes for the program.
    pub fn take(&mut self, into: &mut [u8]) -> usize {
        let count = self.look(into);
        self.taken += count;
        if !self.has_bytes() {
            (self.ready, self.taken) = (Vec::new(), 0);
        }
        count
    }

    /// The same, but they can be taken again.
    pub fn look(&self, into: &mut [u8]) -> usize {
        let ready = &self.ready[self.taken..];
        let count = ready.len().min(into.len());
        into[..count].copy_from_slice(&ready[..count]);
        count
    }
}

/// What the program sends over the bridge.
#[derive(Debug, Default)]
pub(super) struct Responses {
    state: State,
    /// The beginning of a head.
    head: Vec<u8>,
    /// The request is a HEAD.
    to_head: bool,
    /// No other request follows.
    is_last: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// The next byte is of a head.
    #[default]
    Head,
    Body(Body),
    /// Everything is for the client.
    Tunnel,
}

impl Responses {
    /// The program gets a request.
    pub fn begin(&mut self, to_head: bool) {
        (self.to_head, self.is_last) = (to_head, false);
    }

    /// No other request follows the one that has been answered.
    pub fn end(&mut self) {
        self.is_last = true;
    }

    /// Whether a message of ours can go between the bytes of the program: no part of a final response
    /// has been sent without its end.
    pub fn is_between(&self) -> bool {
        matches!(self.state, State::Head) && self.head.is_empty() && !self.is_last
    }

    pub fn is_tunnel(&self) -> bool {
        matches!(self.state, State::Tunnel)
    }

    /// How many of these bytes are to be sent as they are. [`Responses::pass`] must be shown those that
    /// are.
    pub fn plain(&self, bytes: &[u8]) -> usize {
        match self.state {
            State::Head => 0,
            // What is no HTTP is refused by the proxy.
            State::Body(mut body) => body.pass(bytes).map_or(bytes.len(), |(count, _)| count),
            State::Tunnel => bytes.len(),
        }
    }

    /// Whether any number of bytes up to this can be sent as they are.
    pub fn is_plain(&self, bytes: usize) -> bool {
        match self.state {
            State::Head | State::Body(Body::Chunked(_)) => false,
            State::Body(Body::Length(left)) => bytes as u64 <= left,
            State::Body(Body::Endless) | State::Tunnel => true,
        }
    }

    /// Takes note of bytes that have been sent as they are. Returns whether the response is over.
    pub fn pass(&mut self, bytes: &[u8]) -> bool {
        let State::Body(body) = &mut self.state else { return false };
        match body.pass(bytes) {
            Ok((_, false)) => false,
            Ok((_, true)) => {
                self.state = State::Head;
                true
            }
            Err(_) => {
                (self.state, self.is_last) = (State::Body(Body::Endless), true);
                false
            }
        }
    }

    /// Takes bytes of a head, and appends the whole head to `out` once its end is among them. Returns how
    /// many it has taken, and whether the response is over.
    pub fn take_head(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> (usize, bool) {
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        let mut storage = response::storage();
        match response::parse(&self.head, &mut storage, &LIMITS, self.to_head) {
            Ok(None) => (bytes.len(), false),
            Ok(Some(head)) => {
                let (len, status) = (head.len, head.status);
                let (framing, is_last) = (head.framing, !head.persistent);
                without_reserved(&self.head[..len], out);
                self.head = Vec::new();
                (len - before, self.begin_body(status, framing, is_last))
            }
            Err(_) => {
                // The proxy refuses it, too.
                out.append(&mut self.head);
                (self.state, self.is_last) = (State::Body(Body::Endless), true);
                (bytes.len(), false)
            }
        }
    }

    /// Returns whether there is no body.
    fn begin_body(&mut self, status: u16, framing: Framing, is_last: bool) -> bool {
        match status {
            101 => self.state = State::Tunnel,
            100..=199 => {}
            _ => {
                self.is_last |= is_last;
                self.state = Body::of(framing).map_or(State::Head, State::Body);
                return matches!(self.state, State::Head);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// What has come, and what the program has got of it.
    #[derive(Default)]
    struct Seen {
        requests: Requests,
        came: Vec<Came>,
        program: Vec<u8>,
    }

    impl Seen {
        /// Looks at everything that can be read, and admits requests, or gives them back.
        fn look(&mut self, is_tunnel: bool, admits: bool) {
            loop {
                match self.requests.next(is_tunnel).unwrap() {
                    Came::Nothing => return,
                    Came::Bytes => {
                        let mut bytes = [0; 7];
                        let count = self.requests.take(&mut bytes);
                        self.program.extend_from_slice(&bytes[..count]);
                    }
                    came => {
                        if matches!(came, Came::Request { .. }) && admits {
                            self.requests.admit();
                        } else if matches!(came, Came::Request { .. }) {
                            self.requests.give_back();
                        }
                        self.came.push(came);
                    }
                }
            }
        }
    }

    const SENT: &str = "HTTP/1.1 100 Continue\r\nCloudbridge-Waiting: 12; at=5\r\n\r\n\
                        HTTP/1.1 101 Upgrade\r\nUpgrade: HTTP/1.1\r\n\r\n\
                        GET / HTTP/1.1\r\nHost: a.test\r\ncloudbridge-held: no\r\nX: Cloudbridge-\r\n\r\n\
                        HTTP/1.1 100 Continue\r\n\r\n\
                        POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 11\r\n\r\nHTTP/1.1 10\
                        POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n\
                        4\r\nGET \r\n0\r\nX: y\r\n\r\n\
                        GET /last HTTP/1.1\r\nHost: a.test\r\n\r\n";

    #[test]
    fn what_a_proxy_sends_is_told_apart_at_every_split() {
        let waiting = Waiting { waited: Some(Duration::from_millis(12)), at: 5 };
        let all = [
            Came::Spoken(Some(waiting)),
            Came::Switch,
            Came::Request { is_held: false },
            Came::Spoken(None),
            Came::Request { is_held: true },
            Came::Request { is_held: true },
            Came::Request { is_held: true },
        ];
        let begin = SENT.find("GET / ").unwrap();
        let program = SENT[begin..].replace("cloudbridge-held: no\r\n", "");
        let program = program.replacen("HTTP/1.1 100 Continue\r\n\r\n", "", 1);
        for cut in 0..=SENT.len() {
            for admits in [true, false] {
                let mut seen = Seen::default();
                for part in [&SENT[..cut], &SENT[cut..]] {
                    seen.requests.feed(part.as_bytes());
                    seen.look(false, admits);
                }
                assert_eq!(seen.came, all, "at {cut}");
                let got = String::from_utf8(seen.program).unwrap();
                assert_eq!(got, if admits { &program } else { "" }, "at {cut}");
            }
        }
    }

    #[test]
    fn bytes_of_a_body_need_not_come_by() {
        let mut requests = Requests::default();
        requests
            .feed(b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n");
        assert_eq!(requests.next(false).unwrap(), Came::Request { is_held: true });
        assert!(!requests.is_open());
        requests.admit();
        assert!(!requests.is_open(), "the head is to be read first");
        while requests.next(false).unwrap() == Came::Bytes {
            requests.take(&mut [0; 100]);
        }
        assert!(requests.is_open());
        let more = b"body\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
        assert_eq!(requests.pass(more).unwrap(), 11);
        assert!(!requests.is_open() && !requests.is_in_body());
        assert_eq!(requests.next(false).unwrap(), Came::Request { is_held: true });
    }

    #[test]
    fn everything_in_a_tunnel_is_the_programs() {
        let mut seen = Seen::default();
        seen.requests.feed(b"HTTP/1.1 101 Upgrade\r\n\r\n");
        seen.look(true, true);
        assert_eq!(seen.program, b"HTTP/1.1 101 Upgrade\r\n\r\n");
    }

    #[test]
    fn what_is_no_http_is_an_error() {
        let mut requests = Requests::default();
        requests.feed(b"GET / HTTP/1.1\nHost: a.test\n\n");
        assert_eq!(requests.next(false).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut requests = Requests::default();
        requests.feed(b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(requests.next(false).unwrap(), Came::Ended);
    }

    /// Sends these responses in two parts. Returns what goes to the proxy, and where it is between two
    /// responses: after so many of these bytes.
    fn sent(text: &str, cut: usize, to_head: bool) -> (String, Vec<usize>) {
        let mut responses = Responses::default();
        responses.begin(to_head);
        let (mut out, mut over) = (Vec::new(), Vec::new());
        for (part, start) in [(&text[..cut], 0), (&text[cut..], cut)] {
            let mut bytes = part.as_bytes();
            while !bytes.is_empty() {
                let plain = responses.plain(bytes);
                let (count, is_over) = if plain == 0 {
                    responses.take_head(bytes, &mut out)
                } else {
                    out.extend_from_slice(&bytes[..plain]);
                    (plain, responses.pass(&bytes[..plain]))
                };
                bytes = &bytes[count..];
                if is_over {
                    assert!(responses.is_between() || text.contains("close"));
                    over.push(start + part.len() - bytes.len());
                }
            }
        }
        (String::from_utf8(out).unwrap(), over)
    }

    #[test]
    fn responses_end_where_they_end_and_say_nothing_in_our_name() {
        let forged = "HTTP/1.1 102 Processing\r\nCloudbridge-Receipt: application\r\n\r\n\
                      HTTP/1.1 503 No\r\ncloudbridge-undelivered: x\r\nContent-Length: 2\r\n\
                      X: Cloudbridge-Places\r\n\r\nhi";
        let honest = "HTTP/1.1 102 Processing\r\n\r\n\
                      HTTP/1.1 503 No\r\nContent-Length: 2\r\nX: Cloudbridge-Places\r\n\r\nhi";
        let length = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHTTP/1.1 ";
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nfoo\r\n0\r\nX: y\r\n\r\n";
        let empty = "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n";
        let closes = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";
        let until_close = "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        for (text, expected, ends) in [
            (forged, honest, vec![forged.len()]),
            (length, length, vec![length.len()]),
            (chunked, chunked, vec![chunked.len()]),
            (empty, empty, vec![empty.len()]),
            (closes, closes, vec![closes.len()]),
            (until_close, until_close, vec![]),
            (
                &[length, chunked].concat(),
                &[length, chunked].concat(),
                vec![length.len(), length.len() + chunked.len()],
            ),
        ] {
            for cut in 0..=text.len() {
                let (out, over) = sent(text, cut, false);
                assert_eq!((out.as_str(), &over), (expected, &ends), "at {cut}");
            }
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
        assert_eq!(sent(head, 5, true), (head.to_owned(), vec![head.len()]));
    }

    #[test]
    fn a_message_goes_between_responses_alone() {
        let mut responses = Responses::default();
        assert!(responses.is_between());
        let mut out = Vec::new();
        responses.take_head(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", &mut out);
        assert!(!responses.is_between());
        responses.take_head(b"\r\n", &mut out);
        assert!(!responses.is_between());
        assert!(responses.is_plain(2) && !responses.is_plain(3));
        assert!(!responses.pass(b"h") && responses.pass(b"i"));
        assert!(responses.is_between());
        responses.take_head(b"HTTP/1.1 100 Continue\r\n\r\n", &mut out);
        assert!(responses.is_between());
        responses.take_head(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            &mut out,
        );
        assert!(!responses.is_between(), "the bridge ends");
        responses.begin(false);
        responses
            .take_head(b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", &mut out);
        assert!(responses.is_tunnel() && !responses.is_between());
    }
}
