//! Every directive of the proxy, in the order of `conf/cloudbridge.conf`.
//!
//! To add one: a field in `settings.rs`, a row here, a paragraph in the file. The tests below
//! and in `shipped.rs` find out which of the three was forgotten.

use super::directive::{Applies, Directive, Flag, Range, Takes};
use super::settings::{FORWARDED, LOG_LEVEL, Listen, Settings, UNKNOWN_HOST};
use super::values::{choose, word_for};
use std::time::Duration;

/// Most workers. Each route keeps counters for every worker, and a worker looks at the others' when it has
/// nothing of its own: more reactors than this would mostly read each other's counters.
pub const MAX_WORKERS: usize = 256;

/// Most fields that `max-fields` may allow: the room that a worker keeps for a head while it reads it.
pub const MAX_FIELDS: usize = 128;

/// Longest head that `max-head` may allow, in bytes. A waiting client's head stays in memory, and this times
/// `max-connections` is what an attacker can make the proxy hold.
pub const MAX_HEAD: usize = 64 << 10;

/// Largest request that `retry-limit` may keep, in bytes: every exchange in flight may hold as much.
const MAX_RETRY: usize = 16 << 20;

/// Longest queue that may be asked for, and most connections: the kernel's own limit for one process
/// (`fs.nr_open`) is a million until somebody raises it, and this leaves room for that.
pub(super) const MANY: usize = 10_000_000;

/// Least size that is worth a splice, in bytes: a page. Below it the two extra system calls cost more than the copy.
const PAGE: usize = 4 << 10;

/// Fewest descriptors that may be asked for: what one worker sets aside for itself (see `proxy/start.rs`), and some.
const FEW_DESCRIPTORS: usize = 256;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// For the time a peer is given to do something.
pub(super) const PATIENCE: Range<Duration> = Range::new(
    MILLISECOND,
    "no peer could ever be in time",
    DAY,
    "a peer that has been silent for a day is gone, and its connection would still be held",
);

/// For the size of a request that is kept.
pub(super) const RETRY: Range<usize> =
    Range::new(0, "it cannot be", MAX_RETRY, "every exchange in flight may hold as much memory");

/// For the length of a queue.
const QUEUE: Range<usize> = Range::new(
    1,
    "a request that no queue takes is lost even if a bridge comes a moment later",
    MANY,
    "every waiting request is an open connection, and no process holds more",
);

/// Every directive of the proxy.
pub static TABLE: &[Directive<Settings>] = &[
    Directive {
        name: "listen",
        flag: None,
        default: Some("*:8079"),
        about: "Where to listen. `clients` or `bridges` after the address takes only those. May be repeated.",
        takes: Takes::List {
            form: "ADDRESS:PORT, then clients, bridges or nothing",
            clear: |s| s.listen.clear(),
            add: Settings::add_listen,
            show: |s| {
                let all: Vec<String> = s.listen.iter().map(Listen::to_string).collect();
                all.join(", ")
            },
            check: |_| Vec::new(),
        },
        applies: Applies::OnReload,
    },
    Directive {
        name: "workers",
        flag: Some(Flag { letter: 'w', value: "N" }),
        default: Some("0"),
        about: "How many event loops to run, one thread each.",
        takes: Takes::Count {
            field: |s| &mut s.workers,
            range: Range::new(
                1,
                "somebody must do the work",
                MAX_WORKERS,
                "workers would mostly read each other's counters",
            )
            .or_zero("one per core"),
        },
        applies: Applies::OnRestart,
    },
    Directive {
        name: "max-connections",
        flag: None,
        default: Some("0"),
        about: "How many connections may be open, clients and bridges together. Beyond it they wait in the kernel's backlog.",
        takes: Takes::Count {
            field: |s| &mut s.max_connections,
            range: Range::new(
                2,
                "an exchange takes two connections",
                MANY,
                "no process holds more",
            )
            .or_zero("what the descriptor limit allows"),
        },
        applies: Applies::OnReload,
    },
    Directive {
        name: "secrets",
        flag: Some(Flag { letter: 's', value: "FILE" }),
        default: None,
        about: "The file of timestamp:secret lines that host keys are checked against.",
        takes: Takes::Path { field: |s| &mut s.secrets },
        applies: Applies::OnReload,
    },
    Directive {
        name: "open-bridges",
        flag: None,
        default: Some("no"),
        about: "Without secrets: take bridges from other machines too. Anybody who reaches the port can then serve any name.",
        takes: Takes::YesNo { field: |s| &mut s.open_bridges },
        applies: Applies::OnReload,
    },
    Directive {
        name: "legacy-keys",
        flag: None,
        default: Some("yes"),
        about: "With secrets: take host keys of the original's form (SHA-1, without an expiry) beside the modern one.",
        takes: Takes::YesNo { field: |s| &mut s.legacy_keys },
        applies: Applies::OnReload,
    },
    Directive {
        name: "bridges-per-host",
        flag: None,
        default: Some("0"),
        about: "How many bridges one host name may have. One more gets 503.",
        takes: Takes::Count {
            field: |s| &mut s.bridges_per_host,
            range: Range::new(
                1,
                "no name could be served",
                MANY,
                "every bridge is an open connection, and no process holds more",
            )
            .or_zero("any number"),
        },
        applies: Applies::OnReload,
    },
    Directive {
        name: "ping-interval",
        flag: None,
        default: Some("15s"),
        about: "How often a parked bridge is sent a `100 Continue`.",
        takes: Takes::Time {
            field: |s| &mut s.ping_interval,
            range: Range::new(
                Duration::from_millis(100),
                "parked bridges would do little but read pings",
                HOUR,
                "firewalls forget a silent connection sooner",
            ),
        },
        applies: Applies::OnReload,
    },
    Directive {
        name: "bridge-timeout",
        flag: None,
        default: Some("0"),
        about: "How long a bridge may be parked. Then it gets 504 and dials again.",
        takes: Takes::Time {
            field: |s| &mut s.bridge_timeout,
            range: Range::new(
                SECOND,
                "bridges would do little but dial",
                DAY,
                "use 0 to park them for ever",
            )
            .or_zero("no limit"),
        },
        applies: Applies::OnReload,
    },
    Directive {
        name: "bridge-ack-timeout",
        flag: None,
        default: Some("500ms"),
        about: "How long a matched bridge may take to say that it is there. Then another one gets the request.",
        takes: Takes::Time {
            field: |s| &mut s.bridge_ack_timeout,
            range: Range::new(
                MILLISECOND,
                "no bridge could ever be in time",
                Duration::from_secs(60),
                "the client waits meanwhile",
            ),
        },
        applies: Applies::OnReload,
    },
    Directive {
        name: "site",
        flag: None,
        default: None,
        about: "A site: its names, the address where its swiftclient backends come in, and what holds for its requests. May be repeated.",
        takes: Takes::List {
            form: "NAME[,NAME...], then any of swiftiply=ADDRESS:PORT (behind it prefix=/PATH or match=REGEXP), key=KEY, \
                   servers=SERVER[,SERVER...], max=N, default, timeout=TIME, redeploy=SIZE, keepalive=yes|no, \
                   forwarded=append|replace|off and backup=NAME",
            clear: |s| s.site.clear(),
            add: Settings::add_site,
            show: |s| {
                let all: Vec<String> = s.site.iter().map(ToString::to_string).collect();
                all.join("; ")
            },
            check: Settings::check_sites,
        },
        applies: Applies::OnReload,
    },
    Directive {
        name: "wait-timeout",
        flag: None,
        default: Some("60s"),
        about: "How long a request waits for a free bridge. Then it gets 504.",
        takes: Takes::Time {
            field: |s| &mut s.wait_timeout,
            range: Range::new(
                MILLISECOND,
                "a bridge on its way from another worker would come too late",
                DAY,
                "no client waits so long",
            ),
        },
        applies: Applies::OnReload,
    },
    Directive {
        name: "unknown-host",
        flag: None,
        default: Some("wait"),
        about: "What becomes of a request for a name that no bridge serves: it waits, or is answered at once.",
        takes: Takes::Word {
            form: "wait, 404 or 503",
            read: |s, word| choose(word, &UNKNOWN_HOST).map(|value| s.unknown_host = value),
            show: |s| word_for(s.unknown_host, &UNKNOWN_HOST),
        },
        applies: Applies::OnReload,
    },
    Directive {
        name: "queue-per-route",
        flag: None,
        default: Some("1024"),
        about: "How many requests may wait for the same bridges. One more gets 503.",
        takes: Takes::Count { field: |s| &mut s.queue_per_route, range: QUEUE },
        applies: Applies::OnReload,
    },
    Directive {
        name: "queue-unserved",
        flag: None,
        default: Some("1024"),
        about: "How many requests may wait for names that no bridge serves, all together. One more gets 503.",
        takes: Takes::Count { field: |s| &mut s.queue_unserved, range: QUEUE },
        applies: Applies::OnReload,
    },
    Directive {
        name: "retry-limit",
        flag: None,
        default: Some("16k"),
        about: "The largest request that is kept until its response begins, so that another bridge can be sent it.",
        takes: Takes::Size { field: |s| &mut s.retry_limit, range: RETRY },
        applies: Applies::OnReload,
    },
    Directive {
        name: "max-head",
        flag: None,
        default: Some("16k"),
        about: "The longest head of a request or response. A longer request gets 431.",
        takes: Takes::Size {
            field: |s| &mut s.max_head,
            range: Range::new(
                1 << 10,
                "an ordinary browser's head would not fit",
                MAX_HEAD,
                "a waiting client's head stays in memory",
            ),
        },
        applies: Applies::OnReload,
    },
    Directive {
        name: "max-fields",
        flag: None,
        default: Some("100"),
        about: "The most header fields of a request or response. A request with more gets 431.",
        takes: Takes::Count {
            field: |s| &mut s.max_fields,
            range: Range::new(
                16,
                "an ordinary browser's head would not fit",
                MAX_FIELDS,
                "the parser has room for no more",
            ),
        },
        applies: Applies::OnReload,
    },
    Directive {
        name: "max-target",
        flag: None,
        default: Some("8k"),
        about: "The longest request target (path and query). A longer one gets 414.",
        takes: Takes::Size {
            field: |s| &mut s.max_target,
            range: Range::new(
                64,
                "ordinary paths would not fit",
                MAX_HEAD,
                "a target is part of a head, and no head is longer",
            ),
        },
        applies: Applies::OnReload,
    },
    Directive {
        name: "forwarded",
        flag: None,
        default: Some("append"),
        about: "What becomes of X-Forwarded-For, -Proto and -Host: append to what the client sent, replace it, or leave it alone.",
        takes: Takes::Word {
            form: "append, replace or off",
            read: |s, word| choose(word, &FORWARDED).map(|value| s.forwarded = value),
            show: |s| word_for(s.forwarded, &FORWARDED),
        },
        applies: Applies::OnReload,
    },
    Directive {
        name: "splice-threshold",
        flag: None,
        default: Some("32k"),
        about: "A body with at least this much still to come is moved inside the kernel and not copied.",
        takes: Takes::Size {
            field: |s| &mut s.splice_threshold,
            range: Range::at_least(PAGE, "two more system calls cost more than so small a copy"),
        },
        applies: Applies::OnReload,
    },
    Directive {
        name: "head-timeout",
        flag: None,
        default: Some("10s"),
        about: "How long a client may take to send a head. Then it gets 408.",
        takes: Takes::Time { field: |s| &mut s.head_timeout, range: PATIENCE },
        applies: Applies::OnReload,
    },
    Directive {
        name: "keepalive-timeout",
        flag: None,
        default: Some("60s"),
        about: "How long a client's connection may be idle between requests.",
        takes: Takes::Time { field: |s| &mut s.keepalive_timeout, range: PATIENCE },
        applies: Applies::OnReload,
    },
    Directive {
        name: "body-timeout",
        flag: None,
        default: Some("60s"),
        about: "How long a body, in either direction, may make no progress.",
        takes: Takes::Time { field: |s| &mut s.body_timeout, range: PATIENCE },
        applies: Applies::OnReload,
    },
    Directive {
        name: "response-timeout",
        flag: None,
        default: Some("60s"),
        about: "How long a backend may take from the end of a request to the first byte of its response. Then the client gets 504.",
        takes: Takes::Time { field: |s| &mut s.response_timeout, range: PATIENCE },
        applies: Applies::OnReload,
    },
    Directive {
        name: "tunnel-timeout",
        flag: None,
        default: Some("1h"),
        about: "How long an upgraded connection (a WebSocket) may be silent in both directions.",
        takes: Takes::Time { field: |s| &mut s.tunnel_timeout, range: PATIENCE },
        applies: Applies::OnReload,
    },
    Directive {
        name: "dial-timeout",
        flag: None,
        default: Some("3s"),
        about: "How long a server of a site may take to accept a connection. Then another one is tried.",
        takes: Takes::Time { field: |s| &mut s.dial_timeout, range: PATIENCE },
        applies: Applies::OnReload,
    },
    Directive {
        name: "dial-idle",
        flag: None,
        default: Some("30s"),
        about: "How long a connection to a server of a site is kept without a request.",
        takes: Takes::Time { field: |s| &mut s.dial_idle, range: PATIENCE },
        applies: Applies::OnReload,
    },
    Directive {
        name: "drain-timeout",
        flag: None,
        default: Some("30s"),
        about: "How long exchanges in flight may go on after SIGTERM or SIGINT.",
        takes: Takes::Time { field: |s| &mut s.drain_timeout, range: PATIENCE },
        applies: Applies::OnReload,
    },
    Directive {
        name: "tcp-keepalive",
        flag: None,
        default: Some("30s"),
        about: "How long a connection is idle before the kernel asks whether its peer is still there. In whole seconds.",
        takes: Takes::Time {
            field: |s| &mut s.tcp_keepalive,
            range: Range::new(
                SECOND,
                "the kernel counts in seconds",
                Duration::from_secs(32_400),
                "the kernel counts no further than 32767 seconds",
            ),
        },
        applies: Applies::OnReload,
    },
    Directive {
        name: "tcp-user-timeout",
        flag: None,
        default: Some("30s"),
        about: "How long sent bytes may stay unacknowledged before the kernel gives the peer up.",
        takes: Takes::Time {
            field: |s| &mut s.tcp_user_timeout,
            range: Range::new(
                SECOND,
                "one lost packet would end a connection",
                DAY,
                "a peer that has acknowledged nothing for a day is gone",
            ),
        },
        applies: Applies::OnReload,
    },
    Directive {
        name: "info-host",
        flag: Some(Flag { letter: 'i', value: "HOST" }),
        default: None,
        about: "The virtual host that answers with the proxy's state.",
        takes: Takes::Word {
            form: "a host name",
            read: Settings::set_info_host,
            show: |s| s.info_host.clone().unwrap_or_default(),
        },
        applies: Applies::OnReload,
    },
    Directive {
        name: "health-uri",
        flag: None,
        default: None,
        about: "A path that the proxy answers itself, with counters, on any host.",
        takes: Takes::Word {
            form: "a path",
            read: Settings::set_health_uri,
            show: |s| s.health_uri.clone().unwrap_or_default(),
        },
        applies: Applies::OnReload,
    },
    Directive {
        name: "log-level",
        flag: None,
        default: Some("info"),
        about: "What is logged: this and everything graver.",
        takes: Takes::Word {
            form: "off, error, warn, info, debug or trace",
            read: |s, word| choose(word, &LOG_LEVEL).map(|value| s.log_level = value),
            show: |s| word_for(s.log_level, &LOG_LEVEL),
        },
        applies: Applies::OnReload,
    },
    Directive {
        name: "log-file",
        flag: Some(Flag { letter: 'l', value: "FILE" }),
        default: None,
        about: "The file that the log goes to instead of standard error.",
        takes: Takes::Path { field: |s| &mut s.log_file },
        applies: Applies::OnReload,
    },
    Directive {
        name: "access-log",
        flag: None,
        default: None,
        about: "The file that gets a line for each request; `-` is standard output.",
        takes: Takes::Path { field: |s| &mut s.access_log },
        applies: Applies::OnReload,
    },
    Directive {
        name: "daemonize",
        flag: Some(Flag { letter: 'd', value: "" }),
        default: Some("no"),
        about: "Go into the background once the proxy serves. Errors until then still appear, and in the exit code.",
        takes: Takes::YesNo { field: |s| &mut s.daemonize },
        applies: Applies::OnRestart,
    },
    Directive {
        name: "pidfile",
        flag: None,
        default: None,
        about: "The file that holds the process's number while it runs, and keeps a second one out.",
        takes: Takes::Path { field: |s| &mut s.pidfile },
        applies: Applies::OnRestart,
    },
    Directive {
        name: "user",
        flag: None,
        default: None,
        about: "The user that the proxy becomes once it listens. Only root can become another.",
        takes: Takes::Word {
            form: "a user's name",
            read: Settings::set_user,
            show: |s| s.user.clone().unwrap_or_default(),
        },
        applies: Applies::OnRestart,
    },
    Directive {
        name: "group",
        flag: None,
        default: None,
        about: "The group that the proxy becomes once it listens. Unset it is the user's own.",
        takes: Takes::Word {
            form: "a group's name",
            read: Settings::set_group,
            show: |s| s.group.clone().unwrap_or_default(),
        },
        applies: Applies::OnRestart,
    },
    Directive {
        name: "descriptors",
        flag: None,
        default: Some("0"),
        about: "How many descriptors the proxy may have open. Only root can go beyond the hard limit.",
        takes: Takes::Count {
            field: |s| &mut s.descriptors,
            range: Range::new(
                FEW_DESCRIPTORS,
                "the workers' own would be all of them",
                MANY,
                "no process holds more",
            )
            .or_zero("the hard limit"),
        },
        applies: Applies::OnRestart,
    },
];

#[cfg(test)]
mod tests {
    use super::super::changed;
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
                (row.set(&mut new, &[*word]).is_ok() && new != old).then_some(new)
            };
            let words =
                ["3", "3s", "4k", "20", "128", "512", "yes", "no", "503", "off", "name", "/health"];
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
            "257 is more than 128: the parser has room for no more"
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
