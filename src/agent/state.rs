//! The agent: its tables, and how a connection leaves them.

use std::collections::VecDeque;
use std::io;
use std::mem::Discriminant;
use std::sync::Arc;
use std::time::Duration;

use super::application::Application;
use super::descriptors::{self, Need};
use super::healthz::Healthz;
use super::lookup::{Lookup, Name, Resolver};
use super::options::Serve;
use super::proxies::{Cluster, Place, Proxy};
use super::role::{Bridge, Role, Stage, TunnelPlace, Upstream, UpstreamState};
use super::service::{Encryption, ProxyAddress, Service};
use super::supervision::Supervised;
use super::upgrade::notes::Note;
use super::upgrade::progress::{Replaced, Replacing, SuccessorEnd, Upgrades};
use crate::config::{Address, Destination};
use crate::exchange::{Cause, Exchanges, Side};
use crate::net::event_loop::{EventLoop, LingerTimeouts};
use crate::net::log_limiter::{LogLimiter, LogLimiters};
use crate::net::mailbox::Mailbox;
use crate::net::resolver::Found;
use crate::net::sys::Signal;
use crate::process::upgrade::Successor;
use crate::time::Millis;
use crate::upstream::Addresses;

/// Reads again what to serve: the files of the command line.
///
/// Its errors are everything that is wrong, one line each.
pub type Reread = Box<dyn Fn() -> Result<Serve, Vec<String>>>;

/// How long the proxy may take to close after our FIN: it may still be sending the rest of a body
/// that was answered early. Also how long it may take none of our last bytes.
pub(super) const LINGER: LingerTimeouts =
    LingerTimeouts { flush: Duration::from_secs(60), fin: Duration::from_secs(5) };

/// How long bytes may stay unacknowledged before the kernel gives a proxy or an application up.
pub(super) const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// What other threads send.
pub(super) enum Mail {
    Found(Lookup, Found),
    Signal(Signal),
    /// From the program that this one replaces.
    Note(Box<Note>),
    /// A new program serves, or why it does not.
    Upgraded(Result<Box<Successor>, Vec<String>>),
    /// The new program has the bridges that cannot go over.
    SuccessorDialled,
    SuccessorEnded(SuccessorEnd),
}

/// Whether the agent keeps running.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Serving,
    /// A new program serves. This one finishes requests in progress, until this time.
    Replaced {
        until: Millis,
    },
    /// It takes nothing new, and finishes requests in progress, until this time.
    Leaving {
        until: Millis,
    },
    /// It stops at once.
    Over,
}

/// What the agent keeps beside an exchange.
pub(super) struct Attempt {
    /// An earlier attempt broke: the application may have seen some of the request.
    pub delivered: bool,
    /// The upstream connection came from the pool, so the application may have closed it.
    pub reused: bool,
    /// When it began.
    pub begun: Millis,
}

/// The state of the agent's one thread.
pub(super) struct Agent {
    pub(super) conns: EventLoop<Role>,
    pub(super) exchanges: Exchanges<Attempt>,
    pub(super) applications: Vec<Application>,
    /// One that two applications use is here twice.
    pub(super) proxies: Vec<Proxy>,
    pub(super) clusters: Vec<Cluster>,
    pub(super) resolver: Resolver,
    /// Applications whose places several proxies share.
    pub(super) shared: Vec<usize>,
    /// Applications with a slot that became free while bridges queued for one.
    pub(super) freed: VecDeque<usize>,
    pub(super) life: Life,
    /// A signal to stop has come. It may shut down without one.
    pub(super) is_told: bool,
    pub(super) grace: Duration,
    pub(super) upgrade_timeout: Duration,
    /// After how long without a request it leaves; zero for never.
    pub(super) exit_idle: Duration,
    /// When a request came, or was over, last.
    pub(super) last_request: Millis,
    /// A proxy has accepted a bridge.
    pub(super) has_had_bridge: bool,
    pub(super) upgrades: Upgrades,
    /// After a new program has taken over.
    pub(super) replaced: Option<Replaced>,
    /// While the program lives that this one replaces.
    pub(super) replacing: Option<Replacing>,
    pub(super) reread: Reread,
    pub(super) mailbox: Arc<Mailbox<Mail>>,
    /// When to maintain proxies and applications next.
    pub(super) maintain_at: Option<Millis>,
    /// How many descriptors it may have open.
    pub(super) descriptors: usize,
    /// How many requests of each application these are enough for.
    pub(super) most_requests: usize,
    /// The line about a descriptor that could not be had.
    pub(super) shortage: LogLimiter,
    /// Failed exchanges, by side and cause.
    pub(super) failures_reported: LogLimiters<(Side, Discriminant<Cause>)>,
    pub(super) supervised: Supervised,
    pub(super) healthz: Option<Healthz>,
}

impl Agent {
    /// Begins to serve `service`.
    ///
    /// # Errors
    /// One line about a host, prefix or key that no proxy would take.
    pub fn add(&mut self, service: &Service) -> Result<(), String> {
        let registration = service.registration()?;
        let Service { to, scope, limit, .. } = service;
        log::info!("{to} for {}, {limit} requests at once", scope.hosts.join(", "));
        let application = self.applications.len();
        let several = service.has_several_proxies();
        for (at, ProxyAddress { address, tls }) in service.proxies.iter().enumerate() {
            let (shown, place) = (address.to_string(), Place { at, member: None });
            let tls = service.proxy_tls.clone().filter(|_| *tls);
            match address.clone() {
                Address::Name { host, port } if service.all_addresses => {
                    let tls = tls.map(|tls| Encryption { tls, host: host.clone() });
                    let name = Name::new(host, port);
                    self.clusters.push(Cluster::new(application, at, name, tls));
                }
                Address::Name { host, port } => {
                    let tls = tls.map(|tls| Encryption { tls, host: host.clone() });
                    let (name, none) = (Name::new(host, port), Addresses::default());
                    let proxy = Proxy::new(application, place, shown, Some(name), none);
                    self.proxies.push(proxy.encrypted(tls).one_of_several(several));
                }
                Address::Socket(address) => {
                    let tls = tls.map(|tls| Encryption { tls, host: address.ip().to_string() });
                    let address = Addresses::of(&Destination::Socket(address));
                    let proxy = Proxy::new(application, place, shown, None, address);
                    self.proxies.push(proxy.encrypted(tls).one_of_several(several));
                }
                // An address to listen at; the options reject it.
                Address::Any { .. } | Address::Unix(_) | Address::Passed(_) => {}
            }
        }
        self.applications.push(Application::new(service.clone(), registration));
        if several {
            self.shared.push(application);
        }
        self.maintain_now();
        Ok(())
    }

    pub(super) fn now(&self) -> Millis {
        self.conns.now().millis()
    }

    /// Whether new work is taken on.
    pub(super) fn is_serving(&self) -> bool {
        self.life == Life::Serving
    }

    /// Whether a bridge of this application may serve another request after the present one.
    pub(super) fn is_offered(&self, application: usize) -> bool {
        // A bridge that a new program takes is free to go only between two requests.
        (self.is_serving() || self.replaced.is_some()) && !self.applications[application].withdrawn
    }

    /// Maintains proxies and applications at `at` or before.
    pub(super) fn maintain_by(&mut self, at: Millis) {
        self.maintain_at = Some(self.maintain_at.map_or(at, |before| before.min(at)));
    }

    /// Maintains proxies and applications at the end of this turn.
    pub(super) fn maintain_now(&mut self) {
        self.maintain_at = Some(Millis(0));
    }

    /// Whether to maintain them now; then clears the time.
    pub(super) fn begin_maintenance(&mut self) -> bool {
        let now = self.now();
        self.maintain_at.take_if(|at| *at <= now).is_some()
    }

    /// Updates how many requests the descriptors are enough for, and logs it if it is news that they
    /// are not enough for all.
    pub(super) fn count_descriptors(&mut self) {
        let served = |at: usize| !self.applications[at].withdrawn;
        let needs: Vec<Need> = (0..self.applications.len())
            .filter(|at| served(*at))
            .map(|at| Need {
                limit: self.applications[at].service.limit,
                proxies: self.proxies.iter().filter(|proxy| proxy.application == at).count(),
            })
            .collect();
        let enough = descriptors::requests(self.descriptors, &needs);
        let wanted = needs.iter().map(|need| need.limit).max().unwrap_or(0);
        if enough < wanted && enough != self.most_requests {
            log::warn!(
                "{} descriptors (ulimit -n) are enough for {enough} requests at once, not for \
                 {wanted}",
                self.descriptors
            );
        }
        self.most_requests = enough;
    }

    /// Logs that a descriptor was wanted and could not be had.
    pub(super) fn note_shortage(&mut self, error: &io::Error) {
        let now = self.now();
        if self.shortage.allow(now).is_some() {
            log::warn!("a connection could not be made: {error}");
        }
    }

    /// The bridge in slot `key`; `None` if it is something else or closed.
    pub(super) fn bridge(&self, key: usize) -> Option<&Bridge> {
        match self.conns.role(key) {
            Some(Role::Bridge(bridge)) => Some(bridge),
            _ => None,
        }
    }

    pub(super) fn bridge_mut(&mut self, key: usize) -> Option<&mut Bridge> {
        match self.conns.role_mut(key) {
            Some(Role::Bridge(bridge)) => Some(bridge),
            _ => None,
        }
    }

    pub(super) fn stage(&self, key: usize) -> Option<Stage> {
        self.bridge(key).map(|bridge| bridge.stage)
    }

    pub(super) fn set_stage(&mut self, key: usize, to: Stage) -> Option<&mut Bridge> {
        let bridge = self.bridge_mut(key)?;
        bridge.stage = to;
        Some(bridge)
    }

    /// Closes a connection. An exchange that it is part of must have been taken out before.
    pub(super) fn close(&mut self, key: usize) {
        if self.leave_tables(key) {
            self.conns.close(key, None);
        }
    }

    /// Closes a connection once its last bytes have been delivered.
    pub(super) fn linger(&mut self, key: usize) {
        if self.leave_tables(key) {
            self.conns.linger(key, None);
        }
    }

    /// Removes an active connection from the tables of its role. False if it was not active.
    fn leave_tables(&mut self, key: usize) -> bool {
        match self.conns.take(key) {
            None => return false,
            Some(Role::Bridge(bridge)) => self.bridge_left(key, &bridge),
            Some(Role::Upstream(upstream)) => self.upstream_left(key, &upstream),
            Some(Role::Deregistration(_) | Role::Asker) => {}
        }
        true
    }

    fn bridge_left(&mut self, key: usize, bridge: &Bridge) {
        let tried = matches!(bridge.stage, Stage::Connecting { .. } | Stage::Registering { .. });
        // One that became a tunnel has left the count before.
        if bridge.tunnel != TunnelPlace::Open {
            self.proxies[bridge.proxy].bridge_closed(!tried);
        }
        self.listener_left(self.conns[key].token(), bridge);
        self.release_tunnel(bridge.application, bridge.tunnel);
        if bridge.slot {
            self.release_slot(bridge.application, bridge.party);
        }
        if let Some(upstream) = bridge.upstream.and_then(|upstream| self.conns.find(upstream)) {
            self.close(upstream);
        }
        self.maintain_now();
    }

    fn upstream_left(&mut self, key: usize, upstream: &Upstream) {
        let token = self.conns[key].token();
        match upstream.state {
            UpstreamState::Idle => {
                self.applications[upstream.application].idle.retain(|idle| *idle != token);
            }
            UpstreamState::Connecting { bridge }
            | UpstreamState::OnTrial { bridge }
            | UpstreamState::Reserved { bridge, .. } => {
                if let Some(key) = self.conns.find(bridge)
                    && let Some(bridge) = self.bridge_mut(key)
                {
                    bridge.upstream = None;
                }
            }
            UpstreamState::Probing { .. }
            | UpstreamState::Checking
            | UpstreamState::Exchanging { .. } => {}
        }
    }

    /// Takes a slot of an application back, which `party` had.
    pub(super) fn release_slot(&mut self, application: usize, party: usize) {
        let now = self.conns.now();
        let app = &mut self.applications[application];
        if let Some(arbiter) = &mut app.arbiter {
            arbiter.ends(party, now);
        }
        app.full_since = None;
        let slots = &mut app.slots;
        // While none was free, no bridges were dialled.
        let first = !slots.any_free();
        slots.release();
        if slots.has_queue() {
            self.freed.push_back(application);
        } else if first {
            self.maintain_now();
        }
    }
}

/// What is said of a peer that does not take a connection in time.
pub(super) const NO_ANSWER: &str = "it does not answer";

/// The error of a peer that has let a deadline pass.
pub(super) fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

/// The error of a peer that has closed too early.
pub(super) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")
}
