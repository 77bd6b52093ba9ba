//! The head of a response that a file is the body of, or is about, and what follows it.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use httparse::Header;

use crate::http::ascii::decimal;
use crate::http::conditions::{Outcome, evaluate, has_any, values};
use crate::http::{Ranges, Version, reason};
use crate::net::sys;

use super::file::OpenFile;

/// Random bytes of a boundary: nobody can write a file that has the next one in it.
const BOUNDARY: usize = 16;

/// What a request asks of a file.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// Those of the request; none if they do not matter.
    pub(crate) fields: &'a [Header<'a>],
    pub(crate) is_get: bool,
    /// HEAD: the response has no body.
    pub(crate) is_head: bool,
    pub(crate) version: Version,
    /// The connection is closed after the response.
    pub(crate) close: bool,
    /// The value of `Cache-Control`.
    pub(crate) cache_control: Option<&'a str>,
    /// What a backend that has named the file says.
    pub(crate) kept: Option<&'a Kept>,
}

/// What goes on to the client of a backend's response that names a file.
#[derive(Default)]
pub(crate) struct Kept {
    /// Whole field lines.
    pub(crate) fields: Vec<u8>,
    pub(crate) content_type: Option<Vec<u8>>,
}

/// A response whose head has been written.
pub(crate) struct Planned {
    pub(crate) file: Arc<OpenFile>,
    pub(crate) status: u16,
    pub(crate) body: Body,
}

/// What follows a head.
pub(crate) enum Body {
    Nothing,
    /// This part of the file.
    Part(Range<u64>),
    /// Several parts, each with a head.
    Parts(VecDeque<Piece>),
}

/// A piece of what is sent.
pub(crate) enum Piece {
    Bytes(Vec<u8>),
    File(Range<u64>),
}

impl Body {
    /// How many bytes it has.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Body::Nothing => 0,
            Body::Part(range) => range.end - range.start,
            Body::Parts(pieces) => pieces.iter().map(Piece::len).sum(),
        }
    }
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::File(range) => range.end - range.start,
        }
    }
}

/// Writes the head of the response with `file`, or about it, to `out`.
pub(crate) fn plan(file: &Arc<OpenFile>, asked: &Asked<'_>, out: &mut Vec<u8>) -> Planned {
    let (mut status, mut ranges) = (200, Ranges::Whole);
    if (asked.is_get || asked.is_head) && has_any(asked.fields) {
        (status, ranges) = by_conditions(file, asked);
    }
    let boundary = match ranges {
        Ranges::Several(_) => boundary(),
        _ => String::new(),
    };
    let media = media(file, asked);
    let mut head = Head { out, status };
    head.begin();
    let length = match &ranges {
        _ if matches!(status, 304 | 412) => 0,
        Ranges::Unsatisfiable => {
            head.number("Content-Range: bytes */", file.size);
            0
        }
        Ranges::Whole => {
            head.line("Content-Type: ", media);
            file.size
        }
        Ranges::One(range) => {
            head.line("Content-Type: ", media);
            head.content_range(range, file.size);
            range.end - range.start
        }
        Ranges::Several(_) => {
            head.line("Content-Type: multipart/byteranges; boundary=", boundary.as_bytes());
            0
        }
    };
    let body = match ranges {
        Ranges::Several(ranges) => {
            let pieces = parts(&ranges, &boundary, media, file.size);
            Body::Parts(pieces)
        }
        Ranges::One(range) => Body::Part(range),
        Ranges::Whole if status == 200 => Body::Part(0..file.size),
        Ranges::Whole | Ranges::Unsatisfiable => Body::Nothing,
    };
    if status != 304 {
        let length = if let Body::Parts(_) = body { body.len() } else { length };
        head.number("Content-Length: ", length);
    }
    if status != 412 {
        head.out.extend_from_slice(&file.fields);
        head.out.extend_from_slice(b"Accept-Ranges: bytes\r\n");
    }
    if let Some(value) = asked.cache_control.filter(|_| matches!(status, 200 | 206 | 304)) {
        head.line("Cache-Control: ", value.as_bytes());
    }
    if let Some(kept) = asked.kept {
        head.out.extend_from_slice(&kept.fields);
    }
    head.end(asked);
    let body = if asked.is_head { Body::Nothing } else { body };
    Planned { file: Arc::clone(file), status, body }
}

/// Status and ranges of the response to a request with conditions or a `Range`, which only counts in a
/// GET (RFC 9110, section 14.2).
fn by_conditions(file: &OpenFile, asked: &Asked<'_>) -> (u16, Ranges) {
    match evaluate(asked.fields, &file.validators()) {
        Outcome::NotModified => return (304, Ranges::Whole),
        Outcome::Failed => return (412, Ranges::Whole),
        Outcome::ProceedWhole => return (200, Ranges::Whole),
        Outcome::Proceed => {}
    }
    let mut range = values(asked.fields, "Range");
    let ranges = match (range.next().filter(|_| asked.is_get), range.next()) {
        (Some(value), None) => Ranges::read(value, file.size),
        _ => Ranges::Whole,
    };
    let status = match ranges {
        Ranges::Whole => 200,
        Ranges::One(_) | Ranges::Several(_) => 206,
        Ranges::Unsatisfiable => 416,
    };
    (status, ranges)
}

fn media<'a>(file: &'a OpenFile, asked: &Asked<'a>) -> &'a [u8] {
    let kept = asked.kept.and_then(|kept| kept.content_type.as_deref());
    kept.unwrap_or(file.media.as_bytes())
}

/// The parts of a `multipart/byteranges` (RFC 9110, section 14.6), with the delimiters around them.
fn parts(ranges: &[Range<u64>], boundary: &str, media: &[u8], size: u64) -> VecDeque<Piece> {
    let mut pieces = VecDeque::new();
    for range in ranges {
        let mut out = format!("\r\n--{boundary}\r\n").into_bytes();
        let mut head = Head { out: &mut out, status: 206 };
        head.line("Content-Type: ", media);
        head.content_range(range, size);
        out.extend_from_slice(b"\r\n");
        pieces.push_back(Piece::Bytes(out));
        pieces.push_back(Piece::File(range.clone()));
    }
    pieces.push_back(Piece::Bytes(format!("\r\n--{boundary}--\r\n").into_bytes()));
    pieces
}

fn boundary() -> String {
    let mut bytes = [0; BOUNDARY];
    // Without the kernel's random bytes, which fail on no machine that runs, it is still a boundary.
    let _ = sys::random(&mut bytes);
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A head that is being written.
struct Head<'a> {
    out: &'a mut Vec<u8>,
    status: u16,
}

impl Head<'_> {
    fn begin(&mut self) {
        self.out.extend_from_slice(b"HTTP/1.1 ");
        decimal(self.out, self.status.into());
        self.line(" ", reason(self.status).as_bytes());
        // RFC 9110, section 6.6.1: who makes a response says when.
        let now = httpdate::fmt_http_date(SystemTime::now());
        self.line("Date: ", now.as_bytes());
    }

    fn line(&mut self, name: &str, value: &[u8]) {
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
    }

    fn number(&mut self, name: &str, value: u64) {
        self.out.extend_from_slice(name.as_bytes());
        decimal(self.out, value);
        self.out.extend_from_slice(b"\r\n");
    }

    fn content_range(&mut self, range: &Range<u64>, size: u64) {
        self.out.extend_from_slice(b"Content-Range: bytes ");
        decimal(self.out, range.start);
        self.out.push(b'-');
        decimal(self.out, range.end - 1);
        self.number("/", size);
    }

    fn end(&mut self, asked: &Asked<'_>) {
        if asked.close {
            self.out.extend_from_slice(b"Connection: close\r\n");
        } else if asked.version == Version::V10 {
            self.out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        self.out.extend_from_slice(b"\r\n");
    }
}
