//! What the admin listener shows: everything at one moment, and as JSON.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::routing::{Counted, Load};
use crate::time::Micros;

use super::super::backends::{Backend, Seen};
use super::super::state::{Config, Shared};
use super::super::stats::{Counter, Stats, sum};

/// Everything at one moment.
pub(super) struct View {
    pub totals: Totals,
    pub hosts: Vec<HostRow>,
    pub backends: Vec<BackendRow>,
}

/// Of the whole process.
pub(super) struct Totals {
    pub at: f64,
    pub uptime: f64,
    pub workers: usize,
    pub connections: usize,
    pub draining: bool,
    pub parked: u64,
    pub busy: u64,
    pub waiting: u64,
    /// How long the request that has waited longest does, in milliseconds.
    pub oldest: u64,
    pub counted: Counted,
}

/// One route: a set of host patterns with a prefix. Numbers may be shown of a moment later than
/// others: they are read one after the other.
#[derive(Clone, PartialEq)]
pub(super) struct HostRow {
    pub id: u64,
    pub hosts: Vec<String>,
    pub prefix: String,
    pub parked: u32,
    pub busy: u32,
    pub waiting: u32,
    pub oldest: u64,
    pub drained: bool,
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
    /// In seconds since 1970.
    pub since: u64,
    pub parked: u32,
    pub busy: u32,
    pub served: u64,
}

fn row(backend: &Backend) -> BackendRow {
    let Seen { since, address, hosts, key } = backend.seen();
    let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let busy = backend.busy();
    BackendRow {
        id: backend.public_id(),
        address: address.map_or_else(String::new, |address| address.to_string()),
        hosts: hosts.iter().map(ToString::to_string).collect(),
        key,
        since,
        parked: u32::try_from(backend.bridges()).unwrap_or(u32::MAX).saturating_sub(busy),
        busy,
        served: backend.served(),
    }
}

impl View {
    pub fn take(shared: &Shared, config: &Config) -> View {
        let now = shared.now();
        let mut hosts = Vec::new();
        for route in shared.directory.routes() {
            let Load { members, parked, waiting, oldest, .. } = route.load();
            // A server that is up is a member of its site's route, and no bridge.
            let members = members.saturating_sub(config.pools.up_on(&route));
            hosts.push(HostRow {
                id: route.id(),
                hosts: route.spec().patterns().iter().map(ToString::to_string).collect(),
                prefix: route.spec().shown_paths(),
                parked,
                busy: members.saturating_sub(parked),
                waiting,
                oldest: oldest.map_or(0, |oldest| millis(now, oldest)),
                drained: shared.drained.has_route(&route),
                counted: route.traffic().counted(),
            });
        }
        hosts.sort_by(|one, other| (&one.hosts, &one.prefix).cmp(&(&other.hosts, &other.prefix)));
        let all = shared.backends.all();
        let mut backends: Vec<_> = all.iter().map(|backend| row(backend)).collect();
        backends.sort_by(|one, other| (&one.hosts, &one.id).cmp(&(&other.hosts, &other.id)));
        View { totals: Totals::take(shared, &hosts, now), hosts, backends }
    }

    pub fn to_json(&self, actions: bool) -> Value {
        json!({
            "totals": self.totals.to_json(actions),
            "hosts": self.hosts.iter().map(HostRow::to_json).collect::<Vec<_>>(),
            "backends": self.backends.iter().map(BackendRow::to_json).collect::<Vec<_>>(),
        })
    }
}

fn millis(now: Micros, since: Micros) -> u64 {
    u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX)
}

impl Totals {
    fn take(shared: &Shared, hosts: &[HostRow], now: Micros) -> Totals {
        let all = &shared.stats;
        let sum = |of: fn(&Stats) -> &Counter| sum(all, of);
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Totals {
            at: at.as_secs_f64(),
            uptime: now.since(Micros(0)).as_secs_f64(),
            workers: all.len(),
            connections: shared.open_connections(),
            draining: shared.is_stopping(),
            parked: hosts.iter().map(|host| u64::from(host.parked)).sum(),
            busy: hosts.iter().map(|host| u64::from(host.busy)).sum(),
            waiting: sum(|stats| &stats.waiting),
            oldest: hosts.iter().map(|host| host.oldest).max().unwrap_or(0),
            counted: Stats::counted(all),
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
            "busy": self.busy,
            "waiting": self.waiting,
            "oldest": self.oldest,
            "answers": self.counted.answers,
            "duration": self.counted.durations,
        })
    }
}

impl HostRow {
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "hosts": self.hosts,
            "prefix": self.prefix,
            "parked": self.parked,
            "busy": self.busy,
            "waiting": self.waiting,
            "oldest": self.oldest,
            "drained": self.drained,
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
            "since": self.since,
            "parked": self.parked,
            "busy": self.busy,
            "served": self.served,
        })
    }
}
