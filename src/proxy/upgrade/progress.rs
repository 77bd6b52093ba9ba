//! How far an old program is with leaving everything to the new one (see `proxy/replaced.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use crate::process::channel::Channel;
use crate::time::Millis;

use super::old_programs::Report;

/// When to try again what the new program has not taken.
const AGAIN: Duration = Duration::from_millis(5);

/// How often to see whether the other workers have left, too.
const CHECK: Duration = Duration::from_millis(20);

/// How long tunnels that are never without bytes in a buffer take nothing more, so that they can go
/// to the new program.
const REST: Duration = Duration::from_millis(500);

/// How long they go on before the next rest: one whose peer does not read cannot go, and its other
/// direction must not suffer.
const BETWEEN_RESTS: Duration = Duration::from_secs(5);

/// The channel to the new program, and how far the workers are.
pub(in crate::proxy) struct Replacement {
    pub(in crate::proxy) channel: Channel,
    /// Workers that still have bridges of the first step.
    pub(in crate::proxy) busy: AtomicUsize,
    /// Worker 0 is to say soon what is still here: a bridge has gone over that the new program counts.
    pub(in crate::proxy) report_soon: AtomicBool,
    /// How it has ended for all workers alike: one must not serve on when another has ended.
    outcome: AtomicU8,
}

/// Nothing is decided.
const OPEN: u8 = 0;
/// Everything has gone over, and the workers end.
const LEFT: u8 = 1;
/// The new program has ended first, and this one goes on.
const GOES_ON: u8 = 2;

impl Replacement {
    pub(in crate::proxy) fn new(channel: Channel, workers: usize) -> Replacement {
        Replacement {
            channel,
            busy: AtomicUsize::new(workers),
            report_soon: AtomicBool::new(false),
            outcome: AtomicU8::new(OPEN),
        }
    }

    /// Everything has gone over. False if the new program has ended before.
    pub(in crate::proxy) fn leave(&self) -> bool {
        self.decide(LEFT)
    }

    /// The new program has ended. False if everything has gone to it before.
    pub(in crate::proxy) fn go_on(&self) -> bool {
        self.decide(GOES_ON)
    }

    fn decide(&self, outcome: u8) -> bool {
        let (first, seen) = (Ordering::SeqCst, Ordering::SeqCst);
        let decided = self.outcome.compare_exchange(OPEN, outcome, first, seen);
        decided.map_or_else(|before| before == outcome, |_| true)
    }

    /// A thread's work: says whether the new program is replaced itself, whenever that changes.
    /// Returns when it has ended.
    pub(in crate::proxy) fn listen(&self, say: impl Fn(bool)) {
        while let Ok(Some(message)) = self.channel.receive() {
            let line = message.line();
            if line["kind"] == "replaced" {
                say(line["is"] == true);
            }
        }
    }
}

/// What a worker knows of it.
#[derive(Default)]
pub(in crate::proxy) struct Replaced {
    pub(in crate::proxy) by: Option<Arc<Replacement>>,
    /// The first step is done here.
    pub(in crate::proxy) bridges_gone: bool,
    /// Something has not been taken.
    pub(in crate::proxy) again: bool,
    /// When to look again for what has nothing in progress.
    pub(in crate::proxy) next: Millis,
    /// When what is still here is drained.
    pub(in crate::proxy) until: Millis,
    pub(in crate::proxy) rests: Rests,
    /// What worker 0 has said of this program.
    pub(in crate::proxy) report: Report,
}

/// When tunnels rest.
#[derive(Default)]
pub(in crate::proxy) struct Rests {
    is_resting: bool,
    /// Until when, or when the next rest may begin.
    next: Millis,
}

/// What tunnels that cannot go yet are to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::proxy) enum Rest {
    Begin,
    End,
    /// As before.
    Same,
}

impl Rests {
    /// Called at each look, with whether there are such tunnels.
    pub(in crate::proxy) fn look(&mut self, some_are_busy: bool, now: Millis) -> Rest {
        match (self.is_resting, some_are_busy) {
            (true, false) => (self.is_resting, self.next) = (false, now),
            (true, true) if now >= self.next => {
                (self.is_resting, self.next) = (false, now + BETWEEN_RESTS);
                return Rest::End;
            }
            (false, true) if now >= self.next => {
                (self.is_resting, self.next) = (true, now + REST);
                return Rest::Begin;
            }
            _ => {}
        }
        Rest::Same
    }

    /// Whether the next look should come soon.
    pub(in crate::proxy) fn is_resting(&self) -> bool {
        self.is_resting
    }
}

impl Replaced {
    /// Whether a new program takes over.
    pub(in crate::proxy) fn is_on(&self) -> bool {
        self.by.is_some()
    }

    pub(in crate::proxy) fn next_check(&self, now: Millis) -> Option<Millis> {
        self.is_on().then(|| self.next.max(now))
    }

    /// Whether it is time to look for what has nothing in progress. Every turn would be too often:
    /// each look is at all connections.
    pub(in crate::proxy) fn is_due(&self, now: Millis) -> bool {
        now >= self.next
    }

    /// Something has been looked for: says when to look again.
    pub(in crate::proxy) fn looked(&mut self, now: Millis) {
        let others_are_busy = self.by.as_ref().is_some_and(|by| by.busy.load(Ordering::SeqCst) > 0);
        let soon = self.again || others_are_busy || self.rests.is_resting();
        self.next = now + if soon { AGAIN } else { CHECK };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_rest_for_a_while_and_then_go_on_for_longer() {
        let mut rests = Rests::default();
        assert_eq!(rests.look(false, Millis(0)), Rest::Same);
        assert_eq!(rests.look(true, Millis(20)), Rest::Begin);
        assert_eq!((rests.look(true, Millis(25)), rests.is_resting()), (Rest::Same, true));
        assert_eq!(rests.look(true, Millis(520)), Rest::End);
        assert_eq!((rests.look(true, Millis(540)), rests.is_resting()), (Rest::Same, false));
        assert_eq!(rests.look(true, Millis(5_520)), Rest::Begin);
        // All have gone: the next that comes need not wait.
        assert_eq!((rests.look(false, Millis(5_530)), rests.is_resting()), (Rest::Same, false));
        assert_eq!(rests.look(true, Millis(5_540)), Rest::Begin);
    }
}
