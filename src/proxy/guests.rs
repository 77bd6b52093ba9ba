//! Backends that speak swiftclient (`doc/protocol.md`, "swiftclient"): they come in by an inlet of a site, say their
//! preamble, get no answer, and are bridges from then on.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bridge::swiftclient::{self, BackendId, MAX_PREAMBLE, Refused};
use crate::net::conn::Received;

use super::role::{Backend, Bridge, Origin, Role, Standing};
use super::sites::Inlet;
use super::worker::Worker;

/// How many ids are counted, of all sites together: without keys anybody on this machine can make ids up.
const IDS: usize = 10_000;

/// How often it is said that backends are refused, in milliseconds: one with a wrong key dials again every second or
/// two, for as long as it takes somebody to notice.
const SAY_AGAIN: u64 = 10_000;

/// What the bridges of one id have.
pub struct GuestCount {
    /// Where the first of them comes from.
    pub peer: IpAddr,
    /// Bridges connected.
    pub bridges: AtomicI64,
    /// Clients in an exchange with one of them.
    pub clients: AtomicI64,
}

/// The name of a site and an id of its backends.
type Name = (Box<str>, BackendId);

type Table = BTreeMap<Name, Arc<GuestCount>>;

/// The counts of all ids that are connected, for all workers. It is locked when a backend comes or goes, never for a
/// request.
#[derive(Default)]
pub struct Guests {
    table: Arc<Mutex<Table>>,
}

/// A swiftclient backend as its bridge knows it; dropping it counts it out.
pub struct Guest {
    /// How it came in.
    pub inlet: Arc<Inlet>,
    /// What it calls itself.
    pub id: BackendId,
    /// `None` if there were too many ids to count.
    count: Option<Arc<GuestCount>>,
    table: Arc<Mutex<Table>>,
}

impl Guests {
    /// Counts a bridge of the backend `id` in.
    #[must_use]
    pub fn enter(&self, inlet: Arc<Inlet>, id: BackendId, peer: IpAddr) -> Guest {
        let mut table = lock(&self.table);
        let name = (inlet.site.clone(), id);
        let room = table.len() < IDS || table.contains_key(&name);
        let count = room.then(|| {
            let new = || {
                let (bridges, clients) = (AtomicI64::new(0), AtomicI64::new(0));
                Arc::new(GuestCount { peer, bridges, clients })
            };
            let count = table.entry(name).or_insert_with(new);
            count.bridges.fetch_add(1, Ordering::Relaxed);
            Arc::clone(count)
        });
        drop(table);
        Guest { inlet, id, count, table: Arc::clone(&self.table) }
    }

    /// The ids of a site and their counts, in the order of the ids.
    #[must_use]
    pub fn of(&self, site: &str) -> Vec<(BackendId, Arc<GuestCount>)> {
        let table = lock(&self.table);
        let here = table.iter().filter(|((name, _), _)| **name == *site);
        here.map(|((_, id), count)| (*id, Arc::clone(count))).collect()
    }
}

impl Guest {
    /// Counts that the bridge has so many clients more.
    pub fn count_clients(&self, change: i64) {
        if let Some(count) = &self.count {
            count.clients.fetch_add(change, Ordering::Relaxed);
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let Some(count) = &self.count else { return };
        let mut table = lock(&self.table);
        if count.bridges.fetch_sub(1, Ordering::Relaxed) == 1 {
            table.remove(&(self.inlet.site.clone(), self.id));
        }
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps something that may happen all the time from being said all the time.
#[derive(Default)]
pub(super) struct Seldom {
    /// Nothing is said before this many milliseconds.
    next: u64,
    unsaid: u64,
}

impl Seldom {
    /// Whether it may be said at `now`, in milliseconds; then how often it has happened unsaid.
    fn ask(&mut self, now: u64) -> Option<u64> {
        if now < self.next {
            self.unsaid += 1;
            return None;
        }
        self.next = now + SAY_AGAIN;
        Some(std::mem::take(&mut self.unsaid))
    }
}

impl Worker {
    /// Reads on in the preamble of a backend that has come by an inlet.
    pub(super) fn read_preamble(&mut self, key: usize) {
        let Role::Announcing { inlet } = &self.slots[key].role else { return };
        let inlet = Arc::clone(inlet);
        loop {
            let conn = &mut self.slots[key].conn;
            match conn.receive(&mut self.ws.scratch[..=MAX_PREAMBLE]) {
                Received::Bytes(count) => {
                    conn.input.push(&self.ws.scratch[..count], &mut self.ws.pool);
                }
                Received::Nothing => return,
                Received::End | Received::Broken(_) => return self.close(key),
            }
            // Of a site that is no more, or with another key than a moment ago.
            let Some(expected) = self.config.sites.key_of(&inlet) else {
                return self.close(key);
            };
            match swiftclient::parse(self.slots[key].conn.input.bytes(), expected) {
                Ok(None) => {}
                Ok(Some(id)) => {
                    let trusted = !expected.is_empty() || self.settings().open_bridges;
                    self.slots[key].conn.input.clear(&mut self.ws.pool);
                    if !trusted && !self.is_of_this_machine(key) {
                        let why = "the site has no key, and the backend is not on this machine";
                        return self.refuse_guest(key, &inlet, &why);
                    }
                    return self.admit(key, inlet, id);
                }
                Err(refused) => {
                    // Unread bytes would make the close a reset, which is what this peer gets.
                    return self.refuse_guest(key, &inlet, &refused);
                }
            }
        }
    }

    /// A backend has said who it is, and may come in.
    fn admit(&mut self, key: usize, inlet: Arc<Inlet>, id: BackendId) {
        if !self.is_serving() {
            return self.close(key);
        }
        let joined = match self.lobby.join(&inlet.spec, self.now.micros) {
            Ok(joined) => joined,
            Err(full) => return self.refuse_guest(key, &inlet, &full),
        };
        let peer = self.slots[key].peer;
        log::debug!("swiftclient backend {id} from {peer} for {}", inlet.site);
        let bridge = Bridge {
            route: joined.route,
            standing: Standing::Reused { until: None },
            served: 0,
            parked_at: self.now.millis(),
            keys: None,
            backend: Backend::Silent,
            origin: Origin::Swiftclient(Box::new(self.shared.guests.enter(inlet, id, peer))),
        };
        self.bring_in(key, joined, bridge);
    }

    fn refuse_guest(&mut self, key: usize, inlet: &Inlet, why: &dyn std::fmt::Display) {
        self.stats().refused.bad.add(1);
        if let Some(unsaid) = self.guests_refused.ask(self.now.millis()) {
            let (peer, site) = (self.slots[key].peer, &inlet.site);
            match unsaid {
                0 => log::info!("swiftclient backend {peer} of {site} refused: {why}"),
                _ => log::info!(
                    "swiftclient backend {peer} of {site} refused: {why} ({unsaid} more refused since this was last said)"
                ),
            }
        }
        self.close(key);
    }

    /// The preamble did not come in time.
    pub(super) fn preamble_is_late(&mut self, key: usize) {
        let Role::Announcing { inlet } = &self.slots[key].role else { return };
        let inlet = Arc::clone(inlet);
        self.refuse_guest(key, &inlet, &Refused::Late);
    }

    /// Bridges whose inlet is no more get nothing more, and those that have nothing to do are closed.
    pub(super) fn dismiss_guests(&mut self) {
        let outdated = |role: &Role| match role {
            Role::Announcing { inlet } => inlet.is_closed(),
            role => role.bridge().is_some_and(Bridge::is_outdated),
        };
        self.each_slot(outdated, Worker::let_go);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_all_the_time_is_said_once_in_a_while() {
        let mut seldom = Seldom::default();
        assert_eq!(seldom.ask(5), Some(0));
        assert_eq!((seldom.ask(6), seldom.ask(10_004)), (None, None));
        assert_eq!(seldom.ask(10_005), Some(2));
        assert_eq!(seldom.ask(10_006), None);
    }
}
