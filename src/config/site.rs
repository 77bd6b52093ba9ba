//! One `site` line: the names of a site, where its backends come in, and what holds for its requests
//! (doc/protocol.md, "swiftclient").

use super::address::{Address, has_port};
use super::destination::Destination;
use super::range::{MANY, RETRY, Range, TIMEOUT};
use super::values::{self, FORWARDED, choose, quoted, show_size, show_time, word_for};
use crate::bridge::{pattern, request};
use crate::http::Forwarded;
use regex::bytes::{Regex, RegexBuilder};
use std::fmt;
use std::time::Duration;

/// Longest key of a site, in bytes: the preamble has two hexadecimal digits for its length
/// (doc/protocol.md, "swiftclient").
pub const MAX_KEY: usize = 255;

/// Longest `match` expression, in bytes: it stands on one line of a file, and each request for the site's
/// name is held against it.
const MAX_EXPRESSION: usize = 1024;

/// Most memory that a compiled `match` expression may take, and its cache while it runs, in bytes each. A few
/// hundred alternatives fit; `(a{1000}){1000}` does not.
const MAX_COMPILED: usize = 256 << 10;

/// How many connections to one server there may be.
const MAX_PER_SERVER: Range<usize> = Range::new(1, MANY);

/// What `forwarded=` takes: the words of the setting, and the two of the original.
const FORWARDED_OR_NOT: [(&str, Forwarded); 5] =
    [FORWARDED[0], FORWARDED[1], FORWARDED[2], ("yes", Forwarded::Append), ("no", Forwarded::Off)];

/// Every option that a `site` line may have, for the messages.
const OPTIONS: &str = "swiftiply, prefix, match, key, servers, max, default, timeout, redeploy, \
                       keepalive, forwarded and backup";

/// A site. Its key is the only secret in it, and hides itself when it is printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Host patterns in the form of [`pattern::parse`]; never empty. The first is the site's name.
    pub names: Vec<String>,
    /// Where its swiftclient backends connect to, in the order of the line.
    pub inlets: Vec<Inlet>,
    /// What those backends must show; without it they are taken from this machine only.
    pub key: Option<Key>,
    /// The servers that the proxy dials itself.
    pub servers: Vec<Destination>,
    /// Most connections to each of the servers, over all workers. `None`: as many as requests want.
    pub max: Option<usize>,
    /// Requests for names that nobody serves come here.
    pub default: bool,
    /// How long its requests wait for a free backend, then 503. `None`: for `wait-timeout`.
    pub timeout: Option<Duration>,
    /// Largest request, in bytes, that is sent again whatever its method when its backend dies before its
    /// response has begun. `None`: as elsewhere, `retry-limit` and methods that may be repeated.
    pub redeploy: Option<usize>,
    /// Whether clients' connections stay open after a response.
    pub keepalive: Keepalive,
    /// What becomes of the `X-Forwarded-` fields. `None`: as the setting `forwarded` says.
    pub forwarded: Option<Forwarded>,
    /// A name of the site that serves instead while this one has no backend at all.
    pub backup: Option<String>,
}

/// Addresses where swiftclient backends come in, and the paths that they serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inlet {
    /// Where the proxy listens for them; never empty.
    pub addresses: Vec<Address>,
    /// Which paths they serve.
    pub paths: Paths,
}

/// Which paths a set of backends serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paths {
    /// Every path.
    All,
    /// Those under this prefix, by whole segments; without a slash at its end, not empty.
    Under(String),
    /// Those that this expression finds something in.
    Matching(PathPattern),
}

/// A regular expression, in the syntax of the `regex` crate on bytes, that is searched for in a path without
/// its query. Two are equal if their texts are.
#[derive(Clone, Debug)]
pub struct PathPattern(Regex);

/// The key of a site: 1 to [`MAX_KEY`] bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Box<[u8]>);

/// Whether clients' connections to a site stay open after a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keepalive {
    /// As long as both sides like.
    #[default]
    Yes,
    /// They are closed after each response.
    No,
}

/// The words of [`Keepalive`].
const KEEPALIVE: [(&str, Keepalive); 2] = [("yes", Keepalive::Yes), ("no", Keepalive::No)];

impl Site {
    /// Reads the words of one line, behind `site`.
    ///
    /// # Errors
    /// One sentence that repeats no key, nor anything that might be one.
    pub fn parse(words: &[&str]) -> Result<Site, String> {
        let (names, options) = words.split_first().ok_or("has no value")?;
        let mut site = Site { names: read_names(names)?, ..Site::default() };
        let mut before = "";
        for (at, option) in options.iter().enumerate() {
            let (name, value) = split(option)?;
            let again = |earlier: &&str| earlier.split('=').next() == Some(name);
            let repeats = matches!(name, "swiftiply" | "prefix" | "match" | "servers");
            if !repeats && options[..at].iter().any(again) {
                return Err(format!("{name} stands there twice"));
            }
            // What is wrong with a value is said with the value, and this one may hold a key.
            if !matches!(name, "key" | "match") && value.contains("key=") {
                return Err(format!("{name}: the next option stands behind a space"));
            }
            site.take(name, value, before)?;
            before = name;
        }
        if site.max.is_some() && site.servers.is_empty() {
            return Err("max is for servers, and none are named".to_owned());
        }
        Ok(site)
    }

    /// The name that stands for the site in logs, counters and other sites' `backup`.
    pub fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// Sets one option; `before` is the one before it.
    fn take(&mut self, name: &str, value: &str, before: &str) -> Result<(), String> {
        let colon = |what: String| format!("{name}: {what}");
        match name {
            "swiftiply" => {
                let addresses = value.split(',').map(inlet_address).collect::<Result<_, _>>();
                let addresses = addresses.map_err(colon)?;
                self.inlets.push(Inlet { addresses, paths: Paths::All });
            }
            "prefix" | "match" => {
                let Some(inlet) = self.inlets.last_mut().filter(|_| before == "swiftiply") else {
                    return Err(format!(
                        "{name} stands right behind the swiftiply= whose paths it names"
                    ));
                };
                inlet.paths = Paths::read(name, value).map_err(colon)?;
            }
            "key" => self.key = Some(Key::new(value).map_err(colon)?),
            "servers" => {
                for server in value.split(',') {
                    self.servers.push(Destination::parse(server).map_err(colon)?);
                }
            }
            "max" => {
                let max = values::count(value).map_err(colon)?;
                self.max = Some(MAX_PER_SERVER.check(max, |n| n.to_string()).map_err(colon)?);
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
            _ if name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') => {
                return Err(format!("there is no option {}; there are {OPTIONS}", quoted(name)));
            }
            // It looks like a part of a key.
            _ => return Err(format!("one of the options is none; there are {OPTIONS}")),
        }
        Ok(())
    }
}

impl Paths {
    fn read(option: &str, value: &str) -> Result<Paths, String> {
        if option == "match" {
            return Ok(Paths::Matching(PathPattern::new(value)?));
        }
        let prefix = request::prefix(value).map_err(|_| {
            format!("{} is not a path without a query, such as /app", quoted(value))
        })?;
        Ok(if prefix.is_empty() { Paths::All } else { Paths::Under(prefix) })
    }
}

impl PathPattern {
    /// Compiles an expression.
    ///
    /// # Errors
    /// One sentence: it is none, or a too large one.
    pub fn new(expression: &str) -> Result<PathPattern, String> {
        if expression.is_empty() || expression.len() > MAX_EXPRESSION {
            return Err(format!("an expression has 1 to {MAX_EXPRESSION} bytes"));
        }
        let compiled = RegexBuilder::new(expression)
            .unicode(false)
            .size_limit(MAX_COMPILED)
            .dfa_size_limit(MAX_COMPILED)
            .build();
        compiled.map(PathPattern).map_err(|error| {
            // The crate draws the expression with a mark under it; the last line says what is wrong.
            let text = error.to_string();
            let what = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("{} is no regular expression: {what}", quoted(expression))
        })
    }

    /// The compiled expression; `as_str` is its text.
    pub fn regex(&self) -> &Regex {
        &self.0
    }
}

impl PartialEq for PathPattern {
    fn eq(&self, other: &PathPattern) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for PathPattern {}

impl Key {
    /// Checks the length.
    ///
    /// # Errors
    /// One sentence, without the key.
    pub fn new(key: impl AsRef<[u8]>) -> Result<Key, String> {
        match key.as_ref() {
            [] => Err("is empty; leave it out for a site without a key".to_owned()),
            key if key.len() > MAX_KEY => {
                Err(format!("has {} bytes; at most {MAX_KEY} can be sent", key.len()))
            }
            key => Ok(Key(key.into())),
        }
    }

    /// The bytes. They are to be compared in constant time, and never shown.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Says that there is one, and no more.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(...)")
    }
}

/// As it would be written after `site`, but for the key.
impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.names.join(","))?;
        for inlet in &self.inlets {
            write!(f, " swiftiply={}", list(&inlet.addresses))?;
            match &inlet.paths {
                Paths::All => {}
                Paths::Under(prefix) => write!(f, " prefix={prefix}")?,
                Paths::Matching(pattern) => write!(f, " match={}", pattern.0)?,
            }
        }
        if self.key.is_some() {
            write!(f, " key=...")?;
        }
        if !self.servers.is_empty() {
            write!(f, " servers={}", list(&self.servers))?;
        }
        if let Some(max) = self.max {
            write!(f, " max={max}")?;
        }
        if self.default {
            write!(f, " default")?;
        }
        if let Some(timeout) = self.timeout {
            write!(f, " timeout={}", show_time(timeout))?;
        }
        if let Some(redeploy) = self.redeploy {
            write!(f, " redeploy={}", show_size(redeploy))?;
        }
        if self.keepalive == Keepalive::No {
            write!(f, " keepalive=no")?;
        }
        if let Some(forwarded) = self.forwarded {
            write!(f, " forwarded={}", word_for(forwarded, &FORWARDED))?;
        }
        if let Some(backup) = &self.backup {
            write!(f, " backup={backup}")?;
        }
        Ok(())
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

/// An option and its value. `default` may stand alone; what is not an option is not repeated, as it may be a
/// key that lost its `key=`.
fn split(option: &str) -> Result<(&str, &str), String> {
    match option.split_once('=') {
        Some(("", _)) => Err("a = has no option before it".to_owned()),
        Some(split) => Ok(split),
        None if option == "default" => Ok((option, "yes")),
        None => Err(format!("an option is written NAME=VALUE; there are {OPTIONS}")),
    }
}

fn read_names(words: &str) -> Result<Vec<String>, String> {
    if words.contains('=') {
        return Err("the names of the site come first, then its options".to_owned());
    }
    let mut names: Vec<String> = Vec::new();
    for word in words.split(',') {
        let name = host_pattern(word)?;
        if names.contains(&name) {
            return Err(format!("{} stands there twice", quoted(&name)));
        }
        names.push(name);
    }
    Ok(names)
}

fn host_pattern(word: &str) -> Result<String, String> {
    pattern::parse(word.as_bytes())
        .map_err(|bad| format!("{} is not a host name: {bad}", quoted(word)))
}

/// A place to listen for backends. It names its port: the default one is the clients'.
fn inlet_address(word: &str) -> Result<Address, String> {
    let address = Address::parse(word)?;
    if !has_port(word) {
        return Err(format!("{} has no port; write ADDRESS:PORT", quoted(word)));
    }
    Ok(address)
}

#[cfg(test)]
mod tests;
