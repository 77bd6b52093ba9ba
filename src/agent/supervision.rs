//! What systemd is told of the agent (`process/notify.rs`). The one thread tells it, so one that hangs
//! is silent.

use std::time::Duration;

use crate::process::{notify, watchdog};
use crate::time::Millis;

/// How often the line about it is said again, if it has changed.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// How much time systemd is asked for while the agent ends; it is asked again and again.
const EXTENSION: Duration = Duration::from_secs(15);

/// What systemd has been told last.
pub(super) struct Supervised {
    /// How often to tell it something; `None` if nobody wants to be told.
    interval: Option<Duration>,
    has_watchdog: bool,
    next: Millis,
    status: String,
}

impl Supervised {
    /// Call it once the process is the one that serves.
    pub(super) fn new() -> Supervised {
        let period = watchdog::period();
        let interval = period.map_or(STATUS_INTERVAL, |period| STATUS_INTERVAL.min(period / 2));
        Supervised {
            interval: notify::is_wanted().then_some(interval),
            has_watchdog: period.is_some(),
            next: Millis::default(),
            status: String::new(),
        }
    }

    /// When to tell it something next.
    pub(super) fn next(&self) -> Option<Millis> {
        self.interval.map(|_| self.next)
    }

    /// Whether that time has come; if so, sets the next.
    pub(super) fn is_due(&mut self, now: Millis) -> bool {
        let Some(interval) = self.interval.filter(|_| now >= self.next) else { return false };
        self.next = now + interval;
        true
    }

    /// The thread turns, and this is what the agent does. `left` is how long its end may still take,
    /// if it ends.
    pub(super) fn tell(&mut self, status: String, left: Option<Duration>) {
        if self.has_watchdog {
            notify::alive();
        }
        if let Some(left) = left {
            notify::extend_timeout((left + EXTENSION / 2).min(EXTENSION));
        }
        if status != self.status {
            notify::status(&status);
            self.status = status;
        }
    }

    /// Tells it at the end of this turn.
    pub(super) fn tell_now(&mut self) {
        self.next = Millis::default();
    }
}
