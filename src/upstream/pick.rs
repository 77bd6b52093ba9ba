//! Which of several servers is dialled next.

/// One server, as far as the choice is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Candidate {
    /// Connections to it, on all workers.
    pub open: u32,
    /// Whether it is up and may have one more.
    pub free: bool,
}

/// The free server with the fewest connections; equals take turns, counted by `turn`.
pub(crate) fn pick(
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

    fn picked(servers: &[(u32, bool)], turn: usize) -> Option<usize> {
        pick(servers.iter().map(|&(open, free)| Candidate { open, free }), turn)
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
