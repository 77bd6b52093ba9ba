//! Routes whose backends leave request bodies unread, as far as they have shown it.
//!
//! A backend that answers without having read the body, and keeps the connection, takes the body for
//! its next request and answers that too. The next client on the connection gets this answer, and the
//! body was the first one's choice. HTTP/1.1 does not say which request a response answers, so the
//! first time cannot be told from an honest answer. But the backend has now sent one response more
//! than it had requests, and that shows as soon as the connection has nothing to do: bytes come that
//! belong to no request. From then on no bridge of its route is used again after a request with a
//! body, which is safe whatever the backend does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::time::Millis;

/// How long a route counts as careless: the backend may have been mended since, and a new connection
/// for each request with a body is a price. It is tried again about as often as software is
/// deployed.
const DISTRUSTED: Duration = Duration::from_secs(3600);

/// The routes that count as careless, by their ids.
#[derive(Default)]
pub(super) struct CarelessRoutes {
    /// How many there are: nearly always none, and then nobody takes the lock.
    count: AtomicUsize,
    until: Mutex<HashMap<u64, Millis>>,
}

impl CarelessRoutes {
    /// Notes that a backend of this route has left a body unread. False if that was known.
    pub(super) fn note(&self, route: u64, now: Millis) -> bool {
        let mut until = self.lock();
        until.retain(|_, until| *until > now);
        let is_new = until.insert(route, now + DISTRUSTED).is_none();
        self.count.store(until.len(), Relaxed);
        is_new
    }

    /// Whether a backend of this route has left a body unread.
    pub(super) fn has(&self, route: u64, now: Millis) -> bool {
        self.count.load(Relaxed) > 0 && self.lock().get(&route).is_some_and(|until| *until > now)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Millis>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn route_is_careless_for_an_hour_after_it_was_last_seen_to_be() {
        let routes = CarelessRoutes::default();
        assert!(!routes.has(1, Millis(0)));
        assert!(routes.note(1, Millis(0)));
        assert!(!routes.note(1, Millis(1000)));
        assert!(routes.has(1, Millis(3_600_999)) && !routes.has(1, Millis(3_601_000)));
        assert!(!routes.has(2, Millis(1000)));
        assert!(routes.note(2, Millis(4_000_000)));
        assert_eq!(routes.count.load(Relaxed), 1);
    }
}
