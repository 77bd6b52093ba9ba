//! A socket with what epoll last said of it and what is still to be sent: the part all connections
//! here have in common.

use std::io::{self, ErrorKind, Read};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::output::{Flushed, Output};

/// Bytes read at once by all who read through a [`Wire`]. A receive buffer's worth, so that a body
/// takes few calls.
pub const SCRATCH: usize = 256 * 1024;

/// A non-blocking socket, registered edge-triggered for both directions.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    readable: bool,
    writable: bool,
    read_closed: bool,
    /// What is to be sent.
    pub output: Output,
}

impl Wire {
    /// Takes over a socket and registers it. `connected` is false for one whose connect is still
    /// under way.
    pub fn new(
        mut stream: TcpStream,
        connected: bool,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Wire> {
        // It fails on a Unix socket, which does not delay.
        let _ = stream.set_nodelay(true);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Wire {
            stream,
            readable: false,
            writable: connected,
            read_closed: false,
            output: Output::default(),
        })
    }

    /// Latches what epoll said.
    pub fn latch(&mut self, event: &Event) {
        self.readable |= event.is_readable() || event.is_error();
        self.writable |= event.is_writable();
        self.read_closed |= event.is_read_closed() || event.is_error();
    }

    /// Sends what there is to send, and says whether that was all of it.
    pub fn flush(&mut self) -> io::Result<Flushed> {
        if self.output.is_empty() {
            return Ok(Flushed::All);
        }
        if !self.writable {
            return Ok(Flushed::Blocked);
        }
        let flushed = self.output.flush(&mut self.stream)?;
        self.writable = flushed == Flushed::All;
        Ok(flushed)
    }

    /// Reads once; `None` when there is nothing now, `UnexpectedEof` at the end of the stream.
    pub fn read(&mut self, scratch: &mut [u8]) -> io::Result<Option<usize>> {
        if !self.readable {
            return Ok(None);
        }
        match self.stream.read(scratch) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(got) => {
                // A short read has emptied the socket; only a FIN that came with it gives no
                // further edge.
                self.readable = got == scratch.len() || self.read_closed;
                Ok(Some(got))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
