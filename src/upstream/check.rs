//! A health check over HTTP: what is sent, what the answer means, and when it changes anything.

use std::io;
use std::time::Duration;

use crate::config::Check;
use crate::net::conn::{Conn, Received};
use crate::net::workspace::Workspace;

/// How long a check may take, connect and answer together: longer than an application that is well
/// takes for so little, however busy it is.
pub(crate) const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// The bytes of a status line up to its status: `HTTP/1.1 200`.
const STATUS_END: usize = 12;

/// The request of a check, for the first of `hosts` that is a name.
pub(crate) fn request(check: &Check, hosts: &[String]) -> Vec<u8> {
    let name = hosts.iter().find(|host| !host.contains('*'));
    let (path, host) = (&check.path, name.map_or("localhost", String::as_str));
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: cloudbridge-check\r\n\
         Connection: close\r\n\r\n"
    )
    .into_bytes()
}

/// The error of a check that has taken too long.
pub(crate) fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "its health check is not answered")
}

/// Reads the answer from `conn`; `None` while too little of it has come.
pub(crate) fn read(conn: &mut Conn, ws: &mut Workspace) -> Option<io::Result<()>> {
    match conn.receive(&mut ws.scratch) {
        Received::Nothing => None,
        Received::End => Some(Err(io::Error::other("it closed the connection of a check"))),
        Received::Broken(error) => Some(Err(error)),
        Received::Bytes(count) => {
            conn.input.push(&ws.scratch[..count], &mut ws.pool);
            outcome(conn.input.bytes())
        }
    }
}

/// What an answer that begins with `bytes` means; `None` while too little of it has come.
fn outcome(bytes: &[u8]) -> Option<io::Result<()>> {
    let status = bytes.get(..STATUS_END)?;
    let digits = str::from_utf8(&status[STATUS_END - 3..]).ok();
    let number = digits.and_then(|digits| digits.parse::<u16>().ok());
    Some(match number.filter(|_| status.starts_with(b"HTTP/1.")) {
        Some(200..=399) => Ok(()),
        Some(status) => Err(io::Error::other(format!("its health check was answered {status}"))),
        None => Err(io::Error::other("its health check was not answered with HTTP")),
    })
}

/// The checks in a row that have succeeded, or failed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    good: usize,
    bad: usize,
}

impl Tally {
    /// As many as another program has counted.
    pub fn of(good: usize, bad: usize) -> Tally {
        Tally { good, bad }
    }

    /// How many have succeeded, and how many have failed.
    pub fn counts(self) -> (usize, usize) {
        (self.good, self.bad)
    }

    /// Notes a success. True if an application that is down is up now.
    pub fn succeeded(&mut self, check: &Check) -> bool {
        *self = Tally { good: self.good.saturating_add(1), bad: 0 };
        self.good >= check.rise
    }

    /// Notes a failure. True if an application that is up is down now.
    pub fn failed(&mut self, check: &Check) -> bool {
        *self = Tally { good: 0, bad: self.bad.saturating_add(1) };
        self.bad >= check.fall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> Check {
        Check { path: "/health".to_owned(), interval: Duration::from_secs(2), rise: 2, fall: 3 }
    }

    #[test]
    fn the_request_names_a_host_that_the_application_serves() {
        let hosts =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for (names, host) in
            [(&["*", "*.b.test", "a.test", "c.test"][..], "a.test"), (&["*.b.test"], "localhost")]
        {
            let request = String::from_utf8(request(&check(), &hosts(names))).unwrap();
            let expected = format!(
                "GET /health HTTP/1.1\r\nHost: {host}\r\nUser-Agent: cloudbridge-check\r\n\
                 Connection: close\r\n\r\n"
            );
            assert_eq!(request, expected);
        }
    }

    #[test]
    fn a_status_below_400_is_good() {
        let said = |text: &str| {
            outcome(text.as_bytes()).map(|outcome| outcome.map_err(|error| error.to_string()))
        };
        assert_eq!(said("HTTP/1.1 20"), None);
        for good in ["HTTP/1.1 200 OK\r\n", "HTTP/1.0 204", "HTTP/1.1 399 x"] {
            assert_eq!(said(good), Some(Ok(())), "{good}");
        }
        let answered = |status| Some(Err(format!("its health check was answered {status}")));
        assert_eq!(said("HTTP/1.1 503 No\r\n"), answered(503));
        assert_eq!(said("HTTP/1.1 100 Continue"), answered(100));
        let other = Some(Err("its health check was not answered with HTTP".to_owned()));
        assert_eq!(said("SSH-2.0-OpenSSH"), other);
        assert_eq!(said("HTTP/1.1 abc"), other);
    }

    #[test]
    fn only_checks_in_a_row_count() {
        let (check, mut tally) = (check(), Tally::default());
        assert!(!tally.succeeded(&check) && tally.succeeded(&check) && tally.succeeded(&check));
        assert!(!tally.failed(&check) && !tally.failed(&check));
        assert!(!tally.succeeded(&check));
        assert!(!tally.failed(&check) && !tally.failed(&check) && tally.failed(&check));
    }
}
