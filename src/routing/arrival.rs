//! A request finds a bridge, or its way into the queues of the routes that could serve it, one step at a time: the
//! steps are where other workers may come in between.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering::*;

use super::lobby::Lobby;
use super::queue::Entry;
use super::route::Target;
use super::waiters::Standing;
use super::{Arrival, Match, Place};

/// A request on its way into the queues, between two steps.
pub(super) enum Step {
    /// A parked bridge of this worker serves it; it waits no more.
    Matched(Match),
    /// It is in this route's queue now, and that is published; next it looks elsewhere.
    Published(u32),
    /// There is no further route to wait for.
    Everywhere,
}

/// How an arrival begins.
pub(super) enum Begun {
    Over(Arrival),
    /// It is among the waiters, in no queue yet.
    Waiter(u32),
}

/// Whether the bounds on waiting apply to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is new.
    Bounded,
    /// It was let in before.
    Returning,
}

impl Lobby {
    /// First step of an arrival: a bridge that is parked here, a refusal, or a place among the waiters.
    pub(super) fn begin_arrival(
        &mut self,
        request: u64,
        place: Place,
        target: &Target<'_>,
        admission: Admission,
    ) -> Begun {
        let mut candidates = std::mem::take(&mut self.scratch.candidates);
        candidates.clear();
        let begun = match self.match_at_once(target, &mut candidates) {
            Some(r) => {
                let bridge = self.take_parked(r);
                Begun::Over(Arrival::Matched { bridge, route: self.name(r), place })
            }
            None => match self.refusal(&candidates, admission) {
                Some(refusal) => Begun::Over(refusal),
                None => {
                    let key = self.waiters.insert(request, place, target, &candidates);
                    if admission == Admission::Returning {
                        self.waiters[key].standing = Standing::Advancing;
                    }
                    self.count_in(key);
                    Begun::Waiter(key)
                }
            },
        };
        self.scratch.candidates = candidates;
        begun
    }

    /// The rest of an arrival.
    pub(super) fn finish_arrival(&mut self, key: u32) -> Arrival {
        match self.advance(key) {
            Some(Match { bridge, route, place, .. }) => Arrival::Matched { bridge, route, place },
            None => Arrival::Waiting(self.waiters.id(key)),
        }
    }

    /// The route whose longest parked bridge, here, a request for `target` gets without waiting. Otherwise
    /// `candidates` has all routes that could serve it.
    fn match_at_once(&self, target: &Target<'_>, candidates: &mut Vec<u32>) -> Option<u32> {
        let is_here = |r: u32| !self.routes[r as usize].line.is_empty();
        let found = self.index.visit(target, |r| {
            // The most specific route first, and nothing else matters if it has a bridge here: the common case.
            if candidates.is_empty() && is_here(r) {
                return ControlFlow::Break(r);
            }
            if !candidates.contains(&r) {
                candidates.push(r);
            }
            ControlFlow::Continue(())
        });
        if let ControlFlow::Break(r) = found {
            return Some(r);
        }
        // A less specific route serves only when the more specific ones have nothing parked on any worker.
        let first_here = candidates.iter().position(|&r| is_here(r))?;
        let none_elsewhere = candidates[..first_here].iter().all(|&r| !self.parked_elsewhere(r));
        none_elsewhere.then(|| candidates[first_here])
    }

    /// Why a request for these routes may not wait, if it may not.
    fn refusal(&self, candidates: &[u32], admission: Admission) -> Option<Arrival> {
        let Some(&first) = candidates.first() else {
            let full = || self.directory.unserved() >= self.bounds.unserved;
            return match admission {
                _ if !self.bounds.unserved_waits => Some(Arrival::Unknown),
                Admission::Bounded if full() => Some(Arrival::UnservedFull),
                _ => None,
            };
        };
        if let Admission::Returning = admission {
            return None;
        }
        let route = &self.routes[first as usize];
        // The sum reads every worker's line, so it is asked only by who has used up its own share.
        let share = self.bounds.per_route.div_ceil(self.directory.workers());
        let full = route.admitted as usize >= share
            && route.shared.admitted() as usize >= self.bounds.per_route;
        full.then_some(Arrival::RouteFull)
    }

    /// Takes a waiter down the list of its routes until a bridge is found or expected, or the list ends.
    pub(super) fn advance(&mut self, key: u32) -> Option<Match> {
        loop {
            match self.publish_step(key) {
                Step::Matched(found) => return Some(found),
                Step::Everywhere => return None,
                Step::Published(r) => {
                    if self.look_step(key, r).is_break() {
                        return None;
                    }
                }
            }
        }
    }

    /// The waiter takes a bridge parked here, or enters the queue of its next route, for all to see.
    pub(super) fn publish_step(&mut self, key: u32) -> Step {
        let waiter = &mut self.waiters[key];
        let Some(&r) = waiter.candidates().get(waiter.entered) else {
            waiter.standing = Standing::Everywhere;
            return Step::Everywhere;
        };
        if self.routes[r as usize].line.is_empty() {
            waiter.entered += 1;
            self.enter(key, r);
            return Step::Published(r);
        }
        let (request, place) = self.take_waiter(key);
        let bridge = self.take_parked(r);
        Step::Matched(Match { request, bridge, route: self.name(r), place })
    }

    /// Puts a waiter into the queue of `r`, for all to see.
    pub(super) fn enter(&mut self, key: u32, r: u32) {
        let Place { seq, since } = self.waiters[key].place;
        let queue = &mut self.routes[r as usize].queue;
        queue.insert(Entry { seq, since, waiter: key });
        // An arrival in the past may be older than the others believe anybody here to be.
        let is_first = queue.front().is_some_and(|first| first.seq == seq);
        let surprising = is_first && self.waiters[key].standing != Standing::Arriving;
        self.publish_waiting(r);
        if surprising {
            // After the publication: who has seen this count sees the age too.
            self.routes[r as usize].shared.watch.unrest.fetch_add(1, SeqCst);
        }
    }

    /// The waiter, published in the queue of `r`, looks whether another worker has a bridge for it. Says whether it goes
    /// on to its next route.
    pub(super) fn look_step(&mut self, key: u32, r: u32) -> ControlFlow<()> {
        self.seek(r);
        let covered = self.uncovered(r) == 0;
        let waiter = &mut self.waiters[key];
        if waiter.entered == waiter.candidates().len() {
            waiter.standing = Standing::Everywhere;
        } else if covered {
            waiter.standing = Standing::Held;
            self.routes[r as usize].held += 1;
        } else {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(())
    }

    /// Counts a waiter where it is bounded: on its most specific route, or among the unserved.
    pub(super) fn count_in(&mut self, key: u32) {
        match self.waiters[key].candidates().first() {
            Some(&r) => self.count_admitted(r, 1),
            None => {
                self.unserved += 1;
                self.directory.unserved.fetch_add(1, Relaxed);
            }
        }
    }

    /// Takes back [`Self::count_in`].
    pub(super) fn count_out(&mut self, key: u32) {
        match self.waiters[key].candidates().first() {
            Some(&r) => self.count_admitted(r, -1),
            None => {
                self.unserved -= 1;
                self.directory.unserved.fetch_sub(1, Relaxed);
            }
        }
    }

    fn count_admitted(&mut self, r: u32, by: i32) {
        let route = &mut self.routes[r as usize];
        route.admitted = route.admitted.wrapping_add_signed(by);
        route.shared.cells[self.me].demand.admitted.store(route.admitted, Relaxed);
    }
}
