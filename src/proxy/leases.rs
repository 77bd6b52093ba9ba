//! What a bridge holds while it exists: permits under limited host keys, and its place in the
//! counts by key name and by swiftclient id. Dropping a lease gives everything back.
//!
//! Both registries are shared by all workers and locked when a bridge comes or goes, never for a
//! request.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bridge::hostkey::{Grant, Limit, Shown};
use crate::bridge::swiftclient::BackendId;

use super::backends::Key;
use super::certificates::HeldCertificate;
use super::listeners::SwiftclientListener;
use super::proofs::Held;

/// Most key names, and most swiftclient ids, that are counted. Without secrets any backend can
/// invent names.
const NAMES_MAX: usize = 10_000;

/// Most bytes of what a key is counted under that a refusal shows.
const SHOWN: usize = 96;

/// Bridges connected, and clients in an exchange with one of them.
#[derive(Default)]
pub(super) struct Usage {
    pub(super) bridges: AtomicI64,
    pub(super) clients: AtomicI64,
}

/// The host keys that bridges have registered with.
#[derive(Default)]
pub(super) struct Keys {
    /// By the name in the key that the proxy's owner has made, never the key itself. Every name seen
    /// stays.
    usage: Mutex<HashMap<String, Arc<Usage>>>,
    /// Permits in use; an unused limit has no entry.
    permits: Arc<Mutex<HashMap<Limit, u32>>>,
}

/// A bridge's share of the keys that it registered with.
pub(super) struct KeyLease {
    names: Box<[String]>,
    usage: Box<[Arc<Usage>]>,
    /// The keys themselves; none if no key was needed.
    proofs: Box<[Held]>,
    shown: Shown,
    certificate: Option<Certificate>,
    _permits: Box<[KeyPermit]>,
}

/// The certificate by which a bridge serves some of its names, or all.
pub(super) struct Certificate {
    pub(super) held: HeldCertificate,
    /// The first so many of the names are the certificate's.
    pub(super) names: usize,
    /// No host is left that needs a key.
    pub(super) covers_all: bool,
}

/// One bridge under one limit.
struct KeyPermit {
    permits: Arc<Mutex<HashMap<Limit, u32>>>,
    limit: Limit,
}

/// A key allows no more bridges.
#[derive(Debug)]
pub(super) enum KeyExhausted {
    /// By its own limit.
    Limit(Limit),
    /// The keys for this name have as many as those for one name may have.
    Share(String),
}

impl fmt::Display for KeyExhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyExhausted::Limit((name, limit)) => {
                // Who narrows a key may make it as long as a head.
                let (shown, more) = match name.get(..SHOWN) {
                    Some(shown) => (shown, "..."),
                    None => (name.as_str(), ""),
                };
                write!(
                    f,
                    "as many bridges as the Host-Key for {shown}{more} allows are connected: {limit}"
                )
            }
            KeyExhausted::Share(name) => {
                write!(f, "too many bridges are connected with a Host-Key for {name}")
            }
        }
    }
}

/// What limits a bridge with these grants, each once: several keys of it may be narrowed from one.
fn limits(grants: &[Grant]) -> Vec<Limit> {
    let mut limits: Vec<_> = grants.iter().flat_map(|grant| grant.limits.iter().cloned()).collect();
    limits.sort_unstable();
    limits.dedup();
    limits
}

/// The names by which it is counted, each once.
fn accounts(grants: &[Grant]) -> Vec<&str> {
    let mut accounts: Vec<_> = grants.iter().map(Grant::account).collect();
    accounts.sort_unstable();
    accounts.dedup();
    accounts
}

impl Keys {
    /// A lease on `grants`, whose keys are `proofs`: a permit for each that has a limit, and a place
    /// in the counts, which hold `most` bridges of one name. `None` when there are no grants.
    ///
    /// # Errors
    /// A key that allows no more bridges; then nothing is held.
    pub(super) fn lease(
        &self,
        grants: &[Grant],
        proofs: Box<[Held]>,
        most: usize,
    ) -> Result<Option<Box<KeyLease>>, KeyExhausted> {
        if grants.is_empty() {
            return Ok(None);
        }
        let permits =
            limits(grants).into_iter().map(|limit| self.permit(limit)).collect::<Result<_, _>>()?;
        let usage = self.usage(accounts(grants), most)?;
        let names = grants.iter().map(|grant| grant.name.clone()).collect();
        Ok(Some(Box::new(KeyLease {
            names,
            usage,
            proofs,
            shown: shown(grants),
            certificate: None,
            _permits: permits,
        })))
    }

    /// The same for a bridge that another program has let in: it counts, and no limit keeps it out.
    pub(super) fn lease_again(
        &self,
        grants: &[Grant],
        proofs: Box<[Held]>,
    ) -> Option<Box<KeyLease>> {
        if grants.is_empty() {
            return None;
        }
        let permits = limits(grants)
            .into_iter()
            .map(|limit| self.count(limit, &mut lock(&self.permits)))
            .collect();
        let usage = self.usage(accounts(grants), usize::MAX).ok()?;
        let names = grants.iter().map(|grant| grant.name.clone()).collect();
        Some(Box::new(KeyLease {
            names,
            usage,
            proofs,
            shown: shown(grants),
            certificate: None,
            _permits: permits,
        }))
    }

    fn permit(&self, limit: Limit) -> Result<KeyPermit, KeyExhausted> {
        let mut permits = lock(&self.permits);
        if permits.get(&limit).is_some_and(|count| *count >= limit.1.get()) {
            return Err(KeyExhausted::Limit(limit));
        }
        Ok(self.count(limit, &mut permits))
    }

    fn count(&self, limit: Limit, permits: &mut HashMap<Limit, u32>) -> KeyPermit {
        *permits.entry(limit.clone()).or_default() += 1;
        KeyPermit { permits: Arc::clone(&self.permits), limit }
    }

    /// The counts of these names, each with one bridge more; a name beyond the first [`NAMES_MAX`]
    /// has none.
    fn usage(&self, names: Vec<&str>, most: usize) -> Result<Box<[Arc<Usage>]>, KeyExhausted> {
        let mut usage = lock(&self.usage);
        let mut known = Vec::new();
        for name in names {
            if usage.contains_key(name) || usage.len() < NAMES_MAX {
                let counts = usage.entry(name.to_owned()).or_default();
                if counts.bridges.load(Ordering::Relaxed) >= i64::try_from(most).unwrap_or(i64::MAX)
                {
                    return Err(KeyExhausted::Share(name.to_owned()));
                }
                known.push(Arc::clone(counts));
            }
        }
        // Under the lock: another worker's bridge must see these.
        known
            .iter()
            .for_each(|usage: &Arc<Usage>| _ = usage.bridges.fetch_add(1, Ordering::Relaxed));
        Ok(known.into())
    }

    /// Every key name seen, with its bridges and clients, sorted by name.
    pub(super) fn all(&self) -> Vec<(String, i64, i64)> {
        let usage = lock(&self.usage);
        let counts = |usage: &Usage| {
            (usage.bridges.load(Ordering::Relaxed), usage.clients.load(Ordering::Relaxed))
        };
        let mut all: Vec<_> = usage
            .iter()
            .map(|(name, usage)| (name.clone(), counts(usage).0, counts(usage).1))
            .collect();
        all.sort();
        all
    }
}

impl KeyLease {
    /// The names of the keys.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The names whose limits count for the bridge: of its keys and of those that they were narrowed
    /// from, and of its certificate. A key that was not checked has none.
    pub(super) fn limited_names(&self) -> Vec<&str> {
        let certified = self.certificate.as_ref().map_or(0, |certificate| certificate.names);
        let by_keys = self.proofs.iter().flat_map(|held| held.key().names());
        self.names[..certified].iter().map(String::as_str).chain(by_keys).collect()
    }

    /// The keys, to be checked again.
    pub(super) fn proofs(&self) -> &[Held] {
        &self.proofs
    }

    /// How they were shown: as they are if one of them was; `None` if no key was needed.
    pub(super) fn shown(&self) -> Option<Shown> {
        (!self.proofs.is_empty()).then_some(self.shown)
    }

    /// Notes the certificate by which the bridge serves some of the names.
    pub(super) fn show(&mut self, certificate: Certificate) {
        self.certificate = Some(certificate);
    }

    /// The certificate by which the bridge serves some of the names, to be checked again.
    pub(super) fn certificate(&self) -> Option<&HeldCertificate> {
        self.certificate.as_ref().map(|certificate| &certificate.held)
    }

    /// Whether a certificate or a key has been shown for every host.
    pub(super) fn is_proved(&self) -> bool {
        !self.proofs.is_empty() || self.certificate.as_ref().is_some_and(|of| of.covers_all)
    }

    /// The name of the first key that is no certificate's.
    pub(super) fn first_key(&self) -> Option<&str> {
        let certified = self.certificate.as_ref().map_or(0, |certificate| certificate.names);
        self.names.get(certified).map(String::as_str)
    }

    /// Adds `change` to the clients that the bridge serves.
    pub(super) fn count_clients(&self, change: i64) {
        self.usage.iter().for_each(|usage| _ = usage.clients.fetch_add(change, Ordering::Relaxed));
    }
}

impl Drop for KeyLease {
    fn drop(&mut self) {
        self.usage.iter().for_each(|usage| _ = usage.bridges.fetch_sub(1, Ordering::Relaxed));
    }
}

impl Drop for KeyPermit {
    fn drop(&mut self) {
        let mut permits = lock(&self.permits);
        match permits.get_mut(&self.limit) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = permits.remove(&self.limit),
        }
    }
}

/// A site's name and the id of one of its backends.
type SwiftclientName = (Box<str>, BackendId);

/// The connections of one swiftclient id.
pub(super) struct SwiftclientUsage {
    /// The address of the first of them.
    pub(super) peer: IpAddr,
    pub(super) usage: Usage,
}

/// The swiftclient backends that are connected, by site and id.
#[derive(Default)]
pub(super) struct SwiftclientBackends {
    usage: Arc<Mutex<BTreeMap<SwiftclientName, Arc<SwiftclientUsage>>>>,
}

/// A swiftclient backend, held by its bridge.
pub(super) struct SwiftclientBackend {
    /// The listener that accepted it.
    pub(super) listener: Arc<SwiftclientListener>,
    id: BackendId,
    /// `None` if there were too many ids to count.
    usage: Option<Arc<SwiftclientUsage>>,
    table: Arc<Mutex<BTreeMap<SwiftclientName, Arc<SwiftclientUsage>>>>,
}

impl SwiftclientBackends {
    /// Counts one more connection of the backend `id`.
    pub(super) fn enter(
        &self,
        listener: Arc<SwiftclientListener>,
        id: BackendId,
        peer: IpAddr,
    ) -> Box<SwiftclientBackend> {
        let mut table = lock(&self.usage);
        let name = (listener.site.clone(), id);
        let has_room = table.len() < NAMES_MAX || table.contains_key(&name);
        let usage = has_room.then(|| {
            let new = || Arc::new(SwiftclientUsage { peer, usage: Usage::default() });
            let usage = Arc::clone(table.entry(name).or_insert_with(new));
            usage.usage.bridges.fetch_add(1, Ordering::Relaxed);
            usage
        });
        drop(table);
        Box::new(SwiftclientBackend { listener, id, usage, table: Arc::clone(&self.usage) })
    }

    /// The backends of a site, sorted by id.
    pub(super) fn of(&self, site: &str) -> Vec<(BackendId, Arc<SwiftclientUsage>)> {
        let table = lock(&self.usage);
        let here = table.iter().filter(|((name, _), _)| **name == *site);
        here.map(|((_, id), usage)| (*id, Arc::clone(usage))).collect()
    }
}

impl SwiftclientBackend {
    /// As it sent it.
    pub(super) fn id(&self) -> BackendId {
        self.id
    }

    /// What tells it from other backends.
    pub(super) fn key(&self) -> Key {
        Key::Swiftclient(self.listener.site.clone(), self.id)
    }

    /// Adds `change` to the clients that the bridge serves.
    pub(super) fn count_clients(&self, change: i64) {
        if let Some(usage) = &self.usage {
            usage.usage.clients.fetch_add(change, Ordering::Relaxed);
        }
    }
}

impl Drop for SwiftclientBackend {
    fn drop(&mut self) {
        let Some(usage) = &self.usage else { return };
        let mut table = lock(&self.table);
        if usage.usage.bridges.fetch_sub(1, Ordering::Relaxed) == 1 {
            table.remove(&(self.listener.site.clone(), self.id));
        }
    }
}

/// How keys were shown, taken together.
fn shown(grants: &[Grant]) -> Shown {
    match grants.iter().all(|grant| grant.shown == Shown::Proven) {
        true => Shown::Proven,
        false => Shown::Bare,
    }
}

fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change leaves the tables whole.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::HostKey;
    use std::num::NonZeroU32;

    fn grant(name: &str, limit: u32) -> Grant {
        Grant {
            name: name.to_owned(),
            limits: NonZeroU32::new(limit)
                .map(|most| (name.to_owned(), most))
                .into_iter()
                .collect(),
            proof: None,
            shown: Shown::Bare,
        }
    }

    fn lease(keys: &Keys, grants: &[Grant]) -> Option<Box<KeyLease>> {
        keys.lease(grants, Box::default(), usize::MAX).ok().flatten()
    }

    #[test]
    fn a_limit_holds_until_a_lease_is_dropped() {
        let keys = Keys::default();
        let two = [grant("a.test", 2)];
        let first = lease(&keys, &two).unwrap();
        let second = lease(&keys, &two).unwrap();
        let exhausted = keys.lease(&two, Box::default(), usize::MAX).err().unwrap();
        assert_eq!(
            exhausted.to_string(),
            "as many bridges as the Host-Key for a.test allows are connected: 2"
        );
        assert_eq!(keys.all(), [("a.test".to_owned(), 2, 0)]);
        drop(first);
        let third = lease(&keys, &two).unwrap();
        assert!(keys.lease(&two, Box::default(), usize::MAX).is_err());
        drop((second, third));
        assert!(lock(&keys.permits).is_empty());
        assert_eq!(keys.all(), [("a.test".to_owned(), 0, 0)]);
    }

    #[test]
    fn a_bridge_that_was_let_in_elsewhere_counts_beyond_its_limit() {
        let keys = Keys::default();
        let one = [grant("a.test", 1)];
        let first = keys.lease_again(&one, Box::default()).unwrap();
        let second = keys.lease_again(&one, Box::default()).unwrap();
        assert_eq!(keys.all(), [("a.test".to_owned(), 2, 0)]);
        drop(first);
        assert!(lease(&keys, &one).is_none(), "one is still connected");
        drop(second);
        assert!(lease(&keys, &one).is_some());
        assert!(keys.lease_again(&[], Box::default()).is_none());
    }

    /// Who has a narrowed key cannot connect more by narrowing it again, nor who has narrowed it.
    #[test]
    fn a_narrowed_key_counts_under_all_that_it_was_narrowed_from() {
        let keys = Keys::default();
        let lease = |caveats: &str| {
            let text = format!("v3:{}:v2:1:9:3:a.test+{caveats}", "0".repeat(64));
            let key = HostKey::parse(text.as_bytes()).unwrap();
            let grant = Grant {
                name: key.name().to_owned(),
                limits: key.limits(),
                proof: Some(key),
                shown: Shown::Proven,
            };
            keys.lease(&[grant], Box::default(), usize::MAX).map_err(|error| error.to_string())
        };
        let said = |of: &str, most: u32| {
            format!("as many bridges as the Host-Key for {of} allows are connected: {most}")
        };
        let _one = lease("host=x.a.test+bridges=1").unwrap();
        let of = "a.test+host=x.a.test+bridges=1";
        for again in ["", "+expiry=5", "+bridges=1", "+host=y.x.a.test", "+prefix=/a+bridges=1"] {
            let again = lease(&format!("host=x.a.test+bridges=1{again}")).err();
            assert_eq!(again, Some(said(of, 1)));
        }
        let renewed = lease("expiry=8+host=x.a.test+expiry=7+bridges=1").err();
        assert_eq!(renewed, Some(said(of, 1)), "an expiry makes no other key of it");
        let _others = ["host=y.a.test", "prefix=/a+bridges=2"].map(|more| lease(more).unwrap());
        assert_eq!(lease("host=z.a.test").err(), Some(said("a.test", 3)), "of the key itself");
        assert_eq!(keys.all(), [("a.test".to_owned(), 3, 0)], "no name can be made up");
    }

    #[test]
    fn names_and_limits_are_counted_apart() {
        let keys = Keys::default();
        let _all = [("a.test", 1), ("b.test", 1), ("a.test", 2), ("a.test", 2)]
            .map(|(name, limit)| lease(&keys, &[grant(name, limit)]).unwrap());
        assert!(keys.lease(&[grant("a.test", 1)], Box::default(), usize::MAX).is_err());
        assert!(keys.lease(&[grant("a.test", 2)], Box::default(), usize::MAX).is_err());
        assert!(keys.lease(&[grant("b.test", 2)], Box::default(), usize::MAX).is_ok());
    }

    #[test]
    fn the_keys_of_one_name_have_at_most_their_share() {
        let keys = Keys::default();
        let grants = [grant("a.test", 0)];
        let both = [
            keys.lease(&grants, Box::default(), 2).unwrap(),
            keys.lease(&grants, Box::default(), 2).unwrap(),
        ];
        let exhausted = keys.lease(&grants, Box::default(), 2).err().unwrap();
        assert_eq!(
            exhausted.to_string(),
            "too many bridges are connected with a Host-Key for a.test"
        );
        assert!(keys.lease(&[grant("b.test", 0)], Box::default(), 2).is_ok());
        drop(both);
        assert!(keys.lease(&grants, Box::default(), 1).is_ok());
    }

    #[test]
    fn keys_without_a_limit_need_no_permit() {
        let keys = Keys::default();
        assert!(keys.lease(&[], Box::default(), usize::MAX).ok().unwrap().is_none());
        let _lease = lease(&keys, &[grant("a.test", 0), grant("b.test", 0)]).unwrap();
        assert!(lock(&keys.permits).is_empty());
    }

    #[test]
    fn a_lease_that_fails_holds_nothing() {
        let keys = Keys::default();
        let _held = lease(&keys, &[grant("b.test", 1)]).unwrap();
        assert!(
            keys.lease(&[grant("a.test", 1), grant("b.test", 1)], Box::default(), usize::MAX)
                .is_err()
        );
        assert!(keys.lease(&[grant("a.test", 1)], Box::default(), usize::MAX).is_ok());
    }

    #[test]
    fn workers_that_race_for_the_last_permits_do_not_exceed_the_limit() {
        let keys = Keys::default();
        let grants = [grant("a.test", 3)];
        let (start, end) = (std::sync::Barrier::new(8), std::sync::Barrier::new(8));
        let race = || {
            start.wait();
            let lease = lease(&keys, &grants);
            end.wait();
            usize::from(lease.is_some())
        };
        for _ in 0..100 {
            let won: usize = std::thread::scope(|scope| {
                let racers: Vec<_> = (0..8).map(|_| scope.spawn(race)).collect();
                racers.into_iter().map(|racer| racer.join().unwrap()).sum()
            });
            assert_eq!(won, 3);
        }
        assert!(lock(&keys.permits).is_empty());
    }
}
