//! From settings to running workers, and what can be told to them afterwards.

use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use mio::{Poll, Waker};

use crate::config::{self, Listen, Serves, Settings, Source};
use crate::matching::Directory;
use crate::protocol::Secrets;
use crate::reactor::listener::{self, Listener};
use crate::reactor::mailbox::Mailbox;
use crate::reactor::pipe::PIPES;
use crate::reactor::sys::{self, SocketOptions};
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
}

/// Reads everything that comes from files.
///
/// # Errors
/// Everything that is wrong, one sentence each.
pub fn load(source: &Source) -> Result<Config, Vec<String>> {
    let settings = config::load(source)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
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
    let access_log = match &settings.access_log {
        None => None,
        Some(path) => Some(
            AccessLog::open(path)
                .map_err(|error| vec![format!("cannot write {}: {error}", path.display())])?,
        ),
    };
    Ok(Config { settings, secrets, access_log })
}

impl Proxy {
    /// Opens the listeners and starts the workers.
    ///
    /// # Errors
    /// What could not be had, in one sentence.
    pub fn start(config: Config) -> Result<Proxy, String> {
        let count = config.settings.worker_count();
        let mut listeners = open_listeners(&config.settings, count)?;
        let descriptors = sys::raise_descriptor_limit()
            .map_err(|error| format!("cannot learn the limit of open descriptors: {error}"))?;
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
            exchanges: AtomicUsize::new(0),
            draining: AtomicUsize::new(0),
            descriptor_room: room,
            started: Instant::now(),
        });
        let settings = Mutex::new(config.settings.clone());
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
        Ok(Proxy { workers, handle: Handle { shared, settings } })
    }
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
        let config = match load(source) {
            Ok(config) => config,
            Err(problems) => {
                for problem in problems {
                    log::error!("{problem}");
                }
                return log::error!("nothing has changed: the settings in force stay in force");
            }
        };
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = config::changed(&settings, &config.settings);
        for name in changed.iter().filter(|name| config::needs_restart(name)) {
            log::warn!("{name} has changed; that takes effect at the next start");
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
