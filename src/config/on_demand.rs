//! The options of a site whose backends may be started when they are needed: who is told that a request
//! finds no free one, and what a browser sees while it waits.

use super::endpoint::Endpoint;
use super::range::TIMEOUT;
use super::values::{self, path, quoted, show_time};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The names of the options.
pub(super) const ON_DEMAND_OPTIONS: [&str; 4] =
    ["manager", "manager-timeout", "waiting-page-after", "waiting-page"];

/// How a manager is written.
const FORM: &str = "http://HOST[:PORT][/PATH], unix:SOCKET[:/PATH] or exec:/PROGRAM";

/// What is set by [`ON_DEMAND_OPTIONS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnDemand {
    /// It is called when a request finds no free backend.
    pub manager: Option<Arc<Manager>>,
    /// How long a request then waits for one; the default is the site's timeout.
    pub timeout: Option<Duration>,
    /// How long a browser waits before it gets the waiting page; without it, no client does.
    pub page_after: Option<Duration>,
    /// That page, in place of the built-in one.
    pub page: Option<PathBuf>,
}

/// Who is told that a request finds no free backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manager {
    /// A server is asked with a GET.
    Http(Endpoint),
    /// A program is run, by its absolute path.
    Program(PathBuf),
}

impl OnDemand {
    /// Sets one of [`ON_DEMAND_OPTIONS`].
    ///
    /// # Errors
    /// One sentence, without the name of the option. It does not repeat a manager's address, which
    /// may hold a secret.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let time = || TIMEOUT.check(values::time(value)?, show_time);
        match name {
            "manager" => self.manager = Some(Arc::new(Manager::parse(value)?)),
            "manager-timeout" => self.timeout = Some(time()?),
            "waiting-page-after" => self.page_after = Some(time()?),
            _ => {
                let file = path(value)?;
                if file.extension().is_none_or(|ending| ending != "html") {
                    return Err(format!("{} does not end in .html", quoted(value)));
                }
                self.page = Some(file);
            }
        }
        Ok(())
    }

    /// What is wrong between the options, in one sentence.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.timeout.is_some() && self.manager.is_none() {
            return Err("manager-timeout is for a manager, and there is none".to_owned());
        }
        if self.page.is_some() && self.page_after.is_none() {
            return Err(
                "waiting-page is shown after waiting-page-after, which is not set".to_owned()
            );
        }
        Ok(())
    }
}

impl Manager {
    fn parse(word: &str) -> Result<Manager, String> {
        if let Some(program) = word.strip_prefix("exec:") {
            return match program.starts_with('/') {
                true => Ok(Manager::Program(program.into())),
                false => Err("exec: is followed by the absolute path of a program".to_owned()),
            };
        }
        Endpoint::parse(word, FORM).map(Manager::Http)
    }
}

/// As it is written, but for a query, which may hold a secret.
impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Manager::Program(program) => write!(f, "exec:{}", program.display()),
            Manager::Http(endpoint) => endpoint.fmt(f),
        }
    }
}

/// The options, as they would be written.
impl fmt::Display for OnDemand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(manager) = &self.manager {
            write!(f, " manager={manager}")?;
        }
        if let Some(timeout) = self.timeout {
            write!(f, " manager-timeout={}", show_time(timeout))?;
        }
        if let Some(after) = self.page_after {
            write!(f, " waiting-page-after={}", show_time(after))?;
        }
        match &self.page {
            Some(page) => write!(f, " waiting-page={}", page.display()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn http(word: &str) -> (String, String, String) {
        match Manager::parse(word).unwrap() {
            Manager::Http(Endpoint { to, host, target }) => (to.to_string(), host, target),
            Manager::Program(program) => panic!("{program:?}"),
        }
    }

    #[test]
    fn a_manager_is_a_url_a_socket_or_a_program() {
        for (word, to, host, target) in [
            ("http://127.0.0.1:81/start?k=v", "127.0.0.1:81", "127.0.0.1:81", "/start?k=v"),
            ("http://starter.test", "starter.test:80", "starter.test", "/"),
            ("http://[::1]?x", "[::1]:80", "[::1]", "/?x"),
            ("unix:/run/s.sock", "unix:/run/s.sock", "localhost", "/"),
            ("unix:/run/s.sock:/start?x", "unix:/run/s.sock", "localhost", "/start?x"),
        ] {
            let expected = (to.to_owned(), host.to_owned(), target.to_owned());
            assert_eq!(http(word), expected, "{word}");
        }
        let program = Manager::parse("exec:/usr/lib/start").unwrap();
        assert_eq!(program, Manager::Program("/usr/lib/start".into()));
    }

    #[test]
    fn a_query_is_not_shown() {
        for (word, shown) in [
            ("http://a.test:81/x?token=sesame", "http://a.test:81/x?..."),
            ("unix:/s:/x?token=sesame", "unix:/s:/x?..."),
            ("exec:/bin/start", "exec:/bin/start"),
        ] {
            assert_eq!(Manager::parse(word).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_address() {
        let form = format!("write {FORM}");
        for (word, what) in [
            ("", form.as_str()),
            ("/usr/bin/start", form.as_str()),
            ("https://a/?sesame", "https is not spoken here; put the program on this machine"),
            ("exec:start", "exec: is followed by the absolute path of a program"),
            ("unix:", "unix: is followed by the path of a socket"),
            ("http://a/#sesame", "its path may have visible ASCII characters only, and no #"),
        ] {
            assert_eq!(Manager::parse(word).unwrap_err(), what, "{word}");
        }
        for word in ["http://", "http:///x", "http://:80/", "http://a:b/", "http://u:sesame@a/"] {
            let what = Manager::parse(word).unwrap_err();
            assert_eq!(what, format!("its host is wrong; {form}"), "{word}");
        }
    }
}
