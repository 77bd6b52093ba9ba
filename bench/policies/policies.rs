//! The policies by their names.

use std::fmt;

use cloudbridge_bench::random::Random;

use crate::apart::Apart;
use crate::blind::{Anywhere, RoundRobin, TwoChoices};
use crate::idle::JoinIdleQueue;
use crate::leastconn::LeastConn;
use crate::load::Load;
use crate::measures::Outcome;
use crate::shared::Shared;
use crate::world::World;

/// A policy, and on how many proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any server.
    Random,
    /// One after another.
    RoundRobin,
    /// The less busy of two.
    TwoChoices,
    /// HAProxy's leastconn.
    LeastConn(usize),
    /// The same with `maxconn 1`.
    MaxConn(usize),
    /// Join-Idle-Queue.
    JoinIdle(usize),
    /// This proxy; several know nothing of each other.
    Apart(usize),
    /// This proxy; several share agents of so many places each.
    Shared(usize, usize),
}

impl Kind {
    /// The rows of the tables.
    pub const ALL: [Kind; 12] = [
        Kind::Random,
        Kind::RoundRobin,
        Kind::TwoChoices,
        Kind::LeastConn(1),
        Kind::LeastConn(4),
        Kind::MaxConn(1),
        Kind::MaxConn(4),
        Kind::JoinIdle(1),
        Kind::JoinIdle(4),
        Kind::Apart(1),
        Kind::Apart(4),
        Kind::Shared(4, 1),
    ];

    /// What comes of it under a load.
    pub fn run(self, load: Load) -> Outcome {
        let random = Random::new(load.seed, 4);
        match self {
            Kind::Random => World::run(load, 1, &mut Anywhere(random)),
            Kind::RoundRobin => World::run(load, 1, &mut RoundRobin::default()),
            Kind::TwoChoices => World::run(load, 1, &mut TwoChoices::new(random)),
            Kind::LeastConn(nodes) => World::run(load, nodes, &mut LeastConn::new(nodes)),
            Kind::MaxConn(nodes) => World::run(load, nodes, &mut LeastConn::with_maxconn(nodes, 1)),
            Kind::JoinIdle(nodes) => {
                World::run(load, nodes, &mut JoinIdleQueue::new(nodes, random))
            }
            Kind::Apart(nodes) => World::run(load, nodes, &mut Apart::new(nodes)),
            Kind::Shared(nodes, places) => {
                World::run(load, nodes, &mut Shared::new(nodes, places, load.delay))
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Random => f.write_str("random"),
            Kind::RoundRobin => f.write_str("round robin"),
            Kind::TwoChoices => f.write_str("power of two"),
            Kind::LeastConn(1) => f.write_str("leastconn"),
            Kind::LeastConn(nodes) => write!(f, "leastconn on {nodes}"),
            Kind::MaxConn(1) => f.write_str("leastconn, maxconn 1"),
            Kind::MaxConn(nodes) => write!(f, "leastconn, maxconn 1, on {nodes}"),
            Kind::JoinIdle(1) => f.write_str("JIQ"),
            Kind::JoinIdle(nodes) => write!(f, "JIQ, {nodes} dispatchers"),
            Kind::Apart(1) => f.write_str("**cloudbridge**"),
            Kind::Apart(nodes) => write!(f, "{nodes} cloudbridges, without places"),
            Kind::Shared(nodes, 1) => write!(f, "**{nodes} cloudbridges**"),
            Kind::Shared(nodes, places) => {
                write!(f, "{nodes} cloudbridges, agents of {places} places")
            }
        }
    }
}
