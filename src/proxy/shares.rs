//! How the connections of the process are shared out, so that no kind of peer can take all of them.
//!
//! ```text
//!   0                       half           three quarters                      limit
//!   ├── bridges ───────────────┤                                                   │
//!   ├── clients ──────────────────────────────────┤                                │
//!                                                        reserve: newcomers ├──────┤
//! ```
//!
//! Whether a connection is a client's or a bridge shows only when its first head is there, so the
//! last few are a reserve for newcomers (`reserve.rs`): one that registers, or deregisters, gets in
//! however many clients there are.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One connection in this many is reserved for newcomers.
const RESERVE_SHARE: usize = 16;

/// Most connections of the reserve: a newcomer stays there for a moment only.
const RESERVE_MAX: usize = 64;

/// If there are servers, one connection in this many is reserved for them. Server connections are
/// reused, so far fewer are needed than for clients.
const SERVER_SHARE: usize = 8;

/// How many connections of each kind there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shares {
    /// All that are accepted, clients and bridges together. The rest is for servers.
    pub(super) accepted: usize,
    /// All but the reserve.
    pub(super) open: usize,
    /// Those that are no bridges.
    pub(super) clients: usize,
    pub(super) bridges: usize,
    /// Bridges of one host pattern or host key, unless the settings say otherwise.
    pub(super) bridges_of_one: usize,
}

impl Shares {
    /// Of `limit` connections.
    pub(super) fn of(limit: usize, has_servers: bool) -> Shares {
        let servers = if has_servers { (limit / SERVER_SHARE).max(1) } else { 0 };
        let accepted = limit.saturating_sub(servers).max(1);
        let open = accepted - (accepted / RESERVE_SHARE).min(RESERVE_MAX);
        let bridges = (limit / 2).max(1);
        Shares {
            accepted,
            open,
            clients: open - (open / 4),
            bridges,
            bridges_of_one: (bridges / 2).max(1),
        }
    }
}

/// How many connections there are of a kind.
#[derive(Clone, Default)]
pub(super) struct Count(Arc<AtomicUsize>);

/// One connection in a [`Count`], until it is dropped.
pub(super) struct Counted(Arc<AtomicUsize>);

impl Count {
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// One more, if there are fewer than `most`.
    pub(super) fn enter(&self, most: usize) -> Option<Counted> {
        let more = |count: usize| (count < most).then(|| count + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Counted(Arc::clone(&self.0)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tables of [`AddressCount`]: workers that accept at the same time rarely meet at one lock.
const TABLES: usize = 16;

type Table = Mutex<HashMap<IpAddr, usize>>;

/// How many connections each client address has, if that is bounded.
#[derive(Default)]
pub(super) struct AddressCount {
    hashes: RandomState,
    tables: Arc<[Table; TABLES]>,
}

/// One connection in [`AddressCount`], until it is dropped.
pub(super) struct AddressPermit {
    tables: Arc<[Table; TABLES]>,
    at: usize,
    address: IpAddr,
}

impl AddressCount {
    /// One more connection from `peer`, if it has fewer than `most`. An IPv6 address counts with its
    /// whole /64, which is what one customer has (RFC 6177).
    pub(super) fn permit(&self, peer: IpAddr, most: usize) -> Option<Box<AddressPermit>> {
        let address = network(peer);
        let at = self.hashes.hash_one(address) as usize % TABLES;
        let mut table = lock(&self.tables[at]);
        let count = table.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        drop(table);
        Some(Box::new(AddressPermit { tables: Arc::clone(&self.tables), at, address }))
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut table = lock(&self.tables[self.at]);
        match table.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = table.remove(&self.address),
        }
    }
}

fn lock(table: &Table) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
    // Each change leaves the table whole.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What [`AddressCount`] counts together, as text.
pub(super) fn shown_network(peer: IpAddr) -> String {
    match network(peer) {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("{v6}/64"),
    }
}

/// What one customer has: an IPv4 address, or the /64 of an IPv6 address.
pub(super) fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_share_and_none_has_all() {
        let large = Shares::of(20_000, false);
        assert_eq!(
            large,
            Shares {
                accepted: 20_000,
                open: 19_936,
                clients: 14_952,
                bridges: 10_000,
                bridges_of_one: 5_000
            }
        );
        assert_eq!(Shares::of(20_000, true).accepted, 17_500);
        let smallest = Shares::of(2, false);
        assert_eq!(
            smallest,
            Shares { accepted: 2, open: 2, clients: 2, bridges: 1, bridges_of_one: 1 }
        );
        assert_eq!(Shares::of(2, true).accepted, 1);
    }

    #[test]
    fn connections_are_counted_until_they_are_dropped() {
        let count = Count::default();
        let both = [count.enter(2).unwrap(), count.enter(2).unwrap()];
        assert!(count.enter(2).is_none() && count.get() == 2);
        drop(both);
        assert!(count.enter(1).is_some());
        assert_eq!(count.get(), 0);
    }

    #[test]
    fn addresses_are_counted_apart_and_ipv6_by_its_network() {
        let count = AddressCount::default();
        let permit = |address: &str| count.permit(address.parse().unwrap(), 2);
        let both = [permit("192.0.2.1").unwrap(), permit("::ffff:192.0.2.1").unwrap()];
        assert!(permit("192.0.2.1").is_none());
        let others = [permit("192.0.2.2"), permit("2001:db8::1"), permit("2001:db8::2:1")];
        assert!(others.iter().all(Option::is_some) && permit("2001:db8::3").is_none());
        assert!(permit("2001:db8:0:1::3").is_some());
        drop(both);
        assert!(permit("192.0.2.1").is_some());
        drop(others);
        assert!(count.tables.iter().all(|table| lock(table).is_empty()));
    }
}
