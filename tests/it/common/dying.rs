//! An application that is killed, as its peers see it: its connections end one after the other, and
//! until its listening socket is closed, too, its kernel accepts new ones, which it then resets.

use super::{DEADLINE, own_address};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// How long the listening socket may outlive the first connection.
const KILLED_WITHIN: Duration = Duration::from_millis(80);

/// How a connection ends that has brought a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// All of the request had been read.
    Fin,
    /// Some of it had not.
    Reset,
}

/// An application that is about to be killed. It answers only what the test has it answer.
pub struct Dying(TcpListener);

impl Dying {
    #[track_caller]
    pub fn start() -> Dying {
        let listener = TcpListener::bind((own_address(), 0)).expect("a port");
        listener.set_nonblocking(true).expect("non-blocking");
        Dying(listener)
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("an address")
    }

    /// The next connection with a request on it. Others only look whether somebody is there.
    #[track_caller]
    pub fn asked(&self) -> Asked {
        let until = Instant::now() + DEADLINE;
        loop {
            let Some(stream) = self.accepted(until) else { panic!("nobody asks") };
            stream.set_nonblocking(false).expect("blocking");
            stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
            let mut asked = Asked(stream);
            if asked.has_request() {
                return asked;
            }
        }
    }

    /// Ends: first this connection; then `count` others, or as many as come in time, with requests on
    /// them or without; and the listening socket. `meanwhile` is done when the first of the others has
    /// come, so it has been seen that this connection has ended. False if that has taken longer than
    /// when a process is killed, because the machine is busy.
    pub fn die(self, asked: Asked, how: Death, meanwhile: impl FnOnce(), count: usize) -> bool {
        let begun = Instant::now();
        asked.end(how);
        let until = begun + KILLED_WITHIN / 2;
        let first = self.accepted(until);
        meanwhile();
        let others = (1..count).map_while(|_| self.accepted(until));
        let others: Vec<TcpStream> = first.into_iter().chain(others).collect();
        drop(others);
        // To close it would not be enough: a child that another test is just starting may hold it for a
        // moment longer. On Linux this ends the listening.
        let _ = socket2::SockRef::from(&self.0).shutdown(Shutdown::Both);
        drop(self);
        begun.elapsed() < KILLED_WITHIN
    }

    fn accepted(&self, until: Instant) -> Option<TcpStream> {
        loop {
            match self.0.accept() {
                Ok((stream, _)) => return Some(stream),
                Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(1)),
                Err(_) => return None,
            }
        }
    }
}

/// A connection that has brought a request. The last byte of the request has not been read.
pub struct Asked(TcpStream);

impl Asked {
    /// Reads a request but for its last byte. False if the peer has closed without one.
    #[track_caller]
    fn has_request(&mut self) -> bool {
        let mut head = [0; 4096];
        let until = Instant::now() + DEADLINE;
        loop {
            let count = self.0.peek(&mut head).unwrap_or(0);
            if count == 0 {
                return false;
            }
            if head[..count].ends_with(b"\r\n\r\n") {
                self.0.read_exact(&mut head[..count - 1]).expect("what was there");
                return true;
            }
            assert!(Instant::now() < until, "half a request: {:?}", &head[..count]);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Answers, and waits for the next request.
    #[track_caller]
    pub fn answer(&mut self, answer: &[u8]) {
        self.0.read_exact(&mut [0]).expect("the last byte");
        self.0.write_all(answer).expect("a peer that reads");
    }

    /// Waits for the next request.
    #[track_caller]
    pub fn again(&mut self) {
        assert!(self.has_request(), "the connection was not used again");
    }

    /// Ends without an answer.
    pub fn end(mut self, how: Death) {
        // The kernel answers what has not been read with a reset.
        if how == Death::Fin {
            let _ = self.0.read(&mut [0]);
        }
    }
}
