//! Doubly linked lists whose nodes share one slab.

use slab::Slab;

/// Stands for "no neighbour".
const NONE: u32 = u32::MAX;

/// A slab that has become empty gives back what it holds beyond this many nodes, so that one rush
/// on one route is not paid for in memory for ever. Some 64 KiB.
const KEPT_NODES: usize = 1024;

/// One list: its ends. The nodes are in [`Lists`].
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    first: u32,
    last: u32,
}

impl Default for List {
    fn default() -> Self {
        List { first: NONE, last: NONE }
    }
}

#[derive(Debug)]
struct Node<T> {
    value: T,
    before: u32,
    after: u32,
}

/// The nodes of several lists. A node leaves from anywhere in O(1), and adding one allocates
/// nothing once there have been as many.
#[derive(Debug)]
pub(super) struct Lists<T> {
    nodes: Slab<Node<T>>,
}

impl<T> Default for Lists<T> {
    fn default() -> Self {
        Lists { nodes: Slab::new() }
    }
}

impl<T> Lists<T> {
    /// How many nodes there are in all lists.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(super) fn get(&self, key: u32) -> Option<&T> {
        self.nodes.get(key as usize).map(|node| &node.value)
    }

    pub(super) fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        self.nodes.get_mut(key as usize).map(|node| &mut node.value)
    }

    /// The first node of `list`.
    pub(super) fn first(&self, list: &List) -> Option<(u32, &T)> {
        self.get(list.first).map(|value| (list.first, value))
    }

    /// Adds `value` behind the last node.
    pub(super) fn push(&mut self, list: &mut List, value: T) -> u32 {
        self.insert_after(list, list.last, value)
    }

    /// Adds `value` before the first node for which `belongs_behind` holds. Looks at the end, where
    /// it belongs nearly always, and then from the front.
    pub(super) fn insert(
        &mut self,
        list: &mut List,
        value: T,
        belongs_behind: impl Fn(&T) -> bool,
    ) -> u32 {
        if self.get(list.last).is_none_or(|last| !belongs_behind(last)) {
            return self.push(list, value);
        }
        let (mut before, mut at) = (NONE, list.first);
        while let Some(node) = self.nodes.get(at as usize)
            && !belongs_behind(&node.value)
        {
            (before, at) = (at, node.after);
        }
        self.insert_after(list, before, value)
    }

    fn insert_after(&mut self, list: &mut List, before: u32, value: T) -> u32 {
        let after = match self.nodes.get(before as usize) {
            Some(node) => node.after,
            None => list.first,
        };
        let key = self.nodes.insert(Node { value, before, after }) as u32;
        self.link(list, before, after, key, key);
        key
    }

    /// Takes a node out of `list`, which must be its own.
    pub(super) fn remove(&mut self, list: &mut List, key: u32) -> T {
        let Node { value, before, after } = self.nodes.remove(key as usize);
        self.link(list, before, after, after, before);
        if self.nodes.is_empty() && self.nodes.capacity() > KEPT_NODES {
            self.nodes = Slab::new();
        }
        value
    }

    /// Makes `next` follow `before` and `previous` precede `after`.
    fn link(&mut self, list: &mut List, before: u32, after: u32, next: u32, previous: u32) {
        match self.nodes.get_mut(before as usize) {
            Some(node) => node.after = next,
            None => list.first = next,
        }
        match self.nodes.get_mut(after as usize) {
            Some(node) => node.before = previous,
            None => list.last = previous,
        }
    }

    /// The values of `list`, first to last.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn iter<'a>(&'a self, list: &List) -> impl Iterator<Item = &'a T> + use<'a, T> {
        let mut at = list.first;
        std::iter::from_fn(move || {
            let node = self.nodes.get(at as usize)?;
            at = node.after;
            Some(&node.value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_leave_from_anywhere() {
        let (mut lists, mut list, mut other) = (Lists::default(), List::default(), List::default());
        let keys: Vec<u32> = (0..5).map(|value| lists.push(&mut list, value)).collect();
        lists.push(&mut other, 9);
        assert_eq!(lists.remove(&mut list, keys[2]), 2);
        assert_eq!(lists.remove(&mut list, keys[0]), 0);
        assert_eq!(lists.remove(&mut list, keys[4]), 4);
        assert_eq!(lists.iter(&list).collect::<Vec<_>>(), [&1, &3]);
        assert_eq!((lists.first(&list), lists.len()), (Some((keys[1], &1)), 3));
        lists.remove(&mut list, keys[1]);
        lists.remove(&mut list, keys[3]);
        assert_eq!(
            (lists.first(&list), lists.first(&other).map(|first| *first.1)),
            (None, Some(9))
        );
    }

    #[test]
    fn nodes_are_inserted_in_order() {
        let (mut lists, mut list) = (Lists::default(), List::default());
        for value in [5, 1, 9, 7, 3] {
            lists.insert(&mut list, value, |other| *other > value);
        }
        assert_eq!(lists.iter(&list).collect::<Vec<_>>(), [&1, &3, &5, &7, &9]);
    }

    #[test]
    fn an_empty_slab_gives_back_what_a_rush_took() {
        let (mut lists, mut list) = (Lists::default(), List::default());
        let keys: Vec<u32> = (0..5_000).map(|value| lists.push(&mut list, value)).collect();
        keys.iter().for_each(|key| _ = lists.remove(&mut list, *key));
        assert_eq!(lists.nodes.capacity(), 0);
    }
}
