//! When requests come, through which proxy, and how long each takes.

use cloudbridge_bench::random::{Random, Times};

use crate::world::Nanos;

/// How many servers there are, each with one request at a time.
pub const SERVERS: usize = 32;
/// The slow half of [`Service::Unequal`] takes so many times as long.
const SLOWER: f64 = 10.0;

/// How long servers take. The mean is always such that all servers together do 32 requests in one
/// mean service time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Exponential, on equal servers.
    Exponential,
    /// Exponential; every other server is ten times slower.
    Unequal,
    /// Exponential, but one in a hundred a hundred times as long.
    HeavyTailed,
}

impl Service {
    /// All of them.
    pub const ALL: [Service; 3] = [Service::Exponential, Service::Unequal, Service::HeavyTailed];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Service::Exponential => "exponential",
            Service::Unequal => "unequal servers",
            Service::HeavyTailed => "heavy tail",
        }
    }

    /// How long a request of work 1 takes on a server, in mean service times.
    pub fn slowness(self, server: usize) -> f64 {
        // Of a fast and a slow server together, who do two requests in a mean service time.
        let fast = (1.0 + 1.0 / SLOWER) / 2.0;
        match self {
            Service::Exponential | Service::HeavyTailed => 1.0,
            Service::Unequal if server.is_multiple_of(2) => fast,
            Service::Unequal => fast * SLOWER,
        }
    }

    /// How what requests ask of their servers varies.
    pub fn works(self) -> Times {
        match self {
            Service::Exponential | Service::Unequal => Times::Exponential,
            Service::HeavyTailed => Times::HeavyTailed,
        }
    }
}

/// What is asked of the servers, and how far they are away.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// How long servers take.
    pub service: Service,
    /// The share of the servers' capacity that is asked for.
    pub share: f64,
    /// A mean service time.
    pub mean: Nanos,
    /// How long every message takes, one way.
    pub delay: Nanos,
    /// How many requests come.
    pub requests: u64,
    /// Where the random numbers begin.
    pub seed: u64,
}

/// A request as it comes.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When.
    pub at: Nanos,
    /// What it asks of its server: nanoseconds on one of slowness 1.
    pub work: f64,
    /// Which proxy it comes to.
    pub node: usize,
}

/// The requests of a load, in order. All policies get the same, at the same times.
#[derive(Debug)]
pub struct Arrivals {
    load: Load,
    nodes: usize,
    gaps: Random,
    works: Random,
    choices: Random,
    at: f64,
    left: u64,
}

impl Arrivals {
    /// For so many proxies: each request comes to one at random.
    pub fn new(load: Load, nodes: usize) -> Arrivals {
        let random = |purpose| Random::new(load.seed, purpose);
        let (gaps, works, choices) = (random(1), random(2), random(3));
        Arrivals { load, nodes, gaps, works, choices, at: 0.0, left: load.requests }
    }
}

impl Iterator for Arrivals {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        self.left = self.left.checked_sub(1)?;
        let gap = self.load.mean as f64 / (SERVERS as f64 * self.load.share);
        self.at += self.gaps.exponential() * gap;
        Some(Arrival {
            at: self.at as Nanos,
            work: self.load.service.works().draw(&mut self.works) * self.load.mean as f64,
            node: self.choices.below(self.nodes),
        })
    }
}
