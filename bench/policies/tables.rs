//! What is printed.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::load::{Load, Service};
use crate::policies::Kind;
use crate::world::Nanos;

/// Shares of the capacity, and how many requests show the tail at each: a long queue takes long to
/// come and go.
pub const SHARES: [(f64, u64); 5] =
    [(0.5, 2_000_000), (0.8, 2_000_000), (0.9, 4_000_000), (0.95, 8_000_000), (0.99, 20_000_000)];
/// A mean service time. Only what has timers of its own depends on it.
pub const MEAN: Nanos = 100_000_000;
/// Where the random numbers begin.
pub const SEED: u64 = 2026;

/// A load of the tables, with messages that take no time.
pub fn load(service: Service, share: f64, requests: u64) -> Load {
    Load { service, share, mean: MEAN, delay: 0, requests, seed: SEED }
}

/// A table for each kind of service.
pub fn policies() {
    for service in Service::ALL {
        println!("## Service: {}\n", service.name());
        let headings: Vec<String> = SHARES.iter().map(|(share, _)| share.to_string()).collect();
        println!("| policy | {} |", headings.join(" | "));
        println!("| --- |{}", " ---: |".repeat(SHARES.len()));
        let cells: Vec<(Kind, Load)> = Kind::ALL
            .into_iter()
            .flat_map(|kind| SHARES.map(|(share, count)| (kind, load(service, share, count))))
            .collect();
        let shown = side_by_side(&cells, |(kind, load)| kind.run(*load).to_string());
        for (kind, row) in Kind::ALL.into_iter().zip(shown.chunks(SHARES.len())) {
            println!("| {kind} | {} |", row.join(" | "));
        }
        println!();
    }
}

/// The way of messages, as shares of a mean service time.
const DELAYS: [f64; 6] = [0.0, 0.0005, 0.001, 0.005, 0.01, 0.05];
/// Whom it is shown for.
const DELAYED: [Kind; 3] = [Kind::MaxConn(1), Kind::Apart(1), Kind::Apart(4)];

/// What message delays do.
pub fn delay() {
    for (share, count) in [(0.8, 2_000_000), (0.95, 8_000_000)] {
        println!("## Delays at {share}\n");
        let headings = DELAYS.map(|delay| delay.to_string());
        println!("| policy | {} |", headings.join(" | "));
        println!("| --- |{}", " ---: |".repeat(DELAYS.len()));
        for kind in DELAYED {
            let loads = DELAYS.map(|delay| Load {
                delay: (delay * MEAN as f64) as Nanos,
                ..load(Service::Exponential, share, count)
            });
            let row = side_by_side(&loads, |load| kind.run(*load).to_string());
            println!("| {kind} | {} |", row.join(" | "));
        }
        println!();
    }
}

/// Does `work` for all of `items`, on as many threads as there are cores.
pub fn side_by_side<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let some = || {
        let mut done = Vec::new();
        while let Some((index, item)) =
            Some(next.fetch_add(1, Relaxed)).and_then(|index| Some((index, items.get(index)?)))
        {
            done.push((index, work(item)));
        }
        done
    };
    let mut all: Vec<(usize, R)> = std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(some)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("it does not panic")).collect()
    });
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, result)| result).collect()
}
