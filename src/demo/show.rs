//! What the demo prints: a line that keeps counting, or one now and then where nobody sees it move.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::clients::{CLIENTS, Counts};
use super::fleet::Fleet;

/// Between two lines where standard output is no terminal.
const PERIOD: Duration = Duration::from_secs(5);

/// Where it is shown.
pub(super) struct Display {
    is_terminal: bool,
    last: Instant,
}

impl Display {
    pub fn new() -> Display {
        Display { is_terminal: io::stdout().is_terminal(), last: Instant::now() }
    }

    /// Says what is there.
    ///
    /// # Errors
    /// When standard output cannot be written to.
    pub fn introduce(&self, proxy: SocketAddr, admin: SocketAddr) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "{CLIENTS} clients send GETs to the proxy at {proxy}; its backends come and go."
        )?;
        writeln!(out, "    curl -i http://{proxy}/hello     asks it, too")?;
        writeln!(out, "    http://{admin}/           shows what it does")?;
        writeln!(out, "Ctrl-C ends everything.")?;
        writeln!(out)?;
        out.flush()
    }

    /// Writes the line, if it is time.
    ///
    /// # Errors
    /// When standard output cannot be written to.
    pub fn update(&mut self, counts: &Counts, fleet: &Fleet) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let line = line(counts, fleet.restarts());
        if self.is_terminal {
            // Back to the beginning of the line, and nothing behind the new one.
            write!(out, "\r{line}   {}\x1b[K", fleet.news())?;
        } else if self.last.elapsed() >= PERIOD {
            self.last = Instant::now();
            writeln!(out, "{line}")?;
        }
        out.flush()
    }

    /// Writes the last line.
    ///
    /// # Errors
    /// When standard output cannot be written to.
    pub fn conclude(&self, counts: &Counts, fleet: &Fleet, elapsed: Duration) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.is_terminal {
            write!(out, "\r\x1b[K")?;
        }
        let (seconds, slowest) = (elapsed.as_secs(), counts.slowest.as_millis());
        let line = line(counts, fleet.restarts());
        writeln!(out, "{line}  in {seconds} s; the slowest answer took {slowest} ms")?;
        out.flush()
    }
}

fn line(counts: &Counts, restarts: u64) -> String {
    let [requests, errors] = [counts.requests, counts.errors].map(grouped);
    format!("requests {requests}  errors {errors}  restarts {restarts}")
}

/// A number with its digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_easy_to_read() {
        let counts = Counts { requests: 12_345, errors: 0, ..Counts::default() };
        assert_eq!(line(&counts, 17), "requests 12,345  errors 0  restarts 17");
        assert_eq!([7, 999, 1_000, 1_234_567].map(grouped), ["7", "999", "1,000", "1,234,567"]);
    }
}
