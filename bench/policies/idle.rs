//! Join-Idle-Queue (Lu, Xie, Kliot, Geller, Larus and Greenberg, 2011).
//!
//! Each dispatcher has a queue of servers that have told it that they are idle. It sends a request
//! to the first of them, or, if it knows none, to any server. A server that becomes idle joins the
//! queue of a dispatcher at random, and stays there until it is taken out, even if a request from
//! elsewhere reaches it meanwhile: it is in one queue at most.

use std::collections::VecDeque;

use cloudbridge_bench::random::Random;

use crate::load::SERVERS;
use crate::world::{Policy, RequestId, World};

/// A server joins a dispatcher's queue.
#[derive(Clone, Copy, Debug)]
pub struct Join {
    server: usize,
    dispatcher: usize,
}

/// The policy.
pub struct JoinIdleQueue {
    random: Random,
    queues: Vec<VecDeque<usize>>,
    /// Which servers are in a queue, or on their way to one.
    joined: [bool; SERVERS],
}

impl JoinIdleQueue {
    /// All servers are idle, and every dispatcher knows as many.
    pub fn new(dispatchers: usize, random: Random) -> JoinIdleQueue {
        let knows = |dispatcher| (dispatcher..SERVERS).step_by(dispatchers).collect();
        let queues = (0..dispatchers).map(knows).collect();
        JoinIdleQueue { random, queues, joined: [true; SERVERS] }
    }
}

impl Policy for JoinIdleQueue {
    type Message = Join;

    fn arrive(&mut self, world: &mut World<Join>, node: usize, request: RequestId) {
        let server = match self.queues[node].pop_front() {
            Some(server) => {
                self.joined[server] = false;
                server
            }
            None => self.random.below(SERVERS),
        };
        world.send(server, request);
    }

    fn finished(&mut self, world: &mut World<Join>, _: usize, server: usize) {
        if world.is_idle(server) && !self.joined[server] {
            self.joined[server] = true;
            let dispatcher = self.random.below(self.queues.len());
            world.tell(Join { server, dispatcher });
        }
    }

    fn answered(&mut self, _: &mut World<Join>, _: usize, _: usize) {}

    fn receive(&mut self, _: &mut World<Join>, Join { server, dispatcher }: Join) {
        self.queues[dispatcher].push_back(server);
    }
}
