//! What narrows a key (`doc/protocol.md`, "Narrower keys"): the caveats, and what is left of a key.
//!
//! There is one way to write each caveat, and no two are the same text, so what is signed can be read
//! in one way only.

use std::fmt;
use std::num::NonZeroU32;

use super::cover::covers;
use super::error::KeyError;
use crate::bridge::ascii::number;
use crate::bridge::pattern;
use crate::http::request::MAX_METHOD;
use crate::http::under::is_under;

/// In front of each caveat. No host pattern has one, so it ends what was narrowed. A shell leaves it
/// alone.
pub(super) const SEPARATOR: char = '+';

/// Longest path prefix, in bytes. That of a BRIDGE may be longer.
const MAX_PREFIX: usize = 256;

/// Most methods of a caveat.
const MAX_METHODS: usize = 16;

/// One restriction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caveat {
    /// Only what a key for this name covers. In the form of [`pattern::parse`].
    Host(String),
    /// Only BRIDGE requests for this path or one below it. Without a final slash.
    Prefix(String),
    /// Only bridges that say by `If-Method` that they take none but these. Sorted, each once.
    Methods(Vec<String>),
    /// Only so many bridges at once.
    Bridges(NonZeroU32),
    /// Only until this Unix second, which is the first at which the key is no longer valid.
    Expiry(u64),
}

impl Caveat {
    /// Reads `name=value`, as `Display` writes it.
    ///
    /// # Errors
    /// It is of no known kind, or is not written in the one way there is.
    pub(crate) fn parse(text: &str) -> Result<Caveat, KeyError> {
        let read = || match text.split_once('=')? {
            ("host", name) => pattern::parse(name.as_bytes()).ok().map(Caveat::Host),
            ("prefix", path) => is_prefix(path).then(|| Caveat::Prefix(path.to_owned())),
            ("method", list) => Caveat::methods(list.split('/')),
            ("bridges", count) => {
                let count = number(count).and_then(|count| u32::try_from(count).ok());
                count.and_then(NonZeroU32::new).map(Caveat::Bridges)
            }
            ("expiry", second) => number(second).map(Caveat::Expiry),
            _ => None,
        };
        // Whatever else would be read the same, such as capitals or leading zeros, is refused.
        read().filter(|caveat| caveat.to_string() == text).ok_or(KeyError::Caveat)
    }

    /// Only these methods; `None` if one of them is none, or there are none or too many.
    pub(crate) fn methods<'a>(list: impl Iterator<Item = &'a str>) -> Option<Caveat> {
        let mut methods: Vec<String> = list.map(str::to_owned).collect();
        methods.sort_unstable();
        methods.dedup();
        let is_good = (1..=MAX_METHODS).contains(&methods.len())
            && methods.iter().all(|method| is_method(method));
        is_good.then_some(Caveat::Methods(methods))
    }
}

impl fmt::Display for Caveat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caveat::Host(name) => write!(f, "host={name}"),
            Caveat::Prefix(path) => write!(f, "prefix={path}"),
            Caveat::Methods(methods) => write!(f, "method={}", methods.join("/")),
            Caveat::Bridges(count) => write!(f, "bridges={count}"),
            Caveat::Expiry(second) => write!(f, "expiry={second}"),
        }
    }
}

/// The path of a BRIDGE (`request::prefix`) that is not `/`, without what separates caveats, and the
/// keys of a list in an environment.
fn is_prefix(path: &str) -> bool {
    let is_path = |b: u8| b.is_ascii_graphic() && !b"?#+,".contains(&b);
    (2..=MAX_PREFIX).contains(&path.len())
        && path.starts_with('/')
        && !path.ends_with('/')
        && path.bytes().all(is_path)
}

/// A method (RFC 9110, section 9.1) as all of them are written.
fn is_method(text: &str) -> bool {
    let is_of_method =
        |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    (1..=MAX_METHOD).contains(&text.len()) && text.bytes().all(is_of_method)
}

/// What a key lets its holder do, with all of its caveats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    /// It covers this name as [`covers`] says.
    pub(crate) name: String,
    /// Without a final slash; `""` is every path.
    pub(crate) prefix: String,
    /// `None` for all.
    pub(crate) methods: Option<Vec<String>>,
    /// `None` for any number.
    pub(crate) bridges: Option<NonZeroU32>,
    /// `None` if it does not expire.
    pub(crate) expires: Option<u64>,
}

impl Scope {
    /// Whether a caveat allows nothing that this does not.
    pub(crate) fn has(&self, caveat: &Caveat) -> bool {
        match caveat {
            Caveat::Host(name) => covers(&self.name, name),
            Caveat::Prefix(path) => self.has_path(path),
            Caveat::Methods(methods) => self.takes(methods),
            Caveat::Bridges(count) => self.bridges.is_none_or(|most| *count <= most),
            Caveat::Expiry(second) => self.expires.is_none_or(|at| *second <= at),
        }
    }

    /// Whether all of these methods are among those that it allows; no methods stand for all.
    pub(crate) fn takes(&self, methods: &[String]) -> bool {
        let Some(allowed) = &self.methods else { return true };
        !methods.is_empty() && methods.iter().all(|method| allowed.contains(method))
    }

    /// Whether this path, without a final slash, is among those that it allows.
    pub(crate) fn has_path(&self, path: &str) -> bool {
        is_under(path, &self.prefix)
    }

    /// What both this and the caveat allow.
    ///
    /// # Errors
    /// Nothing.
    pub(super) fn narrowed(mut self, caveat: &Caveat) -> Result<Scope, KeyError> {
        match caveat {
            Caveat::Host(name) if covers(&self.name, name) => self.name.clone_from(name),
            Caveat::Host(name) if covers(name, &self.name) => {}
            Caveat::Prefix(path) if is_under(path, &self.prefix) => self.prefix.clone_from(path),
            Caveat::Prefix(path) if is_under(&self.prefix, path) => {}
            Caveat::Host(_) | Caveat::Prefix(_) => return Err(KeyError::Nothing),
            Caveat::Methods(methods) => {
                let allowed = self.methods.get_or_insert_with(|| methods.clone());
                allowed.retain(|method| methods.contains(method));
                if allowed.is_empty() {
                    return Err(KeyError::Nothing);
                }
            }
            Caveat::Bridges(count) => {
                self.bridges = Some(self.bridges.map_or(*count, |most| most.min(*count)));
            }
            Caveat::Expiry(second) => {
                self.expires = Some(self.expires.map_or(*second, |at| at.min(*second)));
            }
        }
        Ok(self)
    }
}
