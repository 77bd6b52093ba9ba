//! Whether a key is valid, and exactly why not.

use crate::bridge::hostkey::{InvalidKey, Root, covers};
use crate::bridge::pattern;
use crate::bridge::{HostKey, Secrets};

use super::datetime;
use super::failure::Failure;
use super::narrowing::hosts;

/// Checks a key at `now` (Unix seconds) against the secrets of `file`, and that it covers `host`.
/// Returns a line about the key if it is valid.
pub(super) fn check(
    text: &str,
    host: Option<&str>,
    secrets: &Secrets,
    file: &str,
    now: u64,
) -> Result<String, Failure> {
    let host = host.map(|host| pattern::parse(host.as_bytes())).transpose();
    let host = host.map_err(|bad| Failure::usage(format!("--host is not a host name: {bad}")))?;
    let key = HostKey::parse(text.as_bytes())
        .map_err(|bad| Failure::of(format!("the key is malformed: {bad}")))?;
    let mut lines = Vec::new();
    if let Err(error) = secrets.check(&key, now) {
        lines.push(explain(&key, error, secrets, file, now));
    }
    if let Some(host) = host.filter(|host| !covers(key.name(), host)) {
        lines.push(format!("the key is for {}, which does not cover {host}", key.name()));
    }
    if lines.is_empty() { Ok(describe(&key)) } else { Err(Failure { lines, code: 1 }) }
}

/// What is wrong with the key, in more detail than the proxy gives: the caller holds all secrets.
fn explain(key: &HostKey, error: InvalidKey, secrets: &Secrets, file: &str, now: u64) -> String {
    let made = datetime::utc(key.made());
    match (error, secrets.maker(key)) {
        (InvalidKey::Expired(at), _) => format!("the key expired at {}", datetime::utc(at)),
        (InvalidKey::TooNew(at), _) => {
            format!("the key is too new: it is dated {}", datetime::utc(at))
        }
        (InvalidKey::Mismatch | InvalidKey::TooOld | InvalidKey::NoSecretYet, Some(from))
            if from > now =>
        {
            let from = datetime::utc(from);
            format!("the key was made with a secret that is not in force before {from}")
        }
        (InvalidKey::Mismatch | InvalidKey::TooOld, Some(from)) => {
            let from = datetime::utc(from);
            format!(
                "the key was made with the secret of {from}, which is not the one that was in force \
                 at the key's own time, {made}"
            )
        }
        (InvalidKey::Mismatch | InvalidKey::TooOld, None) => format!(
            "the secret is unknown: the key was made with none of those in {file}, or was changed since"
        ),
        (error, _) => format!("the key {error}"),
    }
}

fn describe(key: &HostKey) -> String {
    let (made, scope) = (datetime::utc(key.made()), key.scope());
    let form = match key.root() {
        Root::Legacy(_) => "of the old form",
        Root::Modern(_) => "v2",
    };
    let expiry = match scope.expires {
        Some(at) => format!("expires {}", datetime::utc(at)),
        None => "without an expiry".to_owned(),
    };
    let limit = match (scope.bridges, key.root()) {
        (Some(limit), _) => format!(", bridges at once: {limit}"),
        (None, Root::Modern(_)) => ", any number of bridges at once".to_owned(),
        (None, Root::Legacy(_)) => String::new(),
    };
    let mut only = Vec::new();
    if !scope.prefix.is_empty() {
        only.push(format!(", below the path {}", scope.prefix));
    }
    if let Some(methods) = &scope.methods {
        only.push(format!(", with the methods {}", methods.join(", ")));
    }
    let narrowed = match key {
        HostKey::Root(_) => String::new(),
        HostKey::Narrowed(_) => format!(", narrowed from a key for {}", key.root().name()),
    };
    let (hosts, only) = (hosts(key.name()), only.concat());
    format!("good: {form}, made {made}, {expiry}{limit}; covers {hosts}{only}{narrowed}\n")
}
