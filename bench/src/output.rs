//! Bytes on their way to a socket, described rather than copied.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::rc::Rc;

/// Slices given to one writev. Enough for 16 KiB chunks to fill a socket's buffer; far below
/// IOV_MAX (1024).
const SLICES: usize = 64;

/// A stretch of shared bytes, to be sent one or more times in a row.
#[derive(Clone, Debug)]
pub struct Piece {
    bytes: Rc<[u8]>,
    len: usize,
    times: u64,
}

impl Piece {
    /// All of `bytes`, once.
    pub fn once(bytes: Rc<[u8]>) -> Piece {
        Piece { len: bytes.len(), bytes, times: 1 }
    }

    /// The first `len` of `bytes`, once; all of them if there are fewer.
    pub fn first(bytes: Rc<[u8]>, len: usize) -> Piece {
        Piece { len: len.min(bytes.len()), bytes, times: 1 }
    }

    /// All of `bytes`, `times` times over.
    pub fn repeated(bytes: Rc<[u8]>, times: u64) -> Piece {
        Piece { len: bytes.len(), bytes, times }
    }
}

/// What became of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing is left.
    All,
    /// The socket took no more; a writable edge will come.
    Blocked,
}

/// A queue of pieces. Empty, it owns at most the memory of its few slots.
#[derive(Debug, Default)]
pub struct Output {
    pieces: VecDeque<Piece>,
    /// Bytes of the front piece's current repetition that have been written; below its `len`.
    written: usize,
    /// Bytes written since the start, of all pieces.
    total: u64,
}

impl Output {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes written since the start.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Adds a piece behind the others. An empty one is left out.
    pub fn push(&mut self, piece: Piece) {
        if piece.len > 0 && piece.times > 0 {
            self.pieces.push_back(piece);
        }
    }

    /// Writes until everything is out or the socket is full. Other errors are passed on.
    pub fn flush(&mut self, to: &mut impl Write) -> io::Result<Flushed> {
        while let Some(front) = self.pieces.front() {
            let wrote = if self.pieces.len() == 1 && front.times == 1 {
                to.write(&front.bytes[self.written..front.len])
            } else {
                self.write_slices(to)
            };
            match wrote {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(wrote) => self.consume(wrote),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Flushed::Blocked),
                Err(error) => return Err(error),
            }
        }
        Ok(Flushed::All)
    }

    fn write_slices(&self, to: &mut impl Write) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut used = 0;
        let mut skip = self.written;
        'pieces: for piece in &self.pieces {
            for _ in 0..piece.times {
                if used == SLICES {
                    break 'pieces;
                }
                slices[used] = IoSlice::new(&piece.bytes[skip..piece.len]);
                used += 1;
                skip = 0;
            }
        }
        to.write_vectored(&slices[..used])
    }

    fn consume(&mut self, mut wrote: usize) {
        self.total += wrote as u64;
        while let Some(front) = self.pieces.front_mut() {
            let left = front.len - self.written;
            if wrote < left {
                self.written += wrote;
                return;
            }
            wrote -= left;
            self.written = 0;
            front.times -= 1;
            if front.times == 0 {
                self.pieces.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `step` bytes a call and says WouldBlock before each but the first.
    struct Narrow {
        got: Vec<u8>,
        step: usize,
        open: bool,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.open = !self.open;
            if !self.open {
                return Err(ErrorKind::WouldBlock.into());
            }
            let taken = bytes.len().min(self.step);
            self.got.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_byte_comes_once_and_in_order_however_little_is_taken() {
        for step in 1..20 {
            let mut output = Output::default();
            output.push(Piece::first(Rc::from(&b"head and more"[..]), 4));
            output.push(Piece::repeated(Rc::from(&b"abc"[..]), 3));
            output.push(Piece::repeated(Rc::from(&b"never"[..]), 0));
            output.push(Piece::once(Rc::from(&b"."[..])));
            let mut socket = Narrow { got: Vec::new(), step, open: false };
            let mut blocked = 0;
            while output.flush(&mut socket).unwrap() == Flushed::Blocked {
                blocked += 1;
                assert!(blocked < 20, "step {step}");
            }
            assert_eq!(socket.got, b"headabcabcabc.", "step {step}");
            assert!(output.is_empty());
        }
    }
}
