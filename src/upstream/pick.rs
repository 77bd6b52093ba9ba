//! Which of several servers is dialled next.

/// One server, as far as the choice is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Candidate {
    /// Connections to it, on all workers.
    pub open: u32,
    /// Whether it is up and may have one more.
    pub free: bool,
    /// Whether it may be about to end.
    pub doubted: bool,
}

/// The free server with the fewest connections, one without doubt if there is any; equals take turns,
/// counted by `turn`.
pub(crate) fn pick(
    candidates: impl ExactSizeIterator<Item = Candidate>,
    turn: usize,
) -> Option<usize> {
    let count = candidates.len().max(1);
    let after = |at: usize| (at + count - turn % count) % count;
    candidates
        .enumerate()
        .filter(|(_, candidate)| candidate.free)
        .min_by_key(|(at, candidate)| (candidate.doubted, candidate.open, after(*at)))
        .map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(servers: &[(u32, bool)], turn: usize) -> Option<usize> {
        let candidate = |&(open, free): &(u32, bool)| Candidate { open, free, doubted: false };
        pick(servers.iter().map(candidate), turn)
    }

    #[test]
    fn one_in_doubt_comes_last() {
        let pair = |free| {
            [
                Candidate { open: 0, free: true, doubted: true },
                Candidate { open: 9, free, doubted: false },
            ]
        };
        assert_eq!(pick(pair(true).into_iter(), 0), Some(1));
        assert_eq!(pick(pair(false).into_iter(), 0), Some(0));
    }

    #[test]
    fn fewest_connections_come_first_and_equals_take_turns() {
        assert_eq!(picked(&[(2, true), (1, true), (3, true)], 0), Some(1));
        assert_eq!(picked(&[(1, false), (2, true), (3, true)], 0), Some(1));
        let equal = [(1, true), (1, true), (1, true)];
        let turns: Vec<_> = (0..6).map(|turn| picked(&equal, turn).unwrap()).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
        assert_eq!(picked(&[(1, true), (1, false), (1, true)], 1), Some(2));
        assert_eq!(picked(&[(0, false), (0, false)], 1), None);
        assert_eq!(picked(&[], 3), None);
        assert_eq!(picked(&[(0, true)], usize::MAX), Some(0));
    }
}
