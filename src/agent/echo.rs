//! `cloudbridge-agent --echo`: a backend that answers each request with the request, head and body
//! exactly as they came over the bridge, as `text/plain`. It shows what a proxy makes of a request,
//! and is the backend of the smoke test.
//!
//! A chunked body is echoed in its chunks, as it came. An `Upgrade` is not taken up, only echoed.

mod request;

use std::io::{self, ErrorKind, Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::start::Ended;
use crate::client::{BridgeListener, Refused};
use crate::net::sys::{self, Signal};
use request::{After, Head, Unreadable};

/// Most bytes of a request's head. A proxy takes 16 KiB from a client and adds a few fields.
const MAX_HEAD: usize = 64 * 1024;

/// Most bytes of a request's body, chunk sizes and trailers included. Each is held whole, because
/// the answer's Content-Length goes out first; beyond it the answer is 413.
const MAX_BODY: usize = 1024 * 1024;

/// Most bytes read and thrown away behind a refused request before the connection is closed. To
/// close with bytes unread would reset the connection, and the refusal might be lost with it.
const MAX_DISCARDED: u64 = 64 * MAX_BODY as u64;

/// How long a bridge may be idle, or a body stand still, before the bridge is closed and dialled
/// anew. Announced in `Keep-Alive`, so that no request is on its way by then. A proxy whose machine
/// has gone is noticed after this time at the latest.
const IDLE: Duration = Duration::from_secs(60);

/// Bytes read at once.
const SCRATCH: usize = 16 * 1024;

/// How long the echo waits, after a signal to leave, for its bridges to end. A proxy that knows how to take leave closes them
/// at once; any other leaves those open that have served a request.
const GRACE: Duration = Duration::from_secs(2);

/// What the threads of an echo have to say.
enum Event {
    /// A bridge's thread has ended.
    Ended(io::Result<()>),
    /// A signal has come.
    Signal(Signal),
}

/// Serves over `bridges` bridges at once, each on its own thread, for as long as the proxy lets us, and until a signal to
/// leave. Call it before any other thread exists, so that signals reach nobody but the thread that waits for them.
///
/// # Errors
/// A refusal other than "too many bridges" (503), which is worth asking again; a proxy that is none; no more threads.
pub fn run(listener: &BridgeListener, bridges: usize) -> io::Result<Ended> {
    sys::block_signals();
    let (tell, events) = mpsc::channel();
    for number in 1..=bridges {
        let (listener, tell) = (listener.clone(), tell.clone());
        let thread = thread::Builder::new().name(format!("echo-{number}"));
        thread.spawn(move || {
            // The process may be ending already: then nobody listens, and nothing is lost.
            let _ = tell.send(Event::Ended(work(&listener)));
        })?;
    }
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || while tell.send(Event::Signal(sys::wait_signal())).is_ok() {})?;
    loop {
        match events.recv().map_err(io::Error::other)? {
            Event::Ended(result) => result?,
            Event::Signal(Signal::Terminate) => return leave(listener, &events, bridges),
            Event::Signal(Signal::Reload) => log::warn!("HUP: an echo has nothing to read again"),
        }
    }
}

/// Leaves without losing a request, unless a second signal comes.
fn leave(
    listener: &BridgeListener,
    events: &mpsc::Receiver<Event>,
    bridges: usize,
) -> io::Result<Ended> {
    let leaving = listener.clone();
    thread::Builder::new().name("leaving".to_owned()).spawn(move || {
        if let Err(error) = leaving.shutdown() {
            log::warn!("{error}");
        }
    })?;
    let until = Instant::now() + GRACE;
    let mut left = bridges;
    while left > 0 {
        match events.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Event::Ended(_)) => left -= 1,
            Ok(Event::Signal(Signal::Terminate)) => return Ok(Ended::AtOnce),
            Ok(Event::Signal(Signal::Reload)) => {}
            Err(_) => break,
        }
    }
    Ok(Ended::Left)
}

/// One bridge after another, until one is refused for good or the listener is shut down.
fn work(listener: &BridgeListener) -> io::Result<()> {
    for bridge in listener.incoming() {
        let served = bridge.and_then(|mut bridge| {
            bridge.get_ref().set_read_timeout(Some(IDLE))?;
            bridge.get_ref().set_write_timeout(Some(IDLE))?;
            // A bridge that breaks off concerns nobody but its client, who has been told.
            if let Err(error) = serve(&mut bridge) {
                log::debug!("a bridge broke off: {error}");
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

/// Answers requests on one connection until one of the sides wants it closed, or it has been idle
/// for longer than its read timeout.
///
/// # Errors
///
/// The connection broke within a request.
pub fn serve(stream: &mut (impl Read + Write)) -> io::Result<()> {
    let mut connection = Connection { stream, held: Vec::new(), answer: Vec::new() };
    while let After::NextRequest = connection.turn()? {}
    Ok(())
}

struct Connection<'s, S> {
    stream: &'s mut S,
    /// Bytes that have been read and not answered: less than one request, or more if the next has
    /// begun.
    held: Vec<u8>,
    /// The answer being made; kept for its memory.
    answer: Vec<u8>,
}

impl<S: Read + Write> Connection<'_, S> {
    /// One request and its answer.
    fn turn(&mut self) -> io::Result<After> {
        let head = loop {
            match Head::parse(&self.held) {
                Ok(Some(head)) => break head,
                Ok(None) if self.held.len() > MAX_HEAD => return self.refuse(431),
                Ok(None) => {}
                Err(Unreadable) => return self.refuse(400),
            }
            if !self.read_between_requests()? {
                return Ok(After::Close);
            }
        };
        let mut body = head.body;
        let end = loop {
            let arrived = &self.held[head.len..];
            match body.end(arrived) {
                Ok(Some(end)) if end <= MAX_BODY => break head.len + end,
                Ok(None) if arrived.len() <= MAX_BODY && body.least() <= MAX_BODY => {}
                Ok(_) => return self.refuse(413),
                Err(Unreadable) => return self.refuse(400),
            }
            if head.expects_continue && self.held.len() == head.len {
                self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            if self.read()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        };
        self.echo(&head, end)?;
        self.held.drain(..end);
        // One large request must not be paid for by every idle bridge.
        self.held.shrink_to(SCRATCH);
        self.answer.clear();
        self.answer.shrink_to(SCRATCH);
        Ok(head.after)
    }

    /// Reads more of a head. False if the connection ended, or was idle for too long, where no
    /// request had begun.
    fn read_between_requests(&mut self) -> io::Result<bool> {
        match self.read() {
            Ok(0) if self.held.is_empty() => Ok(false),
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(true),
            Err(error)
                if self.held.is_empty()
                    && matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads what there is onto the end of `held`; 0 at the end of the connection.
    fn read(&mut self) -> io::Result<usize> {
        let mut scratch = [0; SCRATCH];
        loop {
            match self.stream.read(&mut scratch) {
                Ok(count) => {
                    self.held.extend_from_slice(&scratch[..count]);
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Answers with the first `end` bytes held, in one write.
    fn echo(&mut self, head: &Head, end: usize) -> io::Result<()> {
        let connection = match head.after {
            After::NextRequest => format!("Keep-Alive: timeout={}", IDLE.as_secs()),
            After::Close => "Connection: close".to_owned(),
        };
        self.answer.clear();
        write!(
            self.answer,
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {end}\r\n{connection}\r\n\r\n"
        )?;
        if !head.without_body {
            self.answer.extend_from_slice(&self.held[..end]);
        }
        self.stream.write_all(&self.answer)
    }

    /// Answers a request that is not echoed, and closes. What still comes of it is thrown away.
    fn refuse(&mut self, status: u16) -> io::Result<After> {
        let (phrase, text) = match status {
            413 => ("Content Too Large", "the echo takes bodies of up to 1 MiB\n"),
            431 => ("Request Header Fields Too Large", "the head is too long\n"),
            _ => ("Bad Request", "the request cannot be read\n"),
        };
        let length = text.len();
        self.answer.clear();
        write!(
            self.answer,
            "HTTP/1.1 {status} {phrase}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{text}"
        )?;
        self.stream.write_all(&self.answer)?;
        // The proxy closes when it has passed the answer on; how it does so is its own affair.
        let mut rest = Read::take(&mut *self.stream, MAX_DISCARDED);
        let _ = io::copy(&mut rest, &mut io::sink());
        Ok(After::Close)
    }
}

#[cfg(test)]
mod tests;
