//! Signals, counted as their senders mean them.

use std::time::{Duration, Instant};

use super::sys::{self, Signal};

/// Signals to stop within this time are one. Senders repeat them within milliseconds: GNU `timeout`
/// signals its child and then the whole group, a terminal and a script may both pass Ctrl-C on, and
/// a process manager signals a process and its container. An operator who wants an end at once
/// sends another when the first seems to do nothing.
const ONE_STOP: Duration = Duration::from_millis(500);

/// Waits for signals. One thread should do this.
#[derive(Debug, Default)]
pub struct Signals {
    /// When the last signal to stop came that was not a repetition.
    stopped: Option<Instant>,
}

impl Signals {
    /// Waits for the next signal. A second [`Signal::Terminate`] comes half a second after the
    /// first at the earliest.
    pub fn wait(&mut self) -> Signal {
        loop {
            let signal = sys::wait_signal();
            if signal != Signal::Terminate || self.counts(Instant::now()) {
                return signal;
            }
            log::debug!("the signal to stop has come again within half a second");
        }
    }

    /// Whether a signal to stop that comes at `now` is not a repetition of the last one.
    fn counts(&mut self, now: Instant) -> bool {
        let counts = self.stopped.is_none_or(|last| now - last >= ONE_STOP);
        if counts {
            self.stopped = Some(now);
        }
        counts
    }
}

/// Logs that a signal has come that means nothing to this program.
pub fn ignored(name: &str) {
    log::warn!("{name}: this signal has no effect");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_to_stop_count_half_a_second_apart() {
        let mut signals = Signals::default();
        let start = Instant::now();
        let counts = [0, 1, 499, 500, 501, 999, 1_000, 9_000]
            .map(|after| signals.counts(start + Duration::from_millis(after)));
        assert_eq!(counts, [true, false, false, true, false, false, true, true]);
    }
}
