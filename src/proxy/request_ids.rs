//! Ids of requests: unique, not to be guessed, and made without a system call.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

use crate::http::RequestId;

/// Where a worker gets its ids from. It does not print: what is in it tells all of them.
pub(super) struct RequestIds {
    /// A keyed hash (SipHash) with keys of its own from the system's random numbers.
    hashes: RandomState,
    worker: usize,
    made: u64,
}

impl RequestIds {
    pub(super) fn new(worker: usize) -> RequestIds {
        RequestIds { hashes: RandomState::new(), worker, made: 0 }
    }

    pub(super) fn make(&mut self) -> RequestId {
        self.made += 1;
        RequestId::new([0, 1].map(|half| self.hashes.hash_one((self.worker, self.made, half))))
    }
}

/// The id of a client's current request.
pub(super) enum CurrentId {
    /// Made here, and written into the request.
    Made(RequestId),
    /// Given by a proxy in front that is trusted.
    Kept(Box<str>),
}

/// An id in a line of the log, behind other words about the request; nothing if there is none.
pub(super) struct ShownId<'a>(pub(super) Option<&'a CurrentId>);

impl CurrentId {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            CurrentId::Made(id) => out.extend_from_slice(&id.digits()),
            CurrentId::Kept(id) => out.extend_from_slice(id.as_bytes()),
        }
    }
}

impl fmt::Display for CurrentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CurrentId::Made(id) => id.fmt(f),
            CurrentId::Kept(id) => f.write_str(id),
        }
    }
}

impl fmt::Display for ShownId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(id) => write!(f, ", id {id}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_differ() {
        let mut workers = [RequestIds::new(0), RequestIds::new(1)];
        let ids = workers.iter_mut().flat_map(|ids| [0; 1000].map(|_| ids.make().to_string()));
        let ids: BTreeSet<String> = ids.collect();
        assert!(ids.len() == 2000 && ids.iter().all(|id| id.len() == 32));
        // Both halves.
        let firsts: BTreeSet<&str> = ids.iter().map(|id| &id[..16]).collect();
        let lasts: BTreeSet<&str> = ids.iter().map(|id| &id[16..]).collect();
        assert_eq!((firsts.len(), lasts.len()), (2000, 2000));
    }
}
