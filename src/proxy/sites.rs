//! The sites of the settings: which one a request is for, what policy applies to it, and where the
//! sites' swiftclient backends connect (`doc/protocol.md`, "Sites").

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::{Keepalive, Key, Paths, Settings, Site};
use crate::exchange::{ExchangeConfig, RequestMeta, RetryPolicy};
use crate::routing::{Meets, Resolved, RouteQuery, RouteSpec, Scheduler};

use super::listeners::{SiteListener, SwiftclientListener};

#[derive(Default)]
pub struct Sites {
    table: Vec<Arc<Site>>,
    default: Option<usize>,
    listeners: Vec<SiteListener>,
}

/// What a request asks for, and its site.
pub(super) struct Target<'a> {
    pub(super) query: RouteQuery<'a>,
    /// `None` for a name that only bridges have registered.
    pub(super) site: Option<&'a Site>,
}

impl Sites {
    /// The sites of `settings`.
    #[must_use]
    pub fn new(settings: &Settings) -> Sites {
        let mut sites = Sites { table: settings.site.clone(), ..Sites::default() };
        sites.default = settings.site.iter().rposition(|site| site.default);
        for (at, site) in settings.site.iter().enumerate() {
            for configured in &site.listeners {
                let spec = spec_of(site, &configured.paths);
                let accept_proxy = configured.accept_proxy.clone().map(Arc::new);
                for address in &configured.addresses {
                    let listener = SwiftclientListener {
                        site: site.name().into(),
                        spec: spec.clone(),
                        address: address.clone(),
                        closed: AtomicBool::new(false),
                    };
                    sites.listeners.push(SiteListener {
                        listener: Arc::new(listener),
                        accept_proxy: accept_proxy.clone(),
                        site: at,
                    });
                }
            }
        }
        sites
    }

    /// Takes over the listeners of `old` that are also here. [`Sites::close_others`] closes the
    /// rest, once these sites are sure to come into force.
    pub(super) fn take_over(&mut self, old: &Sites) {
        let is_same = |one: &SwiftclientListener, other: &SwiftclientListener| {
            one.address == other.address && one.site == other.site && one.spec == other.spec
        };
        let mut left: Vec<&Arc<SwiftclientListener>> = old.listeners().collect();
        for SiteListener { listener: here, .. } in &mut self.listeners {
            if let Some(at) = left.iter().position(|known| is_same(known, here)) {
                *here = Arc::clone(left.remove(at));
            }
        }
    }

    /// Closes the listeners of `old` that are not here.
    pub(super) fn close_others(&self, old: &Sites) {
        for known in old.listeners() {
            if self.site_of(known).is_none() {
                known.closed.store(true, Ordering::Relaxed);
            }
        }
    }

    /// All sites, in the order of the settings.
    pub(super) fn all(&self) -> &[Arc<Site>] {
        &self.table
    }

    /// The host patterns of all sites, each with its site, for [`Scheduler::set_sites`].
    pub(super) fn patterns(&self) -> impl Iterator<Item = (&str, u32)> {
        let numbered = self.table.iter().zip(0..);
        numbered.flat_map(|(site, at)| site.names.iter().map(move |name| (name.as_str(), at)))
    }

    pub(super) fn listeners(&self) -> impl ExactSizeIterator<Item = &Arc<SwiftclientListener>> {
        self.site_listeners().map(|here| &here.listener)
    }

    pub(super) fn site_listeners(&self) -> impl ExactSizeIterator<Item = &SiteListener> {
        self.listeners.iter()
    }

    /// The routes that exist even without a bridge: each site's own, and those of its listeners.
    pub(super) fn specs(&self) -> Vec<RouteSpec> {
        let own = self.table.iter().map(|site| spec_of(site, &Paths::All));
        own.chain(self.listeners().map(|listener| listener.spec.clone())).collect()
    }

    /// The routes of one site, each once.
    pub(super) fn specs_of(&self, site: &Site) -> Vec<RouteSpec> {
        let mut specs = vec![spec_of(site, &Paths::All)];
        for configured in &site.listeners {
            let spec = spec_of(site, &configured.paths);
            if !specs.contains(&spec) {
                specs.push(spec);
            }
        }
        specs
    }

    /// The key that a backend must show at `listener`, empty for none; `None` if the listener has
    /// been removed.
    pub(super) fn key_of(&self, listener: &Arc<SwiftclientListener>) -> Option<&[u8]> {
        self.site_of(listener).map(|site| site.key.as_ref().map_or(&[][..], Key::bytes))
    }

    fn site_of(&self, listener: &Arc<SwiftclientListener>) -> Option<&Site> {
        let is_it = |here: &&SiteListener| Arc::ptr_eq(&here.listener, listener);
        Some(&self.table[self.listeners.iter().find(is_it)?.site])
    }

    /// Where a request for `host`, in lower case, and `path` goes, that meets these predicates.
    pub(super) fn resolve<'a, B>(
        &'a self,
        host: &'a str,
        path: &'a str,
        meets: Option<Meets<'a>>,
        scheduler: &Scheduler<B>,
    ) -> Target<'a> {
        let Resolved { site, query } = scheduler.resolve(host, path);
        let query = query.with_meets(meets);
        if let Some(at) = site {
            let site = &*self.table[at as usize];
            let query = query.with_fallback(self.backup(site, &query, scheduler));
            return Target { query, site: Some(site) };
        }
        let default = match self.default {
            Some(default) if !scheduler.knows(&query) => default,
            _ => return Target { query, site: None },
        };
        let site = &*self.table[default];
        let own = RouteQuery::new(site.name(), path).with_meets(meets);
        let query = match self.backup(site, &own, scheduler) {
            Some(backup) => own.with_fallback(Some(backup)),
            // A bridge that registers exactly this name may serve it too.
            None => query.with_fallback(Some(site.name())),
        };
        Target { query, site: Some(site) }
    }

    /// The site that has this pattern on its line.
    pub(super) fn named(&self, pattern: &str) -> Option<&Site> {
        let named = |site: &&Arc<Site>| site.names.iter().any(|name| name == pattern);
        self.table.iter().find(named).map(|site| &**site)
    }

    /// The name of the first backup of `site` that has a backend for `query`, if the site itself
    /// has none.
    fn backup<'a, B>(
        &'a self,
        site: &'a Site,
        query: &RouteQuery<'_>,
        scheduler: &Scheduler<B>,
    ) -> Option<&'a str> {
        let mut next = site.backup.as_deref()?;
        if scheduler.has_bridge(query) {
            return None;
        }
        // At most one step per site: the settings have no circles.
        for _ in 0..self.table.len() {
            let there = RouteQuery::new(next, query.path).with_meets(query.meets);
            if scheduler.has_bridge(&there) {
                return Some(next);
            }
            next = self.named(next)?.backup.as_deref()?;
        }
        None
    }
}

/// The route that the backends of a site serve on these paths.
fn spec_of(site: &Site, paths: &Paths) -> RouteSpec {
    match paths {
        Paths::All => RouteSpec::new(&site.names, ""),
        Paths::Under(prefix) => RouteSpec::new(&site.names, prefix),
        Paths::Matching(pattern) => RouteSpec::matching(&site.names, pattern.regex().clone()),
    }
}

/// The policy for a waiting request.
#[derive(Clone, Copy)]
pub(super) struct WaitPolicy {
    /// How long it may wait.
    pub(super) timeout: Duration,
    /// The status of its answer after that.
    pub(super) timeout_status: u16,
}

/// The wait policy for requests of `site`, or of no site. A site answers 503, as Swiftiply does.
pub(super) fn wait_policy(site: Option<&Site>, settings: &Settings) -> WaitPolicy {
    match site {
        None => WaitPolicy { timeout: settings.wait_timeout, timeout_status: 504 },
        Some(site) => WaitPolicy {
            timeout: site.on_demand.timeout.or(site.timeout).unwrap_or(settings.wait_timeout),
            timeout_status: 503,
        },
    }
}

/// Applies the policy of `site` to a request.
pub(super) fn apply_policy(site: &Site, meta: &mut RequestMeta, config: &ExchangeConfig) {
    meta.persistent &= site.keepalive == Keepalive::Yes;
    meta.forwarded = site.forwarded.unwrap_or(config.forwarded);
    meta.replay_limit = site.redeploy.unwrap_or(config.replay_limit);
    if site.redeploy.is_some() {
        meta.retry_policy = RetryPolicy::Always;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{TABLE, read};
    use crate::routing::{Bounds, Directory};
    use crate::time::Micros;
    use std::path::Path;

    fn settings(lines: &str) -> Settings {
        let mut settings = Settings::default();
        assert_eq!(read(TABLE, Path::new("f"), lines.as_bytes(), &mut settings), []);
        settings
    }

    fn scheduler(sites: &Sites) -> Scheduler<u64> {
        let bounds =
            Bounds { per_route: 9, unserved: 9, unserved_waits: true, bridges_per_host: 0 };
        let directory = Arc::new(Directory::new(1));
        directory.pin(&sites.specs(), Micros(0));
        let mut scheduler = Scheduler::new(0, directory, bounds);
        scheduler.sync(&|_, _| false);
        scheduler.set_sites(sites.patterns());
        scheduler
    }

    /// The name of the site and the fallback.
    fn resolved<'a>(
        sites: &'a Sites,
        scheduler: &Scheduler<u64>,
        host: &'a str,
    ) -> (Option<&'a str>, Option<&'a str>) {
        let target = sites.resolve(host, "/", None, scheduler);
        (target.site.map(Site::name), target.query.fallback)
    }

    #[test]
    fn the_most_specific_site_is_resolved() {
        let sites =
            Sites::new(&settings("site a.b.c\nsite *.c,d\nsite *.b.c\nsite *.e.b.c,* default\n"));
        let scheduler = scheduler(&sites);
        for (host, site) in [
            ("a.b.c", "a.b.c"),
            ("x.b.c", "*.b.c"),
            ("b.c", "*.c"),
            ("d", "*.c"),
            ("x.e.b.c", "*.e.b.c"),
            ("e.b.c", "*.b.c"),
            ("c", "*.e.b.c"),
            ("", "*.e.b.c"),
        ] {
            assert_eq!(resolved(&sites, &scheduler, host), (Some(site), None), "{host}");
        }
    }

    #[test]
    fn an_unknown_name_goes_to_the_default_site() {
        let without = Sites::new(&settings("site a\n"));
        let mut scheduler_without = scheduler(&without);
        assert_eq!(resolved(&without, &scheduler_without, "x"), (None, None));
        scheduler_without.join(&RouteSpec::new(["x"], ""), Micros(0), &|_, _| false).unwrap();
        assert_eq!(resolved(&without, &scheduler_without, "x"), (None, None));
        let with = Sites::new(&settings("site a default\n"));
        assert_eq!(resolved(&with, &scheduler(&with), "x"), (Some("a"), Some("a")));
        assert_eq!(resolved(&with, &scheduler_without, "x"), (None, None));
        let none = Sites::default();
        assert_eq!(resolved(&none, &scheduler(&none), "x"), (None, None));
    }

    #[test]
    fn a_backup_serves_while_a_site_has_no_backend() {
        let sites = Sites::new(&settings(
            "site a backup=b default\nsite b backup=*.c\nsite *.c\nsite d backup=b\n",
        ));
        let mut scheduler = scheduler(&sites);
        assert_eq!(resolved(&sites, &scheduler, "a"), (Some("a"), None));
        let c = scheduler.join(&RouteSpec::new(["*.c"], ""), Micros(0), &|_, _| false).unwrap();
        assert_eq!(resolved(&sites, &scheduler, "a"), (Some("a"), Some("*.c")));
        assert_eq!(resolved(&sites, &scheduler, "unknown"), (Some("a"), Some("*.c")));
        scheduler.join(&RouteSpec::new(["b"], ""), Micros(0), &|_, _| false).unwrap();
        assert_eq!(resolved(&sites, &scheduler, "d"), (Some("d"), Some("b")));
        c.route.leave(Micros(0));
        scheduler.join(&RouteSpec::new(["a"], ""), Micros(0), &|_, _| false).unwrap();
        assert_eq!(resolved(&sites, &scheduler, "a"), (Some("a"), None));
        assert_eq!(resolved(&sites, &scheduler, "unknown"), (Some("a"), Some("a")));
    }

    #[test]
    fn a_listener_survives_a_reload_that_does_not_change_it() {
        let old = Sites::new(&settings(
            "site a swiftiply=:1 key=x\nsite b swiftiply=:2\nsite c swiftiply=:3 swiftiply=:0 swiftiply=:0\n",
        ));
        let mut new = Sites::new(&settings(
            "site a swiftiply=:1 key=y timeout=1s\nsite b,bb swiftiply=:2\nsite c swiftiply=:0 swiftiply=:4\n",
        ));
        new.take_over(&old);
        new.close_others(&old);
        let closed: Vec<bool> = old.listeners().map(|listener| listener.is_closed()).collect();
        assert_eq!(closed, [false, true, true, false, true]);
        let a = old.listeners().next().unwrap();
        assert_eq!(new.key_of(a), Some(&b"y"[..]));
        let b = old.listeners().nth(1).unwrap();
        assert_eq!(new.key_of(b), None);
        let new_b = new.listeners().nth(1).unwrap();
        assert_eq!(new.key_of(new_b), Some(&b""[..]));
    }
}
