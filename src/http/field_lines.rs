//! The field lines of a head in the buffer, and how they are copied.
//!
//! Most fields of most messages are passed on unchanged, and they are adjacent. So a parser marks
//! the few that are not, one bit per field, and everything between two marks is copied as one
//! slice.

use httparse::Header;

use super::{MAX_FIELDS, ParseError};

/// One bit per field of a head; the lowest is the first.
pub(super) type Mask = u128;

const _: () = assert!(MAX_FIELDS == Mask::BITS as usize);

pub(super) const fn bit(index: usize) -> Mask {
    1 << index
}

/// A head in the buffer, and which of its lines are changed.
#[derive(Clone, Copy)]
pub(super) struct FieldLines<'b> {
    /// From the start line to the blank line, included.
    head: &'b [u8],
    /// Fields that are removed.
    pub(super) drop: Mask,
    /// Fields in another form than `Name: value`, which simple recipients (such as the original's
    /// Ruby library) require.
    loose: Mask,
}

/// RFC 9112, section 2.2, allows recipients to accept a bare LF, but then those that do and those
/// that do not see different heads.
const BARE_LF: ParseError = ParseError::malformed("a line of the head ends in LF without CR");

impl<'b> FieldLines<'b> {
    /// For a head that httparse found complete. Checks the start line and the blank line; the
    /// caller calls [`FieldLines::line`] for each field.
    pub(super) fn new(head: &'b [u8], fields: &[Header<'_>]) -> Result<Self, ParseError> {
        let lines = Self { head, drop: 0, loose: 0 };
        if head[head.len() - 2] != b'\r' || head[lines.start(fields, 0) - 2] != b'\r' {
            return Err(BARE_LF);
        }
        Ok(lines)
    }

    /// Checks the line end and the form of the field at `index`.
    ///
    /// httparse accepts LF as a line end, but no value contains one, so it is enough to check the
    /// two bytes before the next line.
    pub(super) fn line(&mut self, fields: &[Header<'_>], index: usize) -> Result<(), ParseError> {
        let field = &fields[index];
        let end = self.start(fields, index + 1);
        if self.head[end - 2] != b'\r' {
            return Err(BARE_LF);
        }
        let colon = self.offset(field.name.as_ptr()) + field.name.len();
        let value = self.offset(field.value.as_ptr());
        let tidy = value == colon + 2
            && self.head[colon + 1] == b' '
            && value + field.value.len() + 2 == end;
        if !tidy {
            self.loose |= bit(index);
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.head.len()
    }

    /// Appends every field that is neither dropped nor in `also`. `fields` are the same as in
    /// [`FieldLines::new`].
    pub(super) fn copy(&self, out: &mut Vec<u8>, fields: &[Header<'_>], also: Mask) {
        let drop = self.drop | also;
        let marked = drop | self.loose;
        let mut at = 0;
        while at < fields.len() {
            let run = (marked >> at).trailing_zeros() as usize;
            let end = (at + run).min(fields.len());
            if end > at {
                out.extend_from_slice(&self.head[self.start(fields, at)..self.start(fields, end)]);
            }
            if end < fields.len() && drop & bit(end) == 0 {
                let field = &fields[end];
                out.extend_from_slice(field.name.as_bytes());
                out.extend_from_slice(b": ");
                out.extend_from_slice(field.value);
                out.extend_from_slice(b"\r\n");
            }
            at = end + 1;
        }
    }

    /// Where the line of the field at `index` begins; the blank line after the last.
    fn start(&self, fields: &[Header<'_>], index: usize) -> usize {
        match fields.get(index) {
            Some(field) => self.offset(field.name.as_ptr()),
            None => self.head.len() - 2,
        }
    }

    fn offset(&self, at: *const u8) -> usize {
        at as usize - self.head.as_ptr() as usize
    }
}

/// The fields of a mask, first to last.
pub(super) fn marked<'s, 'b>(
    fields: &'s [Header<'b>],
    mask: Mask,
) -> impl Iterator<Item = &'s Header<'b>> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let index = rest.trailing_zeros() as usize;
        let field = fields.get(index)?;
        rest &= rest - 1;
        Some(field)
    })
}
