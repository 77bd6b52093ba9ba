//! From settings to running workers, and what can be told to them afterwards.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use mio::{Poll, Waker};

use crate::config::{self, Listen, Serves, Settings, Source};
use crate::matching::Directory;
use crate::process::identity::Identity;
use crate::process::logfile;
use crate::protocol::Secrets;
use crate::reactor::listener::{self, Listener};
use crate::reactor::mailbox::Mailbox;
use crate::reactor::pipe::PIPES;
use crate::reactor::sys::{self, SocketOptions, Stream};
use crate::reactor::token;

use super::access::AccessLog;
use super::seats::Seats;
use super::shared::{Config, Mail, Shared};
use super::stats::{Keys, Stats};
use super::worker::Worker;

/// Descriptors that are not connections, for each worker: its poll, its waker, its listeners,
/// and the pipes that bodies are spliced through.
const DESCRIPTORS_PER_WORKER: usize = 2 * PIPES + 16;

/// Descriptors of the process as a whole: standard streams, logs, files being read again.
const DESCRIPTORS_BESIDE: usize = 16;

/// The proxy under way.
pub struct Proxy {
    /// The workers' threads.
    pub workers: Vec<JoinHandle<()>>,
    /// How to speak to them.
    pub handle: Handle,
}

/// How the main thread speaks to the workers.
pub struct Handle {
    shared: Arc<Shared>,
    settings: Mutex<Settings>,
    /// Whom the process has become, if anybody.
    identity: Option<Identity>,
}

/// Reads everything that comes from files.
///
/// # Errors
/// Everything that is wrong, one sentence each.
pub fn load(source: &Source) -> Result<Config, Vec<String>> {
    let settings = config::load(source)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let identity = Identity::find(settings.user.as_deref(), settings.group.as_deref())
        .map_err(|problem| vec![problem])?;
    let secrets = match &settings.secrets {
        None => None,
        Some(path) => {
            let file = path.display().to_string();
            let text = std::fs::read_to_string(path)
                .map_err(|error| vec![format!("cannot read {file}: {error}")])?;
            Some(Secrets::parse(&text, &file)?)
        }
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    if secrets.as_ref().is_some_and(|secrets| secrets.newest(now).is_none()) {
        log::warn!("no secret is in force yet: every bridge will be refused until one is");
    }
    let cannot_write =
        |path: &Path, error| vec![format!("cannot write {}: {error}", path.display())];
    let owner = identity.as_ref();
    let access_log = settings
        .access_log
        .as_deref()
        .map(|path| AccessLog::open(path, owner).map_err(|error| cannot_write(path, error)));
    let log_file = settings
        .log_file
        .as_deref()
        .map(|path| logfile::open(path, owner).map_err(|error| cannot_write(path, error)));
    let (access_log, log_file) = (access_log.transpose()?, log_file.transpose()?);
    Ok(Config { settings, secrets, access_log, log_file, identity })
}

impl Proxy {
    /// Opens the listeners, becomes the user that the settings name, and starts the workers.
    /// `source` is where the next reload will read.
    ///
    /// # Errors
    /// What could not be had, in one sentence.
    pub fn start(config: Config, source: &Source) -> Result<Proxy, String> {
        let count = config.settings.worker_count();
        let mut listeners = open_listeners(&config.settings, count)?;
        let descriptors = limit_descriptors(&config.settings)?;
        // Ports below 1024 and a higher limit are had: what is left needs no root.
        if let Some(identity) = &config.identity {
            identity.assume()?;
            log::info!("running as {identity}");
            warn_of_reload(&config.settings, source, identity);
        }
        let spare = count * (DESCRIPTORS_PER_WORKER + config.settings.listen.len());
        let room = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let room = room.saturating_sub(spare + DESCRIPTORS_BESIDE).max(room / 2);
        let (polls, mailboxes) =
            open_polls(count).map_err(|error| format!("cannot start {count} workers: {error}"))?;
        let shared = Arc::new(Shared {
            directory: Arc::new(Directory::new(count)),
            mailboxes,
            stats: (0..count).map(|_| Stats::default()).collect(),
            keys: Keys::default(),
            seats: Seats::default(),
            connections: AtomicUsize::new(0),
            draining: AtomicUsize::new(0),
            descriptor_room: room,
            started: Instant::now(),
        });
        let (settings, identity) = (Mutex::new(config.settings.clone()), config.identity.clone());
        let config = Arc::new(config);
        let mut workers = Vec::new();
        for (index, poll) in polls.into_iter().enumerate() {
            let doors = std::mem::take(&mut listeners[index]);
            let (shared, config) = (Arc::clone(&shared), Arc::clone(&config));
            let worker = Worker::new(index, shared, config, poll, doors)
                .map_err(|error| format!("cannot start worker {index}: {error}"))?;
            workers.push(spawn(index, worker)?);
        }
        log::info!("cloudbridge {} with {count} workers", env!("CARGO_PKG_VERSION"));
        Ok(Proxy { workers, handle: Handle { shared, settings, identity } })
    }
}

/// Sets the limit that is asked for, and says what it is.
fn limit_descriptors(settings: &Settings) -> Result<u64, String> {
    match settings.descriptors {
        0 => sys::limit_descriptors(None)
            .map_err(|error| format!("cannot learn the limit of open descriptors: {error}")),
        wanted => sys::limit_descriptors(Some(wanted as u64))
            .map_err(|error| format!("cannot have {wanted} descriptors: {error}")),
    }
}

/// Says now what a reload would say later: which files root could open and this user cannot.
fn warn_of_reload(settings: &Settings, source: &Source, identity: &Identity) {
    let access_log = settings.access_log.as_deref().filter(|path| *path != Path::new("-"));
    let read = [source.file.as_deref(), settings.secrets.as_deref()].map(|path| (path, "read"));
    let written = [access_log, settings.log_file.as_deref()].map(|path| (path, "write"));
    for (path, what) in read.into_iter().chain(written) {
        let Some(path) = path else { continue };
        let opened = File::options().read(what == "read").append(what == "write").open(path);
        if let Err(error) = opened {
            let shown = path.display();
            log::warn!("a reload will fail: {identity} cannot {what} {shown}: {error}");
        }
    }
}

/// Sends what is written to standard error, which the log is, to the file of the settings.
///
/// # Errors
/// One sentence.
pub fn redirect_log(config: &mut Config) -> Result<(), String> {
    let Some(file) = config.log_file.take() else { return Ok(()) };
    sys::replace_stream(Stream::Error, &file).map_err(|error| format!("cannot log: {error}"))
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

/// What listening sockets hand on to connections under `settings`.
pub(super) fn socket_options(settings: &Settings) -> SocketOptions {
    SocketOptions { keepalive: settings.tcp_keepalive, user_timeout: settings.tcp_user_timeout }
}

/// Opens every listening address once per worker; gives each worker its own.
fn open_listeners(
    settings: &Settings,
    count: usize,
) -> Result<Vec<Vec<(Listener, Listen)>>, String> {
    let options = socket_options(settings);
    let mut workers: Vec<Vec<(Listener, Listen)>> = (0..count).map(|_| Vec::new()).collect();
    for listen in &settings.listen {
        let addresses = listen
            .address
            .resolve()
            .map_err(|error| format!("cannot listen on {}: {error}", listen.address))?;
        for address in addresses {
            let opened = listener::open(address, count, &options)
                .map_err(|error| format!("cannot listen on {}: {error}", listen.address))?;
            if let Some(first) = opened.first() {
                announce(first.address(), listen.serves);
            }
            for (worker, listener) in workers.iter_mut().zip(opened) {
                worker.push((listener, listen.clone()));
            }
        }
    }
    Ok(workers)
}

fn announce(address: SocketAddr, serves: Serves) {
    let whom = match serves {
        Serves::Both => "clients and bridges",
        Serves::Clients => "clients",
        Serves::Bridges => "bridges",
    };
    log::info!("listening on {address} ({whom})");
}

fn open_polls(count: usize) -> std::io::Result<(Vec<Poll>, Vec<Mailbox<Mail>>)> {
    let (mut polls, mut mailboxes) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), token::WAKER.into())?;
        mailboxes.push(Mailbox::new(waker));
        polls.push(poll);
    }
    Ok((polls, mailboxes))
}

impl Handle {
    /// Reads settings and secrets again. What is wrong is logged, and then nothing changes.
    pub fn reload(&self, source: &Source) {
        let mut config = match load(source) {
            Ok(config) => config,
            Err(problems) => {
                for problem in problems {
                    log::error!("{problem}");
                }
                let now = match &self.identity {
                    Some(identity) => format!(" (files are opened as {identity} now)"),
                    None => String::new(),
                };
                return log::error!(
                    "nothing has changed: the settings in force stay in force{now}"
                );
            }
        };
        if let Err(problem) = redirect_log(&mut config) {
            log::error!("{problem}; the log stays where it is");
        }
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = config::changed(&settings, &config.settings);
        for name in changed.iter().filter(|name| config::needs_restart(name)) {
            log::warn!("{name} has changed; that takes effect at the next start");
        }
        if changed.contains(&"log-file") && config.settings.log_file.is_none() {
            log::warn!("log-file is unset now; standard error is back at the next start");
        }
        log::info!("settings and secrets have been read again; changed: {}", list(&changed));
        log::set_max_level(config.settings.log_level);
        *settings = config.settings.clone();
        let config = Arc::new(config);
        self.shared.tell_all(|| Mail::Reload(Arc::clone(&config)));
    }

    /// Has every worker finish what is under way and leave.
    pub fn drain(&self) {
        self.shared.tell_all(|| Mail::Drain);
    }
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
