//! Sockets that systemd has opened for this process, or kept from the one before it (socket
//! activation and the descriptor store: sd_listen_fds(3)).

use std::env;
use std::os::fd::OwnedFd;
use std::process::Command;

use crate::net::sys;

/// For which process they are.
const PROCESS: &str = "LISTEN_PID";
/// How many there are: the descriptors from 3 on.
const COUNT: &str = "LISTEN_FDS";
/// Their names, between colons.
const NAMES: &str = "LISTEN_FDNAMES";

/// The name of a socket that has none.
const NO_NAME: &str = "unknown";

/// A descriptor that systemd has passed to this process.
#[derive(Debug)]
pub struct Passed {
    /// `FileDescriptorName=` of the socket unit, or the `FDNAME` that it was stored under. Several
    /// may have the same.
    pub name: String,
    /// The descriptor.
    pub file: OwnedFd,
}

/// Takes what systemd has passed to this process. Call it first of all, in the process that systemd
/// has started: one that it forks has another number.
///
/// # Errors
/// One sentence: the variables are not as they should be.
pub fn take() -> Result<Vec<Passed>, String> {
    let [process, count, names] = [PROCESS, COUNT, NAMES].map(|name| env::var(name).ok());
    let names = read(process.as_deref(), count.as_deref(), names.as_deref(), std::process::id())?;
    let count = u16::try_from(names.len()).map_err(|_| format!("{COUNT} is too large"))?;
    let files = sys::passed_descriptors(count)
        .map_err(|error| format!("{COUNT} is {count}, but they are not open: {error}"))?;
    Ok(names.into_iter().zip(files).map(|(name, file)| Passed { name, file }).collect())
}

/// Keeps the variables from a program that is to be started: they are not for that one.
pub fn hide(command: &mut Command) {
    for name in [PROCESS, COUNT, NAMES] {
        command.env_remove(name);
    }
}

/// The names of what has been passed to the process `own`.
fn read(
    process: Option<&str>,
    count: Option<&str>,
    names: Option<&str>,
    own: u32,
) -> Result<Vec<String>, String> {
    let (Some(process), Some(count)) = (process, count) else { return Ok(Vec::new()) };
    let process: u32 =
        process.parse().map_err(|_| format!("{PROCESS} is no process: {process:?}"))?;
    if process != own {
        return Ok(Vec::new());
    }
    let count: u16 = count.parse().map_err(|_| format!("{COUNT} is no number: {count:?}"))?;
    let count = usize::from(count);
    let names: Vec<String> = match names {
        None => vec![NO_NAME.to_owned(); count],
        Some(_) if count == 0 => Vec::new(),
        Some(names) => names.split(':').map(str::to_owned).collect(),
    };
    if names.len() != count {
        return Err(format!("{COUNT} is {count}, but {NAMES} has {} names", names.len()));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_what_is_passed_to_this_process() {
        let read = |process, count, names| read(process, count, names, 7);
        let none: [&str; 0] = [];
        assert_eq!(read(None, None, None).unwrap(), none);
        assert_eq!(read(Some("7"), None, None).unwrap(), none);
        assert_eq!(read(Some("8"), Some("2"), Some("a:b")).unwrap(), none);
        assert_eq!(read(Some("7"), Some("0"), Some("")).unwrap(), none);
        assert_eq!(read(Some("7"), Some("2"), None).unwrap(), ["unknown", "unknown"]);
        assert_eq!(read(Some("7"), Some("3"), Some("a:b:a")).unwrap(), ["a", "b", "a"]);
    }

    #[test]
    fn variables_that_contradict_each_other_are_an_error() {
        for (process, count, names, what) in [
            ("x", "1", "a", "LISTEN_PID is no process: \"x\""),
            ("7", "-1", "a", "LISTEN_FDS is no number: \"-1\""),
            ("7", "2", "a", "LISTEN_FDS is 2, but LISTEN_FDNAMES has 1 names"),
        ] {
            assert_eq!(read(Some(process), Some(count), Some(names), 7).unwrap_err(), what);
        }
    }
}
