//! The state under a route's lock: the bridges parked and the requests waiting on each worker.

use std::time::Duration;

use crate::time::Micros;

use super::groups::{Group, GroupId, Groups, ParkedAs, Spot};
use super::instances::Instances;
use super::list::List;
use super::order::{FAIRNESS, WaiterId};
use super::queue::{Queue, Waiting};
use super::wanted::InstanceId;

/// A route without a bridge is kept this long, so that a deployment without backends for some
/// minutes loses no request.
pub const RETENTION: Duration = Duration::from_secs(10 * 60);

/// A route that is empty keeps the lines of so many workers: a backend that registers again for
/// every exchange should not pay for them each time.
const FEW_SIDES: usize = 8;

/// How many parked bridges of each worker are looked at for one of another backend. It is done under
/// the route's lock, for a request that is repeated; more than a backend usually has.
const LOOKED_AT: usize = 256;

/// How many groups are looked at in one call of [`RouteState::tell`], under the lock.
const GROUPS_LOOKED_AT: usize = 512;

/// The value of `oldest` on a worker where nothing waits.
const NOTHING: Micros = Micros(u64::MAX);

/// Where a bridge was parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The worker. If it is not the caller's, the bridge has been taken over from it.
    pub worker: usize,
    /// What that worker passed to [`Scheduler::park`].
    pub token: u64,
}

/// An idle bridge's entry in its route, returned by [`super::Scheduler::park`]. Entries are reused,
/// so calls that take a handle also take the bridge's token; if the entry belongs to another bridge
/// by now they find nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleHandle(u32);

#[derive(Debug)]
#[repr(C)]
pub(super) struct RouteState<B> {
    /// Bridges parked on all workers.
    pub(super) idle: u32,
    /// Requests waiting on all workers that any bridge may serve.
    pub(super) waiting: u32,
    /// Raised by one with each bridge that parks.
    parkings: u64,
    /// By worker, up to the highest worker that has used the route.
    sides: Vec<Side<B>>,
    /// Bridges connected on any worker, parked or not.
    pub(super) members: u32,
    /// Those of them that [`super::Bounds::bridges_per_host`] does not count.
    pub(super) exempt: u32,
    /// When the last member left; meaningful only while there are none.
    pub(super) empty_since: Micros,
    pub(super) keep: Keep,
    /// Parked bridges that get no request: their backends have no place for one.
    pub(super) withdrawn: u32,
    /// `None` until a backend has announced places.
    groups: Option<Box<Groups>>,
    /// `None` until a backend has given its name, or a request waits for one.
    instances: Option<Box<Instances>>,
}

/// What a bridge belongs to on its route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The bridges of its backend, if that says how many of them may have a request.
    pub group: Option<GroupId>,
    /// The backend, if it has a name that requests may stick to.
    pub instance: Option<InstanceId>,
}

/// What becomes of a route without bridges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// It is no longer pinned: it ends as soon as it is empty.
    Drop,
    /// Its name is remembered for [`RETENTION`].
    Retain,
    /// It stays.
    Pin,
    /// It has ended: nothing may join it or wait for it.
    Retired,
}

/// One worker's part of a route, on a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Side<B> {
    /// Longest parked first.
    idle: List<Idle<B>>,
    /// When the first request in `queue` arrived, or [`NOTHING`].
    oldest: Micros,
    /// Allocated for the first request that waits.
    queue: Option<Box<Queue>>,
}

const _: () = assert!(size_of::<Side<Box<u8>>>() == 64);

impl<B> Default for Side<B> {
    fn default() -> Self {
        Side { idle: List::default(), oldest: NOTHING, queue: None }
    }
}

impl<B> Side<B> {
    /// How many requests wait.
    fn waiting(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.len())
    }

    fn admitted(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.admitted())
    }

    /// Takes a request out with `take`.
    fn remove(&mut self, take: impl FnOnce(&mut Queue) -> Option<Waiting>) -> Option<Waiting> {
        let queue = self.queue.as_deref_mut()?;
        let waiting = take(queue)?;
        self.oldest = queue.first().map_or(NOTHING, |first| first.since);
        Some(waiting)
    }
}

/// A parked bridge.
#[derive(Debug)]
struct Idle<B> {
    bridge: B,
    token: u64,
    /// The order of parking on the route.
    parking: u64,
    group: Option<Grouped>,
    instance: Option<InstanceId>,
    /// Its place among the idle bridges of its instance; meaningful only while it is noted there.
    noted_at: u32,
}

/// A parked bridge's part in its group.
#[derive(Clone, Copy, Debug)]
struct Grouped {
    id: GroupId,
    /// Its place in the group's list.
    at: u32,
}

/// One backend is to be told, over this parked bridge, how long the oldest request has waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Telling {
    /// The backend's group.
    pub group: GroupId,
    /// Where the bridge is parked.
    pub owner: Owner,
    /// For [`super::Scheduler::with_idle`] on that worker.
    pub handle: IdleHandle,
    /// When the request arrived; `None` if none waits.
    pub oldest: Option<Micros>,
}

/// See [`super::Route::tell`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ToTell {
    /// One for each backend that is to be told something.
    pub tellings: Vec<Telling>,
    /// When to ask again; `None` if there is nothing to tell until a request waits.
    pub again: Option<Micros>,
}

/// A bridge that was withdrawn and has a place again, and the request that it serves.
#[derive(Debug)]
pub(super) struct Restored<B> {
    pub(super) bridge: B,
    pub(super) owner: Owner,
    pub(super) waiting: Waiting,
}

impl<B> RouteState<B> {
    pub(super) fn new(now: Micros) -> Self {
        RouteState {
            idle: 0,
            waiting: 0,
            parkings: 0,
            sides: Vec::new(),
            members: 0,
            exempt: 0,
            empty_since: now,
            keep: Keep::Retain,
            withdrawn: 0,
            groups: None,
            instances: None,
        }
    }

    pub(super) fn is_retired(&self) -> bool {
        self.keep == Keep::Retired
    }

    /// Whether requests may wait for it: a bridge is connected, or the route is kept without one.
    pub(super) fn is_kept(&self) -> bool {
        self.members > 0 || matches!(self.keep, Keep::Retain | Keep::Pin)
    }

    pub(super) fn is_unused(&self) -> bool {
        self.members == 0 && self.all_waiting() == 0
    }

    /// Requests waiting on all workers, for any bridge or for those of an instance.
    pub(super) fn all_waiting(&self) -> u32 {
        self.waiting + self.instances.as_ref().map_or(0, |instances| instances.waiting)
    }

    /// Gives back what is not needed while no bridge is connected and no request waits. A route with
    /// a line for each of many workers is large, and thousands are kept without a bridge.
    pub(super) fn release_memory(&mut self) {
        if self.is_unused() && self.sides.len() > FEW_SIDES {
            self.sides = Vec::new();
        }
        if self.instances.as_ref().is_some_and(|instances| instances.is_empty()) {
            self.instances = None;
        }
    }

    fn side(&mut self, worker: usize) -> &mut Side<B> {
        if self.sides.len() <= worker {
            self.sides.resize_with(worker + 1, Side::default);
        }
        &mut self.sides[worker]
    }

    /// Whether any bridge is parked.
    pub(super) fn has_idle(&self) -> bool {
        self.idle > 0
    }

    /// Parks a bridge. No request may be waiting, unless it has no place for one.
    pub(super) fn push_idle(
        &mut self,
        bridge: B,
        owner: Owner,
        Membership { group, instance }: Membership,
    ) -> IdleHandle {
        let has_place = self.has_place(group);
        debug_assert!(!has_place || self.waiting == 0, "a bridge was parked beside a request");
        self.parkings += 1;
        let (token, parking) = (owner.token, self.parkings);
        let idle = Idle { bridge, token, parking, group: None, instance, noted_at: 0 };
        let list = &mut self.side(owner.worker).idle;
        let key = if has_place { list.push(idle) } else { list.push_aside(idle) };
        let parked_as = if has_place { ParkedAs::Idle } else { ParkedAs::Withdrawn };
        *self.count_of(parked_as) += 1;
        let spot = Spot { worker: owner.worker as u32, key };
        if let Some(group) = group {
            self.file(group, spot, parked_as);
        }
        if has_place && instance.is_some() {
            self.note_idle(spot);
        }
        IdleHandle(key)
    }

    /// Takes the longest parked bridge of worker `me`, or else of all other workers.
    pub(super) fn take_idle(&mut self, me: usize) -> Option<(B, Owner)> {
        if self.idle == 0 {
            return None;
        }
        let mine = self.sides.get(me).and_then(|side| side.idle.first_key());
        let (worker, key) = match mine {
            Some(mine) => (me, mine),
            None => {
                let firsts = self.sides.iter().enumerate();
                let firsts = firsts.filter_map(|(at, side)| Some((side.idle.first()?.parking, at)));
                let (_, worker) = firsts.min()?;
                (worker, self.sides[worker].idle.first_key()?)
            }
        };
        Some(self.remove_parked(worker, key, ParkedAs::Idle))
    }

    /// As [`RouteState::take_idle`], but takes none for which `unwanted` holds, of the first
    /// [`LOOKED_AT`] on each worker.
    pub(super) fn take_other(
        &mut self,
        me: usize,
        unwanted: impl Fn(&B) -> bool,
    ) -> Option<(B, Owner)> {
        let (_, _, worker, key) = self
            .sides
            .iter()
            .enumerate()
            .filter_map(|(worker, side)| {
                let key = side.idle.find(LOOKED_AT, |idle| !unwanted(&idle.bridge))?;
                Some((worker != me, side.idle.get(key)?.parking, worker, key))
            })
            .min()?;
        Some(self.remove_parked(worker, key, ParkedAs::Idle))
    }

    /// Takes exactly this bridge out, if it is still parked.
    pub(super) fn remove_idle(&mut self, handle: IdleHandle, owner: Owner) -> Option<B> {
        self.idle_mut(handle, owner)?;
        let side = &self.sides[owner.worker];
        let group = side.idle.get(handle.0)?.group.map(|group| group.id);
        if !side.idle.is_aside(handle.0) {
            return Some(self.remove_parked(owner.worker, handle.0, ParkedAs::Idle).0);
        }
        let (bridge, _) = self.remove_parked(owner.worker, handle.0, ParkedAs::Withdrawn);
        // Until it leaves it counts as one that has a request.
        group.into_iter().for_each(|group| self.withdraw_surplus(group));
        Some(bridge)
    }

    /// Exactly this bridge, if it is still parked.
    pub(super) fn idle_mut(&mut self, handle: IdleHandle, owner: Owner) -> Option<&mut B> {
        let idle = self.sides.get_mut(owner.worker)?.idle.get_mut(handle.0)?;
        (idle.token == owner.token).then_some(&mut idle.bridge)
    }

    /// Takes a parked bridge out of everything where it is.
    fn remove_parked(&mut self, worker: usize, key: u32, parked_as: ParkedAs) -> (B, Owner) {
        let Idle { bridge, token, group, instance, noted_at, .. } =
            self.sides[worker].idle.remove(key);
        *self.count_of(parked_as) -= 1;
        if let Some(grouped) = group {
            self.unfile(grouped, parked_as);
        }
        if let Some(instance) = instance.filter(|_| parked_as == ParkedAs::Idle) {
            self.unnote_idle(instance, noted_at);
        }
        (bridge, Owner { worker, token })
    }

    fn count_of(&mut self, parked_as: ParkedAs) -> &mut u32 {
        match parked_as {
            ParkedAs::Idle => &mut self.idle,
            ParkedAs::Withdrawn => &mut self.withdrawn,
        }
    }

    /// The groups, which are there when a bridge or a message of one is.
    fn groups_mut(&mut self) -> &mut Groups {
        self.groups.get_or_insert_default()
    }

    fn group_mut(&mut self, id: GroupId) -> &mut Group {
        &mut self.groups_mut()[id]
    }

    /// Adds a bridge that is not parked to the group of a backend.
    pub(super) fn join_group(&mut self, backend: u64) -> GroupId {
        self.groups_mut().join(backend)
    }

    /// Takes a bridge that is not parked out of its group. Another one may have a place now: see
    /// [`RouteState::restore`].
    pub(super) fn leave_group(&mut self, group: GroupId) {
        let groups = self.groups_mut();
        groups.leave(group);
        if groups.is_empty() {
            self.groups = None;
        }
    }

    /// Takes what a message of a group says. False if that is no news, or if the group has ended. Other
    /// bridges may have a place now: see [`RouteState::restore`].
    pub(super) fn set_places(&mut self, id: GroupId, places: u32, at: u64) -> bool {
        let group = self.groups.as_mut().and_then(|groups| groups.get_mut(id));
        let is_news = group.is_some_and(|group| group.set_places(places, at));
        if is_news {
            self.withdraw_surplus(id);
        }
        is_news
    }

    /// Notes how many bridges of a backend have a request in programs that this one has replaced. Returns
    /// its group, whose other bridges may have a place now.
    pub(super) fn set_elsewhere(&mut self, backend: u64, count: u32) -> Option<GroupId> {
        let groups = self.groups_mut();
        let group = groups.set_elsewhere(backend, count);
        if groups.is_empty() {
            self.groups = None;
        }
        group.into_iter().for_each(|group| self.withdraw_surplus(group));
        group
    }

    /// The group of this bridge, if it is still parked.
    pub(super) fn group_of(&self, handle: IdleHandle, owner: Owner) -> Option<GroupId> {
        let idle = self.sides.get(owner.worker)?.idle.get(handle.0)?;
        idle.group.filter(|_| idle.token == owner.token).map(|group| group.id)
    }

    pub(super) fn in_progress_by_backend(&self) -> Vec<(u64, u32)> {
        let all = self.groups.iter().flat_map(|groups| groups.in_progress());
        all.filter(|(_, count)| *count > 0).collect()
    }

    pub(super) fn withdrawn_by_backend(&self) -> Vec<(u64, u32)> {
        self.groups.iter().flat_map(|groups| groups.withdrawn()).collect()
    }

    /// Whether the backend has a place for a request on one of its bridges that is not parked.
    pub(super) fn has_place(&self, group: Option<GroupId>) -> bool {
        let group = group.and_then(|id| self.groups.as_ref()?.get(id));
        group.is_none_or(Group::has_place)
    }

    /// Notes in its group that a bridge is parked.
    fn file(&mut self, id: GroupId, spot: Spot, parked_as: ParkedAs) {
        let spots = self.group_mut(id).bridges_mut(parked_as);
        let at = spots.len() as u32;
        spots.push(spot);
        self.note_position(spot, Grouped { id, at });
    }

    /// Notes in its group that a bridge is no longer parked like this.
    fn unfile(&mut self, Grouped { id, at }: Grouped, parked_as: ParkedAs) {
        let spots = self.group_mut(id).bridges_mut(parked_as);
        spots.swap_remove(at as usize);
        if let Some(moved) = spots.get(at as usize).copied() {
            self.note_position(moved, Grouped { id, at });
        }
    }

    /// Notes at a parked bridge where it is in its group's list.
    fn note_position(&mut self, spot: Spot, grouped: Grouped) {
        if let Some(idle) = self.sides[spot.worker as usize].idle.get_mut(spot.key) {
            idle.group = Some(grouped);
        }
    }

    /// Withdraws those parked bridges of a group for which its backend has no place.
    pub(super) fn withdraw_surplus(&mut self, id: GroupId) {
        loop {
            let group = self.group_mut(id);
            let idle = group.bridges(ParkedAs::Idle);
            let Some(&spot) = idle.last().filter(|_| idle.len() > group.usable()) else { return };
            self.unfile(self.grouped(spot), ParkedAs::Idle);
            let list = &mut self.sides[spot.worker as usize].idle;
            list.set_aside(spot.key);
            if let Some(&Idle { instance: Some(id), noted_at, .. }) = list.get(spot.key) {
                self.unnote_idle(id, noted_at);
            }
            (self.idle, self.withdrawn) = (self.idle - 1, self.withdrawn + 1);
            self.file(id, spot, ParkedAs::Withdrawn);
        }
    }

    /// Brings one bridge of a group back that is withdrawn, if there is a place for a request again.
    /// It is returned if it serves one at once; `None` when all are back that can be.
    pub(super) fn restore(&mut self, id: GroupId) -> Option<Restored<B>> {
        loop {
            let group = self.groups.as_ref()?.get(id)?;
            let has_place = group.bridges(ParkedAs::Idle).len() < group.usable();
            let spot = *group.bridges(ParkedAs::Withdrawn).last().filter(|_| has_place)?;
            let worker = spot.worker as usize;
            let instance = self.sides[worker].idle.get(spot.key).and_then(|idle| idle.instance);
            if let Some(waiting) = self.claim_waiting(worker, instance) {
                let (bridge, owner) = self.remove_parked(worker, spot.key, ParkedAs::Withdrawn);
                return Some(Restored { bridge, owner, waiting });
            }
            self.unfile(self.grouped(spot), ParkedAs::Withdrawn);
            let list = &mut self.sides[worker].idle;
            let parking = list.get(spot.key).map_or(0, |idle| idle.parking);
            list.put_back(spot.key, |other| other.parking > parking);
            (self.idle, self.withdrawn) = (self.idle + 1, self.withdrawn - 1);
            self.file(id, spot, ParkedAs::Idle);
            self.note_idle(spot);
        }
    }

    /// Adds a bridge that is not parked to those of an instance.
    pub(super) fn join_instance(&mut self, id: InstanceId) {
        self.instances.get_or_insert_default().join(id);
    }

    /// Takes a bridge that is not parked out of those of an instance.
    pub(super) fn leave_instance(&mut self, id: InstanceId, now: Micros) {
        if let Some(instances) = &mut self.instances {
            instances.leave(id, now);
        }
    }

    /// Forgets the instances that left long ago.
    pub(super) fn forget_late(&mut self, now: Micros) {
        if let Some(instances) = &mut self.instances {
            instances.forget_late(now);
            self.release_memory();
        }
    }

    /// An instance is not to be waited for, until a bridge of it joins again.
    pub(super) fn shun_instance(&mut self, id: InstanceId) {
        if let Some(instances) = &mut self.instances {
            instances.shun(id);
        }
    }

    /// An instance was here in the program that this one replaces, at last at this time.
    pub(super) fn expect_instance(&mut self, id: InstanceId, last: Micros) {
        self.instances.get_or_insert_default().expect(id, last);
    }

    /// The instances that a request may wait for, and until when each was connected: now, or before.
    pub(super) fn instances_there(&self, now: Micros) -> Vec<(InstanceId, Micros)> {
        self.instances.iter().flat_map(|instances| instances.all_there(now)).collect()
    }

    /// Whether a request waits that a bridge of this instance may serve.
    pub(super) fn is_wanted(&self, of: Option<InstanceId>) -> bool {
        let own = || of.and_then(|id| self.instances.as_ref()?.first(id));
        self.waiting > 0 || own().is_some()
    }

    /// Whether a bridge of the instance is connected, or was lately.
    pub(super) fn has_instance(&self, id: InstanceId, now: Micros) -> bool {
        self.instances.as_ref().is_some_and(|instances| instances.is_there(id, now))
    }

    /// The instances, with each idle bridge noted at its own.
    fn instances_noted(&mut self) -> &mut Instances {
        let instances = self.instances.get_or_insert_default();
        if !std::mem::replace(&mut instances.are_noted, true) {
            for (worker, side) in self.sides.iter_mut().enumerate() {
                side.idle.for_each(|key, idle| {
                    if let Some(id) = idle.instance {
                        idle.noted_at = instances.note(id, Spot { worker: worker as u32, key });
                    }
                });
            }
        }
        instances
    }

    /// Notes at its instance that a bridge is idle, if requests ask for instances.
    fn note_idle(&mut self, spot: Spot) {
        let Some(instances) = self.instances.as_mut().filter(|of| of.are_noted) else { return };
        if let Some(idle) = self.sides[spot.worker as usize].idle.get_mut(spot.key)
            && let Some(id) = idle.instance
        {
            idle.noted_at = instances.note(id, spot);
        }
    }

    /// The bridge at this place of its instance is idle no longer.
    fn unnote_idle(&mut self, id: InstanceId, at: u32) {
        let Some(instances) = self.instances.as_mut().filter(|of| of.are_noted) else { return };
        if let Some(moved) = instances.unnote(id, at)
            && let Some(idle) = self.sides[moved.worker as usize].idle.get_mut(moved.key)
        {
            idle.noted_at = at;
        }
    }

    /// Whether a bridge of the instance is idle.
    pub(super) fn has_idle_of(&mut self, id: InstanceId) -> bool {
        self.idle > 0 && !self.instances_noted().idle(id).is_empty()
    }

    /// As [`RouteState::take_idle`], among the bridges of an instance for which `unwanted` does not
    /// hold.
    pub(super) fn take_of(
        &mut self,
        me: usize,
        id: InstanceId,
        unwanted: impl Fn(&B) -> bool,
    ) -> Option<(B, Owner)> {
        if !self.has_idle_of(id) {
            return None;
        }
        let spots = self.instances.as_ref().map_or(&[][..], |instances| instances.idle(id));
        let rank = |spot: &Spot| {
            let worker = spot.worker as usize;
            let idle = self.sides[worker].idle.get(spot.key).filter(|i| !unwanted(&i.bridge))?;
            Some((worker != me, idle.parking, worker, spot.key))
        };
        let (_, _, worker, key) = spots.iter().filter_map(rank).min()?;
        Some(self.remove_parked(worker, key, ParkedAs::Idle))
    }

    /// What backends are to be told about the request that has waited longest, if some are due. See
    /// [`super::Route::tell`].
    pub(super) fn tell(&mut self, now: Micros, pause: Duration) -> ToTell {
        let (any, is_quiet) = (self.oldest_for_any(), self.all_waiting() == 0);
        let Some(groups) = &mut self.groups else { return ToTell::default() };
        if let Some(next) = groups.told_at.map(|told| told + pause).filter(|next| now < *next) {
            return ToTell { tellings: Vec::new(), again: Some(next) };
        }
        groups.told_at = Some(now);
        let count = groups.ids().len();
        let first = if groups.next_told < count { groups.next_told } else { 0 };
        let looked_at = count.min(GROUPS_LOOKED_AT);
        groups.next_told = (first + looked_at) % count.max(1);
        let mut tellings = Vec::new();
        for at in first..first + looked_at {
            let group = self.groups.as_ref().map(|groups| groups.ids()[at % count]);
            tellings.extend(group.and_then(|group| self.telling(group, any)));
        }
        let is_over = is_quiet && looked_at == count;
        ToTell { tellings, again: (!is_over).then(|| now + pause) }
    }

    /// What the backend of this group is to be told, if that is news to it. Requests that any bridge may
    /// serve have waited since `any`.
    fn telling(&mut self, id: GroupId, any: Option<Micros>) -> Option<Telling> {
        let group = self.groups.as_mut()?.get_mut(id)?;
        // Requests for another instance are none of its business.
        let parked = group.told_over(false);
        let idle = parked.and_then(|at| self.sides[at.worker as usize].idle.get(at.key));
        let own = idle.and_then(|idle| self.instances.as_ref()?.first(idle.instance?));
        let oldest = any.into_iter().chain(own.map(|own| own.since)).min();
        if group.told == oldest {
            return None;
        }
        // Only a backend that lacks places needs to know. One without a parked bridge is told when it
        // parks one.
        let &Spot { worker, key } = group.told_over(oldest.is_some())?;
        let idle = self.sides[worker as usize].idle.get(key)?;
        group.told = oldest;
        let owner = Owner { worker: worker as usize, token: idle.token };
        Some(Telling { group: id, owner, handle: IdleHandle(key), oldest })
    }

    /// The backend of this group may have a place because it has been told of a request that has been
    /// served elsewhere by now: then it is told at once that none waits, since it keeps the place for us.
    pub(super) fn decline(&mut self, id: GroupId) -> Option<Telling> {
        let group = self.groups.as_ref()?.get(id)?;
        let has_place = !group.bridges(ParkedAs::Idle).is_empty();
        let is_wrong = group.told.is_some() && self.oldest_for_any().is_none();
        if has_place && is_wrong { self.telling(id, None) } else { None }
    }

    /// See [`super::Route::has_news`].
    pub(super) fn has_news(&self, group: GroupId) -> bool {
        let group = self.groups.as_ref().and_then(|groups| groups.get(group));
        self.all_waiting() > 0 || group.is_some_and(|group| group.told.is_some())
    }

    /// See [`super::Route::sent_at`].
    pub(super) fn sent_at(&mut self, telling: &Telling, now: Micros) -> Option<Micros> {
        let group = self.groups.as_mut()?.get_mut(telling.group)?;
        if group.told != telling.oldest {
            return None;
        }
        group.sent_at = now.max(Micros(group.sent_at.0 + 1));
        Some(group.sent_at)
    }

    /// See [`super::Route::not_told`].
    pub(super) fn not_told(&mut self, telling: &Telling) {
        let group = self.groups.as_mut().and_then(|groups| groups.get_mut(telling.group));
        if let Some(group) = group.filter(|group| group.told == telling.oldest) {
            group.told = None;
            group.untold += 1;
        }
    }

    /// A parked bridge's part in its group, which it must have.
    fn grouped(&self, spot: Spot) -> Grouped {
        let idle = self.sides[spot.worker as usize].idle.get(spot.key);
        idle.and_then(|idle| idle.group).expect("a parked bridge of a group")
    }

    /// Takes out the request that a bridge on worker `me`, of this instance, should serve, and claims
    /// it for that.
    pub(super) fn claim_waiting(&mut self, me: usize, of: Option<InstanceId>) -> Option<Waiting> {
        // One already claimed through another route is dropped.
        while let Some(waiting) = self.pop_waiting(me, of) {
            if waiting.win() {
                return Some(waiting);
            }
        }
        None
    }

    /// Whether the queue is full for one more request of worker `me`.
    pub(super) fn is_full(&self, me: usize, per_route: usize, workers: usize) -> bool {
        let sticky =
            |worker| self.instances.as_ref().map_or(0, |instances| instances.admitted(worker));
        let mine = self.sides.get(me).map_or(0, Side::admitted) + sticky(Some(me));
        let all = || self.sides.iter().map(Side::admitted).sum::<usize>() + sticky(None);
        mine >= per_route.div_ceil(workers) && all() >= per_route
    }

    /// Puts a request into the queue: that of the one instance that it waits for, if it does. No bridge
    /// that may serve it may be parked.
    pub(super) fn enter(&mut self, stays_for: Option<InstanceId>, waiting: Waiting) -> u32 {
        if let Some(id) = stays_for {
            debug_assert!(!self.has_idle_of(id), "a request was queued beside a parked bridge");
            return self.instances_noted().enter(id, waiting);
        }
        debug_assert!(self.idle == 0, "a request was queued beside a parked bridge");
        self.waiting += 1;
        let (pos, side) = (waiting.pos, self.side(waiting.worker));
        side.oldest = side.oldest.min(pos.since);
        side.queue.get_or_insert_default().enter(waiting)
    }

    /// Takes a request of worker `me` out, if it is still there.
    pub(super) fn take_waiting(
        &mut self,
        me: usize,
        stays_for: Option<InstanceId>,
        entry: u32,
        id: WaiterId,
    ) {
        if let Some(instance) = stays_for {
            if let Some(instances) = &mut self.instances {
                instances.withdraw(instance, me, entry, id);
            }
            return;
        }
        let Some(side) = self.sides.get_mut(me) else { return };
        if side.remove(|queue| queue.withdraw(entry, id)).is_some() {
            self.waiting -= 1;
        }
    }

    /// Takes out the request that a bridge on worker `me`, of this instance, should serve. If it has
    /// been claimed through another route, the caller asks for the next.
    pub(super) fn pop_waiting(&mut self, me: usize, of: Option<InstanceId>) -> Option<Waiting> {
        if let Some(instances) = &self.instances
            && let Some(id) = of
            && instances.first(id).is_some()
        {
            return self.pop_of(me, id);
        }
        if self.waiting == 0 {
            return None;
        }
        let worker = self.next_served(me);
        self.pop_any(worker)
    }

    /// Takes out the oldest request of a worker that any bridge may serve.
    fn pop_any(&mut self, worker: usize) -> Option<Waiting> {
        let waiting = self.sides.get_mut(worker)?.remove(Queue::pop)?;
        self.waiting -= 1;
        Some(waiting)
    }

    /// As [`RouteState::pop_waiting`], where requests wait for the instance itself.
    fn pop_of(&mut self, me: usize, id: InstanceId) -> Option<Waiting> {
        let instances = self.instances.as_mut()?;
        let own = |worker: usize| instances.queues(id).get(worker).and_then(Queue::first);
        let any = |worker: usize| self.sides.get(worker)?.queue.as_ref()?.first();
        let oldest = |worker: usize| {
            let firsts = [own(worker), any(worker)].into_iter().flatten();
            firsts.map(|first| first.since).min().unwrap_or(NOTHING)
        };
        let workers = instances.queues(id).len().max(self.sides.len());
        let elsewhere = (0..workers).filter(|worker| *worker != me);
        let worker = fair(me, oldest(me), elsewhere.map(|worker| (oldest(worker), worker)));
        match (own(worker), any(worker)) {
            (Some(own), any) if any.is_none_or(|any| own < any) => instances.pop(id, worker),
            _ => self.pop_any(worker),
        }
    }

    /// The worker whose oldest request a bridge on worker `me` serves. Some request must be
    /// waiting.
    fn next_served(&self, me: usize) -> usize {
        let (mine, here) =
            self.sides.get(me).map_or((NOTHING, 0), |side| (side.oldest, side.waiting()));
        if here == self.waiting as usize {
            return me;
        }
        let elsewhere = self.sides.iter().enumerate().filter(|(worker, _)| *worker != me);
        fair(me, mine, elsewhere.map(|(worker, side)| (side.oldest, worker)))
    }

    /// When the request that has waited longest arrived.
    pub(super) fn oldest(&self) -> Option<Micros> {
        let sticky = self.instances.as_ref().and_then(|instances| instances.oldest());
        self.oldest_for_any().into_iter().chain(sticky).min()
    }

    /// The same of those that any bridge may serve.
    fn oldest_for_any(&self) -> Option<Micros> {
        self.sides.iter().map(|side| side.oldest).filter(|oldest| *oldest != NOTHING).min()
    }

    /// Requests in the queue that wait on worker `me` for any bridge.
    pub(super) fn waiting_on(&self, me: usize) -> usize {
        self.sides.get(me).map_or(0, Side::waiting)
    }
}

/// The worker whose oldest request a bridge on worker `me` serves: its own, which arrived at `mine`,
/// unless there is none, or one elsewhere arrived earlier by more than [`FAIRNESS`].
fn fair(me: usize, mine: Micros, elsewhere: impl Iterator<Item = (Micros, usize)>) -> usize {
    match elsewhere.min() {
        Some((oldest, worker)) if mine == NOTHING || mine.since(oldest) > FAIRNESS => worker,
        _ => me,
    }
}

#[cfg(test)]
mod tests {
    use super::super::order::QueuePos;
    use super::*;

    impl<B> Side<B> {
        fn entries(&self) -> impl Iterator<Item = &Waiting> {
            self.queue.iter().flat_map(|queue| queue.iter())
        }
    }

    impl<B> RouteState<B> {
        /// What must hold whenever the lock is free.
        pub(in crate::routing) fn check(&self) {
            assert!(self.waiting == 0 || self.idle == 0, "a request waits beside a bridge");
            assert!(
                self.idle + self.withdrawn <= self.members,
                "more bridges are parked than connected"
            );
            self.check_groups();
            self.check_instances();
            assert!(!self.is_retired() || self.is_unused());
            for (worker, side) in self.sides.iter().enumerate() {
                let parked: Vec<_> = side.idle.iter().collect();
                assert!(parked.iter().map(|idle| idle.parking).is_sorted(), "longest parked first");
                let queue: Vec<_> = side.entries().collect();
                assert!(
                    queue.iter().map(|waiting| waiting.pos).is_sorted(),
                    "first come, first served"
                );
                assert!(queue.iter().all(|waiting| waiting.worker == worker));
                assert_eq!(
                    side.admitted(),
                    queue.iter().filter(|waiting| waiting.admitted).count()
                );
                assert_eq!(side.oldest, queue.first().map_or(NOTHING, |first| first.pos.since));
            }
            let linked = |side: &Side<B>| side.idle.iter().count();
            assert_eq!(self.sides.iter().map(linked).sum::<usize>(), self.idle as usize);
            let parked = self.sides.iter().map(|side| side.idle.len()).sum::<usize>();
            assert_eq!(parked, (self.idle + self.withdrawn) as usize);
            assert_eq!(self.sides.iter().map(Side::waiting).sum::<usize>(), self.waiting as usize);
        }

        /// Whether a parked bridge of a worker is withdrawn.
        pub(in crate::routing) fn is_withdrawn(&self, worker: usize, handle: IdleHandle) -> bool {
            self.sides[worker].idle.is_aside(handle.0)
        }

        /// Whether a bridge of a worker is parked.
        pub(in crate::routing) fn is_listed(
            &self,
            worker: usize,
            handle: IdleHandle,
            bridge: &B,
        ) -> bool
        where
            B: PartialEq,
        {
            self.sides[worker].idle.get(handle.0).is_some_and(|idle| idle.bridge == *bridge)
        }

        fn check_groups(&self) {
            let Some(groups) = &self.groups else {
                return assert_eq!(self.withdrawn, 0);
            };
            let mut withdrawn = 0;
            for &id in groups.ids() {
                groups[id].check();
                for parked_as in [ParkedAs::Idle, ParkedAs::Withdrawn] {
                    for (at, spot) in groups[id].bridges(parked_as).iter().enumerate() {
                        let list = &self.sides[spot.worker as usize].idle;
                        let grouped = list.get(spot.key).unwrap().group.unwrap();
                        assert_eq!((grouped.id, grouped.at as usize), (id, at));
                        assert_eq!(list.is_aside(spot.key), parked_as == ParkedAs::Withdrawn);
                    }
                }
                withdrawn += groups[id].bridges(ParkedAs::Withdrawn).len();
            }
            assert_eq!(withdrawn, self.withdrawn as usize);
        }

        /// Each idle bridge is noted at its instance, once one has been asked for.
        fn check_instances(&self) {
            let Some(instances) = &self.instances else { return };
            instances.check();
            let mut noted = 0;
            for id in instances.ids() {
                for (at, spot) in instances.idle(id).iter().enumerate() {
                    let idle = self.sides[spot.worker as usize].idle.get(spot.key).unwrap();
                    assert_eq!((idle.instance, idle.noted_at as usize), (Some(id), at));
                }
                noted += instances.idle(id).len();
            }
            let idle = self.sides.iter().flat_map(|side| side.idle.iter());
            let named = idle.filter(|idle| idle.instance.is_some()).count();
            assert_eq!(noted, if instances.are_noted { named } else { 0 });
        }

        /// The requests in the queues that nothing has claimed.
        pub(in crate::routing) fn open_requests(&self) -> Vec<(QueuePos, u64)> {
            let sticky = self.instances.iter().flat_map(|instances| {
                let queues = instances.ids().flat_map(|id| instances.queues(id));
                queues.flat_map(Queue::iter).collect::<Vec<_>>()
            });
            let queues = self.sides.iter().flat_map(Side::entries).chain(sticky);
            let open = queues.filter(|waiting| waiting.claim.is_open(waiting.id.stamp));
            open.map(|waiting| (waiting.pos, waiting.request)).collect()
        }
    }
}
