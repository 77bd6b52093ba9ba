//! What the operator asks of the workers: bridges that get no more requests, or are closed at once.

use std::collections::HashSet;
use std::sync::Arc;

use crate::routing::InstanceId;

use super::operator::{Answer, Order};
use super::role::Role;
use super::state::{AdminMail, Mail};
use super::worker::Worker;

impl Worker {
    /// Carries an order out on this worker's bridges, and reports what was done. The bridges of
    /// other workers are theirs; one on its way between two is checked on arrival.
    pub(super) fn carry_out(&mut self, order: &Order) {
        let here = self.conns.iter().filter(|(_, connection)| {
            let bridge = connection.role().and_then(Role::bridge);
            bridge.is_some_and(|bridge| order.selector.has(bridge, connection.peer))
        });
        let here: Vec<usize> = here.map(|(key, _)| key).collect();
        let idle = self.idle_connections(|connection| {
            let bridge = connection.role().and_then(Role::bridge);
            bridge.is_some_and(|bridge| order.selector.has(bridge, connection.peer))
        });
        let keys: Vec<usize> = here.into_iter().chain(idle).collect();
        self.shun_all_drained(&keys);
        let mut answer = Answer { order: order.id, closed: 0, finishing: 0 };
        for key in keys {
            let is_busy = matches!(self.conns.role(key), Some(Role::Responding { .. }));
            if !is_busy || order.at_once {
                answer.closed += 1;
            } else {
                answer.finishing += 1;
            }
            if is_busy && order.at_once {
                self.cut_off(key);
            } else {
                self.dismiss(key);
            }
        }
        self.shared.admin.send(AdminMail::Done(answer));
    }

    /// Those of these bridges that are drained may yet be busy for long: no request waits for them.
    fn shun_all_drained(&self, keys: &[usize]) {
        let bridge = |key: &usize| Some((self.conns.role(*key)?.bridge()?, self.conns[*key].peer));
        let shunned = keys.iter().filter_map(bridge);
        let shunned: HashSet<InstanceId> =
            shunned.filter_map(|(bridge, peer)| self.shun_drained(bridge, peer)).collect();
        if !shunned.is_empty() {
            let shunned = Arc::new(shunned);
            for mailbox in self.shared.mailboxes.iter() {
                mailbox.send(Mail::Shunned(Arc::clone(&shunned)));
            }
        }
    }

    /// Nothing is to wait for these instances any longer: the requests here that do go on.
    pub(super) fn stop_waiting_for(&mut self, shunned: &HashSet<InstanceId>) {
        let queued = self.conns.keys_with(|role| match role {
            Role::Queued { request, .. } => {
                let own = self.scheduler.stays_for(request.waiter);
                own.is_some_and(|own| shunned.contains(&own))
            }
            _ => false,
        });
        queued.into_iter().for_each(|key| self.go_anywhere(key));
    }
}
