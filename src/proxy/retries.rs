//! A request whose bridge has failed goes to another one, or has had its tries.
//!
//! Two bounds, because two things can go wrong. A request that no application was given may go on
//! for long: it meets agents that are being restarted. One that an application may have seen may be
//! what has ended the application, so it is repeated `retries` times and no more.

use std::sync::Arc;

use crate::exchange::{Cause, ExchangeError, Running, SeenBy};
use crate::net::event_loop::Address;
use crate::net::log_limiter;

use super::backends::BackendId;
use super::reason::Reason;
use super::role::{Begun, Role, Route, Ticket};
use super::worker::Worker;

/// How many failures a request survives of bridges that may have seen it, though their applications
/// were not given it. A request that kills every agent must not reach all of them; one that meets a
/// few dying agents in a row must not fail for that.
const UNDELIVERED_MAX: u8 = 16;

/// The backend of a bridge that has failed.
pub(super) struct Failed {
    pub(super) address: Address,
    pub(super) id: Option<BackendId>,
    /// Its route, if failures are noted there.
    pub(super) route: Option<Arc<Route>>,
}

impl Worker {
    /// A request goes to another bridge, in its old place, or is answered with 502.
    pub(super) fn retry(
        &mut self,
        key: usize,
        running: &mut Running<Begun>,
        error: &ExchangeError,
        failed: Failed,
    ) {
        let Some(Role::Requesting { ticket, .. }) = self.conns.role(key) else { return };
        let Ticket { pos, mut tries } = *ticket;
        tries.failed = tries.failed.saturating_add(1);
        tries.last = failed.id;
        match error.seen_by() {
            // Too often by now (`places.rs`).
            SeenBy::Nobody if matches!(error.cause, Cause::GivenBack { .. }) => {
                tries.undelivered += 1;
            }
            // A bridge that was found dead has not seen the request.
            SeenBy::Nobody => {}
            SeenBy::Responder => tries.undelivered += 1,
            SeenBy::Application => tries.delivered += 1,
        }
        let retries = self.settings().retries;
        let is_over = tries.undelivered > UNDELIVERED_MAX || usize::from(tries.delivered) > retries;
        if error.seen_by() == SeenBy::Application {
            self.stats().delivered.add(1);
            self.report_delivered(key, running, error, failed.address);
        }
        if is_over {
            let (reason, text) = (Reason::RetriesUsedUp, "every backend that was tried failed");
            self.note_answer(failed.route.as_deref(), reason, 502);
            return self.answer_failure(key, running, reason, (502, text));
        }
        self.stats().retried[error.seen_by() as usize].add(1);
        self.dispatch_again(key, Ticket { pos, tries });
    }

    /// Says that a backend has failed with a request that its application may have seen.
    fn report_delivered(
        &mut self,
        key: usize,
        running: &Running<Begun>,
        error: &ExchangeError,
        backend: Address,
    ) {
        let Some(suppressed) = self.delivered_reported.allow(self.conns.now().millis()) else {
            return;
        };
        let client = &self.conns[key];
        let Some(Role::Requesting { ticket, .. }) = client.role() else { return };
        let (number, all) = (usize::from(ticket.tries.delivered) + 1, self.settings().retries + 1);
        let is_over = number >= all;
        let then = if is_over { "the client gets 502" } else { "it is repeated" };
        let more = log_limiter::suppressed(suppressed, "");
        log::log!(
            if is_over { log::Level::Warn } else { log::Level::Info },
            "client {}, backend {backend}{}, try {number} of {all}: {error}: {then}{more}",
            client.address(),
            running.exchange.named(&client.conn, &self.exchange_config.limits),
        );
    }
}
