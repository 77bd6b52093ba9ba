//! One worker: its tables, and one turn of its loop.

use std::collections::VecDeque;
use std::io;
use std::mem::Discriminant;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::Poll;
use mio::event::Event;

use crate::config::{self, HalfClosedClients, Settings};
use crate::exchange::{BUDGET, Cause, ExchangeConfig, Exchanges, Side, Timeouts};
use crate::http::Limits;
use crate::net::event_loop::{self, Connection, EventLoop, Handler, LingerTimeouts, NextTurn};
use crate::net::log_limiter::{LogLimiter, LogLimiters};
use crate::net::tls::TlsError;
use crate::net::token::Token;
use crate::routing::{Balance, Bounds, QueuePos, Scheduler};
use crate::time::Millis;

use super::access_log::{AccessLog, Lines};
use super::aside::{Aside, Watch};
use super::deregistered::Deregistered;
use super::dial::attempts::Dialling;
use super::drain::Shutdown;
use super::facts;
use super::file_lookup::Lookups;
use super::listeners::Acceptor;
use super::losses::Graces;
use super::pace::Pacing;
use super::request_ids::RequestIds;
use super::role::{Begun, ParkedBridge, Role};
use super::state::{Config, Mail, Parked, Shared};
use super::stats::Stats;
use super::telling::Tellers;
use super::upgrade::progress::Replaced;
use super::waiting_names::Looks;

/// How often routes without bridges are swept.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// How often to check whether every worker knows a new route.
const ROUTE_SYNC_CHECK: Duration = Duration::from_millis(1);

/// How long a response may be silent once its client has sent its FIN. Long enough for the next
/// bytes of one that is under way, from whose delivery a reset tells whether the client is gone.
const HALF_CLOSED_SILENCE: Duration = Duration::from_secs(1);
/// How many refused bridges are logged of each status in 10 seconds: an operator who starts a few
/// backends sees why each is refused, and a backend that dials all the time does not fill the log.
const REFUSALS_LOGGED: u32 = 10;

/// How long a peer may take to close after our FIN.
const LINGER: Duration = Duration::from_secs(5);

/// How many lines about repeated requests may be written in a row: the tries of a few requests.
const DELIVERED_LINES: u32 = 10;

/// How many lines about failed exchanges of one kind may be written in 10 seconds.
const FAILURE_LINES: u32 = 10;

/// A request that waited and a bridge reserved for it. They meet in the next turn.
pub(super) struct Pair {
    pub(super) requester: Token,
    pub(super) pos: QueuePos,
    pub(super) responder: Token,
}

/// One worker. Each part keeps its own rules; the methods, by file, are the effects that need
/// several parts.
pub(super) struct Worker {
    pub(super) index: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) config: Arc<Config>,
    pub(super) exchange_config: ExchangeConfig,
    pub(super) acceptor: Acceptor,
    pub(super) balance: Balance,
    pub(super) conns: EventLoop<Role, Parked>,
    pub(super) exchanges: Exchanges<Begun>,
    pub(super) scheduler: Scheduler<ParkedBridge>,
    pub(super) pairs: VecDeque<Pair>,
    pub(super) pacing: Pacing,
    /// Bridges that created a route, see [`Role::AwaitingRoute`].
    pub(super) awaiting_route: VecDeque<Token>,
    pub(super) deregistered: Deregistered,
    pub(super) dialling: Dialling,
    pub(super) watch: Watch,
    pub(super) aside: Aside,
    pub(super) tellers: Tellers,
    pub(super) files: Lookups,
    pub(super) shutdown: Shutdown,
    pub(super) replaced: Replaced,
    /// When to look for bridges that come through an old program and are to be closed.
    pub(super) through_old_at: Millis,
    pub(super) graces: Graces,
    /// When a key expires, or the time of a bridge that has lost its key is over.
    revoke_at: Millis,
    pub(super) swiftclient_rejected: LogLimiter,
    pub(super) header_refused: LogLimiter,
    pub(super) handshake_failed: LogLimiter,
    /// Clients that wait for room, and when idle ones are closed for them next.
    pub(super) held: VecDeque<Token>,
    pub(super) next_reclaim: Millis,
    pub(super) address_surplus: LogLimiter,
    /// Refused BRIDGE requests, by status.
    pub(super) bridges_refused: LogLimiters<u16>,
    pub(super) delivered_reported: LogLimiter,
    /// Failed exchanges, by side and cause.
    pub(super) failures_reported: LogLimiters<(Side, Discriminant<Cause>)>,
    /// Lines of the access log that have not been submitted.
    pub(super) lines: Lines,
    /// The access log has times for which exchanges must be followed.
    pub(super) follows: bool,
    pub(super) looks: Looks,
    /// Where the next search for idle clients begins.
    pub(super) reclaim_from: usize,
    /// Room for host names in lower case.
    pub(super) name: String,
    pub(super) request_ids: RequestIds,
    /// A connection was freed in this turn.
    pub(super) freed_any: bool,
    mail: Vec<Mail>,
    next_sweep: Millis,
}

impl Worker {
    /// The `index`-th worker, which waits on `poll`.
    pub(super) fn new(
        index: usize,
        shared: Arc<Shared>,
        config: Arc<Config>,
        poll: Poll,
    ) -> Worker {
        let settings = &config.settings;
        let directory = Arc::clone(&shared.directory);
        let mut worker = Worker {
            index,
            exchange_config: exchange_config(settings),
            acceptor: Acceptor::default(),
            balance: Balance::default(),
            conns: EventLoop::new(poll, shared.started, linger_timeouts(settings)),
            exchanges: Exchanges::default(),
            scheduler: Scheduler::new(index, directory, bounds(settings)),
            pairs: VecDeque::new(),
            pacing: Pacing::default(),
            awaiting_route: VecDeque::new(),
            deregistered: Deregistered::default(),
            dialling: Dialling::default(),
            watch: Watch::default(),
            aside: Aside::default(),
            tellers: Tellers::default(),
            files: Lookups::default(),
            shutdown: Shutdown::default(),
            replaced: Replaced::default(),
            through_old_at: Millis(0),
            graces: Graces::default(),
            revoke_at: NextTurn::NEVER,
            swiftclient_rejected: LogLimiter::default(),
            header_refused: LogLimiter::default(),
            handshake_failed: LogLimiter::default(),
            held: VecDeque::new(),
            next_reclaim: Millis::default(),
            address_surplus: LogLimiter::default(),
            bridges_refused: LogLimiters::with_burst(REFUSALS_LOGGED),
            delivered_reported: LogLimiter::with_burst(DELIVERED_LINES),
            failures_reported: LogLimiters::with_burst(FAILURE_LINES),
            lines: Lines::default(),
            follows: follows(&config),
            looks: Looks::default(),
            reclaim_from: 0,
            name: String::new(),
            request_ids: RequestIds::new(index),
            freed_any: false,
            mail: Vec::new(),
            next_sweep: Millis::default() + SWEEP_INTERVAL,
            shared,
            config,
        };
        worker.conns.user_timeout = worker.config.settings.tcp_user_timeout;
        worker.scheduler.set_sites(worker.config.sites.patterns());
        worker
    }

    /// Runs until the worker has been told to drain and has finished.
    ///
    /// # Errors
    /// As epoll_wait(2).
    pub(super) fn run(mut self) -> io::Result<()> {
        event_loop::run(&mut self)
    }

    pub(super) fn stats(&self) -> &Stats {
        &self.shared.stats[self.index]
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.config.settings
    }

    /// Updates the copies of settings that the worker's parts keep.
    pub(super) fn apply_settings(&mut self) {
        let settings = &self.config.settings;
        self.exchange_config = exchange_config(settings);
        self.conns.linger_timeouts = linger_timeouts(settings);
        self.conns.user_timeout = settings.tcp_user_timeout;
        self.follows = follows(&self.config);
        self.scheduler.set_bounds(bounds(settings));
        self.scheduler.set_sites(self.config.sites.patterns());
    }

    /// Retires routes that have had no bridge for long.
    fn sweep_routes(&mut self) {
        let now = self.conns.now();
        if now.millis() < self.next_sweep {
            return;
        }
        self.next_sweep = now.millis() + SWEEP_INTERVAL;
        self.files.cache.sweep(now.millis());
        if self.index != 0 {
            return;
        }
        self.shared.proofs.look_at_clock(self.shared.moment());
        self.shared.certificates.look_at_clock(self.shared.moment());
        self.shared.backends.sweep(now.millis());
        self.shared.key_limits.sweep(now);
        // What comes from an old program that has ended may still be on the way.
        if let Some(store) = &self.shared.bridge_store
            && !self.shared.has_predecessor.load(Ordering::SeqCst)
        {
            store.look_after_others();
        }
        if self.shared.directory.sweep(now) > 0 {
            self.wake_others();
        }
    }

    /// Makes the other workers look at the directory.
    pub(super) fn wake_others(&self) {
        self.shared.others(self.index).for_each(|mailbox| mailbox.wake());
    }

    fn publish_stats(&mut self) {
        if let Some(lag) = self.conns.take_lag() {
            self.stats().lag.add(u64::try_from(lag.as_micros()).unwrap_or(u64::MAX));
        }
        let stats = self.stats();
        let counts = self.scheduler.counters();
        stats.waiting.set(counts.waiting as u64);
        stats.unserved.set(counts.unserved as u64);
        let traffic = self.conns.ws.traffic;
        stats.client_received.set(traffic.received);
        stats.client_sent.set(traffic.sent);
        stats.stale.set(self.conns.stale_events());
        stats.pipes_lent.set(self.conns.ws.pipes.lent() as u64);
    }
}

/// One turn, in the order of these methods.
impl Handler for Worker {
    type Role = Role;
    type Lent = Parked;

    fn conns(&mut self) -> &mut EventLoop<Role, Parked> {
        &mut self.conns
    }

    fn listener_ready(&mut self, index: usize) {
        self.acceptor.mark_ready(index);
    }

    fn lent_ready(&mut self, key: usize, event: &Event) {
        self.idle_bridge_event(key, event);
    }

    fn mail(&mut self) {
        let mut mail = std::mem::take(&mut self.mail);
        self.shared.mailboxes[self.index].empty(&mut mail);
        let limits = &self.exchange_config.limits;
        self.scheduler.sync(&facts::of_waiting(&self.conns, &self.config, limits));
        for item in mail.drain(..) {
            match item {
                Mail::Peer(peer) => self.receive_peer(*peer),
                Mail::Transfer(transfer) => self.receive_transfer(transfer),
                Mail::TakenOver(token) => self.conns.vacate(token),
                Mail::Deregister(deregistration) => self.dismiss_backend(&deregistration),
                Mail::Suspect(backend) => self.put_aside(&backend),
                Mail::Alive(backend) => self.return_aside(&backend),
                Mail::Tell(told) => self.tell_bridge(&told),
                Mail::FileOpened(client, opened) => self.file_opened(client, opened),
                Mail::FileRead(client, read) => self.file_read(client, read),
                Mail::Authorised(token, told) => self.authorised(token, &told),
                Mail::InUseElsewhere(of) => self.note_in_use(&of),
                Mail::Found(server, found) => self.server_found(&server, found),
                Mail::Reload(reload) => self.reload(*reload),
                Mail::KeysLost => _ = self.dismiss_lost(),
                Mail::Order(order) => self.carry_out(&order),
                Mail::Shunned(instances) => self.stop_waiting_for(&instances),
                Mail::Drain => self.drain(),
                Mail::Replace(replacement) => self.be_replaced(replacement),
                Mail::GoOn => self.go_on(),
                Mail::Arrive(arrival) => self.arrive(*arrival),
                Mail::ArriveAll(message) => self.arrive_all(message),
                Mail::ArriveTunnel(arrival) => self.arrive_tunnel(*arrival),
                Mail::Expect(spec, instances) => self.expect_route(&spec, &instances),
                Mail::Report(done) => _ = done.send(()),
                Mail::BeginAccepting => self.begin_accepting(),
            }
        }
        self.mail = mail;
        self.park_synced_bridges();
        self.serve_pairs();
    }

    fn ready(&mut self, key: usize) {
        match self.conns.role(key) {
            Some(Role::ReadingHead { .. }) => self.read_heads(key),
            Some(Role::AwaitingProxyHeader { .. }) => self.read_proxy_header(key),
            Some(Role::AwaitingPreamble { .. }) => self.read_preamble(key),
            Some(Role::Queued { .. }) => self.watch_queued(key),
            Some(Role::Requesting { exchange, .. } | Role::Responding { exchange, .. }) => {
                let exchange = *exchange;
                self.advance(exchange);
            }
            Some(Role::Opening { .. }) => self.watch_opening(key),
            Some(Role::Authorising { .. }) => self.watch_authorising(key),
            Some(Role::Sending { .. }) => self.go_on_sending(key),
            Some(Role::Relayed { .. }) => self.pass_relayed(key),
            Some(Role::Connecting { .. }) => self.connect_progress(key),
            Some(Role::Checking(_)) => self.read_check(key),
            Some(Role::Aside(_)) => self.watch_aside(key),
            Some(Role::Speaking(_)) => self.read_speaking(key),
            Some(Role::Resting(_)) => self.read_resting(key),
            Some(Role::Probed(_)) => self.read_probed(key),
            // Their events are handled when they are parked or used.
            Some(Role::AwaitingRoute { .. } | Role::Reserved(_) | Role::Idle(_)) | None => {}
        }
    }

    fn handshake_done(&mut self, key: usize) {
        self.handshake_won(key);
    }

    fn offloaded(&mut self, _key: usize) {
        self.stats().offloaded.add(1);
    }

    fn handshake_failed(&mut self, key: usize, error: TlsError) {
        match self.conns.role(key) {
            Some(Role::Connecting { .. }) => self.connect_not_encrypted(key, error),
            _ => self.handshake_lost(key, &error),
        }
    }

    fn timeout(&mut self, key: usize) {
        match self.conns.role(key) {
            Some(Role::ReadingHead { .. }) => self.head_timed_out(key),
            Some(Role::AwaitingProxyHeader { .. }) => self.proxy_header_timed_out(key),
            Some(Role::AwaitingPreamble { .. }) => self.preamble_timed_out(key),
            Some(Role::Queued { .. }) => self.queue_timed_out(key),
            Some(Role::Requesting { exchange, .. }) => {
                let exchange = *exchange;
                self.exchange_timed_out(exchange);
            }
            Some(Role::Opening { .. }) => self.opening_timed_out(key),
            Some(Role::Authorising { .. }) => self.authorising_timed_out(key),
            Some(Role::Sending { .. }) => self.sending_timed_out(key),
            Some(Role::Connecting { .. }) => self.connect_timed_out(key),
            Some(Role::Checking(_)) => self.check_timed_out(key),
            Some(Role::Aside(_)) => self.aside_timed_out(key),
            Some(Role::Speaking(_)) => self.speaking_timed_out(key),
            Some(Role::Resting(_)) => self.park(key),
            Some(Role::Probed(_)) => self.probe_timed_out(key),
            Some(
                Role::Responding { .. }
                | Role::AwaitingRoute { .. }
                | Role::Reserved(_)
                | Role::Relayed { .. },
            ) => {}
            // Lent.
            Some(Role::Idle(_)) | None => self.idle_bridge_timed_out(key),
        }
    }

    fn end_of_turn(&mut self) {
        self.release_responses();
        self.go_on_paced();
        if self.conns.now().millis() >= self.revoke_at {
            self.revoke();
        }
        self.accept_all();
        self.admit_held();
        self.sweep_routes();
        self.maintain_servers();
        self.watch_exchanges();
        self.probe_suspects();
        self.continue_drain();
        self.close_through_old();
        self.pass_on();
        self.collect_matches();
        self.go_on_telling();
        self.watch_waiting();
        self.submit_lines();
    }

    fn freed(&mut self, connection: Box<Connection<Role>>) {
        self.connection_freed(connection);
    }

    fn next_turn(&mut self) -> NextTurn {
        let now = self.conns.now().millis();
        let freed = std::mem::take(&mut self.freed_any);
        if self.acceptor.paused_until().is_some_and(|until| freed || now >= until) {
            self.acceptor.resume();
        }
        self.publish_stats();
        if self.is_finished() || self.has_left() {
            return NextTurn::Stop;
        }
        let has_found = !self.pairs.is_empty() || self.scheduler.has_found();
        if has_found || !self.scheduler.is_synced() || self.acceptor.has_ready() {
            return NextTurn::Now;
        }
        self.revoke_at = self.next_revocation();
        let mut until = self.next_sweep;
        let mut at_latest = |at: Option<Millis>| until = at.map_or(until, |at| at.min(until));
        at_latest((!self.awaiting_route.is_empty()).then(|| now + ROUTE_SYNC_CHECK));
        at_latest(self.acceptor.paused_until());
        at_latest(self.next_admission());
        at_latest(self.shutdown.next_check(now));
        at_latest(self.replaced.next_check(now));
        at_latest(self.next_through_old());
        at_latest(self.next_maintenance());
        at_latest(self.exchanges.next_release());
        at_latest(self.pacing.next());
        at_latest(self.watch.due(now).filter(|_| self.exchanges.len() > 0));
        at_latest(self.aside.next_probe());
        at_latest(self.tellers.next());
        at_latest(Some(self.revoke_at));
        at_latest((self.scheduler.counters().waiting > 0).then(|| self.looks.due()));
        NextTurn::Wait(until)
    }
}

/// Whether the access log has times for which exchanges must be followed.
fn follows(config: &Config) -> bool {
    config.access_log.as_ref().is_some_and(AccessLog::needs_progress)
}

/// The exchanges' configuration under `settings`.
fn exchange_config(settings: &Settings) -> ExchangeConfig {
    ExchangeConfig {
        limits: Limits {
            head: settings.max_head,
            fields: settings.max_fields,
            target: settings.max_target,
            behind_proxy: false,
        },
        replay_limit: settings.retry_limit,
        response_buffer: settings.response_buffer,
        hold_response: settings.hold_response,
        splice_threshold: settings.splice_threshold as u64,
        budget: BUDGET,
        forwarded: settings.forwarded,
        forwarded_style: settings.forwarded_style,
        host: None,
        half_closed_silence: match settings.half_closed_clients {
            HalfClosedClients::Probe => Some(HALF_CLOSED_SILENCE),
            HalfClosedClients::Serve => None,
        },
        timeouts: Some(Timeouts {
            ack: settings.bridge_ack_timeout,
            response: settings.response_timeout,
            body: settings.body_timeout,
            stream: settings.stream_timeout,
            tunnel: settings.tunnel_timeout,
        }),
    }
}

fn linger_timeouts(settings: &Settings) -> LingerTimeouts {
    LingerTimeouts { flush: settings.body_timeout, fin: LINGER }
}

fn bounds(settings: &Settings) -> Bounds {
    Bounds {
        per_route: settings.queue_per_route,
        unserved: settings.queue_unserved,
        bridges_per_host: settings.bridges_per_host,
        unserved_waits: settings.unknown_host == config::UnknownHost::Wait,
    }
}
