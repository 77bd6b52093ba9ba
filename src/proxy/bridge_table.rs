//! What is known of the bridges that systemd keeps (`bridge_store.rs`): a table in memory that
//! outlives the process, because systemd keeps its file, too.
//!
//! Each bridge has a slot. It says whether the bridge is *idle*: every byte that was ever to be sent
//! to it has been sent, and nothing is to come of it but the answer to what is sent next. Only an
//! idle one may be used by the next process. Who uses a bridge says *busy* before the first byte,
//! and *idle* after everything else of the slot has been written. A process may be killed between
//! any two instructions: what it has stored in the table by then stays, in the order in which it was
//! stored.
//!
//! The slot also has the cookie of the socket (SO_COOKIE), which no other socket ever has. A socket
//! that systemd passes is one that the slot is about only if it has that cookie.
//!
//! In an upgrade two programs have the table. A slot is its owner's.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::net::sys;

/// How many bridges can be kept. systemd passes their names in one variable, which may have 128 KiB,
/// and compares each new descriptor with all that it has.
pub(super) const SLOTS: usize = 4096;

/// Words of a slot, and of what is before the first: 1 KiB.
const WORDS: usize = 128;

/// Tells the table from other files, with the version of its layout.
const KIND: u64 = 0xc10d_b41d_6e00_0001;

/// Words before the slots.
const HEAD_KIND: usize = 0;
/// The format of the texts, which the owner knows.
const HEAD_FORMAT: usize = 1;
/// The zero of the clock that the times are of, in microseconds since the machine started.
const HEAD_ZERO: usize = 2;

/// Words of a slot: its state, and its owner's process ID above it.
const STATE: usize = 0;
const COOKIE: usize = 1;
/// Bytes of the text.
const LENGTH: usize = 2;
const PARKED_AT: usize = 3;
/// [`u64::MAX`] for never.
const UNTIL: usize = 4;
/// How many requests it has served, and the flags above.
const SERVED: usize = 5;
const TEXT: usize = 8;

const IS_FRESH: u64 = 1 << 32;
const CARRIED_BODY: u64 = 1 << 33;

/// Longest text of a slot, in bytes.
pub(super) const LONGEST: usize = (WORDS - TEXT) * size_of::<u64>();

const FREE: u64 = 0;
const BUSY: u64 = 1;
const IDLE: u64 = 2;

/// The table. It is unmapped with the process.
pub(super) struct Table {
    words: &'static [AtomicU64],
    file: OwnedFd,
}

/// What changes of a bridge from one request to the next. Times are in microseconds of the clock
/// whose zero the table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IdleBridge {
    /// It has served no request, and so must be sent a 101 first.
    pub(super) is_fresh: bool,
    /// When its keep-alive timeout is about to end, if it has one.
    pub(super) until: Option<u64>,
    pub(super) parked_at: u64,
    pub(super) served: u32,
    pub(super) carried_body: bool,
}

/// An idle bridge that another process has left.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) slot: usize,
    pub(super) bridge: IdleBridge,
    /// As [`Table::describe`] was given it.
    pub(super) text: Vec<u8>,
}

impl Table {
    /// A new one, for texts of this format and times of a clock whose zero this is.
    ///
    /// # Errors
    /// As memfd_create(2) and mmap(2).
    pub(super) fn new(format: u64, zero: Duration) -> io::Result<Table> {
        let bytes = (1 + SLOTS) * WORDS * size_of::<u64>();
        let table = Table::map(sys::memory_file(c"cloudbridge-bridges", bytes as u64)?)?;
        let zero = u64::try_from(zero.as_micros()).unwrap_or(u64::MAX);
        for (at, value) in [(HEAD_ZERO, zero), (HEAD_FORMAT, format), (HEAD_KIND, KIND)] {
            table.words[at].store(value, Ordering::Release);
        }
        Ok(table)
    }

    /// One that another process has made.
    ///
    /// # Errors
    /// As mmap(2); `InvalidData` for one of another version, or with texts of another format.
    pub(super) fn open(file: OwnedFd, format: u64) -> io::Result<Table> {
        let table = Table::map(file)?;
        let head = |at: usize| table.words[at].load(Ordering::Acquire);
        match (head(HEAD_KIND), head(HEAD_FORMAT)) == (KIND, format) {
            true => Ok(table),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn map(file: OwnedFd) -> io::Result<Table> {
        Ok(Table { words: sys::shared_words(&file, (1 + SLOTS) * WORDS)?, file })
    }

    /// The file, for systemd and for another program.
    pub(super) fn file(&self) -> &impl AsFd {
        &self.file
    }

    /// The zero of the clock that the times are of, as the time since the machine started.
    pub(super) fn zero(&self) -> Duration {
        Duration::from_micros(self.words[HEAD_ZERO].load(Ordering::Relaxed))
    }

    fn word(&self, slot: usize, at: usize) -> &AtomicU64 {
        &self.words[(1 + slot) * WORDS + at]
    }

    fn state(&self, slot: usize) -> (u64, u32) {
        let word = self.word(slot, STATE).load(Ordering::Acquire);
        (word & u64::from(u32::MAX), (word >> 32) as u32)
    }

    fn change(&self, slot: usize, from: (u64, u32), to: (u64, u32)) -> bool {
        let (from, to) = (word_of(from), word_of(to));
        let (done, failed) = (Ordering::SeqCst, Ordering::SeqCst);
        self.word(slot, STATE).compare_exchange(from, to, done, failed).is_ok()
    }

    /// Sets the state of a slot that is this process's. `None` if it is not, and otherwise what the
    /// state was.
    fn set(&self, slot: usize, state: u64, own: u32) -> Option<u64> {
        let (before, owner) = self.state(slot);
        let is_own = before != FREE && owner == own;
        (is_own && self.change(slot, (before, own), (state, own))).then_some(before)
    }

    /// Takes a free slot, for a busy bridge. False if it is not free.
    pub(super) fn claim(&self, slot: usize, owner: u32) -> bool {
        let (state, old) = self.state(slot);
        state == FREE && self.change(slot, (state, old), (BUSY, owner))
    }

    /// Takes the slot of a bridge with this cookie over from another process, or from the one before.
    /// It is busy from now on. False if the slot is not that bridge's.
    pub(super) fn adopt(&self, slot: usize, cookie: u64, owner: u32) -> bool {
        let (state, old) = self.state(slot);
        let is_it = self.word(slot, COOKIE).load(Ordering::Relaxed) == cookie;
        state != FREE && is_it && self.change(slot, (state, old), (BUSY, owner))
    }

    /// Frees a slot that is this owner's: `own` is this process, which the slot is until it is free.
    /// What it said is wiped out: a registration may have keys. False if it is not that owner's.
    pub(super) fn free(&self, slot: usize, owner: u32, own: u32) -> bool {
        let (state, now) = self.state(slot);
        if state == FREE || now != owner || !self.change(slot, (state, owner), (BUSY, own)) {
            return false;
        }
        (COOKIE..WORDS).for_each(|at| self.word(slot, at).store(0, Ordering::Relaxed));
        self.change(slot, (BUSY, own), (FREE, own))
    }

    /// Whose slot it is, if it is not free.
    pub(super) fn owner(&self, slot: usize) -> Option<u32> {
        let (state, owner) = self.state(slot);
        (state != FREE).then_some(owner)
    }

    /// Writes down what does not change of a bridge, which is busy.
    pub(super) fn describe(&self, slot: usize, cookie: u64, text: &[u8]) {
        debug_assert!(text.len() <= LONGEST);
        self.word(slot, COOKIE).store(cookie, Ordering::Relaxed);
        self.word(slot, LENGTH).store(text.len() as u64, Ordering::Relaxed);
        for (at, part) in text.chunks(size_of::<u64>()).enumerate() {
            let mut bytes = [0; size_of::<u64>()];
            bytes[..part.len()].copy_from_slice(part);
            self.word(slot, TEXT + at).store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
    }

    /// From now on another process may not use the bridge. True if it was idle, and its slot this
    /// process's.
    pub(super) fn set_busy(&self, slot: usize, own: u32) -> bool {
        self.set(slot, BUSY, own) == Some(IDLE)
    }

    pub(super) fn is_idle(&self, slot: usize) -> bool {
        self.state(slot).0 == IDLE
    }

    /// From now on another process may use the bridge, if its slot is this process's.
    pub(super) fn set_idle(&self, slot: usize, own: u32, bridge: IdleBridge) {
        if self.owner(slot) != Some(own) {
            return;
        }
        let IdleBridge { is_fresh, until, parked_at, served, carried_body } = bridge;
        let flag = |is: bool, flag: u64| if is { flag } else { 0 };
        let served =
            u64::from(served) | flag(is_fresh, IS_FRESH) | flag(carried_body, CARRIED_BODY);
        self.word(slot, PARKED_AT).store(parked_at, Ordering::Relaxed);
        self.word(slot, UNTIL).store(until.unwrap_or(u64::MAX), Ordering::Relaxed);
        self.word(slot, SERVED).store(served, Ordering::Relaxed);
        self.set(slot, IDLE, own);
    }

    /// The same, when nothing else has changed.
    pub(super) fn set_idle_again(&self, slot: usize, own: u32) {
        self.set(slot, IDLE, own);
    }

    /// The idle bridge of a process that has ended, if the slot is about the socket with this
    /// cookie.
    pub(super) fn find(&self, slot: usize, cookie: u64) -> Option<Found> {
        if slot >= SLOTS || !self.is_idle(slot) {
            return None;
        }
        let word = |at: usize| self.word(slot, at).load(Ordering::Relaxed);
        let length = usize::try_from(word(LENGTH)).ok().filter(|length| *length <= LONGEST)?;
        if word(COOKIE) != cookie {
            return None;
        }
        let words = length.div_ceil(size_of::<u64>());
        let mut text: Vec<u8> = (0..words).flat_map(|at| word(TEXT + at).to_le_bytes()).collect();
        text.truncate(length);
        let (until, served) = (word(UNTIL), word(SERVED));
        let bridge = IdleBridge {
            is_fresh: served & IS_FRESH != 0,
            until: (until != u64::MAX).then_some(until),
            parked_at: word(PARKED_AT),
            served: served as u32,
            carried_body: served & CARRIED_BODY != 0,
        };
        Some(Found { slot, bridge, text })
    }
}

fn word_of((state, owner): (u64, u32)) -> u64 {
    state | u64::from(owner) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: u64 = 3;

    const BRIDGE: IdleBridge = IdleBridge {
        is_fresh: false,
        until: Some(7),
        parked_at: 1 << 60,
        served: u32::MAX,
        carried_body: true,
    };

    fn table() -> Table {
        Table::new(FORMAT, Duration::from_micros(5)).unwrap()
    }

    /// As the next process has it.
    fn again(table: &Table) -> Table {
        Table::open(table.file().as_fd().try_clone_to_owned().unwrap(), FORMAT).unwrap()
    }

    #[test]
    fn the_next_process_finds_what_is_idle_and_nothing_else() {
        let table = table();
        let longest = vec![b'x'; LONGEST];
        for (slot, text) in [(3, &longest[..]), (4, b"seven b"), (SLOTS - 1, b"")] {
            assert!(table.claim(slot, 1) && !table.claim(slot, 1));
            table.describe(slot, 99, text);
            assert_eq!(again(&table).find(slot, 99), None, "it is busy");
            table.set_idle(slot, 1, BRIDGE);
            let found = Found { slot, bridge: BRIDGE, text: text.to_vec() };
            assert_eq!(again(&table).find(slot, 99), Some(found));
            assert_eq!(again(&table).find(slot, 98), None, "it is another socket");
            assert!(table.set_busy(slot, 1) && !table.set_busy(slot, 1));
            assert_eq!(again(&table).find(slot, 99), None);
            table.set_idle_again(slot, 1);
            assert!(again(&table).find(slot, 99).is_some());
            assert!(table.free(slot, 1, 1));
            assert_eq!(again(&table).find(slot, 99), None);
            let words = (COOKIE..WORDS).map(|at| table.word(slot, at).load(Ordering::Relaxed));
            assert!(words.sum::<u64>() == 0, "a registration may have keys");
        }
        assert_eq!(table.find(SLOTS, 99), None);
        assert_eq!(again(&table).zero(), Duration::from_micros(5));
    }

    #[test]
    fn what_is_not_known_of_a_bridge_is_read_as_it_was_written() {
        let table = table();
        let bridge = IdleBridge {
            is_fresh: true,
            until: None,
            parked_at: 0,
            served: 0,
            carried_body: false,
        };
        assert!(table.claim(0, 1));
        table.describe(0, 1, b"x");
        table.set_idle(0, 1, bridge);
        assert_eq!(table.find(0, 1).unwrap().bridge, bridge);
    }

    #[test]
    fn a_slot_has_one_owner() {
        let table = table();
        assert!(table.claim(3, 1));
        table.describe(3, 99, b"x");
        table.set_idle(3, 1, BRIDGE);
        assert!(!table.adopt(3, 98, 2), "it is another socket's");
        assert!(table.adopt(3, 99, 2));
        assert_eq!((table.owner(3), table.is_idle(3)), (Some(2), false));
        // It is not the first one's any more.
        table.set_idle(3, 1, BRIDGE);
        table.set_idle_again(3, 1);
        assert!(!table.is_idle(3));
        table.set_idle(3, 2, BRIDGE);
        assert!(!table.set_busy(3, 1) && table.is_idle(3));
        assert!(!table.free(3, 1, 1) && table.free(3, 2, 2) && !table.free(3, 2, 2));
        assert_eq!(table.owner(3), None);
        assert!(!table.adopt(3, 99, 2), "it is free");
    }

    #[test]
    fn a_table_of_another_version_is_not_read() {
        let table = table();
        table.words[HEAD_FORMAT].store(FORMAT + 1, Ordering::Relaxed);
        let file = table.file().as_fd().try_clone_to_owned().unwrap();
        assert_eq!(Table::open(file, FORMAT).err().unwrap().kind(), io::ErrorKind::InvalidData);
        let small = sys::memory_file(c"test", 4096).unwrap();
        assert_eq!(Table::open(small, FORMAT).err().unwrap().kind(), io::ErrorKind::InvalidInput);
    }
}
