//! Finds the site and the routes that serve a host and a path, most specific first.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::paths::PathMap;
use super::patterns::{PatternMap, Walk};
use super::route::Route;
use super::spec::{Resolved, Resume, RouteQuery, RouteSpec};

/// One worker's table by host pattern. Lookups allocate nothing.
#[derive(Debug)]
pub(super) struct Index<B> {
    hosts: PatternMap<Host<B>>,
    /// The patterns that have a site.
    sites: Vec<Arc<str>>,
    /// Incremented with every change, so that a lookup is not resumed in a changed table.
    version: u64,
}

/// What is filed under one pattern.
#[derive(Debug)]
struct Host<B> {
    site: Option<u32>,
    routes: PathMap<B>,
}

impl<B> Default for Host<B> {
    fn default() -> Self {
        Host { site: None, routes: PathMap::default() }
    }
}

impl<B> Default for Index<B> {
    fn default() -> Self {
        Index { hosts: PatternMap::default(), sites: Vec::new(), version: 0 }
    }
}

impl<B> Index<B> {
    /// Files `route` under each of its patterns.
    pub(super) fn insert(&mut self, route: &Arc<Route<B>>) {
        self.version += 1;
        for pattern in route.spec().patterns() {
            self.hosts.entry(pattern).routes.insert(route);
        }
    }

    /// Takes `route` out from under each of its patterns.
    pub(super) fn remove(&mut self, route: &Arc<Route<B>>) {
        self.version += 1;
        for pattern in route.spec().patterns() {
            self.hosts.change(pattern, |host| {
                host.routes.remove(route);
                host.routes.is_empty() && host.site.is_none()
            });
        }
    }

    /// Gives each pattern its site, and takes their sites from all others.
    pub(super) fn set_sites<'s>(&mut self, sites: impl IntoIterator<Item = (&'s str, u32)>) {
        self.version += 1;
        for pattern in self.sites.drain(..) {
            self.hosts.change(&pattern, |host| {
                host.site = None;
                host.routes.is_empty()
            });
        }
        for (pattern, site) in sites {
            let pattern: Arc<str> = pattern.into();
            self.hosts.entry(&pattern).site = Some(site);
            self.sites.push(pattern);
        }
    }

    /// The route with this very spec.
    pub(super) fn find(&self, spec: &RouteSpec) -> Option<&Arc<Route<B>>> {
        self.hosts.get(spec.patterns().first()?)?.routes.find(spec)
    }

    /// Looks `host` up as far as is needed to find its site.
    pub(super) fn resolve<'a>(&self, host: &'a str, path: &'a str) -> Resolved<'a> {
        let query = RouteQuery::new(host, path);
        if self.sites.is_empty() {
            return Resolved { site: None, query };
        }
        let mut walk = Walk::default();
        let first = self.hosts.step(host, &mut walk);
        let resume = Some(Resume { version: self.version, first, rest: walk });
        let mut next = first;
        let site = loop {
            let Some(key) = next else { break None };
            match self.hosts.value(key).site {
                Some(site) => break Some(site),
                None => next = self.hosts.step(host, &mut walk),
            }
        };
        Resolved { site, query: RouteQuery { resume, ..query } }
    }

    /// Calls `visit` with every route that serves `query`, the most specific first: exact name,
    /// longest wildcard suffix, `*`; within each the expressions, then the longest prefix; within that
    /// the most specific predicates (`doc/protocol.md`, "BRIDGE"); then those of the fallback in the same order. A route that
    /// matches by several of its patterns is visited once for each; one that is confined, only if
    /// no more specific pattern has a route.
    pub(super) fn visit<'i, R>(
        &'i self,
        query: &RouteQuery<'_>,
        mut visit: impl FnMut(&'i Arc<Route<B>>) -> ControlFlow<R>,
    ) -> ControlFlow<R> {
        let (first, rest) = match query.resume {
            Some(resume) if resume.version == self.version => (resume.first, resume.rest),
            _ => (None, Walk::default()),
        };
        let mut served = false;
        if let Some(key) = first {
            self.visit_host(key, query, &mut served, &mut visit)?;
        }
        self.visit_name(query.host, rest, query, &mut served, &mut visit)?;
        match query.fallback {
            Some(name) => self.visit_name(name, Walk::default(), query, &mut served, &mut visit),
            None => ControlFlow::Continue(()),
        }
    }

    fn visit_name<'i, R>(
        &'i self,
        name: &str,
        mut walk: Walk,
        query: &RouteQuery<'_>,
        served: &mut bool,
        visit: &mut impl FnMut(&'i Arc<Route<B>>) -> ControlFlow<R>,
    ) -> ControlFlow<R> {
        while let Some(key) = self.hosts.step(name, &mut walk) {
            self.visit_host(key, query, served, visit)?;
        }
        ControlFlow::Continue(())
    }

    /// Visits the routes of one pattern. `served`: a more specific one has routes, for any path.
    fn visit_host<'i, R>(
        &'i self,
        key: u32,
        query: &RouteQuery<'_>,
        served: &mut bool,
        visit: &mut impl FnMut(&'i Arc<Route<B>>) -> ControlFlow<R>,
    ) -> ControlFlow<R> {
        let routes = &self.hosts.value(key).routes;
        if !std::mem::replace(served, *served || !routes.is_empty()) {
            return routes.visit(query, visit);
        }
        routes.visit(query, &mut |route| match route.spec().is_confined() {
            true => ControlFlow::Continue(()),
            false => visit(route),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Micros;

    impl<B> Index<B> {
        /// How many patterns have something filed under them.
        pub(in crate::routing) fn len(&self) -> usize {
            self.hosts.len()
        }
    }

    fn route(id: u64, patterns: &[&str], prefix: &str) -> Arc<Route<u64>> {
        Arc::new(Route::new(id, RouteSpec::new(patterns, prefix), Micros(0)))
    }

    fn index(specs: &[(&[&str], &str)]) -> Index<u64> {
        let mut index = Index::default();
        for (id, (patterns, prefix)) in specs.iter().enumerate() {
            index.insert(&route(id as u64, patterns, prefix));
        }
        index
    }

    fn found(index: &Index<u64>, query: RouteQuery<'_>) -> Vec<u64> {
        let mut found = Vec::new();
        let _ = index.visit::<()>(&query, |route| {
            found.push(route.id());
            ControlFlow::Continue(())
        });
        found
    }

    #[test]
    fn most_specific_route_comes_first_and_the_fallback_last() {
        let index = index(&[
            (&["*"], "/"),
            (&["*.com"], "/"),
            (&["*.b.com"], "/"),
            (&["a.b.com"], "/"),
            (&["a.b.com"], "/app"),
            (&["*.b.com"], "/app/deep"),
            (&["c"], "/app"),
        ]);
        let new = RouteQuery::new;
        assert_eq!(found(&index, new("a.b.com", "/app/deep/x")), [4, 3, 5, 2, 1, 0]);
        assert_eq!(found(&index, new("a.b.com", "/apple")), [3, 2, 1, 0]);
        assert_eq!(found(&index, new("com", "*")), [0]);
        assert_eq!(found(&index, new("b.com", "/app").with_fallback(Some("c"))), [1, 0, 6, 0]);
        assert_eq!(found(&index, new("q", "/").with_fallback(Some("*.b.com"))), [0, 2, 1, 0]);
        assert_eq!(found(&index, new("q", "/").with_fallback(Some("*"))), [0, 0]);
    }

    #[test]
    fn confined_route_helps_out_for_no_more_specific_pattern() {
        let mut index = index(&[(&["a.b"], "/app"), (&["*.b"], "/"), (&["c"], "/")]);
        for (id, pattern) in [(10, "*"), (11, "*.b")] {
            let spec = RouteSpec::new([pattern], "/").confined();
            index.insert(&Arc::new(Route::new(id, spec, Micros(0))));
        }
        index.insert(&route(20, &["*"], "/"));
        let new = RouteQuery::new;
        let sorted = |query| {
            let mut found = found(&index, query);
            found.sort_unstable();
            found
        };
        // The name has a route, if not for this path.
        assert_eq!(sorted(new("a.b", "/other")), [1, 20]);
        assert_eq!(sorted(new("a.b", "/app")), [0, 1, 20]);
        assert_eq!(sorted(new("x.b", "/")), [1, 11, 20]);
        assert_eq!(sorted(new("q", "/")), [10, 20]);
        assert_eq!(sorted(new("c", "/")), [2, 20]);
        assert_eq!(sorted(new("c", "/").with_fallback(Some("q"))), [2, 20, 20]);
    }

    #[test]
    fn a_host_is_looked_up_once_for_its_site_and_its_routes() {
        let mut index = index(&[(&["a.b"], "/"), (&["*.b"], "/x"), (&["*"], "/")]);
        index.set_sites([("*.b", 0), ("c", 1)]);
        for (host, site, routes) in [
            ("a.b", Some(0), vec![0, 1, 2]),
            ("q.b", Some(0), vec![1, 2]),
            ("c", Some(1), vec![2]),
            ("q", None, vec![2]),
        ] {
            let resolved = index.resolve(host, "/x");
            assert!(resolved.query.resume.is_some());
            assert_eq!((resolved.site, found(&index, resolved.query)), (site, routes), "{host}");
        }
        // In a table that has changed since, the lookup starts over.
        let old = index.resolve("a.b", "/x").query;
        let new = route(9, &["a.b"], "/x");
        index.insert(&new);
        assert_eq!(found(&index, old), [9, 0, 1, 2]);
    }

    #[test]
    fn what_was_removed_is_not_found() {
        let mut index = index(&[]);
        let routes = [route(0, &["a", "*.a", "*"], "/"), route(1, &["a"], "/x")];
        routes.iter().for_each(|route| index.insert(route));
        assert_eq!(found(&index, RouteQuery::new("a", "/x")), [1, 0, 0]);
        index.set_sites([("*", 0), ("d", 1)]);
        index.remove(&routes[0]);
        assert_eq!(found(&index, RouteQuery::new("a", "/x")), [1]);
        assert_eq!((index.len(), index.resolve("z", "/").site), (3, Some(0)));
        index.set_sites([]);
        assert_eq!((index.len(), index.resolve("z", "/").site), (1, None));
        index.remove(&routes[1]);
        assert_eq!(index.len(), 0);
    }
}
