//! How a listener ends: the proxies close what is parked, so that no request is lost (`doc/protocol.md`, "Leaving").

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::handshake;
use crate::bridge::answer::{Answer, CLOSE_TIMEOUT, DEREGISTER_TIMEOUT};

/// The bridges of a listener that no request has come over yet, and whether there will be more.
#[derive(Default)]
pub(super) struct Parked {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    life: Life,
    /// The last number given to a bridge.
    last: u64,
    waiting: HashMap<u64, Waiting>,
    /// The addresses of proxies that take a leave, each once: also of those whose bridges are all in use now.
    takers: Vec<SocketAddr>,
}

/// Whether a listener accepts.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Life {
    #[default]
    Accepting,
    /// It has been shut down, and takes what still comes over the bridges that are parked.
    ShutDown,
}

/// A bridge that is not in use.
struct Waiting {
    stream: Arc<TcpStream>,
    /// Whose proxy closes it, if that takes a leave.
    taker: Option<SocketAddr>,
}

/// A bridge's place among the waiting ones; dropping it gives the place up.
pub(super) struct Place<'a> {
    parked: &'a Parked,
    number: u64,
}

impl Parked {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the listener has been shut down.
    pub(super) fn is_shut_down(&self) -> bool {
        self.state().life == Life::ShutDown
    }

    /// Sleeps, but not beyond the listener's shutdown.
    pub(super) fn sleep(&self, time: Duration) {
        if !time.is_zero() {
            let accepting = |state: &mut State| state.life == Life::Accepting;
            let _ = self.changed.wait_timeout_while(self.state(), time, accepting);
        }
    }

    /// Takes a bridge that has been connected among the waiting ones; `None` when the listener has been shut down.
    pub(super) fn enter(&self, stream: &Arc<TcpStream>) -> Option<Place<'_>> {
        let mut state = self.state();
        if state.life == Life::ShutDown {
            return None;
        }
        state.last += 1;
        let number = state.last;
        state.waiting.insert(number, Waiting { stream: Arc::clone(stream), taker: None });
        Some(Place { parked: self, number })
    }

    /// Has the proxies close what is parked, with `request`, or closes it; nothing is parked any more when this returns.
    ///
    /// # Errors
    /// What the first proxy said, or did not, that would not be told.
    pub(super) fn shut_down(&self, request: Option<&[u8]>) -> io::Result<()> {
        let takers = {
            let mut state = self.state();
            state.life = Life::ShutDown;
            state.takers.clone()
        };
        self.changed.notify_all();
        let mut result = Ok(());
        let mut told = Vec::new();
        for taker in takers {
            match request.map_or(Ok(()), |request| say_leave(taker, request)) {
                Ok(()) => told.push(taker),
                Err(error) => {
                    result =
                        result.and(Err(io::Error::new(error.kind(), format!("{taker}: {error}"))));
                }
            }
        }
        self.close(|waiting| waiting.taker.is_none_or(|taker| !told.contains(&taker)));
        let some = |state: &mut State| !state.waiting.is_empty();
        let waited = self.changed.wait_timeout_while(self.state(), CLOSE_TIMEOUT, some);
        drop(waited);
        self.close(|_| true);
        result
    }

    /// How many bridges wait at proxies that take a leave.
    #[cfg(test)]
    pub(super) fn at_takers(&self) -> usize {
        self.state().waiting.values().filter(|waiting| waiting.taker.is_some()).count()
    }

    /// Closes waiting bridges. One that has been told of a request just now, and has not said that it is there, will not
    /// be able to say so: then the request goes elsewhere.
    fn close(&self, which: impl Fn(&Waiting) -> bool) {
        for waiting in self.state().waiting.values().filter(|waiting| which(waiting)) {
            // It may be closed already.
            let _ = waiting.stream.shutdown(Shutdown::Both);
        }
    }
}

impl Place<'_> {
    /// The proxy has accepted the bridge, and takes a leave.
    pub(super) fn takes_leave(&self, from: SocketAddr) {
        let mut state = self.parked.state();
        if let Some(waiting) = state.waiting.get_mut(&self.number) {
            waiting.taker = Some(from);
        }
        if !state.takers.contains(&from) {
            state.takers.push(from);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.parked.state().waiting.remove(&self.number);
        self.parked.changed.notify_all();
    }
}

/// Asks a proxy to close bridges.
fn say_leave(proxy: SocketAddr, request: &[u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&proxy, DEREGISTER_TIMEOUT)?;
    stream.set_read_timeout(Some(DEREGISTER_TIMEOUT))?;
    stream.set_write_timeout(Some(DEREGISTER_TIMEOUT))?;
    stream.write_all(request)?;
    match handshake::next_answer(&stream)? {
        Answer::Final { status: 200, .. } => Ok(()),
        Answer::Final { status, .. } => {
            Err(io::Error::other(format!("it answers {status} to a deregistration")))
        }
        _ => Err(io::Error::other("it took the deregistration for a bridge")),
    }
}
