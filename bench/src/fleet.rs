//! The connections of a load and the loop that turns them.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::address::Address;
use crate::client::{Client, End, Progress};
use crate::sys::Timer;
use crate::wire::{SCRATCH, Wire};

/// Events taken per turn.
const EVENTS_PER_TURN: usize = 1024;
const TIMER: Token = Token(usize::MAX);

/// What happened to a connection's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It has been answered.
    Answered(End),
    /// The connection broke under it. There is a new one already.
    Lost,
}

/// Connections to one address or several, known by their index; one that breaks or is closed is
/// dialled anew.
pub struct Fleet {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    /// Which of the addresses each is connected to.
    leads: Vec<usize>,
    scratch: Vec<u8>,
    timer: Timer,
    to: Vec<Address>,
    /// Bytes of content that connections now gone had received.
    received: u64,
    /// Bytes that connections now gone had sent.
    sent: u64,
}

impl Fleet {
    /// Dials `size` connections to `to`.
    pub fn dial(to: &Address, size: usize) -> io::Result<Fleet> {
        let mut fleet = Fleet::among(vec![to.clone()])?;
        (0..size).try_for_each(|_| fleet.grow(0).map(|_| ()))?;
        Ok(fleet)
    }

    /// No connection yet; [`Fleet::grow`] dials them.
    pub fn among(to: Vec<Address>) -> io::Result<Fleet> {
        let poll = Poll::new()?;
        let timer = Timer::open()?;
        let source = timer.raw();
        poll.registry().register(&mut SourceFd(&source), TIMER, Interest::READABLE)?;
        Ok(Fleet {
            clients: Vec::new(),
            leads: Vec::new(),
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            scratch: vec![0; SCRATCH],
            timer,
            to,
            received: 0,
            sent: 0,
        })
    }

    /// Dials one connection more, to the address of number `to`, and gives its index. It can be used
    /// at once.
    pub fn grow(&mut self, to: usize) -> io::Result<usize> {
        let index = self.clients.len();
        self.clients.push(dial(&self.poll, &self.to[to], index)?);
        self.leads.push(to);
        Ok(index)
    }

    /// Bytes of content received so far, and bytes sent so far, framing included.
    pub fn moved(&self) -> (u64, u64) {
        self.clients.iter().fold((self.received, self.sent), |(received, sent), client| {
            (received + client.content, sent + client.wire.output.total())
        })
    }

    /// Begins a request on a connection that has none. `put` puts it into the output.
    pub fn begin(
        &mut self,
        index: usize,
        put: impl FnOnce(&mut crate::output::Output),
    ) -> io::Result<Option<Happened>> {
        let client = &mut self.clients[index];
        put(&mut client.wire.output);
        let progress = client.begin(&mut self.scratch);
        self.happened(index, progress)
    }

    /// Waits for events, until `until` at most, and adds what happened to `happened`.
    pub fn turn(
        &mut self,
        until: Instant,
        happened: &mut Vec<(usize, Happened)>,
    ) -> io::Result<()> {
        let wait = until.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            self.timer.set(wait)?;
        }
        let most = if wait.is_zero() { Some(Duration::ZERO) } else { None };
        match self.poll.poll(&mut self.events, most) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in events.iter().filter(|event| event.token() != TIMER) {
            let index = event.token().0;
            let client = &mut self.clients[index];
            client.wire.latch(event);
            let progress = client.advance(&mut self.scratch);
            if let Some(what) = self.happened(index, progress)? {
                happened.push((index, what));
            }
        }
        self.events = events;
        Ok(())
    }

    fn happened(
        &mut self,
        index: usize,
        progress: io::Result<Progress>,
    ) -> io::Result<Option<Happened>> {
        let client = &self.clients[index];
        let (happened, over) = match progress {
            Ok(Progress::Wait) => return Ok(None),
            Ok(Progress::Done(end)) => (Some(Happened::Answered(end)), end.close),
            // An idle connection may be closed at any time (RFC 9112 section 9.3): nothing was
            // lost.
            Err(_) if client.idle() => (None, true),
            Err(_) => (Some(Happened::Lost), true),
        };
        if over {
            self.received += client.content;
            self.sent += client.wire.output.total();
            self.clients[index] = dial(&self.poll, &self.to[self.leads[index]], index)?;
        }
        Ok(happened)
    }
}

fn dial(poll: &Poll, to: &Address, index: usize) -> io::Result<Client> {
    let stream = to.connect()?;
    let wire = Wire::new(stream, false, poll.registry(), Token(index))?;
    Ok(Client::new(wire))
}
