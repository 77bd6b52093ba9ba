//! Calls the managers of sites (`manager=`), so that backends are started when a request finds no free
//! one.
//!
//! The call wakes nobody: the request waits in its queue as any other does, and the bridge that comes
//! serves it. So the proxy need not know what the manager has started, or how.
//!
//! Calls are made by threads of their own. A program must be waited for, and a name looked up, and both
//! may take as long as they like: a worker may not wait, and what happens once a second need not
//! be fast. There are as many threads as calls at the same time, and none while nothing is to be called.
//!
//! A site is called once a second at most, one call at a time. A site with wildcards stands for many
//! applications, so its requests are in a *group* for each host, and calls are for one group after
//! another.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::config::{Manager, Settings, Site};
use crate::http::{KeptFacts, Predicates, RequestFacts, host_name};
use crate::net::log_limiter::{LogLimiter, suppressed};
use crate::routing::{RouteQuery, RouteSpec};
use crate::time::Millis;

use super::manager_call::{self, Need};
use super::sites::{Sites, wait_policy};

/// From the beginning of one call of a site to that of the next.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a request must have waited for a site that has servers: a connection to one may just be
/// being made.
const DIALLING: Duration = Duration::from_millis(250);

/// Most calls at the same time. A manager that hangs holds one, until the call's time is over.
const CALLS_MAX: usize = 64;

/// How often to see whether the programs that are killed at the end have ended, and for how long.
const LAST_LOOK: Duration = Duration::from_millis(10);
const LAST_LOOKS: u32 = 100;

/// How many bridges are connected that could serve what is asked for.
type CountBridges = dyn Fn(&RouteQuery<'_>) -> u32 + Send + Sync;

/// The managers of all sites, for all workers.
pub(super) struct Managers {
    connected: Box<CountBridges>,
    table: Mutex<Table>,
    /// Something is to be called, perhaps sooner than those know who wait for the next call.
    changed: Condvar,
    /// The process ends: programs are not waited for.
    is_ending: AtomicBool,
    /// All calls, and those of them that have failed.
    calls: AtomicU64,
    failures: AtomicU64,
    started: Instant,
}

#[derive(Default)]
struct Table {
    /// By the sites' names. What was called once stays, for its counters.
    sites: BTreeMap<Arc<str>, Called>,
    /// Threads, and those of them that make a call.
    callers: usize,
    busy: usize,
    /// The proxy drains: nothing is called any more.
    is_over: bool,
}

/// What is known of one site.
struct Called {
    /// `None` after a reload that has taken it away.
    manager: Option<Arc<Manager>>,
    /// How long a call may take: as long as the request waits.
    limit: Duration,
    groups: BTreeMap<String, Group>,
    is_calling: bool,
    /// When it may be called again.
    not_before: Instant,
    calls: u64,
    failures: u64,
    last_failure: Option<(SystemTime, String)>,
    said: LogLimiter,
    said_failure: LogLimiter,
}

/// Requests that the same backends could serve.
struct Group {
    host: String,
    /// One of them: one for which no bridge was connected, if there was such a one.
    asked: Arc<AskedFor>,
    /// Such a bridge was connected when that request began to wait.
    is_served: bool,
    waiting: usize,
    not_before: Instant,
    /// The number of the last call for it, 0 for none.
    called: u64,
}

/// What bridges for a request have registered.
struct AskedFor {
    /// The host, or the name of the site.
    host: String,
    facts: KeptFacts,
}

/// A request that begins to wait at a site with a manager.
pub(super) struct Wish<'a> {
    pub(super) site: &'a Site,
    pub(super) manager: &'a Arc<Manager>,
    /// In lower case.
    pub(super) host: &'a str,
    pub(super) facts: &'a RequestFacts<'a>,
    /// A bridge that could serve it is connected.
    pub(super) is_served: bool,
    pub(super) limit: Duration,
}

/// It waits until this is dropped.
pub(super) struct Wanted {
    managers: Arc<Managers>,
    site: Arc<str>,
    group: String,
}

impl Drop for Wanted {
    fn drop(&mut self) {
        let mut table = self.managers.lock();
        let Some(called) = table.sites.get_mut(&self.site) else { return };
        if let Some(group) = called.groups.get_mut(&self.group) {
            group.waiting -= 1;
            if group.waiting == 0 {
                called.groups.remove(&self.group);
            }
        }
    }
}

/// What is wrong with the programs that the settings name, one sentence each.
pub(super) fn missing_programs(settings: &Settings) -> Vec<String> {
    let programs = settings.site.iter().filter_map(|site| {
        let Some(Manager::Program(program)) = site.on_demand.manager.as_deref() else {
            return None;
        };
        let why = match program.metadata() {
            Ok(file) if file.is_file() && file.permissions().mode() & EXECUTABLE != 0 => {
                return None;
            }
            Ok(_) => "it is no program".to_owned(),
            Err(error) => error.to_string(),
        };
        Some(format!("site {}: manager: cannot run {}: {why}", site.name(), program.display()))
    });
    programs.collect()
}

/// Some user may run a file (inode(7)).
const EXECUTABLE: u32 = 0o111;

impl Managers {
    /// `connected` says how many bridges are connected that could serve a request.
    pub(super) fn new(
        connected: impl Fn(&RouteQuery<'_>) -> u32 + Send + Sync + 'static,
    ) -> Managers {
        Managers {
            connected: Box::new(connected),
            table: Mutex::default(),
            changed: Condvar::new(),
            is_ending: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // A panic under the lock ends the process.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the site's manager called soon, and again for as long as the request waits.
    pub(super) fn want(self: &Arc<Self>, wish: &Wish<'_>) -> Box<Wanted> {
        let name = group_of(wish.site, wish.host);
        let now = Instant::now();
        let mut table = self.lock();
        let site = match table.sites.get_key_value(wish.site.name()) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::from(wish.site.name()),
        };
        let called = table.sites.entry(Arc::clone(&site)).or_insert_with(|| Called::new(now));
        (called.manager, called.limit) = (Some(Arc::clone(wish.manager)), wish.limit);
        let is_new = !called.groups.contains_key(&name);
        if is_new {
            called.groups.insert(name.clone(), Group::new(wish, now));
        }
        if let Some(group) = called.groups.get_mut(&name) {
            group.waiting += 1;
            if group.is_served && !wish.is_served {
                (group.asked, group.is_served) = (AskedFor::by(wish), false);
            }
        }
        if is_new {
            self.hire(&mut table);
            self.changed.notify_one();
        }
        Box::new(Wanted { managers: Arc::clone(self), site, group: name })
    }

    /// Starts a thread, if something is to be called and all of them make a call.
    fn hire(self: &Arc<Self>, table: &mut Table) {
        if table.callers > table.busy || table.callers >= CALLS_MAX || table.next().is_none() {
            return;
        }
        let managers = Arc::clone(self);
        let run = move || managers.call_what_is_due();
        match thread::Builder::new().name("manager".to_owned()).spawn(run) {
            Ok(_) => table.callers += 1,
            // The next request tries again.
            Err(error) => log::warn!("no thread to call a manager: {error}"),
        }
    }

    /// Makes calls until none is to be made any more.
    fn call_what_is_due(self: &Arc<Self>) {
        let mut table = self.lock();
        while let Some((due, site)) = table.next() {
            let left = due.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                let waited = self.changed.wait_timeout(table, left);
                table = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let Some(call) = table.begin(&site) else { break };
            self.calls.fetch_add(1, Ordering::Relaxed);
            table.busy += 1;
            // Another site must not wait for this one.
            self.hire(&mut table);
            drop(table);
            let result = self.make(&site, &call);
            table = self.lock();
            table.busy -= 1;
            table.ended(&site, &result);
        }
        table.callers -= 1;
    }

    fn make(&self, site: &str, call: &Call) -> Result<(), String> {
        let AskedFor { host, facts } = &*call.asked;
        let connected = facts.look(|asked| {
            let meets = |predicates: &Predicates| predicates.are_met_by(asked);
            let query = RouteQuery::new(host, facts.path()).with_meets(Some(&meets));
            (self.connected)(&query)
        });
        let need = Need { site, host: &call.host, waiting: call.waiting, connected };
        if let Some(more) = self.may_say(site, |called| &mut called.said) {
            let (waiting, reason) = (call.waiting, need.reason());
            let requests = if waiting == 1 { "request waits" } else { "requests wait" };
            let whom = if call.host.is_empty() { site } else { &call.host };
            log::info!(
                "site {site}: {waiting} {requests} for {whom} ({reason}): calling {}{more}",
                call.manager
            );
        }
        let result = manager_call::make(&call.manager, &need, call.limit, &self.is_ending);
        if let Err(what) = &result {
            self.failures.fetch_add(1, Ordering::Relaxed);
            if let Some(more) = self.may_say(site, |called| &mut called.said_failure) {
                log::warn!("site {site}: its manager {}: {what}{more}", call.manager);
            }
        }
        result
    }

    /// Whether a line may be written now; then what it says of those that were not.
    fn may_say(&self, site: &str, which: fn(&mut Called) -> &mut LogLimiter) -> Option<String> {
        let now = Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX));
        let mut table = self.lock();
        let limiter = which(table.sites.get_mut(site)?);
        limiter.allow(now).map(|count| suppressed(count, " for it"))
    }

    /// Calls what the settings say from now on, for those who wait already, too.
    pub(super) fn put_in_force(self: &Arc<Self>, sites: &Sites, settings: &Settings) {
        let mut table = self.lock();
        for (name, called) in &mut table.sites {
            let site = sites.named(name);
            called.manager = site.and_then(|site| site.on_demand.manager.clone());
            called.limit = wait_policy(site, settings).timeout;
        }
        let is_needed = |called: &Called| called.manager.is_some() || !called.groups.is_empty();
        table.sites.retain(|_, called| called.is_calling || is_needed(called));
        self.hire(&mut table);
        self.changed.notify_one();
    }

    /// Calls nothing any more: the proxy drains, and a backend that comes would be sent away.
    pub(super) fn stop(&self) {
        self.lock().is_over = true;
    }

    /// The process ends. Programs that still run are killed, as after too long a time; one that was
    /// replaced waits for them, because the new program's requests wait for what they start.
    pub(super) fn finish(&self, is_replaced: bool) {
        self.stop();
        self.is_ending.store(!is_replaced, Ordering::SeqCst);
        let mut looks = 0;
        while self.lock().busy > 0 && (is_replaced || looks < LAST_LOOKS) {
            thread::sleep(LAST_LOOK);
            looks += 1;
        }
    }

    /// How many calls there were, and how many of them failed.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.calls.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed))
    }

    /// What the state says of a site's manager.
    pub(super) fn to_json(&self, site: &Site) -> Value {
        let Some(manager) = &site.on_demand.manager else { return Value::Null };
        let table = self.lock();
        let called = table.sites.get(site.name());
        let failure = called.and_then(|called| called.last_failure.as_ref());
        json!({
            "address": manager.to_string(),
            "calls": called.map_or(0, |called| called.calls),
            "failures": called.map_or(0, |called| called.failures),
            "calling": called.is_some_and(|called| called.is_calling),
            "last_failure": failure.map(|(at, what)| {
                let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
                json!({ "at": at.as_secs(), "text": what })
            }),
        })
    }
}

/// One call.
struct Call {
    manager: Arc<Manager>,
    limit: Duration,
    host: String,
    asked: Arc<AskedFor>,
    waiting: usize,
}

impl Table {
    /// The site that is to be called next, and when.
    fn next(&self) -> Option<(Instant, Arc<str>)> {
        if self.is_over {
            return None;
        }
        let due = self.sites.iter().filter_map(|(name, called)| Some((called.due()?, name)));
        due.min().map(|(due, name)| (due, Arc::clone(name)))
    }

    /// Begins a call of `site`, which is due.
    fn begin(&mut self, site: &str) -> Option<Call> {
        let called = self.sites.get_mut(site)?;
        let now = Instant::now();
        called.calls += 1;
        (called.is_calling, called.not_before) = (true, now + PAUSE);
        let due = called.groups.values_mut().filter(|group| group.not_before <= now);
        // Each has its turn.
        let group = due.min_by_key(|group| group.called)?;
        group.called = called.calls;
        Some(Call {
            manager: called.manager.clone()?,
            limit: called.limit,
            host: group.host.clone(),
            asked: Arc::clone(&group.asked),
            waiting: group.waiting,
        })
    }

    fn ended(&mut self, site: &str, result: &Result<(), String>) {
        let Some(called) = self.sites.get_mut(site) else { return };
        called.is_calling = false;
        if let Err(what) = result {
            called.failures += 1;
            called.last_failure = Some((SystemTime::now(), what.clone()));
        }
    }
}

impl Called {
    fn new(now: Instant) -> Called {
        Called {
            manager: None,
            limit: PAUSE,
            groups: BTreeMap::new(),
            is_calling: false,
            not_before: now,
            calls: 0,
            failures: 0,
            last_failure: None,
            said: LogLimiter::default(),
            said_failure: LogLimiter::default(),
        }
    }

    /// When it is to be called; `None` if it need not be, or a call is being made.
    fn due(&self) -> Option<Instant> {
        self.manager.as_ref().filter(|_| !self.is_calling)?;
        let first = self.groups.values().map(|group| group.not_before).min()?;
        Some(first.max(self.not_before))
    }
}

impl AskedFor {
    fn by(wish: &Wish<'_>) -> Arc<AskedFor> {
        let has_it = spec_of(wish.site).has_host(wish.host);
        let host = if has_it { wish.host } else { wish.site.name() };
        Arc::new(AskedFor { host: host.to_owned(), facts: KeptFacts::of(wish.facts) })
    }
}

impl Group {
    fn new(wish: &Wish<'_>, now: Instant) -> Group {
        let after = if wish.site.servers.is_empty() { Duration::ZERO } else { DIALLING };
        Group {
            host: shown(wish.host).to_owned(),
            asked: AskedFor::by(wish),
            is_served: wish.is_served,
            waiting: 0,
            not_before: now + after,
            called: 0,
        }
    }
}

/// The group of a request: its host, if a wildcard of the site has it, otherwise that of the site.
fn group_of(site: &Site, host: &str) -> String {
    let is_listed = site.names.iter().any(|name| name == host);
    match !is_listed && spec_of(site).has_host(host) {
        true => shown(host).to_owned(),
        false => String::new(),
    }
}

fn spec_of(site: &Site) -> RouteSpec {
    RouteSpec::new(&site.names, "")
}

/// A host as a manager is told it: nothing if it is not a name. A program must not take it for an
/// option either.
fn shown(host: &str) -> &str {
    if host_name::check(host.as_bytes()).is_ok() && !host.starts_with('-') { host } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{TABLE, read};
    use crate::http::Framing;
    use std::net::Ipv4Addr;
    use std::path::Path;

    fn site(line: &str) -> Arc<Site> {
        let mut settings = Settings::default();
        let text = format!("site {line}\n");
        assert_eq!(read(TABLE, Path::new("f"), text.as_bytes(), &mut settings), []);
        settings.site.remove(0)
    }

    #[test]
    fn a_wildcard_has_a_group_for_each_host() {
        let site = site("a.test,*.b.test");
        for (host, group) in [
            ("a.test", ""),
            ("x.b.test", "x.b.test"),
            ("b.test", ""),
            ("unknown", ""),
            ("", ""),
            ("-x.b.test", ""),
            ("[::1]", ""),
        ] {
            assert_eq!(group_of(&site, host), group, "{host}");
        }
    }

    /// Without threads: what would be called, by the clock of the test.
    #[test]
    fn each_host_has_its_turn_and_a_site_one_call_a_second() {
        let site = site("*.b.test manager=exec:/bin/true");
        let manager = site.on_demand.manager.as_ref().unwrap();
        let name: Arc<str> = site.name().into();
        let (now, mut table) = (Instant::now(), Table::default());
        let mut called = Called::new(now);
        called.manager = Some(Arc::clone(manager));
        let wait = |called: &mut Called, host| {
            let limit = PAUSE;
            let peer = Ipv4Addr::LOCALHOST.into();
            let facts = &RequestFacts::new("GET", "/", &[], Framing::None, peer, &[]);
            let wish = Wish { site: &site, manager, host, facts, is_served: true, limit };
            called.groups.insert(group_of(&site, host), Group::new(&wish, now));
        };
        wait(&mut called, "x.b.test");
        table.sites.insert(Arc::clone(&name), called);
        assert_eq!(table.next(), Some((now, Arc::clone(&name))));
        assert_eq!(table.begin(&name).unwrap().host, "x.b.test");
        // One at a time.
        assert_eq!(table.next(), None);
        table.ended(&name, &Err("no".to_owned()));
        assert!(table.next().unwrap().0 >= now + PAUSE);
        // One that has not been called comes first.
        wait(table.sites.get_mut(&name).unwrap(), "y.b.test");
        let hosts: Vec<_> = (0..3).map(|_| table.begin(&name).unwrap().host).collect();
        assert_eq!(hosts, ["y.b.test", "x.b.test", "y.b.test"]);
        table.ended(&name, &Ok(()));
        let called = &table.sites[&name];
        assert_eq!((called.calls, called.failures), (4, 1));
        table.is_over = true;
        assert_eq!(table.next(), None);
    }
}
