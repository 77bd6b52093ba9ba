//! Parked bridges that systemd keeps for the next process (`FileDescriptorStoreMax=`,
//! systemd.service(5)): after a `kill -9` it goes on with those that were idle, and no backend dials
//! again.
//!
//! systemd has a copy of each socket under the name of a slot, and the table that says what the
//! slots are (`bridge_table.rs`). Two rules make that safe:
//!
//! - A bridge is busy in the table before the first byte is sent to it, be it of a request, a ping or
//!   an answer, and until nothing more can come of that. The next process ends what was busy.
//! - While systemd has a copy, a close alone ends no connection. So the connection is shut down before
//!   the socket is closed, wherever that happens ([`Connection::set_shared`]); then systemd is told.
//!
//! Everything may be late or lost on the way to systemd: a socket that has no idle slot is ended by
//! the next process, and an idle slot that has no socket is free.
//!
//! [`Connection::set_shared`]: crate::net::event_loop::Connection::set_shared

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::net::sys;
use crate::process::activation::Passed;
use crate::process::{notify, processes};

use super::bridge_table::{Found, IdleBridge, SLOTS, Table};

/// What the name of a bridge in systemd's store begins with; the number of its slot follows.
const BRIDGE: &str = "cloudbridge/b";

/// So many slots may wait for systemd: each may be a descriptor of this process.
const MOST_WAITING: usize = 1024;

/// The name of the table.
const TABLE: &str = "cloudbridge/table";

/// So many places of systemd's store are for listening sockets, or as many as there are.
const FOR_LISTENERS: usize = 512;

/// How many places of systemd's store of this size are not for listening sockets, if there are this
/// many of those: one is for the table, and the others are for bridges.
pub(super) fn places(size: usize, listeners: usize) -> usize {
    let places = size.saturating_sub(FOR_LISTENERS.max(listeners)).min(1 + SLOTS);
    if places > 1 { places } else { 0 }
}

/// What the process before this one has left with systemd.
#[derive(Default)]
pub(super) struct Left {
    table: Option<OwnedFd>,
    /// systemd has a table, or more than one.
    is_table_kept: bool,
    /// With the slots in their names.
    bridges: Vec<(usize, OwnedFd)>,
}

impl Left {
    /// The zero of the clock that the process before this one had, as the time since the machine
    /// started. That of this process must be the same.
    pub(super) fn zero(&self, format: u64) -> Option<Duration> {
        let file = self.table.as_ref()?.try_clone().ok()?;
        Some(Table::open(file, format).ok()?.zero())
    }

    /// Takes it out of what systemd has passed. Of two tables neither is used: nobody can tell which
    /// one the bridges are in.
    pub(super) fn take(passed: &mut Vec<Passed>) -> Left {
        let (mut left, mut tables) = (Left::default(), Vec::new());
        for Passed { name, file } in std::mem::take(passed) {
            let slot = name.strip_prefix(BRIDGE).and_then(|slot| slot.parse().ok());
            match slot {
                Some(slot) => left.bridges.push((slot, file)),
                None if name == TABLE => tables.push(file),
                None => passed.push(Passed { name, file }),
            }
        }
        left.is_table_kept = !tables.is_empty();
        left.table = tables.pop().filter(|_| tables.is_empty());
        left
    }
}

/// What this process has systemd keep, and a thread that tells systemd.
pub(super) struct BridgeStore {
    table: Table,
    /// The ID of this process.
    own: u32,
    /// How many slots it may have. What comes from an old program is not counted.
    most: usize,
    used: AtomicUsize,
    /// Which slots are this process's. One that has gone to another program is not.
    held: Box<[AtomicBool]>,
    /// Where the search for a free one begins.
    next: AtomicUsize,
    /// Other programs may have slots, and may end.
    has_others: AtomicBool,
    /// Workers that have heard that the new program has ended.
    gone_on: AtomicUsize,
    orders: Arc<Orders>,
}

/// What systemd is to be told.
#[derive(Default)]
struct Orders {
    pending: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Default)]
struct Pending {
    /// Each slot once.
    slots: VecDeque<usize>,
    orders: HashMap<usize, Order>,
    /// Something is being told.
    is_telling: bool,
}

/// What systemd is to do with a slot, in this order. There is one order for a slot at most, however
/// slow systemd is.
#[derive(Default)]
struct Order {
    forget: bool,
    /// A copy of the socket.
    store: Option<OwnedFd>,
}

/// A bridge's place in the store. Dropped, it has systemd forget the bridge.
pub(super) struct Kept {
    store: Arc<BridgeStore>,
    slot: usize,
}

/// Whether systemd keeps a bridge.
#[derive(Default)]
pub(super) enum Keeping {
    /// It may from when the bridge parks.
    #[default]
    NotYet,
    /// What is known of the bridge does not fit into the table, or it is one that the proxy dials.
    Never,
    Kept(Kept),
}

impl Keeping {
    /// Something is about to be sent to the bridge. True if it was idle.
    pub(super) fn set_busy(&self) -> bool {
        match self {
            Keeping::Kept(Kept { store, slot }) => store.table.set_busy(*slot, store.own),
            Keeping::NotYet | Keeping::Never => false,
        }
    }

    /// Everything has been sent, and the bridge is as it was.
    pub(super) fn set_idle_again(&self) {
        if let Keeping::Kept(Kept { store, slot }) = self {
            store.table.set_idle_again(*slot, store.own);
        }
    }

    /// Its slot, for another program.
    pub(super) fn slot(&self) -> Option<u32> {
        match self {
            Keeping::Kept(kept) => u32::try_from(kept.slot).ok(),
            Keeping::NotYet | Keeping::Never => None,
        }
    }

    /// The bridge is another program's from now on, and its slot, too. True if it has one.
    pub(super) fn give_away(&mut self) -> bool {
        match std::mem::replace(self, Keeping::Never) {
            Keeping::Kept(mut kept) => {
                kept.give_away();
                true
            }
            Keeping::NotYet | Keeping::Never => false,
        }
    }
}

impl Kept {
    /// Whether the table says so.
    pub(super) fn is_idle(&self) -> bool {
        self.store.table.is_idle(self.slot)
    }

    /// Everything has been sent to the bridge, and nothing is to come of it.
    pub(super) fn set_idle(&self, bridge: IdleBridge) {
        self.store.table.set_idle(self.slot, self.store.own, bridge);
    }

    /// Has systemd keep the bridge's socket.
    pub(super) fn store(&self, socket: OwnedFd) {
        self.store.orders.store(self.slot, socket);
    }

    fn give_away(&mut self) {
        // Nothing is left for drop to do.
        self.store.held[self.slot].store(false, Ordering::SeqCst);
        self.store.used.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let (store, slot) = (&self.store, self.slot);
        if !store.held[slot].load(Ordering::SeqCst) {
            return;
        }
        store.end(slot, store.own);
        store.held[slot].store(false, Ordering::SeqCst);
        store.used.fetch_sub(1, Ordering::SeqCst);
    }
}

impl BridgeStore {
    /// A store for as many bridges as fit into `places`, if there are any. The table is that of the
    /// program that this one replaces, or of the process before it; `zero` is that of this process's
    /// clock. Also returns the bridges with which this process is to go on, the oldest first, and what
    /// `read` makes of them; all others are ended.
    pub(super) fn start<T>(
        places: usize,
        (inherited, left): (Option<OwnedFd>, Left),
        (format, zero): (u64, Duration),
        read: impl Fn(&Found) -> Option<T>,
    ) -> (Option<Arc<BridgeStore>>, Vec<(OwnedFd, T)>) {
        let replaces = inherited.is_some();
        let open = |file: OwnedFd| match Table::open(file, format) {
            Ok(table) => Some(table),
            Err(error) => {
                log::warn!("the table of the bridges that systemd keeps cannot be used: {error}");
                None
            }
        };
        let table = inherited.or(left.table).and_then(open);
        let own = std::process::id();
        let mut others = Others::new(own);
        let usable = table.as_ref().filter(|_| places > 0);
        let (taken, slots) = sort(usable, left.bridges, &mut others, read);
        if places == 0 && !replaces {
            if left.is_table_kept {
                notify::forget(TABLE);
            }
            return (None, taken);
        }
        let is_new = table.is_none();
        let table = match table.map_or_else(|| Table::new(format, zero), Ok) {
            Ok(table) => table,
            Err(error) => {
                log::error!("systemd does not keep bridges: {error}");
                return (None, taken);
            }
        };
        // An old program's may still come from it.
        let ended = (0..SLOTS).filter(|slot| !replaces && !slots.contains(slot));
        for (slot, owner) in ended.filter_map(|slot| Some((slot, table.owner(slot)?))) {
            if !others.has(owner) {
                table.free(slot, owner, own);
            }
        }
        let first = is_new.then(|| table.file().as_fd().try_clone_to_owned().ok()).flatten();
        let store = BridgeStore {
            table,
            own,
            most: places.saturating_sub(1),
            used: AtomicUsize::new(0),
            held: (0..SLOTS).map(|_| AtomicBool::new(false)).collect(),
            next: AtomicUsize::new(0),
            has_others: AtomicBool::new(true),
            gone_on: AtomicUsize::new(0),
            orders: Arc::new(Orders::default()),
        };
        let orders = Arc::clone(&store.orders);
        let tell = move || orders.carry_out(first);
        if let Err(error) = thread::Builder::new().name("store".to_owned()).spawn(tell) {
            log::error!("systemd is not told of bridges: {error}");
        }
        (Some(Arc::new(store)), taken)
    }

    /// The table's file, for a program that replaces this one.
    pub(super) fn table(&self) -> &impl AsFd {
        self.table.file()
    }

    /// A place for a bridge that is busy, with the cookie of its socket and what is known of it.
    /// `None` if there is none.
    pub(super) fn claim(self: &Arc<Self>, cookie: u64, text: &[u8]) -> Option<Kept> {
        if self.used.fetch_add(1, Ordering::SeqCst) >= self.most {
            self.used.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        // One that has just been freed comes last.
        let from = self.next.fetch_add(1, Ordering::Relaxed);
        let found = (from..from + SLOTS).map(|at| at % SLOTS).find(|slot| self.hold_free(*slot));
        let Some(slot) = found else {
            self.used.fetch_sub(1, Ordering::SeqCst);
            return None;
        };
        self.next.store(slot + 1, Ordering::Relaxed);
        self.table.describe(slot, cookie, text);
        Some(Kept { store: Arc::clone(self), slot })
    }

    fn hold_free(&self, slot: usize) -> bool {
        if self.held[slot].swap(true, Ordering::SeqCst) {
            return false;
        }
        let is_free = self.table.claim(slot, self.own);
        if !is_free {
            self.held[slot].store(false, Ordering::SeqCst);
        }
        is_free
    }

    /// Whether a bridge may get a place. One that may not is asked about again when it parks next.
    pub(super) fn has_room(&self) -> bool {
        self.used.load(Ordering::Relaxed) < self.most
            && self.orders.lock().slots.len() < MOST_WAITING
    }

    /// Takes over the slot of a bridge that comes from another program, or that the process before
    /// this one has left. It is busy from now on. `None` if the slot is not this bridge's any more.
    pub(super) fn adopt(self: &Arc<Self>, slot: u32, cookie: u64) -> Option<Kept> {
        let slot = usize::try_from(slot).ok().filter(|slot| *slot < SLOTS)?;
        if self.held[slot].swap(true, Ordering::SeqCst) {
            return None;
        }
        if !self.table.adopt(slot, cookie, self.own) {
            self.held[slot].store(false, Ordering::SeqCst);
            return None;
        }
        self.used.fetch_add(1, Ordering::SeqCst);
        Some(Kept { store: Arc::clone(self), slot })
    }

    /// Has systemd close the bridges of programs that have ended: it may have their last copies.
    /// Called from time to time.
    pub(super) fn look_after_others(&self) {
        // Set again below, and by a program that replaces this one meanwhile.
        if !self.has_others.swap(false, Ordering::SeqCst) {
            return;
        }
        let mut others = Others::new(self.own);
        let mut has_others = false;
        for slot in 0..SLOTS {
            let Some(owner) = self.table.owner(slot).filter(|owner| *owner != self.own) else {
                continue;
            };
            if others.has(owner) {
                has_others = true;
            } else {
                self.end_unheld(slot, owner);
            }
        }
        if has_others {
            self.has_others.store(true, Ordering::SeqCst);
        }
    }

    /// Ends the place of a bridge in the store. This order, and only if it is that owner's: what the
    /// next one of the slot has systemd do comes after it.
    fn end(&self, slot: usize, owner: u32) {
        if self.table.owner(slot) == Some(owner) {
            self.orders.forget(slot);
            self.table.free(slot, owner, self.own);
        }
    }

    /// The same, if no bridge of this process has it.
    fn end_unheld(&self, slot: usize, owner: u32) {
        // So that nobody claims it meanwhile.
        if !self.held[slot].swap(true, Ordering::SeqCst) {
            self.end(slot, owner);
            self.held[slot].store(false, Ordering::SeqCst);
        }
    }

    /// A program that replaces this one has, or may get, slots.
    pub(super) fn is_replaced(&self) {
        self.gone_on.store(0, Ordering::SeqCst);
        self.has_others.store(true, Ordering::SeqCst);
    }

    /// That program has ended, and one of so many workers goes on. With the last of them nothing is
    /// on the way any more: what has gone over is lost.
    pub(super) fn goes_on(&self, workers: usize) {
        if self.gone_on.fetch_add(1, Ordering::SeqCst) + 1 < workers {
            return;
        }
        // Those that the other one has not taken before its end.
        (0..SLOTS).for_each(|slot| self.end_unheld(slot, self.own));
        // The new program may have got slots since somebody looked last.
        self.has_others.store(true, Ordering::SeqCst);
        self.look_after_others();
    }

    /// The process ends: waits until systemd has been told everything, but no longer than this. If
    /// no other program goes on, and nothing is kept any more, the table is not needed either.
    pub(super) fn finish(&self, at_most: Duration, is_last: bool) {
        if !self.orders.wait(at_most) {
            // It would not take the last order either; the next process drops an empty table.
            log::warn!("systemd has not taken everything in {at_most:?}");
            return;
        }
        if is_last && (0..SLOTS).all(|slot| self.table.owner(slot).is_none()) {
            notify::forget(TABLE);
        }
    }
}

/// Ends the bridges that may not be used, and has systemd forget them. Returns the others, the oldest
/// first, and their slots. What another process still uses is left to it.
fn sort<T>(
    table: Option<&Table>,
    left: Vec<(usize, OwnedFd)>,
    others: &mut Others,
    read: impl Fn(&Found) -> Option<T>,
) -> (Vec<(OwnedFd, T)>, Vec<usize>) {
    let (mut taken, mut ended) = (Vec::new(), Vec::new());
    for (slot, socket) in left {
        let table = table.filter(|_| slot < SLOTS);
        if table.and_then(|table| table.owner(slot)).is_some_and(|owner| others.has(owner)) {
            continue;
        }
        let cookie = sys::cookie(&socket).ok();
        let found = table.zip(cookie).and_then(|(table, cookie)| table.find(slot, cookie));
        match found.and_then(|found| Some((read(&found)?, found.bridge.parked_at))) {
            Some((what, parked_at)) => taken.push((parked_at, slot, (socket, what))),
            None => {
                sys::end_for_all(&socket);
                ended.push(slot);
            }
        }
    }
    taken.sort_by_key(|(parked_at, slot, _)| (*parked_at, *slot));
    let slots: Vec<usize> = taken.iter().map(|(_, slot, _)| *slot).collect();
    // Two may have been kept under one name, when the first had ended.
    ended.iter().filter(|slot| !slots.contains(slot)).for_each(|slot| notify::forget(&name(*slot)));
    if !(taken.is_empty() && ended.is_empty()) {
        let (idle, busy) = (taken.len(), ended.len());
        log::info!("systemd has kept {idle} idle bridges, and {busy} that are closed");
    }
    (taken.into_iter().map(|(_, _, taken)| taken).collect(), slots)
}

fn name(slot: usize) -> String {
    format!("{BRIDGE}{slot}")
}

/// Which processes other than this one live.
struct Others {
    own: u32,
    known: HashMap<u32, bool>,
}

impl Others {
    fn new(own: u32) -> Others {
        Others { own, known: HashMap::new() }
    }

    fn has(&mut self, process: u32) -> bool {
        process != self.own
            && *self.known.entry(process).or_insert_with(|| processes::is_alive(process))
    }
}

impl Orders {
    /// Has systemd close what it keeps for this slot.
    fn forget(&self, slot: usize) {
        self.add(slot, |order| *order = Order { forget: true, store: None });
    }

    /// Has it keep a socket for this slot.
    fn store(&self, slot: usize, socket: OwnedFd) {
        self.add(slot, |order| order.store = Some(socket));
    }

    fn add(&self, slot: usize, change: impl FnOnce(&mut Order)) {
        let mut pending = self.lock();
        let is_new = !pending.orders.contains_key(&slot);
        change(pending.orders.entry(slot).or_default());
        if is_new {
            pending.slots.push_back(slot);
            self.changed.notify_all();
        }
    }

    /// A thread's work. A new table is stored before the first bridge: by then this process serves.
    fn carry_out(&self, mut table: Option<OwnedFd>) {
        let mut is_refused = false;
        loop {
            let (slot, order) = self.next();
            if order.forget {
                notify::forget(&name(slot));
            }
            let Some(socket) = order.store else { continue };
            if let Some(table) = table.take() {
                // One that could not be read may be there.
                notify::forget(TABLE);
                notify::store(TABLE, &[table.as_fd()]);
            }
            let stored = notify::store_connection(&name(slot), socket.as_fd());
            if let Err(error) = &stored
                && !is_refused
            {
                log::warn!("systemd does not keep a bridge: {error}");
            }
            is_refused = stored.is_err();
        }
    }

    /// What is to be told next.
    fn next(&self) -> (usize, Order) {
        let mut pending = self.lock();
        pending.is_telling = false;
        loop {
            if let Some(slot) = pending.slots.pop_front() {
                pending.is_telling = true;
                return (slot, pending.orders.remove(&slot).unwrap_or_default());
            }
            self.changed.notify_all();
            pending = self.changed.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until everything has been told. False if that takes longer than this.
    fn wait(&self, at_most: Duration) -> bool {
        let until = Instant::now() + at_most;
        let mut pending = self.lock();
        while pending.is_telling || !pending.slots.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(pending, left);
            pending = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        // Each change leaves it whole.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const FORMAT: u64 = 3;

    fn start(places: usize) -> Arc<BridgeStore> {
        let clock = (FORMAT, Duration::ZERO);
        let (store, taken) =
            BridgeStore::start(places, (None, Left::default()), clock, |_| Some(()));
        assert!(taken.is_empty());
        store.unwrap()
    }

    /// A process that has found `table` and `bridges` with systemd.
    fn restart(tables: Vec<OwnedFd>, bridges: Vec<(usize, OwnedFd)>) -> (Arc<BridgeStore>, usize) {
        let tables = tables.into_iter().map(|file| Passed { name: TABLE.to_owned(), file });
        let bridges = bridges.into_iter().map(|(slot, file)| Passed { name: name(slot), file });
        let left = Left::take(&mut tables.chain(bridges).collect());
        let clock = (FORMAT, Duration::ZERO);
        let (store, taken) = BridgeStore::start(9, (None, left), clock, |_| Some(()));
        (store.unwrap(), taken.len())
    }

    fn copy(file: &impl AsFd) -> OwnedFd {
        file.as_fd().try_clone_to_owned().unwrap()
    }

    const BRIDGE: IdleBridge =
        IdleBridge { is_fresh: true, until: None, parked_at: 0, served: 0, carried_body: false };

    /// Its owner may be an old program that systemd has not ended.
    #[test]
    fn what_another_process_uses_is_left_to_it() {
        let store = start(9);
        // No process has the first number, and process 1 is there.
        let sockets: Vec<OwnedFd> = [(3, u32::MAX), (4, 1)]
            .map(|(slot, owner)| {
                let socket = socket();
                assert!(store.table.claim(slot, owner));
                store.table.describe(slot, sys::cookie(&socket).unwrap(), b"x");
                store.table.set_idle(slot, owner, BRIDGE);
                socket
            })
            .into();
        let bridges = [3, 4].into_iter().zip(sockets.iter().map(copy)).collect();
        let (again, taken) = restart(vec![copy(store.table())], bridges);
        assert_eq!(taken, 1);
        assert_eq!([3, 4].map(|slot| again.table.owner(slot)), [Some(u32::MAX), Some(1)]);
        assert!(again.table.is_idle(4));
    }

    #[test]
    fn of_two_tables_neither_is_used() {
        let store = start(9);
        assert!(store.table.claim(5, 1));
        let two = vec![copy(store.table()), copy(store.table())];
        let (one, _) = restart(vec![copy(store.table())], Vec::new());
        let (other, _) = restart(two, Vec::new());
        assert_eq!(one.table.owner(5), Some(1));
        assert_eq!(other.table.owner(5), None, "it is another table");
    }

    #[test]
    fn a_slot_of_somebody_else_s_is_left_alone() {
        let store = start(9);
        let kept = store.claim(7, b"x").unwrap();
        let slot = kept.slot;
        kept.set_idle(BRIDGE);
        assert!(store.table.free(slot, store.own, 1) && store.table.claim(slot, 1));
        kept.set_idle(BRIDGE);
        assert!(!kept.is_idle());
        drop(kept);
        assert_eq!(store.table.owner(slot), Some(1));
        assert!(store.orders.wait(Duration::ZERO), "nothing is forgotten");
    }

    fn socket() -> OwnedFd {
        TcpListener::bind("127.0.0.1:0").unwrap().into()
    }

    #[test]
    fn listeners_come_first() {
        for (size, listeners, is) in [
            (0, 0, 0),
            (512, 3, 0),
            (513, 3, 0),
            (514, 3, 2),
            (4609, 3, 4097),
            (100_000, 3, 4097),
            (4609, 1000, 3609),
            (1000, 1000, 0),
        ] {
            assert_eq!(places(size, listeners), is, "{size}, {listeners}");
        }
    }

    #[test]
    fn there_are_as_many_bridges_as_places() {
        let store = start(3);
        let first = store.claim(1, b"x").unwrap();
        let second = store.claim(2, b"y").unwrap();
        assert!(store.claim(3, b"z").is_none() && !store.has_room());
        let slot = first.slot;
        drop(first);
        assert!(store.has_room() && store.table.owner(slot).is_none());
        let third = store.claim(3, b"z").unwrap();
        assert!(third.slot != slot && third.slot != second.slot, "one just freed comes last");
    }

    #[test]
    fn what_goes_over_is_not_forgotten() {
        let store = start(3);
        let kept = store.claim(1, b"x").unwrap();
        let (at, slot) = (kept.slot, u32::try_from(kept.slot).unwrap());
        assert!(store.adopt(slot, 1).is_none(), "it is here");
        let mut keeping = Keeping::Kept(kept);
        assert!(keeping.give_away() && !keeping.give_away());
        assert!(store.table.owner(at).is_some());
        assert!(store.adopt(slot, 2).is_none(), "it is another socket's");
        let again = store.adopt(slot, 1).unwrap();
        assert!(store.adopt(slot, 1).is_none());
        drop(again);
        assert!(store.table.owner(at).is_none());
    }

    /// Nobody else would tell systemd.
    #[test]
    fn slots_of_programs_that_have_ended_are_freed() {
        let store = start(9);
        let (lost, here) = (store.claim(1, b"x").unwrap(), store.claim(2, b"y").unwrap());
        let lost_slot = lost.slot;
        assert!(Keeping::Kept(lost).give_away());
        // No process has this number, and process 1 is there.
        assert!(store.table.claim(77, u32::MAX) && store.table.claim(78, 1));
        store.is_replaced();
        store.look_after_others();
        let slots = [lost_slot, here.slot, 77, 78];
        let owned = || slots.map(|slot| store.table.owner(slot).is_some());
        assert_eq!(owned(), [true, true, false, true]);
        store.goes_on(2);
        assert_eq!(owned(), [true, true, false, true], "another worker may still have it");
        store.goes_on(2);
        assert_eq!(owned(), [false, true, false, true]);
    }

    #[test]
    fn however_slow_systemd_is_there_is_one_order_for_a_slot() {
        let orders = Orders::default();
        orders.store(3, socket());
        orders.forget(3);
        orders.store(4, socket());
        orders.store(3, socket());
        let (slot, order) = orders.next();
        assert_eq!((slot, order.forget, order.store.is_some()), (3, true, true));
        let (slot, order) = orders.next();
        assert_eq!((slot, order.forget, order.store.is_some()), (4, false, true));
        assert!(!orders.wait(Duration::ZERO), "the last one is still being told");
        assert!(orders.lock().slots.is_empty());
    }
}
