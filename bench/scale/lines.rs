//! Which cache lines of the directory have to come from another core.
//!
//! The matching does not say when it looks at the other workers' counts, so this follows its rules: a request that
//! does not find a bridge at once looks at who has some parked; a bridge that parks looks at the watch line, and, if
//! somebody waits elsewhere, at who does; a bridge that serves here looks at the age of the others' requests, but not
//! again before its own are older than what it has seen. A line costs a miss if its owner has written it since this
//! worker looked last.

use std::collections::VecDeque;

use cloudbridge::routing::LEAN_MICROS;

use crate::costs::{Costs, Nanos};

/// One kind of line of one route: who wrote it when, and who looked when.
#[derive(Clone, Debug)]
struct Kind {
    written: Vec<Nanos>,
    looked: Vec<Nanos>,
}

impl Kind {
    fn new(workers: usize) -> Kind {
        Kind { written: vec![0; workers], looked: vec![0; workers] }
    }

    /// Worker `w` looks at the line of every other.
    fn look(&mut self, w: usize, now: Nanos, costs: &Costs) -> Nanos {
        let last = std::mem::replace(&mut self.looked[w], now);
        let others = self.written.iter().enumerate().filter(|(u, _)| *u != w);
        others.map(|(_, at)| if *at >= last { costs.miss } else { costs.hit }).sum()
    }
}

/// The lines of one route.
#[derive(Clone, Debug)]
pub struct Lines {
    supply: Kind,
    demand: Kind,
    /// When the watch line was last written, and when each worker last looked.
    watch: Nanos,
    watched: Vec<Nanos>,
    /// Arrivals of the requests that wait, by worker.
    queues: Vec<VecDeque<Nanos>>,
    /// The matching's `horizon`, by worker.
    horizon: Vec<Nanos>,
}

impl Lines {
    /// Those of a route that nobody has used yet.
    pub fn new(workers: usize) -> Lines {
        Lines {
            supply: Kind::new(workers),
            demand: Kind::new(workers),
            watch: 0,
            watched: vec![0; workers],
            queues: vec![VecDeque::new(); workers],
            horizon: vec![0; workers],
        }
    }

    /// A bridge has been parked on worker `w`, or taken from there.
    pub fn parked_changes(&mut self, w: usize, now: Nanos) {
        self.supply.written[w] = now;
    }

    /// A request begins to wait on worker `w`, and looks for a bridge elsewhere.
    pub fn waits(&mut self, w: usize, now: Nanos, costs: &Costs) -> Nanos {
        self.queues[w].push_back(now);
        self.demand.written[w] = now;
        let flip = if self.queues[w].len() == 1 { self.write_watch(w, now, costs) } else { 0 };
        flip + self.supply.look(w, now, costs)
    }

    /// The oldest request of worker `w` has a bridge.
    pub fn is_served(&mut self, w: usize, now: Nanos, costs: &Costs) -> Nanos {
        self.queues[w].pop_front();
        self.demand.written[w] = now;
        if self.queues[w].is_empty() { self.write_watch(w, now, costs) } else { 0 }
    }

    /// A bridge on worker `w` is about to serve the request there that came at `since`, if no elder one elsewhere must
    /// have it.
    pub fn looks_for_elders(&mut self, w: usize, since: Nanos, now: Nanos, costs: &Costs) -> Nanos {
        let cost = self.read_watch(w, now, costs);
        let others = self.queues.iter().enumerate().filter(|(u, _)| *u != w);
        let oldest = others.filter_map(|(_, queue)| queue.front().copied()).min();
        match oldest {
            Some(oldest) if since > self.horizon[w] + LEAN_MICROS * 1000 => {
                self.horizon[w] = oldest.min(now);
                cost + self.demand.look(w, now, costs)
            }
            _ => cost,
        }
    }

    /// A bridge has been parked on worker `w` and looks whether somebody waits elsewhere.
    pub fn looks_for_waiters(&mut self, w: usize, now: Nanos, costs: &Costs) -> Nanos {
        let cost = self.read_watch(w, now, costs);
        let others_wait = self.queues.iter().enumerate().any(|(u, q)| u != w && !q.is_empty());
        if others_wait { cost + self.demand.look(w, now, costs) } else { cost }
    }

    fn read_watch(&mut self, w: usize, now: Nanos, costs: &Costs) -> Nanos {
        let last = std::mem::replace(&mut self.watched[w], now);
        if self.watch >= last { costs.miss } else { costs.hit }
    }

    fn write_watch(&mut self, w: usize, now: Nanos, costs: &Costs) -> Nanos {
        (self.watch, self.watched[w]) = (now, now);
        costs.miss
    }
}
