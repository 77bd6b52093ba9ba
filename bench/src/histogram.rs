//! Latencies, counted in buckets whose width is a fixed share of their value.

use std::time::Duration;

/// Buckets to each power of two: a percentile is at most 1/64 (1.6 %) above the true one.
const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Room for 2^40 ns (18 minutes); what is longer counts as that.
const BUCKETS: usize = (41 - STEP_BITS as usize) * STEPS as usize;

/// Counts of durations, at nanosecond resolution below 64 ns and 1.6 % above.
#[derive(Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    all: u64,
    sum: f64,
    longest: Duration,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: vec![0; BUCKETS], all: 0, sum: 0.0, longest: Duration::ZERO }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn add(&mut self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos).min(BUCKETS - 1)] += 1;
        self.all += 1;
        self.sum += took.as_secs_f64();
        self.longest = self.longest.max(took);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.all
    }

    /// The mean, exactly; zero if there are none.
    pub fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.sum / self.all.max(1) as f64)
    }

    /// The longest that was counted, exactly.
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// The duration that a `share` (0 to 1) of all did not exceed; zero if there are none.
    pub fn percentile(&self, share: f64) -> Duration {
        let wanted = (self.all as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(upper(index)).min(self.longest);
            }
        }
        self.longest
    }
}

/// Values below [`STEPS`] have a bucket each; above, the highest bits after the first choose the
/// bucket.
fn bucket(nanos: u64) -> usize {
    if nanos < STEPS {
        return nanos as usize;
    }
    let shift = nanos.ilog2() - STEP_BITS;
    ((u64::from(shift) + 1) * STEPS + (nanos >> shift) - STEPS) as usize
}

/// The highest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let (row, place) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    if row == 0 {
        return place;
    }
    ((STEPS + place + 1) << (row - 1)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_a_bucket_that_is_little_wider_than_it() {
        for nanos in (0..10_000).chain([1 << 20, (1 << 30) + 12345, (1 << 40) - 1]) {
            let top = upper(bucket(nanos));
            assert!(top >= nanos, "{nanos}");
            assert!(top - nanos <= nanos / STEPS, "{nanos} in a bucket to {top}");
            assert!(bucket(nanos) < BUCKETS, "{nanos}");
        }
    }

    #[test]
    fn percentiles_of_a_hundred_values() {
        let mut histogram = Histogram::default();
        for micros in 1..=100 {
            histogram.add(Duration::from_micros(micros));
        }
        assert_eq!(histogram.count(), 100);
        assert_eq!(histogram.percentile(1.0), Duration::from_micros(100));
        assert_eq!(histogram.mean(), Duration::from_nanos(50_500));
        let median = histogram.percentile(0.5).as_nanos();
        assert!((50_000..=50_800).contains(&median), "{median}");
    }

    #[test]
    fn nothing_counted_is_zero() {
        assert_eq!(Histogram::default().percentile(0.99), Duration::ZERO);
    }
}
