//! A response from a file on its way to a client.
//!
//! ```text
//!                    ┌──────────── the thread has read ─────────────┐
//!                    v                                              │
//!     whole <── Sending: pump ──> the client is slow: an event      │
//!                    └──────────> not in memory: a thread reads ────┘
//! ```

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::exchange::Traffic;
use crate::files::{Body, Kept, OpenFile, Piece, Planned, Read, Root};
use crate::http::Version;
use crate::net::conn::Conn;
use crate::net::workspace::Workspace;
use crate::time::Micros;

/// How much of a file is looked at, and then sent, at once: what a turn may send.
const WINDOW: u64 = BUDGET;

/// How much a thread reads at once. A slow client can make us keep it.
const READ: u64 = 128 * 1024;

/// How many bytes one call may send before other connections run, as for other bodies.
const BUDGET: u64 = 1024 * 1024;

/// A file is copied into the packet of its head if it is not longer than this: for more, sending it from
/// the kernel's memory is cheaper than a copy.
pub(super) const COPIED: u64 = 16 * 1024;

/// The answer when more files are asked for than the disk gives.
pub(super) const BUSY: &str = "too many files are being read";

/// What is known of the request that a file answers.
#[derive(Clone, Copy)]
pub(super) struct About {
    pub(super) status: u16,
    /// It is a HEAD, to which no answer has a body.
    pub(super) is_head: bool,
    /// The connection is closed after it.
    pub(super) close: bool,
    /// When the request's head was whole.
    pub(super) received: Micros,
    /// Bytes of request and response. Those of the body are counted when they are sent.
    pub(super) traffic: Traffic,
}

/// A response that is being sent.
pub(super) struct Sending {
    pub(super) about: About,
    file: Arc<OpenFile>,
    /// Until it has been sent; it waits for what follows it.
    head: Option<Vec<u8>>,
    pieces: VecDeque<Piece>,
    /// What has been found in memory.
    seen: Range<u64>,
    /// A thread reads for it.
    pub(super) waits: bool,
}

/// A file that a backend has named, before it is open.
pub(super) struct NamedRequest {
    pub(super) kept: Kept,
    /// The request's head; empty if it is not held any more.
    pub(super) head: Vec<u8>,
    pub(super) version: Version,
    pub(super) about: About,
}

/// What follows when a thread has opened a file.
pub(super) enum Then {
    /// The decision goes on, at this of the names that the request may mean.
    Decide {
        at: usize,
    },
    Answer(Box<NamedRequest>),
}

impl Then {
    /// Whether the request is still in the input, and may be for a backend. Only then is a file looked for
    /// in other codings, too.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Then::Decide { .. })
    }
}

/// A request that waits for a file to be opened.
pub(super) struct Opening {
    pub(super) then: Then,
    pub(super) root: Arc<Root>,
    pub(super) name: Vec<u8>,
    pub(super) is_head: bool,
    /// When the request's head was whole.
    pub(super) received: Micros,
}

/// What a call has done.
pub(super) enum Pumped {
    /// Everything has been given to the connection.
    Done,
    /// The client takes no more now.
    Waiting,
    /// There is more to do right now.
    Busy,
    /// This part of the file must be read by a thread.
    ToRead(Arc<OpenFile>, u64, usize),
    /// The file has become shorter.
    Cut,
}

impl Sending {
    /// A response whose head is `head`.
    pub(super) fn new(planned: Planned, head: &[u8], about: About) -> Sending {
        let pieces = match planned.body {
            Body::Nothing => VecDeque::new(),
            Body::Part(range) => [Piece::File(range)].into(),
            Body::Parts(pieces) => pieces,
        };
        let head = Some(head.to_vec());
        Sending { about, file: planned.file, head, pieces, seen: 0..0, waits: false }
    }

    /// Sends as much as it can.
    ///
    /// # Errors
    /// When the connection is broken.
    pub(super) fn pump(&mut self, conn: &mut Conn, ws: &mut Workspace) -> io::Result<Pumped> {
        let until = self.about.traffic.body + BUDGET;
        // The client may have paused, and the kernel may need its memory for something else by now.
        self.seen = 0..0;
        loop {
            if !conn.flush(&mut ws.pool)? {
                return Ok(Pumped::Waiting);
            }
            if self.about.traffic.body >= until {
                return Ok(Pumped::Busy);
            }
            if self.head.is_some() {
                if let Some(part) = self.unseen() {
                    return Ok(self.read_later(&part));
                }
                self.send_head(conn, ws)?;
                continue;
            }
            match self.pieces.front_mut() {
                None => return Ok(Pumped::Done),
                Some(Piece::Bytes(bytes)) => {
                    let sent = bytes.len() as u64;
                    conn.send(bytes, &mut ws.pool)?;
                    ws.traffic.sent += sent;
                    self.about.traffic.body += sent;
                    self.pieces.pop_front();
                }
                Some(Piece::File(range)) => {
                    let part = range.clone();
                    if part.is_empty() {
                        self.pieces.pop_front();
                        continue;
                    }
                    if let Some(pumped) = self.send_part(part, conn, ws)? {
                        return Ok(pumped);
                    }
                }
            }
        }
    }

    /// The part of the file that is sent next, if it is not in memory.
    fn unseen(&mut self) -> Option<Range<u64>> {
        let Some(Piece::File(part)) = self.pieces.front() else { return None };
        if !part.is_empty() && !self.seen.contains(&part.start) {
            let end = part.end.min(part.start + WINDOW);
            if !self.file.is_in_memory(part.start, end - part.start) {
                return Some(part.clone());
            }
            self.seen = part.start..end;
        }
        None
    }

    fn send_head(&mut self, conn: &mut Conn, ws: &mut Workspace) -> io::Result<()> {
        let Some(head) = self.head.take() else { return Ok(()) };
        ws.traffic.sent += head.len() as u64;
        match self.pieces.is_empty() {
            true => conn.send(&head, &mut ws.pool)?,
            false => conn.send_more(&head, &mut ws.pool)?,
        };
        Ok(())
    }

    /// Sends the beginning of a part of the file. `None` if more can be sent.
    fn send_part(
        &mut self,
        part: Range<u64>,
        conn: &mut Conn,
        ws: &mut Workspace,
    ) -> io::Result<Option<Pumped>> {
        let sent = if conn.can_splice() {
            if let Some(part) = self.unseen() {
                return Ok(Some(self.read_later(&part)));
            }
            let end = part.end.min(self.seen.end);
            let limit = (end - part.start) as usize;
            match conn.send_file(self.file.source(), part.start, limit)? {
                None => return Ok(Some(Pumped::Waiting)),
                Some(0) => return Ok(Some(Pumped::Cut)),
                Some(sent) => sent as u64,
            }
        } else {
            let length = (part.end - part.start).min(ws.scratch.len() as u64) as usize;
            let bytes = &mut ws.scratch[..length];
            match self.file.read_at_once(bytes, part.start) {
                Read::NotNow => return Ok(Some(self.read_later(&part))),
                Read::Cut => return Ok(Some(Pumped::Cut)),
                Read::Whole => {}
            }
            conn.send(bytes, &mut ws.pool)?;
            length as u64
        };
        ws.traffic.sent += sent;
        self.about.traffic.body += sent;
        if let Some(Piece::File(range)) = self.pieces.front_mut() {
            range.start += sent;
        }
        Ok(None)
    }

    fn read_later(&mut self, part: &Range<u64>) -> Pumped {
        self.waits = true;
        let length = (part.end - part.start).min(READ) as usize;
        Pumped::ToRead(Arc::clone(&self.file), part.start, length)
    }

    /// Takes what a thread has read.
    pub(super) fn take_read(&mut self, bytes: Vec<u8>) {
        self.waits = false;
        if let Some(Piece::File(range)) = self.pieces.front_mut() {
            range.start += bytes.len() as u64;
            self.pieces.push_front(Piece::Bytes(bytes));
        }
    }

    /// Whether nothing has been sent, so that another answer can take its place.
    pub(super) fn is_untouched(&self) -> bool {
        self.head.is_some()
    }
}
