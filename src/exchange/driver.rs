//! The table of exchanges under way, and what moves them: the same for proxy and agent.
//!
//! ```text
//!     insert ──> start ──> advance ... advance ──> Ended
//!                   └─────────┴── timed_out ─────────┘        take: abandoned by the owner
//! ```
//!
//! An exchange is inserted first, so that the owner can give its two connections roles that name
//! it. Each later call either leaves it in the table, or takes it out and returns how it ended; its
//! connections keep their roles until the owner changes them. Its deadline is that of the
//! requester's connection.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use slab::Slab;

use crate::net::event_loop::EventLoop;
use crate::net::token::Token;
use crate::net::workspace::Workspace;
use crate::time::Millis;

use super::config::ExchangeConfig;
use super::error::{Action, ExchangeError, Failure, Side};
use super::lent::Lent;
use super::phase::Exchange;
use super::request::Start;
use super::reuse::{Decision, Reuse};
use super::state::{Outcome, TimeoutPhase};

/// How long the beginning of a small response is held back. An application that writes a response
/// in several pieces is done by then; a client does not notice so short a delay.
const HOLD: Duration = Duration::from_millis(5);

/// An exchange in the table, with what its owner keeps beside it.
pub(crate) struct Running<D> {
    pub exchange: Exchange,
    pub requester: Token,
    pub responder: Token,
    pub data: D,
}

/// An exchange that has ended, out of the table.
pub(crate) enum Ended<D> {
    /// The response has been given to the requester, though some of it may be in its output.
    Finished {
        running: Running<D>,
        /// What becomes of the requester's connection.
        requester: Reuse,
        /// What becomes of the responder's connection.
        responder: Reuse,
    },
    /// It has failed; see [`ExchangeError::action`].
    Failed { running: Running<D>, error: ExchangeError },
}

/// The exchanges of one event loop.
pub(crate) struct Exchanges<D> {
    table: Slab<Running<D>>,
    /// Those that hold a response back, in the order in which they began. May hold some that no
    /// longer do.
    holding: VecDeque<Holding>,
}

/// An exchange that holds a response back.
struct Holding {
    until: Millis,
    key: usize,
    requester: Token,
}

impl<D> Default for Exchanges<D> {
    fn default() -> Exchanges<D> {
        Exchanges { table: Slab::new(), holding: VecDeque::new() }
    }
}

impl<D> Exchanges<D> {
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn keys(&self) -> Vec<usize> {
        self.table.iter().map(|(key, _)| key).collect()
    }

    pub fn keys_with(&self, which: impl Fn(&Running<D>) -> bool) -> Vec<usize> {
        self.table.iter().filter(|(_, running)| which(running)).map(|(key, _)| key).collect()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Running<D>> {
        self.table.iter_mut().map(|(_, running)| running)
    }

    pub fn get_mut(&mut self, key: usize) -> &mut Running<D> {
        &mut self.table[key]
    }

    /// The exchange with this key, if it still has this requester.
    pub fn find(&self, key: usize, requester: Token) -> Option<&Running<D>> {
        self.table.get(key).filter(|running| running.requester == requester)
    }

    pub fn insert(&mut self, running: Running<D>) -> usize {
        self.table.insert(running)
    }

    /// Takes an exchange out, to abandon it.
    pub fn take(&mut self, key: usize, ws: &mut Workspace) -> Running<D> {
        let mut running = self.table.remove(key);
        running.exchange.return_pipes(ws);
        running
    }

    /// Checks that the responder's connection is good, sends it the opening, and moves as much more
    /// as it can.
    pub fn start<R, L>(
        &mut self,
        key: usize,
        start: Start,
        conns: &mut EventLoop<R, L>,
        config: &ExchangeConfig,
    ) -> Option<Ended<D>> {
        let running = &mut self.table[key];
        let ([requester, responder], ws) = conns.pair(running.keys())?;
        let mut io = Lent { requester, responder, ws, config };
        if let Err(failure) = running.exchange.start(start, &mut io) {
            return Some(self.fail(key, failure, conns));
        }
        let slow = running.exchange.slow_side(&io);
        running.rearm(slow, conns, config);
        if running.exchange.is_request_sent() {
            return None;
        }
        self.advance(key, conns, config)
    }

    /// Moves as much as it can.
    pub fn advance<R, L>(
        &mut self,
        key: usize,
        conns: &mut EventLoop<R, L>,
        config: &ExchangeConfig,
    ) -> Option<Ended<D>> {
        let running = &mut self.table[key];
        let ([requester, responder], ws) = conns.pair(running.keys())?;
        let mut io = Lent { requester, responder, ws, config };
        match running.exchange.advance(&mut io) {
            Ok(outcome @ (Outcome::Wait { progress } | Outcome::Busy { progress })) => {
                let slow = running.exchange.slow_side(&io);
                if running.exchange.begins_to_hold() {
                    let until = conns.now().millis() + HOLD;
                    self.holding.push_back(Holding { until, key, requester: running.requester });
                }
                if progress {
                    running.rearm(slow, conns, config);
                }
                if matches!(outcome, Outcome::Busy { .. }) {
                    conns.requeue(running.requester.key());
                }
            }
            Ok(Outcome::Finished(Decision { requester, responder })) => {
                running.exchange.return_pipes(io.ws);
                let running = self.table.remove(key);
                return Some(Ended::Finished { running, requester, responder });
            }
            Err(failure) => return Some(self.fail(key, failure, conns)),
        }
        None
    }

    /// When the next response is to be held back no longer.
    pub fn next_release(&self) -> Option<Millis> {
        self.holding.front().map(|holding| holding.until)
    }

    /// An exchange whose response has been held back long enough at `now`, and that is to be
    /// advanced now.
    pub fn release(&mut self, now: Millis) -> Option<usize> {
        while self.next_release().is_some_and(|until| until <= now) {
            let Holding { key, requester, .. } = self.holding.pop_front()?;
            if let Some(running) = self.table.get_mut(key)
                && running.requester == requester
                && running.exchange.stop_holding()
            {
                return Some(key);
            }
        }
        None
    }

    /// The requester's deadline has passed. A slow peer that still takes bytes is given more time.
    pub fn timed_out<R, L>(
        &mut self,
        key: usize,
        conns: &mut EventLoop<R, L>,
        config: &ExchangeConfig,
    ) -> Option<Ended<D>> {
        let running = &self.table[key];
        let ([requester, responder], ws) = conns.pair(running.keys())?;
        let io = Lent { requester, responder, ws, config };
        let slow = running.exchange.slow_side(&io);
        let failure = running.exchange.timeout_failure(slow);
        if slow.is_some_and(|side| conns[running.key(side)].note_queue()) {
            running.rearm(slow, conns, config);
            return None;
        }
        Some(self.fail(key, failure, conns))
    }

    /// The responder of an exchange does not take its request. Ends the exchange if the request may
    /// go to another one.
    pub fn lose_responder<R, L>(
        &mut self,
        key: usize,
        conns: &mut EventLoop<R, L>,
    ) -> Option<Ended<D>> {
        let failure = Side::Responder.lost(io::ErrorKind::TimedOut.into());
        let error = self.table[key].exchange.error(failure);
        let goes_on = error.action() != Action::Retry;
        (!goes_on).then(|| Ended::Failed { running: self.take(key, &mut conns.ws), error })
    }

    fn fail<R, L>(
        &mut self,
        key: usize,
        failure: Failure,
        conns: &mut EventLoop<R, L>,
    ) -> Ended<D> {
        let running = &self.table[key];
        let responder = &conns[running.responder.key()].conn;
        let error = running.exchange.error_at(failure, responder);
        Ended::Failed { running: self.take(key, &mut conns.ws), error }
    }
}

impl<D> Running<D> {
    fn keys(&self) -> [usize; 2] {
        [self.requester.key(), self.responder.key()]
    }

    fn key(&self, side: Side) -> usize {
        match side {
            Side::Requester => self.requester.key(),
            Side::Responder => self.responder.key(),
        }
    }

    /// Sets the deadline of the timeout that runs now, and notes how slow the slow side is.
    fn rearm<R, L>(
        &self,
        slow: Option<Side>,
        conns: &mut EventLoop<R, L>,
        config: &ExchangeConfig,
    ) {
        let Some(timeouts) = &config.timeouts else { return };
        let after = match self.exchange.timeout_phase(slow) {
            TimeoutPhase::Ack => timeouts.ack,
            TimeoutPhase::Response => timeouts.response,
            TimeoutPhase::Body => timeouts.body,
            TimeoutPhase::Tunnel => timeouts.tunnel,
            TimeoutPhase::Stream => timeouts.stream,
            TimeoutPhase::HalfClosed => config.half_closed_silence.unwrap_or(timeouts.body),
        };
        conns.set_deadline(self.requester.key(), after);
        if let Some(side) = slow {
            conns[self.key(side)].note_queue();
        }
    }
}
