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

fn main() -> ExitCode {
    match std::env::args().skip(1).find(|argument| argument != "--quick").as_deref() {
        None => tables::policies(),
        Some("delay") => tables::delay(),
        Some("times") => tables::times(),
        Some("proxies") => tables::proxies(),
        Some("check") => return check::run(),
        Some(_) => {
            eprintln!("usage: policies [check | delay | times | proxies] [--quick]");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
