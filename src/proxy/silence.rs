//! When a backend counts as silent. What follows is in `suspects.rs`.
//!
//! A machine that has died says nothing, and the kernel takes long to give up on it. So each of
//! these puts the other bridges of a backend aside: a matched bridge that has not acknowledged in
//! time, a connection on which the kernel has given up, and a request that the backend's kernel has
//! not acknowledged for a second (TCP_INFO, tcp(7)).

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use crate::exchange::{Cause, ExchangeError, Side};
use crate::upstream::Purpose;

use super::aside::LOOKED_AT;
use super::role::{Origin, Role};
use super::state::Mail;
use super::worker::Worker;

/// How long a backend's kernel may acknowledge nothing of a request. It is five times the shortest
/// time after which TCP sends it again (tcp(7)): several packets have been lost by then.
const UNHEARD: Duration = Duration::from_secs(1);

impl Worker {
    /// A failed exchange may show that the backend of its bridge has gone silent.
    pub(super) fn note_silence(&mut self, bridge: usize, error: &ExchangeError) {
        let is_silence = match &error.cause {
            Cause::AckTimeout => true,
            Cause::Lost(error) => matches!(
                error.kind(),
                ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
            ),
            _ => false,
        };
        if error.side == Side::Responder && is_silence {
            self.suspect(bridge);
        }
    }

    /// Looks for requests that their backends' kernels have not acknowledged.
    pub(super) fn watch_exchanges(&mut self) {
        let now = self.conns.now().millis();
        if self.exchanges.len() == 0 || self.watch.due(now).is_none_or(|due| now < due) {
            return;
        }
        self.watch.looked(now);
        for exchange in self.exchanges.keys_with(|running| {
            let age = now.since(running.data.at);
            age >= UNHEARD && age < LOOKED_AT && running.exchange.status() == 0
        }) {
            let running = self.exchanges.get_mut(exchange);
            let (client, bridge) = (running.requester.key(), running.responder.key());
            if self.conns[bridge].conn.unheard_for().is_some_and(|time| time >= UNHEARD) {
                self.suspect(bridge);
                self.try_another(exchange, client);
            }
        }
    }

    /// The backend of an exchange is silent. If its request may be repeated, it is.
    fn try_another(&mut self, exchange: usize, client: usize) {
        let Some(Role::Requesting { ticket, .. }) = self.conns.role(client) else { return };
        if usize::from(ticket.tries.delivered) < self.settings().retries {
            let ended = self.exchanges.lose_responder(exchange, &mut self.conns);
            self.exchange_ended(ended);
        }
    }

    /// The backend of a bridge has gone silent.
    fn suspect(&mut self, key: usize) {
        let peer = self.conns[key].peer;
        let Some(bridge) = self.conns.role(key).and_then(Role::bridge) else { return };
        let backend = Arc::clone(&bridge.backend);
        if let Origin::Dialled(permit) = &bridge.origin {
            let server = Arc::clone(&permit.server);
            let error = std::io::Error::new(ErrorKind::TimedOut, "it is silent");
            self.server_failed(&server, Purpose::Requests, &error);
        } else if backend.suspect(self.conns.now().millis()) {
            backend.note_error("it has gone silent");
            log::warn!("backend {peer} is silent: its bridges stand aside until one answers");
        } else {
            return;
        }
        for mailbox in self.shared.others(self.index) {
            mailbox.send(Mail::Suspect(Arc::clone(&backend)));
        }
        self.put_aside(&backend);
    }
}
