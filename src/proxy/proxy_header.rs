//! Proxies in front that announce their clients: a PROXY header comes before the first byte that the
//! client has sent (`net/proxy_protocol.rs`).

use std::fmt::Display;

use crate::net::conn::Received;
use crate::net::log_limiter;
use crate::net::proxy_protocol::{self, Header};

use super::client::HEAD_READ;
use super::closing::End;
use super::role::Role;
use super::worker::Worker;

impl Worker {
    /// Reads more of a PROXY header. What follows it is the connection's own.
    #[inline(never)]
    pub(super) fn read_proxy_header(&mut self, key: usize) {
        let header = loop {
            let (connection, ws) = self.conns.split(key);
            let conn = &mut connection.conn;
            match conn.receive(&mut ws.scratch[..HEAD_READ]) {
                Received::Bytes(count) => conn.input.push(&ws.scratch[..count], &mut ws.pool),
                Received::Nothing => return,
                // A health check that only connects.
                Received::End if conn.input.is_empty() => return self.end(key, End::Close),
                Received::End => {
                    return self.refuse_header(key, &"the connection ended in the PROXY header");
                }
                Received::Broken(_) => return self.end(key, End::Close),
            }
            match proxy_protocol::parse(conn.input.bytes()) {
                Ok(None) => {}
                Ok(Some(header)) => break header,
                Err(malformed) => return self.refuse_header(key, &malformed),
            }
        };
        self.take_proxy_header(key, header);
    }

    /// The header is whole: the connection becomes what it would have been without one, from the
    /// address that the header announces. Its deadline stays.
    fn take_proxy_header(&mut self, key: usize, header: Header) {
        let (connection, ws) = self.conns.split(key);
        connection.conn.input.consume(header.len, &mut ws.pool);
        if let Some(client) = header.client {
            connection.announce(client.ip());
        }
        let peer = connection.peer;
        let Some(Role::AwaitingProxyHeader { accepts, newcomer, encryption }) =
            connection.role_mut()
        else {
            return;
        };
        let (accepts, newcomer) = (accepts.clone(), newcomer.take());
        let encryption = std::mem::take(encryption);
        let Some(role) = self.first_role(peer, accepts, newcomer, &encryption) else {
            return self.end(key, End::Close);
        };
        self.set_role(key, role);
        if self.start_tls(key, &encryption) {
            return;
        }
        // No event tells of what has come together with the header.
        self.conns.requeue(key);
    }

    /// The header did not arrive in time.
    #[inline(never)]
    pub(super) fn proxy_header_timed_out(&mut self, key: usize) {
        self.refuse_header(key, &"no PROXY header came in time");
    }

    /// A peer that is to announce its clients has not done so. It gets no answer: nobody knows what
    /// it speaks.
    fn refuse_header(&mut self, key: usize, why: &dyn Display) {
        self.stats().headers_refused.add(1);
        if let Some(count) = self.header_refused.allow(self.conns.now().millis()) {
            let others = log_limiter::suppressed(count, " closed");
            let peer = self.conns[key].peer;
            log::warn!("{peer}, which is in accept-proxy, closed: {why}{others}");
        }
        self.end(key, End::Close);
    }
}
