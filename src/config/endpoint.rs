//! Programs that are asked by HTTP: `http://HOST[:PORT][/PATH]` or `unix:SOCKET[:/PATH]`.

use super::address::has_port;
use super::destination::Destination;
use std::fmt;

/// The port of a URL without one (RFC 9110, section 4.2.1).
const HTTP_PORT: u16 = 80;

/// Where a program is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is.
    pub to: Destination,
    /// The value of `Host`.
    pub host: String,
    /// The target of the request, which may have a query.
    pub target: String,
}

impl Endpoint {
    /// How one is written.
    pub(super) const FORM: &str = "http://HOST[:PORT][/PATH] or unix:SOCKET[:/PATH]";

    /// Reads one. `form` says how it could be written.
    ///
    /// # Errors
    /// One sentence. It does not repeat the word, which may hold a secret.
    pub(super) fn parse(word: &str, form: &str) -> Result<Endpoint, String> {
        if let Some(rest) = word.strip_prefix("unix:") {
            let (socket, target) = match rest.find(":/") {
                Some(at) => (&rest[..at], &rest[at + 1..]),
                None => (rest, "/"),
            };
            let to = Destination::parse(&format!("unix:{socket}"))?;
            return Ok(Endpoint { to, host: "localhost".to_owned(), target: target_of(target)? });
        }
        let Some(rest) = word.strip_prefix("http://") else {
            return Err(match word.starts_with("https://") {
                true => "https is not spoken here; put the program on this machine".to_owned(),
                false => format!("write {form}"),
            });
        };
        let (authority, target) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let wrong = |_| format!("its host is wrong; write {form}");
        let to = match has_port(authority) {
            true => Destination::parse(authority),
            false => Destination::parse(&format!("{authority}:{HTTP_PORT}")),
        };
        let to = to.map_err(wrong)?;
        let target = if target.starts_with('?') { format!("/{target}") } else { target.to_owned() };
        Ok(Endpoint { to, host: authority.to_owned(), target: target_of(&target)? })
    }
}

fn target_of(target: &str) -> Result<String, String> {
    match target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        true => Ok(target.to_owned()),
        false => Err("its path may have visible ASCII characters only, and no #".to_owned()),
    }
}

/// As it is written, but for a query, which may hold a secret.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoint { to, host, target } = self;
        let shown = match target.split_once('?') {
            Some((path, _)) => format!("{path}?..."),
            None => target.clone(),
        };
        match to {
            Destination::Unix(_) => write!(f, "{to}:{shown}"),
            _ => write!(f, "http://{host}{shown}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_without_the_address() {
        let parse = |word| Endpoint::parse(word, Endpoint::FORM).unwrap_err();
        assert_eq!(parse("exec:/bin/x?sesame"), format!("write {}", Endpoint::FORM));
        let https = "https is not spoken here; put the program on this machine";
        assert_eq!(parse("https://a/?sesame"), https);
        let host = format!("its host is wrong; write {}", Endpoint::FORM);
        assert_eq!(parse("http://u:sesame@a/"), host);
    }
}
