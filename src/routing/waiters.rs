//! The requests of one worker that wait, and the queues they are in.

use std::hash::BuildHasher;
use std::sync::Arc;

use crate::http::under::path_alone;
use crate::time::Micros;

use super::claim::Claim;
use super::names::NameHashes;
use super::order::{QueuePos, WaiterId};
use super::patterns::Pattern;
use super::route::Route;
use super::spec::RouteQuery;
use super::wanted::InstanceId;

/// How many free entries keep their buffers for the next request. Enough for the bursts of a busy
/// worker; some 200 KiB at most.
const BUFFERS_KEPT: usize = 1024;

/// A text that has grown beyond this many bytes is freed, so that one client with a very long path
/// does not cost memory forever.
const TEXT_KEPT: usize = 512;

/// "No name": the value in [`Waiters::names`] where nothing waits.
const NO_NAME: u64 = 0;

/// A route that could serve a waiting request.
#[derive(Debug)]
pub(super) struct Queue<B> {
    pub(super) route: Arc<Route<B>>,
    /// Its entry there; `None` before it has entered.
    pub(super) entry: Option<u32>,
}

/// A waiting request, or an entry that is free for the next one.
#[derive(Debug)]
pub(super) struct Waiter<B> {
    pub(super) request: u64,
    pub(super) pos: QueuePos,
    /// Counted among those whose name has no route.
    pub(super) unserved: bool,
    /// The routes that could serve it: first those that existed when it arrived, most specific
    /// first.
    pub(super) queues: Vec<Queue<B>>,
    /// The only instance whose bridges may serve it.
    pub(super) stays_for: Option<InstanceId>,
    pub(super) claim: Claim,
    /// 0 while the entry is free.
    stamp: u64,
    /// Host, fallback and path, one behind the other.
    text: String,
    host_len: usize,
    /// 0 if there is no fallback.
    fallback_len: usize,
}

impl<B> Waiter<B> {
    fn free() -> Self {
        Waiter {
            request: 0,
            pos: QueuePos { since: Micros(0), tie: 0 },
            unserved: false,
            queues: Vec::new(),
            stays_for: None,
            claim: Claim::default(),
            stamp: 0,
            text: String::new(),
            host_len: 0,
            fallback_len: 0,
        }
    }

    /// Claims the request for a bridge; false if it has been claimed on another worker.
    pub(super) fn win(&self) -> bool {
        self.claim.win(self.stamp)
    }

    /// What it asks for.
    pub(super) fn query(&self) -> RouteQuery<'_> {
        let (host, rest) = self.text.split_at(self.host_len);
        let (fallback, path) = rest.split_at(self.fallback_len);
        RouteQuery::new(host, path).with_fallback(Some(fallback).filter(|name| !name.is_empty()))
    }
}

/// Every waiting request of one worker.
#[derive(Debug)]
pub(super) struct Waiters<B> {
    all: Vec<Waiter<B>>,
    free: Vec<u32>,
    /// By key, so that a new route finds the requests for its names in one pass over a few KiB.
    names: Vec<Names>,
    hashes: NameHashes,
    last_stamp: u64,
}

/// What is compared of the host and the fallback of a request.
#[derive(Clone, Copy, Debug)]
struct Names {
    /// The hashes of both.
    whole: [u64; 2],
    /// A bit for each suffix of theirs that a wildcard could name, chosen by its hash.
    suffixes: u64,
}

impl Names {
    /// Of an entry where nothing waits.
    const NONE: Names = Names { whole: [NO_NAME; 2], suffixes: 0 };
}

impl<B> Default for Waiters<B> {
    fn default() -> Self {
        let (all, free, names) = (Vec::new(), Vec::new(), Vec::new());
        Waiters { all, free, names, hashes: NameHashes::default(), last_stamp: 0 }
    }
}

impl<B> Waiters<B> {
    pub(super) fn len(&self) -> usize {
        self.all.len() - self.free.len()
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
        let fallback = query.fallback.unwrap_or_default();
        let both = [query.host, fallback];
        let suffixes = both.iter().flat_map(|name| suffixes(name));
        let names = Names {
            whole: both.map(|name| self.hash(name)),
            suffixes: suffixes.fold(0, |bits, suffix| bits | self.bit(suffix)),
        };
        let key = self.free.pop().unwrap_or_else(|| {
            self.all.push(Waiter::free());
            self.names.push(Names::NONE);
            self.all.len() as u32 - 1
        });
        self.last_stamp += 1;
        self.names[key as usize] = names;
        let waiter = &mut self.all[key as usize];
        (waiter.request, waiter.pos, waiter.stamp) = (request, pos, self.last_stamp);
        (waiter.unserved, waiter.stays_for) = (false, None);
        waiter.claim.open(waiter.stamp);
        waiter.queues.extend(candidates.drain(..).map(|route| Queue { route, entry: None }));
        (waiter.host_len, waiter.fallback_len) = (query.host.len(), fallback.len());
        for text in [query.host, fallback, path_alone(query.path)] {
            waiter.text.push_str(text);
        }
        key
    }

    /// Frees the entry of a request that has been claimed.
    pub(super) fn remove(&mut self, key: u32) {
        let waiter = &mut self.all[key as usize];
        waiter.stamp = 0;
        waiter.queues.clear();
        waiter.text.clear();
        if key as usize >= BUFFERS_KEPT || waiter.text.capacity() > TEXT_KEPT {
            (waiter.queues, waiter.text) = (Vec::new(), String::new());
        }
        self.names[key as usize] = Names::NONE;
        self.free.push(key);
        if self.len() == 0 && self.all.len() > BUFFERS_KEPT {
            // Or one rush would cost memory and long passes forever.
            *self = Waiters { last_stamp: self.last_stamp, ..Waiters::default() };
        }
    }

    /// The id by which callers know the request.
    pub(super) fn id(&self, key: u32) -> WaiterId {
        WaiterId { key, stamp: self[key].stamp }
    }

    /// Whether the request still waits.
    pub(super) fn contains(&self, id: WaiterId) -> bool {
        self.all.get(id.key as usize).is_some_and(|waiter| waiter.stamp == id.stamp)
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Waiter<B>)> {
        let all = (0..).zip(&self.all);
        all.filter(|(_, waiter)| waiter.stamp != 0)
    }

    /// Those that may ask for one of these patterns, in no order; a few of them may not.
    pub(super) fn asking_for(&self, patterns: &[Arc<str>]) -> Vec<u32> {
        let (mut exact, mut below) = (Vec::new(), 0);
        for pattern in patterns {
            match Pattern::read(pattern) {
                Pattern::Exact(name) => exact.push(self.hash(name)),
                Pattern::Below(suffix) => below |= self.bit(suffix),
                Pattern::Any => return self.iter().map(|(key, _)| key).collect(),
            }
        }
        exact.sort_unstable();
        let asks = |names: &Names| {
            let is_one = |hash: &u64| *hash != NO_NAME && exact.binary_search(hash).is_ok();
            names.suffixes & below != 0 || names.whole.iter().any(is_one)
        };
        (0..).zip(&self.names).filter(|(_, names)| asks(names)).map(|(key, _)| key).collect()
    }

    /// The bit of [`Names::suffixes`] for this one.
    fn bit(&self, suffix: &str) -> u64 {
        1 << (self.hashes.hash_one(suffix) >> (u64::BITS - u64::BITS.ilog2()))
    }

    fn hash(&self, name: &str) -> u64 {
        match name {
            "" => NO_NAME,
            name => self.hashes.hash_one(name).max(NO_NAME + 1),
        }
    }
}

/// What follows each dot of a name: the suffixes of the wildcards that match it.
fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').map(|(dot, _)| &name[dot + 1..])
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
        let asking = |waiters: &Waiters<u64>, name: &str| waiters.asking_for(&[name.into()]);
        assert_eq!(asking(&waiters, "a"), keys[..2]);
        assert_eq!(asking(&waiters, "b"), [keys[1], keys[3]]);
        waiters.remove(keys[1]);
        assert_eq!((asking(&waiters, "a"), asking(&waiters, "d")), (vec![keys[0]], vec![]));
        [keys[0], keys[2], keys[3]].into_iter().for_each(|key| waiters.remove(key));
        assert_eq!((waiters.len(), asking(&waiters, "a")), (0, vec![]));
    }

    /// A new route must not look at every request that waits.
    #[test]
    fn few_requests_are_found_that_ask_for_something_else() {
        const WAITING: usize = 8_000;
        let mut waiters = Waiters::default();
        for number in 0..WAITING {
            insert(&mut waiters, &format!("w{number}.x{number}.test"), None, "/");
        }
        let found = |patterns: &[&str]| {
            let patterns: Vec<Arc<str>> = patterns.iter().map(|text| (*text).into()).collect();
            waiters.asking_for(&patterns)
        };
        assert!(found(&["new.test", "w5.test", "x6.test"]).is_empty());
        assert_eq!(found(&["new.test", "w7.x7.test"]), [7]);
        // The hash is another in each process, and the suffix that all share has a bit too.
        let unlike =
            |number: &usize| waiters.bit(&format!("x{number}.test")) != waiters.bit("test");
        let chosen = (8..WAITING).find(unlike).expect("a suffix with a bit of its own");
        let below = found(&[&format!("*.x{chosen}.test"), "new.test"]);
        // Of the other suffixes, one in 64 has the same bit by chance.
        assert!(below.contains(&(chosen as u32)) && below.len() < WAITING / 32, "{}", below.len());
        assert_eq!(found(&["*.test"]).len(), WAITING);
        assert_eq!(found(&["*"]).len(), WAITING);
    }

    #[test]
    fn what_a_rush_took_is_given_back() {
        let mut waiters = Waiters::default();
        let key = insert(&mut waiters, "a", None, &"/".repeat(4096));
        waiters.remove(key);
        assert_eq!(waiters[key].text.capacity(), 0);
        let key = insert(&mut waiters, "a", None, "/");
        let id = waiters.id(key);
        let keys: Vec<u32> = (0..5_000).map(|_| insert(&mut waiters, "a", None, "/")).collect();
        keys.into_iter().chain([id.key]).for_each(|key| waiters.remove(key));
        assert_eq!((waiters.all.len(), waiters.names.len(), waiters.len()), (0, 0, 0));
        insert(&mut waiters, "a", None, "/");
        assert!(!waiters.contains(id));
    }
}
