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
    /// When [`super::Route::tell`] looked last, and at which group it begins next.
    pub(super) told_at: Option<Micros>,
    pub(super) next_told: usize,
}

#[derive(Debug)]
pub(super) struct Group {
    backend: u64,
    /// Bridges connected, parked or not.
    members: u32,
    /// How many of them may have a request at once.
    places: Option<u32>,
    /// The number of the message that said so.
    at: u64,
    /// The parked bridges that may get a request, and those that are withdrawn.
    idle: Vec<Spot>,
    withdrawn: Vec<Spot>,
    /// Since when the oldest request has waited, as the backend knows it.
    pub(super) told: Option<Micros>,
    /// How many times it has been told.
    pub(super) tellings: u64,
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
        let Groups { all, by_backend, .. } = self;
        let id = *by_backend.entry(backend).or_insert_with(|| {
            let group = Group {
                backend,
                members: 0,
                places: None,
                at: 0,
                idle: Vec::new(),
                withdrawn: Vec::new(),
                told: None,
                tellings: 0,
            };
            GroupId(all.insert(group) as u32)
        });
        all[id.0 as usize].members += 1;
        id
    }

    /// Takes a bridge that is not parked out of its group, which ends with its last one.
    pub(super) fn leave(&mut self, id: GroupId) {
        let group = &mut self[id];
        group.members -= 1;
        if group.members == 0 {
            let Group { backend, .. } = self.all.remove(id.0 as usize);
            self.by_backend.remove(&backend);
        }
    }

    pub(super) fn get(&self, id: GroupId) -> Option<&Group> {
        self.all.get(id.0 as usize)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    #[cfg(test)]
    pub(super) fn ids(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.all.iter().map(|(key, _)| GroupId(key as u32))
    }

    /// How many bridges of each backend are withdrawn.
    pub(super) fn withdrawn(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.all.iter().map(|(_, group)| (group.backend, group.withdrawn.len() as u32))
    }

    /// Keys of groups are below this.
    pub(super) fn bound(&self) -> usize {
        self.all.capacity()
    }

    /// The group with this key, if there is one.
    pub(super) fn with_key(&self, key: usize) -> Option<GroupId> {
        self.all.contains(key).then_some(GroupId(key as u32))
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
        let used = self.members as usize - parked;
        (places as usize).saturating_sub(used).min(parked)
    }

    /// Whether one of its bridges that has just finished with a request may get another.
    pub(super) fn has_place(&self) -> bool {
        let Some(places) = self.places else { return true };
        let parked = self.idle.len() + self.withdrawn.len();
        let used = (self.members as usize).saturating_sub(parked + 1);
        used + self.idle.len() < places as usize
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
