//! What the admin listener tells of the process beside hosts and backends: its counters, its
//! connections by kind, workers, keys, sites and servers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Map, Value, json};

use crate::config::Site;

use super::super::role::{LETTERS, Route};
use super::super::state::{Config, Shared};
use super::super::stats::{Admitted, Counter, Stats, sum, sum_all};
use super::super::upgrade::old_programs::OldProgram;

/// What the letters of the original's connection states are called here, in the order of
/// [`LETTERS`].
pub(super) const KINDS: [&str; LETTERS.len()] = [
    "idle",
    "bridge_parked",
    "client_waiting",
    "bridge_busy",
    "client_busy",
    "closing",
    // Only the info host counts who asks it.
    "asking",
];

/// How many kinds there are besides the last.
pub(super) const KINDS_SHOWN: usize = KINDS.len() - 1;

/// How many connections of the kind at `place` in [`KINDS`] are open.
pub(super) fn connections(all: &[Stats], place: usize) -> u64 {
    let count = all.iter().fold(0u64, |sum, stats| sum.wrapping_add(stats.at(place).get()));
    // One that changes its worker between two reads may be missing on both.
    if count > u64::MAX / 2 { 0 } else { count }
}

/// Members of the state of the proxy.
pub(super) fn members(shared: &Shared, config: &Config) -> Map<String, Value> {
    let mut members = Map::new();
    members.insert("connections".to_owned(), kinds(&shared.stats));
    members.insert("counters".to_owned(), counters(shared));
    members.insert("workers".to_owned(), shared.stats.iter().map(worker).collect());
    members.insert("keys".to_owned(), keys(shared));
    let sites = config.sites.all().iter();
    let sites: Map<_, _> =
        sites.map(|site| (site.name().to_owned(), site_of(site, shared, config))).collect();
    members.insert("sites".to_owned(), sites.into());
    let servers: Map<_, _> = config
        .pools
        .servers()
        .map(|server| {
            let value = json!({ "open": server.open(), "up": u8::from(server.is_up()) });
            (server.shown(), value)
        })
        .collect();
    members.insert("servers".to_owned(), servers.into());
    let old = shared.old_programs.all().into_iter().map(OldProgram::to_json);
    members.insert("old_programs".to_owned(), old.collect());
    members
}

fn kinds(all: &[Stats]) -> Value {
    let kinds = KINDS[..KINDS_SHOWN].iter().enumerate();
    let kinds: Map<_, _> =
        kinds.map(|(place, kind)| ((*kind).to_owned(), connections(all, place).into())).collect();
    kinds.into()
}

/// What one worker has, and has done.
fn worker(stats: &Stats) -> Value {
    json!({
        "clients": stats.clients(),
        "accepted": stats.accepted.get(),
        "passed": stats.passed.get(),
        "exchanges": stats.served.get(),
    })
}

fn counters(shared: &Shared) -> Value {
    let all = &shared.stats;
    let sum = |of: fn(&Stats) -> &Counter| sum(all, of);
    let (manager_calls, manager_failures) = shared.managers.counts();
    json!({
        "accepted": sum(|s| &s.accepted),
        "passed": sum(|s| &s.passed),
        "exchanges": sum(|s| &s.served),
        "retries": sum_all(all, |s| &s.retried),
        "delivered_failures": sum(|s| &s.delivered),
        "given_back": sum(|s| &s.given_back),
        "silent_backends": shared.backends.suspects(),
        "moves": sum(|s| &s.moved),
        "leaves": sum(|s| &s.deregistrations),
        "challenges": sum(|s| &s.challenges),
        "admitted_by_proof": sum(|s| &s.admitted[Admitted::Proof as usize]),
        "admitted_by_bearer_key": sum(|s| &s.admitted[Admitted::BearerKey as usize]),
        "keys_revoked": sum(|s| &s.lost_keys[0]),
        "keys_expired": sum(|s| &s.lost_keys[1]),
        "stale_events": sum(|s| &s.stale),
        "waiting": sum(|s| &s.waiting),
        "waiting_unserved": sum(|s| &s.unserved),
        "pipes_lent": sum(|s| &s.pipes_lent),
        "manager_calls": manager_calls,
        "manager_failures": manager_failures,
        "client_received_bytes": sum(|s| &s.client_received),
        "client_sent_bytes": sum(|s| &s.client_sent),
        "answered_4xx": sum(|s| &s.rejected.s4xx),
        "answered_502": sum(|s| &s.rejected.s502),
        "answered_503": sum(|s| &s.rejected.s503),
        "answered_504": sum(|s| &s.rejected.s504),
    })
}

fn keys(shared: &Shared) -> Value {
    let all = shared.keys.all().into_iter();
    let keys: Map<_, _> = all
        .map(|(name, bridges, clients)| (name, json!({ "bridges": bridges, "clients": clients })))
        .collect();
    keys.into()
}

/// One site: the bridges on its own routes, and its swiftclient backends by id. Bridges registered
/// for other sets of names are not included.
fn site_of(site: &Site, shared: &Shared, config: &Config) -> Value {
    let specs = config.sites.specs_of(site);
    let routes: Vec<Arc<Route>> =
        specs.iter().filter_map(|spec| shared.directory.route(spec)).collect();
    // A server that is up is a member of its site's route, and no bridge.
    let servers = routes.first().map_or(0, |own| config.pools.up_on(own));
    let members: u32 = routes.iter().map(|route| route.members()).sum();
    let backends: Map<_, _> = shared
        .swiftclient_backends
        .of(site.name())
        .into_iter()
        .map(|(id, count)| {
            let value = json!({
                "address": count.peer.to_string(),
                "bridges": count.usage.bridges.load(Ordering::Relaxed),
                "clients": count.usage.clients.load(Ordering::Relaxed),
            });
            (id.to_string(), value)
        })
        .collect();
    json!({
        "bridges": members.saturating_sub(servers),
        "parked": routes.iter().map(|route| route.parked()).sum::<u32>(),
        "withdrawn": routes.iter().map(|route| route.withdrawn()).sum::<u32>(),
        // The first serves all paths: a request that waits for another route waits for it too.
        "waiting": routes.first().map_or(0, |own| own.waiting()),
        "backends": backends,
        "manager": shared.managers.to_json(site),
    })
}
