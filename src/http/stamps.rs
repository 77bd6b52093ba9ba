//! What a proxy marks a request with for the logs and metrics behind it: the time at which it came
//! (`X-Request-Start`) and an id (`X-Request-Id`).

use std::fmt;
use std::time::Duration;

use super::Request;
use super::ascii::{decimal, line};
use super::field::{Name, classify};
use super::field_lines::{Mask, bit, marked};

/// The longest id of another proxy that is kept, in bytes.
const MAX_ID: usize = 128;

/// Bytes that both fields add to a head at most.
pub(super) const ADDED: usize = 96;

/// What happens to both fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamps {
    /// `X-Request-Start`.
    pub start: Stamp<RequestStart>,
    /// `X-Request-Id`.
    pub id: Stamp<RequestId>,
}

/// What happens to a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp<V> {
    /// It is passed on, if it is there.
    Pass,
    /// It is removed.
    Remove,
    /// It is removed, and set to this.
    Set(V),
}

/// When a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestStart {
    /// In microseconds since 1970.
    micros: u64,
    unit: TimeUnit,
}

/// The unit of `X-Request-Start`. There is no standard; all of them are in use, behind `t=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// With milliseconds behind a point.
    Seconds,
    /// A whole number of them.
    Milliseconds,
    /// A whole number of them.
    Microseconds,
}

/// A request's id: 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId(
    /// Its first and its last 16 digits.
    pub [u64; 2],
);

impl Stamps {
    /// Both fields are passed on.
    pub const PASS: Stamps = Stamps { start: Stamp::Pass, id: Stamp::Pass };

    /// Both fields are removed.
    pub const REMOVE: Stamps = Stamps { start: Stamp::Remove, id: Stamp::Remove };

    /// The fields of `request` that are not passed on.
    pub(super) fn removed(&self, request: &Request<'_, '_>) -> Mask {
        let stamps = request.forwarded.stamps;
        match (self.start == Stamp::Pass, self.id == Stamp::Pass) {
            _ if stamps == 0 => 0,
            (true, true) => 0,
            (false, false) => stamps,
            (true, false) => only(request, Name::RequestId),
            (false, true) => only(request, Name::RequestStart),
        }
    }

    /// Appends what is set.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        if let Stamp::Set(start) = self.start {
            out.extend_from_slice(b"X-Request-Start: t=");
            start.write(out);
            out.extend_from_slice(b"\r\n");
        }
        if let Stamp::Set(id) = self.id {
            line(out, b"X-Request-Id: ", &id.digits());
        }
    }
}

/// Those of a request's fields that have this name, which is one of the two.
fn only(request: &Request<'_, '_>, name: Name) -> Mask {
    let mut rest = request.forwarded.stamps;
    let mut found = 0;
    while let Some(field) = request.fields.get(rest.trailing_zeros() as usize) {
        if classify(field.name) == name {
            found |= bit(rest.trailing_zeros() as usize);
        }
        rest &= rest - 1;
    }
    found
}

impl RequestStart {
    /// A request that came so long after the beginning of 1970.
    #[must_use]
    pub fn new(since_epoch: Duration, unit: TimeUnit) -> RequestStart {
        RequestStart { micros: u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX), unit }
    }

    fn write(self, out: &mut Vec<u8>) {
        match self.unit {
            TimeUnit::Seconds => {
                decimal(out, self.micros / 1_000_000);
                let millis = self.micros / 1000 % 1000;
                let digit = |unit| b'0' + (millis / unit % 10) as u8;
                out.extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
            }
            TimeUnit::Milliseconds => decimal(out, self.micros / 1000),
            TimeUnit::Microseconds => decimal(out, self.micros),
        }
    }
}

impl RequestId {
    fn digits(self) -> [u8; 32] {
        let mut digits = [0; 32];
        for (half, number) in digits.chunks_exact_mut(16).zip(self.0) {
            for (at, digit) in half.iter_mut().enumerate() {
                *digit = b"0123456789abcdef"[(number >> (60 - 4 * at)) as usize & 0xf];
            }
        }
        digits
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, last] = self.0;
        write!(f, "{first:016x}{last:016x}")
    }
}

impl<'b> Request<'b, '_> {
    /// Whether it says when it came.
    #[must_use]
    pub fn has_start(&self) -> bool {
        only(self, Name::RequestStart) != 0
    }

    /// The id that it has: one field of at most 128 visible characters. Anything else is no id, as it
    /// could be taken for several, or spoil a line of a log.
    #[must_use]
    pub fn id(&self) -> Option<&'b str> {
        let mut ids = marked(self.fields, only(self, Name::RequestId));
        let (id, None) = (ids.next()?.value, ids.next()) else { return None };
        let is_sane = (1..=MAX_ID).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic);
        str::from_utf8(id).ok().filter(|_| is_sane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_written_in_its_unit() {
        let at = Duration::from_micros(1_700_000_000_012_345);
        for (unit, text) in [
            (TimeUnit::Seconds, "1700000000.012"),
            (TimeUnit::Milliseconds, "1700000000012"),
            (TimeUnit::Microseconds, "1700000000012345"),
        ] {
            let mut out = Vec::new();
            RequestStart::new(at, unit).write(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn an_id_has_all_its_digits() {
        let id = RequestId([0xab, 0x0123_4567_89ab_cdef]);
        assert_eq!(id.to_string(), "00000000000000ab0123456789abcdef");
        assert_eq!(id.digits(), *id.to_string().as_bytes());
    }
}
