//! Farewells: connections on which a proxy is asked to close bridges (`doc/protocol.md`, "Leaving"). It closes them from
//! its side, so no request crosses a close; until it has, whatever comes over them is served.

use std::io;
use std::net::SocketAddr;

use mio::net::TcpStream;

use super::role::{Bridge, Farewell, Head, Role, Stage, Stay};
use super::worker::Agent;
use crate::bridge::answer::{self, Answer, CLOSE_TIMEOUT, DEREGISTER_TIMEOUT};
use crate::net::conn::Received;

/// How much of the answer is read at once. All of it fits.
const ANSWER_READ: usize = 4 * 1024;

impl Agent {
    /// Asks the proxies that take a leave to close the bridges that `which` names, and has those bridges wait for it. They
    /// are [`Stay::Leaves`] then; all others are the caller's to close. Bridges that are dialled from now on belong to a new
    /// incarnation, which leaves by itself.
    pub(super) fn say_farewell(&mut self, which: impl Fn(&Bridge) -> bool) {
        let mut told: Vec<(usize, SocketAddr)> = Vec::new();
        let keys: Vec<usize> = self.slots.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Role::Bridge(bridge) = self.slots[key].role else { continue };
            if !which(&bridge) || !bridge.known.leave || bridge.stay == Stay::Leaves {
                continue;
            }
            let whom = (bridge.proxy, bridge.address);
            if !told.contains(&whom) {
                if let Err(error) = self.dial_farewell(bridge.proxy, bridge.address) {
                    log::debug!("{}: no farewell: {error}", bridge.address);
                    continue;
                }
                told.push(whom);
            }
            if let Role::Bridge(bridge) = &mut self.slots[key].role {
                bridge.stay = Stay::Leaves;
            }
            self.await_close(key);
        }
        for (proxy, _) in told {
            self.proxies[proxy].announcement = None;
        }
    }

    /// A bridge that leaves may have nothing to do any more: then it waits for the proxy's FIN, but not for ever.
    pub(super) fn await_close(&mut self, key: usize) {
        if let Role::Bridge(Bridge {
            stage: Stage::Parked { .. } | Stage::Idle(Head::Unread),
            stay: Stay::Leaves,
            ..
        }) = self.slots[key].role
        {
            self.set_deadline(key, CLOSE_TIMEOUT);
        }
    }

    fn dial_farewell(&mut self, proxy: usize, address: SocketAddr) -> io::Result<()> {
        let Some(announcement) = &self.proxies[proxy].announcement else {
            return Err(io::Error::other("the bridges carry no token"));
        };
        let leave = announcement.leave.clone();
        let stream = TcpStream::connect(address)?;
        let token = self.insert(stream, Role::Farewell(Farewell { proxy, address }))?;
        // It goes out as soon as the connection is there.
        self.slots[token.key()].conn.output.push(&leave, &mut self.ws.pool);
        self.set_deadline(token.key(), DEREGISTER_TIMEOUT);
        Ok(())
    }

    /// Something has happened on a farewell: it is connected, or its answer has come.
    pub(super) fn go_on_with_farewell(&mut self, key: usize) {
        let conn = &mut self.slots[key].conn;
        match conn.is_connected() {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return self.farewell_failed(key, &error),
        }
        match conn.flush(&mut self.ws.pool) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return self.farewell_failed(key, &error),
        }
        match conn.receive(&mut self.ws.scratch[..ANSWER_READ]) {
            Received::Nothing => return,
            Received::Bytes(count) => {
                conn.input.push(&self.ws.scratch[..count], &mut self.ws.pool);
            }
            Received::End => {
                let error = io::Error::new(io::ErrorKind::UnexpectedEof, "it closes");
                return self.farewell_failed(key, &error);
            }
            Received::Broken(error) => return self.farewell_failed(key, &error),
        }
        let error = match answer::parse(self.slots[key].conn.input.bytes()) {
            Ok(None) if self.slots[key].conn.is_readable() => return self.again(key),
            Ok(None) => return,
            Ok(Some(Answer::Final { status: 200, .. })) => return self.close(key),
            Ok(Some(Answer::Final { status, .. })) => io::Error::other(format!("{status}")),
            Ok(Some(_)) => io::Error::other("it took the deregistration for a bridge"),
            Err(error) => io::Error::other(error),
        };
        self.farewell_failed(key, &error);
    }

    /// A farewell has not been answered in time.
    pub(super) fn farewell_is_late(&mut self, key: usize) {
        let error = io::Error::new(io::ErrorKind::TimedOut, "it does not answer");
        self.farewell_failed(key, &error);
    }

    /// The proxy does not close the bridges, so those with nothing to do are closed from here, and the others when they
    /// are done.
    fn farewell_failed(&mut self, key: usize, why: &io::Error) {
        let Role::Farewell(Farewell { proxy, address }) = self.slots[key].role else { return };
        log::warn!("{address} was not told that bridges leave: {why}; they are closed from here");
        self.close(key);
        let keys: Vec<usize> = self.slots.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Role::Bridge(bridge) = &mut self.slots[key].role else { continue };
            if bridge.stay != Stay::Leaves || (bridge.proxy, bridge.address) != (proxy, address) {
                continue;
            }
            bridge.stay = Stay::Stays;
            bridge.known.leave = false;
            let idle = match bridge.stage {
                Stage::Parked { .. } => true,
                Stage::Idle(Head::Unread) => self.slots[key].conn.is_idle(),
                _ => false,
            };
            if idle {
                self.close(key);
            }
        }
    }
}
