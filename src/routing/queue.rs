//! The requests of one worker that wait for one route, in the order of their arrival.

use std::collections::VecDeque;

/// A queue that has run empty gives back what it holds beyond this many entries, so that one rush on one route is not
/// paid for in memory for ever. 1,024 entries are 24 KiB.
const KEPT_ENTRIES: usize = 1024;

/// Gaps that a queue may hold beyond as many as it has live entries. Small, and large enough that a short queue is not
/// swept at every departure.
const SPARE_GAPS: usize = 16;

/// One waiting request in the queue of one route.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// The order of arrival on this worker; no two requests share one.
    pub(super) seq: u64,
    /// When the request arrived, in microseconds.
    pub(super) since: u64,
    /// The request's key among the waiters of this worker, or [`GAP`].
    pub(super) waiter: u32,
}

/// Stands where a request has left from the middle of the queue.
const GAP: u32 = u32::MAX;

/// First come, first served, with departure from anywhere in O(log n): who leaves from the middle leaves a gap, and
/// the queue is swept when gaps outnumber the rest.
#[derive(Debug, Default)]
pub(super) struct WaitQueue {
    /// Rising by `seq`; the first entry is never a gap.
    entries: VecDeque<Entry>,
    live: usize,
}

impl WaitQueue {
    /// How many requests wait.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// The request that has waited longest.
    pub(super) fn front(&self) -> Option<Entry> {
        self.entries.front().copied()
    }

    /// Everyone who waits, first come first.
    pub(super) fn iter(&self) -> impl Iterator<Item = Entry> {
        self.entries.iter().copied().filter(|entry| entry.waiter != GAP)
    }

    /// Puts a request where its `seq` belongs: at the end, unless it has been here before and comes back.
    pub(super) fn insert(&mut self, entry: Entry) {
        self.live += 1;
        if self.entries.back().is_none_or(|last| last.seq < entry.seq) {
            return self.entries.push_back(entry);
        }
        let at = self.entries.partition_point(|other| other.seq < entry.seq);
        match self.entries.get_mut(at) {
            // It comes back to the very gap it left.
            Some(gap) if gap.seq == entry.seq => {
                debug_assert_eq!(gap.waiter, GAP, "two requests with one arrival number");
                *gap = entry;
            }
            _ => self.entries.insert(at, entry),
        }
    }

    /// Takes the request with this `seq` out. Says whether it was here.
    pub(super) fn remove(&mut self, seq: u64) -> bool {
        let at = if self.entries.front().is_some_and(|first| first.seq == seq) {
            0
        } else {
            match self.entries.binary_search_by_key(&seq, |entry| entry.seq) {
                Ok(at) if self.entries[at].waiter != GAP => at,
                _ => return false,
            }
        };
        self.entries[at].waiter = GAP;
        self.live -= 1;
        while self.entries.front().is_some_and(|first| first.waiter == GAP) {
            self.entries.pop_front();
        }
        if self.entries.len() > 2 * self.live + SPARE_GAPS {
            self.entries.retain(|entry| entry.waiter != GAP);
        }
        if self.entries.is_empty() && self.entries.capacity() > KEPT_ENTRIES {
            self.entries.shrink_to(KEPT_ENTRIES);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(seqs: impl IntoIterator<Item = u64>) -> WaitQueue {
        let mut queue = WaitQueue::default();
        for seq in seqs {
            queue.insert(Entry { seq, since: seq * 10, waiter: seq as u32 });
        }
        queue
    }

    fn seqs(queue: &WaitQueue) -> Vec<u64> {
        queue.iter().map(|entry| entry.seq).collect()
    }

    #[test]
    fn order_is_by_arrival_also_for_those_who_come_back() {
        let mut queue = queue([3, 4, 7]);
        queue.insert(Entry { seq: 1, since: 10, waiter: 1 });
        queue.insert(Entry { seq: 5, since: 50, waiter: 5 });
        assert_eq!(seqs(&queue), [1, 3, 4, 5, 7]);
        assert_eq!(queue.front().unwrap().since, 10);
    }

    #[test]
    fn leaving_from_anywhere_keeps_the_rest_in_order() {
        let mut queue = queue(0..6);
        assert!(queue.remove(3) && !queue.remove(3) && !queue.remove(9));
        assert!(queue.remove(0));
        assert_eq!((seqs(&queue), queue.len()), (vec![1, 2, 4, 5], 4));
        // The gap at 3 is found again by the one who left it.
        queue.insert(Entry { seq: 3, since: 30, waiter: 3 });
        assert_eq!(seqs(&queue), [1, 2, 3, 4, 5]);
        for seq in [1, 2, 3, 4, 5] {
            assert!(queue.remove(seq));
        }
        assert!(queue.is_empty() && queue.front().is_none());
    }

    #[test]
    fn gaps_never_outnumber_the_rest_by_more_than_the_spare() {
        let mut queue = queue(0..10_000);
        for seq in 1..9_999 {
            assert!(queue.remove(seq));
            assert!(queue.entries.len() <= 2 * queue.live + SPARE_GAPS);
        }
        assert_eq!(seqs(&queue), [0, 9_999]);
        queue.remove(0);
        queue.remove(9_999);
        assert!(queue.entries.capacity() <= KEPT_ENTRIES);
    }
}
