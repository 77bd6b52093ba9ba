//! The model against what is known without it.

use std::process::ExitCode;

use crate::load::{SERVERS, Service};
use crate::policies::Kind;
use crate::tables::{self, SHARES};
use crate::theory::{self, ErlangC};

/// How far a run may be off, as a share. The histogram knows percentiles to 1.6 %, and a long queue
/// is seen to come and go few times.
fn tolerance(share: f64) -> f64 {
    match share {
        ..0.97 => 0.05,
        _ => 0.1,
    }
}

/// How many times as many requests as for the tables: a percentile of few is known badly.
const LONGER: u64 = 4;
/// Waits below this, in mean service times, are as good as none.
const NONE: f64 = 0.001;

struct Comparison {
    what: String,
    measured: f64,
    known: f64,
    tolerance: f64,
}

impl Comparison {
    fn holds(&self) -> bool {
        (self.measured - self.known).abs() <= (self.tolerance * self.known).max(NONE)
    }
}

/// Prints a line for each comparison. Fails if one is off.
pub fn run() -> ExitCode {
    let mut all = one_queue();
    all.extend(the_same());
    all.extend(queues_of_their_own());
    for one in &all {
        let mark = if one.holds() { "ok" } else { "OFF" };
        println!("{mark:4} {}: {:.4}, known: {:.4}", one.what, one.measured, one.known);
    }
    match all.iter().all(Comparison::holds) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// This proxy alone is M/M/32.
fn one_queue() -> Vec<Comparison> {
    let compared = tables::side_by_side(&SHARES, |&(share, count)| {
        let load = tables::load(Service::Exponential, share, LONGER * count);
        let waits = Kind::Apart(1).run(load).waits;
        let known = ErlangC::new(SERVERS, share);
        [
            ("mean", waits.mean(), known.mean()),
            ("p99", waits.percentile(0.99), known.all_but(0.01)),
            ("p99.9", waits.percentile(0.999), known.all_but(0.001)),
        ]
        .map(|(name, measured, known)| Comparison {
            what: format!("one queue at {share}, {name}"),
            measured,
            known,
            tolerance: tolerance(share),
        })
    });
    compared.into_iter().flatten().collect()
}

/// And so is HAProxy with `maxconn 1`: on equal servers no request may wait longer or less long.
fn the_same() -> Vec<Comparison> {
    tables::side_by_side(&SHARES, |&(share, count)| {
        let load = tables::load(Service::Exponential, share, count);
        let mean = |kind: Kind| kind.run(load).waits.mean();
        Comparison {
            what: format!("maxconn 1 as one queue at {share}, mean"),
            measured: mean(Kind::MaxConn(1)),
            known: mean(Kind::Apart(1)),
            tolerance: 0.0,
        }
    })
}

/// With random choice each server is M/G/1.
fn queues_of_their_own() -> Vec<Comparison> {
    let cells = [(Service::Exponential, 0.8), (Service::HeavyTailed, 0.5)];
    tables::side_by_side(&cells, |&(service, share)| {
        let load = tables::load(service, share, 4_000_000);
        Comparison {
            what: format!("random choice at {share}, {}, mean", service.name()),
            measured: Kind::Random.run(load).waits.mean(),
            known: theory::alone(share, service.works().mean_square()),
            tolerance: tolerance(share),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Load;

    const LOAD: Load = Load {
        service: Service::Exponential,
        share: 0.8,
        mean: tables::MEAN,
        delay: 0,
        requests: 100_000,
        seed: tables::SEED,
    };

    #[test]
    fn a_run_is_the_same_each_time() {
        for kind in Kind::ALL {
            let [first, second] = [kind.run(LOAD), kind.run(LOAD)].map(|done| done.to_string());
            assert_eq!(first, second, "{kind}");
        }
    }

    #[test]
    fn one_proxy_is_one_queue_and_four_are_little_worse() {
        let mean = |kind: Kind| kind.run(LOAD).waits.mean();
        let (one, apart, four) =
            (mean(Kind::Apart(1)), mean(Kind::Apart(4)), mean(Kind::Shared(4, 1)));
        let known = ErlangC::new(SERVERS, LOAD.share).mean();
        assert!((0.8 * known..1.2 * known).contains(&one), "{one}, known: {known}");
        assert!(apart > 10.0 * one, "{apart} without places, {one} alone");
        assert!((one..1.15 * one).contains(&four), "{four}, {one} alone");
    }

    #[test]
    fn a_server_that_is_asked_too_much_is_said_to_be() {
        let unequal = Load { service: Service::Unequal, ..LOAD };
        assert!(Kind::Random.run(unequal).grows);
        assert!(!Kind::Apart(1).run(unequal).grows);
    }
}
