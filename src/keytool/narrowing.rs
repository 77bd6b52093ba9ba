//! Narrows a key, and says what a key allows. Neither needs a secret.

use crate::bridge::hostkey::{Caveat, HostKey, Root, Scope};

use super::datetime::utc;
use super::failure::Failure;
use super::options::{Expiry, Narrow};

/// The key with the restrictions of `order` added. An expiry may be relative to `now` (Unix seconds).
pub(super) fn narrow(key: &HostKey, order: &Narrow, now: u64) -> Result<String, Failure> {
    let caveats = caveats(order, now)?;
    let scope = key.scope();
    if let Some(wider) = caveats.iter().find(|caveat| !scope.has(caveat)) {
        return Err(Failure::of(widens(&scope, wider)));
    }
    let narrowed = key.narrowed(&caveats).map_err(|bad| Failure::of(bad.to_string()))?;
    Ok(narrowed.text() + "\n")
}

/// A limit of bridges comes after the host, path and methods, because it is counted for those before it
/// (`hostkey::Limit`).
fn caveats(order: &Narrow, now: u64) -> Result<Vec<Caveat>, Failure> {
    let expires = match order.expires {
        None => None,
        Some(Expiry::At(at)) if at > now => Some(at),
        Some(Expiry::At(at)) => {
            return Err(Failure::usage(format!("--expires: {} is past", utc(at))));
        }
        Some(Expiry::After(seconds)) => {
            let at = now.checked_add(seconds);
            Some(at.ok_or_else(|| Failure::usage("--expires: no time is so late"))?)
        }
    };
    let Narrow { host, prefix, methods, bridges, .. } = order;
    let all = [
        host.clone().map(Caveat::Host),
        prefix.clone().map(Caveat::Prefix),
        methods.clone(),
        bridges.map(Caveat::Bridges),
        expires.map(Caveat::Expiry),
    ];
    Ok(all.into_iter().flatten().collect())
}

fn widens(scope: &Scope, wider: &Caveat) -> String {
    match wider {
        Caveat::Host(host) => {
            format!("--host: the key is for {}, which does not cover {host}", scope.name)
        }
        Caveat::Prefix(path) => {
            format!("--prefix: the key is for paths below {}, and {path} is not", scope.prefix)
        }
        Caveat::Methods(_) => {
            let allowed = scope.methods.as_ref().map(|methods| methods.join(", "));
            format!("--method: the key is for {} alone", allowed.unwrap_or_default())
        }
        Caveat::Bridges(_) => {
            format!("--bridges: the key allows {}", scope.bridges.map_or(0, |most| most.get()))
        }
        Caveat::Expiry(_) => {
            format!("--expires: the key expires earlier, at {}", utc(scope.expires.unwrap_or(0)))
        }
    }
}

/// What a key says, one line each, without its hash. Does not check whether it is good.
pub(super) fn show(key: &HostKey) -> String {
    let scope = key.scope();
    let root = match key.root() {
        Root::Legacy(_) => "the old form",
        Root::Modern(_) => "v2",
    };
    let methods = scope.methods.as_ref().map(|methods| methods.join(", "));
    let mut lines = vec![
        format!("form      {root}, for {}", key.root().name()),
        format!("made      {}", utc(key.made())),
        format!("expires   {}", scope.expires.map_or("never".to_owned(), utc)),
        format!("hosts     {}", hosts(&scope.name)),
        format!("paths     {}", paths(&scope.prefix)),
        format!("methods   {}", methods.unwrap_or_else(|| "all".to_owned())),
    ];
    let limits = key.limits().into_iter();
    let limits: Vec<String> =
        limits.map(|(of, most)| format!("bridges   {most}, counted for {of}")).collect();
    if limits.is_empty() {
        lines.push("bridges   any number".to_owned());
    }
    lines.extend(limits);
    if let HostKey::Narrowed(key) = key {
        lines.extend(key.caveats().iter().map(|caveat| match caveat {
            Caveat::Expiry(at) => format!("narrowed  {caveat}, {}", utc(*at)),
            _ => format!("narrowed  {caveat}"),
        }));
    }
    lines.join("\n") + "\n"
}

fn paths(prefix: &str) -> String {
    match prefix {
        "" => "all".to_owned(),
        prefix => format!("{prefix} and every path below it"),
    }
}

/// The names that a key for `name` covers.
pub(super) fn hosts(name: &str) -> String {
    let below = if name.starts_with('*') { "" } else { " and every name below it" };
    format!("{name}{below}")
}
