//! The proxies: where they are, when they are dialled, and how many bridges they get.

use std::io;
use std::net::SocketAddr;
use std::ops::{Index, IndexMut};
use std::time::Duration;

use super::lookup::{Lookup, Name, Resolver};
use super::pace::{Demand, Pace};
use crate::backoff::RECONNECT;
use crate::client::announce::Announcement;
use crate::config::Address;
use crate::net::resolver::Found;
use crate::time::Millis;
use crate::upstream::Addresses;

/// How often the addresses behind a name with `--all-addresses` are looked up.
const CLUSTER_INTERVAL: Duration = Duration::from_secs(10);

/// How soon to look them up again while there are none.
const CLUSTER_RETRY: Duration = Duration::from_secs(1);

/// A proxy that bridges of one application are dialled to.
pub(super) struct Proxy {
    application: usize,
    /// For the log.
    name: String,
    /// What to look up before each dial, if it was given by name.
    lookup: Option<Name>,
    /// It belongs to no cluster, or its cluster's name still resolves to it. Otherwise it is not
    /// dialled, but existing bridges stay until it closes them.
    listed: bool,
    addresses: Addresses,
    /// Its bridges, in all stages.
    bridges: usize,
    /// Those of them that it has not accepted yet.
    trying: usize,
    pace: Pace,
    /// What new bridges announce, and the request that deregisters them. `None` until the first
    /// bridge is dialled, and again once the group has been deregistered.
    announcement: Option<Announcement>,
}

/// A name whose every address is a proxy of its own.
struct Cluster {
    application: usize,
    name: Name,
    /// Indices of its proxies.
    members: Vec<usize>,
    /// When it is looked up next.
    at: Millis,
}

/// All proxies. A proxy used by two applications is here twice.
#[derive(Default)]
pub(super) struct Proxies {
    list: Vec<Proxy>,
    clusters: Vec<Cluster>,
}

impl Proxies {
    /// Adds the proxy, or the cluster, at `address`.
    pub fn add(&mut self, application: usize, address: &Address, all_addresses: bool) {
        let shown = address.to_string();
        match address.clone() {
            Address::Name { host, port } => {
                let name = Name::new(host, port);
                if all_addresses {
                    let (members, at) = (Vec::new(), Millis(0));
                    self.clusters.push(Cluster { application, name, members, at });
                } else {
                    self.list.push(Proxy { lookup: Some(name), ..Proxy::new(application, shown) });
                }
            }
            Address::Socket(address) => {
                let addresses = Addresses::from(address);
                self.list.push(Proxy { addresses, ..Proxy::new(application, shown) });
            }
            // An address to listen at; the options reject it.
            Address::Any { .. } => {}
        }
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Looks up the clusters that are due, if their application is `offered`. Returns when the next
    /// is due.
    pub fn look_up_clusters(
        &mut self,
        resolver: &Resolver,
        now: Millis,
        offered: impl Fn(usize) -> bool,
    ) -> Option<Millis> {
        let mut next = None;
        for (index, cluster) in self.clusters.iter_mut().enumerate() {
            if !offered(cluster.application) {
                continue;
            }
            if cluster.at <= now {
                cluster.name.ask(resolver, Lookup::Cluster(index));
            } else {
                next = next.into_iter().chain([cluster.at]).min();
            }
        }
        next
    }

    /// Takes the addresses of a cluster.
    pub fn cluster_found(&mut self, index: usize, found: Found, now: Millis) {
        let cluster = &mut self.clusters[index];
        cluster.name.answered();
        cluster.at = now + CLUSTER_INTERVAL;
        let found = match found {
            Ok(found) => found,
            // Keep the known addresses: a failing resolver says nothing about them.
            Err(error) => {
                log::warn!("{}: {error}", cluster.name.host);
                if cluster.members.is_empty() {
                    cluster.at = now + CLUSTER_RETRY;
                }
                return;
            }
        };
        for &member in &cluster.members {
            let proxy = &mut self.list[member];
            proxy.listed = found.iter().any(|address| proxy.addresses.contains(address));
        }
        for address in found {
            let known = |&member: &usize| self.list[member].addresses.contains(&address);
            if !cluster.members.iter().any(known) {
                cluster.members.push(self.list.len());
                let name = format!("{} ({address})", cluster.name.host);
                let addresses = Addresses::from(address);
                self.list.push(Proxy { addresses, ..Proxy::new(cluster.application, name) });
            }
        }
    }
}

impl Index<usize> for Proxies {
    type Output = Proxy;

    fn index(&self, index: usize) -> &Proxy {
        &self.list[index]
    }
}

impl IndexMut<usize> for Proxies {
    fn index_mut(&mut self, index: usize) -> &mut Proxy {
        &mut self.list[index]
    }
}

impl Proxy {
    fn new(application: usize, name: String) -> Proxy {
        Proxy {
            application,
            name,
            lookup: None,
            listed: true,
            addresses: Addresses::default(),
            bridges: 0,
            trying: 0,
            pace: Pace::default(),
            announcement: None,
        }
    }

    pub fn application(&self) -> usize {
        self.application
    }

    /// The next address after `tried` others have failed.
    pub fn address(&self, tried: usize) -> Option<SocketAddr> {
        self.addresses.get(tried)
    }

    /// How many bridges to dial. Every proxy gets as many as the application has slots, so that any
    /// one proxy can use all of them.
    pub fn demand(&self, slots: usize, now: Millis) -> Demand {
        if self.listed {
            self.pace.demand(slots.saturating_sub(self.bridges), self.trying, now)
        } else {
            Demand::Nothing
        }
    }

    /// Begins the lookup that precedes a dial. False if it needs none.
    pub fn look_up(&mut self, resolver: &Resolver, lookup: Lookup) -> bool {
        self.lookup.as_mut().map(|name| name.ask(resolver, lookup)).is_some()
    }

    /// Takes the result of its lookup.
    ///
    /// # Errors
    /// The lookup's.
    pub fn found(&mut self, found: Found) -> io::Result<()> {
        if let Some(name) = &mut self.lookup {
            name.answered();
        }
        self.addresses.update(found?);
        Ok(())
    }

    pub fn bridge_opened(&mut self) {
        self.bridges += 1;
        self.trying += 1;
    }

    /// Notes that a bridge has been closed, and whether it had been accepted.
    pub fn bridge_closed(&mut self, accepted: bool) {
        self.bridges -= 1;
        self.trying -= usize::from(!accepted);
    }

    /// The BRIDGE request for a new bridge to `address`; `plain` is the request without an
    /// announcement.
    pub fn registration<'a>(&'a mut self, address: SocketAddr, plain: &'a [u8]) -> &'a [u8] {
        self.addresses.answered(address.ip());
        if self.announcement.is_none() {
            self.announcement = Announcement::with_receipts(plain);
        }
        self.announcement.as_ref().map_or(plain, |announcement| &announcement.register)
    }

    /// The request that deregisters the bridges dialled so far, if they have been announced.
    pub fn deregistration(&self) -> Option<&[u8]> {
        self.announcement.as_ref().map(|announcement| &announcement.leave[..])
    }

    /// Notes that the bridges dialled so far have been deregistered: new ones are a new group.
    pub fn end_announcement(&mut self) {
        self.announcement = None;
    }

    /// Notes that it could not be reached, or was lost before it had accepted a bridge.
    pub fn failed(&mut self, why: &io::Error, now: Millis) {
        let name = &self.name;
        if self.pace.failed(now) {
            log::warn!("no bridge to {name}: {why}; trying again");
        } else {
            log::debug!("no bridge to {name}: {why}");
        }
    }

    /// Notes that it has refused a BRIDGE.
    pub fn refused(
        &mut self,
        status: u16,
        reason: &str,
        retry_after: Option<Duration>,
        now: Millis,
    ) {
        let level = match (self.pace.refused(now, status, retry_after), status) {
            (false, _) => log::Level::Debug,
            (true, 503) => log::Level::Warn,
            (true, _) => log::Level::Error,
        };
        let pause = self.pace.pause_left(now).as_secs();
        let name = &self.name;
        log::log!(
            level,
            "{name} refuses bridges: {status} {reason}; it is asked again every {pause} s"
        );
    }

    /// Notes that a bridge that it had accepted is lost.
    pub fn lost(&mut self, why: &io::Error, now: Millis) {
        log::debug!("a bridge to {} is lost: {why}", self.name);
        self.pace.lost(now, Duration::ZERO);
    }

    /// Notes that it wants its bridges dialled again.
    pub fn released(&mut self, now: Millis) {
        self.pace.lost(now, RECONNECT.spread());
    }

    pub fn accepted(&mut self) {
        self.trying -= 1;
        if self.pace.accepted() {
            log::info!("{} accepts bridges", self.name);
        }
    }
}
