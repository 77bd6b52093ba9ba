//! One connection of the backend, whichever side dialled it.

use std::io::{self, ErrorKind};
use std::mem;
use std::rc::Rc;
use std::time::Duration;

use crate::output::{Flushed, Piece};
use crate::request::{self, Body, Parsed};
use crate::site::{Answer, Manner, Site};
use crate::websocket::{self, Frame};
use crate::wire::Wire;

/// Bytes a head may have. A proxy that sends more is mistaken.
const LARGEST_HEAD: usize = 64 * 1024;

/// Who dialled, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A proxy, or a client, dialled us.
    Server,
    /// We dialled cloudbridge; the index is the bridge's place in the plan.
    Bridge(usize),
}

/// What the connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// BRIDGE is on its way, as soon as the connect is done, and has not been accepted yet.
    Offered,
    /// A request's head comes next; on a bridge also pings and the 101.
    Requests,
    /// In the body of a request.
    Body {
        /// What of it is still to come.
        body: Body,
        /// Bytes of content so far.
        content: u64,
        /// How to answer.
        manner: Manner,
    },
    /// The request is whole and the service works on it, or will.
    Working {
        /// What to answer then.
        answer: Answer,
        /// And how.
        manner: Manner,
    },
    /// The answer is on its way out.
    Answering {
        /// The connection ends with it.
        close: bool,
    },
    /// Frames, to be echoed.
    WebSocket,
}

/// What the owner of the connections has to do after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until the next edge.
    Wait,
    /// The bridge has been accepted: note it, then call again.
    Accepted,
    /// A request wants to be worked on, for this long if it says so: give it to the service, and
    /// call [`Conn::answer`] when it is done.
    Work(Option<Duration>),
    /// The connection is over: drop it.
    End,
}

/// What all connections share.
#[derive(Debug)]
pub struct Shared {
    /// The answers.
    pub site: Site,
    /// What is read goes here first.
    pub scratch: Vec<u8>,
    /// Requests that do not say otherwise are answered as soon as they are whole.
    pub immediate: bool,
}

/// A connection.
#[derive(Debug)]
pub struct Conn {
    wire: Wire,
    /// Who dialled.
    pub role: Role,
    /// Tells this connection from others that had the same key.
    pub serial: u64,
    state: State,
    /// Bytes read and not used yet: the start of a message, or requests that came before their
    /// turn.
    input: Vec<u8>,
}

impl Conn {
    /// A connection that was accepted.
    pub fn accepted(wire: Wire, serial: u64) -> Conn {
        Conn { wire, role: Role::Server, serial, state: State::Requests, input: Vec::new() }
    }

    /// A bridge whose connect has begun. `offer` is its BRIDGE, sent once it is connected.
    pub fn dialled(mut wire: Wire, serial: u64, index: usize, offer: Vec<u8>) -> Conn {
        wire.output.push(Piece::once(Rc::from(offer)));
        Conn { wire, role: Role::Bridge(index), serial, state: State::Offered, input: Vec::new() }
    }

    /// Whether the bridge has been offered to no avail so far.
    pub fn opening(&self) -> bool {
        self.state == State::Offered
    }

    /// Latches what epoll said.
    pub fn latch(&mut self, event: &mio::event::Event) {
        self.wire.latch(event);
    }

    /// The service is done with this connection's request.
    pub fn answer(&mut self, shared: &mut Shared) -> Next {
        if let State::Working { answer, manner } = self.state {
            shared.site.give(answer, manner, &mut self.wire.output);
            self.state = State::Answering { close: manner.close };
        }
        self.advance(shared)
    }

    /// Does all that can be done now.
    pub fn advance(&mut self, shared: &mut Shared) -> Next {
        // A connection that fails and one that ends are the same to a benchmark: the load counts
        // what it misses.
        self.run(shared).unwrap_or(Next::End)
    }

    fn run(&mut self, shared: &mut Shared) -> io::Result<Next> {
        loop {
            if self.wire.flush()? == Flushed::Blocked {
                return Ok(Next::Wait);
            }
            match self.state {
                State::Working { .. } => return Ok(Next::Wait),
                State::Answering { close: true } => return Ok(Next::End),
                State::Answering { close: false } => self.state = State::Requests,
                State::Offered | State::Requests | State::Body { .. } | State::WebSocket => {}
            }
            let fed = if self.input.is_empty() {
                let Some(got) = self.wire.read(&mut shared.scratch)? else {
                    return Ok(Next::Wait);
                };
                let fed = self.feed(&shared.scratch[..got], &mut shared.site, shared.immediate)?;
                self.input.extend_from_slice(&shared.scratch[fed.used..got]);
                fed
            } else {
                let mut bytes = mem::take(&mut self.input);
                let fed = self.feed(&bytes, &mut shared.site, shared.immediate)?;
                bytes.drain(..fed.used);
                self.input = bytes;
                fed
            };
            if let Some(next) = fed.next {
                return Ok(next);
            }
            if fed.partial {
                let Some(got) = self.wire.read(&mut shared.scratch)? else {
                    return Ok(Next::Wait);
                };
                self.input.extend_from_slice(&shared.scratch[..got]);
            }
        }
    }

    /// Uses one message at the front of `all`, or a part of a body.
    fn feed(&mut self, all: &[u8], site: &mut Site, immediate: bool) -> io::Result<Fed> {
        match self.state {
            State::Offered => self.interim(all, site),
            State::Requests if self.is_interim(all) => self.interim(all, site),
            State::Requests => self.request(all, site, immediate),
            State::Body { body, content, manner } => {
                self.body(all, body, content, manner, site, immediate)
            }
            State::WebSocket => self.frames(all),
            State::Working { .. } | State::Answering { .. } => Ok(Fed::used(0)),
        }
    }

    fn is_interim(&self, all: &[u8]) -> bool {
        self.role != Role::Server && all.starts_with(b"HTTP/")
    }

    /// 100: accepted, or a ping. 101: a request comes, say that we are here. Anything else is a
    /// refusal.
    fn interim(&mut self, all: &[u8], site: &Site) -> io::Result<Fed> {
        let Some(end) = all.windows(4).position(|four| four == b"\r\n\r\n") else {
            return self.partial(all.len());
        };
        let mut fed = Fed::used(end + 4);
        match (all.get(9..12), self.state) {
            (Some(b"100"), State::Offered) => {
                self.state = State::Requests;
                fed.next = Some(Next::Accepted);
            }
            (Some(b"100"), _) => {}
            (Some(b"101"), State::Requests) => site.acknowledge(&mut self.wire.output),
            _ => {
                eprintln!("a bridge was refused: {}", String::from_utf8_lossy(&all[..end]));
                return Err(ErrorKind::ConnectionRefused.into());
            }
        }
        Ok(fed)
    }

    fn request(&mut self, all: &[u8], site: &mut Site, immediate: bool) -> io::Result<Fed> {
        let head = match request::parse(all) {
            // Fewer bytes than "HTTP/" may become either.
            Parsed::Partial => return self.partial(all.len()),
            Parsed::Whole(head) => head,
            Parsed::Bad => return Err(ErrorKind::InvalidData.into()),
        };
        let mut fed = Fed::used(head.len);
        if let Some(key) = head.websocket_key {
            let accept = websocket::accept(key);
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            self.wire.output.push(Piece::once(Rc::from(answer.into_bytes())));
            self.state = State::WebSocket;
            return Ok(fed);
        }
        let manner = Manner { close: head.close, head_only: head.is_head };
        if head.body == Body::Length(0) {
            fed.next = self.whole(Answer::to(head.target), manner, site, immediate);
            return Ok(fed);
        }
        if head.expects_continue {
            site.acknowledge(&mut self.wire.output);
        }
        self.state = State::Body { body: head.body, content: 0, manner };
        Ok(fed)
    }

    fn body(
        &mut self,
        all: &[u8],
        mut body: Body,
        content: u64,
        manner: Manner,
        site: &mut Site,
        immediate: bool,
    ) -> io::Result<Fed> {
        let Some(skipped) = body.skip(all) else {
            return Err(ErrorKind::InvalidData.into());
        };
        let content = content + skipped.content;
        let mut fed = Fed::used(skipped.consumed);
        self.state = State::Body { body, content, manner };
        if body.ended() {
            fed.next = self.whole(Answer::Count(content), manner, site, immediate);
        }
        Ok(fed)
    }

    /// The request has ended.
    fn whole(
        &mut self,
        answer: Answer,
        manner: Manner,
        site: &mut Site,
        immediate: bool,
    ) -> Option<Next> {
        let work = answer.work();
        if !immediate || work.is_some() {
            self.state = State::Working { answer, manner };
            return Some(Next::Work(work));
        }
        site.give(answer, manner, &mut self.wire.output);
        self.state = State::Answering { close: manner.close };
        None
    }

    /// Echoes all whole frames in one write.
    fn frames(&mut self, all: &[u8]) -> io::Result<Fed> {
        let (mut used, mut echo) = (0, Vec::new());
        loop {
            match websocket::parse(&all[used..]) {
                websocket::Parsed::TooLarge => return Err(ErrorKind::InvalidData.into()),
                websocket::Parsed::Partial if used == 0 => return Ok(Fed::PARTIAL),
                websocket::Parsed::Partial => break,
                websocket::Parsed::Whole(frame) => {
                    echo_frame(&frame, &all[used..], &mut echo);
                    used += frame.end;
                    if frame.opcode == websocket::CLOSE {
                        self.state = State::Answering { close: true };
                        break;
                    }
                }
            }
        }
        self.wire.output.push(Piece::once(Rc::from(echo)));
        Ok(Fed::used(used))
    }

    fn partial(&self, have: usize) -> io::Result<Fed> {
        if have > LARGEST_HEAD { Err(ErrorKind::InvalidData.into()) } else { Ok(Fed::PARTIAL) }
    }
}

fn echo_frame(frame: &Frame, bytes: &[u8], to: &mut Vec<u8>) {
    websocket::write(frame.flags | frame.opcode, None, &bytes[frame.start..frame.end], to);
    if let Some(mask) = frame.mask {
        let payload = to.len() - (frame.end - frame.start);
        websocket::apply(mask, &mut to[payload..]);
    }
}

/// What [`Conn::feed`] made of the bytes.
struct Fed {
    used: usize,
    /// Nothing could be used: more must be read first.
    partial: bool,
    next: Option<Next>,
}

impl Fed {
    const PARTIAL: Fed = Fed { used: 0, partial: true, next: None };

    fn used(used: usize) -> Fed {
        Fed { used, partial: false, next: None }
    }
}
