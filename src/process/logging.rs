//! The program's log, on standard error.

use std::io;
use std::panic;
use std::sync::Arc;
use std::time::Duration;

use env_logger::{Builder, Target};

use super::line_writer::{LineWriter, Output, Reports};

/// How long the last lines may take to be written at the end of the process.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The running log. When it is dropped, its last lines are written, unless that takes too long.
pub struct Log {
    writer: Arc<LineWriter>,
}

/// Starts the log as `builder` has it, on standard error: no line ever makes the thread that logs
/// it wait.
#[must_use]
pub fn start(mut builder: Builder) -> Log {
    let writer = Arc::new(LineWriter::new(Output::Stderr(io::stderr()), Reports::Inline));
    let sink = Sink(Arc::clone(&writer));
    builder.format_target(false).target(Target::Pipe(Box::new(sink))).init();
    let (log, report) = (Arc::clone(&writer), panic::take_hook());
    panic::set_hook(Box::new(move |info| {
        // What led to the panic comes before it.
        log.flush(LAST_LINES);
        report(info);
    }));
    Log { writer }
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
