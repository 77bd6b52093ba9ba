//! Settings without a counterpart, and why.

const FILES: &str = "files are not served; let nginx do it in front";

const CACHES: &str = "files are not served, and nothing is cached";

/// Global settings and settings of sites.
const KNOWN: &[(&str, &str)] = &[
    ("docroot", FILES),
    ("staticmask", FILES),
    ("cache_directory", CACHES),
    ("cache_extensions", CACHES),
    ("sendfileroot", "X-Sendfile is not supported; the field is passed to the client"),
    ("enable_sendfile_404", "X-Sendfile is not supported"),
    ("file_cache", CACHES),
    ("file_cache_threshold", CACHES),
    ("dynamic_request_cache", CACHES),
    ("etag_cache", CACHES),
    ("cache_threshold", CACHES),
    ("max_cache_size", CACHES),
    ("caching", CACHES),
    ("chunked_encoding_threshold", FILES),
    ("descriptor_cache_threshold", CACHES),
    ("manager", "no URL is called when a request finds no backend; the info host has the numbers"),
    ("sticky", "there are no sticky sessions: a client's next request may go to another backend"),
    ("logger", "the log goes to standard error or log-file, requests to access-log"),
    ("updates", "there is no REST interface: change the file and send HUP"),
    ("ssl", "TLS is not supported: put haproxy in front"),
    ("epoll", "it is always epoll"),
    ("kqueue", "this is Linux, and it is always epoll"),
    ("directory", "only a static list of servers is supported, and no directory in Redis"),
    ("redis", "only a static list of servers is supported, and no directory in Redis"),
    ("groups", "filters of servers are not supported"),
    ("require", "no Ruby is loaded"),
];

/// Why `name` is not converted.
pub(super) fn why(name: &str) -> &'static str {
    KNOWN
        .iter()
        .find(|(known, _)| *known == name)
        .map_or("this is not a known setting of Swiftiply", |(_, why)| why)
}
