//! What passes between workers: bridges that are sent to where a request waits, and requests that ask for a bridge.
//!
//! Everything here rests on the order "publish, then look" and on the bookkeeping of two numbers per route: `incoming`
//! (bridges promised to a worker and not there yet; in the directory, for all to see) and `wants` (our own questions
//! that have not been answered). Both count towards the requests that need not look further, the larger of the two: a
//! bridge that answers a question is in both.

use std::sync::atomic::Ordering::*;

use super::lobby::{Lobby, LocalRoute};
use super::published::{Cell, NOBODY};
use super::queue::WaitQueue;
use super::waiters::Standing;
use super::{FAIRNESS_MICROS, Handover, LEAN_MICROS, Landing, Mail, Parking, Passage, RouteId};

/// This worker's unanswered questions about one route.
#[derive(Debug, Default)]
pub(super) struct Wants {
    /// By the worker that was asked, without zeros. Keeps the memory of as many entries as there have been at once.
    by_worker: Vec<(usize, u32)>,
    total: u32,
}

impl Wants {
    /// Unanswered questions to this worker.
    fn of(&self, worker: usize) -> u32 {
        self.by_worker.iter().find(|want| want.0 == worker).map_or(0, |want| want.1)
    }

    /// Unanswered questions to all workers.
    pub(super) fn total(&self) -> u32 {
        self.total
    }

    fn add(&mut self, worker: usize, more: u32) {
        self.total += more;
        match self.by_worker.iter_mut().find(|want| want.0 == worker) {
            Some(want) => want.1 += more,
            None => self.by_worker.push((worker, more)),
        }
    }

    fn answered(&mut self, worker: usize) {
        let at = self.by_worker.iter().position(|want| want.0 == worker);
        let at = at.expect("an answer to a question that was not asked");
        self.by_worker[at].1 -= 1;
        self.total -= 1;
        if self.by_worker[at].1 == 0 {
            self.by_worker.swap_remove(at);
        }
    }
}

/// The other workers' counts, the neighbour's first, so that not everybody turns to worker 0.
fn others(cells: &[Cell], me: usize) -> impl Iterator<Item = (usize, &Cell)> {
    let workers = cells.len();
    (1..workers).map(move |step| (me + step) % workers).map(|worker| (worker, &cells[worker]))
}

impl Lobby {
    /// A message from another worker has come. May leave matches behind.
    #[must_use = "a bridge that is handed over must be sent"]
    pub fn on_mail(&mut self, mail: Mail) -> Option<Handover> {
        match mail {
            Mail::Want { route, from } => return self.hand_over(route, from),
            Mail::Nothing { route, from } => {
                // Unknown if the route has been retired meanwhile: then the question went with it.
                if let Some(&r) = self.by_id.get(&route) {
                    self.routes[r as usize].wants.answered(from);
                    self.settle(r);
                }
            }
            Mail::Lost(passage) => {
                if let Some(&r) = self.by_id.get(&passage.route) {
                    self.end_passage(r, passage);
                }
            }
        }
        None
    }

    /// A bridge that another worker sent has come in and is registered here. Decides like [`Lobby::park`]; may leave
    /// matches behind. `now` is in microseconds.
    pub fn arrived(&mut self, passage: Passage, bridge: u64, now: u64) -> Landing {
        let r = self.route_of_member(passage.route);
        let route = self.name(r);
        let parking = self.park(route, bridge, now);
        // Not before the bridge was used: in between, others would think that one more is needed here.
        self.end_passage(r, passage);
        Landing { route, parking }
    }

    /// A bridge that came in could not be registered here, or was found dead: it leaves its route. Instead of
    /// [`Lobby::arrived`]; may leave matches behind. `now` is in microseconds.
    pub fn lost(&mut self, passage: Passage, now: u64) {
        let r = self.route_of_member(passage.route);
        self.routes[r as usize].shared.leave(now);
        self.end_passage(r, passage);
    }

    /// A bridge that was to be sent from here to worker `to` is dead, or cannot be sent: it leaves its route, and the
    /// other worker is told. `now` is in microseconds.
    pub fn undeliverable(&mut self, route: RouteId, to: usize, passage: Passage, now: u64) {
        self.leave(route, now);
        self.outbox.push_back((to, Mail::Lost(passage)));
    }

    /// A bridge that was expected is expected no longer.
    pub(super) fn end_passage(&mut self, r: u32, passage: Passage) {
        let route = &mut self.routes[r as usize];
        if passage.asked {
            route.wants.answered(passage.from);
        }
        route.shared.cells[self.me].demand.incoming.fetch_sub(1, SeqCst);
        self.settle(r);
    }

    /// Answers a [`Mail::Want`].
    fn hand_over(&mut self, id: u64, to: usize) -> Option<Handover> {
        let known = self.by_id.get(&id).copied();
        let promised = known.filter(|&r| {
            let route = &self.routes[r as usize];
            !route.line.is_empty() && route.shared.promise(to)
        });
        let Some(r) = promised else {
            // A route that is not known here yet has nothing parked here.
            self.outbox.push_back((to, Mail::Nothing { route: id, from: self.me }));
            return None;
        };
        let bridge = self.take_parked(r);
        self.moves += 1;
        let passage = Passage { route: id, from: self.me, asked: true };
        Some(Handover { bridge, route: self.name(r), to, passage })
    }

    /// A bridge goes to worker `to`, to which it has been promised.
    pub(super) fn send(&mut self, r: u32, to: usize) -> Parking {
        self.moves += 1;
        let route = self.routes[r as usize].shared.id();
        Parking::Send { to, passage: Passage { route, from: self.me, asked: false } }
    }

    /// Whether another worker has a bridge of this route parked.
    pub(super) fn parked_elsewhere(&self, r: u32) -> bool {
        others(&self.routes[r as usize].shared.cells, self.me)
            .any(|(_, cell)| cell.supply.parked.load(SeqCst) > 0)
    }

    /// How many of the requests here have no bridge to expect.
    pub(super) fn uncovered(&self, r: u32) -> usize {
        let route = &self.routes[r as usize];
        uncovered(&route.shared.cells[self.me], &route.queue, &route.wants)
    }

    /// Asks for bridges parked elsewhere, as many as are of use, and of nobody more than it has.
    pub(super) fn seek(&mut self, r: u32) {
        let LocalRoute { shared, queue, wants, .. } = &mut self.routes[r as usize];
        for (worker, cell) in others(&shared.cells, self.me) {
            let uncovered = uncovered(&shared.cells[self.me], queue, wants);
            if uncovered == 0 {
                return;
            }
            let parked = cell.supply.parked.load(SeqCst);
            let more = parked.saturating_sub(wants.of(worker)).min(uncovered as u32);
            if more > 0 {
                wants.add(worker, more);
                let want = Mail::Want { route: shared.id(), from: self.me };
                self.outbox.extend((0..more).map(|_| (worker, want)));
            }
        }
    }

    /// Fewer bridges may be on their way to the requests of `r` than there were: ask for others, and let requests that
    /// stopped here to wait for one go on to their less specific routes.
    pub(super) fn settle(&mut self, r: u32) {
        self.seek(r);
        let uncovered = self.uncovered(r);
        let route = &self.routes[r as usize];
        if route.held == 0 || uncovered == 0 {
            return;
        }
        let mut going = std::mem::take(&mut self.scratch.waiters);
        going.clear();
        // The oldest are those whom the expected bridges will serve.
        let covered = route.queue.len() - uncovered;
        going.extend(route.queue.iter().skip(covered).map(|entry| entry.waiter));
        going.retain(|&key| self.waiters[key].held_at() == Some(r));
        for &key in &going {
            self.routes[r as usize].held -= 1;
            self.waiters[key].standing = Standing::Advancing;
            let found = self.advance(key);
            self.matches.extend(found);
        }
        self.scratch.waiters = going;
    }

    /// For a bridge that is parked and published: promises it to the worker whose request has waited longest, among
    /// those that have too few bridges on their way.
    pub(super) fn promise_to_oldest(&self, r: u32) -> Option<usize> {
        let route = &self.routes[r as usize];
        let shared = &route.shared;
        if shared.cells.len() == 1 || shared.watch.waiting_workers.load(SeqCst) == 0 {
            return None;
        }
        // Ends: a promise fails only because another bridge was promised there or the request left.
        loop {
            let (_, worker) = others(&shared.cells, self.me)
                .filter(|(_, cell)| is_short(cell))
                .map(|(worker, cell)| (cell.demand.oldest.load(SeqCst), worker))
                .min()?;
            if shared.promise(worker) {
                return Some(worker);
            }
        }
    }

    /// For a bridge that a request here could have: promises it to another worker if that has a request which came
    /// earlier by too much.
    pub(super) fn promise_to_elder(&mut self, r: u32, now: u64) -> Option<usize> {
        let me = self.me;
        let route = &mut self.routes[r as usize];
        // One is this worker itself.
        if route.shared.watch.waiting_workers.load(SeqCst) <= 1 {
            return None;
        }
        let mine = route.queue.front()?.since;
        let unrest = route.shared.watch.unrest.load(SeqCst);
        if route.unrest == unrest && mine <= route.horizon.saturating_add(LEAN_MICROS) {
            return None;
        }
        let mut horizon = now;
        let mut eldest = (NOBODY, me);
        for (worker, cell) in others(&route.shared.cells, me) {
            let oldest = cell.demand.oldest.load(SeqCst);
            horizon = horizon.min(oldest);
            if oldest >= eldest.0 || oldest.saturating_add(LEAN_MICROS) >= mine || !is_short(cell) {
                continue;
            }
            let lag = mine - oldest;
            if lag > FAIRNESS_MICROS || cell.demand.incoming.load(SeqCst) == 0 {
                eldest = (oldest, worker);
            }
        }
        (route.horizon, route.unrest) = (horizon, unrest);
        (eldest.1 != me && route.shared.promise(eldest.1)).then_some(eldest.1)
    }
}

/// Whether more requests wait there than bridges are on their way.
fn is_short(cell: &Cell) -> bool {
    cell.demand.waiting.load(SeqCst) > cell.demand.incoming.load(SeqCst)
}

fn uncovered(mine: &Cell, queue: &WaitQueue, wants: &Wants) -> usize {
    let incoming = mine.demand.incoming.load(SeqCst);
    queue.len().saturating_sub(incoming.max(wants.total()) as usize)
}
