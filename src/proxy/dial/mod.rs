//! Servers that the proxy dials itself (`servers=` of a site): when, which, and what becomes of the connections.
//!
//! A connection that has come off is a bridge like any other, on the site's own route: it is parked, matched, moved to
//! another worker and used again, by the same code. What is here is only how it comes to be. Once a turn, while requests
//! wait, [`Worker::tend_servers`] counts for each site the requests on this worker that no bridge is on its way to and
//! no connection is being dialled for, and dials as many. Nothing is dialled in advance, and nothing while bridges are
//! free, so a request that finds a parked bridge pays nothing for this.
//!
//! Who is done with a request is parked for the next; so when the servers have all the connections they may have, the
//! lobby's order holds among the requests. A server that cannot be reached is set aside for all workers, and worker 0
//! probes it until it answers.

mod deserted;
mod health;
mod servers;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::Destination;
use crate::net::resolver::{Found, Resolver};

pub use servers::{Line, Pools, Server};

use super::arrivals::is_shortage;
use super::role::{Backend, Bridge, Origin, Role, Standing};
use super::shared::Mail;
use super::start;
use super::worker::Worker;

/// How soon a worker looks again whose requests could not have a connection, and the prober whether a probe is due, in
/// milliseconds. Whoever closes a connection wakes the others; this is for what nobody tells of.
const LOOK_AGAIN: u64 = 50;

/// A connection that ends before it has served anything, so soon after it was made, in milliseconds, says that the
/// server is not there, although it has taken it: a process that crashes while it starts, or a proxy without a backend.
const STILLBORN: u64 = 100;

/// One in so many connections is left for servers where there are any. They are used again and again, so far fewer of
/// them than of clients' do.
const LEFT_FOR_SERVERS: usize = 8;

/// What a connection is dialled for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// The requests that wait.
    Requests,
    /// To see whether the server is there.
    Probe,
}

/// A connection that is being dialled.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// What for.
    pub purpose: Purpose,
    /// Which of the server's addresses it goes to.
    pub tried: usize,
    /// The id of the route that it will be on.
    pub route: u64,
}

/// What a worker knows of its dialling.
#[derive(Default)]
pub(super) struct Dialling {
    /// Connections that are being dialled for requests, by the id of their route.
    under_way: HashMap<u64, usize>,
    /// Requests wait here that could not have a connection.
    hungry: bool,
    /// Since when the sites with a backup had no backend when the requests that wait here were last looked at for that,
    /// in microseconds, by the id of their route.
    deserted: HashMap<u64, u64>,
    /// A connection to a server has been closed in this turn.
    freed: bool,
}

impl Dialling {
    fn begins(&mut self, attempt: Attempt) {
        if attempt.purpose == Purpose::Requests {
            *self.under_way.entry(attempt.route).or_default() += 1;
        }
    }

    /// A connection is not being dialled any more.
    pub fn ends(&mut self, attempt: Attempt) {
        if attempt.purpose == Purpose::Requests
            && let Some(count) = self.under_way.get_mut(&attempt.route)
        {
            *count -= 1;
            if *count == 0 {
                self.under_way.remove(&attempt.route);
            }
        }
    }

    /// Whether any request is being dialled for.
    pub fn is_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }
}

impl Worker {
    /// Dials for the requests that wait, and probes the servers that are set aside.
    pub(super) fn tend_servers(&mut self) {
        if self.config.pools.is_empty() {
            return;
        }
        self.dialling.hungry = false;
        let probing = self.index == 0 && self.config.pools.common.has_aside() && self.is_serving();
        if !probing && self.lobby.counters().waiting == 0 {
            return;
        }
        let config = Arc::clone(&self.config);
        if probing {
            for server in config.pools.servers() {
                if server.begin_probe(self.now.micros) {
                    self.probe(server);
                }
            }
        }
        if self.has_deserted(&config.pools) {
            // They are looked at in the next turn, and dialled for after that.
            return self.look_for_backups();
        }
        for (at, pool) in config.pools.list().iter().enumerate() {
            let Some(route) = self.lobby.route_of(pool.route.id()) else { continue };
            let wanted = self.lobby.uncovered_on(route);
            let under_way = self.dialling.under_way.get(&pool.route.id()).copied().unwrap_or(0);
            let had = (under_way..wanted).all(|_| self.dial_for_requests(&config.pools, at));
            self.dialling.hungry |= !had;
        }
    }

    /// Begins one more connection to a server of the pool `at`. False if there can be none now.
    fn dial_for_requests(&mut self, pools: &Pools, at: usize) -> bool {
        let pool = &pools.list()[at];
        loop {
            let line = match pool.choose() {
                Some(line) => line,
                None => {
                    // First said, and then looked once more: whoever gives one back meanwhile sees one or the other.
                    pools.common.starving.store(true, Ordering::SeqCst);
                    let Some(line) = pool.choose() else { return false };
                    line
                }
            };
            let server = Arc::clone(&line.server);
            match self.dial(line, Purpose::Requests, 0) {
                Ok(()) => return true,
                Err(error) if is_ours(&error) => {
                    log::debug!("cannot dial {}: {error}", server.to);
                    return false;
                }
                // It is set aside by that: the next choice is another one.
                Err(error) => self.server_failed(&server, Purpose::Requests, &error),
            }
        }
    }

    fn dial(&mut self, line: Box<Line>, purpose: Purpose, tried: usize) -> io::Result<()> {
        let limit = self.shared.connection_limit(&self.config);
        if self.shared.open_connections() >= limit {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "max-connections is reached"));
        }
        let stream = line.server.connect(tried, &start::socket_options(self.settings()))?;
        let peer = match &line.server.to {
            Destination::Unix(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            _ => stream.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip()),
        };
        let attempt = Attempt { purpose, tried, route: line.server.route.id() };
        let key = self.insert(stream, peer, Role::Dialling(attempt))?;
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        self.slots[key].server = Some(line);
        self.dialling.begins(attempt);
        self.set_deadline(key, self.settings().dial_timeout);
        Ok(())
    }

    /// How many connections may be open for one more to be accepted: some are left for servers, or clients that wait for
    /// a server could take all that there are.
    pub(super) fn accept_limit(&self) -> usize {
        let limit = self.shared.connection_limit(&self.config);
        if self.config.pools.is_empty() { limit } else { left_for_clients(limit) }
    }

    /// A connect may have come off.
    pub(super) fn watch_dialling(&mut self, key: usize) {
        match self.slots[key].conn.is_connected() {
            Ok(true) => self.has_dialled(key),
            Ok(false) => {}
            Err(error) => self.dial_failed(key, &error),
        }
    }

    /// A connect has not come off in time.
    pub(super) fn dialling_is_late(&mut self, key: usize) {
        self.dial_failed(key, &io::Error::new(io::ErrorKind::TimedOut, "it does not answer"));
    }

    fn has_dialled(&mut self, key: usize) {
        let Role::Dialling(attempt) = self.slots[key].role else { return };
        let Some(server) = self.slots[key].server.as_ref().map(|line| Arc::clone(&line.server))
        else {
            return self.close(key);
        };
        server.answered(attempt.tried);
        let route = self.lobby.route_of(attempt.route);
        let (Purpose::Requests, Some(route), false) = (attempt.purpose, route, server.is_gone())
        else {
            // A probe is not kept: a server that takes one connection at a time would wait for a request on it.
            return self.close(key);
        };
        self.dialling.ends(attempt);
        self.timers.clear(key);
        self.set_role(key, Role::Leaving);
        let exempt = self.lobby.join_exempt(route);
        if let Some(line) = &mut self.slots[key].server {
            line.exempt = Some(exempt);
        }
        let bridge = Bridge {
            route,
            standing: Standing::Reused { until: self.server_idle_until(None) },
            served: 0,
            parked_at: self.now.millis(),
            keys: None,
            backend: Backend::Silent,
            origin: Origin::Dialled,
        };
        self.park(key, bridge);
    }

    fn dial_failed(&mut self, key: usize, error: &io::Error) {
        let Role::Dialling(attempt) = self.slots[key].role else { return };
        let line = self.slots[key].server.take();
        self.close(key);
        let Some(line) = line else { return };
        let server = Arc::clone(&line.server);
        let next = attempt.tried + 1;
        if next < server.addresses() && self.dial(line, attempt.purpose, next).is_ok() {
            return;
        }
        self.server_failed(&server, attempt.purpose, error);
    }

    fn server_failed(&mut self, server: &Server, purpose: Purpose, error: &io::Error) {
        server.failed(purpose == Purpose::Probe, error, self.now.micros);
        if self.index != 0 {
            self.shared.mailboxes[0].wake();
        }
    }

    fn probe(&mut self, server: &Arc<Server>) {
        if let Destination::Name { host, port } = &server.to {
            let common = &self.config.pools.common;
            let resolver = common.resolver.get_or_init(|| {
                let shared = Arc::clone(&self.shared);
                let answer =
                    move |server, found| shared.mailboxes[0].send(Mail::Found(server, found));
                Resolver::start(answer).ok()
            });
            match resolver {
                Some(resolver) => resolver.ask(Arc::clone(server), host, *port),
                None => {
                    let error = io::Error::other("there is no thread to look its name up");
                    self.server_failed(server, Purpose::Probe, &error);
                }
            }
            return;
        }
        self.probe_addresses(server);
    }

    /// The name of a server that is to be probed has been looked up.
    pub(super) fn server_found(&mut self, server: &Arc<Server>, found: Found) {
        match found {
            Ok(found) => {
                server.found(found);
                self.probe_addresses(server);
            }
            Err(error) => self.server_failed(server, Purpose::Probe, &error),
        }
    }

    fn probe_addresses(&mut self, server: &Arc<Server>) {
        let result = match server.line() {
            Some(line) => self.dial(line, Purpose::Probe, 0),
            // Those connections that it has may still be good.
            None => Err(io::Error::other("it has as many connections as it may have")),
        };
        if let Err(error) = result {
            self.server_failed(server, Purpose::Probe, &error);
        }
    }

    /// Until when a connection to a server is kept idle, in milliseconds: as the settings say, or the server, whichever
    /// is shorter.
    pub(super) fn server_idle_until(&self, said: Option<u64>) -> Option<u64> {
        let idle = u64::try_from(self.settings().dial_idle.as_millis()).unwrap_or(u64::MAX / 2);
        let until = self.now.millis() + idle;
        Some(said.map_or(until, |said| said.min(until)))
    }

    /// A connection that was parked, or was to be used, has turned out to be closed. Nothing had been sent over it: a
    /// server that closes when it has seen a certain request is not set aside for that, or any client could do it.
    pub(super) fn server_hung_up(&mut self, key: usize) {
        let Some(bridge) = self.slots[key].role.bridge() else { return };
        let age = self.now.millis().saturating_sub(bridge.parked_at);
        let stillborn = bridge.served == 0 && age < STILLBORN;
        let server = self.slots[key].server.as_ref().map(|line| Arc::clone(&line.server));
        if let (true, Some(server)) = (stillborn, server) {
            let error = io::Error::other("it closes connections as soon as it has taken them");
            self.server_failed(&server, Purpose::Requests, &error);
        }
    }

    /// Whether the server of this connection has gone from the settings.
    pub(super) fn server_is_gone(&self, key: usize) -> bool {
        self.slots[key].server.as_ref().is_some_and(|line| line.server.is_gone())
    }

    /// A connection to a server has been closed, and its socket with it: there may be another one now.
    pub(super) fn line_is_free(&mut self) {
        self.dialling.freed = true;
        let starving = &self.config.pools.common.starving;
        // Read first: mostly nobody is, and a write would cost all workers their copy.
        if starving.load(Ordering::SeqCst) && starving.swap(false, Ordering::SeqCst) {
            self.wake_others();
        }
    }

    /// When there is something to tend again, in milliseconds; `None` if nothing is known of.
    pub(super) fn tend_at(&mut self) -> Option<u64> {
        if self.config.pools.is_empty() {
            return None;
        }
        let now = self.now.millis();
        if std::mem::take(&mut self.dialling.freed) && self.dialling.hungry {
            return Some(now);
        }
        let probes = self.index == 0 && self.config.pools.common.has_aside();
        (probes || self.dialling.hungry).then_some(now + LOOK_AGAIN)
    }

    /// While draining: nobody needs to know any more whether servers are there, nor a connection that nobody waits for.
    pub(super) fn close_dialling(&mut self) {
        let wanted = self.lobby.counters().waiting > 0;
        let unwanted = |role: &Role| match role {
            Role::Dialling(attempt) => !wanted || attempt.purpose == Purpose::Probe,
            _ => false,
        };
        self.each_slot(unwanted, Worker::close);
    }

    /// After a change of the settings: closes the idle connections to servers that have gone.
    pub(super) fn close_gone_servers(&mut self) {
        // The ids of routes that are no more must not pile up here.
        self.dialling.deserted.clear();
        for key in self.slots_with(|role| matches!(role, Role::Parked { .. } | Role::Dialling(_))) {
            if self.server_is_gone(key) {
                self.close(key);
            }
        }
    }
}

/// How many of `limit` connections clients may have where there are servers. Of few, one is left for a server: it serves
/// them all.
fn left_for_clients(limit: usize) -> usize {
    limit.saturating_sub((limit / LEFT_FOR_SERVERS).max(1)).max(1)
}

/// Whether a connect has failed for a reason of ours and not of the server's: then it is not the server's fault, and
/// another one would not do better. `WouldBlock` is a Unix socket's full queue: the server is there, and busy.
fn is_ours(error: &io::Error) -> bool {
    is_shortage(error)
        || matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::AddrNotAvailable)
}
