//! What the admin listener shows: everything at one moment, and as JSON.

use std::collections::HashMap;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::config::{Address, Serves, Settings};
use crate::http::Predicates;
use crate::routing::{Counted, Load, RouteSpec};
use crate::time::Micros;

use super::super::backends::{Backend, Seen};
use super::super::operator::{Drain, Selector};
use super::super::role::Route;
use super::super::state::{Config, Shared};
use super::super::stats::{Counter, Stats, sum};

/// Everything at one moment.
pub(super) struct View {
    pub totals: Totals,
    pub hosts: Vec<HostRow>,
    pub backends: Vec<BackendRow>,
    /// What the operator has drained.
    pub drained: Vec<Drain>,
}

/// Of the whole process.
pub(super) struct Totals {
    pub at: f64,
    pub uptime: f64,
    pub workers: usize,
    pub connections: usize,
    pub draining: bool,
    pub parked: u64,
    /// Bridges parked for which their backends have no place.
    pub withdrawn: u64,
    pub busy: u64,
    pub waiting: u64,
    /// How long the request that has waited longest does, in milliseconds.
    pub oldest: u64,
    pub counted: Counted,
    /// Where bridges are taken, as in the settings; the first such address over TCP.
    pub bridges_at: Option<String>,
}

/// One route: a set of host patterns with a prefix. Numbers may be shown of a moment later than
/// others: they are read one after the other.
#[derive(Clone, PartialEq)]
pub(in crate::proxy) struct HostRow {
    pub id: u64,
    pub hosts: Vec<String>,
    pub prefix: String,
    /// What else its bridges demand of a request, as the fields of a BRIDGE.
    pub predicates: Vec<String>,
    pub parked: u32,
    /// Parked too, but their backends have no place for a request.
    pub withdrawn: u32,
    pub busy: u32,
    pub waiting: u32,
    pub oldest: u64,
    /// The numbers of what drains it.
    pub drained_by: Vec<u64>,
    pub counted: Counted,
}

/// One backend.
#[derive(Clone, PartialEq)]
pub(super) struct BackendRow {
    pub id: String,
    pub address: String,
    pub hosts: Vec<String>,
    /// The name of its first key.
    pub key: Option<String>,
    /// Whose certificate it has shown, and when that expires, in seconds since 1970.
    pub certificate: Option<(String, u64)>,
    /// In seconds since 1970.
    pub since: u64,
    pub parked: u32,
    /// Parked too, but it has no place for a request.
    pub withdrawn: u32,
    pub busy: u32,
    /// Bridges whose host keys were sent as they are.
    pub bearer: usize,
    pub served: u64,
    /// What program it says it is.
    pub agent: Option<String>,
    /// Its name that stays the same when it comes again.
    pub instance: Option<String>,
    /// In seconds since 1970, and in a few words.
    pub last_error: Option<(u64, String)>,
    /// The numbers of what drains it.
    pub drained_by: Vec<u64>,
}

fn row(backend: &Backend, withdrawn: u32, drained: &[Drain]) -> BackendRow {
    let Seen { since, address, hosts, key, certificate, agent, instance, last_error } =
        backend.seen();
    let unix =
        |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let since = unix(since);
    let busy = backend.busy();
    let id = backend.public_id().to_owned();
    let drained_by = numbers(drained, |selector| match selector {
        Selector::Backend(name) => *name == id,
        Selector::Address(of) => Some(*of) == address,
        Selector::Key(name) => key.as_ref() == Some(name),
        Selector::Route(_) | Selector::Host(_) => false,
    });
    BackendRow {
        id,
        address: address.map_or_else(String::new, |address| address.to_string()),
        hosts: hosts.iter().map(ToString::to_string).collect(),
        key,
        certificate,
        since,
        parked: u32::try_from(backend.bridges())
            .unwrap_or(u32::MAX)
            .saturating_sub(busy.saturating_add(withdrawn)),
        withdrawn,
        busy,
        bearer: backend.bearers(),
        served: backend.served(),
        agent,
        instance: instance.map(|instance| instance.name.to_string()),
        last_error: last_error.map(|(at, text)| (unix(at), text)),
        drained_by,
    }
}

fn predicates(spec: &RouteSpec) -> Vec<String> {
    let fields = spec.predicates().map(Predicates::fields).unwrap_or_default();
    fields.into_iter().map(|(name, value)| format!("{name}: {value}")).collect()
}

/// The numbers of the drains whose selector is one of those.
fn numbers(drained: &[Drain], is_one: impl Fn(&Selector) -> bool) -> Vec<u64> {
    drained.iter().filter(|drain| is_one(&drain.selector)).map(|drain| drain.id).collect()
}

impl View {
    pub fn take(shared: &Shared, config: &Config) -> View {
        let (now, drained) = (shared.now(), shared.drained.all());
        let (mut hosts, mut of_backends) = (Vec::new(), HashMap::<u64, u32>::new());
        for route in shared.directory.routes() {
            let row = HostRow::of(&route, config, &drained, now);
            if row.withdrawn > 0 {
                for (backend, count) in route.withdrawn_by_backend() {
                    *of_backends.entry(backend).or_default() += count;
                }
            }
            hosts.push(row);
        }
        hosts.sort_by(|one, other| {
            let other = (&other.hosts, &other.prefix, &other.predicates);
            (&one.hosts, &one.prefix, &one.predicates).cmp(&other)
        });
        let all = shared.backends.all();
        let withdrawn = |of: &Backend| of_backends.get(&of.id.number()).copied().unwrap_or(0);
        let rows = all.iter().map(|backend| row(backend, withdrawn(backend), &drained));
        let mut backends: Vec<_> = rows.collect();
        backends.sort_by(|one, other| (&one.hosts, &one.id).cmp(&(&other.hosts, &other.id)));
        View { totals: Totals::take(shared, config, &hosts), hosts, backends, drained }
    }

    pub fn to_json(&self, actions: bool) -> Value {
        json!({
            "totals": self.totals.to_json(actions),
            "hosts": self.hosts.iter().map(HostRow::to_json).collect::<Vec<_>>(),
            "backends": self.backends.iter().map(BackendRow::to_json).collect::<Vec<_>>(),
            "drained": self.drained_json(),
        })
    }

    /// What is drained, each with the number that undrains it.
    pub fn drained_json(&self) -> Value {
        let drains = self.drained.iter().map(|drain| {
            let (kind, name) = drain.selector.shown();
            json!({ "id": drain.id, "kind": kind, "name": name })
        });
        drains.collect()
    }
}

fn millis(now: Micros, since: Micros) -> u64 {
    u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX)
}

impl Totals {
    fn take(shared: &Shared, config: &Config, hosts: &[HostRow]) -> Totals {
        let all = &shared.stats;
        let sum = |of: fn(&Stats) -> &Counter| sum(all, of);
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Totals {
            at: at.as_secs_f64(),
            uptime: shared.began.elapsed().unwrap_or_default().as_secs_f64(),
            workers: all.len(),
            connections: shared.open_connections(),
            draining: shared.is_stopping(),
            parked: hosts.iter().map(|host| u64::from(host.parked)).sum(),
            withdrawn: hosts.iter().map(|host| u64::from(host.withdrawn)).sum(),
            busy: hosts.iter().map(|host| u64::from(host.busy)).sum(),
            waiting: sum(|stats| &stats.waiting),
            oldest: hosts.iter().map(|host| host.oldest).max().unwrap_or(0),
            counted: Stats::counted(all),
            bridges_at: bridges_at(&config.settings),
        }
    }

    pub fn to_json(&self, actions: bool) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "at": self.at,
            "uptime": self.uptime,
            "workers": self.workers,
            "connections": self.connections,
            "draining": self.draining,
            "actions": actions,
            "parked": self.parked,
            "withdrawn": self.withdrawn,
            "busy": self.busy,
            "waiting": self.waiting,
            "oldest": self.oldest,
            "answers": self.counted.answers,
            "duration": self.counted.durations,
            "bridges_at": self.bridges_at,
        })
    }
}

fn bridges_at(settings: &Settings) -> Option<String> {
    let mut takes = settings.listen.iter().filter(|listen| {
        matches!(listen.serves, Serves::Both | Serves::Bridges)
            && !matches!(listen.address, Address::Unix(_) | Address::Passed(_))
    });
    takes.next().map(|listen| listen.address.to_string())
}

impl HostRow {
    /// The row of a route; these are the drains that may concern it.
    pub fn of(route: &Route, config: &Config, drained: &[Drain], now: Micros) -> HostRow {
        let Load { members, parked, withdrawn, waiting, oldest, .. } = route.load();
        // A server that is up is a member of its site's route, and no bridge.
        let members = members.saturating_sub(config.pools.up_on(route));
        HostRow {
            id: route.id(),
            hosts: route.spec().patterns().iter().map(ToString::to_string).collect(),
            prefix: route.spec().shown_paths(),
            predicates: predicates(route.spec()),
            parked,
            withdrawn,
            busy: members.saturating_sub(parked + withdrawn),
            waiting,
            oldest: oldest.map_or(0, |oldest| millis(now, oldest)),
            drained_by: numbers(drained, |selector| selector.has_route(route)),
            counted: route.traffic().counted(),
        }
    }

    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "hosts": self.hosts,
            "prefix": self.prefix,
            "predicates": self.predicates,
            "parked": self.parked,
            "withdrawn": self.withdrawn,
            "busy": self.busy,
            "waiting": self.waiting,
            "oldest": self.oldest,
            "drained": !self.drained_by.is_empty(),
            "drained_by": self.drained_by,
            "answers": self.counted.answers,
            "duration": self.counted.durations,
        })
    }
}

impl BackendRow {
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "address": self.address,
            "hosts": self.hosts,
            "key": self.key,
            "certificate": self.certificate.as_ref().map(|(holder, expires)| {
                json!({ "holder": holder, "expires": expires })
            }),
            "since": self.since,
            "parked": self.parked,
            "withdrawn": self.withdrawn,
            "busy": self.busy,
            "bearer": self.bearer,
            "served": self.served,
            "agent": self.agent,
            "instance": self.instance,
            "last_error": self.last_error.as_ref().map(|(at, text)| json!({ "at": at, "text": text })),
            "drained": !self.drained_by.is_empty(),
            "drained_by": self.drained_by,
        })
    }
}
