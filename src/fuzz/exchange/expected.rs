//! What each side of an exchange may receive, worked out from what the other has sent.

use super::circumstances::{CLIENT, Circumstances};
use crate::exchange::DeliveryReports;
use crate::http::request::Request;
use crate::http::response;
use crate::http::rewrite::{self, Toward, Via};
use crate::http::{Decoder, Framing, Piece, Version};

/// A bridge's acknowledgement.
const ACKNOWLEDGEMENT: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The request as a backend must get it, if the client has sent `sent`: everything, and how many
/// bytes of `sent` belong to it. In a tunnel all of them do.
pub(super) fn request(request: &Request<'_, '_>, sent: &[u8], tunnel: bool) -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    let forwarded = crate::http::Forwarded::Off;
    rewrite::request(&mut out, request, &Via::new(CLIENT, forwarded));
    let body = &sent[request.len..];
    let framing = if tunnel { Framing::UntilClose } else { request.framing };
    let Body { end, .. } = body_of(framing, body);
    out.extend_from_slice(&body[..end]);
    (out, request.len + end)
}

/// A body at the front of some bytes.
struct Body {
    data: Vec<u8>,
    end: usize,
    complete: bool,
}

fn body_of(framing: Framing, bytes: &[u8]) -> Body {
    match framing {
        Framing::None => Body { data: Vec::new(), end: 0, complete: true },
        Framing::Length(length) => {
            let end = bytes.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            Body { data: bytes[..end].to_vec(), end, complete: end as u64 == length }
        }
        Framing::UntilClose => Body { data: bytes.to_vec(), end: bytes.len(), complete: false },
        Framing::Chunked => chunks(bytes),
    }
}

fn chunks(bytes: &[u8]) -> Body {
    let (mut decoder, mut data, mut end) = (Decoder::new(), Vec::new(), 0);
    while let Ok(Some(piece)) = decoder.next(&bytes[end..]) {
        match piece {
            Piece::Data(count) => {
                data.extend_from_slice(&bytes[end..end + count]);
                end += count;
            }
            Piece::Framing(count) | Piece::End(count) => end += count,
        }
    }
    Body { data, end, complete: decoder.is_done() }
}

/// What a client may receive of one backend's bytes.
pub(super) struct Response {
    /// Interim responses, each whole.
    pub interim: Vec<Vec<u8>>,
    /// The final one, if its head is whole and valid.
    pub last: Option<Final>,
}

pub(super) struct Final {
    /// The head, if the client's connection stays open and if it does not.
    pub heads: [Vec<u8>; 2],
    pub body: Vec<u8>,
    /// The backend has sent the body to its end. Never if that is the end of its connection.
    pub complete: bool,
}

/// What a client may receive of what a backend has sent.
pub(super) fn response(
    request: &Request<'_, '_>,
    circumstances: &Circumstances,
    sent: &[u8],
) -> Response {
    let mut expected = Response { interim: Vec::new(), last: None };
    let mut at = 0;
    let mut acknowledges = circumstances.fresh;
    if acknowledges && sent.starts_with(ACKNOWLEDGEMENT) {
        (at, acknowledges) = (ACKNOWLEDGEMENT.len(), false);
    }
    loop {
        let mut storage = response::storage();
        let limits = &circumstances.config.limits;
        let parsed = response::parse(&sent[at..], &mut storage, limits, request.is_head());
        let Ok(Some(head)) = parsed else { return expected };
        let bytes = &sent[at + head.len..];
        at += head.len;
        let written = |close, decode_chunked| {
            let mut out = Vec::new();
            let toward = Toward { version: request.version, close, decode_chunked };
            rewrite::response(&mut out, &head, &toward);
            out
        };
        match head.status {
            100 if std::mem::take(&mut acknowledges) => {}
            101 => {
                let body = bytes.to_vec();
                let heads = [written(false, false), written(false, false)];
                expected.last = Some(Final { heads, body, complete: false });
                return expected;
            }
            100..=199 => {
                acknowledges = false;
                let receipts = circumstances.reports == DeliveryReports::WithReceipts;
                if request.version == Version::V11 && !(head.receipt && receipts) {
                    expected.interim.push(written(false, false));
                }
            }
            _ => {
                let unchunked = head.framing == Framing::Chunked && request.version == Version::V10;
                let Body { data, end, complete } = body_of(head.framing, bytes);
                let body = if unchunked { data } else { bytes[..end].to_vec() };
                let heads = [written(false, unchunked), written(true, unchunked)];
                expected.last = Some(Final { heads, body, complete });
                return expected;
            }
        }
    }
}
