//! A new connection goes to the worker with fewer clients, of its own and one other
//! (`routing/balance.rs`), before its first byte is read. Later it never changes its worker.
//!
//! It goes by mail, as what `accept` has returned and with the terms of its listener, and keeps the
//! place among the open connections that was reserved for it. So limits stay exact, and nothing
//! ends while one is on its way: no drain, and no program that is replaced.

use super::listeners::NewPeer;
use super::state::Mail;
use super::worker::Worker;

impl Worker {
    /// The worker that is to have a new connection, if that is another.
    pub(super) fn better_place(&mut self, peer: &NewPeer) -> Option<usize> {
        let stats = &self.shared.stats;
        // A bridge is used by any worker, and belongs where requests come.
        if stats.len() < 2 || !peer.may_be_client() || self.shared.is_stopping() {
            return None;
        }
        let load = |worker: usize| stats[worker].clients();
        let place = self.balance.place(self.index, stats.len(), load);
        (place != self.index).then_some(place)
    }

    /// Leaves a connection, for which a place is reserved, to another worker.
    pub(super) fn pass_peer(&mut self, worker: usize, peer: NewPeer) {
        self.stats().passed.add(1);
        self.shared.stats[worker].arriving.add();
        self.shared.mailboxes[worker].send(Mail::Peer(Box::new(peer)));
    }

    /// Takes a connection that another worker has accepted.
    pub(super) fn receive_peer(&mut self, peer: NewPeer) {
        self.welcome_peer(peer);
        // Only now: a drain must find it in one count or the other.
        self.stats().arriving.less();
        self.shared.give_up_reserved();
    }
}
