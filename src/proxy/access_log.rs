//! The access log: one line per request.
//!
//! A line is one write to a file opened with O_APPEND, so lines of several workers do not mix. A
//! full disk loses lines, never requests.

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
use crate::time::Micros;

/// How much of a request target is logged, in bytes.
const TARGET_SHOWN: usize = 1024;

pub struct AccessLog {
    file: File,
    /// The last write failed, and that has been logged.
    failing: AtomicBool,
}

/// What a log line needs of its request.
pub(super) struct Record {
    request: String,
    received: Micros,
}

impl Record {
    pub(super) fn new(request: &Request<'_, '_>, now: Micros) -> Box<Record> {
        Box::new(Record { request: shown(request), received: now })
    }
}

/// A request as a log line has it: host, method, target.
pub(super) fn shown(request: &Request<'_, '_>) -> String {
    let target = &request.target[..request.target.len().min(TARGET_SHOWN)];
    format!("{} {} {target}", request.host, request.method)
}

impl AccessLog {
    /// Opens `path` for appending; `-` is standard output. A new file belongs to `owner`.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path, owner: Option<&Identity>) -> io::Result<AccessLog> {
        let path = if path == Path::new("-") { Path::new("/dev/stdout") } else { path };
        Ok(AccessLog { file: logfile::open(path, owner)?, failing: AtomicBool::new(false) })
    }

    /// Writes the line of a request that ended at `now`: time, client, host, method, target, status
    /// (0 for none), body bytes, and milliseconds.
    pub(super) fn write(
        &self,
        peer: IpAddr,
        record: &Record,
        status: u16,
        bytes: u64,
        now: Micros,
    ) {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let took = now.since(record.received);
        let mut text = String::with_capacity(128);
        let _ = writeln!(
            text,
            "{}.{:03} {peer} {} {status} {bytes} {}.{:03}",
            time.as_secs(),
            time.subsec_millis(),
            record.request,
            took.as_millis(),
            took.subsec_micros() % 1000,
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
