//! What one proxy process runs with: the fields that the table's rows fill, and how they are loaded.

use super::address::{Address, is_name};
use super::directive::{Applies, Directive, defaults};
use super::reader::{Problem, Setter, read_file};
use super::site::Site;
use super::table::{MAX_WORKERS, TABLE};
use super::values::{choose, quoted, word_for};
use log::LevelFilter;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The proxy's settings. `table.rs` has the name, the default and the bounds of each, and
/// `conf/cloudbridge.conf` explains them at length.
///
/// It may be printed: host keys' secrets are in a file that it only names, and a site's key hides itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where to listen, and for whom. Never empty.
    pub listen: Vec<Listen>,
    /// Reactors, one thread each; 0 = one per core. See [`Settings::worker_count`].
    pub workers: usize,
    /// The file of `timestamp:secret` lines that host keys are checked against.
    pub secrets: Option<PathBuf>,
    /// The virtual host that answers with the proxy's state; lower case, without a port.
    pub info_host: Option<String>,
    /// Without secrets: are bridges taken from other machines too?
    pub open_bridges: bool,
    /// With secrets: are host keys of the original's form taken beside the modern one?
    pub legacy_keys: bool,
    /// Sites with a line of their own. In `Arc`s, because settings are copied to be shown and compared.
    pub site: Vec<Arc<Site>>,
    /// How long a request waits for a bridge, then 504.
    pub wait_timeout: Duration,
    /// What becomes of a request for a name that no bridge serves.
    pub unknown_host: UnknownHost,
    /// Requests that may wait for one route at a time; one more gets 503.
    pub queue_per_route: usize,
    /// Requests that may wait for names that nobody serves, all together; one more gets 503.
    pub queue_unserved: usize,
    /// Bridges that one host name may have; one more gets 503. 0 = any number.
    pub bridges_per_host: usize,
    /// Open connections, clients and bridges together. 0 = what the descriptor limit allows.
    pub max_connections: usize,
    /// Longest head of a message, in bytes; a longer request gets 431.
    pub max_head: usize,
    /// Most fields in a head; a request with more gets 431.
    pub max_fields: usize,
    /// Longest request target, in bytes; a longer one gets 414.
    pub max_target: usize,
    /// From a head's first byte to its last, then 408.
    pub head_timeout: Duration,
    /// How long a client may be silent between requests.
    pub keepalive_timeout: Duration,
    /// How long a body may make no progress.
    pub body_timeout: Duration,
    /// From a request's end to its response's first byte, then 504.
    pub response_timeout: Duration,
    /// How long a tunnel may be silent in both directions.
    pub tunnel_timeout: Duration,
    /// How long a connect to a server of a site may take.
    pub dial_timeout: Duration,
    /// How long a connection to a server of a site is kept without a request.
    pub dial_idle: Duration,
    /// Between one `100 Continue` to a parked bridge and the next.
    pub ping_interval: Duration,
    /// How long a bridge may be parked before it gets 504; 0 = for ever.
    pub bridge_timeout: Duration,
    /// How long a matched bridge may take to say that it is there.
    pub bridge_ack_timeout: Duration,
    /// How long exchanges in flight may go on after SIGTERM.
    pub drain_timeout: Duration,
    /// Largest request that is kept until its response begins, so that it can be sent again, in bytes.
    pub retry_limit: usize,
    /// A body with at least this many bytes still to come is spliced.
    pub splice_threshold: usize,
    /// What becomes of the `X-Forwarded-` fields.
    pub forwarded: Forwarded,
    /// How long a connection is idle before the kernel probes its peer.
    pub tcp_keepalive: Duration,
    /// How long sent bytes or probes may stay unacknowledged before the kernel gives the peer up.
    pub tcp_user_timeout: Duration,
    /// The path that is answered with counters on any host.
    pub health_uri: Option<String>,
    /// What is logged.
    pub log_level: LevelFilter,
    /// Where the log goes; unset is standard error.
    pub log_file: Option<PathBuf>,
    /// Where each request is logged; `-` is standard output.
    pub access_log: Option<PathBuf>,
    /// Does the process go into the background?
    pub daemonize: bool,
    /// The file that holds the process's number while it runs.
    pub pidfile: Option<PathBuf>,
    /// The user that the process becomes once it has bound its sockets.
    pub user: Option<String>,
    /// The group that it becomes; unset is the user's own.
    pub group: Option<String>,
    /// How many descriptors it may have open. 0 = as many as the hard limit allows.
    pub descriptors: usize,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where it listens.
    pub address: Address,
    /// Whom it takes.
    pub serves: Serves,
}

/// Whom a listener takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    /// Clients and bridges: their first bytes tell which.
    Both,
    /// Clients only: a BRIDGE gets 405.
    Clients,
    /// Bridges only: a client gets 404.
    Bridges,
}

/// What becomes of a request for a name that no bridge serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownHost {
    /// It waits: its backend may be about to start.
    Wait,
    /// It is answered 404 at once.
    NotFound,
    /// It is answered 503 at once.
    Unavailable,
}

/// What becomes of `X-Forwarded-For`, `-Proto` and `-Host` on the way to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// What the client sent is believed, and its address is appended: for use behind another proxy.
    Append,
    /// What the client sent is dropped, and its address is set: for use at the edge.
    Replace,
    /// They pass through untouched.
    Off,
}

/// The words of [`UnknownHost`].
pub(super) const UNKNOWN_HOST: [(&str, UnknownHost); 3] = [
    ("wait", UnknownHost::Wait),
    ("404", UnknownHost::NotFound),
    ("503", UnknownHost::Unavailable),
];

/// The words of [`Forwarded`].
pub(super) const FORWARDED: [(&str, Forwarded); 3] =
    [("append", Forwarded::Append), ("replace", Forwarded::Replace), ("off", Forwarded::Off)];

/// The words of [`LevelFilter`].
pub(super) const LOG_LEVEL: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::Off),
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
];

/// The words of [`Serves`] that a `listen` line may end in.
const SERVES: [(&str, Serves); 2] = [("clients", Serves::Clients), ("bridges", Serves::Bridges)];

/// As it would be written after `listen`.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.serves {
            Serves::Both => write!(f, "{}", self.address),
            serves => write!(f, "{} {}", self.address, word_for(serves, &SERVES)),
        }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        defaults(TABLE, Settings::BLANK)
    }
}

impl Settings {
    /// What the table's defaults are written onto. None of it is ever seen: the table has a default
    /// for each of these, or leaves it unset.
    const BLANK: Settings = Settings {
        listen: Vec::new(),
        workers: 0,
        secrets: None,
        info_host: None,
        open_bridges: false,
        legacy_keys: false,
        site: Vec::new(),
        wait_timeout: Duration::ZERO,
        unknown_host: UnknownHost::Wait,
        queue_per_route: 0,
        queue_unserved: 0,
        bridges_per_host: 0,
        max_connections: 0,
        max_head: 0,
        max_fields: 0,
        max_target: 0,
        head_timeout: Duration::ZERO,
        keepalive_timeout: Duration::ZERO,
        body_timeout: Duration::ZERO,
        response_timeout: Duration::ZERO,
        tunnel_timeout: Duration::ZERO,
        dial_timeout: Duration::ZERO,
        dial_idle: Duration::ZERO,
        ping_interval: Duration::ZERO,
        bridge_timeout: Duration::ZERO,
        bridge_ack_timeout: Duration::ZERO,
        drain_timeout: Duration::ZERO,
        retry_limit: 0,
        splice_threshold: 0,
        forwarded: Forwarded::Off,
        tcp_keepalive: Duration::ZERO,
        tcp_user_timeout: Duration::ZERO,
        health_uri: None,
        log_level: LevelFilter::Off,
        log_file: None,
        access_log: None,
        daemonize: false,
        pidfile: None,
        user: None,
        group: None,
        descriptors: 0,
    };

    /// How many workers to start: what was asked for, or one per core that this process may use
    /// (its affinity mask and cgroup quota counted in).
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => {
                std::thread::available_parallelism().map_or(1, |cores| cores.get()).min(MAX_WORKERS)
            }
            workers => workers,
        }
    }

    pub(super) fn add_listen(&mut self, words: &[&str]) -> Result<(), String> {
        let (address, serves) = match words {
            [address] => (address, Serves::Both),
            [address, serves] => (address, choose(serves, &SERVES)?),
            _ => {
                return Err("takes an address and clients, bridges or nothing".to_owned());
            }
        };
        let address = Address::parse(address)?;
        // SO_REUSEPORT would let the same address in twice, and deal connections to either at random.
        let twice = |other: &Listen| other.address == address && address.port() != 0;
        if self.listen.iter().any(twice) {
            return Err(format!("{address} is already listened on"));
        }
        self.listen.push(Listen { address, serves });
        Ok(())
    }

    /// What is wrong with settings that are good each by itself.
    fn conflicts(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |what: &str| problems.push(Problem::Flag { what: what.to_owned() });
        if self.daemonize && self.log_file.is_none() {
            wrong("daemonize: there is no standard error in the background; set log-file too");
        }
        if self.daemonize && self.access_log.as_deref() == Some(Path::new("-")) {
            wrong("access-log: there is no standard output in the background; name a file");
        }
        problems.extend(self.listened_twice().into_iter().map(|what| Problem::Flag { what }));
        problems
    }

    pub(super) fn set_health_uri(&mut self, word: &str) -> Result<(), String> {
        if !word.starts_with('/') || !word.bytes().all(|b| b.is_ascii_graphic() && b != b'?') {
            return Err(format!("{} is not a path without a query", quoted(word)));
        }
        self.health_uri = Some(word.to_owned());
        Ok(())
    }

    pub(super) fn set_info_host(&mut self, word: &str) -> Result<(), String> {
        if !is_name(word) {
            return Err(format!(
                "{} is not a host name (it has no port, and no wildcard)",
                quoted(word)
            ));
        }
        self.info_host = Some(word.to_ascii_lowercase());
        Ok(())
    }

    pub(super) fn set_user(&mut self, word: &str) -> Result<(), String> {
        account(word).map(|name| self.user = Some(name))
    }

    pub(super) fn set_group(&mut self, word: &str) -> Result<(), String> {
        account(word).map(|name| self.group = Some(name))
    }
}

/// The name of a user or group. Whether there is one of that name is seen later: that asks the system.
fn account(word: &str) -> Result<String, String> {
    if word.is_empty() || word.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{} is not a name (numbers are not taken)", quoted(word)));
    }
    Ok(word.to_owned())
}

/// Where settings come from. It is kept while the proxy runs, so that a reload reads the same again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The settings file, if one was named.
    pub file: Option<PathBuf>,
    /// What the command line says; it wins over the file.
    pub overrides: Overrides,
}

/// What the command line sets: directive names and their values, in the order given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    values: Vec<(&'static str, String)>,
}

impl Overrides {
    /// Adds a value for a directive of [`TABLE`]. A list's first value replaces the file's whole list.
    pub fn push(&mut self, name: &'static str, value: impl Into<String>) {
        self.values.push((name, value.into()));
    }

    /// Sets them, all of them, and says what is wrong with any.
    pub fn apply(&self, settings: &mut Settings) -> Vec<Problem> {
        let mut setter = Setter::new(TABLE, settings);
        let mut problems = Vec::new();
        for (name, value) in &self.values {
            // One value is one word here: the shell has done the splitting.
            if let Err(what) = setter.set(name, &[value], 0) {
                problems.push(Problem::Flag { what });
            }
        }
        problems
    }
}

/// Makes the settings: the table's defaults, then the file, then the command line.
///
/// # Errors
/// Everything that is wrong, in the order of the file. Names of addresses are not resolved here.
pub fn load(source: &Source) -> Result<Settings, Vec<Problem>> {
    let mut settings = Settings::default();
    let mut problems = match &source.file {
        Some(file) => read_file(TABLE, file, &mut settings),
        None => Vec::new(),
    };
    problems.extend(source.overrides.apply(&mut settings));
    if problems.is_empty() {
        problems = settings.conflicts();
    }
    if problems.is_empty() { Ok(settings) } else { Err(problems) }
}

/// The names of the directives whose values differ, in the table's order.
pub fn changed(old: &Settings, new: &Settings) -> Vec<&'static str> {
    // Another key is shown as the same line.
    let sites = |name| name == "site" && old.site != new.site;
    let differs = |row: &&Directive<Settings>| row.show(old) != row.show(new) || sites(row.name);
    TABLE.iter().filter(differs).map(|row| row.name).collect()
}

/// Does a change of this directive take effect only when the proxy is started again?
pub fn needs_restart(name: &str) -> bool {
    TABLE.iter().any(|row| row.name == name && row.applies == Applies::OnRestart)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::reader::read;
    use super::*;

    /// Reads these lines of a file over the defaults; the problems as they are shown.
    pub fn lines(text: &str) -> Result<Settings, Vec<String>> {
        let mut settings = Settings::default();
        let problems = read(TABLE, Path::new("f"), text.as_bytes(), &mut settings);
        if problems.is_empty() {
            return Ok(settings);
        }
        Err(problems.iter().map(Problem::to_string).collect())
    }

    #[track_caller]
    fn wrong(text: &str, expected: &str) {
        assert_eq!(lines(text), Err(vec![expected.to_owned()]));
    }

    #[test]
    fn without_a_file_everything_has_a_value() {
        let settings = load(&Source::default()).unwrap();
        assert_eq!(
            settings.listen,
            [Listen { address: Address::Any { port: 8079 }, serves: Serves::Both }]
        );
        assert_eq!(settings.workers, 0);
        assert!(settings.worker_count() >= 1);
        assert_eq!(settings.wait_timeout, Duration::from_secs(60));
        assert_eq!(settings.bridge_ack_timeout, Duration::from_millis(500));
        assert_eq!(settings.max_head, 16_384);
        assert_eq!(settings.forwarded, Forwarded::Append);
        assert_eq!(settings.log_level, LevelFilter::Info);
        assert!(!settings.open_bridges);
        assert!(settings.legacy_keys);
    }

    #[test]
    fn listen_says_where_and_for_whom() {
        let settings =
            lines("listen 127.0.0.1:8080 clients\nlisten *:8079 bridges\nlisten [::1]:0\n")
                .unwrap();
        let shown: Vec<String> = settings.listen.iter().map(Listen::to_string).collect();
        assert_eq!(shown, ["127.0.0.1:8080 clients", "*:8079 bridges", "[::1]:0"]);
        assert_eq!(settings.listen[2].serves, Serves::Both);
    }

    #[test]
    fn a_wrong_listen_says_what_is_wrong() {
        wrong("listen *:80 both", "f:1: listen: \"both\" is not clients or bridges");
        wrong(
            "listen *:80 clients bridges",
            "f:1: listen: takes an address and clients, bridges or nothing",
        );
        wrong(
            "listen *:80 clients\nlisten :80 bridges\n",
            "f:2: listen: *:80 is already listened on",
        );
        assert!(lines("listen *:0\nlisten *:0\n").is_ok());
    }

    #[test]
    fn words_are_read_into_their_enums() {
        let settings = lines(
            "unknown-host 404\nforwarded replace\nlog-level debug\ninfo-host Info.Example.COM\naccess-log -\nopen-bridges yes\n",
        )
        .unwrap();
        assert_eq!(settings.unknown_host, UnknownHost::NotFound);
        assert_eq!(settings.forwarded, Forwarded::Replace);
        assert_eq!(settings.log_level, LevelFilter::Debug);
        assert_eq!(settings.info_host.as_deref(), Some("info.example.com"));
        assert_eq!(settings.access_log, Some(PathBuf::from("-")));
        assert!(settings.open_bridges);
        wrong(
            "info-host a:80",
            "f:1: info-host: \"a:80\" is not a host name (it has no port, and no wildcard)",
        );
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let mut overrides = Overrides::default();
        overrides.push("listen", "1.2.3.4:5");
        overrides.push("listen", "[::1]:6");
        overrides.push("workers", "3");
        let mut settings = lines("listen *:80\nlisten *:81\nworkers 9\nmax-fields 50\n").unwrap();
        assert_eq!(overrides.apply(&mut settings), []);
        let shown: Vec<String> = settings.listen.iter().map(Listen::to_string).collect();
        assert_eq!(shown, ["1.2.3.4:5", "[::1]:6"]);
        assert_eq!(settings.workers, 3);
        assert_eq!(settings.max_fields, 50);
    }

    #[test]
    fn a_reload_can_name_what_changed() {
        let old = Settings::default();
        assert_eq!(changed(&old, &old.clone()), Vec::<&str>::new());
        let new =
            lines("log-level warn\nlisten *:8079 clients\nwait-timeout 1m\nsecrets /s\n").unwrap();
        assert_eq!(changed(&old, &new), ["listen", "secrets", "log-level"]);
        assert!(needs_restart("workers"));
        assert!(!needs_restart("listen"));
        assert!(!needs_restart("secrets"));
    }
}
