//! The access log: one line for each request.
//!
//! A line is written with one system call, so that lines of several workers do not mix
//! (O_APPEND). A full disk costs lines, never requests.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use crate::http::request::Request;
use crate::process::identity::Identity;
use crate::process::logfile;

/// How much of a request target is written down, in bytes.
const TARGET_SHOWN: usize = 1024;

/// Where lines go.
pub struct AccessLog {
    file: File,
    /// The last line could not be written, and that has been said.
    failing: AtomicBool,
}

/// What is remembered of a request until its line is written.
pub struct Line {
    peer: IpAddr,
    request: String,
    started: u64,
}

impl Line {
    /// A request from `peer` that came at `now`, in microseconds.
    #[must_use]
    pub fn begin(peer: IpAddr, request: &Request<'_, '_>, now: u64) -> Line {
        let target = &request.target[..request.target.len().min(TARGET_SHOWN)];
        let request = format!("{} {} {target}", request.host, request.method);
        Line { peer, request, started: now }
    }
}

impl AccessLog {
    /// Opens `path` for appending; `-` is the standard output. A new file belongs to `owner`.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path, owner: Option<&Identity>) -> io::Result<AccessLog> {
        let path = if path == Path::new("-") { Path::new("/dev/stdout") } else { path };
        Ok(AccessLog { file: logfile::open(path, owner)?, failing: AtomicBool::new(false) })
    }

    /// Writes the line of a request that was over at `now`, in microseconds: time, client, host,
    /// method, target, status (0 for none), body bytes, and milliseconds.
    pub fn write(&self, line: &Line, status: u16, bytes: u64, now: u64) {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let took = now.saturating_sub(line.started);
        let mut text = String::with_capacity(128);
        let _ = writeln!(
            text,
            "{}.{:03} {} {} {} {} {}.{:03}",
            time.as_secs(),
            time.subsec_millis(),
            line.peer,
            line.request,
            status,
            bytes,
            took / 1000,
            took % 1000,
        );
        match (&self.file).write_all(text.as_bytes()) {
            Ok(()) => self.failing.store(false, Ordering::Relaxed),
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    log::error!("access log: {error}; lines are lost until it works again");
                }
            }
        }
    }
}
