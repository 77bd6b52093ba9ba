//! HAProxy's `balance leastconn`, on one node or several that know nothing of each other.
//!
//! As in its `lb_fwlc.c` and `queue.c`: a node sends a request to the server with the fewest of its
//! own requests; among those with equally many, to the one whose count changed first. With `maxconn`
//! servers that have so many are passed over. If all have, the request enters the *backend's* queue,
//! one for all servers, and the next server that answers gets the oldest of it. (A server has a
//! queue of its own too, but only persistence and the hashing algorithms put requests there.)

use std::collections::{BTreeSet, VecDeque};

use crate::load::SERVERS;
use crate::world::{Policy, RequestId, World};

struct Node {
    sent: [usize; SERVERS],
    /// When the count of each last changed, to tell apart those of equal counts.
    changed: [u64; SERVERS],
    changes: u64,
    /// Count, time of the last change, and server.
    order: BTreeSet<(usize, u64, usize)>,
    queue: VecDeque<RequestId>,
}

impl Node {
    fn new() -> Node {
        Node {
            sent: [0; SERVERS],
            changed: [0; SERVERS],
            changes: 0,
            order: (0..SERVERS).map(|server| (0, 0, server)).collect(),
            queue: VecDeque::new(),
        }
    }

    fn count(&mut self, server: usize, sent: usize) {
        self.order.remove(&(self.sent[server], self.changed[server], server));
        self.changes += 1;
        (self.sent[server], self.changed[server]) = (sent, self.changes);
        self.order.insert((sent, self.changes, server));
    }
}

/// The policy.
pub struct LeastConn {
    nodes: Vec<Node>,
    /// Most requests of one node at one server.
    maxconn: usize,
}

impl LeastConn {
    /// Without `maxconn`: everything is sent at once.
    pub fn new(nodes: usize) -> LeastConn {
        LeastConn::with_maxconn(nodes, usize::MAX)
    }

    /// With it.
    pub fn with_maxconn(nodes: usize, maxconn: usize) -> LeastConn {
        LeastConn { nodes: (0..nodes).map(|_| Node::new()).collect(), maxconn }
    }
}

impl Policy for LeastConn {
    type Message = ();

    fn arrive(&mut self, world: &mut World<()>, node: usize, request: RequestId) {
        let node = &mut self.nodes[node];
        let &(sent, _, server) = node.order.first().expect("there are servers");
        if sent >= self.maxconn {
            return node.queue.push_back(request);
        }
        node.count(server, sent + 1);
        world.send(server, request);
    }

    fn answered(&mut self, world: &mut World<()>, node: usize, server: usize) {
        let node = &mut self.nodes[node];
        node.count(server, node.sent[server] - 1);
        if let Some(request) = node.queue.pop_front() {
            node.count(server, node.sent[server] + 1);
            world.send(server, request);
        }
    }
}
