//! What the operator asks of the workers: bridges that get no more requests, or are closed at once.

use super::operator::{Answer, Order};
use super::role::Role;
use super::state::AdminMail;
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
        let mut answer = Answer { order: order.id, closed: 0, finishing: 0 };
        for key in here.into_iter().chain(idle) {
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
}
