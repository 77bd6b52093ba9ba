//! The servers of the sites, shared by all workers: how many connections each has, and whether it
//! is up.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use mio::net::TcpStream;

use crate::config::{Check, Destination, Settings, Site, SiteServer};
use crate::net::resolver::Resolver;
use crate::net::sys::SocketOptions;
use crate::net::tls::{Session, TlsError};
use crate::routing::{Directory, Exempt, Route, RouteSpec};
use crate::time::{Micros, Millis};
use crate::tls::ClientTls;
use crate::upstream::{
    self, Addresses, Candidate, Doubt, Health, Purpose, Tally, check_request, pick,
};

use super::named::NamedServers;

/// How many tunnels to a server do not count towards its site's `max`, unless `tunnels=` says so.
const TUNNELS: usize = 1000;

/// Every server of every site.
pub struct Pools<B> {
    list: Vec<Pool<B>>,
    /// Whether any server was given by name.
    pub(in crate::proxy) has_names: bool,
    /// Whether the health of any is checked.
    pub(in crate::proxy) has_checks: bool,
    /// Kept across reloads.
    pub(in crate::proxy) common: Arc<Common<B>>,
}

/// What the servers of all pools have in common.
pub(in crate::proxy) struct Common<B> {
    /// How many servers are down, and so are to be probed.
    down: AtomicUsize,
    /// A worker has requests that got no connection: a worker that closes one must wake it.
    pub at_capacity: AtomicBool,
    /// Servers that a reload removed and that still have connections: these count if a later reload
    /// puts the server back.
    removed: Mutex<Vec<Weak<Server<B>>>>,
    /// Looks up the names of servers. Started when it is first needed; `None` if that failed.
    pub resolver: OnceLock<Option<Resolver<Arc<Server<B>>>>>,
}

/// The servers of one site.
pub(in crate::proxy) struct Pool<B> {
    /// The site's own route, which is pinned by the settings.
    pub route: Arc<Route<B>>,
    pub servers: Vec<Arc<Server<B>>>,
    /// Whether another site takes the requests while this one has no backend.
    pub has_backup: bool,
    /// Whose turn it is among equals.
    turn: AtomicUsize,
}

/// A server. It stays the same object while it is configured for the same site.
pub struct Server<B> {
    /// Where it is.
    pub to: Destination,
    /// It is spoken to by TLS.
    is_encrypted: bool,
    /// The site's name, for the log.
    site: String,
    /// What it serves.
    pub(in crate::proxy) route: Arc<Route<B>>,
    /// Most connections to it, its tunnels aside; `u32::MAX` for no limit.
    max: AtomicU32,
    /// Connections to it on all workers: connecting, parked, in an exchange, or closing.
    open: AtomicU32,
    /// Most tunnels to it that are not counted in `open`.
    max_tunnels: AtomicU32,
    /// Those tunnels.
    tunnels: AtomicU32,
    /// Whether it may be about to end.
    doubt: Doubt,
    state: Mutex<State<B>>,
    /// A reload removed it. Written while `state` is locked.
    removed: AtomicBool,
    common: Arc<Common<B>>,
}

struct State<B> {
    health: Health,
    addresses: Addresses,
    /// While it is up it is a member of its route, so that its site has a backend.
    member: Option<Exempt<B>>,
    check: Option<HealthCheck>,
    /// What connections to it are encrypted with, if it is spoken to by TLS.
    tls: Option<ClientTls>,
    /// The log has said what is wrong with its TLS.
    has_said_tls: bool,
}

/// How its health is checked.
struct HealthCheck {
    check: Check,
    request: Vec<u8>,
    tally: Tally,
    /// When it is checked next.
    at: Millis,
}

/// The right to one connection to a server. Drop it after the connection's socket is closed.
pub struct ServerPermit<B> {
    /// The server.
    pub server: Arc<Server<B>>,
    /// Set once the connection is a bridge; no bound on bridges counts it.
    pub(super) exempt: Option<Exempt<B>>,
    is_tunnel: bool,
}

impl<B> ServerPermit<B> {
    /// The connection has become a tunnel, which lives long and mostly rests: another one may take
    /// its place. False if it keeps it, because there are as many tunnels as may be.
    pub(in crate::proxy) fn count_as_tunnel(&mut self) -> bool {
        let max = self.server.max_tunnels.load(Ordering::Relaxed);
        let more = |count: u32| (count < max).then(|| count + 1);
        let tunnels = &self.server.tunnels;
        if self.is_tunnel || tunnels.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_err()
        {
            return false;
        }
        self.is_tunnel = true;
        self.server.open.fetch_sub(1, Ordering::SeqCst);
        true
    }
}

impl<B> Drop for ServerPermit<B> {
    fn drop(&mut self) {
        let server = &self.server;
        let count = if self.is_tunnel { &server.tunnels } else { &server.open };
        count.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<B> Default for Pools<B> {
    fn default() -> Self {
        let common = Common {
            down: AtomicUsize::new(0),
            at_capacity: AtomicBool::new(false),
            removed: Mutex::default(),
            resolver: OnceLock::new(),
        };
        Pools { list: Vec::new(), has_names: false, has_checks: false, common: Arc::new(common) }
    }
}

impl<B> Pools<B> {
    /// The servers of `settings`, and those that Redis has `named`. Those also in `old` are kept with
    /// their connections; the rest of `old` is removed. The routes of the sites must be pinned.
    #[must_use]
    pub(in crate::proxy) fn new(
        settings: &Settings,
        named: &NamedServers,
        directory: &Directory<B>,
        old: &Pools<B>,
        now: Micros,
    ) -> Pools<B> {
        let common = Arc::clone(&old.common);
        let mut list = Vec::new();
        let places = old.places();
        for site in settings.site.iter().filter(|site| site.has_servers()) {
            let spec = RouteSpec::new(&site.names, "");
            let Some(route) = directory.route(&spec) else { continue };
            let max = site.max.map_or(u32::MAX, |max| u32::try_from(max).unwrap_or(u32::MAX));
            let tunnels = site.tunnels.unwrap_or(TUNNELS);
            let tunnels = u32::try_from(tunnels).unwrap_or(u32::MAX);
            let mut servers: Vec<Arc<Server<B>>> = Vec::new();
            for to in site.servers.iter().chain(named.of_site(site)) {
                if servers.iter().any(|server| server.is(to)) {
                    continue;
                }
                let pool = places.get(&route.id()).map(|at| &old.list[*at]);
                let known = pool.and_then(|pool| pool.find(to));
                let known = known.or_else(|| common.take_back(&route, to));
                let server = known.unwrap_or_else(|| {
                    Server::new(to.clone(), site.name(), Arc::clone(&route), Arc::clone(&common))
                });
                // One that Redis names several times may have several times as many.
                let times = named.of_site(site).filter(|other| *other == to).count().max(1);
                let times = u32::try_from(times).unwrap_or(u32::MAX);
                server.max.store(max.saturating_mul(times), Ordering::Relaxed);
                server.max_tunnels.store(tunnels, Ordering::Relaxed);
                server.set_check(site);
                servers.push(server);
            }
            let has_backup = site.backup.is_some();
            list.push(Pool { route, servers, has_backup, turn: AtomicUsize::new(0) });
        }
        let is_name = |server: &Arc<Server<B>>| matches!(server.to, Destination::Name { .. });
        let has_names = list.iter().any(|pool: &Pool<B>| pool.servers.iter().any(is_name));
        let has_checks = settings.site.iter().any(|site| site.check.is_some());
        let pools = Pools { list, has_names, has_checks, common };
        let places = pools.places();
        let is_gone = |server: &&Arc<Server<B>>| {
            let pool = places.get(&server.route.id()).map(|at| &pools.list[*at]);
            pool.and_then(|pool| pool.find(&server.as_configured())).is_none()
        };
        for server in old.servers().filter(is_gone) {
            server.remove(now);
            pools.common.removed().push(Arc::downgrade(server));
        }
        pools
    }

    pub(in crate::proxy) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The servers, site by site.
    pub(in crate::proxy) fn list(&self) -> &[Pool<B>] {
        &self.list
    }

    pub(in crate::proxy) fn servers(&self) -> impl Iterator<Item = &Arc<Server<B>>> {
        self.list.iter().flat_map(|pool| &pool.servers)
    }

    /// How many servers of a site are up: each is a member of the site's route without being a
    /// bridge.
    pub(in crate::proxy) fn up_on(&self, route: &Route<B>) -> u32 {
        let up = |server: &&Arc<Server<B>>| server.route.id() == route.id() && server.is_up();
        u32::try_from(self.servers().filter(up).count()).unwrap_or(u32::MAX)
    }

    /// Says how the servers of each site are encrypted that are spoken to by TLS.
    pub(in crate::proxy) fn encrypt(&self, tls_of: impl Fn(&str) -> Option<ClientTls>) {
        for server in self.servers().filter(|server| server.is_encrypted) {
            server.state().tls = tls_of(&server.site);
        }
    }

    /// Where in the list the pool of each route is.
    fn places(&self) -> HashMap<u64, usize> {
        self.list.iter().enumerate().map(|(at, pool)| (pool.route.id(), at)).collect()
    }
}

impl<B> Common<B> {
    /// Whether any server is down, and so must be probed now or later.
    pub fn any_down(&self) -> bool {
        self.down.load(Ordering::Relaxed) > 0
    }

    /// Puts back a server that an earlier reload removed.
    fn take_back(&self, route: &Arc<Route<B>>, to: &SiteServer) -> Option<Arc<Server<B>>> {
        let mut removed = self.removed();
        removed.retain(|server| server.strong_count() > 0);
        let at = removed.iter().position(|server| {
            server.upgrade().is_some_and(|s| s.route.id() == route.id() && s.is(to))
        })?;
        let server = removed.swap_remove(at).upgrade()?;
        server.put_back();
        Some(server)
    }

    fn removed(&self) -> MutexGuard<'_, Vec<Weak<Server<B>>>> {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> Pool<B> {
    fn find(&self, to: &SiteServer) -> Option<Arc<Server<B>>> {
        self.servers.iter().find(|server| server.is(to)).cloned()
    }

    /// A permit for the next server; `None` if all servers that are up have their maximum of
    /// connections.
    pub fn choose(&self, now: Millis) -> Option<Box<ServerPermit<B>>> {
        // Another worker may take the picked server's last permit first.
        for _ in 0..=self.servers.len() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let candidates = self.servers.iter().map(|server| server.as_candidate(now));
            let server = &self.servers[pick(candidates, turn)?];
            if let Some(permit) = server.permit() {
                return Some(permit);
            }
        }
        None
    }
}

impl<B> Server<B> {
    fn new(
        SiteServer { to, tls: is_encrypted }: SiteServer,
        site: &str,
        route: Arc<Route<B>>,
        common: Arc<Common<B>>,
    ) -> Arc<Server<B>> {
        // The first probe looks a name up.
        let health = match to {
            Destination::Name { .. } => Health::UNKNOWN,
            Destination::Local { .. } | Destination::Socket(_) | Destination::Unix(_) => Health::Up,
        };
        let addresses = Addresses::of(&to);
        let member = health.is_up().then(|| route.join_exempt());
        if member.is_none() {
            common.down.fetch_add(1, Ordering::Relaxed);
        }
        Arc::new(Server {
            to,
            is_encrypted,
            site: site.to_owned(),
            route,
            max: AtomicU32::new(u32::MAX),
            open: AtomicU32::new(0),
            max_tunnels: AtomicU32::new(0),
            tunnels: AtomicU32::new(0),
            doubt: Doubt::default(),
            state: Mutex::new(State {
                health,
                addresses,
                member,
                check: None,
                tls: None,
                has_said_tls: false,
            }),
            removed: AtomicBool::new(false),
            common,
        })
    }

    /// As the settings have it.
    fn as_configured(&self) -> SiteServer {
        SiteServer { to: self.to.clone(), tls: self.is_encrypted }
    }

    fn is(&self, to: &SiteServer) -> bool {
        (&self.to, self.is_encrypted) == (&to.to, to.tls)
    }

    /// Our part of TLS on a new connection to it; `None` if it is not encrypted.
    ///
    /// # Errors
    /// What is wrong with its name, as one sentence.
    pub(in crate::proxy) fn session(&self) -> io::Result<Option<Session>> {
        if !self.is_encrypted {
            return Ok(None);
        }
        let tls = self.state().tls.clone();
        let host = match &self.to {
            Destination::Name { host, .. } => host.clone(),
            Destination::Socket(address) => address.ip().to_string(),
            // One at a Unix socket has a `server-name`.
            Destination::Local { .. } | Destination::Unix(_) => "localhost".to_owned(),
        };
        // Never without, whatever else is wrong.
        let tls = tls.ok_or_else(|| io::Error::other("its TLS is not set up"))?;
        tls.session(&host).map(Some).map_err(io::Error::other)
    }

    fn as_candidate(&self, now: Millis) -> Candidate {
        let open = self.open.load(Ordering::SeqCst);
        let free = open < self.max.load(Ordering::Relaxed) && self.is_up();
        Candidate { open, free, doubted: self.doubt.trial(now).is_some() }
    }

    /// A permit for one more connection, if it may have one.
    pub(in crate::proxy) fn permit(self: &Arc<Self>) -> Option<Box<ServerPermit<B>>> {
        let max = self.max.load(Ordering::Relaxed);
        let more = |open: u32| (open < max).then(|| open + 1);
        self.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(Box::new(ServerPermit { server: Arc::clone(self), exempt: None, is_tunnel: false }))
    }

    /// A permit for a tunnel that another program has begun, however many there are.
    pub(in crate::proxy) fn permit_of_tunnel(self: &Arc<Self>) -> Box<ServerPermit<B>> {
        self.open.fetch_add(1, Ordering::SeqCst);
        let exempt = (!self.is_removed()).then(|| self.route.join_exempt());
        let server = Arc::clone(self);
        let mut permit = Box::new(ServerPermit { server, exempt, is_tunnel: false });
        permit.count_as_tunnel();
        permit
    }

    /// A server that the settings no longer have, to which there is still a connection. The route
    /// must have members.
    pub(in crate::proxy) fn removed(
        to: SiteServer,
        site: &str,
        route: Arc<Route<B>>,
        pools: &Pools<B>,
        now: Micros,
    ) -> Arc<Server<B>> {
        let server = Server::new(to, site, route, Arc::clone(&pools.common));
        server.remove(now);
        pools.common.removed().push(Arc::downgrade(&server));
        server
    }

    /// The name of its site.
    pub(in crate::proxy) fn site(&self) -> &str {
        &self.site
    }

    /// Begins to connect to the next of its addresses after `tried` others have failed. Returns the
    /// peer's address too.
    pub(in crate::proxy) fn connect(
        &self,
        tried: usize,
        options: &SocketOptions,
    ) -> io::Result<(TcpStream, SocketAddr)> {
        let address = self.state().addresses.get(tried);
        upstream::connect(&self.to, address, options)
    }

    pub(in crate::proxy) fn addresses(&self) -> usize {
        self.state().addresses.len()
    }

    /// Takes the result of a lookup.
    pub(in crate::proxy) fn found(&self, found: Vec<SocketAddr>) {
        self.state().addresses.update(found);
    }

    /// Notes that it has taken a connection.
    pub(in crate::proxy) fn answered(&self, peer: IpAddr, now: Micros) {
        let mut state = self.state();
        state.addresses.answered(peer);
        state.has_said_tls = false;
        let is_news = state.health.answered(now.millis());
        if is_news && !self.is_removed() {
            self.common.down.fetch_sub(1, Ordering::Relaxed);
            state.member = Some(self.route.join_exempt());
            log::info!("site {}: server {} is up", self.site, self.as_configured());
        }
    }

    /// Notes that it could not be reached.
    pub(in crate::proxy) fn failed(&self, purpose: Purpose, why: &io::Error, now: Micros) {
        let mut state = self.state();
        let was_up = state.health.is_up();
        // No jitter: the workers share its health, so only one of them probes.
        state.health.failed(purpose, now.millis(), 0.0);
        let (site, to) = (&self.site, self.as_configured());
        if TlsError::is_lasting(why) && !std::mem::replace(&mut state.has_said_tls, true) {
            log::warn!("site {site}: TLS with server {to} fails: {why}");
        }
        if was_up && !self.is_removed() {
            self.common.down.fetch_add(1, Ordering::Relaxed);
            self.leave(&mut state, now);
            log::warn!(
                "site {site}: server {to} cannot be reached: {why}; it is set aside until it answers"
            );
        } else {
            log::debug!("site {site}: server {to} cannot be reached: {why}");
        }
    }

    /// Sets how its health is checked, as `site` says.
    fn set_check(&self, site: &Site) {
        let mut state = self.state();
        if state.check.as_ref().map(|known| &known.check) != site.check.as_ref() {
            state.check = site.check.as_ref().map(|check| HealthCheck {
                check: check.clone(),
                request: check_request(check, &site.names),
                tally: Tally::default(),
                at: Millis(0),
            });
        }
    }

    /// What to send to it to check its health; `None` if a connect is enough.
    pub(in crate::proxy) fn check_request(&self) -> Option<Vec<u8>> {
        self.state().check.as_ref().map(|check| check.request.clone())
    }

    /// When it is to be checked; `None` if it is not, or is down and thus probed.
    pub(in crate::proxy) fn check_at(&self) -> Option<Millis> {
        let state = self.state();
        state.check.as_ref().filter(|_| state.health.is_up()).map(|check| check.at)
    }

    pub(in crate::proxy) fn check_begun(&self, now: Millis) {
        if let Some(check) = &mut self.state().check {
            check.at = now + check.check.interval;
        }
    }

    /// Notes that it has answered its health check.
    pub(in crate::proxy) fn check_succeeded(&self, peer: IpAddr, now: Micros) {
        let mut state = self.state();
        let risen = state.check.as_mut().is_none_or(|check| check.tally.succeeded(&check.check));
        if risen || state.health.is_up() {
            drop(state);
            self.answered(peer, now);
        } else {
            state.health.answered_once(now.millis());
        }
    }

    /// Notes that it has failed its health check. True if it is down.
    pub(in crate::proxy) fn check_failed(&self) -> bool {
        let mut state = self.state();
        let fallen = state.check.as_mut().is_none_or(|check| check.tally.failed(&check.check));
        fallen || !state.health.is_up()
    }

    /// Whether a probe is due. If so, the caller must probe now.
    pub(in crate::proxy) fn begin_probe(&self, now: Micros) -> bool {
        self.state().health.begin_probe(now.millis())
    }

    fn remove(&self, now: Micros) {
        let mut state = self.state();
        if self.removed.swap(true, Ordering::Relaxed) {
            return;
        }
        if !state.health.is_up() {
            self.common.down.fetch_sub(1, Ordering::Relaxed);
        }
        self.leave(&mut state, now);
    }

    /// A reload has put it back.
    fn put_back(&self) {
        let mut state = self.state();
        self.removed.store(false, Ordering::Relaxed);
        if state.health.is_up() {
            state.member = Some(self.route.join_exempt());
        } else {
            // A probe that was under way has been abandoned.
            state.health = Health::UNKNOWN;
            self.common.down.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn leave(&self, state: &mut State<B>, now: Micros) {
        if let Some(member) = state.member.take() {
            self.route.leave(now);
            drop(member);
        }
    }

    pub(in crate::proxy) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }

    /// Whether it may be about to end.
    pub(in crate::proxy) fn doubt(&self) -> &Doubt {
        &self.doubt
    }

    /// Whether requests may be sent there.
    pub(in crate::proxy) fn is_up(&self) -> bool {
        self.state().health.is_up()
    }

    /// Most connections to it; `None` for no limit.
    pub(in crate::proxy) fn most(&self) -> Option<u32> {
        Some(self.max.load(Ordering::Relaxed)).filter(|most| *most != u32::MAX)
    }

    /// Connections to it on all workers, tunnels included.
    pub(in crate::proxy) fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed) + self.tunnels.load(Ordering::Relaxed)
    }

    /// Its name on the info page: `10.0.0.5:3000 of www.example.com`.
    pub(in crate::proxy) fn shown(&self) -> String {
        format!("{} of {}", self.as_configured(), self.site)
    }

    fn state(&self) -> MutexGuard<'_, State<B>> {
        // No code can panic while it holds the lock with the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
