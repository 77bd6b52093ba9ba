//! The backends of one route that have a name, which requests may stick to, and the requests that
//! wait for one of them (`doc/protocol.md`, "Instances").
//!
//! A bridge of an instance is in its route's idle list like any other. Which of them are whose is
//! noted only once a request has asked for an instance: before, a bridge that parks costs nothing
//! here.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::time::Micros;

use super::groups::Spot;
use super::order::{QueuePos, WaiterId};
use super::queue::{Queue, Waiting};
use super::wanted::InstanceId;

/// How long an instance without a bridge is still waited for: a program that is restarted comes back
/// within this time, or is not expected to.
pub(super) const LATELY: Duration = Duration::from_secs(60);

/// Most instances that have left and are remembered, some 200 bytes each: a backend that comes under
/// ever new names must not fill the memory.
const GONE_MAX: usize = 1024;

/// The instances of a route.
#[derive(Debug, Default)]
pub(super) struct Instances {
    by_id: HashMap<InstanceId, Instance>,
    /// Each idle bridge is noted at its instance.
    pub(super) are_noted: bool,
    /// Requests that wait for one of them, on all workers.
    pub(super) waiting: u32,
    /// Those of them that the bound on the route's queue counts, by worker, up to the highest that has
    /// had one; and on all workers.
    admitted: Vec<u32>,
    admitted_in_all: u32,
    /// The instances that have left, each once, with the time of that. Some have come again.
    left: VecDeque<(Micros, InstanceId)>,
}

#[derive(Debug, Default)]
struct Instance {
    /// Bridges connected, parked or not.
    members: u32,
    /// When the last of them left; `None` if none has, or if that is forgotten. While it is known, the
    /// instance is in [`Instances::left`].
    left_at: Option<Micros>,
    /// Nothing waits for it, until a bridge joins again.
    is_shunned: bool,
    /// Its parked bridges that may get a request, in no order.
    idle: Vec<Spot>,
    /// The requests that only it may serve, by worker, up to the highest that has had one.
    queues: Vec<Queue>,
}

impl Instance {
    fn is_waited_for(&self) -> bool {
        self.queues.iter().any(|queue| queue.len() > 0)
    }

    /// Whether a request may wait for it: it is connected, or was lately.
    fn is_there(&self, now: Micros) -> bool {
        let was_lately = |left: Micros| now.since(left) < LATELY;
        !self.is_shunned && (self.members > 0 || self.left_at.is_some_and(was_lately))
    }
}

impl Instances {
    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Adds a bridge.
    pub(super) fn join(&mut self, id: InstanceId) {
        let instance = self.by_id.entry(id).or_default();
        instance.members += 1;
        instance.is_shunned = false;
    }

    /// Takes a bridge away that is not parked.
    pub(super) fn leave(&mut self, id: InstanceId, now: Micros) {
        let Some(instance) = self.by_id.get_mut(&id) else { return };
        instance.members -= 1;
        if instance.members == 0 {
            instance.idle = Vec::new();
            if !instance.is_waited_for() {
                instance.queues = Vec::new();
            }
            self.note_left(id, now);
        }
    }

    /// An instance was here in the program that this one replaces, at last at this time.
    pub(super) fn expect(&mut self, id: InstanceId, last: Micros) {
        if self.by_id.entry(id).or_default().members == 0 {
            self.note_left(id, last);
        }
    }

    fn note_left(&mut self, id: InstanceId, at: Micros) {
        let Some(instance) = self.by_id.get_mut(&id) else { return };
        if instance.left_at.replace(at).is_none() {
            self.left.push_back((at, id));
        }
        self.forget_late(at);
    }

    /// An instance is not to be waited for, until a bridge of it joins again.
    pub(super) fn shun(&mut self, id: InstanceId) {
        if let Some(instance) = self.by_id.get_mut(&id) {
            instance.is_shunned = true;
        }
    }

    /// Forgets those that left long ago, and the first to leave if there are too many.
    pub(super) fn forget_late(&mut self, now: Micros) {
        while let Some(&(at, id)) = self.left.front() {
            let is_last = |of: &Instance| of.members > 0 || of.left_at == Some(at);
            let left_at = self.by_id.get(&id).filter(|of| !is_last(of)).and_then(|of| of.left_at);
            let are_many = self.left.len() > GONE_MAX;
            if now.since(at) < LATELY && !are_many {
                return;
            }
            self.left.pop_front();
            match left_at {
                // It has come again meanwhile, and left again.
                Some(later) if !are_many => self.left.push_back((later, id)),
                _ => self.forget(id),
            }
        }
    }

    /// An instance is listed no longer.
    fn forget(&mut self, id: InstanceId) {
        if let Some(instance) = self.by_id.get_mut(&id) {
            instance.left_at = None;
            self.drop_unused(id);
        }
    }

    fn drop_unused(&mut self, id: InstanceId) {
        let is_unused = |instance: &Instance| {
            instance.members == 0 && instance.left_at.is_none() && !instance.is_waited_for()
        };
        if self.by_id.get(&id).is_some_and(is_unused) {
            self.by_id.remove(&id);
        }
    }

    /// Whether a request may wait for it: a bridge of it is connected, or was lately.
    pub(super) fn is_there(&self, id: InstanceId, now: Micros) -> bool {
        self.by_id.get(&id).is_some_and(|instance| instance.is_there(now))
    }

    /// All that a request may wait for, and until when each was connected: now, or before.
    pub(super) fn all_there(&self, now: Micros) -> impl Iterator<Item = (InstanceId, Micros)> {
        let there = self.by_id.iter().filter(move |(_, instance)| instance.is_there(now));
        there.map(move |(id, instance)| {
            let left_at = instance.left_at.filter(|_| instance.members == 0);
            (*id, left_at.unwrap_or(now))
        })
    }

    /// Its idle bridges.
    pub(super) fn idle(&self, id: InstanceId) -> &[Spot] {
        self.by_id.get(&id).map_or(&[], |instance| &instance.idle)
    }

    /// Notes an idle bridge of it; returns its place among them.
    pub(super) fn note(&mut self, id: InstanceId, spot: Spot) -> u32 {
        let instance = self.by_id.entry(id).or_default();
        instance.idle.push(spot);
        instance.idle.len() as u32 - 1
    }

    /// The bridge at this place is idle no longer. Returns the one that has its place now.
    pub(super) fn unnote(&mut self, id: InstanceId, at: u32) -> Option<Spot> {
        let idle = &mut self.by_id.get_mut(&id)?.idle;
        idle.swap_remove(at as usize);
        idle.get(at as usize).copied()
    }

    /// Puts a request into the queue of its instance. No bridge of that may be idle.
    pub(super) fn enter(&mut self, id: InstanceId, waiting: Waiting) -> u32 {
        let (instance, worker) = (self.by_id.entry(id).or_default(), waiting.worker);
        if instance.queues.len() <= worker {
            instance.queues.resize_with(worker + 1, Queue::default);
        }
        if self.admitted.len() <= worker {
            self.admitted.resize(worker + 1, 0);
        }
        let counted = u32::from(waiting.admitted);
        self.waiting += 1;
        self.admitted[worker] += counted;
        self.admitted_in_all += counted;
        instance.queues[worker].enter(waiting)
    }

    /// Takes a request of worker `me` out, if it is still there.
    pub(super) fn withdraw(&mut self, id: InstanceId, me: usize, entry: u32, waiter: WaiterId) {
        self.taken(id, me, |queue| queue.withdraw(entry, waiter));
    }

    /// Takes out the oldest request for it that waits on a worker.
    pub(super) fn pop(&mut self, id: InstanceId, worker: usize) -> Option<Waiting> {
        self.taken(id, worker, Queue::pop)
    }

    fn taken(
        &mut self,
        id: InstanceId,
        worker: usize,
        take: impl FnOnce(&mut Queue) -> Option<Waiting>,
    ) -> Option<Waiting> {
        let taken = take(self.by_id.get_mut(&id)?.queues.get_mut(worker)?)?;
        let counted = u32::from(taken.admitted);
        self.waiting -= 1;
        self.admitted[worker] -= counted;
        self.admitted_in_all -= counted;
        self.drop_unused(id);
        Some(taken)
    }

    /// The queues of those requests that wait for it, by worker; empty if none does.
    pub(super) fn queues(&self, id: InstanceId) -> &[Queue] {
        if self.waiting == 0 {
            return &[];
        }
        self.by_id.get(&id).map_or(&[], |instance| &instance.queues)
    }

    /// The place of the oldest request for it on any worker.
    pub(super) fn first(&self, id: InstanceId) -> Option<QueuePos> {
        self.queues(id).iter().filter_map(Queue::first).min_by_key(|first| first.since)
    }

    /// When the oldest of all requests for one of them arrived. Looks at all of them.
    pub(super) fn oldest(&self) -> Option<Micros> {
        let all = || self.all_queues().filter_map(Queue::first).map(|first| first.since).min();
        (self.waiting > 0).then(all).flatten()
    }

    /// How many of the requests that the bound counts wait on a worker, or on all.
    pub(super) fn admitted(&self, worker: Option<usize>) -> usize {
        let count = match worker {
            None => self.admitted_in_all,
            Some(worker) => self.admitted.get(worker).copied().unwrap_or(0),
        };
        count as usize
    }

    fn all_queues(&self) -> impl Iterator<Item = &Queue> {
        self.by_id.values().flat_map(|instance| &instance.queues)
    }

    #[cfg(test)]
    pub(super) fn ids(&self) -> impl Iterator<Item = InstanceId> + '_ {
        self.by_id.keys().copied()
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let waiting: usize = self.all_queues().map(Queue::len).sum();
        assert_eq!(waiting, self.waiting as usize);
        for (worker, admitted) in self.admitted.iter().enumerate() {
            let queues = self.by_id.values().filter_map(|instance| instance.queues.get(worker));
            assert_eq!(queues.map(Queue::admitted).sum::<usize>(), *admitted as usize);
        }
        assert_eq!(self.admitted.iter().sum::<u32>(), self.admitted_in_all);
        let mut listed: Vec<u64> = self.left.iter().map(|(_, id)| id.number()).collect();
        listed.sort_unstable();
        listed.dedup();
        assert_eq!(listed.len(), self.left.len());
        assert_eq!(listed.len(), self.by_id.values().filter(|of| of.left_at.is_some()).count());
        for instance in self.by_id.values() {
            assert!(instance.idle.is_empty() || !instance.is_waited_for(), "one waits beside one");
            assert!(instance.idle.len() <= instance.members as usize);
            assert!(instance.left_at.is_some() || instance.members > 0 || instance.is_waited_for());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> InstanceId {
        InstanceId::new(number)
    }

    #[test]
    fn an_instance_is_there_for_a_while_after_its_last_bridge() {
        let mut instances = Instances::default();
        assert!(!instances.is_there(id(1), Micros(0)));
        (0..2).for_each(|_| instances.join(id(1)));
        instances.leave(id(1), Micros(5));
        assert!(instances.is_there(id(1), Micros(u64::MAX)));
        instances.leave(id(1), Micros(7));
        let over = Micros(7) + LATELY;
        assert!(instances.is_there(id(1), Micros(over.0 - 1)) && !instances.is_there(id(1), over));
        instances.check();
    }

    #[test]
    fn an_instance_that_is_shunned_is_not_waited_for_until_a_bridge_joins() {
        let mut instances = Instances::default();
        instances.shun(id(1));
        instances.join(id(1));
        instances.shun(id(1));
        assert!(!instances.is_there(id(1), Micros(1)), "it is connected");
        assert_eq!(instances.all_there(Micros(1)).count(), 0);
        instances.leave(id(1), Micros(1));
        assert!(!instances.is_there(id(1), Micros(2)), "it was lately");
        instances.join(id(1));
        assert!(instances.is_there(id(1), Micros(3)));
        instances.check();
    }

    #[test]
    fn instances_of_another_program_are_there_until_the_same_time() {
        let mut old = Instances::default();
        (1..=3).for_each(|number| old.join(id(number)));
        old.leave(id(2), Micros(5));
        old.leave(id(3), Micros(0));
        let now = Micros(0) + LATELY;
        let mut all: Vec<_> = old.all_there(now).collect();
        all.sort_unstable_by_key(|(id, _)| id.number());
        assert_eq!(all, [(id(1), now), (id(2), Micros(5))]);
        let mut new = Instances::default();
        new.join(id(1));
        all.into_iter().for_each(|(id, last)| new.expect(id, last));
        new.leave(id(1), Micros(now.0 + 1));
        assert!([1, 2].into_iter().all(|number| new.is_there(id(number), Micros(now.0 + 2))));
        assert!(!new.is_there(id(2), Micros(5) + LATELY) && new.is_there(id(1), now));
        new.check();
    }

    #[test]
    fn names_that_come_and_go_do_not_pile_up() {
        let mut instances = Instances::default();
        for number in 1..10_000 {
            instances.join(id(number));
            instances.leave(id(number), Micros(number));
            assert!(instances.by_id.len() <= GONE_MAX + 1);
        }
        // One that comes again for every request is listed once.
        for at in 10_000..20_000 {
            instances.join(id(9_999));
            instances.leave(id(9_999), Micros(at));
        }
        instances.check();
        assert_eq!(instances.left.len(), GONE_MAX);
        let later = Micros(9_999) + LATELY;
        instances.join(id(1));
        instances.leave(id(1), later);
        let left: Vec<_> = instances.left.iter().map(|(_, id)| id.number()).collect();
        assert_eq!(left, [1, 9_999]);
        assert!(instances.is_there(id(9_999), later));
        instances.check();
    }
}
