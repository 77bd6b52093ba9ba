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
//! waits too and not much shorter ([`STAYS`]). If it had no bridge left to say so, that is guessed: its next
//! request comes within a round trip, or does not, and the promise is as short. If nobody is known to
//! wait, the place is for all. One place at a time moves to a proxy, which then counts as having waited
//! less until it says how long: so few places move for a small difference, and many for a large one.
//!
//! **A promise ends** when its place is used, when the proxy says that nothing waits any more (what has
//! waited may have found another backend, and then it says so as soon as it is told of the place) or has
//! no bridge left, and after a moment ([`PROMISE`]). (If a request comes after all, the next promise lasts
//! longer: the proxy is far away, or slow.)
//! Then the place is for all, and the one that has waited longest is told at once. It is not promised again:
//! one such moment after the other would keep it free for long.
//!
//! **What is told, and when.** A limit means something only while it is below the number of
//! bridges. What stops a proxy that has something to send, or lets it go on, is told soon; anything
//! else rarely ([`PAUSE`]). A place that is taken again at once is no news at all ([`WINDOW`],
//! [`FULL_FOR`]), so two busy proxies cost hardly any message.
//!
//! **What this amounts to**, with messages that take less than a millisecond: no request waits at a
//! proxy for more than 5 ms while a place here is free for it, and none is passed over by others that are
//! younger by more than [`STAYS`] for longer than [`PASSED_OVER`]; but where a proxy has one bridge, a guess may
//! keep its place for it a few times more.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Micros;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

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

/// The longest time that a proxy is given to use a promise: if it takes longer, its requests come when
/// they may.
const LONGEST_PROMISE: Duration = Duration::from_millis(250);

/// How often in a row a request must have come too late for a promise before promises to the proxy last
/// longer. Once or twice, it may have been another request.
const LATE: u32 = 3;

/// How many times in a row what a proxy has said is doubted for twice as long as before, after it has not
/// used a promise: it may have said since that nothing waits, in a message that is lost.
const DOUBLINGS: u32 = 5;

/// For how long a request may be passed over by others that are younger by more than [`STAYS`],
/// beyond a round trip: what is known of both proxies may be as old as [`PAUSE`], and a promise may
/// have to lapse.
pub const PASSED_OVER: Duration =
    PAUSE.saturating_mul(2).saturating_add(PROMISE).saturating_add(WINDOW);

/// For how long what a proxy has said holds once it may use all of its bridges: while all are
/// in use, it has none to say more over. So where there is one place for two busy
/// proxies, each has it for that long.
const KNOWN: Duration = PAUSE;

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
/// A proxy is named by the number that [`Arbiter::add`] has returned. It counts the requests of each
/// token for itself, so what goes over bridges with an old token counts for another number, one
/// without bridges; so does what comes from proxies that do not know of any of this.
#[derive(Debug)]
pub struct Arbiter {
    places: usize,
    proxies: Vec<Proxy>,
    /// Places that requests of all proxies have here.
    busy: usize,
    /// Places that another process has.
    elsewhere: usize,
    /// How many places are promised.
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
    /// What it has in another process over bridges with the same token: requests and tunnels.
    elsewhere: usize,
    /// Its tunnels here. They have no place, but it counts their bridges as ones that have a request.
    tunnels: usize,
    /// Its bridges here that take messages, with and without a request, and those of tunnels.
    bridges: usize,
    told: Told,
    /// When it was last told something.
    told_at: Option<Micros>,
    /// Since when its oldest request waits, as far as is known.
    waits: Option<Since>,
    /// Until when that holds, if it is not told anew.
    known_until: Option<Micros>,
    /// Since when it holds again, after the proxy has not used a promise.
    doubted_until: Micros,
    /// How many promises in a row it has not used.
    lapses: u32,
    /// When the one was made that it has not used last.
    lapsed: Option<Micros>,
    /// The number of the message that has said so.
    heard: u64,
    /// The places that are kept for it, in the order in which they were promised.
    promises: VecDeque<Promise>,
    /// How long a byte takes there and back.
    round_trip: Duration,
    /// How often in a row a request has come too late for a promise.
    late: u32,
    /// How long it has taken to come then.
    response: Duration,
    news: Option<News>,
}

/// A place that is kept for a proxy.
#[derive(Clone, Copy, Debug)]
struct Promise {
    made: Micros,
    until: Micros,
    reason: Reason,
}

/// Why a place is kept for a proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reason {
    /// It had the place before, and has waited about as long as any.
    Stays,
    /// It had the place before, and has probably waited longest.
    Guess,
    /// Another proxy had it before.
    Moves,
}

/// An instant in microseconds since this process started. A request may have waited for longer.
type Since = i64;

/// [`STAYS`], between two of them.
const STAYS_SINCE: Since = STAYS.as_micros() as Since;

fn since(now: Micros, waited: Duration) -> Since {
    let waited = Since::try_from(waited.as_micros()).unwrap_or(Since::MAX);
    Since::try_from(now.0).unwrap_or(Since::MAX).saturating_sub(waited)
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
    /// It believes that it has no place, and has one, for which it has waited longest.
    Place,
    /// It believes that it has no place, and has one.
    Room,
    /// It believes that it has a place, and has none.
    Full,
    /// It has more places than it believes, which are enough for now.
    More,
    /// It has less places than it believes, but some.
    Less,
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

    /// Adds a proxy, which has no bridges yet, and returns its number: 0 for the first.
    pub fn add(&mut self) -> usize {
        self.proxies.push(Proxy::default());
        self.proxies.len() - 1
    }

    /// The bridges of a proxy are those of another token from now on, and it has been told nothing about
    /// these. For each request over its earlier bridges [`Arbiter::moves`] must have been called.
    pub fn renew(&mut self, proxy: usize) {
        self.forget(proxy);
        let Proxy { busy, round_trip, .. } = self.proxies[proxy];
        self.proxies[proxy] = Proxy { busy, round_trip, ..Proxy::default() };
    }

    /// A request that has a place counts for another proxy from now on.
    pub fn moves(&mut self, from: usize, to: usize) {
        self.proxies[from].busy -= 1;
        self.proxies[to].busy += 1;
        self.is_changed = true;
    }

    /// Whether there is a place for a request from a proxy.
    #[must_use]
    pub fn has_place(&self, proxy: usize) -> bool {
        self.available(proxy) > 0
    }

    /// How many requests of a proxy have a place here.
    #[must_use]
    pub fn busy(&self, proxy: usize) -> usize {
        self.proxies[proxy].busy
    }

    /// A request, or a 101, has come from a proxy. `gives_back` says whether it can be given back.
    pub fn arrives(&mut self, proxy: usize, gives_back: bool, now: Micros) -> Arrival {
        if self.has_place(proxy) {
            self.use_promise(proxy, now);
            self.takes(proxy);
            return Arrival::Take;
        }
        self.note_late(proxy, now);
        if !gives_back {
            return Arrival::Wait;
        }
        let limit = self.limit(proxy);
        self.note_told(proxy, limit, now);
        Arrival::GiveBack(limit)
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
        self.offer(proxy, now);
    }

    /// So many requests wait here.
    pub fn set_queued(&mut self, count: usize) {
        self.queued = count;
        self.is_changed = true;
    }

    /// How many places are free for those that wait here.
    #[must_use]
    pub fn spare(&self) -> usize {
        self.free().saturating_sub(self.promised)
    }

    /// A proxy has said how long its oldest request has waited, or that none waits. `at` is the number
    /// of this message; one that is not larger than the last is old, and ignored.
    pub fn waits(&mut self, proxy: usize, waited: Option<Duration>, at: u64, now: Micros) {
        let said = &mut self.proxies[proxy];
        if at <= said.heard {
            return;
        }
        (said.heard, said.waits) = (at, waited.map(|waited| since(now, waited)));
        (said.doubted_until, said.lapses) = (now, 0);
        said.known_until = said.may_use_all().then_some(now + KNOWN);
        self.is_changed = true;
        // A place that is free already is not promised, but a proxy that waits is told at once.
        if waited.is_none() {
            self.forget(proxy);
        }
    }

    /// A proxy has so many bridges that take messages, with and without a request.
    pub fn set_bridges(&mut self, proxy: usize, count: usize) {
        let known = &mut self.proxies[proxy];
        if std::mem::replace(&mut known.bridges, count) == count {
            return;
        }
        if count == 0 {
            // It may have been restarted.
            known.heard = 0;
            known.told = if known.told == Told::Nothing { Told::Nothing } else { Told::Unknown };
        }
        if known.all_bridges() <= known.used() {
            self.forget(proxy);
        }
        self.is_changed = true;
    }

    /// So many of the bridges of a proxy are tunnels.
    pub fn set_tunnels(&mut self, proxy: usize, count: usize) {
        self.proxies[proxy].tunnels = count;
        self.is_changed = true;
    }

    /// How long a byte takes to a proxy and back.
    pub fn set_round_trip(&mut self, proxy: usize, time: Duration) {
        self.proxies[proxy].round_trip = time;
    }

    /// Another process has so many places.
    pub fn set_elsewhere(&mut self, count: usize) {
        self.elsewhere = count;
        self.is_changed = true;
    }

    /// Another process has so many requests and tunnels of this proxy, over bridges with the same
    /// token.
    pub fn set_elsewhere_of(&mut self, proxy: usize, count: usize) {
        self.proxies[proxy].elsewhere = count;
        self.is_changed = true;
    }

    /// It is not certain what a proxy has been told last.
    pub fn tell_again(&mut self, proxy: usize) {
        self.proxies[proxy].told = Told::Unknown;
        self.is_changed = true;
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
            let promises = self.proxies.iter().filter_map(|proxy| proxy.promises.front());
            self.deadline = news.chain(promises.map(|promise| promise.until)).min();
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
        told.known_until = told.may_use_all().then_some(now + KNOWN);
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
        let own = self.proxies[proxy].promises.len().min(self.free());
        own + self.unclaimed()
    }

    fn limit(&self, proxy: usize) -> usize {
        self.proxies[proxy].used() + self.available(proxy)
    }

    /// A proxy has given a place back: it is promised to the one that has waited longest, unless it
    /// stays.
    fn offer(&mut self, from: usize, now: Micros) {
        if self.unclaimed() == 0 {
            return;
        }
        let own = Some(&self.proxies[from]).filter(|_| self.has_bridge(from));
        let known = own.and_then(|own| own.waits(now));
        let guessed = own.and_then(|own| own.waits_by_guess(now));
        let (to, reason) = match (self.longest(now), known, guessed) {
            (None, Some(_), _) => (from, Reason::Stays),
            (None, None, _) => return,
            (Some((since, _)), Some(own), _) if own <= since + STAYS_SINCE => (from, Reason::Stays),
            (Some((since, _)), None, Some(own)) if own <= since => (from, Reason::Guess),
            (Some((_, longest)), ..) => (longest, Reason::Moves),
        };
        self.promise(to, reason, now);
    }

    /// The proxy that has waited longest, of those to which a place can move, and since when.
    fn longest(&self, now: Micros) -> Option<(Since, usize)> {
        (0..self.proxies.len())
            .filter(|proxy| self.may_get_another(*proxy))
            .filter_map(|proxy| Some((self.proxies[proxy].waits(now)?, proxy)))
            .min()
    }

    /// Whether a proxy has a bridge for one more request.
    fn has_bridge(&self, proxy: usize) -> bool {
        let proxy = &self.proxies[proxy];
        proxy.all_bridges() > proxy.used() + proxy.promises.len()
    }

    /// Whether a place can move to a proxy, should it wait.
    fn may_get_another(&self, proxy: usize) -> bool {
        self.has_bridge(proxy)
            && !self.proxies[proxy].promises.iter().any(|promise| promise.reason == Reason::Moves)
    }

    fn promise(&mut self, proxy: usize, reason: Reason, now: Micros) {
        let to = &mut self.proxies[proxy];
        let lasts = match reason {
            Reason::Guess => to.round_trip + WINDOW,
            Reason::Stays | Reason::Moves => (to.round_trip + PROMISE).max(to.response + WINDOW),
        };
        let until = now + lasts.min(LONGEST_PROMISE);
        to.promises.push_back(Promise { made: now, until, reason });
        self.promised += 1;
        self.is_changed = true;
    }

    /// A proxy takes a place: one that is kept for it, if there is one.
    fn use_promise(&mut self, proxy: usize, now: Micros) {
        let Some(promise) = self.pop_promise(proxy) else { return };
        let taker = &mut self.proxies[proxy];
        taker.response = taker.response.min(now.since(promise.made));
        (taker.late, taker.lapses, taker.lapsed) = (0, 0, None);
        match (promise.reason, taker.known_until) {
            (Reason::Moves, _) => {
                let now = since(now, Duration::ZERO);
                taker.waits = taker.waits.map(|since| (since + STAYS_SINCE).min(now));
            }
            // Each guess is worth less than the last.
            (Reason::Guess, Some(until)) => {
                let until = since(until, Duration::ZERO);
                taker.waits = taker.waits.map(|since| until - until.saturating_sub(since) / 2);
            }
            _ => {}
        }
    }

    /// A request has come that has no place: perhaps the one for which there was a promise. If that
    /// happens again and again, the next one lasts as long.
    fn note_late(&mut self, proxy: usize, now: Micros) {
        let proxy = &mut self.proxies[proxy];
        if let Some(made) = proxy.lapsed.take() {
            proxy.late += 1;
            if proxy.late >= LATE {
                (proxy.response, proxy.lapses, proxy.doubted_until) = (now.since(made), 0, now);
            }
        }
    }

    /// Nothing waits at a proxy: what is kept for it is for all.
    fn forget(&mut self, proxy: usize) {
        let known = &mut self.proxies[proxy];
        (known.waits, known.lapsed) = (None, None);
        self.end_promises(proxy);
    }

    /// The promise to a proxy that was made first, which ends.
    fn pop_promise(&mut self, proxy: usize) -> Option<Promise> {
        let promise = self.proxies[proxy].promises.pop_front()?;
        self.promised -= 1;
        self.is_changed = true;
        Some(promise)
    }

    fn end_promises(&mut self, proxy: usize) {
        let known = &mut self.proxies[proxy];
        self.promised -= known.promises.len();
        known.promises.clear();
        self.is_changed = true;
    }

    /// Ends the promises to proxies that have not used one in time: what they have said may no longer be
    /// true. It may be, though, and they say nothing more while the same request waits.
    fn lapse(&mut self, now: Micros) {
        for at in 0..self.proxies.len() {
            while let Some(&promise) = self.proxies[at].promises.front()
                && promise.until <= now
            {
                let proxy = &mut self.proxies[at];
                if promise.reason == Reason::Guess {
                    // It has a bridge again, and would have said so.
                    if proxy.waits(now).is_none() {
                        proxy.waits = None;
                    }
                    self.pop_promise(at);
                } else {
                    proxy.lapsed = Some(promise.made);
                    proxy.doubted_until = now + PAUSE * (1 << proxy.lapses.min(DOUBLINGS));
                    proxy.lapses += 1;
                    self.end_promises(at);
                }
            }
        }
    }

    /// Finds out what each proxy is to be told. What has been true before keeps its time.
    fn revise(&mut self, now: Micros) {
        let longest = self.longest(now).map(|(_, proxy)| proxy);
        for at in 0..self.proxies.len() {
            let mut kind = self.kind(at, longest == Some(at));
            let proxy = &mut self.proxies[at];
            let before = proxy.news.map(|news| news.kind);
            if (before, kind) == (Some(Kind::Room), Some(Kind::More)) {
                // A request has ended, but the proxy may not have the response yet.
                kind = before;
            }
            if before != kind {
                proxy.news = kind.map(|kind| News { kind, at: proxy.when(kind, now) });
            }
        }
    }

    /// What a proxy does not know and should. `is_longest` says that it has waited longest of those to
    /// which a place can move.
    fn kind(&self, proxy: usize, is_longest: bool) -> Option<Kind> {
        let limit = self.limit(proxy);
        let proxy = &self.proxies[proxy];
        let (used, bridges) = (proxy.used(), proxy.all_bridges());
        let limit = limit.min(bridges);
        let told = match proxy.told {
            _ if proxy.bridges == 0 => return None,
            Told::Nothing => bridges,
            Told::Limit(told) => told.min(bridges),
            // It needs none while it has no bridge left.
            Told::Unknown => return (bridges > used).then_some(Kind::Again),
        };
        match told {
            _ if told == limit => None,
            // It has no place, whichever of the two numbers it goes by.
            _ if told <= used && limit <= used => None,
            _ if told <= used && (is_longest || !proxy.promises.is_empty()) => Some(Kind::Place),
            // What is on its way counts for it, and not here yet.
            _ if told <= used || told < limit && proxy.waits.is_some() => Some(Kind::Room),
            _ if limit <= used => Some(Kind::Full),
            _ if told < limit => Some(Kind::More),
            _ => Some(Kind::Less),
        }
    }
}

impl Proxy {
    /// Its bridges with a request, as it counts them itself.
    fn used(&self) -> usize {
        self.busy + self.elsewhere + self.tunnels
    }

    /// Its bridges, as it counts them itself.
    fn all_bridges(&self) -> usize {
        self.bridges + self.elsewhere
    }

    /// Whether it believes that it may use all of its bridges.
    fn may_use_all(&self) -> bool {
        match self.told {
            Told::Nothing => true,
            Told::Limit(limit) => limit >= self.all_bridges(),
            Told::Unknown => false,
        }
    }

    /// Since when its oldest request waits, as far as is known.
    fn waits(&self, now: Micros) -> Option<Since> {
        let holds = self.known_until.is_none_or(|until| now < until) && self.doubted_until <= now;
        self.waits.filter(|_| holds)
    }

    /// Since when its oldest request probably waits, if all of its bridges have been in use, so that it
    /// could not say: half as long as the oldest did then. The queues of proxies grow and shrink together. A slow
    /// proxy would be too late for the short promise.
    fn waits_by_guess(&self, now: Micros) -> Option<Since> {
        if !self.promises.is_empty() || self.response > self.round_trip {
            return None;
        }
        let until = self.known_until.filter(|until| *until <= now && self.doubted_until <= now)?;
        let waited = since(until, Duration::ZERO).saturating_sub(self.waits?);
        Some(since(now, Duration::ZERO) - waited / 2)
    }

    /// When it is to be told what has become true now.
    fn when(&self, kind: Kind, now: Micros) -> Micros {
        let paused = self.told_at.map_or(now, |at| at + PAUSE);
        match kind {
            Kind::Place => now,
            Kind::Room | Kind::Again => now + WINDOW,
            Kind::Full => (now + FULL_FOR).max(paused),
            // It must have lasted as long, too: most of it passes.
            Kind::More | Kind::Less => (now + PAUSE).max(paused),
        }
    }
}
