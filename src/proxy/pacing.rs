//! Exchanges whose bytes are limited (`pace.rs`): one that rests is not read from either side, so both
//! are held back by the kernel.

use crate::exchange::{Ended, ExchangeConfig, Running};
use crate::time::Micros;

use super::pace::{Next, Pace};
use super::role::Begun;
use super::worker::Worker;

impl Worker {
    /// Advances an exchange that may have a pace.
    pub(super) fn advance_paced(&mut self, exchange: usize) -> Option<Ended<Begun>> {
        let part = self.exchanges.get_mut(exchange).data.pace.as_deref().and_then(Pace::part);
        let config = ExchangeConfig {
            budget: part.unwrap_or(self.exchange_config.budget),
            ..self.exchange_config.clone()
        };
        let ended = self.exchanges.advance(exchange, &mut self.conns, &config);
        if ended.is_none() {
            let now = self.conns.now();
            pay(self.exchanges.get_mut(exchange), now);
        }
        ended
    }

    /// Whether an exchange must not move anything now. It is seen anyway if one of its peers is gone.
    pub(super) fn rests(&mut self, exchange: usize) -> bool {
        let now = self.conns.now();
        let running = self.exchanges.get_mut(exchange);
        let requester = running.requester;
        let Some(pace) = running.data.pace.as_deref_mut() else { return false };
        let ends = [requester, running.responder];
        if ends.iter().any(|end| self.conns[end.key()].conn.is_broken()) {
            return false;
        }
        match pace.next(now) {
            Next::Moves => false,
            Next::Rests => true,
            Next::BeginsToRest(rest) => {
                if let Some(until) = pace.rests_until() {
                    self.pacing.add(until, exchange, requester);
                }
                // It is not the peers who are slow.
                if let Some(deadline) = self.conns.deadline(requester.key()) {
                    self.conns.set_deadline(requester.key(), deadline.since(now.millis()) + rest);
                }
                true
            }
        }
    }

    /// Advances the exchanges whose rest is over.
    pub(super) fn go_on_paced(&mut self) {
        let now = self.conns.now().millis();
        while let Some((exchange, requester)) = self.pacing.take(now) {
            let running = self.exchanges.find(exchange, requester);
            let pace = running.and_then(|running| running.data.pace.as_deref());
            if pace.and_then(Pace::rests_until).is_some_and(|until| until <= now) {
                self.advance(exchange);
            }
        }
    }

    /// An exchange has ended: pays for the rest.
    pub(super) fn pay_rest(&self, running: &mut Running<Begun>) {
        pay(running, self.conns.now());
    }
}

fn pay(running: &mut Running<Begun>, now: Micros) {
    if let Some(pace) = &mut running.data.pace {
        pace.pay(running.exchange.traffic(), now);
    }
}
