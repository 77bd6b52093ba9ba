//! The chunked transfer coding (RFC 9112, section 7.1), read as it comes by.
//!
//! The proxy passes chunked bodies on as they are. It only has to know where they end, and that every other reader
//! sees the same end. So the decoder looks at the framing, steps over the data without touching it, and refuses
//! whatever the grammar does not allow: bare LF, blanks after the size, signs, sizes that overflow.

use super::ParseError;
use super::ascii::{is_token, is_value};
use super::field::fold;
use super::framing::MAX_LENGTH;

/// Hex digits of a chunk size, leading zeros among them: as many as 64 bits have.
const MAX_DIGITS: u8 = 16;

/// Bytes of chunk extensions in one line. Nobody uses them but for signatures, which take about 100.
const MAX_EXTENSION: u16 = 256;

/// Bytes of extensions in one body beyond the data that came with them. Without it one byte of data at a time could
/// be sent with 256 that nobody wants, and each would be passed on.
const MAX_EXCESS: u32 = 16 * 1024;

/// Bytes and lines of the trailer section, as the default limits are for a head.
const MAX_TRAILER: u16 = 16 * 1024;
const MAX_TRAILER_FIELDS: u8 = 100;

/// Fields that have no place in a trailer (RFC 9110, section 6.5.1): a reader that merges the trailer into the head,
/// as RFC 9112, section 7.1.2, allows, would frame, route or judge the message anew. A name that ends in a dash
/// stands for all that begin with it.
const FORBIDDEN: [&[u8]; 20] = [
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
    b"keep-alive",
    b"proxy-",
    b"set-cookie",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"x-forwarded-",
];

/// A set of [`FORBIDDEN`], one bit a name.
type Names = u32;

/// What the front of the bytes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes of size lines, line ends and trailer.
    Framing(usize),
    /// So many bytes of the body.
    Data(usize),
    /// So many bytes of framing, and with the last of them the body is complete. What follows is not its own.
    End(usize),
}

/// Where in the coding the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a chunk size of which `digits` have come.
    Size { digits: u8, size: u64 },
    /// In the extensions behind a size.
    Extension { size: u64, bytes: u16 },
    /// Between the CR and the LF of a size line.
    SizeLf { size: u64 },
    /// In the data of a chunk, of which `left` bytes (never 0) are to come.
    Data { left: u64 },
    /// Behind the data.
    DataCr,
    /// Between the CR and the LF behind the data.
    DataLf,
    /// At the beginning of a trailer line.
    LineStart,
    /// In a trailer field's name, `at` bytes in, which still may be one of `alive`.
    FieldName { at: u8, alive: Names },
    /// In a trailer field's value.
    FieldValue,
    /// Between the CR and the LF of a trailer field.
    FieldLf,
    /// Between the CR and the LF that end it all.
    EndLf,
    /// Behind the body.
    Done,
}

/// Reads one chunked body, a piece at a time. It holds all it has to remember, so no byte is shown to it twice.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    state: State,
    /// Bytes of data in the chunk that was begun last.
    chunk: u64,
    /// Extension bytes that no data made up for.
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
    /// Stands at the first byte of a body.
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

    /// Takes the longest piece of one kind at the front of `bytes`; the next call wants the bytes behind it.
    ///
    /// `None` if `bytes` is empty or the body is complete.
    ///
    /// # Errors
    ///
    /// 400 for what is no chunked coding, 431 for too large a trailer. The decoder is of no use afterwards, and as
    /// nobody knows where the body ends, neither is the connection.
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

    /// How many of `bytes` belong to this body, and whether it is complete with them; for whoever passes it on
    /// as it is. Without `true` it is all of them.
    ///
    /// # Errors
    ///
    /// As [`Decoder::next`]. None of `bytes` is to be passed on then.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<(usize, bool), ParseError> {
        let mut at = 0;
        while let Some(piece) = self.next(&bytes[at..])? {
            match piece {
                Piece::Framing(n) | Piece::Data(n) | Piece::End(n) => at += n,
            }
        }
        Ok((at, self.is_done()))
    }

    /// Bytes of the current chunk's data still to come. They may go past the decoder, if [`Decoder::skip`] is told.
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

    /// `n` bytes of data went past, at most [`Decoder::data_left`].
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

    /// The state behind one byte of framing.
    fn step(&mut self, b: u8) -> Result<State, ParseError> {
        const BAD_END: ParseError =
            ParseError::malformed("a line of a chunked body does not end in CR LF");
        match (self.state, b) {
            (State::Size { digits, size }, _) => in_size(digits, size, b),
            (State::Extension { size, bytes }, b'\r') => self.extension_over(size, bytes),
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
            return Err(ParseError::malformed("a chunked body is made of extensions"));
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
    ParseError::malformed("the trailer has a field that belongs into the head");

/// RFC 9112, section 7.1: `chunk-size = 1*HEXDIG`, and overflow is to be watched for. The blanks that the grammar
/// allows in front of a `;` are refused: nobody sends them, and they invite other readings.
fn in_size(digits: u8, size: u64, b: u8) -> Result<State, ParseError> {
    const BAD_SIZE: ParseError = ParseError::malformed("a chunk size is malformed");
    let digit = match b {
        b'0'..=b'9' => b - b'0',
        b'a'..=b'f' => b - b'a' + 10,
        b'A'..=b'F' => b - b'A' + 10,
        b'\r' if digits > 0 => return Ok(State::SizeLf { size }),
        b';' if digits > 0 => return Ok(State::Extension { size, bytes: 1 }),
        _ => return Err(BAD_SIZE),
    };
    // The shift loses nothing: fewer than 16 digits came before.
    let size = if digits < MAX_DIGITS { (size << 4) | u64::from(digit) } else { u64::MAX };
    if size > MAX_LENGTH {
        return Err(ParseError::malformed("a chunk size is too large"));
    }
    Ok(State::Size { digits: digits + 1, size })
}

/// One more byte of a trailer field's name, behind `at` others.
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
        // No forbidden name is as long, so it does not matter where it stops.
        at: at.saturating_add(1),
        alive: still,
    })
}

/// Whether one of the names has just `at` bytes.
fn ends_here(alive: Names, at: u8) -> bool {
    (FORBIDDEN.iter().enumerate())
        .any(|(index, name)| alive & (1 << index) != 0 && name.len() == usize::from(at))
}
