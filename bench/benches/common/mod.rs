//! What the micro-benchmarks have in common.

use std::time::Duration;

use criterion::Criterion;

/// Criterion with a second for each figure, so that all of them take a few minutes;
/// `--measurement-time` and its other flags change that.
pub fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(50)
        .configure_from_args()
}
