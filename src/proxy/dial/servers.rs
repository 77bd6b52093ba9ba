//! The servers of the settings' sites, as all workers share them: how many connections each has, and whether it is
//! there.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use mio::net::TcpStream;

use crate::config::{Destination, Settings};
use crate::net::connect;
use crate::net::resolver::Resolver;
use crate::net::sys::SocketOptions;
use crate::routing::{self, RouteSpec};
use crate::time::Micros;

use super::super::state::{ParkedBridge, Route};

use super::health::{Candidate, Health, choose};

/// Every server of every site.
#[derive(Default)]
pub struct Pools {
    list: Vec<Pool>,
    /// What outlives a change of the settings.
    pub(in crate::proxy) common: Arc<Common>,
}

/// What the servers of all pools have in common.
#[derive(Default)]
pub(in crate::proxy) struct Common {
    /// Servers that are set aside, and so are to be probed.
    aside: AtomicUsize,
    /// A worker has requests for which it could not have a connection: whoever closes one wakes it.
    pub at_capacity: AtomicBool,
    /// Servers that the settings do not have any more, as long as they have connections: if they come back, those count.
    gone: Mutex<Vec<Weak<Server>>>,
    /// Looks up the names of servers; started when the first is needed. `None` if no thread could be had.
    pub resolver: OnceLock<Option<Resolver<Arc<Server>>>>,
}

/// The servers of one site.
pub(in crate::proxy) struct Pool {
    /// The site's own route, which its settings keep alive.
    pub route: Arc<Route>,
    pub servers: Vec<Arc<Server>>,
    /// Whether another site stands in while this one has no backend.
    pub has_backup: bool,
    /// Whose turn it is among equals.
    turn: AtomicUsize,
}

/// A server. It stays the same one as long as the settings have it on the same site.
pub struct Server {
    /// Where it is.
    pub to: Destination,
    /// The site's name, for the log.
    site: String,
    /// What it serves.
    pub(in crate::proxy) route: Arc<Route>,
    /// Most connections to it; `u32::MAX` for any number.
    max: AtomicU32,
    /// Connections to it on all workers: being dialled, parked, in an exchange, or closing.
    open: AtomicU32,
    state: Mutex<State>,
    /// The settings do not have it any more. Written while `state` is locked.
    gone: AtomicBool,
    common: Arc<Common>,
}

struct State {
    health: Health,
    /// Its addresses, the one that answered last in front; none for a Unix socket or before a name has been looked up.
    addresses: Vec<SocketAddr>,
    /// While it is there it is a member of its route: a site with a server is not without backends.
    member: Option<routing::Exempt<ParkedBridge>>,
}

/// One of the connections that a server may have. Dropping it gives it back: not before its socket is closed.
pub struct ServerPermit {
    /// The server.
    pub server: Arc<Server>,
    /// Once it is a bridge: no bound on bridges counts it.
    pub(super) exempt: Option<routing::Exempt<ParkedBridge>>,
}

impl Drop for ServerPermit {
    fn drop(&mut self) {
        self.server.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Pools {
    /// The servers of `settings`; those that `old` has too are taken over with their connections, and those that only
    /// `old` has are gone. The routes of the sites must be pinned. `now` is in microseconds.
    #[must_use]
    pub(in crate::proxy) fn new(
        settings: &Settings,
        directory: &routing::Directory<ParkedBridge>,
        old: &Pools,
        now: Micros,
    ) -> Pools {
        let common = Arc::clone(&old.common);
        let mut list: Vec<Pool> = Vec::new();
        for site in settings.site.iter().filter(|site| !site.servers.is_empty()) {
            let spec = RouteSpec::new(&site.names, "");
            let Some(route) = directory.route(&spec) else { continue };
            let max = site.max.map_or(u32::MAX, |max| u32::try_from(max).unwrap_or(u32::MAX));
            let mut servers: Vec<Arc<Server>> = Vec::new();
            for to in &site.servers {
                if servers.iter().any(|server| server.to == *to) {
                    continue;
                }
                let known = old.find(&route, to).or_else(|| common.take_back(&route, to));
                let server = known.unwrap_or_else(|| {
                    Server::new(to.clone(), site.name(), Arc::clone(&route), Arc::clone(&common))
                });
                server.max.store(max, Ordering::Relaxed);
                servers.push(server);
            }
            let has_backup = site.backup.is_some();
            list.push(Pool { route, servers, has_backup, turn: AtomicUsize::new(0) });
        }
        let pools = Pools { list, common };
        for server in old.servers().filter(|server| pools.find(&server.route, &server.to).is_none())
        {
            server.remove(now);
            pools.common.gone().push(Arc::downgrade(server));
        }
        pools
    }

    /// Whether there is no server at all.
    pub(in crate::proxy) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The servers, site by site.
    pub(in crate::proxy) fn list(&self) -> &[Pool] {
        &self.list
    }

    /// Every server.
    pub(in crate::proxy) fn servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.list.iter().flat_map(|pool| &pool.servers)
    }

    /// How many servers of a site are there: each is a member of the site's route, and no bridge.
    pub(in crate::proxy) fn up_on(&self, route: &Route) -> u32 {
        let up = |server: &&Arc<Server>| server.route.id() == route.id() && server.is_up();
        u32::try_from(self.servers().filter(up).count()).unwrap_or(u32::MAX)
    }

    fn find(&self, route: &Arc<Route>, to: &Destination) -> Option<Arc<Server>> {
        let pool = self.list.iter().find(|pool| pool.route.id() == route.id())?;
        pool.servers.iter().find(|server| server.to == *to).cloned()
    }
}

impl Common {
    /// Whether any server is to be probed now or later.
    pub fn has_aside(&self) -> bool {
        self.aside.load(Ordering::Relaxed) > 0
    }

    /// A server that had gone from the settings, and is there again.
    fn take_back(&self, route: &Arc<Route>, to: &Destination) -> Option<Arc<Server>> {
        let mut gone = self.gone();
        gone.retain(|server| server.strong_count() > 0);
        let at = gone.iter().position(|server| {
            server.upgrade().is_some_and(|s| s.route.id() == route.id() && s.to == *to)
        })?;
        let server = gone.swap_remove(at).upgrade()?;
        server.put_back();
        Some(server)
    }

    fn gone(&self) -> MutexGuard<'_, Vec<Weak<Server>>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// A connection to the server that is to have the next one; `None` if all that are there have as many as they may.
    pub fn choose(&self) -> Option<Box<ServerPermit>> {
        // Each round that is lost was won by another worker.
        for _ in 0..=self.servers.len() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let candidates = self.servers.iter().map(|server| server.as_candidate());
            let server = &self.servers[choose(candidates, turn)?];
            if let Some(line) = server.permit() {
                return Some(line);
            }
        }
        None
    }
}

impl Server {
    fn new(to: Destination, site: &str, route: Arc<Route>, common: Arc<Common>) -> Arc<Server> {
        let (addresses, health) = match &to {
            Destination::Socket(address) => (vec![*address], Health::Up),
            Destination::Unix(_) => (Vec::new(), Health::Up),
            // Its first probe looks the name up.
            Destination::Name { .. } => (Vec::new(), Health::Aside { failures: 0, until: 0 }),
        };
        let member = health.is_up().then(|| route.join_exempt());
        if member.is_none() {
            common.aside.fetch_add(1, Ordering::Relaxed);
        }
        Arc::new(Server {
            to,
            site: site.to_owned(),
            route,
            max: AtomicU32::new(u32::MAX),
            open: AtomicU32::new(0),
            state: Mutex::new(State { health, addresses, member }),
            gone: AtomicBool::new(false),
            common,
        })
    }

    fn as_candidate(&self) -> Candidate {
        let open = self.open.load(Ordering::SeqCst);
        let free = open < self.max.load(Ordering::Relaxed) && self.is_up();
        Candidate { open, free }
    }

    /// One more connection, if it may have one.
    pub(in crate::proxy) fn permit(self: &Arc<Self>) -> Option<Box<ServerPermit>> {
        let max = self.max.load(Ordering::Relaxed);
        let more = |open: u32| (open < max).then(|| open + 1);
        self.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(Box::new(ServerPermit { server: Arc::clone(self), exempt: None }))
    }

    /// Begins to connect to the `tried`-th of its addresses.
    pub(in crate::proxy) fn connect(
        &self,
        tried: usize,
        options: &SocketOptions,
    ) -> io::Result<TcpStream> {
        if let Destination::Unix(path) = &self.to {
            return connect::connect_unix(path);
        }
        let address = self.state().addresses.get(tried).copied();
        match address {
            Some(address) => connect::connect(address, options),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
        }
    }

    /// How many addresses it has.
    pub(in crate::proxy) fn addresses(&self) -> usize {
        self.state().addresses.len()
    }

    /// Its name has been looked up: what answered last stays in front, if it is still among them.
    pub(in crate::proxy) fn found(&self, found: Vec<SocketAddr>) {
        let mut state = self.state();
        let first = state.addresses.first().and_then(|old| found.iter().position(|new| new == old));
        state.addresses = found;
        state.addresses.rotate_left(first.unwrap_or(0));
    }

    /// It has taken a connection at the `tried`-th of its addresses.
    pub(in crate::proxy) fn answered(&self, tried: usize) {
        let mut state = self.state();
        if tried > 0 && tried < state.addresses.len() {
            state.addresses.rotate_left(tried);
        }
        if state.health.is_up() {
            return;
        }
        state.health = Health::Up;
        if !self.is_removed() {
            self.common.aside.fetch_sub(1, Ordering::Relaxed);
            state.member = Some(self.route.join_exempt());
            log::info!("site {}: server {} is there", self.site, self.to);
        }
    }

    /// It could not be reached, as a probe has found or a connection for a request; at `now`, in microseconds.
    pub(in crate::proxy) fn failed(&self, probe: bool, why: &io::Error, now: Micros) {
        let mut state = self.state();
        let was_up = state.health.is_up();
        state.health = state.health.failed(probe, now.millis().0);
        let (site, to) = (&self.site, &self.to);
        if was_up && !self.is_removed() {
            self.common.aside.fetch_add(1, Ordering::Relaxed);
            self.leave(&mut state, now);
            log::warn!(
                "site {site}: server {to} cannot be reached: {why}; it is set aside until it answers"
            );
        } else {
            log::debug!("site {site}: server {to} cannot be reached: {why}");
        }
    }

    /// Whether it is to be probed at `now`, in microseconds; then that is under way.
    pub(in crate::proxy) fn begin_probe(&self, now: Micros) -> bool {
        self.state().health.begin_probe(now.millis().0)
    }

    fn remove(&self, now: Micros) {
        let mut state = self.state();
        if self.gone.swap(true, Ordering::Relaxed) {
            return;
        }
        if !state.health.is_up() {
            self.common.aside.fetch_sub(1, Ordering::Relaxed);
        }
        self.leave(&mut state, now);
    }

    /// The settings have it again.
    fn put_back(&self) {
        let mut state = self.state();
        self.gone.store(false, Ordering::Relaxed);
        if state.health.is_up() {
            state.member = Some(self.route.join_exempt());
        } else {
            // A probe that was under way has been given up.
            state.health = Health::Aside { failures: 0, until: 0 };
            self.common.aside.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn leave(&self, state: &mut State, now: Micros) {
        if let Some(member) = state.member.take() {
            self.route.leave(now);
            drop(member);
        }
    }

    /// Whether the settings do not have it any more.
    pub(in crate::proxy) fn is_removed(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Whether requests may be sent there.
    pub(in crate::proxy) fn is_up(&self) -> bool {
        self.state().health.is_up()
    }

    /// Connections to it on all workers.
    pub(in crate::proxy) fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// How the info page calls it: `10.0.0.5:3000 of www.example.com`.
    pub(in crate::proxy) fn shown(&self) -> String {
        format!("{} of {}", self.to, self.site)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Held for a few instructions, and left whole by each of them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
