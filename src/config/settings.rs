//! The settings of one proxy process: the fields that the table's rows fill.

use super::access_log::AccessLog;
use super::address::{Address, DEFAULT_PORT, has_port, is_name};
use super::endpoint::Endpoint;
use super::error_page::ErrorPage;
use super::key_limits::KeyLimits;
use super::listen_tls::{ListenTls, TlsVersion};
use super::network::{ACCEPT_PROXY, AcceptProxy, Network};
use super::range::MAX_WORKERS;
use super::secret_file::SecretsMode;
use super::site::Site;
use super::values::{choose, is_digits, quoted, word_for};
use crate::http::{Forwarded, ForwardedStyle, TimeUnit};
use log::LevelFilter;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The proxy's settings. `table.rs` has the name, default and bounds of each, and
/// `conf/cloudbridge.conf` explains them at length.
///
/// It may be printed: host keys' secrets are in a file that it only names, and a site's key hides
/// itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The listeners. Never empty.
    pub listen: Vec<Listen>,
    /// Event loops, one thread each; 0 = one per core.
    pub workers: usize,
    /// The file of `timestamp:secret` lines that host keys are checked against.
    pub secrets: Option<PathBuf>,
    /// Which permissions the files of secrets may have.
    pub secrets_mode: SecretsMode,
    /// The least version of TLS.
    pub tls_min: TlsVersion,
    /// The kernel encrypts, where it can.
    pub ktls: bool,
    /// The file of the keys that encrypt session tickets.
    pub tls_ticket_keys: Option<PathBuf>,
    /// The file of the secrets that the cookies of sticky sites are signed with.
    pub sticky_secret: Option<PathBuf>,
    /// The file of the hashes of keys that have been taken back.
    pub revoked: Option<PathBuf>,
    /// How long a bridge whose key is no longer good may finish its exchange.
    pub revoke_grace: Duration,
    /// What to do with the bridges of a key that expires.
    pub expired_keys: ExpiredKeys,
    /// The virtual host that answers with the proxy's state; lower case, without a port.
    pub info_host: Option<String>,
    /// The virtual host that shows the holder of a host key what the key covers; like `info_host`.
    pub tenant_host: Option<String>,
    /// Without secrets: whether bridges from other machines are accepted.
    pub open_bridges: bool,
    /// With secrets: whether host keys of the original's form are accepted.
    pub legacy_keys: bool,
    /// With secrets: whether host keys are accepted that are sent as they are, and not proven.
    pub bearer_keys: bool,
    /// Whether backends may register by a PTTH request, too.
    pub ptth: bool,
    /// Limits of host keys.
    pub key_limits: Vec<KeyLimits>,
    /// The program that is asked about each registration whose keys are good.
    pub authorise: Option<Arc<Endpoint>>,
    /// How long a registration waits for its answer.
    pub authorise_timeout: Duration,
    /// Questions that it may be asked at once; one more gets 503.
    pub authorise_questions: usize,
    /// Answers of it that are kept.
    pub authorise_cache: usize,
    /// In `Arc`s, because settings are copied to be shown and compared.
    pub site: Vec<Arc<Site>>,
    /// The file that keeps the sites that are made at run time.
    pub updates_file: Option<PathBuf>,
    /// How often lists of servers in Redis are read again.
    pub redis_interval: Duration,
    /// The file of the password of Redis.
    pub redis_password: Option<PathBuf>,
    /// Pages for answers of the proxy's own, unless a site has its own.
    pub error_page: Vec<ErrorPage>,
    /// How long a request waits for a bridge, then 504.
    pub wait_timeout: Duration,
    /// What to do with a request for a name that no bridge serves.
    pub unknown_host: UnknownHost,
    /// Requests that may wait for one route; one more gets 503.
    pub queue_per_route: usize,
    /// Requests that may wait for names that no bridge serves; one more gets 503.
    pub queue_unserved: usize,
    /// Bridges that one host name may have; one more gets 503. 0 = any number.
    pub bridges_per_host: usize,
    /// Open connections, clients and bridges together. 0 = what the descriptor limit allows.
    pub max_connections: usize,
    /// Most connections of one client address; 0 for any number.
    pub connections_per_address: usize,
    /// Longest head of a message, in bytes; a longer request gets 431.
    pub max_head: usize,
    /// Most fields in a head; a request with more gets 431.
    pub max_fields: usize,
    /// Longest request target, in bytes; a longer one gets 414.
    pub max_target: usize,
    /// From a head's first byte to its last, then 408.
    pub head_timeout: Duration,
    /// What to do with clients that have sent their FIN and not got their response.
    pub half_closed_clients: HalfClosedClients,
    /// How long a client may be silent between requests.
    pub keepalive_timeout: Duration,
    /// How long a body may make no progress.
    pub body_timeout: Duration,
    /// From a request's end to its response's first byte, then 504.
    pub response_timeout: Duration,
    /// How long a response without a length may be silent.
    pub stream_timeout: Duration,
    /// How long a tunnel may be silent in both directions.
    pub tunnel_timeout: Duration,
    /// How long a connect to a server of a site may take.
    pub dial_timeout: Duration,
    /// How long a connection to a server of a site is kept without a request.
    pub dial_idle: Duration,
    /// Between one `100 Continue` to a parked bridge and the next.
    pub ping_interval: Duration,
    /// How long a bridge may be parked before it gets 504; 0 = forever.
    pub bridge_timeout: Duration,
    /// How long a matched bridge may take to acknowledge.
    pub bridge_ack_timeout: Duration,
    /// How long everything goes on as before after SIGTERM.
    pub drain_delay: Duration,
    /// How long exchanges in flight may continue after that.
    pub drain_timeout: Duration,
    /// How long exchanges in flight may continue in a program that another has replaced.
    pub upgrade_timeout: Duration,
    /// How often a request that an application may have seen is repeated.
    pub retries: usize,
    /// Largest request, in bytes, that is kept until its response begins, so that it can be sent
    /// again.
    pub retry_limit: usize,
    /// Bytes of a response that are read ahead for a client that does not keep up.
    pub response_buffer: usize,
    /// Largest response, in bytes, that is held back until it is whole.
    pub hold_response: usize,
    /// A body with at least this many bytes still to come is spliced.
    pub splice_threshold: usize,
    /// What to do with the `X-Forwarded-` fields.
    pub forwarded: Forwarded,
    /// Whose fields about the client are kept. Empty: `forwarded` applies to all peers alike.
    pub trusted_proxies: Vec<Network>,
    /// In which fields the client is named.
    pub forwarded_style: ForwardedStyle,
    /// In which unit, if at all, a request carries the time at which it came.
    pub request_start: Option<TimeUnit>,
    /// Whether each request has an id.
    pub request_id: bool,
    /// How long a connection is idle before the kernel probes its peer.
    pub tcp_keepalive: Duration,
    /// How long sent bytes may stay unacknowledged before the kernel gives the peer up.
    pub tcp_user_timeout: Duration,
    /// The file of the token that the admin listeners ask for over TCP.
    pub admin_token: Option<PathBuf>,
    /// Whether reading over TCP needs it too.
    pub admin_reads: AdminReads,
    /// Names under which the admin listeners may be reached, besides addresses and `localhost`.
    pub admin_names: Vec<String>,
    /// How many hosts have metrics of their own.
    pub metrics_hosts: usize,
    /// Where haproxy's agent checks are answered.
    pub agent_check: Vec<Address>,
    /// How many slots make a weight of 100 percent there.
    pub agent_check_slots: usize,
    /// The path that is answered with counters on any host.
    pub health_uri: Option<String>,
    /// The least severe level that is logged.
    pub log_level: LevelFilter,
    /// Where the log is written; unset is standard error.
    pub log_file: Option<PathBuf>,
    /// Where each request is logged, and how.
    pub access_log: Option<AccessLog>,
    /// Whether the process goes into the background.
    pub daemonize: bool,
    /// Something waits for the end of the process.
    pub supervised: bool,
    /// The file that holds the process ID.
    pub pidfile: Option<PathBuf>,
    /// The user that the process becomes once it has bound its sockets.
    pub user: Option<String>,
    /// The group that it joins; unset is the user's own.
    pub group: Option<String>,
    /// How many descriptors it may have open. 0 = as many as the hard limit allows.
    pub descriptors: usize,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where it listens.
    pub address: Address,
    /// Which peers it accepts.
    pub serves: Serves,
    /// The permissions of a Unix socket's file.
    pub mode: Option<u32>,
    /// Which peers announce their clients.
    pub accept_proxy: Option<AcceptProxy>,
    /// How its connections are encrypted.
    pub tls: Option<ListenTls>,
    /// The port to which all clients are redirected, by https.
    pub redirect_https: Option<u16>,
}

/// Which peers a listener accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    /// Clients and bridges: their first bytes tell which.
    Both,
    /// Clients only: a BRIDGE gets 405.
    Clients,
    /// Bridges only: a client gets 404.
    Bridges,
    /// The operator and the operator's programs (`doc/admin.md`).
    Admin,
}

/// What to do with a request for a name that no bridge serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownHost {
    /// Let it wait: its backend may be about to start.
    Wait,
    /// Answer 404 at once.
    NotFound,
    /// Answer 503 at once.
    Unavailable,
}

/// Who may read at the admin listeners over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminReads {
    /// Anybody who reaches them.
    Open,
    /// Those who know the admin token.
    Token,
}

/// The words of [`AdminReads`].
pub(super) const ADMIN_READS: [(&str, AdminReads); 2] =
    [("open", AdminReads::Open), ("token", AdminReads::Token)];

/// The words of [`UnknownHost`].
pub(super) const UNKNOWN_HOST: [(&str, UnknownHost); 3] = [
    ("wait", UnknownHost::Wait),
    ("404", UnknownHost::NotFound),
    ("503", UnknownHost::Unavailable),
];

/// What to do with the bridges of a key that expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiredKeys {
    /// Close them.
    Close,
    /// Leave them connected, and say so in the log.
    Log,
}

/// The words of [`ExpiredKeys`].
pub(super) const EXPIRED_KEYS: [(&str, ExpiredKeys); 2] =
    [("close", ExpiredKeys::Close), ("log", ExpiredKeys::Log)];

/// What to do with clients that have sent their FIN and not got their response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfClosedClients {
    /// Find out which are gone, and give up what cannot be found out.
    Probe,
    /// Serve them until their connection breaks.
    Serve,
}

/// The words of [`HalfClosedClients`].
pub(super) const HALF_CLOSED_CLIENTS: [(&str, HalfClosedClients); 2] =
    [("probe", HalfClosedClients::Probe), ("serve", HalfClosedClients::Serve)];

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
const SERVES: [(&str, Serves); 3] =
    [("clients", Serves::Clients), ("bridges", Serves::Bridges), ("admin", Serves::Admin)];

/// The option that redirects clients, and the port to which it does.
const REDIRECT_HTTPS: &str = "redirect-https";
const HTTPS: u16 = 443;

/// In front of the permissions of a Unix socket.
const MODE: &str = "mode=";

/// As it would be written after `listen`.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        if self.serves != Serves::Both {
            write!(f, " {}", word_for(self.serves, &SERVES))?;
        }
        if let Some(mode) = self.mode {
            write!(f, " {MODE}{mode:04o}")?;
        }
        if let Some(peers) = &self.accept_proxy {
            write!(f, " {ACCEPT_PROXY}={peers}")?;
        }
        if let Some(tls) = &self.tls {
            write!(f, " {tls}")?;
        }
        match self.redirect_https {
            Some(HTTPS) => write!(f, " {REDIRECT_HTTPS}"),
            Some(port) => write!(f, " {REDIRECT_HTTPS}={port}"),
            None => Ok(()),
        }
    }
}

impl Settings {
    /// What the table's defaults are written onto. None of these values is ever used.
    pub(super) const BLANK: Settings = Settings {
        listen: Vec::new(),
        workers: 0,
        secrets: None,
        secrets_mode: SecretsMode::Private,
        tls_min: TlsVersion::V12,
        ktls: true,
        tls_ticket_keys: None,
        sticky_secret: None,
        revoked: None,
        revoke_grace: Duration::ZERO,
        expired_keys: ExpiredKeys::Log,
        info_host: None,
        tenant_host: None,
        open_bridges: false,
        legacy_keys: false,
        bearer_keys: false,
        ptth: false,
        key_limits: Vec::new(),
        authorise: None,
        authorise_timeout: Duration::ZERO,
        authorise_questions: 0,
        authorise_cache: 0,
        site: Vec::new(),
        updates_file: None,
        redis_interval: Duration::ZERO,
        redis_password: None,
        error_page: Vec::new(),
        wait_timeout: Duration::ZERO,
        unknown_host: UnknownHost::Wait,
        queue_per_route: 0,
        queue_unserved: 0,
        bridges_per_host: 0,
        max_connections: 0,
        connections_per_address: 0,
        max_head: 0,
        max_fields: 0,
        max_target: 0,
        head_timeout: Duration::ZERO,
        keepalive_timeout: Duration::ZERO,
        body_timeout: Duration::ZERO,
        response_timeout: Duration::ZERO,
        stream_timeout: Duration::ZERO,
        tunnel_timeout: Duration::ZERO,
        half_closed_clients: HalfClosedClients::Serve,
        dial_timeout: Duration::ZERO,
        dial_idle: Duration::ZERO,
        ping_interval: Duration::ZERO,
        bridge_timeout: Duration::ZERO,
        bridge_ack_timeout: Duration::ZERO,
        drain_delay: Duration::ZERO,
        upgrade_timeout: Duration::ZERO,
        drain_timeout: Duration::ZERO,
        retries: 0,
        retry_limit: 0,
        response_buffer: 0,
        hold_response: 0,
        splice_threshold: 0,
        forwarded: Forwarded::Off,
        trusted_proxies: Vec::new(),
        forwarded_style: ForwardedStyle::X,
        request_start: None,
        request_id: false,
        tcp_keepalive: Duration::ZERO,
        tcp_user_timeout: Duration::ZERO,
        admin_token: None,
        admin_reads: AdminReads::Open,
        admin_names: Vec::new(),
        metrics_hosts: 0,
        agent_check: Vec::new(),
        agent_check_slots: 0,
        health_uri: None,
        log_level: LevelFilter::Off,
        log_file: None,
        access_log: None,
        daemonize: false,
        supervised: false,
        pidfile: None,
        user: None,
        group: None,
        descriptors: 0,
    };

    /// How many workers to start: as configured, or one per core that this process may use
    /// (its affinity mask and cgroup quota are respected).
    pub(crate) fn worker_count(&self) -> usize {
        match self.workers {
            0 => {
                std::thread::available_parallelism().map_or(1, |cores| cores.get()).min(MAX_WORKERS)
            }
            workers => workers,
        }
    }

    pub(super) fn add_admin_names(&mut self, words: &[&str]) -> Result<(), String> {
        for word in words {
            self.admin_names.push(host_name(word)?);
        }
        Ok(())
    }

    pub(super) fn add_error_page(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            [statuses, file] => ErrorPage::add(&mut self.error_page, statuses, file),
            _ => Err("takes statuses and a file, such as 503,504 /etc/page.html".to_owned()),
        }
    }

    pub(super) fn add_key_limits(&mut self, words: &[&str]) -> Result<(), String> {
        let line = KeyLimits::parse(words)?;
        if self.key_limits.iter().any(|other| other.name == line.name) {
            return Err(format!("{} has a line already", line.name));
        }
        self.key_limits.push(line);
        Ok(())
    }

    pub(super) fn set_authorise(&mut self, word: &str) -> Result<(), String> {
        self.authorise = Some(Arc::new(Endpoint::parse(word, Endpoint::FORM)?));
        Ok(())
    }

    pub(super) fn add_agent_check(&mut self, words: &[&str]) -> Result<(), String> {
        let [word] = words else {
            return Err(format!("takes one address a line, not {}", words.len()));
        };
        let address = match Address::parse_passed(word) {
            Some(passed) => passed?,
            None => Address::parse(word)?,
        };
        if !has_port(word) {
            return Err(format!("{} has no port; write ADDRESS:PORT", quoted(word)));
        }
        if self.agent_check.contains(&address) && !address.is_any_port() {
            return Err(format!("{address} is already listened on"));
        }
        self.agent_check.push(address);
        Ok(())
    }

    pub(super) fn add_trusted_proxies(&mut self, words: &[&str]) -> Result<(), String> {
        for word in words {
            self.trusted_proxies.push(Network::parse(word)?);
        }
        Ok(())
    }

    pub(super) fn add_listen(&mut self, words: &[&str]) -> Result<(), String> {
        let Some((address, options)) = words.split_first() else {
            return Err("has no value".to_owned());
        };
        let address = match address.strip_prefix("unix:") {
            Some("") => return Err("unix: is followed by the path of a socket".to_owned()),
            Some(path) => Address::Unix(PathBuf::from(path)),
            None => match Address::parse_passed(address) {
                Some(passed) => passed?,
                None => Address::parse(address)?,
            },
        };
        // Whether a socket of systemd is one is seen when it is there.
        let is_passed = matches!(address, Address::Passed(_));
        let is_unix = matches!(address, Address::Unix(_));
        let (mut serves, mut mode, mut accept_proxy) = (Serves::Both, None, None);
        let (mut tls, mut redirect_https) = (None, None);
        for option in options {
            match option.split_once('=') {
                Some(("mode", digits)) if is_unix => mode = Some(permissions(digits)?),
                Some(("mode", _)) => return Err(format!("{MODE} is for Unix sockets")),
                Some((ACCEPT_PROXY, _)) if accept_proxy.is_some() => {
                    return Err(format!("{ACCEPT_PROXY} is given twice"));
                }
                Some((ACCEPT_PROXY, peers)) => {
                    let is_unix = is_unix || (is_passed && peers == AcceptProxy::UNIX);
                    let peers = AcceptProxy::parse(peers, is_unix);
                    accept_proxy = Some(peers.map_err(|what| format!("{ACCEPT_PROXY}: {what}"))?);
                }
                Some((option, value)) if ListenTls::take(&mut tls, option, value)? => {}
                Some((REDIRECT_HTTPS, port)) => {
                    let number = port.parse().ok().filter(|_| is_digits(port));
                    redirect_https =
                        Some(number.ok_or_else(|| format!("{} is not a port", quoted(port)))?);
                }
                None if *option == REDIRECT_HTTPS => redirect_https = Some(HTTPS),
                _ if serves == Serves::Both => serves = choose(option, &SERVES)?,
                _ => return Err(format!("{} is one word too many", quoted(option))),
            }
        }
        if serves == Serves::Admin && accept_proxy.is_some() {
            // Nothing there depends on the address of the peer.
            return Err(format!("{ACCEPT_PROXY} is not for admin listeners"));
        }
        if let Some(tls) = &tls {
            tls.check()?;
            if redirect_https.is_some() {
                return Err(format!("{REDIRECT_HTTPS} is for listeners without TLS"));
            }
        }
        if redirect_https.is_some() && serves != Serves::Clients {
            return Err(format!("{REDIRECT_HTTPS} is for listeners of clients alone"));
        }
        // With SO_REUSEPORT the second bind would succeed, and the kernel would spread connections
        // over both.
        let twice = |other: &Listen| other.address == address && !address.is_any_port();
        if self.listen.iter().any(twice) {
            return Err(format!("{address} is already listened on"));
        }
        self.listen.push(Listen { address, serves, mode, accept_proxy, tls, redirect_https });
        Ok(())
    }

    /// Drops the listeners of clients and bridges. Those of the operator stay: addresses on the
    /// command line replace only the others.
    pub(super) fn clear_listen(&mut self) {
        self.listen.retain(|listen| listen.serves == Serves::Admin);
    }

    /// Listens for clients and bridges where the default does, if nothing else says where.
    pub(super) fn listen_somewhere(&mut self) {
        if self.listen.iter().all(|listen| listen.serves == Serves::Admin) {
            let address = Address::Any { port: DEFAULT_PORT };
            let listen = Listen {
                address,
                serves: Serves::Both,
                mode: None,
                accept_proxy: None,
                tls: None,
                redirect_https: None,
            };
            self.listen.insert(0, listen);
        }
    }

    /// Where the first admin listener is, a Unix socket before others. Where one of systemd is, only
    /// systemd knows.
    pub(crate) fn admin_place(&self) -> Option<String> {
        let is_admin = |listen: &&Listen| {
            listen.serves == Serves::Admin && !matches!(listen.address, Address::Passed(_))
        };
        let mut admin: Vec<_> = self.listen.iter().filter(is_admin).collect();
        admin.sort_by_key(|listen| !matches!(listen.address, Address::Unix(_)));
        admin.first().map(|listen| listen.address.to_string())
    }

    /// What is wrong between settings that are valid each by itself: one sentence each.
    pub(super) fn conflicts(&self) -> Vec<String> {
        let mut wrong = self.listened_twice();
        if self.daemonize && self.log_file.is_none() {
            let what = "daemonize: there is no standard error in the background; set log-file too";
            wrong.push(what.to_owned());
        }
        if self.revoked.is_some() && self.secrets.is_none() {
            wrong.push("revoked: without secrets no key is checked; set secrets too".to_owned());
        }
        if self.tenant_host.is_some() && self.secrets.is_none() {
            wrong
                .push("tenant-host: without secrets no key is checked; set secrets too".to_owned());
        }
        if self.tenant_host.is_some() && self.tenant_host == self.info_host {
            wrong.push("tenant-host: this is the info-host; they need two names".to_owned());
        }
        if self.admin_reads == AdminReads::Token && self.admin_token.is_none() {
            wrong.push("admin-reads: there is no token; set admin-token too".to_owned());
        }
        if self.daemonize && self.access_log.as_ref().is_some_and(AccessLog::is_stdout) {
            let what = "access-log: there is no standard output in the background; name a file";
            wrong.push(what.to_owned());
        }
        wrong
    }
}

/// The permissions of a file, in octal digits.
fn permissions(digits: &str) -> Result<u32, String> {
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(format!("{} are no permissions, such as 0660", quoted(digits))),
    }
}

/// The path of the counters.
pub(super) fn health_uri(word: &str) -> Result<String, String> {
    if !word.starts_with('/') || !word.bytes().all(|b| b.is_ascii_graphic() && b != b'?') {
        return Err(format!("{} is not a path without a query", quoted(word)));
    }
    Ok(word.to_owned())
}

/// The name of a virtual host, in lower case.
pub(super) fn host_name(word: &str) -> Result<String, String> {
    if !is_name(word) {
        return Err(format!(
            "{} is not a host name (it has no port, and no wildcard)",
            quoted(word)
        ));
    }
    Ok(word.to_ascii_lowercase())
}

/// The name of a user or group. Whether there is one of that name is seen later: that asks the
/// system.
pub(super) fn account(word: &str) -> Result<String, String> {
    if word.is_empty() || word.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{} is not a name (numbers are not taken)", quoted(word)));
    }
    Ok(word.to_owned())
}
