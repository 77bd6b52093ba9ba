//! This proxy: one, or several that know nothing of each other.
//!
//! Each server has a bridge at each proxy. A server to which several proxies send at once takes one
//! request after another.

use crate::proxy::Proxy;
use crate::world::{Policy, RequestId, World};

/// Proxies that know nothing of each other.
pub struct Apart {
    proxies: Vec<Proxy>,
}

impl Apart {
    /// So many proxies.
    pub fn new(proxies: usize) -> Apart {
        Apart { proxies: (0..proxies).map(|_| Proxy::new(None)).collect() }
    }
}

impl Policy for Apart {
    type Message = ();

    fn arrive(&mut self, world: &mut World<()>, node: usize, request: RequestId) {
        if let Some(given) = self.proxies[node].enqueue(request, world.now()) {
            world.send(given.bridge, request);
        }
    }

    fn answered(&mut self, world: &mut World<()>, node: usize, server: usize) {
        if let Some(given) = self.proxies[node].park(server) {
            world.send(server, given.request);
        }
    }
}
