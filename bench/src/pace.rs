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
use crate::random::{Random, Times};

/// How long the last requests may take after the last one was due.
const GRACE: Duration = Duration::from_secs(10);

/// A fixed one, so that all systems get the same requests.
const SEED: u64 = 2026;

/// What to send, how often, and where.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The proxies. Each request goes to one at random.
    pub to: Vec<Address>,
    /// The name asked for.
    pub host: String,
    /// The target of each request, unless there is `work`.
    pub path: String,
    /// What each request asks of the backend.
    pub work: Option<Work>,
    /// Requests per second.
    pub rate: f64,
    /// Times between requests are random (exponential) instead of all the same: people, not a
    /// metronome.
    pub poisson: bool,
    /// Most connections to each proxy. There are as many as have been needed at once; beyond that a
    /// request waits for one.
    pub connections: usize,
    /// For how long requests are due.
    pub time: Duration,
}

/// How long the backend is to work on requests: each says so, so that all systems get the same.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// How it varies.
    pub times: Times,
    /// On average.
    pub mean: Duration,
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
    /// From due to answered, without the work that was asked for.
    pub latency: Histogram,
    /// From the first due to the last answer.
    pub took: Duration,
}

/// A request and when it is due.
#[derive(Clone, Debug)]
struct Due {
    at: Instant,
    bytes: Rc<[u8]>,
    work: Duration,
}

/// The requests of a plan, in order.
struct Requests<'p> {
    plan: &'p Plan,
    same: Rc<[u8]>,
    at: Instant,
    until: Instant,
    gaps: Random,
    works: Random,
    choices: Random,
}

impl<'p> Requests<'p> {
    fn new(plan: &'p Plan, started: Instant) -> Requests<'p> {
        Requests {
            plan,
            same: get(&plan.path, &plan.host),
            at: started,
            until: started + plan.time,
            gaps: Random::new(SEED, 1),
            works: Random::new(SEED, 2),
            choices: Random::new(SEED, 3),
        }
    }

    /// When the next one is due, if there is one.
    fn next_at(&self) -> Option<Instant> {
        (self.at < self.until).then_some(self.at)
    }

    /// The next one, if it is due, and the number of its proxy.
    fn take(&mut self, now: Instant) -> Option<(usize, Due)> {
        let at = self.next_at().filter(|at| *at <= now)?;
        let gap = if self.plan.poisson { self.gaps.exponential() } else { 1.0 };
        self.at += Duration::from_secs_f64(gap / self.plan.rate.max(0.001));
        let due = match self.plan.work {
            None => Due { at, bytes: self.same.clone(), work: Duration::ZERO },
            Some(Work { times, mean }) => {
                let micros = (times.draw(&mut self.works) * mean.as_secs_f64() * 1e6) as u64;
                let bytes = get(&format!("/work/{micros}"), &self.plan.host);
                Due { at, bytes, work: Duration::from_micros(micros) }
            }
        };
        Some((self.choices.below(self.plan.to.len()), due))
    }
}

fn get(target: &str, host: &str) -> Rc<[u8]> {
    Rc::from(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes())
}

/// The connections to one proxy, and the requests that are due and wait for one.
#[derive(Default)]
struct Lane {
    connections: usize,
    free: VecDeque<usize>,
    waiting: VecDeque<Due>,
}

/// Sends until the time is up and all is answered. Fails only when it cannot dial or poll.
pub fn run(plan: &Plan) -> io::Result<Paced> {
    let mut fleet = Fleet::among(plan.to.clone())?;
    let mut lanes: Vec<Lane> = plan.to.iter().map(|_| Lane::default()).collect();
    // The lane of each connection, and the request that it has or had.
    let mut sent: Vec<(usize, Due)> = Vec::new();
    let mut paced = Paced::default();
    let mut happened: Vec<(usize, Happened)> = Vec::new();
    let started = Instant::now();
    let last = started + plan.time + GRACE;
    let mut requests = Requests::new(plan, started);
    loop {
        let now = Instant::now();
        while let Some((lane, due)) = requests.take(now) {
            lanes[lane].waiting.push_back(due);
        }
        for (number, lane) in lanes.iter_mut().enumerate() {
            while let Some(due) = lane.waiting.front() {
                if lane.free.is_empty() && lane.connections < plan.connections {
                    lane.free.push_back(fleet.grow(number)?);
                    lane.connections += 1;
                    sent.push((number, due.clone()));
                }
                let Some(index) = lane.free.pop_front() else { break };
                let bytes = due.bytes.clone();
                sent[index].1 = lane.waiting.pop_front().expect("it is there");
                let begun = fleet.begin(index, |output| output.push(Piece::once(bytes)))?;
                happened.extend(begun.map(|what| (index, what)));
            }
        }
        let free: usize = lanes.iter().map(|lane| lane.free.len()).sum();
        let waiting: usize = lanes.iter().map(|lane| lane.waiting.len()).sum();
        let next = requests.next_at();
        if next.is_none() && waiting == 0 && free == sent.len() || now >= last {
            paced.unanswered = (waiting + sent.len() - free) as u64;
            paced.took = started.elapsed();
            return Ok(paced);
        }
        if happened.is_empty() {
            fleet.turn(next.unwrap_or(last), &mut happened)?;
        }
        let now = Instant::now();
        for (index, what) in happened.drain(..) {
            match what {
                Happened::Answered(end) if end.good => paced.requests += 1,
                Happened::Answered(_) | Happened::Lost => paced.errors += 1,
            }
            let (lane, due) = &sent[index];
            paced.latency.add(now.saturating_duration_since(due.at).saturating_sub(due.work));
            lanes[*lane].free.push_back(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(poisson: bool, work: Option<Work>) -> Plan {
        let to = ["127.0.0.1:1", "127.0.0.1:2"].map(|text| Address::parse(text).unwrap());
        Plan {
            to: to.into(),
            host: String::from("h"),
            path: String::from("/"),
            work,
            rate: 1000.0,
            poisson,
            connections: 1,
            time: Duration::from_millis(4),
        }
    }

    #[test]
    fn regular_requests_are_due_at_regular_times() {
        let (plan, started) = (plan(false, None), Instant::now());
        let mut requests = Requests::new(&plan, started);
        for millis in 0..4 {
            let at = started + Duration::from_millis(millis);
            assert_eq!(requests.next_at(), Some(at));
            let (_, due) = requests.take(at).unwrap();
            assert_eq!((due.at, due.work), (at, Duration::ZERO));
            assert_eq!(*due.bytes, *b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
            assert!(requests.take(at).is_none(), "the next one is not due yet");
        }
        assert_eq!(requests.next_at(), None);
    }

    #[test]
    fn a_request_says_how_long_it_takes_and_goes_to_any_of_the_proxies() {
        let work = Work { times: Times::Exponential, mean: Duration::from_millis(20) };
        let mut plan = plan(true, Some(work));
        plan.time = Duration::from_secs(1);
        let started = Instant::now();
        let mut requests = Requests::new(&plan, started);
        let mut proxies = [0, 0];
        while let Some((proxy, due)) = requests.take(started + Duration::from_secs(2)) {
            let target = format!("GET /work/{} HTTP", due.work.as_micros());
            assert!(due.bytes.starts_with(target.as_bytes()), "{target}");
            proxies[proxy] += 1;
        }
        assert!(proxies.iter().all(|count| (400..600).contains(count)), "{proxies:?}");
    }
}
