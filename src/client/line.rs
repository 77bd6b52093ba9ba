//! One bridge of a program that shares its places between proxies: what passes is looked at, so that
//! the library can send messages where there is room for them, and give back what has no place.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use super::connection::Connection;
use super::messages::{Came, Requests};
use super::places::{Arrived, Share, Turn};
use super::wire::{Wire, Writing};
use crate::bridge::places::Waiting;
use crate::bridge::request::CONTINUE;

/// Most bytes that are read, or gathered to be sent, at once.
const ROOM: usize = 16 * 1024;

/// A bridge, between its connection and the program.
pub(super) struct Line {
    wire: Arc<Wire>,
    share: Arc<Share>,
    /// Its number among those over which the proxy can be told.
    number: OnceLock<u64>,
    reading: Mutex<Reading>,
}

#[derive(Default)]
struct Reading {
    requests: Requests,
    /// The request that has come waits for a place.
    turn: Option<Arc<Turn>>,
}

/// What there is for the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// So many bytes.
    Bytes(usize),
    /// More has to come from the connection.
    Nothing,
    /// The request has to wait for a place; the waker is called.
    #[cfg_attr(not(feature = "tokio"), allow(dead_code))]
    Turn,
    /// Nothing any more.
    Ended,
}

/// What a read from the connection has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// So many bytes that are the program's.
    Direct(usize),
    /// Bytes that must be looked at.
    Held,
    End,
}

impl Line {
    pub fn new(connection: Connection, share: Arc<Share>) -> Line {
        let wire = Arc::new(Wire::new(connection));
        Line { wire, share, number: OnceLock::new(), reading: Mutex::default() }
    }

    /// The connection, for what comes before the first 101.
    pub fn connection(&self) -> &Connection {
        &self.wire.connection
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The proxy has accepted the bridge, and knows places.
    pub fn open(&self) {
        self.number.get_or_init(|| self.share.open(Arc::clone(&self.wire)));
    }

    /// Whether the proxy knows places.
    fn is_told(&self) -> bool {
        self.number.get().is_some()
    }

    /// What the proxy has said of the requests that wait there.
    pub fn hear(&self, waiting: Option<Waiting>) {
        if let Some(waiting) = waiting.filter(|_| self.is_told()) {
            self.share.waits(waiting);
        }
    }

    /// Answers a 101: acknowledges it, or gives it back if there is no place. Returns whether it was
    /// acknowledged.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub fn switch(&self) -> io::Result<bool> {
        let back = self.number.get().and_then(|number| self.share.lacks_room(*number));
        let mut writing = self.wire.writing();
        match &back {
            None => writing.owed.extend_from_slice(CONTINUE),
            Some(limit) => limit.give_back(&mut writing.owed),
        }
        writing.expects = back.is_none();
        self.flush_later(&mut writing)?;
        Ok(back.is_none())
    }

    /// Waits for the request that comes without a 101, after one was given back.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    pub fn await_request(&self) -> io::Result<()> {
        let mut reading = self.reading();
        loop {
            match self.look(&mut reading, Waker::noop())? {
                Taken::Bytes(_) | Taken::Turn => return Ok(()),
                Taken::Nothing if self.feed(&mut reading)? > 0 => {}
                Taken::Nothing | Taken::Ended => {
                    let what = "the proxy closed the connection";
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, what));
                }
            }
        }
    }

    /// Reads what is the program's, and waits for it.
    pub fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            match self.take_or_wait(|requests| requests.take(into))? {
                Taken::Bytes(count) => return Ok(count),
                Taken::Ended => return Ok(0),
                Taken::Nothing | Taken::Turn => {}
            }
            match self.fill(into)? {
                Filled::Direct(count) => return Ok(count),
                Filled::Held => {}
                Filled::End => return Ok(0),
            }
        }
    }

    /// The same, but it can be read again.
    pub fn peek(&self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.take_or_wait(|requests| requests.look(into))? {
                Taken::Bytes(count) => return Ok(count),
                Taken::Ended => return Ok(0),
                Taken::Nothing | Taken::Turn => {}
            }
            if self.feed(&mut self.reading())? == 0 {
                return Ok(0);
            }
        }
    }

    fn take_or_wait(&self, taken: impl FnOnce(&mut Requests) -> usize) -> io::Result<Taken> {
        let mut reading = self.reading();
        loop {
            match self.look(&mut reading, Waker::noop())? {
                Taken::Bytes(_) => return Ok(Taken::Bytes(taken(&mut reading.requests))),
                Taken::Turn => {
                    if let Some(turn) = &reading.turn {
                        turn.wait();
                    }
                }
                other => return Ok(other),
            }
        }
    }

    /// Takes what is the program's and is here already.
    #[cfg(feature = "tokio")]
    pub fn take(&self, into: &mut [u8], waker: &Waker) -> io::Result<Taken> {
        let mut reading = self.reading();
        match self.look(&mut reading, waker)? {
            Taken::Bytes(_) => Ok(Taken::Bytes(reading.requests.take(into))),
            other => Ok(other),
        }
    }

    /// Reads from the connection once, after [`Taken::Nothing`].
    pub fn fill(&self, into: &mut [u8]) -> io::Result<Filled> {
        let mut reading = self.reading();
        let is_tunnel = self.is_tunnel();
        if !is_tunnel && !reading.requests.is_open() {
            return Ok(if self.feed(&mut reading)? == 0 { Filled::End } else { Filled::Held });
        }
        let came = (&self.wire.connection).read(into)?;
        if came == 0 {
            return Ok(Filled::End);
        }
        let passed = if is_tunnel { came } else { reading.requests.pass(&into[..came])? };
        self.note_body(&reading);
        Ok(if passed == 0 { Filled::Held } else { Filled::Direct(passed) })
    }

    fn feed(&self, reading: &mut Reading) -> io::Result<usize> {
        let mut bytes = [0; ROOM];
        let count = (&self.wire.connection).read(&mut bytes)?;
        reading.requests.feed(&bytes[..count]);
        Ok(count)
    }

    fn is_tunnel(&self) -> bool {
        self.wire.is_tunnel.load(Ordering::Acquire)
    }

    fn note_body(&self, reading: &Reading) {
        self.wire.is_in_body.store(reading.requests.is_in_body(), Ordering::Release);
    }

    /// Looks at what has come, and answers what is not the program's.
    fn look(&self, reading: &mut Reading, waker: &Waker) -> io::Result<Taken> {
        loop {
            if let Some(turn) = &reading.turn {
                if !turn.has_come(waker) {
                    return Ok(Taken::Turn);
                }
                reading.turn = None;
                let mut writing = self.wire.writing();
                writing.has_place = true;
                self.admit(reading, &mut writing);
            }
            let came = reading.requests.next(self.is_tunnel())?;
            self.note_body(reading);
            match came {
                Came::Bytes => return Ok(Taken::Bytes(0)),
                Came::Nothing => return Ok(Taken::Nothing),
                Came::Ended => return Ok(Taken::Ended),
                Came::Spoken(waiting) => self.hear(waiting),
                Came::Switch => drop(self.switch()?),
                Came::Request { is_held } => self.arrived(reading, is_held)?,
            }
        }
    }

    fn arrived(&self, reading: &mut Reading, is_held: bool) -> io::Result<()> {
        // Who has just sent the last byte of a response still holds this, and has to say so first.
        let mut writing = self.wire.writing();
        writing.expects = false;
        if writing.has_place {
            self.admit(reading, &mut writing);
            return Ok(());
        }
        match self.share.arrives(self.number.get().copied().filter(|_| is_held)) {
            Arrived::Place => {
                writing.has_place = true;
                self.admit(reading, &mut writing);
            }
            Arrived::Turn(turn) => reading.turn = Some(turn),
            Arrived::Back(limit) => {
                reading.requests.give_back();
                limit.give_back(&mut writing.owed);
                self.flush_later(&mut writing)?;
            }
        }
        Ok(())
    }

    fn admit(&self, reading: &mut Reading, writing: &mut Writing) {
        let is_head = reading.requests.admit();
        writing.responses.begin(is_head);
        self.note_body(reading);
    }

    /// Sends bytes of the program. What cannot be sent now is sent before what follows.
    pub fn write(&self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut writing = self.wire.writing();
        self.flush_owed(&mut writing)?;
        let total = bytes.iter().map(|slice| slice.len()).sum();
        if !self.wire.connection.is_encrypted() && writing.responses.is_plain(total) {
            let sent = (&self.wire.connection).write_vectored(bytes)?;
            let mut left = sent;
            for slice in bytes {
                let count = left.min(slice.len());
                writing.is_over |= writing.responses.pass(&slice[..count]);
                left -= count;
            }
            self.flush_owed(&mut writing)?;
            return Ok(sent);
        }
        let taken = gather(&mut writing, bytes);
        self.wire.is_tunnel.store(writing.responses.is_tunnel(), Ordering::Release);
        self.flush_later(&mut writing)?;
        Ok(taken)
    }

    /// Sends what is left.
    ///
    /// # Errors
    ///
    /// `WouldBlock`: the connection takes no more now.
    pub fn flush(&self) -> io::Result<()> {
        self.flush_owed(&mut self.wire.writing())
    }

    /// Ends one direction of the connection, or both.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if how != Shutdown::Read {
            self.flush()?;
        }
        self.wire.connection.shutdown(how)
    }

    fn flush_later(&self, writing: &mut Writing) -> io::Result<()> {
        match self.flush_owed(writing) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            flushed => flushed,
        }
    }

    fn flush_owed(&self, writing: &mut Writing) -> io::Result<()> {
        self.wire.flush(writing)?;
        if std::mem::take(&mut writing.is_over) {
            if self.wire.is_in_body.load(Ordering::Acquire) {
                // The proxy ends the bridge.
                writing.responses.end();
            }
            if std::mem::take(&mut writing.has_place) {
                self.share.ends();
            }
        }
        Ok(())
    }
}

/// Takes bytes of the program into what is owed: some of them, at least one.
fn gather(writing: &mut Writing, slices: &[IoSlice<'_>]) -> usize {
    let mut taken = 0;
    for slice in slices {
        let mut bytes: &[u8] = slice;
        while !bytes.is_empty() {
            let room = ROOM.saturating_sub(writing.owed.len());
            if taken > 0 && (room == 0 || writing.is_over) {
                return taken;
            }
            let plain = writing.responses.plain(bytes).min(room);
            let count = if plain == 0 {
                let (count, is_over) = writing.responses.take_head(bytes, &mut writing.owed);
                writing.is_over |= is_over;
                count
            } else {
                writing.owed.extend_from_slice(&bytes[..plain]);
                writing.is_over |= writing.responses.pass(&bytes[..plain]);
                plain
            };
            taken += count;
            bytes = &bytes[count..];
        }
    }
    taken
}

impl Drop for Line {
    fn drop(&mut self) {
        let reading = self.reading.get_mut().unwrap_or_else(PoisonError::into_inner);
        let has_place = self.wire.writing().has_place;
        if let Some(turn) = reading.turn.take() {
            self.share.gives_up(&turn);
        }
        if has_place {
            self.share.ends();
        }
        if let Some(number) = self.number.get() {
            self.share.close(*number);
        }
    }
}

#[cfg(feature = "tokio")]
impl std::os::fd::AsRawFd for Line {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.wire.connection.tcp().as_raw_fd()
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.wire.connection.fmt(f)
    }
}
