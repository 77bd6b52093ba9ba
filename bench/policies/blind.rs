//! Policies that know little or nothing of the servers.

use cloudbridge_bench::random::Random;

use crate::load::SERVERS;
use crate::world::{Policy, RequestId, World};

/// Any server, whatever it has to do.
pub struct Anywhere(pub Random);

impl Policy for Anywhere {
    type Message = ();

    fn arrive(&mut self, world: &mut World<()>, _: usize, request: RequestId) {
        world.send(self.0.below(SERVERS), request);
    }

    fn answered(&mut self, _: &mut World<()>, _: usize, _: usize) {}
}

/// One server after another.
#[derive(Default)]
pub struct RoundRobin {
    next: usize,
}

impl Policy for RoundRobin {
    type Message = ();

    fn arrive(&mut self, world: &mut World<()>, _: usize, request: RequestId) {
        world.send(self.next, request);
        self.next = (self.next + 1) % SERVERS;
    }

    fn answered(&mut self, _: &mut World<()>, _: usize, _: usize) {}
}

/// The one of two servers, chosen at random, that has fewer requests of this proxy (HAProxy:
/// `balance random(2)`; Mitzenmacher, "The power of two choices").
pub struct TwoChoices {
    random: Random,
    sent: [usize; SERVERS],
}

impl TwoChoices {
    /// Nothing sent yet.
    pub fn new(random: Random) -> TwoChoices {
        TwoChoices { random, sent: [0; SERVERS] }
    }
}

impl Policy for TwoChoices {
    type Message = ();

    fn arrive(&mut self, world: &mut World<()>, _: usize, request: RequestId) {
        let first = self.random.below(SERVERS);
        // Another one.
        let second = (first + 1 + self.random.below(SERVERS - 1)) % SERVERS;
        let server = if self.sent[second] < self.sent[first] { second } else { first };
        self.sent[server] += 1;
        world.send(server, request);
    }

    fn answered(&mut self, _: &mut World<()>, _: usize, server: usize) {
        self.sent[server] -= 1;
    }
}
