//! From a host and a path to the routes that serve them, the most specific first.

use std::ops::ControlFlow;

use super::patterns::PatternMap;
use super::route::{Paths, RouteSpec, Target};

/// A route as it stands under one of its patterns.
#[derive(Debug)]
struct Listed {
    /// Held here so that the common route, which serves every path, is found without a look elsewhere.
    paths: Paths,
    route: u32,
}

/// The routes of one worker by host pattern. Lookups allocate nothing.
#[derive(Debug, Default)]
pub(super) struct Index {
    listed: PatternMap<Vec<Listed>>,
}

impl Index {
    /// Files `route` under each of its patterns.
    pub(super) fn insert(&mut self, spec: &RouteSpec, route: u32) {
        for pattern in spec.patterns() {
            let listed = Listed { paths: spec.paths().clone(), route };
            let Some(list) = self.listed.get_mut(pattern) else {
                self.listed.insert(pattern, vec![listed]);
                continue;
            };
            // The order of specificity within a pattern.
            let at = list.partition_point(|other| other.paths.rank() >= listed.paths.rank());
            list.insert(at, listed);
        }
    }

    /// Takes `route` out from under each of its patterns.
    pub(super) fn remove(&mut self, spec: &RouteSpec, route: u32) {
        for pattern in spec.patterns() {
            let Some(list) = self.listed.get_mut(pattern) else { continue };
            list.retain(|listed| listed.route != route);
            if list.is_empty() {
                self.listed.remove(pattern);
            }
        }
    }

    /// The routes filed under the first pattern of `spec`; a route with an equal spec is among them, if there is one.
    pub(super) fn namesakes<'a>(&'a self, spec: &RouteSpec) -> impl Iterator<Item = u32> + use<'a> {
        let list = spec.patterns().first().and_then(|pattern| self.listed.get(pattern));
        list.into_iter().flatten().map(|listed| listed.route)
    }

    /// Shows `visit` every route that serves what `target` asks for, the most specific first: exact name, longest
    /// wildcard suffix, `*`; within each the expressions, then the longest prefix (`doc/protocol.md`, "BRIDGE"); and
    /// after all of these the fallback's in the same order. A route that serves it by several of its patterns is shown
    /// once for each.
    pub(super) fn visit<B>(
        &self,
        target: &Target<'_>,
        mut visit: impl FnMut(u32) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        self.visit_name(target.host, target.path, &mut visit)?;
        match target.fallback {
            Some(name) => self.visit_name(name, target.path, &mut visit),
            None => ControlFlow::Continue(()),
        }
    }

    fn visit_name<B>(
        &self,
        host: &str,
        path: &str,
        visit: &mut impl FnMut(u32) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        self.listed.visit(host, |list| {
            list.iter()
                .filter(|listed| listed.paths.have(path))
                .try_for_each(|listed| visit(listed.route))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(specs: &[(&[&str], &str)]) -> Index {
        let mut index = Index::default();
        for (route, (patterns, prefix)) in specs.iter().enumerate() {
            index.insert(&RouteSpec::new(patterns.iter(), prefix), route as u32);
        }
        index
    }

    fn found(index: &Index, host: &str, path: &str) -> Vec<u32> {
        let mut found = Vec::new();
        let _ = index.visit::<()>(&Target::new(host, path), |route| {
            found.push(route);
            ControlFlow::Continue(())
        });
        found
    }

    #[test]
    fn the_most_specific_route_comes_first() {
        let index = index(&[
            (&["*"], "/"),
            (&["*.com"], "/"),
            (&["*.b.com"], "/"),
            (&["a.b.com"], "/"),
            (&["a.b.com"], "/app"),
            (&["*.b.com"], "/app/deep"),
        ]);
        assert_eq!(found(&index, "a.b.com", "/app/deep/x"), [4, 3, 5, 2, 1, 0]);
        assert_eq!(found(&index, "a.b.com", "/apple"), [3, 2, 1, 0]);
        assert_eq!(found(&index, "x.y.b.com", "/"), [2, 1, 0]);
        assert_eq!(found(&index, "b.com", "/"), [1, 0]);
        assert_eq!(found(&index, "com", "*"), [0]);
    }

    #[test]
    fn an_expression_goes_before_prefixes_and_a_fallback_comes_last() {
        let mut index =
            index(&[(&["a.b"], "/x/long"), (&["*.b"], "/"), (&["c"], "/x"), (&["*"], "/")]);
        let expression = |text| regex::bytes::Regex::new(text).unwrap();
        for (route, text) in [(4, "y$"), (5, "^/x/l")] {
            index.insert(&RouteSpec::matching(["a.b"], expression(text)), route);
        }
        let found = |host, fallback, path| {
            let mut found = Vec::new();
            let _ = index.visit::<()>(&Target { host, fallback, path }, |route| {
                found.push(route);
                ControlFlow::Continue(())
            });
            found
        };
        assert_eq!(found("a.b", None, "/x/long/y?q"), [4, 5, 0, 1, 3]);
        assert_eq!(found("a.b", None, "/x/long?y"), [5, 0, 1, 3]);
        assert_eq!(found("a.b", Some("c"), "/x"), [1, 3, 2, 3]);
        assert_eq!(found("q", Some("*.b"), "/"), [3, 1, 3]);
        assert_eq!(found("q", Some("*"), "/"), [3, 3]);
    }

    #[test]
    fn what_was_removed_is_found_no_more() {
        let mut index = index(&[(&["a", "*.a", "*"], "/"), (&["a"], "/")]);
        assert_eq!(found(&index, "a", "/"), [0, 1, 0]);
        index.remove(&RouteSpec::new(["a", "*.a", "*"], "/"), 0);
        assert_eq!(found(&index, "a", "/"), [1]);
        assert_eq!(found(&index, "x.a", "/"), [0u32; 0]);
        assert!(index.listed.below.is_empty());
    }
}
