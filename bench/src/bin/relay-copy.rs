//! The floor for small requests: a relay that receives and sends through one scratch buffer, with
//! no HTTP in it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use cloudbridge_bench::options;
use cloudbridge_bench::relay::{self, Direction, Side};

/// Bytes received at once. Small requests do not care; in bulk fewer, larger calls took a quarter
/// less CPU than 64 KiB, and 1 MiB no less.
const SCRATCH: usize = 512 * 1024;

/// What could not be sent at once. Empty, and without memory, for as long as the receiver keeps up.
struct Copy {
    held: Vec<u8>,
}

impl Direction for Copy {
    type Shared = Vec<u8>;

    fn open(_: &mut Vec<u8>) -> io::Result<Copy> {
        Ok(Copy { held: Vec::new() })
    }

    fn pump(&mut self, scratch: &mut Vec<u8>, from: &mut Side, to: &mut Side) -> io::Result<bool> {
        if !self.held.is_empty() && to.writable {
            let sent = send(to, &self.held)?;
            self.held.drain(..sent);
        }
        while from.readable && to.writable && self.held.is_empty() {
            let got = match from.stream.read(scratch) {
                Ok(0) => return Ok(true),
                Ok(got) => got,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    from.readable = false;
                    break;
                }
                Err(error) => return Err(error),
            };
            // A short read has emptied the socket; only a FIN that came with it gives no further
            // edge.
            from.readable = got == scratch.len() || from.read_closed;
            let sent = send(to, &scratch[..got])?;
            self.held.extend_from_slice(&scratch[sent..got]);
        }
        Ok(false)
    }
}

/// Sends what there is room for; returns how many bytes that was, and clears the latch if it was
/// not all.
fn send(to: &mut Side, bytes: &[u8]) -> io::Result<usize> {
    let sent = match to.stream.write(bytes) {
        Ok(sent) => sent,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => return Err(error),
    };
    to.writable = sent == bytes.len();
    Ok(sent)
}

fn main() -> io::Result<()> {
    let mut known = getopts::Options::new();
    known.optopt("", "listen", "where clients connect", "ADDRESS:PORT");
    known.optopt("", "backend", "where to connect for each client", "ADDRESS:PORT");
    known.optopt("", "scratch", "bytes received at once (524288)", "BYTES");
    let given = options::parse(known, "relay-copy: the floor, by recv and send");
    let default = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listen = options::address(&given, "listen").unwrap_or(default(8079));
    let backend = options::address(&given, "backend").unwrap_or(default(8080));
    let scratch = options::value(&given, "scratch", SCRATCH);
    relay::run::<Copy>(listen, backend, vec![0; scratch.max(1)])
}
