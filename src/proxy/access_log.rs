//! The access log: one line per request (`doc/logs.md`).
//!
//! ```text
//!   a request's head   what the format needs is copied into its `Record`
//!   its end            the `Record` and its `Outcome` become a line in the worker's `Lines`
//!   the turn's end     the worker submits its lines to the `LineWriter`, whose thread writes them
//! ```
//!
//! A full disk, or a pipe that nobody reads, loses lines and holds no request up.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, LogTo};
use crate::http::request::Request;
use crate::net::sys::Stream;
use crate::process::datagram::Datagram;
use crate::process::identity::Identity;
use crate::process::line_writer::{LineWriter, Output, Reports};
use crate::time::Micros;

use super::request_ids::CurrentId;

mod clock;
mod end;
mod line;
mod needs;
mod record;

pub(super) use clock::Clock;
pub(super) use end::{By, End, Phase};
pub(super) use line::Outcome;
pub(super) use record::{Matched, Record};

use line::Line;
use needs::Needs;

/// A worker submits what it has within a turn when it is this much, in bytes.
const BATCH: usize = 32 << 10;

/// Where a line for each request goes, and what it is. Clones write to the same place.
#[derive(Clone)]
pub struct AccessLog {
    writer: Arc<LineWriter>,
    settings: Arc<config::AccessLog>,
    needs: Needs,
    /// A standard stream is never opened again.
    standard: Option<Stream>,
}

/// The lines of a worker that have not been submitted.
#[derive(Default)]
pub(super) struct Lines {
    lines: Vec<u8>,
    count: u64,
    clock: Clock,
}

impl AccessLog {
    /// Opens what `settings` name. A new file belongs to `owner`.
    ///
    /// # Errors
    /// When a file cannot be opened. A datagram socket need not be there.
    pub fn open(settings: &config::AccessLog, owner: Option<&Identity>) -> io::Result<AccessLog> {
        let output = open(settings, owner)?;
        let standard = output.standard();
        let writer = Arc::new(LineWriter::new(output, Reports::ToLog("access log")));
        let (settings, needs) = (Arc::new(settings.clone()), Needs::of(&settings.format));
        Ok(AccessLog { writer, settings, needs, standard })
    }

    /// The log to use after a reload that has opened `self`. If it is the same standard stream as
    /// `old`, it goes on with its writer, because a second one would only wait beside the first.
    #[must_use]
    pub(super) fn after(self, old: Option<&AccessLog>) -> AccessLog {
        match old {
            Some(old) if self.standard.is_some() && old.standard == self.standard => {
                AccessLog { writer: Arc::clone(&old.writer), ..self }
            }
            _ => self,
        }
    }

    /// Opens what it was opened as again.
    ///
    /// # Errors
    /// When the file cannot be opened; then it stays as it was.
    pub(super) fn reopen(&self, owner: Option<&Identity>) -> io::Result<()> {
        if self.standard.is_none() {
            self.writer.reopen(open(&self.settings, owner)?);
        }
        Ok(())
    }

    /// Whether it is a standard stream, which a reload keeps.
    pub(super) fn is_standard(&self) -> bool {
        self.standard.is_some()
    }

    /// Waits until every line is written, or `timeout` has passed.
    pub(super) fn flush(&self, timeout: Duration) {
        self.writer.flush(timeout);
    }

    /// Whether a line has times for which somebody must see how an exchange goes on.
    pub(super) fn needs_progress(&self) -> bool {
        self.needs.progress
    }

    /// Begins the record of a request whose head came whole at `now`; its first byte came at
    /// `begun`, unless it all came at once.
    pub(super) fn begin(
        &self,
        record: &mut Option<Box<Record>>,
        request: &Request<'_, '_>,
        begun: Option<Micros>,
        now: Micros,
    ) {
        let record = record.get_or_insert_default();
        record.begin(begun.unwrap_or(now), now);
        record.take(request, &self.needs);
    }

    /// Begins the record of a request whose head is not one, or not whole.
    pub(super) fn begin_bad(
        record: &mut Option<Box<Record>>,
        len: usize,
        begun: Option<Micros>,
        now: Micros,
    ) {
        let record = record.get_or_insert_default();
        record.begin(begun.unwrap_or(now), now);
        record.take_bad(len);
    }

    /// Notes in the record the id that the request has here, if any, in place of one that it came
    /// with.
    pub(super) fn set_id(&self, record: &mut Record, id: Option<&CurrentId>) {
        record.set_id(id, &self.needs);
    }

    /// Notes in the record to which site of the settings the request belongs.
    pub(super) fn set_site(&self, record: &mut Record, site: &str) {
        record.set_site(site, &self.needs);
    }

    /// Notes in the record that the request has been given to a bridge.
    pub(super) fn matched(&self, record: &mut Record, bridge: &Matched<'_>, now: Micros) {
        record.matched(bridge, &self.needs, now);
    }

    /// Adds the line of a request that ended at `now`.
    pub(super) fn write(
        &self,
        lines: &mut Lines,
        record: &mut Record,
        outcome: &Outcome,
        now: Micros,
    ) {
        let Lines { lines: into, count, clock } = lines;
        Line { record, outcome, clock, now }.write(&self.settings.format, into);
        record.is_open = false;
        *count += 1;
        if into.len() >= BATCH {
            self.submit(lines);
        }
    }

    #[cold]
    fn submit(&self, lines: &mut Lines) {
        self.writer.write_lines(&mut lines.lines, std::mem::take(&mut lines.count));
    }
}

impl Lines {
    /// Submits all lines to be written.
    pub(super) fn submit(&mut self, log: Option<&AccessLog>) {
        if self.count > 0
            && let Some(log) = log
        {
            log.submit(self);
        }
    }
}

fn open(settings: &config::AccessLog, owner: Option<&Identity>) -> io::Result<Output> {
    match &settings.to {
        LogTo::File(path) => Output::open(path, owner),
        LogTo::Datagram(path) => Datagram::new(path).map(Output::Datagram),
    }
}
