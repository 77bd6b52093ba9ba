//! The proxies: where they are, when they are dialled, and how many bridges they get.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::lookup::{Lookup, Name, Resolver};
use super::pace::{Demand, Pace};
use super::service::Encryption;
use crate::backoff::RECONNECT;
use crate::bridge::BackendToken;
use crate::client::announce::Announcement;
use crate::config::Destination;
use crate::net::resolver::Found;
use crate::net::tls::TlsError;
use crate::net::token::Token;
use crate::time::Millis;
use crate::upstream::Addresses;

/// How often the addresses behind a name with `--all-addresses` are looked up.
const CLUSTER_INTERVAL: Duration = Duration::from_secs(10);

/// The status with which a proxy would refuse a bridge as lastingly as one that cannot be trusted.
const DISTRUSTED: u16 = 401;

/// How soon to look them up again while there are none.
const CLUSTER_RETRY: Duration = Duration::from_secs(1);

/// Names a proxy among those of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// Its place among the service's proxies.
    pub at: usize,
    /// Its address, if it is one of a cluster.
    pub member: Option<SocketAddr>,
}

/// A proxy that bridges of one application are dialled to.
pub(super) struct Proxy {
    pub application: usize,
    pub place: Place,
    /// For the log.
    name: String,
    /// What to look up with each dial, if it was given by name.
    lookup: Option<Name>,
    /// It belongs to no cluster, or its cluster's name still resolves to it. Otherwise it is not
    /// dialled, but existing bridges stay until it closes them.
    listed: bool,
    pub addresses: Addresses,
    /// Its bridges, in all stages.
    bridges: usize,
    /// Those that the program still has that this one replaces.
    pub elsewhere: usize,
    /// Those of them that it has not accepted yet.
    trying: usize,
    pace: Pace,
    /// How its connections are encrypted.
    pub tls: Option<Encryption>,
    /// The service has several proxies, so the places of its application are shared.
    pub is_one_of_several: bool,
    /// What new bridges announce, and the request that deregisters them. `None` until the first
    /// bridge is dialled, and again once the group has been deregistered.
    pub announcement: Option<Announcement>,
    /// What is between the agent and it about places.
    pub sharing: Sharing,
}

/// What is between the agent and a proxy about the places of its application (`places.rs`).
#[derive(Default)]
pub(super) struct Sharing {
    /// Its number at the application's arbiter, once it has one.
    pub party: Option<usize>,
    /// How many bridges with the present token take messages, or have become tunnels; and how many are
    /// tunnels.
    pub bridges: usize,
    pub tunnels: usize,
    /// The last bridge that it has accepted took messages.
    pub is_understood: bool,
    /// The number of the last message.
    pub sent: u64,
    /// The bridge that it has been told over last.
    pub told_over: Option<Token>,
}

/// A name whose every address is a proxy of its own.
pub(super) struct Cluster {
    pub application: usize,
    /// Its place among the service's proxies.
    pub at_place: usize,
    pub name: Name,
    /// How their connections are encrypted.
    tls: Option<Encryption>,
    /// Indices of its proxies.
    members: Vec<usize>,
    /// When it is looked up next.
    pub at: Millis,
}

impl Cluster {
    /// A cluster that is looked up at once.
    pub fn new(
        application: usize,
        at_place: usize,
        name: Name,
        tls: Option<Encryption>,
    ) -> Cluster {
        Cluster { application, at_place, name, tls, members: Vec::new(), at: Millis(0) }
    }

    /// Whether encrypted bridges are to be dialled to proxies that are not known yet.
    pub fn awaits_encrypted(&self) -> bool {
        self.tls.is_some() && self.members.is_empty()
    }

    /// Its proxy at `address`, which is added to `proxies` if it is new.
    pub fn member(&mut self, address: SocketAddr, proxies: &mut Vec<Proxy>) -> usize {
        let known = |&&member: &&usize| proxies[member].addresses.contains(&address);
        if let Some(&member) = self.members.iter().find(known) {
            return member;
        }
        self.members.push(proxies.len());
        let name = format!("{} ({address})", self.name.host);
        let place = Place { at: self.at_place, member: Some(address) };
        let addresses = Addresses::of(&Destination::Socket(address));
        let proxy = Proxy::new(self.application, place, name, None, addresses);
        proxies.push(Proxy { tls: self.tls.clone(), is_one_of_several: true, ..proxy });
        proxies.len() - 1
    }

    /// Takes its addresses, and adds those that are new to `proxies`.
    pub fn found(&mut self, found: Found, proxies: &mut Vec<Proxy>, now: Millis) {
        self.name.answered();
        self.at = now + CLUSTER_INTERVAL;
        let found = match found {
            Ok(found) => found,
            // Keep the known addresses: a failing resolver says nothing about them.
            Err(error) => {
                log::warn!("{}: {error}", self.name.host);
                if self.members.is_empty() {
                    self.at = now + CLUSTER_RETRY;
                }
                return;
            }
        };
        for &member in &self.members {
            let proxy = &mut proxies[member];
            proxy.listed = found.iter().any(|address| proxy.addresses.contains(address));
        }
        for address in found {
            self.member(address, proxies);
        }
    }
}

impl Proxy {
    /// A proxy at `addresses`, or at those that a `lookup` finds; `name` is for the log.
    pub fn new(
        application: usize,
        place: Place,
        name: String,
        lookup: Option<Name>,
        addresses: Addresses,
    ) -> Proxy {
        Proxy {
            application,
            place,
            name,
            lookup,
            listed: true,
            addresses,
            bridges: 0,
            elsewhere: 0,
            trying: 0,
            pace: Pace::default(),
            tls: None,
            is_one_of_several: false,
            announcement: None,
            sharing: Sharing::default(),
        }
    }

    /// The same, with connections that are encrypted.
    pub fn encrypted(self, tls: Option<Encryption>) -> Proxy {
        Proxy { tls, ..self }
    }

    /// The same, for a service that has several.
    pub fn one_of_several(self, is_one_of_several: bool) -> Proxy {
        Proxy { is_one_of_several, ..self }
    }

    /// How many bridges to dial. Every proxy gets as many as the application has slots, so that any
    /// one proxy can use all of them.
    pub fn demand(&self, slots: usize, now: Millis) -> Demand {
        if self.listed {
            self.pace.demand(slots.saturating_sub(self.claimed()), self.trying, now)
        } else {
            Demand::Nothing
        }
    }

    /// Begins a lookup, if it was given by name. True if its result must be awaited because no
    /// address is known.
    pub fn look_up(&mut self, resolver: &Resolver, lookup: Lookup) -> bool {
        let asked = self.lookup.as_mut().map(|name| name.ask(resolver, lookup)).is_some();
        asked && self.addresses.len() == 0
    }

    /// Takes the result of its lookup. A failing resolver says nothing about known addresses: they
    /// are kept.
    ///
    /// # Errors
    /// The lookup's, if no address is known.
    pub fn found(&mut self, found: Found) -> io::Result<()> {
        if let Some(name) = &mut self.lookup {
            name.answered();
        }
        match found {
            Ok(found) => self.addresses.update(found),
            Err(error) if self.addresses.len() == 0 => return Err(error),
            Err(error) => log::debug!("{}: {error}; its known addresses are kept", self.name),
        }
        Ok(())
    }

    /// Its bridges, with those of the program that this one replaces.
    pub fn claimed(&self) -> usize {
        self.bridges + self.elsewhere
    }

    /// Whether it has accepted so many bridges, or is to get none any more.
    pub fn has_accepted(&self, count: usize) -> bool {
        self.bridges - self.trying >= count || !self.listed
    }

    /// Notes that a bridge has come from another program: one that it has accepted.
    pub fn bridge_arrived(&mut self) {
        self.bridges += 1;
        self.pace.accepted();
    }

    /// Its bridges have this token. `plain` is the request without an announcement.
    pub fn take_token(&mut self, token: BackendToken, plain: &[u8]) {
        self.announcement = Announcement::of_agent_with(token, plain, self.is_one_of_several);
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
            self.announcement = Announcement::of_agent(plain, self.is_one_of_several);
        }
        self.announcement.as_ref().map_or(plain, |announcement| &announcement.register)
    }

    /// Notes that it could not be reached, or was lost before it had accepted a bridge.
    pub fn failed(&mut self, why: &io::Error, now: Millis) {
        let name = &self.name;
        if TlsError::is_lasting(why) {
            let level = match self.pace.refused(now, DISTRUSTED, None) {
                true => log::Level::Error,
                false => log::Level::Debug,
            };
            let pause = self.pace.pause_left(now).as_secs();
            log::log!(level, "no bridge to {name}: {why}; it is tried again every {pause} s");
            return;
        }
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

    /// Notes that nothing could be dialled for want of a descriptor or of memory.
    pub fn pause(&mut self, now: Millis) {
        self.pace.lost(now, RECONNECT.longest);
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
