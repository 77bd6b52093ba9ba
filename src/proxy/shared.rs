//! What the workers have in common, and the mail between them.

use std::fs::File;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use mio::net::TcpStream;

use crate::bridge::Secrets;
use crate::config::Settings;
use crate::net::mailbox::Mailbox;
use crate::net::pipe::PIPES;
use crate::net::resolver::Found;
use crate::process::identity::Identity;
use crate::routing::{self, Directory};

use super::access::AccessLog;
use super::departures::Departure;
use super::dial::{self, Pools, Server};
use super::gates::{Doorways, Opened};
use super::guests::Guests;
use super::role::Bridge;
use super::seats::Seats;
use super::sites::Sites;
use super::stats::{Keys, Stats};

/// Descriptors that are not connections, for each worker: its poll, its waker, and the pipes that bodies are spliced
/// through. Its listeners come to that.
const DESCRIPTORS_PER_WORKER: usize = 2 * PIPES + 16;

/// Descriptors of the process as a whole: standard streams, logs, files being read again.
const DESCRIPTORS_BESIDE: usize = 16;

/// What is read from files, and read again on SIGHUP: all of it is replaced, or nothing.
pub struct Config {
    /// The settings.
    pub settings: Settings,
    /// The secrets that keys are checked against; `None` when no file is set.
    pub secrets: Option<Secrets>,
    /// Where requests are written down.
    pub access_log: Option<AccessLog>,
    /// Where the log goes instead of standard error, until it has been put there.
    pub log_file: Option<File>,
    /// Whom the process becomes once its sockets are bound.
    pub identity: Option<Identity>,
    /// The sites of the settings.
    pub sites: Sites,
    /// The servers that are dialled from here.
    pub pools: Pools,
}

/// What every worker of the process knows.
pub struct Shared {
    /// Which routes there are, and which worker has bridges or waiting requests for them.
    pub directory: Arc<Directory>,
    /// Every worker's mailbox, by index.
    pub mailboxes: Vec<Mailbox<Mail>>,
    /// Every worker's counters, by index.
    pub stats: Vec<Stats>,
    /// The counts by host key.
    pub keys: Keys,
    /// What is taken up of the limits in host keys, on all workers.
    pub seats: Seats,
    /// The swiftclient backends that are connected.
    pub guests: Guests,
    /// Connections open now, of all workers.
    pub connections: AtomicUsize,
    /// How many workers have been told to leave and have emptied their listeners.
    pub draining: AtomicUsize,
    /// How many descriptors the process may have open.
    pub descriptors: usize,
    /// When the proxy was started.
    pub started: Instant,
}

impl Shared {
    /// How many connections may be open at once under `config`.
    #[must_use]
    pub fn connection_limit(&self, config: &Config) -> usize {
        let listeners = config.settings.listen.len() + config.sites.inlets().len();
        let spare = self.mailboxes.len() * (DESCRIPTORS_PER_WORKER + listeners);
        let room = self.descriptors.saturating_sub(spare + DESCRIPTORS_BESIDE);
        let room = room.max(self.descriptors / 2);
        match config.settings.max_connections {
            0 => room,
            limit => limit.min(room),
        }
    }

    /// Connections open now.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Microseconds since the start of the process: what the workers' clocks show.
    #[must_use]
    pub fn micros(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The mailboxes of all workers but this one.
    pub fn others(&self, worker: usize) -> impl Iterator<Item = &Mailbox<Mail>> {
        let all = self.mailboxes.iter().enumerate();
        all.filter(move |(index, _)| *index != worker).map(|(_, mailbox)| mailbox)
    }

    /// Sends `make()` to every worker.
    pub fn tell_all(&self, make: impl Fn() -> Mail) {
        for mailbox in &self.mailboxes {
            mailbox.send(make());
        }
    }
}

/// What one worker may be told.
pub enum Mail {
    /// The lobbies talk to each other.
    Lobby(routing::Mail),
    /// A bridge moves here.
    Bridge(Box<Parcel>),
    /// A backend leaves.
    Leave(Arc<Departure>),
    /// The name of a server has been looked up.
    Found(Arc<Server>, Found),
    /// Settings and secrets have been read again.
    Reload(Box<Reload>),
    /// Finish what is under way and leave.
    Drain,
}

/// What comes into force when the settings have been read again.
pub struct Reload {
    /// The settings and what comes with them.
    pub config: Arc<Config>,
    /// The listeners that are new, of this worker.
    pub opened: Opened,
    /// Whom every listener is for; one that is not here is to be closed.
    pub doorways: Arc<Doorways>,
}

/// A bridge on its way to another worker.
pub struct Parcel {
    /// Its socket.
    pub stream: TcpStream,
    /// Who is at the other end.
    pub peer: IpAddr,
    /// Its papers, which say what its route is called there.
    pub passage: routing::Passage,
    /// The bridge; its `route` means nothing until it has arrived.
    pub bridge: Bridge,
    /// The server that it goes to, if we have dialled it.
    pub server: Option<Box<dial::Line>>,
}
