//! The time of day, in the forms that log lines have it. It is UTC, which has no hour twice.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use crate::config::Field;

/// Its texts are made once a second.
#[derive(Default)]
pub(in crate::proxy) struct Clock {
    second: u64,
    clf: String,
    iso: String,
    /// Room for one of the forms.
    pub(super) text: String,
}

impl Clock {
    /// The time since 1970.
    pub(super) fn now() -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }

    /// `26/Nov/2026:07:22:00 +0000`, as Apache writes it.
    fn clf(&mut self, now: Duration) -> &str {
        self.set(now);
        &self.clf
    }

    /// `2026-11-26T07:22:00`, without the fraction and the `Z` that belong behind it (RFC 3339).
    fn iso(&mut self, now: Duration) -> &str {
        self.set(now);
        &self.iso
    }

    /// Writes `now` as the field has it.
    pub(super) fn write(&mut self, field: Field, now: Duration, out: &mut String) {
        let _ = match field {
            Field::TimeClf => out.write_str(self.clf(now)),
            Field::Time => {
                out.push_str(self.iso(now));
                let digit =
                    |power: u32| char::from(b'0' + (now.subsec_millis() / power % 10) as u8);
                out.extend(['.', digit(100), digit(10), digit(1), 'Z']);
                Ok(())
            }
            _ => write!(out, "{}.{:03}", now.as_secs(), now.subsec_millis()),
        };
    }

    fn set(&mut self, now: Duration) {
        let second = now.as_secs();
        if second == self.second && !self.clf.is_empty() {
            return;
        }
        let time = Timestamp::from_second(second.try_into().unwrap_or(0)).unwrap_or_default();
        self.second = second;
        self.clf.clear();
        self.iso.clear();
        let _ = write!(self.clf, "{}", time.strftime("%d/%b/%Y:%H:%M:%S +0000"));
        let _ = write!(self.iso, "{}", time.strftime("%Y-%m-%dT%H:%M:%S"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_are_those_of_apache_and_of_rfc_3339() {
        let mut clock = Clock::default();
        let leap = Duration::from_millis(951_827_696_789);
        assert_eq!(clock.clf(leap), "29/Feb/2000:12:34:56 +0000");
        assert_eq!(clock.iso(leap), "2000-02-29T12:34:56");
        assert_eq!(clock.iso(Duration::ZERO), "1970-01-01T00:00:00");
    }
}
