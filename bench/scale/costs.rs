//! What things cost a virtual worker.

use std::fmt;

/// Nanoseconds.
pub type Nanos = u64;

/// CPU time of each step, in nanoseconds, and the delays between workers, clients and backends.
///
/// Those of a request add up to what the benchmark measures for one (about 10 µs); the others are
/// of the order that `scale-model threads` and `strace -c` show, rounded up.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// A request is read, parsed, matched, written anew and sent.
    pub request: Nanos,
    /// The same for one that has to wait: it is read and parsed, and stored.
    pub waits: Nanos,
    /// A stored request is parsed again, written anew and sent.
    pub served: Nanos,
    /// A response is read and sent on, and the bridge parks.
    pub response: Nanos,
    /// What every turn of the loop costs beside its events: `epoll_wait`, the clock, the mailbox.
    pub turn: Nanos,
    /// A message is put into a mailbox and its owner woken.
    pub mail_sent: Nanos,
    /// A message is taken out and dealt with.
    pub mail_read: Nanos,
    /// A bridge is deregistered and its slot freed.
    pub move_out: Nanos,
    /// A bridge is registered and given a slot.
    pub move_in: Nanos,
    /// A route's lock is held, if this core held it last.
    pub lock: Nanos,
    /// The same if another core did: the cache line with the lock and the counts comes from there.
    pub lock_moved: Nanos,
    /// From an event to the worker that waits for it: a wake-up.
    pub wake: Nanos,
    /// From an answer to the client's next request.
    pub client: Nanos,
    /// The shortest and the longest that a backend takes for a request.
    pub backend: [Nanos; 2],
}

impl Default for Costs {
    fn default() -> Costs {
        Costs {
            request: 4_500,
            waits: 2_500,
            served: 3_500,
            response: 5_000,
            turn: 500,
            mail_sent: 2_500,
            mail_read: 2_500,
            move_out: 4_000,
            move_in: 4_000,
            lock: 40,
            lock_moved: 150,
            wake: 5_000,
            client: 20_000,
            backend: [20_000, 100_000],
        }
    }
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = |nanos: Nanos| nanos as f64 / 1000.0;
        writeln!(
            f,
            "CPU in µs: request {} (one that waits {} and {}), response {}, turn {}, mail {} and {}, move {} and \
            {}, lock {} (from another core {}).",
            micros(self.request),
            micros(self.waits),
            micros(self.served),
            micros(self.response),
            micros(self.turn),
            micros(self.mail_sent),
            micros(self.mail_read),
            micros(self.move_out),
            micros(self.move_in),
            micros(self.lock),
            micros(self.lock_moved)
        )?;
        writeln!(
            f,
            "Delays in µs: wake-up {}, client {}, backend {} to {}.",
            micros(self.wake),
            micros(self.client),
            micros(self.backend[0]),
            micros(self.backend[1])
        )
    }
}
