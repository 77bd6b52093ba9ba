//! How long requests wait for a server, by the policy that gives them to servers. The account of it
//! is `doc/scale.md`, "A fleet".
//!
//! `cargo run --release -p cloudbridge-bench --example policies` prints a table for each kind of
//! service; `... -- check` holds the model against what is known without it; `... -- delay`,
//! `... -- times` and `... -- proxies` compare one proxy with several. It is deterministic.
//!
//! [`load`] says what comes and how long it takes, [`world`] has the servers and the clock,
//! [`policies`] lists the policies, which are in [`blind`], [`leastconn`], [`idle`], [`apart`]
//! and [`shared`].

mod apart;
mod blind;
mod check;
mod idle;
mod leastconn;
mod load;
mod measures;
mod policies;
mod proxy;
mod shared;
mod tables;
mod theory;
mod world;

use std::process::ExitCode;

use tables::Runs;

const USAGE: &str = "usage: policies [check | delay | times | proxies] [--quick] [--seed=N]";

fn main() -> ExitCode {
    let mut runs = Runs { seed: tables::SEED, is_quick: false };
    let mut what = None;
    for argument in std::env::args().skip(1) {
        match argument.strip_prefix("--seed=").map(str::parse) {
            Some(Ok(seed)) => runs.seed = seed,
            None if argument == "--quick" => runs.is_quick = true,
            None if what.is_none() => what = Some(argument),
            _ => return usage(),
        }
    }
    match what.as_deref() {
        None => tables::policies(runs),
        Some("delay") => tables::delay(runs),
        Some("times") => tables::times(runs),
        Some("proxies") => tables::proxies(runs),
        Some("check") => return check::run(runs),
        Some(_) => return usage(),
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
