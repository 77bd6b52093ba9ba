//! What host keys may use: bridges, waiting requests, requests and bytes a second (`key-limits`, and
//! the answers of the program of `authorise`).
//!
//! What is counted is in an *account*: one for each name of a key, or of one that it was narrowed
//! from, that has limits. A holder who narrows a key gains nothing by it, because what is
//! narrowed from it counts for it too. Accounts are shared by all workers. Those of a bridge
//! count it while it is connected; a request counts for the accounts of a key that serves its host,
//! and its bytes for those of the bridge that serves it.
//!
//! Only bridges whose keys have limits are here, and a route knows how many of its bridges are: a
//! request for another takes no lock.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crate::config::{KeyLimits as Line, Limits};
use crate::exchange::BUDGET;
use crate::time::Micros;

/// What has not been used for so long may be used at once.
const BURST: u64 = 1_000_000_000;

/// Nanoseconds of a second.
const SECOND: u128 = 1_000_000_000;

/// Into how many parts a second's bytes are split where they are limited: enough for a steady flow,
/// and few enough that exchanges are not woken all the time. They are woken at most this many times
/// a second, however many there are.
const PARTS: usize = 8;

/// The fewest bytes that are moved at once: one packet.
const LEAST: usize = 1024;

/// Who has set limits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum By {
    Settings,
    Answer,
}

/// How much of something has been used lately, as the time at which all of it would be paid for, in
/// nanoseconds (the generic cell rate algorithm).
#[derive(Default)]
struct Bucket(AtomicU64);

/// The nanoseconds that so much costs; `rate` is not 0.
fn cost(amount: u64, rate: usize) -> u64 {
    u64::try_from(u128::from(amount) * SECOND / rate as u128).unwrap_or(u64::MAX)
}

fn nanos(now: Micros) -> u64 {
    now.0.saturating_mul(1000)
}

impl Bucket {
    /// Uses one of so many a second, if there is one left.
    fn take(&self, rate: usize, now: Micros) -> bool {
        let now = nanos(now);
        let next = |paid: u64| {
            let next = paid.max(now).saturating_add(cost(1, rate));
            (next <= now.saturating_add(BURST)).then_some(next)
        };
        self.0.fetch_update(Relaxed, Relaxed, next).is_ok()
    }

    /// Uses so many in any case.
    fn charge(&self, amount: u64, rate: usize, now: Micros) {
        let next = |paid: u64| Some(paid.max(nanos(now)).saturating_add(cost(amount, rate)));
        let _ = self.0.fetch_update(Relaxed, Relaxed, next);
    }

    /// What was charged has not been used.
    fn give_back(&self, amount: u64, rate: usize) {
        let less = |paid: u64| Some(paid.saturating_sub(cost(amount, rate)));
        let _ = self.0.fetch_update(Relaxed, Relaxed, less);
    }

    /// How long it takes until there is something again.
    fn owed(&self, now: Micros) -> Duration {
        let allowed = nanos(now).saturating_add(BURST);
        Duration::from_nanos(self.0.load(Relaxed).saturating_sub(allowed))
    }
}

/// The limits of an account, which a reload or an answer may change. 0 is no limit.
#[derive(Default)]
struct Most {
    bridges: AtomicUsize,
    waiting: AtomicUsize,
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

impl Most {
    fn set(&self, limits: Limits) {
        self.bridges.store(limits.bridges, Relaxed);
        self.waiting.store(limits.waiting, Relaxed);
        self.requests.store(limits.requests, Relaxed);
        self.bytes.store(limits.bytes, Relaxed);
    }
}

/// What one key, with all that are narrowed from it, or one whom an answer has named, uses and may use.
struct Account {
    name: String,
    most: Most,
    bridges: AtomicUsize,
    waiting: AtomicUsize,
    requests: Bucket,
    bytes: Bucket,
}

/// Adds one to a count that is to be at most `most`; 0 for any number.
fn enter(count: &AtomicUsize, most: &AtomicUsize) -> bool {
    let most = most.load(Relaxed);
    let more = |count: usize| (most == 0 || count < most).then(|| count + 1);
    count.fetch_update(Relaxed, Relaxed, more).is_ok()
}

impl Account {
    fn rate(&self) -> usize {
        self.most.bytes.load(Relaxed)
    }
}

/// A limit allows no more bridges.
#[derive(Debug)]
pub(super) struct Exhausted {
    name: String,
    most: usize,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exhausted { name, most } = self;
        write!(f, "as many bridges as {name} may have are connected: {most}")
    }
}

/// The accounts of a bridge: of its keys, and of those that they were narrowed from. Never empty.
pub(super) struct Accounts(Box<[Arc<Account>]>);

/// Undoes what was counted in the first `count` accounts.
fn leave(accounts: &[Arc<Account>], of: fn(&Account) -> &AtomicUsize) {
    accounts.iter().for_each(|account| _ = of(account).fetch_sub(1, Relaxed));
}

impl Accounts {
    /// Counts one more in each account, or in none: then the first that allows no more is returned.
    fn enter(
        &self,
        of: fn(&Account) -> &AtomicUsize,
        most: fn(&Account) -> &AtomicUsize,
    ) -> Result<(), &Account> {
        for (at, account) in self.0.iter().enumerate() {
            if !enter(of(account), most(account)) {
                leave(&self.0[..at], of);
                return Err(account);
            }
        }
        Ok(())
    }

    fn count(&self, of: fn(&Account) -> &AtomicUsize) {
        self.0.iter().for_each(|account| _ = of(account).fetch_add(1, Relaxed));
    }

    /// Whether one more request may come now; then it has been counted.
    fn take_request(&self, now: Micros) -> bool {
        let limited = || {
            let rate = |account: &Account| account.most.requests.load(Relaxed);
            self.0.iter().map(move |account| (account, rate(account))).filter(|(_, rate)| *rate > 0)
        };
        let taken = limited().take_while(|(account, rate)| account.requests.take(*rate, now));
        let taken = taken.count();
        let is_allowed = taken == limited().count();
        if !is_allowed {
            limited().take(taken).for_each(|(account, rate)| account.requests.give_back(1, rate));
        }
        is_allowed
    }

    /// A place among the requests that wait, if there is one.
    pub(super) fn wait(self: &Arc<Self>) -> Option<Waits> {
        self.enter(|account| &account.waiting, |account| &account.most.waiting).ok()?;
        Some(Waits(Arc::clone(self)))
    }

    /// The same in any case, for a request that has been admitted before.
    pub(super) fn wait_again(self: &Arc<Self>) -> Waits {
        self.count(|account| &account.waiting);
        Waits(Arc::clone(self))
    }

    /// How many bytes may be moved at once; `None` if they are not limited.
    pub(super) fn part(&self) -> Option<usize> {
        let least = self.0.iter().map(|account| account.rate()).filter(|rate| *rate > 0).min()?;
        Some((least / PARTS).clamp(LEAST, BUDGET))
    }

    /// How long nothing may be moved.
    pub(super) fn owed(&self, now: Micros) -> Duration {
        let limited = self.0.iter().filter(|account| account.rate() > 0);
        limited.map(|account| account.bytes.owed(now)).max().unwrap_or_default()
    }

    /// So many bytes have been moved, or are about to be.
    pub(super) fn charge(&self, bytes: u64, now: Micros) {
        for account in &self.0 {
            if let rate @ 1.. = account.rate() {
                account.bytes.charge(bytes, rate, now);
            }
        }
    }

    /// The same for bytes that may not be moved after all. Returns the rates by which they were charged.
    pub(super) fn advance(&self, bytes: u64, now: Micros) -> Rates {
        let charge = |account: &Arc<Account>| {
            let rate = account.rate();
            if rate > 0 {
                account.bytes.charge(bytes, rate, now);
            }
            rate
        };
        Rates(self.0.iter().map(charge).collect())
    }

    /// So many bytes that have been charged at these rates were not moved.
    pub(super) fn give_back(&self, bytes: u64, rates: &Rates) {
        for (account, rate) in self.0.iter().zip(&rates.0) {
            if let rate @ 1.. = *rate {
                account.bytes.give_back(bytes, rate);
            }
        }
    }

    fn is(&self, others: &[Arc<Account>]) -> bool {
        self.0.len() == others.len() && self.0.iter().zip(others).all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

/// The bytes a second of each of some accounts, at one moment; 0 for any number.
#[derive(Default)]
pub(super) struct Rates(Vec<usize>);

/// A request that waits is counted until this is dropped.
pub(super) struct Waits(Arc<Accounts>);

impl Drop for Waits {
    fn drop(&mut self) {
        leave(&self.0.0, |account| &account.waiting);
    }
}

/// A bridge is counted until this is dropped.
pub(super) struct Limited {
    accounts: Arc<Accounts>,
    route: u64,
    /// How many bridges of the route are limited.
    of_route: Arc<AtomicUsize>,
    table: Arc<KeyLimits>,
}

impl Limited {
    pub(super) fn accounts(&self) -> &Arc<Accounts> {
        &self.accounts
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        leave(&self.accounts.0, |account| &account.bridges);
        self.of_route.fetch_sub(1, Relaxed);
        self.table.left(self.route, &self.accounts);
    }
}

/// Accounts that allow one more bridge, and count it.
pub(super) struct Counted {
    accounts: Option<Arc<Accounts>>,
    table: Arc<KeyLimits>,
}

impl Counted {
    /// The bridge serves this route; `limited` counts its bridges that have limits. Nothing if it has no accounts.
    pub(super) fn on(mut self, route: u64, limited: &Arc<AtomicUsize>) -> Option<Box<Limited>> {
        let accounts = self.table.joined(route, self.accounts.take()?);
        limited.fetch_add(1, Relaxed);
        let (of_route, table) = (Arc::clone(limited), Arc::clone(&self.table));
        Some(Box::new(Limited { accounts, route, of_route, table }))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(accounts) = &self.accounts {
            leave(&accounts.0, |account| &account.bridges);
        }
    }
}

/// Whom the bridges of a key are counted for, because the program that authorises has said so.
#[derive(Clone, Copy)]
pub(super) struct Answered<'a> {
    pub(super) account: &'a str,
    pub(super) limits: Limits,
}

/// The bridges of a route that have limits, by their accounts.
type OfRoute = Vec<(Arc<Accounts>, u32)>;

/// All accounts, and the routes whose bridges have some.
#[derive(Default)]
pub(super) struct KeyLimits {
    table: Mutex<Table>,
    /// By number. Read for each request for one of them.
    routes: RwLock<HashMap<u64, OfRoute>>,
    /// How many bridges have limits.
    bridges: AtomicUsize,
}

#[derive(Default)]
struct Table {
    lines: Vec<Line>,
    accounts: HashMap<(By, String), Arc<Account>>,
}

impl Table {
    fn answered(&self, Answered { account, limits }: Answered<'_>) {
        if let Some(known) = self.accounts.get(&(By::Answer, account.to_owned())) {
            known.most.set(limits);
        }
    }

    fn account(&mut self, by: By, name: &str, limits: Limits) -> Arc<Account> {
        let new = || Account {
            name: name.to_owned(),
            most: Most::default(),
            bridges: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            requests: Bucket::default(),
            bytes: Bucket::default(),
        };
        let known = self.accounts.entry((by, name.to_owned())).or_insert_with(|| Arc::new(new()));
        known.most.set(limits);
        Arc::clone(known)
    }
}

impl KeyLimits {
    /// Whether any bridge has limits. Asked for each request.
    pub(super) fn is_used(&self) -> bool {
        self.bridges.load(Relaxed) > 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        // Each change leaves it whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lines of the settings are these from now on, for those who are connected, too.
    pub(super) fn put_in_force(&self, lines: &[Line]) {
        let mut table = self.lock();
        table.lines = lines.to_vec();
        for ((by, name), account) in &table.accounts {
            if *by == By::Settings {
                account.most.set(Line::of(lines, name));
            }
        }
    }

    /// What the program that authorises has answered counts for those who are connected, too.
    pub(super) fn answered(&self, answered: Answered<'_>) {
        self.lock().answered(answered);
    }

    /// One more bridge of the keys with these names.
    ///
    /// # Errors
    /// A limit allows no more.
    pub(super) fn enter<'a>(
        self: &Arc<Self>,
        names: impl Iterator<Item = &'a str>,
        answered: Option<Answered<'_>>,
    ) -> Result<Counted, Exhausted> {
        let accounts = self.find(names, answered);
        if let Some(accounts) = &accounts {
            let entered = accounts.enter(|account| &account.bridges, |of| &of.most.bridges);
            entered.map_err(|account| Exhausted {
                name: account.name.clone(),
                most: account.most.bridges.load(Relaxed),
            })?;
        }
        Ok(Counted { accounts, table: Arc::clone(self) })
    }

    /// The same for a bridge that is connected already, whatever the limits are.
    pub(super) fn enter_again<'a>(
        self: &Arc<Self>,
        names: impl Iterator<Item = &'a str>,
        answered: Option<Answered<'_>>,
    ) -> Counted {
        let accounts = self.find(names, answered);
        if let Some(accounts) = &accounts {
            accounts.count(|account| &account.bridges);
        }
        Counted { accounts, table: Arc::clone(self) }
    }

    fn find<'a>(
        &self,
        names: impl Iterator<Item = &'a str>,
        answered: Option<Answered<'_>>,
    ) -> Option<Arc<Accounts>> {
        let mut table = self.lock();
        let mut accounts: Vec<Arc<Account>> = Vec::new();
        for name in names {
            let limits = Line::of(&table.lines, name);
            let is_known = |account: &Arc<Account>| account.name == name;
            if !limits.is_none() && !accounts.iter().any(is_known) {
                accounts.push(table.account(By::Settings, name, limits));
            }
        }
        match answered {
            Some(Answered { account, limits }) if !limits.is_none() => {
                accounts.push(table.account(By::Answer, account, limits));
            }
            Some(answered) => table.answered(answered),
            None => {}
        }
        (!accounts.is_empty()).then(|| Arc::new(Accounts(accounts.into())))
    }

    fn joined(&self, route: u64, accounts: Arc<Accounts>) -> Arc<Accounts> {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        self.bridges.fetch_add(1, Relaxed);
        let of = routes.entry(route).or_default();
        match of.iter_mut().find(|(known, _)| known.is(&accounts.0)) {
            Some((known, count)) => {
                *count += 1;
                Arc::clone(known)
            }
            None => {
                of.push((Arc::clone(&accounts), 1));
                accounts
            }
        }
    }

    fn left(&self, route: u64, accounts: &Arc<Accounts>) {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        self.bridges.fetch_sub(1, Relaxed);
        let Some(of) = routes.get_mut(&route) else { return };
        if let Some(at) = of.iter().position(|(known, _)| Arc::ptr_eq(known, accounts)) {
            of[at].1 -= 1;
            if of[at].1 == 0 {
                of.swap_remove(at);
            }
        }
        if of.is_empty() {
            routes.remove(&route);
        }
    }

    /// Whether a request may come now for a route; then it has been counted, and if it waits it is to
    /// wait by the accounts that are returned. Of several keys with limits that serve the route it counts
    /// for one that allows it. A bridge without limits does not lift those of others: it may be one whose
    /// answer is still to come.
    ///
    /// # Errors
    /// No key that serves the route may have another request now.
    pub(super) fn admit(
        &self,
        route: u64,
        now: Micros,
    ) -> Result<Option<Arc<Accounts>>, TooManyRequests> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let Some(of) = routes.get(&route) else { return Ok(None) };
        let allowing = of.iter().find(|(accounts, _)| accounts.take_request(now));
        allowing.map(|(accounts, _)| Some(Arc::clone(accounts))).ok_or(TooManyRequests)
    }

    /// By which accounts a request waits that has been admitted before.
    pub(super) fn of_route(&self, route: u64) -> Option<Arc<Accounts>> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        routes.get(&route)?.first().map(|(accounts, _)| Arc::clone(accounts))
    }

    /// Forgets accounts that no bridge has and that owe nothing.
    pub(super) fn sweep(&self, now: Micros) {
        let mut table = self.lock();
        let owes = |account: &Account| {
            let until = [&account.requests, &account.bytes].map(|bucket| bucket.0.load(Relaxed));
            until.iter().any(|until| *until > nanos(now))
        };
        table.accounts.retain(|_, account| Arc::strong_count(account) > 1 || owes(account));
    }
}

/// A key may have no more requests now.
#[derive(Debug)]
pub(super) struct TooManyRequests;

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    fn limits(bridges: usize, waiting: usize, requests: usize, bytes: usize) -> Limits {
        Limits { bridges, waiting, requests, bytes }
    }

    fn table(lines: &[(&str, Limits)]) -> Arc<KeyLimits> {
        let line =
            |(name, limits): &(&str, Limits)| Line { name: (*name).to_owned(), limits: *limits };
        let table = Arc::new(KeyLimits::default());
        table.put_in_force(&lines.iter().map(line).collect::<Vec<_>>());
        table
    }

    fn enter(table: &Arc<KeyLimits>, names: &[&str]) -> Result<Option<Box<Limited>>, String> {
        let counted =
            table.enter(names.iter().copied(), None).map_err(|error| error.to_string())?;
        Ok(counted.on(7, &Arc::default()))
    }

    #[test]
    fn a_bucket_has_a_second_s_worth_and_is_filled_at_its_rate() {
        let bucket = Bucket::default();
        let taken = |now: u64| (0..100).take_while(|_| bucket.take(10, Micros(now))).count();
        assert_eq!(taken(5 * S), 10);
        assert_eq!(taken(5 * S + S / 2), 5);
        assert_eq!(taken(60 * S), 10, "no more than a second's");
        bucket.charge(15, 10, Micros(70 * S));
        assert_eq!(bucket.owed(Micros(70 * S)), Duration::from_millis(500));
        assert_eq!(bucket.owed(Micros(70 * S + S / 2)), Duration::ZERO);
        bucket.give_back(10, 10);
        assert_eq!(taken(70 * S), 5);
    }

    #[test]
    fn bridges_are_counted_for_a_key_and_for_those_it_was_narrowed_from() {
        let table = table(&[("b.test", limits(3, 0, 0, 0)), ("*.b.test", limits(1, 0, 0, 0))]);
        let first = enter(&table, &["b.test", "a.b.test"]).unwrap();
        let said = "as many bridges as a.b.test may have are connected: 1";
        let narrower = enter(&table, &["b.test", "a.b.test", "x.a.b.test"]).err();
        assert_eq!(narrower.as_deref(), Some(said));
        let _others =
            ["c.b.test", "d.b.test"].map(|name| enter(&table, &["b.test", name]).unwrap());
        let said = "as many bridges as b.test may have are connected: 3";
        assert_eq!(enter(&table, &["b.test"]).err().as_deref(), Some(said));
        drop(first);
        assert!(enter(&table, &["b.test", "a.b.test"]).is_ok());
        assert!(enter(&table, &["c.test"]).unwrap().is_none(), "it has no limits");
    }

    #[test]
    fn what_fails_holds_nothing_and_what_is_not_parked_is_given_back() {
        let table = table(&[("a.test", limits(1, 0, 0, 0)), ("b.test", limits(1, 0, 0, 0))]);
        let held = enter(&table, &["b.test"]).unwrap();
        assert!(table.is_used());
        assert!(enter(&table, &["a.test", "b.test"]).is_err());
        drop(table.enter(["a.test"].into_iter(), None).unwrap());
        assert!(enter(&table, &["a.test"]).is_ok());
        drop(held);
        assert!(table.routes.read().unwrap().is_empty() && !table.is_used());
        table.sweep(Micros(0));
        assert!(table.lock().accounts.is_empty());
    }

    #[test]
    fn requests_and_those_that_wait_are_limited() {
        let table = table(&[("a.test", limits(0, 1, 2, 0))]);
        let _bridge = enter(&table, &["a.test"]).unwrap();
        let route = 7;
        let accounts = table.admit(route, Micros(S)).unwrap().unwrap();
        assert!(table.admit(route, Micros(S)).is_ok());
        assert!(table.admit(route, Micros(S)).is_err());
        assert!(table.admit(8, Micros(S)).unwrap().is_none());
        assert!(table.admit(route, Micros(2 * S)).is_ok());
        let waits = accounts.wait();
        assert!(waits.is_some() && accounts.wait().is_none());
        let again = accounts.wait_again();
        drop((waits, again));
        assert!(accounts.wait().is_some());
    }

    #[test]
    fn a_request_counts_for_one_of_the_keys_that_serve_its_host() {
        let table = table(&[("a.test", limits(0, 0, 1, 0)), ("b.test", limits(0, 0, 1, 0))]);
        let _both = [enter(&table, &["a.test"]).unwrap(), enter(&table, &["b.test"]).unwrap()];
        let admitted: Vec<bool> = (0..3).map(|_| table.admit(7, Micros(S)).is_ok()).collect();
        assert_eq!(admitted, [true, true, false]);
    }

    #[test]
    fn a_request_that_one_account_refuses_counts_for_none() {
        let table = table(&[("b.test", limits(0, 0, 2, 0)), ("a.b.test", limits(0, 0, 1, 0))]);
        let _bridge = enter(&table, &["b.test", "a.b.test"]).unwrap();
        assert!(table.admit(7, Micros(S)).is_ok());
        assert!((0..9).all(|_| table.admit(7, Micros(S)).is_err()));
        let _other = table.enter(["b.test"].into_iter(), None).unwrap().on(9, &Arc::default());
        assert!(table.admit(9, Micros(S)).is_ok());
    }

    #[test]
    fn a_change_counts_for_those_who_are_connected() {
        let table = table(&[("a.test", limits(1, 0, 0, 0))]);
        let bridge = enter(&table, &["a.test"]).unwrap().unwrap();
        table.put_in_force(&[Line { name: "a.test".to_owned(), limits: limits(2, 0, 0, 8000) }]);
        assert_eq!(bridge.accounts.part(), Some(1024), "an eighth, but a packet at least");
        let second = enter(&table, &["a.test"]).unwrap();
        assert!(second.is_some() && enter(&table, &["a.test"]).is_err());
        table.put_in_force(&[]);
        assert_eq!(bridge.accounts.part(), None);
        assert!(enter(&table, &["a.test"]).unwrap().is_none());
        table.put_in_force(&[Line { name: "*".to_owned(), limits: limits(0, 0, 5, 0) }]);
        let again = table.enter_again(["a.test"].into_iter(), None);
        let again = again.on(7, &Arc::default()).unwrap();
        drop(bridge);
        assert!(again.accounts.take_request(Micros(S)));
    }

    #[test]
    fn the_lower_of_settings_and_answer_holds() {
        let table = table(&[("a.test", limits(3, 0, 0, 0))]);
        let answered = |bridges| Answered { account: "a.test", limits: limits(bridges, 0, 0, 0) };
        let enter = |bridges| table.enter(["a.test"].into_iter(), Some(answered(bridges)));
        let _first = enter(1).unwrap();
        assert!(enter(1).is_err());
        let _more = [enter(9).unwrap(), enter(9).unwrap()];
        assert!(enter(9).is_err(), "of the settings");
        table.answered(answered(2));
        assert_eq!(enter(2).err().unwrap().most, 3);
        let none = Answered { account: "b.test", limits: Limits::default() };
        let limited = Answered { account: "b.test", limits: limits(1, 0, 0, 0) };
        let of_b = |answered| table.enter(["b.test"].into_iter(), Some(answered));
        let first = of_b(limited).unwrap();
        assert!(of_b(limited).is_err());
        assert!(of_b(none).is_ok_and(|counted| counted.accounts.is_none()));
        assert_eq!(first.accounts.as_ref().unwrap().0[0].most.bridges.load(Relaxed), 0);
    }

    #[test]
    fn a_bridge_that_is_connected_gets_the_limits_of_an_answer_and_a_route_knows_how_many_have_some()
     {
        let (table, of_route) = (table(&[]), Arc::new(AtomicUsize::new(0)));
        let again = |answered| table.enter_again(["a.test"].into_iter(), answered).on(7, &of_route);
        assert!(again(None).is_none());
        let answered = |bridges| Answered { account: "a.test", limits: limits(bridges, 0, 1, 0) };
        let bridges = [(); 2].map(|()| again(Some(answered(1))).unwrap());
        assert_eq!(of_route.load(Relaxed), 2);
        assert!(table.enter(["a.test"].into_iter(), Some(answered(2))).is_err(), "they count");
        assert!(table.admit(7, Micros(S)).is_ok() && table.admit(7, Micros(S)).is_err());
        drop(bridges);
        assert_eq!(of_route.load(Relaxed), 0);
        assert!(table.admit(7, Micros(S)).unwrap().is_none());
    }

    #[test]
    fn workers_that_race_for_the_last_place_do_not_exceed_the_limit() {
        let table = table(&[("a.test", limits(3, 0, 0, 0))]);
        let barrier = std::sync::Barrier::new(8);
        let race = || {
            barrier.wait();
            let bridge = enter(&table, &["a.test"]);
            barrier.wait();
            usize::from(bridge.is_ok())
        };
        let won: usize = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..8).map(|_| scope.spawn(race)).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).sum()
        });
        assert_eq!(won, 3);
    }

    #[test]
    fn bytes_are_paced_at_their_rate() {
        let table = table(&[("a.test", limits(0, 0, 0, 80_000))]);
        let bridge = enter(&table, &["a.test"]).unwrap().unwrap();
        let accounts = bridge.accounts();
        assert_eq!(accounts.part(), Some(10_000));
        accounts.charge(80_000, Micros(S));
        assert_eq!(accounts.owed(Micros(S)), Duration::ZERO);
        let rates = accounts.advance(40_000, Micros(S));
        assert_eq!(accounts.owed(Micros(S)), Duration::from_millis(500));
        let slower = Line { name: "a.test".to_owned(), limits: limits(0, 0, 0, 40_000) };
        table.put_in_force(&[slower]);
        accounts.give_back(20_000, &rates);
        assert_eq!(accounts.owed(Micros(S)), Duration::from_millis(250), "as it was charged");
        accounts.give_back(20_000, &rates);
        assert_eq!(accounts.owed(Micros(S)), Duration::ZERO);
    }
}
