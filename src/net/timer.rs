//! Deadlines: one per connection, coarse, and cheap to move.
//!
//! A wheel of slots, each [`TICK`] milliseconds wide. A connection is in at most one slot. Moving
//! its deadline *later*, which is what nearly every request does, writes one word: the connection
//! stays in the slot where it is and is filed again when that slot comes round. Moving it *earlier*
//! files it at once. So a deadline is never missed, fires at most one tick late, and a closed
//! connection leaves nothing behind.

use crate::time::Millis;

/// The width of a slot, in milliseconds. The shortest default timeouts are the agent's 300 ms to
/// get a matched bridge ready and the proxy's half second to wait for its acknowledgement; a tick
/// of lateness matters to neither.
pub const TICK: u64 = 64;

/// How many slots the wheel has: 65 seconds in all, so that the common timeouts are filed once.
/// A later deadline passes round more than once.
const SLOTS: usize = 1024;

const WORDS: usize = SLOTS / u64::BITS as usize;

const NONE: u32 = u32::MAX;

/// A connection's place in the wheel; 16 bytes, in a table beside the connections so that
/// moving a deadline touches one cache line.
#[derive(Clone, Copy)]
struct Node {
    /// When it fires, in ticks; meaningless while the node is not filed.
    due: u32,
    /// The tick whose slot it is in, or [`NONE`].
    filed: u32,
    next: u32,
    prev: u32,
}

const UNFILED: Node = Node { due: 0, filed: NONE, next: NONE, prev: NONE };

/// The deadlines of one worker's connections, by slab key.
pub struct Timers {
    nodes: Vec<Node>,
    heads: Box<[u32; SLOTS]>,
    /// One bit per occupied slot, so that the next one is found in a few steps.
    occupied: [u64; WORDS],
    /// Every slot of an earlier tick has been emptied.
    current: u32,
    /// No slot of an earlier tick is occupied. Kept, because every turn asks for it. It may be too
    /// early: taking out a deadline does not move it.
    earliest: u32,
    filed: usize,
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            nodes: Vec::new(),
            heads: Box::new([NONE; SLOTS]),
            occupied: [0; WORDS],
            current: 0,
            earliest: NONE,
            filed: 0,
        }
    }
}

impl Timers {
    /// Sets the deadline of `key`.
    pub fn set(&mut self, key: usize, at: Millis) {
        if key >= self.nodes.len() {
            self.nodes.resize(key + 1, UNFILED);
        }
        // Rounded up: a deadline may be late, never early.
        let due = u32::try_from(at.0 / TICK + 1).unwrap_or(NONE - 1);
        let node = &mut self.nodes[key];
        node.due = due;
        if node.filed == NONE {
            self.file(key as u32);
        } else if due < node.filed {
            self.unfile(key as u32);
            self.file(key as u32);
        }
    }

    /// The deadline of `key`, if it has one: as exactly as it is kept, and set again it is the same.
    #[must_use]
    pub fn get(&self, key: usize) -> Option<Millis> {
        let node = self.nodes.get(key).filter(|node| node.filed != NONE)?;
        Some(Millis(u64::from(node.due.saturating_sub(1)) * TICK))
    }

    /// Removes the deadline of `key`, if it has one.
    pub fn clear(&mut self, key: usize) {
        if self.nodes.get(key).is_some_and(|node| node.filed != NONE) {
            self.unfile(key as u32);
        }
    }

    /// When something may be due; `None` when there is no deadline.
    #[must_use]
    pub fn next_due(&self) -> Option<Millis> {
        (self.filed > 0).then(|| Millis(u64::from(self.earliest) * TICK))
    }

    /// How many slots the next occupied one is away from the current one.
    fn steps_to_occupied(&self) -> u32 {
        let start = slot(self.current);
        let (word, bit) = (start / 64, start % 64);
        let first = self.occupied[word] >> bit;
        if first != 0 {
            return first.trailing_zeros();
        }
        // The last step visits the first word again, for its bits before the start.
        (1..=WORDS)
            .map(|step| (step, self.occupied[(word + step) % WORDS]))
            .find(|(_, bits)| *bits != 0)
            .map_or(0, |(step, bits)| (step * 64 - bit) as u32 + bits.trailing_zeros())
    }

    /// Moves every key whose deadline has passed at `now` into `due`; their deadlines are cleared.
    pub fn expire(&mut self, now: Millis, due: &mut Vec<usize>) {
        let now = u32::try_from(now.0 / TICK).unwrap_or(NONE - 1);
        if now < self.earliest {
            self.current = self.current.max(now);
            return;
        }
        // After a long sleep one round sees every slot; more rounds would see nothing new.
        let first = self.current.max(now.saturating_sub(SLOTS as u32));
        if self.filed > 0 {
            for tick in first..=now {
                self.empty_slot(slot(tick), now, due);
            }
        }
        self.current = self.current.max(now);
        self.earliest = match self.filed {
            0 => NONE,
            _ => self.current.saturating_add(self.steps_to_occupied()),
        };
    }

    fn empty_slot(&mut self, slot: usize, now: u32, due: &mut Vec<usize>) {
        let mut at = std::mem::replace(&mut self.heads[slot], NONE);
        self.occupied[slot / 64] &= !(1 << (slot % 64));
        while at != NONE {
            let node = &mut self.nodes[at as usize];
            let next = node.next;
            *node = Node { due: node.due, ..UNFILED };
            self.filed -= 1;
            if node.due <= now {
                due.push(at as usize);
            } else {
                self.file_after(at, now);
            }
            at = next;
        }
    }

    fn file(&mut self, key: u32) {
        self.file_after(key, self.current);
    }

    /// Files `key` in the slot of its deadline, or in the last slot of this round when the
    /// deadline is further away than that; never in a slot that the wheel has just passed.
    fn file_after(&mut self, key: u32, passed: u32) {
        let due = self.nodes[key as usize].due;
        let tick = due.clamp(passed.saturating_add(1), passed.saturating_add(SLOTS as u32 - 1));
        self.occupied[slot(tick) / 64] |= 1 << (slot(tick) % 64);
        self.earliest = self.earliest.min(tick);
        let head = &mut self.heads[slot(tick)];
        let next = std::mem::replace(head, key);
        if next != NONE {
            self.nodes[next as usize].prev = key;
        }
        self.nodes[key as usize] = Node { due, filed: tick, next, prev: NONE };
        self.filed += 1;
    }

    fn unfile(&mut self, key: u32) {
        let node = self.nodes[key as usize];
        if node.prev == NONE {
            let slot = slot(node.filed);
            self.heads[slot] = node.next;
            if node.next == NONE {
                self.occupied[slot / 64] &= !(1 << (slot % 64));
            }
        } else {
            self.nodes[node.prev as usize].next = node.next;
        }
        if node.next != NONE {
            self.nodes[node.next as usize].prev = node.prev;
        }
        self.nodes[key as usize].filed = NONE;
        self.filed -= 1;
    }
}

fn slot(tick: u32) -> usize {
    tick as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expired(timers: &mut Timers, now: u64) -> Vec<usize> {
        let mut due = Vec::new();
        timers.expire(Millis(now), &mut due);
        due.sort_unstable();
        due
    }

    #[test]
    fn a_deadline_fires_once_not_early_and_at_most_two_ticks_late() {
        let mut timers = Timers::default();
        timers.set(3, Millis(500));
        assert_eq!(expired(&mut timers, 499), Vec::<usize>::new());
        assert_eq!(expired(&mut timers, 500 + 2 * TICK), [3]);
        assert_eq!(expired(&mut timers, 10_000), Vec::<usize>::new());
        assert_eq!(timers.next_due(), None);
    }

    #[test]
    fn a_deadline_that_is_set_again_is_the_same() {
        let mut timers = Timers::default();
        assert_eq!(timers.get(3), None);
        timers.set(3, Millis(1_000));
        let at = timers.get(3).unwrap();
        assert!(at <= Millis(1_000) && at > Millis(1_000 - TICK), "{at:?}");
        timers.set(4, at);
        assert_eq!(timers.get(4), Some(at));
        timers.clear(3);
        assert_eq!(timers.get(3), None);
    }

    #[test]
    fn moving_it_later_and_earlier_counts() {
        let mut timers = Timers::default();
        timers.set(0, Millis(60_000));
        timers.set(0, Millis(500));
        assert_eq!(expired(&mut timers, 700), [0]);
        timers.set(1, Millis(1_000));
        timers.set(1, Millis(5_000));
        assert_eq!(expired(&mut timers, 2_000), Vec::<usize>::new());
        assert_eq!(expired(&mut timers, 5_200), [1]);
    }

    #[test]
    fn a_deadline_beyond_the_wheel_passes_round() {
        let mut timers = Timers::default();
        timers.set(0, Millis(3_600_000));
        for now in (0..3_600_000).step_by(1000) {
            assert_eq!(expired(&mut timers, now), Vec::<usize>::new());
        }
        assert_eq!(expired(&mut timers, 3_600_200), [0]);
    }

    #[test]
    fn a_cleared_deadline_is_gone() {
        let mut timers = Timers::default();
        for key in 0..5 {
            timers.set(key, Millis(1_000));
        }
        timers.clear(2);
        timers.clear(2);
        timers.clear(99);
        assert_eq!(expired(&mut timers, 2_000), [0, 1, 3, 4]);
    }

    #[test]
    fn after_a_long_sleep_all_that_is_due_fires() {
        let mut timers = Timers::default();
        timers.set(0, Millis(100));
        timers.set(1, Millis(1_000_000));
        assert_eq!(expired(&mut timers, 900_000_000), [0, 1]);
    }

    #[test]
    fn random_deadlines_fire_when_a_sorted_list_says() {
        let mut timers = Timers::default();
        let mut expected = vec![None; 64];
        let (mut seed, mut now) = (0x9e37_79b9_7f4a_7c15_u64, 0u64);
        for _ in 0..200_000 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let key = (seed >> 8) as usize % expected.len();
            match seed % 8 {
                0..=4 => {
                    let at = now + (seed >> 20) % 100_000;
                    timers.set(key, Millis(at));
                    expected[key] = Some(at);
                }
                5 => {
                    timers.clear(key);
                    expected[key] = None;
                }
                _ => {
                    now += (seed >> 20) % 300;
                    for key in expired(&mut timers, now) {
                        let at = expected[key].take().expect("fired without a deadline");
                        assert!(at <= now, "fired early");
                    }
                    for at in expected.iter().flatten() {
                        assert!(at + 2 * TICK > now, "fires too late");
                    }
                    assert!(
                        timers.next_due().is_some_and(|due| {
                            expected.iter().flatten().all(|at| due.0 <= at + 2 * TICK)
                        }) || expected.iter().flatten().count() == 0
                    );
                }
            }
        }
    }
}
