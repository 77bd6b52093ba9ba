//! What is counted of a run.

use std::fmt;
use std::time::Duration;

use cloudbridge_bench::histogram::Histogram;

use crate::world::Nanos;

/// How long requests waited.
#[derive(Debug)]
pub struct Waits {
    /// A mean service time, in which they are told.
    unit: Nanos,
    all: Histogram,
}

impl Waits {
    /// None yet.
    pub fn new(unit: Nanos) -> Waits {
        Waits { unit, all: Histogram::default() }
    }

    /// One request's.
    pub fn add(&mut self, wait: Nanos) {
        self.all.add(Duration::from_nanos(wait));
    }

    /// The mean, in mean service times.
    pub fn mean(&self) -> f64 {
        self.all.mean().as_secs_f64() * 1e9 / self.unit as f64
    }

    /// What a `share` of all did not exceed, in mean service times; up to 1.6 % too much.
    pub fn percentile(&self, share: f64) -> f64 {
        self.all.percentile(share).as_nanos() as f64 / self.unit as f64
    }
}

/// What came of a run. Shown as a cell of a table: mean, p99 and p99.9.
#[derive(Debug)]
pub struct Outcome {
    /// The queues grow without end: the waits say nothing.
    pub grows: bool,
    /// Messages for each request, beside those that carry it and its response.
    pub messages: f64,
    /// How many times each request is given back.
    pub given_back: f64,
    /// How long requests waited.
    pub waits: Waits,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.grows {
            return f.write_str("grows");
        }
        let [p99, p999] = [0.99, 0.999].map(|share| self.waits.percentile(share));
        write!(f, "{} / {} / {}", Figure(self.waits.mean()), Figure(p99), Figure(p999))
    }
}

/// A number to three digits, or to a thousandth.
pub struct Figure(pub f64);

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figure(value) = *self;
        match value {
            0.0 => f.write_str("0"),
            ..0.0005 => f.write_str("<0.001"),
            ..1.0 => write!(f, "{value:.3}"),
            ..10.0 => write!(f, "{value:.2}"),
            ..100.0 => write!(f, "{value:.1}"),
            _ => write!(f, "{value:.0}"),
        }
    }
}
