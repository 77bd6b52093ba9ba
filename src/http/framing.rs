//! How long a body is (RFC 9112, section 6).

use super::ascii::{is_token, list};
use super::{ParseError, Version};

/// Where the body of a message ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// After so many bytes.
    Length(u64),
    /// Chunked transfer coding, see [`super::Decoder`].
    Chunked,
    /// When the sender closes; responses only.
    UntilClose,
}

/// Longest body that may be declared, in bytes: recipients that count in signed 64 bits would see a
/// larger number as negative.
pub(super) const MAX_LENGTH: u64 = i64::MAX as u64;

/// What a head declares about its body, collected field by field.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Declared {
    length: Option<u64>,
    chunked: bool,
    /// The length was given more than once.
    repeated: bool,
}

impl Declared {
    /// The one Content-Length of a request. RFC 9112, section 6.3, allows using one of several equal
    /// values, but smuggling begins with two of them, and no proper client writes the length twice.
    pub(super) fn content_length(&mut self, value: &[u8]) -> Result<(), ParseError> {
        if self.length.is_some() {
            return Err(ParseError::malformed("Content-Length is given more than once"));
        }
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(ParseError::malformed("Content-Length is not a number"));
        }
        let length = value
            .iter()
            .try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
        match length {
            Some(length) if length <= MAX_LENGTH => {
                self.length = Some(length);
                Ok(())
            }
            _ => Err(ParseError::malformed("Content-Length is too large")),
        }
    }

    /// A Content-Length of a response. Equal values may be repeated, as fields or in a list (RFC
    /// 9112, section 6.3, rule 5): some applications set the length that their server sets too, and
    /// the client gets it once.
    pub(super) fn content_lengths(&mut self, value: &[u8]) -> Result<(), ParseError> {
        if self.length.is_none() && self.content_length(value).is_ok() {
            return Ok(());
        }
        self.repeated = true;
        for value in list(value) {
            let before = self.length.take();
            self.content_length(value)?;
            if before.is_some() && before != self.length {
                return Err(ParseError::malformed("Content-Length is given with two values"));
            }
        }
        Ok(())
    }

    /// Whether the length was given more than once.
    pub(super) fn is_repeated(&self) -> bool {
        self.repeated
    }

    /// Repeated fields are one list. Only `chunked` alone is supported. RFC 9112, section 6.1: an
    /// unknown coding is answered 501; section 7.1: chunked is applied once and last, and anything
    /// else is answered 400.
    pub(super) fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), ParseError> {
        let mut unknown = false;
        for coding in list(value) {
            let name = match memchr::memchr(b';', coding) {
                Some(end) => &coding[..end],
                None => coding,
            };
            if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
                return Err(ParseError::malformed("Transfer-Encoding is malformed"));
            }
            if self.chunked {
                return Err(ParseError::malformed("Transfer-Encoding continues after chunked"));
            }
            if !name.eq_ignore_ascii_case(b"chunked") {
                unknown = true;
            } else if name.len() == coding.len() {
                self.chunked = true;
            } else {
                return Err(ParseError::malformed("chunked takes no parameters"));
            }
        }
        if unknown {
            return Err(ParseError::new(501, "the only transfer coding supported here is chunked"));
        }
        Ok(())
    }

    pub(super) fn framing(self, version: Version) -> Result<Option<Framing>, ParseError> {
        match (self.length, self.chunked) {
            (_, true) if version == Version::V10 => {
                // RFC 9112, section 6.1: it must be treated as faulty framing.
                Err(ParseError::malformed("HTTP/1.0 has no Transfer-Encoding"))
            }
            (Some(_), true) => {
                // RFC 9112, section 6.3: ought to be handled as an error, because it may be an
                // attempt at smuggling.
                Err(ParseError::malformed("both Content-Length and Transfer-Encoding are given"))
            }
            (None, true) => Ok(Some(Framing::Chunked)),
            (Some(length), false) => Ok(Some(Framing::Length(length))),
            (None, false) => Ok(None),
        }
    }
}
