//! Which bridges belong to one backend, and whether it has been heard lately.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use crate::bridge::BackendToken;
use crate::bridge::hostkey::Shown;
use crate::bridge::instance::InstanceName;
use crate::bridge::swiftclient::BackendId as SwiftclientId;
use crate::routing::InstanceId;
use crate::time::Millis;

use super::instance::Instance;
use super::shares::{Count, Counted};

/// After how long without a word from a backend a bridge is asked whether it is still there before
/// it is given a request that cannot be repeated. A backend that is in use answers more often.
const QUIET: Duration = Duration::from_millis(100);

/// How exactly it is known when a backend was heard last: all workers write it.
const HEARD_STEP: Duration = Duration::from_millis(20);

/// How long a backend that is silent is remembered when its last bridge has gone. One that never
/// acknowledges dials again at once.
const REMEMBERED: Duration = Duration::from_secs(60);

/// What tells one backend from another.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// It has announced itself.
    Token(BackendToken),
    /// A swiftclient backend: its site, and the id that it has sent.
    Swiftclient(Box<str>, SwiftclientId),
    /// It has not. All from one address are taken for one that name the same instance, and so are all
    /// that name none.
    Address(IpAddr, Option<InstanceName>),
    /// A server that the proxy dials, by its name on the info page.
    Server(String),
}

/// Names a backend: unique in this process, never reused. One more than its number, so that a request
/// that has been at none takes no more room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BackendId(NonZeroU64);

impl BackendId {
    pub(super) fn number(self) -> u64 {
        self.0.get() - 1
    }
}

/// A backend, held by each of its bridges.
pub(super) struct Backend {
    pub(super) id: BackendId,
    key: Key,
    /// Made when it is first asked for: a token's is a digest.
    public_id: OnceLock<String>,
    /// In milliseconds of the workers' clocks.
    heard: AtomicU64,
    /// It has gone silent, and has not been heard since.
    is_suspect: AtomicBool,
    /// One of its bridges is being probed.
    is_probed: AtomicBool,
    /// Bridges connected.
    bridges: Count,
    /// Those of them that have sent their keys as they are.
    bearers: Count,
    /// Requests that it serves now.
    busy: AtomicI64,
    /// Requests that it has answered.
    served: AtomicU64,
    seen: Mutex<Seen>,
    table: Arc<Table>,
}

/// What a backend's registrations have shown of it.
#[derive(Clone)]
pub(super) struct Seen {
    /// When the first of its bridges came.
    pub(super) since: SystemTime,
    /// Of the bridge that came last.
    pub(super) address: Option<IpAddr>,
    /// The host patterns of its bridges, sorted.
    pub(super) hosts: BTreeSet<Arc<str>>,
    /// The name of the first key.
    pub(super) key: Option<String>,
    /// Whose certificate the last bridge that came with one has shown, and the Unix second at which
    /// it expires.
    pub(super) certificate: Option<(String, u64)>,
    /// What the last bridge said its program is.
    pub(super) agent: Option<String>,
    /// Its name, if that stays the same when it comes again.
    pub(super) instance: Option<Arc<Instance>>,
    /// When it last failed with a request, and how.
    pub(super) last_error: Option<(SystemTime, String)>,
}

/// Most characters of a backend's last error that are kept.
const ERROR_SHOWN: usize = 160;

/// Most host patterns of a backend that are shown.
const HOSTS_SHOWN: usize = 16;

/// The backends that have a bridge connected. Locked when a bridge comes or a backend goes, never
/// for a request.
#[derive(Default)]
pub(super) struct Backends {
    table: Arc<Table>,
    last: AtomicU64,
}

#[derive(Default)]
struct Table {
    known: Mutex<HashMap<Key, Weak<Backend>>>,
    suspects: AtomicUsize,
    /// Backends that have gone silent, each until this time, whether or not it has bridges.
    remembered: Mutex<Vec<(Millis, Arc<Backend>)>>,
}

impl Backends {
    /// The backend with this key.
    pub(super) fn of(&self, key: Key, now: Millis) -> Arc<Backend> {
        let mut known = lock(&self.table.known);
        if let Some(backend) = known.get(&key).and_then(Weak::upgrade) {
            return backend;
        }
        let backend = Arc::new(Backend {
            id: BackendId(
                NonZeroU64::MIN.saturating_add(self.last.fetch_add(1, Ordering::Relaxed)),
            ),
            key: key.clone(),
            public_id: OnceLock::new(),
            heard: AtomicU64::new(now.0),
            is_suspect: AtomicBool::new(false),
            is_probed: AtomicBool::new(false),
            bridges: Count::default(),
            bearers: Count::default(),
            busy: AtomicI64::new(0),
            served: AtomicU64::new(0),
            seen: Mutex::new(Seen {
                since: SystemTime::now(),
                address: None,
                hosts: BTreeSet::new(),
                key: None,
                certificate: None,
                agent: None,
                instance: None,
                last_error: None,
            }),
            table: Arc::clone(&self.table),
        });
        known.insert(key, Arc::downgrade(&backend));
        backend
    }

    /// All that have a bridge connected.
    pub(super) fn all(&self) -> Vec<Arc<Backend>> {
        let mut all: Vec<_> = lock(&self.table.known).values().filter_map(Weak::upgrade).collect();
        // Without the lock: the last reference to a backend takes it.
        all.retain(|backend| backend.bridges() > 0);
        all
    }

    /// The tokens of those that have announced one, by number.
    pub(super) fn tokens(&self) -> HashMap<u64, BackendToken> {
        let known: Vec<_> = lock(&self.table.known).values().filter_map(Weak::upgrade).collect();
        let token = |backend: &Arc<Backend>| match backend.key {
            Key::Token(token) => Some((backend.id.number(), token)),
            _ => None,
        };
        known.iter().filter_map(token).collect()
    }

    /// How many backends are suspect.
    pub(super) fn suspects(&self) -> usize {
        self.table.suspects.load(Ordering::Relaxed)
    }

    /// Forgets backends that went silent long ago and have no bridge.
    pub(super) fn sweep(&self, now: Millis) {
        let mut remembered = lock(&self.table.remembered);
        let (keep, forget) = remembered.drain(..).partition(|(until, _)| now < *until);
        *remembered = keep;
        drop(remembered);
        // Without the lock: the last reference to a backend takes the other one.
        drop::<Vec<_>>(forget);
    }
}

impl Backend {
    /// Notes what a registration shows.
    pub(super) fn see(&self, address: IpAddr, hosts: &[Arc<str>], key: Option<&str>) {
        let mut seen = lock(&self.seen);
        seen.address = Some(address);
        for host in hosts {
            if seen.hosts.len() < HOSTS_SHOWN {
                seen.hosts.insert(Arc::clone(host));
            }
        }
        if seen.key.is_none() {
            seen.key = key.map(str::to_owned);
        }
    }

    /// Notes whose certificate a registration has shown, and when that expires.
    pub(super) fn see_certificate(&self, certificate: Option<(String, u64)>) {
        if certificate.is_some() {
            lock(&self.seen).certificate = certificate;
        }
    }

    /// Notes what program its bridges come from.
    pub(super) fn see_agent(&self, agent: Option<&str>) {
        if let Some(agent) = agent {
            lock(&self.seen).agent = Some(agent.to_owned());
        }
    }

    /// Notes its name; its bridges share what is kept of it.
    pub(super) fn see_instance(&self, name: &InstanceName) -> Arc<Instance> {
        let mut seen = lock(&self.seen);
        match &seen.instance {
            Some(known) if known.name == *name => Arc::clone(known),
            _ => Arc::clone(seen.instance.insert(Arc::new(Instance::new(name.clone())))),
        }
    }

    /// What requests that stick to it call it by, if it has a name.
    pub(super) fn instance_id(&self) -> Option<InstanceId> {
        lock(&self.seen).instance.as_ref().map(|instance| instance.id)
    }

    /// Notes a failure, in a few words.
    pub(super) fn note_error(&self, what: &str) {
        let what = what.chars().take(ERROR_SHOWN).collect();
        lock(&self.seen).last_error = Some((SystemTime::now(), what));
    }

    pub(super) fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    /// Names it in public: derived from its token, which is a secret, or what it is known by.
    pub(super) fn public_id(&self) -> &str {
        self.public_id.get_or_init(|| match &self.key {
            Key::Token(token) => token.public_id(),
            Key::Swiftclient(site, id) => format!("{site}/{id}"),
            Key::Address(address, None) => address.to_string(),
            Key::Address(address, Some(instance)) => format!("{address}/{instance}"),
            Key::Server(name) => name.clone(),
        })
    }

    /// A place in the count of its bridges.
    pub(super) fn join(&self) -> Option<Counted> {
        self.bridges.enter(usize::MAX)
    }

    /// A place in the count of those that have sent their keys as they are, for one that has.
    pub(super) fn join_bearers(&self, shown: Option<Shown>) -> Option<Counted> {
        (shown == Some(Shown::Bare)).then(|| self.bearers.enter(usize::MAX)).flatten()
    }

    pub(super) fn bridges(&self) -> usize {
        self.bridges.get()
    }

    /// How many of its bridges have sent their keys as they are.
    pub(super) fn bearers(&self) -> usize {
        self.bearers.get()
    }

    /// Adds `change` to the requests that it serves.
    pub(super) fn count_busy(&self, change: i64) {
        self.busy.fetch_add(change, Ordering::Relaxed);
    }

    pub(super) fn busy(&self) -> u32 {
        u32::try_from(self.busy.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Notes that it has answered a request.
    pub(super) fn count_answer(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Notes that it has answered. True if it was suspect.
    pub(super) fn hear(&self, now: Millis) -> bool {
        let heard = Millis(self.heard.load(Ordering::Relaxed));
        if now.since(heard) >= HEARD_STEP {
            self.heard.store(now.0, Ordering::Relaxed);
        }
        self.is_suspect.load(Ordering::Relaxed) && self.clear()
    }

    #[cold]
    fn clear(&self) -> bool {
        let was_suspect = self.is_suspect.swap(false, Ordering::SeqCst);
        if was_suspect {
            self.table.suspects.fetch_sub(1, Ordering::Relaxed);
        }
        was_suspect
    }

    /// Notes that it has gone silent. True if that is news.
    pub(super) fn suspect(self: &Arc<Self>, now: Millis) -> bool {
        if self.is_suspect.swap(true, Ordering::SeqCst) {
            return false;
        }
        self.table.suspects.fetch_add(1, Ordering::Relaxed);
        lock(&self.table.remembered).push((now + REMEMBERED, Arc::clone(self)));
        true
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.is_suspect.load(Ordering::Relaxed)
    }

    /// Whether it may have gone without a sign.
    pub(super) fn is_quiet(&self, now: Millis) -> bool {
        now.since(Millis(self.heard.load(Ordering::Relaxed))) >= QUIET
    }

    /// Whether one of its bridges may be probed now; then the caller must call
    /// [`Backend::end_probe`] in the end.
    pub(super) fn begin_probe(&self) -> bool {
        !self.is_probed.swap(true, Ordering::SeqCst)
    }

    pub(super) fn end_probe(&self) {
        self.is_probed.store(false, Ordering::SeqCst);
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.clear();
        let mut known = lock(&self.table.known);
        // It may have come back before the last bridge was gone.
        if known.get(&self.key).is_some_and(|here| here.strong_count() == 0) {
            known.remove(&self.key);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change leaves the value whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn address() -> Key {
        Key::Address(IpAddr::V4(Ipv4Addr::LOCALHOST), None)
    }

    #[test]
    fn a_backend_is_the_same_while_one_of_its_bridges_is_connected() {
        let backends = Backends::default();
        let [one, two] = [(); 2].map(|()| backends.of(address(), Millis(0)));
        let other = backends.of(Key::Token(BackendToken::new([0; 16])), Millis(0));
        assert_eq!(one.id, two.id);
        assert_ne!(one.id, other.id);
        let first = one.id;
        drop((one, two));
        let again = backends.of(address(), Millis(0));
        assert_ne!(again.id, first);
        drop((again, other));
        assert!(lock(&backends.table.known).is_empty());
    }

    #[test]
    fn only_backends_with_bridges_are_listed() {
        let backends = Backends::default();
        let backend = backends.of(address(), Millis(0));
        let bridges = [backend.join(), backend.join()];
        assert_eq!((backends.all().len(), backend.bridges()), (1, 2));
        backend.suspect(Millis(0));
        drop((bridges, backend));
        assert!(backends.all().is_empty(), "it is only remembered");
    }

    #[test]
    fn a_silent_backend_is_suspect_until_it_is_heard_and_remembered_for_a_while() {
        let backends = Backends::default();
        let backend = backends.of(address(), Millis(0));
        assert!(!backend.hear(Millis(5)));
        assert!(backend.suspect(Millis(10)) && !backend.suspect(Millis(11)));
        drop(backend);
        backends.sweep(Millis(60_009));
        let backend = backends.of(address(), Millis(60_009));
        assert!(backend.is_suspect() && backends.suspects() == 1);
        assert!(backend.hear(Millis(60_010)) && !backend.hear(Millis(60_011)));
        assert_eq!(backends.suspects(), 0);
        assert!(backend.suspect(Millis(60_012)));
        drop(backend);
        backends.sweep(Millis(120_012));
        assert!(backends.suspects() == 0 && lock(&backends.table.known).is_empty());
    }

    #[test]
    fn a_backend_is_quiet_when_nothing_has_been_heard_for_a_while() {
        let backend = Backends::default().of(address(), Millis(0));
        assert!(!backend.is_quiet(Millis(99)) && backend.is_quiet(Millis(100)));
        backend.hear(Millis(200));
        assert!(!backend.is_quiet(Millis(299)) && backend.is_quiet(Millis(300)));
    }

    #[test]
    fn one_bridge_at_a_time_is_probed() {
        let backend = Backends::default().of(address(), Millis(0));
        assert!(backend.begin_probe() && !backend.begin_probe());
        backend.end_probe();
        assert!(backend.begin_probe());
    }
}
