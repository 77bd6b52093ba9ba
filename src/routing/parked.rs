//! The parked bridges of one worker, in one line per route.

use slab::Slab;

/// Stands for "no neighbour" in a line.
const NONE: u32 = u32::MAX;

/// A parked bridge's place in its line; good until the bridge is matched, sent away or taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    key: u32,
    /// Tells a ticket from an earlier one for the same key.
    stamp: u32,
}

#[derive(Debug)]
struct Slot {
    bridge: u64,
    route: u32,
    stamp: u32,
    earlier: u32,
    later: u32,
}

/// The line of one route: ends and length. The links are in [`ParkedBridges`].
#[derive(Debug)]
pub(super) struct Line {
    longest: u32,
    newest: u32,
    len: u32,
}

impl Line {
    /// A line in which nobody stands.
    pub(super) fn new() -> Self {
        Line { longest: NONE, newest: NONE, len: 0 }
    }

    /// How many bridges stand in it.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// Whether nobody stands in it.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Every parked bridge of this worker. A bridge leaves from anywhere in its line in O(1), and parking allocates
/// nothing once there have been as many bridges as there are now.
#[derive(Debug, Default)]
pub(super) struct ParkedBridges {
    slots: Slab<Slot>,
    stamp: u32,
}

impl ParkedBridges {
    /// How many bridges are parked here, on all routes.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Puts `bridge` at the end of `line`, which is `route`'s.
    pub(super) fn push(&mut self, line: &mut Line, route: u32, bridge: u64) -> Ticket {
        self.stamp = self.stamp.wrapping_add(1);
        let slot = Slot { bridge, route, stamp: self.stamp, earlier: line.newest, later: NONE };
        let key = self.slots.insert(slot) as u32;
        match line.newest {
            NONE => line.longest = key,
            newest => self.slots[newest as usize].later = key,
        }
        line.newest = key;
        line.len += 1;
        Ticket { key, stamp: self.stamp }
    }

    /// Takes the bridge out that has been parked longest.
    pub(super) fn pop_longest(&mut self, line: &mut Line) -> Option<u64> {
        (line.longest != NONE).then(|| self.unlink(line, line.longest))
    }

    /// The route whose line the ticket is for, if the bridge is still parked.
    pub(super) fn route_of(&self, ticket: Ticket) -> Option<u32> {
        self.slots
            .get(ticket.key as usize)
            .filter(|slot| slot.stamp == ticket.stamp)
            .map(|slot| slot.route)
    }

    /// Takes the ticket's bridge out of `line`, which must be that of [`Self::route_of`].
    pub(super) fn remove(&mut self, line: &mut Line, ticket: Ticket) -> u64 {
        self.unlink(line, ticket.key)
    }

    /// Bridges of a line, longest parked first.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn iter<'a>(&'a self, line: &Line) -> impl Iterator<Item = u64> + use<'a> {
        let mut next = line.longest;
        std::iter::from_fn(move || {
            let slot = (next != NONE).then(|| &self.slots[next as usize])?;
            next = slot.later;
            Some(slot.bridge)
        })
    }

    fn unlink(&mut self, line: &mut Line, key: u32) -> u64 {
        let slot = self.slots.remove(key as usize);
        match slot.earlier {
            NONE => line.longest = slot.later,
            earlier => self.slots[earlier as usize].later = slot.later,
        }
        match slot.later {
            NONE => line.newest = slot.earlier,
            later => self.slots[later as usize].earlier = slot.earlier,
        }
        line.len -= 1;
        slot.bridge
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_parked_goes_first_and_anyone_may_leave() {
        let (mut parked, mut line, mut other) =
            (ParkedBridges::default(), Line::new(), Line::new());
        let tickets: Vec<_> = (0..5).map(|bridge| parked.push(&mut line, 0, bridge)).collect();
        let elsewhere = parked.push(&mut other, 1, 9);
        assert_eq!(parked.remove(&mut line, tickets[2]), 2);
        assert_eq!(parked.route_of(tickets[2]), None);
        assert_eq!(parked.route_of(elsewhere), Some(1));
        assert_eq!(parked.pop_longest(&mut line), Some(0));
        assert_eq!(parked.remove(&mut line, tickets[4]), 4);
        assert_eq!(parked.iter(&line).collect::<Vec<_>>(), [1, 3]);
        assert_eq!((line.len(), parked.len()), (2, 3));
        assert_eq!(parked.pop_longest(&mut line), Some(1));
        assert_eq!(parked.pop_longest(&mut line), Some(3));
        assert_eq!(parked.pop_longest(&mut line), None);
        assert!(line.is_empty());
    }

    #[test]
    fn a_ticket_is_not_good_for_the_next_in_its_place() {
        let (mut parked, mut line) = (ParkedBridges::default(), Line::new());
        let first = parked.push(&mut line, 0, 1);
        parked.pop_longest(&mut line);
        let second = parked.push(&mut line, 0, 2);
        assert_eq!(first.key, second.key);
        assert_eq!(parked.route_of(first), None);
        assert_eq!(parked.route_of(second), Some(0));
    }
}
