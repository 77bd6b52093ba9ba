//! What routes weigh, by number of workers.

use std::sync::Arc;

use cloudbridge::routing::{Bounds, Directory, RouteSpec, Scheduler};
use cloudbridge::time::Micros;

use crate::WORKERS;

const ROUTES: usize = 10_000;
const BOUNDS: Bounds =
    Bounds { per_route: 1024, unserved: 1024, unserved_waits: true, bridges_per_host: 0 };

/// Prints the memory that [`ROUTES`] routes of one host each take when every worker knows them.
pub fn print() {
    println!("| workers | 10,000 routes, MiB | bytes per route | bytes per route and worker |");
    println!("| ---: | ---: | ---: | ---: |");
    let mut kept = Vec::new();
    for workers in WORKERS {
        let before = resident();
        kept.push(schedulers(workers));
        let bytes = resident().saturating_sub(before);
        let each = bytes / ROUTES;
        println!("| {workers} | {} | {each} | {} |", bytes >> 20, each / workers);
    }
}

fn schedulers(workers: usize) -> Vec<Scheduler<Box<u64>>> {
    let directory = Arc::new(Directory::new(workers));
    let mut schedulers: Vec<_> =
        (0..workers).map(|me| Scheduler::new(me, Arc::clone(&directory), BOUNDS)).collect();
    for route in 0..ROUTES {
        let spec = RouteSpec::new([format!("host{route}.example.com")], "");
        schedulers[0].join(&spec, Micros(0), &|_, _| false).expect("bridges are not bounded");
    }
    schedulers.iter_mut().for_each(|scheduler| scheduler.sync(&|_, _| false));
    schedulers
}

/// Resident memory of this process in bytes; 0 where the kernel does not say.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok());
    kib.unwrap_or(0) * 1024
}
