//! The requests of one worker that wait, and what each of them waits for.

use slab::Slab;

use super::Place;
use super::route::{Target, path_alone};

/// Shells of departed waiters kept for the next ones. Enough for the waves of a busy worker, some 100 KiB at most.
const SPARE_SHELLS: usize = 1024;

/// A shell that has grown beyond this is not kept: one client with a very long path is not paid for in memory for ever.
/// In bytes.
const SHELL_TEXT_KEPT: usize = 512;

/// A waiting request; good until it is matched or forgotten, and recognised as stale after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaiterId {
    pub(super) key: u32,
    stamp: u32,
}

/// How far a waiting request has got in the list of routes that could serve it. It asks for the most specific route
/// first and for the next one only when the first has no bridge parked anywhere, so it enters their queues one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has just come and is on its way down the list.
    Arriving,
    /// It has waited, now or before, and is on its way down the list.
    Advancing,
    /// It stopped at the last queue it entered: a bridge of that route is expected from another worker.
    Held,
    /// It is in every queue it could be in.
    Everywhere,
}

/// The parts of a waiter that own memory, kept for the next waiter.
#[derive(Debug, Default)]
struct Shell {
    /// Host, fallback and path, one behind the other.
    text: String,
    candidates: Vec<u32>,
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) request: u64,
    pub(super) place: Place,
    /// How many of `candidates`, from the front, have this request in their queue.
    pub(super) entered: usize,
    pub(super) standing: Standing,
    stamp: u32,
    host_len: usize,
    /// 0 if there is no fallback.
    fallback_len: usize,
    shell: Shell,
}

impl Waiter {
    /// The routes that could serve it, most specific first. Empty if nobody serves its name.
    pub(super) fn candidates(&self) -> &[u32] {
        &self.shell.candidates
    }

    /// What it asks for, to be matched against routes that come later.
    pub(super) fn target(&self) -> Target<'_> {
        let (host, rest) = self.shell.text.split_at(self.host_len);
        let (fallback, path) = rest.split_at(self.fallback_len);
        Target { host, fallback: Some(fallback).filter(|name| !name.is_empty()), path }
    }

    /// The route at which it stopped, if it did.
    pub(super) fn held_at(&self) -> Option<u32> {
        match self.standing {
            Standing::Held => Some(self.shell.candidates[self.entered - 1]),
            Standing::Arriving | Standing::Advancing | Standing::Everywhere => None,
        }
    }

    /// Puts other routes in the place of its candidates; the old ones are left in `candidates`.
    pub(super) fn swap_candidates(&mut self, candidates: &mut Vec<u32>) {
        std::mem::swap(&mut self.shell.candidates, candidates);
    }
}

/// Every waiting request of this worker.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    all: Slab<Waiter>,
    spare: Vec<Shell>,
    stamp: u32,
}

impl Waiters {
    /// How many requests wait.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Adds a request that has just arrived and entered no queue yet.
    pub(super) fn insert(
        &mut self,
        request: u64,
        place: Place,
        target: &Target<'_>,
        candidates: &[u32],
    ) -> u32 {
        let mut shell = self.spare.pop().unwrap_or_default();
        let fallback = target.fallback.unwrap_or_default();
        shell.text.push_str(target.host);
        shell.text.push_str(fallback);
        shell.text.push_str(path_alone(target.path));
        shell.candidates.extend_from_slice(candidates);
        self.stamp = self.stamp.wrapping_add(1);
        self.all.insert(Waiter {
            request,
            place,
            entered: 0,
            standing: Standing::Arriving,
            stamp: self.stamp,
            host_len: target.host.len(),
            fallback_len: fallback.len(),
            shell,
        }) as u32
    }

    /// Drops a request that has left every queue.
    pub(super) fn remove(&mut self, key: u32) {
        let mut shell = self.all.remove(key as usize).shell;
        if self.spare.len() < SPARE_SHELLS && shell.text.capacity() <= SHELL_TEXT_KEPT {
            shell.text.clear();
            shell.candidates.clear();
            self.spare.push(shell);
        }
    }

    /// The name by which the world outside knows the request.
    pub(super) fn id(&self, key: u32) -> WaiterId {
        WaiterId { key, stamp: self[key].stamp }
    }

    /// Whether the request still waits.
    pub(super) fn contains(&self, id: WaiterId) -> bool {
        self.all.get(id.key as usize).is_some_and(|waiter| waiter.stamp == id.stamp)
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Waiter)> {
        self.all.iter().map(|(key, waiter)| (key as u32, waiter))
    }
}

impl std::ops::Index<u32> for Waiters {
    type Output = Waiter;

    fn index(&self, key: u32) -> &Waiter {
        &self.all[key as usize]
    }
}

impl std::ops::IndexMut<u32> for Waiters {
    fn index_mut(&mut self, key: u32) -> &mut Waiter {
        &mut self.all[key as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_not_good_for_the_next_in_the_same_place() {
        let mut waiters = Waiters::default();
        let place = Place { seq: 1, since: 2 };
        let key = waiters.insert(7, place, &Target::new("a.example", "/x?q"), &[3, 4]);
        let id = waiters.id(key);
        assert!(waiters.contains(id));
        assert_eq!(waiters[key].target(), Target::new("a.example", "/x"));
        assert_eq!(waiters[key].candidates(), [3, 4]);
        waiters.remove(key);
        let next =
            waiters.insert(8, place, &Target { host: "b", fallback: Some("c"), path: "/" }, &[]);
        assert_eq!(next, key);
        assert!(!waiters.contains(id));
        assert_eq!(waiters[next].target(), Target { host: "b", fallback: Some("c"), path: "/" });
        assert!(waiters[next].candidates().is_empty());
    }

    #[test]
    fn large_shells_are_not_kept() {
        let mut waiters = Waiters::default();
        let key = waiters.insert(
            1,
            Place { seq: 1, since: 1 },
            &Target::new("a", &"/".repeat(4096)),
            &[],
        );
        waiters.remove(key);
        assert!(waiters.spare.is_empty());
    }
}
