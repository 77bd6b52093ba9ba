//! The field lines of a head as they lie in the buffer, and how they are copied from there.
//!
//! Most fields of most messages are passed on as they came, and they lie side by side. So a parser marks the few
//! that are not, one bit a field, and what stands between two marks is copied as one slice.

use httparse::Header;

use super::{MAX_FIELDS, ParseError};

/// One bit for each field of a head, the first field in the lowest.
pub(super) type Mask = u128;

const _: () = assert!(MAX_FIELDS == Mask::BITS as usize);

/// The bit of the field at `index`.
pub(super) const fn bit(index: usize) -> Mask {
    1 << index
}

/// A head in its buffer, and what is to be done with its lines.
#[derive(Clone, Copy)]
pub(super) struct FieldLines<'b> {
    /// From the first byte of the start line to the last of the blank line.
    head: &'b [u8],
    /// Fields that are not passed on.
    pub(super) drop: Mask,
    /// Fields not written as `Name: value`: they are sent on in that form, for simple readers (the original's Ruby
    /// library is one) know no other.
    loose: Mask,
}

/// A line end without its CR is refused: RFC 9112, section 2.2, lets a recipient take it, but then one that does
/// and one that does not see different heads.
const BARE_LF: ParseError = ParseError::malformed("a line of the head ends in LF without CR");

impl<'b> FieldLines<'b> {
    /// Takes a head that httparse found whole. The start line and the blank line are checked here, the rest by
    /// [`FieldLines::line`], to be called for each field.
    pub(super) fn new(head: &'b [u8], fields: &[Header<'_>]) -> Result<Self, ParseError> {
        let lines = Self { head, drop: 0, loose: 0 };
        if head[head.len() - 2] != b'\r' || head[lines.start(fields, 0) - 2] != b'\r' {
            return Err(BARE_LF);
        }
        Ok(lines)
    }

    /// Checks how the line of the field at `index` ends and notes how it is written.
    ///
    /// httparse takes LF for a line end, but no value that it gives holds one, so a look at the two bytes in front
    /// of the next line is enough and the head is not gone through twice.
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

    /// Bytes of the head.
    pub(super) fn len(&self) -> usize {
        self.head.len()
    }

    /// Appends every field that is neither dropped nor in `also`. `fields` are those the lines was made with.
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

    /// Where the line of the field at `index` begins; for the one after the last, where the blank line does.
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
