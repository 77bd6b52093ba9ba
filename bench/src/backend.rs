//! The backend's loop: accepts what the ordinary proxies dial, dials cloudbridge, and answers on
//! either.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::address::Address;
use crate::conn::{Conn, Next, Role, Shared};
use crate::dialler::Dialler;
use crate::service::{Job, Service};
use crate::site::Site;
use crate::sys::Timer;
use crate::wire::{SCRATCH, Wire};

/// Events taken per turn.
const EVENTS_PER_TURN: usize = 1024;
const LISTENER: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);

/// Which host names bridges offer.
#[derive(Clone, Debug)]
pub enum Hosts {
    /// All of them the same one.
    One(String),
    /// `host0.bench`, `host1.bench` and so on, this many, in turn.
    Numbered(usize),
}

impl Hosts {
    /// The BRIDGE with which bridge number `index` offers itself.
    pub fn offer(&self, index: usize) -> Vec<u8> {
        let host = match self {
            Hosts::One(name) => name.clone(),
            Hosts::Numbered(hosts) => format!("host{}.bench", index % hosts.max(&1)),
        };
        format!("BRIDGE / HTTP/1.1\r\nExpect: 100-continue\r\nHost: {host}\r\n\r\n").into_bytes()
    }
}

/// What the backend is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to listen, if anywhere.
    pub listen: Option<SocketAddr>,
    /// Where to dial bridges to, if anywhere.
    pub proxy: Option<Address>,
    /// How many bridges to hold.
    pub bridges: usize,
    /// What they offer.
    pub hosts: Hosts,
    /// Bytes of the body of `/`.
    pub small_body: usize,
    /// Time each request takes that does not say so itself.
    pub delay: Duration,
    /// Requests worked on at once, of those that take any time.
    pub slots: usize,
}

/// Serves until the process is ended. Fails only when it cannot listen or poll.
pub fn run(plan: Plan) -> io::Result<()> {
    let mut backend = Backend::new(plan)?;
    let mut events = Events::with_capacity(EVENTS_PER_TURN);
    loop {
        backend.turn(&mut events)?;
    }
}

struct Backend {
    poll: Poll,
    listener: Option<TcpListener>,
    conns: Slab<Conn>,
    /// Keys of conns that are over; freed at the end of the turn, so that no event names a
    /// successor.
    ended: Vec<usize>,
    serials: u64,
    shared: Shared,
    service: Service,
    timer: Timer,
    /// When the timer will go off; `None` if it is not set.
    armed: Option<Instant>,
    dialler: Dialler,
    proxy: Option<Address>,
    hosts: Hosts,
}

impl Backend {
    fn new(plan: Plan) -> io::Result<Backend> {
        let poll = Poll::new()?;
        let mut listener = plan.listen.map(TcpListener::bind).transpose()?;
        if let Some(listener) = &mut listener {
            poll.registry().register(listener, LISTENER, Interest::READABLE)?;
        }
        let timer = Timer::open()?;
        poll.registry().register(&mut SourceFd(&timer.raw()), TIMER, Interest::READABLE)?;
        let bridges = if plan.proxy.is_some() { plan.bridges } else { 0 };
        let service = Service::new(plan.delay, plan.slots);
        Ok(Backend {
            poll,
            listener,
            conns: Slab::new(),
            ended: Vec::new(),
            serials: 0,
            shared: Shared {
                site: Site::new(plan.small_body),
                scratch: vec![0; SCRATCH],
                immediate: service.immediate(),
            },
            service,
            timer,
            armed: None,
            dialler: Dialler::new(bridges, Instant::now()),
            proxy: plan.proxy,
            hosts: plan.hosts,
        })
    }

    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let wait = self.proxy.as_ref().and_then(|_| self.dialler.wait(Instant::now()));
        match self.poll.poll(events, wait) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in events.iter() {
            match event.token() {
                LISTENER => self.accept()?,
                TIMER => self.armed = None,
                Token(key) => {
                    let Some(conn) = self.conns.get_mut(key) else {
                        continue;
                    };
                    conn.latch(event);
                    let next = conn.advance(&mut self.shared);
                    self.act(key, next);
                }
            }
        }
        if self.service.next().is_some() {
            self.finish_work()?;
        }
        if self.proxy.is_some() {
            self.dial()?;
        }
        self.free();
        Ok(())
    }

    fn act(&mut self, key: usize, mut next: Next) {
        loop {
            let conn = &mut self.conns[key];
            match next {
                Next::Wait => return,
                Next::End => return self.ended.push(key),
                Next::Work(time) => {
                    let job = Job { key, serial: conn.serial };
                    self.service.add(job, time, Instant::now());
                    return;
                }
                Next::Accepted => {
                    if let Role::Bridge(index) = conn.role
                        && self.dialler.accepted(index)
                    {
                        // bench/run waits for this line.
                        println!("all bridges are open");
                    }
                    next = conn.advance(&mut self.shared);
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        while let Some(listener) = &self.listener {
            match listener.accept() {
                Ok((stream, _)) => {
                    self.serials += 1;
                    let serial = self.serials;
                    self.insert(stream, true, |wire| Conn::accepted(wire, serial))?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn dial(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let Some(proxy) = self.proxy.clone() else {
            return Ok(());
        };
        while let Some(index) = self.dialler.take(now) {
            match proxy.connect() {
                Ok(stream) => {
                    self.serials += 1;
                    let (serial, offer) = (self.serials, self.hosts.offer(index));
                    let conn = |wire| Conn::dialled(wire, serial, index, offer);
                    self.insert(stream, false, conn)?;
                }
                Err(_) => self.dialler.failed(index, now),
            }
        }
        Ok(())
    }

    fn insert(
        &mut self,
        stream: TcpStream,
        connected: bool,
        conn: impl FnOnce(Wire) -> Conn,
    ) -> io::Result<()> {
        let entry = self.conns.vacant_entry();
        let token = Token(entry.key());
        entry.insert(conn(Wire::new(stream, connected, self.poll.registry(), token)?));
        Ok(())
    }

    fn finish_work(&mut self) -> io::Result<()> {
        while let Some(Job { key, serial }) = self.service.done(Instant::now()) {
            if let Some(conn) = self.conns.get_mut(key)
                && conn.serial == serial
            {
                let next = conn.answer(&mut self.shared);
                self.act(key, next);
            }
        }
        let next = self.service.next();
        if let Some(due) = next
            && self.armed != next
        {
            self.timer.set(due.saturating_duration_since(Instant::now()))?;
            self.armed = next;
        }
        Ok(())
    }

    fn free(&mut self) {
        for key in self.ended.drain(..) {
            let Some(conn) = self.conns.try_remove(key) else {
                continue;
            };
            match conn.role {
                Role::Bridge(index) if conn.opening() => self.dialler.failed(index, Instant::now()),
                Role::Bridge(index) => self.dialler.ended(index, Instant::now()),
                Role::Server => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridges_offer_the_hosts_in_turn() {
        let expected = b"BRIDGE / HTTP/1.1\r\nExpect: 100-continue\r\nHost: host1.bench\r\n\r\n";
        assert_eq!(Hosts::Numbered(3).offer(4), expected);
    }
}
