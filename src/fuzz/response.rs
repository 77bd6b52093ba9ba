//! A response's head: parsed, rewritten, and read again by others.

use super::input::Input;
use super::lines::Head;
use crate::http::response::{self, Response};
use crate::http::rewrite::{self, Toward};
use crate::http::{Framing, Limits, ParseError, Version};

const SMALL: Limits = Limits { head: 256, fields: 8, target: 0, behind_proxy: false };
const DEFAULT: Limits = Limits { head: 16 * 1024, fields: 100, target: 0, behind_proxy: false };
const AGAIN: Limits = Limits { head: 128 * 1024, fields: 128, target: 0, behind_proxy: false };

/// The circumstances (limits, a HEAD, the client's version), where to split, and the bytes of a
/// connection.
pub(super) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let limits = input.pick(&[DEFAULT, SMALL]);
    let to_head = input.below(2) == 1;
    let version = input.pick(&[Version::V11, Version::V10]);
    let close = input.below(2) == 1;
    let split = input.byte();
    let bytes = input.rest();
    let whole = parsed(bytes, &limits, to_head, |response| {
        let until_close = response.framing == Framing::UntilClose;
        let decode_chunked = response.framing == Framing::Chunked && version == Version::V10;
        let close = close || until_close || decode_chunked;
        check(response, bytes, &Toward { version, close, decode_chunked }, to_head);
    });
    let end = bytes.len() * usize::from(split) / 256;
    match parsed(&bytes[..end], &limits, to_head, |_| ()) {
        Ok(None) => {}
        Ok(Some(len)) => assert_eq!(whole, Ok(Some(len)), "whole, and then not"),
        Err(_) => assert!(whole.is_err(), "refused, and then taken: {whole:?}"),
    }
}

/// The length of the head, if it is whole, after `look` has seen it.
fn parsed(
    bytes: &[u8],
    limits: &Limits,
    to_head: bool,
    look: impl FnOnce(&Response<'_, '_>),
) -> Result<Option<usize>, ParseError> {
    let mut storage = response::storage();
    let response = response::parse(bytes, &mut storage, limits, to_head)?;
    Ok(response.map(|response| {
        look(&response);
        response.len
    }))
}

fn check(response: &Response<'_, '_>, bytes: &[u8], toward: &Toward, to_head: bool) {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n").expect("a head ends in an empty line");
    assert_eq!(response.len, end + 4, "others end the head elsewhere");
    let mut out = Vec::new();
    rewrite::response(&mut out, response, toward);
    check_written(response, &Head::read(&out), toward, to_head);
    let again = parsed(&out, &AGAIN, to_head, |again| check_again(response, again, toward));
    assert!(
        matches!(again, Ok(Some(len)) if len == out.len()),
        "{again:?}: {}",
        out.escape_ascii()
    );
}

/// What a simple client reads is what was understood.
fn check_written(response: &Response<'_, '_>, head: &Head<'_>, toward: &Toward, to_head: bool) {
    let start = format!("HTTP/1.1 {} ", response.status);
    assert!(head.start.starts_with(&start) && head.start.len() > start.len(), "{}", head.start);
    let lengths = head.values("content-length");
    let codings = head.values("transfer-encoding");
    // Only there do the fields describe a body that is not sent (RFC 9110, section 8.6).
    let descriptive = (to_head || response.status == 304) && response.status >= 200;
    match response.framing {
        Framing::Length(length) => {
            assert_eq!(lengths, [length.to_string().as_bytes()]);
            assert!(codings.is_empty());
        }
        Framing::Chunked if !toward.decode_chunked => {
            assert!(lengths.is_empty() && codings == [b"chunked"]);
        }
        Framing::None if descriptive => assert!(lengths.is_empty() || codings.is_empty()),
        Framing::None | Framing::Chunked | Framing::UntilClose => {
            assert!(lengths.is_empty() && codings.is_empty());
        }
    }
    if toward.version == Version::V10 {
        assert!(codings.is_empty(), "a coding for HTTP/1.0");
    }
    assert!(!head.has_prefix("cloudbridge-"), "a reserved name is passed on");
    for name in ["keep-alive", "proxy-connection", "te"] {
        assert!(head.values(name).is_empty(), "{name} is passed on");
    }
    let connection = head.values("connection").concat();
    let says = |word: &[u8]| memchr::memmem::find(&connection, word).is_some();
    if response.status >= 200 {
        assert_eq!(says(b"close"), toward.close);
    }
    let upgrade = !head.values("upgrade").is_empty();
    assert!(!upgrade || (says(b"upgrade") && matches!(response.status, 101 | 426)));
}

/// What was written means the same to us.
fn check_again(response: &Response<'_, '_>, again: &Response<'_, '_>, toward: &Toward) {
    assert_eq!(again.status, response.status);
    let framing = match response.framing {
        Framing::Chunked if toward.decode_chunked => Framing::UntilClose,
        framing => framing,
    };
    assert_eq!(again.framing, framing);
    if response.status >= 200 {
        assert_eq!(again.persistent, !toward.close);
    }
    assert_eq!(again.connection_auth, response.connection_auth);
    assert!(!response.upgrade || again.upgrade);
    assert!(!again.undelivered && !again.receipt, "a report to the proxy is passed on");
}
