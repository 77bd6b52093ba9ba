//! A doubly linked list in a slab. A node can be set aside: it keeps its key, but is not in the list.

use slab::Slab;

/// "No neighbour".
const NONE: u32 = u32::MAX;

/// In place of the neighbour before: the node has been set aside.
const ASIDE: u32 = u32::MAX - 1;

/// A list that has become empty frees its capacity beyond this many nodes, so that one rush on one
/// route does not cost memory forever. Some 64 KiB.
const KEPT_NODES: usize = 1024;

/// Any node is removed in O(1), and adding one does not allocate once the list has been as long. A
/// key is reused as soon as its node has been removed.
#[derive(Debug)]
pub(super) struct List<T> {
    nodes: Slab<Node<T>>,
    first: u32,
    last: u32,
}

#[derive(Debug)]
struct Node<T> {
    value: T,
    /// [`ASIDE`] while it is not in the list.
    before: u32,
    after: u32,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        List { nodes: Slab::new(), first: NONE, last: NONE }
    }
}

impl<T> List<T> {
    /// Nodes that are set aside count.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn get(&self, key: u32) -> Option<&T> {
        self.nodes.get(key as usize).map(|node| &node.value)
    }

    pub(super) fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        self.nodes.get_mut(key as usize).map(|node| &mut node.value)
    }

    pub(super) fn first(&self) -> Option<&T> {
        self.get(self.first)
    }

    pub(super) fn first_key(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    /// Whether a node is there, but not in the list.
    pub(super) fn is_aside(&self, key: u32) -> bool {
        self.nodes.get(key as usize).is_some_and(|node| node.before == ASIDE)
    }

    /// Adds `value` behind the last node.
    pub(super) fn push(&mut self, value: T) -> u32 {
        self.insert_after(self.last, value)
    }

    /// Adds `value` before the first node for which `belongs_behind` holds. Tries the end first,
    /// which is nearly always right, then searches from the front.
    pub(super) fn insert(&mut self, value: T, belongs_behind: impl Fn(&T) -> bool) -> u32 {
        let before = self.before_first(belongs_behind);
        self.insert_after(before, value)
    }

    /// The node behind which one belongs that goes before the first for which `belongs_behind` holds.
    fn before_first(&self, belongs_behind: impl Fn(&T) -> bool) -> u32 {
        if self.get(self.last).is_none_or(|last| !belongs_behind(last)) {
            return self.last;
        }
        let (mut before, mut at) = (NONE, self.first);
        while let Some(node) = self.nodes.get(at as usize)
            && !belongs_behind(&node.value)
        {
            (before, at) = (at, node.after);
        }
        before
    }

    fn insert_after(&mut self, before: u32, value: T) -> u32 {
        let key = self.push_aside(value);
        self.put_after(before, key);
        key
    }

    /// Adds `value` outside the list.
    pub(super) fn push_aside(&mut self, value: T) -> u32 {
        self.nodes.insert(Node { value, before: ASIDE, after: NONE }) as u32
    }

    /// Puts a node that has been set aside behind `before`, or at the front.
    fn put_after(&mut self, before: u32, key: u32) {
        let after = match self.nodes.get(before as usize) {
            Some(node) => node.after,
            None => self.first,
        };
        let node = &mut self.nodes[key as usize];
        (node.before, node.after) = (before, after);
        self.link(before, after, key, key);
    }

    /// Takes a node out of the list, under the same key.
    pub(super) fn set_aside(&mut self, key: u32) {
        let node = &mut self.nodes[key as usize];
        let (before, after) = (node.before, node.after);
        (node.before, node.after) = (ASIDE, NONE);
        self.link(before, after, after, before);
    }

    /// Puts a node that has been set aside before the first for which `belongs_behind` holds.
    pub(super) fn put_back(&mut self, key: u32, belongs_behind: impl Fn(&T) -> bool) {
        let before = self.before_first(belongs_behind);
        self.put_after(before, key);
    }

    /// The key of the first node for which `which` holds, among the first `most`.
    pub(super) fn find(&self, most: usize, which: impl Fn(&T) -> bool) -> Option<u32> {
        let mut at = self.first;
        for _ in 0..most {
            let node = self.nodes.get(at as usize)?;
            if which(&node.value) {
                return Some(at);
            }
            at = node.after;
        }
        None
    }

    /// Calls `change` with each node and its key, first to last.
    pub(super) fn for_each(&mut self, mut change: impl FnMut(u32, &mut T)) {
        let mut at = self.first;
        while let Some(node) = self.nodes.get_mut(at as usize) {
            change(at, &mut node.value);
            at = node.after;
        }
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        (self.first != NONE).then(|| self.remove(self.first))
    }

    /// Takes a node out, which must be there, or aside.
    pub(super) fn remove(&mut self, key: u32) -> T {
        let Node { value, before, after } = self.nodes.remove(key as usize);
        if before != ASIDE {
            self.link(before, after, after, before);
        }
        if self.nodes.is_empty() && self.nodes.capacity() > KEPT_NODES {
            self.nodes = Slab::new();
        }
        value
    }

    /// Makes `next` follow `before` and `previous` precede `after`.
    fn link(&mut self, before: u32, after: u32, next: u32, previous: u32) {
        match self.nodes.get_mut(before as usize) {
            Some(node) => node.after = next,
            None => self.first = next,
        }
        match self.nodes.get_mut(after as usize) {
            Some(node) => node.before = previous,
            None => self.last = previous,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl<T> List<T> {
        /// First to last.
        pub(in crate::routing) fn iter(&self) -> impl Iterator<Item = &T> {
            let mut at = self.first;
            std::iter::from_fn(move || {
                let node = self.nodes.get(at as usize)?;
                at = node.after;
                Some(&node.value)
            })
        }
    }

    #[test]
    fn nodes_leave_from_anywhere() {
        let mut list = List::default();
        let keys: Vec<u32> = (0..6).map(|value| list.push(value)).collect();
        assert_eq!([keys[2], keys[0], keys[5]].map(|key| list.remove(key)), [2, 0, 5]);
        assert_eq!(list.iter().collect::<Vec<_>>(), [&1, &3, &4]);
        assert_eq!((list.first(), list.len()), (Some(&1), 3));
        assert_eq!(
            [list.pop(), list.pop(), list.pop(), list.pop()],
            [Some(1), Some(3), Some(4), None]
        );
        list.push(7);
        assert_eq!(list.iter().collect::<Vec<_>>(), [&7]);
    }

    #[test]
    fn the_first_fitting_node_is_found() {
        let mut list = List::default();
        let keys: Vec<u32> = [4, 7, 6, 9].into_iter().map(|value| list.push(value)).collect();
        let odd = |value: &i32| value % 2 == 1;
        assert_eq!(list.find(4, odd), Some(keys[1]));
        assert_eq!(list.find(1, odd), None);
        list.remove(keys[1]);
        assert_eq!(list.find(9, odd), Some(keys[3]));
        assert_eq!(list.find(9, |value| *value > 9), None);
    }

    #[test]
    fn nodes_are_set_aside_and_put_back() {
        let mut list = List::default();
        let keys: Vec<u32> = [1, 3, 5, 7].into_iter().map(|value| list.push(value)).collect();
        list.set_aside(keys[0]);
        list.set_aside(keys[3]);
        let four = list.push_aside(4);
        assert_eq!(list.iter().collect::<Vec<_>>(), [&3, &5]);
        assert_eq!((list.get(keys[0]), list.first(), list.len()), (Some(&1), Some(&3), 5));
        for (key, value) in [(four, 4), (keys[0], 1)] {
            list.put_back(key, |other| *other > value);
        }
        assert_eq!(list.remove(keys[3]), 7);
        assert_eq!(list.iter().collect::<Vec<_>>(), [&1, &3, &4, &5]);
        keys[..3].iter().for_each(|key| list.set_aside(*key));
        list.set_aside(four);
        assert_eq!(list.first(), None);
        assert_eq!(list.pop(), None);
        list.put_back(keys[1], |_| true);
        assert_eq!(list.iter().collect::<Vec<_>>(), [&3]);
    }

    #[test]
    fn nodes_are_inserted_in_order() {
        let mut list = List::default();
        for value in [5, 1, 9, 7, 3] {
            list.insert(value, |other| *other > value);
        }
        assert_eq!(list.iter().collect::<Vec<_>>(), [&1, &3, &5, &7, &9]);
    }

    #[test]
    fn an_empty_list_gives_back_what_a_rush_took() {
        let mut list = List::default();
        (0..5_000).for_each(|value| _ = list.push(value));
        while list.pop().is_some() {}
        assert_eq!(list.nodes.capacity(), 0);
    }
}
