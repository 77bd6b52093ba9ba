//! The chunked transfer coding (RFC 9112, section 7.1), parsed incrementally.
//!
//! The proxy passes chunked bodies on unchanged. It only needs their end, and every other recipient
//! must see the same end. So the decoder parses the framing, skips the data, and refuses anything
//! that the grammar does not allow (bare LF, signs, sizes that overflow), but for blanks after the
//! size.

use super::ParseError;
use super::ascii::{is_token, is_value};
use super::field::fold;
use super::framing::MAX_LENGTH;

/// Hex digits of a chunk size with leading zeros: 64 bits.
const MAX_DIGITS: u8 = 16;

/// Bytes of chunk extensions in one line. They are only used for signatures, of about 100 bytes.
const MAX_EXTENSION: u16 = 256;

/// Bytes of extensions in one body beyond the bytes of its data. Otherwise each byte of data could
/// be sent with 256 bytes of extensions, which would all be passed on.
const MAX_EXCESS: u32 = 16 * 1024;

/// Bytes and lines of the trailer section: the default limits of a head.
const MAX_TRAILER: u16 = 16 * 1024;
const MAX_TRAILER_FIELDS: u8 = 100;

/// Fields that are not allowed in a trailer (RFC 9110, section 6.5.1): a recipient that merges the
/// trailer into the head, as RFC 9112, section 7.1.2, allows, would change the framing or routing
/// of the message. A name that ends in a dash is a prefix.
const FORBIDDEN: [&[u8]; 27] = [
    b"authorization",
    b"cache-control",
    b"cloudbridge-",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expect",
    b"forwarded",
    b"host",
    b"if-",
    b"keep-alive",
    b"max-forwards",
    b"pragma",
    b"proxy",
    b"proxy-",
    b"range",
    b"set-cookie",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"via",
    b"x-forwarded-",
    b"x-real-ip",
];

/// A set of [`FORBIDDEN`], one bit a name.
type Names = u32;

/// The kind of the bytes at the front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes of size lines, line ends and trailer.
    Framing(usize),
    /// So many bytes of data.
    Data(usize),
    /// So many bytes of framing, which complete the body.
    End(usize),
}

/// Where in the coding the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a chunk size, after `digits`.
    Size { digits: u8, size: u64 },
    /// In the blanks after a size.
    Blanks { size: u64, bytes: u16 },
    /// In the extensions after a size.
    Extension { size: u64, bytes: u16 },
    /// Between the CR and the LF of a size line.
    SizeLf { size: u64 },
    /// In the data of a chunk, with `left` bytes (never 0) to come.
    Data { left: u64 },
    /// After the data.
    DataCr,
    /// Between the CR and the LF after the data.
    DataLf,
    /// At the beginning of a trailer line.
    LineStart,
    /// In a trailer field's name, after `at` bytes, which may still be one of `alive`.
    FieldName { at: u8, alive: Names },
    /// In a trailer field's value.
    FieldValue,
    /// Between the CR and the LF of a trailer field.
    FieldLf,
    /// Between the CR and the LF that end the body.
    EndLf,
    /// After the body.
    Done,
}

/// Parses one chunked body, a piece at a time. It keeps its state, so that it sees each byte once.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    state: State,
    /// Bytes of data in the chunk that began last.
    chunk: u64,
    /// Extension bytes beyond the data.
    excess: u32,
    trailer: u16,
    trailer_fields: u8,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// At the first byte of a body.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: State::Size { digits: 0, size: 0 },
            chunk: 0,
            excess: 0,
            trailer: 0,
            trailer_fields: 0,
        }
    }

    /// Returns the longest piece of one kind at the front of `bytes`; the next call needs the bytes
    /// after it. `None` if `bytes` is empty or the body is complete.
    ///
    /// # Errors
    ///
    /// 400 for a malformed coding, 431 for too large a trailer. The end of the body is unknown
    /// then, so the connection must be closed.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Option<Piece>, ParseError> {
        if bytes.is_empty() || self.is_done() {
            return Ok(None);
        }
        if let State::Data { left } = self.state {
            let data = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
            self.skip(data as u64);
            return Ok(Some(Piece::Data(data)));
        }
        for (index, &b) in bytes.iter().enumerate() {
            self.state = self.step(b)?;
            match self.state {
                State::Data { .. } => return Ok(Some(Piece::Framing(index + 1))),
                State::Done => return Ok(Some(Piece::End(index + 1))),
                _ => {}
            }
        }
        Ok(Some(Piece::Framing(bytes.len())))
    }

    /// How many of `bytes` belong to this body, and whether they complete it. If not, it is all of
    /// them.
    ///
    /// # Errors
    ///
    /// As [`Decoder::next`]. None of `bytes` may be passed on then.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<(usize, bool), ParseError> {
        let mut at = 0;
        while let Some(piece) = self.next(&bytes[at..])? {
            match piece {
                Piece::Framing(n) | Piece::Data(n) | Piece::End(n) => at += n,
            }
        }
        Ok((at, self.is_done()))
    }

    /// Bytes of the current chunk's data still to come. They may bypass the decoder, with
    /// [`Decoder::skip`].
    #[must_use]
    pub fn data_left(&self) -> u64 {
        match self.state {
            State::Data { left } => left,
            _ => 0,
        }
    }

    /// Bytes of data in the current chunk, or in the last one: the next is likely to be as large.
    #[must_use]
    pub fn chunk(&self) -> u64 {
        self.chunk
    }

    /// `n` bytes of data, at most [`Decoder::data_left`], have bypassed the decoder.
    pub fn skip(&mut self, n: u64) {
        let left = self.data_left();
        debug_assert!(n <= left);
        if n > 0 {
            self.state = match left.saturating_sub(n) {
                0 => State::DataCr,
                left => State::Data { left },
            };
        }
    }

    /// The body is complete.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The state after one byte of framing.
    fn step(&mut self, b: u8) -> Result<State, ParseError> {
        const BAD_END: ParseError =
            ParseError::malformed("a line of a chunked body does not end in CR LF");
        match (self.state, b) {
            (State::Size { digits, size }, _) => in_size(digits, size, b),
            (State::Blanks { size, bytes } | State::Extension { size, bytes }, b'\r') => {
                self.extension_over(size, bytes)
            }
            (State::Blanks { size, bytes }, b' ' | b'\t') if bytes < MAX_EXTENSION => {
                Ok(State::Blanks { size, bytes: bytes + 1 })
            }
            (State::Blanks { size, bytes }, b';') if bytes < MAX_EXTENSION => {
                Ok(State::Extension { size, bytes: bytes + 1 })
            }
            (State::Blanks { .. }, _) => Err(BAD_SIZE),
            (State::Extension { size, bytes }, _) if is_value(b) && bytes < MAX_EXTENSION => {
                Ok(State::Extension { size, bytes: bytes + 1 })
            }
            (State::Extension { .. }, _) => {
                Err(ParseError::malformed("a chunk extension is malformed or too long"))
            }
            (State::SizeLf { size: 0 }, b'\n') => Ok(State::LineStart),
            (State::SizeLf { size }, b'\n') => {
                self.excess = self.excess.saturating_sub(u32::try_from(size).unwrap_or(u32::MAX));
                self.chunk = size;
                Ok(State::Data { left: size })
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size { digits: 0, size: 0 }),
            (State::DataCr | State::DataLf, _) => {
                Err(ParseError::malformed("a chunk is longer than its size says"))
            }
            (
                State::LineStart
                | State::FieldName { .. }
                | State::FieldValue
                | State::FieldLf
                | State::EndLf,
                _,
            ) => self.in_trailer(b),
            (State::SizeLf { .. } | State::Data { .. } | State::Done, _) => Err(BAD_END),
        }
    }

    fn extension_over(&mut self, size: u64, bytes: u16) -> Result<State, ParseError> {
        self.excess += u32::from(bytes);
        if self.excess > MAX_EXCESS {
            return Err(ParseError::malformed("a chunked body has too many extensions"));
        }
        Ok(State::SizeLf { size })
    }

    fn in_trailer(&mut self, b: u8) -> Result<State, ParseError> {
        self.trailer += 1;
        if self.trailer > MAX_TRAILER {
            return Err(ParseError::new(431, "the trailer is too long"));
        }
        match (self.state, b) {
            (State::LineStart, b'\r') => Ok(State::EndLf),
            (State::LineStart, _) if is_token(b) => {
                self.trailer_fields += 1;
                if self.trailer_fields > MAX_TRAILER_FIELDS {
                    return Err(ParseError::new(431, "the trailer has too many fields"));
                }
                in_name(0, Names::MAX, b)
            }
            (State::FieldName { at, alive }, b':') if ends_here(alive, at) => Err(FORBIDDEN_FIELD),
            (State::FieldName { .. }, b':') => Ok(State::FieldValue),
            (State::FieldName { at, alive }, _) if is_token(b) => in_name(at, alive, b),
            (State::FieldValue, b'\r') => Ok(State::FieldLf),
            (State::FieldValue, _) if is_value(b) => Ok(State::FieldValue),
            (State::FieldLf, b'\n') => Ok(State::LineStart),
            (State::EndLf, b'\n') => Ok(State::Done),
            _ => Err(ParseError::malformed("the trailer is malformed")),
        }
    }
}

const FORBIDDEN_FIELD: ParseError =
    ParseError::malformed("the trailer has a field that belongs in the head");

const BAD_SIZE: ParseError = ParseError::malformed("a chunk size is malformed");

/// RFC 9112, section 7.1: `chunk-size = 1*HEXDIG`, and recipients must detect overflow. Blanks
/// after it must be accepted before a `;` (section 7.1.1), and some servers pad every size with
/// them. Every reader that accepts them reads the same size, so nothing can be hidden behind them.
fn in_size(digits: u8, size: u64, b: u8) -> Result<State, ParseError> {
    let digit = match b {
        b'0'..=b'9' => b - b'0',
        b'a'..=b'f' => b - b'a' + 10,
        b'A'..=b'F' => b - b'A' + 10,
        b'\r' if digits > 0 => return Ok(State::SizeLf { size }),
        b' ' | b'\t' if digits > 0 => return Ok(State::Blanks { size, bytes: 1 }),
        b';' if digits > 0 => return Ok(State::Extension { size, bytes: 1 }),
        _ => return Err(BAD_SIZE),
    };
    // The shift cannot overflow after fewer than 16 digits.
    let size = if digits < MAX_DIGITS { (size << 4) | u64::from(digit) } else { u64::MAX };
    if size > MAX_LENGTH {
        return Err(ParseError::malformed("a chunk size is too large"));
    }
    Ok(State::Size { digits: digits + 1, size })
}

/// One more byte of a trailer field's name, after `at` others.
fn in_name(at: u8, alive: Names, b: u8) -> Result<State, ParseError> {
    let mut still: Names = 0;
    for (index, name) in FORBIDDEN.iter().enumerate() {
        if alive & (1 << index) != 0 && name.get(usize::from(at)) == Some(&fold(b)) {
            still |= 1 << index;
            if name.len() == usize::from(at) + 1 && name.ends_with(b"-") {
                return Err(FORBIDDEN_FIELD);
            }
        }
    }
    Ok(State::FieldName {
        // No forbidden name is as long.
        at: at.saturating_add(1),
        alive: still,
    })
}

/// Whether one of the names has exactly `at` bytes.
fn ends_here(alive: Names, at: u8) -> bool {
    (FORBIDDEN.iter().enumerate())
        .any(|(index, name)| alive & (1 << index) != 0 && name.len() == usize::from(at))
}
