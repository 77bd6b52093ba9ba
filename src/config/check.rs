//! The options of a health check: `check=`, `check-interval=`, `check-rise=` and `check-fall=`.

use super::range::{DAY, Range};
use super::values::{self, quoted, show_time};
use std::fmt;
use std::time::Duration;

/// The names of the options, in the order in which they are read.
pub(crate) const CHECK_OPTIONS: [&str; 4] = ["check", "check-interval", "check-rise", "check-fall"];

const INTERVAL: Range<Duration> = Range::new(Duration::from_millis(100), DAY);

const COUNT: Range<usize> = Range::new(1, 1000);

/// How an application is asked whether it is well: a GET that must be answered with a status below
/// 400.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The target of the request.
    pub path: String,
    /// From one check to the next.
    pub interval: Duration,
    /// How many checks in a row must succeed for an application that is down to be up.
    pub rise: usize,
    /// How many in a row must fail for one that is up to be down.
    pub fall: usize,
}

impl Check {
    /// With the defaults: those of haproxy.
    fn new(path: String) -> Check {
        Check { path, interval: Duration::from_secs(2), rise: 2, fall: 3 }
    }

    /// Sets one of [`CHECK_OPTIONS`]. The others belong to `check`, which must have been set.
    ///
    /// # Errors
    /// One sentence without the option's name.
    pub(crate) fn set(check: &mut Option<Check>, name: &str, value: &str) -> Result<(), String> {
        if name == "check" {
            *check = Some(Check::new(path(value)?));
            return Ok(());
        }
        let Some(check) = check else { return Err("there is no check before it".to_owned()) };
        match name {
            "check-interval" => {
                check.interval = INTERVAL.check(values::time(value)?, show_time)?;
            }
            "check-rise" => check.rise = count(value)?,
            _ => check.fall = count(value)?,
        }
        Ok(())
    }
}

/// As the options are written.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Check { path, interval, rise, fall } = self;
        let interval = show_time(*interval);
        write!(f, "check={path} check-interval={interval} check-rise={rise} check-fall={fall}")
    }
}

fn count(value: &str) -> Result<usize, String> {
    COUNT.check(values::count(value)?, |n| n.to_string())
}

fn path(value: &str) -> Result<String, String> {
    let is_target = value.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if !value.starts_with('/') || !is_target {
        return Err(format!("{} is not a path, such as /health", quoted(value)));
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[(&str, &str)]) -> Result<Option<Check>, String> {
        let mut check = None;
        for (name, value) in options {
            Check::set(&mut check, name, value)?;
        }
        Ok(check)
    }

    #[test]
    fn options_are_read_and_shown() {
        assert_eq!(read(&[]), Ok(None));
        let check = read(&[("check", "/health?x")]).unwrap().unwrap();
        let shown = "check=/health?x check-interval=2s check-rise=2 check-fall=3";
        assert_eq!(check.to_string(), shown);
        let all =
            [("check", "/"), ("check-interval", "500ms"), ("check-rise", "1"), ("check-fall", "9")];
        let check = read(&all).unwrap().unwrap();
        assert_eq!(check.to_string(), "check=/ check-interval=500ms check-rise=1 check-fall=9");
    }

    #[test]
    fn errors_are_one_sentence() {
        for (options, what) in [
            (&[("check", "health")][..], "\"health\" is not a path, such as /health"),
            (&[("check", "/a b")], "\"/a b\" is not a path, such as /health"),
            (&[("check-rise", "1")], "there is no check before it"),
            (&[("check", "/"), ("check-rise", "0")], "0 is less than 1"),
            (&[("check", "/"), ("check-interval", "1ms")], "1ms is less than 100ms"),
        ] {
            assert_eq!(read(options), Err(what.to_owned()), "{options:?}");
        }
    }
}
