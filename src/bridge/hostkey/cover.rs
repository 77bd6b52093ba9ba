//! What lies below a name or a path.

/// Whether a key for `name` covers `pattern`: the name itself and every name below it. A wildcard
/// is compared as text, so `*.b.com` is below `b.com`. Both in lower case.
pub(crate) fn covers(name: &str, pattern: &str) -> bool {
    pattern.strip_suffix(name).is_some_and(|above| above.is_empty() || above.ends_with('.'))
}

/// Whether `path` is `prefix` or below it, by whole segments. Both are without a final slash, and
/// `""` is every path. They are compared as text, as prefixes are with the paths of requests.
pub(super) fn is_under(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|below| below.is_empty() || below.starts_with('/'))
}
