//! The routes of one host pattern by path, and within a path by predicates.

use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::http::under::{is_under, path_alone};

use super::route::Route;
use super::spec::{Paths, RouteQuery, RouteSpec};

/// Routes by path. Expressions go before prefixes, in the order in which they came; the longest
/// prefix comes first, and within a prefix the route with the most specific predicates.
#[derive(Default, Debug)]
pub(super) enum PathMap<B> {
    #[default]
    Empty,
    /// One route, which serves every path and request: the common case.
    All(Arc<Route<B>>),
    /// One route that does not serve every path, but every request for those it does.
    One(Arc<Route<B>>),
    Some(Box<ByPath<B>>),
}

#[derive(Debug)]
pub(super) struct ByPath<B> {
    expressions: Vec<Arc<Route<B>>>,
    /// In the order of [`by_segments`], and of [`by_predicates`].
    prefixes: Vec<(Arc<str>, Arc<Route<B>>)>,
    /// Whether any route here has predicates: only then is each looked at for them.
    has_predicates: bool,
}

impl<B> PathMap<B> {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, PathMap::Empty)
    }

    /// Adds a route. No route with an equal spec may be present.
    pub(super) fn insert(&mut self, route: &Arc<Route<B>>) {
        let spec = route.spec();
        match self {
            PathMap::Empty if spec.predicates().is_none() => {
                let route = Arc::clone(route);
                let is_all = spec.prefix() == Some("");
                *self = if is_all { PathMap::All(route) } else { PathMap::One(route) };
            }
            PathMap::Empty => *self = PathMap::Some(Box::new(ByPath::of([route]))),
            PathMap::Some(by_path) => by_path.insert(route),
            PathMap::All(known) | PathMap::One(known) => {
                *self = PathMap::Some(Box::new(ByPath::of([known, route])));
            }
        }
    }

    /// Takes a route away.
    pub(super) fn remove(&mut self, route: &Arc<Route<B>>) {
        let empty = match self {
            PathMap::Empty => true,
            PathMap::All(known) | PathMap::One(known) => Arc::ptr_eq(known, route),
            PathMap::Some(by_path) => {
                by_path.remove(route);
                by_path.routes().next().is_none()
            }
        };
        if empty {
            *self = PathMap::Empty;
        }
    }

    /// The route with this very spec.
    pub(super) fn find(&self, spec: &RouteSpec) -> Option<&Arc<Route<B>>> {
        let is_it = |route: &&Arc<Route<B>>| route.spec() == spec;
        match (self, spec.paths()) {
            (PathMap::Empty, _) => None,
            (PathMap::All(known) | PathMap::One(known), _) => Some(known).filter(is_it),
            (PathMap::Some(by_path), Paths::Matching(_)) => by_path.expressions.iter().find(is_it),
            (PathMap::Some(by_path), Paths::Under(prefix)) => {
                by_path.with_prefix(prefix).map(|(_, route)| route).find(is_it)
            }
        }
    }

    /// Calls `visit` with the routes that serve the path of `query` and whose predicates it meets, most
    /// specific first.
    pub(super) fn visit<'a, R>(
        &'a self,
        query: &RouteQuery<'_>,
        visit: &mut impl FnMut(&'a Arc<Route<B>>) -> ControlFlow<R>,
    ) -> ControlFlow<R> {
        match self {
            PathMap::All(route) => visit(route),
            PathMap::One(route) if route.spec().paths().have(query.path) => visit(route),
            PathMap::Empty | PathMap::One(_) => ControlFlow::Continue(()),
            PathMap::Some(by_path) if by_path.has_predicates => by_path.visit(
                path_alone(query.path),
                &mut |route| match query.meets(route.spec()) {
                    true => visit(route),
                    false => ControlFlow::Continue(()),
                },
            ),
            PathMap::Some(by_path) => by_path.visit(path_alone(query.path), visit),
        }
    }
}

impl<B> ByPath<B> {
    fn of<const N: usize>(routes: [&Arc<Route<B>>; N]) -> Self {
        let (expressions, prefixes) = (Vec::new(), Vec::new());
        let mut by_path = ByPath { expressions, prefixes, has_predicates: false };
        routes.into_iter().for_each(|route| by_path.insert(route));
        by_path
    }

    fn routes(&self) -> impl Iterator<Item = &Arc<Route<B>>> {
        self.expressions.iter().chain(self.prefixes.iter().map(|(_, route)| route))
    }

    fn remove(&mut self, route: &Arc<Route<B>>) {
        self.expressions.retain(|other| !Arc::ptr_eq(other, route));
        self.prefixes.retain(|(_, other)| !Arc::ptr_eq(other, route));
        let has_predicates = self.routes().any(|other| other.spec().predicates().is_some());
        self.has_predicates = has_predicates;
    }

    fn insert(&mut self, route: &Arc<Route<B>>) {
        self.has_predicates |= route.spec().predicates().is_some();
        match route.spec().paths() {
            Paths::Matching(_) => self.expressions.push(Arc::clone(route)),
            Paths::Under(prefix) => {
                let end = self.behind(prefix);
                let start = end - self.with_prefix(prefix).count();
                let before = |(_, other): &(Arc<str>, Arc<Route<B>>)| {
                    by_predicates(other.spec(), route.spec()).is_le()
                };
                let at = start + self.prefixes[start..end].partition_point(before);
                self.prefixes.insert(at, (Arc::clone(prefix), Arc::clone(route)));
            }
        }
    }

    /// The index behind the last prefix that does not sort after `path`.
    fn behind(&self, path: &str) -> usize {
        self.prefixes.partition_point(|(prefix, _)| by_segments(prefix, path).is_le())
    }

    /// The routes with exactly this prefix, by predicates and then in order of insertion: routes with
    /// different sets of names may share a pattern and a prefix.
    fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = &(Arc<str>, Arc<Route<B>>)> {
        let end = self.behind(prefix);
        let start = self.prefixes[..end].partition_point(|(other, _)| **other != *prefix);
        self.prefixes[start..end].iter()
    }

    /// `path` has no query.
    ///
    /// In this order a prefix is followed by everything under it. So if a prefix not yet visited
    /// serves the path, the last prefix that does not sort after the path is that one or lies under
    /// it; and the whole segments that it shares with the path still lie under that one.
    fn visit<'a, R>(
        &'a self,
        path: &str,
        visit: &mut impl FnMut(&'a Arc<Route<B>>) -> ControlFlow<R>,
    ) -> ControlFlow<R> {
        for route in &self.expressions {
            if route.spec().paths().have(path) {
                visit(route)?;
            }
        }
        let mut rest = path;
        while let Some(before) = self.behind(rest).checked_sub(1) {
            let last = &*self.prefixes[before].0;
            if !is_under(rest, last) {
                rest = common_segments(rest, last);
                continue;
            }
            self.with_prefix(last).try_for_each(|(_, route)| visit(route))?;
            if last.is_empty() {
                break;
            }
            rest = &last[..last.rfind('/').unwrap_or(0)];
        }
        ControlFlow::Continue(())
    }
}

/// Compares paths segment by segment: as bytes, with `/` less than every other byte.
fn by_segments(a: &str, b: &str) -> Ordering {
    let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let next =
        |text: &str| text.as_bytes().get(same).map(|byte| if *byte == b'/' { 0 } else { *byte });
    next(a).cmp(&next(b))
}

/// Compares what routes of one prefix demand: the more specific comes first. Which of two equally
/// specific ones is first must not depend on which came first, which may differ between proxies.
fn by_predicates(a: &RouteSpec, b: &RouteSpec) -> Ordering {
    match (a.predicates(), b.predicates()) {
        (Some(a), Some(b)) => {
            let order = b.specificity().cmp(&a.specificity());
            order.then_with(|| a.to_string().cmp(&b.to_string()))
        }
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

/// The longest beginning of `path`, in whole segments, under which `other` lies too.
fn common_segments<'a>(path: &'a str, other: &str) -> &'a str {
    let same = path.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    let ends = |text: &str| text.as_bytes().get(same).is_none_or(|byte| *byte == b'/');
    if ends(path) && ends(other) {
        return &path[..same];
    }
    &path[..path.as_bytes()[..same].iter().rposition(|byte| *byte == b'/').unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use regex::bytes::Regex;

    use super::*;
    use crate::http::Predicates;
    use crate::time::Micros;

    fn route(id: usize, spec: RouteSpec) -> Arc<Route<u64>> {
        Arc::new(Route::new(id as u64, spec, Micros(0)))
    }

    fn map(prefixes: &[&str]) -> PathMap<u64> {
        let mut map = PathMap::default();
        for (id, prefix) in prefixes.iter().enumerate() {
            map.insert(&route(id, RouteSpec::new(["a"], prefix)));
        }
        map
    }

    fn found(map: &PathMap<u64>, path: &str) -> Vec<u64> {
        let mut found = Vec::new();
        let get = |predicates: &Predicates| predicates.to_string().contains("GET");
        let query = RouteQuery::new("a", path).with_meets(Some(&get));
        let _ = map.visit::<()>(&query, &mut |route| {
            found.push(route.id());
            ControlFlow::Continue(())
        });
        found
    }

    #[test]
    fn longest_prefix_comes_first() {
        let map = map(&["", "/app", "/app/deep", "/apple", "/app-2", "/b"]);
        assert_eq!(found(&map, "/app/deep/x?y"), [2, 1, 0]);
        assert_eq!(found(&map, "/app/deeper"), [1, 0]);
        assert_eq!(found(&map, "/app?x"), [1, 0]);
        assert_eq!(found(&map, "/app-2/"), [4, 0]);
        assert_eq!(found(&map, "*"), [0]);
    }

    #[test]
    fn expressions_go_before_prefixes_in_the_order_in_which_they_came() {
        let mut map = map(&["", "/x/long"]);
        for (id, text) in [(2, "y$"), (3, "^/x/l")] {
            map.insert(&route(id, RouteSpec::matching(["a"], Regex::new(text).unwrap())));
        }
        assert_eq!(found(&map, "/x/long/y?q"), [2, 3, 1, 0]);
        assert_eq!(found(&map, "/x/long?y"), [3, 1, 0]);
    }

    #[test]
    fn of_one_prefix_the_most_specific_predicates_come_first() {
        let mut map = map(&["", "/x"]);
        for (id, prefix, shown) in [
            (2, "/x", "If-Max-Body: 10; If-Header: get=GET"),
            (3, "", "If-Method: GET"),
            (4, "/x", "If-Header: get=GET"),
            (5, "/x", "If-Method: POST"),
            (6, "/x", "If-Method: GET"),
            (7, "/x", "If-Header: alike=GET"),
        ] {
            let predicates = Predicates::read(shown).unwrap();
            let spec = RouteSpec::new(["a"], prefix).only_if(predicates);
            map.insert(&route(id, spec.clone()));
            assert_eq!(map.find(&spec).unwrap().id(), id as u64);
        }
        assert_eq!(found(&map, "/x/y"), [2, 7, 4, 6, 1, 3, 0]);
        assert_eq!(found(&map, "/"), [3, 0]);
        for prefix in ["", "/x"] {
            map.remove(&Arc::clone(map.find(&RouteSpec::new(["a"], prefix)).unwrap()));
        }
        assert_eq!(found(&map, "/x/y"), [2, 7, 4, 6, 3]);
        let mut one = PathMap::default();
        one.insert(&route(
            9,
            RouteSpec::new(["a"], "").only_if(Predicates::read("If-Method: PUT").unwrap()),
        ));
        assert_eq!(found(&one, "/"), [0; 0]);
    }

    #[test]
    fn routes_are_found_by_spec_and_removed() {
        for prefixes in [&["/"][..], &["/", "/a"], &["/a"]] {
            let mut map = PathMap::default();
            let other = RouteSpec::new(["a", "b"], prefixes[0]);
            let routes: Vec<_> =
                prefixes.iter().map(|prefix| route(0, RouteSpec::new(["a"], prefix))).collect();
            routes.iter().for_each(|route| map.insert(route));
            assert!(map.find(&other).is_none());
            for route in &routes {
                assert!(Arc::ptr_eq(map.find(route.spec()).unwrap(), route));
                map.remove(route);
                assert!(map.find(route.spec()).is_none());
            }
            assert!(map.is_empty());
        }
    }

    /// Random prefixes and paths, made of a few segments that begin alike, against the definition:
    /// prefixes of whole segments, longest first.
    #[test]
    fn lookup_is_the_same_as_asking_every_prefix() {
        let segments = ["a", "ab", "a-", "", "b"];
        let mut seed = 1_u64;
        let mut below = |n: usize| {
            seed = seed.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
            (seed >> 33) as usize % n
        };
        for _ in 0..20_000 {
            let mut path = |most: usize| -> String {
                (0..below(most + 1)).map(|_| format!("/{}", segments[below(5)])).collect()
            };
            let prefixes: Vec<String> =
                (0..12).map(|_| path(4).trim_end_matches('/').to_owned()).collect();
            let asked = path(5) + ["", "?/x", "#"][below(3)];
            let map = map(&prefixes.iter().map(String::as_str).collect::<Vec<_>>());
            let mut expected: Vec<usize> = (0..prefixes.len())
                .filter(|at| is_under(path_alone(&asked), &prefixes[*at]))
                .collect();
            expected.sort_by_key(|at| std::cmp::Reverse(prefixes[*at].len()));
            let expected: Vec<u64> = expected.into_iter().map(|at| at as u64).collect();
            assert_eq!(found(&map, &asked), expected, "{asked} in {prefixes:?}");
        }
    }
}
