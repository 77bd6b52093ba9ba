//! How often systemd wants to hear that the process is alive (`WatchdogSec=`, sd_watchdog_enabled(3)).

use std::env;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use super::channel;

/// After how many microseconds of silence the process is taken for dead.
const PERIOD: &str = "WATCHDOG_USEC";
/// Which process is to be heard; without it, any.
const PROCESS: &str = "WATCHDOG_PID";

/// After how long a silence systemd takes this process for dead; `None` if it does not wait for it.
/// The first call must be in the process that systemd has started: one that it forks has another
/// number.
#[must_use]
pub fn period() -> Option<Duration> {
    static FOUND: OnceLock<Option<Duration>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        // The number is of a program that this one replaces.
        let is_successor = env::var_os(channel::VARIABLE).is_some();
        let process = env::var(PROCESS).ok().filter(|_| !is_successor);
        read(env::var(PERIOD).ok().as_deref(), process.as_deref(), std::process::id())
    })
}

/// Leaves the watchdog, if it is this process's, to the program that is to replace this one.
pub fn transfer(command: &mut Command) {
    command.env_remove(PROCESS);
    if period().is_none() {
        command.env_remove(PERIOD);
    }
}

fn read(period: Option<&str>, process: Option<&str>, own: u32) -> Option<Duration> {
    if process.is_some_and(|process| process.parse() != Ok(own)) {
        return None;
    }
    let period = Duration::from_micros(period?.parse().ok()?);
    (!period.is_zero()).then_some(period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_period_of_this_process() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(read(Some("1000000"), Some("7"), 7), second);
        assert_eq!(read(Some("1000000"), None, 7), second);
        assert_eq!(read(Some("1000000"), Some("8"), 7), None);
        for none in [None, Some("0"), Some(""), Some("-1"), Some("1s")] {
            assert_eq!(read(none, Some("7"), 7), None, "{none:?}");
        }
    }
}
