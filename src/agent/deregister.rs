//! Deregistration: asks a proxy to close bridges (`doc/protocol.md`, "Leaving"). The proxy closes
//! them from its side, so no request crosses a close; until then, requests on them are served.

use std::io;
use std::net::SocketAddr;

use mio::net::TcpStream;

use super::bridges::ANSWER_READ;
use super::role::{Bridge, Deregistration, Role, Stage, unoccupied_bridge};
use super::state::{Agent, closed};
use crate::bridge::answer::{self, Answer, CLOSE_TIMEOUT, DEREGISTER_TIMEOUT};
use crate::net::conn::Received;

impl Agent {
    /// Asks the proxies that support it to close the bridges selected by `which`, and marks those
    /// bridges. The caller must close the others. Bridges dialled from now on form a new group with
    /// its own deregistration.
    pub(super) fn deregister(&mut self, which: impl Fn(&Bridge) -> bool) {
        let selected =
            |bridge: &Bridge| bridge.extensions.leave && !bridge.deregistering && which(bridge);
        let mut asked: Vec<(usize, SocketAddr)> = Vec::new();
        let keys = self.conns.keys_with(|role| matches!(role, Role::Bridge(b) if selected(b)));
        for key in keys {
            let Some(&Bridge { proxy, address, .. }) = self.bridge(key) else { continue };
            if !asked.contains(&(proxy, address)) {
                if let Err(error) = self.dial_deregistration(proxy, address) {
                    log::debug!("{address}: cannot deregister: {error}");
                    continue;
                }
                asked.push((proxy, address));
            }
            if let Some(bridge) = self.bridge_mut(key) {
                bridge.deregistering = true;
            }
            self.await_close(key);
        }
        for (proxy, _) in asked {
            self.proxies[proxy].announcement = None;
            self.renew_party(proxy);
        }
    }

    /// Bounds the wait for the proxy's FIN, if the bridge is deregistering and unused.
    pub(super) fn await_close(&mut self, key: usize) {
        let Some(bridge) = self.bridge(key) else { return };
        let idle = matches!(bridge.stage, Stage::Parked { .. } | Stage::Idle { begun: false });
        if bridge.deregistering && idle {
            self.conns.set_deadline(key, CLOSE_TIMEOUT);
        }
    }

    fn dial_deregistration(&mut self, proxy: usize, address: SocketAddr) -> io::Result<()> {
        let Some(announcement) = &self.proxies[proxy].announcement else {
            return Err(io::Error::other("the bridges carry no token"));
        };
        let tls = self.proxies[proxy].tls.clone();
        let request = announcement.leave.clone();
        let app = &self.applications[self.proxies[proxy].application];
        let (first, proving) = app.offer(&request).first()?;
        let first = first.into_owned();
        let role = Role::Deregistration(Deregistration { proxy, address, request, first, proving });
        let key = self.conns.insert(TcpStream::connect(address)?, address.ip(), role)?;
        self.conns.set_deadline(key, DEREGISTER_TIMEOUT);
        if let Some(tls) = tls
            && let Err(what) = self.encrypt(key, &tls)
        {
            self.close(key);
            return Err(io::Error::other(what));
        }
        Ok(())
    }

    /// A deregistration has connected, or its answer has come.
    pub(super) fn read_deregistration(&mut self, key: usize) {
        match self.deregistration_answer(key) {
            Ok(true) => self.close(key),
            Ok(false) => {}
            Err(error) => self.deregistration_failed(key, &error),
        }
    }

    /// Advances a deregistration. True once the proxy has agreed to it.
    fn deregistration_answer(&mut self, key: usize) -> io::Result<bool> {
        let (connection, ws) = self.conns.split(key);
        let conn = &mut connection.conn;
        if !conn.is_connected()? {
            return Ok(false);
        }
        if let Some(Role::Deregistration(role)) = connection.role_mut() {
            let first = std::mem::take(&mut role.first);
            connection.conn.send(&first, &mut ws.pool)?;
        }
        let conn = &mut connection.conn;
        if !conn.flush(&mut ws.pool)? {
            return Ok(false);
        }
        match conn.receive(&mut ws.scratch[..ANSWER_READ]) {
            Received::Nothing => return Ok(false),
            Received::Bytes(count) => conn.input.push(&ws.scratch[..count], &mut ws.pool),
            Received::End => return Err(closed()),
            Received::Broken(error) => return Err(error),
        }
        match answer::parse(conn.input.bytes()).map_err(io::Error::other)? {
            Some(Answer::Final { status: 200, .. }) => Ok(true),
            Some(Answer::Challenge { len, nonce }) => {
                conn.input.consume(len, &mut ws.pool);
                let Some(Role::Deregistration(role)) = connection.role_mut() else {
                    return Err(closed());
                };
                let app = &self.applications[self.proxies[role.proxy].application];
                let second = app.offer(&role.request).second(&mut role.proving, nonce)?;
                connection.conn.send(&second, &mut ws.pool)?;
                self.conns.requeue(key);
                Ok(false)
            }
            Some(Answer::Final { status, .. }) => Err(io::Error::other(status.to_string())),
            Some(_) => Err(io::Error::other("it took the deregistration for a bridge")),
            None => {
                if conn.is_readable() {
                    self.conns.requeue(key);
                }
                Ok(false)
            }
        }
    }

    /// The proxy will not close the bridges. Unused ones are closed from here at once, the others
    /// after their request.
    pub(super) fn deregistration_failed(&mut self, key: usize, why: &io::Error) {
        let Some(Role::Deregistration(role)) = self.conns.role(key) else { return };
        let &Deregistration { proxy, address, .. } = role;
        log::warn!(
            "{address} could not be asked to close bridges: {why}; they are closed from here"
        );
        self.close(key);
        let mine = |bridge: &Bridge| {
            bridge.deregistering && (bridge.proxy, bridge.address) == (proxy, address)
        };
        for key in self.conns.keys_with(|role| matches!(role, Role::Bridge(b) if mine(b))) {
            if let Some(bridge) = self.bridge_mut(key) {
                bridge.deregistering = false;
                bridge.extensions.leave = false;
            }
            if unoccupied_bridge(&self.conns[key]).is_some() {
                self.close(key);
            }
        }
    }
}
