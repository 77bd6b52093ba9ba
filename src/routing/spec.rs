//! What a set of bridges serves, and what a request asks for.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem::offset_of;
use std::sync::Arc;

use regex::bytes::Regex;

use crate::http::Predicates;
use crate::http::under::{is_under, path_alone};

use super::patterns::{Pattern, Walk};
use super::wanted::Wanted;

/// The host patterns and the paths that a set of bridges serves. Bridges with an equal spec share
/// one route. Cheap to clone.
///
/// Patterns are `name`, `*.suffix` or `*` (`doc/protocol.md`, "BRIDGE"); the caller has checked
/// them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct RouteSpec {
    paths: Paths,
    /// What else a request must be like; `None` for nothing.
    predicates: Option<Arc<Predicates>>,
    confined: bool,
    /// Lower-case, sorted, without repeats: two bridges that name the same hosts in another order
    /// are on one route.
    patterns: Arc<[Arc<str>]>,
}

/// Whether a request meets what a route demands of it.
pub type Meets<'a> = &'a dyn Fn(&Predicates) -> bool;

/// The same of a request that waits, which is named as to [`super::Scheduler::enqueue`].
pub type WaitingMeets<'a> = &'a dyn Fn(u64, &Predicates) -> bool;

impl RouteSpec {
    /// How many bytes at its beginning a look-up by the most specific name needs.
    pub(super) const LOOKED_UP: usize = offset_of!(RouteSpec, confined);

    /// For the paths below a prefix. Normalises both, so that equal routes compare equal.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>, prefix: &str) -> Self {
        Self::with(patterns, Paths::Under(prefix.trim_end_matches('/').into()))
    }

    /// For the paths, without their query, that match an expression.
    pub fn matching<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>, regex: Regex) -> Self {
        Self::with(patterns, Paths::Matching(Expression(regex)))
    }

    fn with<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>, paths: Paths) -> Self {
        let mut patterns: Vec<Arc<str>> =
            patterns.into_iter().map(|p| p.as_ref().to_ascii_lowercase().into()).collect();
        patterns.sort_unstable();
        patterns.dedup();
        RouteSpec { patterns: patterns.into(), paths, predicates: None, confined: false }
    }

    /// The same, only for requests that meet these.
    #[must_use]
    pub fn only_if(self, predicates: Predicates) -> Self {
        let predicates = (!predicates.is_empty()).then(|| Arc::new(predicates));
        RouteSpec { predicates, ..self }
    }

    /// What a request must be like, beside its host and path.
    pub fn predicates(&self) -> Option<&Predicates> {
        self.predicates.as_deref()
    }

    /// The same, for bridges that may serve no name that a more specific pattern has: they have not
    /// proved that the name is theirs (`doc/protocol.md`, "Which bridge gets a request").
    #[must_use]
    pub fn confined(self) -> Self {
        RouteSpec { confined: true, ..self }
    }

    /// What it serves alone, as [`RouteSpec::new`] and [`RouteSpec::only_if`] make it.
    #[must_use]
    pub fn unconfined(&self) -> Self {
        RouteSpec { confined: false, ..self.clone() }
    }

    /// Whether it was made by [`RouteSpec::confined`].
    pub fn is_confined(&self) -> bool {
        self.confined
    }

    /// Whether one of the patterns matches `host`, in lower case.
    pub fn has_host(&self, host: &str) -> bool {
        self.patterns.iter().any(|pattern| Pattern::read(pattern).has(host))
    }

    /// The generality of the most specific of the patterns that match `host`, in lower case.
    pub(crate) fn generality(&self, host: &str) -> Option<usize> {
        let patterns = self.patterns.iter().map(|text| Pattern::read(text));
        patterns.filter(|pattern| pattern.has(host)).map(Pattern::generality).min()
    }

    /// The host patterns, lower-case and sorted.
    pub fn patterns(&self) -> &[Arc<str>] {
        &self.patterns
    }

    /// The paths, for people: a prefix that begins with `/`, or an expression.
    pub fn shown_paths(&self) -> String {
        match &self.paths {
            Paths::Under(prefix) if prefix.is_empty() => "/".to_owned(),
            Paths::Under(prefix) => prefix.to_string(),
            Paths::Matching(expression) => format!(" ~ {}", expression.0.as_str()),
        }
    }

    /// The prefix of the paths, without a slash at its end and empty for all; `None` if an expression
    /// has them.
    pub fn prefix(&self) -> Option<&str> {
        match &self.paths {
            Paths::Under(prefix) => Some(prefix),
            Paths::Matching(_) => None,
        }
    }

    pub(super) fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Whether a bridge with this spec could serve what `query` asks for.
    pub(super) fn serves(&self, query: &RouteQuery<'_>) -> bool {
        let by_name = |name: &str| self.patterns.iter().any(|text| Pattern::read(text).has(name));
        (by_name(query.host) || query.fallback.is_some_and(by_name))
            && self.paths.have(query.path)
            && query.meets(self)
    }
}

/// Which paths a route serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Paths {
    /// Those under this prefix, which has no slash at its end and is empty for all paths. It has
    /// no `?` and no `#`.
    Under(Arc<str>),
    /// Those that match this expression.
    Matching(Expression),
}

impl Paths {
    /// Whether `path`, with or without a query, is served.
    pub(super) fn have(&self, path: &str) -> bool {
        match self {
            Paths::Under(prefix) => is_under(path_alone(path), prefix),
            Paths::Matching(Expression(regex)) => regex.is_match(path_alone(path).as_bytes()),
        }
    }
}

/// A compiled expression, compared by its text.
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
#[derive(Clone, Copy)]
pub struct RouteQuery<'a> {
    /// The host, lower-case and without a port.
    pub host: &'a str,
    /// Another name whose routes serve the request too, each less specific than all of `host`'s.
    pub fallback: Option<&'a str>,
    /// Origin form or `*`.
    pub path: &'a str,
    /// Whether it meets the predicates of a route; without this it meets none.
    pub meets: Option<Meets<'a>>,
    /// The backend that it is to go to, if it can.
    pub wanted: Option<Wanted>,
    /// How far [`super::Scheduler::resolve`] has already looked `host` up.
    pub(super) resume: Option<Resume>,
}

/// Where the lookup of a host can resume.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resume {
    pub(super) version: u64,
    /// The first pattern found, which is the most specific.
    pub(super) first: Option<u32>,
    /// What comes after that.
    pub(super) rest: Walk,
}

/// What a host and a path lead to.
#[derive(Clone, Copy, Debug)]
pub struct Resolved<'a> {
    /// The site with the most specific pattern for the host; see [`Scheduler::set_sites`].
    pub site: Option<u32>,
    /// For [`Scheduler::enqueue`], which resumes where the lookup of the site ended.
    pub query: RouteQuery<'a>,
}

impl<'a> RouteQuery<'a> {
    /// A query without a fallback.
    pub fn new(host: &'a str, path: &'a str) -> Self {
        RouteQuery { host, fallback: None, path, meets: None, wanted: None, resume: None }
    }

    /// Replaces what says which predicates it meets.
    #[must_use]
    pub fn with_meets(self, meets: Option<Meets<'a>>) -> Self {
        RouteQuery { meets, ..self }
    }

    /// Whether it is such as the route demands, whatever its host and path.
    pub(super) fn meets(&self, spec: &RouteSpec) -> bool {
        match &spec.predicates {
            None => true,
            Some(predicates) => self.meets.is_some_and(|meets| meets(predicates)),
        }
    }

    /// Replaces the backend that it is to go to.
    #[must_use]
    pub fn with_wanted(self, wanted: Option<Wanted>) -> Self {
        RouteQuery { wanted, ..self }
    }

    /// Replaces the fallback.
    #[must_use]
    pub fn with_fallback(self, fallback: Option<&'a str>) -> Self {
        RouteQuery { fallback, ..self }
    }
}

impl fmt::Debug for RouteQuery<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RouteQuery { host, fallback, path, wanted, .. } = self;
        f.debug_tuple("RouteQuery").field(host).field(fallback).field(path).field(wanted).finish()
    }
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
    fn expression_is_searched_for_in_the_path_alone() {
        let spec = |text| RouteSpec::matching(["a"], Regex::new(text).unwrap());
        assert_eq!(spec("x$"), spec("x$"));
        assert_ne!(spec("x$"), spec("x"));
        assert_ne!(spec("x"), RouteSpec::new(["a"], "x"));
        for (path, found) in [("/x", true), ("/x?y", true), ("/x/y", false), ("/?x", false)] {
            assert_eq!(spec("x$").paths().have(path), found, "{path}");
        }
    }

    #[test]
    fn prefix_matches_whole_segments() {
        let app = Paths::Under("/app".into());
        let found = ["/app", "/app/", "/app/x", "/app?q", "/app#f"];
        assert!(found.iter().all(|path| app.have(path)));
        assert!(!["/apple", "/", "*"].iter().any(|path| app.have(path)));
        assert!(Paths::Under("".into()).have("*"));
    }

    #[test]
    fn patterns_have_the_names_that_they_stand_for() {
        for (text, pattern, has, has_not) in [
            ("a.b", Pattern::Exact("a.b"), "a.b", "x.a.b"),
            ("*.b", Pattern::Below("b"), "y.x.b", "xb"),
            ("*.b", Pattern::Below("b"), "x.b", "b"),
        ] {
            assert_eq!(Pattern::read(text), pattern);
            assert!(pattern.has(has) && !pattern.has(has_not), "{text}");
        }
        assert!(Pattern::read("*").has(""));
    }
}
