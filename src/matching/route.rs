//! What a set of bridges serves: host patterns and a path prefix.

/// The host patterns and the path prefix that a set of bridges serves. Bridges with an equal spec share one route.
///
/// Patterns are `name`, `*.suffix` or `*` (`doc/protocol.md`, "BRIDGE"); whoever builds a spec has checked them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteSpec {
    /// Lower-case, sorted, without repeats: two bridges that name the same hosts in another order are on one route.
    patterns: Box<[Box<str>]>,
    /// Without a slash at its end; empty for `/`.
    prefix: Box<str>,
}

impl RouteSpec {
    /// Brings patterns and prefix into the one form in which equal routes compare equal.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>, prefix: &str) -> Self {
        let mut patterns: Vec<Box<str>> = patterns
            .into_iter()
            .map(|p| p.as_ref().to_ascii_lowercase().into_boxed_str())
            .collect();
        patterns.sort_unstable();
        patterns.dedup();
        RouteSpec {
            patterns: patterns.into_boxed_slice(),
            prefix: prefix.trim_end_matches('/').into(),
        }
    }

    /// The host patterns, lower-case and sorted.
    pub fn patterns(&self) -> &[Box<str>] {
        &self.patterns
    }

    /// The path prefix without its last slash; empty when every path is served.
    pub fn prefix(&self) -> &str {
        &self.prefix
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
        assert_eq!(one.prefix(), "/app");
        assert_eq!(RouteSpec::new(["a"], "/").prefix(), "");
        assert_ne!(RouteSpec::new(["a"], "/x"), RouteSpec::new(["a"], "/X"));
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
