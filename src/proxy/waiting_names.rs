//! For which names the log has said that requests wait, and when to look again (`waiting.rs`).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::net::log_limiter::LogLimiter;
use crate::time::Millis;

/// How long a name is not said again.
const REPEAT_AFTER: Duration = Duration::from_secs(60);

/// Most names that are remembered, so that they are not said again.
const REMEMBERED: usize = 256;

/// Lines in ten seconds.
const LINES: u32 = 10;

/// The names that have been said lately, by any worker.
pub(super) struct SaidNames(Mutex<Names>);

struct Names {
    /// Hashes of names, each until when.
    names: Vec<(u64, Millis)>,
    limiter: LogLimiter,
}

/// When a worker looks next.
#[derive(Default)]
pub(super) struct Looks(Millis);

impl Default for SaidNames {
    fn default() -> SaidNames {
        let limiter = LogLimiter::with_burst(LINES);
        SaidNames(Mutex::new(Names { names: Vec::new(), limiter }))
    }
}

impl SaidNames {
    /// Whether `name` may be said: then how many names were not, for being too many.
    pub(super) fn may_say(&self, name: &str, now: Millis) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let hash = hasher.finish();
        // Each change leaves the value whole.
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Names { names, limiter } = &mut *said;
        names.retain(|(_, until)| now < *until);
        if names.iter().any(|(known, _)| *known == hash) || names.len() >= REMEMBERED {
            return None;
        }
        let suppressed = limiter.allow(now)?;
        names.push((hash, now + REPEAT_AFTER));
        Some(suppressed)
    }
}

impl Looks {
    /// When to look next, while requests wait.
    pub(super) fn due(&self) -> Millis {
        self.0
    }

    /// Look again at `due`.
    pub(super) fn wait(&mut self, due: Millis) {
        self.0 = due;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_said_once_a_minute_and_few_at_a_time() {
        let said = SaidNames::default();
        assert_eq!(said.may_say("a", Millis(0)), Some(0));
        assert_eq!(said.may_say("a", Millis(59_999)), None);
        assert_eq!(said.may_say("a", Millis(60_000)), Some(0));
        let at_once = (0..99).filter(|n| said.may_say(&n.to_string(), Millis(70_000)).is_some());
        assert_eq!(at_once.count(), 10);
        assert_eq!(said.may_say("b", Millis(80_000)), Some(89));
    }
}
