//! Limits of host keys: the words of a `key-limits` line.

use super::range::{MANY, Range};
use super::values::{count, quoted, show_size, size};
use crate::bridge::hostkey::covers;
use crate::bridge::pattern;
use std::fmt;

/// What a key, with all that are narrowed from it, may use. 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bridges connected at once.
    pub bridges: usize,
    /// Requests waiting at once.
    pub waiting: usize,
    /// Requests a second.
    pub requests: usize,
    /// Bytes a second, both ways together.
    pub bytes: usize,
}

/// The names of the limits, as in a line and in the answer of a program that authorises.
pub(crate) const LIMITS: [&str; 4] =
    ["bridges", "waiting", "requests-per-second", "bytes-per-second"];

const COUNT: Range<usize> = Range::new(1, MANY).or_zero("no limit");

/// Bytes a second. With fewer a head of a request would take minutes.
const RATE: Range<usize> = Range::new(1 << 10, u32::MAX as usize).or_zero("no limit");

impl Limits {
    /// Sets one of [`LIMITS`].
    ///
    /// # Errors
    /// One sentence, without the name of the limit.
    pub(crate) fn set(&mut self, name: &str, value: usize) -> Result<(), String> {
        let (field, range, show): (_, _, fn(usize) -> String) = match name {
            "bridges" => (&mut self.bridges, COUNT, |n| n.to_string()),
            "waiting" => (&mut self.waiting, COUNT, |n| n.to_string()),
            "requests-per-second" => (&mut self.requests, COUNT, |n| n.to_string()),
            "bytes-per-second" => (&mut self.bytes, RATE, show_size),
            _ => return Err(format!("the limits are {}", LIMITS.join(", "))),
        };
        *field = range.check(value, show)?;
        Ok(())
    }

    /// Whether nothing is limited.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Limits::default()
    }
}

/// The limits of the keys with one name, or with names below one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyLimits {
    /// A name, `*.` and a name for all below it, or `*`. In the form of [`pattern::parse`].
    pub name: String,
    /// For each of the keys.
    pub limits: Limits,
}

impl KeyLimits {
    /// How a line is written.
    pub(super) const FORM: &str = "a key's name, *.NAME or *, then any of bridges=N, waiting=N, \
                                   requests-per-second=N and bytes-per-second=SIZE, 0 for no limit";

    /// Reads a line.
    ///
    /// # Errors
    /// One sentence.
    pub(super) fn parse(words: &[&str]) -> Result<KeyLimits, String> {
        let Some((name, options)) = words.split_first().filter(|(_, options)| !options.is_empty())
        else {
            return Err(format!("takes {}", KeyLimits::FORM));
        };
        let name = pattern::parse(name.as_bytes())
            .map_err(|bad| format!("{} is no name of a key: {bad}", quoted(name)))?;
        let (mut limits, mut seen) = (Limits::default(), Vec::new());
        for option in options {
            let (limit, value) = option.split_once('=').unwrap_or((option, ""));
            if seen.contains(&limit) {
                return Err(format!("{limit} is given twice"));
            }
            seen.push(limit);
            let colon = |what: String| match LIMITS.contains(&limit) {
                true => format!("{limit}: {what}"),
                false => format!("{} is no limit: {what}", quoted(limit)),
            };
            let read = if limit == "bytes-per-second" { size(value) } else { count(value) };
            let value = if LIMITS.contains(&limit) { read.map_err(colon)? } else { 0 };
            limits.set(limit, value).map_err(colon)?;
        }
        Ok(KeyLimits { name, limits })
    }

    /// How specific the line is for keys with this name, in lower case; `None` if it is not for them.
    fn fits(&self, name: &str) -> Option<usize> {
        match self.name.strip_prefix("*.") {
            _ if self.name == name => Some(usize::MAX),
            Some(suffix) => (suffix != name && covers(suffix, name)).then_some(suffix.len()),
            None => (self.name == "*").then_some(0),
        }
    }

    /// The limits of a key with this name: those of the most specific line.
    pub(crate) fn of(lines: &[KeyLimits], name: &str) -> Limits {
        let fitting = lines.iter().filter_map(|line| Some((line.fits(name)?, line.limits)));
        fitting.max_by_key(|(fit, _)| *fit).map_or(Limits::default(), |(_, limits)| limits)
    }
}

/// As it would be written.
impl fmt::Display for KeyLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limits { bridges, waiting, requests, bytes } = self.limits;
        f.write_str(&self.name)?;
        for (name, value) in LIMITS.iter().zip([bridges, waiting, requests]) {
            if value > 0 {
                write!(f, " {name}={value}")?;
            }
        }
        if bytes > 0 {
            write!(f, " {}={}", LIMITS[3], show_size(bytes))?;
        }
        if self.limits.is_none() {
            write!(f, " {}=0", LIMITS[0])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<KeyLimits, String> {
        KeyLimits::parse(&line.split(' ').collect::<Vec<_>>())
    }

    #[test]
    fn a_line_is_shown_as_it_would_be_written() {
        for line in [
            "* bridges=4",
            "*.open.test bridges=4 waiting=10 requests-per-second=50 bytes-per-second=1m",
            "a.test bridges=0",
        ] {
            assert_eq!(parse(line).unwrap().to_string(), line);
        }
        assert_eq!(parse("A.Test waiting=1").unwrap().to_string(), "a.test waiting=1");
    }

    #[test]
    fn what_is_wrong_is_one_sentence() {
        let form = format!("takes {}", KeyLimits::FORM);
        let limits = "the limits are bridges, waiting, requests-per-second, bytes-per-second";
        for (line, what) in [
            ("a.test", form.as_str()),
            ("a.test bridges", "bridges: \"\" is not a whole number"),
            ("a.test bridges=-1", "bridges: \"-1\" is not a whole number"),
            ("a.test bridges=1 bridges=2", "bridges is given twice"),
            ("a.test bytes-per-second=3", "bytes-per-second: 3 is less than 1k"),
            ("a.test speed=3", &format!("\"speed\" is no limit: {limits}")),
        ] {
            assert_eq!(parse(line).unwrap_err(), what, "{line}");
        }
        assert!(parse("a..test bridges=1").unwrap_err().starts_with("\"a..test\" is no name of"));
    }

    #[test]
    fn the_most_specific_line_counts() {
        let lines: Vec<_> =
            ["* bridges=1", "*.b.test bridges=2", "*.a.b.test bridges=3", "x.a.b.test bridges=0"]
                .map(|line| parse(line).unwrap())
                .into();
        for (name, bridges) in [
            ("b.test", 1),
            ("xb.test", 1),
            ("a.b.test", 2),
            ("*.b.test", 2),
            ("y.a.b.test", 3),
            ("x.a.b.test", 0),
            ("z.x.a.b.test", 3),
        ] {
            assert_eq!(KeyLimits::of(&lines, name).bridges, bridges, "{name}");
        }
        assert!(KeyLimits::of(&lines[1..], "c.test").is_none());
    }
}
