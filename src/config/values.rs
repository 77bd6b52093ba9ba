//! Values in a settings file: whole numbers, times, sizes, yes and no, paths, and choices.
//!
//! Each parser takes one word and returns the value, or one sentence that says what to write
//! instead.

use crate::http::{Forwarded, ForwardedStyle, TimeUnit};
use std::path::PathBuf;
use std::time::Duration;

pub(super) use crate::http::quoted;

/// The words of [`Forwarded`].
pub(super) const FORWARDED: [(&str, Forwarded); 3] =
    [("append", Forwarded::Append), ("replace", Forwarded::Replace), ("off", Forwarded::Off)];

/// The words of [`ForwardedStyle`].
pub(super) const FORWARDED_STYLE: [(&str, ForwardedStyle); 3] = [
    ("x", ForwardedStyle::X),
    ("rfc7239", ForwardedStyle::Rfc7239),
    ("both", ForwardedStyle::Both),
];

/// The words of the setting `request-start`.
pub(super) const REQUEST_START: [(&str, Option<TimeUnit>); 4] = [
    ("off", None),
    ("s", Some(TimeUnit::Seconds)),
    ("ms", Some(TimeUnit::Milliseconds)),
    ("us", Some(TimeUnit::Microseconds)),
];

const YES_NO: [(&str, bool); 2] = [("yes", true), ("no", false)];

/// A unit, and what it is worth. Of several with the same worth the first is shown.
type Unit = (&'static str, u64);

/// Units of time in milliseconds, longest first, so that [`show`] finds the largest that fits.
const TIME_UNITS: [Unit; 6] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("", 1_000), ("ms", 1)];

/// Units of size in bytes, largest first.
const SIZE_UNITS: [Unit; 7] = [
    ("g", 1 << 30),
    ("G", 1 << 30),
    ("m", 1 << 20),
    ("M", 1 << 20),
    ("k", 1 << 10),
    ("K", 1 << 10),
    ("", 1),
];

/// A whole number in decimal digits.
pub(crate) fn count(word: &str) -> Result<usize, String> {
    if !is_digits(word) {
        return Err(format!("{} is not a whole number", quoted(word)));
    }
    word.parse().map_err(|_| format!("{} is too large a number", quoted(word)))
}

/// A time: `500ms`, `60s`, `5m`, `1h`, `2d`; a bare number is seconds.
pub(crate) fn time(word: &str) -> Result<Duration, String> {
    let form = "a time; write a whole number and ms, s, m, h or d, such as 500ms or 60s";
    amount(word, &TIME_UNITS, form, "too long a time").map(Duration::from_millis)
}

/// A size: `16k`, `1m`, `2g` (powers of 1024, in either case); a bare number is bytes.
pub(crate) fn size(word: &str) -> Result<usize, String> {
    let form = "a size; write a whole number of bytes, or with k, m or g, such as 16k";
    amount(word, &SIZE_UNITS, form, "too large a size")
}

/// A whole number and a unit. `form` says what the word should be, `excess` what is wrong with a
/// number that does not fit.
fn amount<N: TryFrom<u64>>(
    word: &str,
    units: &[Unit],
    form: &str,
    excess: &str,
) -> Result<N, String> {
    let end = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let (digits, unit) = word.split_at(end);
    let unit = units.iter().find(|(name, _)| *name == unit);
    let (false, Some((_, worth))) = (digits.is_empty(), unit) else {
        return Err(format!("{} is not {form}", quoted(word)));
    };
    let amount = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(*worth));
    amount
        .and_then(|amount| N::try_from(amount).ok())
        .ok_or_else(|| format!("{} is {excess}", quoted(word)))
}

pub(crate) fn yes_no(word: &str) -> Result<bool, String> {
    choose(word, &YES_NO)
}

pub(super) fn show_yes_no(value: bool) -> String {
    word_for(value, &YES_NO)
}

/// A relative path is relative to the directory that the program was started in.
pub(super) fn path(word: &str) -> Result<PathBuf, String> {
    if word.is_empty() {
        return Err("the path is empty".to_owned());
    }
    Ok(PathBuf::from(word))
}

/// The value of a word; the error lists the words.
pub(crate) fn choose<V: Copy>(word: &str, choices: &[(&str, V)]) -> Result<V, String> {
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == word) {
        return Ok(*value);
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    Err(match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => {
            format!("{} is not {} or {last}", quoted(word), rest.join(", "))
        }
        _ => format!("{} is not {}", quoted(word), names.concat()),
    })
}

/// The word of a value, the inverse of [`choose`].
pub(crate) fn word_for<V: Copy + PartialEq>(value: V, choices: &[(&'static str, V)]) -> String {
    choices
        .iter()
        .find(|(_, choice)| *choice == value)
        .map(|(name, _)| (*name).to_owned())
        .unwrap_or_default()
}

/// The shortest text that [`time`] reads as this time. Parts below a millisecond are dropped.
pub(super) fn show_time(time: Duration) -> String {
    show(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), &TIME_UNITS)
}

/// The shortest text that [`size`] reads as this size.
pub(super) fn show_size(bytes: usize) -> String {
    show(bytes as u64, &SIZE_UNITS)
}

fn show(amount: u64, units: &[Unit]) -> String {
    let fits = |(_, worth): &&Unit| amount > 0 && amount.is_multiple_of(*worth);
    match units.iter().find(fits) {
        Some((name, worth)) => format!("{}{name}", amount / worth),
        None => "0".to_owned(),
    }
}

/// Unlike `str::parse`, refuses a sign.
pub(super) fn is_digits(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_or_is_seconds() {
        for (word, millis) in [
            ("0", 0),
            ("7", 7_000),
            ("500ms", 500),
            ("60s", 60_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("2d", 172_800_000),
        ] {
            assert_eq!(time(word), Ok(Duration::from_millis(millis)), "{word}");
        }
    }

    #[test]
    fn malformed_time_is_explained() {
        for word in ["", "s", "soon", "-1s", "+1s", "0.5s", "1S", "1 s", "1min", "1µs"] {
            let what = time(word).unwrap_err();
            assert!(what.ends_with("such as 500ms or 60s"), "{word}: {what}");
        }
        assert_eq!(
            time("99999999999999999999").unwrap_err(),
            "\"99999999999999999999\" is too long a time"
        );
        assert_eq!(
            time("18446744073709551615d").unwrap_err(),
            "\"18446744073709551615d\" is too long a time"
        );
    }

    #[test]
    fn a_size_is_in_powers_of_1024() {
        for (word, bytes) in [
            ("0", 0),
            ("100", 100),
            ("16k", 16_384),
            ("16K", 16_384),
            ("1m", 1 << 20),
            ("2g", 2 << 30),
        ] {
            assert_eq!(size(word), Ok(bytes), "{word}");
        }
        for word in ["", "k", "16kb", "16KiB", "-1", "1.5m", "1t"] {
            let what = size(word).unwrap_err();
            assert!(what.ends_with("such as 16k"), "{word}: {what}");
        }
        assert_eq!(
            size("18446744073709551615k").unwrap_err(),
            "\"18446744073709551615k\" is too large a size"
        );
    }

    #[test]
    fn times_and_sizes_are_shown_as_they_are_written() {
        for word in ["0", "1ms", "1500ms", "90s", "1m", "1h", "1d"] {
            assert_eq!(time(word).map(show_time).as_deref(), Ok(word));
        }
        for word in ["0", "1", "1000", "1k", "1025", "64k", "1m", "3g"] {
            assert_eq!(size(word).map(show_size).as_deref(), Ok(word));
        }
    }

    #[test]
    fn numbers_take_digits_only() {
        assert_eq!(count("1024"), Ok(1024));
        assert_eq!(count("+1").unwrap_err(), "\"+1\" is not a whole number");
        assert_eq!(count("").unwrap_err(), "\"\" is not a whole number");
        assert_eq!(
            count("18446744073709551616").unwrap_err(),
            "\"18446744073709551616\" is too large a number"
        );
    }

    #[test]
    fn a_wrong_choice_lists_the_choices() {
        assert_eq!(yes_no("yes"), Ok(true));
        assert_eq!(yes_no("no"), Ok(false));
        assert_eq!(yes_no("on").unwrap_err(), "\"on\" is not yes or no");
        assert_eq!(
            choose("500", &[("wait", 0), ("404", 1), ("503", 2)]).unwrap_err(),
            "\"500\" is not wait, 404 or 503"
        );
    }

    #[test]
    fn a_quoted_word_is_one_short_printable_line() {
        assert_eq!(quoted("a\u{1b}[2Jb"), r#""a\u{1b}[2Jb""#);
        let long = "é".repeat(100);
        assert_eq!(quoted(&long), format!("\"{}\"...", "é".repeat(60)));
    }
}
