//! Whether a server is there, and which of several is dialled next. Pure: time is an argument, in milliseconds.

/// The pause before the first probe of a server that could not be reached, in milliseconds: one that is restarted is
/// back in a few of these.
const FIRST_PAUSE: u64 = 100;

/// The longest pause between two probes, in milliseconds. One connect in two seconds costs nobody anything, and a
/// server that is back should not stand idle for longer.
const LONGEST_PAUSE: u64 = 2_000;

/// Whether a server is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::proxy) enum Health {
    /// It took the last connection, or none has been tried.
    Up,
    /// It has failed so many times in a row; nothing is dialled for requests, and a probe is due at this time.
    Aside { failures: u32, until: u64 },
    /// As before, and a probe is under way.
    Probing { failures: u32 },
}

impl Health {
    /// Whether requests may be sent there.
    pub fn is_up(self) -> bool {
        self == Health::Up
    }

    /// Notes at `now` that it could not be reached; `probe` says whether a probe has found that. Connections that were
    /// begun before it was set aside, and fail after that, say nothing new.
    pub fn failed(self, probe: bool, now: u64) -> Health {
        let failures = match self {
            Health::Up => 1,
            Health::Probing { failures } if probe => failures.saturating_add(1),
            Health::Aside { .. } | Health::Probing { .. } => return self,
        };
        Health::Aside { failures, until: now + pause(failures) }
    }

    /// Whether a probe is due at `now`; then it is under way.
    pub fn begin_probe(&mut self, now: u64) -> bool {
        match *self {
            Health::Aside { failures, until } if until <= now => {
                *self = Health::Probing { failures };
                true
            }
            _ => false,
        }
    }
}

/// Doubles with each failure. The state is the whole process's, so there is no herd of workers to scatter.
fn pause(failures: u32) -> u64 {
    let doublings = failures.saturating_sub(1).min(16);
    (FIRST_PAUSE << doublings).min(LONGEST_PAUSE)
}

/// One server, as far as the choice is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::proxy) struct Candidate {
    /// Connections to it, on all workers.
    pub open: u32,
    /// Whether it is there and may have one more.
    pub free: bool,
}

/// Which server is dialled next: the one with the fewest connections, and of equals the one whose turn it is.
pub(in crate::proxy) fn choose(
    candidates: impl ExactSizeIterator<Item = Candidate>,
    turn: usize,
) -> Option<usize> {
    let count = candidates.len().max(1);
    let after = |at: usize| (at + count - turn % count) % count;
    candidates
        .enumerate()
        .filter(|(_, candidate)| candidate.free)
        .min_by_key(|(at, candidate)| (candidate.open, after(*at)))
        .map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_sets_aside_and_pauses_grow_to_two_seconds() {
        let mut health = Health::Up.failed(false, 1_000);
        assert_eq!(health, Health::Aside { failures: 1, until: 1_100 });
        for (failures, pause) in [(2, 200), (3, 400), (4, 800), (5, 1_600), (6, 2_000), (7, 2_000)]
        {
            let now = 10_000 * u64::from(failures);
            assert!(health.begin_probe(now) && !health.begin_probe(now));
            health = health.failed(true, now);
            assert_eq!(health, Health::Aside { failures, until: now + pause });
        }
        let health = Health::Probing { failures: u32::MAX }.failed(true, 0);
        assert_eq!(health, Health::Aside { failures: u32::MAX, until: 2_000 });
    }

    #[test]
    fn connections_that_fail_late_say_nothing_new() {
        let aside = Health::Aside { failures: 3, until: 900 };
        assert_eq!(aside.failed(false, 500), aside);
        let probing = Health::Probing { failures: 3 };
        assert_eq!(probing.failed(false, 500), probing);
    }

    #[test]
    fn a_probe_is_not_due_before_its_time() {
        let mut health = Health::Aside { failures: 1, until: 1_100 };
        assert!(!health.begin_probe(1_099));
        assert!(health.begin_probe(1_100));
        assert!(!Health::Up.begin_probe(0));
    }

    fn chosen(servers: &[(u32, bool)], turn: usize) -> Option<usize> {
        choose(servers.iter().map(|&(open, free)| Candidate { open, free }), turn)
    }

    #[test]
    fn the_fewest_connections_come_first_and_equals_take_turns() {
        assert_eq!(chosen(&[(2, true), (1, true), (3, true)], 0), Some(1));
        assert_eq!(chosen(&[(1, false), (2, true), (3, true)], 0), Some(1));
        let equal = [(1, true), (1, true), (1, true)];
        let turns: Vec<_> = (0..6).map(|turn| chosen(&equal, turn).unwrap()).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
        assert_eq!(chosen(&[(1, true), (1, false), (1, true)], 1), Some(2));
        assert_eq!(chosen(&[(0, false), (0, false)], 1), None);
        assert_eq!(chosen(&[], 3), None);
        assert_eq!(chosen(&[(0, true)], usize::MAX), Some(0));
    }
}
