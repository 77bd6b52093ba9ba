//! Where the proxy listens, and what it accepts there.
//!
//! A listener is one address of the settings; it has a socket for each worker and each address
//! behind a name. The main thread opens all sockets of a change before it commits the change, so
//! one that fails changes nothing.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::Registry;
use mio::net::TcpStream;
use rustls::ServerConfig;
use slab::Slab;

use crate::config::{AcceptProxy, Address, Listen, Serves, Settings};
use crate::net::listener::{self, Listener, SocketFile};
use crate::net::log_limiter::LogLimiter;
use crate::net::sys::{self, SocketOptions};
use crate::net::token::Token;
use crate::routing::RouteSpec;
use crate::time::Millis;

use super::listener_names;
use super::passed::PassedSockets;
use super::shares::Counted;
use super::tls_files::TlsFiles;

/// The permissions of a Unix socket's file unless the settings say others: the user that the proxy
/// runs as, and nobody else.
const SOCKET_MODE: u32 = 0o600;

/// How many connections one listener may accept per turn; the others run in between.
const ACCEPT_BUDGET: usize = 64;

/// How long accepting pauses when descriptors or connections have run out, unless a connection of
/// this worker closes first. (Another worker's may close unnoticed.)
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many times the backlog of a listener is emptied before it is closed.
const BACKLOG_ROUNDS: usize = 64;

/// An address at which swiftclient backends of a site connect. It stays the same object across
/// reloads while the settings have it with the same names and paths, so a backend that connected
/// there can tell whether it still exists.
pub(super) struct SwiftclientListener {
    pub(super) site: Box<str>,
    /// The route of the backends that connect here.
    pub(super) spec: RouteSpec,
    pub(super) address: Address,
    pub(super) closed: AtomicBool,
}

/// A swiftclient listener as the present settings have it.
pub(super) struct SiteListener {
    pub(super) listener: Arc<SwiftclientListener>,
    /// Which peers announce the backends.
    pub(super) accept_proxy: Option<Arc<AcceptProxy>>,
    /// Its site, by its place in the settings.
    pub(super) site: usize,
}

impl SwiftclientListener {
    /// True after a reload removed it; its backends get no more requests.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
pub(super) enum Accepts {
    /// Clients and bridges, as its `listen` line says.
    Http(Serves),
    /// The swiftclient backends of a site.
    Swiftclient(Arc<SwiftclientListener>),
    /// The operator; over a Unix socket its permissions decide.
    Admin { is_unix: bool },
    /// haproxy's agent checks.
    AgentCheck,
}

impl Accepts {
    /// Whether the admin thread accepts there, and not the workers.
    fn is_for_admin(&self) -> bool {
        matches!(self, Accepts::Admin { .. } | Accepts::AgentCheck)
    }

    fn is(&self, other: &Accepts) -> bool {
        match (self, other) {
            (Accepts::Http(one), Accepts::Http(other)) => one == other,
            (Accepts::Swiftclient(one), Accepts::Swiftclient(other)) => one.site == other.site,
            (Accepts::Admin { .. }, Accepts::Admin { .. })
            | (Accepts::AgentCheck, Accepts::AgentCheck) => true,
            _ => false,
        }
    }

    fn of(listen: &Listen, passed: &PassedSockets) -> Accepts {
        let is_unix = match &listen.address {
            Address::Unix(_) => true,
            Address::Passed(name) => passed.are_unix(name),
            _ => false,
        };
        match listen.serves {
            Serves::Admin => Accepts::Admin { is_unix },
            serves => Accepts::Http(serves),
        }
    }

    fn describe(&self) -> String {
        match self {
            Accepts::Http(Serves::Admin) | Accepts::Admin { .. } => "admin".to_owned(),
            Accepts::AgentCheck => "agent checks".to_owned(),
            Accepts::Http(Serves::Both) => "clients and bridges".to_owned(),
            Accepts::Http(Serves::Clients) => "clients".to_owned(),
            Accepts::Http(Serves::Bridges) => "bridges".to_owned(),
            Accepts::Swiftclient(listener) => format!("swiftclient backends of {}", listener.site),
        }
    }
}

/// What a listener accepts, and how.
#[derive(Clone)]
pub(super) struct Terms {
    accepts: Accepts,
    /// Which peers begin with a PROXY header.
    accept_proxy: Option<Arc<AcceptProxy>>,
    encryption: Encryption,
}

/// How the connections of a listener are encrypted.
#[derive(Clone, Default)]
pub(super) struct Encryption {
    /// What their sessions are made with.
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// The listener's address, if it asks for the certificates of its peers.
    pub(super) asks_at: Option<Arc<str>>,
    /// The port to which clients are redirected, by https.
    pub(super) redirect_https: Option<u16>,
}

impl Terms {
    fn describe(&self) -> String {
        let mut text = self.accepts.describe();
        if self.encryption.tls.is_some() {
            text.push_str(", by TLS");
        }
        if self.encryption.redirect_https.is_some() {
            text.push_str(", redirected to https");
        }
        if let Some(peers) = &self.accept_proxy {
            text.push_str(&format!("; with PROXY headers from {peers}"));
        }
        text
    }
}

/// The main thread's record of a listener.
struct Entry {
    address: Address,
    /// Never reused.
    id: u64,
    bound: Arc<[Bound]>,
    terms: Terms,
    /// The file of a Unix socket.
    file: Option<Arc<SocketFile>>,
}

/// An address that a listener is bound to.
pub(super) struct Bound {
    /// For the log.
    pub(super) shown: String,
    /// Its sockets, for a program that replaces this one. As long as one process has them, the
    /// connections that wait there are kept.
    pub(super) sockets: Vec<OwnedFd>,
}

/// A listener of the program that this one replaces, or of the one before it, whose sockets systemd
/// has kept.
pub(super) struct Inherited {
    /// See `listener_names`.
    pub(super) name: String,
    pub(super) bound: Vec<Bound>,
}

#[derive(Default)]
pub(super) struct ListenerSet {
    entries: Vec<Entry>,
    last_id: u64,
    /// Until the first change all of the old program's listeners, and then those that the settings
    /// do not have.
    inherited: Vec<Inherited>,
    /// The sockets of listeners that changes have removed, until [`ListenerSet::end_removed`].
    removed: Vec<Arc<[Bound]>>,
    /// What systemd has opened.
    passed: Arc<PassedSockets>,
}

/// A listener of the settings: its address, the permissions of its file, and its terms.
type Wanted<'a> = (&'a Address, Option<u32>, Terms);

/// New sockets of one worker, or of the admin thread, each with its listener's id.
pub(super) type Opened = Vec<(Listener, u64)>;

/// A change of listeners whose sockets are all open.
pub(super) struct ListenerChange {
    set: ListenerSet,
    /// For each worker, and last for the admin thread.
    opened: Vec<Opened>,
    /// The old program's listeners that the settings do not have, by their places.
    unused: Vec<usize>,
}

/// For every worker: the open listeners by id. All others must be closed.
pub(super) type OpenListeners = Arc<[(u64, Terms)]>;

impl ListenerSet {
    /// Opens the listeners of `settings`, and those for swiftclient backends, that are not open
    /// yet. Nothing changes before [`ListenerSet::commit`].
    ///
    /// # Errors
    /// One sentence about an address that cannot be listened on. Then nothing stays open.
    pub(super) fn prepare<'s>(
        &self,
        settings: &'s Settings,
        tls: &TlsFiles,
        swiftclient: impl Iterator<Item = &'s SiteListener>,
        workers: usize,
    ) -> Result<ListenerChange, String> {
        let mut left: Vec<&Entry> = self.entries.iter().collect();
        let mut unused: Vec<usize> = (0..self.inherited.len()).collect();
        let passed = Arc::clone(&self.passed);
        let mut set = ListenerSet { last_id: self.last_id, passed, ..ListenerSet::default() };
        let mut opened: Vec<Opened> = (0..=workers).map(|_| Vec::new()).collect();
        for (address, mode, terms) in self.wanted(settings, tls, swiftclient) {
            // The kernel has chosen a port for each line with port 0; an unchanged line keeps its
            // port.
            let known = left.iter().position(|entry| {
                // A socket stays with the threads that it was opened for.
                entry.address == *address
                    && entry.terms.accepts.is_for_admin() == terms.accepts.is_for_admin()
                    && (!address.is_any_port() || entry.terms.accepts.is(&terms.accepts))
            });
            let address = address.clone();
            let entry = if let Some(known) = known {
                let Entry { id, ref bound, ref file, .. } = *left.remove(known);
                Entry { address, id, bound: Arc::clone(bound), terms, file: file.clone() }
            } else {
                set.last_id += 1;
                let id = set.last_id;
                let (of_workers, of_admin) = opened.split_at_mut(workers);
                let threads = if terms.accepts.is_for_admin() { of_admin } else { of_workers };
                let name = listener_names::of(&address, &terms.accepts.describe());
                let old = unused.iter().position(|&at| self.inherited[at].name == name);
                let old = old.map(|at| &self.inherited[unused.remove(at)]);
                let (bound, file) = match (&address, old) {
                    (Address::Passed(name), _) => self.share(name, &terms, id, settings, threads),
                    // Nobody reaches a Unix socket whose file is gone.
                    (Address::Unix(path), Some(_)) if !path.exists() => {
                        open(&address, mode, id, settings, threads)
                    }
                    (_, Some(old)) => take_over(&address, old, id, settings, threads),
                    (_, None) => open(&address, mode, id, settings, threads),
                }
                .map_err(|error| {
                    let hint = self.passed.hint(&address, &error);
                    format!("cannot listen on {address}: {error}{hint}")
                })?;
                let bound = bound.into();
                Entry { address, id, bound, terms, file: file.map(Arc::new) }
            };
            set.entries.push(entry);
        }
        Ok(ListenerChange { set, opened, unused })
    }

    /// What the settings have it listen on.
    fn wanted<'s>(
        &self,
        settings: &'s Settings,
        tls: &TlsFiles,
        swiftclient: impl Iterator<Item = &'s SiteListener>,
    ) -> Vec<Wanted<'s>> {
        let http = settings.listen.iter().enumerate().map(|(at, listen)| {
            let accept_proxy = listen.accept_proxy.clone().map(Arc::new);
            let accepts = Accepts::of(listen, &self.passed);
            let encryption = Encryption {
                tls: tls.of_listener(at),
                asks_at: tls.asks_at(at),
                redirect_https: listen.redirect_https,
            };
            (&listen.address, listen.mode, Terms { accepts, accept_proxy, encryption })
        });
        let swiftclient = swiftclient.map(|SiteListener { listener, accept_proxy, .. }| {
            let accepts = Accepts::Swiftclient(Arc::clone(listener));
            let (accept_proxy, encryption) = (accept_proxy.clone(), Encryption::default());
            (&listener.address, None, Terms { accepts, accept_proxy, encryption })
        });
        let checks = settings.agent_check.iter().map(|address| {
            let (accepts, encryption) = (Accepts::AgentCheck, Encryption::default());
            (address, None, Terms { accepts, accept_proxy: None, encryption })
        });
        http.chain(checks).chain(swiftclient).collect()
    }

    /// Takes the sockets that systemd has opened under `name`, for each thread.
    fn share(
        &self,
        name: &str,
        terms: &Terms,
        id: u64,
        settings: &Settings,
        threads: &mut [Opened],
    ) -> io::Result<(Vec<Bound>, Option<SocketFile>)> {
        let options = socket_options(settings);
        let mut all = Vec::new();
        for (place, socket) in self.passed.of(name).map_err(io::Error::other)? {
            if let Some(peers) = &terms.accept_proxy
                && (**peers == AcceptProxy::Unix) != listener::is_unix(&place)
            {
                let what = format!("accept-proxy={peers} does not fit a socket at {place}");
                return Err(io::Error::other(what));
            }
            let listeners = listener::share(socket, &place, threads.len())?;
            listeners.iter().try_for_each(|listener| listener.set_options(&options))?;
            all.push(hand_out(one_each(listeners), id, threads)?);
        }
        Ok((all, None))
    }

    /// Puts a change in force, logs it, and returns each worker's new sockets.
    pub(super) fn commit(&mut self, change: ListenerChange) -> Vec<Opened> {
        let mut old = std::mem::replace(self, change.set);
        let inherited = std::mem::take(&mut old.inherited).into_iter().enumerate();
        let unused = inherited.filter(|(at, _)| change.unused.contains(at));
        self.inherited = unused.map(|(_, old)| old).collect();
        for entry in &self.entries {
            let terms = entry.terms.describe();
            let before = old.entries.iter().find(|known| known.id == entry.id);
            if before.is_none_or(|known| known.terms.describe() != terms) {
                let whose = match &entry.address {
                    Address::Passed(_) => format!("; {}", entry.address),
                    _ => String::new(),
                };
                let shown = entry.bound.iter().map(|bound| &bound.shown);
                shown.for_each(|shown| log::info!("listening on {shown} ({terms}{whose})"));
            }
        }
        let is_gone = |entry: &&Entry| !self.entries.iter().any(|new| new.id == entry.id);
        for entry in old.entries.iter().filter(is_gone) {
            let remark = match &entry.address {
                Address::Passed(_) => ": systemd keeps the socket, and connections wait there",
                _ => "",
            };
            let shown = entry.bound.iter().map(|bound| &bound.shown);
            shown.for_each(|shown| log::info!("no longer listening on {shown}{remark}"));
            // systemd is told not to keep its socket; nobody needs the file.
            if let Some(file) = &entry.file {
                file.give_away(false);
            }
        }
        // systemd's sockets stay open there.
        let is_own = |entry: &&Entry| !matches!(entry.address, Address::Passed(_));
        let gone = old.entries.iter().filter(is_gone).filter(is_own);
        let gone = gone.map(|entry| Arc::clone(&entry.bound));
        self.removed = old.removed.drain(..).chain(gone).collect();
        change.opened
    }

    /// Ends the listeners that changes have removed, once all threads have closed them: a program
    /// that this one has replaced has them open as long as it runs.
    pub(super) fn end_removed(&mut self) {
        for bound in self.removed.drain(..) {
            bound.iter().for_each(|Bound { shown, sockets }| stop(shown, sockets));
        }
    }

    /// Forgets the listeners that another program has ended, so that they can be opened anew.
    /// Whether there were any.
    pub(super) fn forget_ended(&mut self) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| match &entry.file {
            Some(file) => file.is_there(),
            None => {
                let mut sockets = entry.bound.iter().flat_map(|bound| &bound.sockets);
                sockets.all(|socket| sys::is_listening(socket).unwrap_or(false))
            }
        });
        self.entries.len() < before
    }

    /// Takes these sockets where the settings have the same address, in place of opening others.
    pub(super) fn inheriting(inherited: Vec<Inherited>, passed: PassedSockets) -> ListenerSet {
        ListenerSet { inherited, passed: Arc::new(passed), ..ListenerSet::default() }
    }

    /// What systemd has opened.
    pub(super) fn passed(&self) -> &PassedSockets {
        &self.passed
    }

    /// Warns of the sockets of systemd that the settings do not have: nobody accepts there.
    pub(super) fn warn_of_idle(&self) {
        let is_used = |name: &str| {
            self.entries.iter().any(|entry| match &entry.address {
                Address::Passed(used) => used == name,
                _ => false,
            })
        };
        self.passed.warn_of_idle(is_used);
    }

    /// All listeners that this program has opened: their addresses in the settings, what they
    /// accept, and their sockets.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Address, String, &[Bound])> {
        let all = self.entries.iter().filter(|entry| !matches!(entry.address, Address::Passed(_)));
        all.map(|entry| (&entry.address, entry.terms.accepts.describe(), &*entry.bound))
    }

    /// Leaves the files of Unix sockets that systemd keeps to the next process: those of the
    /// listeners that `is_kept` knows by their names.
    pub(super) fn leave_files(&self, is_kept: impl Fn(&str) -> bool) {
        for entry in &self.entries {
            if let Some(file) = &entry.file {
                let name = listener_names::of(&entry.address, &entry.terms.accepts.describe());
                file.give_away(is_kept(&name));
            }
        }
    }

    /// Before a start: ends the listeners that systemd has kept and the settings do not have, so that
    /// others may have their addresses.
    pub(super) fn end_unwanted<'s>(
        &mut self,
        settings: &'s Settings,
        tls: &TlsFiles,
        swiftclient: impl Iterator<Item = &'s SiteListener>,
    ) {
        let wanted = self.wanted(settings, tls, swiftclient).into_iter();
        let wanted: Vec<String> = wanted
            .map(|(address, _, terms)| listener_names::of(address, &terms.accepts.describe()))
            .collect();
        let all = std::mem::take(&mut self.inherited).into_iter();
        let (kept, unwanted) = all.partition(|old| wanted.contains(&old.name));
        self.inherited = unwanted;
        self.end_unused();
        self.inherited = kept;
    }

    /// Ends the listeners of the old program that the settings do not have: nobody accepts there any
    /// more, and the old program has them open as long as it runs.
    pub(super) fn end_unused(&mut self) {
        for Bound { shown, sockets } in self.inherited.drain(..).flat_map(|old| old.bound) {
            stop(&shown, &sockets);
            log::info!("no longer listening on {shown}");
        }
    }

    /// Leaves the files of Unix sockets to the process that has inherited them, or takes them back.
    pub(super) fn give_files_away(&self, given_away: bool) {
        let files = self.entries.iter().filter_map(|entry| entry.file.as_ref());
        files.for_each(|file| file.give_away(given_away));
    }

    /// Closes the main thread's copies of the sockets: connections are refused as soon as the
    /// workers have closed theirs.
    pub(super) fn close_copies(&mut self) {
        for entry in &mut self.entries {
            let shown = entry.bound.iter().map(|bound| bound.shown.clone());
            entry.bound = shown.map(|shown| Bound { shown, sockets: Vec::new() }).collect();
        }
    }

    pub(super) fn open_listeners(&self) -> OpenListeners {
        self.entries.iter().map(|entry| (entry.id, entry.terms.clone())).collect()
    }
}

/// Ends listening sockets, whichever processes have them.
fn stop(shown: &str, sockets: &[OwnedFd]) {
    for socket in sockets {
        if let Err(error) = sys::stop_listening(socket) {
            log::warn!("cannot stop listening on {shown}: {error}");
        }
    }
}

/// What the sockets accepted under `settings` inherit.
pub(super) fn socket_options(settings: &Settings) -> SocketOptions {
    SocketOptions { keepalive: settings.tcp_keepalive, user_timeout: settings.tcp_user_timeout }
}

/// One listener for each thread.
fn one_each(listeners: Vec<Listener>) -> Vec<Vec<Listener>> {
    listeners.into_iter().map(|one| vec![one]).collect()
}

/// Opens `address` once per thread. Returns the sockets, and the file of a Unix socket.
fn open(
    address: &Address,
    mode: Option<u32>,
    id: u64,
    settings: &Settings,
    threads: &mut [Opened],
) -> io::Result<(Vec<Bound>, Option<SocketFile>)> {
    if let Address::Unix(path) = address {
        let mode = mode.unwrap_or(SOCKET_MODE);
        let (listeners, file) = listener::open_unix(path, mode, threads.len())?;
        let bound = hand_out(one_each(listeners), id, threads)?;
        return Ok((vec![bound], Some(file)));
    }
    let options = socket_options(settings);
    let mut all = Vec::new();
    for socket in address.resolve()? {
        let listeners = listener::open(socket, threads.len(), &options)?;
        all.push(hand_out(one_each(listeners), id, threads)?);
    }
    Ok((all, None))
}

/// The same with the sockets of another program.
fn take_over(
    address: &Address,
    old: &Inherited,
    id: u64,
    settings: &Settings,
    threads: &mut [Opened],
) -> io::Result<(Vec<Bound>, Option<SocketFile>)> {
    let options = socket_options(settings);
    let mut all = Vec::new();
    for Bound { shown, sockets } in &old.bound {
        let listeners = listener::inherit(sockets, shown, threads.len(), &options)?;
        listeners.iter().flatten().try_for_each(|listener| listener.set_options(&options))?;
        all.push(hand_out(listeners, id, threads)?);
    }
    let file = match address {
        Address::Unix(path) => Some(SocketFile::inherit(path)?),
        _ => None,
    };
    Ok((all, file))
}

/// Gives each thread its listeners of one address.
fn hand_out(listeners: Vec<Vec<Listener>>, id: u64, threads: &mut [Opened]) -> io::Result<Bound> {
    let shown = listeners.iter().flatten().next().map(Listener::to_string).unwrap_or_default();
    let sockets = listeners.iter().flatten().map(Listener::duplicate).collect::<io::Result<_>>()?;
    for (thread, listeners) in threads.iter_mut().zip(listeners) {
        thread.extend(listeners.into_iter().map(|listener| (listener, id)));
    }
    Ok(Bound { shown, sockets })
}

/// One worker's listening socket.
struct Socket {
    listener: Listener,
    id: u64,
    terms: Terms,
    /// Connections may be waiting.
    ready: bool,
    /// One has been accepted since the socket was last left to the other threads.
    has_accepted: bool,
}

/// One worker's listening sockets, and whether it accepts.
#[derive(Default)]
pub(super) struct Acceptor {
    sockets: Slab<Socket>,
    /// Sockets with `ready` set, each once. A key may be of a socket closed since.
    ready: VecDeque<usize>,
    paused: Option<(Pause, Millis)>,
    /// Another program accepts.
    suspended: bool,
    shortage: [LogLimiter; 2],
}

/// Where nothing is accepted for a while.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    /// Where only clients come.
    Clients,
    /// Everywhere.
    All,
}

/// A connection that has been accepted and is in no table yet, with what its listener says of it.
pub(super) struct NewPeer {
    pub(super) stream: TcpStream,
    pub(super) address: SocketAddr,
    pub(super) accepts: Accepts,
    /// It begins with a PROXY header.
    pub(super) announces: bool,
    pub(super) encryption: Encryption,
    /// There was only the reserve for it.
    pub(super) newcomer: Option<Counted>,
}

impl NewPeer {
    /// Whether clients come to its listener.
    pub(super) fn may_be_client(&self) -> bool {
        matches!(self.accepts, Accepts::Http(Serves::Both | Serves::Clients))
    }
}

/// What an accept found.
pub(super) enum Accepted {
    Peer(NewPeer),
    /// No connection is waiting, or this listener's budget is used up.
    Nothing,
    /// Another program has ended this listener (`ListenerSet::end_removed`).
    Ended,
    /// There is no room for more connections.
    Shortage(io::Error),
}

impl Acceptor {
    /// Accepts at these sockets too.
    ///
    /// # Errors
    /// When one of them cannot be watched.
    pub(super) fn add(
        &mut self,
        opened: Opened,
        open: &OpenListeners,
        registry: &Registry,
    ) -> io::Result<()> {
        for (mut listener, id) in opened {
            let Some(terms) = terms_of(open, id) else { continue };
            let entry = self.sockets.vacant_entry();
            let token = Token::listener(entry.key()).into();
            if !self.suspended {
                listener.watch(registry, token)?;
            }
            entry.insert(Socket { listener, id, terms, ready: false, has_accepted: false });
        }
        Ok(())
    }

    /// Accepts nothing for now, and leaves what comes to the program that has the same sockets.
    pub(super) fn suspend(&mut self, registry: &Registry) {
        for (_, socket) in &mut self.sockets {
            // It stays out of the way even if the kernel goes on reporting it.
            let _ = socket.listener.unwatch(registry);
            socket.ready = false;
        }
        self.ready.clear();
        self.suspended = true;
    }

    /// Accepts again, if it has been suspended.
    ///
    /// # Errors
    /// When the kernel cannot watch a socket.
    pub(super) fn resume_suspended(&mut self, registry: &Registry) -> io::Result<()> {
        if !std::mem::replace(&mut self.suspended, false) {
            return Ok(());
        }
        for (key, socket) in &mut self.sockets {
            let token = Token::listener(key).into();
            socket.listener.watch(registry, token)?;
        }
        // Connections may have come meanwhile.
        self.keys().into_iter().for_each(|key| self.mark_ready(key));
        Ok(())
    }

    /// Changes the sockets' options; connections accepted from now on inherit them.
    pub(super) fn set_options(&self, options: &SocketOptions) {
        for (_, socket) in &self.sockets {
            if let Err(error) = socket.listener.set_options(options) {
                log::warn!("{}: {error}", socket.listener);
            }
        }
    }

    /// Updates what each socket accepts. Returns the sockets to close.
    pub(super) fn update(&mut self, open: &OpenListeners) -> Vec<usize> {
        let mut gone = Vec::new();
        for (key, socket) in &mut self.sockets {
            match terms_of(open, socket.id) {
                Some(terms) => socket.terms = terms,
                None => gone.push(key),
            }
        }
        gone
    }

    pub(super) fn keys(&self) -> Vec<usize> {
        self.sockets.iter().map(|(key, _)| key).collect()
    }

    /// Closes a socket.
    pub(super) fn close(&mut self, key: usize, registry: &Registry) {
        if let Some(mut socket) = self.sockets.try_remove(key) {
            // One that others have would stay in the poll.
            let _ = socket.listener.unwatch(registry);
        }
    }

    /// Closes all sockets, and never accepts again.
    pub(super) fn close_all(&mut self, registry: &Registry) {
        self.keys().into_iter().for_each(|key| self.close(key, registry));
        *self = Acceptor::default();
    }

    /// Notes that a socket may have connections waiting.
    pub(super) fn mark_ready(&mut self, key: usize) {
        if let Some(socket) = self.sockets.get_mut(key)
            && !std::mem::replace(&mut socket.ready, true)
        {
            self.ready.push_back(key);
        }
    }

    /// Whether there is something to accept right now.
    pub(super) fn has_ready(&self) -> bool {
        self.ready.iter().any(|key| self.may_accept(*key))
    }

    /// Whether no pause concerns this socket.
    fn may_accept(&self, key: usize) -> bool {
        match self.paused {
            _ if self.suspended => false,
            None => true,
            Some((Pause::Clients, _)) => !self.is_for_clients(key),
            Some((Pause::All, _)) => false,
        }
    }

    /// Whether only clients come to this socket.
    pub(super) fn is_for_clients(&self, key: usize) -> bool {
        let accepts = self.sockets.get(key).map(|socket| &socket.terms.accepts);
        matches!(accepts, Some(Accepts::Http(Serves::Clients)))
    }

    /// How many sockets have something to accept right now.
    pub(super) fn ready_count(&self) -> usize {
        self.ready.iter().filter(|key| self.may_accept(**key)).count()
    }

    /// The next socket that has something to accept.
    pub(super) fn next_ready(&mut self) -> Option<usize> {
        self.ready.retain(|key| self.sockets.contains(*key));
        let at = self.ready.iter().position(|key| self.may_accept(*key))?;
        self.ready.remove(at)
    }

    /// Puts a socket back into the queue unless it has been emptied. After an accept it is another
    /// thread's turn, where several share the socket.
    pub(super) fn requeue(&mut self, key: usize, registry: &Registry) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if !socket.ready && std::mem::take(&mut socket.has_accepted) {
            let stood_back = socket.listener.stand_back(registry, Token::listener(key).into());
            if let Err(error) = stood_back {
                log::error!("{}: {error}: trying again", socket.listener);
                // The next turn accepts, and then tries it.
                (socket.ready, socket.has_accepted) = (true, true);
            }
        }
        if socket.ready {
            self.ready.push_back(key);
        }
    }

    pub(super) fn accept(&mut self, key: usize) -> Accepted {
        let socket = &mut self.sockets[key];
        loop {
            match socket.listener.accept() {
                Ok((stream, address)) => {
                    let Terms { accepts, accept_proxy, encryption } = &socket.terms;
                    socket.has_accepted = true;
                    let peers = accept_proxy.as_ref();
                    return Accepted::Peer(NewPeer {
                        stream,
                        address,
                        accepts: accepts.clone(),
                        announces: peers.is_some_and(|peers| peers.has(address.ip())),
                        encryption: encryption.clone(),
                        newcomer: None,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    socket.ready = false;
                    return Accepted::Nothing;
                }
                // It does not listen (accept(2)).
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    return Accepted::Ended;
                }
                // The connection was gone before we took it (accept(2), "Error handling").
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Accepted::Shortage(error),
            }
        }
    }

    /// Pauses accepting. True if that should be logged.
    pub(super) fn pause(&mut self, what: Pause, now: Millis) -> bool {
        self.paused = Some((what, now + ACCEPT_PAUSE));
        self.shortage[what as usize].allow(now).is_some()
    }

    /// Whether nothing is accepted anywhere.
    pub(super) fn is_paused(&self) -> bool {
        matches!(self.paused, Some((Pause::All, _)))
    }

    pub(super) fn paused_until(&self) -> Option<Millis> {
        self.paused.map(|(_, until)| until)
    }

    pub(super) fn resume(&mut self) {
        self.paused = None;
    }

    /// Most accepts of one socket per turn.
    pub(super) const fn budget() -> usize {
        ACCEPT_BUDGET
    }

    /// Most rounds of accepts to empty a backlog.
    pub(super) const fn backlog_rounds() -> usize {
        BACKLOG_ROUNDS
    }
}

fn terms_of(open: &OpenListeners, id: u64) -> Option<Terms> {
    open.iter().find(|(known, _)| *known == id).map(|(_, terms)| terms.clone())
}
