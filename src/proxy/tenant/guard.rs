//! How often one address may ask for the state of a tenant, and try keys.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::time::Millis;

use super::super::shares::network;

/// What one look with a good key costs, for each [`PIECE`] of its answer: ten a second, since each
/// looks at every route.
pub(in crate::proxy) const LOOK: Duration = Duration::from_millis(100);

/// Bytes of an answer.
pub(in crate::proxy) const PIECE: usize = 16 << 10;

/// What a wrong key costs: ten a minute. Nobody finds a key by trying; this is what it may cost.
pub(in crate::proxy) const WRONG_KEY: Duration = Duration::from_secs(6);

/// How much may be used up ahead: ten wrong keys at once, as of somebody who mistypes one.
const BURST: Duration = Duration::from_secs(60);

/// Most addresses that are known. All others together are one.
const ADDRESSES: usize = 4096;

/// What a look costs all addresses together, for each [`PIECE`]: 200 a second, so that a key that is shown
/// from everywhere does not take the workers' time.
const LOOK_OF_ALL: Duration = Duration::from_millis(5);

/// All addresses together.
const ALL: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);

/// All addresses for which there is no room.
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// For each address that has asked lately, the time at which all that it has used up is free again
/// (the generic cell rate algorithm). Shared by all workers; locked when somebody asks for the state
/// of a tenant.
#[derive(Default)]
pub(in crate::proxy) struct Guard {
    used: Mutex<HashMap<IpAddr, Millis>>,
}

impl Guard {
    /// Whether `address` may ask.
    ///
    /// # Errors
    /// In how many seconds it may, at least 1.
    pub fn check(&self, address: IpAddr, now: Millis) -> Result<(), u32> {
        let used = lock(&self.used);
        let at = used.get(&network(address)).or_else(|| {
            let is_full = used.len() >= ADDRESSES;
            is_full.then(|| used.get(&OTHERS)).flatten()
        });
        let at = at.max(used.get(&ALL));
        let over = at.map_or(Duration::ZERO, |at| at.since(now)).saturating_sub(BURST);
        match over.is_zero() {
            true => Ok(()),
            false => Err(u32::try_from(over.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)),
        }
    }

    /// Notes that `address` has been shown so many [`PIECE`]s.
    pub fn charge_look(&self, address: IpAddr, pieces: u32, now: Millis) {
        self.charge(address, LOOK * pieces, now);
        let mut used = lock(&self.used);
        let at = used.entry(ALL).or_insert(now);
        *at = (*at).max(now) + LOOK_OF_ALL * pieces;
    }

    /// Notes what `address` has done.
    pub fn charge(&self, address: IpAddr, cost: Duration, now: Millis) {
        let mut used = lock(&self.used);
        let mut address = network(address);
        if used.len() >= ADDRESSES && !used.contains_key(&address) {
            used.retain(|_, at| *at > now);
            if used.len() >= ADDRESSES {
                address = OTHERS;
            }
        }
        let at = used.entry(address).or_insert(now);
        *at = (*at).max(now) + cost;
    }
}

fn lock(used: &Mutex<HashMap<IpAddr, Millis>>) -> MutexGuard<'_, HashMap<IpAddr, Millis>> {
    // Each change leaves the table whole.
    used.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + number).into()
    }

    #[test]
    fn ten_wrong_keys_and_then_ten_a_minute() {
        let guard = Guard::default();
        let (me, other) = (address(1), address(2));
        for _ in 0..10 {
            assert_eq!(guard.check(me, Millis(0)), Ok(()));
            guard.charge(me, WRONG_KEY, Millis(0));
        }
        assert_eq!(guard.check(me, Millis(0)), Ok(()));
        guard.charge(me, WRONG_KEY, Millis(0));
        assert_eq!(guard.check(me, Millis(0)), Err(6));
        assert_eq!(guard.check(me, Millis(5_001)), Err(1));
        assert_eq!(
            (guard.check(me, Millis(6_000)), guard.check(other, Millis(0))),
            (Ok(()), Ok(()))
        );
    }

    #[test]
    fn a_page_that_looks_again_and_again_may_do_so() {
        let guard = Guard::default();
        for look in 0..10_000 {
            let now = Millis(look * 100);
            assert_eq!(guard.check(address(1), now), Ok(()));
            guard.charge_look(address(1), 1, now);
        }
    }

    #[test]
    fn all_together_may_look_two_hundred_times_a_second() {
        let guard = Guard::default();
        let looks = (BURST.as_millis() / LOOK_OF_ALL.as_millis()) as u32;
        for number in 0..=looks {
            assert_eq!(guard.check(address(number % 4000), Millis(0)), Ok(()));
            guard.charge_look(address(number % 4000), 1, Millis(0));
        }
        assert_eq!(guard.check(address(4001), Millis(0)), Err(1));
        assert_eq!(guard.check(address(4001), Millis(5)), Ok(()));
    }

    #[test]
    fn the_table_is_bounded() {
        let guard = Guard::default();
        for number in 0..3 * ADDRESSES as u32 {
            guard.charge(address(number), WRONG_KEY, Millis(0));
        }
        assert_eq!(lock(&guard.used).len(), ADDRESSES + 1);
        assert!(guard.check(address(0), Millis(0)).is_ok(), "it has a row of its own");
        assert!(guard.check(address(4 * ADDRESSES as u32), Millis(0)).is_err());
        guard.charge(address(5 * ADDRESSES as u32), LOOK, Millis(6_000));
        assert_eq!(lock(&guard.used).len(), 2, "what is free again is forgotten");
    }
}
