//! What to do with the head at the front of a connection's input. Deciding changes no connection;
//! its only effect is that a request may enter the scheduler.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::bridge::{Refusal, Registration, ptth, request as bridge_request};
use crate::config::{Serves, Settings, Site, UnknownHost};
use crate::exchange::{Beginning, ExchangeConfig, RequestMeta};
use crate::files::{Asked, response};
use crate::http::ParseError;
use crate::http::conditions::values;
use crate::http::request::{self, Request};
use crate::http::{Forwarded, Predicates, RequestStart, Stamp, Stamps};
use crate::net::event_loop::Connection;
use crate::net::tls::Session;
use crate::routing::{Enqueued, Owner, RouteQuery, Scheduler};
use crate::time::Micros;

use super::access_log::{AccessLog, Record};
use super::challenges::BRIDGE_AWAITED;
use super::facts;
use super::failures;
use super::file_lookup::{self, Found as FoundFile, FromFile, Looked, Lookups, ToOpen};
use super::key_limits::{Accounts, KeyLimits, TooManyRequests};
use super::managers::{Managers, Wish};
use super::reason::Reason;
use super::request_ids::{CurrentId, RequestIds};
use super::role::{Client, ParkedBridge, QueuedRequest, Role, Ticket, Tries};
use super::sending::BUSY;
use super::sites::Target;
use super::state::Config;
use super::sticky::{self, AskedCookie};
use super::tenant;
use super::through_old::ThroughOld;
use super::waiting_page;

/// The shortest wait: zero would mean none.
const AT_ONCE: Duration = Duration::from_millis(1);

/// The answer to a request that has waited for as long as it may.
pub(super) const NO_BACKEND: &str = "no backend was free in time";

/// The answers to a request that is one too many for the keys of those who serve it.
const TOO_MANY: &str = "too many requests a second for this name";
const KEY_FULL: &str = "too many requests wait for the backends of this name";

/// The scheme of encrypted connections, and its port (RFC 9110, section 4.2.2).
const HTTPS: &str = "https";
const HTTPS_PORT: u16 = 443;

/// What to do with a head.
pub(super) enum Dispatched {
    /// The head is not complete.
    Partial,
    Bridge(Registration),
    RejectBridge {
        reason: Reason,
        status: u16,
        text: Cow<'static, str>,
    },
    Reject {
        reason: Reason,
        status: u16,
        text: &'static str,
        head_only: bool,
    },
    Redirect {
        location: String,
    },
    /// A request for the info host, or the health URI.
    Info {
        head_only: bool,
    },
    Health {
        head_only: bool,
    },
    /// A request for the tenant host.
    Tenant(tenant::Asked),
    /// An OPTIONS, or if `traced` a TRACE, that has been forwarded often enough.
    LastHop {
        traced: bool,
    },
    /// It is answered from a file; the head of the response is in the workspace.
    File(FromFile),
    /// A thread must open the file that it may mean; since when it is here.
    Open(ToOpen, Micros),
    /// The request waits, at most this long.
    Queued(QueuedRequest, Duration),
    Matched(Matched),
}

pub(super) struct Matched {
    pub(super) bridge: ParkedBridge,
    pub(super) owner: Owner,
    pub(super) ticket: Ticket,
    pub(super) meta: RequestMeta,
    /// The cookie of its site, if that is sticky by one.
    pub(super) cookie: Option<Box<AskedCookie>>,
    /// The request in the bridge's form, unless the bridge must acknowledge first.
    pub(super) prepared: Option<Beginning>,
}

/// What is found of a new request that its client keeps until it has been answered.
#[derive(Default)]
pub(super) struct Found {
    /// At first the record of the last request, whose memory is used again.
    pub(super) record: Option<Box<Record>>,
    id: Option<Box<CurrentId>>,
}

impl Found {
    pub(super) fn any(&self) -> bool {
        self.record.is_some() || self.id.is_some()
    }

    /// Gives it to the client. A request that `is_ours` has no line in the access log.
    pub(super) fn give(self, client: &mut Client, log: Option<&AccessLog>, is_ours: bool) {
        if let Some(mut record) = self.record {
            record.is_open &= !is_ours;
            if let (Some(log), Some(id)) = (log, &self.id) {
                log.set_id(&mut record, Some(id));
            }
            client.record = Some(record);
        }
        if self.id.is_some() {
            client.id = self.id;
        }
    }
}

/// What a decision depends on.
pub(super) struct Dispatcher<'w> {
    pub(super) config: &'w Config,
    pub(super) exchange_config: &'w ExchangeConfig,
    pub(super) scheduler: &'w mut Scheduler<ParkedBridge>,
    pub(super) managers: &'w Arc<Managers>,
    pub(super) key_limits: &'w KeyLimits,
    /// Room for the host in lower case.
    pub(super) name: &'w mut String,
    pub(super) ids: &'w mut RequestIds,
    /// Room for the prepared request, or the head of a response.
    pub(super) out: &'w mut Vec<u8>,
    pub(super) files: &'w mut Lookups,
    /// What a thread has found, if the request has waited for that.
    pub(super) looked: Option<Looked>,
    pub(super) is_serving: bool,
    pub(super) now: Micros,
}

impl Dispatcher<'_> {
    /// Decides what to do with the head at the front of `input`; of a new request it makes the
    /// access log's record, in the one of the last request if there is one, and the id.
    pub(super) fn decide(
        self,
        client: &Client,
        retry: Option<Ticket>,
        connection: &Connection<Role>,
        found: &mut Found,
    ) -> Dispatched {
        let input = connection.conn.input.bytes();
        if client.requests == 0 && retry.is_none() {
            match bridge_request::is_bridge(input) {
                Some(true) => return self.decide_bridge(client, input),
                Some(false) if client.must_prove() && !self.config.settings.ptth => {
                    return reject_bridge(Reason::BadBridge, 400, BRIDGE_AWAITED);
                }
                Some(false) => {}
                None => return Dispatched::Partial,
            }
        }
        let mut storage = request::storage();
        let parsed = request::parse(input, &mut storage, &self.exchange_config.limits);
        let (request, beginning) = match parsed {
            Ok(None) => return Dispatched::Partial,
            Ok(Some(request))
                if self.config.settings.ptth
                    && client.serves == Serves::Bridges
                    && retry.is_none()
                    && ptth::is_one(&request) =>
            {
                return decide_ptth(&request, input);
            }
            _ if client.must_prove() => {
                return reject_bridge(Reason::BadBridge, 400, BRIDGE_AWAITED);
            }
            Ok(Some(_)) if client.serves == Serves::Bridges => {
                return reject(Reason::BridgesOnly, 404, "this address accepts bridges only");
            }
            // A request whose body is malformed so far must neither wait nor reach a backend.
            Ok(Some(request)) => match Beginning::of(&request, input) {
                Ok(beginning) => (request, beginning),
                Err(bad) => return reject_request(&bad),
            },
            Err(bad) => return reject_request(&bad),
        };
        if let Some(log) = &self.config.access_log
            // One that has waited in the program which this one replaces has no record here.
            && (retry.is_none() || found.record.is_none())
        {
            let received = retry.map_or(self.received(), |ticket| ticket.pos.since());
            log.begin(&mut found.record, &request, client.head_begun(), received);
        }
        // A backend that dials the wrong address: its key must not go on to another.
        if self.config.settings.ptth && retry.is_none() && ptth::registers(&request) {
            let text = "PTTH requests are taken where only bridges come in";
            return reject(Reason::ClientsOnly, 403, text);
        }
        // Its id, if it has one, stays the same when it is sent again.
        let arrival = Arrival { connection, client, retry, id: client.id.as_deref(), found };
        self.decide_request(arrival, (&request, beginning))
    }

    fn decide_bridge(&self, client: &Client, input: &[u8]) -> Dispatched {
        match bridge_request::parse(input, &self.exchange_config.limits) {
            Ok(None) => Dispatched::Partial,
            Ok(Some(_)) if client.serves == Serves::Clients => {
                reject_bridge(Reason::ClientsOnly, 405, "this address takes no bridges")
            }
            Ok(Some(registration)) if registration.len < input.len() => {
                reject_bridge(Reason::BadBridge, 400, "nothing may follow a BRIDGE request")
            }
            Ok(Some(registration)) => Dispatched::Bridge(registration),
            Err(refusal) => refused_bridge(refusal),
        }
    }

    /// When the head was whole, of a request that is no retry.
    fn received(&self) -> Micros {
        self.looked.as_ref().map_or(self.now, |looked| looked.received)
    }

    fn decide_request(
        self,
        arrival: Arrival<'_>,
        (request, beginning): (&Request<'_, '_>, Beginning),
    ) -> Dispatched {
        if request.max_forwards == Some(0) {
            return Dispatched::LastHop { traced: request.method == "TRACE" };
        }
        let settings = &self.config.settings;
        let (connection, retry) = (arrival.connection, arrival.retry);
        let mut meta = RequestMeta::of(request, connection.peer, self.exchange_config);
        let head_only = meta.to_head;
        let (received, now) = (self.received(), self.now);
        let host = request::lower_host(request.host, self.name);
        if settings.info_host.as_deref() == Some(host) {
            return Dispatched::Info { head_only };
        }
        if settings.health_uri.as_deref() == Some(request.path) {
            return Dispatched::Health { head_only };
        }
        if let Some(port) = arrival.client.redirect_https {
            return redirect(request, host, port);
        }
        if arrival.client.is_https {
            meta.https = true;
            let through_old = arrival.client.through_old.as_deref();
            let shown_for = match connection.conn.tls() {
                Some(session) => shown_for(session),
                None => through_old.and_then(ThroughOld::shown_for),
            };
            // It may have been let in for the one name and not for the other (RFC 9110, section
            // 15.5.20).
            if shown_for.is_some_and(|name| name != host) {
                let (reason, status) = (Reason::Misdirected, 421);
                let text = "the certificate was shown for another name";
                return Dispatched::Reject { reason, status, text, head_only };
            }
        }
        if settings.tenant_host.as_deref() == Some(host) {
            return Dispatched::Tenant(tenant::asked(request, connection, self.config));
        }
        let facts = facts::of(request, connection.peer, settings);
        let meets = |predicates: &Predicates| predicates.are_met_by(&facts);
        let sites = &self.config.sites;
        let Target { query, site } =
            sites.resolve(host, request.path, Some(&meets), self.scheduler);
        if let Some(site) = site {
            super::sites::apply_policy(site, &mut meta, self.exchange_config);
            if let (Some(log), Some(record)) = (&self.config.access_log, &mut arrival.found.record)
            {
                log.set_site(record, site.name());
            }
        }
        if !settings.trusted_proxies.is_empty() && !settings.trusts(connection) {
            (meta.forwarded, meta.stamps) = (Forwarded::Replace, Stamps::REMOVE);
            if let (Some(log), Some(record)) = (&self.config.access_log, &mut arrival.found.record)
            {
                // The backend does not get the id that came.
                log.set_id(record, None);
            }
        }
        // While draining, a client's connection ends with its response; and so does one whose keys are
        // nearly used up.
        meta.persistent &= self.is_serving && !connection.conn.is_worn();
        // So does one that comes through an old program: the next comes here.
        meta.persistent &= arrival.client.through_old.is_none();
        if let Some(site) = site.filter(|site| site.files.any()) {
            let (config, lookups, looked) = (self.config, self.files, self.looked);
            let out = &mut *self.out;
            let search = FileSearch { config, lookups, looked, out, received, now };
            if let Some(answer) = search.answer(site, request, &mut meta, retry.is_some()) {
                return answer;
            }
        }
        if settings.request_start.is_some() || settings.request_id {
            mark(&mut meta, request, arrival, settings, self.ids, self.now);
        }
        let (request_token, now) = (connection.token().word(), self.now);
        let policy = super::sites::wait_policy(site, settings);
        let tries = retry.map_or(Tries::default(), |ticket| ticket.tries);
        let waited = retry.map_or(Duration::ZERO, |ticket| now.since(ticket.pos.since()));
        // Until an application has been given it, all the time it has spent was a wait for one.
        let is_late = retry.is_some() && tries.delivered == 0 && waited >= policy.timeout;
        let no_backend = |scheduler: &Scheduler<ParkedBridge>, query: &RouteQuery<'_>| {
            let reason = match scheduler.has_bridge(query) {
                true => Reason::BackendsBusy,
                false => Reason::NoBackend,
            };
            let (status, text) = (policy.timeout_status, NO_BACKEND);
            failures::note_refusal(settings, scheduler, query, reason, status);
            Dispatched::Reject { reason, status, text, head_only }
        };
        let sticky = site.filter(|site| site.sticky.is_some());
        let mut shown = sticky::Shown::default();
        let sticky_wait = sticky.map_or(Duration::ZERO, sticky::wait).min(policy.timeout);
        if let Some(site) = sticky {
            shown = sticky::shown(site, request, &meta, &self.config.sticky_keys);
        }
        let wanted = shown.wanted(waited, sticky_wait).filter(|_| tries.may_stay());
        // One that has waited for its own backend alone has not been offered another yet.
        if is_late && wanted.is_none() {
            return no_backend(self.scheduler, &query);
        }
        let (query, cookie) = (query.with_wanted(wanted), shown.cookie);
        let limited = match self.key_limits.is_used() {
            true => {
                let new = retry.is_none().then_some(now);
                limited_by(self.key_limits, self.scheduler, &query, new)
            }
            false => Ok(None),
        };
        let accounts = match limited {
            Ok(accounts) => accounts,
            Err(TooManyRequests) => {
                let (reason, status, text) = (Reason::KeyRate, 429, TOO_MANY);
                failures::note_refusal(settings, self.scheduler, &query, reason, status);
                return Dispatched::Reject { reason, status, text, head_only };
            }
        };
        let enqueued = match retry {
            None => self.scheduler.enqueue(request_token, &query, now),
            Some(Ticket { pos, .. }) => {
                // Its own backend, too, if that may be what it kills.
                let own = shown.instance.filter(|_| tries.delivered > 0);
                let failed = |parked: &ParkedBridge| {
                    let bridge = parked.role().and_then(Role::bridge);
                    bridge.is_some_and(|bridge| {
                        let instance = bridge.membership().instance;
                        Some(bridge.backend.id) == tries.last || own.is_some() && instance == own
                    })
                };
                self.scheduler.requeue(request_token, pos, &query, failed, now)
            }
        };
        let (reason, text) = match enqueued {
            Enqueued::Matched { bridge, owner, pos } => {
                let idle = bridge.role().and_then(Role::bridge);
                let must_acknowledge =
                    idle.is_some_and(|bridge| bridge.must_acknowledge(&meta, tries, now.millis()));
                let prepared = (!must_acknowledge).then_some(beginning);
                if let Some(beginning) = &prepared {
                    let gives_back = idle.is_some_and(|bridge| bridge.speaker().is_some());
                    let input = connection.conn.input.bytes();
                    let hides = cookie.as_ref().map(|cookie| &*cookie.of.name);
                    beginning.prepare(request, input, &meta, gives_back, hides, self.out);
                }
                let ticket = Ticket { pos, tries };
                let matched = Matched { bridge, owner, ticket, meta, cookie, prepared };
                return Dispatched::Matched(matched);
            }
            Enqueued::Queued(waiter) => {
                if is_late && self.scheduler.recall(waiter).is_some() {
                    return no_backend(self.scheduler, &query);
                }
                let stays = self.scheduler.stays_for(waiter).is_some();
                let left = |limit: Duration| limit.saturating_sub(waited).max(AT_ONCE);
                let timeout_status = policy.timeout_status;
                let limit = if stays { sticky_wait } else { policy.timeout };
                let waits = match accounts.as_ref().map(|of| (of.wait(), of)) {
                    None => None,
                    Some((Some(waits), _)) => Some(waits),
                    // A retry has been let in before, and one for which a bridge is on its way stays.
                    Some((None, of))
                        if retry.is_some() || self.scheduler.recall(waiter).is_none() =>
                    {
                        Some(of.wait_again())
                    }
                    Some((None, _)) => {
                        let (reason, status, text) = (Reason::KeyQueueFull, 503, KEY_FULL);
                        failures::note_refusal(settings, self.scheduler, &query, reason, status);
                        return Dispatched::Reject { reason, status, text, head_only };
                    }
                };
                let (gets_page, wanted) = (false, None);
                let mut queued = QueuedRequest {
                    meta,
                    waiter,
                    tries,
                    cookie,
                    timeout_status,
                    gets_page,
                    wanted,
                    _waits: waits,
                };
                let Some(site) = site else { return Dispatched::Queued(queued, left(limit)) };
                let manager = site.on_demand.manager.as_ref().filter(|_| self.is_serving);
                if let Some(manager) = manager {
                    let is_served = self.scheduler.has_bridge(&query);
                    // While it waits for its own backend alone, another may be free.
                    if !(stays && is_served) {
                        let (facts, limit) = (&facts, policy.timeout);
                        let wish = Wish { site, manager, host, facts, is_served, limit };
                        queued.wanted = Some(self.managers.want(&wish));
                    }
                }
                if stays {
                    return Dispatched::Queued(queued, left(limit));
                }
                let page_after = site.on_demand.page_after.filter(|after| *after < limit);
                let page_after = page_after.filter(|_| waiting_page::is_browser(request));
                queued.gets_page = page_after.is_some();
                return Dispatched::Queued(queued, left(page_after.unwrap_or(limit)));
            }
            Enqueued::RouteFull => {
                failures::note_refusal(settings, self.scheduler, &query, Reason::QueueFull, 503);
                (Reason::QueueFull, "too many requests wait for this name")
            }
            Enqueued::UnservedFull => {
                let text = "too many requests wait for names that nobody serves";
                (Reason::UnservedQueueFull, text)
            }
            Enqueued::Unknown => {
                let not_found = settings.unknown_host == UnknownHost::NotFound;
                let status = if not_found { 404 } else { 503 };
                let (reason, text) = (Reason::UnknownHost, "no backend serves this name");
                return Dispatched::Reject { reason, status, text, head_only };
            }
        };
        Dispatched::Reject { reason, status: 503, text, head_only }
    }
}

/// The accounts that a request counts for, if it is limited. One that is `new` is counted. Other
/// requests pay for a look at their routes, without a lock, while anything is limited.
#[inline(never)]
fn limited_by(
    limits: &KeyLimits,
    scheduler: &Scheduler<ParkedBridge>,
    query: &RouteQuery<'_>,
    new: Option<Micros>,
) -> Result<Option<Arc<Accounts>>, TooManyRequests> {
    if !scheduler.is_limited(query) {
        return Ok(None);
    }
    let Some(route) = scheduler.served_by(query) else { return Ok(None) };
    match new {
        Some(now) => limits.admit(route.id(), now),
        None => Ok(limits.of_route(route.id())),
    }
}

/// A PTTH request is a BRIDGE in other words. It is taken only where no clients come: what is in front
/// of us may pass on what a client wants to upgrade to, and we would take it for a backend on this machine.
#[inline(never)]
fn decide_ptth(request: &Request<'_, '_>, input: &[u8]) -> Dispatched {
    match ptth::read(request) {
        Ok(_) if request.len < input.len() => {
            reject_bridge(Reason::BadBridge, 400, "nothing may follow a PTTH request")
        }
        Ok(registration) => Dispatched::Bridge(registration),
        Err(refusal) => refused_bridge(refusal),
    }
}

fn refused_bridge(refusal: Refusal) -> Dispatched {
    Dispatched::RejectBridge {
        reason: Reason::of_bridge(refusal.status),
        status: refusal.status,
        text: refusal.text.into(),
    }
}

/// What a search for a file needs.
struct FileSearch<'a> {
    config: &'a Config,
    lookups: &'a mut Lookups,
    looked: Option<Looked>,
    out: &'a mut Vec<u8>,
    /// When the request's head was whole.
    received: Micros,
    now: Micros,
}

impl FileSearch<'_> {
    /// The answer from a file of `site`, if there is one, unless the request `is_retry`. If not, the
    /// backend may name one.
    #[inline(never)]
    fn answer(
        self,
        site: &Site,
        request: &Request<'_, '_>,
        meta: &mut RequestMeta,
        is_retry: bool,
    ) -> Option<Dispatched> {
        let roots = self.config.files.of(site)?;
        meta.sends_files = roots.sendfile.map(|root| root.id);
        let is_for_files = roots.docroot.is_some() || roots.pages.is_some();
        if is_retry || !is_for_files || !file_lookup::may_be_file(request, meta) {
            return None;
        }
        let (received, now) = (self.received, self.now.millis());
        let file = match self.lookups.search((site, roots), request, self.looked, now) {
            FoundFile::Nothing => return None,
            FoundFile::Later(to_open) => return Some(Dispatched::Open(to_open, received)),
            FoundFile::Shortage => {
                let (reason, status, text) = (Reason::FilesBusy, 503, BUSY);
                let head_only = meta.to_head;
                return Some(Dispatched::Reject { reason, status, text, head_only });
            }
            FoundFile::File(file) => file,
        };
        let asked = Asked {
            fields: request.fields,
            is_get: !meta.to_head,
            is_head: meta.to_head,
            version: meta.version,
            close: !meta.persistent,
            cache_control: site.files.cache_control_of(self.lookups.name()),
            kept: None,
        };
        let best = file.best(values(request.fields, "Accept-Encoding"));
        self.out.clear();
        let planned = response::plan(best, &asked, self.out);
        let (request, is_head, close) = (request.len, asked.is_head, asked.close);
        Some(Dispatched::File(FromFile { planned, request, is_head, close, received }))
    }
}

/// What is known of a request when it has come.
struct Arrival<'a> {
    /// The client's.
    connection: &'a Connection<Role>,
    retry: Option<Ticket>,
    /// Its id, if it is sent again.
    id: Option<&'a CurrentId>,
    found: &'a mut Found,
    client: &'a Client,
}

impl Settings {
    /// Whether what has come over this connection was written by one of `trusted-proxies`: by the
    /// peer, or, if that only passes TCP on, by the client that it has announced.
    #[inline(never)]
    pub(super) fn trusts(&self, connection: &Connection<Role>) -> bool {
        let has = |peer| self.trusted_proxies.iter().any(|network| network.has(peer));
        has(connection.socket_peer()) || has(connection.peer)
    }
}

/// Marks a request with the time and an id. Those of a proxy in front are kept if they may be.
#[inline(never)]
fn mark(
    meta: &mut RequestMeta,
    request: &Request<'_, '_>,
    arrival: Arrival<'_>,
    settings: &Settings,
    ids: &mut RequestIds,
    now: Micros,
) {
    let keeps = meta.forwarded != Forwarded::Replace;
    if let Some(unit) = settings.request_start {
        meta.stamps.start = if keeps && request.has_start() {
            Stamp::Pass
        } else {
            // The time of day when the head was complete.
            let since = arrival.retry.map_or(now, |ticket| ticket.pos.since());
            let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let at = time.unwrap_or_default().saturating_sub(now.since(since));
            Stamp::Set(RequestStart::new(at, unit))
        };
    }
    if settings.request_id {
        let made = |id: &CurrentId| match id {
            CurrentId::Made(id) => Stamp::Set(*id),
            CurrentId::Kept(_) => Stamp::Pass,
        };
        meta.stamps.id = match arrival.id {
            Some(id) => made(id),
            None => {
                let kept = request.id().filter(|_| keeps);
                let id = kept.map_or_else(
                    || CurrentId::Made(ids.make()),
                    |kept| CurrentId::Kept(kept.into()),
                );
                made(arrival.found.id.insert(Box::new(id)))
            }
        };
    }
}

/// The name for which a client has shown a certificate, if it has.
fn shown_for(session: &Session) -> Option<&str> {
    let has_shown = session.agreed().peer_certificates().is_some();
    session.identity().server_name.as_deref().filter(|_| has_shown)
}

/// The same place by https (RFC 9110, section 15.4.9).
fn redirect(request: &Request<'_, '_>, host: &str, port: u16) -> Dispatched {
    if host.is_empty() {
        return reject(Reason::BadRequest, 400, "no host to be redirected to");
    }
    let port = if port == HTTPS_PORT { String::new() } else { format!(":{port}") };
    let target = request.origin_form().concat();
    // OPTIONS of the server itself (RFC 9110, section 9.3.7).
    let target = if target == "*" { "" } else { &target };
    Dispatched::Redirect { location: format!("{HTTPS}://{host}{port}{target}") }
}

fn reject(reason: Reason, status: u16, text: &'static str) -> Dispatched {
    Dispatched::Reject { reason, status, text, head_only: false }
}

fn reject_request(bad: &ParseError) -> Dispatched {
    reject(Reason::of_request(bad.status), bad.status, bad.reason)
}

fn reject_bridge(reason: Reason, status: u16, text: &'static str) -> Dispatched {
    Dispatched::RejectBridge { reason, status, text: text.into() }
}
