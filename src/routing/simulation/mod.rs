//! A seeded simulation of several workers: everything that can happen happens in an order drawn from a seed, the two
//! halves of "publish, then look" on different workers included, and after every step what must hold is checked.
//!
//! `MATCHING_SEEDS=n` runs n seeds instead of the usual number, `MATCHING_SECONDS=s` as many as s seconds allow, and
//! `MATCHING_SEED=x` the one seed that a failure has named.

mod checks;
mod events;
mod world;

use std::time::{Duration, Instant};

use world::World;

/// Seeds of an ordinary run: some seconds.
const SEEDS: u64 = 3_000;

/// Steps of one world; long enough for routes to come, go and be retired.
const STEPS: usize = 500;

/// Steps after which messages are delivered until there are none, for the check that can be made only then.
const STEPS_PER_REST: usize = 125;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn run(seed: u64) {
    /// Names the seed when a check fails.
    struct Name(u64);
    impl Drop for Name {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("failed with MATCHING_SEED={}", self.0);
            }
        }
    }
    let _name = Name(seed);
    let mut world = World::new(seed);
    for step in 1..=STEPS {
        world.step();
        if step % STEPS_PER_REST == 0 {
            world.rest();
        }
    }
    world.end();
}

#[test]
fn nothing_waits_beside_what_could_serve_it_in_any_order_of_events() {
    if let Some(seed) = setting("MATCHING_SEED") {
        return run(seed);
    }
    if let Some(seconds) = setting("MATCHING_SECONDS") {
        let end = Instant::now() + Duration::from_secs(seconds);
        let first = setting("MATCHING_FIRST").unwrap_or(1_000_000);
        let ran = (first..).take_while(|_| Instant::now() < end).map(run).count();
        return println!("{ran} seeds from {first}");
    }
    (0..setting("MATCHING_SEEDS").unwrap_or(SEEDS)).for_each(run);
}
