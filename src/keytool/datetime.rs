//! Unix time, and how it is printed.

use std::time::{SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400;

/// Days from 0000-03-01 to 1970-01-01 in the proleptic Gregorian calendar.
const EPOCH: u64 = 719_468;

/// Days in 400 years, after which the calendar repeats.
const ERA: u64 = 146_097;

/// The last second with a year of four digits: 9999-12-31 23:59:59.
const LAST: u64 = 253_402_300_799;

/// Now, in Unix seconds.
pub(super) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A Unix second as `2009-02-13 23:31:30 UTC`; the bare number after the year 9999.
pub(super) fn utc(second: u64) -> String {
    if second > LAST {
        return format!("Unix time {second}");
    }
    let (year, month, day) = date(second / DAY);
    let time = second % DAY;
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Year, month and day of a day counted from 1970-01-01. Years are taken to begin in March, so that
/// the leap day is the last.
fn date(day: u64) -> (u64, u64, u64) {
    let day = day + EPOCH;
    let (era, day) = (day / ERA, day % ERA);
    // Without the leap days: one every 4 years, none every 100, one every 400.
    let year = (day - day / 1460 + day / 36_524 - day / (ERA - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // From March the months have 31, 30, 31, 30, 31 days, repeatedly: 153 in five.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + carry, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // `date -u -d @SECOND '+%F %T UTC'`
        for (second, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (68_255_999, "1972-02-29 23:59:59 UTC"),
            (68_256_000, "1972-03-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (978_220_800, "2000-12-31 00:00:00 UTC"),
            (1_234_567_890, "2009-02-13 23:31:30 UTC"),
            (1_700_000_000, "2023-11-14 22:13:20 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (LAST, "9999-12-31 23:59:59 UTC"),
            (LAST + 1, "Unix time 253402300800"),
        ] {
            assert_eq!(utc(second), expected);
        }
    }

    #[test]
    fn each_day_follows_the_one_before() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for count in 0..ERA + 365 {
            assert_eq!(date(count), (year, month, day), "day {count}");
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                4 | 6 | 9 | 11 => 30,
                2 if leap => 29,
                2 => 28,
                _ => 31,
            };
            (year, month, day) = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (month, day) if day == length => (year, month + 1, 1),
                (month, day) => (year, month, day + 1),
            };
        }
    }
}
