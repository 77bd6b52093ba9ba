//! How many requests the agent's descriptors are enough for.
//!
//! An agent that ran out of them would find its application and its proxies unreachable one moment
//! and reachable the next. So it dials only as many bridges as it can serve.

use crate::net::pipe::PIPES;

/// Descriptors that are no connections: standard streams, poll, waker, a file being read, the name
/// service; and a probe of each kind.
const OTHERS: usize = 16;

/// What the bridges of one application need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    /// Requests at once.
    pub limit: usize,
    /// Proxies, each with a bridge for every request.
    pub proxies: usize,
}

/// How many requests of each application `descriptors` are enough for: a request takes a bridge and
/// an upstream connection, and while none is there, a bridge at each proxy. At least one.
pub(super) fn requests(descriptors: usize, needs: &[Need]) -> usize {
    // Without a pipe a body is copied: slower, but no reason to serve fewer requests.
    let pipes = (2 * PIPES).min(descriptors / 4);
    // Each proxy may be asked to close the bridges, over a connection of its own.
    let proxies: usize = needs.iter().map(|need| need.proxies).sum();
    let room = descriptors.saturating_sub(pipes + OTHERS + proxies);
    let used = |each: usize| -> usize {
        needs.iter().map(|need| need.limit.min(each) * (need.proxies + 1)).sum()
    };
    let most = needs.iter().map(|need| need.limit).max().unwrap_or(1);
    // The largest number that fits; `used` never falls.
    let (mut fits, mut exceeds) = (1, most + 1);
    while fits + 1 < exceeds {
        let middle = fits.midpoint(exceeds);
        if used(middle) <= room { fits = middle } else { exceeds = middle }
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(limit: usize, proxies: usize) -> Need {
        Need { limit, proxies }
    }

    #[test]
    fn usual_limits_are_enough_for_everything() {
        assert_eq!(requests(1_024, &[need(100, 2)]), 100);
        assert_eq!(requests(1_048_576, &[need(10_000, 8), need(8, 1)]), 10_000);
    }

    #[test]
    fn few_descriptors_are_shared_by_applications_and_proxies() {
        // 64 less 16 for pipes, 16 others and one for each proxy.
        assert_eq!(requests(64, &[need(100, 1)]), 15);
        assert_eq!(requests(64, &[need(100, 2)]), 10);
        assert_eq!(requests(64, &[need(100, 1), need(2, 1)]), 13);
        assert_eq!(requests(16, &[need(100, 1)]), 1);
        assert_eq!(requests(64, &[]), 1);
    }
}
