//! One direction of an exchange: bytes from a source to a sink, framed.

use std::io;

use crate::http::Framing;
use crate::http::chunked::{Decoder, Piece};
use crate::net::conn::{Conn, Received};
use crate::net::pipe::Pipe;

use super::Workspace;

mod splice;

/// How many bytes one flow may move before the others get their turn. A mebibyte takes some
/// hundred microseconds to move, which is what another connection may be made to wait.
const BUDGET: usize = 1024 * 1024;

/// A stream of unknown length of which less than this comes at a time is copied.
const TRICKLE: usize = 16 * 1024;

/// How the end of a body is known (RFC 9112, 6.3).
#[derive(Debug)]
enum Body {
    /// This many bytes are still to come.
    Length(u64),
    /// Chunks; the decoder knows where in them we are.
    Chunked { decoder: Decoder, done: bool },
    /// Everything until the source closes: an HTTP/1.0 response, or a tunnel.
    UntilClose { done: bool },
}

/// What the sink gets of a chunked body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// The bytes as they came, framing and all.
    AsFramed,
    /// The data alone, for a sink that cannot read chunks.
    DataOnly,
}

/// One direction of an exchange.
pub struct BodyPump {
    body: Body,
    form: Form,
    /// Borrowed while bytes are in it; otherwise in the worker's pool.
    pipe: Option<Pipe>,
    copying: Copying,
    moved: u64,
}

/// Cause the next bytes are copied rather than spliced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Copying {
    /// They need not be: they are spliced if there are enough of them.
    IfFew,
    /// The length is not known and little comes at a time (a WebSocket, say): one read and one
    /// write move that with fewer system calls than a pipe does.
    WhileTrickling,
    /// What comes after a large chunk has been looked at, and is not to be spliced.
    OnceMore,
}

/// How a call of [`BodyPump::pump`] ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pumped {
    /// The whole body has been given to the sink (some of it may stand in the sink's output).
    Done,
    /// An event of one of the two sockets must come first.
    Waiting,
    /// The budget is used up; there is more to do right now.
    Busy,
}

/// Which end of a flow failed, and how.
#[derive(Debug)]
pub enum Broken {
    /// The source closed before the end of the body.
    Truncated,
    /// The source's connection broke.
    Source(io::Error),
    /// The source's bytes are no valid body.
    Malformed(&'static str),
    /// The sink's connection broke.
    Sink(io::Error),
}

/// The part of the source's input that has been sent already and is kept, in bytes, so that it
/// can be sent again; `None` when nothing is kept and input is consumed as it is sent.
pub type Held = Option<usize>;

impl BodyPump {
    /// A flow for a body framed so; `None` when there is no body.
    #[must_use]
    pub fn new(framing: Framing, form: Form) -> Option<BodyPump> {
        let body = match framing {
            Framing::None | Framing::Length(0) => return None,
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked { decoder: Decoder::default(), done: false },
            Framing::UntilClose => return Some(BodyPump::tunnel()),
        };
        Some(BodyPump { body, form, pipe: None, copying: Copying::IfFew, moved: 0 })
    }

    /// A flow for one direction of a tunnel.
    #[must_use]
    pub fn tunnel() -> BodyPump {
        BodyPump {
            body: Body::UntilClose { done: false },
            form: Form::AsFramed,
            pipe: None,
            copying: Copying::WhileTrickling,
            moved: 0,
        }
    }

    /// Whether the end of the body has passed through.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match self.body {
            Body::Length(left) => left == 0,
            Body::Chunked { done, .. } | Body::UntilClose { done } => done,
        }
    }

    /// How many bytes have been taken from the source.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// Takes what belongs to this body from the front of `bytes`, appends what the sink is to
    /// get to `out` when that is not simply the same bytes, and returns how many were taken.
    ///
    /// # Errors
    /// When the bytes are not a valid body, with the reason.
    pub fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, &'static str> {
        let taken = match &mut self.body {
            Body::Length(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                taken
            }
            Body::Chunked { decoder, done } if self.form == Form::AsFramed => {
                let (taken, ended) = decoder.scan(bytes).map_err(|bad| bad.reason)?;
                *done = ended;
                taken
            }
            Body::Chunked { decoder, done } => decode(decoder, done, bytes, out)?,
            Body::UntilClose { .. } => bytes.len(),
        };
        self.moved += taken as u64;
        Ok(taken)
    }

    /// Whether the sink gets other bytes than the source sent.
    #[must_use]
    pub fn rewrites(&self) -> bool {
        self.form == Form::DataOnly && matches!(self.body, Body::Chunked { .. })
    }

    /// Moves bytes until the body ends, a socket blocks, or the budget is used up.
    ///
    /// # Errors
    /// As [`Broken`]; the flow must not be used again.
    pub fn pump(
        &mut self,
        from: &mut Conn,
        to: &mut Conn,
        held: &mut Held,
        ws: &mut Workspace,
        config: &super::ExchangeConfig,
    ) -> Result<Pumped, Broken> {
        let mut budget = BUDGET;
        loop {
            if !self.drain(to, ws)? {
                return Ok(Pumped::Waiting);
            }
            if self.is_done() {
                self.give_back(ws);
                return Ok(Pumped::Done);
            }
            if from.input.len() > held.unwrap_or(0) {
                self.pass_input(from, to, held, ws)?;
                continue;
            }
            if budget == 0 {
                return Ok(Pumped::Busy);
            }
            let before = self.moved;
            let much = held.is_none() && self.is_worth_splicing(config.splice_threshold);
            let received = if much && self.borrow_pipe(ws) {
                self.splice(from, to, (budget, config.splice_threshold), ws)?
            } else {
                self.copy(from, to, held, ws, config)?
            };
            match received {
                Received::Bytes(_) => {}
                Received::Nothing => {
                    self.give_back(ws);
                    return Ok(Pumped::Waiting);
                }
                Received::End => self.source_ended()?,
                Received::Broken(error) => return Err(Broken::Source(error)),
            }
            budget = budget.saturating_sub((self.moved - before) as usize);
        }
    }

    /// Sends what is already on its way. True when the sink can take more.
    fn drain(&mut self, to: &mut Conn, ws: &mut Workspace) -> Result<bool, Broken> {
        if !to.flush(&mut ws.pool).map_err(Broken::Sink)? {
            // The last bytes of a body may stay with the sink: the source is free without them.
            return Ok(self.is_done() && self.pipe.is_none());
        }
        match &mut self.pipe {
            Some(pipe) => to.send_from(pipe).map_err(Broken::Sink),
            None => Ok(true),
        }
    }

    /// How many bytes stand in its pipe, which the sink has not taken.
    #[must_use]
    pub fn piped(&self) -> usize {
        self.pipe.as_ref().map_or(0, Pipe::held)
    }

    /// Gives the borrowed pipe back; one with bytes in it is closed.
    pub fn give_back(&mut self, ws: &mut Workspace) {
        if let Some(pipe) = self.pipe.take() {
            ws.pipes.put(pipe);
        }
    }

    /// Passes on what stands in the source's input beyond what is held.
    fn pass_input(
        &mut self,
        from: &mut Conn,
        to: &mut Conn,
        held: &mut Held,
        ws: &mut Workspace,
    ) -> Result<(), Broken> {
        ws.out.clear();
        let bytes = &from.input.bytes()[held.unwrap_or(0)..];
        let taken = self.take(bytes, &mut ws.out).map_err(Broken::Malformed)?;
        let sent = if self.rewrites() { ws.out.as_slice() } else { &bytes[..taken] };
        to.send(sent, &mut ws.pool).map_err(Broken::Sink)?;
        match held {
            Some(count) => *count += taken,
            None => from.input.consume(taken, &mut ws.pool),
        }
        Ok(())
    }

    /// Reads into the scratch buffer and sends from there.
    fn copy(
        &mut self,
        from: &mut Conn,
        to: &mut Conn,
        held: &mut Held,
        ws: &mut Workspace,
        config: &super::ExchangeConfig,
    ) -> Result<Received, Broken> {
        let received = from.receive(&mut ws.scratch);
        let Received::Bytes(count) = received else {
            return Ok(received);
        };
        match self.copying {
            Copying::WhileTrickling if count < ws.scratch.len() => {}
            _ => self.copying = Copying::IfFew,
        }
        if held.is_some() {
            from.input.push(&ws.scratch[..count], &mut ws.pool);
            release_beyond(held, from, config.retry_limit, ws);
            return Ok(received);
        }
        ws.out.clear();
        let bytes = &ws.scratch[..count];
        let taken = self.take(bytes, &mut ws.out).map_err(Broken::Malformed)?;
        let bytes_out = if self.rewrites() { ws.out.as_slice() } else { &bytes[..taken] };
        to.send(bytes_out, &mut ws.pool).map_err(Broken::Sink)?;
        from.input.push(&bytes[taken..], &mut ws.pool);
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
) -> Result<usize, &'static str> {
    let mut taken = 0;
    while let Some(piece) = decoder.next(&bytes[taken..]).map_err(|bad| bad.reason)? {
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

/// Stops keeping a request that has become too large to be kept.
fn release_beyond(held: &mut Held, from: &mut Conn, limit: usize, ws: &mut Workspace) {
    if from.input.len() > limit
        && let Some(sent) = held.take()
    {
        from.input.consume(sent, &mut ws.pool);
    }
}
