//! The deregistrations that a worker remembers.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::bridge::BackendToken;
use crate::routing::RouteSpec;
use crate::time::Millis;

/// How long a deregistration is remembered. A BRIDGE sent before it has `head-timeout` (10 s) to
/// arrive, plus the delays of the network and a full backlog.
const REMEMBERED: Duration = Duration::from_secs(60);

/// How many deregistrations a worker remembers, at some 80 bytes each; the oldest are forgotten
/// first. That is 270 a second for a minute.
const REMEMBERED_MAX: usize = 16 * 1024;

/// The bridges of a token on one route deregister.
pub(super) struct Deregistration {
    pub(super) token: BackendToken,
    /// Not confined, whatever those of the bridges are: secrets may have come into force meanwhile.
    pub(super) spec: RouteSpec,
}

/// A deregistration as it is remembered. The spec may be long, so only its hash is kept, under a
/// key of this process, so that no peer can construct a collision.
type Remembered = (BackendToken, u64);

/// The recent deregistrations.
#[derive(Default)]
pub(super) struct Deregistered {
    hasher: RandomState,
    /// Until when each is remembered.
    until: HashMap<Remembered, Millis>,
    /// The same, in the order of that time. A renewed one is here twice.
    order: VecDeque<(Remembered, Millis)>,
}

impl Deregistered {
    pub(super) fn remember(&mut self, deregistration: &Deregistration, now: Millis) {
        self.forget(now);
        let remembered = (deregistration.token, self.hasher.hash_one(&deregistration.spec));
        self.until.insert(remembered, now + REMEMBERED);
        self.order.push_back((remembered, now + REMEMBERED));
    }

    /// Forgets those that are too old, and the oldest when there are too many.
    fn forget(&mut self, now: Millis) {
        while let Some(&(remembered, until)) = self.order.front()
            && (until <= now || self.order.len() >= REMEMBERED_MAX)
        {
            self.order.pop_front();
            if self.until.get(&remembered) == Some(&until) {
                self.until.remove(&remembered);
            }
        }
    }

    pub(super) fn has(&self, token: BackendToken, spec: &RouteSpec, now: Millis) -> bool {
        !self.until.is_empty()
            && self
                .until
                .get(&(token, self.hasher.hash_one(spec)))
                .is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deregistration(number: u16, host: &str) -> Deregistration {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        Deregistration { token: BackendToken::new(bytes), spec: RouteSpec::new([host], "") }
    }

    fn has(deregistered: &Deregistered, deregistration: &Deregistration, now: u64) -> bool {
        deregistered.has(deregistration.token, &deregistration.spec, Millis(now))
    }

    #[test]
    fn a_deregistration_is_remembered_by_token_and_route_for_a_while() {
        let mut deregistered = Deregistered::default();
        let one = deregistration(1, "a.test");
        assert!(!has(&deregistered, &one, 0));
        deregistered.remember(&one, Millis(1_000));
        assert!(has(&deregistered, &one, 1_000) && has(&deregistered, &one, 60_999));
        assert!(!has(&deregistered, &one, 61_000));
        assert!(!has(&deregistered, &deregistration(2, "a.test"), 1_000));
        assert!(!has(&deregistered, &deregistration(1, "b.test"), 1_000));
    }

    #[test]
    fn one_that_is_renewed_is_remembered_longer() {
        let mut deregistered = Deregistered::default();
        let (one, two) = (deregistration(1, "a.test"), deregistration(2, "a.test"));
        deregistered.remember(&one, Millis(0));
        deregistered.remember(&one, Millis(30_000));
        deregistered.remember(&two, Millis(61_000));
        assert!(has(&deregistered, &one, 89_999) && !has(&deregistered, &one, 90_000));
        assert_eq!(deregistered.order.len(), 2);
    }

    #[test]
    fn memory_is_bounded() {
        let mut deregistered = Deregistered::default();
        for number in 0..20_000 {
            deregistered.remember(&deregistration(number, "a.test"), Millis(0));
        }
        assert_eq!(
            (deregistered.until.len(), deregistered.order.len()),
            (REMEMBERED_MAX, REMEMBERED_MAX)
        );
        assert!(has(&deregistered, &deregistration(19_999, "a.test"), 0));
        assert!(!has(&deregistered, &deregistration(0, "a.test"), 0));
        deregistered.remember(&deregistration(1, "a.test"), Millis(60_000));
        assert_eq!((deregistered.until.len(), deregistered.order.len()), (1, 1));
    }
}
