//! Says for which names requests wait.
//!
//! A request that waits for a moment is nothing unusual: its backend is busy, or is being
//! restarted. So the queue is looked at from time to time, and only what has waited for a while is
//! said; a request costs nothing for it. Strangers choose the names, so a name is said once a minute
//! at most, and not more than a few names at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::http::request;
use crate::routing::Directory;
use crate::time::Millis;

use super::role::Role;
use super::worker::Worker;

/// How often the queue is looked at while a request waits.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long a request must have waited.
const LONG: Duration = Duration::from_secs(1);

/// Most requests that are looked at in one turn.
const LOOKED_AT: usize = 256;

/// How many of the names that are served are shown.
const NAMES: usize = 5;

/// How much of a name is shown, in bytes.
const SHOWN: usize = 100;

/// What requests for a name wait for.
enum Waits {
    ForAnyBackend,
    ForABusyOne { bridges: u32, requests: u32 },
}

impl Worker {
    /// Looks at the queue, if that is due.
    pub(super) fn watch_waiting(&mut self) {
        let now = self.conns.now().millis();
        if now < self.looks.due() {
            return;
        }
        self.looks.wait(now + INTERVAL);
        if self.scheduler.counters().waiting > 0 && log::log_enabled!(log::Level::Info) {
            self.say_waiting(now);
        }
    }

    #[cold]
    fn say_waiting(&mut self, now: Millis) {
        for (name, waits) in self.waited_for() {
            let Some(suppressed) = self.shared.said_names.may_say(&name, now) else { continue };
            let more = match suppressed {
                0 => String::new(),
                more => format!(" ({more} more such lines left out)"),
            };
            match waits {
                Waits::ForAnyBackend => {
                    let served = served(&self.shared.directory, &name);
                    log::info!(
                        "requests wait for {name}, which no backend serves ({served}){more}"
                    );
                }
                Waits::ForABusyOne { bridges, requests } => log::info!(
                    "all slots of {name} are taken ({bridges} of {bridges}; {requests} requests \
                     wait){more}"
                ),
            }
        }
    }

    /// The names for which requests have waited for long on this worker, and why.
    fn waited_for(&self) -> BTreeMap<String, Waits> {
        let now = self.conns.now();
        let mut names = BTreeMap::new();
        let queued = self.conns.keys_with(|role| matches!(role, Role::Queued { .. }));
        let mut looked_at = 0;
        for key in queued {
            let Some(Role::Queued { request: queued, .. }) = self.conns.role(key) else { continue };
            let Some(since) = self.scheduler.since(queued.waiter) else { continue };
            if now.since(since) < LONG {
                continue;
            }
            looked_at += 1;
            if looked_at > LOOKED_AT {
                break;
            }
            let mut storage = request::storage();
            let input = self.conns[key].conn.input.bytes();
            let parsed = request::parse(input, &mut storage, &self.exchange_config.limits);
            let Ok(Some(request)) = parsed else { continue };
            let name = shown(request.host);
            if names.contains_key(&name) {
                continue;
            }
            let waits = match self.scheduler.waits_for(queued.waiter) {
                None => Waits::ForAnyBackend,
                Some(route) => {
                    // A server that is up is a member of its route, and no bridge.
                    let servers = self.config.pools.up_on(route);
                    match route.members().saturating_sub(servers) {
                        // The servers are being dialled.
                        0 => continue,
                        bridges => Waits::ForABusyOne { bridges, requests: route.waiting() },
                    }
                }
            };
            names.insert(name, waits);
        }
        names
    }
}

/// What backends serve instead, for the log: a newcomer has often named the host otherwise.
fn served<B>(directory: &Directory<B>, wanted: &str) -> String {
    let (names, are_all) = directory.some_names(NAMES);
    let shown: Vec<String> = names.iter().map(|name| shown(name)).collect();
    if names.contains(wanted) {
        return "served on other paths".to_owned();
    }
    match (shown.is_empty(), are_all) {
        (true, _) => "there is no backend".to_owned(),
        (false, true) => format!("served: {}", shown.join(", ")),
        (false, false) => format!("served: {} and others", shown.join(", ")),
    }
}

/// A name that a stranger has chosen, for the log.
fn shown(host: &str) -> String {
    let cut: String = host.chars().take(SHOWN).collect();
    let name = cut.to_ascii_lowercase().escape_default().to_string();
    match (name.is_empty(), cut.len() < host.len()) {
        (true, _) => "no name".to_owned(),
        (false, true) => name + "...",
        (false, false) => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_bounded_and_escaped() {
        assert_eq!(shown("A.test"), "a.test");
        assert_eq!(shown(""), "no name");
        assert_eq!(shown("\u{1b}[2J"), "\\u{1b}[2j");
        assert_eq!(shown(&"x".repeat(300)), "x".repeat(100) + "...");
    }
}
