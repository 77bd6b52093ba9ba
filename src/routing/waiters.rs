//! The requests of one worker that wait, and the queues they are in.

use std::hash::BuildHasher;
use std::sync::Arc;

use slab::Slab;

use super::QueuePos;
use super::claim::Claim;
use super::names::NameHashes;
use super::route::Route;
use super::spec::{RouteQuery, path_alone};

/// Recycled waiters kept for the next ones. Enough for the waves of a busy worker, some 200 KiB at
/// most.
const SPARE: usize = 1024;

/// A waiter whose text has grown beyond this is freed, not recycled, so that one client with a very
/// long path is not paid for in memory for ever. In bytes.
const TEXT_KEPT: usize = 512;

/// No name: what [`Waiters::names`] has where nothing waits.
const NO_NAME: u64 = 0;

/// A waiting request; good until it is matched or cancelled, and recognised as stale after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaiterId {
    pub(super) key: u32,
    /// Of this request alone among all that have waited on its worker.
    pub(super) stamp: u64,
}

/// The parts of a waiter that own memory, kept for the next waiter.
#[derive(Debug)]
struct Parts<B> {
    claim: Claim,
    queues: Vec<Queue<B>>,
    /// Host, fallback and path, one behind the other.
    text: String,
}

impl<B> Default for Parts<B> {
    fn default() -> Self {
        Parts { claim: Claim::default(), queues: Vec::new(), text: String::new() }
    }
}

/// A route that could serve a waiting request.
#[derive(Debug)]
pub(super) struct Queue<B> {
    pub(super) route: Arc<Route<B>>,
    /// Its entry there; `None` before it has entered.
    pub(super) entry: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Waiter<B> {
    pub(super) request: u64,
    pub(super) pos: QueuePos,
    /// Counted among those whose name nobody serves.
    pub(super) unserved: bool,
    stamp: u64,
    host_len: usize,
    /// 0 if there is no fallback.
    fallback_len: usize,
    parts: Parts<B>,
}

impl<B> Waiter<B> {
    pub(super) fn queues(&self) -> &[Queue<B>] {
        &self.parts.queues
    }

    pub(super) fn queues_mut(&mut self) -> &mut Vec<Queue<B>> {
        &mut self.parts.queues
    }

    pub(super) fn claim(&self) -> &Claim {
        &self.parts.claim
    }

    /// Claims the request for a bridge; false if it has been claimed on another worker.
    pub(super) fn win(&self) -> bool {
        self.parts.claim.win(self.stamp)
    }

    /// One more route could serve it.
    pub(super) fn add_candidate(&mut self, route: &Arc<Route<B>>) {
        self.parts.queues.push(Queue { route: Arc::clone(route), entry: None });
    }

    /// What it asks for.
    pub(super) fn query(&self) -> RouteQuery<'_> {
        let (host, rest) = self.parts.text.split_at(self.host_len);
        let (fallback, path) = rest.split_at(self.fallback_len);
        RouteQuery::new(host, path).with_fallback(Some(fallback).filter(|name| !name.is_empty()))
    }
}

/// Every waiting request of one worker.
#[derive(Debug)]
pub(super) struct Waiters<B> {
    all: Slab<Waiter<B>>,
    /// By key, the hashes of the host and of the fallback, so that a new route finds the requests
    /// for its name in one pass over a few KiB.
    names: Vec<[u64; 2]>,
    hashes: NameHashes,
    spare: Vec<Parts<B>>,
    last_stamp: u64,
}

impl<B> Default for Waiters<B> {
    fn default() -> Self {
        Waiters {
            all: Slab::new(),
            names: Vec::new(),
            hashes: NameHashes::default(),
            spare: Vec::new(),
            last_stamp: 0,
        }
    }
}

impl<B> Waiters<B> {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Adds a request that has entered no queue yet. The routes that could serve it are moved out
    /// of `candidates`.
    pub(super) fn insert(
        &mut self,
        request: u64,
        pos: QueuePos,
        query: &RouteQuery<'_>,
        candidates: &mut Vec<Arc<Route<B>>>,
    ) -> u32 {
        self.last_stamp += 1;
        let stamp = self.last_stamp;
        let mut parts = self.spare.pop().unwrap_or_default();
        parts.claim.open(stamp);
        let fallback = query.fallback.unwrap_or_default();
        for text in [query.host, fallback, path_alone(query.path)] {
            parts.text.push_str(text);
        }
        parts.queues.extend(candidates.drain(..).map(|route| Queue { route, entry: None }));
        let names = [query.host, fallback].map(|name| self.hash(name));
        let (host_len, fallback_len) = (query.host.len(), fallback.len());
        let unserved = false;
        let waiter = Waiter { request, pos, unserved, stamp, host_len, fallback_len, parts };
        let key = self.all.insert(waiter);
        if self.names.len() <= key {
            self.names.resize(key + 1, [NO_NAME; 2]);
        }
        self.names[key] = names;
        key as u32
    }

    /// Drops a request that is in no queue any more, or only where it is known to have been
    /// claimed.
    pub(super) fn remove(&mut self, key: u32) {
        let mut parts = self.all.remove(key as usize).parts;
        match self.all.is_empty() {
            // A rush is not paid for with a long pass for ever.
            true => self.names.clear(),
            false => self.names[key as usize] = [NO_NAME; 2],
        }
        if self.spare.len() < SPARE && parts.text.capacity() <= TEXT_KEPT {
            parts.text.clear();
            parts.queues.clear();
            self.spare.push(parts);
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
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Waiter<B>)> {
        self.all.iter().map(|(key, waiter)| (key as u32, waiter))
    }

    /// Those that may ask for `name`, in no order; some of them may not.
    pub(super) fn asking_for(&self, name: &str) -> impl Iterator<Item = u32> {
        let hash = self.hash(name);
        let keys = self.names.iter().enumerate().filter(move |(_, names)| names.contains(&hash));
        keys.map(|(key, _)| key as u32)
    }

    fn hash(&self, name: &str) -> u64 {
        match name {
            "" => NO_NAME,
            name => self.hashes.hash_one(name).max(NO_NAME + 1),
        }
    }
}

impl<B> std::ops::Index<u32> for Waiters<B> {
    type Output = Waiter<B>;

    fn index(&self, key: u32) -> &Waiter<B> {
        &self.all[key as usize]
    }
}

impl<B> std::ops::IndexMut<u32> for Waiters<B> {
    fn index_mut(&mut self, key: u32) -> &mut Waiter<B> {
        &mut self.all[key as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Micros;

    const POS: QueuePos = QueuePos { since: Micros(1), tie: 2 };

    fn insert(waiters: &mut Waiters<u64>, host: &str, fallback: Option<&str>, path: &str) -> u32 {
        let query = RouteQuery::new(host, path).with_fallback(fallback);
        waiters.insert(7, POS, &query, &mut Vec::new())
    }

    fn asked(waiters: &Waiters<u64>, key: u32) -> (&str, Option<&str>, &str) {
        let query = waiters[key].query();
        (query.host, query.fallback, query.path)
    }

    #[test]
    fn id_is_not_good_for_the_next_in_the_same_place() {
        let mut waiters = Waiters::default();
        let key = insert(&mut waiters, "a.example", None, "/x?q");
        let id = waiters.id(key);
        assert!(waiters.contains(id) && waiters[key].win());
        assert_eq!(asked(&waiters, key), ("a.example", None, "/x"));
        waiters.remove(key);
        assert_eq!(insert(&mut waiters, "b", Some("c"), "/"), key);
        assert!(!waiters.contains(id) && waiters[key].win());
        assert_eq!(asked(&waiters, key), ("b", Some("c"), "/"));
    }

    #[test]
    fn requests_are_found_by_host_and_by_fallback() {
        let mut waiters = Waiters::default();
        let keys = [("a", None), ("b", Some("a")), ("", None), ("c", Some("b"))]
            .map(|(host, fallback)| insert(&mut waiters, host, fallback, "/"));
        let asking = |waiters: &Waiters<u64>, name| waiters.asking_for(name).collect::<Vec<_>>();
        assert_eq!(asking(&waiters, "a"), keys[..2]);
        assert_eq!(asking(&waiters, "b"), [keys[1], keys[3]]);
        waiters.remove(keys[1]);
        assert_eq!((asking(&waiters, "a"), asking(&waiters, "d")), (vec![keys[0]], vec![]));
        [keys[0], keys[2], keys[3]].into_iter().for_each(|key| waiters.remove(key));
        assert!(waiters.names.is_empty());
    }

    #[test]
    fn long_text_is_not_kept() {
        let mut waiters = Waiters::default();
        let key = insert(&mut waiters, "a", None, &"/".repeat(4096));
        waiters.remove(key);
        assert!(waiters.spare.is_empty());
    }
}
