//! Lists of servers in Redis: `servers=redis://HOST:PORT/KEY` of a site.

use std::fmt;

use super::address::has_port;
use super::destination::Destination;
use super::values::{count, quoted};

/// In front of a list of servers.
pub(super) const SCHEME: &str = "redis://";

/// The port of Redis.
const PORT: u16 = 6379;

/// Longest key, in bytes. One of Redis may be longer, but names no servers then.
const MAX_KEY: usize = 512;

/// Highest number of a database. Redis has 16 unless it is told otherwise.
const MAX_DATABASE: usize = 1_000_000;

/// The key of a list or set in Redis whose members are servers of a site.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RedisList {
    /// Where Redis is.
    pub redis: Redis,
    /// The key.
    pub key: String,
}

/// A database of a Redis, and the user that reads it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Redis {
    /// Never a Unix socket.
    pub to: Destination,
    /// Whose password it is (Redis 6); without one, that of the default user.
    pub user: Option<String>,
    /// The number of the database.
    pub database: usize,
}

impl RedisList {
    /// Reads `redis://[USER@]HOST[:PORT]/KEY[?db=NUMBER]`. In the key, `%2C` is a comma, and so on.
    ///
    /// # Errors
    /// One sentence, which repeats nothing that might be a password.
    pub(crate) fn parse(word: &str) -> Result<RedisList, String> {
        const FORM: &str = "redis://HOST:PORT/KEY";
        let rest = word.strip_prefix(SCHEME).ok_or_else(|| format!("write {FORM}"))?;
        let (authority, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => {
                return Err("the password of Redis goes into a file; see redis-password".to_owned());
            }
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        if user.is_some_and(|user| user.is_empty() || !user.bytes().all(|b| b.is_ascii_graphic())) {
            return Err("the user of Redis is visible characters before the @".to_owned());
        }
        let to = if has_port(host) { host.to_owned() } else { format!("{host}:{PORT}") };
        let to = match Destination::parse(&to) {
            Ok(to @ (Destination::Socket(_) | Destination::Name { .. })) => to,
            _ => return Err(format!("{} is no host; write {FORM}", quoted(host))),
        };
        let (key, query) = rest.split_once('?').unwrap_or((rest, ""));
        let database = match query.strip_prefix("db=") {
            Some(number) => match count(number)? {
                number if number <= MAX_DATABASE => number,
                number => return Err(format!("{number} is more than {MAX_DATABASE}")),
            },
            None if query.is_empty() => 0,
            None => return Err(format!("{} is not db=NUMBER", quoted(query))),
        };
        let key = decoded(key).ok_or_else(|| format!("{} is no key", quoted(key)))?;
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(format!("a key has 1 to {MAX_KEY} bytes; write {FORM}"));
        }
        Ok(RedisList { redis: Redis { to, user: user.map(str::to_owned), database }, key })
    }
}

/// With `%XX` replaced (RFC 3986, section 2.1); `None` if it is malformed, or not UTF-8 then.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = after;
            continue;
        }
        let digits = after.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).ok()
}

/// Without the key.
impl fmt::Display for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        write!(f, "{}", self.to)
    }
}

/// As it could be written.
impl fmt::Display for RedisList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.redis)?;
        for byte in self.key.bytes() {
            match byte {
                b'%' | b',' | b'?' | b'#' | b'"' => write!(f, "%{byte:02X}")?,
                byte if byte.is_ascii_graphic() => write!(f, "{}", char::from(byte))?,
                byte => write!(f, "%{byte:02X}")?,
            }
        }
        match self.redis.database {
            0 => Ok(()),
            number => write!(f, "?db={number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_shown() {
        for (word, shown) in [
            ("redis://10.0.0.9/app", "redis://10.0.0.9:6379/app"),
            ("redis://redis.test:7000/a/b?db=3", "redis://redis.test:7000/a/b?db=3"),
            ("redis://reader@[::1]/www.a.test", "redis://reader@[::1]:6379/www.a.test"),
            ("redis://h/a%2Cb%20%25%c3%a9", "redis://h:6379/a%2Cb%20%25%C3%A9"),
            ("redis://h/k?db=0", "redis://h:6379/k"),
        ] {
            let list = RedisList::parse(word).unwrap();
            assert_eq!(list.to_string(), shown);
            assert_eq!(RedisList::parse(shown), Ok(list));
        }
        assert_eq!(RedisList::parse("redis://h/a%2Cb").unwrap().key, "a,b");
    }

    #[test]
    fn errors_are_one_sentence_without_a_password() {
        for (word, what) in [
            ("redis://", "\"\" is no host; write redis://HOST:PORT/KEY"),
            ("redis:///k", "\"\" is no host; write redis://HOST:PORT/KEY"),
            ("redis://h", "a key has 1 to 512 bytes; write redis://HOST:PORT/KEY"),
            ("redis://h/", "a key has 1 to 512 bytes; write redis://HOST:PORT/KEY"),
            ("redis://*:1/k", "\"*:1\" is no host; write redis://HOST:PORT/KEY"),
            ("redis://h/k?db=x", "\"x\" is not a whole number"),
            ("redis://h/k?tls=1", "\"tls=1\" is not db=NUMBER"),
            ("redis://h/a%2", "\"a%2\" is no key"),
            ("redis://h/a%ff", "\"a%ff\" is no key"),
            ("redis://u:p@h/k", "the password of Redis goes into a file; see redis-password"),
            ("redis://:p@h/k", "the password of Redis goes into a file; see redis-password"),
            ("redis://@h/k", "the user of Redis is visible characters before the @"),
        ] {
            assert_eq!(RedisList::parse(word), Err(what.to_owned()), "{word}");
        }
    }
}
