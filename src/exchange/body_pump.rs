//! One direction of an exchange: the bytes of a body, moved from a source to a sink.

use std::io;

use crate::http::chunked::{Decoder, Piece};
use crate::http::{Framing, ParseError};
use crate::net::buffer::Pool;
use crate::net::conn::{Conn, Received};
use crate::net::pipe::{Pipe, Pipes};
use crate::net::workspace::Workspace;

use super::error::{Failure, Side};
use super::replay::Replay;

mod splice;

/// A stream of unknown length that yields fewer bytes than this per read is copied.
const TRICKLE: usize = 16 * 1024;

/// How the end of a body is known (RFC 9112 section 6.3).
#[derive(Debug)]
enum Body {
    /// This many bytes are still to come.
    Length(u64),
    /// Chunks. The decoder keeps the position in them.
    Chunked { decoder: Decoder, done: bool },
    /// Everything until the source closes: a response without a length, or a tunnel.
    UntilClose { done: bool },
}

/// What the sink gets of a chunked body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// The bytes as they came, framing included.
    AsFramed,
    /// The data alone, for a sink that cannot read chunks.
    DataOnly,
}

/// Moves one body.
pub struct BodyPump {
    body: Body,
    form: Form,
    /// Borrowed from the worker's pool while bytes are in it.
    pipe: Option<Pipe>,
    copying: Copying,
    /// The source has been told at once that its first bytes have come.
    acknowledged: bool,
    moved: u64,
}

/// When the next bytes are copied although they could be spliced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Copying {
    /// Only if there are few of them.
    IfFew,
    /// The length is unknown and each read yields little (as in a WebSocket): a read and a write
    /// take fewer system calls than a pipe.
    WhileTrickling,
    /// The bytes after a large chunk have been peeked at, and are not worth splicing.
    OnceMore,
}

/// How a call of [`BodyPump::pump`] ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pumped {
    /// The whole body has been given to the sink (some of it may be in the sink's output).
    Done,
    /// Blocked on an event of one of the two sockets.
    Waiting,
    /// The budget is used up; there is more to do right now.
    Busy,
}

/// What a pump may do.
#[derive(Clone, Copy, Debug)]
pub(super) struct PumpBounds {
    /// How many bytes may be moved before other connections run.
    pub budget: usize,
    /// A body is spliced when at least this many bytes are still to come.
    pub splice_threshold: u64,
    /// How many bytes are read ahead into the output of a sink that does not keep up; 0 for none.
    pub ahead: usize,
    /// Only what has been taken already is passed on.
    pub rests: bool,
}

/// Which end of a pump failed, and how.
#[derive(Debug)]
pub(super) enum Broken {
    /// The source closed before the end of the body.
    Truncated,
    /// The source's connection broke.
    Source(io::Error),
    /// The source's bytes are not a valid body.
    Malformed(&'static str),
    /// The sink's connection broke.
    Sink(io::Error),
}

impl Broken {
    /// Blames the failure on `source`, or on the other side.
    pub fn blame(self, source: Side) -> Failure {
        match self {
            Broken::Truncated => source.closed(),
            Broken::Source(error) => source.lost(error),
            Broken::Malformed(reason) => source.malformed(reason),
            Broken::Sink(error) => source.other().lost(error),
        }
    }
}

impl BodyPump {
    /// A pump for a body with this framing; `None` when there is no body.
    #[must_use]
    pub fn new(framing: Framing, form: Form) -> Option<BodyPump> {
        let body = match framing {
            Framing::None | Framing::Length(0) => return None,
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked { decoder: Decoder::default(), done: false },
            Framing::UntilClose => return Some(BodyPump::tunnel()),
        };
        let copying = Copying::IfFew;
        Some(BodyPump { body, form, pipe: None, copying, acknowledged: false, moved: 0 })
    }

    /// A pump for everything until the source closes.
    pub(super) fn tunnel() -> BodyPump {
        BodyPump::tunnel_after(0)
    }

    /// The same where so many bytes have been taken before.
    pub(super) fn tunnel_after(moved: u64) -> BodyPump {
        BodyPump {
            body: Body::UntilClose { done: false },
            form: Form::AsFramed,
            pipe: None,
            copying: Copying::WhileTrickling,
            acknowledged: false,
            moved,
        }
    }

    /// Whether the end of the body has been taken from the source.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match self.body {
            Body::Length(left) => left == 0,
            Body::Chunked { done, .. } | Body::UntilClose { done } => done,
        }
    }

    /// Whether the length of the body was known from the start.
    #[must_use]
    pub fn has_length(&self) -> bool {
        matches!(self.body, Body::Length(_))
    }

    /// How many bytes have been taken from the source.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// Takes the bytes of this body at the front of `bytes` and returns how many they are. If the
    /// sink gets different bytes, appends those to `out`.
    ///
    /// # Errors
    /// When the bytes are not a valid body.
    pub fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, ParseError> {
        let taken = match &mut self.body {
            Body::Length(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                taken
            }
            Body::Chunked { decoder, done } if self.form == Form::AsFramed => {
                let (taken, ended) = decoder.scan(bytes)?;
                *done = ended;
                taken
            }
            Body::Chunked { decoder, done } => decode(decoder, done, bytes, out)?,
            Body::UntilClose { .. } => bytes.len(),
        };
        self.moved += taken as u64;
        Ok(taken)
    }

    /// Whether the sink gets different bytes from those the source sent.
    fn rewrites(&self) -> bool {
        self.form == Form::DataOnly && matches!(self.body, Body::Chunked { .. })
    }

    /// Moves bytes until the body ends, a socket blocks, or the budget is used up.
    ///
    /// # Errors
    /// See [`Broken`]; the pump must not be used again, and still has its pipe.
    pub(super) fn pump(
        &mut self,
        from: &mut Conn,
        to: &mut Conn,
        replay: &mut Replay,
        ws: &mut Workspace,
        PumpBounds { mut budget, splice_threshold, ahead, rests }: PumpBounds,
    ) -> Result<Pumped, Broken> {
        loop {
            if !self.drain(to, ahead, ws)? {
                return Ok(Pumped::Waiting);
            }
            if self.is_done() {
                self.return_pipe(&mut ws.pipes);
                return Ok(Pumped::Done);
            }
            let offset = replay.offset();
            if from.input.len() > offset {
                let bytes = &from.input.bytes()[offset..];
                let taken = self.forward(bytes, to, &mut ws.out, &mut ws.pool)?;
                replay.advance(taken, from, &mut ws.pool);
                continue;
            }
            if rests {
                self.return_pipe(&mut ws.pipes);
                return Ok(Pumped::Waiting);
            }
            if budget == 0 {
                return Ok(Pumped::Busy);
            }
            let before = self.moved;
            let is_slow = !to.output.is_empty();
            let large = !replay.is_kept()
                && !is_slow
                && from.can_splice()
                && to.can_splice()
                && self.is_worth_splicing(splice_threshold);
            let received = if large && let Some(pipe) = self.take_pipe(ws) {
                self.splice(pipe, from, to, budget, splice_threshold, ws)?
            } else {
                let most = if is_slow { ahead - to.output.len() } else { budget };
                self.copy(from, to, replay, most, ws)?
            };
            match received {
                Received::Bytes(_) => {}
                Received::Nothing => {
                    self.return_pipe(&mut ws.pipes);
                    if !std::mem::replace(&mut self.acknowledged, true) {
                        from.acknowledge_now();
                    }
                    return Ok(Pumped::Waiting);
                }
                Received::End => self.source_ended()?,
                Received::Broken(error) => return Err(Broken::Source(error)),
            }
            budget = budget.saturating_sub((self.moved - before) as usize);
        }
    }

    /// Sends what is already on its way. True when the sink can take more, or its output can: up to
    /// `ahead` bytes, if what is to come may fit.
    fn drain(&mut self, to: &mut Conn, ahead: usize, ws: &mut Workspace) -> Result<bool, Broken> {
        if to.flush(&mut ws.pool).map_err(Broken::Sink)? {
            let sent = self.pipe.as_mut().map_or(Ok(true), |pipe| to.send_from(pipe));
            if sent.map_err(Broken::Sink)? {
                return Ok(true);
            }
        }
        // Bytes leave the pipe only if the rest of the body is known to fit as well. Otherwise they
        // would be copied each time a large body waits for its sink.
        if self.pipe.is_some() && (self.is_done() || self.has_length()) && self.fits(to, ahead) {
            self.empty_pipe(to, ws)?;
        }
        // The last bytes of a body may stay in the sink's output; the source is free by then.
        Ok(self.pipe.is_none() && (self.is_done() || self.fits(to, ahead)))
    }

    /// Whether what is on its way to a slow sink and what is to come may fit into `ahead` bytes.
    fn fits(&self, to: &Conn, ahead: usize) -> bool {
        let waiting = to.output.len() + self.piped();
        match self.body {
            Body::Length(left) => left.saturating_add(waiting as u64) <= ahead as u64,
            Body::Chunked { .. } | Body::UntilClose { .. } => waiting < ahead,
        }
    }

    /// Moves what the pipe holds into the sink's output, and returns the pipe.
    fn empty_pipe(&mut self, to: &mut Conn, ws: &mut Workspace) -> Result<(), Broken> {
        if let Some(pipe) = &mut self.pipe {
            while pipe.held() > 0 {
                let count = pipe.read(&mut ws.scratch).map_err(Broken::Source)?;
                to.queue(&ws.scratch[..count], &mut ws.pool).map_err(Broken::Sink)?;
            }
        }
        self.return_pipe(&mut ws.pipes);
        Ok(())
    }

    /// How many bytes are in its pipe.
    #[must_use]
    pub(super) fn piped(&self) -> usize {
        self.pipe.as_ref().map_or(0, Pipe::held)
    }

    /// Returns the borrowed pipe; one with bytes in it is closed.
    pub(super) fn return_pipe(&mut self, pipes: &mut Pipes) {
        if let Some(pipe) = self.pipe.take() {
            pipes.put(pipe);
        }
    }

    /// Sends what belongs to the body at the front of `bytes`. Returns how many bytes that was.
    fn forward(
        &mut self,
        bytes: &[u8],
        to: &mut Conn,
        out: &mut Vec<u8>,
        pool: &mut Pool,
    ) -> Result<usize, Broken> {
        out.clear();
        let taken = self.take(bytes, out).map_err(|bad| Broken::Malformed(bad.reason))?;
        let sent = if self.rewrites() { out.as_slice() } else { &bytes[..taken] };
        to.send(sent, pool).map_err(Broken::Sink)?;
        Ok(taken)
    }

    /// Reads up to `most` bytes into the scratch buffer and sends from there, or into the replay
    /// buffer.
    fn copy(
        &mut self,
        from: &mut Conn,
        to: &mut Conn,
        replay: &mut Replay,
        most: usize,
        ws: &mut Workspace,
    ) -> Result<Received, Broken> {
        let most = most.min(ws.scratch.len());
        let received = from.receive(&mut ws.scratch[..most]);
        let Received::Bytes(count) = received else {
            return Ok(received);
        };
        match self.copying {
            Copying::WhileTrickling if count < ws.scratch.len() => {}
            _ => self.copying = Copying::IfFew,
        }
        let bytes = &ws.scratch[..count];
        if replay.is_kept() {
            from.input.push(bytes, &mut ws.pool);
            replay.trim(from, &mut ws.pool);
        } else {
            let taken = self.forward(bytes, to, &mut ws.out, &mut ws.pool)?;
            from.input.push(&bytes[taken..], &mut ws.pool);
        }
        Ok(received)
    }

    fn source_ended(&mut self) -> Result<(), Broken> {
        match &mut self.body {
            Body::UntilClose { done } => {
                *done = true;
                Ok(())
            }
            Body::Length(_) | Body::Chunked { .. } => Err(Broken::Truncated),
        }
    }
}

/// Appends the data of the chunks in `bytes` to `out`; returns how many bytes were taken.
fn decode(
    decoder: &mut Decoder,
    done: &mut bool,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<usize, ParseError> {
    let mut taken = 0;
    while let Some(piece) = decoder.next(&bytes[taken..])? {
        match piece {
            Piece::Framing(count) => taken += count,
            Piece::Data(count) => {
                out.extend_from_slice(&bytes[taken..taken + count]);
                taken += count;
            }
            Piece::End(count) => {
                *done = true;
                return Ok(taken + count);
            }
        }
    }
    Ok(taken)
}
