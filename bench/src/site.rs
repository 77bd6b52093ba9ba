//! What the backend has to offer: which target gets which answer, and the bytes of the answers.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use crate::output::{Output, Piece};

/// Bytes of the shared payload that large bodies are made of. Large enough that a write fills a
/// socket's buffer.
const PAYLOAD: usize = 256 * 1024;
/// Largest chunk offered, in bytes: each size asked for is kept.
const LARGEST_CHUNK: usize = 16 * 1024 * 1024;

/// An answer, decided when the head has been read and given when the request has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `/`: the small body.
    Small,
    /// `/bytes/N`: N bytes with a Content-Length.
    Bytes(u64),
    /// `/work/MICROS`: the small body, after so many microseconds of work.
    Work(u64),
    /// `/chunked/N/SIZE`: N bytes in chunks of SIZE.
    Chunked {
        /// Bytes of content.
        total: u64,
        /// Bytes of content in each chunk but the last.
        size: usize,
    },
    /// A request with a body: the number of bytes it had.
    Count(u64),
    /// None of these: 404.
    Missing,
}

impl Answer {
    /// What a target asks for. A query is ignored.
    pub fn to(target: &str) -> Answer {
        let path = target.split('?').next().unwrap_or_default();
        if path == "/" {
            return Answer::Small;
        }
        let mut parts = path.split('/').skip(1);
        let answer = match (parts.next(), number(parts.next()), number(parts.next())) {
            (Some("bytes"), Some(total), None) => Answer::Bytes(total),
            (Some("work"), Some(micros), None) => Answer::Work(micros),
            (Some("chunked"), Some(total), Some(size)) => match usize::try_from(size) {
                Ok(size @ 1..=LARGEST_CHUNK) => Answer::Chunked { total, size },
                _ => Answer::Missing,
            },
            _ => Answer::Missing,
        };
        if parts.next().is_some() { Answer::Missing } else { answer }
    }

    /// How long the request says that it takes; `None` if the backend decides.
    pub fn work(self) -> Option<Duration> {
        match self {
            Answer::Work(micros) => Some(Duration::from_micros(micros)),
            _ => None,
        }
    }
}

fn number(part: Option<&str>) -> Option<u64> {
    part?.parse().ok()
}

/// Whether the answer is the last one of its connection, and whether it may have a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// The answer says `Connection: close`.
    pub close: bool,
    /// The request was a HEAD.
    pub head_only: bool,
}

/// The bytes of all answers, made once.
#[derive(Debug)]
pub struct Site {
    small: Rc<[u8]>,
    small_body: usize,
    small_last: Rc<[u8]>,
    payload: Rc<[u8]>,
    chunks: HashMap<usize, Rc<[u8]>>,
    acknowledgement: Rc<[u8]>,
    last_chunk: Rc<[u8]>,
}

impl Site {
    /// A site whose `/` has a body of `small_body` bytes.
    pub fn new(small_body: usize) -> Site {
        let small = |close| {
            let mut bytes = head("200 OK", &format!("Content-Length: {small_body}"), close);
            bytes.resize(bytes.len() + small_body, b'.');
            Rc::from(bytes)
        };
        Site {
            small: small(false),
            small_body,
            small_last: small(true),
            payload: Rc::from(vec![b'.'; PAYLOAD]),
            chunks: HashMap::new(),
            acknowledgement: Rc::from(&b"HTTP/1.1 100 Continue\r\n\r\n"[..]),
            last_chunk: Rc::from(&b"0\r\n\r\n"[..]),
        }
    }

    /// The interim answer to `Expect: 100-continue`, and a bridge's acknowledgement of a 101
    /// (`doc/protocol.md`).
    pub fn acknowledge(&self, output: &mut Output) {
        output.push(Piece::once(self.acknowledgement.clone()));
    }

    /// Puts an answer into `output`.
    pub fn give(&mut self, answer: Answer, manner: Manner, output: &mut Output) {
        let close = manner.close;
        match answer {
            Answer::Small | Answer::Work(_) => {
                let bytes = if close { &self.small_last } else { &self.small };
                let hidden = if manner.head_only { self.small_body } else { 0 };
                output.push(Piece::first(bytes.clone(), bytes.len() - hidden));
            }
            Answer::Bytes(_) | Answer::Chunked { .. } => {
                let framing = match answer {
                    Answer::Bytes(total) => format!("Content-Length: {total}"),
                    _ => String::from("Transfer-Encoding: chunked"),
                };
                push(output, head("200 OK", &framing, close));
                if !manner.head_only {
                    self.body(answer, output);
                }
            }
            Answer::Count(count) => text("200 OK", &count.to_string(), manner, output),
            Answer::Missing => text("404 Not Found", "no such thing here", manner, output),
        }
    }

    /// Puts the body of [`Answer::Bytes`] or [`Answer::Chunked`] into `output`, without a head;
    /// nothing for others.
    pub fn body(&mut self, answer: Answer, output: &mut Output) {
        match answer {
            Answer::Bytes(total) => self.repeat(total, output),
            Answer::Chunked { total, size } => self.chunked(total, size, output),
            Answer::Small | Answer::Work(_) | Answer::Count(_) | Answer::Missing => {}
        }
    }

    fn repeat(&self, total: u64, output: &mut Output) {
        let (times, rest) = (total / PAYLOAD as u64, total % PAYLOAD as u64);
        output.push(Piece::repeated(self.payload.clone(), times));
        // Below PAYLOAD, hence a usize.
        output.push(Piece::first(self.payload.clone(), rest as usize));
    }

    fn chunked(&mut self, total: u64, size: usize, output: &mut Output) {
        let full = self.chunks.entry(size).or_insert_with(|| Rc::from(chunk(size)));
        output.push(Piece::repeated(full.clone(), total / size as u64));
        // Below `size`, hence a usize.
        match (total % size as u64) as usize {
            0 => {}
            rest => push(output, chunk(rest)),
        }
        output.push(Piece::once(self.last_chunk.clone()));
    }
}

fn chunk(size: usize) -> Vec<u8> {
    let mut bytes = format!("{size:x}\r\n").into_bytes();
    bytes.resize(bytes.len() + size, b'.');
    bytes.extend_from_slice(b"\r\n");
    bytes
}

fn text(status: &str, body: &str, manner: Manner, output: &mut Output) {
    let mut bytes = head(status, &format!("Content-Length: {}", body.len()), manner.close);
    if !manner.head_only {
        bytes.extend_from_slice(body.as_bytes());
    }
    push(output, bytes);
}

fn head(status: &str, framing: &str, close: bool) -> Vec<u8> {
    let close = if close { "Connection: close\r\n" } else { "" };
    let fixed = "Server: bench\r\nContent-Type: text/plain\r\n";
    format!("HTTP/1.1 {status}\r\n{fixed}{framing}\r\n{close}\r\n").into_bytes()
}

fn push(output: &mut Output, bytes: Vec<u8>) {
    output.push(Piece::once(Rc::from(bytes)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAYS: Manner = Manner { close: false, head_only: false };

    fn given(answer: Answer, manner: Manner) -> String {
        let mut output = Output::default();
        Site::new(3).give(answer, manner, &mut output);
        let mut bytes = Vec::new();
        output.flush(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn targets_name_their_answers() {
        assert_eq!(Answer::to("/"), Answer::Small);
        assert_eq!(Answer::to("/?x=/bytes/1"), Answer::Small);
        assert_eq!(Answer::to("/bytes/16"), Answer::Bytes(16));
        assert_eq!(Answer::to("/work/1500"), Answer::Work(1500));
        assert_eq!(Answer::to("/chunked/16/4"), Answer::Chunked { total: 16, size: 4 });
        for none in ["/bytes/", "/bytes/1/2", "/bytes/x", "/chunked/1/0", "/chunked/1/2/3", "*"] {
            assert_eq!(Answer::to(none), Answer::Missing, "{none}");
        }
    }

    #[test]
    fn the_last_answer_of_a_connection_says_so() {
        assert_eq!(
            given(Answer::Small, Manner { close: true, head_only: false }),
            "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\
             Connection: close\r\n\r\n..."
        );
    }

    #[test]
    fn head_gets_no_body() {
        assert!(
            given(Answer::Small, Manner { close: false, head_only: true }).ends_with("\r\n\r\n")
        );
    }

    #[test]
    fn a_chunked_body_ends_in_a_shorter_chunk_and_an_empty_one() {
        let all = given(Answer::Chunked { total: 10, size: 4 }, STAYS);
        assert!(all.ends_with("\r\n\r\n4\r\n....\r\n4\r\n....\r\n2\r\n..\r\n0\r\n\r\n"), "{all}");
    }

    #[test]
    fn a_large_body_has_its_length() {
        let total = 2 * PAYLOAD as u64 + 5;
        let all = given(Answer::Bytes(total), STAYS);
        let (_, body) = all.split_once("\r\n\r\n").unwrap();
        assert_eq!(body.len() as u64, total);
    }
}
