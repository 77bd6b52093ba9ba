//! How the matching behaves with more workers than the machine at hand has cores. The account of it
//! is `doc/scale.md`.
//!
//! `cargo run --release -p cloudbridge-bench --example scale-model` prints two tables from a model:
//! the proxy's own matching code (a `Scheduler` per worker, one `Directory`), run by virtual
//! workers with clocks of their own, at stated costs ([`costs`]). It is deterministic: the same
//! program prints the same numbers. `... -- threads` prints what real threads measure on this
//! machine, to hold against those costs, and `... -- memory` what routes weigh.
//!
//! [`scenario`] says who asks whom for what, [`world`] runs it, [`locks`] follows the routes'
//! locks, [`measures`] counts.

mod costs;
mod locks;
mod measures;
mod memory;
mod scenario;
mod threads;
mod world;

use std::process::ExitCode;

use costs::Costs;
use measures::Report;
use scenario::Scenario;
use world::World;

/// Workers in the main table: what there is today, and what the largest hosts would have.
const WORKERS: [usize; 5] = [1, 2, 8, 32, 64];

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => tables(),
        Some("threads") => threads::print(),
        Some("memory") => memory::print(),
        Some(_) => {
            eprintln!("usage: scale-model [threads | memory]");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn run(scenario: &Scenario, workers: usize) -> Report {
    World::new(scenario, workers, Costs::default()).run()
}

fn tables() {
    println!("{}", Costs::default());
    for scenario in Scenario::all() {
        println!("## {}\n\n{}\n", scenario.name, scenario.story);
        println!("{}", Report::HEADING);
        for workers in WORKERS {
            println!("{}", run(&scenario, workers));
        }
        println!();
    }
    println!("## Bridges for each route and worker\n");
    println!(
        "100 routes on 8 workers, requests at random over the routes; what a bridge more or less changes.\n"
    );
    println!(
        "| bridges/route | bridges/route/worker {}",
        Report::HEADING.replacen('\n', "\n| ---: | ---: ", 1)
    );
    for bridges in [1, 2, 4, 8, 16, 32, 64, 128] {
        let report = run(&Scenario::spread(bridges), 8);
        println!("| {bridges} | {} {report}", bridges as f64 / 8.0);
    }
}
