//! The bridges of one backend on one route, and how many of them it lets have a request at once
//! (`doc/protocol.md`, "Places").

use std::collections::HashMap;

use slab::Slab;

use crate::time::Micros;

/// Names a group on its route, for as long as one of its bridges is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupId(u32);

/// Where a parked bridge of a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) worker: u32,
    /// Its key in the list of that worker.
    pub(super) key: u32,
}

/// The groups of a route.
#[derive(Debug, Default)]
pub(super) struct Groups {
    all: Slab<Group>,
    by_backend: HashMap<u64, GroupId>,
    /// The same without gaps: after a rush of backends there are few in a large slab.
    dense: Vec<GroupId>,
    /// When [`super::Route::tell`] looked last, and at which group it begins next.
    pub(super) told_at: Option<Micros>,
    pub(super) next_told: usize,
}

#[derive(Debug)]
pub(super) struct Group {
    backend: u64,
    /// Its place in [`Groups::dense`].
    position: usize,
    /// Bridges connected, parked or not.
    members: u32,
    /// Bridges that have a request in programs that this one has replaced.
    elsewhere: u32,
    /// How many of them may have a request at once.
    places: Option<u32>,
    /// The number of the message that said so.
    at: u64,
    /// The parked bridges that may get a request, and those that are withdrawn.
    idle: Vec<Spot>,
    withdrawn: Vec<Spot>,
    /// Since when the oldest request has waited, as the backend knows it.
    pub(super) told: Option<Micros>,
    /// When the last message said that it was sent.
    pub(super) sent_at: Micros,
    /// How many times it could not be told over the bridge that was chosen: another one is next.
    pub(super) untold: usize,
}

/// One of the two lists of a group's parked bridges.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ParkedAs {
    Idle,
    Withdrawn,
}

impl Groups {
    /// Adds a bridge that is not parked to the group of a backend.
    pub(super) fn join(&mut self, backend: u64) -> GroupId {
        let id = self.of(backend);
        self[id].members += 1;
        id
    }

    /// The group of a backend, which must get a member if it is new.
    fn of(&mut self, backend: u64) -> GroupId {
        let Groups { all, by_backend, dense, .. } = self;
        *by_backend.entry(backend).or_insert_with(|| {
            let group = Group {
                backend,
                position: dense.len(),
                members: 0,
                elsewhere: 0,
                places: None,
                at: 0,
                idle: Vec::new(),
                withdrawn: Vec::new(),
                told: None,
                sent_at: Micros(0),
                untold: 0,
            };
            let id = GroupId(all.insert(group) as u32);
            dense.push(id);
            id
        })
    }

    /// Takes a bridge that is not parked out of its group, which ends with its last one.
    pub(super) fn leave(&mut self, id: GroupId) {
        self[id].members -= 1;
        self.end_unused(id);
    }

    /// Notes how many bridges of a backend have a request in programs that this one has replaced.
    /// Returns its group, if there is one then.
    pub(super) fn set_elsewhere(&mut self, backend: u64, count: u32) -> Option<GroupId> {
        if count == 0 && !self.by_backend.contains_key(&backend) {
            return None;
        }
        let id = self.of(backend);
        self[id].elsewhere = count;
        self.end_unused(id);
        self.by_backend.get(&backend).copied()
    }

    fn end_unused(&mut self, id: GroupId) {
        if self[id].members + self[id].elsewhere > 0 {
            return;
        }
        let Group { backend, position, .. } = self.all.remove(id.0 as usize);
        self.by_backend.remove(&backend);
        self.dense.swap_remove(position);
        if let Some(&moved) = self.dense.get(position) {
            self[moved].position = position;
        }
    }

    pub(super) fn get(&self, id: GroupId) -> Option<&Group> {
        self.all.get(id.0 as usize)
    }

    pub(super) fn get_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.all.get_mut(id.0 as usize)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.dense.is_empty()
    }

    /// All of them. The order changes when one comes or ends.
    pub(super) fn ids(&self) -> &[GroupId] {
        &self.dense
    }

    /// How many bridges of each backend are withdrawn.
    pub(super) fn withdrawn(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.all.iter().map(|(_, group)| (group.backend, group.withdrawn.len() as u32))
    }

    /// How many bridges of each backend have something in progress, here or in programs that this
    /// one has replaced.
    pub(super) fn in_progress(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.all.iter().map(|(_, group)| (group.backend, group.used() as u32))
    }
}

impl std::ops::Index<GroupId> for Groups {
    type Output = Group;

    fn index(&self, id: GroupId) -> &Group {
        &self.all[id.0 as usize]
    }
}

impl std::ops::IndexMut<GroupId> for Groups {
    fn index_mut(&mut self, id: GroupId) -> &mut Group {
        &mut self.all[id.0 as usize]
    }
}

impl Group {
    /// Takes what a message says. False if a later one has been taken.
    pub(super) fn set_places(&mut self, places: u32, at: u64) -> bool {
        let is_news = self.places.is_none() || at > self.at;
        if is_news {
            (self.places, self.at) = (Some(places), at);
        }
        is_news
    }

    /// How many of its parked bridges may get a request.
    pub(super) fn usable(&self) -> usize {
        let parked = self.idle.len() + self.withdrawn.len();
        let Some(places) = self.places else { return parked };
        (places as usize).saturating_sub(self.used()).min(parked)
    }

    /// How many have something in progress: those that are connected and not parked.
    fn used(&self) -> usize {
        let parked = self.idle.len() + self.withdrawn.len();
        (self.members as usize).saturating_sub(parked) + self.elsewhere as usize
    }

    /// Whether one of its bridges that has just finished with a request may get another.
    pub(super) fn has_place(&self) -> bool {
        let Some(places) = self.places else { return true };
        self.used().saturating_sub(1) + self.idle.len() < places as usize
    }

    /// A parked bridge over which the backend can be told how long requests wait: a withdrawn one, or
    /// any if `only_withdrawn` is false. The next one in turn after each that could not take it.
    pub(super) fn told_over(&self, only_withdrawn: bool) -> Option<&Spot> {
        let spots = match (&self.withdrawn[..], only_withdrawn) {
            ([], false) => &self.idle,
            (withdrawn, _) => withdrawn,
        };
        spots.get(self.untold % spots.len().max(1))
    }

    pub(super) fn bridges(&self, parked_as: ParkedAs) -> &[Spot] {
        match parked_as {
            ParkedAs::Idle => &self.idle,
            ParkedAs::Withdrawn => &self.withdrawn,
        }
    }

    pub(super) fn bridges_mut(&mut self, parked_as: ParkedAs) -> &mut Vec<Spot> {
        match parked_as {
            ParkedAs::Idle => &mut self.idle,
            ParkedAs::Withdrawn => &mut self.withdrawn,
        }
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let parked = self.idle.len() + self.withdrawn.len();
        assert!(parked <= self.members as usize);
        assert_eq!(self.idle.len(), self.usable(), "{self:?}");
    }
}
