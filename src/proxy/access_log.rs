//! The access log: one line per request.
//!
//! A full disk, or a pipe that nobody reads, loses lines and holds no request up.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::http::request::Request;
use crate::net::sys::Stream;
use crate::process::identity::Identity;
use crate::process::line_writer::{LineWriter, Output, Reports};
use crate::time::Micros;

/// How much of a request target is logged, in bytes.
const TARGET_SHOWN: usize = 1024;

/// Where a line for each request goes. Clones write to the same place.
#[derive(Clone)]
pub struct AccessLog {
    writer: Arc<LineWriter>,
    /// A standard stream is never opened again.
    standard: Option<Stream>,
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
        let output = Output::open(path, owner)?;
        let standard = output.standard();
        let writer = Arc::new(LineWriter::new(output, Reports::ToLog("access log")));
        Ok(AccessLog { writer, standard })
    }

    /// The log to use after a reload that has opened `self`: `old`, if both are the same standard
    /// stream, because a second writer would only wait beside the first.
    #[must_use]
    pub(super) fn or_same(self, old: Option<&AccessLog>) -> AccessLog {
        match old {
            Some(old) if self.standard.is_some() && old.standard == self.standard => old.clone(),
            _ => self,
        }
    }

    /// Opens `path`, which it was opened as, again.
    ///
    /// # Errors
    /// When the file cannot be opened; then it stays as it was.
    pub(super) fn reopen(&self, path: &Path, owner: Option<&Identity>) -> io::Result<()> {
        if self.standard.is_none() {
            self.writer.reopen(Output::open(path, owner)?);
        }
        Ok(())
    }

    /// Waits until every line is written, or `timeout` has passed.
    pub(super) fn flush(&self, timeout: Duration) {
        self.writer.flush(timeout);
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
        self.writer.write(|lines| {
            let _ = writeln!(
                lines,
                "{}.{:03} {peer} {} {status} {bytes} {}.{:03}",
                time.as_secs(),
                time.subsec_millis(),
                record.request,
                took.as_millis(),
                took.subsec_micros() % 1000,
            );
        });
    }
}
