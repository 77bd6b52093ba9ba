//! What the holder of a host key may see: what the key covers, and nothing of anybody else.

use serde_json::{Value, json};

use crate::bridge::hostkey::{self, HostKey, Scope};
use crate::http::Predicates;
use crate::routing::{Failure, Outcome, RouteSpec};

use super::super::admin::view::HostRow;
use super::super::role::Route;
use super::super::state::{Config, Shared};

/// Most routes that are shown. The page is for people, and a key for `*` covers all of them.
const ROUTES_MAX: usize = 500;

/// Most bytes of their rows. A row may have many long names, and readers may be slow.
const ROWS_MAX: usize = 128 << 10;

/// The state of the holder of a key that has been found good.
pub(super) fn state(shared: &Shared, config: &Config, key: &HostKey) -> Value {
    let scope = key.scope();
    let mut covered: Vec<_> = shared
        .directory
        .routes()
        .into_iter()
        .filter(|route| is_covered(route.spec(), &scope))
        .collect();
    covered.sort_by_cached_key(|route| {
        (
            hosts(route.spec(), &scope).map(str::to_owned).collect::<Vec<_>>(),
            route.spec().shown_paths(),
        )
    });
    let (mut rows, mut room) = (Vec::new(), ROWS_MAX);
    for route in covered.iter().take(ROUTES_MAX) {
        let row = row(shared, config, route, &scope);
        let Some(left) = room.checked_sub(row.to_string().len()) else { break };
        room = left;
        rows.push(row);
    }
    let more = covered.len() - rows.len();
    json!({
        "at": shared.moment().unix.as_secs_f64(),
        "key": of_key(&scope),
        "hosts": rows,
        "more": more,
    })
}

/// Whether bridges with such a key could be on the route, apart from other hosts that it has.
fn is_covered(spec: &RouteSpec, scope: &Scope) -> bool {
    hosts(spec, scope).next().is_some()
        && scope.takes(spec.predicates().map_or(&[], Predicates::methods))
        // What an expression matches is not known to be below a path.
        && spec.prefix().map_or(scope.prefix.is_empty(), |prefix| scope.has_path(prefix))
}

/// The host patterns of the route that the key covers. It may have others, by another key.
fn hosts<'a>(spec: &'a RouteSpec, scope: &'a Scope) -> impl Iterator<Item = &'a str> {
    let patterns = spec.patterns().iter().map(|pattern| &**pattern);
    patterns.filter(|pattern| hostkey::covers(&scope.name, pattern))
}

fn of_key(scope: &Scope) -> Value {
    let prefix = if scope.prefix.is_empty() { "/" } else { &scope.prefix };
    json!({
        "name": scope.name,
        "prefix": prefix,
        "methods": scope.methods,
        "bridges": scope.bridges,
        "expires": scope.expires,
    })
}

fn row(shared: &Shared, config: &Config, route: &Route, scope: &Scope) -> Value {
    let drained = shared.drained.has_route(route);
    let row = HostRow::of(route, config, &[], shared.now());
    let errors = route.failures().last();
    json!({
        "hosts": hosts(route.spec(), scope).collect::<Vec<_>>(),
        "prefix": row.prefix,
        "predicates": row.predicates,
        "parked": row.parked,
        "withdrawn": row.withdrawn,
        "busy": row.busy,
        "waiting": row.waiting,
        "oldest": row.oldest,
        "drained": drained,
        "answers": row.counted.answers,
        "errors": errors.iter().map(error).collect::<Vec<_>>(),
    })
}

fn error(failure: &Failure) -> Value {
    let (outcome, status) = match failure.outcome {
        Outcome::Answered(status) => ("answered", Some(status)),
        Outcome::Repeated => ("repeated", None),
        Outcome::Cut => ("cut", None),
    };
    let Failure { at, reason, count, .. } = failure;
    json!({ "at": at, "reason": reason, "outcome": outcome, "status": status, "count": count })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(caveats: &str, hosts: &[&str], prefix: &str) -> bool {
        let text = format!("v3:{}:v2:1:9::t.test+{caveats}", "0".repeat(64));
        let scope = HostKey::parse(text.as_bytes()).unwrap().scope();
        is_covered(&RouteSpec::new(hosts, prefix), &scope)
    }

    #[test]
    fn a_key_covers_what_is_below_it_in_name_and_path() {
        for hosts in [&["a.t.test"][..], &["x.a.t.test"], &["*.a.t.test"], &["a.t.test", "b.test"]]
        {
            assert!(covered("host=a.t.test", hosts, "/"), "{hosts:?}");
        }
        for hosts in [&["t.test"][..], &["b.t.test"], &["*.t.test"], &["*"], &["xa.t.test"]] {
            assert!(!covered("host=a.t.test", hosts, "/"), "{hosts:?}");
        }
        for (prefix, is_one) in [("/app", true), ("/app/x", true), ("/", false), ("/apple", false)]
        {
            assert_eq!(covered("prefix=/app", &["t.test"], prefix), is_one, "{prefix}");
        }
        assert!(!covered("method=GET", &["t.test"], "/"), "such a bridge takes all methods");
    }

    #[test]
    fn hosts_of_another_key_are_not_named() {
        let spec = RouteSpec::new(["a.t.test", "b.test", "x.a.t.test"], "/");
        let text = format!("v2:{}:1:9::a.t.test", "0".repeat(64));
        let scope = HostKey::parse(text.as_bytes()).unwrap().scope();
        assert_eq!(hosts(&spec, &scope).collect::<Vec<_>>(), ["a.t.test", "x.a.t.test"]);
    }
}
