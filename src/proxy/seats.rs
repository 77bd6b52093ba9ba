//! The keys that bridges are let in by, and the limits in them: how many bridges may be connected at once by one.
//!
//! A bridge takes a seat for each limited key that it needs before it is let in, and holds it as long as it
//! exists, whichever worker it moves to. Counting is under one lock, so two workers cannot both take the last
//! seat; it is locked when a bridge with a limited key comes or goes, never for a request.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bridge::hostkey::Grant;

use super::stats::KeyCount;

/// What a bridge holds of the keys that it was let in by, as long as it exists: it is counted under their names,
/// and has a seat of each limit. Dropping this ends both.
pub struct KeysHeld {
    counts: Arc<[Arc<KeyCount>]>,
    _seats: Box<[Seat]>,
}

impl KeysHeld {
    /// Counts a bridge in `counts`.
    #[must_use]
    pub fn new(counts: Arc<[Arc<KeyCount>]>, seats: Box<[Seat]>) -> KeysHeld {
        counts.iter().for_each(|key| _ = key.bridges.fetch_add(1, Ordering::Relaxed));
        KeysHeld { counts, _seats: seats }
    }

    /// Counts that the bridge has so many clients more.
    pub fn count_clients(&self, change: i64) {
        self.counts.iter().for_each(|key| _ = key.clients.fetch_add(change, Ordering::Relaxed));
    }
}

impl Drop for KeysHeld {
    fn drop(&mut self) {
        self.counts.iter().for_each(|key| _ = key.bridges.fetch_sub(1, Ordering::Relaxed));
    }
}

/// What bridges are counted by. Not the key itself: a key that is replaced by a newer one with the same name and
/// limit, before it expires, must not double what its owner may connect meanwhile.
type Limited = (String, NonZeroU32);

/// Seats taken. A limit of which none are is not in it, so it has no more entries than there are bridges.
type Taken = HashMap<Limited, u32>;

/// The seats of all limited keys, for all workers.
#[derive(Default)]
pub struct Seats {
    taken: Arc<Mutex<Taken>>,
}

/// One bridge's share of one limit. Dropping it gives it back.
pub struct Seat {
    taken: Arc<Mutex<Taken>>,
    limited: Limited,
}

/// A key allows no more bridges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Full {
    /// The name in the key.
    pub name: String,
    /// How many it allows.
    pub limit: NonZeroU32,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Full { name, limit } = self;
        write!(f, "as many bridges as the Host-Key for {name} allows are connected: {limit}")
    }
}

impl Seats {
    /// Takes a seat for each of the grants that has a limit: all of them, or none.
    ///
    /// # Errors
    /// The first that has no seat left.
    pub fn take(&self, grants: &[Grant]) -> Result<Box<[Seat]>, Full> {
        let limits = grants.iter().filter_map(|grant| Some((&grant.name, grant.bridges?)));
        limits.map(|(name, limit)| self.take_one(name, limit)).collect()
    }

    fn take_one(&self, name: &str, limit: NonZeroU32) -> Result<Seat, Full> {
        let limited = (name.to_owned(), limit);
        let mut taken = lock(&self.taken);
        let count = taken.get(&limited).copied().unwrap_or(0);
        if count >= limit.get() {
            return Err(Full { name: limited.0, limit });
        }
        taken.insert(limited.clone(), count + 1);
        Ok(Seat { taken: Arc::clone(&self.taken), limited })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        match taken.get_mut(&self.limited) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = taken.remove(&self.limited),
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(name: &str, limit: u32) -> Grant {
        Grant { name: name.to_owned(), bridges: NonZeroU32::new(limit) }
    }

    #[test]
    fn a_limit_holds_until_a_seat_is_given_back() {
        let seats = Seats::default();
        let two = [grant("a.test", 2)];
        let first = seats.take(&two).unwrap();
        let second = seats.take(&two).unwrap();
        let full = seats.take(&two).err().unwrap();
        assert_eq!(
            full.to_string(),
            "as many bridges as the Host-Key for a.test allows are connected: 2"
        );
        drop(first);
        let third = seats.take(&two).unwrap();
        assert!(seats.take(&two).is_err());
        drop((second, third));
        assert!(lock(&seats.taken).is_empty());
    }

    #[test]
    fn names_and_limits_are_counted_apart() {
        let seats = Seats::default();
        let _all = [("a.test", 1), ("b.test", 1), ("a.test", 2), ("a.test", 2)]
            .map(|(name, limit)| seats.take(&[grant(name, limit)]).unwrap());
        assert!(seats.take(&[grant("a.test", 1)]).is_err());
        assert!(seats.take(&[grant("a.test", 2)]).is_err());
        assert!(seats.take(&[grant("b.test", 2)]).is_ok());
    }

    #[test]
    fn without_a_limit_there_is_nothing_to_take() {
        let seats = Seats::default();
        assert!(seats.take(&[]).unwrap().is_empty());
        assert!(seats.take(&[grant("a.test", 0), grant("b.test", 0)]).unwrap().is_empty());
    }

    #[test]
    fn whoever_cannot_have_all_takes_none() {
        let seats = Seats::default();
        let _held = seats.take(&[grant("b.test", 1)]).unwrap();
        assert!(seats.take(&[grant("a.test", 1), grant("b.test", 1)]).is_err());
        assert!(seats.take(&[grant("a.test", 1)]).is_ok());
    }

    #[test]
    fn workers_that_race_for_the_last_seats_do_not_exceed_the_limit() {
        let seats = Seats::default();
        let grants = [grant("a.test", 3)];
        let (start, end) = (std::sync::Barrier::new(8), std::sync::Barrier::new(8));
        let race = || {
            start.wait();
            let seat = seats.take(&grants).ok();
            end.wait();
            usize::from(seat.is_some())
        };
        for _ in 0..100 {
            let won: usize = std::thread::scope(|scope| {
                let racers: Vec<_> = (0..8).map(|_| scope.spawn(race)).collect();
                racers.into_iter().map(|racer| racer.join().unwrap()).sum()
            });
            assert_eq!(won, 3);
        }
        assert!(lock(&seats.taken).is_empty());
    }
}
