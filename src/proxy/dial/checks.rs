//! Health checks over HTTP of the servers that the proxy dials (`check=` of a site). Worker 0 makes
//! them, as it makes the probes of those that are down.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::upstream::{self, CHECK_TIMEOUT, Purpose};

use super::super::closing::End;
use super::super::role::{Pools, Role, ServerPermit};
use super::super::worker::Worker;

/// How late a check may be, at most: a server that has come up meanwhile is seen then.
const LATEST: Duration = Duration::from_secs(1);

impl Worker {
    /// Checks the servers that are up and due.
    pub(super) fn check_servers(&mut self, pools: &Pools) {
        let now = self.conns.now().millis();
        if self.index != 0 || !pools.has_checks || now < self.dialling.check_at {
            return;
        }
        self.dialling.check_at = now + LATEST;
        for server in pools.servers() {
            let Some(at) = server.check_at() else { continue };
            if now < at {
                self.dialling.check_at = self.dialling.check_at.min(at);
            } else if let Some(permit) = server.permit() {
                // One that has its maximum of connections is not asked for one more.
                server.check_begun(now);
                if let Err(error) = self.dial(permit, Purpose::Probe, 0) {
                    self.server_failed(server, Purpose::Probe, &error);
                }
            }
        }
    }

    /// A connection for a check has been made.
    pub(super) fn send_check(&mut self, key: usize, permit: Box<ServerPermit>, request: &[u8]) {
        self.set_role(key, Role::Checking(permit));
        self.conns.set_deadline(key, CHECK_TIMEOUT);
        let (connection, ws) = self.conns.split(key);
        if let Err(error) = connection.conn.send(request, &mut ws.pool) {
            self.check_ended(key, Err(error));
        }
    }

    /// Reads the answer to a check.
    pub(in crate::proxy) fn read_check(&mut self, key: usize) {
        let (connection, ws) = self.conns.split(key);
        match upstream::read_check(&mut connection.conn, ws) {
            Some(outcome) => self.check_ended(key, outcome),
            None if self.conns[key].conn.is_readable() => self.conns.requeue(key),
            None => {}
        }
    }

    pub(in crate::proxy) fn check_timed_out(&mut self, key: usize) {
        self.check_ended(key, Err(upstream::check_timed_out()));
    }

    fn check_ended(&mut self, key: usize, outcome: io::Result<()>) {
        let Some(Role::Checking(permit)) = self.conns.role(key) else { return };
        let (server, now) = (Arc::clone(&permit.server), self.conns.now());
        let peer = self.conns[key].peer;
        self.end(key, End::Close);
        match outcome {
            Ok(()) => server.check_succeeded(peer, now),
            Err(error) => {
                if server.check_failed() {
                    self.server_failed(&server, Purpose::Probe, &error);
                }
            }
        }
    }
}
