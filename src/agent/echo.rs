//! `cloudbridge-agent --echo`: a backend that answers each request with the request itself, head
//! and body exactly as they came over the bridge, as `text/plain`. It shows how a proxy rewrites a
//! request, and is the backend of the smoke test.
//!
//! A chunked body is echoed with its chunks. An `Upgrade` is echoed, not accepted.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::exchange_config::CONFIG;
use super::requests::NOBODY;
use super::start::Ended;
use crate::bridge::request::CONTINUE;
use crate::client::{BridgeListener, Refused};
use crate::exchange::RequestMeta;
use crate::http::{self, Decoder, Framing, Limits, ParseError, Reply, request};
use crate::net::signals::{self, Signals};
use crate::net::sys::{self, Signal};
use crate::process::notify;

/// A proxy takes heads of 16 KiB from a client by default, and adds a few fields.
const LIMITS: Limits =
    Limits { head: 64 * 1024, fields: http::MAX_FIELDS, target: 64 * 1024, behind_proxy: true };

/// Most bytes of a request's body, chunk sizes and trailers included. It is buffered whole, because
/// the answer's Content-Length goes out first.
const MAX_BODY: usize = 1024 * 1024;

const LARGE_BODY: ParseError = ParseError::new(413, "the echo takes bodies of up to 1 MiB");

/// Most bytes discarded after a refused request before the connection is closed. Closing with
/// unread bytes would reset the connection, and the refusal might be lost with it.
const MAX_DISCARDED: u64 = 64 * MAX_BODY as u64;

/// How long a bridge may be idle, or a body may stall, before the bridge is closed and dialled
/// again. Announced in `Keep-Alive`, so that no request is on its way by then. A proxy whose
/// machine has vanished is noticed after this time at the latest.
const IDLE: Duration = Duration::from_secs(60);

/// Most bytes of one read.
const SCRATCH: usize = 16 * 1024;

/// How long the echo waits after a signal for its bridges to end. A proxy that supports
/// deregistration closes them at once; another leaves those open that have served a request.
const GRACE: Duration = Duration::from_secs(2);

enum Event {
    /// A bridge's thread has ended.
    Ended(io::Result<()>),
    Signal(Signal),
}

/// Serves over `bridges` bridges at once, each on its own thread, until a signal to stop. Must be
/// called before any other thread exists, so that only the thread that waits for signals gets them.
///
/// # Errors
/// A refusal other than 503 (too many bridges), which is retried; a peer that is not a proxy; a
/// thread that cannot be started.
pub fn run(listener: &BridgeListener, bridges: usize) -> io::Result<Ended> {
    sys::block_signals();
    let (tell, events) = mpsc::channel();
    for number in 1..=bridges {
        let (listener, tell) = (listener.clone(), tell.clone());
        let thread = thread::Builder::new().name(format!("echo-{number}"));
        thread.spawn(move || {
            // There is no receiver if the process is already ending.
            let _ = tell.send(Event::Ended(work(&listener)));
        })?;
    }
    notify::ready();
    let mut signals = Signals::default();
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || while tell.send(Event::Signal(signals.wait())).is_ok() {})?;
    loop {
        match events.recv().map_err(io::Error::other)? {
            Event::Ended(result) => result?,
            Event::Signal(Signal::Terminate) => return shut_down(listener, &events, bridges),
            Event::Signal(Signal::Reload) => log::warn!("HUP: an echo has nothing to reload"),
            Event::Signal(Signal::ReopenLogs) => signals::ignored("USR1"),
            Event::Signal(Signal::Upgrade) => signals::ignored("USR2"),
            Event::Signal(Signal::Unused(name)) => signals::ignored(name),
        }
    }
}

/// Ends without losing a request, unless a second signal comes.
fn shut_down(
    listener: &BridgeListener,
    events: &mpsc::Receiver<Event>,
    bridges: usize,
) -> io::Result<Ended> {
    let ending = listener.clone();
    thread::Builder::new().name("shutdown".to_owned()).spawn(move || {
        if let Err(error) = ending.shutdown() {
            log::warn!("{error}");
        }
    })?;
    let until = Instant::now() + GRACE;
    let mut running = bridges;
    while running > 0 {
        match events.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Event::Ended(_)) => running -= 1,
            Ok(Event::Signal(Signal::Terminate)) => return Ok(Ended::AtOnce),
            Ok(Event::Signal(_)) => {}
            Err(_) => break,
        }
    }
    Ok(Ended::Left)
}

/// One bridge after another, until one is refused for good or the listener is shut down.
fn work(listener: &BridgeListener) -> io::Result<()> {
    for bridge in listener.incoming() {
        let served = bridge.and_then(|mut bridge| {
            bridge.set_read_timeout(Some(IDLE))?;
            bridge.set_write_timeout(Some(IDLE))?;
            // Its client has been told; the echo continues.
            if let Err(error) = serve(&mut bridge) {
                log::debug!("a bridge broke: {error}");
            }
            Ok(())
        });
        match served {
            Err(error) if Refused::of(&error).is_some_and(|refused| refused.status == 503) => {
                log::warn!("{error}");
            }
            other => other?,
        }
    }
    Ok(())
}

/// Answers requests on one connection until either side closes it, or it has been idle for longer
/// than its read timeout.
///
/// # Errors
///
/// The connection broke within a request.
fn serve(stream: &mut (impl Read + Write)) -> io::Result<()> {
    let mut connection = Connection { stream, held: Vec::new(), answer: Vec::new() };
    while connection.turn()? {}
    Ok(())
}

struct Connection<'s, S> {
    stream: &'s mut S,
    /// Bytes received and not answered yet.
    held: Vec<u8>,
    /// The answer under construction; kept for its memory.
    answer: Vec<u8>,
}

impl<S: Read + Write> Connection<'_, S> {
    /// Answers one request. True if another may follow.
    fn turn(&mut self) -> io::Result<bool> {
        let meta = loop {
            match meta(&self.held) {
                Ok(Some(meta)) => break meta,
                Ok(None) => {}
                Err(error) => return self.refuse(error),
            }
            if !self.read_between_requests()? {
                return Ok(false);
            }
        };
        let mut decoder = Decoder::new();
        let mut end = meta.head;
        loop {
            let whole = match meta.framing {
                Framing::Chunked => match decoder.scan(&self.held[end..]) {
                    Ok((count, done)) => {
                        end += count;
                        done
                    }
                    Err(error) => return self.refuse(error),
                },
                Framing::Length(length) => {
                    end = meta.head.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
                    self.held.len() >= end
                }
                Framing::None | Framing::UntilClose => true,
            };
            if end - meta.head > MAX_BODY {
                return self.refuse(LARGE_BODY);
            }
            if whole {
                break;
            }
            if meta.expect_continue && self.held.len() == meta.head {
                self.stream.write_all(CONTINUE)?;
            }
            if self.read()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        self.echo(meta, end)?;
        self.held.drain(..end);
        // An idle bridge does not keep the memory of a large request.
        self.held.shrink_to(SCRATCH);
        self.answer.clear();
        self.answer.shrink_to(SCRATCH);
        Ok(meta.persistent)
    }

    /// Reads more of a head. False if the connection ended, or was idle for too long, before a
    /// request had begun.
    fn read_between_requests(&mut self) -> io::Result<bool> {
        let idle = self.held.is_empty();
        match self.read() {
            Ok(0) if idle => Ok(false),
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(true),
            Err(error)
                if idle && matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads into `held`; 0 at the end of the connection.
    fn read(&mut self) -> io::Result<usize> {
        let mut scratch = [0; SCRATCH];
        let count = loop {
            match self.stream.read(&mut scratch) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.held.extend_from_slice(&scratch[..count]);
        Ok(count)
    }

    /// Answers with the first `end` bytes held, in one write.
    fn echo(&mut self, meta: RequestMeta, end: usize) -> io::Result<()> {
        let connection = match meta.persistent {
            true => format!("Keep-Alive: timeout={}", IDLE.as_secs()),
            false => "Connection: close".to_owned(),
        };
        write!(
            self.answer,
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {end}\r\n\
             {connection}\r\n\r\n"
        )?;
        if !meta.to_head {
            self.answer.extend_from_slice(&self.held[..end]);
        }
        self.stream.write_all(&self.answer)
    }

    /// Answers a request that is not echoed, and discards the rest of it.
    fn refuse(&mut self, error: ParseError) -> io::Result<bool> {
        Reply { close: true, ..Reply::new(error.status, error.reason) }.write(&mut self.answer);
        self.stream.write_all(&self.answer)?;
        // The proxy closes the bridge once it has passed the answer on.
        let mut rest = Read::take(&mut *self.stream, MAX_DISCARDED);
        let _ = io::copy(&mut rest, &mut io::sink());
        Ok(false)
    }
}

/// What the answer depends on; `None` until the head is whole.
fn meta(bytes: &[u8]) -> Result<Option<RequestMeta>, ParseError> {
    let mut storage = request::storage();
    let request = request::parse(bytes, &mut storage, &LIMITS)?;
    Ok(request.map(|request| RequestMeta::of(&request, NOBODY, &CONFIG)))
}

#[cfg(test)]
mod tests;
