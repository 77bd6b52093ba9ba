//! Which bridges belong to one backend.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::bridge::BackendToken;

/// What tells one backend from another.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// It has announced itself.
    Token(BackendToken),
    /// It has not, so all from one address are taken for one.
    Address(IpAddr),
    /// A server that the proxy dials, by its name on the info page.
    Server(String),
}

/// Names a backend: unique in this process, never reused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BackendId(u64);

/// A backend, held by each of its bridges.
pub(super) struct Backend {
    pub(super) id: BackendId,
    key: Key,
    table: Arc<Mutex<HashMap<Key, Weak<Backend>>>>,
}

/// The backends that have a bridge connected. Locked when a bridge comes or a backend goes, never
/// for a request.
#[derive(Default)]
pub(super) struct Backends {
    table: Arc<Mutex<HashMap<Key, Weak<Backend>>>>,
    last: AtomicU64,
}

impl Backends {
    /// The backend with this key.
    pub(super) fn of(&self, key: Key) -> Arc<Backend> {
        let mut table = lock(&self.table);
        if let Some(known) = table.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let id = BackendId(self.last.fetch_add(1, Ordering::Relaxed));
        let backend = Arc::new(Backend { id, key: key.clone(), table: Arc::clone(&self.table) });
        table.insert(key, Arc::downgrade(&backend));
        backend
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let mut table = lock(&self.table);
        // It may have come back before the last bridge was gone.
        if table.get(&self.key).is_some_and(|here| here.strong_count() == 0) {
            table.remove(&self.key);
        }
    }
}

fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change leaves the table whole.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_backend_is_the_same_while_one_of_its_bridges_is_connected() {
        let backends = Backends::default();
        let key = || Key::Address(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let (one, two) = (backends.of(key()), backends.of(key()));
        let other = backends.of(Key::Token(BackendToken::new([0; 16])));
        assert_eq!(one.id, two.id);
        assert_ne!(one.id, other.id);
        let first = one.id;
        drop((one, two));
        let again = backends.of(key());
        assert_ne!(again.id, first);
        drop((again, other));
        assert!(lock(&backends.table).is_empty());
    }
}
