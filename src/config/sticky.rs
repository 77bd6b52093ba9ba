//! The option `sticky` of a site: how a client comes back to the same backend.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::http::cookies;

/// The name of the cookie, unless another is given.
const COOKIE: &str = "cloudbridge";

/// Longest name of a cookie, in bytes.
const MAX_NAME: usize = 64;

/// How long a request waits for its backend, unless the site says otherwise: long enough for a
/// program to be restarted, and for a person to wait.
pub(crate) const STICKY_WAIT: Duration = Duration::from_secs(5);

/// What a request shows of the backend that it is to go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// A cookie of the proxy's own.
    Cookie(StickyCookie),
    /// The end of its path, as Swiftiply's applications write it (`doc/protocol.md`, "Sticky sites").
    Id,
}

/// The cookie of a site. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyCookie {
    /// Its name.
    pub name: Arc<str>,
    /// The name of the site, for which alone its value is good.
    pub site: Arc<str>,
}

impl Sticky {
    /// Reads the value of the option, of the site with this name.
    ///
    /// # Errors
    /// One sentence.
    pub(super) fn parse(value: &str, site: &str) -> Result<Sticky, String> {
        let name = match value.split_once(':') {
            None if value == "id" => return Ok(Sticky::Id),
            None if value == "cookie" => COOKIE,
            Some(("cookie", name)) if cookies::is_name(name) && name.len() <= MAX_NAME => name,
            Some(("cookie", _)) => {
                return Err(format!(
                    "the name of a cookie has letters, digits and -_., and at most {MAX_NAME}"
                ));
            }
            _ => return Err("is cookie, cookie:NAME or id".to_owned()),
        };
        Ok(Sticky::Cookie(StickyCookie { name: name.into(), site: site.into() }))
    }
}

/// As it would be written.
impl fmt::Display for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sticky::Id => f.write_str("id"),
            Sticky::Cookie(cookie) if &*cookie.name == COOKIE => f.write_str("cookie"),
            Sticky::Cookie(cookie) => write!(f, "cookie:{}", cookie.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_to_stick() {
        for value in ["id", "cookie", "cookie:SERVERID", "cookie:__Host-x"] {
            assert_eq!(Sticky::parse(value, "a.test").unwrap().to_string(), value);
        }
        for value in ["", "yes", "cookie:", "cookie:a b", "cookie:a=b", "id:x", "source"] {
            assert!(Sticky::parse(value, "a.test").is_err(), "{value}");
        }
        assert!(Sticky::parse(&format!("cookie:{}", "x".repeat(65)), "a.test").is_err());
    }
}
