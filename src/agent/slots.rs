//! The slots of an application (`-n`): how many requests it takes at once, and which bridges wait.

use std::collections::VecDeque;

use crate::net::token::Token;

/// What became of a bridge that needs a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Slot {
    Taken,
    /// It waits for one.
    Queued,
    /// There is none for it: the proxy, which is told so with this limit, gets its request back.
    None {
        limit: usize,
    },
}

/// Slots, given first come, first served.
pub(super) struct Slots {
    count: usize,
    /// How many are not taken here.
    free: usize,
    /// How many of these the program still has that this one replaces.
    elsewhere: usize,
    /// Bridges in order of arrival; may hold closed ones, which are skipped.
    queue: VecDeque<Token>,
}

impl Slots {
    pub fn new(count: usize) -> Slots {
        Slots { count, free: count, elsewhere: 0, queue: VecDeque::new() }
    }

    pub fn any_free(&self) -> bool {
        self.free() > 0
    }

    pub fn free(&self) -> usize {
        self.free.saturating_sub(self.elsewhere)
    }

    /// How many are taken, or will be by those that wait; with those elsewhere.
    pub fn claimed(&self) -> usize {
        (self.count - self.free + self.queue.len() + self.elsewhere).min(self.count)
    }

    /// Notes how many the program still has that this one replaces.
    pub fn set_elsewhere(&mut self, count: usize) {
        self.elsewhere = count;
    }

    /// Whether a bridge may wait for a slot.
    pub fn has_queue(&self) -> bool {
        !self.queue.is_empty()
    }

    /// How many bridges wait for a slot, with closed ones.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Takes a slot, which is free.
    pub fn take(&mut self) {
        self.free -= 1;
    }

    /// Lets a bridge wait for a slot.
    pub fn enqueue(&mut self, bridge: Token) {
        self.queue.push_back(bridge);
    }

    /// Takes a slot; false if `bridge` must queue for one.
    pub fn take_or_enqueue(&mut self, bridge: Token) -> bool {
        let takes = self.any_free() && self.queue.is_empty();
        if takes {
            self.take();
        } else {
            self.enqueue(bridge);
        }
        takes
    }

    /// Gives a free slot to the first bridge in the queue that still waits.
    pub fn grant(&mut self, waits: impl Fn(Token) -> bool) -> Option<Token> {
        while self.any_free() {
            let bridge = self.queue.pop_front()?;
            if waits(bridge) {
                self.free -= 1;
                return Some(bridge);
            }
        }
        None
    }

    pub fn release(&mut self) {
        self.free += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_given_first_come_first_served() {
        let [one, two, three, four] = [1, 2, 3, 4].map(|key| Token::conn(key, 0));
        let mut slots = Slots::new(1);
        assert!(slots.take_or_enqueue(one) && !slots.any_free());
        assert!(!slots.take_or_enqueue(two) && !slots.take_or_enqueue(three));
        assert_eq!(slots.grant(|_| true), None);
        slots.release();
        // A new bridge does not overtake the queue.
        assert!(!slots.take_or_enqueue(four));
        assert_eq!(slots.grant(|bridge| bridge != two), Some(three));
        assert_eq!(slots.grant(|_| true), None);
        slots.release();
        assert_eq!(slots.grant(|_| true), Some(four));
        assert!(!slots.has_queue() && !slots.any_free());
    }

    #[test]
    fn slots_that_another_program_has_are_not_given() {
        let [one, two, three] = [1, 2, 3].map(|key| Token::conn(key, 0));
        let mut slots = Slots::new(2);
        slots.set_elsewhere(1);
        assert!(slots.take_or_enqueue(one) && !slots.take_or_enqueue(two));
        assert_eq!((slots.claimed(), slots.grant(|_| true)), (2, None));
        slots.set_elsewhere(0);
        assert_eq!(slots.grant(|_| true), Some(two));
        // More than there are: its limit was another.
        slots.set_elsewhere(9);
        slots.release();
        assert!(!slots.any_free() && slots.claimed() == 2 && !slots.take_or_enqueue(three));
    }
}
