//! Reading requests, as far as a benchmark's backend must: where a head ends, what it asks, how
//! long its body is.

use std::mem::MaybeUninit;

use httparse::{ParserConfig, Status};

/// Fields a head may have. A load sends five, a proxy adds five.
const FIELDS: usize = 48;

/// A request's head.
#[derive(Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// Bytes of the head, empty line included.
    pub len: usize,
    /// The request target, as it was sent.
    pub target: &'a str,
    /// HEAD: the answer has no body.
    pub is_head: bool,
    /// How the request's body is framed.
    pub body: Body,
    /// The connection ends after the answer (RFC 9112 section 9.3).
    pub close: bool,
    /// The requester waits for a 100 (RFC 9110 section 10.1.1).
    pub expects_continue: bool,
    /// `Sec-WebSocket-Key`, if the request asks for a WebSocket.
    pub websocket_key: Option<&'a [u8]>,
}

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// Nothing wrong yet, more is needed.
    Partial,
    /// A whole head.
    Whole(Head<'a>),
    /// Not a request this backend understands.
    Bad,
}

/// Reads the head of a request at the front of `bytes`.
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let config = ParserConfig::default();
    let len = match config.parse_request_with_uninit_headers(&mut request, bytes, &mut fields) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Parsed::Partial,
        Err(_) => return Parsed::Bad,
    };
    let mut head = Head {
        len,
        target: request.path.unwrap_or_default(),
        is_head: request.method == Some("HEAD"),
        body: Body::Length(0),
        close: request.version == Some(0),
        expects_continue: false,
        websocket_key: None,
    };
    for field in request.headers.iter() {
        // The lengths are told apart first: most fields of most requests are none of these.
        match field.name.len() {
            6 if is(field.name, "expect") => head.expects_continue = true,
            10 if is(field.name, "connection") => head.close |= names_close(field.value),
            14 if is(field.name, "content-length") => {
                let digits = str::from_utf8(field.value).unwrap_or_default();
                let Ok(length) = digits.parse() else {
                    return Parsed::Bad;
                };
                head.body = Body::Length(length);
            }
            17 if is(field.name, "transfer-encoding") => head.body = Body::Chunked(Chunk::START),
            17 if is(field.name, "sec-websocket-key") => head.websocket_key = Some(field.value),
            _ => {}
        }
    }
    Parsed::Whole(head)
}

fn is(name: &str, lower: &str) -> bool {
    name.eq_ignore_ascii_case(lower)
}

fn names_close(value: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|name| name.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// How far through a body one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Bytes still to come (RFC 9112 section 6.2).
    Length(u64),
    /// Chunks (RFC 9112 section 7.1).
    Chunked(Chunk),
}

/// Where in a chunked body one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// In the line that says a chunk's size. `digits` is false in its extensions, which are
    /// skipped.
    Size {
        /// The size so far.
        size: u64,
        /// Still among the hex digits.
        digits: bool,
    },
    /// In a chunk, or in the CR and LF behind it: bytes still to come.
    Data(u64),
    /// In the trailer section; `empty` until the line has a byte.
    Trailer {
        /// The current line has no byte yet.
        empty: bool,
    },
    /// The body has ended.
    End,
}

impl Chunk {
    /// Before the first chunk.
    pub const START: Chunk = Chunk::Size { size: 0, digits: true };
}

/// What [`Body::skip`] made of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Bytes that belong to the body, framing included.
    pub consumed: usize,
    /// Of these, bytes of content.
    pub content: u64,
}

impl Body {
    /// Whether no further byte belongs to the body.
    pub fn ended(&self) -> bool {
        matches!(self, Body::Length(0) | Body::Chunked(Chunk::End))
    }

    /// Reads on through the body; `None` when its chunks are malformed.
    pub fn skip(&mut self, bytes: &[u8]) -> Option<Skipped> {
        let mut skipped = Skipped { consumed: 0, content: 0 };
        match self {
            Body::Length(left) => {
                skipped.consumed = most(*left, bytes.len());
                skipped.content = skipped.consumed as u64;
                *left -= skipped.content;
            }
            Body::Chunked(chunk) => {
                while skipped.consumed < bytes.len() && *chunk != Chunk::End {
                    let (used, content) = chunk.step(&bytes[skipped.consumed..])?;
                    skipped.consumed += used;
                    skipped.content += content;
                }
            }
        }
        Some(skipped)
    }
}

impl Chunk {
    /// Takes at least one of `bytes`; returns how many, and how many of these were content.
    fn step(&mut self, bytes: &[u8]) -> Option<(usize, u64)> {
        /// CR and LF behind a chunk's data.
        const LINE_END: u64 = 2;
        match *self {
            Chunk::Size { size, digits } => {
                let value = (bytes[0] as char).to_digit(16);
                *self = match (bytes[0], value) {
                    (b'\n', _) if size == 0 => Chunk::Trailer { empty: true },
                    (b'\n', _) => Chunk::Data(size.checked_add(LINE_END)?),
                    (_, Some(value)) if digits => {
                        let size = size.checked_mul(16)?.checked_add(value.into())?;
                        Chunk::Size { size, digits }
                    }
                    (b'\r' | b';', _) => Chunk::Size { size, digits: false },
                    _ if digits => return None,
                    _ => *self,
                };
                Some((1, 0))
            }
            Chunk::Data(left) => {
                let used = most(left, bytes.len());
                let after = left - used as u64;
                let content = left.saturating_sub(LINE_END) - after.saturating_sub(LINE_END);
                *self = if after == 0 { Chunk::START } else { Chunk::Data(after) };
                Some((used, content))
            }
            Chunk::Trailer { empty } => {
                *self = match bytes[0] {
                    b'\n' if empty => Chunk::End,
                    b'\n' => Chunk::Trailer { empty: true },
                    b'\r' => *self,
                    _ => Chunk::Trailer { empty: false },
                };
                Some((1, 0))
            }
            Chunk::End => None,
        }
    }
}

fn most(left: u64, have: usize) -> usize {
    usize::try_from(left).map_or(have, |left| left.min(have))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPLOAD: &[u8] = b"POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\
        Connection: foo, Close\r\nContent-Length: 12\r\n\r\n";

    #[test]
    fn a_head_is_partial_until_its_last_byte() {
        for end in 0..UPLOAD.len() {
            assert_eq!(parse(&UPLOAD[..end]), Parsed::Partial, "{end} bytes");
        }
        let whole = Head {
            len: UPLOAD.len(),
            target: "/x",
            is_head: false,
            body: Body::Length(12),
            close: true,
            expects_continue: true,
            websocket_key: None,
        };
        assert_eq!(parse(UPLOAD), Parsed::Whole(whole));
    }

    #[test]
    fn a_malformed_length_is_bad() {
        let bytes = b"POST / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n";
        assert_eq!(parse(bytes), Parsed::Bad);
    }

    #[test]
    fn chunks_are_counted_whatever_the_split() {
        let bytes = b"4;a=b\r\nWiki\r\n0A\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nGET";
        let body_len = bytes.len() - 3;
        for cut in 0..=bytes.len() {
            let mut body = Body::Chunked(Chunk::START);
            let first = body.skip(&bytes[..cut]).unwrap();
            let second = body.skip(&bytes[first.consumed..]).unwrap();
            assert_eq!(first.consumed + second.consumed, body_len, "cut {cut}");
            assert_eq!(first.content + second.content, 14, "cut {cut}");
            assert!(body.ended(), "cut {cut}");
        }
    }

    #[test]
    fn junk_for_a_chunk_size_is_malformed() {
        assert_eq!(Body::Chunked(Chunk::START).skip(b"xyz\r\n"), None);
        assert_eq!(Body::Chunked(Chunk::START).skip(b"fffffffffffffffff\r\n"), None);
    }
}
