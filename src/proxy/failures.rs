//! What is noted of a route's failures, while there is a page that shows them (`tenant.rs`). Where
//! nothing fails, nothing is done.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::Settings;
use crate::exchange::{Action, Cause, ExchangeError, Progress, SeenBy, Side};
use crate::routing::{Outcome, RouteQuery, Scheduler, WaiterId};

use super::reason::Reason;
use super::role::{ParkedBridge, Role, Route};
use super::worker::Worker;

/// Of a backend that could not reach its application. The request goes to another, so this is no
/// [`Reason`].
const UNDELIVERED: &str = "undelivered";

impl Worker {
    /// Whether somebody may look.
    fn notes_failures(&self) -> bool {
        self.settings().tenant_host.is_some()
    }

    /// The route of bridge `key`, to note a failure on it.
    pub(super) fn route_to_note(&self, key: usize) -> Option<Arc<Route>> {
        let bridge = self.conns.role(key).and_then(Role::bridge)?;
        self.notes_failures().then(|| Arc::clone(&bridge.route))
    }

    /// Notes that a bridge of the route has failed with a request.
    pub(super) fn note_failure(&self, route: Option<&Route>, error: &ExchangeError) {
        let (Some(route), Some(word)) = (route, word_for(error)) else { return };
        let outcome = match error.action() {
            Action::Retry => Outcome::Repeated,
            Action::Answer(answer) => Outcome::Answered(answer.status()),
            Action::Close(_) => Outcome::Cut,
        };
        self.note_on(route, word, outcome);
    }

    /// Notes that a client was told this, after bridges of the route have failed with its request.
    pub(super) fn note_answer(&self, route: Option<&Route>, reason: Reason, status: u16) {
        if let Some(route) = route {
            self.note_on(route, reason.word(), Outcome::Answered(status));
        }
    }

    /// Notes that a request has waited in vain, on each route that it waited for.
    pub(super) fn note_vain_wait(&self, waiter: WaiterId, reason: Reason, status: u16) {
        if self.notes_failures() {
            for route in self.scheduler.routes_of(waiter) {
                self.note_on(route, reason.word(), Outcome::Answered(status));
            }
        }
    }

    fn note_on(&self, route: &Route, word: &'static str, outcome: Outcome) {
        route.failures().note(self.shared.moment().unix.as_secs(), word, outcome);
    }
}

/// Notes that a request was refused, on each route that could have served it.
pub(super) fn note_refusal(
    settings: &Settings,
    scheduler: &Scheduler<ParkedBridge>,
    query: &RouteQuery<'_>,
    reason: Reason,
    status: u16,
) {
    if settings.tenant_host.is_none() {
        return;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    scheduler.each_route(query, |route| {
        route.failures().note(now, reason.word(), Outcome::Answered(status));
    });
}

/// One word for a failure of a backend; `None` for one that is nobody's business: a client that has
/// gone, the end of a tunnel, or an idle bridge that was found dead.
fn word_for(error: &ExchangeError) -> Option<&'static str> {
    if error.side == Side::Requester || error.progress == Progress::Tunnel {
        return None;
    }
    let reason = match &error.cause {
        Cause::Closed | Cause::Lost(_) if error.seen_by() == SeenBy::Nobody => return None,
        Cause::GivenBack { .. } | Cause::Speaking | Cause::TunnelTimeout => return None,
        Cause::Undelivered => return Some(UNDELIVERED),
        Cause::Closed | Cause::Lost(_) => Reason::BackendClosed,
        Cause::Malformed(_) | Cause::Stray => Reason::BackendBadResponse,
        Cause::AckTimeout | Cause::ResponseTimeout | Cause::StreamTimeout => Reason::BackendTimeout,
        Cause::BodyTimeout => Reason::BackendStalled,
    };
    Some(reason.word())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_backend_does_not_cause_is_not_noted() {
        let word = |side, cause, progress| word_for(&ExchangeError { side, cause, progress });
        assert_eq!(word(Side::Requester, Cause::Closed, Progress::Sent), None);
        assert_eq!(word(Side::Responder, Cause::Closed, Progress::Nothing), None);
        assert_eq!(word(Side::Responder, Cause::Closed, Progress::Tunnel), None);
        assert_eq!(word(Side::Responder, Cause::Closed, Progress::Sent), Some("backend-closed"));
        let silent = word(Side::Responder, Cause::AckTimeout, Progress::Nothing);
        assert_eq!(silent, Some("backend-timeout"));
    }
}
