//! haproxy's agent check: haproxy connects, sends the line of `agent-send` if there is one, and
//! reads one line (haproxy's configuration manual, section 5.2, "agent-check").
//!
//! The answer is `up 40% maxconn:1064`. haproxy takes a percentage of the weight on its server
//! line, so 0% takes the proxy out like its own `drain`. That word is not sent: it changes the
//! administrative state, which only `ready` would undo, and `ready` would undo the maintenance
//! that the operator of haproxy has asked for as well. The words behind `#` are for people.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Site, UnknownHost};
use crate::http::host_name;
use crate::routing::Pattern;

use super::super::role::Route;
use super::super::shares::Shares;
use super::super::state::{Config, Shared};

/// How long the line may take to come. Without `agent-send` nothing comes, and haproxy waits for
/// this long, which must be less than its `agent-inter`; with it, the line follows the handshake.
pub(super) const LINE_TIMEOUT: Duration = Duration::from_millis(250);

/// Longest line, in bytes: a host name with a port.
pub(super) const LINE_MAX: usize = host_name::MAX_NAME + ":65535\r\n".len();

/// haproxy's greatest weight.
const WEIGHT_MAX: u64 = 256;

/// What a host, or all, can take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Capacity {
    /// Bridges connected, free or busy but not withdrawn, and connections that servers may have.
    slots: u64,
    /// Requests that may wait.
    queue: u64,
    /// It has a server without `max`, which sets no bound.
    unbounded: bool,
}

impl Capacity {
    fn add(&mut self, other: Capacity) {
        self.slots += other.slots;
        self.queue += other.queue;
        self.unbounded |= other.unbounded;
    }
}

/// The line that has come, up to its end; `None` if more of it may come.
pub(super) fn line(input: &[u8]) -> Option<&[u8]> {
    let end = input.iter().position(|b| matches!(b, b'\r' | b'\n'));
    match end {
        Some(end) => Some(&input[..end]),
        None => (input.len() > LINE_MAX).then_some(input),
    }
}

/// The answer to `line`: about the host that it names, or about all if it is empty.
pub(super) fn answer(line: &[u8], shared: &Shared, config: &Config) -> String {
    let host = match read_host(line) {
        Ok(host) => host,
        Err(()) => return "# not a host name\n".to_owned(),
    };
    let look = Look { shared, config, routes: shared.directory.routes() };
    let (capacity, is_drained) = match &host {
        Some(host) => look.host(host),
        None => (look.all(), false),
    };
    let limit = Shares::of(shared.connection_limit(config), !config.pools.is_empty()).clients;
    let full = config.settings.agent_check_slots as u64;
    written(capacity, limit as u64, full, shared.is_stopping() || is_drained)
}

fn written(capacity: Capacity, limit: u64, full: u64, drains: bool) -> String {
    let Capacity { slots, queue, unbounded } = capacity;
    let weight = match drains {
        true => 0,
        // Never 0: requests are meant to wait while backends restart.
        false => slots.saturating_mul(100).div_ceil(full).clamp(1, WEIGHT_MAX),
    };
    let most = if unbounded { limit } else { slots.saturating_add(queue).min(limit) };
    // To haproxy 0 means no limit.
    let most = most.max(1);
    let why = if drains { " # drain" } else { "" };
    format!("up {weight}% maxconn:{most}{why}\n")
}

/// The host that a line names, in lower case; `None` if the line is empty.
fn read_host(line: &[u8]) -> Result<Option<String>, ()> {
    let text = std::str::from_utf8(line.trim_ascii()).map_err(drop)?;
    if text.is_empty() {
        return Ok(None);
    }
    if let Some(address) = text.strip_prefix('[') {
        let (address, port) = address.split_once(']').ok_or(())?;
        let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        let address: Ipv6Addr = address.parse().map_err(drop)?;
        return if is_port { Ok(Some(format!("[{address}]"))) } else { Err(()) };
    }
    let host = match text.split_once(':') {
        Some((host, port)) if is_port(port) => host,
        Some(_) => return Err(()),
        None => text,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    host_name::check(host.as_bytes()).map_err(drop)?;
    Ok(Some(host.to_ascii_lowercase()))
}

fn is_port(text: &str) -> bool {
    text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit())
}

/// The routes at one moment.
struct Look<'a> {
    shared: &'a Shared,
    config: &'a Config,
    routes: Vec<Arc<Route>>,
}

impl Look<'_> {
    /// What all hosts can take together. The routes that the operator has drained take nothing.
    fn all(&self) -> Capacity {
        let mut all = Capacity { queue: self.unserved(), ..Capacity::default() };
        for route in self.routes.iter().filter(|route| !self.shared.drained.has_route(route)) {
            all.add(self.route(route));
            all.queue += self.config.settings.queue_per_route as u64;
        }
        all
    }

    /// What `host` can take, and whether the operator has drained it.
    fn host(&self, host: &str) -> (Capacity, bool) {
        let serving = self.serving(host);
        let is_drained = match serving.is_empty() {
            true => self.shared.drained.has_host(host),
            false => serving.iter().all(|route| self.shared.drained.has_route(route)),
        };
        let own = self.named(host);
        let fallbacks = std::iter::successors(self.fallback(host), |site| self.backup(site));
        let with_slots = fallbacks
            .take(self.config.sites.all().len())
            .map(|site| self.named(site.name()))
            .find(|capacity| capacity.slots > 0);
        match with_slots {
            Some(capacity) if own.slots == 0 && !is_drained => (capacity, false),
            _ => (own, is_drained),
        }
    }

    /// What the routes of `name` can take.
    fn named(&self, name: &str) -> Capacity {
        let mut capacity = Capacity::default();
        let serving = self.serving(name);
        for route in serving.iter().filter(|route| !self.shared.drained.has_route(route)) {
            capacity.add(self.route(route));
        }
        capacity.queue = match serving.is_empty() {
            true => self.unserved(),
            false => self.config.settings.queue_per_route as u64,
        };
        capacity
    }

    /// The routes that serve `host`. A confined one serves no name that a more specific pattern has.
    fn serving(&self, host: &str) -> Vec<&Arc<Route>> {
        let least = self.routes.iter().filter_map(|route| route.spec().generality(host)).min();
        let serves = |route: &&Arc<Route>| {
            let spec = route.spec();
            let own = spec.generality(host);
            own.is_some() && (own == least || !spec.is_confined())
        };
        self.routes.iter().filter(serves).collect()
    }

    /// The slots of one route.
    fn route(&self, route: &Route) -> Capacity {
        // Those whose backends have no place for a request are no slots.
        let slots = route.counted().saturating_sub(route.withdrawn());
        let mut capacity = Capacity { slots: slots.into(), ..Capacity::default() };
        let pools = self.config.pools.list().iter().filter(|pool| pool.route.id() == route.id());
        for server in pools.flat_map(|pool| &pool.servers).filter(|server| server.is_up()) {
            match server.most() {
                Some(most) => capacity.slots += u64::from(most),
                None => {
                    capacity.slots += self.config.settings.agent_check_slots as u64;
                    capacity.unbounded = true;
                }
            }
        }
        capacity
    }

    /// How many requests may wait for names that nobody serves.
    fn unserved(&self) -> u64 {
        match self.config.settings.unknown_host {
            UnknownHost::Wait => self.config.settings.queue_unserved as u64,
            UnknownHost::NotFound | UnknownHost::Unavailable => 0,
        }
    }

    /// The site whose backends serve `host` while it has none: the backup of its site, or the
    /// default site.
    fn fallback(&self, host: &str) -> Option<&Site> {
        let sites = || self.config.sites.all().iter().map(|site| &**site);
        let of_host = sites().flat_map(|site| {
            let patterns = site.names.iter().map(|name| Pattern::read(name));
            let matching = patterns.filter(|pattern| pattern.has(host));
            matching.map(move |pattern| (pattern.generality(), site))
        });
        match of_host.min_by_key(|(generality, _)| *generality) {
            Some((_, site)) => self.backup(site),
            None => sites().find(|site| site.default),
        }
    }

    fn backup(&self, site: &Site) -> Option<&Site> {
        self.config.sites.named(site.backup.as_deref()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_is_the_share_of_slots_and_0_only_while_draining() {
        let line = |slots, queue, drains| {
            let capacity = Capacity { slots, queue, unbounded: false };
            written(capacity, 10_000, 100, drains)
        };
        assert_eq!(line(40, 1024, false), "up 40% maxconn:1064\n");
        assert_eq!(line(0, 1024, false), "up 1% maxconn:1024\n");
        assert_eq!(line(0, 0, false), "up 1% maxconn:1\n");
        assert_eq!(line(300, 1024, false), "up 256% maxconn:1324\n");
        assert_eq!(line(5_000, 6_000, false), "up 256% maxconn:10000\n");
        assert_eq!(line(40, 1024, true), "up 0% maxconn:1064 # drain\n");
        let unbounded = Capacity { slots: 100, queue: 1024, unbounded: true };
        assert_eq!(written(unbounded, 10_000, 400, false), "up 25% maxconn:10000\n");
        assert_eq!(written(Capacity { slots: 1, ..unbounded }, 9, 3, false), "up 34% maxconn:9\n");
    }

    #[test]
    fn a_line_is_a_host_or_nothing() {
        for (line, host) in [
            ("", Ok(None)),
            (" \t", Ok(None)),
            ("App.Example.com", Ok(Some("app.example.com"))),
            ("app.test:8080", Ok(Some("app.test"))),
            ("app.test.", Ok(Some("app.test"))),
            ("10.0.0.1", Ok(Some("10.0.0.1"))),
            ("[::1]:80", Ok(Some("[::1]"))),
            ("[::1", Err(())),
            ("[::1]x", Err(())),
            ("a b", Err(())),
            ("a.test:x", Err(())),
            ("*.test", Err(())),
            ("GET / HTTP/1.1", Err(())),
            ("\u{0}", Err(())),
        ] {
            let read = read_host(line.as_bytes());
            assert_eq!(read.as_ref().map(Option::as_deref), host.as_ref().copied(), "{line:?}");
        }
        assert_eq!(read_host(b"\xff"), Err(()));
    }

    #[test]
    fn a_line_ends_at_its_end_or_when_it_is_too_long() {
        assert_eq!(line(b""), None);
        assert_eq!(line(b"a.test"), None);
        assert_eq!(line(b"a.test\nmore"), Some(&b"a.test"[..]));
        assert_eq!(line(b"a.test\r\n"), Some(&b"a.test"[..]));
        assert!(line(&[b'a'; LINE_MAX]).is_none());
        assert!(line(&[b'a'; LINE_MAX + 1]).is_some());
    }
}
