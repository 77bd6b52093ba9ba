//! One `site` line: the names of a site, its backends, and the settings of its requests
//! (`doc/protocol.md`, "swiftclient").

use super::address::{Address, has_port};
use super::check::{CHECK_OPTIONS, Check};
use super::error_page::ErrorPage;
use super::network::{ACCEPT_PROXY, AcceptProxy};
use super::on_demand::{ON_DEMAND_OPTIONS, OnDemand};
use super::path_pattern::PathPattern;
use super::range::{MANY, RETRY, Range, TIMEOUT};
use super::redis::RedisList;
use super::site_files::{FILES_OPTIONS, SiteFiles};
use super::site_servers::{Named, ServerTls, SiteServer, TLS_OPTIONS};
use super::sticky::Sticky;
use super::tokens::quote;
use super::values::{self, FORWARDED, choose, quoted, show_size, show_time, word_for};
use crate::bridge::{pattern, request};
use crate::http::Forwarded;
use std::fmt;
use std::time::Duration;

/// Longest key of a site, in bytes: the preamble has two hexadecimal digits for its length.
const MAX_KEY: usize = 255;

const MAX_PER_SERVER: Range<usize> = Range::new(1, MANY);
const TUNNELS_PER_SERVER: Range<usize> = Range::new(0, MANY);

/// How long a request may wait for its backend while another is free.
const STICKY_WAITS: Range<Duration> = Range::new(Duration::ZERO, Duration::from_secs(3_600));

/// The words of the setting `forwarded`, and the two of the original.
const FORWARDED_OR_NOT: [(&str, Forwarded); 5] =
    [FORWARDED[0], FORWARDED[1], FORWARDED[2], ("yes", Forwarded::Append), ("no", Forwarded::Off)];

/// For the messages.
pub(super) const OPTIONS: &str = "swiftiply, prefix, match, accept-proxy, key, servers, ca, server-name, \
                       client-cert, max, tunnels, check, check-interval, check-rise, check-fall, \
                       default, timeout, redeploy, keepalive, forwarded, backup, sticky, sticky-wait, error-page, docroot, hidden, symlinks, cache-control, \
                       pages, suffixes, sendfile-root, manager, manager-timeout, waiting-page-after and \
                       waiting-page";

/// A site. Its only secret, the key, is not printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Host patterns in the form of [`pattern::parse`]; never empty. The first is the site's name.
    pub names: Vec<String>,
    /// In the order of the line.
    pub listeners: Vec<SwiftclientListener>,
    /// Required of swiftclient backends; without it they are only accepted from this machine.
    pub key: Option<Key>,
    /// The servers that the proxy dials itself.
    pub servers: Vec<SiteServer>,
    /// Where Redis names more of them.
    pub redis: Vec<RedisList>,
    /// How those are verified that are spoken to by TLS.
    pub tls: ServerTls,
    /// Most connections to each of the servers, over all workers.
    pub max: Option<usize>,
    /// How many tunnels to each of the servers do not count as such connections.
    pub tunnels: Option<usize>,
    /// How the health of each of the servers is checked, beyond connecting to it.
    pub check: Option<Check>,
    /// It gets the requests for unknown names.
    pub default: bool,
    /// How long its requests wait for a free backend, then 503; the default is `wait-timeout`.
    pub timeout: Option<Duration>,
    /// Largest request, in bytes, that is sent again whatever its method if its backend dies before
    /// the response. The default is `retry-limit`, and only methods that may be repeated.
    pub redeploy: Option<usize>,
    pub keepalive: Keepalive,
    /// The default is the setting `forwarded`.
    pub forwarded: Option<Forwarded>,
    /// A name of the site that serves while this one has no backend at all.
    pub backup: Option<String>,
    /// How its clients come back to the same backend.
    pub sticky: Option<Sticky>,
    /// How long a request waits for that; the default is five seconds.
    pub sticky_wait: Option<Duration>,
    /// Pages for answers of the proxy's own to its requests.
    pub error_pages: Vec<ErrorPage>,
    /// The files that it serves.
    pub files: SiteFiles,
    /// How its backends are started when they are needed.
    pub on_demand: OnDemand,
}

/// Where the proxy listens for swiftclient backends, and the paths that they serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwiftclientListener {
    /// Never empty.
    pub addresses: Vec<Address>,
    pub paths: Paths,
    /// Which peers announce the backends.
    pub accept_proxy: Option<AcceptProxy>,
}

/// Which paths a set of backends serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paths {
    All,
    /// Those under this prefix, by whole segments; not empty, without a final slash.
    Under(String),
    /// Those in which this expression finds a match.
    Matching(PathPattern),
}

/// 1 to [`MAX_KEY`] bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Box<[u8]>);

/// Whether clients' connections stay open after a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keepalive {
    #[default]
    Yes,
    No,
}

const KEEPALIVE: [(&str, Keepalive); 2] = [("yes", Keepalive::Yes), ("no", Keepalive::No)];

impl Site {
    /// Reads the words of one line after `site`.
    ///
    /// # Errors
    /// One sentence that repeats no key, nor anything that might be one.
    pub(super) fn parse(words: &[&str]) -> Result<Site, String> {
        let (names, options) = words.split_first().ok_or("has no value")?;
        let mut site = Site { names: read_names(names)?, ..Site::default() };
        let mut before = "";
        for (at, option) in options.iter().enumerate() {
            let (name, value) = split(option)?;
            let again = |earlier: &&str| earlier.split('=').next() == Some(name);
            let repeats = matches!(
                name,
                "swiftiply"
                    | "prefix"
                    | "match"
                    | ACCEPT_PROXY
                    | "servers"
                    | "error-page"
                    | "cache-control"
            );
            if !repeats && options[..at].iter().any(again) {
                return Err(format!("{name} is given twice"));
            }
            // Errors quote the value, and this one may contain a key.
            if !matches!(name, "key" | "match" | "hidden" | "manager") && value.contains("key=") {
                return Err(format!("{name}: options are separated by spaces"));
            }
            site.take(name, value, before)?;
            before = name;
        }
        for (option, given) in [
            ("max", site.max.is_some()),
            ("tunnels", site.tunnels.is_some()),
            ("check", site.check.is_some()),
        ] {
            if given && !site.has_servers() {
                return Err(format!("{option} is for servers, and there are none"));
            }
        }
        site.check_sticky()?;
        site.tls.check(&site.servers)?;
        site.files.check()?;
        site.on_demand.check()?;
        Ok(site)
    }

    fn check_sticky(&self) -> Result<(), String> {
        match (&self.sticky, self.sticky_wait) {
            (None, Some(_)) => Err("sticky-wait is for sticky sites, and this is none".to_owned()),
            (Some(_), _) if !self.servers.is_empty() => {
                Err("sticky is for backends that connect, and not for servers".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The name of the site in logs, counters and other sites' `backup`.
    pub(crate) fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// Whether the proxy dials servers for it, now or once Redis has named some.
    pub(crate) fn has_servers(&self) -> bool {
        !self.servers.is_empty() || !self.redis.is_empty()
    }

    /// Sets one option; `before` is the one before it.
    fn take(&mut self, name: &str, value: &str, before: &str) -> Result<(), String> {
        let colon = |what: String| format!("{name}: {what}");
        match name {
            "swiftiply" => {
                let addresses = value.split(',').map(listener_address).collect::<Result<_, _>>();
                let addresses = addresses.map_err(colon)?;
                let (paths, accept_proxy) = (Paths::All, None);
                self.listeners.push(SwiftclientListener { addresses, paths, accept_proxy });
            }
            "prefix" | "match" => {
                let Some(listener) = self.listeners.last_mut().filter(|_| before == "swiftiply")
                else {
                    return Err(format!("{name} must follow the swiftiply= to which it applies"));
                };
                listener.paths = Paths::read(name, value).map_err(colon)?;
            }
            ACCEPT_PROXY => {
                let listener = match before {
                    "swiftiply" | "prefix" | "match" => self.listeners.last_mut(),
                    _ => None,
                };
                let Some(listener) = listener else {
                    return Err(format!("{name} must follow the swiftiply= to which it applies"));
                };
                listener.accept_proxy = Some(AcceptProxy::parse(value, false).map_err(colon)?);
            }
            "key" => self.key = Some(Key::new(value).map_err(colon)?),
            "servers" => {
                let named = Named::read(value).map_err(colon)?;
                self.servers.extend(named.servers);
                self.redis.extend(named.redis);
            }
            name if TLS_OPTIONS.contains(&name) => self.tls.set(name, value).map_err(colon)?,
            name if FILES_OPTIONS.contains(&name) => self.files.set(name, value).map_err(colon)?,
            name if ON_DEMAND_OPTIONS.contains(&name) => {
                self.on_demand.set(name, value).map_err(colon)?;
            }
            name if CHECK_OPTIONS.contains(&name) => {
                Check::set(&mut self.check, name, value).map_err(colon)?;
            }
            "max" => {
                let max = values::count(value).map_err(colon)?;
                self.max = Some(MAX_PER_SERVER.check(max, |n| n.to_string()).map_err(colon)?);
            }
            "tunnels" => {
                let most = values::count(value).map_err(colon)?;
                self.tunnels =
                    Some(TUNNELS_PER_SERVER.check(most, |n| n.to_string()).map_err(colon)?);
            }
            "default" => self.default = values::yes_no(value).map_err(colon)?,
            "timeout" => {
                let time = values::time(value).map_err(colon)?;
                self.timeout = Some(TIMEOUT.check(time, show_time).map_err(colon)?);
            }
            "redeploy" => {
                let size = values::size(value).map_err(colon)?;
                self.redeploy = Some(RETRY.check(size, show_size).map_err(colon)?);
            }
            "keepalive" => self.keepalive = choose(value, &KEEPALIVE).map_err(colon)?,
            "forwarded" => {
                self.forwarded = Some(choose(value, &FORWARDED_OR_NOT).map_err(colon)?);
            }
            "backup" => self.backup = Some(host_pattern(value).map_err(colon)?),
            "sticky" => self.sticky = Some(Sticky::parse(value, self.name()).map_err(colon)?),
            "sticky-wait" => {
                let time = values::time(value).map_err(colon)?;
                self.sticky_wait = Some(STICKY_WAITS.check(time, show_time).map_err(colon)?);
            }
            "error-page" => {
                let (statuses, file) = value.split_once(':').ok_or_else(|| {
                    colon("write STATUS:FILE, such as 503,504:/etc/page.html".to_owned())
                })?;
                ErrorPage::add(&mut self.error_pages, statuses, file).map_err(colon)?;
            }
            _ if name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') => {
                return Err(format!("there is no option {}; there are {OPTIONS}", quoted(name)));
            }
            // It may be part of a key.
            _ => return Err(format!("one of the options is unknown; there are {OPTIONS}")),
        }
        Ok(())
    }
}

impl Paths {
    fn read(option: &str, value: &str) -> Result<Paths, String> {
        if option == "match" {
            return Ok(Paths::Matching(PathPattern::new(value)?));
        }
        let prefix = request::prefix(value).map_err(|refusal| match refusal.status {
            414 => format!("{}: {}", quoted(value), refusal.text),
            _ => format!("{} is not a path without a query, such as /app", quoted(value)),
        })?;
        Ok(if prefix.is_empty() { Paths::All } else { Paths::Under(prefix) })
    }
}

impl Key {
    /// # Errors
    /// Its length, in one sentence without the key.
    fn new(key: impl AsRef<[u8]>) -> Result<Key, String> {
        match key.as_ref() {
            [] => Err("is empty; leave it out for a site without a key".to_owned()),
            key if key.len() > MAX_KEY => {
                Err(format!("has {} bytes; at most {MAX_KEY} can be sent", key.len()))
            }
            key => Ok(Key(key.into())),
        }
    }

    /// To be compared in constant time, and never shown.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(...)")
    }
}

/// As written after `site`, without the key.
impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.names.join(","))?;
        for listener in &self.listeners {
            write!(f, " swiftiply={}", list(&listener.addresses))?;
            match &listener.paths {
                Paths::All => {}
                Paths::Under(prefix) => write!(f, " prefix={prefix}")?,
                Paths::Matching(pattern) => {
                    write!(f, " {}", quote(&format!("match={}", pattern.regex())))?;
                }
            }
            if let Some(peers) = &listener.accept_proxy {
                write!(f, " {ACCEPT_PROXY}={peers}")?;
            }
        }
        let options = [
            self.key.as_ref().map(|_| "key=...".to_owned()),
            self.has_servers().then(|| {
                let servers = self.servers.iter().map(ToString::to_string);
                let lists = self.redis.iter().map(ToString::to_string);
                format!("servers={}", servers.chain(lists).collect::<Vec<_>>().join(","))
            }),
            self.max.map(|max| format!("max={max}")),
            self.tunnels.map(|most| format!("tunnels={most}")),
            self.check.as_ref().map(Check::to_string),
            self.default.then(|| "default".to_owned()),
            self.timeout.map(|time| format!("timeout={}", show_time(time))),
            self.redeploy.map(|size| format!("redeploy={}", show_size(size))),
            (self.keepalive == Keepalive::No).then(|| "keepalive=no".to_owned()),
            self.forwarded.map(|how| format!("forwarded={}", word_for(how, &FORWARDED))),
            self.backup.as_ref().map(|name| format!("backup={name}")),
            self.sticky.as_ref().map(|sticky| format!("sticky={sticky}")),
            self.sticky_wait.map(|time| format!("sticky-wait={}", show_time(time))),
        ];
        options.iter().flatten().try_for_each(|option| write!(f, " {option}"))?;
        write!(f, "{}{}", self.tls, self.on_demand)?;
        self.error_pages.iter().try_for_each(|page| {
            write!(f, " error-page={}:{}", page.shown_statuses(), page.file.display())
        })?;
        write!(f, "{}", self.files)
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

/// An option and its value, which `default` does not need. Errors do not quote the option: it may
/// be a key without its `key=`.
fn split(option: &str) -> Result<(&str, &str), String> {
    match option.split_once('=') {
        Some(("", _)) => Err("there is no option before a =".to_owned()),
        Some(split) => Ok(split),
        None if option == "default" => Ok((option, "yes")),
        None => Err(format!("an option is written NAME=VALUE; there are {OPTIONS}")),
    }
}

fn read_names(words: &str) -> Result<Vec<String>, String> {
    if words.contains('=') {
        return Err("the names of the site come before its options".to_owned());
    }
    let mut names: Vec<String> = Vec::new();
    for word in words.split(',') {
        let name = host_pattern(word)?;
        if names.contains(&name) {
            return Err(format!("{} is given twice", quoted(&name)));
        }
        names.push(name);
    }
    Ok(names)
}

fn host_pattern(word: &str) -> Result<String, String> {
    pattern::parse(word.as_bytes())
        .map_err(|bad| format!("{} is not a host name: {bad}", quoted(word)))
}

/// The port is required: the default one is for clients.
fn listener_address(word: &str) -> Result<Address, String> {
    if let Some(passed) = Address::parse_passed(word) {
        return passed;
    }
    let address = Address::parse(word)?;
    if !has_port(word) {
        return Err(format!("{} has no port; write ADDRESS:PORT", quoted(word)));
    }
    Ok(address)
}

#[cfg(test)]
mod tests;
