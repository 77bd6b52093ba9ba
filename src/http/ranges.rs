//! Which bytes of a representation a request asks for (RFC 9110, section 14).

use std::ops::Range;

use super::ascii::{list, trim};

/// Most ranges of a request that are answered; one with more gets everything. Players and download
/// managers ask for a few; each range costs a head and a write.
const MOST: usize = 64;

/// What a request gets of a representation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ranges {
    /// All of it (200).
    Whole,
    /// These bytes (206).
    One(Range<u64>),
    /// These, as `multipart/byteranges`: at least two, in the order of the request.
    Several(Vec<Range<u64>>),
    /// Nothing: no range has a byte in it (416).
    Unsatisfiable,
}

impl Ranges {
    /// Reads the value of the only `Range` field, for a representation of `size` bytes.
    ///
    /// The field is ignored if there are no bytes at all, if it is malformed or of another unit, and if its ranges are too many or
    /// have more bytes together than there are: overlapping ones would multiply what a request costs
    /// (RFC 9110, section 14.2, allows it).
    #[must_use]
    pub fn read(value: &[u8], size: u64) -> Ranges {
        Self::parse(value, size).unwrap_or(Ranges::Whole)
    }

    fn parse(value: &[u8], size: u64) -> Option<Ranges> {
        let (unit, set) = value.split_at(value.iter().position(|byte| *byte == b'=')?);
        if !trim(unit).eq_ignore_ascii_case(b"bytes") {
            return None;
        }
        let (mut ranges, mut count, mut sum) = (Vec::new(), 0, 0_u64);
        for spec in list(&set[1..]).filter(|spec| !spec.is_empty()) {
            count += 1;
            if count > MOST {
                return None;
            }
            let Some(range) = range(spec, size)? else { continue };
            sum = sum.saturating_add(range.end - range.start);
            ranges.push(range);
        }
        match ranges.len() {
            _ if size == 0 || count == 0 || sum > size => None,
            0 => Some(Ranges::Unsatisfiable),
            1 => ranges.pop().map(Ranges::One),
            _ => Some(Ranges::Several(ranges)),
        }
    }
}

/// Reads `first-last`, `first-` or `-length`. `None` if it is malformed, `Some(None)` if there are no
/// such bytes.
fn range(spec: &[u8], size: u64) -> Option<Option<Range<u64>>> {
    let dash = spec.iter().position(|byte| *byte == b'-')?;
    let (first, last) = (trim(&spec[..dash]), trim(&spec[dash + 1..]));
    if first.is_empty() {
        let start = size.saturating_sub(number(last)?);
        return Some((start < size).then_some(start..size));
    }
    let first = number(first)?;
    let end = match last {
        [] => size,
        digits => {
            let last = number(digits)?;
            if last < first {
                return None;
            }
            last.saturating_add(1).min(size)
        }
    };
    Some((first < end).then_some(first..end))
}

/// A number of decimal digits; one too large for 64 bits is as good as any large one.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let values = digits.iter().map(|digit| u64::from(digit - b'0'));
    Some(values.fold(0, |sum: u64, digit| sum.saturating_mul(10).saturating_add(digit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_clipped_to_what_there_is() {
        for (value, range) in [
            ("bytes=0-0", 0..1),
            ("bytes=0-", 0..100),
            ("bytes=10-19", 10..20),
            ("BYTES=10-19", 10..20),
            ("bytes = 10 - 19 ", 10..20),
            ("bytes=90-200", 90..100),
            ("bytes=99-", 99..100),
            ("bytes=-1", 99..100),
            ("bytes=-100", 0..100),
            ("bytes=-101", 0..100),
            ("bytes=-99999999999999999999999", 0..100),
            ("bytes=5-99999999999999999999999", 5..100),
            ("bytes=,,5-6,", 5..7),
            // The others have no byte.
            ("bytes=200-300,5-6,-0", 5..7),
        ] {
            assert_eq!(Ranges::read(value.as_bytes(), 100), Ranges::One(range), "{value}");
        }
    }

    #[test]
    fn several_keep_their_order() {
        let several = |value: &str| match Ranges::read(value.as_bytes(), 100) {
            Ranges::Several(ranges) => ranges,
            other => panic!("{value}: {other:?}"),
        };
        assert_eq!(several("bytes=0-0,-1"), [0..1, 99..100]);
        assert_eq!(several("bytes=50-59, 0-9 ,20-29"), [50..60, 0..10, 20..30]);
        // Together as many as there are.
        assert_eq!(several("bytes=0-49,0-49"), [0..50, 0..50]);
    }

    #[test]
    fn what_asks_for_nothing_is_not_satisfiable() {
        for value in ["bytes=100-", "bytes=100-200,-0", "bytes=-0", "bytes=99999999999999999999-"] {
            assert_eq!(Ranges::read(value.as_bytes(), 100), Ranges::Unsatisfiable, "{value}");
        }
        // As nginx does: a client that resumes an empty file has it.
        assert_eq!(Ranges::read(b"bytes=0-", 0), Ranges::Whole);
        assert_eq!(Ranges::read(b"bytes=-5", 0), Ranges::Whole);
    }

    #[test]
    fn what_is_malformed_or_too_much_is_ignored() {
        let many = format!("bytes={}", vec!["1-1"; MOST + 1].join(","));
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "0-9",
            "items=0-9",
            "bytes=a-b",
            "bytes=5",
            "bytes=-",
            "bytes=9-5",
            "bytes=0-9,x",
            "bytes=1-2-3",
            "bytes=+1-2",
            "bytes=--5",
            "bytes=0-49,0-50",
            &many,
        ] {
            assert_eq!(Ranges::read(value.as_bytes(), 100), Ranges::Whole, "{value}");
        }
        let most = format!("bytes={}", vec!["1-1"; MOST].join(","));
        assert!(
            matches!(Ranges::read(most.as_bytes(), 100), Ranges::Several(all) if all.len() == MOST)
        );
    }
}
