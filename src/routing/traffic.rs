//! What has passed over a route: counts that any worker adds to and the admin listener reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds of the duration classes, in microseconds: those that OpenTelemetry recommends for
/// `http.server.request.duration`. There is one more class, without a bound.
pub const DURATION_BOUNDS: [u64; 14] = [
    5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000, 750_000, 1_000_000,
    2_500_000, 5_000_000, 7_500_000, 10_000_000,
];

/// How many duration classes there are.
pub const DURATIONS: usize = DURATION_BOUNDS.len() + 1;

/// The class of a duration in microseconds.
#[must_use]
pub fn duration_class(micros: u64) -> usize {
    // Most requests are in the first.
    DURATION_BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(DURATIONS - 1)
}

/// The requests that a route's bridges have answered. Counts only grow.
#[derive(Debug, Default)]
pub struct Traffic {
    answers: [AtomicU64; 5],
    durations: [AtomicU64; DURATIONS],
}

/// What [`Traffic`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// By the first digit of the status, 1 to 5.
    pub answers: [u64; 5],
    /// By [`duration_class`], from the end of the request's head to the end of the response.
    pub durations: [u64; DURATIONS],
}

impl Traffic {
    /// Notes a response with `status` that took so many microseconds.
    pub fn add(&self, status: u16, micros: u64) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.answers[class].fetch_add(1, Relaxed);
        self.durations[duration_class(micros)].fetch_add(1, Relaxed);
    }

    /// What has been counted so far.
    pub fn counted(&self) -> Counted {
        Counted {
            answers: self.answers.each_ref().map(|count| count.load(Relaxed)),
            durations: self.durations.each_ref().map(|count| count.load(Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_class() {
        for (micros, class) in
            [(0, 0), (5_000, 0), (5_001, 1), (10_000, 1), (10_000_000, 13), (10_000_001, 14)]
        {
            assert_eq!(duration_class(micros), class, "{micros}");
        }
        assert_eq!(duration_class(u64::MAX), 14);
    }

    #[test]
    fn responses_are_counted_by_class() {
        let traffic = Traffic::default();
        for (status, millis) in [(200, 1), (204, 7), (503, 20_000), (101, 1), (999, 1)] {
            traffic.add(status, millis * 1000);
        }
        let Counted { answers, durations } = traffic.counted();
        assert_eq!(answers, [1, 2, 0, 0, 2]);
        assert_eq!((durations[0], durations[1], durations[14]), (3, 1, 1));
    }
}
