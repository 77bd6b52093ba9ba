//! Deadlines are set, moved and met, by number of connections.

mod common;

use std::hint::black_box;

use cloudbridge::net::timer::{TICK, Timers};
use cloudbridge::time::Millis;
use criterion::{BenchmarkId, Criterion};

const CONNECTIONS: [usize; 4] = [100, 1_000, 10_000, 100_000];

/// A usual timeout, in milliseconds.
const TIMEOUT: u64 = 60_000;

/// The wheel with a deadline for every connection, spread evenly over the next [`TIMEOUT`].
fn wheel(connections: usize) -> Timers {
    let mut timers = Timers::default();
    for key in 0..connections {
        timers.set(key, Millis(1 + key as u64 * TIMEOUT / connections as u64));
    }
    timers
}

/// What nearly every request does: the deadline moves away, and the connection stays filed where it
/// is.
fn later(c: &mut Criterion) {
    let mut group = c.benchmark_group("timers");
    for connections in CONNECTIONS {
        let mut timers = wheel(connections);
        let mut keys = (0..connections).cycle();
        group.bench_function(BenchmarkId::new("set later", connections), |b| {
            b.iter(|| timers.set(black_box(keys.next().unwrap_or(0)), Millis(TIMEOUT)));
        });
    }
    group.finish();
}

/// A shorter timeout comes into force: the connection is taken out of its slot and filed in
/// another.
fn earlier(c: &mut Criterion) {
    let mut group = c.benchmark_group("timers");
    for connections in CONNECTIONS {
        let mut timers = wheel(connections);
        let (mut key, mut at) = (0, TIMEOUT);
        group.bench_function(BenchmarkId::new("set earlier", connections), |b| {
            b.iter(|| {
                timers.set(black_box(key), Millis(at));
                key += 1;
                if key == connections {
                    key = 0;
                    at = at.saturating_sub(TICK);
                }
                if at == 0 {
                    // Everything is as early as can be: once in a thousand rounds it starts again.
                    at = TIMEOUT;
                    (0..connections).for_each(|key| timers.clear(key));
                }
            });
        });
        group.bench_function(BenchmarkId::new("clear and set", connections), |b| {
            b.iter(|| {
                key = (key + 1) % connections;
                timers.clear(black_box(key));
                timers.set(key, Millis(TIMEOUT));
            });
        });
    }
    group.finish();
}

/// One tick of the clock: one slot of a thousand comes round, and the timers in it are filed again.
fn tick(c: &mut Criterion) {
    let mut group = c.benchmark_group("timers");
    for connections in CONNECTIONS {
        let (mut timers, mut now, mut due) = (wheel(connections), 0, Vec::new());
        group.bench_function(BenchmarkId::new("tick, all due", connections), |b| {
            b.iter(|| {
                now += TICK;
                timers.expire(Millis(now), &mut due);
                for key in due.drain(..) {
                    timers.set(key, Millis(now + TIMEOUT));
                }
            });
        });
    }
    group.finish();
}

fn main() {
    let mut c = common::criterion();
    later(&mut c);
    earlier(&mut c);
    tick(&mut c);
    c.final_summary();
}
