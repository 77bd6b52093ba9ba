//! Servers that the proxy dials (`servers=` of a site): when, which, and what becomes of the
//! connections.
//!
//! An established connection is a bridge like any other, on the site's own route: it is parked,
//! matched and reused by the same code. This module only connects. Once a turn, while requests
//! wait, [`Worker::maintain_servers`] counts for each site the requests waiting on this worker,
//! less the connects in progress for it, and dials that many. Nothing is dialled in advance, or
//! while bridges are idle, so a request that finds an idle bridge costs nothing here.
//!
//! When all servers have their maximum of connections, requests wait in order. A server that cannot
//! be reached is set aside by all workers, and worker 0 probes it until it answers. One that has ended
//! a connection without an answer may be about to end itself: `trials.rs`.

pub(super) mod attempts;
mod checks;
mod failover;
pub(super) mod named;
pub(super) mod servers;
mod trials;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::config::Destination;
use crate::net::resolver::{Found, Resolver};
use crate::net::sys::is_shortage;
use crate::net::tls::TlsError;
use crate::time::Millis;
use crate::upstream::Purpose;

use attempts::Attempt;

use super::backends::Key;
use super::bridge_store::Keeping;
use super::closing::End;
use super::listeners::socket_options;
use super::role::{Bridge, Handshake, Origin, Pools, Role, Server, ServerPermit};
use super::state::Mail;
use super::worker::Worker;

/// How soon a worker retries when no connection could be made for a request, and how often the
/// prober checks for due probes. A worker that closes a connection wakes the others; this covers
/// what is not announced.
const RECHECK: Duration = Duration::from_millis(50);

/// How often the names of servers that are up are looked up.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// A server that closes an unused connection this soon after the connect counts as down although it
/// accepts: a process that crashes at start, or a proxy without a backend.
const CLOSED_ON_CONNECT: Duration = Duration::from_millis(100);

impl Worker {
    /// Dials for the requests that wait, and probes the servers that are set aside.
    pub(super) fn maintain_servers(&mut self) {
        if self.config.pools.is_empty() {
            return;
        }
        self.dialling.has_unmet_demand = false;
        if self.config.pools.has_names || self.config.pools.has_checks {
            let config = Arc::clone(&self.config);
            self.refresh_servers(&config.pools);
            self.check_servers(&config.pools);
        }
        let probes = self.index == 0 && self.config.pools.common.any_down() && self.is_serving();
        if !probes && self.scheduler.counters().waiting == 0 {
            return;
        }
        let config = Arc::clone(&self.config);
        if probes {
            for server in config.pools.servers() {
                if server.begin_probe(self.conns.now()) {
                    self.probe(server);
                }
            }
        }
        if self.site_lost_its_backends(&config.pools) {
            // Their requests are dispatched again next turn, and dialled for after that.
            return self.fail_over();
        }
        for (at, pool) in config.pools.list().iter().enumerate() {
            if self.shared.drained.has_route(&pool.route) {
                continue;
            }
            let wanted = self.scheduler.waiting_here(&pool.route);
            let route = pool.route.id();
            let in_progress = self.dialling.in_progress.get(&route).copied().unwrap_or(0);
            let met = (in_progress..wanted).all(|_| self.dial_for_request(&config.pools, at));
            self.dialling.has_unmet_demand |= !met;
        }
    }

    /// Begins one more connection to a server of the pool `at`. False if none is possible now.
    fn dial_for_request(&mut self, pools: &Pools, at: usize) -> bool {
        let (pool, now) = (&pools.list()[at], self.conns.now().millis());
        loop {
            let permit = match pool.choose(now) {
                Some(permit) => permit,
                None => {
                    // Publish first, then look once more: a worker that returns a permit meanwhile
                    // either sees the flag, or its permit is seen here.
                    pools.common.at_capacity.store(true, Ordering::SeqCst);
                    let Some(permit) = pool.choose(now) else { return false };
                    permit
                }
            };
            let server = Arc::clone(&permit.server);
            match self.dial(permit, Purpose::Requests, 0) {
                Ok(()) => return true,
                Err(error) if is_ours(&error) => {
                    log::debug!("cannot dial {}: {error}", server.to);
                    return false;
                }
                // This sets the server aside, so the next choice is another one.
                Err(error) => self.server_failed(&server, Purpose::Requests, &error),
            }
        }
    }

    /// Begins to connect to a server after `tried` of its addresses have failed: to the first of the
    /// others that does not fail at once.
    fn dial(
        &mut self,
        permit: Box<ServerPermit>,
        purpose: Purpose,
        mut tried: usize,
    ) -> io::Result<()> {
        let limit = self.shared.connection_limit(&self.config);
        if self.shared.open_connections() >= limit {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "max-connections is reached"));
        }
        let server = &permit.server;
        let options = socket_options(self.settings());
        let (stream, peer) = loop {
            match server.connect(tried, &options) {
                Err(error) if !is_ours(&error) && tried + 1 < server.addresses() => tried += 1,
                result => break result?,
            }
        };
        let attempt = Attempt { purpose, tried, on_trial: false, route: server.route.id() };
        let session = server.session()?;
        let key = self.insert(stream, peer.ip(), Role::Connecting { attempt, permit })?;
        if let Some(session) = session {
            // The connection is ready once its handshake is done.
            let (connection, ws) = self.conns.split(key);
            connection.conn.start_tls(session, &mut ws.pool);
        }
        self.conns[key].port = peer.port();
        self.dialling.begun(attempt);
        self.conns.set_deadline(key, self.config.settings.dial_timeout);
        Ok(())
    }

    /// A connect may have completed.
    pub(super) fn connect_progress(&mut self, key: usize) {
        if self.is_on_trial(key) {
            return self.watch_trial(key);
        }
        match self.conns[key].conn.is_connected() {
            Ok(true) => self.connected(key),
            Ok(false) => {}
            Err(error) => self.connect_failed(key, &error),
        }
    }

    /// TLS with a server has failed, or could not begin.
    pub(super) fn connect_not_encrypted(&mut self, key: usize, error: TlsError) {
        match error {
            TlsError::Timeout => self.connect_timed_out(key),
            error => self.connect_failed(key, &error.into()),
        }
    }

    pub(super) fn connect_timed_out(&mut self, key: usize) {
        if self.is_on_trial(key) {
            return self.made(key);
        }
        self.connect_failed(key, &io::Error::new(io::ErrorKind::TimedOut, "it does not answer"));
    }

    fn connected(&mut self, key: usize) {
        let Some(Role::Connecting { attempt, permit }) = self.conns.role(key) else { return };
        let (attempt, server) = (*attempt, Arc::clone(&permit.server));
        if attempt.purpose == Purpose::Probe
            && let Some(request) = server.check_request()
            && let Some(Role::Connecting { permit, .. }) = self.take_role(key)
        {
            self.dialling.ended(attempt);
            return self.send_check(key, permit, &request);
        }
        server.answered(self.conns[key].peer, self.conns.now());
        if attempt.purpose == Purpose::Probe || server.is_removed() {
            // A probe is not kept: a server that takes one connection at a time would wait for a
            // request on it.
            return self.end(key, End::Close);
        }
        match server.doubt().trial(self.conns.now().millis()) {
            Some(trial) => self.put_on_trial(key, trial),
            None => self.made(key),
        }
    }

    /// A connection for requests has been made, and is ready for one.
    fn made(&mut self, key: usize) {
        let Some(Role::Connecting { attempt, mut permit }) = self.take_role(key) else { return };
        let server = Arc::clone(&permit.server);
        self.dialling.ended(attempt);
        self.conns.clear_deadline(key);
        permit.exempt = Some(server.route.join_exempt());
        let now = self.conns.now().millis();
        let backend = self.shared.backends.of(Key::Server(server.shown()), now);
        backend.see(self.conns[key].peer, server.route.spec().patterns(), None);
        let bridge = Box::new(Bridge {
            route: Arc::clone(&server.route),
            group: None,
            instance: None,
            _joined: backend.join(),
            _bearer: None,
            backend,
            origin: Origin::Dialled(permit),
            handshake: Handshake::Reused { until: self.server_idle_until(None) },
            served: 0,
            parked_at: now,
            carried_body: false,
            dismissed: false,
            on_trial: false,
            keeping: Keeping::Never,
            through_old: None,
            _share: None,
        });
        self.set_role(key, Role::Idle(bridge));
        self.park(key);
    }

    fn connect_failed(&mut self, key: usize, error: &io::Error) {
        let Some(Role::Connecting { attempt, permit }) = self.take_role(key) else { return };
        self.dialling.ended(attempt);
        self.close_without_role(key);
        let server = Arc::clone(&permit.server);
        let next = attempt.tried + 1;
        if next < server.addresses() && self.dial(permit, attempt.purpose, next).is_ok() {
            return;
        }
        self.server_failed(&server, attempt.purpose, error);
    }

    pub(super) fn server_failed(&mut self, server: &Server, purpose: Purpose, error: &io::Error) {
        server.failed(purpose, error, self.conns.now());
        if self.index != 0 {
            self.shared.mailboxes[0].wake();
        }
    }

    fn probe(&mut self, server: &Arc<Server>) {
        match server.to {
            Destination::Name { .. } => self.look_up(server),
            Destination::Local { .. } | Destination::Socket(_) | Destination::Unix(_) => {
                self.probe_addresses(server);
            }
        }
    }

    /// Looks up the names of the servers that are up, from time to time. Only worker 0 does.
    fn refresh_servers(&mut self, pools: &Pools) {
        let now = self.conns.now().millis();
        let is_due = self.index == 0 && pools.has_names && now >= self.dialling.refresh_at;
        if is_due && self.is_serving() {
            self.dialling.refresh_at = now + REFRESH_INTERVAL;
            pools.servers().filter(|server| server.is_up()).for_each(|server| self.look_up(server));
        }
    }

    fn look_up(&mut self, server: &Arc<Server>) {
        let Destination::Name { host, port } = &server.to else { return };
        let common = &self.config.pools.common;
        let resolver = common.resolver.get_or_init(|| {
            let shared = Arc::clone(&self.shared);
            let answer = move |server, found| shared.mailboxes[0].send(Mail::Found(server, found));
            Resolver::start(answer).ok()
        });
        match resolver {
            Some(resolver) => resolver.ask(Arc::clone(server), host, *port),
            None if server.is_up() => {}
            None => {
                let error = io::Error::other("there is no thread to look up its name");
                self.server_failed(server, Purpose::Probe, &error);
            }
        }
    }

    /// The name of a server has been looked up, for a probe or to see whether it has moved.
    pub(super) fn server_found(&mut self, server: &Arc<Server>, found: Found) {
        match found {
            Ok(found) => server.found(found),
            Err(error) if !server.is_up() && server.addresses() == 0 => {
                return self.server_failed(server, Purpose::Probe, &error);
            }
            // A failing resolver says nothing about known addresses.
            Err(error) => log::debug!("{}: {error}; its known addresses are kept", server.to),
        }
        if !server.is_up() {
            self.probe_addresses(server);
        }
    }

    fn probe_addresses(&mut self, server: &Arc<Server>) {
        let result = match server.permit() {
            Some(permit) => self.dial(permit, Purpose::Probe, 0),
            // Its open connections may still be good.
            None => Err(io::Error::other("it has its maximum of connections")),
        };
        if let Err(error) = result {
            self.server_failed(server, Purpose::Probe, &error);
        }
    }

    /// Until when a server's connection is kept idle: as the settings say or as the server
    /// announced, whichever is shorter.
    pub(super) fn server_idle_until(&self, until: Option<Millis>) -> Option<Millis> {
        let own = self.conns.now().millis() + self.settings().dial_idle;
        Some(until.map_or(own, |until| until.min(own)))
    }

    /// A bridge that was idle, or about to be used, turns out to be closed, with nothing sent over
    /// it. A server that closes on a certain request is not set aside: otherwise any client could
    /// bring that about.
    pub(super) fn server_hung_up(&mut self, key: usize) {
        let Some(bridge) = self.conns.role(key).and_then(Role::bridge) else { return };
        let age = self.conns.now().millis().since(bridge.parked_at);
        if let Origin::Dialled(permit) = &bridge.origin
            && bridge.served == 0
            && age < CLOSED_ON_CONNECT
        {
            let server = Arc::clone(&permit.server);
            let error = io::Error::other("it closes connections right after accepting them");
            self.server_failed(&server, Purpose::Requests, &error);
        }
    }

    /// A connection to a server has been closed, socket included: another may be opened now.
    pub(super) fn server_connection_freed(&mut self) {
        self.dialling.freed = true;
        let at_capacity = &self.config.pools.common.at_capacity;
        // Load first: it is mostly false, and a write would invalidate the line in every worker's
        // cache.
        if at_capacity.load(Ordering::SeqCst) && at_capacity.swap(false, Ordering::SeqCst) {
            self.wake_others();
        }
    }

    /// When [`Worker::maintain_servers`] must run again.
    pub(super) fn next_maintenance(&mut self) -> Option<Millis> {
        if self.config.pools.is_empty() {
            return None;
        }
        let now = self.conns.now().millis();
        if std::mem::take(&mut self.dialling.freed) && self.dialling.has_unmet_demand {
            return Some(now);
        }
        let probes = self.index == 0 && self.config.pools.common.any_down();
        if probes || self.dialling.has_unmet_demand {
            return Some(now + RECHECK);
        }
        let pools = &self.config.pools;
        let refresh = (self.index == 0 && pools.has_names).then_some(self.dialling.refresh_at);
        let check = (self.index == 0 && pools.has_checks).then_some(self.dialling.check_at);
        refresh.into_iter().chain(check).min()
    }

    /// While draining: closes probes, and connects that no request waits for.
    pub(super) fn close_unwanted_connects(&mut self) {
        let is_wanted = self.scheduler.counters().waiting > 0;
        let unwanted = |role: &Role| match role {
            Role::Connecting { attempt, .. } => !is_wanted || attempt.purpose == Purpose::Probe,
            Role::Checking(_) => true,
            _ => false,
        };
        self.end_all(unwanted, || End::Close);
    }

    /// After a reload: closes idle connections, and connects, to servers that were removed.
    pub(super) fn close_removed_servers(&mut self) {
        // Ids of routes that no longer exist must not pile up here.
        self.dialling.failed_over.clear();
        self.dialling.check_at = Millis(0);
        let connecting = |role: &Role| match role {
            Role::Connecting { permit, .. } | Role::Checking(permit) => permit.server.is_removed(),
            _ => false,
        };
        self.end_all(connecting, || End::Close);
        // Bridges to removed servers are dismissed as orphans.
    }
}

/// Whether a connect has failed for a local reason, so that another server would fail too.
/// `WouldBlock` is the full backlog of a Unix socket: the server is up, but busy.
fn is_ours(error: &io::Error) -> bool {
    is_shortage(error)
        || matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::AddrNotAvailable)
}
