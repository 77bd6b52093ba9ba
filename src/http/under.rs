//! Which paths lie under a prefix. They are compared as text: neither side is unescaped.

/// Whether `path`, which has no query, lies under `prefix`, by whole segments: `/app` covers `/app`
/// and `/app/x`, not `/apple`. A prefix has no slash at its end; the empty one covers everything, `*` (of
/// `OPTIONS *`) included.
pub(crate) fn is_under(path: &str, prefix: &str) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) => prefix.is_empty() || rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

/// The part of a request target before its query, which prefixes are compared with.
pub(crate) fn path_alone(path: &str) -> &str {
    &path[..path.find(['?', '#']).unwrap_or(path.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_whole_segments() {
        for (path, prefix, is_covered) in [
            ("/app", "/app", true),
            ("/app/x", "/app", true),
            ("/apple", "/app", false),
            ("/", "/app", false),
            ("/x", "", true),
            ("", "", true),
            ("*", "", true),
            ("*", "/app", false),
        ] {
            assert_eq!(is_under(path, prefix), is_covered, "{path} {prefix}");
        }
        assert_eq!(["/x?y/z", "/x#y", "*"].map(path_alone), ["/x", "/x", "*"]);
    }
}
