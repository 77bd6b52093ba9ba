//! What has no counterpart here, and the sentence that says so.

/// Files are served by whoever stands in front.
const FILES: &str = "files are not served here yet; let haproxy or nginx do it in front";

/// Caches of the files and of the pages.
const CACHES: &str = "files are not served here yet, and nothing is cached";

/// What the original knows and we do not, in a site and outside of one, and why.
const KNOWN: &[(&str, &str)] = &[
    ("docroot", FILES),
    ("staticmask", FILES),
    ("cache_directory", CACHES),
    ("cache_extensions", CACHES),
    ("sendfileroot", "X-Sendfile is not obeyed yet; the field goes to the client as it is"),
    ("enable_sendfile_404", "X-Sendfile is not obeyed yet"),
    ("file_cache", CACHES),
    ("file_cache_threshold", CACHES),
    ("dynamic_request_cache", CACHES),
    ("etag_cache", CACHES),
    ("cache_threshold", CACHES),
    ("max_cache_size", CACHES),
    ("caching", CACHES),
    ("chunked_encoding_threshold", FILES),
    ("descriptor_cache_threshold", CACHES),
    ("manager", "nobody is called when a request finds no backend; the info host has the numbers"),
    ("sticky", "there are no sticky sessions: a client's next request may go to another backend"),
    ("logger", "the log goes to standard error or log-file, requests to access-log"),
    ("updates", "there is no REST interface: change the file and send HUP"),
    ("ssl", "there is no TLS yet: put haproxy in front"),
    ("epoll", "it is always epoll"),
    ("kqueue", "this is Linux, and it is always epoll"),
    ("directory", "only a static list of servers is known, and no directory in Redis"),
    ("redis", "only a static list of servers is known, and no directory in Redis"),
    ("groups", "filters of dialled servers have no counterpart"),
    ("require", "no Ruby is loaded here"),
];

/// Why `name` is not taken over.
pub(super) fn why(name: &str) -> &'static str {
    KNOWN
        .iter()
        .find(|(known, _)| *known == name)
        .map_or("there is no such setting here, nor one known of Swiftiply", |(_, why)| why)
}
