//! The floor for large bodies: a relay that moves pages from socket to socket through a pipe, with
//! no HTTP in it.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

use cloudbridge_bench::options;
use cloudbridge_bench::relay::{self, Direction, Side};
use cloudbridge_bench::sys::{self, Pipe};

/// Most bytes asked of one splice. More than a pipe of default size can take even with 32 KiB in
/// each of its slots.
const MOST: usize = 1 << 20;

struct Splice {
    pipe: Pipe,
    /// Bytes in the pipe.
    held: usize,
}

/// The capacity pipes are opened with, in bytes; `None` for the kernel's default.
struct Capacity(Option<i32>);

impl Direction for Splice {
    type Shared = Capacity;

    fn open(capacity: &mut Capacity) -> io::Result<Splice> {
        Ok(Splice { pipe: Pipe::open(capacity.0)?, held: 0 })
    }

    fn pump(&mut self, _: &mut Capacity, from: &mut Side, to: &mut Side) -> io::Result<bool> {
        loop {
            while self.held > 0 {
                if !to.writable {
                    return Ok(false);
                }
                match sys::splice(self.pipe.output.as_fd(), to.stream.as_fd(), self.held) {
                    Ok(sent) => self.held -= sent,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => to.writable = false,
                    Err(error) => return Err(error),
                }
            }
            if !from.readable {
                return Ok(false);
            }
            // The pipe is empty, so WouldBlock can only mean that the socket is.
            match sys::splice(from.stream.as_fd(), self.pipe.input.as_fd(), MOST) {
                Ok(0) => return Ok(true),
                Ok(got) => self.held = got,
                Err(error) if error.kind() == ErrorKind::WouldBlock => from.readable = false,
                Err(error) => return Err(error),
            }
        }
    }
}

fn main() -> io::Result<()> {
    let mut known = getopts::Options::new();
    known.optopt("", "listen", "where clients connect", "ADDRESS:PORT");
    known.optopt("", "backend", "where to connect for each client", "ADDRESS:PORT");
    known.optopt("", "pipe", "capacity of each pipe (default: the kernel's)", "BYTES");
    let given = options::parse(known, "relay-splice: the floor, by splice");
    let default = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listen = options::address(&given, "listen").unwrap_or(default(8079));
    let backend = options::address(&given, "backend").unwrap_or(default(8080));
    let pipe = given.opt_present("pipe").then(|| options::value(&given, "pipe", 0));
    relay::run::<Splice>(listen, backend, Capacity(pipe))
}
