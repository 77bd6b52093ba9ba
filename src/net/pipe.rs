//! Pipes that carry bodies from socket to socket without copying them through the process.
//!
//! A pipe is borrowed from the worker's pool for one call. It is kept longer only while it holds
//! bytes, or if the call used up its budget. A pipe returned with bytes in it is closed: they
//! belong to one exchange and must not reach another.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};

use super::sys;

/// The capacity requested for a pipe. Larger means fewer system calls per gigabyte, up to the size
/// of a receive buffer. The kernel may grant less (see pipe-user-pages-soft in pipe(7)); nothing
/// here depends on it.
const CAPACITY: usize = 512 * 1024;

/// Most pipes of a worker, two descriptors each. A pipe is lent for longer than a call only to a
/// body whose sink has stalled; when all are lent, bodies are copied.
pub const PIPES: usize = 40;

/// A pipe that counts the bytes in it.
pub struct Pipe {
    reader: PipeReader,
    writer: OwnedFd,
    held: usize,
}

impl Pipe {
    fn new() -> io::Result<Pipe> {
        let (reader, writer) = sys::pipe(CAPACITY)?;
        Ok(Pipe { reader: reader.into(), writer, held: 0 })
    }

    /// How many bytes are in it. This can exceed the capacity that the kernel reports, since a
    /// page of the pipe may carry a larger fragment of a socket's buffer.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Whether it holds its nominal capacity. It may be full before that.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.held >= CAPACITY
    }

    /// Moves up to `limit` bytes from `socket` into the pipe: 0 is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when the socket has nothing *or* the pipe is full: the kernel does not say
    /// which, if the pipe was not empty. Otherwise the socket's own error.
    pub fn fill(&mut self, socket: &impl AsFd, limit: usize) -> io::Result<usize> {
        let count = sys::splice(socket.as_fd(), self.writer.as_fd(), limit.min(CAPACITY))?;
        self.held += count;
        Ok(count)
    }

    /// Moves what the pipe holds into `socket`, as much as it takes.
    ///
    /// # Errors
    /// `WouldBlock` when the socket is full; otherwise the socket's own error.
    pub fn drain(&mut self, socket: &impl AsFd) -> io::Result<usize> {
        let count = sys::splice(self.reader.as_fd(), socket.as_fd(), self.held)?;
        self.held -= count;
        Ok(count)
    }

    /// Reads from the pipe into `into`. Returns how many bytes that was.
    ///
    /// # Errors
    /// As read(2), which has no reason to fail while the pipe holds something.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(into)?;
        self.held -= count;
        Ok(count)
    }
}

/// The idle pipes of one worker.
#[derive(Default)]
pub struct Pipes {
    free: Vec<Pipe>,
    lent: usize,
}

impl Pipes {
    /// An empty pipe; `None` when all are lent or descriptors have run out: the caller then copies
    /// instead.
    pub fn take(&mut self) -> Option<Pipe> {
        let pipe = match self.free.pop() {
            Some(pipe) => pipe,
            None if self.lent < PIPES => Pipe::new().ok()?,
            None => return None,
        };
        self.lent += 1;
        Some(pipe)
    }

    /// How many pipes are lent.
    #[must_use]
    pub fn lent(&self) -> usize {
        self.lent
    }

    /// Takes a pipe back; closes it unless it is empty.
    pub fn put(&mut self, pipe: Pipe) {
        self.lent -= 1;
        if pipe.held == 0 {
            self.free.push(pipe);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn bytes_pass_through_and_are_counted() {
        let (mut from, source) = UnixStream::pair().unwrap();
        let (sink, mut to) = UnixStream::pair().unwrap();
        from.write_all(b"hello").unwrap();
        let mut pipe = Pipes::default().take().unwrap();
        assert_eq!(pipe.fill(&source, 3).unwrap(), 3);
        assert_eq!(pipe.fill(&source, 100).unwrap(), 2);
        assert_eq!(pipe.held(), 5);
        assert_eq!(pipe.drain(&sink).unwrap(), 5);
        let mut got = [0; 5];
        to.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
    }

    #[test]
    fn no_more_pipes_are_lent_than_there_are() {
        let mut pipes = Pipes::default();
        let lent: Vec<Pipe> = std::iter::from_fn(|| pipes.take()).collect();
        assert_eq!(lent.len(), PIPES);
        lent.into_iter().for_each(|pipe| pipes.put(pipe));
        assert!(pipes.take().is_some());
    }

    #[test]
    fn a_pipe_with_bytes_in_it_is_never_lent_again() {
        let (mut from, source) = UnixStream::pair().unwrap();
        from.write_all(b"secret").unwrap();
        let mut pipes = Pipes::default();
        let mut pipe = pipes.take().unwrap();
        pipe.fill(&source, 6).unwrap();
        pipes.put(pipe);
        assert!(pipes.free.is_empty());
        let empty = pipes.take().unwrap();
        pipes.put(empty);
        assert_eq!(pipes.free.len(), 1);
    }
}
