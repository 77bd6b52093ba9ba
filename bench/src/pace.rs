//! Requests at times fixed beforehand, whether or not earlier ones have been answered.
//!
//! A latency counts from the moment at which its request was due, so a request that had to wait for
//! a free connection has waited: a stall of the system shows in every request it delayed, not in
//! one (coordinated omission).

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::fleet::{Fleet, Happened};
use crate::histogram::Histogram;
use crate::output::Piece;

/// How long the last requests may take after the last one was due.
const GRACE: Duration = Duration::from_secs(10);

/// What to send, how often, and where.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The proxy.
    pub to: Address,
    /// The name asked for.
    pub host: String,
    /// The target of each request.
    pub path: String,
    /// Requests per second.
    pub rate: f64,
    /// Times between requests are random (exponential) instead of all the same: people, not a
    /// metronome.
    pub poisson: bool,
    /// Most connections. There are as many as have been needed at once; beyond that a request waits
    /// for one.
    pub connections: usize,
    /// For how long requests are due.
    pub time: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Paced {
    /// Requests answered with 200.
    pub requests: u64,
    /// Requests lost or refused.
    pub errors: u64,
    /// Requests not answered by the end of the grace. Their latency is in no percentile.
    pub unanswered: u64,
    /// From due to answered.
    pub latency: Histogram,
    /// From the first due to the last answer.
    pub took: Duration,
}

/// Sends until the time is up and all is answered. Fails only when it cannot dial or poll.
pub fn run(plan: &Plan) -> io::Result<Paced> {
    let mut fleet = Fleet::dial(&plan.to, 0)?;
    let request: Rc<[u8]> =
        Rc::from(format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", plan.path, plan.host).into_bytes());
    let mut paced = Paced::default();
    let mut free: VecDeque<usize> = VecDeque::new();
    // When the request of each connection was due.
    let mut due_at: Vec<Instant> = Vec::new();
    let mut waiting: VecDeque<Instant> = VecDeque::new();
    let mut happened: Vec<(usize, Happened)> = Vec::new();
    let started = Instant::now();
    let (until, last) = (started + plan.time, started + plan.time + GRACE);
    let mut gaps = Gaps::new(plan.rate, plan.poisson);
    let mut due = started;
    loop {
        let now = Instant::now();
        while due <= now && due < until {
            waiting.push_back(due);
            due += gaps.next();
        }
        while let Some(&when) = waiting.front() {
            if free.is_empty() && due_at.len() < plan.connections {
                free.push_back(fleet.grow()?);
                due_at.push(when);
            }
            let Some(index) = free.pop_front() else { break };
            waiting.pop_front();
            due_at[index] = when;
            let begun = fleet.begin(index, |output| output.push(Piece::once(request.clone())))?;
            happened.extend(begun.map(|what| (index, what)));
        }
        let over = due >= until && waiting.is_empty() && free.len() == due_at.len();
        if over || now >= last {
            paced.unanswered = (waiting.len() + due_at.len() - free.len()) as u64;
            paced.took = started.elapsed();
            return Ok(paced);
        }
        if happened.is_empty() {
            fleet.turn(if due < until { due } else { last }, &mut happened)?;
        }
        let now = Instant::now();
        for (index, what) in happened.drain(..) {
            match what {
                Happened::Answered(end) if end.good => paced.requests += 1,
                Happened::Answered(_) | Happened::Lost => paced.errors += 1,
            }
            paced.latency.add(now.saturating_duration_since(due_at[index]));
            free.push_back(index);
        }
    }
}

/// The times between requests.
struct Gaps {
    mean: f64,
    poisson: bool,
    state: u64,
}

impl Gaps {
    fn new(rate: f64, poisson: bool) -> Gaps {
        // A fixed seed, so that all systems get the same arrivals.
        let state = 0x9e37_79b9_7f4a_7c15;
        Gaps { mean: 1.0 / rate.max(0.001), poisson, state }
    }

    fn next(&mut self) -> Duration {
        if !self.poisson {
            return Duration::from_secs_f64(self.mean);
        }
        // xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators").
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let bits = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        // In (0, 1], so that the logarithm is finite.
        let uniform = (bits + 1) as f64 / (1u64 << 53) as f64;
        Duration::from_secs_f64(-uniform.ln() * self.mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_gaps_have_the_mean_and_the_spread_of_an_exponential() {
        let mut gaps = Gaps::new(1000.0, true);
        let all: Vec<f64> = (0..100_000).map(|_| gaps.next().as_secs_f64()).collect();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let below = all.iter().filter(|gap| **gap < 0.001).count() as f64 / all.len() as f64;
        assert!((0.00098..0.00102).contains(&mean), "{mean}");
        // 1 - 1/e
        assert!((0.62..0.645).contains(&below), "{below}");
    }

    #[test]
    fn regular_gaps_are_all_the_same() {
        let mut gaps = Gaps::new(500.0, false);
        assert_eq!(gaps.next(), Duration::from_millis(2));
        assert_eq!(gaps.next(), Duration::from_millis(2));
    }
}
