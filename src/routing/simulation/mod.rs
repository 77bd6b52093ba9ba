//! A seeded simulation of several workers: events happen in an order drawn from a seed, mail
//! arrives late, a request enters its queues one by one while other workers run, workers stall, and
//! the invariants are checked after every step.
//!
//! `ROUTING_SEEDS=n` runs n seeds on all cores instead of the usual number, `ROUTING_SECONDS=s` as
//! many as s seconds allow, and `ROUTING_SEED=x` the one seed that a failure has named.

mod checks;
mod world;

use std::time::{Duration, Instant};

use world::World;

/// Seeds of an ordinary run: some seconds.
const SEEDS: u64 = 600;

/// Steps of one world; long enough for routes to come, go and be retired.
const STEPS: usize = 500;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn run(seed: u64) {
    /// Names the seed when a check fails.
    struct Name(u64);
    impl Drop for Name {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("failed with ROUTING_SEED={}", self.0);
            }
        }
    }
    let _name = Name(seed);
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.end();
}

#[test]
fn no_request_waits_beside_a_bridge_that_could_serve_it() {
    if let Some(seed) = setting("ROUTING_SEED") {
        return run(seed);
    }
    if let Some(seconds) = setting("ROUTING_SECONDS") {
        let end = Instant::now() + Duration::from_secs(seconds);
        let first = setting("ROUTING_FIRST").unwrap_or(1_000_000);
        let ran = (first..).take_while(|_| Instant::now() < end).map(run).count();
        return println!("{ran} seeds from {first}");
    }
    let Some(seeds) = setting("ROUTING_SEEDS") else { return (0..SEEDS).for_each(run) };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for core in 0..cores {
            scope.spawn(move || (core as u64..seeds).step_by(cores).for_each(run));
        }
    });
}
