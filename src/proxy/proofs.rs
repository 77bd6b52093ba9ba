//! The host keys with which bridges have proved that they may serve their names, so that they can be
//! checked again: when secrets have been read again, and when a key expires.
//!
//! Each key is here once, however many bridges hold it, and is marked when it is no longer good.
//! What follows for its bridges is in `revocation.rs`. All of this is shared by all workers, and
//! locked when a bridge comes or goes, never for a request.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::bridge::hostkey::{HostKey, InvalidKey, KeyHash, Keyring};
use crate::config::ExpiredKeys;
use crate::net::event_loop::NextTurn;
use crate::time::Millis;

/// Why a bridge has lost its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// Its secret was removed, or the key itself was taken back, or keys are needed now.
    Revoked,
    Expired,
}

/// Whether a key or a certificate is still good, marked for all workers: [`Loss`] and one, or 0 while it
/// is.
#[derive(Default)]
pub(super) struct LossMark(AtomicU8);

/// A moment, on both clocks.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    /// Of the workers.
    pub(super) now: Millis,
    /// Since 1970.
    pub(super) unix: Duration,
}

/// A key that bridges have shown. It does not print.
pub(super) struct Proof {
    key: HostKey,
    hash: KeyHash,
    lost: LossMark,
    bridges: AtomicUsize,
    table: Arc<Table>,
}

/// A bridge's hold on a key.
pub(super) struct Held(Arc<Proof>);

/// The keys of all bridges.
#[derive(Default)]
pub(super) struct Proofs {
    table: Arc<Table>,
}

struct Table {
    known: Mutex<Known>,
    /// When the next key expires, in milliseconds of the workers' clocks; `u64::MAX` for never.
    next_expiry: AtomicU64,
}

#[derive(Default)]
struct Known {
    proofs: HashMap<KeyHash, Weak<Proof>>,
    /// By the first Unix second at which they are no longer good. One that has expired is out.
    expiring: BTreeMap<(u64, KeyHash), Weak<Proof>>,
    /// In force. A worker may still know an older one.
    keyring: Option<Arc<Keyring>>,
    closes_expired: bool,
}

/// Keys that are no longer good.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    /// The names in them, sorted, each once.
    pub(super) names: Vec<String>,
    /// How many bridges hold them.
    pub(super) bridges: usize,
}

impl Default for Table {
    fn default() -> Table {
        Table { known: Mutex::default(), next_expiry: AtomicU64::new(u64::MAX) }
    }
}

impl Proofs {
    /// Another bridge holds `key`, which its worker has found good under `keyring`.
    ///
    /// # Errors
    /// The key is not good under what is in force by now.
    pub(super) fn hold(
        &self,
        key: &HostKey,
        keyring: Option<&Arc<Keyring>>,
        at: Moment,
    ) -> Result<Held, InvalidKey> {
        let hash = KeyHash::of(key);
        let mut known = self.lock();
        if let Some(in_force) = &known.keyring
            && keyring.is_none_or(|keyring| !Arc::ptr_eq(keyring, in_force))
        {
            in_force.check(key, at.unix.as_secs())?;
        }
        let proof = match known.proofs.get(&hash).and_then(Weak::upgrade) {
            Some(proof) => proof,
            None => {
                let proof = Arc::new(Proof {
                    key: key.clone(),
                    hash,
                    lost: LossMark::default(),
                    bridges: AtomicUsize::new(0),
                    table: Arc::clone(&self.table),
                });
                known.proofs.insert(hash, Arc::downgrade(&proof));
                if let Some(expires) = key.expires() {
                    known.expiring.insert((expires, hash), Arc::downgrade(&proof));
                    self.reckon(&known, at);
                }
                proof
            }
        };
        proof.bridges.fetch_add(1, Ordering::Relaxed);
        Ok(Held(proof))
    }

    /// Checks all keys again, under what is in force from now on. Returns those that have become
    /// bad.
    pub(super) fn put_in_force(
        &self,
        keyring: Option<Arc<Keyring>>,
        expired: ExpiredKeys,
        at: Moment,
    ) -> Lost {
        let mut known = self.lock();
        known.keyring = keyring;
        known.closes_expired = expired == ExpiredKeys::Close;
        let proofs: Vec<_> = known.proofs.values().filter_map(Weak::upgrade).collect();
        let mut lost = Lost::default();
        for proof in &proofs {
            let loss = known.loss(&proof.key, at.unix.as_secs());
            if proof.lost.mark(loss) {
                lost.add(proof);
            }
        }
        self.reckon(&known, at);
        // Without the lock: the last reference to a proof takes it.
        drop(known);
        drop(proofs);
        lost.sorted()
    }

    /// Marks the keys that have expired, and returns them; and whether their bridges are closed.
    pub(super) fn expire(&self, at: Moment) -> (Lost, bool) {
        let mut known = self.lock();
        let later = known.expiring.split_off(&(at.unix.as_secs() + 1, KeyHash::default()));
        let expired = std::mem::replace(&mut known.expiring, later);
        let closes = known.closes_expired && known.keyring.is_some();
        let proofs: Vec<_> = expired.values().filter_map(Weak::upgrade).collect();
        let mut lost = Lost::default();
        for proof in proofs.iter().filter(|proof| proof.lost.loss().is_none()) {
            if closes {
                proof.lost.mark(Some(Loss::Expired));
            }
            if known.keyring.is_some() {
                lost.add(proof);
            }
        }
        self.reckon(&known, at);
        drop(known);
        drop(proofs);
        (lost.sorted(), closes)
    }

    /// As [`Proofs::next_expiry`], or [`NextTurn::NEVER`].
    pub(super) fn expires_at(&self) -> Millis {
        Millis(self.table.next_expiry.load(Ordering::Relaxed))
    }

    /// When to call [`Proofs::expire`].
    pub(super) fn next_expiry(&self) -> Option<Millis> {
        let next = self.expires_at();
        (next != NextTurn::NEVER).then_some(next)
    }

    /// Finds out anew when the next key expires: the clock of the machine may have been set.
    pub(super) fn look_at_clock(&self, at: Moment) {
        if self.next_expiry().is_some() {
            self.reckon(&self.lock(), at);
        }
    }

    fn reckon(&self, known: &Known, at: Moment) {
        let next = known.expiring.keys().next().map_or(u64::MAX, |(expires, _)| {
            let left = Duration::from_secs(*expires).saturating_sub(at.unix);
            (at.now + left).0
        });
        self.table.next_expiry.store(next, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.table.lock()
    }
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Known> {
        // Each change leaves it whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Why a key is no longer good, if so. Without secrets no key is needed.
    fn loss(&self, key: &HostKey, now: u64) -> Option<Loss> {
        match self.keyring.as_ref()?.check(key, now) {
            Ok(()) => None,
            Err(InvalidKey::Expired(_)) => self.closes_expired.then_some(Loss::Expired),
            Err(_) => Some(Loss::Revoked),
        }
    }
}

impl LossMark {
    pub(super) fn loss(&self) -> Option<Loss> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Loss::Revoked),
            _ => Some(Loss::Expired),
        }
    }

    /// Notes whether it is good. True if it was, and is no longer.
    pub(super) fn mark(&self, loss: Option<Loss>) -> bool {
        let mark = match loss {
            None => 0,
            Some(Loss::Revoked) => 1,
            Some(Loss::Expired) => 2,
        };
        self.0.swap(mark, Ordering::Relaxed) == 0 && mark != 0
    }
}

impl Drop for Proof {
    fn drop(&mut self) {
        let mut known = self.table.lock();
        // It may have come back before the last bridge was gone.
        if known.proofs.get(&self.hash).is_some_and(|here| here.strong_count() == 0) {
            known.proofs.remove(&self.hash);
            if let Some(expires) = self.key.expires() {
                known.expiring.remove(&(expires, self.hash));
            }
        }
    }
}

impl Held {
    /// The key.
    pub(super) fn key(&self) -> &HostKey {
        &self.0.key
    }

    /// Why the key is no longer good, if so.
    pub(super) fn loss(&self) -> Option<Loss> {
        self.0.lost.loss()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.bridges.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lost {
    fn add(&mut self, proof: &Proof) {
        self.names.push(proof.key.name().to_owned());
        self.bridges += proof.bridges.load(Ordering::Relaxed);
    }

    fn sorted(mut self) -> Lost {
        self.names.sort_unstable();
        self.names.dedup();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::Secrets;
    use crate::bridge::hostkey::{Forms, Revoked, Terms};

    const NOW: u64 = 2_000;

    fn at(unix: u64) -> Moment {
        Moment { now: Millis(unix * 1000 - 1_000_000), unix: Duration::from_secs(unix) }
    }

    fn ring(secrets: &str, revoked: &[&HostKey]) -> Arc<Keyring> {
        let revoked: String = revoked.iter().map(|key| format!("{}\n", KeyHash::of(key))).collect();
        Arc::new(Keyring::new(
            Secrets::parse(secrets, "f").unwrap(),
            Revoked::parse(&revoked, "f").unwrap(),
            Forms::Both,
        ))
    }

    /// Made at 1500 with the secret of a file `1000:one`.
    fn key(name: &str, expires: u64) -> HostKey {
        let terms = Terms { made: 1500, expires, bridges: None, name: name.to_owned() };
        let text = Secrets::parse("1000:one", "f").unwrap().make_modern(&terms, NOW).unwrap();
        HostKey::parse(text.as_bytes()).unwrap()
    }

    fn with(ring: &Arc<Keyring>, expired: ExpiredKeys) -> Proofs {
        let proofs = Proofs::default();
        let lost = proofs.put_in_force(Some(Arc::clone(ring)), expired, at(NOW));
        assert_eq!(lost, Lost::default());
        proofs
    }

    fn lost(names: &[&str], bridges: usize) -> Lost {
        Lost { names: names.iter().map(ToString::to_string).collect(), bridges }
    }

    #[test]
    fn a_key_is_lost_when_it_is_revoked_or_its_secret_removed_and_may_come_back() {
        let first = ring("1000:one", &[]);
        let proofs = with(&first, ExpiredKeys::Close);
        let (a, b) = (key("a.test", 9_000), key("b.test", 9_000));
        let hold = |key| proofs.hold(key, Some(&first), at(NOW)).unwrap();
        let held = [hold(&a), hold(&a), hold(&b)];
        let force = |ring: &Arc<Keyring>| {
            proofs.put_in_force(Some(Arc::clone(ring)), ExpiredKeys::Close, at(NOW))
        };
        assert_eq!(force(&ring("1000:one", &[&a])), lost(&["a.test"], 2));
        assert_eq!(
            held.each_ref().map(Held::loss),
            [Some(Loss::Revoked), Some(Loss::Revoked), None]
        );
        assert_eq!(force(&ring("1000:one", &[&a])), lost(&[], 0), "it is known");
        assert_eq!(force(&ring("1200:other", &[])), lost(&["b.test"], 1), "as is the first");
        assert_eq!(force(&first), lost(&[], 0));
        assert!(held.iter().all(|held| held.loss().is_none()));
        drop(held);
        assert!(proofs.lock().proofs.is_empty() && proofs.lock().expiring.is_empty());
    }

    #[test]
    fn a_worker_that_does_not_know_of_the_revocation_yet_admits_nobody() {
        let old = ring("1000:one", &[]);
        let proofs = with(&old, ExpiredKeys::Close);
        let a = key("a.test", 9_000);
        let new = ring("1000:one", &[&a]);
        proofs.put_in_force(Some(new), ExpiredKeys::Close, at(NOW));
        assert_eq!(proofs.hold(&a, Some(&old), at(NOW)).err(), Some(InvalidKey::Revoked));
        assert!(proofs.hold(&key("b.test", 9_000), Some(&old), at(NOW)).is_ok());
    }

    #[test]
    fn keys_expire_at_their_second_and_the_next_is_known() {
        let ring = ring("1000:one", &[]);
        let proofs = with(&ring, ExpiredKeys::Close);
        assert_eq!(proofs.next_expiry(), None);
        let [late, soon] = [3_000, 2_010].map(|expires| key("a.test", expires));
        let held = [&late, &soon].map(|key| proofs.hold(key, Some(&ring), at(NOW)).unwrap());
        assert_eq!(proofs.next_expiry(), Some(at(2_010).now));
        assert_eq!(proofs.expire(at(2_009)), (lost(&[], 0), true));
        assert_eq!(proofs.expire(at(2_010)), (lost(&["a.test"], 1), true));
        assert_eq!(held.each_ref().map(Held::loss), [None, Some(Loss::Expired)]);
        assert_eq!(proofs.next_expiry(), Some(at(3_000).now));
        // The machine's clock has been set forward by 500 s.
        let set = Moment { now: at(2_020).now, unix: Duration::from_secs(2_520) };
        proofs.look_at_clock(set);
        assert_eq!(proofs.next_expiry(), Some(at(2_500).now));
        drop(held);
        proofs.look_at_clock(set);
        assert_eq!(proofs.next_expiry(), None);
    }

    #[test]
    fn expiry_may_only_be_logged_until_the_settings_say_otherwise() {
        let ring = ring("1000:one", &[]);
        let proofs = with(&ring, ExpiredKeys::Log);
        let held = proofs.hold(&key("a.test", 2_010), Some(&ring), at(NOW)).unwrap();
        assert_eq!(proofs.expire(at(2_010)), (lost(&["a.test"], 1), false));
        assert_eq!(proofs.expire(at(2_011)), (lost(&[], 0), false));
        let force = |expired| proofs.put_in_force(Some(Arc::clone(&ring)), expired, at(2_020));
        assert_eq!(force(ExpiredKeys::Log), lost(&[], 0));
        assert_eq!(held.loss(), None);
        assert_eq!(force(ExpiredKeys::Close), lost(&["a.test"], 1));
        assert_eq!(held.loss(), Some(Loss::Expired));
    }

    #[test]
    fn without_secrets_every_key_is_good() {
        let ring = ring("1000:one", &[]);
        let proofs = with(&ring, ExpiredKeys::Close);
        let held = proofs.hold(&key("a.test", 2_010), Some(&ring), at(NOW)).unwrap();
        proofs.put_in_force(None, ExpiredKeys::Close, at(NOW));
        assert_eq!(proofs.expire(at(2_010)), (lost(&[], 0), false));
        assert_eq!(held.loss(), None);
    }
}
