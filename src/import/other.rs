//! Settings without a counterpart, and why.

const CACHES: &str = "open files and their heads are kept in memory by themselves, for a second";

const NO_CACHE: &str = "responses of backends are not cached: put a cache in front";

const OF_LOGS: &str = "there is one log for all sites; access-log has each request with its host";

/// Global settings and settings of sites.
const KNOWN: &[(&str, &str)] = &[
    ("file_cache", CACHES),
    ("file_cache_threshold", CACHES),
    ("cache_threshold", CACHES),
    ("etag_cache", CACHES),
    ("max_cache_size", CACHES),
    ("descriptor_cache_threshold", CACHES),
    ("dynamic_request_cache", "each request looks for its file: there is nothing to remember"),
    ("caching", NO_CACHE),
    ("chunked_encoding_threshold", "files are sent with their length, whatever that is"),
    ("epoll", "it is always epoll"),
    ("kqueue", "this is Linux, and it is always epoll"),
    ("require", "no Ruby is loaded"),
    ("backend_address", "it makes a site without names: write site * swiftiply=ADDRESS:PORT"),
    ("backend_port", "it makes a site without names: write site * swiftiply=ADDRESS:PORT"),
];

/// Why `name` is not converted.
pub(super) fn why(name: &str) -> &'static str {
    KNOWN
        .iter()
        .find(|(known, _)| *known == name)
        .map_or("this is not a known setting of Swiftiply", |(_, why)| why)
}

/// The same of a setting of a site.
pub(super) fn why_of_site(name: &str) -> &'static str {
    if name == "logger" { OF_LOGS } else { why(name) }
}
