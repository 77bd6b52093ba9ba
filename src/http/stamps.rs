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
const ADDED: usize = 96;

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
///
/// As bytes, like [`RequestId`], so that both take no more room than they need: every request
/// carries them, and few use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestStart {
    /// In microseconds since 1970.
    micros: [u8; 8],
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
pub struct RequestId([u8; 16]);

impl Stamps {
    /// Both fields are passed on.
    pub const PASS: Stamps = Stamps { start: Stamp::Pass, id: Stamp::Pass };

    /// Both fields are removed.
    pub const REMOVE: Stamps = Stamps { start: Stamp::Remove, id: Stamp::Remove };

    /// The fields of `request` that are not passed on.
    #[inline(never)]
    pub(super) fn removed(&self, request: &Request<'_, '_>) -> Mask {
        let start = (self.start != Stamp::Pass).then(|| named(request, Name::RequestStart));
        let id = (self.id != Stamp::Pass).then(|| named(request, Name::RequestId));
        start.unwrap_or(0) | id.unwrap_or(0)
    }

    /// Appends what is set.
    #[inline(never)]
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.reserve(ADDED);
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

/// The fields of a request that have this name.
fn named(request: &Request<'_, '_>, name: Name) -> Mask {
    let is_it = |field: &httparse::Header<'_>| classify(field.name) == name;
    let found = request.fields.iter().enumerate().filter(|(_, field)| is_it(field));
    found.fold(0, |mask, (index, _)| mask | bit(index))
}

impl RequestStart {
    /// A request that came so long after the beginning of 1970.
    #[must_use]
    pub fn new(since_epoch: Duration, unit: TimeUnit) -> RequestStart {
        let micros = u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX);
        RequestStart { micros: micros.to_ne_bytes(), unit }
    }

    fn write(self, out: &mut Vec<u8>) {
        let micros = u64::from_ne_bytes(self.micros);
        match self.unit {
            TimeUnit::Seconds => {
                decimal(out, micros / 1_000_000);
                let millis = micros / 1000 % 1000;
                let digit = |unit| b'0' + (millis / unit % 10) as u8;
                out.extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
            }
            TimeUnit::Milliseconds => decimal(out, micros / 1000),
            TimeUnit::Microseconds => decimal(out, micros),
        }
    }
}

impl RequestId {
    /// Of its first and its last 16 digits.
    #[must_use]
    pub fn new([first, last]: [u64; 2]) -> RequestId {
        RequestId((u128::from(first) << 64 | u128::from(last)).to_be_bytes())
    }

    /// As it is written.
    pub(crate) fn digits(self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut digits = [0; 32];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 0xf)];
        }
        digits
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.digits()).unwrap_or_default())
    }
}

impl<'b> Request<'b, '_> {
    /// Whether it says when it came.
    #[must_use]
    pub fn has_start(&self) -> bool {
        named(self, Name::RequestStart) != 0
    }

    /// The id that it has: one field of at most 128 visible characters. Anything else is no id, as it
    /// could be taken for several, or spoil a line of a log.
    #[must_use]
    pub fn id(&self) -> Option<&'b str> {
        let mut ids = marked(self.fields, named(self, Name::RequestId));
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
    fn they_take_little_room() {
        assert_eq!((size_of::<Stamps>(), align_of::<Stamps>()), (26, 1));
    }

    #[test]
    fn an_id_has_all_its_digits() {
        let id = RequestId::new([0xab, 0x0123_4567_89ab_cdef]);
        assert_eq!(id.to_string(), "00000000000000ab0123456789abcdef");
        assert_eq!(id.digits(), *id.to_string().as_bytes());
    }
}
