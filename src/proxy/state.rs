//! What the workers share, and the mail between them.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, SyncSender};
use std::time::{Duration, Instant, SystemTime};

use mio::Registry;

use crate::bridge::hostkey::Keyring;
use crate::config::{Settings, SiteUpdates};
use crate::files::{Opened as OpenedFile, cache};
use crate::net::mailbox::Mailbox;
use crate::net::pipe::PIPES;
use crate::net::resolver::Found;
use crate::net::token::Token;
use crate::process::channel::Message;
use crate::process::identity::Identity;
use crate::routing::{self, Directory, IdleHandle, InstanceId, RouteSpec, Telling};
use crate::time::Micros;

use super::access_log::AccessLog;
use super::admin_token::AdminToken;
use super::authoriser::{Authoriser, Told};
use super::backends::{Backend, Backends};
use super::bridge_store::BridgeStore;
use super::careless::CarelessRoutes;
use super::certificates::Certificates;
use super::deregistered::Deregistration;
use super::dial::named::NamedServers;
use super::error_pages::ErrorPages;
use super::file_roots::FileRoots;
use super::key_limits::KeyLimits;
use super::leases::{Keys, SwiftclientBackends};
use super::listeners::{NewPeer, OpenListeners, Opened};
use super::losses::Dismissed;
use super::managers::Managers;
use super::operator::{Answer, Drained, Order};
use super::proofs::Proofs;
use super::redis_password::RedisPassword;
use super::role::{ParkedBridge, Pools, Route, Server};
use super::shares::{AddressCount, Count};
use super::site_change::{SiteAnswer, Tags};
use super::sites::Sites;
use super::stats::Stats;
use super::sticky_keys::StickyKeys;
use super::tenant::guard::Guard;
use super::tls_files::TlsFiles;
use super::upgrade::moved_tunnel::TunnelArrival;
use super::upgrade::notes::Arrival;
use super::upgrade::old_programs::OldPrograms;
use super::upgrade::progress::Replacement;
use super::waiting_names::SaidNames;

/// Descriptors that are not connections, for each worker: its poll, its waker, and the pipes that
/// bodies are spliced through. Listening sockets come on top.
const DESCRIPTORS_PER_WORKER: usize = 2 * PIPES + 16;

/// Descriptors of the process as a whole: standard streams, logs, files being read again.
const DESCRIPTORS_OF_PROCESS: usize = 16;

/// Where to find a parked bridge that this worker has lent to the scheduler.
pub(super) struct Parked {
    pub(super) route: Arc<Route>,
    pub(super) handle: IdleHandle,
}

/// Everything read from files, and again on SIGHUP: all of it is replaced, or nothing.
pub struct Config {
    /// The settings.
    pub settings: Settings,
    /// What keys are checked against; `None` when there are no secrets.
    pub(super) keyring: Option<Arc<Keyring>>,
    /// What the cookies of sticky sites are signed with.
    pub(super) sticky_keys: Arc<StickyKeys>,
    pub(super) access_log: Option<AccessLog>,
    /// What actions at an admin listener need over TCP.
    pub(super) admin_token: Option<AdminToken>,
    /// The log file, until standard error has been redirected to it.
    pub log_file: Option<File>,
    /// The user that the process becomes once its sockets are bound.
    pub(super) identity: Option<Identity>,
    pub(super) sites: Sites,
    pub(super) error_pages: Arc<ErrorPages>,
    pub(super) files: FileRoots,
    pub(super) pools: Pools,
    pub(super) tls: TlsFiles,
    /// The sites among those of the settings that were made at run time.
    pub(super) updates: SiteUpdates,
    /// What Redis has named.
    pub(super) named: NamedServers,
    pub(super) redis_password: Option<RedisPassword>,
}

impl Config {
    /// `settings` that name no file.
    #[must_use]
    pub fn without_files(settings: Settings) -> Config {
        Config {
            sites: Sites::new(&settings),
            settings,
            keyring: None,
            sticky_keys: Arc::default(),
            access_log: None,
            admin_token: None,
            log_file: None,
            identity: None,
            error_pages: Arc::default(),
            files: FileRoots::default(),
            pools: Pools::default(),
            tls: TlsFiles::default(),
            updates: SiteUpdates::default(),
            named: NamedServers::default(),
            redis_password: None,
        }
    }

    /// The same with other sites: `settings` differ from these in nothing else. No file is read
    /// again.
    pub(super) fn with_sites(&self, settings: Settings) -> Config {
        Config {
            sites: Sites::new(&settings),
            settings,
            keyring: self.keyring.clone(),
            sticky_keys: Arc::clone(&self.sticky_keys),
            access_log: self.access_log.clone(),
            admin_token: self.admin_token.clone(),
            log_file: None,
            identity: self.identity.clone(),
            error_pages: Arc::clone(&self.error_pages),
            files: self.files.clone(),
            // They are made when it comes into force.
            pools: Pools::default(),
            tls: self.tls.clone(),
            updates: self.updates.clone(),
            named: self.named.clone(),
            redis_password: self.redis_password.clone(),
        }
    }
}

/// Shared by all workers.
pub(super) struct Shared {
    pub(super) directory: Arc<Directory<ParkedBridge>>,
    /// Those who start backends.
    pub(super) managers: Arc<Managers>,
    /// By worker, as is `registries` and `stats`.
    pub(super) mailboxes: Vec<Mailbox<Mail>>,
    pub(super) admin: Mailbox<AdminMail>,
    /// Whom the operator has drained.
    pub(super) drained: Drained,
    /// By which the operator tells whether a site has changed.
    pub(super) tags: Tags,
    /// For deregistering a parked bridge from the poll of the worker that parked it.
    pub(super) registries: Vec<Registry>,
    pub(super) stats: Vec<Stats>,
    pub(super) keys: Keys,
    pub(super) key_limits: Arc<KeyLimits>,
    /// Who is asked about registrations.
    pub(super) authoriser: Arc<Authoriser>,
    pub(super) proofs: Proofs,
    pub(super) certificates: Certificates,
    /// How many bridges have come through an old program.
    pub(super) through_old: AtomicUsize,
    /// Until when there may be some of them to close, in milliseconds of the workers' clocks.
    pub(super) close_through_old_until: AtomicU64,
    pub(super) swiftclient_backends: SwiftclientBackends,
    pub(super) backends: Backends,
    pub(super) careless: CarelessRoutes,
    /// A bridge has joined a group: backends are told of requests that wait.
    pub(super) has_groups: AtomicBool,
    /// Connections open now, of all workers.
    pub(super) connections: AtomicUsize,
    /// Those of them that backends have made bridges.
    pub(super) bridges: Count,
    /// Those of them that were accepted without room for them (`reserve.rs`).
    pub(super) newcomers: Count,
    /// Those of clients by address, if that is bounded.
    pub(super) addresses: AddressCount,
    /// How often they may ask for the state of a tenant.
    pub(super) tenant_guard: Guard,
    /// The proxy has been told to shut down.
    pub(super) stopping: AtomicBool,
    /// How many workers are draining and have emptied their backlogs.
    pub(super) draining: AtomicUsize,
    /// The program that this one replaces still has connections, which come here.
    pub(super) has_predecessor: AtomicBool,
    /// What that program, and those before it, still have.
    pub(super) old_programs: OldPrograms,
    /// The bridges that systemd keeps for the next process, if it does.
    pub(super) bridge_store: Option<Arc<BridgeStore>>,
    /// The names that the log has said requests wait for.
    pub(super) said_names: SaidNames,
    /// How many descriptors the process may have open.
    pub(super) descriptors: usize,
    /// The zero of the workers' clocks.
    pub(super) started: Instant,
    /// When that was.
    pub(super) began: SystemTime,
    /// The same by the clock that nobody sets.
    pub(super) zero: Duration,
}

impl Shared {
    /// How many connections may be open at once under `config`.
    pub(super) fn connection_limit(&self, config: &Config) -> usize {
        let listeners = config.settings.listen.len() + config.sites.listeners().len();
        // The main thread has a copy of each listening socket.
        let files = if config.files.any() { cache::DESCRIPTORS } else { 0 };
        let each = DESCRIPTORS_PER_WORKER + 2 * listeners + files;
        let spare = self.mailboxes.len() * each;
        let room = self.descriptors.saturating_sub(spare + DESCRIPTORS_OF_PROCESS);
        let room = room.max(self.descriptors / 2);
        match config.settings.max_connections {
            0 => room,
            limit => limit.min(room),
        }
    }

    /// Puts the limits of keys in force, and who is asked about registrations.
    pub(super) fn limit_keys(&self, settings: &Settings) {
        self.key_limits.put_in_force(&settings.key_limits);
        self.authoriser.put_in_force(settings);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(super) fn open_connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Takes a place among the open connections, if there are fewer than `most`, until
    /// [`Shared::give_up_reserved`].
    pub(super) fn reserve_connection(&self, most: usize) -> bool {
        let more = |open: usize| (open < most).then(|| open + 1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn give_up_reserved(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// The time of the workers' clocks.
    pub(super) fn now(&self) -> Micros {
        Micros(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// A number that grows with the time, also from one program to the one that replaces it:
    /// microseconds since the machine was started. The time of day may be set back.
    pub(super) fn stamp(&self, now: Micros) -> u64 {
        u64::try_from(self.zero.as_micros()).unwrap_or(0).saturating_add(now.0)
    }

    /// The mailboxes of all workers but this one.
    pub(super) fn others(&self, worker: usize) -> impl Iterator<Item = &Mailbox<Mail>> {
        let all = self.mailboxes.iter().enumerate();
        all.filter(move |(index, _)| *index != worker).map(|(_, mailbox)| mailbox)
    }
}

/// Mail to a worker.
pub(super) enum Mail {
    /// Another worker has accepted this connection. Its place among the open ones is reserved.
    Peer(Box<NewPeer>),
    /// A bridge for a request that waits here.
    Transfer(Transfer),
    /// Another worker has taken this parked bridge over.
    TakenOver(Token),
    Deregister(Arc<Deregistration>),
    /// This backend has gone silent.
    Suspect(Arc<Backend>),
    /// It has answered.
    Alive(Arc<Backend>),
    /// A bridge parked here is told how long requests wait.
    Tell(ToldBridge),
    /// Bridges of a backend are in use through old programs.
    InUseElsewhere(InUseElsewhere),
    /// Some keys are no longer good.
    KeysLost,
    /// The operator drains or drops bridges.
    Order(Arc<Order>),
    /// No request is to wait for these instances any longer.
    Shunned(Arc<HashSet<InstanceId>>),
    /// A thread has opened a file for this client, or not.
    FileOpened(Token, OpenedFile),
    /// A thread has read a part of a file for this client.
    FileRead(Token, io::Result<Vec<u8>>),
    /// The program that authorises has answered a question about this connection, or will not.
    Authorised(Token, Told),
    /// The name of a server has been looked up.
    Found(Arc<Server>, Found),
    /// Settings and secrets have been read again.
    Reload(Box<Reload>),
    /// Finish the exchanges in progress, and stop.
    Drain,
    /// A new program serves: everything goes to it.
    Replace(Arc<Replacement>),
    /// The new program has ended.
    GoOn,
    /// From the program that this one replaces.
    Arrive(Box<Arrival>),
    /// The same, a message with bridges.
    ArriveAll(Message),
    ArriveTunnel(Box<TunnelArrival>),
    /// That program has bridges for these hosts and paths, or has had some lately, and of these
    /// instances.
    Expect(RouteSpec, Vec<(InstanceId, Micros)>),
    /// Say when everything before this has been done.
    Report(Sender<()>),
    /// Its bridges are here.
    BeginAccepting,
}

/// What the backend of a parked bridge is told (`doc/protocol.md`, "Places").
pub(super) struct ToldBridge {
    pub(super) route: Arc<Route>,
    pub(super) telling: Telling,
    /// The number of the message.
    pub(super) at: u64,
}

/// So many bridges of a backend are in use through old programs (`in_use_elsewhere.rs`).
pub(super) struct InUseElsewhere {
    pub(super) route: Arc<Route>,
    pub(super) backend: Arc<Backend>,
    pub(super) count: u32,
}

/// Mail to the admin thread.
pub(super) enum AdminMail {
    /// Settings have been read again.
    Reload { config: Arc<Config>, opened: Opened, listeners: OpenListeners },
    /// A worker has carried out an order.
    Done(Answer),
    /// The main thread has.
    Controlled { key: u64, answer: Result<Vec<String>, Vec<String>> },
    /// A site has been changed, or not.
    SiteChanged { key: u64, answer: SiteAnswer },
    /// A new program serves, or it has ended.
    Replaced(bool),
    /// The process ends. Says when the mail before this one has been dealt with.
    End(SyncSender<()>),
}

/// A bridge on its way to another worker, where a request waits for it.
pub(super) struct Transfer {
    /// `None` if it died before it could be sent.
    pub(super) bridge: Option<ParkedBridge>,
    pub(super) transfer: routing::Transfer,
}

/// What a reload puts in force.
pub(super) struct Reload {
    pub(super) config: Arc<Config>,
    /// The new sockets of this worker.
    pub(super) opened: Opened,
    pub(super) listeners: OpenListeners,
    /// Told when this worker has put them in force: which bridges have lost their keys.
    pub(super) done: Sender<Dismissed>,
}
