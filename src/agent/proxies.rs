//! Where bridges go: which proxies there are, when they are dialled, and how often.

use std::net::SocketAddr;
use std::time::Duration;

use super::resolve::{For, Found};
use super::services::Offer;
use super::worker::Agent;
use crate::backoff::{self, RECONNECT};
use crate::client::announce::Announcement;

/// How often the addresses behind a name with `--all-addresses` are looked up.
const CLUSTER_LOOKUP: Duration = Duration::from_secs(10);

/// How soon they are looked up again if there are none yet.
const FIRST_LOOKUP_AGAIN: Duration = Duration::from_secs(1);

/// How long a proxy that refuses is left alone: a wrong key is mended by an operator, and he should
/// not have to look for its mending in a log full of refusals.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// How long one that has too many bridges is left alone if it does not say.
const FULL_PAUSE: Duration = Duration::from_secs(5);

/// The longest that a proxy may ask to be left alone.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A proxy at which an application's bridges park.
pub(super) struct Proxy {
    /// For whom.
    pub application: usize,
    /// For the log.
    pub name: String,
    /// Where it is.
    pub place: Place,
    /// Its addresses, the one that answered last in front.
    pub addresses: Vec<SocketAddr>,
    /// Its bridges, at whatever stage.
    pub bridges: usize,
    /// Those of them that it has not accepted yet.
    pub trying: usize,
    /// When it may be dialled.
    pub pace: Pace,
    /// What the bridges say that are dialled from now on, and what makes them leave; `None` until the first is dialled, and
    /// again when those that were have been asked to leave.
    pub announcement: Option<Announcement>,
}

/// How the addresses of a proxy are known.
pub(super) enum Place {
    /// It was given as one.
    Address,
    /// By a name, asked for before each dial.
    Name { host: String, port: u16, lookup: Lookup },
    /// It is one of those behind a cluster's name.
    Member(Listed),
}

/// Whether a name is being looked up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    Idle,
    UnderWay,
}

/// Whether a cluster's name still stands for an address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Listed {
    Yes,
    /// It is not dialled any more; its bridges live for as long as it lets them.
    NotAnyMore,
}

/// A name of which every address is a proxy of its own.
pub(super) struct Cluster {
    pub application: usize,
    pub host: String,
    pub port: u16,
    /// Its members among the proxies.
    pub members: Vec<usize>,
    /// When it is looked up next, in milliseconds.
    pub at: u64,
    pub lookup: Lookup,
}

/// When a proxy may be dialled.
#[derive(Default)]
pub(super) struct Pace {
    /// Failures in a row.
    failures: u32,
    /// In milliseconds.
    not_before: u64,
    trust: Trust,
    said: Said,
}

/// Whether a proxy is known to take bridges.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum Trust {
    /// It is tried with one bridge.
    #[default]
    Unproven,
    /// It has accepted one since it last failed: it gets all of them.
    Proven,
}

/// What has been said last about a proxy in the log: the same is not said again.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum Said {
    #[default]
    Nothing,
    Unreachable,
    Refused(u16),
}

impl Pace {
    /// How many bridges may be dialled now if so many are missing and so many have not been
    /// accepted yet; otherwise when to ask again, if that is a matter of time.
    fn allows(&self, missing: usize, trying: usize, now: u64) -> Result<usize, Option<u64>> {
        match self.trust {
            _ if missing == 0 => Err(None),
            _ if now < self.not_before => Err(Some(self.not_before)),
            Trust::Proven => Ok(missing),
            Trust::Unproven if trying > 0 => Err(None),
            Trust::Unproven => Ok(1),
        }
    }

    /// It could not be reached, or was lost before it had accepted. True if that is news.
    fn failed(&mut self, now: u64) -> bool {
        // What fails together is one failure.
        if now >= self.not_before {
            self.failures = self.failures.saturating_add(1);
            let pause = RECONNECT.pause(self.failures, backoff::random());
            self.pause(now, pause);
        }
        self.say(Said::Unreachable)
    }

    /// It has refused a bridge with this status. True if that is news.
    fn refused(&mut self, now: u64, status: u16, retry_after: Option<Duration>) -> bool {
        let pause = match status {
            503 => retry_after.unwrap_or(FULL_PAUSE).min(LONGEST_PAUSE),
            _ => REFUSED_PAUSE,
        };
        self.pause(now, pause + RECONNECT.spread());
        self.say(Said::Refused(status))
    }

    /// A bridge that it had accepted has gone, by its wish or not: it is tried anew after `pause`.
    fn lost(&mut self, now: u64, pause: Duration) {
        self.pause(now, pause);
    }

    fn pause(&mut self, now: u64, pause: Duration) {
        self.trust = Trust::Unproven;
        self.not_before = self.not_before.max(now + pause.as_millis() as u64);
    }

    fn say(&mut self, what: Said) -> bool {
        std::mem::replace(&mut self.said, what) != what
    }

    /// It has accepted a bridge. True if that is news.
    fn accepted(&mut self) -> bool {
        self.failures = 0;
        self.trust = Trust::Proven;
        // One that takes fewer bridges than it is offered refuses the others again and again.
        if self.said == Said::Refused(503) {
            return false;
        }
        self.say(Said::Nothing)
    }
}

impl Proxy {
    /// One that has not been dialled.
    pub fn new(
        application: usize,
        name: String,
        place: Place,
        addresses: Vec<SocketAddr>,
    ) -> Proxy {
        let pace = Pace::default();
        Proxy {
            application,
            name,
            place,
            addresses,
            bridges: 0,
            trying: 0,
            pace,
            announcement: None,
        }
    }
}

impl Agent {
    /// Dials what is missing, as far as it may be dialled now.
    pub(super) fn tend_proxies(&mut self) {
        for cluster in 0..self.clusters.len() {
            self.tend_cluster(cluster);
        }
        for proxy in 0..self.proxies.len() {
            self.tend_proxy(proxy);
        }
    }

    fn tend_cluster(&mut self, index: usize) {
        let now = self.now();
        let cluster = &mut self.clusters[index];
        let offer = self.applications[cluster.application].offer;
        if cluster.lookup == Lookup::UnderWay || offer == Offer::Withdrawn {
            return;
        }
        if now >= cluster.at {
            cluster.lookup = Lookup::UnderWay;
            return self.resolver.ask(For::Cluster(index), &cluster.host, cluster.port);
        }
        let at = cluster.at;
        self.tend_by(at);
    }

    fn tend_proxy(&mut self, index: usize) {
        match self.wanted(index) {
            Err(Some(at)) => self.tend_by(at),
            Err(None) => {}
            Ok(count) => match &mut self.proxies[index].place {
                Place::Name { lookup: Lookup::UnderWay, .. } => {}
                Place::Name { host, port, lookup } => {
                    *lookup = Lookup::UnderWay;
                    self.resolver.ask(For::Proxy(index), host, *port);
                }
                Place::Address | Place::Member(_) => self.dial_bridges(index, count),
            },
        }
    }

    /// How many bridges are to be dialled to a proxy now; otherwise when to ask again.
    ///
    /// As many are parked at each proxy as the application takes requests at once, so that each
    /// proxy alone can use all of it. While all its places are taken nothing new is parked
    /// anywhere: it could not be served.
    fn wanted(&self, index: usize) -> Result<usize, Option<u64>> {
        let proxy = &self.proxies[index];
        let application = &self.applications[proxy.application];
        let listed = !matches!(proxy.place, Place::Member(Listed::NotAnyMore));
        if !self.is_serving() || !listed || !application.is_wanted() || application.free == 0 {
            return Err(None);
        }
        let missing = application.service.limit.saturating_sub(proxy.bridges);
        proxy.pace.allows(missing, proxy.trying, self.now())
    }

    fn dial_bridges(&mut self, proxy: usize, count: usize) {
        for _ in 0..count {
            if !self.dial_bridge(proxy, 0) {
                break;
            }
        }
    }

    /// The addresses of a proxy have been looked up.
    pub(super) fn proxy_found(&mut self, index: usize, found: Found) {
        if let Place::Name { lookup, .. } = &mut self.proxies[index].place {
            *lookup = Lookup::Idle;
        }
        match found {
            Ok(found) => {
                keep_order(&mut self.proxies[index].addresses, found);
                match self.wanted(index) {
                    Ok(count) => self.dial_bridges(index, count),
                    Err(at) => self.tend_by(at.unwrap_or(u64::MAX)),
                }
            }
            Err(error) => self.proxy_failed(index, &error),
        }
    }

    /// The addresses of a cluster have been looked up.
    pub(super) fn cluster_found(&mut self, index: usize, found: Found) {
        let now = self.now();
        let cluster = &mut self.clusters[index];
        cluster.lookup = Lookup::Idle;
        cluster.at = now + CLUSTER_LOOKUP.as_millis() as u64;
        let found = match found {
            Ok(found) => found,
            // Those that are known go on: a resolver that fails says nothing about them.
            Err(error) => {
                log::warn!("{}: {error}", cluster.host);
                if cluster.members.is_empty() {
                    cluster.at = now + FIRST_LOOKUP_AGAIN.as_millis() as u64;
                }
                let at = cluster.at;
                return self.tend_by(at);
            }
        };
        for &member in &cluster.members {
            let proxy = &mut self.proxies[member];
            let listed = proxy.addresses.iter().any(|address| found.contains(address));
            proxy.place = Place::Member(if listed { Listed::Yes } else { Listed::NotAnyMore });
        }
        for address in found {
            let known = |&member: &usize| self.proxies[member].addresses.contains(&address);
            if !cluster.members.iter().any(known) {
                cluster.members.push(self.proxies.len());
                let name = format!("{} ({address})", cluster.host);
                let place = Place::Member(Listed::Yes);
                self.proxies.push(Proxy::new(cluster.application, name, place, vec![address]));
            }
        }
        self.tend_by(now);
    }

    /// A proxy could not be reached, or was lost before it had accepted a bridge.
    pub(super) fn proxy_failed(&mut self, index: usize, why: &std::io::Error) {
        let now = self.now();
        let proxy = &mut self.proxies[index];
        if proxy.pace.failed(now) {
            log::warn!("no bridge to {}: {why}; trying again", proxy.name);
        } else {
            log::debug!("no bridge to {}: {why}", proxy.name);
        }
        self.tend_by(now);
    }

    /// A proxy has answered a BRIDGE with a refusal, or with what is none.
    pub(super) fn proxy_refused(
        &mut self,
        index: usize,
        status: u16,
        reason: &str,
        retry_after: Option<Duration>,
    ) {
        let now = self.now();
        let proxy = &mut self.proxies[index];
        let level = match (proxy.pace.refused(now, status, retry_after), status) {
            (false, _) => log::Level::Debug,
            (true, 503) => log::Level::Warn,
            (true, _) => log::Level::Error,
        };
        let pause = proxy.pace.not_before.saturating_sub(now) / 1000;
        log::log!(
            level,
            "{} refuses bridges: {status} {reason}; it is asked again every {pause} s",
            proxy.name
        );
        self.tend_by(now);
    }

    /// A bridge that a proxy had accepted has gone.
    pub(super) fn proxy_lost(&mut self, index: usize, pause: Duration) {
        let now = self.now();
        self.proxies[index].pace.lost(now, pause);
        self.tend_by(now);
    }

    /// A proxy has accepted a bridge.
    pub(super) fn proxy_accepted(&mut self, index: usize) {
        let proxy = &mut self.proxies[index];
        proxy.trying -= 1;
        if proxy.pace.accepted() {
            log::info!("bridges to {} are taken", proxy.name);
        }
        let now = self.now();
        self.tend_by(now);
    }
}

/// Puts `address` in front of the others.
pub(super) fn put_first(addresses: &mut [SocketAddr], address: SocketAddr) {
    if let Some(place) = addresses.iter().position(|known| *known == address) {
        addresses.rotate_left(place);
    }
}

/// Takes `found` for `known`, in the old order if nothing else has changed: in front stands what
/// answered last.
pub(super) fn keep_order(known: &mut Vec<SocketAddr>, found: Vec<SocketAddr>) {
    let same = known.len() == found.len() && found.iter().all(|address| known.contains(address));
    if !same {
        *known = found;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unproven_proxy_is_tried_with_one_bridge() {
        let mut pace = Pace::default();
        assert_eq!(pace.allows(8, 0, 0), Ok(1));
        assert_eq!(pace.allows(7, 1, 0), Err(None));
        pace.accepted();
        assert_eq!(pace.allows(7, 0, 0), Ok(7));
        assert_eq!(pace.allows(0, 0, 0), Err(None));
    }

    #[test]
    fn failures_back_off_and_are_said_once() {
        let mut pace = Pace::default();
        assert!(pace.failed(1_000));
        let Err(Some(at)) = pace.allows(1, 0, 1_000) else { panic!("no pause") };
        assert!((1_025..=1_050).contains(&at), "{at}");
        // The rest of a row that fails together.
        assert!(!pace.failed(1_000));
        assert_eq!(pace.failures, 1);
        assert!(!pace.failed(at));
        assert_eq!(pace.failures, 2);
        assert!(pace.accepted());
        assert!(pace.failed(10_000));
    }

    #[test]
    fn a_refusal_is_said_once_and_asked_again_slowly() {
        let mut pace = Pace::default();
        assert!(pace.refused(0, 401, None));
        let Err(Some(at)) = pace.allows(1, 0, 0) else { panic!("no pause") };
        assert!((30_000..=30_050).contains(&at), "{at}");
        assert!(!pace.refused(at, 401, None));
        assert!(pace.refused(at, 404, None));
    }

    #[test]
    fn a_full_proxy_says_when_within_bounds() {
        for (asked, least) in [(None, 5_000), (Some(2), 2_000), (Some(9_999), 60_000)] {
            let mut pace = Pace::default();
            pace.refused(0, 503, asked.map(Duration::from_secs));
            assert!((least..=least + 50).contains(&pace.not_before), "{}", pace.not_before);
            // That it takes some is no reason to say again that it does not take more.
            assert!(!pace.accepted());
            assert!(!pace.refused(60_000, 503, None));
        }
    }

    #[test]
    fn what_answered_last_stays_in_front() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut known = vec![address(1), address(2), address(3)];
        put_first(&mut known, address(3));
        assert_eq!(known[0], address(3));
        keep_order(&mut known, vec![address(1), address(2), address(3)]);
        assert_eq!(known[0], address(3));
        keep_order(&mut known, vec![address(1), address(2)]);
        assert_eq!(known, [address(1), address(2)]);
    }
}
