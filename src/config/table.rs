//! Every directive of the proxy, in the order of `conf/cloudbridge.conf`.
//!
//! To add one: a field in `settings.rs`, a row here, a paragraph in the file. The tests below and
//! in `shipped.rs` fail if one of them is missing.

use super::access_log::AccessLog;
use super::directive::{Directive, Takes, defaults};
use super::endpoint::Endpoint;
use super::error_page::ErrorPage;
use super::key_limits::KeyLimits;
use super::listen_tls::TLS_MIN;
use super::network::Network;
use super::range::{BUFFER, DAY, MANY, MAX_HEAD, MAX_WORKERS, RETRY, Range, TIMEOUT};
use super::secret_file::SECRETS_MODE;
use super::settings::{
    ADMIN_READS, EXPIRED_KEYS, HALF_CLOSED_CLIENTS, LOG_LEVEL, Listen, Settings, UNKNOWN_HOST,
    account, health_uri, host_name,
};
use super::values::{FORWARDED, FORWARDED_STYLE, REQUEST_START, choose, word_for};
use crate::http;
use std::time::Duration;

/// The least size that may be spliced, in bytes: a page.
const PAGE: usize = 4 << 10;

/// Fewest descriptors: each worker needs some for itself.
const FEW_DESCRIPTORS: usize = 256;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// For the length of a queue.
const QUEUE: Range<usize> = Range::new(1, MANY);

type Row = Directive<Settings>;

impl Default for Settings {
    fn default() -> Settings {
        defaults(TABLE, Settings::BLANK)
    }
}

/// Every directive of the proxy.
pub(crate) static TABLE: &[Row] = &[
    Row::new(
        "listen",
        "Where to listen. `clients` or `bridges` after the address takes only those; `admin` is for the operator. Peers in accept-proxy begin with a PROXY header. `tls` encrypts. May be repeated.",
        Takes::List {
            form: "ADDRESS:PORT, unix:PATH or systemd:NAME, then clients, bridges, admin or nothing, for a Unix socket mode=PERMISSIONS, \
                   accept-proxy=NETWORK[,NETWORK...] or, for a Unix socket, accept-proxy=unix, \
                   tls=CERTIFICATE,KEY (again for each further certificate; behind it client-ca=FILE, client-crl=FILE and \
                   client-cert=required|optional), or redirect-https[=PORT]",
            clear: Settings::clear_listen,
            add: Settings::add_listen,
            show: |s| {
                let all: Vec<String> = s.listen.iter().map(Listen::to_string).collect();
                all.join(", ")
            },
            check: |_| Vec::new(),
        },
    )
    .default("*:8079"),
    Row::new(
        "workers",
        "How many event loops to run, one thread each.",
        Takes::Count(|s| &mut s.workers, Range::new(1, MAX_WORKERS).or_zero("one per core").above("workers would mostly read each other's counters")),
    )
    .default("0")
    .flag('w', "N")
    .needs_restart(),
    Row::new(
        "max-connections",
        "How many connections may be open: at most half are bridges, and three quarters clients. Any more wait in the kernel's backlog.",
        Takes::Count(|s| &mut s.max_connections, Range::new(2, MANY).or_zero("what the descriptor limit allows").below("an exchange takes two connections")),
    )
    .default("0"),
    Row::new(
        "connections-per-address",
        "How many connections one client address may have. Any more are closed.",
        Takes::Count(|s| &mut s.connections_per_address, Range::new(1, MANY).or_zero("any number")),
    )
    .default("0"),
    Row::new(
        "secrets",
        "The file of timestamp:secret lines that host keys are checked against.",
        Takes::Path(|s| &mut s.secrets),
    )
    .flag('s', "FILE"),
    Row::new(
        "secrets-mode",
        "Which permissions the files of secrets may have: none for others but that the group reads, or any.",
        Takes::Word {
            form: "private or any",
            read: |s, word| choose(word, &SECRETS_MODE).map(|value| s.secrets_mode = value),
            show: |s| word_for(s.secrets_mode, &SECRETS_MODE),
        },
    )
    .default("private"),
    Row::new(
        "tls-min",
        "The least version of TLS that is spoken.",
        Takes::Word {
            form: "1.2 or 1.3",
            read: |s, word| choose(word, &TLS_MIN).map(|value| s.tls_min = value),
            show: |s| word_for(s.tls_min, &TLS_MIN),
        },
    )
    .default("1.2"),
    Row::new(
        "ktls",
        "Whether the kernel encrypts TLS connections, where it can.",
        Takes::YesNo(|s| &mut s.ktls),
    )
    .default("yes"),
    Row::new(
        "tls-ticket-keys",
        "The file of the keys that encrypt session tickets, the same at all proxies of a fleet. Without it the proxy makes its own.",
        Takes::Path(|s| &mut s.tls_ticket_keys),
    ),
    Row::new(
        "sticky-secret",
        "The file of the secrets that the cookies of sticky sites are signed with, the same at all proxies of a fleet. Without it the proxy makes its own.",
        Takes::Path(|s| &mut s.sticky_secret),
    ),
    Row::new(
        "revoked",
        "The file of the hashes of host keys that are no longer good.",
        Takes::Path(|s| &mut s.revoked),
    ),
    Row::new(
        "revoke-grace",
        "How long a bridge may finish its exchange when its host key is no longer good. Then the exchange is cut.",
        Takes::Time(|s| &mut s.revoke_grace, Range::new(Duration::ZERO, DAY)),
    )
    .default("30s"),
    Row::new(
        "expired-keys",
        "What to do with bridges whose host key expires: close them, or leave them connected and log it.",
        Takes::Word {
            form: "close or log",
            read: |s, word| choose(word, &EXPIRED_KEYS).map(|value| s.expired_keys = value),
            show: |s| word_for(s.expired_keys, &EXPIRED_KEYS),
        },
    )
    .default("close"),
    Row::new(
        "open-bridges",
        "Without secrets: accept bridges from other machines too. Anybody who reaches the port can then serve any name.",
        Takes::YesNo(|s| &mut s.open_bridges),
    )
    .default("no"),
    Row::new(
        "legacy-keys",
        "With secrets: accept host keys of the original's form (SHA-1, without an expiry) as well as the modern one.",
        Takes::YesNo(|s| &mut s.legacy_keys),
    )
    .default("yes"),
    Row::new(
        "bearer-keys",
        "With secrets: accept host keys that are sent as they are. `no` demands a proof of each, which gives nothing away.",
        Takes::YesNo(|s| &mut s.bearer_keys),
    )
    .default("yes"),
    Row::new(
        "ptth",
        "Whether backends may also register by a PTTH request, as drafts of the IETF have it. The drafts may change.",
        Takes::YesNo(|s| &mut s.ptth),
    )
    .default("no"),
    Row::new(
        "key-limits",
        "What one host key, with all that are narrowed from it, may use. May be repeated; for each key the most specific line counts.",
        Takes::List {
            form: KeyLimits::FORM,
            clear: |s| s.key_limits.clear(),
            add: Settings::add_key_limits,
            show: |s| {
                let all: Vec<String> = s.key_limits.iter().map(KeyLimits::to_string).collect();
                all.join("; ")
            },
            check: |_| Vec::new(),
        },
    ),
    Row::new(
        "authorise",
        "The program that is asked about each bridge whose keys are good: it may refuse it, or limit its key. Without an answer the bridge gets 503.",
        Takes::Word {
            form: Endpoint::FORM,
            read: Settings::set_authorise,
            show: |s| s.authorise.as_ref().map_or_else(String::new, |to| to.to_string()),
        },
    ),
    Row::new(
        "authorise-timeout",
        "How long a bridge waits for that program's answer. Then it gets 503.",
        Takes::Time(|s| &mut s.authorise_timeout, Range::new(MILLISECOND, Duration::from_secs(60)).above("backends give up sooner")),
    )
    .default("2s"),
    Row::new(
        "authorise-questions",
        "How many questions that program may be asked at once. A bridge with one more gets 503.",
        Takes::Count(|s| &mut s.authorise_questions, Range::new(1, 10_000)),
    )
    .default("64"),
    Row::new(
        "authorise-cache",
        "How many answers of that program are kept, each for as long as it says. The one that was used longest ago goes first.",
        Takes::Count(|s| &mut s.authorise_cache, Range::new(1, MANY)),
    )
    .default("10000"),
    Row::new(
        "bridges-per-host",
        "How many bridges one host name may have. One more gets 503.",
        Takes::Count(|s| &mut s.bridges_per_host, Range::new(1, MANY).or_zero("a quarter of max-connections")),
    )
    .default("0"),
    Row::new(
        "ping-interval",
        "How often a parked bridge is sent a `100 Continue`.",
        Takes::Time(|s| &mut s.ping_interval, Range::new(Duration::from_millis(100), Duration::from_secs(3_600)).above("firewalls forget a silent connection sooner")),
    )
    .default("15s"),
    Row::new(
        "bridge-timeout",
        "How long a bridge may be parked. Then it gets 504 and dials again.",
        Takes::Time(|s| &mut s.bridge_timeout, Range::new(SECOND, DAY).or_zero("no limit")),
    )
    .default("0"),
    Row::new(
        "bridge-ack-timeout",
        "How long a matched bridge may take to acknowledge. Then another one gets the request.",
        Takes::Time(|s| &mut s.bridge_ack_timeout, Range::new(MILLISECOND, Duration::from_secs(60)).above("the client waits meanwhile")),
    )
    .default("500ms"),
    Row::new(
        "site",
        "A site: its names, the addresses where its swiftclient backends connect, its files, and the settings of its requests. May be repeated.",
        Takes::List {
            form: "NAME[,NAME...], then any of swiftiply=ADDRESS:PORT (behind it prefix=/PATH or match=REGEXP, and accept-proxy=NETWORK[,NETWORK...]), key=KEY, \
                   servers=SERVER[,SERVER...] (each ADDRESS:PORT or unix:PATH, with tls: before it for TLS, or redis://HOST:PORT/KEY), ca=FILE, server-name=NAME, client-cert=CERTIFICATE,KEY, max=N, tunnels=N, check=PATH (behind it check-interval=TIME, check-rise=N, \
                   check-fall=N), default, timeout=TIME, redeploy=SIZE, keepalive=yes|no, \
                   forwarded=append|replace|off, backup=NAME, \
                   sticky=cookie|cookie:NAME|id, sticky-wait=TIME, error-page=STATUS[,STATUS...]:FILE, docroot=PATH, hidden=REGEXP, symlinks=yes|no, \
                   cache-control=SUFFIX[,SUFFIX...]:VALUE, pages=PATH (with suffixes=SUFFIX[,SUFFIX...]), sendfile-root=PATH, \
                   manager=http://HOST[:PORT][/PATH]|unix:SOCKET[:/PATH]|exec:/PROGRAM, manager-timeout=TIME, \
                   waiting-page-after=TIME and waiting-page=FILE",
            clear: |s| s.site.clear(),
            add: Settings::add_site,
            show: |s| {
                let all: Vec<String> = s.site.iter().map(ToString::to_string).collect();
                all.join("; ")
            },
            check: Settings::check_sites,
        },
    ),
    Row::new(
        "updates-file",
        "The file that keeps the sites that are made at run time.",
        Takes::Path(|s| &mut s.updates_file),
    ),
    Row::new(
        "redis-interval",
        "How often lists of servers in Redis are read again.",
        Takes::Time(|s| &mut s.redis_interval, Range::new(Duration::from_millis(100), DAY)),
    )
    .default("10s"),
    Row::new(
        "redis-password",
        "The file of the password that Redis asks for.",
        Takes::Path(|s| &mut s.redis_password),
    ),
    Row::new(
        "error-page",
        "The body of answers of the proxy's own with these statuses: an HTML page, JSON or text. May be repeated.",
        Takes::List {
            form: "STATUS[,STATUS...] and a file that ends in .html, .json or .txt",
            clear: |s| s.error_page.clear(),
            add: Settings::add_error_page,
            show: |s| {
                let all: Vec<String> = s.error_page.iter().map(ErrorPage::to_string).collect();
                all.join("; ")
            },
            check: |_| Vec::new(),
        },
    ),
    Row::new(
        "wait-timeout",
        "How long a request waits for a free bridge. Then it gets 504.",
        Takes::Time(|s| &mut s.wait_timeout, TIMEOUT.below("a bridge on its way from another worker would come too late")),
    )
    .default("60s"),
    Row::new(
        "unknown-host",
        "What to do with a request for a name that no bridge serves: let it wait, or answer it at once.",
        Takes::Word {
            form: "wait, 404 or 503",
            read: |s, word| choose(word, &UNKNOWN_HOST).map(|value| s.unknown_host = value),
            show: |s| word_for(s.unknown_host, &UNKNOWN_HOST),
        },
    )
    .default("wait"),
    Row::new(
        "queue-per-route",
        "How many requests may wait for the same bridges. One more gets 503.",
        Takes::Count(|s| &mut s.queue_per_route, QUEUE),
    )
    .default("1024"),
    Row::new(
        "queue-unserved",
        "How many requests may wait for names that no bridge serves, all together. One more gets 503.",
        Takes::Count(|s| &mut s.queue_unserved, QUEUE),
    )
    .default("1024"),
    Row::new(
        "retries",
        "How often a request that an application may have seen is repeated when it fails without an answer. Then the client gets 502.",
        Takes::Count(|s| &mut s.retries, Range::new(0, 16).above("a request that kills its server would reach all of them")),
    )
    .default("1"),
    Row::new(
        "retry-limit",
        "The largest request that is kept until its response begins, so that it can be sent to another bridge.",
        Takes::Size(|s| &mut s.retry_limit, RETRY),
    )
    .default("16k"),
    Row::new(
        "max-head",
        "The longest head of a request or response. A longer request gets 431.",
        Takes::Size(|s| &mut s.max_head, Range::new(1 << 10, MAX_HEAD).above("a waiting client's head stays in memory")),
    )
    .default("16k"),
    Row::new(
        "max-fields",
        "The most header fields of a request or response. A request with more gets 431.",
        Takes::Count(|s| &mut s.max_fields, Range::new(16, http::MAX_FIELDS - http::ADDED_FIELDS).above("an agent has no room for more and those that the proxy adds")),
    )
    .default("100"),
    Row::new(
        "max-target",
        "The longest request target (path and query). A longer one gets 414.",
        Takes::Size(|s| &mut s.max_target, Range::new(64, MAX_HEAD).above("no head is longer")),
    )
    .default("8k"),
    Row::new(
        "forwarded",
        "What to do with X-Forwarded-For, -Proto and -Host: append to what the client sent, replace it, or leave it alone.",
        Takes::Word {
            form: "append, replace or off",
            read: |s, word| choose(word, &FORWARDED).map(|value| s.forwarded = value),
            show: |s| word_for(s.forwarded, &FORWARDED),
        },
    )
    .default("append"),
    Row::new(
        "trusted-proxies",
        "The proxies in front whose X-Forwarded-*, Forwarded and X-Request-* fields are kept. Those of all other peers are replaced. Without it, `forwarded` applies to all peers.",
        Takes::List {
            form: "networks, such as 10.0.0.0/8 or 10.1.2.3",
            clear: |s| s.trusted_proxies.clear(),
            add: Settings::add_trusted_proxies,
            show: |s| {
                let all: Vec<String> = s.trusted_proxies.iter().map(Network::to_string).collect();
                all.join(", ")
            },
            check: |_| Vec::new(),
        },
    ),
    Row::new(
        "forwarded-style",
        "Which fields name the client: X-Forwarded-*, Forwarded (RFC 7239), or both.",
        Takes::Word {
            form: "x, rfc7239 or both",
            read: |s, word| choose(word, &FORWARDED_STYLE).map(|value| s.forwarded_style = value),
            show: |s| word_for(s.forwarded_style, &FORWARDED_STYLE),
        },
    )
    .default("x"),
    Row::new(
        "request-start",
        "Whether X-Request-Start tells backends when a request came, and its unit: t= and seconds (with milliseconds behind a point), ms or us.",
        Takes::Word {
            form: "off, s, ms or us",
            read: |s, word| choose(word, &REQUEST_START).map(|value| s.request_start = value),
            show: |s| word_for(s.request_start, &REQUEST_START),
        },
    )
    .default("off"),
    Row::new(
        "request-id",
        "Whether each request has an X-Request-Id.",
        Takes::YesNo(|s| &mut s.request_id),
    )
    .default("no"),
    Row::new(
        "half-closed-clients",
        "What to do with a client that sends its FIN before it has its response: find out whether it is gone, or serve it in any case.",
        Takes::Word {
            form: "probe or serve",
            read: |s, word| choose(word, &HALF_CLOSED_CLIENTS).map(|value| s.half_closed_clients = value),
            show: |s| word_for(s.half_closed_clients, &HALF_CLOSED_CLIENTS),
        },
    )
    .default("probe"),
    Row::new(
        "response-buffer",
        "How much of a response is read ahead for a client that does not keep up, so that its bridge is free sooner.",
        Takes::Size(|s| &mut s.response_buffer, BUFFER),
    )
    .default("64k"),
    Row::new(
        "hold-response",
        "The largest response that is held back for a moment until it is whole, so that the request can be sent again if its backend dies.",
        Takes::Size(|s| &mut s.hold_response, BUFFER),
    )
    .default("16k"),
    Row::new(
        "splice-threshold",
        "A body with at least this much still to come is moved inside the kernel and not copied.",
        Takes::Size(|s| &mut s.splice_threshold, Range::at_least(PAGE).below("two more system calls cost more than so small a copy")),
    )
    .default("32k"),
    Row::new(
        "head-timeout",
        "How long a client may take to send a head. Then it gets 408.",
        Takes::Time(|s| &mut s.head_timeout, TIMEOUT),
    )
    .default("10s"),
    Row::new(
        "keepalive-timeout",
        "How long a client's connection may be idle between requests.",
        Takes::Time(|s| &mut s.keepalive_timeout, TIMEOUT),
    )
    .default("2m"),
    Row::new(
        "body-timeout",
        "How long a body, in either direction, may make no progress.",
        Takes::Time(|s| &mut s.body_timeout, TIMEOUT),
    )
    .default("60s"),
    Row::new(
        "response-timeout",
        "How long a backend may take from the end of a request to the first byte of its response. Then the client gets 504.",
        Takes::Time(|s| &mut s.response_timeout, TIMEOUT),
    )
    .default("60s"),
    Row::new(
        "stream-timeout",
        "How long a response without a length, such as an event stream, may send nothing.",
        Takes::Time(|s| &mut s.stream_timeout, TIMEOUT),
    )
    .default("1h"),
    Row::new(
        "tunnel-timeout",
        "How long an upgraded connection (a WebSocket) may be silent in both directions.",
        Takes::Time(|s| &mut s.tunnel_timeout, TIMEOUT),
    )
    .default("1h"),
    Row::new(
        "dial-timeout",
        "How long a server of a site may take to accept a connection. Then another one is tried.",
        Takes::Time(|s| &mut s.dial_timeout, TIMEOUT),
    )
    .default("3s"),
    Row::new(
        "dial-idle",
        "How long a connection to a server of a site is kept without a request.",
        Takes::Time(|s| &mut s.dial_idle, TIMEOUT),
    )
    .default("30s"),
    Row::new(
        "drain-delay",
        "How long everything goes on as before after SIGTERM or SIGINT, while health and agent checks say that the proxy drains.",
        Takes::Time(|s| &mut s.drain_delay, Range::new(MILLISECOND, Duration::from_secs(3_600)).or_zero("none")),
    )
    .default("0"),
    Row::new(
        "drain-timeout",
        "How long exchanges in flight may continue after SIGTERM or SIGINT, and drain-delay.",
        Takes::Time(|s| &mut s.drain_timeout, TIMEOUT),
    )
    .default("30s"),
    Row::new(
        "upgrade-timeout",
        "How long the old program finishes what is in flight after a new one has taken over.",
        Takes::Time(|s| &mut s.upgrade_timeout, TIMEOUT),
    )
    .default("1h"),
    Row::new(
        "tcp-keepalive",
        "How long a connection is idle before the kernel probes its peer. In whole seconds.",
        Takes::Time(|s| &mut s.tcp_keepalive, Range::new(SECOND, Duration::from_secs(32_400)).below("the kernel counts in seconds").above("the kernel counts no further than 32767 seconds")),
    )
    .default("30s"),
    Row::new(
        "tcp-user-timeout",
        "How long sent bytes may stay unacknowledged before the kernel gives the peer up.",
        Takes::Time(|s| &mut s.tcp_user_timeout, Range::new(SECOND, DAY).below("one lost packet would end a connection")),
    )
    .default("30s"),
    Row::new(
        "info-host",
        "The virtual host that answers with the proxy's state.",
        Takes::Text { form: "a host name", field: |s| &mut s.info_host, read: host_name },
    )
    .flag('i', "HOST"),
    Row::new(
        "tenant-host",
        "The virtual host where the holder of a host key sees what the key covers.",
        Takes::Text { form: "a host name", field: |s| &mut s.tenant_host, read: host_name },
    ),
    Row::new(
        "admin-token",
        "The file of the token that actions at an admin listener need over TCP.",
        Takes::Path(|s| &mut s.admin_token),
    ),
    Row::new(
        "admin-reads",
        "Who may read at an admin listener over TCP: anybody who reaches it, or only those with the token.",
        Takes::Word {
            form: "open or token",
            read: |s, word| choose(word, &ADMIN_READS).map(|value| s.admin_reads = value),
            show: |s| word_for(s.admin_reads, &ADMIN_READS),
        },
    )
    .default("open"),
    Row::new(
        "admin-names",
        "Host names under which the admin listeners are reached over TCP, besides addresses and `localhost`.",
        Takes::List {
            form: "host names",
            clear: |s| s.admin_names.clear(),
            add: Settings::add_admin_names,
            show: |s| s.admin_names.join(", "),
            check: |_| Vec::new(),
        },
    ),
    Row::new(
        "metrics-hosts",
        "How many hosts have metrics of their own, the busiest first; the rest are one host called `other`.",
        Takes::Count(|s| &mut s.metrics_hosts, Range::at_least(0)),
    )
    .default("1000"),
    Row::new(
        "agent-check",
        "Where to answer haproxy's agent checks: weight, maxconn and drain of each host. May be repeated.",
        Takes::List {
            form: "ADDRESS:PORT or systemd:NAME",
            clear: |s| s.agent_check.clear(),
            add: Settings::add_agent_check,
            show: |s| {
                let all: Vec<String> = s.agent_check.iter().map(ToString::to_string).collect();
                all.join(", ")
            },
            check: |_| Vec::new(),
        },
    ),
    Row::new(
        "agent-check-slots",
        "How many slots of a host make a weight of 100% in the answers to agent checks.",
        Takes::Count(|s| &mut s.agent_check_slots, Range::new(1, MANY)),
    )
    .default("100"),
    Row::new(
        "health-uri",
        "A path that the proxy answers itself, with counters, on any host.",
        Takes::Text { form: "a path", field: |s| &mut s.health_uri, read: health_uri },
    ),
    Row::new(
        "log-level",
        "The least severe level that is logged.",
        Takes::Word {
            form: "off, error, warn, info, debug or trace",
            read: |s, word| choose(word, &LOG_LEVEL).map(|value| s.log_level = value),
            show: |s| word_for(s.log_level, &LOG_LEVEL),
        },
    )
    .default("info"),
    Row::new(
        "log-file",
        "The file that the log is written to instead of standard error.",
        Takes::Path(|s| &mut s.log_file),
    )
    .flag('l', "FILE"),
    Row::new(
        "access-log",
        "Where each request is logged, with a line: a file, `-` for standard output, or a datagram socket. doc/logs.md has the formats and their fields.",
        Takes::Words {
            form: "FILE, - or unix-datagram:PATH, then format=combined, vcombined, json or a text with fields such as %{status}, or nothing",
            read: |s, words| AccessLog::parse(words).map(|log| s.access_log = Some(log)),
            show: |s| s.access_log.as_ref().map_or_else(String::new, AccessLog::to_string),
        },
    ),
    Row::new(
        "daemonize",
        "Go into the background once the proxy serves. Errors until then still appear, and in the exit code.",
        Takes::YesNo(|s| &mut s.daemonize),
    )
    .default("no")
    .flag('d', "")
    .needs_restart(),
    Row::new(
        "supervised",
        "Something waits for this very process, which stays as a parent when an upgrade has replaced it.",
        Takes::YesNo(|s| &mut s.supervised),
    )
    .default("no")
    .needs_restart(),
    Row::new(
        "pidfile",
        "The file that holds the process ID while the proxy runs, and keeps a second one out.",
        Takes::Path(|s| &mut s.pidfile),
    )
    .needs_restart(),
    Row::new(
        "user",
        "The user that the proxy becomes once it listens. Only root can become another.",
        Takes::Text { form: "a user's name", field: |s| &mut s.user, read: account },
    )
    .needs_restart(),
    Row::new(
        "group",
        "The group that the proxy becomes once it listens. By default it is the user's own.",
        Takes::Text { form: "a group's name", field: |s| &mut s.group, read: account },
    )
    .needs_restart(),
    Row::new(
        "descriptors",
        "How many descriptors the proxy may have open. Only root can exceed the hard limit.",
        Takes::Count(|s| &mut s.descriptors, Range::new(FEW_DESCRIPTORS, MANY).or_zero("the hard limit").below("the workers need as many for themselves")),
    )
    .default("0")
    .needs_restart(),
];

#[cfg(test)]
mod tests {
    use super::super::load::changed;
    use super::*;

    #[test]
    fn every_default_comes_back_as_it_is_shown() {
        let settings = Settings::default();
        for row in TABLE.iter().filter(|row| row.default.is_some()) {
            let shown = row.show(&settings);
            let mut again = settings.clone();
            row.clear(&mut again);
            let words: Vec<&str> = shown.split(' ').collect();
            assert_eq!(row.set(&mut again, &words), Ok(()), "{} {shown}", row.name);
            assert_eq!(again, settings, "{}", row.name);
        }
    }

    #[test]
    fn every_field_has_its_own_directive() {
        // `{:#?}` prints a field a line; the fields of the one listener are deeper.
        let printed = format!("{:#?}", Settings::default());
        let fields: Vec<String> = printed
            .lines()
            .filter(|line| line.starts_with("    ") && line.as_bytes().get(4) > Some(&b' '))
            .filter_map(|line| line.trim().split_once(": "))
            .map(|(field, _)| field.replace('_', "-"))
            .collect();
        let mut names: Vec<&str> = TABLE.iter().map(|row| row.name).collect();
        names.sort_unstable();
        let mut sorted: Vec<&str> = fields.iter().map(String::as_str).collect();
        sorted.sort_unstable();
        assert_eq!(names, sorted);
    }

    #[test]
    fn a_directive_changes_its_own_field_and_no_other() {
        let old = Settings::default();
        for row in TABLE {
            let changed_by = |word: &&str| {
                let mut new = old.clone();
                row.clear(&mut new);
                let words: Vec<&str> = word.split(' ').collect();
                (row.set(&mut new, &words).is_ok() && new != old).then_some(new)
            };
            let words = [
                "3",
                "3s",
                "4k",
                "20",
                "128",
                "512",
                "yes",
                "no",
                "503",
                "off",
                "serve",
                "token",
                "name",
                "/health",
                "503 a.html",
                "*:80",
                "192.0.2.0/24",
                "both",
                "ms",
                "any",
                "log",
                "1.3",
                "* bridges=1",
                "http://a.test/ask",
            ];
            let Some(new) = words.iter().find_map(changed_by) else {
                panic!("{} takes none of {words:?}", row.name);
            };
            assert_eq!(changed(&old, &new), [row.name]);
            let field = row.name.replace('-', "_");
            let printed = |s: &Settings| {
                let text = format!("{s:?}");
                let at = text.find(&format!("{field}: ")).unwrap();
                text[at..].chars().take(60).collect::<String>()
            };
            assert_ne!(printed(&old), printed(&new), "{}", row.name);
        }
    }

    #[test]
    fn bounds_hold_and_say_why() {
        let mut settings = Settings::default();
        let mut wrong = |name: &str, word: &str| {
            let row = TABLE.iter().find(|row| row.name == name).unwrap();
            row.set(&mut settings, &[word]).unwrap_err()
        };
        assert_eq!(
            wrong("max-fields", "257"),
            "257 is more than 120: an agent has no room for more and those that the proxy adds"
        );
        assert_eq!(
            wrong("wait-timeout", "0"),
            "0 is less than 1ms: a bridge on its way from another worker would come too late"
        );
        assert_eq!(
            wrong("splice-threshold", "1"),
            "1 is less than 4k: two more system calls cost more than so small a copy"
        );
        assert_eq!(
            wrong("max-head", "1m"),
            "1m is more than 64k: a waiting client's head stays in memory"
        );
    }
}
