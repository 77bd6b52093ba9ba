//! As much of a request as the echo must understand: where it ends, and what may follow.
//!
//! Pure. The proxy has checked the request already, so whatever is unusual here is refused.

use httparse::{EMPTY_HEADER, Header, Status};

/// Most fields of a request: what a proxy takes from a client, and room for what it adds.
const MAX_FIELDS: usize = 128;

/// A request that is no HTTP, or not as a proxy may send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// What follows an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// The connection goes on.
    NextRequest,
    /// The answer was the last.
    Close,
}

/// What the answer needs to know of a request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes of it, blank line included.
    pub(super) len: usize,
    /// HEAD: the answer has no body (RFC 9110 section 9.3.2).
    pub(super) without_body: bool,
    /// The body comes only when it has been asked for (RFC 9110 section 10.1.1).
    pub(super) expects_continue: bool,
    /// What follows the answer.
    pub(super) after: After,
    /// How to find the end of the body.
    pub(super) body: Body,
}

impl Head {
    /// The head at the front of `bytes`; `Ok(None)` while its end is not there.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Head>, Unreadable> {
        let mut fields = [EMPTY_HEADER; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        let len = match request.parse(bytes) {
            Ok(Status::Complete(len)) => len,
            Ok(Status::Partial) => return Ok(None),
            Err(_) => return Err(Unreadable),
        };
        let mut head = Head {
            len,
            without_body: request.method == Some("HEAD"),
            expects_continue: false,
            // HTTP/1.0 would have to ask for more requests, and no proxy speaks it to a bridge.
            after: match request.version {
                Some(1) => After::NextRequest,
                _ => After::Close,
            },
            body: Body::Absent,
        };
        for field in request.headers.iter() {
            head.take(field)?;
        }
        Ok(Some(head))
    }

    fn take(&mut self, field: &Header<'_>) -> Result<(), Unreadable> {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("Content-Length") {
            self.frame(Body::Length(length(field.value)?))
        } else if is("Transfer-Encoding") {
            if !field.value.eq_ignore_ascii_case(b"chunked") {
                return Err(Unreadable);
            }
            self.frame(Body::Chunked { at: 0 })
        } else {
            if is("Expect") {
                self.expects_continue |= field.value.eq_ignore_ascii_case(b"100-continue");
            } else if is("Connection") && has_token(field.value, b"close") {
                self.after = After::Close;
            }
            Ok(())
        }
    }

    /// A body is framed once: a second framing field could only contradict the first.
    fn frame(&mut self, body: Body) -> Result<(), Unreadable> {
        if self.body != Body::Absent {
            return Err(Unreadable);
        }
        self.body = body;
        Ok(())
    }
}

/// How the end of a body is found (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// No framing field: there is none.
    Absent,
    /// Content-Length.
    Length(usize),
    /// Chunks, of which those before this offset in the body are known to be whole.
    Chunked {
        /// Where the size line of the next chunk begins.
        at: usize,
    },
}

impl Body {
    /// Bytes of the whole body, of which these are the first; `Ok(None)` while its end is not there.
    /// Each call must be given the bytes of the one before, and may be given more.
    pub(super) fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Unreadable> {
        match self {
            Body::Absent => Ok(Some(0)),
            Body::Length(length) => Ok((bytes.len() >= *length).then_some(*length)),
            Body::Chunked { at } => loop {
                let Status::Complete((line, size)) = chunk_size(&bytes[*at..])? else {
                    return Ok(None);
                };
                let data = *at + line;
                if size == 0 {
                    return Ok(trailers(&bytes[data..])?.map(|trailers| data + trailers));
                }
                // A size beyond all memory is one whose end never comes.
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                let next = data.saturating_add(size).saturating_add(2);
                if bytes.len() < next {
                    return Ok(None);
                }
                if &bytes[next - 2..next] != b"\r\n" {
                    return Err(Unreadable);
                }
                *at = next;
            },
        }
    }

    /// Bytes that the body has at least, as far as the head tells.
    pub(super) fn least(&self) -> usize {
        match self {
            Body::Length(length) => *length,
            Body::Absent | Body::Chunked { .. } => 0,
        }
    }
}

fn chunk_size(bytes: &[u8]) -> Result<Status<(usize, u64)>, Unreadable> {
    httparse::parse_chunk_size(bytes).map_err(|_| Unreadable)
}

/// Bytes of the trailers and the blank line after the last chunk.
fn trailers(bytes: &[u8]) -> Result<Option<usize>, Unreadable> {
    let mut fields = [EMPTY_HEADER; MAX_FIELDS];
    match httparse::parse_headers(bytes, &mut fields) {
        Ok(Status::Complete((len, _))) => Ok(Some(len)),
        Ok(Status::Partial) => Ok(None),
        Err(_) => Err(Unreadable),
    }
}

/// A Content-Length (RFC 9110 section 8.6): digits only, which `str::parse` alone does not see to.
fn length(value: &[u8]) -> Result<usize, Unreadable> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Unreadable);
    }
    let text = std::str::from_utf8(value).map_err(|_| Unreadable)?;
    // A length beyond all memory is refused as too large, not as unreadable.
    Ok(text.parse().unwrap_or(usize::MAX))
}

/// Whether a comma-separated list holds this token.
fn has_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|&b| b == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn head(bytes: &[u8]) -> Head {
        for end in 0..bytes.len() {
            assert_eq!(Head::parse(&bytes[..end]), Ok(None), "at {end}");
        }
        Head::parse(bytes).unwrap().expect("whole")
    }

    #[track_caller]
    fn unreadable(fields: &str) {
        let bytes = format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n");
        assert_eq!(Head::parse(bytes.as_bytes()), Err(Unreadable), "{fields}");
    }

    /// Feeds a chunked body at every split point, then byte by byte.
    #[track_caller]
    fn chunked(bytes: &[u8], expected: Result<Option<usize>, Unreadable>) {
        let whole = Body::Chunked { at: 0 }.end(bytes);
        assert_eq!(whole, expected, "whole");
        let mut stepwise = Body::Chunked { at: 0 };
        for end in 0..=bytes.len() {
            let mut split = Body::Chunked { at: 0 };
            let first = split.end(&bytes[..end]);
            assert_eq!(first, stepwise.end(&bytes[..end]), "at {end}");
            match first {
                Ok(None) => assert_eq!(split.end(bytes), expected, "after {end}"),
                done => return assert_eq!(done, expected, "at {end}"),
            }
        }
    }

    #[test]
    fn a_plain_request_has_no_body_and_may_be_followed() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
        let expected = Head {
            len: bytes.len(),
            without_body: false,
            expects_continue: false,
            after: After::NextRequest,
            body: Body::Absent,
        };
        assert_eq!(head(bytes), expected);
        assert_eq!(Body::Absent.end(b"GET"), Ok(Some(0)));
    }

    #[test]
    fn the_fields_that_matter_are_read() {
        let read = head(
            b"HEAD / HTTP/1.1\r\ncontent-LENGTH: 12\r\nEXPECT: 100-Continue\r\n\
              Connection: x\r\nconnection: y , Close\r\n\r\n",
        );
        assert!(read.without_body && read.expects_continue);
        assert_eq!((read.after, read.body), (After::Close, Body::Length(12)));
        let read =
            head(b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\nConnection: closed\r\n\r\n");
        assert_eq!(read.after, After::NextRequest);
        assert_eq!(read.body, Body::Chunked { at: 0 });
    }

    #[test]
    fn http_1_0_is_not_kept() {
        assert_eq!(head(b"GET / HTTP/1.0\r\n\r\n").after, After::Close);
    }

    #[test]
    fn doubtful_framing_is_unreadable() {
        unreadable("Content-Length: 1\r\nContent-Length: 1");
        unreadable("Content-Length: 1\r\nTransfer-Encoding: chunked");
        unreadable("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked");
        unreadable("Transfer-Encoding: gzip, chunked");
        unreadable("Content-Length: +1");
        unreadable("Content-Length: 1, 1");
        unreadable("Content-Length:");
        unreadable("no colon");
    }

    #[test]
    fn a_length_without_bound_is_large_and_not_unreadable() {
        let read = head(b"PUT / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n");
        assert_eq!(read.body.least(), usize::MAX);
    }

    #[test]
    fn a_length_is_waited_for() {
        let mut body = Body::Length(3);
        assert_eq!(body.end(b""), Ok(None));
        assert_eq!(body.end(b"ab"), Ok(None));
        assert_eq!(body.end(b"abc"), Ok(Some(3)));
        assert_eq!(body.end(b"abcGET"), Ok(Some(3)));
    }

    #[test]
    fn chunks_are_followed_to_their_end() {
        chunked(b"0\r\n\r\n", Ok(Some(5)));
        chunked(b"3\r\nabc\r\n0\r\n\r\n", Ok(Some(13)));
        chunked(b"3;x=y\r\na\r\n\r\nA\r\n0123456789\r\n00\r\n\r\n", Ok(Some(33)));
        chunked(b"1\r\na\r\n0\r\nSum: 1\r\nMore: 2\r\n\r\n", Ok(Some(28)));
        chunked(b"1\r\na\r\n0\r\n\r\nGET / HTTP/1.1\r\n", Ok(Some(11)));
        chunked(b"5\r\nabc", Ok(None));
        chunked(b"ffffffffffffffff\r\nabc", Ok(None));
    }

    #[test]
    fn chunks_that_do_not_fit_are_unreadable() {
        chunked(b"x\r\n", Err(Unreadable));
        chunked(b"1\r\nabc\r\n", Err(Unreadable));
        chunked(b"1ffffffffffffffff\r\nabc", Err(Unreadable));
        chunked(b"0\r\nno colon\r\n\r\n", Err(Unreadable));
    }
}
