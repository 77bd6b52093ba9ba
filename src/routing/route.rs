//! What a set of bridges serves, and what a request asks for.

use std::fmt;
use std::hash::{Hash, Hasher};

use regex::bytes::Regex;

/// The host patterns and the paths that a set of bridges serves. Bridges with an equal spec share one route.
///
/// Patterns are `name`, `*.suffix` or `*` (`doc/protocol.md`, "BRIDGE"); whoever builds a spec has checked them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteSpec {
    /// Lower-case, sorted, without repeats: two bridges that name the same hosts in another order are on one route.
    patterns: Box<[Box<str>]>,
    paths: Paths,
}

impl RouteSpec {
    /// For the paths below a prefix. Brings both into the one form in which equal routes compare equal.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>, prefix: &str) -> Self {
        Self::with(patterns, Paths::Under(prefix.trim_end_matches('/').into()))
    }

    /// For the paths, without their query, in which an expression finds something.
    pub fn matching<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>, regex: Regex) -> Self {
        Self::with(patterns, Paths::Matching(Expression(regex)))
    }

    fn with<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>, paths: Paths) -> Self {
        let mut patterns: Vec<Box<str>> = patterns
            .into_iter()
            .map(|p| p.as_ref().to_ascii_lowercase().into_boxed_str())
            .collect();
        patterns.sort_unstable();
        patterns.dedup();
        RouteSpec { patterns: patterns.into_boxed_slice(), paths }
    }

    /// The host patterns, lower-case and sorted.
    pub fn patterns(&self) -> &[Box<str>] {
        &self.patterns
    }

    /// Which paths of these hosts.
    pub(super) fn paths(&self) -> &Paths {
        &self.paths
    }
}

/// Which paths a route serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Paths {
    /// Those under this prefix, which has no slash at its end and is empty for all paths.
    Under(Box<str>),
    /// Those in which this is found.
    Matching(Expression),
}

impl Paths {
    /// Whether `path`, with or without a query, is one of them.
    pub(super) fn have(&self, path: &str) -> bool {
        match self {
            Paths::Under(prefix) => path_is_under(path, prefix),
            Paths::Matching(Expression(regex)) => regex.is_match(path_alone(path).as_bytes()),
        }
    }

    /// The higher, the more specific among the routes of one pattern: expressions, in the order in which they came,
    /// go before prefixes, of which the longest is first. Whoever writes an expression means those very paths.
    pub(super) fn rank(&self) -> usize {
        match self {
            Paths::Under(prefix) => prefix.len(),
            Paths::Matching(_) => usize::MAX,
        }
    }
}

/// A compiled expression. Two are equal if their texts are.
#[derive(Clone)]
pub(super) struct Expression(Regex);

impl PartialEq for Expression {
    fn eq(&self, other: &Expression) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Expression {}

impl Hash for Expression {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.0)
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The host, lower-case and without a port.
    pub host: &'a str,
    /// Another name whose routes serve the request too, each less specific than all of `host`'s.
    pub fallback: Option<&'a str>,
    /// Origin form or `*`.
    pub path: &'a str,
}

impl<'a> Target<'a> {
    /// What a request asks for that has no fallback.
    pub fn new(host: &'a str, path: &'a str) -> Self {
        Target { host, fallback: None, path }
    }
}

/// One host pattern, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern<'a> {
    /// This name and no other.
    Exact(&'a str),
    /// Every name with one or more labels before `.suffix`; holds the suffix without `*.`.
    Below(&'a str),
    /// Every name.
    Any,
}

impl<'a> Pattern<'a> {
    /// Reads the text of a pattern.
    pub(super) fn read(text: &'a str) -> Self {
        match text.strip_prefix("*.") {
            Some(suffix) => Pattern::Below(suffix),
            None if text == "*" => Pattern::Any,
            None => Pattern::Exact(text),
        }
    }
}

/// Whether `path` lies under `prefix`, by whole segments: `/app` has `/app`, `/app/x` and `/app?q`, not `/apple`.
/// The empty prefix has everything, `*` (of `OPTIONS *`) included.
pub(super) fn path_is_under(path: &str, prefix: &str) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) => {
            prefix.is_empty() || matches!(rest.as_bytes().first(), None | Some(b'/' | b'?' | b'#'))
        }
        None => false,
    }
}

/// The part of a request target that decides about prefixes: what stands before the query.
pub(super) fn path_alone(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_routes_compare_equal_in_any_order_and_case() {
        let one = RouteSpec::new(["B.example", "a.example", "b.example"], "/app/");
        assert_eq!(one, RouteSpec::new(["a.example", "b.example"], "/app"));
        assert_eq!(one.patterns(), ["a.example".into(), "b.example".into()]);
        assert_eq!(*one.paths(), Paths::Under("/app".into()));
        assert_eq!(*RouteSpec::new(["a"], "/").paths(), Paths::Under("".into()));
        assert_ne!(RouteSpec::new(["a"], "/x"), RouteSpec::new(["a"], "/X"));
    }

    #[test]
    fn an_expression_is_searched_for_in_the_path_alone() {
        let spec = |text| RouteSpec::matching(["a"], Regex::new(text).unwrap());
        assert_eq!(spec("x$"), spec("x$"));
        assert_ne!(spec("x$"), spec("x"));
        assert_ne!(spec("x"), RouteSpec::new(["a"], "x"));
        for (path, found) in [("/x", true), ("/x?y", true), ("/x/y", false), ("/?x", false)] {
            assert_eq!(spec("x$").paths().have(path), found, "{path}");
        }
    }

    #[test]
    fn a_prefix_matches_whole_segments() {
        for (path, under) in [
            ("/app", true),
            ("/app/", true),
            ("/app/x", true),
            ("/app?q", true),
            ("/apple", false),
            ("/", false),
        ] {
            assert_eq!(path_is_under(path, "/app"), under, "{path}");
        }
        assert!(path_is_under("*", "") && !path_is_under("*", "/app"));
    }

    #[test]
    fn patterns_are_read() {
        assert_eq!(Pattern::read("a.b"), Pattern::Exact("a.b"));
        assert_eq!(Pattern::read("*.b"), Pattern::Below("b"));
        assert_eq!(Pattern::read("*"), Pattern::Any);
    }
}
