//! The parked bridges of a listener, and its shutdown: the proxies close what is parked, so that no
//! request is lost (`doc/protocol.md`, "Leaving").

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::handshake::{self, Offer};
use super::stream::BridgeStream;
use super::target::Target;
use crate::bridge::answer::{Answer, CLOSE_TIMEOUT, DEREGISTER_TIMEOUT};

/// The bridges of a listener that no request has come over yet.
#[derive(Default)]
pub(super) struct Parked {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_shut_down: bool,
    /// The last number given to a bridge.
    last: u64,
    bridges: HashMap<u64, Bridge>,
    /// The proxies that support deregistration, also those whose bridges are all in use now.
    proxies: Vec<SocketAddr>,
}

struct Bridge {
    stream: Arc<BridgeStream>,
    /// The proxy, if it supports deregistration.
    proxy: Option<SocketAddr>,
}

/// A parked bridge; removed from the others when dropped.
pub(super) struct Entry<'a> {
    parked: &'a Parked,
    number: u64,
}

impl Parked {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_shut_down(&self) -> bool {
        self.state().is_shut_down
    }

    /// Sleeps until the time is over or the listener is shut down.
    pub fn sleep(&self, time: Duration) {
        if !time.is_zero() {
            let open = |state: &mut State| !state.is_shut_down;
            let _ = self.changed.wait_timeout_while(self.state(), time, open);
        }
    }

    /// Adds a connected bridge; `None` after a shutdown.
    pub fn enter(&self, stream: &Arc<BridgeStream>) -> Option<Entry<'_>> {
        let mut state = self.state();
        if state.is_shut_down {
            return None;
        }
        state.last += 1;
        let number = state.last;
        state.bridges.insert(number, Bridge { stream: Arc::clone(stream), proxy: None });
        Some(Entry { parked: self, number })
    }

    /// Has the processes of the proxy close what is parked, by sending them `leave`, or else closes it here.
    /// Nothing is parked any more when this returns.
    ///
    /// # Errors
    ///
    /// The first proxy that could not be told.
    pub fn shut_down(&self, target: &Target, leave: Option<&Offer<'_>>) -> io::Result<()> {
        let proxies = {
            let mut state = self.state();
            state.is_shut_down = true;
            state.proxies.clone()
        };
        self.changed.notify_all();
        let mut result = Ok(());
        let mut told = Vec::new();
        for proxy in proxies {
            match leave.map_or(Ok(()), |leave| deregister(target, proxy, leave)) {
                Ok(()) => told.push(proxy),
                Err(error) => {
                    let error = io::Error::new(error.kind(), format!("{proxy}: {error}"));
                    result = result.and(Err(error));
                }
            }
        }
        self.close(|bridge| bridge.proxy.is_none_or(|proxy| !told.contains(&proxy)));
        let some = |state: &mut State| !state.bridges.is_empty();
        drop(self.changed.wait_timeout_while(self.state(), CLOSE_TIMEOUT, some));
        self.close(|_| true);
        result
    }

    /// How many bridges are parked at proxies that support deregistration.
    #[cfg(test)]
    pub fn deregistrable(&self) -> usize {
        self.state().bridges.values().filter(|bridge| bridge.proxy.is_some()).count()
    }

    /// Closes bridges. One that has just been matched can then not acknowledge, and the proxy sends
    /// the request elsewhere.
    fn close(&self, which: impl Fn(&Bridge) -> bool) {
        for bridge in self.state().bridges.values().filter(|bridge| which(bridge)) {
            // It may be closed already.
            let _ = bridge.stream.tcp().shutdown(Shutdown::Both);
        }
    }
}

impl Entry<'_> {
    /// The proxy has accepted the bridge, and supports deregistration.
    pub fn supports_deregistration(&self, proxy: SocketAddr) {
        let mut state = self.parked.state();
        if let Some(bridge) = state.bridges.get_mut(&self.number) {
            bridge.proxy = Some(proxy);
        }
        if !state.proxies.contains(&proxy) {
            state.proxies.push(proxy);
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.parked.state().bridges.remove(&self.number);
        self.parked.changed.notify_all();
    }
}

/// Asks a proxy to close bridges.
fn deregister(target: &Target, proxy: SocketAddr, leave: &Offer<'_>) -> io::Result<()> {
    let connection = target.dial_at(proxy, DEREGISTER_TIMEOUT)?;
    connection.handshake(DEREGISTER_TIMEOUT)?;
    connection.tcp().set_read_timeout(Some(DEREGISTER_TIMEOUT))?;
    connection.tcp().set_write_timeout(Some(DEREGISTER_TIMEOUT))?;
    let mut stream = &connection;
    let (first, mut proving) = leave.first()?;
    stream.write_all(&first)?;
    let mut answer = handshake::next_answer(&connection)?;
    if let Answer::Challenge { nonce, .. } = answer {
        stream.write_all(&leave.second(&mut proving, nonce)?)?;
        answer = handshake::next_answer(&connection)?;
    }
    match answer {
        Answer::Final { status: 200, .. } => Ok(()),
        Answer::Final { status, .. } => {
            Err(io::Error::other(format!("it answers {status} to a deregistration")))
        }
        _ => Err(io::Error::other("it took the deregistration for a bridge")),
    }
}
