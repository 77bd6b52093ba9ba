//! The program's log, on standard error.

use std::backtrace::Backtrace;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use env_logger::{Builder, Target};
use log::Level;

use super::journal;
use super::line_writer::{LineWriter, Output, Reports};
use super::panics;

/// How long the last lines may take to be written at the end of the process.
const LAST_LINES: Duration = Duration::from_secs(3);

/// The running log. When it is dropped, its last lines are written, unless that takes too long.
pub struct Log {
    writer: Arc<LineWriter>,
}

/// Starts the log as `builder` has it, on standard error: no line ever makes the thread that logs
/// it wait. In the journal of systemd a line has no time of its own, but its priority. A panic is
/// reported there, and ends the process.
#[must_use]
pub fn start(mut builder: Builder) -> Log {
    let writer = Arc::new(LineWriter::new(Output::Stderr(io::stderr()), Reports::Inline));
    let sink = Sink(Arc::clone(&writer));
    journal::look();
    builder.format(|line, record| {
        let (level, text) = (record.level(), record.args());
        match journal::is_attached() {
            true => writeln!(line, "{}{text}", journal::priority(level)),
            false => writeln!(line, "[{} {level:<5}] {text}", line.timestamp_seconds()),
        }
    });
    builder.target(Target::Pipe(Box::new(sink))).init();
    let log = Arc::clone(&writer);
    panics::end_process_after(move |info| {
        // What led to the panic comes before it.
        log.flush(LAST_LINES);
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("?");
        say(&format!("thread '{thread}' {info}\n{}", Backtrace::capture()));
    });
    Log { writer }
}

/// Writes an error to standard error at once, past the log: at the end of a process, when there is
/// none any more. If nobody takes it, gives up after three seconds.
pub fn say(text: &str) {
    journal::look();
    let writer = LineWriter::new(Output::Stderr(io::stderr()), Reports::Inline);
    let priority = journal::priority(Level::Error);
    writer.write(|lines| _ = writeln!(lines, "{priority}{text}"));
    writer.flush(LAST_LINES);
}

impl Log {
    /// Waits until every line is written, unless that takes too long.
    pub fn flush(&self) {
        self.writer.flush(LAST_LINES);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Takes each line of the logger, whole.
struct Sink(Arc<LineWriter>);

impl io::Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write(|lines| lines.extend_from_slice(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
