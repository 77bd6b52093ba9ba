//! Writes log lines without making anybody wait for them.
//!
//! A line goes into a buffer, and a thread writes it. A disk may be slow or full, and the reader of
//! a pipe may have stopped: then lines are lost and counted, and the count is logged when the output
//! takes lines again. Nothing but that thread ever waits.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::net::sys::{self, Stream};

use super::datagram::Datagram;
use super::identity::Identity;
use super::journal;
use super::logfile;

/// Most bytes that wait, beside as many that are being written: some five thousand requests, which
/// covers a disk that takes a moment.
const BUFFER: usize = 512 << 10;

/// Most bytes of one write, all of them whole lines. The kernel does not mix so few with what
/// another process writes to the same pipe (PIPE_BUF, pipe(7)).
const WRITE: usize = libc::PIPE_BUF;

/// The same for a regular file: an append of any size is not mixed with another.
const FILE_WRITE: usize = 128 << 10;

/// How long lines are gathered that report losses to the log, so that a busy writer's thread is not
/// woken for each few of them. Lines of the log itself are written at once.
const GATHER: Duration = Duration::from_millis(10);

/// So many bytes are enough.
const GATHERED: usize = 128 << 10;

/// A buffer that has grown beyond this is given back once it is written.
const KEPT: usize = 2 * GATHERED;

/// How often the log may say that lines are lost, and how often how many.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// How often [`LineWriter::flush`] looks.
const POLL: Duration = Duration::from_millis(1);

/// Where lines go.
#[derive(Debug)]
pub enum Output {
    /// Standard output, whatever it is: a file, a pipe, a socket. It is never opened again.
    Stdout(io::Stdout),
    /// Standard error, likewise.
    Stderr(io::Stderr),
    /// A file opened for appending.
    File(File),
    /// A Unix datagram socket: each line is a datagram.
    Datagram(Datagram),
}

impl Output {
    /// Standard output for `-` and `/dev/stdout`, standard error for `/dev/stderr`, and otherwise
    /// the file, for appending. A new file belongs to `owner`.
    ///
    /// The descriptors are used as they are: a socket cannot be opened by its name in /dev, nor a
    /// pipe that another user has made.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(path: &Path, owner: Option<&Identity>) -> io::Result<Output> {
        match path.to_str() {
            Some("-" | "/dev/stdout") => Ok(Output::Stdout(io::stdout())),
            Some("/dev/stderr") => Ok(Output::Stderr(io::stderr())),
            _ => Ok(Output::File(logfile::open(path, owner)?)),
        }
    }

    /// Which standard stream it is, if it is one.
    #[must_use]
    pub fn standard(&self) -> Option<Stream> {
        match self {
            Output::Stdout(_) => Some(Stream::Output),
            Output::Stderr(_) => Some(Stream::Error),
            Output::File(_) | Output::Datagram(_) => None,
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Output::Stdout(stream) => stream.as_fd(),
            Output::Stderr(stream) => stream.as_fd(),
            Output::File(file) => file.as_fd(),
            Output::Datagram(socket) => socket.as_fd(),
        }
    }

    /// Whether it is a regular file that this process has opened for appending.
    fn is_file(&self) -> bool {
        match self {
            Output::File(file) => file.metadata().is_ok_and(|metadata| metadata.is_file()),
            // It may not append: then a write of any size may end within another's.
            Output::Stdout(_) | Output::Stderr(_) | Output::Datagram(_) => false,
        }
    }

    /// Writes all of `bytes`. On an error, how many were written before it.
    fn write_all(&self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut written = 0;
        while written < bytes.len() {
            match sys::write(self.as_fd(), &bytes[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Another process that shares the descriptor has made it non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let _ = sys::wait_writable(self.as_fd(), None);
                }
                Err(error) => return Err((written, error)),
            }
        }
        Ok(())
    }
}

/// Where to say that lines are lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reports {
    /// In the program's log, under this name.
    ToLog(&'static str),
    /// Among the lines themselves, as soon as the output takes lines again: this is the log.
    Inline,
}

/// Lines lost since the process began: of its log, and of what reports its losses there.
static LOST: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

impl Reports {
    /// How many lines have been lost since the process began, of all writers that report like this.
    #[must_use]
    pub fn lost(self) -> u64 {
        self.counter().load(Ordering::Relaxed)
    }

    fn counter(self) -> &'static AtomicU64 {
        match self {
            Reports::Inline => &LOST[0],
            Reports::ToLog(_) => &LOST[1],
        }
    }
}

/// Accepts lines from any thread and writes them to one output. When it is dropped, what it has
/// accepted is still written.
#[derive(Debug)]
pub struct LineWriter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    reports: Reports,
    state: Mutex<State>,
    /// There is work for the thread that waits.
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines.
    lines: Vec<u8>,
    /// Lines lost since the last report.
    lost: u64,
    /// The last lines were lost.
    failing: bool,
    /// When the log last said that lines are lost, and when it said how many.
    told: Option<Instant>,
    counted: Option<Instant>,
    /// Somebody waits for the rest: how many are lost is said at once.
    flushing: bool,
    /// An output that has no thread yet. The thread starts with the first line, because a process
    /// with threads cannot go into the background.
    output: Option<Output>,
    /// Raised by one with each output. The thread of an older one ends when it can.
    generation: u64,
    /// The thread waits for `wake` until there are so many bytes.
    waiting: Option<usize>,
    writing: bool,
    closed: bool,
}

impl LineWriter {
    /// Writes to `output`.
    #[must_use]
    pub fn new(output: Output, reports: Reports) -> LineWriter {
        let state = State { output: Some(output), ..State::default() };
        let shared = Shared { reports, state: Mutex::new(state), wake: Condvar::new() };
        LineWriter { shared: Arc::new(shared) }
    }

    /// Writes to `output` from now on.
    pub fn reopen(&self, output: Output) {
        let mut state = self.shared.lock();
        state.generation += 1;
        state.waiting = None;
        if state.lines.is_empty() {
            state.output = Some(output);
        } else {
            self.start_thread(&mut state, output);
        }
        drop(state);
        self.shared.wake.notify_all();
    }

    /// Accepts the line that `append` adds to the buffer, with its line end, or loses it if too many
    /// wait. Never blocks.
    pub fn write(&self, append: impl FnOnce(&mut Vec<u8>)) {
        let state = self.shared.lock();
        if state.lines.len() >= BUFFER {
            return self.lose(state, 1);
        }
        self.append(state, append);
    }

    /// Accepts the `count` lines in `lines`, each with its line end, or loses all of them if too
    /// many wait. Leaves `lines` empty. Never blocks.
    pub fn write_lines(&self, lines: &mut Vec<u8>, count: u64) {
        let state = self.shared.lock();
        if state.lines.len() >= BUFFER {
            lines.clear();
            return self.lose(state, count);
        }
        self.append(state, |waiting| match waiting.is_empty() {
            true => std::mem::swap(waiting, lines),
            false => waiting.append(lines),
        });
        lines.clear();
    }

    fn lose(&self, mut state: MutexGuard<'_, State>, count: u64) {
        self.shared.count_lost(&mut state, count);
        drop(self.shared.failed(state, &"they come faster than they are taken"));
    }

    fn append(&self, mut state: MutexGuard<'_, State>, append: impl FnOnce(&mut Vec<u8>)) {
        append(&mut state.lines);
        if let Some(output) = state.output.take() {
            self.start_thread(&mut state, output);
        }
        if state.waiting.is_some_and(|enough| state.lines.len() >= enough) {
            state.waiting = None;
            drop(state);
            self.shared.wake.notify_one();
        }
    }

    fn start_thread(&self, state: &mut State, output: Output) {
        let (shared, generation) = (Arc::clone(&self.shared), state.generation);
        let thread = thread::Builder::new().name("log".to_owned());
        let started = thread.spawn(move || {
            sys::block_signals();
            shared.run(&output, generation);
        });
        if started.is_err() {
            let lost = line_ends(&state.lines);
            self.shared.count_lost(state, lost);
            state.lines.clear();
        }
    }

    /// Waits until everything is written, or `timeout` has passed.
    pub fn flush(&self, timeout: Duration) {
        let until = Instant::now() + timeout;
        // A panic may come from a thread that holds the lock.
        let is_busy = || match self.shared.state.try_lock() {
            Ok(mut state) => {
                state.flushing = true;
                let unsaid = state.lost > 0 && !state.failing;
                state.writing || !state.lines.is_empty() || unsaid
            }
            Err(_) => true,
        };
        while is_busy() && Instant::now() < until {
            self.shared.wake.notify_all();
            thread::sleep(POLL);
        }
        if let Ok(mut state) = self.shared.state.try_lock() {
            state.flushing = false;
        }
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock leaves at worst half a line.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_lost(&self, state: &mut State, count: u64) {
        state.lost += count;
        self.reports.counter().fetch_add(count, Ordering::Relaxed);
    }

    /// The thread that writes to `output`.
    fn run(&self, output: &Output, generation: u64) {
        let mut file = Lines::new(output);
        let mut batch = Vec::new();
        let mut state = self.lock();
        loop {
            while state.lines.is_empty() && state.generation == generation && !state.closed {
                if state.lost > 0 && !state.failing {
                    let due = state.counted.map(|last| last + REPORT_INTERVAL);
                    let left = due.map_or(Duration::ZERO, |due| due - Instant::now());
                    if left.is_zero() || state.flushing {
                        state = self.recovered(state);
                        continue;
                    }
                    state.waiting = Some(1);
                    let woken = self.wake.wait_timeout(state, left);
                    state = woken.unwrap_or_else(PoisonError::into_inner).0;
                    continue;
                }
                state.waiting = Some(1);
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state = self.gather(state, generation);
            if state.generation != generation {
                return;
            }
            if state.lines.is_empty() {
                // Nor would an output that fails take the report.
                if state.lost == 0 || (state.failing && self.reports == Reports::Inline) {
                    return;
                }
                state = self.recovered(state);
                continue;
            }
            std::mem::swap(&mut state.lines, &mut batch);
            state.writing = true;
            drop(state);
            let result = file.write(&batch);
            batch.clear();
            batch.shrink_to(KEPT);
            state = self.lock();
            state.writing = false;
            match result {
                Err((lost, error)) => {
                    self.count_lost(&mut state, lost);
                    state = self.failed(state, &error);
                }
                Ok(()) => {
                    state.failing = false;
                    if state.lost > 0 && is_due(state.counted) {
                        state = self.recovered(state);
                    }
                }
            }
        }
    }

    /// Waits for more lines to write at once.
    fn gather<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        generation: u64,
    ) -> MutexGuard<'s, State> {
        if self.reports == Reports::Inline {
            return state;
        }
        let until = Instant::now() + GATHER;
        let is_hurried =
            |state: &State| state.flushing || state.closed || state.generation != generation;
        while !is_hurried(&state) && state.lines.len() < GATHERED {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state.waiting = Some(GATHERED);
            let woken = self.wake.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.generation == generation {
            state.waiting = None;
        }
        state
    }

    /// Lines are being lost: logs it, unless the log has said so lately.
    fn failed<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        why: &dyn std::fmt::Display,
    ) -> MutexGuard<'s, State> {
        let is_news = !std::mem::replace(&mut state.failing, true) && is_due(state.told);
        match self.reports {
            Reports::ToLog(name) if is_news => {
                state.told = Some(Instant::now());
                drop(state);
                log::error!("{name}: lines are lost: {why}");
                self.lock()
            }
            _ => state,
        }
    }

    /// Reports how many lines were lost.
    fn recovered<'s>(&'s self, mut state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        let lost = std::mem::take(&mut state.lost);
        state.counted = Some(Instant::now());
        match self.reports {
            Reports::ToLog(name) => {
                let again = if state.failing { "" } else { "; it takes lines again" };
                drop(state);
                log::warn!("{name}: {lost} lines were lost{again}");
                self.lock()
            }
            Reports::Inline => {
                let priority = journal::priority(log::Level::Warn);
                let _ = writeln!(state.lines, "{priority}[{lost} lines of this log were lost]");
                state
            }
        }
    }
}

/// Whether what was last done then may be done again.
fn is_due(last: Option<Instant>) -> bool {
    last.is_none_or(|last| last.elapsed() >= REPORT_INTERVAL)
}

/// Lines on their way to an output.
struct Lines<'o> {
    output: &'o Output,
    /// Most bytes of one write.
    write: usize,
    /// The last write ended within a line, which the next one must not continue.
    torn: bool,
}

impl Lines<'_> {
    fn new(output: &Output) -> Lines<'_> {
        let write = if output.is_file() { FILE_WRITE } else { WRITE };
        Lines { output, write, torn: false }
    }

    /// Writes whole lines. If any are lost, how many, and the last error.
    fn write(&mut self, mut lines: &[u8]) -> Result<(), (u64, io::Error)> {
        if let Output::Datagram(socket) = self.output {
            return socket.send_lines(lines);
        }
        let mut failed: Option<(u64, io::Error)> = None;
        while !lines.is_empty() {
            let (batch, rest) = lines.split_at(batch_len(lines, self.write));
            lines = rest;
            if let Err((lost, error)) = self.write_batch(batch) {
                let before = failed.map_or(0, |(lost, _)| lost);
                failed = Some((before + lost, error));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn write_batch(&mut self, batch: &[u8]) -> Result<(), (u64, io::Error)> {
        if self.torn {
            if let Err((_, error)) = self.output.write_all(b"\n") {
                return Err((line_ends(batch), error));
            }
            self.torn = false;
        }
        self.output.write_all(batch).map_err(|(written, error)| {
            self.torn = written > 0 && batch[written - 1] != b'\n';
            (line_ends(&batch[written..]), error)
        })
    }
}

fn line_ends(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// The length of as many whole lines as one write may have, of at least one line.
fn batch_len(lines: &[u8], most: usize) -> usize {
    if lines.len() <= most {
        return lines.len();
    }
    let end = memchr::memrchr(b'\n', &lines[..most]);
    let end = end.or_else(|| memchr::memchr(b'\n', lines));
    end.map_or(lines.len(), |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{PipeReader, Read};
    use std::os::fd::OwnedFd;

    fn pipe() -> (PipeReader, Output) {
        let (reader, writer) = io::pipe().unwrap();
        (reader, Output::File(File::from(OwnedFd::from(writer))))
    }

    /// Everything until nobody can write any more.
    fn read(mut reader: PipeReader) -> String {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    }

    /// Gives the thread more than a pipe holds, which it cannot finish before somebody reads.
    /// Returns how many lines that is.
    fn stall(writer: &LineWriter, line: &[u8]) -> usize {
        let count = (2 << 20) / line.len();
        writer.write_lines(&mut line.repeat(count), count as u64);
        while !writer.shared.lock().writing {
            thread::yield_now();
        }
        count
    }

    #[test]
    fn a_write_has_whole_lines_that_fit_a_pipe_at_once() {
        let line = |length: usize| [&vec![b'x'; length - 1][..], b"\n"].concat();
        assert_eq!(batch_len(b"a\nb\n", WRITE), 4);
        assert_eq!(batch_len(&[line(4_000), line(96), line(5)].concat(), WRITE), 4_096);
        assert_eq!(batch_len(&[line(4_000), line(97), line(5)].concat(), WRITE), 4_000);
        assert_eq!(batch_len(&[line(5_000), line(5)].concat(), WRITE), 5_000);
    }

    #[test]
    fn lines_are_written_in_order_before_the_writer_is_gone() {
        let (reader, output) = pipe();
        let writer = LineWriter::new(output, Reports::Inline);
        for number in 0..1_000 {
            writer.write(|lines| _ = writeln!(lines, "{number}"));
        }
        drop(writer);
        let expected: String = (0..1_000).map(|number| format!("{number}\n")).collect();
        assert_eq!(read(reader), expected);
    }

    #[test]
    fn lines_go_to_the_new_output_once_it_is_reopened() {
        let ((old, output), (new, newer)) = (pipe(), pipe());
        let writer = LineWriter::new(output, Reports::Inline);
        writer.write(|lines| lines.extend(b"before\n"));
        writer.flush(Duration::from_secs(30));
        writer.reopen(newer);
        assert_eq!(read(old), "before\n");
        writer.write(|lines| lines.extend(b"after\n"));
        drop(writer);
        assert_eq!(read(new), "after\n");
    }

    #[test]
    fn a_reader_that_stops_costs_lines_and_no_time_and_is_told_how_many() {
        let (reader, output) = pipe();
        let writer = LineWriter::new(output, Reports::Inline);
        let line = [&[b'x'; 999][..], b"\n"].concat();
        let stalled = stall(&writer, &line);
        let given = 2 * BUFFER / line.len();
        for _ in 0..given {
            writer.write(|lines| lines.extend(&line));
        }
        drop(writer);
        let text = read(reader);
        let (reports, lines): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.starts_with('['));
        let [report] = reports[..] else { panic!("{reports:?}") };
        let lost = stalled + given - lines.len();
        assert_eq!(report, format!("[{lost} lines of this log were lost]"));
        assert!(lost > 0 && lines.iter().all(|line| line.len() == 999));
    }

    #[test]
    fn a_writer_ends_whose_output_fails() {
        let (reader, output) = pipe();
        drop(reader);
        let writer = LineWriter::new(output, Reports::Inline);
        writer.write(|lines| lines.extend(b"in vain\n"));
        let shared = Arc::downgrade(&writer.shared);
        drop(writer);
        let until = Instant::now() + Duration::from_secs(30);
        while shared.strong_count() > 0 {
            assert!(Instant::now() < until, "its thread goes on");
            thread::sleep(POLL);
        }
    }

    #[test]
    fn whole_batches_are_accepted_or_lost() {
        let (reader, output) = pipe();
        let writer = LineWriter::new(output, Reports::Inline);
        let line = [&[b'x'; 999][..], b"\n"].concat();
        let mut given = stall(&writer, &line);
        let lost = || writer.shared.lock().lost;
        while lost() == 0 {
            let mut batch = line.repeat(16);
            writer.write_lines(&mut batch, 16);
            assert!(batch.is_empty());
            given += 16;
        }
        assert_eq!(lost(), 16);
        drop(writer);
        let text = read(reader);
        assert_eq!(text.lines().filter(|line| line.len() == 999).count(), given - 16);
        assert!(text.ends_with("[16 lines of this log were lost]\n"));
    }

    /// A disk that fills up takes part of a line.
    #[test]
    fn a_torn_line_is_not_continued_by_the_next() {
        let output = Output::File(File::options().write(true).open("/dev/full").unwrap());
        let mut lines = Lines::new(&output);
        let (lost, error) = lines.write(b"one\ntwo\n").unwrap_err();
        assert_eq!((lost, error.raw_os_error(), lines.torn), (2, Some(libc::ENOSPC), false));
        let (reader, output) = pipe();
        let mut lines = Lines { torn: true, ..Lines::new(&output) };
        lines.write(b"three\n").unwrap();
        lines.write(b"four\n").unwrap();
        drop(output);
        assert_eq!(read(reader), "\nthree\nfour\n");
    }
}
