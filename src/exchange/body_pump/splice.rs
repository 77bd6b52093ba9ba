//! Bodies that pass through a pipe without being copied into the process.
//!
//! A body with a length, or one that ends with its connection, need not be parsed. A chunked body
//! has size lines between its data, and they go through the pipe too: `MSG_PEEK` shows the next
//! line while it is still in the socket, so the decoder knows how many bytes may pass, and line and
//! data take one splice. Several chunks gather in the pipe before it is drained into the sink.

use crate::http::chunked::Piece;
use crate::net::conn::{Conn, Received};
use crate::net::pipe::Pipe;
use crate::net::workspace::Workspace;

use super::{Body, BodyPump, Broken, Copying, Form, TRICKLE};

/// How many bytes are peeked at between two chunks: the end of one and the size line of the next,
/// with room for an extension such as a signature. A chunk with a longer line is copied.
const SIZE_LINE: usize = 256;

impl BodyPump {
    /// Whether the next bytes should be spliced; `threshold` is `splice-threshold`, in bytes.
    pub(super) fn is_worth_splicing(&self, threshold: u64) -> bool {
        match &self.body {
            _ if self.copying == Copying::WhileTrickling => false,
            Body::Length(left) => *left >= threshold,
            // The rest of a large chunk is spliced too: the next chunk is likely to be as large.
            Body::Chunked { decoder, .. } => {
                decoder.chunk() >= threshold && self.copying != Copying::OnceMore
            }
            Body::UntilClose { .. } => true,
        }
    }

    /// The pipe already borrowed, or a new one; `None` when none is available.
    pub(super) fn take_pipe(&mut self, ws: &mut Workspace) -> Option<Pipe> {
        self.pipe.take().or_else(|| ws.pipes.take())
    }

    /// Moves up to `budget` bytes into the pipe, and from there into the sink. Of a chunked body it
    /// moves chunks of at least `threshold` bytes.
    pub(super) fn splice(
        &mut self,
        mut pipe: Pipe,
        from: &mut Conn,
        to: &mut Conn,
        budget: usize,
        threshold: u64,
        ws: &mut Workspace,
    ) -> Result<Received, Broken> {
        let before = self.moved;
        let received = match self.body {
            Body::Chunked { .. } => self.fill_with_chunks(from, &mut pipe, budget, threshold),
            Body::Length(_) | Body::UntilClose { .. } => self.fill(from, &mut pipe, budget),
        };
        let sent = to.send_from(&mut pipe);
        self.pipe = Some(pipe);
        if matches!(received, Ok(Received::Bytes(_))) && self.moved == before {
            // What the socket holds is not worth splicing.
            self.copying = Copying::OnceMore;
            self.return_pipe(&mut ws.pipes);
        }
        sent.map_err(Broken::Sink)?;
        received
    }

    /// Fills the pipe once from a body without chunks.
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

    /// Fills the pipe with chunks, line and data, until it is full, the socket is empty, or what
    /// follows is not worth splicing.
    fn fill_with_chunks(
        &mut self,
        from: &mut Conn,
        pipe: &mut Pipe,
        budget: usize,
        threshold: u64,
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
                    // First pass on what has come; the next call finds the same again.
                    Received::Nothing | Received::End if total > 0 => break,
                    other => return Ok(other),
                };
                let ahead = after.next(&seen[..there]);
                match ahead.map_err(|bad| Broken::Malformed(bad.reason))? {
                    Some(Piece::Framing(bytes)) if after.data_left() >= threshold => line = bytes,
                    // A small chunk, the last one, or a line that is not whole yet.
                    _ => break,
                }
            }
            let data = usize::try_from(after.data_left()).unwrap_or(usize::MAX - line);
            let limit = (line + data).min(budget - total);
            let count = match from.receive_into(pipe, limit) {
                // The pipe is full or the socket is empty; if the pipe holds something, the kernel
                // does not tell which.
                Received::Bytes(0) => break,
                Received::Bytes(count) => count,
                Received::Nothing | Received::End if total > 0 => break,
                other => return Ok(other),
            };
            decoder.scan(&seen[..line.min(count)]).map_err(|bad| Broken::Malformed(bad.reason))?;
            decoder.skip(count.saturating_sub(line) as u64);
            total += count;
            if count < limit {
                // Another call would only find the same.
                break;
            }
        }
        self.moved += total as u64;
        Ok(Received::Bytes(total))
    }
}
