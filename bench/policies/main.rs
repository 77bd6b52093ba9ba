//! How long requests wait for a server, by the policy that gives them to servers. The account of it
//! is `doc/scale.md`, "A fleet".
//!
//! `cargo run --release -p cloudbridge-bench --example policies` prints a table for each kind of
//! service; `... -- check` holds the model against what is known without it; `... -- delay` shows
//! what the way of the messages costs. It is deterministic.
//!
//! [`load`] says what comes and how long it takes, [`world`] has the servers and the clock,
//! [`policies`] lists the policies, which are in [`blind`], [`leastconn`], [`idle`] and [`apart`].

mod apart;
mod blind;
mod check;
mod idle;
mod leastconn;
mod load;
mod measures;
mod policies;
mod tables;
mod theory;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => tables::policies(),
        Some("delay") => tables::delay(),
        Some("check") => return check::run(),
        Some(_) => {
            eprintln!("usage: policies [check | delay]");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
