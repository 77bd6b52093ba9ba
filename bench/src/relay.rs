//! The loop of the floors: each client that is accepted gets a backend connection of its own, and
//! bytes go both ways.
//!
//! This is the least a proxy on this kernel can do for a request: recv, send, recv, send, and its
//! share of an `epoll_wait`. How one direction moves its bytes is the [`Direction`]'s business.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

/// Events taken per turn. As many as there are connections in the usual scenario (64) several times
/// over.
const EVENTS_PER_TURN: usize = 1024;
const LISTENER: Token = Token(usize::MAX);
/// The low bit of a token says which side of the pair it is, the rest is the pair's key.
const BACKEND_BIT: usize = 1;

/// One socket of a pair and what epoll last said of it.
#[derive(Debug)]
pub struct Side {
    /// The socket, registered for both directions once.
    pub stream: TcpStream,
    /// There may be bytes to read. Cleared when a read finds none.
    pub readable: bool,
    /// There may be room to write. Cleared when a write finds none.
    pub writable: bool,
    /// The peer's FIN has come: there will be no further edge, so only a read of 0 ends the data.
    pub read_closed: bool,
}

/// One way through a pair, from its reader to its writer.
pub trait Direction: Sized {
    /// What all directions of the process share, for instance a scratch buffer.
    type Shared;

    /// Makes what one direction needs.
    fn open(shared: &mut Self::Shared) -> io::Result<Self>;

    /// Moves all it can, and clears the latches it finds untrue. `Ok(true)` when `from` has ended
    /// and every byte is out.
    ///
    /// Errors other than `WouldBlock` end the pair.
    fn pump(
        &mut self,
        shared: &mut Self::Shared,
        from: &mut Side,
        to: &mut Side,
    ) -> io::Result<bool>;
}

struct Pair<D> {
    client: Side,
    backend: Side,
    up: Option<D>,
    down: Option<D>,
}

impl<D: Direction> Pair<D> {
    fn ready(&mut self, event: &Event, shared: &mut D::Shared) -> io::Result<()> {
        let side = match event.token().0 & BACKEND_BIT {
            0 => &mut self.client,
            _ => &mut self.backend,
        };
        side.readable |= event.is_readable();
        side.read_closed |= event.is_read_closed();
        side.writable |= event.is_writable();
        if event.is_error() {
            return Err(ErrorKind::ConnectionReset.into());
        }
        pump(&mut self.up, shared, &mut self.client, &mut self.backend)?;
        pump(&mut self.down, shared, &mut self.backend, &mut self.client)
    }

    fn over(&self) -> bool {
        self.up.is_none() && self.down.is_none()
    }
}

fn pump<D: Direction>(
    way: &mut Option<D>,
    shared: &mut D::Shared,
    from: &mut Side,
    to: &mut Side,
) -> io::Result<()> {
    let Some(direction) = way else { return Ok(()) };
    if direction.pump(shared, from, to)? {
        *way = None;
        to.stream.shutdown(Shutdown::Write)?;
    }
    Ok(())
}

/// Relays until the process is ended. Fails only when it cannot listen or poll.
pub fn run<D: Direction>(
    listen: SocketAddr,
    backend: SocketAddr,
    mut shared: D::Shared,
) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(EVENTS_PER_TURN);
    let mut listener = TcpListener::bind(listen)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut pairs: Slab<Pair<D>> = Slab::new();
    let mut ended = Vec::new();
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, backend, &poll, &mut pairs, &mut shared)?;
                continue;
            }
            let key = event.token().0 >> 1;
            let Some(pair) = pairs.get_mut(key) else {
                continue;
            };
            if pair.ready(event, &mut shared).is_err() || pair.over() {
                ended.push(key);
            }
        }
        // Freed only now, so that no event of this turn can name a pair that took an old one's key.
        for key in ended.drain(..) {
            pairs.try_remove(key);
        }
    }
}

fn accept<D: Direction>(
    listener: &TcpListener,
    backend: SocketAddr,
    poll: &Poll,
    pairs: &mut Slab<Pair<D>>,
    shared: &mut D::Shared,
) -> io::Result<()> {
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        let entry = pairs.vacant_entry();
        let base = entry.key() << 1;
        entry.insert(Pair {
            client: side(client, base, poll)?,
            backend: side(TcpStream::connect(backend)?, base | BACKEND_BIT, poll)?,
            up: Some(D::open(shared)?),
            down: Some(D::open(shared)?),
        });
    }
}

fn side(mut stream: TcpStream, token: usize, poll: &Poll) -> io::Result<Side> {
    stream.set_nodelay(true)?;
    let both = Interest::READABLE | Interest::WRITABLE;
    poll.registry().register(&mut stream, Token(token), both)?;
    Ok(Side { stream, readable: false, writable: false, read_closed: false })
}
