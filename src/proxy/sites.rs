//! The sites of the settings: which of them a request is for, what holds for it there, and where their backends come
//! in (`doc/protocol.md`, "Sites").

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::{Address, Keepalive, Key, Paths, Settings, Site};
use crate::exchange::{ExchangeConfig, RequestMeta, RetryPolicy};
use crate::routing::{Lobby, PatternMap, RouteSpec, Target};

use super::role::Late;

/// Every site, and the ways to find one.
#[derive(Default)]
pub struct Sites {
    table: Vec<Arc<Site>>,
    names: PatternMap<usize>,
    default: Option<usize>,
    inlets: Vec<Listening>,
}

/// An inlet and the site that it belongs to.
struct Listening {
    inlet: Arc<Inlet>,
    site: usize,
}

/// An address at which backends of a site come in. As long as the settings have it, with the same names and paths, it is
/// the same one, however often they are read; so whoever came by it can tell whether it is still there.
pub struct Inlet {
    /// The name of its site.
    pub site: Box<str>,
    /// What whoever comes in there serves.
    pub spec: RouteSpec,
    address: Address,
    closed: AtomicBool,
}

impl Inlet {
    /// Whether it is no more: those who came by it serve nothing more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn is_like(&self, other: &Inlet) -> bool {
        self.address == other.address && self.site == other.site && self.spec == other.spec
    }
}

/// What a request is matched by, and the site that it is for.
pub struct Aim<'a> {
    /// For the lobby.
    pub target: Target<'a>,
    /// `None` for a name that only bridges have brought.
    pub site: Option<&'a Site>,
}

impl Sites {
    /// The sites of `settings`.
    #[must_use]
    pub fn new(settings: &Settings) -> Sites {
        let mut sites = Sites { table: settings.site.clone(), ..Sites::default() };
        for (at, site) in settings.site.iter().enumerate() {
            for name in &site.names {
                sites.names.insert(name, at);
            }
            if site.default {
                sites.default = Some(at);
            }
            for inlet in &site.inlets {
                let spec = spec_of(site, &inlet.paths);
                for address in &inlet.addresses {
                    let inlet = Arc::new(Inlet {
                        site: site.name().into(),
                        spec: spec.clone(),
                        address: address.clone(),
                        closed: AtomicBool::new(false),
                    });
                    sites.inlets.push(Listening { inlet, site: at });
                }
            }
        }
        sites
    }

    /// Takes over the inlets of `old` that are here too. Those that are not are to be closed by
    /// [`Sites::close_others`] once it is certain that these sites come into force.
    pub fn take_over(&mut self, old: &Sites) {
        let mut left: Vec<&Arc<Inlet>> = old.inlets.iter().map(|known| &known.inlet).collect();
        for here in &mut self.inlets {
            if let Some(at) = left.iter().position(|known| known.is_like(&here.inlet)) {
                here.inlet = Arc::clone(left.remove(at));
            }
        }
    }

    /// Closes the inlets of `old` that are not here.
    pub fn close_others(&self, old: &Sites) {
        for known in &old.inlets {
            if self.site_of(&known.inlet).is_none() {
                known.inlet.closed.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Whether there is no site at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// All sites, in the order of the settings.
    #[must_use]
    pub fn all(&self) -> &[Arc<Site>] {
        &self.table
    }

    /// Every inlet and where it listens.
    pub fn inlets(&self) -> impl ExactSizeIterator<Item = (&Address, &Arc<Inlet>)> {
        self.inlets.iter().map(|listening| (&listening.inlet.address, &listening.inlet))
    }

    /// The routes that are there even while no bridge is: each site's own, and those of its inlets.
    #[must_use]
    pub fn specs(&self) -> Vec<RouteSpec> {
        let own = self.table.iter().map(|site| spec_of(site, &Paths::All));
        own.chain(self.inlets.iter().map(|listening| listening.inlet.spec.clone())).collect()
    }

    /// The routes of one site, each once.
    #[must_use]
    pub fn specs_of(&self, site: &Site) -> Vec<RouteSpec> {
        let mut specs = vec![spec_of(site, &Paths::All)];
        for inlet in &site.inlets {
            let spec = spec_of(site, &inlet.paths);
            if !specs.contains(&spec) {
                specs.push(spec);
            }
        }
        specs
    }

    /// What a backend that comes by `inlet` must show, empty if nothing; `None` if the inlet is no more.
    #[must_use]
    pub fn key_of(&self, inlet: &Arc<Inlet>) -> Option<&[u8]> {
        self.site_of(inlet).map(|site| site.key.as_ref().map_or(&[][..], Key::bytes))
    }

    fn site_of(&self, inlet: &Arc<Inlet>) -> Option<&Site> {
        let here = self.inlets.iter().find(|here| Arc::ptr_eq(&here.inlet, inlet))?;
        Some(&self.table[here.site])
    }

    /// Where a request for `host`, in lower case, and `path` goes. `None` if nobody is there for it: it is no site's
    /// and no bridge's, and no site is the default.
    #[must_use]
    pub fn aim<'a>(&'a self, host: &'a str, path: &'a str, lobby: &Lobby) -> Option<Aim<'a>> {
        let target = Target::new(host, path);
        if self.is_empty() {
            return Some(Aim { target, site: None });
        }
        if let Some(site) = self.find(host) {
            let fallback = self.backup(site, target, lobby);
            return Some(Aim { target: Target { fallback, ..target }, site: Some(site) });
        }
        if lobby.knows(&target) {
            return Some(Aim { target, site: None });
        }
        let site = &*self.table[self.default?];
        let own = Target::new(site.name(), path);
        let target = match self.backup(site, own, lobby) {
            Some(backup) => Target { fallback: Some(backup), ..own },
            // A bridge that comes to register the very name is welcome too.
            None => Target { fallback: Some(site.name()), ..target },
        };
        Some(Aim { target, site: Some(site) })
    }

    /// The site of `host`: by its name, by the longest wildcard, or by `*`.
    fn find(&self, host: &str) -> Option<&Site> {
        self.names.most_specific(host).map(|at| &*self.table[*at])
    }

    /// The site that has this pattern on its line.
    fn named(&self, pattern: &str) -> Option<&Site> {
        self.names.get(pattern).map(|at| &*self.table[*at])
    }

    /// The name of the first backup that has a backend for `target`, which is asked of `site`, if the site itself has
    /// none.
    fn backup<'a>(&'a self, site: &'a Site, target: Target<'_>, lobby: &Lobby) -> Option<&'a str> {
        let mut next = site.backup.as_deref()?;
        if lobby.has_bridge(&target) {
            return None;
        }
        // The settings have no circles.
        for _ in 0..self.table.len() {
            if lobby.has_bridge(&Target::new(next, target.path)) {
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

/// What holds for a request while it waits.
#[derive(Clone, Copy)]
pub(super) struct WaitPolicy {
    /// How long it waits at most.
    pub wait: Duration,
    /// What it is answered then.
    pub late: Late,
}

/// What holds for the requests of `site`, or of no site.
pub(super) fn wait_policy(site: Option<&Site>, settings: &Settings) -> WaitPolicy {
    match site {
        None => WaitPolicy { wait: settings.wait_timeout, late: Late::GatewayTimeout },
        Some(site) => WaitPolicy {
            wait: site.timeout.unwrap_or(settings.wait_timeout),
            late: Late::Unavailable,
        },
    }
}

/// Has an exchange obey what is set for `site`.
pub(super) fn apply(
    site: &Site,
    meta: RequestMeta,
    exchange_config: &ExchangeConfig,
) -> RequestMeta {
    RequestMeta {
        persistent: meta.persistent && site.keepalive == Keepalive::Yes,
        forwarded: site.forwarded.unwrap_or(exchange_config.forwarded),
        keep: site.redeploy.unwrap_or(exchange_config.retry_limit),
        repeats: match site.redeploy {
            Some(_) => RetryPolicy::Always,
            None => RetryPolicy::IfIdempotent,
        },
        ..meta
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{TABLE, read};
    use crate::routing::{Bounds, Directory};
    use std::path::Path;

    fn settings(lines: &str) -> Settings {
        let mut settings = Settings::default();
        assert_eq!(read(TABLE, Path::new("f"), lines.as_bytes(), &mut settings), []);
        settings
    }

    fn lobby(sites: &Sites) -> Lobby {
        let bounds =
            Bounds { per_route: 9, unserved: 9, unserved_waits: true, bridges_per_host: 0 };
        let directory = Arc::new(Directory::new(1));
        directory.pin(&sites.specs(), 0);
        let mut lobby = Lobby::new(0, directory, bounds);
        lobby.sync();
        lobby
    }

    /// The name of the site and the fallback.
    fn aimed<'a>(
        sites: &'a Sites,
        lobby: &Lobby,
        host: &'a str,
    ) -> Option<(Option<&'a str>, Option<&'a str>)> {
        let aim = sites.aim(host, "/", lobby)?;
        Some((aim.site.map(Site::name), aim.target.fallback))
    }

    #[test]
    fn a_name_is_looked_for_from_the_most_specific_on() {
        let sites =
            Sites::new(&settings("site a.b.c\nsite *.c,d\nsite *.b.c\nsite *.e.b.c,* default\n"));
        let lobby = lobby(&sites);
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
            assert_eq!(aimed(&sites, &lobby, host), Some((Some(site), None)), "{host}");
        }
    }

    #[test]
    fn a_name_of_nobody_goes_to_the_default_if_there_is_one() {
        let without = Sites::new(&settings("site a\n"));
        let mut lobby_without = lobby(&without);
        assert_eq!(aimed(&without, &lobby_without, "x"), None);
        lobby_without.join(&RouteSpec::new(["x"], ""), 0).unwrap();
        assert_eq!(aimed(&without, &lobby_without, "x"), Some((None, None)));
        let with = Sites::new(&settings("site a default\n"));
        assert_eq!(aimed(&with, &lobby(&with), "x"), Some((Some("a"), Some("a"))));
        assert_eq!(aimed(&with, &lobby_without, "x"), Some((None, None)));
        let none = Sites::default();
        assert_eq!(aimed(&none, &lobby(&none), "x"), Some((None, None)));
    }

    #[test]
    fn a_backup_stands_in_while_a_site_has_no_backend() {
        let sites = Sites::new(&settings(
            "site a backup=b default\nsite b backup=*.c\nsite *.c\nsite d backup=b\n",
        ));
        let mut lobby = lobby(&sites);
        assert_eq!(aimed(&sites, &lobby, "a"), Some((Some("a"), None)));
        let c = lobby.join(&RouteSpec::new(["*.c"], ""), 0).unwrap();
        assert_eq!(aimed(&sites, &lobby, "a"), Some((Some("a"), Some("*.c"))));
        assert_eq!(aimed(&sites, &lobby, "unknown"), Some((Some("a"), Some("*.c"))));
        lobby.join(&RouteSpec::new(["b"], ""), 0).unwrap();
        assert_eq!(aimed(&sites, &lobby, "d"), Some((Some("d"), Some("b"))));
        lobby.leave(c.route, 0);
        lobby.join(&RouteSpec::new(["a"], ""), 0).unwrap();
        assert_eq!(aimed(&sites, &lobby, "a"), Some((Some("a"), None)));
        assert_eq!(aimed(&sites, &lobby, "unknown"), Some((Some("a"), Some("a"))));
    }

    #[test]
    fn an_inlet_stays_the_same_as_long_as_it_says_the_same() {
        let old = Sites::new(&settings(
            "site a swiftiply=:1 key=x\nsite b swiftiply=:2\nsite c swiftiply=:3 swiftiply=:0 swiftiply=:0\n",
        ));
        let mut new = Sites::new(&settings(
            "site a swiftiply=:1 key=y timeout=1s\nsite b,bb swiftiply=:2\nsite c swiftiply=:0 swiftiply=:4\n",
        ));
        new.take_over(&old);
        new.close_others(&old);
        let closed: Vec<bool> = old.inlets().map(|(_, inlet)| inlet.is_closed()).collect();
        assert_eq!(closed, [false, true, true, false, true]);
        let (_, a) = old.inlets().next().unwrap();
        assert_eq!(new.key_of(a), Some(&b"y"[..]));
        let (_, b) = old.inlets().nth(1).unwrap();
        assert_eq!(new.key_of(b), None);
        let (_, new_b) = new.inlets().nth(1).unwrap();
        assert_eq!(new.key_of(new_b), Some(&b""[..]));
    }
}
