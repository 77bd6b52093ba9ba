//! What lies below a name.

/// Whether a key for `name` covers `pattern`: the name itself and every name below it. A wildcard
/// is compared as text, so `*.b.com` is below `b.com`. Both in lower case.
pub(crate) fn covers(name: &str, pattern: &str) -> bool {
    pattern.strip_suffix(name).is_some_and(|above| above.is_empty() || above.ends_with('.'))
}
