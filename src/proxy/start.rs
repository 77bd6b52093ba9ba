//! Starts workers from settings, and controls them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::{Poll, Registry, Waker};
use serde_json::json;

use crate::bridge::hostkey::Showing;
use crate::config::{self, Settings, Site, Source, Sticky};
use crate::files::Root;
use crate::net::mailbox::Mailbox;
use crate::net::sys::{self, Stream};
use crate::net::token;
use crate::process::activation::Passed;
use crate::process::channel::Channel;
use crate::process::identity::Identity;
use crate::process::upgrade::{Offer, Predecessor};
use crate::process::{journal, logfile};
use crate::routing::Directory;

use super::access_log::AccessLog;
use super::admin::{Admin, Control};
use super::arrivals::{self, Arrivals};
use super::authoriser::Authoriser;
use super::backends::Backends;
use super::bridge_store::{BridgeStore, Left};
use super::careless::CarelessRoutes;
use super::certificates::Certificates;
use super::error_pages::ErrorPages;
use super::file_roots::FileRoots;
use super::kept_bridges;
use super::leases::{Keys, SwiftclientBackends};
use super::listeners::{Bound, ListenerChange, ListenerSet, Opened};
use super::losses::Dismissed;
use super::managers::{self, Managers};
use super::operator::Drained;
use super::problems::or_note;
use super::proofs::Proofs;
use super::redis::Watch;
use super::role::Pools;
use super::secret_files::SecretFiles;
use super::shares::{AddressCount, Count};
use super::site_change::Tags;
use super::state::{AdminMail, Config, Mail, Reload, Shared};
use super::stats::Stats;
use super::sticky_keys::StickyKeys;
use super::store::{self, Store};
use super::tenant::guard::Guard;
use super::tls_files::TlsFiles;
use super::updates_file;
use super::upgrade::notes::Arrival;
use super::upgrade::old_programs::OldPrograms;
use super::upgrade::progress::Replacement;
use super::upgrade::root_files::{self, RootFiles};
use super::upgrade::{Inheritance, notes};
use super::waiting_names::SaidNames;
use super::worker::Worker;

/// How long a reload waits for the workers to put it in force. A turn takes milliseconds; this is
/// for a machine too busy to run them.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the last lines of the access log may take to be written at the end.
const LAST_LINES: Duration = Duration::from_secs(1);

/// How long systemd may take to hear of the last bridges at the end.
const LAST_ORDERS: Duration = Duration::from_secs(2);

/// A running proxy.
pub struct Proxy {
    /// The workers' threads.
    pub workers: Vec<JoinHandle<()>>,
    /// Controls them.
    pub handle: Handle,
}

/// Controls the workers.
pub struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) in_force: Mutex<InForce>,
    /// The user that the process runs as, if it has changed.
    identity: Option<Identity>,
    /// What that user may not read.
    root_files: RootFiles,
    /// The one that replaces this one.
    replacement: Mutex<Option<Arc<Replacement>>>,
    /// The program that this one has replaced.
    predecessor: Mutex<Option<Arc<Predecessor>>>,
    /// Asks Redis for servers.
    redis: Mutex<Watch>,
}

/// A change that nothing keeps from being put in force.
pub(super) struct Prepared(ListenerChange);

pub(super) struct InForce {
    pub(super) config: Arc<Config>,
    listeners: ListenerSet,
    /// What systemd keeps of them.
    store: Store,
}

/// Reads everything that is read from files.
///
/// # Errors
/// Everything that is wrong, one sentence each.
pub fn load(source: &Source) -> Result<Config, Vec<String>> {
    let (mut settings, problems) = config::load_all(source);
    let mut problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let updates = match problems.is_empty() {
        true => or_note(&mut problems, config::add_updates(&mut settings, source)),
        // They would have much in common with what is wrong.
        false => None,
    };
    let identity = Identity::find(settings.user.as_deref(), settings.group.as_deref());
    let identity = or_note(&mut problems, identity.map_err(|problem| vec![problem]));
    let secret_files = or_note(&mut problems, SecretFiles::read(&settings, source));
    let error_pages = or_note(&mut problems, ErrorPages::read(&settings, source));
    let tls = or_note(&mut problems, TlsFiles::read(&settings, source));
    let files = or_note(&mut problems, FileRoots::open(&settings));
    problems.extend(managers::missing_programs(&settings));
    let (Some(identity), Some(secret_files), Some(error_pages), Some(tls), Some(files), true) =
        (identity, secret_files, error_pages, tls, files, problems.is_empty())
    else {
        // Logs are not opened: they would be made as the wrong user.
        problems.extend(logs_without_folder(&settings));
        return Err(problems);
    };
    let SecretFiles { keyring, admin_token, redis_password, sticky_keys } = secret_files;
    let error_pages = Arc::new(error_pages);
    let updates = updates.unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    if keyring.as_ref().is_some_and(|keyring| keyring.secrets().newest(now).is_none()) {
        log::warn!("no secret is in force yet: every bridge will be refused until one is");
    }
    let cannot_write = |path: &Path, error| vec![cannot_write(path, &error)];
    let owner = identity.as_ref();
    let access_log = settings.access_log.as_ref().map(|log| {
        let path = log.file().unwrap_or(Path::new("a datagram socket"));
        AccessLog::open(log, owner).map_err(|error| cannot_write(path, error))
    });
    let log_file = settings
        .log_file
        .as_deref()
        .filter(|path| !is_standard(path))
        .map(|path| logfile::open(path, owner).map_err(|error| cannot_write(path, error)));
    let access_log = or_note(&mut problems, access_log.transpose());
    let log_file = or_note(&mut problems, log_file.transpose());
    let (Some(access_log), Some(log_file)) = (access_log, log_file) else { return Err(problems) };
    let config = Config::without_files(settings);
    let config = Config { updates, redis_password, ..config };
    Ok(Config {
        keyring,
        sticky_keys,
        access_log,
        admin_token,
        log_file,
        identity,
        error_pages,
        files,
        tls,
        ..config
    })
}

fn cannot_write(path: &Path, error: &io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}

/// The logs whose folder does not exist, one sentence each.
fn logs_without_folder(settings: &Settings) -> Vec<String> {
    let access_log = settings.access_log.as_ref().and_then(config::AccessLog::file);
    let logs = [access_log, settings.log_file.as_deref()].into_iter().flatten();
    let folderless = logs.filter(|path| !is_standard(path)).filter_map(|path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty())?;
        folder.metadata().err().map(|error| cannot_write(path, &error))
    });
    folderless.collect()
}

impl Proxy {
    /// Opens the listeners, becomes the user named in the settings, and starts the workers. The
    /// next reload reads `source`. `passed` is what systemd has opened for the process.
    ///
    /// # Errors
    /// What failed, in one sentence.
    pub fn start(
        mut config: Config,
        source: &Source,
        control: impl Fn(Control) + Send + Sync + 'static,
        inheritance: Option<Inheritance>,
        mut passed: Vec<Passed>,
    ) -> Result<Proxy, String> {
        let count = config.settings.worker_count();
        let replaces = inheritance.is_some();
        let inheritance = inheritance.unwrap_or_default();
        passed.extend(inheritance.passed);
        let (started, mut root_files) = (inheritance.started, inheritance.root_files);
        let left = Left::take(&mut passed);
        let (passed, kept) = store::sort(passed);
        let mut store = Store::new(&kept, &inheritance.listeners);
        let inherited = inheritance.listeners.into_iter().chain(kept).collect();
        let mut listeners = ListenerSet::inheriting(inherited, passed);
        if !replaces {
            listeners.end_unwanted(&config.settings, &config.tls, config.sites.site_listeners());
        }
        let site_listeners = config.sites.site_listeners();
        let change = listeners.prepare(&config.settings, &config.tls, site_listeners, count)?;
        let mut opened = listeners.commit(change);
        listeners.warn_of_idle();
        let places = store.leave_places(&listeners);
        let descriptors = limit_descriptors(&config.settings)?;
        // Low ports are bound and the limit is raised: the rest needs no root.
        if let Some(identity) = &config.identity {
            let opened = root_files::Opened::all(&config.settings, source);
            identity.assume()?;
            opened.keep(&mut root_files)?;
            log::info!("running as {identity}");
            warn_of_reload(&config.settings, source, identity);
            warn_of_folders(&config.files, identity);
        }
        root_files.protect();
        updates_file::write_first(&config.settings, &config.updates)?;
        let Polls { polls, registries, mailboxes } =
            open_polls(count).map_err(|error| format!("cannot start {count} workers: {error}"))?;
        let (admin_poll, admin) =
            open_poll().map_err(|error| format!("cannot start the admin thread: {error}"))?;
        let started = started.or_else(|| instant_of(left.zero(notes::FORMAT)?));
        let started = started.unwrap_or_else(Instant::now);
        let clock = (notes::FORMAT, sys::monotonic().saturating_sub(started.elapsed()));
        let tables = (inheritance.bridge_table, left);
        let (bridge_store, bridges) = BridgeStore::start(places, tables, clock, kept_bridges::read);
        let arrivals =
            bridges.into_iter().map(|(socket, (moved, bytes))| Arrival { socket, moved, bytes });
        let arrivals: Vec<_> = arrivals.collect();
        let directory = Arc::new(Directory::new(count));
        let routes = Arc::clone(&directory);
        let shared = Arc::new(Shared {
            managers: Arc::new(Managers::new(move |query| routes.members_for(query))),
            directory,
            admin,
            drained: Drained::default(),
            tags: Tags::default(),
            mailboxes,
            registries,
            stats: (0..count).map(|_| Stats::default()).collect(),
            keys: Keys::default(),
            key_limits: Arc::default(),
            authoriser: Arc::new(Authoriser::new(started)),
            proofs: Proofs::default(),
            certificates: Certificates::default(),
            through_old: AtomicUsize::new(0),
            has_groups: AtomicBool::new(false),
            close_through_old_until: AtomicU64::new(0),
            swiftclient_backends: SwiftclientBackends::default(),
            backends: Backends::default(),
            careless: CarelessRoutes::default(),
            connections: AtomicUsize::new(0),
            bridges: Count::default(),
            newcomers: Count::default(),
            addresses: AddressCount::default(),
            tenant_guard: Guard::default(),
            stopping: AtomicBool::new(false),
            draining: AtomicUsize::new(0),
            has_predecessor: AtomicBool::new(replaces),
            old_programs: OldPrograms::default(),
            bridge_store,
            said_names: SaidNames::default(),
            descriptors: usize::try_from(descriptors).unwrap_or(usize::MAX),
            started,
            began: SystemTime::now(),
            zero: sys::monotonic().saturating_sub(started.elapsed()),
        });
        shared.proofs.put_in_force(
            config.keyring.clone(),
            config.settings.expired_keys,
            shared.moment(),
        );
        shared.limit_keys(&config.settings);
        if let Some(tickets) = config.tls.tickets() {
            tickets.inherit(&inheritance.ticket_keys);
        }
        if config.sticky_keys.is_own() && !inheritance.sticky_keys.is_empty() {
            config.sticky_keys = Arc::new(StickyKeys::inherited(inheritance.sticky_keys));
        }
        shared.certificates.put_in_force(
            config.tls.verifiers(),
            config.settings.expired_keys,
            shared.moment(),
        );
        let start = shared.now();
        shared.directory.pin(&config.sites.specs(), start);
        config.named = inheritance.named;
        config.named.keep(&config.settings);
        let (settings, named) = (&config.settings, &config.named);
        config.pools = Pools::new(settings, named, &shared.directory, &Pools::default(), start);
        config.pools.encrypt(|site| config.tls.of_site(site));
        let (identity, config) = (config.identity.clone(), Arc::new(config));
        let mut workers = Vec::new();
        for (index, poll) in polls.into_iter().enumerate() {
            let opened = std::mem::take(&mut opened[index]);
            let (shared, config) = (Arc::clone(&shared), Arc::clone(&config));
            let mut worker = Worker::new(index, shared, config, poll);
            worker
                .acceptor
                .add(opened, &listeners.open_listeners(), worker.conns.registry())
                .map_err(|error| format!("cannot start worker {index}: {error}"))?;
            if replaces || !arrivals.is_empty() {
                worker.await_arrivals();
            }
            workers.push(spawn(index, worker)?);
        }
        if !arrivals.is_empty() {
            arrivals::take_up(&shared, arrivals);
        }
        let opened = opened.pop().unwrap_or_default();
        let control = Arc::new(control);
        let found = Arc::clone(&control);
        let mut redis = Watch::new(move |servers| found(Control::Servers(servers)));
        redis.begin(&config);
        let control = move |asked| control(asked);
        start_admin(admin_poll, &shared, &config, control, (opened, &listeners))?;
        log::info!("cloudbridge {} with {count} workers", env!("CARGO_PKG_VERSION"));
        let in_force = Mutex::new(InForce { config, listeners, store });
        let handle = Handle {
            shared,
            in_force,
            identity,
            root_files,
            replacement: Mutex::default(),
            predecessor: Mutex::default(),
            redis: Mutex::new(redis),
        };
        Ok(Proxy { workers, handle })
    }
}

/// The moment at which the machine had run for so long.
fn instant_of(since_boot: Duration) -> Option<Instant> {
    Instant::now().checked_sub(sys::monotonic().saturating_sub(since_boot))
}

/// Sets the limit of open descriptors, and returns the one in force.
fn limit_descriptors(settings: &Settings) -> Result<u64, String> {
    match settings.descriptors {
        0 => sys::limit_descriptors(None)
            .map_err(|error| format!("cannot read the limit of open descriptors: {error}")),
        wanted => sys::limit_descriptors(Some(wanted as u64))
            .map_err(|error| format!("cannot set the descriptor limit to {wanted}: {error}")),
    }
}

/// Warns of files that would make a reload fail: root could open them, this user cannot.
fn warn_of_reload(settings: &Settings, source: &Source, identity: &Identity) {
    let access_log = settings.access_log.as_ref().and_then(config::AccessLog::file);
    let read = root_files::files_read(settings, source).map(|path| (Some(path), "read"));
    let written = [access_log, settings.log_file.as_deref()].map(|path| (path, "write"));
    for (path, what) in read.chain(written) {
        let Some(path) = path.filter(|path| !is_standard(path)) else { continue };
        let opened = File::options().read(what == "read").append(what == "write").open(path);
        if let Err(error) = opened {
            let shown = path.display();
            log::warn!("a reload will fail: {identity} cannot {what} {shown}: {error}");
        }
    }
}

/// Warns of folders whose files this user cannot get at.
fn warn_of_folders(files: &FileRoots, identity: &Identity) {
    for root in files.all() {
        if let Err(error) = Root::open(&root.path, root.follows()) {
            let shown = root.path.display();
            log::warn!("a reload will fail: {identity} cannot open {shown}: {error}");
        }
    }
}

/// Whether this is the name of a standard stream, which is not opened by it.
fn is_standard(path: &Path) -> bool {
    matches!(path.to_str(), Some("-" | "/dev/stdout" | "/dev/stderr"))
}

/// Redirects standard error, which the log is written to, to the log file of the settings.
///
/// # Errors
/// One sentence.
pub fn redirect_log(config: &mut Config) -> Result<(), String> {
    let Some(file) = config.log_file.take() else { return Ok(()) };
    let replaced = sys::replace_stream(Stream::Error, &file);
    journal::look();
    replaced.map_err(|error| format!("cannot log: {error}"))
}

/// Starts the admin thread. It ends with the process.
fn start_admin(
    poll: Poll,
    shared: &Arc<Shared>,
    config: &Arc<Config>,
    control: impl Fn(Control) + Send + 'static,
    (opened, listeners): (Opened, &ListenerSet),
) -> Result<(), String> {
    let failed = |error| format!("cannot start the admin thread: {error}");
    let (shared, config) = (Arc::clone(shared), Arc::clone(config));
    let mut admin = Admin::new(poll, shared, config, Box::new(control));
    admin.listen(opened, &listeners.open_listeners()).map_err(failed)?;
    let run = move || {
        if let Err(error) = admin.run() {
            log::error!("the admin thread failed: {error}");
        }
    };
    thread::Builder::new().name("admin".to_owned()).spawn(run).map(drop).map_err(failed)
}

fn spawn(index: usize, worker: Worker) -> Result<JoinHandle<()>, String> {
    thread::Builder::new()
        .name(format!("worker {index}"))
        .spawn(move || {
            if let Err(error) = worker.run() {
                log::error!("worker {index} failed: {error}");
            }
        })
        .map_err(|error| format!("cannot start worker {index}: {error}"))
}

struct Polls {
    polls: Vec<Poll>,
    registries: Vec<Registry>,
    mailboxes: Vec<Mailbox<Mail>>,
}

fn open_polls(count: usize) -> io::Result<Polls> {
    let mut open = Polls { polls: Vec::new(), registries: Vec::new(), mailboxes: Vec::new() };
    for _ in 0..count {
        let (poll, mailbox) = open_poll()?;
        open.registries.push(poll.registry().try_clone()?);
        open.mailboxes.push(mailbox);
        open.polls.push(poll);
    }
    Ok(open)
}

fn open_poll<T>() -> io::Result<(Poll, Mailbox<T>)> {
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), token::WAKER.into())?;
    Ok((poll, Mailbox::new(waker)))
}

impl Handle {
    /// Reads settings and secrets again. If anything is wrong it is logged, and nothing changes.
    ///
    /// # Errors
    /// What is wrong, one sentence each.
    pub fn reload(&self, source: &Source) -> Result<Vec<String>, Vec<String>> {
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let source = Source { updates: in_force.config.updates.clone(), ..source.clone() };
        let mut config = match load(&source) {
            Ok(config) => config,
            Err(problems) => return Err(self.report_failure(problems)),
        };
        // Until Redis has been asked again.
        config.named = in_force.config.named.clone();
        config.named.keep(&config.settings);
        config.tls.take_over(&in_force.config.tls);
        if config.sticky_keys.is_own() && in_force.config.sticky_keys.is_own() {
            config.sticky_keys = Arc::clone(&in_force.config.sticky_keys);
        }
        config.files.take_over(&in_force.config.files);
        let prepared = self.prepare(&in_force, &mut config);
        let written = || updates_file::write_first(&config.settings, &config.updates);
        let prepared = match prepared.and_then(|prepared| written().map(|()| prepared)) {
            Ok(prepared) => prepared,
            Err(problem) => return Err(self.report_failure(vec![problem])),
        };
        if let Err(problem) = redirect_log(&mut config) {
            log::error!("{problem}; the log stays where it is");
        }
        log::set_max_level(config.settings.log_level);
        config.access_log =
            config.access_log.map(|new| new.after(in_force.config.access_log.as_ref()));
        let lost = self.shared.proofs.put_in_force(
            config.keyring.clone(),
            config.settings.expired_keys,
            self.shared.moment(),
        );
        let shown = self.shared.certificates.put_in_force(
            config.tls.verifiers(),
            config.settings.expired_keys,
            self.shared.moment(),
        );
        let (old, dismissed) = self.put(&mut in_force, config, prepared);
        let new = &in_force.config;
        self.redis.lock().unwrap_or_else(PoisonError::into_inner).begin(new);
        // The workers have submitted their last lines for it.
        if let Some(log) = old.access_log.as_ref().filter(|log| !log.is_standard()) {
            log.flush(LAST_LINES);
        }
        let mut lines = report_changes(&old, new);
        if old.keyring != new.keyring || !lost.names.is_empty() || !shown.names.is_empty() {
            let demands = |config: &Config| {
                let keyring = config.keyring.as_ref();
                keyring.is_some_and(|keyring| keyring.showing() == Showing::Proven)
            };
            let refused = demands(new) && !demands(&old);
            let line = lost.report(refused, &shown, &dismissed, new.settings.revoke_grace);
            log::info!("{line}");
            lines.push(line);
        }
        Ok(lines)
    }

    /// Opens what `config` listens on and does not yet. Nothing has changed, whatever comes of it.
    ///
    /// # Errors
    /// One sentence about an address that cannot be listened on.
    pub(super) fn prepare(
        &self,
        in_force: &InForce,
        config: &mut Config,
    ) -> Result<Prepared, String> {
        config.sites.take_over(&in_force.config.sites);
        let (workers, sites) = (self.shared.mailboxes.len(), config.sites.site_listeners());
        let change = in_force.listeners.prepare(&config.settings, &config.tls, sites, workers);
        change.map(Prepared)
    }

    /// Puts `config` in force on all workers. Returns what was in force, and what each worker has
    /// dismissed.
    pub(super) fn put(
        &self,
        in_force: &mut InForce,
        mut config: Config,
        prepared: Prepared,
    ) -> (Arc<Config>, Vec<Dismissed>) {
        let opened = in_force.listeners.commit(prepared.0);
        self.keep_listeners(in_force);
        config.sites.close_others(&in_force.config.sites);
        let (directory, now) = (&self.shared.directory, self.shared.now());
        directory.pin(&config.sites.specs(), now);
        let old_pools = &in_force.config.pools;
        config.pools = Pools::new(&config.settings, &config.named, directory, old_pools, now);
        config.pools.encrypt(|site| config.tls.of_site(site));
        self.shared.managers.put_in_force(&config.sites, &config.settings);
        self.shared.limit_keys(&config.settings);
        let old = std::mem::replace(&mut in_force.config, Arc::new(config));
        let receiver = self.put_in_force(in_force, opened);
        // What the log says next must be true on every worker.
        let until = Instant::now() + RELOAD_TIMEOUT;
        let left = || until.saturating_duration_since(Instant::now());
        let dismissed = std::iter::from_fn(|| receiver.recv_timeout(left()).ok()).collect();
        in_force.listeners.end_removed();
        (old, dismissed)
    }

    /// Tells all threads what is in force now, with the new sockets of each. Returns what the workers
    /// answer.
    fn put_in_force(&self, in_force: &InForce, mut opened: Vec<Opened>) -> Receiver<Dismissed> {
        let listeners = in_force.listeners.open_listeners();
        let (sender, receiver) = mpsc::channel();
        let (config, admins) = (Arc::clone(&in_force.config), Arc::clone(&listeners));
        let for_admin = opened.pop().unwrap_or_default();
        self.shared.admin.send(AdminMail::Reload { config, opened: for_admin, listeners: admins });
        for (mailbox, opened) in self.shared.mailboxes.iter().zip(opened) {
            let (config, listeners) = (Arc::clone(&in_force.config), Arc::clone(&listeners));
            let done = sender.clone();
            mailbox.send(Mail::Reload(Box::new(Reload { config, opened, listeners, done })));
        }
        receiver
    }

    /// Opens the access log and the log file again, as after a rotation. One that cannot be opened
    /// stays where it is.
    pub fn reopen_logs(&self) {
        let in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let (config, owner) = (&in_force.config, self.identity.as_ref());
        let mut failed = false;
        let mut note = |path: &Path, result: io::Result<()>| {
            if let Err(error) = result {
                failed = true;
                log::error!("USR1: cannot write {}: {error}; it stays as it is", path.display());
            }
        };
        if let (Some(set), Some(log)) = (&config.settings.access_log, &config.access_log) {
            note(set.file().unwrap_or(Path::new("a datagram socket")), log.reopen(owner));
        }
        if let Some(path) = config.settings.log_file.as_deref().filter(|path| !is_standard(path)) {
            let opened = logfile::open(path, owner);
            note(path, opened.and_then(|file| sys::replace_stream(Stream::Error, &file)));
        }
        if !failed {
            log::info!("USR1: the log files have been opened again");
        }
    }

    /// Waits until the access log has all lines, or some time has passed in which it took none.
    pub fn flush_access_log(&self) {
        let in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = &in_force.config.access_log {
            log.flush(LAST_LINES);
        }
    }

    /// Answers the operator who asked with this number.
    pub fn answer(&self, key: u64, answer: Result<Vec<String>, Vec<String>>) {
        self.shared.admin.send(AdminMail::Controlled { key, answer });
    }

    /// Has systemd keep the listening sockets for the next process. A program that replaces another
    /// waits for that one's end: if it dies before, the other goes on with what systemd has by then.
    pub fn store_listeners(&self) {
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        self.keep_listeners(&mut in_force);
    }

    fn keep_listeners(&self, in_force: &mut InForce) {
        // A program that has been replaced itself leaves it to the other.
        let replacement = self.replacement.lock().unwrap_or_else(PoisonError::into_inner);
        if replacement.is_none() && !self.shared.has_predecessor.load(Ordering::SeqCst) {
            in_force.store.update(&in_force.listeners);
        }
    }

    /// The workers have ended: waits until systemd knows which bridges it need not keep any more, or
    /// some time has passed.
    pub fn finish_store(&self) {
        let replacement = self.replacement.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = &self.shared.bridge_store {
            store.finish(LAST_ORDERS, replacement.is_none());
        }
    }

    /// The workers have ended: waits until the admin thread has sent what it was given to answer, or some
    /// time has passed.
    pub fn finish_answers(&self) {
        let (reached, end) = mpsc::sync_channel(1);
        self.shared.admin.send(AdminMail::End(reached));
        let _ = end.recv_timeout(LAST_ORDERS);
    }

    /// Whether sites that are made at run time are kept in a file.
    pub fn keeps_updates(&self) -> bool {
        let in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        in_force.config.settings.updates_file.is_some()
    }

    /// The workers have ended: ends calls of managers, or waits for them if a new program serves.
    pub fn finish_managers(&self) {
        let replacement = self.replacement.lock().unwrap_or_else(PoisonError::into_inner);
        let is_replaced = replacement.is_some();
        drop(replacement);
        self.shared.managers.finish(is_replaced);
    }

    /// How long [`Handle::drain`] may take.
    pub fn longest_drain(&self) -> Duration {
        let in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let settings = &in_force.config.settings;
        settings.drain_delay + settings.drain_timeout
    }

    fn report_failure(&self, problems: Vec<String>) -> Vec<String> {
        problems.iter().for_each(|problem| log::error!("{problem}"));
        let now = match &self.identity {
            Some(identity) => format!(" (files are opened as {identity} now)"),
            None => String::new(),
        };
        log::error!("nothing has changed: the old settings stay in force{now}");
        problems
    }

    /// What a new program is given that is to replace this one.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn offer(&self) -> io::Result<Offer> {
        let in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let mut offer = Offer::new(json!({
            "kind": "hello",
            "format": notes::FORMAT,
            "version": env!("CARGO_PKG_VERSION"),
            "now": self.shared.now().0,
            "monotonic": micros(sys::monotonic()),
        }));
        for (path, file) in self.root_files.iter() {
            let line = json!({ "kind": "file", "path": path });
            offer.add(line, vec![file.try_clone()?.into()]);
        }
        for (address, what, bound) in in_force.listeners.all() {
            for (at, Bound { shown, sockets }) in bound.iter().enumerate() {
                for (part, sockets) in sockets.chunks(sys::MOST_FILES).enumerate() {
                    let sockets =
                        sockets.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
                    let line = json!({
                        "kind": "listener",
                        "address": address.to_string(),
                        "what": what,
                        "shown": shown,
                        "more": at > 0 || part > 0,
                    });
                    offer.add(line, sockets);
                }
            }
        }
        let updates = &in_force.config.updates;
        if !updates.is_empty() {
            let name = c"cloudbridge: sites that were made at run time";
            let file = sys::sealed_file(name, updates.to_text().as_bytes())?;
            offer.add(json!({ "kind": "sites" }), vec![file.into()]);
        }
        if let Some(named) = in_force.config.named.note() {
            let name = c"cloudbridge: servers that Redis has named";
            let file = sys::sealed_file(name, named.to_string().as_bytes())?;
            offer.add(json!({ "kind": "named" }), vec![file.into()]);
        }
        if let Some(store) = &self.shared.bridge_store {
            let table = store.table().as_fd().try_clone_to_owned()?;
            offer.add(json!({ "kind": "bridges" }), vec![table]);
        }
        if let Some(line) =
            in_force.config.tls.tickets().and_then(|tickets| notes::tickets(tickets))
        {
            offer.add(line, Vec::new());
        }
        // A program that does not know them could not go on with such sites anyway.
        let has_cookie = |site: &Arc<Site>| matches!(site.sticky, Some(Sticky::Cookie(_)));
        if in_force.config.settings.site.iter().any(has_cookie)
            && let Some(line) = notes::sticky_keys(&in_force.config.sticky_keys)
        {
            offer.add(line, Vec::new());
        }
        for Passed { name, file } in in_force.listeners.passed().all() {
            offer.add(json!({ "kind": "passed", "name": name }), vec![file.try_clone()?]);
        }
        Ok(offer)
    }

    /// A new program serves: leaves everything to it that has nothing in progress. Calls `overtaken`
    /// when that one has been replaced itself.
    pub fn be_replaced(&self, channel: Channel, overtaken: impl Fn(bool) + Send + 'static) {
        let in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        in_force.listeners.give_files_away(true);
        self.redis.lock().unwrap_or_else(PoisonError::into_inner).end();
        self.shared.admin.send(AdminMail::Replaced(true));
        // Now, because operators may have changed it while the new program started.
        let drained = self.shared.drained.all();
        let drained = drained.iter().map(|drain| notes::selector(&drain.selector));
        let line = json!({ "kind": "drained", "drained": drained.collect::<Vec<_>>() });
        if let Err(error) = channel.send(&line.to_string(), b"", &[]) {
            log::error!("upgrade: the new program does not know what is drained: {error}");
        }
        if let Some(store) = &self.shared.bridge_store {
            store.is_replaced();
        }
        let replacement = Arc::new(Replacement::new(channel, self.shared.mailboxes.len()));
        let kept = Some(Arc::clone(&replacement));
        *self.replacement.lock().unwrap_or_else(PoisonError::into_inner) = kept;
        let listening = Arc::clone(&replacement);
        let listen = move || listening.listen(overtaken);
        if let Err(error) = thread::Builder::new().name("upgrade".to_owned()).spawn(listen) {
            log::error!("upgrade: cannot hear the new program: {error}");
        }
        let predecessor = self.predecessor.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(predecessor) = &*predecessor {
            predecessor.set_replaced(true);
        }
        for mailbox in &self.shared.mailboxes {
            mailbox.send(Mail::Replace(Arc::clone(&replacement)));
        }
    }

    /// The new program has ended: goes on as before.
    ///
    /// False if everything has gone to it, so that nothing is left to go on with.
    #[must_use]
    pub fn go_on(&self) -> bool {
        let replacement = self.replacement.lock().unwrap_or_else(PoisonError::into_inner).take();
        if replacement.is_some_and(|replacement| !replacement.go_on()) {
            return false;
        }
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        in_force.listeners.give_files_away(false);
        self.keep_listeners(&mut in_force);
        self.redis.lock().unwrap_or_else(PoisonError::into_inner).begin(&in_force.config);
        self.shared.admin.send(AdminMail::Replaced(false));
        let predecessor = self.predecessor.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(predecessor) = &*predecessor {
            predecessor.set_replaced(false);
        }
        self.shared.mailboxes.iter().for_each(|mailbox| mailbox.send(Mail::GoOn));
        if !in_force.listeners.forget_ended() {
            return true;
        }
        // Its settings had no such listeners; those of this program have.
        let InForce { config, listeners, .. } = &mut *in_force;
        let workers = self.shared.mailboxes.len();
        let site_listeners = config.sites.site_listeners();
        match listeners.prepare(&config.settings, &config.tls, site_listeners, workers) {
            Ok(change) => {
                let opened = listeners.commit(change);
                self.put_in_force(&in_force, opened);
            }
            Err(problem) => log::error!("{problem}; it stays closed until a reload opens it"),
        }
        true
    }

    /// The workers have ended, and everything has gone to the new program: it waits for the end of the
    /// channel.
    pub fn end_channel(&self) {
        let replacement = self.replacement.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(replacement) = &*replacement {
            replacement.channel.end();
        }
    }

    /// Takes what the old program passes on, in a thread of its own. `ended` is called when that has
    /// ended.
    pub fn succeed(&self, old: Predecessor, ended: impl FnOnce() + Send + 'static) {
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        in_force.listeners.end_unused();
        drop(in_force);
        let (old, shared) = (Arc::new(old), Arc::clone(&self.shared));
        let predecessor = Some(Arc::clone(&old));
        *self.predecessor.lock().unwrap_or_else(PoisonError::into_inner) = predecessor;
        let receive = move || {
            Arrivals::new(&old, &shared).receive();
            ended();
        };
        let spawned = thread::Builder::new().name("upgrade".to_owned()).spawn(receive);
        if let Err(error) = spawned {
            log::error!("the old program's connections are lost: {error}");
            self.shared.has_predecessor.store(false, Ordering::SeqCst);
            arrivals::begin_accepting(&self.shared);
        }
    }

    /// Makes every worker finish its exchanges and stop, after `drain-delay`. Checks are told that
    /// the proxy drains at once.
    pub fn drain(&self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        in_force.listeners.close_copies();
        let delay = in_force.config.settings.drain_delay;
        let shared = Arc::clone(&self.shared);
        let drain = move || {
            thread::sleep(delay);
            shared.mailboxes.iter().for_each(|mailbox| mailbox.send(Mail::Drain));
        };
        if delay.is_zero() {
            return drain();
        }
        let spawned = thread::Builder::new().name("drain".to_owned()).spawn(drain);
        if let Err(error) = spawned {
            log::warn!("drain-delay: cannot wait for it: {error}");
            self.shared.mailboxes.iter().for_each(|mailbox| mailbox.send(Mail::Drain));
        }
    }
}

/// Logs what has changed, and returns it in sentences.
fn report_changes(old: &Config, new: &Config) -> Vec<String> {
    let mut changed = config::changed(&old.settings, &new.settings);
    for name in changed_files(old, new) {
        if !changed.contains(&name) {
            changed.push(name);
        }
    }
    let mut lines = Vec::new();
    for name in changed.iter().filter(|name| config::needs_restart(name)) {
        lines.push(format!("{name} has changed; that takes effect at the next start"));
    }
    if changed.contains(&"log-file") && new.settings.log_file.is_none() {
        lines.push("log-file is unset now; standard error is back at the next start".to_owned());
    }
    lines.iter().for_each(|line| log::warn!("{line}"));
    let all = format!("settings and secrets have been read again; changed: {}", list(&changed));
    log::info!("{all}");
    lines.insert(0, all);
    lines
}

/// The directives whose files have other contents.
fn changed_files(old: &Config, new: &Config) -> impl Iterator<Item = &'static str> {
    let secrets = |config: &Config| config.keyring.as_ref().map(|ring| ring.secrets().clone());
    let revoked = |config: &Config| config.keyring.as_ref().map(|ring| ring.revoked().clone());
    let token = |config: &Config| config.admin_token.as_ref().map(|token| token.bytes().to_vec());
    let differ = [
        ("secrets", secrets(old) != secrets(new)),
        ("revoked", revoked(old) != revoked(new)),
        ("admin-token", token(old) != token(new)),
        ("sticky-secret", new.sticky_keys.differ(&old.sticky_keys)),
        ("redis-password", old.redis_password != new.redis_password),
        ("error-page", old.error_pages != new.error_pages),
        ("listen", new.tls.differ(&old.tls)),
        ("site", new.tls.sites_differ(&old.tls)),
    ];
    differ.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name)
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_files_are_reported_with_all_other_mistakes() {
        let file = std::env::temp_dir().join(format!("cloudbridge-start-{}", std::process::id()));
        let text = "workers many\nsecrets /no/secrets\nlog-file /no/log\naccess-log /no/access\n\
                    error-page 503 /no/page.html\n";
        std::fs::write(&file, text).unwrap();
        let source = Source { file: Some(file.clone()), ..Source::default() };
        let problems = load(&source).err().unwrap();
        std::fs::remove_file(&file).unwrap();
        let missing = "No such file or directory (os error 2)";
        assert_eq!(
            problems,
            [
                format!("{}:1: workers: \"many\" is not a whole number", file.display()),
                format!("cannot read /no/secrets: {missing}"),
                format!("error-page: cannot read /no/page.html: {missing}"),
                format!("cannot write /no/access: {missing}"),
                format!("cannot write /no/log: {missing}"),
            ]
        );
    }
}
