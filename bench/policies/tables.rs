//! What is printed.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::load::{Load, SERVERS, Service};
use crate::measures::Outcome;
use crate::policies::Kind;
use crate::theory::ErlangC;
use crate::world::Nanos;

/// Shares of the capacity, and how many requests show the tail at each: a long queue takes long to
/// come and go.
pub const SHARES: [(f64, u64); 5] =
    [(0.5, 1_000_000), (0.8, 2_000_000), (0.9, 3_000_000), (0.95, 5_000_000), (0.99, 12_000_000)];
/// A mean service time. Only what has timers of its own depends on it.
pub const MEAN: Nanos = 100_000_000;
/// Where the random numbers begin.
pub const SEED: u64 = 2026;

/// With `--quick` there are so many times fewer requests: enough to see that everything works.
const QUICK: u64 = 20;

/// A load of the tables, with messages that take no time.
pub fn load(service: Service, share: f64, requests: u64) -> Load {
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let requests = if is_quick { requests / QUICK } else { requests };
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
        if service == Service::Exponential {
            let known = SHARES.map(|(share, _)| ErlangC::new(SERVERS, share).to_string());
            println!("| the best there is (Erlang C) | {} |", known.join(" | "));
        }
        println!();
    }
}

/// How long messages take, as shares of a mean service time of 100 ms.
const DELAYS: [f64; 6] = [0.0, 0.0005, 0.001, 0.005, 0.01, 0.05];

/// What message delays do.
pub fn delay() {
    let loads = |share, count| {
        DELAYS.map(|delay| Load {
            delay: (delay * MEAN as f64) as Nanos,
            ..load(Service::Exponential, share, count)
        })
    };
    for (share, count) in [(0.8, 2_000_000), (0.95, 5_000_000)] {
        compare(&format!("Messages take so long, at {share}"), &DELAYS, &loads(share, count));
    }
}

/// Mean service times, in milliseconds.
const MEANS: [u64; 5] = [1, 5, 20, 100, 1000];
/// How long messages take then.
const DELAY: Nanos = 100_000;

/// What the product's timers do with other service times.
pub fn times() {
    let loads = |share, count| {
        MEANS.map(|millis| Load {
            mean: millis * 1_000_000,
            delay: DELAY,
            ..load(Service::Exponential, share, count)
        })
    };
    for (share, count) in [(0.8, 2_000_000), (0.95, 5_000_000)] {
        let title = format!("Service takes so many ms, messages 0.1 ms, at {share}");
        compare(&title, &MEANS, &loads(share, count));
    }
}

/// How many proxies there may be.
const PROXIES: [usize; 6] = [1, 2, 4, 8, 16, 32];

/// What more proxies do.
pub fn proxies() {
    println!("## Proxies, messages take 0.001\n");
    let headings: Vec<String> = SHARES.iter().map(|(share, _)| share.to_string()).collect();
    println!("| proxies | {} | messages, given back at 0.9 |", headings.join(" | "));
    println!("| ---: |{}", " ---: |".repeat(SHARES.len() + 1));
    for proxies in PROXIES {
        let row = side_by_side(&SHARES, |&(share, count)| {
            let load = Load { delay: MEAN / 1000, ..load(Service::Exponential, share, count) };
            Kind::Shared(proxies, 1).run(load)
        });
        let cells: Vec<String> = row.iter().map(ToString::to_string).collect();
        let Outcome { messages, given_back, .. } = row[2];
        println!("| {proxies} | {} | {messages:.2}, {given_back:.3} |", cells.join(" | "));
    }
    println!();
}

/// The agents for which it is shown: with one place each, and with eight.
const PLACES: [usize; 2] = [1, 8];

/// One proxy beside four.
fn compare(title: &str, headings: &[impl ToString], loads: &[Load]) {
    println!("## {title}\n");
    let headings: Vec<String> = headings.iter().map(ToString::to_string).collect();
    println!("| | {} |", headings.join(" | "));
    println!("| --- |{}", " ---: |".repeat(loads.len()));
    let row = |kind: Kind| side_by_side(loads, |load| kind.run(*load));
    let print = |name: &str, cells: Vec<String>| println!("| {name} | {} |", cells.join(" | "));
    let one = row(Kind::Apart(1));
    print("one proxy", one.iter().map(ToString::to_string).collect());
    for places in PLACES {
        let four = row(Kind::Shared(4, places));
        print(&format!("four, `-n {places}`"), four.iter().map(ToString::to_string).collect());
        let ratio = |(four, one): (&Outcome, &Outcome)| match one.grows {
            true => String::from("-"),
            false => format!("{:.2}", four.waits.mean() / one.waits.mean()),
        };
        print("mean, four to one", four.iter().zip(&one).map(ratio).collect());
        let cost = |four: &Outcome| format!("{:.2}, {:.2}", four.messages, four.given_back);
        print("messages, given back", four.iter().map(cost).collect());
    }
    println!();
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
