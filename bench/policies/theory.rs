//! What is known of some of the policies without any model.

use std::fmt;

use crate::measures::Figure;

/// The waits of M/M/c: Poisson arrivals, exponential service, one queue for `servers` servers
/// (Erlang, 1917).
#[derive(Clone, Copy, Debug)]
pub struct ErlangC {
    servers: f64,
    share: f64,
    /// The share of the requests that waits at all.
    waits: f64,
}

impl ErlangC {
    /// At a `share` of the capacity.
    pub fn new(servers: usize, share: f64) -> ErlangC {
        let offered = servers as f64 * share;
        // Erlang B by its recursion, which cannot overflow.
        let blocked = (1..=servers).fold(1.0, |blocked, server| {
            let product = offered * blocked;
            product / (server as f64 + product)
        });
        let waits = blocked / (1.0 - share * (1.0 - blocked));
        ErlangC { servers: servers as f64, share, waits }
    }

    /// The mean wait, in mean service times.
    pub fn mean(self) -> f64 {
        self.waits / (self.servers * (1.0 - self.share))
    }

    /// What all but `rest` of the requests do not exceed, in mean service times.
    pub fn all_but(self, rest: f64) -> f64 {
        ((self.waits / rest).ln() / (self.servers * (1.0 - self.share))).max(0.0)
    }
}

impl fmt::Display for ErlangC {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p99, p999] = [0.01, 0.001].map(|rest| self.all_but(rest));
        write!(f, "{} / {} / {}", Figure(self.mean()), Figure(p99), Figure(p999))
    }
}

/// The mean wait at one server with a queue of its own, if service times have a mean of 1 and this
/// mean square (Pollaczek and Khinchine).
pub fn alone(share: f64, mean_square: f64) -> f64 {
    share * mean_square / (2.0 * (1.0 - share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erlang_c_for_32_servers_at_nine_tenths() {
        let known = ErlangC::new(32, 0.9);
        assert!((0.1430..0.1435).contains(&known.mean()), "{known:?}: {}", known.mean());
        assert!((1.19..1.20).contains(&known.all_but(0.01)), "{}", known.all_but(0.01));
        // One server: M/M/1, where a share of the requests waits that is the load itself.
        assert!((ErlangC::new(1, 0.5).mean() - 1.0).abs() < 1e-9);
        assert!((alone(0.5, 2.0) - 1.0).abs() < 1e-9);
    }
}
