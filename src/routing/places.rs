//! Who may use the places of an application that several proxies send requests to
//! (`doc/protocol.md`, "Places"). Pure: times are arguments, and what is to be said is returned.
//!
//! A backend has so many places for requests, and bridges for all of them at each of its proxies,
//! which know nothing of each other. So it tells each proxy its *limit*: how many requests that one
//! may have here at once. What crosses such a message is given back. Proxies say since when their
//! oldest request waits, so a place that comes free goes to the one that has waited longest:
//!
//! ```text
//!     limit of a proxy = its requests here + what is free
//!                        - what is promised to others - what those get that wait here
//! ```
//!
//! **A place comes free.** A request that waits at the backend itself gets it. Otherwise it is
//! *promised* to the proxy that has waited longest, or stays with the one that had it, if that
//! waits too and not much shorter ([`STAYS`]). A proxy has one promise at a time. If nobody is known
//! to wait, the place is for all.
//!
//! **A promise ends** when its place is used, when the proxy says that nothing waits any more or has
//! no bridge left, and after a moment ([`PROMISE`]): the request may have found another backend. Then the place is for
//! all, so that no chain of such moments keeps it free.
//!
//! **What is told, and when.** A limit means something only while it is below the number of
//! bridges. What stops a proxy that has something to send, or lets it go on, is told soon; anything
//! else rarely ([`PAUSE`]). A place that is taken again at once is no news at all ([`WINDOW`],
//! [`FULL_FOR`]), so two busy proxies cost hardly any message.
//!
//! **What this amounts to**, with messages that take less than a millisecond: no request waits at a
//! proxy for more than 5 ms while a place here is free for it, and none is passed over by others that are
//! younger by more than [`STAYS`] for longer than [`PASSED_OVER`].

use std::time::Duration;

use crate::time::Micros;

/// How long a place must have been free before a proxy that believes it has none is told. A place
/// that has a queue elsewhere is taken again within a round trip: that is no news.
pub const WINDOW: Duration = Duration::from_millis(1);

/// How long the last place must have been taken before a proxy is told. Between the short requests
/// of another proxy it is free again and again; a request that meets none is given back.
pub const FULL_FOR: Duration = Duration::from_millis(2);

/// How often a proxy is told what neither stops it nor lets it go on: a hundred messages a second
/// cost nobody anything.
pub const PAUSE: Duration = Duration::from_millis(10);

/// By how much another proxy must have waited longer before a place moves there. It is used at once
/// where it is, and a move costs a message and often a request that is given back. Proxies say how
/// long they have waited every 10 ms ([`PAUSE`]), so less would be noise.
pub const STAYS: Duration = Duration::from_millis(14);

/// How long a place is kept for a proxy, beyond a round trip of its connections: for the
/// event loops at both ends. A place is free meanwhile, so it is short.
pub const PROMISE: Duration = Duration::from_millis(3);

/// The longest round trip that is reckoned with: further away, requests are rather given back.
const LONGEST_ROUND_TRIP: Duration = Duration::from_millis(250);

/// For how long a request may be passed over by others that are younger by more than [`STAYS`],
/// beyond a round trip: what is known of the proxies is as old as [`PAUSE`], and a promise to
/// another one may have to lapse.
pub const PASSED_OVER: Duration = PAUSE.saturating_add(PROMISE).saturating_add(WINDOW);

/// What becomes of a request, or of a 101.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// It has a place.
    Take,
    /// It is given back; the proxy is told this limit along with it, which counts as told.
    GiveBack(usize),
    /// It waits here for a place, behind those that already do.
    Wait,
}

/// Shares the places of one application among proxies.
///
/// A proxy is named by the number that [`Arbiter::add`] has returned. One that knows the backend under
/// two tokens is two, because it counts its requests for each of them.
#[derive(Debug)]
pub struct Arbiter {
    places: usize,
    proxies: Vec<Proxy>,
    /// Places that requests of all proxies have here.
    busy: usize,
    /// Places that another process has.
    elsewhere: usize,
    /// How many proxies have a promise.
    promised: usize,
    /// How many requests wait here.
    queued: usize,
    /// Something has changed since `revise` was last called.
    is_changed: bool,
    /// When [`Arbiter::due`] has something to do, unless something changes.
    deadline: Option<Micros>,
}

#[derive(Debug, Default)]
struct Proxy {
    /// Its requests that have a place here.
    busy: usize,
    /// Its requests that have one in another process.
    elsewhere: usize,
    /// Its bridges that take messages, with and without a request.
    bridges: usize,
    told: Told,
    /// When it was last told something.
    told_at: Option<Micros>,
    /// Since when its oldest request waits, as far as is known.
    waits: Option<Micros>,
    /// The number of the message that has said so.
    heard: u64,
    /// Until when a place is kept for it.
    promise: Option<Micros>,
    round_trip: Duration,
    news: Option<News>,
    /// It has been removed. Its last requests still have places.
    is_removed: bool,
}

/// What a proxy has been told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Told {
    /// Nothing: it may use all of its bridges.
    #[default]
    Nothing,
    Limit(usize),
    /// Something; it is not certain what has arrived.
    Unknown,
}

/// What a proxy is to be told, and when.
#[derive(Clone, Copy, Debug)]
struct News {
    kind: Kind,
    at: Micros,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// It waits, and has a place.
    Place,
    /// It believes that it has no place, and has one.
    Room,
    /// It believes that it has a place, and has none.
    Full,
    /// It has more places, or less, than it believes.
    Other,
    /// It may not have heard the last one.
    Again,
}

impl Arbiter {
    /// Shares so many places.
    #[must_use]
    pub fn new(places: usize) -> Arbiter {
        Arbiter {
            places,
            proxies: Vec::new(),
            busy: 0,
            elsewhere: 0,
            promised: 0,
            queued: 0,
            is_changed: false,
            deadline: None,
        }
    }

    /// Adds a proxy, which has no bridges yet, and returns its number.
    pub fn add(&mut self) -> usize {
        let is_over = |proxy: &Proxy| proxy.is_removed && proxy.busy == 0;
        let number = self.proxies.iter().position(is_over).unwrap_or(self.proxies.len());
        if number == self.proxies.len() {
            self.proxies.push(Proxy::default());
        } else {
            self.proxies[number] = Proxy::default();
        }
        number
    }

    /// Removes a proxy. Its requests keep their places, and [`Arbiter::ends`] follows for each; the
    /// number may be given to another proxy after that.
    pub fn remove(&mut self, proxy: usize, now: Micros) {
        self.end_promise(proxy, now);
        let gone = &mut self.proxies[proxy];
        *gone = Proxy { busy: gone.busy, is_removed: true, ..Proxy::default() };
        self.is_changed = true;
    }

    /// A request, or a 101, has come from a proxy. `gives_back` says whether it can be given back.
    pub fn arrives(&mut self, proxy: usize, gives_back: bool, now: Micros) -> Arrival {
        if self.available(proxy) > 0 {
            self.promised -= usize::from(self.proxies[proxy].promise.take().is_some());
            self.takes(proxy);
            return Arrival::Take;
        }
        if !gives_back {
            return Arrival::Wait;
        }
        let limit = self.limit(proxy);
        self.note_told(proxy, limit, now);
        Arrival::GiveBack(limit)
    }

    /// A 101 has come from a proxy, which takes no place before its request does. If there is none it
    /// is given back with this limit, which counts as told.
    pub fn lacks_room(&mut self, proxy: usize, now: Micros) -> Option<usize> {
        if self.available(proxy) > 0 {
            return None;
        }
        let limit = self.limit(proxy);
        self.note_told(proxy, limit, now);
        Some(limit)
    }

    /// A request gets a place that has waited for one here.
    pub fn takes(&mut self, proxy: usize) {
        self.proxies[proxy].busy += 1;
        self.busy += 1;
        self.is_changed = true;
    }

    /// A request has ended that had a place.
    pub fn ends(&mut self, proxy: usize, now: Micros) {
        self.proxies[proxy].busy -= 1;
        self.busy -= 1;
        self.is_changed = true;
        self.offer(Some(proxy), now);
    }

    /// So many requests wait here.
    pub fn set_queued(&mut self, count: usize, now: Micros) {
        let before = std::mem::replace(&mut self.queued, count);
        self.is_changed |= before != count;
        for _ in count..before {
            self.offer(None, now);
        }
    }

    /// How many places are free for those that wait here.
    #[must_use]
    pub fn spare(&self) -> usize {
        self.free().saturating_sub(self.promised)
    }

    /// A proxy has said since when its oldest request waits, or that none does. `at` is the number of
    /// this message; one that is not larger than the last is old, and ignored.
    pub fn waits(&mut self, proxy: usize, since: Option<Micros>, at: u64, now: Micros) {
        let said = &mut self.proxies[proxy];
        if at <= said.heard || said.is_removed {
            return;
        }
        (said.heard, said.waits) = (at, since);
        self.is_changed = true;
        match since {
            None => self.end_promise(proxy, now),
            Some(_) if self.unclaimed() > 0 && self.may_be_promised(proxy) => {
                self.promise(proxy, now);
            }
            Some(_) => {}
        }
    }

    /// A proxy has so many bridges that take messages, with and without a request.
    pub fn set_bridges(&mut self, proxy: usize, count: usize, now: Micros) {
        let known = &mut self.proxies[proxy];
        if std::mem::replace(&mut known.bridges, count) == count {
            return;
        }
        if count == 0 {
            // Whether it remembers what it was told is its own affair.
            known.told = if known.told == Told::Nothing { Told::Nothing } else { Told::Unknown };
            known.waits = None;
        }
        if count <= known.used() {
            self.end_promise(proxy, now);
        }
        self.is_changed = true;
    }

    /// How long a byte takes to a proxy and back.
    pub fn set_round_trip(&mut self, proxy: usize, time: Duration) {
        self.proxies[proxy].round_trip = time.min(LONGEST_ROUND_TRIP);
    }

    /// Another process has so many places.
    pub fn set_elsewhere(&mut self, count: usize, now: Micros) {
        let before = std::mem::replace(&mut self.elsewhere, count);
        self.is_changed |= before != count;
        for _ in count..before {
            self.offer(None, now);
        }
    }

    /// So many of the places that another process has are for requests of this proxy, over bridges
    /// with the same token.
    pub fn set_elsewhere_of(&mut self, proxy: usize, count: usize) {
        self.proxies[proxy].elsewhere = count;
        self.is_changed = true;
    }

    /// It is not certain that a proxy has heard what it was told last.
    pub fn tell_again(&mut self, proxy: usize) {
        let known = &mut self.proxies[proxy];
        if !known.is_removed {
            known.told = Told::Unknown;
            self.is_changed = true;
        }
    }

    /// Whether [`Arbiter::due`] may have something to say at `now`.
    #[must_use]
    pub fn is_due(&self, now: Micros) -> bool {
        self.is_changed || self.deadline.is_some_and(|at| at <= now)
    }

    /// When something will be due if nothing changes until then. Current once [`Arbiter::due`] has
    /// returned `None`.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Micros> {
        self.deadline
    }

    /// A proxy that is to be told its limit now, and the limit. It counts as told. To be called until
    /// there is none, at the end of each turn.
    pub fn due(&mut self, now: Micros) -> Option<(usize, usize)> {
        if !self.is_due(now) {
            return None;
        }
        self.lapse(now);
        if std::mem::take(&mut self.is_changed) {
            self.revise(now);
        }
        let is_due = |proxy: &Proxy| proxy.news.is_some_and(|news| news.at <= now);
        let Some(proxy) = self.proxies.iter().position(is_due) else {
            let news = self.proxies.iter().filter_map(|proxy| proxy.news).map(|news| news.at);
            let promises = self.proxies.iter().filter_map(|proxy| proxy.promise);
            self.deadline = news.chain(promises).min();
            return None;
        };
        let limit = self.limit(proxy);
        self.note_told(proxy, limit, now);
        Some((proxy, limit))
    }

    /// The proxy could not be told what [`Arbiter::due`] has returned: there is no bridge that could
    /// take it. It is due again after a moment.
    pub fn not_told(&mut self, proxy: usize, now: Micros) {
        let known = &mut self.proxies[proxy];
        known.told = Told::Unknown;
        known.news = Some(News { kind: Kind::Again, at: now + WINDOW });
        self.is_changed = true;
    }

    fn note_told(&mut self, proxy: usize, limit: usize, now: Micros) {
        let told = &mut self.proxies[proxy];
        (told.told, told.told_at, told.news) = (Told::Limit(limit), Some(now), None);
        self.is_changed = true;
    }

    fn free(&self) -> usize {
        self.places.saturating_sub(self.busy + self.elsewhere)
    }

    /// How many places are free, promised to nobody, and not for those that wait here.
    fn unclaimed(&self) -> usize {
        self.spare().saturating_sub(self.queued)
    }

    /// How many places a proxy may take.
    fn available(&self, proxy: usize) -> usize {
        // A promise of places that are no longer there, because another process has them, is void.
        let own = usize::from(self.proxies[proxy].promise.is_some()).min(self.free());
        own + self.unclaimed()
    }

    fn limit(&self, proxy: usize) -> usize {
        self.proxies[proxy].used() + self.available(proxy)
    }

    /// Promises a place to the proxy that has waited longest, if one is free. `from` has just given
    /// one back.
    fn offer(&mut self, from: Option<usize>, now: Micros) {
        if self.unclaimed() == 0 {
            return;
        }
        let longest = (0..self.proxies.len())
            .filter(|proxy| self.may_be_promised(*proxy))
            .filter_map(|proxy| Some((self.proxies[proxy].waits?, proxy)))
            .min();
        let Some((since, longest)) = longest else { return };
        let to = match from.map(|from| (from, self.proxies[from].waits)) {
            Some((from, Some(own))) if own <= since + STAYS && self.may_be_promised(from) => from,
            _ => longest,
        };
        self.promise(to, now);
    }

    /// Whether a place can be kept for a proxy, should it wait.
    fn may_be_promised(&self, proxy: usize) -> bool {
        let proxy = &self.proxies[proxy];
        proxy.promise.is_none() && proxy.bridges > proxy.used()
    }

    fn promise(&mut self, proxy: usize, now: Micros) {
        let to = &mut self.proxies[proxy];
        to.promise = Some(now + PROMISE + to.round_trip);
        self.promised += 1;
        self.is_changed = true;
    }

    /// Takes the promise of a proxy back, and makes it to another.
    fn end_promise(&mut self, proxy: usize, now: Micros) {
        if self.proxies[proxy].promise.take().is_some() {
            self.promised -= 1;
            self.is_changed = true;
            self.offer(None, now);
        }
    }

    /// Ends the promises that have not been used in time.
    fn lapse(&mut self, now: Micros) {
        for proxy in &mut self.proxies {
            if proxy.promise.is_some_and(|until| until <= now) {
                // What it has said is no longer true.
                (proxy.promise, proxy.waits) = (None, None);
                self.promised -= 1;
                self.is_changed = true;
            }
        }
    }

    /// Finds out what each proxy is to be told. What has been true before keeps its time.
    fn revise(&mut self, now: Micros) {
        for at in 0..self.proxies.len() {
            let kind = self.kind(at);
            let proxy = &mut self.proxies[at];
            let before = proxy.news.filter(|news| Some(news.kind) == kind);
            proxy.news = before.or(kind.map(|kind| News { kind, at: proxy.when(kind, now) }));
        }
    }

    /// What a proxy does not know and should.
    fn kind(&self, proxy: usize) -> Option<Kind> {
        let limit = self.limit(proxy);
        let proxy = &self.proxies[proxy];
        let (used, limit) = (proxy.used(), limit.min(proxy.bridges));
        let told = match proxy.told {
            _ if proxy.bridges == 0 => return None,
            Told::Nothing => proxy.bridges,
            Told::Limit(told) => told.min(proxy.bridges),
            Told::Unknown => return Some(Kind::Again),
        };
        match told {
            _ if told == limit => None,
            // It has no place, whichever of the two numbers it goes by.
            _ if told <= used && limit <= used => None,
            _ if told <= used && proxy.waits.is_some() => Some(Kind::Place),
            _ if told <= used => Some(Kind::Room),
            _ if limit <= used => Some(Kind::Full),
            _ => Some(Kind::Other),
        }
    }
}

impl Proxy {
    /// Its requests that have a place, as it counts them itself.
    fn used(&self) -> usize {
        self.busy + self.elsewhere
    }

    /// When it is to be told what has become true now.
    fn when(&self, kind: Kind, now: Micros) -> Micros {
        let paused = self.told_at.map_or(now, |at| at + PAUSE);
        match kind {
            Kind::Place => now,
            Kind::Room | Kind::Again => now + WINDOW,
            Kind::Full => (now + FULL_FOR).max(paused),
            // It must have lasted as long, too: most of it passes.
            Kind::Other => (now + PAUSE).max(paused),
        }
    }
}
