//! What is counted while a world runs, and the table row that it comes to.

use std::fmt;

use crate::costs::Nanos;

/// The counts of one run, from the end of the warm-up.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests answered, by worker.
    pub answered: Vec<u64>,
    /// CPU time, by worker.
    pub busy: Vec<Nanos>,
    /// Requests that found no bridge at once.
    pub waited: u64,
    /// Bridges that another worker has taken over.
    pub taken: u64,
    /// Bridges sent to another worker.
    pub sent: u64,
    /// From a request's arrival in the scheduler to its bridge, for all requests, 0 included.
    pub waits: Vec<Nanos>,
    /// From a request's arrival at the socket to its answer, without the backend's time.
    pub delays: Vec<Nanos>,
}

/// A row of the table.
#[derive(Debug)]
pub struct Report {
    workers: usize,
    seconds: f64,
    counts: Counts,
}

impl Report {
    /// The table's head.
    pub const HEADING: &'static str = "| workers | req/s | per worker | busiest / idlest CPU | CPU µs/req | taken/req | sent/req \
        | waited | wait p50 / p99 / max µs | delay p50 / p99 µs |\n\
        | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |";

    /// The row of `counts` that `workers` came to in `nanos`.
    pub fn new(workers: usize, nanos: Nanos, mut counts: Counts) -> Report {
        counts.waits.sort_unstable();
        counts.delays.sort_unstable();
        Report { workers, seconds: nanos as f64 / 1e9, counts }
    }
}

/// The value below which `share` of the sorted `values` are, in microseconds.
fn quantile(values: &[Nanos], share: f64) -> f64 {
    let at = (values.len() as f64 * share) as usize;
    values.get(at.min(values.len().saturating_sub(1))).map_or(0.0, |value| *value as f64 / 1000.0)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { answered, busy, waited, taken, sent, waits, delays } = &self.counts;
        let total = answered.iter().sum::<u64>() as f64;
        let share = |nanos: Option<&Nanos>| nanos.map_or(0.0, |n| *n as f64 / 1e7 / self.seconds);
        let cpu = busy.iter().sum::<u64>() as f64 / 1000.0 / total;
        write!(
            f,
            "| {} | {:.0} k | {:.1} k | {:.0} % / {:.0} % | {cpu:.1} | {:.4} | {:.4} | {:.1} % \
             | {:.0} / {:.0} / {:.0} | {:.0} / {:.0} |",
            self.workers,
            total / self.seconds / 1e3,
            total / self.seconds / 1e3 / self.workers as f64,
            share(busy.iter().max()),
            share(busy.iter().min()),
            *taken as f64 / total,
            *sent as f64 / total,
            *waited as f64 / total * 100.0,
            quantile(waits, 0.5),
            quantile(waits, 0.99),
            quantile(waits, 1.0),
            quantile(delays, 0.5),
            quantile(delays, 0.99),
        )
    }
}
