//! Files that have been opened lately, or were not there: of one event loop, bounded, and for a second.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::time::Millis;

use super::file::{Nearness, OpenFile};

/// How long what was found holds. A file that has been replaced is seen after this at the latest.
pub(crate) const VALID: Duration = Duration::from_secs(1);

/// Most entries of a generation; there are two.
const MOST: usize = 128;

/// How many descriptors a cache may hold; files that are there in other codings have more.
pub(crate) const DESCRIPTORS: usize = 2 * MOST;

/// What is known of a file.
#[derive(Clone)]
pub(crate) enum Known {
    File(Arc<OpenFile>),
    Missing,
}

struct Entry {
    known: Known,
    since: Millis,
}

/// What is known. Two generations: when the younger is full, it takes the place of the older, whose
/// files are closed.
#[derive(Default)]
pub(crate) struct Cache {
    young: HashMap<Box<[u8]>, Entry>,
    old: HashMap<Box<[u8]>, Entry>,
    /// Room for a key.
    key: Vec<u8>,
}

impl Cache {
    /// What is known of the file `name` below the root of this number. A near one is looked at again: it
    /// may have been written to.
    pub(crate) fn get(&mut self, root: u32, name: &[u8], now: Millis) -> Option<Known> {
        self.set_key(root, name);
        let entry = self.young.get(&*self.key).or_else(|| self.old.get(&*self.key))?;
        if now.since(entry.since) >= VALID {
            return None;
        }
        match &entry.known {
            Known::File(file) if file.nearness != Nearness::Remote && !file.is_unchanged() => None,
            known => Some(known.clone()),
        }
    }

    /// Notes what has been found.
    pub(crate) fn put(&mut self, root: u32, name: &[u8], known: Known, now: Millis) {
        self.set_key(root, name);
        if self.young.len() >= MOST && !self.young.contains_key(&*self.key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(self.key.as_slice().into(), Entry { known, since: now });
    }

    /// Closes what holds no longer.
    pub(crate) fn sweep(&mut self, now: Millis) {
        for entries in [&mut self.young, &mut self.old] {
            entries.retain(|_, entry| now.since(entry.since) < VALID);
            if entries.is_empty() {
                entries.shrink_to_fit();
            }
        }
    }

    /// Closes everything.
    pub(crate) fn clear(&mut self) {
        (self.young, self.old) = Default::default();
    }

    fn set_key(&mut self, root: u32, name: &[u8]) {
        self.key.clear();
        self.key.extend_from_slice(&root.to_ne_bytes());
        self.key.extend_from_slice(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_missing(cache: &mut Cache, root: u32, name: &[u8], now: u64) -> bool {
        matches!(cache.get(root, name, Millis(now)), Some(Known::Missing))
    }

    #[test]
    fn what_was_found_holds_for_a_second() {
        let mut cache = Cache::default();
        cache.put(1, b"a", Known::Missing, Millis(5000));
        assert!(is_missing(&mut cache, 1, b"a", 5000));
        assert!(is_missing(&mut cache, 1, b"a", 5999));
        assert!(!is_missing(&mut cache, 1, b"a", 6000));
        assert!(!is_missing(&mut cache, 2, b"a", 5000));
        assert!(!is_missing(&mut cache, 1, b"b", 5000));
        cache.sweep(Millis(5999));
        assert_eq!(cache.young.len(), 1);
        cache.sweep(Millis(6000));
        assert_eq!(cache.young.len(), 0);
    }

    #[test]
    fn it_is_bounded() {
        let mut cache = Cache::default();
        for number in 0..10 * MOST as u32 {
            cache.put(number, b"a", Known::Missing, Millis(0));
            assert!(cache.young.len() + cache.old.len() <= 2 * MOST);
            assert!(is_missing(&mut cache, number, b"a", 0));
        }
        cache.clear();
        assert!(!is_missing(&mut cache, 10 * MOST as u32 - 1, b"a", 0));
    }
}
