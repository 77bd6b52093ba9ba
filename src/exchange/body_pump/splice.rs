//! Bytes that pass through a pipe, without being copied into the process.
//!
//! A body of known length, or of none, is a run of bytes that nobody has to look at. A chunked one
//! has its size lines in between, and they go through the pipe too: a look at the socket
//! (`MSG_PEEK`) shows the next line while it is still there, so the decoder knows how far it may
//! let the bytes pass, and line and data take one splice. Several chunks come together in the pipe
//! before it is emptied into the sink.

use crate::http::chunked::Piece;
use crate::net::conn::{Conn, Received};
use crate::net::pipe::Pipe;

use super::super::Workspace;
use super::{Body, BodyPump, Broken, Copying, Form, TRICKLE};

/// How many bytes are looked at between two chunks: the end of one and the size line of the next,
/// with room for an extension such as a signature. A longer line is copied.
const SIZE_LINE: usize = 256;

impl BodyPump {
    /// Whether the next bytes are to be spliced, under a `splice-threshold` of so many bytes.
    pub(super) fn is_worth_splicing(&self, threshold: u64) -> bool {
        match &self.body {
            _ if self.copying == Copying::WhileTrickling => false,
            Body::Length(left) => *left >= threshold,
            // The rest of a large chunk goes the same way, and the next is likely to be as large.
            Body::Chunked { decoder, .. } => {
                decoder.chunk() >= threshold && self.copying != Copying::OnceMore
            }
            Body::UntilClose { .. } => true,
        }
    }

    /// Sees that there is a pipe; false when none can be had now.
    pub(super) fn borrow_pipe(&mut self, ws: &mut Workspace) -> bool {
        if self.pipe.is_none() {
            self.pipe = ws.pipes.take();
        }
        self.pipe.is_some()
    }

    /// Moves up to `budget` bytes into the pipe, and from there into the sink; of chunks those of
    /// at least `threshold` bytes.
    pub(super) fn splice(
        &mut self,
        from: &mut Conn,
        to: &mut Conn,
        (budget, threshold): (usize, u64),
        ws: &mut Workspace,
    ) -> Result<Received, Broken> {
        let Some(mut pipe) = self.pipe.take() else {
            return Ok(Received::Nothing);
        };
        let before = self.moved;
        let received = match self.body {
            Body::Chunked { .. } => self.fill_with_chunks(from, &mut pipe, (budget, threshold)),
            Body::Length(_) | Body::UntilClose { .. } => self.fill(from, &mut pipe, budget),
        };
        let sent = to.send_from(&mut pipe);
        self.pipe = Some(pipe);
        if matches!(received, Ok(Received::Bytes(_))) && self.moved == before {
            // What is there is not worth it.
            self.copying = Copying::OnceMore;
            self.return_pipe(&mut ws.pipes);
        }
        sent.map_err(Broken::Sink)?;
        received
    }

    /// Fills the pipe once from a body in which nothing has to be looked at.
    fn fill(
        &mut self,
        from: &mut Conn,
        pipe: &mut Pipe,
        budget: usize,
    ) -> Result<Received, Broken> {
        let limit = match self.body {
            Body::Length(left) => usize::try_from(left).unwrap_or(usize::MAX).min(budget),
            Body::Chunked { .. } | Body::UntilClose { .. } => budget,
        };
        let received = from.receive_into(pipe, limit);
        if let Received::Bytes(count) = received {
            self.moved += count as u64;
            match &mut self.body {
                Body::Length(left) => *left -= count as u64,
                Body::UntilClose { .. } if count < TRICKLE => {
                    self.copying = Copying::WhileTrickling;
                }
                Body::UntilClose { .. } | Body::Chunked { .. } => {}
            }
        }
        Ok(received)
    }

    /// Fills the pipe with chunks, line and data, until it is full, the socket is empty, or
    /// something comes that is not worth it.
    fn fill_with_chunks(
        &mut self,
        from: &mut Conn,
        pipe: &mut Pipe,
        (budget, threshold): (usize, u64),
    ) -> Result<Received, Broken> {
        let Body::Chunked { decoder, .. } = &mut self.body else {
            return Ok(Received::Nothing);
        };
        let mut seen = [0; SIZE_LINE];
        let mut total = 0;
        while total < budget && !pipe.is_full() {
            let mut line = 0;
            let mut after = *decoder;
            if decoder.data_left() == 0 {
                if self.form == Form::DataOnly {
                    break;
                }
                let there = match from.look(&mut seen) {
                    Received::Bytes(there) => there,
                    // What has come is passed on first; the next call finds the same again.
                    Received::Nothing | Received::End if total > 0 => break,
                    other => return Ok(other),
                };
                let ahead = after.next(&seen[..there]);
                match ahead.map_err(|bad| Broken::Malformed(bad.reason))? {
                    Some(Piece::Framing(bytes)) if after.data_left() >= threshold => line = bytes,
                    // A small chunk, the end, or a line that is not whole yet.
                    _ => break,
                }
            }
            let data = usize::try_from(after.data_left()).unwrap_or(usize::MAX - line);
            let limit = (line + data).min(budget - total);
            let count = match from.receive_into(pipe, limit) {
                // Of a pipe that is not empty the kernel does not say whether it is full or the
                // socket is empty.
                Received::Bytes(0) => break,
                Received::Bytes(count) => count,
                Received::Nothing | Received::End if total > 0 => break,
                other => return Ok(other),
            };
            decoder.scan(&seen[..line.min(count)]).map_err(|bad| Broken::Malformed(bad.reason))?;
            decoder.skip(count.saturating_sub(line) as u64);
            total += count;
            if count < limit {
                // Either of the two again; a call to find out would be wasted.
                break;
            }
        }
        self.moved += total as u64;
        Ok(Received::Bytes(total))
    }
}
