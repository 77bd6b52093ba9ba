//! The backends of one route that have a name, which requests may stick to, and the requests that
//! wait for one of them (`doc/protocol.md`, "Instances").
//!
//! A bridge of an instance is in its route's idle list like any other. Which of them are whose is
//! noted only once a request has asked for an instance: before, a bridge that parks costs nothing
//! here.

use std::collections::HashMap;
use std::time::Duration;

use crate::time::Micros;

use super::groups::Spot;
use super::order::{QueuePos, WaiterId};
use super::queue::{Queue, Waiting};
use super::wanted::InstanceId;

/// How long an instance without a bridge is still waited for: a program that is restarted comes back
/// within this time, or is not expected to.
pub(super) const LATELY: Duration = Duration::from_secs(60);

/// How many instances that have left are kept before it is seen which of them left long ago.
const GONE_UNSEEN: usize = 16;

/// Most instances that have left and are remembered, some 100 bytes each: a backend that comes under
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
    /// How many have left and are remembered.
    gone: usize,
}

#[derive(Debug, Default)]
struct Instance {
    /// Bridges connected, parked or not.
    members: u32,
    /// When the last of them left; `None` if none was ever here.
    left_at: Option<Micros>,
    /// Its parked bridges that may get a request, in no order.
    idle: Vec<Spot>,
    /// The requests that only it may serve, by worker, up to the highest that has had one.
    queues: Vec<Queue>,
}

impl Instance {
    fn is_waited_for(&self) -> bool {
        self.queues.iter().any(|queue| queue.len() > 0)
    }

    fn is_gone(&self) -> bool {
        self.members == 0 && self.left_at.is_some()
    }
}

impl Instances {
    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Adds a bridge.
    pub(super) fn join(&mut self, id: InstanceId) {
        let instance = self.by_id.entry(id).or_default();
        self.gone -= usize::from(instance.is_gone());
        instance.members += 1;
    }

    /// Takes a bridge away that is not parked.
    pub(super) fn leave(&mut self, id: InstanceId, now: Micros) {
        let Some(instance) = self.by_id.get_mut(&id) else { return };
        instance.members -= 1;
        if instance.members == 0 {
            instance.left_at = Some(now);
            self.gone += 1;
            self.forget_gone(now);
        }
    }

    /// An instance is not to be waited for once its bridges have left.
    pub(super) fn forget(&mut self, id: InstanceId) {
        let Some(instance) = self.by_id.get_mut(&id) else { return };
        if instance.is_gone() {
            instance.left_at = None;
            self.gone -= 1;
            self.drop_unused(id);
        }
    }

    fn forget_gone(&mut self, now: Micros) {
        if self.gone <= GONE_UNSEEN {
            return;
        }
        let are_many = self.gone > GONE_MAX;
        self.by_id.retain(|_, instance| {
            let is_late = instance.left_at.is_none_or(|left| are_many || now.since(left) >= LATELY);
            instance.members > 0 || instance.is_waited_for() || !is_late
        });
        self.gone = self.by_id.values().filter(|instance| instance.is_gone()).count();
    }

    fn drop_unused(&mut self, id: InstanceId) {
        let is_unused = |instance: &Instance| {
            instance.members == 0 && instance.left_at.is_none() && !instance.is_waited_for()
        };
        if self.by_id.get(&id).is_some_and(is_unused) {
            self.by_id.remove(&id);
        }
    }

    /// Whether a bridge of it is connected, or was lately.
    pub(super) fn is_there(&self, id: InstanceId, now: Micros) -> bool {
        self.by_id.get(&id).is_some_and(|instance| {
            let was_lately = |left: Micros| now.since(left) < LATELY;
            instance.members > 0 || instance.left_at.is_some_and(was_lately)
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
        self.waiting += 1;
        let (instance, worker) = (self.by_id.entry(id).or_default(), waiting.worker);
        if instance.queues.len() <= worker {
            instance.queues.resize_with(worker + 1, Queue::default);
        }
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
        self.waiting -= 1;
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

    /// When the oldest of all requests for one of them arrived.
    pub(super) fn oldest(&self) -> Option<Micros> {
        self.all_queues().filter_map(Queue::first).map(|first| first.since).min()
    }

    /// How many of the requests that the bound counts wait on a worker, or on all.
    pub(super) fn admitted(&self, worker: Option<usize>) -> usize {
        let all = || self.by_id.values();
        match worker {
            _ if self.waiting == 0 => 0,
            None => all().flat_map(|instance| &instance.queues).map(Queue::admitted).sum(),
            Some(worker) => {
                all().filter_map(|instance| instance.queues.get(worker)).map(Queue::admitted).sum()
            }
        }
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
        assert_eq!(self.gone, self.by_id.values().filter(|instance| instance.is_gone()).count());
        for instance in self.by_id.values() {
            assert!(instance.idle.is_empty() || !instance.is_waited_for(), "one waits beside one");
            assert!(instance.idle.len() <= instance.members as usize);
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
        instances.join(id(1));
        instances.forget(id(1));
        assert!(instances.is_there(id(1), over), "it is connected");
        instances.leave(id(1), over);
        instances.forget(id(1));
        assert!(!instances.is_there(id(1), over) && instances.is_empty());
        instances.check();
    }

    #[test]
    fn names_that_come_and_go_do_not_pile_up() {
        let mut instances = Instances::default();
        for number in 1..10_000 {
            instances.join(id(number));
            instances.leave(id(number), Micros(number));
            assert!(instances.by_id.len() <= GONE_MAX + 1);
        }
        let later = Micros(10_000) + LATELY;
        (1..=GONE_UNSEEN as u64 + 1).for_each(|number| {
            instances.join(id(number));
            instances.leave(id(number), later);
        });
        assert_eq!(instances.gone, GONE_UNSEEN + 1);
        instances.check();
    }
}
